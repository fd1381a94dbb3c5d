"""Four heads and their losses: known answers, missing labels, learned weights, and a shared cause."""
import numpy as np
import pytest
import tensorflow as tf

from cryptolab.config import DataError, SettingsError
from cryptolab.models.multi_task import (
    CLASSES, TASKS, MultiTaskLearningHead, UncertaintyWeights, check_labels, equal_weights, multi_task_head,
    multi_task_losses,
)

ROWS = 12


def drawn(*shape, seed=0):
    return np.random.default_rng([seed, 84]).standard_normal(shape).astype("float32")


@pytest.fixture(scope="module")
def head():
    return MultiTaskLearningHead(6, 8, seed=2)


@pytest.fixture(scope="module")
def x():
    return drawn(ROWS, 6)


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(5)
    return {
        "price_direction": rng.integers(3, size=ROWS).astype("float32"),
        "volatility": rng.uniform(0.005, 0.05, ROWS).astype("float32"),
        "market_regime": rng.integers(4, size=ROWS).astype("float32"),
        "position_size": rng.uniform(0, 1, ROWS).astype("float32"),
    }


def gradients(head, x, labels, weigh=equal_weights, weights=None):
    "Gradient of the weighted total for each weight of the head."
    with tf.GradientTape() as tape:
        total = weigh(*multi_task_losses(labels, head(x), weights))
    return [None if g is None else np.asarray(g) for g in tape.gradient(total, head.trainable_variables)]


# ---- the head


def test_documents_call():
    mtl = MultiTaskLearningHead(shared_size=160, hidden_size=128)
    outputs = mtl(drawn(7, 160))
    shapes = {"price_direction": (7, 3), "volatility": (7, 1), "market_regime": (7, 4), "position_size": (7, 1)}
    assert {task: tuple(out.shape) for task, out in outputs.items()} == shapes
    assert isinstance(mtl, multi_task_head())
    assert mtl.count_params() == 161 * 128 + 4 * 129 * 64 + 65 * (3 + 1 + 4 + 1)
    assert CLASSES == {
        "price_direction": ("DOWN", "SIDEWAYS", "UP"), "market_regime": ("BULL", "BEAR", "RANGING", "HIGH_VOL"),
    }


@pytest.mark.parametrize("scale", [1, 300])
def test_outputs_stay_in_their_ranges(head, scale):
    outputs = {task: np.asarray(out) for task, out in head(scale * drawn(200, 6)).items()}
    for task in CLASSES:
        np.testing.assert_allclose(outputs[task].sum(axis=1), 1, atol=1e-5)
        assert outputs[task].min() >= 0
    assert outputs["volatility"].min() >= 1e-6 and np.isfinite(np.log(outputs["volatility"])).all()
    assert outputs["position_size"].min() >= 0 and outputs["position_size"].max() <= 1


def test_volatility_starts_where_it_is_told():
    said = np.asarray(MultiTaskLearningHead(6, 8, start_volatility=0.05)(np.zeros((1, 6)))["volatility"])
    assert said[0, 0] == pytest.approx(0.05, rel=1e-3)
    with pytest.raises(SettingsError, match="start_volatility"):
        MultiTaskLearningHead(start_volatility=0)


