"""The documentation site: what it is made of, what its checks find, and the whole of it in a browser."""
import ast
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import build_docs
import make_gallery
import pytest
import site_check
import site_commands
import site_gallery
import site_landing
from site_examples import Lesson

ROOT = Path(__file__).parents[1]
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None,
)
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update "
    "--disable-sync --hide-scrollbars --virtual-time-budget=8000 --enable-logging=stderr --dump-dom"
).split()
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome found")


# ---- what the site is made of

def test_every_notebook_has_a_page_of_its_own():
    pages = build_docs.site_pages()
    found = {p.path.resolve() for p in pages}
    wanted = {
        p.resolve() for folder in ("nbs", "colab") for p in (ROOT / folder).rglob("*.ipynb")
        if not any(q[0] in "._" for q in p.relative_to(ROOT).parts)
    }
    assert found == wanted
    assert len({p.name for p in pages}) == len(pages)
    assert {p.part for p in pages} <= {"", *build_docs.ROOMS, *build_docs.PARTS} and {p.part for p in pages} >= {
        "data",
        *build_docs.PARTS,
    }
    assert len([p for p in pages if p.module]) >= 100
    assert all(build_docs.room_title(folder) for folder in build_docs.chapters(pages))
    assert sorted(
        name for inside in build_docs.chapters(pages).values() for name in inside if name in {p.name for p in pages}
    ) == sorted(p.name for p in pages if p.part), "every page is in one chapter"


def test_every_page_says_what_it_is_for():
    for page in build_docs.site_pages():
        title, line = build_docs.title_and_line(build_docs.read_notebook(page.path), page.name)
        assert title != page.name and len(line.split()) >= 4, page.path.name


def test_every_public_name_is_in_the_reference_once():
    import cryptolab.features.rolling as rolling
    import cryptolab.systems.v9.system as v9

    text = "\n".join(build_docs.reference("features.rolling"))
    assert all(
        text.count(f"{{py:function}} {name}(") == 1 for name in rolling.__all__ if callable(getattr(rolling, name))
    )
    text = "\n".join(build_docs.reference(v9.__name__.removeprefix("cryptolab.")))
    assert v9.__all__[0] == "V9" and "v9_results" in v9.__all__ and "{py:class} V9(*, profile='quick'" in text
    assert all(f"{{py:method}} {name}(" in text for name in ("fit", "forecast", "labels"))
    inherited = "".join(line for line in text.splitlines() if line.startswith("From {py:obj}`cryptolab.systems."))
    assert all(f"`{name}`" in inherited for name in ("get_params", "save", "load")) and "`fit`" not in inherited
    assert "candle table, at least a few hundred rows" in text, "the comment beside a parameter is its documentation"


def test_a_docstring_is_shown_as_one_table():
    entries = {c.split("\n")[0].split(" ", 1)[1]: c for c in build_docs.reference("validation.splitters")[1:]}
    fold = entries["CombinatorialPurgedKFold(labels, n_splits=6, n_test=2, embargo=0)"]
    assert fold.count("decision times, or a duration, left out after each test stretch") == 1
    assert "| `predictions` |  | one array per fold in the order of `split`: the forecasts for its test rows |" in fold
    assert "| *returns* | `int` | complete histories that the folds give |" in fold, "of a property"
    lines = build_docs.reference("validation.windows")
    assert any("| *raises* | `DataError` | when no window is usable |" in line for line in lines)
    assert not any("---\n" in c.replace("| ---", "") or "\nParameters\n" in c for c in [*entries.values(), *lines])
    error = next(c for c in build_docs.reference("config") if "{py:class} CryptolabError(" in c)
    assert "what the reader can do about it" in error, "an error has its comments in its constructor"


def test_names_imported_from_elsewhere_are_links():
    cells = build_docs.reference("data.__init__")
    assert "{py:obj}`sample_market`" in cells[0] and not any("{py:function} sample_market" in c for c in cells)


