"""Do the networks of the Ultimate system do what their papers and other libraries' networks do?

python -m benchmarks.ultimate [tft] [--parts same speed learned] [--peers FOLDER] [--install] [--seeds 5]

tft   the Temporal Fusion Transformer beside those of neuralforecast and pytorch-forecasting, of the same sizes:
      same     with neuralforecast's weights, ours gives its forecasts, variable weights and attention
      learned  quantile loss on held-out rows of a market with a planted rule, per seed; ours minus peer as paired
               differences over the seeds; which variable each network names. Without dropout: the libraries have it
               in different places
      speed    seconds of a training step on 150 columns x 50 candles, hidden 160, as an epoch of 7,000 windows; our
               network and the peer in turns, one thread each

FOLDER is a Python environment with both peers (default: .cache/peers-ultimate); --install makes it: `python -m venv
FOLDER && FOLDER/bin/pip install neuralforecast pytorch-forecasting "pandas<3.1"`. Linux wheels of torch bring CUDA
libraries along: about 6 GB on disk. A peer that is not there is named, and what can be measured is stored. The peers
get the same batches in the same order, the same loss and the same optimizer as ours. Results are stored in
benchmarks/results/ultimate.json, with the command that made each part.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

from cryptolab.config import load_keras
from cryptolab.files import plain, write_json
from cryptolab.models.tft import TemporalFusionTransformer, quantile_loss
from cryptolab.systems.artefacts import library_code, package_versions

HERE = Path(__file__).parent
STORE = HERE / "results" / "ultimate.json"
PACKAGES = ("neuralforecast", "pytorch-forecasting", "pandas<3.1")
PEERS = ("neuralforecast", "pytorch-forecasting")
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"
)
LEARN = dict(
    columns=6, window=20, horizons=(1, 3), hidden=16, layers=1, heads=2, dropout=0.0, quantiles=(0.1, 0.5, 0.9),
    width=None, rate=3e-3, batch=64, epochs=6,
)
SAME = dict(
    columns=3, window=6, horizons=(1, 3), hidden=8, layers=2, heads=2, dropout=0.1, quantiles=(0.1, 0.5, 0.9),
    width=None, static=2, draw=5,
)
FAST = dict(
    columns=150, window=50, horizons=(1, 5, 10), hidden=160, layers=3, heads=4, dropout=0.2, quantiles=(0.1, 0.5, 0.9),
    width=8, rate=1e-3, batch=64,
)
EPOCH = 7_000  # windows


# ---- networks

def build(sizes, seed=0, **named):
    "Our network of the sizes that the peers get."
    return TemporalFusionTransformer(
        sizes["columns"], sizes["hidden"], sizes["heads"], sizes["quantiles"], horizons=sizes["horizons"],
        num_layers=sizes["layers"], dropout=sizes["dropout"], selection_width=sizes["width"], seed=seed,
        static_size=sizes.get("static", 0), **named,
    )


def peer(python, network, task, sizes, **arrays):
    "What a peer's network finds, in its own interpreter; None where it cannot run."
    with tempfile.TemporaryDirectory() as folder:
        order, data, answer = (Path(folder) / name for name in ("order.json", "data.npz", "answer.npz"))
        np.savez(data, **arrays)
        order.write_text(json.dumps(plain(dict(
            network=network, task=task, sizes=sizes, data=str(data), answer=str(answer),
        ))))
        run = subprocess.run(
            [python, HERE / "ultimate_peers.py", order], capture_output=True, text=True, env=os.environ | ONE_THREAD,
        )
        if run.returncode:
            print(f"{network}: {run.stderr.strip().splitlines()[-1]}", flush=True)
            return None
        return dict(np.load(answer))


def install(folder):
    "An environment with the peers; False where it cannot be made."
    steps = [sys.executable, "-m", "venv", folder], [folder / "bin" / "pip", "install", "--quiet", *PACKAGES]
    return all(subprocess.run(step).returncode == 0 for step in steps)


# ---- the same network

def drawn(shapes, draw):
    "Weights of a peer by name, drawn as `ultimate_peers.py` draws them."
    rng = np.random.default_rng(draw)
    return {name: rng.normal(0, 0.4, shape).astype("float32") for name, shape in shapes.items()}


def transplant(
    model,  # our network, with known_size=1: the relative time
    weights,  # neuralforecast's, {name: array}
):
    "Give our network the weights of neuralforecast's, whose columns stand in another order."
    w, columns = weights, model.sizes["input_size"]

    def linear(layer, name, part=slice(None), order=None):
        "One matrix, or one for each variable of the order."
        kernel, bias = (
            np.stack([w[f"{name.format(k)}.{kind}"][part] for k in order or [0]]) if f"{name.format(0)}.{kind}" in w
            else None for kind in ("weight", "bias")
        )
        kernel = np.swapaxes(kernel, 1, 2)
        layer.kernel.assign(kernel if order else kernel[0])
        if layer.bias is not None:
            layer.bias.assign(bias[:, None] if order else bias[0])

    def gate(layer, name, norm, order=None):
        "A gated skip connection."
        units = layer.value.kernel.shape[-1]
        linear(layer.value, name, slice(units), order)
        linear(layer.gate, name, slice(units, None), order)
        for weight, kind in ((layer.scale, "weight"), (layer.shift, "bias")):
            found = np.stack([w[f"{norm.format(k)}.{kind}"] for k in order or [0]])
            weight.assign(found[:, None] if order else found[0])

    def grn(layer, name, order=None, first=None):
        "A residual network."
        linear(first or layer.first, f"{name}.lin_a", order=order)
        linear(layer.second, f"{name}.lin_i", order=order)
        if layer.context is not None:
            linear(layer.context, f"{name}.lin_c")
        gate(layer.out, f"{name}.glu.lin", f"{name}.layer_norm.ln", order)

    def selection(layer, name, kinds, order):
        "Variable selection; `order` has the peer's place of each of our variables."
        vectors, bias = (
            np.concatenate([w[f"embedding.{kind}_embedding_{part}"] for kind in kinds]) for part in ("vectors", "bias")
        )
        layer.embedding.kernel.assign(vectors[order][:, None])
        layer.embedding.bias.assign(bias[order][:, None])
        grn(layer.own, f"{name}.var_grns.{{}}", order, layer.own.first.linear)
        if layer.weigh is None:
            return
        joint = f"{name}.joint_grn"
        moved = dict(w)  # inputs and outputs of the joint network in our order
        for part in ("lin_a", "out_proj"):
            rows = w[f"{joint}.{part}.weight"]
            by_variable = rows.reshape(len(rows), len(order), -1)[:, order]
            moved[f"{joint}.{part}.weight"] = by_variable.reshape(len(rows), -1)
        both = [*order, *(len(order) + k for k in order)]
        for part, places in (
            ("glu.lin.weight", both), ("glu.lin.bias", both), ("layer_norm.ln.weight", order),
            ("layer_norm.ln.bias", order), ("out_proj.weight", order), ("out_proj.bias", order),
        ):
            moved[f"{joint}.{part}"] = moved[f"{joint}.{part}"][places]
        w.update(moved)
        grn(layer.weigh, joint, first=layer.weigh.first.linear)
        linear(layer.weigh.skip.linear, f"{joint}.out_proj")

    w = dict(weights)
    # the peer's past columns: observed but the last, the known one, the last observed (its target)
    selection(
        model.select_past, "temporal_encoder.history_vsn", ("hist_exog", "futr_exog", "tgt"),
        [*range(columns - 1), columns, columns - 1],
    )
    selection(model.select_future, "temporal_encoder.future_vsn", ("futr_exog",), [0])
    if model.contexts:
        selection(
            model.select_static, "static_encoder.vsn", ("stat_exog",), list(range(model.sizes["static_size"])),
        )
        for k, name in enumerate(("selection", "enrichment", "state", "cell")):
            grn(model.contexts[name], f"static_encoder.context_grns.{k}")
    for lstms, name in ((model.encoder, "history_encoder"), (model.decoder, "future_encoder")):
        for k, lstm in enumerate(lstms):
            at = f"temporal_encoder.{name}.{{}}_l{k}"
            lstm.set_weights([
                w[at.format("weight_ih")].T, w[at.format("weight_hh")].T,
                w[at.format("bias_ih")] + w[at.format("bias_hh")],
            ])
    decoder, heads = "temporal_fusion_decoder", model.sizes["hidden_size"]
    gate(model.skip_lstm, "temporal_encoder.input_gate.lin", "temporal_encoder.input_gate_ln")
    gate(model.skip_attention, f"{decoder}.attention_gate.lin", f"{decoder}.attention_ln")
    gate(model.skip_all, f"{decoder}.decoder_gate.lin", f"{decoder}.decoder_ln")
    grn(model.enrich, f"{decoder}.enrichment_grn")
    grn(model.feed_forward, f"{decoder}.positionwise_grn")
    for layer, part in (("query", slice(heads)), ("key", slice(heads, 2 * heads)), ("value", slice(2 * heads, None))):
        linear(getattr(model.attention, layer), f"{decoder}.attention.qkv_linears", part)
    linear(model.attention.out, f"{decoder}.attention.out_proj")
    linear(model.quantiles, "output_adapter")


def reference_rows():
    "Windows, static columns and the relative time, for `same`."
    rng, window, ahead = np.random.default_rng(1), SAME["window"], max(SAME["horizons"])
    step = np.arange(1 - window, ahead + 1, dtype="float32") / ahead
    return {
        "observed": rng.standard_normal((4, window, SAME["columns"])).astype("float32"),
        "static": rng.standard_normal((4, SAME["static"])).astype("float32"),
        "known": np.broadcast_to(step[None, :, None], (4, window + ahead, 1)),
    }


def with_weights_of(shapes):
    "Forecasts, attention and weights of the columns of our network with the peer's weights."
    rows, model = reference_rows(), build(SAME, known_size=1)
    transplant(model, drawn(shapes, SAME["draw"]))
    forecast, said = model(rows)
    weights = np.asarray(said["observed_weights"])[..., : SAME["columns"]]
    return {
        "forecast": np.asarray(forecast), "attention": np.asarray(said["attention"]),
        "weights": weights / weights.sum(axis=-1, keepdims=True),
    }


def same(python):
    "Ours with neuralforecast's weights: largest differences, and what a test needs to see it again."
    rows = reference_rows()
    found = peer(python, "neuralforecast", "reference", SAME, x=rows["observed"], static=rows["static"])
    if found is None:
        return None
    shapes = json.loads(str(found["shapes"]))
    ours = with_weights_of(shapes)
    wanted = {name: found[name] for name in ours}
    return {
        "largest_difference": {name: float(np.abs(ours[name] - wanted[name]).max()) for name in ours},
        "peer": json.loads(str(found["versions"])), "shapes": shapes,
        "wanted": {name: part.round(6).tolist() for name, part in wanted.items()},
    }


# ---- what is learned

def planted_windows(seed, rows=6_000, sizes=LEARN):
    "Windows and answers: column 3 moves the middle (a falling mean of the past), column 1 the spread. Also the best."
    rng = np.random.default_rng([seed, 17])
    x = rng.standard_normal((rows, sizes["window"], sizes["columns"])).astype("float32")
    fall = 0.8 ** np.arange(sizes["window"])[::-1]
    middle, spread = x[:, :, 3] @ fall, 0.4 * np.exp(0.5 * x[:, -1, 1])
    middle = middle[:, None] / np.sqrt(np.array(sizes["horizons"]))
    y = middle + spread[:, None] * rng.standard_normal(middle.shape)
    best = middle[..., None] + spread[:, None, None] * stats.norm.ppf(sizes["quantiles"])
    return x, y.astype("float32"), best


def train_ours(sizes, seed, x, y, later, batches):
    "Our network on the batches that the peers get."
    keras = load_keras()
    model = build(sizes, seed)
    model.compile(keras.optimizers.Adam(sizes["rate"], global_clipnorm=1.0))
    for rows in batches:
        model.train_on_batch(x[rows], y[rows])
    asked = [model(later[at : at + 500]) for at in range(0, len(later), 500)]
    return {
        "forecast": np.concatenate([np.asarray(p) for p, _ in asked]), "parameters": model.count_params(),
        "weights": np.concatenate([np.asarray(said["observed_weights"]) for _, said in asked]),
    }


def learn(python, seed, networks):
    "Held-out loss and the named column of each network, on one seed's market."
    x, y, best = planted_windows(seed)
    past, later = slice(0, 4_000), slice(4_000, None)
    rng = np.random.default_rng([seed, 18])
    orders = [rng.permutation(4_000)[: 4_000 // LEARN["batch"] * LEARN["batch"]] for _ in range(LEARN["epochs"])]
    arrays = dict(x=x[past], y=y[past], later=x[later], batches=np.concatenate(orders).reshape(-1, LEARN["batch"]))
    out = {"best": float(quantile_loss(y[later], best[later], LEARN["quantiles"]))}
    for network in networks:
        start = time.perf_counter()
        if network == "cryptolab":
            found = train_ours(LEARN, seed, **arrays)
        else:
            found = peer(python, network, "train", LEARN | {"seed": seed}, **arrays)
        if found is not None:
            shares = found["weights"].mean(axis=(0, 1))
            out[network] = {
                "loss": float(quantile_loss(y[later], found["forecast"], LEARN["quantiles"])),
                "named": int(shares.argmax()), "share": float(shares.max()), "parameters": int(found["parameters"]),
                "seconds": round(time.perf_counter() - start, 1),
            }
    return out


def paired(seeds):
    "Our held-out loss minus a peer's over the seeds, with Student's interval."
    out = {}
    for network in PEERS:
        gain = np.array([run["cryptolab"]["loss"] - run[network]["loss"] for run in seeds.values() if network in run])
        if len(gain) > 1:
            reach = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
            out[network] = {"difference": gain.mean(), "low": gain.mean() - reach, "high": gain.mean() + reach}
    return out


def parameters(counts):
    "Weights of each network; ours also with the relative time, as neuralforecast's, and what that one has more."
    h, layers, ours = LEARN["hidden"], LEARN["layers"], build(LEARN, known_size=1).count_params()
    why = {
        "a second bias in each LSTM": 2 * layers * 4 * h,
        "matrices for a static context that is not there": 3 * h * h,
        "weights for the choice among one future column": 2 * (h * h + h) + (2 * h + 2) + (h + 1),
        "one embedding of the known column for past and future": -2 * h,
    }
    return {"cryptolab with the relative time": ours, **counts, "neuralforecast has more": why}


# ---- how fast

def our_steps(width, steps):
    "Seconds of our training steps behind the first, which builds the program."
    model, data = build(FAST | {"width": width}), fast_rows()
    model.compile("adam")
    wall, cpu = [], []
    for _ in range(steps + 1):
        start = time.perf_counter(), time.process_time()
        model.train_on_batch(data["x"], data["y"])
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return {"wall": wall[1:], "cpu": cpu[1:], "parameters": model.count_params()}


def fast_rows():
    "One batch."
    rng, batch = np.random.default_rng(3), FAST["batch"]
    x = rng.standard_normal((batch, FAST["window"], FAST["columns"])).astype("float32")
    return {"x": x, "y": rng.standard_normal((batch, len(FAST["horizons"]))).astype("float32")}


def speed(python, rounds=2):
    "An epoch's seconds from a few steps of each, in turns."
    tasks = {
        "cryptolab, width 8": lambda: our_steps(8, 6),
        "pytorch-forecasting, width 8": lambda: python and peer(
            python, "pytorch-forecasting", "speed", FAST | {"steps": 3}, **fast_rows()
        ),
        "cryptolab, full width": lambda: our_steps(None, 3),
    }
    out = {}
    for _ in range(rounds):
        for name, task in tasks.items():
            if (found := task()) is None:
                continue
            row = out.setdefault(name, {"parameters": int(found["parameters"]), "wall": [], "cpu": []})
            for kind in ("wall", "cpu"):
                row[kind] += [round(float(v), 3) for v in found[kind]]
            print(name, json.dumps(row), flush=True)
    for row in out.values():
        for kind in ("wall", "cpu"):
            row[f"{kind}_seconds_an_epoch"] = float(np.median(row[kind]) * EPOCH / FAST["batch"])
    ours, other = (out.get(f"{name}, width 8") for name in ("cryptolab", "pytorch-forecasting"))
    if other:
        out["times_faster"] = {
            kind: other[f"{kind}_seconds_an_epoch"] / ours[f"{kind}_seconds_an_epoch"] for kind in ("wall", "cpu")
        }
    return out


# ---- studies

def learned(python, seeds):
    "Every network on every seed's market."
    networks, runs = ("cryptolab", *PEERS) if python else ("cryptolab",), {}
    for seed in range(seeds):
        runs[str(seed)] = learn(python, seed, networks)
        print("learned", seed, json.dumps(runs[str(seed)]), flush=True)
    counts = {name: runs["0"][name]["parameters"] for name in networks if name in runs["0"]}
    return {"sizes": LEARN, "seeds": runs, "paired": paired(runs), "parameters": parameters(counts)}


TFT = {
    "same": lambda python, args: python and same(python), "speed": lambda python, args: speed(python),
    "learned": lambda python, args: learned(python, args.seeds),
}


def tft(args):
    "The parts of the first study that are asked for, each as soon as it is done."
    python = args.peers / "bin" / "python"
    if not python.exists() and not (args.install and install(args.peers)):
        print(f"no peers in {args.peers}: only our network is measured (--install makes it)", flush=True)
        python = None
    for part in args.parts or TFT:
        command = f"python -m benchmarks.ultimate tft --peers FOLDER --parts {part}"
        yield part, command, {"missing": [] if python else list(PEERS)} | (TFT[part](python, args) or {})


STUDIES = {  # study -> what makes its parts, whose code shapes the numbers
    "tft": (tft, ("config", "files", "models/keras_classes", "models/tft_blocks", "models/tft")),
}


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("studies", nargs="*", help="tft; all when none is named")
    cli.add_argument("--parts", nargs="*", help="parts of a study; all when none is named")
    cli.add_argument("--peers", type=Path, default=Path(".cache/peers-ultimate"), help="environment of the peers")
    cli.add_argument("--install", action="store_true", help="make the environment where it is missing")
    cli.add_argument("--seeds", type=int, default=5, help="how many markets")
    args = cli.parse_args()
    if unknown := set(args.studies) - set(STUDIES):
        cli.error(f"unknown study {', '.join(unknown)}; choose from {', '.join(STUDIES)}")
    os.environ |= ONE_THREAD
    versions = {k: v for k, v in package_versions().items() if k in ("numpy", "keras", "tensorflow")}
    for name in args.studies or STUDIES:
        study, rooms = STUDIES[name]
        start = time.perf_counter()
        for part, command, found in study(args):
            seconds, start = round(time.perf_counter() - start), time.perf_counter()
            found |= {"command": command, "code": library_code(rooms), "versions": versions, "seconds": seconds}
            stored = json.loads(STORE.read_text()) if STORE.exists() else {}
            write_json(STORE, plain(stored | {name: stored.get(name, {}) | {part: found}}))


if __name__ == "__main__":
    main()
