"""The backtester: every exit by hand, trades equal to backtesting.py and vectorbt, money conserved, faults refused,
results that say what they are."""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cryptolab.backtest import backtest, half_kelly, random_entries_p, sweep
from cryptolab.config import DataError, SettingsError
from cryptolab.data.market import sample_market
from cryptolab.labels import triple_barrier

HOUR = pd.Timedelta("1h")


def table(*rows, start="2024-01-01", step=HOUR):
    "Candles from (open, high, low, close)."
    index = pd.date_range(start, periods=len(rows), freq=step, tz="UTC", name="open_time")
    out = pd.DataFrame(rows, index=index, columns=["open", "high", "low", "close"], dtype="float64").assign(volume=1.0)
    out.attrs["timeframe"] = "1h" if step == HOUR else "15m"
    return out


def order(candles, row=0, **values):
    return pd.DataFrame({"action": [1], **{k: [v] for k, v in values.items()}}, index=candles.index[[row]])


CALM = (100, 101, 99, 100)
FREE = {"fee": 0, "slippage": 0}


@pytest.mark.parametrize(
    "rows, values, reason, exit, row",
    [
        ([CALM, CALM, (100, 104, 99, 103), CALM], {"stop": 98, "target": 103}, "target", 103, 2),
        ([CALM, CALM, (100, 101, 97, 98), CALM], {"stop": 98, "target": 103}, "stop", 98, 2),
        ([CALM, CALM, (95, 96, 94, 95), CALM], {"stop": 98, "target": 103}, "stop", 95, 2),  # opens below the stop
        ([CALM, CALM, (106, 107, 105, 106), CALM], {"stop": 98, "target": 103}, "target", 106, 2),  # over the target
        ([CALM, CALM, (100, 104, 97, 100), CALM], {"stop": 98, "target": 103}, "stop", 98, 2),  # both: the stop
        ([CALM, (100, 104, 97, 100), CALM], {"stop": 98, "target": 103}, "stop", 98, 1),  # in the candle of the entry
        ([CALM, (96, 97, 95, 96), CALM], {"stop": 98, "target": 103}, "stop", 96, 1),  # entered below the stop
        ([CALM, CALM, CALM, (100, 102, 99, 101)], {"timeout": 2}, "timeout", 100, 2),
        ([CALM, CALM, (100, 102, 99, 101)], {"timeout": 9}, "end", 101, 2),
        ([CALM, (100, 110, 100, 108), (108, 109, 104, 105), CALM], {"trail_by": 4}, "trailing", 106, 2),
        (
            [CALM, (100, 110, 100, 108), (108, 109, 104, 105), CALM],
            {"trail_by": 4, "trail_from": 20, "timeout": 2}, "timeout", 105, 2,
        ),
        ([CALM, CALM, (100, 104, 99, 103), CALM], {"action": -1, "stop": 103, "target": 97}, "stop", 103, 2),
        ([CALM, CALM, (100, 101, 96, 97), CALM], {"action": -1, "stop": 103, "target": 97}, "target", 97, 2),
        ([CALM, CALM, (105, 106, 104, 105), CALM], {"action": -1, "stop": 103, "target": 97}, "stop", 105, 2),
        ([CALM, (100, 100, 90, 92), (92, 96, 91, 95), CALM], {"action": -1, "trail_by": 4}, "trailing", 94, 2),
    ],
)
def test_every_exit_by_hand(rows, values, reason, exit, row):
    candles = table(*rows)
    t = backtest(candles, order(candles, **values), **FREE).trades.iloc[0]
    assert (t.exit_reason, t.exit, t.exit_time) == (reason, exit, candles.index[row] + HOUR)
    assert t.entry == candles["open"].iloc[1] and t.candles == row
    assert t.net == pytest.approx(10_000 / t.entry * t.side * (exit - t.entry))


@pytest.mark.parametrize(
    "rows, values, reason, exit, row",
    [
        ([CALM, CALM, (99, 104, 97, 100), CALM], {"stop": 98, "target": 103}, "signal", 99, 2),  # before the barriers
        ([CALM, (100, 101, 97, 98), CALM, CALM], {"stop": 98, "target": 103}, "stop", 98, 1),  # in the signal's candle
        ([CALM, CALM, (95, 104, 94, 100), CALM], {"stop": 98, "target": 103}, "signal", 95, 2),  # opens beyond the stop
        ([CALM, CALM, (99, 104, 97, 100)], {"timeout": 1}, "timeout", 100, 1),  # both at the same close
        ([CALM, (100, 102, 99, 101)], {"timeout": 9}, "end", 101, 1),  # no open after the signal
        ([CALM, CALM, (99, 104, 97, 100), CALM], {"action": -1, "stop": 103, "target": 97}, "signal", 99, 2),
    ],
)
def test_exit_signals_by_hand(rows, values, reason, exit, row):
    "Bought at the close of row 0; the close of row 1 tells to leave."
    candles = table(*rows)
    t = backtest(candles, order(candles, **values), pd.Series(True, candles.index[[1]]), **FREE).trades.iloc[0]
    open_of_row = reason == "signal"
    assert (t.exit_reason, t.exit, t.exit_time) == (reason, exit, candles.index[row] + (0 if open_of_row else 1) * HOUR)
    assert t.candles == row - open_of_row
    assert t.net == pytest.approx(10_000 / t.entry * t.side * (exit - t.entry))


def test_excursions_and_funding_end_at_the_open_of_the_exit():
    candles = table(CALM, (100, 105, 98, 101), (102, 150, 50, 100), CALM)
    rates = pd.Series(0.01, candles.index[[1, 2]])
    t = backtest(
        candles, order(candles), pd.Series(True, candles.index[[1]]), funding=rates, size_of="units", **FREE,
    ).trades.iloc[0]
    assert (t.mae, t.mfe) == pytest.approx((-0.02, 0.05))
    assert t.funding == pytest.approx(1.02)  # not what is due when it is entered, but when it is left
    assert t.net == pytest.approx(2 - 1.02)


