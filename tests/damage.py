"""Markets, what can be wrong with a file of their candles, and the ways to write it: the corpus of `test_fuzz.py`.

A damage takes a table and a random generator and returns the damaged table. `NAMED` says which lines of the quality
table may speak of it; an empty set: the file must be refused, or the reader must undo the damage.
"""
import bz2
import functools
import gzip
import json
import lzma
import zipfile

import numpy as np
import pandas as pd

PRICES = ["open", "high", "low", "close"]
SPIKES = {"spikes that contradict their neighbours", "unit changes"}
ODD = {"price jumps between candles", "far from open to close", "long wicks", "unit changes of price"}
EXCHANGED = {"open and close exchanged"}  # of stretches that are too short to be refused


@functools.lru_cache(50)
def market(seed, n=300, freq="1h", start="2024-02-27 21:00", price=None):
    "Candles with every optional column, rounded as exchanges round them."
    rng = np.random.default_rng(seed)
    price = price or float(10 ** rng.uniform(-1, 4.5))
    index = pd.date_range(start, periods=n, freq=freq, tz="UTC", name="open_time").as_unit("ns")
    digits = int(5 - np.floor(np.log10(price)))
    close = np.round(price * np.exp(np.cumsum(rng.normal(0, 0.006, n))), digits)
    table = pd.DataFrame({"open": np.r_[np.round(price, digits), close[:-1]]}, index)
    table["high"] = np.round(np.maximum(table["open"], close) * (1 + rng.exponential(0.002, n)), digits)
    table["low"] = np.round(np.minimum(table["open"], close) * (1 - rng.exponential(0.002, n)), digits)
    table["high"] = table[["open", "high"]].max(axis=1).clip(lower=close)
    table["low"] = table[["open", "low"]].min(axis=1).clip(upper=close)
    table["close"] = close
    table["volume"] = np.round(rng.lognormal(6, 0.6, n), 3)
    table["quote_volume"] = table["volume"] * (table["open"] + table["close"]) / 2
    table["trades"] = rng.integers(500, 5000, n).astype(float)
    table["taker_buy_volume"] = np.round(table["volume"] * rng.uniform(0.3, 0.7, n), 3)
    return table


# ---------------------------------------------------------------- damages

def _some(table, rng, share=0.015):
    "A few rows of a table, at most its tolerated share."
    return rng.choice(len(table), max(1, int(rng.uniform(0, share) * len(table))), replace=False)


def _cells(column, value):
    "A damage that writes a value, or a function of the old one, into a few cells of a column."
    def damage(table, rng):
        rows = _some(table, rng)
        out = table.copy()
        at = out.columns.get_loc(column)
        out.iloc[rows, at] = value(out.iloc[rows]) if callable(value) else value
        return out
    return damage


def spike(table, rng):
    "One row, or its close, or its open, ten or a thousand times too large or too small."
    out, row, factor = table.copy(), rng.integers(len(table)), 10.0 ** rng.choice([-3, -1, 1, 3])
    end = "high" if factor > 1 else "low"
    columns = [PRICES, ["close", end], ["open", end]][rng.integers(3)]
    out.iloc[row, [PRICES.index(c) for c in columns]] *= factor
    return out


