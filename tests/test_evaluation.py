"""Metrics, significance, baselines and plots against scikit-learn, SciPy, statsmodels, or a few lines by hand."""
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk

from cryptolab.config import DataError, SettingsError
from cryptolab.evaluation import baselines, metrics, significance
from cryptolab.labels.targets import natr_future, natr_next, true_range, wilder_mean

sm = pytest.importorskip("statsmodels.api")


def autoregressive(rng, phi, n):
    "A column with memory."
    x, e = np.zeros(n), rng.standard_normal(n)
    for i in range(1, n):
        x[i] = phi * x[i - 1] + e[i]
    return x


@pytest.fixture(scope="module")
def forecasts():
    "Outcomes and weakly informative probabilities, with ties."
    rng = np.random.default_rng(3)
    p_true = rng.beta(20, 20, 1491)
    return (rng.random(1491) < p_true).astype(float), np.round(
        np.clip(p_true + 0.02 * rng.standard_normal(1491), 0, 1), 3,
    )


@pytest.fixture(scope="module")
def candles():
    "Hourly candles with slow and fast waves of volatility."
    rng, n = np.random.default_rng(5), 5000
    slow = pd.Series(rng.standard_normal(n)).ewm(halflife=150).mean().to_numpy() * 10
    sigma = 0.004 * np.exp(0.4 * slow)
    open_ = 100 * np.exp(np.cumsum(np.r_[0, sigma[:-1] * rng.standard_normal(n - 1)]))
    close = np.r_[open_[1:], open_[-1]]
    wick = sigma * np.abs(rng.standard_normal(n))
    index = pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC", name="open_time")
    return pd.DataFrame(
        {
            "open": open_, "high": np.maximum(open_, close) * (1 + wick), "low": np.minimum(open_, close) * (1 - wick),
            "close": close, "volume": 1.0,
        },
        index=index,
    )


# ---- direction

def test_scores_of_a_cut_forecast_and_of_an_error_equal_scikit_learn_to_the_last_bit(forecasts):
    y, p = forecasts
    for cut in (0.4, 0.5, 2.0):  # 2: nothing is forecast to rise
        up = p > cut
        precision, recall, f1, _ = sk.precision_recall_fscore_support(y, up, average="binary", zero_division=0)
        assert list(metrics.confusion_scores(y, up).values()) == [sk.accuracy_score(y, up), precision, recall, f1]
    assert metrics.roc_auc(y, p) == sk.roc_auc_score(y, p) and metrics.roc_auc(np.ones(5), p[:5]) is None
    level, forecast = 1 + p, 1 + p * 0.9
    found = metrics.error_scores(level, forecast)
    assert found["r2"] == sk.r2_score(level, forecast) and found["mae"] == pytest.approx(np.mean(0.1 * p))
    assert found["mape"] == pytest.approx(sk.mean_absolute_percentage_error(level, forecast))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(level, forecast))


def test_direction_metrics_equal_scikit_learn(forecasts):
    y, p = forecasts
    m, up = metrics.direction_metrics(y, p), p > 0.5
    expected = {
        "accuracy": sk.accuracy_score(y, up), "precision": sk.precision_score(y, up), "recall": sk.recall_score(y, up),
        "f1": sk.f1_score(y, up), "roc_auc": sk.roc_auc_score(y, p), "brier": sk.brier_score_loss(y, p),
        "log_loss": sk.log_loss(y, p), "base_rate": y.mean(), "majority_accuracy": max(y.mean(), 1 - y.mean()),
        "brier_skill": 1 - sk.brier_score_loss(y, p) / y.var(),
    }
    for key, value in expected.items():
        assert m[key] == pytest.approx(value, abs=1e-12), key
    assert json.loads(json.dumps(m, allow_nan=False)) == m
    assert m["roc_auc_low"] < m["roc_auc"] < m["roc_auc_high"] and m["accuracy_low"] < m["accuracy"] < m[
        "accuracy_high"
    ]


def test_majority_accuracy_is_that_of_the_training_class(forecasts):
    y, p = forecasts
    for c in (0, 1):
        assert metrics.direction_metrics(y, p, majority_class=c)["majority_accuracy"] == pytest.approx((y == c).mean())


