"""The house: every notebook where its module is, modules that use only what is below them, and code keys that miss no
module."""
import json
import re
import shutil
import sys
from pathlib import Path

import check_layout
import pytest
from check_layout import House

import cryptolab
import cryptolab.audit.claims.claims as claims
import cryptolab.audit.controls as controls
import cryptolab.audit.leaks.audit as leakage
import cryptolab.audit.claims.lint as lint
import cryptolab.audit.claims.measurements as measurements
import cryptolab.audit.zoo.zoo as zoo
import cryptolab.features.store as store
import cryptolab.runs.claims as audit
from cryptolab.features.certify.certificate import certifiable_sets, certify
from cryptolab.features.registry import SET_MODULES, feature_set
from cryptolab.runs.plan import CODE
from cryptolab.runs.report import find_template
from cryptolab.systems.registry import SYSTEMS, system_class
from cryptolab.systems.artefacts import library_code

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
LIBRARY = Path(cryptolab.__file__).parent
IMPORTED = re.compile(r"^\s*from cryptolab\.([\w.]+) import (\([^)]*\)|[^\n]+)", re.M)


def name_of(module) -> str:
    "A module's name as `House` has it."
    return module.__name__.removeprefix("cryptolab.")


# ---- the name of the code: no module is missed, however deep

@pytest.fixture(scope="module")
def house():
    return House(ROOT)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    "The library's files in a folder of their own, which `library_code` reads."
    copy = shutil.copytree(LIBRARY, tmp_path / "cryptolab", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cryptolab, "__file__", str(copy / "__init__.py"))
    return copy


EMPTY = {name for name, module in House(ROOT).modules.items() if not module.names}  # rooms without a face


def unseen(code, modules, copy) -> list:
    "Modules whose edit leaves `code()` as it was."
    before, missed = code(), []
    for name in sorted(set(modules) - EMPTY):
        path = copy.joinpath(*name.split(".")).with_suffix(".py")
        text = path.read_bytes()
        path.write_bytes(text + b"\n# edited\n")
        missed += [name] if code() == before else []
        path.write_bytes(text)
    assert code() == before
    return missed


@pytest.fixture(scope="module")
def shaping(house) -> set:
    "Modules that a report notebook imports, and what these use."
    found = set()
    for system in SYSTEMS:
        for match in IMPORTED.finditer(check_layout.sources(find_template(system))):
            names = [name.split()[0] for name in match[2].strip("()").split(",") if name.strip()]
            # a module that is imported through the face of its package does not need the rest of the face
            found |= {house.module(f"{match[1]}.{name}") or house.module(match[1]) for name in names} - {None}
    assert len(found) >= 10
    return house.closure(found)


def test_an_edit_of_any_module_that_a_system_uses_changes_the_name_of_the_code(house, copied):
    rooms = ("systems.", "models.", "features.")  # sets of features are found by name, without an import
    used = house.closure(name for name in house.modules if name.startswith(rooms))
    assert len(used) >= 60
    assert unseen(library_code, used, copied) == []


def test_every_module_of_a_room_counts_at_any_depth(house, copied):
    deep = copied / "systems" / "new" / "inner"
    deep.mkdir(parents=True)
    before = library_code()
    (deep / "rows.py").write_text("x = 1\n")
    after = library_code()
    (deep / "__pycache__").mkdir()
    (deep / "__pycache__" / "left.py").write_text("x = 1\n")
    assert before != after == library_code()
    with pytest.raises(FileNotFoundError):
        library_code(("no_such_room",))


def test_a_report_is_made_again_after_an_edit_of_any_module_that_shapes_it(shaping, copied):
    assert unseen(lambda: library_code(CODE), shaping, copied) == []


def test_an_audit_of_the_claims_is_made_again_after_an_edit_of_any_module_that_measures(house, copied):
    # they shape what is said of the numbers, at once and each time
    words = {name_of(claims), name_of(lint), "config", "files", "faces"}
    room = name_of(measurements).rpartition(".")[0]
    measuring = {name for name in house.modules[name_of(audit)].uses if name.startswith(room)} - words
    assert len(measuring) >= 4
    assert unseen(audit.audit_key, house.closure(measuring) - words, copied) == []


def test_controls_are_run_again_after_an_edit_of_the_system_or_the_judge(house, copied):
    used = house.closure({name_of(controls), *(n for n in house.modules if n.startswith("systems."))})
    # a system's own statistics judge nothing
    rest = {"config", "files", "faces"} | {n for n in used if n.startswith("evaluation.")}
    system = system_class("v9")()
    assert unseen(lambda: controls.control_code(system), used - rest, copied) == []
    judges = [f"evaluation.{name}" for name in ("significance", "metrics")]
    assert (
        unseen(
            lambda: controls.control_code(controls.lightgbm_walk_forward),
            [name_of(controls), *judges, "labels.targets"],
            copied,
        )
        == []
    )


