"""Every notebook's examples, run against the exported library; `test_whole.py` runs the report templates."""
import base64
import json
import re
from pathlib import Path

import badges
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from run_notebook import NotebookError, run_notebook
from tutorial_checks import CHECKS

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
def small_report(tmp_path):
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
    return (
        "import pathlib\nimport cryptolab.runs.report\n"
        f"cryptolab.runs.report.find_template = lambda name: pathlib.Path({str(path)!r})"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.relative_to(NBS).as_posix())
def test_notebook(path, small_report, tmp_path):
    problem, lesson = None, path.parent.name == "tutorials"
    before = small_report if path.stem == "01_first_report" else ""
    (tmp_path / "here").mkdir()
    try:  # a tutorial writes where its reader is
        run_notebook(path, cwd=tmp_path / "here" if lesson else NBS, before=before, after=CHECKS.get(path.stem, ""))
    except NotebookError as e:
        problem = str(e)
    if problem:  # the cell and its error say it all; the runner's own frames would only hide them
        pytest.fail(problem, pytrace=False)


PLUMBING = re.compile(r"^\s*assert\b|tempfile|os\.environ|os\.chdir|raise AssertionError|CRYPTOLAB_", re.M)


def test_tutorials_hold_only_what_their_reader_is_to_see():
    paths = sorted((NBS / "tutorials").glob("*.ipynb"))
    assert {p.stem for p in paths} == set(CHECKS), "every tutorial is checked after it has run"
    for path in paths:
        for cell in json.loads(path.read_text())["cells"]:
            source = "".join(cell["source"])
            assert cell["cell_type"] != "code" or not PLUMBING.search(source), (path.name, source)
            assert "#| hide" not in source, path.name


def test_tutorials_show_a_still_picture_beside_each_interactive_chart():
    charts = 0
    for path in sorted((NBS / "tutorials").glob("*.ipynb")):
        assert path.stat().st_size < 400_000, f"{path.name} is too large for a lesson"
        for cell in json.loads(path.read_text())["cells"]:
            for data in [o.get("data", {}) for o in cell.get("outputs", [])]:
                if "application/vnd.plotly.v1+json" in data:
                    charts += 1
                    picture = base64.b64decode("".join(data.get("image/png", "")))
                    assert picture.startswith(b"\x89PNG") and 2_000 < len(picture) < 80_000, (
                        f"{path.name}: run `python tools/store_outputs.py --pictures` on it"
                    )
    assert charts >= 2


def test_what_is_checked_after_a_notebook_can_fail(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("x = 1")]), tmp_path / "a.ipynb")
    assert run_notebook(tmp_path / "a.ipynb", before="y = 1", after="assert x == y") == 1
    with pytest.raises(NotebookError, match="checked afterwards"):
        run_notebook(tmp_path / "a.ipynb", after="assert x == 2")


def test_tutorials_are_numbered():
    tutorials = sorted((NBS / "tutorials").glob("*.ipynb"))
    assert [p.name[:2] for p in tutorials] == [f"{n:02}" for n in range(1, len(tutorials) + 1)] and len(tutorials) >= 7
    for path in tutorials:
        first = "".join(json.loads(path.read_text())["cells"][0]["source"])
        assert f"# {int(path.name[:2])} " in first, path.name


def test_a_badge_only_where_the_repository_is_known(tmp_path):
    assert badges.outdated() == {}, "run `python tools/badges.py`"
    (tmp_path / "colab").mkdir()
    plain = (Path(badges.ROOT) / "colab" / "v9.ipynb").read_text()
    (tmp_path / "colab" / "v9.ipynb").write_text(plain)
    project = '[project]\nname = "x"\n[tool.nbdev]\nbranch = "trunk"\n'
    (tmp_path / "pyproject.toml").write_text(project)
    assert badges.repository(tmp_path) is None
    project = project.replace("[tool", '[project.urls]\nRepository = "https://github.com/some-one/a.lab"\n[tool')
    (tmp_path / "pyproject.toml").write_text(project)
    made = badges.outdated(tmp_path)[tmp_path / "colab" / "v9.ipynb"]
    assert "https://colab.research.google.com/github/some-one/a.lab/blob/trunk/colab/v9.ipynb" in made
    assert 'install_from = \\"git+https://github.com/some-one/a.lab\\"' in made
    assert badges.with_badge(made, "colab/v9.ipynb", None) == badges.with_badge(plain, "colab/v9.ipynb", None)
    book = json.loads(plain)
    first = next("".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code")
    assert re.fullmatch(r'install_from = "[^"]*"  # .+', first), "Run all needs one variable, and it comes first"
