"""A report page alone in an empty folder, in a real browser: on a phone and a screen, light and dark."""
import base64
import gzip
import json
import os
import re
import select
import shutil
import subprocess
import tempfile
import time

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cryptolab.reports.charts import plotly_bundle
from cryptolab.reports.render import PLOTLY, render_html

BROWSER = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")) if p), None)
pytestmark = pytest.mark.skipif(BROWSER is None or os.name == "nt", reason="no headless browser: install chromium")
OLD = "delete window.DecompressionStream"


class Browser:
    "A headless browser, told through a pipe what to do (the Chrome DevTools protocol)."

    def __init__(self):
        (theirs_in, self.out), (self.back, theirs_out) = os.pipe(), os.pipe()
        os.set_inheritable(theirs_in, True), os.set_inheritable(theirs_out, True)
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = (
            "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
            "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe"
        )
        command = f'exec "{BROWSER}" {flags} --user-data-dir="{self.profile.name}" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", command], close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in), os.close(theirs_out)
        self.rest, self.number, self.session, self.said = b"", 0, None, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **params):
        "Send one command and wait for its answer."
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 120
        while True:
            while b"\0" not in self.rest:
                if not select.select([self.back], [], [], max(0, end - time.monotonic()))[0]:
                    raise TimeoutError(method)
                if not (piece := os.read(self.back, 1 << 20)):
                    raise EOFError(f"the browser ended during {method}")
                self.rest += piece
            line, self.rest = self.rest.split(b"\0", 1)
            told = json.loads(line)
            if told.get("id") == self.number:
                assert "error" not in told, told
                return told["result"]
            self.said.append(told)

    def run(self, code):
        "The value of a JavaScript expression; promises are waited for."
        told = self.ask("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait(self, code, seconds=60):
        "Ask again until the expression is true."
        end = time.monotonic() + seconds
        while not self.run(code):
            assert time.monotonic() < end, f"never true: {code}"
            time.sleep(0.1)

    def scheme(self, name):
        "Set what the page is told about the reader's system: dark or light."
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def open(self, address, width=1440, height=900, scheme="light"):
        "Load a page afresh."
        self.said.clear()
        self.scheme(scheme)
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def complaints(self):
        "What the console said, errors of scripts, and requests that left the page."
        bad = []
        for told in self.said:
            method, params = told.get("method"), told.get("params", {})
            if method == "Runtime.exceptionThrown":
                bad.append(params["exceptionDetails"])
            if method == "Runtime.consoleAPICalled" and "WebGL" not in json.dumps(params["args"]):
                bad.append(params["args"])
            if method == "Log.entryAdded" and "WebGL" not in params["entry"]["text"]:
                bad.append(params["entry"]["text"])
            if method == "Network.requestWillBeSent" and params["type"] != "Document":
                if not params["request"]["url"].startswith(("data:", "blob:")):
                    bad.append(params["request"]["url"])
        return bad

    def close(self):
        "End the browser."
        os.close(self.out), os.close(self.back)
        self.process.terminate()
        self.process.wait(timeout=30)
        self.profile.cleanup()


@pytest.fixture(scope="module")
def browser():
    "One browser for all tests of this file."
    made = Browser()
    yield made
    made.close()


def chart(title, *names, **layout):
    "A cell that shows a chart of lines, one of them nearly black."
    colors = ["#222222", "#0072B2", "#D55E00", "#767676"]
    data = [
        {
            "type": "scatter", "mode": "lines", "y": [0.5 + 0.001 * ((k * 7 + i) % 5) for i in range(9)],
            "name": name, "line": {"color": colors[k % 4]},
        } for k, name in enumerate(names)
    ]
    layout = {
        "title": {"text": title}, "showlegend": True, "plot_bgcolor": "#fff", "paper_bgcolor": "white",
        "xaxis": {"title": {"text": "candle"}}, "yaxis": {"title": {"text": "share"}}, **layout,
    }
    return new_code_cell("chart()", outputs=[new_output("display_data", {PLOTLY: {"data": data, "layout": layout}})])


def notebook():
    "Two charts in the open, one folded, a wide table, a warning, a finding."
    cells = "".join(f"<td>column {k}: {k / 7:.4f}</td>" for k in range(30))
    long = "A title of more than seventy letters, which plotly would cut on a phone and run into the legend"
    return new_notebook(cells=[
        new_markdown_cell("# BTCUSDT 1h\n\nOne hour ahead, a [link](report.ipynb) and `code`."),
        new_markdown_cell("## Accuracy"),
        chart(long, "the model of this page", "always up", "yesterday", "a fourth one", yaxis={"tickformat": ".0%"}),
        new_markdown_cell("## Table"),
        new_code_cell("", outputs=[new_output("display_data", {"text/html": f"<table><tr>{cells}</tr></table>"})]),
        new_markdown_cell("## Training", metadata={"tags": ["fold"]}),
        new_code_cell("", outputs=[
            new_output("stream", name="stdout", text="30 epochs, stopped by validation loss\nepoch 1\n"),
            new_output("stream", name="stderr", text="/x/a.py:3: FutureWarning: old\n  old()\n"),
        ]),
        chart("Loss", "training", "validation"),
        new_markdown_cell("## Empty"),
        new_code_cell("a = 1"),
        new_markdown_cell("## Price"),
        chart("Price", "close"),
        new_code_cell("", metadata={"tags": ["page-head"]}, outputs=[
            new_output("display_data", {"text/markdown": "**No gain over chance.**"}),
        ]),
    ])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    "The page, alone in an empty folder."
    made = render_html(notebook(), tmp_path_factory.mktemp("made") / "report.html", "BTCUSDT 1h")
    moved = shutil.move(made, tmp_path_factory.mktemp("alone") / "report.html")
    assert [p.name for p in moved.parent.iterdir()] == ["report.html"] and moved.stat().st_size < 3_000_000
    return moved


FIRST = "document.querySelector('.plot')"
CHARTS = "Array.from(document.querySelectorAll('.plot')).filter(p => p.querySelector('.main-svg .ytick text')).length"
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
BOX = "(q => (b => [b.left, b.top, b.right, b.bottom])(document.querySelector(q).getBoundingClientRect()))"
CLICK = "document.querySelector('a[href=\"#Training\"]').click()"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_a_page_alone_draws_everything_and_fits(browser, page, width, scheme):
    browser.open(page.as_uri(), width, scheme=scheme)
    browser.wait(f"{CHARTS} === 2")
    time.sleep(0.5)
    assert browser.complaints() == []
    assert browser.run(OVERFLOW) <= 0
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    inks = browser.run(
        "Array.from(document.querySelectorAll('.plot text')).map(t => getComputedStyle(t).fill)"
        ".concat(Array.from(document.querySelectorAll('.plot .js-line')).map(t => getComputedStyle(t).stroke))"
    )
    numbers = [int(v) for v in re.findall(r"\d+", background)][:3]
    assert len(inks) > 20 and min(contrast(numbers, ink) for ink in set(inks)) >= 3, set(inks)
    paper = browser.run("Array.from(document.querySelectorAll('.main-svg'), s => getComputedStyle(s).backgroundColor)")
    assert set(paper) <= {"rgba(0, 0, 0, 0)"}, "white paper on a dark page"
    back = browser.run("Array.from(document.querySelectorAll('.plot rect.bg'), r => getComputedStyle(r).fillOpacity)")
    assert back and {float(v) for v in back} == {0.0}
    ticks = browser.run(f"Array.from({FIRST}.querySelectorAll('.ytick text'), t => t.textContent)")
    assert len(ticks) >= 3 and len(set(ticks)) == len(ticks), ticks
    box, legend, grid = (browser.run(f"{BOX}('{part}')") for part in (".plot", ".legend", ".plot .nsewdrag"))
    left, top, right, bottom = box
    assert left <= legend[0] and legend[2] <= right + 1 and top <= legend[1] and legend[3] <= bottom + 1
    assert legend[3] <= grid[1] + 2 or legend[1] >= grid[3] - 2, "the legend covers the plot"
    if width == 390:
        words = f"Array.from({FIRST}.querySelectorAll('.xtick text, .xtitle'), t => t.getBoundingClientRect().bottom)"
        lowest = browser.run(f"Math.max(...{words})")
        assert legend[1] >= lowest - 2, "the legend covers the axis"
    assert grid[2] - grid[0] > 0.6 * (right - left), "the plot uses the width"
    caption = browser.run(f"{BOX}('figcaption')")
    assert caption[3] <= top + 1 and caption[2] <= width and browser.run("document.querySelector('.gtitle') === null")


def contrast(page, ink):
    "Contrast of a colour as the browser computes it with the page."
    def light(rgb):
        parts = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
        return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), parts)) + 0.05

    one, two = light(page), light([int(float(v)) for v in re.findall(r"[\d.]+", ink)][:3])
    return max(one, two) / min(one, two)


