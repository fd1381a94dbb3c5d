"""Rivals, information sheet and the ledger in a report: against statsmodels and arch, and by hand."""
import json

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.multitest import multipletests

from cryptolab.config import DataError, SettingsError
from cryptolab.data import planted_market
from cryptolab.evaluation import baselines
from cryptolab.evaluation.comparison import direction_comparison
from cryptolab.evaluation.costs import cost_comparison, sign_position
from cryptolab.evaluation.proof import proof_text
from cryptolab.files import plain
from cryptolab.audit.leaks.audit import DETECTORS, TAXONOMY
from cryptolab.evaluation.rivals import baseline_forecasts, best_methods, rival_comparison, rival_words
from cryptolab.labels import natr_future, next_direction, next_log_return
from cryptolab.reports.info_sheet import record_trial, leakage_info_sheet, text_table


@pytest.fixture(scope="module")
def market():
    rng = np.random.default_rng(5)
    truth = np.clip(0.5 + 0.1 * rng.standard_normal(2_000), 0.05, 0.95)
    y = (rng.random(2_000) < truth).astype(float)
    forecasts = {
        "model": truth, "noisy": np.clip(truth + 0.1 * rng.standard_normal(2_000), 0, 1), "coin": rng.random(2_000),
        "majority": np.full(2_000, 0.52),
    }
    return y, forecasts


def test_each_duel_agrees_with_statsmodels(market):
    y, forecasts = market
    board = rival_comparison(y, forecasts)
    right = {name: (p > 0.5) == (y == 1) for name, p in forecasts.items()}
    for rival in board.index:
        table = pd.crosstab(right["model"], right[rival]).to_numpy()
        two_sided = sm_mcnemar(table, exact=True).pvalue
        assert 2 * min(board.p_mcnemar[rival], 0.5) == pytest.approx(two_sided, rel=1e-9) or board.edge[rival] < 0
        assert board.edge[rival] == pytest.approx(100 * (right["model"].mean() - right[rival].mean()))
        assert board.edge_low[rival] < board.edge[rival] < board.edge_high[rival]
    assert board.p_holm.to_numpy() == pytest.approx(multipletests(board.p_mcnemar, method="holm")[1])


def test_the_order_of_rows_matters_only_to_intervals(market):
    y, forecasts = market
    turned = rival_comparison(y[::-1], {name: p[::-1] for name, p in forecasts.items()})
    board = rival_comparison(y, forecasts)
    for column in ("edge", "only_model", "only_rival", "p_mcnemar", "p_holm"):
        assert turned[column].to_numpy(dtype=float) == pytest.approx(board[column].to_numpy(dtype=float))


def test_where_nothing_can_be_known_the_words_say_so():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 1_000).astype(float)
    board = rival_comparison(
        y, {"model": rng.random(1_000), "coin": rng.random(1_000), "majority": np.full(1_000, 0.51)},
    )
    assert (board.p_holm > 0.05).all() and rival_words(board).startswith("More often right than none of them")


def test_best_methods_refuses_a_board_without_its_benchmark(market):
    y, forecasts = market
    losses = {name: (p - y) ** 2 for name, p in forecasts.items()}
    assert best_methods(losses, "majority").attrs["p_spa"] < 0.05
    with pytest.raises(SettingsError, match="benchmark"):
        best_methods(losses, "absent")
    with pytest.raises(DataError, match="nothing to compare"):
        rival_comparison(y, {"model": forecasts["model"]})


def test_the_sentence_names_edge_uncertainty_and_cost(market):
    y, forecasts = market
    rng = np.random.default_rng(2)
    returns = (2 * y - 1) * rng.exponential(0.002, len(y))
    rivals = rival_comparison(y, forecasts)
    costs = cost_comparison(returns, {"model": sign_position(forecasts["model"])})
    result = {"direction": direction_comparison(y, forecasts, 1, returns), "rivals": rivals, "costs": costs,
              "cost_per_side": 0.0015}
    text = proof_text(plain(result))
    for part in (
        f"{rivals.edge['majority']:+.1f} points ({rivals.edge_low['majority']:+.1f} to ".split(" (")[0],
        f"{costs.break_even_bp.iloc[0]:.1f} per side", "less than the stated 15", "Economically nil: after costs −",
    ):
        assert part in text
    flat = {"model": np.full(len(y), 0.5), "majority": forecasts["majority"]}
    result |= {"direction": direction_comparison(y, flat, 1, returns), "rivals": rival_comparison(y, flat)}
    result["costs"] = cost_comparison(returns, {"model": sign_position(flat["model"])})
    assert "never takes a position" in proof_text(plain(result))


