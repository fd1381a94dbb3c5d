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


# Files and notebooks that take longest are started first, so that no worker is left with a long one at the end.
LONG = (
    "test_v9", "test_transfer", "test_batch", "test_reports", "test_docs", "test_leakage", "test_claims", "test_hybrid",
    "test_v2", "test_controls", "test_backtest", "test_certified", "test_certificate", "test_zoo",
    "30_v9/90_system", "studies/certificates", "06_colab", "40_worker", "50_batch", "40_sets/10_v9", "20_direction",
    "40_price", "04_own_model", "50_hybrid/90_system", "61_classifiers", "50_hybrid/30_fit", "70_faults",
)


def pytest_collection_modifyitems(items):
    "Long ones first."
    items.sort(key=lambda item: next((k for k, known in enumerate(LONG) if known in item.nodeid), len(LONG)))
