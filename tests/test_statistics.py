"""Evaluation statistics against arch, statsmodels, scikit-learn, published examples, or a few lines by hand."""
import json
import multiprocessing as mp
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk

from cryptolab.config import DataError, SettingsError
from cryptolab.evaluation import (
    baselines, bootstrap, calibration, conformal, costs, ledger, metrics, multiple, significance, volatility,
)

sm = pytest.importorskip("statsmodels.api")
arch_bootstrap = pytest.importorskip("arch.bootstrap")


def autoregressive(rng, phi, n):
    "A column with memory."
    x, e = np.zeros(n), rng.standard_normal(n)
    for i in range(1, n):
        x[i] = phi * x[i - 1] + e[i]
    return x


@pytest.fixture(scope="module")
def losses():
    "Losses of a benchmark and five models with memory; `good` is better."
    rng, n = np.random.default_rng(11), 600
    shared = 2 + 0.3 * autoregressive(rng, 0.6, n)
    own = {f"m{i}": shared + 0.4 * rng.standard_normal(n) for i in range(4)}
    return shared, own | {"good": shared - 0.08 + 0.4 * rng.standard_normal(n)}


@pytest.fixture(scope="module")
def forecasts():
    "Outcomes and weakly informative probabilities, with ties."
    rng = np.random.default_rng(3)
    p_true = rng.beta(30, 30, 3000)
    return (rng.random(3000) < p_true).astype(float), np.round(p_true, 2)


@pytest.fixture(scope="module")
def candles():
    "Hourly candles with bursts and a daily rhythm of volatility, and one missing hour."
    rng, n = np.random.default_rng(5), 4001
    index = pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC", name="open_time")
    level = np.exp(
        0.15 * autoregressive(rng, 0.97, n) + 0.5 * np.sin(2 * np.pi * index.hour / 24) - 0.4 * (index.day_of_week >= 5)
    )
    open_ = 100 * np.exp(np.cumsum(np.r_[0, 0.004 * level[:-1] * rng.standard_normal(n - 1)]))
    close = np.r_[open_[1:], open_[-1]]
    wick = 0.002 * level * np.abs(rng.standard_normal(n))
    table = pd.DataFrame(
        {
            "open": open_, "high": np.maximum(open_, close) * (1 + wick), "low": np.minimum(open_, close) * (1 - wick),
            "close": close, "volume": 1.0,
        },
        index=index,
    )
    return table.drop(index[2500])


@pytest.fixture(scope="module")
def parkinson(candles):
    "Volatility of the next candle by decision row."
    return (np.log(candles["high"] / candles["low"]) / np.sqrt(4 * np.log(2))).shift(-1).dropna()


# ---- bootstrap

@pytest.mark.parametrize(("phi", "n"), [(0.7, 2000), (0.9, 3000)])
def test_block_length_equals_arch_where_memory_is_long(phi, n):
    for seed in range(5):
        x = autoregressive(np.random.default_rng(seed), phi, n)
        theirs = float(arch_bootstrap.optimal_block_length(x)["stationary"].iloc[0])
        # arch divides by the variance of each lag's own rows
        assert metrics.block_length(x) == pytest.approx(max(theirs, n ** (1 / 3)), rel=0.08)


def test_stationary_bootstrap_equals_arch():
    "Different random numbers, same distribution: standard error and ends of the interval."
    x = autoregressive(np.random.default_rng(0), 0.8, 1500)
    ours = bootstrap.stationary_bootstrap(x, block=25, n=3000)
    theirs = arch_bootstrap.StationaryBootstrap(25, x, seed=1)
    low, high = theirs.conf_int(np.mean, 3000, method="percentile").ravel()
    drawn = theirs.apply(np.mean, 3000)
    assert ours["value"] == pytest.approx(x.mean(), abs=1e-12)
    assert ours["error"] == pytest.approx(drawn.std(), rel=0.06)
    assert (ours["low"], ours["high"]) == pytest.approx((low, high), abs=0.08 * (high - low))


def test_bootstrap_p_value_of_a_true_null_is_uniform_enough():
    rng = np.random.default_rng(2)
    p = [
        bootstrap.stationary_bootstrap(autoregressive(rng, 0.5, 400), n=200, seed=i, null=0.0)["p_value"]
        for i in range(150)
    ]
    assert 1 <= sum(v < 0.05 for v in p) <= 18 and stats.kstest(p, "uniform").pvalue > 0.01


def test_block_interval_and_bootstrap_agree(losses):
    benchmark, _ = losses
    found = bootstrap.stationary_bootstrap(benchmark, n=500, seed=4)
    assert (found["low"], found["high"]) == metrics.block_interval(benchmark, n=500, seed=4)
    assert found == bootstrap.stationary_bootstrap(benchmark, n=500, seed=4)


def test_coins_of_one_time_are_one_event():
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(500)
    coins = np.repeat(shared, 8)
    times = pd.date_range("2024-01-01", periods=500, freq="h", tz="UTC").repeat(8)
    panel = bootstrap.stationary_bootstrap(coins, block=1, time=times, n=800)
    single = bootstrap.stationary_bootstrap(shared, block=1, n=800)
    assert panel["error"] == pytest.approx(single["error"], rel=0.1) and panel["value"] == pytest.approx(shared.mean())
    uneven = bootstrap.stationary_bootstrap(np.arange(6.0), block=1, time=[1, 1, 1, 2, 3, 3], n=200)
    assert 0 <= uneven["low"] <= uneven["high"] <= 5


