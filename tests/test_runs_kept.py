"""Runs are kept: nothing is overwritten or lost, also by a kill; what differs is found, and what does not is not."""
import json
import os
import shutil
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cryptolab.cli.main import app
from cryptolab.cli.runs import runs_app
from cryptolab.config import DataError, SettingsError, SourceError
from cryptolab.data import sample_market
from cryptolab.reports.forecasts import FORECASTS, judged_forecasts, read_forecasts, write_forecasts
from cryptolab.runs.execute import ReportError
from cryptolab.runs.compare import compare_runs, paired_differences, run_forecasts
from cryptolab.runs.kept import find_run, kept_runs, parse_age, prunable_runs, remove_run
from cryptolab.runs.mlflow_export import export_run
from cryptolab.runs.plan import make_record, read_record
from cryptolab.runs.report import run_report
from cryptolab.runs.verify import verify_run
from cryptolab.systems.artefacts import package_versions

NAME = "BTCUSDT-1h-v9"


@pytest.fixture(autouse=True)
def instant(monkeypatch):
    "`run_report` with everything of its own, but for the notebook: that is a result of the seed and two small files."
    state = SimpleNamespace(offset=0.0, fails=None)

    def execute(template, partial, values, env, progress, kernels):
        if state.fails:
            raise state.fails
        ledger = Path(values["ledger"])
        with open(ledger, "a") as f:
            f.write(json.dumps({"seed": values["seed"]}) + "\n")
        trials = len(set(ledger.read_text().splitlines()))
        result = {
            "system": "v9", "symbol": values["symbol"], "timeframe": values["timeframe"],
            "finding": f"Direction: seed {values['seed']}.", "score": values["seed"] + state.offset,
            "trials": {"trials": trials}, "data": {"fingerprint": "f00d"}, "versions": package_versions(),
            "run": {"seconds": {"total": trials}},
        }
        (partial / "result.json").write_text(json.dumps(result))
        (partial / "report.ipynb").write_text("{}")

    monkeypatch.setattr("cryptolab.runs.report.execute_template", execute)
    monkeypatch.setattr("cryptolab.runs.report.remove_hidden_paths", lambda *parts: None)
    monkeypatch.setattr(
        "cryptolab.reports.render.render_html", lambda book, path, title: path.write_text(f"<p>{title}"),
    )
    return state


def make(out, seed=0, **more):
    return run_report("BTCUSDT", "1h", "v9", out=out, profile="smoke", seed=seed, **more)


def seeds(out, name=None):
    return [run.record["inputs"]["seed"] for run in kept_runs(out, name)]


def result_of(folder):
    return json.loads((Path(folder) / "result.json").read_text())


# ---- kept

def test_the_newest_lies_in_its_place_and_earlier_ones_on_the_shelf(tmp_path):
    for seed in (1, 2, 3):
        folder = make(tmp_path, seed)
        assert folder == tmp_path / NAME and result_of(folder)["score"] == seed
        assert (folder / "report.html").is_file()
    runs = kept_runs(tmp_path)
    assert seeds(tmp_path) == [3, 2, 1] and [run.newest for run in runs] == [True, False, False]
    assert [run.record["previous"] for run in runs] == [runs[1].id, runs[2].id, None]
    assert [result_of(run.folder)["score"] for run in runs] == [3, 2, 1] and len({run.id for run in runs}) == 3
    assert {p.name for p in tmp_path.iterdir()} == {NAME, ".runs", "trials.jsonl"}


def test_a_run_is_made_from_what_its_record_says(tmp_path):
    folder = make(tmp_path, 4, params={"window": 40}, fee=0.002, start="2024-01-01")
    inputs = kept_runs(tmp_path)[0].record["inputs"]
    assert inputs == {
        "symbol": "BTCUSDT", "timeframe": "1h", "system": "v9", "source": "sample", "profile": "smoke",
        "limit": 10000, "seed": 4, "params": {"window": 40}, "start": "2024-01-01", "end": None, "fee": 0.002,
        "slippage": 0.0005, "template": None,
    }
    assert json.loads((folder / "run.json").read_text())["fingerprint"] == "f00d"


