"""The leaderboard: corrections as in statsmodels, same files same bytes, damaged results, hostile names, browser."""
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from cryptolab.config import SettingsError
from cryptolab.reports.policy import script_sum
from cryptolab.reports.leaderboard import leaderboard_summary, corrected, leaderboard, page_names, write_leaderboard

BROWSER = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")) if p), None)
EVIL = '"><img src=x onerror=alert(1)>'


def result(symbol="BTCUSDT", timeframe="1h", edge=1.0, p=0.3, net=-12.0, **more):
    "A result with every part the leaderboard reads."
    up = {
        "n": 1491, "accuracy": 0.5 + edge / 100, "accuracy_low": 0.47, "accuracy_high": 0.53, "roc_auc": 0.51,
        "roc_auc_low": 0.48, "roc_auc_high": 0.54, "p_majority": p,
    }
    rivals = {
        "majority": {"edge": edge, "edge_low": edge - 3, "edge_high": edge + 3},
        "LightGBM": {"edge": edge - 1, "edge_low": edge - 4, "edge_high": edge + 2},
    }
    costs = {
        "V9": {
            "gross_bp": 2.4, "gross_low": 0.6, "gross_high": 4.3, "break_even_bp": net + 15, "break_even_low": net + 13,
            "break_even_high": net + 17, "net_bp": net,
        },
        "buy_and_hold": {"net_bp": 0.8},
    }
    volatility = {
        "V9": {"qlike": 0.2, "skill": 0.5, "skill_low": 0.3, "skill_high": 0.6}, "persistence": {"qlike": 0.4},
        "HAR": {"qlike": 0.25},
    }
    return {
        "system": "v9",
        "symbol": symbol,
        "timeframe": timeframe,
        "finding": f"Direction of {symbol}.",
        "cost_per_side": 0.0015,
        "params": {"profile": "quick"},
        "data": {
            "source": "local",
            "candles": 10000,
            "first": "2024-05-10 08:00:00+00:00",
            "last": "2025-06-30 23:00:00+00:00",
        },
        "direction": {"V9": up, "majority": {"accuracy": 0.5}},
        "rivals": rivals,
        "costs": costs,
        "volatility": volatility,
        "price": {"V9 ensemble": {"mase": 0.9992, "mase_low": 0.9986, "mase_high": 0.9998}},
        "interval": {"stated": 0.9, "coverage": 0.93},
        "leaks": {"found": []},
        "certificate": {"columns": 46, "passed": 46},
        "trials": {"trials": 1, "deflated": 0.99},
        "run": {"seconds": {"total": 270.0}},
        "deciles": {
            str(k): {"n": 149, "accuracy": 0.48 + k / 100, "low": 0.4 + k / 100, "high": 0.56 + k / 100}
            for k in range(1, 11)
        },
    } | more


def put(out, value, folder=None):
    "A report folder with that result (dict or raw text)."
    folder = out / (folder or f"{value['symbol']}-{value['timeframe']}-v9")
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(value if isinstance(value, str) else json.dumps(value))
    (folder / "report.html").write_text("<p>a report")
    return folder


COINS = [
    ("BTCUSDT", "1h", 6.0, 0.0002), ("BTCUSDT", "1d", 0.5, 0.40), ("ETHUSDT", "1h", 3.0, 0.03),
    ("ETHUSDT", "15m", -2.0, 0.90), ("SOLUSDT", "1h", 1.0, 0.25),
]


