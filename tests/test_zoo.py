"""The leak zoo: every pipeline runs, the leaky ones leak where they say, and the clean ones use nothing of the future.

The proofs here know what they look for (the step of each entry); a detector does not.
"""
import warnings

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.audit.zoo.zoo import FIRST, LATER, ZOO, entry, kinds, make, table
from cryptolab.audit.zoo.parts import STEPS, Notebook, forecasts, outcome

LEAKY, CLEAN = [e for e in ZOO if e.leaky], [e for e in ZOO if not e.leaky]
# give other forecasts each time, on purpose
UNSEEDED = {"no_seed", "seed_of_the_moment", "lucky_moment", "unseeded_probe", "dropout_at_the_forecast"}
SLOW = {"modes_of_the_past", "spectrum_of_the_past"}  # a decomposition per row
RUN = [e for e in ZOO if e not in LATER or LATER.index(e) % 3 == 0]  # the benchmark runs all of them
MARKET = {}


@pytest.fixture(scope="module", autouse=True)
def heavy_libraries_are_loaded():
    forecasts(make("backfilled_volume"), entry("backfilled_volume").candles(1_000))


def named(entries):
    return pytest.mark.parametrize("animal", entries, ids=lambda e: e.name)


def candles_of(animal, n=1_500):
    "Candles of an entry, made once."
    key = (animal.market, n)
    if key not in MARKET:
        MARKET[key] = animal.candles(n)
    return MARKET[key]


def folds_of(found):
    return [found] if isinstance(found, tuple) else found


# ---- what is there

def test_counts_kinds_and_twins():
    count = kinds()
    assert len(LEAKY) >= 34 and len(CLEAN) >= 34 and len(count) >= 20
    assert (count >= 1).all(axis=None)  # each kind with a smooth learner, with trees, and with a clean look-alike
    names = [e.name for e in ZOO]
    assert len(set(names)) == len(names)
    for e in ZOO:
        assert e.step in STEPS and e.story.endswith(".") and e.kind in count.index
        assert not e.leaky or not entry(e.twin).leaky
    assert list(table()["name"]) == names


def test_a_wrong_name_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match="centred_mean"):
        make("centered_mean")


def test_features_without_labels_are_refused():
    class Torn(Notebook):
        def features(self, candles):
            return super().features(candles).dropna()
    with pytest.raises(DataError, match="same rows"):
        forecasts(Torn(), candles_of(ZOO[0]))


# ---- every entry runs

@named(RUN)
def test_it_runs_and_its_tables_are_aligned(animal):
    candles, pipeline = animal.candles(2_000), animal.make()
    before = candles.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = forecasts(pipeline, candles)
    pd.testing.assert_frame_equal(candles, before)
    features, labels = pipeline.features(candles), pipeline.labels(candles)
    stacked = animal.kind == "stacked coins"
    assert stacked or features.index.equals(candles.index) and labels.index.equals(candles.index)
    assert features.columns.is_unique and features.index.equals(labels.index)
    if isinstance(labels, pd.DataFrame):
        assert ((labels["t1"] > labels["t0"]) & (labels["t0"] >= labels.index)).all()
    for train, test in folds_of(pipeline.split(features, labels)):
        assert len(train) > 300 and len(test) > 100 and outcome(labels).iloc[[*train, *test]].notna().all()
    assert np.isfinite(found[["y", "forecast"]]).all(axis=None) and found["forecast"].between(-1, 1).all()
    if animal.name not in UNSEEDED and ZOO.index(animal) % 3 == 0:
        pd.testing.assert_frame_equal(found, forecasts(animal.make(), candles))


@pytest.mark.parametrize("change", ["longer", "shorter", "gaps", "15m"])
def test_it_runs_on_other_candles(change):
    "A detector changes candles; no pipeline may break because of it."
    for e in FIRST[("longer", "shorter", "gaps", "15m").index(change) :: 4]:
        candles = candles_of(e, 1_500)
        if change == "longer":
            candles = e.candles(2_500, seed=1)
        elif change == "shorter":
            candles = candles[:1_000]
        elif change == "gaps":
            candles = candles.drop(candles.index[[300, 700, 701, 1_200]])
        else:
            candles = candles.set_axis(
                pd.date_range("2024-01-01", periods=1_500, freq="15min", tz="UTC", name="open_time")
            )
        assert len(forecasts(e.make(candles), candles)) > 100, e.name


# ---- tools that know what they look for

