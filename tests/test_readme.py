"""The README: short, its commands exist, its picture is the page as it is now, and it says what the systems are."""
import json
import re
import shlex
from pathlib import Path

import pytest
import screenshot
import typer

from cryptolab.cli.main import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
SHELL = [line for block in re.findall(r"```\n(.*?)```", TEXT, re.S) for line in block.strip().splitlines()]
INLINE = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.S))


def test_it_is_read_in_two_minutes():
    words = [word for word in TEXT.split() if re.search(r"[A-Za-z0-9]", word)]
    assert len(words) <= 700


def commands():
    "Every `cryptolab …` of the README, in blocks and within sentences."
    inline = [code for code in INLINE if code.startswith("cryptolab ")]
    blocks = [line for line in SHELL if "bin/cryptolab " in line]
    return [command.split("cryptolab ", 1)[1] for command in [*blocks, *inline]]


def parsed(command):
    "Parse a command as the program does, without running it; an unknown word or option raises."
    words, group = shlex.split(command.replace("RUN", "x")), typer.main.get_command(app)
    while hasattr(group, "commands"):
        assert words and words[0] in group.commands, f"`cryptolab {command}`: no command {words[:1]}"
        group = group.commands[words.pop(0)]
    return group.make_context(group.name, words, resilient_parsing=False)


@pytest.mark.parametrize("command", commands())
def test_its_commands_exist(command):
    assert parsed(command).params is not None


def test_a_command_that_does_not_exist_is_seen():
    assert len(commands()) >= 4
    for wrong in ("runn BTCUSDT", "run BTCUSDT 1h --systm v9", "runs list"):
        with pytest.raises(Exception, match="no command|[Nn]o such option"):
            parsed(wrong)


def test_its_make_targets_and_modules_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"\bmake ([a-z-]+)", "\n".join([*SHELL, *INLINE]))
    assert {"report", "check", "test", "docs"} <= set(named)
    assert not [name for name in named if not re.search(rf"^{name}:", makefile, re.M)]
    for module in re.findall(r"python -m (\S+?)[ `]", TEXT):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


def test_its_picture_is_the_page_as_it_is_now():
    kept = json.loads((ROOT / "nbs" / "images" / "report.json").read_text())
    assert kept["drawn"] == screenshot.drawn_sum(kept["result"]), (
        "the code draws another page: `cryptolab run BTCUSDT 1h --profile quick --source local --data-dir …`, then "
        " `python tools/screenshot.py`"
    )
    assert kept["result"]["system"] == "v9" and kept["result"]["params"]["profile"] == "quick"
    other = kept["result"] | {"symbol": "ETHUSDT"}
    assert screenshot.drawn_sum(other) != kept["drawn"], "the sum follows what is drawn"


def test_it_says_what_the_systems_are_and_what_came_of_their_promises():
    first = TEXT.split("## First report")[0]
    assert first.count(".png") == 1 and len(re.findall(r"[.!] |[.]$", first.split("![")[0], re.M)) <= 3
    about = TEXT.split("## The five systems")[1].split("\n## ")[0]
    v9 = about.split("|")[0]
    assert all(word in v9 for word in ("V9 is", "LSTM", "attention", "gradient boosting", "hourly", "close"))
    rows = [line for line in about.splitlines() if line.startswith("| **")]
    assert [row.split("**")[1] for row in rows] == ["V9", "V2", "Hybrid", "V3 Ultimate", "Ultimate"]
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 6 and re.search(r"\d", cells[3]) and re.search(r"\(.* to .*\)", cells[4]), row
        assert "promise" in cells[5]


def test_its_numbers_are_those_of_the_stored_results():
    claims = json.loads((ROOT / "benchmarks" / "results" / "claims.json").read_text())["claims"]
    v9 = next(c for c in claims if c["claim"] == "v9.direction.accuracy")
    zoo = json.loads((ROOT / "benchmarks" / "results" / "zoo.json").read_text())["sensitivity"]
    row = next(line for line in TEXT.splitlines() if line.startswith("| **V9**"))
    assert f"{v9['measured']:.1%} ({v9['measured_low']:.1%} to {v9['measured_high']:.1%})" in row
    assert f"{v9['low']:.1%} to {v9['high']:.1%}" in row
    assert f"{zoo['found']} of {zoo['of']} leaky pipelines" in TEXT


def test_it_promises_no_money():
    assert "For research only" in TEXT and "no" in TEXT.split("For research only")[1].lower()
    for peer in ("freqtrade", "Qlib", "vectorbt", "Nixtla"):
        assert peer in TEXT
