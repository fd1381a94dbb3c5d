"""Walk forward and the reference system: no future, bad input, interruption, stored folders."""
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from cryptolab.audit.compare import compare
from cryptolab.audit.walk_scores import market_groups, walk_tables
from cryptolab.config import CryptolabError, DataError, ModelError, SettingsError
from cryptolab.data.market import planted_market, sample_market
from cryptolab.evaluation.metrics import qlike_loss
from cryptolab.systems.classifier import ClassifierSystem
from cryptolab.systems.reference.system import Reference
from cryptolab.systems.reference.volatility import fit_har_line, level_factor
from cryptolab.systems.walk_forward import fold_candles, length_of_time, plan_folds, walk_forward

HOUR = pd.Timedelta("1h")


class Logistic(ClassifierSystem):
    "Logistic regression."

    def classifier(self):
        return LogisticRegression(C=0.01, max_iter=300)


@pytest.fixture(scope="module")
def market():
    return planted_market(edge=0.15, n=3_000)


@pytest.fixture(scope="module")
def walked(market):
    return walk_forward(Logistic(), market, "60d", "15d", 3, log=None)


@pytest.fixture(scope="module")
def fitted(market):
    return Reference(profile="smoke", threads=1).fit(market, log=None)


def with_prices(candles, rows, factor):
    out = candles.copy()
    out.loc[rows, ["open", "high", "low", "close"]] *= factor
    out.attrs = dict(candles.attrs)
    return out


# ---- the plan

@pytest.mark.parametrize("text", ["", "90", "d", "-3d", "0d", "three years", "1e3d", None, 90])
def test_what_is_no_length_of_time(text):
    with pytest.raises(SettingsError, match="no length of time"):
        length_of_time(text)


def test_lengths_of_time_are_read():
    assert length_of_time("1.5y") == pd.Timedelta("547.5D") and length_of_time(" 36H ") == pd.Timedelta("36h")


@pytest.mark.parametrize("n", [700, 4_000, 30_000, 60_000])
def test_stretches_touch_and_reach_the_newest_candle(n):
    index = pd.date_range("2018-01-01", periods=n, freq="h", tz="UTC")
    plan = plan_folds(index, HOUR, step="10d" if n < 1_000 else "90d")
    assert plan[-1].judge_until == index[-1] + HOUR and 1 <= len(plan) <= 8
    assert all(a.judge_until == b.judge_from for a, b in zip(plan, plan[1:]))
    assert all(f.learn_from < f.known_until <= f.judge_from < f.judge_until for f in plan)


@pytest.mark.parametrize("asked, says", [
    (dict(folds=0), "folds"), (dict(folds=True), "folds"), (dict(since="2030-01-01"), "after the last candle"),
    (dict(since="2018-01-02"), "too few candles"), (dict(folds=200), "too few candles"), (dict(train="x"), "train"),
    (dict(embargo="100y"), "too few candles"),
])
def test_what_cannot_be_planned(asked, says):
    index = pd.date_range("2018-01-01", periods=9_000, freq="h", tz="UTC")
    with pytest.raises(CryptolabError, match=says):
        plan_folds(index, HOUR, **asked)


def test_a_fold_sees_its_warm_up_and_nothing_behind_its_stretch():
    candles = sample_market(n=3_000)
    plan = plan_folds(candles.index, HOUR, "30d", "10d", 3)
    table = fold_candles(candles, plan[1])
    assert table.index[-1] == plan[1].judge_until - HOUR
    assert pd.Timestamp(table.attrs["warmup_until"]) == plan[1].learn_from
    assert (table.index < plan[1].learn_from).sum() == 600 and "warmup_until" not in candles.attrs


# ---- no future

def test_a_fold_never_moves_when_later_candles_do(market, walked):
    for fold in walked.folds.itertuples():
        later = market.index >= pd.Timestamp(fold.judge_until)
        if not later.any():
            continue
        other = walk_forward(
            Logistic(), with_prices(market, later, 2.0), "60d", "15d", 3, log=None,
        )
        same = market.index < pd.Timestamp(fold.judge_until)
        pd.testing.assert_series_equal(
            walked.table_["p_up"].loc[: market.index[same][-1]], other.table_["p_up"].loc[: market.index[same][-1]],
            check_exact=True,
        )


