"""Summaries of replay data under the keys that old callers read, and the data they mean by a path."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from townlet_training_core.errors import DataError, MissingFileError
from townlet_training_core.replay.dataset import ReplayDataset, ReplayDatasetConfig
from townlet_training_core.replay.npz import load_replay_sample
from townlet_training_core.replay.sample import ReplayBatch, build_batch

__all__ = ["DEFAULT_REPLAY_MANIFEST", "ReplayDatasetService"]

DEFAULT_REPLAY_MANIFEST = Path("docs/samples/replay_manifest.json")


class ReplayDatasetService:
    """Opens and summarises replay data."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def summarize_sample(self, sample_path: Path, meta_path: Path | None = None) -> dict[str, Any]:
        """Summarise one sample."""
        return self.summarize_batch_pairs([(sample_path, meta_path)])

    def summarize_batch_pairs(self, pairs: Iterable[tuple[Path, Path | None]]) -> dict[str, Any]:
        """Summarise samples as one batch."""
        return self.summarize_batch(build_batch([load_replay_sample(sample, meta) for sample, meta in pairs]))

    def summarize_batch(self, batch: ReplayBatch, batch_index: int = 1) -> dict[str, Any]:
        """Return ``batch``, ``batch_size``, ``feature_dim`` and the ``conflict.*`` numbers of a batch."""
        stats = {f"conflict.{name}": value for name, value in batch.conflict_stats().items()}
        size, width = int(batch.features.shape[0]), int(batch.features.shape[-1])
        return {"batch": batch_index, "batch_size": size, "feature_dim": width, **stats}

    def summarize_dataset(self, dataset: Iterable[ReplayBatch]) -> dict[str, Any]:
        """Return the summary of the last batch."""
        summary: dict[str, Any] = {}
        for number, batch in enumerate(dataset, start=1):
            summary = self.summarize_batch(batch, number)
        if not summary:
            msg = "Replay dataset yielded no batches"
            raise DataError(msg)
        return summary

    def resolve_manifest(self, manifest: Path | str | None = None) -> Path:
        """Return the manifest that is meant: the one given, the configured one, or the default one.

        Raises
        ------
        FileNotFoundError
            When it does not exist.
        """
        path = Path(manifest or self.config.training.replay_manifest or DEFAULT_REPLAY_MANIFEST)
        if not path.exists():
            msg = f"Replay manifest not found: {path}"
            raise MissingFileError(msg)
        return path

    def build_dataset(self, config: ReplayDatasetConfig | ReplayDataset | Path | str | None = None) -> ReplayDataset:
        """Open a dataset configuration, a manifest or a capture directory."""
        if isinstance(config, ReplayDataset):
            return config
        if not isinstance(config, ReplayDatasetConfig):
            path = self.resolve_manifest(config)
            make = ReplayDatasetConfig.from_capture_dir if path.is_dir() else ReplayDatasetConfig.from_manifest
            config = make(path)
        return ReplayDataset(config)
