"""Labels against hand computation and a naive loop; windows, splits and scaling against the obvious implementation."""
import json
import time

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.labels import natr_future, natr_next, next_direction, next_log_return, rv_future
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


GAPS = (40, 41, 97, 250, 398)
LABELS = {
    "direction": (next_direction, 1, lambda t, i: float(t["close"].iloc[i + 1] > t["close"].iloc[i])),
    "as published": (lambda t: next_direction(t, gap=1), 2, lambda t, i: float(t["close"].iloc[i + 2] > t["close"].iloc[i + 1])),
    "return": (next_log_return, 1, lambda t, i: np.log(t["close"].iloc[i + 1] / t["close"].iloc[i])),
    "natr_future": (natr_future, 14, lambda t, i: np.mean([true_range(t, j) for j in range(i + 1, i + 15)]) / t["close"].iloc[i + 14]),
    "rv": (lambda t: rv_future(t, 5), 5, lambda t, i: np.sqrt(np.sum(np.diff(np.log(t["close"].iloc[i : i + 6])) ** 2))),
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
])
def test_bad_labels_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------- windows


def table(rows=500, columns=3, seed=0, gaps=(), holes=(), warm_up=0):
    "Random features with missing rows (`gaps`), missing values (`holes`) and a warm-up."
    rng = np.random.default_rng(seed)
    clock = pd.date_range("2024-01-01", periods=rows, freq="h", tz="UTC", name="open_time")
    features = pd.DataFrame(rng.normal(size=(rows, columns)).astype("float32"), index=clock, columns=list("abcdefgh")[:columns])
    features.iloc[:warm_up, 0] = np.nan
    features.iloc[list(holes), -1] = np.nan
    return features.drop(clock[list(gaps)])


@pytest.mark.parametrize("length", [1, 2, 7, 60])
def test_windows_equal_the_naive_loop(length):
    features = table(gaps=(100, 101, 300), holes=(50, 220, 221), warm_up=9)
    windows = make_windows(features, length)
    values, times = features.to_numpy(), features.index
    good = [e for e in range(length - 1, len(features))
            if np.isfinite(values[e - length + 1 : e + 1]).all() and times[e] - times[e - length + 1] == HOUR * (length - 1)]
    assert isinstance(windows, Windows) and windows.ends.tolist() == good and windows.index.equals(times[good])
    expected = np.stack([values[e - length + 1 : e + 1] for e in good])
    np.testing.assert_array_equal(windows.batch(), expected)
    np.testing.assert_array_equal(windows.flat([0, 5]), expected[[0, 5]].reshape(2, -1))
    assert windows.view.shape == (len(features) - length + 1, length, 3)
    assert sum(windows.dropped.values()) + len(windows) == len(features)
    assert windows.dropped["too_short"] == length - 1 and windows.dropped["missing"] > 0 and (windows.dropped["gap"] > 0) == (length > 1)
    rows = windows.rows(range(3, 9))
    assert rows.tolist() == sorted({r for e in windows.ends[3:9] for r in range(e - length + 1, e + 1)})


def test_windows_do_not_copy_what_fits():
    matrix = np.random.default_rng(0).random((500, 4), dtype="float32")
    features = pd.DataFrame(matrix, index=pd.date_range("2024", periods=500, freq="h", tz="UTC"), copy=False)
    windows = make_windows(features)
    assert np.shares_memory(windows.values, matrix) and np.shares_memory(windows.view, matrix) and windows.values.flags.c_contiguous
    doubles = make_windows(features.astype("float64"))
    assert doubles.values.dtype == np.float32 and doubles.values.flags.c_contiguous
    np.testing.assert_array_equal(doubles.batch([3, 1]), windows.batch([3, 1]))


def test_ten_thousand_candles():
    from cryptolab.features.v9 import v9_features

    candles = market(10_200)
    windows = make_windows(v9_features(candles).iloc[-10_000:])
    assert len(windows) == 9_941 and windows.dropped == {"too_short": 59, "warm_up": 0, "gap": 0, "missing": 0}
    numbers, labels = windows.match(next_direction(candles))
    assert len(numbers) == len(labels) == 9_940 and (windows.index[numbers] == labels.index).all()
    assert chronological_split(labels["t0"], labels["t1"]).sizes == {"train": 6_958, "val": 1_491, "test": 1_491, "purged": 0}
    late = make_windows(v9_features(candles))
    assert late.dropped["warm_up"] == 167 and late.ends[0] == 167 + 59


def test_matching_skips_unknown_labels():
    candles = market(300, gaps=(150,))
    windows = make_windows(table(300, gaps=(150,)), 10)
    labels = next_direction(candles).iloc[20:]
    labels.index = labels.index.as_unit("ms")
    numbers, known = windows.match(labels)
    assert known["y"].notna().all() and (windows.index[numbers] == known.index).all()
    assert len(numbers) == (~windows.index.isin(labels.index[labels["y"].isna()]) & (windows.index >= labels.index[0])).sum()


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


@pytest.mark.parametrize(("fractions", "sizes"), [((0.7, 0.15, 0.15), (6_958, 1_491, 1_491)), ((0.5, 0.25, 0.25), (4_970, 2_485, 2_485)),
                                                  ((1 / 3, 1 / 3, 1 / 3), (3_313, 3_313, 3_314))])
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
    assert scaled.dtype == np.float32 and np.isnan(scaled).sum() == 1 and (scaled[rows, :4] >= 0).all() and (scaled[rows, :4] <= 1).all()
    np.testing.assert_allclose(scaled, theirs.transform(values.astype("float64")), atol=1e-6)
    np.testing.assert_array_equal(ours.transform(values[:120].reshape(2, 60, 5)), scaled[:120].reshape(2, 60, 5))
    outside = (values < ours.data_min) | (values > ours.data_max)
    assert ours.out_of_range(values) == pytest.approx(outside.sum() / (values.size - 1)) and ours.out_of_range(values[rows]) == 0


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
    lambda d: d.pop("names"), lambda d: d["data_min"].pop(), lambda d: d.update(data_max="x"), lambda d: d.update(data_max=[np.nan] * 3),
    lambda d: d.update(data_min=d["data_max"], data_max=d["data_min"])])
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
