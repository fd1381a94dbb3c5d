"""Ultimate behind the protocol: the rules of every system, several coins, interrupted fits, a rule to be found."""
import numpy as np
import pandas as pd
import pytest

from cryptolab.audit.check import check_system
from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.data.market import planted_market, sample_market
from cryptolab.systems.registry import system_class
from cryptolab.systems.ultimate.system import Ultimate

SMOKE = {"profile": "smoke", "threads": 1}


@pytest.fixture(scope="module")
def coins():
    return {
        "BTCUSDT": sample_market(n=1_000, seed=0), "ETHUSDT": sample_market(n=1_000, seed=1, symbol="ETHUSDT"),
        "SOLUSDT": sample_market(n=500, seed=2, symbol="SOLUSDT"),
    }


@pytest.fixture(scope="module")
def fitted(coins):
    pool = {name: table for name, table in coins.items() if name != "BTCUSDT"}
    return Ultimate(**SMOKE, pool="ETHUSDT,SOLUSDT").fit(coins["BTCUSDT"], log=None, pool=pool)


def test_it_keeps_the_rules_of_every_system():
    found = check_system(Ultimate(**SMOKE), raises=False)
    assert (found["verdict"] == "pass").all(), found[found["verdict"] != "pass"].to_string()
    assert system_class("Ultimate") is Ultimate


def test_a_coin_that_was_listed_later_counts_only_where_it_exists(fitted, coins):
    counts = fitted.counts_["coins"]
    assert counts["SOLUSDT"]["present"] < counts["ETHUSDT"]["present"] == counts["BTCUSDT"]["present"]
    assert fitted.coins_ == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]


def test_a_coin_that_ended_is_absent_and_changes_nothing_afterwards(fitted, coins):
    btc, eth, sol = coins.values()
    end = btc.index[900]
    ended = fitted.forecast(btc, {"ETHUSDT": eth.loc[:end], "SOLUSDT": sol})
    without = fitted.forecast(btc, {"SOLUSDT": sol})
    whole = fitted.forecast(btc, {"ETHUSDT": eth, "SOLUSDT": sol})
    after = ended.index[ended.index > end]
    pd.testing.assert_frame_equal(pd.DataFrame(ended.loc[after]), pd.DataFrame(without.loc[after]))
    before = ended.index[ended.index <= end]
    pd.testing.assert_frame_equal(pd.DataFrame(ended.loc[before]), pd.DataFrame(whole.loc[before]), rtol=1e-4)
    assert not np.allclose(without["class_up"], whole["class_up"])


def test_another_coin_of_the_panel_is_forecast_in_its_own_place(fitted, coins):
    btc, eth, sol = coins.values()
    own = fitted.forecast(eth, {"BTCUSDT": btc, "SOLUSDT": sol})
    assert list(own.index) == list(eth.index[-len(own):]) and own["price"].iloc[-1] == pytest.approx(
        eth["close"].iloc[-1] * np.exp(own["mu"].iloc[-1])
    )
    assert fitted.calibration_["ETHUSDT"] != fitted.calibration_["BTCUSDT"]


def test_the_future_of_another_coin_is_not_seen(fitted, coins):
    btc, eth, sol = coins.values()
    cut = btc.index[940]
    wild = eth.copy()
    wild.loc[wild.index > cut, ["open", "high", "low", "close"]] *= 3
    one, two = (fitted.forecast(btc, {"ETHUSDT": table, "SOLUSDT": sol}).loc[:cut] for table in (eth, wild))
    pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(two))
    later = fitted.forecast(btc, {"ETHUSDT": wild, "SOLUSDT": sol}).loc[cut:]
    assert not np.allclose(later["class_up"].iloc[1:], fitted.forecast(btc)["class_up"].loc[cut:].iloc[1:])


def test_an_interrupted_fit_goes_on_and_ends_the_same(tmp_path, coins):
    btc = coins["BTCUSDT"]
    sizes = {"epochs": 3, "patience": 3, "moments": 256}
    whole = Ultimate(**SMOKE, sizes=sizes).fit(btc, log=None)

    class Stop(Exception):
        pass

    def stop(line):
        if line.startswith("epoch 1/3"):
            raise Stop

    with pytest.raises(Stop):
        Ultimate(**SMOKE, sizes=sizes).fit(btc, work=tmp_path, log=stop)
    lines = []
    again = Ultimate(**SMOKE, sizes=sizes).fit(btc, work=tmp_path, log=lines.append)
    assert any(line.startswith("going on after epoch 1") for line in lines) and "epoch 2/3" in " ".join(lines)
    pd.testing.assert_frame_equal(pd.DataFrame(again.forecast(btc)), pd.DataFrame(whole.forecast(btc)))
    lines.clear()
    Ultimate(**SMOKE, sizes=sizes).fit(btc, work=tmp_path, log=lines.append)
    assert any("taken from the interrupted run" in line for line in lines) and "epoch" not in " ".join(lines)


def test_the_four_flags_of_the_regime_are_always_among_the_columns(fitted):
    assert {"regime_bull", "regime_bear", "regime_ranging", "regime_high_vol"} <= set(fitted.scaler_.chosen)


