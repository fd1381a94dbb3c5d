"""Graph attention: PyTorch Geometric's stored numbers, hand-made cases, invariances, and who follows whom."""
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.graph_attention import FOLLOWER, LEADER, fit_market, follower_market, judged
from cryptolab.config import DataError, SettingsError
from cryptolab.models.graph_attention import (
    GraphAttentionNetwork, edge_loss, edge_scores, graph_attention_layer, graph_attention_network, lagged_graph,
    masked_softmax, open_edges, predict_edges,
)

STORED = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / "graph_attention.json").read_text())
CASES = STORED["layer"]["cases"]


def drawn(*shape, seed=0):
    return np.random.default_rng([seed, 8]).standard_normal(shape).astype("float32")


def arrays(found):
    return [np.asarray(part) for part in found]


def loose(gat, seed=0, size=0.7):
    "The network with every weight drawn anew, biases too."
    gat.set_weights([size * drawn(*w.shape, seed=k + 10 * seed) for k, w in enumerate(gat.get_weights())])
    return gat


@pytest.fixture(scope="module", params=[1, 2], ids=["one layer", "two layers"])
def gat(request):
    return loose(GraphAttentionNetwork(6, 4, 8, 2, num_layers=request.param))


GRAPH = (np.random.default_rng(4).random((6, 6)) < 0.4).astype("float32")

# ---- the paper's layer


@pytest.mark.parametrize("case", CASES, ids=[f"{c['graph']}-{c['concat']}-{c['self_loops']}" for c in CASES])
def test_the_layer_is_that_of_pytorch_geometric(case):
    number = lambda name, *shape: np.array(case[name].split(), "float32").reshape(shape)
    layer = graph_attention_layer()(2, heads=2, concat=case["concat"], activation="linear")
    layer.build((None, 5, 3))
    layer.set_weights([number("kernel", 3, 4), number("source", 2, 2), number("target", 2, 2), number("bias", -1)])
    allowed = open_edges(number("adjacency", 5, 5), None, 5, case["self_loops"])
    out, attention, _ = arrays(layer(number("x", 1, 5, 3), allowed))
    np.testing.assert_allclose(attention[0], number("attention", 2, 5, 5), atol=1e-6)
    np.testing.assert_allclose(out[0], number("output", 5, -1), atol=1e-5)


def test_the_stored_cases_are_those_that_can_tell():
    assert {(c["concat"], c["self_loops"]) for c in CASES} == {(a, b) for a in (True, False) for b in (True, False)}
    assert {c["graph"] for c in CASES} == {"chain", "all pairs", "sparse, one node alone"}
    alone = [np.array(c["attention"].split(), float).reshape(2, 5, 5)[:, 3] for c in CASES if "alone" in c["graph"]]
    assert [bool(rows.any()) for rows in alone] == [True, False, True, False]


def test_two_coins_by_hand():
    "W = 1, target -1, source 1: scores 0, 1 and -0.2, 0; ELU leaves positive answers and bends negative ones."
    layer, one = graph_attention_layer()(1), np.ones((1, 1), "float32")
    layer.build((None, 2, 1))
    layer.set_weights([one, one, -one, np.zeros(1)])
    out, attention, scores = arrays(layer(np.float32([[[1], [2]]]), open_edges(None, None, 2)))
    np.testing.assert_allclose(scores[0, 0], [[0, 1], [-0.2, 0]], atol=1e-6)
    a, b = 1 / (1 + np.e), 1 / (1 + np.exp(0.2))
    np.testing.assert_allclose(attention[0, 0], [[a, 1 - a], [b, 1 - b]], atol=1e-6)
    np.testing.assert_allclose(out[0, :, 0], [2 - a, 2 - b], atol=1e-6)
    layer.set_weights([one, one, -one, np.full(1, -3.0)])
    bent = arrays(layer(np.float32([[[1], [2]]]), open_edges(None, None, 2)))[0][0, :, 0]
    np.testing.assert_allclose(bent, np.expm1([-1 - a, -1 - b]), atol=1e-6)


def test_masked_softmax_of_huge_scores_and_of_nothing():
    scores = np.float32([[1e30, 1e30, -1e30], [-1e30, -1e30, 1e30], [5, 6, 7], [0, 0, 0]])
    allowed = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 1]], bool)
    found = np.asarray(masked_softmax(scores, allowed))
    np.testing.assert_array_equal(found, [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0], [0, 0, 1]])


