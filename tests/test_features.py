"""V9's features on real candles: parity with `ta`, and the properties each column must have."""
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.features.registry import feature_table, features
from cryptolab.features.sets.v9 import v9_feature_names, v9_feature_table, v9_features

VARIANTS = ("stationary", "published")


def read(folder, name):
    frame = pd.read_parquet(folder / f"{name}.parquet").set_index("timestamp").rename_axis("open_time")
    return frame[["open", "high", "low", "close", "volume"]].astype("float64")


def walk(rows, seed=0, tick=0.01):
    "A random walk in whole ticks, so that ties happen."
    rng = np.random.default_rng(seed)
    close = np.round(50 * np.exp(np.cumsum(rng.standard_t(4, rows) * 0.003)) / tick) + 10
    opened = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(opened, close) + rng.integers(0, 4, rows)
    low = np.minimum(opened, close) - rng.integers(0, 4, rows)
    clock = pd.date_range("2024-01-01", periods=rows, freq="h", tz="UTC", name="open_time")
    prices = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close}, index=clock).mul(tick).round(6)
    return prices.assign(volume=rng.lognormal(3, 1, rows))


def ta_reference(candles):
    "The published list, computed with `ta` 0.11."
    from ta import momentum, trend, volatility, volume

    o, h, l, c, v = (candles[x] for x in ("open", "high", "low", "close", "volume"))
    macd, bands = trend.MACD(c), volatility.BollingerBands(c, 20, 2)
    stoch, adx, aroon = (
        momentum.StochasticOscillator(h, l, c, 14, 3),
        trend.ADXIndicator(h, l, c, 14),
        trend.AroonIndicator(h, l, 25),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        columns = [
            o, h, l, c, v, momentum.rsi(c, 14), momentum.rsi(c, 7), macd.macd(), macd.macd_signal(), macd.macd_diff(),
            bands.bollinger_hband(), bands.bollinger_mavg(), bands.bollinger_lband(), bands.bollinger_wband() / 100,
            volatility.average_true_range(h, l, c, 14), *(trend.sma_indicator(c, w) for w in (10, 20, 50)),
            *(trend.ema_indicator(c, w) for w in (12, 26)), v.rolling(20).mean(), v / v.rolling(20).mean(),
            c.pct_change(), np.log(c / c.shift()), (h - l) / c, c - c.shift(5), h / l, bands.bollinger_pband(),
            stoch.stoch(), stoch.stoch_signal(), momentum.williams_r(h, l, c, 14), momentum.roc(c, 12),
            trend.cci(h, l, c, 20), adx.adx(), adx.adx_pos(), adx.adx_neg(), aroon.aroon_up(), aroon.aroon_down(),
            volume.money_flow_index(h, l, c, v, 14), volume.on_balance_volume(c, v),
            volume.chaikin_money_flow(h, l, c, v, 20), volume.force_index(c, v, 13),
            volume.volume_weighted_average_price(h, l, c, v, 14), volatility.donchian_channel_pband(h, l, c, 20),
            volatility.ulcer_index(c, 14), momentum.tsi(c),
        ]
    return pd.DataFrame(dict(zip(v9_feature_names("published"), columns, strict=True)), index=candles.index)


@pytest.fixture(scope="session")
def btc_1h(shared_data):
    return read(shared_data, "BTCUSDT_1h")


@pytest.fixture(scope="session")
def btc_by_ta(btc_1h):
    pytest.importorskip("ta")
    return ta_reference(btc_1h)


@pytest.mark.data
def test_published_equals_ta(btc_1h, btc_by_ta):
    ours = v9_features(btc_1h, "published", dtype="float64")
    assert ours.shape == (65_590, 46)
    needed = v9_feature_table("published").set_index("name")["candles"]
    worst = {}
    for name in ours:
        a, b = (t[name].to_numpy()[needed[name] - 1 :] for t in (ours, btc_by_ta))
        assert np.isfinite(a).all(), name
        unknown = ~np.isfinite(b)  # 0/0 in `ta`: ours must be the neutral value
        assert unknown.mean() < 1e-3, f"{name}: {unknown.sum()} values unknown to ta"
        scale = np.maximum(np.abs(b), np.nanstd(b[~unknown]))
        worst[name] = float(np.max((np.abs(a - b) / scale)[~unknown]))
    assert max(worst.values()) <= 1e-9, {n: w for n, w in worst.items() if w > 1e-9}


@pytest.mark.data
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_future_does_not_matter(btc_1h, variant):
    candles = btc_1h.iloc[:6_000]  # contains gaps
    whole = v9_features(candles, variant, dtype="float64")
    rng = np.random.default_rng(1)
    for cut in [168, 169, *rng.integers(200, 6_000, 12)]:
        pd.testing.assert_frame_equal(
            v9_features(candles[:cut], variant, dtype="float64"), whole[:cut], check_exact=True,
        )
    changed = candles.copy()
    changed.iloc[4_000:] *= rng.uniform(0.5, 2, (2_000, 1))
    after = v9_features(changed, variant, dtype="float64")
    pd.testing.assert_frame_equal(after[:4_000], whole[:4_000], check_exact=True)
    assert not after[4_000:].equals(whole[4_000:])


@pytest.mark.data
@pytest.mark.parametrize("name", ["BTCUSDT_1h", "DOGEUSDT_1h"])  # DOGE: few digits, so many ties
@pytest.mark.parametrize("price, volume", [(10, 1), (1, 10), (0.001, 1e6)])
def test_stationary_has_no_scale(shared_data, name, price, volume):
    candles = read(shared_data, name)
    before = v9_features(candles, dtype="float64")
    after = v9_features(candles * [price, price, price, price, volume], dtype="float64")
    pd.testing.assert_frame_equal(before.isna(), after.isna())
    worst = ((after - before).abs().max() / before.std()).sort_values()
    assert worst.iloc[-1] <= 1e-8, worst.tail(5)


def test_ties_do_not_depend_on_the_unit():
    candles = walk(2_000)
    before, after = (v9_features(candles * [u, u, u, u, 1], dtype="float64") for u in (1, 10))
    assert ((after - before).abs().max() <= 1e-8 * before.std()).all()


@pytest.mark.data
@pytest.mark.parametrize("name", ["BTCUSDT_1h", "ETHUSDT_15m", "SOLUSDT_1d"])
def test_no_two_stationary_columns_are_one(shared_data, name):
    features = v9_features(read(shared_data, name))
    corr = np.array(features.dropna().corr().abs())
    np.fill_diagonal(corr, 0)
    i, j = np.unravel_index(corr.argmax(), corr.shape)
    assert corr.max() < 0.999, f"{features.columns[i]} and {features.columns[j]}: {corr.max():.5f}"
    assert (features.std() > 0).all()


@pytest.mark.data
def test_200_candles_of_warm_up_are_enough(btc_1h):
    whole, late = v9_features(btc_1h, dtype="float64"), v9_features(btc_1h.iloc[30_000:], dtype="float64")
    difference = (whole.iloc[30_200:] - late.iloc[200:]).abs().max() / whole.std()
    assert difference.max() < 1e-4, difference.sort_values().tail(3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_warm_up_is_nan_and_ends_where_the_table_says(variant):
    features, table = v9_features(walk(300), variant), v9_feature_table(variant)
    known = features.notna().to_numpy()
    assert (known.argmax(axis=0) + 1).tolist() == table["candles"].tolist()
    assert (np.maximum.accumulate(known) == known).all() and np.isfinite(features.to_numpy()[known]).all()
    assert known.all(axis=1).argmax() <= 199


@pytest.mark.parametrize("variant", VARIANTS)
def test_names(variant):
    names = v9_feature_names(variant)
    assert len(names) == len(set(names)) == 46 and all(n == n.lower() and n.isidentifier() for n in names)
    assert v9_features(walk(200), variant).columns.tolist() == names


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("market", ["still", "silent", "both", "silent for a while", "still for a while", "no range"])
def test_silence_is_finite(variant, market):
    candles = walk(600)
    rows = slice(300, 560) if "while" in market else slice(None)
    at = lambda name: candles.columns.get_loc(name)
    if market in ("still", "both") or market.startswith("still for"):
        candles.iloc[rows, :4] = 0.07
    if market in ("silent", "both") or market.startswith("silent for"):
        candles.iloc[rows, at("volume")] = 0.0
    if market == "no range":
        candles["open"] = candles["high"] = candles["low"] = candles["close"]
    features = v9_features(candles, variant, dtype="float64")
    assert np.isfinite(features.iloc[200:].to_numpy()).all(), features.columns[
        ~np.isfinite(features.iloc[200:]).all()
    ].tolist()
    if market == "both" and variant == "stationary":
        assert (
            (features.iloc[-1].abs() < 1e-14)
            | features.columns.isin(
                [
                    "rsi_14", "rsi_7", "bb_pband", "stoch_k", "stoch_d", "aroon_up_25", "aroon_down_25", "mfi_14",
                    "donchian_pband_20",
                ]
            )
        ).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_float32_and_threads(variant):
    candles = walk(3_000)
    exact = v9_features(candles, variant, dtype="float64", threads=1)
    pd.testing.assert_frame_equal(v9_features(candles, variant, dtype="float64", threads=4), exact, check_exact=True)
    single = v9_features(candles, variant)
    assert set(single.dtypes) == {np.dtype("float32")} and set(exact.dtypes) == {np.dtype("float64")}
    pd.testing.assert_frame_equal(single, exact.astype("float32"), check_exact=True)


def test_only_the_five_columns_are_read():
    candles = walk(300)
    more = candles.assign(true_p_up=0.5, quote_volume=np.nan)[
        ["volume", "true_p_up", "close", "low", "quote_volume", "high", "open"]
    ]
    pd.testing.assert_frame_equal(v9_features(more), v9_features(candles), check_exact=True)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda t: t.drop(columns="low"), "column `low` is missing"),
    (lambda t: t.iloc[::-1], "not in order"),
    (lambda t: t.iloc[[0, *range(250)]], "not in order"),
    (lambda t: t.iloc[:60], "`mean_168_ratio`"),
    (lambda t: t.iloc[:0], "at least 168 candles"),
    (lambda t: t.assign(close=t["close"].where(t.index != t.index[5])), "`close` cannot be used in row 5"),
    (lambda t: t.assign(low=t["low"].where(t.index != t.index[9], -1)), "`low` cannot be used in row 9"),
    (lambda t: t.assign(volume=-t["volume"]), "`volume` cannot be used in row 0"),
    (lambda t: t.assign(high=np.inf), "`high` cannot be used in row 0"),
])
def test_bad_candles_are_named(damage, message):
    with pytest.raises(DataError, match=message):
        v9_features(damage(walk(300)))


