"""The command line as its user meets it: exit codes, defaults from settings.ini, kind errors, JSON forecasts."""
import inspect
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pandas as pd
import pytest

import cryptolab
from cryptolab.config import ModelError, SettingsError, load_settings
from cryptolab.systems.registry import SYSTEMS

PROGRAM = [sys.executable, "-c", "from cryptolab.cli.main import main; main()"]


@pytest.fixture
def cli(tmp_path, monkeypatch):
    "Run a command inside this process, in an empty folder; returns exit code, output and errors."
    monkeypatch.chdir(tmp_path)

    def run(*args):
        from typer.testing import CliRunner

        from cryptolab.cli.main import app

        # always apart since click 8.2
        apart = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
        done = CliRunner(**apart).invoke(app, [str(a) for a in args])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


@pytest.fixture
def asked(monkeypatch, tmp_path):
    "Replaces `run_report`; returns what it was called with."
    from cryptolab.runs import report as run

    calls, shape = [], inspect.signature(run.run_report)

    def fake(*args, **kwargs):
        calls.append(shape.bind(*args, **kwargs).arguments)
        return tmp_path / "reports" / "BTCUSDT-1h-v9"

    monkeypatch.setattr(run, "run_report", fake)
    return calls


def test_program_answers_as_a_program():
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120"}
    done = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and all(name in done.stdout for name in ("run", "predict", "doctor", "settings"))
    assert subprocess.run(
        [*PROGRAM, "--version"], capture_output=True, text=True,
    ).stdout.strip() == cryptolab.__version__
    heavy = "pandas numpy tensorflow keras xgboost plotly papermill nbconvert jupyter_client".split()
    code = f"import cryptolab.cli.main, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("args", [
    ["run", "BTCUSDT", "1h", "--sorce", "hub"], ["fly"], ["run", "BTCUSDT", "1h", "--limit", "many"], ["predict"],
])
def test_wrong_usage_ends_with_2(cli, args):
    assert cli(*args)[0] == 2


@pytest.mark.parametrize("args, text", [
    (["--source", "ftp"], "unknown "
                          "source"), (["--profile", "huge"], "unknown profile"), (["--limit", "0"], "out of range"),
    (["--set", "dropout"], "key=value"), (["--set", "a=1", "--set", "a=2"], "given twice"),
    (["--source", "local", "--data-dir", "no"], "no does not exist"),
    (["--system", "v99"], "no report notebook"), (["--template", "no.ipynb"], "does not exist"),
])
def test_bad_input_is_four_lines_and_code_1(cli, args, text):
    code, output, errors = cli("run", "BTCUSDT", "1h", *args)
    assert (
        code == 1
        and output == ""
        and text in errors
        and "expected: " in errors
        and "what to do: " in errors
        and "Traceback" not in errors
    )


def test_debug_lets_the_traceback_through(cli):
    with pytest.raises(ValueError, match="unknown source"):
        cli("run", "BTCUSDT", "1h", "--source", "ftp", "--debug")


def test_defaults_come_from_settings_and_options_replace_them(cli, asked, tmp_path):
    Path("settings.ini").write_text(
        "[data]\nsource = local\ndata_dir = candles\nsymbols = ETHUSDT, BTCUSDT\ntimeframes = 15m\nlimit = 777\n"
        "[model]\nprofile = smoke\nseed = 3\n[costs]\nfee = 0.002\nslippage = 0\n[run]\nout = results\n"
    )
    code, output, _ = cli("run")
    assert code == 0 and output.strip() == str(Path("reports/BTCUSDT-1h-v9/report.html"))
    got = asked[-1]
    assert [
        got[k]
        for k in (
            "symbol",
            "timeframe",
            "source",
            "data_dir",
            "limit",
            "profile",
            "seed",
            "out",
            "fee",
            "slippage",
            "system",
        )
    ] == ["ETHUSDT", "15m", "local", "candles", 777, "smoke", 3, "results", 0.002, 0.0, "v9"]
    cli(
        "run", "SOLUSDT", "1d", "--source", "sample", "--limit", 5, "--set", "rate=1e-3", "--set", "variant=published",
        "--start", "2024-01-31",
    )
    got = asked[-1]
    assert [got[k] for k in ("symbol", "timeframe", "source", "limit", "profile", "start")] == [
        "SOLUSDT",
        "1d",
        "sample",
        5,
        "smoke",
        "2024-01-31",
    ]
    assert got["params"] == {"rate": 0.001, "variant": "published"}


