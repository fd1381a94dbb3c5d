"""Publishing: listed before uploaded, one commit, nothing altered, no token and no private folder anywhere; and the
notebook for many coins on Colab."""
import base64
import gzip
import io
import json
import os
import random
import re
import shutil
import string
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import typer
import yaml
from typer.testing import CliRunner

from cryptolab.config import DataError, ModelError, SettingsError, SourceError
from cryptolab.reports.model_card import model_card
from cryptolab.reports.render import output_html, render_html
from cryptolab.cli.main import publish_command
from cryptolab.runs import secret_scan
from cryptolab.runs.publish import publication, publish, publish_text
from cryptolab.systems.artefacts import write_manifest

ROOT = Path(__file__).parents[1]
REPO = "someone/v9-btc"
TOKEN = "hf_" + "AbCdEfGh12" * 3 + "wxyz"
DATA = {
    "symbol": "BTCUSDT", "timeframe": "1h", "source": "local", "file": "BTCUSDT_1h.parquet", "candles": 10000,
    "first": "2024-05-10 08:00:00+00:00", "last": "2025-06-30 23:00:00+00:00", "fingerprint": "c99750cee2b4abdf",
}
RESULT = {
    "system": "v9", "symbol": "BTCUSDT", "timeframe": "1h",
    "finding": "Direction: guessing. Volatility: skill. Price: none.", "cost_per_side": 0.0015, "data": DATA,
    "params": {"profile": "quick", "seed": 7, "window": 60, "heads": None}, "code": "e63f46659e26",
    "run": {"started": "2025-07-01T10:56:19+00:00"},
    "parts": {"train": ["2024-05-12", "2025-02-26"], "test": ["2025-04-29", "2025-06-30"]},
    "rows": {"parts": {"direction": {"train": 6958, "test": 1491}}},
    "direction": {
        "V9": {"n": 1491, "accuracy": 0.5372, "accuracy_low": 0.5119, "accuracy_high": 0.5624, "p_majority": 0.03},
        "majority": {"n": 1491, "accuracy": 0.5037},
    },
    "rivals": {"majority": {"edge": 3.35, "edge_low": 0.07, "edge_high": 6.64, "p_holm": 1e-6}},
    "costs": {
        "V9": {
            "gross_bp": 2.46, "gross_low": 0.68, "gross_high": 4.34, "break_even_bp": 2.43, "break_even_low": 0.69,
            "break_even_high": 4.19, "net_bp": -12.72,
        }
    },
    "price": {"V9 ensemble": {"n": 1491, "mase": 0.9992, "mase_low": 0.9986, "mase_high": 0.9998}},
    "interval": {"stated": 0.9},
    "intervals": {"V9": {"n": 1491, "coverage": 0.935, "coverage_low": 0.921, "coverage_high": 0.946}},
    "leaks": {"candles": 1500, "detectors": 10, "found": []},
    "certificate": {"columns": 46, "passed": 46, "sha256": "a93fb3b18383f3e4"},
    "trials": {"kept": True, "trials": 3, "deflated": 0.42}, "versions": {"keras": "3.15.1"},
}


@pytest.fixture
def run(tmp_path):
    "A finished run whose notebook and page name private folders; a hidden file and a foreign file lie beside them."
    run = tmp_path / "BTCUSDT-1h-v9"
    (run / "model").mkdir(parents=True)
    (run / "model" / "price.keras").write_bytes(b"\x00network")
    (run / "model" / "scaler.json").write_text("{}")
    write_manifest(run / "model", system="v9", features=["rsi_14"], fitted=DATA, code="e63f46659e26")
    injected = {
        "cell_type": "code", "metadata": {"tags": ["injected-parameters"]},
        "source": ['data_dir = "/home/alice/my candles"\n', "limit = 5"], "outputs": [],
    }
    notebook = {
        "cells": [injected],
        "metadata": {
            "papermill": {"parameters": {"data_dir": "../my candles", "params": {"init_from": "/home/alice/old/model"}}}
        },
    }
    files = {
        "report.html": "<p>a report of ../my candles and &quot;/home/alice/old/model&quot;</p>",
        "report.ipynb": json.dumps(notebook), "result.json": json.dumps(RESULT), "v9_results.json": "{}",
        "training.log": "epoch 1", "job.json": '{"key": "x"}', ".env": "SECRET=1", "notes.txt": "mine",
    }
    for name, text in files.items():
        (run / name).write_text(text)
    return run


