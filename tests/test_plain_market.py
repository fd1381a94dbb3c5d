"""Labels, trades and accounts equal those of `plain_market` on hundreds of random markets, other ones every day.

    python -m tests.test_plain_market 2400                      # the long version: that many markets
    CRYPTOLAB_SEED=20250101 python -m tests.test_plain_market 1 57   # market 57 of that seed again

Equal to the last digit: rows, times, reasons, counts, prices and returns wherever distances are fractions or prices.
To 1e-12: what depends on an ATR (another order of additions) and all sums of money, as a fraction of the money moved;
sizes as a fraction of the highest worth of the account, and funding of all the coin's, because sums are subtracted.
"""
import datetime
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import plain_market as plain  # noqa: E402

from cryptolab import labels  # noqa: E402
from cryptolab.backtest import backtest  # noqa: E402

SEED = int(os.environ.get("CRYPTOLAB_SEED") or datetime.date.today().strftime("%Y%m%d"))
MARKETS = int(os.environ.get("CRYPTOLAB_MARKETS") or 300)
GROUPS = 10  # tests of a run, so that one names the market that failed and the others still run
TOLERANCE = 1e-12
# name -> minutes, and the same of finer candles
TIMEFRAMES = {
    "1m": (1, None, None), "15m": (15, "5m", 5), "1h": (60, "15m", 15), "4h": (240, "1h", 60), "1d": (1440, "6h", 360),
}
PRICES = ("open", "high", "low", "close")


# ---------------------------------------------------------------- random markets


def path(rng, n, tick):
    "Open, high, low, close of n candles: a walk with doji, flat candles, jumps, wild wicks; in whole ticks if asked."
    swing = 10 ** (rng.uniform(-2.3, -1) if tick else rng.uniform(-3.5, -1.3))
    price, rows = (float(rng.integers(60, 400)) if tick else 1.0), []
    kind, noise, middle = rng.random(n), rng.normal(0, swing, (n, 4)), price
    if rng.random() < 0.1:  # nothing moves at first, so that the ATR is 0
        noise[: 30 * 4] = 0
    for k, (jump, move, up, down) in zip(kind, noise):
        if abs(np.log(price / middle)) > 4:  # back to the middle
            jump, move = (-abs(x) if price > middle else abs(x) for x in (jump, move))
        o = price * np.exp(8 * jump) if k < 0.03 else price
        c = o if k > 0.93 else o * np.exp(move)
        if k > 0.96:
            up = down = 0.0
        wild = 6 if 0.03 < k < 0.08 else 1
        h, l = max(o, c) * np.exp(abs(up) * wild), min(o, c) * np.exp(-abs(down) * wild)
        if tick:
            o, h, l, c = (max(1.0, float(round(x))) for x in (o, h, l, c))
        rows.append((o, h, l, c))
        price = c
    return rows


def joined(inner):
    "One candle of finer ones."
    return inner[0][0], max(x[1] for x in inner), min(x[2] for x in inner), inner[-1][3]


def one_coin(rng, n, step, small, holes):
    "Candles with holes, and the finer candles of each, some of them missing."
    tick, scale, parts = rng.random() < 0.4, 2.0 ** rng.integers(-30, 30), step // small if small else 4
    fine = path(rng, n * parts, tick)
    keep, start = np.ones(n, dtype=bool), int(rng.integers(0, 40)) * step
    for _ in range(rng.integers(0, 6)):
        at = rng.integers(n)
        keep[at : at + rng.integers(1, 2 + int(n * holes))] = False
    keep[[0, 1, 2, 3]] = True
    candles, finer, losses = [], [], rng.choice([0, 0.05, 0.4])
    for i in np.flatnonzero(keep):
        inner = [tuple(x * scale for x in row) for row in fine[i * parts : (i + 1) * parts]]
        begin = start + int(i) * step
        candles.append(plain.Candle(begin, *joined(inner)))
        lost = rng.random(parts) < losses
        finer.append([plain.Candle(begin + j * (small or 0), *x) for j, x in enumerate(inner) if not lost[j]])
    return candles, finer


