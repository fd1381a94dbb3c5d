"""Does a pipeline keep quiet where nothing is, and from which edge on does it speak?

python -m benchmarks.controls [null] [v9] [trading] [v3] [ultimate] [walk] [planted] [blind]
                              [--jobs 2] [--data-dir FOLDER] [--only N]

null     LightGBM, walk-forward, on 200 generated markets, and on 60 flipped and 60 shuffled ones made from BTCUSDT 1h
v9       V9 (profile smoke) on 40 generated markets
trading  V2 (equally distant barriers) on 60 generated and 40 flipped markets, the hybrid ensemble (which side is
         touched) on 40 generated ones; smoke
v3       V3 (three boosters, next close) on 40 generated markets, smoke
ultimate Ultimate (one coin, next close) on 40 generated markets, smoke
walk     the reference system (quick) and V9 (smoke), walked forward in four folds, on 40 generated markets each
planted  LightGBM on planted edges of 0.5 to 6 points, 40 markets each: the minimum-detectable-edge curve
blind    the same learner with all 46 columns of the last four candles, edges of 4 and 6 points, 40 markets each

Results are stored in benchmarks/results/controls.json, with the command that made each. Finished markets lie in
.cache/controls, so that an interrupted study takes up where it stopped; a study whose code has not changed is not
computed again. `--only N` computes the first N markets of every study and stores nothing. Null and planted take about
twenty minutes each on two cores, V9 ten, blind an hour.
"""

import argparse
import functools
import json
import os
import platform
import time
from pathlib import Path

import pandas as pd

from cryptolab.data import load_candles
from cryptolab.audit.controls import EDGES, control_code, controls, lightgbm_walk_forward, minimum_detectable_edge
from cryptolab.audit.pipelines.hybrid import hybrid_control
from cryptolab.audit.pipelines.ultimate import ultimate_control
from cryptolab.audit.pipelines.v2 import v2_control
from cryptolab.audit.pipelines.v3 import v3_control
from cryptolab.audit.pipelines.walk import walk_control
from cryptolab.features.sets.v9 import v9_feature_names
from cryptolab.files import plain, write_json
from cryptolab.systems.artefacts import package_versions
from cryptolab.systems.v9 import V9

HERE = Path(__file__).parent
STORE = HERE / "results" / "controls.json"
WORK = HERE.parent / ".cache" / "controls"
BLIND = functools.partial(lightgbm_walk_forward, columns=tuple(v9_feature_names()), contrasts=False)
V9_SMOKE = V9(profile="smoke", threads=1)

STUDIES = {  # study -> parts: name, system, markets, what
    "null": [
        ("LightGBM, garch", lightgbm_walk_forward, 200, "garch"),
        ("LightGBM, flipped", lightgbm_walk_forward, 60, "flipped"),
        ("LightGBM, shuffled", lightgbm_walk_forward, 60, "shuffled"),
    ],
    "v9": [("V9 smoke, garch", V9_SMOKE, 40, "garch")],
    "trading": [
        ("V2, garch", v2_control, 60, "garch"),
        ("V2, flipped", v2_control, 40, "flipped"),
        ("Hybrid, garch", hybrid_control, 40, "garch"),
    ],
    "v3": [("V3 smoke, garch", v3_control, 40, "garch")],
    "ultimate": [("Ultimate smoke, garch", ultimate_control, 40, "garch")],
    "walk": [
        ("Reference walked, garch", functools.partial(walk_control, profile="quick"), 40, "garch"),
        ("V9 walked, smoke, garch", functools.partial(walk_control, name="v9"), 40, "garch"),
    ],
    "planted": [("LightGBM", lightgbm_walk_forward, 40, EDGES)],
    "blind": [("LightGBM, 46 columns", BLIND, 40, (0.04, 0.06))],
}


def show(line):
    "A line at once, also into a file."
    print(line, flush=True)


def run(system, n, what, jobs, candles):
    "One part of a study: what is stored of it."
    if isinstance(what, str):
        real = candles() if what != "garch" else None
        table = controls(system, n, what, real, jobs=jobs, work=WORK, log=show)
        facts = {} if real is None else {
            "data": {k: real.attrs.get(k) for k in ("symbol", "timeframe", "fingerprint")}
            | {"last": str(real.index[-1])}
        }
        columns = {"p_values": "p_value", "p_uniform": "p_uniform", "p_stakes": "p_stakes"}
        return {
            "kind": what, **facts, "summary": table.attrs["summary"],
            **{k: table[column].round(5).tolist() for k, column in columns.items()},
            "judged_rows": int(table["n"].min()), "seconds_per_market": round(table["seconds"].mean(), 2),
        }
    curve = minimum_detectable_edge(system, what, n, jobs=jobs, work=WORK, log=show)
    runs = pd.DataFrame(curve.attrs["runs"])
    of = {p: {str(e): runs.loc[runs["edge"] == e, p].round(5).tolist() for e in what} for p in ("p_value", "p_stakes")}
    return {
        "kind": "planted",
        "smallest_edge": {"paired": curve.attrs["smallest"], "stakes": curve.attrs["smallest_stakes"]},
        "curve": {str(e): row for e, row in plain(curve).items()}, "p_values": of["p_value"],
        "p_stakes": of["p_stakes"], "judged_rows": int(runs["n"].min()),
        "seconds_per_market": round(runs["seconds"].mean(), 2),
    }


def power(curve):
    "Edge -> found by the paired test, found by stakes, markets."
    return {edge: [c["found"], c["found_stakes"], c["n"]] for edge, c in curve.items()}


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("studies", nargs="*", help=", ".join(STUDIES) + "; all when none is named")
    cli.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    cli.add_argument(
        "--data-dir", default="../shared/data", help="folder with BTCUSDT_1h for the flipped and shuffled markets",
    )
    cli.add_argument("--only", type=int, help="first N markets only, nothing is stored")
    cli.add_argument("--force", action="store_true", help="put finished studies together again")
    asked = cli.parse_args()
    if unknown := set(asked.studies) - set(STUDIES):
        cli.error(f"unknown study {', '.join(unknown)}; choose from {', '.join(STUDIES)}")
    candles = functools.cache(
        lambda: load_candles("BTCUSDT", "1h", source="local", data_dir=asked.data_dir, limit=10_000)
    )
    stored = json.loads(STORE.read_text()) if STORE.exists() else {}
    for study in asked.studies or STUDIES:
        for name, system, n, what in STUDIES[study]:
            code, done = control_code(system), stored.get(name, {})
            if asked.only or asked.force or done.get("code") != code or done.get("markets") != n:
                start = time.perf_counter()
                found = run(system, min(n, asked.only or n), what, asked.jobs, candles)
                made = {
                    "command": f"python -m benchmarks.controls {study}", "code": code, "markets": n, "rows": 10_000,
                    "versions": package_versions(),
                }
                machine = {"cores": os.cpu_count(), "machine": platform.machine()}
                done = {
                    **made, **found, "machine": machine,
                    "run": {"minutes": round((time.perf_counter() - start) / 60, 1)},
                }
                if not asked.only:
                    stored[name] = plain(done)
                    write_json(STORE, stored)
            show(
                f"{name}: {json.dumps(plain(done.get('summary') or power(done['curve'])))}"
            )


if __name__ == "__main__":
    main()
