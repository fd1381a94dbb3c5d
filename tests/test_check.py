"""`check_system`: honest systems pass, and every planted fault is named by the check that is meant to find it."""

import gzip
import inspect
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from typer.testing import CliRunner

from cryptolab.cli.main import app
from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.data import sample_market
from cryptolab.evaluation.forecast_table import Forecast
from cryptolab.files import write_json
from cryptolab.labels import next_direction
from cryptolab.reports.leaderboard import leaderboard
from cryptolab.audit.check import check_system
from cryptolab.systems import V2, V9, ClassifierSystem, Hybrid, System
from cryptolab.systems.base import fitted_facts, part_edges
from cryptolab.audit.check import CHECKS
from cryptolab.validation import split_borders, split_rows


class Counting(System):
    "How often did the next close rise after zero, one, two or three rises among the last three candles?"

    name = "counting"
    ranges = {"seed": (0, 2**32 - 1)}

    def __init__(self, *, seed: int = 0, timeframe: str | None = None, share: float = 0.8, **unknown):
        self.take_params(locals())

    def rises(self, candles):
        "Rises among the last three candles; NaN where one of the four candles that say so is missing."
        close = candles["close"]
        whole = close.index.to_series().diff() == pd.Timedelta("1h")
        return (close > close.shift()).astype("float64").where(whole).rolling(3).sum()

    def fit(self, candles, work=None, log=print, pool=None):
        self.check_params()
        timeframe, seen = self.own_timeframe(candles), self.rises(candles).dropna()
        label = next_direction(candles, timeframe).loc[seen.index].dropna(subset="y")
        if len(label) < 100 or label["y"].nunique() < 2:
            raise DataError("nothing can be learned", "100 rows that rise and fall", f"{len(label)}", "more candles")
        split = split_rows(label, split_borders(label["t0"]))
        self.index_ = {"direction": {part: label.index[getattr(split, part)] for part in ("train", "val", "test")}}
        rows = self.index_["direction"]["train"]
        self.count(seen, label["y"], rows[np.random.default_rng(self.seed).random(len(rows)) < self.share])
        self.edges_, self.counts_, self.seconds_ = part_edges(self.index_), {"rows": len(label)}, {}
        self.fitted_ = fitted_facts(candles, timeframe, self.edges_, len(label))
        return self

    def count(self, seen, y, rows):
        "Shares of rises at some rows."
        found = y.loc[rows].groupby(seen.loc[rows]).agg(["sum", "size"]).reindex(range(4), fill_value=0)
        self.p_ = ((found["sum"] + 1) / (found["size"] + 2)).tolist()

    def forecast(self, candles):
        self.fitted_timeframe(candles)
        seen = self.rises(candles).dropna()
        return Forecast({"p_up": np.array(self.p_)[seen.astype(int)]}, index=seen.index)

    def write_models(self, folder):
        write_json(folder / "counting.json", self.p_)

    def read_models(self, folder, manifest):
        self.p_ = json.loads((folder / "counting.json").read_text())


FAULTS = {}


def fails(*checks):
    "Plants a fault: the checks that must name it, and no other."

    def plant(cls):
        FAULTS[cls.__name__] = (cls, checks)
        return cls

    return plant


class Altered(Counting):
    "A table that is changed after the forecast."

    def forecast(self, candles):
        table = super().forecast(candles)
        later = (candles["close"].shift(-1) > candles["close"]).loc[table.index]
        return self.alter(table, later)


# --- the forecast -----------------------------------------------------------------------------------------------------


@fails("look ahead")
class LookAhead(Counting):
    def rises(self, candles):
        return super().rises(candles).shift(-1).ffill()


@fails("look ahead")
class MeanOfTheTable(Counting):
    def forecast(self, candles):
        table = super().forecast(candles)
        table["p_up"] *= 0.5 + candles["close"].rank(pct=True).loc[table.index] / 2
        return table


@fails("look ahead")
class LookAheadInWords(Altered):
    def alter(self, table, later):
        return table.assign(side=np.where(later, "long", "short"))


@fails("look ahead")
class LookAheadInFlags(Altered):
    def alter(self, table, later):
        return table.assign(enter=later)


@fails("look ahead")
class RowsThatWillRise(Altered):
    def alter(self, table, later):
        return table[later | (table.index == table.index[-1])]


@fails("gaps")
class GapsForecast(Counting):
    def forecast(self, candles):
        self.fitted_timeframe(candles)
        return super().forecast(candles.asfreq("1h").ffill())


@fails("gaps")
class GapsFilledInside(Counting):
    def rises(self, candles):
        return super().rises(candles.asfreq("1h").ffill()).reindex(candles.index)