def table(candles, timeframe):
    "Candles as the library takes them."
    index = pd.to_datetime([c.time for c in candles], unit="m", utc=True).as_unit("ns").rename("open_time")
    frame = pd.DataFrame([c[1:] for c in candles], index=index, columns=list(PRICES), dtype="float64")
    frame.attrs["timeframe"] = timeframe
    return frame.assign(volume=0.0)


def maybe(rng, chance, value):
    "The value, or None."
    return value if rng.random() < chance else None


def swing_of(candles):
    "The middle range of a candle, as a fraction of its price."
    return float(np.median([(c.high - c.low) / c.close for c in candles])) or 0.01


def distances(rng, candles, unit, chance):
    "Stop, target, trailing, trailing_from of a label or backtest, in candle ranges or as fractions, some of them None."
    by = np.array([1, 1, 1, 0.5]) * 2 ** rng.uniform(-1, 2.5, 4)
    if unit == "fraction":
        by = by * swing_of(candles) if rng.random() < 0.5 else 2.0 ** -rng.integers(2, 7, 4)
    stop, target, trailing, begin = (float(x) for x in by)
    trailing = maybe(rng, 0.4, trailing)
    return maybe(rng, chance, stop), maybe(rng, chance, target), trailing, maybe(rng, 0.5, begin) if trailing else None


class Case:
    "One random market with its settings; everything follows from the seed and the number of the market."

    def __init__(self, seed, number):
        rng = self.rng = np.random.default_rng([seed, number])
        self.timeframe = str(rng.choice(list(TIMEFRAMES)))
        self.step, name, small = TIMEFRAMES[self.timeframe]
        self.ruinous = rng.random() < 0.15  # several coins with long holes, and stakes that ruin the account
        many = 1 if rng.random() < 0.6 and not self.ruinous else int(rng.integers(2, 4))
        sizes = rng.integers(60, 150 if many > 1 else 250, many)
        made = [one_coin(rng, int(n), self.step, small, 0.15 if self.ruinous else 0.05) for n in sizes]
        self.coins, self.finer = [m[0] for m in made], [m[1] for m in made]
        self.tables = [table(c, self.timeframe) for c in self.coins]
        self.lower = None
        if small and rng.random() < 0.5:
            self.lower = [table([c for inner in f for c in inner], name) for f in self.finer]
        else:
            self.finer = None

    def __repr__(self):
        sizes = [len(c) for c in self.coins]
        return f"{self.timeframe}, candles {sizes}, finer {self.lower is not None}"


# ---------------------------------------------------------------- labels


def numbers(values):
    "A list with None as floats with NaN."
    return np.array([np.nan if v is None else v for v in values], dtype="float64")


def assert_close(ours, theirs, what, scale=1.0):
    "Equal to a fraction of 1e-12, missing where the other is missing."
    ours, theirs = np.asarray(ours, dtype="float64"), np.asarray(theirs, dtype="float64")
    assert (np.isnan(ours) == np.isnan(theirs)).all(), f"{what}: other rows are missing"
    far = np.abs(ours - theirs) > TOLERANCE * np.maximum(scale, np.abs(theirs))
    at = int(np.argmax(far)) if far.any() else 0
    assert not far.any(), f"{what}: row {at}: {ours[at]!r} is not {theirs[at]!r}"


def assert_same(ours, theirs, what):
    "Equal to the last digit."
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: {len(ours)} rows, not {len(theirs)}"
    differ = (ours != theirs) & ~((ours != ours) & (theirs != theirs))
    at = int(np.argmax(differ)) if differ.any() else 0
    assert not differ.any(), f"{what}: row {at}: {ours[at]!r} is not {theirs[at]!r}"


def minutes(times):
    "Times as whole minutes."
    return pd.DatetimeIndex(times).as_unit("ns").asi8 // 60_000_000_000


