#!/usr/bin/env python3
"""Write the library from the notebooks as `nbdev-export` does, with three changes that pyproject.toml names this module
for (`export_procs`): patched methods stand inside their class, comments beside parameters become docstrings, and no
line of `__all__` is longer than 120 characters, because nbdev counts from behind the name."""
import sys
from textwrap import TextWrapper

import nbdev.maker
from export_docstrings import Docstrings
from export_methods import ExportError, Methods
from nbdev.doclinks import nbdev_export

__all__ = ["Docstrings", "Methods"]


def wrapper(**options) -> TextWrapper:
    "nbdev's wrapper for the list of names, less the room for `__all__ = `."
    return TextWrapper(**{**options, "width": 120 - len("__all__ = ")})


nbdev.maker.TextWrapper = wrapper


if __name__ == "__main__":
    try:
        nbdev_export()
    except ExportError as e:
        sys.exit(f"not exported: {e}")
