"""Batches as whole programs: what is killed, cut off or full costs one job at most, and nothing runs twice without
need. The notebooks are toys."""
import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from cryptolab.config import SettingsError
from cryptolab.runs import batch, worker as jobs, plan, kernel as runner
from cryptolab.runs.batch import BatchStatus, batch_text, run_batch
from cryptolab.runs.forkserver import ForkServer, answer_of
from cryptolab.runs.cluster import FILES, make_certificates, trust_words, visible_gpus
from cryptolab.runs.plan import Job, job_key, make_plan, read_record

DEFAULTS = dict(
    symbol="BTCUSDT", timeframe="1h", source="sample", data_dir="data", start=None, end=None, limit=100,
    profile="smoke", seed=0, fee=0.001, slippage=0.0005, params={}, out=None, work=None,
)
HEAD = "import json, os, signal, time\nfrom pathlib import Path"
# one line per execution
LOG = "_ = open(Path(out).parent.parent / 'runs.log', 'a').write(f'{symbol} {timeframe} {os.getpid()}\\n')"
END = (
    "_ = (Path(out) / 'result.json').write_text(json.dumps({'system': 'toy', 'symbol': symbol, 'timeframe': "
    "timeframe}))"
)
BATCH = [sys.executable, "-c", "from cryptolab.cli.main import main; main()", "batch"]
needs_fork = pytest.mark.skipif(not runner.CAN_FORK, reason="processes are forked on Linux only")


def toy(folder, *sources, name="toy"):
    "A report notebook of a few lines, which notes each of its executions in runs.log."
    cells = [new_code_cell("\n".join(f"{k} = {v!r}" for k, v in DEFAULTS.items()), metadata={"tags": ["parameters"]})]
    nbformat.write(
        new_notebook(cells=cells + [new_code_cell(s) for s in (HEAD, LOG, *sources, END)]), folder / f"{name}.ipynb",
    )
    return folder / f"{name}.ipynb"


def runs(folder):
    "Which reports were executed, in order."
    log = folder / "runs.log"
    return [" ".join(line.split()[:2]) for line in log.read_text().splitlines()] if log.exists() else []


def states(result):
    return [entry["state"] for entry in result.values()]


def until(condition, seconds=60):
    "Wait until something is true."
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# ---- the plan

def test_all_mistakes_of_a_plan_are_told_together(tmp_path):
    (tmp_path / "BTCUSDT_1h.csv").write_text("anything")
    with pytest.raises(SettingsError) as caught:
        make_plan(["BTCUSDT", "BTC-USDT", "DOGUSDT"], ["1h", "7h"], ["v9", "v99"], source="local", data_dir=tmp_path)
    for text in ("DOGUSDT", "7h", "v99", "asked for twice", "nothing was run"):
        assert text in str(caught.value)
    with pytest.raises(SettingsError, match="no parameter `droput`"):
        make_plan(["BTCUSDT"], ["1h"], params={"droput": 1})


def test_unknown_symbol_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "BTCUSDT_1h.csv").write_text("anything")
    command = [
        *BATCH, "--symbols", "BTCUSDT,XYZUSDT", "--timeframes", "1h", "--source", "local", "--data-dir", str(tmp_path),
        "--out", str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "XYZUSDT" in done.stderr and "Traceback" not in done.stderr and not (
        tmp_path / "out"
    ).exists()


def test_key_follows_notebook_code_parameters_and_candles(tmp_path, monkeypatch):
    mine = toy(tmp_path)
    (tmp_path / "BTCUSDT_1h.csv").write_text("one")
    ask = lambda **change: make_plan(
        ["BTCUSDT"], ["1h"], ["toy"], **{"template": mine, "source": "local", "data_dir": tmp_path, **change},
    )[0]
    first = job_key(ask())
    assert first == job_key(ask()) != job_key(ask(seed=1))
    moved = shutil.copytree(tmp_path, tmp_path / "moved")
    assert job_key(ask(data_dir=moved)) == first, "where the candles lie does not matter"
    book = nbformat.read(mine, 4)
    book.cells[1].outputs = [nbformat.v4.new_output("stream", text="stored")]
    nbformat.write(book, mine)
    assert job_key(ask()) == first, "stored outputs are no input"
    (tmp_path / "BTCUSDT_1h.csv").write_text("two")
    assert job_key(ask()) != first
    (tmp_path / "BTCUSDT_1h.csv").write_text("one")
    book.cells[1].source += "\n1"
    nbformat.write(book, mine)
    assert job_key(ask()) != first
    (mine).write_bytes((moved / "toy.ipynb").read_bytes())
    monkeypatch.setattr(plan, "report_code", lambda: "other code")
    assert job_key(ask()) != first


@pytest.mark.parametrize("damage", ["{\"system\": ", "", None])
def test_a_damaged_result_is_found_out(tmp_path, damage):
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "result.json").write_text('{"system": "toy"}')
    (folder / "report.html").write_text("page")
    (folder / "job.json").write_text(json.dumps(plan.make_record(folder, "key")))
    assert read_record(folder)["key"] == "key"
    (folder / "result.json").unlink() if damage is None else (folder / "result.json").write_text(damage)
    assert read_record(folder) is None


