"""Does `cryptolab audit-notebook` find the leak of every notebook of the second zoo, and leave the clean ones in peace?

python -m benchmarks.zoo notebooks [--names NAME …] [--candles FILE] [--rows 3000] [--jobs 2] [--first]

The notebooks in benchmarks/notebooks are written in the manner of Kaggle and GitHub, several libraries, one leak
each or none; `truth.json` says which, and no audit reads it. Printed and stored in
benchmarks/results/zoo_notebooks.json:
sensitivity (share of the leaky notebooks with a finding) and false alarms (share of the clean ones with one), with
Wilson intervals, by kind, with seconds, and the first meeting (--first: what the detectors said before anything of them
was changed) beside. `--names` looks at some notebooks only, with all evidence, and stores nothing.
"""

import argparse
import json
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from cryptolab.audit.foreign.audit import audit_notebook, audit_text
from cryptolab.audit.foreign.judge import KINDS
from cryptolab.data import load_sample
from cryptolab.data.readers import read_candles
from cryptolab.evaluation.metrics import accuracy_interval
from cryptolab.files import plain, write_json
from cryptolab.systems.artefacts import library_code, package_versions

HERE = Path(__file__).parent
STORE, NOTEBOOKS = HERE / "results" / "zoo_notebooks.json", HERE / "notebooks"


def truths():
    "What each notebook is: {name: leaky, kind, story}."
    return json.loads((NOTEBOOKS / "truth.json").read_text())


def share(flags):
    "Count, share, Wilson interval."
    flags = np.asarray(flags, dtype=float)
    low, high = accuracy_interval(flags) if len(flags) else (np.nan, np.nan)
    mean = float(flags.mean()) if len(flags) else np.nan
    return {"found": int(flags.sum()), "of": len(flags), "share": mean, "low": float(low), "high": float(high)}


def judge(name, candles, rows, jobs):
    "Audit one notebook."
    began = time.perf_counter()
    try:
        found = audit_notebook(NOTEBOOKS / f"{name}.ipynb", candles, rows=rows, together=jobs)
        kinds, text, failed = found.leaks(), audit_text(found), [note for note in found.notes if "failed" in note]
        unjudged = [kind for kind, (verdict, _) in found.verdicts.items() if verdict == "not judged"]
    except Exception:
        kinds, text, failed, unjudged = [], traceback.format_exc(), ["the audit itself failed"], list(KINDS)
    return {
        "name": name,
        "kinds": kinds,
        "failed": failed,
        "not judged": unjudged,
        "seconds": round(time.perf_counter() - began, 1),
        "text": text,
    }


def summary(rows, truth):
    "Both rates, by kind, and what is wrong."
    leaky, clean = ([r for r in rows if truth[r["name"]]["leaky"] == side] for side in (True, False))
    kinds = {}
    for row in leaky:
        kind = kinds.setdefault(truth[row["name"]]["kind"], {"notebooks": 0, "caught": 0, "named": 0})
        kind["notebooks"] += 1
        kind["caught"] += bool(row["kinds"])
        kind["named"] += truth[row["name"]]["kind"] in row["kinds"]
    return {
        "sensitivity": share([bool(r["kinds"]) for r in leaky]),
        "false alarms": share([bool(r["kinds"]) for r in clean]),
        "by kind": kinds,
        "wrong": [
            {"name": r["name"], "kinds": r["kinds"]} for r in rows if bool(r["kinds"]) != truth[r["name"]]["leaky"]
        ],
        "seconds": {"median": float(np.median([r["seconds"] for r in rows])), "most": max(r["seconds"] for r in rows)},
    }


def main(words=None):
    "Audit the notebooks."
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--names", nargs="*", help="these notebooks only, with evidence; nothing is stored")
    cli.add_argument("--candles", help="a file of candles; default: the sample market")
    cli.add_argument("--rows", type=int, default=3_000, help="newest candles to use")
    cli.add_argument("--jobs", type=int, default=2, help="runs at a time")
    cli.add_argument("--first", action="store_true", help="store as the first meeting")
    asked = cli.parse_args(words)
    truth, began = truths(), time.perf_counter()
    candles = read_candles(asked.candles) if asked.candles else load_sample("BTCUSDT", "1h", limit=asked.rows)
    rows = []
    for name in asked.names or truth:
        rows.append(judge(name, candles, asked.rows, asked.jobs))
        right = bool(rows[-1]["kinds"]) == truth[name]["leaky"]
        print(
            f"{'' if right else 'WRONG: '}{name}: {', '.join(rows[-1]['kinds']) or 'no leak'} "
            f"({rows[-1]['seconds']:.0f} s)",
            flush=True,
        )
        if asked.names or not right:
            print(rows[-1]["text"])
    found = summary(rows, truth)
    for what in ("sensitivity", "false alarms"):
        r = found[what]
        print(f"{what}: {r['found']} of {r['of']} ({r['share']:.3f}; 95 % interval {r['low']:.3f} to {r['high']:.3f})")
    print(f"median {found['seconds']['median']:.0f} s per notebook, at most {found['seconds']['most']:.0f} s")
    if not asked.names:
        old = json.loads(STORE.read_text()) if STORE.exists() else {}
        found["notebooks"] = {
            r["name"]: {**truth[r["name"]], "found": r["kinds"], "seconds": r["seconds"]} for r in rows
        }
        first = found if asked.first else old.get("first meeting")
        result = {
            "command": "python -m benchmarks.zoo notebooks",
            "code": library_code(("audit",)),
            "versions": package_versions(),
            "candles": {"rows": len(candles), "source": asked.candles or "sample"},
            **found,
            "minutes": round((time.perf_counter() - began) / 60, 1),
            "first meeting": first
            and {k: first[k] for k in ("sensitivity", "false alarms", "wrong", "seconds") if k in first},
        }
        write_json(STORE, plain(result))
    return 0 if asked.names or not found["wrong"] else 1


if __name__ == "__main__":
    sys.exit(main())
