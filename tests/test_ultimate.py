"""The set `ultimate` on real candles and real context: counts, distinctness, honesty, silence."""
import numpy as np
import pandas as pd
import pytest

from cryptolab.features.registry import feature_names, feature_table, features
from cryptolab.features.stream import features_in_pieces

MINIMA = {
    "price": 30, "volume": 15, "volatility": 10, "momentum": 25, "patterns": 10, "regime": 8, "time": 10, "on-chain": 7,
    "microstructure": 5, "cross-exchange": 5,
}
OWN = ("open", "high", "low", "close", "volume")


def candles_of(folder, name, rows=None, start=None, stop=None):
    "Real candles, open times as index."
    table = pd.read_parquet(
        folder / f"{name}.parquet"
    ).set_index("timestamp").rename_axis("open_time").astype("float64")
    return table.loc[start:stop].iloc[-rows if rows else None :]


def ultimate(candles, context=None, **named):
    return features(candles, "ultimate", context, dtype="float64", **named)


@pytest.fixture(scope="module")
def hourly(shared_data):
    return candles_of(shared_data, "BTCUSDT_1h", start="2022-01-01", stop="2022-06-30")


@pytest.fixture(scope="module")
def context(shared_data):
    "Everything that exists for BTC in 2022."
    names = {
        "funding": "funding/BTCUSDT_funding", "perpetual": "funding/BTCUSDT_perp_1h", "exchange": "BTCUSD_1h_kraken",
        "onchain": "onchain/BTC_coinmetrics_1d",
    }
    return {kind: pd.read_parquet(shared_data / f"{name}.parquet") for kind, name in names.items()}


@pytest.fixture(scope="module")
def made(hourly):
    "Small tables of the documented form: three fields of OnChainMetrics, and a triangle of prices."
    rng, close = np.random.default_rng(0), hourly["close"]
    days = pd.date_range("2021-11-01", "2022-07-01", freq="D", tz="UTC", name="timestamp")
    onchain = pd.DataFrame(
        {
            "whale_movements": rng.poisson(1500, len(days)),
            "stablecoin_supply": np.linspace(1.5e11, 1.6e11, len(days)), "CapMrktCurUSD": 9e11,
            "long_term_holder_supply": np.linspace(1.3e7, 1.4e7, len(days)), "SplyCur": 1.9e7,
        },
        index=days,
    )
    table = lambda price: pd.DataFrame({name: price for name in OWN[:4]}, index=hourly.index).assign(volume=1.0)
    noise = np.exp(rng.normal(0, 5e-4, len(hourly)))
    return {
        "onchain": onchain.reset_index(), "cross": {"cross": table(1 / 15.0), "reference": table(close * 15 * noise)},
        "noise": noise,
    }


# ---- what it is


def test_the_document_s_groups_are_all_filled():
    table = feature_table("ultimate")
    counts = table["group"].value_counts()
    assert len(feature_names("ultimate")) == len(set(feature_names("ultimate"))) >= 150
    assert {group: counts[group] >= least for group, least in MINIMA.items()} == dict.fromkeys(MINIMA, True) and set(
        counts.index
    ) == set(MINIMA)
    assert (table["needs"] == "").sum() >= 110 and table["candles"].max() <= 400
    assert table[["formula", "window", "unit"]].ne("").all(axis=None)


def test_the_document_s_names_are_there():
    names = feature_names("ultimate")
    for name in ("active_addresses transaction_count gas_fees exchange_inflows exchange_outflows whale_movements "
                 "stablecoin_supply long_term_holder_supply "
                 "book_imbalance_5 book_imbalance_10 book_imbalance_20 book_spread book_depth_ratio trade_flow "
                 "return_1 return_5 return_15 return_24 return_30 "
                 "weekend quarter basis triangular "
                 "ma_7 ma_25 ma_99 ma_200 vol_5 vol_10 vol_20 vol_50 rsi_7 rsi_14 rsi_28 "
                 "doji hammer shooting_star engulfing").split():
        assert name in names, name


# ---- own columns on real candles


@pytest.mark.parametrize("name, rows", [("BTCUSDT_15m", 40_000), ("BTCUSDT_1h", None), ("SOLUSDT_1d", None)])
def test_columns_are_known_finite_and_distinct(shared_data, name, rows):
    candles = candles_of(shared_data, name, rows)
    table, declared = ultimate(candles), feature_table("ultimate").set_index("name")["candles"]
    known = table.notna().to_numpy()
    assert dict(zip(table, known.argmax(axis=0) + 1)) == {c: declared[c] for c in table}
    assert (np.maximum.accumulate(known, axis=0) == known).all() and np.isfinite(table.iloc[400:]).all(axis=None)
    settled = table.iloc[400:]
    constant = set(settled.columns[settled.std() == 0])
    # a day has no hour
    assert constant == (
        {"hour", "hour_sin", "hour_cos", "us_session", "funding_clock"} if name.endswith("1d") else set()
    )
    z = settled.drop(columns=[*constant])
    correlation = np.abs(np.corrcoef(z.to_numpy().T)) - np.eye(z.shape[1])
    worst = np.unravel_index(correlation.argmax(), correlation.shape)
    assert correlation.max() < 0.999, (z.columns[worst[0]], z.columns[worst[1]])