def test_the_page_is_read_from_the_top(page, browser):
    browser.open(page.as_uri())
    order = browser.run("Array.from(document.querySelector('main').children).map(e => e.className || e.tagName)")
    assert order[:3] == ["P", "contents", "H1"] and order[-1] == "FOOTER"
    assert browser.run("Array.from(document.querySelectorAll('nav a')).map(a => a.textContent)") == [
        "Accuracy", "Table", "Price", "Training",  # what is folded comes last
    ]
    text = browser.run("document.body.innerText")
    assert "1 warning, in report.ipynb" in text and "FutureWarning" not in text and "Empty" not in text
    assert text.count("30 epochs, stopped by validation loss") == 1 and "epoch 1" not in text


def test_a_link_opens_a_folded_section(page, browser):
    browser.open(page.as_uri())
    browser.wait(f"{CHARTS} === 2")
    assert not browser.run("document.querySelector('.section').open")
    browser.run(f"document.querySelector('.contents').open = true; {CLICK}")
    browser.wait(f"document.querySelector('.section').open && {CHARTS} === 3")
    assert browser.run(f"{BOX}('.section .main-svg')[2]") > 900, "as wide as the page, though it was folded"
    browser.run(f"document.querySelector('.section').open = false; {CLICK}")
    browser.wait("document.querySelector('.section').open")
    browser.open(page.as_uri() + "#Training")
    browser.wait(f"document.querySelector('.section').open && {CHARTS} === 3")
    assert browser.complaints() == []


