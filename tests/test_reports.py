"""Reports as whole programs: made completely or not at all, readable offline, resumable; small templates stand in."""
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cryptolab import files
from cryptolab.config import DataError, SettingsError, SourceError
from cryptolab.cli.doctor import diagnose, diagnosis_text, gpu
from cryptolab.files import WriteError, only_one
from cryptolab.reports.render import render_html
from cryptolab.runs import execute
from cryptolab.runs.execute import ReportError
from cryptolab.runs.report import run_report

ROOT = Path(__file__).parents[1]
DEFAULTS = dict(
    symbol="BTCUSDT", timeframe="1h", source="sample", data_dir="data", start=None, end=None, limit=100,
    profile="smoke", seed=0, fee=0.001, slippage=0.0005, params={}, out=None, work=None,
)
HEAD = "import json, os, sys, time\nfrom pathlib import Path"
END = "_ = (Path(out) / 'result.json').write_text(json.dumps({'symbol': symbol, 'params': params}))"


def template(path, *sources):
    "A report template of code cells; a source that starts with # is a text cell."
    tagged = new_code_cell("\n".join(f"{k} = {v!r}" for k, v in DEFAULTS.items()), metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(s) if s.startswith("#") else new_code_cell(s) for s in (HEAD, *sources)]
    nbformat.write(new_notebook(cells=[tagged, *cells]), path)
    return path


def names(folder):
    return sorted(p.name for p in Path(folder).iterdir())


# ---- a report that succeeds

RICH = [
    "# BTCUSDT 1h\n\nWhat was found: **nothing**. [A paper](https://example.org/paper)\n\n"
    "![](https://example.org/a.png)",
    "## Training",
    "for epoch in range(1, 31):\n    print(f'direction  epoch {epoch}/30  loss <0.69>', flush=True)",
    "## Candles",
    "import plotly.graph_objects as go\ngo.Figure(go.Scatter(y=[1, float('nan'), 3], name='</script><b>'))",
    "go.Figure(go.Candlestick(open=[1, 2], high=[3, 3], low=[1, 1], close=[2, 1]), {'title': {'text': 'two'}}).show()",
    "## Run information",
    "seen = dict(python=sys.executable, cwd=os.getcwd(), data_dir=data_dir, work=work, out=out)\n"
    "seen |= dict(hash=os.environ['PYTHONHASHSEED'], offline=os.environ.get('HF_HUB_OFFLINE'))\n"
    "seen |= dict(symbol=symbol, timeframe=timeframe, params=params, limit=limit)\n"
    "_ = (Path(out) / 'result.json').write_text(json.dumps(seen))",
]


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    "A finished report with charts, and its news. A foreign kernel named python3 comes first on Jupyter's path."
    home = tmp_path_factory.mktemp("rich {x}")  # spaces and braces in a path must not matter
    spec = home / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps({"argv": ["/nowhere/python", "{connection_file}"], "display_name": "x", "language": "python"})
    )
    (home / "candles").mkdir()
    (home / "candles" / "BTCUSDT_1h.csv").write_text("looked for before the run, and not read by this notebook")
    news, before = [], os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(home / "jupyter"))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
        patch.chdir(home)
        folder = run_report(
            "btc/usdt", "1H", "rich", source="local", data_dir="candles", limit=321, seed=5, out="out",
            params={"a": [1, 2]}, template=template(home / "rich.ipynb", *RICH), progress=lambda *n: news.append(n),
        )
    assert os.getcwd() == before
    return folder, news


def test_folder_is_complete_and_nothing_else_is_left(rich):
    folder, _ = rich
    assert names(folder.parent) == ["BTCUSDT-1h-rich"] and folder.is_absolute()
    assert names(folder) == ["report.html", "report.ipynb", "result.json", "run.json"]


