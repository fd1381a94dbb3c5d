#!/usr/bin/env python3
"""Take the README's picture of a report with a headless browser: screenshot.py [REPORT.html] [PICTURE.png]
[WIDTHxHEIGHT]."""
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
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


if __name__ == "__main__":
    given = sys.argv[1:] + [None] * 3
    page = Path(given[0] or ROOT / "reports" / "BTCUSDT-1h-v9" / "report.html")
    if not page.exists():
        sys.exit(f"{page} does not exist; make a report first")
    print(shoot(page, Path(given[1] or ROOT / "nbs" / "images" / "report.png").resolve(), given[2] or "960x1400"))
