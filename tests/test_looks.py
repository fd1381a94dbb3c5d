"""Tables that say what they are: true of the rows at hand, nothing of pandas is lost, text stays text in HTML."""
import copy
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryptolab.audit.leaks.audit import Findings
from cryptolab.data import CANDLE_COLUMNS, Candles, load_candles, read_candles, resample_candles, sample_market
from cryptolab.data.display import BLUE, GREY, HeadedTable, broken_line, headed
from cryptolab.evaluation.comparison import direction_comparison, price_comparison, volatility_comparison
from cryptolab.evaluation.costs import cost_comparison, sign_position
from cryptolab.evaluation.events import event_comparison
from cryptolab.evaluation.forecast_table import Forecast
from cryptolab.evaluation.rivals import best_methods, rival_comparison
from cryptolab.features import certify


@pytest.fixture(scope="module")
def candles():
    return load_candles("BTCUSDT", "1h", source="sample", limit=400, warmup=20)


# ---- candles

def test_every_way_to_candles_gives_candles(candles, tmp_path):
    candles.to_csv(tmp_path / "BTCUSDT_1h.csv")
    ways = {
        "sample": candles, "market": sample_market(n=300), "resampled": resample_candles(candles, "4h"),
        "read": read_candles(tmp_path / "BTCUSDT_1h.csv"),
        "raw": read_candles(tmp_path / "BTCUSDT_1h.csv", clean=False),
        "local": load_candles("btcusdt", "1H", source="LOCAL", data_dir=tmp_path),
    }
    assert {name: type(table) for name, table in ways.items()} == dict.fromkeys(ways, Candles)
    assert ways["local"].headline().endswith("none missing; local BTCUSDT_1h.csv; nothing dropped")
    assert str(tmp_path) not in repr(ways["local"])  # a path of this machine is nobody's business


def test_the_sentence_is_true_of_the_rows_at_hand(candles):
    def said(table):
        return table.headline().split("; ")[0]

    assert said(candles) == "BTCUSDT 1h: 420 candles from 2024-12-14 12:00 to 2024-12-31 23:00 UTC, none missing"
    assert said(candles[5:6]) == "BTCUSDT 1h: 1 candle from 2024-12-14 17:00 to 2024-12-14 17:00 UTC"
    holes = candles.drop(candles.index[[50, 51, 200]])
    assert said(holes).endswith("3 missing between them") and said(holes[60:150]).endswith("none missing")
    assert said(resample_candles(candles, "4h")).startswith("BTCUSDT 4h: 105 candles")
    bare = Candles(pd.DataFrame(candles.to_numpy(), candles.index, candles.columns))
    assert bare.headline() == "candles: 420 candles from 2024-12-14 12:00 to 2024-12-31 23:00 UTC"


def test_what_was_dropped_is_said(candles, tmp_path):
    damaged = pd.concat([candles, candles.iloc[[3, 9]]])
    damaged.iloc[100, :4] = np.nan
    damaged.reset_index().to_csv(tmp_path / "a.csv", index=False)
    found = read_candles(tmp_path / "a.csv").headline()
    assert found.endswith("a.csv; sorted by time; dropped: 1 missing values, 2 duplicates"), found


def test_rows_stay_candles_and_columns_do_not(candles):
    kept = [candles[:9], candles.iloc[::2], candles.copy(), candles.sort_index(ascending=False), candles.dropna(),
            candles[candles.close > 0], candles.assign(x=1.0), candles[CANDLE_COLUMNS], candles.rename(columns=str),
            pd.concat([candles[:90], candles[90:]]), candles.join(candles[["close"]].add_prefix("b_")),
            copy.deepcopy(candles), pickle.loads(pickle.dumps(candles)), candles.tail(3), candles.astype("float32")]
    assert [type(t) for t in kept] == [Candles] * len(kept)
    assert [t.attrs for t in kept] == [candles.attrs] * len(kept)
    plain = [candles[["open", "close"]], candles.T, candles.describe(), candles.drop(columns="low"), candles.corr(),
             candles.groupby(candles.index.hour).mean(), candles.to_numpy(), candles.melt(),
             candles.pivot_table(index=candles.index.hour), candles.stack().unstack(0)]
    assert Candles not in [type(t) for t in plain]
    series = [candles["close"], candles.close, candles.iloc[4], candles.mean(), candles.loc[candles.index[4]]]
    assert [type(s) for s in series] == [pd.Series] * 5
    renamed = candles.rename(columns=str.upper), candles.set_index("close"), candles.reset_index()
    assert [t.headline() for t in renamed] == [None] * 3  # pandas changes a copy in place: nothing is claimed of it


