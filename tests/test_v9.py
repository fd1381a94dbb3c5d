"""V9 as a whole: rows, honesty, files, errors. Networks are the smallest that show the behaviour."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, ModelError, SettingsError, seed_everything
from cryptolab.data import load_candles, market_truth, null_market, planted_market, sample_market
from cryptolab.evaluation import baselines, comparison as board
from cryptolab.systems.v9.rows import prepare_rows, v9_labels
from cryptolab.systems.v9 import V9
from cryptolab.systems.v9.system import raw_forecast, train_part


@pytest.fixture(scope="module")
def candles():
    return sample_market(n=1_500, edge=0.1)


@pytest.fixture(scope="module")
def fitted(candles):
    seed_everything(0)
    return V9(profile="smoke", sizes={"trees": 20}).fit(candles, log=None)


@pytest.fixture(scope="module")
def folder(fitted, tmp_path_factory):
    return fitted.save(tmp_path_factory.mktemp("v9") / "model")


# --- rows -------------------------------------------------------------------------------------------------------------


def test_ten_thousand_candles_give_the_documents_rows(shared_data):
    candles = load_candles("BTCUSDT", "1h", source="local", data_dir=shared_data, limit=10_000, warmup=200)
    rows = prepare_rows(candles)
    assert rows.counts["labelled"] == 9_940
    assert rows.counts["parts"]["direction"] == {"train": 6_958, "val": 1_491, "test": 1_491}
    assert rows.counts["parts"]["volatility"] == {"train": 6_958 - 13, "val": 1_491 - 13, "test": 1_491 - 13}
    assert rows.windows.view.base is not None and rows.windows.values.nbytes < 10_200 * 46 * 4 + 1


def test_windows_and_labels_never_span_a_gap(shared_data):
    candles = load_candles("ETHUSDT", "1h", source="local", data_dir=shared_data, start="2018-01-20", end="2018-04-01")
    steps = candles.index.to_series().diff()
    assert (steps > pd.Timedelta("1h")).any()
    rows = prepare_rows(candles)
    assert rows.counts["dropped"]["gap"] > 0
    one_hour = (steps == pd.Timedelta("1h")).to_numpy()
    for part in ("train", "val", "test"):
        for number in rows.parts["direction"][part][0]:
            end = rows.windows.ends[number]
            assert one_hour[end - 58 : end + 2].all()  # the 60 rows of the window, and the candle of the label


# --- training ---------------------------------------------------------------------------------------------------------


def test_training_learns_what_kerass_own_fit_learns():
    "Same batches in the same order: our loop and `Model.fit`, dropout and the last smaller batch included."
    import keras

    from cryptolab.models.training import train_network, window_batches

    rng = np.random.default_rng(0)
    view = np.lib.stride_tricks.sliding_window_view(
        rng.standard_normal((500, 3)).astype("float32"), 6, axis=0,
    ).transpose(0, 2, 1)
    target = (view[:, -1, 0] > 0).astype("float32")
    train, val = (np.arange(301), target[:301]), (np.arange(320, 490), target[320:490])

    def network():
        keras.utils.set_random_seed(3)
        layers = [keras.layers.LSTM(5), keras.layers.Dropout(0.2, seed=1), keras.layers.Dense(1, activation="sigmoid")]
        return keras.Sequential([keras.Input((6, 3)), *layers])

    ours, theirs = network(), network()
    history = train_network(ours, view, train, val, "binary_crossentropy", 3, 0.03, 64, 9, 9, seed=7, log=None)

    class Epochs(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.batches = [list(window_batches(view, *train, 64, 7, epoch)) for epoch in range(3)]

        def __len__(self):
            return 15

        def __getitem__(self, i):
            return self.batches[i // 5][i % 5]

    theirs.compile(optimizer=keras.optimizers.Adam(0.03, clipnorm=1.0), loss="binary_crossentropy", jit_compile=False)
    theirs.fit(Epochs(), epochs=1, shuffle=False, verbose=0)
    assert history.attrs["best_epoch"] == 3
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    loss = theirs.evaluate(view[val[0]], val[1], batch_size=170, verbose=0)
    np.testing.assert_allclose(history.val_loss.iloc[-1], loss, rtol=1e-5)


# --- honesty ----------------------------------------------------------------------------------------------------------


def test_quick_direction_finds_a_planted_edge():
    seed_everything(11)
    system = V9(profile="quick", seed=11, sizes={"direction_epochs": 4})
    rows = prepare_rows(planted_market(edge=0.15, n=4_000, seed=11))
    model, history = train_part(system, "direction", rows, system.chosen_sizes(), log=None)
    test, up = rows.parts["direction"]["test"]
    assert history.attrs["best_epoch"] > 0  # the network adds to its linear path
    assert ((raw_forecast({"direction": model}, rows.windows, test, "direction") > 0.5) == up).mean() >= 0.60


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_where_nothing_is(seed):
    seed_everything(seed)
    candles = null_market(n=3_000, seed=seed)
    system = V9(profile="smoke", seed=seed).fit(candles, log=None)
    forecast, labels = system.forecast(candles), v9_labels(candles)
    rows = {part: system.rows(part) for part in ("train", "val", "test")}
    y, r, test = labels["direction"].y, labels["price"].y, rows["test"]
    direction = board.direction_comparison(
        y[test], {"V9": forecast.p_up[test]}, baselines.majority_class(y[rows["train"]]), r[test],
    )
    price = board.price_comparison(
        candles.close[test], candles.close[test] * np.exp(r[test]), {"V9": forecast.mu[test]},
    )
    assert direction.p_majority["V9"] > 0.001 and price.p_zero["V9"] > 0.001
    sigma = {"V9": forecast.sigma[test], "true sigma": market_truth(candles).true_sigma[test]}
    assert board.volatility_comparison(r[test].abs(), sigma, "true sigma", 1).skill["V9"] <= 0


@pytest.mark.parametrize("part", ["direction", "volatility"])
def test_another_seed_gives_other_numbers(candles, fitted, part):
    other = V9(profile="smoke", seed=1, sizes={"trees": 20, "direction_epochs": 1})
    _, history = train_part(other, part, prepare_rows(candles), other.chosen_sizes(), log=None)
    assert history.loss[1] != fitted.histories_[part].loss[1]


def test_the_published_form_runs(candles):
    published = V9(
        profile="smoke", variant="published", pooling="average", wide=0, standard=False, gap=1, vol_target="natr_next",
        weights="published",
    )
    forecast = published.fit(candles, log=None).forecast(candles)
    assert forecast.p_up.between(0, 1).all() and forecast.attrs["horizon"] == 2
    assert list(published.results_["price_metrics"]) == ["rmse", "mae", "mape", "r2"]


# --- forecasts --------------------------------------------------------------------------------------------------------


def test_forecast_of_candles_it_was_not_fitted_on(fitted):
    other = sample_market("ETHUSDT", n=600)
    table = fitted.forecast(other)
    assert table.index[-1] == other.index[-1] and len(table) == 600 - 167 - 59
    alone = fitted.forecast(other.iloc[-420:])
    # slow averages remember a little of what was cut
    np.testing.assert_allclose(alone.p_up.iloc[-1], table.p_up.iloc[-1], atol=0.02)


def test_a_forecast_needs_a_whole_window(fitted, candles):
    with pytest.raises(DataError, match="candles|rows"):
        fitted.forecast(candles.iloc[:100])


@pytest.mark.parametrize("wrong", [{"profile": "huge"}, {"variant": "secret"}, {"dropout": 2}, {"coverage": 1.0},
                                   {"window": 0}, {"vol_target": "rsi"},
                                   {"sizes": {"batch_size": 0}}, {"weights": "mine"}, {"fractions": (0.5, 0.5)}])
def test_impossible_parameters_are_refused_before_training(candles, wrong):
    with pytest.raises(SettingsError):
        V9(**{"profile": "smoke", **wrong}).fit(candles, log=lambda line: pytest.fail("training had begun"))


def test_sizes_can_be_anything(candles):
    system = V9(
        profile="smoke", window=40, wide=100,
        sizes={"batch_size": 16, "direction_units": (6, 3), "direction_epochs": 1, "price_epochs": 1},
    ).fit(candles.iloc[-600:], log=None)
    assert system.models_["direction"].input_shape == (None, 40, 46)


# --- files ------------------------------------------------------------------------------------------------------------


def test_folder_holds_the_documents_files(folder):
    expected = {
        "direction_model_v9.keras", "direction_model_v9.h5", "volatility_model_v9.json", "price_model_v9.keras",
        "price_model_v9.h5", "scaler_v9.json", "ensemble_v9.json", "rows.json", "manifest.json",
        "v9_results.json", "training.log",
    }
    assert {p.name for p in folder.iterdir()} == expected
    results = json.loads((folder / "v9_results.json").read_text())
    assert {k: list(v) for k, v in results.items() if isinstance(v, dict)} == {
        "direction_metrics": ["accuracy", "precision", "recall", "f1", "roc_auc"],
        "volatility_metrics": ["rmse", "mae", "mape", "r2"],
        "price_metrics": ["rmse", "mae", "mape", "r2"],
    }


def test_the_documents_loading_code_works(folder, fitted, candles):
    tf, xgb = pytest.importorskip("tensorflow"), pytest.importorskip("xgboost")
    dir_model = tf.keras.models.load_model(folder / "direction_model_v9.h5")
    price_model = tf.keras.models.load_model(folder / "price_model_v9.h5")
    vol_model = xgb.XGBRegressor()
    vol_model.load_model(folder / "volatility_model_v9.json")
    x = np.random.default_rng(0).random((3, 60, 46)).astype("float32")
    np.testing.assert_allclose(
        dir_model.predict(x, verbose=0), fitted.models_["direction"].predict(x, verbose=0), atol=1e-6,
    )
    np.testing.assert_allclose(
        price_model.predict(x, verbose=0), fitted.models_["price"].predict(x, verbose=0), atol=1e-6,
    )
    assert vol_model.predict(x.reshape(3, -1)).shape == (3,)


def test_a_folder_of_an_earlier_version(candles, fitted, folder, earlier_version):
    earlier_version(fitted, folder, candles)


def test_a_foreign_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match="no model folder"):
        V9.load(tmp_path)


def test_a_model_for_another_feature_set_is_refused(folder, tmp_path):
    from cryptolab.systems.artefacts import write_manifest

    copy = shutil.copytree(folder, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    facts = {k: v for k, v in manifest.items() if k not in ("files", "sha256")}
    write_manifest(copy, **facts | {"features": ["rsi_99", *facts["features"][1:]]})
    with pytest.raises(ModelError, match="another feature set"):
        V9.load(copy)


def test_predict_prints_the_newest_forecast_and_needs_no_training_data(folder, fitted):
    from typer.testing import CliRunner

    from cryptolab.cli.main import app

    done = CliRunner().invoke(app, ["predict", "BTCUSDT", "1h", "--model", str(folder), "--source", "sample", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert 0 < said["p_up"] < 1 and said["lower"] < said["price"] < said["upper"]
    assert set(said["ensemble_output"]) == {"direction", "volatility", "price"}


def test_the_newest_forecast_needs_no_tensorflow_and_is_the_same(folder, fitted, candles):
    code = (
        "import sys; from cryptolab.serving.forecast import newest_forecast as ask\n"
        f"said = ask('BTCUSDT', '1h', {str(folder)!r}, 'sample')\n"
        "heavy = [m for m in ('tensorflow', 'keras', 'plotly', 'papermill') if m in sys.modules]\n"
        "print(heavy, said['p_up'], said['mu'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded, up, mu = done.stdout.rpartition("] ")[0] + "]", *done.stdout.split()[-2:]
    assert loaded == "[]", done.stderr
    row = fitted.forecast(load_candles("BTCUSDT", "1h", source="sample", limit=400, warmup=200)).iloc[-1]
    np.testing.assert_allclose([float(up), float(mu)], row[["p_up", "mu"]].astype(float), rtol=1e-5, atol=1e-9)
    light = V9.for_newest().load(folder)
    assert len(light.forecast(candles)) == 1
    whole, theirs = light.forecast(candles, newest=None), fitted.forecast(candles)
    np.testing.assert_allclose(whole[["p_up", "natr"]], theirs[["p_up", "natr"]], rtol=0, atol=3e-7)
    np.testing.assert_allclose(whole["price_return"], theirs["price_return"], rtol=0, atol=1e-8)


def test_windows_that_leave_a_part_without_rows_are_refused(candles):
    with pytest.raises(DataError):
        V9(profile="smoke").fit(candles.iloc[:180], log=None)


def test_work_of_other_code_is_not_taken_up(monkeypatch):
    "A finished model of an interrupted run is used again only by the very code that made it."
    from cryptolab.data import load_candles
    from cryptolab.systems import artefacts
    from cryptolab.systems.v9 import system as v9

    candles = load_candles("BTCUSDT", "1h", source="sample", limit=300)
    before = v9.v9_fit_key(v9.V9(), candles)
    assert before == v9.v9_fit_key(v9.V9(), candles)
    monkeypatch.setattr(artefacts, "library_code", lambda: "another state")
    assert v9.v9_fit_key(v9.V9(), candles) != before
