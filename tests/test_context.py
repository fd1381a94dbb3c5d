"""Context on real tables: nothing before it was known, and every kind of bad table named or counted."""
import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.features.context import align_context, context_report, known_at, state_vintage

HOUR, MINUTE, DAY = (pd.Timedelta(t) for t in ("1h", "1min", "1D"))


def read(folder, name):
    "A table as it lies in the folder, time in a column."
    return pd.read_parquet(folder / f"{name}.parquet")


def candles_of(folder, name, start, stop):
    "A stretch of candles with open times as index."
    table = read(folder, name).set_index("timestamp").rename_axis("open_time").astype("float64")
    return table[(table.index >= pd.Timestamp(start, tz="UTC")) & (table.index < pd.Timestamp(stop, tz="UTC"))]


def align(candles, step=HOUR, **context):
    "Shorthand."
    return align_context(candles, context, step.value)


@pytest.fixture(scope="module")
def hourly(shared_data):
    return candles_of(shared_data, "BTCUSDT_1h", "2022-01-01", "2022-04-01")


@pytest.fixture(scope="module")
def tables(shared_data):
    "Every kind of context for these hours."
    cut = lambda t: t[
        (t["timestamp"] >= pd.Timestamp("2021-12-01", tz="UTC"))
        & (t["timestamp"] < pd.Timestamp("2022-05-01", tz="UTC"))
    ]
    names = {
        "funding": "funding/BTCUSDT_funding", "perpetual": "funding/BTCUSDT_perp_1h", "exchange": "BTCUSD_1h_kraken",
        "onchain": "onchain/BTC_coinmetrics_1d",
    }
    found = {kind: cut(read(shared_data, name)).reset_index(drop=True) for kind, name in names.items()}
    coins = {f"{coin}USDT": cut(read(shared_data, f"{coin}USDT_1h")) for coin in ("BTC", "ETH", "SOL", "ADA")}
    return {**found, "coins": coins, "cross": {"cross": coins["ADAUSDT"], "reference": coins["ETHUSDT"]}}


@pytest.fixture
def made():
    "Ten hours, and a funding table of the documented form."
    candles = pd.DataFrame({"close": 1.0}, index=pd.date_range("2024-01-01", periods=10, freq="h", tz="UTC"))
    return candles, pd.DataFrame({"timestamp": candles.index[[0, 8]], "funding_rate": [1e-4, 2e-4]})


# ---- nothing before it was known


def spoiled(kind, table, close, step, drop):
    "The table with every row that is not yet known at `close` changed, or without it."
    if isinstance(table, dict):
        return {name: spoiled(kind, one, close, step, drop) for name, one in table.items()}
    later = np.asarray(known_at(kind, table, step.value) > close)
    if drop:
        return table[~later]
    table = table.copy()
    for name in table.columns:
        if table[name].dtype == "float64":
            table.loc[later, name] = table[name][later] * 1.5 + 1e-3
    return table


@pytest.mark.parametrize("drop", [False, True])
def test_rows_that_are_not_yet_known_do_not_matter(hourly, tables, drop):
    whole = align(hourly, **tables)
    for row in (50, 777, 1001, 1999):
        close = hourly.index[row] + HOUR
        changed = align(hourly, **{kind: spoiled(kind, table, close, HOUR, drop) for kind, table in tables.items()})
        assert set(changed) == set(whole)
        for name, x in whole.items():
            np.testing.assert_array_equal(changed[name][: row + 1], x[: row + 1], err_msg=f"{name}, row {row}")