def test_a_report_that_lost_a_file_is_made_again(tmp_path, monkeypatch):
    "A deleted page, a shortened page, a lost model: none of them is done, and none is in the way of a new report."
    from cryptolab.runs import report

    def make(template, partial, *rest, **more):
        (partial / "model").mkdir()
        for name in ("report.html", "report.ipynb", "result.json", "model/weights.bin"):
            (partial / name).write_text('{"system": "toy"}')

    monkeypatch.setattr(report, "_make", make)
    monkeypatch.setattr(jobs, "_ask_alone", lambda env, job, out, *rest: runner.make_report(job, out))
    job, out = make_plan(["BTCUSDT"], ["1h"], ["toy"], template=toy(tmp_path))[0], tmp_path / "out"
    folder = out / job.name
    assert runner.make_report(job, out)["state"] == "done" and read_record(folder)["key"] == job_key(job)
    for name in ("report.html", "report.ipynb", "result.json", "model/weights.bin", "job.json"):
        for damage in ("gone", "short"):
            (folder / name).unlink() if damage == "gone" else (folder / name).write_text("{")
            assert read_record(folder) is None, f"{name} is {damage}"
            assert jobs.run_job(job, out, warm=False)["state"] == "done"
            assert read_record(folder)["key"] == job_key(job)


# ---- batches that succeed, in part

def test_skip_force_and_a_failing_cell(tmp_path):
    mine = toy(tmp_path, "assert symbol != 'BADUSDT', 'not this coin'")
    work = make_plan(["BTCUSDT", "BADUSDT", "ETHUSDT"], ["1h"], ["toy"], template=mine)
    news = []
    first = run_batch(work, tmp_path / "out", jobs=2, progress=lambda *n: news.append(n))
    assert states(first) == ["done", "failed", "done"] and sorted(runs(tmp_path)) == [
        "BADUSDT 1h",
        "BTCUSDT 1h",
        "ETHUSDT 1h",
    ], "a cell's error is not tried again"
    error = first["BADUSDT-1h-toy"]["error"]
    assert (error["name"], error["cell"], error["notebook"]) == (
        "AssertionError",
        5,
        "BADUSDT-1h-toy.failed.ipynb",
    ) and "not this coin" in error["message"]
    assert "not this coin" in (tmp_path / "out" / error["notebook"]).read_text() and "1 failed" in batch_text(first)
    assert any("left" in text for _, text, _, _ in news) and news[-1][2:] == (3, 3)
    stored = json.loads((tmp_path / "out" / "status.json").read_text())
    assert stored["jobs"]["BADUSDT-1h-toy"]["state"] == "failed" and stored["ended"]
    assert (tmp_path / "out" / "index.html").exists() and not (tmp_path / "out" / ".work").exists()

    (tmp_path / "out" / "ETHUSDT-1h-toy" / "result.json").write_text('{"system": "to')  # cut off by hand
    before = len(runs(tmp_path))
    assert states(run_batch(work, tmp_path / "out", jobs=1)) == ["skipped", "failed", "done"]
    assert runs(tmp_path)[before:] == ["BADUSDT 1h", "ETHUSDT 1h"]
    assert (
        states(run_batch(work[:1], tmp_path / "out", jobs=1, force=True)) == ["done"]
        and runs(tmp_path)[-1] == "BTCUSDT 1h"
    )
    assert json.loads(
        (tmp_path / "out" / "status.json").read_text()
    )["jobs"]["BADUSDT-1h-toy"]["state"] == "failed", "what is not in a plan keeps its entry"


