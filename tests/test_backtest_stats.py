"""Statistics and plots of a backtest against statsmodels, pandas, scipy, brute force, or a few lines by hand."""
import math
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats as st

from cryptolab.backtest import backtest, equity as e, forecasts, outcomes as o, random_entries_p, stats
from cryptolab.backtest.chance import displaced_entries
from cryptolab.config import DataError, SettingsError
from cryptolab.data.market import market_truth, sample_market
from cryptolab.reports import trade_plots as plots

sm = pytest.importorskip("statsmodels.api")


def curve(returns, freq="h", start="2023-11-20", capital=10_000.0):
    "An account that earns these returns."
    index = pd.date_range(start, periods=len(returns) + 1, freq=freq, tz="UTC", name="open_time")
    return pd.Series(capital * np.r_[1.0, np.cumprod(1 + np.asarray(returns))], index)


@pytest.fixture(scope="module")
def returns():
    "A year of hourly returns with fat tails and memory."
    rng = np.random.default_rng(5)
    x = 0.004 * rng.standard_t(4, 8760) + 0.0001
    return x + 0.2 * np.r_[0, x[:-1]]


@pytest.fixture(scope="module")
def traded():
    "Candles, orders with both sides, and their backtest."
    candles = sample_market(n=5000, seed=9)
    rng = np.random.default_rng(9)
    orders = pd.DataFrame(
        {"action": rng.choice([0, 0, 0, 0, 1, -1], 5000), "size": rng.uniform(0.1, 0.9, 5000)}, index=candles.index,
    )
    settings = {"stop": 1.5, "target": 2.5, "timeout": 16, "unit": "atr"}
    return candles, orders, settings, backtest(candles, orders, **settings)


def test_sharpe_is_a_gmm_estimate(returns):
    "Ratio by numpy; error by the delta method on statsmodels' HAC covariance of the moments; days and hours."
    found = stats.sharpe(curve(returns))
    ratio = returns.mean() / returns.std(ddof=1)
    assert (
        found["per_candle"] == pytest.approx(ratio, rel=1e-9)
        and found["sharpe"] == pytest.approx(ratio * math.sqrt(8760), rel=1e-9)
        and found["n"] == 8760
    )
    moments = np.column_stack([returns, returns**2])
    scores = moments - moments.mean(axis=0)
    lags, n = found["lags"], len(returns)
    S = scores.T @ scores / n
    for k in range(1, lags + 1):
        G = scores[k:].T @ scores[:-k] / n
        S += (1 - k / (lags + 1)) * (G + G.T)
    m1, m2 = moments.mean(axis=0)
    gradient = np.array([m2, -m1 / 2]) / (m2 - m1**2) ** 1.5
    assert found["error"] / math.sqrt(8760) == pytest.approx(math.sqrt(gradient @ S @ gradient / n), rel=1e-3)
    assert (
        found["low"] == pytest.approx(found["sharpe"] - st.norm.ppf(0.975) * found["error"])
        and found["high"] > found["sharpe"]
    )
    hac = sm.OLS(returns, np.ones(n)).fit(
        cov_type="HAC", cov_kwds={"maxlags": e.newey_west_lags(returns), "use_correction": False},
    )
    assert found["adjusted"] == pytest.approx(returns.mean() / (hac.bse[0] * math.sqrt(n)) * math.sqrt(8760), rel=1e-6)
    by_day = curve(returns).resample("1D").last().pct_change().dropna()
    assert stats.sharpe(curve(returns), "1d")["sharpe"] == pytest.approx(
        by_day.mean() / by_day.std() * math.sqrt(365), rel=1e-9,
    )
    assert found["adjusted"] < found["sharpe"]  # memory of 0.2: the plain ratio promises too much


def test_sharpe_difference_is_paired(returns):
    "The difference of an account with itself is zero; with a twin that pays a constant it is sure."
    account = curve(returns)
    assert stats.sharpe_difference(account, account)["difference"] == 0
    worse = stats.sharpe_difference(account, curve(returns - 0.0003))
    assert worse["low"] > 0 and worse["p_value"] < 1e-6
    own = stats.sharpe(account)
    assert worse["high"] - worse["low"] < 0.2 * (own["high"] - own["low"])