def test_a_forecast_that_never_says_up_has_zero_precision_and_no_nan():
    m = metrics.direction_metrics([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4])
    assert (m["precision"], m["recall"], m["f1"], m["accuracy"]) == (0.0, 0.0, 0.0, 0.5)
    assert metrics.direction_metrics([0, 1], [0.0, 1.0])["log_loss"] < 1e-9
    constant = metrics.direction_metrics([0, 1, 1, 0], [0.5] * 4)
    assert constant["roc_auc"] == constant["roc_auc_low"] == 0.5 and constant["brier_skill"] == 0


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (790, 1491), (1, 3)])
def test_wilson_interval_equals_statsmodels(hits, n):
    from statsmodels.stats.proportion import proportion_confint

    ours = metrics.accuracy_interval(np.r_[np.ones(hits), np.zeros(n - hits)], level=0.9)
    assert ours == pytest.approx(proportion_confint(hits, n, alpha=0.1, method="wilson"), abs=1e-12)


def test_delong_error_equals_the_definition_and_the_bootstrap(forecasts):
    y, p = forecasts
    auc, low, high = metrics.auc_interval(y, p)
    wins = (p[y == 1][:, None] > p[y == 0]) + 0.5 * (p[y == 1][:, None] == p[y == 0])  # every pair, the slow definition
    error = np.sqrt(wins.mean(axis=1).var(ddof=1) / wins.shape[0] + wins.mean(axis=0).var(ddof=1) / wins.shape[1])
    assert (auc, high - low) == pytest.approx((wins.mean(), 2 * stats.norm.ppf(0.975) * error), abs=1e-12)
    rng = np.random.default_rng(0)
    drawn = [sk.roc_auc_score(y[i], p[i]) for i in rng.integers(len(y), size=(400, len(y)))]
    assert np.std(drawn) == pytest.approx(error, rel=0.15)


def test_reliability_and_deciles_by_hand(forecasts):
    y, p = forecasts
    table = metrics.reliability_table(y, p)
    assert table.n.sum() == len(y) and table.n.between(130, 170).all() and table.forecast.is_monotonic_increasing
    lowest = p <= np.sort(p)[table.n[0] - 1]
    assert (table.n[0], table.share[0], table.forecast[0]) == pytest.approx(
        (lowest.sum(), y[lowest].mean(), p[lowest].mean())
    )
    ece = sum(n * abs(f - s) for n, f, s in zip(table.n, table.forecast, table.share)) / len(y)
    assert metrics.direction_metrics(y, p)["ece"] == pytest.approx(ece)
    deciles = metrics.confidence_deciles(y, p)
    sure = np.abs(p - 0.5) >= np.sort(np.abs(p - 0.5))[-deciles.n.iloc[-1]] - 1e-12
    assert deciles.accuracy.iloc[-1] == pytest.approx(((p > 0.5) == y)[sure].mean())
    assert (deciles.n * deciles.accuracy).sum() / len(y) == pytest.approx(metrics.direction_metrics(y, p)["accuracy"])


def test_mirror_forecasts_share_a_confidence_group():
    deciles = metrics.confidence_deciles([1, 0, 1, 0], [0.7, 0.3, 0.6, 0.4], bins=2)
    assert deciles.n.tolist() == [2, 2] and deciles.accuracy.tolist() == [1, 1]


# ---- intervals of dependent losses

@pytest.mark.parametrize(("phi", "n"), [(0.5, 1491), (0.8, 1491), (0.95, 3000)])
def test_block_length_near_the_theory(phi, n):
    "The optimal length of an AR(1) is (G/g)^(2/3) n^(1/3) with G/g = 2 phi / (1 - phi^2)."
    lengths = [metrics.block_length(autoregressive(np.random.default_rng(i), phi, n)) for i in range(20)]
    assert np.median(lengths) == pytest.approx((4 * phi**2 / (1 - phi**2) ** 2 * n) ** (1 / 3), rel=0.3)