@pytest.fixture
def out(tmp_path):
    "Five reports, a truncated result, a failed job, and one whose newest run failed."
    out = tmp_path / "all reports"
    for symbol, timeframe, edge, p in COINS:
        put(
            out,
            result(symbol, timeframe, edge, p, leaks={"found": [{"kind": "scaler"}] if symbol == "SOLUSDT" else []}),
        )
    put(out, '{"system": "v9", "symbol": "XRPU', "XRPUSDT-1h-v9")
    jobs = {
        "ADAUSDT-1d-v9": {
            "state": "failed", "seconds": 12.5, "error": {"name": "DataError", "message": "too few candles", "cell": 9},
        },
        "ETHUSDT-15m-v9": {"state": "failed", "error": "killed"}, "BTCUSDT-1h-v9": {"state": "done", "seconds": 3},
    }
    (out / "status.json").write_text(json.dumps({"jobs": jobs}))
    (out / "ADAUSDT-1d-v9.failed.ipynb").write_text("{}")
    return out


class Page(HTMLParser):
    "Links, what the page would ask for, ids, rows and texts by tag."

    def __init__(self, text):
        super().__init__()
        self.links, self.asked, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "a":
            self.links.append(attrs["href"])
        else:
            self.asked += [attrs[k] for k in ("src", "href", "data", "poster") if attrs.get(k)]


def state(out):
    "Every file the leaderboard wrote."
    return {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".html", ".json") and p.name != "status.json"}


# ---- numbers

@pytest.mark.parametrize("n", [1, 2, 8, 114])
def test_corrections_are_those_of_statsmodels(n):
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(n)
    # with ties and both ends
    p = np.concatenate([rng.random(n), rng.random(n) ** 6, [0.0, 1.0], rng.choice([0.01, 0.2], n)])
    p = rng.permutation(np.concatenate([p, [np.nan] * 3]))
    mine, known = corrected(p), np.isfinite(p)
    for column, method in (("p_holm", "holm"), ("q", "fdr_bh")):
        np.testing.assert_allclose(mine[column][known], multipletests(p[known], method=method)[1], rtol=1e-12)
        assert mine[column][~known].isna().all()


def test_every_number_stands_in_its_column(tmp_path):
    put(tmp_path, result(edge=2.0, p=0.04))
    r = leaderboard(tmp_path).iloc[0]
    wanted = dict(
        system="v9", symbol="BTCUSDT", timeframe="1h", profile="quick", n=1491, accuracy=0.52, majority=0.5, edge=2.0,
        edge_low=-1.0, edge_high=5.0, rival="LightGBM", rival_edge=1.0, rival_low=-2.0, rival_high=4.0, p=0.04,
        p_holm=0.04, q=0.04, roc_auc=0.51, gross_bp=2.4, break_even_bp=3.0, cost_bp=15.0, net_bp=-12.0, hold_bp=0.8,
        vol_skill=0.5, vol_skill_low=0.3, vol_best="HAR", vol_best_skill=0.2, mase=0.9992, stated=0.9, coverage=0.93,
        leaks=0, certified=46, columns=46, trials=1, deflated=0.99, source="local", first="2024-05-10",
        last="2025-06-30", seconds=270.0, status="done", link="BTCUSDT-1h-v9/report.html",
    )
    for key, value in wanted.items():
        assert r[key] == (value if isinstance(value, str) else pytest.approx(value)), key


def test_the_correction_counts_the_whole_board_and_only_reports_with_a_test(out):
    board = leaderboard(out)
    assert board.attrs["tests"] == 5 and len(board) == 7
    assert board["p"].head(5).is_monotonic_increasing
    np.testing.assert_allclose(board["p_holm"].head(2), [5 * 0.0002, 4 * 0.03])
    eth = board[board["symbol"] == "ETHUSDT"]
    assert "after correction for all 5 tests of the leaderboard" in leaderboard_summary(eth, 5)


def test_words_say_what_is_there_and_nothing_more_hopeful(out):
    words = leaderboard_summary(leaderboard(out))
    for part in (
        "5 reports on 3 coins and 3 timeframes; 1 failed; 1 cannot be read.",
        "1 of 5 is distinguishable from guessing after correction for 5 tests: BTCUSDT 1h v9 (+6.0 points).",
        "None would have survived costs of 15 basis points per side.", "A leak was found in 1 report (SOLUSDT 1h v9)",
        "1 result is from an earlier run",
    ):
        assert part in words, words


