"""How long a forecast takes, and what a training of V9's network costs beside plain Keras.

python -m benchmarks.speed [--candles 8000] [--repeats 200]

forecast  newest candle to table, candles in memory: V9 as `cryptolab predict` has it (NumPy, one window), the
          reference system as `cryptolab watch` asks it (a carried row of features)
epoch     7,000 windows of 60 x 46 through V9's quick direction network, batches of 128: ours and `Model.fit`
network   a second network of the same architecture, from construction to the end of its first epoch: ours takes
          the program that is there, Keras builds another
fold      a quick fit of V9 on --candles candles, models and ensemble: the first and the second of a process

Results are stored in benchmarks/results/speed.json. Times are of this machine; ratios are of one run.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from cryptolab.data import sample_market
from cryptolab.files import plain, write_json

STORE = Path(__file__).parent / "results" / "speed.json"
WINDOWS = 7_000


def quantiles(seconds):
    "Median and 99th percentile in milliseconds."
    ms = sorted(1000 * s for s in seconds)
    return {"p50": statistics.median(ms), "p99": ms[int(0.99 * (len(ms) - 1))], "n": len(ms)}


def timed(call, repeats):
    "Seconds of each call; the first three are not counted."
    found = []
    for number in range(repeats + 3):
        began = time.perf_counter()
        call(number)
        found.append(time.perf_counter() - began)
    return found[3:]


def forecasts(repeats):
    "One forecast of each system."
    from cryptolab.features.stream import FeatureStream
    from cryptolab.systems.reference.system import Reference
    from cryptolab.systems.v9 import V9

    candles = sample_market(n=4_000)
    small = {"direction_epochs": 1, "price_epochs": 1}  # how long it was trained does not change what a forecast costs
    with tempfile.TemporaryDirectory() as folder:
        V9(profile="quick", sizes=small).fit(candles, log=None).save(Path(folder) / "v9")
        v9 = V9.for_newest().load(Path(folder) / "v9")
    newest = candles.iloc[-600:]
    found = {"V9": quantiles(timed(lambda _: v9.forecast(newest), repeats))}
    reference = Reference().fit(candles, log=None)
    stream = FeatureStream(reference.row_features)
    stream.extend(candles.iloc[:2_000])
    close = candles["close"].to_numpy()

    def next_candle(number):
        at = slice(2_000 + number, 2_001 + number)
        return reference.forecast_rows(stream.extend(candles.iloc[at]), close[at])

    return found | {"Reference": quantiles(timed(next_candle, repeats))}


def windows():
    "A view of random windows, outcomes, and V9's quick sizes."
    from cryptolab.models.training import profile_sizes

    rng = np.random.default_rng(0)
    matrix = rng.random((WINDOWS + 1_060, 46), dtype="float32")
    view = np.lib.stride_tricks.sliding_window_view(matrix, 60, axis=0).transpose(0, 2, 1)
    return view, rng.integers(0, 2, len(view)).astype("float32"), profile_sizes("quick")


def networks():
    "An epoch, and the beginning of a second network: ours and Keras'."
    import keras

    from cryptolab.models.direction import build_direction
    from cryptolab.models.training import train_network

    view, y, sizes = windows()
    train, val = np.arange(WINDOWS), np.arange(WINDOWS, WINDOWS + 1_000)
    names = ("direction_units", "direction_dense", "heads", "key_dim")

    def build():
        return build_direction(60, 46, **{name: sizes[name] for name in names}, wide=0)

    def ours(epochs):
        began = time.perf_counter()
        history = train_network(
            build(), view, (train, y[train]), (val, y[val]), "binary_crossentropy", epochs, rate=1e-3, batch_size=128,
            patience=9, plateau=9, log=None,
        )
        return time.perf_counter() - began, history["seconds"].diff().iloc[-1]

    def plain_keras(epochs):
        began, ends = time.perf_counter(), []
        model = build()
        model.compile(optimizer=keras.optimizers.Adam(1e-3, clipnorm=1.0), loss="binary_crossentropy")
        tell = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
        model.fit(
            np.ascontiguousarray(view[train]), y[train], epochs=epochs, batch_size=128, verbose=0, callbacks=[tell],
            validation_data=(np.ascontiguousarray(view[val]), y[val]),
        )
        return time.perf_counter() - began, ends[-1] - ends[-2] if len(ends) > 1 else None

    ours(1), plain_keras(1)  # the first of a process
    first = {"ours": ours(1)[0], "Keras": plain_keras(1)[0]}
    epoch = {"ours": ours(3)[1], "Keras": plain_keras(3)[1]}
    return {
        "epoch": epoch | {"ratio": epoch["Keras"] / epoch["ours"]},
        "second network, to its first epoch": first | {"ratio": first["Keras"] / first["ours"]},
    }


def folds(candles):
    "A quick fit, twice."
    from cryptolab.systems.v9 import V9

    market, found = sample_market(n=candles), {}
    for name, seed in (("first", 0), ("second", 1)):
        began = time.perf_counter()
        V9(profile="quick", seed=seed).fit(market, log=None)
        found[name] = time.perf_counter() - began
    return found | {"candles": candles}


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--candles", type=int, default=8_000, help="of a fold")
    cli.add_argument("--repeats", type=int, default=200, help="forecasts of each system")
    args = cli.parse_args()
    result = {"command": "python -m benchmarks.speed", "cores": os.cpu_count(), "machine": platform.machine()}
    for name, measure in (
        ("forecast, ms", lambda: forecasts(args.repeats)), ("training, s", networks),
        ("fold, s", lambda: folds(args.candles)),
    ):
        result[name] = measure()
        for key, value in result[name].items():
            print(f"{name:14} {key:36} {value}", flush=True)
    write_json(STORE, plain(result))


if __name__ == "__main__":
    main()
