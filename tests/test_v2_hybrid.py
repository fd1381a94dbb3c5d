"""The sets of V2 and of the scalping ensemble, and the candlestick patterns, on real candles."""
import numpy as np
import pandas as pd
import pytest

from cryptolab.features.candlesticks import PATTERNS, pattern_columns
from cryptolab.features.registry import feature_names, feature_table, features
from cryptolab.features.sets.hybrid import hybrid
from cryptolab.features.sets.v2 import v2, v2_published

V2_02 = (
    "basis dev upper lower bandwidth bandwidth_percentile is_squeeze is_expansion z_score last_ph last_pl bear_sweep "
    "bull_sweep bull_bos bear_bos"
).split()
HOURS = ["hour_sin", "hour_cos", "session_asia", "session_europe", "session_america"]  # constant on daily candles


def read(folder, name):
    frame = pd.read_parquet(folder / f"{name}.parquet").set_index("timestamp").rename_axis("open_time")
    return frame[["open", "high", "low", "close", "volume"]].astype("float64")


@pytest.fixture(scope="module")
def btc_1h(shared_data):
    return read(shared_data, "BTCUSDT_1h")


@pytest.fixture(scope="module", params=["BTCUSDT_15m", "BTCUSDT_1h", "SOLUSDT_1d"])
def real(request, shared_data):
    candles = read(shared_data, request.param).tail(40_000)
    candles.attrs["timeframe"] = request.param.split("_")[1]
    return candles


def slow_v2(candles):
    "The 15 columns of V2, as obvious and slow as possible."
    high, low, close = (candles[name] for name in ("high", "low", "close"))
    table = pd.DataFrame({"basis": close.rolling(20).mean()}, index=candles.index)
    sd = pd.Series(
        [close.iloc[max(i - 19, 0) : i + 1].std(ddof=0) if i >= 19 else np.nan for i in range(len(close))],
        index=close.index,
    )
    table["dev"] = 2 * sd
    table["upper"], table["lower"] = table["basis"] + table["dev"], table["basis"] - table["dev"]
    table["bandwidth"] = (table["upper"] - table["lower"]) / table["basis"]
    percentile = table["bandwidth"].rolling(100).rank(pct=True) * 100
    table["bandwidth_percentile"] = percentile
    table["is_squeeze"] = (percentile < 20).astype(float).where(percentile.notna())
    table["is_expansion"] = (percentile > 80).astype(float).where(percentile.notna())
    table["z_score"] = (close - table["basis"]) / sd
    for name, x, best in (("last_ph", high, np.max), ("last_pl", low, np.min)):
        level, levels = np.nan, []
        for now in range(len(x)):
            if now >= 6 and x.iloc[now - 3] == best(x.iloc[now - 6 : now + 1]):
                level = x.iloc[now - 3]
            levels.append(level)
        table[name] = pd.Series(levels, index=x.index).where(np.arange(len(x)) >= 99)
    ph, pl, before = table["last_ph"], table["last_pl"], close.shift()
    for name, found, level in (
        ("bear_sweep", (high > ph) & (close < ph), ph), ("bull_sweep", (low < pl) & (close > pl), pl),
        ("bull_bos", (close > ph) & (before <= ph), ph), ("bear_bos", (close < pl) & (before >= pl), pl),
    ):
        table[name] = found.astype(float).where(level.notna())
    return table


def test_names_and_counts():
    assert feature_names("v2_published") == V2_02
    assert len(v2.names) == len(set(v2.names)) == 15
    assert len(feature_names("hybrid")) == len(set(feature_names("hybrid"))) >= 64
    assert feature_table("hybrid")["candles"].max() <= 400 and "price" not in set(feature_table("hybrid")["unit"])
    assert set(PATTERNS) < set(hybrid.names)


@pytest.mark.data
def test_v2_equals_a_slow_version(shared_data):
    for name in ("BTCUSDT_1h", "SOLUSDT_1d"):
        candles = read(shared_data, name).iloc[-1700:]
        expected = slow_v2(candles)
        pd.testing.assert_frame_equal(
            features(candles, "v2_published", dtype="float64"), expected, rtol=1e-9, atol=1e-9, check_freq=False,
        )
        assert (expected[["bear_sweep", "bull_sweep", "bull_bos", "bear_bos"]].sum() > 20).all()


@pytest.mark.data
def test_pivots_are_confirmed_three_candles_late(btc_1h):
    candles = btc_1h.iloc[-3000:]
    table = features(candles, "v2_published", dtype="float64")
    new = table["last_ph"].ne(table["last_ph"].shift()) & table["last_ph"].shift().notna()
    np.testing.assert_array_equal(table["last_ph"][new], candles["high"].shift(3)[new])
    for row in np.flatnonzero(new)[:20]:  # change the candle that confirms it: nothing before that row may know
        other = candles.copy()
        other.iloc[row, other.columns.get_loc("high")] *= 1.5
        np.testing.assert_array_equal(
            features(other, "v2_published", dtype="float64")["last_ph"][:row], table["last_ph"][:row],
        )


