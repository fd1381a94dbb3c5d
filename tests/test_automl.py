"""AutoML: the search repeats itself, shares nothing across folds, and what it finds lives without its search engine."""
import importlib.util
import os
import stat

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from cryptolab.config import CryptolabError, DataError, ModelError
from cryptolab.models.automl import Searched, ask_automl, fit_automl, read_automl, write_automl
from cryptolab.models.flaml_engine import search_flaml, search_folds
from cryptolab.models.h2o_engine import find_java, fold_column, search_h2o, write_mojo
from cryptolab.validation import audit_split

SIZES = {"automl_trials": 6, "automl_folds": 2, "automl_trees": 60, "automl_leaves": 31}


def planted(n=1_200, columns=6, seed=0):
    "Rows, outcomes and labels known twelve hours later; two columns act only together."
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, columns)).astype("float32")
    y = (x[:, 0] - x[:, 1] * x[:, 2] + rng.standard_normal(n) > 0).astype(float)
    times = pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC")
    return x, y, pd.DataFrame({"y": y, "t0": times, "t1": times + pd.Timedelta("12h")}, index=times)


@pytest.fixture(scope="module")
def found():
    x, y, label = planted()
    return search_flaml(x[:900], y[:900], label[:900], SIZES, seed=3, threads=1)


def test_the_same_seed_finds_the_same_and_another_seed_tries_others(found):
    x, y, label = planted()
    again = search_flaml(x[:900], y[:900], label[:900], SIZES, seed=3, threads=1)
    assert again["trials"].equals(found["trials"])
    assert [again[k] for k in ("learner", "params", "trees", "loss")] == [
        found[k] for k in ("learner", "params", "trees", "loss")
    ]
    other = search_flaml(x[:900], y[:900], label[:900], {**SIZES, "automl_trials": 3}, seed=4, threads=1)
    assert not other["trials"].equals(found["trials"][:3])


def test_the_found_model_learns_a_planted_table(found):
    x, y, _ = planted()
    model, history = fit_automl(x[:800], y[:800], (x[812:900], y[812:900]), found, seed=3, threads=1)
    assert roc_auc_score(y[912:], ask_automl(model, x[912:])) > 0.75  # 0.84 is possible
    assert history.attrs["best_epoch"] == model.trees <= found["trees"]
    assert history["val_loss"].idxmin() + 1 == model.trees


def test_trials_obey_the_limits_and_take_turns(found):
    trials = found["trials"]
    assert len(trials) == SIZES["automl_trials"] and trials["trees"].max() <= SIZES["automl_trees"]
    assert trials["learner"].value_counts().to_dict() == {"lgbm": 2, "xgboost": 2, "xgb_limitdepth": 2}
    assert found["loss"] == trials["loss"].min() and np.isfinite(trials["loss"]).all()


def test_the_lowest_loss_is_found_wherever_it_stands(monkeypatch):
    import cryptolab.models.flaml_engine as engine

    read = engine.read_trials

    def told(path):
        trials, configs = read(path)
        return trials.assign(loss=[0.6, 0.5, 0.7]), configs

    monkeypatch.setattr(engine, "read_trials", told)
    found = search_flaml(*planted(300), {**SIZES, "automl_trials": 3}, seed=1, threads=1)
    best = found["trials"].loc[1]
    library = "lightgbm" if best["learner"] == "lgbm" else "xgboost"
    assert (found["loss"], found["trees"], found["learner"]) == (0.5, best["trees"], library)


def test_no_model_of_the_search_saw_a_row_that_overlaps_a_judged_one(monkeypatch):
    import lightgbm
    import xgboost

    x, y, label = planted(600)
    x[:, -1] = np.arange(len(x))  # each row carries its position
    seen = []

    def recording(cls):
        fit, ask = cls.fit, cls.predict_proba

        def record_fit(self, X, *a, **k):
            seen.append(("fit", np.asarray(X)[:, -1].astype(int)))
            return fit(self, X, *a, **k)

        def record_ask(self, X, *a, **k):
            seen.append(("ask", np.asarray(X)[:, -1].astype(int)))
            return ask(self, X, *a, **k)

        monkeypatch.setattr(cls, "fit", record_fit)
        monkeypatch.setattr(cls, "predict_proba", record_ask)

    recording(lightgbm.LGBMClassifier)
    recording(xgboost.XGBClassifier)
    search_flaml(x, y, label, {**SIZES, "automl_trials": 3}, seed=0, threads=1)
    pairs = [(rows, later) for (what, rows), (then, later) in zip(seen, seen[1:]) if (what, then) == ("fit", "ask")]
    assert len(pairs) == 3 * 2  # three learners, two folds
    assert audit_split(pairs, label)["overlapping"].sum() == 0
    for train, test in pairs:
        assert train.max() + 11 == test.min() - 1  # twelve hours: eleven rows between are purged, none more
        assert (np.diff(train) > 0).all()
    assert {tuple(test) for _, test in pairs} == {tuple(test) for _, test in search_folds(label, 2).split()}