def test_prices_in_cents_give_the_same(hourly):
    before = ultimate(hourly)
    scaled = hourly.assign(**{c: hourly[c] * (10 if c in OWN[:4] else 1000) for c in (*OWN, "taker_buy_volume")})
    assert ((ultimate(scaled) - before).abs().max() <= 1e-9 * before.std()).all()


def test_the_future_does_not_matter(hourly, context):
    whole = ultimate(hourly, context)
    for cut in (401, 1000, 2222):
        nonsense = hourly.copy()
        nonsense.iloc[cut:] *= 7
        for shorter in (hourly.iloc[:cut], nonsense):
            pd.testing.assert_frame_equal(ultimate(shorter, context).iloc[:cut], whole.iloc[:cut], check_exact=True)


def test_the_start_is_forgotten_and_pieces_agree(hourly, context):
    whole = ultimate(hourly, context)
    late = ultimate(hourly.iloc[1000:], context).iloc[800:]
    assert ((late - whole.loc[late.index]).abs().max() <= 1e-6 * whole.std()).all()
    pieces = features_in_pieces(
        hourly.iloc[:1500], "ultimate", [1, 2, 7, 300, 301, 1000], context=context, dtype="float64",
    )
    assert (pieces.isna() == whole.iloc[:1500].isna()).all(axis=None)
    assert ((pieces - whole.iloc[:1500]).abs().max() <= 1e-9 * whole.std()).all()


@pytest.mark.parametrize("kind", ["still", "silent", "both", "halted", "gap"])
def test_silence_is_finite(hourly, kind):
    candles = hourly.iloc[:1200].copy()
    quiet = ["volume", "quote_volume", "trades", "taker_buy_volume"]
    if kind in ("still", "both"):
        candles[list(OWN[:4])] = 0.1
    if kind in ("silent", "both"):
        candles[quiet] = 0.0
    if kind == "halted":
        candles.iloc[600:, :4] = candles["close"].iloc[599]
        candles.loc[candles.index[600:], quiet] = 0.0
    if kind == "gap":
        candles = candles.drop(candles.index[500:533])
    table = ultimate(candles)
    assert len(table.columns) >= 150 and np.isfinite(
        table.iloc[400:]
    ).all(axis=None) and table.iloc[400:].abs().max().max() < 1e4


def test_columns_equal_ta_lib(hourly):
    talib = pytest.importorskip("talib")
    table, (h, l, c, v) = ultimate(hourly), (hourly[name].to_numpy() for name in OWN[1:])
    macd, signal, hist = talib.MACD(c)
    expected = {
        "rsi_14": talib.RSI(c, 14), "rsi_28": talib.RSI(c, 28), "cci_14": talib.CCI(h, l, c, 14),
        "mfi_14": talib.MFI(h, l, c, v, 14), "adx_14": talib.ADX(h, l, c, 14), "atr_14": talib.ATR(h, l, c, 14) / c,
        "macd": macd / c, "macd_hist": hist / c, "roc_10": talib.ROCP(c, 10), "williams_r_50": talib.WILLR(h, l, c, 50),
        "ultimate_7_14_28": talib.ULTOSC(h, l, c, 7, 14, 28), "aroon_25": talib.AROONOSC(h, l, 25),
        "trix_30": talib.TRIX(c, 30), "ma_99": talib.SMA(c, 99) / c - 1, "macd_signal": signal / c,
    }
    for name, other in expected.items():
        ours = table[name].to_numpy()[1000:]
        share = (np.abs(ours - other[1000:]) <= 1e-6 * np.nanstd(other)).mean()
        # of equal highs TA-Lib's Aroon takes the newest
        assert share == 1 or (name == "aroon_25" and share > 0.95), (name, share)


def test_candle_patterns_agree_with_ta_lib_in_spirit(hourly):
    talib = pytest.importorskip("talib")
    table, prices = ultimate(hourly), [hourly[name].to_numpy() for name in OWN[:4]]
    ours, theirs = table["engulfing"].to_numpy()[20:], (talib.CDLENGULFING(*prices) / 100)[20:]
    both = (ours != 0) & (theirs != 0)
    assert both.mean() > 0.02 and (np.sign(ours[both]) == np.sign(theirs[both])).all()
    assert talib.CDLDOJI(*prices)[table["doji"] == 1].mean() > 60


