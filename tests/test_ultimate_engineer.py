"""The document's feature engineer: nothing computed twice, nothing known early, nothing unknown that looks known."""
import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.data.market import sample_market
from cryptolab.features.certify import certify
from cryptolab.features.registry import feature_names, feature_table, features
from cryptolab.systems.ultimate.engineer import CONFIG, SOURCES, AdvancedFeatureEngineer, OnChainMetrics
from cryptolab.systems.ultimate.sources import CHAIN_COLUMNS, chain_inputs

HOUR, DAY = pd.Timedelta("1h"), pd.Timedelta("1D")
NAMES = feature_names("ultimate")
GROUPS = feature_table("ultimate").set_index("name")["group"]
FIELDS = dict(zip(CHAIN_COLUMNS, (1500, 2000, 3000, 50000, 100000, 50, 150000000000, 18000000)))


@pytest.fixture(scope="module")
def candles():
    return sample_market(n=600)


@pytest.fixture(scope="module")
def engineer():
    return AdvancedFeatureEngineer(None)


@pytest.fixture(scope="module")
def history(candles):
    "The eight fields and the totals, one row per day."
    rng = np.random.default_rng(0)
    days = pd.date_range(candles.index[0].normalize() - 40 * DAY, candles.index[-1], freq="D", name="timestamp")
    table = pd.DataFrame({name: value * rng.uniform(0.8, 1.2, len(days)) for name, value in FIELDS.items()}, index=days)
    return table.assign(SplyCur=1.9e7, CapMrktCurUSD=1e12, IssTotNtv=450.0, AdrBalCnt=5e7)


@pytest.fixture(scope="module")
def markets(candles):
    "Every kind of `cross_exchange`."
    rng = np.random.default_rng(1)
    near = lambda: candles.mul(np.exp(rng.normal(0, 1e-3, len(candles))), axis=0)
    stamps = candles.index[::4]
    return {
        "exchange": near(), "perpetual": near(),
        "funding": pd.DataFrame({
            "timestamp": stamps.repeat(2), "exchange": ["binance", "okx"] * len(stamps),
            "funding_rate": rng.normal(1e-4, 1e-4, 2 * len(stamps)),
        }),
        "cross": {"cross": near() / 3e6, "reference": candles * 0 + 3e6},
    }


def book_of(price, levels=25, step=0.5, **more):
    "A snapshot as exchanges give it: text, the best price first."
    sizes = [1 + i % 3 for i in range(levels)]
    sides = {"bids": -step, "asks": step}
    return {
        side: [[str(price + move * (i + 1)), str(size)] for i, size in enumerate(sizes)] for side, move in sides.items()
    } | more


def same(a, b):
    "Equal to the last bit, attrs and the index's frequency aside."
    pd.testing.assert_frame_equal(a, b, check_exact=True, check_freq=False)


# ---- the document


def test_the_usage_example_as_written(candles, markets, capsys):
    price_data, cross_exchange_data, config = candles, markets, CONFIG
    order_book_snapshot = book_of(candles["close"].iloc[-1])

    engineer = AdvancedFeatureEngineer(config)

    # Extract all features
    features = engineer.extract_all_features(
        ohlcv=price_data,
        onchain=OnChainMetrics(
            whale_movements=1500,
            exchange_inflows=2000,
            exchange_outflows=3000,
            active_addresses=50000,
            transaction_count=100000,
            gas_fees=50,
            stablecoin_supply=150000000000,
            long_term_holder_supply=18000000
        ),
        orderbook=order_book_snapshot,
        cross_exchange=cross_exchange_data
    )

    print(f"Extracted {len(features.columns)} features")

    assert capsys.readouterr().out == f"Extracted {len(NAMES) + len(SOURCES)} features\n"
    assert list(features) == [*NAMES, *SOURCES] and len(features.columns) >= 150
    assert features.index.equals(candles.index) and set(features.dtypes) == {np.dtype("float32")}
    assert not np.isinf(features).any(axis=None)
    last = features.iloc[-1]
    unknown = set(last.index[last.isna()])
    alone = {"exchange_netflow", "transactions_per_address"}  # on-chain columns that the eight fields alone can tell
    taker = {"taker_flow", "taker_flow_20", "taker_flow_change", "trades_50", "trade_size_50"}
    trades = {"trade_flow", "trade_count", "trade_size", "trade_top", "trade_vwap"}
    assert unknown == ({*GROUPS.index[GROUPS == "on-chain"]} - alone) | taker | trades
    np.testing.assert_allclose(last[["exchange_netflow", "transactions_per_address"]], [-0.2, 2.0], rtol=1e-6)