def test_an_embargo_keeps_outcomes_away(market):
    far = walk_forward(Logistic(), market, "60d", "15d", 3, embargo="5d", log=None)
    known, judged = (pd.Timestamp(far.folds[name].iloc[0]) for name in ("known_until", "judge_from"))
    assert judged - known == pd.Timedelta("5D")
    assert far.rows("test")[0] >= judged and far.rows("val")[-1] < known


def test_other_coins_teach_nothing_about_the_judged_time(market):
    other = planted_market(edge=0.15, n=3_000, seed=1)
    walks = []
    for table in (other, None):
        if table is None:
            table = with_prices(other, other.index > pd.Timestamp(walks[0].folds["judge_from"].iloc[0]), 3.0)
        system = Reference(profile="smoke", threads=1, pool=("OTHER",))
        walks.append(walk_forward(system, market, "80d", "20d", 2, pool={"OTHER": table}, log=None))
    first = walks[0].table_["fold"] == 0
    one, two = (pd.DataFrame(walk.table_[first]).drop(columns="model") for walk in walks)
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert not walks[0].table_["p_up"][~first].equals(walks[1].table_["p_up"][~first])


# ---- bad input

def test_a_pooled_coin_that_is_over_or_not_born_yet_teaches_nothing(market):
    other = planted_market(edge=0.15, n=3_000, seed=1)
    young = other[other.index >= market.index[-10]]
    young.attrs = dict(other.attrs)
    system = Reference(profile="smoke", threads=1, pool=("YOUNG",))
    walk = walk_forward(system, market, "80d", "20d", 2, pool={"YOUNG": young}, log=None)
    assert walk.folds["pool"].tolist() == [[], []]


def test_a_fold_without_candles_is_counted_and_left_out(market):
    plan = plan_folds(market.index, HOUR, "60d", "15d", 3)
    hole = market[(market.index < plan[1].judge_from) | (market.index >= plan[1].judge_until)]
    hole.attrs = dict(market.attrs)
    lines = []
    walk = walk_forward(Logistic(), hole, "60d", "15d", 3, log=lines.append)
    assert len(walk.folds) == 2 and walk.left_out_ == {1: "no candle in this stretch"}
    assert "no candle" in " ".join(lines)
    assert compare(walk, hole).boards["direction"]["n"].iloc[0] == len(walk.rows("test", "direction"))


@pytest.mark.parametrize("wrong, says", [
    (dict(warm=True), "cannot start warm"), (dict(step="1x"), "length of time"), (dict(folds=40), "too few candles"),
])
def test_what_cannot_be_walked(market, wrong, says):
    with pytest.raises(CryptolabError, match=says):
        walk_forward(Logistic(), market, **{"train": "60d", "step": "15d"} | wrong, log=None)
    with pytest.raises(SettingsError, match="cannot be walked"):
        walk_forward(Logistic(test_start="2024-10-01"), market, log=None)


def test_a_walk_knows_only_its_own_candles_and_parts(market, walked):
    with pytest.raises(ModelError, match="only its own candles"):
        walked.forecast(market.iloc[:-1])
    with pytest.raises(SettingsError, match="no such part"):
        walked.rows("future")


WALK = """
import sys, time
sys.path.insert(0, {root!r})
from tests.test_walk import Logistic
from cryptolab.data.market import planted_market
from cryptolab.systems.walk_forward import walk_forward
def log(line):
    print(line, flush=True)
    time.sleep(1)
walk_forward(Logistic(), planted_market(edge=0.15, n=3_000), "60d", "15d", 3, work={work!r}, log=log)
"""


def test_a_killed_walk_goes_on_where_it_was(tmp_path, market, walked):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    process = subprocess.Popen(
        [sys.executable, "-c", WALK.format(root=root, work=str(tmp_path))], stdout=subprocess.PIPE, text=True,
    )
    assert "fold 1/3" in process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("fold.json")}
    assert 1 <= len(made) < 3
    again = walk_forward(Logistic(), market, "60d", "15d", 3, work=tmp_path, log=None)
    pd.testing.assert_frame_equal(again.table_, walked.table_, check_exact=True, check_freq=False)
    assert all(path.stat().st_mtime_ns == then for path, then in made.items())