class Hub:
    "In the manner of huggingface_hub.HfApi."

    def __init__(self, private=True, error=None, files=()):
        self.asked, self.error = [], error
        self.there = SimpleNamespace(
            private=private, sha="abc", siblings=[SimpleNamespace(rfilename=name) for name in files],
        )

    def whoami(self):
        self.asked.append(("whoami", {}))

    def create_repo(self, **facts):
        self.asked.append(("create_repo", facts))

    def repo_info(self, **facts):
        return self.there

    def create_commit(self, **facts):
        self.asked.append(("create_commit", facts))
        if self.error:
            raise self.error
        return SimpleNamespace(commit_url="https://hub.example/commit/def")


class Untouchable:
    "Fails whatever is asked of it."

    def __getattr__(self, name):
        raise AssertionError(f"the hub was asked for {name}")


def content(operation):
    return getattr(operation, "path_or_fileobj", b"")


def command():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("publish")(publish_command)
    app.command("other")(lambda: None)
    return app


# ---- what is listed and uploaded

def test_dry_run_is_the_default_and_asks_nobody(run):
    plan = publish(run, REPO, api=Untouchable())
    assert plan["url"] is None and plan["private"] and "nothing was uploaded" in publish_text(plan)
    expected = [
        "README.md", "report.html", "report.ipynb", "result.json", "training.log", "v9_results.json",
        "model/manifest.json", "model/price.keras", "model/scaler.json",
    ]
    assert list(plan["files"]) == expected, "no hidden, foreign or bookkeeping file"
    assert all(name in publish_text(plan) for name in expected)


def test_upload_is_one_commit_of_the_checked_bytes(run):
    hub = Hub(files=["README.md", "model/old.keras", "model/price.keras", "thoughts.md"])
    done = publish(run, REPO, dry_run=False, api=hub)
    assert [name for name, _ in hub.asked] == [
        "whoami",
        "create_repo",
        "create_commit",
    ] and "hub.example" in publish_text(done)
    made, commit = hub.asked[1][1], hub.asked[2][1]
    assert made["private"] is True and made["exist_ok"] and commit["parent_commit"] == "abc" and "BTCUSDT 1h" in commit[
        "commit_message"
    ]
    sent = {op.path_in_repo: content(op) for op in commit["operations"]}
    assert list(sent) == [*done["files"], "model/old.keras"], (
        "what belonged to an earlier model goes, what others put there stays"
    )
    assert sent["model/price.keras"] == b"\x00network" and sent["README.md"].decode() == done["card"]
    assert sent["model/manifest.json"] == (run / "model" / "manifest.json").read_bytes()


def test_client_understands_what_it_is_asked(run):
    import inspect

    api = pytest.importorskip("huggingface_hub").HfApi
    hub = Hub()
    publish(run, REPO, dry_run=False, api=hub)
    for name, facts in [*hub.asked, ("repo_info", {"repo_id": REPO, "repo_type": "model"})]:
        inspect.signature(getattr(api, name)).bind(None, **facts)


def test_published_model_passes_its_check(run, tmp_path):
    from cryptolab.systems.artefacts import check_manifest

    hub = Hub()
    publish(run, REPO, dry_run=False, api=hub)
    for op in hub.asked[-1][1]["operations"]:
        path = tmp_path / "copy" / op.path_in_repo
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(op))
    assert check_manifest(tmp_path / "copy" / "model", "v9")["fitted"] == DATA


def test_private_unless_asked_and_never_into_a_public_repository_by_accident(run):
    hub = Hub(private=False)
    with pytest.raises(SettingsError, match="already and public"):
        publish(run, REPO, dry_run=False, api=hub)
    assert hub.asked[-1][0] == "create_repo", "no commit"
    done = publish(run, REPO, private=False, dry_run=False, api=Hub(private=False))
    assert not done["private"] and done["url"]
    assert publish(
        run, REPO, private=False, dry_run=False, api=Hub(private=True),
    )["private"], "says what the repository is"


def test_no_folder_of_this_machine_is_published(run):
    files = publication(run, REPO)
    assert not [name for name, text in files.items() if b"alice" in text or b"../my" in text]
    assert b"my candles" in files["report.html"] and files["report.html"].endswith(b"</p>")
    assert "alice" in (run / "report.ipynb").read_text(), "the file here stays as it is"
    json.loads(files["report.ipynb"])


# ---- what is refused