def test_stored_benchmarks_name_the_code_that_shapes_them(house, copied):
    import benchmarks.skill
    import benchmarks.zoo

    zoo_uses = house.closure({name_of(zoo), name_of(leakage)}) - {"config", "files", "faces"}
    assert unseen(lambda: library_code(benchmarks.zoo.ROOMS), zoo_uses, copied) == []
    system = house.closure({name_of(sys.modules[system_class("v9").__module__])})
    assert unseen(lambda: library_code(benchmarks.skill.ROOMS), system - {"files"}, copied) == []


def test_a_store_of_features_is_made_again_after_an_edit_of_any_module_of_features(house, copied):
    assert unseen(store.feature_code, [name for name in house.modules if name.startswith("features.")], copied) == []


# ---- names written as texts

def test_every_set_of_features_is_found_and_certifies():
    from cryptolab.data.market import sample_market

    assert set(certifiable_sets()) == set(SET_MODULES) and len(SET_MODULES) >= 7
    for name in SET_MODULES:
        found = feature_set(name)
        assert found.name == name and found.blocks
        columns = next(block for block in found.blocks if not block.needs).names[:2]
        table = certify(name, sample_market(n=1_500), columns=columns, cuts=1, seconds=0.1)
        assert sorted(table.index) == sorted(columns) and (table["verdict"] == "pass").all()


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_every_system_is_found_with_its_template(name):
    assert isinstance(system_class(name), type) and find_template(name).is_file()


# ---- what the check of the layout finds

def test_the_check_reads_the_whole_library(house):
    assert sum(m.notebook is not None for m in house.modules.values()) >= 140 and len(house.rooms) >= 9
    assert sum(len(m.uses) for m in house.modules.values()) >= 400
    assert "data.timegrid" in house.modules["data.candles"].uses and "config" in house.modules["data.readers"].uses
    assert "numpy" not in house.modules


TINY = {
    "10_data/10_rows": ("data.rows", "LIMIT = 3\ndef rows(): return _own()\ndef _own(): return LIMIT"),
    "10_data/90_data": ("data.__init__", "from cryptolab.data.rows import rows"),
    "20_models/10_tree": ("models.tree", "from ..data import rows\nfrom ..data.rows import LIMIT\nclass Tree: pass"),
    "20_models/20_deep/10_tree": (
        "models.deep.tree",
        "def f():\n    from cryptolab.models import tree\n    return tree.Tree\nWHERE = 'cryptolab.models.tree:Tree'",
    ),
    "20_models/30_forest": ("models.forest", "from .deep.tree import f"),
    "20_models/99_models": ("models.__init__", "from .forest import f"), "tutorials/01_first": ("", "1 + 1"),
    "index": ("", "See `cryptolab.models.deep.tree`"),
}


