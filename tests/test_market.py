"""Generated markets hold what they promise: a rule that no single feature shows, and nothing where none is planted."""

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.data import (
    Candles, clean_candles, fingerprint, load_candles, market_truth, null_market, planted_market, resample_candles,
    sample_market, validate_candles,
)
from cryptolab.features.sets.v9 import v9_features

LAGS = range(5)


@pytest.fixture(scope="module")
def planted():
    "The truth of a long planted market, with its features and outcomes, warm-up and last row left out."
    candles = planted_market(edge=0.15, n=40_000, seed=3)
    features, up = v9_features(candles), (candles.close.shift(-1) > candles.close).to_numpy()
    keep = slice(250, -1)
    return market_truth(candles[keep]), features[keep], up[keep]


def best_threshold(x, up):
    "Accuracy of the best rule `x above (or below) a threshold`."
    hits = np.cumsum(2 * up[np.argsort(x, kind="stable")] - 1)
    return 0.5 + np.abs(hits[-1] - 2 * hits).max() / len(x) / 2


def test_no_single_feature_shows_the_rule(planted):
    _, features, up = planted
    found = {
        (name, lag): best_threshold(np.roll(features[name].to_numpy(), lag)[5:], up[5:]) for name in features
        for lag in LAGS
    }
    worst = max(found, key=found.get)
    assert found[worst] < 0.55, (worst, found[worst])


def test_the_rule_is_a_function_of_lagged_features(planted):
    truth, f, _ = planted
    wick = f.close_location - f.body

    def z(x, mean, sd):
        return (x - mean) / sd

    ratio = f.volume_20
    score = (z(ratio.shift(1), -0.19, 0.70) - z(ratio.shift(3), -0.19, 0.70) - z(f.true_range_atr.shift(2), -0.11, 0.47)
             + 0.7 * f.body.shift(2) / 0.51 + wick.shift(1) / 0.28 - wick.shift(2) / 0.28)
    clear = score.abs() > 0.05  # the library's columns are float32, and its volume ratio has a floor
    assert ((score > 0) == (truth.true_p_up > 0.5))[clear].mean() > 0.9999


def test_a_linear_learner_with_lags_finds_it(planted):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    _, features, up = planted
    x = np.hstack([np.roll(features.to_numpy(), lag, axis=0) for lag in LAGS])[5:]
    x, y, cut = StandardScaler().fit_transform(x), up[5:], 28_000
    assert LogisticRegression(C=0.01, max_iter=200).fit(x[:cut], y[:cut]).score(x[cut:], y[cut:]) > 0.62


@pytest.mark.parametrize("seed", range(3))
def test_the_best_possible_accuracy_is_what_was_planted(seed):
    candles = planted_market(edge=0.1, n=20_000, seed=seed)
    up = (candles.close.shift(-1) > candles.close)[:-1]
    hit = ((market_truth(candles).true_p_up[:-1] > 0.5) == up).mean()
    assert abs(hit - 0.6) < 4 * np.sqrt(0.24 / 20_000)


def test_null_market_has_fair_coins_and_clustered_fat_tails():
    candles = null_market(n=50_000, seed=5)
    r = np.log(candles.close).diff().dropna()
    assert (market_truth(candles).true_p_up == 0.5).all() and abs((r > 0).mean() - 0.5) < 0.01
    assert r.abs().autocorr(1) > 0.1 and r.abs().autocorr(24) > 0.05 and r.kurt() > 3
    assert abs(r.autocorr(1)) < 0.02


@pytest.mark.parametrize("timeframe, n", [("1m", 3000), ("15m", 1000), ("4h", 500), ("1d", 3000), ("1w", 100)])
def test_every_timeframe_gives_clean_candles_on_its_grid(timeframe, n):
    candles = sample_market("SOLUSDT", timeframe, n)
    quality = validate_candles(candles, timeframe).set_index("check")["count"]
    assert len(candles) == n and str(candles.index.tz) == "UTC"
    assert quality.drop(["rows", "rows kept"], errors="ignore").drop("long wicks", errors="ignore").sum() == 0


