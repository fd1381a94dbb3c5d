"""What a user gets: the wheel in a clean environment, and every report template as it stands, run by papermill."""
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "nbs" / "templates"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.name for p in TEMPLATES.glob("*.ipynb")))
def test_a_template_runs_with_its_default_parameters_and_writes_nothing(tmp_path, monkeypatch, name):
    import papermill

    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    before = set(TEMPLATES.rglob("*"))
    papermill.execute_notebook(
        str(TEMPLATES / name), str(tmp_path / name), cwd=str(TEMPLATES), kernel_name="python3", progress_bar=False,
    )
    cells = [c for c in nbformat.read(tmp_path / name, as_version=4).cells if c.cell_type == "code"]
    assert len(cells) > 10 and all(c.execution_count for c in cells if c.source.strip())
    assert not set(TEMPLATES.rglob("*")) - before, "a template that is only looked at must write nothing"


def test_a_template_is_there_for_every_system():
    assert {"v9.ipynb", "v2.ipynb", "hybrid.ipynb"} <= {p.name for p in TEMPLATES.glob("*.ipynb")}


@pytest.mark.slow
def test_the_wheel_in_a_clean_environment():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_wheel.py")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
