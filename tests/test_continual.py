"""Learning on: Fisher by formula, the pull by hand, a fair memory, and digits that are not forgotten."""
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy import stats

from benchmarks.continual import accuracies, batches_of, learn_all, network, permuted_digits
from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.models import continual
from cryptolab.models.continual import ContinualLearner, ReplayMemory, choose_importance

STORED = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / "continual.json").read_text())
DIGITS = "sparse_categorical_crossentropy"


def line(w=1.0):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[w]])])
    return model


def column(*numbers):
    return np.array(numbers, "float32")[:, None]


@pytest.fixture
def logistic():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 3)).astype("float32")
    y = rng.integers(0, 2, (12, 1)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "sigmoid")])
    model.set_weights([rng.standard_normal((3, 1)), np.array([0.3])])
    return model, x, y


def weights_of(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


# ---- Fisher

def by_formula(model, x, y):
    error = np.asarray(model(x)) - y
    return np.append((error**2 * x**2).mean(axis=0), (error**2).mean())


@pytest.mark.parametrize("at_once", [2**24, 20])
def test_fisher_of_logistic_regression(logistic, monkeypatch, at_once):
    monkeypatch.setattr(continual, "AT_ONCE", at_once)
    model, x, y = logistic
    learner = ContinualLearner(model)
    loader = ((x[at], y[at]) for at in (slice(0, 7), slice(7, 8), slice(8, 12)))
    found = np.concatenate([f.ravel() for f in learner.compute_fisher_information(loader, "binary_crossentropy")])
    wanted = by_formula(model, x, y)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    held = np.concatenate([f.ravel() for f in learner.fisher])
    np.testing.assert_allclose(held, wanted / wanted.mean(), rtol=1e-4)
    np.testing.assert_array_equal(np.concatenate([a.ravel() for a in learner.anchor]), weights_of(model))
    assert len(learner.memory) == 0  # rows that judge are not rows to learn


def test_recurrent_models_have_a_fisher():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4, 2)), keras.layers.LSTM(2), keras.layers.Dense(1)])
    x, y = np.random.default_rng(0).standard_normal((3, 4, 2)), column(1, 2, 3)
    found = ContinualLearner(model).compute_fisher_information([(x, y)], "mse")
    error = np.asarray(model(x)) - y
    assert found[-1][0] == pytest.approx(np.mean((2 * error) ** 2), rel=1e-4)  # of the last bias


@pytest.mark.parametrize("decay", [1.0, 0.25, 0.0])
def test_tasks_add_up_around_the_newest_weights(logistic, decay):
    model, x, y = logistic
    learner, formulas = ContinualLearner(model, decay=decay), []
    for task in (y, 1 - y):
        model.set_weights([w + 0.5 for w in model.get_weights()])
        learner.compute_fisher_information([(x, task)], "binary_crossentropy")
        formulas.append(by_formula(model, x, task))
    old, new = (f / f.mean() for f in formulas)
    held = np.concatenate([f.ravel() for f in learner.fisher])
    np.testing.assert_allclose(held, decay * old + new, rtol=1e-4)
    np.testing.assert_array_equal(np.concatenate([a.ravel() for a in learner.anchor]), weights_of(model))


def test_importance_without_rows_or_gradients_is_refused():
    learner = ContinualLearner(line(2.0))
    with pytest.raises(DataError, match="no rows"):
        learner.compute_fisher_information([], "mse")
    for y in (column(2, 4), column(np.nan, 1)):  # a perfect fit, and a missing value
        with pytest.raises(ModelError, match="importance of the weights is unknown"):
            learner.compute_fisher_information([(column(1, 2), y)], "mse")
    assert learner.fisher is None


# ---- the step

def test_the_pull_of_one_weight_by_hand():
    model = line(1.0)
    learner = ContinualLearner(model, memory_size=0, importance_weight=3.0)
    learner.compute_fisher_information([(column(1, 2), column(3, 3))], "mse")  # one weight: F = 1 after normalising
    model.set_weights([np.array([[1.5]])])
    loss = learner.continual_train_step(column(1, 2), column(2, 5), keras.optimizers.SGD(0.1), "mse")
    errors = np.array([1.5 - 2, 3 - 5])
    assert loss == pytest.approx((errors**2).mean() + 0.5 * 3 * 0.5**2, rel=1e-6)
    slope = 2 * (errors * [1, 2]).mean() + 3 * 0.5
    assert model.get_weights()[0][0, 0] == pytest.approx(1.5 - 0.1 * slope, rel=1e-6)