def after(candles, row, seed=0):
    "The same candles with another future after `row`."
    changed, rng = candles.copy(), np.random.default_rng([seed, row])
    n = len(candles) - row - 1
    changed.iloc[row + 1 :, :4] *= np.exp(0.2 * rng.standard_normal((n, 1)))
    if seed % 2:  # no wicks
        changed.iloc[row + 1 :, 1] = changed.iloc[row + 1 :, [0, 3]].max(axis=1)
        changed.iloc[row + 1 :, 2] = changed.iloc[row + 1 :, [0, 3]].min(axis=1)
    else:  # long ones
        changed.iloc[row + 1 :, 1] *= np.exp(0.1 * rng.random(n))
        changed.iloc[row + 1 :, 2] /= np.exp(0.1 * rng.random(n))
    changed.iloc[row + 1 :, 4] *= np.exp(rng.standard_normal(n))
    return changed


def once(function):
    "Remember the answer per label function: most pipelines share one."
    answers = {}

    def ask(animal):
        key = animal.build.labels, animal.market
        if key not in answers:
            answers[key] = function(animal)
        return answers[key]
    return ask


def features_of(animal, candles, rows):
    "Features of the first rows, by a notebook that has only these candles (and those of other coins until then)."
    pipeline, part = animal.make(candles), candles[:rows]
    if hasattr(pipeline, "context"):
        pipeline.context = until(pipeline.context, part.index[-1] + (candles.index[1] - candles.index[0]), rows)
    return numbers(pipeline.features(part))


def numbers(table):
    "Words as 0 and 1."
    return table.apply(lambda x: x if pd.api.types.is_numeric_dtype(x) else (x == "buy").astype(float))


def until(context, time, rows):
    "Tables as they were at a time: rows declared as known, or candles of other coins, which close with the candle."
    if isinstance(context, dict):
        return {name: until(value, time, rows) for name, value in context.items()}
    if isinstance(context, list):
        return [until(value, time, rows) for value in context]
    if isinstance(context, np.ndarray):
        return context[:rows]
    known = context["known"] if "known" in context else context.index
    return context[:rows] if "close" in context else context[np.asarray(known <= time)]


def sees_ahead(animal):
    "Do features of early rows change when later candles are taken away?"
    candles = candles_of(animal)
    whole = features_of(animal, candles, len(candles))
    rare = [int(row) + 1 for row in np.argsort(candles["close"].pct_change().to_numpy())[:4] - 1]
    rare += [int(row) for row in np.flatnonzero((candles.index.day_of_week == 0) & (candles.index.hour == 0)) + 1]
    rare = rare if animal.kind == "leak in few rows" else []
    for rows in (700,) if animal.name in SLOW else (120, 601, 850, 998, 1_111, 1_207, 1_333, 1_444, *rare):
        part = features_of(animal, candles, rows)
        if not whole.columns.equals(part.columns) or not np.allclose(
            whole[:rows], part, rtol=1e-12 if animal.kind == "trace of the future" else 1e-9, atol=1e-12,
            equal_nan=True,
        ):
            return True
    return False


@once
def reach(animal):
    "How many candles after its row a label really depends on, and how many of the labels near a change did change."
    candles, found = candles_of(animal), 0
    y = outcome(animal.make(candles).labels(candles))
    for row in (500, 961, 1_203):
        for seed in range(4):
            other = outcome(animal.make(candles).labels(after(candles, row, seed)))
            differs = np.flatnonzero(~((y == other) | (y.isna() & other.isna())))
            if len(differs) and differs[0] <= row:
                found = max(found, row + 1 - differs[0])
    return int(found)


def reached(animal, candles, labels):
    "Row of the last candle each label needs: the claimed one, or the measured one if no claim or one too early."
    rows = np.arange(len(candles))
    if isinstance(labels, pd.DataFrame):
        close = candles.index + (candles.index[1] - candles.index[0])
        claimed = close.searchsorted(labels["t1"])
        varying = len(np.unique((claimed - rows)[: -100])) > 2
        return claimed if varying else np.maximum(claimed, rows + reach(animal))
    return rows + reach(animal)


def overlaps(animal):
    "Does a training label share a candle of its outcome with a test label, or a training row with the test?"
    candles = candles_of(animal)
    pipeline = animal.make(candles)
    features, labels = pipeline.features(candles), pipeline.labels(candles)
    if animal.kind == "stacked coins":
        return any(
            features.index[train].isin(features.index[test]).any()
            for train, test in folds_of(pipeline.split(features, labels))
        )
    last, rows = reached(animal, candles, labels), np.arange(len(candles))
    first = rows + 1
    if isinstance(labels, pd.DataFrame) and (labels["t0"] == candles.index).all():
        first = rows  # decided at the open, settled at the close of the same candle
    for train, test in folds_of(pipeline.split(features, labels)):
        asked = np.zeros(len(candles) + 100, dtype=bool)
        for t in test:
            asked[first[t] : last[t] + 1] = True
        if any(asked[first[t] : last[t] + 1].any() for t in train) or np.intersect1d(train, test).size:
            return True
    return False


