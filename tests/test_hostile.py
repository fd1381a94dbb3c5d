"""Model folders that somebody altered, with sums that fit: this library's own error or numbers, never a crash.

Each system is fitted and asked in a process of its own, because the fault looked for can end the interpreter.
"""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

KINDS = ("flip", "cut", "digit", "word", "empty", "swap")
WORDS = (b"null", b"-7", b"1e999", b'"x"', b"[" * 3000, b"9" * 5000)


def alter(folder, seed):
    "Change one file of a model folder, or exchange two; what was done."
    from cryptolab.systems.artefacts import write_manifest

    rng = np.random.default_rng(seed)
    files = sorted(p for p in folder.iterdir() if p.name != "training.log")
    (path, other), kind = rng.permutation(np.array(files, dtype=object))[:2], KINDS[rng.integers(len(KINDS))]
    data, at = bytearray(path.read_bytes()), int(rng.integers(path.stat().st_size))
    if kind == "flip":
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del data[at:]
    elif kind == "digit":
        digits = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
        data[digits[rng.integers(len(digits))]] = 48 + int(rng.integers(10))
    elif kind == "word":
        data[at:at] = WORDS[rng.integers(len(WORDS))]
    else:
        data = bytearray(other.read_bytes() if kind == "swap" else b"")
        if kind == "swap":
            other.write_bytes(path.read_bytes())
    path.write_bytes(bytes(data))
    if "manifest.json" not in (path.name, other.name if kind == "swap" else ""):
        facts = json.loads((folder / "manifest.json").read_text())
        write_manifest(folder, **{k: v for k, v in facts.items() if k not in ("files", "sha256")})
    return f"{seed} {kind} {path.name}"


def attack(home, name, n):
    "Fit a system, save it, and load n altered copies; prints a line each."
    from cryptolab.config import CryptolabError
    from cryptolab.data.market import sample_market
    from cryptolab.systems.registry import system_class

    candles, cls = sample_market(n=1_500), system_class(name)
    good = cls(profile="smoke").fit(candles, log=None).save(home / name)
    cls.load(good).forecast(candles.iloc[-500:])
    for seed in range(n):
        folder = home / "altered"
        shutil.rmtree(folder, ignore_errors=True)
        print(alter(shutil.copytree(good, folder), seed), end=" ", flush=True)
        try:
            cls.load(folder).forecast(candles.iloc[-500:])
            print("numbers", flush=True)
        except CryptolabError:
            print("refused", flush=True)
        except BaseException as e:
            print(f"RAW {type(e).__name__}: {e}", flush=True)


@pytest.mark.slow
@pytest.mark.parametrize("name, n", [("v2", 60), ("hybrid", 40)])
def test_altered_folders_end_in_an_error_of_this_library(tmp_path, name, n):
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), name, str(n)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"the interpreter ended with {done.returncode} at: {lines[-1:]}"
    assert len(lines) == n and not [line for line in lines if " RAW " in line]
    assert sum(line.endswith("refused") for line in lines) > n // 2


if __name__ == "__main__":
    attack(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