# ---- what a walk is compared with

def test_rivals_are_refitted_with_every_fold(market, walked):
    judged = compare(walked, market)
    folds = judged.folds["direction"]
    assert len(folds) == 3 and sum(len(f["test"]) for f in folds) == judged.boards["direction"]["n"].iloc[0]
    majority = pd.Series(judged.methods["direction"]["majority"], judged.rows["direction"]["test"])
    for fold in folds:
        y = walked.labels(market)["direction"]["y"][fold["train"]]
        assert np.allclose(majority[fold["test"]], y.mean())
    tables = walk_tables(judged, walked)
    assert all(table["n"].sum() == len(majority) for table in tables.values())


def test_groups_are_known_at_the_decision(market, walked):
    rows = walked.rows("test")[:300]
    groups = market_groups(market, rows)
    later = with_prices(market, market.index > rows[-1], 5.0)
    for name, group in market_groups(later, rows).items():
        pd.testing.assert_series_equal(group, groups[name])


# ---- the reference system

def test_the_line_is_least_squares():
    rng = np.random.default_rng(0)
    names = ["level", *(f"har_{k}" for k in (1, 2, 3, 6, 12, 24, 48, 72, 336, 504))]
    x = pd.DataFrame(rng.normal(size=(400, 11)), columns=names).assign(level=np.exp(rng.normal(size=400)))
    x["hour"], x["weekday"] = np.arange(400) % 3, (np.arange(400) // 3) % 2
    y = x["level"].to_numpy() * np.exp(rng.normal(size=400))
    line = fit_har_line(x, y)
    steps = [x["hour"] == 1, x["hour"] == 2, x["weekday"] == 1]
    design = np.column_stack([np.ones(400), np.log(x["level"]), x[names[1:]], *steps]).astype(float)
    known = np.linalg.lstsq(design, np.log(y / x["level"].to_numpy()), rcond=None)[0]
    np.testing.assert_allclose(line.weights, known, atol=1e-6)
    np.testing.assert_allclose(line.predict(x), design @ known, atol=1e-5)
    assert line.seasons == {"hour": [1, 2], "weekday": [1]}
    with pytest.raises(DataError, match="too few rows"):
        fit_har_line(x.iloc[:20], y[:20])


def test_the_level_is_where_qlike_is_smallest():
    rng = np.random.default_rng(1)
    y, f = np.exp(rng.normal(size=500)), np.exp(rng.normal(size=500))
    best = level_factor(y, f)
    grid = best * np.linspace(0.5, 1.5, 101)
    assert np.argmin([qlike_loss(y, k * f).mean() for k in grid]) == 50


def reversing(n=3_000, seed=0):
    "Candles of which two in three turn the last move round."
    rng, sign = np.random.default_rng(seed), [1]
    for turn in rng.random(n - 1) < 2 / 3:
        sign.append(-sign[-1] if turn else sign[-1])
    close = 100 * np.exp(np.cumsum(sign * np.abs(rng.normal(0, 0.003, n))))
    opened = np.r_[100.0, close[:-1]]
    wide = np.abs(rng.normal(0, 0.001, n))
    return pd.DataFrame(
        {
            "open": opened, "high": np.maximum(opened, close) * (1 + wide),
            "low": np.minimum(opened, close) * (1 - wide), "close": close, "volume": rng.lognormal(0, 1, n),
        },
        index=pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC", name="open_time"),
    )


def test_it_finds_a_reversal():
    candles = reversing()
    system = Reference(profile="smoke", threads=1, timeframe="1h").fit(candles, log=None)
    assert 0.6 < system.results_["direction_metrics"]["roc_auc"] < 0.72  # two in three is all there is


def test_it_finds_the_range(market, fitted):
    judged = compare(fitted, market)
    assert judged.boards["volatility"]["qlike"]["Reference"] < judged.boards["volatility"]["qlike"]["persistence"]
    assert fitted.forecast(market)["mu"].eq(0).all()


def test_forecasts_do_not_move_when_later_candles_do(market, fitted):
    table, cut = fitted.forecast(market), market.index[2_500]
    later = with_prices(market, market.index > cut, 4.0)
    pd.testing.assert_frame_equal(fitted.forecast(later).loc[:cut], table.loc[:cut], check_exact=True)


def test_prices_in_another_unit_give_the_same(market):
    a = Reference(profile="smoke", threads=1).fit(market, log=None).forecast(market)
    b = Reference(profile="smoke", threads=1).fit(with_prices(market, market.index, 1024.0), log=None)
    np.testing.assert_allclose(b.forecast(with_prices(market, market.index, 1024.0))["p_up"], a["p_up"], atol=1e-9)


@pytest.mark.parametrize("change, says", [
    (lambda f: (f / "direction.txt").write_text("tree"), "changed|altered|sum"),
    (lambda f: (f / "volatility.txt").unlink(), "missing|sum|not"),
])
def test_an_altered_folder_is_refused(tmp_path, fitted, change, says):
    folder = fitted.save(tmp_path / "model")
    change(folder)
    with pytest.raises(ModelError, match=says):
        Reference.load(folder)


@pytest.mark.parametrize("part, value", [
    (("line", "weights"), [1.0, 2.0]), (("scale", "factor"), "much"), (("scale", "width"), float("1e999")),
    (("line", "seasons"), {"hour": ["x"], "weekday": []}),
])
def test_impossible_numbers_are_refused(tmp_path, fitted, part, value):
    from cryptolab.systems.artefacts import check_manifest, write_manifest

    folder = fitted.save(tmp_path / "model")
    facts = {k: v for k, v in check_manifest(folder, "reference").items() if k not in ("files", "sha256")}
    stored = json.loads((folder / "reference.json").read_text())
    stored[part[0]][part[1]] = value
    (folder / "reference.json").write_text(json.dumps(stored))
    write_manifest(folder, **facts)
    with pytest.raises(ModelError):
        Reference.load(folder)


@pytest.mark.parametrize("candles, says", [
    (lambda m: m.iloc[:400], "too few candles"),
    (lambda m: with_prices(m, m.index, 0.0).assign(open=1.0, high=1.0, low=1.0, close=1.0), "all prices are the same"),
])
def test_what_cannot_be_learned(market, candles, says):
    with pytest.raises(DataError, match=says):
        Reference(profile="smoke", threads=1).fit(candles(market), log=None)


def test_a_fold_that_cannot_be_learned_is_left_out_with_its_reason(market):
    class Refuses(Logistic):
        "Refuses to learn where prices are doubled."

        def fit(self, candles, **more):
            if candles["close"].iloc[-1] > 1e4:
                raise DataError("one class only", "both", "one", "use other candles")
            return super().fit(candles, **more)

    last = plan_folds(market.index, HOUR, "60d", "15d", 3)[2].judge_from
    walk = walk_forward(Refuses(), with_prices(market, market.index >= last, 1e3), "60d", "15d", 3, log=None)
    assert walk.left_out_ == {2: "one class only"} and len(walk.folds) == 2
    with pytest.raises(DataError, match="no fold could be judged"):
        walk_forward(Refuses(), with_prices(market, market.index, 1e3), "60d", "15d", 3, log=None)


def test_a_coin_that_was_over_before_a_fold_brings_no_rows_of_it():
    candles = sample_market(n=3_000)
    fold = plan_folds(candles.index, pd.Timedelta("1h"), "30d", "10d", 1)[0]
    over = candles[candles.index < fold.learn_from - pd.Timedelta("1D")]
    assert (fold_candles(over, fold).index < fold.learn_from).all() and len(fold_candles(over, fold)) <= 600


# ---- V9 stacked on the reference

@pytest.fixture(scope="module")
def stacked():
    from cryptolab.systems.v9 import V9

    candles = sample_market(n=2_000)
    sizes = {"direction_epochs": 1, "price_epochs": 1, "trees": 10}
    return V9(profile="smoke", threads=1, stack="reference", sizes=sizes).fit(candles, log=None), candles


def test_a_stacked_v9_comes_back_whole_and_sees_no_future(tmp_path, stacked):
    from cryptolab.systems.v9 import V9

    system, candles = stacked
    table, cut = system.forecast(candles), candles.index[1_800]
    assert min(system.stack_.network, system.stack_.trees) >= 0 and 0 <= system.stack_.share <= 1
    folder = system.save(tmp_path / "model")
    again = V9.load(folder)
    pd.testing.assert_frame_equal(again.forecast(candles), table, check_exact=True)
    later = with_prices(candles, candles.index > cut, 3.0)
    pd.testing.assert_frame_equal(again.forecast(later).loc[:cut], table.loc[:cut], check_exact=True)
    (folder / "stack_v9.json").write_text((folder / "stack_v9.json").read_text().replace("share", "shore"))
    with pytest.raises(ModelError, match="stack_v9.json"):
        V9.load(folder)


def test_a_stacked_v9_is_weighed_on_rows_that_have_chosen_nothing(stacked):
    from cryptolab.systems.v9.rows import prepare_rows
    from cryptolab.systems.v9.system import V9, choosing_rows, train_part

    rows, numbers = prepare_rows(stacked[1]), {}
    for stack in ("none", "reference"):
        system = V9(profile="smoke", threads=1, stack=stack)
        numbers[stack] = {name: choosing_rows(system, rows, name) for name in rows.parts}
        model, _ = train_part(system, "volatility", rows, system.chosen_sizes(), log=None)
        numbers[stack]["model"] = model
    for name, parts in rows.parts.items():
        (chosen, _), (weighed, y) = numbers["reference"][name]
        assert weighed.min() - chosen.max() > 14 and set(chosen) | set(weighed) <= set(parts["val"][0])
        np.testing.assert_array_equal(y, parts["val"][1][-len(y):])
        np.testing.assert_array_equal(numbers["none"][name][1][0], parts["val"][0])
    (chosen, y), _ = numbers["reference"]["volatility"]
    cut = {**rows.parts["volatility"], "val": (chosen, y)}
    rows.parts["volatility"] = cut
    expected, _ = train_part(V9(profile="smoke", threads=1), "volatility", rows, system.chosen_sizes(), log=None)
    x = rows.windows.flat(rows.parts["volatility"]["test"][0])
    np.testing.assert_array_equal(numbers["reference"]["model"].predict(x), expected.predict(x))


def test_the_weights_come_from_the_later_half(stacked):
    from cryptolab.systems.reference.rows import reference_rows
    from cryptolab.systems.v9.rows import prepare_rows
    from cryptolab.systems.v9.stack import early_table, fit_stack
    from cryptolab.systems.v9.system import choosing_rows, raw_forecast, stacked_reference

    system, candles = stacked
    rows, reference = prepare_rows(candles), stacked_reference(system)
    table, _ = early_table(reference, reference_rows(candles, test_start=rows.borders))

    def said(pairs, name, column):
        numbers, y = pairs
        theirs = table[column].reindex(rows.windows.index[numbers]).to_numpy()
        return y, raw_forecast(system.models_, rows.windows, numbers, name), theirs

    late = {name: choosing_rows(system, rows, name)[1] for name in ("direction", "volatility")}
    found = fit_stack(
        *said(late["direction"], "direction", "p_up"), said(late["volatility"], "volatility", "natr"),
        said(rows.parts["volatility"]["val"], "volatility", "natr"),
    )
    assert found == system.stack_


def test_only_the_newest_rows_teach_where_that_is_asked(stacked):
    from cryptolab.systems.v9.rows import prepare_rows
    from cryptolab.systems.v9.system import V9, train_part

    rows = prepare_rows(stacked[1])
    x = rows.windows.flat(rows.parts["volatility"]["test"][0])

    def learned(**params):
        system = V9(profile="smoke", threads=1, **params)
        return train_part(system, "volatility", rows, system.chosen_sizes(), log=None)[0].predict(x)

    newest, everything = learned(newest=300), learned()
    rows.parts["volatility"]["train"] = tuple(part[-300:] for part in rows.parts["volatility"]["train"])
    np.testing.assert_array_equal(newest, learned())
    assert not np.array_equal(newest, everything)
    for wrong in (99, 1.5, "all"):
        with pytest.raises(SettingsError, match="newest"):
            V9(newest=wrong).check_params()


def test_parts_of_a_stacked_walk_become_rivals(stacked):
    from copy import copy

    from cryptolab.systems.walk_forward import Walk

    system, candles = stacked
    walk = copy(object.__new__(Walk))
    walk.table_, walk.title = system.forecast(candles), "V9"
    theirs = walk.answers("reference", "Reference")
    assert list(theirs.table_) == ["p_up", "natr"] and (theirs.title, walk.title) == ("Reference", "V9")
    pd.testing.assert_series_equal(theirs.table_["p_up"], walk.table_["p_up_reference"], check_names=False)
    with pytest.raises(SettingsError, match="no such part"):
        walk.answers("nobody")


def test_what_it_says_is_the_weighed_answer_of_both(stacked):
    from cryptolab.models.calibration import log_odds

    system, candles = stacked
    both, theirs = system.forecast(candles), system.reference_.forecast(candles)
    stack, system.stack_ = system.stack_, None
    try:
        alone = system.forecast(candles)
    finally:
        system.stack_ = stack
    common = alone.index.intersection(theirs.index)
    p, q = (log_odds(table["p_up"][common]) for table in (alone, theirs))
    z = stack.intercept + stack.network * p + stack.trees * q
    np.testing.assert_allclose(both["p_up"][common], 1 / (1 + np.exp(-z)), rtol=1e-9)
    before = alone.index.difference(theirs.index)  # the reference needs a longer memory
    assert len(before) and both["p_up"][before].equals(alone["p_up"][before])
    log = stack.share * np.log(alone["natr"][common]) + (1 - stack.share) * np.log(theirs["natr"][common])
    np.testing.assert_allclose(both["natr"][common], stack.factor * np.exp(log), rtol=1e-9)


def test_the_reference_learned_nothing_of_the_rows_that_v9_was_chosen_on(stacked):
    system, _ = stacked
    ours, theirs = (one.rows("val", "volatility") for one in (system, system.reference_))
    assert system.reference_.rows("train", "volatility")[-1] < ours[0] and theirs[0] >= ours[0]
    assert system.reference_.rows("test", "direction")[0] == system.rows("test", "direction")[0]


# ---- the page and the command

def test_the_title_says_that_it_was_a_walk():
    from cryptolab.reports.head import page_title

    data = {"candles": 9, "last": "2025-06-30"}
    result = {"system": "v9", "symbol": "A", "timeframe": "1h", "data": data, "walk": {"folds": 3}}
    assert "walk forward, 3 folds" in page_title(result) and "walk" not in page_title(result | {"walk": {}})


@pytest.mark.parametrize("walk, system, says", [
    ({"train": "3x"}, "v9", "no length of time"), ({"stop": "90d"}, "v9", "no such setting"),
    ({"folds": 0}, "v9", "folds"), ({"since": "soon"}, "v9", "since"), ({}, "none", "unknown system"),
])
def test_a_walk_that_cannot_work_is_refused_before_anything_is_loaded(walk, system, says):
    from cryptolab.runs.report import check_walk

    with pytest.raises(CryptolabError, match=says):
        check_walk(system, walk)


def test_the_name_of_a_walk_is_not_that_of_the_report():
    from cryptolab.runs.report import check_inputs, find_template

    values = dict(
        symbol="BTCUSDT", timeframe="1h", source="sample", data_dir="data", profile="smoke", limit=3_000, seed=0,
        fee=0.001, slippage=0.0005, start=None, end=None, params={},
    )
    names = [check_inputs(dict(values, **more), "reference", None) for more in ({}, {"walk": {"train": "60d"}})]
    assert names[0] == ("BTCUSDT-1h-reference", find_template("system"))
    assert names[1] == ("BTCUSDT-1h-reference-walk", find_template("walk"))
