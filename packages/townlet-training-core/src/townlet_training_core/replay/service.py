"""The replay service: one door to replay data, whatever it is stored in."""

from __future__ import annotations

from pathlib import Path

from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.errors import ConfigurationError, DataError
from townlet_training_core.replay.convert import transitions_from_samples
from townlet_training_core.replay.dataset import ReplayDataset, ReplayDatasetConfig
from townlet_training_core.replay.transitions import TransitionDataset

__all__ = ["ReplayService"]


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
        """Return the path of the data that is meant.

        Raises
        ------
        ConfigurationError
            When nothing is named and the configuration names nothing.
        DataError
            When it does not exist.
        """
        path = source if source is not None else self.config.training.replay_manifest
        if path is None:
            msg = "no replay data: name a manifest (--manifest) or set training.replay_manifest"
            raise ConfigurationError(msg)
        if not path.exists():
            msg = f"replay data {str(path)!r} does not exist"
            raise DataError(msg)
        return path

    def dataset(self, source: Path | None = None, *, batch_size: int = 1, streaming: bool = False) -> ReplayDataset:
        """Open a manifest or capture directory as batches of samples."""
        path = self.resolve(source)
        make = ReplayDatasetConfig.from_capture_dir if path.is_dir() else ReplayDatasetConfig.from_manifest
        return ReplayDataset(make(path, batch_size=batch_size, streaming=streaming))

    def transitions(self, source: Path | None = None) -> TransitionDataset:
        """Open replay data as a table of single transitions."""
        path = self.resolve(source)
        dataset = self.dataset(path)
        return transitions_from_samples(dataset.samples(), label=dataset.config.label or path.stem)