def test_bad_settings_are_named():
    with pytest.raises(SettingsError, match="unknown feature variant"):
        v9_features(walk(300), "best")
    with pytest.raises(SettingsError, match="unknown dtype"):
        v9_features(walk(300), dtype="float16")
    with pytest.raises(DataError, match="`sma_50`"):
        v9_features(walk(49), "published")


# ---- the package `ta` as a set --------------------------------------------------------------------------------------


@pytest.mark.data
def test_the_set_ta_is_the_package_after_its_warm_up(btc_1h):
    package = pytest.importorskip("ta")
    candles = btc_1h.iloc[:1_500].reset_index(drop=True)  # on an index of times the package's PSAR is wrong
    theirs = package.add_all_ta_features(candles.copy(), *candles.columns).drop(columns=candles.columns)
    ours = features(btc_1h.iloc[:1_500], set="ta", dtype="float64").reset_index(drop=True)
    table = feature_table("ta").set_index("name")
    assert set(theirs) - set(ours) == {"trend_psar_up", "trend_psar_down"} and set(ours) - set(theirs) == {"trend_psar"}
    for name in ours:
        first = table.loc[name, "candles"] - 1
        assert ours[name].iloc[:first].isna().all() and np.isfinite(ours[name].iloc[first:]).all(), name
        if name in theirs:
            known = np.isfinite(theirs[name].to_numpy()) & (np.arange(len(candles)) >= first)
            np.testing.assert_array_equal(ours[name].to_numpy()[known], theirs[name].to_numpy()[known], err_msg=name)
    turns = theirs["trend_psar_up"].combine_first(theirs["trend_psar_down"]).iloc[2:]
    np.testing.assert_array_equal(ours["trend_psar"].iloc[2:], turns)


