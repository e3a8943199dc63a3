"""The replay service: one door to replay data, whatever it is stored in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.errors import ConfigurationError, DataError
from townlet_training_core.replay.dataset import InMemoryReplayDataset, ReplayDataset, ReplayDatasetConfig
from townlet_training_core.replay.npz import load_replay_sample
from townlet_training_core.replay.openers import as_url, open_transitions, replay_kind
from townlet_training_core.replay.sample import ReplayBatch, build_batch
from townlet_training_core.replay.transitions import TransitionDataset

__all__ = ["ReplayService", "summarize_batch", "summarize_dataset", "summarize_pairs"]


class ReplayService:
    """Resolves and opens replay data.

    Parameters
    ----------
    config:
        ``training.replay_manifest`` is what is meant where nothing is named.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config

    def resolve(self, source: Path | None = None) -> Path:
        """Return the path of the data that is meant: a store, manifest, capture directory or npz file.

        Raises
        ------
        ConfigurationError
            When nothing is named and the configuration names nothing.
        MissingFileError
            When it does not exist, or is a folder without replay data.
        """
        path = source if source is not None else self.config.training.replay_manifest
        if path is None:
            msg = "no replay data: name a manifest (--manifest) or set training.replay_manifest"
            raise ConfigurationError(msg)
        return replay_kind(Path(path))[1]

    def dataset(self, source: Path | None = None, *, batch_size: int = 1, streaming: bool = False) -> ReplayDataset:
        """Open a manifest or capture directory as batches of whole trajectories.

        Raises
        ------
        DataError
            When the data is a shard store, which has no files of single trajectories.
        """
        path = self.resolve(source)
        kind, _ = replay_kind(path)
        if kind in ("store", "curation"):
            what = "a shard store" if kind == "store" else "a curation of shard stores"
            msg = f"{str(path)!r} is {what}: open it by transitions(), or convert it to npz"
            raise DataError(msg)
        if kind == "npz":
            config = ReplayDatasetConfig([(path, None)], batch_size=batch_size, streaming=streaming, label=path.stem)
        elif source is not None and Path(source).is_dir():
            config = ReplayDatasetConfig.from_manifest(path, batch_size=batch_size, streaming=streaming)
            config.label = Path(source).name
        else:
            config = ReplayDatasetConfig.from_manifest(path, batch_size=batch_size, streaming=streaming)
        return ReplayDataset(config)

    def transitions(self, source: Path | str | None = None) -> TransitionDataset:
        """Open replay data as a table of single transitions; a shard store is mapped, whatever its size.

        A URL (``s3://...``) names a shard store behind fsspec.
        """
        if source is not None and as_url(source) is not None:
            return open_transitions(source)
        return open_transitions(self.resolve(None if source is None else Path(source)))


def summarize_batch(batch: ReplayBatch, batch_index: int = 1) -> dict[str, Any]:
    """Describe a batch: ``batch``, ``batch_size``, ``feature_dim`` and ``conflict.*``."""
    summary: dict[str, Any] = {
        "batch": batch_index,
        "batch_size": int(batch.features.shape[0]),
        "feature_dim": int(batch.features.shape[2]),
    }
    return summary | {f"conflict.{name}": value for name, value in batch.conflict_stats().items()}


def summarize_pairs(pairs: Iterable[tuple[Path, Path | None]]) -> dict[str, Any]:
    """Describe several files as one batch."""
    return summarize_batch(build_batch([load_replay_sample(sample, meta) for sample, meta in pairs]))


def summarize_dataset(dataset: ReplayDataset | InMemoryReplayDataset) -> dict[str, Any]:
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
