"""Labels against hand computation and a naive loop; windows, splits and scaling against the obvious implementation."""
import json
import time

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.labels import (
    horizon_direction, horizon_return, natr_future, natr_next, next_direction, next_log_return, parkinson_future,
    rv_future, three_class, touch, triple_barrier,
)
from cryptolab.validation import MinMax, Split, Windows, chronological_split, fit_minmax, make_windows

HOUR = pd.Timedelta("1h")


def market(rows=400, seed=0, gaps=()):
    "Random candles in whole cents; `gaps` are row numbers that are missing."
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.002, rows))), 2)
    opened = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(opened, close) + rng.random(rows), np.minimum(opened, close) - rng.random(rows)
    clock = pd.date_range("2024-01-01", periods=rows, freq="h", tz="UTC", name="open_time")
    table = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": 1.0}, index=clock)
    return table.drop(table.index[list(gaps)])


def naive(candles, ahead, outcome):
    "Label by label: exactly the next candles on the clock, or NaN."
    y = []
    for i, t in enumerate(candles.index):
        times = [t + HOUR * k for k in range(ahead + 1)]
        y.append(outcome(candles, i) if all(u in candles.index for u in times) else np.nan)
    return np.array(y)


def true_range(candles, i):
    c = candles["close"].iloc[i - 1]
    return max(candles["high"].iloc[i], c) - min(candles["low"].iloc[i], c)


def dead_band(move, band):
    return 1.0 if move > band else -1.0 if move < -band else 0.0


