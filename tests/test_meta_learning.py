"""MAML: one weight by hand, meta-gradients against differences, and sines that pretraining does not learn."""
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks.meta_learning import judged, network, sine_task, whole_task
from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.models.meta_learning import MetaLearningMAML

STORED = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / "meta_learning.json").read_text())


def line(w=1.0):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[w]])])
    return model


def column(*numbers):
    return np.array(numbers, "float32")[:, None]


SUPPORT = column(1, 2), column(2, 5)  # mean of x squared 2.5, of xy 6
TASK = (*SUPPORT, column(3), column(6))


# ---- by hand: w' = w - 2 alpha (a w - b), query loss (3 w' - 6)^2

def inner(w, steps, alpha=0.1):
    for _ in range(steps):
        w -= 2 * alpha * (2.5 * w - 6)
    return w


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_inner_steps_of_one_weight(steps):
    model = line()
    maml = MetaLearningMAML(model, inner_lr=0.1, num_inner_steps=steps)
    adapted = maml.adapt(*SUPPORT, "mse")
    assert float(adapted(column(3))[0, 0]) == pytest.approx(3 * inner(1.0, steps), rel=1e-6)
    assert float(model(column(3))[0, 0]) == 3.0
    assert float(maml.adapt(*SUPPORT, "mse", steps=0)(column(3))[0, 0]) == 3.0


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_meta_gradient_of_one_weight(steps, first_order):
    maml = MetaLearningMAML(line(), inner_lr=0.1, num_inner_steps=steps, first_order=first_order)
    before, after, (gradient,) = maml.meta_gradients([TASK, TASK], "mse")
    new = inner(1.0, steps)
    chain = 1.0 if first_order else (1 - 2 * 0.1 * 2.5) ** steps  # derivative of w' by w
    assert (before, after) == pytest.approx((9, (3 * new - 6) ** 2), rel=1e-5)
    assert float(gradient[0, 0]) == pytest.approx(6 * (3 * new - 6) * chain, rel=1e-5)


def test_meta_gradient_is_that_of_differences_and_first_order_is_not():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(1)])
    tasks = [sine_task(np.random.default_rng(k)) for k in range(3)]
    maml = MetaLearningMAML(model, inner_lr=0.05, num_inner_steps=2)
    start = model.get_weights()
    _, _, found = maml.meta_gradients(tasks, "mse")
    _, _, first = MetaLearningMAML(model, 0.05, 2, first_order=True).meta_gradients(tasks, "mse")
    wanted = []
    for k in range(5):
        values = []
        for sign in (1, -1):
            moved = [w.copy() for w in start]
            moved[2][k, 0] += sign * 0.01
            model.set_weights(moved)
            values.append(maml.meta_gradients(tasks, "mse")[1])
        wanted.append((values[0] - values[1]) / 0.02)
    np.testing.assert_allclose(np.ravel(found[2]), wanted, atol=3e-3)
    assert np.abs(np.ravel(first[2]) - wanted).max() > 0.05


def test_a_meta_batch_is_the_mean_of_its_tasks():
    model, tasks = network(1), [sine_task(np.random.default_rng(k)) for k in range(4)]
    maml = MetaLearningMAML(model, num_inner_steps=2)
    alone = [maml.meta_gradients([task], "mse") for task in tasks]
    together = maml.meta_gradients(tasks, "mse")
    assert together[1] == pytest.approx(np.mean([found[1] for found in alone]), rel=1e-5)
    for k, gradient in enumerate(together[2]):
        np.testing.assert_allclose(gradient, np.mean([found[2][k] for found in alone], axis=0), atol=1e-5)


# ---- the base model, other models

def test_adapting_leaves_the_base_alone_and_copies_into_a_model():
    model = network(2)
    before, (x, y, query, _) = model.get_weights(), sine_task(np.random.default_rng(0))
    maml = MetaLearningMAML(model, inner_lr=0.05)
    first, second = maml.adapt(x, y, "mse"), maml.adapt(x, -y, "mse")
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    answers = np.asarray(first(query))
    assert np.abs(answers - np.asarray(second(query))).max() > 0.1
    model.set_weights([w * 0 for w in before])  # the adapted model has weights of its own
    np.testing.assert_array_equal(np.asarray(first(query)), answers)
    np.testing.assert_allclose(np.asarray(first.copy_to(model)(query)), answers, atol=1e-6)


def test_dropout_is_off_and_averages_stay():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dropout(0.9)]
    model = keras.Sequential([keras.Input((1,)), *layers, keras.layers.Dense(1)])
    task = sine_task(np.random.default_rng(0))
    maml = MetaLearningMAML(model, num_inner_steps=1)
    history = maml.meta_train([task], "mse", steps=2, meta_batch=2, log=None)
    np.testing.assert_array_equal(model.layers[1].get_weights()[2], np.zeros(4))
    answers = [np.asarray(maml.adapt(*task[:2], "mse")(task[2])) for _ in range(2)]
    np.testing.assert_array_equal(*answers)
    assert np.isfinite(history["after"]).all()


