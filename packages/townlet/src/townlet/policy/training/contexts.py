"""What a strategy of the old entry points runs in, and what it leaves behind for the next call."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from townlet.policy.training.services import TrainingServices
from townlet_training_core.strategy import AnnealContext

__all__ = ["AnnealContext", "PPOState", "TrainerState", "TrainingContext"]


@dataclass
class PPOState:
    """Counters that go on from call to call."""

    step: int = 0
    learning_rate: float = 1e-3
    log_stream_offset: int = 0
    cycle_id: int = -1


@dataclass
class TrainerState:
    """Weights and optimiser, counters, guardrail baselines by dataset, the last cloning data."""

    ppo: PPOState = field(default_factory=PPOState)
    learner: Any = None
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    cloning: Any = None

    directory: Path | None = None

    def run_directory(self) -> Path:
        """Return the directory of this state's checkpoints; a temporary one, since no path was asked for."""
        if self.directory is None:
            self.directory = Path(tempfile.mkdtemp(prefix="townlet-run-"))
        return self.directory

    def require_learner(self, config: Any) -> Any:
        """Return the learner; make it when training begins (imports torch)."""
        if self.learner is None:
            from townlet_training_torch.legacy_ppo import ReplayLearner

            self.learner = ReplayLearner(seed=int(getattr(config, "seed", None) or 0))
        return self.learner


@dataclass
class TrainingContext:
    """Configuration, services and state of one orchestrator."""

    config: Any
    services: TrainingServices
    anneal_context: AnnealContext | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    state: TrainerState = field(default_factory=TrainerState)

    @classmethod
    def from_config(cls, config: Any) -> TrainingContext:
        """Compose the services of a configuration."""
        return cls(config=config, services=TrainingServices.from_config(config))