def test_the_fields_of_the_document():
    fields = [f.name for f in dataclasses.fields(OnChainMetrics)]
    assert fields[:8] == [*FIELDS] and set(FIELDS) == set(CHAIN_COLUMNS)
    assert OnChainMetrics(*FIELDS.values()) == OnChainMetrics(**FIELDS)
    assert OnChainMetrics().gas_fees is None and OnChainMetrics(gas_fees=math.nan) == OnChainMetrics(gas_fees=pd.NA)


def test_the_configuration_of_the_document():
    assert AdvancedFeatureEngineer({"hidden_size": 32}).config == CONFIG | {"hidden_size": 32}
    with pytest.raises(SettingsError, match="did you mean `hidden_size`"):
        AdvancedFeatureEngineer({"hiden_size": 32})
    with pytest.raises(SettingsError, match="no dictionary"):
        AdvancedFeatureEngineer("config.yaml")


# ---- a face, not a second computation


def test_values_are_those_of_the_set(candles, history, markets, engineer):
    onchain = history.rename(columns=CHAIN_COLUMNS).assign(HashRate=1.0, CapMVRVCur=2.0, SplyExNtv=2e6)
    found = engineer.extract_all_features(candles, onchain=onchain, cross_exchange=markets)
    there = features(candles, "ultimate", {"onchain": onchain, **markets})
    assert len(there.columns) >= 178
    same(found[list(there)], there)
    assert found[[n for n in NAMES if n not in there]].isna().all(axis=None)
    assert found.attrs["features"] == "ultimate" and found.attrs["symbol"] == "BTCUSDT"
    for name in NAMES:
        assert found.attrs["available"][name] == pytest.approx(found[name].notna().mean()), name


def test_nothing_given_is_unknown_and_never_zero(candles, engineer):
    found = engineer.extract_all_features(candles)
    own = [n for n, needs in feature_table("ultimate").set_index("name")["needs"].items() if not needs]
    assert len(own) == 150 and found[[n for n in NAMES if n not in own]].isna().all(axis=None)
    assert (found[[*SOURCES]] == 0).all(axis=None)
    assert found.attrs["available"]["basis"] == 0 and found.attrs["available"]["return_1"] == 599 / 600


def test_one_missing_metric_takes_no_other_along(candles, history, engineer):
    few = history[["active_addresses"]]  # the set's own rule: without AdrBalCnt neither of its two columns
    assert "active_addresses" not in features(candles, "ultimate", {"onchain": few.rename(columns=CHAIN_COLUMNS)})
    found = engineer.extract_all_features(candles, onchain=few)
    assert found["active_addresses"].notna().all() and found["active_share"].isna().all()


# ---- masks


def test_a_mask_is_one_exactly_where_its_source_is_known(candles, history, markets, engineer):
    at = candles.index
    cut = {
        "exchange": markets["exchange"][100:200], "perpetual": markets["perpetual"].drop(at[300:310]),
        "funding": markets["funding"][markets["funding"]["timestamp"] <= at[400]],
        "cross": {name: table[50:60] for name, table in markets["cross"].items()},
    }
    full = candles.assign(taker_buy_volume=candles["volume"] / 2, trades=[np.nan] + [100.0] * 599)
    found = engineer.extract_all_features(full, history[:45], None, cut)
    rows = lambda name: set(found[name].to_numpy().nonzero()[0])
    assert rows("has_exchange") == {*range(100, 200)} and rows("has_cross") == {*range(50, 60)}
    assert rows("has_perpetual") == {*range(600)} - {*range(300, 310)}
    # settled at the open of row 400, which is the close of 399; too old after 24 hours
    assert rows("has_funding") == {*range(400 + 24)}
    # the day's end, a day until it is published, 96 hours of age
    last = history.index[44] + 2 * DAY + 4 * DAY
    assert rows("has_onchain") == {i for i, time in enumerate(at) if time + HOUR <= last} != set()
    assert rows("has_taker_volume") == {*range(600)} and rows("has_trade_count") == {*range(1, 600)}
    assert not rows("has_orderbook") and not rows("has_trades")
    assert set(np.unique(found[[*SOURCES]])) == {0.0, 1.0}


