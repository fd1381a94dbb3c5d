"""Gradients: against differences and formulas, through lookups, loops and states, and second order."""
import keras
import numpy as np
import pytest
from keras import ops

from cryptolab.config import ModelError, SettingsError
from cryptolab.models.gradients import (
    as_tensors, assign_values, build_model, can_vectorize, compiled, loss_gradients, map_rows, model_function,
    model_loss, model_values, optimizer_step, value_and_gradients,
)


def small(*hidden, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((3,)), *hidden, keras.layers.Dense(2)])


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.standard_normal((6, 3)).astype("float32"), rng.standard_normal((6, 2)).astype("float32")


def flat(parts):
    return np.concatenate([np.ravel(part) for part in parts])


# ---- value and gradient

def test_gradient_is_that_of_differences(rows):
    model = small(keras.layers.Dense(4, "tanh"))
    loss, found = loss_gradients(model, *rows, "mse")
    assert loss == pytest.approx(np.mean((np.asarray(model(rows[0])) - rows[1]) ** 2), rel=1e-5)
    start = model.get_weights()
    for k, weight in enumerate(start):
        for place in list(np.ndindex(weight.shape))[::3]:
            values = []
            for sign in (1, -1):
                moved = [w.copy() for w in start]
                moved[k][place] += sign * 1e-2
                model.set_weights(moved)
                values.append(loss_gradients(model, *rows, "mse")[0])
            assert found[k][place] == pytest.approx((values[0] - values[1]) / 2e-2, abs=2e-3)


def test_third_order_and_a_value_that_depends_on_nothing():
    def order(n, function):
        return function if n == 0 else lambda v: value_and_gradients(order(n - 1, function), v)[1][0]

    point = [ops.convert_to_tensor(2.0)]
    found = [float(order(n, lambda v: v[0] ** 4)(point)) for n in range(5)]
    assert found == [16, 32, 48, 48, 24]
    value, gradient = value_and_gradients(lambda v: ops.convert_to_tensor(5.0), point)
    assert (float(value), float(gradient[0])) == (5, 0)


def test_stopped_gradients_are_constants():
    def through(stop):
        def function(v):
            inner = value_and_gradients(lambda w: w[0] ** 3, v)[1][0]  # 3 a^2
            return (ops.stop_gradient(inner) if stop else inner) * v[0]
        return float(value_and_gradients(function, [ops.convert_to_tensor(2.0)])[1][0])

    assert (through(False), through(True)) == (36, 12)  # 9 a^2, and 3 a^2 alone


def test_lookups_give_dense_gradients():
    model = keras.Sequential([keras.Input((2,), dtype="int32"), keras.layers.Embedding(5, 1), keras.layers.Flatten()])
    _, (found,) = loss_gradients(model, np.array([[1, 1], [3, 0]], "int32"), np.zeros((2, 2)), lambda y, out: out)
    np.testing.assert_allclose(found[:, 0], [0.25, 0.5, 0, 0.25, 0])


def test_an_unknown_backend_is_named(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(SettingsError, match="no gradients"):
        value_and_gradients(lambda v: v[0], [1.0])


# ---- models as functions

def test_the_model_stays_as_it_is_and_the_state_comes_out(rows):
    model = small(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
    before = model.get_weights()
    weights, state = model_values(model)
    function = model_function(model)
    x = as_tensors(rows[0])
    _, still, _ = function(weights, state, x)
    out, moved, _ = function(weights, state, x, True)
    np.testing.assert_array_equal(flat(model.get_weights()), flat(before))
    np.testing.assert_array_equal(flat(still), flat(state))
    np.testing.assert_allclose(np.asarray(moved[0]), 0.01 * rows[0].mean(axis=0), atol=1e-6)  # momentum 0.99
    again, _, _ = function(weights, moved, x, True)
    assert np.abs(np.asarray(out) - np.asarray(again)).max() > 0  # the dropout's counter went on


def test_values_are_copies_and_number_and_order_are_checked():
    model = small()
    weights, _ = model_values(model)
    kept = flat(weights)
    model.set_weights([w + 1 for w in model.get_weights()])
    np.testing.assert_array_equal(flat(weights), kept)
    with pytest.raises(ValueError):
        assign_values(model.trainable_variables, weights[:1])


def test_own_losses_count_in_training_only(rows):
    model = small(keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1)))
    loss, values = model_loss(model, "mse"), model_values(model)
    plain, _ = loss(*values, *as_tensors(rows))
    training, _ = loss(*values, *as_tensors(rows), True)
    assert float(training - plain) == pytest.approx(0.1 * (model.get_weights()[0] ** 2).sum(), rel=1e-4)


