#!/usr/bin/env python3
"""Run a notebook's examples as the tests do, against the exported library, and keep what they show:
store_outputs.py NOTEBOOK …

A failing example is named and leaves its notebook as it was. Outputs of cells that are not run stay.
"""
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import nbdev_clean
from run_notebook import plan

os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment
LOAD = """import importlib as _importlib
for _name in {modules!r}:
    globals().update({{k: v for k, v in vars(_importlib.import_module(_name)).items() if not k.startswith("__")}})
"""


def store(path: Path, package: str = "cryptolab") -> int:  # number of cells run
    "Execute the examples in a fresh kernel and write their outputs into the notebook."
    book = nbformat.read(path, as_version=4)
    modules, runnable = plan(path, package)
    numbers = [number for number, _ in runnable]
    client = NotebookClient(book, timeout=900, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    with client.setup_kernel():
        book.cells.append(nbformat.v4.new_code_cell(LOAD.format(modules=modules)))
        client.execute_cell(book.cells[-1], len(book.cells) - 1)
        book.cells.pop()
        for number in numbers:
            cell = client.execute_cell(book.cells[number - 1], number - 1)
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]  # notes of libraries to this machine
    nbformat.write(book, path)
    nbdev_clean(fname=str(path))
    return len(numbers)


if __name__ == "__main__":
    failed = []
    for name in sys.argv[1:]:
        try:
            print(f"{name}: outputs of {store(Path(name))} cells stored", flush=True)
        except CellExecutionError as e:
            failed.append(f"{name}: nothing stored\n{e}")
    sys.exit("\n\n".join(failed) or 0)