def test_regimes_are_one_at_a_time_and_look_back_only(hourly):
    table = ultimate(hourly).dropna()
    regimes = table[["regime_bull", "regime_bear", "regime_ranging", "regime_high_vol"]]
    assert (regimes.sum(axis=1) == 1).all() and (regimes.mean() > 0.02).all()
    by_hand = np.log(hourly["close"]).diff(200).reindex(table.index)
    assert (by_hand[table["regime_bull"] == 1] > 0).all() and (by_hand[table["regime_bear"] == 1] < 0).all()


# ---- columns that need context


def test_without_context_columns_are_absent_and_named(hourly):
    table = ultimate(hourly[list(OWN)])
    missing = set(feature_names("ultimate")) - set(table)
    assert (
        missing == {name for names in table.attrs["absent"].values() for name in names}
        and "funding_rate" in table.attrs["absent"]
    )
    assert {"basis", "gas_fees", "book_spread", "taker_flow"} <= missing and not {"rsi_14", "hour_sin"} & missing


def test_context_columns_are_alive_and_distinct(hourly, context):
    table = ultimate(hourly, context)
    needs = feature_table("ultimate").set_index("name")["needs"]
    wide = [name for name in table if needs[name]]
    assert len(wide) >= 29 and np.isfinite(table[wide].iloc[100:]).all(axis=None) and (table[wide].std() > 0).all()
    correlation = table.iloc[400:].corr().abs().to_numpy() - np.eye(table.shape[1])
    assert correlation.max() < 0.999


def test_old_chain_tables_show_transfers(shared_data):
    candles = candles_of(shared_data, "BTCUSDT_1h", start="2019-01-01", stop="2019-06-01")
    old = pd.read_parquet(shared_data / "onchain/BTC_coinmetrics_2019_1d.parquet")
    table = ultimate(candles, {"onchain": old}, columns=["whale_transfers", "active_addresses", "transaction_count"])
    # that vintage has no AdrBalCnt
    assert list(table) == ["whale_transfers", "transaction_count"] and np.isfinite(table).all(axis=None)
    day = old.set_index("timestamp").loc[pd.Timestamp("2019-03-01", tz="UTC")]
    known = table["whale_transfers"][pd.Timestamp("2019-03-03 00:00", tz="UTC")]
    np.testing.assert_allclose(known, np.log(day["TxTfrValMeanNtv"] / day["TxTfrValMedNtv"]))


def test_fields_and_triangle_of_the_documented_form(hourly, made):
    table = ultimate(hourly, {"onchain": made["onchain"], "cross": made["cross"]})
    np.testing.assert_allclose(table["triangular"], -np.log(made["noise"]), atol=1e-12)
    np.testing.assert_allclose(table["triangular_lag"].iloc[1:], table["triangular"].iloc[:-1])
    days = made["onchain"].set_index("timestamp")
    row, day = pd.Timestamp("2022-03-05 10:00", tz="UTC"), pd.Timestamp("2022-03-03", tz="UTC")
    np.testing.assert_allclose(table["stablecoin_supply"][row], np.log(days["stablecoin_supply"][day] / 9e11))
    np.testing.assert_allclose(table["long_term_holder_supply"][row], days["long_term_holder_supply"][day] / 1.9e7)
    np.testing.assert_allclose(
        table["whale_movements"][row],
        np.log(days["whale_movements"][day] / days["whale_movements"][:day].iloc[-30:].mean()), atol=2e-3,
    )


def test_real_order_book_and_trades(shared_data):
    candles = candles_of(shared_data, "BTCUSDT_1m", start="2024-08-08 16:00", stop="2024-08-09 00:10")
    tables = {
        kind: pd.read_parquet(shared_data / f"orderbook/BTCUSDT_{name}.parquet")
        for kind, name in (("orderbook", "depth20"), ("trades", "trades"))
    }
    table = ultimate(candles, tables)
    book = [name for name in table if name.startswith("book_")]
    assert len(book) == 8 and table[book].notna().sum().eq(12).all() and (table[book].std() > 0).all()
    full = table["trade_flow"].notna()
    assert full.sum() == 10
    # trades and candles tell the same story
    np.testing.assert_allclose(table["trade_flow"][full], table["taker_flow"][full], atol=1e-6)
    assert table["trade_count"].notna().sum() == 6  # a mean of five needs five


def test_context_that_starts_late_is_unknown_before(hourly, context):
    late = context["perpetual"].set_index("timestamp").loc["2022-02-01":].reset_index()
    table = ultimate(hourly, {"perpetual": late}, columns=["basis", "basis_24"])
    first = pd.Timestamp("2022-02-01", tz="UTC")
    assert table["basis"].first_valid_index() == first and table[
        "basis_24"
    ].first_valid_index() == first + pd.Timedelta("23h")
