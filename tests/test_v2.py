"""V2 as a whole: rows and purge, both readings of model B, the engine, honesty, files, errors, orders."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cryptolab.backtest import backtest
from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.data import load_candles, null_market, sample_market
from cryptolab.audit.controls import controls
from cryptolab.evaluation.events import auc_blocks, event_comparison
from cryptolab.audit.leaks.audit import audit_pipeline, audit_text
from cryptolab.audit.pipelines.v2 import v2_control, v2_own_control, v2_pipeline
from cryptolab.reports.pages.v2 import veto_comparison
from cryptolab.systems.v2 import V2, InferenceEngine, ModelTrainer, TradingPipeline, TrendFilterTrainer
from cryptolab.systems.v2.rows import barrier_distances, prepare_side, touches, trade_labels
from cryptolab.systems.v2.strategy import choose_thresholds, rolling_threshold
from cryptolab.systems.v2.veto import decide, decision_counts, mirror_threshold, veto_value


@pytest.fixture(scope="module")
def candles():
    return sample_market(n=5_000, timeframe="15m", seed=1)


@pytest.fixture(scope="module")
def fitted(candles):
    system = V2(profile="smoke", side="both", thresholds="adaptive", threads=1, sizes={"trees": 30})
    return system.fit(candles, log=None)


@pytest.fixture(scope="module")
def bitcoin(shared_data):
    return load_candles("BTCUSDT", "15m", source="local", data_dir=shared_data, start="2024-07-01", warmup=200)


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["long", "short"])
@pytest.mark.parametrize("candidates", ["touch", "all"])
def test_no_trade_of_a_part_reaches_into_the_next(candles, side, candidates):
    rows = prepare_side(candles, side, candidates=candidates)
    t0, t1 = rows.label["t0"], rows.label["t1"]
    for before, after in (("train", "val"), ("val", "test")):
        assert t1.iloc[rows.parts[before]].max() <= t0.iloc[rows.parts[after]].min()
    if candidates == "touch":
        assert touches(candles, side)[np.concatenate(list(rows.parts.values()))].all()


def test_warm_up_candles_are_no_candidates():
    market = sample_market(n=3_200, timeframe="15m")
    market.attrs["warmup_until"] = str(market.index[200])
    rows = prepare_side(market, candidates="all")
    assert rows.usable.min() == 200 and rows.counts["columns not known yet"] == 0


def test_base_rates_of_real_touches(bitcoin):
    "Touches of the lower band reach the target in about a fifth of the cases and earn nothing or little before costs."
    asked = touches(bitcoin)
    label = trade_labels(bitcoin)[asked].dropna(subset="y")
    ends = label["exit"].value_counts(normalize=True)
    assert 0.18 < ends["target"] < 0.25 and 0.50 < ends["stop"] < 0.60 and 0.20 < ends["timeout"] < 0.30
    assert -0.2 < label["r"].mean() < 0.1


# --- model B ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", ["touch", "all"])
def test_the_filter_as_written_is_a_mirror_on_real_candles(bitcoin, candidates):
    system = V2(profile="full", filter="as_written", candidates=candidates, threads=2).fit(bitcoin, log=None)
    table = system.outcomes(bitcoin)
    counts = decision_counts(table)
    assert counts["mirror"] < 1e-9 and counts["trend_veto"] == 0
    for tau in (0.5, 0.52, 0.55, 0.6):  # any threshold with 1 − φ ≤ τ
        assert (decide(table["p_bounce"], table["p_filter"], tau, 1 - tau + 1e-6)["reason"] != "TREND_VETO").all()
    mine = system.results_["long"]
    assert mine["filter"]["roc_auc"] == pytest.approx(mine["bounce"]["roc_auc"], abs=1e-9)


def test_nothing_impressive_on_real_candles(bitcoin):
    "The document claims an AUC of 0.75 and 55 to 70 % success. An AUC far above 0.5 would be a leak."
    system = V2(profile="full", candidates="all", threads=2).fit(bitcoin, log=None)
    test = system.outcomes(bitcoin).query("part == 'test'")
    board = event_comparison(test["y"], {"V2": test["p_event"]}, 0.21, 48)
    assert 0.45 < board["roc_auc"]["V2"] < 0.58 and board["brier_skill"]["V2"] < 0.02
    share = veto_comparison({"resolved": system.outcomes(bitcoin)}, 0.0015).loc[("resolved", "shares 30 % and 1/3")]
    assert share["n_a"] > 100 and share["mean_both"] < 0  # nothing is left after costs


@pytest.mark.parametrize("kind", ["resolved", "meta"])
def test_the_resolved_filter_is_another_opinion(candles, kind):
    system = V2(profile="smoke", filter=kind, threads=1).fit(candles, log=None)
    counts = decision_counts(system.outcomes(candles))
    assert counts["mirror"] > 0.01 and abs(counts["correlation"]) < 0.95
    assert not set(system.models_["long"]["filter"].names) & set(system.models_["long"]["bounce"].names)


def test_mirror_threshold_is_what_the_rule_does():
    p = np.linspace(0, 1, 2_001)
    for tau in (0.3, 0.65, 0.9):
        for phi in (0.05, 0.35, 0.4, 0.9):
            found = mirror_threshold(tau, phi)
            table = decide(p, 1 - p, tau, phi)
            clear = (np.abs(p - found["threshold"]) > 1e-9) & (np.abs(p - tau) > 1e-9)
            assert ((table["signal"] == 1) == (p > found["threshold"]))[clear].all()
            assert found["void"] == (not (table["reason"] == "TREND_VETO")[clear].any())


# --- honesty ----------------------------------------------------------------------------------------------------------


def test_threads_change_no_number(candles, fitted):
    again = V2(**fitted.get_params() | {"threads": 2}).fit(candles, log=None)
    pd.testing.assert_frame_equal(again.forecast(candles), fitted.forecast(candles))


@pytest.mark.parametrize("thresholds", ["fixed", "adaptive", "rolling"])
def test_the_future_changes_no_forecast(candles, thresholds):
    system = V2(
        profile="smoke", side="both", thresholds=thresholds, bounce_threshold=0.5, filter_threshold=0.5, threads=1,
    ).fit(candles, log=None)
    whole = system.forecast(candles)
    for cut in (2_000, 3_777, 4_990):
        later = candles.copy()
        later.loc[later.index > later.index[cut], ["open", "high", "low", "close", "volume"]] *= 0.4
        pd.testing.assert_frame_equal(system.forecast(later).loc[: candles.index[cut]], whole.loc[: candles.index[cut]])
        short = candles.iloc[: cut + 1]
        pd.testing.assert_frame_equal(system.forecast(short), whole.loc[: candles.index[cut]])


@pytest.mark.parametrize("model", ["bounce", "filter"])
@pytest.mark.parametrize("candidates", ["all", "touch"])
def test_leak_detectors_find_nothing(model, candidates):
    found = audit_pipeline(
        v2_pipeline(model, candidates=candidates), sample_market(n=2_500, timeframe="15m"), seconds=2,
    )
    assert found.empty, audit_text(found)


@pytest.mark.slow
def test_controls_on_null_markets():
    table = controls(v2_control, 20, "garch", rows=5_000, log=None)
    found = table.attrs["summary"]
    assert (
        found["rejections"] <= found["expected_high"]
        and found["rejections_stakes"] <= 4
        and found["ks_p_stakes"] > 0.005
    )
    own = pd.DataFrame([v2_own_control(null_market(5_000, seed=k), k) for k in range(15)])
    assert stats.kstest(
        own["p_value"], "uniform",
    ).pvalue > 0.005 and stats.kstest(own["p_veto"], "uniform").pvalue > 0.005
    assert abs(own["mean_r"].mean()) < 0.05


# --- the forecast and the backtester ----------------------------------------------------------------------------------


def test_orders_trade_exactly_what_the_label_says(candles, fitted):
    "With no costs, each simulated trade ends as its label says and earns what the label earns."
    forecast = fitted.with_thresholds(0.0).forecast(candles)
    result = backtest(candles, forecast.drop(columns="side"), fee=0, slippage=0)
    assert len(result.trades) > 50
    for side, sign in (("long", 1), ("short", -1)):
        mine = result.trades[result.trades["side"] == sign]
        label = trade_labels(candles, side).reindex(mine["decided"])
        known = label["y"].notna().to_numpy()
        assert (label["exit"].astype(str).to_numpy() == mine["exit_reason"].astype(str).to_numpy())[known].all()
        np.testing.assert_allclose(label["ret"].to_numpy()[known], mine["gross_ret"].to_numpy()[known], atol=1e-12)


def test_forecast_table(candles, fitted):
    table = fitted.forecast(candles)
    assert list(table) == [
        "p_event", "p_bounce", "p_filter", "side", "action", "size", "stop_by", "target_by", "timeout", "reason",
    ]
    assert {"event", "horizon", "timeframe", "known_at"} <= set(table.attrs)
    quiet = table["reason"] == "NO_CANDIDATE"
    assert table.loc[
        quiet, ["p_event", "p_bounce", "p_filter"],
    ].isna().all().all() and table.loc[~quiet, "p_event"].between(0, 1).all()
    assert (table["size"][table["action"] == 0] == 0).all() and table["size"].between(0, 1).all()
    np.testing.assert_allclose(table["target_by"] / table["stop_by"], 2)
    pd.testing.assert_series_equal(table["stop_by"], barrier_distances(candles)["stop_by"].loc[table.index])


def test_kelly_does_not_stake_on_honest_probabilities(candles):
    system = V2(profile="smoke", sizing="kelly", threads=1).fit(candles, log=None).with_thresholds(0.0)
    table = system.forecast(candles)
    assert (table["reason"] == "ENTRY_APPROVED").sum() > 500 and (
        table["p_event"].max() > 0.8 or (table["action"] == 0).mean() > 0.99
    )


def test_a_date_divides_as_it_says(candles):
    start = candles.index[4_000]
    system = V2(profile="smoke", test_start=str(start), threads=1).fit(candles, log=None)
    step = pd.Timedelta("15min")
    assert system.rows("test")[0] + step >= start > system.rows("val")[-1] + 17 * step - step


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_of_a_saved_system(fitted, tmp_path):
    folder = fitted.save(tmp_path / "model")
    assert {p.suffix for p in folder.iterdir()} == {".txt", ".json", ".log"}
    json.loads((folder / "v2_results.json").read_text())


def test_a_folder_of_an_earlier_version(candles, fitted, tmp_path, earlier_version):
    earlier_version(fitted, fitted.save(tmp_path / "model"), candles)


class Bomb:
    "What a stranger's pickle may hold."

    def __reduce__(self):
        return (open, ("exploded", "w"))


def test_nothing_unpickles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bb_bounce_model.pkl"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match="pickles are not opened"):
        InferenceEngine(path, path)
    assert not (tmp_path / "exploded").exists()


def test_the_documents_names_hold_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, names = TradingPipeline(log=None).prepare_training_data(
        symbol="BTCUSDT", timeframe="15m", direction="short", start_date="2024-11-01",
    )
    assert len(names) == 15 and set(data["label"]) == {0.0, 1.0}
    for trainer, path in (
        (ModelTrainer(n_estimators=20, log=None), "v2/models/a.pkl"),
        (TrendFilterTrainer(n_estimators=20, log=None), "v2/models/b.pkl"),
    ):
        found = trainer.train(data)
        assert {"test_auc", "test_auc_low", "test_auc_high", "base_rate", "feature_importance"} <= set(found) and found[
            "test_auc"
        ] < 0.65
        trainer.save_model(path)
    assert not list(tmp_path.rglob("*.pkl"))
    engine = InferenceEngine("v2/models/a.pkl", "v2/models/b.pkl")
    batch = engine.predict_batch(data.head(50))
    one = engine.predict_single(data[names].iloc[3])
    assert one == {k: batch.iloc[3][k] for k in one}
    assert engine.get_statistics(batch)["trend_veto"] == 0


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given, words", [
    (dict(side="up"), "unknown side"), (dict(filter="inverse"), "unknown filter"), (dict(stop=0), "out of range"),
    (dict(size=-1), "out of range"),
    (dict(risk=1.5), "out of range"), (dict(sizes={"trees": 0}), "a whole number from 1"),
    (dict(candidates="some"), "unknown candidates"),
    (dict(features="v3"), "unknown `features`"),
    (dict(test_start="tomorrow"), "not a time"), (dict(test_start="1999-01-01"), "leaves a part empty"),
    (dict(cost=1.2), "out of range"),
])
def test_wrong_choices_are_named(candles, given, words):
    with pytest.raises((SettingsError, DataError), match=words):
        V2(profile="smoke", **given).fit(candles, log=None)


def test_too_few_candidates_are_refused(candles):
    with pytest.raises(DataError):
        V2(profile="smoke").fit(candles.iloc[:200], log=None)


def test_probabilities_that_are_none():
    assert decide([np.nan, 0.9], [0.1, np.nan])["reason"].tolist() == ["NO_CANDIDATE"] * 2
    with pytest.raises(DataError, match="no probability"):
        decide([0.5], [-0.1])
    with pytest.raises(DataError, match="do not fit"):
        decide([0.5, 0.4], [0.1])


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_auc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 400), rng.integers(0, 20, 400) / 20
    assert auc_blocks(y, p)["value"] == pytest.approx(roc_auc_score(y, p))


def test_a_blind_veto_is_worth_nothing():
    "Over many draws the interval of a random veto covers zero about as often as it says."
    rng, covered = np.random.default_rng(0), 0
    for k in range(60):
        r = rng.choice([-1.0, 2.0], 400, p=[0.75, 0.25])
        kept = rng.random(400) > 0.35
        found = veto_value(r, np.ones(400, bool), kept, 1, 300, seed=k)
        covered += found["low"] <= 0 <= found["high"]
    assert covered >= 52


def test_thresholds_of_shares_use_the_past_only():
    rng = np.random.default_rng(0)
    p = rng.random(2_000)
    for cut in (300, 999):
        changed = np.r_[p[:cut], 1 - p[cut:]]
        assert (rolling_threshold(changed, 0.2)[: cut + 1] == rolling_threshold(p, 0.2)[: cut + 1]).all()
    assert choose_thresholds(p, p, rng.normal(size=2_000))["tried"] == 12
