#!/usr/bin/env python3
"""Run a notebook's examples against the exported library: run_notebook.py NOTEBOOK …

Cells that are exported are not executed. The names they would define come from the exported module instead (private ones too),
so what is tested is what users import. Cells marked `#| eval: false` are skipped. The rest runs in a fresh IPython kernel, a
process of its own, in the notebook's folder.
"""
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from fastcore.nbio import read_nb
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

EXPORTS = {"export", "exporti", "exports", "exportd", "default_exp"}
LOAD = """import importlib as _importlib
for _name in {modules!r}:
    globals().update({{k: v for k, v in vars(_importlib.import_module(_name)).items() if not k.startswith("__")}})
"""


class ThisPython(AsyncKernelManager):
    "Starts the running interpreter; the name `python3` could be that of another one."

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=40"]
    kernel_spec = property(lambda self: KernelSpec(argv=self.argv, display_name="this Python", language="python"))


class NotebookError(AssertionError):
    "A cell that failed: names the notebook, the cell, its source and the error."


def plan(path: Path, package: str) -> tuple:  # names of modules, numbers of cells to run (from 0)
    "What a notebook exports to, and which of its cells are examples."
    modules, runnable = [], []
    for number, cell in enumerate(read_nb(path).cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        directives = cell.directives
        modules += [v.split()[0] for k, v in directives.items() if k in EXPORTS and v and v.split()]
        if not EXPORTS & set(directives) and str(directives.get("eval", "")).strip().lower() != "false":
            runnable.append(number)
    dotted = [f"{package}.{m}".removesuffix(".__init__") for m in dict.fromkeys(modules)]
    return dotted, runnable


def run_notebook(
    path: Path,  # the notebook
    package: str = "cryptolab",  # the library it exports to
    cwd: Path | None = None,  # working folder of the kernel; the notebook's own when None
    timeout: int = 900,  # seconds one cell may take
) -> int:  # number of cells run; raises NotebookError
    "Run the examples of one notebook in a fresh kernel."
    path = Path(path)
    modules, runnable = plan(path, package)
    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {"MPLBACKEND": "Agg", "IPYTHONDIR": home, "TF_CPP_MIN_LOG_LEVEL": "2", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        where = {"metadata": {"path": str(cwd or path.parent)}}
        client = NotebookClient(book, timeout=timeout, kernel_manager_class=ThisPython, kernel_name="python3", resources=where)
        with client.setup_kernel(env=env):
            load = nbformat.v4.new_code_cell(LOAD.format(modules=modules))
            _run_cell(client, load, 0, f"{path.name}: the exported library cannot be imported")
            for number in runnable:
                where = f"{path.name}, cell {number + 1} of {len(book.cells)}"
                _run_cell(client, book.cells[number], number, where)
    return len(runnable)


def _run_cell(client, cell, number, where):
    "Run one cell; its failure says where it is and shows its source."
    try:
        client.execute_cell(cell, number)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as e:
        error = re.sub(r"\x1b\[[0-9;]*m", "", str(e)).split("------------------\n")[-1].strip()  # without colours and the cell
        raise NotebookError(f"{where}\n\n{cell.source}\n\n{error}") from None


if __name__ == "__main__":
    for name in sys.argv[1:]:
        try:
            print(f"{name}: {run_notebook(Path(name))} cells ran")
        except NotebookError as e:
            sys.exit(str(e))