def test_downside_growth_and_calmar(returns):
    "Sortino, annual growth and Calmar by hand; intervals hold their value."
    account = curve(returns)
    down = stats.sortino(account)
    assert (
        down["sortino"]
        == pytest.approx(returns.mean() / np.sqrt((np.minimum(returns, 0) ** 2).mean()) * math.sqrt(8760))
        and down["low"] < down["sortino"] < down["high"]
    )
    grown = stats.total_and_annual_return(account)
    # 8760 hours are a year
    assert grown["total"] == pytest.approx(np.prod(1 + returns) - 1) and grown["annual"] == pytest.approx(
        grown["total"], rel=1e-6
    )
    worth = account.to_numpy()
    deepest = max(1 - worth[j] / worth[: j + 1].max() for j in range(0, len(worth), 1))
    assert stats.max_drawdown(account)["depth"] == pytest.approx(-deepest)
    assert stats.calmar(account)["calmar"] == pytest.approx(grown["annual"] / deepest) == pytest.approx(grown["calmar"])
    assert grown["low"] < grown["total"] < grown["high"] and grown["annual_low"] < grown["annual"] < grown[
        "annual_high"
    ]


def test_drawdown_against_brute_force():
    "Depth, its times and the longest time below a best, over random accounts."
    rng = np.random.default_rng(0)
    for _ in range(40):
        account = curve(0.05 * rng.standard_normal(rng.integers(2, 60)))
        worth, found = account.to_numpy(), stats.max_drawdown(account, n_samples=20)
        depths = np.array([worth[j] / worth[: j + 1].max() - 1 for j in range(len(worth))])
        assert found["depth"] == pytest.approx(depths.min())
        under, longest = 0, 0
        for d in depths:
            under = under + 1 if d < 0 else 0
            longest = max(longest, under)
        assert found["longest"] == longest
        if found["depth"] < 0:
            bottom = account.index.get_loc(found["bottom"])
            begin = account.index.get_loc(found["begin"])
            assert depths[bottom] == depths.min() and worth[begin] == worth[: bottom + 1].max()
            again = np.flatnonzero(worth[bottom:] >= worth[begin])
            assert (pd.isna(found["recovery"]) and not len(again)) or account.index.get_loc(
                found["recovery"]
            ) == bottom + again[0]


def test_months_against_pandas(returns):
    "Over the turn of a year, and with closing times."
    account = curve(returns)
    table = stats.monthly_returns(account)
    ends = account.resample("ME").last()
    expected = ends / ends.shift(1).fillna(account.iloc[0]) - 1
    assert table.drop(columns="year").stack().dropna().to_numpy() == pytest.approx(expected.to_numpy())
    assert ((1 + table["year"]).prod() - 1) == pytest.approx(account.iloc[-1] / account.iloc[0] - 1) and list(
        table.index
    ) == [2023, 2024]
    closing = account.set_axis((account.index + pd.Timedelta("1h")).rename("close_time"))
    pd.testing.assert_frame_equal(stats.monthly_returns(closing), table)


def test_trades_by_pandas(traded):
    "Win rate, payoff, factor, expectancy, exits, exposure and turnover counted another way."
    candles, _, _, result = traded
    t = result.trades
    won = stats.win_rate(t)
    assert won["win_rate"] == (t.ret > 0).mean() and won["low"] < won["win_rate"] < won["high"]
    gain, loss = t.ret[t.ret > 0].mean(), -t.ret[t.ret <= 0].mean()
    assert won["needed"] == pytest.approx(loss / (gain + loss)) and won["needed"] * gain - (
        1 - won["needed"]
    ) * loss == pytest.approx(0)
    assert stats.profit_factor(t)["profit_factor"] == pytest.approx(t.net[t.net > 0].sum() / -t.net[t.net < 0].sum())
    mean = stats.expectancy(t)
    assert mean["expectancy"] == pytest.approx(t.ret.mean())
    half = 1.96 * t.ret.std() / math.sqrt(len(t))
    assert (mean["high"] - mean["low"]) / (2 * half) == pytest.approx(1, abs=0.3)
    ends = stats.exit_reasons(t)
    assert (
        ends["n"].sum() == len(t)
        and ends["net"].sum() == pytest.approx(t.net.sum())
        and {"target", "stop", "timeout"} <= set(ends.index)
    )
    held = np.zeros(len(candles), dtype=bool)
    for entry, leave in zip(
        candles.index.get_indexer(t.entry_time), candles.index.get_indexer(t.exit_time - pd.Timedelta("1h")),
    ):
        held[entry : leave + 1] = True
    share = stats.exposure(t, result.equity)
    assert share["exposure"] == held.mean() and share["most"] == 1
    assert share["long"] + share["short"] == pytest.approx(held.mean())
    assert stats.trade_turnover(t, result.equity)["turnover"] == pytest.approx(
        (t["size"] * (1 + t.exit / t.entry)).sum() / len(candles)
    )