def test_block_rows_are_runs_of_the_wanted_length():
    rows = metrics.block_rows(500, 10, 200, np.random.default_rng(0))
    breaks = (np.diff(rows, axis=1) % 500 != 1).mean()
    assert breaks == pytest.approx(0.1, abs=0.01) and rows.min() == 0 and rows.max() == 499
    assert np.bincount(rows.ravel(), minlength=500).std() / 200 < 0.2  # every row equally often


def test_block_interval_covers_and_single_rows_do_not():
    rng, inside, naive = np.random.default_rng(1), 0, 0
    for i in range(100):
        x = autoregressive(rng, 0.7, 600)
        low, high = metrics.block_interval(x, n=300, seed=i)
        inside += low < 0 < high
        low, high = metrics.block_interval(x, n=300, seed=i, block=1)
        naive += low < 0 < high
    assert inside >= 84 and naive <= 75  # promised 95; an AR(1) of 0.7 needs a standard error 2.4 times the naive one


def test_block_interval_is_repeatable_and_takes_any_statistic():
    x = autoregressive(np.random.default_rng(2), 0.5, 300)
    assert metrics.block_interval(x, seed=4) == metrics.block_interval(x, seed=4) != metrics.block_interval(x, seed=5)
    # called sample by sample
    assert metrics.block_interval(x, lambda s: s.mean()) == pytest.approx(metrics.block_interval(x))
    assert metrics.block_interval(np.ones(50)) == (1.0, 1.0)
    with pytest.raises(DataError, match="more than one number"):
        metrics.block_interval(np.column_stack([x, x]))
    with pytest.raises(SettingsError, match="block"):
        metrics.block_interval(x, block=0)


# ---- significance

def test_p_value_majority_is_half_of_exact_mcnemar(forecasts):
    from statsmodels.stats.contingency_tables import mcnemar

    y, p = forecasts
    model, rule = (p > 0.5) == y, y == 1
    table = [[(model & rule).sum(), (model & ~rule).sum()], [(~model & rule).sum(), (~model & ~rule).sum()]]
    assert significance.p_value_majority(y, p, 1) == pytest.approx(mcnemar(table, exact=True).pvalue / 2, rel=1e-9)
    assert significance.p_value_majority(y, np.full(len(y), 0.2), 0) == 1.0
    with pytest.raises(SettingsError):
        significance.p_value_majority(y, p, 2)


def test_guesses_are_rejected_as_often_as_promised():
    rng = np.random.default_rng(0)
    p_majority, p_zero = [], []
    for _ in range(600):
        ret = 0.01 * rng.standard_t(4, 700) * np.exp(0.5 * np.sin(np.arange(700) / 40))
        p_majority.append(significance.p_value_majority(ret > 0, rng.random(700), 1))
        p_zero.append(significance.p_value_zero_return(ret, 1e-5 * rng.standard_normal(700)))
    for p in (p_majority, p_zero):  # 5 percent of 600 is 30; three standard deviations are 16
        assert 14 <= np.sum(np.array(p) < 0.05) <= 46
    assert stats.kstest(p_zero, "uniform").pvalue > 0.01


def test_a_loud_guess_is_not_significant_and_drift_alone_is_no_merit():
    rng = np.random.default_rng(0)
    ret = 0.01 * rng.standard_normal(2000)
    assert significance.p_value_zero_return(ret, 0.01 * rng.standard_normal(2000)) > 0.99
    assert significance.p_value_zero_return(ret, np.zeros(2000)) == 1.0
    for size in (1e-300, 1e-12, 1e-5):  # a constant forecast is scored like any other, without overflow
        assert significance.p_value_zero_return(ret, np.full(2000, size)) == pytest.approx(
            stats.norm.sf(ret.mean() / ret.std() * 2000**0.5), abs=0.05,
        )