def test_a_position_is_turned_at_one_open():
    candles = table(CALM, (100, 104, 100, 104), (105, 106, 99, 100), (98, 99, 95, 96), CALM)
    wish = pd.Series([1, -1, 1, 0, 0], candles.index)
    settings = {"fee": 0.01, "slippage": 0.0, "size_of": "units", "timeout": 9}
    turned = backtest(candles, wish, upon_opposite_entry="reverse", **settings)
    assert turned.trades.side.tolist() == [1, -1, 1] and turned.trades.entry.tolist() == [100, 105, 98]
    assert turned.trades.exit.tolist() == [105, 98, 100] and turned.trades.exit_reason.tolist()[:2] == ["signal"] * 2
    assert turned.trades.fee.tolist() == pytest.approx([2.05, 2.03, 1.98])
    closed = backtest(candles, wish, upon_opposite_entry="close", **settings)
    assert closed.trades.entry.tolist() == [100, 98] and closed.counts["only_closed"] == 1
    ignored = backtest(candles, wish, **settings)
    assert ignored.trades.entry.tolist() == [100] and ignored.counts["coin_busy"] == 2


def test_entry_and_exit_on_one_candle_cancel_each_other():
    "Neither is carried out; an exit of the other side is."
    candles = table(*[CALM] * 8)
    entries = pd.Series([1, 0, 1, 0, -1, 0, 0, 0], candles.index)
    exits = pd.DataFrame({"long": entries.index == entries.index[2], "short": False}, candles.index)
    r = backtest(candles, entries, exits, timeout=5)
    assert r.counts["conflict"] == 1 and r.trades.exit_reason.tolist() == ["timeout"]
    exits["long"] = entries.index == entries.index[4]  # leaves the long position and enters the short one
    r = backtest(candles, entries, exits)
    assert r.counts["conflict"] == 0 and r.counts["coin_busy"] == 1
    assert r.trades.entry_time.tolist() == [candles.index[1], candles.index[5]] == [
        candles.index[1], r.trades.exit_time[0],
    ]


def test_lower_candles_decide():
    candles = table(CALM, (100, 104, 97, 100), CALM)
    quarters = table(
        *[CALM] * 4, (100, 104, 100, 103), (103, 103, 99, 99), (99, 99, 97, 98), (98, 100, 98, 100), *[CALM] * 4,
        step=HOUR / 4,
    )
    asked = order(candles, stop=98, target=103)
    blind, told = backtest(candles, asked, **FREE), backtest(candles, asked, lower=quarters, **FREE)
    assert (blind.trades.exit_reason[0], blind.counts["both_assumed"]) == ("stop", 1)
    assert (told.trades.exit_reason[0], told.counts["both_decided"]) == ("target", 1)


def test_costs_by_hand():
    "Bought at 100 · 1.001, sold at 110 · 0.999, one percent fee on both amounts; 1,000 staked."
    candles = table(CALM, (100, 111, 99, 110), CALM)
    t = backtest(candles, order(candles, target=110), fee=0.01, slippage=0.001, capital=1000).trades.iloc[0]
    quantity = 1000 / 100.1
    assert t.quantity == pytest.approx(quantity)
    assert t.gross == pytest.approx(10 * quantity)
    assert t.slippage == pytest.approx((0.1 + 0.11) * quantity)
    assert t.fee == pytest.approx(0.01 * (100.1 + 109.89) * quantity)
    assert t.net == pytest.approx(quantity * (109.89 - 100.1) - t.fee)
    assert t.ret == pytest.approx(t.net / 1000)


def test_funding_by_hand():
    candles = table(*[CALM] * 24)
    rates = pd.DataFrame({"funding_rate": [0.01, -0.02]}, index=candles.index[[8, 16]] + pd.Timedelta("3ms"))
    hold = lambda row, timeout, side=1: backtest(
        candles, order(candles, row, action=side, timeout=timeout), funding=rates, size_of="units", **FREE,
    )
    assert hold(1, 10).trades.funding[0] == pytest.approx(1.0)
    assert hold(1, 20).trades.funding[0] == pytest.approx(-1.0)
    assert hold(1, 20, -1).trades.funding[0] == pytest.approx(1.0)
    assert hold(7, 1).trades.funding[0] == 0  # entered at the open of 08:00, out before the next settlement
    both = hold(1, 20)
    assert both.equity.iloc[10] == pytest.approx(10_000 - 1) and both.equity.iloc[-1] == pytest.approx(10_000 + 1)


def test_funding_inside_the_candle_of_the_exit():
    "Daily candles hold three settlements; of the last candle they are owed only if the position lasted to its close."
    candles = table(CALM, CALM, (100, 101, 97, 98), CALM, step=pd.Timedelta("1D"))
    candles.attrs["timeframe"] = "1d"
    times = pd.date_range(candles.index[0], periods=12, freq="8h")
    rates = pd.Series(0.01, times)
    stopped = backtest(candles, order(candles, stop=98), funding=rates, size_of="units", **FREE).trades.iloc[0]
    timed = backtest(candles, order(candles, timeout=2), funding=rates, size_of="units", **FREE).trades.iloc[0]
    assert (stopped.exit_reason, stopped.candles, timed.candles) == ("stop", 2, 2)
    assert stopped.funding == pytest.approx(3.0)  # 08:00 and 16:00 of the first day, 00:00 of the second
    assert timed.funding == pytest.approx(5.0)  # and 08:00 and 16:00 of the second


def test_excursions_by_hand():
    candles = table(CALM, (100, 105, 98, 101), (101, 120, 97, 100), CALM)
    t = backtest(candles, order(candles, stop=97.5), **FREE).trades.iloc[0]
    assert (t.mae, t.mfe) == pytest.approx((-0.025, 0.05))  # of the exit candle only the exit counts
    t = backtest(candles, order(candles, timeout=2), **FREE).trades.iloc[0]
    assert (t.mae, t.mfe) == pytest.approx((-0.03, 0.20))


# ---------------------------------------------------------------- invariances


