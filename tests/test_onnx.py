"""ONNX: boosters, networks and the joint graph say what Python says; altered files are refused by name."""
import hashlib
import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from cryptolab.config import DataError, ModelError, load_keras
from cryptolab.models.onnx_export import booster_to_onnx, round_down
from cryptolab.models.onnx_graph import calibration_to_onnx, meta_to_onnx, stack_to_onnx
from cryptolab.models.onnx_network import network_to_onnx
from cryptolab.models.onnx_session import ask_onnx, check_graph, check_parity, open_onnx, parity, save_onnx

ROWS, COLUMNS = 10_000, 12


@pytest.fixture(scope="module")
def planted():
    "A table whose outcome depends on three columns; some values are exact zeros, some repeat."
    rng = np.random.default_rng(7)
    x = rng.standard_normal((ROWS, COLUMNS)).astype("float32")
    x[:, 3] = np.round(x[:, 3], 1)
    x[:, 4] *= rng.random(ROWS) < 0.5
    score = x[:, 0] - x[:, 1] ** 2 + x[:, 3] * x[:, 4] + rng.standard_normal(ROWS)
    return x, (score > 0).astype(float)


def fit_xgboost(x, y, **settings):
    import xgboost as xgb

    parts = [xgb.DMatrix(x[k:4_000:2], y[k:4_000:2]) for k in (0, 1)]
    settings = {"objective": "binary:logistic", "max_depth": 5, "eta": 0.3, "nthread": 1, "seed": 0} | settings
    return xgb.train(settings, parts[0], 120, evals=[(parts[1], "val")], early_stopping_rounds=10, verbose_eval=False)


def fit_lightgbm(x, y, **changes):
    import lightgbm as lgb

    parts = [lgb.Dataset(x[k:4_000:2].astype("float64"), y[k:4_000:2]) for k in (0, 1)]
    settings = {"objective": "binary", "num_leaves": 20, "learning_rate": 0.2, "num_threads": 1, "verbose": -1}
    settings |= changes
    return lgb.train(settings, parts[0], 120, valid_sets=[parts[1]], callbacks=[lgb.early_stopping(10, verbose=False)])


def fit_catboost(x, y, **settings):
    from catboost import CatBoostClassifier

    settings = {"iterations": 120, "depth": 5, "learning_rate": 0.2, "early_stopping_rounds": 10} | settings
    model = CatBoostClassifier(thread_count=1, verbose=0, allow_writing_files=False, **settings)
    return model.fit(x[:4_000:2], y[:4_000:2], eval_set=(x[1:4_000:2], y[1:4_000:2]))


def says(name, model, x):
    "Probability of class 1 as the library itself says it."
    if name == "xgboost":
        import xgboost as xgb

        return model.predict(xgb.DMatrix(x), iteration_range=(0, model.best_iteration + 1))
    if name == "lightgbm":
        return model.predict(x.astype("float64"), num_iteration=model.best_iteration)
    return model.predict_proba(x)[:, 1]


FITS = {"xgboost": fit_xgboost, "lightgbm": fit_lightgbm, "catboost": fit_catboost}


@pytest.fixture(scope="module")
def boosters(planted):
    return {name: fit(*planted) for name, fit in FITS.items()}


def run(model, **inputs):
    import onnxruntime as ort

    return ort.InferenceSession(model.SerializeToString()).run(None, inputs)


def thresholds_of(model):
    "(column, threshold) of every question of an ensemble."
    node = next(n for n in model.graph.node if n.op_type == "TreeEnsembleRegressor")
    a = {part.name: helper.get_attribute_value(part) for part in node.attribute}
    rows = zip(a["nodes_featureids"], a["nodes_values"], a["nodes_modes"], strict=True)
    return {(column, np.float32(value)) for column, value, mode in rows if mode != b"LEAF"}


def on_the_edge(model, x):
    "Rows with values exactly at thresholds and right beside them."
    rng, x = np.random.default_rng(1), x.copy()
    for k, (column, value) in enumerate(sorted(thresholds_of(model))):
        rows = rng.integers(0, len(x), 30)
        x[rows, column] = [value, np.nextafter(value, np.float32(9e9)), np.nextafter(value, np.float32(-9e9))][k % 3]
    return x