def test_the_order_book_and_trades_that_are_not_yet_known_do_not_matter(shared_data):
    minutes = candles_of(shared_data, "BTCUSDT_1m", "2024-08-08 23:50", "2024-08-09 00:08")
    tables = {
        kind: read(shared_data, f"orderbook/BTCUSDT_{name}")
        for kind, name in (("orderbook", "depth20"), ("trades", "trades"))
    }
    whole = align(minutes, MINUTE, **tables)
    for row in (5, 6, 9, 14):
        close = minutes.index[row] + MINUTE
        changed = align(
            minutes, MINUTE, **{kind: spoiled(kind, table, close, MINUTE, True) for kind, table in tables.items()},
        )
        for name, x in whole.items():
            np.testing.assert_array_equal(changed[name][: row + 1], x[: row + 1], err_msg=f"{name}, row {row}")


def test_what_is_known_is_used(hourly, tables):
    "The guard above would also pass for a join that is a week late."
    for kind, first, array in (
        ("funding", "funding_rate", "funding_rate"), ("perpetual", "close", "perp_close"),
        ("onchain", "TxCnt", "onchain_TxCnt"),
    ):
        table = tables[kind].query("exchange == 'binance'").copy() if kind == "funding" else tables[kind].copy()
        whole = align(hourly, **{kind: table})
        known = known_at(kind, table, HOUR.value)
        row = 1001
        newest = known[known <= hourly.index[row] + HOUR].max()
        table.loc[known == newest, first] *= 2
        at = np.flatnonzero(align(hourly, **{kind: table})[array] != whole[array])
        assert hourly.index[at[0]] + HOUR == newest, kind


def test_pieces_equal_the_whole(hourly, tables):
    whole = align(hourly, **tables)
    for start, stop in ((0, 1), (1, 40), (40, 41), (900, 1500)):
        piece = align(hourly.iloc[start:stop], **tables)
        for name, x in whole.items():
            np.testing.assert_array_equal(piece[name], x[start:stop], err_msg=name)


# ---- on-chain days


def test_an_on_chain_day_is_known_only_after_it_has_ended(shared_data, hourly, tables):
    days = tables["onchain"].set_index("timestamp")["TxCnt"]
    found = pd.Series(align(hourly, onchain=tables["onchain"])["onchain_TxCnt"], hourly.index)
    for open_time in hourly.index[::37]:
        close = open_time + HOUR
        # a full day after its end, as long as nothing was late
        assert found[open_time] == days[close.normalize() - 2 * DAY], open_time
    late = known_at("onchain", read(shared_data, "onchain/BTC_coinmetrics_1d"), HOUR.value)
    stamps = read(shared_data, "onchain/BTC_coinmetrics_1d")["timestamp"]
    assert (late - pd.DatetimeIndex(stamps)).max() > 5 * DAY and (late >= pd.DatetimeIndex(stamps) + 2 * DAY).all()


def test_a_late_day_is_waited_for(shared_data):
    table = read(shared_data, "onchain/BTC_coinmetrics_1d")
    table = table[table["timestamp"] >= pd.Timestamp("2024-01-01", tz="UTC")].reset_index(drop=True)
    known = known_at("onchain", table, HOUR.value)
    worst = int(np.argmax(known - pd.DatetimeIndex(table["timestamp"])))
    candles = candles_of(
        shared_data, "BTCUSDT_1h", table["timestamp"][worst].date(),
        table["timestamp"][worst].date() + pd.Timedelta("12D"),
    )
    found = align(candles, onchain=table)["onchain_TxCnt"]
    seen = candles.index[found == table["TxCnt"][worst]] + HOUR
    assert len(seen) == 0 or seen[0] >= known[worst]


def test_two_vintages_of_the_chain_agree(shared_data):
    candles = candles_of(shared_data, "BTCUSDT_1h", "2019-01-01", "2019-11-15")
    new, old = (
        align(candles, onchain=read(shared_data, f"onchain/BTC_coinmetrics_{name}")) for name in ("1d", "2019_1d")
    )
    both = [name for name in new if name in old and name not in ("onchain_FlowInExNtv",)]
    assert len(both) >= 14 and "onchain_TxTfrValMeanNtv" in old and "onchain_FlowInExNtv" in new
    early = candles.index < pd.Timestamp("2019-10-20", tz="UTC")
    for name in both:
        np.testing.assert_allclose(new[name][early], old[name][early], rtol=1e-9, err_msg=name)
    # the old one ends and goes stale
    assert np.isnan(old["onchain_TxCnt"][-24:]).all() and np.isfinite(new["onchain_TxCnt"][-24:]).all()


