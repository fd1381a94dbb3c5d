"""The hybrid ensemble as a whole: rows, honesty, votes, files, strategy, gain, commands, errors; smallest models."""

import json
import logging
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cryptolab.backtest.engine import backtest
from cryptolab.config import DataError, ModelError, SettingsError, seed_everything
from cryptolab.data import load_candles, null_market, sample_market
from cryptolab.audit.controls import controls
from cryptolab.audit.claims.hybrid import good_gate, ml_gain, signal_trades, trades_needed
from cryptolab.audit.pipelines.hybrid import direction_content, hybrid_control, hybrid_pipeline, mirrored
from cryptolab.audit.leaks.audit import audit_pipeline
from cryptolab.labels.walk import exits_of_trades
from cryptolab.systems.hybrid import Hybrid
from cryptolab.cli.hybrid import hybrid_app, make_data, market_symbol
from cryptolab.systems.hybrid.fit import fit_member, fit_vote, resampled, tune, vote_weights
from cryptolab.models.calibration import fit_sigmoid
from cryptolab.systems.hybrid.members import MEMBERS, PUBLISHED_WEIGHTS, ask_member, hybrid_sizes
from cryptolab.systems.hybrid.rows import hybrid_labels, hybrid_rows
from cryptolab.systems.hybrid.document import CryptoScalpingStrategy
from cryptolab.systems.hybrid.strategy import (
    BULLISH, POINTS, CryptoScalpingConfig, indicator_output, ml_bonus, scalping_orders, technical_signals,
)

SMALL = {"profile": "smoke", "threads": 1}


@pytest.fixture(scope="module")
def candles():
    return sample_market(n=2_000, timeframe="15m")


@pytest.fixture(scope="module")
def fitted(candles):
    seed_everything(0)
    return Hybrid(**SMALL, sizes={"svm_rows": 300}).fit(candles, log=None)


@pytest.fixture(scope="module")
def folder(fitted, tmp_path_factory):
    return fitted.save(tmp_path_factory.mktemp("hybrid") / "model")


# --- rows and labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["touch", "barrier"])
@pytest.mark.parametrize("test_start", [None, "2024-12-28"])
def test_outcomes_of_a_part_are_known_before_the_next_begins(candles, label, test_start):
    rows = hybrid_rows(candles, label, test_start=test_start)
    t0, t1, p = rows.labels.t0, rows.labels.t1, rows.parts
    assert t1.iloc[p.train].max() <= t0.iloc[p.val].min() and t1.iloc[p.val].max() <= t0.iloc[p.test].min()
    if test_start:
        assert t0.iloc[p.test[0]] == pd.Timestamp(test_start, tz="UTC")


def test_touch_is_the_high_and_barrier_is_a_trade(candles):
    touched, earned = hybrid_labels(candles), hybrid_labels(candles, "barrier")
    for t in (300, 900, 1_500):
        assert touched.y.iloc[t] == (candles.high.iloc[t + 1 : t + 6].max() >= 1.005 * candles.close.iloc[t])
        entry = candles.open.iloc[t + 1]
        at, price, reason, _ = exits_of_trades(
            [candles[c].to_numpy() for c in ("open", "high", "low", "close")], [t], 1.0, 0.99 * entry, 1.005 * entry,
            timeout=5,
        )
        assert earned.y.iloc[t] == (reason[0] == 0)
    assert earned.y.mean() < touched.y.mean()


def test_windows_never_span_a_gap(shared_data):
    table = load_candles("ETHUSDT", "1h", source="local", data_dir=shared_data, start="2018-01-20", end="2018-04-01")
    steps = table.index.to_series().diff()
    assert (steps > pd.Timedelta("1h")).any()
    rows = hybrid_rows(table)
    assert rows.counts["dropped"]["gap"] > 0
    one_hour = (steps == pd.Timedelta("1h")).to_numpy()
    for number in rows.numbers:
        end = rows.windows.ends[number]
        assert one_hour[end - 18 : end + 6].all()  # 20 rows of the window, 5 candles of the label


