"""Capture, shard store, npz and manifests; writes results/data.json.

The data is the town's own: two gigabytes of it are captured once into a temporary folder, with pre-drawn actions.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _results import Report, alternate, median
from numpy.typing import NDArray

from townlet_sim import make_simulation
from townlet_training_core.arrays import BoolArray, FloatArray, IntArray, Observations
from townlet_training_core.policy.port import ActionStep, UniformSource
from townlet_training_core.replay.convert import samples_from_transitions
from townlet_training_core.replay.dataset import ReplayDataset, ReplayDatasetConfig
from townlet_training_core.replay.manifest import write_manifest
from townlet_training_core.replay.minibatches import MiniBatches
from townlet_training_core.replay.npz import save_replay_sample
from townlet_training_core.replay.shards import ShardStore
from townlet_training_core.replay.shardwriter import ShardWriter
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import Transitions, transitions_from_rollout
from townlet_training_core.rollout.buffer import RolloutBuffer
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.simulation.port import Simulation

ENVS, STEPS, BATCH = 256, 128, 4096


class Drawn:
    """Plays pre-drawn actions: what is left is stepping and keeping."""

    name = "drawn"

    def __init__(self, actions: IntArray) -> None:
        self._steps = [ActionStep(actions=row) for row in actions]
        self._next = 0

    def bind(self, simulation: Simulation) -> None: ...

    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        del observations, rng, greedy
        step = self._steps[self._next % len(self._steps)]
        self._next += 1
        return step

    def values(self, observations: Observations) -> FloatArray | None:
        del observations
        return None

    def reset(self, ended: BoolArray | None = None) -> None: ...

    def content_hash(self) -> str:
        return "drawn"


def town(threads: int) -> tuple[Simulation, IntArray]:
    simulation: Simulation = make_simulation(ENVS, {"episode_ticks": 1000}, threads=threads)
    slots = ENVS * simulation.spec.agents_per_env
    rng = np.random.default_rng(0)
    return simulation, rng.integers(len(simulation.spec.action_names), size=(STEPS, slots))


def capture(report: Report) -> None:
    """Columnar capture against stepping that writes the same rolling rows with the same actions."""
    for threads in (1, 2):
        compare_capture(report, threads)


def compare_capture(report: Report, threads: int) -> None:
    """Measure for a number of the town's threads."""
    bare, actions = town(threads)
    buffer = RolloutBuffer(bare.spec, steps=STEPS)
    bare.reset(seed=0, out=buffer.rows[-1])

    def step() -> None:
        buffer.begin(STEPS)
        for row, chosen in zip(buffer.rows[1:], actions, strict=True):
            bare.step(chosen, row)

    kept, _ = town(threads)
    collector = RolloutCollector(kept, Drawn(actions), steps=STEPS, seed=0)
    stepping, capturing = alternate([step, collector.collect], repeats=31, warm_up=2)
    count = actions.size
    report.add(
        f"capture.time.{threads}_thread{'s' if threads > 1 else ''}",
        value=capturing / count * 1e9,
        unit="ns/agent-step",
        peer="bare stepping into the same rows",
        peer_value=stepping / count * 1e9,
        bound=1.15,
        better="lower",
        note=f"{ENVS} towns, {STEPS} steps, {count / capturing / 1e6:.2f} M agent-steps/s captured",
    )


def blocks() -> Iterator[Transitions]:
    """Yield captured town data for ever."""
    simulation, actions = town(2)
    collector = RolloutCollector(simulation, Drawn(actions), steps=STEPS, seed=1, keep_final=True)
    spec = DataSpec.from_simulation(simulation.spec)
    while True:
        yield transitions_from_rollout(collector.collect(), spec, final=collector.buffer.observations_after)


def logical(block: Transitions) -> int:
    return sum(column.nbytes for column in block.data.values())


def write(report: Report, folder: Path, size: int) -> Path:
    """Write the store; only the writing is timed, the captured block is in memory by then."""
    spent, written, rows = 0.0, 0, 0
    writer: ShardWriter | None = None
    for block in blocks():
        writer = writer or ShardWriter(folder / "store", block.spec)
        start = time.perf_counter()
        writer.add(block)
        writer.seal()
        spent += time.perf_counter() - start
        written += logical(block)
        rows += len(block)
        if written >= size:
            break
    assert writer is not None
    start = time.perf_counter()
    writer.close()
    spent += time.perf_counter() - start
    report.add(
        "store.write",
        value=written / spent / 1e6,
        unit="MB/s of logical data",
        bound=200.0,
        note=f"{written / 1e9:.2f} GB, {rows:,} transitions, checksums and flushing to disk included",
    )
    return folder / "store"


def raw_columns(store: ShardStore, folder: Path) -> dict[str, NDArray[Any]]:
    """Copy the store into one plain file per column, memory-mapped: what cannot be beaten by much."""
    folder.mkdir()
    columns: dict[str, NDArray[Any]] = {}
    for name, spec in store.column_specs.items():
        path = folder / f"{name}.bin"
        dtype = store.gather(np.array([0]), [name])[name].dtype
        with path.open("wb") as stream:
            for block in store.blocks():
                stream.write(np.ascontiguousarray(block.data[name]).tobytes())
        mapped = np.memmap(path, dtype, "r", shape=(len(store), *spec.shape))
        columns[name] = np.frombuffer(mapped, dtype).reshape(mapped.shape)  # a plain view, without memmap's overhead
    return columns


