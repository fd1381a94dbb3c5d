"""Boosted trees by two workers in processes of their own, on loopback, give what one worker gives."""
import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.data import sample_market
from cryptolab.models.boosting import ask_booster, fit_booster
from cryptolab.models.distributed import fit_booster_on_cluster
from cryptolab.runs.cluster import own_cluster
from cryptolab.systems.v3.rows import v3_table, whole_rows
from cryptolab.systems.v3.stored import open_stored
from cryptolab.systems.v3.system import V3

NAMES = [f"column_{i}" for i in range(6)]
SIZES = dict(
    boost_trees=30, boost_rate=0.2, boost_depth=3, boost_leaf=20, boost_patience=8, boost_rows=1.0, boost_columns=1.0,
)
FIT, STOP = slice(0, 1_800), slice(1_800, 2_400)


@pytest.fixture(scope="module")
def client():
    "Two workers of this machine: processes of their own, on loopback, without a dashboard."
    with own_cluster(2) as client:
        client.wait_for_workers(2)
        yield client


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    "A table in six row groups whose outcome depends on three columns."
    rng = np.random.default_rng(5)
    x = (2 * rng.standard_normal((2_400, 6))).round().clip(-3, 3).astype("float32") / 2  # 7 numbers: bins are exact
    y = (rng.random(len(x)) < 1 / (1 + np.exp(-2 * x[:, 0] - 2 * x[:, 1] * x[:, 2]))).astype(float)
    y[::11] = np.nan
    path = tmp_path_factory.mktemp("planted") / "table.parquet"
    pd.DataFrame(x, columns=NAMES).to_parquet(path, row_group_size=400)
    return path, x, y


STUMPS = {"max_depth": 1, "num_leaves": 2}  # LightGBM searches deeper splits otherwise when rows are spread
CASES = [("xgboost", None, 1e-6), ("lightgbm", STUMPS, 1e-6), ("lightgbm", None, 0.3)]


@pytest.mark.parametrize(("name", "settings", "apart"), CASES)
def test_two_workers_answer_as_one_process(client, planted, name, settings, apart):
    path, x, y = planted
    given = {"sizes": SIZES, "settings": settings}
    model, history = fit_booster_on_cluster(client, name, path, NAMES, y, FIT, val=STOP, **given)
    keep = np.isfinite(y)
    arrays = [(x[rows][keep[rows]], y[rows][keep[rows]]) for rows in (FIT, STOP)]
    single, seen = fit_booster(name, *arrays, threads=1, **given)
    ours, theirs = ask_booster(name, model, x), ask_booster(name, single, x)
    assert np.abs(ours - theirs).max() < apart and np.corrcoef(ours, theirs)[0, 1] > 0.98
    assert abs(history["val_loss"].min() - seen["val_loss"].min()) < max(apart / 10, 1e-5)
    assert int(history["val_loss"].argmin()) + 1 == history.attrs["best_epoch"]
    held_x, held_y = arrays[1]
    p = ask_booster(name, model, held_x)
    loss = -np.log(np.where(held_y > 0.5, p, 1 - p)).mean()
    assert loss == pytest.approx(history["val_loss"].min(), abs=1e-5)  # losses are those of all validation rows
    again, _ = fit_booster_on_cluster(client, name, path, NAMES, y, FIT, val=STOP, **given)
    np.testing.assert_allclose(ask_booster(name, again, x), ours, atol=1e-6)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_a_worker_that_saw_one_class_does_not_turn_the_answer_round(client, planted, name):
    path, x, _ = planted
    y = np.r_[np.ones(1_200), np.zeros(1_200)]  # the first worker sees ones, the second zeros
    x = x.copy()
    x[:, 3] += 3 * y
    path = path.with_name("sorted.parquet")
    pd.DataFrame(x, columns=NAMES).to_parquet(path, row_group_size=400)
    model, _ = fit_booster_on_cluster(client, name, path, NAMES, y, sizes=SIZES, trees=20)
    answers = ask_booster(name, model, x)
    assert answers[:1_200].mean() > 0.8 and answers[1_200:].mean() < 0.2