def test_a_repeated_run_replaces_the_one_it_repeats_and_answers_to_its_id(tmp_path, instant):
    make(tmp_path, 1)
    first = kept_runs(tmp_path)[0]
    make(tmp_path, 1)
    again = kept_runs(tmp_path)
    assert len(again) == 1 and again[0].record["repeats"] == [first.id] and not (tmp_path / ".runs").exists()
    assert find_run(first.id, tmp_path).id == again[0].id
    instant.offset = 0.5  # the same inputs, another result: both are kept
    make(tmp_path, 1)
    assert len(kept_runs(tmp_path)) == 2 and kept_runs(tmp_path)[0].record["repeats"] == []


def test_a_failed_run_leaves_everything_as_it_was(tmp_path, instant):
    make(tmp_path, 1), make(tmp_path, 2)
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    instant.fails = DataError("row 17")
    with pytest.raises(ReportError, match="row 17"):
        make(tmp_path, 3)
    after = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    assert after == before and seeds(tmp_path) == [2, 1]


def test_a_report_of_an_earlier_version_is_kept_too(tmp_path):
    shutil.copytree(make(tmp_path / "new", 1), tmp_path / NAME)
    (tmp_path / NAME / "run.json").unlink()
    old = kept_runs(tmp_path)[0]
    make(tmp_path, 2)
    assert [run.id for run in kept_runs(tmp_path)][1:] == [old.id]
    with pytest.raises(SettingsError, match="does not tell what it was made from"):
        verify_run(find_run(old.id, tmp_path))


def test_the_record_of_a_batch_holds_with_the_record_of_the_run(tmp_path):
    def finish(folder):
        (folder / "job.json").write_text(json.dumps(make_record(folder, "key")))

    for seed in (1, 2):
        make(tmp_path, seed, finish=finish)
        assert read_record(tmp_path / NAME)["key"] == "key"
    assert read_record(kept_runs(tmp_path)[1].folder)["key"] == "key"


# ---- killed

def killed_before(step, work):
    "Do the work in a process that is killed before its `step`-th rename or removal; whether it got that far."
    child = os.fork()
    if not child:
        left = [step]

        def deadly(call):
            def counted(*args, **named):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **named)
            return counted

        try:
            for place, name in ((os, "rename"), (os, "replace"), (shutil, "rmtree")):
                setattr(place, name, deadly(getattr(place, name)))
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_step_leaves_the_previous_run_and_loses_none(tmp_path):
    complete = 0
    for step in range(1, 30):
        out = tmp_path / str(step)
        make(out, 1), make(out, 2)
        known = {run.id: result_of(run.folder) for run in kept_runs(out)}
        if not killed_before(step, lambda out=out: make(out, 3)):
            assert seeds(out) == [3, 2, 1]
            break
        left = {run.id: result_of(run.folder) for run in kept_runs(out)}
        assert known.items() <= left.items(), f"a run is gone after a kill at step {step}"
        finished = bool(list(out.glob(".*.partial-*/run.json"))) or 3 in seeds(out)
        complete += finished
        assert result_of(make(out, 4))["score"] == 4
        assert seeds(out) == [4, *([3] if finished else []), 2, 1]
        assert known.items() <= {run.id: result_of(run.folder) for run in kept_runs(out)}.items()
        assert {p.name for p in out.iterdir()} <= {NAME, ".runs", ".work", "trials.jsonl"}
    assert step >= 5 and complete >= 3, "kills before, between and after the renames were tried"


# ---- found