def test_words_about_profits_leaks_and_generated_candles(tmp_path):
    put(tmp_path, result("AUSDT", edge=9, p=1e-9, net=4.0, leaks={"found": [{"kind": "x"}]}))
    put(tmp_path, result("BUSDT", net=0.5, data={"source": "sample"}, certificate={"columns": 46, "passed": 45}))
    put(tmp_path, {"system": "v9", "symbol": "CUSDT", "timeframe": "1h"})
    words = leaderboard_summary(leaderboard(tmp_path))
    survived = "2 of 2 would have survived costs of 15 basis points per side (AUSDT 1h v9, BUSDT 1h v9)"
    for part in (
        "AUSDT 1h v9 (+9.0 points, but a leak was found in it)", f"{survived}; 1 of them earned more",
        "in 1 the whole interval", "1 report was not searched for leaks", "In 1 report not every feature",
        "1 report is about a generated market",
    ):
        assert part in words, words


# ---- faults

@pytest.mark.parametrize("text", [
    "", "{", "[]", "null", '{"symbol": "BTCUSDT"}', "\x00\xff", "[" * 100_000, '{"system": "v9"} trailing',
], ids=lambda t: repr(t[:12]))
def test_a_damaged_result_is_a_row_and_not_an_error(tmp_path, text):
    put(tmp_path, result())
    put(tmp_path, text, "ETHUSDT-1h-v9")
    board = leaderboard(tmp_path)
    assert (
        list(board["status"]) == ["done", "unreadable"]
        and list(board["symbol"]) == ["BTCUSDT", "ETHUSDT"]
        and board["error"][1]
    )
    assert "1 cannot be read" in write_leaderboard(tmp_path).read_text()


@pytest.mark.parametrize("parts", [
    {"direction": []}, {"direction": {"V9": None}},
    {"direction": {"V9": {"accuracy": "0.5", "p_majority": 7}, "majority": {}}}, {"rivals": [1, 2]},
    {"rivals": {"majority": {"edge": None}}}, {"costs": None}, {"cost_per_side": None},
    {"volatility": {"V9": {"qlike": 0.1}}}, {"volatility": {"V9": {}, "persistence": {"qlike": 0}}},
    {"deciles": {"1": 3}}, {"deciles": []}, {"leaks": "none"},
    {"probabilities": {"accuracy of the surest tenth": 4}, "deciles": None}, {"timeframe": "7x"}, {"timeframe": None},
    {"timeframe": {"a": 1}}, {"symbol": 5}, {"data": 3}, {"params": []}, {"run": {"seconds": 10**400}},
    {"cost_per_side": 10**400}, {"finding": None},
    {"direction": {"V9": {"accuracy": float("nan"), "p_majority": float("inf")}}},
], ids=lambda parts: json.dumps(parts)[:60])
def test_odd_parts_become_empty_cells(tmp_path, parts):
    put(tmp_path, result("ETHUSDT"))
    put(tmp_path, {**result(), **parts}, "BTCUSDT-1h-v9")
    page = write_leaderboard(tmp_path).read_text()
    assert page.count("<tr ") == 2 and not re.search(
        r"\bnan\b|\bNone\b|\binf\b", re.sub(r"(?s)<style>.*?</style>|<script>.*?</script>|None (would|of)", "", page),
    )
    json.loads((tmp_path / "leaderboard.json").read_text(), parse_constant=lambda c: pytest.fail(c))


