#!/usr/bin/env python3
"""Write README.md from nbs/index.ipynb: make_readme.py [--check]. Same notebook, same text; stored outputs are used,
nothing runs."""
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
INDEX = ROOT / "nbs" / "index.ipynb"
DIRECTIVE = re.compile(r"^#\s*\|.*\n?", re.M)
LINK = re.compile(r"(\]\(|src=\")(?!\w+:|#|/)([^)\"\s]+)")


def from_root(match: re.Match, folder: Path) -> str:
    "A link relative to the notebook's folder, made relative to the top of the repository."
    target, hash_, anchor = match[2].partition("#")
    path = (folder / target).resolve()
    return match[1] + path.relative_to(ROOT).as_posix() + hash_ + anchor


def output_only(cell) -> nbformat.NotebookNode:  # a markdown cell
    "A cell whose code is not shown (`#| echo: false`): the markdown it displayed."
    return nbformat.v4.new_markdown_cell(
        "\n\n".join(o.data["text/markdown"] for o in cell.outputs if "text/markdown" in o.get("data", {}))
    )


def readme(index: Path = INDEX) -> str:  # markdown
    "The notebook as markdown: hidden cells and directives left out, links seen from the top of the repository."
    book = nbformat.read(index, as_version=4)
    book.cells = [c for c in book.cells if not re.search(r"^#\s*\|\s*(hide|default_exp|export\w*)\b", c.source, re.M)]
    book.cells = [output_only(c) if re.search(r"^#\s*\|\s*echo:\s*false", c.source, re.M) else c for c in book.cells]
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.source = DIRECTIVE.sub("", cell.source)
        else:
            cell.source = LINK.sub(lambda m: from_root(m, index.parent), cell.source)
    exporter = MarkdownExporter()
    exporter.config.NbConvertBase.display_data_priority = ["text/markdown", "text/plain"]
    text, _ = MarkdownExporter(config=exporter.config).from_notebook_node(book)
    text = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    path = ROOT / "README.md"
    if "--check" in sys.argv:
        if path.read_text() != readme():
            sys.exit("README.md is not what nbs/index.ipynb renders to; run `make readme`")
    else:
        path.write_text(readme())
        print(path.name)