def test_a_misspelt_setting_is_refused(cli, asked):
    Path("settings.ini").write_text("[data]\nsorce = hub\n")
    code, _, errors = cli("run", "BTCUSDT", "1h")
    assert code == 1 and "unknown key `sorce`" in errors and not asked
    code, output, _ = cli("settings", "settings.ini")
    assert code == 1


BAD_PLANS = {
    "[costs]\nfee = 5": "below 0.5", "[costs]\nfee = inf": "below 0.5", "[costs]\nslippage = nan": "below 0.5",
    "[DEFAULT]\nsorce = hub": "unknown key", "[DEFAULT]\nlimit = 0": "out of range",
    "[DEFAULT]\nlimit = 5\n[data]\nlimit = 6": "[DEFAULT] and in [data]",
    "[data]\nlimit = 5\nlimit = 6": "already exists",
    "[model]\nseed = 4294967296": "out of range", "[data]\nlimit = 1000000000000": "out of range",
    "[run]\nworkers = 100000": "out of range", "[data]\nsymbols = BTCUSDT, btcusdt": "twice",
    "[data]\ntimeframes = 1h, 1h": "twice", "[run]\nout =": "`out` is empty",
    "[run]\nout = a\n  b": "cannot be printed",
    "[run]\nout = a\0b": "NUL", "[data]\nlimit = " + "9" * 5000: "cannot be read",
}


@pytest.mark.parametrize("text, words", BAD_PLANS.items(), ids=range(len(BAD_PLANS)))
def test_nonsense_in_the_plan_file_is_refused(cli, text, words):
    Path("settings.ini").write_text(text + "\n")
    code, output, errors = cli("settings")
    assert (code, output) == (1, "") and words in errors and "what to do: " in errors and len(errors) < 600


@pytest.mark.parametrize("raw, words", [
    ("[data]\nlimit = 9\n".encode("utf-16"), "UTF-16"), ("[data]\nlimit = 9\n".encode("utf-16-be"), "NUL"),
    ("[data]\ndata_dir = Börse\n".encode("latin-1"), "line 2: not UTF-8"), (b"\xff\xfe", "UTF-16"),
], ids=["utf-16", "utf-16-be", "latin-1", "mark"])
def test_other_encodings_are_named(cli, raw, words):
    Path("settings.ini").write_bytes(raw)
    code, output, errors = cli("settings")
    assert (code, output) == (1, "") and words in errors and "UTF-8" in errors


def test_default_section_comments_and_the_mark_of_windows_are_read(cli):
    text = "[DEFAULT]\nlimit = 9  # newest\n[costs]\nfee = 0.002 ; taker\n"
    Path("settings.ini").write_text(text, encoding="utf-8-sig")
    output = cli("settings")[1]
    assert "limit = 9\n" in output and "fee = 0.002\n" in output


def test_a_plan_that_is_no_readable_file_is_refused(cli, tmp_path):
    plan = Path("settings.ini")
    plan.mkdir()
    assert "is not a file" in cli("settings")[2]
    plan.rmdir()
    for target in ("settings.ini", "nowhere"):  # it used to count as no plan at all
        plan.symlink_to(target)
        code, _, errors = cli("settings")
        assert code == 1 and "cannot be read" in errors
        plan.unlink()


@pytest.mark.parametrize("given", [
    {"limit": "5"}, {"limit": True}, {"limit": 5.0}, {"fee": "0.001"}, {"fee": True}, {"fee": 5}, {"seed": 2**32},
    {"symbols": "BTCUSDT"}, {"symbols": (1,)}, {"symbols": ["A", "a"]}, {"source": 3}, {"out": 3}, {"out": ""},
    {"system": "\0"},
])
def test_overrides_are_held_to_the_same_rules(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="setting: `" + next(iter(given))):
        load_settings(**given)
    assert load_settings(symbols=["A"], limit=7, fee=0).symbols == ("A",)


@pytest.mark.parametrize("option", [("--seed", 2**32), ("--limit", 10**12), ("--out", ""), ("--data-dir", " ")])
def test_options_are_held_to_the_same_rules(cli, asked, option):
    code, _, errors = cli("run", "BTCUSDT", "1h", *option)
    assert code == 1 and f"`{option[0][2:].replace('-', '_')}`" in errors and not asked


