"""Damaged files without end: the table read is the truth, or its account names the difference, or it is refused.

A minute in `make test`; `make fuzz` takes ten (`CRYPTOLAB_FUZZ_SECONDS` sets the length). The first seed is the date,
and is printed; `CRYPTOLAB_SEED` repeats a run. Hypothesis shrinks what it finds to the smallest example.
"""
import datetime
import itertools
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from damage import BAD_TIMES, DAMAGES, HEADINGS, TIMES, any_json, csv_text, json_text, market, mutated, write
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from cryptolab.config import CryptolabError
from cryptolab.data.candles import CANDLE_COLUMNS, quality_table
from cryptolab.data.readers import read_candles

SECONDS = float(os.environ.get("CRYPTOLAB_FUZZ_SECONDS", 60))
SEED = int(os.environ.get("CRYPTOLAB_SEED") or datetime.date.today().toordinal())
ACCOUNT = {"rows", "rows kept", "missing candles", "zero volume"}


def explore(function, seconds):
    "Run a hypothesis test again and again, each time with the next seed, until the time is over."
    end = time.monotonic() + seconds
    for number in itertools.count(SEED):
        seed(number)(function)()
        if time.monotonic() > end:
            return print(f"seeds {SEED} … {number}")


def bounded(examples):
    "Settings of one pass."
    phases = [Phase.explicit, Phase.generate, Phase.shrink]
    return settings(max_examples=examples, deadline=None, database=None, phases=phases, report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck), print_blob=False)


def difference(got, truth):
    "What differs between a table that was read and the truth, in words; an empty string: nothing."
    lost, extra = truth.index.difference(got.index), got.index.difference(truth.index)
    both = got.index.intersection(truth.index)
    columns = [c for c in (*CANDLE_COLUMNS, "quote_volume") if c in got]
    a, b = got.loc[both, columns].to_numpy(), truth.loc[both, columns].to_numpy()
    other = int((~np.isclose(a, b, rtol=1e-9)).any(1).sum())
    return "" if not (len(lost) or len(extra) or other) else f"{len(lost)} lost, {len(extra)} extra, {other} changed"


def check(truth, path, names, allowed):
    "The property: the truth, or an account that names the difference, or an error of this library."
    try:
        got = read_candles(path)
    except CryptolabError:
        return "refused"
    wrong = difference(got, truth)
    quality = quality_table(got).set_index("check")["count"]
    found = {k for k, n in quality.items() if n and k not in ACCOUNT}
    assert not wrong or found & allowed, f"{names}: {wrong}; the account says only {sorted(found)}"
    assert got.index.is_monotonic_increasing and got.index.is_unique and np.isfinite(got[CANDLE_COLUMNS]).all(axis=None)
    return "named" if wrong else "the truth"


# numbers come from hypothesis, so that it can shrink them
NUMBER = st.integers(0, 2**31 - 1)


@bounded(40)
@given(NUMBER, st.lists(st.sampled_from(sorted(DAMAGES)), min_size=1, max_size=2, unique=True),
       st.sampled_from(sorted(TIMES)),
       st.sampled_from(sorted(HEADINGS)), st.sampled_from(("csv", "csv", "csv", "json", "parquet", "feather")),
       st.lists(st.integers(0, 119), min_size=7, max_size=7), st.sampled_from(("1h", "15min", "1D")))
def damaged_tables(number, names, times, headings, kind, choices, freq):
    truth = market(number % 20, freq=freq)
    rng, table, picks = np.random.default_rng(number), truth, iter(choices)
    for name in names:
        table = DAMAGES[name][0](table, rng)
    allowed = set().union(*(DAMAGES[name][1] for name in names)) | ({"unit changes"} if times == "units" else set())
    if times in ("no clock", "no year, slashes") and freq == "1D":
        times = "iso"  # days need no clock, and 27/02/21 is a date
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), table, kind, times, headings, lambda n: next(picks) % n)
        result = check(truth, path, [*names, times, headings, kind, freq], allowed)
    assert times not in BAD_TIMES or result == "refused", times
    OUTCOMES[result] = OUTCOMES.get(result, 0) + 1
    if names == ["nothing"] and times not in BAD_TIMES and headings != "with coin":
        assert result == "the truth", f"{times}, {headings}, {kind}: {result}"


OUTCOMES = {}


def test_damaged_tables():
    explore(damaged_tables, 0.6 * SECONDS)
    print(OUTCOMES)
    assert len(OUTCOMES) == 3  # not everything is refused


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_alone(name, tmp_path):
    for number in range(4):
        truth = market(number)
        table = DAMAGES[name][0](truth, np.random.default_rng(number))
        path = write(tmp_path, table, "csv", "ms", "plain", lambda n: 1 % n)
        check(truth, path, name, DAMAGES[name][1])


@bounded(60)
@given(NUMBER, st.sampled_from("csv rows records split parquet feather gz zip xlsx json".split()))
def mutated_files(number, kind):
    rng = np.random.default_rng(number)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{dict(rows='json', records='json', split='json', gz='csv.gz').get(kind, kind)}"
        path.write_bytes(any_json(rng) if kind == "json" else mutated(GOOD[kind], rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_candles(path)
        except CryptolabError:
            pass


GOOD = {}


def good_files(folder):
    "One sound file of each kind, as bytes."
    table = market(1, 60)
    text = csv_text(table, "iso", "plain")
    out = {"csv": text.encode(), **{k: json_text(table, "ms", k).encode() for k in ("rows", "records", "split")}}
    for kind in ("parquet", "feather"):
        out[kind] = write(folder, table, kind, "ms", "plain", lambda n: 0).read_bytes()
    import gzip
    import io
    import zipfile

    out["gz"] = gzip.compress(out["csv"])
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", text)
    out["zip"] = packed.getvalue()
    table.tz_localize(None).to_excel(folder / "a.xlsx", engine="openpyxl")
    out["xlsx"] = (folder / "a.xlsx").read_bytes()
    return out


def test_mutated_files(tmp_path):
    GOOD.update(good_files(tmp_path))
    explore(mutated_files, 0.4 * SECONDS)
