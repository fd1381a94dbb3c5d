"""Does our TabNet learn as much as pytorch-tabnet, and as fast?

python -m benchmarks.tabnet [small] [large] [--peer PYTHON] [--seeds 3]

A planted table: 20,000 rows and 180 columns (small: 6,000 and 20), of which four decide, two of them by their product.
Both networks learn from the same first 70 % of the rows, with the same width, steps, batch, virtual batch, rate and
penalty, for the same number of epochs without early stopping, and are asked about the rest. PYTHON is an interpreter
with pytorch-tabnet, made by `uv venv FOLDER && uv pip install --python FOLDER/bin/python pytorch-tabnet pandas
scikit-learn`; without it only ours runs and the peer's stored numbers stay. It gets one thread, because two of them
wait for each other busily on a machine with other work; compare `cpu_seconds` per epoch. Results are stored in
benchmarks/results/tabnet.json.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from cryptolab.files import plain, write_json
from cryptolab.models.tabnet import TABNET_PROFILES, ask_tabnet, fit_tabnet, tabnet_masks
from cryptolab.systems.artefacts import library_code, package_versions

STORE = Path(__file__).parent / "results" / "tabnet.json"
ROOMS = ("models/sparsemax", "models/tabnet", "models/training")  # whose code shapes these numbers
DECIDING = (3, 7, 12, 19)
LEARNED = 0.7  # share of the rows
TABLES = {  # name -> (rows and columns, sizes of the network)
    "small": (
        {"rows": 6_000, "columns": 20},
        TABNET_PROFILES["quick"] | {"tabnet_epochs": 15, "tabnet_steps": 2, "tabnet_batch": 512},
    ),
    "large": ({"rows": 20_000, "columns": 180}, TABNET_PROFILES["full"] | {"tabnet_epochs": 12}),
}

PEER = '''
import json, sys, time
import numpy as np, torch
from pytorch_tabnet.tab_model import TabNetClassifier
table, sizes, seed = np.load(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
model = TabNetClassifier(
    n_d=sizes["tabnet_width"], n_a=sizes["tabnet_width"], n_steps=sizes["tabnet_steps"], gamma=1.3,
    lambda_sparse=sizes["tabnet_sparsity"], optimizer_params={"lr": sizes["tabnet_rate"]}, seed=seed, verbose=0,
)
mean, std = table["x"].mean(axis=0), table["x"].std(axis=0)
x, later = ((table[k] - mean) / std for k in ("x", "later"))
start, cpu = time.perf_counter(), time.process_time()
model.fit(
    x, table["y"].astype(int), max_epochs=sizes["tabnet_epochs"], patience=0, batch_size=sizes["tabnet_batch"],
    virtual_batch_size=sizes["tabnet_ghost"],
)
seconds = time.perf_counter() - start, time.process_time() - cpu
np.savez(sys.argv[4], p=model.predict_proba(later)[:, 1], seconds=seconds, masks=model.explain(later)[0])
'''


def planted_table(
    seed: int = 0,  # of the table
    rows: int = 20_000,  # of the table
    columns: int = 180,  # of which four decide
) -> tuple:  # x float32, y 0/1, score: its sign is the best possible answer
    "Columns of noise, four of which decide."
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns)).astype("float32")
    a, b, c, d = (x[:, k] for k in DECIDING)
    score = 1.5 * a + 2 * b * c - 1.5 * np.abs(d) + 1.2
    return x, (rng.random(rows) < 1 / (1 + np.exp(-2 * score))).astype("float32"), score


def judged(p, y, masks=None):
    "Accuracy, area under the ROC curve, and the share of the attention that the deciding columns have."
    from sklearn.metrics import roc_auc_score

    found = {"accuracy": float(np.mean((p > 0.5) == y)), "auc": float(roc_auc_score(y, p))}
    if masks is not None:
        found["attention"] = float((masks / masks.sum(axis=1, keepdims=True))[:, DECIDING].sum(axis=1).mean())
    return found


def ours(x, y, later, sizes, seed):
    "Our network; the epochs after the first, which builds the program, say how long one takes."
    cpu = []
    model, history = fit_tabnet(x, y, None, sizes, seed, log=lambda line: cpu.append(time.process_time()))
    wall = history["seconds"].to_numpy()
    times = {"seconds": float(np.mean(np.diff(wall))), "cpu_seconds": float(np.mean(np.diff(cpu))), "first": wall[0]}
    return ask_tabnet(model, later), tabnet_masks(model, later), times


def peer(python, x, y, later, sizes, seed):
    "pytorch-tabnet in its own interpreter."
    with tempfile.TemporaryDirectory() as folder:
        table, answer = Path(folder) / "table.npz", Path(folder) / "answer.npz"
        np.savez(table, x=x, y=y, later=later)
        subprocess.run([python, "-c", PEER, table, json.dumps(sizes), str(seed), answer], check=True)
        found = np.load(answer)
        wall, cpu = (float(v) / sizes["tabnet_epochs"] for v in found["seconds"])
        return found["p"], found["masks"], {"seconds": wall, "cpu_seconds": cpu}


def study(name, ask, seeds, table, sizes):
    "One network on every seed's table."
    found = {}
    for seed in range(seeds):
        x, y, score = planted_table(seed, **table)
        at = int(LEARNED * len(x))
        p, masks, times = ask(x[:at], y[:at], x[at:], sizes, seed)
        found[str(seed)] = {**judged(p, y[at:], masks), "best": judged(score[at:] > 0, y[at:])["accuracy"], **times}
        print(name, table, seed, json.dumps(plain(found[str(seed)])), flush=True)
    return {"table": table, "sizes": sizes, "seeds": found}


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("tables", nargs="*", help="small, large; both when none is named")
    cli.add_argument("--peer", help="interpreter with pytorch-tabnet")
    cli.add_argument("--seeds", type=int, default=3, help="how many tables")
    args = cli.parse_args()
    networks = {"cryptolab": ours}
    if args.peer:
        networks["pytorch-tabnet"] = lambda *table: peer(args.peer, *table)
    for kind in args.tables or TABLES:
        for name, ask in networks.items():
            found = study(name, ask, args.seeds, *TABLES[kind])
            found["command"] = f"python -m benchmarks.tabnet {kind}" + (" --peer PYTHON" if ask is not ours else "")
            if ask is ours:
                versions = {k: v for k, v in package_versions().items() if k in ("numpy", "keras", "tensorflow")}
                found |= {"code": library_code(ROOMS), "versions": versions}
            stored = json.loads(STORE.read_text()) if STORE.exists() else {}
            write_json(STORE, plain(stored | {kind: stored.get(kind, {}) | {name: found}}))


if __name__ == "__main__":
    main()
