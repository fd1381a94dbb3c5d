"""Candles from real files, planted defects, and the layouts found in the wild."""
import bz2
import gzip
import io
import json
import lzma
import time
import zipfile

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.data.candles import (
    CANDLE_COLUMNS, clean_candles, find_gaps, fingerprint, infer_timeframe, quality_table, resample_candles, segments,
    validate_candles,
)
from cryptolab.data.readers import read_candles

HOUR = pd.Timedelta("1h")
SPIKES = "spikes that contradict their neighbours"
PRICES = ["open", "high", "low", "close"]


def market(n=200, freq="1h", start="2024-03-30 05:00", seed=0, decimals=2):
    "Made-up candles with every optional column; prices and volumes rounded as exchanges round them."
    rng = np.random.default_rng(seed)
    index = pd.date_range(start, periods=n, freq=freq, tz="UTC", name="open_time").as_unit("ns")
    close = np.round(43000 * np.exp(np.cumsum(rng.normal(0, 0.006, n))), decimals)
    table = pd.DataFrame({"open": np.r_[43000.0, close[:-1]]}, index)
    table["high"] = np.round(np.maximum(table["open"], close) + rng.exponential(40, n), decimals)
    table["low"] = np.round(np.minimum(table["open"], close) - rng.exponential(40, n), decimals)
    table["close"] = close
    table["volume"] = np.round(rng.lognormal(6, 0.6, n), 5)
    table["quote_volume"] = np.round(table["volume"] * (table["open"] + close) / 2, 5)
    table["trades"] = rng.integers(500, 5000, n).astype(float)
    table["taker_buy_volume"] = np.round(table["volume"] * rng.uniform(0.3, 0.7, n), 5)
    return table


def counts(table):
    "Number per check."
    return quality_table(table).set_index("check")["count"]


def same(got, truth, columns=CANDLE_COLUMNS):
    "Equal times and equal numbers."
    assert got.index.tz is not None and got.index.name == "open_time"
    assert got.index.equals(truth.index), (
        f"{got.index[:2]} ... {got.index[-2:]}\nnot {truth.index[:2]} ... {truth.index[-2:]}"
    )
    np.testing.assert_allclose(got[list(columns)].to_numpy(), truth[list(columns)].to_numpy(), rtol=1e-12)
    assert all(str(t) == "float64" for t in got.dtypes)


# ---------------------------------------------------------------- real candles

def _files(folder):
    return sorted(folder.glob("*_*.parquet")) + sorted((folder / "funding").glob("*_perp_*.parquet"))


@pytest.mark.data
def test_sound_real_files_lose_nothing(shared_data):
    files = _files(shared_data)
    assert len(files) > 25
    for path in files:
        candles = read_candles(path)
        raw = pd.read_parquet(path, columns=["timestamp"])
        assert len(candles) == len(raw), path.name
        assert candles.attrs["timeframe"] == path.stem.split("_")[
            -1 if "_" in path.stem and path.stem.split("_")[-1][0].isdigit() else 1
        ]
        assert counts(candles)["rows kept"] == len(raw)


@pytest.mark.data
def test_two_million_rows_take_seconds(shared_data):
    raw = pd.read_parquet(shared_data / "BTCUSDT_1m.parquet").set_index("timestamp")
    start = time.perf_counter()
    candles = clean_candles(raw)
    hours = resample_candles(candles, "1h")
    assert time.perf_counter() - start < 30  # about 2 s on an idle core
    truth = pd.read_parquet(shared_data / "BTCUSDT_1h.parquet").set_index("timestamp")
    truth.index = truth.index.as_unit("ns")
    both = hours.join(truth[CANDLE_COLUMNS].add_suffix("_truth"), how="inner")
    assert len(both) == len(hours) > 39000
    for column in PRICES:
        assert (both[column] == both[f"{column}_truth"]).all()
    np.testing.assert_allclose(both["volume"], both["volume_truth"], rtol=1e-6)


@pytest.mark.data
@pytest.mark.parametrize("target", ["2h", "4h", "8h", "12h", "1d", "1w"])
def test_resampling_real_hours(shared_data, target):
    hours = read_candles(shared_data / "ETHUSDT_1h.parquet")
    got = resample_candles(hours, target)
    slow = hours[CANDLE_COLUMNS].resample({"1w": "W-MON", "1d": "D"}.get(target, target), label="left", closed="left")
    slow = slow.agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": ["sum", "count"]})
    slow.columns = [*CANDLE_COLUMNS, "parts"]
    full = slow[slow["parts"] == pd.Timedelta({"1w": "7D", "1d": "1D"}.get(target, target)) / HOUR]
    assert got.index.equals(full.index.as_unit("ns"))
    np.testing.assert_allclose(got[CANDLE_COLUMNS], full[CANDLE_COLUMNS], rtol=1e-12)
    dropped = [r for r in got.attrs["quality"] if r["check"] == "incomplete higher candles"]
    assert dropped[0]["count"] == (slow["parts"] > 0).sum() - len(got)


@pytest.mark.data
@pytest.mark.parametrize("coin,when,move", [
    ("DOGEUSDT", "2021-01-29 03:00", 0.5), ("BTCUSDT", "2020-03-12 10:00", -0.15),
    ("ADAUSDT", "2025-03-02 15:00", 0.25),
])
def test_great_real_moves_stay(shared_data, coin, when, move):
    candles = read_candles(shared_data / f"{coin}_1h.parquet")
    row = candles.loc[pd.Timestamp(when, tz="UTC")]
    change = row["close"] / row["open"] - 1
    assert change > move if move > 0 else change < move
    for rows in (3, 30):  # also when the move stands at the edge of the table
        for part in (candles.loc[:when].tail(rows), candles.loc[when:].head(rows)):
            assert len(clean_candles(part, "1h")) == len(part)


RAW = {
    "BTCUSDT-1h-data.csv": "BTCUSDT_1h", "BTCUSDT_1h_open_time_ms.csv": "BTCUSDT_1h",
    "BTCUSDT_1h_2024-01-01.json": "BTCUSDT_1h", "BTCUSDT-1m-2024-12-31.csv": "BTCUSDT_1m",
    "BTCUSDT-1m-2025-01-01.csv": "BTCUSDT_1m", "BTCUSDT_1h_cryptodatadownload.csv": "funding/BTCUSDT_perp_1h",
}


@pytest.mark.data
@pytest.mark.parametrize("name", RAW)
def test_raw_files_are_the_truth(shared_data, name):
    got, truth = read_candles(shared_data / "raw" / name), read_candles(shared_data / f"{RAW[name]}.parquet")
    both = got.join(truth.add_suffix("_truth"), how="inner")
    assert len(both) == len(got) > 700
    for column in PRICES:
        assert (both[column] == both[f"{column}_truth"]).all(), column
    for column in set(got) & set(truth) - set(PRICES):
        different = (both[column] / both[f"{column}_truth"] - 1).abs() > 1e-6
        # three hours of this file were recorded before their last trades were added; the account says that can be
        assert different.sum() == (3 if name == "BTCUSDT-1h-data.csv" else 0), column
    found = counts(got)
    if name == "BTCUSDT-1h-data.csv":
        assert (found["conflicting duplicates"], found["unclosed last candle"], len(got)) == (5, 1, 9994)
        assert "last trades" in quality_table(got).set_index("check").loc["conflicting duplicates", "example"]
    elif "cryptodatadownload" in name:
        assert (found["wrong order"], found["unclosed last candle"], len(got)) == (3999, 1, 3999)
    else:
        assert len(got) == found["rows"] and not found.drop(["rows", "rows kept"]).any()


@pytest.mark.data
def test_planted_defects_in_real_candles_are_found_and_counted(shared_data):
    base = read_candles(shared_data / "BTCUSDT_1h.parquet").loc["2024-01-01":"2024-06-30 23:00"]
    base.attrs = {}
    t = base.index
    bad = base.copy()
    bad.loc[t[100], "close"] = np.nan
    bad.loc[t[110], "volume"] = np.nan
    bad.loc[t[200], "low"] = 0.0
    bad.loc[t[210], PRICES] = -bad.loc[t[210], PRICES]
    bad.loc[t[300], "high"] = bad.loc[t[300], "low"] * 0.99
    bad.loc[t[310], "low"] = bad.loc[t[310], "close"] * 1.01
    bad.loc[t[400], "volume"] = -1.0
    bad.loc[t[500], PRICES] *= 10
    bad.loc[t[510], ["high", "close"]] *= 10
    bad.loc[t[520], ["low", "close"]] /= 10
    bad.loc[t[530], ["high", "open"]] *= 5
    bad.loc[t[600:640], PRICES] *= 1000
    bad.loc[t[700], "volume"] = 0.0
    bad.loc[t[710], "low"] *= 0.2  # a wick: kept
    bad = bad.drop(t[800:805])
    off = bad.loc[[t[900]]].set_axis(t[[900]] + pd.Timedelta("17min"))
    twin, running = bad.loc[[t[1000]]], bad.loc[[t[1010]]].assign(close=lambda x: x["close"] * 1.001, volume=1.0)
    bad = pd.concat([bad.iloc[2000:], bad.iloc[:2000], off, twin, running])
    clean = clean_candles(bad)
    found = counts(clean)
    expected = {
        "missing values": 2, "non-positive prices": 2, "impossible OHLC": 2, "negative volume": 1, SPIKES: 4,
        "unit changes": 40, "zero volume": 1, "long wicks": 1, "off-grid timestamps": 1, "duplicates": 2,
        "conflicting duplicates": 1, "wrong order": 2, "unclosed last candle": 0, "constant price": 0,
        "gaps": 2 + 2 + 2 + 1 + 4 + 1 + 1, "missing candles": 7 + 44 + 5,
    }
    assert {k: found[k] for k in expected} == expected
    gone = {100, 110, 200, 210, 300, 310, 400, 500, 510, 520, 530, *range(600, 640), *range(800, 805)}
    left = base.drop(t[sorted(gone)])
    assert clean.index.equals(left.index)
    odd = [t[700], t[710]]
    pd.testing.assert_frame_equal(clean.drop(odd), left.drop(odd))
    again = clean_candles(clean)
    pd.testing.assert_frame_equal(clean, again)
    assert clean.attrs == again.attrs
    assert (
        validate_candles(clean)
        .set_index("check")["count"]
        .reindex(["missing values", SPIKES, "duplicates", "wrong order"])
        == 0
    ).all()


