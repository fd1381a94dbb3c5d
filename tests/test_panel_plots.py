"""Figures and tables of a network for many coins: numbers by hand, planted faults, and what is refused."""
import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError
from cryptolab.evaluation.metrics import accuracy_interval
from cryptolab.reports.panel_plots import (
    attention_ratio, graph_table, plot_attention, plot_fan, plot_graph, plot_importance, quantile_columns,
)
from cryptolab.reports.panel_scores import (
    pinball_losses, plot_quantile_calibration, plot_regimes, quantile_table, regime_table,
)

HOURS = pd.date_range("2025-01-01", periods=400, freq="h", tz="UTC")
CANDLES = pd.DataFrame({"close": 100 + np.sin(np.arange(400) / 20)}, index=HOURS)
REGIME_NAMES = ["regime_bull", "regime_bear", "regime_ranging", "regime_high_vol"]


def arrows(fig):
    "(from, to) of each arrow as numbers of coins, and the annotation."
    circles = next(trace for trace in fig.data if trace.mode == "markers+text")
    places = np.column_stack([circles.x, circles.y])
    def nearest(x, y):
        return int(np.hypot(*(places - (x, y)).T).argmin())
    return {(nearest(a.ax, a.ay), nearest(a.x, a.y)): a for a in fig.layout.annotations if a.showarrow}


def texts(fig):
    "Everything that a reader can see without hovering."
    layout = fig.layout
    axes = [*fig.select_xaxes(), *fig.select_yaxes()]
    found = [layout.title.text, *(a.title.text for a in axes), *(a.text for a in layout.annotations)]
    found += [t for a in axes for t in (a.ticktext or ())] + [trace.name for trace in fig.data]
    return " ".join(map(str, filter(None, found)))


# ---- attention and importance

def test_attention_in_units_of_uniform():
    two_rows = np.array([[[0.5, 0.5, 0.0]], [[0.25, 0.75, 0.0]]])
    ratio = attention_ratio(two_rows)
    np.testing.assert_allclose(ratio[0, :2], [0.75, 1.25])
    assert np.isnan(ratio[0, 2])


def test_attention_is_placed_on_the_candles():
    "Window of 4, horizons of 1 and 2 candles: the newest candle is 0, and each horizon ends with its own candle."
    attention = np.zeros((2, 6))
    attention[0, :5], attention[1, :] = [0.1, 0.1, 0.1, 0.6, 0.1], 1 / 6
    fig = plot_attention(attention, (1, 2), ["next hour", "in two hours"])
    first, second = fig.data
    assert first.x == (-3, -2, -1, 0, 1, 2) and first.y == (0.5, 0.5, 0.5, 3.0, 0.5, None)
    assert second.y == (1.0,) * 6 and second.name == "in two hours"
    assert fig.layout.shapes[0].y0 == fig.layout.shapes[0].y1 == 1


@pytest.mark.parametrize("attention, horizons, message", [
    (np.full((2, 6), 1 / 6), (1,), "does not fit the horizons"),
    (np.full((1, 6), 1 / 6), (9,), "does not fit the horizons"),
    (np.full((1, 6), 1.0), (1,), "do not sum to one"),
    ([[0.5, np.nan, 0.5]], (1,), "has no weights"),
    ([[1.5, -0.5]], (1,), "has no weights"),
])
def test_attention_that_cannot_be_drawn(attention, horizons, message):
    with pytest.raises(DataError, match=message):
        plot_attention(attention, horizons)


def test_importance_is_sorted_with_its_spread():
    weights = np.array([[0.1, 0.6, 0.3], [0.1, 0.8, 0.1]])
    fig = plot_importance(weights, ["log_return_1", "rsi_14", "hour_sin"], most=2)
    marks, points = fig.data
    assert points.text == ("rsi 14", "hour sin") and points.x == (0.7, 0.2) and points.y == (1, 0)
    np.testing.assert_allclose(points.error_x.array, [0.08, 0.08], atol=1e-6)  # 90 % of (0.6, 0.8) is 0.78
    assert marks.x == (0.333333, 0.333333) and marks.name == "all alike"
    own = plot_importance(weights, ["a", "b", "c"], reference=[0.2, 0.3, 0.5])
    assert own.data[0].x == (0.3, 0.5, 0.2) and own.data[0].name == "reference"
    with pytest.raises(DataError, match="does not fit the names"):
        plot_importance(weights, ["a", "b"])
    with pytest.raises(DataError, match="has no weights"):
        plot_importance([[np.nan, 1.0]], ["a", "b"])


