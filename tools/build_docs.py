#!/usr/bin/env python3
"""Build the documentation site from the notebooks and their stored outputs: build_docs.py [FOLDER] [--only TEXT …].

No notebook is executed and nothing is fetched; the site works from the file system. `--only` takes pages whose name
contains one of the texts, for a quick look. The folder is replaced in whole, and only by a site without warnings and
without broken links.
"""
import argparse
import functools
import json
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from site_check import check_site
from site_commands import commands_page
from site_gallery import gallery_page
from site_landing import landing_page
from site_reference import reference
from tree import ROOT

sys.path.insert(0, str(ROOT))
NBS, ASSETS = ROOT / "nbs", Path(__file__).parent / "docs"
ROOMS = {
    "config": (
        "Settings",
        "What a researcher chooses, in one file, and the errors that tell what was wrong and what to do.",
    ),
    "files": ("Files", "A file or a folder is there whole or not at all: written beside its place and then renamed."),
    "faces": ("Faces", "What `dir()` of a package shows, and how a package is called like its main function."),
    "data": (
        "Data",
        "Candles from a file, a public history, an exchange or a made-up market, as one checked table. Missing candles "
        "stay missing, and every "
        "repair is counted.",
    ),
    "features": (
        "Features",
        "The columns of the five systems from one registry, computed for whole tables, in pieces and candle by candle, "
        "and the "
        "certificates that say whether a column can see the future.",
    ),
    "labels": (
        "Labels",
        "What is to be forecast, with the interval of candles from the decision to the moment when the outcome is "
        "known.",
    ),
    "validation": (
        "Validation",
        "Windows, and splits that keep training and test rows apart in time, with purge and embargo.",
    ),
    "models": ("Models", "The networks and learners, one per notebook, each block with the idea behind it."),
    "systems": ("Systems", "Models put together behind one protocol: `fit`, `forecast`, `save`, `load`."),
    "evaluation": (
        "Evaluation",
        "Every number beside its baseline, its interval and its costs; detectors of leaks; markets on which nothing "
        "can be found; the "
        "audit of the documents' claims.",
    ),
    "backtest": (
        "Trading",
        "Trades simulated with costs by the loop that makes the labels: orders, account, statistics with their "
        "intervals, sweeps.",
    ),
    "audit": (
        "Audit",
        "Could it fool you? Detectors of leaks and a zoo to test them, markets on which nothing can be found, and the "
        "audit of the "
        "documents' claims.",
    ),
    "reports": ("Reports", "One parameterised notebook run for any coin, rendered as a page that opens offline."),
    "runs": ("Runs", "One report or many, each in a process of its own that may die without harm to the others."),
    "serving": ("Serving", "Forecasts as they are asked for, or as candles close."),
    "cli": ("Command line", "The same by hand: `cryptolab run`, `doctor`, `publish` and the others."),
}
INNER = {  # rooms inside rooms
    "features/sets": (
        "Feature sets",
        "The columns of each system, one module or folder per set, found by name through the registry.",
    ),
    "features/sets/v3": (
        "Features of V3",
        "The columns of V3 by what they are made from: prices, volume, the form of candles, other markets.",
    ),
    "features/sets/ultimate": (
        "Features of Ultimate",
        "The columns of Ultimate: those of its own candles, and those of other markets.",
    ),
    "features/certify": (
        "Certificates of features",
        "The proof that a column knows nothing of the future, and the faults that the proof finds.",
    ),
    "systems/reference": (
        "Reference",
        "What a competent person would use instead, on the same rows: the system that the others are measured against.",
    ),
    "systems/v9": ("V9", "The system V9 in the order in which it is built: rows, ensemble, files, and the whole."),
    "systems/v2": (
        "V2",
        "The trading system V2 in the order in which it is built: rows, models, veto, strategy, and the whole.",
    ),
    "systems/hybrid": (
        "Hybrid",
        "The scalping system Hybrid in the order in which it is built: rows, members, fit, strategy, and the whole.",
    ),
    "systems/v3": ("V3", "The system V3 in the order in which it is built: rows, members, and the whole."),
    "systems/ultimate": (
        "Ultimate",
        "The system Ultimate in the order in which it is built: rows, network, fit, and the whole.",
    ),
    "audit/leaks": (
        "Detectors of leaks",
        "One detector for each way in which the future gets into a result: features, labels, split, rows, fit.",
    ),
    "audit/tables": (
        "Audits without five functions",
        "A table of predictions, an estimator with its splitter, a trading strategy: each audited as it is.",
    ),
    "audit/zoo": (
        "The zoo of leaks",
        "Pipelines with one known leak each, and clean ones that look alike, to measure how often the detectors are "
        "right.",
    ),
    "audit/foreign": (
        "Foreign notebooks",
        "A stranger's notebook, run on changed candles: readers, recorder, process, trials, judges, page.",
    ),
    "audit/pipelines": ("Pipelines of the systems", "Each system as the steps that the detectors of leaks take apart."),
    "audit/claims": (
        "Claims",
        "What the documents claim of their systems, what of it can be true, and what is measured.",
    ),
    "runs/study": (
        "Study of the techniques",
        "Every technique of Ultimate against the plain alternative on the same rows: arms, heads, search, verdicts.",
    ),
    "reports/pages": (
        "Pages of the systems",
        "What the report of each system says and shows beyond what all reports have in common.",
    ),
}
PARTS = {
    "tutorials": (
        "Tutorials",
        "Each takes a few minutes, follows one idea, and runs from top to bottom on a laptop or in Colab.",
    ),
    "studies": (
        "Studies",
        "Longer questions, answered with stored numbers: which indicators of three libraries know the future, and what "
        "is left of published "
        "claims when they are measured.",
    ),
    "report": (
        "Report templates",
        "The notebooks that `cryptolab run` fills in for a coin and a timeframe, here with what they found on the "
        "sample market.",
    ),
    "colab": ("Colab", "Notebooks for Google Colab that run anywhere else too."),
}