def tiny(folder, **changes):
    "Write the tiny house with some of its notebooks changed: {notebook: (module, text)}; None takes one away."
    for name, (module, text) in {**TINY, **{k: v for k, v in changes.items() if v}}.items():
        if name in changes and changes[name] is None:
            continue
        path = folder / "nbs" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        source = f"#| default_exp {module}\n{text}" if module else text
        path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": source}]}))
        if module:
            file = folder.joinpath("cryptolab", *module.split(".")).with_suffix(".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    for part in [folder / "cryptolab", *(p for p in (folder / "cryptolab").rglob("*") if p.is_dir())]:
        (part / "__init__.py").touch()
    return check_layout.check(folder)


def test_a_house_in_order_passes(tmp_path):
    assert tiny(tmp_path) == ([], "6 modules in 2 rooms, 0 circles, 0 arrows to larger numbers")


FAULTS = {
    "not its path": (
        {
            "20_models/10_tree": ("models.trees", "x = 1"), "20_models/20_deep/10_tree": ("models.deep.tree", "x = 1"),
            "20_models/30_forest": ("models.forest", "f = 1"),
        },
        ["10_tree.ipynb: exports `models.trees` and not `models.tree`"],
    ),
    "a folder without a number": ({"deep/10_x": ("deep.x", "x = 1")}, ["without a number"]),
    "nothing exported": ({"20_models/40_empty": ("", "x = 1")}, ["exports `nothing` and not `models.empty`"]),
    "a module in a lesson": ({"tutorials/01_first": ("data.lesson", "x = 1")}, ["this folder has no modules"]),
    "up to another room": (
        {"10_data/10_rows": ("data.rows", "LIMIT = 3\ndef rows():\n    from cryptolab.models.deep.tree import f")},
        ["10_rows.ipynb uses nbs/20_models/20_deep/10_tree.ipynb", "a circle", "a circle"],
    ),
    "up in the room": (
        {"20_models/05_low": ("models.low", "from .tree import Tree")},
        ["05_low.ipynb uses nbs/20_models/10_tree.ipynb"],
    ),
    "up for a type": (
        {
            "20_models/05_low": (
                "models.low",
                "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cryptolab.models import forest",
            )
        },
        ["uses nbs/20_models/30_forest.ipynb"],
    ),
    "up to a face": (
        {"20_models/05_low": ("models.low", "from cryptolab.models import f")}, ["uses nbs/20_models/99_models.ipynb"],
    ),
    "the same number": (
        {"20_models/30_other": ("models.other", "import cryptolab.models.forest")},
        ["30_other.ipynb uses nbs/20_models/30_forest.ipynb"],
    ),
    "methods that come late": (
        {"20_models/40_a": ("models.a", "class A: pass\ndef _f(self): pass\nA.f, A.g = _f, staticmethod(_f)")},
        ["a.py:3: `A.f = …`", "a.py:3: `A.g = …`"],
    ),
    "a call that nobody can read": (
        {
            "20_models/40_a": (
                "models.a",
                "class A:\n    def __init__(self, a, b, c, d, e, f, g=0): pass\n    def many(self, *args): pass\n"
                "A(1, 2, 3, 4, 5, 6, g=7).many(1, 2, 3, 4, 5, 6, 7)\nmax(1, 2, 3, 4, 5, 6, 7)\nA(1, 2, 3, 4, 5, 6, 7)",
            )
        },
        ["nbs/20_models/40_a.ipynb:7: `A` with 7 arguments by place"],
    ),
    "a circle": (
        {
            "20_models/40_a": ("models.a", "def f():\n    from cryptolab.models.b import g"),
            "20_models/41_b": ("models.b", "from .a import f\ng = 1"),
        },
        ["40_a.ipynb uses", "a circle: models.a → models.b → models.a"],
    ),
    "one name twice": (
        {"20_models/50_tree": ("models.tree", "class Tree: pass")},
        ["50_tree.ipynb: the folder has 10_tree.ipynb already", "10_tree.ipynb uses nbs/20_models/50_tree"],
    ),
    "a private name": (
        {"20_models/40_a": ("models.a", "from cryptolab.data.rows import _own")}, ["`data.rows._own` is private"],
    ),
    "a private name of a module": (
        {
            "20_models/40_a": (
                "models.a", "from cryptolab.data import rows as r, rows\nimport cryptolab.data.rows as q\nq._own()",
            )
        },
        ["`data.rows._own` is private"],
    ),
    "a private name by its whole path": (
        {"20_models/40_a": ("models.a", "import cryptolab.data.rows\ncryptolab.data.rows._own()")},
        ["`data.rows._own` is private"],
    ),
    "a module that imports from itself": (
        {"20_models/40_a": ("models.a", "from cryptolab.models.a import f")},
        ["`cryptolab.models.a.f` does not exist"],
    ),
    "a text that names no module": (
        {"20_models/40_a": ("models.a", "A = 'cryptolab.models.trees:Tree'")},
        ["`cryptolab.models.trees:Tree` names nothing"] * 2,
    ),
    "a text that names no class": (
        {"20_models/40_a": ("models.a", "A = 'cryptolab.models.tree:Bush'")},
        ["`cryptolab.models.tree:Bush` names nothing"] * 2,
    ),
    "prose": ({"index": ("", "See `cryptolab.models.gone`")}, ["index.ipynb: `cryptolab.models.gone` names nothing"]),
    "an import of nothing": (
        {"20_models/40_a": ("models.a", "from ..data.rows import gone")}, ["`cryptolab.data.rows.gone` does not exist"],
    ),
}


def test_tests_and_tools_use_public_names_too(tmp_path):
    for folder in ("tests", "benchmarks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test_rows.py").write_text("from cryptolab.data import rows\nrows._own()\n")
    problems, _ = tiny(tmp_path)
    words = "test_rows.py:2: `data.rows._own` is private to its module"
    assert problems == [f"{folder}/{words}" for folder in ("tests", "benchmarks")]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_finds(tmp_path, fault):
    changes, words = FAULTS[fault]
    problems, line = tiny(tmp_path, **changes)
    for word in words:
        assert any(word in problem for problem in problems), problems
    assert fault.startswith("up to another") or len(problems) == len(words), problems
    arrows, rounds = sum(" uses " in p for p in problems), sum(p.startswith("a circle") for p in problems)
    assert line.endswith(f"{rounds} circles, {arrows} arrows to larger numbers")


def test_the_check_ends_with_its_line_and_a_status(tmp_path):
    import subprocess

    tiny(tmp_path)
    command = [sys.executable, str(ROOT / "tools" / "check_layout.py"), str(tmp_path)]
    good = subprocess.run(command, capture_output=True, text=True)
    assert (good.returncode, good.stdout) == (0, "6 modules in 2 rooms, 0 circles, 0 arrows to larger numbers\n")
    tiny(tmp_path, **FAULTS["a circle"][0])
    bad = subprocess.run(command, capture_output=True, text=True)
    assert (
        bad.returncode == 1
        and bad.stdout.splitlines()[-1] == "8 modules in 2 rooms, 1 circles, 1 arrows to larger numbers"
    )
