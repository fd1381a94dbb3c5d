"""UltimateTrainer and ensembles: known answers by hand, and a training that no kill changes."""
import json
import math

import numpy as np
import pytest

from cryptolab.config import DataError, ModelError, SettingsError, load_keras
from cryptolab.systems.ultimate.batches import ArrayLoader, device_scope, first_digest, output_scores, read_batches
from cryptolab.systems.ultimate.ensemble import create_ensemble_predictions, optimize_ensemble_weights
from cryptolab.systems.ultimate.fit import TrainingDiverged, TrainingRules, TrainingState, UltimateTrainer

NAMED = dict(num_epochs=7, learning_rate=0.2, loss="mse", plateau=1, patience=7, checkpoint_every=2, log=None)


def network(width=6, dropout=0.3):
    keras = load_keras()
    keras.utils.set_random_seed(1)
    layers = keras.layers
    parts = [layers.Dense(width, activation="relu"), layers.Dropout(dropout), layers.Dense(1)]
    return keras.Sequential([keras.Input((3,)), *parts])


def linear(start=(0.5, -1.0)):
    "One number out of two, without a constant."
    keras = load_keras()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array(start, "float32")[:, None]])
    return model


def rows(seed=0, n=144):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3)).astype("float32")
    return x, (np.abs(x[:, :1]) - 0.8 + 0.3 * rng.standard_normal((n, 1))).astype("float32")


def loaders(cls=ArrayLoader, **named):
    x, y = rows()
    return cls(x[:96], y[:96], 32, seed=3, **named), ArrayLoader(x[96:], y[96:], 48)


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "A training that nothing disturbed: history, weights, folder."
    folder = tmp_path_factory.mktemp("whole")
    trainer = UltimateTrainer(network(), save_dir=folder)
    history = trainer.train(*loaders(), **NAMED)
    assert len(set(history["learning_rate"])) > 1 and trainer.state.best_epoch < 7  # all parts of the state matter
    return history, trainer.model.get_weights(), folder


# ---- known answers

