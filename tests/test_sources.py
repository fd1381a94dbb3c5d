"Candles from files, hub, exchange and sample market: names, repairs, errors, resumption."
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import CryptolabError, DataError, SettingsError, SourceError
from cryptolab.data import (
    find_candle_file, load_candles, load_exchange, load_hub, market_truth, read_candles, sample_market,
)
from cryptolab.data.hub import HUB_SYMBOLS, hub_files

HOUR = 3_600_000
T0 = 1_704_067_200_000  # 2024-01-01 00:00 UTC in milliseconds


def made_up(n=60, freq="1h", start="2024-01-01"):
    "A sound table of candles."
    rng = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    opens = np.r_[100.0, close[:-1]]
    index = pd.date_range(start, periods=n, freq=freq, tz="UTC", name="open_time")
    return pd.DataFrame(
        {
            "open": opens, "high": np.maximum(opens, close) * 1.01, "low": np.minimum(opens, close) * 0.99,
            "close": close, "volume": rng.lognormal(3, 0.3, n),
        },
        index,
    )


def klines(table, unit="ms"):
    "The same candles with the twelve columns of an exchange's klines."
    step = table.index[1] - table.index[0]
    out = table.reset_index()
    closes = out["open_time"] + step - pd.Timedelta("1ms")

    def ms(times):
        return (times - pd.Timestamp(0, tz="UTC")) // pd.Timedelta("1ms")

    out = out.assign(close_time=ms(closes), quote_asset_volume=out.volume * out.close, number_of_trades=9,
                     taker_buy_base_asset_volume=out.volume / 2, taker_buy_quote_asset_volume=1.0, ignore=0)
    return out.assign(open_time=ms(out["open_time"]))


def same_candles(got, table):
    "Whether two tables hold the same candles."
    columns = ["open", "high", "low", "close", "volume"]
    pd.testing.assert_frame_equal(got[columns], table[columns], check_freq=False, check_index_type=False, rtol=1e-12)


def touch(folder, *names):
    "Empty files: names are matched before anything is read."
    for name in names:
        (folder / name).write_text("")
    return folder


# ---- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, symbol, timeframe", [
    ("BTCUSDT_1h.csv", "BTCUSDT", "1h"),
    ("btcusdt-1h-data.csv", "BTCUSDT", "1h"),
    ("BINANCE_BTCUSDT_1h.parquet", "BTCUSDT", "1h"),
    ("Binance_BTCUSDT_1h.csv", "btcusdt", "1H"),
    ("Binance_BTCUSDT_d.csv", "BTCUSDT", None),
    ("BTC_USDT-1h.feather", "BTC/USDT", "1h"),
    ("BTC-USDT_1h.json", "btc-usdt", "60min"),
    ("BTCUSDT-1h-2024-01.csv", "BTCUSDT", "1h"),
    ("BTCUSDT-1m-2024-12-31.csv", "BTCUSDT", "1m"),
    ("BTC_15m.parquet", "BTCUSDT", "15m"),
    ("BTC_1h.parquet", "BTCUSDT", "1h"),
    ("BTCUSDT_1H.CSV", "BTCUSDT", "1h"),
    ("BTCUSDT_60m.csv", "BTCUSDT", "1h"),
    ("BTCUSDT_60min.csv", "BTCUSDT", "1h"),
    ("BTCUSDT_1hour.csv", "BTCUSDT", "1h"),
    ("BTCUSDT 1 hour.csv", "BTCUSDT", "1h"),
    ("BTCUSDT1h.csv", "BTCUSDT", "1h"),
    ("BTCUSDT_M15.csv", "BTCUSDT", "15m"),
    ("BTCUSDT_15M.CSV", "BTCUSDT", "15m"),
    ("BTCUSDT, 60.csv", "BTCUSDT", "1h"),
    ("COINBASE_BTCUSD_1D.csv", "BTCUSD", "1d"),
    ("BTCUSD_daily.csv", "BTCUSD", "1d"),
    ("BTCUSD_1h_coinbase.parquet", "BTCUSD", "1h"),
    ("BTCUSDT_1h_binance_us.csv", "BTCUSDT", "1h"),
    ("BTCUSDT_1h_cryptodatadownload.csv", "BTCUSDT", "1h"),
    ("BTCUSDT_1h_open_time_ms.csv", "BTCUSDT", "1h"),
    ("1INCHUSDT_4h.csv", "1INCHUSDT", "4h"),
    ("1000PEPEUSDT_5m.csv.gz", "1000PEPEUSDT", "5m"),
    ("BTCUSDT_perp_1h.parquet", "BTCUSDTPERP", "1h"),
    ("BTC-USDT-SWAP_1h.csv", "BTC-USDT-SWAP", "1h"),
])
def test_name_is_found(tmp_path, name, symbol, timeframe):
    touch(tmp_path, name)
    if timeframe is None:
        with pytest.raises(SourceError):
            find_candle_file(tmp_path, symbol, "1d")
        return
    assert find_candle_file(tmp_path, symbol, timeframe).name == name


@pytest.mark.parametrize("name, symbol, timeframe", [
    ("BTCUSDT_1M.csv", "BTCUSDT", "1m"),
    ("BTCUSDT-1mo.csv", "BTCUSDT", "1m"),
    ("BTCUSDT_15m.csv", "BTCUSDT", "5m"),
    ("BTCUSDT_15m.csv", "BTCUSDT", "1m"),
    ("BTCUSDT_1h.csv", "BTCUSDT", "1d"),
    ("WBTCUSDT_1h.csv", "BTCUSDT", "1h"),
    ("BTCUSDTPERP_1h.csv", "BTCUSDT", "1h"),
    ("BTCUSDT_PERP_1h.csv", "BTCUSDT", "1h"),
    ("BTC_USDT_USDT-1h-futures.feather", "BTCUSDT", "1h"),
    ("BTC_USDT_USDT-1h.feather", "BTCUSDT", "1h"),
    ("BTC_USDT-1h-mark.feather", "BTCUSDT", "1h"),
    ("BTCUSD_1h.csv", "BTCUSDT", "1h"),
    ("BTCUSDT_1h.csv", "BTCUSD", "1h"),
    ("BTC_coinmetrics_1d.parquet", "BTCUSDT", "1d"),
    ("BTC_1h.parquet", "BTCUSDC", "1h"),
    ("BTCUSDT_1h.png", "BTCUSDT", "1h"),
    (".BTCUSDT_1h.csv", "BTCUSDT", "1h"),
    ("BTCUSDT_funding_1h.csv", "BTCUSDT", "1h"),
])
def test_name_is_not_mistaken(tmp_path, name, symbol, timeframe):
    touch(tmp_path, name)
    with pytest.raises(SourceError):
        find_candle_file(tmp_path, symbol, timeframe)