def test_settings_shows_the_plan(cli):
    code, output, _ = cli("settings")
    assert code == 0 and "source = sample" in output and "symbols = BTCUSDT" in output


def test_unknown_parameter_of_a_system_is_refused(cli, monkeypatch):
    from cryptolab.runs import report as run

    class V9:
        def __init__(self, *, profile="quick", seed=0, dropout=0.3):
            pass

    monkeypatch.setattr(run, "system_class", lambda name: V9)
    for item, text in (("droput=0.5", "no parameter `droput`"), ("seed=3", "place of its own")):
        code, _, errors = cli("run", "BTCUSDT", "1h", "--set", item)
        assert code == 1 and text in errors and "what to do" in errors


# ---- what is found out before anything starts

@pytest.fixture
def nothing_starts(monkeypatch):
    "Whatever takes minutes is an error."
    from cryptolab.runs import batch, claims, report

    def work(*args, **kwargs):
        raise AssertionError("work began")

    for module, name in ((report, "_make"), (batch, "_drive"), (claims, "load_tables")):
        monkeypatch.setattr(module, name, work)


@pytest.mark.parametrize("item", [
    "dropout=2", "dropout=nan", "heads=0.5", "direction_epochs=many", "price_units=8", "price_units=[0]", "trees=1e12",
    "standard=no", "vol_target=atr", "fractions=[0.9,0.2]", "fractions=[a]", "test_start=soon", "pool=[1]", "threads=0",
    "init_from=nowhere",
])
def test_a_bad_value_of_a_parameter_is_refused_before_anything_starts(cli, nothing_starts, item):
    code, output, errors = cli("run", "BTCUSDT", "1h", "--set", item)
    assert (code, output) == (1, "") and "what to do: " in errors and item.partition("=")[0] in errors.replace(
        "nowhere is no model folder", "init_from"
    )


@pytest.mark.parametrize("system, items", [
    ("v2", ["features=v3", "learn_pool=1"]),
    ("hybrid", ["members=oracle", "take_profit=-1", "timeout=1.5", "ml_entry_threshold=0.9", "select=0"]),
])
def test_parameters_of_the_other_systems_too(cli, nothing_starts, system, items):
    for item in items:
        code, _, errors = cli("run", "BTCUSDT", "1h", "--system", system, "--set", item)
        assert code == 1 and "what to do: " in errors, item


def test_good_values_of_parameters_pass():
    from cryptolab.systems.registry import check_params, system_class

    good = {
        "v9": {"price_units": [8, 4], "direction_rate": 1e-3, "threads": 2, "pool": "ETHUSDT,SOLUSDT", "dropout": 0,
               "fractions": [0.6, 0.2, 0.2], "test_start": "2024-01-31", "standard": False},
        "v2": {"features": "v2_nine", "learn_pool": True, "pool": ["ETHUSDT"], "target": 3},
        "hybrid": {"members": "xgboost,svm", "min_entry_score": 5, "select": 20, "test_start": None},
    }
    for name, params in good.items():
        assert check_params(system_class(name), params) == params


def test_a_typo_in_a_symbol_is_found_before_anything_starts(cli, nothing_starts, tmp_path):
    (tmp_path / "BTCUSDT_1h.csv").write_text("anything")
    for name, more in (("run", ["BTCUSTD", "1h"]), ("batch", ["--symbols", "BTCUSTD", "--timeframes", "1h"])):
        code, output, errors = cli(name, *more, "--source", "local", "--data-dir", tmp_path)
        assert (code, output) == (1, "") and "BTCUSTD" in errors and "BTCUSDT" in errors and "what to do" in errors
    assert not (tmp_path / "reports").exists()


@pytest.fixture
def hours(tmp_path):
    "Options for a folder with three hundred hours of BTCUSDT."
    from cryptolab.data import sample_market

    (tmp_path / "candles").mkdir()
    sample_market("BTCUSDT", "1h", n=300).reset_index().to_csv(tmp_path / "candles" / "BTCUSDT_1h.csv", index=False)
    return ["--source", "local", "--data-dir", tmp_path / "candles"]


