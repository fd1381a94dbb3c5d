"""Ultimate under the document's names: its examples as written, what a running bot needs, and bad input."""
import asyncio
import copy
import json
import re
import shutil
import sys
import types

import matplotlib
import numpy as np
import pandas as pd
import pytest

from cryptolab.config import DataError, ModelError, SettingsError
from cryptolab.data.market import sample_market
from cryptolab.systems.ultimate import adapt, document, ensemble, evidence, fit, inputs, search, system, training, tune

KEYS = "action position_size confidence stop_loss_pct take_profit_pct market_regime predicted_volatility reasoning"
REPORT = "prediction_accuracy sharpe_ratio num_predictions avg_confidence active_symbols device model_parameters"
CONFIG = {
    "profile": "smoke", "n_trials": 1, "threads": 1, "input_size": 4, "hidden_size": 4, "num_attention_heads": 1,
    "batch_size": 512, "learning_rate": 0.2, "num_inner_steps": 1, "memory_size": 100, "horizons": (1, 2),
    "sizes": {"window": 4, "selection": 2, "graph_units": 4, "task_units": 4, "meta_steps": 2},
}  # the smallest network; its rate is so high that training soon ends


# ---- the document's examples, as written

TRAIN = """
ai = UltimateTradingAI(
    config=config_dict,
    device=torch.device('cuda' if torch.cuda.is_available() else 'cpu'),
    model_dir='models/ultimate'
)

# Train on historical data
history = await ai.train_from_historical_data(
    data=historical_df,
    symbols=['BTC/USDT', 'ETH/USDT'],
    epochs=100,
    optimize_hyperparams=True  # Run AutoML
)
"""
USE = """
# Make predictions
prediction = await ai.predict(
    current_data=latest_price_data,
    symbol='BTC/USDT',
    onchain=onchain_metrics,
    orderbook=orderbook_snapshot,
    cross_exchange=cross_exchange_data
)

# Get trading signal
signal = ai.get_trading_signal('BTC/USDT', min_confidence=0.65)
"""
KEEP = """
# Adapt to new market regime (fast adaptation with MAML)
await ai.adapt_to_new_regime(recent_data, learning_rate=0.0001)

# Save everything
ai.save_state()

# Get performance report
report = ai.get_performance_report()
"""
BASIC = """
import asyncio
from ml.ultimate_integration import UltimateTradingAI

async def main():
    # Initialize
    ai = UltimateTradingAI(config={})
    
    # Load pre-trained model or train new
    ai.load_state()  # Or train_from_historical_data()
    
    # Make prediction
    prediction = await ai.predict(current_data, 'BTC/USDT')
    
    # Get trading signal
    signal = ai.get_trading_signal('BTC/USDT', min_confidence=0.6)
    
    if signal:
        print(f"Action: {signal['action']}")
        print(f"Size: {signal['position_size']*100}%")
        print(f"Confidence: {signal['confidence']*100}%")

asyncio.run(main())
"""
BOT = """
from ml.ultimate_integration import integrate_with_existing_bot

# In your bot's __init__ or startup:
await integrate_with_existing_bot(
    bot_instance=self,
    config=self.config,
    train_on_startup=False,  # Set True to train on historical data
    historical_data_path='data/historical.csv'
)

# Now bot has ai_system attribute
signal = self.ai_system.get_trading_signal('BTC/USDT')
"""
LOSSES = """
# View training history
import matplotlib.pyplot as plt

plt.plot(history['train_loss'], label='Train Loss')
plt.plot(history['val_loss'], label='Val Loss')
plt.legend()
plt.show()
"""
IMPORTANCE = """
# Get feature importance from TFT
prediction = await ai.predict(data, 'BTC/USDT')
importance = prediction['feature_importance']

# Top 10 features
for feature, weight in sorted(importance.items(), key=lambda x: x[1], reverse=True)[:10]:
    print(f"{feature}: {weight:.4f}")
"""
ATTENTION = """
# See what time steps model focuses on
attention = prediction['temporal_attention']

plt.bar(range(len(attention)), list(attention.values()))
plt.xlabel('Time Step (bars ago)')
plt.ylabel('Attention Weight')
plt.title('Temporal Attention Weights')
plt.show()
"""
TRAINER = """
from ml.ultimate_training import UltimateTrainer

trainer = UltimateTrainer(
    model=your_model,
    device=torch.device('cuda'),
    save_dir='models/checkpoints'
)

history = trainer.train(
    train_loader=train_loader,
    val_loader=val_loader,
    num_epochs=100,
    learning_rate=0.001,
    patience=10,
    grad_clip=1.0
)
"""
OPTIMIZER = """
from ml.ultimate_training import HyperparameterOptimizer

optimizer = HyperparameterOptimizer(
    model_factory=create_model_fn,
    train_data=(X_train, y_train),
    val_data=(X_val, y_val),
    device=device,
    n_trials=50
)

best_params = optimizer.optimize()
"""
CONTINUAL = """
from ml.ultimate_training import ContinualLearner

learner = ContinualLearner(
    model=your_model,
    device=device,
    memory_size=1000,
    importance_weight=0.5
)

# Compute importance of parameters on current market regime
learner.compute_fisher_information(val_loader, loss_fn)

# Later, when market changes, adapt without forgetting
loss = learner.continual_train_step(
    new_data_x, new_data_y, optimizer, loss_fn
)
"""
ENSEMBLE = """
from ml.ultimate_training import create_ensemble_predictions, optimize_ensemble_weights

# Train multiple models
models = [model1, model2, model3]

# Find optimal weights
optimal_weights = optimize_ensemble_weights(models, val_loader, device)

# Make ensemble prediction
prediction = create_ensemble_predictions(models, new_data, optimal_weights)
"""
CUSTOM = """
from ml.advanced_architectures import TemporalFusionTransformer
import torch.nn as nn

class MyCustomModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.tft = TemporalFusionTransformer(...)
        self.custom_layer = nn.Linear(...)
    
    def forward(self, x):
        tft_out, interp = self.tft(x)
        custom_out = self.custom_layer(tft_out)
        return custom_out
"""
EXAMPLES = [
    TRAIN, USE, KEEP, BASIC, BOT, LOSSES, IMPORTANCE, ATTENTION, TRAINER, OPTIMIZER, CONTINUAL, ENSEMBLE, CUSTOM,
]