def test_a_run_is_found_by_what_is_unique_about_it(tmp_path):
    out = tmp_path / "out"
    make(out, 1), make(out, 2)
    run_report("ETHUSDT", "1h", "v9", out=out, profile="smoke")
    runs = kept_runs(out)
    btc = next(run for run in runs if run.record["inputs"]["seed"] == 2)
    assert find_run(NAME, out) == btc and find_run(btc.id, out) == btc and find_run(btc.folder, out) == btc
    ends = {run.id[:-7] for run in runs}
    if len(ends) == len(runs):
        assert all(find_run(run.id[:-7], out) == run for run in runs)
    with pytest.raises(SettingsError, match="fits 3 runs") as caught:
        find_run(btc.id[:6], out)
    assert all(run.id in str(caught.value) for run in runs)
    with pytest.raises(SettingsError, match="there is no run 'XRPUSDT-1h-v9'") as caught:
        find_run("XRPUSDT-1h-v9", out)
    assert "cryptolab runs ls" in caught.value.remedy and btc.id in caught.value.found
    with pytest.raises(SettingsError, match="no run is named"):
        find_run(" ", out)
    copy = shutil.copytree(btc.folder, tmp_path / "elsewhere")
    assert find_run(copy, out).id == btc.id and find_run(copy, out).folder == copy


def test_damaged_files_hide_no_run(tmp_path):
    make(tmp_path, 1), make(tmp_path, 2)
    shelved = kept_runs(tmp_path)[1].folder
    (shelved / "run.json").write_text('{"id": "../../../etc", "started": "2031-01-01", "inputs": {}, "format": 1}')
    (shelved / "result.json").write_text('{"finding": ["\\u001b[31m", 5], "params": 3, "run": "x"')
    rows = [run.row() for run in kept_runs(tmp_path)]
    assert len(rows) == 2 and not any(".." in row["id"] for row in rows)
    answer = CliRunner().invoke(app, ["settings"])
    assert answer.exit_code == 0
    listed = CliRunner().invoke(runs_app, ["ls", "--out", str(tmp_path)])
    assert listed.exit_code == 0 and len(listed.output.splitlines()) == 3 and "\x1b" not in listed.output


def test_the_list_is_for_people_and_for_programs(tmp_path):
    make(tmp_path, 1), make(tmp_path, 2)
    ask = lambda *words: CliRunner().invoke(runs_app, [*words, "--out", str(tmp_path)])
    lines = ask("ls").output.splitlines()
    assert len(lines) == 3 and "*" in lines[1] and "*" not in lines[2] and "Direction: seed 2." in lines[1]
    rows = json.loads(ask("ls", "--json").output)
    assert [(r["system"], r["symbol"], r["timeframe"], r["profile"], r["seed"]) for r in rows] == [
        ("v9", "BTCUSDT", "1h", "smoke", 2), ("v9", "BTCUSDT", "1h", "smoke", 1),
    ]
    assert all(row["bytes"] > 100 and row["minutes"] >= 0 for row in rows)
    assert json.loads(ask("ls", "ETHUSDT-1h-v9", "--json").output) == []
    assert ask("ls", "ETHUSDT-1h-v9").output == "no runs\n"


def test_a_page_is_opened_where_there_is_a_screen(tmp_path, monkeypatch):
    make(tmp_path, 1), make(tmp_path, 2)
    opened, earlier = [], kept_runs(tmp_path)[1]
    monkeypatch.setattr("typer.launch", opened.append)
    monkeypatch.setattr("cryptolab.cli.runs.has_display", lambda: True)
    ask = lambda *words: CliRunner().invoke(runs_app, ["open", earlier.id, *words, "--out", str(tmp_path)])
    assert ask("--no-browser").output.strip().endswith("report.html") and not opened
    ask()
    assert opened == [(earlier.folder / "report.html").as_uri()]
    monkeypatch.setattr("cryptolab.cli.runs.has_display", lambda: False)
    assert ask().exit_code == 0 and len(opened) == 1


# ---- removed

