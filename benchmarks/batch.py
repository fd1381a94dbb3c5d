"""What does a batch cost beyond its reports, and what do two workers gain?

python -m benchmarks.batch [--jobs 8] [--profile quick] [--limit 10000] [--data-dir FOLDER] [--only scaling | overhead]
[--out FOLDER]

Scaling: the same reports (a coin each, 1h) by one worker with one thread, by two workers with one thread each, and one
at a time with all threads.
Overhead: one report on a warm worker and the same report by plain `papermill`, each as wall time minus the time its
cells worked. The cell that imports counts as overhead in both, so that the comparison shows what forking from a
process that has imported everything is worth. Without --data-dir the coins are generated markets. Printed and stored
in benchmarks/results/batch.json; --jobs below 8 stores nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cryptolab.config import usable_cores
from cryptolab.runs.batch import run_batch
from cryptolab.runs.forkserver import ForkServer, modules_of
from cryptolab.runs.worker import job_environment
from cryptolab.runs.plan import make_plan
from cryptolab.files import write_json
from cryptolab.runs.report import find_template

STORE = Path(__file__).parent / "results" / "batch.json"
COINS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "DOGEUSDT", "XRPUSDT", "ADAUSDT", "BNBUSDT", "AVAXUSDT", "DOTUSDT")
CORES = usable_cores()


def scaling(plan, home):
    "Wall seconds of the same plan by different crews; starting the workers is included."
    seconds = {}
    for name, workers, threads in (
        ("1 worker, 1 thread", 1, 1), ("2 workers, 1 thread each", 2, 1), (f"1 worker, {CORES} threads", 1, CORES),
    ):
        began = time.perf_counter()
        made = run_batch(plan, home / name.replace(", ", "-").replace(" ", "_"), jobs=workers, threads=threads)
        seconds[name] = round(time.perf_counter() - began, 1)
        failed = [n for n, entry in made.items() if entry["state"] != "done"]
        print(f"{name:<26} {seconds[name]:8.1f} s{'   FAILED: ' + ', '.join(failed) if failed else ''}", flush=True)
    one, two, wide = seconds.values()
    print(
        f"two workers are {one / two:.2f} x as fast as one, and {wide / two:.2f} x as fast as all threads for one "
        "report at a time"
    )
    return {"seconds": seconds, "speedup": round(one / two, 2), "against all threads": round(wide / two, 2)}


def worked(notebook):
    "Seconds that the cells of an executed notebook worked, without the cell that imports."
    cells = [c for c in json.loads(Path(notebook).read_text())["cells"] if c["cell_type"] == "code"]
    return sum(
        c["metadata"]["papermill"].get("duration") or 0.0 for c in cells if "import pandas" not in "".join(c["source"])
    )


def overhead(plan, home):
    "Seconds beyond the work of the cells: on a warm worker, and by plain papermill in fresh processes."
    first, job = plan[0], plan[1]
    worker = ForkServer(job_environment(first, threads=1), modules_of(first))
    worker.ask(first, home / "warm")
    began = time.perf_counter()
    answer = worker.ask(job, home / "warm")
    warm = time.perf_counter() - began
    imports = worker.ready["seconds"]
    worker.close()
    folder = home / "plain"
    (folder / "work").mkdir(parents=True)
    values = {k: v for k, v in job.arguments().items() if k not in ("system", "template")} | {
        "out": str(folder),
        "work": str(folder / "work"),
    }
    code = (
        f"import papermill; papermill.execute_notebook({str(find_template('v9'))!r}, {str(folder / 'report.ipynb')!r}, "
        f"{values!r}, kernel_name='python3', progress_bar=False)"
    )
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=job_environment(job, threads=1), stderr=subprocess.DEVNULL,
    )
    plain = time.perf_counter() - began
    found = {
        "warm worker": round(warm - worked(home / "warm" / job.name / "report.ipynb"), 1),
        "plain papermill": round(plain - worked(folder / "report.ipynb"), 1),
    }
    print(
        f"state {answer['state']}; imports of a worker, once: {imports} s; wall: {warm:.1f} s warm, {plain:.1f} s "
        "plain papermill"
    )
    print("beyond the work of the cells: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found.items()))
    return {
        "beyond the work": found, "imports once per worker": imports,
        "wall": {"warm worker": round(warm, 1), "plain papermill": round(plain, 1)},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--data-dir")
    parser.add_argument("--only", choices=("scaling", "overhead"))
    parser.add_argument("--out", help="keep the reports in this new folder")
    given = parser.parse_args()
    where = {"source": "local", "data_dir": given.data_dir} if given.data_dir else {"source": "sample"}
    plan = make_plan(COINS[: max(2, given.jobs)], ["1h"], profile=given.profile, limit=given.limit, **where)
    home = Path(given.out or tempfile.mkdtemp())
    home.mkdir(parents=True, exist_ok=True)
    found = {
        "jobs": len(plan), "profile": given.profile, "limit": given.limit, "source": where["source"], "cores": CORES,
    }
    if given.only != "scaling":
        found["overhead"] = overhead(plan, home)
    if given.only != "overhead":
        found["scaling"] = scaling(plan, home)
    if given.jobs >= 8 and not given.only:
        write_json(STORE, found)
        print(STORE)


if __name__ == "__main__":
    main()