def test_the_examples_are_those_of_the_document(shared_data):
    path = shared_data.parent / "seeds" / "ultimate_tft_gat_maml.md"
    if not path.is_file():
        pytest.skip("the document is not beside the shared candles")
    text = path.read_text(encoding="utf-8", errors="replace")
    assert not [example for example in EXAMPLES if example.strip("\n") not in text]


def run(example, names):
    "Run an example with these names around it, `await` included; what it defines is added to them."
    body = "\n".join(f"    {line}" for line in example.splitlines())
    exec(f"async def example():\n{body}\n    globals().update(locals())", names)
    asyncio.run(names["example"]())
    return names


@pytest.fixture(scope="module", autouse=True)
def document_modules():
    "The document's modules, and a stand-in for the little of torch that its examples name."
    import keras

    from cryptolab.models.continual import ContinualLearner
    from cryptolab.models.tft import TemporalFusionTransformer

    class Module(keras.Model):
        def call(self, x):
            return self.forward(x)

    cuda = types.SimpleNamespace(is_available=lambda: False)
    nn = types.SimpleNamespace(Module=Module, Linear=lambda inputs, units: keras.layers.Dense(units))
    made = {
        "torch": dict(device=str, cuda=cuda, nn=nn), "torch.nn": vars(nn), "ml": {},
        "ml.ultimate_integration": {
            name: getattr(document, name) for name in ("UltimateTradingAI", "integrate_with_existing_bot")
        },
        "ml.ultimate_training": dict(
            UltimateTrainer=fit.UltimateTrainer, HyperparameterOptimizer=tune.HyperparameterOptimizer,
            ContinualLearner=ContinualLearner, create_ensemble_predictions=ensemble.create_ensemble_predictions,
            optimize_ensemble_weights=ensemble.optimize_ensemble_weights,
        ),
        "ml.advanced_architectures": {"TemporalFusionTransformer": TemporalFusionTransformer},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, values in made.items():
            module = types.ModuleType(name)
            vars(module).update(values)
            patch.setitem(sys.modules, name, module)
        for module in (training, search):
            patch.setattr(module, "SHORT", 10**9)  # no program is worth its building here
        matplotlib.use("Agg")
        yield


@pytest.fixture(scope="module")
def market():
    return {"BTC/USDT": sample_market(n=800, seed=0), "ETH/USDT": sample_market(n=800, seed=1, symbol="ETHUSDT")}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def trained(market, home):
    "The document's training, and how often the event loop was free meanwhile."
    table = pd.concat([c.iloc[:-8].assign(symbol=name) for name, c in market.items()]).reset_index()
    table = table.rename(columns={"open_time": "timestamp"})
    names = {"UltimateTradingAI": document.UltimateTradingAI, "torch": sys.modules["torch"], "ticks": [0]}
    names |= {"config_dict": CONFIG, "historical_df": table, "asyncio": asyncio}
    beside = """
async def count():
    while True:
        await asyncio.sleep(0.005)
        ticks[0] += 1

counting = asyncio.create_task(count())
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        run(beside + TRAIN + "counting.cancel()", names)
    return names


@pytest.fixture
def used(trained, market, home, monkeypatch):
    "The trained system and its examples' names; what a test does to it stays in the test."
    monkeypatch.chdir(home)
    ai = copy.copy(trained["ai"])
    ai.tables, ai.predictions, ai.track = dict(ai.tables), {}, {}
    latest = market["BTC/USDT"].iloc[-400:-4]
    extra = {"onchain_metrics": {"gas_fees": 50}, "orderbook_snapshot": {"bids": []}, "cross_exchange_data": None}
    return {
        **{name: trained[name] for name in ("history", "UltimateTradingAI")}, "ai": ai, "latest_price_data": latest,
        "recent_data": latest, "data": latest, "current_data": latest, **extra,
    }


def test_training_runs_as_written_and_leaves_the_event_loop_free(trained, home):
    history = trained["history"]
    assert len(history["train_loss"]) == len(history["val_loss"]) >= 1
    assert np.isfinite(history["train_loss"] + history["val_loss"]).all()
    assert history["symbols"] == ["BTCUSDT", "ETHUSDT"] and history["search"]["trials"] == 1
    assert trained["ticks"][0] >= 20
    lines = (home / "models" / "ultimate" / "trials.jsonl").read_text().splitlines()
    assert len(lines) == 1 and not (home / "models" / "ultimate" / "work").exists()
    assert trained["ai"].system.pool_symbols() == ["ETHUSDT"]


def test_prediction_and_signal_as_written(used):
    names = run(USE, used)
    said, signal = names["prediction"], names["signal"]
    assert said["not_used"] == ["onchain", "orderbook"] and said["direction"] in ("UP", "DOWN")
    assert said["known_at"] == names["data"].index[-1] + pd.Timedelta("1h")
    assert signal is None or list(signal) == KEYS.split()
    signal = names["ai"].get_trading_signal("BTC/USDT", min_confidence=0.5)
    assert list(signal) == KEYS.split() and signal["action"] == ("BUY" if said["direction"] == "UP" else "SELL")
    assert signal["stop_loss_pct"] >= 0.02 and np.isclose(signal["take_profit_pct"], 2 * signal["stop_loss_pct"])
    assert 0 < signal["position_size"] <= 0.02
    pattern = r"(UP|DOWN) with \d+ % confidence in [A-Z_]+ regime; base rate \d+ %; "
    pattern += "(no test row|such forecasts were right in)"
    assert re.match(pattern, signal["reasoning"])


def test_adapting_saving_and_the_report_as_written(used, market):
    names = run(KEEP, used)
    assert list(names["report"]) == REPORT.split() and names["report"]["sharpe_ratio"] is None
    assert names["report"]["active_symbols"] == 2 and names["report"]["model_parameters"] > 100
    later = run(USE, names)["prediction"]
    assert later["adapted_until"] == str(market["BTC/USDT"].index[-5])
    again = document.UltimateTradingAI(CONFIG).load_state()
    assert again.system.adapted_["until"] == later["adapted_until"]


def test_basic_usage_as_written(used, capsys):
    used["ai"].save_state()
    names = {"current_data": used["data"]}
    exec(BASIC, names)  # nothing around it awaits
    said = capsys.readouterr().out
    assert said == "" or said.startswith("Action: ")


def test_integration_as_written(used, caplog):
    used["ai"].save_state()
    bot = types.SimpleNamespace(config={"api_key": "…", "min_confidence": 0.6})
    names = run(BOT, {"self": bot})
    assert names["signal"] is None and bot.ai_system.system.coins_ == ["BTCUSDT", "ETHUSDT"]
    assert "none of ours: api_key" in caplog.text and bot.ai_system.params.min_confidence == 0.6


def test_visualisations_as_written(used, capsys):
    names = run(LOSSES, run(IMPORTANCE, used))
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 8 and shown == sorted(shown, key=lambda line: -float(line.split(": ")[1]))
    run(ATTENTION, names)
    assert list(names["attention"]) == [0, 1, 2, 3]
    assert np.isclose(sum(names["attention"].values()) + names["prediction"]["attention_ahead"], 1)
    assert np.isclose(sum(names["importance"].values()), 1)


@pytest.fixture(scope="module")
def tiny():
    "A network of one layer, rows, and the names that the examples of training use."
    import keras

    def create(params):
        layers = [keras.layers.Dense(params["hidden_size"] // 32, "tanh") for _ in range(params["num_layers"])]
        model = keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])
        model.compile(loss="mse", run_eagerly=True)
        return model

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 24, 2)).astype("float32"), rng.normal(size=(2, 24, 1)).astype("float32")
    models = [create({"hidden_size": 64, "num_layers": 1}) for _ in range(3)]
    return {
        "create_model_fn": create, "your_model": models[0], "model1": models[0], "model2": models[1],
        "model3": models[2], "train_loader": [(x[0], y[0])], "val_loader": [(x[1], y[1])], "X_train": x[0],
        "y_train": y[0], "X_val": x[1], "y_val": y[1], "new_data": x[1], "new_data_x": x[0], "new_data_y": y[0],
        "torch": sys.modules["torch"], "device": "cpu", "loss_fn": "mse", "optimizer": keras.optimizers.Adam(0.01),
    }


def test_training_examples_as_written(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run(TRAINER, dict(tiny))
    assert len(names["history"]["val_loss"]) >= 10 and (tmp_path / "models/checkpoints/checkpoint").is_dir()
    assert np.isfinite(run(CONTINUAL, names)["loss"])
    names = run(ENSEMBLE, names)
    assert np.isclose(names["optimal_weights"].sum(), 1) and names["prediction"].shape == (24, 1)
    names = run(OPTIMIZER.replace("n_trials=50", "n_trials=2, epochs=1"), names)  # fifty take as long as they say
    assert {"hidden_size", "num_layers", "learning_rate"} <= set(names["best_params"])


def test_a_custom_model_as_written():
    example = CUSTOM.replace("Transformer(...)", "Transformer(input_size=2, hidden_size=4, num_attention_heads=1)")
    names = run(example.replace("Linear(...)", "Linear(3, 1)"), {})
    assert names["MyCustomModel"]()(np.zeros((2, 5, 2), "float32")).shape[-1] == 1


# ---- what was said, and what came of it

def test_the_graph_hears_only_coins_that_are_there(used, market):
    both = {"BTCUSDT": used["data"], "ETHUSDT": market["ETH/USDT"].iloc[:-100]}
    alone = asyncio.run(used["ai"].predict(both, "BTCUSDT"))
    assert alone["absent"] == ["ETHUSDT"] and alone["listens_to"]["ETHUSDT"] == 0
    table = pd.concat([table.iloc[-400:].assign(symbol=name) for name, table in market.items()])
    assert not asyncio.run(used["ai"].predict(table, "BTCUSDT"))["absent"]


def test_later_candles_decide_about_earlier_predictions(used, market):
    async def go():
        for end in range(-5, 0):
            await used["ai"].predict({name: table.iloc[-400:end] for name, table in market.items()}, "BTC/USDT")

    asyncio.run(go())
    ai, close = used["ai"], market["BTC/USDT"]["close"]
    said = {time: entry for (_, time), entry in ai.track.items()}
    right = [(entry["p_up"] > 0.5) == (close.shift(-1)[time] > close[time]) for time, entry in list(said.items())[:-1]]
    report = ai.get_performance_report()
    assert report["num_predictions"] == 5 and report["prediction_accuracy"] == np.mean(right)
    assert list(said.values())[-1]["next"] is None


def test_the_same_candle_twice_is_one_prediction(used):
    for _ in range(2):
        asyncio.run(used["ai"].predict(used["data"], "BTCUSDT"))
    assert used["ai"].get_performance_report()["num_predictions"] == 1


def test_a_sharpe_ratio_needs_thirty_outcomes_and_pays_for_turns():
    step, start = pd.Timedelta("1h"), pd.Timestamp("2024-01-01", tz="UTC")
    rng = np.random.default_rng(0)
    path = np.exp(np.cumsum(rng.normal(0.01, 0.001, 31)))
    track = {
        ("A", start + k * step): {"p_up": 0.6, "close": path[k], "next": path[k + 1]} for k in range(30)
    }
    gross = np.diff(np.log(path))
    net = evidence.track_returns(track, step).to_numpy()
    assert np.allclose(net[1:-1], gross[1:-1]) and np.allclose(net[[0, -1]], gross[[0, -1]] - 0.0015)
    turning = {key: said | {"p_up": 0.6 if k % 2 else 0.4} for k, (key, said) in enumerate(track.items())}
    assert np.allclose(evidence.track_returns(turning, step), gross * np.tile([-1, 1], 15) - 0.003)
    assert evidence.track_facts(track, step)["sharpe_ratio"] == pytest.approx(net.mean() / net.std(ddof=1) * 8760**0.5)
    few = dict(list(track.items())[:29])
    assert evidence.track_facts(few, step)["sharpe_ratio"] is None


def test_evidence_counts_every_test_row_once(trained):
    for own in trained["ai"].evidence.values():
        counts = [c for side in own["counts"].values() for c in side.values()]
        assert sum(rows for rows, _ in counts) == own["rows"] > 50
        assert all(0 <= right <= rows for rows, right in counts) and 0.3 < own["base_rate"] < 0.7
    test, found = trained["ai"].system.results_["direction"], trained["ai"].evidence["BTCUSDT"]["counts"]
    right = sum(c[1] for side in found.values() for c in side.values())
    assert right / trained["ai"].evidence["BTCUSDT"]["rows"] == pytest.approx(test["accuracy"])


# ---- adapting

def test_heads_adapt_to_a_new_rule_and_importance_holds_them(trained):
    network, rng = trained["ai"].system.models_["network"], np.random.default_rng(0)
    states = rng.normal(size=(128, 4)).astype("float32")
    labels = {name: np.full(128, np.nan, "float32") for name in adapt.HEADS}
    labels["up"] = (states[:, 0] > 0).astype("float32")
    rows, loss = adapt.HeadRows(states, labels, pd.DataFrame()), adapt.head_loss(network)
    start, moved = adapt.HeadStart(adapt.head_model(network), (states, labels)), {}
    named = dict(rate=0.05, steps=20, seed=0)
    for importance in (0.0, 1e4):
        head = adapt.head_model(network)
        before = [np.asarray(w).copy() for w in head.trainable_variables]
        losses = adapt.move_head(head, start, rows, loss, "fine-tune", importance=importance, **named)["recent"]
        pairs = zip(before, head.trainable_variables)
        moved[importance] = losses, sum(float(np.square(a - np.asarray(b)).sum()) for a, b in pairs)
    assert moved[0.0][0][1] < 0.8 * moved[0.0][0][0]  # the rule is learned
    assert moved[1e4][1] < 0.2 * moved[0.0][1]


def test_meta_tasks_of_a_planted_table():
    times = pd.date_range("2024-01-01", periods=200, freq="h", tz="UTC")
    facts = pd.concat([
        pd.DataFrame({"t0": times, "t1": times + pd.Timedelta("14h"), "coin": coin, "regime": np.arange(200) // 50 % 2})
        for coin in (0, 1)
    ], ignore_index=True)
    rows = adapt.HeadRows(np.zeros((400, 1)), {}, facts)
    tasks = adapt.meta_tasks(rows, 10, 10, stretch=100)
    assert len(tasks) == 8  # two coins, two stretches, two regimes
    for support, query in tasks:
        a, b = facts.loc[support], facts.loc[query]
        assert a["t1"].max() == b["t0"].min()  # as close as the purge allows
        assert len({*a["coin"], *b["coin"]}) == len({*a["regime"], *b["regime"]}) == 1


def test_nothing_behind_the_recent_candles_matters(used, market):
    ai, recent = used["ai"], market["BTC/USDT"].iloc[-400:-100]
    pool = market["ETH/USDT"]
    wild = pool.copy()
    wild.loc[wild.index > recent.index[-1], ["open", "high", "low", "close"]] *= 3
    pair = [adapt.head_rows(ai.system, recent, {"ETHUSDT": table}) for table in (pool, wild)]
    assert np.array_equal(pair[0].states, pair[1].states)
    for name in adapt.HEADS:
        assert np.array_equal(pair[0].labels[name], pair[1].labels[name], equal_nan=True)
    assert pair[0].facts["t0"].max() <= recent.index[-1]


# ---- what is refused

@pytest.mark.parametrize("call,error,words", [
    ("UltimateTradingAI().predict(data, 'BTC/USDT')", ModelError, "nothing is trained"),
    ("ai.predict(data, 'SOL/USDT')", ModelError, "SOLUSDT is no coin of this model"),
    ("ai.predict(data.iloc[-100:], 'BTC/USDT')", DataError, "too few candles"),
    ("ai.predict(data.iloc[-252:-1], 'BTC/USDT')", DataError, "no window of"),
    ("ai.predict(data.iloc[::4], 'BTC/USDT')", DataError, "another timeframe"),
    ("ai.predict(data.assign(close=data['close'].where(data.index < data.index[-1])), 'BTC/USDT')", DataError,
     "the newest candle is unusable"),
    ("ai.predict(data * np.nan, 'BTC/USDT')", DataError, "no usable candle"),
    ("ai.predict(data, 'ETH/USDT')", DataError, "no candles of ETHUSDT"),
    ("ai.predict(data.drop(index=data.index[-3]), 'BTC/USDT')", DataError, "cannot be forecast"),
    ("ai.adapt_to_new_regime(data.iloc[-50:])", DataError, "too few candles"),
    ("ai.adapt_to_new_regime(data.iloc[-252:])", DataError, "no row to adapt to"),
    ("ai.adapt_to_new_regime(data, learning_rate=-1)", SettingsError, "`learning_rate` is out of range"),
    ("ai.train_from_historical_data(data.iloc[:300])", DataError, "too few rows"),
    ("ai.train_from_historical_data(data, ['BTC/USDT', 'ETH/USDT'])", DataError, "no candles of ETHUSDT"),
    ("ai.train_from_historical_data(data, epochs=0)", SettingsError, "epochs"),
])
def test_bad_input(used, call, error, words):
    before = used["ai"].system
    with pytest.raises(error, match=re.escape(words)):
        asyncio.run(eval(call, used | {"np": np}))
    assert used["ai"].system is before


@pytest.mark.parametrize("config,words", [
    ({"hiden_size": 4}, "did you mean `hidden_size`?"), ({"min_confidence": 0}, "`min_confidence` is out of range"),
    ({"min_confidence": 1.0}, "`min_confidence` is out of range"), ({"hidden_size": 10}, "heads do not divide"),
    ({"memory_size": -1}, "`memory_size` is impossible"), ({"inner_lr": 0}, "`inner_lr` is impossible"),
    ({"profile": "huge"}, "huge"), ([], "no dictionary"), ({"dropout": 1.0}, "`dropout` is out of range"),
])
def test_impossible_configurations(config, words):
    with pytest.raises(SettingsError, match=re.escape(words)):
        document.UltimateTradingAI(config)


@pytest.mark.parametrize("least", [0, 1, -0.5, "high", True])
def test_impossible_confidence(used, least):
    with pytest.raises(SettingsError, match="`min_confidence` is out of range"):
        used["ai"].get_trading_signal("BTC/USDT", min_confidence=least)


def test_states_that_are_no_states(used, tmp_path, monkeypatch):
    used["ai"].save_state()
    folder = tmp_path / "models" / "ultimate"
    shutil.copytree("models/ultimate/state", folder / "state")
    monkeypatch.chdir(tmp_path)
    load = lambda config=None: document.UltimateTradingAI(config).load_state()
    assert load({"min_confidence": 0.9, "profile": "smoke"}).system.coins_ == ["BTCUSDT", "ETHUSDT"]
    with pytest.raises(ModelError, match="another configuration: `num_layers`"):
        load({"num_layers": 3})
    for name in ("start/memory.npz", "model/network.npz", "state.json"):
        whole = (folder / "state" / name).read_bytes()
        (folder / "state" / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ModelError, match="was changed since it was written"):
            load()
        (folder / "state" / name).write_bytes(whole)
    (folder / "state" / "start" / "heads.npz").unlink()
    with pytest.raises(ModelError, match="is missing"):
        load()
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match="is no model folder"):
        load()


def test_a_loaded_system_says_the_same(used, market):
    used["ai"].save_state()
    again = document.UltimateTradingAI(CONFIG).load_state()
    both = {name: table.iloc[-400:] for name, table in market.items()}
    pair = [asyncio.run(ai.predict(both, "ETH/USDT")) for ai in (used["ai"], again)]
    assert pair[0] == pair[1] and not pair[0]["absent"]
    facts = json.loads((again.model_dir / "state" / "manifest.json").read_text())
    assert {"state.json", "start/heads.npz", "start/memory.npz", "model/network.npz"} <= set(facts["files"])


def test_bots(used, tmp_path):
    class Slotted:
        __slots__ = ()

    give = lambda bot, **more: asyncio.run(document.integrate_with_existing_bot(bot, model_dir=tmp_path, **more))
    for bot, more, words in (
        (types.SimpleNamespace(ai_system=1), {}, "has an `ai_system` already"), (Slotted(), {}, "takes no attribute"),
        (types.SimpleNamespace(), {"train_on_startup": True}, "what shall be trained on?"),
        (types.SimpleNamespace(), {"config": {"min_confidense": 1}}, "did you mean `min_confidence`?"),
    ):
        with pytest.raises(SettingsError, match=re.escape(words)):
            give(bot, **more)


def test_tables_of_any_form(market, tmp_path):
    btc = market["BTC/USDT"].iloc[:300]
    both = pd.concat([table.iloc[:300].assign(symbol=name) for name, table in market.items()])
    both.to_csv(tmp_path / "both.csv")
    for data in (both, both.reset_index(), both.set_index("symbol", append=True), tmp_path / "both.csv"):
        found = inputs.read_tables(data, ["ETHUSDT", "BTC-USDT"])
        assert list(found) == ["ETHUSDT", "BTCUSDT"] and np.allclose(found["BTCUSDT"]["close"], btc["close"])
    with pytest.raises(DataError, match="rows without a coin"):
        inputs.read_tables(both.assign(symbol=both["symbol"].where(np.arange(600) > 0)))
    with pytest.raises(DataError, match="every coin needs one table"):
        inputs.read_tables({"BTC/USDT": btc, "BTCUSDT": btc})
    early = inputs.read_tables(btc, now=btc.index[-1])["BTCUSDT"]
    assert len(early) == 299 and inputs.repairs(early) == {"unclosed last candle": 1}
