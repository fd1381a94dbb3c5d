"""Claims, their arithmetic, the ablation and the whole audit; heavy measurements on real candles use small sizes."""
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    accuracy_score, f1_score, mean_absolute_error, precision_score, r2_score, recall_score, roc_auc_score,
)
from typer.testing import CliRunner

from cryptolab.config import DataError, SettingsError
from cryptolab.data import load_candles, null_market, sample_market
from cryptolab.audit.claims import lint
from cryptolab.audit.claims.ablation import ablation, run_switch, smallest_leak, switched, window_slices
from cryptolab.audit.claims.claims import (
    PRINTED, RULES, SYSTEMS, VERDICTS, claim_lint, claims_table, judge_claims, lint_context,
)
from cryptolab.audit.claims.measurements import (
    audit_folds, direction_scores, error_scores, learner_forecasts, measurements, system_forecasts,
)
from cryptolab.audit.claims.switches import SWITCHES
from cryptolab.features.sets.v9 import v9_features
from cryptolab.labels import next_direction
from cryptolab.runs import claims as audit_module
from cryptolab.runs.claims import Steps, audit, load_tables, run_audit
from cryptolab.reports.pages.claims import audit_tables, audit_text, claims_view, stored_audit
from cryptolab.cli.main import app

OHLCV = ["open", "high", "low", "close", "volume"]
SEEDS = Path(__file__).parents[2] / "shared" / "seeds"
SMALL = {
    "rows": 1200, "windows": 2, "seeds": 1, "profile": "none", "folds": 1, "log": None,
    "switches": ["same candle", "24 candles, random split"],
}


# ---- the table of claims

def test_every_claim_says_what_where_and_how():
    claims = claims_table()
    assert claims.index.is_unique and set(claims.system) == set(SYSTEMS)
    assert claims[["low", "high"]].notna().any(axis=1).all() and not (claims.low > claims.high).any()
    assert (claims[["metric", "unit", "kind", "spec", "where", "test"]] != "").all().all()
    assert claims.spec.str.match(r"(V9|V2|V3|UL|HY)-\d\d$").all()
    assert set(claims_table(("v2",)).system) == {"v2"}
    with pytest.raises(SettingsError, match="unknown system"):
        claims_table(("v8",))


@pytest.mark.skipif(not SEEDS.is_dir(), reason="the documents are not beside the checkout")
@pytest.mark.parametrize("document, numbers", [
    (
        "v9_multi_task.md",
        "72-75 70-73 0.70-0.74 0.80-0.83 0.000020-0.000030 0.000012-0.000020 15-25 0.68-0.75 140-160 90-110 1.5-2.5 "
        "0.75-0.85 45-60 20-30 60-90 20.4 27-30",
    ),
    ("v2_confluence_veto.md", "0.75+ 0.70+ 15-25 55-70 0.70 0.65 30-40"),
    ("v3_ultimate.md", "73-76 0.73-0.78 <0.03 75-78 1.8-2.5 5,000-8,000 2.5-3.5 150-300 49"),
    ("ultimate_tft_gat_maml.md", "60-65 2.5-3.5 <15% 55-60 50-70 100x <10"),
    ("hybrid_ensemble.md", "0.6512 0.6234 0.5876 0.6049 0.7123 50-60 60-70 1.5-2.0 2.0-3.0 20-30 6-8"),
])
def test_claimed_numbers_stand_in_the_documents(document, numbers):
    text = (SEEDS / document).read_text(encoding="utf-8", errors="replace")
    assert not [n for n in numbers.split() if n not in text]
    values = {abs(float(x)) for n in numbers.split() for x in re.findall(r"[\d.]+", n.replace(",", ""))}
    table = claims_table()
    known = {
        abs(round(v * scale, 6)) for v in table[["low", "high"]].to_numpy().ravel() if v == v for scale in (1, 100)
    }
    assert not [v for v in values if round(v, 6) not in known]


