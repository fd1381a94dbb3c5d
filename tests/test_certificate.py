"""Certificates: planted look-ahead is caught, honest twins pass, real candles with context keep theirs."""
import json

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.data.market import sample_market
from cryptolab.features.certify.certificate import (
    FACTS, certificate_hash, certificate_records, certificate_summary, certificate_text, certify, read_context,
)
from cryptolab.features.certify.faults import FAULTS, onchain_days
from cryptolab.features.certify.perturb import FUTURES, KnownContext, changed_future, hard_markets
from cryptolab.features.registry import FeatureSet, feature_table, features
from cryptolab.features.rolling import sma

OHLCV = ["open", "high", "low", "close", "volume"]
HOUR = 3_600_000_000_000


@pytest.fixture(scope="module")
def candles():
    return sample_market(n=700)[OHLCV]


@pytest.fixture(scope="module")
def certificate():
    return certify("v9", sample_market(n=800)[OHLCV], seconds=1.0)


def verdict(function, candles, *args, **named):
    found = certify(function, candles, *args, **{"seconds": 0.6, "cuts": 3, **named})
    return found["verdict"].iloc[0], found["evidence"].iloc[0]


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught_and_their_twins_pass(name, candles):
    if name == "one row in a thousand":
        candles = sample_market(n=2_400)[OHLCV]
    faulty, honest = FAULTS[name]
    state, evidence = verdict(faulty, candles, onchain_days(candles), seconds=5.0)
    assert state == "fail" and ("row" in evidence and "whole table" in evidence), evidence
    assert verdict(honest, candles, onchain_days(candles)) == ("pass", "")


@pytest.mark.parametrize("every", [7, 100, 650])
@pytest.mark.parametrize("ahead", [1, 5])
def test_rare_leaks_at_any_row(candles, every, ahead):
    def peek(c):
        where = np.arange(len(c)) % every == every // 3
        return c["close"].where(~where, c["close"].shift(-ahead))

    assert verdict(peek, candles, seconds=5.0)[0] == "fail"


def test_subtle_leaks(candles):
    position = lambda c: np.arange(len(c))
    leaks = {
        "rank in the whole sample": lambda c: c["close"].rank(pct=True),
        "quantile of the whole sample": lambda c: (c["volume"] > c["volume"].quantile(0.9)).astype(float),
        "rows left": lambda c: pd.Series(len(c) - position(c), c.index),
        "interpolated gaps": lambda c: c["close"].where(position(c) % 10 != 5).interpolate(),
        "day's own close": lambda c: c["close"].groupby(c.index.floor("D")).transform("last"),
        "last row repeats": lambda c: c["close"].where(c.index != c.index[-1], c["close"].iloc[0]),
        "a millionth of the next return": lambda c: c[
            "close"
        ].pct_change() + 1e-5 * c["close"].pct_change().shift(-1).fillna(0),
        "smoothed both ways": lambda c: c["close"].ewm(span=5).mean()[::-1].ewm(span=5).mean()[::-1],
    }
    assert [name for name, leak in leaks.items() if verdict(leak, candles)[0] != "fail"] == []


def test_honest_functions_pass(candles):
    close_of = lambda c: c["close"]
    honest = {
        "ema": lambda c: c["close"].ewm(span=20, adjust=False).mean(),
        "rolling with few candles": lambda c: c["close"].rolling(20, min_periods=1).mean(),
        "obv": lambda c: (np.sign(c["close"].diff()) * c["volume"]).cumsum(),
        "drawdown": lambda c: c["close"] / c["close"].cummax() - 1,
        "hour": lambda c: pd.Series(np.sin(c.index.hour), c.index),
        "score, missing on a flat market": lambda c: (
            (c["close"] - c["close"].rolling(20).mean()) / c["close"].rolling(20).std()
        ),
        "pandas variance, float noise": lambda c: c["close"].rolling(30).var(),
        "the close itself": close_of,
        "array": lambda c: c["close"].to_numpy() / c["open"].to_numpy(),
        "day before": lambda c: c["close"].resample("D").last().shift(1).reindex(c.index, method="ffill"),
    }
    states = {name: verdict(function, candles) for name, function in honest.items()}
    assert {name: state for name, state in states.items() if state[0] != "pass"} == {}


def test_facts_of_a_column(candles):
    table = certify(
        lambda c: pd.DataFrame(
            {
                "mean": c["close"].rolling(20).mean(),
                "sum": c["volume"].cumsum(),
                "log": np.log(c["close"]),
                "inf": c["close"].diff() / c["close"].diff().abs(),
            }
        ),
        candles,
        seconds=0.5,
    )
    assert table["first"].tolist() == [20, 1, 1, 2] and table["forgets"].tolist() == [20, "never", 1, 2]
    assert table["scale"].tolist() == ["scales", "scales", "other", "invariant"]
    assert table.loc["inf", "finite"] == "missing" and table["verdict"].eq("pass").all()
    infinite = certify(lambda c: c["close"] / c["volume"], candles, seconds=0.5)
    assert infinite["finite"].tolist() == ["fail"] and "no volume" in infinite["evidence"].iloc[0]