def test_share_interval_is_never_narrower_than_wilson():
    rng = np.random.default_rng(0)
    for hits in (np.ones(30), np.zeros(30), (rng.random(200) < 0.6) * 1.0):
        found, plain = bootstrap.share_interval(hits), metrics.accuracy_interval(hits)
        assert found["low"] <= plain[0] and found["high"] >= plain[1] and found["share"] == pytest.approx(hits.mean())


# ---- paired tests

@pytest.mark.parametrize("horizon", [1, 14])
def test_dm_equals_a_hac_regression(losses, horizon):
    "The statistic is that of a constant with Newey-West errors, times the small-sample factor of Harvey et al."
    benchmark, models = losses
    model = models["good"]
    ours, n = significance.dm_test(model, benchmark, horizon), len(benchmark)
    fit = sm.OLS(benchmark - model, np.ones(n)).fit(cov_type="HAC", cov_kwds={"maxlags": ours["lags"]})
    small = np.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    assert ours["difference"] == pytest.approx(fit.params[0])
    assert ours["statistic"] == pytest.approx(fit.tvalues[0] * small, rel=1e-9)
    assert ours["p_value"] == pytest.approx(stats.t.sf(fit.tvalues[0] * small, n - 1), rel=1e-9)


def test_dm_by_hand():
    "Gains 1, 3, 1, 3, …: mean 2, variance 1; without lags t = 2 / sqrt(1/n) · sqrt((n - 1)/n) = 2 sqrt(n - 1)."
    gain = np.tile([1.0, 3.0], 10)
    assert significance.dm_test(np.zeros(20), gain, lags=0)["statistic"] == pytest.approx(2 * np.sqrt(19))
    once = significance.dm_test(np.zeros(20), gain, lags=1)  # autocovariance -19/20, weight 1/2: variance 1 - 0.95
    assert once["statistic"] == pytest.approx(2 / np.sqrt(0.05 / 20) * np.sqrt(19 / 20))


def test_mcnemar_equals_statsmodels(forecasts):
    from statsmodels.stats.contingency_tables import mcnemar

    y, p = forecasts
    other = np.clip(p + 0.05 * np.random.default_rng(1).standard_normal(len(p)), 0, 1)
    a, b = (p > 0.5) == y, (other > 0.5) == y
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    found = multiple.mcnemar(y, p, other)
    assert found["p_value"] == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-9)
    assert (found["a_only"], found["b_only"]) == (table[0][1], table[1][0])


def test_holm_equals_statsmodels():
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 30):
        p = np.r_[rng.random(n) ** 3, 0.02, 0.02]
        rejected, adjusted, *_ = multipletests(p, alpha=0.1, method="holm")
        found = multiple.holm(p, alpha=0.1)
        assert found["p_holm"].to_numpy() == pytest.approx(adjusted) and found["rejected"].tolist() == rejected.tolist()


# ---- whole boards

def test_spa_equals_arch(losses):
    benchmark, models = losses
    found = multiple.spa_test(benchmark, models, block=9, n=500, seed=7)
    theirs = arch_bootstrap.SPA(
        benchmark, np.column_stack(list(models.values())), block_size=9, reps=500, bootstrap="stationary", seed=7,
    )
    theirs.compute()
    assert [found[k] for k in ("p_lower", "p_value", "p_upper")] == pytest.approx(
        theirs.pvalues[["lower", "consistent", "upper"]].tolist()
    )
    assert found["best"] == "good" and found["p_value"] < 0.05
    useless = {k: v for k, v in models.items() if k != "good"}
    assert multiple.spa_test(benchmark, useless, n=300)["p_value"] > 0.05


def test_spa_of_copies_and_frames(losses):
    benchmark, models = losses
    assert multiple.spa_test(benchmark, {"copy": benchmark})["p_value"] == 1.0
    frame = multiple.spa_test(benchmark, pd.DataFrame(models), n=200)
    assert frame == multiple.spa_test(benchmark, models, n=200)
    with_copy = multiple.spa_test(benchmark, models | {"copy": benchmark}, n=200)
    assert with_copy["p_value"] == frame["p_value"]
    with pytest.raises(DataError, match="by a constant"):
        multiple.spa_test(benchmark, {"shifted": benchmark - 1})


def test_model_confidence_set_equals_arch(losses):
    _, models = losses
    found = multiple.model_confidence_set(models, level=0.9, block=9, n=500, seed=7)
    theirs = arch_bootstrap.MCS(
        pd.DataFrame(models), size=0.1, block_size=9, reps=500, bootstrap="stationary", method="R", seed=7,
    )
    theirs.compute()
    assert set(found.index[found.included]) == set(theirs.included)
    assert found["p_value"].to_dict() == pytest.approx(theirs.pvalues["Pvalue"].to_dict())
    assert found.index[0] == "good" and found["p_value"].iloc[0] == 1.0


# ---- Sharpe ratios

