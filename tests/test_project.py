"""The project itself: pins, environment, README, start-up time, and proof that the checks of `make test` can fail."""
import json
import ast
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import check_modules
import check_sync
import make_constraints
import make_readme
import make_venv
import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from run_notebook import NotebookError, run_notebook
from store_outputs import store

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(*texts):
    "Requirements by canonical name, the project's own extras left out."
    found = [Requirement(t) for t in texts if not t.startswith("cryptolab[")]
    return {canonicalize_name(r.name): r.specifier for r in found}


def pins(name):
    "The pins of a constraints file by canonical name; every line must be a comment or `name==version`."
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("# ")]
    assert not [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)]
    return {canonicalize_name(n): Version(v) for n, v in (line.split("==") for line in lines)}


# ---- pins and environments

@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_pins_are_exact_and_allowed(name):
    found = pins(name)
    # installed in their newest versions only
    extras = [e for extra, e in EXTRAS.items() if name == "constraints.txt" or extra not in ("peers", "docs")]
    for package, allowed in requirements(*PROJECT["dependencies"], *(t for e in extras for t in e)).items():
        assert package in found, f"{package} has no pin; run `make constraints`"
        assert found[package] in allowed, f"{package}: {found[package]} is not {allowed}; run `make constraints`"


def test_oldest_pins_are_the_lower_bounds():
    found = pins("constraints-oldest.txt")
    for package, lowest in make_constraints.lower_bounds(PROJECT).items():
        assert found[canonicalize_name(package)] == Version(lowest), f"{package}: run `make constraints`"


def test_the_server_of_the_tests_is_pinned_in_an_environment_of_its_own():
    found = pins("constraints-s3.txt")
    assert {"moto", "flask", "uv"} <= set(found) and found["python-dateutil"] < Version("3")
    recipe = re.search(r"^\.venv-s3/\.stamp: (.+)\n\t(.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert "constraints-s3.txt" in recipe[1] and "moto[server,s3]" in recipe[2]


def test_lower_bounds_leave_a_hosted_notebook_alone():
    "Installing must replace nothing of these versions, which Colab ships."
    # pip-freeze.txt of googlecolab/backend-info at commit 4647a1d, of the last days of February 2026: everything in it
    # that is required here. TensorFlow 2.19 and Keras 3.10 came in July 2025 (googlecolab/colabtools, issue 5489).
    shipped = {
        "cryptography": "43.0.3", "h5py": "3.15.1", "imbalanced-learn": "0.14.1", "ipykernel": "6.17.1",
        "keras": "3.10.0", "lazy-loader": "0.4", "lightgbm": "4.6.0", "matplotlib": "3.10.0", "nbclient": "0.10.4",
        "nbconvert": "7.17.0", "nbformat": "5.10.4", "numba": "0.60.0", "numpy": "2.0.2", "pandas": "2.2.2",
        "plotly": "5.24.1", "pyarrow": "18.1.0", "rich": "13.9.4", "scikit-learn": "1.6.1", "scipy": "1.16.3",
        "tensorflow": "2.19.0", "typer": "0.24.1", "xgboost": "3.2.0",
    }
    # not in that list, so installing adds them
    added = {
        "alembic", "arch", "catboost", "distributed", "flaml", "obstore", "onnx", "onnxruntime", "optuna",
        "papermill", "skops", "sqlalchemy", "ta",
    }
    allowed = requirements(*PROJECT["dependencies"])
    assert set(shipped) | added == set(allowed)
    assert not {n: v for n, v in shipped.items() if Version(v) not in allowed[n]}
    hub = {"huggingface-hub": "1.4.1", "datasets": "4.0.0"}  # detect-secrets is not in it either
    assert not {n: v for n, v in hub.items() if Version(v) not in requirements(*EXTRAS["hub"])[n]}


def test_no_keras_that_runs_code_of_a_model_file_is_allowed():
    "CVE-2025-1550: before 3.9.0 a model's settings could call any Python function, in safe mode too."
    for texts in (PROJECT["dependencies"], yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]):
        allowed = requirements(*(t for t in texts if isinstance(t, str) and t != "pip"))["keras"]
        assert Version("3.8.0") not in allowed and Version("3.9.0") in allowed
    assert pins("constraints-oldest.txt")["keras"] >= Version("3.9.0")