@pytest.mark.parametrize("given, words", [
    (["--start", "2030-01-01"], "no candle in the stretch"), (["--end", "2001-01-01"], "no candle in the stretch"),
    (["--limit", "50"], "50 candles are too few"), (["--start", "2024-12-30"], "48 candles are too few"),
    (["--start", "2024-02-01", "--end", "2024-01-01"], "`start` must be before `end`"),
], ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_a_stretch_that_a_file_does_not_have_is_found_before_anything_starts(cli, nothing_starts, hours, given, words):
    for command in (["run", "BTCUSDT", "1h"], ["batch", "--symbols", "BTCUSDT", "--timeframes", "1h"]):
        code, output, errors = cli(*command, *hours, *given)
        assert (code, output) == (1, "") and words in errors and "what to do: " in errors
        there = "BTCUSDT_1h.csv with 300 candles from 2024-12-19 12:00 to 2024-12-31 23:00 UTC"
        assert words.startswith("`") or there in errors
    assert not Path("reports").exists()


def test_what_is_wrong_with_a_file_is_found_before_anything_starts(cli, nothing_starts, hours):
    path = hours[-1] / "BTCUSDT_1h.csv"
    path.write_text(path.read_text().replace("2024-12-20 00:00", "yesterday", 1))
    code, output, errors = cli("run", "BTCUSDT", "1h", *hours)
    assert (code, output) == (1, "") and "is not a time" in errors and "yesterday" in errors


def test_a_longer_timeframe_than_the_file_has_begins(cli, nothing_starts, hours):
    with pytest.raises(AssertionError, match="work began"):
        cli("run", "BTCUSDT", "1h", *hours)
    code, _, errors = cli("run", "BTCUSDT", "2h", *hours)
    assert code == 1 and "150 candles are too few" in errors  # of two hours each
    code, _, errors = cli("run", "BTCUSDT", "30m", *hours)
    assert code == 1 and "BTCUSDT in 1h (1h: 300 candles from 2024-12-19 12:00 to 2024-12-31 23:00 UTC)" in errors


def test_a_system_that_is_nearly_right_is_named(cli, nothing_starts):
    assert "did you mean `hybrid`?" in cli("run", "--system", "hybird")[2]


UNUSABLE = {
    "file": "is a file", "file/out": "a file", "loop": "leads back to itself", "loop/out": "leads back to itself",
    "dangling": "broken link", "x" * 5000: "too long", "y" * 300: "too long", "/proc/out": "cannot be written",
}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="links and /proc as on Linux")
@pytest.mark.parametrize("command", [["run", "BTCUSDT", "1h"], ["batch"], ["leaderboard"], ["audit"]], ids=" ".join)
def test_a_folder_that_cannot_be_written_is_refused_at_once(cli, nothing_starts, tmp_path, command):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    for out, why in UNUSABLE.items():
        code, output, errors = cli(*command, "--out", out)
        assert (code, output) == (1, "") and (why in errors or "a file" in why and "a file" in errors), (out, errors)
        assert "expected: " in errors and "what to do: " in errors and "--out" in errors and len(errors) < 900
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dangling", "file", "loop"]


LONG = "x" * 5000


@pytest.mark.parametrize("command", [
    ["publish", LONG, "me/x"], ["predict", "BTCUSDT", "1h", "--model", LONG], ["run", "--template", LONG],
    ["run", "--source", "local", "--data-dir", LONG], ["batch", "--template", LONG], ["settings", LONG],
    ["run", "--set", f"init_from={LONG}"],
], ids=["publish", "predict", "template", "data", "batch", "settings", "init_from"])
def test_a_path_that_no_file_can_have_is_no_traceback(cli, nothing_starts, command):
    code, _, errors = cli(*command)
    assert code == 1 and "what to do: " in errors and "Traceback" not in errors


@pytest.mark.parametrize("command", [["run", "BTCUSDT", "1h"], ["batch"], ["audit"]], ids=" ".join)
def test_too_few_open_files_are_told_at_once(cli, nothing_starts, monkeypatch, command):
    from cryptolab.runs import processes

    monkeypatch.setattr(processes, "open_files", lambda: (32, 32))
    code, output, errors = cli(*command)
    assert (code, output) == (1, "") and "too few files open" in errors and "ulimit -Hn 1" in errors
    assert not Path("reports").exists()


def test_doctor_names_what_would_stop_a_run(cli, monkeypatch):
    from cryptolab.cli import doctor
    from cryptolab.runs import processes

    monkeypatch.setattr(doctor, "gpu", lambda backend: None)
    monkeypatch.setattr(doctor, "open_files", lambda: (32, 32))
    monkeypatch.setattr(doctor, "free_space", lambda folder: 10**6)
    Path("file").write_text("")
    output = cli("doctor", "--out", "file/out")[1]
    for words in ("cannot be written", "less than 1 GB is free", "32 are allowed", "0.0 GB free"):
        assert words in output
    Path("settings.ini").write_text("[costs]\nfee = 5\n")
    assert "below 0.5" in cli("doctor")[1]
    Path("settings.ini").unlink()
    monkeypatch.setattr(doctor, "open_files", processes.open_files)
    assert "nothing can be run" not in cli("doctor")[1]


