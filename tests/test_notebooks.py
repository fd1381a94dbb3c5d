"""Every notebook's examples, run against the exported library; `test_whole.py` runs the report templates."""
import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from run_notebook import NotebookError, run_notebook

NBS = Path(__file__).parents[1] / "nbs"
NOTEBOOKS = [
    p for p in sorted(NBS.rglob("*.ipynb")) if p.relative_to(NBS).parts[0] != "templates"
    and not any(q[0] in "._" for q in p.relative_to(NBS).parts)
]
PARAMETERS = dict(
    symbol="BTCUSDT", timeframe="1h", source="sample", data_dir="data", start=None, end=None, limit=100,
    profile="smoke", seed=0, fee=0.001, slippage=0.0005, params={}, out=None, work=None,
)


@pytest.fixture
def small_report(tmp_path, monkeypatch):
    "A report notebook that takes seconds, for the tutorial that makes a report; V9's own has tests of its own."
    row = dict(n=100, accuracy=0.5, accuracy_low=0.4, accuracy_high=0.6, p_majority=0.5)
    result = {"finding": "Direction: nothing found. Price: nothing found.", "direction": {"V9": row, "majority": row}}
    write = f"from pathlib import Path\n_ = (Path(out) / 'result.json').write_text({json.dumps(result)!r})"
    parameters = new_code_cell(
        "\n".join(f"{k} = {v!r}" for k, v in PARAMETERS.items()), metadata={"tags": ["parameters"]},
    )
    path = tmp_path / "small.ipynb"
    nbformat.write(
        new_notebook(cells=[parameters, new_markdown_cell("# A small report\n\n## Nothing"), new_code_cell(write)]),
        path,
    )
    monkeypatch.setenv("CRYPTOLAB_TEMPLATE", str(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.relative_to(NBS).as_posix())
def test_notebook(path, small_report):
    problem = None
    try:
        run_notebook(path, cwd=NBS)
    except NotebookError as e:
        problem = str(e)
    if problem:  # the cell and its error say it all; the runner's own frames would only hide them
        pytest.fail(problem, pytrace=False)


def test_tutorials_are_numbered_and_open_in_colab():
    tutorials = sorted((NBS / "tutorials").glob("*.ipynb"))
    assert [p.name[:2] for p in tutorials] == [f"{n:02}" for n in range(1, len(tutorials) + 1)] and len(tutorials) >= 7
    for path in tutorials:
        first = "".join(json.loads(path.read_text())["cells"][0]["source"])
        assert "colab.research.google.com" in first and f"# {int(path.name[:2])} " in first, path.name