# ---- point in time


@pytest.mark.parametrize("rows", [401, 577])
def test_the_future_does_not_matter(candles, history, markets, engineer, rows):
    given = {"onchain": OnChainMetrics.from_table(history), "cross_exchange": markets}
    whole = engineer.extract_all_features(candles, **given)
    same(engineer.extract_all_features(candles[:rows], **given), whole[:rows])
    close = candles.index[rows - 1] + HOUR
    later = lambda t, wait, factor: t.mul(np.where(t.index + wait > close, factor, 1.0), axis=0)
    spoiled = {name: later(markets[name], HOUR, 1.3) for name in ("exchange", "perpetual")}
    rates = markets["funding"]
    spoiled["funding"] = rates.assign(funding_rate=rates["funding_rate"].where(rates["timestamp"] <= close, 1.0))
    spoiled["cross"] = markets["cross"]
    now = engineer.extract_all_features(candles, later(history, 2 * DAY, 3.0), None, spoiled)
    same(now[:rows], whole[:rows])
    assert not now[rows:].equals(whole[rows:])


@pytest.mark.parametrize("rows", [450, 600])
def test_a_snapshot_is_seen_by_the_newest_row_alone(candles, engineer, rows):
    part = candles[:rows]
    found = engineer.extract_all_features(part, OnChainMetrics(**FIELDS), book_of(part["close"].iloc[-1]))
    nothing = engineer.extract_all_features(part)
    same(found[:-1], nothing[:-1])
    last = found.iloc[-1]
    assert last["has_onchain"] == last["has_orderbook"] == 1
    new = set(last.index[last.notna()]) - set(nothing.columns[nothing.iloc[-1].notna()])
    book = {n for n in NAMES if n.startswith("book_")}
    assert new == {"exchange_netflow", "transactions_per_address"} | book and len(book) == 8


def test_a_snapshot_with_a_time_is_known_from_then_on(candles, engineer):
    known = candles.index[500] + pd.Timedelta("90min")  # half an hour before the close of row 501
    found = engineer.extract_all_features(candles, OnChainMetrics(**FIELDS, known=known))
    # known for 96 hours
    assert found["has_onchain"].to_numpy().nonzero()[0].tolist() == [*range(501, 597)]
    close = candles.index[500] + HOUR
    price = candles["close"].iloc[500]
    for early, seen in (("0s", [500]), ("59s", [500]), ("61s", [])):
        stamp = int((close - pd.Timedelta(early)).timestamp() * 1000)  # ms, as exchanges give it
        book = book_of(price, timestamp=stamp)
        assert engineer.extract_all_features(candles, orderbook=book)["has_orderbook"].to_numpy().nonzero()[
            0].tolist() == seen
    late = candles.index[-1] + HOUR + pd.Timedelta("1ms")
    for wrong in ({"onchain": OnChainMetrics(**FIELDS, known=late)}, {"orderbook": book_of(price, timestamp=late)}):
        with pytest.raises(DataError, match="after the close of the newest candle"):
            engineer.extract_all_features(candles, **wrong)
    with pytest.raises(DataError, match="no time zone"):
        engineer.extract_all_features(candles, OnChainMetrics(gas_fees=5, known=known.tz_localize(None)))


# ---- on-chain metrics


