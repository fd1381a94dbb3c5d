"""V3's price, momentum, volatility and volume on real candles: distinct, honest, equal to `ta` and TA-Lib."""
import numpy as np
import pandas as pd
import pytest
import ta
import talib

from cryptolab.features import oscillators as osc
from cryptolab.features.registry import FeatureSet, features
from cryptolab.features.stream import features_in_pieces
from cryptolab.features.sets.v3.price import v3_price
from cryptolab.features.sets.v3.volume import v3_volume

OWN = FeatureSet("v3_own")
OWN.blocks = v3_price.blocks + v3_volume.blocks
LONGEST = 300  # rows after which every column has a value


def load(folder, name, rows=None):
    "Real candles, indexed by open time."
    table = pd.read_parquet(folder / f"{name}.parquet").set_index("timestamp").rename_axis("open_time")
    return table[["open", "high", "low", "close", "volume"]].astype("float64").iloc[-rows if rows else None :]


@pytest.fixture(scope="module")
def hours(shared_data):
    "The first 6,000 hours of BTCUSDT: five gaps, the longest of 33 hours."
    return load(shared_data, "BTCUSDT_1h").iloc[:6000]


@pytest.fixture(scope="module")
def table(hours):
    return features(hours, OWN, dtype="float64")


def test_counts():
    groups = OWN.table["group"].value_counts().to_dict()
    assert groups == {"price": 30, "momentum": 40, "volatility": 30, "volume": 25}
    assert len(set(OWN.names)) == 125 and OWN.table["candles"].max() <= 400
    assert OWN.table[["formula", "window", "unit"]].ne("").all(axis=None)


@pytest.mark.parametrize("name,rows", [("BTCUSDT_15m", 40_000), ("BTCUSDT_1h", None), ("SOLUSDT_1d", None)])
def test_columns_are_distinct_and_alive(shared_data, name, rows):
    known = features(load(shared_data, name, rows), OWN, dtype="float64").iloc[LONGEST:]
    assert np.isfinite(known.to_numpy()).all()
    assert (known.std() > 1e-9).all() and (known.nunique() > 20).all()
    close = known.corr().abs().to_numpy() - np.eye(125)
    worst = np.unravel_index(close.argmax(), close.shape)
    assert close.max() <= 0.999, (known.columns[worst[0]], known.columns[worst[1]], close.max())


def test_first_values_are_where_the_table_says(hours, table):
    known = table.notna()
    assert (known.to_numpy().argmax(axis=0) + 1).tolist() == OWN.table["candles"].tolist()
    assert (known.cummax() == known).all(axis=None)


def test_neither_future_nor_unit_nor_pieces_matter(hours, table):
    rows = hours.iloc[:2000]
    whole, scale = table.iloc[:2000], table.std()
    pd.testing.assert_frame_equal(features(rows, OWN, dtype="float64"), whole, check_exact=True)
    rescaled = features(rows * [10, 10, 10, 10, 1000], OWN, dtype="float64")
    pieces = features_in_pieces(rows, OWN, [1, 2, 13, 300, 301, 999, 1500], dtype="float64")
    for other in (rescaled, pieces):
        differs = ((other - whole).abs() > 1e-6 * scale) | (other.isna() != whole.isna())
        assert not differs.any(axis=None), list(differs.columns[differs.any()])


@pytest.mark.parametrize("cut", [777, 1501, 2200])
def test_the_start_is_forgotten(hours, table, cut):
    late = features(hours.iloc[cut:], OWN, dtype="float64")
    differs = (late - table.iloc[cut:]).abs().iloc[1200:] > 1e-6 * table.std()
    assert not differs.any(axis=None), list(differs.columns[differs.any()])


def silent_markets(hours):
    "A market that never moves, one without volume, one that stops, and one that wakes up again."
    rows = hours.iloc[:900]
    still = rows.assign(**{name: 0.1 for name in ("open", "high", "low", "close")})
    stop = rows.copy()
    stop.iloc[400:, :4], stop.iloc[400:, 4] = rows["close"].iloc[399], 0.0
    pause = rows.copy()
    pause.iloc[400:800, :4], pause.iloc[400:800, 4] = rows["close"].iloc[399], 0.0
    return {
        "still": still, "still and silent": still.assign(volume=0.0), "silent": rows.assign(volume=0.0), "stop": stop,
        "pause": pause,
    }


@pytest.mark.parametrize("kind", ["still", "still and silent", "silent", "stop", "pause"])
def test_silence_gives_finite_numbers(hours, table, kind):
    market = silent_markets(hours)[kind]
    found = features(market, OWN, dtype="float64")
    assert np.isfinite(found.iloc[LONGEST:].to_numpy()).all()
    if kind == "stop":
        assert (
            found.iloc[-1][["atr_14", "macd_atr", "psar", "supertrend", "force_13", "bull_power_13"]].abs() < 1e-6
        ).all()
    pieces = features_in_pieces(market, OWN, [5, 401, 640], dtype="float64")
    differs = (pieces - found).abs() > 1e-6 * table.std()
    assert not differs.any(axis=None), list(differs.columns[differs.any()])