@pytest.mark.parametrize("source, tags, shown", [
    ("#| export\ndef f(): pass", ["export"], "def f(): pass"),
    ("#| export\nimport os\nfrom a import (\n    b,\n    "
     "c,\n)", ["export", "plumbing", "hide-input"], "import os\nfrom a import (\n    b,\n    c,\n)"),
    ("#| echo: false\nf()", ["remove-input"], "f()"),
    ("import os\nos.getcwd()", [], "import os\nos.getcwd()"),
])
def test_directives_become_tags(source, tags, shown):
    made = build_docs.page_cell({"cell_type": "code", "source": source, "outputs": []}, str)
    assert (made["metadata"]["tags"], made["source"]) == (tags, shown)


@pytest.mark.parametrize("source", ["#| default_exp a.b", "#| hide\nf()", "  "])
def test_cells_left_out(source):
    assert build_docs.page_cell({"cell_type": "code", "source": source, "outputs": []}, str) is None


def test_outputs_are_drawn_or_left_out():
    chart = {
        "output_type": "display_data",
        "data": {build_docs.PLOTLY: {"data": [{"y": [1, 2], "name": "</script>"}], "layout": {}}},
    }
    made = build_docs.page_output(chart)["data"]["text/html"]
    assert 'class="plot"' in made and made.count("</script>") == 1
    assert build_docs.page_output({"output_type": "stream", "name": "stderr", "text": "noise"}) is None
    table = {"output_type": "execute_result", "data": {"text/html": ["<style scoped>td{}</style>", "<table></table>"]}}
    assert build_docs.page_output(table)["data"]["text/html"] == "<table></table>"
    link = {
        "output_type": "execute_result",
        "data": {"text/html": "<a class='x' href='run/report.html'>r</a> <a href=\"https://example.org/\">e</a>"},
    }
    assert (
        build_docs.page_output(link)["data"]["text/html"] == "<a class='x'>r</a> <a href=\"https://example.org/\">e</a>"
    )


def test_links_between_notebooks_become_links_between_pages(tmp_path):
    pages = build_docs.site_pages()
    links = build_docs.Links(pages, tmp_path / "stage", tmp_path / "files")
    start, rolling = (next(p for p in pages if p.name == name) for name in ("overview", "features/rolling"))
    assert links(start, "[a study](studies/certificates.ipynb)") == "[a study](studies/certificates.ipynb)"
    assert links(start, "[`tests/`](../tests)") == "`tests/`"
    assert (
        links(start, "[`settings.ini`](../settings.ini)")
        == '<a href="files/settings.ini"><code>settings.ini</code></a>'
    )
    assert links(rolling, "see `cryptolab.features.context`") == "see [`cryptolab.features.context`](context.ipynb)"
    shown = "of [`cryptolab.labels.walk`](../labels/walk.ipynb), not `cryptolab.features.rolling`"
    assert links(rolling, "of `cryptolab.labels.walk`, not `cryptolab.features.rolling`") == shown
    assert links(rolling, "```\n`cryptolab.features.context`\n```") == "```\n`cryptolab.features.context`\n```"
    drawn = "[![a page](images/report.png)](tutorials/05_reading_a_report.ipynb)"  # a picture that is a link
    assert links(start, drawn) == drawn and (tmp_path / "stage" / "images" / "report.png").is_file()
    with pytest.raises(build_docs.SiteError, match="leads nowhere"):
        links(start, "[gone](studies/nowhere.ipynb)")


