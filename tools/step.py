#!/usr/bin/env python3
"""Run one step of `make test`: heading, output, duration, and a loud line when it fails.

step.py "1/7 heading" COMMAND …     run it
step.py --start                     forget earlier steps
step.py --summary                   one line per step, then the closing lines of the layout's check and of pytest
"""
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

CLOSING = re.compile(r"=====.* in |\d+ modules in \d+ rooms, ")
LOG = Path(__file__).parents[1] / ".cache" / "steps.jsonl"


def run_step(heading, command):
    "The command's exit status; its duration and its closing line, if it has one, are kept for the summary."
    print(f"\n==> {heading}", flush=True)
    start, closing = time.time(), ""
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of hundreds of processes would compile the library anew
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env,
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if CLOSING.match(line):
                closing = line.rstrip()
    seconds = time.time() - start
    verdict = "ok" if process.returncode == 0 else "FAILED"
    print(f"--- {verdict}: {heading} ({seconds:.1f} s)", flush=True)
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a") as f:
        f.write(json.dumps({"heading": heading, "seconds": seconds, "closing": closing, "verdict": verdict}) + "\n")
    return process.returncode


def summary():
    "What was run and how long it took; the closing lines come last."
    steps = [json.loads(line) for line in LOG.read_text().splitlines()]
    failed = [s["heading"] for s in steps if s["verdict"] != "ok"]
    print("\n==> " + (f"FAILED: {'; '.join(failed)}" if failed else f"all {len(steps)} steps passed"))
    for s in steps:
        print(f"{s['seconds']:8.1f} s  {s['verdict']:6}  {s['heading']}")
    print(f"{sum(s['seconds'] for s in steps):8.1f} s  together")
    print(*[s["closing"] for s in steps if s["closing"]], sep="\n")
    return bool(failed)


if __name__ == "__main__":
    if sys.argv[1:] == ["--start"]:
        LOG.unlink(missing_ok=True)
    elif sys.argv[1:] == ["--summary"]:
        sys.exit(summary())
    else:
        sys.exit(run_step(sys.argv[1], sys.argv[2:]))