GAPS = (40, 41, 97, 250, 398)
LABELS = {
    "direction": (next_direction, 1, lambda t, i: float(t["close"].iloc[i + 1] > t["close"].iloc[i])),
    "as published": (
        lambda t: next_direction(t, gap=1), 2, lambda t, i: float(t["close"].iloc[i + 2] > t["close"].iloc[i + 1])
    ),
    "return": (next_log_return, 1, lambda t, i: np.log(t["close"].iloc[i + 1] / t["close"].iloc[i])),
    "natr_future": (
        natr_future, 14,
        lambda t, i: np.mean([true_range(t, j) for j in range(i + 1, i + 15)]) / t["close"].iloc[i + 14],
    ),
    "horizon return": (
        lambda t: horizon_return(t, 9), 9, lambda t, i: np.log(t["close"].iloc[i + 9] / t["close"].iloc[i])
    ),
    "horizon": (
        lambda t: horizon_direction(t, 9, gap=2), 11, lambda t, i: float(
            t["close"].iloc[i + 11] > t["close"].iloc[i + 2]
        )
    ),
    "three classes": (
        lambda t: three_class(t, 3, 0.003), 3, lambda t, i: dead_band(
            t["close"].iloc[i + 3] / t["close"].iloc[i] - 1, 0.003,
        )
    ),
    "parkinson": (
        lambda t: parkinson_future(t, 6), 6, lambda t, i: np.sqrt(
            np.sum(np.log(t["high"].iloc[i + 1 : i + 7] / t["low"].iloc[i + 1 : i + 7]) ** 2) / (4 * np.log(2))
        )
    ),
    "touch": (
        lambda t: touch(t, 4, 0.008), 4, lambda t, i: float(
            (t["high"].iloc[i + 1 : i + 5] >= t["close"].iloc[i] * 1.008).any()
        )
    ),
    "rv": (
        lambda t: rv_future(t, 5), 5, lambda t, i: np.sqrt(np.sum(np.diff(np.log(t["close"].iloc[i : i + 6])) ** 2))
    ),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_equal_the_naive_loop(name):
    label, ahead, outcome = LABELS[name]
    candles = market(gaps=GAPS)
    table = label(candles)
    np.testing.assert_allclose(table["y"], naive(candles, ahead, outcome), rtol=1e-12)
    assert table.columns.tolist() == ["y", "t0", "t1"] and table.index.equals(candles.index)
    assert (table["t0"] == candles.index + HOUR).all() and (table["t1"] == candles.index + HOUR * (ahead + 1)).all()
    assert str(table["t0"].dtype.tz) == "UTC"
    assert sum(table.attrs["dropped"].values()) == table["y"].isna().sum()
    assert table.attrs["dropped"]["no_future"] == ahead and table.attrs["dropped"]["gap"] > 0
    json.dumps(table.attrs)


def test_natr_next_is_the_atr_of_ta():
    volatility = pytest.importorskip("ta").volatility
    candles = market(gaps=(200,))
    table = natr_next(candles)
    atr = volatility.average_true_range(candles["high"], candles["low"], candles["close"], 14)
    expected = (atr / candles["close"]).shift(-1)
    expected[[candles.index[199], *candles.index[:12]]] = np.nan  # before the gap, and where `ta` writes 0
    pd.testing.assert_series_equal(table["y"], expected, check_names=False, check_freq=False)
    assert table.attrs["dropped"] == {"no_future": 1, "gap": 1, "warm_up": 12}


def test_ties_are_not_up():
    candles = market(60)
    candles["close"] = 5.0
    assert (next_direction(candles)["y"].dropna() == 0).all() and (next_log_return(candles)["y"].dropna() == 0).all()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_any_time_unit_and_weekly_candles(unit):
    candles = market(60)
    candles.index = candles.index.as_unit(unit)
    pd.testing.assert_series_equal(next_direction(candles)["y"], next_direction(market(60))["y"], check_index=False)
    candles.index = pd.date_range("2024-01-01", periods=60, freq="7D", tz="UTC").as_unit(unit)
    table = next_direction(candles)
    assert table["y"].isna().sum() == 1 and (table["t1"] - table["t0"]).eq(pd.Timedelta("7D")).all()


def test_few_candles_give_empty_labels():
    for rows in (1, 2, 5):
        for label in (next_direction, next_log_return, natr_next, natr_future, rv_future):
            assert label(market(rows), timeframe="1h")["y"].isna().sum() >= 1


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: next_direction(market().iloc[::-1], "1h"), DataError, "not in order"),
    (lambda: next_direction(market().reset_index(drop=True), "1h"), DataError, "no clock"),
    (lambda: next_direction(market().tz_localize(None), "1h"), DataError, "no clock"),
    (lambda: next_direction(market(), "1x"), SettingsError, "timeframe"),
    (lambda: next_direction(market(), gap=-1), SettingsError, "`gap`"),
    (lambda: next_log_return(market().drop(columns="close")), DataError, "`close` is missing"),
    (lambda: natr_future(market(), window=1.5), SettingsError, "`window`"),
    (lambda: rv_future(market(), horizon=0), SettingsError, "`horizon`"),
    (lambda: horizon_direction(market(), 3, gap=-1), SettingsError, "`gap`"),
    (lambda: three_class(market(), 3, -0.1), SettingsError, "`band`"),
    (lambda: touch(market(), 3, np.nan), SettingsError, "`threshold`"),
    (lambda: parkinson_future(market(), 0), SettingsError, "`window`"),
])
def test_bad_labels_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------- triple barrier


def slow_trade(candles, i, side, stop, target, timeout, trail=None, trail_from=0.0):
    "The rules, one by one: (row of the exit, price, reason)."
    rows = candles[["open", "high", "low", "close"]].to_numpy()
    entry = best = rows[i + 1, 0]
    for j in range(i + 1, len(candles)):
        o, h, l, c = rows[j]
        level, reason = stop, "stop"
        if side == "long":
            if trail is not None and best - entry >= trail_from and best - trail > stop:
                level, reason = best - trail, "trailing"
            if o <= level:
                return j, o, reason
            if o >= target:
                return j, o, "target"
            if l <= level:
                return j, level, reason
            if h >= target:
                return j, target, "target"
            best = max(best, h)
        else:
            if trail is not None and entry - best >= trail_from and best + trail < stop:
                level, reason = best + trail, "trailing"
            if o >= level:
                return j, o, reason
            if o <= target:
                return j, o, "target"
            if h >= level:
                return j, level, reason
            if l <= target:
                return j, target, "target"
            best = min(best, l)
        if j - i == timeout:
            return j, c, "timeout"
    return len(candles) - 1, candles["close"].iloc[-1], "end"