def test_a_corrupt_file_and_too_little_history_cost_one_job_each(tmp_path):
    from cryptolab.data.market import sample_market

    data = tmp_path / "data"
    data.mkdir()
    for symbol, n in (("BTCUSDT", 300), ("NEWUSDT", 20), ("ETHUSDT", 300)):
        sample_market(symbol, "1h", n=n)[["open", "high", "low", "close", "volume"]].to_csv(data / f"{symbol}_1h.csv")
    (data / "SOLUSDT_1h.parquet").write_bytes(b"PAR1 this is no parquet file PAR1")
    load = "from cryptolab.data import load_candles\ncandles = load_candles(symbol, timeframe, source, data_dir)"
    few = (
        "from cryptolab.config import DataError\nif len(candles) < 100:\n    raise DataError('too few candles', 100, "
        "len(candles), 'take another coin')"
    )
    work = make_plan(
        ["BTCUSDT", "SOLUSDT", "NEWUSDT", "ETHUSDT"], ["1h"], ["toy"], template=toy(tmp_path, load, few),
        source="local", data_dir=data,
    )
    made = run_batch(work, tmp_path / "out", jobs=2)
    assert states(made) == ["done", "failed", "failed", "done"]
    assert "SOLUSDT_1h.parquet" in made[
        "SOLUSDT-1h-toy"
    ]["error"]["message"] and made["NEWUSDT-1h-toy"]["error"]["name"] == "DataError"


# ---- what dies

SLOW = (
    "started = Path(out).parent.parent / f'{symbol}.started'\n_ = started.write_text(f'{os.getpid()} {os.getppid()}')\n"
    "while symbol in ('ETHUSDT', 'SOLUSDT') and not (started.parent / 'go').exists():\n    time.sleep(0.05)"
)


@needs_fork
def test_killed_program_is_finished_by_the_next_call(tmp_path):
    mine, out = toy(tmp_path, SLOW), tmp_path / "out"
    command = [
        *BATCH, "--symbols", "BTCUSDT,ETHUSDT,SOLUSDT", "--timeframes", "1h", "--template", str(mine), "--out",
        str(out), "--jobs", "1",
    ]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    until(lambda: (tmp_path / "ETHUSDT.started").exists() and (tmp_path / "ETHUSDT.started").read_text())
    pids = [int(pid) for pid in (tmp_path / "ETHUSDT.started").read_text().split()]
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 1 and "another batch is at work" in again.stderr, "two batches at once"
    program.kill()
    program.wait()
    until(lambda: not any(map(alive, pids)), 20)
    assert (out / "BTCUSDT-1h-toy" / "job.json").exists() and not (out / "ETHUSDT-1h-toy").exists()
    (tmp_path / "go").touch()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0 and "2 made, 1 unchanged, 0 failed" in done.stderr and done.stdout.strip() == str(
        Path("out") / "index.html"
    )
    assert runs(tmp_path) == ["BTCUSDT 1h", "ETHUSDT 1h", "ETHUSDT 1h", "SOLUSDT 1h"]
    assert not [p.name for p in out.iterdir() if p.name.startswith(".") and "partial" in p.name]


