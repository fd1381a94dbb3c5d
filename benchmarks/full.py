"""The document's sizes on real candles, once to the end: what V9 reaches and how long it takes.

python -m benchmarks.full [--data-dir FOLDER] [--from REPORT_FOLDER]

Runs `cryptolab run BTCUSDT 1h --source local --limit 10000 --profile full` (about an hour on two cores; an interrupted
run takes up where it stopped) and stores its result in benchmarks/results/v9_full.json. `--from` stores a report that
is already there.
"""

import argparse
import os
import platform
from pathlib import Path

from cryptolab.files import write_json
from cryptolab.reports.results import read_result
from cryptolab.runs.report import run_report

STORE = Path(__file__).parent / "results" / "v9_full.json"
COMMAND = "cryptolab run BTCUSDT 1h --source local --data-dir ../shared/data --limit 10000 --profile full"


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--data-dir", default="../shared/data")
    cli.add_argument("--from", dest="report", help="folder of a finished report")
    asked = cli.parse_args()
    folder = asked.report or run_report(
        "BTCUSDT", "1h", source="local", data_dir=asked.data_dir, profile="full", limit=10_000,
        progress=lambda kind, text, done, total: print(text, flush=True) if text else None,
    )
    result = read_result(Path(folder) / "result.json")
    if result["params"]["profile"] != "full" or result["data"]["source"] == "sample":
        cli.error(f"{folder} is not a full run on real candles")
    keep = (
        "symbol", "timeframe", "finding", "data", "rows", "direction", "volatility", "next_sigma", "price", "interval",
        "best_epoch", "ensemble", "versions", "run",
    )
    machine = {"cores": os.cpu_count(), "machine": platform.machine()}
    write_json(
        STORE,
        {
            "system": "v9", "command": COMMAND, "stored_by": "python -m benchmarks.full", "machine": machine,
            **{k: result[k] for k in keep},
        },
    )
    print(STORE)


if __name__ == "__main__":
    main()