def check_simple_labels(case):
    "All labels but the triple barrier; their intervals, and why rows are unknown."
    rng, candles, frame = case.rng, case.coins[0], case.tables[0]
    horizon, gap, window = int(rng.integers(1, 12)), int(rng.integers(0, 3)), int(rng.integers(1, 20))
    band = float(swing_of(candles) * rng.uniform(0.1, 3)) if rng.random() < 0.5 else 2.0 ** -rng.integers(2, 7)
    calls = {
        "next_direction": {"gap": gap}, "next_log_return": {}, "natr_next": {"window": window},
        "natr_future": {"window": window}, "rv_future": {"horizon": horizon}, "parkinson_future": {"window": horizon},
        "horizon_return": {"horizon": horizon}, "horizon_direction": {"horizon": horizon, "gap": gap},
        "three_class": {"horizon": horizon, "band": band}, "touch": {"lookahead": horizon, "threshold": band},
    }
    wanted = plain.simple_labels(candles, case.step, horizon, gap, band, window)
    opened = np.array([c.time for c in candles])
    for name, settings in calls.items():
        made, (ahead, values) = getattr(labels, name)(frame, timeframe=case.timeframe, **settings), wanted[name]
        assert_close(made["y"], numbers(values), f"{name} {settings}", scale=1e-3)
        assert_same(minutes(made["t0"]), opened + case.step, f"{name} t0")
        assert_same(minutes(made["t1"]), opened + case.step * (ahead + 1), f"{name} t1")
        late = min(ahead, len(candles))
        unknown = sum(v is None for v in values)
        assert made.attrs["dropped"]["no_future"] == late and sum(made.attrs["dropped"].values()) == unknown, name


def check_barriers(case):
    "The triple barrier, row by row."
    rng, candles, frame = case.rng, case.coins[0], case.tables[0]
    unit, window, long = ("atr", "fraction")[rng.integers(2)], int(rng.integers(1, 20)), bool(rng.integers(2))
    stop, target, trailing, begin = distances(rng, candles, unit, 0.85)
    timeout, full = int(rng.integers(1, 30)), bool(rng.random() < 0.3)
    made = labels.triple_barrier(
        frame, target, stop, timeout, unit, window, "long" if long else "short", case.lower and case.lower[0], trailing,
        begin, full, case.timeframe,
    )
    wanted = plain.triple_barrier(
        candles, case.step, target, stop, timeout, unit, window, long, trailing, begin, full,
        case.finer and case.finer[0],
    )
    what = f"triple_barrier {unit} {target=} {stop=} {trailing=} from={begin} {timeout=} {long=} {full=}"
    opened = np.array([c.time for c in candles])
    assert_same(made["exit"].tolist(), [w.exit for w in wanted], f"{what}: exit")
    assert_same(made["y"], numbers([w.y for w in wanted]), f"{what}: y")
    assert_same(minutes(made["t1"]), opened + case.step * (1 + np.array([w.ahead for w in wanted])), f"{what}: t1")
    returns = numbers([w.ret for w in wanted])
    if unit == "fraction":
        assert_same(made["ret"], returns, f"{what}: ret")
    else:
        assert_close(made["ret"], returns, f"{what}: ret", scale=1.0)
    both = [sum(w.both == k for w in wanted if w.y is not None) for k in (1, 2)]
    assert made.attrs["both"] == {"assumed_stop": both[0], "decided": both[1]}, what
    dropped = made.attrs["dropped"]
    reasons = {name: sum(w.exit == name for w in wanted) for name in ("end", "gap", "warm_up")}
    assert (dropped["no_future"], dropped["gap"], dropped["warm_up"]) == tuple(reasons.values()), what


# ---------------------------------------------------------------- accounts