@pytest.mark.parametrize("names", [
    ("BTCUSDT_1h.csv", "BTCUSDT_1h.parquet"),
    ("BTCUSDT_1h.csv", "BTC_60min.parquet"),
    ("BTCUSDT-1h-2024-01.csv", "BTCUSDT-1h-2024-02.csv", "BTCUSDT-1h-2024-03.csv"),
])
def test_two_fitting_files_are_named(tmp_path, names):
    touch(tmp_path, *names, "ETHUSDT_1h.csv")
    with pytest.raises(SourceError) as error:
        load_candles("BTCUSDT", "1h", data_dir=tmp_path)
    assert all(n in str(error.value) for n in names) and "ETHUSDT" not in str(error.value)


def test_subfolders_are_not_searched(tmp_path):
    (tmp_path / "raw").mkdir()
    touch(tmp_path / "raw", "BTCUSDT_1h.csv")
    with pytest.raises(SourceError, match="subfolders are not searched"):
        find_candle_file(tmp_path, "BTCUSDT", "1h")


def test_errors_tell_what_exists(tmp_path):
    touch(tmp_path, "BTCUSDT_1h.csv", "BTCUSDT_15m.csv", "ETHUSDT_1h.csv", "SOLUSDT_1d.csv", "BTC-USD.csv")
    for request, words in {
        ("BTCUSDT", "4h"): ["BTCUSDT in 15m, 1h", "load 1h", "resample_candles"],
        ("BTCUSDT", "5m"): ["BTCUSDT in 15m, 1h", "choose one"],
        ("BTCUSTD", "1h"): ["1h for BTCUSDT, ETHUSDT", "did you mean BTCUSDT"],
        ("XMRBTC", "30m"): ["SOLUSDT_1d.csv", "SYMBOL_TIMEFRAME"],
        ("BTCUSD", "1d"): ["BTCUSD in ?", "give BTC-USD.csv itself"],
    }.items():
        with pytest.raises(SourceError) as error:
            find_candle_file(tmp_path, *request)
        assert all(w in str(error.value) for w in words), str(error.value)


def test_a_finer_file_answers_and_nothing_is_known_early(tmp_path):
    table = made_up(240, start="2024-01-01 01:00").drop(pd.Timestamp("2024-01-04 14:00", tz="UTC"))
    klines(table).to_csv(tmp_path / "BTCUSDT_1h.csv", index=False)
    touch(tmp_path, "BTCUSDT_15m.csv", "BTCUSDT_3d.csv")  # hours come first, and neither is opened
    got = load_candles("BTCUSDT", "4h", data_dir=tmp_path)
    whole = table.loc["2024-01-01 04:00":"2024-01-10 23:00"]
    assert got.index[0] == whole.index[0] and (got.index.hour % 4 == 0).all() and got.attrs["timeframe"] == "4h"
    lost = table.loc["2024-01-04 12:00":"2024-01-04 15:00"]
    np.testing.assert_allclose(got["volume"].sum(), whole["volume"].sum() - lost["volume"].sum())
    for opened, candle in got.iterrows():
        hours = table.loc[opened : opened + pd.Timedelta("3h")]
        assert len(hours) == 4 and (candle["open"], candle["close"]) == (hours["open"].iloc[0], hours["close"].iloc[-1])
        assert (candle["high"], candle["low"]) == (hours["high"].max(), hours["low"].min())
    lines = {line["check"]: line for line in got.attrs["quality"]}
    made = lines["4h candles made of 1h candles"]
    assert made["count"] == len(got) == 58
    assert made["action"] == "only whole ones; 3 incomplete dropped, 2 of them at the ends"
    assert (lines["gaps"]["count"], lines["missing candles"]["count"]) == (1, 1)
    cut = table.index[100]  # the past is the same whatever comes later
    changed = table.copy()
    changed.loc[cut:] *= 1.001
    klines(changed).to_csv(tmp_path / "BTCUSDT_1h.csv", index=False)
    known = got.index + pd.Timedelta("4h") <= cut
    same_candles(load_candles("BTCUSDT", "4h", data_dir=tmp_path).loc[got.index[known]], got[known])


def test_a_finer_file_by_itself(tmp_path):
    path = tmp_path / "my notes.csv"
    klines(made_up(48)).to_csv(path, index=False)
    assert len(load_candles("BTCUSDT", "2h", data_dir=path)) == 24
    with pytest.raises(DataError, match="make no whole 1w candle"):
        load_candles("BTCUSDT", "1w", data_dir=path)
    with pytest.raises(DataError, match="another timeframe"):
        load_candles("BTCUSDT", "30m", data_dir=path)
    klines(made_up(48)).to_csv(tmp_path / "ETHUSDT_1h.csv", index=False)
    with pytest.raises(SourceError, match="1h: 48 candles from 2024-01-01 00:00 to 2024-01-02 23:00 UTC"):
        load_candles("ETHUSDT", "5m", data_dir=tmp_path)