def random_case(seed, coins=1, n=600):
    rng, candles, orders = np.random.default_rng(seed), {}, {}
    for c in range(coins):
        whole = sample_market(n=n, seed=100 * seed + c)
        keep = np.sort(rng.choice(n, n - 30, replace=False)) if coins > 1 else np.arange(n)
        coin = whole.iloc[keep].copy()
        rows = np.sort(rng.choice(len(coin), 80, replace=False))
        side = rng.choice([-1, 1], 80)
        by = 0.01 * coin["close"].to_numpy()[rows]
        orders[f"C{c}"] = pd.DataFrame(
            {
                "action": side, "size": rng.uniform(0, 0.5, 80), "stop_by": by * rng.uniform(0.2, 2, 80),
                "target_by": by * rng.uniform(0.2, 3, 80), "trail_by": np.where(rng.random(80) < 0.3, by, np.nan),
                "timeout": rng.integers(1, 40, 80),
            },
            index=coin.index[rows],
        )
        candles[f"C{c}"] = coin
    rates = {
        s: pd.Series(rng.normal(0, 0.001, 60), pd.date_range(t.index[0], periods=60, freq="8h"))
        for s, t in candles.items()
    }
    return candles, orders, rates


def edges(state):
    "Entries and exits per side at the edges of a state, row by row."
    action, leave, before = [], {"long": [], "short": []}, 0
    for now in state:
        action.append(now if now != before else 0)
        leave["long"].append(before == 1 and now != 1)
        leave["short"].append(before == -1 and now != -1)
        before = now
    return pd.Series(action, state.index), pd.DataFrame(leave, state.index)


@pytest.mark.parametrize(
    "values", [{}, {"stop": 0.01, "target": 0.02, "timeout": 30}, {"trailing": 2.0, "unit": "atr"}],
)
def test_hold_is_entries_and_exits_at_its_edges(values):
    "To the last digit, for one coin and for two that share an account; a bool is a state of one side."
    rng, candles, states = np.random.default_rng(5), {}, {}
    for name in ("A", "B"):
        candles[name] = sample_market(n=700, seed=ord(name))
        lengths = rng.integers(1, 40, 700)
        states[name] = pd.Series(np.repeat(rng.choice([-1, 0, 1], 700), lengths)[:700], candles[name].index)
    signals = {name: edges(state) for name, state in states.items()}
    entries, exits = ({name: pair[k] for name, pair in signals.items()} for k in (0, 1))
    held = backtest(candles, states, hold=True, max_total=1, **values)
    crossed = backtest(candles, entries, exits, max_total=1, **values)
    assert len(held.trades) > 20 and held.counts == crossed.counts and held.counts["account_full"] > 0
    pd.testing.assert_frame_equal(held.trades, crossed.trades)
    pd.testing.assert_series_equal(held.equity, crossed.equity)
    long, short = (backtest(candles["A"], states["A"] == side, hold=True, **values).trades for side in (1, -1))
    action, leave = edges((states["A"] == 1).astype(int))
    pd.testing.assert_frame_equal(long, backtest(candles["A"], action == 1, leave["long"], **values).trades)
    alone = backtest(candles["A"], states["A"], hold=True, size_of="capital", **values).trades
    assert alone.entry_time.tolist() == sorted([*long.entry_time, *short.entry_time])


def test_what_has_no_exit_signals_is_what_it_always_was():
    "Digits of an earlier version; exits that never come change nothing."
    candles = sample_market(n=3000, seed=11)
    fell, values = candles["close"].pct_change() < -0.004, {"stop": 0.02, "target": 0.03, "timeout": 24}
    r = backtest(candles, fell, **values)
    assert (len(r.trades), r.counts["coin_busy"]) == (205, 421)
    assert float(r.equity.iloc[-1]) == pytest.approx(4167.582100107424, rel=1e-12)
    assert float(r.trades.net.sum()) == pytest.approx(-5832.417899892572, rel=1e-12)
    nowhere = backtest(candles, fell, pd.Series(False, candles.index), **values)
    pd.testing.assert_frame_equal(r.trades, nowhere.trades)
    pd.testing.assert_series_equal(r.equity, nowhere.equity)


def test_exits_may_be_given_in_many_ways():
    candles = sample_market(n=500, seed=4)
    rng = np.random.default_rng(0)
    entries, exits = (pd.Series(rng.random(500) < rate, candles.index) for rate in (0.1, 0.05))
    expected = backtest(candles, entries, exits)
    assert (expected.trades.exit_reason == "signal").sum() > 10 and expected.counts["conflict"] > 0
    both = pd.DataFrame({"long": exits, "short": exits})
    for given in (
        exits[exits], exits.astype(int), exits.astype(float), exits.astype(object), exits.astype("boolean"), both,
        both[["long"]], both[exits],
    ):
        pd.testing.assert_frame_equal(backtest(candles, entries, given).trades, expected.trades)
    within = pd.DataFrame({"action": entries, "exit": exits})
    pd.testing.assert_frame_equal(backtest(candles, within).trades, expected.trades)
    for wanted in (entries.astype("boolean"), entries.astype(object), entries.astype("int8"), {"": entries}):
        table = candles if not isinstance(wanted, dict) else {"": candles}
        made = backtest(table, wanted, {"": exits} if isinstance(wanted, dict) else exits)
        assert made.trades.net.tolist() == expected.trades.net.tolist()


def test_a_position_left_at_an_open_makes_room_at_that_open():
    "B is bought at the open at which A is sold; over a gap of A, B has to wait."
    flat, index = table(*[CALM] * 8), table(*[CALM] * 8).index
    orders = {s: pd.Series(True, index[[row]]) for s, row in (("A", 0), ("B", 2))}
    exits = {"A": pd.Series(True, index[[2]]), "B": pd.Series(True, index[[5]])}
    r = backtest({"A": flat, "B": flat}, orders, exits, max_total=1)
    assert r.trades.entry_time.tolist() == [index[1], index[3]] and r.trades.exit_time[0] == index[3]
    r = backtest({"A": flat.drop(index[[3, 4]]), "B": flat}, orders, exits, max_total=1)
    assert r.counts["account_full"] == 1 and r.trades.exit_time.tolist() == [index[5]]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("coins, most, total", [(1, 1, None), (1, 3, None), (3, 1, None), (3, 2, 4)])