def test_base_rates_are_those_of_the_touch(shared_data):
    "The document's own numbers imply 45.5 %; real candles touch more rarely at 15 minutes, more often at one hour."
    for timeframe, low, high in (("15m", 0.10, 0.35), ("1h", 0.40, 0.65)):
        table = load_candles("BTCUSDT", timeframe, source="local", data_dir=shared_data, limit=20_000)
        assert low < hybrid_labels(table).y.mean() < high
        assert hybrid_labels(table, "barrier").y.mean() < hybrid_labels(table).y.mean()


# --- resampling, votes, tuning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["smote", "oversample", "weights", "none"])
def test_resampling_balances_and_keeps_what_there_was(how):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 4)).astype("float32"), (np.arange(200) % 8 == 0).astype(float)
    x2, y2, weight = resampled(x, y, how, 3)
    assert np.array_equal(x2[:200], x) and np.array_equal(y2[:200], y)
    assert np.average(y2, weights=weight) == pytest.approx(0.125 if how == "none" else 0.5)
    again = resampled(x, y, how, 3)
    assert np.array_equal(again[0], x2)


def test_one_lonely_event_cannot_be_resampled():
    with pytest.raises(DataError, match="too few rows of one class"):
        resampled(np.zeros((10, 2), dtype="float32"), np.eye(10)[0])


def test_weights_are_the_documents_and_share_out_an_absent_vote():
    assert PUBLISHED_WEIGHTS == {"random_forest": 0.20, "xgboost": 0.25, "lstm": 0.20, "logistic": 0.15, "svm": 0.20}
    some = vote_weights("published", ("xgboost", "logistic"))
    assert some == pytest.approx({"xgboost": 0.625, "logistic": 0.375})
    with pytest.raises(SettingsError, match="unknown ensemble weights"):
        vote_weights("best")


def test_fitted_weights_are_no_worse_than_any_member_on_their_own_rows():
    rng = np.random.default_rng(1)
    p = pd.DataFrame(rng.uniform(0.05, 0.95, (500, 3)), columns=list("abc"))
    y = (rng.random(500) < 0.5 * p.a + 0.5 * p.b).astype(float)
    w = fit_vote(p, y)
    loss = lambda q: -np.where(y == 1, np.log(q), np.log(1 - q)).mean()
    assert min(w.values()) >= 0 and sum(w.values()) == pytest.approx(1)
    assert loss(p.to_numpy() @ np.array(list(w.values()))) <= min(loss(p[c]) for c in p) + 1e-9


def test_a_calibration_never_turns_the_order_round():
    rng = np.random.default_rng(2)
    score = rng.standard_normal(400)
    assert fit_sigmoid(score, (score < 0).astype(float))[0] == 0.0
    assert fit_sigmoid(score, np.ones(400))[0] == 0.0


def turned(rows, at):
    "The same rows with the outcomes of some turned round."
    y = rows.labels["y"].to_numpy().copy()
    y[at] = 1 - y[at]
    return replace(rows, labels=rows.labels.assign(y=y))


@pytest.mark.parametrize("name", ["random_forest", "logistic", "svm"])
def test_members_learn_from_training_rows_only_and_the_svm_from_its_newest(candles, name):
    rows, sizes = hybrid_rows(candles), hybrid_sizes("smoke", svm_rows=200)
    train, val, test = rows.parts.train, rows.parts.val, rows.parts.test
    said = lambda r: ask_member(name, fit_member(name, r, train, val, sizes, "none", 0, 1)[0], r.x(test))
    plain = said(rows)
    assert np.array_equal(said(turned(rows, val)), plain)
    assert not np.array_equal(said(turned(rows, train[-200:-100])), plain)
    if name == "svm":
        assert np.array_equal(said(turned(rows, train[:-200])), plain)


