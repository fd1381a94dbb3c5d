"""How fast are the features, beside the libraries people use for them?

python -m benchmarks.features [--data-dir FOLDER] [--quick]

speed     million cells per second of v9, v3 and of `ta`, TA-Lib, pandas and polars on the same columns, BTCUSDT 15m
          and 1m, minimum of the repeats, compilation excluded
ratios    v9 published beside `ta` on 38,000 rows; the columns that TA-Lib has beside TA-Lib itself
growth    time for ten times the rows. Gigabytes of new memory cost time by themselves (a virtual machine may have to
          ask its host for every page), so the result goes into memory that is reused; the ratio with new memory is
          printed beside it
memory    peak of the resident size while v3 is computed, above that before, as a multiple of the result
stream    time of `FeatureStream.update` per candle

Results are stored in benchmarks/results/features.json with the command that made them. --quick leaves out `ta` on the
1m candles.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from cryptolab.features.registry import feature_names, features
from cryptolab.features.stream import FeatureStream
from cryptolab.files import write_json

HERE = Path(__file__).parent
STORE = HERE / "results" / "features.json"
COLUMNS = ["open", "high", "low", "close", "volume"]


def read(folder, name, rows=None):
    "Candles of the test data, newest rows."
    table = pd.read_parquet(
        Path(folder) / f"{name}.parquet"
    ).set_index("timestamp").rename_axis("open_time")[COLUMNS].astype("float64")
    table = table if rows is None else table.iloc[-rows:]
    table.attrs = {"symbol": name.split("_")[0], "timeframe": name.split("_")[1]}
    return table


def quickest(function, repeats=3, limit=30.0):
    "Least seconds of some calls; one call only when it takes long."
    best, start = np.inf, time.perf_counter()
    for _ in range(repeats):
        t = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - t)
        if time.perf_counter() - start > limit:
            break
    return best


# ---- the same columns by other libraries

def by_ta(candles):
    "The published v9 columns by `ta`."
    sys.path.insert(0, str(HERE.parent / "tests"))
    from test_features import ta_reference

    return ta_reference(candles)


TALIB = {
    "rsi_14": lambda t, c: t.RSI(c.c, 14), "rsi_7": lambda t, c: t.RSI(c.c, 7), "macd": lambda t, c: t.MACD(c.c),
    "bb_high": lambda t, c: t.BBANDS(c.c, 20), "atr_14": lambda t, c: t.ATR(c.h, c.l, c.c, 14),
    "sma_10": lambda t, c: t.SMA(c.c, 10), "sma_20": lambda t, c: t.SMA(c.c, 20), "sma_50": lambda t, c: t.SMA(c.c, 50),
    "ema_12": lambda t, c: t.EMA(c.c, 12), "ema_26": lambda t, c: t.EMA(c.c, 26),
    "volume_mean_20": lambda t, c: t.SMA(c.v, 20), "return_1": lambda t, c: t.ROCP(c.c, 1),
    "momentum_5": lambda t, c: t.MOM(c.c, 5), "stoch_k": lambda t, c: t.STOCHF(c.h, c.l, c.c, 14, 3),
    "williams_r": lambda t, c: t.WILLR(c.h, c.l, c.c, 14), "roc_12": lambda t, c: t.ROC(c.c, 12),
    "cci_20": lambda t, c: t.CCI(c.h, c.l, c.c, 20), "adx_14": lambda t, c: t.ADX(c.h, c.l, c.c, 14),
    "plus_di_14": lambda t, c: t.PLUS_DI(c.h, c.l, c.c, 14), "minus_di_14": lambda t, c: t.MINUS_DI(c.h, c.l, c.c, 14),
    "aroon_up_25": lambda t, c: t.AROON(c.h, c.l, 25), "mfi_14": lambda t, c: t.MFI(c.h, c.l, c.c, c.v, 14),
    "obv": lambda t, c: t.OBV(c.c, c.v),
}
# what one call of TA-Lib returns together
TOGETHER = {
    "macd": ["macd", "macd_signal", "macd_diff"], "bb_high": ["bb_high", "bb_mid", "bb_low"],
    "stoch_k": ["stoch_k", "stoch_d"], "aroon_up_25": ["aroon_down_25", "aroon_up_25"],
}


def talib_names():
    "The v9 columns that TA-Lib has."
    return [name for first in TALIB for name in TOGETHER.get(first, [first])]


def by_talib(candles):
    "The columns that TA-Lib has, as one float32 table like ours."
    import talib

    class c:
        o, h, l, c, v = (np.ascontiguousarray(candles[name].to_numpy()) for name in COLUMNS)

    out, row = np.empty((len(talib_names()), len(candles)), "float32"), 0
    for function in TALIB.values():
        found = function(talib, c)
        for column in found if isinstance(found, (tuple, list)) else (found,):
            out[row] = column
            row += 1
    return pd.DataFrame(out.T, index=candles.index, columns=talib_names(), copy=False)


def by_pandas(candles):
    "The v9 columns that pandas has as rolling or exponential windows."
    c, h, l, v = (candles[name] for name in ("close", "high", "low", "volume"))
    mid, sd, low, high = c.rolling(20).mean(), c.rolling(20).std(ddof=0), l.rolling(14).min(), h.rolling(14).max()
    fast, slow = c.ewm(span=12, adjust=False).mean(), c.ewm(span=26, adjust=False).mean()
    macd = fast - slow
    signal, k, mean = macd.ewm(span=9, adjust=False).mean(), 100 * (c - low) / (high - low), v.rolling(20).mean()
    columns = {
        "sma_10": c.rolling(10).mean(), "sma_20": mid, "sma_50": c.rolling(50).mean(), "ema_12": fast, "ema_26": slow,
        "macd": macd, "macd_signal": signal, "macd_diff": macd - signal, "bb_high": mid + 2 * sd,
        "bb_low": mid - 2 * sd, "bb_width": 4 * sd / mid, "bb_pband": (c - mid + 2 * sd) / (4 * sd),
        "volume_mean_20": mean, "volume_ratio": v / mean, "return_1": c.pct_change(), "log_return_1": np.log(c).diff(),
        "range_ratio": (h - l) / c, "momentum_5": c.diff(5), "high_low": h / l, "stoch_k": k,
        "stoch_d": k.rolling(3).mean(), "williams_r": k - 100, "roc_12": 100 * c.pct_change(12),
    }
    return pd.DataFrame(columns).astype("float32")


def by_polars(candles):
    "The same columns as `by_pandas`, by polars on all cores."
    import polars as pl

    c, h, l, v = (pl.col(name) for name in ("close", "high", "low", "volume"))
    mid, sd, low, high = c.rolling_mean(20), c.rolling_std(20, ddof=0), l.rolling_min(14), h.rolling_max(14)
    fast, slow = c.ewm_mean(span=12, adjust=False), c.ewm_mean(span=26, adjust=False)
    macd = fast - slow
    signal, k, mean = macd.ewm_mean(span=9, adjust=False), 100 * (c - low) / (high - low), v.rolling_mean(20)
    columns = {
        "sma_10": c.rolling_mean(10), "sma_20": mid, "sma_50": c.rolling_mean(50), "ema_12": fast, "ema_26": slow,
        "macd": macd, "macd_signal": signal, "macd_diff": macd - signal, "bb_high": mid + 2 * sd,
        "bb_low": mid - 2 * sd, "bb_width": 4 * sd / mid, "bb_pband": (c - mid + 2 * sd) / (4 * sd),
        "volume_mean_20": mean, "volume_ratio": v / mean, "return_1": c.pct_change(), "log_return_1": c.log().diff(),
        "range_ratio": (h - l) / c, "momentum_5": c.diff(5), "high_low": h / l, "stoch_k": k,
        "stoch_d": k.rolling_mean(3), "williams_r": k - 100, "roc_12": 100 * c.pct_change(12),
    }
    frame = pl.DataFrame({name: candles[name].to_numpy() for name in COLUMNS})
    return frame.select(**{name: e.cast(pl.Float32) for name, e in columns.items()})


# ---- measurements

def row(rows, columns, seconds):
    return {
        "rows": rows, "columns": columns, "seconds": round(seconds, 4),
        "mcells": round(rows * columns / seconds / 1e6, 2),
    }


def speed(candles, quick):
    "Cells per second on one table."
    found = {}
    for name in ("v9_published", "v9", "v3", "hybrid", "v2"):
        for threads in (None, 1) if name in ("v9_published", "v3") else (None,):
            label = name + (", one thread" if threads else "")
            found[label] = row(
                len(candles), len(features(candles.iloc[:5_000], name).columns),
                quickest(lambda n=name, t=threads: features(candles, n, threads=t)),
            )
    ours = [n for n in by_pandas(candles.iloc[:200]).columns]
    published = [n for n in feature_names("v9_published")]
    assert set(ours) <= set(published) and set(talib_names()) <= set(published)
    found["columns TA-Lib has: TA-Lib"] = row(len(candles), len(talib_names()), quickest(lambda: by_talib(candles)))
    for threads, label in ((1, ", one thread"), (None, "")):
        found[f"columns TA-Lib has: cryptolab{label}"] = row(
            len(candles), len(talib_names()),
            quickest(lambda t=threads: features(candles, "v9_published", columns=talib_names(), threads=t)),
        )
    found["columns pandas has: pandas"] = row(len(candles), len(ours), quickest(lambda: by_pandas(candles)))
    found["columns pandas has: polars"] = row(len(candles), len(ours), quickest(lambda: by_polars(candles)))
    found["columns pandas has: cryptolab"] = row(
        len(candles), len(ours), quickest(lambda: features(candles, "v9_published", columns=ours)),
    )
    if not quick or len(candles) < 500_000:
        found["v9_published: ta"] = row(len(candles), 46, quickest(lambda: by_ta(candles), repeats=1))
    return found


def growth(candles, name):
    "Time for all rows over time for the newest tenth: results into memory that is reused, and into new memory."
    found = {}
    for label in ("reused", "new"):
        times = []
        for table in (candles.iloc[-(len(candles) // 10) :], candles):
            out = (
                np.zeros((features(table.iloc[:5_000], name).shape[1], len(table)), "float32")
                if label == "reused"
                else None
            )
            times.append(quickest(lambda t=table, o=out: features(t, name, out=o), 5, limit=20))
            del out
        found[label] = times[1] / times[0]
    return found


MEMORY = """
import sys, pandas as pd, threading, time
from benchmarks.features import read
from cryptolab.features.registry import features
candles = read(sys.argv[1], "BTCUSDT_1m", int(sys.argv[3]))
features(read(sys.argv[1], "BTCUSDT_1m", 30_000), sys.argv[2])
import gc; gc.collect()
status = lambda key: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(key)) * 1024
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
table = features(candles, sys.argv[2])
print(table.shape[0] * table.shape[1] * 4, status("VmHWM") - before)
"""


def memory(folder, name, rows):
    "Peak of the resident size above that before, and the size of the result, in a process of its own."
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder), name, str(rows)], capture_output=True, text=True, cwd=HERE.parent,
        check=True,
    )
    size, peak = map(int, done.stdout.split())
    return {"result_mb": round(size / 2**20), "peak_mb": round(peak / 2**20), "multiple": round(peak / size, 2)}


def streaming(candles, name, updates=2_000):
    "Milliseconds per candle of a running stream."
    stream, rest = FeatureStream(name), []
    need = min(stream.needed, len(candles) - updates - 1)
    stream.start(candles.iloc[-need - updates : -updates])
    for candle in candles.iloc[-updates:].itertuples():
        t = time.perf_counter()
        stream.update(candle)
        rest.append(1e3 * (time.perf_counter() - t))
    return {
        "needed": stream.needed, "p50_ms": round(float(np.median(rest)), 3),
        "p99_ms": round(float(np.quantile(rest, 0.99)), 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir", default=os.environ.get("CRYPTOLAB_SHARED", str(HERE.parent.parent / "shared" / "data")),
    )
    parser.add_argument("--quick", action="store_true", help="leave out `ta` on the 1m candles (two minutes)")
    args = parser.parse_args()
    folder = Path(args.data_dir)
    if not (folder / "BTCUSDT_1m.parquet").exists():
        sys.exit(f"{folder} holds no BTCUSDT_1m.parquet; give the folder of candles with --data-dir")
    warnings.simplefilter("ignore")
    quarter, minute = read(folder, "BTCUSDT_15m"), read(folder, "BTCUSDT_1m")
    million, small = minute.iloc[-1_000_000:], quarter.iloc[-38_000:]
    for name in ("v9_published", "v9", "v3", "hybrid", "v2"):  # compile
        features(quarter.iloc[:30_000], name)
    out = {"command": "python -m benchmarks.features", "cores": os.cpu_count()}
    print(f"{os.cpu_count()} cores; million cells per second, minimum of the repeats")
    for label, candles in (("BTCUSDT 15m", quarter), ("BTCUSDT 1m", minute)):
        out[label] = speed(candles, args.quick)
        print(f"\n{label}, {len(candles):,} rows")
        for name, r in out[label].items():
            print(f"  {name:38} {r['columns']:4} columns {r['seconds']:9.3f} s {r['mcells']:8.1f} M cells/s")
    ours, theirs = quickest(lambda: features(small, "v9_published"), 9), quickest(lambda: by_ta(small), 1)
    a, b = out["BTCUSDT 1m"]["columns TA-Lib has: TA-Lib"]["seconds"], out["BTCUSDT 1m"][
        "columns TA-Lib has: cryptolab"
    ]["seconds"]
    alone = out["BTCUSDT 1m"]["columns TA-Lib has: cryptolab, one thread"]["seconds"]
    ratio = {name: growth(minute, name) for name in ("v3", "v9_published")}
    lines = [
        (
            "v9 published, 1,000,000 rows, M cells/s",
            46e6 / quickest(lambda: features(million, "v9_published"), 5) / 1e6, ">= 70",
        ),
        ("v9 published, 38,000 rows: times `ta`", theirs / ours, ">= 80"),
        ("v3, 1m, M cells/s", out["BTCUSDT 1m"]["v3"]["mcells"], ">= 30"),
        ("v3: time for 10 x the rows", ratio["v3"]["reused"], "<= 11"),
        ("v3: time for 10 x the rows, each time into new memory of the system", ratio["v3"]["new"], ""),
        ("v9 published: time for 10 x the rows", ratio["v9_published"]["reused"], "<= 11"),
        ("columns TA-Lib has: times TA-Lib", a / b, ">= 1.5"),
        ("columns TA-Lib has, one thread: times TA-Lib", a / alone, ""),
    ]
    for name in ("v3", "v9"):
        out[f"memory {name}"] = memory(folder, name, len(minute))
        lines.append((f"{name}, 1m: peak of memory / result", out[f"memory {name}"]["multiple"], "<= 1.6"))
    for name in ("v9", "v9_published", "v3"):
        out[f"stream {name}"] = streaming(minute.iloc[-40_000:], name)
        lines.append(
            (
                f"stream {name}, ms per candle, p50 (starts from {out[f'stream {name}']['needed']:,} candles)",
                out[f"stream {name}"]["p50_ms"], "<= 1" if "v9" in name else "",
            )
        )
    out["ratios"] = {label: {"value": round(float(value), 3), "wanted": bar} for label, value, bar in lines}
    print()
    for label, value, bar in lines:
        print(f"{label:75} {value:8.2f}  {bar}")
    STORE.parent.mkdir(exist_ok=True)
    write_json(STORE, out)


if __name__ == "__main__":
    main()