def test_a_history_by_hand(candles, history, engineer):
    found = engineer.extract_all_features(candles, OnChainMetrics.from_table(history))
    row, day = candles.index[500], (candles.index[500] + HOUR).normalize() - 2 * DAY
    values, month = history.loc[day], history.loc[:day].iloc[-30:].mean()
    log = lambda name: np.log((values[name] / month[name] + 0.001) / 1.001)
    flow_in, flow_out = values["exchange_inflows"], values["exchange_outflows"]
    expected = {
        "whale_movements": log("whale_movements"), "exchange_inflows": flow_in / 1.9e7,
        "exchange_outflows": flow_out / 1.9e7, "exchange_netflow": (flow_in - flow_out) / (flow_in + flow_out),
        "active_addresses": log("active_addresses"), "transaction_count": log("transaction_count"),
        "gas_fees": values["gas_fees"] / (values["gas_fees"] + 450), "gas_fees_trend": log("gas_fees"),
        "stablecoin_supply": np.log(values["stablecoin_supply"] / 1e12),
        "long_term_holder_supply": values["long_term_holder_supply"] / 1.9e7,
    }
    np.testing.assert_allclose(found.loc[row, [*expected]].astype(float), [*expected.values()], rtol=1e-4, atol=1e-6)


def test_from_table_takes_both_names_and_keeps_its_newest_row(history):
    metrics = OnChainMetrics.from_table(history.iloc[::-1].reset_index())
    assert metrics.gas_fees == history["gas_fees"].iloc[-1] and metrics.known is None
    assert OnChainMetrics.from_table(history.rename(columns=CHAIN_COLUMNS)) == metrics
    hole = OnChainMetrics.from_table(history.assign(gas_fees=np.nan))
    assert hole.gas_fees is None and hole.whale_movements == metrics.whale_movements
    assert len(metrics.history) == len(history) and "SplyCur" in metrics.history


@pytest.mark.parametrize("value", [-1, -math.inf, math.inf, "50", True, [50], 5j])
def test_impossible_metrics_are_refused(history, value):
    with pytest.raises(DataError, match="`gas_fees` cannot be used"):
        OnChainMetrics(gas_fees=value)
    if isinstance(value, (int, float)) and value is not True:
        with pytest.raises(DataError, match="`FeeTotNtv` cannot be used in row 3"):
            OnChainMetrics.from_table(history.assign(gas_fees=[1.0] * 3 + [value] + [1.0] * (len(history) - 4)))


@pytest.mark.parametrize("wrong, words", [
    (lambda t: t[[]].assign(gas=1.0), "no column that a feature uses"), (lambda t: t.iloc[:0], "no rows"),
    (lambda t: t.assign(TxCnt=1.0), "twice"), (lambda t: t.to_dict(), "no rows"),
    (lambda t: t.reset_index(drop=True), "no time"), (lambda t: t.tz_localize(None), "no time zone"),
    (lambda t: t.assign(gas_fees="much"), "cannot be used in row 0"),
])
def test_tables_of_metrics_that_cannot_be_used(candles, history, engineer, wrong, words):
    for given in (lambda t: engineer.extract_all_features(candles, t), OnChainMetrics.from_table):
        with pytest.raises(DataError, match=words):
            given(wrong(history))


def test_holes_in_a_history_are_unknown(candles, history, engineer):
    holes = history.copy()
    holes.iloc[45:50, :] = np.nan
    found = engineer.extract_all_features(candles, holes)
    seen = (candles.index + HOUR).normalize() - 2 * DAY
    assert (found["exchange_netflow"].isna() == seen.isin(history.index[45:50])).all()
    assert (found["has_onchain"] == 1 - seen.isin(history.index[45:50])).all()


# ---- order book


def test_a_shallow_book_tells_what_it_can(candles, engineer):
    price = candles["close"].iloc[-1]
    deep = engineer.extract_all_features(candles, orderbook=book_of(price)).iloc[-1]
    for levels, unknown in (
        (20, []), (12, ["book_imbalance_20", "book_near_share"]),
        (3, ["book_imbalance_5", "book_imbalance_10", "book_imbalance_20", "book_near_share"]),
    ):
        book = book_of(price, levels, symbol="BTC/USDT")
        book["asks"] = [[a, str(2 * float(b))] for a, b in book["asks"]][::-1]  # any order
        found = engineer.extract_all_features(candles, orderbook=book).iloc[-1]
        assert [n for n in NAMES if n.startswith("book_") and np.isnan(found[n])] == unknown
        assert found["book_depth_ratio"] == pytest.approx(-np.log(2)) and found["book_spread"] == deep["book_spread"]
        if levels >= 5:
            assert found["book_imbalance_5"] == pytest.approx(-1 / 3)