def test_names_that_are_long_alike_stay_apart():
    names = [f"distance_from_the_moving_average_of_{k}" for k in (7, 25)]
    fig = plot_importance([[0.4, 0.6]], names)
    assert len(set(fig.data[1].y)) == 2 and fig.data[1].text[0].endswith("25")
    assert max(map(len, fig.layout.yaxis.ticktext)) <= 24


# ---- graph

def test_arrows_point_from_the_heard_to_the_listener():
    "Only the third coin listens to somebody, to the first one."
    graph = np.eye(3)
    graph[2] = [0.9, 0.0, 0.1]
    found = arrows(plot_graph(graph, ["A", "B", "C"]))
    heavy = [edge for edge, arrow in found.items() if arrow.arrowwidth > 2]
    assert heavy == [(0, 2)] and len(found) == 6
    assert found[0, 2].opacity == 1 and found[2, 0].opacity < 0.3
    assert plot_graph(graph, ["A", "B", "C"]).data[1].text == ("100%", "100%", "10%")


def test_width_and_opacity_grow_with_the_weight():
    graph = np.array([[0.1, 0.5, 0.4], [0.35, 0.3, 0.35], [0.0, 0.6, 0.4]])
    found = arrows(plot_graph(graph, ["A", "B", "C"]))
    order = sorted(found, key=lambda edge: graph[edge[1], edge[0]])
    for name in ("arrowwidth", "opacity"):
        values = [found[edge][name] for edge in order]
        assert values == sorted(values), name
    words = [t for t in plot_graph(graph, ["A", "B", "C"]).data[0].text]
    assert "C listens to B: 60.0% (uniform 33.3%)" in words


def test_every_number_of_coins_has_its_arrows():
    for n in (2, 4, 12):
        fig = plot_graph(np.full((n, n), 1 / n), [f"COIN{k}" for k in range(n)])
        found = arrows(fig)
        assert len(found) == n * (n - 1) and not any(a.arrowcolor == "#0072B2" for a in found.values())


def test_graph_table_by_hand():
    "The second coin is absent in the second row: its edges are means over the first row alone."
    graph = np.array([[[0.6, 0.4], [0.3, 0.7]], [[1.0, 0.0], [0.0, 0.0]]])
    table = graph_table(graph, ["A", "B"])
    assert table[["coin", "listens to"]].to_numpy().tolist() == [
        ["A", "itself"], ["A", "B"], ["B", "itself"], ["B", "A"]
    ]
    np.testing.assert_allclose(table["weight"], [0.8, 0.4, 0.7, 0.3])
    np.testing.assert_allclose(table["uniform"], [0.75, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(table.loc[0, ["low", "high"]].to_numpy(dtype=float), [0.64, 0.96])
    pd.testing.assert_frame_equal(table, graph_table(graph, ["A", "B"], mask=[[1, 1], [1, 0]]))


def test_a_coin_that_is_never_there_has_no_arrow():
    graph = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]])
    fig = plot_graph(graph, ["A", "B", "C"])
    assert set(arrows(fig)) == {(0, 1), (1, 0)} and fig.data[1].text[2] == "–"
    assert "C" not in graph_table(graph, ["A", "B", "C"])["coin"].tolist()