def test_printed_file_of_v9_is_the_documents():
    if not SEEDS.is_dir():
        pytest.skip("the documents are not beside the checkout")
    block = re.search(r"```json\n(.*?)```", (SEEDS / "v9_multi_task.md").read_text(), re.S)[1]
    stored = json.loads(block)
    assert PRINTED["v9"] == {k: stored[k] for k in PRINTED["v9"]}


# ---- arithmetic

def honest_metrics(seed, n=2000):
    "Metrics as scikit-learn computes them, rounded to three places, and the context they belong to."
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.3, 0.7)
    y = (rng.random(n) < base).astype(int)
    p = np.clip(base + rng.uniform(0, 0.5) * (y - base) + 0.2 * rng.standard_normal(n), 0, 1)
    level = rng.uniform(10, 1e5) * np.exp(np.cumsum(0.01 * rng.standard_normal(n)))
    forecast = level * np.exp(rng.uniform(0.001, 0.02) * rng.standard_normal(n))

    def three(x):
        return float(f"{x:.3g}")

    metrics = {
        "direction_metrics": {
            "accuracy": accuracy_score(y, p > 0.5), "precision": precision_score(y, p > 0.5, zero_division=0),
            "recall": recall_score(y, p > 0.5), "f1": f1_score(y, p > 0.5), "roc_auc": roc_auc_score(y, p),
        },
        "price_metrics": {
            "rmse": np.sqrt(((level - forecast) ** 2).mean()), "mae": mean_absolute_error(level, forecast),
            "mape": (np.abs(level - forecast) / level).mean(), "r2": r2_score(level, forecast),
        },
    }
    metrics = {part: {k: three(v) for k, v in m.items()} for part, m in metrics.items()}
    return metrics, {"direction": {"base_rate": y.mean(), "n": n}, "price": {"mean": level.mean(), "sd": level.std()}}


@pytest.mark.parametrize("seed", range(40))
def test_honest_files_have_no_contradiction(seed):
    found = claim_lint(*honest_metrics(seed))
    assert not len(found[found.kind == "contradiction"]), found.finding.tolist()


@pytest.mark.parametrize("part, name, factor, check", [
    ("direction", "f1", 0.7, "F1"), ("price", "mape", 100, "MAE and MAPE"), ("price", "rmse", 0.1, "RMSE and R²"),
    ("price", "mae", 30, "RMSE and MAE"),
])
def test_altered_files_are_found(part, name, factor, check):
    for seed in range(10):
        metrics, context = honest_metrics(seed)
        metrics[f"{part}_metrics"][name] *= factor
        assert check in claim_lint(metrics, context)["check"].tolist()


def test_base_rate_of_three_metrics_is_recovered():
    for seed in range(20):
        m, context = honest_metrics(seed, n=5000)
        d = m["direction_metrics"]
        if 0.02 < d["recall"] < 0.98 and abs(1 - 2 * d["recall"] + d["recall"] / d["precision"]) > 0.3:
            assert (
                abs(
                    lint.implied_base_rate(d["accuracy"], d["precision"], d["recall"])
                    - context["direction"]["base_rate"]
                )
                < 0.02
            )


def test_v9s_printed_file_contradicts_itself_on_real_candles(shared_data):
    candles = load_candles("BTCUSDT", "1h", source="local", data_dir=shared_data, limit=12_000)
    found = claim_lint(PRINTED["v9"], lint_context(candles))
    made = set(zip(found.part, found.check))
    assert {
        ("volatility", "RMSE and R²"),
        ("volatility", "MAE and MAPE"),
        ("price", "RMSE and R²"),
        ("price", "MAE and MAPE"),
        ("all", "fractions and percent"),
        ("volatility", "nothing: r2"),
        ("price", "nothing: r2"),
        ("price", "nothing: mape"),
    } <= made
    assert found.set_index(["part", "check"]).factor["volatility", "RMSE and R²"] > 10


