"""Every system walked forward through every coin of a folder, beside the reference system and what costs nothing.

python -m benchmarks.skill walk [--data-dir FOLDER] [--since 2024-07-01] [--coins A,B] [--timeframes 1h] [--systems v9]

Each system is refitted on a schedule (--train, --step) and judged on the months behind; V9 and the reference system,
which is always walked, learn from all coins of the folder. Results lie in benchmarks/results/walk.json by coin and
timeframe, with the range of the judged rows, and count in the ledger beside it; finished folds lie in --work.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from cryptolab.audit.compare import compare
from cryptolab.config import CryptolabError
from cryptolab.data import load_candles
from cryptolab.data.candles import fingerprint
from cryptolab.data.local import parse_candle_name
from cryptolab.evaluation.events import auc_difference
from cryptolab.evaluation.ledger import TrialLedger
from cryptolab.evaluation.metrics import qlike_loss, roc_auc
from cryptolab.evaluation.significance import skill
from cryptolab.files import plain, write_json
from cryptolab.systems.artefacts import library_code
from cryptolab.systems.registry import system_class
from cryptolab.systems.walk_forward import walk_forward

RESULTS = Path(__file__).parent / "results"
STORE, LEDGER = RESULTS / "walk.json", RESULTS / "walk_trials.jsonl"
BLOCK = 24.0  # rows of a block of the bootstrap: a day of hours


def candle_names(folder, timeframes):
    "(symbol, timeframe) of every candle file of a folder."
    found = {parse_candle_name(path) for path in sorted(Path(folder).iterdir()) if path.is_file()}
    return sorted((s, t) for s, t in found if s and t in timeframes)


def one_walk(name, candles, pool, args, work):
    "A system walked through one coin as `cryptolab run --walk-forward` does (`-alone`: with no other coin or system)."
    cls, alone = system_class(name.removesuffix("-alone")), name.endswith("-alone")
    params = {"profile": args.profile} if "profile" in cls.parameters() else {}
    params |= {"threads": args.threads} if "threads" in cls.parameters() else {}
    params |= {} if alone else cls.walk_params(list(pool))
    pooled = "pool" in params
    return walk_forward(
        cls(**params), candles, args.train or ("3y" if alone else cls.walk_train), args.step, args.folds,
        since=args.since, work=work, pool=pool if pooled else None,
        log=lambda line: print(" ", name, line, flush=True),
    )


def scores(judged, labels):
    "AUC, QLIKE and price error of a system, of the reference and of the best free methods, paired."
    out = {}
    if "direction" in judged.methods:
        methods = {key: np.asarray(p) for key, p in judged.methods["direction"].items()}
        label = labels["direction"]["y"][judged.rows["direction"]["test"]].to_numpy()
        out["direction"] = {"n": len(label), "auc": {key: roc_auc(label, p) for key, p in methods.items()}}
        own = next(iter(methods))
        out["direction"]["ahead"] = {
            key: auc_difference(label, methods[own], p, BLOCK) for key, p in methods.items()
            if key != own and np.ptp(p) > 0
        }
    if "volatility" in judged.methods:
        y = labels["volatility"]["y"][judged.rows["volatility"]["test"]].to_numpy()
        moved = y > 0
        loss = {key: qlike_loss(y[moved], np.asarray(f)[moved]) for key, f in judged.methods["volatility"].items()}
        own = next(iter(loss))
        log = {key: np.log(np.asarray(f)[moved]) for key, f in judged.methods["volatility"].items()}
        spread = np.square(np.log(y[moved]) - np.log(y[moved]).mean()).sum()
        out["volatility"] = {
            "n": int(moved.sum()), "qlike": {key: each.mean() for key, each in loss.items()},
            "r2_log": {key: 1 - np.square(np.log(y[moved]) - f).sum() / spread for key, f in log.items()},
            "ahead": {key: skill(loss[own], each, 14) for key, each in loss.items() if key != own},
        }
    if "price" in judged.boards:
        out["price"] = judged.boards["price"].to_dict("index")
    return out


def coin(symbol, timeframe, tables, args):
    "All systems on one coin."
    candles = tables[symbol]
    pool = {other: table for other, table in tables.items() if other != symbol}
    walks = {name: one_walk(name, candles, pool, args, args.work) for name in args.systems}
    if "reference" not in walks:  # a stacked system walked with it
        found = next((w for w in walks.values() if "p_up_reference" in w.table_), None)
        rival = found and found.answers("reference", "Reference")
        rival = rival or one_walk("reference", candles, pool, args, args.work)
        walks = {"reference": rival} | walks
    found = {}
    for name, walk in walks.items():
        others = {} if name == "reference" else {"Reference": walks["reference"]}
        if "p_up_alone" in walk.table_:  # what it is without the reference
            others[f"{walk.title} alone"] = walk.answers("alone")
        judged = compare(walk, candles, others=others, seed=0)
        effort = {"folds": len(walk.folds), "seconds": float(walk.folds["seconds"].sum())}
        found[name] = scores(judged, walk.labels(candles)) | effort | {"params": plain(walk.shown_params())}
    test = walks["reference"].rows("test")
    facts = {"first": str(test[0]), "last": str(test[-1]), "candles": len(candles), "pool": list(pool)}
    for name, result in found.items():
        config = {"system": name, "train": args.train, "step": args.step, "since": args.since, "profile": args.profile}
        TrialLedger(LEDGER).record(
            fingerprint(candles), config, result.get("direction", {}).get("auc", {}).get(walks[name].title),
            purpose=args.purpose, code=args.code,
        )
    return facts | {"systems": found}


def table_text(stored):
    "One line per coin and system."
    lines = []
    for key, result in stored.items():
        for name, found in result["systems"].items():
            asked = [(k, m) for k, m in (("direction", "auc"), ("volatility", "qlike")) if k in found]
            own = {k: next(iter(found[k][m].values())) for k, m in asked}
            line = f"{key:16} {name:10} {result['first'][:10]} to {result['last'][:10]}"
            if "direction" in own:
                over = found["direction"]["ahead"].get("Reference" if name != "reference" else "LightGBM")
                line += f"  AUC {own['direction']:.4f}"
                if over:
                    value, low, high = (100 * over[k] for k in ("value", "low", "high"))
                    line += f" ({value:+.2f} points, {low:+.2f} to {high:+.2f})"
            if "volatility" in own:
                qlike = found["volatility"]["qlike"]
                line += f"  QLIKE {own['volatility']:.4f}, log-HAR {qlike.get('log-HAR, season', np.nan):.4f}"
            lines.append(line)
    return "\n".join(lines)


def main(arguments=None):
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--data-dir", default="../shared/data", help="folder of candles")
    cli.add_argument("--coins", help="symbols with commas; default: all of the folder")
    cli.add_argument("--timeframes", default="1h", help="with commas")
    cli.add_argument("--systems", default="v9", help="beside the reference, with commas: v9, v9-alone, hybrid, …")
    cli.add_argument("--since", help="first judged time; default: eight steps back from the newest candle")
    cli.add_argument("--until", help="candles up to here")
    cli.add_argument("--train", help="training stretch; default: the system's own (v9, reference: 6y)")
    cli.add_argument("--step", default="90d", help="judged stretch")
    cli.add_argument("--folds", type=int, help="how many stretches")
    cli.add_argument("--profile", default="quick")
    cli.add_argument("--threads", type=int, help="of the trees; default: all cores")
    cli.add_argument("--work", default="reports/.work/walk", help="folder of finished folds")
    cli.add_argument("--purpose", default="exploration", help="exploration or confirmation, for the ledger")
    cli.add_argument("--store", default=str(STORE), help="file of the results")
    args = cli.parse_args(arguments)
    args.systems = [name for name in args.systems.split(",") if name]
    args.code, store = library_code(), Path(args.store)
    stored = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    wanted = args.coins and args.coins.split(",")
    for timeframe in args.timeframes.split(","):
        names = [symbol for symbol, _ in candle_names(args.data_dir, (timeframe,))]
        tables = {}
        for symbol in names:
            try:
                tables[symbol] = load_candles(
                    symbol, timeframe, source="local", data_dir=args.data_dir, end=args.until, limit=10**7,
                )
            except CryptolabError as e:
                print(f"{symbol} {timeframe} left out: {e.what}", flush=True)
        for symbol in [name for name in tables if not wanted or name in wanted]:
            try:
                found = coin(symbol, timeframe, tables, args)
            except CryptolabError as e:
                print(f"{symbol} {timeframe} left out: {e.what}", flush=True)
                continue
            given = [a for a in (arguments or []) if "/" not in a and a != "--data-dir"]
            command = " ".join(["python -m benchmarks.skill walk", *given])
            stored[f"{symbol} {timeframe}"] = plain(found | {"command": command, "code": args.code})
            write_json(store, stored)
            print(table_text({f"{symbol} {timeframe}": stored[f"{symbol} {timeframe}"]}), flush=True)
    return stored


if __name__ == "__main__":
    main()