def block(table, rng):
    "A stretch in another unit."
    a, n = rng.integers(1, len(table) // 2), rng.integers(2, 50)
    return in_unit(table, slice(a, a + n), 10.0 ** rng.choice([-3, -2, 2, 3]))


def in_unit(table, rows, factor):
    "Rows with prices in another unit."
    out = table.copy()
    out.iloc[rows, [0, 1, 2, 3, 5]] *= factor
    return out


def half_unit(table, rng):
    "Another price unit from a row in the middle on."
    rows = slice(int(rng.uniform(0.3, 0.7) * len(table)), None)
    return in_unit(table, rows, 10.0 ** rng.choice([-3, -2, -1, 1, 2, 3]))


def appended(table, rng):
    "The candles of another symbol behind those of the first."
    price = table["close"].iloc[-1] * 2.0 ** rng.choice([-8, -4, -2, 2, 4, 8])
    step = step_of(table)
    start = table.index[-1].tz_localize(None) + step
    other = market(int(rng.integers(20)), int(rng.integers(30, 200)), step, start, price)
    return pd.concat([table, other])


def exchanged(part):
    "A damage that exchanges open and close in a part of the table."
    def damage(table, rng):
        out, a = table.copy(), rng.integers(1, len(table) // 2)
        rows = {"whole": slice(None), "half": slice(len(table) // 2, None), "stretch": slice(a, a + 60)}[part]
        out.iloc[rows, [0, 3]] = table.iloc[rows, [3, 0]].to_numpy()
        return out
    return damage


def volumes(table, rng):
    "Base and quote volume under each other's name, in the whole table or from a row on."
    out, rows = table.copy(), slice(int(rng.choice([0, len(table) // 2])), None)
    out.iloc[rows, [4, 5]] = table.iloc[rows, [5, 4]].to_numpy()
    return out


def close_times(table, rng):
    "Close times in place of open times, in three ways of writing."
    return table.set_axis(table.index + step_of(table) - pd.Timedelta(str(rng.choice(["1ms", "1s", "1min"]))))


def twins(table, rng):
    "A few rows twice, the second time with other prices."
    rows = np.sort(_some(table, rng, 0.01))
    return pd.concat([table, in_unit(table.iloc[rows], slice(None), 1.01)]).sort_index(kind="stable")


def pictures(table, rng):
    "Pictures of candles that were still running, before the candles themselves."
    rows = np.sort(_some(table, rng, 0.5))
    early = table.iloc[rows].assign(volume=lambda x: (x["volume"] / 2).round(3), close=lambda x: x["open"])
    return pd.concat([early, table]).sort_index(kind="stable")


def merged(table, rng):
    "Spot and perpetual of one coin, one after the other."
    other = in_unit(table, slice(None), 1.001).assign(volume=lambda x: (x["volume"] * 1.7).round(3))
    return pd.concat([table, other.assign(quote_volume=other["volume"] * other["close"])])


def two_frames(table, rng):
    "Candles of four times the length, then the others."
    cut = int(rng.uniform(0.4, 0.85) * len(table))
    return pd.concat([longer(table.iloc[:cut], step_of(table)), table.iloc[cut:]])


def step_of(table):
    "The usual step between rows."
    steps = table.index.sort_values().to_series().diff()
    return steps[steps > pd.Timedelta(0)].mode().iloc[0]


def longer(table, step):
    "Candles four times as long."
    how = {"open": "first", "high": "max", "low": "min", "close": "last", **dict.fromkeys(table.columns[4:], "sum")}
    return table.resample(step * 4, origin=table.index.min()).agg(how)


def with_days(table, rng):
    "Candles four times as long among the others."
    rare = longer(table, step_of(table)).iloc[:: int(rng.integers(1, 4))]
    return pd.concat([table, rare]).sort_index(kind="stable")


def first_candle(table, rng):
    "Open and high of the first candle far above everything."
    out = table.copy()
    out.iloc[0, [0, 1]] = out["close"].iloc[0] * rng.uniform(2.5, 8)
    return out


def off_grid(table, rng):
    "A few rows minutes too late."
    index = table.index.to_series().reset_index(drop=True)
    rows = _some(table, rng, 0.01)
    index.iloc[rows] = index.iloc[rows] + pd.Timedelta("7s")
    return table.set_axis(pd.DatetimeIndex(index))


def running(table, rng):
    "A last candle with the trades of its first minute."
    out = table.copy()
    out.iloc[-1, 4:] = table.iloc[-1, 4:] / 40
    out.iloc[-1, [1, 2, 3]] = out.iloc[-1, 0]
    out.iloc[-1, 5] = out.iloc[-1, 4] * out.iloc[-1, 0]
    return out


def garbage(table, rng):
    "Most highs below the lows."
    out = table.copy()
    rows = rng.random(len(table)) < rng.uniform(0.05, 0.99)
    out.loc[rows, "high"] = out.loc[rows, "low"] * 0.99
    return out


DAMAGES = {
    "nothing": (lambda table, rng: table, set()),
    "missing prices": (_cells("close", np.nan), {"missing values"}),
    "missing volume": (_cells("volume", np.nan), {"missing values"}),
    "zero low": (_cells("low", 0.0), {"non-positive prices"}),
    "negative open": (_cells("open", lambda x: -x["open"]), {"non-positive prices"}),
    "high below low": (_cells("high", lambda x: x["low"] * 0.99), {"impossible OHLC"}),
    "negative volume": (_cells("volume", -1.0), {"negative volume"}),
    "spike": (spike, SPIKES | ODD), "block in another unit": (block, SPIKES),
    "first candle": (first_candle, SPIKES | ODD),
    "half in another unit": (half_unit, set()), "another symbol": (appended, set()),
    "open and close exchanged": (exchanged("whole"), EXCHANGED), "half exchanged": (exchanged("half"), EXCHANGED),
    "a stretch exchanged": (exchanged("stretch"), EXCHANGED), "volumes exchanged": (volumes, {"volumes exchanged"}),
    "close times": (close_times, set()),
    "rows twice": (lambda t, rng: t.iloc[np.sort(np.r_[np.arange(len(t)), _some(t, rng)])], {"duplicates"}),
    "everything twice": (lambda t, rng: pd.concat([t, t]), {"duplicates"}),
    "twins": (twins, {"conflicting duplicates"}), "pictures": (pictures, {"conflicting duplicates"}),
    "spot and perpetual": (merged, set()), "two timeframes": (two_frames, {"gaps"}),
    "longer ones between": (with_days, set()), "off the grid": (off_grid, {"off-grid timestamps"}),
    "rows lost": (lambda t, rng: t.drop(t.index[_some(t, rng, 0.2)]), {"gaps"}),
    "shuffled": (lambda t, rng: t.iloc[rng.permutation(len(t))], {"wrong order"}),
    "newest first": (lambda t, rng: t[::-1], {"wrong order", "unclosed last candle"}),
    "still running": (running, {"thin last candle", "unclosed last candle"}), "garbage": (garbage, set()),
}


# ---------------------------------------------------------------- ways to write

def _ms(table):
    return table.index.as_unit("ns").asi8 // 10**6


TIMES = {
    "ms": _ms, "s": lambda t: _ms(t) // 1000, "µs": lambda t: _ms(t) * 1000,
    "iso": lambda t: t.index.strftime("%Y-%m-%d %H:%M:%S"),
    "zone": lambda t: t.index.tz_convert("Asia/Tokyo").map(lambda x: x.isoformat()),
    "excel": lambda t: _ms(t) / 86_400_000 + 25_569,
    "units": lambda t: np.where(np.arange(len(t)) < len(t) // 2, _ms(t), _ms(t) * 1000),
    **{name: functools.partial(lambda pattern, t: t.index.strftime(pattern), pattern) for name, pattern in {
        "minutes": "%Y-%m-%d %H:%M", "american": "%m/%d/%Y %I:%M:%S %p", "european": "%d.%m.%Y %H:%M",
        "names": "%d-%b-%Y %H:%M", "no year": "%m-%d %H:%M", "no year, dashes": "%m-%d-%H-%M",
        "no year, slashes": "%d/%m/%H", "no clock": "%Y-%m-%d",
    }.items()},
}
BAD_TIMES = {"no year", "no year, dashes", "no year, slashes", "no clock"}
HEADINGS = {
    "plain": {}, "capitals": str.capitalize, "letters": lambda c: c[0] if c in (*PRICES, "volume") else c,
    "Chinese": {
        "open": "开盘价", "high": "最高价", "low": "最低价", "close": "收盘价", "volume": "成交量",
        "quote_volume": "成交额",
    },
    "German": {"open": "Eröffnung", "high": "Hoch", "low": "Tief", "close": "Schluss"},
    "with coin": lambda c: f"BTC_{c}" if c in PRICES else c,
}


def csv_text(table, times, headings, separator=",", decimal=".", banner=False, header=True):
    "The table as delimited text."
    out = table.rename(columns=HEADINGS[headings])
    out.insert(0, "time", TIMES[times](table))
    text = out.to_csv(index=False, sep=separator, decimal=decimal, header=header)
    return "# made by a program\n\n" * banner + text


def json_text(table, times, shape):
    "The table as JSON."
    out = table.reset_index(drop=True)
    out.insert(0, "time", TIMES[times](table))
    if shape == "rows":
        return out.to_json(orient="values", double_precision=15, date_format="iso")
    text = out.to_json(orient="records" if shape == "records" else "split", double_precision=15, date_format="iso")
    return '{"result": {"BTC": ' + text + "}}" if shape == "records" else text


PACKS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def write(folder, table, kind, times, headings, choice):
    "Write a table in one of many ways; the path. `choice(n)` gives a number below n."
    if kind in ("parquet", "feather"):
        out = table.rename(columns=HEADINGS[headings]).reset_index(drop=True)
        out.insert(0, "time", TIMES[times](table))
        path = folder / f"candles.{kind}"
        (out.to_parquet if kind == "parquet" else out.to_feather)(path)
        return path
    if kind == "json":
        text, ending = json_text(table, times, ("rows", "records", "split")[choice(3)]), "json"
    else:
        separator, decimal = ((",", "."), (";", ","), ("\t", "."), ("|", "."), (";", "."))[choice(5)]
        text, ending = csv_text(table, times, headings, separator, decimal, choice(4) == 0), "csv"
        text = text.replace("\n", ("\n", "\r\n", "\r")[choice(3)])
    data = text.encode(("utf-8", "utf-8-sig", "utf-16")[choice(3)])
    if choice(8) == 0:
        path = folder / "candles.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"candles.{ending}", data)
        return path
    pack = list(PACKS)[choice(4)] if choice(2) else ""
    path = folder / f"candles.{ending}{pack}"
    path.write_bytes(PACKS[pack](data))
    return path


WORDS = (
    b"\0", b"\xff\xfe", b"nan", b"1e999", b'"', b"[" * 2000, b"9" * 5000, b"\r", b",,,,", b"-", b"\n\n", b"{}",
    b"2424-02-29 13:00:00",
)


def mutated(data, rng):
    "Bytes with a few changes: flips, cuts, copies, insertions of what parsers stumble over."
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, kind = int(rng.integers(len(data) + 1)), int(rng.integers(6))
        end = min(len(data), at + int(rng.integers(1, 200)))
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = data[at:end]
        elif kind == 3:
            data[at:at] = WORDS[int(rng.integers(len(WORDS)))]
        elif kind == 4:
            del data[at:]
        else:
            data[at:end] = bytes(rng.integers(0, 256, end - at, dtype="uint8"))
    return bytes(data)


def json_of_anything(rng, depth=0):
    "Random JSON that looks a little like an exchange's reply."
    kind = int(rng.integers(9 if depth < 4 else 5))
    keys = "open close high low volume time data result columns index o h l c t v".split()
    if kind < 5:
        return (None, True, "1.5", float(rng.normal()), int(rng.integers(-10**6, 10**13)))[kind]
    items = [json_of_anything(rng, depth + 1) for _ in range(int(rng.integers(0, 8)))]
    if kind < 7:
        return items
    return {str(rng.choice(keys)): item for item in items}


def any_json(rng):
    "The text of random JSON."
    return json.dumps(json_of_anything(rng)).encode()