def test_a_room_inside_a_room_is_a_chapter_of_it(tmp_path, monkeypatch):
    monkeypatch.setitem(build_docs.INNER, "features/sets", ("Sets", "The sets."))
    monkeypatch.setitem(build_docs.INNER, "features/sets/v3", ("V3", "Its columns."))
    modules = {
        "20_features/10_rolling": "features.rolling", "20_features/40_sets/40_v3/10_rows": "features.sets.v3.rows",
        "20_features/40_sets/40_v3/90_v3": "features.sets.v3.__init__", "70_systems/10_lines": "systems.lines",
    }
    for name, module in modules.items():
        path = tmp_path / "nbs" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": f"#| default_exp {module}"}]}))
    pages = build_docs.site_pages(tmp_path)[1:]
    names = [p.name for p in pages]
    assert names == ["features/rolling", "features/sets/v3/rows", "features/sets/v3/package", "systems/lines"]
    found = build_docs.chapters(pages)
    assert found == {
        "features": ["features/rolling", "features/sets"], "features/sets": ["features/sets/v3"],
        "features/sets/v3": ["features/sets/v3/rows", "features/sets/v3/package"], "systems": ["systems/lines"],
    }
    text = build_docs.chapter(
        "features", found["features"], {p.name: p for p in pages}, {name: (name, "a line") for name in names},
    )
    assert (
        "| [Sets](sets/index.md) | `cryptolab.features.sets` | The sets. |" in text
        and "\nrolling\nsets/index\n```" in text
    )
    links = build_docs.Links(pages, tmp_path / "stage", tmp_path / "files")
    assert links(
        pages[0], "`cryptolab.features.sets.v3.rows` `cryptolab.systems.lines` `cryptolab.features.sets.v3`"
    ) == (
        "[`cryptolab.features.sets.v3.rows`](sets/v3/rows.ipynb) [`cryptolab.systems.lines`](../systems/lines.ipynb) "
        "[`cryptolab.features.sets.v3`](sets/v3/package.ipynb)"
    )