@pytest.mark.parametrize(("horizon", "lags"), [(1, 0), (1, 7), (14, 26)])
def test_dm_equals_statsmodels_hac(horizon, lags):
    rng = np.random.default_rng(7)
    a, b = np.abs(autoregressive(rng, 0.5, 900)), np.abs(autoregressive(rng, 0.5, 900)) + 0.05
    fit = sm.OLS(b - a, np.ones(900)).fit(cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False})
    small = np.sqrt((900 + 1 - 2 * horizon + horizon * (horizon - 1) / 900) / 900)
    test = significance.dm_test(a, b, horizon=horizon, lags=lags)
    assert test["statistic"] == pytest.approx(fit.tvalues[0] * small, rel=1e-9)
    assert test["p_value"] == pytest.approx(stats.t.sf(fit.tvalues[0] * small, 899), rel=1e-9)
    assert significance.dm_test(b, a, horizon=horizon, lags=lags)["p_value"] == pytest.approx(1 - test["p_value"])


def test_dm_keeps_its_size_with_overlapping_outcomes():
    rng, rejected, naive = np.random.default_rng(8), 0, 0
    for _ in range(300):
        gain = np.convolve(rng.standard_normal(1013), np.ones(14), mode="valid")
        rejected += significance.dm_test(np.zeros(1000), gain, horizon=14)["p_value"] < 0.05
        naive += significance.dm_test(np.zeros(1000), gain, lags=0)["p_value"] < 0.05
    assert rejected <= 30 and naive > 60  # 15 expected; ignoring the overlap rejects many times too often


def test_dm_edges():
    same = significance.dm_test(np.ones(50), np.ones(50))
    assert same["p_value"] == 1.0 and same["statistic"] == 0.0
    assert significance.dm_test(np.zeros(50), np.ones(50))["p_value"] == 0.0
    with pytest.raises(SettingsError, match="lags"):
        significance.dm_test(np.arange(50), np.ones(50), lags=50)


def test_skill_is_the_removed_share_and_its_interval_holds_it():
    rng, inside = np.random.default_rng(9), 0
    for i in range(60):
        base = np.exp(0.5 * autoregressive(rng, 0.6, 500))
        result = significance.skill(0.9 * base * np.exp(0.1 * rng.standard_normal(500)), base, n_samples=300, seed=i)
        inside += result["low"] < 1 - 0.9 * np.exp(0.005) < result["high"]
    assert inside >= 50
    with pytest.raises(DataError, match="losses"):
        significance.skill(-np.ones(50), np.ones(50))


# ---- volatility and price

def test_volatility_metrics_equal_scikit_learn():
    rng = np.random.default_rng(4)
    f = 0.006 * np.exp(0.3 * rng.standard_normal(400))
    y = f * np.exp(0.3 * rng.standard_normal(400))
    m = metrics.volatility_metrics(y, f)
    # the gamma deviance of variances is twice QLIKE
    expected = {
        "r2": sk.r2_score(y, f), "rmse": np.sqrt(sk.mean_squared_error(y, f)), "mae": sk.mean_absolute_error(y, f),
        "mape": sk.mean_absolute_percentage_error(y, f), "bias": (f - y).mean(),
        "qlike": sk.mean_gamma_deviance(y**2, f**2) / 2,
    }
    for key, value in expected.items():
        assert m[key] == pytest.approx(value, rel=1e-9), key
    assert metrics.volatility_metrics(np.r_[y, 0.0], np.r_[f, 0.01])["n_zero"] == 1


def test_price_metrics_equal_scikit_learn():
    rng = np.random.default_rng(6)
    close = 30000 * np.exp(np.cumsum(0.01 * rng.standard_normal(501)))
    now, after = close[:-1], close[1:]
    forecast = now * np.exp(0.3 * np.log(after / now) + 0.002 * rng.standard_normal(500))
    m = metrics.price_metrics(now, after, forecast)
    assert m["mae"] == pytest.approx(sk.mean_absolute_error(after, forecast)) and m["mape"] == pytest.approx(
        sk.mean_absolute_percentage_error(after, forecast)
    )
    assert m["mase"] == pytest.approx(sk.mean_absolute_error(after, forecast) / sk.mean_absolute_error(after, now))
    assert m["mase_low"] < m["mase"] < m["mase_high"] < 1
    assert m["r2"] == pytest.approx(sk.r2_score(np.log(after / now), np.log(forecast / now)))
    assert sk.r2_score(after, now) > 0.9 > m["r2"]  # design rule 7: the R² of levels is not printed
    assert metrics.price_metrics(now, after, now)["r2_zero"] == 0 and json.dumps(m, allow_nan=False)
    assert m["directional_accuracy"] == pytest.approx(((forecast > now) == (after > now)).mean())


