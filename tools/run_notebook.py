#!/usr/bin/env python3
"""Run a notebook's examples against the exported library: run_notebook.py NOTEBOOK …

Cells that are exported are not executed. The names they would define come from the exported module instead (private
ones too), so what is tested is what users import. Cells marked `#| eval: false` are skipped. The rest runs in an
IPython shell in a process of its own, in the notebook's folder. On Linux that process is forked from a server that has
imported the usual libraries, which saves two hundred notebooks their imports; no Jupyter kernel has to be started.
"""
import gc
import importlib
import multiprocessing
import os
import re
import sys
import traceback
from pathlib import Path

from fastcore.nbio import read_nb

EXPORTS = {"export", "exporti", "exports", "exportd", "default_exp"}
PRELOAD = [
    "IPython.core.interactiveshell", "numpy", "pandas", "scipy.stats", "numba", "sklearn.linear_model",
    "plotly.graph_objects", "matplotlib.pyplot", "fastcore.test", "cryptolab.data", "cryptolab.features",
    "cryptolab.labels", "cryptolab.validation", "run_notebook",
    # imported, not used, before the fork: a child finds them ready and starts its own threads
    "xgboost", "lightgbm", "arch", "tensorflow", "keras",
]


class NotebookError(AssertionError):
    "A cell that failed: names the notebook, the cell, its source and the error."


def plan(path: Path, package: str) -> tuple:  # names of modules, cells to run: (number from 1, source)
    "What a notebook exports to, and which of its cells are examples."
    cells, modules, runnable = read_nb(path).cells, [], []
    for number, cell in enumerate(cells, 1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        directives = cell.directives
        modules += [v.split()[0] for k, v in directives.items() if k in EXPORTS and v and v.split()]
        if not EXPORTS & set(directives) and str(directives.get("eval", "")).strip().lower() != "false":
            runnable.append((number, cell.source))
    dotted = [f"{package}.{m}".removesuffix(".__init__") for m in dict.fromkeys(modules)]
    return dotted, runnable


def _shell(modules):
    "An IPython shell that holds the names of the modules, as a fresh notebook would after its exported cells."
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        "Errors are returned, not printed; there is no window to draw in."

        def showtraceback(self, *args, **kw):
            pass

        def enable_gui(self, gui=None):
            pass

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell = Shell.instance(config=config)
    shell.display_formatter.active = True  # what a notebook would show is made, then thrown away
    for name in modules:
        names = vars(importlib.import_module(name))
        shell.user_ns.update({k: v for k, v in names.items() if not k.startswith("__")})
    return shell


def _error(cell, error):
    "The error as the notebook would show it: the frames of the cell and below, without those of the shell."
    frames = traceback.extract_tb(error.__traceback__)
    first = next((i for i, f in enumerate(frames) if re.search(r"ipykernel_|<ipython-input", f.filename)), 0)
    text = traceback.format_exception(error)
    return f"{cell}\n" + "".join(text[:1] + traceback.format_list(frames[first:]) + text[-1:])


def _child(answers, path, package, cwd, env, before, after):
    "The life of the process of a notebook: a message before each cell, and one at the end: number of cells, problem."
    gc.freeze()  # what the server imported is never garbage, and looking through it would copy its pages
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
    sys.argv = [str(path)]
    os.chdir(cwd)
    modules, runnable = plan(path, package)
    try:
        where = f"{path.name}: the exported library cannot be imported"
        shell, cells = _shell(modules), len(read_nb(path).cells)
        around = [("what comes before", before), *runnable, ("what is checked afterwards", after)]
        for number, source in [cell for cell in around if cell[1]]:
            number = f"cell {number} of {cells}" if isinstance(number, int) else number
            where = f"{path.name}, {number}\n\n{source}\n"
            answers.send(where)
            done = shell.run_cell(source, store_history=True)
            if error := done.error_before_exec or done.error_in_exec:
                answers.send((0, _error(where, error)))
                return
        answers.send((len(runnable), None))
    except BaseException as e:
        answers.send((0, _error(where, e)))


def run_notebook(
    path: Path,  # the notebook
    package: str = "cryptolab",  # the library it exports to
    cwd: Path | None = None,  # working folder; the notebook's own when None
    timeout: int = 900,  # seconds one cell may take
    before: str = "",  # code to run before the first cell
    after: str = "",  # code to run behind the last cell, which sees the notebook's names
) -> int:  # number of cells run; raises NotebookError
    "Run the examples of one notebook in a process of its own."
    path = Path(path).resolve()
    context = multiprocessing.get_context("forkserver" if sys.platform.startswith("linux") else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(PRELOAD)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    env = os.environ | {"MPLBACKEND": "Agg"}
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sending, path, package, str(cwd or path.parent), env, before, after))
    child.start()
    sending.close()
    answer, cell = None, f"{path.name}\n"
    try:
        while not isinstance(answer, tuple):
            if isinstance(answer, str):
                cell = answer
            if not receiving.poll(timeout):
                raise NotebookError(f"{cell}\nstopped: the cell took longer than {timeout} seconds")
            answer = receiving.recv()
    except EOFError:
        raise NotebookError(f"{cell}\nthe process of the notebook died") from None
    finally:
        child.join(5 if isinstance(answer, tuple) else 0)
        child.kill()
        child.join()
    if answer[1]:
        raise NotebookError(answer[1])
    return answer[0]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        try:
            print(f"{name}: {run_notebook(Path(name))} cells ran")
        except NotebookError as e:
            sys.exit(str(e))