def test_published_examples_of_psr_and_dsr():
    "Bailey & López de Prado 2012 (24 months, SR 0.458) and 2014 (SR 2.5 a year, 1,250 days, 100, 46 and 88 trials)."
    assert multiple.psr_from_moments(0.458, 24) == pytest.approx(0.982, abs=5e-4)
    assert multiple.psr_from_moments(0.458, 24, -2.448, 10.164) == pytest.approx(0.913, abs=5e-4)
    daily, spread = 2.5 / np.sqrt(250), np.sqrt(0.5 / 250)
    assert multiple.expected_maximum_sharpe(100, spread) == pytest.approx(0.1132, abs=5e-5)
    for trials, skew, kurtosis, answer in ((100, -3, 10, 0.9004), (46, -3, 10, 0.9505), (88, 0, 3, 0.9505)):
        found = multiple.psr_from_moments(daily, 1250, skew, kurtosis, multiple.expected_maximum_sharpe(trials, spread))
        assert found == pytest.approx(answer, abs=6e-5), trials


def test_probabilistic_sharpe_of_returns_by_the_formula():
    x = np.random.default_rng(0).standard_t(5, 800) * 0.01 + 0.0008
    sr, skew, kurtosis = x.mean() / x.std(ddof=1), stats.skew(x), stats.kurtosis(x) + 3
    z = (sr - 0.02) * np.sqrt(799) / np.sqrt(1 - skew * sr + (kurtosis - 1) / 4 * sr**2)
    assert multiple.probabilistic_sharpe(x, 0.02) == pytest.approx(stats.norm.cdf(z))
    one = multiple.deflated_sharpe(x, trials=1)
    assert one["deflated"] == one["probabilistic"] and one["benchmark"] == 0


def test_expected_maximum_is_near_the_simulated_one():
    rng = np.random.default_rng(0)
    for n in (10, 100, 1000):
        assert multiple.expected_maximum_sharpe(n, 1.0) == pytest.approx(
            rng.standard_normal((2000, n)).max(axis=1).mean(), rel=0.03,
        )