def test_interval_coverage_counts_both_sides():
    m = metrics.interval_coverage([1, 2, 3, 4], [0, 0, 4, 0], [2, 1, 5, 9])
    assert (m["coverage"], m["below"], m["above"], m["width"]) == (0.5, 0.25, 0.25, 3.25)


# ---- refusals

@pytest.mark.parametrize(("call", "message"), [
    (lambda: metrics.direction_metrics([1, 1], [0.5, 0.6]), "one class only"),
    (lambda: metrics.direction_metrics([0, 2], [0.5, 0.6]), "not a direction"),
    (lambda: metrics.direction_metrics([0, 1], [0.5, 1.01]), "not a probability in row 1"),
    (lambda: metrics.direction_metrics([0, 1], [np.nan, 0.5]), "row 0"),
    (lambda: metrics.direction_metrics([0, 1, 1], [0.5, 0.5]), "different length"),
    (lambda: metrics.direction_metrics([], []), "at least one row"),
    (lambda: metrics.direction_metrics(["a", "b"], [0.5, 0.5]), "not numeric"),
    (lambda: metrics.direction_metrics([0, 1], [[0.5], [0.5]]), "one dimension"),
    (lambda: metrics.direction_metrics(pd.Series([0, 1]), pd.Series([0.5, 0.5], index=[1, 0])), "different rows"),
    (lambda: metrics.volatility_metrics([0.1, 0.2], [0.1, 0.0]), "row 1"),
    (lambda: metrics.volatility_metrics([0.1, -0.2], [0.1, 0.1]), "row 1"),
    (lambda: metrics.volatility_metrics([0.1, 0.1], [0.1, 0.1]), "never changes"),
    (lambda: metrics.price_metrics([1, 1], [1, 1], [1, 2]), "never changes"),
    (lambda: metrics.price_metrics([1, 1], [1, 2], [1, -2]), "row 1"),
    (lambda: metrics.interval_coverage([1], [2], [1]), "upside down"),
    (lambda: metrics.accuracy_interval([0.5, 1]), "0 and 1 only"),
])
def test_bad_input_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_refusals_reach_over_equal_indexes_of_other_order():
    y = pd.Series([0.0, 1.0, 1.0], index=pd.date_range("2025-01-01", periods=3, freq="h"))
    p = pd.Series([0.4, 0.6, 0.7], index=y.index)
    assert metrics.direction_metrics(y, p)["n"] == 3
    with pytest.raises(DataError, match="first difference: row 0"):
        metrics.direction_metrics(y, p[::-1])


# ---- baselines

def test_volatility_baselines_see_no_future(candles):
    label = baselines.persistence_vol(candles).shift(-14).dropna()[:3000]
    changed = candles.copy()
    changed.iloc[4000:] *= np.array([5.0, 9.0, 2.0, 4.0, 1.0])
    for forecast in (
        baselines.persistence_vol, lambda c: baselines.ewma_vol(c, label), lambda c: baselines.har_vol(c, label),
    ):
        pd.testing.assert_series_equal(forecast(candles)[:4000], forecast(changed)[:4000])
        assert not np.allclose(forecast(candles)[4100:], forecast(changed)[4100:])


def test_persistence_is_the_label_moved_back(candles):
    labels = pytest.importorskip("cryptolab.labels")
    gap = candles.drop(candles.index[2000:2003])
    for table in (candles, gap):
        y = labels.natr_future(table, window=14)["y"]
        ours = baselines.persistence_vol(table).shift(-14)
        both = y.notna()
        assert both.sum() > 4000
        np.testing.assert_allclose(ours[both], y[both], rtol=1e-9)


