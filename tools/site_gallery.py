"""The gallery: real quick reports by their first screen and their verdict, whole where they lie on this machine."""
import html
import json
import shutil
from pathlib import Path

from tree import ROOT

STORED, REPORTS = ROOT / "nbs" / "images" / "gallery", ROOT / "reports"
HEAD = """# Gallery

> Real quick reports: the first screen of each, its verdict, and the command that makes it

The pictures are taken by `make gallery` from reports on real candles. The candles are not part of the repository, so
name yours; the same candles give the same numbers. Most verdicts are sober, and that is the finding.
"""


def entries(stored: Path = STORED) -> list:  # of gallery.json; empty where there is none
    "What the gallery shows."
    path = stored / "gallery.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def whole_report(one: dict, reports: Path, files: Path) -> str:  # HTML; empty where the report is not here
    "A link to a copy of the whole report, if the very run lies in the folder of reports."
    folder = reports / one["name"]
    try:
        same = json.loads((folder / "run.json").read_text(encoding="utf-8"))["id"] == one["run"]
    except (OSError, ValueError, KeyError):
        return ""
    if not same or not (folder / "report.html").is_file():
        return ""
    (files / "reports").mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "report.html", files / "reports" / f"{one['name']}.html")
    return f' · <a href="reports/{one["name"]}.html">the whole report</a>'


def gallery_page(files: Path, stored: Path = STORED, reports: Path = REPORTS) -> str:  # markdown; empty for no gallery
    "The page; pictures and whole reports are copied into the site's files."
    parts = []
    for one in entries(stored):
        name = f"{one['name']}.webp"
        (files / "gallery").mkdir(parents=True, exist_ok=True)
        shutil.copy(stored / name, files / "gallery" / name)
        words = {key: html.escape(str(one[key])) for key in ("title", "found", "trust", "trade", "command")}
        parts.append("\n".join([
            f"## {one['title']}", "", f"**Found:** {words['found']}. **Trust:** {words['trust']}. "
            f"**Trade:** {words['trade']}.", "",
            f'<img class="page" src="gallery/{name}" alt="{words["title"]}: {words["found"]}" loading="lazy">', "",
            f"```text\n{one['command']}\n```", "",
            f'<p class="source">{one["candles"]:,} candles to {one["last"]}, version {one["version"]}'
            f"{whole_report(one, reports, files)}</p>", "",
        ]))
    return "\n".join([HEAD, *parts]) if parts else ""