def test_trades_must_pay_for_the_return():
    rules = {"backtest": {**RULES["v3"]["backtest"], "edge": -0.0013}}
    made = set(claim_lint(PRINTED["v3"], rules)["check"])
    assert {"required and available edge", "drawdown and size", "hits and Sharpe ratio", "calibration"} <= made
    rng = np.random.default_rng(0)  # a backtest that is what it says: 500 trades at +3 % / −2 %, 60 % hits, full size
    ret = np.where(rng.random(500) < 0.6, 0.03, -0.02)
    equity = np.cumprod(1 + ret)
    found = {
        "win_rate": (ret > 0).mean(), "profit_factor": ret[ret > 0].sum() / -ret[ret < 0].sum(), "trades": 500,
        "total_return": equity[-1] - 1, "max_drawdown": (equity / np.maximum.accumulate(equity) - 1).min(),
        "sharpe": ret.mean() / ret.std() * np.sqrt(500),
    }
    context = {"stop": 0.02, "target": 0.03, "size": 1.0, "fee": 0.0, "years": 1.0, "edge": ret.mean() * 1.05}
    assert not len(claim_lint({k: float(f"{v:.3g}") for k, v in found.items()}, context))


@pytest.mark.parametrize("metrics, context, message", [
    ({}, None, "no metrics"), ([1], None, "no metrics"), ({"accuracy": float("nan")}, None, "not a number"),
    ({"accuracy": (0.7, 0.6)}, None, "not a number"),
    ({"a_metrics": {"accuracy": 0.7}}, {"b": {}}, "part that is not there"),
])
def test_lint_refuses_what_it_cannot_read(metrics, context, message):
    with pytest.raises((DataError, SettingsError), match=message):
        claim_lint(metrics, context)


# ---- verdicts

def rows_of(*found):
    return pd.DataFrame(
        [
            dict(zip(("claim", "role", "subject", "value", "low", "high", "n", "data", "note"), (*f, 5000, "x", "")))
            for f in found
        ]
    )


@pytest.mark.parametrize("claim, system, nothing, verdict", [
    ("v9.direction.accuracy", (0.53, 0.52, 0.54), 0.51, "not reproduced"),
    ("v9.direction.accuracy", (0.72, 0.71, 0.73), 0.51, "reproduced"),
    ("v9.direction.accuracy", (0.70, 0.66, 0.74), 0.51, "undecided"),
    ("v9.price.rmse", (210.0, 140.0, 260.0), 290.0, "undecided"),
    ("v9.direction.accuracy", (0.73, 0.50, 0.90), 0.51, "undecided"),  # a lucky value of few rows
    ("v9.price.rmse", (150.0, 20.0, 300.0), 290.0, "undecided"),
    ("v9.direction.accuracy", (0.80, 0.79, 0.81), 0.75, "beaten by doing nothing"),
    ("v9.price.mape", (0.003, 0.002, 0.004), 0.003, "beaten by doing nothing"),
    ("v9.price.rmse", (300.0, 290.0, 310.0), 290.0, "not reproduced"),
    ("v9.price.rmse", (150.0, 140.0, 170.0), 290.0, "reproduced"),
    ("v9.direction.accuracy", None, 0.75, "not yet measured"),
    ("v9.training.total_minutes", (100.0, 90.0, 110.0), None, "not testable"),
])
def test_verdicts(claim, system, nothing, verdict):
    found = ([(claim, "system", "V9", *system)] if system else []) + (
        [(claim, "nothing", "idle", nothing, nothing, nothing)] if nothing else []
    )
    assert judge_claims(claims_table(), rows_of(*found))["verdict"][claim] == verdict


def test_measurements_of_unknown_claims_are_refused():
    with pytest.raises(DataError, match="unknown claim"):
        judge_claims(claims_table(), rows_of(("v9.direction.luck", "system", "V9", 0.5, 0.4, 0.6)))
    with pytest.raises(DataError, match="unknown role"):
        judge_claims(claims_table(), rows_of(("v9.direction.f1", "friend", "V9", 0.5, 0.4, 0.6)))
    with pytest.raises(DataError, match="lack the column"):
        judge_claims(claims_table(), pd.DataFrame({"claim": []}))


