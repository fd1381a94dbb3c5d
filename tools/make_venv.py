#!/usr/bin/env python3
"""Make a virtual environment with exactly the pinned packages: make_venv.py FOLDER CONSTRAINTS [EXTRAS [PACKAGE …]].

The project is installed with its extras; or, where packages are named, those instead of it. Run by the system's
Python, so it uses the standard library only. `FOLDER/.stamp` is written last: an environment without it was interrupted
and is made afresh; one whose stamp is old is brought up to date in place. With the extra `dev` all packages are
compiled to bytecode once: uv leaves that to the first import, which may not be allowed to write, and the tests start
hundreds of processes.
"""
import shutil
import subprocess
import sys
from pathlib import Path


def run(*command):
    "Run one command, shown; raises CalledProcessError when it fails."
    print("+", *command, flush=True)
    subprocess.run([str(c) for c in command], check=True)


def install(python, constraints, extras, packages=()):
    "The project, editable, or packages alone, as pinned: by uv in seconds, by pip in minutes when uv cannot."
    pip = (python, "-m", "pip", "install", "--disable-pip-version-check", "-q", "-c", constraints)
    project = packages or ("-e", f".[{extras}]" if extras else ".")
    bytecode = ("--compile-bytecode",) if "dev" in extras.split(",") else ()  # pip always does
    try:
        run(*pip, "uv")
        run(python.with_name("uv"), "pip", "install", "-q", *bytecode, "--python", python, "-c", constraints, *project)
    except (subprocess.CalledProcessError, OSError) as e:
        print(f"uv could not install ({e}); pip does it now, which takes some minutes", flush=True)
        run(*pip, *project)


def make_venv(folder, constraints, extras="", *packages):
    "A complete environment in `folder`, marked by its stamp."
    folder = Path(folder)
    stamp, python = folder / ".stamp", (folder / "bin" / "python").absolute()
    if not (stamp.exists() and python.exists()):
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
    stamp.unlink(missing_ok=True)
    install(python, constraints, extras, packages)
    stamp.touch()


if __name__ == "__main__":
    if not (3, 11) <= sys.version_info < (3, 14):
        sys.exit(
            f"cryptolab needs Python 3.11 to 3.13, this is {sys.version.split()[0]}; choose one: make setup "
            "PYTHON=python3.12"
        )
    try:
        make_venv(*sys.argv[1:])
    except subprocess.CalledProcessError as e:
        hint = "; on Debian: apt-get install python3-venv" if "venv" in map(str, e.cmd) else ""
        sys.exit(f"the environment could not be made: {' '.join(map(str, e.cmd))} ended with {e.returncode}{hint}")
