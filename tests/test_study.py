"""Does it earn its place? Verdicts on planted arms, every row of the table, a study that is resumed."""
import json

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, SettingsError
from cryptolab.runs.study import study as module
from cryptolab.runs.study.arms import STUDY_SIZES, StudyCase, flat_windows, loss_table, rival_arm
from cryptolab.runs.study.heads import HeadBench, regime_changes, regime_episodes
from cryptolab.runs.study.search import search_summary, tuned_settings
from cryptolab.runs.study.study import (
    COMPARISONS, STEPS, TECHNIQUES, needed_steps, run_study, study_candles, study_table, study_text, study_view,
)
from cryptolab.runs.study.verdict import judge_direction, judge_pairs, pair_arms, verdict_table
from cryptolab.systems.ultimate.panel import LONGEST

HOURS = pd.date_range("2025-01-01", periods=400, freq="h", name="time")
GRID = pd.MultiIndex.from_product([HOURS, ["BTC", "ETH"], [0, 1]], names=["time", "coin", "seed"]).to_frame(index=False)
QUICK = {"log": None, "n_samples": 50}


def arm(gain=0.0, seed=0, table=GRID, **columns):
    "An arm whose loss is the shared noise less some gain, and a little noise of its own."
    shared = np.random.default_rng(99).exponential(size=len(table))
    own = 0.2 * np.random.default_rng([seed, 7]).standard_normal(len(table))
    return table.assign(loss=shared + own - gain, **columns)


@pytest.fixture(scope="module")
def tables():
    return study_candles(("BTCUSDT", "ETHUSDT"), source="sample", limit=1500)


@pytest.fixture(scope="module")
def case(tables):
    return StudyCase(tables, STUDY_SIZES["smoke"])


# ---- verdicts


def test_a_planted_gain_is_seen_and_noise_is_not():
    rows = [
        {"technique": name, "rival": "nothing", "unit": "nats", **judge_pairs(pair_arms(arm(gain, 1), arm(0.0, 2)))}
        for name, gain in (("better", 0.1), ("worse", -0.1), ("alike", 0.0))
    ]
    table = verdict_table(rows).set_index("technique")
    assert table["verdict"]["better"].startswith("helps by 0.") and table["low"]["better"] > 0
    assert table["verdict"]["worse"].startswith("hurts by 0.") and table["high"]["worse"] < 0
    assert table["verdict"]["alike"].startswith("not distinguishable (a difference of 0.0")
    assert np.allclose(table["smallest_seen"] / table["error"], 2.3940 + 0.8416, atol=1e-3)  # 5 % over three rows, 80 %


def test_a_lonely_small_p_does_not_survive_the_correction():
    row = {"rival": "", "unit": "nats", "difference": 2.2, "error": 1.0, "p": 0.028}
    rows = [{"technique": str(k), **row} for k in range(2)]
    assert verdict_table(rows[:1])["verdict"][0].startswith("helps")
    assert verdict_table(rows)["verdict"].str.startswith("not distinguishable").all()


def test_the_error_is_that_of_the_mean_where_nothing_depends():
    found = judge_pairs(pair_arms(arm(0.0, 1, GRID[GRID["seed"] == 0]), arm(0.0, 2, GRID[GRID["seed"] == 0])))
    assert found["error"] == pytest.approx(0.2 * np.sqrt(2 / 800), rel=0.25) and found["rows"] == 800


def test_coins_that_move_together_and_seeds_that_disagree_count_less():
    alone = pair_arms(arm(0.0, 1), arm(0.0, 2))
    hour = alone.groupby("time")["difference"].transform("first")
    same = judge_pairs(alone.assign(difference=hour))
    spread = judge_pairs(alone.assign(difference=alone["difference"] + 0.2 * alone["seed"]))
    assert same["error"] > 1.5 * judge_pairs(alone)["error"]
    assert spread["error"] == pytest.approx(np.hypot(judge_pairs(alone)["error"], 0.1), rel=0.1)


def test_overlapping_outcomes_make_longer_blocks():
    pairs = pair_arms(arm(0.0, 1), arm(0.0, 2))
    assert judge_pairs(pairs, 60)["block"] == 60


@pytest.mark.parametrize("fault", ["row", "seed row", "nothing in common"])
def test_arms_that_are_not_paired_are_refused(fault):
    other = arm(0.0, 2)
    other = {"row": other.iloc[:-1], "seed row": other.drop(index=0), "nothing in common": other.assign(seed=9)}[fault]
    with pytest.raises(DataError, match="not paired"):
        pair_arms(arm(0.0, 1), other)


