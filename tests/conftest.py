"""Set-up every test shares: quiet logs, one thread per worker, and the folder of real candles."""
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: libraries that start a thread per core would only wait for each other
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