def test_missing_and_empty_places(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        load_candles("BTCUSDT", "1h", data_dir=tmp_path / "nowhere")
    with pytest.raises(SourceError, match="an empty folder"):
        load_candles("BTCUSDT", "1h", data_dir=tmp_path)
    with pytest.raises(SourceError, match="does not exist"):
        load_candles("BTCUSDT", "1h", data_dir=tmp_path / "BTCUSDT_1h.csv")


# ---- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet", "feather", "json"])
def test_local_reads_every_kind(tmp_path, kind):
    table = made_up()
    path = tmp_path / f"BINANCE_BTCUSDT-1h.{kind}"
    if kind == "csv":
        klines(table).to_csv(path, index=False)
    elif kind == "json":
        rows = klines(table).itertuples(index=False)
        path.write_text(json.dumps([[int(r[0]), *map(str, r[1:6]), int(r[6]), "1", 9, "1", "1", "0"] for r in rows]))
    else:
        getattr(klines(table), f"to_{kind}")(path)
    got = load_candles("BTC/USDT", "1H", data_dir=tmp_path)
    same_candles(got, table)
    assert list(got.columns[:5]) == ["open", "high", "low", "close", "volume"] and "close_time" not in got
    expected = {"symbol": "BTCUSDT", "timeframe": "1h", "source": "local", "path": str(path), "warmup": 0, "seed": None}
    assert {k: got.attrs[k] for k in expected} == expected
    assert len(got.attrs["fingerprint"]) == 64 and isinstance(got.attrs["quality"], list)
    json.dumps(got.attrs)


def test_direct_file_with_any_name(tmp_path):
    table = made_up()
    path = tmp_path / "my notes.csv"
    klines(table).to_csv(path, index=False)
    same_candles(load_candles("BTCUSDT", "1h", data_dir=path), table)


def test_direct_file_must_be_consistent(tmp_path):
    path = tmp_path / "BTCUSDT_5m.csv"
    klines(made_up()).to_csv(path, index=False)
    with pytest.raises(DataError) as error:
        load_candles("BTCUSDT", "5m", data_dir=tmp_path)
    assert "5m" in str(error.value) and "found: 1h" in str(error.value) and path.name in str(error.value)
    with pytest.raises(DataError, match="resample_candles"):
        load_candles("BTCUSDT", "4h", data_dir=path)
    with pytest.raises(SourceError, match="speaks of BTCUSDT"):
        load_candles("ETHUSDT", "1h", data_dir=path)
    assert len(load_candles("BTCUSDT", "1h", data_dir=path)) == 60


def test_bad_files_name_themselves(tmp_path):
    for text in ["", "hello\nworld\n", "open_time,open\n1,2\n"]:
        (tmp_path / "BTCUSDT_1h.csv").write_text(text)
        with pytest.raises(CryptolabError, match="BTCUSDT_1h.csv"):
            load_candles("BTCUSDT", "1h", data_dir=tmp_path)
    (tmp_path / "BTCUSDT_1h.csv").unlink()
    (tmp_path / "BTCUSDT_1h.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(CryptolabError, match="BTCUSDT_1h.parquet"):
        load_candles("BTCUSDT", "1h", data_dir=tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser reads everything")
def test_unreadable_file(tmp_path):
    path = tmp_path / "BTCUSDT_1h.csv"
    klines(made_up()).to_csv(path, index=False)
    path.chmod(0)
    with pytest.raises(CryptolabError, match="BTCUSDT_1h.csv"):
        load_candles("BTCUSDT", "1h", data_dir=tmp_path)


def test_defects_are_repaired_and_counted(tmp_path):
    table = made_up()
    rows = klines(table)
    rows.loc[10, "close"] = np.nan
    pd.concat([rows, rows.iloc[[20]]]).iloc[::-1].to_csv(tmp_path / "BTCUSDT_1h.csv", index=False)
    got = load_candles("BTCUSDT", "1h", data_dir=tmp_path)
    same_candles(got, table.drop(table.index[10]))
    counts = {r["check"]: r["count"] for r in got.attrs["quality"]}
    assert counts["duplicates"] == 1 and counts["missing values"] == 1 and counts["wrong order"] > 0
    assert counts["rows used"] == 59 and counts["missing candles in the rows used"] == 1


def test_unclosed_last_candle_is_dropped(tmp_path):
    table = made_up()
    klines(table).to_csv(tmp_path / "BTCUSDT_1h.csv", index=False)
    end = table.index[-1] + pd.Timedelta("1h")
    assert len(load_candles("BTCUSDT", "1h", data_dir=tmp_path, now=end)) == 60
    assert len(load_candles("BTCUSDT", "1h", data_dir=tmp_path, now=end - pd.Timedelta("1s"))) == 59
    recent = made_up(48, start=(pd.Timestamp.now("UTC").floor("h") - pd.Timedelta("47h")).tz_localize(None))
    klines(recent).to_csv(tmp_path / "ETHUSDT_1h.csv", index=False)
    assert len(load_candles("ETHUSDT", "1h", data_dir=tmp_path)) == 47


# ---- the stretch asked for ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    klines(made_up()).to_csv(tmp_path / "BTCUSDT_1h.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("request_, rows, warm, first", [
    ({}, 60, 0, 0),
    ({"limit": 10}, 10, 0, 50),
    ({"limit": 10, "warmup": 20}, 30, 20, 30),
    ({"limit": 50, "warmup": 20}, 60, 10, 0),
    ({"limit": 500, "warmup": 20}, 60, 0, 0),
    ({"start": "2024-01-02"}, 36, 0, 24),
    ({"start": "2024-01-02", "warmup": 4}, 40, 4, 20),
    ({"end": "2024-01-02"}, 24, 0, 0),
    ({"start": "2024-01-01 05:00", "end": pd.Timestamp("2024-01-02")}, 19, 0, 5),
    ({"start": "2024-01-01 05:30", "end": "2024-01-01 07:01", "limit": 1, "warmup": 1}, 2, 1, 6),
    ({"end": "2024-01-02T02:00+02:00", "limit": 2}, 2, 0, 22),
])
def test_stretch(folder, request_, rows, warm, first):
    got = load_candles("BTCUSDT", "1h", data_dir=folder, **request_)
    assert (len(got), got.attrs["warmup"]) == (rows, warm)
    assert got.index[0] == made_up().index[first]


def test_fingerprint_is_that_of_the_rows_used(folder):
    a, b, c = (load_candles("BTCUSDT", "1h", data_dir=folder, limit=n).attrs["fingerprint"] for n in (10, 10, 11))
    assert a == b != c


@pytest.mark.parametrize("request_, kind, words", [
    ({"start": "2024-01-02", "end": "2024-01-02"}, SettingsError, "start"),
    ({"start": "2030-01-01"}, DataError, "2024-01-03"),
    ({"end": "2020-01-01"}, DataError, "no candle"),
    ({"start": 2024}, SettingsError, "start"),
    ({"end": "soon"}, SettingsError, "end"),
    ({"limit": 0}, SettingsError, "limit"),
    ({"limit": 2.5}, SettingsError, "limit"),
    ({"limit": True}, SettingsError, "limit"),
    ({"warmup": -1}, SettingsError, "warmup"),
    ({"seed": -1}, SettingsError, "seed"),
    ({"source": "ftp"}, SettingsError, "sample"),
    ({"limits": 5}, SettingsError, "limits"),
    ({"source": "sample", "edges": 0.1}, SettingsError, "edge"),
    ({"timeframe": "7h"}, SettingsError, "15m"),
    ({"timeframe": "1M"}, SettingsError, "month"),
    ({"timeframe": None}, SettingsError, "timeframe"),
    ({"symbol": ""}, SettingsError, "symbol"),
    ({"symbol": "../etc"}, SettingsError, "symbol"),
    ({"symbol": None}, SettingsError, "symbol"),
])
def test_wrong_requests(folder, request_, kind, words):
    with pytest.raises(kind, match=words):
        load_candles(**{"symbol": "BTCUSDT", "timeframe": "1h", "data_dir": folder, **request_})


# ---- sample ------------------------------------------------------------------------------------------------------


def test_sample_source():
    a = load_candles("BTCUSDT", "1h", source="sample", limit=400, warmup=60, seed=3)
    b = load_candles("btc/usdt", "60m", source="sample", limit=400, warmup=60, seed=3)
    pd.testing.assert_frame_equal(a, b)
    assert (len(a), a.attrs["warmup"], a.attrs["seed"], a.attrs["source"], a.attrs["path"]) == (
        460,
        60,
        3,
        "sample",
        None,
    )
    pd.testing.assert_frame_equal(a, sample_market("BTCUSDT", "1h", n=460, seed=3), check_freq=False)
    assert list(a) == ["open", "high", "low", "close", "volume"]
    other = load_candles("BTCUSDT", "1h", source="sample", limit=400, warmup=60, seed=4)
    assert other.attrs["fingerprint"] != a.attrs["fingerprint"]
    json.dumps(a.attrs)


def test_sample_source_by_dates_and_default_length():
    got = load_candles("ETHUSDT", "15m", source="sample", start="2024-03-01", end="2024-03-03", warmup=10)
    assert (len(got), got.attrs["warmup"]) == (202, 10)
    assert (got.index[10], got.index[-1]) == (
        pd.Timestamp("2024-03-01", tz="UTC"), pd.Timestamp("2024-03-02 23:45", tz="UTC"),
    )
    assert len(load_candles("ETHUSDT", "1d", source="sample")) == 10_000
    assert len(load_candles("ETHUSDT", "1h", source="sample", start="2024-12-31")) == 24
    assert len(load_candles("ETHUSDT", "1w", source="sample", limit=30)) == 30


def test_sample_edge_is_an_option():
    got = load_candles("BTCUSDT", "1h", source="sample", limit=300, edge=0.1)
    assert set(market_truth(got).true_p_up.round(6)) <= {0.4, 0.5, 0.6}


# ---- hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    "A small file tree in the layout of both repositories."
    first = tmp_path / "hub" / "zongowo111/cpb-models" / "klines_binance_us/BTCUSDT/BTCUSDT_1h_binance_us.csv"
    second = tmp_path / "hub" / "zongowo111/v2-crypto-ohlcv-data" / "klines/BTCUSDT/BTC_15m.parquet"
    for path, freq in ((first, "1h"), (second, "15min")):
        path.parent.mkdir(parents=True)
        rows = klines(made_up(freq=freq))
        if path.suffix == ".csv":
            rows.to_csv(path, index=False)
        else:
            rows["open_time"] = pd.to_datetime(rows["open_time"], unit="ms", utc=True)
            rows["close_time"] = pd.to_datetime(rows["close_time"], unit="ms", utc=True)
            rows.to_parquet(path, index=False)
    return tmp_path / "hub"


def hub_of(tree, online=True, calls=None):
    "A download function over the tree, raising what huggingface_hub raises."
    errors = pytest.importorskip("huggingface_hub.errors")

    def download(repo_id, filename, repo_type, local_dir=None, local_files_only=False):
        assert repo_type == "dataset"
        if calls is not None:
            calls.append((repo_id, local_files_only))
        if not online:
            raise errors.LocalEntryNotFoundError("cannot find the requested files in the local cache")
        if not (tree / repo_id / filename).exists():
            raise errors.EntryNotFoundError("404")
        return str(tree / repo_id / filename)

    return download


def test_hub_paths():
    assert hub_files("btc/usdt", "60m") == [
        ("zongowo111/cpb-models", "klines_binance_us/BTCUSDT/BTCUSDT_1h_binance_us.csv"),
        ("zongowo111/v2-crypto-ohlcv-data", "klines/BTCUSDT/BTC_1h.parquet"),
    ]
    assert len(HUB_SYMBOLS) == 38


def test_hub_first_and_second_repository(tree):
    calls = []
    got = load_candles("BTCUSDT", "1h", source="hub", download=hub_of(tree, calls=calls))
    same_candles(got, made_up())
    assert got.attrs["source"] == "hub" and len(calls) == 1
    same_candles(
        load_candles("BTCUSDT", "15m", source="hub", download=hub_of(tree, calls=calls)), made_up(freq="15min"),
    )
    assert [c[0].split("/")[1] for c in calls] == ["cpb-models", "cpb-models", "v2-crypto-ohlcv-data"]


@pytest.mark.parametrize("inner", ["", "zongowo111/cpb-models"])
def test_hub_mirror_needs_no_network(tree, inner, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # not even the package
    same_candles(load_candles("BTCUSDT", "1h", source="hub", data_dir=tree / inner), made_up())


def test_hub_unknown_symbol_and_timeframe(tree):
    with pytest.raises(SourceError, match="did you mean BTCUSDT"):
        load_hub("BTCUSTD", "1h", download=hub_of(tree))
    with pytest.raises(SourceError, match="AAVEUSDT, ADAUSDT"):
        load_hub("QQQQ", "1h", download=hub_of(tree))
    with pytest.raises(SourceError, match="15m, 1h, 1d"):
        load_hub("BTCUSDT", "5m", download=hub_of(tree))


def test_hub_offline(tree, tmp_path):
    calls = []
    with pytest.raises(SourceError) as error:
        load_candles(
            "BTCUSDT", "1d", source="hub", data_dir=tmp_path / "cache",
            download=hub_of(tree, online=False, calls=calls),
        )
    text = str(error.value)
    assert (
        "no network" in text and "source=local" in text and "source=sample" in text and str(tmp_path / "cache") in text
    )
    assert [c[1] for c in calls] == [False, True]  # the second repository is only asked for its cached copy
    with pytest.raises(SourceError, match="used as it is"):
        load_candles("BTCUSDT", "1h", source="hub", data_dir=tree, refresh=True, download=hub_of(tree, online=False))


def test_hub_cached_copy_of_the_second_repository_works_offline(tree):
    def download(repo_id, filename, repo_type, local_files_only=False):
        if not local_files_only:
            raise ConnectionError("no route")
        return str(tree / repo_id / filename)

    same_candles(load_hub("BTCUSDT", "15m", download=download), made_up(freq="15min"))


def test_hub_package_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SourceError, match=r'pip install "cryptolab\[hub\]"'):
        load_candles("BTCUSDT", "1h", source="hub")


def test_hub_with_the_real_package_offline(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="no network"):
        load_candles("BTCUSDT", "1h", source="hub", data_dir=tmp_path)


# ---- a slice of a hub file ---------------------------------------------------------------------------------------


class CountedFile:
    "A file that notes where it was read."

    def __init__(self, file, spans):
        self.file, self.spans = file, spans

    def read(self, size=-1):
        at = self.file.tell()
        data = self.file.read(size)
        self.spans.append((at, at + len(data)))
        return data

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


@pytest.fixture
def streamed(tmp_path):
    "The second repository with one large file of ten row groups, its address, and the spans of it that were read."
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("datasets")
    local = pytest.importorskip("fsspec.implementations.local").LocalFileSystem
    spans = []

    class Counted(local):
        protocol = "counted"

        @classmethod
        def _strip_protocol(cls, path):
            return "/" + str(path).removeprefix("counted://").strip("/")

        def _open(self, path, mode="rb", **options):
            return CountedFile(super()._open(path, mode, **options), spans)

    fsspec.register_implementation("counted", Counted, clobber=True)
    Counted.clear_instance_cache()
    path = tmp_path / "hub/zongowo111/v2-crypto-ohlcv-data/klines/BTCUSDT/BTC_15m.parquet"
    path.parent.mkdir(parents=True)

    def write(rows, size=2_000):
        rows.to_parquet(path, index=False, row_group_size=size)
        return path

    write(made_up(20_000, "15min").reset_index())
    return path, f"counted://{tmp_path / 'hub'}", spans, write


def no_download(**request):
    raise AssertionError("the whole file was asked for")


def by_stream(root, download=no_download, **request):
    options = dict(stream=True, root=root, download=download, now="2030-01-01")
    return load_candles("BTCUSDT", "15m", source="hub", **options, **request)


def by_file(path, **request):
    return load_candles("BTCUSDT", "15m", data_dir=path, now="2030-01-01", **request)


@pytest.mark.parametrize("request_", [
    dict(limit=500),
    dict(limit=1_999, warmup=200),
    dict(start="2024-07-20", warmup=50),
    dict(start="2024-05-01 00:15", end="2024-05-02"),
    dict(end="2024-03-01", limit=700, warmup=30),
    dict(start="2024-01-02", limit=100),
], ids=str)
def test_a_streamed_slice_equals_the_file_and_reads_little(streamed, request_):
    path, root, spans, _ = streamed
    got, want = by_stream(root, **request_), by_file(path, **request_)
    pd.testing.assert_frame_equal(got, want, check_freq=False)
    assert got.attrs["fingerprint"] == want.attrs["fingerprint"] and got.attrs["warmup"] == want.attrs["warmup"]
    assert got.attrs["source"] == "hub" and got.attrs["path"].startswith("counted://")
    read = sum(b - a for a, b in spans)
    assert read < path.stat().st_size / 2, f"{read:,} of {path.stat().st_size:,} bytes"
    said = {line["check"]: line for line in got.attrs["quality"]}
    assert 0 < said["rows read"]["count"] <= 6_000 and "of 20000" in said["rows read"]["action"]


def test_untouched_row_groups_are_never_read(streamed):
    import pyarrow.parquet as pq

    path, root, spans, _ = streamed
    by_stream(root, limit=500)
    newest = pq.ParquetFile(path).metadata.row_group(9)
    column = newest.column(0)
    begins = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    early = [(a, b) for a, b in spans if a < begins and b < path.stat().st_size]  # the footer comes with the last 64 kB
    assert spans and not early, early


def test_repairs_in_the_slice_are_counted(streamed):
    path, root, _, write = streamed
    rows = made_up(20_000, "15min").reset_index()
    rows.loc[19_800, "high"] = -1.0
    write(rows)

    def count(candles):
        return {r["check"]: r["count"] for r in candles.attrs["quality"]}

    got, want = by_stream(root, limit=500), by_file(path, limit=500)
    pd.testing.assert_frame_equal(got, want, check_freq=False)
    bad = {check: n for check, n in count(want).items() if n and not check.startswith(("rows", "missing"))}
    assert bad and all(count(got)[check] == n for check, n in bad.items())


def test_a_slice_that_cleaning_makes_too_short_becomes_the_whole_file(streamed, tmp_path):
    path, root, _, write = streamed
    rows = made_up(40_000, "15min").reset_index()
    rows.loc[38_500:39_099, "high"] = -1.0  # 600 of the last 1,500 rows, few for the whole file
    write(rows)
    got = by_stream(root, download=hub_of(tmp_path / "hub"), limit=1_500)
    pd.testing.assert_frame_equal(got, by_file(path, limit=1_500), check_freq=False)
    assert len(got) == 1_500 and got.attrs["path"] == str(path)


@pytest.mark.parametrize("layout", ["one group", "newest first", "text", "all of it"])
def test_where_streaming_saves_nothing_the_file_is_fetched(streamed, tmp_path, layout):
    path, root, _, write = streamed
    rows = made_up(20_000, "15min").reset_index()
    if layout == "one group":
        write(rows, 50_000)
    elif layout == "newest first":
        write(rows[::-1])
    elif layout == "text":
        write(rows.assign(open_time=rows["open_time"].dt.strftime("%Y-%m-%d %H:%M")))
    request = {} if layout == "all of it" else {"limit": 500}
    got = by_stream(root, download=hub_of(tmp_path / "hub"), **request)
    pd.testing.assert_frame_equal(got, by_file(path, **request), check_freq=False)
    assert got.attrs["path"] == str(path) and "rows read" not in {r["check"] for r in got.attrs["quality"]}


def test_epochs_and_an_index_are_streamed_too(streamed):
    path, root, _, write = streamed
    table = made_up(20_000, "15min")
    write(klines(table))
    same_candles(by_stream(root, limit=500), table.tail(500))
    table.to_parquet(path, row_group_size=2_000)  # times as the index
    same_candles(by_stream(root, limit=500), table.tail(500))


def test_the_first_repository_still_answers_first(streamed, tmp_path):
    path, root, spans, _ = streamed
    first = tmp_path / "hub/zongowo111/cpb-models/klines_binance_us/BTCUSDT/BTCUSDT_15m_binance_us.csv"
    first.parent.mkdir(parents=True)
    table = made_up(300, "15min")
    klines(table).to_csv(first, index=False)
    same_candles(by_stream(root, download=hub_of(tmp_path / "hub"), limit=100), table.tail(100))
    assert not spans


def test_streaming_offline_says_what_a_download_says(streamed, tmp_path):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(SourceError, match="no network"):
        by_stream(str(tmp_path / "nowhere"), download=hub_of(tmp_path / "hub", online=False), limit=10)
    same_candles(by_stream("counted://nowhere", limit=10, data_dir=tmp_path / "hub"), made_up(20_000, "15min").tail(10))


def test_streaming_from_another_timeframe_is_an_error(streamed):
    _, root, _, write = streamed
    write(made_up(20_000, "1h").reset_index())
    with pytest.raises(DataError, match="another timeframe"):
        by_stream(root, limit=100)


def test_streaming_without_the_package(streamed, monkeypatch):
    _, root, _, _ = streamed
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SourceError, match=r'pip install "cryptolab\[hub\]"'):
        by_stream(root, limit=10)