def test_money_is_conserved(seed, coins, most, total):
    candles, orders, rates = random_case(seed, coins)
    r = backtest(candles, orders, fee=0.0007, slippage=0.0004, funding=rates, max_positions=most, max_total=total)
    t = r.trades
    assert r.equity.iloc[-1] - r.capital == pytest.approx(t.net.sum(), abs=1e-9 * r.capital)
    assert np.allclose(t.net, t.gross - t.fee - t.slippage - t.funding, rtol=0, atol=1e-9 * r.capital)
    assert np.allclose(
        t.net, t.quantity * t.side * (t.exit_price - t.entry_price) - t.fee - t.funding, rtol=0, atol=1e-8 * r.capital,
    )
    c = r.counts
    assert (
        c["orders"]
        == c["taken"]
        + c["coin_busy"]
        + c["account_full"]
        + c["no_next_candle"]
        + c["no_size"]
        + c["warm_up"]
        + c["after_ruin"]
    )
    if total:
        opened = [((t.entry_time <= x) & (t.exit_time > x)).sum() for x in t.entry_time]
        assert max(opened) <= total


def slow_equity(r, candles, rates):
    "The account at every close, one position and one candle at a time, in plain Python."
    times = r.equity.index
    worth = np.full(len(times), r.capital)
    fee = r.settings["fee"]
    for t in r.trades.itertuples():
        own, paid = candles[t.symbol], rates[t.symbol]
        for k, time in enumerate(times):
            closed = time + HOUR
            if closed >= t.exit_time:
                worth[k] += t.net
            elif time >= t.entry_time:
                last = own.index[own.index <= time][-1]
                due = [
                    rate * own["open"][own.index[own.index <= s][-1]] for s, rate in paid.items()
                    if t.entry_time < s < last + HOUR
                ]
                worth[k] += (
                    t.side * t.quantity * (own["close"][last] - t.entry_price - sum(due))
                    - fee * t.entry_price * t.quantity
                )
    return worth


def test_account_against_a_slow_one():
    candles, orders, rates = random_case(3, coins=2, n=160)
    orders = {s: o.iloc[::3] for s, o in orders.items()}
    r = backtest(candles, orders, fee=0.0007, slippage=0.0004, funding=rates, max_positions=2, size_of="capital")
    assert len(r.trades) > 20
    assert np.allclose(r.equity, slow_equity(r, candles, rates), rtol=0, atol=1e-7)


def test_size_is_what_the_account_is_worth_then():
    candles, orders, rates = random_case(4, coins=2)
    r = backtest(candles, orders, max_positions=2, funding=rates)
    t = r.trades[r.trades["size"] > 0]
    worth = r.equity.reindex(t.decided).to_numpy()  # the close that decides
    assert np.allclose(t.quantity * t.entry_price, t["size"] * worth, rtol=1e-9)


def test_several_coins_are_single_coins_together():
    "With a fixed stake and room for all, coins do not touch each other."
    candles, orders, rates = random_case(5, coins=3)
    together = backtest(candles, orders, size_of="capital", funding=rates).trades
    for symbol in candles:
        alone = backtest(candles[symbol], orders[symbol], size_of="capital", funding=rates[symbol]).trades
        mine = together[together.symbol == symbol].reset_index(drop=True)
        pd.testing.assert_frame_equal(mine.drop(columns="symbol"), alone.drop(columns="symbol"))


def test_mirror():
    "Long on prices is short on their mirror, without costs."
    candles = sample_market(n=800, seed=2)
    flipped = candles.copy()
    flipped["open"], flipped["close"] = 1000 - candles["open"] / candles[
        "close"
    ].iloc[0] * 100, 1000 - candles["close"] / candles["close"].iloc[0] * 100
    scaled = candles.copy()
    for name in ("open", "high", "low", "close"):
        scaled[name] = candles[name] / candles["close"].iloc[0] * 100
    flipped["high"], flipped["low"] = 1000 - scaled["low"], 1000 - scaled["high"]
    rows = pd.DataFrame({"action": 1, "stop_by": 1.0, "target_by": 1.5, "timeout": 20}, index=candles.index[20:-20:7])
    a = backtest(scaled, rows, size_of="units", **FREE).trades
    b = backtest(flipped, rows.assign(action=-1), size_of="units", **FREE).trades
    assert np.allclose(a.net, b.net) and (a.exit_reason == b.exit_reason).all()


def test_nothing_later_matters():
    "Trades that ended by a row do not depend on candles after it."
    candles = sample_market(n=900, seed=8)
    signal = pd.Series(np.random.default_rng(0).random(900) < 0.1, candles.index)
    settings = {"stop": 0.01, "target": 0.02, "timeout": 20}
    side = pd.Series(np.where(signal, np.random.default_rng(1).choice([-1, 1], 900), 0), candles.index)
    leave = pd.Series(np.random.default_rng(2).random(900) < 0.1, candles.index)
    for wish, exits, more in ((signal, None, {}), (side, leave, {"upon_opposite_entry": "reverse"})):
        whole, cut = (
            backtest(candles.iloc[:n], wish.iloc[:n], None if exits is None else exits.iloc[:n], **settings, **more)
            for n in (900, 500)
        )
        done = whole.trades[whole.trades.exit_time < candles.index[500]]
        assert len(done) > 20
        pd.testing.assert_frame_equal(done, cut.trades.iloc[: len(done)])


@pytest.mark.parametrize("side", ["long", "short"])
@pytest.mark.parametrize(
    "unit, stop, target, trailing",
    [("atr", 1.5, 3.0, None), ("fraction", 0.01, 0.012, None), ("fraction", 0.02, 0.03, 0.008)],
)
def test_label_is_one_exactly_when_the_trade_ends_at_its_target(shared_data, side, unit, stop, target, trailing):
    from cryptolab.data import load_candles

    candles = load_candles("BTCUSDT", "1h", source="local", data_dir=shared_data, limit=4000)
    label = triple_barrier(candles, target=target, stop=stop, timeout=16, unit=unit, side=side, trailing=trailing)
    every = pd.Series(1 if side == "long" else -1, candles.index)
    t = backtest(
        candles, every, stop=stop, target=target, timeout=16, unit=unit, trailing=trailing, max_positions=len(candles),
        **FREE,
    ).trades.set_index("decided")
    known = label.index[label.y.notna()]
    assert len(known) > 3000
    assert ((t.exit_reason[known] == "target") == (label.y[known] == 1)).all()
    assert np.allclose(t.gross_ret[known], label.ret[known], rtol=0, atol=1e-12)
    assert (t.exit_time[known] == label.t1[known]).all()


# ---------------------------------------------------------------- other engines, trade by trade, on real candles


