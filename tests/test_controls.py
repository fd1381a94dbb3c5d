"""Controls on whole pipelines: null markets have no direction, verdicts are exact, studies resume."""
import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cryptolab.config import DataError, SettingsError
from cryptolab.data import load_candles
from cryptolab.data.market import market_truth, null_market, planted_market, sample_market
from cryptolab.audit import controls as c
from cryptolab.audit.null_markets import (
    candle_parts, chain_candles, control_market, flipped_market, shuffled_market,
)
from cryptolab.evaluation.significance import p_value_majority
from cryptolab.labels import next_direction

STORED = Path(__file__).parents[1] / "benchmarks" / "results" / "controls.json"
PRICES = ["open", "high", "low", "close"]


def reversing(n=6_000, seed=0, gap=True):
    "Candles that mostly fall after a rise, crash faster than they rise, stand still, jump, and have a gap."
    rng = np.random.default_rng(seed)
    up = np.zeros(n, bool)
    for t in range(1, n):
        up[t] = rng.random() < (0.36 if up[t - 1] else 0.70)
    sigma = 0.004 * np.exp(pd.Series(rng.standard_normal(n)).ewm(halflife=50).mean().to_numpy() * 5)
    move = np.where(up, 0.8, -1.3) * sigma * np.abs(rng.standard_normal(n)) * (rng.random(n) > 0.01)
    jump = np.where(move == 0, 0.0, 0.2 * sigma * rng.standard_normal(n))
    close = 100 * np.exp(np.cumsum(move + jump))
    open_ = np.r_[100, close[:-1]] * np.exp(jump)
    wick = np.exp(np.abs(rng.standard_normal((2, n))) * sigma)
    hours = pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC", name="open_time")
    table = pd.DataFrame(
        {
            "open": open_, "high": np.maximum(open_, close) * wick[0], "low": np.minimum(open_, close) / wick[1],
            "close": close, "volume": np.exp(rng.standard_normal(n)), "trades": 5.0,
        },
        index=hours,
    )
    return table.drop(table.index[1000:1010]) if gap else table


def moves(candles):
    return np.log(candles["close"]).diff().to_numpy()[1:]


def judged(candles, first=0):
    y = next_direction(candles)["y"].dropna()
    return y.iloc[first:]


# ---- systems to be controlled; at the top of the module, so that worker processes find them

def guess(candles, seed):
    y = judged(candles)
    return y, np.random.default_rng([seed, 7]).random(len(y)), 1


def peek(candles, seed):
    y = judged(candles)
    return y, 0.5 + 0.1 * (y - 0.5) + 0.2 * np.random.default_rng([seed, 7]).standard_normal(len(y)).clip(-2, 2), 1


def reversal_rule(candles, seed):
    y = judged(candles)
    # the majority of the judged rows themselves would make every p-value too large
    past, y = y.iloc[:1_000], y.iloc[1_000:]
    return y, (candles["close"] < candles["close"].shift(1)).astype(float)[y.index], int(past.mean() > 0.5)


def truth(candles, seed):
    y = judged(candles, 1_000)
    return y, market_truth(candles)["true_p_up"][y.index], 1


class Coin:
    "A system of the protocol: remembers what it was fitted on."

    def __init__(self, seed=0, horizon=1):
        self.seed, self.horizon = seed, horizon

    def get_params(self):
        return {"seed": self.seed, "horizon": self.horizon}

    def fit(self, candles, log=print):
        log and log("must be silent")
        self.last_ = candles.index[-1]
        return self

    def forecast(self, candles):
        table = pd.DataFrame(
            {"p_up": np.random.default_rng(self.seed).random(len(candles))}, index=candles.index,
        ).iloc[30:]
        table.attrs["horizon"] = self.horizon
        return table


# ---- the markets

def test_parts_chain_back_to_the_same_candles():
    candles = reversing()
    again = chain_candles(candle_parts(candles), candles["open"].iloc[0])
    moved = (candles["close"] != candles["close"].shift(1)).to_numpy()
    assert moved.sum() < len(candles) - 20  # some stood still; those move by the smallest step
    np.testing.assert_allclose(again[PRICES], candles[PRICES], rtol=1e-3)
    np.testing.assert_allclose(
        chain_candles(candle_parts(candles[moved]), candles["open"].iloc[0])[PRICES], candles.loc[moved, PRICES],
        rtol=1e-9,
    )