def jumpy(rows=400, seed=0, gaps=()):
    "Candles whose open differs from the last close, so that barriers are jumped."
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.005, rows)))
    opened = np.append(100.0, close[:-1]) + rng.normal(0, 0.4, rows)
    high, low = np.maximum(opened, close) + 0.5 * rng.random(rows), np.minimum(opened, close) - 0.5 * rng.random(rows)
    clock = pd.date_range("2024-01-01", periods=rows, freq="h", tz="UTC", name="open_time")
    table = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": 1.0}, index=clock)
    return table.drop(clock[list(gaps)])


@pytest.mark.parametrize("side", ["long", "short"])
@pytest.mark.parametrize(("unit", "target", "stop", "trailing"), [
    ("fraction", 0.015, 0.012, None), ("atr", 2.0, 1.0, None), ("atr", 2.0, 1.5, (1.3, 0.8)),
    ("fraction", 0.02, 0.012, (0.013, 0.004)),
])
def test_triple_barrier_equals_the_slow_loop(side, unit, target, stop, trailing):
    candles = jumpy(600, gaps=GAPS)
    trail, trail_from = trailing or (None, None)
    table = triple_barrier(candles, target, stop, 12, unit=unit, side=side, trailing=trail, trailing_from=trail_from)
    s = 1 if side == "long" else -1
    ranges = pd.concat(
        [candles["high"], candles["close"].shift()], axis=1,
    ).max(axis=1) - pd.concat([candles["low"], candles["close"].shift()], axis=1).min(axis=1)
    run = np.cumsum(np.diff(candles.index, prepend=candles.index[0]) > HOUR)
    after_gap = np.r_[False, np.diff(run) > 0]  # no previous close: the range is the candle's own
    ranges[after_gap] = (candles["high"] - candles["low"])[after_gap]
    atr = ranges.copy()
    atr.iloc[:13] = np.nan
    atr.iloc[13] = ranges.iloc[:14].mean()
    for i in range(14, len(atr)):
        atr.iloc[i] = (atr.iloc[i - 1] * 13 + ranges.iloc[i]) / 14
    seen = set()
    for i in range(len(candles) - 1):
        row = table.iloc[i]
        entry = candles["open"].iloc[i + 1]
        one = entry if unit == "fraction" else atr.iloc[i]
        if np.isnan(one):
            assert row["exit"] == "warm_up" and np.isnan(row["y"])
            continue
        j, price, reason = slow_trade(
            candles, i, side, entry - s * stop * one, entry + s * target * one, 12,
            None if trail is None else trail * one, 0.0 if trail_from is None else trail_from * one,
        )
        reason = "gap" if run[j] != run[i] else reason
        seen.add(reason)
        assert row["exit"] == reason
        if reason in ("gap", "end"):
            assert np.isnan(row["y"]) and np.isnan(row["ret"])
        else:
            assert row["y"] == (reason == "target") and row["ret"] == pytest.approx(s * (price / entry - 1), abs=1e-12)
            assert row["t1"] == candles.index[j] + HOUR and row["t0"] == candles.index[i] + HOUR
    assert {"target", "stop", "timeout", "gap", "end"} <= seen and (trailing is None or "trailing" in seen)
    assert sum(table.attrs["dropped"].values()) == table["y"].isna().sum() and table["exit"].iloc[-1] == "end"
    json.dumps(table.attrs)


def trade(*candles, side="long", timeout=4, **barriers):
    "First row of the label of a few candles (open, high, low, close) that follow a candle at 100."
    rows = [(100, 100, 100, 100), *candles]
    clock = pd.date_range("2024-01-01", periods=len(rows), freq="h", tz="UTC", name="open_time")
    table = pd.DataFrame(rows, columns=["open", "high", "low", "close"], index=clock, dtype="float64")
    row = triple_barrier(
        table, **{"target": 0.03, "stop": 0.02, **barriers}, timeout=timeout, unit="fraction", side=side,
        timeframe="1h",
    ).iloc[0]
    return row["exit"], None if np.isnan(row["ret"]) else round(row["ret"], 6), (row["t1"] - row["t0"]) // HOUR


CALM = (100, 101, 99, 100)


