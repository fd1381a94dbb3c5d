"""The watch and what is built on it: killed, lied to, asked too much; nothing is lost and nothing is forecast twice."""
import json
import os
import random
import shutil
import signal
import sqlite3
import threading
import time

import pandas as pd
import pytest

from cryptolab.config import ModelError, SettingsError
from cryptolab.data import sample_market
from cryptolab.serving import (
    ExchangeLine, ForecastService, Journal, ReplayClock, ServedModel, StandInExchange, Watch, journal_candles,
    journal_forecasts, journal_rows, make_app, run_demo, verify_journal,
)
from cryptolab.systems.reference import Reference

pytest.importorskip("ccxt")
FIELDS = ["open", "high", "low", "close", "volume"]
PAIR = ("BTCUSDT", "1h")


@pytest.fixture(scope="module")
def market():
    "A market, and a system fitted on its first part."
    candles = sample_market(n=2_400, end="2024-06-01")
    return candles, Reference(profile="smoke", threads=1).fit(candles.iloc[:2_000], log=None)


@pytest.fixture(scope="module")
def folder(market, tmp_path_factory):
    "The model's folder, as a report has it."
    home = tmp_path_factory.mktemp("reports") / "BTCUSDT-1h-reference" / "model"
    return market[1].save(home)


class Bench:
    "A market on its way: exchange, clock, journal, watch."

    def __init__(self, candles, folder, path, begin=2_100, pairs=(PAIR,), workers=1):
        self.candles, self.clock = candles, ReplayClock(candles.index[begin])
        self.exchange = StandInExchange(candles, self.clock).__enter__()
        self.journal = Journal(path, self.clock).open()
        self.said = []
        line = ExchangeLine("binance", self.exchange.url, self.clock, timeout=0.5, workers=workers)
        self.watch = Watch(self.journal, line, list(pairs), [ServedModel(folder)], history=800, log=self.said.append)

    def until(self, row):
        "Watch to the opening of a candle."
        return self.watch.run(int(self.candles.index[row].timestamp() * 1000))

    def close(self):
        self.journal.close()
        self.exchange.__exit__()


@pytest.fixture
def bench(market, folder, tmp_path):
    made = Bench(market[0], folder, tmp_path / "journal.db")
    yield made
    made.close()


def same_as_table(bench, system, first=1_300):
    "The journal's forecasts are to the last bit those of the table; returns them."
    forecasts = journal_forecasts(bench.journal, next(iter(bench.watch.models)).sha256, *PAIR)
    candles = journal_candles(bench.journal, *PAIR)
    whole = system.forecast(candles)
    assert forecasts.index.equals(whole.index[-len(forecasts):])
    for name in whole:
        assert forecasts[name].tolist() == whole[name].loc[forecasts.index].tolist(), name
    assert verify_journal(bench.journal, now=bench.clock.now())["ok"]
    return forecasts


def test_a_replay_gives_exactly_the_forecasts_of_the_table(bench, market):
    bench.until(2_200)
    forecasts = same_as_table(bench, market[1])
    assert len(forecasts) == 101 and not forecasts["late"].any()
    pd.testing.assert_frame_equal(
        pd.DataFrame(journal_candles(bench.journal, *PAIR)), pd.DataFrame(market[0][FIELDS].iloc[1_300:2_200]),
        check_exact=True, check_freq=False,
    )


@pytest.mark.parametrize("kind", ["timeout", "drop", "429", "html", "empty", "disorder", "silent"])
def test_a_fault_of_the_exchange_delays_and_changes_nothing(bench, market, kind):
    bench.until(2_103)
    bench.exchange.fault(kind, 2, seconds=1.0)
    bench.until(2_110)
    forecasts = same_as_table(bench, market[1])
    assert len(forecasts) == 11
    assert forecasts["late"].sum() <= 1


def test_a_missing_candle_becomes_a_gap_and_a_changed_one_is_told(bench, market):
    bench.exchange.hide(*PAIR, market[0].index[2_105], 2)
    bench.until(2_110)
    low = float(market[0]["low"].iloc[2_109])
    bench.exchange.restate(*PAIR, market[0].index[2_109], close=low)
    bench.until(2_112)
    gap, = journal_rows(bench.journal, "gap")
    assert (gap["open_time"], gap["body"]) == (int(market[0].index[2_105].timestamp() * 1000), {"missing": 2})
    restated, = journal_rows(bench.journal, "restated")
    assert restated["body"]["new"]["close"] == low
    candles = journal_candles(bench.journal, *PAIR)
    assert candles["close"].loc[market[0].index[2_109]] == market[0]["close"].iloc[2_109]
    same_as_table(bench, market[1])


@pytest.mark.parametrize("hours", [-1, 1])
def test_clocks_that_differ_are_told_and_no_candle_is_believed_early(bench, market, hours):
    bench.exchange.clock_offset = hours * 3_600_000
    bench.until(2_106)
    row, = journal_rows(bench.journal, "clock")
    assert abs(row["body"]["offset_ms"] - hours * 3_600_000) < 5_000
    assert len(same_as_table(bench, market[1])) == 7


