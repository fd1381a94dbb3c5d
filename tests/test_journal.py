"""The journal: what was written stays, what was changed is named, what is damaged is refused and never replaced."""
import random
import shutil
import sqlite3
import subprocess

import numpy as np
import pandas as pd
import pytest

from cryptolab.serving import (
    Entry, Journal, JournalError, JournalUnavailable, ReplayClock, journal_rows, verify_journal,
)
from cryptolab.serving.journal import MIGRATIONS, backup_path, journal_tables, migrate, row_hash

HOUR, FIRST = 3_600_000, 1_704_067_200_000
MODEL = "m" * 64


def entries(k, count=1):
    "Candles and forecasts from hour `k` on."
    found = []
    for j in range(k, k + count):
        at = FIRST + j * HOUR
        found += [Entry("candle", {"close": 100.0 + j}, "", "BTCUSDT", "1h", at),
                  Entry("forecast", {"p_up": 0.5 + j / 1000}, MODEL, "BTCUSDT", "1h", at)]
    return found


def filled(path, hours=12):
    "A journal of so many hours, each written a second after its close."
    clock = ReplayClock(FIRST)
    with Journal(path, clock) as journal:
        for k in range(hours):
            clock.sleep((FIRST + (k + 1) * HOUR + 1_000 - clock.now()) / 1000)
            journal.write(entries(k))
    return clock


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    "A whole journal, and its clock."
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    return path, filled(path)


@pytest.fixture
def copied(template, tmp_path):
    "A copy to tamper with: (path, function of SQL statements that gives the problems)."
    path = tmp_path / "journal.db"
    shutil.copy(template[0], path)

    def problems(*statements):
        with sqlite3.connect(path) as line:
            for statement in statements:
                line.execute(statement)
        line.close()
        with Journal(path, template[1], read_only=True) as journal:
            return verify_journal(journal)["problems"]

    return path, problems


def test_an_untouched_journal_is_whole(copied):
    assert copied[1]() == []


@pytest.mark.parametrize("column, value", [
    ("body", '{"p_up":0.9}'), ("written_at", 0), ("open_time", 7), ("model", "other"), ("symbol", "ETHUSDT"),
    ("timeframe", "4h"), ("kind", "gap"), ("late", 1),
])
def test_every_edited_column_of_any_row_is_named(copied, column, value):
    row = random.Random(column).randrange(2, 26)
    found = copied[1](f"UPDATE journal SET {column} = {value!r} WHERE seq = {row}")
    assert row in [p["row"] for p in found if p["problem"].startswith("edited")]


@pytest.mark.parametrize("row", [1, 2, 13, 25])
def test_a_removed_row_is_named(copied, row):
    found = copied[1](f"DELETE FROM journal WHERE seq = {row}")
    assert any(p["row"] == row and "removed" in p["problem"] for p in found)


def test_a_rewritten_row_with_a_right_hash_breaks_the_row_behind_it(copied):
    path, problems = copied
    with Journal(path, read_only=True) as journal:
        row = journal.select(journal_tables().tables["journal"].select().where(
            journal_tables().tables["journal"].c.seq == 9))[0]
    new = row_hash(row | {"body": '{"p_up":0.99}'})
    found = problems(f"""UPDATE journal SET body = '{{"p_up":0.99}}', hash = '{new}' WHERE seq = 9""")
    assert [p["row"] for p in found] == [10] and "does not follow" in found[0]["problem"]


def test_only_forecasts_in_time_whose_outcome_is_known_count():
    from cryptolab.serving.forward import outcomes

    times = pd.date_range("2025-01-01", periods=5, freq="h", tz="UTC")
    candles = pd.DataFrame({"close": [100.0, 110.0, 99.0, 99.0]}, times[[0, 1, 2, 4]])  # one candle is missing
    forecasts = pd.DataFrame({"p_up": 0.5, "late": [0, 1, 0, 0]}, times[[0, 1, 2, 4]])
    found = outcomes(candles, forecasts, "1h")
    np.testing.assert_allclose(found["following"], [np.log(1.1), np.log(0.9), np.nan, np.nan])
    assert found["counts"].tolist() == [True, False, False, False]


def test_a_forecast_put_in_after_its_outcome_is_found(tmp_path):
    clock = ReplayClock(FIRST + 5 * HOUR + 1_000)
    with Journal(tmp_path / "j.db", clock) as journal:
        journal.write([e for e in entries(0, 5) if e.kind == "candle"])
        rows = journal.write([entries(3)[1]])
        assert rows[0]["late"] == 1  # the outcome, candle 4, is there already
        assert verify_journal(journal)["ok"]


def test_one_forecast_per_model_symbol_timeframe_and_candle(tmp_path):
    with Journal(tmp_path / "j.db", ReplayClock(FIRST + HOUR)) as journal:
        assert len(journal.write(entries(0))) == 2
        assert journal.write(entries(0)) == []
        assert len(journal.write(entries(0, 2))) == 2
        other = Entry("forecast", {"p_up": 0.1}, "n" * 64, "BTCUSDT", "1h", FIRST)
        assert len(journal.write([other])) == 1
        assert len(journal_rows(journal, "forecast")) == 3
        table = journal_tables().tables["journal"]
        with pytest.raises(Exception, match="UNIQUE"), journal.engine.begin() as line:
            line.execute(table.insert(), {**journal.select(table.select())[1], "seq": 99})


def test_a_clock_that_goes_back_writes_no_earlier_time(tmp_path):
    clock = ReplayClock(FIRST + HOUR)
    with Journal(tmp_path / "j.db", clock) as journal:
        first = journal.write(entries(0))
        clock.base -= HOUR
        second = journal.write(entries(1))
        assert second[0]["written_at"] >= first[0]["written_at"]
        clock.base += 2 * HOUR
        assert verify_journal(journal)["ok"]


