"""HyperparameterOptimizer: the lowest loss wins, hopeless trials end early, and a killed search goes on unchanged."""

import numpy as np
import pytest

from cryptolab.config import ModelError, SettingsError, load_keras
from cryptolab.evaluation.ledger import TrialLedger
from cryptolab.systems.ultimate.batches import ArrayLoader
from cryptolab.systems.ultimate.fit import UltimateTrainer
from cryptolab.systems.ultimate.tune import (
    DOCUMENT_SIZES, ULTIMATE_SPACE, HyperparameterOptimizer, check_factory, check_space,
)

SPACE = {"hidden_size": [2, 8], "learning_rate": (0.01, 0.3, "log"), "batch_size": [40]}
NAMED = dict(space=SPACE, epochs=3, loss="mse", n_trials=5, log=None)


def rows():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 3)).astype("float32")
    return (x[:80], np.sin(2 * x[:80, :1])), (x[80:], np.sin(2 * x[80:, :1]))


def factory(params):
    keras = load_keras()
    layers = [keras.layers.Dense(params.get("hidden_size", 4), "tanh"), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((3,)), *layers])


def search(make=factory, **named):
    return HyperparameterOptimizer(make, *rows(), **NAMED | named)


def shown(optimizer):
    return optimizer.trials_table().drop(columns="seconds")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "A search that nothing disturbed, with its ledger."
    folder = tmp_path_factory.mktemp("whole")
    found = search(storage=folder / "s.db", ledger=folder / "trials.jsonl", fingerprint="made")
    return found, found.optimize()


def test_the_lowest_loss_wins(whole):
    optimizer, best = whole
    table = shown(optimizer)
    row = table.loc[table["loss"].idxmin()]
    assert len(table) == 5 and best == {name: row[name] for name in SPACE} and (table["state"] == "complete").any()
    assert set(best) == set(SPACE) and isinstance(best["hidden_size"], int)


def test_a_loss_is_the_lowest_validation_loss_of_a_training_with_these_parameters(whole):
    optimizer, best = whole
    load_keras().utils.set_random_seed(0)
    train, val = rows()
    history = UltimateTrainer(factory(best)).train(
        ArrayLoader(*train, best["batch_size"], seed=0), ArrayLoader(*val), 3, best["learning_rate"], loss="mse",
        log=None,
    )
    assert min(history["val_loss"]) == pytest.approx(optimizer.trials_table()["loss"].min(), rel=1e-6)


def test_every_trial_is_in_the_ledger_once(whole):
    optimizer, _ = whole
    trials, table = optimizer.ledger.trials("made"), shown(optimizer)
    assert len(trials) == optimizer.ledger.count("made") == 5
    np.testing.assert_array_equal(trials["score"], table["loss"])  # none for a trial that was given up
    assert [c["learning_rate"] for c in trials["config"]] == list(table["learning_rate"])
    assert [n["state"] for n in trials["notes"]] == list(table["state"])


def test_a_finished_search_trains_nothing_and_a_longer_one_goes_on(whole):
    optimizer, best = whole
    made = []
    named = dict(storage=optimizer.storage, ledger=optimizer.ledger, fingerprint="made")

    def spy(params):
        made.append(params)
        return factory(params)

    assert search(spy, **named).optimize() == best and made == []
    assert len(optimizer.ledger.trials("made")) == 5


def test_a_hopeless_trial_is_given_up():
    rates = iter([0.05, 0.03, 0.04, 1e-9, 0.05])
    space = {"hidden_size": [4], "learning_rate": (1e-9, 0.1, "log"), "batch_size": [80]}
    optimizer = search(space=space, epochs=6)
    propose = HyperparameterOptimizer._try

    def fixed(self, number):
        self.study.enqueue_trial({"hidden_size": 4, "learning_rate": next(rates), "batch_size": 80})
        return propose(self, number)

    HyperparameterOptimizer._try = fixed
    try:
        best = optimizer.optimize()
    finally:
        HyperparameterOptimizer._try = propose
    table = optimizer.trials_table()
    assert table["state"].tolist()[3] == "pruned" and table["epochs"][3] == 2 and np.isnan(table["loss"][3])
    assert table["state"].tolist()[:3] == ["complete"] * 3 and best["learning_rate"] > 0.02


def test_suggested_rate_and_batch_are_used():
    made = []

    def keep(params):
        made.append((params, factory(params)))
        return made[-1][1]

    optimizer = search(keep, n_trials=2, space=SPACE | {"batch_size": [20, 40]})
    optimizer.optimize()
    for params, model in made[2:]:
        assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(params["learning_rate"])
        assert int(model.optimizer.iterations.numpy()) == 3 * 80 / params["batch_size"]
        assert model.layers[0].units == params["hidden_size"]
    assert {name: made[2][0][name] for name in SPACE} == made[2][0]