@pytest.mark.parametrize("name", FITS)
def test_a_booster_says_the_same_as_onnx_also_at_its_thresholds(name, boosters, planted):
    model = booster_to_onnx(name, boosters[name], COLUMNS)
    for x in (planted[0], on_the_edge(model, planted[0])):
        assert np.abs(run(model, x=x)[0] - says(name, boosters[name], x)).max() < 1e-6
    assert [o.name for o in model.graph.output] == ["p"] and model.ir_version <= 10


def test_early_stopping_is_respected(boosters, planted):
    import xgboost as xgb

    booster, x = boosters["xgboost"], planted[0]
    assert booster.best_iteration + 1 < booster.num_boosted_rounds()
    everything = booster.predict(xgb.DMatrix(x), iteration_range=(0, booster.num_boosted_rounds()))
    model = booster_to_onnx("xgboost", booster, COLUMNS)
    assert np.abs(run(model, x=x)[0] - everything).max() > 1e-3
    assert boosters["lightgbm"].best_iteration > 0


def test_a_threshold_that_the_nearest_float32_would_move_past_a_row_is_rounded_down(planted):
    x, y = planted
    booster = fit_lightgbm(x, y)
    text = booster.model_to_string()
    above = np.nextafter(np.float32(0.5), np.float32(1))
    planted_threshold = 0.25 * 0.5 + 0.75 * float(above)  # between two float32, closer to the upper one
    lines = text.split("\n")
    where = next(k for k, line in enumerate(lines) if line.startswith("threshold="))
    column = int(next(line for line in lines if line.startswith("split_feature=")).split("=")[1].split()[0])
    rest = lines[where].split("=")[1].split()[1:]
    lines[where] = "threshold=" + " ".join([repr(planted_threshold), *rest])
    head = "\n".join(line for line in lines if not line.startswith("tree_sizes="))

    import lightgbm as lgb

    changed = lgb.Booster(model_str=head)
    rows = np.repeat(x[:1], 2, axis=0)
    rows[:, column] = [0.5, above]
    expected = changed.predict(rows.astype("float64"))
    assert expected[0] != expected[1] and np.float32(planted_threshold) == above
    model = booster_to_onnx("lightgbm", changed, COLUMNS)
    assert np.abs(run(model, x=rows)[0] - expected).max() < 1e-6
    node = next(n for n in model.graph.node if n.op_type == "TreeEnsembleRegressor")
    values = next(a for a in node.attribute if a.name == "nodes_values")
    values.floats[0] = above  # what rounding to the nearest would write: both rows go one way
    wrong = run(model, x=rows)[0]
    assert wrong[0] == wrong[1]


def test_rounding_down_keeps_every_comparison():
    rng = np.random.default_rng(0)
    t = rng.standard_normal(2_000) * 10.0 ** rng.integers(-30, 30, 2_000)
    t = np.concatenate([t, [0.0, -0.0, 1e38, -1e38, 1e-35]])
    low = round_down(t)
    assert low.dtype == np.float32 and (low <= t).all()
    for x in (low, np.nextafter(low, np.float32(np.inf)), t.astype("float32")):
        assert ((x.astype("float64") <= t) == (x <= low)).all()
    assert round_down([1e300]) == np.finfo("float32").max


@pytest.mark.parametrize(("name", "settings"), [
    ("xgboost", {"base_score": 0.9}), ("xgboost", {"num_parallel_tree": 3, "subsample": 0.7}),
    ("xgboost", {"grow_policy": "lossguide", "max_leaves": 9}), ("lightgbm", {"boost_from_average": False}),
    ("lightgbm", {"sigmoid": 2.0}), ("lightgbm", {"min_gain_to_split": 1e9}),
    ("catboost", {"grow_policy": "Depthwise"}), ("catboost", {"grow_policy": "Lossguide"}),
    ("catboost", {"boost_from_average": True}), ("catboost", {"depth": 1}),
])
def test_settings_that_change_the_form_of_a_booster(name, settings, planted):
    x, y = planted[0][:2_000], planted[1][:2_000]
    booster = FITS[name](x, y, **settings)
    model = booster_to_onnx(name, booster, [f"c{k}" for k in range(COLUMNS)])
    assert parity(model, x, says(name, booster, x)) < 1e-6
    notes = {note.key: note.value for note in model.metadata_props}
    assert json.loads(notes["columns"])[-1] == "c11" and notes["cryptolab"]


