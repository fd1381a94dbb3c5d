#!/usr/bin/env python3
"""Take a picture of a page with a headless browser: screenshot.py [PAGE.html | FOLDER OF A RUN] [PICTURE.png]
[WIDTHxHEIGHT].

Of a run's folder, the page is drawn again from what the run found, by the code as it is now, and PICTURE.json keeps
this and a sum of what was drawn, so that a test sees when the picture shows another page than the code makes. The
README's picture: `cryptolab run BTCUSDT 1h --profile quick --source local --data-dir …`, then this program.
"""
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = (  # what the top of a page is drawn from
    "system", "symbol", "timeframe", "params", "data", "cost_per_side", "published", "direction", "rivals", "costs",
    "event", "volatility", "price", "trading", "leaks", "certificate", "finding", "walk",
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update "
    "--disable-sync --hide-scrollbars --virtual-time-budget=8000"
).split()


def browser() -> str:  # path of the program; exits when there is none
    "A Chromium or Chrome on this machine."
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None,
    )
    return found or sys.exit("no chromium or google-chrome found; install one to take screenshots")


def shoot(page: Path, picture: Path, size: str = "960x1400") -> Path:  # the picture
    "Open a page and save what it shows."
    with tempfile.TemporaryDirectory() as profile:
        size = size.replace("x", ",")
        command = [
            browser(), *FLAGS, f"--user-data-dir={profile}", f"--window-size={size}", f"--screenshot={picture}",
            page.resolve().as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return picture


def top_of(result: dict) -> dict:  # what is needed to draw the top of the page again
    "A result without the tables further down."
    kept = {name: result[name] for name in HEAD if name in result}
    for name, most in (("trading", ("summary", "over", "shadow")), ("certificate", ("columns", "passed")),
                       ("leaks", ("detectors", "found"))):
        if isinstance(kept.get(name), dict):
            kept[name] = {k: v for k, v in kept[name].items() if k in most}
    return kept


def drawn_sum(result: dict) -> str:  # 16 hex digits
    "A sum of everything that the top of a page is drawn with: the same page, the same sum."
    sys.path.insert(0, str(ROOT))
    from cryptolab.reports.head import head_html
    from cryptolab.reports.render import CSS
    from cryptolab.reports.results import finding_markdown

    text = head_html(result) + finding_markdown(result) + CSS
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def drawn_again(run: Path, page: Path) -> dict:  # what the picture's sidecar keeps
    "Draw the page of a kept run by the code as it is now."
    sys.path.insert(0, str(ROOT))
    from cryptolab.reports.head import head_html
    from cryptolab.reports.render import render_html
    from cryptolab.reports.results import finding_markdown, read_result

    result, book = read_result(run / "result.json"), json.loads((run / "report.ipynb").read_text())
    record = json.loads((run / "run.json").read_text())
    for cell in book["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "cl-head" in "".join(data.get("text/html", "")):
                data["text/html"] = head_html(result)
            elif "candles from" in (text := "".join(data.get("text/markdown", ""))) and text.startswith("**"):
                data["text/markdown"] = finding_markdown(result)
    render_html(book, page)
    top = top_of(result)
    return {"run": record.get("name"), "version": record["version"], "drawn": drawn_sum(top), "result": top}


if __name__ == "__main__":
    given = sys.argv[1:] + [None] * 3
    page = Path(given[0] or ROOT / "reports" / "BTCUSDT-1h-v9")
    if not page.exists():
        sys.exit(f"{page} does not exist; make a report first")
    picture, size = Path(given[1] or ROOT / "nbs" / "images" / "report.png").resolve(), given[2] or "960x1000"
    if page.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            facts = drawn_again(page, Path(folder) / "page.html")
            shoot(Path(folder) / "page.html", picture, size)
        picture.with_suffix(".json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    else:
        shoot(page, picture, size)
    print(picture)