# ---- measurements

def test_scores_are_scikit_learns():
    m, _ = honest_metrics(3)
    rng = np.random.default_rng(1)
    y, p = (rng.random(800) < 0.5).astype(float), rng.random(800)
    found = direction_scores(y, p, 50)
    up = p > 0.5
    for name, value in (
        ("accuracy", accuracy_score(y, up)), ("precision", precision_score(y, up)), ("recall", recall_score(y, up)),
        ("f1", f1_score(y, up)), ("roc_auc", roc_auc_score(y, p)),
    ):
        assert abs(found[name][0] - value) < 1e-12 and found[name][1] <= value <= found[name][2]
    level = 100 + rng.standard_normal(500)
    errors = error_scores(level, level + 0.5, 50)
    assert abs(errors["r2"][0] - r2_score(level, level + 0.5)) < 1e-12 and abs(errors["mae"][0] - 0.5) < 1e-12


def test_judged_rows_are_never_learned_from():
    candles = sample_market(n=2600)[OHLCV]
    fold = audit_folds(candles, folds=1, fit_rows=1500, more=300)[0]
    changed = candles.copy()
    # other candles after the first judged row
    changed.iloc[fold["test"] + 1 :] = changed.iloc[fold["test"] + 1 :].to_numpy()[::-1]
    changed["high"], changed["low"] = changed[OHLCV[:4]].max(axis=1), changed[OHLCV[:4]].min(axis=1)
    first = [learner_forecasts(c, fold, next_direction(c)).iloc[0] for c in (candles, changed)]
    assert np.allclose(*first)

    class Recorder:
        def fit(self, candles, work=None, log=None):
            Recorder.seen = candles
            return self

        def forecast(self, candles):
            return pd.DataFrame({"p_up": 0.5}, index=candles.index)

    table = system_forecasts(Recorder, candles, fold)
    assert len(table) == fold["end"] - fold["test"] and Recorder.seen.index[-1] == candles.index[fold["stop"] - 1]


# ---- the ablation

def test_leaks_lift_where_nothing_can_be_known():
    "On a market without direction every lift is the leak's own; what knows nothing of the future stays at one half."
    leaks = [
        "same candle", "label SMA(10)", "label EMA(12)", "4x candle on its open", "centred mean of 3",
        "centred mean of 5", "24 candles, random split", "levels, random split",
    ]
    quiet = ["one candle late", "4x candle on its close", "scaled", "random split", "scaled on everything"]
    table = ablation(
        null_market(n=5000, seed=1), windows=2, rows=2300, seeds=(0,), switches=leaks + quiet,
    ).xs("LightGBM", level="family")
    assert (table.accuracy[leaks] > 0.62).all(), table.accuracy[leaks]
    assert (abs(table.accuracy[["honest", *quiet]] - 0.5) < 0.09).all()


def test_ablation_is_repeatable_whatever_the_workers():
    candles = sample_market(n=2400)[OHLCV]
    small = {"windows": 2, "rows": 1000, "seeds": (0,), "switches": ["5 candles, random split", "touch, copies first"]}
    one, two = ablation(candles, **small), ablation(candles, **small, workers=2)
    pd.testing.assert_frame_equal(one, two)
    assert {"touch", "5 candles", "honest"} <= set(one.index.get_level_values("switch"))  # partners come along


def test_purge_and_split_of_the_honest_pipeline():
    from cryptolab.audit.claims.ablation import train_and_test
    label = SWITCHES["15 candles"].label(sample_market(n=1200)).dropna()
    train, test = train_and_test(label, "time", 0)
    assert label["t1"].iloc[train].max() <= label["t0"].iloc[test[0]] and len(np.intersect1d(train, test)) == 0
    train, test = train_and_test(label, "touching", 0)
    assert label["t1"].iloc[train].max() > label["t0"].iloc[test[0]]
    one, other = (train_and_test(label, "random", s)[1] for s in (0, 1))
    assert len(one) == len(test) and not np.array_equal(one, other)