def test_a_vintage_hides_what_may_have_been_restated(shared_data, hourly):
    table = read(shared_data, "onchain/BTC_coinmetrics_1d")
    table = table[table["timestamp"] < pd.Timestamp("2022-02-15", tz="UTC")]
    plain, stated = align(hourly, onchain=table), align(hourly, onchain=state_vintage(table, "2022-02-15 12:00"))
    accepted = align(hourly, onchain=state_vintage(table, "2022-02-15 12:00", restated=True))
    before = hourly.index + HOUR < pd.Timestamp("2022-02-15 12:00", tz="UTC")
    for name in plain:
        flows = any(part in name for part in ("Flow", "SplyEx", "CapMrktEst", "volume_reported"))
        np.testing.assert_array_equal(
            stated[name], np.where(before, np.nan, plain[name]) if flows else plain[name], err_msg=name,
        )
        np.testing.assert_array_equal(accepted[name], plain[name])
    notes = [context_report(a)["note"].iloc[0] for a in (plain, stated, accepted)]
    for note, start in zip(notes, ("vintage not stated", "unknown before the vintage 2022-02-15", "as of 2022-02-15")):
        assert note.startswith(start), note
    with pytest.raises(DataError, match="a day lies after the table's vintage"):
        align(hourly, onchain=state_vintage(table, "2022-02-10"))


def test_a_table_with_versions_shows_each_candle_the_version_of_its_time():
    candles = pd.DataFrame(index=pd.date_range("2024-01-01", periods=144, freq="h", tz="UTC"))
    rows = [
        ("2024-01-01", "2024-01-02 06:00", 1.0), ("2024-01-02", "2024-01-03 06:00", 2.0),
        ("2024-01-02", "2024-01-03 18:00", 2.5),
    ]
    rows += [("2024-01-01", "2024-01-05 00:00", 1.5)]
    table = pd.DataFrame(rows, columns=["timestamp", "known", "FlowInExNtv"])
    table = table.assign(
        timestamp=pd.to_datetime(table["timestamp"], utc=True), known=pd.to_datetime(table["known"], utc=True),
    )
    found = pd.Series(align(candles, onchain=table.iloc[[2, 0, 3, 1]])["onchain_FlowInExNtv"], candles.index)
    for close, value in (
        ("01-02 05", np.nan), ("01-02 06", 1.0), ("01-03 05", 1.0), ("01-03 06", 2.0), ("01-03 18", 2.5),
        ("01-05 03", 2.5),
    ):
        np.testing.assert_equal(found[pd.Timestamp(f"2024-{close}:00", tz="UTC") - HOUR], value)


# ---- funding


def test_funding_is_the_newest_settled_rate(shared_data, hourly, tables):
    found = align(hourly, funding=tables["funding"])
    binance = tables["funding"].query("exchange == 'binance'")
    for row in range(0, len(hourly), 101):
        known = binance[binance["timestamp"] <= hourly.index[row] + HOUR].iloc[-1]
        assert found["funding_rate"][row] == known["funding_rate"]
        assert found["funding_age"][row] == (hourly.index[row] + HOUR - known["timestamp"]) / HOUR < 8
    assert np.nanmin(found["funding_spread"]) >= 0 and found["funding_age"].max() == 7


def test_hourly_rates_are_compared_per_eight_hours(hourly, tables):
    only = tables["funding"].query("exchange in ('binance', 'dydx')")
    found, row = align(hourly, funding=only), 500
    close = hourly.index[row] + HOUR
    rates = [
        only[(only["exchange"] == name) & (only["timestamp"] <= close)]["funding_rate"].iloc[-1]
        for name in ("binance", "dydx")
    ]
    np.testing.assert_allclose(found["funding_mean"][row], (rates[0] + 8 * rates[1]) / 2)
    np.testing.assert_allclose(found["funding_spread"][row], abs(rates[0] - 8 * rates[1]))


