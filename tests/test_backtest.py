"""The backtester: every exit by hand, trades equal to backtesting.py and vectorbt, money conserved, faults refused."""

import warnings

import numpy as np
import pandas as pd
import pytest

from cryptolab.backtest import backtest, half_kelly, sweep
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
    whole, cut = backtest(candles, signal, **settings).trades, backtest(
        candles.iloc[:500], signal.iloc[:500], **settings,
    ).trades
    done = whole[whole.exit_time < candles.index[500]]
    pd.testing.assert_frame_equal(done, cut.iloc[: len(done)])


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


def test_parity_with_vectorbt(shared_data):
    """vectorbt enters in the row of the signal and looks for stops from the next row on. The candles here open at the
    last close, which makes that the same.
    It carries out one order per row, so signals in the very candle of an exit are left out."""
    vbt = pytest.importorskip("vectorbt")
    candles = real(shared_data, 40_000)
    candles["open"] = candles["close"].shift(1).fillna(candles["open"])
    candles["high"], candles["low"] = candles[["open", "high"]].max(axis=1), candles[["open", "low"]].min(axis=1)
    signal = pd.Series(np.random.default_rng(2).random(len(candles)) < 0.1, candles.index)
    signal.iloc[-1] = False
    while True:
        ours = backtest(
            candles, signal, fee=0.001, slippage=0.0005, stop=0.006, target=0.009, size_of="units", capital=1e9,
        ).trades
        at_once = ours.decided[1:].values == (ours.exit_time[:-1] - pd.Timedelta("15min")).values
        if not at_once.any():
            break
        signal[ours.decided.iloc[1:][at_once].iloc[0]] = False
    theirs = vbt.Portfolio.from_signals(
        candles["close"], signal, False, open=candles["open"], high=candles["high"], low=candles["low"], sl_stop=0.006,
        tp_stop=0.009, fees=0.001, slippage=0.0005, size=1.0, size_type="amount", init_cash=1e9,
        stop_entry_price="price", stop_exit_price="stopmarket", freq="15min",
    ).trades.records_readable
    ours, theirs = ours[ours.exit_reason != "end"], theirs[theirs["Status"] == "Closed"]
    assert len(ours) > 1000 and len(ours) == len(theirs)
    assert (ours.decided.to_numpy() == pd.DatetimeIndex(theirs["Entry Timestamp"])).all()
    assert ((ours.exit_time - pd.Timedelta("15min")).to_numpy() == pd.DatetimeIndex(theirs["Exit Timestamp"])).all()
    assert np.allclose(ours.entry_price, theirs["Avg Entry Price"], rtol=1e-12) and np.allclose(
        ours.exit_price, theirs["Avg Exit Price"], rtol=1e-12
    )
    assert np.allclose(ours.net, theirs["PnL"], rtol=1e-9, atol=1e-6)


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