def test_failed_and_stale_jobs_are_on_the_board(out):
    board = leaderboard(out).set_index("folder")
    ada, eth = board.loc["ADAUSDT-1d-v9"], board.loc["ETHUSDT-15m-v9"]
    assert (ada.status, ada.error, ada.seconds, ada.link) == (
        "failed", "DataError: too few candles (cell 9)", 12.5, "ADAUSDT-1d-v9.failed.ipynb",
    )
    assert (ada.symbol, ada.timeframe, ada.system) == ("ADAUSDT", "1d", "v9") and np.isnan(ada.p_holm)
    assert (eth.status, eth.error, eth.p) == ("stale", "killed", 0.90)
    assert board.loc["BTCUSDT-1h-v9"].status == "done"


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"jobs": [1]}', '{"jobs": null}'])
def test_a_damaged_status_is_reported(out, text):
    (out / "status.json").write_text(text)
    assert "status.json cannot be read" in leaderboard_summary(leaderboard(out)) and len(leaderboard(out)) == 6


def test_an_empty_folder_gets_a_page_that_says_what_to_do(tmp_path):
    page = write_leaderboard(tmp_path).read_text()
    assert "There is no report here yet" in page and "cryptolab batch" in page and "<table" not in page
    assert json.loads((tmp_path / "leaderboard.json").read_text())["reports"] == []
    with pytest.raises(SettingsError, match="no folder"):
        write_leaderboard(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_hidden_and_foreign_folders_do_not_count(tmp_path):
    put(tmp_path, result())
    put(tmp_path, result("ETHUSDT"), ".ETHUSDT-1h-v9.partial-7")
    put(tmp_path, result("SOLUSDT"), ".work")
    (tmp_path / "claims").mkdir()
    assert list(leaderboard(tmp_path)["symbol"]) == ["BTCUSDT"]


# ---- purity

def test_same_files_same_bytes_whatever_the_order(out, tmp_path):
    write_leaderboard(out)
    first = state(out)
    write_leaderboard(out)
    assert state(out) == first
    again = tmp_path / "elsewhere"
    again.mkdir()
    for path in sorted(out.iterdir(), reverse=True):  # made in another order, at another time, in another place
        if path.is_dir():
            shutil.copytree(path, again / path.name)
            os.utime(again / path.name / "result.json", (1e9, 1e9))
        elif path.name not in first:
            shutil.copy(path, again)
    write_leaderboard(again)
    assert state(again) == first
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_ties_keep_one_order(tmp_path):
    for k in (3, 1, 2):
        put(tmp_path, result(), f"copy{k}-1h-v9")
    assert list(leaderboard(tmp_path)["folder"]) == ["copy1-1h-v9", "copy2-1h-v9", "copy3-1h-v9"]


def test_json_and_table_say_the_same(out):
    write_leaderboard(out)
    stored, board = json.loads((out / "leaderboard.json").read_text()), leaderboard(out)
    assert stored["tests"] == 5 and stored["words"] == leaderboard_summary(board)
    for row, (_, r) in zip(stored["reports"], board.iterrows(), strict=True):
        assert list(row) == list(r.index)
        assert [k for k, v in row.items() if not (v == r[k] or v is None and pd.isna(r[k]))] == []


# ---- the pages

def test_every_link_leads_to_a_file_and_nothing_is_asked_of_a_network(out):
    write_leaderboard(out)
    pages = [p for p in out.glob("*.html")]
    assert {p.stem for p in pages} == {"index", "BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT"}
    for path in pages:
        page = Page(path.read_text())
        assert page.links and not [link for link in page.links if not (out / unquote(link)).is_file()], path
        assert [a for a in page.asked if a != "data:,"] == [] and "http" not in re.sub(
            r"http-equiv", "", path.read_text()
        )
    assert "Direction of BTCUSDT." in (
        out / "BTCUSDT.html"
    ).read_text() and "Direction of ETHUSDT." not in (out / "BTCUSDT.html").read_text()


def test_hostile_names_stay_text_and_inside_the_folder(tmp_path, page_problems):
    out = tmp_path / "out"
    put(out, result(EVIL, finding=EVIL), "a b&c#1?-1h-v9")
    put(out, result("../../escape", system=EVIL), "x-1h-v9")
    put(out, result("index", timeframe=EVIL), "y-1h-v9")
    put(out, result("btcusdt"), "z-1h-v9")
    put(out, result("BTCUSDT"), "z-1h-v8")
    (out / "status.json").write_text(json.dumps({f"{EVIL}-1h-v9": {"state": "failed", "error": EVIL}}))
    write_leaderboard(out)
    names = {p.name for p in out.glob("*.html")}
    assert len({n.lower() for n in names}) == len(names) and [p.name for p in tmp_path.iterdir()] == ["out"]
    for path in out.glob("*.html"):
        page = Page(path.read_text())
        assert not [tag for tag, attrs in page.tags if tag == "img" or "onerror" in attrs], path
        assert page_problems(path.read_text()) == [], path
        assert not [link for link in page.links if not (out / unquote(link)).is_file()], path


def everywhere(value, text):
    "The same result with a text in place of every text, also of the names of methods."
    if isinstance(value, dict):
        return {f"{k}{text}" if k[0].isupper() else k: everywhere(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [everywhere(v, text) for v in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize("text", [
    EVIL, "' onclick='alert(1)", "</script><script>alert(1)</script>", "a\u202eb", "\ud800",
])
def test_every_text_of_a_result_may_be_hostile(tmp_path, page_problems, shown_text, text):
    put(tmp_path, everywhere(result(probabilities=EVIL), text), "a-1h-v9")
    put(tmp_path, everywhere(trader(), text), "b-1h-v9")
    put(tmp_path, json.dumps({"system": text, "symbol": {"a": text}}), "c-1h-v9")
    jobs = {"a-1h-v9": {"state": "failed", "error": {"name": text, "message": text, "cell": text}}}
    (tmp_path / "status.json").write_text(json.dumps({"jobs": jobs}))
    pages = [write_leaderboard(tmp_path), *tmp_path.glob("*.html")]
    assert len(pages) >= 3
    for page in pages:
        assert page_problems(page.read_text()) == [], page
    shown = text.replace("\u202e", "\\u202e").replace("\ud800", "\\ud800")  # what cannot be seen is written out
    assert shown_text(pages[0].read_text()).count(shown) > 5
    errors = [row["error"] for row in json.loads((tmp_path / "leaderboard.json").read_text())["reports"]]
    assert f"{shown}: {shown} (cell {shown})" in errors


def test_a_job_cannot_name_a_file_outside_the_folder(tmp_path):
    out = tmp_path / "out"
    put(out, result())
    (tmp_path / "secret.failed.ipynb").write_text("{}")
    names = ["../secret", str(tmp_path / "secret"), "/" + str(tmp_path / "secret"), "\ud800"]
    (out / "status.json").write_text(json.dumps({name: {"state": "failed", "error": "x"} for name in names}))
    board = leaderboard(out)
    assert len(board) == 5 and set(board["link"][board["status"] == "failed"]) == {""}
    assert Page(write_leaderboard(out).read_text()).links and "secret.failed" not in (out / "index.html").read_text()


def test_page_names_are_safe_and_distinct():
    odd = [
        "BTCUSDT", "btcusdt", "BTCUSDT_", "index", "INDEX", "..", ".work", "a/b", "a\\b", "", "x" * 300, "é",
        "con.trol\n",
    ]
    names = page_names(odd)
    assert set(names) == set(odd) and len({n.lower() for n in names.values()}) == len(odd)
    assert all(
        re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,110}\.html", n) and n.lower() != "index.html"
        for n in names.values()
    )


def test_pages_of_coins_that_are_gone_are_removed_and_files_of_others_are_not(out):
    write_leaderboard(out)
    (out / "notes.html").write_text("<p>mine")
    shutil.rmtree(out / "SOLUSDT-1h-v9")
    write_leaderboard(out)
    assert not (
        out / "SOLUSDT.html"
    ).exists() and (out / "notes.html").read_text() == "<p>mine" and (out / "ETHUSDT.html").exists()


def test_a_full_disk_leaves_the_old_board_whole(out, monkeypatch):
    import cryptolab.files as folder

    write_leaderboard(out)
    before, names = state(out), sorted(p.name for p in out.iterdir())
    put(out, result("LTCUSDT"))

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_leaderboard(out)
    assert state(out) == before and sorted(p.name for p in out.iterdir()) == sorted([*names, "LTCUSDT-1h-v9"])


def test_a_large_board_is_quick_and_small(tmp_path):
    for k in range(38):
        for timeframe in ("15m", "1h", "1d"):
            put(tmp_path, result(f"C{k:02}USDT", timeframe, edge=k / 10 - 2, p=(k + 1) / 40))
    page = write_leaderboard(tmp_path).read_text()
    assert (
        page.count("<tr ") == 114
        and page.count("<svg") == 114
        and "Corrected for 114 tests" in page
        and len(page) < 1_000_000
    )


# ---- in a browser

PROBE = """<script>
const note = {}, heads = Array.from(document.querySelectorAll("#board thead button"));
const column = k => Array.from(document.querySelectorAll("#board tbody tr"))
  .filter(r => !r.hidden).map(r => r.cells[k].dataset.v);
const at = name => heads.findIndex(b => b.textContent === name);
const click = name => { heads[at(name)].click(); return column(at(name)); };
note.edge = [click("Edge"), click("Edge")]; note.sorted = heads[at("Edge")].parentNode.getAttribute("aria-sort");
note.report = click("Report").map(v => v.split(" ")[1]);
note.cleared = heads[at("Edge")].parentNode.getAttribute("aria-sort");
note.focusable = heads.every(b => b.tabIndex === 0);
const coin = document.querySelector("[data-filter=coin]"), found = document.querySelector("[data-filter=found]");
const tell = () => form.dispatchEvent(new Event("input"));
coin.value = "ETHUSDT"; tell();
note.coin = [column(0),
  document.querySelectorAll("figure:not([hidden])").length, document.getElementById("shown").textContent];
coin.value = ""; found.checked = true; tell(); note.found = column(0);
found.checked = false; tell(); note.all = column(0).length;
const width = e => e.getBoundingClientRect().width;
note.overflow = document.documentElement.scrollWidth - window.innerWidth;
note.scrolls = document.querySelector(".box").scrollWidth > document.querySelector(".box").clientWidth;
note.bars = Array.from(document.querySelectorAll(".bar")).filter(b => width(b) > 3).length;
note.drawn = Array.from(document.querySelectorAll("svg")).filter(s => width(s) > 60).length;
document.body.setAttribute("data-note", JSON.stringify(note));
</script>"""


def opened(page, tmp_path, width):
    "What the probe noted in a headless browser, and the console's complaints."
    options = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", f"--window-size={width},900",
        "--dump-dom",
    ]
    done = subprocess.run([BROWSER, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    notes = [attrs["data-note"] for _, attrs in Page(done.stdout).tags if "data-note" in attrs]
    return notes, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="no headless browser: install chromium")
@pytest.mark.parametrize("width", [1280, 500])
def test_sorting_filters_and_charts_work_in_a_browser(out, tmp_path, width):
    page = write_leaderboard(out)
    probed = out / "probed.html"
    text, allowed = page.read_text().replace("</body>", PROBE + "</body>"), script_sum(PROBE[8:-9])
    assert text.count("script-src '") == 1 and PROBE[:8] + PROBE[-9:] == "<script></script>"
    probed.write_text(text.replace("script-src '", f"script-src {allowed} '"))  # the page lets in no script but its own
    notes, complaints = opened(probed, tmp_path, width)
    assert complaints == [] and len(notes) == 1
    note = json.loads(notes[0])
    down, up = ([float(v) for v in values if v] for values in note["edge"])
    assert (
        down == sorted(down, reverse=True)
        and up == sorted(up)
        and [values[-2:] for values in note["edge"]] == [["", ""]] * 2
    ), "missing values last both ways"
    assert (note["sorted"], note["cleared"], note["focusable"]) == ("ascending", None, True)
    assert note["report"] == ["15m", "1h", "1h", "1h", "1h", "1d", "1d"]
    assert note["coin"] == [["ETHUSDT"] * 2, 2, "2 of 7 shown"] and note["found"] == ["BTCUSDT"] and note["all"] == 7
    assert note["overflow"] <= 0 and note["scrolls"] and note["bars"] == 5 and note["drawn"] == 5


def trader(system="v2", p_auc=0.2, over=None, shadow=False, total=-0.05):
    "A result of a system that trades."
    at = lambda value, low=None, high=None, reference=None: {
        "value": value, "low": low, "high": high, "reference": reference,
    }
    summary = {
        "trades": at(120.0, reference=400.0), "total_return": at(total, total - 0.1, total + 0.1, 0.2),
        "win_rate": at(0.3, 0.2, 0.4, 0.36), "sharpe": at(-1.0, -3.0, 1.0, 0.9),
        "max_drawdown": at(-0.2, -0.4, -0.1, -0.3), "break_even_cost": at(0.0004, -0.001, 0.002, 0.0015),
    }
    event = {
        "name": "target before <stop>",
        "n": 900,
        "methods": {"V2": {"roc_auc": 0.56, "auc_low": 0.53, "auc_high": 0.59, "p_auc": p_auc}},
    } | ({"over": over} if over else {})
    return {
        "system": system, "symbol": "BTCUSDT", "timeframe": "15m", "finding": "Event: x.", "cost_per_side": 0.0015,
        "data": {"source": "local", "candles": 9000}, "event": event, "leaks": {"found": []},
        "trading": {"summary": summary, "candles": 5000, "shadow": shadow},
    }


def test_systems_that_trade_stand_on_the_same_board(tmp_path):
    "Their account, their event, and a p-value against the rival that knows volatility alone."
    put(tmp_path, result(edge=2.0, p=0.04))
    put(tmp_path, trader(), "BTCUSDT-15m-v2")
    over = {
        "volatility alone": {"value": 0.03, "low": 0.02, "high": 0.04, "p_value": 0.002},
        "LightGBM": {"value": 0.01, "low": -0.01, "high": 0.03, "p_value": 0.1},
    }
    put(tmp_path, trader("hybrid", p_auc=0.002, over=over, shadow=True, total=0.05), "BTCUSDT-15m-hybrid")
    board = leaderboard(tmp_path).set_index("system")
    # 3 points of area with an interval of one (a bootstrap of 500 cannot show that); 6 with an interval of 3
    assert board.p["v2"] == 0.2 and board.p["hybrid"] < 1e-4
    assert (board.rival["hybrid"], board.rival_edge["hybrid"]) == ("LightGBM", pytest.approx(1.0)) and np.isnan(
        board.edge["hybrid"]
    )
    assert (
        board.break_even_bp["v2"] == pytest.approx(4.0)
        and board.net_bp["v2"] == pytest.approx(-0.1)
        and board.hold_bp["v2"] == pytest.approx(0.4)
    )
    words = leaderboard_summary(leaderboard(tmp_path))
    assert (
        "BTCUSDT 15m hybrid (AUC 0.560)" in words
        and "1 of 3 would have survived costs of 15 basis points per side (BTCUSDT 15m hybrid); 0 of them earned more"
        in words
    )
    page = write_leaderboard(tmp_path).read_text()
    assert (
        "target before &lt;stop&gt;" in page
        and "shadow: not traded" in page
        and "needed 36 %" in page
        and "holding +20.0 %" in page
    )