@pytest.mark.parametrize("make", [flipped_market, shuffled_market])
def test_null_markets_are_possible_candles(make):
    candles = reversing()
    market = make(candles, 3)
    assert market.index.equals(candles.index) and np.isfinite(market.to_numpy()).all() and (
        market[PRICES] > 0
    ).all().all()
    assert (
        market["high"] >= market[["open", "close"]].max(axis=1)
    ).all() and (market["low"] <= market[["open", "close"]].min(axis=1)).all()
    assert list(market.columns) == [*PRICES, "volume"] and (moves(market) != 0).all()
    assert (market_truth(market[50:])["true_p_up"] == 0.5).all()
    pd.testing.assert_frame_equal(market, make(candles, 3))
    assert not np.allclose(market["close"], make(candles, 4)["close"])


def test_flipping_mirrors_a_candle_around_its_open():
    candles = reversing(gap=False)
    market = flipped_market(candles, 1)
    inner = [np.log(t[PRICES].to_numpy()) - np.log(t[["open"]].to_numpy()) for t in (candles, market)]
    mirrored = -inner[0][:, [0, 2, 1, 3]]
    same, other = (np.isclose(inner[1], x, atol=1e-9).all(axis=1) for x in (inner[0], mirrored))
    moved = np.r_[True, moves(candles) != 0]
    assert (same | other)[moved].all() and 0.45 < same[moved].mean() < 0.55
    np.testing.assert_allclose(np.abs(moves(market))[moved[1:]], np.abs(moves(candles))[moved[1:]], atol=1e-9)
    assert market["volume"].equals(candles["volume"])


@pytest.mark.parametrize("kind", ["flipped", "shuffled"])
def test_the_reversal_of_real_candles_is_gone_and_volatility_stays(kind):
    candles = reversing(20_000)
    y, p, majority = reversal_rule(candles, 0)
    assert p_value_majority(y, p, majority) < 1e-6
    market = control_market(kind, 2, len(candles), candles)
    sign = np.sign(moves(market))
    assert abs(np.mean(sign[1:] == sign[:-1]) - 0.5) < 0.015 and abs((sign > 0).mean() - 0.5) < 0.015
    log_size = [pd.Series(np.log(np.abs(moves(t)[moves(t) != 0]))).autocorr(5) for t in (candles, market)]
    assert log_size[0] > 0.1 and log_size[1] > 0.3 * log_size[0]
    rise, fall = np.median(moves(market)[sign > 0]), -np.median(moves(market)[sign < 0])
    # falls stay faster than rises; mirroring takes that away
    assert rise / fall < 0.8 if kind == "shuffled" else abs(rise / fall - 1) < 0.07


def test_shuffled_ups_of_the_first_half_say_nothing_of_the_second():
    candles = reversing(2_000)
    up = np.array([moves(shuffled_market(candles, s)) > 0 for s in range(150)])
    halves = np.corrcoef(up[:, :1000].mean(axis=1), up[:, 1000:].mean(axis=1))[0, 1]
    assert abs(halves) < 0.25  # drawn without replacement it would be close to -1


def test_real_candles(shared_data):
    candles = load_candles("BTCUSDT", "1h", source="local", data_dir=shared_data, limit=5_000)
    for kind in ("flipped", "shuffled"):
        table = c.controls(reversal_rule, 40, kind, candles, rows=5_000, log=None)
        assert table.attrs["summary"]["ks_p_value"] > 0.01 and table.attrs["summary"]["rejections"] <= 6


# ---- verdicts

@pytest.mark.parametrize("majority", [0, 1])
def test_a_verdict_is_the_exact_test(majority):
    rng = np.random.default_rng(1)
    y, p = rng.integers(0, 2, 400), rng.random(400)
    result = c.control_result(y, p, majority)
    assert result["p_value"] == p_value_majority(y, p, majority)
    assert stats.binom.sf(result["wins"], result["contradicts"], 0.5) <= result["p_uniform"] <= result["p_value"]