# ---- exchange ----------------------------------------------------------------------------------------------------


class FakeExchange:
    "Answers in ccxt's documented form; `habit` bends the replies, `broken_after` breaks the line."
    id, has = "fake", {"fetchOHLCV": True, "fetchTime": True}
    timeframes = {"1m": "1m", "1h": "1h", "1d": "1d"}

    def __init__(self, closed=50, habit=None, cap=7):
        self.clock, self.habit, self.cap = T0 + closed * HOUR + 600_000, habit or (lambda rows, since: rows), cap
        self.calls, self.broken_after, self.error = [], None, ConnectionError("line is broken")

    def load_markets(self):
        return {m: {} for m in ("BTC/USDT:USDT", "BTC/USDT", "ETH/USDT", "ETH/BTC", "BTC/USD")}

    def fetch_time(self):
        return self.clock

    def milliseconds(self):
        raise AssertionError("the exchange's clock is to be used")

    def rows(self):
        closes = [100.0 + i % 11 for i in range(-1, (self.clock - T0) // HOUR + 1)]
        pairs = enumerate(zip(closes, closes[1:]))
        return [[T0 + i * HOUR, before, 115.0, 95.0, close, 2.0 + i] for i, (before, close) in pairs]

    def fetch_ohlcv(self, symbol, timeframe, since=None, limit=None):
        self.calls.append(since)
        if self.broken_after is not None and len(self.calls) > self.broken_after:
            raise self.error
        assert symbol == "BTC/USDT"
        return self.habit([r for r in self.rows() if r[0] >= since][: min(limit, self.cap)], since)


def quick(fake, **kw):
    "load_candles from a fake exchange without pauses."
    return load_candles("BTCUSDT", "1h", source="exchange", exchange=fake, sleep=lambda s: None, **kw)


def truth(fake, first=0):
    "The closed candles of a fake exchange."
    table = pd.DataFrame(fake.rows()[first:-1], columns=["open_time", "open", "high", "low", "close", "volume"])
    index = pd.DatetimeIndex(
        pd.to_datetime(table.pop("open_time"), unit="ms", utc=True), name="open_time",
    ).as_unit("ns")
    return table.set_index(index)


def test_exchange_pages_and_never_the_unclosed_candle():
    fake = FakeExchange()
    got = quick(fake, start="2024-01-01")
    same_candles(got, truth(fake))
    assert len(got) == 50 and got.index[-1] + pd.Timedelta("1h") <= pd.Timestamp(fake.clock, unit="ms", tz="UTC")
    assert got.attrs["source"] == "exchange" and got.attrs["path"] == "fake"
    assert len(quick(FakeExchange(), limit=10, warmup=5)) == 15


@pytest.mark.parametrize("habit", [
    lambda rows, since: rows[::-1],  # newest first
    lambda rows, since: rows[1:] + rows[:1] + rows[-1:],  # out of order, one twice
    lambda rows, since: [[r[0], *map(str, r[1:])] for r in rows],  # numbers as text
    lambda rows, since: [r + [7, "extra"] for r in rows],  # more columns than documented
    lambda rows, since: rows if since % (3 * HOUR) else rows[:1],  # short pages
], ids=["reversed", "unordered", "text", "wide", "short"])
def test_exchange_habits(habit):
    fake = FakeExchange(habit=habit)
    same_candles(quick(fake, start="2024-01-01"), truth(fake))


def test_exchange_overlapping_pages_and_empty_end():
    fake = FakeExchange()
    fake.habit = lambda rows, since: [r for r in fake.rows() if since - 3 * HOUR <= r[0] < since + 4 * HOUR]
    same_candles(quick(fake, start="2024-01-01"), truth(fake))
    fake = FakeExchange()
    fake.habit = lambda rows, since: [] if since > T0 + 40 * HOUR else rows
    got = quick(fake, start="2024-01-01")
    same_candles(got, truth(fake).iloc[:42])


def test_exchange_outage_is_a_gap_not_the_end():
    fake = FakeExchange()
    full = fake.rows
    fake.rows = lambda: [r for r in full() if not 12 <= (r[0] - T0) // HOUR < 30]
    fake.habit = lambda rows, since: [r for r in rows if r[0] < since + 7 * HOUR]  # only a window behind `since`
    got = quick(fake, start="2024-01-01")
    assert len(got) == 32
    assert {r["check"]: r["count"] for r in got.attrs["quality"]}["missing candles"] == 18


def test_exchange_that_ignores_since_ends():
    fake = FakeExchange()
    fake.habit = lambda rows, since: fake.rows()[-9:]
    assert len(quick(fake, start="2024-01-01")) == 8
    fake.habit = lambda rows, since: fake.rows()[:5]
    assert len(quick(fake, start="2024-01-01")) == 5


def test_exchange_extends_its_store(tmp_path):
    fake = FakeExchange(closed=20)
    quick(fake, start="2024-01-01", data_dir=tmp_path)
    fake.clock += 5 * HOUR
    fake.calls.clear()
    got = quick(fake, start="2024-01-01", data_dir=tmp_path)
    assert fake.calls[0] == T0 + 19 * HOUR and len(fake.calls) == 1
    same_candles(got, truth(fake))
    path = tmp_path / "fake_BTCUSDT_1h.parquet"
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and got.attrs["path"] == str(path)
    same_candles(read_candles(path), truth(fake))
    same_candles(load_candles("BTCUSDT", "1h", data_dir=tmp_path), truth(fake))  # offline through source=local


def test_exchange_goes_back_behind_its_store(tmp_path):
    fake = FakeExchange(closed=40)
    quick(fake, limit=10, data_dir=tmp_path)
    same_candles(quick(fake, start="2024-01-01", data_dir=tmp_path), truth(fake))
    fake = FakeExchange(closed=40)
    for path in tmp_path.iterdir():
        path.unlink()
    quick(fake, limit=10, data_dir=tmp_path)
    fake.calls, fake.broken_after = [], 2
    with pytest.raises(SourceError):
        quick(fake, start="2024-01-01", data_dir=tmp_path)
    assert len(read_candles(tmp_path / "fake_BTCUSDT_1h.parquet")) == 10  # no half-filled past
    fake.broken_after = None
    same_candles(quick(fake, start="2024-01-01", data_dir=tmp_path), truth(fake))


@pytest.mark.parametrize("error", [ConnectionError("line is broken"), KeyboardInterrupt()], ids=["network", "ctrl-c"])
def test_exchange_interrupted_run_resumes(tmp_path, error):
    fake = FakeExchange()
    fake.broken_after, fake.error = 3, error
    with pytest.raises((SourceError, KeyboardInterrupt)):
        quick(fake, start="2024-01-01", data_dir=tmp_path)
    assert len(read_candles(tmp_path / "fake_BTCUSDT_1h.parquet")) == 21
    fake.calls, fake.broken_after = [], None
    same_candles(quick(fake, start="2024-01-01", data_dir=tmp_path), truth(fake))
    assert fake.calls[0] == T0 + 20 * HOUR
    assert [p.name for p in tmp_path.iterdir()] == ["fake_BTCUSDT_1h.parquet"]


def test_exchange_contradiction_names_the_candle(tmp_path):
    fake = FakeExchange(closed=20)
    quick(fake, start="2024-01-01", data_dir=tmp_path)
    before = (tmp_path / "fake_BTCUSDT_1h.parquet").read_bytes()
    fake.clock += 5 * HOUR
    fake.habit = lambda rows, since: [[t, o, h, low, c + 0.5 * (t == T0 + 19 * HOUR), v] for t, o, h, low, c, v in rows]
    with pytest.raises(SourceError, match="2024-01-01 19:00") as error:
        quick(fake, start="2024-01-01", data_dir=tmp_path)
    assert "fake_BTCUSDT_1h.parquet" in str(error.value)
    assert (tmp_path / "fake_BTCUSDT_1h.parquet").read_bytes() == before


def test_exchange_two_pages_contradict_each_other():
    fake = FakeExchange()
    fake.habit = lambda rows, since: [
        [r[0], *r[1:5], r[5] + (since > T0)] for r in fake.rows() if since - HOUR <= r[0] < since + 4 * HOUR
    ]
    with pytest.raises(SourceError, match="has changed"):
        quick(fake, start="2024-01-01")


def test_exchange_retries_network_errors_only():
    ccxt = pytest.importorskip("ccxt")
    fake, pauses = FakeExchange(), []
    answers = iter([ccxt.RequestTimeout("slow"), ccxt.RateLimitExceeded("busy")])
    honest = fake.fetch_ohlcv

    def sometimes(*args):
        for error in answers:
            raise error
        return honest(*args)

    fake.fetch_ohlcv = sometimes
    got = load_candles("BTCUSDT", "1h", source="exchange", exchange=fake, start="2024-01-01", sleep=pauses.append)
    assert len(got) == 50 and pauses == [1.0, 2.0]
    fake.broken_after, fake.error, fake.calls = 0, ccxt.BadSymbol("no such thing"), []
    with pytest.raises(SourceError, match="no such thing"):
        quick(fake)
    assert len(fake.calls) == 1
    fake.error, fake.calls = ccxt.NetworkError("down"), []
    with pytest.raises(SourceError, match="source=local"):
        quick(fake, retries=2)
    assert len(fake.calls) == 3


def test_exchange_unknown_symbol_timeframe_exchange():
    with pytest.raises(SourceError, match="did you mean .*BTCUSDT"):
        load_exchange("BTCUSDC", "1h", FakeExchange())
    with pytest.raises(SourceError, match="1m, 1h, 1d"):
        load_exchange("BTCUSDT", "4h", FakeExchange())
    pytest.importorskip("ccxt")
    with pytest.raises(SettingsError, match="did you mean binance"):
        load_exchange("BTCUSDT", "1h", "binanze")


def test_exchange_now_can_be_given():
    fake = FakeExchange()
    got = quick(fake, start="2024-01-01", now="2024-01-01 10:59:59")
    assert got.index[-1] == pd.Timestamp("2024-01-01 09:00", tz="UTC")
    with pytest.raises(SourceError, match="no closed candle"):
        quick(fake, start="2024-01-01", now="2024-01-01 00:30")


def test_exchange_without_fetch_time_uses_milliseconds():
    fake = FakeExchange()
    fake.has, fake.milliseconds = {"fetchTime": False}, lambda: fake.clock
    assert len(quick(fake, start="2024-01-01")) == 50


def test_exchange_end_and_limit():
    got = quick(FakeExchange(), end="2024-01-02", limit=6, warmup=2)
    assert (len(got), got.attrs["warmup"], got.index[-1]) == (8, 2, pd.Timestamp("2024-01-01 23:00", tz="UTC"))


@pytest.mark.parametrize("reply", [{"error": 1}, [[T0, 1, 2]], [["soon", 1, 2, 3, 4, 5]], None, "busy"])
def test_exchange_malformed_replies(reply):
    fake = FakeExchange()
    fake.habit = lambda rows, since: reply
    with pytest.raises(SourceError, match="not candles"):
        quick(fake, start="2024-01-01")


def test_exchange_damaged_store(tmp_path):
    (tmp_path / "fake_BTCUSDT_1h.parquet").write_bytes(b"half a file")
    with pytest.raises(SourceError, match="fake_BTCUSDT_1h.parquet"):
        quick(FakeExchange(), data_dir=tmp_path)
    with pytest.raises(SettingsError, match="folder"):
        quick(FakeExchange(), data_dir=tmp_path / "fake_BTCUSDT_1h.parquet")


def test_exchange_package_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ccxt", None)
    with pytest.raises(SourceError, match=r'pip install "cryptolab\[exchange\]"'):
        load_candles("BTCUSDT", "1h", source="exchange")


def test_real_ccxt_objects_have_the_face_we_use():
    ccxt = pytest.importorskip("ccxt")
    from cryptolab.data.exchange import market_name, open_exchange

    line = open_exchange("binance")
    assert line.enableRateLimit and {"1m", "15m", "1h", "4h", "1d", "1w"} <= set(line.timeframes)
    for name in ("load_markets", "fetch_ohlcv", "fetch_time", "milliseconds"):
        assert callable(getattr(line, name))
    assert issubclass(ccxt.RequestTimeout, ccxt.NetworkError) and issubclass(
        ccxt.ExchangeNotAvailable, ccxt.NetworkError,
    )
    market = line.safe_market_structure(
        {"id": "BTCUSDT", "symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "spot": True}
    )
    line.fetch_markets = lambda params=None: [market]
    line.fetch_currencies = lambda params=None: {}
    assert market_name(line.load_markets(), "BTCUSDT", "binance") == "BTC/USDT"


# ---- real candles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol, timeframe", [
    ("BTCUSDT", "1h"), ("SOLUSDT", "1d"), ("ETHUSDT", "15m"), ("ETHUSDT", "4h"),
])
def test_shared_folder(shared_data, symbol, timeframe):
    got = load_candles(symbol, timeframe, data_dir=shared_data, limit=1000, warmup=200)
    assert len(got) == 1200 and got.attrs["warmup"] == 200
    truth = pd.read_parquet(shared_data / f"{symbol}_{timeframe}.parquet").set_index("timestamp").tail(1200)
    assert (got.index == truth.index).all()
    for column in ("open", "high", "low", "close", "volume"):
        np.testing.assert_allclose(got[column], truth[column])


def test_shared_folder_exchanges_and_contracts(shared_data):
    with pytest.raises(SourceError) as error:
        find_candle_file(shared_data, "BTCUSD", "1h")
    assert "coinbase" in str(error.value) and "kraken" in str(error.value)
    assert find_candle_file(shared_data / "funding", "BTCUSDTPERP", "1h").name == "BTCUSDT_perp_1h.parquet"
    with pytest.raises(SourceError, match="BTCUSDT in 15m, 1d, 1h, 1m, 4h, 5m"):
        find_candle_file(shared_data, "BTCUSDT", "30m")
    with pytest.raises(SourceError) as error:
        find_candle_file(shared_data / "raw", "BTCUSDT", "1h")
    assert str(error.value).count("BTCUSDT") >= 5


@pytest.mark.parametrize("name, timeframe", [
    ("BTCUSDT-1h-data.csv", "1h"), ("BTCUSDT_1h_open_time_ms.csv", "1h"), ("BTCUSDT_1h_2024-01-01.json", "1h"),
    ("BTCUSDT_1h_cryptodatadownload.csv", "1h"), ("BTCUSDT-1m-2024-12-31.csv", "1m"),
    ("BTCUSDT-1m-2025-01-01.csv", "1m"),
])
def test_raw_files_one_by_one(shared_data, tmp_path, name, timeframe):
    (tmp_path / name).symlink_to(shared_data / "raw" / name)
    assert find_candle_file(tmp_path, "BTCUSDT", timeframe).name == name
    got = load_candles("BTCUSDT", timeframe, data_dir=tmp_path, limit=200)
    assert len(got) == 200 and got.attrs["timeframe"] == timeframe


# ---- the room ----------------------------------------------------------------------------------------------------


def test_import_is_light():
    heavy = "tensorflow keras xgboost lightgbm plotly numba sklearn ccxt matplotlib scipy".split()
    heavy += ["huggingface_hub", "datasets", "fsspec"]
    code = f"import sys, cryptolab.data; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_all_names():
    import cryptolab.data as room

    public = """load_candles read_candles validate_candles clean_candles resample_candles sample_market null_market
        planted_market quality_table timeframe_delta infer_timeframe segments find_gaps fingerprint find_candle_file
        load_local load_hub load_exchange TIMEFRAMES""".split()
    assert set(public) <= set(room.__all__)
    assert all(hasattr(room, name) for name in room.__all__)
