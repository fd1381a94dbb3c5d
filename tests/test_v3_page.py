"""The page of V3 through the real runner: the verdict, each gate beside a constant, gains with intervals, the leak."""
import json

import numpy as np
import pandas as pd
import pytest

from cryptolab.data.market import sample_market
from cryptolab.evaluation.metrics import roc_auc
from cryptolab.reports.leaderboard import leaderboard, leaderboard_summary
from cryptolab.reports.pages import v3 as page
from cryptolab.runs.report import run_report
from cryptolab.systems.v3.document import needed_edge

FEW = {"members": "xgboost,catboost"}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    "Both variants on the same generated market, in one folder; variant -> its folder."
    out, made = tmp_path_factory.mktemp("reports"), {}
    for variant, symbol in (("honest", "BTCUSDT"), ("published", "ETHUSDT")):
        made[variant] = run_report(
            symbol, "1h", "v3", limit=3800, profile="smoke", out=out,
            params={**FEW, "variant": variant, "select": 180 if variant == "honest" else None},
        )
    return made


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_the_result_has_gates_members_and_gains_with_intervals(reports):
    result = result_of(reports["honest"])
    assert "Verdict: " in result["finding"] and "Published recipe: " in result["finding"]
    assert set(result["gates"]) == {"auc", "accuracy", "ece", "brier_skill", "resolution"}
    for gate in ("auc", "accuracy", "ece"):
        row = result["gates"][gate]
        assert row["asked"] and row["passed"] in ("yes", "no") and row["constant_passed"] in ("yes", "no")
        assert row["low"] <= row["value"] <= row["high"]
    assert result["gates"]["auc"]["constant"] == 0.5
    assert {"stack", "plain average", "xgboost", "catboost"} <= set(result["members"])
    assert len(result["gains"]) == 3 and "calibration" in result["gains"]
    for gain in result["gains"].values():
        assert gain["low"] <= gain["value"] <= gain["high"] and 0 <= gain["p_value"] <= 1
    assert result["leaks"]["found"] == [] and result["certificate"]["passed"] == result["certificate"]["columns"]
    assert result["trials"]["kept"] and result["trials"]["trials"] == 1
    assert {"offered", "needed"} == set(result["promise"]) and "5000" in result["promise"]["needed"]


def test_the_published_order_is_a_leak_and_the_page_says_so(reports, shown_text):
    result = result_of(reports["published"])
    assert result["finding"].startswith("Leak: these numbers are a leak and not skill, because ")
    assert "label overlap" in {found["kind"] for found in result["leaks"]["found"]}
    assert "trading" not in result and "methods" not in result["event"] and "trials" not in result
    shown = shown_text((reports["published"] / "report.html").read_text())
    assert "these numbers are a leak" in shown.split("The candles")[-2], "before anything else"
    for variant in reports:  # the same comparison from both sides
        areas = result_of(reports[variant])["variants"]
        assert areas["as published"]["roc_auc"] > 0.73 > areas["in time order"]["roc_auc"]


def test_no_leaderboard_takes_the_leak_for_skill(reports):
    board = leaderboard(reports["honest"].parent).set_index("symbol")
    assert board.leaks["ETHUSDT"] > 0 and np.isnan(board.p["ETHUSDT"]) and np.isnan(board.roc_auc["ETHUSDT"])
    assert board.leaks["BTCUSDT"] == 0 and 0 <= board.p["BTCUSDT"] <= 1 and board.trades_made["BTCUSDT"] >= 0
    assert list(board.index) == ["BTCUSDT", "ETHUSDT"]
    words = leaderboard_summary(board.reset_index())
    assert "A leak was found in 1 report (ETHUSDT 1h v3): do not believe its numbers." in words


def test_the_page_is_clean_and_opens_with_tiles_and_a_picture(reports, page_problems):
    for folder in reports.values():
        html = (folder / "report.html").read_text()
        assert page_problems(html) == []
        head = html[html.index("What was found</") : html.index('id="The-candles"')]
        assert html.count('<div class="tile ') == 4 and 'class="plot"' in head


# ---- the parts

def test_a_constant_passes_the_gates_where_the_event_is_rare():
    rng = np.random.default_rng(1)
    y = (rng.random(2000) < 0.2).astype(float)
    board = page.gate_board(y, np.full(2000, 0.2), 0.2, 10)
    assert board.value["auc"] == 0.5 and board.passed["accuracy"] == board.constant_passed["accuracy"] == "yes"
    assert board.value["ece"] == pytest.approx(board.constant["ece"])
    assert board.value["brier_skill"] == pytest.approx(0, abs=1e-9) and board.value["resolution"] < 1e-9
    assert "a constant passes 2" in page.gate_words(board, "it happens", y.mean(), 2000)


def test_gains_are_paired_differences():
    rng = np.random.default_rng(2)
    p = rng.uniform(size=1500)
    y = (rng.random(1500) < p).astype(float)
    votes = pd.DataFrame({"good": p, "noise": rng.uniform(size=1500)})
    assert page.best_member(y, votes) == "good"
    gains = page.gain_board(y, votes, p, 0.5 + 0.9 * (p - 0.5), "good", 5)
    assert gains.value.iloc[0] == 0
    difference = roc_auc(y, p) - roc_auc(y, votes.mean(axis=1))
    assert gains.value.iloc[1] == pytest.approx(difference) and gains.low.iloc[1] > 0
    same = page.gain_board(y, votes, p, p, "good", 5)
    assert same.loc["calibration", ["value", "low", "high"]].tolist() == [0, 0, 0]


@pytest.mark.parametrize("total, trades", [(1.5, 5000), (3.0, 8000), (0.2, 1)])
def test_the_needed_edge_gives_the_promised_return(total, trades):
    assert (1 + 0.01 * needed_edge(total, trades)) ** trades == pytest.approx(1 + total)
