"""The main things take five lines each: those of the page and of the README stand in tutorials and run."""
import json
import re
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from cryptolab.data import sample_market

ROOT = Path(__file__).resolve().parents[1]
PAGE = json.loads((ROOT / "nbs" / "studies" / "five_lines.ipynb").read_text())["cells"]
BLOCKS = re.findall(r"```python\n(.*?)```", "\n\n".join("".join(cell["source"]) for cell in PAGE), re.DOTALL)
WANTED = {  # what a block is about -> a word that it must hold
    "a CSV": "read_candles", "features": "cl.features(", "a certificate": "cl.certify(", "a comparison": "cl.compare(",
    "a backtest with exits": "exits=", "an audit": "cl.audit_pipeline(",
}


def tutorial_cells():
    "Text of every code cell of every tutorial."
    for path in sorted((ROOT / "nbs" / "tutorials").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                yield "".join(cell["source"]).strip()


def test_the_page_has_one_block_for_each_main_thing():
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown and set(shown) <= set(BLOCKS), "the README shows some of them"
    assert len(BLOCKS) == len(WANTED)
    for what, word in WANTED.items():
        assert sum(word in block for block in BLOCKS) == 1, what


@pytest.mark.parametrize("block", BLOCKS, ids=[next((w for w, x in WANTED.items() if x in b), "other") for b in BLOCKS])
def test_five_lines_that_run(block, tmp_path, monkeypatch):
    lines = block.strip().splitlines()
    assert len(lines) <= 5 and ";" not in block and lines[0] == "import cryptolab as cl"
    assert block.strip() in set(tutorial_cells()), "the same lines stand in a tutorial"
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    sample_market("MYCUSDT", n=300).to_csv("MYCUSDT_1h.csv")
    *before, last = block.replace("limit=2000", "limit=800").replace("n=2000", "n=1200").strip().splitlines()
    names = {}
    exec("\n".join(before), names)
    shown = eval(last, names)
    assert shown is not None
    if "cl.compare(" in block:
        result = names["result"]
        assert {"direction", "rivals", "costs", "volatility", "price"} <= set(result.boards)
        assert "95 % interval" in result.finding() and "<table" in result._repr_html_()
        assert list(result.rows["direction"]["test"]) == list(names["system"].rows("test"))
    if "exits=" in block:
        trades = names["result"].trades
        assert len(trades) > 10 and "signal" in set(trades["exit_reason"].astype(str))
    if isinstance(shown, pd.DataFrame) and "verdict" in shown:
        assert (shown["verdict"] == "pass").all()


def test_what_is_behind_the_short_name():
    import cryptolab as cl

    asked = "load_candles read_candles features certify V9 V2 Hybrid compare backtest audit_pipeline sample_market"
    assert set(asked.split()) <= set(dir(cl)) and all(callable(getattr(cl, name)) for name in asked.split())
    for room in cl.ROOMS:
        package = getattr(cl, room)
        assert dir(package) and not [name for name in dir(package) if name.startswith("_") and name != "__version__"]
