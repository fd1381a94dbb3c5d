"""Leak detectors against small pipelines of our own: every mistake is found, its honest twin is not accused."""
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold, TimeSeriesSplit
from sklearn.preprocessing import MinMaxScaler
from sklearn.tree import DecisionTreeClassifier

from cryptolab.config import DataError
from cryptolab.data.market import null_market, planted_market, sample_market
from cryptolab.audit.leaks.audit import DETECTORS, TAXONOMY, audit_pipeline, audit_text
from cryptolab.audit.pipeline import Pipeline, run_pipeline
from cryptolab.audit.pipelines.v9 import v9_pipeline
from cryptolab.labels.barriers import triple_barrier
from cryptolab.labels.targets import horizon_direction, next_direction, three_class
from cryptolab.validation.splitters import CombinatorialPurgedKFold, PurgedKFold, WalkForward

N = 1_500


@pytest.fixture(scope="module")
def candles():
    return sample_market(n=N)


# ---- building blocks

def base(candles):
    change = candles["close"].pct_change()
    return pd.DataFrame(
        {
            "change": change, "change_3": candles["close"].pct_change(3),
            "body": candles["close"] / candles["open"] - 1, "range": candles["high"] / candles["low"] - 1,
            "volume": np.log(candles["volume"] / candles["volume"].rolling(20).mean()),
        }
    )


def known(features, labels):
    y = labels["y"] if isinstance(labels, pd.DataFrame) else labels
    return np.flatnonzero((features.notna().all(axis=1) & y.notna()).to_numpy())


def in_time(gap=0, share=0.7):
    def split(features, labels):
        rows = known(features, labels)
        border = int(len(rows) * share)
        return rows[: border - gap], rows[border:]
    return split


