"""Fuzzing of every loader: whatever bytes it is given, nothing but the typed errors comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from townlet_training_core.errors import DataError
from townlet_training_core.replay.convert import samples_from_transitions
from townlet_training_core.replay.manifest import load_manifest
from townlet_training_core.replay.npz import load_replay_sample, read_npz, read_npz_headers, save_replay_sample
from townlet_training_core.replay.openers import convert
from townlet_training_core.replay.sample import ReplaySample
from townlet_training_core.replay.shards import STORE_FILE, ShardStore
from townlet_training_core.replay.tensorfile import map_tensors
from townlet_training_core.telemetry.jsonl import read_jsonl

ROUNDS = pytest.mark.parametrize(
    "rounds", [300, pytest.param(50_000, marks=[pytest.mark.deep, pytest.mark.timeout(1800)])]
)


def sample() -> ReplaySample:
    return ReplaySample(
        map=np.ones((2, 1, 2, 2), np.float32),
        features=np.ones((2, 2), np.float32),
        actions=np.array([0, 1]),
        old_log_probs=np.full(2, -1, np.float32),
        value_preds=np.ones(3, np.float32),
        rewards=np.ones(2, np.float32),
        dones=np.array([False, True]),
        metadata={"feature_names": ["rivalry_max", "rivalry_avoid_count"], "action_dim": 2},
    )


def mutations(seeds: list[bytes], rounds: int, *, tokens: list[bytes]) -> list[bytes]:
    """Flip, cut, repeat, swap and splice; the same inputs on every run."""
    rng = np.random.default_rng(20261123)
    made = []
    for _ in range(rounds):
        payload = bytearray(seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 5)):
            kind, at = rng.integers(6), int(rng.integers(len(payload) + 1))
            span = int(rng.integers(1, 9))
            if kind == 0 and payload:
                payload[min(at, len(payload) - 1)] = int(rng.integers(256))
            elif kind == 1:
                del payload[at : at + span]
            elif kind == 2:
                payload[at:at] = payload[at : at + span]
            elif kind == 3:
                payload[at : at + span] = tokens[rng.integers(len(tokens))]
            elif kind == 4 and rng.random() < 0.2:
                del payload[at:]
            elif payload:
                payload[min(at, len(payload) - 1)] ^= 1 << int(rng.integers(8))
        made.append(bytes(payload))
    return made


def fuzz(path: Path, payloads: list[bytes], load: Callable[[], object]) -> int:
    """Return how many inputs were refused; anything but a DataError fails the test."""
    refused = 0
    for payload in payloads:
        path.write_bytes(payload)
        try:
            load()
        except DataError:
            refused += 1
        except Exception as error:
            msg = f"{type(error).__name__} for {payload!r}"
            raise AssertionError(msg) from error
    return refused


JSON_TOKENS = [
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"1e999",
    b"-1",
    b"NaN",
    b'"\\ud800"',
    b"\xff",
    b"[" * 2000,
    b"true",
    b'"../x"',
]
NPY_TOKENS = [
    b"|O",
    b"<f8",
    b"(0,)",
    b"(-1,)",
    b"9" * 18,
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"True",
    b"<U9",
    b"<c8",
]


@ROUNDS
def test_npz(tmp_path: Path, rounds: int) -> None:
    path = tmp_path / "a.npz"
    seeds = []
    for compress in (True, False):
        save_replay_sample(sample(), path, compress=compress)
        seeds.append(path.read_bytes())

    def load() -> None:
        read_npz_headers(path)
        load_replay_sample(path)
        read_npz(path)

    assert fuzz(path, mutations(seeds, rounds, tokens=NPY_TOKENS), load) > rounds // 2


@ROUNDS
def test_sidecar(tmp_path: Path, rounds: int) -> None:
    path = tmp_path / "a.npz"
    save_replay_sample(sample(), path, compress=False)
    seed = (tmp_path / "a.json").read_bytes()
    payloads = mutations([seed], rounds, tokens=JSON_TOKENS)
    assert fuzz(tmp_path / "a.json", payloads, lambda: load_replay_sample(path)) > rounds // 4


@ROUNDS
@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_manifest(tmp_path: Path, rounds: int, suffix: str) -> None:
    save_replay_sample(sample(), tmp_path / "a.npz", compress=False)
    texts = [
        b'["a.npz", {"sample": "a.npz", "meta": "a.json", "accepted": false}]',
        b'{"metadata": {"seed": 1}, "samples": [{"sample": "a.npz", "metrics": {"x": 1.5}}]}',
    ]
    if suffix == ".yaml":
        texts.append(b"samples:\n- a.npz\n- sample: a.npz\n  meta: a.json\n")
    path = tmp_path / f"m{suffix}"
    payloads = mutations(texts, rounds, tokens=[*JSON_TOKENS, b"&a", b"*a", b"!!python/object:os.system", b"\t", b": "])
    assert fuzz(path, payloads, lambda: load_manifest(path)) > rounds // 4


@ROUNDS
def test_shard(tmp_path: Path, rounds: int) -> None:
    save_replay_sample(sample(), tmp_path / "a.npz", compress=False)
    convert(tmp_path / "a.npz", tmp_path / "store", to="shards")
    path = tmp_path / "store" / "shard-00000.safetensors"
    seed = path.read_bytes()
    tokens = [*JSON_TOKENS, b"F64", b"BOOL", b"I8", b'"shape":[', b"99999999999999", b"\x00" * 8]

    def load() -> None:
        map_tensors(path)
        index = json.loads((tmp_path / "store" / STORE_FILE).read_text())
        index["shards"][0]["bytes"] = path.stat().st_size
        store = ShardStore(tmp_path / "store", index)
        store.gather(np.arange(len(store)))
        list(samples_from_transitions(store))

    # Mutate the header half of the time: the bytes of the arrays may be anything.
    length = 8 + int.from_bytes(seed[:8], "little")
    payloads = [head + seed[length:] for head in mutations([seed[:length]], rounds // 2, tokens=tokens)] + mutations(
        [seed], rounds - rounds // 2, tokens=tokens
    )
    assert fuzz(path, payloads, load) > rounds // 4


@ROUNDS
def test_store_index(tmp_path: Path, rounds: int) -> None:
    save_replay_sample(sample(), tmp_path / "a.npz", compress=False)
    convert(tmp_path / "a.npz", tmp_path / "store", to="shards")
    path = tmp_path / "store" / STORE_FILE

    def load() -> None:
        store = ShardStore.open(tmp_path / "store")
        if len(store) < 100:
            store.gather(np.arange(len(store)))

    payloads = mutations([path.read_bytes()], rounds, tokens=[*JSON_TOKENS, b"float32", b"object", b"99999999999999"])
    assert fuzz(path, payloads, load) > rounds // 4


@ROUNDS
def test_log(tmp_path: Path, rounds: int) -> None:
    path = tmp_path / "log.jsonl"
    payloads = mutations([b'{"kind": "a", "x": 1.5}\n{"kind": "b"}\n'], rounds, tokens=[*JSON_TOKENS, b"\n"])
    assert fuzz(path, payloads, lambda: list(read_jsonl(path))) > rounds // 8