def test_members_and_folds_are_tasks_of_the_cluster(client, tmp_path):
    market = sample_market("BTCUSDT", "15m", n=1_200, seed=3)
    small = {
        "profile": "smoke", "members": "xgboost,lightgbm", "select": 20, "target": 0.004, "stop": 0.003, "timeout": 20,
        "threads": 1, "sizes": {"shap_rows": 60, "shap_trees": 5},
    }
    table, sent = v3_table(market), []

    def submit(function, *arguments):
        sent.append((function.__name__, arguments[0]))
        return client.submit(function, *arguments)

    there = V3(**small).fit_table(market, table, tmp_path, None, submit)
    here = V3(**small).fit_table(market, table, None, None)
    folds = here.chosen_sizes()["folds"]
    assert sorted(sent) == sorted(
        [("pack_member", name) for name in ("lightgbm", "xgboost")]
        + [("fold_forecast", name) for name in ("lightgbm", "xgboost")] * folds
    )
    one, other = (system.forecast_table(market, table)["p_event"] for system in (there, here))
    pd.testing.assert_series_equal(one, other, check_exact=True)
    sent.clear()
    V3(**small).fit_table(market, table, tmp_path, None, submit)  # what is finished is not sent again
    assert sent == []


def test_boosters_of_many_rows_are_grown_by_all_workers_from_the_file(client, tmp_path):
    market = sample_market("BTCUSDT", "15m", n=1_200, seed=3)
    table, _ = whole_rows(v3_table(market))
    table.to_parquet(tmp_path / "features.parquet", row_group_size=200)
    small = {
        "profile": "smoke", "members": "xgboost,catboost", "select": None, "target": 0.004, "stop": 0.003,
        "timeout": 20, "threads": 1, "sizes": {"boost_rows": 1.0, "boost_columns": 1.0},
    }
    stored, sent = open_stored(tmp_path / "features.parquet", client, fewest=1), []

    def submit(function, *arguments):
        sent.append(arguments[0])
        return client.submit(function, *arguments)

    there = V3(**small).fit_table(market, table, None, None, submit, stored)
    here = V3(**small).fit_table(market, table, None, None)
    assert sent == [] and set(there.models_) == {"xgboost", "catboost"}  # CatBoost from the file, on this machine
    one, other = (system.forecast_table(market, table)["p_event"].dropna() for system in (there, here))
    assert np.corrcoef(one, other)[0, 1] > 0.95


def test_a_task_that_fails_is_a_member_that_is_left_out(client):
    market = sample_market("BTCUSDT", "15m", n=1_200, seed=3)

    def submit(function, *arguments):
        if arguments[0] == "lightgbm" and function.__name__ == "pack_member":
            return client.submit(divmod, 1, 0)
        return client.submit(function, *arguments)

    system = V3(
        profile="smoke", members="xgboost,lightgbm", select=None, target=0.004, stop=0.003, timeout=20, threads=1,
    ).fit_table(market, v3_table(market), None, None, submit)
    assert list(system.models_) == ["xgboost"] and "division" in system.stack_.failed["lightgbm"]


def test_what_cannot_be_trained_is_told(client, planted, tmp_path):
    path, x, y = planted
    with pytest.raises(SettingsError, match="catboost does not train on a cluster"):
        fit_booster_on_cluster(client, "catboost", path, NAMES, y, sizes=SIZES)
    with pytest.raises(DataError, match="no row has an outcome"):
        fit_booster_on_cluster(client, "xgboost", path, NAMES, y * np.nan, sizes=SIZES)
    x = x.copy()
    x[5, 2] = np.nan
    pd.DataFrame(x, columns=NAMES).to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match="bad.parquet, row group 0: column `column_2`"):
        fit_booster_on_cluster(client, "xgboost", tmp_path / "bad.parquet", NAMES, np.ones(len(x)), sizes=SIZES)
