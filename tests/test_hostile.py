"""Model folders that somebody altered, with sums that fit: this library's own error or numbers, and nothing else.

    python -m tests.test_hostile                     # the whole corpus of three systems, one line at the end
    python tests/test_hostile.py FOLDER v2 200       # 200 random alterations of one system, its model kept in FOLDER
    CRYPTOLAB_SEED=20250101 pytest tests/test_hostile.py   # the draw of that day again

All this happens in a process of its own, because the fault looked for can end the interpreter. A case
fails if anything but a `CryptolabError` comes out, a planted payload runs, memory grows beyond a bound, it takes too
long, or the process dies. Without an alteration that matters, the numbers must be those of the good model.
"""
import base64
import datetime
import faulthandler
import io
import json
import marshal
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

SEED = int(os.environ.get("CRYPTOLAB_SEED") or datetime.date.today().strftime("%Y%m%d"))
# random alterations of the whole corpus, beside all written ones; v9-newest is the reader of `cryptolab predict`
WHOLE = {"v2": 150, "hybrid": 120, "v9": 60, "v9-newest": 60}
DAILY = {"v2": (70, 60), "hybrid": (14, 16), "v9": (6, 6), "v9-newest": (8, 8)}  # written and random, drawn by the date
DEEP, DIGITS = "[" * 5000 + "]" * 5000, "9" * 5000
GROWTH, SECONDS = 700 << 20, 60  # bytes and seconds that a case may take
WORDS = (b"null", b"-7", b"1e999", b'"x"', b"[" * 3000, b"9" * 5000, b"NaN", b"\x00", b"\n\n")
VALUES = (
    None, True, -1, 0, 1, 7, 10**9, 2**31, 2**63, 10**30, 1e308, -1e308, float("nan"), float("inf"), 0.5, "", "x",
    "nan", "1_0", "../../etc/passwd", [], [[]], {}, {"a": 1}, [1, 2], "a" * 10_000,
)


# ---------------------------------------------------------------- tools


def seal(folder, files=None):
    "Make the sums of a manifest fit its files again; the manifest itself stays as somebody wrote it."
    from cryptolab.files import file_sum

    facts = json.loads((folder / "manifest.json").read_text())
    if files is None and isinstance(facts.get("files"), dict):
        facts["files"] = {n: file_sum(folder / n) for n in facts["files"] if (folder / n).is_file()}
    write_sealed(folder, facts)


def write_sealed(folder, facts):
    "A manifest with its own sum."
    from cryptolab.systems.artefacts import manifest_sum

    facts = {k: v for k, v in facts.items() if k != "sha256"}
    (folder / "manifest.json").write_text(json.dumps({**facts, "sha256": manifest_sum(facts)}))


def at(value, path):
    "What lies at a path of keys."
    for key in path:
        value = value[key]
    return value


def leaves(value, path=()):
    "Paths of everything in a JSON value."
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from leaves(inner, (*path, key))


def change_json(rng, value):
    "Replace, remove or double something, the higher levels as often as the many leaves."
    paths = list(leaves(value))
    depth = rng.choice(sorted({len(p) for p in paths}))
    path = [p for p in paths if len(p) == depth][rng.integers(sum(len(p) == depth for p in paths))]
    above, key, how = at(value, path[:-1]), path[-1], rng.random()
    if how < 0.15:
        del above[key]
    elif how < 0.25 and isinstance(above[key], list):
        above[key] = above[key] * 2
    else:
        above[key] = VALUES[rng.integers(len(VALUES))]
    return path


def zip_parts(path):
    "Name -> content of a zip file."
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def write_zip(path, parts, how=zipfile.ZIP_STORED):
    "A zip file of these contents."
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def set_in(path, keys, value):
    "One value of a JSON file."
    stored = json.loads(path.read_text())
    at(stored, keys[:-1])[keys[-1]] = value
    path.write_text(json.dumps(stored))


# ---------------------------------------------------------------- random alterations


def change_bytes(rng, path):
    "A bit, an end, a digit, a word, or everything."
    data, kind = bytearray(path.read_bytes()), ("flip", "cut", "digit", "word", "empty")[rng.integers(5)]
    at = int(rng.integers(len(data)))
    if kind == "flip":
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del data[at:]
    elif kind == "digit":
        digits = [i for i, byte in enumerate(data) if 48 <= byte <= 57] or [0]
        data[digits[rng.integers(len(digits))]] = 48 + int(rng.integers(10))
    elif kind == "word":
        data[at:at] = WORDS[rng.integers(len(WORDS))]
    else:
        data = b""
    path.write_bytes(bytes(data))
    return kind


def change_lines(rng, path):
    "A line of a text: its value replaced, doubled behind it or after a blank line, or the line removed."
    lines = path.read_text().split("\n")
    k = [i for i, line in enumerate(lines) if "=" in line or line.startswith("[")]
    k = k[rng.integers(len(k))]
    name = lines[k].split("=")[0]
    values = ("", "-1", "0", "1", "1_0", "nan", "1e999", "99999999999999", "0 0 0 0 0 0 0", "-1 " * 6, "x", "1 " * 1000)
    other, how = f"{name}={values[rng.integers(len(values))]}", rng.integers(5)
    lines[k : k + 1] = ([other], [lines[k], other], [other, "", lines[k]], [], [other, lines[k]])[how]
    path.write_text("\n".join(lines))
    return f"line {name} {how}"


