#!/usr/bin/env python3
"""A smoke of every room: one notebook and one quick test each, two at a time; a room without an entry is an error.

smoke.py            run them
smoke.py --list     only print what would run
"""
import subprocess
import sys
from pathlib import Path

from tree import ROOT

# room -> (notebook, tests): quick, and together they touch what the room is for
ROOMS = {
    "config": ("00_config", "test_cli.py::test_defaults_come_from_settings_and_options_replace_them"),
    "files": ("01_files", "test_layout.py"),
    "data": ("10_data/10_candles", "test_market.py"),
    "features": ("20_features/30_registry", "test_v3.py"),
    "labels": ("30_labels/30_barriers", "test_labels_validation.py"),
    "validation": ("40_validation/20_borders", "test_splitters.py"),
    "models": ("50_models/50_calibration", "test_v9.py::test_training_learns_what_kerass_own_fit_learns"),
    "evaluation": ("55_evaluation/10_metrics", "test_evaluation.py"),
    "backtest": ("60_backtest/90_backtest", "test_backtest_stats.py"),
    "systems": ("70_systems/40_v2/30_veto", "test_v2.py::test_a_saved_system_says_the_same"),
    "audit": (
        "75_audit/30_leaks/10_case",
        "test_leakage.py::test_oversampling_before_the_split_is_found_and_after_it_not",
    ),
    "reports": ("80_reports/30_results", "test_leaderboard.py"),
    "runs": ("85_runs/20_plan", "test_publish.py"),
    "serving": ("90_serving/10_forecast", "test_cli.py::test_predict_prints_one_json_object"),
    "cli": ("95_cli/10_common", "test_cli.py"),
}


def missing(root: Path = ROOT, rooms: dict = ROOMS) -> list:  # one line per problem
    "Rooms without an entry, and entries that lead nowhere."
    there = {p.name.split("_", 1)[1].removesuffix(".ipynb") for p in (root / "nbs").glob("[0-9]*_*")}
    problems = [f"{room}: no smoke of this room; add one to tools/smoke.py" for room in sorted(there - set(rooms))]
    problems += [f"{room}: there is no such room in nbs/" for room in sorted(set(rooms) - there)]
    for room, (notebook, test) in rooms.items():
        for path in (root / "nbs" / f"{notebook}.ipynb", root / "tests" / test.split("::")[0]):
            if room in there and not path.is_file():
                problems.append(f"{room}: {path.relative_to(root)} does not exist")
    return problems


def selection(rooms: dict = ROOMS) -> list:  # names of tests as pytest takes them
    "The notebooks and tests of all rooms, each once."
    notebooks = [f"tests/test_notebooks.py::test_notebook[{notebook}.ipynb]" for notebook, _ in rooms.values()]
    return list(dict.fromkeys([*notebooks, *(f"tests/{test}" for _, test in rooms.values())]))


if __name__ == "__main__":
    if problems := missing():
        sys.exit("\n".join(problems))
    if "--list" in sys.argv[1:]:
        print("\n".join(selection()))
        sys.exit()
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "not slow", *selection()]
    sys.exit(subprocess.run(pytest, cwd=ROOT).returncode)
