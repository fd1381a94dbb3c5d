"""How far does V3 scale: time, memory, workers and answers per second.

python -m benchmarks.v3 [--data-dir FOLDER] [--rows N] [--only features,memory,workers,members,onnx] [--profiles quick]

features  million cells per second of the set v3 on every candle file, and minutes for 40 million one-minute candles
          from the slope over several sizes of BTCUSDT 1m (reading is not counted)
memory    peak of the resident size (VmHWM) of a process that grows 20 trees of depth 6 on 180 columns of BTCUSDT 1m,
          from arrays and from parts of a parquet file, beside what of it is anonymous, that is, not pages of a mapped
          file, which the system takes back when it needs room; and how far the two models' answers lie apart
workers   seconds of the same by one and by two workers of this machine, after a first training that imports
members   seconds and peak of each member of the stack at the sizes of the profiles, 20,000 rows, 180 columns
onnx      milliseconds of one row by ONNX and by the library itself, and rows per second of 64,000 rows together

Each measurement runs in a process of its own, one after another. --rows N takes the newest N candles. Results are
stored in benchmarks/results/v3.json only by a run over all rows and all sections.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.features import quickest, read
from cryptolab.features.registry import feature_names, features
from cryptolab.files import plain, write_json
from cryptolab.models.boosting import BOOSTERS, ask_booster, fit_booster
from cryptolab.models.distributed import fit_booster_on_cluster
from cryptolab.models.out_of_core import TableParts, parts_matrix
from cryptolab.runs.cluster import own_cluster
from cryptolab.systems.artefacts import library_code, package_versions

HERE = Path(__file__).parent
STORE = HERE / "results" / "v3.json"
ROOMS = ("features", "models", "systems/v3")  # whose code shapes these numbers
SECTIONS = ("features", "memory", "workers", "members", "onnx")
COLUMNS, GROUP, MANY = 180, 100_000, 40_000_000
MEMBER_ROWS, STOP_ROWS, BATCH = 20_000, 4_000, 64_000
WORKER_ROWS = 500_000  # a worker holds its share unbinned
SIZES = dict(
    boost_trees=20, boost_rate=0.1, boost_depth=6, boost_leaf=50, boost_patience=20, boost_rows=0.8, boost_columns=0.5,
)


# ---- processes of their own

def status(key):
    "Megabytes of a line of this process's status."
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


class Peak:
    "Most anonymous memory while something runs, looked at every 20 ms."

    def __enter__(self):
        self.most, self.done = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.02):
            self.most = max(self.most, status("RssAnon"))

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def child(task, **given):
    "Result of a function `task_…` in a process of its own, or the end of its error output."
    command = [sys.executable, "-m", "benchmarks.v3", "--child", json.dumps({"task": task, **given})]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        sys.exit(f"{task} {given} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# ---- features

def task_speed(folder, rows):
    "Cells per second of every candle file, and the slope over sizes of BTCUSDT 1m."
    features(read(folder, "BTCUSDT_1m", 30_000), "v3")  # compile
    files = {}
    for path in sorted(Path(folder).glob("*_*.parquet")):
        candles = read(folder, path.stem, rows)
        if len(candles) < 1_500:
            continue
        out, seconds = features(candles, "v3"), quickest(lambda c=candles: features(c, "v3"), 3, limit=10)
        files[path.stem] = {
            "rows": len(out), "columns": out.shape[1], "seconds": round(seconds, 4),
            "mcells": round(out.size / seconds / 1e6, 1),
        }
    candles = read(folder, "BTCUSDT_1m", rows)
    sizes = [len(candles) * k // 5 for k in range(1, 6)]
    times = [quickest(lambda n=n: features(candles.iloc[-n:], "v3"), 3, limit=20) for n in sizes]
    slope, start = np.polyfit(sizes, times, 1)
    return {
        "files": files, "sizes": sizes, "seconds": np.round(times, 4).tolist(), "slope_us_per_row": 1e6 * slope,
        "minutes_for_40M": (start + slope * MANY) / 60, "peak_mb": status("VmHWM"),
    }


def task_table(folder, rows, path):
    "180 columns of v3 as parquet with row groups, and the outcome `rises next` beside it."
    import pyarrow as pa
    import pyarrow.parquet as pq

    candles = read(folder, "BTCUSDT_1m", rows)
    sample = features(candles.iloc[-20_000:], "v3").isna().mean().sort_values(kind="stable")
    names = [name for name in feature_names("v3") if name in set(sample.index[:COLUMNS])]
    table = features(candles, "v3", columns=names)
    y, whole = (candles["close"].shift(-1) > candles["close"]).to_numpy(float), np.ones(len(table), bool)
    for start in range(0, len(table), GROUP):
        whole[start : start + GROUP] = np.isfinite(table.iloc[start : start + GROUP].to_numpy()).all(axis=1)
    y[~whole], y[-1] = np.nan, np.nan
    schema = pa.schema([(name, pa.float32()) for name in names] + [("open_time", pa.timestamp("ms", "UTC"))])
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for start in range(0, len(table), GROUP):
            part = table.iloc[start : start + GROUP]
            columns = [pa.array(part[name].to_numpy(), pa.float32()) for name in names]
            file.write_table(pa.table([*columns, pa.array(part.index, pa.timestamp("ms", "UTC"))], schema=schema))
    np.save(Path(path).with_suffix(".npy"), y)
    return {
        "rows": len(table), "whole": int(np.isfinite(y).sum()), "names": names, "peak_mb": status("VmHWM"),
        "file_mb": Path(path).stat().st_size / 2**20,
    }


# ---- boosters

def whole_table(path, names):
    "All rows with an outcome as arrays, filled part by part."
    parts = TableParts(path, names, np.load(Path(path).with_suffix(".npy")))
    x, y, at = np.empty(parts.shape, "float32"), parts.outcomes(), 0
    for part, _ in parts:
        x[at : at + len(part)] = part
        at += len(part)
    return x, y


def task_booster(name, source, path, names, answers):
    "Peak and seconds of training from arrays or parts; answers on the first part are stored."
    fit_booster(name, (np.random.default_rng(0).random((500, 4)), np.arange(500) % 2), sizes=SIZES, trees=1)  # imports
    before, start = status("VmRSS"), time.perf_counter()
    parts = TableParts(path, names, np.load(Path(path).with_suffix(".npy")))
    with Peak() as peak:
        if source == "arrays":
            data = whole_table(path, names)
        else:
            data = parts_matrix(name, parts, folder=str(Path(path).parent))
        made = time.perf_counter()
        model, _ = fit_booster(name, data, sizes=SIZES)
        seconds = time.perf_counter()
    most = status("VmHWM")
    np.save(answers, ask_booster(name, model, parts.part(0)[0]))
    return {
        "rows": parts.shape[0], "peak_mb": most, "anonymous_mb": peak.most, "before_mb": before,
        "read_or_bin_s": made - start, "train_s": seconds - made,
    }


def task_workers(name, workers, path, names):
    "Seconds of training on a cluster, and the peak of its largest worker."
    y = np.load(Path(path).with_suffix(".npy"))
    rows = slice(max(0, len(y) - WORKER_ROWS), len(y))
    with own_cluster(workers) as client:
        client.wait_for_workers(workers)
        few = slice(max(0, len(y) - 2 * GROUP), len(y))
        fit_booster_on_cluster(client, name, path, names, y, few, sizes=SIZES, trees=1)
        start = time.perf_counter()
        fit_booster_on_cluster(client, name, path, names, y, rows, sizes=SIZES)
        seconds = time.perf_counter() - start
        peaks = list(client.run(status, "VmHWM").values())
    return {"rows": int(np.isfinite(y[rows]).sum()), "seconds": seconds, "largest_worker_mb": max(peaks)}


# ---- members

def member_rows(path, names):
    "20,000 rows and 4,000 later ones, with a label table."
    parts = TableParts(path, names, np.load(Path(path).with_suffix(".npy")))
    found, number = [], 0
    while sum(len(y) for _, y in found) < MEMBER_ROWS + STOP_ROWS and number < len(parts):
        found.append(parts.part(number))
        number += 1
    x, y = (np.concatenate(part)[: MEMBER_ROWS + STOP_ROWS] for part in zip(*found, strict=True))
    cut = len(x) * MEMBER_ROWS // (MEMBER_ROWS + STOP_ROWS)
    times = pd.date_range("2024-01-01", periods=cut, freq="min", tz="UTC")
    label = pd.DataFrame({"y": y[:cut].astype(float), "t0": times, "t1": times + pd.Timedelta("1min")}, index=times)
    return (x[:cut], y[:cut].astype(float), label), (x[cut:], y[cut:].astype(float))


def task_member(name, profile, path, names, folder):
    "Seconds and peak of one member; it is stored in the folder."
    from cryptolab.systems.v3.members import V3_PROFILES, fit_member, write_member

    rows, val = member_rows(path, names)
    start = time.perf_counter()
    model, history = fit_member(name, rows, val, sizes=V3_PROFILES[profile])
    seconds = time.perf_counter() - start
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_member(folder, name, model)
    best = int(history.attrs.get("best_epoch", len(history)))
    return {"rows": len(rows[0]), "seconds": seconds, "best_epoch": best, "peak_mb": status("VmHWM")}


# ---- ONNX

def one_row(ask, x, repeats):
    "Milliseconds of single rows: median and 99th percentile."
    for row in x[:20]:
        ask(row[None])
    took = np.empty(repeats)
    for k in range(repeats):
        row = x[k % len(x)][None]
        start = time.perf_counter()
        ask(row)
        took[k] = time.perf_counter() - start
    return {"p50_ms": 1e3 * float(np.median(took)), "p99_ms": 1e3 * float(np.quantile(took, 0.99))}


def both(ask, x, many, repeats):
    "One row and many rows."
    return one_row(ask, x, repeats) | {"rows_per_s": len(many) / quickest(lambda: ask(many), 3, limit=20)}


def task_onnx(path, names, folder):
    "Every member and the whole graph by ONNX, beside the library's own answer."
    from cryptolab.models.onnx_graph import stack_to_onnx
    from cryptolab.models.onnx_session import ask_onnx, check_graph, make_session
    from cryptolab.systems.v3.bundle import member_to_onnx
    from cryptolab.systems.v3.members import MEMBERS, ask_member, read_member

    x, found, graphs = member_rows(path, names)[0][0], {}, {}
    many = np.resize(x, (BATCH, x.shape[1]))
    for name in MEMBERS:
        model = read_member(folder, name, len(names))
        graphs[name] = member_to_onnx(name, model, names)
        session = make_session(check_graph(graphs[name]).SerializeToString())
        difference = np.abs(ask_onnx(session, x) - ask_member(name, model, x)).max()
        found[name] = {
            "onnx": both(lambda rows, s=session: ask_onnx(s, rows), x, many, 1_000),
            "library": both(lambda rows, n=name, m=model: ask_member(n, m, rows), x, many, 200),
            "largest_difference": float(difference),
        }
        gc.collect()
    every = feature_names("v3")
    wide = np.zeros((len(many), len(every)), "float32")
    at = [every.index(name) for name in names]
    wide[:, at] = many
    meta = {"members": list(graphs), "weights": [1 / len(graphs)] * len(graphs), "intercept": 0.0}
    graph = stack_to_onnx(graphs, at, every, meta, {"kind": "temperature", "temperature": 1.0})
    session = make_session(check_graph(graph).SerializeToString())
    found["all in one graph"] = {"onnx": both(lambda rows: ask_onnx(session, rows), wide[:2_000], wide, 1_000)}
    return found


# ---- what is printed

def print_features(found):
    for name, r in found["files"].items():
        size = f"{r['rows']:>9,} rows {r['columns']:4} columns"
        print(f"  {name:22} {size} {r['seconds']:9.3f} s {r['mcells']:8.1f} M cells/s")
    print(f"  40 million candles: {found['minutes_for_40M']:.2f} minutes by the slope over {len(found['sizes'])} sizes")


def measure_memory(table, path):
    "Each booster from arrays and from parts."
    found = {}
    for name in BOOSTERS:
        for source in ("arrays", "parts"):
            answers = str(path.with_name(f"{name}-{source}.npy"))
            r = child("booster", name=name, source=source, path=str(path), names=table["names"], answers=answers)
            found[f"{name}, {source}"] = r
            room = f"peak {r['peak_mb']:7.0f} MB, anonymous {r['anonymous_mb']:7.0f} MB"
            took = f"read or bin {r['read_or_bin_s']:6.1f} s, train {r['train_s']:6.1f} s"
            print(f"  {name:9} {source:6} {r['rows']:>9,} rows  {room}  {took}", flush=True)
        one, two = (np.load(path.with_name(f"{name}-{source}.npy")) for source in ("arrays", "parts"))
        apart = {"largest": float(np.abs(one - two).max()), "mean": float(np.abs(one - two).mean())}
        found[f"{name}, apart"] = apart
        print(f"  {name:9} answers apart: at most {apart['largest']:.1e}, on average {apart['mean']:.1e}")
    found["within 6 GB"] = max(r["peak_mb"] for r in found.values() if "peak_mb" in r) <= 6 * 1024
    print(f"  within 6 GB: {found['within 6 GB']}")
    return found


def measure_workers(table, path):
    "One and two workers."
    found = {}
    for name in ("xgboost", "lightgbm"):
        for workers in (1, 2):
            r = found[f"{name}, {workers}"] = child(
                "workers", name=name, workers=workers, path=str(path), names=table["names"],
            )
            print(f"  {name:9} {workers} workers {r['rows']:>9,} rows {r['seconds']:7.1f} s  largest worker "
                  f"{r['largest_worker_mb']:.0f} MB", flush=True)
        gain = found[f"{name}, 1"]["seconds"] / found[f"{name}, 2"]["seconds"]
        found[f"{name}, gain"] = gain
        print(f"  {name:9} two workers are {gain:.2f} x as fast as one")
    return found


def measure_members(table, path, profiles):
    "Every member at every profile."
    from cryptolab.systems.v3.members import MEMBERS

    found = {}
    for profile in profiles:
        for name in MEMBERS:
            r = found[f"{profile}, {name}"] = child(
                "member", name=name, profile=profile, path=str(path), names=table["names"],
                folder=str(path.with_name(profile)),
            )
            told = f"{r['seconds']:8.1f} s  best {r['best_epoch']:5}  peak {r['peak_mb']:6.0f} MB"
            print(f"  {profile:6} {name:9} {told}", flush=True)
    return found


def print_onnx(found):
    for name, r in found.items():
        for kind in ("onnx", "library"):
            if kind in r:
                row = f"one row: p50 {r[kind]['p50_ms']:8.3f} ms, p99 {r[kind]['p99_ms']:8.3f} ms"
                print(f"  {name:17} {kind:8} {row}; {r[kind]['rows_per_s']:12,.0f} rows/s")
        if "largest_difference" in r:
            print(f"  {name:17} largest difference {r['largest_difference']:.1e}")


def measure(given, folder, work, keep):
    "The sections that were asked for, one after another; what is there is kept after each."
    out = {}
    if "features" in given.only:
        print("features of v3")
        out["features"] = child("speed", folder=str(folder), rows=given.rows)
        print_features(out["features"])
        keep(out)
    if set(given.only) == {"features"}:
        return
    path = work / "features.parquet"
    table = child("table", folder=str(folder), rows=given.rows, path=str(path))
    out["table"] = {key: value for key, value in table.items() if key != "names"}
    size = f"{table['rows']:,} rows, {table['whole']:,} whole, {table['file_mb']:.0f} MB"
    print(f"table of {size}, built within {table['peak_mb']:.0f} MB", flush=True)
    if "memory" in given.only:
        print("memory")
        out["memory"] = measure_memory(table, path)
        keep(out)
    if "workers" in given.only:
        print("workers")
        out["workers"] = measure_workers(table, path)
        keep(out)
    if {"members", "onnx"} & set(given.only):
        print("members")
        out["members"] = measure_members(table, path, given.profiles)
        keep(out)
    if "onnx" in given.only:
        print(f"ONNX, members of {given.profiles[-1]}")
        home = str(path.with_name(given.profiles[-1]))
        out["onnx"] = child("onnx", path=str(path), names=table["names"], folder=home)
        print_onnx(out["onnx"])
        keep(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir", default=os.environ.get("CRYPTOLAB_SHARED", str(HERE.parent.parent / "shared" / "data")),
    )
    parser.add_argument("--rows", type=int, help="newest candles of BTCUSDT 1m; without it all")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(SECTIONS))
    parser.add_argument("--profiles", type=lambda text: text.split(","), default=["smoke", "quick", "full"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.child:
        asked = json.loads(given.child)
        print(json.dumps(plain(globals()[f"task_{asked.pop('task')}"](**asked))))
        return
    folder = Path(given.data_dir)
    if not (folder / "BTCUSDT_1m.parquet").exists():
        sys.exit(f"{folder} holds no BTCUSDT_1m.parquet; give the folder of candles with --data-dir")
    if unknown := set(given.only) - set(SECTIONS):
        sys.exit(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    facts = {
        "command": "python -m benchmarks.v3", "cores": os.cpu_count(), "versions": package_versions(),
        "code": library_code(ROOMS),
    }

    def keep(out):
        if given.rows is None and set(given.only) == set(SECTIONS):
            STORE.parent.mkdir(exist_ok=True)
            write_json(STORE, plain(facts | out))

    with tempfile.TemporaryDirectory(prefix="cryptolab-v3-") as work:
        measure(given, folder, Path(work), keep)


if __name__ == "__main__":
    main()