def test_a_silent_system_cannot_reject_but_stays_uniform():
    drawn = [c.control_result([1, 0, 1], [0.9, 0.9, 0.9], 1, s) for s in range(500)]
    assert {r["p_value"] for r in drawn} == {1.0}
    assert stats.kstest([r["p_uniform"] for r in drawn], "uniform").pvalue > 0.01
    assert c.control_summary(pd.DataFrame(drawn))["silent"] == 500


def test_summary_counts_by_the_binomial_law():
    table = pd.DataFrame(
        {
            "p_value": np.linspace(0.0025, 0.9975, 200), "p_uniform": np.linspace(0.0025, 0.9975, 200), "p_stakes": 0.5,
            "contradicts": 9,
        }
    )
    found = c.control_summary(table)
    assert (found["rejections"], found["expected_low"], found["expected_high"]) == (10, 4, 16) and found[
        "ks_p_value"
    ] > 0.99
    assert found["rejections_stakes"] == 0 and found["ks_p_stakes"] < 0.001


def test_stakes_are_the_binomial_test_when_all_are_equal():
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 5_000)
    normal = stats.norm.sf((y.sum() - 2_500) / np.sqrt(1_250))
    assert c.p_value_stakes(y, np.full(5_000, 0.51)) == pytest.approx(normal) == pytest.approx(
        c.p_value_stakes(y, np.full(5_000, 0.9))
    )
    assert c.p_value_stakes(y, np.full(5_000, 0.5)) == 1.0


def test_stakes_that_follow_the_past_are_fair_too():
    def gambler(seed):  # always bets on a run to go on, and doubles after a loss, up to a limit
        y = np.random.default_rng(seed).integers(0, 2, 1_000)
        p = 0.5 + np.r_[0, np.where(y[:-1] == 1, 0.01, -0.01)] * np.r_[1, 1, np.where(y[1:-1] == y[:-2], 1, 4)]
        return c.p_value_stakes(y, p)
    assert stats.kstest([gambler(s) for s in range(1_000)], "uniform").pvalue > 0.01


# ---- studies

def test_honest_and_leaky_functions():
    candles = reversing()
    honest = c.controls(guess, 60, "shuffled", candles, rows=500, log=None)
    assert honest.attrs["summary"]["ks_p_value"] > 0.01 and honest.attrs["summary"]["rejections"] <= 8
    leaky = c.controls(peek, 60, "flipped", candles, rows=500, log=None)
    assert leaky.attrs["summary"]["rejections"] > 40 and leaky.attrs["summary"]["ks_p_value"] < 1e-6
    curve = np.array(c.plot_uniform({"honest": honest, "leaky": leaky}).data[2].y)
    assert (np.diff(curve) >= 0).all() and curve[40] < 0.1


def test_processes_change_nothing_and_finished_markets_are_kept(tmp_path):
    candles, lines = sample_market(n=800), []
    alone = c.controls(guess, 6, "flipped", candles, rows=800, log=None)
    first = c.controls(guess, 4, "flipped", candles, rows=800, jobs=2, work=tmp_path, log=None)
    both = c.controls(guess, 6, "flipped", candles, rows=800, jobs=2, work=tmp_path, log=lines.append)
    pd.testing.assert_frame_equal(both.drop(columns="seconds"), alone.drop(columns="seconds"))
    pd.testing.assert_frame_equal(both.head(4), first)
    assert lines[0].startswith("4 of 6 markets taken") and len(lines) == 3 and "min left" in lines[-1]
    assert not [p for p in tmp_path.iterdir() if p.suffix != ".json"]


def breaks(candles, seed):
    if seed == 2:
        raise ZeroDivisionError("as planned")
    return guess(candles, seed)


def test_an_interrupted_study_resumes(tmp_path, monkeypatch):
    with pytest.raises(ZeroDivisionError) as e:
        c.controls(breaks, 5, rows=400, work=tmp_path, log=None)
    assert "seed 2" in e.value.__notes__[0] and len(list(tmp_path.iterdir())) == 2
    keep = c.controls(guess, 2, rows=400, work=tmp_path, log=None)
    monkeypatch.setattr(c, "control_code", lambda system: "other code")
    lines = []
    c.controls(guess, 2, rows=400, work=tmp_path, log=lines.append)
    assert "taken" not in lines[0] and len(keep) == 2  # other code: nothing old is taken


