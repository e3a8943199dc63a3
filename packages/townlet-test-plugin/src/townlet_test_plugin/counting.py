"""A strategy that counts rewards of random play: no torch, no weights."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from townlet_training_core.config.requests import TrainingRequest
from townlet_training_core.dto.results import TrainingResultBase
from townlet_training_core.policy.random import RandomPolicy
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.strategy import PreparationContext, TrainingContext

__all__ = ["CountingRequest", "CountingResult", "CountingStrategy"]


class CountingRequest(TrainingRequest):
    """How long to count."""

    steps: int = Field(16, ge=1, description="Steps of every slot.")


class CountingResult(TrainingResultBase):
    """What was counted."""

    transitions: int = Field(description="Transitions seen.")
    reward_sum: float = Field(description="Sum of their rewards.")


class CountingStrategy:
    """Counts transitions and rewards under random play."""

    name: ClassVar[str] = "counting"
    requires_torch: ClassVar[bool] = False
    request_type: ClassVar[type[TrainingRequest]] = CountingRequest

    def prepare(self, context: PreparationContext, request: CountingRequest) -> None:
        """Nothing can fail early but the simulation's options."""
        del request
        context.services.make_simulation(num_envs=1).close()

    def run(self, context: TrainingContext, request: CountingRequest) -> CountingResult:
        """Collect one rollout and count."""
        simulation = context.services.make_simulation()
        collector = RolloutCollector(simulation, RandomPolicy(), steps=request.steps, seed=context.config.seed)
        rollout = collector.collect()
        simulation.close()
        reward = float(rollout.rewards[rollout.valid].sum())
        context.telemetry.log("counting", {"reward_sum": reward})
        return CountingResult(transitions=rollout.transitions, reward_sum=reward, run_id=context.run.run_id)