# ---- the network


def test_documents_call():
    gat = GraphAttentionNetwork(num_assets=10, input_features=150, hidden_features=64, num_attention_heads=4)
    asset_features, learned_graph = arrays(gat(drawn(3, 10, 150), adj_matrix=None))
    assert asset_features.shape == (3, 10, 64) and learned_graph.shape == (3, 10, 10)
    np.testing.assert_allclose(learned_graph.sum(axis=-1), 1, atol=1e-5)
    assert isinstance(gat, graph_attention_network()) and gat.count_params() > 0


def test_coins_may_come_in_any_order_when_the_graph_comes_along(gat):
    x, order = drawn(3, 6, 4), np.random.default_rng(1).permutation(6)
    out, graph = arrays(gat(x, GRAPH))
    moved, again = arrays(gat(x[:, order], GRAPH[np.ix_(order, order)]))
    np.testing.assert_allclose(moved, out[:, order], atol=1e-5)
    np.testing.assert_allclose(again, graph[:, order][:, :, order], atol=1e-6)
    assert not np.allclose(arrays(gat(x[:, order], GRAPH))[0], out[:, order], atol=1e-3)


def test_a_given_graph_is_one_for_all_times_or_one_per_time(gat):
    x, other = drawn(2, 6, 4), GRAPH.T
    both = arrays(gat(x, np.stack([GRAPH, other])))
    for k, graph in enumerate((GRAPH, other)):
        for a, b in zip(both, arrays(gat(x[k : k + 1], graph))):
            np.testing.assert_allclose(a[k], b[0], atol=1e-6)


def test_edges_lead_from_column_to_row():
    "On the chain 0 -> 1 -> 2 a change of coin 0 reaches coin 1, and coin 2 in two layers only; never backwards."
    chain = np.eye(3, k=-1)
    for layers, reached in ((1, [True, True, False]), (2, [True, True, True])):
        network = loose(GraphAttentionNetwork(3, 2, 4, 2, num_layers=layers))
        x = drawn(1, 3, 2)
        changed = x.copy()
        changed[0, 0] += 1
        a, b = (arrays(network(v, chain))[0][0] for v in (x, changed))
        assert (np.abs(a - b).max(axis=1) > 1e-4).tolist() == reached
        changed = x.copy()
        changed[0, 2] += 1
        np.testing.assert_allclose(arrays(network(changed, chain))[0][0, :2], a[:2], atol=1e-6)


def test_with_one_layer_the_graph_is_the_attention_and_with_two_their_product(gat):
    x, graph = drawn(2, 6, 4), arrays(gat(drawn(2, 6, 4)))[1]
    allowed, product, features = open_edges(None, None, 6), np.eye(6), x
    for block in gat.blocks:
        features, attention, _ = block(features, allowed, gat.graph_logits())
        product = np.asarray(attention).mean(axis=1) @ product
    np.testing.assert_allclose(graph, product, atol=1e-5)


def test_a_graph_of_logits_multiplies_the_attention_by_its_exponential():
    network = loose(GraphAttentionNetwork(6, 4, 8, 2))
    x, weight = drawn(2, 6, 4), np.exp(np.asarray(network.graph_logits()))
    plain = np.asarray(network.blocks[0](x, open_edges(None, None, 6))[1])
    wanted = plain * weight
    wanted = (wanted / wanted.sum(axis=-1, keepdims=True)).mean(axis=1)
    np.testing.assert_allclose(arrays(network(x))[1], wanted, atol=1e-5)
    assert not np.allclose(weight, weight.T, atol=0.1)


@pytest.mark.parametrize("adjacency", [None, GRAPH], ids=["learned", "given"])
def test_a_missing_coin_neither_speaks_nor_matters(gat, adjacency):
    x, mask = drawn(3, 6, 4), np.ones((3, 6), "int32")
    mask[0, 2] = mask[1, 5] = mask[1, 0] = 0
    broken = np.where(mask[:, :, None] == 0, np.nan, x)
    out, graph = arrays(gat(x, adjacency, mask))
    again, same = arrays(gat(broken, adjacency, mask))
    np.testing.assert_array_equal(again, out)
    np.testing.assert_array_equal(same, graph)
    missing = mask == 0
    assert not out[missing].any() and not graph[missing].any() and not graph.transpose(0, 2, 1)[missing].any()
    assert out[~missing].any(axis=1).all()
    np.testing.assert_allclose(graph.sum(axis=-1)[~missing], 1, atol=1e-5)
    whole, alone = arrays(gat(x, adjacency)), arrays(gat(x, adjacency, np.ones((3, 6))))
    np.testing.assert_array_equal(whole[0], alone[0])
    np.testing.assert_allclose(out[2], whole[0][2], atol=1e-6)