SPECIMENS = {  # leaky pipelines and their clean doubles: nobody who searches for a function should find these
    f"audit/zoo/{name}" for name in (
        "leaky_tables", "clean_tables", "filters", "other_tables", "leaky_fits", "clean_fits", "learning",
    )
}


WORKERS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class SiteError(Exception):
    "What is wrong, one line per problem."


@dataclass(frozen=True)
class Page:
    "One notebook and where it stands in the site."

    path: Path  # the notebook
    name: str  # page without suffix, such as features/indicators
    module: str = ""  # module it exports, such as features.indicators; empty for none

    @property
    def part(self) -> str:  # room of a module, else folder; empty for the start page
        "Chapter of the site."
        return self.name.split("/")[0] if "/" in self.name else ""


# ---- which pages there are

def read_notebook(path: Path) -> dict:  # the notebook as JSON, sources and texts joined
    "A notebook whose lists of lines are texts."
    book = json.loads(path.read_text(encoding="utf-8"))
    for cell in book["cells"]:
        cell["source"] = "".join(cell["source"])
    return book


def exported_module(path: Path) -> str:  # dotted, without the library's name; empty if it exports none
    "The module a notebook exports."
    found = re.search(r"#\s*\|\s*default_exp +([\w.]+)", path.read_text(encoding="utf-8"))
    return found[1] if found else ""


def site_pages(root: Path = ROOT) -> list:  # pages in reading order
    "The notebooks of the site."
    nbs, pages = root / "nbs", [Page(root / "nbs" / "index.ipynb", "overview")]
    rooms = [p for p in nbs.rglob("[0-9]*.ipynb") if all(part[:1].isdigit() for part in p.relative_to(nbs).parts)]
    for path in sorted(rooms):
        parts = (module := exported_module(path)).split(".")
        pages.append(
            Page(
                path,
                "/".join([*parts[:-1], "package"] if parts[-1] == "__init__" else parts if parts[1:] else parts * 2),
                module,
            )
        )
    folders = (
        ("tutorials", nbs / "tutorials"), ("studies", nbs / "studies"), ("report", nbs / "templates"),
        ("colab", root / "colab"),
    )
    for part, folder in folders:
        pages += [
            Page(path, f"{part}/{path.stem}", exported_module(path)) for path in sorted(folder.glob("[!._]*.ipynb"))
        ]
    return pages