def test_no_pivot_no_number():
    close = 100 + np.arange(150.0)
    clock = pd.date_range("2024-01-01", periods=150, freq="h", tz="UTC")
    candles = pd.DataFrame(
        {"open": close - 1, "high": close, "low": close - 1, "close": close, "volume": 1.0}, index=clock,
    )
    table = features(candles, "v2_published")
    assert table[["last_ph", "last_pl", "bear_sweep", "bull_sweep", "bull_bos", "bear_bos"]].isna().all(axis=None)
    still = features(candles.assign(open=7.0, high=7.0, low=7.0, close=7.0), "v2_published").iloc[-1]
    assert still[["last_ph", "last_pl", "bandwidth_percentile"]].tolist() == [7, 7, 50.5] and still["bull_bos"] == 0


@pytest.mark.data
def test_patterns_equal_ta_lib(btc_1h):
    talib = pytest.importorskip("talib")
    arrays = tuple(btc_1h[name].to_numpy() for name in ("open", "high", "low", "close"))
    ours = {name: column for name, column in pattern_columns(*arrays)}
    flat = pd.Series(arrays[0] == arrays[3])  # TA-Lib calls such a candle white, here it has no colour
    rows = ~(
        flat | flat.shift(fill_value=False) | flat.shift(2, fill_value=False)
    ).to_numpy() & (np.arange(len(flat)) >= 20)
    theirs = lambda name, **named: getattr(talib, f"CDL{name}")(*arrays, **named)

    equal = [(ours["doji"], theirs("DOJI")), (ours["doji_tail"], theirs("DRAGONFLYDOJI") - theirs("GRAVESTONEDOJI"))]
    equal += [
        (ours[name], theirs(name.replace("_", "").upper()))
        for name in ("spinning_top", "marubozu", "engulfing", "harami")
    ]
    equal += [(np.maximum(ours["hammer"], 0), theirs("HAMMER"))]
    for here, there in equal:
        differ = np.sign(there[rows]) != here[rows]
        assert differ.sum() <= 3 and (here[rows] != 0).sum() > 1000, "more than the few ties that rounding decides"
    for name, there in (
        ("piercing", theirs("PIERCING") + theirs("DARKCLOUDCOVER", penetration=0.5)),
        ("three_inside", theirs("3INSIDE")), ("three_outside", theirs("3OUTSIDE")),
        ("star", theirs("MORNINGSTAR", penetration=0.3) + theirs("EVENINGSTAR", penetration=0.3)),
        ("soldiers", theirs("3WHITESOLDIERS")),
    ):
        found = rows & (there != 0)
        assert found.any() and (ours[name][found] == np.sign(there[found])).all(), name


@pytest.mark.data
def test_patterns_upside_down_and_in_another_unit(shared_data):
    candles = read(shared_data, "DOGEUSDT_1h").iloc[-8000:]
    # whole ticks, so that mirroring is exact and ties abound
    ticks = (candles[["open", "high", "low", "close"]] * 1e5).round().to_numpy().T
    upside = 2 * ticks.max() - ticks[[0, 2, 1, 3]]
    usual, mirrored, cents = (dict(pattern_columns(*np.ascontiguousarray(x))) for x in (ticks, upside, ticks * 0.01))
    for name, column in usual.items():
        np.testing.assert_array_equal(mirrored[name], column if name == "doji" else -column, name)
        np.testing.assert_array_equal(cents[name], column, name)


@pytest.mark.data
@pytest.mark.parametrize("found", [v2_published, v2, hybrid], ids=lambda s: s.name)
def test_columns_begin_where_declared_and_have_no_holes(real, found):
    table = features(real, found, dtype="float64")
    declared = found.table.set_index("name")["candles"]
    first = pd.Series(table.notna().to_numpy().argmax(axis=0) + 1, index=table.columns)
    assert first[first != declared].empty, first[first != declared]
    known = np.isfinite(table.to_numpy())
    assert all(known[declared[name] - 1 :, i].all() for i, name in enumerate(table))


@pytest.mark.data
@pytest.mark.parametrize("found", [v2, hybrid], ids=lambda s: s.name)
def test_columns_are_alive_and_distinct(real, found):
    table = features(real, found, dtype="float64")
    if real.attrs["timeframe"] == "1d":
        table = table.drop(columns=HOURS, errors="ignore")
    assert (table.std() > 0).all()
    alike = table.corr().abs().to_numpy(copy=True)
    np.fill_diagonal(alike, 0)
    assert alike.max() < 0.999, table.columns[np.argwhere(alike >= 0.999)]


@pytest.mark.data
@pytest.mark.parametrize("found", [v2_published, v2, hybrid], ids=lambda s: s.name)
def test_pieces_cuts_and_units(btc_1h, found):
    stream = pytest.importorskip("cryptolab.features.stream")
    candles = btc_1h.iloc[-2500:]
    whole = features(candles, found, dtype="float64")
    pieces = stream.features_in_pieces(candles, found, cuts=[1, 2, 3, 7, 26, 27, 150, 151, 1000, 2499], dtype="float64")
    scale = whole.std()
    assert ((pieces - whole).abs().max() <= 1e-9 * scale).all() and (pieces.isna() == whole.isna()).all(axis=None)
    later = features(candles.iloc[700:], found, dtype="float64").iloc[600:]
    assert ((later - whole.iloc[1300:]).abs().max() <= 1e-6 * scale).all()
    pd.testing.assert_frame_equal(
        features(candles.iloc[:1777], found, dtype="float64"), whole.iloc[:1777], check_exact=True,
    )
    if found is not v2_published:
        other = features(candles * [10, 10, 10, 10, 1000], found, dtype="float64")
        assert ((other - whole).abs().max() <= 1e-7 * scale).all()


