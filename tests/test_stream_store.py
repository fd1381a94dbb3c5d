"""One definition, three uses: whole tables, pieces, single candles; and the store on disk."""
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.data.market import sample_market
from cryptolab.features.registry import FeatureSet, feature_inputs, feature_set, features, run_block
from cryptolab.features.store import build_store, candle_pieces, read_store
from cryptolab.features.stream import FeatureStream, features_in_pieces, settling_time

SETS = ("v9", "v9_published", "v2", "hybrid", "v3", "ultimate")


def read(folder, name):
    table = pd.read_parquet(folder / f"{name}.parquet").set_index("timestamp").rename_axis("open_time")
    table = table[["open", "high", "low", "close", "volume"]].astype("float64")
    table.attrs = dict(zip(("symbol", "timeframe"), name.split("_")))
    return table


def distance(a, b):
    "Largest difference of each column in its standard deviations; holes must be the same."
    pd.testing.assert_frame_equal(a.isna(), b.isna(), check_freq=False)
    return ((a - b).abs().max() / b.std().clip(lower=1e-12)).fillna(0.0)


@pytest.mark.parametrize("name", SETS)
def test_pieces_give_the_whole(name):
    candles = sample_market(n=2_400, seed=11)
    rng = np.random.default_rng(0)
    cuts = sorted({1, 2, 3, 59, 60, *rng.integers(1, 2_400, 12).tolist()})
    far = distance(features_in_pieces(candles, name, cuts, dtype="float64"), features(candles, name, dtype="float64"))
    assert far.max() < 1e-6, far.nlargest(3)


@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_a_stream_from_a_tail_equals_the_table_on_real_candles(name, shared_data):
    candles = read(shared_data, "BTCUSDT_1h")
    stream = FeatureStream(name, dtype="float64")
    start, stop = 30_000, 30_120
    assert stream.needed < 20_000
    history = features(candles.iloc[:stop], name, dtype="float64")
    values = {column: history[column].iloc[start - 1] for column in stream.never}
    stream.start(candles.iloc[start - stream.needed : start], values=values)
    rows = pd.DataFrame(
        [stream.update(candle) for candle in candles.iloc[start:stop].itertuples()], columns=history.columns,
    )
    wrong = (rows - history.iloc[start:]).abs().max() / history.std()
    assert wrong.max() < 1e-6, wrong.nlargest(5)


def test_only_obv_never_forgets():
    assert FeatureStream("v9_published").never == ["obv"]
    for name in ("v9", "hybrid", "v3", "ultimate"):
        assert FeatureStream(name).never == []


def test_a_long_table_equals_one_computed_at_once():
    candles = sample_market(n=70_000, timeframe="15m", seed=5)
    found = feature_set("v9")
    x, at_once = feature_inputs(candles), {}
    for block in found.blocks:
        run_block(block, x, at_once.__setitem__)
    table = features(candles, "v9", dtype="float64", threads=2)
    assert distance(table, pd.DataFrame(at_once, index=candles.index)[found.names]).max() < 1e-9
    for cut in (32_767, 32_768, 32_769, 65_540):
        pd.testing.assert_frame_equal(
            features(candles.iloc[:cut], "v9", dtype="float64", threads=1), table.iloc[:cut], check_exact=True,
        )


def test_code_that_needs_the_whole_table_gets_it_and_is_not_streamed():
    own = FeatureSet("own")

    @own.block("price", "path | cumulative return | ∞ | 1 | log", pieces=False)
    def path(x):
        yield "path", np.cumsum(np.log(x.close / x.open))

    candles = sample_market(n=40_000)
    np.testing.assert_allclose(
        features(candles, own, dtype="float64")["path"], np.log(candles.close / candles.open).cumsum(), atol=1e-9,
    )
    with pytest.raises(SettingsError, match="cannot be computed in pieces"):
        FeatureStream(own).extend(candles)


def test_settling_time_is_measured():
    memory = settling_time("v9")
    assert memory["sma_50_ratio"] == 49 and memory["body"] == 0 and 190 < memory["atr_ratio"] < 400