@pytest.mark.parametrize("change, words", [
    ({"bids": []}, "no usable `bids`"), ({"asks": None}, "`asks` cannot be read"),
    ({"asks": [[1.0]]}, "no usable `asks`"), ({"bids": [["x", "1"]]}, "cannot be read"),
    ({"bids": [[-1, 1]]}, "above 0"), ({"asks": [[1, math.nan]]}, "above 0"), ({"bids": [[10**9, 1]]}, "crossed"),
    ({"timestamp": "now"}, "cannot be read"),
    ({"symbol": "ETH/USDT:USDT"}, "another coin"), ({"bids": [[1.0, 1]], "asks": [[1.5, 1]]}, "another coin"),
])
def test_books_that_cannot_be_used(candles, engineer, change, words):
    with pytest.raises(DataError, match=words):
        engineer.extract_all_features(candles, orderbook=book_of(candles["close"].iloc[-1]) | change)


def test_crossed_rows_of_a_table_are_unknown_and_counted(candles, engineer):
    price = candles["close"].to_numpy()
    table = pd.DataFrame({
        "timestamp": candles.index + HOUR, "bid_px_1": price - 1, "bid_qty_1": 1.0, "ask_px_1": price + 1,
        "ask_qty_1": 2.0,
    })
    table.loc[500:502, "bid_px_1"] = price[500:503] + 2
    found = engineer.extract_all_features(candles, orderbook=table)
    assert found["has_orderbook"].to_numpy().nonzero()[0].tolist() == [*range(500), *range(503, 600)]
    assert found.attrs["context"][0]["bad"] == 3 and found["book_imbalance_5"].isna().all()
    with pytest.raises(DataError, match="cannot be read"):
        engineer.extract_all_features(candles, orderbook=[1, 2])


# ---- other markets and candles


def test_markets_of_another_coin_are_refused(candles, markets, engineer):
    for kind in ("exchange", "perpetual"):
        with pytest.raises(DataError, match=f"`{kind}` has the prices of another coin"):
            engineer.extract_all_features(candles, cross_exchange={kind: markets[kind] / 20})
    cross = {"cross": markets["cross"]["cross"] * 3, "reference": markets["cross"]["reference"]}
    with pytest.raises(DataError, match="`cross` has the prices of another coin"):
        engineer.extract_all_features(candles, cross_exchange={"cross": cross})
    rates = markets["funding"].copy()
    rates.attrs["symbol"] = "ETHUSDT"
    with pytest.raises(DataError, match="`funding` belongs to another coin"):
        engineer.extract_all_features(candles, cross_exchange={"funding": rates})
    rates.attrs["symbol"] = "XBT/USD:XBT"
    engineer.extract_all_features(candles, cross_exchange={"funding": rates})


@pytest.mark.parametrize("given, error, words", [
    ({"perpetuals": 1}, SettingsError, "did you mean `perpetual`"), ({"coins": {}}, SettingsError, "unknown kind"),
    ([1], SettingsError, "no dictionary"), ({"funding": pd.DataFrame()}, DataError, "no rows"),
    ({"exchange": 5}, DataError, "must be a table"),
])
def test_wrong_markets(candles, engineer, given, error, words):
    with pytest.raises(error, match=words):
        engineer.extract_all_features(candles, cross_exchange=given)


@pytest.mark.parametrize("make, words", [
    (lambda c: None, "no candles"), (lambda c: c[:0], "no candles"),
    (lambda c: c.drop(columns="low"), "`low` is missing"),
    (lambda c: c.reset_index(), "have no times"), (lambda c: c.tz_localize(None), "no time zone"),
    (lambda c: c[::-1], "not in order"), (lambda c: c[:100], "too few candles"),
    (lambda c: c.assign(close=c["close"].mask(c.index == c.index[7])), "cannot be used in row 7"),
])
def test_candles_that_cannot_be_used(candles, engineer, make, words):
    with pytest.raises(DataError, match=words):
        engineer.extract_all_features(make(candles), OnChainMetrics(gas_fees=5))