def test_hybrid_survives_silence():
    clock = pd.date_range("2024-01-01", periods=700, freq="min", tz="UTC")
    close = np.where(np.arange(700) < 250, 100 + np.arange(700) % 5, 102.0)  # lively, then asleep
    candles = pd.DataFrame({"open": close, "high": close, "low": close, "close": close, "volume": 1.0}, index=clock)
    for market in (
        candles, candles.assign(volume=0.0), candles.assign(volume=np.where(np.arange(700) < 250, 1.0, 0.0)),
    ):
        table = features(market, hybrid, dtype="float64").iloc[200:]
        assert np.isfinite(table).all(axis=None)
        bounded = [
            name for name, unit in zip(hybrid.names, hybrid.table["unit"])
            if unit in ("index", "sign", "0/1", "percent")
        ]
        assert table[bounded].abs().max().max() <= 700


@pytest.mark.data
def test_hybrid_columns_by_hand(btc_1h):
    candles = btc_1h.iloc[-1500:]
    table, c, v = features(candles, hybrid, dtype="float64"), candles["close"], candles["volume"]
    r = np.log(c / c.shift())
    before = v.rolling(20).mean().shift()
    high, low = candles["high"].rolling(20).max(), candles["low"].rolling(20).min()
    falls = (r.clip(upper=0) ** 2).rolling(20).sum()
    expected = {
        "return_20": np.log(c / c.shift(20)), "efficiency_10": r.rolling(10).sum() / r.abs().rolling(10).sum(),
        "acceleration_5": np.log(c / c.shift(5)) - np.log(c / c.shift(5)).shift(5),
        "volatility_20": (r**2).rolling(20).mean() ** 0.5,
        "momentum_score_20": r.rolling(20).sum() / (r**2).rolling(20).sum() ** 0.5,
        "donchian_20": (c - low) / (high - low), "volume_spike": (v > 1.5 * before).astype(float).where(before.notna()),
        "downside_20": falls / (r**2).rolling(20).sum(), "return_volume_20": r.rolling(20).corr(v),
        "up_volume_20": v.where(r > 0, 0).rolling(20).sum() / v.rolling(20).sum(),
        "drawdown_100": c / candles["high"].rolling(100).max() - 1,
        "volume_percentile": v.rolling(100).rank(pct=True) * 100,
        "bb_touch": (
            c <= c.rolling(20).mean() - 2 * c.rolling(20).std(ddof=0)
        ).astype(float) - (c >= c.rolling(20).mean() + 2 * c.rolling(20).std(ddof=0)),
        "up_share_20": (r > 0).astype(float).rolling(20).mean(),
        "skew_50": r.rolling(50).apply(lambda x: ((x - x.mean()) ** 3).mean() / x.std() ** 3, raw=True),
    }
    for name, column in expected.items():
        np.testing.assert_allclose(table[name].iloc[120:], column.iloc[120:], rtol=1e-8, atol=1e-8, err_msg=name)
    assert table["adx_14"].std() > 5  # not a constant 25


@pytest.mark.data
@pytest.mark.parametrize("found", [v2_published, v2, hybrid], ids=lambda s: s.name)
def test_certificate(btc_1h, found):
    certificate = pytest.importorskip("cryptolab.features.certify.certificate")
    table = certificate.certify(found, btc_1h.iloc[20_000:22_500], seconds=1.0)
    assert (table["verdict"] == "pass").all(), table[table["verdict"] != "pass"]
    if found is not v2_published:
        assert (table["scale"] == "invariant").all()


@pytest.mark.data
def test_sets_agree_where_their_thresholds_do(btc_1h):
    "One definition of a pattern serves three sets; thresholds that say the same give the same column."
    tables = {name: features(btc_1h, name, dtype="float64").iloc[20:] for name in ("hybrid", "v3", "ultimate")}
    for name in ("hybrid", "ultimate"):  # prices in cents: a billionth of the price is less than a tick
        np.testing.assert_array_equal(tables[name]["engulfing"], tables["v3"]["engulfing"], name)
    within, deep = tables["ultimate"]["harami"], tables["v3"]["piercing"] != 0
    np.testing.assert_array_equal(tables["v3"]["harami"], within.mask(deep, 0.0))
    np.testing.assert_array_equal(tables["v3"]["inside_bar"] == 1, tables["hybrid"]["inside_bar"] == 1)
    assert (within[deep] != 0).sum() > 100 and (tables["v3"]["doji"] > 0.5)[tables["ultimate"]["doji"] == 0].sum() == 0