def test_charts_follow_the_dark_while_the_page_is_open(page, browser):
    browser.open(page.as_uri())
    browser.wait(f"{CHARTS} === 2")
    ink = "getComputedStyle(document.querySelector('.plot .ytick text')).fill"
    line = "getComputedStyle(document.querySelector('.plot .js-line')).stroke"
    assert browser.run(ink) == "rgb(29, 35, 48)"
    browser.scheme("dark")
    browser.wait(f"{ink} === 'rgb(227, 230, 236)' && {line} === 'rgb(227, 230, 236)'")
    browser.scheme("light")
    browser.wait(f"{ink} === 'rgb(29, 35, 48)' && {CHARTS} === 2")
    assert browser.complaints() == []


def test_an_old_browser_says_so_instead_of_nothing(page, browser):
    made = browser.ask("Page.addScriptToEvaluateOnNewDocument", source=OLD)["identifier"]
    try:
        browser.open(page.as_uri())
        browser.wait("document.querySelectorAll('.sorry').length === 3")
        assert "This chart needs a browser from 2023 or later" in browser.run("document.body.innerText")
    finally:
        browser.ask("Page.removeScriptToEvaluateOnNewDocument", identifier=made)


@pytest.mark.parametrize("picture, shown", [
    ("", ".main-svg"), ('<img name="currentScript" alt="figure" src="data:,">', ".sorry"),
], ids=["above", "instead"])
def test_a_library_from_an_output_is_not_run(tmp_path, browser, picture, shown):
    "An output can hold what looks like the library, and a picture that poses as our script: neither has the nonce."
    packed = base64.b64encode(gzip.compress(b"document.title = 'owned'")).decode()
    wild = re.sub(r">[^<]+<", f">{packed}<", plotly_bundle()) + picture
    cells = [new_code_cell("", outputs=[new_output("display_data", {"text/html": wild})]), chart("Price", "close")]
    made = render_html(new_notebook(cells=cells), tmp_path / "report.html", "ours")
    browser.open(made.as_uri())
    browser.wait(f"document.querySelector('{shown}') !== null")
    assert browser.run("document.title") == "ours"


def test_on_paper_the_page_is_light_and_short(page, browser):
    browser.open(page.as_uri(), scheme="dark")
    browser.wait(f"{CHARTS} === 2")
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.ask("Emulation.setEmulatedMedia", media="print", features=dark)
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('.contents')).display") == "none"
    assert browser.run("document.querySelector('.section summary').getBoundingClientRect().height") > 0
    browser.ask("Emulation.setEmulatedMedia", media="", features=dark)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("getComputedStyle(document.querySelector('.plot .ytick text')).fill") == "rgb(29, 35, 48)"
    assert browser.run(f"(b => b[2] - b[0])({BOX}('.main-svg'))") == 680