def test_pruning_keeps_the_newest_and_asks(tmp_path):
    for seed in (1, 2, 3):
        make(tmp_path, seed)
    ask = lambda *words, said=None: CliRunner().invoke(runs_app, ["prune", *words, "--out", str(tmp_path)], input=said)
    assert "nothing was removed" in ask("--keep", "2", said="n\n").output and seeds(tmp_path) == [3, 2, 1]
    shown = ask("--keep", "2", said="y\n").output
    assert "Direction: seed 1." in shown and "seed 2." not in shown and seeds(tmp_path) == [3, 2]
    assert "nothing to remove" in ask("--older-than", "1h").output
    assert ask("--keep", "0", "--yes").exit_code == 1 and ask("--yes").exit_code == 1 and seeds(tmp_path) == [3, 2]
    later = datetime.now(UTC) + timedelta(days=400)
    assert [run.record["inputs"]["seed"] for run in prunable_runs(tmp_path, None, parse_age("30d"), later)] == [2]
    ask("--keep", "1", "--yes")
    assert seeds(tmp_path) == [3] and not (tmp_path / ".runs").exists()
    with pytest.raises(SettingsError, match="newest run"):
        remove_run(kept_runs(tmp_path)[0])
    assert seeds(tmp_path) == [3]


# ---- verified

def test_a_run_comes_out_again_and_a_planted_difference_is_found(tmp_path, instant):
    make(tmp_path, 1)
    run = kept_runs(tmp_path)[0]
    answer = verify_run(run)
    assert answer.same and answer.values > 6 and answer.notes == [] and "came out equal" in answer.text()
    result = result_of(run.folder)
    (run.folder / "result.json").write_text(json.dumps(result | {"score": result["score"] + 1e-12}))
    answer = verify_run(run)
    assert [d[0] for d in answer.differences] == ["score"] and "score: was 1.000000000001, now 1" in answer.text()
    command = CliRunner().invoke(runs_app, ["verify", run.id, "--out", str(tmp_path)])
    assert command.exit_code == 1 and "1 of" in command.output


def test_an_earlier_run_is_verified_with_the_ledger_as_it_was(tmp_path):
    for seed in (1, 2, 3):
        make(tmp_path, seed)
    runs = kept_runs(tmp_path)
    assert [result_of(run.folder)["trials"]["trials"] for run in runs] == [3, 2, 1]
    assert [verify_run(run).same for run in runs] == [True, True, True]
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 3, "a check is no trial"
    (tmp_path / "trials.jsonl").unlink()
    assert "ledger is shorter" in verify_run(runs[0]).text() and seeds(tmp_path) == [3, 2, 1]