@pytest.mark.parametrize(
    "change",
    [{"rows": 410}, {"kind": "flipped"}, {"system": peek}, {"system": functools.partial(guess)}, {"first_seed": 5}],
)
def test_another_study_is_another_key(tmp_path, change):
    asked = {"system": guess, "n": 1, "kind": "garch", "candles": reversing(), "rows": 400, "work": tmp_path}
    c.controls(**asked, log=None)
    c.controls(**{**asked, **change}, log=None)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_system_learns_on_the_first_rows_and_is_judged_on_the_rest():
    candles = null_market(1_000, 5)
    system = Coin(seed=77)
    y, p, majority = c.fit_and_judge(system, candles, 5, 0.7)
    assert y.index[0] == candles.index[700] and y.index[-1] == candles.index[-2] and y.index.equals(p.index)
    # a fresh system with the market's number
    np.testing.assert_array_equal(p, np.random.default_rng(5).random(1_000)[700:-1])
    assert not hasattr(system, "last_") and system.seed == 77
    assert majority == int(judged(candles.iloc[:700]).mean() > 0.5)
    assert c.controls(system, 60, rows=500, log=None).attrs["summary"]["ks_p_value"] > 0.01


def test_power_rises_with_the_edge():
    curve = c.minimum_detectable_edge(truth, (0.01, 0.03, 0.06), n=12, rows=6_000, log=None)
    assert curve["share"].is_monotonic_increasing and curve.loc[0.06, "share"] == 1 and curve.loc[0.01, "share"] < 0.7
    assert curve.attrs["smallest"] in (0.03, 0.06) and abs(curve.loc[0.06, "accuracy"] - 0.56) < 0.01
    assert (curve["low"] <= curve["share"]).all() and (curve["share"] <= curve["high"]).all()
    assert len(c.plot_power({"best": curve}).data) == 2 and (curve["share_stakes"] >= curve["share"]).all()
    assert np.isnan(c.smallest_edge(pd.Series([0.1, 0.2], index=[0.01, 0.02])))


# ---- LightGBM and V9

def test_lightgbm_finds_an_edge_and_repeats_itself():
    candles = planted_market(0.12, 5_000, seed=3)
    y, p, majority = c.lightgbm_walk_forward(candles, seed=1)
    # warm-up of the shapes (20 candles and 3 before), first stretch, last row
    assert y.index.equals(p.index) and len(y) == 5_000 - 22 - 2_000 - 1
    assert c.control_result(y, p, majority)["p_value"] < 1e-4
    pd.testing.assert_series_equal(p, c.lightgbm_walk_forward(candles, seed=1)[1])
    cut = candles.index[3_500]
    later = candles.copy()
    later.loc[later.index > cut, [*PRICES, "volume"]] *= 3
    pd.testing.assert_series_equal(p[:cut], c.lightgbm_walk_forward(later, seed=1)[1][:cut])


def test_lightgbm_on_ten_thousand_candles_judges_enough_rows():
    y, p, _ = c.lightgbm_walk_forward(null_market(10_000, 0), trees=5)
    assert len(y) >= 5_000 and p.between(0, 1).all()


def test_columns_of_the_last_candles():
    candles = sample_market(n=600)
    table = c.last_candles(candles)
    assert table.shape == (600, 40)
    np.testing.assert_allclose(table["body_1-3"], table["body_1"] - table["body_3"])
    np.testing.assert_array_equal(table["wick_2"].to_numpy()[10:], table["wick_0"].to_numpy()[8:-2])
    shape = (candles["close"] + candles["open"] - candles["high"] - candles["low"]) / (candles["high"] - candles["low"])
    np.testing.assert_allclose(table["wick_0"], shape, atol=1e-6)