CONTRAST = """(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const back = e => {
    for (; e; e = e.parentElement) {
      const c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll(".cl-head *")) {
    const own = Array.from(e.childNodes).some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.tagName === "STYLE") continue;
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(back(e))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.className + " " + e.textContent.slice(0, 30)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()"""


@pytest.fixture(scope="module")
def headed_page(tmp_path_factory):
    "A page that begins with the head of a result which has every tone."
    from cryptolab.reports.head import head_html

    board = {"V9": {"n": 1491, "accuracy": 0.55}, "majority": {"accuracy": 0.51}, "reversal": {"accuracy": 0.52}}
    over = {name: {"edge": 4.0, "edge_low": 2.0, "edge_high": 6.0} for name in ("majority", "reversal")}
    ahead = {"ahead": 0.2, "ahead_low": 0.15, "ahead_high": 0.25, "qlike": 0.3}
    behind = {"ahead": -0.1, "ahead_low": -0.12, "ahead_high": -0.08, "qlike": 0.2}
    level = {"ahead": 0.0007, "ahead_low": 0.0004, "ahead_high": 0.001, "mase": 1.0, "mape": 0.00401}
    result = {
        "system": "v9", "symbol": "BTCUSDT", "timeframe": "1h", "params": {"profile": "quick"}, "cost_per_side": 0.0015,
        "data": {"candles": 10_000, "last": "2025-06-30 23:00:00"}, "direction": board, "rivals": over,
        "costs": {"V9": {"net_bp": 3.0}},
        "volatility": {"V9": {"n": 1491, "qlike": 0.24}, "persistence": ahead, "GARCH(1,1)": behind, "HAR": ahead},
        "price": {"V9": {"n": 1491, "mase": 0.9993, "mape": 0.004}, "persistence": level},
        "trading": {"summary": {"trades": {"value": 2}, "total_return": {"value": 0.004, "reference": -0.02}}},
        "leaks": {"detectors": 10, "found": []}, "certificate": {"columns": 46, "passed": 46},
    }
    head = new_code_cell("", outputs=[new_output("display_data", {"text/html": head_html(result)})])
    head["metadata"]["tags"] = ["page-head"]
    sections = [new_markdown_cell(f"## Section {k}\n\nText.") for k in range(8)]
    book = new_notebook(cells=[*sections, head])
    return render_html(json.loads(json.dumps(book)), tmp_path_factory.mktemp("head") / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_verdict_and_four_tiles_are_seen_at_once(browser, headed_page, width, scheme):
    browser.open(headed_page.as_uri(), width, scheme=scheme)
    edges = browser.run(
        "Array.from(document.querySelectorAll('.cl-head h1, .verdict, .tile')).map(e => e.getBoundingClientRect())"
        ".map(r => [r.top, r.bottom, r.left, r.right])"
    )
    assert len(edges) == 6
    for top, bottom, left, right in edges:
        assert 0 <= top < bottom <= 900 and 0 <= left < right <= width
    words = browser.run("Array.from(document.querySelectorAll('.tile .word')).map(e => e.textContent.trim())")
    assert words == ["✓ Better", "↓ Beaten by GARCH(1,1)", "≈ Economically nil", "… Too few trades"]
    assert browser.run("document.documentElement.scrollWidth") <= width
    contrast, where = browser.run(CONTRAST)[0]
    assert contrast >= 4.5, (contrast, where)
    assert browser.complaints() == []
    bars = browser.run("Array.from(document.querySelectorAll('.track .bar')).map(e => e.getBoundingClientRect().width)")
    assert len(bars) == 6 and min(bars) > 0


# ---- the tear sheet

@pytest.fixture(scope="module")
def accounts():
    "Three accounts on five years of days: many trades, one, none; the first with a rival and a month without candles."
    import numpy as np
    import pandas as pd

    from cryptolab.backtest import backtest

    times = pd.date_range("2019-01-01", "2024-12-31", freq="D", tz="UTC", name="open_time")
    times = times[(times < "2021-03-01") | (times >= "2021-05-01")]
    close = 100 * np.exp(np.random.default_rng(0).normal(0, 0.03, len(times)).cumsum())
    before = np.r_[100, close[:-1]]
    prices = {"open": before, "high": np.maximum(before, close), "low": np.minimum(before, close), "close": close}
    candles = pd.DataFrame(prices | {"volume": 1.0}, times)
    rows = pd.Series(np.arange(len(candles)), candles.index)
    every = rows % 9 == 0
    made = [backtest(candles, orders, timeout=4, timeframe="1d") for orders in (every, rows == 50, rows < 0)]
    return [*made, backtest(candles, every, timeout=4, size=0.5, timeframe="1d")]


@pytest.fixture(scope="module")
def sheets(accounts, tmp_path_factory):
    "The sheets of the three."
    import cryptolab as cl

    many, once, never, half = accounts
    folder = tmp_path_factory.mktemp("sheets")
    return [
        cl.tearsheet(many, folder / "many.html", {"half the size": half, "a <b>tag": half.equity}, "averages"),
        cl.tearsheet(once, folder / "once.html"), cl.tearsheet(never, folder / "never.html"),
    ]


ALL_CONTRAST = CONTRAST.replace(
    """      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];""", """      if (c.length < 4 || c[3] === 1) return over.reduceRight((b, [r, g, x, a]) =>
        [r, g, x].map((v, k) => a * v + (1 - a) * b[k]), c.slice(0, 3));
      if (c[3] > 0) over.push(c);
    }
    return [255, 255, 255];""").replace("const back = e => {", "const back = e => { const over = [];")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_a_tear_sheet_fits_and_is_readable(browser, sheets, width, scheme):
    for sheet in sheets:
        browser.open(sheet.as_uri(), width, scheme=scheme)
        assert browser.run(OVERFLOW) <= 0 and browser.complaints() == []
        contrast, where = browser.run(ALL_CONTRAST)[0]
        assert contrast >= 4.5, (contrast, where)
        assert browser.run("document.querySelector('.verdict').getBoundingClientRect().bottom") < 900
        lines = browser.run("Array.from(document.querySelectorAll('.area svg'), e => e.getBoundingClientRect().width)")
        assert len(lines) == 2 and min(lines) > 0.6 * min(width, 800)
        text = browser.run("document.body.innerText").lower()
        assert "\\xa0" not in text and "_" not in text and not {"nan", "inf", "none", "null"} & set(text.split())
    assert browser.run("document.scripts.length") == 0


@pytest.mark.parametrize("number", range(3))
def test_a_tear_sheet_is_one_light_page_on_paper(browser, sheets, number):
    browser.open(sheets[number].as_uri(), scheme="dark")
    printed = base64.b64decode(browser.ask("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed)) == 1
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.ask("Emulation.setEmulatedMedia", media="print", features=dark)
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('.verdict')).backgroundColor") == "rgb(245, 247, 250)"
    browser.ask("Emulation.setEmulatedMedia", media="", features=dark)


def test_a_tear_sheet_says_what_may_be_concluded(sheets, accounts):
    many, once, never = (sheet.read_text() for sheet in sheets)
    assert "a &lt;b&gt;tag" in many and "not checked for leaks" in many and "no verdict" not in many
    assert "<td></td>" in many and "earlier year" not in many
    assert "1 trade, too few for a verdict" in once and "nothing was traded" in never
    assert once.count("no verdict") >= 4 and never.count("no verdict") >= 4
    facts = {
        "system": "v2", "symbol": "X", "timeframe": "1d", "data": {"candles": 9, "last": "2024-12-31"},
        "leaks": {"detectors": 10, "found": ["peeks"]},
    }
    from cryptolab.reports.tear_sheet import sheet_html

    told = sheet_html(accounts[0], facts=facts)
    assert "1 leak found: do not believe these numbers" in told and 'class="verdict bad"' in told


def test_a_pdf_needs_a_browser_and_says_so(accounts, tmp_path, monkeypatch):
    import cryptolab as cl
    from cryptolab.config import CryptolabError
    from cryptolab.reports import printing

    written = cl.tearsheet(accounts[1], tmp_path / "once.pdf")
    assert len(re.findall(rb"/Type\s*/Page\b", written.read_bytes())) == 1
    monkeypatch.setattr(printing, "find_browser", lambda: None)
    with pytest.raises(CryptolabError, match="install Chromium; or write the page as .html"):
        cl.tearsheet(accounts[1], tmp_path / "none.pdf")
    assert [p.name for p in tmp_path.iterdir()] == ["once.pdf"]