@pytest.mark.parametrize("learner", ["lgbm", "xgboost", "xgb_limitdepth"])
def test_native_parameters_give_the_loss_that_flaml_reported(monkeypatch, learner):
    import cryptolab.models.flaml_engine as automl

    monkeypatch.setattr(automl, "STARTS", {learner: automl.STARTS[learner]})
    x, y, label = planted(700)
    found = search_flaml(x, y, label, {**SIZES, "automl_trials": 2}, seed=5, threads=1)
    losses = []
    for train, test in search_folds(label, 2).split():
        model, history = fit_automl(x[train], y[train], None, found, seed=5, threads=1)
        assert model.trees == len(history) == found["trees"]
        losses.append(log_loss(y[test], ask_automl(model, x[test])))
    assert np.mean(losses) == pytest.approx(found["loss"], abs=1e-6)


LIGHT = {"learner": "lightgbm", "trees": 40, "params": {"objective": "binary", "num_leaves": 7, "learning_rate": 0.3}}
DEEP = {"learner": "xgboost", "trees": 40, "params": {"objective": "binary:logistic", "max_depth": 3, "eta": 0.3}}


@pytest.mark.parametrize("found", [LIGHT, DEEP], ids=["lightgbm", "xgboost"])
def test_round_trip_in_the_native_format(found, tmp_path):
    x, y, _ = planted()
    model, _ = fit_automl(x[:800], y[:800], (x[812:], y[812:]), found, threads=1)
    assert model.trees < 40  # stopped early, and the stored booster ends there
    files = write_automl(tmp_path, model)
    assert sorted(files) == sorted(p.name for p in tmp_path.iterdir())
    back = read_automl(tmp_path, x.shape[1])
    assert (back.learner, back.trees, back.params) == (model.learner, model.trees, model.params)
    assert np.array_equal(ask_automl(back, x), ask_automl(model, x))
    count = back.model.num_trees() if found is LIGHT else back.model.num_boosted_rounds()
    assert count == model.trees and ask_automl(back, x[:0]).shape == (0,)
    with pytest.raises(ModelError, match="columns"):
        read_automl(tmp_path, 5)
    (tmp_path / files[1]).write_text((tmp_path / files[1]).read_text()[:-2_000])
    with pytest.raises(ModelError):
        read_automl(tmp_path, x.shape[1])


@pytest.mark.parametrize("found", [LIGHT, DEEP], ids=["lightgbm", "xgboost"])
def test_a_found_booster_converts_to_onnx(found, tmp_path):
    from cryptolab.models.onnx_export import booster_to_onnx
    from cryptolab.models.onnx_session import parity

    x, y, _ = planted()
    model, _ = fit_automl(x[:800], y[:800], (x[812:], y[812:]), found, threads=1)
    write_automl(tmp_path, model)
    graph = booster_to_onnx(model.learner, read_automl(tmp_path).model, 6)
    assert parity(graph, x, ask_automl(model, x)) < 1e-5


def test_rows_that_cannot_be_searched():
    x, y, label = planted(300)
    for bad, match in [
        ((x, y, label[:-1]), "belong together"), ((x, np.ones(300), label), "yes-or-no"),
        ((x, y * np.nan, label), "yes-or-no"), ((np.where(x > 2, np.nan, x), y, label), "finite"),
    ]:
        with pytest.raises(DataError, match=match):
            search_flaml(*bad, SIZES)
    with pytest.raises(DataError, match="too few"):
        search_folds(label[:3], 3)
    early = label.assign(y=(np.arange(300) > 250).astype(float))
    with pytest.raises(DataError, match="one outcome"):
        search_folds(early, 3)
    with pytest.raises(CryptolabError, match="learner"):
        fit_automl(x, y, None, {"learner": "forest", "params": {}, "trees": 3})


def test_several_coins_share_their_folds():
    _, _, label = planted(400)
    both = pd.concat([label.assign(symbol="A"), label.assign(symbol="B")])
    for train, test in search_folds(both, 3).split():
        assert both["t1"].iloc[train].max() <= both["t0"].iloc[test].min()
        assert set(both["symbol"].iloc[train]) == set(both["symbol"].iloc[test]) == {"A", "B"}
    fold = fold_column(both, 3)
    assert np.array_equal(fold[:400], fold[400:])


def test_the_fold_column_leaves_out_what_reaches_beyond_its_stretch():
    _, _, label = planted(600)
    fold = fold_column(label, 3)
    assert (fold == -1).sum() == 2 * 11 and set(fold) == {-1, 0, 1, 2}
    pairs = [(np.flatnonzero((fold != k) & (fold >= 0)), np.flatnonzero(fold == k)) for k in range(3)]
    assert audit_split(pairs, label)["overlapping"].sum() == 0
    whole = np.repeat(range(3), 200)  # the same stretches, nothing left out, do overlap
    pairs = [(np.flatnonzero(whole != k), np.flatnonzero(whole == k)) for k in range(3)]
    assert audit_split(pairs, label)["overlapping"].sum() > 0


