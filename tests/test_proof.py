"""One standard of proof: sentence, tile, picture, leaderboard and predict say the same about twenty results."""
import json
import re

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.evaluation.proof import (
    CHEAP, PLAIN, difference_facts, page_verdict, proof_text, proofs_of, prove, trust_words,
)
from cryptolab.reports.head import head_html
from cryptolab.reports.leaderboard_rows import result_row
from cryptolab.serving.forecast import report_verdict

DATA = {
    "symbol": "BTCUSDT", "timeframe": "1h", "source": "local", "candles": 10_000, "first": "2024-05-10",
    "last": "2025-06-30 23:00:00+00:00",
}
TRUSTED = {"leaks": {"detectors": 10, "found": []}, "certificate": {"columns": 46, "passed": 46}}
BASE = {"system": "v9", "symbol": "BTCUSDT", "timeframe": "1h", "params": {"profile": "quick"}, "data": DATA,
        "cost_per_side": 0.0015, **TRUSTED}


def direction(net=-5.0, best=None, accuracy=0.53, **edges):
    "A direction board and its rivals; edges: (value, low, high)."
    board = {"V9": {"n": 1500, "accuracy": accuracy}} | {name.replace("_", " "): {"accuracy": 0.51} for name in edges}
    board |= {} if best is None else {"best possible": {"accuracy": best}}
    over = {n.replace("_", " "): dict(zip(("edge", "edge_low", "edge_high"), e)) for n, e in edges.items()}
    return {"direction": board, "rivals": over, "costs": {"V9": {"net_bp": net}}}


def losses(name, score, **ahead):
    "A volatility or price board; ahead: shares of the rivals' losses (value, low, high)."
    board = {"V9": {"n": 1500, score: 0.23, "mape": 0.004}}
    keys = ("ahead", "ahead_low", "ahead_high")
    rival = {score: 0.3, "mape": 0.00401}
    return {name: board | {n.replace("_", " "): rival | dict(zip(keys, a)) for n, a in ahead.items()}}


def account(trades, out=(0.0, -1.0, 1.0), hold=(0.0, -1.0, 1.0), luck=0.01, total=0.01, shadow=False):
    "An account with its differences to doing nothing and to holding."
    over = {n: dict(zip(("value", "low", "high"), e)) for n, e in (("staying out", out), ("buy and hold", hold))}
    table = {"trades": {"value": trades}, "total_return": {"value": total, "reference": 0.02},
             "random_entries_p": {"value": luck}}
    return {"trading": {"summary": table, "over": over, "shadow": shadow}}