def change_inside(rng, path):
    "The description within a zip file, or one of its arrays."
    parts = zip_parts(path)
    name = str(rng.choice([n for n in parts if n.endswith((".json", ".npy", ".h5"))]))
    if name.endswith(".json"):
        value = json.loads(parts[name])
        what = change_json(rng, value)
        parts[name] = json.dumps(value)
    elif name.endswith(".npy"):
        array = np.atleast_1d(np.load(io.BytesIO(parts[name])))
        others = (
            array.astype("float32"), array.astype("int64"), array[:0], np.concatenate([array, array]), -array,
            array.ravel()[None], np.full(array.shape, np.nan), np.zeros((3, 3)), array.astype(str),
        ) if array.dtype.names is None else (array[::-1], array[:0])
        other = others[rng.integers(len(others))]
        store, what = io.BytesIO(), f"{array.dtype}{array.shape} to {other.dtype}{other.shape}"
        np.save(store, other)
        parts[name] = store.getvalue()
    else:
        parts[name], what = change_h5(rng, parts[name])
    write_zip(path, parts)
    return f"inside {name} {what}"


def datasets(file):
    "Names of the arrays of an HDF5 file."
    import h5py

    names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def change_h5(rng, data):
    "One array of a network's weights: other shape, other type, no numbers, or gone."
    import h5py

    store = io.BytesIO(data)
    with h5py.File(store, "a") as file:
        names = datasets(file)
        name = names[rng.integers(len(names))]
        array = np.atleast_1d(file[name][()])
        del file[name]
        others = (
            np.full(array.shape, np.nan), array[:1], array.ravel(), array.astype("float64"), array.astype("int32"),
            array.astype("S4"), np.zeros((0,)), None, array * 1e30,
        )
        other = others[rng.integers(len(others))]
        if other is not None:
            file[name] = other
    return store.getvalue(), name


def alter(folder, seed, foreign=()):
    "Change one file of a model folder in a way that the seed decides; what was done."
    rng = np.random.default_rng(seed)
    files = sorted(p for p in folder.iterdir() if p.name != "training.log")
    path = files[rng.integers(len(files))]
    structured = {".json": None, ".txt": change_lines, ".keras": change_inside, ".skops": change_inside}
    if rng.random() < 0.2:
        other = [*(p for p in files if p != path), *foreign][rng.integers(len(files) - 1 + len(foreign))]
        mine, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        if other.parent == folder:
            other.write_bytes(mine)
        done = f"swap with {other.name}"
    elif rng.random() < 0.6 and path.suffix in structured:
        if path.suffix == ".json":
            value = json.loads(path.read_text())
            done = f"json {change_json(rng, value)}"
            path.write_text(json.dumps(value))
        else:
            done = structured[path.suffix](rng, path)
    else:
        done = change_bytes(rng, path)
    if rng.random() < 0.9:  # else the sums show it
        try:
            seal(folder, files="as they are" if path.name == "manifest.json" else None)
        except (ValueError, TypeError, AttributeError, OSError, RecursionError):
            done += ", unsealed"
    return f"{path.name} {done}"


# ---------------------------------------------------------------- alterations written by hand


class Payload:
    "A pickle that leaves a file where it is read."

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def manifest_cases(folder):
    "Manifests of every impossible kind, each with a sum that fits."
    facts = json.loads((folder / "manifest.json").read_text())
    first = sorted(facts["files"])[0]

    def with_(**changes):
        return lambda f: write_sealed(f, {**facts, **changes})

    def raw(text):
        return lambda f: (f / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())

    some = facts["files"]
    yield "manifest: no files", with_(files={})
    for value in ([], None, "x", 7, {first: None}, list(some)):
        yield f"manifest: files {value!r:.40}", with_(files=value)
    for name in ("../../etc/passwd", "/etc/passwd", "..", ".", "", "a\0b", "a" * 5000, "../x/" + first, "~/.ssh/id"):
        yield f"manifest: a file {name!r:.40}", with_(files={**some, name: "0" * 64})
    for value in ("nobody", None, 7, ["v2"], {"a": 1}, "v2 ", "os", True):
        yield f"manifest: system {value!r}", with_(system=value)
    for key in ("params", "fitted", "counts", "seconds", "features", "members", "sizes"):
        if key in facts:
            for value in (None, [], "x", 7, {}):
                yield f"manifest: {key} {value!r}", with_(**{key: value})
    for key in facts["fitted"]:
        yield f"manifest: fitted without {key}", with_(fitted={k: v for k, v in facts["fitted"].items() if k != key})
    for value in ({"no_such": 1}, {"self": 1}, {"cls": 1}, {"__class__": 1}):
        yield f"manifest: params with {value}", with_(params={**facts["params"], **value})
    values = float("nan"), -1, 10**12, "x", True, {"a": []}, [[]]
    for k, key in enumerate(facts["params"]):
        for value in (values[(3 * k + i) % 7] for i in range(3)):  # every value comes to every third parameter
            yield f"manifest: params {key} {value!r}", with_(params={**facts["params"], key: value})
    whole = json.dumps(facts)
    for name, text in {
        "empty": "", "null": "null", "a list": "[]", "deep": DEEP, "open": whole[:-1], "zeros": b"\0" * 5000,
        "digits": f'{{"files": {DIGITS}}}', "deep inside": f'{whole[:-1]}, "x": {DEEP}}}',
        "digits inside": f'{whole[:-1]}, "x": {DIGITS}}}', "utf-16": whole.encode("utf-16"),
        "twice": '{"system": "nobody", ' + whole[1:],
    }.items():
        yield f"manifest: {name}", raw(text)


