"""What the export does to the cells of a notebook: methods go into their class, comments become docstrings."""
import ast
import importlib.util
import inspect
import json
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from export_docstrings import documented, split_raises
from export_methods import ExportError, move_methods
from fastcore.basics import patch
from fastcore.nbio import dict2nb, mk_cell

ROOT = Path(__file__).parents[1]
LESSON = [
    "#| default_exp shelves",
    "from fastcore.basics import patch",
    '''#| export
from dataclasses import dataclass

LIMIT = 3


class Shelf:
    "A shelf of books."

    # how long
    def __init__(
        self,
        width: int = 80,  # centimetres
        *names: str,  # what stands on it
    ):
        self.width, self.names = width, list(names)


@dataclass
class Book:
    "A book."

    title: str  # on its back
    # one line above:
    # the other line
    pages: int = 100''',
    '''#| export
class Label:
    "A piece of paper."


@patch
def put(
    self: Shelf,
    name: str,  # a "title", C:\\\\books or r\'\'\'raw\'\'\'
    # a comment above its parameter
    count=LIMIT,
    **more: "Label | None",  # labels by name
) -> Shelf:  # itself; raises KeyError for "no" name, ValueError where it is full
    "Put a book on the shelf."
    text = f"""
{name}
    four blanks, {count}
"""
    self.names.append(_plain(text))
    return self


# the words
# of a label
@patch(as_prop=True)
def label(self: Shelf) -> Label:  # a new one
    return Label()


def _plain(text):
    "Without blanks around it."
    if not text.strip():
        raise ValueError("nothing")
    return text


@patch(cls_method=True)
def made(
    cls: Shelf,
    title: str,  # of its only book
) -> Shelf:  # a shelf with one book
    "A shelf for one book."
    return cls(30, title)''',
    '''#| export
@patch(set_prop=True)
def label(self: Shelf, value):
    self.names[-1] = value


@patch_to(Shelf, static_method=True)
def least(
    *widths: int,  # centimetres
) -> int:  # the smallest
    "The narrowest."
    return min(widths)


@patch
def _hidden(self: Shelf, x):  # stays
    return x''',
    "Shelf.made('A').put('B')",
]


def cells_of(*sources):
    "Exported cells as nbdev hands them to a processor: without their directives."
    nb = dict2nb({"cells": [mk_cell(s) for s in sources], "metadata": {}})
    for cell in nb.cells:
        cell.directives_ = cell.directives
        cell.remove_directives()
    return [cell for cell in nb.cells if "export" in cell.directives_]


def exported(*sources) -> str:
    "The text of the module that these cells become."
    cells = cells_of(*sources)
    move_methods(cells, "00_shelves.ipynb")
    return "\n\n".join(documented(cell.source) for cell in cells if cell.source.strip()) + "\n"