def real(shared_data, n):
    candles = pd.read_parquet(shared_data / "BTCUSDT_15m.parquet").set_index("timestamp").rename_axis("open_time")
    candles = candles[["open", "high", "low", "close", "volume"]].astype("float64").iloc[-n:].copy()
    candles.attrs["timeframe"] = "15m"
    return candles


def test_parity_with_backtesting(shared_data):
    "Stops and targets as prices, decided at a close, filled from the next open on; a fee on both sides."
    bt = pytest.importorskip("backtesting")
    candles = real(shared_data, 30_000)
    rng = np.random.default_rng(1)
    side = np.where(rng.random(len(candles)) < 0.1, rng.choice([-1, 1], len(candles)), 0)
    close = candles["close"].to_numpy()
    stop, target = close * (1 - side * 0.006), close * (1 + side * 0.009)

    class Random(bt.Strategy):
        def init(self):
            pass

        def next(self):
            row = len(self.data) - 1
            if side[row] and not self.position:
                (self.buy if side[row] > 0 else self.sell)(size=1, sl=stop[row], tp=target[row])

    frame = candles.rename(columns=str.capitalize).set_axis(candles.index.tz_localize(None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = bt.Backtest(
            frame, Random, cash=1e9, commission=0.001, finalize_trades=False,
        ).run()["_trades"].sort_values("EntryBar")
    orders = pd.DataFrame(
        {"action": side, "stop": np.where(side, stop, np.nan), "target": np.where(side, target, np.nan)},
        index=candles.index,
    )
    ours = backtest(candles, orders, fee=0.001, slippage=0, size_of="units", capital=1e9).trades
    ours = ours[ours.exit_reason != "end"]
    assert len(ours) > 1000 and len(ours) == len(theirs)
    rows = candles.index.get_indexer(ours.entry_time)
    assert (rows == theirs.EntryBar).all()
    assert (candles.index.get_indexer(ours.exit_time - pd.Timedelta("15min")) == theirs.ExitBar).all()
    assert np.allclose(ours.exit, theirs.ExitPrice, rtol=1e-12) and np.allclose(
        ours.entry, theirs.EntryPrice, rtol=1e-12,
    )
    assert np.allclose(
        ours.net, theirs.PnL - (theirs.Commission if not np.allclose(ours.net, theirs.PnL) else 0), rtol=1e-9,
        atol=1e-6,
    )


STOPS = {"stop": 0.006, "target": 0.009}
VARIANTS = {  # sides, exits, upon_opposite_entry, fee, slippage, barriers
    "barriers alone": ((1,), False, "ignore", 0.001, 0.0005, STOPS),
    "long": ((1,), True, "ignore", 0.001, 0.0005, {}),
    "short": ((-1,), True, "ignore", 0.0, 0.002, {}),
    "both": ((1, -1), True, "ignore", 0.002, 0.0, {}),
    "close": ((1, -1), True, "close", 0.001, 0.0005, {}),
    "reverse": ((1, -1), True, "reverse", 0.001, 0.0005, {}),
    "hold": ((1, -1), False, "reverse", 0.0, 0.0, {}),
    "barriers too": ((1, -1), True, "reverse", 0.001, 0.0005, STOPS),
}


def random_signals(rng, index, sides, exits):
    "Entries as 1, −1, 0 and exits per side; now and then both in one row."
    rate = 0.05 if exits else 0.1
    action = np.where(rng.random(len(index)) < rate, rng.choice(sides, len(index)), 0)
    action[-1] = 0
    leave = {name: rng.random(len(index)) < 0.04 * exits for name in ("long", "short")}
    return pd.Series(action, index), pd.DataFrame(leave, index=index)


def only_one_order_per_row(run, action):
    "Without the entries in the very row of a barrier, which vectorbt does not carry out; and the trades."
    while True:
        trades = run(action)
        barrier = (trades.exit_reason != "signal").to_numpy()[:-1]
        rows = (trades.exit_time - pd.Timedelta("15min")).array[:-1]
        at_once = np.flatnonzero(barrier & (trades.decided.array[1:] == rows))
        if not len(at_once):
            return action, trades
        action = action.copy()
        action[trades.decided.iloc[at_once[0] + 1]] = 0


def vectorbt_signals(action, leave, later):
    "long entries, long exits, short entries, short exits, of which vectorbt carries each out in its own row."
    columns = [action == 1, leave["long"], action == -1, leave["short"]]
    return [c.shift(1, fill_value=False).to_numpy() if later else c.to_numpy() for c in columns]


@pytest.fixture(scope="module")
def both_engines(shared_data):
    """Name -> trades of ours and of vectorbt on real candles, which it simulates in one call.

    vectorbt carries out a signal in its row: so it is given ours one row later, at the open. With barriers it looks for
    them from the next row on: there the candles open at the last close and signals are carried out at the close.
    """
    without = {"ccxt": None} if "ccxt" not in sys.modules else {}  # vectorbt can do without; its import takes seconds
    sys.modules.update(without)
    vbt = pytest.importorskip("vectorbt")
    for name in without:
        del sys.modules[name]
    candles, rng = real(shared_data, 20_000), np.random.default_rng(2)
    joined = candles.assign(open=candles["close"].shift(1).fillna(candles["open"]))
    joined["high"], joined["low"] = joined[["open", "high"]].max(axis=1), joined[["open", "low"]].min(axis=1)
    ours, columns = {}, []
    for name, (sides, exits, upon, fee, slippage, barriers) in VARIANTS.items():
        action, leave = random_signals(rng, candles.index, sides, exits)
        rules = {"upon_opposite_entry": upon, "exits": leave if exits else None}
        if name == "hold":
            state = np.sign(candles["close"].ewm(span=5).mean() - candles["close"].ewm(span=20).mean())
            action, rules = state.where(state != state.shift(fill_value=0), 0), {"hold": True}
        if upon == "ignore":  # vectorbt ignores an entry in the row in which the other side is left
            action[(action == 1) & leave["short"] | (action == -1) & leave["long"]] = 0
        settings = {"fee": fee, "slippage": slippage, "size_of": "units", "capital": 1e9, **barriers, **rules}

        def run(signals, table=joined if barriers else candles, settings=settings):
            return backtest(table, signals, **settings).trades

        if name == "hold":
            ours[name] = run(state)
        elif barriers:
            action, ours[name] = only_one_order_per_row(run, action)
        else:
            ours[name] = run(action)
        columns.append((*vectorbt_signals(action, leave, not barriers), candles["open"] if not barriers else np.inf))
    *signals, price = (np.column_stack([np.broadcast_to(x, len(candles)) for x in parts]) for parts in zip(*columns))
    long, leave_long, short, leave_short = (pd.DataFrame(s, candles.index, list(VARIANTS)) for s in signals)
    each, modes = list(VARIANTS.values()), vbt.portfolio.enums.OppositeEntryMode
    upon = {"ignore": modes.Ignore, "close": modes.Close, "reverse": modes.Reverse}
    account = vbt.Portfolio.from_signals(
        joined["close"], long, leave_long, short, leave_short, price=price, open=joined["open"], high=joined["high"],
        low=joined["low"], sl_stop=np.array([[v[5].get("stop", np.nan) for v in each]]),
        tp_stop=np.array([[v[5].get("target", np.nan) for v in each]]), fees=np.array([[v[3] for v in each]]),
        slippage=np.array([[v[4] for v in each]]), upon_opposite_entry=np.array([[upon[v[2]] for v in each]]),
        size=1.0, size_type="amount", init_cash=1e9, stop_entry_price="price", stop_exit_price="stopmarket",
        freq="15min",
    )
    records = account.trades.records
    theirs = {name: records[records["col"] == k] for k, name in enumerate(VARIANTS)}
    return candles.index, ours, theirs


@pytest.mark.parametrize("name", VARIANTS)
def test_parity_with_vectorbt(both_engines, name):
    "Rows, sides, prices after slippage, and what each trade earned after fees."
    index, ours, theirs = both_engines
    barriers = bool(VARIANTS[name][5])
    ours, theirs = ours[name], theirs[name]
    ours, theirs = ours[ours.exit_reason != "end"], theirs[theirs["status"] == 1]
    assert len(ours) == len(theirs) > 200
    ended = ours.exit_time if not barriers else ours.exit_time - pd.Timedelta("15min")
    began = ours.decided if barriers else ours.entry_time
    assert (index.get_indexer(began) == theirs["entry_idx"]).all()
    assert (index.get_indexer(ended) == theirs["exit_idx"]).all()
    assert (ours.side.to_numpy() == np.where(theirs["direction"] == 0, 1, -1)).all()
    assert np.allclose(ours.entry_price, theirs["entry_price"], rtol=1e-12)
    assert np.allclose(ours.exit_price, theirs["exit_price"], rtol=1e-12)
    assert np.allclose(ours.net, theirs["pnl"], rtol=1e-9, atol=1e-6)


def test_the_comparison_with_vectorbt_holds_enough(both_engines):
    "A thousand trades of exit signals, barriers before them, and turns."
    _, ours, _ = both_engines
    reasons = pd.concat(ours.values()).exit_reason.value_counts()
    assert reasons["signal"] > 3000 and reasons["stop"] > 200 and reasons["target"] > 100, reasons
    assert set(ours["barriers too"].exit_reason) >= {"signal", "stop", "target"}
    for name in ("reverse", "hold"):
        t = ours[name]
        assert (t.entry_time.array[1:] == t.exit_time.array[:-1]).sum() > 100


# ---------------------------------------------------------------- bad input


def case():
    candles = sample_market(n=200, seed=1)
    return candles, pd.DataFrame({"action": [1, -1]}, index=candles.index[[20, 90]])


def two_hours(candles):
    "The same market in candles of two hours."
    table = candles.resample("2h").last()
    return table.assign(high=table.max(axis=1), low=table.min(axis=1))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c, o: (c, o.set_axis(o.index + pd.Timedelta("7min"))), "candles that do not exist"),
        (lambda c, o: (c, o.assign(action=[1, np.nan])), "unknown action"),
        (lambda c, o: (c, o.assign(action=[2, 1])), "unknown action"),
        (lambda c, o: (c, o.assign(stop=c["high"].max() * 2)), "stop beyond the entry"),
        (lambda c, o: (c, o.assign(target=c["low"].min() / 2)), "target beyond the entry"),
        (lambda c, o: (c, o.assign(size=[-0.1, 1])), "`size`"),
        (lambda c, o: (c, o.assign(size=[np.nan, 1])), "`size`"),
        (lambda c, o: (c, o.assign(stop_by=0.0)), "`stop_by`"),
        (lambda c, o: (c, o.assign(timeout=0)), "`timeout`"),
        (lambda c, o: (c, o.assign(stop_by=1.0, stop=[c["low"].min() / 2, c["high"].max() * 2])), "given twice"),
        (lambda c, o: (c.iloc[::-1], o), "not in order"),
        (lambda c, o: (c.assign(close=np.nan), o), "impossible candle"),
        (lambda c, o: (c.assign(low=-1.0), o), "impossible candle"),
        (lambda c, o: (c.drop(columns="high"), o), "high"),
        (lambda c, o: (c.iloc[:1], o), "at least 2 candles"),
        (lambda c, o: (c, o.iloc[::-1]), "not in order"),
        (lambda c, o: (c, o.iloc[[0, 0]]), "not in order"),
        (lambda c, o: (c, o.reset_index(drop=True)), "no clock"),
        (lambda c, o: (c, o.rename(columns={"action": "signal"})), "no orders"),
        (lambda c, o: ({"A": c, "B": c}, o), "per symbol"),
        (lambda c, o: ({"A": c}, {"B": o}), "coins without candles"),
        (lambda c, o: ({"A": c, "B": two_hours(c)}, {"A": o}), "impossible candle|different timeframes"),
    ],
)
def test_bad_input_is_named(change, words):
    with pytest.raises(DataError, match=words):
        backtest(*change(*case()))