def file_cases(folder, marker):
    "Files that are missing, too many, links, pickles, or endless."
    names = sorted(json.loads((folder / "manifest.json").read_text())["files"])

    def remove(name, sealed):
        def change(f):
            (f / name).unlink()
            if sealed:
                seal(f)
        return change

    def link(name, target):
        def change(f):
            outside = f.parent / "outside"
            shutil.copy(f / name, outside)
            (f / name).unlink()
            (f / name).symlink_to(outside if target is None else target)
            if target is None:
                seal(f)
        return change

    def replace(name, data):
        def change(f):
            (f / name).write_bytes(data)
            seal(f)
        return change

    def endless(f):
        with open(f / names[-1], "r+b") as file:
            file.truncate(1 << 30)
        seal(f)

    for name in names:
        if name == "training.log" or name.endswith(".h5"):
            continue
        yield f"missing {name}", remove(name, True)
        yield f"missing and listed {name}", remove(name, False)
        yield f"link out {name}", link(name, None)
        yield f"pickle as {name}", replace(name, pickle.dumps(Payload(marker)))
        yield f"deep {name}", replace(name, DEEP.encode())
        yield f"digits {name}", replace(name, f'{{"a": {DIGITS}}}'.encode())
        if name.endswith(".json"):
            for data in (b"NaN", b"null", b"{}", b"[]", b"7", b'"x"', b'{"a": 1, "a": 2}'):
                yield f"{data.decode()} as {name}", replace(name, data)
    yield "link to a device", link(names[0], "/dev/zero")
    yield "link to itself", link(names[0], names[0])
    yield "a gigabyte of nothing", endless


def same_cases(folder):
    "Changes that must not matter: the numbers are the good model's."
    def note(f):
        (f / "note.txt").write_text("hello")

    def listed(f):
        note(f)
        facts = json.loads((f / "manifest.json").read_text())
        facts["files"]["note.txt"] = ""
        write_sealed(f, facts)
        seal(f)

    yield "same: untouched", lambda f: None
    yield "same: a file more", note
    yield "same: a file more, listed", listed


def text_cases(folder):
    "LightGBM's texts, each line against what the program believes without looking."
    name = "bounce_long.txt"

    def line(key, value, tree=True):
        def change(f):
            lines = (f / name).read_text().split("\n")
            k = next(i for i, x in enumerate(lines) if x.startswith(key + "="))
            lines[k : k + 1] = value(lines[k]) if callable(value) else [f"{key}={value}"]
            (f / name).write_text("\n".join(lines))
            seal(f)
        return change

    for key, values in {
        "objective": ("multiclass num_class:9", "lambdarank", "binary sigmoid:-1", "binary sigmoid:nan", "x"),
        "num_class": ("1000000000", "-1", "2", "1_0"), "num_tree_per_iteration": ("7", "0"),
        "label_index": ("-99999999", "x"), "max_feature_idx": ("99999999", "-1", "2"),
        "feature_infos": ("", "[nan:nan]", "[0:1] " * 15, "x " * 15, "%n%s " * 15),
        "feature_names": ("", "a " * 15, "a a a"), "num_leaves": ("1000000000", "-7", "0", "6", "1_0"),
        "num_cat": ("1", "-1"), "is_linear": ("1", "x"), "shrinkage": ("nan", "x"),
        "split_feature": ("99 99 99 99 99 99", "-1 -1 -1 -1 -1 -1", "0", "0 0 0 0 0 0_1"),
        "left_child": ("0 0 0 0 0 0", "99 5 4 -1 -3 -2", "-9 -9 -9 -9 -9 -9"),
        "split_gain": ("", "1", "nan " * 6, "1 " * 999), "threshold": ("nan " * 6, "x " * 6, "1"),
        "leaf_value": ("nan " * 7, "1", "inf " * 7, "1e400 " * 7), "leaf_count": ("", "1", "x " * 7),
        "decision_type": ("1 1 1 1 1 1", "255 255 255 255 255 255", "99999999999 2 2 2 2 2"),
        "internal_value": ("", "1 " * 99), "leaf_weight": ("1", "1 " * 99), "internal_count": ("1",),
    }.items():
        for value in values:
            yield f"text {key}={value:.30}", line(key, value)
    hostile = "99 99 99 99 99 99"
    yield "text: twice, the first hostile", line("split_feature", lambda x: [f"split_feature={hostile}", x])
    yield "text: a blank, then good", line("split_feature", lambda x: [f"split_feature={hostile}", "", x])
    yield "text: a space before", line("split_feature", lambda x: [f"split_feature={hostile}", " " + x])
    yield "text: carriage returns", line("split_feature", lambda x: [f"split_feature={hostile}\r\r{x}"])
    for path, value in {
        ("calibration",): (["x", 0], [1e999, 0], [1], [], {}, [1, 2, 3], [None, 1], [float("nan"), 0]),
        ("columns",): ([], None, ["x"] * 15, 7),
    }.items():
        for v in value:
            yield f"v2.json {path} {v!r:.30}", lambda f, v=v, path=path: (
                set_in(f / "v2.json", ("models", "bounce_long", *path), v), seal(f),
            )


