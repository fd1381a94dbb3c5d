"""The feature set of V3 on real candles: counts, no copies, no look-ahead, the same in pieces, finite in silence."""
import numpy as np
import pandas as pd
import pytest

from cryptolab.data.candles import resample_candles
from cryptolab.data.market import sample_market
from cryptolab.features.higher import higher
from cryptolab.features.registry import feature_inputs, feature_names, feature_table, features
from cryptolab.features.stream import features_in_pieces

COINS = ("BTC", "ETH", "SOL", "BNB", "ADA", "XRP", "AVAX", "DOGE", "DOT", "MATIC")
GROUPS = {
    "price": 30, "momentum": 40, "volatility": 30, "volume": 25, "patterns": 20, "regime": 20, "lagged": 40,
    "multi-timeframe": 30, "funding": 15, "cross-coin": 20,
}


def read(folder, name, rows=None):
    "Candles of the shared folder with symbol and timeframe."
    path = folder / f"{name}.parquet"
    frame = pd.read_parquet(path).set_index("timestamp").rename_axis("open_time")[
        ["open", "high", "low", "close", "volume"]
    ].astype("float64")
    frame.attrs["symbol"], frame.attrs["timeframe"] = path.stem.split("_")[0], path.stem.split("_")[-1]
    return frame if rows is None else frame.iloc[-rows:]


def context_of(folder, name):
    "All the context the shared folder has for a coin and timeframe."
    symbol, timeframe = name.split("_")
    context = {
        "coins": {
            f"{c}USDT": read(folder, f"{c}USDT_{timeframe}") for c in COINS
            if (folder / f"{c}USDT_{timeframe}.parquet").exists()
        }
    }
    if (folder / "funding" / f"{symbol}_funding.parquet").exists():
        context["funding"] = pd.read_parquet(folder / "funding" / f"{symbol}_funding.parquet")
    if (folder / "funding" / f"{symbol}_perp_{timeframe}.parquet").exists():
        context["perpetual"] = read(folder / "funding", f"{symbol}_perp_{timeframe}")
    return context


def test_270_means_270():
    table = feature_table("v3")
    assert table.groupby("group", sort=False).size().to_dict() == GROUPS
    assert len(feature_names("v3")) == len(set(feature_names("v3"))) == 270
    own = table[table["needs"] == ""]
    assert own.loc[own["group"] != "multi-timeframe", "candles"].max() <= 400 and table["candles"].max() <= 24 * 30


@pytest.mark.data
@pytest.mark.parametrize(
    "name, rows, columns", [("BTCUSDT_15m", 40_000, 262), ("BTCUSDT_1h", None, 270), ("SOLUSDT_1d", None, 255)],
)
def test_no_copies_no_constants(shared_data, name, rows, columns):
    candles = read(shared_data, name, rows)
    table = features(candles, "v3", context_of(shared_data, name))
    assert table.shape == (len(candles), columns)
    about = feature_table("v3").set_index("name")
    for column in about.index[about["needs"] == ""]:
        first = about.loc[column, "candles"] - 1
        assert table[column].iloc[:first].isna().all() and np.isfinite(table[column].iloc[first:]).all(), column
    values = table.to_numpy()
    assert not np.isinf(values).any()
    values = values[np.isfinite(values).all(axis=1)].astype("float64")
    assert len(values) > 1000 and (values.std(axis=0) > 0).all()
    r = np.abs(np.triu(np.corrcoef(values.T), 1))
    assert r.max() <= 0.999, [(table.columns[i], table.columns[j]) for i, j in zip(*np.where(r > 0.999))]


@pytest.mark.data
def test_same_in_pieces_and_without_future(shared_data):
    candles, context = read(shared_data, "BTCUSDT_1h", 40_000).iloc[:9000], context_of(shared_data, "BTCUSDT_1h")
    candles = candles.drop(candles.index[np.r_[3000:3030, 5000:5004, 6001]])
    whole = features(candles, "v3", context, dtype="float64")
    pieces = features_in_pieces(candles, "v3", [1, 2, 3, 30, 700, 701, 4321, 8000], context=context, dtype="float64")
    assert (pieces.isna() == whole.isna()).all(axis=None)
    worst = (pieces - whole).abs().max() / whole.std()
    assert (worst <= 1e-6).all(), worst[worst > 1e-6]
    for cut in (1500, 4322, 8999):
        pd.testing.assert_frame_equal(
            features(candles.iloc[:cut], "v3", context, dtype="float64"), whole.iloc[:cut], check_exact=True,
        )


@pytest.mark.data
def test_start_fades_and_units_do_not_matter(shared_data):
    candles, context = read(shared_data, "BTCUSDT_1h", 8000), context_of(shared_data, "BTCUSDT_1h")
    whole = features(candles, "v3", context, dtype="float64")
    later = features(candles.iloc[2013:], "v3", context, dtype="float64")
    worst = (later - whole.iloc[2013:]).iloc[2000:].abs().max() / whole.std()
    assert (worst <= 1e-6).all(), worst[worst > 1e-6]
    scaled = candles.mul({"open": 10, "high": 10, "low": 10, "close": 10, "volume": 1000})
    scaled.attrs = candles.attrs
    own = [c["name"] for c in feature_table("v3").to_dict("records") if not c["needs"]]
    other = features(scaled, "v3", columns=own, dtype="float64")
    worst = (other - whole[own]).abs().max() / whole[own].std()
    assert (worst <= 1e-6).all(), worst[worst > 1e-6]


@pytest.mark.parametrize("price, volume", [(100.0, 0.0), (0.1, 5.0), (123_456.7, 0.0)])
def test_finite_when_nothing_happens(price, volume):
    candles = sample_market(n=1000)
    still = candles.assign(open=price, high=price, low=price, close=price, volume=volume)
    assert np.isfinite(features(still, "v3").iloc[719:]).all(axis=None)
    stops = candles.copy()
    stops.iloc[300:600, :4], stops.iloc[300:600, 4] = candles["close"].iloc[299], 0.0
    assert np.isfinite(features(stops, "v3").iloc[719:]).all(axis=None)


@pytest.mark.data
@pytest.mark.parametrize("factor, timeframe", [(4, "4h"), (24, "1D")])
def test_higher_candles_are_joined_on_their_close(shared_data, factor, timeframe):
    candles = read(shared_data, "BTCUSDT_1h")  # with real outages
    h = higher(feature_inputs(candles), factor)
    expected = resample_candles(candles, timeframe.lower())  # only whole ones
    known = expected.set_index((expected.index + pd.Timedelta(timeframe)).as_unit("ns").rename("time")).reset_index()
    joined = pd.merge_asof(pd.DataFrame({"time": (candles.index + pd.Timedelta("1h")).as_unit("ns")}), known, on="time")
    ours = {name: h.spread(getattr(h, name)) for name in ("open", "high", "low", "close", "volume")}
    start = candles.index.floor(f"{factor}h")
    sizes = candles.groupby(start).size()
    whole = (sizes == factor) & (sizes.shift() == factor) & (sizes.index.to_series().diff() == pd.Timedelta(timeframe))
    rows = whole.loc[start].to_numpy() & (np.arange(len(candles)) > 2 * factor)
    assert 0.9 < rows.mean() < 1.0
    for name, column in ours.items():
        np.testing.assert_allclose(column[rows], joined[name][rows], rtol=1e-12, err_msg=name)
