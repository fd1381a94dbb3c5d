"""How fast is the backtester beside backtesting.py and vectorbt, on the same signals with stop, target, fee and
slippage?

python -m benchmarks.backtest [--data-dir FOLDER] [--quick]

one       BTCUSDT 1m: long when a mean of 60 closes crosses above one of 240; stop 1 %, target 1.5 %, fee 0.1 %,
          slippage 0.05 %. Measured from candles and signals to a table of trades and the worth of the account at every
          close, on all sides. Ours and vectorbt: the best of five after a first call that compiles; backtesting.py:
          one run. The two others get times without a time zone, which they handle faster
sweep     4,851 pairs of means (2 … 100) on 38,000 candles of BTCUSDT 1h with the same stop, target and costs, signals
          included, in a fresh process whose largest resident size is printed; vectorbt runs 99 of the pairs

Results are stored in benchmarks/results/backtest.json. --quick takes 100,000 one-minute candles and stores nothing.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from cryptolab.backtest import backtest, sweep
from cryptolab.files import write_json

HERE = Path(__file__).parent
STORE = HERE / "results" / "backtest.json"
STOP, TARGET, FEE, SLIPPAGE = 0.01, 0.015, 0.001, 0.0005
CASH = 1e9  # one coin per trade, so that no engine runs out of money and all make the same trades


def read(folder, name, rows=None):
    "Candles of the test data, newest rows."
    table = pd.read_parquet(Path(folder) / f"{name}.parquet").set_index("timestamp").rename_axis("open_time")
    table = table[["open", "high", "low", "close", "volume"]].astype("float64").copy()
    table = table if rows is None else table.iloc[-rows:].copy()
    table.attrs["timeframe"] = name.split("_")[1]
    return table


def mean(x, window):
    "Mean of the last closes, NaN until there are enough."
    sums = np.cumsum(np.r_[0.0, x])
    return np.r_[np.full(window - 1, np.nan), (sums[window:] - sums[:-window]) / window]


def crosses(fast, slow):
    "Does the fast mean cross above the slow one?"
    above = fast > slow
    return np.r_[False, above[1:] & ~above[:-1] & ~np.isnan(slow[:-1])]


def best(work, repeats=5):
    "Shortest time of several, and the last answer."
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        answer = work()
        times.append(time.perf_counter() - began)
    return min(times), answer


def by_us(candles, signals):
    result = backtest(
        candles, signals, fee=FEE, slippage=SLIPPAGE, stop=STOP, target=TARGET, size_of="units", capital=CASH,
    )
    return result.trades, result.equity


def vectorbt_account(candles, signals):
    "vectorbt's simulation without its tables."
    import vectorbt as vbt

    # its orders are carried out in the row of the signal; ours in the next
    entries = signals.shift(1, fill_value=False)
    return vbt.Portfolio.from_signals(
        candles["close"], entries, False, price=candles["open"], open=candles["open"], high=candles["high"],
        low=candles["low"], sl_stop=STOP, tp_stop=TARGET, fees=FEE, slippage=SLIPPAGE, init_cash=CASH, size=1.0,
        size_type="amount", freq=pd.Timedelta(candles.attrs["timeframe"].replace("m", "min")),
    )


def by_vectorbt(candles, signals):
    account = vectorbt_account(candles, signals)
    return account.trades.records_readable, account.value()


def raw_vectorbt(candles, signals):
    "Without times: its table with times is slow on millions of rows."
    account = vectorbt_account(candles, signals)
    return account.trades.records, account.value()


def by_backtesting(candles, signals):
    from backtesting import Backtest, Strategy

    wanted = signals.to_numpy()

    class Crossing(Strategy):
        def init(self):
            pass

        def next(self):
            if wanted[len(self.data) - 1] and not self.position:
                close = self.data.Close[-1]
                self.buy(size=1, sl=close * (1 - STOP), tp=close * (1 + TARGET))

    table = candles.rename(columns=str.capitalize)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stats = Backtest(table, Crossing, cash=CASH, commission=FEE, spread=SLIPPAGE, finalize_trades=True).run()
    return stats["_trades"], stats["_equity_curve"]["Equity"]


def one(candles):
    "Seconds of each engine on one strategy."
    close = candles["close"].to_numpy()
    signals = pd.Series(crosses(mean(close, 60), mean(close, 240)), candles.index)
    found = {"candles": len(candles), "signals": int(signals.sum()), "seconds": {}, "trades": {}}
    plain = candles.set_axis(candles.index.tz_localize(None))
    plain.attrs = candles.attrs
    for name, engine, repeats in (
        ("cryptolab", by_us, 5), ("vectorbt", by_vectorbt, 5), ("backtesting.py", by_backtesting, 1),
    ):
        given = (candles, signals) if engine is by_us else (plain, signals.set_axis(plain.index))
        if repeats > 1:
            engine(*given)
        seconds, (trades, equity) = best(lambda engine=engine, given=given: engine(*given), repeats)
        found["seconds"][name], found["trades"][name] = round(seconds, 5), len(trades)
        print(
            f"{name:<30} {seconds:10.4f} s   {len(trades):6,} trades, {len(equity):,} values of the account",
            flush=True,
        )
        if engine is by_vectorbt:
            for kind, work in (
                ("vectorbt, simulation alone", vectorbt_account), ("vectorbt, records as integers", raw_vectorbt),
            ):
                found["seconds"][kind] = round(best(lambda given=given, work=work: work(*given))[0], 5)
                found["trades"][kind] = len(trades)
                print(f"{kind:<30} {found['seconds'][kind]:10.4f} s")
    own = found["seconds"]["cryptolab"]
    found["ratios"] = {
        name: round(seconds / own, 1) for name, seconds in found["seconds"].items() if name != "cryptolab"
    }
    print(
        f"one strategy on {len(candles):,} candles: "
        + ", ".join(f"{ratio:.0f} x {name}" for name, ratio in found["ratios"].items())
    )
    return found


def peak():
    "Largest resident size of this process in MB, by Linux (getrusage begins with the parent's)."
    try:
        return (
            int(
                next(
                    line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
                ).split()[1]
            )
            / 1024
        )
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def many(candles):
    "Seconds and memory of the sweep in this process."
    close, windows = candles["close"].to_numpy(), range(2, 101)
    means = {w: mean(close, w) for w in windows}
    signals = {
        pair: lambda pair=pair: crosses(means[pair[0]], means[pair[1]]) for pair in itertools.combinations(windows, 2)
    }
    def run(chosen):
        return sweep(candles, chosen, stop=STOP, target=TARGET, fee=FEE, slippage=SLIPPAGE)
    run(dict(itertools.islice(signals.items(), 2)))
    seconds, board = best(lambda: run(signals), 3)
    return {
        "candles": len(candles), "combinations": len(board), "trades": int(board.trades.sum()),
        "seconds": round(seconds, 3), "peak MB": round(peak()),
    }


def many_by_vectorbt(candles):
    "Seconds of vectorbt for 99 of the pairs, with the same statistics."
    import vectorbt as vbt

    close, windows = candles["close"].to_numpy(), range(2, 101)
    means = {w: mean(close, w) for w in windows}
    pairs = list(itertools.combinations(windows, 2))[:: 49]
    signals = pd.DataFrame({f"{a}/{b}": crosses(means[a], means[b]) for a, b in pairs}, index=candles.index)

    def run():
        account = vbt.Portfolio.from_signals(
            candles["close"], signals.shift(1, fill_value=False), False, price=candles["open"], open=candles["open"],
            high=candles["high"], low=candles["low"], sl_stop=STOP, tp_stop=TARGET, fees=FEE, slippage=SLIPPAGE,
            freq="1h",
        )
        return account.total_return(), account.sharpe_ratio(), account.max_drawdown()

    run()
    seconds, _ = best(run, 1)
    return {"combinations": len(pairs), "seconds": round(seconds, 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data-dir", default=os.environ.get("CRYPTOLAB_SHARED", str(HERE.parent.parent / "shared" / "data")),
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", choices=("sweep", "sweep-vectorbt"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        work = many if given.part == "sweep" else many_by_vectorbt
        candles = read(given.data_dir, "BTCUSDT_1h", 38_000)
        candles.index = candles.index.tz_localize(None) if given.part == "sweep-vectorbt" else candles.index
        print(json.dumps(work(candles)))
        return
    found = {"one": one(read(given.data_dir, "BTCUSDT_1m", 100_000 if given.quick else None))}
    for part in ("sweep", "sweep-vectorbt"):
        command = [
            sys.executable, "-W", "ignore", "-m", "benchmarks.backtest", "--part", part, "--data-dir", given.data_dir,
        ]
        found[part] = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
    s, v = found["sweep"], found["sweep-vectorbt"]
    each = v["seconds"] / v["combinations"] * s["combinations"] / s["seconds"]
    found["sweep"]["x vectorbt per combination"] = round(each, 1)
    print(
        f"sweep: {s['combinations']:,} combinations on {s['candles']:,} candles, {s['trades']:,} trades: "
        f"{s['seconds']:.2f} s, peak {s['peak MB']} MB; {each:.0f} x vectorbt per combination"
    )
    if not given.quick:
        write_json(STORE, found)
        print(STORE)


if __name__ == "__main__":
    main()