def heeds_the_test(animal, seed=0):
    "Do training rows or the fitted model change when features and outcomes of the test rows are others?"
    candles, rng = candles_of(animal), np.random.default_rng(seed)
    results, folds = [], None
    for changed in (False, True):
        pipeline = animal.make(candles)
        features, labels = pipeline.features(candles), pipeline.labels(candles)
        train, test = (folds_of(pipeline.split(features, labels)) if folds is None else folds)[0]
        folds = [(train, test)]
        if changed:
            words = features.select_dtypes(exclude="number").columns
            features, labels = features.astype({n: float for n in features.columns.difference(words)}), labels.copy()
            only = np.setdiff1d(test, train)
            columns = features.columns.get_indexer(features.columns.difference(words))
            features.iloc[only, columns] = features.iloc[rng.permutation(only), columns].to_numpy() * 1.5
            y = outcome(labels).to_numpy(copy=True)
            y[only] = rng.permutation(y[only])
            if isinstance(labels, pd.DataFrame):
                labels["y"] = y
            else:
                labels = pd.Series(y, index=labels.index)
            pipeline.split(features, labels)
        X, y = pipeline.prepare(features, labels, train, test) if hasattr(pipeline, "prepare") else (features, labels)
        pipeline.fit(X.iloc[train], outcome(y).iloc[train])
        results.append((X.iloc[train], X.iloc[test], pipeline))
    (taught, probe, one), (taught_2, probe_2, two) = results
    if list(probe.columns) != list(probe_2.columns) or not np.allclose(
        numbers(taught), numbers(taught_2), equal_nan=True,
    ):
        return True
    if np.array_equal(probe.fillna(0), probe_2.fillna(0)) or not isinstance(probe.index, pd.DatetimeIndex):
        return not np.allclose(one.predict(probe), two.predict(probe))
    return not np.allclose(one.predict(taught), two.predict(taught))  # a forecast may use settled outcomes of the test


def waits_for_later_tests(animal):
    "Do forecasts of the first test rows change when the later ones are others?"
    candles = candles_of(animal)
    pipeline = animal.make(candles)
    features, labels = pipeline.features(candles), pipeline.labels(candles)
    train, test = folds_of(pipeline.split(features, labels))[0]
    X, y = pipeline.prepare(features, labels, train, test) if hasattr(pipeline, "prepare") else (features, labels)
    pipeline.fit(X.iloc[train], outcome(y).iloc[train])
    whole, part, half = pipeline.predict(X.iloc[test]), X.iloc[test].copy(), len(test) // 2
    for name in part.select_dtypes("number"):
        part[name] = np.r_[part[name][:half], part[name][half:] * 3 + 0.01]
    other, alone = pipeline.predict(part), pipeline.predict(X.iloc[test[:half]])
    return not (np.allclose(whole[:half], other[:half]) and np.allclose(whole[:half], alone))


@once
def known_already(animal):
    "How much more often than the commoner class a label equals that of a market that stands still after the decision."
    candles = candles_of(animal)
    pipeline = animal.make(candles)
    y, agree = outcome(pipeline.labels(candles)).to_numpy(), []
    for row in range(300, 1_300, 13):
        still = candles[row - 260 : row + 40].copy()
        # a trace of a trend, so that 0 is no tie
        still.iloc[261:, :4] = candles["close"].iloc[row] * np.exp(1e-9 * np.arange(1, 40))[:, None]
        falling = candles[row - 260 : row + 40].copy()
        falling.iloc[261:, :4] = candles["close"].iloc[row] * np.exp(-1e-9 * np.arange(1, 40))[:, None]
        one, two = (outcome(pipeline.labels(c)).iloc[260] for c in (still, falling))
        if one == two and not np.isnan(y[row]):  # decided by the past, whichever way the trace goes
            agree.append((one, y[row]))
    said, came = np.array(agree).T if len(agree) > 25 else (np.zeros(1), np.ones(1))
    return (said == came).mean() - max((came == c).mean() for c in (-1, 0, 1))


def forgets_by_outcome(animal):
    "Is a row left out because of what came after it?"
    candles = candles_of(animal)
    used = []
    for seed in (None, 0, 1):
        pipeline = animal.make(candles)
        features = pipeline.features(candles)
        labels = pipeline.labels(candles if seed is None else after(candles, 1_300, seed))
        used.append(folds_of(pipeline.split(features, labels))[0][1])
    near = [set(u[(u > 1_280) & (u < 1_450)]) for u in used]
    return near[0] != near[1] or near[0] != near[2]


# ---- the leaky ones leak in the step they name

@named([e for e in LEAKY if e.step == "features" and e.name != "unit_of_everything"])
def test_leaky_features_change_with_the_future(animal):
    assert sees_ahead(animal)