SURE, NOISE, LOSS = (4.0, 3.0, 5.0), (0.5, -2.0, 3.0), (-4.0, -5.0, -3.0)
SMALL, MINUS = (0.10, 0.07, 0.13), (-0.10, -0.13, -0.07)
# result, question, level, economically nil, words of the sentence
RESULTS = {
    "better than everything": (direction(2.0, majority=SURE, LightGBM=SURE), "better", False, "everything that costs"),
    "found, costs eat it": (direction(-9.0, majority=SURE, LightGBM=SURE), "better", True, "Economically nil"),
    "found, LightGBM has it too": (direction(2.0, majority=SURE, LightGBM=NOISE), "equal", False, "from LightGBM"),
    "found, LightGBM is better": (direction(2.0, majority=SURE, LightGBM=LOSS), "beaten", False, "beaten by LightGBM"),
    "a rival that is not beaten": (
        direction(2.0, majority=SURE, LightGBM=(1.0, 0.5, 1.5), reversal=(2.0, -1.0, 5.0)), "equal", False,
        "a reversal"),
    "a rival that is better, if only just": (
        direction(2.0, majority=SURE, LightGBM=(-0.5, -0.6, -0.4), reversal=(-1.0, -5.0, 3.0)), "beaten", False,
        "beaten by LightGBM"),
    "nothing found": (direction(majority=NOISE, LightGBM=NOISE), "none", False, "would have been seen"),
    "nothing found, a rival is better": (direction(majority=NOISE, reversal=LOSS), "beaten", False, "a reversal"),
    "worse than guessing": (direction(majority=LOSS), "worse", False, "worse than the majority class"),
    "the same answers": (direction(majority=(0.0, 0.0, 0.0)), "none", False, "the same answers as"),
    "no interval": (direction(majority=(9.0, np.nan, np.nan)), "none", False, "no interval"),
    "generated market": (direction(2.0, best=0.574, majority=SURE), "better", False, "Of the 6.4 points"),
    "better than persistence, not than HAR": (
        losses("volatility", "qlike", persistence=SMALL, HAR=MINUS), "beaten", False, "beaten by HAR"),
    "better than HAR": (
        losses("volatility", "qlike", persistence=SMALL, HAR=(0.08, 0.05, 0.11)), "better", False, "against HAR"),
    "GARCH is as good": (
        losses("volatility", "qlike", persistence=SMALL, **{"GARCH(1,1)": (0.0, -0.1, 0.1)}), "equal", False, "GARCH"),
    "price by a hair": (
        losses("price", "mase", persistence=(0.0007, 0.0004, 0.0010)), "better", True, "Economically nil"),
    "price not shown": (losses("price", "mase", persistence=(0.001, -0.002, 0.004)), "none", False, "persistence"),
    "two lucky trades": (account(2, SURE, SURE, total=0.3), "few", False, "2 trades, too few"),
    "no trade": (account(0), "silent", False, "no trade was made"),
    "a shadow account": (account(80, LOSS, LOSS, shadow=True), "silent", False, "nothing is traded"),
    "an account that wins": (account(80, SURE, SURE), "better", False, "buying and holding"),
    "an account as good as random entries": (account(80, SURE, SURE, luck=0.4), "none", False, "no timing shown"),
    "an account that loses": (account(80, LOSS, LOSS), "worse", False, "worse than staying out"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_sentence_tile_picture_leaderboard_and_predict_agree(name, tmp_path):
    tables, level, nil, words = RESULTS[name]
    result = json.loads(json.dumps(BASE | tables).replace("NaN", "null"))
    (proof,) = proofs_of(result)
    assert (proof.level, proof.nil) == (level, nil)
    sentence = proof.sentence()
    assert words in sentence and "nan" not in sentence and sentence == proof_text(result)
    page = head_html(result)
    tile = re.search(rf'<div class="tile (\w+)"><b>{proof.question}</b>.*?</div>', page)
    assert tile[1] == proof.tone and proof.word in tile[0] and proof.mark in tile[0]
    assert page.count('<div class="tile ') == 4
    assert (tile[1] == "good") == (level == "better" and not nil)
    bars = re.findall(r'<span class="rival">(.*?)</span><span class="track (\w+)">', page)
    signs = {1: "good", 0: "open", -1: "bad"}
    assert [tone for _, tone in bars] == [signs[facts["sign"]] for facts in proof.over.values()]
    if level == "better":
        assert {tone for _, tone in bars} == {"good"}
    if level in ("none", "few", "silent") and name != "an account as good as random entries":
        assert "good" not in {tone for _, tone in bars}
    row = result_row(result, "BTCUSDT-1h-v9")
    assert row["verdict"] == f"{proof.mark} {proof.word}" and row["profile"] == "quick"
    (tmp_path / "result.json").write_text(json.dumps(result))
    told = report_verdict(tmp_path / "model")
    assert told["tiles"] == {proof.question.lower(): proof.word} and told["profile"] == "quick"
    verdict = page_verdict(result)
    assert (verdict["tone"] == "good") == (level == "better" and not nil and proof.question != "Trading")
    for text in (page, sentence):
        assert not re.search(r"nan|None|\binf\b|\d\.\d{5}", re.sub(r"<style>.*?</style>", "", text, flags=re.S))


def test_more_questions_ask_for_more():
    edge = {"majority": (2.0, 0.1, 3.9)}
    one, two = BASE | direction(2.0, **edge), BASE | direction(2.0, **edge) | losses("price", "mase", persistence=SMALL)
    assert [proofs_of(r)[0].level for r in (one, two)] == ["better", "none"]
    assert proofs_of(two)[0].over["majority"]["p"] == pytest.approx(2 * proofs_of(one)[0].over["majority"]["p"])


@pytest.mark.parametrize("asked, questions", [(account(80), 2), (account(80, shadow=True), 1), (account(2), 1)])
def test_an_account_that_is_not_judged_is_no_question(asked, questions):
    assert {proof.questions for proof in proofs_of(BASE | direction(majority=SURE) | asked)} == {questions}


def test_an_interval_for_all_questions_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    values, wrong = rng.normal(size=(4_000, 4)), 0
    for row in values:  # four questions about nothing, standard error one
        wrong += any(difference_facts(v, v - 1.959964, v + 1.959964, 4)["sign"] for v in row)
    assert 0.035 < wrong / len(values) < 0.062  # 5 % together, not each


def test_the_reach_is_found_in_four_of_five_cases():
    rng, reach = np.random.default_rng(1), difference_facts(0.0, -1.959964, 1.959964, 3)["reach"]
    seen = [difference_facts(v, v - 1.959964, v + 1.959964, 3)["sign"] > 0 for v in reach + rng.normal(size=4_000)]
    assert 0.78 < np.mean(seen) < 0.82


def test_own_parts_and_other_systems_are_no_cheap_rivals():
    tables = direction(2.0, majority=SURE, LightGBM=SURE)
    tables["rivals"]["V9 of this coin alone"] = {"edge": -9.0, "edge_low": -9.5, "edge_high": -8.5}
    assert proofs_of(BASE | tables)[0].level == "better"
    assert all(PLAIN[question] in names for question, names in CHEAP.items())


@pytest.mark.parametrize("name, tone, words", [
    ("found, LightGBM is better", "fair", "some skill, none of it worth having: direction (beaten by"),
    ("nothing found, a rival is better", "open", "nothing that guessing does not have"),
    ("found, costs eat it", "fair", "direction (economically nil)"),
    ("better than HAR", "good", "better than everything that costs nothing: volatility"),
])
def test_the_bar_says_what_the_tiles_say(name, tone, words):
    verdict = page_verdict(BASE | RESULTS[name][0])
    assert verdict["tone"] == tone and words in verdict["found"]


def test_a_leak_or_a_column_that_sees_the_future_spoils_everything():
    good = BASE | direction(2.0, majority=SURE)
    assert page_verdict(good)["tone"] == "good"
    for spoilt in (
        {"leaks": {"detectors": 10, "found": ["future"]}}, {"certificate": {"columns": 46, "passed": 45}},
        {"leaks": None, "certificate": None}, {"published": {"why": "a leak"}},
    ):
        assert page_verdict(good | spoilt)["tone"] == "bad", spoilt
    assert trust_words({}) == (False, "not checked for leaks")


@pytest.mark.parametrize("garbage", [
    {}, {"direction": [1]}, {"direction": {"V9": 3}, "rivals": "x"},
    {"trading": {"summary": {"trades": {"value": "x"}}}},
    {"event": {"methods": {}, "over": {"LightGBM": 3}}},
    {"volatility": {"V9": {"n": 5}, "persistence": {"ahead": "x"}}},
])
def test_a_damaged_result_answers_nothing(garbage):
    assert proofs_of(garbage) == [] and proof_text(garbage) == ""


def test_differences_that_cannot_be_judged_are_refused():
    over = pd.DataFrame({"value": [1.0], "low": [0.0], "high": [2.0]}, ["LightGBM"])
    with pytest.raises(SettingsError, match="unknown question"):
        prove("Luck", over, 10)
    with pytest.raises(DataError, match="majority"):
        prove("Direction", over, 10)
    with pytest.raises(DataError, match="nan"):
        prove("Direction", pd.DataFrame({"value": [np.nan], "low": [0.0], "high": [1.0]}, ["majority"]), 10)


def test_units_are_those_of_the_words():
    "Shares of a loss are percent, areas under the curve hundredths, accuracies points, accounts basis points."
    ranges = proofs_of(BASE | losses("volatility", "qlike", persistence=SMALL))[0]
    assert ranges.over["persistence"]["value"] == pytest.approx(10.0) and "+10.0 % (" in ranges.sentence()
    own = {"n": 900, "roc_auc": 0.56, "auc_low": 0.53, "auc_high": 0.59}
    over = {"volatility alone": {"value": 0.02, "low": 0.01, "high": 0.03}}
    event = proofs_of(BASE | {"event": {"name": "target first", "methods": {"V2": own}, "over": over}})[0]
    assert event.over["base rate"]["value"] == pytest.approx(6.0) and event.best == "volatility alone"
    assert event.over["volatility alone"]["value"] == pytest.approx(2.0) and "“target first”" in event.sentence()
    assert "+4.0 points (" in proofs_of(BASE | direction(majority=SURE))[0].sentence()