def test_environment_yml_names_what_pyproject_names():
    conda_names = {"ta-lib": "ta-lib", "python-build": "build"}
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = next(d["pip"] for d in listed if isinstance(d, dict))
    texts = [d for d in listed if isinstance(d, str) and d != "pip"] + [d for d in by_pip if d != "-e ."]
    found = {conda_names.get(n, n): s for n, s in requirements(*texts).items()}
    assert found.pop("python") == Requirement("python" + PROJECT["requires-python"]).specifier
    assert found == requirements(*PROJECT["dependencies"], *(t for e in EXTRAS.values() for t in e))


# ---- the packages the project was asked to stand on

ASKED = """jupyterlab papermill nbdev pandas numpy matplotlib plotly tensorflow xgboost datasets huggingface-hub ta
    scikit-learn""".split()
COMMANDS = {"jupyterlab": "jupyter lab", "nbdev": "nbdev-clean"}  # used by their commands rather than by import


def listed_packages():
    "The table of packages on the page for contributors: name -> cell that says where it is used."
    cells = json.loads((ROOT / "nbs" / "studies" / "contributing.ipynb").read_text())["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells)
    section = text.split("## Packages it stands on\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \|[^|]+\| (.+) \|$", section, re.M))


def imported_by(text):
    "Top-level packages that Python code imports, anywhere in it."
    nodes = list(ast.walk(ast.parse(text)))
    names = [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.split(".")[0] for name in names}


def code_at(where):
    "The Python code that a cell of the table names: a module of the library, or a notebook by a link."
    if link := re.search(r"\]\(([^)]+\.ipynb)\)", where):
        book = nbformat.read(ROOT / link[1], as_version=4)
        cells = [c.source for c in book.cells if c.cell_type == "code"]
        return "\n".join(
            line for text in cells for line in text.splitlines() if not line.lstrip().startswith(("%", "!"))
        )
    path = ROOT / (where.strip("`").replace(".", "/") + ".py")
    return (path if path.exists() else path.with_suffix("") / "__init__.py").read_text()


