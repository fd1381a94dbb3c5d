"""Other coins: what is learned from them ends before the validation rows, and the report says whether it helped."""

import shutil

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.data.market import sample_market
from cryptolab.reports.results import read_result
from cryptolab.systems.v9 import system as module
from cryptolab.systems.v9.rows import prepare_rows, with_pool
from cryptolab.systems.v9 import V9

QUIET = {"log": None}


def coin(seed, n=900, start=None):
    candles = sample_market(n=n, seed=seed)
    if start is not None:
        candles = candles.set_axis(pd.date_range(start, periods=n, freq="1h", name="open_time"))
    candles.attrs |= {"timeframe": "1h", "symbol": f"C{seed}"}
    return candles


@pytest.fixture(scope="module")
def own():
    return coin(1)


@pytest.fixture(scope="module")
def alone(own):
    "A V9 that learned from this coin only: what pooled and transferred ones are compared with."
    return V9(profile="smoke").fit(own, **QUIET)


@pytest.fixture(scope="module")
def source(own, tmp_path_factory):
    "A fitted V9 of another coin whose candles end before this coin's test period."
    older = coin(2, start=own.index[0] - pd.Timedelta("400h"))
    system = V9(profile="smoke", seed=3).fit(older, **QUIET)
    return system.save(tmp_path_factory.mktemp("source") / "model")


# ---------------------------------------------------------------- pool


def test_pool_rows_are_over_before_the_validation_rows(own):
    rows, other = prepare_rows(own), coin(2)
    pooled = with_pool(rows, {"C2": other})
    border = pooled.windows.index[rows.parts["direction"]["val"][0][0]] + pd.Timedelta("1h")
    numbers, y = pooled.pool["direction"]
    assert len(numbers) == len(y) > 300
    # decision candle and the one it is about are closed
    assert pooled.windows.times[pooled.windows.ends[numbers]].max() + pd.Timedelta("2h") <= border
    for part in ("train", "val", "test"):
        assert (pooled.parts["direction"][part][0] == rows.parts["direction"][part][0]).all()


def test_the_future_of_other_coins_is_not_seen(own):
    "Whatever the other coin does from the first validation row on changes no training row."
    rows, other = prepare_rows(own), coin(2)
    border = rows.windows.index[rows.parts["direction"]["val"][0][0]] + pd.Timedelta("1h")
    changed = other.copy()
    changed.loc[changed.index >= border, ["open", "high", "low", "close"]] *= 3.0
    a, b = with_pool(rows, {"C2": other}), with_pool(rows, {"C2": changed})
    for name in ("direction", "price", "volatility"):
        numbers, y = a.pool[name]
        assert (numbers == b.pool[name][0]).all() and np.array_equal(y, b.pool[name][1])
        assert np.array_equal(a.windows.flat(numbers), b.windows.flat(b.pool[name][0]))


def test_scale_and_judged_rows_are_the_coins_own(own):
    rows = prepare_rows(own)
    pooled = with_pool(rows, {"C2": coin(2)})
    assert pooled.scaler is rows.scaler
    test = rows.parts["direction"]["test"][0]
    assert np.array_equal(rows.windows.flat(test), pooled.windows.flat(test))


def test_pool_that_comes_too_late_is_refused(own):
    with pytest.raises(DataError, match="C2 has no rows before the validation part"):
        with_pool(prepare_rows(own), {"C2": coin(2, start=own.index[-1])})


def test_pool_must_be_what_was_asked_for(own):
    with pytest.raises(SettingsError, match="does not fit the parameter `pool`"):
        V9(profile="smoke", pool="ETHUSDT").fit(own, **QUIET)
    assert V9(pool="ethusdt, SOLUSDT").pool_symbols() == ["ETHUSDT", "SOLUSDT"]