@pytest.mark.parametrize("change, message", [
    (lambda c: {**c, "close": -1.0}, "`close`"),
    (lambda c: {**c, "volume": np.nan}, "`volume`"),
    (lambda c: {k: v for k, v in c.items() if k != "open_time"}, "no open_time"),
    (lambda c: {**c, "open_time": c["open_time"].tz_localize(None)}, "no zone"),
    (lambda c: {**c, "open_time": c["open_time"] - pd.Timedelta("1h")}, "does not continue"),
])
def test_a_bad_candle_is_refused_and_leaves_the_stream_as_it_was(change, message):
    candles = sample_market(n=500)
    stream = FeatureStream("v9").start(candles.iloc[:400])
    record = lambda i: {"open_time": candles.index[i], **candles.iloc[i].to_dict()}
    with pytest.raises(DataError, match=message):
        stream.update(change(record(400)))
    np.testing.assert_allclose(stream.update(record(400)), features(candles, "v9").iloc[400], atol=1e-5)


def test_gaps_are_counted():
    candles = sample_market(n=500)
    stream = FeatureStream("v9").start(candles.iloc[:300])
    stream.update(next(candles.iloc[305:306].itertuples()))
    assert stream.gaps == 1
    stream.extend(candles.iloc[[306, 307, 320]])
    assert stream.gaps == 2


# ---- store

def test_a_store_of_a_parquet_file(tmp_path):
    candles = sample_market(n=2_000)
    candles.rename_axis("timestamp").reset_index().to_parquet(tmp_path / "candles.parquet")
    manifest = build_store(
        tmp_path / "candles.parquet", tmp_path / "store", "v9", symbol="BTCUSDT", timeframe="1h", rows=700, log=None,
    )
    assert [part["rows"] for part in manifest["parts"]] == [700, 700, 600]
    assert manifest["nan"]["rsi_14"] == 13 and manifest["rows"] == 2_000 and manifest["symbol"] == "BTCUSDT"
    assert distance(read_store(tmp_path / "store"), features(candles, "v9")).max() < 1e-6


KILLED = """
import sys, time
from cryptolab.data.market import sample_market
from cryptolab.features.store import build_store, candle_pieces
def slow(candles):
    for i, piece in enumerate(candle_pieces(candles, 500)):
        if i == 3:
            print("three parts", flush=True)
            time.sleep(60)
        yield piece
build_store(slow(sample_market(n=2_500)), sys.argv[1], rows=500, log=None)
"""


def test_a_killed_build_goes_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True,
    )
    assert process.stdout.readline().strip() == "three parts"
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "store").glob("part-*.parquet")}
    assert len(before) == 3
    with pytest.raises(DataError, match="unfinished"):
        read_store(tmp_path / "store")
    candles, lines = sample_market(n=2_500), []
    build_store(candles, tmp_path / "store", rows=500, log=lines.append)
    assert len(lines) == 2, "only what was missing is computed"
    assert before == {name: (tmp_path / "store" / name).stat().st_mtime_ns for name in before}
    assert distance(read_store(tmp_path / "store"), features(candles, "v9")).max() < 1e-6
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == [
        "manifest.json", *(f"part-000{i}.parquet" for i in range(5)),
    ]


def test_an_unfinished_store_is_not_continued_with_something_else(tmp_path):
    candles = sample_market(n=2_000)

    def broken():
        yield from list(candle_pieces(candles, 500))[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(broken(), tmp_path / "store", rows=500, log=None)
    with pytest.raises(DataError, match="something else"):
        build_store(candles, tmp_path / "store", "v9_published", rows=500, log=None)
    with pytest.raises(DataError, match="other candles"):
        build_store(candles * 1.1, tmp_path / "store", rows=500, log=None)


def test_a_damaged_store_is_not_read(tmp_path):
    build_store(sample_market(n=1_000), tmp_path / "store", rows=500, log=None)
    (tmp_path / "store" / "part-0001.parquet").unlink()
    with pytest.raises(ModelError, match="is missing"):
        read_store(tmp_path / "store")
    assert len(read_store(tmp_path / "store", end=sample_market(n=1_000).index[400])) == 400, (
        "parts that are not needed are not opened"
    )
    with pytest.raises(DataError, match="no column `rsi`"):
        read_store(tmp_path / "store", ["rsi"])
    with pytest.raises(DataError, match="no candles to store"):
        build_store([], tmp_path / "empty")