def test_declared_columns_are_held_to_their_word(candles):
    def declared(line, column):
        made = FeatureSet("made")
        made.block("g", line)(lambda x: iter([("a", column(x))]))
        return certify(made, candles, seconds=0.5).loc["a"]

    assert declared("a | m | 20 | 20 | price", lambda x: sma(x.close, 20))["verdict"] == "pass"
    late = declared("a | m | 20 | 10 | price", lambda x: sma(x.close, 20))
    early = declared("a | m | 20 | 30 | price", lambda x: sma(x.close, 20))
    filled = declared("a | m | 20 | 20 | price", lambda x: np.nan_to_num(sma(x.close, 20)))
    summed = declared("a | m | 20 | 1 | price", lambda x: np.cumsum(x.close))
    holed = declared("a | m | 1 | 1 | price", lambda x: np.where(x.high > x.low, x.close, np.nan))
    assert [late["warm_up"], early["warm_up"], filled["warm_up"], holed["finite"]] == ["fail"] * 4
    assert summed["verdict"] == "fail" and "declared window is 20" in summed["evidence"]


def test_v9_certificate_and_its_hash(certificate):
    assert certificate["verdict"].eq("pass").all() and certificate["prefix"].eq("pass").all() and len(certificate) == 46
    assert certificate.attrs["sha256"] == certificate_hash(certificate)
    for fact in FACTS:
        altered = certificate.copy()
        altered[fact] = altered[fact].astype(object)
        altered.loc["rsi_14", fact] = 7e-3 if fact == "parity" else "another"
        assert certificate_hash(altered) != certificate.attrs["sha256"], fact
    assert certificate_hash(certificate.assign(evidence="other words")) == certificate.attrs["sha256"]
    assert certificate_hash(certificate.rename({"rsi_14": "rsi"})) != certificate.attrs["sha256"]