def slow_pbo(returns, blocks):
    "The definition, split by split."
    from itertools import combinations

    parts, bad = np.split(returns, blocks), []
    for inside in combinations(range(blocks), blocks // 2):
        a = np.concatenate([parts[i] for i in inside])
        b = np.concatenate([parts[i] for i in range(blocks) if i not in inside])
        best = (a.mean(axis=0) / a.std(axis=0)).argmax()
        rank = stats.rankdata(b.mean(axis=0) / b.std(axis=0))[best] / (returns.shape[1] + 1)
        bad.append(np.log(rank / (1 - rank)))
    return np.array(bad)


def test_pbo_equals_the_definition():
    returns = np.random.default_rng(0).standard_normal((240, 7))
    found, expected = multiple.pbo(returns, blocks=8), slow_pbo(returns, 8)
    assert found["splits"] == 70 and found["logits"] == pytest.approx(expected) and found["pbo"] == pytest.approx(
        (expected <= 0).mean()
    )


def test_pbo_of_noise_and_of_skill():
    rng = np.random.default_rng(1)
    noise = [multiple.pbo(rng.standard_normal((400, 30)), blocks=10)["pbo"] for _ in range(30)]
    assert np.mean(noise) == pytest.approx(0.5, abs=0.1)
    skilled = rng.standard_normal((400, 30))
    skilled[:, 3] += 0.5
    assert multiple.pbo(skilled, blocks=10)["pbo"] < 0.01
    copies = multiple.pbo(np.repeat(rng.standard_normal((400, 1)), 5, axis=1), blocks=10)
    assert copies["pbo"] == 1.0 and np.isfinite(copies["slope"])  # no choice among equals: always the middle rank


# ---- calibration

def test_brier_and_log_loss_equal_scikit_learn(forecasts):
    y, p = forecasts
    brier = calibration.brier_decomposition(y, p, n_samples=50)
    assert brier["brier"] == pytest.approx(sk.brier_score_loss(y, p))
    assert brier["brier"] == pytest.approx(
        brier["reliability"] - brier["resolution"] + brier["uncertainty"] + brier["within"]
    )
    found = calibration.log_loss(y, p, n_samples=50)
    assert found["log_loss"] == pytest.approx(sk.log_loss(y, p))
    assert found["constant"] == pytest.approx(sk.log_loss(y, np.full(len(y), y.mean())))
    hindsight, training = calibration.log_loss(y, p, n_samples=50), calibration.log_loss(
        y, p, base_rate=0.4, n_samples=50,
    )
    assert training["skill"] > hindsight["skill"]  # a wrong constant is easier to beat
    assert calibration.log_loss(
        [0, 1], [1.0, 1.0], n_samples=50,
    )["log_loss"] == pytest.approx(-np.log(1e-15) / 2, rel=1e-3)


def test_brier_parts_are_exact_when_every_forecast_is_its_own_group(forecasts):
    y, p = forecasts
    p = np.clip(np.round(p, 1), 0.4, 0.6)
    found = calibration.brier_decomposition(y, p, bins=50, n_samples=50)
    groups = pd.DataFrame({"y": y, "p": p}).groupby("p")["y"].agg(["size", "mean"])
    reliability = (groups["size"] * (groups.index - groups["mean"]) ** 2).sum() / len(y)
    resolution = (groups["size"] * (groups["mean"] - y.mean()) ** 2).sum() / len(y)
    assert (found["reliability"], found["resolution"]) == pytest.approx((reliability, resolution)) and found[
        "within"
    ] == pytest.approx(0, abs=1e-12)


def test_corrected_parts_are_unbiased():
    rng, reliability, resolution, raw = np.random.default_rng(0), [], [], []
    for _ in range(200):
        p = rng.choice([0.4, 0.5, 0.6], 300)
        y = (rng.random(300) < p).astype(float)
        parts = calibration.brier_parts(y, p, np.unique(p, return_inverse=True)[1])
        reliability.append(parts["reliability_corrected"])
        resolution.append(parts["resolution_corrected"])
        raw.append(parts["reliability"])
    assert np.mean(reliability) == pytest.approx(0, abs=2.5e-4) and np.mean(raw) > 0.002
    assert np.mean(resolution) == pytest.approx(2 / 3 * 0.01, abs=6e-4)


def test_ece_against_perfect_probabilities():
    rng, low, below, p_values = np.random.default_rng(0), 0, 0, []
    for i in range(40):
        p = rng.beta(60, 60, 800)
        y = (rng.random(800) < p).astype(float)
        perfect, off = calibration.ece(y, p, n_samples=100, seed=i), calibration.ece(y, p + 0.06, n_samples=100, seed=i)
        low += perfect["low"] == 0 and perfect["high"] > 0
        below += off["low"] <= 0.06 <= off["high"]
        p_values.append(perfect["p_value"])
        assert off["ece"] == pytest.approx(0.06, abs=0.05)
    assert low >= 36 and below >= 36 and sum(v < 0.05 for v in p_values) <= 7


def test_top_decile_by_hand(forecasts):
    y, p = forecasts
    found = calibration.top_decile_accuracy(y, p)
    sure = np.abs(p - 0.5) >= np.quantile(np.abs(p - 0.5), 0.9) - 1e-9
    assert found["n"] == sure.sum() and found["accuracy"] == pytest.approx(((p > 0.5) == y)[sure].mean())
    fixed = calibration.top_decile_accuracy(y, p, threshold=0.1)
    assert fixed["n"] == (np.abs(np.round(p - 0.5, 12)) >= 0.1).sum() and fixed["threshold"] == 0.1
    with pytest.raises(DataError, match="that confident"):
        calibration.top_decile_accuracy(y, p, threshold=0.5)


def test_delayed_entry_by_hand():
    rng, n = np.random.default_rng(0), 400
    quarter = pd.DataFrame({"close": 100 * np.exp(np.cumsum(0.001 * rng.standard_normal(n * 4)))},
                           index=pd.date_range("2024-01-01", periods=n * 4, freq="15min", tz="UTC", name="open_time"))
    hourly = quarter.resample("1h").last()
    p = pd.Series(rng.random(n), index=hourly.index)
    holes = quarter.drop(quarter.index[[4 * 51, 4 * 61 + 1]])  # the first quarter of hour 51, the second of hour 61
    table = calibration.delayed_entry(p, hourly, holes, delays=(0, 1, 2), n_samples=50)
    log = np.log(quarter["close"].to_numpy())
    kept = np.setdiff1d(np.arange(n - 1), [50, 60])
    for d in (0, 1, 2):
        ret = log[4 * kept + 7] - log[4 * kept + 3 + d]
        assert table.gross_bp[d] == pytest.approx(1e4 * (np.sign(p.to_numpy()[kept] - 0.5) * ret).mean())
        assert table.accuracy[d] == pytest.approx(((p.to_numpy()[kept] > 0.5) == (ret > 0)).mean())
    assert table.attrs["dropped"] == 3 and (table.n == len(kept)).all() and table.entry[2] == pd.Timedelta("30min")


# ---- costs

def test_costs_equal_the_board():
    from cryptolab.evaluation.comparison import sign_strategy

    rng = np.random.default_rng(0)
    returns, p = 0.01 * rng.standard_normal(500), np.round(rng.random(500), 1)
    position = costs.sign_position(p)
    expected = sign_strategy(returns, p)
    assert costs.gross_edge(returns, position)["gross_bp"] == pytest.approx(expected["gross_bp"])
    assert costs.position_turnover(position)["turnover"] == pytest.approx(expected["turnover"])
    assert costs.position_break_even(returns, position)["break_even_bp"] == pytest.approx(expected["break_even_bp"])


def test_costs_at_break_even_leave_nothing():
    rng = np.random.default_rng(1)
    position = np.repeat(rng.choice([-1.0, 0, 1], 200), 5)
    returns = 0.01 * rng.standard_normal(1000) + 0.002 * position
    limit = costs.position_break_even(returns, position)
    assert costs.net_edge(returns, position, limit["break_even_bp"] / 1e4)["net_bp"] == pytest.approx(0, abs=1e-9)
    assert limit["low"] < limit["break_even_bp"] < limit["high"]


@pytest.mark.parametrize("position", [np.tile([1.0, -1.0], 100), np.r_[np.ones(50), np.zeros(150)], np.ones(20),
                                      np.random.default_rng(0).choice([-1.0, 0, 0.5], 300)])
def test_random_entries_keep_turnover_and_exposure(position):
    found = costs.random_entries(position, n=30, seed=2)
    units = np.abs(np.diff(found, axis=1, prepend=0)).sum(axis=1)
    assert (np.sort(found, axis=1) == np.sort(position)).all()
    assert np.abs(units - np.abs(np.diff(position, prepend=0)).sum()).max() <= 2 * np.ptp(np.r_[0, position])
    assert (found == costs.random_entries(position, n=30, seed=2)).all()


def test_random_entries_are_a_fair_null():
    "Positions that know nothing get uniform p-values, also in a rising market."
    rng, p = np.random.default_rng(0), []
    for i in range(150):
        returns = 0.01 * rng.standard_normal(300) + 0.001
        position = np.repeat(rng.choice([0.0, 1.0], 60, p=[0.3, 0.7]), 5)
        p.append(costs.edge_among_random_entries(returns, position, 60, i)[1])
    assert stats.kstest(p, "uniform").pvalue > 0.01


# ---- volatility

def test_log_har_equals_statsmodels(candles, parkinson):
    train = parkinson.iloc[200:3000]
    found = volatility.log_har(candles, train, bars=(1, 24, 168))
    variance = (np.log(candles["high"] / candles["low"]) ** 2) / (4 * np.log(2))
    X = pd.DataFrame({k: np.log(np.sqrt(variance.rolling(k, min_periods=1).mean())) for k in (1, 24, 168)})
    coming = candles.index + pd.Timedelta("1h")
    dummies = pd.get_dummies(pd.Series(coming.hour, index=candles.index), drop_first=True).astype(float).add_prefix("h")
    X = sm.add_constant(X.join(dummies).assign(weekend=(coming.day_of_week >= 5) * 1.0))
    X.columns = X.columns.astype(str)
    fit = sm.OLS(np.log(train), X.loc[train.index]).fit()
    expected = np.exp(X @ fit.params) * np.exp(fit.resid).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    y = parkinson.iloc[3001:]
    plain = volatility.log_har(candles, train, season=False)
    assert metrics.qlike_loss(y, found[y.index]).mean() < metrics.qlike_loss(y, plain[y.index]).mean()


def test_garch_equals_arch(candles, parkinson):
    from arch import arch_model

    train = parkinson.iloc[200:2400]  # before the missing hour
    found = volatility.garch(candles, train)
    returns = np.log(candles["close"]).diff()[: train.index[-1]].dropna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = arch_model(100 * returns, mean="Constant", vol="GARCH", p=1, q=1, rescale=False).fit(disp="off")
    # at row t the forecast for t + 1, once the start is forgotten
    ahead = theirs.conditional_volatility.shift(-1).dropna()[300:]
    ratio = (found[ahead.index] / ahead).to_numpy()
    assert ratio.std() / ratio.mean() < 0.02
    several = volatility.garch(candles, train, ahead=5)
    assert several.std() < found.std() and (several > 0).all()


def test_seasonal_naive_looks_back_on_the_clock(candles):
    found = baselines.seasonal_naive(candles["close"], "1D")
    for row in (30, 2600, 4000 - 1):
        t = candles.index[row]
        assert found.iloc[row] == candles["close"][t - pd.Timedelta("23h")]
    gap = pd.date_range("2024-01-01", periods=4001, freq="h", tz="UTC")[2500]
    assert np.isnan(found[gap + pd.Timedelta("23h")]) and found.isna().sum() == 24
    mean = baselines.seasonal_naive(candles["close"], "1D", ahead=3)
    t = candles.index[100]
    assert mean[t] == pytest.approx(candles["close"][t - pd.Timedelta("23h") : t - pd.Timedelta("21h")].mean())


@pytest.mark.parametrize("forecast", [volatility.seasonal_vol, volatility.log_har, volatility.garch])
def test_volatility_forecasts_do_not_see_the_future(candles, parkinson, forecast):
    train, other = parkinson.iloc[200:2400], candles.copy()
    other.iloc[3000:, :4] *= np.linspace(1, 3, len(candles) - 3000)[:, None]
    pd.testing.assert_series_equal(forecast(candles, train).iloc[:3000], forecast(other, train).iloc[:3000])


@pytest.mark.parametrize("log", [False, True])
def test_mincer_zarnowitz_equals_statsmodels(log):
    rng = np.random.default_rng(0)
    f = 0.01 * np.exp(0.3 * autoregressive(rng, 0.8, 700))
    y = f * np.exp(0.3 * autoregressive(rng, 0.5, 700))
    found = volatility.mincer_zarnowitz(y, f, log=log, horizon=5)
    a, b = (np.log(y), np.log(f)) if log else (y, f)
    fit = sm.OLS(a, sm.add_constant(b)).fit(cov_type="HAC", cov_kwds={"maxlags": found["lags"]})
    wald = fit.wald_test((np.eye(2), [0, 1]), use_f=False, scalar=True)
    assert [found["intercept"], found["slope"]] == pytest.approx(fit.params.tolist(), rel=1e-8)
    assert [found["intercept_error"], found["slope_error"]] == pytest.approx(fit.bse.tolist(), rel=1e-6)
    assert (found["r2"], found["p_value"]) == pytest.approx((fit.rsquared, float(wald.pvalue)), rel=1e-6)


def test_mase_is_the_ratio_that_price_metrics_shows():
    rng = np.random.default_rng(0)
    path = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(401)))
    close, after = path[:-1], path[1:]
    forecast = close * np.exp(0.003 * rng.standard_normal(400))
    found, shown = metrics.mase(after, forecast, close), metrics.price_metrics(close, after, forecast)
    assert (found["mase"], found["low"], found["high"]) == (shown["mase"], shown["mase_low"], shown["mase_high"])
    assert found["mase"] == pytest.approx(
        sk.mean_absolute_error(after, forecast) / sk.mean_absolute_error(after, close)
    )


