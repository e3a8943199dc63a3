"""Services: what a strategy may ask for. All of them work without torch.

A strategy receives a :class:`TrainingServices` and asks it for simulations, rollouts, replay data,
evaluations and the promotion record; it never looks anything up by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.evaluation.service import EvaluationService
from townlet_training_core.evaluation.suite import suite_from_config
from townlet_training_core.promotion.manager import PromotionServiceAdapter
from townlet_training_core.registry import make_simulation
from townlet_training_core.replay.service import ReplayService
from townlet_training_core.rollout.service import RolloutCaptureService
from townlet_training_core.simulation.port import Simulation

__all__ = ["TrainingServices"]


@dataclass(frozen=True, slots=True)
class TrainingServices:
    """The services of one configuration."""

    replay: ReplayService
    rollout: RolloutCaptureService
    promotion: PromotionServiceAdapter
    evaluation: EvaluationService
    make_simulation: Callable[..., Simulation]
    """``make_simulation(num_envs=None)``: the configured simulation."""

    @classmethod
    def from_config(cls, config: TrainingConfig) -> TrainingServices:
        """Compose the services of a configuration; nothing is opened or made yet."""
        evaluation = config.evaluation

        def simulation(*, num_envs: int | None = None) -> Simulation:
            made: Simulation = make_simulation(config.simulation, num_envs=num_envs)
            return made

        return cls(
            replay=ReplayService(config),
            rollout=RolloutCaptureService(simulation),
            promotion=PromotionServiceAdapter(config.promotion),
            evaluation=EvaluationService(
                lambda choice, num_envs: make_simulation(choice, num_envs=num_envs),
                suite_from_config(config.simulation, evaluation),
                num_envs=evaluation.num_envs,
                confidence=evaluation.confidence,
                resamples=evaluation.resamples,
            ),
            make_simulation=simulation,
        )