def test_a_missing_month_is_unknown_and_counted(shared_data):
    gate = read(shared_data, "funding/BTCUSDT_funding").query("exchange == 'gate'")
    hole = int(np.argmax(gate["timestamp"].diff().dt.total_seconds().to_numpy()[1:])) + 1
    start, stop = gate["timestamp"].iloc[hole - 1], gate["timestamp"].iloc[hole]
    candles = pd.DataFrame(index=pd.date_range(start, stop, freq="h"))
    aligned = align(candles, funding=gate)
    missing = np.isnan(aligned["funding_rate"])
    assert missing.sum() == 752 - 25 and not missing[:24].any() and not missing[-1] and context_report(
        aligned
    )["holes"].iloc[0] == missing.sum()
    patient = gate.copy()
    patient.attrs["max_age"] = "40D"
    assert np.isfinite(align(candles, funding=patient)["funding_rate"]).all()


def test_the_leading_exchange_can_be_stated(hourly, tables):
    table = tables["funding"].copy()
    table.attrs["exchange"] = "kucoin"
    assert (
        align(hourly, funding=table)["funding_age"] != align(hourly, funding=tables["funding"])["funding_age"]
    ).any()
    table.attrs["exchange"] = "ftx"
    with pytest.raises(DataError, match="no rates of 'ftx'"):
        align(hourly, funding=table)


# ---- other markets


def test_candles_of_other_markets_are_those_of_the_same_hour(hourly, tables):
    holed = tables["perpetual"].drop(index=tables["perpetual"].index[800:805])
    aligned = align(hourly, perpetual=holed)
    expected = holed.set_index("timestamp")["close"].reindex(hourly.index)
    np.testing.assert_array_equal(aligned["perp_close"], expected)
    assert context_report(aligned)["holes"].iloc[0] == expected.isna().sum() == 5


def test_coins_leave_out_the_coin_itself(hourly, tables):
    coins = tables["coins"]
    returns = {
        name: np.log(t.set_index("timestamp")["close"] / t.set_index("timestamp")["open"]).reindex(hourly.index)
        for name, t in coins.items()
    }
    others = pd.DataFrame({name: r for name, r in returns.items() if name != "BTCUSDT"})
    named = hourly.copy()
    named.attrs["symbol"] = "BTC/USDT"
    for candles in (hourly, named):
        found = align(candles, coins=coins)
        np.testing.assert_allclose(found["market_return"], others.mean(axis=1), atol=1e-15)
        np.testing.assert_allclose(found["market_dispersion"], others.std(axis=1, ddof=0), atol=1e-12)
        np.testing.assert_allclose(found["market_up"], (others > 0).mean(axis=1))
        np.testing.assert_array_equal(
            found["leader_close"], coins["ETHUSDT"].set_index("timestamp")["close"].reindex(hourly.index),
        )
    other = align(hourly.assign(close=hourly["close"] + 1), coins={k: v for k, v in coins.items() if k != "ETHUSDT"})
    np.testing.assert_array_equal(
        other["leader_close"], coins["BTCUSDT"].set_index("timestamp")["close"].reindex(hourly.index),
    )
    assert "leader_close" not in align(hourly, coins={"SOLUSDT": coins["SOLUSDT"]})  # no leader: absent, not zero


def test_another_timeframe_is_refused(hourly, shared_data):
    for kind, table in (
        ("perpetual", read(shared_data, "BTCUSDT_4h")), ("exchange", read(shared_data, "BTCUSDT_15m").iloc[-5000:]),
    ):
        with pytest.raises(DataError, match="another timeframe than the candles"):
            align(hourly, **{kind: table})
    with pytest.raises(DataError, match="another timeframe"):
        align(hourly, coins={"ETHUSDT": read(shared_data, "ETHUSDT_1d")})