def test_true_range_does_not_reach_over_a_gap(candles):
    gap = candles.iloc[:50].drop(candles.index[20:30]).copy()
    gap.iloc[20:] *= 2.0  # the market doubled while no candle was seen
    ranges = pd.Series(true_range(gap), gap.index)
    assert ranges.iloc[20] == pytest.approx(gap["high"].iloc[20] - gap["low"].iloc[20])
    assert (ranges / gap["close"]).max() < 0.1


def test_target_and_baseline_of_volatility_are_one_quantity_across_a_gap(candles):
    "A forecast that repeats the last 14 candles is the label of the row 14 earlier, to the last bits, at gaps too."
    gap = candles.iloc[:300].drop(candles.index[[100, 101, 180]]).copy()
    gap.iloc[100:] *= 3.0  # the market tripled while no candle was seen
    label, forecast = natr_future(gap, 14)["y"], baselines.persistence_vol(gap, 14)
    known = label.notna()
    assert 200 < known.sum() < len(gap) - 14
    np.testing.assert_allclose(forecast.shift(-14)[known], label[known], rtol=1e-12)
    published = natr_next(gap, 14)["y"]
    simple = pd.Series(wilder_mean(true_range(gap), 14), gap.index) / gap["close"]
    np.testing.assert_array_equal(simple.shift(-1)[published.notna()], published.dropna())
    assert published.max() < 0.1  # the jump over the gap is no range of any candle


def test_published_target_and_its_persistence_agree_row_by_row(candles):
    "natr_next of a row is persistence of the next row, to the last bit, after gaps too."
    gap = candles.iloc[:400].drop(candles.index[[100, 101, 180]]).copy()
    gap.iloc[100:] *= 3.0
    label, forecast = natr_next(gap)["y"], baselines.persistence_vol(gap, target="natr_next")
    known = label.notna()
    assert known.sum() == len(gap) - 1 - 12 - 2
    np.testing.assert_array_equal(forecast.shift(-1)[known], label[known])
    with pytest.raises(SettingsError, match="target"):
        baselines.persistence_vol(gap, target="natr")


def test_six_candles_with_a_gap_by_hand():
    "The market doubles in the missing hour; 205 − 195 is that candle's range, and Wilder's average goes on."
    hours = pd.DatetimeIndex([f"2024-01-01 0{h}:00" for h in (0, 1, 2, 4, 5, 6)], tz="UTC", name="open_time")
    close = np.array([100.0, 102, 101, 200, 206, 204])
    six = pd.DataFrame(
        {"high": close + [1, 1, 2, 5, 1, 3], "low": close - [1, 1, 2, 5, 1, 3], "close": close}, index=hours,
    )
    ranges = np.array([2.0, 3, 4, 10, 7, 6])  # 103 − 100 and 207 − 200 reach back to the last close, 205 − 195 does not
    np.testing.assert_array_equal(true_range(six, "1h"), ranges)
    wilder = np.array([np.nan, 2.5, 3.25, 6.625, 6.8125, 6.40625])
    np.testing.assert_array_equal(baselines.persistence_vol(six, 2, "natr_next"), wilder / close)
    np.testing.assert_array_equal(
        natr_next(six, 2)["y"], [2.5 / 102, 3.25 / 101, np.nan, 6.8125 / 206, 6.40625 / 204, np.nan],
    )
    np.testing.assert_allclose(baselines.persistence_vol(six, 2), np.array([np.nan, 2.5, 3.5, 7, 8.5, 6.5]) / close)


def test_ewma_is_the_riskmetrics_recursion(candles):
    label = baselines.persistence_vol(candles).shift(-14).dropna()[1:2000]
    ours, square = baselines.ewma_vol(candles, label), np.log(candles["close"]).diff().to_numpy() ** 2
    variance = np.full(len(square), np.nan)
    variance[1] = square[1]
    weight = 1.0
    for t in range(2, len(square)):
        weight = 1 + 0.94 * weight
        variance[t] = variance[t - 1] + (square[t] - variance[t - 1]) / weight
    sigma = pd.Series(np.sqrt(variance), candles.index)
    factor = sm.OLS(label.to_numpy(), sigma[label.index].to_numpy()).fit().params[0]
    np.testing.assert_allclose(ours[1:], factor * sigma[1:], rtol=1e-8)