def npz_files(store: ShardStore, folder: Path, *, files: int) -> list[Path]:
    """Write some of the trajectories as uncompressed npz files."""
    folder.mkdir()
    paths = []
    for number, sample in enumerate(samples_from_transitions(store, range(files))):
        path = folder / f"{number}.npz"
        save_replay_sample(sample, path, compress=False)
        paths.append(path)
    return paths


def read(report: Report, folder: Path, path: Path, batches: int) -> None:
    """Random mini-batches from the store, the raw map and npz files, warm."""
    store = ShardStore.open(path)
    raw = raw_columns(store, folder / "raw")
    paths = npz_files(store, folder / "npz", files=800)
    drawn = MiniBatches(store, batch_size=BATCH, seed=0)
    batches = min(batches, len(store) // BATCH)
    order = drawn.order(0)[: batches * BATCH].reshape(batches, BATCH)
    order.sort(axis=1)
    rng = np.random.default_rng(0)
    lengths = np.diff(store.offsets)[: len(paths)]

    def from_store() -> None:
        for indices in order:
            store.gather(indices)

    def from_raw() -> None:
        for indices in order:
            for column in raw.values():
                np.take(column, indices, axis=0)

    loaded: list[int] = []

    def from_npz() -> None:
        rows = 0
        for _ in range(8):
            held = 0
            while held < BATCH:  # whole trajectories: generous to npz, whose rows cannot be had one by one
                number = int(rng.integers(len(paths)))
                with np.load(paths[number], allow_pickle=False) as archive:
                    for name in archive.files:
                        _ = archive[name]
                held += int(lengths[number])
            rows += held
        loaded.append(rows)

    store_time, raw_time, npz_time = alternate([from_store, from_raw, from_npz], repeats=5, warm_up=1)
    rate = order.size / store_time
    note = f"mini-batches of {BATCH}, all columns, {len(store):,} transitions in {len(store.shards)} shards, warm cache"
    report.add(
        "store.random_batches",
        value=rate,
        unit="transitions/s",
        peer="raw memory map",
        peer_value=order.size / raw_time,
        bound=0.5,
        note=note,
    )
    report.add(
        "store.random_batches_against_npz",
        value=rate,
        unit="transitions/s",
        peer="npz files, whole trajectories, uncompressed",
        peer_value=float(np.median(loaded)) / npz_time,
        bound=5.0,
    )
    dropped = 0
    for shard in store.shards:
        handle = os.open(path / shard.file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
        dropped += shard.bytes
    cold = ShardStore.open(path)
    start = time.perf_counter()
    for indices in order[:20]:
        cold.gather(indices)
    report.add(
        "store.random_batches_cold",
        value=20 * BATCH / (time.perf_counter() - start),
        unit="transitions/s",
        note=f"after asking the system to drop {dropped / 1e9:.1f} GB from its cache; mapped pages may stay",
    )


_ANONYMOUS = """
import sys
import numpy as np
from pathlib import Path
from townlet_training_core.replay.minibatches import MiniBatches
from townlet_training_core.replay.shards import ShardStore

store = ShardStore.open(Path(sys.argv[1]))
peak = 0
for number, batch in enumerate(MiniBatches(store, batch_size=4096, seed=0).epoch(0)):
    if number % 20 == 0:
        text = Path("/proc/self/status").read_text()
        peak = max(peak, int(text.split("RssAnon:")[1].split()[0]))
print(peak)
"""


def memory(report: Report, path: Path) -> None:
    """Anonymous memory of a process that reads a whole epoch in random order."""
    told = subprocess.run([sys.executable, "-c", _ANONYMOUS, str(path)], check=True, capture_output=True, text=True)
    report.add(
        "store.anonymous_memory",
        value=int(told.stdout) / 1024,
        unit="MiB",
        bound=500.0,
        better="lower",
        note="peak RssAnon over one epoch of random mini-batches, a process of its own",
    )


def manifest(report: Report, folder: Path) -> None:
    """Open a manifest of 1,000 files."""
    target = folder / "many"
    target.mkdir()
    block = next(blocks())
    samples = samples_from_transitions(block, range(1000))
    names = []
    for number, sample in enumerate(samples):
        names.append({"sample": f"{number}.npz"})
        save_replay_sample(sample, target / f"{number}.npz", compress=False)
    write_manifest(target / "m.json", names)

    def open_all() -> float:
        start = time.perf_counter()
        ReplayDataset(ReplayDatasetConfig.from_manifest(target / "m.json", streaming=True))
        return time.perf_counter() - start

    report.add(
        "manifest.open_1000_files",
        value=median(open_all, repeats=5),
        unit="s",
        bound=1.0,
        better="lower",
        note="headers and metadata of every file checked",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="logical size of the store")
    parser.add_argument("--only", choices=["capture", "store", "manifest"], help="measure one part, write nothing")
    arguments = parser.parse_args()
    report = Report("data", threads=2)
    jobs: dict[str, Callable[[Path], None]] = {
        "capture": lambda _: capture(report),
        "store": lambda folder: store(report, folder, int(arguments.gigabytes * 1e9)),
        "manifest": lambda folder: manifest(report, folder),
    }
    with tempfile.TemporaryDirectory(prefix="townlet-bench-") as name:
        for job, run in jobs.items():
            if arguments.only in (None, job):
                run(Path(name))
    if arguments.only is None:
        print(json.dumps({"written": str(report.write())}))


def store(report: Report, folder: Path, size: int) -> None:
    path = write(report, folder, size)
    memory(report, path)
    read(report, folder, path, batches=100)


if __name__ == "__main__":
    main()