def xgboost_cases(name, features):
    "XGBoost's JSON against what the program believes without looking."
    model, param, tree = ("learner", "gradient_booster", "model"), ("learner", "learner_model_param"), ("trees", 0)

    def put(keys, value):
        return lambda f: (set_in(f / name, keys, value), seal(f))

    def twice(f):
        text = (f / name).read_text()
        k = text.index('"split_indices":[')
        (f / name).write_text(text[:k] + '"split_indices":[' + "9999999," * 14 + "9999999]," + text[k:])
        seal(f)

    for key, values in {
        "left_children": ([0] * 9, [10**9] * 9, [], "x", [1.5] * 9), "right_children": ([-1] * 9,),
        "split_indices": ([10**9] * 9, [-1] * 9, []), "parents": ([0] * 9, []),
        "split_conditions": ([], [None] * 9, ["x"]), "split_type": ([1] * 9,), "categories": ([7],),
        "base_weights": ([],), "default_left": ([], [9] * 99, ["x"]), "sum_hessian": ([],), "categories_nodes": ([0],),
        "categories_sizes": ([10**9],), "categories_segments": ([10**9],),
        "id": (10**9, "x", -1),
    }.items():
        for value in values:
            yield f"xgboost {key} {value!r:.30}", put((*model, *tree, key), value)
    for key, values in {"num_nodes": ("1_1", "1000000000", "-1", "0"), "num_feature": ("1", "1000000000"),
                        "size_leaf_vector": ("4", "1000000000", "x"), "num_deleted": ("5", "-5", "x")}.items():
        for value in values:
            yield f"xgboost tree {key} {value}", put((*model, *tree, "tree_param", key), value)
    for key, values in {
        "num_class": ("3", "1000000000", "x", "-1"), "num_target": ("5", "1000000000", "-1"), "num_feature": ("1", "x"),
        "base_score": ("nan", "[NaN]", "x", "[]", "[1,2,3]", "-5", "[1E400]", ""), "boost_from_average": ("x",),
    }.items():
        for value in values:
            yield f"xgboost {key} {value}", put((*param, key), value)
    for value in ("multi:softprob", "rank:ndcg", "survival:aft", "no:such", "multi:softmax", "reg:quantileerror"):
        yield f"xgboost objective {value}", put(("learner", "objective", "name"), value)
    for keys, value in {
        ("learner", "feature_names"): ["a"], ("learner", "feature_types"): ["c"] * features, ("version",): [0, 0, 0],
        ("learner", "attributes"): {"best_iteration": "99999999"}, ("learner", "gradient_booster", "name"): "gblinear",
        (*model, "iteration_indptr"): [0, 99], (*model, "tree_info"): [9] * 20, (*model, "cats"): {"enc": [1]},
        (*model, "gbtree_model_param", "num_parallel_tree"): "1000000000", (*model, "trees"): [],
    }.items():
        yield f"xgboost {keys[-1]} {value!r:.30}", put(keys, value)
    for value in ("abc", "-99999999", "99999999999999999999", None, 7):
        yield f"xgboost best_iteration {value}", put(("learner", "attributes", "best_iteration"), value)
    yield "xgboost scikit_learn x", put(("learner", "attributes", "scikit_learn"), "x")
    yield "xgboost: a key twice", twice


