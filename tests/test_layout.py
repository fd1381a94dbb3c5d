"""The house: every notebook where its module is, modules that use only what is below them, and code keys that miss no module."""
import json
import re
import shutil
import sys
from pathlib import Path

import check_layout
import pytest
from check_layout import House

import cryptolab
import cryptolab.evaluation.claims as claims
import cryptolab.evaluation.controls as controls
import cryptolab.evaluation.leakage as leakage
import cryptolab.evaluation.lint as lint
import cryptolab.evaluation.measurements as measurements
import cryptolab.evaluation.zoo as zoo
import cryptolab.features.store as store
import cryptolab.reports.audit as audit
from cryptolab.features.certificate import certifiable_sets, certify
from cryptolab.features.registry import _WHERE, feature_set
from cryptolab.reports.plan import CODE
from cryptolab.reports.run import SYSTEMS, find_template, system_class
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
            inner = [house.module(f"{match[1]}.{name.split()[0]}") for name in match[2].strip("()").split(",") if name.strip()]
            found |= {name for name in [*inner, house.module(match[1])] if name}
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
    words = {name_of(claims), name_of(lint), "config", "files"}  # they shape what is said of the numbers, at once and each time
    room = name_of(measurements).rpartition(".")[0]
    measuring = {name for name in house.modules[name_of(audit)].uses if name.startswith(room)} - words
    assert len(measuring) >= 4
    assert unseen(audit.audit_key, house.closure(measuring) - words, copied) == []


def test_controls_are_run_again_after_an_edit_of_the_system_or_the_judge(house, copied):
    used = house.closure({name_of(controls), *(n for n in house.modules if n.startswith("systems."))})
    rest = {"config", "files"} | {n for n in used if n.startswith("evaluation.")}  # a system's own statistics judge nothing
    system = system_class("v9")()
    assert unseen(lambda: controls.control_code(system), used - rest, copied) == []
    judges = [f"evaluation.{name}" for name in ("significance", "metrics")]
    assert unseen(lambda: controls.control_code(controls.lightgbm_walk_forward), [name_of(controls), *judges, "labels.targets"], copied) == []


def test_stored_benchmarks_name_the_code_that_shapes_them(house, copied):
    import benchmarks.skill
    import benchmarks.zoo

    zoo_uses = house.closure({name_of(zoo), name_of(leakage)}) - {"config", "files"}
    assert unseen(lambda: library_code(benchmarks.zoo.ROOMS), zoo_uses, copied) == []
    system = house.closure({name_of(sys.modules[system_class("v9").__module__])})
    assert unseen(lambda: library_code(benchmarks.skill.ROOMS), system - {"files"}, copied) == []


def test_a_store_of_features_is_made_again_after_an_edit_of_any_module_of_features(house, copied):
    assert unseen(store._code, [name for name in house.modules if name.startswith("features.")], copied) == []


# ---- names written as texts

def test_every_set_of_features_is_found_and_certifies():
    from cryptolab.data.market import sample_market

    assert set(certifiable_sets()) == set(_WHERE) and len(_WHERE) >= 7
    for name in _WHERE:
        found = feature_set(name)
        assert found.name == name and found.blocks
        columns = next(block for block in found.blocks if not block.needs).names[:2]
        table = certify(name, sample_market(n=1_500), columns=columns, cuts=1, seconds=0.1)
        assert sorted(table.index) == sorted(columns) and (table["verdict"] == "pass").all()


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_every_system_is_found_with_its_template(name):
    assert isinstance(system_class(name), type) and find_template(name).is_file()
