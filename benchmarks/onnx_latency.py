"""How long does one row take: ONNX, each library's own predict, and the joint graph?

python -m benchmarks.onnx_latency [--trees N] [--rows N]

Prints the median and the 95th percentile in microseconds, and the largest difference on the rows."""
import argparse
import time

import numpy as np

from cryptolab.config import load_keras
from cryptolab.models.onnx_export import booster_to_onnx
from cryptolab.models.onnx_graph import stack_to_onnx
from cryptolab.models.onnx_network import network_to_onnx
from cryptolab.models.onnx_session import ask_onnx, check_graph, make_session, parity
from cryptolab.models.tabnet import build_tabnet, set_scale

COLUMNS, CHOSEN = 270, 180


def fit(x, y, trees):
    "The three boosters, each with its own question for many rows."
    import lightgbm as lgb
    import xgboost as xgb
    from catboost import CatBoostClassifier

    settings = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.05, "nthread": 1}
    grown = xgb.train(settings, xgb.DMatrix(x, y), trees)
    settings = {"objective": "binary", "num_leaves": 31, "learning_rate": 0.05, "num_threads": 1, "verbose": -1}
    light = lgb.train(settings, lgb.Dataset(x, y), trees)
    cat = CatBoostClassifier(iterations=trees, depth=6, thread_count=1, verbose=0, allow_writing_files=False).fit(x, y)
    return {
        "xgboost": (grown, grown.inplace_predict),
        "lightgbm": (light, lambda rows: light.predict(rows, num_threads=1)),
        "catboost": (cat, lambda rows: cat.predict_proba(rows, thread_count=1)[:, 1]),
    }


def fit_network(x):
    "A TabNet with the scale of its columns; untrained, which takes the same time."
    model = build_tabnet(CHOSEN, {"tabnet_width": 16, "tabnet_steps": 3})
    set_scale(model, x)
    return model


def timed(name, ask, rows, repeat=2_000):
    "Print the time of single rows."
    for row in rows[:50]:
        ask(row[None])
    took = []
    for k in range(repeat):
        row = rows[k % len(rows)][None]
        start = time.perf_counter()
        ask(row)
        took.append(time.perf_counter() - start)
    middle, high = np.quantile(took, [0.5, 0.95]) * 1e6
    print(f"{name:32s} p50 {middle:8.1f}  p95 {high:8.1f} microseconds", flush=True)


def raw(session):
    "A question without the checks of `ask_onnx`."
    given, outputs = session.get_inputs()[0].name, [session.get_outputs()[0].name]
    return lambda row: session.run(outputs, {given: row})


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--trees", type=int, default=300)
    options.add_argument("--rows", type=int, default=3_000)
    given = options.parse_args()
    rng = np.random.default_rng(0)
    features = rng.standard_normal((given.rows, COLUMNS)).astype("float32")
    choice = rng.permutation(COLUMNS)[:CHOSEN]
    x = np.ascontiguousarray(features[:, choice])
    y = (x[:, 0] + x[:, 1] * x[:, 2] + rng.standard_normal(len(x)) > 0).astype(float)
    members = {}
    for name, (model, predict) in fit(x, y, given.trees).items():
        members[name] = booster_to_onnx(name, model, CHOSEN)
        session = make_session(check_graph(members[name]).SerializeToString())
        print(f"{name}: largest difference {parity(session, x, predict(x)):.1e}")
        timed(f"{name}, its library", predict, x)
        timed(f"{name}, session.run", raw(session), x)
        timed(f"{name}, ask_onnx", lambda row, s=session: ask_onnx(s, row), x)
    load_keras()
    network = fit_network(x)
    members["tabnet"] = network_to_onnx(network, CHOSEN)
    session = make_session(check_graph(members["tabnet"]).SerializeToString())
    print(f"tabnet: largest difference {parity(session, x, np.asarray(network(x))):.1e}")
    timed("tabnet, Keras", lambda row: network(row), x, 100)
    timed("tabnet, session.run", raw(session), x)
    members["second_lightgbm"] = members["lightgbm"]
    meta = {"members": list(members), "weights": [0.25] * len(members), "intercept": 0.0}
    line = {"kind": "isotonic", "x": np.linspace(0, 1, 200).tolist(), "y": np.linspace(0, 1, 200).tolist()}
    joint = make_session(check_graph(stack_to_onnx(members, choice, COLUMNS, meta, line)).SerializeToString())
    timed("joint graph of 5, session.run", raw(joint), features)
    timed("joint graph of 5, ask_onnx", lambda row: ask_onnx(joint, row), features)


if __name__ == "__main__":
    main()