def test_every_type_of_leakage_has_a_detector():
    sheet = leakage_info_sheet()
    assert list(sheet.index) == list(TAXONOMY) and len(sheet) == 8
    assert (
        all(set(row.split(", ")) <= set(DETECTORS.index) and row for row in sheet.detectors)
        and (sheet.verdict == "not looked for").all()
    )
    assert "Read it &amp; weep" in text_table(pd.DataFrame({"a": ["Read it & weep" + "x" * 100]})).data


def test_a_ledger_counts_configurations_and_survives_between_reports(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "deep" / "trials.jsonl"
    returns = rng.normal(0.0005, 0.01, 1_000)
    seen = [record_trial(path, "candles", {"seed": seed}, 0.5, rng.normal(0, 0.01, 1_000)) for seed in (0, 1, 1, 2)]
    assert [t["trials"] for t in seen] == [1, 2, 2, 3]
    assert record_trial(path, "other candles", {"seed": 0}, 0.5, returns)["trials"] == 1
    judged = record_trial(path, "candles", {"seed": 3}, 0.5, returns)
    assert judged["deflated"] < judged["probabilistic"] == record_trial(
        None, "candles", {"seed": 3}, 0.5, returns,
    )["deflated"]
    assert len(path.read_text().splitlines()) == 6 and all(
        json.loads(line)["kind"] == "trial" for line in path.read_text().splitlines()
    )


def test_the_baselines_equal_each_method_called_by_hand():
    "Row by row and to the last bit: labels of different rows, and learners only where features are given."
    candles = planted_market(0.1, 3_000, seed=2)
    makers = {"direction": next_direction, "volatility": natr_future, "price": next_log_return}
    labels = {name: make(candles) for name, make in makers.items()}
    ret = np.log(candles["close"]).diff()
    X = pd.DataFrame({k: ret.rolling(k).sum() for k in (1, 3, 10)})
    rows = dict(zip(("train", "val", "test"), np.split(candles.index[20:-14], [1_800, 2_400])))
    wide = {part: index[5:] for part, index in rows.items()}
    found = baseline_forecasts(candles, labels, {"direction": rows, "price": rows, "volatility": wide}, X, 3, 1)
    (train, val, test), up, v = rows.values(), labels["direction"]["y"], labels["volatility"]["y"]
    by_hand = {
        "majority": baselines.majority(up[train], len(test)), "last move": baselines.last_move(ret[test]),
        "reversal": baselines.reversal(ret[test]),
        "logistic regression": baselines.logistic_baseline(X.loc[train], up[train], X.loc[test]),
        "LightGBM": baselines.lightgbm_baseline(
            X.loc[train], up[train], X.loc[val], up[val], X.loc[test], seed=3, num_threads=1,
        ),
    }
    pd.testing.assert_frame_equal(found["direction"], pd.DataFrame(by_hand, index=test), check_exact=True)
    v_train, v_test = v[wide["train"]], wide["test"]
    assert (found["volatility"]["persistence"] == baselines.persistence_vol(candles)[v_test]).all()
    assert (found["volatility"]["EWMA"] == baselines.ewma_vol(candles, v_train)[v_test]).all()
    assert (found["volatility"]["HAR"] == baselines.har_vol(candles, v_train)[v_test]).all()
    assert found["price"]["drift"].eq(baselines.drift(labels["price"]["y"][train])[0]).all()
    assert found["price"]["persistence"].eq(0).all() and found["price"].index.equals(test)
    assert list(baseline_forecasts(candles, {"direction": labels["direction"]}, rows)["direction"]) == list(by_hand)[:3]