@pytest.mark.parametrize("windows, rows", [(4, 1000), (0, 500), (2, 50)])
def test_impossible_windows_are_refused(windows, rows):
    with pytest.raises(DataError, match="too few candles"):
        window_slices(3000, windows, rows)


def test_one_class_is_refused():
    candles = sample_market(n=600)[OHLCV]
    X, label = switched(SWITCHES["honest"], candles, v9_features(candles))
    with pytest.raises(DataError, match="1 classes"):
        run_switch(SWITCHES["honest"], X, label.assign(y=1.0))


def test_smallest_leak_takes_the_lowest_that_reaches():
    index = pd.MultiIndex.from_tuples(
        [
            (s, "LightGBM")
            for s in (
                "honest", "5 candles", "5 candles, random split", "same candle", "label SMA(10)", "touch",
                "touch, random split",
            )
        ]
    )
    table = pd.DataFrame(
        {"accuracy": [0.53, 0.52, 0.66, 1.0, 0.84, 0.60, 0.73]}, index=index.set_names(["switch", "family"]),
    )
    table["leak"] = [SWITCHES[s].leak for s in table.index.get_level_values(0)]
    table["reference"] = [SWITCHES[s].reference for s in table.index.get_level_values(0)]
    table["accuracy_low"], table["accuracy_high"] = table["accuracy"] - 0.01, table["accuracy"] + 0.01
    least = smallest_leak(claims_table(), table)
    assert least.loc["v9.direction.accuracy", "leak"] == "label SMA(10)"  # the touch is Hybrid's own label
    assert least.loc["hybrid.ensemble.accuracy", "leak"] == "5 candles, random split"
    assert least.loc["ultimate.direction.accuracy", ["leak", "inside"]].tolist() == ["5 candles, random split", ""]
    assert "v9.direction.roc_auc" not in least.index  # not in this table


def test_ablation_on_real_candles(shared_data):
    "Two windows of the real market: honest near one half, the classic leaks far above."
    candles = load_candles("BTCUSDT", "1h", source="local", data_dir=shared_data)
    table = ablation(
        candles, windows=2, rows=6000, seeds=(0,), families=("LightGBM",), workers=2,
        switches=["24 candles, random split", "label SMA(10)", "4x candle on its open"],
    ).droplevel("family")
    assert 0.49 < table.accuracy["honest"] < 0.58
    assert (table.accuracy[["24 candles, random split", "label SMA(10)", "4x candle on its open"]] > 0.68).all()


# ---- the audit as a whole

def test_audit_resumes_where_it_stopped(tmp_path, monkeypatch):
    tables = {"candles": sample_market(n=3000)[OHLCV]}
    from cryptolab.audit.claims import v9
    whole = audit(tables, **SMALL)
    with monkeypatch.context() as broken:
        broken.setattr(v9, "price_measurements", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            audit(tables, **SMALL, work=tmp_path)
    done = json.loads(next(tmp_path.glob("steps-*.json")).read_text())
    # 4 pipelines, 2 families, 2 windows
    assert len([k for k in done if k.startswith('["ablation"')]) == 16 and any(
        k.startswith("measure volatility") for k in done
    )
    monkeypatch.setattr("cryptolab.audit.claims.ablation.run_switch", lambda *a, **k: pytest.fail("computed again"))
    again = audit(tables, **SMALL, work=tmp_path)
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in whole.items() if k != "seconds"}


def test_steps_survive_a_damaged_file(tmp_path):
    (tmp_path / "s.json").write_text('{"a": 1')
    steps = Steps(tmp_path / "s.json")
    assert steps == {} and steps.once("a", lambda: 2) == 2 and Steps(tmp_path / "s.json") == {"a": 2}