def test_doctor_prints_json(cli, monkeypatch):
    from cryptolab.cli import doctor

    monkeypatch.setattr(
        doctor, "gpu",
        lambda backend: {"backend": backend, "works": True, "devices": ["card"], "cards": [], "message": ""},
    )
    code, output, _ = cli("doctor", "--json")
    assert code == 0 and json.loads(output)["gpu"]["devices"] == ["card"]
    assert "card" in cli("doctor")[1]


# ---- predict, with a stand-in for the trained system

@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    "A model folder, and a system and a source that answer without training and data."
    folder = tmp_path / "model"
    folder.mkdir()
    manifest = {
        "system": "v9", "fitted": {"symbol": "BTCUSDT", "timeframe": "1h"}, "features": ["a"] * 46, "files": {},
        "sha256": "f00d",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    times = pd.date_range("2024-05-01", periods=500, freq="h", tz="UTC", name="open_time")
    candles = pd.DataFrame({"close": 100.0}, index=times)
    table = pd.DataFrame(
        {"p_up": 0.55, "mu": 0.001, "sigma": 0.01, "price": 100.1, "lower": 99.0, "upper": 101.2, "natr": float("nan")},
        index=times,
    )
    table.attrs["coverage"] = 0.9
    system = types.SimpleNamespace(forecast=lambda c: table)
    fake = types.ModuleType("cryptolab.systems.v9.system")
    fake.V9 = types.SimpleNamespace(load=lambda f: system)
    monkeypatch.setitem(sys.modules, "cryptolab.systems.v9.system", fake)
    import cryptolab.data

    asked = {}
    monkeypatch.setattr(cryptolab.data, "load_candles", lambda *a, **k: asked.update(k) or candles, raising=False)
    return types.SimpleNamespace(folder=folder, table=table, asked=asked, times=times)


def test_predict_prints_one_json_object(cli, stand_in):
    words = ("predict", "BTCUSDT", "1h", "--model", stand_in.folder, "--now", "2024-05-21T20:30")
    code, output, _ = cli(*words, "--json")
    answer = json.loads(output)
    assert code == 0
    assert (answer["open_time"], answer["known_at"]) == ("2024-05-21T19:00:00+00:00", "2024-05-21T20:00:00+00:00")
    assert (answer["p_up"], answer["price"], answer["natr"], answer["coverage"]) == (0.55, 100.1, None, 0.9)
    assert answer["ensemble_output"] == {"direction": 0.55, "volatility": None, "price": 100.1}
    assert answer["staleness"] == {"seconds": 1800.0, "candles": 0, "stale": False}
    assert (
        answer["model"]["sha256"] == "f00d"
        and answer["model"]["fitted"]["symbol"] == "BTCUSDT"
        and "features" not in answer["model"]
    )
    assert stand_in.asked["now"] == pd.Timestamp("2024-05-21T20:30", tz="UTC") and stand_in.asked["warmup"] == 200


def test_predict_says_when_it_is_too_late(cli, stand_in):
    answer = json.loads(cli("predict", "BTCUSDT", "1h", "--model", stand_in.folder, "--now", "2024-05-22", "--json")[1])
    assert answer["staleness"] == {"seconds": 4 * 3600.0, "candles": 4, "stale": True}


def test_predict_of_a_system_that_trades(cli, stand_in, monkeypatch):
    "Its decision stands in the answer; columns that it does not produce are absent."
    manifest = json.loads((stand_in.folder / "manifest.json").read_text())
    (stand_in.folder / "manifest.json").write_text(json.dumps(manifest | {"system": "v2"}))
    table = pd.DataFrame(
        {
            "p_event": float("nan"), "action": -1, "size": 0.5, "stop_by": 2.0, "target_by": 4.0, "timeout": 16,
            "reason": "ENTRY_APPROVED",
        },
        index=stand_in.times,
    )
    table.attrs.update(event="target before stop", horizon=16)
    fake = types.ModuleType("cryptolab.systems.v2.system")
    fake.V2 = types.SimpleNamespace(load=lambda f: types.SimpleNamespace(forecast=lambda c: table))
    monkeypatch.setitem(sys.modules, "cryptolab.systems.v2.system", fake)
    words = ("predict", "BTCUSDT", "1h", "--model", stand_in.folder, "--now", "2024-05-21T20:30")
    code, output, _ = cli(*words, "--json")
    answer = json.loads(output)
    assert code == 0 and (answer["action"], answer["reason"], answer["p_event"], answer["event"]) == (
        -1,
        "ENTRY_APPROVED",
        None,
        "target before stop",
    )
    assert (
        answer["forecast_until"] == "2024-05-22T12:00:00+00:00"
        and "p_up" not in answer
        and "ensemble_output" not in answer
    )
    for text, words in (
        ("{", "damaged manifest"), (json.dumps(manifest | {"system": "v99"}), "not a model of this library"),
    ):
        (stand_in.folder / "manifest.json").write_text(text)
        assert words in cli("predict", "BTCUSDT", "1h", "--model", stand_in.folder)[2]


def test_batch_takes_several_systems_from_the_plan_file(cli, monkeypatch, tmp_path):
    "`system = v9, hybrid` in settings.ini is a list for a batch, and its first is what `run` makes."
    (tmp_path / "settings.ini").write_text("[model]\nsystem = hybrid, v9\n")
    monkeypatch.chdir(tmp_path)
    asked = {}
    monkeypatch.setattr(
        "cryptolab.runs.plan.make_plan",
        lambda symbols, timeframes, systems, **more: asked.update(systems=systems) or [],
    )
    monkeypatch.setattr("cryptolab.runs.batch.run_batch", lambda *a, **k: {})
    monkeypatch.setattr("cryptolab.runs.batch.batch_text", lambda states: "")
    assert cli("batch")[0] == 0 and asked["systems"] == ("hybrid", "v9")
    monkeypatch.setattr(
        "cryptolab.runs.report.run_report",
        lambda symbol, timeframe, system, **more: asked.update(system=system) or tmp_path,
    )
    assert cli("run")[0] == 0 and asked["system"] == "hybrid"


def test_predict_refuses_what_it_cannot_know(cli, stand_in, tmp_path):
    stand_in.table.loc[stand_in.times[-1], "p_up"] = float("nan")
    code, output, errors = cli("predict", "BTCUSDT", "1h", "--model", stand_in.folder)
    assert code == 1 and output == "" and "no forecast for the newest candle" in errors
    code, _, errors = cli("predict", "BTCUSDT", "1h", "--model", tmp_path)
    assert code == 1 and errors.startswith(ModelError.__name__) and "not a model folder" in errors


# ---- one idiom for all commands

ORDER = """--system --variant --profile --set --template --source --data-dir --start --end --limit --seed --out --open
    --json --quiet --debug --help""".split()


def leaves(command=None, name=()):
    "Every command that does something: (words, options in their order, arguments)."
    from typer.main import get_command

    from cryptolab.cli.hybrid import hybrid_app
    from cryptolab.cli.main import app

    command = command or get_command(app)
    children = dict(getattr(command, "commands", {}))
    if name == ("hybrid",):
        children = get_command(hybrid_app).commands
    if not children or getattr(command, "invoke_without_command", False) and name:
        yield name, [p for p in command.params if p.param_type_name == "option"]
    for word, child in children.items():
        yield from leaves(child, (*name, word))


def test_options_have_one_name_one_help_and_one_order():
    found, texts = dict(leaves()), {}
    assert {("run",), ("data", "ls"), ("runs", "verify"), ("v3",), ("v3", "verify"), ("hybrid", "train")} <= set(found)
    for name, options in found.items():
        names = [option.opts[0] for option in options]
        known = [ORDER.index(word) for word in names if word in ORDER]
        assert known == sorted(known) or name[0] == "hybrid", (name, names)
        assert "--debug" in names or name[0] == "hybrid", name  # whose options are those of its document
        for option in options:
            if option.opts[0] in ("--json", "--quiet", "--debug", "--set", "--data-dir") and name[:1] not in (
                ("hybrid",), ("certify",),
            ):
                texts.setdefault(option.opts[0], set()).add((option.help, tuple(option.opts)))
    assert {word: len(said) for word, said in texts.items()} == dict.fromkeys(texts, 1)


@pytest.mark.parametrize("words", [
    "run", "batch", "data", "data ls", "runs", "runs ls", "v3", "v3 verify", "study ultimate", "hybrid train", "new",
])
def test_help_is_everywhere(cli, words):
    code, output, _ = cli(*words.split(), "-h")
    assert code == 0 and "Usage:" in output and words in output and "--help" in output and "-h" in output


@pytest.mark.parametrize("line, words", [
    ("cryptolab ru", {"run", "runs"}), ("cryptolab runs ver", {"verify"}), ("cryptolab run --source l", {"local"}),
    ("cryptolab predict BTCUSDT 1", {"1m", "15m", "1h", "12h", "1d", "1w"}),
    ("cryptolab run --system ", set(SYSTEMS)),
])
def test_the_shell_completes_commands_options_and_names(cli, line, words):
    from typer.testing import CliRunner

    from cryptolab.cli.main import app

    asked = {"_CRYPTOLAB_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    shown = CliRunner().invoke(app, [], env=asked, prog_name="cryptolab").stdout
    found = {entry.split('"')[0].strip("\\'") for entry in shown.split('"')[1::2]}
    assert words <= {word.split(":")[0] for entry in found for word in entry.split()}, shown


def test_a_folder_of_candles_without_a_source_is_a_local_one(cli, asked, tmp_path):
    cli("run", "BTCUSDT", "1h", "--data-dir", "candles")
    cli("run", "BTCUSDT", "1h", "--data-dir", "candles", "--source", "hub")
    Path("settings.ini").write_text("[data]\nsource = exchange\n")
    cli("run", "BTCUSDT", "1h", "--data-dir", "candles")
    assert [call["source"] for call in asked] == ["local", "hub", "exchange"]


def test_settings_say_which_file_they_come_from(cli, tmp_path):
    Path("settings.ini").write_text("[data]\nlimit = 777\n")
    code, output, _ = cli("settings")
    given, defaults = output.split("# defaults of cryptolab\n")
    assert code == 0 and given == f"# from {tmp_path / 'settings.ini'}\nlimit = 777\n" and "seed = 0\n" in defaults
    told = json.loads(cli("settings", "--json")[1])
    assert told["limit"] == {"value": 777, "from": str(tmp_path / "settings.ini")}
    assert told["symbols"] == {"value": ["BTCUSDT"], "from": "default"}


# ---- the end of a run

def finished(folder):
    "A report whose volatility forecast is beaten by HAR."
    rows = {
        "V9": {"n": 1491, "qlike": 0.234},
        "persistence": {"qlike": 0.30, "ahead": 0.22, "ahead_low": 0.15, "ahead_high": 0.29},
        "HAR": {"qlike": 0.217, "ahead": -0.08, "ahead_low": -0.11, "ahead_high": -0.05},
    }
    result = {
        "system": "v9", "symbol": "BTCUSDT", "timeframe": "1h", "params": {"profile": "quick"}, "volatility": rows,
        "data": {"candles": 10_000, "last": "2025-06-30 23:00:00+00:00"},
        "leaks": {"detectors": 10, "found": []}, "certificate": {"columns": 46, "passed": 46},
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    run = {"id": "20260101-120000-0123abcd", "started": "2026-01-01T12:00:00+00:00", "format": 1, "inputs": {}}
    (folder / "run.json").write_text(json.dumps(run))
    return result


def test_a_run_ends_with_five_lines_of_the_page(cli, asked, tmp_path):
    from cryptolab.evaluation.proof import page_verdict

    result = finished(tmp_path / "reports" / "BTCUSDT-1h-v9")
    verdict = page_verdict(result)
    code, output, errors = cli("run", "BTCUSDT", "1h")
    assert code == 0 and output.strip() == str(Path("reports/BTCUSDT-1h-v9/report.html"))
    lines = errors.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["found", "numbers", "trust", "page", "next"]
    assert verdict["found"] in lines[0] and verdict["trade"] in lines[0] and verdict["trust"] in lines[2]
    assert "Volatility 0.234 QLIKE (HAR 0.217)" in lines[1]
    assert "runs open 20260101-120000-0123abcd" in lines[4] and "runs verify 20260101-120000-0123abcd" in lines[4]


def test_a_run_for_programs(cli, asked, tmp_path):
    code, output, errors = cli("run", "BTCUSDT", "1h", "--quiet")
    assert (code, output.strip(), errors) == (0, str(Path("reports/BTCUSDT-1h-v9/report.html")), "")
    finished(tmp_path / "reports" / "BTCUSDT-1h-v9")
    code, output, errors = cli("run", "BTCUSDT", "1h", "--json")
    said = json.loads(output)
    assert (code, errors) == (0, "") and said["run"] == "20260101-120000-0123abcd"
    assert said["verdict"]["tone"] == "fair" and said["proofs"][0]["best"] == "HAR" and said["page"].endswith(".html")


def test_predict_as_text_tells_the_verdict(cli, stand_in):
    finished(stand_in.folder.parent / "kept")
    (stand_in.folder.parent / "result.json").write_text((stand_in.folder.parent / "kept/result.json").read_text())
    words = ("predict", "BTCUSDT", "1h", "--model", stand_in.folder, "--now", "2024-05-22")
    code, output, _ = cli(*words)
    lines = {line.split()[0]: line for line in output.splitlines()}
    assert code == 0 and "opened 2024-05-21 19:00 UTC, close 100.00" in lines["candle"]
    assert "55.0%" in lines["up"] and "100.10 (99.00 to 101.20)" in lines["price"]
    assert "beaten by HAR" in lines["found"] and "trade it: no" in lines["found"]
    assert "4 candles old: too late" in lines["age"]
    (stand_in.folder.parent / "result.json").unlink()
    assert "nothing is known about its skill" in cli(*words)[1]


# ---- candles by hand

def test_data_lists_checks_and_converts(cli, hours):
    folder = hours[-1]
    path = folder / "BTCUSDT_1h.csv"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[:10], *rows[12:], rows[20]]) + "\n")  # two missing, one twice
    listed = json.loads(cli("data", "ls", folder, "--json")[1])
    assert [(f["symbol"], f["timeframe"], f["rows"], f["gaps"], f["missing"]) for f in listed] == [
        ("BTCUSDT", "1h", 298, 1, 2),
    ]
    line = "BTCUSDT_1h.csv  BTCUSDT  1h  298   2024-12-19 12:00  2024-12-31 23:00  1     2"
    assert line in cli("data", "ls", folder)[1]
    told = json.loads(cli("data", "check", path, "--json")[1])
    counts = {line["check"]: line["count"] for line in told["checks"]}
    assert (counts["duplicates"], counts["missing candles"]) == (1, 2)
    assert "298 candles from 2024-12-19 12:00 to 2024-12-31 23:00 UTC; " in cli("data", "check", path)[1]
    for name in ("new.parquet", "new.feather", "BTC_USDT-1h.json"):
        code, output, _ = cli("data", "convert", path, folder / name)
        assert code == 0 and output.strip() == str(Path("candles") / name)
        assert json.loads(cli("data", "check", folder / name, "--json")[1])["timeframe"] == "1h"
    assert len(json.loads((folder / "BTC_USDT-1h.json").read_text())) == 298
    assert cli("data", "convert", path, folder / "four.csv", "--timeframe", "4h")[0] == 0
    made = json.loads(cli("data", "check", folder / "four.csv", "--json")[1])
    assert made["timeframe"] == "4h" and json.loads(cli("data", "ls", folder, "--json")[1])[-1]["rows"] == 298
    for words, told in (
        (("convert", path, folder / "new.feather"), "exists"), (("convert", path, folder / "a.xls"), "this ending"),
        (("check", folder / "none.csv"), "what to do"), (("ls", folder / "none"), "is no folder"),
    ):
        code, _, errors = cli("data", *words)
        assert code == 1 and told in errors, errors


def test_data_download_goes_on_where_it_stopped(cli, monkeypatch, tmp_path):
    from test_sources import FakeExchange

    from cryptolab.data import exchange

    fake = FakeExchange()
    monkeypatch.setattr(exchange, "open_exchange", lambda name: name if not isinstance(name, str) else fake)
    words = ("data", "download", "BTCUSDT", "1h", "--source", "exchange", "--data-dir", tmp_path / "store")
    code, output, errors = cli(*words, "--limit", 10)
    assert code == 0 and output.strip().endswith(".parquet") and "candles, up to" in errors
    assert Path(output.strip()).is_file()
    said = json.loads(cli(*words, "--limit", 12, "--json", "--quiet")[1])
    assert said["rows"] == 12 and said["file"].endswith(output.strip())
    assert "did you mean" in cli("data", "download", "BTCUSDT", "1h", "--source", "hubb")[2]
