"""ONNX: boosters, networks and the joint graph say what Python says; altered files are refused by name."""
import numpy as np
import pytest
from cryptolab.config import ModelError
from cryptolab.models.onnx_export import booster_to_onnx, round_down

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

    parts = [xgb.DMatrix(x[k::2], y[k::2]) for k in (0, 1)]
    settings = {"objective": "binary:logistic", "max_depth": 5, "eta": 0.3, "nthread": 1, "seed": 0} | settings
    return xgb.train(settings, parts[0], 120, evals=[(parts[1], "val")], early_stopping_rounds=10, verbose_eval=False)


def fit_lightgbm(x, y, **settings):
    import lightgbm as lgb

    parts = [lgb.Dataset(x[k::2].astype("float64"), y[k::2]) for k in (0, 1)]
    settings = {"objective": "binary", "num_leaves": 20, "learning_rate": 0.2, "num_threads": 1, "verbose": -1} | settings
    return lgb.train(settings, parts[0], 120, valid_sets=[parts[1]], callbacks=[lgb.early_stopping(10, verbose=False)])


def fit_catboost(x, y, **settings):
    from catboost import CatBoostClassifier

    settings = {"iterations": 120, "depth": 5, "learning_rate": 0.2, "early_stopping_rounds": 10} | settings
    model = CatBoostClassifier(thread_count=1, verbose=0, allow_writing_files=False, **settings)
    return model.fit(x[::2], y[::2], eval_set=(x[1::2], y[1::2]))


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
    from onnx import helper

    node = next(n for n in model.graph.node if n.op_type == "TreeEnsembleRegressor")
    a = {part.name: helper.get_attribute_value(part) for part in node.attribute}
    return {(f, np.float32(v)) for f, v, m in zip(a["nodes_featureids"], a["nodes_values"], a["nodes_modes"], strict=True)
            if m != b"LEAF"}


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
