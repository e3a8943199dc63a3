"""The replay service: what a strategy or a command asks for when it wants data that exists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from townlet_training_core.errors import DataError, MissingFileError
from townlet_training_core.replay.dataset import InMemoryReplayDataset, ReplayDataset, ReplayDatasetConfig
from townlet_training_core.replay.npz import load_replay_sample
from townlet_training_core.replay.openers import open_transitions, replay_kind
from townlet_training_core.replay.sample import ReplayBatch, build_batch
from townlet_training_core.replay.transitions import TransitionDataset

__all__ = ["ReplayService", "summarize_batch"]


def summarize_batch(batch: ReplayBatch, batch_index: int = 1) -> dict[str, Any]:
    """Describe a batch: ``batch``, ``batch_size``, ``feature_dim`` and ``conflict.*``."""
    summary: dict[str, Any] = {
        "batch": batch_index,
        "batch_size": int(batch.features.shape[0]),
        "feature_dim": int(batch.features.shape[2]),
    }
    return summary | {f"conflict.{name}": value for name, value in batch.conflict_stats().items()}


@dataclass(frozen=True, slots=True)
class ReplayService:
    """Opens and describes replay data.

    Parameters
    ----------
    default_manifest:
        Taken where none is named.
    """

    default_manifest: Path | None = None

    def open(self, source: Path | str | None = None) -> TransitionDataset:
        """Open a store, manifest, capture directory, npz file or store URL as a table of transitions.

        Raises
        ------
        MissingFileError, DataError
            When there is nothing to open, or it is unsound.
        """
        if source is not None and "://" in str(source):
            return open_transitions(source)
        return open_transitions(self.resolve_manifest(source))

    def check(self, source: Path | str | None = None) -> None:
        """Check early that there is something to open; reads nothing but names."""
        if source is None or "://" not in str(source):
            replay_kind(self.resolve_manifest(source))

    def resolve_manifest(self, manifest: Path | str | None) -> Path:
        """Return the given path or the default.

        Raises
        ------
        MissingFileError
            When neither is given, or it does not exist.
        """
        path = self.default_manifest if manifest is None else Path(manifest)
        if path is None:
            msg = "no replay data is named: give a manifest, or set training.replay_manifest"
            raise MissingFileError(msg)
        if not path.exists():
            raise MissingFileError(str(path))
        return path

    def build_dataset(self, config: ReplayDatasetConfig | Path | str | None = None) -> ReplayDataset:
        """Build batches of whole trajectories from a configuration, a manifest or a capture directory."""
        if isinstance(config, ReplayDatasetConfig):
            return ReplayDataset(config)
        path = self.resolve_manifest(config)
        if path.is_dir():
            return ReplayDataset(ReplayDatasetConfig.from_capture_dir(path))
        return ReplayDataset(ReplayDatasetConfig.from_manifest(path))

    def summarize_sample(self, sample_path: Path, meta_path: Path | None = None) -> dict[str, Any]:
        """Describe one file."""
        return summarize_batch(build_batch([load_replay_sample(sample_path, meta_path)]))

    def summarize_batch_pairs(self, pairs: Iterable[tuple[Path, Path | None]]) -> dict[str, Any]:
        """Describe several files as one batch."""
        return summarize_batch(build_batch([load_replay_sample(sample, meta) for sample, meta in pairs]))

    def summarize_dataset(self, dataset: ReplayDataset | InMemoryReplayDataset) -> dict[str, Any]:
        """Describe the last batch of a dataset.

        Raises
        ------
        DataError
            When it yields no batch.
        """
        summary: dict[str, Any] | None = None
        for number, batch in enumerate(dataset, start=1):
            summary = summarize_batch(batch, number)
        if summary is None:
            msg = "Replay dataset yielded no batches"
            raise DataError(msg)
        return summary