@needs_fork
def test_killed_kernel_and_runner_get_a_second_attempt_and_a_slow_job_none(tmp_path):
    once = (
        "mark = Path(out).parent.parent / f'{symbol}.mark'\nif not mark.exists():\n    mark.touch()\n    "
        "os.kill(os.getpid() if symbol == 'BTCUSDT' else os.getppid(), 9)"
    )
    work = make_plan(["BTCUSDT", "ETHUSDT"], ["1h"], ["toy"], template=toy(tmp_path, once))
    made = run_batch(work, tmp_path / "out", jobs=1)
    assert states(made) == ["done", "done"] and [e["attempts"] for e in made.values()] == [2, 2]
    always = make_plan(["BTCUSDT"], ["1d"], ["toy"], template=toy(tmp_path, "os.kill(os.getppid(), 9)"))
    answer = jobs.run_job(always[0], tmp_path / "out")
    assert (answer["state"], answer["attempts"], answer["error"]["name"]) == (
        "failed",
        2,
        "ProcessDied",
    ) and "SIGKILL" in answer["error"]["message"]
    slow = make_plan(["BTCUSDT"], ["4h"], ["toy"], template=toy(tmp_path, "time.sleep(60)"))
    answer = jobs.run_job(slow[0], tmp_path / "out", timeout=4)
    assert (answer["state"], answer["attempts"], answer["error"]["name"]) == ("failed", 1, "TimeoutError")
    assert not list((tmp_path / "out").glob(".*partial*"))


@needs_fork
def test_killed_worker_and_restarted_scheduler(tmp_path):
    mine, out, address = toy(tmp_path, SLOW), tmp_path / "out", "tls://127.0.0.1:28786"
    keys = make_certificates(tmp_path / "keys")
    tls = [f"--tls-{option}={keys / name}" for option, name in zip(("ca-file", "cert", "key"), FILES.values())]
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    center = [
        sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "28786",
        "--protocol", "tls", "--no-dashboard", *tls,
    ]
    hand = [
        sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny",
        "--local-directory", str(tmp_path), *tls,
    ]
    running = [subprocess.Popen(center, **quiet), subprocess.Popen(hand, **quiet), subprocess.Popen(hand, **quiet)]
    command = [
        *BATCH, "--symbols", "BTCUSDT,ETHUSDT,SOLUSDT", "--timeframes", "1h", "--template", str(mine), "--out",
        str(out), "--scheduler", address, "--certificates", str(keys),
    ]
    try:
        with open(tmp_path / "errors", "w") as errors:
            program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=tmp_path)
        running.append(program)
        until(
            lambda: all(
                (tmp_path / f"{s}.started").exists() and (tmp_path / f"{s}.started").read_text()
                for s in ("ETHUSDT", "SOLUSDT")
            ),
            90,
        )
        running[1].kill()  # a worker in mid-job: its job goes to the other one
        orphans = [int(pid) for s in ("ETHUSDT", "SOLUSDT") for pid in (tmp_path / f"{s}.started").read_text().split()]
        until(lambda: sum(map(alive, orphans)) == 2, 20)
        running[0].kill()  # then the scheduler, and the worker that is left goes with it
        running[2].kill()
        until(lambda: not any(map(alive, orphans)), 20)
        (tmp_path / "go").touch()
        running += [subprocess.Popen(center, **quiet), subprocess.Popen(hand, **quiet)]
        assert program.wait(120) == 0, (tmp_path / "errors").read_text()
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["BTCUSDT-1h-toy", "ETHUSDT-1h-toy", "SOLUSDT-1h-toy"]
    assert runs(tmp_path).count("BTCUSDT 1h") == 1, "what was finished is not made again"


# ---- who may talk to the workers

def listening(pid):
    "Addresses on which a process and its descendants accept connections."
    sockets = []
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended since it was listed
            sockets += [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return {(c.laddr.ip, c.laddr.port) for c in sockets}


@needs_fork
def test_workers_of_this_machine_listen_on_loopback_and_know_their_client(tmp_path):
    from distributed.comm import connect
    from distributed.security import Security

    async def knock(protocol, port):
        comm = await asyncio.wait_for(
            connect(f"{protocol}://127.0.0.1:{port}", timeout=2, **strangers[protocol]), 4,
        )
        comm.abort()

    async def knock_everywhere(ports):
        doors = [knock(protocol, port) for port in ports for protocol in strangers]
        return await asyncio.gather(*doors, return_exceptions=True)


    mine, out = toy(tmp_path, SLOW), tmp_path / "out"
    command = [
        *BATCH, "--symbols", "BTCUSDT,ETHUSDT", "--timeframes", "1h", "--template", str(mine), "--out", str(out),
        "--jobs", "2",
    ]
    with open(tmp_path / "errors", "w") as errors:
        program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=tmp_path)
    try:
        until(lambda: (tmp_path / "ETHUSDT.started").exists())
        found = listening(program.pid)
        assert {host for host, _ in found} == {"127.0.0.1"} and len(found) >= 5  # scheduler, two nannies, two workers
        strangers = {"tcp": {}, "tls": Security.temporary().get_connection_args("client")}
        answers = asyncio.run(knock_everywhere([port for _, port in found]))
        assert answers and all(isinstance(answer, Exception) for answer in answers), "a stranger got in"
        (tmp_path / "go").touch()
        assert program.wait(120) == 0, (tmp_path / "errors").read_text()
    finally:
        program.kill()
        program.wait()
    assert "on loopback only, encrypted" in (tmp_path / "errors").read_text()


