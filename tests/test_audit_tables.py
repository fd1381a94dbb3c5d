"""Audits without five functions: tables of predictions, estimators, strategies; and what a step reads."""
import json
import random
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import TimeSeriesSplit

from cryptolab.audit import audit_estimator, audit_pipeline, audit_predictions, audit_strategy, read_predictions
from cryptolab.audit.leaks.audit import READS
from cryptolab.audit.leaks.other_tables import context_after, known_times
from cryptolab.audit.pipeline import Pipeline
from cryptolab.audit.surroundings import fixed_entropy, watched
from cryptolab.audit.zoo.zoo import entry
from cryptolab.config import DataError
from cryptolab.data.market import sample_market

HOUR = pd.Timedelta("1h")


@pytest.fixture(scope="module")
def candles():
    return sample_market(n=1_000)


@pytest.fixture(scope="module")
def table(candles):
    "Honest predictions of a rule that knows nothing."
    move = np.log(candles["close"]).diff()
    rows = pd.DataFrame({"last": move, "wide": candles["high"] / candles["low"] - 1, "y": (move.shift(-1) > 0) * 1.0})
    rows = rows.assign(p=0.5 - 0.02 * np.sign(move), part=np.where(np.arange(1_000) < 600, "train", "test"))
    rows["t1"] = rows.index + 2 * HOUR
    return rows.iloc[1:-1].drop(rows.index[599])


# ---- tables

def test_an_honest_table_is_not_accused_and_says_what_it_cannot_judge(table):
    found = audit_predictions(table)
    verdicts = found.verdicts()["verdict"]
    assert not len(found) and verdicts["label overlap"] == "nothing in 1 trial"
    assert verdicts["feature look-ahead"] == "not judged: needs the code that made the table"
    assert verdicts["forecast with zero lag"].startswith("not judged") and "0 findings on 997 rows" in found.headline()


def test_columns_and_times_that_are_absent_are_named_in_the_verdicts(table):
    verdicts = audit_predictions(table.drop(columns="part")).verdicts()["verdict"]
    assert "training rows" in verdicts["label overlap"] and "training rows" in verdicts["duplicate rows"]
    verdicts = audit_predictions(table.drop(columns="t1")).verdicts()["verdict"]
    assert "t1" in verdicts["label overlap"] and verdicts["duplicate rows"].startswith("nothing")
    verdicts = audit_predictions(table[-50:]).verdicts()["verdict"]
    assert verdicts["accuracy out of reach"] == "not judged: only 50 test rows with outcome and forecast"
    with pytest.raises(DataError, match="no column `forecast`"):
        audit_predictions(table.drop(columns="p"))
    with pytest.raises(DataError, match="no column `y`"):
        audit_predictions(table, y="outcome")


def test_the_horizon_decides_what_an_accuracy_is_worth(table):
    "The same 75 % are out of reach for 400 outcomes of one hour, and may be luck for outcomes of 72 hours."
    rng = np.random.default_rng(0)
    right = table.assign(p=np.where(rng.random(len(table)) < 0.75, table["y"], 1 - table["y"]))
    assert "accuracy out of reach" in set(audit_predictions(right)["kind"])
    long = right.assign(t1=right.index + 72 * HOUR)
    assert "accuracy out of reach" not in set(audit_predictions(long)["kind"])


def test_a_smooth_column_is_compared_with_its_own_memory(table):
    "A trend and an outcome that trends meet by chance; a column of the outcome does not."
    slow = pd.Series(np.sin(np.arange(len(table)) / 90), table.index)
    trending = table.assign(y=(slow > 0) * 1.0, near=slow.shift(40).bfill())
    assert "column out of reach" not in set(audit_predictions(trending)["kind"])
    hint = table.assign(hint=table["y"] + np.random.default_rng(1).standard_normal(len(table)))
    found = audit_predictions(hint)
    assert "`hint` alone has AUC" in found.loc[found["kind"] == "column out of reach", "evidence"].iloc[0]


def test_gaps_of_a_column_may_know_the_outcome(table):
    gaps = table.assign(volume=np.where(table["y"] == 1, np.nan, 1.0) * np.arange(len(table)))
    assert "column out of reach" in set(audit_predictions(gaps)["kind"])


def test_rows_of_two_coins_at_one_time_are_contemporaneous_and_the_same_coin_is_a_duplicate(table):
    test = table[table["part"] == "test"]
    other = test.assign(part="train", last=lambda t: -t["last"], wide=lambda t: 2 * t["wide"])
    coins = pd.concat([table.assign(symbol="BTC"), other.assign(symbol="ETH")])
    assert "contemporaneous coin" in set(audit_predictions(coins)["kind"])
    assert "duplicate rows" in set(audit_predictions(pd.concat([table, other]))["kind"])


