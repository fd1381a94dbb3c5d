#!/usr/bin/env python3
"""Write the library from the notebooks as `nbdev-export` does, but no line of `__all__` is longer than 120 characters:
nbdev counts from behind the name. `export_procs` in pyproject.toml names what is done to the cells before."""
import sys
from textwrap import TextWrapper

import nbdev.maker
from export_methods import ExportError
from nbdev.doclinks import nbdev_export


def wrapper(**options) -> TextWrapper:
    "nbdev's wrapper for the list of names, less the room for `__all__ = `."
    return TextWrapper(**{**options, "width": 120 - len("__all__ = ")})


if __name__ == "__main__":
    nbdev.maker.TextWrapper = wrapper
    try:
        nbdev_export()
    except ExportError as e:
        sys.exit(f"not exported: {e}")