# ---------------------------------------------------------------- cleaning

@pytest.mark.parametrize("row", [0, 1, 2, 100, 197, 198, 199])
@pytest.mark.parametrize("factor", [10, 3, 0.1, 1000])
@pytest.mark.parametrize("columns", [PRICES, ["high", "close"], ["high", "open"]], ids=["whole", "close", "open"])
@pytest.mark.parametrize("paid", [True, False], ids=["paid", "unpaid"])
def test_spikes_anywhere(row, factor, columns, paid):
    truth = market() if paid else market().drop(columns="quote_volume")
    bad = truth.copy()
    if factor < 1:
        columns = ["low" if c == "high" and len(columns) == 2 else c for c in columns]
    bad.iloc[row, [PRICES.index(c) for c in columns]] *= factor
    clean = clean_candles(bad)
    undecided = (row == 199 and columns != PRICES and factor == 3 and "close" in columns) or (
        row == 0 and "open" in columns and len(columns) == 2 and (factor == 0.1 or factor == 3 and not paid)
    )
    assert len(clean) == 199 + undecided, counts(clean)[lambda x: x > 0]
    assert counts(clean)[SPIKES] == 1 - undecided
    if not undecided:
        same(clean, truth.drop(truth.index[row]))


def test_moves_and_wicks_stay():
    truth = market()
    for factor in (1.5, 0.5, 1.7, 0.3, 3.0):
        moved = truth.copy()
        moved.iloc[100:, :4] *= factor
        moved.iloc[100, 0] = truth.iloc[100, 0]  # it opened where the last one closed and moved inside the candle
        moved.iloc[100, [1, 2]] = moved.iloc[100, :4].max(), moved.iloc[100, :4].min()
        assert len(clean_candles(moved)) == 200
        back = moved.copy()
        back.iloc[101:, :4] = truth.iloc[101:, :4]
        back.iloc[101, 0] = moved.iloc[100, 3]
        back.iloc[101, [1, 2]] = back.iloc[101, :4].max(), back.iloc[101, :4].min()
        assert len(clean_candles(back)) == 200
    for row in (0, 100, 199):
        wick = truth.copy()
        wick.iloc[row, 2] *= 0.1
        clean = clean_candles(wick)
        assert len(clean) == 200 and counts(clean)["long wicks"] == 1


def test_noise_is_not_eaten_from_the_edges():
    rng = np.random.default_rng(0)
    close = rng.uniform(1, 100, 300)  # candles that do not continue each other prove nothing about each other
    noise = market(300).assign(open=rng.uniform(1, 100, 300), close=close)
    noise["high"], noise["low"] = noise[["open", "close"]].max(axis=1), noise[["open", "close"]].min(axis=1)
    assert len(clean_candles(noise)) == 300


def test_a_price_that_breaks_is_refused_unless_the_caller_allows_it():
    truth = market()
    truth.iloc[120:, :4] /= 1000
    truth.loc[truth.index[120:], "quote_volume"] /= 1000
    with pytest.raises(DataError, match="price breaks 1 times(.|\n)*43|allow_jumps"):
        clean_candles(truth)
    assert "unusable" in set(validate_candles(truth)["check"])
    clean = clean_candles(truth, allow_jumps=True)
    assert len(clean) == 200 and counts(clean)["unit changes of price"] == 1
    other = market(seed=1)
    other.iloc[:, :4] /= 14  # another symbol, appended
    with pytest.raises(DataError, match="one symbol in one unit"):
        clean_candles(pd.concat([truth.iloc[:100], other.iloc[100:]]))
    later = other.set_axis(truth.index[-1] + pd.Timedelta("30D") + HOUR * np.arange(200)).iloc[:100]
    found = counts(clean_candles(pd.concat([market().iloc[:100], later])))
    assert found["price jumps between candles"] + found["unit changes of price"] == 1  # after a month: counted only


def test_constant_price_is_kept_and_reported():
    flat = market().assign(open=5.0, high=5.0, low=5.0, close=5.0, quote_volume=lambda x: x["volume"] * 5)
    clean = clean_candles(flat)
    assert len(clean) == 200 and counts(clean)["constant price"] == 200


def test_unclosed_needs_a_witness():
    truth = market()
    assert len(clean_candles(truth)) == 200
    last = truth.index[-1]
    for now, left in (
        (last + HOUR / 2, 199), (last + HOUR, 200), (last - 3 * HOUR, 196), ((last + HOUR / 2).tz_localize(None), 199),
    ):
        clean = clean_candles(truth, now=now)
        assert (len(clean), counts(clean)["unclosed last candle"]) == (left, 200 - left)
    closes = truth.assign(close_time=truth.index + HOUR - pd.Timedelta("1ms"))
    assert len(clean_candles(closes)) == 200
    closes.loc[last, "close_time"] = last + HOUR / 3
    assert len(clean_candles(closes)) == 199
    with pytest.raises(DataError, match="no usable candle"):
        clean_candles(truth, now="2020-01-01")


def test_conflicting_twins():
    truth = market()
    wrong_price = truth.iloc[[50]].assign(**{c: truth.iloc[50][c] * 1.6 for c in PRICES}, volume=1e6)
    early = truth.iloc[[60, 60]].assign(volume=[1.0, 2.0], close=truth["open"].iloc[60])
    for rows in ([truth, wrong_price, early], [early, wrong_price, truth]):
        clean = clean_candles(pd.concat(rows).sort_index(kind="stable"))
        same(clean, truth)
        assert counts(clean)["conflicting duplicates"] == 3
    clean = clean_candles(pd.concat([truth, truth]))
    same(clean, truth)
    assert (counts(clean)["duplicates"], counts(clean)["conflicting duplicates"]) == (200, 0)
    broken_twin = truth.iloc[[70]].assign(close=np.nan, volume=1e9)
    same(clean_candles(pd.concat([broken_twin, truth])), truth)


@pytest.mark.parametrize("rows", [slice(None), slice(100, None), slice(60, 120)], ids=["whole", "half", "stretch"])
def test_exchanged_open_and_close_are_refused(rows):
    truth = market()
    wrong = truth.copy()
    wrong.iloc[rows, [0, 3]] = truth.iloc[rows, [3, 0]].to_numpy()
    with pytest.raises(DataError, match="open and close are exchanged") as e:
        clean_candles(wrong)
    told = pd.Timestamp(e.value.found.split("from about ")[1])
    assert abs(told - truth.index[rows][0]) <= 8 * HOUR


def test_two_prices_in_turn_prove_nothing():
    rng = np.random.default_rng(0)
    ends = rng.choice([1.0, 1.0001], (60_000, 2))  # trades hit the bid or the ask, and nothing else happens
    table = market(60_000, "1min")[CANDLE_COLUMNS].assign(open=ends[:, 0], close=ends[:, 1], high=1.0001, low=1.0)
    assert len(clean_candles(table)) == 60_000


def test_few_candles_on_a_long_grid_need_the_timeframe():
    table = market(60_000, "1min")[CANDLE_COLUMNS].assign(**dict.fromkeys(PRICES, 5.0))
    rare = table.iloc[np.sort(np.r_[np.random.default_rng(0).choice(60_000, 200, replace=False), 5, 6, 90, 91])]
    rare = rare[~rare.index.duplicated()]
    with pytest.raises(DataError, match="pass `timeframe`"):
        clean_candles(rare)
    assert len(clean_candles(rare, "1m")) == len(rare)


def test_prices_in_single_precision_and_missing_volumes_are_sound():
    truth = market(3_000)
    single = truth.astype({"high": "float32", "low": "float32"}).astype("float64")
    assert len(clean_candles(single)) == 3_000
    unknown = truth.copy()
    unknown.iloc[:600, 4] = np.nan
    clean = clean_candles(unknown)
    assert len(clean) == 2_400 and counts(clean)["missing values"] == 600