# ---- real candles

@pytest.mark.data
def test_real_candles_give_the_expected_orders_of_size(shared_data):
    "Hourly bitcoin: the season helps log-HAR, GARCH is worse, and a late entry costs a part of the reversal's edge."
    read = lambda name: pd.read_parquet(
        shared_data / f"{name}.parquet"
    ).set_index("timestamp").rename_axis("open_time")[["high", "low", "close"]].astype(float)
    hourly, quarter = read("BTCUSDT_1h").iloc[-14000:], read("BTCUSDT_15m")
    y = (np.log(hourly["high"] / hourly["low"]) / np.sqrt(4 * np.log(2))).shift(-1).dropna()
    train, test = y.iloc[200:9000], y.iloc[9001:]
    test = test[test > 0]
    found = {
        "timed": volatility.log_har(hourly, train), "plain": volatility.log_har(hourly, train, season=False),
        "garch": volatility.garch(hourly, train), "seasonal": volatility.seasonal_vol(hourly, train).clip(lower=1e-5),
    }
    scores = {name: metrics.volatility_metrics(test, f[test.index]) for name, f in found.items()}
    assert 0.2 < scores["timed"]["r2"] < 0.5
    assert scores["timed"]["qlike"] < scores["plain"]["qlike"] < scores["garch"]["qlike"] < scores["seasonal"]["qlike"]
    assert 0.4 < volatility.mincer_zarnowitz(test, found["timed"][test.index], log=True)["r2"] < 0.6
    against = (np.log(hourly["close"]).diff().dropna() < 0).astype(float)
    late = calibration.delayed_entry(against, hourly.iloc[1:], quarter, delays=(0, 1), n_samples=100)
    assert (
        0.52 < late.accuracy[0] < 0.55
        and late.accuracy[0] > late.accuracy[1] + 0.004
        and late.gross_bp[0] > late.gross_bp[1]
    )
    assert late.attrs["dropped"] <= 5


