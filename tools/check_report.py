#!/usr/bin/env python3
"""Run every report template by papermill as it stands, with its default parameters (a tiny sample), in its own
folder."""
import os
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill

from tree import ROOT

TEMPLATES = ROOT / "nbs" / "templates"


def run_template(template: Path, done: Path) -> int:  # number of executed code cells
    "Execute one template; raises papermill's error, which shows the failing cell."
    papermill.execute_notebook(
        str(template), str(done), cwd=str(template.parent), kernel_name="python3", progress_bar=False,
    )
    return sum(c.cell_type == "code" and bool(c.execution_count) for c in nbformat.read(done, as_version=4).cells)


if __name__ == "__main__":
    os.environ |= {"JUPYTER_PREFER_ENV_PATH": "1", "MPLBACKEND": "Agg"}
    if not (TEMPLATES / "v9.ipynb").exists():
        sys.exit("nbs/templates/v9.ipynb is missing: there is no report to run")
    before = sorted(TEMPLATES.rglob("*"))
    for template in sorted(TEMPLATES.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            print(
                f"{template.name}: {run_template(template, Path(folder) / template.name)} cells ran with default "
                "parameters"
            )
    if left := sorted(set(TEMPLATES.rglob("*")) - set(before)):
        sys.exit(f"a template that is only looked at must write nothing, but left {', '.join(p.name for p in left)}")