def test_a_seed_that_one_arm_lacks_is_left_out():
    assert judge_pairs(pair_arms(arm(0.0, 1), arm(0.0, 2)[lambda t: t["seed"] == 0]))["seeds"] == 1


def test_money_says_when_a_gain_is_nil():
    up = np.random.default_rng(0).integers(0, 2, len(GRID) // 2).repeat(2)
    pairs = GRID.assign(y=up, p=np.where(up, 0.6, 0.4), p_rival=np.random.default_rng(1).random(len(GRID)))
    rich, poor = (judge_direction(pairs.assign(move=size * (2 * up - 1)), 20) for size in (0.01, 0.0001))
    assert rich["auc_difference"] == pytest.approx(0.5, abs=0.06) and rich["net_bp"] > 0 > poor["net_bp"]
    row = {"technique": "a", "rival": "b", "unit": "nats", "difference": 1.0, "error": 0.1, "p": 1e-9, "loss": 0.6}
    words = verdict_table([row | poor, row | rich, row | rich | {"loss": 0.6932}])["verdict"]
    assert "economically nil" in words[0] and "economically nil" not in words[1] and "bp per candle" in words[1]
    assert "coin toss" in words[2]


# ---- arms and heads


def test_rivals_see_the_network_s_window_and_the_same_rows(case):
    at = case.rows.parts["test"][:5]
    flat, panel, width = flat_windows(case.rows, at), case.rows.panel, case.sizes["columns"]
    assert np.array_equal(flat[2, 1, :width], panel.x[1, at[2] - panel.window + 1])
    assert np.array_equal(flat[2, 1, -2:], [0, 1])
    trees, line = (rival_arm(case, name) for name in ("lightgbm", "linear"))
    assert trees[["time", "coin", "y"]].equals(line[["time", "coin", "y"]])
    assert not np.allclose(trees["p"], line["p"])


def test_the_loss_table_knows_a_perfect_forecast_and_only_test_rows(case):
    rows, at = case.rows, case.judged
    truth = {"up": rows.labels["up"][:, at].T * 0.98 + 0.01, "volatility": rows.labels["volatility"][:, at].T}
    table = loss_table(case, "oracle", truth)
    assert table.groupby("task")["loss"].mean().max() < 0.05
    assert table["time"].min() >= rows.panel.times[rows.parts["test"][0]]


def test_nothing_of_an_episode_overlaps():
    rng = np.random.default_rng(0)
    now = np.where(np.arange(900) // 100 % 2, 3.0, 0.0)[None]
    parts = {"test": np.arange(450, 900)}
    bench = HeadBench(
        rng.standard_normal((900, 1, 2)), rng.standard_normal((1, 900)), now, parts,
        pd.date_range("2025", periods=900, freq="h"), ["BTC"], task="volatility", sizes={},
    )
    found = regime_episodes(bench, parts["test"], 10, 20)
    assert [int(support[0]) for _, support, _ in found] == [500, 600, 700, 800]
    assert all(later[0] - support[-1] > LONGEST for _, support, later in found)
    assert regime_changes(np.repeat([0.0, 1, 0], [30, 23, 30])).tolist() == [30]  # 23 candles are not settled


def test_the_best_of_equal_trials_is_what_luck_shows():
    gains = [search_summary(np.random.default_rng(k).normal(0.7, 0.01, 50), 60) for k in range(200)]
    assert np.mean([g["gain"] for g in gains]) == pytest.approx(np.mean([g["gain_by_luck"] for g in gains]), rel=0.05)
    assert (gains[0]["trials"], gains[0]["completed"]) == (60, 50)
    assert tuned_settings({"hidden_size": 8, "dropout": 0.1}) == ({"hidden": 8}, {"dropout": 0.1})


# ---- the whole


def fake(name, calls):
    "A step that makes its arms from noise; only the plain TFT and EWC on the old regime are better, by 0.1."
    def make(steps):
        calls.append((name, steps.case.seed))
        mine = {(c.arm, c.task): 0.0 for c in COMPARISONS if name in (c.arm, c.group)}
        mine |= {(c.plain, c.task): 0.0 for c in COMPARISONS if name in (c.plain, c.group)}
        if name not in ("maml", "ewc"):
            mine = {key: gain for key, gain in mine.items() if key[0] == name}
        grid = GRID[GRID["seed"] == 0].drop(columns="seed")
        y = np.random.default_rng(5).integers(0, 2, len(grid))
        return pd.concat([
            arm(0.1 if key[0] in ("single", "elastic old") else 0.0, 10 * number + steps.case.seed, grid).assign(
                arm=key[0], task=key[1], y=y, p=0.5, move=0.001, choice="rate 0.1" if name == "maml" else None,
            ) for number, key in enumerate(mine, 100 * list(STEPS).index(name))
        ])
    return make


@pytest.fixture
def planted(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "STEPS", {name: fake(name, calls) for name in STEPS})
    return calls


def test_every_row_of_the_table_appears_and_nothing_is_made_twice(tables, planted, tmp_path):
    settings = {"work": tmp_path, "store": tmp_path / "result.json", "sizes": STUDY_SIZES["smoke"]} | QUICK
    result = run_study(tables, 2, **settings)
    rows = {(r["technique"], r["rival"]): r["verdict"] for r in result["table"]}
    assert set(rows) == {(c.technique, c.rival) for c in COMPARISONS}
    assert set(planted) == {(name, seed) for name in STEPS for seed in (0, 1)}
    assert rows["TFT", "LightGBM"].startswith("helps")
    assert rows["EWC, the old regime", "fine-tuning, volatility"].startswith("helps")
    assert rows["learned graph", "random graph"].startswith("not distinguishable")
    made = len(planted)
    again = run_study(tables, 2, **settings)
    assert len(planted) == made and again["table"] == result["table"]
    assert json.loads((tmp_path / "result.json").read_text())["table"] == result["table"]
    assert len(study_view(result)) == len(COMPARISONS)
    assert all(row["rival"] in study_text(result) for row in result["table"])


def test_a_study_that_was_interrupted_goes_on(tables, planted, tmp_path, monkeypatch):
    settings = {"work": tmp_path, "store": tmp_path / "result.json", "sizes": STUDY_SIZES["smoke"]} | QUICK

    def broken(steps):
        raise KeyboardInterrupt

    whole = module.STEPS["learned graph"]
    monkeypatch.setitem(module.STEPS, "learned graph", broken)
    with pytest.raises(KeyboardInterrupt):
        run_study(tables, 1, ("graph",), **settings)
    assert json.loads((tmp_path / "result.json").read_text())["steps"] == ["single 0"] and planted == [("single", 0)]
    monkeypatch.setitem(module.STEPS, "learned graph", whole)
    lines = []
    result = run_study(tables, 1, ("graph",), **settings | {"log": lines.append})
    assert [name for name, _ in planted] == ["single", "learned graph", "random graph"] and len(result["table"]) == 2
    assert lines[0].startswith("[1/3] single")


def test_other_sizes_and_other_candles_are_another_study(tables, planted, tmp_path):
    settings = {"work": tmp_path} | QUICK
    run_study(tables, 1, ("graph",), STUDY_SIZES["smoke"], **settings)
    run_study(tables, 1, ("graph",), STUDY_SIZES["smoke"] | {"epochs": 2}, **settings)
    run_study({k: v.iloc[:-1] for k, v in tables.items()}, 1, ("graph",), STUDY_SIZES["smoke"], **settings)
    assert len(planted) == 9


def test_a_study_of_one_technique_trains_what_it_needs(tables, tmp_path):
    result = run_study(tables, 1, ("tft",), STUDY_SIZES["smoke"], work=tmp_path, **QUICK)
    assert [r["rival"] for r in result["table"]] == ["LightGBM", "logistic regression"]
    row = result["table"][0]
    assert row["low"] < row["difference"] < row["high"] and row["coins"] == 2 and np.isfinite(row["auc_difference"])
    assert {"difference", "p_holm", "smallest_seen", "rows", "seeds", "verdict"} <= set(row)
    assert result["data"]["coins"] == list(tables) and result["sizes"]["window"] == 4


def test_every_arm_has_a_step_and_every_technique_a_row():
    assert set(needed_steps(COMPARISONS)) == set(STEPS)
    assert set(TECHNIQUES) == {"tft", "width", "graph", "tasks", "weights", "maml", "ewc", "search"}
    with pytest.raises(DataError, match="no technique was compared"):
        study_table(GRID.iloc[:0].assign(arm="", task="", loss=0.0))
    with pytest.raises(SettingsError, match="unknown technique"):
        run_study({}, techniques=("astrology",))


def test_the_command_tells_wrong_words_at_once(tmp_path):
    from typer.testing import CliRunner

    from cryptolab.cli.study import study_app

    run = CliRunner().invoke
    wrong = {("--profile", "large"): "quick | smoke", ("--techniques", "astrology"): "unknown technique"}
    for words, told in wrong.items():
        answer = run(study_app, ["ultimate", "--source", "sample", "--limit", "900", "--out", str(tmp_path), *words])
        assert answer.exit_code == 1 and told in answer.output, answer.output