def title_and_line(book: dict, name: str) -> tuple:  # heading, and the quoted line below it (or the first paragraph)
    "What a page is called and what it says of itself."
    text = "\n\n".join(c["source"] for c in book["cells"] if c["cell_type"] == "markdown")
    title = re.search(r"^# +(.+)$", text, re.M)
    after = text[title.end() :] if title else text
    quote = re.match(r"\s*> *(.+)", after)
    line = quote[1] if quote else re.sub(
        r"\s+", " ", next((p for p in after.split("\n\n") if re.match(r"\s*\w", p)), "").strip(),
    )
    return (title[1].strip() if title else name), line.strip()


# ---- one notebook becomes one page

DIRECTIVE = re.compile(r"^#\s*\|\s*(\S+?):?(?:\s+(.*))?$")
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")
PLOTLY = "application/vnd.plotly.v1+json"


def directives(source: str) -> tuple:  # {directive: value}, source without them
    "The `#|` lines of a cell."
    lines, found = source.split("\n"), {}
    while lines and (match := DIRECTIVE.match(lines[0])):
        found[match[1]] = (match[2] or "").strip()
        lines.pop(0)
    return found, "\n".join(lines).strip("\n")


def only_imports(source: str) -> bool:
    "Whether a cell does nothing but import."
    return bool(re.fullmatch(r"(?:\s*(?:from\s+\S+\s+)?import\s+(?:\([^)]*\)|[^\n]*)\s*(?:#[^\n]*)?\n?)+", source))


def page_output(output: dict) -> dict | None:  # the output as the site shows it; None to leave it out
    "Charts as a place and its data; messages of libraries are left out."
    from cryptolab.reports.render import chart_html, without_requests

    if output["output_type"] == "stream":
        return None if output["name"] == "stderr" else output
    if output["output_type"] == "error":
        return output
    data = {
        kind: value if isinstance(value, (dict, list)) and kind.endswith("json") else "".join(value)
        for kind, value in output.get("data", {}).items()
    }
    if PLOTLY in data:
        data = {"text/html": chart_html(data[PLOTLY]), "text/plain": "chart"}
    elif "text/html" in data:
        shown = re.sub(r"<style scoped>.*?</style>", "", data["text/html"], flags=re.S)
        shown = re.sub(r"(<a\b[^>]*?)\shref=([\"'])(?![a-z]+:|#)[^\"']*\2", r"\1", shown)  # files of another place
        data["text/html"] = without_requests(shown)
    return {"output_type": "display_data", "data": data, "metadata": {}}


def is_plumbing(source: str) -> bool:
    "Whether a cell defines nothing that others may use: private names or none."
    names = re.findall(r"^(?:async )?(?:def|class) (\w+)|^(\w+)(?:: [^=\n]+)? = ", source, re.M)
    return all(name.startswith("_") for pair in names for name in pair if name)


def page_cell(cell: dict, link, folded: bool = False, at: int | None = None) -> dict | None:  # None to leave it out
    "One cell as the site shows it: without directives, tagged for the builder; `at` is its number in the notebook."
    if cell["cell_type"] == "markdown":
        source = link(BADGE.sub("", cell["source"]).strip())
        return {"cell_type": "markdown", "metadata": {}, "source": source} if source else None
    if cell["cell_type"] != "code":
        return None
    known, source = directives(cell["source"])
    if "default_exp" in known and not source or "hide" in known or not source.strip():
        return None
    tags = ["export"] if {"export", "exporti", "exports"} & set(known) else []
    if tags and is_plumbing(source):
        tags.append("plumbing")
    if at is not None:
        tags.append(f"at-{at}")
    if known.get("echo", "").lower() == "false" or known.get("code-fold") == "hide":
        tags.append("remove-input")
    elif folded or only_imports(source) or source.startswith("install_from = "):
        tags.append("hide-input")
    outputs = [shown for output in cell.get("outputs", []) if (shown := page_output(output))]
    return {
        "cell_type": "code", "metadata": {"tags": tags}, "source": source, "outputs": outputs, "execution_count": None,
    }