def test_template_gets_what_was_asked(rich):
    seen = json.loads((rich[0] / "result.json").read_text())
    home = rich[0].parent.parent
    assert seen["python"] == sys.executable and seen["hash"] == "5" and seen["offline"] == "1"
    assert (seen["symbol"], seen["timeframe"], seen["limit"], seen["params"]) == ("BTC/USDT", "1h", 321, {"a": [1, 2]})
    assert Path(seen["data_dir"]) == home / "candles"
    assert Path(seen["work"]).parent == home / "out" / ".work" and not Path(seen["work"]).exists()
    assert not Path(seen["out"]).exists(), "the hidden folder became the report"


def test_report_notebook_can_be_run_again_without_writing(rich):
    text = (rich[0] / "report.ipynb").read_text()
    assert "partial" not in text and ".work" not in text
    book = json.loads(text)
    injected = next(
        "".join(c["source"]) for c in book["cells"] if "injected-parameters" in c["metadata"].get("tags", [])
    )
    assert "out = None" in injected and "work = None" in injected and "limit = 321" in injected
    assert book["metadata"]["papermill"]["parameters"]["data_dir"] == "candles"


def test_progress_tells_sections_and_epochs_as_they_happen(rich):
    told = [news[:2] for news in rich[1]]
    assert ("section", "Training") in told and ("line", "direction  epoch 30/30  loss <0.69>") in told
    assert (
        told.index(("section", "Training"))
        < told.index(("line", "direction  epoch 1/30  loss <0.69>"))
        < told.index(("section", "Candles"))
    )
    assert all(done < total for _, _, done, total in rich[1])


class Requests(HTMLParser):
    "Collects every address that a browser would load by itself, and checks that the tags close."

    def __init__(self):
        super().__init__()
        self.asked, self.texts, self.inside = [], {}, []

    def handle_starttag(self, tag, attrs):
        self.inside.append(tag)
        self.asked += [v for k, v in attrs if k in ("src", "srcset", "data", "poster", "href") and tag != "a"]

    def handle_endtag(self, tag):
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data):
        self.texts.setdefault(self.inside[-1] if self.inside else "", []).append(data)


def parsed(path):
    page = Requests()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_page_asks_no_server(rich):
    text = (rich[0] / "report.html").read_text()
    page = parsed(rich[0] / "report.html")
    assert [a for a in page.asked if not a.startswith("data:")] == []
    assert not re.search(r"mathjax|require\.js|cdn\.|@import|url\(['\"]?(https?:)?//", text, re.I)
    assert "default-src 'none'" in text and 'href="https://example.org/paper"' in text
    assert (rich[0] / "report.html").stat().st_size < 3_000_000


def test_page_shows_text_and_hides_code_and_logs(rich):
    text = (rich[0] / "report.html").read_text()
    assert "<strong>nothing</strong>" in text and "import plotly" not in text
    assert text.count("<details") == 2, "the training log and the parameters"
    assert "epoch 30/30  loss &lt;0.69&gt;" in text and "Parameters of this run" in text
    figures = [json.loads(t) for t in parsed(rich[0] / "report.html").texts["script"] if t.startswith("{")]
    assert len(figures) == 2 and figures[0]["data"][0]["name"] == "</script><b>"


BROWSER = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")) if p), None)


@pytest.mark.skipif(BROWSER is None, reason="no headless browser: install chromium")
def test_page_draws_its_charts_in_a_browser_without_an_error(rich, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(rich[0] / "report.html", alone)  # the page is all that is needed
    options = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom",
    ]
    done = subprocess.run(
        [BROWSER, *options, (alone / "report.html").as_uri()], capture_output=True, text=True, timeout=120,
    )
    assert done.stdout.count('class="main-svg"') >= 2 and done.stdout.count("js-plotly-plot") == 2
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line and "WebGL" not in line]


