"""Does our layer equal PyTorch Geometric's, and does the network find who follows whom?

python -m benchmarks.graph_attention [layer] [market] [--peer PYTHON] [--seeds 5]

`layer`: GATConv of PyTorch Geometric on three directed graphs of five nodes, heads side by side and averaged, with and
without added self loops. Its inputs, weights, outputs and attention are stored; tests/test_graph_attention.py compares
our layer with them. PYTHON is an interpreter made by `uv venv FOLDER && uv pip install --python FOLDER/bin/python torch
torch_geometric==2.8.1 numpy`; without it the stored numbers stay.

`market`: five coins of noise, of which coin 1 repeats 80 % of coin 0's last return. One network learns the graph, one
with two layers does, one hears only itself, and one has the paper's attention over all pairs. Per seed: R2 of coin 1's
next return on 1,000 later candles (0.64 at best, on average), the weight of the edge 0 -> 1, and the largest other one
between two coins. `through_others`: of the two layers' network, the part of the edge's weight that does not come from
hearing coin 0 directly in one layer and itself in the other. Stored in benchmarks/results/graph_attention.json.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np

from cryptolab.config import load_keras, seed_everything
from cryptolab.files import plain, write_json
from cryptolab.models.graph_attention import GraphAttentionNetwork, open_edges
from cryptolab.systems.artefacts import library_code, package_versions

STORE = Path(__file__).parent / "results" / "graph_attention.json"
ROOMS = ("models/graph_attention",)  # whose code shapes these numbers
TEST = 1_000  # last candles of a made market
LEADER, FOLLOWER = 0, 1

PEER = '''
import json, warnings
warnings.filterwarnings("ignore")
import numpy as np, torch, torch_geometric
from torch_geometric.nn import GATConv
rng = np.random.default_rng(83)
plain = lambda t: " ".join(f"{v:.8g}" for v in t.detach().numpy().ravel())
graphs = {
    "chain": np.eye(5, k=-1, dtype=int), "all pairs": np.ones((5, 5), int),
    "sparse, one node alone": (rng.random((5, 5)) < 0.4).astype(int),
}
graphs["sparse, one node alone"][3] = 0
cases = []
for concat in (True, False):
    torch.manual_seed(int(concat))
    x = torch.tensor(rng.standard_normal((5, 3)), dtype=torch.float32)
    for loops in (True, False):
        layer = GATConv(3, 2, heads=2, concat=concat, negative_slope=0.2, add_self_loops=loops)
        torch.nn.init.normal_(layer.bias)
        for name, graph in graphs.items():
            listener, speaker = map(torch.tensor, np.nonzero(graph))
            out, (edges, alpha) = layer(x, torch.stack([speaker, listener]), return_attention_weights=True)
            attention = torch.zeros(2, 5, 5)
            attention[:, edges[1], edges[0]] = alpha.T
            cases.append({
                "graph": name, "adjacency": " ".join(map(str, graph.ravel())), "concat": concat, "self_loops": loops,
                "x": plain(x),
                "kernel": plain(layer.lin.weight.T), "source": plain(layer.att_src), "target": plain(layer.att_dst),
                "bias": plain(layer.bias), "output": plain(out), "attention": plain(attention),
            })
versions = {"torch": torch.__version__, "torch_geometric": torch_geometric.__version__}
print(json.dumps({"nodes": 5, "inputs": 3, "features": 2, "heads": 2, "versions": versions, "cases": cases}))
'''


def follower_market(
    seed: int = 0,  # of the noise
    candles: int = 3_001,  # returns per coin
    coins: int = 5,  # of which coin 1 follows coin 0
    strength: float = 0.8,  # correlation of the follower's return with the leader's one candle before
) -> tuple:  # x (candles - 1, coins, 1): last returns, y of the same shape: the following ones; float32, variance 1
    "Returns of noise, except that one coin repeats another's last candle."
    returns = np.random.default_rng([seed, 1]).standard_normal((candles, coins)).astype("float32")
    own = np.float32(np.sqrt(1 - strength**2))
    returns[1:, FOLLOWER] = strength * returns[:-1, LEADER] + own * returns[1:, FOLLOWER]
    return returns[:-1, :, None], returns[1:, :, None]


def fit_market(
    x: np.ndarray,  # (times, coins, 1) last returns
    y: np.ndarray,  # (times, coins, 1) following ones
    seed: int = 0,  # of the weights and the order
    adjacency: np.ndarray | None = None,  # given graph; None learns it
    layers: int = 1,  # of attention
    epochs: int = 30,  # passes over the rows
) -> tuple:  # (the attention network, keras.Model with its linear head: last returns -> forecasts)
    "Graph attention with a linear head on next returns."
    keras, coins = load_keras(), x.shape[1]
    seed_everything(seed)
    gat = GraphAttentionNetwork(coins, 1, 8, 2, num_layers=layers, seed=seed)
    gat.listener.trainable = gat.speaker.trainable = adjacency is None
    inputs = keras.Input((coins, 1))
    model = keras.Model(inputs, keras.layers.Dense(1)(gat(inputs, adjacency)[0]))
    model.compile(keras.optimizers.Adam(0.03), "mse")
    model.fit(x, y, batch_size=500, epochs=epochs, verbose=0)
    return gat, model


def largest_other(graph: np.ndarray) -> float:
    "The largest weight between two coins, that of the true edge left out."
    others = ~np.eye(len(graph), dtype=bool)
    others[FOLLOWER, LEADER] = False
    return float(graph[others].max())


def judged(gat, model, x, y, adjacency=None) -> dict:
    "What a network knows of the later rows, and whom it hears."
    error = (y - np.asarray(model(x)))[:, FOLLOWER, 0]
    graph = np.asarray(gat(x, adjacency)[1]).mean(axis=0)
    found = {"r2": 1 - np.mean(error**2) / np.mean(y[:, FOLLOWER, 0] ** 2)}
    return found | {"edge": graph[FOLLOWER, LEADER], "largest_other": largest_other(graph)}


def through_others(gat, x) -> float:
    "Weight of the edge in two layers that came neither by (direct, itself) nor by (leader itself, direct)."
    allowed, logits = open_edges(None, None, gat.num_assets), gat.graph_logits()
    hidden, first, _ = gat.blocks[0](x, allowed, logits)
    last = gat.blocks[1](hidden, allowed, logits)[1]
    first, last = (np.asarray(part).mean(axis=1) for part in (first, last))
    paths = last[:, FOLLOWER, :] * first[:, :, LEADER]
    return float((paths.sum(axis=1) - paths[:, LEADER] - paths[:, FOLLOWER]).mean())


def market(seeds: int) -> dict:
    "Every kind of network on every seed's market."
    kinds = {
        "learned": {}, "learned, two layers": {"layers": 2}, "itself only": {"adjacency": np.eye(5)},
        "all pairs": {"adjacency": np.ones((5, 5))},
    }
    found = {kind: {} for kind in kinds}
    for seed in range(seeds):
        x, y = follower_market(seed)
        for kind, named in kinds.items():
            start = time.perf_counter()
            gat, model = fit_market(x[:-TEST], y[:-TEST], seed, **named)
            row = {"seconds": time.perf_counter() - start}
            row |= judged(gat, model, x[-TEST:], y[-TEST:], named.get("adjacency"))
            if named.get("layers") == 2:
                row["through_others"] = through_others(gat, x[-TEST:])
            found[kind][str(seed)] = plain(row)
            print(kind, seed, json.dumps(plain(row)), flush=True)
    return found


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("parts", nargs="*", help="layer, market; both when none is named")
    cli.add_argument("--peer", help="interpreter with torch_geometric")
    cli.add_argument("--seeds", type=int, default=5, help="how many markets")
    args = cli.parse_args()
    parts = args.parts or ["layer", "market"]
    stored = json.loads(STORE.read_text()) if STORE.exists() else {}
    if "layer" in parts and args.peer:
        answer = subprocess.run([args.peer, "-c", PEER], check=True, capture_output=True, text=True).stdout
        stored["layer"] = {"command": "python -m benchmarks.graph_attention layer --peer PYTHON"} | json.loads(answer)
    if "market" in parts:
        versions = {k: v for k, v in package_versions().items() if k in ("numpy", "keras", "tensorflow")}
        stored["market"] = {
            "command": f"python -m benchmarks.graph_attention market --seeds {args.seeds}",
            "code": library_code(ROOMS), "versions": versions, "kinds": market(args.seeds),
        }
    write_json(STORE, plain(stored))


if __name__ == "__main__":
    main()
