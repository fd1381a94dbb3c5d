"""Every column of every set has a certificate without a failure on real candles with gaps, context included."""
import numpy as np
import pandas as pd
import pytest

from cryptolab.features.certify.certificate import certificate_text, certify
from cryptolab.features.registry import feature_names, features

SETS = ("v9", "v9_published", "v2", "v2_published", "hybrid", "v3", "ultimate", "ta")


def read(folder, name, start=None, end=None):
    table = pd.read_parquet(folder / f"{name}.parquet").set_index("timestamp").rename_axis("open_time")
    table = table[["open", "high", "low", "close", "volume"]].astype("float64").loc[start:end]
    table.attrs = dict(zip(("symbol", "timeframe"), name.split("/")[-1].split("_")))
    return table


def rows(path, start, end):
    "Rows of a table with a `timestamp` between two times."
    table = pd.read_parquet(path)
    return table[
        (table["timestamp"] >= pd.Timestamp(start, tz="UTC")) & (table["timestamp"] < pd.Timestamp(end, tz="UTC"))
    ]


def hourly(folder):
    "Hours of Bitcoin around the exchange's outages, and all context there is for them."
    span = ("2021-02-15", "2021-05-20")
    candles = read(folder, "BTCUSDT_1h", *span)
    coins = {f"{coin}USDT": read(folder, f"{coin}USDT_1h", *span) for coin in ("BTC", "ETH", "BNB", "ADA", "XRP")}
    eth = coins["ETHUSDT"]
    cross = eth.copy()  # no ETHBTC in the test data: a small table of the documented form
    cross[["open", "high", "low", "close"]] = (
        eth[["open", "high", "low", "close"]].div(candles["close"].reindex(eth.index).ffill(), axis=0) * 1.0001
    )
    context = {
        "funding": rows(folder / "funding/BTCUSDT_funding.parquet", "2021-01-01", "2021-06-01"),
        "perpetual": read(folder, "funding/BTCUSDT_perp_1h", *span),
        "exchange": read(folder, "BTCUSD_1h_kraken", *span), "coins": coins,
        "cross": {"cross": cross, "reference": coins["ETHUSDT"]},
        "onchain": rows(folder / "onchain/BTC_coinmetrics_1d.parquet", "2020-11-01", "2021-06-01"),
    }
    return candles, context


@pytest.mark.data
@pytest.mark.parametrize("name", SETS)
def test_every_column_is_certified_on_real_candles_with_gaps(name, shared_data):
    candles, context = hourly(shared_data)
    if name == "ta":  # slow: the stretch around the outages suffices
        candles = candles.iloc[1_300:2_000]
    assert (candles.index.to_series().diff() > pd.Timedelta("1h")).sum() >= 2, "the stretch has gaps"
    table = certify(name, candles, context if name in ("v3", "ultimate") else None, seconds=2, cuts=4)
    assert (table["verdict"] == "pass").all(), certificate_text(table)
    absent = set(feature_names(name)) - set(table.index)
    assert not absent or (name == "ultimate" and all(set(need.split(", ")) for need in table.attrs["absent"])), absent
    if name == "v3":
        assert len(table) == 270


@pytest.mark.data
def test_the_order_book_columns_are_certified(shared_data):
    "Eleven minutes of order book are eleven candles of a minute, so candles of a second are made from its own trades."
    trades, depth = (
        pd.read_parquet(shared_data / f"orderbook/BTCUSDT_{kind}.parquet") for kind in ("trades", "depth20")
    )
    second = trades.groupby(trades["timestamp"].dt.floor("1s"))
    candles = second["price"].agg(["first", "max", "min", "last"]).set_axis(
        ["open", "high", "low", "close"], axis=1,
    ).assign(volume=second["qty"].sum())
    candles = candles.rename_axis("open_time")
    context = {"orderbook": depth, "trades": trades}
    with_book, without = (features(candles, "ultimate", context=c, dtype="float64") for c in (context, None))
    columns = [name for name in with_book if name not in without]
    assert len(columns) >= 12 and with_book[columns].iloc[-100:].notna().mean().min() > 0.5, columns
    table = certify("ultimate", candles, context, columns=columns, seconds=2, cuts=4)
    assert (table["verdict"] == "pass").all(), certificate_text(table)


@pytest.mark.data
@pytest.mark.parametrize("name", ["v2", "hybrid", "v3", "ultimate"])
@pytest.mark.parametrize("market", ["BTCUSDT_15m", "BTCUSDT_1h", "SOLUSDT_1d"])
def test_no_two_columns_are_one(name, market, shared_data):
    table = features(read(shared_data, market).iloc[-40_000:], name).dropna()
    values = table.to_numpy("float64")
    spread = values.std(axis=0)
    moving = spread > 0
    if not market.endswith("1d"):  # what depends on the hour is constant on days
        assert moving.all(), list(table.columns[~moving])
    alike = np.abs(np.corrcoef(values[:, moving], rowvar=False)) - np.eye(moving.sum())
    i, j = np.unravel_index(alike.argmax(), alike.shape)
    assert alike.max() <= 0.999, (*table.columns[moving][[i, j]], alike.max())