def test_hostile_outputs_stay_text(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    outputs = [
        new_output("stream", name="stdout", text=evil + "\n"), new_output("execute_result", data={"text/plain": evil}),
        new_output("error", ename="E", evalue=evil, traceback=["\x1b[31m" + evil]),
    ]
    wild = new_output(
        "display_data",
        data={"text/html": '<script src="https://example.org/x.js"></script><link href="//example.org/x.css">'},
    )
    page = render_html(
        new_notebook(cells=[new_code_cell("", outputs=[*outputs, wild])]), tmp_path / "report.html", title=evil,
    )
    assert evil not in page.read_text() and page.read_text().count("&lt;img src=x") == 4
    assert [a for a in parsed(page).asked if not a.startswith("data:")] == []


# ---- text from outside

EVIL = "<img src=x onerror=document.title='owned'>[x](javascript:alert(1)) <https:example.org> |`a` *b* $c$ &lt;s&gt;"
PLACES = ["{}", "a **bold** {} word", "- {}\n- b", "# {}", "| a | b |\n|---|---|\n| {} | c |", "> {}"]
TEXTS = [
    EVIL, "<script>alert(1)</script>", "![p](https://example.org/a.png)", "https://example.org www.example.org a@b.org",
    "- a", "1. a", "2) b", "# a", "---", "===", "> a", "+ a", ": a", "a\n\n<b>c</b>", "| x | y |", "a | b", "~~a~~ _b_",
    "__a__ b", "\\[x](y)", "\\begin{a}b\\end{a}", "$$a$$", "&amp;lt;", "[a]: https://example.org", "a\u202eb", "<!-- a",
    "<!DOCTYPE a>", "<?php", "<a@b.org>", "a_b_c.csv -12.5 (1 to 2)", "```\na\n```", "    code", "[ ] task", "[^1]",
    "\\", "*", "`",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_in_markdown_is_shown_and_nothing_else(text, shown_text):
    from cryptolab.reports.escape import escape_markdown, printable
    from cryptolab.reports.render import output_html

    wanted = printable(" ".join(text.split()))
    for place in PLACES:
        made, plain = (
            output_html(new_output("display_data", data={"text/markdown": place.format(part)}))
            for part in (escape_markdown(text), "word")
        )
        assert wanted in shown_text(made), place
        tags = lambda html: re.findall(r"</?(\w+)", html)
        assert tags(made) == tags(plain), place


def test_markdown_itself_holds_no_html_and_no_link_that_runs_something():
    from cryptolab.reports.render import output_html

    wild = (
        "<img src=x onerror=alert(1)>\n\n<svg onload=alert(1)>\n\na <b onclick=alert(1)>b</b> [x](javascript:alert(1)) "
        "[y](JaVaScRiPt:alert(1)) [z](data:text/html,<script>alert(1)</script>) [v](vbscript:x) <javascript:alert(1)>"
    )
    made = output_html(new_output("display_data", data={"text/markdown": wild}))
    page = Requests()
    page.feed(made)
    assert set(re.findall(r"<(\w+)", made)) <= {"p", "a"} and page.asked == []
    assert set(re.findall(r'href="([^"]*)"', made)) == {"#harmful-link"}
    tame = "[a](https://example.org) [b](report.ipynb) **c**"
    kept = output_html(new_output("display_data", data={"text/markdown": tame}))
    assert 'href="https://example.org"' in kept and 'href="report.ipynb"' in kept and "<strong>" in kept


OUTSIDE = [
    "from cryptolab.data import load_candles, quality_table\nfrom cryptolab.reports import info_sheet, plots, results\n"
    "from IPython.display import Markdown\nimport pandas as pd\nimport plotly.graph_objects as go\n"
    "candles = load_candles(symbol, timeframe, source=source, data_dir=data_dir, limit=limit)\n"
    "evil, file = params['note'], Path(candles.attrs['path']).name\n"
    "ends = {'first': str(candles.index[0]), 'last': str(candles.index[-1])}\n"
    "data = {'symbol': evil, 'timeframe': evil, 'source': source, 'file': file, 'candles': len(candles), **ends}",
    "# What was found",
    "Markdown(results.finding_markdown({'finding': f'Direction: {evil}. Price: {file}', 'data': data}))",
    "pd.Series({**data, evil: data_dir}, name=evil).to_frame()",
    "info_sheet.text_table(pd.DataFrame({'answer': {evil: evil}}))",
    "quality_table(candles).assign(example=evil)",
    "print(evil)\nprint(data_dir, file=sys.stderr)",
    "candles.attrs['symbol'] = evil\nplots.plot_candles(candles)",
    "rows = [{'name': n, 'accuracy': 0.5, 'low': 0.4, 'high': 0.6} for n in (evil, 'a <a href=\"https://example.org\">b</a>')]\n"
    "plots.plot_accuracy_bars(rows, 0.5, title=evil)",
    "go.Figure(go.Scatter(y=[1, 2], name='<a href=\"https://example.org\">evil</a>', showlegend=True))",
    "_ = (Path(out) / 'result.json').write_text('{}')",
]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    "A report of a file whose name, folder and settings are HTML and Markdown."
    from cryptolab.data import sample_market

    home = tmp_path_factory.mktemp("foreign")
    folder = home / "<img src=x onerror=alert(1)>" / "[y](javascript:alert(2))"
    folder.mkdir(parents=True)
    file = folder / "BTCUSDT_1h <b onclick=alert(3)>[z](javascript:alert(4)).csv"
    candles = sample_market(n=300)[["open", "high", "low", "close", "volume"]].rename_axis("open_time")
    candles.to_csv(file)
    made = run_report(
        "BTCUSDT", "1h", "foreign", source="local", data_dir=file, limit=300, out=home / "out", params={"note": EVIL},
        template=template(home / "foreign.ipynb", *OUTSIDE),
    )
    return made / "report.html"


@pytest.mark.skipif(os.name == "nt", reason="such names exist on POSIX systems only")
def test_names_settings_and_messages_from_outside_stay_text(foreign, page_problems, shown_text):
    text = foreign.read_text()
    assert page_problems(text) == []
    shown = shown_text(text)
    for part in ("<b onclick=alert(3)>[z](javascript:alert(4)).csv", "<img src=x onerror=alert(1)>", EVIL):
        assert shown.count(part) >= 2, part
    figures = [json.loads(t) for t in parsed(foreign).texts["script"] if t.startswith("{")]
    assert len(figures) == 3 and not re.search(r"(?i)<\s*/?\s*a\b|<img", json.dumps(figures))
    assert figures[1]["layout"]["yaxis"]["categoryarray"][1] == figures[1]["data"][1]["y"][0]


def in_browser(page, profile):
    "The page as a headless browser shows it after its scripts have run, and the complaints of its console."
    options = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={profile}",
        "--virtual-time-budget=10000", "--dump-dom",
    ]
    done = subprocess.run([BROWSER, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line and "WebGL" not in line]


@pytest.mark.skipif(BROWSER is None or os.name == "nt", reason="no headless browser: install chromium")
def test_text_from_outside_runs_nothing_in_a_browser(foreign, tmp_path, shown_text):
    page, complaints = in_browser(foreign, tmp_path)
    assert complaints == [] and "<title>BTCUSDT 1h – foreign</title>" in page
    assert page.count("js-plotly-plot") == 3 and not re.search(r'(href|src)="[^"]*javascript', page)
    assert not re.search(r"<a [^>]*example\.org", page), "plotly made a link of a label"
    assert "<img src=x onerror=" in shown_text(page[page.index("js-plotly-plot") :]), "the chart shows the name"


@pytest.mark.skipif(BROWSER is None, reason="no headless browser: install chromium")
def test_the_policy_stops_what_is_not_ours(tmp_path):
    "An output that is HTML may stand on a page; the browser runs none of it."
    own = "document.title = 'owned'"
    wild = (
        f'<p id="kept">kept</p><img src="data:," onerror="{own}"><script>{own}</script><script src="own.js"></script>'
        f'<svg onload="{own}"></svg><base href="elsewhere/"><iframe src="javascript:parent.{own}"></iframe>'
        f'<object data="own.html"></object><script nonce="0">{own}</script><img src="own.png">'
    )
    (tmp_path / "own.js").write_text(own)
    chart = new_output("display_data", data={"application/vnd.plotly.v1+json": {"data": [{"y": [1, 2]}], "layout": {}}})
    outputs = [new_output("display_data", data={"text/html": wild}), chart]
    page = render_html(new_notebook(cells=[new_code_cell("", outputs=outputs)]), tmp_path / "report.html", title="ours")
    shown, complaints = in_browser(page, tmp_path / "profile")
    assert "<title>ours</title>" in shown and 'id="kept"' in shown and shown.count("js-plotly-plot") == 1
    refused = [line for line in complaints if "Content Security Policy" in line]
    for rule in ("script-src-attr", "script-src", "base-uri", "img-src"):
        assert [line for line in refused if re.search(f"[\"']{rule} '?", line)], refused


def test_the_same_notebook_gives_the_same_page_and_another_one_another_nonce(tmp_path):
    def nonce(name):
        figure = {"data": [{"y": [1, 2], "name": name}], "layout": {}}
        output = new_output("display_data", data={"application/vnd.plotly.v1+json": figure})
        book = new_notebook(cells=[new_code_cell("", outputs=[output])])
        texts = {render_html(book, tmp_path / f"{k}.html").read_text() for k in range(2)}
        assert len(texts) == 1
        return re.search(r"'nonce-(\w{32})'", texts.pop())[1]

    assert nonce("a") != nonce("b")


# ---- a report that fails

def test_error_of_a_cell_is_told_kindly_and_the_old_report_stays(tmp_path):
    good, bad = template(tmp_path / "good.ipynb", END), template(
        tmp_path / "bad.ipynb", "print('before')", "from cryptolab.config import DataError",
        "raise DataError('x.csv, row 17: no price', found=\"'n/a'\", remedy='delete the row')", END)
    folder = run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=good, params={"a": 1})
    with pytest.raises(ReportError) as caught:
        run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=bad, params={"a": 2})
    assert (
        str(caught.value) == "x.csv, row 17: no price\n  found: 'n/a'\n  what to do: delete the row"
        and caught.value.kind == "DataError"
    )
    assert names(tmp_path / "out") == ["BTCUSDT-1h-mine", "BTCUSDT-1h-mine.failed.ipynb"]
    assert json.loads((folder / "result.json").read_text())["params"] == {"a": 1}
    kept = Path(caught.value.notebook).read_text()
    assert "Traceback" in kept and "partial" not in json.dumps([c["source"] for c in json.loads(kept)["cells"]])
    run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=good, params={"a": 2})
    assert names(tmp_path / "out") == [".runs", "BTCUSDT-1h-mine"], "success removes the notebook of the failure"
    assert json.loads((folder / "result.json").read_text())["params"] == {"a": 2}