def test_v9_goes_through():
    from cryptolab.systems.v9 import V9

    table = c.controls(
        V9(profile="smoke", threads=1, sizes={"direction_epochs": 1, "price_epochs": 1, "trees": 5}), 1, rows=1_000,
        log=None,
    )
    assert table["n"][0] == 1_000 - 700 - 1 and 0 <= table["p_value"][0] <= 1


# ---- refusals

@pytest.mark.parametrize("call, error, words", [
    (lambda: control_market("null"), SettingsError, "unknown kind"),
    (lambda: control_market("flipped"), DataError, "needs real candles"),
    (lambda: control_market("shuffled", rows=700, candles=sample_market(n=600)), DataError, "needs real candles"),
    (lambda: control_market("planted", edge=0.5), SettingsError, "edge"),
    (lambda: flipped_market(sample_market(n=50).drop(columns="volume")), DataError, "not a candle table"),
    (lambda: flipped_market(sample_market(n=50).assign(close=np.nan)), DataError, "no candle"),
    (
        lambda: shuffled_market(sample_market(n=50).assign(open=1.0, high=1.0, low=1.0, close=1.0)), DataError,
        "never changes",
    ),
    (lambda: c.controls(guess, 0), SettingsError, "nothing"),
    (lambda: c.controls(guess, 1, jobs=0), SettingsError, "jobs"),
    (lambda: c.controls(object(), 1), SettingsError, "no system"),
    (lambda: c.controls(guess, 1, "planted"), SettingsError, "no null market"),
    (lambda: c.controls(Coin(horizon=2), 1, rows=300, log=None), DataError, "next close"),
    (lambda: c.control_result([0, 1], [0.5], 1), DataError, "length"),
    (lambda: c.control_result([0, 1], [0.5, 1.5], 1), DataError, "probabilit"),
    (lambda: c.lightgbm_walk_forward(null_market(1_000)), DataError, "fewer rows"),
    (lambda: c.last_candles(null_market(500), ("moon",)), SettingsError, "unknown column"),
])
def test_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


# ---- what the benchmark stored

def stored(name):
    results = json.loads(STORED.read_text()) if STORED.exists() else {}
    if name not in results:
        pytest.skip(f"no result of `{name}`; `python -m benchmarks.controls` makes it")
    return results[name]


def test_stored_lightgbm_keeps_quiet():
    study = stored("LightGBM, garch")
    assert study["command"] == "python -m benchmarks.controls null" and len(study["p_values"]) == 200
    assert 3 <= sum(p < 0.05 for p in study["p_values"]) == study["summary"]["rejections"] <= 19
    assert stats.kstest(study["p_uniform"], "uniform").pvalue > 0.01
    assert 3 <= study["summary"]["rejections_stakes"] <= 19 and stats.kstest(study["p_stakes"], "uniform").pvalue > 0.01


@pytest.mark.parametrize("kind", ["flipped", "shuffled"])
def test_stored_lightgbm_keeps_quiet_on_real_candles(kind):
    study = stored(f"LightGBM, {kind}")
    assert study["data"]["symbol"] == "BTCUSDT" and len(study["p_values"]) == 60
    assert all(stats.kstest(study[p], "uniform").pvalue > 0.01 for p in ("p_uniform", "p_stakes"))
    assert max(study["summary"]["rejections"], study["summary"]["rejections_stakes"]) <= stats.binom.ppf(
        0.999, 60, 0.05
    )


def test_stored_v9_keeps_quiet():
    study = stored("V9 smoke, garch")
    assert len(study["p_values"]) == 40 and study["summary"]["rejections"] <= 6


def test_stored_power_curve():
    study = stored("LightGBM")
    curve = pd.DataFrame(study["curve"]).T.set_axis([float(e) for e in study["curve"]])
    assert list(curve.index) == list(c.EDGES) and (curve["n"] == 40).all() and study["judged_rows"] >= 5_000
    for share in (curve["share"], curve["share_stakes"]):
        # rises; two runs of noise at most
        assert share.diff().dropna().ge(-0.05).all() and share[0.06] - share[0.005] > 0.5
    assert curve.loc[0.04, "share_stakes"] >= 0.8 and curve.loc[0.06, "share"] >= 0.8