def test_tuning_sees_training_rows_only(candles):
    later = candles.copy()
    rows = hybrid_rows(candles)
    border = candles.index.get_loc(rows.labels.index[rows.parts.val[0]])
    later.iloc[border + 6 :, :4] *= np.linspace(1, 2, len(candles) - border - 6)[:, None]
    found = [
        tune(hybrid_rows(c), hybrid_sizes("smoke", trials=3), ("logistic",), seed=4, log=None) for c in (candles, later)
    ]
    assert found[0][0] == found[1][0]
    pd.testing.assert_frame_equal(found[0][1], found[1][1])


# --- honesty ----------------------------------------------------------------------------------------------------------


def test_the_probability_is_calibrated_and_keeps_the_order(candles, fitted):
    forecast, y = fitted.forecast(candles), hybrid_labels(candles).y
    val = fitted.rows("val")
    assert forecast.p_event[val].mean() == pytest.approx(y[val].mean(), abs=0.02)
    assert fitted.ensemble_["line"][0] == 0 or forecast.p_event.corr(forecast.p_ml, method="spearman") > 0.9999
    assert set(forecast) >= {
        "p_event", "p_ml", *(f"p_{m}" for m in MEMBERS), "action", "size", "stop_by", "target_by", "trail_by",
        "trail_from", "timeout", "reason", "score", "ml",
    }
    votes = forecast[[f"p_{m}" for m in MEMBERS]].to_numpy() @ np.array(list(PUBLISHED_WEIGHTS.values()))
    np.testing.assert_allclose(votes, forecast.p_ml, atol=1e-12)


def test_null_markets_keep_it_quiet():
    found = controls(partial(hybrid_control, members=("logistic",)), n=5, rows=2_500, log=None)
    assert found.p_stakes.min() > 0.001 and found.attrs["summary"]["rejections_stakes"] <= 2


def test_volatility_is_all_there_is_to_know_on_a_null_market():
    market = null_market(n=6_000, timeframe="15m", seed=3)
    system = Hybrid(members="xgboost,logistic", **SMALL).fit(market, log=None)
    test = system.rows("test")
    found = direction_content(
        hybrid_labels(market).y[test], hybrid_labels(mirrored(market)).y[test], system.forecast(market).p_event[test],
        96,
    )
    assert found.roc_auc["the event"] > 0.55 and found.roc_auc["its mirror image"] > 0.55
    assert found.auc_low.iloc[2] < 0.5 < found.auc_high.iloc[2]


@pytest.mark.parametrize("learner, label", [("trees", "touch"), ("logistic", "barrier")])
def test_the_pipeline_passes_the_audit(learner, label):
    found = audit_pipeline(hybrid_pipeline(learner, label), sample_market(n=1_200, timeframe="1h"), seconds=2)
    assert list(found.kind) == [] and found.attrs["failed"] == 0


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_folder_of_an_earlier_version(candles, fitted, folder, earlier_version):
    earlier_version(fitted, folder, candles)


