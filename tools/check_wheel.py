#!/usr/bin/env python3
"""Build the wheel, install it into a clean environment and import every module there, one by one, away from the
checkout."""
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tree import ROOT, copy_tree

HERE = Path(sys.executable).parent


# Each module in a fork of a process that has imported only declared packages: on its own, but without paying for them
# a hundred times.
ALONE = """
import gc, os, sys
import matplotlib, nbformat, numba, pandas, scipy.stats, typer
gc.freeze()
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            __import__(name)
        except BaseException as e:
            print(f"import {name}: {e!r}", flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
"""


def run(*command, cwd):
    "Run one command, with nothing of the checkout on its path; its output is shown when it fails."
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def build(tmp: Path) -> Path:  # the wheel
    "Build from a copy, so that neither left-over files get in nor build folders stay behind."
    copy = copy_tree(ROOT, tmp / "tree")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp / "dist", copy, cwd=tmp)
    return next((tmp / "dist").glob("*.whl"))


def module_names(wheel: Path) -> list:  # dotted names
    "Every module in the wheel; fails when it lacks one, or a report template, or holds anything else."
    inside = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    wanted = {str(p.relative_to(ROOT)) for p in (ROOT / "cryptolab").rglob("*.py") if "__pycache__" not in p.parts}
    wanted |= {f"cryptolab/reports/templates/{p.name}" for p in (ROOT / "nbs" / "templates").glob("*.ipynb")}
    if missing := wanted - inside:
        sys.exit(f"the wheel lacks {sorted(missing)}")
    if strange := {n for n in inside if not n.startswith("cryptolab/")}:
        sys.exit(f"the wheel holds files outside the library: {sorted(strange)}")
    return sorted(
        n.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for n in inside if n.endswith(".py")
    )


def install(wheel: Path, tmp: Path) -> Path:  # the clean environment's Python
    "The wheel and what it declares, nothing else, in the pinned versions."
    python, pins, uv = tmp / "venv" / "bin" / "python", ROOT / "constraints.txt", HERE / "uv"
    if uv.exists():  # links what its cache holds, in seconds
        run(uv, "venv", "--python", sys.executable, tmp / "venv", cwd=tmp)
        run(uv, "pip", "install", "--python", python, "-c", pins, wheel, cwd=tmp)
        run(uv, "pip", "check", "--python", python, cwd=tmp)
    else:
        run(sys.executable, "-m", "venv", tmp / "venv", cwd=tmp)
        run(python, "-m", "pip", "install", "-q", "-c", pins, wheel, cwd=tmp)
        run(python, "-m", "pip", "check", cwd=tmp)
    return python


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        tmp = Path(folder)
        away = tmp / "elsewhere"
        away.mkdir()
        wheel = build(tmp)
        names = module_names(wheel)
        python = install(wheel, tmp)
        run(python, "-c", ALONE, *names, cwd=away)
        run(python.with_name("cryptolab"), "--help", cwd=away)
        run(python, "-c", "from cryptolab.runs.report import find_template; find_template('v9')", cwd=away)
        print(f"{wheel.name}: {len(names)} modules import on their own; `cryptolab --help` answers")
