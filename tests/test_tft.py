"""The Temporal Fusion Transformer: its equations by hand, causality, a planted rule, and neuralforecast's numbers."""
import json
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ultimate import LEARN, PEERS, parameters, with_weights_of
from cryptolab.config import DataError, SettingsError, load_keras
from cryptolab.models.keras_classes import KerasLayer
from cryptolab.models.tft import TemporalFusionTransformer, quantile_loss
from cryptolab.models.tft_blocks import (
    GatedResidualNetwork, InterpretableAttention, Linear, VariableSelection,
)

STORED = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / "ultimate.json").read_text())["tft"]
SIZES = dict(
    input_size=3, hidden_size=8, num_attention_heads=2, output_quantiles=[0.1, 0.5, 0.9], horizons=(1, 4), num_layers=2,
)


def rows(known=0, static=0, window=6, batch=5, seed=0):
    "An input of each kind that is asked for."
    rng = np.random.default_rng(seed)
    parts = {"observed": (window, 3), "known": (window + 4, known), "static": (static,)}
    return {
        name: rng.standard_normal((batch, *shape)).astype("float32") for name, shape in parts.items() if shape[-1]
    }


def asked(model, inputs):
    "Predictions and weights as arrays."
    predictions, weights = model(inputs)
    return np.asarray(predictions), {name: np.asarray(part) for name, part in weights.items()}


def reversed_weights(layer):
    "Draw every weight anew, so that no bias is 0 and no scale is 1."
    rng = np.random.default_rng(7)
    layer.set_weights([rng.normal(0, 0.5, weight.shape) for weight in layer.get_weights()])
    return layer


# ---- the blocks by hand: NumPy, one variable after the other

def dense(x, layer, k=...):
    return x @ np.asarray(layer.kernel)[k] + (0 if layer.bias is None else np.asarray(layer.bias)[k])


def grn_by_hand(grn, a, first, skip, context=0, k=...):
    "LayerNorm(a + GLU(W1 ELU(W2 a + W3 c + b2) + b1)) of one variable."
    hidden = dense(a, first, k) + context
    hidden = dense(np.where(hidden > 0, hidden, np.exp(hidden) - 1), grn.second, k)
    total = skip + dense(hidden, grn.out.value, k) / (1 + np.exp(-dense(hidden, grn.out.gate, k)))
    mean, variance = total.mean(axis=-1, keepdims=True), total.var(axis=-1, keepdims=True)
    return (total - mean) / np.sqrt(variance + 1e-3) * np.asarray(grn.out.scale)[k] + np.asarray(grn.out.shift)[k]


def test_residual_network_by_hand():
    grn = reversed_weights(GatedResidualNetwork(6, count(1), outputs=2, context=3, skip=Linear(6, 2, count(9))))
    rng = np.random.default_rng(0)
    a, c = rng.standard_normal((4, 5, 6)), rng.standard_normal((4, 3))
    wanted = grn_by_hand(grn, a, grn.first, dense(a, grn.skip), dense(c, grn.context)[:, None])
    np.testing.assert_allclose(np.asarray(grn(a, c)), wanted, atol=1e-5)


@pytest.mark.parametrize("width", [None, 4])
def test_variable_selection_is_the_one_with_a_network_for_each_variable(width):
    "The paper's: embed each variable, a network for each in a loop, a network over all embeddings side by side."
    layer = reversed_weights(VariableSelection(5, 6, count(1), width=width, context=3))
    rng = np.random.default_rng(1)
    x, c = rng.standard_normal((4, 7, 5)), rng.standard_normal((4, 3))
    embedded = [dense(x[..., k : k + 1], layer.embedding, k) for k in range(5)]
    each = [grn_by_hand(layer.own, e, layer.own.first.linear, e, k=k) for k, e in enumerate(embedded)]
    flat, weigh = np.concatenate(embedded, axis=-1), layer.weigh
    scores = grn_by_hand(weigh, flat, weigh.first.linear, dense(flat, weigh.skip.linear),
                         dense(c, weigh.context)[:, None])
    wanted = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    chosen = sum(wanted[..., k, None] * each[k] for k in range(5))
    chosen = dense(chosen, layer.widen) if width else chosen
    found, weights = layer(x, c)
    np.testing.assert_allclose(np.asarray(weights), wanted, atol=1e-5)
    np.testing.assert_allclose(np.asarray(found), chosen, atol=1e-4)


def test_first_draw_of_many_matrices_is_that_of_one():
    many, one = Linear(40, 60, count(1), variables=150), Linear(40, 60, count(1))
    assert np.asarray(many.kernel).std() == pytest.approx(np.asarray(one.kernel).std(), rel=0.03)
    assert np.asarray(one.kernel).std() == pytest.approx((2 / 100) ** 0.5, rel=0.03)  # Glorot
    assert not np.allclose(many.kernel[0], many.kernel[1])