class Links:
    "Turns links between notebooks into links between pages, and links to files of the project into downloads."

    def __init__(self, pages, stage, files):
        self.stage, self.files = stage, files
        self.by_path = {page.path.resolve(): page.name for page in pages}
        self.by_word = {page.path.stem: page.name for page in pages if page.path.parent.name == "nbs" and page.module}
        self.by_word |= {
            f"cryptolab.{page.module}".removesuffix(".__init__"): page.name for page in pages if page.module
        }

    def __call__(self, page: Page, text: str) -> str:  # markdown with the links of the site
        "The links of one cell; code stays as it is."
        parts = re.split(r"(^```.*?^```|\$\$.*?\$\$)", text, flags=re.S | re.M)
        return "".join(part if i % 2 else self._prose(page, part) for i, part in enumerate(parts))

    def _prose(self, page, text):
        text = re.sub(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)", lambda m: self._one(page, *m.groups()), text)
        return re.sub(r"(?<![\[`])`((?:\d\d_|cryptolab\.)[\w.]+)`(?!`|\])", lambda m: self._word(page, m), text)

    def _word(self, page, match):
        name = self.by_word.get(match[1].removesuffix(".ipynb"))
        return match[0] if name in (None, page.name) else f"[`{match[1]}`]({self._to(page, name)}.ipynb)"

    def _to(self, page, name):
        return os.path.relpath(name, Path(page.name).parent)

    def _one(self, page, image, label, target):
        if "](" in label:  # a picture that is a link
            label = self._prose(page, label)
        if re.match(r"[a-z]+:|#", target):
            return f"{image}[{label}]({target})"
        bare, _, anchor = target.partition("#")
        path = (page.path.parent / bare).resolve()
        if path in self.by_path:
            return f"[{label}]({self._to(page, self.by_path[path])}.ipynb{'#' + anchor if anchor else ''})"
        if not path.is_file():
            if not path.is_dir():
                raise SiteError(f"{page.path.name}: the link to {target} leads nowhere")
            return label
        if image:
            to = self.stage / "images" / path.name
            to.parent.mkdir(exist_ok=True, parents=True)
            shutil.copy(path, to)
            return f"![{label}]({self._to(page, f'images/{path.name}')})"
        (self.files / "files").mkdir(exist_ok=True, parents=True)
        shutil.copy(path, self.files / "files" / path.name)
        shown = re.sub(r"`([^`]*)`", r"<code>\1</code>", label)
        return f'<a href="{self._to(page, f"files/{path.name}")}">{shown}</a>'


def source_line(page: Page, book: dict) -> dict:  # a markdown cell
    "Where the notebook behind a page is."
    up = os.path.relpath(".", Path(page.name).parent)
    about = (
        "cells with a blue edge are the library" if page.module else "everything on this page was computed by its cells"
    )
    badge = next((match[1] for c in book["cells"] if (match := BADGE.search(c["source"]))), None)
    colab = f' · <a href="{badge}">open Colab</a>' if badge else ""
    text = (
        f'<p class="source">Notebook <a href="{up}/notebooks/{page.name}.ipynb" '
        f'download>{page.path.relative_to(ROOT)}</a>{colab} · {about}</p>'
    )
    if page.module:
        text += '\n\n<p class="switch"><a href="#reference">Reference</a><a href="#lesson">Lesson</a></p>'
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def reference_first(page: Page, book: dict, cells: list) -> list:  # the cells of the page
    "Title, then what the module offers, then the lesson that it is exported from."
    found = []
    for number, cell in enumerate(book["cells"]):
        if cell["cell_type"] == "code":
            known, source = directives(cell["source"])
            kind = "export" if {"export", "exporti", "exports"} & set(known) else "example"
            kind = "" if known.get("eval", "").lower() == "false" else kind
            found.append((number, source, kind, cell.get("outputs", [])))
    about = reference(page.module, found, ":no-index:\n" if page.name in SPECIMENS else "")
    if not about:
        return cells
    head = re.match(r"(# .+\n*(?:>.*\n*)*)([\s\S]*)", cells[0]["source"])
    texts = [head[1] if head else cells[0]["source"], cells[1]["source"], *about, "## Lesson", head[2] if head else ""]
    made = [{"cell_type": "markdown", "metadata": {}, "source": text} for text in texts if text.strip()]
    return made + cells[2:]


