#!/usr/bin/env python3
"""Run one step of `make test`: heading, output, duration, and a loud line when it fails.

step.py "1/7 heading" COMMAND …     run it
step.py "6/7 one" COMMAND … ++ "7/7 other" COMMAND …    run both at once, each on a core of its own
step.py --start                     forget earlier steps
step.py --summary                   one line per step, then the closing lines of the layout's check and of pytest
"""
import functools
import io
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CLOSING = re.compile(r"=====.* in |\d+ modules in \d+ rooms, ")
LOG = Path(__file__).parents[1] / ".cache" / "steps.jsonl"


def run_step(heading, command, show=print):
    "The command's exit status; its duration and its closing line, if it has one, are kept for the summary."
    show(f"\n==> {heading}", flush=True)
    start, closing = time.time(), ""
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of hundreds of processes would compile the library anew
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env,
    ) as process:
        for line in process.stdout:
            show(line, end="", flush=True)
            if CLOSING.match(line):
                closing = line.rstrip()
    seconds = time.time() - start
    verdict = "ok" if process.returncode == 0 else "FAILED"
    show(f"--- {verdict}: {heading} ({seconds:.1f} s)", flush=True)
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a") as f:
        f.write(json.dumps({"heading": heading, "seconds": seconds, "closing": closing, "verdict": verdict}) + "\n")
    return process.returncode


def run_together(steps):
    "Steps side by side; the first is shown as it runs, the others when they are done. The first bad exit status."
    if len(steps) == 1:
        return run_step(steps[0][0], steps[0][1:])
    texts = [io.StringIO() for _ in steps]
    shows = [print, *(functools.partial(print, file=text) for text in texts[1:])]
    with ThreadPoolExecutor(len(steps)) as pool:
        codes = list(pool.map(lambda step, show: run_step(step[0], step[1:], show), steps, shows))
    print(*(text.getvalue() for text in texts), sep="", flush=True)
    return next((code for code in codes if code), 0)


def summary():
    "What was run and how long it took; the closing lines come last."
    began, *steps = [json.loads(line) for line in LOG.read_text().splitlines()]
    failed = [s["heading"] for s in steps if s["verdict"] != "ok"]
    print("\n==> " + (f"FAILED: {'; '.join(failed)}" if failed else f"all {len(steps)} steps passed"))
    for s in steps:
        print(f"{s['seconds']:8.1f} s  {s['verdict']:6}  {s['heading']}")
    print(f"{time.time() - began['began']:8.1f} s  together")
    print(*[s["closing"] for s in steps if s["closing"]], sep="\n")
    return bool(failed)


if __name__ == "__main__":
    if sys.argv[1:] == ["--start"]:
        LOG.parent.mkdir(exist_ok=True)
        LOG.write_text(json.dumps({"began": time.time()}) + "\n")
    elif sys.argv[1:] == ["--summary"]:
        sys.exit(summary())
    else:
        words, steps = sys.argv[1:], []
        while "++" in words:
            at = words.index("++")
            steps, words = [*steps, words[:at]], words[at + 1 :]
        sys.exit(run_together([*steps, words]))