def random_orders(rng, candles, coin, ruinous, states=None):
    "Orders with barriers of their own, as prices on whole ticks or distances, or without; or one for every state."
    rows = rng.random(len(candles)) < rng.choice([0.05, 0.3, 0.9])
    if ruinous:  # before every hole
        holes = np.diff([c.time for c in candles])
        rows[:-1] |= holes > holes.min()
    rows = np.flatnonzero(rows) if states is None else range(len(candles))
    unit, least = swing_of(candles), min(c.low for c in candles)
    big, own, orders = 10 ** (rng.uniform(0, 1.5) if ruinous else rng.uniform(-2, 0.9)), rng.random(), []
    for row in rows:
        candle, side = candles[row], int(rng.choice([-1, 1])) if states is None else int(states[row])
        names = ("stop", "target", "trail", "from")
        by = {name: float(candle.close * unit * 2 ** rng.uniform(-1, 2.5)) for name in names}
        if rng.random() < 0.5:  # a whole number of lows: with whole ticks, barriers that prices meet exactly
            by = {name: float(max(least * rng.integers(1, 12) / 4, candle.close / 64)) for name in by}
        values = {"size": 0.0 if rng.random() < 0.03 else float(big * rng.uniform(0.2, 1))}
        if rng.random() < own:
            if rng.random() < 0.5:
                values |= {"stop": candle.close - side * by["stop"], "target": candle.close + side * by["target"]}
            else:
                values |= {"stop_by": by["stop"], "target_by": by["target"]}
            values |= {"trail_by": by["trail"], "trail_from": by["from"], "timeout": int(rng.integers(1, 40))}
            kept = rng.random(len(values)) < 0.7
            values = {name: v for keep, (name, v) in zip(kept, values.items()) if keep or name == "size"}
        orders.append(plain.Order(coin, int(row), side, **values))
    return orders


def random_states(rng, n):
    "1, −1 or 0 per candle, each for a while."
    lengths = rng.integers(1, 30, n)
    return np.repeat(rng.choice([-1, 0, 1], n), lengths)[:n]


def random_exits(rng, orders, n):
    "Exit signals of one coin as (row, side), and the same as the library takes them; some on rows of entries."
    often = rng.choice([0, 0.01, 0.1, 0.5])
    rows = {side: set(np.flatnonzero(rng.random(n) < often).tolist()) for side in (1, -1)}
    either = rng.random() < 0.5  # one column closes both sides
    rows[-1] = rows[1] if either else rows[-1]
    exits = {(row, side) for side in (1, -1) for row in rows[side]}
    if orders and all((o.row, o.side) in exits for o in orders):  # the library refuses that
        for side in (1, -1):
            rows[side] = rows[side] - {orders[0].row}
        exits = {(row, side) for side in (1, -1) for row in rows[side]}
    flags = {side: np.isin(np.arange(n), list(rows[side])) for side in (1, -1)}
    return exits, flags[1] if either else {"long": flags[1], "short": flags[-1]}


def exits_for_library(rng, flags, frame, asked):
    "A column, a table of both sides, or the rows where something is true; sometimes as a column of the orders."
    if isinstance(flags, dict):
        told = pd.DataFrame(flags, index=frame.index)
        return asked, told if rng.random() < 0.5 else told[told.any(axis=1)]
    told = pd.Series(flags, index=frame.index)
    if rng.random() < 0.3:
        return asked.reindex(frame.index).assign(action=lambda t: t["action"].fillna(0), exit=told), None
    return asked, told if rng.random() < 0.5 else told[told].astype(rng.choice(["bool", "int64", "float64", "object"]))


def order_table(orders, frame):
    "The same orders as the library takes them."
    columns = plain.Order._fields[3:]
    data = {name: numbers([getattr(o, name) for o in orders]) for name in columns}
    action = [o.side for o in orders]
    return pd.DataFrame({"action": action, **data}, index=frame.index[[o.row for o in orders]])


def random_rates(rng, candles, step):
    "Settlements at whole minutes: (minute, rate), and the same as the library takes them, some milliseconds off."
    first, last = candles[0].time - step, candles[-1].time + step
    times = sorted({int(t) for t in rng.integers(first, last, 40)} | {int(candles[k].time) for k in (5, 9, 20)})
    rates = [(t, float(rng.normal(0, 0.002))) for t in times]
    late = pd.to_timedelta(rng.integers(-9000, 9000, len(times)), "ms")
    stamps = pd.to_datetime(times, unit="m", utc=True).as_unit("ns") + late
    return rates, pd.Series([r for _, r in rates], index=stamps)


