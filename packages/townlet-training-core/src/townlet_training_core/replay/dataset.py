"""Datasets of samples: batches of whole trajectories of one shape, from files or from memory.

For mini-batches of single transitions across trajectories, see
:mod:`~townlet_training_core.replay.transitions`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from townlet_training_core.errors import ConfigurationError, DataError, MissingFileError
from townlet_training_core.replay.manifest import load_manifest
from townlet_training_core.replay.metrics import aggregate_metrics
from townlet_training_core.replay.npz import (
    check_sample,
    load_replay_sample,
    read_metadata,
    read_npz_headers,
    sidecar,
)
from townlet_training_core.replay.sample import TRAINING_ARRAY_FIELDS, ReplayBatch, ReplaySample, build_batch
from townlet_training_core.streams import generator

__all__ = ["InMemoryReplayDataset", "InMemoryReplayDatasetConfig", "ReplayDataset", "ReplayDatasetConfig"]

_CAPTURE_MANIFEST = "rollout_sample_manifest.json"
_CAPTURE_METRICS = "rollout_sample_metrics.json"

Entry = TypeVar("Entry")


@dataclass
class ReplayDatasetConfig:
    """Which samples, and how they are batched.

    Parameters
    ----------
    entries:
        ``(sample, meta)`` paths; ``meta`` may be ``None`` for the same stem with ``.json``.
    batch_size:
        Samples of a batch.
    shuffle, seed:
        Draw a new order for every pass; the same seed draws the same orders.
    drop_last:
        Leave out batches that are not full.
    streaming:
        Keep nothing in memory: every pass reads each file once, one batch ahead.
    metrics_map:
        Metrics by file name of the sample.
    label:
        Name in reports.
    """

    entries: list[tuple[Path, Path | None]]
    batch_size: int = 1
    shuffle: bool = False
    seed: int | None = None
    drop_last: bool = False
    streaming: bool = False
    metrics_map: dict[str, dict[str, float]] | None = None
    label: str | None = None

    @classmethod
    def from_manifest(
        cls,
        manifest_path: Path,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        streaming: bool = False,
    ) -> ReplayDatasetConfig:
        """Take the accepted entries of a manifest; the label is its stem."""
        manifest = load_manifest(Path(manifest_path))
        metrics = {
            entry.sample.name: dict(entry.fields["metrics"])
            for entry in manifest.entries
            if isinstance(entry.fields.get("metrics"), Mapping)
        }
        return cls(
            entries=manifest.pairs(),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            streaming=streaming,
            metrics_map=metrics or None,
            label=Path(manifest_path).stem,
        )

    @classmethod
    def from_capture_dir(
        cls,
        capture_dir: Path,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        streaming: bool = False,
    ) -> ReplayDatasetConfig:
        """Take a capture directory with its manifest and metrics; the label is its name."""
        capture_dir = Path(capture_dir)
        manifest = capture_dir / _CAPTURE_MANIFEST
        if not manifest.is_file():
            msg = f"capture directory {str(capture_dir)!r} has no {_CAPTURE_MANIFEST}"
            raise MissingFileError(msg)
        config = cls.from_manifest(manifest, batch_size, shuffle, seed, drop_last, streaming)
        metrics = capture_dir / _CAPTURE_METRICS
        if metrics.is_file():
            config.metrics_map = _read_metrics(metrics)
        config.label = capture_dir.name
        return config


def _read_metrics(path: Path) -> dict[str, dict[str, float]]:
    try:
        payload = json.loads(path.read_bytes())
    except ValueError as error:
        msg = f"metrics file {str(path)!r} is not valid JSON: {error}"
        raise DataError(msg) from error
    rows = payload.get("samples", payload) if isinstance(payload, Mapping) else None
    if not isinstance(rows, Mapping):
        msg = f"metrics file {str(path)!r}: expected a mapping of sample names to metrics"
        raise DataError(msg)
    return {str(name): dict(row) for name, row in rows.items() if isinstance(row, Mapping)}


@dataclass(frozen=True, slots=True)
class _File:
    """A sample on disk that was found to be sound by its headers."""

    path: Path
    meta: Path
    signature: tuple[tuple[int, ...], ...]
    metrics: Mapping[str, Any]


class ReplayDataset:
    """Batches of samples on disk; a batch holds samples of one shape.

    Headers and metadata of every file are checked at construction; data is read on the first pass (and kept), or
    on every pass when streaming.

    Raises
    ------
    ConfigurationError
        When ``batch_size`` is not positive.
    DataError
        When a file is missing or unsound, or there is none.
    """

    def __init__(self, config: ReplayDatasetConfig) -> None:
        if config.batch_size <= 0:
            msg = f"batch_size must be positive, not {config.batch_size!r}"
            raise ConfigurationError(msg)
        if not config.entries:
            msg = "Replay dataset contains no entries"
            raise DataError(msg)
        self.config = config
        self.label = config.label
        self.metrics_map: dict[str, dict[str, float]] = config.metrics_map or {}
        self._files = [self._examine(Path(sample), meta) for sample, meta in config.entries]
        self.baseline_metrics = aggregate_metrics(file.metrics for file in self._files)
        self._cache: dict[int, ReplaySample] = {}
        self._buckets: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for index, file in enumerate(self._files):
            self._buckets.setdefault(file.signature, []).append(index)
        self._seed = config.seed if config.seed is not None else int(np.random.SeedSequence().entropy or 0)  # type: ignore[arg-type]  # a plain int here
        self._epoch, self._batch = 0, 0

    def _examine(self, path: Path, meta_path: Path | None) -> _File:
        meta = Path(meta_path) if meta_path is not None else sidecar(path)
        headers, metadata = read_npz_headers(path), read_metadata(meta)
        check_sample(headers, metadata, path=path, require_conflict_features=None)
        signature = tuple(headers[name][0] for name in ("map", "features", *TRAINING_ARRAY_FIELDS))
        metrics = self.metrics_map.get(path.name) or metadata.get("metrics") or {}
        return _File(path, meta, signature, metrics if isinstance(metrics, Mapping) else {})

    def __len__(self) -> int:
        return sum(len(_chunks(bucket, self.config)) for bucket in self._buckets.values())

    @property
    def position(self) -> dict[str, int]:
        """Pass and batch that come next; give it to :meth:`seek` to go on there."""
        return {"epoch": self._epoch, "batch": self._batch, "seed": self._seed}

    def seek(self, position: Mapping[str, int]) -> None:
        """Go on from a saved :attr:`position` at the next iteration."""
        self._epoch, self._batch, self._seed = position["epoch"], position["batch"], position["seed"]

    def __iter__(self) -> Iterator[ReplayBatch]:
        batches = self._plan(self._epoch)
        begin, self._batch = min(self._batch, len(batches)), 0
        rest = batches[begin:]
        source = self._ahead(rest) if self.config.streaming else map(self._load_batch, rest)
        for number, batch in enumerate(source, start=begin + 1):
            self._batch = number
            if number == len(batches):
                self._epoch, self._batch = self._epoch + 1, 0
            yield batch

    def _plan(self, epoch: int) -> list[list[int]]:
        """Return the batches of a pass as indices of files."""
        if not self.config.shuffle:
            return [chunk for bucket in self._buckets.values() for chunk in _chunks(bucket, self.config)]
        stream = generator(self._seed, "replay", epoch)
        batches = [
            chunk
            for bucket in self._buckets.values()
            for chunk in _chunks([bucket[index] for index in stream.permutation(len(bucket))], self.config)
        ]
        return [batches[index] for index in stream.permutation(len(batches))]

    def _ahead(self, batches: list[list[int]]) -> Iterator[ReplayBatch]:
        """Load one batch ahead in a thread of its own."""
        with ThreadPoolExecutor(1, thread_name_prefix="replay-prefetch") as pool:
            waiting = [pool.submit(self._load_batch, batch) for batch in batches[:1]]
            for batch in batches[1:]:
                ready = waiting.pop()
                loaded = ready.result()
                waiting.append(pool.submit(self._load_batch, batch))
                yield loaded
            for last in waiting:
                yield last.result()

    def _load_batch(self, indices: Sequence[int]) -> ReplayBatch:
        return build_batch([self._load(index) for index in indices])

    def _load(self, index: int) -> ReplaySample:
        if index in self._cache:
            return self._cache[index]
        file = self._files[index]
        sample = load_replay_sample(file.path, file.meta)
        if file.metrics:
            sample.metadata.setdefault("metrics", dict(file.metrics))
        if not self.config.streaming:
            self._cache[index] = sample
        return sample

    def samples(self) -> Iterator[ReplaySample]:
        """Yield every sample once, in the order of the entries."""
        for index in range(len(self._files)):
            yield self._load(index)


def _chunks(items: Sequence[Entry], config: ReplayDatasetConfig | InMemoryReplayDatasetConfig) -> list[list[Entry]]:
    size = config.batch_size
    end = len(items) - len(items) % size if config.drop_last else len(items)
    return [list(items[start : min(start + size, end)]) for start in range(0, end, size)]


@dataclass
class InMemoryReplayDatasetConfig:
    """Samples that are already in memory, and how they are batched."""

    entries: Sequence[ReplaySample]
    batch_size: int = 1
    drop_last: bool = False
    rollout_ticks: int = 0
    label: str | None = None


@dataclass(init=False)
class InMemoryReplayDataset:
    """Batches of samples in memory, with the event counts of the rollout that they come from.

    Raises
    ------
    DataError
        When there are no samples.
    ConfigurationError
        When ``batch_size`` is not positive.
    """

    config: InMemoryReplayDatasetConfig
    samples: list[ReplaySample]
    rollout_ticks: int
    label: str | None
    baseline_metrics: dict[str, float] = field(default_factory=dict)
    queue_conflict_count: float = 0.0
    queue_conflict_intensity_sum: float = 0.0
    shared_meal_count: float = 0.0
    late_help_count: float = 0.0
    shift_takeover_count: float = 0.0
    chat_success_count: float = 0.0
    chat_failure_count: float = 0.0
    chat_quality_mean: float = 0.0

    def __init__(self, config: InMemoryReplayDatasetConfig) -> None:
        if not config.entries:
            msg = "In-memory dataset requires samples"
            raise DataError(msg)
        if config.batch_size <= 0:
            msg = f"batch_size must be positive, not {config.batch_size!r}"
            raise ConfigurationError(msg)
        self.config = config
        self.samples = list(config.entries)
        self.rollout_ticks = config.rollout_ticks
        self.label = config.label
        self.baseline_metrics = {}

    def _batches(self) -> list[list[ReplaySample]]:
        buckets: dict[tuple[tuple[int, ...], ...], list[ReplaySample]] = {}
        for sample in self.samples:
            names = ("map", "features", *TRAINING_ARRAY_FIELDS)
            buckets.setdefault(tuple(getattr(sample, name).shape for name in names), []).append(sample)
        return [chunk for bucket in buckets.values() for chunk in _chunks(bucket, self.config)]

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[ReplayBatch]:
        for batch in self._batches():
            yield build_batch(batch)