def test_candles_are_a_dataframe_in_every_other_respect(candles, tmp_path):
    plain = pd.DataFrame(candles)
    assert type(plain) is pd.DataFrame
    for do in (
        lambda t: t * 2, lambda t: t.rolling(5).mean(), lambda t: t.resample("4h").last(), lambda t: t.shift(1),
        lambda t: t.groupby(t.index.hour).sum(), lambda t: t.where(t > 100), lambda t: t.apply(np.log),
        lambda t: t.merge(t, left_index=True, right_index=True), lambda t: t.query("close > open"),
        lambda t: t.cumsum(),
        lambda t: t.pivot_table(index=t.index.hour, values="close"), lambda t: t.stack(), lambda t: t.T,
        lambda t: t.reindex(t.index[::3]), lambda t: t.sample(5, random_state=1), lambda t: t.eval("close - open"),
    ):
        got, want = do(candles), do(plain)
        assert np.array_equal(got.to_numpy(), want.to_numpy(), equal_nan=True) and got.index.equals(want.index)
    changed = candles.copy()
    changed.loc[changed.index[3], "close"] = 1.0
    changed["close"] = changed["close"] * 2
    assert changed["close"].iloc[3] == 2.0 and candles["close"].iloc[3] != 2.0
    candles.to_parquet(tmp_path / "a.parquet")
    stored = pd.read_parquet(tmp_path / "a.parquet")
    assert type(stored) is pd.DataFrame and stored.attrs == candles.attrs
    pd.testing.assert_frame_equal(Candles(stored), candles, check_freq=False)


@pytest.mark.parametrize("make", [
    lambda c: c > 0, lambda c: c.pct_change(), lambda c: c.diff(), lambda c: c.iloc[:0], lambda c: c.isna(),
    lambda c: c.astype(str), lambda c: -c, lambda c: c.tz_localize(None),
])
def test_numbers_that_are_no_candles_are_shown_as_pandas_shows_them(candles, make):
    table = make(candles)
    assert Candles(table).headline() is None
    own, plain = Candles(table), pd.DataFrame(table)
    assert repr(own).replace("Empty Candles", "Empty DataFrame") == repr(plain)
    assert own._repr_html_() == plain._repr_html_()


def calls(do, table):
    "Python functions called by it: what it costs, the same on a busy machine."
    counted = []
    do(table)
    sys.setprofile(lambda frame, event, _: counted.append(frame.f_code.co_name) if event == "call" else None)
    try:
        do(table)
    finally:
        sys.setprofile(None)
    return len(counted)


def test_a_slice_costs_next_to_nothing(candles):
    bare = Candles(pd.DataFrame(candles.to_numpy(), candles.index, candles.columns))
    plain = pd.DataFrame(bare)
    for do in (lambda t: t.iloc[20:90], lambda t: t["close"], lambda t: t.copy()):
        assert calls(do, plain) > 5 and calls(do, bare) - calls(do, plain) <= 4


# ---- how they look

HOSTILE = "<img src=x onerror=alert(1)>\u202e$x$ $\\no{$"


def test_text_from_outside_stays_text(candles):
    table = candles[:50].assign(**{"<b>x</b>": 1.0})
    table.attrs = {"symbol": HOSTILE, "timeframe": "1h", "source": HOSTILE, "path": f"/home/me/{HOSTILE}.csv"}
    page = table._repr_html_()
    assert "<img" not in page and "<b>x" not in page and "\u202e" not in page + repr(table) and "\\u202e" in page
    assert "/home" not in page + repr(table)
    axes = table.plot()
    assert "$x$" in axes[0].get_title(loc="left")
    axes[0].figure.canvas.draw()  # would fail where `$` began a formula


def test_html_holds_on_a_phone_and_in_the_dark(candles):
    page = candles._repr_html_()
    assert page.startswith('<div style="max-width:100%;overflow-x:auto"><p') and page.count("<p") == 1
    assert "color" not in page and "background" not in page and "px" not in page.split("<style")[0]
    assert page.count("<tr") == 1 + 1 + 3 + 1 + 3  # heads, first rows, dots, last rows
    assert len(repr(candles).splitlines()) == 1 + 2 + 7
    with pd.option_context("display.max_rows", 500):
        assert len(repr(candles).splitlines()) == 1 + 2 + 420
    with pd.option_context("display.notebook_repr_html", False):
        assert candles._repr_html_() is None


