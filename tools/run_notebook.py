#!/usr/bin/env python3
"""Run a notebook's examples against the exported library: run_notebook.py NOTEBOOK …

Cells that are exported are not executed. The names they would define come from the exported module instead (private
ones too), so what is tested is what users import. Cells marked `#| eval: false` are skipped. The rest runs in a fresh
IPython kernel, a process of its own, in the notebook's folder. On Linux `run_forked` forks that kernel from a server
that has imported the usual libraries, which saves a hundred notebooks their imports.
"""
import gc
import multiprocessing
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
    spare=None,  # forked process that becomes the kernel (`cryptolab.runs.kernel.SpareKernel`); None starts one
) -> int:  # number of cells run; raises NotebookError
    "Run the examples of one notebook in a fresh kernel."
    path = Path(path)
    modules, runnable = plan(path, package)
    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {
            "MPLBACKEND": "Agg", "IPYTHONDIR": home, "TF_CPP_MIN_LOG_LEVEL": "2", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        where = {"metadata": {"path": str(cwd or path.parent)}}
        manager = ThisPython
        if spare is not None:
            from cryptolab.runs.kernel import forked_kernel_class

            manager = forked_kernel_class(spare)(env, None)
        client = NotebookClient(
            book, timeout=timeout, kernel_manager_class=manager, kernel_name="python3", resources=where,
        )
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
        # without colours and the cell
        error = re.sub(r"\x1b\[[0-9;]*m", "", str(e)).split("------------------\n")[-1].strip()
        raise NotebookError(f"{where}\n\n{cell.source}\n\n{error}") from None


PRELOAD = [
    "nbclient", "ipykernel.kernelapp", "ipykernel.ipkernel", "numpy", "pandas", "scipy.stats", "numba",
    "sklearn.linear_model", "plotly.graph_objects", "fastcore.test", "cryptolab.data", "cryptolab.features",
    "cryptolab.labels", "cryptolab.validation", "cryptolab.runs.kernel", "run_notebook",
    # imported, not used, before the fork: a child finds them ready and starts its own threads
    "xgboost", "lightgbm", "arch", "tensorflow", "keras",
]


def _in_fork(answers, path, package, cwd, timeout):
    "The life of a forked process: a kernel forked before any thread exists, then the notebook."
    from cryptolab.runs.kernel import SpareKernel

    gc.freeze()  # what the server imported is never garbage, and looking through it would copy its pages
    spare = SpareKernel()
    try:
        answers.send((True, run_notebook(path, package, cwd, timeout, spare)))
    except NotebookError as e:
        answers.send((False, str(e)))
    except BaseException as e:
        answers.send((None, f"{type(e).__name__}: {e}"))
    finally:
        spare.kill()


def run_forked(
    path: Path,  # the notebook
    package: str = "cryptolab",  # the library it exports to
    cwd: Path | None = None,  # working folder of the kernel; the notebook's own when None
    timeout: int = 900,  # seconds one cell may take
) -> int:  # number of cells run; raises NotebookError
    "Run the examples of one notebook in a kernel that has the usual libraries; in a fresh one where there is no fork."
    if not sys.platform.startswith("linux"):
        return run_notebook(path, package, cwd, timeout)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_in_fork, args=(sending, path, package, cwd, timeout))
    child.start()
    sending.close()
    try:
        good, answer = receiving.recv()
    except EOFError:
        good, answer = None, "the process of the notebook died"
    child.join()
    if good is not True:
        raise NotebookError(answer if good is False else f"{Path(path).name}: {answer}")
    return answer


if __name__ == "__main__":
    for name in sys.argv[1:]:
        try:
            print(f"{name}: {run_notebook(Path(name))} cells ran")
        except NotebookError as e:
            sys.exit(str(e))