def test_after_a_break_everything_is_made_up_for_and_marked_late(market, folder, tmp_path):
    first = Bench(market[0], folder, tmp_path / "j.db", 2_100)
    first.until(2_105)
    first.close()
    second = Bench(market[0], folder, tmp_path / "j.db", 2_130)
    second.until(2_133)
    forecasts = same_as_table(second, market[1])
    second.close()
    assert len(forecasts) == 34 and forecasts["late"].sum() == 24


def test_a_journal_that_is_away_gets_everything_when_it_is_back(bench, market, monkeypatch):
    from cryptolab.serving import JournalUnavailable

    bench.until(2_103)
    real, calls = bench.journal.write, []

    def away(entries):
        calls.append(len(entries))
        if len(calls) < 4:
            raise JournalUnavailable("the database is away")
        return real(entries)

    monkeypatch.setattr(bench.journal, "write", away)
    bench.until(2_110)
    assert len(same_as_table(bench, market[1])) == 11 and len(calls) >= 4
    assert any("entries wait" in line for line in bench.said)


def test_a_model_that_is_altered_while_running_is_told_and_refused_at_the_next_start(market, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "BTCUSDT-1h-reference" / "model")
    made = Bench(market[0], copy, tmp_path / "j.db")
    made.until(2_102)
    (copy / "direction.txt").write_text((copy / "direction.txt").read_text() + " ")
    made.until(2_106)
    assert [row["body"]["file"] for row in journal_rows(made.journal, "altered")] == ["direction.txt"]
    same_as_table(made, market[1])
    made.close()
    with pytest.raises(ModelError, match="was changed"):
        ServedModel(copy)


def test_a_model_for_another_timeframe_is_refused_before_anything_is_written(market, folder, tmp_path):
    with pytest.raises(ModelError, match="fits none of the watched series"):
        Bench(market[0], folder, tmp_path / "j.db", pairs=[("BTCUSDT", "4h")])


def test_several_series_at_once(market, folder, tmp_path):
    other = sample_market("ETHUSDT", n=2_400, end="2024-06-01")
    clock = ReplayClock(market[0].index[2_100])
    with StandInExchange([market[0], other], clock) as exchange, Journal(tmp_path / "j.db", clock) as journal:
        line = ExchangeLine("binance", exchange.url, clock, workers=3)
        watch = Watch(journal, line, [PAIR, ("ETHUSDT", "1h")], [ServedModel(folder)], history=600, everywhere=True)
        watch.run(int(market[0].index[2_106].timestamp() * 1000))
        counts = pd.DataFrame(journal_rows(journal, "forecast"))["symbol"].value_counts()
        assert counts.to_dict() == {"BTCUSDT": 7, "ETHUSDT": 7}
        assert verify_journal(journal, now=clock.now())["ok"]


# -- killed ------------------------------------------------------------------------------------------------------------

def rows_without_times(path):
    "A journal row for row, times of writing aside."
    with Journal(path, read_only=True) as journal:
        rows = journal_rows(journal)
        assert verify_journal(journal, now=2**45)["ok"]
    for row in rows:
        for name in ("written_at", "late", "hash", "previous"):
            row.pop(name)
        row["body"].pop("ms", None)
    return rows


def row_count(path):
    "Rows of a journal that another process writes."
    try:
        line = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        try:
            return line.execute("SELECT count(*) FROM journal").fetchone()[0]
        finally:
            line.close()
    except sqlite3.OperationalError:
        return 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments_the_journal_is_that_of_an_undisturbed_run(tmp_path):
    days, rng = 3, random.Random(7)
    undisturbed = run_demo(tmp_path / "whole", days)["journal"]
    shutil.copytree(tmp_path / "whole" / "BTCUSDT-1h-reference", tmp_path / "killed" / "BTCUSDT-1h-reference")
    path = tmp_path / "killed" / "journal.db"
    for target in (1, 4_004, 4_031, 4_062, 4_101, None):
        child = os.fork()
        if child == 0:
            try:
                os.close(1), os.close(2)
                run_demo(tmp_path / "killed", days)
            finally:
                os._exit(0)
        if target is None:
            os.waitpid(child, 0)
            break
        while row_count(path) < target and os.waitpid(child, os.WNOHANG)[0] == 0:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert rows_without_times(path) == rows_without_times(undisturbed)


# -- asked over HTTP ---------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def served(market, folder, tmp_path_factory):
    "A service with a journal that was just written, and the candles in it."
    made = Bench(market[0], folder, tmp_path_factory.mktemp("served") / "j.db")
    made.until(2_110)
    now, path = made.clock, made.journal.path
    candles = journal_candles(made.journal, *PAIR)
    made.close()
    service = ForecastService([ServedModel(folder)], path, now)
    yield service, candles
    service.close()


