"""Splitters and the audit of splits: against brute force, and against scikit-learn, purgedcv and skfolio."""
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.validation import (
    ChronologicalSplit, CombinatorialPurgedKFold, PurgedKFold, Split, WalkForward, audit_split, chronological_split,
    overlap_rows,
)

HOUR = pd.Timedelta("1h")


def labels(rows=600, ahead=15, seed=None, gaps=(), unknown=0, start="2024-01-01"):
    "Hourly label table; `seed` draws the lengths of intervals up to `ahead`, `unknown` blanks the last outcomes."
    clock = pd.date_range(start, periods=rows, freq="h", tz="UTC", name="open_time").delete(list(gaps))
    rng = np.random.default_rng(seed or 0)
    length = np.full(len(clock), ahead) if seed is None else rng.integers(1, ahead + 1, len(clock))
    table = pd.DataFrame({"y": rng.integers(0, 2, len(clock)).astype(float), "t0": clock + HOUR}, index=clock)
    table["t1"] = table["t0"] + pd.to_timedelta(length, unit="h")
    table.iloc[len(table) - unknown :, 0] = np.nan
    return table


def stacked(seed=5):
    "Three coins with different histories and gaps."
    parts = {
        "BTCUSDT": labels(600, 24, seed), "ETHUSDT": labels(500, 24, seed + 1, gaps=(100, 101, 300)),
        "SOLUSDT": labels(400, 24, seed + 2, start="2024-01-09"),
    }
    return pd.concat([table.assign(symbol=name) for name, table in parts.items()])


def shares(table, train, test):
    "Brute force: which training rows overlap a test row?"
    t0, t1 = hours(table)
    return ((t0[train][:, None] < t1[test]) & (t0[test] < t1[train][:, None])).any(axis=1)


def hours(table):
    "t0 and t1 as whole hours."
    return (
        (table[c] - pd.Timestamp("2024-01-01", tz="UTC")).dt.total_seconds().to_numpy().astype(int) // 3600
        for c in ("t0", "t1")
    )


def since_test(t0, t1, rows, test):
    "Hours from the last test outcome known at each row's decision to that decision; large where there is none."
    over = np.where(t1[test] <= t0[rows][:, None], t1[test], -10**6).max(axis=1)
    return t0[rows] - over, over


def every_splitter(table):
    return [
        ChronologicalSplit(table), ChronologicalSplit(table, (0.6, 0.4), gap=5), WalkForward(table, 200, 50),
        WalkForward(table, "8D", "2D", expanding=True), WalkForward(table, 100, 60, step=30, gap="6h"),
        PurgedKFold(table), PurgedKFold(table, 4, embargo="12h"), PurgedKFold(table, 3, embargo=10),
        CombinatorialPurgedKFold(table), CombinatorialPurgedKFold(table, 5, 3, embargo=6),
    ]


TABLES = {
    "fixed": lambda: labels(), "varying": lambda: labels(seed=1),
    "gaps": lambda: labels(seed=2, gaps=(50, 51, 52, 299, 300)), "unknown": lambda: labels(seed=3, unknown=20),
    "coins": stacked, "coins by time": lambda: stacked().sort_index(kind="stable"),
}


@pytest.mark.parametrize("name", TABLES)
def test_no_training_row_overlaps_a_test_row(name):
    table = TABLES[name]()
    known = table["y"].notna().to_numpy()
    for splitter in every_splitter(table):
        folds = list(splitter.split(table))
        assert len(folds) == splitter.get_n_splits() and repr(splitter).startswith(type(splitter).__name__)
        for train, test in folds:
            assert len(train) and len(test) and known[train].all() and known[test].all()
            assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all() and not np.intersect1d(train, test).size
            assert not shares(table, train, test).any()
        audit = audit_split(splitter, table)
        assert audit.attrs == {"overlapping": 0, "both": 0} and (audit["embargoed"] == 0).all()
        if isinstance(splitter, (ChronologicalSplit, WalkForward)):
            assert (audit["order"] == "train before test").all()