def test_unforeseen_error_names_cell_and_notebook(tmp_path):
    with pytest.raises(ReportError, match="a cell of the report failed: ZeroDivisionError: division by zero") as caught:
        run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=template(tmp_path / "t.ipynb", "1 / 0"))
    assert caught.value.remedy == f"the whole traceback is in {caught.value.notebook}" and Path(
        caught.value.notebook
    ).exists()


def test_a_process_that_dies_is_reported(tmp_path):
    code = "sys.stderr.flush(); os.write(2, b'Killed: out of memory\\n'); os._exit(9)"
    with pytest.raises(ReportError, match="(?s)the process of the notebook died.*more memory") as caught:
        run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=template(tmp_path / "t.ipynb", code))
    assert caught.value.kind == "DeadKernelError" and names(tmp_path / "out") == ["BTCUSDT-1h-mine.failed.ipynb"]
    assert "it ended with code 9" in str(caught.value) and "Killed: out of memory" in caught.value.found


@pytest.mark.parametrize("code, words", [
    ("raise ImportError('this package is broken')", "ended with code 1.*this package is broken"),
    ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL.*the memory is used up"),
], ids=["broken", "killed"])
def test_a_process_that_dies_at_its_start_is_noticed_at_once(tmp_path, monkeypatch, code, words):
    (tmp_path / "ipykernel_launcher.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(ReportError, match=f"(?s){words}"):
        run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=template(tmp_path / "t.ipynb", END))
    assert time.monotonic() - began < 60, "it waited for a process that was dead"