def test_two_steps_of_adam_with_a_clipped_gradient_by_hand():
    x, y = np.array([[1.0, 2.0], [3.0, -1.0]], "float32"), np.array([[4.0], [-2.0]], "float32")
    w, m, v, rate, clip = np.array([0.5, -1.0]), np.zeros(2), np.zeros(2), 0.1, 0.7
    losses = []
    for k in (1, 2):
        error = x @ w - y[:, 0]
        losses.append(np.mean(error**2))
        g = 2 * x.T @ error / 2
        g = g * min(1, clip / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - rate * (m / (1 - 0.9**k)) / np.sqrt(v / (1 - 0.999**k))
    model = linear()
    history = UltimateTrainer(model).train([(x, y)], [(x, y)], 2, rate, 10, clip, loss="mse", log=None)
    np.testing.assert_allclose(model.get_weights()[0][:, 0], w, rtol=5e-5)  # 1 - 0.999 in single precision
    np.testing.assert_allclose(history["train_loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(history["val_loss"][-1], np.mean((x @ w - y[:, 0]) ** 2), rtol=5e-5)


def test_the_rate_falls_as_with_keras():
    keras = load_keras()
    rng, model = np.random.default_rng(4), linear()
    model.compile(keras.optimizers.Adam(0.1), "mse")
    callback = keras.callbacks.ReduceLROnPlateau(factor=0.3, patience=3, min_delta=0, min_lr=1e-3, verbose=0)
    callback.set_model(model)
    callback.on_train_begin()
    rules, losses = TrainingRules(0.1, plateau=3, factor=0.3, floor=1e-3), rng.random(60)
    state = TrainingState(0.1, losses[0])
    callback.on_epoch_end(0, {"val_loss": losses[0]})
    for epoch, loss in enumerate(losses[1:], 1):
        state.finish(rules, 1.0, float(loss), {})
        callback.on_epoch_end(epoch, {"val_loss": loss})
        assert state.rate == pytest.approx(float(model.optimizer.learning_rate.numpy()), rel=1e-6)
    assert state.rate == 1e-3


def test_a_mean_counts_rows_and_their_weights():
    x, y = rows()
    weight = np.where(np.arange(144) % 3, 1.0, 0.5).astype("float32")
    model = network()
    trainer = UltimateTrainer(model)
    trainer.train([(x, y)], [(x, y)], 1, loss="mse", log=None)
    error = (model.predict(x, verbose=0) - y)[:, 0] ** 2
    pieces = [(x[:100], y[:100]), (x[100:], y[100:])]
    assert trainer.validate(pieces)[0] == pytest.approx(error.mean(), rel=1e-5)
    loss, scores = trainer.validate([(x[:100], y[:100], weight[:100]), (x[100:], y[100:], weight[100:])])
    assert loss == pytest.approx((weight * error).mean(), rel=1e-5)
    assert scores["mse"] == pytest.approx(np.average(error, weights=weight), rel=1e-5)


def test_scores_as_scikit_learn_has_them():
    from sklearn.metrics import accuracy_score, mean_absolute_error

    rng = np.random.default_rng(0)
    classes, shares = rng.integers(0, 3, 50), rng.random((50, 3))
    direction, weight = rng.standard_normal((50, 1)), rng.random(50)
    y = {"price_direction": classes, "volatility": direction}
    out = {"price_direction": shares, "volatility": direction / 2}
    found = output_scores(y, out | {"more": shares}, weight)
    assert found["price_direction_accuracy"] == pytest.approx(
        accuracy_score(classes, shares.argmax(axis=1), sample_weight=weight)
    )
    assert found["volatility_mae"] == pytest.approx(mean_absolute_error(direction, direction / 2, sample_weight=weight))
    assert found["volatility_direction_accuracy"] == 1
    assert output_scores(rng.random((50, 2)), rng.random((50, 2, 3))) == {}  # quantiles
    assert output_scores(np.arange(3), np.zeros((3, 1))) == {}  # labels of three classes, one column
    assert set(output_scores(rng.random((5, 2)) + 1, rng.random((5, 2)))) == {"mae", "mse"}  # one sign only


# ---- when it ends, and what it hands back

def test_patience_ends_it_and_the_best_epoch_comes_back(tmp_path):
    lines, losses = [], []
    trainer = UltimateTrainer(network(), save_dir=tmp_path)
    history = trainer.train(
        *loaders(), **NAMED | {"num_epochs": 40, "patience": 3, "log": lines.append},
        on_epoch=lambda epoch, history: losses.append((epoch, history["val_loss"][-1])),
    )
    best = int(np.argmin(history["val_loss"])) + 1
    assert len(history["val_loss"]) == best + 3 == trainer.state.epoch < 40
    assert trainer.validate(loaders()[1])[0] == pytest.approx(min(history["val_loss"]), rel=1e-6)
    assert losses == list(enumerate(history["val_loss"], 1))
    assert len(lines) == best + 4 and lines[best].count("*") == 1 and "s left" in lines[-1] and "*" not in lines[-1]
    other = network(dropout=0)
    assert UltimateTrainer(other, save_dir=tmp_path).load_best() == history
    assert same(other.get_weights(), trainer.model.get_weights())


def test_a_training_that_only_harms_hands_the_model_back():
    x, y = rows()
    best = np.linalg.lstsq(x[:, :2], y, rcond=None)[0]
    model = linear(best[:, 0])
    history = UltimateTrainer(model).train([(x[:, :2], y)], [(x[:, :2], y)], 3, 1.0, loss="mse", log=None)
    assert len(history["train_loss"]) == 3
    np.testing.assert_array_equal(model.get_weights()[0], best)


def test_the_seed_decides_dropout_and_the_process_does_not(whole):
    load_keras().random.normal((3,))  # somebody else's random numbers
    np.random.default_rng().random()
    again = UltimateTrainer(network()).train(*loaders(), **NAMED)
    other = UltimateTrainer(network()).train(*loaders(), **NAMED, seed=1)
    assert again == whole[0] and other["train_loss"] != again["train_loss"]


# ---- killed, and gone on

def interrupted(folder, epoch=4):
    "A training with so many finished epochs."
    def stop(done, history):
        if done == epoch:
            raise KeyboardInterrupt

    trainer = UltimateTrainer(network(), save_dir=folder)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(*loaders(), **NAMED, on_epoch=stop)
    return trainer


def test_interrupted_between_any_two_epochs(whole, tmp_path):
    for epoch in (1, 2, 6):
        cut = interrupted(tmp_path / str(epoch), epoch)
        assert cut.validate(loaders()[1])[0] == pytest.approx(min(whole[0]["val_loss"][:epoch]), rel=1e-6)
        trainer = UltimateTrainer(network(), save_dir=tmp_path / str(epoch))
        assert trainer.train(*loaders(), **NAMED, resume=True) == whole[0]
        assert same(trainer.model.get_weights(), whole[1])


def test_killed_while_a_checkpoint_is_swapped_in(whole, tmp_path):
    interrupted(tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / ".checkpoint.old-1")
    (tmp_path / ".checkpoint.new-1").mkdir()
    (tmp_path / "epochs" / ".0004.npz.1").touch()
    assert UltimateTrainer(network(), save_dir=tmp_path).train(*loaders(), **NAMED, resume=True) == whole[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "epochs"]


def test_resume_begins_where_there_is_nothing_and_extends_what_is_finished(whole, tmp_path):
    first = UltimateTrainer(network(), save_dir=tmp_path).train(*loaders(), **NAMED | {"num_epochs": 3}, resume=True)
    assert first["val_loss"] == whole[0]["val_loss"][:3]
    assert UltimateTrainer(network(), save_dir=tmp_path).train(*loaders(), **NAMED, resume=True) == whole[0]
    lines = []
    finished = UltimateTrainer(network(), save_dir=tmp_path)
    assert finished.train(*loaders(), **NAMED | {"log": lines.append}, resume=True) == whole[0]
    assert len(lines) == 1 and same(finished.model.get_weights(), whole[1])


def test_another_training_in_the_folder_replaces_what_was_there(tmp_path):
    interrupted(tmp_path)
    assert sorted(p.name for p in (tmp_path / "epochs").iterdir()) == ["0002.npz", "0004.npz"]
    UltimateTrainer(network(), save_dir=tmp_path).train(*loaders(), **NAMED | {"num_epochs": 3})
    assert [p.name for p in (tmp_path / "epochs").iterdir()] == ["0002.npz"]


OTHER = {
    "learning_rate": {"learning_rate": 0.01}, "patience": {"patience": 6}, "grad_clip": {"grad_clip": None},
    "plateau": {"plateau": 2}, "factor": {"factor": 0.1}, "floor": {"floor": 0.0}, "seed": {"seed": 1},
    "loss": {"loss": "mae"},
}


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    interrupted(folder, 1)
    return folder


@pytest.mark.parametrize("name", OTHER)
def test_another_setting_is_another_training(cut, name):
    with pytest.raises(ModelError, match=f"of another training(.|\n)*'{name}'"):
        UltimateTrainer(network(), save_dir=cut).train(*loaders(), **NAMED | OTHER[name], resume=True)


def test_other_rows_another_network_or_an_altered_file_are_no_start(cut):
    x, y = rows(1)
    train, val = loaders()
    others = {"training": (ArrayLoader(x, y, 32, seed=3), val), "validation": (train, ArrayLoader(x, y, 48))}
    for name, pair in others.items():
        with pytest.raises(ModelError, match=f"'{name} rows'"):
            UltimateTrainer(network(), save_dir=cut).train(*pair, **NAMED, resume=True)
    wide = network(7)
    before = wide.get_weights()
    with pytest.raises(ModelError, match="best.npz(.|\n)*does not fit"):
        UltimateTrainer(wide, save_dir=cut).train(*loaders(), **NAMED, resume=True)
    assert same(wide.get_weights(), before)
    for file in sorted((cut / "checkpoint").iterdir()):
        good = file.read_bytes()
        for bad in (good[:-7], good[:200] + bytes([good[200] ^ 1]) + good[201:], None):
            file.unlink() if bad is None else file.write_bytes(bad)
            with pytest.raises(ModelError):
                UltimateTrainer(network(), save_dir=cut).train(*loaders(), **NAMED, resume=True)
            file.write_bytes(good)
    UltimateTrainer(network(), save_dir=cut).train(*loaders(), **NAMED | {"num_epochs": 1}, resume=True)


# ---- what goes wrong

def test_nan_ends_it_and_overwrites_nothing(tmp_path):
    kept = {p: p.read_bytes() for p in interrupted(tmp_path, 2).save_dir.rglob("*") if p.is_file()}
    x, y = rows()
    bad = y.copy()
    bad[70] = np.nan
    model = network()
    before = model.get_weights()
    with pytest.raises(TrainingDiverged, match="training loss is nan(.|\n)*batch 3 of epoch 1"):
        UltimateTrainer(model, save_dir=tmp_path).train([(x[k : k + 32], bad[k : k + 32]) for k in (0, 32, 64)],
                                                        loaders()[1], **NAMED)
    with pytest.raises(TrainingDiverged, match="validation loss is nan"):
        UltimateTrainer(model, save_dir=tmp_path).train(loaders()[0], [(x, bad)], **NAMED)
    assert same(model.get_weights(), before)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == kept


@pytest.mark.parametrize("named, why", [
    ({"num_epochs": 0}, "num_epochs"), ({"learning_rate": math.inf}, "learning_rate"), ({"patience": True}, "patience"),
    ({"grad_clip": 0}, "grad_clip"), ({"checkpoint_every": 0}, "checkpoint_every"), ({"factor": 1.0}, "factor"),
    ({"plateau": 0}, "plateau"), ({"floor": -1.0}, "floor"), ({"seed": -1}, "seed"), ({"resume": True}, "save_dir"),
])
def test_impossible_settings(named, why):
    with pytest.raises(SettingsError, match=why):
        UltimateTrainer(network()).train(*loaders(), **NAMED | named)


def test_loaders_that_cannot_be_read():
    train, val = loaders()
    x, y = rows()
    wrong = {
        "make a list": iter([(x, y)]), "gave no batch": [], "no \\(x, y\\)": [x], "rows of one table": [(x, y[:9])],
        "weighs anything": [(x, y, np.zeros(len(x), "float32"))],
    }
    for why, loader in wrong.items():
        with pytest.raises((DataError, SettingsError), match=why):
            UltimateTrainer(network()).train(loader, val, **NAMED)
    with pytest.raises(ModelError, match="no loss"):
        UltimateTrainer(network()).train(train, val, log=None)
    with pytest.raises(ModelError, match="no model"):
        UltimateTrainer("model.keras")


# ---- models and loaders of other kinds

def test_a_compiled_model_keeps_its_loss_and_a_rate_that_the_trainer_sets():
    keras, model = load_keras(), network()
    model.compile("sgd", loss="mae", metrics=["mse"], jit_compile=False)
    model.train_on_batch(*(part[:32] for part in rows()))  # its program of this shape must not be used any more
    trainer = UltimateTrainer(model)
    history = trainer.train(*loaders(), 2, 0.01, log=None)
    assert history["val_loss"][-1] == pytest.approx(history["mae"][-1], rel=1e-5)
    assert isinstance(model.optimizer, keras.optimizers.Adam) and int(model.optimizer.iterations.numpy()) == 2 * 3


def test_dictionaries_and_a_loss_of_the_models_own():
    keras = load_keras()

    class Own(keras.Model):
        "Two inputs by name; answers with an interpretation; knows its loss."

        def __init__(self):
            super().__init__()
            self.out = keras.layers.Dense(1)

        def call(self, inputs, training=False):
            return self.out(inputs["past"]) + inputs["static"], {"attention": inputs["past"]}

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(keras.ops.abs(y["price"] - y_pred[0]))

    x, y = rows()
    part = lambda a, b: ArrayLoader({"past": x[a:b], "static": x[a:b, :1]}, {"price": y[a:b]}, 32, seed=0)
    keras.utils.set_random_seed(0)
    model = Own()
    history = UltimateTrainer(model).train(part(0, 96), part(96, 144), 3, 0.05, log=None)
    assert history["train_loss"][-1] < history["train_loss"][0] and len(history["val_loss"]) == 3
    answer = create_ensemble_predictions([model, model], {"past": x, "static": x[:, :1]})
    assert answer.shape == (144, 1)


def test_an_epoch_decides_the_order_and_set_epoch_is_called():
    seen = []

    class Spy(ArrayLoader):
        def set_epoch(self, epoch):
            seen.append(epoch)
            super().set_epoch(epoch)

    train, val = loaders(Spy)
    UltimateTrainer(network()).train(train, val, **NAMED | {"num_epochs": 3})
    assert seen[-3:] == [0, 1, 2]
    orders = [np.concatenate([y[:, 0] for _, y, _ in read_batches(train, k)]) for k in (0, 1, 0)]
    assert np.array_equal(orders[0], orders[2]) and not np.array_equal(orders[0], orders[1])
    assert len(train) == 3 and first_digest(train) == first_digest(loaders()[0]) != first_digest(val)


def test_devices():
    lines = []
    for name in ("cuda", "cuda:0", "GPU:1"):
        device_scope(name, lines.append)
    if not load_keras().distribution.list_devices("gpu"):
        assert len(lines) == 3 and all("working on the processor" in line for line in lines)
        with pytest.warns(UserWarning, match="there is no device `cuda`"):
            UltimateTrainer(network(), "cuda").train(*loaders(), **NAMED | {"num_epochs": 1})
    for wrong in ("cuda0", "", 0, "cpu:x"):
        with pytest.raises(SettingsError, match="unknown device"):
            UltimateTrainer(network(), wrong)


# ---- ensembles

X = np.linspace(-1, 1, 21)[:, None]


def line(slope, shift=0.0):
    return lambda x: slope * x + shift


def loss_of(models, loader, weights):
    "Mean squared error of an ensemble."
    return np.mean([np.mean((create_ensemble_predictions(models, x, weights) - y) ** 2) for x, y in loader])


def test_weights_of_two_models_by_hand():
    np.testing.assert_allclose(optimize_ensemble_weights([line(0), line(4)], [(X, X)]), [0.75, 0.25], atol=1e-6)
    np.testing.assert_allclose(optimize_ensemble_weights([line(2), line(3)], [(X, X)]), [1, 0], atol=1e-9)
    small = 1e-4  # returns of an hour: the squared error is 1e-9
    found = optimize_ensemble_weights([line(0), line(4 * small)], [(X, X * small)])
    np.testing.assert_allclose(found, [0.75, 0.25], atol=1e-5)
    weighted = [(X, np.where(X > 0, X, 3 * X), np.where(X[:, 0] > 0, 1.0, 0.0))]  # only half of the rows count
    np.testing.assert_allclose(optimize_ensemble_weights([line(0), line(4)], weighted), [0.75, 0.25], atol=1e-6)


def test_weights_against_least_squares_and_every_single_model():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3))
    y = x @ [0.2, 0.5, 0.3] + 0.1 * rng.standard_normal(400)
    models = [lambda x, k=k: x[:, [k]] for k in range(3)]
    loader = [(x[:150], y[:150]), (x[150:], y[150:])]  # targets without a column
    found = optimize_ensemble_weights(models, loader)
    heavy = 1e6  # the sum as one more equation
    wanted = np.linalg.lstsq(np.vstack([x, heavy * np.ones(3)]), np.append(y, heavy), rcond=None)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for seed in range(5):
        noisy = [lambda x, s=(seed, k): np.random.default_rng(s).standard_normal((len(x), 1)) for k in range(4)]
        some = [(X, X)]
        found = optimize_ensemble_weights(noisy, some)
        assert found.min() >= 0 and found.sum() == pytest.approx(1)
        singles = [loss_of(noisy, some, w) for w in np.eye(4)]
        assert loss_of(noisy, some, found) <= min(*singles, loss_of(noisy, some, None))


def test_log_loss_as_the_hybrid_has_it():
    import pandas as pd

    from cryptolab.systems.hybrid.fit import fit_vote

    rng = np.random.default_rng(2)
    truth = rng.uniform(0.1, 0.9, 500)
    y = (rng.random(500) < truth).astype("float32")
    votes = np.clip(truth[:, None] + rng.normal(0, [0.3, 0.2, 0.25], (500, 3)), 0.02, 0.98)
    wanted = list(fit_vote(pd.DataFrame(votes), y).values())
    columns = [lambda x, k=k: x[:, [k]] for k in range(3)]
    both = [lambda x, k=k: np.stack([1 - x[:, k], x[:, k]], axis=1) for k in range(3)]
    np.testing.assert_allclose(optimize_ensemble_weights(columns, [(votes, y)]), wanted, atol=2e-3)
    np.testing.assert_allclose(optimize_ensemble_weights(both, [(votes, y.astype(int))]), wanted, atol=2e-3)


def test_a_loss_of_the_callers_own_and_several_outputs():
    def pinball(y, p):
        error = y - p["q"]
        return np.maximum(0.9 * error, -0.1 * error).mean()

    y = np.arange(1, 101.0)[:, None]
    models = [lambda x: {"q": np.zeros_like(x)}, lambda x: {"q": np.full_like(x, 100.0)}]
    found = optimize_ensemble_weights(models, [(y, y)], loss=pinball)
    assert 100 * found[1] == pytest.approx(90, abs=1.5)  # the quantile
    np.testing.assert_allclose(create_ensemble_predictions(models, y, found)["q"], 100 * found[1])
    with pytest.raises(SettingsError, match="several outputs"):
        optimize_ensemble_weights(models, [(y, y)])


def test_equal_models_get_some_weights_and_answer_alike():
    found = optimize_ensemble_weights([line(2)] * 3, [(X, X)])
    assert found.sum() == pytest.approx(1) and found.min() >= 0
    for weights in (found, None, [0.2, 0.3, 0.5]):
        np.testing.assert_allclose(create_ensemble_predictions([line(2)] * 3, X, weights), 2 * X)


def test_impossible_ensembles():
    wrong = {"sum 1": [0.5, 0.6], "2 numbers": [1.0], "none negative": [1.5, -0.5], "numbers": [np.nan, 1.0]}
    for why, weights in wrong.items():
        with pytest.raises(SettingsError, match=why):
            create_ensemble_predictions([line(1), line(2)], X, weights)
    with pytest.raises(ModelError, match="without models"):
        create_ensemble_predictions([], X)
    with pytest.raises(ModelError, match="model 1 answers in another form"):
        optimize_ensemble_weights([line(1), lambda x: x[:, 0]], [(X, X)])
    with pytest.raises(ModelError, match="other shapes"):
        optimize_ensemble_weights([line(1)], [(X, np.hstack([X, X]))])
    labels = (X > 0).astype(int)
    with pytest.raises(ModelError, match="needs probabilities"):
        optimize_ensemble_weights([line(1)], [(X, labels)])
    with pytest.raises(SettingsError, match="unknown loss"):
        optimize_ensemble_weights([line(1)], [(X, X)], loss="mape")


def test_networks_are_asked_in_pieces():
    model, (x, _) = network(), rows(n=2_500)
    np.testing.assert_allclose(create_ensemble_predictions([model], x), model.predict(x, verbose=0), atol=1e-6)


def test_the_manifest_is_plain_json(whole):
    manifest = json.loads((whole[2] / "checkpoint" / "manifest.json").read_text())
    assert manifest["state"]["history"] == whole[0] and "best.npz" in manifest["files"]
