"""Every notebook's examples, run against the exported library; report templates are run by papermill (tools/check_report.py)."""
from pathlib import Path

import pytest
from run_notebook import NotebookError, run_notebook

NBS = Path(__file__).parents[1] / "nbs"
NOTEBOOKS = [p for p in sorted(NBS.rglob("*.ipynb")) if p.relative_to(NBS).parts[0] != "reports" and not any(q[0] in "._" for q in p.relative_to(NBS).parts)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.relative_to(NBS).as_posix())
def test_notebook(path):
    problem = None
    try:
        run_notebook(path, cwd=NBS)
    except NotebookError as e:
        problem = str(e)
    if problem:  # the cell and its error say it all; the runner's own frames would only hide them
        pytest.fail(problem, pytrace=False)