def keras_cases(name, marker):
    "Networks: code in the description, sizes that fill the memory, circles, archives and weights of every kind."
    import h5py

    code = f"open({str(marker)!r}, 'w')"

    def described(change):
        def run(f):
            parts = zip_parts(f / name)
            config = json.loads(parts["config.json"])
            parts["config.json"] = json.dumps(change(config) or config)
            write_zip(f / name, parts)
            seal(f)
        return run

    def layer(kind, config, **more):
        def change(c):
            old = c["config"]["layers"][-1]
            c["config"]["layers"][-1] = {**old, "class_name": kind, "config": {"name": old["name"], **config}, **more}
        return described(change)

    def of(kind, **values):
        def change(c):
            found = [x for x in c["config"]["layers"] if x["class_name"] in kind]
            inner = found[-1]["config"].get("layer", found[-1])
            (inner.get("config") or found[-1]["config"]).update(values)
        return described(change)

    compiled = base64.b64encode(marshal.dumps(eval(f"lambda x: {code} and x").__code__)).decode()
    facts = {"code": compiled, "defaults": None, "closure": None}
    lambda_ = {"function": {"class_name": "__lambda__", "config": facts}}
    yield "keras: Lambda", layer("Lambda", lambda_, module="keras.layers")
    yield "keras: Lambda by name", layer("Lambda", {"function": "os.system"}, module="keras.layers")
    for module, kind in (("os", "system"), ("subprocess", "Popen"), ("builtins", "eval"), ("keras.utils", "get_file"),
                         ("keras.src.saving.saving_lib", "load_model"), ("pickle", "loads"), ("keras", "Model")):
        yield f"keras: {module}.{kind}", layer(kind, {"args": [code]}, module=module)
        yield f"keras: Dense of {module}", layer("Dense", {"units": 1}, module=module)
    for value in ("os.system", "builtins>exec", "pkg>Dense", 7):
        yield f"keras: registered {value}", layer("Dense", {"units": 1}, registered_name=value)
    yield "keras: a function as activation", of(("Dense",), activation={
        "module": "os", "class_name": "function", "config": "system", "registered_name": "function"})
    yield "keras: activation by name", of(("Dense",), activation="os.system")
    yield "keras: initializer of another module", of(("Dense",), kernel_initializer={
        "module": "os", "class_name": "system", "config": {"command": code}, "registered_name": None})
    yield "keras: a model inside", described(
        lambda c: c["config"]["layers"].append(json.loads(json.dumps(c)) | {"name": "inner", "inbound_nodes": []}))
    yield "keras: compiled with a function", described(lambda c: c.update(compile_config={
        "loss": {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}}))
    yield "keras: built otherwise", described(lambda c: c.update(build_config={"input_shape": [None, 10**9, 10**9]}))
    for units in (10**6, 10**9, 10**12, -1, 0, 1.5, "9", None, True, float("nan"), [3]):
        yield f"keras: units {units}", of(("Dense", "LSTM", "Bidirectional"), units=units)
        yield f"keras: units of the memory {units}", of(("LSTM", "Bidirectional"), units=units)
    endless = [None, 10**9, 46], [None, 60, 10**9], [10**9, 60, 46]
    for shape in (*endless, [None, 60], [], None, "x", [None, -1, 46], [0, 0, 0]):
        yield f"keras: shape {shape}", of(("InputLayer",), batch_shape=shape)
    yield "keras: unrolled", of(("LSTM", "Bidirectional"), unroll=True)
    yield "keras: stateful", of(("LSTM", "Bidirectional"), stateful=True)
    yield "keras: no layers", described(lambda c: c["config"].update(layers=[]))
    yield "keras: a thousand names", described(lambda c: c["config"].update(layers=c["config"]["layers"] * 300))
    yield "keras: other outputs", described(lambda c: c["config"].update(output_layers=[["nobody", 0, 0]]))

    def circle(c):
        layers = c["config"]["layers"]
        first, last = (json.dumps(layers[k]["name"]) for k in (0, -1))
        layers[1]["inbound_nodes"] = json.loads(json.dumps(layers[1]["inbound_nodes"]).replace(first, last))

    def later_node(c):
        history = next(at(c, p) for p in leaves(c) if p[-1] == "keras_history")
        history[1] = 10**9

    yield "keras: a circle of layers", described(circle)
    yield "keras: a node that is not there", described(later_node)

    def archive(change, how=zipfile.ZIP_STORED):
        def run(f):
            parts = zip_parts(f / name)
            write_zip(f / name, change(parts) or parts, how)
            seal(f)
        return run

    yield "keras: bomb in the description", archive(
        lambda p: {**p, "config.json": b" " * (600 << 20) + p["config.json"]}, zipfile.ZIP_DEFLATED)
    yield "keras: bomb in the weights", archive(
        lambda p: {**p, "model.weights.h5": b"\0" * (600 << 20)}, zipfile.ZIP_DEFLATED)
    yield "keras: ten thousand entries", archive(lambda p: p | {f"a/{i}": b"" for i in range(10_000)})
    yield "keras: an entry outside", archive(lambda p: p | {"../../outside.txt": b"x"})
    yield "keras: assets", archive(lambda p: p | {"assets/x.txt": b"x"})
    yield "keras: deep description", archive(lambda p: {**p, "config.json": b"[" * 5000 + b"]" * 5000})

    def weights(change):
        def run(p):
            store = io.BytesIO(p["model.weights.h5"])
            with h5py.File(store, "a") as file:
                names = datasets(file)
                change(file, names)
            return {**p, "model.weights.h5": store.getvalue()}
        return archive(run)

    def outside(file, names):
        other = marker.parent / "other.h5"
        with h5py.File(other, "w") as h:
            h["x"] = np.zeros_like(file[names[0]][()])
        del file[names[0]]
        file[names[0]] = h5py.ExternalLink(str(other), "x")

    def soft(file, names):
        file["moved"] = file[names[0]][()]
        del file[names[0]]
        file[names[0]] = h5py.SoftLink("/moved")

    def virtual(file, names):
        shape = file[names[0]].shape
        layout = h5py.VirtualLayout(shape, "f4")
        layout[...] = h5py.VirtualSource(str(marker.parent / "other.h5"), "x", shape=shape)
        del file[names[0]]
        file.create_virtual_dataset(names[0], layout)

    def raw_file(file, names):
        shape = file[names[0]].shape
        size = 4 * int(np.prod(shape))
        del file[names[0]]
        file.create_dataset(names[0], shape, "f4", external=[("/etc/passwd", 0, size)])

    def objects(file, names):
        del file[names[0]]
        file.create_dataset(names[0], (3,), dtype=h5py.string_dtype())

    def huge(file, names):
        del file[names[0]]
        file.create_dataset(names[0], (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")

    def circular(file, names):
        file["layers/loop"] = file["layers"]

    for change in (outside, soft, virtual, raw_file, objects, huge, circular):
        yield f"keras: weights {change.__name__}", weights(change)


def skops_cases(marker):
    "scikit-learn models: attributes that a forecast believes, types of other libraries, arrays that are not there."
    def attribute(name, key, value):
        def run(f):
            import skops.io

            model = skops.io.load(f / f"{name}.skops", trusted=["sklearn.tree._tree.Tree"])
            setattr(model, key, value)
            skops.io.dump(model, f / f"{name}.skops")
            seal(f)
        return run

    i4, f8 = (lambda *x: np.array(x, dtype="int32")), (lambda *x: np.array(x, dtype="float64"))
    for name, values in {
        "random_forest": {
            "n_jobs": (10**6, -1, "x"), "n_classes_": (10**9, 1, "x", 3), "n_outputs_": (3, 0),
            "estimators_": ([], None, [1]), "classes_": (f8(0, 1, 2), f8(1), f8(np.nan, 1)),
            "n_features_in_": (3, "x"), "verbose": (10**6,), "n_estimators": (0,),
        },
        "svm": {
            "_n_support": (i4(100, 100, 180), i4(-5, 385), i4(380), i4(), i4(380, 0)),
            "intercept_": (f8(), f8(1, 2, 3)), "_intercept_": (f8(), f8(1, 2)), "_sparse": (True,),
            "kernel": ("precomputed", "linear", "x", 7), "_gamma": (-1.0, "x", 1e308, float("nan")), "gamma": ("x",),
            "degree": (10**9, -3), "coef0": ("x",), "classes_": (f8(0, 1, 2), f8(1)), "_probA": (f8(1, 2, 3), i4()),
            "support_": (np.full(380, 10**9, "int32"),), "shape_fit_": ((1, 1), None), "cache_size": (-1, "x"),
            "break_ties": (True,), "decision_function_shape": ("ovo", "x"), "_effective_probability": (True,),
        },
        "logistic": {
            "intercept_": (f8(), f8(1, 2, 3), f8(np.nan), None), "classes_": (f8(0, 1, 2), f8(1)), "solver": ("x",),
            "coef_": (np.full((1, 114), np.nan), np.zeros((1, 114), "int8"), None), "n_features_in_": (3,),
        },
    }.items():
        for key, given in values.items():
            for value in given:
                yield f"skops {name}.{key} {value!r:.40}", attribute(name, key, value)

    def schema(name, change):
        def run(f):
            parts = zip_parts(f / f"{name}.skops")
            value = json.loads(parts["schema.json"])
            change(value)
            parts["schema.json"] = json.dumps(value)
            write_zip(f / f"{name}.skops", parts)
            seal(f)
        return run

    def function(module, kind, loader):
        def change(value):
            value["content"]["content"]["n_features_in_"] = {
                "__module__": module, "__class__": kind, "__loader__": loader, "__id__": 1, "content": {
                    "module_path": module, "function": kind}, "constructor": f"{module}.{kind}",
                "args": {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "__id__": 2,
                         "content": []},
            }
        return schema("logistic", change)

    for module, kind in (("posix", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("numpy", "load")):
        for loader in ("FunctionNode", "TypeNode", "ObjectNode", "ReduceNode", "OperatorFuncNode", "NoSuchNode"):
            yield f"skops {loader} {module}.{kind}", function(module, kind, loader)

    def loop(value):
        value["content"]["content"]["n_features_in_"] = {
            "__id__": value["__id__"], "__loader__": "CachedNode", "__class__": "x", "__module__": "x"}

    yield "skops: a circle", schema("logistic", loop)

    def array(name, header=None, data=None, how=zipfile.ZIP_STORED):
        def run(f):
            parts = zip_parts(f / f"{name}.skops")
            key = next(k for k in parts if k.endswith(".npy"))
            store = io.BytesIO()
            if header:
                np.lib.format.write_array_header_1_0(store, header)
            parts[key] = store.getvalue() + (data or b"")
            write_zip(f / f"{name}.skops", parts, how)
            seal(f)
        return run

    shape = {"descr": "<f8", "fortran_order": False, "shape": (10**11,)}
    yield "skops: an array of 800 GB", array("svm", shape)
    yield "skops: an array of 2 GB", array("logistic", {**shape, "shape": (250_000_000,)})
    yield "skops: objects", array("logistic", {**shape, "descr": "|O", "shape": (1,)}, pickle.dumps(Payload(marker)))
    yield "skops: a pickle as array", array("logistic", None, pickle.dumps(Payload(marker)))
    bomb = {**shape, "shape": (100 << 20,)}
    yield "skops: a bomb", array("logistic", bomb, b"\0" * (800 << 20), zipfile.ZIP_DEFLATED)


def vote_cases(folder):
    "The hybrid's tables: weights, calibration and members."
    def put(file, keys, value):
        return lambda f: (set_in(f / file, keys, value), seal(f, files="own" if file == "manifest.json" else None))

    for keys, values in {
        ("weights",): ({}, None, [0.2] * 5, {"x": 1}), ("weights", "svm"): (-5, "x", None, 1e308, 0, True), ("line",): (
            [1], [], None, ["x", 1], [1, 2, 3], [1e308, 1e308], {}), ("calibration",): ({}, None, 7, {"x": [1, 0]}),
        ("calibration", "svm"): ([], [1], ["x", 0], None, [float("nan"), 0], [1, 2, 3]), ("kind",): (7, None, "x"),
    }.items():
        for value in values:
            yield f"ensemble {keys} {value!r:.30}", put("ensemble.json", keys, value)
    for value in ([], ["svm"], ["svm", "svm"], ["../x"], "svm", [["svm"]], None, {"svm": 1}):
        yield f"members {value!r}", put("manifest.json", ("members",), value)
    for value in (b"[1]", b"[1, 2, 3]", b'["x", 1]', b"{}", b"[NaN, 1]", b"[1e999, 1]", b"7"):
        yield f"svm_line {value.decode()}", lambda f, value=value: ((f / "svm_line.json").write_bytes(value), seal(f))
    scaler = json.loads((folder / "scaler.json").read_text())
    for key in scaler:
        for value in ([], None, "x", 7, [float("nan")], ["x"]):
            yield f"scaler {key} {value!r}", put("scaler.json", (key,), value)


def blend_cases(folder):
    "V9's tables: the numbers of the ensemble and the scaler."
    for file in ("ensemble_v9.json", "scaler_v9.json"):
        for key in json.loads((folder / file).read_text()):
            for value in (None, "x", "equal", [], [1], [1, 2, 3], float("nan"), 1e308, -1, True, {}, [["x"]]):
                yield f"{file} {key} {value!r}", lambda f, a=(file, [key], value): (set_in(f / a[0], *a[1:]), seal(f))


def written_cases(name, folder, marker):
    "All alterations written by hand for a system: (what, function of the folder)."
    yield from same_cases(folder)
    yield from manifest_cases(folder)
    yield from file_cases(folder, marker)
    if name == "v2":
        yield from text_cases(folder)
    elif name == "hybrid":
        yield from xgboost_cases("xgboost.json", 114)
        yield from keras_cases("lstm.keras", marker)
        yield from skops_cases(marker)
        yield from vote_cases(folder)
    else:
        yield from xgboost_cases("volatility_model_v9.json", 2760)
        yield from keras_cases("direction_model_v9.keras", marker)
        yield from blend_cases(folder)


# ---------------------------------------------------------------- the attack


def memory(field):
    "Bytes of this process: VmRSS now, VmHWM at most, VmSize reserved."
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) << 10


def outcome(cls, folder, good, candles):
    "What loading and forecasting ends in: same, numbers, refused, or a fault in capitals."
    from cryptolab.config import CryptolabError

    try:
        table = cls.load(folder).forecast(candles)
    except CryptolabError as e:
        causes, cause = [], e
        while cause is not None:
            causes, cause = [*causes, type(cause).__name__], cause.__cause__
        if {"MemoryError", "ResourceExhaustedError", "ArrayMemoryError", "_ArrayMemoryError"} & set(causes):
            return f"MEMORY asked for: {causes} {e.found[:80]}"
        return "refused"
    except BaseException as e:
        return f"RAW {type(e).__name__}: {str(e)[:150]}".replace("\n", " ")
    if table.equals(good):
        return "same"
    missing = [c for c in table.columns if c in good and good[c].notna().all() and table[c].isna().any()]
    return f"NAN in {missing}" if missing else "numbers"


def attempt(cls, folder, good, candles, marker):
    "The same, with an eye on memory, time and the planted payload."
    linux = Path("/proc/self/clear_refs").exists()
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    before = memory("VmRSS") if linux else 0
    if linux:
        Path("/proc/self/clear_refs").write_text("5")
    found = outcome(cls, folder, good, candles)
    grown = memory("VmHWM") - before if linux else 0
    faulthandler.cancel_dump_traceback_later()
    if marker.exists():
        marker.unlink()
        return "CODE was run"
    return f"MEMORY grew by {grown >> 20} MiB" if grown > GROWTH else found


def limit_memory():
    "No more than 8 GB beyond what is reserved now."
    if Path("/proc/self/status").exists():
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + (8 << 30), most))