@pytest.mark.parametrize(("candles", "options", "expected"), [
    ([CALM, (100, 103, 99, 101)], {}, ("target", 0.03, 2)),  # touching is reaching
    ([CALM, (100, 101, 98, 99)], {}, ("stop", -0.02, 2)),
    ([CALM, (100, 104, 97, 103)], {}, ("stop", -0.02, 2)),  # both in one candle
    ([(100, 104, 97, 103)], {}, ("stop", -0.02, 1)),  # … in the candle of the entry
    ([CALM, (95, 96, 94, 95)], {}, ("stop", -0.05, 2)),  # opens beyond the stop
    ([CALM, (95, 105, 94, 95)], {}, ("stop", -0.05, 2)),
    ([CALM, (105, 106, 97, 98)], {}, ("target", 0.05, 2)),  # opens beyond the target
    ([CALM, CALM, CALM, (100, 101, 99, 100.5)], {}, ("timeout", 0.005, 4)),
    ([CALM, CALM], {}, ("end", None, 4)),
    ([CALM, (100, 101, 96, 97)], {"side": "short"}, ("target", 0.03, 2)),
    ([CALM, (100, 102, 99, 101)], {"side": "short"}, ("stop", -0.02, 2)),
    ([CALM, (104, 105, 96, 97)], {"side": "short"}, ("stop", -0.04, 2)),
    ([CALM, (95, 103, 94, 95)], {"side": "short"}, ("target", 0.05, 2)),
    ([CALM, CALM, CALM, (100, 101, 99, 100.5)], {"side": "short"}, ("timeout", -0.005, 4)),
    ([(100, 102.5, 99.5, 102), (102, 102.2, 100.5, 101)], {"trailing": 0.01}, ("trailing", 0.015, 2)),
    # opens beyond the trailing stop
    ([(100, 102.5, 99.5, 102), (101, 102.2, 100.5, 101)], {"trailing": 0.01}, ("trailing", 0.01, 2)),
    ([(100, 102.5, 99, 102), (102, 102.2, 100.5, 101), CALM, CALM], {"trailing": 0.01, "trailing_from": 0.028},
     ("timeout", 0.0, 4)),
    ([(100, 100.5, 97.5, 98), (98, 99.5, 98, 99)], {"side": "short", "trailing": 0.015}, ("trailing", 0.01, 2)),
    ([(100, 103, 90, 101)], {"stop": None}, ("target", 0.03, 1)),
    ([(100, 103, 90, 101), *[CALM] * 3], {"stop": None, "target": None}, ("timeout", 0.0, 4)),
])
def test_every_way_a_trade_can_end(candles, options, expected):
    assert trade(*candles, **options) == expected


@pytest.mark.parametrize("side", ["long", "short"])
def test_lower_candles_give_the_truth(side):
    "Hours made of minutes: with the minutes the label is that of the trade walked in minutes."
    rng = np.random.default_rng(3)
    clock = pd.date_range("2024-01-01", periods=60 * 300, freq="min", tz="UTC", name="open_time")
    price = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.0012, len(clock)))), 4)
    minutes = pd.DataFrame({"open": np.append(100.0, price[:-1]), "close": price, "volume": 1.0}, index=clock)
    minutes["high"], minutes["low"] = minutes[["open", "close"]].max(axis=1), minutes[["open", "close"]].min(axis=1)
    hours = minutes.resample("h").agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"})
    plain, exact = (
        triple_barrier(hours, 0.006, 0.006, 6, unit="fraction", side=side, lower=x) for x in (None, minutes)
    )
    s = 1 if side == "long" else -1
    for i in range(0, len(hours) - 7):
        entry = hours["open"].iloc[i + 1]
        start = 60 * (i + 1) - 1
        j, price, reason = slow_trade(
            minutes.iloc[start : start + 361], 0, side, entry * (1 - s * 0.006), entry * (1 + s * 0.006), 360,
        )
        assert (exact["exit"].iloc[i], exact["ret"].iloc[i]) == (reason, pytest.approx(s * (price / entry - 1)))
    assert plain.attrs["both"]["assumed_stop"] > 20 and exact.attrs["both"] == {
        "assumed_stop": 0, "decided": plain.attrs["both"]["assumed_stop"],
    }
    assert exact["y"].mean() > plain["y"].mean()