def test_another_folder_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(build_docs.SiteError, match="not a site"):
        build_docs.build(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


# ---- the reference comes first, with an example cut from the lesson

CELLS = [  # as a notebook: (number, source, kind, outputs)
    (1, "import numpy as np", "example", []),
    (2, "_SMALL = 3\ndef twice(x):\n    return 2 * x", "export", []),
    (3, "def _inner(x):\n    return x", "export", []),
    (4, "assert twice(1) == 2", "example", []),
    (5, "table = {}\ntable['a'] = np.arange(3)\nother = 5\nmade = twice(table['a'])\nprint(made)", "example",
     [{"output_type": "stream", "name": "stdout", "text": "[0 2 4]\n"}]),
    (6, "_inner(twice(1))", "example", []),
    (7, "class Ready:\n    pass", "export", []),
    (8, "@patch\ndef go(self: Ready):\n    pass", "export", []),
]


def test_an_example_has_what_it_needs_and_no_more():
    code, cell, last = Lesson("some.place", ["twice"], [c[:3] for c in CELLS]).example("twice")
    assert code.splitlines() == [
        "import numpy as np", "from cryptolab.some.place import twice", "", "table = {}", "table['a'] = np.arange(3)",
        "made = twice(table['a'])", "print(made)",
    ] and (cell, last) == (5, True), "with what changes the table, without the other name, and not the bare assertion"
    assert Lesson("some.place", ["twice", "Ready"], [c[:3] for c in CELLS]).example("Ready") is None
    private = [c[:3] for c in CELLS if c[0] in (1, 2, 3, 6)]
    assert Lesson("some.place", ["twice"], private).example("twice") is None, "nobody else can call a private name"


def test_an_example_brings_the_file_that_it_reads():
    cells = [
        (1, "import tempfile\nfrom pathlib import Path", "example"),
        (2, "def count(path):\n    return len(path.read_text())", "export"),
        (3, "home = Path(tempfile.mkdtemp())\npath = home / 'a.txt'\npath.write_text('four')", "example"),
        (4, "count(path)", "example"),
    ]
    code, *_ = Lesson("some.place", ["count"], cells).example("count")
    assert "path.write_text('four')" in code


def test_examples_of_the_reference_run_by_themselves():
    found = []
    for name in ("features.rolling", "labels.targets", "evaluation.metrics", "validation.splitters"):
        page = next(p for p in build_docs.site_pages() if p.module == name)
        text = "\n".join(c["source"] for c in build_docs.page_notebook(page, lambda page, text: text)["cells"])
        found += re.findall(r"\*\*Example\*\*\n\n```python\n(.*?)\n```", text, re.S)
    assert len(found) >= 25
    for code in dict.fromkeys(found):
        exec(code, {})


def test_a_page_of_a_module_begins_with_its_reference():
    page = next(p for p in build_docs.site_pages() if p.name == "features/rolling")
    cells = build_docs.page_notebook(page, lambda page, text: text)["cells"]
    heads = [c["source"].split("\n")[0] for c in cells if c["source"].startswith("#") and c["cell_type"] == "markdown"]
    assert heads[:3] == ["# Rolling windows", "## Reference", "## Lesson"]
    text = "\n".join(c["source"] for c in cells if c["cell_type"] == "markdown")
    for number in re.findall(r'data-cell="cell-(\d+)"', text):
        assert any(f"at-{number}" in c["metadata"].get("tags", []) for c in cells), "the source is on the page"
    assert text.index("After this notebook") > text.index("## Lesson"), "the text below the title belongs to the lesson"


@pytest.mark.parametrize("source, plumbing", [
    ("def _one(): pass\n\ndef _two(): pass", True), ("import os\nfrom a import b", True), ("_LIMIT = 3", True),
    ("def _one(): pass\n\ndef two(): pass", False), ("LIMIT: int = 3", False), ("class Table: pass", False),
    ("@patch\ndef fit(self: V9): pass", False),
])
def test_what_the_search_leaves_out(source, plumbing):
    made = build_docs.page_cell({"cell_type": "code", "source": f"#| export\n{source}", "outputs": []}, str)
    assert ("plumbing" in made["metadata"]["tags"]) == plumbing
    shown = build_docs.page_cell({"cell_type": "code", "source": source, "outputs": []}, str)
    assert "plumbing" not in shown["metadata"]["tags"], "examples are found"


# ---- pages with words and numbers

def study(name):
    "A notebook of the studies."
    return json.loads((ROOT / "nbs" / "studies" / f"{name}.ipynb").read_text())


def test_every_word_of_the_glossary_has_a_module_which_has_it():
    pages = {f"cryptolab.{p.module}".removesuffix(".__init__") for p in build_docs.site_pages() if p.module}
    text = "\n".join("".join(c["source"]) for c in study("glossary")["cells"])
    found = re.findall(r"^- \*\*(.+?)\*\*: (.+) `(cryptolab[\w.]*)`$", text, re.M)
    words = [word for word, _, _ in found]
    assert len(found) == text.count("\n- ") >= 90 and words == list(dict.fromkeys(words))
    assert {word: where for word, _, where in found if where not in pages} == {}
    asked = "AUC QLIKE embargo purging HAR persistence reach proof walk-forward".split() + [
        "base rate", "economically nil", "conformal interval",
    ]
    assert set(asked) <= set(words)
    for word, meaning, _ in found:
        assert 1 <= len(re.findall(r"[.?](?= |$)", re.sub(r"\be\.g\.|et al\.", "", meaning))) <= 3, word
    from cryptolab.audit.leaks.audit import DETECTORS

    assert {word.removeprefix("leak: ") for word in words if word.startswith("leak: ")} == set(DETECTORS.index)


@pytest.mark.parametrize("name", ["benchmarks", "documents"])
def test_stored_tables_are_those_of_the_stored_results(name, monkeypatch):
    monkeypatch.chdir(ROOT / "nbs")
    names, compared = {}, 0
    for cell in study(name)["cells"]:
        if cell["cell_type"] == "code":
            source, outputs = "".join(cell["source"]), cell["outputs"]
            if not outputs:
                exec(source, names)
                continue
            tree = ast.parse(source)
            exec(compile(ast.Module(tree.body[:-1], []), name, "exec"), names)
            shown = eval(compile(ast.Expression(tree.body[-1].value), name, "eval"), names)
            assert shown.data == "".join(outputs[0]["data"]["text/markdown"]), f"store the outputs of {name}.ipynb anew"
            compared += 1
    assert compared >= 5


def test_every_stored_result_stands_on_the_page_of_benchmarks():
    text = json.dumps(study("benchmarks"))
    assert not [p.name for p in (ROOT / "benchmarks" / "results").glob("*.json") if p.name not in text]
    code = "\n".join("".join(c["source"]) for c in study("benchmarks")["cells"] if c["cell_type"] == "code")
    used = set(re.findall(r'(?:stored\(|results / )"(\w+\.json)"', code))
    assert used == {p.name for p in (ROOT / "benchmarks" / "results").glob("*.json")}


# ---- pages that are made from the program

def test_the_page_of_commands_has_every_command_and_option():
    import importlib
    import pkgutil

    import typer

    import cryptolab.cli as room

    text, found = site_commands.commands_page(), dict(site_commands.commands(site_commands.program()))
    assert len(found) > 25 and "cryptolab runs verify" in found
    for path, command in found.items():
        section = re.search(rf"^##+ {path}\n(.*?)(?=^##|\Z)", text, re.M | re.S)[1]
        for param in command.params:
            names = [param.opts[0]] if param.param_type_name == "option" else []
            assert all(f"`{name}`" in section or name == "--help" for name in names), (path, names)
            assert "---" not in (getattr(param, "help", "") or "") and "----------" not in section
    shown = {id(c.callback) for c in found.values()}
    for module in pkgutil.iter_modules(room.__path__):  # programs of their own, imported when they are called
        for app in vars(importlib.import_module(f"cryptolab.cli.{module.name}")).values():
            if isinstance(app, typer.Typer):
                names = [c.name or c.callback.__name__ for c in app.registered_commands if not c.hidden]
                assert all(any(path.split()[-1] == name for path in found) for name in names), (module.name, names)
    assert shown


def test_the_cards_name_commands_and_pages_that_exist():
    import cryptolab as cl

    pages, found = {p.name for p in build_docs.site_pages()}, dict(site_commands.commands(site_commands.program()))
    assert len(site_landing.CARDS) == 5
    for card in site_landing.CARDS:
        assert card.page in pages and len(card.text) < 130
        if name := re.match(r"cl\.(\w+)\(", card.command):
            assert callable(getattr(cl, name[1]))
            continue
        words = card.command.split()
        path = next(" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in found)
        known = {option for param in found[path].params for option in param.opts}
        assert not {word for word in words if word.startswith("--")} - known


def test_the_gallery_is_light_and_names_commands_that_exist():
    found = site_gallery.entries()
    assert len(found) >= 2
    known = {o for p in dict(site_commands.commands(site_commands.program()))["cryptolab run"].params for o in p.opts}
    for one in found:
        picture = site_gallery.STORED / f"{one['name']}.webp"
        assert picture.read_bytes()[8:12] == b"WEBP" and picture.stat().st_size <= make_gallery.LARGEST == 150_000
        assert all(one[key] for key in ("found", "trust", "trade", "candles", "last", "version"))
        words = one["command"].split()
        assert words[:2] == ["cryptolab", "run"] and "smoke" not in words
        assert {word for word in words if word.startswith("--")} <= known
    assert {p.stem for p in site_gallery.STORED.glob("*.webp")} == {one["name"] for one in found}


def test_the_gallery_opens_whole_reports_only_where_the_very_run_is(tmp_path):
    one = site_gallery.entries()[0]
    folder = tmp_path / "reports" / one["name"]
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<h1>Whole</h1>")
    shown = []
    for number, run in enumerate([None, "another", one["run"]]):
        if run:
            (folder / "run.json").write_text(json.dumps({"id": run}))
        files = tmp_path / f"files{number}"
        page = site_gallery.gallery_page(files, reports=tmp_path / "reports")
        assert one["command"] in page and (files / "gallery" / f"{one['name']}.webp").exists()
        shown.append(f'href="reports/{one["name"]}.html"' in page and (files / "reports").exists())
    assert shown == [False, False, True]
    assert site_gallery.gallery_page(tmp_path, stored=tmp_path / "nothing") == ""


def test_only_finished_reports_get_into_the_gallery(tmp_path):
    run = {"id": "1", "version": "0.1.0", "inputs": {
        "symbol": "A", "timeframe": "1h", "system": "v9", "profile": "quick", "source": "local", "limit": 5,
        "start": None, "end": "2025-01-01", "params": {"dropout": 0.2}, "data_dir": "/home/somebody",
    }}
    result = {"verdict": {"found": "f", "trust": "t", "trade": "n"}, "data": {"candles": 5, "last": "2025-01-01 00:00"}}
    assert make_gallery.facts(tmp_path) is None
    for name, content in (("run", run), ("result", result)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert make_gallery.facts(tmp_path) is None, "no page"
    (tmp_path / "report.html").write_text("")
    found = make_gallery.facts(tmp_path)
    assert found["command"] == (
        "cryptolab run A 1h --system v9 --source local --profile quick --limit 5 --end 2025-01-01 --set dropout=0.2 "
        "--data-dir path/to/candles"
    ) and "somebody" not in json.dumps(found)
    run["inputs"]["profile"] = "smoke"
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert make_gallery.facts(tmp_path) is None, "a smoke finds nothing and shows nothing"


# ---- the check of a built site finds what it is for

GOOD = "<h1 id='a'>A</h1><article><p>One two three four five six seven eight nine ten eleven twelve.</p></article>"


@pytest.mark.parametrize("added, words", [
    ("", None),
    ("<a href='b.html'>b</a>", "b.html does not exist"),
    ("<a href='#nowhere'>b</a>", "names a place that does not exist"),
    ("<a href='https://example.org/'>b</a><a href='#a'>a</a>", None),
    ("<script src='https://example.org/x.js'></script>", "from a network"),
    ("<link rel='stylesheet' href='//example.org/x.css'>", "from a network"),
    ("<img src='none.png'>", "none.png does not exist"),
    ("<h1>B</h1>", "2 titles"),
])
def test_the_check_finds(tmp_path, added, words):
    (tmp_path / "page.html").write_text(GOOD + added)
    problems = site_check.check_site(tmp_path)
    assert problems == [] if words is None else len(problems) == 1 and words in problems[0]


def test_the_check_finds_pages_without_prose(tmp_path):
    (tmp_path / "page.html").write_text(
        "<h1>A</h1><article><p>Nothing much.</p><pre>a b c d e f g h i j k l m n</pre></article>"
    )
    assert site_check.check_site(tmp_path) == ["page.html: a page without prose"]


def test_the_side_bar_marks_the_page_and_what_it_lies_in():
    tree = (
        '<li class="toctree-l1"><a class="reference internal" href="data/index.html">Data</a><input type="checkbox"/>'
        '<ul><li class="toctree-l2"><a class="reference internal" href="data/market.html">Market</a></li></ul></li>'
    )
    assert build_docs.navigation(tree, "data/market") == (
        '<li class="toctree-l1 current"><a class="reference internal" href="index.html">Data</a>'
        '<input checked="" type="checkbox"/><ul><li class="toctree-l2 current current-page">'
        '<a class="current reference internal" href="#">Market</a></li></ul></li>'
    )
    assert build_docs.navigation(tree, "index") == tree


# ---- the whole site

@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The site, built by the program as `make docs` does, from everything."
    for name in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(name, reason="the extra `docs` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        found = []
        patch.setattr(build_docs, "check_site", lambda html: found.append(site_check.check_site(html)) or found[-1])
        folder = build_docs.build(tmp_path_factory.mktemp("site") / "docs")
    assert found == [[]], "the program checks the whole site before it puts it in place"
    return folder


def opened(address, width=1280, flags=()):
    "The page as the browser made it, and what it wrote to its console."
    with tempfile.TemporaryDirectory() as profile:
        command = [BROWSER, *QUIET, *flags, f"--user-data-dir={profile}", f"--window-size={width},1000", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
def test_the_site_is_whole(site):
    names = {p.relative_to(site).with_suffix("").as_posix() for p in site.rglob("*.html")}
    pages = build_docs.site_pages()
    assert {p.name for p in pages} | {f"{folder}/index" for folder in build_docs.chapters(pages)} <= names
    assert sorted(p.name for p in site.parent.iterdir()) == ["docs"], "work folders were left"
    assert json.loads((site / "notebooks" / "features" / "rolling.ipynb").read_text())["nbformat"] == 4


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [1280, 500])
def test_charts_are_drawn_without_a_network(site, width):
    page, console = opened((site / "report" / "v9.html").as_uri(), width)
    charts = page.count('class="figure"')
    assert (
        charts >= 5
        and page.count('class="plot js-plotly-plot"') == charts
        and page.count('class="main-svg"') >= charts
        and console == []
    )


FRAMES = """<body><script>for (const page of %s) {
  const frame = document.createElement("iframe");
  frame.style = "width: 390px; height: 800px";
  frame.src = page;
  frame.onload = () => setTimeout(() => {
    const found = document.createElement("p");
    found.textContent = `${page} is ${frame.contentDocument.documentElement.scrollWidth} wide;`;
    document.body.append(found);
  }, 300);
  document.body.append(frame);
}</script>"""


@pytest.mark.slow
@needs_browser
def test_no_page_scrolls_sideways_on_a_phone(site, tmp_path):
    names = ["index", "commands", "gallery", "studies/benchmarks", "studies/documents", "studies/glossary",
             "evaluation/proof", "systems/v9/system", "tutorials/02_own_coin", "report/v9"]
    pages = [(site / f"{name}.html").as_uri() for name in names]
    (tmp_path / "frames.html").write_text(FRAMES % json.dumps(pages))
    page, _ = opened((tmp_path / "frames.html").as_uri(), flags=("--allow-file-access-from-files",))
    wide = dict(re.findall(r"/docs/(\S+)\.html is (\d+) wide;", page))
    assert set(wide) == set(names) and {name: width for name, width in wide.items() if int(width) > 390} == {}


@pytest.mark.slow
@needs_browser
def test_a_fold_of_the_reference_shows_the_source_below(site, tmp_path):
    opens = 'frame.contentDocument.querySelector("details.source").open = true; '
    script = FRAMES.replace("setTimeout(() => {\n", "setTimeout(() => {\n" + opens + "}, 100) && setTimeout(() => {\n")
    script = script.replace("scrollWidth} wide", 'querySelector("details.source .highlight").textContent.length} wide')
    (tmp_path / "frames.html").write_text(script % json.dumps([(site / "features" / "rolling.html").as_uri()]))
    page, _ = opened((tmp_path / "frames.html").as_uri(), flags=("--allow-file-access-from-files",))
    assert int(re.search(r"rolling\.html is (\d+) wide;", page)[1]) > 40


@pytest.mark.slow
@needs_browser
def test_search_works_from_the_file_system(site):
    page, console = opened((site / "search.html").as_uri() + "?q=embargo")
    assert "validation/splitters.html" in page and 'class="context"' in page and console == []
    page, _ = opened((site / "search.html").as_uri() + "?q=_wilder_start")
    index = (site / "searchindex.js").read_text()
    assert "_wilder" not in index and "ShuffledHalfDay" not in index and "shuffledhalfday" not in index
    page, _ = opened((site / "search.html").as_uri() + "?q=sample_market")
    assert "data/market.html#cryptolab.data.market.sample_market" in page


def test_every_promise_names_a_test():
    "The page of promises: each row names a test that exists."
    page = json.loads((ROOT / "nbs" / "tutorials" / "09_when_things_break.ipynb").read_text())
    text = "\n".join("".join(cell["source"]) for cell in page["cells"] if cell["cell_type"] == "markdown")
    rows = re.findall(r"^- \*\*.*", text, re.M)
    named = [re.search(r"Held by `(test_\w+)` in `(test_\w+\.py)`\.$", row) for row in rows]
    assert len(rows) > 30 and all(named)
    for found in named:
        assert f"def {found[1]}(" in (ROOT / "tests" / found[2]).read_text(), found[0]