def test_no_time_is_lost_between_coins(traded):
    "Exposure of several coins with different histories, counted candle by candle."
    candles, orders, settings, _ = traded
    late = sample_market(n=5000, seed=10).iloc[2000:]
    both = backtest({"A": candles, "B": late}, {"A": orders, "B": orders.loc[late.index]}, **settings)
    count = np.zeros(len(both.equity), dtype=int)
    for row in both.trades.itertuples():
        count[(both.equity.index >= row.entry_time) & (both.equity.index < row.exit_time)] += 1
    share = stats.exposure(both.trades, both.equity)
    assert share["exposure"] == (count > 0).mean() and share["most"] == count.max() == 2
    page = stats.summary(both, n_samples=200)
    assert page.value["trades"] == len(both.trades) and page.reference_kind["total_return"] == "buy and hold"
    assert page.value["total_return"] == pytest.approx(both.trades.net.sum() / both.capital, abs=1e-9)


@pytest.mark.parametrize("coins", [1, 2])
def test_break_even_through_the_engine(traded, coins):
    "The closed form is where the mean net return of a trade changes its sign: both sides, several coins, funding."
    candles, orders, settings, _ = traded
    rng = np.random.default_rng(1)
    # gross edge above zero
    likely = np.where(market_truth(candles)["true_p_up"] > 0.5, 1, -1)
    orders = orders.assign(action=likely * (rng.random(len(candles)) < 0.2))
    tables, wish = {f"C{k}": candles for k in range(coins)}, {f"C{k}": orders for k in range(coins)}
    paid = {f"C{k}": pd.Series(1e-5, candles.index[::8]) for k in range(coins)}
    run = lambda fee: backtest(tables, wish, fee=fee, slippage=0.0, funding=paid, **settings)
    limit = stats.trade_break_even(run(0.0).trades)
    assert limit["break_even"] > 0 and limit["low"] < limit["break_even"] < limit["high"]
    assert run(limit["break_even"]).trades.ret.mean() == pytest.approx(0, abs=1e-12)
    assert run(limit["break_even"] * 0.99).trades.ret.mean() > 0 > run(limit["break_even"] * 1.01).trades.ret.mean()
    # whatever was paid
    assert stats.trade_break_even(run(0.003).trades)["break_even"] == pytest.approx(limit["break_even"], rel=1e-9)


def test_hold_pays_and_waits(traded):
    "Buying and holding is nearly one trade of the engine, which pays the entry's cost on top of the stake."
    candles = traded[0]
    result = backtest(candles, pd.Series(True, candles.index), hold=True, fee=0.001, slippage=0.0005)
    assert result.trades["exit_reason"].tolist() == ["end"]
    held = stats.hold_equity(candles, result.equity, 0.0015)
    assert held.iloc[-1] == pytest.approx(result.equity.iloc[-1], abs=0.0016 * result.capital)
    assert held.iloc[0] == result.capital and held.index.equals(result.equity.index)


def test_random_entries_keep_all_but_timing():
    "Waiting times are permuted and turned, never changed; no two entries meet."
    rng = np.random.default_rng(2)
    rows = np.sort(rng.choice(np.arange(50, 900), 60, replace=False))
    wait = np.sort(np.diff(np.r_[rows, rows[0] + 900]))
    for _ in range(50):
        new, order = displaced_entries(rows, 20, 919, rng)
        assert len(set(new)) == 60 and new.min() >= 20 and new.max() <= 919 and sorted(order) == list(range(60))
        ordered = np.sort(new)
        assert (np.sort(np.diff(np.r_[ordered, ordered[0] + 900])) == wait).all()


def test_random_entries_p_value():
    "Uniform without knowledge; small with it; large for long exposure alone; the same for the same seed."
    candles, found = sample_market(n=3000, seed=21), []
    rng = np.random.default_rng(3)
    for k in range(80):
        wish = pd.Series((rng.random(3000) < 0.05).astype(int), candles.index)
        found.append(
            random_entries_p(candles, wish, n_random=49, seed=k, stop=0.02, target=0.02, timeout=10)["p_value"]
        )
    assert st.kstest(found, "uniform").pvalue > 0.01
    wise = pd.Series((market_truth(candles)["true_p_up"] > 0.55).astype(int), candles.index)
    one = random_entries_p(candles, wise, n_random=99, timeout=1, fee=0.0, slippage=0.0)
    assert one["p_value"] == 0.01 and one == random_entries_p(
        candles, wise, n_random=99, timeout=1, fee=0.0, slippage=0.0,
    )
    assert one["own"] == pytest.approx(
        backtest(candles, wise, timeout=1, fee=0.0, slippage=0.0).trades.gross_ret.mean()
    )