def signals():
    candles = sample_market(n=200, seed=1)
    rng = np.random.default_rng(3)
    return candles, *(pd.Series(rng.random(200) < 0.1, candles.index) for _ in range(2))


def labelled(series, timeframe):
    series = series.copy()
    series.attrs["timeframe"] = timeframe
    return series


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c, e, x: (c, e, x.set_axis(x.index + pd.Timedelta("7min"))), "exits on candles that do not exist"),
        (lambda c, e, x: (c, e, x.set_axis(x.index + pd.Timedelta("9h"))), "exits on candles that do not exist"),
        (lambda c, e, x: (c, e, x.iloc[::-1]), "exits are not in order"),
        (lambda c, e, x: (c, e, x.reset_index(drop=True)), "exits have no clock"),
        (lambda c, e, x: (c, e, x.shift(1)), "unknown exit at"),  # begins with NaN
        (lambda c, e, x: (c, e, x.astype("boolean").shift(1)), "unknown exit at"),
        (lambda c, e, x: (c, e, x * 2), "unknown exit at"),
        (lambda c, e, x: (c, e, -x.astype(int)), "unknown exit at"),
        (lambda c, e, x: (c, e, x.astype(str)), "exits are no numbers"),
        (lambda c, e, x: (c, e.astype(str), x), "actions are no numbers"),
        (lambda c, e, x: (c, e.shift(1), x), "unknown action at"),
        (lambda c, e, x: (c, e, labelled(x, "4h")), "exits of another timeframe"),
        (lambda c, e, x: (c, labelled(e, "15m"), x), "orders of another timeframe"),
        (lambda c, e, x: (c, e, x.to_numpy()), "no exits"),
        (lambda c, e, x: (c, e, 0.01), "no exits"),
        (lambda c, e, x: (c, e, x.to_frame("exit")), "no exits"),
        (lambda c, e, x: (c, e, e), "every entry has an exit on the same candle"),
        (lambda c, e, x: (c, e, e | x), "every entry has an exit on the same candle"),
        (lambda c, e, x: ({"A": c}, {"A": e}, {"B": x}), "exits for coins without candles"),
        (lambda c, e, x: ({"A": c, "B": c}, {"A": e}, x), "exits for coins without candles"),
    ],
)
def test_bad_exits_are_named(change, words):
    with pytest.raises(DataError, match=words) as told:
        backtest(*change(*signals()))
    assert told.value.remedy