@pytest.mark.parametrize("damage", ["cut", "zeros", "text", "empty", "page", "gone"])
def test_a_damaged_file_is_refused_with_its_backup_and_left_alone(copied, damage):
    path, _ = copied
    with Journal(path):
        pass  # leaves a backup
    whole = path.read_bytes()
    new = {"cut": whole[:-5000], "zeros": bytes(len(whole)), "text": b"gone fishing", "empty": b"",
           "page": whole[:4096] + b"\xff" * 4096 + whole[8192:], "gone": None}[damage]
    path.unlink() if new is None else path.write_bytes(new)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with pytest.raises(JournalError, match="backup") as caught:
        Journal(path).open()
    assert str(backup_path(path)) in str(caught.value)
    assert not path.exists() if new is None else path.read_bytes() == new
    shutil.copy(backup_path(path), path)
    with Journal(path) as journal:
        assert verify_journal(journal)["ok"] and journal.seq == 25


def test_a_locked_file_is_waited_for_then_refused(copied):
    path, _ = copied
    line = sqlite3.connect(path, isolation_level=None)
    line.execute("PRAGMA locking_mode=EXCLUSIVE")
    line.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(JournalUnavailable, match="locked"):
            Journal(path).open()
    finally:
        line.close()


def test_a_second_writer_is_refused_while_readers_are_not(copied):
    path, _ = copied
    with Journal(path) as journal:
        with pytest.raises(JournalError, match="another process"):
            Journal(path).open()
        with Journal(path, read_only=True) as reader:
            assert reader.seq == journal.seq


def test_a_writer_whose_head_has_moved_writes_nothing(copied):
    path, _ = copied
    with Journal(path, ReplayClock(FIRST + 30 * HOUR)) as journal:
        with sqlite3.connect(path) as line:  # where locks do not work
            line.execute("UPDATE journal_head SET hash = 'x'")
        line.close()
        with pytest.raises(JournalError, match="another process"):
            journal.write(entries(20))
        assert len(journal_rows(journal)) == 25


def test_a_full_disk_loses_nothing(copied):
    path, _ = copied
    with Journal(path, ReplayClock(FIRST + 30 * HOUR)) as journal:
        pages = journal._line.connection.driver_connection.execute("PRAGMA page_count").fetchone()[0]
        journal._line.rollback()
        journal._line.connection.driver_connection.execute(f"PRAGMA max_page_count={pages}")
        big = [Entry("forecast", {"text": "x" * 50_000}, MODEL, "BTCUSDT", "1h", FIRST + k * HOUR) for k in (50, 51)]
        with pytest.raises(JournalUnavailable, match="disk is full"):
            journal.write(big)
        assert journal.seq == 25
        assert len(journal.write(big)) == 2  # a new connection without the limit: there is room again
        assert verify_journal(journal)["seq"] == 27


def test_tables_come_up_to_date_step_by_step(copied):
    path, _ = copied
    import sqlalchemy as sa

    steps = (*MIGRATIONS, ("2", lambda op: op.add_column("journal_head", sa.Column("note", sa.Text))))
    with Journal(path) as journal, journal.engine.begin() as line:
        assert migrate(line, steps) == "1"
        assert migrate(line, steps) == "2"
        assert "note" in {c["name"] for c in sa.inspect(line).get_columns("journal_head")}
    with pytest.raises(JournalError, match="newer version"):
        Journal(path).open()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    "A PostgreSQL of our own, on a socket: (address, start, stop)."
    pytest.importorskip("psycopg")
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        pytest.skip("no PostgreSQL on this machine")
    import getpass
    import os
    import tempfile

    home = tempfile.mkdtemp(prefix="pg", dir="/tmp")
    run = dict(capture_output=True, text=True, timeout=60)
    user = []
    if os.geteuid() == 0:  # PostgreSQL refuses root
        shutil.chown(home, "nobody")
        user = ["setpriv", "--reuid=nobody", "--clear-groups"]
    made = subprocess.run([*user, "initdb", "-D", f"{home}/data", "-A", "trust", "-U", "lab", "--no-sync"], **run)
    if made.returncode:
        pytest.skip(f"initdb: {made.stderr[-200:]}")

    def start():
        subprocess.run([*user, "pg_ctl", "-D", f"{home}/data", "-l", f"{home}/log", "-w", "-o",
                        f"-k {home} -c listen_addresses= -c fsync=off", "start"], check=True, **(run | {
                            "capture_output": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}))

    def stop():
        subprocess.run([*user, "pg_ctl", "-D", f"{home}/data", "-m", "immediate", "-w", "stop"], **run)

    start()
    yield f"postgresql+psycopg://lab@/postgres?host={home}", start, stop
    stop()
    shutil.rmtree(home, ignore_errors=True)


def test_postgresql_that_is_gone_for_a_while_loses_nothing(postgres):
    address, start, stop = postgres
    clock = ReplayClock(FIRST)
    with Journal(address, clock) as journal:
        journal.write(entries(0, 2))
        with pytest.raises(JournalError, match="another process"):
            Journal(address).open()
        stop()
        with pytest.raises(JournalUnavailable, match="cannot be reached"):
            journal.write(entries(2))
        with pytest.raises(JournalUnavailable):
            journal.write(entries(2))
        start()
        assert [row["seq"] for row in journal.write(entries(2))] == [6, 7]
        clock.sleep(10_000)
        found = verify_journal(journal)
        assert found["ok"] and found["rows"] == 7
    with Journal(address, clock) as journal:
        assert journal.seq == 7