def random_rules(rng, candles):
    "Settings of a backtest."
    unit = ("atr", "fraction")[rng.integers(2)]
    stop, target, trailing, begin = distances(rng, candles, unit, 0.6)
    fee, slippage = (0.0, 0.0) if rng.random() < 0.2 else (float(x) for x in 10 ** rng.uniform(-4, (-1.5, -2)))
    most, timeout = int(rng.integers(1, 4)), maybe(rng, 0.8, int(rng.integers(1, 40)))
    return plain.Rules(
        fee=fee, slippage=slippage, capital=float(10 ** rng.uniform(0, 6)),
        size_of=("equity", "capital", "units")[rng.integers(3)], max_positions=most,
        max_total=maybe(rng, 0.5, int(rng.integers(1, 6))), stop=stop, target=target, timeout=timeout, unit=unit,
        window=int(rng.integers(1, 20)), trailing=trailing, trailing_from=begin,
        upon_opposite_entry=("ignore", "ignore", "close", "reverse")[rng.integers(4)],
    )


def compare_trades(table, trades, coins, step, exact, money, peak, what):
    "Trade by trade."
    rows = [(t, coins[t.order.coin]) for t in trades]
    for name, values in {
        "decided": [c[t.order.row].time for t, c in rows], "entry_time": [c[t.order.row + 1].time for t, c in rows],
        "exit_time": [c[t.row].time + (0 if t.reason == "signal" else step) for t, c in rows],
    }.items():
        assert_same(minutes(table[name]), values, f"{what}: {name}")
    assert_same(table["symbol"].tolist(), [f"C{t.order.coin}" for t in trades], f"{what}: symbol")
    for name, values in {
        "exit_reason": [t.reason for t in trades], "side": [t.order.side for t in trades],
        "size": [t.order.size for t in trades], "entry": [t.entry for t in trades], "both": [t.both for t in trades],
        "candles": [t.row - t.order.row - (t.reason == "signal") for t in trades],
    }.items():
        given = table[name].tolist() if name == "exit_reason" else table[name]
        assert_same(given, values, f"{what}: {name}")
    same = assert_same if exact else assert_close
    same(table["exit"], [t.price for t in trades], f"{what}: exit")
    scale = [t.order.size * peak / t.entry for t in trades]  # peak: worth of which a size is a fraction
    assert_close(table["quantity"], [t.quantity for t in trades], f"{what}: quantity", np.array(scale))
    for name, values in {
        "gross": [t.gross for t in trades], "fee": [t.fee for t in trades], "slippage": [t.slip for t in trades],
        "funding": [t.funding for t in trades], "net": [t.net for t in trades],
    }.items():
        assert_close(table[name], values, f"{what}: {name}", scale=money)
    assert_close(table["mae"], [t.worst for t in trades], f"{what}: mae")
    assert_close(table["mfe"], [t.best for t in trades], f"{what}: mfe")