def test_plot_draws_candles_and_is_pandas_own_otherwise(candles):
    import matplotlib.pyplot as plt

    assert len(candles.plot()) == 2 and len(candles.plot(rows=50)[0].patches) == 50
    line = candles.plot(y="close", figsize=(4, 2)).get_lines()[0]
    np.testing.assert_array_equal(line.get_ydata(), candles["close"])
    assert candles.plot.line(y=["open", "close"]).get_legend_handles_labels()[1] == ["open", "close"]
    assert len(candles.pct_change().plot().get_lines()) == 5  # no candles: pandas' picture
    plt.close("all")


def test_a_gap_breaks_the_line(candles):
    holes = candles.drop(candles.index[[50, 51, 200]])
    times, close = broken_line(holes.index, holes["close"], pd.Timedelta("1h"))
    assert np.flatnonzero(np.isnan(close)).tolist() == [50, 199] and (np.diff(times) >= np.timedelta64(0)).all()


def test_a_headed_table_gives_plain_tables_and_keeps_its_attrs():
    class One(HeadedTable):
        def headline(self):
            return "one"

    table = One({"a": [1.0, 2.0]})
    table.attrs = {"n": [1]}
    again = One(table)
    again.attrs["n"].append(2)
    assert table.attrs == {"n": [1]} and repr(table).startswith("one\n")
    assert {type(t) for t in (table.copy(), table[:1], table.round(1), table + 1)} == {pd.DataFrame}
    assert headed("a\n b", "x") == "a b\nx"


# ---- forecasts, comparisons, certificates, findings

def forecast_of(candles, **attrs):
    close = candles["close"]
    table = {"p_up": 0.4 + 0.2 * (close.rank(pct=True)), "price": close, "lower": 0.99 * close, "upper": 1.01 * close}
    forecast = Forecast(table)
    forecast.attrs = {"system": "toy", "event": "next close is higher", "horizon": 3, "timeframe": "1h", **attrs}
    return forecast


def test_a_forecast_says_what_its_probability_is_of(candles):
    forecast = forecast_of(candles, coverage=0.9)
    assert forecast.headline() == (
        'toy: p_up is the probability of "next close is higher", 3 candles of 1h ahead, the interval is to hold 90% of '
        "the outcomes; 420 rows, the newest known at 2025-01-01 00:00 UTC"
    )
    assert forecast[:7].headline().endswith("7 rows, the newest known at 2024-12-14 19:00 UTC")
    kept = forecast[:7], forecast.copy(), forecast[["p_up"]], pickle.loads(pickle.dumps(forecast)), forecast.dropna()
    assert [type(t) for t in kept] == [Forecast] * 5 and [t.attrs for t in kept] == [forecast.attrs] * 5
    assert type(forecast[["price"]]) is pd.DataFrame and type(forecast["p_up"]) is pd.Series
    other = Forecast(forecast[["p_up"]].rename(columns={"p_up": "p_event"}))
    other.iloc[3] = np.nan  # no candidate in this row
    assert "p_event is the probability" in other.headline() and "interval" not in other.headline()
    for silent in (forecast * 2, forecast.astype(str), forecast[:0], Forecast(pd.DataFrame({"p_up": [0.5]}))):
        assert Forecast(silent).headline() is None
    assert "<script>" not in forecast_of(candles, event="<script>")._repr_html_()


def test_a_forecast_is_drawn_at_the_candle_it_is_about(candles):
    import matplotlib.pyplot as plt
    from matplotlib.dates import num2date

    forecast = forecast_of(candles[:-3])
    price, p_up = forecast.plot(candles=candles, rows=50)
    drawn, happened = price.get_lines()
    assert num2date(drawn.get_xdata().astype("datetime64[s]").astype(float)[-1] / 86400) == candles.index[-1]
    np.testing.assert_allclose(happened.get_ydata(), candles["close"][-50:])
    np.testing.assert_allclose(p_up.get_lines()[0].get_ydata(), forecast["p_up"][-50:])
    assert len(forecast[["p_up"]].plot()) == 1 and len(forecast.plot(y="p_up").get_lines()) == 1
    plt.close("all")


