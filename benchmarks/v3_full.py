"""The document's sizes on real candles, once to the end: what V3 reaches, what its account earns, how long it takes.

python -m benchmarks.v3_full [--data-dir FOLDER] [--work FOLDER]

Runs `cryptolab v3 --coins BTCUSDT --timeframes 15m --profile full --rows 20000` (an interrupted run takes up where it
stopped) and stores what it found in benchmarks/results/v3_full.json. AutoML stops after 60 tries instead of an hour,
because a search that ends by the clock finds something else each time.
"""
import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

from cryptolab.files import plain, write_json
from cryptolab.systems.v3.document import run_steps
from cryptolab.systems.v3.request import Request

STORE = Path(__file__).parent / "results" / "v3_full.json"
COMMAND = (
    "cryptolab v3 --source local --data-dir ../shared/data --profile full --coins BTCUSDT --timeframes 15m --rows 20000"
)


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--data-dir", default="../shared/data")
    cli.add_argument("--work", help="folder of the run; the same folder goes on with an interrupted run")
    asked = cli.parse_args()
    folder = Path(asked.work or tempfile.mkdtemp()) / "v3_ultimate"
    request = Request(
        folder, ("BTCUSDT",), ("15m",), data_dir=asked.data_dir, rows=20_000, params={"profile": "full", "seed": 0},
    )
    done = run_steps(request, log=lambda line: print(line, flush=True))
    manifest = json.loads((folder / "models" / "manifest.json").read_text())
    keep = {step: done["results"][step] for step in ("training", "backtest", "export")}
    write_json(STORE, plain({
        "system": "v3", "command": COMMAND, "stored_by": "python -m benchmarks.v3_full", **keep,
        "fitted": manifest["fitted"], "seconds": manifest["seconds"], "versions": manifest["versions"],
        "training_seconds": round(sum(manifest["seconds"].values())),
        "machine": {"cores": os.cpu_count(), "machine": platform.machine()},
    }))
    print(STORE)


if __name__ == "__main__":
    main()