def test_foreign_types_and_pickles_are_refused(folder, tmp_path):
    import pickle

    import skops.io
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    from cryptolab.systems.hybrid.members import read_member

    skops.io.dump(make_pipeline(FunctionTransformer(np.log)), tmp_path / "logistic.skops")
    with pytest.raises(ModelError, match="holds another model"):
        read_member(tmp_path, "logistic")
    skops.io.dump(FunctionTransformer(shutil.rmtree), tmp_path / "logistic.skops")
    with pytest.raises(ModelError, match="no model of this library needs"):
        read_member(tmp_path, "logistic")
    (tmp_path / "ensemble.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelError, match="pickle"):
        Hybrid.load(tmp_path / "ensemble.pkl")


def test_an_interrupted_fit_goes_on(candles, tmp_path, monkeypatch):
    from cryptolab.systems.hybrid import system as hybrid

    params = SMALL | {"members": "random_forest,xgboost,logistic"}
    whole = Hybrid(**params).fit(candles, log=None)
    once, calls = hybrid.fit_member, []

    def stops(name, *args, **named):
        calls.append(name)
        if name == "logistic" and calls.count("logistic") == 1:
            raise KeyboardInterrupt
        return once(name, *args, **named)

    monkeypatch.setattr(hybrid, "fit_member", stops)
    with pytest.raises(KeyboardInterrupt):
        Hybrid(**params).fit(candles, work=tmp_path, log=None)
    again = Hybrid(**params).fit(candles, work=tmp_path, log=None)
    assert calls == ["random_forest", "xgboost", "logistic", "logistic"]
    pd.testing.assert_frame_equal(again.forecast(candles), whole.forecast(candles))


# --- strategy ---------------------------------------------------------------------------------------------------------


def test_points_sum_to_nine_and_the_bonus_is_the_documents():
    assert sum(POINTS.values()) == 9 and len(BULLISH) == 10
    assert ml_bonus([0.70, 0.60, 0.50, 0.4999, 0.45, 0.4499, np.nan]).tolist() == [2, 1, 0.5, 0, 0, -1, 0]
    assert indicator_output([0.70, 0.60, 0.45, 0.44]).signal.tolist() == ["STRONG_BUY", "BUY", "HOLD", "AVOID"]


def test_nothing_replaces_the_oversold_rsi(candles):
    signals = technical_signals(candles)
    orders = scalping_orders(
        candles, pd.Series(1.0, candles.index), CryptoScalpingConfig(min_entry_score=1), signals=signals,
    )
    assert orders.action.sum() == (signals.rsi_ok & (signals.technical >= 0)).sum()
    assert not orders.action[~signals.rsi_ok].any()


def test_filters_are_rare_on_real_candles(shared_data):
    "All four conditions of the document: a few dozen entries a year on 15-minute candles of BTC, not hundreds."
    table = load_candles("BTCUSDT", "15m", source="local", data_dir=shared_data, start="2023-01-01", end="2025-01-01")
    s = technical_signals(table)
    a_year = (s.rsi_ok & s.band_ok & s.volume_ok & s.pattern_ok).sum() / 2
    assert 10 < a_year < 150 < 2 * trades_needed()


class _Fails:
    def forecast(self, candles):
        raise RuntimeError("the graphics card left")


class _Silent:
    def forecast(self, candles):
        return pd.DataFrame({"p_ml": np.full(len(candles), np.nan)}, candles.index)


def test_without_a_model_the_strategy_goes_on_and_says_so(candles, folder, tmp_path, caplog):
    off = CryptoScalpingStrategy(CryptoScalpingConfig(use_ml_ensemble=False)).orders(candles)
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "xgboost.json").write_text("{}")
    strategies = {
        "no model folder": CryptoScalpingConfig(ml_model_path=str(tmp_path / "nothing.pkl")),
        "changed since": CryptoScalpingConfig(ml_model_path=str(damaged)),
    }
    for words, config in strategies.items():
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            orders = CryptoScalpingStrategy(config).orders(candles)
        assert words in caplog.text and words in orders.reason.iloc[-1] and orders.attrs["ml"] == "missing"
        assert orders.action.equals(off.action) and orders.ml.isna().all()
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        failing = CryptoScalpingStrategy(model=_Fails()).orders(candles)
    assert "graphics card" in caplog.text and "graphics card" in failing.reason.iloc[-1] and failing.action.equals(
        off.action
    )
    silent = CryptoScalpingStrategy(model=_Silent()).orders(candles)
    assert silent.action.equals(off.action) and "no ML: not computed for this row" in silent.reason.iloc[-1]
    result = backtest(candles, off.assign(reason=failing.reason))
    assert len(result.trades) == 0 or result.trades.order_reason.str.contains("no ML").all()


def test_forecasts_trade_in_the_backtester(candles, fitted):
    forecast = fitted.forecast(candles)
    result = backtest(candles, forecast)
    assert result.counts["orders"] == forecast.action.sum() > 0
    assert result.equity.iloc[-1] - result.capital == pytest.approx(result.trades.net.sum(), abs=1e-7)
    assert result.trades.order_reason.str.startswith("ENTRY; ML").all()
    assert set(result.trades.exit_reason) <= {"target", "stop", "trailing", "timeout", "end"}