def test_audit_measures_v9_and_judges_it(tmp_path, monkeypatch):
    "With a stand-in for V9 that knows the planted truth, the direction claims get a verdict."
    class Toy:
        def __init__(self, **params):
            assert params["vol_target"] == "natr_next"

        def fit(self, candles, work=None, log=None):
            return self

        def forecast(self, candles):
            return pd.DataFrame(
                {"p_up": 0.5 + 0.01 * np.sign(candles["close"].diff().fillna(1.0)), "natr": 0.01, "price_return": 0.0},
                index=candles.index,
            )

    def hybrid(candles, others, profile, seed):
        assert len(candles) == 1200 + round(0.12 * 1200) and others is None and profile == "smoke"
        return measurements("hybrid.ensemble", "system", "hybrid (smoke)", {"roc_auc": (0.55, 0.52, 0.58)}, 180, "here")

    monkeypatch.setattr("cryptolab.systems.v9.system.V9", Toy)
    def ultimate(candles, others, profile, seed):
        assert len(candles) == 3000 and others is None and profile == "smoke"
        return measurements("ultimate.backtest", "system", "Ultimate (smoke)", {"sharpe": (0.1, -1.0, 1.2)}, 60, "here")

    monkeypatch.setattr("cryptolab.audit.claims.hybrid.hybrid_measurements", hybrid)
    monkeypatch.setattr("cryptolab.audit.claims.ultimate.ultimate_measurements", ultimate)
    result = audit({"candles": sample_market(n=3000)[OHLCV]}, **{**SMALL, "profile": "smoke"})
    claims = audit_tables(result)["claims"]
    assert set(claims.verdict) <= set(VERDICTS)
    assert (
        claims.verdict["v9.direction.accuracy"] == "not reproduced"
        and claims.verdict["v9.price.mape"] == "beaten by doing nothing"
    )
    assert claims.subject["v9.direction.accuracy"] == "V9 (smoke)" and claims.n["v9.direction.accuracy"] > 250
    assert set(claims.verdict[claims.system.isin(["v2", "v3"])]) == {"not yet measured", "not testable"}
    assert (
        claims.verdict["hybrid.ensemble.roc_auc"] == "not reproduced"
        and claims.subject["hybrid.ensemble.roc_auc"] == "hybrid (smoke)"
    )
    assert claims.verdict["ultimate.backtest.sharpe"] in ("not reproduced", "beaten by doing nothing")
    assert claims.subject["ultimate.backtest.sharpe"] == "Ultimate (smoke)"
    text = audit_text(result)
    assert "SMALLEST LEAK" in text and "v9.direction.accuracy" in text and len(claims_view(claims)) == len(claims)


def test_few_trades_decide_nothing():
    "Two lucky trades reach every claim: they are shown, but decide nothing. A veto is compared with one at random."
    from cryptolab.audit.claims.measurements import trade_measurements
    from cryptolab.audit.claims.v2 import engine_measurements, losses_avoided

    few, many = (trade_measurements("v2.engine", "V2", {"win_rate": (0.5, 0.1, 0.9)}, n, "here") for n in (2, 200))
    assert (few[0]["role"], few[0]["note"], many[0]["role"]) == ("stand-in", "only 2 trades", "system")
    judged = judge_claims(claims_table(("v2",)), pd.DataFrame(few))
    assert (
        judged.verdict["v2.engine.win_rate"] == "not yet measured"
        and "only 2 trades" in judged.others["v2.engine.win_rate"]
    )
    assert judge_claims(claims_table(("v2",)), pd.DataFrame(many)).verdict["v2.engine.win_rate"] == "undecided"
    rng = np.random.default_rng(0)
    test = pd.DataFrame(
        {
            "p_bounce": rng.random(2000), "p_filter": rng.random(2000), "ret": 0.02 * rng.standard_normal(2000),
            "y": (rng.random(2000) < 0.3).astype(float),
        }
    )
    rows = pd.DataFrame(engine_measurements(test, (0.4, 0.6), 0.001, "V2", "here")).set_index(["claim", "role"])
    veto, chance = rows.value["v2.engine.fewer_losses", "system"], rows.value["v2.engine.fewer_losses", "nothing"]
    assert (
        abs(veto - chance) < 0.05
        and rows.low["v2.engine.fewer_losses", "system"] < chance < rows.high["v2.engine.fewer_losses", "system"]
    )
    assert rows.value["v2.engine.entry_rate", "system"] == ((test.p_bounce > 0.4) & (test.p_filter < 0.6)).mean()
    assert losses_avoided(np.array([[1, 1], [1, 0], [0, 0], [1, 0]]), 0) == pytest.approx(2 / 3)