def test_a_unit_of_everything_is_moved_by_later_rates_on_another_level():
    candles = candles_of(entry("unit_of_everything"))
    pipeline = make("unit_of_everything", candles)
    before, rate = pipeline.features(candles), pipeline.context["funding"]
    pipeline.context = {"funding": rate * np.where(rate.index <= candles.index[1_000], 1, 1_000)[:, None]}
    assert not np.allclose(before[30:900], pipeline.features(candles)[30:900])


@named([e for e in LEAKY if e.step == "labels"])
def test_leaky_labels_are_known_or_chosen(animal):
    if animal.kind == "survivorship":
        assert forgets_by_outcome(animal)
    elif animal.kind == "same-bar label":
        assert reach(animal) == 0
    else:
        assert known_already(animal) > 0.1


@named([e for e in LEAKY if e.step == "split"])
def test_leaky_splits_overlap_or_choose(animal):
    assert forgets_by_outcome(animal) if animal.kind == "survivorship" else overlaps(animal)


@named([e for e in LEAKY if e.step in ("prepare", "fit") and e.name != "warm_start_in_blocks"])
def test_leaky_fits_heed_the_test_rows(animal):
    assert any(heeds_the_test(animal, seed) for seed in range(3))


def moves_with_later_candles(animal):
    "Do forecasts of test rows change when candles after them do?"
    candles, answers = candles_of(animal), []
    first = animal.make(candles)
    train, test = folds_of(first.split(first.features(candles), first.labels(candles)))[0]
    for changed in (candles, after(candles, test[152])):
        pipeline = animal.make(candles)
        features, labels = pipeline.features(changed), pipeline.labels(changed)
        X, y = pipeline.prepare(features, labels, train, test) if hasattr(pipeline, "prepare") else (features, labels)
        pipeline.fit(X.iloc[train], outcome(y).iloc[train])
        answers.append(pipeline.predict(X.iloc[test])[:153])
    return not np.allclose(*answers)


@named([e for e in LEAKY if e.step == "predict"])
def test_leaky_forecasts_wait_for_later_rows(animal):
    assert waits_for_later_tests(animal) or moves_with_later_candles(animal)


def test_a_model_that_goes_on_from_fold_to_fold_has_learned_the_test_block_only_where_folds_look_back():
    for name, leaky in (("warm_start_in_blocks", True), ("warm_start_forwards", False)):
        animal = entry(name)
        candles = candles_of(animal)
        pipeline, alone = animal.make(candles), animal.make(candles)
        features, y = pipeline.features(candles), outcome(pipeline.labels(candles))
        folds = pipeline.split(features, y)
        for train, _ in folds:
            seen = pipeline.fit(features.iloc[train], y.iloc[train]).predict(features.iloc[folds[-1][1]])
        last = alone.fit(features.iloc[folds[-1][0]], y.iloc[folds[-1][0]]).predict(features.iloc[folds[-1][1]])
        assert not np.allclose(seen, last)
        earlier = np.concatenate([train for train, _ in folds[:-1]])
        assert bool(np.isin(folds[-1][1], earlier).any()) is leaky


# ---- the clean ones use nothing of the future

@named([e for e in CLEAN if e.kind != "stacked coins"])
def test_clean_features_end_at_their_row(animal):
    assert not sees_ahead(animal)


@named(list({(e.build.labels, e.market): e for e in CLEAN if e.kind != "stacked coins"}.values()))  # many share them
def test_clean_labels_lie_ahead_and_their_intervals_are_true(animal):
    candles = candles_of(animal)
    labels = animal.make(candles).labels(candles)
    # decided at the open of the row's candle
    own = isinstance(labels, pd.DataFrame) and (labels["t0"] == candles.index).all()
    assert reach(animal) >= (0 if own else 1)
    # its label is made of volume, which the tool leaves as it is
    assert own or known_already(animal) < 0.05 or animal.name == "busy_half_day"
    if isinstance(labels, pd.DataFrame):
        for row in (500, 961):
            for seed in range(3):
                other = animal.make(candles).labels(after(candles, row, seed))
                settled = (labels["t1"] <= candles.index[row + 1]).to_numpy()
                pd.testing.assert_series_equal(labels["y"][settled], other["y"][settled])


@named(CLEAN)
def test_clean_splits_keep_outcomes_apart(animal):
    assert not overlaps(animal)


@named([e for e in CLEAN if e.name not in UNSEEDED | SLOW])
def test_clean_fits_know_training_rows_only(animal):
    assert not heeds_the_test(animal) and not waits_for_later_tests(animal)
    assert animal not in LATER or animal.step != "predict" or not moves_with_later_candles(animal)


@named([e for e in CLEAN if e.kind == "survivorship"])
def test_clean_choices_do_not_wait_for_the_outcome(animal):
    assert not forgets_by_outcome(animal)