@pytest.mark.parametrize(("name", "settings"), [
    ("xgboost", {"booster": "dart"}), ("xgboost", {"objective": "reg:squarederror"}),
    ("lightgbm", {"zero_as_missing": True}), ("lightgbm", {"objective": "regression"}),
    ("lightgbm", {"linear_tree": True}), ("catboost", {"loss_function": "RMSE"}),
])
def test_what_onnx_cannot_say_is_refused(name, settings, planted):
    x, y = planted[0][:1_000], planted[1][:1_000]
    if name == "catboost":
        from catboost import CatBoost

        booster = CatBoost({"iterations": 5, "verbose": 0, "allow_writing_files": False} | settings).fit(x, y)
    else:
        booster = FITS[name](x, y, **settings)
    with pytest.raises(ModelError, match="no ONNX form"):
        booster_to_onnx(name, booster, COLUMNS)


def make_network(width=COLUMNS):
    keras = load_keras()
    layers, ops = keras.layers, keras.ops
    keras.utils.set_random_seed(3)
    inputs = keras.Input((width,))
    x = layers.Rescaling(2.0, offset=0.1)(layers.Normalization(mean=[0.1] * width, variance=[2.0] * width)(inputs))
    x = layers.BatchNormalization()(layers.Dense(16, use_bias=False)(layers.Activation("hard_tanh")(x)))
    kept = layers.Dense(16, name="kept")(x)
    x = layers.Add()([layers.BatchNormalization()(kept), kept, x])  # what is normalised is used without it as well
    left, right = ops.split(layers.LayerNormalization()(x), 2, axis=-1)
    x = layers.Multiply()([layers.Activation("gelu")(left), layers.Activation("sigmoid")(right)])
    x = layers.Concatenate()([x, layers.LeakyReLU()(left), ops.softmax(right), ops.mean(x, axis=-1, keepdims=True)])
    halves = layers.Reshape((5, 5))(x)
    x = layers.Flatten()(layers.Cropping1D((0, 1))(halves)) + halves[:, -1, 2:3] * ops.cast(left[:, :1] > 0, "float32")
    x = layers.Dropout(0.4)(layers.Dense(8, activation="elu")(x))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x * 5.0))
    rng = np.random.default_rng(4)
    for weight in model.weights:
        moved = rng.normal(0, 0.3, weight.shape)
        weight.assign(weight + (np.abs(moved) if "variance" in weight.path else moved))
    return model


@pytest.fixture(scope="module")
def network():
    return make_network()


def test_a_network_says_the_same_as_onnx(network, planted):
    p = np.asarray(network(planted[0])).ravel()
    assert p.std() > 0.1
    assert parity(network_to_onnx(network, COLUMNS), planted[0], p) < 1e-5


def test_tabnet_says_the_same_as_onnx(planted):
    from cryptolab.models.tabnet import build_tabnet, set_scale, tabnet_masks

    x = planted[0] * 40 + 7
    model = build_tabnet(COLUMNS, {"tabnet_width": 8, "tabnet_steps": 3})
    rng = np.random.default_rng(8)
    for weight in model.weights[3:]:
        moved = rng.normal(0, 0.3, weight.shape)
        weight.assign(weight + (np.abs(moved) if "variance" in weight.path else moved))
    set_scale(model, x)
    p = np.asarray(model(x)).ravel()
    assert p.std() > 0.03 and 0.2 < (tabnet_masks(model, x[:100]) == 0).mean() < 1  # it chooses columns
    assert parity(network_to_onnx(model, COLUMNS), x, p) < 1e-5


def test_two_shares_at_the_end_give_the_second(planted):
    keras = load_keras()
    model = keras.Sequential([keras.Input((COLUMNS,)), keras.layers.Dense(2, activation="softmax")])
    assert parity(network_to_onnx(model, COLUMNS), planted[0], np.asarray(model(planted[0]))[:, 1]) < 1e-6