@fails("other timeframe")
class AnyTimeframe(Counting):
    def fitted_timeframe(self, candles):
        self.require_fitted()
        return self.fitted_["timeframe"]


@fails("forecast table")
class Nan(Altered):
    def alter(self, table, later):
        return table.where(table.index.hour.to_numpy()[:, None] != 5)


@fails("forecast table")
class NothingButReasons(Altered):
    def alter(self, table, later):
        return table.assign(p_up=np.nan, reason="no idea")


@fails("forecast table")
class MoreThanCertain(Altered):
    def alter(self, table, later):
        return table * 2.4


@fails("forecast table", "look ahead")  # what is known at the newest candle comes with the candle after it
class NewestMissing(Altered):
    def alter(self, table, later):
        return table.iloc[:-1]


@fails("forecast table")
class ChangesCandles(Counting):
    def forecast(self, candles):
        table = super().forecast(candles)
        candles["rises"] = self.rises(candles)
        return table


@fails("forecast table")
class Talks(Altered):
    def alter(self, table, later):
        print("forecasting")
        return table


@fails("unfitted")
class AnswersUnfitted(Counting):
    def forecast(self, candles):
        return super().forecast(candles) if hasattr(self, "p_") else Forecast({"p_up": 0.5}, index=candles.index)


# --- the fit ----------------------------------------------------------------------------------------------------------


class Refitted(Counting):
    "A fit that something is done to."

    def fit(self, candles, work=None, log=print, pool=None):
        super().fit(candles, work, log, pool)
        self.more(candles)
        return self


@fails("seed")
class Unseeded(Refitted):
    def more(self, candles):
        self.p_ = [p + 1e-9 * np.random.default_rng().random() for p in self.p_]


@fails("seed")
class UnseededByFar(Refitted):
    def more(self, candles):
        self.p_ = [np.random.random() for _ in self.p_]


@fails("second fit")
class Remembers(Refitted):
    def more(self, candles):
        self.fits_ = getattr(self, "fits_", 0) + 1
        self.p_ = [p**self.fits_ for p in self.p_]


@fails("test rows")
class LearnsFromAllRows(Refitted):
    def more(self, candles):
        seen = self.rises(candles).dropna()
        y = next_direction(candles, "1h").loc[seen.index, "y"].dropna()
        self.count(seen, y, y.index)


@fails("rows", "test rows")  # the first of the test rows is one of training too, and everything after it changes
class TrainingRowsInTheTest(Refitted):
    def more(self, candles):
        rows = self.index_["direction"]
        rows["test"] = rows["train"].union(rows["test"])


@fails("rows")
class NotPurged(Refitted):
    def more(self, candles):
        rows = self.index_["direction"]
        rows["val"] = rows["train"][-1:].union(rows["val"])


@fails("fit")
class AddsColumns(Refitted):
    def more(self, candles):
        candles["rises"] = self.rises(candles)


@fails("fit")
class TalksInFit(Refitted):
    def more(self, candles):
        print("fitting")


@fails("constant price")
class TakesAnyPrice(Counting):
    def fit(self, candles, work=None, log=print, pool=None):
        return self if candles["close"].nunique() == 1 else super().fit(candles, work, log, pool)


@fails("few candles")
class TakesAnyNumber(Counting):
    def fit(self, candles, work=None, log=print, pool=None):
        return self if len(candles) < 100 else super().fit(candles, work, log, pool)


# --- parameters and name ----------------------------------------------------------------------------------------------


@fails("misspelt names")
class TakesAnyName(Counting):
    def __init__(self, *, seed: int = 0, timeframe: str | None = None, share: float = 0.8, **unknown):
        self.seed, self.timeframe, self.share = seed, timeframe, share


@fails("misspelt names")
class SetsAnyName(Counting):
    def set_params(self, **params):
        for name, value in params.items():
            setattr(self, name, value)
        return self


@fails("parameters")
class SetsNothing(Counting):
    def set_params(self, **params):
        return self if set(params) <= set(self.parameters()) else super().set_params(**params)


@fails("parameters")
class LearnsBeforeFit(Counting):
    def __init__(self, *, seed: int = 0, timeframe: str | None = None, share: float = 0.8, **unknown):
        self.take_params(locals())
        self.p_ = [0.5] * 4


@fails("parameters", "save and load")  # each constructor halves it again, also the one that `load` calls
class RewritesParameters(Counting):
    def __init__(self, *, seed: int = 0, timeframe: str | None = None, share: float = 0.8, **unknown):
        self.take_params(locals())
        self.share = share / 2


@fails("protocol")
class Capitals(Counting):
    name = "Counting"


# --- the folder -------------------------------------------------------------------------------------------------------


