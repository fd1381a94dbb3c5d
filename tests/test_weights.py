"""Weights as plain numbers: the same bits come back, and no foreign, altered or hostile file changes a network."""
import io
import zipfile

import numpy as np
import pytest

from cryptolab.config import ModelError, load_keras
from cryptolab.models.weights import read_variables, write_variables


def network(units=3, rate=0.5, last="dense"):
    keras = load_keras()
    layers = keras.layers
    end = layers.Dense(1) if last == "dense" else layers.LayerNormalization()
    return keras.Sequential([keras.Input((4,)), layers.Dense(units), layers.Dropout(rate), end])


def numbers(variables):
    return [np.asarray(v).copy() for v in variables]


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    "A network that has made some random numbers, and its file."
    model = network()
    model(np.ones((2, 4), "float32"), training=True)
    return model, write_variables(tmp_path_factory.mktemp("weights") / "good.npz", model.variables)


def arrays_of(path):
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored}


def test_a_second_network_gets_the_same_bits_under_other_names(good):
    model, file = good
    other = network()
    assert [v.path for v in other.variables] != [v.path for v in model.variables]
    read_variables(file, other.variables)
    assert_same(numbers(other.variables), numbers(model.variables))
    x = np.ones((8, 4), "float32")
    np.testing.assert_array_equal(other(x, training=True), network_answer(file, x))  # dropout goes on where it was


def network_answer(file, x):
    model = network()
    read_variables(file, model.variables)
    return model(x, training=True)


def test_optimizers_and_their_counters_are_variables_like_others(tmp_path):
    keras = load_keras()
    x, y = np.random.default_rng(0).standard_normal((2, 16, 4)).astype("float32")
    states = []
    for _ in range(2):
        model = network()
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        states.append(model)
    states[0].train_on_batch(x, y[:, :1])
    file = write_variables(tmp_path / "adam.npz", states[0].optimizer.variables)
    read_variables(file, states[1].optimizer.variables)
    assert_same(numbers(states[1].optimizer.variables), numbers(states[0].optimizer.variables))
    assert int(states[1].optimizer.iterations.numpy()) == 1


def test_same_numbers_same_bytes(good, tmp_path):
    model, file = good
    assert write_variables(tmp_path / "again.npz", model.variables).read_bytes() == file.read_bytes()


# ---- what is refused, and leaves the network as it was

def altered(file, folder, change):
    "The file with its arrays changed by a function."
    arrays = change(arrays_of(file))
    np.savez(folder / "altered.npz", **arrays)
    return folder / "altered.npz"


def with_first(arrays, array):
    return {name: array if k == 0 else a for k, (name, a) in enumerate(arrays.items())}


ALTERED = {
    "NaN": lambda a: with_first(a, np.full((4, 3), np.nan, "float32")),
    "infinity": lambda a: with_first(a, np.full((4, 3), -np.inf, "float32")),
    "float64": lambda a: with_first(a, np.zeros((4, 3))),
    "big endian": lambda a: with_first(a, np.zeros((4, 3), ">f4")),
    "turned": lambda a: with_first(a, np.zeros((3, 4), "float32")),
    "columns first": lambda a: with_first(a, np.zeros((4, 3), "float32", order="F")),
    "objects": lambda a: with_first(a, np.array([{}], dtype=object)),
    "huge": lambda a: with_first(a, np.zeros(100_000, "float32")),
    "one less": lambda a: dict(list(a.items())[:-1]),
    "one more": lambda a: a | {"00099/dense/kernel": np.zeros(3, "float32")},
    "another order": lambda a: dict(reversed(a.items())),
    "another name": lambda a: {name.replace("bias", "scale"): x for name, x in a.items()},
}


@pytest.mark.parametrize("change", ALTERED, ids=list(ALTERED))
def test_altered_files_are_refused_whole(good, tmp_path, change):
    model = network()
    before = numbers(model.variables)
    with pytest.raises(ModelError) as e:
        read_variables(altered(good[1], tmp_path, ALTERED[change]), model.variables)
    assert e.value.expected and e.value.found and e.value.remedy
    assert_same(numbers(model.variables), before)