# ---- a full disk

FULL = (
    "import resource\nfull = not (Path(work) / 'model.txt').exists()\n"
    "(Path(work) / 'model.txt').write_text('trained')\n"
    "if full: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits as on Unix")
def test_a_full_disk_is_called_so_and_the_work_goes_on_afterwards(tmp_path):
    "The notebook cannot write its result; what it trained before is found by the next run."
    ask = dict(out=tmp_path / "out", template=template(tmp_path / "t.ipynb", FULL, END))
    with pytest.raises(WriteError, match="(?s)larger than is allowed.*File too large.*the same command continues") as e:
        run_report("BTCUSDT", "1h", "mine", **ask)
    assert str(tmp_path / "out") in e.value.what and names(tmp_path / "out") == [".work"]
    assert run_report("BTCUSDT", "1h", "mine", **ask).name == "BTCUSDT-1h-mine"


def test_half_a_file_on_a_full_disk_is_no_error_of_json(tmp_path, monkeypatch):
    partial, kept = tmp_path / "out" / ".partial", tmp_path / "out" / "kept.ipynb"
    partial.mkdir(parents=True)
    (partial / "report.ipynb").write_text('{"cells": [')
    cut = json.JSONDecodeError("Expecting value", '{"a": ', 6)
    error = execute.told(cut, partial, kept, {}, "t.ipynb")
    assert isinstance(error, ReportError) and error.kind == "JSONDecodeError" and not kept.exists()
    with monkeypatch.context() as patch:
        patch.setattr(files, "free_space", lambda folder: 0)
        error = execute.told(cut, partial, kept, {}, "t.ipynb")
    assert isinstance(error, WriteError) and "the disk is full" in error.what and str(tmp_path / "out") in error.what
    for text in ("OSError: [Errno 28] No space left on device: 'x'", "Disk quota exceeded"):
        assert isinstance(execute.told(RuntimeError(text), partial), WriteError)


