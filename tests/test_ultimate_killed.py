"""A process killed in the middle of an epoch and of a search's trial: both go on to the same bits."""
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import test_ultimate_fit as fit
import test_ultimate_tune as tune

from cryptolab.systems.ultimate.fit import UltimateTrainer

HERE = Path(__file__).parent
SCRIPT = """
    import os, signal, sys
    sys.path.insert(0, sys.argv[2])
    import test_ultimate_fit as fit, test_ultimate_tune as tune

    folder, made = sys.argv[1], []

    def deadly(params):
        "Builds models until the search is in the second epoch of its fourth trial."
        made.append(params)
        model = tune.factory(params)
        if len(made) == 6:  # two of the check, and three trials
            steps = []

            def counted(*args, train=model.train_on_batch, **named):
                steps.append(1)
                if len(steps) == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                return train(*args, **named)

            model.train_on_batch = counted
        return model

    class Searching(fit.ArrayLoader):
        "Searches, and dies of it, in the middle of the fifth epoch."

        def __iter__(self):
            for k, batch in enumerate(super().__iter__()):
                if (self.epoch, k) == (4, 2):
                    tune.search(deadly, storage=f"{folder}/search.db").optimize()
                yield batch

    trainer = fit.UltimateTrainer(fit.network(), save_dir=f"{folder}/training")
    trainer.train(*fit.loaders(Searching), **fit.NAMED)
"""


@pytest.fixture(scope="module")
def dead(tmp_path_factory):
    "What the process left."
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("needs SIGKILL")
    folder, script = tmp_path_factory.mktemp("dead"), textwrap.dedent(SCRIPT)
    code = subprocess.run([sys.executable, "-c", script, str(folder), str(HERE)], capture_output=True, timeout=300)
    assert code.returncode == -signal.SIGKILL, code.stderr.decode()[-2000:]
    return folder


def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(dead, tmp_path):
    folder = dead / "training"
    undisturbed = UltimateTrainer(fit.network(), save_dir=tmp_path)
    wanted = undisturbed.train(*fit.loaders(), **fit.NAMED)
    trainer = UltimateTrainer(fit.network(), save_dir=folder)
    history = trainer.train(*fit.loaders(), **fit.NAMED, resume=True)
    assert history == wanted and fit.same(trainer.model.get_weights(), undisturbed.model.get_weights())
    files = [sorted(p.relative_to(f).as_posix() for p in f.rglob("*.*")) for f in (folder, tmp_path)]
    assert files[0] == files[1] and "checkpoint/optimizer.npz" in files[0]
    for name in files[0]:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_a_killed_search_goes_on_and_ends_as_if_nothing_had_happened(dead, tmp_path):
    made = []

    def spy(params):
        made.append(params)
        return tune.factory(params)

    undisturbed = tune.search()
    wanted = undisturbed.optimize()
    again = tune.search(spy, storage=dead / "search.db", ledger=tmp_path / "trials.jsonl", fingerprint="made")
    assert len(again.trials_table()) == 3
    assert again.optimize() == wanted
    assert len(made) == 2 + 2  # the check, and the two trials that were missing
    pd.testing.assert_frame_equal(tune.shown(again), tune.shown(undisturbed))
    assert again.ledger.count("made") == 5
