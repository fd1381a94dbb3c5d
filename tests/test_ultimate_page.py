"""What a report of Ultimate says: rivals learn from training rows, and sentences follow intervals."""
import numpy as np
import pandas as pd
import pytest

from cryptolab.data.market import sample_market
from cryptolab.labels import horizon_return, market_regime
from cryptolab.reports.pages import ultimate as page
from cryptolab.systems.ultimate.system import Ultimate


@pytest.fixture(scope="module")
def case():
    candles, other = sample_market(n=1_200, seed=0), sample_market(n=1_200, seed=1, symbol="ETHUSDT")
    system = Ultimate(profile="smoke", pool="ETHUSDT", threads=1).fit(candles, log=None, pool={"ETHUSDT": other})
    return system, candles, system.forecast(candles)


def test_quantiles_are_held_against_those_of_the_training_rows(case):
    system, candles, table = case
    board = page.quantile_board(system, candles, table)
    y = horizon_return(candles, 5)["y"]
    train, test = y[system.rows("train")].dropna(), y[system.rows("test")].dropna()
    constant = np.quantile(train, 0.9)
    loss = np.mean(np.maximum(0.9 * (test - constant), -0.1 * (test - constant)))
    row = board[(board["horizon"] == 5) & (board["level"] == 0.9)].iloc[0]
    assert row["constant loss"] == pytest.approx(loss) and row["rows"] == len(test)
    assert row["difference"] == pytest.approx(row["constant loss"] - row["loss"])


def test_the_regime_has_rivals_that_know_training_rows_only(case):
    system, candles, table = case
    board, label = page.regime_board(system, candles, table), market_regime(candles, 10)
    known = label.loc[system.rows("train")].dropna()
    judged = label.loc[system.rows("test")].dropna()
    commonest = known["y"].value_counts().idxmax()
    assert board.loc["commonest", "accuracy"] == pytest.approx((judged["y"] == commonest).mean())
    assert board.loc["as now", "accuracy"] == pytest.approx((judged["y"] == judged["now"]).mean())
    share = (known["y"].value_counts().reindex(range(4), fill_value=0) + 1) / (len(known) + 4)
    assert board.loc["commonest", "log loss"] == pytest.approx(-np.log(share[judged["y"].astype(int)]).mean())


SAID = [(0.01, 0.2, "better"), (-0.2, -0.01, "worse"), (-0.1, 0.1, "not dist")]


@pytest.mark.parametrize(("low", "high", "word"), SAID)
def test_a_sentence_says_what_the_whole_interval_says(low, high, word):
    board = pd.DataFrame({"accuracy": [0.5, 0.4]}, ["forecast", "as now"])
    board[["accuracy ahead", "accuracy ahead, low", "accuracy ahead, high"]] = (low + high) / 2, low, high
    assert f": {word}" in page.regime_words(board)
    rows = [{"horizon": 1, "level": q, "share below": q, "difference low": low, "difference high": high}
            for q in (0.1, 0.5, 0.9)]
    said = page.quantile_words(pd.DataFrame(rows))
    assert "80% of outcomes fell between them (80% promised)" in said and f", {word}" in said


def test_one_better_level_of_three_is_partly_better():
    rows = [{"horizon": 1, "level": q, "share below": q, "difference low": low, "difference high": 1.0}
            for q, low in ((0.1, 0.5), (0.5, -1.0), (0.9, -1.0))]
    assert "partly better" in page.quantile_words(pd.DataFrame(rows))


def test_the_graph_names_the_coin_that_is_heard_most_and_nothing_for_one_coin():
    graph = np.array([[[0.2, 0.1, 0.7], [0.3, 0.3, 0.4], [0.3, 0.3, 0.4]]])
    assert "20% of its attention to itself and 70% to SOL" in page.graph_words(graph, ["BTC", "ETH", "SOL"])
    assert page.graph_words(np.ones((3, 1, 1)), ["BTC"]) == ""


def test_looked_at_are_the_rows_that_were_asked_for(case):
    system, candles, _ = case
    rows = system.rows("test")[-40:]
    seen, again = (page.looked_at(system, candles, part) for part in (rows, rows[20:]))
    for name in ("attention", "importance", "graph", "present"):
        np.testing.assert_allclose(seen[name][20:], again[name], atol=1e-6)
    assert seen["attention"].shape == (40, 3, 16) and seen["present"].shape == (40, 2)


def test_the_info_sheet_says_what_was_fitted_on_which_rows(case):
    system, _, _ = case
    origin = {"symbol": "BTCUSDT", "timeframe": "1h", "source": "sample", "candles": 1_200, "first": "", "last": ""}
    text = " ".join(page.ultimate_info_sheet(system, origin | {"fingerprint": "0" * 64})["answer"])
    for part in ("8 of 150 columns", "ETHUSDT", "on the older half; calibration on the newer half"):
        assert part in text