def test_recurrent_models_and_dicts():
    keras.utils.set_random_seed(0)
    inputs = {"path": keras.Input((3, 2), name="path"), "now": keras.Input((1,), name="now")}
    hidden = keras.layers.Concatenate()([keras.layers.SimpleRNN(3)(inputs["path"]), inputs["now"]])
    model = keras.Model(inputs, {name: keras.layers.Dense(1)(hidden) for name in "ab"})
    rng = np.random.default_rng(0)
    x = {"path": rng.standard_normal((6, 3, 2)), "now": rng.standard_normal((6, 1))}
    y = {"a": x["path"].sum(axis=1)[:, :1], "b": x["now"]}

    def loss(targets, outputs):
        return sum(keras.ops.mean((targets[name] - outputs[name]) ** 2) for name in "ab")

    maml = MetaLearningMAML(model, 0.1, 1, outer_lr=0.01)
    history = maml.meta_train([(x, y, x, y)], loss, steps=4, meta_batch=2, every=1, log=None)
    assert (history["after"] < history["before"]).all() and history["after"].is_monotonic_decreasing
    assert set(maml.adapt(x, y, loss)(x)) == {"a", "b"}


def test_a_model_that_waits_for_its_first_batch():
    model = keras.Sequential([keras.layers.Dense(1)])
    assert MetaLearningMAML(model).adapt(*SUPPORT, "mse")(column(3)).shape == (1, 1)


# ---- meta-training

def test_same_seed_same_numbers_and_a_second_call_goes_on():
    found = []
    for calls in ((6,), (6,), (3, 3)):
        maml = MetaLearningMAML(network(3), num_inner_steps=1, seed=5)
        losses = [maml.meta_train(sine_task, "mse", steps, 4, every=1, log=None)["after"] for steps in calls]
        found.append(np.concatenate(losses))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    other = MetaLearningMAML(network(3), num_inner_steps=1, seed=6).meta_train(sine_task, "mse", 6, 4, log=None)
    assert found[0].mean() != pytest.approx(other["after"][0], rel=1e-3)


def test_history_and_lines_and_a_list_drawn_without_repetition():
    lines, drawn = [], []

    class Tasks(list):
        def __getitem__(self, k):
            drawn.append(int(k))
            return super().__getitem__(k)

    tasks = Tasks(sine_task(np.random.default_rng(k)) for k in range(5))
    maml = MetaLearningMAML(network(0), num_inner_steps=1)
    history = maml.meta_train(tasks, "mse", steps=5, meta_batch=5, every=2, log=lines.append)
    assert history["step"].tolist() == [2, 4, 5] and len(lines) == 3 and "step 4/5" in lines[1]
    assert all(sorted(drawn[at : at + 5]) == list(range(5)) for at in range(0, 25, 5))


def test_what_cannot_be_learned_is_refused():
    maml = MetaLearningMAML(line(), inner_lr=0.1)
    with pytest.raises(DataError, match="no tasks"):
        maml.meta_train([], "mse")
    with pytest.raises(DataError, match="tasks of a meta-batch differ"):
        maml.meta_gradients([TASK, (*SUPPORT, column(1, 2), column(1, 2))], "mse")
    with pytest.raises(DataError, match="tasks of a meta-batch differ"):
        maml.meta_gradients([SUPPORT], "mse")
    with pytest.raises(ModelError, match="did not learn"):
        MetaLearningMAML(line(), inner_lr=1e30).meta_train([TASK], "mse", steps=1, log=None)
    for settings in (dict(inner_lr=0), dict(num_inner_steps=-1), dict(outer_lr=-1)):
        with pytest.raises(SettingsError, match="cannot learn"):
            MetaLearningMAML(line(), **settings)


def test_a_few_hundred_steps_make_sines_learnable_and_pretraining_does_not():
    rng = np.random.default_rng(7)
    tasks, errors = [sine_task(rng, 10, 50) for _ in range(40)], {}
    for name, sampler, steps in (("maml", sine_task, 1), ("pretrained", whole_task, 0)):
        model = network(0)
        MetaLearningMAML(model, num_inner_steps=steps, outer_lr=2e-3).meta_train(sampler, "mse", 500, log=None)
        errors[name] = judged(model, tasks, (1,))[1]
    assert errors["maml"] < 0.65 * errors["pretrained"]


# ---- the stored comparison

def test_stored_sines():
    for row in STORED["seeds"].values():
        assert row["maml"]["error"]["1"] < 0.5 * row["pretrained_best_rate"]["error"]["1"]
        assert row["maml"]["error"]["1"] < row["first_order"]["error"]["1"]
        assert row["maml"]["error"]["0"] > 2.5  # not by being good before it adapts
    assert len(STORED["seeds"]) >= 5