def test_altered_models_are_refused(run):
    def altered(change, *match):
        copy = run.parent / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        change(copy)
        with pytest.raises((ModelError, DataError)) as e:
            publish(copy, REPO, dry_run=False, api=Untouchable())
        assert all(text in str(e.value) for text in match) and e.value.remedy

    altered(lambda f: (f / "model" / "price.keras").write_bytes(b"\x00other"), "was changed")
    altered(lambda f: (f / "model" / "scaler.json").unlink(), "missing")
    altered(
        lambda f: (f / "model" / "manifest.json").write_text(
            (f / "model" / "manifest.json").read_text().replace("rsi_14", "rsi_15")
        ),
        "was changed",
    )
    altered(lambda f: (f / "model" / "manifest.json").unlink(), "no model folder")
    altered(lambda f: (f / "result.json").write_text("{"), "cannot be read")
    altered(
        lambda f: (f / "result.json").write_text(json.dumps(RESULT | {"data": DATA | {"fingerprint": "other"}})),
        "about another model",
        "other",
    )
    altered(lambda f: (f / "result.json").write_text(json.dumps(RESULT | {"system": "v2"})), "about another model")
    altered(lambda f: (f / "report.html").unlink(), "cannot be published")
    altered(lambda f: (f / "result.json").unlink(), "no finished run")


def test_links_and_files_outside_are_refused(run):
    secret = run.parent / "secret.txt"
    secret.write_text("mine")
    (run / "training.log").unlink()
    (run / "training.log").symlink_to(secret)
    with pytest.raises(ModelError, match="a link"):
        publication(run, REPO)
    (run / "training.log").unlink()
    (run / "model" / "scaler.json").unlink()
    (run / "model" / "scaler.json").symlink_to(secret)
    write_manifest(run / "model", system="v9", fitted=DATA)
    with pytest.raises(ModelError):
        publication(run, REPO)
    (run / "model" / "scaler.json").unlink()
    manifest = write_manifest(run / "model", system="v9", fitted=DATA)
    from cryptolab.files import file_sum
    from cryptolab.systems.artefacts import manifest_sum

    manifest["files"]["../../secret.txt"] = file_sum(secret)
    manifest["sha256"] = manifest_sum(manifest)
    (run / "model" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="outside"):
        publication(run, REPO)


@pytest.mark.parametrize("repo", [
    "", "v9", "a/b/c", "a b/c", "../x/y", "a/..", "https://hub.example/a/b", "a/b.git", "a/" + "b" * 100, "-a/b",
    "a/b\n",
])
def test_repository_names(run, repo):
    with pytest.raises(SettingsError, match="not a repository"):
        publish(run, repo, api=Untouchable())


def test_model_folder_instead_of_the_run_is_explained(run):
    with pytest.raises(ModelError, match="folder above"):
        publish(run / "model", REPO)


# ---- the token