@pytest.mark.parametrize("name", TABLES)
def test_nothing_is_purged_without_need(name):
    "Each row left out of a purged fold overlaps a test row or begins within the embargo, computed one by one."
    table = TABLES[name]()
    known = table["y"].notna().to_numpy()
    t0, t1 = hours(table)
    times = np.unique(t0[known])
    for embargo in (0, "12h", 10):
        for splitter in (PurgedKFold(table, 4, embargo), CombinatorialPurgedKFold(table, 4, 2, embargo)):
            for train, test in splitter.split(table):
                rest = np.setdiff1d(np.flatnonzero(known), test)
                since, over = since_test(t0, t1, rest, test)
                # decision times since then
                passed = ((times >= over[:, None]) & (times < t0[rest][:, None])).sum(axis=1)
                near = (over > -10**6) & (passed < embargo if isinstance(embargo, int) else since < int(embargo[:-1]))
                assert train.tolist() == rest[~(shares(table, rest, test) | near)].tolist()


def test_tests_cover_each_known_row_once():
    table = TABLES["unknown"]()
    for splitter in (PurgedKFold(table, 7), WalkForward(table, 100, 33, partial=True)):
        tests = np.concatenate([test for _, test in splitter.split()])
        first = 100 if isinstance(splitter, WalkForward) else 0
        assert tests.tolist() == list(range(first, 580))


# ---------------------------------------------------------------- kinds


@pytest.mark.parametrize("gap", [0, 5, "6h"])
@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.5, 0.25, 0.25)])
def test_chronological_split_is_the_function_of_the_windows(gap, fractions):
    table = labels(seed=4, gaps=(77, 78))
    ours, theirs = ChronologicalSplit(table, fractions, gap).parts(), chronological_split(
        table["t0"], table["t1"], fractions, gap,
    )
    for part in ("train", "val", "test", "purged"):
        np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))
    (train, test), = ChronologicalSplit(table, fractions, gap).split()
    np.testing.assert_array_equal(train, theirs.train)
    np.testing.assert_array_equal(test, theirs.test)


def test_chronological_split_of_coins_cuts_at_one_time():
    table = stacked()
    parts = ChronologicalSplit(table).parts()
    assert table["t1"].iloc[parts.train].max() <= table["t0"].iloc[parts.val].min()
    assert table["t1"].iloc[parts.val].max() <= table["t0"].iloc[parts.test].min()
    assert sorted([*parts.train, *parts.val, *parts.test, *parts.purged]) == list(range(len(table)))
    two = ChronologicalSplit(labels(ahead=1), (0.7, 0.3)).parts()
    assert two.sizes == {"train": 420, "val": 0, "test": 180, "purged": 0}


def test_walk_forward_by_hand():
    table = labels(100, ahead=3)
    folds = list(WalkForward(table, 40, 20, gap=4).split())
    # t1 known 4 rows before the test
    assert [(a[0], a[-1], b[0], b[-1]) for a, b in folds] == [(0, 33, 40, 59), (20, 53, 60, 79), (40, 73, 80, 99)]
    assert [(a[0], a[-1], b[0], b[-1]) for a, b in WalkForward(table, 40, 25, step=30).split()] == [
        (0, 37, 40, 64),
        (30, 67, 70, 94),
    ]
    expanding = list(WalkForward(table, 40, 25, expanding=True, partial=True).split())
    assert [(a[0], a[-1], b[0], b[-1]) for a, b in expanding] == [(0, 37, 40, 64), (0, 62, 65, 89), (0, 87, 90, 99)]