def test_har_equals_a_statsmodels_regression(candles):
    label = baselines.persistence_vol(candles).shift(-14).dropna()[200:3000]
    ours = baselines.har_vol(candles, label)
    last = candles["close"].shift(1)
    ranges = pd.concat(
        [candles.high - candles.low, (candles.high - last).abs(), (candles.low - last).abs()], axis=1,
    ).max(axis=1)
    X = sm.add_constant(
        pd.DataFrame({k: np.log(ranges.rolling(k, min_periods=1).mean() / candles.close) for k in (1, 14, 24, 168)})
    )
    fit = sm.OLS(np.log(label), X.loc[label.index]).fit()
    np.testing.assert_allclose(ours, np.exp(fit.resid).mean() * np.exp(X @ fit.params), rtol=1e-8)
    rows = ours.index[3100:-20]
    truth = baselines.persistence_vol(candles).shift(-14)[rows]
    assert metrics.volatility_metrics(truth, ours[rows])["qlike"] < metrics.volatility_metrics(
        truth, baselines.persistence_vol(candles)[rows],
    )["qlike"]


def test_volatility_baselines_stand_still_candles(candles):
    quiet = candles.copy()
    quiet.iloc[1000:1200, :4] = quiet["close"].iloc[999]  # nobody traded
    label = baselines.persistence_vol(quiet).shift(-14).dropna()[:3000]
    forecast = baselines.har_vol(quiet, label)
    assert np.isfinite(forecast).all() and (forecast > 0).all()
    dead = candles.assign(open=1.0, high=1.0, low=1.0, close=1.0)
    with pytest.raises(DataError, match="never changes"):
        baselines.ewma_vol(dead, label)


@pytest.mark.parametrize(
    ("step", "bars"),
    [("15min", (1, 14, 96, 672)), ("4h", (1, 6, 14, 42)), ("12h", (1, 2, 14)), ("1D", (1, 5, 22)), ("7D", (1, 5, 22))],
)
def test_har_bars_of_every_timeframe(step, bars):
    assert baselines.har_bars(pd.Timedelta(step)) == bars


def test_volatility_baselines_refuse_foreign_labels(candles):
    label = baselines.persistence_vol(candles).dropna()
    with pytest.raises(DataError, match="other candles"):
        baselines.har_vol(candles[:100], label)
    with pytest.raises(DataError, match="indexed by decision row"):
        baselines.ewma_vol(candles, label.to_numpy())
    with pytest.raises(DataError, match="too few training labels"):
        baselines.har_vol(candles, label[:10])
    with pytest.raises(DataError, match="column `high` is missing"):
        baselines.persistence_vol(candles.drop(columns="high"))


def test_learners_find_a_rule_and_repeat_it():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, 10)) * np.logspace(-3, 3, 10)  # wildly different scales
    y = (X[:, 9] / 1e3 + rng.standard_normal(4000) > 0).astype(float)
    fit, val, test = slice(0, 2500), slice(2500, 3000), slice(3000, 4000)
    for p in (baselines.logistic_baseline(X[fit], y[fit], X[test]),
              baselines.lightgbm_baseline(X[fit], y[fit], X[val], y[val], X[test], num_threads=1)):
        assert sk.roc_auc_score(y[test], p) > 0.70 and p.shape == (1000,)
    two = baselines.lightgbm_baseline(X[fit], y[fit], X[val], y[val], X[test], num_threads=2)
    np.testing.assert_array_equal(p, two)  # threads do not change the numbers
    assert (p != baselines.lightgbm_baseline(X[fit], y[fit], X[val], y[val], X[test], seed=1, num_threads=1)).any()
    with pytest.raises(DataError, match="wrong shape"):
        baselines.logistic_baseline(X[fit], y[fit], X[test, :5])
    with pytest.raises(DataError, match="does not fit its rows"):
        baselines.logistic_baseline(X[fit], y[test], X[test])