def test_token_appears_nowhere(run, monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    errors = [
        RuntimeError(f"Authorization: Bearer {TOKEN}"), OSError(f"proxy with {TOKEN} said no"), ConnectionError(TOKEN),
    ]
    hubs = [Hub(), *(Hub(error=error) for error in errors)]
    said = [publish_text(publish(run, REPO))]
    for hub in hubs:
        try:
            said.append(repr(publish(run, REPO, dry_run=False, api=hub)))
        except SourceError as e:
            assert e.__cause__ is None and e.__context__ is None, "a traceback must not show the request"
            said.append(f"{e!r} {e}")
    said += [repr(content(op)) for op in hubs[0].asked[-1][1]["operations"]]
    captured = capfd.readouterr()
    assert len(said) > 5 and not [text for text in (*said, captured.out, captured.err) if TOKEN in text]
    assert before == {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}, (
        "publishing writes nothing into the folder"
    )


@pytest.mark.parametrize("name", ["training.log", "report.html", "model/scaler.json"])
@pytest.mark.parametrize("known", [True, False])
def test_file_with_a_token_is_refused(run, monkeypatch, name, known):
    token = "an-odd-token-of-mine" if known else TOKEN
    if known:
        monkeypatch.setenv("HF_TOKEN", token)
    (run / name).write_text(f'"{token}"')
    write_manifest(run / "model", system="v9", fitted=DATA)
    with pytest.raises(SettingsError, match=f"{name} holds an access token") as e:
        publish(run, REPO, dry_run=False, api=Untouchable())
    assert token not in str(e.value)


def letters(count, among=string.ascii_letters + string.digits, seed=1):
    return "".join(random.Random(f"{seed}{count}").choices(among, k=count))


HEX, UPPER = "0123456789abcdef", string.ascii_uppercase + string.digits
# Put together when the tests run, so that no scanner takes this file for a leak.
PLANTED = {
    "Hugging Face Token": "hf" + "_" + letters(34), "GitHub Token": "gh" + "p_" + letters(36),
    "GitHub Token, fine-grained": "github" + "_pat_" + letters(22) + "_" + letters(59),
    "AWS Access Key": "AK" + "IA" + letters(16, UPPER),
    "OpenAI Token": "s" + "k-" + letters(20) + "T3Blbk" + "FJ" + letters(20),
    "OpenAI Token, of a project": "s" + "k-proj-" + letters(40) + "T3Blbk" + "FJ" + letters(20),
    "Anthropic Token": "s" + "k-ant-api03-" + letters(60), "Google API Key": "AI" + "za" + letters(35),
    "Google OAuth Secret": "GOC" + "SPX-" + letters(28), "Google OAuth Token": "ya" + "29." + letters(60),
    "Slack Token": "xo" + "xb-" + "1234567890-2345678901-" + letters(24),
    "Slack App Token": "xa" + "pp-1-" + letters(11, UPPER) + "-1234567890123-" + letters(64, HEX),
    "Private Key": "-----BEG" + "IN RSA PRIV" + "ATE KEY-----",
    "Private Key, with a passphrase": "-----BEG" + "IN ENCRYPTED PRIV" + "ATE KEY-----",
    "JSON Web Token": ".".join([
        *(base64.b64encode(part).decode() for part in (b'{"alg": "HS256"}', b'{"sub": "alice", "n": 1}')), letters(43),
    ]),
    "Stripe Access Key": "sk" + "_live_" + letters(24), "GitLab Token": "glp" + "at-" + letters(20),
    "Basic Auth Credentials": "https://alice:" + letters(12) + "@example.org/candles",
}
RANDOM = {
    "Hex High Entropy String": letters(64, HEX), "Base64 High Entropy String": letters(40),
    "Base64 High Entropy String, of Binance": letters(64), "Secret Keyword": "api" + "_key = '" + letters(8) + "'",
}


def refused(folder, kind, place, line, secret):
    "The folder is refused: the message names place, line and kind, and the secret appears nowhere in it."
    write_manifest(folder / "model", system="v9", fitted=DATA)
    with pytest.raises(SettingsError, match="holds an access token") as e:
        publish(folder, REPO, dry_run=False, api=Untouchable())
    words = str(e.value)
    assert words.startswith(f"{place} holds") and f"line {line}: {kind.split(',')[0]}" in words and e.value.remedy
    assert secret.split("'")[-2 if "'" in secret else 0] not in words


@pytest.mark.parametrize("place", ["training.log", "report.html", "model/scaler.json"])
@pytest.mark.parametrize("kind", PLANTED)
def test_every_kind_of_token_is_refused_with_file_and_line(run, kind, place):
    (run / place).write_text(f"one\ntwo\nlogin with {PLANTED[kind]} here\n")
    refused(run, kind, place, 3, PLANTED[kind])


@pytest.mark.parametrize("kind", [*PLANTED, *RANDOM])
def test_a_token_in_a_notebook_or_a_setting_is_refused(run, kind):
    secret, book = (PLANTED | RANDOM)[kind], json.loads((run / "report.ipynb").read_text())
    kept = json.dumps(book, indent=1)
    book["cells"] += [{"cell_type": "code", "metadata": {}, "source": ["a = 1\n", f"login({secret})"], "outputs": []}]
    (run / "report.ipynb").write_text(json.dumps(book, indent=1))
    line = next(k for k, text in enumerate(json.dumps(book, indent=1).splitlines(), 1) if "login(" in text)
    refused(run, kind, "report.ipynb", line, secret)
    (run / "report.ipynb").write_text(kept)
    (run / "training.log").write_text(f"epoch 1\n{secret}")
    refused(run, kind, "training.log", 2, secret)


def test_a_token_inside_an_archive_is_refused(run):
    with zipfile.ZipFile(run / "model" / "price.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", '{\n"name": "' + PLANTED["GitHub Token"] + '"}')
    assert PLANTED["GitHub Token"].encode() not in (run / "model" / "price.keras").read_bytes()
    refused(run, "GitHub Token", "model/price.keras, config.json", 2, PLANTED["GitHub Token"])


def test_sums_pictures_models_and_paths_raise_no_alarm(run):
    "An ordinary folder: everything in it that looks random, and is no secret."
    import plotly
    import xgboost

    noise = random.Random(7)
    sums = [letters(64, HEX, seed) for seed in range(3)]
    picture = base64.b64encode(noise.randbytes(60_000)).decode()
    facts = DATA | {"fingerprint": sums[0]}
    model = run / "model"
    (model / "price.keras").write_bytes(noise.randbytes(300_000))
    with zipfile.ZipFile(model / "forest.skops", "w") as archive:
        archive.writestr("1.npy", noise.randbytes(200_000))
        archive.writestr("schema.json", json.dumps({"content": picture[:20_000]}))
    X = [[noise.random() for _ in range(5)] for _ in range(300)]
    trees = xgboost.train({"max_depth": 6}, xgboost.DMatrix(X, [x[0] > 0.5 for x in X]), 40)
    (model / "volatility.json").write_bytes(trees.save_raw("json"))
    given = {"init_from": "/content/drive/My_Drive/v9/model"}
    manifest = write_manifest(model, system="v9", fitted=facts, params=given)
    result = RESULT | {
        "data": facts, "certificate": {"columns": 46, "passed": 46, "sha256": sums[1]},
        "volatility": {"V9": {"qlike": 0.503395117647059e-05, "n": 12345678901234567890}},
    }
    (run / "result.json").write_text(json.dumps(result, indent=1))
    path = "/Volumes/ExternalDisk2/Users/JaneDoe/Projects_2024/Kraken_OHLCVT_Q4/BTCUSDT_1h_2019-01-01.parquet"
    log = f"data {json.dumps(facts)}\nread {path}\nsum {manifest['sha256']}\n 1 0.6931471805599453"
    (run / "training.log").write_text(log)
    book = json.loads((run / "report.ipynb").read_text())
    printed = {"output_type": "stream", "name": "stdout", "text": [f"sha256 {sums[1][:16]}, {sums[2][:16]}\n{path}"]}
    data = {"image/png": picture, "text/html": f"<td>{sums[2]}"}
    drawn = {"output_type": "display_data", "metadata": {}, "data": data}
    source = "for key, token in secrets.items():\n    print(key, 'password' in token)"
    book["cells"].append({"cell_type": "code", "metadata": {}, "source": source, "outputs": [printed, drawn]})
    (run / "report.ipynb").write_text(json.dumps(book))
    page = f'<img src="data:image/png;base64,{picture}"><script>"sha256-{picture[:43]}="</script>'
    (run / "report.html").write_text(page)
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", run)
    assert {"plotly.min.js", "model/volatility.json"} <= set(publish(run, REPO, api=Untouchable())["files"])


def chart_page(run):
    "A page with a chart, as a report has it, and the packed library in it."
    figure = {"data": [{"y": [1, 2]}], "layout": {}}
    output = {"output_type": "display_data", "metadata": {}, "data": {"application/vnd.plotly.v1+json": figure}}
    cell = {"cell_type": "code", "metadata": {}, "source": "", "outputs": [output]}
    return render_html({"cells": [cell], "metadata": {}, "nbformat": 4}, run / "report.html")


def packed_page(run, script):
    "The page with another script in the place of plotly."
    page, packed = chart_page(run), base64.b64encode(gzip.compress(script)).decode()
    page.write_text(re.sub(r'(octet-stream" id="plotly">)[^<]+', rf"\g<1>{packed}", page.read_text()))
    return page


def test_the_library_packed_in_a_page_is_published_unchanged(run):
    page = chart_page(run)
    assert publication(run, REPO)["report.html"] == page.read_bytes() and len(page.read_bytes()) > 1_000_000


def test_a_secret_packed_in_the_place_of_the_library_is_found_and_the_library_itself_not_searched(run, monkeypatch):
    script = f"a = 1\nkey = '{PLANTED['GitHub Token']}'".encode()
    packed_page(run, script)
    refused(run, "GitHub Token", "report.html, packed script", 2, PLANTED["GitHub Token"])
    monkeypatch.setattr(secret_scan, "installed_plotly", lambda: script)
    assert "report.html" in publish(run, REPO, api=Untouchable())["files"]


def test_without_the_scanner_nothing_is_published(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "detect_secrets.core.plugins.util", None)
    for dry_run in (True, False):
        with pytest.raises(SourceError, match=r"(?s)detect-secrets.*cryptolab\[hub\]"):
            publish(run, REPO, dry_run=dry_run, api=Untouchable())


def test_the_search_asks_no_service(run, monkeypatch):
    "The detectors could ask a service whether a token is valid; that would send it there."
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection"))
    (run / "training.log").write_text("\n".join(PLANTED.values()))
    with pytest.raises(SettingsError, match="and 1[0-9] more"):
        publish(run, REPO)


def test_private_folders_with_odd_names_leave_the_page_too(run):
    folder = "/home/alice/R&D <\"new\">/candles of 'mine'"
    given = {"data_dir": folder, "params": {"init_from": folder}}
    book = {"cells": [], "metadata": {"papermill": {"parameters": given}}}
    (run / "report.ipynb").write_text(json.dumps(book))
    render_html(book | {"nbformat": 4}, run / "report.html")
    assert "alice" in (run / "report.html").read_text()
    files = publication(run, REPO)
    assert not [name for name in ("report.html", "report.ipynb") if b"alice" in files[name]]
    assert b"candles of &#x27;mine&#x27;" in files["report.html"]


def answer(status):
    error = RuntimeError(f"{status} Client Error")
    error.response = SimpleNamespace(status_code=status)
    return error


@pytest.mark.parametrize("error, words", [
    (answer(401), "nobody is logged in"), (answer(403), "may not write"), (answer(412), "by somebody else"),
    (answer(400), "not published"), (ConnectionError("refused"), "cannot be reached"),
    (TimeoutError(), "cannot be reached"), (ValueError("bad card"), "bad card"),
])
def test_errors_of_the_hub_say_what_to_do(run, error, words):
    with pytest.raises(SourceError, match=words) as e:
        publish(run, REPO, dry_run=False, api=Hub(error=error))
    assert e.value.remedy and e.value.expected and e.value.found


CLIENT = """
import sys
from cryptolab.config import SourceError
from cryptolab.runs.publish import publish
try:
    publish(sys.argv[1], "someone/v9-btc", dry_run=False)
except SourceError as e:
    print(e)
"""


@pytest.mark.parametrize("env, words", [
    ({"HF_HUB_OFFLINE": "1", "HF_TOKEN": TOKEN}, "cannot be reached"),
    ({"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": TOKEN}, "cannot be reached"),
    ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "nobody is logged in")])