@pytest.fixture(scope="module")
def client(served):
    "A client on this machine."
    testing = pytest.importorskip("fastapi.testclient")
    return testing.TestClient(make_app(served[0], rate=1e6), base_url="http://127.0.0.1")


def body(candles, **more):
    "Candles as they are posted."
    rows = [[t.isoformat(), *map(float, row)] for t, row in zip(candles.index, candles[FIELDS].to_numpy())]
    return {"symbol": "BTCUSDT", "timeframe": "1h", "candles": rows} | more


def test_posted_candles_give_the_forecast_of_the_system_beside_the_base_rate(client, served, market):
    answer = client.post("/v1/forecast", json=body(served[1])).json()
    assert answer["p_up"] == market[1].forecast(served[1])["p_up"].iloc[-1]
    assert 0.3 < answer["base_rate"]["p_up"] < 0.7 and answer["base_rate"]["n"] == 809
    newest = client.get("/v1/forecast/BTCUSDT/1h").json()
    assert newest["p_up"] == answer["p_up"] and newest["journal"]["late"] == 0


@pytest.mark.parametrize("change, status", [
    (lambda b: b.update(symbol="../etc"), 422), (lambda b: b.update(timeframe="1 fortnight"), 422),
    (lambda b: b.update(timeframe="4h"), 404), (lambda b: b.update(model="nonsense"), 404),
    (lambda b: b.update(candles=[]), 422), (lambda b: b.update(candles="all"), 422),
    (lambda b: b.update(candles=b["candles"][::7]), 422), (lambda b: b["candles"][5].pop(), 422),
    (lambda b: b["candles"][5].__setitem__(2, "high"), 422), (lambda b: b["candles"][5].__setitem__(0, 1e300), 422),
    (lambda b: [row.__setitem__(4, float("nan")) for row in b["candles"]], 422),
    (lambda b: b["candles"].reverse(), 200),
    (lambda b: b["candles"][500].__setitem__(4, None), 200), (lambda b: b["candles"].append(b["candles"][-1]), 200),
])
def test_bad_bodies_are_refused_in_words_or_repaired_and_told(client, served, change, status):
    asked = body(served[1])
    change(asked)
    answer = client.post("/v1/forecast", content=json.dumps(asked), headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text[:300]
    told = answer.json()
    assert told["quality"] if status == 200 else told.get("what_to_do") or told.get("detail")


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"null", b'{"symbol": 1}'])
def test_bodies_that_are_no_json_never_break_the_server(client, content):
    answer = client.post("/v1/forecast", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)


def test_ten_megabytes_are_refused_with_and_without_a_length(client):
    assert client.post("/v1/forecast", content=b"x" * 10_000_000).status_code == 413
    assert client.post("/v1/forecast", content=(b"x" * 100_000 for _ in range(100))).status_code == 413


def test_another_address_needs_a_key_and_the_key_is_nowhere(served, monkeypatch, capsys):
    from fastapi.testclient import TestClient

    from cryptolab.serving.api import serve

    monkeypatch.delenv("CRYPTOLAB_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="needs a key"):
        serve(served[0], "0.0.0.0")
    key = "a-long-and-secret-key"
    locked = TestClient(make_app(served[0], key=key), base_url="http://10.0.0.5")
    wrong = ("", "a-long-and-secret-kez", "ä" * 20)
    refused = [locked.get("/v1/models", headers={"X-API-Key": k.encode()}) for k in wrong]
    assert [r.status_code for r in refused] == [401] * 3 and key not in "".join(r.text for r in refused)
    assert locked.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert key not in locked.get("/metrics", headers={"X-API-Key": key}).text + "".join(capsys.readouterr())


def test_a_page_in_a_browser_cannot_ask_under_its_own_name(served):
    from fastapi.testclient import TestClient

    assert TestClient(make_app(served[0]), base_url="http://attacker.example").get("/v1/models").status_code == 400


def test_a_real_server_answers_a_thousand_at_once_and_a_slow_client_holds_nobody_up(served):
    import socket

    import aiohttp
    import uvicorn

    app = make_app(served[0], rate=1e6, seconds=0.5)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        slow = socket.create_connection(("127.0.0.1", port))
        slow.sendall(b"POST /v1/forecast HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")

        async def many():
            import asyncio

            path = f"http://127.0.0.1:{port}/v1/forecast/BTCUSDT/1h"
            limit = aiohttp.TCPConnector(limit=200)  # httpx takes a minute of its own to queue a thousand requests

            async with aiohttp.ClientSession(connector=limit) as client:
                async def one():
                    async with client.get(path) as answer:
                        return answer.status, (await answer.json())["p_up"]

                return await asyncio.gather(*(one() for _ in range(1_000)))

        import asyncio

        answers = asyncio.run(many())
        assert {status for status, _ in answers} == {200} and len({p for _, p in answers}) == 1
        slow.settimeout(10)
        assert b" 408 " in slow.recv(200)
        slow.close()
    finally:
        server.should_exit = True
        thread.join(10)
