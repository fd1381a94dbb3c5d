"V3 in the audit room: its pipeline, its null markets, its claims."
from functools import partial

import numpy as np
import pandas as pd
import pytest

from cryptolab.audit.claims.claims import claims_table, judge_claims
from cryptolab.audit.claims.v3 import account_measurements, edge_measurements, v3_measurements
from cryptolab.audit.controls import control_result, controls
from cryptolab.audit.leaks.audit import audit_pipeline
from cryptolab.audit.pipelines.v3 import v3_control, v3_pipeline
from cryptolab.audit.steps import run_steps
from cryptolab.data import planted_market, sample_market
from cryptolab.systems.v3.document import needed_edge
from cryptolab.labels import triple_barrier

ONE = ("lightgbm",)


@pytest.fixture(scope="module")
def hourly():
    return sample_market(n=1_500, timeframe="1h")


# ---- the pipeline

# that the honest pipeline passes and the published one is caught stands in the lesson, nbs/75_audit/50_pipelines/40_v3

def test_columns_chosen_on_all_rows_are_caught(hourly):
    "A planted fault: the choice by SHAP moves in front of the split. The audit must tell it from V3's own choice."
    from cryptolab.models.selection import shap_importance, top_columns
    from cryptolab.systems.v3.members import V3_PROFILES

    class ChosenBefore(type(v3_pipeline())):
        def prepare(self, features, labels, train, test):
            whole = features.notna().all(axis=1).to_numpy() & labels["y"].notna().to_numpy()
            x, y, names = features[whole].to_numpy("float32"), labels["y"][whole].to_numpy(), list(features)
            importance = shap_importance(x, y, names, sizes=V3_PROFILES["smoke"], seed=0, threads=1)
            return features[top_columns(importance, names, 20)], labels

    made = v3_pipeline(members=ONE, select=None)
    found = audit_pipeline(ChosenBefore(**made.steps), hourly, seconds=1)
    assert "fit on test rows" in set(found.kind)


def test_a_fit_learns_from_its_own_slices_and_forecasts_what_it_has_not_seen(hourly):
    run = run_steps(v3_pipeline(members=ONE, select=15), hourly)
    stack = run.pipeline.model_
    assert run.train.max() + 12 <= run.test.min()
    assert len(stack.columns) == 15 and set(stack.columns) <= set(run.features) and stack.folds.notna().all().all()
    assert len(stack.folds) < len(run.train)  # the rest stops and calibrates
    assert not stack.recalibration and set(stack.compared) and ((run.p > 0) & (run.p < 1)).all()
    leaky = run_steps(v3_pipeline(published=True, members=ONE, select=15), hourly)
    assert leaky.train.max() > leaky.test.min() and set(leaky.pipeline.model_.recalibration) == set(ONE)


# ---- markets without direction, and with one

def test_null_markets_keep_it_quiet():
    found = controls(partial(v3_control, members=ONE, select=None), n=4, rows=2_500, log=None)
    assert found.p_stakes.min() > 0.001 and found.attrs["summary"]["rejections"] <= 2
    assert found.n.min() > 500


def test_a_planted_edge_is_found():
    y, p, majority = v3_control(planted_market(edge=0.2, n=5_000, seed=1), 1, ONE)
    found = control_result(y, p, majority, 1)
    assert found["p_value"] < 0.01 and found["accuracy"] > found["majority_accuracy"]


# ---- the claims

SMALL = {"profile": "smoke", "members": ONE, "select": None, "threads": 1, "sizes": {"boost_trees": 5}}
NEAR = {"target": 0.006, "stop": 0.004, "timeout": 12, "confidence": 0.9}  # a threshold that no forecast reaches
OHLCV = ["open", "high", "low", "close", "volume"]


@pytest.fixture(scope="module")
def measured():
    return pd.DataFrame(v3_measurements(sample_market(timeframe="15m", n=6_000)[OHLCV], **SMALL, **NEAR))


def test_no_claim_of_v3_is_left_unmeasured(measured):
    judged = judge_claims(claims_table(("v3",)), measured)
    assert judged.verdict["v3.training.total_hours"] == "not testable"
    rest = judged.drop("v3.training.total_hours")
    assert not (rest.verdict == "not yet measured").any() and rest.measured.notna().all() and rest.nothing.notna().all()
    assert rest.verdict["v3.ensemble.accuracy"] == "beaten by doing nothing"  # the event is rare: say never
    both = measured.set_index(["claim", "subject"])["value"]
    assert {"LightGBM", "V3 as published"} <= set(both["v3.ensemble.roc_auc"].index)
    assert {"needed per trade", "all hours offer"} <= set(both["v3.backtest.total_return"].index)


def test_needed_and_offered_edge_are_known_answers():
    assert needed_edge(1.5, 8_000) == pytest.approx(0.01145, abs=1e-5)
    assert needed_edge(3.0, 8_000) == pytest.approx(0.01733, abs=1e-5)
    equity = np.prod(1 + 0.01 * np.full(5_000, needed_edge(2.0, 5_000)))
    assert equity == pytest.approx(3.0)
    candles = sample_market(timeframe="15m", n=4_000)[OHLCV].iloc[-700:]
    found = pd.DataFrame(edge_measurements(candles, "here")).set_index("subject")["value"]
    trades = triple_barrier(candles, 0.03, 0.02, 4, unit="fraction")["ret"].dropna()
    assert found["all hours offer"] == pytest.approx(trades.mean())
    assert found["the best 2% of hours offer"] == pytest.approx(np.sort(trades)[-int(0.02 * len(trades)) :].mean())


def test_the_account_is_the_documents():
    "A market that rises 0.2 % a candle: every trade ends at +3 %, less costs on both sides, of 1 % of the account."
    index = pd.date_range("2024-01-01", periods=2_000, freq="15min", tz="UTC", name="open_time")
    close = pd.Series(100 * 1.002 ** np.arange(1, 2_001), index)
    candles = pd.DataFrame({"open": close / 1.002, "high": close, "low": close / 1.002, "close": close, "volume": 1.0})
    orders = pd.DataFrame(
        {
            "p_event": 1.0, "action": 1, "size": 0.01, "stop_by": 0.02 * close, "target_by": 0.03 * close,
            "timeout": 60, "reason": "ENTRY",
        },
    )
    rows = pd.DataFrame(account_measurements(candles, orders, index[1_000:], index[:1_000]))
    own = rows[rows.role == "system"].set_index("claim")["value"]
    assert own["v3.backtest.win_rate"] == 1.0 and own["v3.backtest.max_drawdown"] > -1e-3
    trades = own["v3.backtest.trades"] / (5.86 * 365 * 96 / 1_000)
    assert trades == pytest.approx(1_000 // 15, abs=5)
    per_trade = (1 + own["v3.backtest.total_return"]) ** (1 / own["v3.backtest.trades"]) - 1
    assert per_trade == pytest.approx(0.01 * (0.03 - 0.003), rel=0.05)


def test_a_silent_forecast_lowers_its_threshold_and_says_so(measured):
    note = measured.set_index(["claim", "role"])["note"]
    assert "lowered to" in note["v3.backtest.win_rate", "system"]
    assert "scaled to 5.86 years" in note["v3.backtest.trades", "system"]