def page_notebook(page: Page, links: Links) -> dict:  # notebook for the builder
    "One notebook, ready for the site."
    book = read_notebook(page.path)
    cells = [
        made for number, cell in enumerate(book["cells"])
        if (made := page_cell(
            cell, lambda text: links(page, text), page.part == "report", number if page.module else None,
        ))
    ]
    if page.name != "overview":
        cells.insert(1, source_line(page, book))
    if page.module:
        cells = reference_first(page, book, cells)
    if any('class="plot"' in o.get("data", {}).get("text/html", "") for c in cells for o in c.get("outputs", [])):
        up = os.path.relpath("_static", Path(page.name).parent)
        scripts = (
            f'<script>{(ASSETS / "guard.js").read_text().strip()}</script><script '
            f'src="{up}/plotly.min.js"></script><script src="{up}/charts.js"></script>'
        )
        cells.append({"cell_type": "markdown", "metadata": {}, "source": scripts})
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


# ---- chapters

def module_mark(page: Page) -> str:  # `cryptolab.features.rolling`, or nothing
    "The name of a page's module as code."
    return f"`cryptolab.{page.module}`".replace(".__init__", "") if page.module else ""


def room_title(folder: str) -> tuple:  # (title, one or two sentences)
    "What a chapter is called and what is in it."
    return {**ROOMS, **PARTS, **INNER}[folder]


def chapters(pages: list) -> dict:  # {folder: names of its pages and inner folders, in order}
    "Every folder with pages, from the outside in; a folder inside another is a chapter of that one."
    found = {}
    for page in pages:
        parts = page.name.split("/")[:-1]
        for n in range(1, len(parts) + 1):
            inside = found.setdefault("/".join(parts[:n]), [])
            child = "/".join(parts[: n + 1]) if n < len(parts) else page.name
            if child not in inside:
                inside.append(child)
    return found


def chapter(folder: str, inside: list, pages: dict, lines: dict) -> str:  # markdown; `pages` by name
    "A page that introduces the pages and chapters of one folder."
    rows, tree, (title, text) = [], [], room_title(folder)
    for name in inside:
        page, (head, line) = pages.get(name), lines[name] if name in pages else room_title(name)
        target = os.path.relpath(name, folder) + ("" if page else "/index")
        mark = module_mark(page) if page else f"`cryptolab.{name.replace('/', '.')}`"
        rows.append(f"| [{head}]({target}.{'ipynb' if page else 'md'}) | {mark} | {line.replace('|', chr(92) + '|')} |")
        tree.append(target)
    heads, tree = ["| page | module | |", "| --- | --- | --- |"], "\n".join(tree)
    if not any(name not in pages or pages[name].module for name in inside):
        rows, heads = [re.sub(r"\) \|  \|", ") |", row) for row in rows], ["| page | |", "| --- | --- |"]
    return "\n".join([f"# {title}", "", text, "", *heads, *rows, "", "```{toctree}", ":hidden:", "", tree, "```", ""])


TREES = (
    ("Learn", ("overview", "gallery", "tutorials", "colab")), ("Reference", ("commands", *ROOMS)),
    ("Findings", ("studies", "report")),
)


def start_trees(parts: set) -> str:  # markdown
    "The contents of the whole site, for the side bar."
    trees = []
    for caption, names in TREES:
        ways = {"overview": "Overview <overview>", "commands": "commands", "gallery": "gallery"}
        inside = [ways.get(name, f"{name}/index") for name in names if name in parts]
        if caption == "Reference" and "package" in parts:
            inside.insert(1, "package")
        if inside:
            trees.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *inside, "```"]))
    return "\n\n".join(trees)


def without_links(text: str, page: Page, chosen: set) -> str:  # the page's notebook as text
    "For a part of the site: links to pages that are left out become plain words."
    def one(match):
        return match[0] if os.path.normpath(Path(page.name).parent / match[2]) in chosen else match[1]

    return re.sub(r"\[([^\[\]]+)\]\(([\w./]+)\.ipynb(?:#[\w-]*)?\)", one, text)


