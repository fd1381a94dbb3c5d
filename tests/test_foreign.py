"""Audits of foreign notebooks: planted leaks are named with their line, honest twins are left in peace, and bad input
ends well."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cryptolab.audit.foreign.audit import audit_notebook, audit_text
from cryptolab.audit.foreign.candle_readers import Market, Readers, file_table
from cryptolab.audit.foreign.cells import Cell, read_cells, runnable_code, words_of
from cryptolab.audit.foreign.judge import KINDS
from cryptolab.audit.foreign.judge_trading import LEAST, strategy_returns
from cryptolab.audit.foreign.markets import other_coin, other_future, plain_candles, random_walk
from cryptolab.audit.foreign.page import notebook_page
from cryptolab.config import DataError, SettingsError
from cryptolab.data.market import sample_market

CANDLES = sample_market(n=1_000)
HEAD = """import pandas as pd, numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.model_selection import train_test_split
df = pd.read_csv('BTC-USD.csv')
df['ret'] = df['Close'].pct_change()
df['vol'] = df['ret'].rolling(24).std()
"""


def audited(tmp_path, *cells, **options):
    "The audit of a script with these cells behind the usual head."
    path = tmp_path / "stranger.py"
    path.write_text("\n".join(f"# %%\n{cell}" for cell in (HEAD, *cells)))
    return audit_notebook(path, CANDLES, seconds=30, **options)


# ---- one audit for many questions: everything that can go wrong, in one notebook with a leak

MESSY = """
!pip install ta
%matplotlib inline
import matplotlib.pyplot as plt
import seaborn as sns
import not_a_library
for i in range(20_000):
    print('megabytes of output ' * 10)
name = input('which coin? ')
"""
BROKEN = "not_a_library.train(df)\nopen('absent.csv')"
NET = "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)"
WRITES = "import os\nopen('own.txt', 'w').write('x')\nopen('{victim}', 'w').write('gone')"
DELETES = "import os\nos.remove('{victim}')"
LEAK = """df['y'] = (df['Close'].shift(-1) > df['Close']).astype(int)
df = df.iloc[24:-1]
X = StandardScaler().fit_transform(df[['ret', 'vol']])
n = int(0.8 * len(X))
model = LogisticRegression().fit(X[:n], df['y'][:n])
print(model.score(X[n:], df['y'][n:]))
plt.plot(X); plt.show()"""


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("messy")
    victim = folder / "victim.txt"
    victim.write_text("still here")
    audit = audited(folder, MESSY, BROKEN, NET, WRITES.format(victim=victim), DELETES.format(victim=victim), LEAK)
    return audit, victim


def test_a_leak_in_a_messy_notebook_is_named_with_cell_and_line(messy):
    audit, _ = messy
    assert [(f["kind"], f["cell"], f["line"]) for f in audit.findings] == [("fitted on test rows", 7, 3)]
    assert (
        audit.verdicts["label overlap"][0] == "nothing"
        and audit.verdicts["trades at a price it has seen"][0] == "not judged"
    )


def test_what_was_left_out_or_failed_is_said(messy):
    audit, _ = messy
    notes = "\n".join(audit.notes)
    assert "pip install ta" in notes and "needs not_a_library" in notes and "`input()`" in notes and "own.txt" in notes
    assert set(audit.facts["errors"]) == {3, 4, 5, 6}
    assert all(len(text) <= 2_000 for text in audit.facts["printed"].values())


def test_nothing_outside_the_working_folder_is_written_or_removed(messy):
    audit, victim = messy
    assert victim.read_text() == "still here"
    assert "Network" in audit.facts["errors"][4]["error"] or "network" in audit.facts["errors"][4]["error"]


def test_the_page_holds_every_cell_and_finding_and_runs_nothing(messy):
    audit, _ = messy
    page = notebook_page(audit)
    assert "<script" not in page and page.count('class="finding"') == 1 and "no security boundary" in page
    assert all(kind in page for kind in KINDS) and page.count('class="cell"') == len(audit.cells)


# ---- leaks and their honest twins


def test_forward_columns_and_late_joins(tmp_path):
    body = """df['y'] = (df['Close'].shift(-1) > df['Close']).astype(int)
df['m'] = df['Close'].rolling(5, center={}).mean() / df['Close']
d = df.iloc[24:-5]
model = LogisticRegression().fit(d[['ret', 'm']][:700], d['y'][:700])
print(model.score(d[['ret', 'm']][700:], d['y'][700:]))"""
    assert "features see the future" in audited(tmp_path, body.format(True)).leaks()
    assert audited(tmp_path, body.format(False)).leaks() == []


def test_a_choice_by_test_rows_and_one_by_a_validation_part(tmp_path):
    body = """df['y'] = (df['Close'].shift(-1) > df['Close']).astype(int)