def test_lower_candles_that_are_missing_leave_the_stop():
    hours = jumpy(100)
    quarters = hours.set_axis(hours.index - pd.Timedelta("99h")).iloc[-1:].reindex(
        pd.date_range(hours.index[0], periods=3, freq="15min", tz="UTC")
    ).ffill().bfill()
    quarters.index.name = "open_time"
    pd.testing.assert_series_equal(
        triple_barrier(hours, 0.5, 0.5, 5, lower=quarters)["y"], triple_barrier(hours, 0.5, 0.5, 5)["y"],
    )


def test_full_interval_takes_no_early_ends():
    candles = jumpy(gaps=(200,))
    early, whole = (triple_barrier(candles, 2.0, 1.0, 12, full_interval=x) for x in (False, True))
    assert (
        whole["t1"] - whole["t0"]
    ).eq(12 * HOUR).all() and whole["y"].iloc[-12:].isna().all() and whole["y"].iloc[188:200].isna().all()
    both = whole["y"].notna()
    assert (whole["y"] == early["y"])[both].all() and early["y"].notna().sum() > both.sum() == 399 - 13 - 12 - 12


def test_the_label_sees_nothing_after_its_interval():
    candles = jumpy()
    table = triple_barrier(candles, 2.0, 1.0, 12)
    changed = candles.copy()
    changed.iloc[300:, :4] *= 3
    again = triple_barrier(changed, 2.0, 1.0, 12)
    settled = (table["t1"] <= candles.index[300]) & table["y"].notna()
    pd.testing.assert_frame_equal(table[settled], again[settled])
    assert settled.sum() > 250


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda c: triple_barrier(c, 0.0, 1.0, 5), SettingsError, "`target`"),
    (lambda c: triple_barrier(c, 1.0, -1.0, 5), SettingsError, "`stop`"),
    (lambda c: triple_barrier(c, 1.0, 1.0, 0), SettingsError, "`timeout`"),
    (lambda c: triple_barrier(c, 1.0, 1.0, 5, unit="percent"), SettingsError, "`unit`"),
    (lambda c: triple_barrier(c, 1.0, 1.0, 5, side="both"), SettingsError, "`side`"),
    (lambda c: triple_barrier(c.iloc[::-1], 1.0, 1.0, 5, timeframe="1h"), DataError, "not in order"),
    (lambda c: triple_barrier(c.drop(columns="open"), 1.0, 1.0, 5), DataError, "`open` is missing"),
    (lambda c: triple_barrier(c.mask(c > 100.2), 1.0, 1.0, 5), DataError, "a price is missing"),
    (lambda c: triple_barrier(c, 1.0, 1.0, 5, lower=c), DataError, "are not lower"),
])
def test_bad_barriers_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(jumpy(60))


def test_the_walk_is_quick_and_takes_any_float64_array():
    from cryptolab.labels.walk import exits_of_trades

    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, 1_000_000)))
    opened = np.append(100.0, close[:-1])
    prices = opened, np.maximum(opened, close) * 1.001, np.minimum(opened, close) * 0.999, close
    rows = np.arange(len(close) - 1)
    exits_of_trades(prices, rows[:5], timeout=2)
    best = 0
    for _ in range(3):
        start = time.perf_counter()
        row, *_ = exits_of_trades(prices, rows, stop=opened[1:] * 0.99, target=opened[1:] * 1.015, timeout=60)
        best = max(best, (row - rows).sum() / (time.perf_counter() - start))
    assert best > 20e6, f"{best / 1e6:.0f} million candles per second"
    strided = tuple(np.stack(prices, axis=1)[:, k] for k in range(4))  # columns of a C-ordered matrix
    for array in prices:
        array.flags.writeable = False
    some = rows[:5_000]
    for a, b in zip(
        exits_of_trades(strided, some, stop=90.0, timeout=60), exits_of_trades(prices, some, stop=90.0, timeout=60),
    ):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- windows