def test_real_client_without_network_or_login(run, tmp_path, env, words):
    pytest.importorskip("huggingface_hub")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))} | {
        "HF_HOME": str(tmp_path / "hf"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(run)], capture_output=True, text=True, env=clean | env, timeout=120,
    )
    assert words in done.stdout and "what to do" in done.stdout, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()]


def test_without_the_package(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert publish(run, REPO)["url"] is None, "listing needs no package"
    with pytest.raises(SourceError, match=r"cryptolab\[hub\]"):
        publish(run, REPO, dry_run=False)


def test_command_lists_uploads_and_fails_kindly(run, monkeypatch):
    from cryptolab.runs import publish as module

    hub = Hub()
    monkeypatch.setattr(module, "_hub", lambda: hub)
    ask = lambda *given: CliRunner().invoke(command(), ["publish", *map(str, given)])
    listed = ask(run, REPO)
    assert listed.exit_code == 0 and "--yes" in listed.output and "model/price.keras" in listed.output and not hub.asked
    assert "## Model information sheet" in ask(run, REPO, "--card").output and not hub.asked
    done = ask(run, REPO, "--yes", "--message", "first")
    assert (
        done.exit_code == 0
        and "published: https://hub.example" in done.output
        and hub.asked[-1][1]["commit_message"] == "first"
    )
    assert ask(run, REPO, "--yes", "--public").exit_code == 0 and hub.asked[-2][1]["private"] is False
    (run / "model" / "price.keras").write_bytes(b"other")
    wrong = ask(run, REPO, "--yes")
    assert wrong.exit_code == 1 and "ModelError" in wrong.output and "Traceback" not in wrong.output


# ---- the card

def parts(card):
    "Front matter and text of a card."
    _, front, text = card.split("---\n", 2)
    return yaml.safe_load(front), text


def test_card_is_filled_from_the_result(run):
    manifest = json.loads((run / "model" / "manifest.json").read_text())
    front, text = parts(model_card(RESULT, manifest, REPO))
    assert "BTCUSDT" in front["tags"] and "v9" in front["tags"] and "model-index" not in front
    for number in (
        "53.7 (51.2 to 56.2)", "3.4 (0.1 to 6.6)", "&lt; 0.001", "2.46 (0.68 to 4.34)", "2.4 (0.7 to 4.2)", "-12.72",
        "15 per side", "0.9992 (0.9986 to 0.9998)", "Stated: 90 %", "1,491 rows", "c99750cee2b4abdf", "46 of 46",
        "10 on 1,500 candles, findings: 0", "e63f46659e26", '"seed": 7', manifest["sha256"], "2024-05-10",
        "keras 3.15.1", "3; probability",
    ):
        assert number in text, number
    assert "heads" not in text and "None" not in text and "nan" not in text
    other = json.loads(
        json.dumps(RESULT).replace("BTCUSDT", "ETHUSDT").replace("0.5372", "0.6123").replace("-12.72", "3.25")
    )
    changed = model_card(other, manifest, "someone/eth")
    assert "61.2 (51.2" in changed and "gained 3.25" in changed and "BTC" not in changed and "someone/eth" in changed


def test_card_warns_before_the_first_number():
    leaky = RESULT | {
        "leaks": {
            "candles": 1500, "detectors": 10, "found": [{"kind": "label overlap", "step": "split", "evidence": "x"}],
        }
    }
    unsearched = {k: v for k, v in RESULT.items() if k != "leaks"}
    for result, words in (
        (leaky, "A leak was found (label overlap)"), (unsearched, "not searched for leaks"),
        (RESULT | {"certificate": {"columns": 46, "passed": 44, "sha256": "a"}}, "2 of 46"),
        (RESULT | {"data": DATA | {"source": "sample"}}, "generated"),
    ):
        card = model_card(result, {"sha256": "a"}, REPO)
        assert words in card and card.index(words) < card.index("## Numbers")
    assert "FOUND: label overlap (split)" in model_card(leaky, {"sha256": "a"}, REPO)
    assert "> **" not in model_card(RESULT, {"sha256": "a"}, REPO)


def test_card_of_a_result_with_little_in_it():
    least = {k: RESULT[k] for k in ("system", "symbol", "timeframe", "finding", "data")}
    card = model_card(least, {"sha256": "a"}, REPO)
    assert (
        "not certified" in card
        and "nobody has looked" in card
        and "not counted" in card
        and "no table of numbers" in card
    )
    for missing in least:
        with pytest.raises(DataError, match="lacks"):
            model_card({k: v for k, v in least.items() if k != missing}, {"sha256": "a"}, REPO)


def test_card_survives_hostile_text():
    evil = '<script>alert(1)</script>|x"\n---\nlicense: mit'
    card = model_card(
        RESULT | {
            "symbol": evil, "finding": evil, "data": DATA | {"symbol": evil, "file": evil},
            "direction": {evil: {"n": 1}},
        },
        {"sha256": "a"}, REPO,
    )
    front, text = parts(card)
    assert set(front) == {"library_name", "pipeline_tag", "tags"} and "<script>" not in text


def test_every_text_of_a_card_is_shown_as_text():
    "Whatever a result holds, the card has the elements of an ordinary card and no others."
    evil = (
        " [x](javascript:alert(1)) ![y](https://example.org/y.png) https://example.org <img src=x onerror=alert(1)>"
        " `a` | b $c$ @d *e*\n# f"
    )
    names = ("V9", "majority", "V9 ensemble", "keras")

    def everywhere(value):
        if isinstance(value, dict):
            return {f"{k}{evil}" if k in names else k: everywhere(v) for k, v in value.items()}
        if isinstance(value, list):
            return [everywhere(v) for v in value]
        return f"{value}{evil}" if isinstance(value, str) else value

    def elements(result, manifest):
        front, text = parts(model_card(result, manifest, REPO))
        assert set(front) == {"library_name", "pipeline_tag", "tags"}
        made = output_html({"output_type": "display_data", "data": {"text/markdown": text}})
        return made, re.findall(r"<(?!span)(\w+)", made)

    leak = {"kind": "scaler", "step": "scale", "evidence": "x"}
    result = RESULT | {"leaks": {"candles": 1500, "detectors": 10, "found": [leak]}}
    plain, wanted = elements(result, {"sha256": "a"})
    hostile, got = elements(everywhere(result), {"sha256": f"a{evil}"})
    assert got == wanted and hostile.count("onerror=alert(1)&gt;") > 20 and "onerror" not in plain
    assert set(re.findall(r'(?:href|src)="([^#"][^"]*)"', hostile)) == set()


# ---- the notebook for many coins

BATCH = ROOT / "colab" / "batch.ipynb"


def cells(kind="code"):
    return [cell.source for cell in nbformat.read(BATCH, as_version=4).cells if cell.cell_type == kind]


def test_colab_batch_is_clean_and_has_its_parts():
    book = nbformat.read(BATCH, as_version=4)
    nbformat.validate(book)
    assert not any(c.get("outputs") or c.get("execution_count") for c in book.cells)
    assert sum("parameters" in c.metadata.get("tags", []) for c in book.cells) == 1
    text = "\n".join(cells())
    for part in (
        "diagnose()", 'drive.mount("/content/drive")', "--no-deps", '"batch"', "leaderboard(out)",
        "leaderboard_summary",
    ):
        assert part in text, part
    installs = [
        next(
            s for s in (c.source for c in nbformat.read(p, as_version=4).cells if c.cell_type == "code")
            if "pip_install" in s
        )
        for p in (BATCH, BATCH.with_name("v9.ipynb"))
    ]
    assert installs[0] == installs[1], "both notebooks install in the same way"
    assert "hf_" not in text and "pypi" not in BATCH.read_text().lower()


@pytest.fixture
def opened(tmp_path, monkeypatch, capsys):
    "The names of the notebook after the cell that builds the command, smoke profile, sample market; nothing was run."
    monkeypatch.chdir(BATCH.parent)
    monkeypatch.setattr(
        "cryptolab.cli.doctor.gpu",
        lambda backend: {"backend": backend, "works": True, "devices": [], "cards": [], "message": ""},
    )
    names, given = {}, dict(
        source="sample", profile="smoke", limit=1200, out=str(tmp_path / "out"), symbols=["BTCUSDT", "ETHUSDT"],
        params={"dropout": 0.2, "pool": ["SOLUSDT"]},
    )
    for source in cells():
        exec(compile(source, "batch.ipynb", "exec"), names)
        if "symbols = " in source:
            names |= given
        if "arguments" in names:
            break
    return names


def test_colab_batch_builds_a_command_that_the_program_understands(opened, tmp_path, monkeypatch):
    from cryptolab.runs import batch, plan
    from cryptolab.cli import main as cli

    seen = {}
    monkeypatch.setattr(plan, "make_plan", lambda *given, **settings: seen.update(given=given, **settings) or ["job"])
    monkeypatch.setattr(
        batch, "run_batch",
        lambda work, **settings: seen.update(run=settings) or {"BTCUSDT-1h-v9": {"state": "done", "seconds": 1.0}},
    )
    done = CliRunner().invoke(cli.app, opened["arguments"])
    assert done.exit_code == 0, done.output
    assert [tuple(x) for x in seen["given"]] == [("BTCUSDT", "ETHUSDT"), ("1h", "1d"), ("v9",)]
    assert (seen["source"], seen["profile"], seen["limit"], seen["seed"], seen["end"]) == (
        "sample",
        "smoke",
        1200,
        0,
        None,
    )
    assert seen["params"] == {"dropout": 0.2, "pool": ["SOLUSDT"]}
    assert (
        str(seen["run"]["out"]) == str(tmp_path / "out")
        and seen["run"]["jobs"] == opened["jobs"] >= 1
        and seen["run"]["timeout"] == 4 * 3600
    ), "time-out in seconds"


def test_colab_batch_runs_the_program_and_shows_the_leaderboard(opened, tmp_path, run, capsys):
    rest = cells()
    start = next(i for i, source in enumerate(rest) if "Popen" in source)
    opened["arguments"] = ["--version"]
    exec(compile(rest[start], "batch.ipynb", "exec"), opened)
    said = capsys.readouterr().out
    assert opened["cryptolab"].__version__ in said.split() and "everything is there" in said
    opened["arguments"] = ["batch", "--symbols", "BTCUSDT", "--source", "nowhere"]
    exec(compile(rest[start], "batch.ipynb", "exec"), opened)
    assert "SettingsError" in (said := capsys.readouterr().out) and "only what is missing" in said
    shutil.move(run, tmp_path / "out" / run.name)
    (tmp_path / "out" / "ETHUSDT-1h-v9").mkdir()
    (tmp_path / "out" / "ETHUSDT-1h-v9" / "result.json").write_text("{")
    exec(compile(rest[start + 1], "batch.ipynb", "exec"), opened)
    said = capsys.readouterr().out
    assert (
        "1 report on 1 coin" in said
        and str(tmp_path / "out" / "BTCUSDT-1h-v9" / "report.html") in said
        and "index.html" in said
    )