def test_rules_on_a_zigzag():
    ret = np.array([0.01, -0.01] * 50)
    y = (np.r_[ret[1:], 0.01] > 0).astype(float)
    assert (baselines.reversal(ret) == y).all() and (baselines.last_move(ret) != y).all()
    assert baselines.majority_class(y) == 0 and (baselines.majority(y, n=3) == 0.5).all()
    assert np.isnan(baselines.last_move([np.nan]))[0]


@pytest.mark.data
def test_honest_numbers_on_real_hours(shared_data):
    table = pd.read_parquet(shared_data / "BTCUSDT_1h.parquet")
    hours = table.set_index(pd.to_datetime(table["timestamp"], utc=True).rename("open_time")).iloc[-30000:]
    ret = np.log(hours["close"]).diff()
    y = (ret.shift(-1) > 0).astype(float)[1:-1]
    rule = metrics.direction_metrics(y, baselines.reversal(ret[1:-1]))
    assert 0.51 < rule["accuracy"] < 0.545 and significance.p_value_majority(y, baselines.reversal(ret[1:-1]), 1) < 1e-4
    label = baselines.persistence_vol(hours).shift(-14).dropna()
    train, test = label[200:20000], label[20014:]
    still, har = baselines.persistence_vol(hours)[test.index], baselines.har_vol(hours, train)[test.index]
    gain = significance.skill(metrics.qlike_loss(test, har), metrics.qlike_loss(test, still), horizon=14)
    assert gain["low"] > 0.2 and gain["p_value"] < 1e-6
    assert metrics.volatility_metrics(test, har)["r2"] > 0.25


# ---- plots

def test_every_plot_is_small_and_clean(candles, forecasts):
    pytest.importorskip("plotly")
    from cryptolab.reports import plots

    y, p = forecasts
    rows, close = candles.index[-2000:-1], candles["close"].iloc[-2000:-1]
    after, vol = candles["close"].shift(-1)[rows], baselines.persistence_vol(candles)[rows]
    history = pd.DataFrame({"epoch": range(1, 2001), "loss": 1.0, "val_loss": np.linspace(1, 0.5, 2000)})
    figures = {
        "candles": plots.plot_candles(candles),
        "volatility": plots.plot_volatility(
            rows, vol, vol * 1.1, {f"baseline {i}": vol * (1 + i / 10) for i in range(6)},
        ),
        "learning": plots.plot_learning_curves({"direction": history, "price": history.drop(columns="val_loss")}),
        "reliability": plots.plot_reliability(metrics.reliability_table(y, p)),
        "deciles": plots.plot_deciles(metrics.confidence_deciles(y, p), 0.5, 0.6),
        "accuracy": plots.plot_accuracy_bars([{"name": "a", "accuracy": 0.5, "low": 0.4, "high": 0.6}], 0.5, 0.65),
        "interval": plots.plot_forecast_interval(rows, after, close, close * 0.99, close * 1.01, coverage=0.9),
        "price": plots.plot_price_error(rows, close, after, {"V9": close * 1.001, "drift": close}),
    }
    for name, figure in figures.items():
        text = figure.to_json()
        assert len(text) < 200_000, name
        assert "NaN" not in text and figure.layout.autosize and figure.layout.title.text, name
        assert all(len(line) <= 46 for line in figure.layout.title.text.split("<br>")), name


def test_a_plot_keeps_breaks_and_extremes(candles):
    pytest.importorskip("plotly")
    from cryptolab.reports import plots

    values = np.array([0.01, np.nan, 0.02])
    figure = plots.plot_volatility(candles.index[:3], values)
    assert figure.data[0].y == (0.01, None, 0.02) and figure.data[0].x[0] == "2024-01-01 00:00"
    few = plots.plot_candles(candles, max_candles=100).data[0]
    assert len(few.x) == 100 and max(few.high) == pytest.approx(candles["high"].max(), rel=1e-5)
    assert (few.open[0], few.close[-1]) == pytest.approx((candles["open"].iloc[0], candles["close"].iloc[-1]), rel=1e-5)
    with pytest.raises(DataError, match="no candles"):
        plots.plot_candles(candles[:0])