class Written(Counting):
    "A folder with one more file."

    def write_models(self, folder):
        super().write_models(folder)
        (folder / "more").write_bytes(self.more())


@fails("save and load")
class LostDigit(Counting):
    def write_models(self, folder):
        write_json(folder / "counting.json", [round(p, 12) for p in self.p_])


@fails("save and load")
class LostRow(Counting):
    def read_models(self, folder, manifest):
        super().read_models(folder, manifest)
        self.index_["direction"]["test"] = self.index_["direction"]["test"][1:]


@fails("save and load")
class LostSeed(Counting):
    def shown_params(self):
        return self.get_params() | {"seed": 0}


@fails("no pickle")
class Pickle(Written):
    def more(self):
        return pickle.dumps(self.p_)


@fails("no pickle")
class PickleInLetters(Written):
    def more(self):
        return pickle.dumps(self.p_, protocol=0)


@fails("no pickle")
class PickleInGzip(Written):
    def more(self):
        return gzip.compress(pickle.dumps(self.p_))


@fails("no pickle")
class PickleOfJoblib(Counting):
    def write_models(self, folder):
        import joblib

        super().write_models(folder)
        joblib.dump({"p": np.array(self.p_)}, folder / "more", compress=3)


@fails("no pickle")
class PickleInAnArray(Counting):
    def write_models(self, folder):
        super().write_models(folder)
        np.savez_compressed(folder / "more.npz", p=np.array([self.p_], dtype=object))


@fails("tampered")
class NoSums(Counting):
    def save(self, folder):
        self.require_fitted("save")
        Path(folder).mkdir()
        rows = {part: [str(t) for t in rows] for part, rows in self.index_["direction"].items()}
        write_json(Path(folder) / "all.json", [self.get_params(), self.p_, self.fitted_, rows])
        return folder

    @classmethod
    def load(cls, folder):
        params, p, fitted, rows = json.loads((Path(folder) / "all.json").read_text())
        self = cls(**params)
        self.p_, self.fitted_ = p, fitted
        self.index_ = {"direction": {part: pd.DatetimeIndex(times) for part, times in rows.items()}}
        return self


@fails("tampered")
class FileWithoutSum(Counting):
    def save(self, folder):
        write_json(super().save(folder) / "late.json", self.p_)
        return Path(folder)

    @classmethod
    def load(cls, folder):
        self = super().load(folder)
        self.p_ = json.loads((folder / "late.json").read_text())
        return self


# --- what the checks say ----------------------------------------------------------------------------------------------


def test_an_honest_system_passes():
    table = check_system(Counting, n=600)
    assert list(table.index) == list(CHECKS) and (table["verdict"] == "pass").all()


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_its_own_check(name):
    cls, expected = FAULTS[name]
    with pytest.raises(ModelError) as error:
        check_system(cls, n=600)
    first = f"{name} fails {len(expected)} of {len(CHECKS)} checks: {', '.join(expected)}"
    assert str(error.value).splitlines()[0] == first


def test_every_check_finds_something():
    "A check that no planted fault fails could be empty."
    assert {check for _, checks in FAULTS.values() for check in checks} == set(CHECKS)


def test_what_a_failure_says():
    table = check_system(LookAhead, n=600, checks=("look ahead", "gaps"), raises=False)
    assert table["verdict"].tolist() == ["FAIL", "pass"]
    row = table.loc["look ahead"]
    assert "p_up" in row["found"] and "2024" in row["found"] and row["expected"] and row["remedy"]
    with pytest.raises(SettingsError, match="no such check"):
        check_system(Counting, checks=("honesty",))


# --- the systems of the library, and a stranger's ---------------------------------------------------------------------

V9_SMALL = {"direction_epochs": 1, "price_epochs": 1, "price_rate": 3e-4, "trees": 5}  # all three parts learn


@pytest.mark.parametrize("system", [
    V9(profile="smoke", seed=1, threads=1, sizes=V9_SMALL),
    V2(profile="smoke", threads=1), V2(profile="smoke", side="both", thresholds="adaptive", seed=2, threads=1),
    Hybrid(profile="smoke", threads=1, sizes={"lstm_epochs": 1}),
], ids=lambda s: f"{s.name} {getattr(s, 'side', '')}".strip())
def test_the_systems_of_the_library_pass(system):
    check_system(system)


class Nearest(ClassifierMixin, BaseEstimator):
    "A stranger's classifier: the nearer of two means says it."

    def fit(self, x, y):
        self.classes_, self.means_ = np.unique(y), np.array([x[y == k].mean(axis=0) for k in np.unique(y)])
        return self

    def predict_proba(self, x):
        far = ((x[:, None] - self.means_) ** 2).sum(axis=2)
        return far[:, ::-1] / far.sum(axis=1, keepdims=True)