def test_few_exchanged_candles_are_counted():
    truth = market()
    body = (truth["open"] / truth["close"] - 1).abs()
    row = int(np.flatnonzero(body > body.quantile(0.9))[5])
    wrong = truth.copy()
    wrong.iloc[row, [0, 3]] = truth.iloc[row, [3, 0]].to_numpy()
    wrong.iloc[100:108, [0, 3]] = truth.iloc[100:108, [3, 0]].to_numpy()
    assert counts(clean_candles(truth))["open and close exchanged"] == 0
    assert 3 <= counts(clean_candles(wrong))["open and close exchanged"] <= 9


@pytest.mark.data
def test_real_candles_contradict_nothing(shared_data):
    pairs = wrong = longest = 0
    jumps = []
    for path in _files(shared_data):
        candles = read_candles(path, clean=False)
        assert "unusable" not in set(validate_candles(candles)["check"]), path.name
        steps = np.diff(candles.index.as_unit("ns").asi8)
        beside = steps == np.median(steps)
        o, c = np.log(candles[["open", "close"]].to_numpy()).T
        right, crossed = np.abs(o[1:] - c[:-1])[beside], np.abs(c[1:] - o[:-1])[beside]
        votes = (crossed < right)[crossed != right]
        pairs, wrong = pairs + beside.sum(), wrong + votes.sum()
        longest = max(longest, np.convolve(votes, np.ones(48), "valid").max())
        jumps += np.exp(right[right > np.log(1.05)]).tolist()
    # what the notebooks of defects and contradictions say
    assert 4.4e6 < pairs < 4.5e6 and round(100 * wrong / pairs) == 1 and longest == 20
    assert round(max(jumps), 2) == 1.94 and sorted(jumps)[-2] < 1.07


def test_two_timeframes_are_refused():
    hours, quarters = market(100), market(300, "15min", "2024-04-03 09:00", seed=1)
    quarters.iloc[:, :4] *= hours["close"].iloc[-1] / 43000
    few = pd.concat([quarters.iloc[:30], hours.set_axis(quarters.index[29] + HOUR * np.arange(1, 101))])
    for table, message in ((pd.concat([hours, quarters]), "two timeframes"), (few, "off the time grid")):
        with pytest.raises(DataError, match=message):
            clean_candles(table)
    days = market(60, "1D", "2024-01-01")
    days = days[days.index.day_of_week < 5].iloc[:30]
    days.iloc[:, :4] *= 43000 / days["close"].iloc[-1]
    with pytest.raises(DataError, match="two timeframes(.|\n)*1 days"):  # steps of 1, 1, 1, 1, 3 days
        clean_candles(pd.concat([days, market(200, start=days.index[-1].tz_localize(None) + 24 * HOUR)]))
    gappy = market(2000, "15min").drop(market(2000, "15min").index[np.random.default_rng(0).random(2000) < 0.5])
    assert len(clean_candles(gappy)) == len(gappy)  # half of the candles missing at random: gaps


def test_more_than_a_share_of_wrong_rows_is_refused():
    truth = market(600)
    garbage = truth.copy()
    garbage.iloc[:587, 1] = truth["low"].iloc[:587] * 0.99
    spot, day = market(600, seed=0), truth.resample("1D").agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", **dict.fromkeys(truth.columns[4:], "sum")})
    perpetual = spot.assign(**{c: spot[c] * 1.001 for c in PRICES}, volume=spot["volume"] * 1.5)
    perpetual["quote_volume"] = perpetual["volume"] * perpetual["close"]
    without_clock = truth.set_axis(truth.index.normalize())
    for wrong in (garbage, pd.concat([spot, perpetual]), pd.concat([truth, day.iloc[1:-1]])):
        with pytest.raises(DataError, match="two series in one table, or wrong columns"):
            clean_candles(wrong, "1h")
    with pytest.raises(DataError, match="two series in one table, or wrong columns"):
        clean_candles(without_clock, "1d")
    assert len(clean_candles(garbage, max_wrong=1.0)) == 13
    # what programs write for candles that do not exist, and pictures of running candles, are no mistakes
    empty = truth.copy()
    empty.iloc[50:90] = 0.0
    empty.iloc[100:120, :4] = np.nan
    running = truth.iloc[200:300].assign(volume=lambda x: x["volume"] / 3, close=lambda x: x["open"])
    clean = clean_candles(pd.concat([empty, running]))
    assert len(clean) == 540 and counts(clean)["conflicting duplicates"] == 100


def test_the_first_candle_of_the_oldest_files():
    truth = market()
    first = truth.copy()
    first.iloc[0, [0, 1]] = 16_199.91 / 4_290 * truth["close"].iloc[0]
    clean = clean_candles(first)
    same(clean, truth.iloc[1:])
    assert counts(clean)[SPIKES] == 1
    alone = clean_candles(first.drop(columns="quote_volume"))  # without a witness it is noted
    assert len(alone) == 200 and counts(alone)["far from open to close"] == 1


def test_a_thin_last_candle_is_noted():
    truth = market()
    thin = truth.copy()
    thin.iloc[-1, truth.columns.get_loc("trades")] = 9.0
    assert (counts(clean_candles(truth))["thin last candle"], counts(clean_candles(thin))["thin last candle"]) == (0, 1)


def test_shifted_grids():
    truth = market(400, "1D", "2023-01-01")
    shifted = truth.set_axis(truth.index + pd.Timedelta("8h"))
    clean = clean_candles(shifted)
    assert len(clean) == 400 and counts(clean)["shifted time grid"] == 400
    for wrong in ("59min 59.999s", "59min 59s", "59min"):
        with pytest.raises(DataError, match="close times"):
            clean_candles(market().set_axis(market().index + pd.Timedelta(wrong)))
    half = market()
    half.index = half.index.where(np.arange(200) % 3 > 0, half.index + pd.Timedelta("20min"))
    with pytest.raises(DataError, match="off the time grid"):
        clean_candles(half, "1h")
    assert "unusable" in set(validate_candles(half, "1h")["check"])


def test_wrong_forms_are_refused():
    truth = market()
    for wrong, message in (
        (truth.iloc[:0], "no candles"), (truth.reset_index(), "not a time"), (truth.tz_localize(None), "no time zone"),
        (truth.drop(columns="low"), "missing column low"), ([1, 2], "must be a table"),
        (truth.astype(object).replace(truth["open"].iloc[7], "x"), "row [67]"),
        (truth[PRICES + ["volume"]] * np.nan, "no usable candle"),
    ):
        with pytest.raises(DataError, match=message):
            clean_candles(wrong)
    with pytest.raises(DataError, match="another timeframe"):
        clean_candles(truth, "15m")
    with pytest.raises(SettingsError):
        clean_candles(truth, "1M")


def test_every_check_is_listed_and_json_able():
    table = validate_candles(market())
    assert list(table.columns) == ["check", "count", "example", "action"]
    wanted = {
        "rows", "gaps", "duplicates", "unclosed last candle", "wrong order", "impossible OHLC", "non-positive prices",
        "zero volume", "unit changes", SPIKES, "missing values", "negative volume", "off-grid timestamps",
        "constant price", "long wicks",
    }
    assert wanted <= set(table["check"])
    assert not table.set_index("check")["count"].drop(["rows", "rows kept"]).any()
    json.dumps(clean_candles(market()).attrs)


def test_gap_views_agree_and_fingerprint_sees_everything():
    truth = market().drop(market().index[[5, 6, 90]])
    gaps, runs = find_gaps(truth), segments(truth.index, "1h")
    assert gaps["missing"].tolist() == [2, 1] and runs.max() == 2 and (np.bincount(runs) == [5, 83, 109]).all()
    assert gaps["start"].iloc[0] == market().index[5] and gaps["end"].iloc[0] == market().index[6]
    assert infer_timeframe(truth) == "1h"
    assert fingerprint(truth) == fingerprint(truth.set_axis(truth.index.as_unit("s"))) != fingerprint(market())


def test_resampling_refuses_and_drops():
    minutes = market(240 * 8, "15min", "2024-01-01 00:30")
    for wrong in ("5m", "1m"):
        with pytest.raises(SettingsError):
            resample_candles(minutes, wrong)
    with pytest.raises(SettingsError):
        resample_candles(resample_candles(minutes, "4h"), "6h")
    hours = resample_candles(minutes, "1h")
    assert hours.index[0] == pd.Timestamp("2024-01-01 01:00", tz="UTC") and hours.index[-1] + HOUR <= minutes.index[
        -1
    ] + pd.Timedelta("15min")
    assert (resample_candles(minutes, "1w").index.day_of_week == 0).all()
    assert resample_candles(hours, "1h").equals(hours)
    with pytest.raises(DataError, match="clean_candles"):
        resample_candles(minutes[::-1], "1h")


# ---------------------------------------------------------------- layouts

ALL = [*CANDLE_COLUMNS, "quote_volume", "trades", "taker_buy_volume"]


def ms(table):
    return table.index.as_unit("ns").asi8 // 10**6


def klines(table, factor=1, text=True):
    "Rows as an exchange sends them: 12 columns, prices as strings."
    step = table.index[1] - table.index[0]
    out = pd.DataFrame({"open_time": ms(table) * factor}, index=table.index)
    for c in CANDLE_COLUMNS:
        out[c] = table[c].map("{:.8f}".format) if text else table[c]
    out["close_time"] = ms(table) * factor + int(step / pd.Timedelta("1ms")) * factor - 1
    out["quote_volume"], out["trades"] = table["quote_volume"].map("{:.8f}".format), table["trades"].astype(int)
    out["taker_base"], out["taker_quote"], out["ignore"] = table["taker_buy_volume"].map("{:.8f}".format), "1.0", "0"
    return out