def test_attention_by_hand_and_its_mask():
    layer, rng = reversed_weights(InterpretableAttention(6, 2, count(1))), np.random.default_rng(2)
    x = rng.standard_normal((3, 5, 6))
    query, key = (dense(x, part).reshape(3, 5, 2, 3) for part in (layer.query, layer.key))
    mean = np.zeros((3, 5, 5))
    for head in range(2):
        scores = query[:, :, head] @ key[:, :, head].transpose(0, 2, 1) / 3**0.5
        scores[:, np.triu(np.ones((5, 5), bool), 1)] = -np.inf
        mean += np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True) / 2
    found, weights = layer(x, x, positions=range(5))
    np.testing.assert_allclose(np.asarray(weights), mean, atol=1e-5)
    np.testing.assert_allclose(np.asarray(found), dense(mean @ dense(x, layer.value), layer.out), atol=1e-5)
    assert (np.asarray(weights)[:, np.triu(np.ones((5, 5), bool), 1)] == 0).all()


# ---- the network

def test_parameters_by_hand():
    "3 observed, 2 known and 2 static columns, hidden 8, 2 layers, 3 quantiles."
    h, w = 8, 4

    def linear(i, o, bias=True):
        return i * o + o * bias

    def grn(i, o, units=h, context=0, skip=False):
        first = linear(i, units) + linear(units, units) + linear(context, units, False)
        return first + 2 * linear(units, o) + 2 * o + skip * linear(i, o)

    def selection(m, context, width):
        own = m * (linear(1, width) + grn(width, width, width))
        weigh = grn(m * width, m, context=context, skip=True) if m > 1 else 0
        return own + weigh + (linear(width, h) if width != h else 0)

    def whole(past, future, static, width):
        context, gate = (h if static else 0), 2 * linear(h, h) + 2 * h
        lstm = 4 * (h * h + h * h + h)
        attention = 2 * linear(h, h, False) + linear(h, h // 2, False) + linear(h // 2, h, False)
        contexts = selection(static, 0, width) + 4 * grn(h, h) if static else 0
        return (
            contexts + selection(past, context, width) + selection(future, context, width) + 2 * 2 * lstm + 3 * gate
            + grn(h, h, context=context) + grn(h, h) + attention + linear(h, 3)
        )

    assert TemporalFusionTransformer(**SIZES).count_params() == whole(3, 1, 0, h)
    named = dict(known_size=2, static_size=2)
    assert TemporalFusionTransformer(**SIZES, **named).count_params() == whole(5, 2, 2, h)
    assert TemporalFusionTransformer(**SIZES, **named, selection_width=w).count_params() == whole(5, 2, 2, w)


@pytest.mark.parametrize("known, static, width", [(0, 0, None), (2, 0, None), (0, 2, 4), (2, 1, None), (1, 3, 4)])
def test_shapes_and_weights_that_sum_to_one(known, static, width):
    model = TemporalFusionTransformer(**SIZES, known_size=known, static_size=static, selection_width=width)
    inputs = rows(known, static)
    predictions, weights = asked(model, inputs)
    assert predictions.shape == (5, 2, 3) and model.represent(inputs)[0].shape == (5, 2, 8)
    wanted = {"attention": (5, 2, 10), "observed_weights": (5, 6, 3 + known), "importance": (5, 3 + known)}
    wanted |= {"known_weights": (5, 4, known)} if known else {}
    wanted |= {"static_weights": (5, static)} if static else {}
    assert {name: part.shape for name, part in weights.items()} == wanted
    for part in weights.values():
        np.testing.assert_allclose(part.sum(axis=-1), 1, atol=1e-5)
        assert part.min() >= 0
    assert (weights["attention"][:, 0, 7:] == 0).all() and (weights["attention"][:, 1] > 0).all()


def test_array_and_dict_are_one_and_other_windows_are_taken():
    model, inputs = TemporalFusionTransformer(**SIZES), rows()
    np.testing.assert_array_equal(asked(model, inputs["observed"])[0], asked(model, inputs)[0])
    assert asked(model, rows(window=9)["observed"])[0].shape == (5, 2, 3)


def test_quantiles_are_a_matrix_on_the_representation():
    model, inputs = TemporalFusionTransformer(**SIZES), rows()
    np.testing.assert_allclose(
        asked(model, inputs)[0], dense(np.asarray(model.represent(inputs)[0]), model.quantiles), atol=1e-6,
    )


@pytest.mark.parametrize("change, remedy", [
    (dict(observed=(5, 6, 2)), "unusable input"), (dict(known=(5, 9, 2)), "unusable input"),
    (dict(known=None), "unusable input"), (dict(static=(5, 1, 2)), "unusable input"),
    (dict(more=(5, 2)), "unusable input"),
])
def test_unusable_inputs_are_refused(change, remedy):
    model = TemporalFusionTransformer(**SIZES, known_size=2, static_size=2)
    inputs = rows(2, 2) | {name: shape and np.zeros(shape, "float32") for name, shape in change.items()}
    with pytest.raises(DataError, match=remedy):
        model({name: part for name, part in inputs.items() if part is not None})


@pytest.mark.parametrize("sizes", [
    dict(num_attention_heads=3), dict(num_attention_heads=0), dict(horizons=(5, 1)), dict(horizons=()),
    dict(horizons=(0, 1)), dict(output_quantiles=(0.5, 1.0)), dict(output_quantiles=()), dict(dropout=1.0),
    dict(selection_width=0), dict(known_size=-1), dict(num_layers=0),
])
def test_unusable_sizes_are_refused(sizes):
    with pytest.raises(SettingsError, match="unusable"):
        TemporalFusionTransformer(**SIZES | sizes)


# ---- time

def states(model, inputs):
    "The enriched state of each time step, which attention works on."
    past, future, contexts, _ = model._select(*model._read(inputs), False)
    return np.asarray(model._remember(past, future, contexts, False)[1])


def test_nothing_is_known_before_its_time():
    model, inputs = TemporalFusionTransformer(**SIZES, known_size=2), rows(2)
    for at, name in ((3, "observed"), (8, "known")):
        changed = {k: part.copy() for k, part in inputs.items()}
        changed[name][:, at:] += 1
        before, after = states(model, inputs), states(model, changed)
        np.testing.assert_array_equal(before[:, :at], after[:, :at])
        assert (np.abs(before[:, at:] - after[:, at:]).max(axis=(0, 2)) > 1e-4).all()
    predictions, wanted = asked(model, changed)[0], asked(model, inputs)[0]  # known from the third step ahead on
    np.testing.assert_array_equal(predictions[:, 0], wanted[:, 0])
    assert np.abs(predictions[:, 1] - wanted[:, 1]).max() > 1e-4


def test_decoder_goes_on_from_the_encoder_and_static_columns_start_it():
    model, inputs = TemporalFusionTransformer(**SIZES, static_size=2), rows(static=2)
    past, future, contexts, _ = model._select(*model._read(inputs), False)
    bare, _ = model._remember(past, future, contexts, False)
    for name in ("state", "cell"):
        moved, _ = model._remember(past, future, contexts | {name: contexts[name] + 1}, False)
        assert (np.abs(np.asarray(moved - bare)).max(axis=(0, 2)) > 1e-5).all()
    other = np.asarray(past).copy()
    other[:, -1] += 1
    moved, _ = model._remember(other, future, contexts, False)
    assert (np.abs(np.asarray(moved - bare)[:, 5:]).max(axis=(0, 2)) > 1e-5).all()


# ---- loss and training

def test_quantile_loss_by_hand():
    y, forecast = [[2.0, -1.0]], [[[1.0, 5.0], [-1.0, -3.0]]]
    # 0.2 * 1, 0.2 * 3, 0, 0.8 * 2
    assert float(quantile_loss(y, forecast, (0.2, 0.8))) == pytest.approx((0.2 + 0.6 + 0 + 1.6) / 4)
    two = float(quantile_loss(y * 2, forecast + [[[2.0, 2.0], [-1.0, -1.0]]], (0.2, 0.8), weights=[1.0, 3.0]))
    assert two == pytest.approx((0.2 + 0.6 + 0 + 1.6) / 4 / 4)


def test_every_weight_gets_a_gradient():
    import tensorflow as tf

    model, inputs = TemporalFusionTransformer(**SIZES, known_size=2, static_size=2), rows(2, 2, batch=16)
    with tf.GradientTape() as tape:
        loss = quantile_loss(np.ones((16, 2)), model(inputs, training=True)[0], model.output_quantiles)
    found = tape.gradient(loss, model.trainable_variables)
    silent = [v.path for v, g in zip(model.trainable_variables, found) if g is None or not np.abs(g).max() > 0]
    assert not silent and len(found) == len(model.weights)


def test_same_seed_same_numbers_and_weights_can_be_put_back():
    load_keras().utils.set_random_seed(1)
    model, inputs = TemporalFusionTransformer(**SIZES, seed=3), rows()
    load_keras().utils.set_random_seed(2)
    twin, other = TemporalFusionTransformer.from_config(model.get_config()), TemporalFusionTransformer(**SIZES, seed=4)
    np.testing.assert_array_equal(asked(model, inputs)[0], asked(twin, inputs)[0])
    np.testing.assert_array_equal(model(inputs, training=True)[0], twin(inputs, training=True)[0])
    assert np.abs(asked(model, inputs)[0] - asked(other, inputs)[0]).max() > 1e-3
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(asked(model, inputs)[0], asked(other, inputs)[0])


def test_a_file_and_a_subclass(tmp_path):
    keras = load_keras()
    model, inputs = TemporalFusionTransformer(**SIZES), rows()
    model.save(tmp_path / "tft.keras")
    names = {"TemporalFusionTransformer": TemporalFusionTransformer}
    again = keras.saving.load_model(tmp_path / "tft.keras", custom_objects=names)
    np.testing.assert_array_equal(asked(again, inputs)[0], asked(model, inputs)[0])

    class Direction(TemporalFusionTransformer):
        def __init__(self):
            super().__init__(**SIZES)
            self.head = keras.layers.Dense(1)

        def call(self, inputs, training=None):
            return self.head(self.represent(inputs, training)[0][:, 0])

    direction = Direction()
    assert isinstance(direction, keras.Model) and direction(inputs).shape == (5, 1)
    assert isinstance(model, TemporalFusionTransformer) and not isinstance(direction, type(model))


def test_fit_and_predict_use_the_quantile_loss_and_the_weights_of_rows():
    model, inputs = TemporalFusionTransformer(**SIZES, dropout=0.0), rows()
    y, counts = np.arange(10.0).reshape(5, 2), np.arange(5.0)
    wanted = quantile_loss(y, model(inputs)[0], model.output_quantiles, counts)
    model.compile("adam", run_eagerly=True)
    history = model.fit(inputs, y, sample_weight=counts, verbose=0)
    assert history.history["loss"][0] == pytest.approx(float(wanted), rel=1e-5)
    predictions, weights = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(predictions, asked(model, inputs)[0], atol=1e-6)
    assert weights["attention"].shape == (5, 2, 10)


def test_importing_it_does_not_import_keras():
    import subprocess

    code = "import sys, cryptolab.models.tft; sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert KerasLayer.__mro__[1] is object


def test_training_names_the_planted_column_and_candle():
    "Column 3, twelve candles before the end, is the answer; the hour is known."
    keras = load_keras()
    rng, day = np.random.default_rng(2), 2 * np.pi * np.arange(17) / 24
    x = rng.standard_normal((4_096, 16, 6)).astype("float32")
    y = x[:, -12, 3:4] + 0.1 * rng.standard_normal((4_096, 1))
    hours = np.broadcast_to(1.4 * np.stack([np.sin(day), np.cos(day)], axis=-1), (4_096, 17, 2)).astype("float32")
    model = TemporalFusionTransformer(6, 16, 1, horizons=(1,), num_layers=1, dropout=0.1, known_size=2, seed=2)
    model.compile(keras.optimizers.Adam(0.01, global_clipnorm=1.0))
    for _ in range(200):
        part = rng.integers(4_096, size=128)
        loss = model.train_on_batch({"observed": x[part], "known": hours[part]}, y[part])
    later = {"observed": x[:300], "known": hours[:300]}
    predictions, weights = asked(model, later)
    assert float(loss) < 0.08  # 0.25 is what a forecast without knowledge costs
    assert weights["attention"].mean(axis=0)[0].argmax() == 4 and weights["attention"][:, 0, 4].mean() > 0.5
    assert weights["observed_weights"].mean(axis=0)[4, :6].argmax() == 3
    low, middle, high = (np.mean(y[:300] < predictions[:, 0, k : k + 1]) for k in range(3))
    assert low < 0.3 < middle < 0.7 < high


# ---- against other libraries, whose numbers benchmarks/ultimate.py stored

def test_it_is_neuralforecasts_network():
    "With weights drawn alike, ours gives what neuralforecast gave: three kinds of columns, two layers, two heads."
    found = with_weights_of(STORED["same"]["shapes"])
    for name, wanted in STORED["same"]["wanted"].items():
        np.testing.assert_allclose(found[name], wanted, atol=2e-6)
    assert np.std(found["forecast"]) > 0.1


def test_parameters_beside_neuralforecast():
    stored = STORED["learned"]["parameters"]
    today = parameters({})
    more = sum(today["neuralforecast has more"].values())
    assert today["cryptolab with the relative time"] + more == stored["neuralforecast"]


def test_it_learns_not_worse_than_the_peers_and_is_faster():
    learned, runs = STORED["learned"], STORED["learned"]["seeds"].values()
    assert len(runs) >= 3 and not learned["missing"] and learned["sizes"] == json.loads(json.dumps(LEARN))
    for network in PEERS:
        assert learned["paired"][network]["low"] <= 0, f"worse than {network}"
    assert all(run["cryptolab"]["named"] == 3 for run in runs)
    assert all(run["best"] < run["cryptolab"]["loss"] < 1.25 * run["best"] for run in runs)
    assert min(STORED["speed"]["times_faster"].values()) > 3
