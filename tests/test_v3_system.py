"""V3 as a system and as a pipeline: the rules of every system, a killed run, altered files, and what a command says."""
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cryptolab.audit.check import check_system
from cryptolab.cli.main import app
from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.data import sample_market
from cryptolab.systems.v3 import document
from cryptolab.systems.v3.bundle import check_bundle, verify_bundle
from cryptolab.systems.v3.collect import collect_data, engineer_features
from cryptolab.systems.v3.document import CHECKPOINT, run_steps
from cryptolab.systems.v3.request import Request
from cryptolab.systems.v3.rows import split_v3, v3_labels, v3_table, whole_rows
from cryptolab.systems.v3.stored import StoredTable, open_stored
from cryptolab.systems.v3.system import V3

SMALL = {
    "profile": "smoke", "target": 0.004, "stop": 0.003, "timeout": 20, "threads": 1, "select": 30,
    "members": "xgboost,lightgbm", "sizes": {"shap_rows": 60, "shap_trees": 5},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A finished run of all five steps."
    folder = tmp_path_factory.mktemp("v3") / "run"
    request = Request(folder, ("BTCUSDT",), ("15m",), source="sample", limit=2_500, params=SMALL)
    return request, run_steps(request, log=None)


# ---- the system

def test_v3_keeps_the_rules_of_every_system():
    small = SMALL | {"members": "lightgbm", "label": "barriers", "target": 0.01, "stop": 0.01}
    table = check_system(V3(**small))
    assert (table["verdict"] == "pass").all(), table[table["verdict"] != "pass"]


def test_parts_overlap_only_as_published():
    market = sample_market("BTCUSDT", "15m", n=2_000, seed=3)
    label = v3_labels(market, target=0.004, stop=0.003, timeout=20)
    table = v3_table(market)
    rows, mixed = split_v3(table, label), split_v3(table, label, published=True, seed=1)
    open_at_test = rows.labels["t1"].iloc[rows.parts["train"]] > rows.labels["t0"].iloc[rows.parts["test"][0]]
    assert not open_at_test.any()
    spread = mixed.labels["t0"].iloc[mixed.parts["test"]]
    assert spread.min() < mixed.labels["t0"].iloc[mixed.parts["train"]].quantile(0.05)
    shares = {name: mixed.y[at].mean() for name, at in mixed.parts.items()}
    assert max(shares.values()) - min(shares.values()) < 0.02  # stratified


def test_a_stack_from_the_file_is_the_stack_from_memory(tmp_path):
    market = sample_market("BTCUSDT", "15m", n=2_000, seed=3)
    small = SMALL | {"members": "lightgbm,catboost"}
    whole, _ = whole_rows(v3_table(market))
    whole.to_parquet(tmp_path / "features.parquet", row_group_size=300)
    newest, asked = whole.iloc[-1_300:], []  # as with --rows: the file begins before the rows

    class Watched(StoredTable):
        def fit(self, name, *arguments):
            asked.append(name)
            return super().fit(name, *arguments)

    source = Watched(**vars(open_stored(tmp_path / "features.parquet", fewest=1)))
    one = V3(**small).fit_table(market, newest, log=None, stored=source)
    other = V3(**small).fit_table(market, newest, log=None)
    assert sorted(asked) == sorted(["lightgbm", "catboost"] * (1 + one.chosen_sizes()["folds"]))
    for name in ("lightgbm", "catboost"):
        assert np.abs(one.stack_.folds[name] - other.stack_.folds[name]).max() < 1e-3
    said = [system.forecast_table(market, newest)["p_event"] for system in (one, other)]
    assert np.abs(said[0] - said[1]).max() < 1e-3 and said[0].std() > 0.001
    asked.clear()
    V3(**small | {"variant": "published"}).fit_table(market, newest, log=None, stored=source)
    assert asked == []  # its rows are drawn at random: not before the rows that stop it


def test_labels_are_what_the_trade_did():
    market = sample_market("BTCUSDT", "15m", n=600, seed=5)
    label = v3_labels(market, target=0.004, stop=0.003, timeout=20)
    for time_, row in label.dropna(subset="y").iloc[::37].iterrows():
        after = market.loc[time_:].iloc[1:21]
        entry = after["open"].iloc[0]
        up = np.flatnonzero(after["high"] >= entry * 1.004)
        down = np.flatnonzero(after["low"] <= entry * 0.997)
        hit = len(up) and (not len(down) or up[0] < down[0])
        if not (len(up) and len(down) and up[0] == down[0]):  # both within one candle: the stop is assumed
            assert row["y"] == float(bool(hit))
        else:
            assert row["y"] == 0.0


def test_the_graph_takes_270_columns(finished):
    import onnxruntime

    request, _ = finished
    facts = check_bundle(request.folder)
    session = onnxruntime.InferenceSession(str(request.path("models", "onnx", facts["graph"])))
    assert session.get_inputs()[0].shape[1] == 270 == len(facts["columns"])
    x = np.random.default_rng(0).standard_normal((5, 270)).astype("float32")
    first = session.run(["probability"], {"features": x})[0]
    unused = [i for i, name in enumerate(facts["columns"]) if name not in facts["chosen"]]
    x[:, unused] = 99.0
    np.testing.assert_array_equal(session.run(["probability"], {"features": x})[0], first)


# ---- the files of the document

def test_every_file_of_the_document_is_written(finished):
    request, done = finished
    names = {p.relative_to(request.folder).as_posix() for p in Path(request.folder).rglob("*") if p.is_file()}
    assert {
        "data/raw/BTCUSDT_15m.parquet", "data/raw/data_collection_manifest.json",
        "data/features/BTCUSDT_15m_features.parquet", "data/features/feature_engineering_manifest.json",
        "models/xgboost_model.json", "models/lightgbm_model.txt", "models/meta_learner.json", "models/metadata.json",
        "models/training.log", "backtest/backtest_summary.json", "backtest/backtest_results.csv",
        "backtest/equity_curve.csv", "models/onnx/xgboost.onnx", "models/onnx/lightgbm.onnx",
        "models/onnx/meta_learner.onnx", "models/onnx/deployment_bundle.json", CHECKPOINT,
    } <= names
    stored = json.loads(request.path(CHECKPOINT).read_text())
    assert set(stored) == {"timestamp", "last_completed_step", "results"} and stored["last_completed_step"] == 5
    assert isinstance(json.loads(request.path("models", "metadata.json").read_text())["gates_passed"], bool)
    summary = json.loads(request.path("backtest", "backtest_summary.json").read_text())
    assert isinstance(summary["gates_passed"], bool) and summary["rows"] == done["results"]["backtest"]["rows"]
    trades = pd.read_csv(request.path("backtest", "backtest_results.csv"))
    assert len(trades) == summary["trades"]
    if len(trades):  # test rows only
        assert pd.to_datetime(trades["entry_time"]).min() > pd.Timestamp(summary["first"])


def test_gates_are_opened_once(finished):
    request, _ = finished
    before = request.path("trials.jsonl").read_text()
    assert '"kind": "gate"' in before or '"kind":"gate"' in before
    request.path("backtest", "backtest_summary.json").unlink()
    run_steps(request, step=4, log=None)
    gates = [line for line in request.path("trials.jsonl").read_text().splitlines() if '"answer"' in line]
    assert len(gates) == 2  # training and backtest, each evaluated once
    summary = json.loads(request.path("backtest", "backtest_summary.json").read_text())
    assert summary["gates_opened"]["opened"] == "before"


@pytest.mark.parametrize("name", ["v3_ultimate.onnx", "lightgbm.onnx", "expected.npy", "deployment_bundle.json"])
def test_an_altered_bundle_is_refused_by_name(finished, name):
    request, _ = finished
    path = request.path("models", "onnx", name)
    whole = path.read_bytes()
    try:
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        with pytest.raises(ModelError, match=name):
            verify_bundle(request.folder)
        path.unlink()
        with pytest.raises(ModelError, match=name if name != "deployment_bundle.json" else "no bundle"):
            verify_bundle(request.folder)
    finally:
        path.write_bytes(whole)
    assert verify_bundle(request.folder)["difference"].max() <= 1e-5


def test_verify_by_command(finished):
    request, _ = finished
    said = CliRunner().invoke(app, ["v3", "verify", str(request.folder)])
    assert said.exit_code == 0 and "verified: " in said.output, said.output


# ---- bad input

def test_a_missing_coin_is_recorded_and_an_absent_timeframe_is_not_invented(tmp_path):
    home = tmp_path / "candles"
    home.mkdir()
    candles = sample_market("BTCUSDT", "1h", n=400)[["open", "high", "low", "close", "volume"]]
    candles.to_parquet(home / "BTCUSDT_1h.parquet")
    request = Request(tmp_path / "run", ("BTCUSDT", "DOTUSDT"), ("15m", "1h", "4h"), data_dir=home)
    note = collect_data(request, log=None)
    assert [e["file"] for e in note["files"]] == ["BTCUSDT_1h.parquet", "BTCUSDT_4h.parquet"]
    assert note["files"][1]["made"] == "resampled from 1h"
    missing = {(e["symbol"], e["timeframe"]) for e in note["missing"]}
    assert missing == {("BTCUSDT", "15m"), *(("DOTUSDT", name) for name in ("15m", "1h", "4h"))}
    four = pd.read_parquet(tmp_path / "run" / "data" / "raw" / "BTCUSDT_4h.parquet")
    part = candles.loc[four.index[3] : four.index[3] + pd.Timedelta("3h")]
    assert four["high"].iloc[3] == part["high"].max() and four["close"].iloc[3] == part["close"].iloc[-1]
    with pytest.raises(DataError, match="no file has enough candles"):
        engineer_features(request, log=None)


def test_a_renamed_coin_goes_on_under_its_new_name(tmp_path):
    candles = sample_market("POLUSDT", "1h", n=600)[["open", "high", "low", "close", "volume"]]
    candles.iloc[:400].to_parquet(tmp_path / "MATICUSDT_1h.parquet")
    candles.iloc[390:].to_parquet(tmp_path / "POLUSDT_1h.parquet")
    note = collect_data(Request(tmp_path / "run", ("MATICUSDT",), ("1h",), data_dir=tmp_path), log=None)
    assert note["files"][0]["rows"] == 600 and "POLUSDT" in note["files"][0]["remark"]


def test_a_file_changed_between_steps_is_refused(finished):
    request, _ = finished
    path = request.path("data", "features", "BTCUSDT_15m_features.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole + b" ")
    try:
        with pytest.raises(ModelError, match="not as it was written"):
            run_steps(replace(request, rows=1_500), step=3, log=None)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "change, error, said",
    [
        ({"target": 5.0}, DataError, "one class only"), ({"sizes": {"folds": 300}}, DataError, "too few training rows"),
        ({"members": "xgboost,forest"}, SettingsError, "unknown member"), ({"label": "move16"}, SettingsError, "label"),
        ({"select": 0}, SettingsError, "select"),
    ],
)
def test_what_cannot_be_fitted_says_why(change, error, said):
    market = sample_market("BTCUSDT", "15m", n=1_500, seed=2)
    with pytest.raises(error, match=said):
        V3(**(SMALL | change)).fit(market, log=None)


# ---- a run that is killed

def _command(folder):
    "A small run in a process of its own."
    code = (
        "import time\nfrom cryptolab.systems.v3 import fit\nfrom cryptolab.systems.v3.document import run_steps\n"
        "from cryptolab.systems.v3.request import Request\nslow = fit.fold_forecast\n"
        "def wait(*a):\n    time.sleep(0.4)\n    return slow(*a)\nfit.fold_forecast = wait\n"
        f"run_steps(Request({str(folder)!r}, ('BTCUSDT',), ('15m',), source='sample', limit=2_500, params={SMALL!r}), "
        "log=lambda line: print(line, flush=True))\n"
    )
    return [sys.executable, "-c", code]


def test_a_killed_run_trains_only_what_is_missing(tmp_path, finished):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(_command(tmp_path), stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line.startswith("lightgbm      trained"):  # members done, no fold yet
                time.sleep(0.6)
                process.send_signal(signal.SIGKILL)
                break
    assert not (tmp_path / "models" / "metadata.json").exists()
    kept = {p.parent.name for p in (tmp_path / "models.work").rglob("manifest.json")}
    assert {"columns", "xgboost", "lightgbm"} <= kept
    lines = []
    request = replace(finished[0], folder=tmp_path)
    done = run_steps(request, log=lines.append)
    fetched = [line.split()[0] for line in lines if "taken from the interrupted run" in line]
    assert {"xgboost", "lightgbm"} <= set(fetched) and len(fetched) >= len(kept) - 1
    assert not (tmp_path / "models.work").exists()
    same = {name: done["results"]["training"]["ensemble"][name] for name in ("auc", "ece", "accuracy")}
    assert same == {name: finished[1]["results"]["training"]["ensemble"][name] for name in same}


def test_two_runs_do_not_share_a_folder(finished):
    from cryptolab.files import only_one

    request, _ = finished
    with only_one(request.path(".v3_ultimate.lock")):
        with pytest.raises(SettingsError, match="another process"):
            run_steps(request, step=1, log=None)


def test_needed_edge_is_the_root_of_the_return():
    for total, trades, size in ((1.5, 8000, 0.01), (3.0, 5000, 0.02)):
        edge = document.needed_edge(total, trades, size)
        assert (1 + edge * size) ** trades == pytest.approx(1 + total)