# ---- conformal

def test_split_interval_covers_what_it_promises():
    rng, inside = np.random.default_rng(0), []
    for _ in range(300):
        sigma = np.exp(0.5 * rng.standard_normal(60))
        y = sigma * rng.standard_t(4, 60)
        t = conformal.split_interval(np.zeros(40), y[:40], np.zeros(20), sigma[:40], sigma[40:], level=0.8)
        inside.append(((t.lower <= y[40:]) & (y[40:] <= t.upper)).mean())
    assert np.mean(inside) == pytest.approx(33 / 41, abs=0.015)  # rank ceil(41 · 0.8) = 33 of 41


def test_adaptive_interval_follows_the_update_rule():
    rng = np.random.default_rng(0)
    y, past, rate = rng.standard_normal(300), rng.standard_normal(100), 0.05
    found = conformal.AdaptiveInterval(0.8, rate, window=100, horizon=3).fit(np.zeros(100), past).run(np.zeros(300), y)
    asked, scores = 0.8, list(np.abs(past))
    for t in range(300):
        if t >= 3:
            missed = not found.lower[t - 3] <= y[t - 3] <= found.upper[t - 3]
            asked += rate * (missed - 0.2)
            scores = (scores + [abs(y[t - 3])])[-100:]
        rank = min(max(int(np.ceil(101 * asked - 1e-9)), 1), 100)
        assert found.level[t] == pytest.approx(asked) and found.upper[t] == pytest.approx(np.sort(scores)[rank - 1])


def test_adaptive_interval_holds_its_promise_where_the_split_one_does_not():
    rng = np.random.default_rng(1)
    scale = np.exp(np.cumsum(0.01 * rng.standard_normal(6000)))
    y = scale * rng.standard_normal(6000)
    moving = conformal.AdaptiveInterval(0.9).fit(np.zeros(500), y[:500]).run(np.zeros(5500), y[500:])
    found = metrics.interval_coverage(y[500:], moving.lower, moving.upper)["coverage"]
    assert found == pytest.approx(0.9, abs=0.01)
    assert conformal.coverage_over_time(y[500:], moving.lower.to_numpy(), moving.upper.to_numpy()).coverage.min() > 0.83


def test_unknown_outcomes_teach_nothing():
    y = np.random.default_rng(0).standard_normal(200)
    holes = y.copy()
    holes[50:60] = np.nan
    found = conformal.AdaptiveInterval(0.9).fit(np.zeros(100), y[:100]).run(np.zeros(200), holes)
    assert np.isfinite(found.to_numpy()).all() and found.level[51:61].nunique() == 1