def test_the_documents_sizes_come_first_and_heads_divide_them():
    params = []

    def small(chosen):
        params.append(chosen)
        return factory({"hidden_size": chosen["hidden_size"] // 32 + chosen["num_layers"]})

    search(small, space=None, n_trials=1, epochs=1).optimize()
    assert params[-1] == DOCUMENT_SIZES and set(DOCUMENT_SIZES) == set(ULTIMATE_SPACE)
    assert all(s % h == 0 for s in ULTIMATE_SPACE["hidden_size"] for h in ULTIMATE_SPACE["num_heads"])


# ---- what goes wrong

def test_a_factory_that_ignores_what_it_is_given_is_refused_before_the_first_trial(tmp_path):
    x = rows()[0][0]
    with pytest.raises(ModelError, match="ignores `hidden_size`"):
        search(lambda params: factory({}), storage=tmp_path / "s.db").optimize()
    with pytest.raises(ModelError, match="ignores `num_layers`"):
        check_factory(factory, SPACE | {"num_layers": (1, 3)}, x)
    with pytest.raises(ModelError, match="gives no model"):
        check_factory(lambda params: "model", SPACE, x)
    check_factory(factory, {"hidden_size": [4], "learning_rate": (0.1, 0.2)}, x)  # nothing to compare
    assert len(search(storage=tmp_path / "s.db").trials_table()) == 0


def test_a_loss_of_nan_gives_up_the_trial_and_not_the_search():
    keras = load_keras()

    def sometimes(params):
        model = factory(params)
        if params["hidden_size"] == 8:
            model.set_weights([w * np.nan for w in model.get_weights()])
        return model

    optimizer = search(sometimes, n_trials=4, epochs=1)
    best, table = optimizer.optimize(), optimizer.trials_table()
    assert best["hidden_size"] == 2 and set(table["hidden_size"]) == {2, 8}
    assert (table[table["hidden_size"] == 8]["error"].str.contains("loss is nan")).all()
    with pytest.raises(ModelError, match="no trial was completed(.|\n)*loss is nan"):
        search(sometimes, n_trials=1, space={"hidden_size": [8]}).optimize()
    assert keras.config.floatx() == "float32"


def test_an_error_of_the_factory_ends_the_search_and_counts_no_trial(tmp_path):
    calls = []

    def broken(params):
        calls.append(params)
        if len(calls) == 3:
            raise ZeroDivisionError
        return factory(params)

    named = dict(storage=tmp_path / "s.db", n_trials=1, epochs=1)
    with pytest.raises(ZeroDivisionError):
        search(broken, **named).optimize()
    optimizer = search(**named)
    assert len(optimizer.trials_table()) == 0
    optimizer.optimize()
    assert len(optimizer.trials_table()) == 1


def test_other_searches_and_files_that_are_none(whole, tmp_path):
    file = whole[0].storage
    others = {"epochs": {"epochs": 4}, "seed": {"seed": 1}, "loss": {"loss": "mae"}, "patience": {"patience": 2},
              "space": {"space": SPACE | {"batch_size": [80]}}}
    for name, named in others.items():
        with pytest.raises(ModelError, match=f"holds another search(.|\n)*'{name}'"):
            search(storage=file, **named).optimize()
    (x, y), val = rows()
    with pytest.raises(ModelError, match="'data'"):
        HyperparameterOptimizer(factory, (x + 1, y), val, **NAMED, storage=file).optimize()
    assert len(search(storage=file, study_name="second", epochs=4).trials_table()) == 0
    (tmp_path / "s.db").write_bytes(b"not a database" * 100)
    with pytest.raises(ModelError, match="cannot be read"):
        search(storage=tmp_path / "s.db").optimize()


@pytest.mark.parametrize("named, why", [
    ({"n_trials": 0}, "n_trials"), ({"epochs": True}, "epochs"), ({"patience": 0}, "patience"),
    ({"ledger": "trials.jsonl"}, "fingerprint"), ({"device": "cud"}, "unknown device"),
    ({"space": {"hidden_size": [30], "num_heads": [4]}}, "whole columns"), ({"space": {"dropout": 0.1}}, "dropout"),
    ({"space": {"dropout": (0.1, 0.1)}}, "dropout"), ({"space": {"learning_rate": (0, 1, "log")}}, "learning_rate"),
    ({"space": {"batch_size": [32, 32]}}, "batch_size"), ({"space": {"dropout": (0, 1, "lin")}}, "dropout"),
])
def test_impossible_settings(named, why):
    with pytest.raises(SettingsError, match=why):
        search(**named)


def test_the_library_stays_as_quiet_as_it_was():
    import optuna

    before = optuna.logging.get_verbosity()
    lines = []
    search(n_trials=2, epochs=1, log=lines.append).optimize()
    assert optuna.logging.get_verbosity() == before
    assert [line[:9] for line in lines] == ["trial 1/2", "trial 2/2"] and "about 0 s left" in lines[1]
    assert check_space(SPACE) == SPACE and isinstance(TrialLedger("x.jsonl"), TrialLedger)