def check_account(case):
    "One backtest: trades, worth at every close, counts."
    rng, coins = case.rng, case.coins
    rules, hold = random_rules(rng, coins[0]), rng.random() < 0.2
    orders = [
        random_orders(rng, c, i, case.ruinous, random_states(rng, len(c)) if hold else None)
        for i, c in enumerate(coins)
    ]
    if rules.size_of == "units":  # coins instead of a fraction of the account
        most = [rules.capital / c[0].open for c in coins]
        orders = [[o._replace(size=o.size * most[o.coin]) for o in given] for given in orders]
    rates = [random_rates(rng, c, case.step) for c in coins] if rng.random() < 0.5 else None
    names = [f"C{i}" for i in range(len(coins))]
    asked = {name: order_table(o, frame) for name, o, frame in zip(names, orders, case.tables)}
    if hold:
        rules, told = rules._replace(upon_opposite_entry="ignore"), None
        orders, exits = zip(*[plain.signals_of_states(given) for given in orders])
    else:
        exits, told = [], {}
        for name, given, frame in zip(names, orders, case.tables):
            signals, flags = random_exits(rng, given, len(frame))
            exits.append(signals)
            asked[name], told[name] = exits_for_library(rng, flags, frame, asked[name])
        told = {name: exit for name, exit in told.items() if exit is not None}
    made = backtest(
        dict(zip(names, case.tables)), asked, told or None, lower=case.lower and dict(zip(names, case.lower)),
        funding=rates and dict(zip(names, (r[1] for r in rates))), hold=hold, **rules._asdict(),
    )
    trades, equity, counts = plain.account(
        coins, case.step, [o for given in orders for o in given], rules, rates and [r[0] for r in rates], case.finer,
        exits,
    )
    money = rules.capital + sum(t.quantity * max(c.high for c in coins[t.order.coin]) for t in trades)
    peak = max(equity) if rules.size_of == "equity" else 0.0
    what = f"backtest {rules}"
    assert {name: made.counts[name] for name in counts} == counts, what
    compare_trades(made.trades, trades, coins, case.step, rules.unit == "fraction", money, peak, what)
    closes = sorted({c.time for candles in coins for c in candles})
    assert_same(minutes(made.equity.index), closes, f"{what}: times of the equity")
    assert_close(made.equity, equity, f"{what}: equity", scale=money)
    spans = [coins[t.order.coin][t.order.row + 1 : t.row + 1] for t in trades]
    over = sum(s[-1].time - s[0].time != case.step * (len(s) - 1) for s in spans)
    both = [sum(t.both == k for t in trades) for k in (1, 2)]
    assert (made.counts["over_gap"], made.counts["both_assumed"], made.counts["both_decided"]) == (over, *both), what
    return trades, counts


def hourly(*closes, lost=()):
    "Hours that open at the last close; the lost rows are missing."
    rows = [(a, max(a, b), min(a, b), b) for a, b in zip((closes[0], *closes), closes)]
    return [plain.Candle(60 * i, *map(float, row)) for i, row in enumerate(rows) if i not in lost]


RULES = plain.Rules(0.01, 0.0, 100.0, "equity", 1, None, None, None, 99, "fraction", 14, None, None)


def ruined_account(orders, lost=()):
    "A falls to nothing in its fourth hour, held with three times the account; the rows `lost` of B are missing."
    coins = [hourly(100, 100, 90, 40, 40, 40), hourly(50, 51, 52, 53, 54, 55, lost=lost)]
    frames = {name: table(c, "1h") for name, c in zip("AB", coins)}
    given = [plain.Order(0, 0, 1, 3.0), *orders]
    asked = {n: order_table([o for o in given if o.coin == i], frames[n]) for i, n in enumerate("AB")}
    made, (_, equity, counts) = backtest(frames, asked, **RULES._asdict()), plain.account(coins, 60, given, RULES)
    assert {name: made.counts[name] for name in counts} == counts
    assert made.equity.tolist() == pytest.approx(equity, rel=1e-12)
    return made


def test_what_waits_for_its_first_candle_is_never_traded_after_ruin():
    made = ruined_account([plain.Order(1, 1, 1, 0.5)], lost=(2, 3, 4))
    assert made.trades["symbol"].tolist() == ["A"] and made.counts["after_ruin"] == 1
    assert (made.trades["exit_time"] > made.trades["entry_time"]).all()


def test_a_ruin_changes_nothing_before_it():
    "B is bought at 51 and has no candle at the ruin: until then it is worth its last close, its closing costs unpaid."
    made = ruined_account([plain.Order(1, 0, 1, 0.5)], lost=(2, 3, 4))
    assert made.trades["exit_reason"].tolist() == ["ruin", "ruin"]
    a, b = made.trades["quantity"]
    paid = 0.01 * (a * 100 + b * 50)
    assert made.equity.tolist()[2] == pytest.approx(100 - a * 10 + b * 1 - paid)