def test_same_seed_same_market_and_each_symbol_its_own():
    one, two = (fingerprint(sample_market("BTCUSDT", n=500, seed=s)) for s in (0, 0))
    assert one == two
    others = {
        fingerprint(sample_market(s, t, 500, seed=k))
        for s, t, k in (("BTCUSDT", "1h", 1), ("ETHUSDT", "1h", 0), ("BTCUSDT", "15m", 0))
    }
    assert one not in others and len(others) == 3


@pytest.mark.parametrize("market", [planted_market(n=300), null_market(n=300), sample_market(n=300)])
def test_a_learner_is_handed_no_truth(market):
    "Neither in a column nor in the numbers that say how to make the market again."
    assert list(market) == ["open", "high", "low", "close", "volume"]
    facts = market.attrs["sample"]
    assert set(facts) == {"symbol", "timeframe", "n", "seed", "edge", "end", "price"} and len(str(market.attrs)) < 400
    blind = market.assign(true_p_up=0.123, true_sigma=9.0)
    pd.testing.assert_frame_equal(v9_features(market), v9_features(blind))


def test_the_truth_is_what_the_columns_of_these_markets_once_held():
    for market, first, last in (
        (sample_market(n=5_000, seed=2), [0.58, 0.0064095], [0.58, 0.0030563]),
        (planted_market(n=3_000), [0.65, 0.0031632], [0.65, 0.0033487]),
        (null_market(n=3_000, timeframe="15m"), [0.5, 0.0011412], [0.5, 0.001085]),
    ):
        np.testing.assert_allclose(market_truth(market).iloc[[0, -1]], [first, last], atol=1e-7)


def test_the_truth_is_that_of_the_rows_at_hand(tmp_path):
    whole = load_candles("btc-usdt", "1H", source="Sample", limit=600, warmup=50, seed=3)
    truth = market_truth(whole)
    assert truth.index.equals(whole.index) and list(truth) == ["true_p_up", "true_sigma"]
    gaps = whole.drop(whole.index[[3, 77, 78, 400]])
    whole.to_parquet(tmp_path / "market.parquet")
    stored = pd.read_parquet(tmp_path / "market.parquet")
    for part in (whole[200:300], gaps, clean_candles(whole), whole[::-1], whole[["close"]], stored, whole.iloc[:1]):
        assert market_truth(part).equals(truth.loc[part.index])


def test_candles_without_a_known_truth_are_refused():
    candles, changed = sample_market(n=300), sample_market(n=300)
    changed.iloc[7, 3] *= 1.001
    later = candles.set_axis(candles.index + pd.Timedelta("1000D"))
    for wrong, why in (
        (resample_candles(candles, "4h"), "resampled to 4h"), (changed, "changed in 1 rows"), (later, "300 rows"),
        (pd.concat([candles, later]), "300 rows"), ({"close": 1}, "nobody knows"),
        (pd.DataFrame({"close": [1.0]}), "nobody knows"),
    ):
        with pytest.raises(DataError, match=why):
            market_truth(wrong)


def test_names_of_markets_have_no_case():
    assert isinstance(sample_market("ethusdt", "1H", 300), Candles)
    assert fingerprint(sample_market("ethusdt", "1H", 300)) == fingerprint(sample_market("ETHUSDT", "1h", 300))


def test_impossible_markets_are_refused():
    for edge in (-0.1, 0.5, 1):
        with pytest.raises(SettingsError, match="edge"):
            planted_market(edge=edge)
    with pytest.raises(DataError, match="at least one"):
        null_market(n=0)
    with pytest.raises(DataError, match="calendar"):
        sample_market(timeframe="1w", n=200_000)


def test_load_candles_brings_warm_up_along():
    candles = load_candles("BTCUSDT", "1h", source="sample", limit=300, warmup=200)
    assert len(candles) == 500 and candles.attrs["warmup"] == 200
    assert pd.Timestamp(candles.attrs["warmup_until"]) == candles.index[200]