def test_signals_are_worth_their_costs_on_a_null_market():
    market = null_market(n=20_000, timeframe="15m", seed=1)
    signals = technical_signals(market)
    orders = scalping_orders(market, None, CryptoScalpingConfig(use_ml_ensemble=False), signals=signals)
    free, paid = (signal_trades(market, orders, signals, fee=f, slippage=0.0).ret for f in (0.0, 0.001))
    assert abs(free.mean()) < 4 * free.std() / np.sqrt(len(free) / 10)  # trades of one dip overlap
    assert paid.mean() == pytest.approx(free.mean() - 0.002, abs=1e-4)


def test_each_signal_is_the_trade_of_the_kernel(candles):
    signals = technical_signals(candles)
    orders = scalping_orders(candles, None, signals=signals)
    trades = signal_trades(candles, orders, signals, fee=0.0, slippage=0.0)
    rows = candles.index.get_indexer(trades.index)
    entry, o = candles.open.to_numpy()[rows + 1], orders.loc[trades.index]
    prices = [candles[c].to_numpy() for c in ("open", "high", "low", "close")]
    _, price, _, _ = exits_of_trades(
        prices, rows, 1.0, entry - o.stop_by.to_numpy(), entry + o.target_by.to_numpy(), o.trail_by.to_numpy(),
        o.trail_from.to_numpy(), o.timeout.to_numpy(),
    )
    np.testing.assert_allclose(trades.ret, price / entry - 1, atol=1e-12)


# --- gate and gain ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate, good", [(0.22, False), (0.526, False), (0.60, True), (0.75, True)])
def test_a_constant_passes_the_gate_where_events_are_frequent(rate, good):
    y = (np.arange(1_000) < 1_000 * rate).astype(float)
    gate = good_gate(y, np.full(1_000, 0.9))
    assert gate.passes["always"] == gate.passes["ensemble"] == good
    assert gate.f1["always"] == pytest.approx(2 * rate / (1 + rate)) and not gate.passes["never"]


def _signals(n=2_000, seed=0, skill=0.0):
    rng = np.random.default_rng(seed)
    ret = rng.normal(-0.001, 0.01, n)
    vote = np.clip(rng.uniform(0.2, 0.85, n) + skill * np.sign(ret), 0, 1)
    index = pd.date_range("2023-01-01", periods=n, freq="6h", tz="UTC")
    return pd.DataFrame(
        {"symbol": "X", "technical": rng.integers(4, 8, n).astype(float), "ml": vote, "ret": ret, "exit_time": index},
        index=index,
    )


def test_gain_is_found_where_it_is_and_covers_zero_where_not():
    covered = [
        (lambda g: g.low["win rate"] <= 0 <= g.high["win rate"])(ml_gain(_signals(seed=s), n_samples=300))
        for s in range(40)
    ]
    assert sum(covered) >= 34
    assert ml_gain(_signals(skill=0.15)).low["net return per trade"] > 0
    few, many = ml_gain(_signals(200)), ml_gain(_signals(4_000))
    assert few.smallest["win rate"] > 2 * many.smallest["win rate"]  # what can be seen depends on how many there are


def test_gain_of_nothing_is_not_a_number():
    none = ml_gain(_signals(0))
    assert none.attrs["n"] == 0 and none.gain.drop("net return in all").isna().all()
    nobody = ml_gain(_signals(50).assign(technical=0.0))
    assert nobody.attrs["on"] == nobody.attrs["off"] == 0


def test_coins_that_fall_together_are_resampled_together():
    one = _signals(600)
    three = pd.concat([one.assign(symbol=s) for s in "ABC"]).sort_index(kind="stable")
    a, b = ml_gain(one, n_samples=500), ml_gain(three, n_samples=500)
    assert b.attrs["n"] == 3 * a.attrs["n"] and b.gain["win rate"] == pytest.approx(a.gain["win rate"])
    # three copies are not three times the evidence
    assert b.smallest["win rate"] == pytest.approx(a.smallest["win rate"], rel=1e-6)