def stage_site(pages: list, stage: Path, files: Path) -> dict:  # {page: (title, line)}
    "Write what the builder reads."
    links, lines = Links(site_pages(), stage, files), {}
    chosen = {page.name for page in pages}
    for page in pages:
        lines[page.name] = title_and_line(read_notebook(page.path), page.name)
        book = page_notebook(page, links)
        text = json.dumps(book)
        if len(chosen) < len(links.by_path):
            text = without_links(text, page, chosen)
        for folder, content in ((stage, text), (files / "notebooks", page.path.read_text(encoding="utf-8"))):
            path = folder / f"{page.name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    (stage / "commands.md").write_text(commands_page(), encoding="utf-8")
    lines["commands"] = ("All commands", "Every command with its options.")
    parts = {p.part or p.name for p in pages} | {"commands"}
    if gallery := gallery_page(files):
        (stage / "gallery.md").write_text(gallery, encoding="utf-8")
        lines["gallery"] = ("Gallery", "Real quick reports with their verdicts.")
        parts.add("gallery")
    (stage / "index.md").write_text(f"{landing_page(chosen)}\n\n{start_trees(parts)}", encoding="utf-8")
    for folder, inside in chapters(pages).items():
        text = chapter(folder, inside, {p.name: p for p in pages}, lines)
        (stage / folder / "index.md").write_text(text, encoding="utf-8")
        lines[f"{folder}/index"] = room_title(folder)
    return lines


# ---- the builder

def settings(files: Path) -> dict:  # of Sphinx
    "The builder's settings; there is no file of them."
    import cryptolab

    return {
        "project": "cryptolab", "version": cryptolab.__version__, "release": cryptolab.__version__,
        "extensions": ["myst_nb", "site_math"], "root_doc": "index", "nb_execution_mode": "off",
        "nb_render_markdown_format": "myst", "nb_merge_streams": True, "nb_code_prompt_show": "show {type}",
        "nb_code_prompt_hide": "hide {type}", "myst_enable_extensions": ["dollarmath"], "myst_heading_anchors": 3,
        "html_theme": "furo", "html_title": f"cryptolab {cryptolab.__version__}", "html_show_sphinx": False,
        "html_show_copyright": False, "html_copy_source": False, "html_show_sourcelink": False,
        "html_extra_path": [str(files)], "html_static_path": [str(ASSETS / "static")], "html_css_files": ["site.css"],
        "html_js_files": ["summaries.js", "search.js", "source.js"], "html_math_renderer": "mathml",
        "add_module_names": False,
        "python_maximum_signature_line_length": 90, "templates_path": [], "html_domain_indices": False,
        "toc_object_entries": False, "pygments_style": "default", "mathjax_path": "", "exclude_patterns": ["_build"],
        "suppress_warnings": ["config.cache"],
        "smartquotes_action": "q",  # two dashes before an option stay two
    }


@functools.cache
def way(target: str, folder: str) -> str:  # relative address
    "From the pages of a folder to another page: the side bar of every page asks for the same ones."
    return os.path.relpath(target, folder)


def navigation(tree: str, page: str) -> str:  # HTML
    "The side bar's tree, made for the first page, as another page shows it: its own links, and itself marked."
    def link(match):
        return 'href="#"' if match[1] == f"{page}.html" else f'href="{way(match[1], folder)}"'

    parts, own, folder = page.split("/"), re.escape(page), str(Path(page).parent)
    above = "|".join([re.escape("/".join([*parts[:n], "index"])) for n in range(1, len(parts))] or ["(?!)"])
    item, rest = '<li class="([^"]*)">', r'reference internal" href="(?:{})\.html">)'
    tree = re.sub(f'{item}(<a class=")({rest.format(own)}', r'<li class="\1 current current-page">\2current \3', tree)
    tree = re.sub(f'{item}(<a class="{rest.format(above)}', r'<li class="\1 current">\2', tree)
    tree = re.sub(rf'(href="(?:{above}|{own})\.html">[^<]*</a><input )', r'\1checked="" ', tree)
    return re.sub(r'href="([^"#]+)"', link, tree)