def test_a_file_is_audited_by_one_command(table, tmp_path):
    from typer.testing import CliRunner

    from cryptolab.cli.main import app

    table.rename_axis("time").to_csv(tmp_path / "honest.csv")
    table.assign(p=table["y"]).reset_index(names="time").to_parquet(tmp_path / "best.parquet")
    cli = CliRunner()
    honest = cli.invoke(app, ["audit-predictions", str(tmp_path / "honest.csv"), "--json"])
    told = json.loads(honest.stdout)
    assert honest.exit_code == 0 and told["findings"] == [] and len(told["verdicts"]) == 13
    best = cli.invoke(app, ["audit-predictions", str(tmp_path / "best.parquet")])
    assert best.exit_code == 1 and "FOUND accuracy out of reach" in best.stdout
    (tmp_path / "empty.csv").write_text("y,p\n")
    for name, text in (("empty.csv", "empty"), ("none.csv", "nothing there"), ("honest.xlsx", "nothing there")):
        answer = cli.invoke(app, ["audit-predictions", str(tmp_path / name)])
        assert answer.exit_code == 1 and text in answer.output, name
    with pytest.raises(DataError, match="a table of predictions is empty"):
        read_predictions(str(tmp_path / "empty.csv"))


# ---- estimators

def test_folds_are_judged_by_when_outcomes_are_known(candles):
    move = np.log(candles["close"]).diff()
    X = pd.DataFrame({f"lag_{k}": move.shift(k) for k in range(3)}).iloc[3:-6]
    y, t1 = (candles["close"].shift(-6) > candles["close"]).astype(int).loc[X.index], X.index + 6 * HOUR
    touching = audit_estimator(LogisticRegression(), TimeSeriesSplit(2), X, y, t1)
    assert set(touching.kind) == {"label overlap"} and set(touching["rows"]) == {5}
    assert not len(audit_estimator(LogisticRegression(), TimeSeriesSplit(2, gap=5), X, y, t1))


def test_an_estimator_that_remembers_other_rows_is_found(candles):
    move = np.log(candles["close"]).diff()
    X = pd.DataFrame({f"lag_{k}": move.shift(k) for k in range(3)}).iloc[3:-1]
    y = (move.shift(-1) > 0).astype(int).loc[X.index]

    class Remembers(LogisticRegression):
        def fit(self, rows, y, sample_weight=None):
            return super().fit(rows + X.mean(), y) if len(rows) else self

    class Ranks(LogisticRegression):
        def predict_proba(self, rows):
            return super().predict_proba(rows.rank(pct=True))

    cv = TimeSeriesSplit(3, gap=1)
    assert not len(audit_estimator(Remembers(), cv, X, y, X.index + HOUR))
    found = audit_estimator(Ranks(), cv, X, y, X.index + HOUR)
    assert [(f.kind, f.step) for f in found.itertuples()] == [("fit on test rows", "predict")]
    scaled = audit_estimator(LogisticRegression(), cv, (X - X.mean()) / X.std(), y, X.index + HOUR)
    assert [(f.kind, f.step) for f in scaled.itertuples()] == [("fit on test rows", "features")]
    verdicts = audit_estimator(LogisticRegression(), cv, X.to_numpy(), y.to_numpy()).verdicts()["verdict"]
    assert "not judged" in verdicts["label overlap"] and "not judged" in verdicts["contemporaneous coin"]


# ---- strategies

def test_a_strategy_is_judged_with_its_signals_and_its_pairs(candles):
    class Peeks:
        def __init__(self, config):
            self.config = config

        def populate_indicators(self, dataframe, metadata):
            dataframe["mean"] = dataframe["close"].rolling(10).mean()
            return dataframe

        def populate_entry_trend(self, dataframe, metadata):
            dataframe["enter_tag"] = ""
            dataframe.loc[dataframe["close"].shift(-1) > dataframe["close"], ["enter_long", "enter_tag"]] = (1, "up")
            return dataframe

    found = audit_strategy(Peeks, candles=candles, seconds=0.3)
    assert set(found["kind"]) == {"feature look-ahead"} and "enter_" in found["evidence"][0]
    verdicts = found.verdicts()["verdict"]
    assert verdicts["label overlap"].startswith("not judged: a strategy has no labels")
    assert verdicts["contemporaneous coin"] == "not judged: there are no other tables"
    with pytest.raises(DataError, match="no columns"):
        audit_strategy(lambda dataframe: dataframe, candles=candles, seconds=0.3)


# ---- verdicts of pipelines

def columns(candles):
    change = candles["close"].pct_change()
    return pd.DataFrame({"change": change, "before": change.shift(1)})


def usual(features=columns, **more):
    return Pipeline(features, fit=LogisticRegression(), **more)


def test_an_honest_pipeline_has_a_verdict_of_every_detector(candles):
    found = audit_pipeline(usual(), candles, seconds=0.3)
    table = found.verdicts()
    assert not len(found) and table.index[-1] == READS and len(table) == 11
    assert table["verdict"].str.match("nothing in [0-9]+ trials?").all() and (table["failed"] == 0).all()
    assert "single rows not tried: time was up" in table.loc["feature look-ahead", "left_out"]