def test_random_entries_keep_the_length_of_trades_that_signals_end():
    "The candles until the signal belong to the trade; knowledge is seen, and a state without any is not."
    candles = sample_market(n=1500, seed=21)
    likely = market_truth(candles)["true_p_up"]
    wise = pd.Series((likely > 0.56).to_numpy() & (np.arange(1500) % 4 == 0), candles.index)
    free = {"fee": 0.0, "slippage": 0.0, "n_random": 99}
    found = random_entries_p(candles, wise, exits=wise.shift(1, fill_value=False), **free)
    trades = backtest(candles, wise, wise.shift(1, fill_value=False), fee=0.0, slippage=0.0).trades
    assert (trades["candles"] == 1).all() and found["n"] == len(trades) > 50
    assert found["own"] == pytest.approx(trades["gross_ret"].mean()) and found["p_value"] <= 0.03
    state = pd.Series(np.arange(1500) % 20 < 10, candles.index)
    held = random_entries_p(candles, state, hold=True, **free)
    assert held["n"] == 75 and held["p_value"] > 0.02
    assert held["low"] < held["random"] < held["high"]


def test_summary_of_every_kind_of_account(traded):
    "With trades, with one, with none, ruined; the words fit."
    candles, orders, settings, result = traded
    page = stats.summary(
        result, random_entries_p(candles, orders, n_random=30, **settings), stats.deflated(result, 10), n_samples=200,
    )
    assert (
        list(page.columns) == ["value", "low", "high", "reference", "reference_kind"]
        and page.value.notna().all()
        and page.index.is_unique
    )
    assert (
        page.reference["break_even_cost"] == pytest.approx(0.0015)
        and page.value["sharpe_deflated"] < page.value["sharpe_probability"] + 0.2
    )
    pd.testing.assert_frame_equal(result.summary(n_samples=200), stats.summary(result, n_samples=200))
    assert "random" in stats.trading_words(page) and str(len(result.trades)) in stats.trading_words(page)
    lonely = orders.assign(action=0)
    lonely.iloc[100, 0] = 1
    for wish, count in ((orders.assign(action=0), 0), (lonely, 1)):
        small = stats.summary(backtest(candles, wish, **settings), n_samples=50)
        assert (
            small.value["trades"] == count
            and np.isnan(small.low["expectancy"])
            and len(stats.trading_words(small)) > 10
        )
    gone = stats.summary(
        backtest(
            candles, pd.Series(np.arange(5000) == 0, candles.index), timeout=5000, size=200.0, fee=0.0, slippage=0.0,
        ),
        n_samples=50,
    )
    assert gone.value["total_return"] == -1 and gone.value["max_drawdown"] == -1


def test_facts_are_plain_json(traded):
    "What goes into a result can be written and read."
    import json

    from cryptolab.files import plain

    result = traded[3]
    facts = plain(stats.trading_facts(result, stats.summary(result, n_samples=50), multiple=math.inf))
    assert (
        json.loads(json.dumps(facts, allow_nan=False)) == facts
        and facts["multiple"] is None
        and facts["summary"]["sharpe"]["reference_kind"] == "buy and hold"
    )


def test_a_million_minutes():
    "A summary of long accounts takes seconds."
    rng = np.random.default_rng(0)
    account = curve(0.0005 * rng.standard_normal(1_000_000), "min")
    began = time.perf_counter()
    assert np.isfinite(
        [
            stats.sharpe(account)["error"], stats.sortino(account)["error"],
            stats.total_and_annual_return(account)["calmar_low"],
            stats.max_drawdown(account)["low"],
        ]
    ).all()
    stats.monthly_returns(account)
    assert time.perf_counter() - began < 20


def test_forecasts_trade_only_what_pays():
    "The threshold, the size, the horizon; validation rows alone choose."
    candles = sample_market(n=3000, seed=4)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"mu": 0.004 * rng.standard_normal(3000), "sigma": rng.uniform(0.002, 0.03, 3000)}, index=candles.index,
    )
    table.attrs["horizon"] = 4
    orders = forecasts.forecast_orders(table, 0.001, 2.0, swing=0.02)
    assert (orders["action"] == np.sign(table.mu) * (table.mu.abs() > 0.004)).all() and (orders["timeout"] == 4).all()
    assert orders["size"].to_numpy() == pytest.approx(
        np.where(orders.action != 0, np.minimum(0.02 / (table.sigma * 2), 1), 0)
    )
    rows = candles.index[1000:2000]
    result = forecasts.trade_forecast(candles, table, rows, 0.5)
    assert (
        result.trades.decided.min() >= rows[0]
        and result.trades.exit_time.max() <= rows[-1] + pd.Timedelta("1h")
        and (result.trades.candles <= 4).all()
    )
    chosen = forecasts.choose_multiple(candles, table, rows)
    assert math.isinf(chosen["multiple"]) and chosen["table"].loc[("forecast", chosen["shown"]), "trades"] >= 20
    knows = table.assign(mu=np.log(candles.close.shift(-4) / candles.close).fillna(0.0))
    assert math.isfinite(forecasts.choose_multiple(candles, knows, rows)["multiple"])


