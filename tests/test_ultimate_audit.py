"Ultimate in the audit room: its pipeline with planted leaks, its claims with a system whose forecasts are known."
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cryptolab.audit.claims import ultimate
from cryptolab.audit.claims.claims import claims_table, judge_claims
from cryptolab.audit.leaks.audit import audit_pipeline
from cryptolab.audit.pipelines.ultimate import ultimate_pipeline
from cryptolab.data import sample_market
from cryptolab.labels import scaled_direction

OHLCV = ["open", "high", "low", "close", "volume"]


# ---- the pipeline

# that the honest pipeline, network included, has no finding stands in the lesson, nbs/75_audit/50_pipelines/50_ultimate

def share_of_rises(X, y):
    "A learner that costs nothing: these faults lie in front of the network."
    return float(np.mean(y))


def honest(steps):
    return {}


def scaled_on_all_rows(steps):
    def prepare(features, labels, train, test):
        spread = features.std()
        return (features - features.mean()) / spread.where(spread > 0, 1.0), labels

    return {"prepare": prepare}


def label_among_the_columns(steps):
    def features(candles):
        return steps["features"](candles).assign(ahead=candles["close"].shift(-1) / candles["close"] - 1)

    return {"features": features}


@pytest.mark.parametrize("fault, kind", [
    (honest, None), (scaled_on_all_rows, "fit on test rows"), (label_among_the_columns, "feature look-ahead"),
])
def test_planted_leaks_are_found(fault, kind):
    made = ultimate_pipeline(window=2)
    cheap = {"fit": share_of_rises, "predict": lambda model, X: np.full(len(X), model)}
    planted = type(made)(**made.steps | cheap | fault(made.steps))
    found = audit_pipeline(planted, sample_market(n=500)[OHLCV], seconds=0.1)
    assert kind in set(found.kind) if kind else not len(found), found


# ---- the claims

class Known:
    "A system that knows the three classes of its test rows, is never sure of a side, and has real heads."

    def __init__(self, **params):
        from cryptolab.models.multi_task import MultiTaskLearningHead

        self.width, self.seed, self.coins_ = 0.5, params["seed"], ["BTCUSDT", *params["pool"]]
        self.models_ = {"network": SimpleNamespace(heads=MultiTaskLearningHead(3, 4))}

    def fit(self, candles, pool=None, log=None):
        cuts = (300, int(0.5 * len(candles)), int(0.6 * len(candles)), len(candles) - 20)
        self.parts = {
            name: candles.index[a:b] for name, a, b in zip(("train", "val", "test"), cuts[:-1], cuts[1:])
        }
        return self

    def rows(self, part):
        return self.parts[part]

    def chosen_sizes(self):
        return {"meta_steps": 2}

    def forecast(self, candles):
        y, close = scaled_direction(candles)["y"].fillna(0.0).to_numpy() + 1, candles["close"]
        p = 0.5 + 0.1 * np.random.default_rng(0).uniform(-1, 1, len(y))
        names = "down", "sideways", "up"
        table = pd.DataFrame({f"class_{k}": (y == i) * 1.0 for i, k in enumerate(names)}, close.index)
        return table.assign(
            p_up=p, confidence=np.maximum(p, 1 - p), action=0, size=0.01, stop_by=0.02 * close, target_by=0.04 * close,
            timeout=10, reason="BELOW_CONFIDENCE",
        )


def known_states(system, candles):
    "States that say nothing."
    rows = candles.index[300:-20]
    return np.random.default_rng(1).standard_normal((len(rows), 3)).astype("float32"), rows


def test_each_claim_is_measured_and_a_silent_account_says_so(monkeypatch):
    monkeypatch.setattr("cryptolab.systems.ultimate.system.Ultimate", Known)
    monkeypatch.setattr(ultimate, "_head_states", known_states)
    monkeypatch.setattr(ultimate, "EXAMPLES", (10, 50))
    candles = sample_market(n=3_000)[OHLCV]
    rows = pd.DataFrame(ultimate.ultimate_measurements(candles, {"ETHUSDT": candles}, "smoke"))
    judged = judge_claims(claims_table(("ultimate",)), rows)
    assert not (judged.verdict == "not yet measured").any()
    assert judged.measured["ultimate.direction.accuracy"] == 1.0
    others = rows.set_index(["claim", "subject"])["value"]
    assert others["ultimate.direction.accuracy", "commonest class"] < 0.7
    assert 0.35 < others["ultimate.direction.accuracy", "side of p_up"] < 0.65
    assert "0 trades at the system's threshold; lowered to" in judged.note["ultimate.backtest.sharpe"]
    assert judged.verdict["ultimate.backtest.max_drawdown"] == "beaten by doing nothing"
    assert judged.measured["ultimate.adaptation.examples"] in (10, 50, 51)
    assert judged.n["ultimate.adaptation.examples"] >= ultimate.LEAST_CHANGES
    assert judged.subject["ultimate.direction.accuracy"] == "Ultimate (smoke; BTCUSDT, ETHUSDT)"


def test_a_change_of_regime_is_used_once_and_looks_at_nothing_later():
    now = np.random.default_rng(0).integers(0, 2, 300).repeat(np.random.default_rng(1).integers(1, 40, 300))
    found = ultimate.regime_moments(now)
    assert len(found) > 20 and np.diff(found).min() >= 34 and found[-1] + 24 <= len(now)
    for t in found:
        assert (now[t - 10 : t] == now[t - 1]).all() and now[t - 11] != now[t - 10]
    changed = np.where(np.arange(len(now)) < found[9], now, 7)
    assert ultimate.regime_moments(changed)[:10].tolist() == found[:10].tolist()


def test_the_smallest_number_that_helps():
    without = np.random.default_rng(0).uniform(0.9, 1.1, 30)
    gains = {10: -0.1, 50: 0.0, 100: 0.05, 500: -0.2}
    adapted = {0: without} | {n: without - gain for n, gain in gains.items()}
    assert ultimate.enough_examples(adapted, without)[0] == 100
    assert ultimate.enough_examples({n: adapted[n] for n in (0, 10, 50)}, without)[0] == 51
    assert ultimate.enough_examples(adapted, without - 1)[0] == 501


def test_adapting_takes_the_rows_before_and_judges_those_after():
    "Heads of one moment may know the rows before it alone."
    from cryptolab.models.multi_task import MultiTaskLearningHead

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 3)).astype("float32"), rng.integers(0, 3, 200).astype("float32")
    plain, _ = ultimate.meta_heads(MultiTaskLearningHead(3, 4), [])
    moments = np.array([60, 120])
    found = ultimate.adapted_losses(plain, x, y, moments, (10,))
    other = y.copy()
    other[84:110] = (y[84:110] + 1) % 3  # between the judged rows of the first moment and the ten of the second
    again = ultimate.adapted_losses(plain, x, other, moments, (10,))
    assert np.array_equal(found[0], again[0]) and np.array_equal(found[10], again[10])
    other[110:120] = 2 - y[110:120]  # the ten rows themselves
    again = ultimate.adapted_losses(plain, x, other, moments, (10,))
    assert found[10][0] == again[10][0] and found[10][1] != again[10][1] and np.array_equal(found[0], again[0])
    p = np.asarray(plain.base_model(x[60:84])["price_direction"])
    assert found[0][0] == pytest.approx(-np.log(p[np.arange(24), y[60:84].astype(int)]).mean(), rel=1e-5)