def mark_cells(app, doctree) -> None:
    "Cells get the anchors that the reference names; plumbing and specimens are kept out of the search."
    from docutils import nodes

    for cell in doctree.findall(nodes.container):
        for tag in [name for name in cell["classes"] if name.startswith("tag_")]:
            if tag.startswith("tag_at-"):
                cell["ids"].append(f"cell-{tag.removeprefix('tag_at-')}")
            elif tag == "tag_plumbing":
                cell["classes"].append("no-search")
    if app.env.docname in SPECIMENS:
        for node in doctree.findall(lambda x: isinstance(x, nodes.Element) and isinstance(x.parent, nodes.section)):
            if not isinstance(node, (nodes.title, nodes.section)):
                node["classes"].append("no-search")


def share_work(app) -> None:
    "Let the theme make its tree once, a third of the build otherwise, and the index of words stem each word once."
    made = []

    def before(app, page, template, context, doctree):
        if not made:
            language = app.builder.indexer.lang
            language.stem = functools.cache(language.stem)
            made.append(app.builder._get_local_toctree("index", collapse=False, titles_only=True, includehidden=True))
        context["toctree"] = lambda **options: made[0]

    def after(app, page, template, context, doctree):
        context["furo_navigation_tree"] = navigation(context["furo_navigation_tree"], page)

    bridge, formatters = app.builder.highlighter, {}
    fresh = bridge.get_formatter

    def formatter(**options):  # a style sheet is made for every block of code otherwise
        key = repr(sorted(options.items()))
        if key not in formatters:
            formatters[key] = fresh(**options)
        return formatters[key]

    bridge.get_formatter = formatter
    app.connect("doctree-read", mark_cells)
    app.connect("html-page-context", before, priority=400)  # the theme's own handler has 500
    app.connect("html-page-context", after, priority=600)


def build(out: Path, only: list | None = None, log=print) -> Path:  # the site's folder; raises SiteError
    "Build the site and put it in place, all or nothing."
    began, out = time.perf_counter(), Path(out).resolve()
    if out.exists() and any(out.iterdir()) and not (out / "searchindex.js").exists():
        raise SiteError(f"{out} is not a site of this program; choose another folder")
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    pages = [p for p in site_pages() if not only or any(text in p.name for text in only)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".docs-") as work:
        stage, files, html = (Path(work) / name for name in ("source", "files", "html"))
        lines = stage_site(pages, stage, files)
        log(f"{len(pages)} notebooks read in {time.perf_counter() - began:.0f} s")
        with patch_docutils(), docutils_namespace(), warnings.catch_warnings(), (
            Path(work) / "said"
        ).open("w+") as told:
            warnings.simplefilter("ignore", DeprecationWarning)  # between the builder's own parts
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            app = Sphinx(
                stage, None, html, Path(work) / "doctrees", "html", settings(files), status=None, warning=told,
                parallel=WORKERS,
            )
            share_work(app)
            app.build()
            told.seek(0)
            said = re.sub(r"\x1b\[[0-9;]*m", "", told.read()).replace(str(stage), "").strip()
        finish(html, lines)
        problems = [line for line in said.splitlines() if line.strip()] + check_site(html)
        if problems:
            raise SiteError("\n".join(["the site was not built:", *problems[:40]]))
        old = Path(work) / "old"
        if out.exists():
            out.replace(old)
        html.replace(out)
    log(
        f"{out / 'index.html'}: {len(pages)} notebooks, {sum(1 for _ in out.rglob('*.html'))} pages, "
        f"{time.perf_counter() - began:.0f} s"
    )
    return out


def finish(html: Path, lines: dict) -> None:
    "What the builder does not write: the library of charts, and one line per page for the search."
    static = html / "_static"
    if 'class="plot"' in "".join(p.read_text(encoding="utf-8") for p in html.rglob("*.html")):
        from plotly.offline import get_plotlyjs

        (static / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    text = {name: re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", line) for name, (_, line) in lines.items()}
    (static / "summaries.js").write_text(
        f"const SUMMARIES = {json.dumps(text, ensure_ascii=False)};\n", encoding="utf-8",
    )
    for name in (".buildinfo", "objects.inv"):
        (html / name).unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=str(ROOT / "_docs"))
    parser.add_argument("--only", nargs="+", help="pages whose name contains one of these texts")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        build(Path(given.folder), given.only)
    except SiteError as e:
        sys.exit(str(e))