def test_a_missing_coin_is_as_if_it_were_not_in_the_graph():
    network, x = loose(GraphAttentionNetwork(6, 4, 8, 2)), drawn(1, 6, 4)
    fewer = GraphAttentionNetwork(5, 4, 8, 2)
    start = [w[:5] if len(w) == 6 and w.shape[-1] == 8 and k < 2 else w for k, w in enumerate(network.get_weights())]
    fewer.set_weights(start)
    out, graph = arrays(network(x, mask=np.array([[1, 1, 1, 1, 1, 0]])))
    wanted, smaller = arrays(fewer(x[:, :5]))
    np.testing.assert_allclose(out[:, :5], wanted, atol=1e-5)
    np.testing.assert_allclose(graph[:, :5, :5], smaller, atol=1e-6)


def test_nobody_to_hear_leaves_the_bias_and_a_finite_gradient():
    import tensorflow as tf

    network = loose(GraphAttentionNetwork(3, 2, 4, 2, self_loops=False))
    bias = network.blocks[0].bias.numpy()
    with tf.GradientTape() as tape:
        out, graph = network(drawn(1, 3, 2), np.zeros((3, 3)))
        value = tf.reduce_sum(out**2)
    np.testing.assert_allclose(np.asarray(out)[0], np.tile(np.where(bias > 0, bias, np.expm1(bias)), (3, 1)), atol=1e-6)
    assert not np.asarray(graph).any()
    own = tape.gradient(value, network.blocks[0].trainable_variables)
    assert all(np.isfinite(np.asarray(g)).all() for g in own)


def test_gradient_reaches_every_weight_and_is_finite_when_coins_are_missing(gat):
    import tensorflow as tf

    x, mask = drawn(4, 6, 4), np.ones((4, 6))
    mask[0, :] = mask[1, 2] = 0
    x[mask == 0] = np.nan
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(gat(x, mask=mask)[0] ** 2)
    for variable, gradient in zip(gat.trainable_variables, tape.gradient(value, gat.trainable_variables)):
        assert gradient is not None and np.isfinite(gradient).all(), variable.path
        assert np.abs(gradient).reshape(len(gradient), -1).max(axis=1).min() > 0, variable.path  # row by row


def test_weights_go_from_one_network_to_another_and_the_seed_makes_them(gat):
    x, layers = drawn(2, 6, 4), len(gat.blocks)
    other = GraphAttentionNetwork(6, 4, 8, 2, num_layers=layers, seed=9)
    assert not np.allclose(arrays(other(x))[0], arrays(gat(x))[0], atol=1e-3)
    other.set_weights(gat.get_weights())
    np.testing.assert_array_equal(arrays(other(x))[0], arrays(gat(x))[0])
    made = [GraphAttentionNetwork(6, 4, 8, 2, num_layers=layers, seed=s).get_weights() for s in (3, 3, 4)]
    assert all(np.array_equal(a, b) for a, b in zip(made[0], made[1]))
    assert not np.array_equal(made[0][0], made[2][0])
    copy = type(gat).from_config(gat.get_config())
    assert [w.shape for w in copy.get_weights()] == [w.shape for w in gat.get_weights()]


def test_dropout_is_for_training_only():
    network, x = GraphAttentionNetwork(6, 4, 8, 2, dropout=0.5), drawn(2, 6, 4)
    quiet = arrays(network(x))[0]
    np.testing.assert_array_equal(quiet, arrays(network(x, training=False))[0])
    assert not np.allclose(quiet, arrays(network(x, training=True))[0], atol=1e-3)


def test_the_penalty_is_the_mean_square_of_the_graphs_logits():
    network = GraphAttentionNetwork(6, 4, 8, 2, graph_penalty=0.3)
    network(drawn(2, 6, 4))
    assert float(sum(network.losses)) == pytest.approx(0.3 * np.mean(np.asarray(network.graph_logits()) ** 2), rel=1e-5)
    network(drawn(2, 6, 4), GRAPH)
    assert not network.losses


