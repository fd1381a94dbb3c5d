"""Do the leak detectors find every leak of the zoo, and leave every clean pipeline in peace?

python -m benchmarks.zoo [--jobs 2] [--seeds 0]
    [--names NAME …] [--part first|later] [--rows 2000] [--data-dir FOLDER]
python -m benchmarks.zoo notebooks [-h]      whole notebooks of strangers, see `benchmarks.zoo_notebooks`

Every pipeline of `cryptolab.audit.zoo.zoo` (written by people who had not seen the detectors) goes through
`audit_pipeline` on its own generated market, once per seed, and on real candles (BTCUSDT 1h of --data-dir) where that
folder is there. Printed and stored in benchmarks/results/zoo.json: sensitivity (share of the leaky pipelines with a
finding on every market), false-alarm rate (share of the clean ones with one on any), both with Wilson intervals over
pipelines, each counted once, by kind of leak, and the same for `backtest-audit` (reads source text) and `nullius`
(compares truncated histories), which judge a part of the steps only. `--names` looks at some pipelines only, with all
evidence, and stores nothing. `--part` takes those that were there when the detectors were written, or those added
later; `--store` names another file.
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from cryptolab.data import load_candles
from cryptolab.audit.leaks.audit import audit_pipeline, audit_text
from cryptolab.evaluation.metrics import accuracy_interval
from cryptolab.audit.zoo.zoo import FIRST, LATER, ZOO, entry, make
from cryptolab.files import plain, write_json
from cryptolab.systems.artefacts import library_code, package_versions

HERE = Path(__file__).parent
STORE = HERE / "results" / "zoo.json"
ROOMS = ("data", "features", "labels", "validation", "evaluation", "audit")  # whose code shapes these numbers
# time an audit may take before it leaves out rarer trials; more than the default, because two run at once
SECONDS = 20.0
PARTS = {"first": list(FIRST), "later": list(LATER)}


def judge(name, market, candles, seconds=SECONDS):
    "Audit one pipeline."
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = audit_pipeline(make(name, candles), candles, seconds=seconds)
    return {
        "name": name, "market": market, "kinds": sorted(set(found["kind"])), "steps": sorted(set(found["step"])),
        "accuracy": found.attrs["accuracy"], "seconds": round(time.perf_counter() - began, 2),
        "text": audit_text(found),
    }


def by_nullius(animal, candles):
    "nullius on the features, and on a split that goes forward in time; None where neither applies."
    import nullius

    pipeline = animal.make(candles)
    context = getattr(pipeline, "context", None)

    def features(data):
        table = pipeline.features(data.set_index("time"))
        return table.rename_axis("time").reset_index()

    def cut(table):
        "Companion tables end where the candles end."
        return None if table is None else {name: part[part.index <= end] for name, part in table.items()}

    class Clock:
        def __call__(self, data):
            nonlocal end
            end = data["time"].iloc[-1]
            if context is not None:
                pipeline.context = cut(context)
            return features(data)

    end, verdicts = candles.index[-1], []
    try:
        verdicts.append(nullius.check_prefix_invariance(Clock(), candles.rename_axis("time").reset_index()).passed)
    except Exception:  # an output it cannot align: not judged
        pass
    if context is not None:
        pipeline.context = context
    X, labels = pipeline.features(candles), pipeline.labels(candles)
    folds = pipeline.split(X, labels)
    folds = [folds] if isinstance(folds, tuple) else folds
    if isinstance(labels, pd.DataFrame) and {"t0", "t1"} <= set(labels) and len(X) == len(candles) and all(
        np.max(a) < np.min(b) for a, b in folds if len(a) and len(b)
    ):
        step = np.diff(candles.index).min()
        ahead = int(((labels["t1"] - labels["t0"]) / step).max())
        verdicts.append(
            nullius.check_split_purging(
                [(np.asarray(a), np.asarray(b)) for a, b in folds], label_horizon=max(0, ahead - 1),
            ).passed
        )
    return None if not verdicts else not all(verdicts)


def by_backtest_audit(animals):
    "backtest-audit on the source of each pipeline's class, as in a file of its own; its two groups of leak rules."
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for animal in animals:
            head = "import numpy as np\nimport pandas as pd\nfrom sklearn.model_selection import train_test_split\n\n\n"
            source = "\n".join(
                line for line in inspect.getsource(animal.build).splitlines() if not line.startswith("@")
            )
            path = Path(folder) / f"{animal.name}.py"
            path.write_text(head + source + "\n")
            tool = Path(sys.executable).with_name("backtest-audit")
            answer = subprocess.run(
                [tool, "check", "--format", "json", "--ignore", "STAT001,STAT002", path], capture_output=True,
                text=True,
            )
            found[animal.name] = "LAB00" in answer.stdout or "LEAK00" in answer.stdout
    return found


def share(flags):
    "Count, share, Wilson interval."
    flags = np.asarray(flags, dtype=float)
    low, high = accuracy_interval(flags) if len(flags) else (np.nan, np.nan)
    return {
        "found": int(flags.sum()), "of": len(flags), "share": float(flags.mean()) if len(flags) else np.nan,
        "low": float(low), "high": float(high),
    }


def once(rows):
    "Both shares, each pipeline counted once: caught on every market, accused on any."
    caught = rows[rows["leaky"]].groupby("name")["found"].all()
    accused = rows[~rows["leaky"]].groupby("name")["found"].any()
    return {"sensitivity": share(caught), "false alarms": share(accused)}


def in_words(name, result):
    "One line."
    return (
        f"{name}: {result['found']} of {result['of']} ({result['share']:.3f}; 95 % interval {result['low']:.3f} to "
        f"{result['high']:.3f})"
    )


def peers(markets):
    "The same question to other tools."
    found = {}
    try:
        flags = by_backtest_audit(ZOO)
        found["backtest-audit"] = {
            "judges": "source text", "sensitivity": share([flags[e.name] for e in ZOO if e.leaky]),
            "false alarms": share([flags[e.name] for e in ZOO if not e.leaky]),
        }
    except FileNotFoundError:
        print("backtest-audit is not installed: left out")
    try:
        import nullius  # noqa: F401

        flags = {e.name: by_nullius(e, markets(e, 0)) for e in ZOO}
        judged = [e for e in ZOO if flags[e.name] is not None]
        found["nullius"] = {
            "judges": "features on truncated candles; splits that go forward",
            "sensitivity": share([bool(flags[e.name]) for e in ZOO if e.leaky]),
            "sensitivity where it applies": share(
                [flags[e.name] for e in judged if e.leaky and e.step in ("features", "split")]
            ),
            "false alarms": share([flags[e.name] for e in judged if not e.leaky]),
        }
    except ImportError:
        print("nullius is not installed: left out")
    return found


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    cli.add_argument("--seeds", type=int, nargs="*", default=[0], help="numbers of the generated markets")
    cli.add_argument("--names", nargs="*", help="these pipelines only, with evidence; nothing is stored")
    cli.add_argument("--part", choices=PARTS, help="only the pipelines that were there first, or those added later")
    cli.add_argument("--store", type=Path, default=STORE, help="file of the results")
    cli.add_argument("--seconds", type=float, default=SECONDS, help="processor time of an audit for rarer trials")
    cli.add_argument("--no-peers", action="store_true", help="leave other tools out")
    cli.add_argument("--data-dir", default="../shared/data", help="folder with BTCUSDT_1h")
    cli.add_argument("--rows", type=int, default=2_000, help="candles per market")
    asked = cli.parse_args()
    from joblib import Parallel, delayed, parallel_config

    animals, began = [entry(n) for n in asked.names] if asked.names else PARTS.get(asked.part, ZOO), time.perf_counter()
    def markets(e, seed):
        return e.candles(asked.rows, seed)
    todo = [(e.name, f"own, seed {seed}", markets(e, seed)) for seed in asked.seeds for e in animals]
    real = {}
    if Path(asked.data_dir).is_dir():
        table = load_candles("BTCUSDT", "1h", source="local", data_dir=asked.data_dir, limit=asked.rows)
        real = {"symbol": "BTCUSDT", "timeframe": "1h", "first": str(table.index[0]), "last": str(table.index[-1])}
        todo += [(e.name, "BTCUSDT 1h", table[["open", "high", "low", "close", "volume"]]) for e in animals]
    else:
        print(f"{asked.data_dir} is not there: generated markets only")
    rows = []
    with parallel_config(backend="loky", inner_max_num_threads=1):
        for row in Parallel(
            n_jobs=asked.jobs, return_as="generator_unordered", batch_size=1,
        )(delayed(judge)(*job, asked.seconds) for job in todo):
            rows.append(row)
            leaky = entry(row["name"]).leaky
            if leaky != bool(row["kinds"]) or asked.names:
                verdict = (
                    "caught"
                    if leaky and row["kinds"]
                    else "MISSED"
                    if leaky
                    else "FALSE ALARM"
                    if row["kinds"]
                    else "left in peace"
                )
                print(
                    f"{verdict} on {row['market']}: {row['name']} ({entry(row['name']).story})\n{row['text']}\n",
                    flush=True,
                )
            elif len(rows) % 20 == 0:
                print(f"{len(rows)} of {len(todo)} audits, {time.perf_counter() - began:.0f} s", flush=True)
    rows = pd.DataFrame(rows).sort_values(["market", "name"]).reset_index(drop=True)
    rows["found"], rows["leaky"] = rows["kinds"].map(bool), [entry(n).leaky for n in rows["name"]]
    rows["kind"] = [entry(n).kind for n in rows["name"]]
    result = {
        "command": "python -m benchmarks.zoo" + f" --part {asked.part}" * bool(asked.part),
        "code": library_code(ROOMS), "versions": package_versions(),
        "rows": asked.rows, "seconds": asked.seconds,
        "pipelines": {"leaky": sum(e.leaky for e in animals), "clean": sum(not e.leaky for e in animals)},
        "real": real, **once(rows), "by market": {}, "by kind": {},
        "parts": {name: once(rows[rows["name"].isin([e.name for e in part])]) for name, part in PARTS.items()},
    }
    for market, part in rows.groupby("market"):
        result["by market"][market] = {
            "sensitivity": share(part.loc[part["leaky"], "found"]),
            "false alarms": share(part.loc[~part["leaky"], "found"]),
        }
    for kind, part in rows.groupby("kind"):
        named = part[part["leaky"]]["kinds"].explode().value_counts()
        result["by kind"][kind] = {
            "leaky": int(part["leaky"].sum()), "caught": int((part["leaky"] & part["found"]).sum()),
            "clean": int((~part["leaky"]).sum()), "accused": int((~part["leaky"] & part["found"]).sum()),
            "named as": {str(k): int(v) for k, v in named.items()},
        }
    result["wrong"] = [
        {"name": r.name, "market": r.market, "leaky": r.leaky, "kinds": r.kinds}
        for r in rows[["name", "market", "leaky", "kinds"]][rows["found"] != rows["leaky"]].itertuples(index=False)
    ]
    result["seconds_per_audit"] = {"median": float(rows["seconds"].median()), "most": float(rows["seconds"].max())}
    if not asked.names:
        result["peers"] = {} if asked.no_peers else peers(markets)
        result["minutes"] = round((time.perf_counter() - began) / 60, 1)
        write_json(asked.store, plain(result))
        for name, peer in result["peers"].items():
            for what in [k for k in peer if k != "judges"]:
                print(in_words(f"{name}, {what}", peer[what]))
        print(pd.DataFrame(result["by kind"]).T.drop(columns="named as").to_string())
    print(in_words("sensitivity", result["sensitivity"]))
    print(in_words("false alarms", result["false alarms"]))
    return 0 if asked.names or not result["wrong"] else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["notebooks"]:
        from benchmarks.zoo_notebooks import main as notebooks

        sys.exit(notebooks(sys.argv[2:]))
    sys.exit(main())
