"""Does the learner forget less than plain fine-tuning, and at what price?

python -m benchmarks.continual [WAY …] [--seeds 5] [--epochs 15]

Permuted digits (after Kirkpatrick et al. 2017, section 2.1): three tasks, each with the pixels of scikit-learn's digits
in an order of its own, learned one after another by one network of 64-100-100-10 with a new Adam of 0.001 for each. Of
1,797 digits 1,000 are learned, 300 choose the strength of EWC before the second task (`choose_importance`), and 497 are
the test. The ways differ in what they keep of old tasks; 1,000 is the default size of the memory, and as large as a
task, so a memory of 100 rows is tried too. `weight` is the strength that was used; accuracies are those of the three
tasks after the last one, and of each right after it was learned. Results are stored in
benchmarks/results/continual.json.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from cryptolab.config import load_keras
from cryptolab.files import plain, write_json
from cryptolab.models.continual import ContinualLearner, choose_importance
from cryptolab.systems.artefacts import library_code, package_versions

STORE = Path(__file__).parent / "results" / "continual.json"
ROOMS = ("models/gradients", "models/continual")  # whose code shapes these numbers
LOSS, BATCH = "sparse_categorical_crossentropy", 32
WAYS = {  # name -> (rows in memory, strength of EWC; None = chosen on validation rows)
    "fine_tuning": (0, 0.0), "ewc": (0, None), "ewc_default": (0, 0.5), "replay": (1000, 0.0), "both": (1000, None),
    "both_default": (1000, 0.5), "replay_100": (100, 0.0), "both_100": (100, None),
}


def permuted_digits(
    seed: int = 0,  # of the split and of the pixels' orders
    tasks: int = 3,  # the first has the pixels as they are
) -> list:  # a dict per task: train, val, test -> (x (rows, 64) float32, y digits)
    "The same digits with the pixels in another order for each task."
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(seed)
    order = rng.permutation(len(digits.data))
    pixels, label = (digits.data / 16).astype("float32")[order], digits.target[order]
    parts = {"train": slice(0, 1_000), "val": slice(1_000, 1_300), "test": slice(1_300, None)}
    orders = [np.arange(64), *(rng.permutation(64) for _ in range(tasks - 1))]
    return [{name: (pixels[rows][:, kept], label[rows]) for name, rows in parts.items()} for kept in orders]


def network(
    seed: int = 0,  # of the weights
):  # keras.Model: (rows, 64) -> (rows, 10) probabilities
    "Two hidden layers of 100."
    keras = load_keras()
    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(100, "relu") for _ in range(2)]
    return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, "softmax")])


def batches_of(x, y, seed):
    "A task's rows in batches, in an order of their own."
    order = np.random.default_rng(seed).permutation(len(x))
    return [(x[rows], y[rows]) for rows in np.array_split(order, len(order) // BATCH)]


def accuracies(model, tasks):
    "Share of right answers on the test rows of each task."
    return [float(np.mean(np.argmax(np.asarray(model(t["test"][0])), axis=1) == t["test"][1])) for t in tasks]


def learn_all(
    tasks: list,  # of `permuted_digits`
    memory: int,  # rows to replay from
    weight: float | None,  # strength of EWC; None = chosen before the second task
    seed: int = 0,  # of weights, order and memory
    epochs: int = 15,  # per task
) -> dict:  # weight, accuracy after all tasks, learned: accuracy of each task right after it
    "Learn the tasks one after another."
    adam = load_keras().optimizers.Adam
    model, learned = network(seed), []
    learner = ContinualLearner(model, memory_size=memory, importance_weight=weight or 0.0, seed=seed)
    for k, task in enumerate(tasks):
        if k == 1 and weight is None:
            batches = batches_of(*task["train"], [seed, k, 99])
            choose_importance(learner, batches, tasks[0]["val"], task["val"], LOSS, adam, epochs=epochs)
        optimizer = adam()
        for epoch in range(epochs):
            for x, y in batches_of(*task["train"], [seed, k, epoch]):
                learner.continual_train_step(x, y, optimizer, LOSS, remember=epoch == 0)
        if weight != 0:
            learner.compute_fisher_information([task["train"]], LOSS)
        learned.append(accuracies(model, tasks)[k])
    return {"weight": learner.importance_weight, "accuracy": accuracies(model, tasks), "learned": learned}


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("ways", nargs="*", help=", ".join(WAYS) + "; all when none is named")
    cli.add_argument("--seeds", type=int, default=5)
    cli.add_argument("--epochs", type=int, default=15, help="per task")
    args = cli.parse_args()
    versions = {k: v for k, v in package_versions().items() if k in ("numpy", "keras", "tensorflow", "scikit-learn")}
    for name in args.ways or WAYS:
        seeds = {}
        for seed in range(args.seeds):
            start = time.process_time()
            found = learn_all(permuted_digits(seed), *WAYS[name], seed=seed, epochs=args.epochs)
            seeds[str(seed)] = found | {"cpu_seconds": time.process_time() - start}
            print(name, seed, json.dumps(plain(seeds[str(seed)])), flush=True)
        command = f"python -m benchmarks.continual {name} --seeds {args.seeds} --epochs {args.epochs}"
        stored = json.loads(STORE.read_text()) if STORE.exists() else {}
        row = {"command": command, "seeds": seeds, "code": library_code(ROOMS), "versions": versions}
        write_json(STORE, plain(stored | {name: row}))


if __name__ == "__main__":
    main()