def test_weights_go_from_one_head_to_another_and_the_seed_makes_them(head, x):
    other = MultiTaskLearningHead(6, 8, seed=3)
    assert not np.allclose(other(x)["position_size"], head(x)["position_size"], atol=1e-3)
    other.set_weights(head.get_weights())
    for task, out in head(x).items():
        np.testing.assert_array_equal(other(x)[task], out)
    for a, b in zip(MultiTaskLearningHead(6, 8, seed=2).get_weights(), head.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert [w.shape for w in type(head).from_config(head.get_config()).get_weights()] == [
        w.shape for w in head.get_weights()
    ]


def test_dropout_is_for_training_only(x):
    dropping = MultiTaskLearningHead(6, 8, dropout=0.5)
    quiet, loud = dropping(x), dropping(x, training=True)
    for task in TASKS:
        np.testing.assert_array_equal(quiet[task], dropping(x, training=False)[task])
        assert not np.allclose(quiet[task], loud[task], atol=1e-4)


def test_gradient_reaches_every_weight(head, x, labels):
    weigh = UncertaintyWeights()
    with tf.GradientTape() as tape:
        total = weigh(*multi_task_losses(labels, head(x)))
    variables = [*head.trainable_variables, *weigh.trainable_variables]
    for variable, gradient in zip(variables, tape.gradient(total, variables)):
        assert gradient is not None and np.isfinite(gradient).all() and np.abs(gradient).max() > 0, variable.path


def test_a_task_moves_its_own_tower_and_the_trunk_alone(head, x, labels):
    for task in TASKS:
        found = gradients(head, x, {task: labels[task]})
        moved = {v.path.split("/")[-3] if "/" in v.path else v.path for v, g in zip(head.trainable_variables, found)
                 if g is not None and np.abs(g).max() > 0}
        assert moved == {"trunk", task}


# ---- the losses


def test_losses_are_those_of_plain_numpy(head, x, labels):
    out = {task: np.asarray(value, dtype="float64") for task, value in head(x).items()}
    picked = {task: out[task][np.arange(ROWS), labels[task].astype(int)] for task in CLASSES}
    wanted = {task: -np.log(p).mean() for task, p in picked.items()}
    wanted["volatility"] = np.mean(np.log(out["volatility"][:, 0] / labels["volatility"]) ** 2)
    wanted["position_size"] = np.mean((out["position_size"][:, 0] - labels["position_size"]) ** 2)
    losses, counts = multi_task_losses(labels, head(x))
    assert {task: float(loss) for task, loss in losses.items()} == pytest.approx(wanted, rel=1e-4)
    assert {int(count) for count in counts.values()} == {ROWS}
    column = multi_task_losses({task: value[:, None] for task, value in labels.items()}, head(x))[0]
    assert {task: float(loss) for task, loss in column.items()} == pytest.approx(wanted, rel=1e-4)


def test_volatility_loss_knows_no_unit_and_no_side():
    loss = lambda said, true: float(multi_task_losses({"volatility": [true]}, {"volatility": np.float32([[said]])})[0][
        "volatility"])
    assert loss(0.04, 0.02) == pytest.approx(np.log(2) ** 2, rel=1e-4)
    assert loss(0.01, 0.02) == pytest.approx(loss(0.04, 0.02), rel=1e-4) == pytest.approx(loss(4.0, 2.0), rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("how", ["nan", "weight"])
def test_missing_labels_are_left_out_and_counted(head, x, labels, task, how):
    gone, weights = np.arange(ROWS) % 3 == 0, None
    if how == "nan":
        holes = labels | {task: np.where(gone, np.nan, labels[task]).astype("float32")}
    else:
        holes, weights = labels, {task: np.where(gone, 0.0, 1.0)}
    losses, counts = multi_task_losses(holes, head(x), weights)
    kept = multi_task_losses({task: labels[task][~gone]}, head(x[~gone]))[0]
    whole = multi_task_losses(labels, head(x))[0]
    assert float(losses[task]) == pytest.approx(float(kept[task]), rel=1e-4)
    assert {t: int(c) for t, c in counts.items()} == dict.fromkeys(TASKS, ROWS) | {task: int((~gone).sum())}
    for other in set(TASKS) - {task}:
        assert float(losses[other]) == float(whole[other])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("weigh", [equal_weights, UncertaintyWeights()], ids=["equal", "learned"])
def test_a_task_without_any_label_leaves_the_gradient_of_the_others_as_it_is(head, x, labels, task, weigh):
    nothing = labels | {task: np.full(ROWS, np.nan, "float32")}
    without = {name: value for name, value in labels.items() if name != task}
    found, wanted = gradients(head, x, nothing, weigh), gradients(head, x, without, weigh)
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, np.zeros_like(a) if b is None else b, atol=1e-7)


def test_broken_labels_of_some_rows_poison_nothing(head, x, labels):
    "NaN, a volatility of zero and infinite features of rows that weigh nothing: gradients are those of the good rows."
    bad = np.arange(ROWS) >= 8
    broken = {task: np.where(bad, np.nan, value) for task, value in labels.items()}
    broken["volatility"] = np.where(bad, 0.0, labels["volatility"])
    good = {task: value[~bad] for task, value in labels.items()}
    for a, b in zip(gradients(head, x, broken), gradients(head, x[~bad], good)):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_weights_are_those_of_a_weighted_mean(head, x, labels):
    twice = np.r_[np.arange(ROWS), 0, 0, 5]
    weight = np.bincount(twice).astype("float32")
    repeated = multi_task_losses({task: value[twice] for task, value in labels.items()}, head(x[twice]))[0]
    weighted = multi_task_losses(labels, head(x), weight)[0]
    for task in TASKS:
        assert float(weighted[task]) == pytest.approx(float(repeated[task]), rel=1e-4)


def test_a_sure_and_wrong_class_still_pulls():
    logits = tf.Variable([[40.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = multi_task_losses({"price_direction": [2]}, {"price_direction": tf.nn.softmax(logits)})[0]
    np.testing.assert_allclose(tape.gradient(loss["price_direction"], logits), [[1, 0, -1]], atol=1e-3)


@pytest.mark.parametrize("task, value", [
    ("price_direction", 3), ("price_direction", -1), ("market_regime", 1.5), ("market_regime", 4),
    ("position_size", 1.1), ("position_size", -0.1), ("volatility", -0.01), ("volatility", np.inf), ("direction", 0),
])
def test_impossible_labels_are_refused(task, value):
    with pytest.raises(DataError, match="impossible label|unknown task"):
        check_labels({task: [np.nan, value]})


def test_possible_labels_pass(labels, head, x):
    check_labels(labels | {"volatility": [0.0, np.nan], "market_regime": [3, np.nan]})
    with pytest.raises(DataError, match="unknown task"):
        multi_task_losses({"direction": [0]}, head(x))


# ---- how much each loss counts


def minimum(loss, *start):
    "Where a function of TensorFlow tensors is least, by L-BFGS."
    from scipy.optimize import minimize

    sizes = np.cumsum([np.size(part) for part in start])[:-1]
    cut = lambda flat: [part.reshape(np.shape(old)) for part, old in zip(np.split(flat, sizes), start)]

    def value(flat):
        parts = [tf.Variable(part, dtype="float64") for part in cut(flat)]
        with tf.GradientTape() as tape:
            total = loss(*parts)
        found = tape.gradient(total, parts, unconnected_gradients="zero")
        return float(total), np.concatenate([np.ravel(g) for g in found])

    return cut(minimize(value, np.concatenate([np.ravel(part) for part in start]), jac=True, tol=1e-12).x)


@pytest.mark.parametrize("kind, loss", [(k, v) for k in ("regression", "classification") for v in (1e-3, 0.7, 50.0)])
def test_at_rest_the_variance_is_the_loss_or_twice_the_loss(kind, loss):
    weigh = UncertaintyWeights({"a": kind}, start={"a": loss * 3})
    for _ in range(40):
        with tf.GradientTape() as tape:
            total = weigh({"a": tf.constant(loss)})
        weigh.log_variance.assign_sub(tape.gradient(total, weigh.log_variance.value))
    wanted = loss if kind == "regression" else 2 * loss
    assert float(np.exp(weigh.log_variance)[0]) == pytest.approx(wanted, rel=1e-4)
    rest = 0.5 + 0.5 * np.log(wanted)
    assert float(weigh({"a": tf.constant(loss)})) == pytest.approx(rest, rel=1e-4, abs=1e-4)
    other = UncertaintyWeights({"a": kind}, start={"a": loss})
    np.testing.assert_allclose(other.log_variance, [np.log(wanted)], rtol=1e-5)


def test_the_total_is_the_papers():
    weigh = UncertaintyWeights()
    weigh.log_variance.assign([0.3, -1.2, 0.5, 2.0])
    losses = {task: tf.constant(v) for task, v in zip(TASKS, (0.9, 0.2, 1.1, 3.0))}
    s, factor = np.array([0.3, -1.2, 0.5, 2.0]), np.array([1, 0.5, 1, 0.5])
    terms = factor * np.exp(-s) * [0.9, 0.2, 1.1, 3.0] + s / 2
    assert float(weigh(losses)) == pytest.approx(terms.sum(), rel=1e-5)
    counts = dict(zip(TASKS, map(tf.constant, (5, 0, 5, 5))))
    assert float(weigh(losses, counts)) == pytest.approx(terms[[0, 2, 3]].sum(), rel=1e-5)
    assert float(weigh({"market_regime": tf.constant(1.1)})) == pytest.approx(terms[2], rel=1e-5)
    assert float(equal_weights(losses)) == pytest.approx(5.2)
    again = type(weigh).from_config(weigh.get_config())
    assert again.tasks == TASKS


def test_without_labels_a_task_keeps_its_variance():
    weigh = UncertaintyWeights()
    with tf.GradientTape() as tape:
        counts = dict.fromkeys(TASKS, tf.constant(3)) | {"volatility": tf.constant(0)}
        total = weigh(dict.fromkeys(TASKS, tf.constant(2.0)), counts)
    moved = np.asarray(tape.gradient(total, weigh.log_variance.value)) != 0
    assert moved.tolist() == [True, False, True, True]


def test_what_cannot_be_is_refused():
    with pytest.raises(SettingsError, match="kind of `a`"):
        UncertaintyWeights({"a": "ranking"})
    for start in ({"a": 0}, {"b": 1}, {"a": np.nan}):
        with pytest.raises(SettingsError, match="impossible losses"):
            UncertaintyWeights({"a": "regression"}, start=start)


@pytest.mark.parametrize("learned", [True, False], ids=["learned", "equal"])
def test_units_of_one_task_leave_the_other_alone_only_with_learned_weights(learned):
    "Two targets must share one number: which of them it serves may not depend on dollars or cents."
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3))
    a, b = (x @ direction + 0.3 * rng.standard_normal(400) for direction in ([1, 0, 0], [0.5, 0.75**0.5, 0]))

    def error_of_a(unit):
        weigh = UncertaintyWeights({"a": "regression", "b": "regression"})

        def total(trunk, heads, s):
            shared = tf.linalg.matvec(x, trunk)
            losses = [tf.reduce_mean((y - h * shared) ** 2) for y, h in zip((a, unit * b), tf.unstack(heads))]
            if not learned:
                return equal_weights(dict(zip("ab", losses)))
            weigh.log_variance = s
            return weigh.call(dict(zip("ab", losses)))

        trunk, heads, _ = minimum(total, np.array([0.5, 0.5, 0.1]), np.array([1.0, unit]), np.zeros(2))
        return np.mean((a - heads[0] * (x @ trunk)) ** 2) / np.var(a)

    plain, scaled = error_of_a(1), error_of_a(100)
    if learned:
        assert scaled == pytest.approx(plain, rel=0.02)
    else:
        assert scaled > 1.3 * plain


# ---- a shared cause


def test_many_labels_of_one_task_help_the_other_of_which_few_are_known():
    import keras

    def table(rows, seed):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((rows, 30)).astype("float32")
        cause = np.tanh(x[:, 0] + x[:, 1] - x[:, 2])
        volatility = 0.02 * np.exp(cause + 0.3 * rng.standard_normal(rows))
        return x, {"volatility": volatility.astype("float32"), "position_size": (0.5 - 0.4 * cause).astype("float32")}

    class Learner(keras.Model):
        def __init__(self):
            super().__init__()
            self.head, self.weigh = MultiTaskLearningHead(30, 32), UncertaintyWeights()

        def call(self, x, training=False):
            return self.head(x, training=training)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return self.weigh(*multi_task_losses(y, y_pred))

    x, labels = table(1_500, 1)
    later, truth = table(1_000, 2)
    unknown = dict.fromkeys(TASKS, np.full(1_500, np.nan, "float32"))
    few = np.where(np.arange(1_500) < 40, labels["position_size"], np.nan).astype("float32")

    def error(known):
        keras.utils.set_random_seed(0)
        learner = Learner()
        learner.compile(keras.optimizers.Adam(3e-3))
        learner.fit(x, unknown | known, 100, 20, verbose=0)
        said = np.asarray(learner(later)["position_size"])[:, 0]
        return np.mean((said - truth["position_size"]) ** 2) / np.var(truth["position_size"])

    alone, together = error({"position_size": few}), error({"volatility": labels["volatility"], "position_size": few})
    assert together < 0.6 * alone


def test_the_direct_path_is_a_matrix_from_the_features_to_each_answer():
    plain, head = (MultiTaskLearningHead(6, 4, direct=direct) for direct in (False, True))
    assert head.count_params() - plain.count_params() == 6 * (3 + 1 + 4 + 1)
    x, matrix = drawn(5, 6), head.direct["position_size"]
    before = np.asarray(head(x)["position_size"])
    matrix.kernel.assign(np.zeros_like(matrix.kernel))
    without = np.asarray(head(x)["position_size"])
    matrix.kernel.assign(np.ones_like(matrix.kernel))
    logit = np.log(without / (1 - without)) + x.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(head(x)["position_size"]), 1 / (1 + np.exp(-logit)), rtol=1e-4)
    assert not np.allclose(before, without)
