#!/usr/bin/env python3
"""Run a notebook's examples as the tests do, against the exported library, and keep what they show:
store_outputs.py [--pictures] NOTEBOOK …

A failing example is named and leaves its notebook as it was. Outputs of cells that are not run stay. In a tutorial a
still picture stands beside each interactive chart, for places that run no scripts; `--pictures` adds these to stored
outputs and runs nothing. Tutorials run in an empty folder.
"""
import base64
import io
import json
import os
import sys
import tempfile
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


PLOTLY = "application/vnd.plotly.v1+json"
PAGE = """<!doctype html><meta charset="utf-8"><style>body{{margin:0;background:#fff}}</style><div id="chart"></div>
<script>{library}</script><script>const figure = {figure};
Plotly.newPlot("chart", figure.data, Object.assign(figure.layout, {{width: {width}, height: {height}}}),
               {{staticPlot: true}});</script>"""


def still(figure: dict, width: int = 760) -> str:  # PNG as base64
    "An interactive chart as a small picture (needs chromium)."
    from PIL import Image
    from plotly.offline import get_plotlyjs
    from screenshot import shoot

    height = int(figure["layout"].get("height") or 450)
    data = json.dumps(figure).replace("</", "<\\/")
    page = PAGE.format(library=get_plotlyjs(), figure=data, width=width, height=height)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "chart.html").write_text(page, encoding="utf-8")
        shot = Image.open(shoot(Path(folder) / "chart.html", Path(folder) / "chart.png", f"{width}x{height}"))
        made = io.BytesIO()
        shot.convert("RGB").quantize(32).save(made, "PNG", optimize=True)
    return base64.b64encode(made.getvalue()).decode() + "\n"


def add_pictures(book) -> int:  # how many were added
    "A still picture in the output of every interactive chart."
    shown = [o for c in book.cells for o in c.get("outputs", []) if PLOTLY in o.get("data", {})]
    for output in shown:
        output.data["image/png"] = still(output.data[PLOTLY])
    return len(shown)


def store(path: Path, package: str = "cryptolab") -> int:  # number of cells run
    "Execute the examples in a fresh kernel and write their outputs into the notebook."
    book = nbformat.read(path, as_version=4)
    modules, runnable = plan(path, package)
    numbers = [number for number, _ in runnable]
    lesson, empty = path.parent.name == "tutorials", tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    where = {"metadata": {"path": empty.name if lesson else path.parent}}
    client = NotebookClient(book, timeout=900, kernel_name="python3", resources=where)
    with empty, client.setup_kernel():
        book.cells.append(nbformat.v4.new_code_cell(LOAD.format(modules=modules)))
        client.execute_cell(book.cells[-1], len(book.cells) - 1)
        book.cells.pop()
        for number in numbers:
            cell = client.execute_cell(book.cells[number - 1], number - 1)
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]  # notes of libraries to this machine
    if lesson:
        add_pictures(book)
    nbformat.write(book, path)
    nbdev_clean(fname=str(path))
    return len(numbers)


if __name__ == "__main__":
    failed, names = [], [name for name in sys.argv[1:] if name != "--pictures"]
    for name in names if "--pictures" in sys.argv else []:
        book = nbformat.read(name, as_version=4)
        print(f"{name}: {add_pictures(book)} pictures stored")
        nbformat.write(book, name)
        nbdev_clean(fname=name)
    for name in names if "--pictures" not in sys.argv else []:
        try:
            print(f"{name}: outputs of {store(Path(name))} cells stored", flush=True)
        except CellExecutionError as e:
            failed.append(f"{name}: nothing stored\n{e}")
    sys.exit("\n\n".join(failed) or 0)
