"V3 in the audit room: its pipeline, its null markets, its claims."
from functools import partial

import numpy as np
import pandas as pd
import pytest

from cryptolab.audit.controls import control_result, controls
from cryptolab.audit.leaks.audit import audit_pipeline
from cryptolab.audit.pipelines.v3 import v3_control, v3_pipeline
from cryptolab.audit.steps import run_steps
from cryptolab.data import planted_market, sample_market

ONE = ("lightgbm",)


@pytest.fixture(scope="module")
def hourly():
    return sample_market(n=1_500, timeframe="1h")


# ---- the pipeline

def test_the_honest_pipeline_passes_the_audit(hourly):
    found = audit_pipeline(v3_pipeline(members=ONE), hourly, seconds=2)
    assert list(found.kind) == [] and found.attrs["failed"] == 0


def test_the_published_pipeline_is_caught_by_name(hourly):
    found = audit_pipeline(v3_pipeline(published=True, members=ONE), hourly, seconds=1)
    assert set(found.kind) == {"label overlap"} and set(found.step) == {"split"}


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
