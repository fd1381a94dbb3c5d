#!/usr/bin/env python3
"""Colab badges and install addresses, from the repository that pyproject.toml names: badges.py [--check].

`[project.urls] Repository = "https://github.com/OWNER/NAME"` gives every tutorial and every notebook of `colab/` its
badge, and `install_from` its address. Without that line no notebook has a badge: it would lead nowhere.
"""
import json
import re
import sys
import tomllib
from pathlib import Path

from tree import ROOT

BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)\n*")
PICTURE = "https://colab.research.google.com/assets/colab-badge.svg"
VARIABLE = re.compile(r'^install_from = "[^"]*"', re.M)


def repository(root: Path = ROOT) -> str | None:  # "OWNER/NAME" on GitHub; None where the project names none
    "The repository that the project says it lives in."
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls = {name.lower(): url for name, url in project.get("urls", {}).items()}
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", urls.get("repository", ""))
    return found[1] if found else None


def badge_notebooks(root: Path = ROOT) -> list:
    "The notebooks that a reader opens in Colab."
    return sorted([*(root / "nbs" / "tutorials").glob("[!._]*.ipynb"), *(root / "colab").glob("[!._]*.ipynb")])


def with_badge(text: str, place: str, repo: str | None, branch: str = "main") -> str:  # the notebook as text
    "A notebook with the badge and the address of a repository, or without both."
    book, address = json.loads(text), f'install_from = "git+https://github.com/{repo}"' if repo else 'install_from = ""'
    for number, cell in enumerate(book["cells"]):
        source = "".join(cell["source"])
        made = BADGE.sub("", source) if cell["cell_type"] == "markdown" else source
        if number == 0 and repo:
            to = f"https://colab.research.google.com/github/{repo}/blob/{branch}/{place}"
            made = f"[![Open in Colab]({PICTURE})]({to})\n\n{made}"
        if cell["cell_type"] == "code":
            made = VARIABLE.sub(address, made)
        if made != source:
            cell["source"] = made.splitlines(keepends=True)
    return json.dumps(book, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def outdated(root: Path = ROOT) -> dict:  # {path: what it should hold}
    "Notebooks whose badge or address is not that of the project."
    branch = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["nbdev"].get("branch", "main")
    found = {}
    for path in badge_notebooks(root):
        text = path.read_text(encoding="utf-8")
        wanted = with_badge(text, path.relative_to(root).as_posix(), repository(root), branch)
        if json.loads(wanted) != json.loads(text):
            found[path] = wanted
    return found


if __name__ == "__main__":
    for path, wanted in (found := outdated()).items():
        print(path.relative_to(ROOT))
        if "--check" not in sys.argv:
            path.write_text(wanted, encoding="utf-8")
    if found and "--check" in sys.argv:
        sys.exit("these do not have the badge of the repository in pyproject.toml; run `python tools/badges.py`")