def table(rows=500, columns=3, seed=0, gaps=(), holes=(), warm_up=0):
    "Random features with missing rows (`gaps`), missing values (`holes`) and a warm-up."
    rng = np.random.default_rng(seed)
    clock = pd.date_range("2024-01-01", periods=rows, freq="h", tz="UTC", name="open_time")
    features = pd.DataFrame(
        rng.normal(size=(rows, columns)).astype("float32"), index=clock, columns=list("abcdefgh")[:columns],
    )
    features.iloc[:warm_up, 0] = np.nan
    features.iloc[list(holes), -1] = np.nan
    return features.drop(clock[list(gaps)])


@pytest.mark.parametrize("length", [1, 2, 7, 60])
def test_windows_equal_the_naive_loop(length):
    features = table(gaps=(100, 101, 300), holes=(50, 220, 221), warm_up=9)
    windows = make_windows(features, length)
    values, times = features.to_numpy(), features.index
    good = [
        e for e in range(length - 1, len(features)) if np.isfinite(values[e - length + 1 : e + 1]).all()
        and times[e] - times[e - length + 1] == HOUR * (length - 1)
    ]
    assert isinstance(windows, Windows) and windows.ends.tolist() == good and windows.index.equals(times[good])
    expected = np.stack([values[e - length + 1 : e + 1] for e in good])
    np.testing.assert_array_equal(windows.batch(), expected)
    np.testing.assert_array_equal(windows.flat([0, 5]), expected[[0, 5]].reshape(2, -1))
    assert windows.view.shape == (len(features) - length + 1, length, 3)
    assert sum(windows.dropped.values()) + len(windows) == len(features)
    assert (
        windows.dropped["too_short"] == length - 1
        and windows.dropped["missing"] > 0
        and (windows.dropped["gap"] > 0) == (length > 1)
    )
    rows = windows.rows(range(3, 9))
    assert rows.tolist() == sorted({r for e in windows.ends[3:9] for r in range(e - length + 1, e + 1)})


def test_windows_do_not_copy_what_fits():
    matrix = np.random.default_rng(0).random((500, 4), dtype="float32")
    features = pd.DataFrame(matrix, index=pd.date_range("2024", periods=500, freq="h", tz="UTC"), copy=False)
    windows = make_windows(features)
    assert (
        np.shares_memory(windows.values, matrix)
        and np.shares_memory(windows.view, matrix)
        and windows.values.flags.c_contiguous
    )
    doubles = make_windows(features.astype("float64"))
    assert doubles.values.dtype == np.float32 and doubles.values.flags.c_contiguous
    np.testing.assert_array_equal(doubles.batch([3, 1]), windows.batch([3, 1]))


def test_ten_thousand_candles():
    from cryptolab.features.sets.v9 import v9_features

    candles = market(10_200)
    windows = make_windows(v9_features(candles).iloc[-10_000:])
    assert len(windows) == 9_941 and windows.dropped == {"too_short": 59, "warm_up": 0, "gap": 0, "missing": 0}
    numbers, labels = windows.match(next_direction(candles))
    assert len(numbers) == len(labels) == 9_940 and (windows.index[numbers] == labels.index).all()
    assert chronological_split(labels["t0"], labels["t1"]).sizes == {
        "train": 6_958, "val": 1_491, "test": 1_491, "purged": 0,
    }
    late = make_windows(v9_features(candles))
    assert late.dropped["warm_up"] == 167 and late.ends[0] == 167 + 59


def test_matching_skips_unknown_labels():
    candles = market(300, gaps=(150,))
    windows = make_windows(table(300, gaps=(150,)), 10)
    labels = next_direction(candles).iloc[20:]
    labels.index = labels.index.as_unit("ms")
    numbers, known = windows.match(labels)
    assert known["y"].notna().all() and (windows.index[numbers] == known.index).all()
    assert len(numbers) == (
        ~windows.index.isin(labels.index[labels["y"].isna()]) & (windows.index >= labels.index[0])
    ).sum()


