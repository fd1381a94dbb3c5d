"""The leak zoo: every pipeline runs, the leaky ones leak where they say, and the clean ones use nothing of the future.

The proofs here know what they look for (the step of each entry); a detector does not.
"""
import warnings

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.audit.zoo.zoo import ZOO, entry, kinds, make, table
from cryptolab.audit.zoo.parts import STEPS, Notebook, forecasts, outcome

LEAKY, CLEAN = [e for e in ZOO if e.leaky], [e for e in ZOO if not e.leaky]
UNSEEDED = {"no_seed", "seed_of_the_moment"}  # give other forecasts each time, on purpose
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

@named(ZOO)
def test_it_runs_and_its_tables_are_aligned(animal):
    candles, pipeline = animal.candles(2_000), animal.make()
    before = candles.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = forecasts(pipeline, candles)
    pd.testing.assert_frame_equal(candles, before)
    features, labels = pipeline.features(candles), pipeline.labels(candles)
    assert features.index.equals(candles.index) and labels.index.equals(candles.index) and features.columns.is_unique
    if isinstance(labels, pd.DataFrame):
        assert ((labels["t1"] > labels["t0"]) & (labels["t0"] >= candles.index)).all()
    for train, test in folds_of(pipeline.split(features, labels)):
        assert len(train) > 300 and len(test) > 100 and outcome(labels).iloc[[*train, *test]].notna().all()
    assert np.isfinite(found[["y", "forecast"]]).all(axis=None) and found["forecast"].between(-1, 1).all()
    if animal.name not in UNSEEDED and ZOO.index(animal) % 3 == 0:
        pd.testing.assert_frame_equal(found, forecasts(animal.make(), candles))


@pytest.mark.parametrize("change", ["longer", "shorter", "gaps", "15m"])
def test_it_runs_on_other_candles(change):
    "A detector changes candles; no pipeline may break because of it."
    for e in ZOO[("longer", "shorter", "gaps", "15m").index(change) :: 4]:
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
        pipeline.context = {s: c[: rows] for s, c in pipeline.context.items()}
    return pipeline.features(part)


def sees_ahead(animal):
    "Do features of early rows change when later candles are taken away?"
    candles = candles_of(animal)
    whole = features_of(animal, candles, len(candles))
    for rows in (120, 601, 850, 998, 1_111, 1_207, 1_333, 1_444):
        part = features_of(animal, candles, rows)
        if not whole.columns.equals(part.columns) or not np.allclose(
            whole[:rows], part, rtol=1e-9, atol=1e-12, equal_nan=True,
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
            features, labels = features.astype(float), labels.copy()
            only = np.setdiff1d(test, train)
            features.iloc[only] = features.iloc[rng.permutation(only)].to_numpy() * 1.5
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
    if list(probe.columns) != list(probe_2.columns) or not np.allclose(taught, taught_2, equal_nan=True):
        return True
    return not np.allclose(one.predict(probe), two.predict(probe))


def waits_for_later_tests(animal):
    "Do forecasts of the first test rows change when the later ones are others?"
    candles = candles_of(animal)
    pipeline = animal.make(candles)
    features, labels = pipeline.features(candles), pipeline.labels(candles)
    train, test = folds_of(pipeline.split(features, labels))[0]
    X, y = pipeline.prepare(features, labels, train, test) if hasattr(pipeline, "prepare") else (features, labels)
    pipeline.fit(X.iloc[train], outcome(y).iloc[train])
    whole, part, half = pipeline.predict(X.iloc[test]), X.iloc[test].astype(float), len(test) // 2
    part.iloc[half:] = part.iloc[half:].to_numpy() * 3 + 0.01
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

@named([e for e in LEAKY if e.step == "features"])
def test_leaky_features_change_with_the_future(animal):
    assert sees_ahead(animal)


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


@named([e for e in LEAKY if e.step in ("prepare", "fit")])
def test_leaky_fits_heed_the_test_rows(animal):
    assert any(heeds_the_test(animal, seed) for seed in range(3))


@named([e for e in LEAKY if e.step == "predict"])
def test_leaky_forecasts_wait_for_later_rows(animal):
    assert waits_for_later_tests(animal)


# ---- the clean ones use nothing of the future

@named(CLEAN)
def test_clean_features_end_at_their_row(animal):
    assert not sees_ahead(animal)


@named(list({(e.build.labels, e.market): e for e in CLEAN}.values()))  # most share their labels
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


@named([e for e in CLEAN if e.name not in UNSEEDED])
def test_clean_fits_know_training_rows_only(animal):
    assert not heeds_the_test(animal) and not waits_for_later_tests(animal)


@named([e for e in CLEAN if e.kind == "survivorship"])
def test_clean_choices_do_not_wait_for_the_outcome(animal):
    assert not forgets_by_outcome(animal)