def references(t):
    "The same quantities from `ta` and TA-Lib; columns of both with another unit are brought to ours."
    o, h, l, c, v = (t[name] for name in ("open", "high", "low", "close", "volume"))
    ppo, pvo = ta.momentum.PercentagePriceOscillator(c), ta.momentum.PercentageVolumeOscillator(v)
    bands, donchian = ta.volatility.BollingerBands(c), ta.volatility.DonchianChannel(h, l, c)
    keltner = ta.volatility.KeltnerChannel(h, l, c, 20, 10, original_version=False)
    vortex, adx, ichimoku = (
        ta.trend.VortexIndicator(h, l, c, 14),
        ta.trend.ADXIndicator(h, l, c, 14),
        ta.trend.IchimokuIndicator(h, l),
    )
    atr = ta.volatility.average_true_range(h, l, c, 14)
    cloud = (ichimoku.ichimoku_a() + ichimoku.ichimoku_b()).shift(26) / 2
    return {
        "rsi_6": ta.momentum.rsi(c, 6), "rsi_14": ta.momentum.rsi(c, 14), "rsi_28": ta.momentum.rsi(c, 28),
        "stoch_rsi_14": ta.momentum.stochrsi(c, 14), "roc_9": talib.ROC(c, 9),
        "stoch_k_14": ta.momentum.stoch(h, l, c, 14), "williams_r_50": ta.momentum.williams_r(h, l, c, 50),
        "cci_20": ta.trend.cci(h, l, c, 20), "ultimate_oscillator": talib.ULTOSC(h, l, c, 7, 14, 28), "ppo": ppo.ppo(),
        "ppo_hist": ppo.ppo_hist(), "macd_atr": ta.trend.macd(c) / atr, "tsi": ta.momentum.tsi(c),
        "awesome": ta.momentum.awesome_oscillator(h, l) / atr, "kst": ta.trend.kst(c), "trix_15": talib.TRIX(c, 15),
        "adx_14": adx.adx(), "plus_di_14": adx.adx_pos(), "minus_di_14": adx.adx_neg(),
        "vortex_14": vortex.vortex_indicator_diff(), "aroon_up_25": ta.trend.aroon_up(h, l, 25),
        "aroon_down_25": ta.trend.aroon_down(h, l, 25),
        "ichimoku_cross": (ichimoku.ichimoku_conversion_line() - ichimoku.ichimoku_base_line()) / c,
        "ichimoku_cloud": 1 - cloud / c, "psar": (c - talib.SAR(h, l)) / atr, "atr_14": atr / c,
        "mass_index_25": ta.trend.mass_index(h, l), "ulcer_14": ta.volatility.ulcer_index(c, 14),
        "bb_width_20": bands.bollinger_wband() / 100, "bb_place_20": bands.bollinger_pband(),
        "keltner_place_20": keltner.keltner_channel_pband(), "donchian_place_20": donchian.donchian_channel_pband(),
        "pvo_hist": pvo.pvo_hist(), "cmf_20": ta.volume.chaikin_money_flow(h, l, c, v, 20),
        "mfi_14": ta.volume.money_flow_index(h, l, c, v, 14),
        "vwap_14_distance": 1 - ta.volume.volume_weighted_average_price(h, l, c, v, 14) / c,
        "wma_100_distance": 1 - talib.WMA(c, 100) / c, "kama_10_distance": 1 - talib.KAMA(c, 10) / c,
        "ema_21_distance": 1 - ta.trend.ema_indicator(c, 21) / c, "tema_30_distance": 1 - talib.TEMA(c, 30) / c,
        "sma_200_distance": 1 - talib.SMA(c, 200) / c,
        "chaikin_oscillator": talib.ADOSC(h, l, c, v, 3, 10) / v.ewm(span=10, adjust=False).mean(),
        "body": talib.BOP(o, h, l, c), "volume_price_correlation_20": talib.CORREL(np.log(c), v, 20),
    }


def test_ta_and_talib_agree(hours, table):
    rows = hours.iloc[:3000]
    found, scale = table.iloc[:3000], table.std()
    expected = references(rows)
    assert len(expected) >= 40
    wrong = {}
    for name, column in expected.items():
        # after 1,000 rows no average remembers how it was started
        gap = (found[name] - np.asarray(column))[1000:].abs() / scale[name]
        if name == "psar":  # TA-Lib turns when a low only touches the stop
            assert (gap > 1e-6).mean() < 0.1
        elif not (gap <= 1e-6).all():
            wrong[name] = (gap.max(), gap.isna().sum())
    assert not wrong


def test_stops_stand_on_the_right_side(hours):
    "Stops of real candles never lie on the wrong side of the price."
    high, low, close = (hours[name].to_numpy() for name in ("high", "low", "close"))
    level, side = osc.psar(high, low, 0.02, 0.2)
    assert ((low >= level) | (side < 0))[1:].all() and ((high <= level) | (side > 0))[1:].all()
    level, side = osc.supertrend(high, low, close, 10, 3.0)
    assert (np.sign(close - level) == side)[9:].all()