def good_model(home, name, seed=0):
    "A saved smoke model; fitted once."
    from cryptolab.data.market import sample_market
    from cryptolab.systems.registry import system_class

    cls, folder, candles = system_class(name), home / f"{name}-{seed}", sample_market(n=1_500, seed=seed)
    if not folder.exists():
        system = cls(profile="smoke", seed=seed)
        (untrained_v9(system, candles) if name == "v9" else system.fit(candles, log=None)).save(folder)
    return cls, folder


def untrained_v9(system, candles):
    "A V9 whose networks are as they were drawn: nothing here depends on what they learned, and training takes long."
    import keras

    from cryptolab.models.direction import build_direction
    from cryptolab.models.price import build_price
    from cryptolab.models.volatility import build_volatility
    from cryptolab.systems.base import fitted_facts
    from cryptolab.systems.v9.rows import prepare_rows

    sizes, rows = system.chosen_sizes(), prepare_rows(candles, system.variant, system.window, system.vol_target)
    keras.utils.set_random_seed(system.seed)
    numbers, natr = rows.parts["volatility"]["train"]
    trees = build_volatility(sizes | {"trees": 10}, natr.mean(), 0, threads=1).fit(rows.windows.flat(numbers), natr)
    shape, mean = (system.window, len(rows.scaler.names)), np.full(len(rows.scaler.names), 0.5)
    system.models_ = {
        name: build(*shape, **{k: v for k, v in sizes.items() if k in known}, mean=mean, variance=mean)
        for name, build, known in (
            ("direction", build_direction, ("direction_units", "direction_dense", "heads", "key_dim")),
            ("price", build_price, ("price_units", "price_dense")),
        )
    } | {"volatility": trees}
    system.ensemble_ = {"vol_factor": 0.6, "size_factor": 0.7, "coverage": 0.9, "width": 1.3, "weights": [0.1, 0.2]}
    system.scaler_, system.counts_, system.results_ = rows.scaler, rows.counts, {"pair": "BTCUSDT"}
    system.fitted_ = fitted_facts(candles, "1h", rows.edges, rows.counts["labelled"])
    system.histories_, system.seconds_ = {}, {}
    return system