@pytest.mark.parametrize("call,error,text", [
    (lambda r: stats.sharpe(r.trades), DataError, "not an equity curve"),
    (lambda r: stats.sharpe(r.equity.iloc[:2]), DataError, "needs returns"),
    (lambda r: stats.sharpe(r.equity, level=95), SettingsError, "level"),
    (lambda r: stats.win_rate(r.equity.to_frame()), DataError, "not a table of trades"),
    (lambda r: stats.total_and_annual_return(r.equity.iloc[::-1]), DataError, "time order"),
    (lambda r: stats.hold_equity({}), DataError, "nothing to hold"),
    (lambda r: stats.expectancy(r.trades.assign(ret=np.inf)), DataError, "not a number"),
    (lambda r: plots.plot_trades(r, symbol="NONE"), SettingsError, "no candles"),
    (lambda r: plots.plot_excursions(r.trades.iloc[:0]), DataError, "no trades"),
    (lambda r: forecasts.forecast_orders(r.trades, 0.001), DataError, "mu and sigma"),
])
def test_nonsense_is_refused(traded, call, error, text):
    "Each with a message that names it."
    with pytest.raises(error, match=text):
        call(traded[3])


def test_pictures_are_light_and_true(traded):
    "Few points, the extremes kept, every trade of the window drawn."
    result = traded[3]
    fig = plots.plot_equity(result, max_points=100)
    account = [t for t in fig.data if t.name == "account"]
    assert min(account[1].y) == pytest.approx(e.drawdown(result.equity).min(), rel=1e-5) and max(
        account[0].y
    ) == pytest.approx(result.equity.max() / result.capital, rel=1e-5)
    assert len(account[0].x) <= 102 and len(plots.plot_equity(result.equity).data) == 2
    window = plots.plot_trades(result, start=result.equity.index[200], last=100)
    drawn = sum(len(t.x) for t in window.data if t.name in ("long", "short"))
    inside = result.trades[
        (result.trades.exit_time > result.equity.index[200]) & (result.trades.entry_time <= result.equity.index[299])
    ]
    assert drawn == len(inside) and len(window.to_json()) < 200_000
    months = plots.plot_months(result)
    assert len(months.data[0].x) == len(stats.monthly_returns(result.equity)) and "nan" not in str(months.data[0].text)
    assert sum(len(t.x) for t in plots.plot_excursions(result).data) == len(result.trades)
    assert len(plots.plot_excursions(result, stop=0.01, target=0.02).layout.shapes) == 2
    assert o.exit_reasons(result.trades)["share"].sum() == pytest.approx(1)


def test_a_trade_that_earns_nothing_is_not_won():
    trades = pd.DataFrame(
        {"ret": [0.0, 0.01, -0.02, 0.0], "decided": pd.date_range("2024-01-01", periods=4, freq="1h", tz="UTC")}
    )
    assert o.win_rate(trades)["win_rate"] == 0.25


def test_random_entries_pay_the_costs_of_their_own_exits():
    "Where every candle rises by the same tenth, random entries earn exactly what the real ones did, fees included."
    close = 100 * 1.1 ** np.arange(60.0)
    index = pd.date_range("2024-01-01", periods=60, freq="1h", tz="UTC", name="open_time")
    candles = pd.DataFrame(
        {"open": close, "high": close * 1.1, "low": close, "close": close * 1.1, "volume": 1.0}, index,
    )
    # so that no trade begun elsewhere is cut off by the last candle
    orders = pd.Series(np.where(np.arange(55) % 6 == 0, 1, 0), index[:55])
    found = random_entries_p(candles, orders, n_random=20, timeout=2, stop=0.5, target=9.0, fee=0.01, slippage=0.0)
    assert found["n"] >= 8 and found["p_value"] == 1.0
    assert found["random"] == pytest.approx(found["own"], abs=1e-12) and found["own"] == pytest.approx(
        1.1**2 - 1 - 0.01 * (1 + 1.1**2), abs=1e-9,
    )
