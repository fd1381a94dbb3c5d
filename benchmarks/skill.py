"""Can V9, V3 and Ultimate find what is there, and does V9 find nothing where nothing is?

python -m benchmarks.skill [planted] [v3] [ultimate] [null] [rivals] [--data-dir FOLDER] [--profile quick] [--seeds 5]

planted  a market with an edge of 0.15 (best possible accuracy 0.65): the direction model's accuracy per seed
v3       the same market with 40,000 candles: accuracy of V3's stack (three boosters, next close) and of each member per
         seed; stack minus member as paired differences over the seeds
ultimate the same 40,000 candles: accuracy of Ultimate's probability per seed, all tasks learned at once
null     markets without direction: p-values of direction and price, volatility against the market's true sigma
rivals   BTCUSDT 1h, 20,000 candles: AUC of V9, LightGBM and logistic regression on the same rows and features
walk     every coin of a folder walked forward: see `python -m benchmarks.skill walk --help` (stored in walk.json)

Results are stored in benchmarks/results/skill.json, with the command that made each; finished seeds are not computed
again unless the library's fitting code has changed (--force computes all).
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy import stats

from cryptolab.config import seed_everything
from cryptolab.data import load_candles, market_truth, null_market, planted_market
from cryptolab.evaluation import comparison
from cryptolab.evaluation.rivals import volatility_baselines
from cryptolab.evaluation.metrics import accuracy_interval
from cryptolab.models.boosting import BOOSTERS
from cryptolab.models.volatility import range_to_sigma
from cryptolab.files import plain, write_json
from cryptolab.systems.artefacts import library_code
from cryptolab.audit.compare import compare
from cryptolab.systems.ultimate.system import Ultimate
from cryptolab.systems.v3.system import V3
from cryptolab.systems.v9 import V9

from . import walk

HERE = Path(__file__).parent
STORE = HERE / "results" / "skill.json"
# whose code shapes these numbers
ROOMS = (
    "config", "files", "faces", "data", "features", "labels", "validation", "models", "systems", "evaluation",
    "backtest", "audit/compare",
)


SMALL = {"price_epochs": 1, "trees": 10}  # what is not asked about


def judged(candles, profile, seed, **sizes):
    "One system, how it compares, and the seconds of its fit."
    seed_everything(seed)
    start = time.perf_counter()
    system = V9(profile=profile, seed=seed, sizes=sizes or None).fit(candles, log=None)
    seconds = round(time.perf_counter() - start, 1)
    return system, compare(system, candles, seed=seed), seconds


def planted(profile, seed, data_dir):
    "Accuracy of the direction model where 0.65 is the best possible."
    system, found, seconds = judged(planted_market(edge=0.15, seed=seed), profile, seed, **SMALL)
    b = found.boards["direction"]
    return {
        "n": int(b.n["V9"]), "accuracy": b.accuracy["V9"], "low": b.accuracy_low["V9"], "high": b.accuracy_high["V9"],
        "best": b.accuracy["best possible"], "best_epoch": system.histories_["direction"].attrs["best_epoch"],
        "seconds": seconds,
    }


def null(profile, seed, data_dir):
    "p-values where there is nothing to find, and the volatility forecast against the market's true sigma."
    candles = null_market(seed=seed)
    system, found, seconds = judged(candles, profile, seed)
    train, test = (found.rows["direction"][part] for part in ("train", "test"))
    labels = system.labels(candles)
    r = labels["price"].y
    har = volatility_baselines(candles, labels["volatility"].y[found.rows["volatility"]["train"]])["HAR"]
    sigmas = {
        "V9": found.forecast.sigma[test], "HAR": range_to_sigma(r[train], har[train]) * har[test],
        "true sigma": market_truth(candles).true_sigma[test],
    }
    s = comparison.volatility_comparison(r[test].abs(), sigmas, "true sigma", 1)
    return {
        "n": len(test), "p_direction": found.boards["direction"].p_majority["V9"],
        "p_price": found.boards["price"].p_zero["V9"], "qlike": s.qlike.to_dict(),
        "skill_over_true_sigma": s.skill["V9"], "p_over_true_sigma": s.p_reference["V9"], "seconds": seconds,
    }


def rivals(profile, seed, data_dir):
    "AUC of V9, LightGBM and logistic regression on real candles."
    candles = load_candles("BTCUSDT", "1h", source="local", data_dir=data_dir, limit=20_000, warmup=200)
    system, found, seconds = judged(candles, profile, seed, **SMALL)
    b, test = found.boards["direction"], found.rows["direction"]["test"]
    keep = ["accuracy", "roc_auc", "roc_auc_low", "roc_auc_high"]
    methods = "V9", "LightGBM", "logistic regression"
    return {"n": len(test), "last": str(test[-1]), "best_epoch": system.histories_["direction"].attrs["best_epoch"],
            **{name: b.loc[name, keep].to_dict() for name in methods}, "seconds": seconds}


# the planted rule is a sum: shallow trees, many of them
ADDITIVE = {"boost_depth": 2, "boost_rate": 0.05, "boost_trees": 1500, "boost_patience": 100}


def planted_v3(profile, seed, data_dir):
    "Accuracy of V3's stack and of its members where 0.65 is the best possible."
    start, candles = time.perf_counter(), planted_market(edge=0.15, n=40_000, seed=seed)
    system = V3(
        label="next_close", profile=profile, seed=seed, members=BOOSTERS, select=24, threads=1, sizes=ADDITIVE,
    ).fit(candles, log=None)
    found, test, folds = system.results_, system.rows("test"), system.stack_.folds
    y, p = (table[test].to_numpy() for table in (
        system.labels(candles)["direction"]["y"], system.forecast(candles)["p_up"]
    ))
    low, high = accuracy_interval((p >= 0.5) == y)
    truth = market_truth(candles)["true_p_up"][test].to_numpy()
    known = system.labels(candles)["direction"]["y"][folds.index].to_numpy()
    return {
        "n": len(test), "accuracy": found["ensemble"]["accuracy"], "low": low, "high": high,
        "best": float(((truth > 0.5) == y).mean()), "auc": found["ensemble"]["auc"],
        "members": {name: scores["accuracy"] for name, scores in found["members"].items()},
        "chosen": max(folds, key=lambda name: ((folds[name] >= 0.5) == known).mean()),
        "seconds": round(time.perf_counter() - start, 1),
    }


def paired(seeds):
    "Stack minus member over the seeds, with Student's interval: each member, the best in folds, the best in hindsight."
    runs, out = list(seeds.values()), {}
    others = {
        **{name: [run["members"][name] for run in runs] for name in runs[0]["members"]},
        "best member in folds": [run["members"][run["chosen"]] for run in runs],
        "best member in hindsight": [max(run["members"].values()) for run in runs],
    }
    stack = np.array([run["accuracy"] for run in runs])
    for name, other in others.items():
        gain = stack - np.array(other)
        reach = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
        out[name] = {"difference": gain.mean(), "low": gain.mean() - reach, "high": gain.mean() + reach}
    return {"seeds": len(runs), "accuracy": stack.mean(), "best": np.mean([run["best"] for run in runs]), "paired": out}


def planted_ultimate(profile, seed, data_dir):
    "Accuracy of Ultimate's probability where 0.65 is the best possible."
    start, candles = time.perf_counter(), planted_market(edge=0.15, n=40_000, seed=seed)
    system = Ultimate(profile=profile, seed=seed, threads=1).fit(candles, log=None)
    test, found = system.rows("test"), system.results_
    y = system.labels(candles)["direction"]["y"][test].to_numpy()
    p = system.forecast(candles)["p_up"][test].to_numpy()
    low, high = accuracy_interval((p > 0.5) == y)
    truth = market_truth(candles)["true_p_up"][test].to_numpy()
    return {
        "n": len(test), "accuracy": float(((p > 0.5) == y).mean()), "low": low, "high": high,
        "best": float(((truth > 0.5) == y).mean()), "auc": found["direction"]["roc_auc"],
        "quantiles": {h: {k: v[k] for k in ("loss", "loss_training_quantiles")} for h, v in found["quantiles"].items()},
        "regime": found["regime"], "best_epoch": system.histories_["network"].attrs["best_epoch"],
        "seconds": round(time.perf_counter() - start, 1),
    }


STUDIES = {
    "planted": (planted, 3), "v3": (planted_v3, 5), "ultimate": (planted_ultimate, 3), "null": (null, 5),
    "rivals": (rivals, 3),
}


def main():
    if sys.argv[1:2] == ["walk"]:
        return walk.main(sys.argv[2:])
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("studies", nargs="*", help="planted, v3, ultimate, null, rivals; all when none is named")
    cli.add_argument("--data-dir", default="../shared/data", help="folder with BTCUSDT_1h for `rivals`")
    cli.add_argument("--profile", default="quick")
    cli.add_argument("--seeds", type=int, help="how many seeds (default: 3, 5, 3, 5, 3)")
    cli.add_argument("--force", action="store_true", help="compute finished seeds again")
    args = cli.parse_args()
    if unknown := set(args.studies) - set(STUDIES):
        cli.error(f"unknown study {', '.join(unknown)}; choose from {', '.join(STUDIES)}")
    stored = json.loads(STORE.read_text()) if STORE.exists() else {}
    code = library_code(ROOMS)
    for name in args.studies or STUDIES:
        study, seeds = STUDIES[name]
        for seed in range(args.seeds or seeds):
            done = stored.get(name, {})
            if args.force or done.get("code") != code or done.get("profile") != args.profile:
                if seed == 0:
                    command = f"python -m benchmarks.skill {name}"
                    done = {"command": command, "code": code, "profile": args.profile, "seeds": {}}
            if str(seed) not in done["seeds"]:
                done["seeds"][str(seed)] = plain(study(args.profile, seed, args.data_dir))
                stored[name] = done
                STORE.parent.mkdir(exist_ok=True)
                write_json(STORE, stored)
            print(name, seed, json.dumps(done["seeds"][str(seed)]), flush=True)
        if name == "v3":
            done["summary"] = plain(paired(done["seeds"]))
            write_json(STORE, stored)
            print(name, json.dumps(done["summary"]), flush=True)


if __name__ == "__main__":
    main()