def test_the_sparsemax_of_keras_which_adds_up_to_no_one_is_refused():
    keras = load_keras()
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(keras.ops.sparsemax(inputs)))
    with pytest.raises(ModelError, match="Sparsemax"):
        network_to_onnx(model, 4)


CALIBRATIONS = {
    "temperature": {"kind": "temperature", "temperature": 1.7},
    "isotonic": {"kind": "isotonic", "x": [0.02, 0.3, 0.3 + 1e-9, 0.5, 0.97], "y": [0.0, 0.1, 0.4, 0.4, 1.0]},
}


def calibrated(p, calibration):
    if calibration["kind"] == "isotonic":
        return np.interp(p, calibration["x"], calibration["y"])
    return 1 / (1 + np.exp(-np.log(p / (1 - p)) / calibration["temperature"]))


@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_calibrations_as_formulas_say(kind):
    knots = np.array(CALIBRATIONS["isotonic"]["x"])
    p = np.concatenate([np.linspace(1e-9, 1 - 1e-9, 9_999), knots, knots + 1e-10, knots - 1e-10])
    assert parity(calibration_to_onnx(CALIBRATIONS[kind]), p, calibrated(p, CALIBRATIONS[kind])) < 1e-8


@pytest.mark.parametrize("calibration", [
    {"kind": "temperature", "temperature": -1}, {"kind": "temperature", "temperature": float("nan")}, {"kind": "beta"},
    {"kind": "isotonic", "x": [0.1, 0.1], "y": [0, 1]}, {"kind": "isotonic", "x": [], "y": []},
])
def test_impossible_calibrations_are_refused(calibration):
    with pytest.raises(ModelError):
        calibration_to_onnx(calibration)


META = {"members": ["xgboost", "network", "lightgbm", "catboost"], "weights": [0.9, -0.3, 1.4, 0.6], "intercept": -0.2}


@pytest.fixture(scope="module")
def joint(boosters, network):
    "All members on 12 of 20 columns, and the positions of those."
    choice = np.random.default_rng(5).permutation(20)[:COLUMNS]
    members = {name: booster_to_onnx(name, booster, COLUMNS) for name, booster in boosters.items()}
    members["network"] = network_to_onnx(network, COLUMNS)
    return members, choice


@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_the_joint_graph_says_what_its_parts_say_in_python(kind, joint, boosters, network, planted, tmp_path):
    members, choice = joint
    model = stack_to_onnx(members, choice, 20, META, CALIBRATIONS[kind])
    x = planted[0]
    for name in boosters:
        x = on_the_edge(members[name], x)
    features = np.random.default_rng(6).standard_normal((ROWS, 20)).astype("float32")
    features[:, choice] = x
    p = {name: np.asarray(says(name, boosters[name], x), "float64") for name in boosters}
    p["network"] = np.asarray(network(x), "float64").ravel()
    table = np.clip(np.column_stack([p[name] for name in META["members"]]), 1e-3, 1 - 1e-3)
    mixed = 1 / (1 + np.exp(-(np.log(table / (1 - table)) @ META["weights"] + META["intercept"])))
    session = open_onnx(save_onnx(tmp_path / "joint.onnx", model), columns=20)
    smooth = kind == "temperature"  # the isotonic line jumps by 0.3 within 1e-9: rows there may differ
    expected, found = calibrated(mixed, CALIBRATIONS[kind]), ask_onnx(session, features)
    usual = np.abs(mixed - 0.3) > 1e-5
    assert usual.mean() > 0.99 and np.abs(found - expected)[usual | smooth].max() <= 1e-5
    answers = session.run([f"p_{name}" for name in members], {"features": features})
    assert max(np.abs(a - p[name]).max() for a, name in zip(answers, members, strict=True)) < 1e-5
    raw = meta_to_onnx(META)
    assert parity(raw, np.column_stack([p[name] for name in META["members"]]), mixed) < 1e-12