def fake_java(folder, text, code=0):
    "A program named java that prints a version."
    program = folder / "java"
    program.write_text(f"#!/bin/sh\necho '{text}' >&2\nexit {code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture
def bare(monkeypatch):
    for name in ("JAVA_HOME", "H2O_JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    return monkeypatch


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for Java")
def test_java_that_is_missing_old_or_broken_is_said(bare, tmp_path):
    with pytest.raises(ModelError, match="(?s)H2O needs Java.*8 or newer.*FLAML"):
        find_java()
    bare.setenv("PATH", str(fake_java(tmp_path, 'java version "1.7.0_80"')))
    with pytest.raises(ModelError, match="(?s)too old.*Java 7"):
        find_java()
    fake_java(tmp_path, 'openjdk version "1.8.0_392"')
    assert find_java() == str(tmp_path / "java")
    fake_java(tmp_path, 'openjdk version "17.0.15" 2025-04-15')
    assert find_java() == str(tmp_path / "java")
    fake_java(tmp_path, "no runtime present", code=1)
    with pytest.raises(ModelError, match="does not start"):
        find_java()
    bare.setenv("PATH", "")
    bare.chdir(fake_java(tmp_path, 'java version "17.0.1"'))  # a program in the working directory is not run
    with pytest.raises(ModelError, match="needs Java"):
        find_java()


def test_without_h2o_the_error_names_the_extra(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "h2o" else real(name, *a))
    x, y, label = planted(300)
    with pytest.raises(ModelError, match=r"cryptolab\[h2o\]"):
        search_h2o(x, y, label, SIZES, folder=tmp_path)
    with pytest.raises(ModelError, match=r"cryptolab\[h2o\]"):
        ask_automl(Searched("h2o", tmp_path / "model.zip"), x)
    assert not list(tmp_path.iterdir())


def test_a_release_that_refuses_the_mojo_is_told_to_be_pinned(monkeypatch, tmp_path):
    class Refusing:
        def download_mojo(self, path):
            raise ValueError("MOJO export requires H2O-3 Secure")  # as 3.46.0.12 says it

    monkeypatch.setattr("importlib.metadata.version", lambda name: "3.46.0.12")
    with pytest.raises(ModelError, match="(?s)3.46.0.11.*3.46.0.12: MOJO export requires.*pin it"):
        write_mojo(Refusing(), tmp_path / "model.zip")


def test_h2o_is_not_fitted_again():
    x, y, _ = planted(300)
    with pytest.raises(ModelError, match="not fitted again"):
        fit_automl(x, y, None, {"learner": "h2o", "params": {}, "trees": 0})


def h2o_runs():
    "Why H2O cannot run here, or None."
    if importlib.util.find_spec("h2o") is None:
        return 'h2o is not installed (pip install "cryptolab[h2o]")'
    try:
        find_java()
    except ModelError as e:
        return str(e).splitlines()[0]


@pytest.mark.skipif(h2o_runs() is not None, reason=str(h2o_runs()))
def test_h2o_searches_and_its_mojo_is_asked_again(tmp_path):
    import h2o

    x, y, label = planted(800)
    sizes = {"automl_models": 2, "automl_folds": 2, "automl_memory": 1}
    lines = []
    found = search_h2o(x[:500], y[:500], label[:500], sizes, seed=1, folder=tmp_path, threads=2, log=lines.append)
    assert len(found["trials"]) >= 2 and "no ONNX" in lines[0]
    left = fold_column(label[:500], 2) < 0
    assert np.array_equal(np.isnan(found["forecast"]), left)
    assert log_loss(y[:500][~left], found["forecast"][~left]) == pytest.approx(found["loss"], abs=1e-6)

    model = Searched("h2o", found["path"], found["params"])
    p = ask_automl(model, x[512:])
    assert roc_auc_score(y[512:], p) > 0.65
    write_automl(tmp_path / "bundle", model)
    back = read_automl(tmp_path / "bundle", x.shape[1])
    assert np.array_equal(ask_automl(back, x[512:]), p)
    assert {f.name for f in (tmp_path / "bundle").iterdir()} == {"automl.json", "model.zip"}
    with pytest.raises(ModelError, match="columns"):
        read_automl(tmp_path / "bundle", 5)
    assert h2o.connection() is None or not h2o.connection().connected


@pytest.mark.skipif(h2o_runs() is not None, reason=str(h2o_runs()))
def test_the_server_listens_on_loopback_only_and_ends_with_its_block():
    psutil = pytest.importorskip("psutil")
    from cryptolab.models.h2o_engine import h2o_server

    def java():
        return [p for p in psutil.Process().children() if "java" in p.name()]

    with pytest.raises(KeyError):
        with h2o_server(threads=1, memory=1) as (_, folder):
            (server,) = java()
            open_at = server.net_connections(kind="inet")
            assert open_at and {c.laddr.ip for c in open_at} <= {"127.0.0.1", "::ffff:127.0.0.1"}
            raise KeyError
    assert not java() and not folder.exists()