@pytest.mark.parametrize("package", ASKED)
def test_each_package_is_required_and_used_where_the_page_says(package):
    asked = canonicalize_name(package)
    texts = [*PROJECT["dependencies"], *(t for extra in EXTRAS.values() for t in extra)]
    assert asked in requirements(*texts), "pyproject.toml requires it nowhere"
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = [d for d in listed if isinstance(d, str)] + [p for d in listed if isinstance(d, dict) for p in d["pip"]]
    assert asked in requirements(*(d for d in conda if d != "-e .")), "environment.yml does not name it"
    where = listed_packages()[package]
    if target := re.fullmatch(r"`make ([a-z-]+)`", where):
        recipe = re.search(rf"^{target[1]}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
        assert COMMANDS[package] in recipe
    else:
        module = {"scikit-learn": "sklearn", "huggingface-hub": "huggingface_hub"}.get(package, package)
        assert module in imported_by(code_at(where)), f"{where} does not import {module}"


def test_the_page_lists_just_these_packages():
    assert sorted(listed_packages()) == sorted(ASKED)


# ---- what a user meets first

def test_readme_is_made_from_the_index_notebook():
    assert (ROOT / "README.md").read_text() == make_readme.readme(), "run `make readme`"


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", (ROOT / "README.md").read_text())
    assert not [link for link in links if not (ROOT / link).exists()]


def quickest(code, tries=3):
    "Shortest wall time of a Python process that runs `code`, less that of one that runs nothing."
    def once(text):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", text], check=True, cwd=ROOT / "tests")
        return time.perf_counter() - start
    return min(once(code) for _ in range(tries)) - min(once("pass") for _ in range(tries))


def test_import_is_instant_and_light():
    heavy = (
        "numpy pandas scipy sklearn matplotlib tensorflow keras xgboost lightgbm plotly numba papermill IPython".split()
    )
    code = f"import cryptolab, sys; sys.exit(','.join(m for m in {heavy} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert quickest("import cryptolab") < 0.3


def test_modules_import_without_the_heavy_libraries():
    "Numba is imported by the modules of compiled loops alone, which others import where they compute."
    heavy = (
        "tensorflow keras torch xgboost lightgbm plotly sklearn ccxt huggingface_hub arch statsmodels IPython".split()
    )
    every = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for p in (ROOT / "cryptolab").rglob("*.py")
    }
    light = {
        f"cryptolab.features.{name}"
        for name in ("registry", "known", "context", "certify.certificate", "stream", "store")
    }
    loops = {name for name in every if name.startswith(("cryptolab.features.", "cryptolab.backtest"))} - light | {
        "cryptolab.labels.walk",
        "cryptolab.reports.trade_plots",
    }
    code = f"""import importlib, sys
for names, heavy in (({sorted(every - loops)}, {[*heavy, "numba"]}), ({sorted(loops & every)}, {heavy})):
    for name in names:
        importlib.import_module(name)
        if found := [m for m in heavy if m in sys.modules]:
            sys.exit(f"importing {{name}} imports {{found}}; import them inside the functions that use them")"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_answers_at_once():
    command = [str(Path(sys.executable).with_name("cryptolab")), "--help"]
    assert "run" in subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def once():
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start
    assert min(once() for _ in range(3)) < 1.5


@pytest.mark.parametrize("given, expected", [
    ([], "cryptolab run"),
    (
        ["SYMBOL=ETHUSDT", "TIMEFRAME=15m", "SOURCE=hub", "PROFILE=full"],
        'cryptolab run ETHUSDT 15m --source "hub" --profile "full"',
    ),
    (["LIMIT=500", "SEED=3", "OUT=my reports", "DATA_DIR=candles"],
     'cryptolab run --data-dir "candles" --limit "500" --seed "3" --out "my reports"'),
])
def test_make_report_passes_only_what_is_given(given, expected):
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")} | {
        "OUT": "from-the-environment",
        "SEED": "9",
    }
    shown = subprocess.run(
        ["make", "-n", "report", *given], cwd=ROOT, env=env, capture_output=True, text=True, check=True,
    ).stdout
    assert shown.splitlines()[-1].strip().endswith(expected)


def test_an_interrupted_setup_starts_afresh(tmp_path, monkeypatch):
    calls = []

    def interrupted(*command):
        calls.append(command)
        if "venv" in command:
            (tmp_path / "env" / "bin").mkdir(parents=True)
            (tmp_path / "env" / "bin" / "python").touch()
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(make_venv, "run", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            make_venv.make_venv(tmp_path / "env", "constraints.txt", "dev")
        assert not (tmp_path / "env" / ".stamp").exists()
    assert sum("venv" in c for c in calls) == 2  # the second run did not trust what the first left behind
    monkeypatch.setattr(
        make_venv, "run",
        lambda *command: calls.append(command) or (
            "venv" in command
            and ((tmp_path / "env" / "bin").mkdir(parents=True), (tmp_path / "env" / "bin" / "python").touch())
        ),
    )
    make_venv.make_venv(tmp_path / "env", "constraints.txt", "dev")
    assert (tmp_path / "env" / ".stamp").exists()


def test_setup_without_uv_falls_back_to_pip(tmp_path, monkeypatch):
    calls = []

    def no_uv(*command):
        calls.append([str(c) for c in command])
        if command[-1] == "uv":
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(make_venv, "run", no_uv)
    make_venv.install(tmp_path / "bin" / "python", "constraints.txt", "dev")
    assert calls[-1][1:3] == ["-m", "pip"] and calls[-1][-2:] == ["-e", ".[dev]"]


@pytest.mark.parametrize("extras, compiled", [("dev,peers,docs", True), ("hub,exchange,lab", False)])
def test_packages_of_the_tests_are_compiled_once(tmp_path, monkeypatch, extras, compiled):
    calls = []
    monkeypatch.setattr(make_venv, "run", lambda *command: calls.append([str(c) for c in command]))
    make_venv.install(tmp_path / "bin" / "python", "constraints.txt", extras)
    assert ("--compile-bytecode" in calls[-1]) == compiled and calls[-1][-2:] == ["-e", f".[{extras}]"]


def mixed_cells(path):
    "Cells that import something and do something else too: the site's builder runs imports and nothing else."
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells, 1):
        if cell.cell_type != "code" or re.search(r"^#\s*\|\s*(export\w*\b|eval:\s*false)", cell.source, re.M):
            continue
        try:
            statements = ast.parse(re.sub(r"^[%!].*", "", cell.source, flags=re.M)).body
        except SyntaxError:
            continue
        imports = (ast.Import, ast.ImportFrom)
        if any(
            isinstance(n, imports) for s in statements for n in ast.walk(s)
        ) and not all(isinstance(s, imports) for s in statements):
            yield number


def test_imports_have_cells_of_their_own():
    notebooks = [p for p in (ROOT / "nbs").rglob("[0-9]*.ipynb") if "default_exp" in p.read_text()]
    assert len(notebooks) >= 100
    found = [f"{path.relative_to(ROOT)}: cell {number}" for path in sorted(notebooks) for number in mixed_cells(path)]
    assert not found, "imports mixed with other code (give them a cell of their own):\n" + "\n".join(found)


SILENT = re.compile(r"(test|assert|register)_|seed_everything$|cleanup$|close$|unlink$|use_template$")


def bare_examples(path):
    "Examples that end in a value whose picture, table or number is not stored: the site would show nothing."
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells, 1):
        hidden = re.search(r"^#\s*\|\s*(export\w*\b|default_exp|hide\b|eval:\s*false)", cell.source, re.M)
        if cell.cell_type != "code" or hidden or cell.outputs or cell.source.rstrip().endswith(";"):
            continue
        try:
            statements = ast.parse(re.sub(r"^[%!].*", "", cell.source, flags=re.M)).body
        except SyntaxError:
            continue
        if statements and isinstance(last := statements[-1], ast.Expr):
            name = ast.unparse(last.value.func).rsplit(".", 1)[-1] if isinstance(last.value, ast.Call) else ""
            if not SILENT.match(name):
                yield number


def test_an_example_that_ends_in_a_value_shows_it():
    notebooks = [p for p in (ROOT / "nbs").rglob("[0-9]*.ipynb") if "default_exp" in p.read_text()]
    found = [f"{path.relative_to(ROOT)}: cell {number}" for path in sorted(notebooks) for number in bare_examples(path)]
    assert not found, "outputs that are not stored (run the notebook in place):\n" + "\n".join(found)


# ---- the checks of `make test` find what they are for

def notebook(path, *cells):
    "Write a small notebook: text that begins with `# ` is markdown, everything else code."
    kinds = [nbformat.v4.new_markdown_cell if c.startswith("# ") else nbformat.v4.new_code_cell for c in cells]
    book = nbformat.v4.new_notebook(cells=[kind(c) for kind, c in zip(kinds, cells)])
    book.metadata["kernelspec"] = {"display_name": "python3", "language": "python", "name": "python3"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


LESSON = (
    "# A lesson", "#| default_exp maths", "#| export\ndef _half(x): return x / 2\ndef twice(x): return 2 * x",
    "%time answer = twice(_half(6))\nassert answer == 6\nanswer", "#| eval: false\nraise RuntimeError('not to be run')",
)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    "A library `tinylab` of one module, with the notebook that exports it."
    (tmp_path / "tinylab").mkdir()
    (tmp_path / "tinylab" / "__init__.py").touch()
    (tmp_path / "tinylab" / "maths.py").write_text("def _half(x): return x / 2\ndef twice(x): return 2 * x\n")
    notebook(tmp_path / "nbs" / "00_maths.ipynb", *LESSON)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_examples_run_and_eval_false_is_skipped(tiny):
    assert run_notebook(tiny / "nbs" / "00_maths.ipynb", "tinylab") == 1


def test_what_examples_show_is_stored(tiny):
    path = tiny / "nbs" / "00_maths.ipynb"
    sources = [c.source for c in nbformat.read(path, as_version=4).cells]
    assert store(path, "tinylab") == 1 and [c.source for c in nbformat.read(path, as_version=4).cells] == sources
    cells = nbformat.read(path, as_version=4).cells
    assert [c.outputs[-1]["data"]["text/plain"] for c in cells if c.get("outputs")] == ["6.0"]


def test_a_failing_cell_is_named_and_shown(tiny):
    book = notebook(tiny / "nbs" / "01_wrong.ipynb", *LESSON, "assert twice(2) == 5, 'two times two'")
    with pytest.raises(NotebookError, match=r"01_wrong.ipynb, cell 6 of 6\n\nassert twice\(2\) == 5") as e:
        run_notebook(book, "tinylab")
    assert "two times two" in str(e.value)


def test_the_exported_module_is_tested_not_the_notebook(tiny):
    (tiny / "tinylab" / "maths.py").write_text("def _half(x): return x / 2\ndef twice(x): return 3 * x\n")
    with pytest.raises(NotebookError, match="cell 4 of 5"):
        run_notebook(tiny / "nbs" / "00_maths.ipynb", "tinylab")


def test_a_cell_that_ends_the_process_or_takes_too_long_is_named(tiny):
    book = notebook(tiny / "nbs" / "02_dead.ipynb", *LESSON, "import os; os._exit(3)")
    with pytest.raises(NotebookError, match=r"(?s)02_dead.ipynb, cell 6 of 6.*_exit.*the process of the notebook died"):
        run_notebook(book, "tinylab")
    book = notebook(tiny / "nbs" / "03_slow.ipynb", *LESSON, "import time; time.sleep(60)")
    with pytest.raises(NotebookError, match=r"(?s)03_slow.ipynb, cell 6 of 6.*longer than 2 seconds"):
        run_notebook(book, "tinylab", timeout=2)


def test_a_name_that_is_not_exported_is_missed(tiny):
    (tiny / "tinylab" / "maths.py").write_text("def twice(x): return 2 * x\n")
    with pytest.raises(NotebookError, match="_half"):
        run_notebook(tiny / "nbs" / "00_maths.ipynb", "tinylab")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    "A small nbdev project in a git repository, in sync."
    top = tmp_path_factory.mktemp("checkout")
    text = (ROOT / "pyproject.toml").read_text()
    (top / "pyproject.toml").write_text(text)
    (top / "cryptolab").mkdir()
    (top / "cryptolab" / "__init__.py").write_text('__version__ = "0.1.0"\n')
    notebook(top / "nbs" / "00_maths.ipynb", *LESSON)
    bin = Path(sys.executable).parent
    for command in (["git", "init", "-q"], [sys.executable, ROOT / "tools" / "export.py"], [bin / "nbdev-clean"]):
        subprocess.run(command, cwd=top, check=True)
    return top


def test_sync_passes_and_changes_nothing(checkout):
    before = {p: p.read_bytes() for p in checkout.rglob("*") if p.is_file()}
    assert check_sync.check(checkout) == []
    assert {p: p.read_bytes() for p in checkout.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name, change, words", [
    ("cryptolab/maths.py", lambda t: t.replace("2 * x", "3 * x"), "differs"),
    ("cryptolab/maths.py", None, "missing"),
    ("cryptolab/stray.py", lambda t: "x = 1\n", "no notebook"),
    ("nbs/00_maths.ipynb", lambda t: t.replace('"execution_count": null', '"execution_count": 7'), "not clean"),
    ("nbs/00_maths.ipynb", lambda t: t.replace("2 * x", "4 * x"), "differs"),
])
def test_sync_finds(checkout, tmp_path, name, change, words):
    top = shutil.copytree(checkout, tmp_path / "copy")
    file = top / name
    if change:
        file.write_text(change(file.read_text() if file.exists() else ""))
    else:
        file.unlink()
    problems = check_sync.check(top)
    assert len(problems) == 1 and words in problems[0]


def test_a_module_needs_its_notebook(checkout, tmp_path):
    top = shutil.copytree(checkout, tmp_path / "copy")
    module = top / "cryptolab" / "maths.py"
    assert check_modules.problem(module, top) is None
    assert check_modules.problem(top / "cryptolab" / "_modidx.py", top) is None
    (top / "cryptolab" / "hand.py").write_text("x = 1\n")
    assert "by hand" in check_modules.problem(top / "cryptolab" / "hand.py", top)
    (top / "nbs" / "00_maths.ipynb").rename(top / "nbs" / "01_other.ipynb")
    assert "does not exist" in check_modules.problem(module, top)


def test_a_step_lets_bytecode_be_stored(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    asks = [sys.executable, "-c", "import sys; sys.exit(sys.dont_write_bytecode)"]
    assert subprocess.run(asks).returncode == 1
    assert subprocess.run([sys.executable, str(tmp_path / "tools" / "step.py"), "1/1 ask", *asks]).returncode == 0


def test_a_failing_step_is_loud(tmp_path):
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    step = [sys.executable, str(tmp_path / "tools" / "step.py")]
    subprocess.run([*step, "--start"], check=True)
    good = subprocess.run(
        [*step, "1/2 good", sys.executable, "-c", "print('===== 3 passed in 0.1s =====')"], capture_output=True,
        text=True,
    )
    bad = subprocess.run(
        [*step, "2/2 bad", sys.executable, "-c", "raise SystemExit(3)"], capture_output=True, text=True,
    )
    assert (good.returncode, bad.returncode) == (0, 3)
    assert "FAILED: 2/2 bad" in bad.stdout
    told = subprocess.run([*step, "--summary"], capture_output=True, text=True)
    assert told.returncode == 1 and "FAILED: 2/2 bad" in told.stdout
    assert told.stdout.splitlines()[-1] == "===== 3 passed in 0.1s ====="
    line = "9 modules in 2 rooms, 0 circles, 0 arrows to larger numbers"
    subprocess.run(
        [*step, "3/3 layout", sys.executable, "-c", f"print('looked'); print({line!r})"], check=True,
        capture_output=True,
    )
    assert subprocess.run([*step, "--summary"], capture_output=True, text=True).stdout.splitlines()[-1] == line


def test_two_steps_side_by_side_are_both_reported(tmp_path):
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    step = [sys.executable, str(tmp_path / "tools" / "step.py")]
    subprocess.run([*step, "--start"], check=True)
    wait = [sys.executable, "-c", "import time; time.sleep(1.5); print('done')"]
    both = [*step, "1/2 one", *wait, "++", "2/2 other", *wait[:2], wait[2] + "; raise SystemExit(4)"]
    begin = time.perf_counter()
    done = subprocess.run(both, capture_output=True, text=True)
    assert time.perf_counter() - begin < 2.8, "one after the other"
    assert done.returncode == 4 and done.stdout.count("\ndone\n") == 2 and "FAILED: 2/2 other" in done.stdout
    told = subprocess.run([*step, "--summary"], capture_output=True, text=True)
    assert told.returncode == 1 and "ok      1/2 one" in told.stdout and "FAILED  2/2 other" in told.stdout