def test_every_writer_tells_a_full_disk_and_leaves_the_old_file(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    old = files.write_json(tmp_path / "a.json", 1)
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match="the disk is full"):
        files.write_json(old, 2)
    with pytest.raises(WriteError, match="the disk is full"), files.whole_folder(tmp_path / "model") as new:
        (new / "weights").write_bytes(b"")
    with pytest.raises(WriteError, match="the disk is full"):
        files.check_writable(tmp_path / "new" / "reports")
    assert names(tmp_path) == ["a.json", "model"] and old.read_text() == "1" and isinstance(WriteError("x"), OSError)


def test_half_a_result_is_an_error(tmp_path):
    code = "(Path(out) / 'result.json').write_text('{')"
    with pytest.raises(ReportError, match="a result that cannot be read"):
        run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=template(tmp_path / "t.ipynb", code))


def test_a_template_without_result_is_an_error(tmp_path):
    with pytest.raises(ReportError, match="wrote no result"):
        run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=template(tmp_path / "t.ipynb", "pass"))


def test_interrupted_work_is_found_again_by_the_same_parameters_only(tmp_path):
    source = (
        "mark = Path(work) / 'model.txt'\nfound = mark.exists()\nmark.write_text('trained')\n"
        "assert found, 'not trained yet'"
    )
    mine = template(tmp_path / "t.ipynb", source, END)
    ask = lambda seed: run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=mine, seed=seed)
    for seed in (1, 2):  # the second fails too: other parameters, other folder
        with pytest.raises(ReportError, match="not trained yet"):
            ask(seed)
    assert len(names(tmp_path / "out" / ".work")) == 2
    assert ask(1).name == "BTCUSDT-1h-mine"
    assert len(names(tmp_path / "out" / ".work")) == 1, "what the success needed is gone, the rest stays"