@pytest.fixture(scope="module")
def boards():
    "Comparisons in which the first method knows something, and in which it does not."
    rng = np.random.default_rng(0)
    known = np.where(rng.random(2_000) < 0.5, 0.4, 0.6)
    y, noise = (rng.random(2_000) < known).astype(float), rng.random(2_000)
    returns, sigma = (2 * y - 1) * rng.exponential(0.004, 2_000), 0.01 * np.exp(rng.normal(0, 0.4, 2_000))
    happened, close, half = sigma * rng.gamma(20, 0.05, 2_000), np.full(2_000, 100.0), np.full(2_000, 0.5)
    made = {}
    for word, p, width, mu in (("found", known, sigma, 0.3 * returns), ("nothing", noise, half / 50, 0 * returns)):
        methods = {"m": p, "majority": np.full(2_000, 0.51)}
        made[word] = [
            direction_comparison(y, methods, 1, returns),
            volatility_comparison(happened, {"m": width, "flat": half / 50}, "flat", 1),
            price_comparison(close, close * np.exp(returns), {"m": mu, "persistence": 0 * returns}),
            event_comparison(y, methods, 0.5), rival_comparison(y, methods, 300),
            cost_comparison(returns, {"m": sign_position(p)}, n_samples=200, n_random=20),
            best_methods({k: (v - y) ** 2 for k, v in {**methods, "noise": half}.items()}, "noise", n=200),
        ]
    return made


SAID = [
    ("points against always saying", "points against always saying"),
    ("better than everything that costs nothing", "the same answers as flat"),
    ("better than everything that costs nothing", "the same answers as persistence"),
    ("better than the base rate", "worse than the base rate"),
    ("More often right than majority", "than none of them"), ("basis points per candle", "basis points per candle"),
    ("noise is beaten", "none is shown to beat noise"),
]


@pytest.mark.parametrize("number", range(7))
def test_a_comparison_states_its_verdict_in_one_line(boards, number):
    import matplotlib.pyplot as plt

    for word, said in zip(("found", "nothing"), SAID[number]):
        board = boards[word][number]
        assert said in board.headline() and "\n" not in board.headline() and repr(board).startswith(board.headline())
        assert "m" in board.headline() and isinstance(board, pd.DataFrame)
        assert {type(t) for t in (board.round(3), board[:1], board.copy())} == {pd.DataFrame}
        hostile = type(board)(board.rename(index={"m": HOSTILE}))
        assert "<img" not in hostile._repr_html_()
        if board.picture:
            drawn = hostile.plot()
            drawn.figure.canvas.draw()
            assert len(drawn.get_yticklabels()) == len(board)
    plt.close("all")


def test_a_picture_is_blue_where_the_interval_lies_to_one_side(boards):
    import matplotlib.pyplot as plt

    for word, color in (("found", BLUE), ("nothing", GREY)):
        lines = boards[word][0].plot().get_lines()
        assert lines[0].get_color() == color and list(lines[0].get_xdata()) == pytest.approx(
            100 * boards[word][0].loc["m", ["accuracy_low", "accuracy_high"]].to_numpy(dtype=float)
        )
    plt.close("all")


def test_a_certificate_says_which_columns_fail(candles):
    def two(c):
        return pd.DataFrame({"good": c["close"].rolling(3).mean(), "bad<b>": c["close"].shift(-1)})

    found = certify(two, candles, cuts=1, seconds=0.2)
    assert found.headline().endswith(": 1 pass, 1 fail: bad<b> (prefix and future)")
    assert "bad<b>" not in found._repr_html_() and "bad&lt;b&gt;" in found._repr_html_()
    good = certify(two, candles, columns=["good"], cuts=1, seconds=0.2)
    assert "1 pass, 0 fail; " in good.headline() and good.headline().endswith("tried as the newest")
    assert type(found[found["verdict"] == "pass"]) is pd.DataFrame  # a part of it must not read as a whole one


