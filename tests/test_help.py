"""What `help()` says: every parameter of every public name has its comment, and methods go by their own name."""
import importlib
import inspect
import pydoc
from pathlib import Path

import pytest
from check_layout import House
from fastcore.docscrape import NumpyDocString

ROOT = Path(__file__).parents[1]
MODULES = [f"cryptolab.{name}".removesuffix(".__init__") for name in House(ROOT).modules if name != "__init__"]


def explained(text: str | None) -> set:
    "Parameters of which a numpydoc docstring says something."
    entries = NumpyDocString(text or "")["Parameters"].values()
    return {entry.name.lstrip("*") for entry in entries if " ".join(entry.desc).strip()}


def missing(function, text: str | None) -> list:
    "Parameters without a comment; an option of the command line may have its help in its type."
    known = explained(text)
    return [
        name for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", "cls") and name not in known
        and not any(getattr(extra, "help", None) for extra in getattr(parameter.annotation, "__metadata__", ()))
    ]


def public_methods(cls) -> dict:
    "Methods and properties of a class without an underscore, with the class that has them: {name: (class, function)}."
    found = {}
    for base in reversed([b for b in cls.__mro__ if b.__module__.startswith("cryptolab")]):
        for name, value in vars(base).items():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            field = name in getattr(cls, "__dataclass_fields__", {})  # its default is a function
            if not name.startswith("_") and inspect.isfunction(function) and not field:
                found[name] = base, function
    return found


def has_constructor(cls) -> bool:
    "Whether the constructor is one of this library."
    home = next(base for base in cls.__mro__ if "__init__" in vars(base))
    return home.__module__.startswith("cryptolab")


def public_names() -> dict:
    "Functions and classes in `__all__` of the module that defines them: {dotted name: object}."
    found = {}
    for module in MODULES:
        space = importlib.import_module(module)
        for name in getattr(space, "__all__", []):
            value = getattr(space, name)
            if getattr(value, "__module__", None) == module and (callable(value) or inspect.isclass(value)):
                if inspect.isclass(value) or inspect.isfunction(getattr(value, "py_func", value)):
                    found[f"{module}.{name}"] = value
    return found


@pytest.fixture(scope="module")
def names():
    found = public_names()
    assert len(found) >= 700 and sum(inspect.isclass(value) for value in found.values()) >= 50
    return found


def test_every_parameter_of_every_public_name_has_its_comment(names):
    problems = []
    for name, value in names.items():
        if not inspect.isclass(value):
            problems += [f"{name}: {p}" for p in missing(value, inspect.getdoc(value))]
        elif has_constructor(value):  # `help` shows the docstrings of both
            texts = (inspect.getdoc(value), inspect.getdoc(value.__init__))
            unsaid = set.intersection(*(set(missing(value, text)) for text in texts))
            problems += [f"{name}: {p}" for p in sorted(unsaid)]
        if inspect.isclass(value):
            for method in public_methods(value):
                found = getattr(value, method)
                if not isinstance(found, property):
                    problems += [f"{name}.{method}: {p}" for p in missing(found, inspect.getdoc(found))]
    assert not problems, f"{len(problems)} parameters without a comment:\n" + "\n".join(problems)


def test_methods_go_by_their_own_name(names):
    problems = []
    for cls in filter(inspect.isclass, names.values()):
        for name, (base, function) in public_methods(cls).items():
            code = inspect.unwrap(function).__code__
            if function.__qualname__ != f"{base.__name__}.{name}" or code.co_qualname != function.__qualname__:
                problems.append(f"{base.__module__}.{base.__name__}.{name}: {code.co_qualname}")
    assert not problems, "methods that a traceback calls something else:\n" + "\n".join(sorted(set(problems)))


def test_help_shows_the_comments():
    from cryptolab.config import DataError
    from cryptolab.validation.splitters import CombinatorialPurgedKFold, WalkForward

    shown = pydoc.plain(pydoc.render_doc(CombinatorialPurgedKFold.paths))
    assert "paths(self, predictions) -> pandas" in shown and "one array per fold in the order of `split`" in shown
    shown = pydoc.plain(pydoc.render_doc(WalkForward))
    assert "True learns from everything before the test" in shown and "How many folds `split` yields." in shown
    assert "what the reader can do about it" in pydoc.plain(pydoc.render_doc(DataError)), "inherited constructors too"


def test_a_missing_comment_is_found():
    def f(a, b=1, *rest, c: int = 2, **more):
        """F.

        Parameters
        ----------
        a
            said
        b : default 1

        *rest
            said too
        """

    class A:
        """A.

        Parameters
        ----------
        x
            said
        """

        def __init__(self, x, y):
            pass

        @property
        def _p(self):
            pass

    assert missing(f, inspect.getdoc(f)) == ["b", "c", "more"] and missing(A, inspect.getdoc(A)) == ["y"]
    assert missing(f, None) == ["a", "b", "rest", "c", "more"] and public_methods(A) == {}