def test_a_million_rows_are_quick():
    features = table(1_000_000, 4, gaps=(500_000,), warm_up=200)
    start = time.perf_counter()
    windows = make_windows(features)
    windows.rows(np.arange(len(windows) // 2))
    assert time.perf_counter() - start < 5 and len(windows) == 1_000_000 - 1 - 200 - 59 - 59


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: make_windows(table(30)), DataError, "at least 60 rows"),
    (lambda: make_windows(table(100, warm_up=100)), DataError, "no usable window"),
    (lambda: make_windows(table(100, gaps=(50,))), DataError, "no usable window"),
    (lambda: make_windows(table(100, warm_up=60)), DataError, "at least 120 candles"),
    (lambda: make_windows(table(100), length=0), SettingsError, "`length`"),
    (lambda: make_windows(table(100).iloc[::-1]), DataError, "not in order"),
    (lambda: make_windows(table(100)[[]]), DataError, "no columns"),
    (lambda: make_windows(table(100)).with_values(np.zeros((9, 3))), DataError, "do not fit"),
])
def test_bad_windows_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------- split


@pytest.mark.parametrize("seed", range(5))
def test_split_leaves_no_open_outcome(seed):
    rng = np.random.default_rng(seed)
    t0 = pd.date_range("2024", periods=1_000, freq="h", tz="UTC")[np.sort(rng.choice(1_000, 600, replace=False))]
    t1 = t0 + pd.to_timedelta(rng.integers(1, 40, 600), unit="h")
    split = chronological_split(t0, t1, (0.6, 0.2, 0.2))
    assert isinstance(split, Split)
    borders = {"train": (0, 360), "val": (360, 480), "test": (480, 600)}
    for name, (a, b) in borders.items():
        expected = [i for i in range(a, b) if b == 600 or t1[i] <= t0[b]]
        assert getattr(split, name).tolist() == expected
    assert sorted([*split.train, *split.val, *split.test, *split.purged]) == list(range(600))


@pytest.mark.parametrize(("hours", "embargo", "purged"), [
    (1, 0, 0), (2, 0, 2), (14, 0, 26), (1, 24, 48), (14, "6h", 38), (14, pd.Timedelta("6h"), 38)])
def test_purge_counts(hours, embargo, purged):
    t0 = pd.date_range("2024", periods=9_940, freq="h", tz="UTC")
    split = chronological_split(pd.Series(t0), pd.Series(t0 + HOUR * hours), embargo=embargo)
    assert len(split.purged) == purged and len(split.test) == 1_491
    assert len(split.train) == 6_958 - purged // 2 and len(split.val) == 1_491 - purged // 2


@pytest.mark.parametrize(("fractions", "sizes"), [
    ((0.7, 0.15, 0.15), (6_958, 1_491, 1_491)), ((0.5, 0.25, 0.25), (4_970, 2_485, 2_485)),
    ((1 / 3, 1 / 3, 1 / 3), (3_313, 3_313, 3_314)),
])
def test_sizes(fractions, sizes):
    t0 = pd.date_range("2024", periods=9_940, freq="h", tz="UTC")
    assert tuple(chronological_split(t0, t0 + HOUR, fractions).sizes.values())[:3] == sizes


@pytest.mark.parametrize(("change", "error", "message"), [
    (dict(fractions=(0.7, 0.3)), SettingsError, "`fractions`"),
    (dict(fractions=(0.7, 0.3, 0.0)), SettingsError, "`fractions`"),
    (dict(fractions=(0.7, 0.2, 0.2)), SettingsError, "`fractions`"),
    (dict(embargo=-1), SettingsError, "`embargo`"),
    (dict(embargo=900), DataError, "part is empty"),
    (dict(rows=0), DataError, "part is empty"),
    (dict(rows=2), DataError, "part is empty"),
    (dict(hours=0), DataError, "t1 after t0"),
])
def test_bad_splits_are_named(change, error, message):
    rows, hours = change.pop("rows", 1_000), change.pop("hours", 1)
    t0 = pd.date_range("2024", periods=rows, freq="h", tz="UTC")
    with pytest.raises(error, match=message):
        chronological_split(t0, t0 + HOUR * hours, **change)


# ---------------------------------------------------------------- scaling