# ---- a report that is interrupted

SLOW = (
    "print('at work', os.getpid(), flush=True)\n(Path(work) / 'model.txt').write_text('trained')\n"
    "time.sleep(120 if seed == 0 else 0)"
)


def alive(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


@pytest.mark.skipif(os.name == "nt", reason="signals of this kind exist on POSIX systems only")
@pytest.mark.parametrize("number, code", [
    (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9),
], ids=lambda v: getattr(v, "name", ""))
def test_interruption_leaves_nothing_half_written(tmp_path, number, code):
    mine, out = template(tmp_path / "mine.ipynb", SLOW, END), tmp_path / "out"
    old = run_report("BTCUSDT", "1h", "mine", out=out, template=mine, seed=1)
    program = [
        sys.executable, "-c", "from cryptolab.cli.main import main; main()", "run", "BTCUSDT", "1h", "--template",
        str(mine),
    ]
    # a test run in the background of a shell would pass on that Ctrl-C is ignored
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    run = subprocess.Popen(
        [*program, "--out", str(out), "--seed", "0"], stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=heed,
    )
    kernel = next(int(line.split()[-1]) for line in run.stderr if "at work" in line)
    run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == code and "Traceback" not in errors
    if number == signal.SIGINT:
        assert "interrupted" in errors
    hidden = [n for n in names(out) if n not in (".work", old.name)]
    assert len(hidden) == (number == signal.SIGKILL), "only after SIGKILL nobody could clear up"
    if number != signal.SIGKILL:
        assert not alive(kernel)
    assert json.loads((old / "result.json").read_text())["symbol"] == "BTCUSDT", "the old report stays"
    assert [n for n in names(out / ".work") if not n.endswith(".lock")], "finished models stay"
    run_report("BTCUSDT", "1h", "mine", out=out, template=mine, seed=1)
    assert [n for n in names(out) if n != ".work"] == [old.name], "the next run clears up"


def test_two_processes_do_not_make_one_report(tmp_path):
    mine = template(tmp_path / "t.ipynb", END)
    with only_one(tmp_path / "out" / ".work" / "BTCUSDT-1h-mine.lock") as locked:
        if not locked:
            pytest.skip("no file locks here")
        with pytest.raises(SettingsError, match="being made by another process"):
            run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=mine)


# ---- bad input, before anything runs

BAD = [
    ({"symbol": "../../etc"}, SettingsError, "not a symbol"),
    ({"symbol": ""}, SettingsError, "not a symbol"),
    ({"timeframe": "7h"}, SettingsError, "timeframe"),
    ({"timeframe": "1M"}, SettingsError, "timeframe"),
    ({"system": "V 9"}, SettingsError, "not a system"),
    ({"source": "ftp"}, SettingsError, "unknown source"),
    ({"profile": "huge"}, SettingsError, "unknown profile"),
    ({"limit": 0}, SettingsError, "out of range"),
    ({"seed": -1}, SettingsError, "out of range"),
    ({"fee": -0.1}, SettingsError, "out of range"),
    ({"start": "yesterdayish"}, SettingsError, "not a time"),
    ({"source": "local", "data_dir": "nowhere"}, SourceError, "nowhere does not exist"),
    ({"template": "nowhere.ipynb"}, SettingsError, "does not exist"),
    ({"system": "v99", "template": None}, SettingsError, "no report notebook"),
]