@pytest.fixture(scope="module")
def shelves(tmp_path_factory):
    "The exported lesson as a module."
    path = tmp_path_factory.mktemp("library") / "shelves.py"
    path.write_text(exported(*LESSON))
    spec = importlib.util.spec_from_file_location("shelves", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["shelves"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["shelves"]


# ---- methods

def test_methods_stand_in_their_class_in_order_and_helpers_outside(shelves):
    names = [name for name in vars(shelves.Shelf) if name in ("put", "label", "made", "least", "_hidden", "__init__")]
    assert names == ["__init__", "put", "label", "made", "least", "_hidden"]
    assert shelves.Shelf.put.__qualname__ == "Shelf.put" and shelves.Shelf.put.__code__.co_qualname == "Shelf.put"
    assert not hasattr(shelves, "put") and not hasattr(shelves, "patch") and callable(shelves._plain)
    source = Path(shelves.__file__).read_text()
    assert "patch" not in source and source.count("    # the words\n    # of a label\n    @property\n") == 1
    assert list(inspect.signature(shelves.Shelf.put).parameters) == ["self", "name", "count", "more"]
    assert inspect.getsource(shelves.Shelf.made).startswith("    @classmethod\n    def made(cls, title: str)")


def test_they_do_what_they_did_in_the_notebook(shelves):
    shelf = shelves.Shelf.made("A").put("B")
    assert shelf.names == ["A", "\nB\n    four blanks, 3\n"], "the inside of a text is not moved"
    assert isinstance(shelf.label, shelves.Label) and shelves.Shelf.least(3, 2) == 2
    shelf.label = "C"
    assert shelf.names[-1] == "C" and shelf._hidden(1) == 1


def test_a_traceback_names_the_method(shelves, monkeypatch):
    monkeypatch.setattr(shelves, "_plain", lambda text: 1 / 0)
    with pytest.raises(ZeroDivisionError) as e:
        shelves.Shelf().put("B")
    frame = traceback.extract_tb(e.value.__traceback__)[1]
    assert frame.name == "put" and frame.line == "self.names.append(_plain(text))"


def test_annotations_that_name_later_things_are_quoted(shelves):
    assert inspect.signature(shelves.Shelf.put).return_annotation == "Shelf"
    assert shelves.Shelf.label.fget.__annotations__ == {"return": "Label"}, "Label is defined after Shelf"
    assert shelves.Shelf.put.__annotations__["name"] is str


CLASS = '#| export\nclass A:\n    "An A."\n\n    x: int = 1\n\n    def f(self): return 1'


@pytest.mark.parametrize("cell, words", [
    ("@patch\ndef g(self: B): pass", "class `B` is not defined in an earlier cell"),
    ("class B: pass\n\n\n@patch\ndef g(self: B): pass", "class `B` is not defined in an earlier cell"),
    ("@patch\ndef f(self: A): pass", "class `A` has a `f` already"),
    ("@patch\ndef x(self: A): pass", "class `A` has a `x` already"),
    ("@patch\ndef g(self): pass", "names no class"),
    ("@patch\ndef g(self: A | B): pass", "names no class"),
    ("@patch(static_method=True)\ndef g(path: str | None) -> A: pass", "@patch_to(Class, static_method=True)"),
    ("@patch(nm='h')\ndef g(self: A): pass", "at most one of as_prop=True"),
    ("@other\n@patch\ndef g(self: A): pass", "must be the first decorator"),
    ("LATE = 1\n\n\n@patch\ndef g(self: A, x=LATE): pass", "`LATE` is not known where the class is defined"),
    ("@patch\ndef g(self: A): return self.__x", "`__x` would get another name"),
])
def test_what_cannot_be_moved_is_told(cell, words):
    with pytest.raises(ExportError) as e:
        exported(CLASS, f"#| export\n{cell}")
    assert words in str(e.value) and str(e.value).startswith("00_shelves.ipynb, cell ")


@pytest.mark.parametrize("head", ["class A: pass", 'class A: "An A."', "class A:\n    pass\n    # the end"])
def test_any_class_can_grow(head):
    space = {}
    exec(exported(f"#| export\n{head}", "#| export\n@patch\ndef g(self: A): return 2"), space)
    assert space["A"]().g() == 2


def test_patched_cells_work_in_the_notebook_too():
    space = {"patch": patch}
    for cell in cells_of(*LESSON):
        if "patch_to" not in cell.source:
            exec(cell.source, space)
    assert space["Shelf"].made("A").put("B").names[0] == "A"


# ---- docstrings

def test_comments_become_sections(shelves):
    assert inspect.getdoc(shelves.Shelf) == """A shelf of books.

Parameters
----------
width : int, default 80
    centimetres
*names : str
    what stands on it"""
    assert inspect.getdoc(shelves.Book) == """A book.

Parameters
----------
title : str
    on its back
pages : int, default 100
    one line above: the other line"""
    assert inspect.getdoc(shelves.Shelf.put) == """Put a book on the shelf.

Parameters
----------
name : str
    a "title", C:\\\\books or r'''raw'''
count : default LIMIT
    a comment above its parameter
**more : Label | None
    labels by name

Returns
-------
Shelf
    itself

Raises
------
KeyError
    for "no" name
ValueError
    where it is full"""
    assert inspect.getdoc(shelves.Shelf.label) == "Returns\n-------\nLabel\n    a new one"
    assert shelves.Shelf._hidden.__doc__ is None and shelves.Shelf.__init__.__doc__ is None


def test_signatures_lose_their_comments_and_nothing_else(shelves):
    source = Path(shelves.__file__).read_text()
    head = '    def put(self, name: str, count=LIMIT, **more: "Label | None") -> "Shelf":\n'
    assert head in source and '    def __init__(self, width: int = 80, *names: str):\n' in source
    assert "    # how long\n    def __init__" in source and "def _hidden(self, x):  # stays" in source
    assert "    title: str\n    pages: int = 100\n" in source


@pytest.mark.parametrize("comment, expected", [
    ("rows; raises DataError for none", ("rows", [("DataError", "for none")])),
    ("raises DataError", ("", [("DataError", "")])),
    ("rows; raises A1Error or BError", ("rows", [("A1Error", ""), ("BError", "")])),
    ("a; b; SettingsError: a secret, and DataError", ("a; b", [("SettingsError", "a secret"), ("DataError", "")])),
    ("rows; raises a DataError that names\\all", ("rows", [("DataError", "that names\\all")])),
    *((text, (text, [])) for text in (
        "never raises an Error", "rows; raises one DataError", "rows; raises DataError, inside `x` a ModelError",
        "rows; raises DataError for text; others pass", "a context that raises DataError",
    )),
])
def test_errors_are_told_apart_where_that_is_clean(comment, expected):
    assert split_raises(comment) == expected


ODD = {
    "quotes and backslashes": (
        'def f(\n    a,  # it """ends""" here"\n    b=r"\\d",  # a \\d, "\n):  # \\\n    "What\\\\it is."\n'
        "    return a",
        'What\\it is.\n\nParameters\n----------\na\n    it """ends""" here"\nb : default r"\\d"\n    a \\d, "\n\n'
        "Returns\n-------\n\\",
    ),
    "a comment for programs stays": (
        "def f(\n    a=[],  # noqa: B006\n    b=1,  # a number\n):\n    'F.'\n    return a, b",
        "F.\n\nParameters\n----------\na : default []\nb : default 1\n    a number",
    ),
    "a long default, its comma on a line of its own": (
        'def f(\n    a=(\n        "one",\n        "two",\n    ),  # two words\n    *,  # by name only\n'
        "    b: dict = {  # empty\n    },\n):\n    'F.'\n    return a",
        "F.\n\nParameters\n----------\na : default ('one', 'two')\n    two words\nb : dict, default {}\n    empty",
    ),
    "no docstring": ("def f(\n    a,  # x\n):\n    return a", "Parameters\n----------\na\n    x"),
    "what is yielded": ("def f(a):  # yields rows\n    'F.'\n    yield a", "F.\n\nYields\n------\nrows"),
    "nothing to say": ("def f(a) -> None:  # nothing\n    'F.'\n    return a", "F."),
    "two lines behind the signature": (
        "def f(\n    a,\n) -> list:  # rows,\n    # and more\n    'F.'\n    return a",
        "F.\n\nReturns\n-------\nlist\n    rows, and more",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_comments(name):
    source, expected = ODD[name]
    space, made = {}, documented(source)
    exec(made, space)
    assert inspect.getdoc(space["f"]) == expected
    plain = [ast.dump(ast.parse(text).body[0].args) for text in (source, made)]
    assert plain[0] == plain[1] and ("# noqa: B006" in made) == ("noqa" in source)


def test_long_comments_are_wrapped_and_the_second_pass_changes_nothing():
    made = documented(f"class A:\n    def f(\n        self,\n        a,  # {'word ' * 60}\n    ):\n        'F.'\n")
    assert max(map(len, made.splitlines())) <= 120 and made.count("word") == 60
    assert documented(made) == made
    once = exported(*LESSON)
    assert once == exported(*LESSON) and documented(once) == once


# ---- the program

def test_the_program_exports_twice_the_same_and_stops_at_a_fault(tmp_path):
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "cryptolab").mkdir()
    (tmp_path / "cryptolab" / "__init__.py").write_text('__version__ = "1"\n')
    empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**empty, "source": source, "id": f"0000000{n}"} for n, source in enumerate(LESSON)]
    book = tmp_path / "nbs" / "00_shelves.ipynb"
    book.parent.mkdir()

    def run(cells):
        book.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
        command = [sys.executable, str(ROOT / "tools" / "export.py")]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    texts = []
    for _ in range(2):
        assert run(cells).returncode == 0
        texts.append([(tmp_path / "cryptolab" / name).read_text() for name in ("shelves.py", "_modidx.py")])
    assert texts[0] == texts[1]
    module, index = texts[0]
    assert "__all__ = ['LIMIT', 'Shelf', 'Book', 'Label']" in module and "def put(self, name: str" in module
    assert "'cryptolab.shelves.Shelf.put'" in index and "'cryptolab.shelves.put'" not in index
    done = run([*cells, {**cells[3], "id": "0000000a"}])
    assert done.returncode == 1
    assert "not exported: 00_shelves.ipynb, cell 0000000a, `put`: class `Shelf` has a `put` already" in done.stderr