def test_coverage_over_time_by_hand():
    index = pd.date_range("2024-01-01", periods=6, freq="h", tz="UTC")
    y = pd.Series([0.0, 2, 0, 2, 2, 0], index=index)
    table = conformal.coverage_over_time(y, y * 0 - 1, y * 0 + 1, window=3)
    assert (
        table.coverage.tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 3, 1 / 3])
        and table.index[0] == index[2]
        and (table.width == 2).all()
    )
    figure = conformal.plot_coverage({"x": table}, level=0.9)
    assert json.loads(figure.to_json())["data"][0]["x"][0] == "2024-01-01 02:00"


# ---- ledger

def _write_many(path, name, n):
    "One process of the test below."
    book = ledger.TrialLedger(path)
    for i in range(n):
        book.record("data", {"process": name, "i": i}, score=i / n, note="ü" * 300)


def _knock(path, entry, results):
    "Try to open the gate once."
    try:
        ledger.TrialLedger(path).gate("last year", entry, lambda: True)
        results.put(1)
    except DataError:
        results.put(0)


def test_two_processes_write_one_ledger(tmp_path):
    path, context = tmp_path / "deep" / "trials.jsonl", mp.get_context("fork" if sys.platform != "win32" else "spawn")
    writers = [context.Process(target=_write_many, args=(path, name, 40)) for name in "ab"]
    [w.start() for w in writers]
    [w.join(60) for w in writers]
    book = ledger.TrialLedger(path)
    assert all(w.exitcode == 0 for w in writers) and book.count("data") == 80 and book.check().empty
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    entry, results = book.trials()["id"].iloc[0], context.Queue()
    knocks = [context.Process(target=_knock, args=(path, entry, results)) for _ in range(4)]
    [k.start() for k in knocks]
    assert sum(results.get(timeout=60) for _ in knocks) == 1
    [k.join(60) for k in knocks]
    assert len(book.gates("data")) == 1 and book.gates()["passed"].tolist() == [True]


@pytest.mark.parametrize("cut", [1, 5, 60, 200])
def test_a_truncated_last_line_costs_one_line_only(tmp_path, cut):
    book = ledger.TrialLedger(tmp_path / "trials.jsonl")
    for i in range(3):
        book.record("data", {"i": i, "text": "ü" * 40}, score=0.5)
    whole = book.path.read_bytes()
    book.path.write_bytes(whole[:-cut])
    left = 3 if cut == 1 else 2  # only the line's end is missing
    assert book.count("data") == left
    book.record("data", {"i": 9}, score=0.6)
    assert book.count("data") == left + 1 and book.path.read_bytes().startswith(whole[:-cut])  # append only
    assert book.check()["problem"].tolist() == ([] if cut == 1 else ["damaged"])


def test_changed_and_removed_lines_are_seen(tmp_path):
    book = ledger.TrialLedger(tmp_path / "trials.jsonl")
    for i in range(5):
        book.record("data", {"i": i}, score=i / 10)
    lines = book.path.read_bytes().splitlines(keepends=True)
    book.path.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert book.check()["line"].tolist() == [3]
    book.path.write_bytes(b"".join(lines).replace(b'"score": 0.1', b'"score": 0.9'))
    assert book.check()["line"].tolist() == [3]


def test_the_ledger_counts_configurations_and_deflates(tmp_path):
    rng, book = np.random.default_rng(0), ledger.TrialLedger(tmp_path / "trials.jsonl")
    returns, ratios = 0.01 * rng.standard_normal((1000, 30)), []
    for i, column in enumerate(returns.T):
        ratios.append(multiple.sharpe_ratio(column))
        book.record(
            "data", {"i": i, "rate": np.float32(0.1), "sizes": (1, 2)}, score=np.float64(ratios[-1]), sharpe=ratios[-1],
        )
    # the same once more
    book.record("data", {"sizes": [1, 2], "rate": np.float32(0.1), "i": 3}, score=ratios[3], sharpe=ratios[3])
    book.record("other", {"i": 1}, score=None)
    best = int(np.argmax(ratios))
    found = book.deflate("data", returns[:, best])
    expected = multiple.deflated_sharpe(returns[:, best], 30, np.std(ratios, ddof=1))
    assert (found["trials"], book.count("other")) == (30, 1) and found["deflated"] == pytest.approx(
        expected["deflated"]
    )
    assert found["deflated"] < 0.9 < found["probabilistic"]
    assert book.deflate("data", returns[:, best], correlation=0.9)["effective"] == pytest.approx(0.9 + 0.1 * 30)


def test_a_gate_opens_once_per_configuration(tmp_path):
    book, asked = ledger.TrialLedger(tmp_path / "trials.jsonl"), []
    entry = book.record("data", {"model": "a"}, score=0.5)
    check = lambda: asked.append(1) or {"passed": np.bool_(False), "accuracy": 0.51}
    assert book.gate("last year", entry, check) == {"passed": False, "accuracy": 0.51}
    for again in (entry, book.record("data", {"model": "a"}, score=0.9)):
        with pytest.raises(DataError, match="already opened.*\n.*\n.*passed: False"):
            book.gate("last year", again, check)
    assert len(asked) == 1
    book.gate("another gate", entry, check)
    book.gate("last year", book.record("data", {"model": "b"}, score=0.5), lambda: True)
    assert book.gates("data")["passed"].tolist() == [False, False, True]