@pytest.mark.parametrize(
    "change, error, text", BAD, ids=[f"{next(iter(c))}={next(iter(c.values()))}" for c, _, _ in BAD],
)
def test_bad_input_is_refused_before_anything_runs(tmp_path, change, error, text):
    mine = template(tmp_path / "t.ipynb", END)
    asked = dict(symbol="BTCUSDT", timeframe="1h", system="mine", template=mine, out=tmp_path / "out") | change
    with pytest.raises(error, match=text) as caught:
        run_report(**asked)
    assert not isinstance(caught.value, ReportError) and not (tmp_path / "out").exists()


def test_a_folder_that_is_no_report_is_not_replaced(tmp_path):
    other = tmp_path / "out" / "BTCUSDT-1h-mine"
    other.mkdir(parents=True)
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(SettingsError, match="is not a report"):
        run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=template(tmp_path / "t.ipynb", END))
    assert (other / "thesis.txt").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="is a file"):
        run_report("BTCUSDT", "1h", "mine", out=tmp_path / "file", template=template(tmp_path / "t.ipynb", END))


def test_a_template_with_an_incomplete_contract_is_refused(tmp_path):
    nbformat.write(
        new_notebook(cells=[new_code_cell("symbol = ''", metadata={"tags": ["parameters"]})]), tmp_path / "t.ipynb",
    )
    with pytest.raises(SettingsError, match="not there: timeframe"):
        run_report("BTCUSDT", "1h", "mine", out=tmp_path / "out", template=tmp_path / "t.ipynb")


def test_installed_templates_fulfil_the_contract():
    from cryptolab.runs.report import check_template

    for path in sorted((ROOT / "nbs" / "templates").glob("*.ipynb")):
        assert check_template(path) == path


# ---- doctor

@pytest.mark.parametrize("code, message", [
    ("raise ImportError('libcudart.so is missing')", "libcudart.so is missing"),
    ("import os; os._exit(134)", "ended with code 134"),
    ("import time; time.sleep(60)", "did not answer within"),
], ids=["broken", "crashing", "hanging"])
def test_doctor_survives_a_sick_backend(tmp_path, monkeypatch, code, message):
    (tmp_path / "tensorflow.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = gpu("tensorflow", timeout=3)
    assert not answer["works"] and message in answer["message"]


def test_doctor_text_is_complete():
    found = diagnose(ask_gpu=False)
    text = diagnosis_text(found)
    for word in ("cryptolab", "Python", "cores", "memory", "tensorflow", "keras", "xgboost", "profile"):
        assert word in text
    json.dumps(found, allow_nan=False)


# ---- Colab

def test_colab_notebook_names_no_registry():
    book = nbformat.read(ROOT / "colab" / "v9.ipynb", as_version=4)
    assert not any(c.get("outputs") for c in book.cells)
    assert sum("parameters" in c.metadata.get("tags", []) for c in book.cells) == 1
    assert "--no-deps" in (ROOT / "colab" / "v9.ipynb").read_text()


@pytest.mark.slow
def test_colab_notebook_and_the_program_give_the_same_result(tmp_path):
    "Two runs with one seed, one through the notebook for Colab: every number is the same, whoever asked."
    import papermill

    asked = dict(source="sample", profile="smoke", limit=500)
    papermill.execute_notebook(
        str(ROOT / "colab" / "v9.ipynb"), str(tmp_path / "done.ipynb"), {**asked, "out": str(tmp_path / "out")},
        cwd=str(ROOT / "colab"), kernel_name="python3", progress_bar=False,
    )
    folder = tmp_path / "out" / "BTCUSDT-1h-v9"
    assert {"report.html", "result.json", "v9_results.json"} <= set(names(folder))
    results = []
    for run in (folder, run_report("BTCUSDT", "1h", **asked, out=tmp_path / "again")):
        result = json.loads((run / "result.json").read_text())
        assert result.pop("run")["seconds"]["total"] > 0
        results.append(result)
    assert results[0] == results[1]