def csv_of(table, times, name="timestamp", columns=CANDLE_COLUMNS, rename=None, **options):
    "A CSV text with the given times in front."
    out = table[list(columns)].rename(columns=rename or {})
    out.insert(0, name, times)
    return out.to_csv(index=False, **options)


NAMES = {
    "archive": """open_time open high low close volume close_time quote_volume count taker_buy_volume
        taker_buy_quote_volume ignore""".split(),
    "spaced": [
        "Open time", "Open", "High", "Low", "Close", "Volume", "Close time", "Quote asset volume", "Number of trades",
        "Taker buy base asset volume", "Taker buy quote asset volume", "Ignore",
    ],
    "short": "timestamp open high low close volume close_time quote_av trades tb_base_av tb_quote_av ignore".split(),
    "camel": """openTime open high low close volume closeTime quoteAssetVolume numberOfTrades takerBuyBaseAssetVolume
        takerBuyQuoteAssetVolume ignore""".split(),
    "shout": """OPEN_TIME OPEN HIGH LOW CLOSE VOLUME CLOSE_TIME QUOTE_ASSET_VOLUME NUMBER_OF_TRADES TAKER_BASE_VOLUME
        TAKER_QUOTE_VOLUME IGNORE""".split(),
    "close first": """open_time open high low close volume close_time quote_volume trades taker_base_vol
        taker_quote_vol ignore""".split(),
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("factor", [1, 1000, 1_000_000])
def test_kline_headers(tmp_path, names, factor):
    truth = market()
    table = klines(truth, factor).set_axis(NAMES[names], axis=1)
    if names == "close first":
        table = table[[table.columns[6], *[c for c in table.columns if c != table.columns[6]]]]
    table.to_csv(tmp_path / "a.csv", index=False)
    same(read_candles(tmp_path / "a.csv"), truth, ALL)


def text_layouts():
    "name -> (truth, text of the file, ending, columns to compare)."
    t = market()
    day = market(300, "1D", "2023-05-20")
    out = {}

    def add(name, text, truth=t, ending="csv", columns=CANDLE_COLUMNS):
        out[name] = (truth, text, ending, columns)

    add("klines without header", klines(t).to_csv(index=False, header=False), columns=ALL)
    add("klines µs without header", klines(t, 1000).to_csv(index=False, header=False), columns=ALL)
    add("six numbers, seconds", csv_of(t, ms(t) // 1000, header=False))
    add("float seconds", csv_of(t, ms(t) / 1000))
    add("exponent seconds", csv_of(t, ["%.9e" % (x / 1000) for x in ms(t)]))
    add("letters", csv_of(t, ms(t), "t", rename={c: c[0] for c in CANDLE_COLUMNS}))
    add(
        "websocket klines",
        pd.DataFrame(
            {
                "t": ms(t), "T": ms(t) + 3599999, "s": "BTCUSDT", "i": "1h", "f": 1, "L": 2,
                **{c[0]: t[c].to_numpy() for c in PRICES}, "v": t["volume"].to_numpy(), "n": 5, "x": True,
                "q": t["quote_volume"].to_numpy(), "V": 1.0, "Q": 1.0, "B": 0,
            }
        ).to_csv(index=False),
        columns=[*CANDLE_COLUMNS, "quote_volume"],
    )
    add("iso with offset", csv_of(t, t.index.tz_convert("Asia/Tokyo").map(lambda x: x.isoformat()), "datetime"))
    add("iso with Z", csv_of(t, t.index.strftime("%Y-%m-%dT%H:%M:%S.000Z"), "Date"))
    add("hour and half", csv_of(t, t.index.strftime("%Y-%m-%d %I-%p"), "Date"))
    add("american", csv_of(t, t.index.strftime("%m/%d/%Y %I:%M:%S %p"), "Time"))
    add("american short", csv_of(t, [f"{x.month}/{x.day}/{x.year} {x.hour}:{x.minute:02}" for x in t.index], "Time"))
    add("european", csv_of(t, t.index.strftime("%d.%m.%Y %H:%M:%S.000"), "Gmt time", rename=str.capitalize))
    add(
        "european offset",
        csv_of(t, t.index.tz_convert("Etc/GMT-2").strftime("%d.%m.%Y %H:%M:%S.000 GMT+0200"), "Local time"),
    )
    add("days below 13 only", csv_of(day.iloc[12:24], day.index[12:24].strftime("%d/%m/%Y")), day.iloc[12:24])
    add("month names", csv_of(day, day.index.strftime("%b %d, %Y"), "Date"), day)
    add("day-month-year names", csv_of(day, day.index.strftime("%d-%b-%Y"), "Date"), day)
    add("compact days", csv_of(day, day.index.strftime("%Y%m%d"), "date"), day)
    add("compact minutes", csv_of(t, t.index.strftime("%Y%m%d%H%M"), "date"))
    add("compact with clock", csv_of(t, t.index.strftime("%Y%m%d %H%M%S"), "date", sep=";", header=False))
    add(
        "two time columns, tabs",
        csv_of(
            t.assign(TIME=t.index.strftime("%H:%M:%S"), vol=0, spread=1), t.index.strftime("%Y.%m.%d"), "<DATE>",
            ["TIME", *CANDLE_COLUMNS, "vol", "spread"],
            {"TIME": "<TIME>", "volume": "<TICKVOL>", "vol": "<VOL>", **{c: f"<{c.upper()}>" for c in PRICES}},
            sep="\t",
        ),
    )
    add(
        "two time columns, no header",
        csv_of(
            t.assign(TIME=t.index.strftime("%H:%M")), t.index.strftime("%Y.%m.%d"), columns=["TIME", *CANDLE_COLUMNS],
            header=False,
        ),
    )
    add(
        "two time columns of digits",
        csv_of(
            t.assign(time=t.index.strftime("%H%M%S")), t.index.strftime("%Y%m%d"), "date", ["time", *CANDLE_COLUMNS],
        ),
    )
    add(
        "day and time together",
        csv_of(
            t.assign(date=t.index.strftime("%Y-%m-%d")), t.index.strftime("%Y-%m-%d %H:%M"), "time",
            ["date", *CANDLE_COLUMNS],
        ),
    )
    banner = t[::-1]
    add(
        "banner, newest first",
        "https://www.example.com\n" + csv_of(
            banner.assign(s="BTC/USDT", d=banner.index.strftime("%Y-%m-%d %H:%M:%S")),
            np.where(np.arange(200) < 90, ms(banner), ms(banner) // 1000), "unix",
            ["d", "s", *CANDLE_COLUMNS, "quote_volume", "trades"],
            {"d": "date", "s": "symbol", "volume": "Volume BTC", "quote_volume": "Volume USDT", "trades": "tradecount"},
        ),
        columns=[*CANDLE_COLUMNS, "quote_volume", "trades"],
    )
    add(
        "banner, half days",
        "https://www.example.com\n" + csv_of(
            banner, banner.index.strftime("%Y-%m-%d %I-%p"), "Date", rename={"volume": "Volume BTC"},
        ),
    )
    add("three banner lines", "# made by a program\n# version 1.0, 2024\n\n" + csv_of(t, ms(t)) + "\n")
    add("comment before header", "#" + csv_of(t, ms(t), "time"))
    add("semicolons, decimal commas", csv_of(t, t.index.strftime("%d.%m.%Y %H:%M"), "Datum time", sep=";", decimal=","))
    grouped = t.copy().astype(object)
    for c in PRICES:
        grouped[c] = t[c].map("{:,.2f}".format)
    add("thousands", csv_of(grouped, t.index.strftime("%Y-%m-%d %H:%M")))
    european = grouped.map(
        lambda x: x.replace(",", "_").replace(".", ",").replace("_", ".") if isinstance(x, str)
        else str(x).replace(".", ",")
    )
    add("european thousands", csv_of(european, t.index.strftime("%d/%m/%Y %H:%M"), sep=";"))
    rounded = day.assign(volume=(day["volume"] * 100).round() * 10)
    add(
        "broker page",
        csv_of(
            grouped.set_axis(day.index[:200])[::-1].assign(
                volume=(rounded["volume"][:200][::-1] / 1000).map("{:.2f}K".format), pct="1.2%",
            ),
            day.index[:200][::-1].strftime("%b %d, %Y"), "Date", ["close", "open", "high", "low", "volume", "pct"],
            {"close": "Price", "open": "Open", "high": "High", "low": "Low", "volume": "Vol.", "pct": "Change %"},
            quoting=1,
        ),
        t.set_axis(day.index[:200]).assign(volume=rounded["volume"][:200].to_numpy()),
    )
    add("dollars", csv_of(grouped.assign(**{c: "$" + grouped[c] for c in PRICES}), ms(t)))
    caps = day.assign(
        o=day.index.strftime("%Y-%m-%dT00:00:00.000Z"), c=day.index.strftime("%Y-%m-%dT23:59:59.999Z"),
        h=day.index.strftime("%Y-%m-%dT13:12:00.000Z"),
    )
    add(
        "market cap page",
        csv_of(
            caps.assign(name="2781", cap=1e12, stamp=caps["c"]), caps["o"].to_numpy(), "timeOpen",
            ["c", "h", "name", *CANDLE_COLUMNS, "cap", "stamp"],
            {"c": "timeClose", "h": "timeHigh", "cap": "marketCap", "stamp": "timestamp"}, sep=";",
        ),
        day,
    )
    add(
        "adjusted close",
        csv_of(
            day.assign(adj=day["close"]), day.index.strftime("%Y-%m-%d"), "Date",
            ["open", "high", "low", "close", "adj", "volume"],
            {"adj": "Adj Close", **{c: c.capitalize() for c in CANDLE_COLUMNS}},
        ),
        day,
    )
    stack = csv_of(
        day, day.index.strftime("%Y-%m-%d"), "Date", ["close", "high", "low", "open", "volume"], header=False,
    )
    add(
        "three header lines",
        "Price,Close,High,Low,Open,Volume\nTicker,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD\nDate,,,,,\n" + stack, day,
    )
    add(
        "average price",
        csv_of(
            t.assign(w=(t["high"] + t["low"]) / 2), ms(t) // 1000, "Timestamp", [*CANDLE_COLUMNS, "quote_volume", "w"],
            {
                "volume": "Volume_(BTC)", "quote_volume": "Volume_(Currency)", "w": "Weighted_Price",
                **{c: c.capitalize() for c in PRICES},
            },
        ),
        columns=ALL[:6],
    )
    add(
        "average price, no header",
        csv_of(
            t.assign(w=((t["high"] + t["low"]) / 2).round(1)), ms(t) // 1000,
            columns=[*PRICES, "w", "volume", "trades"], header=False,
        ),
    )
    add(
        "numbered names",
        csv_of(
            t, t.index.strftime("%Y-%m-%d %H:%M:%S"), rename={c: f"{k}. {c}" for k, c in enumerate(CANDLE_COLUMNS, 1)},
        ),
    )
    add("names with the coin", csv_of(t, ms(t), "time", rename={c: f"BTCUSDT_{c}" for c in CANDLE_COLUMNS}))
    add(
        "from and to",
        csv_of(
            t, ms(t) // 1000, "time", ["high", "low", "open", "volume", "quote_volume", "close"],
            {"volume": "volumefrom", "quote_volume": "volumeto"},
        ),
        columns=ALL[:6],
    )
    ends = t.index + HOUR
    add(
        "periods",
        csv_of(
            t.assign(
                e=ends.strftime("%Y-%m-%dT%H:%M:%SZ"), a=(t.index + pd.Timedelta("3s")).strftime("%Y-%m-%dT%H:%M:%SZ"),
                z=(ends - pd.Timedelta("2s")).strftime("%Y-%m-%dT%H:%M:%SZ"),
            ),
            t.index.strftime("%Y-%m-%dT%H:%M:%SZ"), "time_period_start", ["e", "a", "z", *CANDLE_COLUMNS, "trades"],
            {
                "e": "time_period_end", "a": "time_open", "z": "time_close", "volume": "volume_traded",
                "trades": "trades_count", **{c: f"price_{c}" for c in PRICES},
            },
        ),
        columns=[*CANDLE_COLUMNS, "trades"],
    )
    add("only close times", csv_of(t, ms(t) + 3599999, "close_time"))
    minute = (t.index + pd.Timedelta("59min")).strftime("%Y-%m-%d %H:%M")
    add("only close times, no seconds", csv_of(t, minute, "close time"))
    add("only close times, next hour", csv_of(t, (t.index + HOUR).strftime("%Y-%m-%d %H:%M"), "Close time"))
    add("row numbers", t[CANDLE_COLUMNS].assign(timestamp=ms(t)).reset_index(drop=True).to_csv())
    add("index without a name", t[CANDLE_COLUMNS].rename_axis(None).to_csv())
    add("spaces", "\n".join(" ".join(map(str, r)) for r in csv_table(t)), ending="txt")
    add("spaces after commas", csv_of(t, ms(t)).replace(",", ", "))
    add("quoted", csv_of(t.astype(str), ms(t).astype(str), quoting=1))
    add("comma at the end", "\n".join(x + "," for x in csv_of(t, ms(t)).splitlines()))
    add("days of Excel", csv_of(t, (ms(t) / 86_400_000 + 25_569).round(5), "Date"))
    add("days of Excel, decimal commas", csv_of(t, ms(t) / 86_400_000 + 25_569, "Date", sep=";", decimal=","))
    add("days of Excel, no header", csv_of(t, ms(t) / 86_400_000 + 25_569, header=False))
    add("the years before 1990", csv_of(day, (old := day.set_axis(day.index - pd.Timedelta("14610D"))).index.strftime(
        "%Y-%m-%d"), "Date"), old)
    chinese = dict(zip(CANDLE_COLUMNS, ("开盘价", "最高价", "最低价", "收盘价", "成交量")))
    chinese["quote_volume"] = "成交额"
    add("Chinese", csv_of(t, t.index.strftime("%Y-%m-%d %H:%M:%S"), "时间", ALL[:6], chinese), columns=ALL[:6])
    german = dict(zip(CANDLE_COLUMNS, ("Eröffn.", "Hoch", "Tief", "Zuletzt", "Vol.")))
    add("German", csv_of(t, t.index.strftime("%d.%m.%Y %H:%M"), "Datum", rename=german, sep=";", decimal=","))
    add("old Macintosh lines", csv_of(t, ms(t)).replace("\n", "\r"))
    add("windows lines", csv_of(t, ms(t)).replace("\n", "\r\n") + "\r\n\r\n")
    half = csv_of(t, ms(t)).splitlines()
    add("heading repeated", "\n".join([*half[:80], half[0], *half[80:]]))
    add("glued shuffled halves", "\n".join([half[0], *half[120:], *half[1:130]]))
    add(
        "mixed ways of time",
        csv_of(
            t, [str(x) if k < 70 else x.isoformat() if k < 150 else str(x)[:19] for k, x in zip(range(200), t.index)],
        ),
    )
    add(
        "epoch then dates",
        csv_of(t, [str(m) if k < 70 else str(x)[:19] for k, (m, x) in enumerate(zip(ms(t), t.index))]),
    )
    add("bars", csv_of(t, ms(t), sep="|"))
    add(
        "upbit",
        csv_of(
            t.assign(
                kst=(t.index + 9 * HOUR).strftime("%Y-%m-%dT%H:%M:%S"),
                tick=ms(t) + np.random.default_rng(0).integers(10**6, 3 * 10**6, 200), unit=60,
            ),
            t.index.strftime("%Y-%m-%dT%H:%M:%S"), "candle_date_time_utc",
            ["kst", *PRICES, "tick", "quote_volume", "volume", "unit"],
            {
                "kst": "candle_date_time_kst", "tick": "timestamp", "open": "opening_price", "close": "trade_price",
                "high": "high_price", "low": "low_price", "quote_volume": "candle_acc_trade_price",
                "volume": "candle_acc_trade_volume",
            },
        ),
    )
    swapped = {"volume": "baseVolume", "quote_volume": "volume"}
    add("volumes under each other's names", csv_of(t, ms(t), columns=ALL[:6], rename=swapped), columns=ALL[:6])
    half = t.copy()
    half.iloc[90:, [4, 5]] = t.iloc[90:, [5, 4]].to_numpy()
    add("volumes exchanged half-way", csv_of(half, ms(t), columns=ALL[:6]), columns=ALL[:6])
    add("quote volume first, no header", csv_of(t, ms(t), columns=[*PRICES, "quote_volume", "volume"], header=False),
        columns=ALL[:6])
    records = [dict(zip(["time", *CANDLE_COLUMNS], r)) for r in csv_table(t)]
    columns = {k: [r[k] for r in records] for k in records[0]}
    text = [[str(v) for v in r] for r in klines(t).to_numpy().tolist()]
    rows = klines(t).to_numpy().tolist()
    by_time = {
        str(x)[:19]: {f"{k}. {c}": str(v[c]) for k, c in enumerate(CANDLE_COLUMNS, 1)}
        for x, (_, v) in zip(t.index, t.iterrows())
    }
    add("klines", json.dumps(rows), ending="json", columns=ALL)
    add("klines of strings, pretty", json.dumps(text, indent=1), ending="json", columns=ALL)
    for key in ("data", "result", "klines", "candles"):
        add(f"klines in {key}", json.dumps({"code": 0, key: rows}), ending="json", columns=ALL)
    add("records", json.dumps(records), ending="json")
    add("records in data", json.dumps({"ok": True, "data": {"symbol": "BTC", "items": records}}), ending="json")
    add("json lines", "\n".join(map(json.dumps, records)) + "\n", ending="jsonl")
    add("json lines of lists", "\n".join(map(json.dumps, rows)), ending="ndjson", columns=ALL)
    add(
        "header in the list", json.dumps([["time", *CANDLE_COLUMNS], *[list(r.values()) for r in records]]),
        ending="json",
    )
    add("columns of lists", json.dumps({"s": "ok", **{k[0]: v for k, v in columns.items()}}), ending="json")
    frame = pd.DataFrame(records)
    for orient in ("records", "split", "index", "columns", "table"):
        add(f"pandas {orient}", frame.to_json(orient=orient, double_precision=15), ending="json")
        if orient != "records":
            add(
                f"pandas time index {orient}",
                t[CANDLE_COLUMNS].to_json(orient=orient, double_precision=15, date_format="iso"), ending="json",
            )
            add(
                f"pandas epoch index {orient}",
                t[CANDLE_COLUMNS].set_axis(ms(t)).to_json(orient=orient, double_precision=15), ending="json",
            )
    add("pandas lines", frame.to_json(orient="records", lines=True), ending="json")
    add("series by time", json.dumps({"Meta Data": {"1": "x"}, "Time Series": by_time}), ending="json")
    add(
        "nested prices",
        json.dumps(
            [
                {"time": r["time"], "volume": r["volume"], "complete": True, "mid": {c[0]: r[c] for c in PRICES}}
                for r in records
            ]
        ),
        ending="json",
    )
    o, h, lo, c, v = (t[x].map(repr).tolist() for x in CANDLE_COLUMNS)
    q, s = t["quote_volume"].map(repr).tolist(), (ms(t) // 1000).tolist()
    add(
        "kraken",
        json.dumps(
            {"error": [], "result": {"XXBTZUSD": [list(r) for r in zip(s, o, h, lo, c, c, v, range(200))], "last": 5}}
        ),
        ending="json",
    )
    vwap = [repr(float((a + b) / 2)) for a, b in zip(t["high"], t["low"])]
    quiet = t.copy()
    quiet.iloc[::5, :4] = np.c_[[quiet["close"].shift(1, fill_value=43000.0).iloc[::5]] * 4].T
    quiet.iloc[::5, 4] = 0.0
    quiet["open"] = quiet["close"].shift(1, fill_value=43000.0)
    quiet["high"], quiet["low"] = quiet[PRICES].max(axis=1), quiet[PRICES].min(axis=1)
    fields = [quiet[k].map(repr).tolist() for k in PRICES]
    empty = [w if k % 5 else "0.0" for k, w in enumerate(vwap)]
    add(
        "kraken, empty candles", json.dumps({"result": {"XXBTZUSD": [
            list(r) for r in zip(s, *fields, empty, quiet["volume"].map(repr), range(200))]}}), quiet, "json",
    )
    add(
        "okx swap", json.dumps({"data": [list(r) for r in zip(
            map(str, ms(t)), o, h, lo, c, (t["volume"] * 100).map(repr), v, q, ["1"] * 200)][::-1]}),
        ending="json", columns=ALL[:6],
    )
    add(
        "htx swap", json.dumps({"data": [
            {"id": a, "vol": g * 1000, "count": 9, "open": b, "close": d, "low": e, "high": f, "amount": g,
             "trade_turnover": k} for a, b, d, e, f, g, k in zip(s, *(map(float, x) for x in (o, c, lo, h, v, q)))]}),
        ending="json", columns=ALL[:6],
    )
    more = t.assign(vol=0.02, c=7.5, h=3)
    add("columns with one letter, volatility", csv_of(more, ms(t), columns=[*CANDLE_COLUMNS, "vol", "c", "h"]))
    add("a comma in the volume only", csv_of(t.assign(volume=(day["volume"][:200] * 1000).astype(int).map(
        "{:,}".format).to_numpy()), ms(t)), t.assign(volume=(day["volume"][:200] * 1000).astype(int).to_numpy(float)))
    add(
        "okx",
        json.dumps(
            {"code": "0", "data": [list(r) for r in zip(map(str, ms(t)), o, h, lo, c, v, q, q, ["1"] * 200)][::-1]}
        ),
        ending="json",
    )
    add(
        "bybit",
        json.dumps(
            {"result": {"category": "spot", "list": [list(r) for r in zip(map(str, ms(t)), o, h, lo, c, v, q)][::-1]}}
        ),
        ending="json", columns=ALL[:6],
    )
    add(
        "kucoin", json.dumps({"data": [list(r) for r in zip(map(str, s), o, c, h, lo, v, q)][::-1]}), ending="json",
        columns=ALL[:6],
    )
    add(
        "htx", json.dumps({"ch": "market.btcusdt.kline.60min", "status": "ok", "data": [
            {"id": a, "open": b, "close": d, "low": e, "high": f, "amount": g, "vol": k, "count": 7}
            for a, b, d, e, f, g, k in zip(s, *(map(float, x) for x in (o, c, lo, h, v, q)))][::-1]}),
        ending="json", columns=ALL[:6],
    )
    add(
        "upbit reply", json.dumps([
            {"market": "KRW-BTC", "candle_date_time_utc": str(x)[:19].replace(" ", "T"),
             "candle_date_time_kst": str(x + 9 * HOUR)[:19].replace(" ", "T"), "opening_price": b, "high_price": d,
             "low_price": e, "trade_price": f, "timestamp": x.value // 10**6 + 3_599_999 - x.value // 10**9 % 977,
             "candle_acc_trade_price": g, "candle_acc_trade_volume": k, "unit": 60}
            for x, b, d, e, f, g, k in zip(t.index, *(map(float, y) for y in (o, h, lo, c, q, v)))][::-1]),
        ending="json",
    )
    add("coinbase", json.dumps([[x, *map(float, r)] for x, *r in zip(s, lo, h, o, c, v)][::-1]), ending="json")
    add("bitfinex", json.dumps([[x * 1000, *map(float, r)] for x, *r in zip(s, o, c, h, lo, v)]), ending="json")
    add("gate", json.dumps([[str(x), *r, "true"] for x, *r in zip(s, q, c, h, lo, o, v)]), ending="json")
    add(
        "bitstamp",
        json.dumps(
            {
                "data": {
                    "pair": "BTC/USD",
                    "ohlc": [dict(zip(["timestamp", *CANDLE_COLUMNS], map(str, r))) for r in zip(s, o, h, lo, c, v)],
                }
            }
        ),
        ending="json",
    )
    return out


def csv_table(table):
    "Rows of epoch ms and the five numbers."
    return [[int(m), *map(float, r)] for m, r in zip(ms(table), table[CANDLE_COLUMNS].to_numpy())]


LAYOUTS = text_layouts()


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_text(tmp_path, name):
    truth, text, ending, columns = LAYOUTS[name]
    path = tmp_path / f"candles.{ending}"
    path.write_text(text, encoding="utf-8", newline="")
    got = read_candles(path)
    same(got, truth, columns)
    assert got.attrs["path"] == str(path) and got.attrs["timeframe"] in ("1h", "1d")
    json.dumps(got.attrs)
    assert len(read_candles(path, clean=False)) >= len(truth)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path, encoding):
    text = "générée à 5 h\n" + csv_of(market(), ms(market()))
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    same(read_candles(tmp_path / "a.csv"), market())


@pytest.mark.parametrize("ending,pack", {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.items())
def test_packed(tmp_path, ending, pack):
    truth = market()
    (tmp_path / f"a.csv{ending}").write_bytes(pack(csv_of(truth, ms(truth)).encode()))
    (tmp_path / f"a.JSON{ending}").write_bytes(pack(json.dumps(csv_table(truth)).encode()))
    for path in tmp_path.iterdir():
        same(read_candles(path), truth)


def test_zip(tmp_path):
    truth = market()
    with zipfile.ZipFile(tmp_path / "BTCUSDT-1h.zip", "w") as z:
        z.writestr("deep/BTCUSDT-1h.csv", klines(truth).to_csv(index=False, header=False))
        z.writestr("BTCUSDT-1h.csv.CHECKSUM", "abc")
        z.writestr("__MACOSX/BTCUSDT-1h.csv", "x")
    same(read_candles(tmp_path / "BTCUSDT-1h.zip"), truth, ALL)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as z:
        z.writestr("a.csv", "x")
        z.writestr("b.csv", "x")
    with pytest.raises(DataError, match="one candle file"):
        read_candles(tmp_path / "two.zip")


def test_parquet_and_feather(tmp_path):
    truth = market()
    plain = truth[CANDLE_COLUMNS]
    tables = {
        "index": plain, "index_ms": plain.set_axis(plain.index.as_unit("ms")),
        "index_us": plain.set_axis(plain.index.as_unit("us")), "no_name": plain.rename_axis(None),
        "naive": plain.tz_localize(None), "zone": plain.tz_convert("Europe/Berlin"), "column": plain.reset_index(),
        "freqtrade": plain.reset_index(names="date"), "epoch": plain.reset_index(drop=True).assign(time=ms(truth)),
        "strings": plain.astype(str).assign(ts=truth.index.strftime("%Y-%m-%d %H:%M:%S")).reset_index(drop=True),
        "symbol": plain.reset_index().assign(symbol=pd.Categorical(["BTCUSDT"] * 200)),
        "small": plain.astype({"volume": "float32"}), "nullable": plain.reset_index().convert_dtypes(),
        "upper": plain.reset_index().rename(columns=str.upper),
        "tuples": plain.set_axis(pd.MultiIndex.from_product([CANDLE_COLUMNS, ["BTC-USD"]]), axis=1),
    }
    for name, table in tables.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
        got = read_candles(tmp_path / f"{name}.parquet")
        same(got, truth.assign(volume=truth["volume"].astype("float32")) if name == "small" else truth)
        if isinstance(table.index, pd.RangeIndex):
            table.to_feather(tmp_path / f"{name}.feather")
            same(read_candles(tmp_path / f"{name}.feather"), truth)


def test_workbooks(tmp_path):
    truth = market()
    book = truth[CANDLE_COLUMNS].reset_index().assign(open_time=truth.index.tz_localize(None))
    with pd.ExcelWriter(tmp_path / "a.xlsx", engine="openpyxl") as writer:
        book.to_excel(writer, index=False, startrow=2)
        pd.DataFrame({"note": ["another sheet"]}).to_excel(writer, sheet_name="notes")
    same(read_candles(tmp_path / "a.xlsx"), truth)
    with pytest.raises(DataError, match="more than it may"):
        read_candles(tmp_path / "a.xlsx", max_unpacked=20_000)


def test_bytes_and_encodings_of_other_countries(tmp_path):
    truth = market()
    table = truth[CANDLE_COLUMNS].astype(str).assign(ts=truth.index.strftime("%Y-%m-%d %H:%M")).reset_index(drop=True)
    table.map(str.encode).to_parquet(tmp_path / "a.parquet")
    same(read_candles(tmp_path / "a.parquet"), truth)
    for encoding, names in (
        ("gb18030", "时间 开盘价 最高价 最低价 收盘价 成交量"), ("cp949", "일시 시가 고가 저가 종가 거래량"),
        ("shift_jis", "日時 始値 高値 安値 終値 出来高"), ("cp1251", "Время Открытие Максимум Минимум Закрытие Объём"),
    ):
        time_name, *others = names.split()
        rename = dict(zip(CANDLE_COLUMNS, others))
        text = csv_of(truth, truth.index.strftime("%Y-%m-%d %H:%M"), time_name, rename=rename)
        (tmp_path / "a.csv").write_bytes(text.encode(encoding))
        same(read_candles(tmp_path / "a.csv"), truth)


@pytest.mark.parametrize("ending,pack", {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.items())
def test_what_unpacks_to_too_much_is_refused(tmp_path, ending, pack):
    path = tmp_path / f"a.csv{ending}"
    text = csv_of(market(), ms(market())).encode()
    path.write_bytes(pack(text + b"\n" * (80 << 20)))
    with pytest.raises(DataError, match="unpacks to more than it may(.|\n)*64 MiB"):
        read_candles(path)
    path.write_bytes(pack(text))
    with pytest.raises(DataError, match="unpacks to more"):
        read_candles(path, max_unpacked=len(text) - 1)
    same(read_candles(path, max_unpacked=len(text)), market())


def test_a_zip_and_a_parquet_that_unpack_to_too_much(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("a.csv", b"1" * (80 << 20))
    pd.DataFrame({c: np.zeros(300_000) for c in CANDLE_COLUMNS}).to_parquet(tmp_path / "a.parquet")
    for name, limit in (("a.zip", 4 << 30), ("a.parquet", 10 << 20)):
        with pytest.raises(DataError, match="unpacks to more"):
            read_candles(tmp_path / name, max_unpacked=limit)


def test_volumes_are_put_in_their_places_and_counted(tmp_path):
    for name, count in (("volumes under each other's names", 200), ("volumes exchanged half-way", 110), ("htx", 200)):
        truth, text, ending, columns = LAYOUTS[name]
        (tmp_path / f"a.{ending}").write_text(text)
        found = read_candles(tmp_path / f"a.{ending}")
        same(found, truth, columns)
        assert counts(found)["volumes exchanged"] == count
    truth = market()
    lines = csv_of(truth.rename(columns={"volume": "quote_volume", "quote_volume": "volume"}), ms(truth), columns=[
        *PRICES, "quote_volume", "volume"]).splitlines()
    lines[1:1] = [lines[0], lines[0]]  # repeated headings: the line of the file is named all the same
    (tmp_path / "a.csv").write_text("\n".join(lines))
    account = quality_table(read_candles(tmp_path / "a.csv")).set_index("check")
    assert "line 4" in account.loc["volumes exchanged", "example"]
    wrong = truth.assign(taker_buy_volume=truth["quote_volume"] / 2)
    (tmp_path / "a.csv").write_text(csv_of(wrong, ms(truth), columns=ALL))
    found = read_candles(tmp_path / "a.csv")
    assert "taker_buy_volume" not in found and counts(found)["taker volume not used"] == 1


def test_a_list_as_the_name_of_a_column_is_no_crash(tmp_path):
    rows = [[m, 5, 6, 4, 5.5, 1] for m in ms(market())[:3].tolist()]
    reply = {"columns": [["t"], "open", "high", "low", "close", "volume"], "data": rows}
    (tmp_path / "a.json").write_text(json.dumps(reply))
    assert read_candles(tmp_path / "a.json")["close"].tolist() == [5.5] * 3


@pytest.mark.data
def test_files_that_prove_their_own_mistake(shared_data):
    got = read_candles(shared_data / "raw" / "BTC_USDT_1h_ccxt_basevolume.csv")
    paid = (got["quote_volume"] / got["volume"])[got["volume"] > 0]
    assert (paid.between(got["low"].min(), got["high"].max())).all() and counts(got)["volumes exchanged"] > 3000
    with pytest.raises(DataError, match="close times(.|\n)*`close_time`"):
        read_candles(shared_data / "raw" / "coin_Bitcoin_close_time_1d.csv")


def test_units_that_change_inside_a_file_are_counted(tmp_path):
    truth = market()
    for factor in (0.001, 1000, 1_000_000):
        times = np.where(np.arange(200) < 150, ms(truth), ms(truth) * factor).astype("int64")
        (tmp_path / "a.csv").write_text(csv_of(truth, times))
        got = read_candles(tmp_path / "a.csv")
        same(got, truth)
        line = quality_table(got).set_index("check").loc["unit changes"]
        assert line["count"] == 50 and "line 152" in line["example"]


def test_running_candles_are_recognised(tmp_path):
    truth = market(199, start="2024-03-30 18:00")  # ends with the first hour of a day
    newest = truth[::-1]
    assert newest.index[0].hour == 0
    files = {
        "download.csv": "https://www.example.com\n" + csv_of(newest, newest.index.strftime("%Y-%m-%d %I-%p"), "date"),
        "flag.csv": csv_of(truth.assign(confirm=[1] * 198 + [0]), ms(truth), columns=[*CANDLE_COLUMNS, "confirm"]),
        "early.csv": csv_of(
            truth.assign(close_time=np.r_[ms(truth)[:-1] + 3599999, ms(truth)[-1] + 600000]), ms(truth),
            columns=[*CANDLE_COLUMNS, "close_time"],
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        got = read_candles(tmp_path / name)
        same(got, truth.iloc[:-1])
        assert counts(got)["unclosed last candle"] == 1
        assert counts(clean_candles(read_candles(tmp_path / name, clean=False)))["unclosed last candle"] == 1
    o, h, lo, c, v = (truth[x].map(repr).tolist() for x in CANDLE_COLUMNS)
    rows = [[str(m), *x, f] for m, *x, f in zip(ms(truth) // 1000, o, h, lo, c, v, ["true"] * 198 + ["false"])]
    for name, order in (("okx.json", slice(None, None, -1)), ("gate.json", slice(None))):
        (tmp_path / name).write_text(json.dumps(rows[order]))
        same(read_candles(tmp_path / name), truth.iloc[:-1])
    now = pd.Timestamp.now("UTC").floor("1h")
    fresh = market(200, start=now.tz_localize(None) - 199 * HOUR)
    (tmp_path / "fresh.csv").write_text(csv_of(fresh, ms(fresh)))
    assert len(read_candles(tmp_path / "fresh.csv")) == 199


def test_file_order_is_kept_without_cleaning(tmp_path):
    truth = market()
    bad = pd.concat([truth[::-1], truth.iloc[[5]]])
    bad.iloc[3, 3] = np.nan
    (tmp_path / "a.csv").write_text(csv_of(bad, ms(bad)))
    got = read_candles(tmp_path / "a.csv", clean=False)
    assert got.index.equals(bad.index) and np.isnan(got["close"].iloc[3]) and len(got) == 201
    clean = clean_candles(got)
    assert len(clean) == 199 and (
        counts(clean)["missing values"],
        counts(clean)["duplicates"],
        counts(clean)["wrong order"],
    ) == (1, 1, 199)


def test_a_download_that_broke_off(tmp_path):
    truth = market()
    text = csv_of(truth, truth.index.strftime("%Y-%m-%d %H:%M:%S"))
    for cut in range(5, 60, 3):
        (tmp_path / "a.csv").write_text(text[:-cut])
        got = read_candles(tmp_path / "a.csv")
        assert len(got) in (198, 199, 200) and (got.index[:198] == truth.index[:198]).all()
        np.testing.assert_array_equal(got[PRICES].iloc[:198], truth[PRICES].iloc[:198])


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1234567\n"


def bad_files():
    t = market(30)
    base, cells = csv_of(t, ms(t)).splitlines(), t.astype(object)

    def text(row, column, value):
        table = cells.copy()
        table.iloc[row, table.columns.get_loc(column)] = value
        return csv_of(table, ms(t))

    two = pd.concat([t.assign(symbol="BTCUSDT"), t.assign(symbol="ETHUSDT")])
    time_text = base.copy()
    time_text[9] = "yesterday," + time_text[9].split(",", 1)[1]
    wide = base.copy()
    wide[20] += ",1,2,3"
    return {
        "empty.csv": ("", "empty"), "blank.csv": ("\n\n \n", "empty|no rows"),
        "header.csv": (base[0] + "\n", "no rows"),
        "text.csv": (text(15, "close", "abc"), "line 17.*close.*\n.*\n.*abc"),
        "volume.csv": (text(4, "volume", "much"), "line 6.*volume"),
        "time.csv": ("\n".join(time_text), "line 10.*timestamp(.|\n)*yesterday"),
        "wide.csv": ("\n".join(wide), "line 21"),
        **{
            f"no_{c}.csv": (csv_of(t, ms(t), columns=[k for k in CANDLE_COLUMNS if k != c]), f"missing column `{c}`")
            for c in CANDLE_COLUMNS
        },
        "no_time.csv": (t[CANDLE_COLUMNS].to_csv(index=False), "missing column with times"),
        "prose.csv": ("hello world\nthis is no table\n", "no rows"),
        "page.csv": ("<!DOCTYPE html><html><body>404: Not Found</body></html>", "no rows"),
        "two.csv": (csv_of(two, ms(two), columns=[*CANDLE_COLUMNS, "symbol"]), "BTCUSDT, ETHUSDT"),
        "tic.csv": (
            csv_of(two.rename(columns={"symbol": "tic"}), ms(two), columns=[*CANDLE_COLUMNS, "tic"]), "several markets",
        ),
        "wide_markets.csv": (
            csv_of(
                t.assign(**{f"ETH_{c}": t[c] for c in CANDLE_COLUMNS}), ms(t),
                columns=[*CANDLE_COLUMNS, *[f"ETH_{c}" for c in CANDLE_COLUMNS]],
                rename={c: f"BTC_{c}" for c in CANDLE_COLUMNS},
            ),
            "several columns could be",
        ),
        "ambiguous.csv": (csv_of(t.iloc[:20], t.index[:20].strftime("03/04/2024 %H:%M")), "told apart"),
        "contradiction.csv": (csv_of(t.iloc[:2], ["13/04/2024", "04/14/2024"]), "between day first and month first"),
        "commas.csv": (csv_of(t.assign(**{c: "43,210" for c in CANDLE_COLUMNS}), ms(t), sep=";"), "two ways"),
        "numbers.csv": ("1,2,3,4\n2,3,4,5\n", "no header|missing column"),
        "noise.csv": (
            "\n".join(
                f"{m},{a},{b},{c},{d},{e}"
                for m, (a, b, c, d, e) in zip(ms(t), np.random.default_rng(0).lognormal(5, 3, (30, 5)).round(3))
            ),
            "no four columns",
        ),
        "old.csv": (csv_of(t, np.arange(30)), "missing column with times|not a time"),
        "cut.json": (json.dumps(csv_table(t))[:-9], "truncated"),
        "cut.jsonl": ("\n".join(json.dumps(r) for r in csv_table(t))[:-9], "line 30"),
        "other.json": ('{"code": -1121, "msg": "Invalid symbol."}', "no candles"), "list.json": ("[]", "no candles"),
        "coins.json": (json.dumps({"BTC": csv_table(t), "ETH": csv_table(t)}), "several tables"),
        "book.xlsx": ("PK", "cannot be read as xlsx"), "book.xls": ("PK", "unknown file ending"),
        "noending": ("x", "unknown file ending"),
        "cut.parquet": ("PAR1xxxx", "cannot be read as parquet"),
        "cut.feather": ("ARROW1xx", "cannot be read as feather"), "cut.csv.gz": ("\x1f\x8b", "unpacked"),
        "cut.zip": ("PK\x03\x04", "unpacked"), "binary.csv": ("".join(map(chr, range(256))) * 9, "binary"),
        "zero.csv": ("\0" * 500, "binary"),
        "pointer.csv": (POINTER, "pointer of Git LFS(.|\n)*git lfs pull"),
        "pointer.parquet": (POINTER, "pointer of Git LFS"),
        "annex.csv": ("/annex/objects/SHA256E-s123--4d7a2146.csv\n", "pointer of git-annex"),
        "long.csv": ("time,open,high,low,close,volume," + "x" * 200_000 + "\n1,2\n", "line 1 is too long"),
        "deep.json": ("[" * 100_000 + "]" * 100_000, "JSON"),
        "digits.json": ("[[" + "9" * 5000 + ",1,2,3,4,5]]", "JSON"),
        "no_year.csv": (csv_of(t, t.index.strftime("%m-%d %H:%M")), "with times(.|\n)*with their year"),
        "no_year_dashes.csv": (csv_of(t, t.index.strftime("%m-%d-%H-%M")), "with times(.|\n)*with their year"),
        "no_year_slashes.csv": (csv_of(t, t.index.strftime("%m/%d/%H")), "without a year"),
        "no_year_name.csv": (csv_of(t, t.index.strftime("%d %b %H:%M")), "with times(.|\n)*with their year"),
        "two_volumes.csv": ("time,open,high,low,close,volume,volume\n" + "\n".join(
            f"{m},1,2,1,2,3,4" for m in ms(t)), "several columns could be `volume`"),
        "second_heading.csv": ("\n".join([*base[:20], "timestamp,open,high,low,volume,close", *base[20:]]),
                               "line 21: a second heading names other columns"),
        **{f"zone_{k}.csv": (csv_of(t, t.index.strftime("%Y-%m-%d %H:%M"), name), "local times without a zone")
           for k, name in enumerate(("Date (KST)", "time_et", "Time (UTC+8)", "日時(JST)", "时间(北京时间)"))},
        "zone_column.csv": (csv_of(t.assign(timezone="Asia/Seoul"), t.index.strftime("%Y-%m-%d %H:%M"), "datetime",
                                   [*CANDLE_COLUMNS, "timezone"]), "local times(.|\n)*Asia/Seoul"),
        "zone_value.csv": (csv_of(t, t.index.strftime("%Y-%m-%d %H:%M (KST)")), "with times"),
        "normalised.csv": (csv_of(t, ms(t), rename={c: f"{c}_norm" for c in PRICES}), "missing column `open`"),
        **{f"{name}.csv": (csv_of(t, ms(t), rename={"volume": name}), "missing column `volume`")
           for name in ("volume_24h", "cum_volume", "volume_mln", "volume_zscore")},
        "one_day.csv": (csv_of(t.iloc[:3], t.index[:3].strftime("%y-%m-02 %H:%M")), "year cannot be told"),
        "open_at_59.csv": (csv_of(t, (t.index + pd.Timedelta("59min")).strftime("%Y-%m-%d %H:%M")), "close times"),
    }


BAD = bad_files()


@pytest.mark.parametrize("name", BAD)
def test_bad_files_name_file_place_and_remedy(tmp_path, name):
    text, message = BAD[name]
    (tmp_path / name).write_bytes(text.encode("utf-8" if max(map(ord, text), default=0) > 255 else "latin-1"))
    with pytest.raises(DataError, match=message) as e:
        read_candles(tmp_path / name)
    assert name in str(e.value) and "what to do" in str(e.value)


def test_damaged_binary_files(tmp_path):
    truth = market()[CANDLE_COLUMNS].reset_index()
    for ending, write in ((".parquet", truth.to_parquet), (".feather", truth.to_feather)):
        write(tmp_path / f"good{ending}")
        data = (tmp_path / f"good{ending}").read_bytes()
        (tmp_path / f"cut{ending}").write_bytes(data[: len(data) // 2])
        (tmp_path / f"text{ending}").write_text("time,open")
        (tmp_path / f"named{ending}.csv").write_bytes(data)
        for name in (f"cut{ending}", f"text{ending}", f"named{ending}.csv"):
            with pytest.raises(DataError, match=name):
                read_candles(tmp_path / name)
    for name in ("nothing.csv", "."):
        with pytest.raises(DataError, match="does not exist|is a folder"):
            read_candles(tmp_path / name)
    pd.DataFrame({"timestamp": [], "open": []}).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="no rows"):
        read_candles(tmp_path / "none.parquet")


def test_timeframe_asked_for(tmp_path):
    truth = market()
    path = tmp_path / "a.csv"
    path.write_text(csv_of(truth, ms(truth)))
    same(read_candles(path, "1H"), truth)
    with pytest.raises(DataError, match="another timeframe"):
        read_candles(path, "15m")
    with pytest.raises(SettingsError):
        read_candles(path, "1M")
    one = tmp_path / "BTCUSDT_4h.csv"
    one.write_text(csv_of(truth.iloc[3:4], ms(truth)[3:4]))
    assert read_candles(one).attrs["timeframe"] == "4h"
    path.write_text(one.read_text())
    with pytest.raises(DataError, match="timeframe"):
        read_candles(path)
    assert len(read_candles(path, "1h")) == 1


def test_a_million_rows_are_fast(tmp_path):
    n = 200_000
    truth = market(n, "1min", "2021-01-01")
    path = tmp_path / "big.csv"
    klines(truth, text=False).to_csv(path, index=False, header=False)
    start = time.perf_counter()
    same(read_candles(path), truth)
    assert time.perf_counter() - start < 10  # about 0.4 s on an idle core