d = df.iloc[24:-1]
X, y, best = d[['ret', 'vol']].to_numpy() * 100, d['y'].to_numpy(), (0, None)
for c in [1e-4, 1e-2, 1, 100]:
    model = LogisticRegression(C=c).fit(X[:600], y[:600])
    score = model.score(X[{0}], y[{0}])
    best = max(best, (score, c))
final = LogisticRegression(C=best[1]).fit(X[:600], y[:600])
print(final.score(X[800:], y[800:]))"""
    assert audited(tmp_path, body.format("800:")).leaks() == ["chosen on test rows"]
    assert audited(tmp_path, body.format("600:800")).leaks() == []


def test_shuffled_rows_matter_only_when_outcomes_overlap(tmp_path):
    body = """df['y'] = (df['Close'].shift(-{0}) > df['Close']).astype(int)
d = df.iloc[24:-{0}]
a, b, c, e = train_test_split(d[['ret', 'vol']], d['y'], test_size=0.25, random_state=0)
print(LogisticRegression().fit(a, c).score(b, e))"""
    assert audited(tmp_path, body.format(12)).leaks() == ["label overlap"]
    assert audited(tmp_path, body.format(1)).leaks() == []


def test_a_cut_in_time_order_needs_a_gap_as_long_as_the_label(tmp_path):
    body = """df['y'] = (df['Close'].shift(-12) > df['Close']).astype(int)
d = df.iloc[24:-12]
X, y = d[['ret', 'vol']] * 100, d['y']
print(LogisticRegression().fit(X[:{0}], y[:{0}]).score(X[700:], y[700:]))"""
    found = audited(tmp_path, body.format(700))
    assert found.leaks() == ["label overlap"]
    assert "11 of 264 test outcomes share candles" in found.findings[0]["text"]
    assert audited(tmp_path, body.format(688)).leaks() == []


def test_a_position_must_be_taken_before_the_move_that_pays_it(tmp_path):
    body = """df = df.iloc[24:]
signal = np.sign(df['ret'])
df['strategy'] = signal{0} * df['ret']
print((1 + df['strategy']).cumprod().iloc[-1])"""
    assert audited(tmp_path, body.format("")).leaks() == ["trades at a price it has seen"]
    honest = audited(tmp_path, body.format(".shift(1)"))
    assert honest.leaks() == []
    assert honest.verdicts["trades at a price it has seen"][0] == "nothing"  # judged, not passed over


def test_unseeded_chance_is_measured_and_not_accused(tmp_path):
    audit = audited(
        tmp_path,
        """import os, random, uuid