def attack(home, name, written=None, n=0, seed=0, twins=False):
    "Alter copies of a good model, n at random and some or all of those written by hand; prints a line each."
    from cryptolab.data.market import sample_market

    home.mkdir(parents=True, exist_ok=True)
    system, _, newest = name.partition("-")
    cls, good = good_model(home, system)
    cls = cls.for_newest() if newest else cls
    marker, altered = home.absolute() / f"marker-{name}", home / f"altered-{name}"
    candles = sample_market(n=1_500).iloc[-500:]
    foreign = sorted(good_model(home, system, 1)[1].glob("*.*")) if twins else []
    wanted = cls.load(good).forecast(candles)
    limit_memory()
    cases = list(written_cases(system, good, marker))
    if written is not None and written < len(cases):
        chosen = np.random.default_rng(seed).choice(len(cases), written, replace=False)
        cases = [cases[k] for k in sorted(chosen)]
    random = [(f"seed {s}", lambda f, s=s: alter(f, s, foreign)) for s in range(seed, seed + n)]
    for what, change in [*cases, *random]:
        shutil.rmtree(altered, ignore_errors=True)
        done = change(shutil.copytree(good, altered))
        text = f"{name} | {what} {done[:100] if isinstance(done, str) else ''}".replace("\n", " ")
        print(text, end=" | ", file=REPORT, flush=True)
        print(attempt(cls, altered, wanted, candles, marker), file=REPORT, flush=True)


