#!/usr/bin/env python3
"""Write constraints.txt (newest allowed versions), constraints-oldest.txt (lower bounds of pyproject.toml) and
constraints-s3.txt (the server that the tests upload to) as exact pins.

make_constraints.py newest|oldest|s3      Needs uv beside this Python, and the package index it is set up for.
"""
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
# Not ours, but the oldest allowed versions need them: typer before 0.15.4 does not know click 8.2.
COMPANIONS = {"click": "8.1.8"}
HEADS = {
    "newest": (
        "constraints.txt", "# Exact versions of everything `make setup` installs; written by `make constraints`.\n",
    ),
    "oldest": (
        "constraints-oldest.txt",
        "# The oldest versions pyproject.toml allows, for `make test-oldest`; written by `make constraints`.\n",
    ),
    "s3": (
        "constraints-s3.txt",
        "# The server that tests/test_upload.py uploads to, in .venv-s3; written by `make constraints`.\n",
    ),
}
SERVER = "moto[server,s3]\nuv\n"  # cannot share our environment: it needs an older python-dateutil


def lower_bounds(project: dict) -> dict:  # of [project] in pyproject.toml
    "The lowest allowed version of each package the library itself uses, extras `hub` and `exchange` included."
    extras = project["optional-dependencies"]
    found = {}
    for text in project["dependencies"] + extras["hub"] + extras["exchange"]:
        need = Requirement(text)
        found[need.name] = next(s.version for s in need.specifier if s.operator in (">=", "=="))
    return found


def resolved(*arguments: str, text: str | None = None) -> str:  # text: requirements for the argument `-`
    "All pins, one `name==version` a line, resolved for the oldest supported Python."
    command = [
        Path(sys.executable).with_name("uv"), "pip", "compile", "-q", *arguments, "--python-version", "3.11",
        "--no-header", "--no-annotate", "--upgrade",
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, input=text)
    lines = done.stdout.splitlines()
    return "".join(f"{line}\n" for line in lines if "==" in line and not line.startswith(("#", "-", "cryptolab")))


def compile_pins(which: str) -> str:  # newest | oldest | s3
    "The pins of one file."
    if which == "s3":
        return resolved("-", text=SERVER)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as fixed:
        if which == "oldest":
            fixed.writelines(f"{k}=={v}\n" for k, v in (lower_bounds(project) | COMPANIONS).items())
        fixed.flush()
        return resolved(
            "pyproject.toml", "--extra", "dev", "--extra", "lab", "--extra", "h2o", "--extra", "mlflow",
            *(["--extra", "peers", "--extra", "docs"] if which == "newest" else []), "-c", fixed.name,
        )


if __name__ == "__main__":
    for which in sys.argv[1:] or HEADS:
        name, head = HEADS[which]
        text = head + compile_pins(which)
        (ROOT / name).write_text(text)
        print(f"{name}: {text.count('==')} packages")
