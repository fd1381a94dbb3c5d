"""Does every technique of Ultimate earn its place?

python -m benchmarks.earns_its_place [--data-dir shared/data] [--coins A,B] [--seeds 2] [--limit 12000] [--trials 50]

The study of `cryptolab study ultimate` on hourly candles, stored in benchmarks/results/earns_its_place.json after every
step (with --techniques: at the end, beside the rows of the others, which keep the name of the code that made them).
Finished steps lie in the folder --work, so that a killed run goes on. Seconds in the file are those of the last
call.
"""

import argparse
import json
from pathlib import Path

from cryptolab.files import plain, write_json
from cryptolab.runs.study.arms import STUDY_SIZES
from cryptolab.runs.study.study import joined_studies, run_study, study_candles, study_text
from cryptolab.systems.artefacts import package_versions

STORE = Path(__file__).parent / "results" / "earns_its_place.json"


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--data-dir", default="shared/data", help="folder of candles")
    cli.add_argument("--coins", default="BTCUSDT,ETHUSDT,SOLUSDT", help="coins of the panel")
    cli.add_argument("--seeds", type=int, default=2, help="networks per arm")
    cli.add_argument("--limit", type=int, default=12_000, help="newest candles of each coin")
    cli.add_argument("--trials", type=int, default=50, help="trials of the search")
    cli.add_argument("--techniques", help="names with commas; the rows of others stay as stored; default: all")
    cli.add_argument("--work", default="reports/.work/study", help="folder of finished steps")
    args = cli.parse_args()
    tables = study_candles(tuple(args.coins.split(",")), data_dir=args.data_dir, limit=args.limit)
    some = args.techniques and tuple(args.techniques.split(","))
    stored = json.loads(STORE.read_text(encoding="utf-8")) if some and STORE.is_file() else None
    command = (
        f"python -m benchmarks.earns_its_place --coins {args.coins} --seeds {args.seeds} --limit {args.limit} "
        f"--trials {args.trials}" + (f" --techniques {args.techniques}" if some else "")
    )
    result = run_study(
        tables, args.seeds, some, STUDY_SIZES["quick"] | {"trials": args.trials}, work=args.work,
        store=None if stored else STORE, command=command, log=lambda line: print(line, flush=True),
    )
    result = joined_studies(stored, result)
    versions = {k: v for k, v in package_versions().items() if k in ("numpy", "keras", "tensorflow", "lightgbm")}
    write_json(STORE, plain(result | {"versions": versions}))
    print(study_text(result))


if __name__ == "__main__":
    main()