# ---- bad input

SERIES = pd.Series(np.arange(40.0), index=pd.date_range("2024-01-01", periods=40, freq="h", tz="UTC"))
TWICE, CLOSES = SERIES.set_axis(SERIES.index[[0] * 2 + list(range(2, 40))]), SERIES.to_frame("close")


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: metrics.direction_metrics((SERIES % 2).iloc[::-1], np.full(40, 0.5)), DataError, "not in time order"),
    (lambda: costs.gross_edge(TWICE, np.ones(40)), DataError, "not in time order"),
    (lambda: costs.gross_edge(SERIES, SERIES.shift(1, freq="h")), DataError, "belong to different rows"),
    (lambda: costs.sign_position([0.5, 1.2]), DataError, "not a probability in row 1"),
    (lambda: costs.random_entries([1.0, np.nan]), DataError, "not a number in row 1"),
    (lambda: costs.cost_comparison(SERIES, {}), DataError, "no strategy"),
    (lambda: calibration.brier_decomposition(np.ones(30), np.full(30, 0.6)), DataError, "one class only"),
    (lambda: calibration.ece([0, 1], [0.5, -0.1]), DataError, "not a probability in row 1"),
    (lambda: calibration.top_decile_accuracy([0, 1], [0.5, 0.6], share=0), SettingsError, "confident rows"),
    (lambda: calibration.delayed_entry(SERIES / 100, CLOSES, CLOSES.iloc[::-1]), DataError, "no usable clock"),
    (lambda: bootstrap.stationary_bootstrap([]), DataError, "wrong shape"),
    (lambda: bootstrap.stationary_bootstrap(np.ones(5), level=95), SettingsError, "level"),
    (lambda: bootstrap.stationary_bootstrap(np.ones(5), time=[1, 2, 3]), DataError, "`time` does not fit"),
    (lambda: bootstrap.bootstrap_rows(0, 1), SettingsError, "at least 1"),
    (lambda: multiple.holm([0.1, np.nan]), DataError, "not a number in row 1"),
    (lambda: multiple.mcnemar([0, 1], [0.5, 0.6], [0.5]), DataError, "different length"),
    (lambda: multiple.model_confidence_set({"a": np.ones(50)}), DataError, "too few models"),
    (lambda: multiple.spa_test(np.ones(5), {"a": np.ones(5)}), DataError, "too few rows"),
    (lambda: multiple.pbo(np.ones((100, 1))), DataError, "at least 2"),
    (lambda: multiple.pbo(np.random.rand(30, 3)), SettingsError, "blocks"),
    (lambda: multiple.sharpe_ratio([0.1, 0.1, 0.1]), DataError, "vary"),
    (lambda: multiple.expected_maximum_sharpe(0, 1.0), SettingsError, "trials"),
    (lambda: conformal.conformal_quantile([1.0, 2.0], 0.9), DataError, "too few calibration rows"),
    (lambda: conformal.split_interval([0.0] * 10, [1.0] * 10, [0.0], [1.0] * 10, [0.0], 0.5), DataError, "above zero"),
    (lambda: conformal.coverage_over_time([0.0], [1.0], [0.0], 1), DataError, "upside down"),
    (lambda: volatility.mincer_zarnowitz(SERIES, SERIES * 0), DataError, "nothing to regress"),
    (lambda: volatility.mincer_zarnowitz(SERIES, SERIES, log=True), DataError, "no logarithm"),
    (lambda: baselines.seasonal_naive(SERIES.iloc[::-1]), DataError, "not in order"),
    (lambda: baselines.seasonal_naive(SERIES, "90min"), SettingsError, "season"),
    (lambda: metrics.mase([1.0, 2.0], [1.0, 2.0], [1.0, 2.0]), DataError, "never errs"),
    (lambda: ledger.TrialLedger("."), SettingsError, "is a folder"),
    (lambda: ledger.TrialLedger("no/such.jsonl").deflate("x", SERIES), DataError, "no trial"),
])
def test_bad_input_is_refused(call, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        call()


def test_a_missing_arch_is_named(monkeypatch, losses, candles, parkinson):
    benchmark, models = losses
    for name in [m for m in sys.modules if m.split(".")[0] == "arch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "arch", None)
    with pytest.raises(SettingsError, match="package `arch`"):
        multiple.spa_test(benchmark, models)
    with pytest.raises(SettingsError, match="package `arch`"):
        volatility.garch(candles, parkinson.iloc[:1000])


# ---- one conformal quantile for the system and for the report

@pytest.mark.parametrize("percent", [55, 80, 90, 95])
def test_conformal_rank_is_exact_for_every_number_of_rows(percent):
    "(n + 1) · 0.55 is 55.00000000000001 for n = 99 in floating point; a rank that believes it covers too much."
    from fractions import Fraction

    from cryptolab.systems.v9.ensemble import conformal_width

    level, exact = percent / 100, Fraction(percent, 100)
    for n in range(1, 3001):
        rank = -((-(n + 1) * exact).__floor__())
        if rank <= n:
            scores = np.arange(1.0, n + 1)
            assert conformal.conformal_quantile(scores, level) == rank, n
            assert conformal_width(scores, np.zeros(n), np.ones(n), level) == rank, n