@pytest.mark.parametrize(
    "change, values, words",
    [
        (lambda e, x: (e, None), {}, "can never close"),
        (lambda e, x: (e, None), {"unit": "atr", "trailing_from": 1.0}, "can never close"),
        (lambda e, x: (e, None), {"upon_opposite_entry": "reverse"}, "can never close"),  # there is no other side
        (lambda e, x: (e, x.to_frame("short")), {}, "can never close"),
        (lambda e, x: (-e.astype(int), x.to_frame("long")), {}, "can never close"),
        (lambda e, x: (e, x), {"hold": True}, "contradict"),
        (lambda e, x: (e, None), {"hold": True, "upon_opposite_entry": "close"}, "contradict"),
        (lambda e, x: (pd.DataFrame({"action": e, "exit": x}), None), {"hold": True}, "contradict"),
        (lambda e, x: (pd.DataFrame({"action": e, "exit": x}), x), {}, "given twice"),
        (lambda e, x: (e, x), {"upon_opposite_entry": "flip"}, "ignore | close | reverse"),
        (lambda e, x: (e, None), {"hold": "yes"}, "hold true or false"),
        (lambda e, x: (e, x), {"timeout": 0}, "`timeout`"),
    ],
)
def test_signals_that_make_no_sense_are_named(change, values, words):
    candles, entries, exits = signals()
    with pytest.raises(SettingsError) as told:
        backtest(candles, *change(entries, exits), **values)
    assert words in str(told.value) and told.value.remedy


def test_orders_that_never_close_are_named_one_by_one():
    candles, orders = case()
    first = f"{orders.index[1]:%Y-%m-%d %H:%M}"
    with pytest.raises(SettingsError, match=f"1 of 2 orders can never close, the first at {first}") as told:
        backtest(candles, orders.assign(timeout=[5, np.nan]))
    assert "hold=True" in told.value.remedy and "exits=" in told.value.remedy
    assert len(backtest(candles, orders, upon_opposite_entry="reverse").trades) == 2
    with pytest.raises(SettingsError, match="can never close a trade"):
        sweep(candles, candles["close"] > candles["open"], stop=[0.01, None])


def test_hold_needs_a_state_for_every_candle():
    candles, entries, _ = signals()
    for wish in (entries.iloc[5:], entries[entries], entries.set_axis(entries.index + HOUR)):
        with pytest.raises(DataError, match="`hold` needs a state for every candle"):
            backtest(candles, wish, hold=True)


@pytest.mark.parametrize(
    "values",
    [
        {"fee": 1.0}, {"fee": -0.1}, {"slippage": 2}, {"capital": 0}, {"capital": -5}, {"size_of": "lots"},
        {"max_positions": 0}, {"stop": -0.1}, {"unit": "pips", "stop": 1},
    ],
)
def test_bad_settings_are_named(values):
    with pytest.raises(SettingsError):
        backtest(*case(), **values)


def test_missing_probability_is_no_size():
    with pytest.raises(DataError, match="row 1"):
        half_kelly([0.6, np.nan], 0.02, 0.01)


def test_no_orders_is_a_quiet_account():
    candles, orders = case()
    r = backtest(candles, orders.assign(action=0))
    assert len(r.trades) == 0 and (r.equity == r.capital).all() and r.counts["orders"] == 0


def test_account_that_goes_to_zero():
    rows = [(100 * 1.05**k, 100 * 1.05 ** (k + 1), 100 * 1.05**k, 100 * 1.05 ** (k + 1)) for k in range(40)]
    candles = table(*rows)
    orders = pd.DataFrame({"action": [-1, 1]}, index=candles.index[[0, 30]])
    r = backtest(candles, orders, size=2.0, timeout=40, **FREE)
    assert r.trades.exit_reason.tolist() == ["ruin"] and r.counts["after_ruin"] == 1
    first = np.flatnonzero(r.equity <= 0)[0]
    assert r.trades.exit_time[0] == candles.index[first] + HOUR and (
        r.equity.iloc[first:] == r.equity.iloc[first]
    ).all()
    assert r.equity.iloc[-1] == pytest.approx(r.capital + r.trades.net.sum())


def test_trades_over_gaps_are_counted():
    candles, orders = case()
    r = backtest(candles.drop(candles.index[25:30]), orders.iloc[:1].assign(timeout=10))
    assert r.counts["over_gap"] == 1