def test_missing_tables_are_named_not_invented(tmp_path):
    sample_market(n=500)[OHLCV].reset_index().to_csv(tmp_path / "BTCUSDT_1h.csv", index=False)
    said = []
    assert set(load_tables(data_dir=tmp_path, log=said.append)) == {"candles"}
    assert len(said) == 3 and "BTCUSDT 15m" in said[1]


def test_command_stores_and_renders(tmp_path):
    asked = [
        "audit", "--source", "sample", "--limit", "3000", "--rows", "1200", "--windows", "2", "--seeds", "1", "--folds",
        "1", "--profile", "none", "--out", str(tmp_path), "--only", "same candle", "--only", "label SMA(10)",
    ]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "ABLATION" in done.output and "not yet measured" in done.output
    assert {p.name for p in (tmp_path / "claims").iterdir()} >= {"claims.json", "report.html", "report.ipynb"}
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    page = (tmp_path / "claims" / "report.html").read_text()
    assert "The claims of five documents, audited" in page
    assert str(tmp_path) not in (tmp_path / "claims" / "report.ipynb").read_text()
    assert audit_tables(tmp_path / "claims" / "claims.json")["claims"].shape[0] == len(claims_table())


def test_command_refuses_kindly(tmp_path):
    done = CliRunner().invoke(app, ["audit", "--data-dir", str(tmp_path / "nothing"), "--out", str(tmp_path)])
    assert done.exit_code == 1 and "Traceback" not in done.output and not (tmp_path / "claims").exists()
    done = CliRunner().invoke(
        app, ["audit", "--source", "sample", "--limit", "500", "--out", str(tmp_path), "--no-render"],
    )
    assert done.exit_code == 1 and "too few candles" in done.output


def test_stored_audit_keeps_its_promise():
    "The stored audit: honest near one half, at least three single leaks above 0.70, every claim judged."
    path = stored_audit()
    if path is None:
        pytest.skip("no stored audit")
    tables = audit_tables(path)
    lgb = tables["ablation"].xs("LightGBM", level="family")
    assert 0.50 < lgb.accuracy["honest"] < 0.56 and len(lgb.per_window["honest"]) >= 4
    assert (lgb[lgb.leak].accuracy > 0.70).sum() >= 3
    assert len(tables["claims"]) == len(claims_table()) and set(tables["claims"].verdict) <= set(VERDICTS)
    assert tables["claims"].n["v9.direction.accuracy"] >= 5000
    of_v3 = tables["claims"].verdict[tables["claims"].index.str.startswith("v3.")]
    of_ultimate = tables["claims"].verdict[tables["claims"].index.str.startswith("ultimate.")]
    assert len(of_v3) > 8 and len(of_ultimate) > 6
    assert not (pd.concat([of_v3, of_ultimate]) == "not yet measured").any()
    assert audit_module.find_study().is_file() and json.loads(path.read_text())["seconds"] < 900
    assert measurements("v9.price", "nothing", "x", {"mae": 1.0}, 5, "d")[0]["claim"] in tables["claims"].index