from sklearn.ensemble import RandomForestClassifier
df['luck'] = np.random.default_rng().normal(size=len(df)) + random.random() + os.urandom(1)[0] + uuid.uuid4().int % 7
df['y'] = (df['Close'].shift(-1) > df['Close']).astype(int)
d = df.iloc[24:-1]
m = RandomForestClassifier(n_estimators=300, max_depth=3).fit(d[['ret', 'luck']][:700], d['y'][:700])
print(m.score(d[['ret', 'luck']][700:], d['y'][700:]))""",
    )
    assert audit.leaks() == [] and any(
        "shortened: RandomForestClassifier n_estimators from 300" in note for note in audit.notes
    )


def test_a_notebook_that_fits_nothing_and_one_that_reads_nothing_are_not_judged(tmp_path):
    audit = audited(tmp_path, "print(df['Close'].mean())")
    assert audit.leaks() == [] and audit.verdicts["fitted on test rows"][0] == "not judged"
    path = tmp_path / "empty.py"
    path.write_text("print(1)")
    audit = audit_notebook(path, CANDLES, seconds=20)
    assert {verdict for verdict, _ in audit.verdicts.values()} == {"not judged"}
    assert "read no candles" in audit_text(audit)


def test_time_that_is_up_is_said(tmp_path):
    path = tmp_path / "slow.py"
    path.write_text("# %%\nimport pandas as pd\ndf = pd.read_csv('a.csv')\n# %%\nwhile True:\n    pass\n")
    audit = audit_notebook(path, CANDLES, seconds=5)
    assert any("time was up in cell 2" in note for note in audit.notes)


# ---- parts


def test_cells_of_files(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(
        json.dumps(
            {"cells": [{"cell_type": "markdown", "source": "# T"}, {"cell_type": "code", "source": ["x = 1\n", "!ls"]}]}
        )
    )
    assert [(c.kind, c.code) for c in read_cells(path)] == [("markdown", ""), ("code", "x = 1\npass")]
    for text, error in (
        ("", DataError),
        ("[]", DataError),
        ('{"cells": [{"cell_type": "markdown", "source": ""}]}', DataError),
    ):
        path.write_text(text)
        with pytest.raises(error):
            read_cells(path)
    for name in ("a.txt", "absent.ipynb"):
        with pytest.raises(SettingsError):
            read_cells(tmp_path / name)
    assert (
        runnable_code("if x:\n    !ls \\\n      -l\nelse:\n    y = %who")[0]
        == "if x:\n    pass\n\nelse:\n    y = None"
    )


@pytest.mark.parametrize("way", ["rising", "falling"])
def test_another_future_leaves_the_past_and_the_next_open(way):
    candles = plain_candles(CANDLES)
    changed = other_future(candles, 700, way)
    pd.testing.assert_frame_equal(changed[:701], candles[:701])
    assert (
        changed["open"].iloc[701] == candles["open"].iloc[701]
        and (changed["close"].iloc[701:] != candles["close"].iloc[701:]).all()
    )
    coin, base = other_coin(changed, "ETH"), other_coin(candles, "ETH")
    pd.testing.assert_frame_equal(coin[:701], base[:701])


def test_nobody_gains_on_a_random_walk():
    closes = [random_walk(plain_candles(CANDLES), seed)["close"].to_numpy() for seed in range(20)]
    moves = np.array([np.diff(c) / c[:-1] for c in closes])
    follow = np.sign(moves[:, :-1]) * moves[:, 1:]
    assert np.abs(follow.sum(axis=1) / np.sqrt((follow**2).sum(axis=1))).max() < LEAST
    cost = follow[0] - 0.001 * (np.diff(np.sign(moves[0]))[:1].sum() + np.arange(follow.shape[1]) % 3 == 0)
    gross = strategy_returns(cost, closes[0])[0]
    assert abs(gross.sum() / np.sqrt((gross**2).sum())) < LEAST
    gross = strategy_returns(np.abs(moves[0]), closes[0])[0]
    assert gross.sum() / np.sqrt((gross**2).sum()) > LEAST


@pytest.mark.parametrize(
    "code, columns",
    [
        ("df['Date']; df['Close']; df['Volume']", ["Date", "Open", "High", "Low", "Close", "Volume"]),
        ("df.rename(columns={'Close Price': 'close', 'Open Time': 't'}).close", ["Open Time", "Close Price"]),
        ("df['unix']; df['close']; df['Volume USDT']", ["unix", "close", "Volume USDT"]),
        ("df.columns = ['time', 'o', 'h', 'l', 'c', 'v', 'ct', 'qv', 'n', 'tb', 'tq', 'i']", ["time"]),
    ],
)
def test_a_file_has_the_columns_that_the_code_names(code, columns):
    words = words_of([Cell(1, "code", code, code)])
    made = file_table(plain_candles(CANDLES), words)
    assert set(columns) <= set(made.columns)
    if words.columns:
        assert made.shape[1] == 12


def test_readers_answer_as_exchanges_do():
    readers = Readers(Market(plain_candles(CANDLES)), words_of([]))
    rows, since = [], readers.klines("BTCUSDT", "1h", None, None, 1)[0][0] - 400 * 3_600_000
    while batch := readers.klines("BTCUSDT", "1h", since, None, 150):
        rows, since = rows + batch, batch[-1][0] + 1
    assert len(rows) == 401 and len({row[0] for row in rows}) == 401 and {len(row) for row in rows} == {12}


def test_the_command_says_leaks_by_its_exit_code(tmp_path):
    from cryptolab.cli.main import app

    path = tmp_path / "a.py"
    path.write_text(
        f"{HEAD}\nX, y = df[['ret', 'vol']][24:], (df['ret'] > 0)[24:]\nprint(LogisticRegression().fit(X, y).score(X, "
        "y))"
    )
    answer = CliRunner().invoke(app, ["audit-notebook", str(path), "--json", "--quiet", "--rows", "800"])
    assert answer.exit_code == 1
    told = json.loads(answer.stdout)
    assert "target inside the features" in told["leaks"] and (tmp_path / "a.py.audit.html").exists()
    answer = CliRunner().invoke(app, ["audit-notebook", str(path.with_suffix(".txt"))])
    assert answer.exit_code == 1 and "neither a notebook nor a script" in answer.output