def test_the_set_ta_has_a_value_where_nothing_is_traded_and_nothing_moves():
    pytest.importorskip("ta")
    candles = walk(400)
    candles.iloc[200:260, :4] = candles["close"].iloc[200]
    candles.iloc[200:260, 4] = 0.0
    found = features(candles, set="ta", dtype="float64").iloc[100:]
    assert np.isfinite(found).all().all(), list(found.columns[~np.isfinite(found).all()])
    still = features(candles, set="ta", dtype="float64").iloc[250]
    assert (still[["volatility_bbp", "momentum_wr", "volume_cmf"]] == [0.5, -50, 0]).all()
    assert still["volume_vwap"] == candles["close"].iloc[250]


def test_the_set_ta_of_few_candles():
    pytest.importorskip("ta")
    candles = walk(300)
    for columns in (["trend_sma_fast"], ["momentum_stoch"], ["others_cr", "volatility_atr"]):
        whole, few = (features(c, set="ta", columns=columns, dtype="float64") for c in (candles, candles.iloc[:14]))
        assert few.iloc[-1].notna().all()
        pd.testing.assert_frame_equal(few, whole.iloc[:14])


def test_the_set_ta_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ta", None)
    with pytest.raises(SettingsError, match="pip install ta"):
        features(walk(200), set="ta")