def test_members_that_do_not_fit_are_refused(joint):
    members, choice = joint
    for changes in ({"choice": [0, 1]}, {"choice": [*choice[:-1], 20]}, {"choice": choice - 1 - choice.min()},
                    {"meta": META | {"weights": [1.0]}}, {"meta": META | {"members": [*META["members"][:3], "other"]}},
                    {"meta": META | {"intercept": float("inf")}}):
        given = {"members": members, "choice": choice, "columns": 20, "meta": META} | changes
        with pytest.raises(ModelError):
            stack_to_onnx(**given)


# ---- files

@pytest.fixture
def stored(joint, tmp_path):
    return save_onnx(tmp_path / "joint.onnx", stack_to_onnx(*joint, 20, META, CALIBRATIONS["isotonic"]))


def test_half_a_file_and_another_file_are_refused_by_name(stored):
    data = stored.read_bytes()
    open_onnx(stored, digest=hashlib.sha256(data).hexdigest())
    for end in (0, 1, 100, len(data) // 2, len(data) - 1):
        stored.write_bytes(data[:end])
        with pytest.raises(ModelError, match="joint.onnx"):
            open_onnx(stored)
    altered = bytearray(data)
    altered[len(data) // 2] ^= 1
    stored.write_bytes(altered)
    with pytest.raises(ModelError, match="joint.onnx"):
        open_onnx(stored, digest=hashlib.sha256(data).hexdigest())
    with pytest.raises(ModelError, match="joint.onnx"):
        open_onnx(stored.with_name("none") / "joint.onnx")


def tree_list(model, key):
    node = next(n for n in model.graph.node if n.op_type == "TreeEnsembleRegressor")
    return next(a for a in node.attribute if a.name == key)


def plant_external(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def plant_external_attribute(model):
    tensor = numpy_helper.from_array(np.zeros(3), "t")
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.node.append(helper.make_node("Identity", ["features"], ["q"], value=tensor))


def plant_operator(model):
    model.graph.node[0].op_type = "RandomNormalLike"


def plant_domain(model):
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def plant_function(model):
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], []))


def plant_circle(model):
    tree_list(model, "nodes_truenodeids").ints[0] = 0


def plant_column(model):
    tree_list(model, "nodes_featureids").ints[0] = COLUMNS


def plant_short_list(model):
    tree_list(model, "nodes_values").floats.pop()


def plant_weight(model):
    tree_list(model, "target_weights").floats[0] = float("nan")


def plant_input(model):
    model.graph.input.append(helper.make_tensor_value_info("other", 1, ["n"]))


PLANTED = [plant_external, plant_external_attribute, plant_operator, plant_domain, plant_function, plant_circle,
           plant_column, plant_short_list, plant_weight, plant_input]


@pytest.mark.parametrize("plant", PLANTED)
def test_what_this_library_does_not_write_is_refused_by_name(plant, stored):
    model = onnx.load(stored)
    plant(model)
    save_onnx(stored, model)
    with pytest.raises(ModelError, match="joint.onnx"):
        open_onnx(stored)


def test_rows_that_do_not_fit_or_are_not_finite_are_refused(stored):
    session = open_onnx(stored, columns=20)
    assert ask_onnx(session, np.zeros((0, 20))).shape == (0,)
    assert ask_onnx(session, np.zeros((1, 20))).shape == (1,)
    for x in (np.zeros((3, 19)), np.zeros(20)):
        with pytest.raises(ModelError, match="rows that do not fit"):
            ask_onnx(session, x)
    with pytest.raises(DataError, match="not finite"):
        ask_onnx(session, np.full((1, 20), np.nan))
    with pytest.raises(ModelError, match="20 columns|columns"):
        open_onnx(stored, columns=21)


def test_a_difference_is_refused_with_its_numbers(stored):
    session, x = open_onnx(stored), np.zeros((2, 20))
    p = ask_onnx(session, x)
    assert parity(session, x, p) == 0.0 and check_parity("stack", 1e-6) == 1e-6
    for difference in (parity(session, x, p + [0, 2e-5]), float("nan")):
        with pytest.raises(ModelError, match="stack.*(\n.*)*(2e-05|nan)"):
            check_parity("stack", difference)
    with pytest.raises(ModelError):
        parity(session, x, p[:1])
    check_graph(onnx.load(stored))