def test_one_coin_gets_a_sentence():
    assert plot_graph([[1.0]], ["BTCUSDT"]).startswith("BTCUSDT is the only coin")
    table = graph_table([[1.0]], ["BTCUSDT"])
    assert table.iloc[0].tolist() == ["BTCUSDT", "itself", 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("graph, symbols, message", [
    ([[0.9, 0.4], [0.1, 0.6]], ["A", "B"], "do not sum to one"),  # transposed
    (np.eye(2), ["A"], "does not fit the coins"),
    ([[np.nan, 1.0], [0.5, 0.5]], ["A", "B"], "has no weights"),
])
def test_graphs_that_are_refused(graph, symbols, message):
    with pytest.raises(DataError, match=message):
        plot_graph(graph, symbols)


def test_symbols_are_text():
    fig = plot_graph(np.full((2, 2), 0.5), ["<a href='x'>A</a>", "B"])
    assert "<a" not in fig.to_json().replace("\\u003c", "<").replace("&lt;a", "")


# ---- quantiles

def test_pinball_by_hand():
    np.testing.assert_allclose(pinball_losses(np.array([2.0, -2.0]), 0.0, 0.1), [0.2, 1.8])


def test_quantile_table_by_hand():
    "Outcomes 1 to 100: 20 are at or below 20, and the constant of the training outcomes is 50."
    y = np.random.default_rng(0).permutation(np.arange(1.0, 101))[:, None]
    table = quantile_table(y, np.full((100, 1, 1), 20.0), [0.5], [1], np.full((9, 1), 50.0), n_samples=50)
    row = table.iloc[0]
    assert row["share below"] == 0.2 and row["low"] < 0.2 < row["high"] < 0.5
    assert row["loss"] == pytest.approx(0.5 * np.abs(np.arange(1, 101) - 20).mean())
    assert row["constant loss"] == pytest.approx(0.5 * np.abs(np.arange(1, 101) - 50).mean())
    assert row["difference"] == pytest.approx(row["constant loss"] - row["loss"])
    assert row["difference low"] < row["difference"] < row["difference high"] < 0


def test_planted_miscalibration_shows_and_only_there():
    rng = np.random.default_rng(4)
    y, normal = rng.standard_normal((2000, 2)), np.array([-1.2816, 0, 1.2816])
    quantiles = np.tile(normal, (2000, 2, 1))
    quantiles[:, 1] += 0.5  # all three too high
    table = quantile_table(y, quantiles, (0.1, 0.5, 0.9), (1, 5), n_samples=200)
    kept = table["low"].le(table["level"]) & table["level"].le(table["high"])
    assert kept.tolist() == [True] * 3 + [False] * 3
    assert (table["share below"][3:] > table["level"][3:]).all() and "difference" not in table
    fig = plot_quantile_calibration(y, quantiles, (0.1, 0.5, 0.9), (1, 5), n_samples=100)
    np.testing.assert_allclose(fig.data[2].y, table["share below"][3:], atol=1e-5)
    line = dict(zip(np.round(fig.data[0].x, 9), fig.data[0].y))  # the reference passes under every point
    for trace in fig.data[1:]:
        assert np.allclose(np.interp(trace.x, list(line), list(line.values())), (0.1, 0.5, 0.9))


def test_unknown_outcomes_are_left_out_and_missing_quantiles_refused():
    y = np.random.default_rng(0).standard_normal((60, 1))
    y[-10:] = np.nan
    quantiles = np.zeros((60, 1, 1))
    quantiles[-10:] = np.nan  # no outcome, no matter
    assert quantile_table(y, quantiles, [0.5], [10], n_samples=20)["rows"].tolist() == [50]
    quantiles[0] = np.nan
    with pytest.raises(DataError, match="cannot be judged"):
        quantile_table(y, quantiles, [0.5], [10])
    with pytest.raises(DataError, match="cannot be judged"):
        quantile_table(y[:20], np.zeros((20, 1, 1)), [0.5], [10])
    with pytest.raises(DataError, match="do not fit"):
        quantile_table(y, quantiles, [0.5], [1, 5])


def test_intervals_know_that_outcomes_overlap():
    "True quantiles of outcomes over ten candles: the interval holds them, where one that trusts every row does not."
    rng, held, naive = np.random.default_rng(1), 0, 0
    for seed in range(40):
        y = np.convolve(rng.standard_normal(1009), np.ones(10), mode="valid")[:, None]
        row = quantile_table(y, np.zeros((1000, 1, 1)), [0.5], [10], n_samples=100, seed=seed).iloc[0]
        low, high = accuracy_interval((y[:, 0] <= 0) * 1.0)
        held += row["low"] <= 0.5 <= row["high"]
        naive += low <= 0.5 <= high
    assert held >= 32 and naive <= 29


# ---- regimes

def test_regime_table_by_hand():
    "Forty rows: now is always bull, bear follows in the last ten; the forecast knows it all, at 70 %."
    happened, now = np.repeat([0.0, 1.0], [30, 10]), np.zeros(40)
    p = np.full((40, 4), 0.1)
    p[np.arange(40), happened.astype(int)] = 0.7
    table = regime_table(p, happened, now, n_samples=50)
    assert table["accuracy"].tolist()[:3] == [1.0, 0.75, 0.75]
    counted = -(0.75 * np.log(31 / 44) + 0.25 * np.log(11 / 44))
    np.testing.assert_allclose(table["log loss"][:3], [-np.log(0.7), counted, counted])
    np.testing.assert_allclose(table.loc["as now", ["accuracy ahead", "log loss ahead"]].to_numpy(dtype=float),
                               [0.25, counted + np.log(0.7)])
    assert table.loc["happened", ["bull", "bear", "ranging", "high volatility"]].tolist() == [0.75, 0.25, 0, 0]
    assert table.loc["as now", "bull"] == 1 and table.attrs["rows"] == 40
    past = np.array([0.0, 0, 1, 1]), np.array([1.0, 1, 1, np.nan])
    trained = regime_table(p, happened, now, past, n_samples=50)
    assert trained.loc["commonest", "bear"] == 1  # what was commonest in training, not here
    counted = -(0.75 * np.log(1 / 6) + 0.25 * np.log(3 / 6))
    assert trained.loc["as now", "log loss"] == pytest.approx(counted)


def test_repeating_the_present_is_not_ahead_of_it():
    rng = np.random.default_rng(2)
    now = np.repeat(rng.integers(0, 4, 60), 20).astype(float)
    happened = np.r_[now[10:], np.full(10, np.nan)]
    p = np.full((1200, 4), 0.05)
    p[np.arange(1200), now.astype(int)] = 0.85
    table = regime_table(p, happened, now, n_samples=100)
    assert table.attrs["rows"] == 1190
    assert table.loc["as now", "accuracy ahead"] == 0 and table.loc["commonest", "accuracy ahead, low"] > 0
    shuffled = rng.permutation(p)
    assert regime_table(shuffled, happened, now, n_samples=100).loc["as now", "accuracy ahead, high"] < 0


def test_regime_tables_that_are_refused():
    p, y = np.full((40, 4), 0.25), np.zeros(40)
    for call, message in (
        ((np.full((40, 3), 1 / 3), y, y), "no probabilities of four"),
        ((p * 2, y, y), "no probabilities of four"),
        ((pd.DataFrame(p[:, :3], columns=REGIME_NAMES[:3]), y, y), "regime_high_vol"),
        ((p, y + 4, y), "`happened` does not fit"),
        ((p, y, y[:3]), "`now` does not fit"),
        ((p, y * np.nan, y), "too few rows"),
    ):
        with pytest.raises(DataError, match=message):
            regime_table(*call)


def test_bands_are_where_the_regime_is():
    "Bull for a hundred rows, nothing for ten, high volatility for the rest."
    p = np.zeros((400, 4))
    p[:100, 0], p[110:, 3], p[100:110] = 1, 1, np.nan
    fig = plot_regimes(CANDLES, pd.DataFrame(p, HOURS, REGIME_NAMES), np.full(400, 1.0))
    bands = {trace.name: trace for trace in fig.data[:4]}
    assert bands["bull"].x == ("2025-01-01 00:00",) and bands["bull"].width == (100 * 3_600_000,)
    assert bands["high volatility"].x == ("2025-01-05 14:00",)
    assert all(trace.offset == 0 for trace in bands.values())  # a bar begins at its row and is not centred on it
    assert bands["bear"].width == bands["ranging"].width == (0,)  # in the legend only
    strip = {trace.name: trace for trace in fig.data[5:]}
    assert strip["bear"].width == (400 * 3_600_000,) and not strip["bear"].showlegend
    line = fig.data[4]
    assert line.text[105] == "no forecast" and line.text[399] == "high volatility"


def test_many_changes_become_few_bands():
    p = np.eye(4)[np.arange(9000) % 4 // 2]
    hours = pd.date_range("2020-01-01", periods=9000, freq="h", tz="UTC")
    candles = pd.DataFrame({"close": np.arange(9000.0) + 1}, index=hours)
    fig = plot_regimes(candles, pd.DataFrame(p, hours, REGIME_NAMES), p.argmax(axis=1))
    assert sum(len(trace.x) for trace in fig.data if trace.type == "bar") <= 2 * 304
    assert len(fig.data[4].x) <= 2000 and "rows a band" in fig.layout.title.text
    with pytest.raises(DataError, match="do not fit the candles"):
        plot_regimes(candles[:100], pd.DataFrame(p, hours, REGIME_NAMES))


# ---- fan

def fan_table(rows=400):
    values = {"q10_1": -0.01, "q50_1": 0.0, "q90_1": 0.02, "q10_5": -0.03, "q50_5": 0.01, "q90_5": 0.05}
    return pd.DataFrame(values, index=HOURS[:rows])


def test_quantile_columns_by_level_and_horizon():
    levels, values = quantile_columns(fan_table(2)[["q90_5", "q10_1", "q10_5", "q50_5", "q90_1", "q50_1"]], (5, 1))
    assert levels == [0.1, 0.5, 0.9] and values[1].tolist() == [[-0.03, 0.01, 0.05], [-0.01, 0.0, 0.02]]
    with pytest.raises(DataError, match="no quantile at all"):
        quantile_columns(pd.DataFrame({"p_up": [0.5]}), (1,))


def test_fan_prices_by_hand():
    close = CANDLES["close"].iloc[-1]
    traces = {trace.name: trace for trace in plot_fan(CANDLES, fan_table(), (1, 5)).data}
    np.testing.assert_allclose(traces["10% to 90%"].y, close * np.exp([0, -0.01, -0.03]), rtol=1e-5)
    np.testing.assert_allclose(traces["90% quantile"].y, close * np.exp([0, 0.02, 0.05]), rtol=1e-5)
    assert traces["median"].x == (0, 1, 5) and traces["close"].x[0] == -50 and traces["close"].x[-1] == 0
    assert traces["close"].y[-1] == pytest.approx(close, rel=1e-5) and "what came" not in traces


def test_fan_of_an_older_row_shows_what_came_and_nothing_later():
    traces = {trace.name: trace for trace in plot_fan(CANDLES, fan_table(), (1, 5), at=100).data}
    assert traces["what came"].x == tuple(range(6))
    np.testing.assert_allclose(traces["what came"].y, CANDLES["close"].iloc[100:106], rtol=1e-5)
    table = fan_table()
    table.iloc[-1, 0] = np.nan
    with pytest.raises(DataError, match="no fan at this row"):
        plot_fan(CANDLES, table, (1, 5))
    assert plot_fan(CANDLES, table, (1, 5), at=-2).data


# ---- what a reader sees

def test_no_figure_shows_names_of_the_code():
    p = pd.DataFrame(np.full((400, 4), 0.25), HOURS, REGIME_NAMES)
    y, quantiles = np.random.default_rng(0).standard_normal((50, 1)), np.zeros((50, 1, 1))
    figures = [
        plot_attention(np.full((1, 6), 1 / 6), (1,)), plot_importance([[0.4, 0.6]], ["log_return_1", "rsi_14"]),
        plot_graph(np.full((2, 2), 0.5), ["A", "B"]), plot_regimes(CANDLES, p, np.zeros(400)),
        plot_fan(CANDLES, fan_table(), (1, 5)),
        plot_quantile_calibration(y, quantiles, [0.5], [1], n_samples=20),
    ]
    for fig in figures:
        assert "_" not in texts(fig) and "<br>" not in fig.layout.title.text, fig.layout.title.text
        assert len(fig.to_json()) < 200_000