def test_pooled_fit_learns_from_more_rows_and_repeats(own, alone):
    pool = {"C2": coin(2), "C3": coin(3)}
    one, two = (V9(profile="smoke", pool="C2,C3").fit(own, pool=pool, **QUIET) for _ in range(2))
    assert sorted(one.counts_["pool"]) == ["C2", "C3"] and all(
        c["direction"] > 300 for c in one.counts_["pool"].values()
    )
    a, b, c = (s.forecast(own)[["p_up", "natr", "mu"]] for s in (one, two, alone))
    assert np.isfinite(a).all(axis=None) and a.equals(b)
    assert (a - c).abs().max().min() > 0


# ---------------------------------------------------------------- begin with another coin's networks


@pytest.fixture(scope="module")
def begun(own, source):
    "A V9 that begins with the source's networks and then learns next to nothing."
    sizes = {"direction_rate": 1e-12, "price_rate": 1e-12}
    return V9(profile="smoke", init_from=str(source), sizes=sizes).fit(own, **QUIET)


def test_networks_are_taken_over_whole(source, begun):
    "With a rate of nearly zero the fine-tuned networks say what the source's networks say on the same rows."
    old, system = V9.load(source), begun
    for name in ("direction", "price"):
        for before, after in zip(old.models_[name].layers, system.models_[name].layers):
            if before.name in ("scale", "standard", "normalize") or not before.trainable_weights:
                continue
            pairs = list(zip(before.trainable_weights, after.trainable_weights))
            assert all(np.allclose(x.numpy(), y.numpy(), atol=1e-6) for x, y in pairs), (name, before.name)


def test_epoch_zero_is_the_source(begun, alone):
    first = lambda s: s.histories_["direction"].iloc[0].drop(labels="epoch", errors="ignore").to_numpy(dtype=float)
    assert not np.allclose(first(begun), first(alone), equal_nan=True)


def test_source_that_has_seen_the_test_period_is_refused(own, alone, tmp_path):
    folder = alone.save(tmp_path / "model")
    older = coin(2, start=own.index[0] - pd.Timedelta("400h"))
    with pytest.raises(DataError, match="candles of this test period"):
        V9(profile="smoke", init_from=str(folder)).fit(older, log=lambda line: pytest.fail("training had begun"))


def test_source_of_another_size_or_altered_is_refused(own, source, tmp_path):
    with pytest.raises(ModelError, match="cannot be taken over"):
        V9(profile="smoke", init_from=str(source), sizes={"direction_units": (6, 4)}).fit(own, **QUIET)
    altered = shutil.copytree(source, tmp_path / "altered")
    (altered / "ensemble_v9.json").write_text("{}")
    with pytest.raises(ModelError):
        V9(profile="smoke", init_from=str(altered)).fit(own, **QUIET)
    with pytest.raises(ModelError):
        V9(profile="smoke", init_from=str(tmp_path / "nowhere")).fit(own, **QUIET)


def test_interrupted_work_is_not_mixed_up(own, source):
    "The key of resumable models knows the pool's candles and the source."
    keys = {module.v9_fit_key(V9(profile="smoke", pool="C2"), own, {"C2": coin(seed)}) for seed in (2, 3)}
    keys |= {module.v9_fit_key(V9(profile="smoke", init_from=begin), own) for begin in (None, str(source))}
    assert len(keys) == 4


# ---------------------------------------------------------------- the report says whether it helped


def test_report_compares_with_the_coin_alone(tmp_path):
    from cryptolab.runs.report import run_report

    folder = run_report("BTCUSDT", "1h", profile="smoke", limit=600, out=tmp_path, params={"pool": "ETHUSDT"})
    result = read_result(folder / "result.json")
    helped = result["other_coins"]
    assert list(helped) == ["direction, points of accuracy", "price, share of the error", "range, share of QLIKE"]
    for row in helped.values():
        assert row["low"] <= row["gain"] <= row["high"] and 0 <= row["p_value"] <= 1
    assert "V9 of this coin alone" in result["direction"] and result["rows"]["pool"]["ETHUSDT"]["direction"] > 0