@pytest.mark.parametrize("told", [True, False])
def test_a_model_of_ones_own_with_dict_outputs_and_without_an_argument_for_training(rows, told):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        if told:
            def call(self, inputs, training=False):
                return {"a": self.dense(inputs["x"]) + (1.0 if training else 0.0)}
        else:
            def call(self, inputs):
                return {"a": self.dense(inputs["x"])}

    model = build_model(Own(), {"x": rows[0]})
    loss, values = model_loss(model, lambda y, out: (y["a"] - out["a"]) ** 2), model_values(model)
    data = as_tensors(({"x": rows[0]}, {"a": rows[1][:, :1]}))
    asked = np.mean((np.asarray(model({"x": rows[0]})["a"]) - rows[1][:, :1]) ** 2)
    assert float(loss(*values, *data)[0]) == pytest.approx(asked, rel=1e-5)
    assert (float(loss(*values, *data, True)[0]) == pytest.approx(asked, rel=1e-5)) is not told


def test_integers_stay_and_floats_become_kerass():
    found = as_tensors([np.arange(2), {"a": np.arange(2.0)}, np.arange(2, dtype="float16")])
    kinds = [keras.backend.standardize_dtype(part.dtype) for part in keras.tree.flatten(found)]
    assert kinds == ["int64", "float32", "float32"]


def test_a_frozen_model_is_refused(rows):
    model = small()
    model.trainable = False
    with pytest.raises(ModelError, match="nothing to train"):
        build_model(model, rows[0])


# ---- programs

def test_an_optimizers_program_does_what_the_optimizer_does(rows):
    ours, keras_own = small(keras.layers.Dense(4)), small(keras.layers.Dense(4))
    rule = keras.optimizers.Adam(0.05, clipnorm=1.0)
    step, other = optimizer_step(rule, ours), keras.optimizers.Adam(0.05, clipnorm=1.0)
    for rate in (0.05, 0.05, 0.01):
        rule.learning_rate = other.learning_rate = rate
        gradients = [g * 3 for g in loss_gradients(keras_own, *rows, "mse")[1]]
        step(as_tensors(gradients))
        other.apply(as_tensors(gradients), keras_own.trainable_variables)
    np.testing.assert_allclose(flat(ours.get_weights()), flat(keras_own.get_weights()), atol=1e-6)


def test_compiled_runs_once_per_shape():
    runs = []

    def double(x):
        runs.append(1)
        return 2 * x

    fast = compiled(double)
    assert [float(fast(ops.convert_to_tensor(v))) for v in (1.0, 2.0, 3.0)] == [2, 4, 6]
    assert len(runs) == 1


@pytest.mark.parametrize("layer", [
    lambda: keras.layers.LSTM(3), lambda: keras.layers.LSTM(2, unroll=True), lambda: keras.layers.Conv1D(2, 2),
    lambda: keras.layers.Bidirectional(keras.layers.GRU(2)), lambda: keras.layers.Flatten(),
])
def test_rows_one_after_another_or_side_by_side_are_the_same(layer):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4, 2)), layer(), keras.layers.Flatten(), keras.layers.Dense(1)])
    x = np.random.default_rng(2).standard_normal((3, 4, 2)).astype("float32")
    loss, (weights, state) = model_loss(model, "mse"), model_values(model)

    def single(row):
        row = keras.tree.map_structure(lambda part: part[None], row)
        return value_and_gradients(lambda w: loss(w, state, *row)[0], weights)[1]

    found = compiled(lambda rows: map_rows(single, rows, can_vectorize(model)))(as_tensors((x, np.ones((3, 1)))))
    for k in range(3):
        wanted = loss_gradients(model, x[k : k + 1], np.ones((1, 1)), "mse")[1]
        np.testing.assert_allclose(flat([part[k] for part in found]), flat(wanted), atol=1e-5)

