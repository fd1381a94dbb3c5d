#!/usr/bin/env python3
"""Take the gallery's pictures of the reports in a folder: make_gallery.py [FOLDER] (needs chromium).

Each finished report that is not a smoke gets one picture of its first screen in `nbs/images/gallery`, and a line in
`gallery.json` there: what was tested, the verdict, and the command that makes it. Pictures of reports that are not in
the folder stay.
"""
import json
import shlex
import sys
import tempfile
from pathlib import Path

from screenshot import shoot
from tree import ROOT

GALLERY = ROOT / "nbs" / "images" / "gallery"
SIZE, LARGEST = "1100x760", 150_000  # bytes of a picture


def command(inputs: dict) -> str:  # as one would type it
    "The command that makes a report like this one; where the candles lie is the reader's own."
    words = ["cryptolab", "run", inputs["symbol"], inputs["timeframe"], "--system", inputs["system"]]
    words += ["--source", inputs["source"], "--profile", inputs["profile"], "--limit", str(inputs["limit"])]
    words += [part for key in ("start", "end") if inputs.get(key) for part in (f"--{key}", str(inputs[key]))]
    words += [part for key, value in (inputs.get("params") or {}).items()
              for part in ("--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}")]
    words += ["--data-dir", "path/to/candles"] if inputs["source"] == "local" else []
    return shlex.join(words)


def facts(folder: Path) -> dict | None:  # None: no finished report, or one of the tests
    "What the gallery says of a report."
    try:
        run, result = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("run", "result"))
    except (OSError, ValueError):
        return None
    if run["inputs"]["profile"] == "smoke" or not (folder / "report.html").is_file() or "verdict" not in result:
        return None
    data, verdict = result["data"], result["verdict"]
    asked = run["inputs"]
    system = asked["system"].upper() if len(asked["system"]) == 2 else asked["system"].capitalize()
    title = f"{asked['symbol']} {asked['timeframe']} · {system} · {asked['profile']}"
    return {
        "name": folder.name, "title": title, "found": verdict["found"], "trust": verdict["trust"],
        "trade": verdict["trade"], "candles": data.get("candles"), "last": str(data.get("last", ""))[:10],
        "command": command(asked), "run": run["id"], "version": run["version"],
    }


def picture(page: Path, to: Path) -> None:
    "The first screen of a page as a small picture."
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        shot = Image.open(shoot(page, Path(folder) / "shot.png", SIZE)).convert("RGB")
        for quality in (85, 70, 50):
            shot.save(to, "WEBP", quality=quality, method=6)
            if to.stat().st_size <= LARGEST:
                return
    sys.exit(f"{to.name} has {to.stat().st_size:,} bytes; at most {LARGEST:,} are kept in the repository")


def make(reports: Path, gallery: Path = GALLERY) -> list:  # the stored facts, by name
    "Take the pictures and write what belongs to them."
    gallery.mkdir(parents=True, exist_ok=True)
    stored = gallery / "gallery.json"
    kept = {f["name"]: f for f in json.loads(stored.read_text(encoding="utf-8"))} if stored.exists() else {}
    for folder in sorted(p for p in reports.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if found := facts(folder):
            picture(folder / "report.html", gallery / f"{folder.name}.webp")
            kept[folder.name] = found
            print(found["title"])
    lines = [kept[name] for name in sorted(kept)]
    stored.write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return lines


if __name__ == "__main__":
    folder = Path(sys.argv[1] if sys.argv[1:] else ROOT / "reports")
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder of reports; make some first, such as `cryptolab batch`")
    make(folder)