def test_durations_are_rows_where_no_candle_is_missing():
    table = labels(24 * 40, ahead=6)
    for rows, durations in (((240, 48), ("10D", "2D")), ((100, 30), ("100h", "30h"))):
        for options in ({}, {"expanding": True}, {"partial": True}):
            a, b = (list(WalkForward(table, *lengths, **options).split()) for lengths in (rows, durations))
            assert len(a) == len(b)
            for x, y in zip(a, b):
                np.testing.assert_array_equal(x[0], y[0])
                np.testing.assert_array_equal(x[1], y[1])
    a, b = PurgedKFold(table, 5, 24), PurgedKFold(table, 5, "24h")
    for x, y in zip(a.split(), b.split()):
        np.testing.assert_array_equal(x[0], y[0])


def test_a_duration_keeps_its_length_across_a_gap():
    table = labels(24 * 40, ahead=1, gaps=range(300, 400))
    for train, test in WalkForward(table, "10D", "3D").split():
        assert table["t0"].iloc[test[-1]] - table["t0"].iloc[test[0]] < pd.Timedelta("3D")
        assert table["t0"].iloc[test[0]] - table["t0"].iloc[train[0]] <= pd.Timedelta("10D")


# ---------------------------------------------------------------- the audit, against brute force


def strangers():
    from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, TimeSeriesSplit

    return [
        KFold(4), KFold(4, shuffle=True, random_state=0), ShuffleSplit(3, random_state=1),
        ShuffleSplit(3, test_size=5, random_state=1), TimeSeriesSplit(4), TimeSeriesSplit(4, gap=7), StratifiedKFold(3),
    ]


@pytest.mark.parametrize("name", ["fixed", "varying", "gaps", "coins", "coins by time"])
def test_audit_counts_exactly_the_overlapping_rows(name):
    table = TABLES[name]()
    t0, t1 = hours(table)
    for splitter in strangers():
        audit = audit_split(splitter, table, embargo="9h")
        folds = list(splitter.split(np.zeros(len(table)), table["y"]))
        assert len(audit) == len(folds)
        for (train, test), row in zip(folds, audit.itertuples()):
            bad = shares(table, train, test)
            assert (row.train, row.test, row.overlapping, row.touched) == (
                len(train), len(test), bad.sum(), shares(table, test, train).sum(),
            )
            np.testing.assert_array_equal(overlap_rows(table, train, test), bad)
            assert row.embargoed == (since_test(t0, t1, train[~bad], test)[0] < 9).sum()
            after = t0[train] >= t0[test].min()
            assert row.order == ("train after test" if after.all() else "mixed" if after.any() else "train before test")
        assert audit.attrs["overlapping"] == audit["overlapping"].sum() and audit.attrs["both"] == 0


def test_audit_of_known_counts():
    from sklearn.model_selection import KFold, TimeSeriesSplit

    assert audit_split(TimeSeriesSplit(3), labels(600, ahead=15))["overlapping"].tolist() == [14] * 3
    assert audit_split(KFold(3), labels(600, ahead=15))["overlapping"].tolist() == [14, 28, 14]
    assert audit_split(KFold(3), labels(600, ahead=1)).attrs["overlapping"] == 0
    both = audit_split([(np.arange(10), np.arange(5, 15))], labels(20, 1))
    assert both["both"].tolist() == [5] and both["overlapping"].tolist() == [5]


def test_audit_takes_folds_in_any_form():
    table = labels(100, ahead=4)
    pairs = [(np.arange(50), np.arange(50, 100))]
    mask = np.zeros(100, dtype=bool)
    mask[:50] = True
    for folds in (
        pairs, [(mask, ~mask)], [(list(range(50)), range(50, 100))], iter(pairs),
        [(np.arange(50), [np.arange(50, 70), np.arange(70, 100)])],
    ):
        assert audit_split(folds, table)["overlapping"].tolist() == [3]
    split = chronological_split(table["t0"], table["t1"])
    assert isinstance(split, Split) and audit_split(split, table)["overlapping"].tolist() == [0, 0]


# ---------------------------------------------------------------- combinatorial paths