def test_what_cannot_be_is_refused():
    with pytest.raises(SettingsError, match="cannot share"):
        GraphAttentionNetwork(hidden_features=30, num_attention_heads=4)
    with pytest.raises(DataError, match="graph of another size"):
        GraphAttentionNetwork(3, 2, 4, 2)(drawn(1, 3, 2), np.ones((4, 4)))


# ---- who follows whom


@pytest.mark.parametrize("seed", range(3))
def test_the_follower_is_found(seed):
    x, y = follower_market(seed, candles=2_001)
    found = judged(*fit_market(x, y, seed, epochs=15), x, y)
    assert found["edge"] > 0.9 and found["largest_other"] < 0.5 and found["r2"] > 0.45


def test_stored_markets_show_what_is_said_of_them():
    kinds = STORED["market"]["kinds"]
    mean = lambda kind, name: np.mean([row[name] for row in kinds[kind].values()])
    assert len(kinds["learned"]) >= 5 and all(row["edge"] > 0.95 for row in kinds["learned"].values())
    assert all(row["largest_other"] < 0.5 for row in kinds["learned"].values())
    assert mean("learned", "r2") > 0.55 and abs(mean("itself only", "r2")) < 0.05
    assert mean("learned", "r2") > mean("all pairs", "r2") + 0.1
    assert max(row["through_others"] for row in kinds["learned, two layers"].values()) > 0.9


# ---- edges


def test_lagged_graph_knows_direction_and_lag():
    x, y = follower_market(0, candles=1_001)
    returns = np.concatenate([x[:1], y])[:, :, 0]
    np.testing.assert_array_equal(np.argwhere(lagged_graph(returns)), [[FOLLOWER, LEADER]])
    assert not lagged_graph(returns, lag=2).any() and not lagged_graph(returns[::-1]).T[LEADER, LEADER]
    np.testing.assert_array_equal(np.argwhere(lagged_graph(returns[::-1])), [[LEADER, FOLLOWER]])
    gaps = returns.copy()
    gaps[::7, LEADER] = np.nan
    np.testing.assert_array_equal(lagged_graph(gaps), lagged_graph(returns))
    still = returns.copy()
    still[:, 3] = 0.1
    np.testing.assert_array_equal(lagged_graph(still), lagged_graph(returns))


def test_lagged_graph_invents_few_edges():
    "At a level of 10 % about one in ten graphs of noise has an edge."
    rng = np.random.default_rng(0)
    found = sum(lagged_graph(rng.standard_normal((300, 5)), level=0.1).any() for _ in range(200))
    assert 8 <= found <= 34


@pytest.mark.parametrize("returns, lag", [
    (np.zeros((20, 3)), 1), (np.zeros((100, 3)), 0), (np.full((99, 2), np.nan), 1),
])
def test_too_little_for_a_correlation_is_refused(returns, lag):
    with pytest.raises(DataError, match="too few times"):
        lagged_graph(returns, lag)


def test_edge_loss_by_hand_and_without_missing_coins():
    scores = np.zeros((1, 3, 3), "float32")
    scores[0, 1, 0], scores[0, 0, 0] = np.log(3), 50
    graph = np.zeros((3, 3))
    graph[1, 0] = 1
    assert float(edge_loss(graph, scores)) == pytest.approx(-(np.log(0.75) + 5 * np.log(0.5)) / 6, rel=1e-5)
    scores[0, 2] = scores[0, :, 2] = 1e9
    found = float(edge_loss(graph, scores, np.array([[1, 1, 0]])))
    assert found == pytest.approx(-(np.log(0.75) + np.log(0.5)) / 2, rel=1e-5)
    assert float(edge_loss(graph, scores, np.zeros((1, 3)))) == 0


def test_predicted_edges_are_odds_of_the_scores(gat):
    x, mask = drawn(2, 6, 4), np.ones((2, 6))
    mask[0, 3] = 0
    p, scores = np.asarray(predict_edges(gat, x, mask)), np.asarray(edge_scores(gat, x, mask))
    here = (mask[:, :, None] * mask[:, None, :] * (1 - np.eye(6))) > 0
    np.testing.assert_allclose(p[here] / (1 - p[here]), np.exp(scores[here]), rtol=1e-3)
    assert not p[~here].any()
