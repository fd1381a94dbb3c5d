"""Do weights that MAML found adapt faster than weights that were pretrained?

python -m benchmarks.meta_learning [--seeds 5] [--steps 2000]

The sine waves of Finn, Abbeel and Levine (2017, section 5.1): amplitude 0.1 to 5, phase 0 to pi, x in ±5, ten points
known, two hidden layers of 40, one inner step of 0.01 in training. Four starting points: MAML of second and of first
order, a network pretrained on the same number of tasks and rows with the same Adam, and random weights. All are adapted
by gradient descent on ten points of 200 new sines and judged by the mean squared error at 100 other points. The rate of
adapting is 0.01 for all; the pretrained and the random network also get the best of RATES, chosen on 100 other sines
after one step. Results are stored in benchmarks/results/meta_learning.json.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from cryptolab.config import load_keras
from cryptolab.files import plain, write_json
from cryptolab.models.meta_learning import MetaLearningMAML
from cryptolab.systems.artefacts import library_code, package_versions

STORE = Path(__file__).parent / "results" / "meta_learning.json"
ROOMS = ("models/gradients", "models/meta_learning")  # whose code shapes these numbers
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
ASKED = (0, 1, 5, 10)  # inner steps after which a network is judged
INNER_LR = 0.01


def sine_task(
    rng: np.random.Generator,  # draws the sine and its points
    shots: int = 10,  # points of the support
    query: int = 10,  # points of the query
) -> tuple:  # support_x, support_y, query_x, query_y: float32, (points, 1) each
    "One sine wave of the paper."
    amplitude, phase = rng.uniform(0.1, 5), rng.uniform(0, np.pi)
    x = rng.uniform(-5, 5, (shots + query, 1))
    y = amplitude * np.sin(x - phase)
    return tuple(part.astype("float32") for part in (x[:shots], y[:shots], x[shots:], y[shots:]))


def whole_task(rng):
    "The same, all its points as query: what pretraining on all tasks learns from."
    x, y, more_x, more_y = sine_task(rng)
    return x, y, np.concatenate([x, more_x]), np.concatenate([y, more_y])


def network(
    seed: int = 0,  # of the weights
):  # keras.Model: (points, 1) -> (points, 1)
    "The paper's network."
    keras = load_keras()
    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(40, "relu") for _ in range(2)]
    return keras.Sequential([keras.Input((1,)), *hidden, keras.layers.Dense(1)])


def judged(
    model,  # keras.Model where adapting begins
    tasks: list,  # of `sine_task`
    steps: tuple = ASKED,  # inner steps
    rate: float = INNER_LR,  # of adapting
) -> dict:  # steps -> mean squared error at the query points, mean over the tasks
    "How good a network is after some steps on each task's support."
    maml = MetaLearningMAML(model, inner_lr=rate)
    found = {}
    for number in steps:
        asked = [(maml.adapt(x, y, "mse", number)(query), wanted) for x, y, query, wanted in tasks]
        found[number] = float(np.mean([np.mean((np.asarray(answer) - wanted) ** 2) for answer, wanted in asked]))
    return found


def study(seed, steps):
    "All starting points of one seed."
    rng = np.random.default_rng([seed, 1])
    tasks, others = ([sine_task(rng, 10, 100) for _ in range(number)] for number in (200, 100))
    ways = {
        "maml": (sine_task, dict(num_inner_steps=1)),
        "first_order": (sine_task, dict(num_inner_steps=1, first_order=True)),
        "pretrained": (whole_task, dict(num_inner_steps=0)),
    }
    found = {}
    for name, (sampler, settings) in ways.items():
        model, start = network(seed), time.process_time()
        maml = MetaLearningMAML(model, INNER_LR, seed=seed, **settings)
        maml.meta_train(sampler, "mse", steps, every=steps, log=None)
        seconds = time.process_time() - start
        found[name] = {"error": judged(model, tasks), "cpu_seconds": seconds}
        if name == "pretrained":
            found[f"{name}_best_rate"] = best_rate(model, tasks, others)
    found["random"] = {"error": judged(network(seed), tasks)}
    found["random_best_rate"] = best_rate(network(seed), tasks, others)
    return found


def best_rate(model, tasks, others):
    "The errors with the rate that is best on other tasks after one step."
    rate = min(RATES, key=lambda rate: judged(model, others, (1,), rate)[1])
    return {"rate": rate, "error": judged(model, tasks, rate=rate)}


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--seeds", type=int, default=5)
    cli.add_argument("--steps", type=int, default=2_000, help="of the outer loop, 25 tasks each")
    args = cli.parse_args()
    seeds = {}
    for seed in range(args.seeds):
        seeds[str(seed)] = plain(study(seed, args.steps))
        for name, row in seeds[str(seed)].items():
            print(seed, name, json.dumps(row), flush=True)
    versions = {k: v for k, v in package_versions().items() if k in ("numpy", "keras", "tensorflow")}
    write_json(STORE, plain({
        "command": f"python -m benchmarks.meta_learning --seeds {args.seeds} --steps {args.steps}", "steps": args.steps,
        "seeds": seeds, "code": library_code(ROOMS), "versions": versions,
    }))


if __name__ == "__main__":
    main()