def test_orders_need_the_confidence_and_keep_the_stops(coins):
    btc = coins["BTCUSDT"]
    system = Ultimate(**SMOKE, min_confidence=0.5, stop_loss=0.03).fit(btc, log=None)
    table = system.forecast(btc)
    assert (table["action"] != 0).any() and (table["confidence"] >= 0.5).all()
    close = btc["close"][table.index]
    assert (table["stop_by"] >= 0.03 * close * (1 - 1e-12)).all()
    assert (table["target_by"] >= 2 * table["stop_by"] * (1 - 1e-12)).all() and (table["size"] <= 0.02).all()


@pytest.mark.parametrize(("params", "error", "words"), [
    ({"min_confidence": 1.0}, SettingsError, "min_confidence"), ({"horizons": (5, 10)}, SettingsError, "horizons"),
    ({"tasks": "direction"}, SettingsError, "tasks"), ({"graph": "complete"}, SettingsError, "graph"),
    ({"pool": "BTCUSDT"}, SettingsError, "pool"), ({"sizes": {"heads": 3}}, SettingsError, "heads"),
])
def test_wrong_parameters_are_refused_before_training(params, error, words, coins):
    with pytest.raises(error, match=words):
        Ultimate(**{**SMOKE, **params}).fit(coins["BTCUSDT"], log=None, pool={"BTCUSDT": coins["ETHUSDT"]}
                                            if "pool" in params else None)


def test_too_few_candles_and_foreign_coins_are_clear_errors(coins):
    btc = coins["BTCUSDT"]
    with pytest.raises(DataError, match="too few rows|whole rows"):
        Ultimate(**SMOKE).fit(btc.iloc[:300], log=None)
    far = coins["ETHUSDT"].set_axis(coins["ETHUSDT"].index - pd.Timedelta("3000D"))
    with pytest.raises(DataError, match="no candle on the clock"):
        Ultimate(**SMOKE, pool="ETHUSDT").fit(btc, log=None, pool={"ETHUSDT": far})


def test_a_folder_of_another_panel_is_refused(fitted, coins, tmp_path):
    import json

    folder = fitted.save(tmp_path / "model")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["coins"] = ["BTCUSDT", "XRPUSDT", "SOLUSDT"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError):
        Ultimate.load(folder)


def test_a_planted_rule_is_found_by_the_trees_that_choose_columns():
    market = planted_market(edge=0.3, n=3_000, seed=0)
    system = Ultimate(**SMOKE, sizes={"columns": 24}).fit(market, log=None)
    assert {"lower_shadow", "range_atr"} <= set(system.scaler_.chosen)


def test_predict_gives_a_model_that_listens_its_other_coins(tmp_path):
    from cryptolab.data import load_candles
    from cryptolab.serving.forecast import newest_forecast

    names = ("BTCUSDT", "ETHUSDT")
    pair = {n: [load_candles(name, "1h", source="sample", limit=n, warmup=200) for name in names] for n in (900, 400)}
    btc, eth = pair[900]
    system = Ultimate(**SMOKE, pool="ETHUSDT").fit(btc, log=None, pool={"ETHUSDT": eth})
    system.save(tmp_path / "model")
    btc, eth = pair[400]  # what `newest_forecast` reads; the sample market of another length is another market
    now = btc.index[-1] + pd.Timedelta("1h")
    answer = newest_forecast("BTCUSDT", "1h", tmp_path / "model", source="sample", now=now)
    both, alone = (float(system.forecast(btc, pool)["p_up"].iloc[-1]) for pool in ({"ETHUSDT": eth}, {}))
    assert answer["p_up"] == pytest.approx(both, abs=1e-7)
    assert abs(both - alone) > 1e-5


def test_finished_heads_are_not_worse_where_they_were_chosen_and_leave_the_probability_alone(coins):
    from cryptolab.systems.ultimate.network import TASK_ANSWERS, head_losses
    from cryptolab.systems.ultimate.rows import ultimate_rows
    from cryptolab.systems.ultimate.training import HeadTrainer, finish_heads, state_rows, train_network

    sizes = {"epochs": 3, "patience": 3}
    system = Ultimate(**SMOKE, sizes=sizes)
    rows = ultimate_rows({"BTCUSDT": coins["BTCUSDT"]}, 6, select=8, threads=1)
    network, _ = train_network(system, rows, log=None)
    x, y = state_rows(network, rows, "stop")
    trainer = HeadTrainer(network, network.base_losses(state_rows(network, rows, "train")[1]))
    lost = [float(trainer.compute_loss(None, y, network.heads(x)))]
    others = [w.copy() for v in (network.tft, network.up) for w in v.get_weights()]
    finish_heads(network, rows, system.chosen_sizes() | {"epochs": 30, "rate": 0.02, "patience": 30}, log=None)
    lost.append(float(trainer.compute_loss(None, y, network.heads(x))))
    assert lost[1] < lost[0]
    for before, after in zip(others, [w for v in (network.tft, network.up) for w in v.get_weights()]):
        np.testing.assert_array_equal(before, after)
    assert set(head_losses(tuple(TASK_ANSWERS), y, network.heads(x))[0]) == set(TASK_ANSWERS.values())
    alone = Ultimate(**SMOKE, tasks="up", sizes=sizes)
    assert finish_heads(train_network(alone, rows, log=None)[0], rows, sizes, log=None).empty