# ---- order book and trades


def test_trades_add_up_to_the_exchange_s_own_candles(shared_data):
    minutes = candles_of(shared_data, "BTCUSDT_1m", "2024-08-08 23:50", "2024-08-09 00:08")
    trades = read(shared_data, "orderbook/BTCUSDT_trades")
    found = align(minutes, MINUTE, trades=trades)
    full = np.isfinite(found["trade_flow"])
    assert full.sum() == 10 and minutes.index[full][0] == pd.Timestamp("2024-08-08 23:55", tz="UTC")
    np.testing.assert_array_equal(found["trade_count"][full], minutes["trades"][full])
    np.testing.assert_allclose(
        found["trade_flow"][full], (2 * minutes["taker_buy_volume"] / minutes["volume"] - 1)[full], atol=1e-6,
    )
    np.testing.assert_allclose(found["trade_size"][full], (minutes["volume"] / minutes["trades"])[full], rtol=1e-6)
    hole = align(minutes, MINUTE, trades=trades.drop(index=9000))
    lost = full & np.isnan(hole["trade_flow"])
    assert lost.sum() == 1  # one trade number is missing: that candle is not covered


def test_a_slow_receiver_s_clock_does_not_see_the_future(shared_data):
    minutes = candles_of(shared_data, "BTCUSDT_1m", "2024-08-08 23:54", "2024-08-09 00:06")
    book = read(shared_data, "orderbook/BTCUSDT_depth20")
    local = pd.to_datetime(book["local_ns"], utc=True)
    assert (local < book["timestamp"]).all()  # messages that arrive before they were sent
    assert (known_at("orderbook", book, MINUTE.value) == pd.DatetimeIndex(book["timestamp"])).all()
    found = align(minutes, MINUTE, orderbook=book)
    for row, open_time in enumerate(minutes.index):
        last = book[book["timestamp"] <= open_time + MINUTE].iloc[-1]
        bids, asks = (sum(last[f"{side}_qty_{i}"] for i in range(1, 11)) for side in ("bid", "ask"))
        np.testing.assert_allclose(found["book_imbalance_10"][row], (bids - asks) / (bids + asks))
    honest = book.assign(local_ns=book["timestamp"].dt.as_unit("ns").astype("int64") + 10**9)
    np.testing.assert_array_equal(
        known_at("orderbook", honest, 0), pd.DatetimeIndex(book["timestamp"]) + pd.Timedelta("1s"),
    )


def test_impossible_and_thin_books():
    candles = pd.DataFrame(index=pd.date_range("2024-01-01", periods=3, freq="min", tz="UTC"))
    book = pd.DataFrame(
        {
            "timestamp": candles.index + pd.Timedelta("59s"), "bid_px_1": [99.0, 102, 99], "bid_qty_1": [1.0, 1, 0],
            "ask_px_1": [101.0, 101, 101], "ask_qty_1": [3.0, 1, 1],
        }
    )
    aligned = align(candles, MINUTE, orderbook=book)
    assert "book_imbalance_5" not in aligned and "book_imbalance_20" not in aligned  # fewer levels: absent
    np.testing.assert_allclose(aligned["book_spread"], [0.02, np.nan, 0.02])
    # crossed; no quantity
    assert np.isnan(aligned["book_microprice"][2]) and context_report(aligned)["bad"].iloc[0] == 2


# ---- bad tables