def faults(lines):
    "Lines that tell of a fault."
    bad = []
    for line in lines:
        found = line.rsplit(" | ", 1)[-1].strip()
        fine = found == "same" if " same: " in line else found in ("same", "numbers", "refused")
        bad += [] if fine else [line]
    return bad


def in_a_process(folder, *wanted):
    "The lines of an attack in a process of its own, and how the process ended."
    done = subprocess.run(
        [sys.executable, __file__, str(folder), *map(str, wanted)], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return done.stdout.splitlines(), done.returncode, done.stderr[-2000:]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Where the good models lie, each fitted once."
    return tmp_path_factory.mktemp("hostile")


@pytest.mark.slow
def test_altered_folders_end_in_an_error_of_this_library(home):
    print(f"CRYPTOLAB_SEED={SEED}")
    wanted = [x for name, (written, n) in DAILY.items() for x in (name, n, written, SEED)]
    lines, code, errors = in_a_process(home, *wanted)
    assert code == 0, f"the interpreter ended with {code} at: {lines[-1:]}\n{errors}"
    assert not faults(lines)
    for name, numbers in DAILY.items():
        mine = [line for line in lines if line.startswith(f"{name} | ")]
        assert len(mine) == sum(numbers) and sum(line.endswith("refused") for line in mine) > len(mine) // 3


CLI = """
import sys
from pathlib import Path
from typer.testing import CliRunner
from cryptolab.cli.main import app
for folder in map(Path, sys.argv[1:]):
    done = CliRunner().invoke(app, ["predict", "BTCUSDT", "1h", "--source", "sample", "--model", str(folder)])
    ended = done.exception is None or isinstance(done.exception, SystemExit)
    print(folder.name, done.exit_code, ended, done.output.count("Traceback"), done.output.split()[0].strip(":"))
"""


def test_the_command_line_prints_an_error_and_no_traceback(home, tmp_path):
    "Folders whose manifest or model is hostile, one after another."
    _, good = good_model(home, "v2")
    cases = {what: change for what, change in written_cases("v2", good, tmp_path / "marker") if what in COMMANDED}
    assert set(cases) == set(COMMANDED)
    folders = []
    for number, change in enumerate(cases.values()):
        folders.append(shutil.copytree(good, tmp_path / f"case{number}"))
        change(folders[-1])
    done = subprocess.run(
        [sys.executable, "-c", CLI, good, *folders], capture_output=True, text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 1 + len(folders), done.stderr[-2000:]
    assert lines[0][1:4] == ["0", "True", "0"]
    assert all(line[1:] == ["1", "True", "0", "ModelError"] for line in lines[1:]), lines


COMMANDED = (
    "manifest: no files", "manifest: deep", "manifest: digits inside", "manifest: system ['v2']", "manifest: a list",
    "manifest: system {'a': 1}", "manifest: fitted without timeframe", "manifest: a file '../../etc/passwd'",
    "manifest: zeros", "pickle as v2.json", "deep v2.json", "text left_child=0 0 0 0 0 0", "missing v2.json",
)


def main(home):
    "The whole corpus: every written alteration and the first random ones of each system."
    total, bad = 0, []
    for name, n in WHOLE.items():
        lines, code, errors = in_a_process(home, name, n, 10**6, 0)
        wrong = faults(lines) + ([f"{name}: ended with {code} at {lines[-1:]}\n{errors}"] if code else [])
        print(*wrong, sep="\n", flush=True)
        kinds = {k: sum(line.endswith(f"| {k}") for line in lines) for k in ("refused", "numbers", "same")}
        print(f"{name}: {len(lines)} folders, {kinds}, {len(wrong)} faults", flush=True)
        total, bad = total + len(lines), bad + wrong
    print(f"{total} altered folders, {len(bad)} faults")
    return 1 if bad else 0


if __name__ == "__main__":
    if len(sys.argv) > 2:
        folder, *wanted = sys.argv[1:]
        REPORT = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what the libraries print themselves
        for k in range(0, len(wanted), 4):
            system, count, chosen, first = [*wanted[k : k + 4], "0", "0", "0"][:4]
            attack(Path(folder), system, int(chosen), int(count), int(first), twins=int(chosen) > 10_000)
    else:
        import tempfile

        with tempfile.TemporaryDirectory() as scratch:
            sys.exit(main(Path(scratch)))