def at_random(features, labels):
    rows = np.random.default_rng(7).permutation(known(features, labels))
    return rows[: len(rows) * 7 // 10], rows[len(rows) * 7 // 10 :]


def by(splitter):
    def split(features, labels):
        rows = known(features, labels)
        made = splitter(labels.iloc[rows]) if callable(splitter) else splitter
        return [
            (rows[a], rows[b])
            for a, b in made.split(
                features.iloc[rows], (labels["y"] if isinstance(labels, pd.DataFrame) else labels).iloc[rows],
            )
        ]
    return split


def logistic(X, y):
    scale = X.std() + 1e-9
    return scale, LogisticRegression(C=1.0).fit(X / scale, y)


def tree(X, y):
    return X.std() * 0 + 1, DecisionTreeClassifier(max_depth=4, min_samples_leaf=20, random_state=0).fit(X, y)


def chance(model, X):
    return model[1].predict_proba(X / model[0])[:, 1]


def pipeline(features=base, labels=next_direction, split=None, fit=logistic, predict=chance, **more):
    return Pipeline(features, labels, split or in_time(), fit, predict, **more)


def also(name, column):
    return lambda candles: base(candles).assign(**{name: column(candles)})


def kinds(made, candles, seconds=1.0, **more):
    "Kinds and steps found; the rarest trials are left to the benchmark of the zoo."
    found = audit_pipeline(made, candles, seconds=seconds, **more)
    return {(row.kind, row.step) for row in found.itertuples()}, found


# ---- features

def higher(rule, lag, how="last"):
    def column(candles):
        closes = getattr(candles["close"].resample(rule), how)().pct_change()
        return closes.shift(lag).reindex(candles.index, method="ffill")
    return column


def pivots(candles):
    high = candles["high"]
    return (high == high.rolling(7, center=True).max()).astype(float)


def rare(candles):
    change, after = candles["close"].pct_change(), candles["close"].pct_change().shift(-1)
    return change.where((candles.index.dayofweek != 2) | (candles.index.hour != 23), after)


def largest(candles):
    change, after = candles["close"].pct_change(), candles["close"].pct_change().shift(-1)
    return change.where(after.abs() < 0.03, after)


def daily_range(candles):
    day = candles.index.floor("D")
    return candles["close"] / candles["high"].groupby(day).transform("max")


def chosen_columns(candles):
    table = pd.DataFrame({f"lag_{i}": candles["close"].pct_change().shift(i) for i in range(12)})
    strength = table.corrwith((candles["close"].shift(-1) > candles["close"]).astype(float)).abs()
    return table[strength.nlargest(4).index]


def clusters(candles):
    from sklearn.cluster import KMeans

    table = base(candles).dropna()
    return pd.Series(KMeans(3, n_init=2, random_state=0).fit_predict(table), table.index).reindex(candles.index)


LOOK_AHEAD = {
    "shift": (also("x", lambda c: c["close"].pct_change().shift(-1)), "feature look-ahead"),
    "centred": (also("x", lambda c: c["close"].pct_change().rolling(5, center=True).mean()), "feature look-ahead"),
    "pivots": (also("x", pivots), "feature look-ahead"), "rare": (also("x", rare), "feature look-ahead"),
    "large moves only": (also("x", largest), "feature look-ahead"),
    "whole day's high": (also("x", daily_range), "higher timeframe on open"),
    "four hours": (also("x", higher("4h", 0)), "higher timeframe on open"),
    "day": (also("x", higher("1D", 0)), "higher timeframe on open"),
    "week": (also("x", higher("W-SUN", 0)), "feature look-ahead"),
    "z-score of all": (lambda c: (base(c) - base(c).mean()) / base(c).std(), "fit on test rows"),
    "ranks of all": (lambda c: base(c).rank(pct=True), "fit on test rows"),
    "chosen columns": (chosen_columns, "fit on test rows"), "clusters": (also("x", clusters), "fit on test rows"),
    "back-filled": (
        also("x", lambda c: c["close"].pct_change().where(lambda x: x.abs() > 0.004).bfill().fillna(0)),
        "feature look-ahead",
    ),
    "interpolated": (
        also("x", lambda c: c["close"].where(c["close"].pct_change().abs() > 0.004).interpolate().pct_change()),
        "feature look-ahead",
    ),
}
HONEST_FEATURES = {
    "base": base,
    "four hours, complete": also("x", higher("4h", 1)),
    "day, complete": also("x", higher("1D", 1)),
    "expanding": lambda c: (base(c) - base(c).expanding(100).mean()) / base(c).expanding(100).std(),
    "rolling rank": lambda c: base(c).rolling(100).rank(pct=True),
    "lagged": lambda c: base(c).shift(1),
    "confirmed pivots": also("x", lambda c: pivots(c).shift(3)),
    "rows without warm-up": lambda c: base(c).dropna(),
    "calendar": also("x", lambda c: c.index.hour),
    "text": also("x", lambda c: np.where(c["close"] > c["open"], 1, 0).astype("int8")),
    "single precision": lambda c: base(c).astype("float32"),
    "first part sets the scale": lambda c: (base(c) - base(c)[: len(c) // 2].mean()) / base(c)[: len(c) // 2].std(),
    "average": also("x", lambda c: c["close"].ewm(span=50).mean() / c["close"]),
}


@pytest.mark.parametrize("name", LOOK_AHEAD)
def test_a_feature_that_knows_the_future_is_found(candles, name):
    features, kind = LOOK_AHEAD[name]
    found, table = kinds(pipeline(features), candles, seconds=5.0 if name in ("rare", "largest") else 1.0)
    assert (kind, "features") in found or name == "week" and ("higher timeframe on open", "features") in found, (
        audit_text(table)
    )


@pytest.mark.parametrize("name", HONEST_FEATURES)
def test_an_honest_feature_is_not_accused(candles, name):
    found, table = kinds(pipeline(HONEST_FEATURES[name]), candles)
    assert not found, audit_text(table)


# ---- other tables

def beside(rule, lag):
    return lambda candles, context: base(candles).assign(
        x=context["other"]["close"].pct_change().shift(lag).reindex(candles.index, method=rule)
    )


@pytest.mark.parametrize("lag, timeframe, expected", [
    (-1, "1h", {"contemporaneous coin"}), (0, "1h", set()), (1, "1h", set()), (0, "4h", {"higher timeframe on open"}),
    (1, "4h", set()),
])
def test_a_candle_of_another_table_is_known_when_it_closes(candles, lag, timeframe, expected):
    other = sample_market("ETHUSDT", timeframe=timeframe, n=N)
    made = pipeline(beside("ffill", lag), context={"other": other})
    assert {kind for kind, _ in kinds(made, candles)[0]} == expected


def test_features_one_candle_late_allow_a_label_of_the_own_candle_but_not_another_coins(candles):
    def own(c):
        return (c["close"] > c["close"].shift(1)).astype(float).where(c["close"].shift(1).notna())

    def late(lag):
        return lambda c, context: base(c).shift(1).assign(
            x=context["other"]["close"].pct_change().shift(lag).reindex(c.index)
        )

    context = {"other": sample_market("ETHUSDT", n=N)}
    assert {kind for kind, _ in kinds(pipeline(late(0), own, context=context), candles)[0]} == {"contemporaneous coin"}
    assert not kinds(pipeline(late(1), own, context=context), candles)[0]


# ---- labels

def average(window):
    return lambda c: (c["close"].rolling(window).mean().diff().shift(-1) > 0).astype(float)


def typical(c):
    price = (c["high"] + c["low"]) / 2
    return (price.shift(-1) > price).astype(float)


def both_sides(c):
    return (
        c["close"].rolling(5).mean().shift(-5) > c["close"].rolling(5).mean()
    ).astype(float).where(c["close"].shift(-5).notna())


LABELS = {
    "own candle": (lambda c: (c["close"] > c["close"].shift(1)).astype(float), 0, "same-bar label"),
    "own candle's body": (lambda c: (c["close"] > c["open"]).astype(float), 0, "same-bar label"),
    "average of 10": (average(10), 0, "smoothed label"), "average of 3": (average(3), 0, "smoothed label"),
    "exponential": (lambda c: (c["close"].ewm(span=12).mean().diff().shift(-1) > 0).astype(float), 0, "smoothed label"),
    "middle price": (typical, 0, "smoothed label"), "five against five": (both_sides, 5, "smoothed label"),
    "median of all": (
        lambda c: (
            c["close"].pct_change().shift(-1) > c["close"].pct_change().median()
        ).astype(float), 0, "label overlap"
    ),
    "decided moves only": (
        lambda c: next_direction(c)["y"].where(c["close"].pct_change().shift(-1).abs() > 0.003), 0, "survivorship"
    ),
    "no purge": (lambda c: horizon_direction(c, 12), 0, "label overlap"),
    "no purge, undeclared": (lambda c: horizon_direction(c, 12)["y"], 0, "label overlap"),
    "purge by a wrong end": (lambda c: horizon_direction(c, 12), 3, "label overlap"),
    "barriers without purge": (lambda c: triple_barrier(c, 1.5, 1.5, 20), 0, "label overlap"),
}
HONEST_LABELS = {
    "purge": (lambda c: horizon_direction(c, 12), 12),
    "purge, undeclared": (lambda c: horizon_direction(c, 12)["y"], 12),
    "barriers": (lambda c: triple_barrier(c, 1.5, 1.5, 20), 20),
    "wide barriers": (lambda c: triple_barrier(c, 4, 2, 10, side="short"), 10),
    "three classes": (lambda c: three_class(c, 4, 0.004), 4),
    "band of the past": (
        lambda c: (c["close"].pct_change().shift(-1) > 0.3 * c["close"].pct_change().rolling(30).std()).astype(float), 0
    ),
    "mean of the next five": (
        lambda c: (
            c["close"].rolling(5).mean().shift(-5) > c["close"]
        ).astype(float).where(c["close"].shift(-5).notna()), 5
    ),
    "integers": (lambda c: (c["close"].shift(-1) > c["close"]).astype(int), 0),
    "published V9": (lambda c: next_direction(c, gap=1), 2),
    "large move": (lambda c: (c["close"].pct_change().shift(-1).abs() > 0.005).astype(float), 0),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_label_that_leaks_is_found(candles, name):
    labels, gap, kind = LABELS[name]
    found, table = kinds(pipeline(labels=labels, split=in_time(gap), fit=tree), candles)
    assert kind in {k for k, _ in found}, audit_text(table)


@pytest.mark.parametrize("name", HONEST_LABELS)
def test_an_honest_label_is_not_accused(candles, name):
    labels, gap = HONEST_LABELS[name]
    found, table = kinds(
        pipeline(labels=labels, split=in_time(gap), fit=tree, predict=lambda m, X: m[1].predict(X)), candles,
    )
    assert not found, audit_text(table)


# ---- splits

TWELVE = HONEST_LABELS["purge"][0]
SPLITS = {
    "random": (TWELVE, at_random),
    "shuffled folds": (TWELVE, by(KFold(4, shuffle=True, random_state=0))),
    "stratified": (TWELVE, by(StratifiedKFold(4, shuffle=True, random_state=0))),
    "folds without purge": (TWELVE, by(KFold(4))),
    "forward without gap": (TWELVE, by(TimeSeriesSplit(4))),
}
HONEST_SPLITS = {
    "random, one candle": (next_direction, at_random),
    "shuffled folds, one candle": (next_direction, by(KFold(4, shuffle=True, random_state=0))),
    "forward with gap": (TWELVE, by(TimeSeriesSplit(4, gap=12))),
    "walk-forward": (TWELVE, by(lambda labels: WalkForward(labels, 500, 200))),
    "purged folds": (TWELVE, by(lambda labels: PurgedKFold(labels, 4, embargo=10))),
    "combinatorial": (TWELVE, by(lambda labels: CombinatorialPurgedKFold(labels, 5, 2, embargo=10))),
}


@pytest.mark.parametrize("name", SPLITS)
def test_overlap_across_a_split_is_found(candles, name):
    labels, split = SPLITS[name]
    found, table = kinds(pipeline(labels=labels, split=split), candles)
    assert found == {("label overlap", "split")}, audit_text(table)


@pytest.mark.parametrize("name", HONEST_SPLITS)
def test_an_honest_split_is_not_accused(candles, name):
    labels, split = HONEST_SPLITS[name]
    found, table = kinds(pipeline(labels=labels, split=split), candles)
    assert not found, audit_text(table)


def test_the_overlap_is_counted_row_by_row(candles):
    found = audit_pipeline(pipeline(labels=TWELVE), candles)
    assert found.loc[0, "rows"] == 11 and found.attrs["reach"] == 12


# ---- what is fitted

class Notebook:
    "A learner with one mistake, or the same thing done on training rows."

    def __init__(self, mistake, honest, keeps="prepare"):
        self.mistake, self.honest, self.keeps = mistake, honest, keeps

    def features(self, candles):
        self.table = base(candles)
        return self.table

    def labels(self, candles):
        self.y = next_direction(candles)["y"]
        return self.y

    def split(self, features, labels):
        self.train, self.test = in_time()(features, labels)
        if self.keeps == "split":
            self.keep(features, labels, self.train, self.test)
        return self.train, self.test

    def keep(self, features, labels, train, test):
        rows = features.index.intersection(self.table.index[train[-250:] if self.honest else test])
        self.validation = features.loc[rows], labels.loc[rows]

    def prepare(self, X, y, train, test):
        X, y = self.changed(X, y, train, test)
        if self.keeps == "prepare":
            self.keep(X, y, train, test)
        return X, y

    def changed(self, X, y, train, test):
        rows = train if self.honest else np.concatenate([train, test])
        if self.mistake == "minmax":
            X = pd.DataFrame(MinMaxScaler().fit(X.iloc[rows]).transform(X), X.index, X.columns)
        if self.mistake == "pca":
            clean = X.fillna(0)
            X = pd.DataFrame(PCA(3, random_state=0).fit(clean.iloc[rows]).transform(clean), X.index, ["a", "b", "c"])
        if self.mistake == "impute":
            X = X.where(X.abs() < 0.02)
            X = X.fillna(X.iloc[rows].mean())
        if self.mistake == "winsorise":
            low, high = X.iloc[rows].quantile(0.02), X.iloc[rows].quantile(0.98)
            X = X.clip(low, high, axis=1)
        if self.mistake == "target mean":
            hour = pd.Series(X.index.hour, X.index)
            X = X.assign(hour=hour.map(y.iloc[rows].groupby(hour.iloc[rows]).mean()))
        if self.mistake == "outliers":
            size = X["change"].abs()
            return X[(size < size.iloc[rows].quantile(0.95)) | ~X.index.isin(X.index[train])], y[
                (size < size.iloc[rows].quantile(0.95)) | ~X.index.isin(X.index[train])
            ]
        if self.mistake == "test by itself":
            X = X.copy()
            for part in (train, test if not self.honest else train):
                X.iloc[part] = (
                    (X.iloc[part] - X.iloc[part].mean()) / X.iloc[part].std()
                ).to_numpy() if part is test else X.iloc[part].to_numpy()
        return X, y

    def fit(self, X, y):
        if self.keeps == "features" and not self.honest:
            rows = self.test
            self.validation = self.table.iloc[rows], self.y.iloc[rows]
        elif self.keeps == "features":
            self.validation = X[-250:], y[-250:]
        X_val, y_val = self.validation
        if self.mistake == "everything" and not self.honest:
            X, y = pd.concat([X, X_val]), pd.concat([y, y_val])
        fits = [tree(X, y)]
        if self.mistake == "depth":
            fits = [
                (fits[0][0], DecisionTreeClassifier(max_depth=d, random_state=0).fit(X, y)) for d in (1, 2, 4, 8, 16)
            ]
        if self.mistake == "seed":
            fits = [
                (fits[0][0], DecisionTreeClassifier(max_depth=5, max_features=1, random_state=s).fit(X, y))
                for s in range(8)
            ]
        self.model = max(fits, key=lambda m: m[1].score(X_val, y_val))
        if self.mistake == "calibrate":
            from sklearn.frozen import FrozenEstimator

            self.model = (
                self.model[0],
                CalibratedClassifierCV(FrozenEstimator(self.model[1]), method="sigmoid").fit(X_val, y_val),
            )
        p = chance(self.model, X_val)
        self.threshold = (
            max(np.linspace(0.3, 0.7, 21), key=lambda t: ((p > t) == y_val).mean())
            if self.mistake == "threshold"
            else 0.5
        )
        if self.mistake == "stop":
            import lightgbm as lgb

            data, judge = lgb.Dataset(X, y, free_raw_data=False), lgb.Dataset(X_val, y_val)
            booster = lgb.train(
                {"objective": "binary", "verbosity": -1, "num_threads": 1, "num_leaves": 7, "learning_rate": 0.1}, data,
                60, valid_sets=[judge], callbacks=[lgb.early_stopping(5, verbose=False)],
            )
            self.booster = booster
        return self

    def predict(self, X):
        if self.mistake == "stop":
            return self.booster.predict(X, num_iteration=self.booster.best_iteration)
        p = chance(self.model, X)
        if self.mistake == "batch":
            return p - (p.mean() if not self.honest else 0.5)
        return (p > self.threshold).astype(float) if self.mistake == "threshold" else p


MISTAKES = [
    "minmax", "pca", "impute", "winsorise", "target mean", "outliers", "test by itself", "everything", "depth", "seed",
    "calibrate", "threshold", "stop", "batch",
]
KEEPERS = [(m, k) for m in ("everything", "depth", "calibrate", "threshold", "stop") for k in ("split", "features")]


@pytest.mark.parametrize("mistake, keeps", [(m, "prepare") for m in MISTAKES] + KEEPERS)
def test_what_is_fitted_on_test_rows_is_found(candles, mistake, keeps):
    # trials take turns within the processor time allowed, and a busy machine gets through fewer of them
    found, table = kinds(Notebook(mistake, False, keeps), candles, seconds=6 if mistake == "test by itself" else 2.5)
    allowed = {("feature look-ahead", "prepare")} if mistake == "test by itself" else {
        ("fit on test rows", s) for s in ("prepare", "fit", "predict")
    }
    assert found and found <= allowed, audit_text(table)


@pytest.mark.parametrize("mistake, keeps", [(m, "prepare") for m in MISTAKES] + KEEPERS[::3])
def test_the_same_on_training_rows_is_not_accused(candles, mistake, keeps):
    found, table = kinds(Notebook(mistake, True, keeps), candles)
    assert not found, audit_text(table)


# ---- oversampling

def oversample(X, y, rows, seed=0):
    "Mixtures of neighbouring rows of the rarer class, as SMOTE makes them."
    rng, values, labels = np.random.default_rng(seed), X.to_numpy(), y.to_numpy()
    rare = rows[labels[rows] == (1.0 if labels[rows].mean() < 0.5 else 0.0)]
    first = rng.choice(rare, 300)
    distance = ((values[first][:, None] - values[rare][None]) ** 2).sum(axis=2)
    second = rare[np.argsort(distance, axis=1)[:, 1]]
    share = rng.random((300, 1))
    return values[first] + share * (values[second] - values[first]), labels[first]


def whole_table(X, y, train, test):
    good = known(X, y)
    more, its = oversample(X, y["y"], good)
    return pd.DataFrame(np.vstack([X.to_numpy()[good], more]), columns=X.columns), pd.Series(
        np.concatenate([y["y"].to_numpy()[good], its])
    )


def shuffled_rows(features, labels):
    return at_random(features, labels)


def only_training(X, y):
    more, its = oversample(X, y, np.arange(len(X)))
    return tree(pd.concat([X, pd.DataFrame(more, columns=X.columns)]), np.concatenate([y, its]))


def test_oversampling_before_the_split_is_found_and_after_it_not(candles):
    assert kinds(pipeline(split=shuffled_rows, prepare=whole_table, fit=tree), candles)[0]
    assert not kinds(pipeline(fit=only_training), candles)[0]


# ---- learners and markets

def test_markets_and_learners_that_are_only_unusual_are_not_accused():
    constant = dict(fit=lambda X, y: None, predict=lambda m, X: np.full(len(X), 0.5))
    regression = dict(
        labels=lambda c: c["close"].pct_change().shift(-1), fit=lambda X, y: np.linalg.lstsq(X, y, rcond=None)[0],
        predict=lambda w, X: X @ w,
    )
    seedless = dict(
        fit=lambda X, y: (1.0, DecisionTreeClassifier(max_features=1, max_depth=4).fit(X, y)),
        predict=lambda m, X: m[1].predict_proba(X),
    )
    unseeded = dict(
        fit=lambda X, y: (
            1.0,
            DecisionTreeClassifier(
                max_features=1, max_depth=4, random_state=np.random.default_rng().integers(1000),
            ).fit(X, y),
        )
    )
    for market in (null_market(n=N), planted_market(0.45, n=N)):
        for made in (constant, regression, seedless, unseeded):
            found, table = kinds(pipeline(**made), market)
            assert not found, audit_text(table)
    assert any(
        "not deterministic" in note for note in audit_pipeline(pipeline(**unseeded), null_market(n=N)).attrs["notes"]
    )


def test_an_accuracy_too_good_is_noted_but_no_finding():
    market = planted_market(0.45, n=2_000)
    found = audit_pipeline(v9_pipeline(window=4), market)
    assert not len(found)
    assert found.attrs["accuracy"] < 0.6 or any("leak until proven otherwise" in note for note in found.attrs["notes"])


def test_a_rare_event_is_not_too_good():
    "Saying no to an event of one in ten is right nine times in ten, and no leak."
    market = null_market(n=2_000)
    rare = (market["close"].pct_change().shift(-1) > market["close"].pct_change().std() * 1.28).astype(float)
    made = pipeline(labels=lambda candles: rare.reindex(candles.index), predict=lambda model, X: np.zeros(len(X)))
    found = audit_pipeline(made, market)
    assert found.attrs["accuracy"] > 0.8 and not any(
        "leak until proven otherwise" in note for note in found.attrs["notes"]
    )


def test_an_audit_leaves_the_pipeline_and_the_generators_alone(candles):
    made = v9_pipeline("lightgbm")
    audit_pipeline(made, candles)
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    found = audit_pipeline(made, sample_market(n=2_000))
    assert np.random.rand() == expected and made.model_ is None
    assert not len(found)


def test_the_same_audit_says_the_same(candles):
    made = pipeline(LOOK_AHEAD["four hours"][0], labels=TWELVE, split=at_random)
    one, two = audit_pipeline(made, candles), audit_pipeline(made, candles)
    assert one["evidence"].str.len().min() > 40 and one[["kind", "step"]].equals(two[["kind", "step"]])
    assert set(one["kind"]) == {"higher timeframe on open", "label overlap"} <= set(DETECTORS.index)
    assert {c for line in DETECTORS["covers"] for c in line.split(", ")} == set(TAXONOMY)


def test_v9s_network_as_a_pipeline():
    result = run_pipeline(v9_pipeline("direction", window=8), sample_market(n=700))
    assert result["test"].iloc[0] > 60 and 0.3 < result["accuracy"].iloc[0] < 0.7


def test_what_cannot_be_audited_is_refused(candles):
    with pytest.raises(DataError, match="do not align|cannot be placed"):
        audit_pipeline(pipeline(lambda c: base(c).dropna().reset_index(drop=True)), candles)
    with pytest.raises(DataError, match="one class"):
        audit_pipeline(pipeline(labels=lambda c: pd.Series(1.0, c.index)), candles)
    with pytest.raises(DataError, match="fails on these candles"):
        audit_pipeline(pipeline(fit=lambda X, y: 1 / 0), candles)
    with pytest.raises(DataError, match="not in order"):
        audit_pipeline(pipeline(), candles[::-1])
    with pytest.raises(DataError, match="other than row positions|something else than row positions"):
        audit_pipeline(pipeline(split=lambda X, y: (X.index[:500], X.index[500:])), candles)