# ---- indicators of one's own


class MyCustomFeatures(AdvancedFeatureEngineer):
    def custom_indicator(self, df):
        # Add your custom indicator
        df['my_indicator'] = df['close'].rolling(20).mean() / df['close'] - 1
        return df

    def helper(self, df):
        raise AssertionError("is no indicator")

    def _hidden_indicator(self, df):
        raise AssertionError("is not public")


def test_a_custom_indicator_joins_and_is_certified(candles, engineer):
    mine, before = MyCustomFeatures({}), candles.copy()
    found = mine.extract_all_features(candles)
    same(candles, before)
    assert list(found)[-1] == "my_indicator" and found.attrs["custom"] == ["my_indicator"]
    same(found.drop(columns="my_indicator"), engineer.extract_all_features(candles))
    expected = candles["close"].rolling(20).mean() / candles["close"] - 1
    np.testing.assert_allclose(found["my_indicator"], expected, atol=1e-7)
    certificate = certify(mine.custom_features, candles, seconds=0.2)
    assert certificate.loc["my_indicator", ["first", "verdict"]].tolist() == [20, "pass"]
    assert engineer.custom_features(candles).shape == (600, 0)


def test_subclasses_of_subclasses_and_several_columns(candles):
    class Deeper(MyCustomFeatures):
        def two_indicator(self, df):
            return df.assign(a=df["high"] - df["low"], b=1)

        def custom_indicator(self, df):
            return df.assign(other=df["close"])

    assert list(Deeper().custom_features(candles)) == ["other", "a", "b"]


@pytest.mark.parametrize("make, words", [
    (lambda df: df["close"].shift(-1), "in row 598"), (lambda df: df["close"] / df["close"].mean(), "in row 0"),
    (lambda df: df["close"].rolling(9, center=True).mean(), "in row 595"),
    (lambda df: df["close"].rank(), "in row"),
])
def test_an_indicator_that_looks_ahead_is_caught(candles, make, words):
    class Ahead(AdvancedFeatureEngineer):
        def ahead_indicator(self, df):
            return df.assign(ahead=make(df))

    with pytest.raises(DataError, match=f"`ahead_indicator` looks ahead: `ahead` {words}"):
        Ahead().extract_all_features(candles)


@pytest.mark.parametrize("make, error, words", [
    (lambda df: None, DataError, "must return the table"), (lambda df: df.assign(x=1)[1:], DataError, "must return"),
    (lambda df: df, SettingsError, "no new column"), (lambda df: df.assign(rsi_14=1), SettingsError, "`rsi_14` exists"),
    (lambda df: df.assign(has_funding=1), SettingsError, "exists already"),
    (lambda df: df.assign(x="up"), DataError, "no number"),
])
def test_indicators_that_break_the_rule(candles, make, error, words):
    class Broken(AdvancedFeatureEngineer):
        def broken_indicator(self, df):
            return make(df)

    with pytest.raises(error, match=words):
        Broken().custom_features(candles)


# ---- real tables


def test_real_tables(shared_data, engineer):
    read = lambda name: pd.read_parquet(shared_data / f"{name}.parquet")
    candles = read("BTCUSDT_1h").set_index("timestamp").rename_axis("open_time").loc["2022-01-01":"2022-02-28"]
    onchain = read("onchain/BTC_coinmetrics_1d")
    markets = {
        "funding": read("funding/BTCUSDT_funding"), "perpetual": read("funding/BTCUSDT_perp_1h"),
        "exchange": read("BTCUSD_1h_kraken"),
    }
    candles.attrs = {"symbol": "BTCUSDT", "timeframe": "1h"}
    found = engineer.extract_all_features(candles, onchain, None, markets)
    there = features(candles, "ultimate", {"onchain": onchain, **markets})
    same(found[list(there)], there)
    share = SimpleNamespace(**found[[*SOURCES]].mean())
    assert share.has_onchain == share.has_funding == share.has_exchange == share.has_taker_volume == 1
    assert share.has_perpetual > 0.99 and share.has_orderbook == share.has_cross == 0
    assert {"TxCnt", "SplyCur", "HashRate"} <= set(chain_inputs())