def test_findings_say_what_was_found():
    found = Findings([{"kind": "no test set", "step": "split", "evidence": "<i>", "rows": 3}])
    facts = {"name": "mine", "notes": ["slow"], "accuracy": 0.7, "candles": 2000, "folds": 1}
    found.attrs, nothing = facts, Findings(columns=["kind", "step", "evidence", "rows"])
    lines = [{"kind": "no test set", "verdict": "nothing in 3 trials", "trials": 3}]
    lines += [{"kind": "survivorship", "verdict": "not judged: no candles", "trials": 0}]
    nothing.attrs = {**facts, "notes": [], "verdicts": lines}
    assert found.headline() == "mine: 1 finding on 2,000 candles, 1 fold, accuracy 0.700: no test set (split); 1 note"
    counts = "mine: 0 findings on 2,000 candles, 1 fold, accuracy 0.700"
    assert repr(nothing) == f"{counts}; 1 kind judged, 1 not judged"
    assert "<i>" not in found._repr_html_() and "0 findings" in nothing._repr_html_()


# ---- silence

FIT = """
import os
import numpy as np
from cryptolab.config import load_keras
from cryptolab.models.training import predict_network, train_network

keras = load_keras()
rng = np.random.default_rng(0)
view, y = rng.normal(size=(60, 4, 3)).astype("float32"), rng.normal(size=60)
for k in range(8):  # TensorFlow would advise against so many programs
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    if not k:
        first, later = np.arange(40), np.arange(40, 60)
        train_network(model, view, (first, y[:40]), (later, y[40:]), "mse", 1, 0.01, 8, 2, 1, log=None)
    predict_network(model, view, later)
print(os.environ.get("TF_CPP_MIN_LOG_LEVEL"))
"""


def test_a_network_is_fitted_in_silence():
    "From a fresh process, as a notebook's kernel is; nothing of the environment is changed."
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, env=env, timeout=300)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "None\n")


def test_only_notes_are_held_back():
    code = """import os, sys, warnings
from cryptolab.config import without_notes
with without_notes():
    os.write(2, b"I0000 00:00:1.2   3 port.cc:153] oneDNN\\n2024-05-01 12:00:00.1: E external/x/cuda.cc:1] no card\\n")
    os.write(2, b"E: a disk is full\\nINFO: see port.cc\\n")
    warnings.warn("mind this")
    print("said", file=sys.stderr)
os.write(2, b"after\\n")"""
    told = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True).stderr
    assert "oneDNN" not in told and "no card" not in told
    for line in ("E: a disk is full\n", "INFO: see port.cc\n", "mind this", "said\n", "after\n"):
        assert line in told


def test_keras_is_imported_in_one_place():
    "Each other place could be the first, and show the notes."
    root = Path(__file__).parents[1] / "cryptolab"
    own = re.compile(r"^\s*(import (keras|tensorflow)|from (keras|tensorflow))\b", re.M)
    found = {p.relative_to(root).as_posix(): len(own.findall(p.read_text())) for p in root.rglob("*.py")}
    # the last asks load_keras which backend it is; programs are made of models that are there
    known = {"config.py", "models/programs.py", "models/gradients.py"}
    assert {name for name, n in found.items() if n} == known


# ---- names have no case

def test_names_are_matched_without_regard_to_case(tmp_path):
    from cryptolab.audit.null_markets import control_market
    from cryptolab.config import SettingsError, load_settings, one_of
    from cryptolab.features import feature_names
    from cryptolab.features.sets.v9 import v9_features
    from cryptolab.labels import triple_barrier
    from cryptolab.models.training import profile_sizes

    plan = load_settings(source="Sample", profile="QUICK")
    assert (plan.source, plan.profile) == ("sample", "quick")
    (tmp_path / "plan.ini").write_text("[data]\nsource = HUB\n")
    assert load_settings(tmp_path / "plan.ini").source == "hub"
    candles = sample_market(n=300)
    assert feature_names("V9") == feature_names("v9") and feature_names("V9_Published") == feature_names("v9_published")
    assert v9_features(candles, "Published").equals(v9_features(candles, "published"))
    assert profile_sizes("Smoke") == profile_sizes("smoke")
    assert control_market("GARCH", 1, 50).equals(control_market("garch", 1, 50))
    labels = triple_barrier(candles, 2.0, 1.0, 4, side="Short", unit="ATR")
    assert labels.equals(triple_barrier(candles, 2.0, 1.0, 4, side="short", unit="atr"))
    with pytest.raises(SettingsError, match="did you mean `sample`"):
        load_candles("BTCUSDT", "1h", source="Sampel")
    with pytest.raises(SettingsError, match="1M would be a month"):
        load_candles("BTCUSDT", "1M", source="sample")
    assert one_of("x", "B", {"a": 1, "b": 2}) == "b"