def test_times_in_every_form_give_the_same(made):
    candles, table = made
    expected = align(candles, funding=table)["funding_rate"]
    stamps = table["timestamp"]
    forms = [stamps.dt.tz_convert("Asia/Tokyo"), stamps.dt.as_unit("ms"), stamps.rename("open_time")]
    forms += [
        (stamps.dt.as_unit("ns").astype("int64") // unit).rename("timestamp") for unit in (10**9, 10**6, 10**3, 1)
    ]
    forms += [forms[3].astype("float64")]
    for form in forms:
        np.testing.assert_array_equal(
            align(candles, funding=table.drop(columns="timestamp").assign(**{form.name: form}))["funding_rate"],
            expected,
        )
    np.testing.assert_array_equal(align(candles, funding=table.set_index("timestamp"))["funding_rate"], expected)
    np.testing.assert_array_equal(
        align(candles.tz_convert("America/New_York"), funding=table)["funding_rate"], expected,
    )
    np.testing.assert_array_equal(align(candles, funding=table.iloc[::-1])["funding_rate"], expected)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.assign(timestamp=t["timestamp"].dt.tz_localize(None)), "no time zone"),
        (lambda t: t.assign(timestamp=t["timestamp"].astype(str)), "cannot be read"),
        (lambda t: t.assign(timestamp=t["timestamp"].where([True, False])), "row 1 has no time"),
        (lambda t: t.assign(timestamp=[1704067200.0, np.nan]), "row 1 has no time"),
        (lambda t: t.rename(columns={"timestamp": "when"}), "has no time"),
        (lambda t: t.rename(columns={"funding_rate": "rate"}), "column `funding_rate` is missing"),
        (lambda t: t.iloc[:0], "has no rows"),
        (lambda t: t["funding_rate"], "must be a table"),
        (lambda t: t.assign(funding_rate="n/a"), "no usable rate"),
        (lambda t: pd.concat([t, t.assign(funding_rate=0.5)]), "two different rows for the same time"),
    ],
)
def test_bad_tables_are_named(made, change, message):
    candles, table = made
    with pytest.raises(DataError, match=message) as error:
        align(candles, funding=change(table))
    assert "funding" in str(error.value) and "what to do" in str(error.value)


def test_bad_keys_and_candles_are_named(made):
    candles, table = made
    with pytest.raises(SettingsError, match="did you mean `onchain`"):
        align(candles, on_chain=table)
    with pytest.raises(SettingsError, match="dictionary"):
        align_context(candles, table, HOUR.value)
    with pytest.raises(DataError, match="must hold two candle tables"):
        align(candles, cross={"cross": table})
    with pytest.raises(DataError, match="candles: the times have no time zone"):
        align(candles.tz_localize(None), funding=table)
    with pytest.raises(DataError, match="needs candles with times"):
        align(candles.reset_index(drop=True), funding=table)
    assert dict(align(candles, funding=None)) == {}


def test_rows_that_occur_twice_count_once_and_are_counted(made):
    candles, table = made
    aligned = align(candles, funding=pd.concat([table, table]))
    np.testing.assert_array_equal(aligned["funding_rate"], align(candles, funding=table)["funding_rate"])
    assert context_report(aligned)["doubled"].iloc[0] == 2
    by_exchange = pd.concat([table.assign(exchange="a"), table.assign(exchange="b", funding_rate=0.0)])
    # the same time on two exchanges is no double
    assert context_report(align(candles, funding=by_exchange))["doubled"].iloc[0] == 0


def test_a_late_start_and_impossible_numbers_are_unknown_and_counted(hourly, tables):
    late = tables["perpetual"].query("timestamp >= @hourly.index[100]").copy()
    late.iloc[20, late.columns.get_loc("close")] = -1.0
    late.iloc[30, late.columns.get_loc("volume")] = np.inf
    aligned = align(hourly, perpetual=late)
    report = context_report(aligned).iloc[0]
    assert (report["late"], report["bad"], report["holes"]) == (100, 2, 1)
    assert np.flatnonzero(np.isnan(aligned["perp_close"])).tolist() == [*range(100), 120]
    elsewhere = align(
        hourly, perpetual=tables["perpetual"].assign(timestamp=lambda t: t["timestamp"] + pd.Timedelta("900D")),
    )
    assert np.isnan(elsewhere["perp_close"]).all() and "never known" in context_report(elsewhere)["note"].iloc[0]