def test_a_bad_last_array_does_not_leave_the_first_assigned(good, tmp_path):
    model = network()
    before = numbers(model.variables)
    bad = altered(good[1], tmp_path, lambda a: {n: np.full_like(x, np.nan) if x.shape == (1,) else x
                                                for n, x in a.items()})
    with pytest.raises(ModelError, match="NaN"):
        read_variables(bad, model.variables)
    assert_same(numbers(model.variables), before)


@pytest.mark.parametrize("other", [{"units": 4}, {"last": "norm"}])
def test_a_file_of_another_network_says_what_it_expected_and_found(good, other):
    with pytest.raises(ModelError, match="expected.*\n.*found"):
        read_variables(good[1], network(**other).variables)


def test_hostile_archives(good, tmp_path):
    names = list(arrays_of(good[1]))
    entries = {name: zipfile.ZipFile(good[1]).read(f"{name}.npy") for name in names}

    def archive(change, how=zipfile.ZIP_STORED):
        with zipfile.ZipFile(tmp_path / "hostile.npz", "w", how) as file:
            for name, data in change(dict(entries)).items():
                file.writestr(f"{name}.npy", data)
        return tmp_path / "hostile.npz"

    lying = io.BytesIO()
    np.lib.format.write_array_header_1_0(lying, {"descr": "<f4", "fortran_order": False, "shape": (10**11,)})
    first = names[0]
    hostile = {
        "a header that lies": lambda: archive(lambda e: e | {first: lying.getvalue()}),
        "numbers behind the numbers": lambda: archive(lambda e: e | {first: e[first] + b"more"}),
        "numbers missing": lambda: archive(lambda e: e | {first: e[first][:-4]}),
        "no header": lambda: archive(lambda e: e | {first: b"not an array"}),
        "a header of version 3": lambda: archive(lambda e: e | {first: e[first].replace(b"NUMPY\x01", b"NUMPY\x03")}),
        "bomb": lambda: archive(lambda e: e | {first: bytes(50_000_000)}, zipfile.ZIP_DEFLATED),
    }
    for make in hostile.values():
        model = network()
        before = numbers(model.variables)
        with pytest.raises(ModelError):
            read_variables(make(), model.variables)
        assert_same(numbers(model.variables), before)
    read_variables(archive(lambda e: e), network().variables)  # the archive as it is passes


def test_a_name_twice_in_an_archive_is_refused(good, tmp_path):
    copy = tmp_path / "twice.npz"
    copy.write_bytes(good[1].read_bytes())
    name = zipfile.ZipFile(copy).namelist()[0]
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(copy, "a") as file:
        file.writestr(name, zipfile.ZipFile(good[1]).read(name))
    with pytest.raises(ModelError, match="names of their own"):
        read_variables(copy, network().variables)


def test_every_cut_and_every_flipped_bit_of_the_numbers_is_noticed(good, tmp_path):
    data = good[1].read_bytes()
    rng, model = np.random.default_rng(0), network()
    read_variables(good[1], model.variables)
    before = numbers(model.variables)
    for cut in rng.integers(0, len(data), 20):
        (tmp_path / "cut.npz").write_bytes(data[:cut])
        with pytest.raises(ModelError):
            read_variables(tmp_path / "cut.npz", model.variables)
    at = data.index(np.asarray(model.variables[0]).tobytes())
    for k in range(at, at + 48):
        (tmp_path / "flipped.npz").write_bytes(data[:k] + bytes([data[k] ^ 16]) + data[k + 1 :])
        with pytest.raises(ModelError):
            read_variables(tmp_path / "flipped.npz", model.variables)
    assert_same(numbers(model.variables), before)


def test_nothing_that_cannot_be_read_is_written(good, tmp_path):
    keras = load_keras()
    file = tmp_path / "kept.npz"
    write_variables(file, good[0].variables)
    kept = file.read_bytes()
    diverged = network()
    diverged.variables[1].assign([0, np.nan, 0])
    half = keras.layers.Dense(2, dtype="bfloat16")
    half.build((None, 2))
    for variables, why in ((diverged.variables, "NaN"), (half.variables, "bfloat16"), ([], "build the network")):
        with pytest.raises(ModelError, match=why):
            write_variables(file, variables)
    assert file.read_bytes() == kept and [p.name for p in tmp_path.iterdir()] == ["kept.npz"]
