"""Rows read part by part give what rows in memory give, and nothing is left behind when they cannot be read."""
import gc

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.data.market import sample_market
from cryptolab.features.store import build_store
from cryptolab.models.boosting import BOOSTERS, ask_booster, fit_booster
from cryptolab.models.out_of_core import TableParts, parts_matrix

NAMES = [f"column_{i}" for i in range(8)]
SIZES = dict(
    boost_trees=30, boost_rate=0.2, boost_depth=4, boost_leaf=20, boost_patience=5, boost_rows=0.7, boost_columns=0.5,
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    "A table whose outcome depends on three columns, in row groups and in one, with rows without outcome."
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3_000, 8)).astype("float32")
    odds = 2 * x[:, 0] + 2 * (x[:, 1] * x[:, 2] > 0) - 1
    y = (rng.random(len(x)) < 1 / (1 + np.exp(-odds))).astype(float)
    y[rng.random(len(x)) < 0.2] = np.nan
    folder = tmp_path_factory.mktemp("planted")
    table = pd.DataFrame(x, columns=NAMES).rename_axis("open_time")
    table.to_parquet(folder / "many.parquet", row_group_size=450)
    table.to_parquet(folder / "one.parquet")
    table.iloc[:1_000].to_parquet(folder / "first.parquet")
    table.iloc[1_000:].to_parquet(folder / "second.parquet")
    return folder, x, y


def arrays(x, y, rows):
    keep = np.isfinite(y[rows])
    return x[rows][keep], y[rows][keep]


@pytest.mark.parametrize("name", BOOSTERS)
def test_trees_from_parts_are_those_from_arrays_however_the_file_is_cut(planted, tmp_path, name):
    folder, x, y = planted
    fit, stop = slice(100, 2_301), slice(2_301, 3_000)  # ranges that cut row groups
    expected, history = fit_booster(name, arrays(x, y, fit), arrays(x, y, stop), sizes=SIZES, seed=3, threads=1)
    two_files = [folder / "first.parquet", folder / "second.parquet"]
    for path in (folder / "many.parquet", folder / "one.parquet", two_files):
        matrix = parts_matrix(name, TableParts(path, NAMES, y, fit), folder=tmp_path, threads=1)
        held = parts_matrix(name, TableParts(path, NAMES, y, stop), matrix, tmp_path, 1)
        found, seen = fit_booster(name, matrix, held, sizes=SIZES, seed=3, threads=1)
        np.testing.assert_allclose(ask_booster(name, found, x), ask_booster(name, expected, x), atol=1e-6)
        np.testing.assert_allclose(seen["val_loss"], history["val_loss"], atol=1e-6)
        del matrix, held, found
        gc.collect()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", BOOSTERS)
def test_arrays_may_say_when_to_stop(planted, tmp_path, name):
    folder, x, y = planted
    fit, stop = slice(0, 2_300), slice(2_300, 3_000)
    matrix = parts_matrix(name, TableParts(folder / "many.parquet", NAMES, y, fit), folder=tmp_path, threads=1)
    found, seen = fit_booster(name, matrix, arrays(x, y, stop), sizes=SIZES, threads=1)
    expected, _ = fit_booster(name, arrays(x, y, fit), arrays(x, y, stop), sizes=SIZES, threads=1)
    np.testing.assert_allclose(ask_booster(name, found, x), ask_booster(name, expected, x), atol=1e-6)


@pytest.mark.parametrize("name", BOOSTERS)
def test_a_row_that_is_no_number_is_told_and_leaves_no_cache(planted, tmp_path, name):
    folder, x, y = planted
    x = x.copy()
    bad = np.flatnonzero(np.isfinite(y))[1_500]
    x[bad, 5] = np.nan
    pd.DataFrame(x, columns=NAMES).to_parquet(tmp_path / "bad.parquet", row_group_size=500)
    caches = tmp_path / "caches"
    caches.mkdir()
    with pytest.raises(DataError, match=f"bad.parquet, row group {bad // 500}: column `column_5`"):
        matrix = parts_matrix(name, TableParts(tmp_path / "bad.parquet", NAMES, y), folder=caches, threads=1)
        fit_booster(name, matrix, sizes=SIZES, threads=1, trees=2)
    gc.collect()
    assert list(caches.iterdir()) == []
    without = np.where(np.arange(len(y)) == bad, np.nan, y)
    parts = TableParts(tmp_path / "bad.parquet", NAMES, without)
    assert sum(len(part) for part, _ in parts) == parts.shape[0] == int(np.isfinite(y).sum()) - 1


def test_files_that_do_not_belong_together_are_named(planted, tmp_path):
    folder, x, y = planted
    table = pd.read_parquet(folder / "one.parquet")
    table.drop(columns="column_3").to_parquet(tmp_path / "short.parquet")
    table.astype({"column_2": "int64"}).to_parquet(tmp_path / "whole.parquet")
    table.astype({"column_2": "float64"}).to_parquet(tmp_path / "double.parquet")
    twice = np.r_[y, y]
    for other, column in (("short", "column_3"), ("whole", "column_2"), ("double", "column_2")):
        with pytest.raises(DataError, match=rf"{other}\.parquet.*`{column}`"):
            TableParts([folder / "many.parquet", tmp_path / f"{other}.parquet"], NAMES, twice)
    (tmp_path / "torn.parquet").write_bytes((folder / "one.parquet").read_bytes()[:-50])
    with pytest.raises(DataError, match="torn.parquet cannot be read"):
        TableParts(tmp_path / "torn.parquet", NAMES, y)
    with pytest.raises(DataError, match="outcomes and rows do not match"):
        TableParts(folder / "one.parquet", NAMES, y[1:])
    with pytest.raises(DataError, match="no row has an outcome"):
        TableParts(folder / "one.parquet", NAMES, np.where(np.arange(len(y)) < 10, y, np.nan), slice(10, 3_000))
    with pytest.raises(SettingsError, match="booster"):
        parts_matrix("forest", TableParts(folder / "one.parquet", NAMES, y))


def test_a_changed_part_of_a_store_is_told(tmp_path):
    store, few = tmp_path / "store", ["rsi_14", "roc_12"]
    build_store(sample_market(n=600), store, columns=few, rows=250, log=None)
    y = np.where(np.arange(600) < 50, np.nan, np.arange(600) % 2)
    parts = TableParts(store, few, y)
    assert parts.sizes == [200, 250, 100]
    pd.read_parquet(store / "part-0001.parquet").mul(2).to_parquet(store / "part-0001.parquet")
    with pytest.raises(ModelError, match=r"part-0001\.parquet was changed"):
        list(TableParts(store, few, y))
    assert len(list(TableParts(store, few, y, check=False))) == 3