def test_a_trade_that_ruin_ends_met_no_barriers():
    "The stop and the target of B would be met in its fifth hour, after the ruin."
    coins = [hourly(100, 100, 90, 40, 40, 40), hourly(50, 50, 50, 50, 50, 50)]
    coins[1][4] = plain.Candle(240, 50.0, 60.0, 40.0, 50.0)
    frames = {name: table(c, "1h") for name, c in zip("AB", coins)}
    orders = [plain.Order(0, 0, 1, 3.0), plain.Order(1, 0, 1, 0.1, stop_by=5.0, target_by=5.0)]
    made = backtest(frames, {n: order_table([o], frames[n]) for n, o in zip("AB", orders)}, **RULES._asdict())
    assert made.trades["exit_reason"].tolist() == ["ruin", "ruin"] and made.counts["both_assumed"] == 0


def test_a_finer_candle_that_meets_both_decides_nothing():
    candles = hourly(100, 100, 100)
    candles[1] = plain.Candle(60, 100.0, 104.0, 97.0, 100.0)
    inner = [[], [plain.Candle(60, 100.0, 104.0, 97.0, 99.0), plain.Candle(75, 99.0, 100.0, 98.0, 100.0)], []]
    lower = table([c for i in inner for c in i], "15m")
    made = labels.triple_barrier(table(candles, "1h"), 0.03, 0.02, 2, "fraction", lower=lower)
    assert (made["exit"].iloc[0], made.attrs["both"]) == ("stop", {"assumed_stop": 1, "decided": 0})


# ---------------------------------------------------------------- runs


def check(number, seed=SEED):
    "All comparisons on one market; a failure says how to repeat it."
    case = Case(seed, number)
    try:
        check_simple_labels(case)
        check_barriers(case)
        return check_account(case)
    except Exception as e:
        again = f"CRYPTOLAB_SEED={seed} python -m tests.test_plain_market 1 {number}"
        raise AssertionError(f"market {number} of seed {seed} ({case}): {e}\nonce more: {again}") from e


@pytest.mark.parametrize("group", range(GROUPS))
def test_library_equals_the_plain_version(group):
    print(f"CRYPTOLAB_SEED={SEED}")
    for number in range(group, MARKETS, GROUPS):
        check(number)


def test_the_markets_hold_what_they_should():
    "Every kind of exit, both sides, full accounts, ruin, conflicts, and candles that meet both barriers."
    seen = dict.fromkeys(
        (
            "conflict", "only_closed", "turned", "ruin", "assumed", "decided", "account_full", "coin_busy", "several",
        ),
        0,
    )
    for number in range(40):
        trades, counts = check(number, seed=1)
        for trade in trades:
            seen[trade.reason] = seen.get(trade.reason, 0) + 1
            seen["assumed"] += trade.both == 1
            seen["decided"] += trade.both == 2
        for name in ("account_full", "coin_busy", "conflict", "only_closed"):
            seen[name] += counts[name]
        entered = {(t.order.coin, t.order.row + 1, t.order.side) for t in trades}
        seen["turned"] += sum(
            t.reason == "signal" and (t.order.coin, t.row, -t.order.side) in entered for t in trades
        )
        seen["several"] += len({t.order.coin for t in trades}) > 1
    assert set(seen) >= {"target", "stop", "trailing", "timeout", "end", "signal", "ruin"}, seen
    assert min(seen.values()) > 3, seen


def main(count=2400, first=0):
    "The long version, on one core."
    begin = time.perf_counter()
    failed = []
    print(f"CRYPTOLAB_SEED={SEED}")
    for number in range(first, first + count):
        try:
            check(number)
        except AssertionError as e:
            failed.append(number)
            print(e, flush=True)
    print(f"{count} markets, {len(failed)} differ, {time.perf_counter() - begin:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