def test_without_penalty_and_memory_it_is_fine_tuning():
    task = permuted_digits(0, 1)[0]["train"]
    ours, plain = network(1), network(1)
    learner, optimizer = ContinualLearner(ours, memory_size=0, importance_weight=0.0), keras.optimizers.Adam(0.01)
    learner.compute_fisher_information([(task[0][:50], task[1][:50])], DIGITS)
    plain.compile(keras.optimizers.Adam(0.01), DIGITS)
    for x, y in batches_of(*task, 0)[:10]:
        loss = learner.continual_train_step(x, y, optimizer, DIGITS)
        assert loss == pytest.approx(float(plain.train_on_batch(x, y)), rel=1e-4)
    np.testing.assert_allclose(weights_of(ours), weights_of(plain), atol=1e-4)


def test_a_strong_pull_holds_every_weight_that_matters(logistic):
    model, x, y = logistic
    learner = ContinualLearner(model, memory_size=0, importance_weight=1e5)
    learner.compute_fisher_information([(x, y)], "binary_crossentropy")
    start, moved = model.get_weights(), {}
    for strength in (1e5, 0.0):
        model.set_weights(start)
        learner.importance_weight, optimizer = strength, keras.optimizers.Adam(0.001)
        for _ in range(300):
            learner.continual_train_step(x, 1 - y, optimizer, "binary_crossentropy")
        moved[strength] = np.abs(weights_of(model) - np.concatenate([w.ravel() for w in start]))
    assert moved[1e5].max() < 2e-3 and moved[0.0].min() > 0.05


def test_replayed_rows_count_as_much_as_new_ones():
    learner = ContinualLearner(line(1.0), memory_size=1)
    learner.remember(column(3), column(0))
    loss = learner.continual_train_step(column(1, 2), column(0, 0), keras.optimizers.SGD(0.0), "mse", remember=False)
    assert loss == pytest.approx((1 + 4 + 9 + 9) / 4)
    assert (learner.memory.seen, float(learner.memory.rows[0][0, 0])) == (1, 3)
    learner.continual_train_step(column(1, 2), column(0, 0), keras.optimizers.SGD(0.0), "mse")
    assert learner.memory.seen == 3


def test_training_state_moves_and_dropout_is_on():
    keras.utils.set_random_seed(0)
    layers = keras.layers.BatchNormalization(momentum=0.5), keras.layers.Dropout(0.5)
    model = keras.Sequential([keras.Input((1,)), *layers, keras.layers.Dense(1)])
    learner, optimizer = ContinualLearner(model, memory_size=0), keras.optimizers.SGD(0.0)
    losses = {learner.continual_train_step(column(1, 3), column(5, 9), optimizer, "mse") for _ in range(8)}
    assert len(losses) > 1
    assert model.layers[0].get_weights()[2][0] == pytest.approx(2 * (1 - 0.5**8), rel=1e-5)
    assert learner.evaluate(column(1), column(5), "mse") == learner.evaluate(column(1), column(5), "mse")


def test_dicts_and_a_model_that_waits_for_its_first_batch():
    inputs = {name: keras.Input((1,), name=name) for name in "ab"}
    model = keras.Model(inputs, {"sum": keras.layers.Dense(1)(keras.layers.Concatenate()(list(inputs.values())))})
    learner = ContinualLearner(model, memory_size=4)
    batch = {"a": column(1, 2), "b": column(3, 4)}, {"sum": column(4, 6)}

    def loss(targets, outputs):
        return (targets["sum"] - outputs["sum"]) ** 2

    optimizer = keras.optimizers.Adam(0.1)
    losses = [learner.continual_train_step(*batch, optimizer, loss) for _ in range(60)]
    assert losses[-1] < 0.1 * losses[0] and len(learner.memory) == 4
    waiting = ContinualLearner(keras.Sequential([keras.layers.Dense(1)]))
    assert np.isfinite(waiting.continual_train_step(column(1), column(1), keras.optimizers.SGD(), "mse"))


@pytest.mark.parametrize("settings", [dict(importance_weight=-1), dict(decay=1.5), dict(memory_size=-1)])
def test_settings_are_checked(settings):
    with pytest.raises(SettingsError):
        ContinualLearner(line(), **settings)


def test_devices_are_named_only():
    for device in (None, "cpu", "cuda:0", "GPU:1", "mps"):
        ContinualLearner(model=line(), device=device, memory_size=1000, importance_weight=0.5)
    with pytest.raises(SettingsError, match="unknown device"):
        ContinualLearner(line(), device="garage")


def test_an_infinite_loss_is_refused_before_it_moves_anything():
    model = line(1.0)
    learner = ContinualLearner(model)
    with pytest.raises(ModelError, match="finite loss"):
        learner.continual_train_step(column(1), column(np.nan), keras.optimizers.SGD(), "mse")
    assert model.get_weights()[0][0, 0] == 1.0 and len(learner.memory) == 0


# ---- memory

