"""Set-up every test shares: quiet logs, one thread per worker, and the folder of real candles."""
import base64
import hashlib
import os
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]  # so that tests import benchmarks and tools, however pytest is called

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
# Workers share the cores: libraries that start a thread per core would only wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in (
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
        "NUMBA_NUM_THREADS",
    ):
        os.environ.setdefault(name, "1")


@pytest.fixture(scope="session")
def shared_data():
    "Folder of real candles: CRYPTOLAB_SHARED, or ../shared/data beside the checkout."
    folder = Path(os.environ.get("CRYPTOLAB_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real candles in {folder}; set CRYPTOLAB_SHARED to a folder of candle files")
    return folder


@pytest.fixture
def earlier_version(tmp_path):
    "A function (fitted system, its folder, its candles): a folder of version 1 says the same, and compare judges it."

    def rewritten(cls, folder):
        from cryptolab.systems.artefacts import check_manifest, write_manifest

        copy = shutil.copytree(folder, tmp_path / "earlier")
        facts = {k: v for k, v in check_manifest(copy, cls.name).items() if k not in ("files", "sha256")}
        params = dict(facts["params"])
        params |= dict.fromkeys(cls.size_names()) | params.pop("sizes")  # each size a parameter of its own, or none
        (copy / "rows.json").unlink()
        write_manifest(copy, **facts | {"params": params, "format": 1})
        return copy

    def check(fitted, folder, candles):
        from pandas.testing import assert_frame_equal

        from cryptolab.config import ModelError
        from cryptolab.audit.compare import compare

        loaded = type(fitted).load(rewritten(type(fitted), folder))
        assert loaded.get_params() == fitted.get_params() and loaded.chosen_sizes() == fitted.chosen_sizes()
        assert_frame_equal(loaded.forecast(candles), fitted.forecast(candles), check_exact=True)
        with pytest.raises(ModelError, match="does not tell its rows"):
            loaded.rows("test")
        found = compare(loaded, candles)
        assert list(found.rows) == list(fitted.labels(candles)) and found.finding()
        for target, parts in found.rows.items():  # by date, and yet the rows of the fit
            assert all(rows.equals(fitted.rows(part, target)) for part, rows in parts.items())

    return check


# Files, notebooks and tests that take longest are started first, so that no worker is left with a long one at the end.
LONG = (
    "test_v9.py", "test_transfer", "test_fuzz", "test_hostile", "test_docs", "30_v9/90_system",
    "studies/certificates", "test_reports", "test_batch", "test_claims", "test_whole", "test_hybrid.py", "test_v2.py",
    "test_v3_page", "test_v3_audit", "test_v3_system", "test_distributed", "test_onnx", "test_automl", "test_tabnet",
    "60_v3/", "test_controls", "test_backtest.py", "test_zoo", "test_certified", "test_certificate", "06_colab",
    "40_worker", "50_batch", "40_sets/10_v9", "20_direction", "40_price", "04_own_model", "50_hybrid/90_system",
    "61_classifiers", "50_hybrid/30_fit", "70_faults", "test_plain_market",
)


def pytest_collection_modifyitems(items):
    "Long ones first."
    items.sort(key=lambda item: next((k for k, known in enumerate(LONG) if known in item.nodeid), len(LONG)))


# Tests of one file go to one worker, because they share what it fits and builds; in these files they share nothing.
ONE_BY_ONE = (
    "test_notebooks.py", "test_whole.py", "test_leakage.py", "test_zoo.py", "test_certified.py", "test_fuzz.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "Distribute by file, but for files whose tests share nothing."
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::", 1)[0]
            return nodeid if file.endswith(ONE_BY_ONE) else file

    return ByFile(config, log)


# ---- what may not stand on a page

class PageElements(HTMLParser):
    "The elements of a page with their attributes, its scripts, and all text that a reader sees."

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.shown, self.inside = [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append([dict(attrs), ""])

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1][1] += data
        elif self.inside != "style":
            self.shown += data


def policy_problems(page: PageElements) -> list:
    "Where the policy of a page is looser than ours, or stops a script of the page itself."
    metas = [attrs for tag, attrs in page.elements if tag == "meta" and "http-equiv" in attrs]
    if [meta["http-equiv"] for meta in metas] != ["Content-Security-Policy"]:
        return [f"not one policy but {metas}"]
    rules = {rule.split()[0]: rule.split()[1:] for rule in metas[0]["content"].split("; ")}
    closed = ("default-src", "script-src-attr", "object-src", "base-uri", "form-action")
    problems = [f"{name} {rules.get(name)}" for name in closed if rules.get(name) != ["'none'"]]
    problems += [f"{name} in the policy" for name in set(rules) - {*closed, "script-src", "style-src", "img-src"}]
    problems += [f"{source} in img-src" for source in rules["img-src"] if source not in ("data:", "blob:")]
    needed = set()
    for attrs, code in page.scripts:
        if attrs.get("type") not in ("application/json", "application/octet-stream"):  # these are data, and not run
            sha = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
            needed |= {f"'nonce-{attrs['nonce']}'"} if "nonce" in attrs else set()
            needed.add("no script may come from a file" if "src" in attrs else f"'sha256-{sha}'")
    if needed != (allowed := set(rules["script-src"]) - {"'none'"}):
        problems.append(f"scripts {sorted(needed)}, allowed {sorted(allowed)}")
    return problems


def foreign_problems(page: PageElements) -> list:
    "Elements that no page of ours has, handlers, and addresses that are not our own."
    ours = set("""html head meta title link style body main nav footer header section form label select option input
        span div p a h1 h2 h3 ul ol li dl dt dd strong em code pre blockquote details summary table thead tbody tr th td
        script noscript button small svg g path circle text figure figcaption i b br hr img""".split())
    problems = [f"<{tag}>" for tag, _ in page.elements if tag not in ours]
    for tag, attrs in page.elements:
        unwanted = {name for name in attrs if name.startswith("on")} | set(attrs) & {"srcdoc", "ping", "action"}
        problems += [f"<{tag} {name}>" for name in unwanted]
        if tag == "img" and not (attrs.get("alt") == "figure" and attrs.get("src", "").startswith("data:image/")):
            problems.append(f"<img {attrs}>")
        if ":" in (attrs.get("href") or "") and attrs["href"] != "data:,":
            problems.append(f"<{tag} href={attrs['href']}>")
    return problems


@pytest.fixture(scope="session")
def page_problems():
    "A function: HTML -> what is wrong with its policy, scripts, elements and addresses, as a list of texts."
    return lambda html: [*policy_problems(page := PageElements(html)), *foreign_problems(page)]


@pytest.fixture(scope="session")
def shown_text():
    "A function: HTML -> the text that a reader sees."
    return lambda html: PageElements(html).shown