class NearestSystem(ClassifierSystem):
    "The nearer of two means."

    name = "nearest"
    trusted = (f"{__name__}.Nearest",)

    def classifier(self):
        return Nearest()


def test_a_strangers_classifier_becomes_a_system_in_ten_lines(tmp_path):
    assert len(inspect.getsource(NearestSystem).splitlines()) <= 10
    check_system(NearestSystem)
    market = sample_market(n=1_500, edge=0.3)
    fitted = NearestSystem(features="v2").fit(market, log=None)
    assert fitted.forecast(market)["p_up"].nunique() > 100
    with pytest.raises(ModelError, match=f"not trusted(.|\n)*{__name__}.Nearest"):
        type("Careful", (NearestSystem,), {"trusted": ()}).load(fitted.save(tmp_path / "model"))


# --- scikit-learn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", [
    V9(profile="smoke", pool=("ETHUSDT",), sizes={"trees": 5}), V2(side="both", target=2.0, sizes={"trees": 7}),
    Hybrid(members=("svm", "lstm"), threads=2), NearestSystem(features="v2"),
], ids=lambda s: s.name)
def test_scikit_learn_clones_and_sets(system):
    twin = clone(system)
    assert type(twin) is type(system) and twin is not system
    assert twin.get_params(deep=True) == twin.get_params(deep=False) == system.get_params()
    assert twin.set_params(seed=5, timeframe="15m") is twin
    assert twin.get_params() == system.get_params() | {"seed": 5, "timeframe": "15m"} and system.seed == 0
    with pytest.raises(SettingsError, match="did you mean `timeframe`"):
        twin.set_params(seed=6, timefrme="1h")
    assert twin.seed == 5  # nothing changes where one name is wrong


def test_one_size_is_set_and_the_others_stay():
    system = V9(sizes={"trees": 5})
    system.set_params(sizes__depth=2)
    assert system.sizes == {"trees": 5, "depth": 2} and system.chosen_sizes()["depth"] == 2
    system.set_params(sizes={"trees": 9}, sizes__max_bin=16)
    assert system.sizes == {"trees": 9, "max_bin": 16}
    with pytest.raises(SettingsError, match="did you mean `trees`"):
        system.set_params(sizes__tree=3)
    with pytest.raises(SettingsError, match="unknown size"):
        V2().set_params(sizes__heads=3)


def test_a_grid_search_over_v2():
    market = sample_market(n=1_500, timeframe="15m", seed=1)

    def brier(system, candles, y=None):
        happened, p = system.labels(candles)["long"]["y"], system.forecast(candles)["p_event"]
        return -((p - happened) ** 2).mean()

    search = GridSearchCV(
        V2(profile="smoke", candidates="all", threads=1), {"sizes__trees": [1, 20], "target": [2.0, 3.0]},
        scoring=brier, cv=TimeSeriesSplit(n_splits=2, test_size=300), error_score="raise",
    ).fit(market, log=None)
    scores = pd.DataFrame(search.cv_results_)
    assert len(scores) == 4 and scores["mean_test_score"].between(-1, 0, inclusive="neither").all()
    assert scores["mean_test_score"].nunique() >= 3 and (scores["std_test_score"] > 0).all()
    best = search.best_estimator_
    assert {"sizes__trees": best.sizes["trees"], "target": best.target} == search.best_params_
    pd.testing.assert_frame_equal(
        best.forecast(market), clone(best).fit(market, log=None).forecast(market), check_exact=True,
    )


# --- from a scaffold to a report --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    "The folder in which `cryptolab new system demo` was called."
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(app, ["new", "system", "demo"])
        assert done.exit_code == 0
        assert {p.name for p in (folder / "systems").iterdir()} == {"demo.ipynb", "test_demo.py"}
        yield folder


def test_a_new_system_passes_its_own_test(demo):
    answer = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(demo / "systems" / "test_demo.py")])
    assert answer == pytest.ExitCode.OK


@pytest.mark.slow
def test_a_new_system_has_a_report_that_the_leaderboard_reads(demo):
    words = ["run", "BTCUSDT", "1h", "--system", "demo", "--source", "sample", "--limit", "500", "--out", "reports"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    folder = demo / "reports" / "BTCUSDT-1h-demo"
    assert {"report.html", "report.ipynb", "result.json", "model"} <= {p.name for p in folder.iterdir()}
    result, row = json.loads((folder / "result.json").read_text()), leaderboard(demo / "reports").iloc[0]
    assert result["finding"] in (folder / "report.html").read_text() and row["system"] == "demo"
    assert row["accuracy"] == result["direction"]["Demo"]["accuracy"] and row["n"] == result["direction"]["Demo"]["n"]