def test_a_scheduler_without_encryption_is_named_and_wrong_certificates_are_refused(tmp_path):
    work = make_plan(["BTCUSDT"], ["1h"], ["toy"], template=toy(tmp_path))
    assert "NOT encrypted" in trust_words("tcp://10.0.0.1:8786")
    for scheduler, certificates, words in (
        ("tls://10.0.0.1:8786", None, "do not fit"), (None, tmp_path, "without a scheduler"),
        ("tls://10.0.0.1:8786", tmp_path / "none", "no folder of certificates"),
    ):
        with pytest.raises(SettingsError, match=words):
            run_batch(work, tmp_path / "out", scheduler=scheduler, certificates=certificates)
    assert not (tmp_path / "out").exists()


# ---- a full disk

def test_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    work = make_plan(["BTCUSDT"], ["1h"], ["toy"], template=toy(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(runner, "write_whole", full)  # while the record is written
        answer = runner.make_report(work[0], tmp_path / "out")
    assert (
        answer["state"] == "failed"
        and "No space left" in answer["error"]["message"]
        and answer["error"]["name"] == "WriteError"
    )
    assert [p.name for p in (tmp_path / "out").iterdir() if p.name != ".work"] == []
    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(batch, "write_whole", full)  # while the states are written
        status = BatchStatus(tmp_path / "out", work, "b", lines.append)
        status.set("BTCUSDT-1h-toy", state="done", seconds=1.0)
        status.write()
    assert len(lines) == 1 and "No space left" in lines[0], "told once"
    assert runner.make_report(work[0], tmp_path / "out")["state"] == "done"


# ---- last words

def test_the_last_words_of_a_process_are_passed_on(tmp_path):
    (tmp_path / "sick.py").write_text("raise RuntimeError('this package is broken')")
    server = ForkServer({**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}, ("sick",))
    answer = server.ask(Job("BTCUSDT", "1h"), tmp_path)
    assert answer["error"]["name"] == "ProcessDied" and answer["error"]["again"]
    assert "ended with code 1" in answer["error"]["message"] and "this package is broken" in answer["error"]["message"]
    silent = answer_of(b"1\n", -signal.SIGKILL, 1.0, "MemoryError")["error"]["message"]
    assert "killed by SIGKILL (as the system does when the memory is used up)" in silent and "MemoryError" in silent


# ---- where nothing can be forked; GPUs

def test_without_fork_a_job_is_a_program_of_its_own(tmp_path):
    work = make_plan(["BTCUSDT", "ETHUSDT"], ["1h"], ["toy"], template=toy(tmp_path, "assert symbol == 'BTCUSDT'"))
    first, second = (jobs.run_job(job, tmp_path / "out", warm=False) for job in work)
    assert first["state"] == "done" and second["error"]["name"] == "AssertionError"
    assert jobs.run_job(work[0], tmp_path / "out", "another batch", warm=False)["state"] == "skipped"


def test_gpus_are_counted_as_the_libraries_see_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert visible_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


class FakeClient:
    "A client whose workers finish the oldest task whenever somebody sleeps."

    status = "running"

    def __init__(self, room, gpus):
        self.room, self.gpus, self.log, self.most, self.tasks = room, gpus, [], 0, []

    def run_on_scheduler(self, count):
        return self.room, self.gpus

    def sleep(self, seconds):
        for task in self.tasks[:1]:
            task.status = "finished"

    def submit(self, function, job, *args, **options):
        self.tasks.append(Task(self, job.name))
        self.log.append((job.name, options.get("resources")))
        self.most = max(self.most, len(self.tasks))
        return self.tasks[-1]


class Task:
    def __init__(self, client, name):
        self.client, self.name, self.status = client, name, "pending"

    def done(self):
        return self.status == "finished"

    def result(self, timeout):
        return {"state": "done", "seconds": 1.0}

    def release(self):
        self.client.tasks.remove(self)


def collected(client, plan, monkeypatch):
    "Names in the order of their answers."
    moment = iter(range(0, 10_000, 3))
    monkeypatch.setattr(batch, "time", SimpleNamespace(sleep=client.sleep, monotonic=lambda: next(moment)))
    answers, missing = [], {job.name: job for job in plan}
    ask = "out", "b", False, None, 1, None
    batch.collect_answers(client, missing, ask, lambda name, answer: answers.append(name))
    assert not missing
    return answers


def test_jobs_with_networks_ask_for_a_gpu_where_there_is_one(monkeypatch):
    plan = [Job("BTCUSDT", "1h"), Job("BTCUSDT", "1h", "toy", template="toy.ipynb"), Job("BTCUSDT", "1h", "v2")]
    for gpus in (1, 0):
        client = FakeClient(4, gpus)
        collected(client, plan, monkeypatch)
        assert [need for _, need in client.log] == [{"GPU": 1} if gpus else None, None, None]


def test_no_worker_is_given_a_queue(monkeypatch):
    "Dask would divide tasks of unknown length at once; then one worker waits while another still has several."
    plan = [Job(f"C{i}USDT", "1h") for i in range(7)]
    client = FakeClient(2, 0)
    assert collected(client, plan, monkeypatch) == [job.name for job in plan] and client.most == 2
    client = FakeClient(3, 1)
    mixed = [Job(f"C{i}USDT", "1h", "v2" if i > 4 else "v9") for i in range(7)]
    collected(client, mixed, monkeypatch)
    assert [name for name, _ in client.log][:3] == ["C0USDT-1h-v9", "C5USDT-1h-v2", "C6USDT-1h-v2"], (
        "the GPU is busy, other workers are not"
    )


# ---- the command line

def test_command_takes_its_plan_from_settings_and_options_replace_it(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from cryptolab.cli.main import app

    calls = []

    def fake(work, **settings):
        calls.append((work, [settings[name] for name in ("out", "jobs", "scheduler", "force", "timeout")]))
        return {
            job.name: {"state": "failed", "error": {"name": "E", "message": "m"}} if job.symbol == "BADUSDT"
            else {"state": "done"} for job in work
        }

    monkeypatch.setattr(batch, "run_batch", fake)
    monkeypatch.chdir(tmp_path)
    Path("settings.ini").write_text(
        "[data]\nsymbols = BTCUSDT, ETHUSDT\ntimeframes = 15m, 1d\nlimit = 777\n[model]\nprofile = "
        "smoke\n[run]\nworkers = 3\nout = results\n"
    )
    done = CliRunner().invoke(app, ["batch"])
    work, (out, workers, scheduler, force, timeout) = calls[-1]
    assert done.exit_code == 0 and [job.name for job in work] == [
        f"{s}-{t}-v9" for s in ("BTCUSDT", "ETHUSDT") for t in ("15m", "1d")
    ]
    assert (out, workers, scheduler, force, timeout, work[0].limit, work[0].profile) == (
        "results",
        3,
        None,
        False,
        None,
        777,
        "smoke",
    )
    done = CliRunner().invoke(
        app,
        [
            "batch", "--symbols", "BADUSDT", "--timeframes", "1h", "--jobs", "1", "--scheduler", "tcp://a:1", "--force",
            "--timeout", "9",
        ],
    )
    work, (out, workers, scheduler, force, timeout) = calls[-1]
    assert (
        done.exit_code == 1
        and (workers, scheduler, force, timeout) == (1, "tcp://a:1", True, 9.0)
        and "BADUSDT-1h-v9 failed: E" in done.output
    )