def test_changed_candles_are_told(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    candles = sample_market(n=300).reset_index()
    candles.to_csv(data / "BTCUSDT_1h.csv", index=False)
    make(tmp_path / "out", 1, source="local", data_dir=data)
    run = kept_runs(tmp_path / "out")[0]
    assert verify_run(run).notes == []
    candles.iloc[1:].to_csv(data / "BTCUSDT_1h.csv", index=False)
    answer = verify_run(run)
    assert len(answer.notes) == 1 and "candles changed since" in answer.notes[0] and answer.same
    shutil.rmtree(data)
    with pytest.raises(SourceError):
        verify_run(run)


# ---- compared

HOURS = pd.date_range("2025-01-01", periods=1500, freq="h", tz="UTC", name="open_time")


def forecasts(noise, seed=0):
    "Forecasts of three targets that know the truth but for some noise; the outcomes are always the same."
    fixed, rng = np.random.default_rng(1), np.random.default_rng(seed)
    truth = fixed.uniform(0.25, 0.75, len(HOURS))
    outcome = {"direction": (fixed.random(len(HOURS)) < truth) * 1.0}
    width, move = np.exp(fixed.normal(-4, 0.5, len(HOURS))), 0.01 * fixed.standard_normal(len(HOURS))
    outcome |= {"volatility": width * np.exp(fixed.normal(0, 0.2, len(HOURS)))}
    outcome |= {"price": move + 0.01 * fixed.standard_normal(len(HOURS))}
    drawn = [noise * rng.standard_normal(len(HOURS)) for _ in range(3)]
    said = [np.clip(truth + drawn[0], 0.01, 0.99), width * np.exp(drawn[1]), move + 0.01 * drawn[2]]
    columns = {f"{t}.y": y for t, y in outcome.items()} | {f"{t}.forecast": f for t, f in zip(outcome, said)}
    table = pd.DataFrame(columns, HOURS)
    table.attrs = {"horizons": {"direction": 1, "volatility": 14, "price": 1}}
    return table


def with_forecasts(out, seed, table):
    make(out, seed)
    write_forecasts(out / NAME, table)


def test_a_known_difference_is_found_and_another_seed_is_none(tmp_path):
    better = paired_differences(forecasts(0.6), forecasts(0.05, 1), n_samples=300)
    assert set(better["verdict"]) == {"B better"} and len(better) == 6
    assert (better["low"] > 0).all() and (better["smallest"] < better["difference"]).all()
    luck = paired_differences(forecasts(0.3), forecasts(0.3, 1), n_samples=300)
    assert set(luck["verdict"]) == {"not distinguishable"} and "Not distinguishable" in luck.headline()
    assert (luck["smallest"] > luck["difference"].abs()).all()
    back = paired_differences(forecasts(0.05, 1), forecasts(0.6), n_samples=300)
    assert set(back["verdict"]) == {"A better"}
    assert back["difference"].iloc[0] == pytest.approx(-better["difference"].iloc[0])


def test_the_smallest_difference_shrinks_with_the_rows():
    few, many = (paired_differences(forecasts(0.3)[:n], forecasts(0.3, 1)[:n], 300)["smallest"] for n in (300, 1500))
    assert ((few / many).between(1.3, 4)).all()


def test_other_outcomes_and_rows_are_told_and_not_compared():
    a, b = forecasts(0.3), forecasts(0.3, 1)
    b.loc[HOURS[7], "volatility.y"] *= 1.5
    table = paired_differences(a, b.drop(columns=["price.y", "price.forecast"]), 100)
    assert {name.split(":")[0] for name in table.index} == {"direction"}
    assert "other outcomes in 1 of 1500 rows" in table.attrs["notes"][0]
    assert "price: only A forecasts it" in table.attrs["notes"][1]
    assert paired_differences(a[:900], b[300:], 100)["n"].iloc[0] == 600
    with pytest.raises(DataError, match="cannot be compared row by row"):
        paired_differences(a[:700], b[690:])


def test_two_runs_are_compared_by_the_command(tmp_path):
    with_forecasts(tmp_path, 1, forecasts(0.6))
    with_forecasts(tmp_path, 2, forecasts(0.05, 1))
    new, old = kept_runs(tmp_path)
    answer = CliRunner().invoke(runs_app, ["compare", old.id, NAME, "--out", str(tmp_path)])
    assert answer.exit_code == 0 and "B better" in answer.output and "seed" in answer.output
    found = compare_runs(old, new)
    assert list(found.inputs.index) == ["seed", "candles"]  # the sample market depends on the seed
    same = CliRunner().invoke(runs_app, ["compare", new.id, NAME, "--out", str(tmp_path)])
    assert same.exit_code == 1 and "compared with itself" in same.output
    (new.folder / FORECASTS).write_bytes(b"PAR1")
    broken = CliRunner().invoke(runs_app, ["compare", old.id, NAME, "--out", str(tmp_path)])
    assert broken.exit_code == 1 and "cannot be read" in broken.output
    (new.folder / FORECASTS).unlink()
    with pytest.raises(DataError, match="has no forecasts"):
        compare_runs(old, new)


def test_a_report_without_stored_forecasts_asks_its_model_again(tmp_path):
    from cryptolab.data import load_candles
    from cryptolab.reports.results import write_results
    from cryptolab.systems.v2 import V2

    candles = load_candles("BTCUSDT", "1h", source="sample", limit=1500, warmup=200, seed=0)
    system = V2(profile="smoke", seed=0, timeframe="1h").fit(candles, log=None)
    out = run_report("BTCUSDT", "1h", "v2", out=tmp_path, profile="smoke", limit=1500)
    result = result_of(out) | {"system": "v2", "data": {"fingerprint": candles.attrs["fingerprint"]}}
    write_results(out, system, result, candles=candles)
    run = kept_runs(tmp_path)[0]
    stored = read_forecasts(out / FORECASTS)
    pd.testing.assert_frame_equal(stored, judged_forecasts(system, candles), check_freq=False)
    assert len(stored) and (out / FORECASTS).stat().st_size < 100_000
    (out / FORECASTS).unlink()
    pd.testing.assert_frame_equal(run_forecasts(run), stored, check_freq=False)
    (out / "result.json").write_text(json.dumps(result | {"data": {"fingerprint": "another"}}))
    with pytest.raises(DataError, match="candles of .* changed since"):
        run_forecasts(run)


# ---- sent to MLflow

class Server(list):
    "Stand-in for MLflow: the client of every address is the same, and everything it is asked is listed."

    broken = False
    entities = SimpleNamespace(Param=lambda *a: a, Metric=lambda *a: a)

    def MlflowClient(self, tracking_uri):
        self.append(("uri", tracking_uri))
        return self

    def search_runs(self, experiments, filter_string, max_results):
        ended = [c for c in self if c[0] == "set_terminated" and c[2]["status"] == "FINISHED"]
        tags = [c[2]["tags"]["cryptolab-run"] for c in self if c[0] == "create_run"]
        return [SimpleNamespace(info=SimpleNamespace(run_id="r1"))] if ended and tags[0] in filter_string else []

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return "7"

    def create_run(self, *args, **named):
        self.append(("create_run", args, named))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_batch(self, *args, **named):
        if self.broken:
            raise ConnectionError("http://user:secret@host refused")
        self.append(("log_batch", args, named))

    def log_artifact(self, *args, **named):
        self.append(("log_artifact", args, named))

    def set_terminated(self, *args, **named):
        self.append(("set_terminated", args, named))


@pytest.fixture
def server(monkeypatch):
    found = Server()
    monkeypatch.setitem(sys.modules, "mlflow", found)
    monkeypatch.setitem(sys.modules, "mlflow.entities", found.entities)
    return found


def test_a_run_is_sent_to_mlflow_once(tmp_path, server):
    words = ["run", "BTCUSDT", "1h", "--profile", "smoke", "--seed", "5", "--out", str(tmp_path)]
    answer = CliRunner().invoke(app, [*words, "--mlflow", "http://localhost:5000"])
    assert answer.exit_code == 0, answer.output
    run, asked = kept_runs(tmp_path)[0], [call[0] for call in server]
    assert server[0] == ("uri", "http://localhost:5000") and asked[-1] == "set_terminated"
    made = next(call for call in server if call[0] == "create_run")[2]
    assert made["tags"]["cryptolab-run"] == run.id and made["tags"]["mlflow.note.content"] == "Direction: seed 5."
    params, metrics = (dict(x[:2] for c in server if c[0] == "log_batch" for x in c[2].get(k, [])) for k in (
        "params", "metrics",
    ))
    assert params["seed"] == "5" and metrics["score"] == 5.0 and "run/seconds/total" not in metrics
    assert [Path(c[1][1]).name for c in server if c[0] == "log_artifact"] == ["result.json", "report.html"]
    count = len(server)
    words = ["export", run.id, "--mlflow", "http://localhost:5000", "--out", str(tmp_path)]
    again = CliRunner().invoke(runs_app, words)
    assert again.output == "r1\n" and "create_run" not in [call[0] for call in server[count:]]


def test_a_server_that_refuses_is_told_without_its_password(tmp_path, server):
    make(tmp_path, 1)
    server.broken = True
    with pytest.raises(SourceError, match="was not sent") as caught:
        export_run(kept_runs(tmp_path)[0], "http://user:secret@host")
    assert "secret" not in str(caught.value) and server[-1][2]["status"] == "FAILED"


def test_without_mlflow_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    answer = CliRunner().invoke(
        app, ["run", "BTCUSDT", "1h", "--out", str(tmp_path), "--mlflow", "http://localhost:5000"],
    )
    assert answer.exit_code == 1 and "cryptolab[mlflow]" in answer.output and kept_runs(tmp_path) == []