@pytest.mark.parametrize("batch", [1, 7, 40])
def test_every_row_is_kept_with_the_same_probability(batch):
    trials, kept = 1_500, np.zeros(40)
    for seed in range(trials):
        memory = ReplayMemory(8, seed)
        for at in range(0, 40, batch):
            memory.add((np.arange(40)[at : at + batch],))
        assert len(set(memory.rows[0].tolist())) == 8  # eight different rows
        kept[memory.rows[0]] += 1
    spread = trials * 0.2 * 0.8 * 32 / 39  # of one row's count, less what all share
    assert stats.chi2.sf(((kept - trials * 0.2) ** 2 / spread).sum() * 39 / 40, 39) > 1e-3


def test_memory_holds_pairs_and_draws_from_all():
    memory = ReplayMemory(5, seed=1)
    for at in range(0, 30, 4):
        rows = np.arange(at, at + 4)
        memory.add((rows[:, None] * 1.0, {"y": rows}))
    x, y = memory.sample(200)
    np.testing.assert_array_equal(x[:, 0], y["y"])
    assert set(y["y"]) == set(memory.rows[1]["y"]) and (len(memory), memory.seen) == (5, 32)
    nothing = ReplayMemory(0)
    nothing.add((x,))
    assert len(nothing) == 0


def test_same_seed_same_numbers(logistic):
    model, x, y = logistic
    start, found = model.get_weights(), []
    for seed in (1, 1, 2):
        model.set_weights(start)
        learner, optimizer = ContinualLearner(model, memory_size=3, seed=seed), keras.optimizers.SGD(0.1)
        for at in range(0, 12, 2):
            loss = learner.continual_train_step(x[at : at + 2], y[at : at + 2], optimizer, "binary_crossentropy")
        found.append((loss, *weights_of(model)))
    assert found[0] == found[1] != found[2]


# ---- three tasks

def test_choosing_leaves_model_and_memory_as_they_were():
    tasks, model = permuted_digits(0, 2), network(0)
    learner, adam = ContinualLearner(model, memory_size=50, seed=3), lambda: keras.optimizers.Adam(0.003)
    optimizer = adam()
    for x, y in batches_of(*tasks[0]["train"], 0):
        learner.continual_train_step(x, y, optimizer, DIGITS)
    learner.compute_fisher_information([tasks[0]["val"]], DIGITS)
    before, rows, seen = weights_of(model), learner.memory.rows[1].copy(), learner.memory.seen
    args = batches_of(*tasks[1]["train"], 1), tasks[0]["val"], tasks[1]["val"], DIGITS, adam
    table = choose_importance(learner, *args, candidates=(0.0, 0.1, 100.0))
    np.testing.assert_array_equal(weights_of(model), before)
    np.testing.assert_array_equal(learner.memory.rows[1], rows)
    assert learner.memory.seen == seen
    assert learner.importance_weight == table["importance_weight"][table["mean_loss"].idxmin()]
    assert table["new_loss"].is_monotonic_increasing  # the harder the old weights are held
    again = choose_importance(learner, *args, candidates=(0.0, 0.1, 100.0))
    np.testing.assert_allclose(again, table, rtol=1e-5)


def test_digits_are_not_forgotten():
    tasks = permuted_digits(1, 2)
    plain = learn_all(tasks, 0, 0.0, epochs=5)
    held, replayed = learn_all(tasks, 0, 0.1, epochs=5), learn_all(tasks, 200, 0.0, epochs=5)
    assert held["accuracy"][0] > plain["accuracy"][0] + 0.1
    assert replayed["accuracy"][0] > plain["accuracy"][0] + 0.1
    assert min(way["accuracy"][1] for way in (plain, held, replayed)) > 0.8


def test_stored_digits():
    found = {name: np.array([row["accuracy"] for row in way["seeds"].values()]) for name, way in STORED.items()}
    first, last = ({name: part[:, k] for name, part in found.items()} for k in (0, 2))
    assert len(first["ewc"]) >= 5
    for name in ("ewc", "ewc_default", "replay", "both", "both_default", "replay_100", "both_100"):
        assert (first[name] > first["fine_tuning"] + 0.25).all()
    for name in ("replay", "both", "replay_100"):  # nothing of the last task is lost
        assert (last[name] > last["fine_tuning"] - 0.02).all()
    assert (first["both_100"] > first["replay_100"]).all()  # EWC helps where the memory is small,
    assert 0.75 < last["ewc"].mean() < last["fine_tuning"].mean() - 0.05  # and costs some of what is new


def test_accuracies_are_shares_of_right_answers():
    task = permuted_digits(0, 1)
    assert accuracies(lambda x: np.eye(10)[task[0]["test"][1]], task) == [1.0]