def test_what_is_not_judged_says_why(candles):
    calendar = usual(lambda c: pd.DataFrame({"hour": c.index.hour, "day": c.index.dayofweek}, c.index))
    def clock(c):
        return pd.DataFrame({"y": (c.index.hour > 11) * 1.0, "t0": c.index + HOUR, "t1": c.index + 2 * HOUR}, c.index)

    fixed = usual(labels=clock)
    timeless = usual(context={"words": pd.Series([1.0, 2.0])})
    verdicts = [audit_pipeline(p, candles, seconds=0.3).verdicts() for p in (calendar, fixed, timeless)]
    assert "do not react to the candles" in verdicts[0].loc["feature look-ahead", "verdict"]
    assert "do not react to the candles" in verdicts[1].loc["label overlap", "verdict"]
    assert "`words` has no times" in verdicts[2].loc["contemporaneous coin", "left_out"]


def test_a_step_that_fails_on_other_markets_is_counted(candles):
    highest = float(candles["close"].max())

    def strict(c):
        if c["close"].max() > 5 * highest:
            raise ValueError("no such price")
        return columns(c)

    table = audit_pipeline(usual(strict), candles, seconds=0.3).verdicts()
    assert table.loc["feature look-ahead", "failed"] > 3 and table.loc["feature look-ahead", "trials"] > 3
    assert "trials failed" in table.loc["feature look-ahead", "left_out"]


def test_a_step_that_reads_a_file_or_a_variable_is_named(candles, tmp_path):
    (tmp_path / "scale.csv").write_text("2.0")

    def reads(c):
        return columns(c) * float((tmp_path / "scale.csv").read_text())

    found = audit_pipeline(usual(reads), candles, seconds=0.3)
    assert found.attrs["reads"] == ["file scale.csv (features)"]
    assert found.verdicts().loc[READS, "verdict"] == "not judged: file scale.csv (features)"


NAMES = {"hour_with_a_trace", "scaled_in_the_first_fold", "warm_start_in_blocks", "unit_of_everything"}
HONEST = {"cached_by_content", "warm_start_forwards", "dropout_at_the_forecast"}


@pytest.mark.parametrize("name", sorted(NAMES | HONEST))
def test_mechanisms_that_were_missed_once(name):
    animal = entry(name)
    market = animal.candles(1_000)
    found = audit_pipeline(animal.make(market), market, seconds=0.5)
    assert bool(len(found)) is (name in NAMES), found["evidence"].tolist()


def test_an_audit_leaves_what_is_kept_outside_as_it_was():
    from cryptolab.audit.zoo import other_tables

    animal = entry("cached_zscore")
    market = animal.candles(900)
    other_tables.CACHE.clear()
    other_tables.CACHE["mine"] = 1
    found = audit_pipeline(animal.make(market), market, seconds=0.3)
    assert other_tables.CACHE == {"mine": 1} and "`CACHE`" in found.verdicts().loc[READS, "left_out"]
    other_tables.CACHE.clear()


# ---- surroundings and other tables

def test_entropy_is_fixed_inside_and_free_outside():
    def draws(seed):
        with fixed_entropy(seed):
            return np.random.default_rng().integers(10**9), random.SystemRandom().random()

    assert draws(1) == draws(1) != draws(2)
    assert np.random.default_rng().integers(10**9) != np.random.default_rng().integers(10**9)
    with pytest.raises(ZeroDivisionError), fixed_entropy(0):
        raise ZeroDivisionError
    assert random.SystemRandom().random() != random.SystemRandom().random()


def test_packages_are_not_what_a_step_reads():
    class Plain:
        def features(self, candles):
            import this  # noqa: F401 -- a module of Python, read from its file

            return candles

    with watched(Plain()) as around:
        from cryptolab.audit.surroundings import inside_step

        with inside_step("features"), tempfile.TemporaryDirectory() as folder:
            Plain().features(None)
            (Path(folder) / "written.csv").write_text("1")
    assert around.facts() == []


def test_rows_are_known_when_the_table_says_so(candles):
    times, step = candles.index.as_unit("ns").asi8, HOUR.value
    late = pd.DataFrame({"x": 1.0}, candles.index)
    late.attrs["known_after"] = "3h"
    assert (known_times(("x",), late, times, step)[0] == times + 3 * step).all()
    other = context_after([{"x": late}, (np.arange(1_000.0),)], int(times[600]) + step, times, step)
    assert (other[0]["x"]["x"].to_numpy()[:599] == 1).all() and (other[0]["x"]["x"].to_numpy()[599:] != 1).all()
    assert (other[1][0][:601] == np.arange(601)).all() and (other[1][0][601:] != np.arange(601, 1_000)).all()