def test_same_seed_same_certificate(candles):
    first, second = (certify("v9", candles, seconds=0.3) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_parity(candles):
    ta = pytest.importorskip("ta")
    rsi = lambda c: ta.momentum.rsi(c["close"], 14).rename("rsi")
    good = certify(rsi, candles, reference={"rsi": "rsi_14"}, seconds=0.2)
    wrong = certify(rsi, candles, reference={"rsi": lambda c: ta.momentum.rsi(c["close"], 15)}, seconds=0.2)
    assert good["parity"].iloc[0] < 1e-9 and good["verdict"].iloc[0] == "pass"
    assert wrong["verdict"].iloc[0] == "fail" and "reference" in wrong["evidence"].iloc[0]
    with pytest.raises(SettingsError, match="unknown reference"):
        certify(rsi, candles, reference={"rsi": "rsi_99"}, seconds=0.2)


def test_bad_functions_are_errors(candles):
    count = iter(range(1_000))
    bad = {
        "another number of rows": lambda c: c["close"].dropna().iloc[3:],
        "another index": lambda c: c["close"].reset_index(drop=True), "no column per candle": lambda c: 3.0,
        "not a number": lambda c: c.assign(name="x"), "fails on a table": lambda c: c["nothing"],
        "changes its columns": lambda c: c[["open", "close"]] if len(c) > 500 else c[["open"]],
        "each name once": lambda c: c[["open", "open"]],
        "other values when it is called again": lambda c: c["close"] + next(count),
        "too few candles": lambda c: c["close"] * np.nan,
    }
    for text, function in bad.items():
        with pytest.raises(DataError, match=text):
            certify(function, candles, seconds=0.2)
    with pytest.raises(DataError, match="`mean_168_ratio` needs 168"):
        certify("v9", candles[:200])
    for wrong in (
        {"function": 7}, {"function": "v9", "columns": ["rsi"]}, {"function": lambda c: c["close"], "columns": ["x"]},
        {"function": "v99"},
    ):
        with pytest.raises(SettingsError):
            certify(wrong.pop("function"), candles, **wrong)


def test_a_function_may_write_into_its_input(candles):
    before = candles.copy()

    def careless(c):
        c["mean"] = c["close"].rolling(5).mean()
        return c[["mean"]]

    assert verdict(careless, candles)[0] == "pass"
    pd.testing.assert_frame_equal(candles, before)


def test_futures_and_hard_markets_are_possible_candles(candles):
    full = candles.assign(trades=5, quote_volume=candles["volume"] * candles["close"])
    for market in (*(changed_future(full, 400, kind) for kind in FUTURES), *hard_markets(full).values()):
        assert (market["low"] > 0).all() and (
            market[["open", "close"]].max(axis=1) <= market["high"] * (1 + 1e-12)
        ).all() and (market["volume"] >= 0).all()
        assert market.index.is_monotonic_increasing and market.index.is_unique
        assert market["open"].notna().all()
    for kind in FUTURES:
        pd.testing.assert_frame_equal(
            changed_future(full, 400, kind)[:400].astype(float), full[:400].astype(float), check_freq=False,
        )


def test_context_is_cut_by_what_was_known(candles):
    context = onchain_days(candles)
    known = KnownContext(context, HOUR)
    noon = candles.index[300].floor("D") + pd.Timedelta("12h")
    newest = known.until(noon.value)["onchain"].index[-1]
    assert newest + pd.Timedelta(days=2) <= noon < newest + pd.Timedelta(days=3)
    changed = known.changed(noon.value)["onchain"]["TxCnt"]
    assert (
        changed.index[changed != context["onchain"]["TxCnt"]] > newest
    ).all() and (changed != context["onchain"]["TxCnt"]).any()
    assert known.until(0) == {}


def test_context_files(tmp_path):
    table = pd.DataFrame(
        {"timestamp": pd.date_range("2024-01-01", periods=3, freq="8h", tz="UTC"), "funding_rate": [1.0, 2, 3]}
    )
    table.to_csv(tmp_path / "f.csv", index=False)
    table.to_parquet(tmp_path / "f.parquet")
    for name in ("f.csv", "f.parquet"):
        assert read_context([f"funding={tmp_path / name}"])["funding"]["timestamp"].dt.tz is not None
    assert list(read_context([f"coins.ETHUSDT={tmp_path / 'f.csv'}"])["coins"]) == ["ETHUSDT"]


def test_texts(certificate):
    assert certificate_summary(certificate)["columns"].sum() == 46
    assert "46 pass, 0 fail" in certificate_text(certificate) and certificate_text(
        certificate, every=True, markdown=True,
    ).count("\n| ") >= 46
    json.dumps(certificate_records(certificate), allow_nan=False)


def test_command(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from cryptolab.features.certify import certificate as module
    from cryptolab.cli.main import app

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        app, ["certify", "--set", "v9", "--limit", "500", "--save", "c.json", "--markdown", "--all"],
    )
    assert done.exit_code == 0 and "| rsi_14 |" in done.output
    assert json.loads((tmp_path / "c.json").read_text())[0]["columns"][0]["verdict"] == "pass"
    assert CliRunner().invoke(app, ["certify", "--set", "v10"]).exit_code == 1
    assert CliRunner().invoke(app, ["certify", "--set", "v9", "--context", "funding=nothing.csv"]).exit_code == 1
    real = module.certify
    monkeypatch.setattr(
        module, "certify", lambda *args, **named: real(FAULTS["negative shift"][0], args[1], seconds=0.2),
    )
    done = CliRunner().invoke(app, ["certify", "--set", "v9", "--limit", "500"])
    assert done.exit_code == 1 and "FAIL" in done.output


@pytest.mark.parametrize("name", ["v2", "hybrid", "v3", "ultimate"])
def test_the_other_sets(name):
    found = certify(name, sample_market(n=1_200)[OHLCV], cuts=2, seconds=0.5)
    assert found["verdict"].eq("pass").all(), found.loc[found["verdict"] == "fail", "evidence"].to_dict()
    assert found.attrs["tested"] > 0


@pytest.mark.data
@pytest.mark.parametrize("name", ["v3", "ultimate"])
def test_columns_with_context_on_real_data(shared_data, name):
    def read(path):
        table = pd.read_parquet(
            shared_data / f"{path}.parquet"
        ).set_index("timestamp").rename_axis("open_time")[OHLCV].astype("float64")
        table.attrs.update(symbol=path.split("/")[-1].split("_")[0], timeframe="1h")
        return table.loc["2022-06":"2023-02"]

    context = {
        "coins": {f"{coin}USDT": read(f"{coin}USDT_1h") for coin in ("BTC", "ETH", "SOL", "DOGE")},
        "exchange": read("BTCUSD_1h_kraken"), "perpetual": read("funding/BTCUSDT_perp_1h"),
        "funding": pd.read_parquet(shared_data / "funding/BTCUSDT_funding.parquet"),
        "onchain": pd.read_parquet(shared_data / "onchain/BTC_coinmetrics_1d.parquet"),
    }
    candles = read("BTCUSDT_1h").iloc[2_800:4_300]
    table = feature_table(name)
    here = set(features(candles, name, context))
    columns = [c for c in table.loc[table["needs"] != "", "name"] if c in here]
    assert len(columns) >= 20
    found = certify(name, candles, context, columns=columns, cuts=2, seconds=0.5)
    assert found["verdict"].eq("pass").all(), found.loc[found["verdict"] == "fail", "evidence"].to_dict()


@pytest.mark.data
def test_v9_on_real_candles_with_gaps(shared_data):
    frame = pd.read_parquet(
        shared_data / "BTCUSDT_1h.parquet"
    ).set_index("timestamp").rename_axis("open_time")[OHLCV].astype("float64")
    frame = frame.iloc[600:2_600]
    assert (np.diff(frame.index.as_unit("ns").asi8) > HOUR).any()
    frame.attrs.update(symbol="BTCUSDT", timeframe="1h")
    for name in ("v9", "v9_published"):
        found = certify(name, frame, seconds=2.0)
        assert found["verdict"].eq("pass").all(), found.loc[found["verdict"] == "fail", "evidence"].to_dict()
