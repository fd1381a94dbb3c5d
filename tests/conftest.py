"""Set-up every test shares: quiet logs, one thread per worker, and the folder of real candles."""
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

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


# Files, notebooks and tests that take longest are started first, so that no worker is left with a long one at the end.
LONG = (
    "test_v9.py", "test_transfer", "test_fuzz", "test_docs", "30_v9/90_system", "studies/certificates", "test_reports",
    "test_batch", "test_claims", "test_whole", "test_hybrid.py", "test_v2.py", "test_controls", "test_backtest.py",
    "test_zoo", "test_certified", "test_certificate", "06_colab", "40_worker", "50_batch", "40_sets/10_v9",
    "20_direction", "40_price", "04_own_model", "50_hybrid/90_system", "61_classifiers", "50_hybrid/30_fit", "70_faults",
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