# ---------------------------------------------------------------- what a result shows


def test_a_result_says_what_came_of_it():
    candles = sample_market(n=600, seed=3)
    rng = np.random.default_rng(0)
    entries, exits = (pd.Series(rng.random(600) < 0.1, candles.index) for _ in range(2))
    few, many = (backtest(candles, e, exits, stop=0.02) for e in (entries & (np.arange(600) < 80), entries))
    said = repr(many)
    assert len(said.splitlines()) == 3 and len(said) < 600
    net, held = many.equity.iloc[-1] / many.capital - 1, many.summary(n_samples=20).reference["total_return"]
    paid = (many.trades.fee + many.trades.slippage).sum() / many.capital
    for number in (f"{len(many.trades)} trades", f"{net:+.1%}", f"{held:+.1%}", f"{paid:.1%}"):
        assert number.replace("-", "−").replace("%", " %") in said, number
    ratio = many.summary(n_samples=20).loc["sharpe"]
    assert f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})".replace("-", "−") in said
    assert f"{many.counts['conflict']} met an exit on the same candle" in said
    assert len(few.trades) < 30 <= len(many.trades)
    assert "Below 30 trades: no verdict" in repr(few) and "verdict" not in said
    page = many._repr_html_()
    assert page.count("<tr") == 7 and "buy and hold" in page and f"{net:+.1%}"[:-1].replace("-", "−") in page


def test_a_result_is_shown_whatever_happened():
    "No trades, one, ruin, two candles, several coins, names that are markup."
    candles = sample_market(n=300, seed=3)
    rising = table(*[(100 * 1.05**k, 100 * 1.05 ** (k + 1), 100 * 1.05**k, 100 * 1.05 ** (k + 1)) for k in range(40)])
    always, name = pd.Series(True, candles.index), "<b>A"
    results = [
        backtest(candles, ~always, timeout=2), backtest(candles, always, hold=True),
        backtest(rising, -pd.Series(1, rising.index), hold=True, size=2.0),
        backtest(candles.iloc[:2], always.iloc[:2], hold=True),
        backtest({name: candles, "B": candles.iloc[40:]}, {name: always, "B": always.iloc[50:]}, timeout=3),
        backtest({name: candles, "B": candles}, {"B": always}, timeout=3),
    ]
    for r in results:
        axes = r.plot()
        assert repr(r) and "<b>" not in r._repr_html_() and len(axes) == 2
        axes[0].figure.canvas.draw()
        plt.close(axes[0].figure)
    with pytest.raises(SettingsError, match="cannot be drawn"):
        results[-1].plot(symbol="C")


@pytest.mark.parametrize("rows", [None, 150])
def test_the_picture_of_a_result_is_true(rows):
    candles = sample_market(n=600, seed=3)
    state = pd.Series(np.sign(np.sin(np.arange(600) / 15)).astype(int), candles.index)
    r = backtest(candles, state, hold=True, stop=0.03)
    price, account = r.plot(rows=rows)
    shown = r.trades if rows is None else r.trades[r.trades.entry_time >= candles.index[-rows]]
    marks = {line.get_label(): line for line in price.lines if not line.get_label().startswith("_")}
    for side, mark in (("long", 1), ("short", -1)):
        part = shown[shown.side == mark]
        line = marks[f"{side} {len(part)}"]
        assert (pd.DatetimeIndex(line.get_xdata()).tz_localize("UTC") == part.entry_time.array).all()
        assert (line.get_ydata() == part.entry).all()
    won = shown[shown.net > 0]
    line = marks[f"earned {len(won)}"]
    at = pd.DatetimeIndex(line.get_xdata()).tz_localize("UTC")
    inside = candles.loc[at, ["low", "high"]].to_numpy()
    assert (line.get_ydata() == won.exit).all()
    assert (inside[:, 0] <= won.exit).all() and (won.exit <= inside[:, 1]).all()
    hold, own = account.lines
    drawn = r.equity if rows is None else r.equity.iloc[-rows:]
    assert own.get_ydata() == pytest.approx((drawn / drawn.iloc[0]).to_numpy())
    close = candles["close"].loc[drawn.index]
    assert hold.get_ydata()[5:-1] == pytest.approx((close / close.iloc[5] * hold.get_ydata()[5]).to_numpy()[5:-1])
    plt.close(price.figure)


# ---------------------------------------------------------------- sweeps


@pytest.mark.parametrize("side", [1, -1])
def test_sweep_is_many_backtests(shared_data, side):
    candles = real(shared_data, 6000)
    score = candles["close"].pct_change().fillna(0) * -side
    board = sweep(
        candles, score, thresholds=[0.002, 0.004], side=side, stop=[0.005, None], target=0.01, trailing=[None, 0.006],
        trailing_from=0.002, timeout=[12, 48], fee=[0, 0.001], slippage=0.0005,
    )
    assert len(board) == 2 * 2 * 2 * 2 * 2
    for line in board.sample(10, random_state=1).itertuples():
        none = lambda x: None if np.isnan(x) else x
        r = backtest(
            candles, pd.Series(np.where(score > line.threshold, side, 0), candles.index), stop=none(line.stop),
            target=line.target, trailing=none(line.trailing), trailing_from=line.trailing_from,
            timeout=int(line.timeout), fee=line.fee, slippage=line.slippage,
        )
        t, worth = r.trades, np.r_[r.capital, r.equity]
        returns = np.diff(worth) / worth[:-1]
        assert line.trades == len(t) > 20
        assert line.win_rate == pytest.approx((t.net > 0).mean())
        assert line.total_return == pytest.approx(worth[-1] / worth[0] - 1, abs=1e-9)
        assert line.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(365 * 96))
        assert line.sortino == pytest.approx(
            returns.mean() / np.sqrt((np.minimum(returns, 0) ** 2).mean()) * np.sqrt(365 * 96)
        )
        assert line.profit_factor == pytest.approx(t.net[t.net > 0].sum() / -t.net[t.net < 0].sum())
        assert line.max_drawdown == pytest.approx((worth / np.maximum.accumulate(worth) - 1).min())
        assert line.exposure == pytest.approx(t.candles.sum() / len(candles))
