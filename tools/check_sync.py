#!/usr/bin/env python3
"""Fail when notebooks are not clean or the library is not what they export: check_sync.py [ROOT].

Works in a temporary copy of the working tree: the library is deleted there, exported anew and compared with what is
here, so that edited, missing and left-over modules are all found, tracked by git or not.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

from tree import ROOT, copy_tree, tree_files


def modules(root: Path) -> set:  # paths relative to `root`
    "Every Python file of the library, whether git knows it or not: all of them can be imported."
    return {p.relative_to(root) for p in (root / "cryptolab").rglob("*.py") if "__pycache__" not in p.parts}


def check(root: Path) -> list:  # one line per problem, empty when all is well
    "Compare the working tree with what cleaning and exporting make of it."
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_tree(root, Path(folder))
        for module in modules(copy):
            (copy / module).unlink()
        tools = Path(sys.executable).parent
        subprocess.run([sys.executable, str(Path(__file__).parent / "export.py")], cwd=copy, check=True)
        for command in (["nbdev-clean"], ["nbdev-clean", "--fname", "colab"]):
            if command[-1] != "colab" or (copy / "colab").exists():
                subprocess.run([str(tools / command[0]), *command[1:]], cwd=copy, check=True)
        here, made = modules(root), modules(copy)
        problems = [f"{m}: no notebook exports it; delete it or write its notebook" for m in sorted(here - made)]
        problems += [f"{m}: missing; run `make export`" for m in sorted(made - here)]
        problems += [f"{m}: differs from its notebook; run `make export` (edits belong in the notebook)"
                     for m in sorted(here & made) if (root / m).read_bytes() != (copy / m).read_bytes()]
        problems += [
            f"{n}: not clean; run `make export`" for n in tree_files(root) if n.suffix == ".ipynb"
            and (root / n).read_bytes() != (copy / n).read_bytes()
        ]
    return problems


if __name__ == "__main__":
    root = Path(sys.argv[1]) if sys.argv[1:] else ROOT
    if problems := check(root):
        sys.exit("\n".join(["notebooks and library are out of step:", *problems]))
    print(f"{len(modules(root))} modules are what the notebooks export; all notebooks are clean")