# --- commands ---------------------------------------------------------------------------------------------------------


def run(*words):
    return CliRunner().invoke(hybrid_app, [str(w) for w in words])


def test_the_commands_of_the_document(tmp_path):
    assert market_symbol("BTC-USD") == market_symbol("btcusdt") == "BTCUSDT"
    data, later, model = (
        tmp_path / "training_data.csv",
        tmp_path / "later.csv",
        tmp_path / "models" / "crypto_scalping_ensemble",
    )
    assert run("data", "--symbol", "BTC-USD", "--days", 12, "--output", data).exit_code == 0
    done = run(
        "train", "--data-file", data, "--output", model, "--lookahead", 4, "--profit-threshold", 0.4, "--profile",
        "smoke",
    )
    assert (
        done.exit_code == 0
        and "ENSEMBLE TEST METRICS:" in done.output
        and "ensemble_f1_score" in done.output
        and "saying yes to all" in done.output
    )
    make_data("BTC-USD", 14, later)
    done = run("evaluate", "--model", f"{model}.pkl", "--test-data", later, "--feature-importance", "--backtest")
    assert done.exit_code == 0 and "never" in done.output and "votes off" in done.output and "xgboost" in done.output
    done = run("backtest", "--start-date", "2024-12-20", "--end-date", "2025-01-01", "--model", model)
    assert done.exit_code == 0 and "is no test" in done.output and "votes on" in done.output


@pytest.mark.parametrize("words, said", [
    (("train", "--data-file", "nothing.csv"), "nothing.csv"),
    (("retrain", "--weekly", "--monthly"), "--weekly or --monthly"),
    (("data", "--days", 0), "days"),
    (("evaluate", "--model", "nowhere", "--test-data", "x.csv"), "nowhere"),
    (("backtest", "--start-date", "yesterday-ish"), "not a time"),
])
def test_mistakes_end_in_a_sentence(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 1 and said in done.output and "Traceback" not in done.output


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params, words", [
    ({"label": "close"}, "unknown label"), ({"weights": "best"}, "unknown weights"),
    ({"resample": "adasyn"}, "unknown resample"),
    ({"members": "catboost"}, "unknown member"),
    ({"lookahead": 0}, "`lookahead`"), ({"window": 1}, "`window`"), ({"stop_loss": 0}, "`stop_loss`"),
    ({"profile": "huge"}, "unknown profile"),
    ({"svm_rows": -1}, "`svm_rows`"),
    ({"select": 115}, "`select`"), ({"profit_threshold": -0.1}, "out of range"),
    ({"test_start": "2030-01-01"}, "leaves a part empty"),
])
def test_wrong_parameters_are_named(candles, params, words):
    with pytest.raises((SettingsError, DataError), match=words):
        Hybrid(**{**SMALL, **params}).fit(candles, log=None)


def test_what_cannot_be_learned_is_refused(candles):
    with pytest.raises(DataError):
        Hybrid(**SMALL).fit(candles.iloc[:150], log=None)
    with pytest.raises(DataError, match="one class only"):
        Hybrid(profit_threshold=0.5, **SMALL).fit(candles, log=None)
    with pytest.raises(DataError, match="no probability"):
        scalping_orders(candles, pd.Series(1.5, candles.index))
    with pytest.raises(SettingsError, match="out of order"):
        replace(CryptoScalpingConfig(), ml_strong_threshold=0.5)


def test_selection_and_fewer_members(candles):
    small = Hybrid(select=10, members="random_forest,logistic", weights="fitted", **SMALL).fit(candles, log=None)
    assert len(small.scaler_.chosen) == 10 and set(small.ensemble_["weights"]) == {"random_forest", "logistic"}
    assert small.forecast(candles).p_event.between(0, 1).all()