def test_each_path_is_a_whole_history():
    table = labels(120, ahead=3, unknown=3)
    for n_splits, n_test in ((4, 1), (5, 2), (6, 2), (6, 3)):
        cv = CombinatorialPurgedKFold(table, n_splits, n_test)
        folds = list(cv.split(table))
        edges = np.array_split(np.arange(117), n_splits)
        for (_, test), chosen in zip(folds, combinations(range(n_splits), n_test), strict=True):
            assert test.tolist() == np.concatenate([edges[k] for k in chosen]).tolist()
        paths = cv.paths([test + 1000.0 * number for number, (_, test) in enumerate(folds)])
        assert (
            paths.shape == (120, cv.n_paths)
            and paths.index.equals(table.index)
            and paths.iloc[117:].isna().all(axis=None)
        )
        found = paths.iloc[:117].to_numpy()
        np.testing.assert_array_equal(found % 1000, np.repeat(np.arange(117)[:, None], cv.n_paths, axis=1))
        assert (np.diff(found // 1000, axis=1) > 0).all()  # no forecast is used twice


# ---------------------------------------------------------------- against purgedcv


def by_purgedcv(table, train, test):
    "Rows that purgedcv would still drop."
    purgedcv = pytest.importorskip("purgedcv")
    t0, t1 = (table[c].reset_index(drop=True) for c in ("t0", "t1"))
    return np.setdiff1d(train, purgedcv.purge(train, test, t0, t1))


@pytest.mark.parametrize("name", ["fixed", "varying", "gaps"])
def test_purgedcv_finds_nothing_left_to_purge(name):
    table = TABLES[name]()
    for splitter in every_splitter(table):
        for train, test in splitter.split(table):
            assert not len(by_purgedcv(table, train, test))


@pytest.mark.parametrize("name", ["fixed", "varying"])
def test_purged_folds_are_those_of_purgedcv(name):
    purgedcv = pytest.importorskip("purgedcv")
    table = TABLES[name]()
    times = dict(
        prediction_times=table["t0"].reset_index(drop=True), evaluation_times=table["t1"].reset_index(drop=True),
    )
    X = np.zeros((len(table), 1))
    pairs = [
        (PurgedKFold(table, 5), purgedcv.PurgedKFold(5, **times)),
        (
            PurgedKFold(table, 5, "12h"),
            purgedcv.PurgedKFold(5, embargo="11h", **times),
        ),  # theirs includes the end of the embargo
        (CombinatorialPurgedKFold(table, 6, 2), purgedcv.CombinatorialPurgedCV(6, 2, **times)),
        (WalkForward(table, 200, 100, expanding=True), purgedcv.WalkForwardSplit(4, 100, **times)),
    ]
    for ours, theirs in pairs:
        expected = list(theirs.split(X))
        assert len(expected) == ours.get_n_splits()
        for (train, test), (their_train, their_test) in zip(ours.split(table), expected):
            np.testing.assert_array_equal(test, their_test)
            assert train.tolist() == np.sort(their_train).tolist(), ours
        assert audit_split(theirs, table).attrs["overlapping"] == 0
    # takes 200 rows after the purge, we take them before it
    sliding = purgedcv.WalkForwardSplit(4, 100, train_size=200, window="sliding", **times)
    for (train, test), (their_train, their_test) in zip(
        WalkForward(table, 200, 100).split(table), sliding.split(X), strict=True,
    ):
        np.testing.assert_array_equal(test, their_test)
        assert train.tolist() == [i for i in their_train if i >= test[0] - 200]


def test_paths_are_those_of_purgedcv():
    purgedcv = pytest.importorskip("purgedcv")
    table = labels(97, ahead=2)
    rng = np.random.default_rng(0)
    for n_splits, n_test in ((5, 2), (6, 3)):
        cv = CombinatorialPurgedKFold(table, n_splits, n_test)
        tests = [test for _, test in cv.split()]
        forecasts = [rng.normal(size=len(test)) for test in tests]
        np.testing.assert_array_equal(
            cv.paths(forecasts).to_numpy().T,
            purgedcv.reconstruct_paths(forecasts, tests, n_splits, n_test, len(table)),
        )


def test_audit_agrees_with_purgedcv_about_scikit_learn():
    from sklearn.model_selection import KFold, ShuffleSplit, TimeSeriesSplit

    table = labels(seed=9)
    for splitter in (KFold(4), ShuffleSplit(3, random_state=0), TimeSeriesSplit(4)):
        counts = [len(by_purgedcv(table, train, test)) for train, test in splitter.split(table)]
        assert audit_split(splitter, table)["overlapping"].tolist() == counts and max(counts) > 0


# ---------------------------------------------------------------- against skfolio


def test_combinatorial_folds_are_those_of_skfolio():
    selection = pytest.importorskip("skfolio.model_selection")
    table = labels(600, ahead=15)
    theirs, ours = (
        selection.CombinatorialPurgedCV(n_folds=6, n_test_folds=2, purged_size=14, embargo_size=8),
        CombinatorialPurgedKFold(table, 6, 2, embargo=8),
    )
    assert ours.n_paths == theirs.n_test_paths
    for (train, test), (their_train, their_tests) in zip(
        ours.split(table), theirs.split(np.zeros((600, 1))), strict=True,
    ):
        np.testing.assert_array_equal(test, np.concatenate(their_tests))
        np.testing.assert_array_equal(train, their_train)
    assert audit_split(theirs, table, X=np.zeros((600, 1))).attrs["overlapping"] == 0
    blind = selection.CombinatorialPurgedCV(n_folds=6, n_test_folds=2)  # its purge is 0 unless one asks
    assert (audit_split(blind, table, X=np.zeros((600, 1)))["overlapping"] >= 28).sum() >= 10


@pytest.mark.parametrize("expanding", [False, True])
def test_walk_forward_is_that_of_skfolio(expanding):
    selection = pytest.importorskip("skfolio.model_selection")
    table = labels(600, ahead=15)
    theirs = selection.WalkForward(test_size=50, train_size=200, purged_size=14, expand_train=expanding)
    ours = WalkForward(table, train=214, test=50, expanding=expanding)
    for (train, test), (their_train, their_test) in zip(
        ours.split(table), theirs.split(np.zeros((600, 1))), strict=True,
    ):
        np.testing.assert_array_equal(train, their_train)
        np.testing.assert_array_equal(test, their_test)


# ---------------------------------------------------------------- scikit-learn's manner


def test_splitters_are_taken_by_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

    table = labels(400, ahead=3, unknown=3)
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 3)), index=table.index)
    for cv in every_splitter(table):
        assert (
            len(cross_val_score(LogisticRegression(), X, table["y"], cv=cv, error_score="raise")) == cv.get_n_splits()
        )
    grid = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=PurgedKFold(table, 3, "1D"))
    assert grid.fit(X, table["y"].fillna(0)).best_params_
    plain = labels(101, ahead=1)
    for (_, ours), (_, theirs) in zip(PurgedKFold(plain, 7).split(), KFold(7).split(plain), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_long_table_is_split_and_audited_quickly():
    import time

    from sklearn.model_selection import KFold

    table = labels(500_000, ahead=60, seed=1)
    start = time.perf_counter()
    audit = audit_split(PurgedKFold(table, 5, "1D"), table)
    random = audit_split(KFold(5, shuffle=True, random_state=0), table)
    assert (
        time.perf_counter() - start < 10 and audit.attrs["overlapping"] == 0 and random.attrs["overlapping"] > 1_900_000
    )


# ---------------------------------------------------------------- what is refused


def changed(**columns):
    return labels(50).assign(**columns)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: PurgedKFold(labels(50)[["y"]]), DataError, "without information intervals"),
    (lambda: PurgedKFold(labels(50)["y"]), DataError, "without information intervals"),
    (lambda: audit_split([([0], [1])], labels(50)[["y", "t0"]]), DataError, "no `t1`"),
    (lambda: PurgedKFold(labels(50).reset_index(drop=True)), DataError, "no clock"),
    (lambda: PurgedKFold(labels(50).iloc[::-1]), DataError, "not in order"),
    (lambda: PurgedKFold(labels(50).sample(frac=1, random_state=0)), DataError, "not in order"),
    (lambda: PurgedKFold(labels(50).iloc[[0, 1, 1, 2, 3]]), DataError, "repeated"),
    (lambda: PurgedKFold(pd.concat([labels(50)] * 2).assign(symbol="BTCUSDT")), DataError, "unsorted|repeated"),
    (lambda: PurgedKFold(pd.concat([labels(50), labels(50, start="2023-01-01")])), DataError, "`symbol`"),
    (lambda: PurgedKFold(stacked().sort_index().drop(columns="symbol")), DataError, "`symbol`"),
    (lambda: PurgedKFold(changed(t1=labels(50)["t0"])), DataError, "t0 before t1"),
    (lambda: PurgedKFold(changed(t1=labels(50)["t1"].where(np.arange(50) != 7))), DataError, "both known"),
    (lambda: PurgedKFold(changed(y=np.nan)), DataError, "no label is known"),
    (lambda: PurgedKFold(labels(4), 5), DataError, "fewer rows than folds"),
    (lambda: PurgedKFold(labels(50), 1), SettingsError, "`n_splits`"),
    (lambda: PurgedKFold(labels(50), 5, -1), SettingsError, "`embargo`"),
    (lambda: PurgedKFold(labels(50), 5, "soon"), SettingsError, "`embargo`"),
    (lambda: list(PurgedKFold(labels(50), 2, 100).split()) and list(PurgedKFold(labels(50, 40), 5).split()), DataError,
     "empty after the purge"),
    (lambda: CombinatorialPurgedKFold(labels(50), 5, 5), SettingsError, "`n_test`"),
    (lambda: WalkForward(labels(50), 40, 20), DataError, "fewer rows than one fold"),
    (lambda: WalkForward(labels(50), 0, 20), SettingsError, "`train`"),
    (lambda: WalkForward(labels(50), 10, True), SettingsError, "`test`"),
    (lambda: WalkForward(labels(50), 10, 10, step="-1D"), SettingsError, "`step`"),
    (lambda: list(WalkForward(labels(50), 10, 10).split()), DataError, "fold 0 is empty"),
    (lambda: ChronologicalSplit(labels(50), (0.7, 0.7)).parts(), SettingsError, "`fractions`"),
    (lambda: ChronologicalSplit(labels(10)).parts(), DataError, "part is empty"),
    (lambda: next(PurgedKFold(labels(50)).split(np.zeros((49, 2)))), DataError, "50 rows"),
    (lambda: next(PurgedKFold(labels(50)).split(labels(50, start="2024-01-02"))), DataError, "same index"),
    (lambda: audit_split([([0], [50])], labels(50)), DataError, "row positions"),
    (lambda: audit_split([(labels(50).index[:5], [7])], labels(50)), DataError, "row positions"),
    (lambda: audit_split([], labels(50)), DataError, "no folds"),
    (lambda: audit_split([([0], [1])], labels(50), X=np.zeros(3)), DataError, "50 rows"),
    (lambda: CombinatorialPurgedKFold(labels(90), 3, 1).paths([np.zeros(30)] * 2), DataError, "do not align"),
])
def test_what_cannot_be_split_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_stacked_coins_without_a_symbol_are_recognised():
    table = pd.concat([labels(100, 5, 1), labels(100, 5, 2)])
    assert not any(shares(table, train, test).any() for train, test in PurgedKFold(table, 4).split(table))
