"""What `help()` says: every parameter of every public name has its comment, and methods go by their own name."""
import importlib
import inspect
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
    "Methods and properties of a class without an underscore, inherited ones of the library too: {name: function}."
    found = {}
    for base in reversed([b for b in cls.__mro__ if b.__module__.startswith("cryptolab")]):
        for name, value in vars(base).items():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            field = name in getattr(cls, "__dataclass_fields__", {})  # its default is a function
            if not name.startswith("_") and inspect.isfunction(function) and not field:
                found[name] = function
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