def test_minmax_is_scikit_learns():
    from sklearn.preprocessing import MinMaxScaler

    rng = np.random.default_rng(0)
    values = (rng.normal(size=(100_000, 5)) * [1, 1e-6, 1e9, 1, 1] + [0, 1, 0, 5, 0]).astype("float32")
    values[:, 3], values[7, 4] = 5, np.nan
    rows = np.arange(100, 60_000)
    ours, theirs = fit_minmax(values, rows), MinMaxScaler().fit(values[rows].astype("float64"))
    np.testing.assert_array_equal(ours.data_min, theirs.data_min_)
    np.testing.assert_array_equal(ours.data_max, theirs.data_max_)
    scaled = ours.transform(values)
    assert scaled.dtype == np.float32 and np.isnan(scaled).sum() == 1 and (
        scaled[rows, :4] >= 0
    ).all() and (scaled[rows, :4] <= 1).all()
    np.testing.assert_allclose(scaled, theirs.transform(values.astype("float64")), atol=1e-6)
    np.testing.assert_array_equal(ours.transform(values[:120].reshape(2, 60, 5)), scaled[:120].reshape(2, 60, 5))
    outside = (values < ours.data_min) | (values > ours.data_max)
    assert (
        ours.out_of_range(values) == pytest.approx(outside.sum() / (values.size - 1))
        and ours.out_of_range(values[rows]) == 0
    )


def test_minmax_sees_training_rows_only():
    features = table(400)
    windows = make_windows(features, 20)
    scaler = fit_minmax(windows.values, windows.rows(range(200)), windows.names)
    changed = windows.values.copy()
    changed[219 + 1 :] *= 1000
    again = fit_minmax(changed, windows.rows(range(200)), windows.names)
    np.testing.assert_array_equal(scaler.data_max, again.data_max)
    np.testing.assert_array_equal(scaler.data_min, again.data_min)


def test_minmax_json_round_trip():
    features = table(50)
    scaler = fit_minmax(features)
    again = MinMax.from_json(json.loads(json.dumps(scaler.to_json(), allow_nan=False)), list(features.columns))
    np.testing.assert_array_equal(again.transform(features), scaler.transform(features))
    for names in (["a", "c", "b"], ["a", "b"], ["a", "b", "c", "d"]):
        with pytest.raises(ModelError, match="other features"):
            MinMax.from_json(scaler.to_json(), names)
    for values in (features[["b", "a", "c"]], features[["a", "b"]], features.to_numpy()[:, :2]):
        with pytest.raises(ModelError, match="other features"):
            scaler.transform(values)
        with pytest.raises(ModelError, match="other features"):
            scaler.out_of_range(values)


@pytest.mark.parametrize("damage", [
    lambda d: d.pop("names"), lambda d: d["data_min"].pop(), lambda d: d.update(data_max="x"),
    lambda d: d.update(data_max=[np.nan] * 3), lambda d: d.update(data_min=d["data_max"], data_max=d["data_min"]),
])
def test_damaged_scalers_are_refused(damage):
    stored = fit_minmax(table(50)).to_json()
    damage(stored)
    with pytest.raises(ModelError, match="stored scaler"):
        MinMax.from_json(stored)


def test_minmax_without_values():
    with pytest.raises(DataError, match="no value in the training rows"):
        fit_minmax(table(50, warm_up=50))
    with pytest.raises(DataError, match="no value in the training rows"):
        fit_minmax(table(50), rows=[])


@pytest.mark.data
def test_real_candles_with_gaps(shared_data):
    candles = pd.read_parquet(shared_data / "BTCUSDT_1h.parquet").set_index("timestamp").rename_axis("open_time")
    labels = natr_future(candles)
    assert labels.attrs["dropped"]["no_future"] == 14 and labels.attrs["dropped"]["gap"] <= 27 * 14
    features = pd.DataFrame({"close": candles["close"]})
    windows = make_windows(features)
    assert (windows.times[windows.ends] - windows.times[windows.ends - 59] == HOUR * 59).all()
    assert windows.dropped["gap"] <= 27 * 59 and windows.dropped["gap"] > 20 * 30
    numbers, known = windows.match(labels)
    split = chronological_split(known["t0"], known["t1"])
    assert known["t1"].iloc[split.train].max() <= known["t0"].iloc[split.val[0]]
    assert len(split.purged) == 26
