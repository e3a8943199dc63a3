"""A strategy of your own: random search over linear policies, in the orchestrator; no torch.

The orchestrator gives it a run directory, telemetry and named random streams, and writes its typed result.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from townlet_training_core import TrainingOrchestrator, load_config
from townlet_training_core.arrays import BoolArray, FloatArray, Observations
from townlet_training_core.config.requests import TrainingRequest
from townlet_training_core.dto.results import TrainingResultBase
from townlet_training_core.policy.port import ActionStep, UniformSource
from townlet_training_core.simulation.port import Simulation
from townlet_training_core.strategy import PreparationContext, TrainingContext


class LinearPolicy:
    """Takes the action whose weighted sum of features is largest."""

    name = "linear"

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights = weights

    def bind(self, simulation: Simulation) -> None:
        """Nothing is taken from the simulation."""

    def act(self, observations: Observations, rng: UniformSource, *, greedy: bool = False) -> ActionStep:
        """Score every action, (S, F) times (F, A)."""
        return ActionStep(actions=np.argmax(observations["features"] @ self.weights, axis=1).astype(np.int64))

    def values(self, observations: Observations) -> FloatArray | None:
        """It values nothing."""
        return None

    def reset(self, ended: BoolArray | None = None) -> None:
        """It remembers nothing."""

    def content_hash(self) -> str:
        """Its weights."""
        return self.weights.tobytes().hex()


class SearchRequest(TrainingRequest):
    """What can be asked of the search: a keyword of ``run``, or ``--request tries=20``."""

    tries: int = Field(10, ge=1, description="Policies drawn.")


class SearchResult(TrainingResultBase):
    """What was found."""

    best_return: float = Field(description="Mean return of the best policy.")
    first_return: float = Field(description="Mean return of the first one drawn.")


class RandomSearch:
    """Draws linear policies and keeps the best."""

    name: ClassVar[str] = "random_search"
    requires_torch: ClassVar[bool] = False
    request_type: ClassVar[type[TrainingRequest]] = SearchRequest

    def prepare(self, context: PreparationContext, request: SearchRequest) -> None:
        """Check what can fail before a run directory is made: here, that the simulation has features."""
        simulation = context.services.make_simulation(num_envs=1)
        assert "features" in simulation.spec.observations
        simulation.close()

    def run(self, context: TrainingContext, request: SearchRequest) -> SearchResult:
        """Draw, evaluate, keep."""
        spec = context.services.evaluation.simulation.spec
        shape = (spec.observations["features"].shape[0], len(spec.action_names))
        stream, returns = context.stream("weights"), list[float]()
        for number in range(request.tries):
            policy = LinearPolicy(stream.normal(size=shape))
            result = context.services.evaluation.evaluate(policy, label=f"try {number}")
            returns.append(result.summary.mean.estimate)
            context.telemetry.log("search", {"try": number, "mean_return": returns[-1]})
        return SearchResult(best_return=max(returns), first_return=returns[0], run_id=context.run.run_id)


def main() -> None:
    """Search for ten tries on CartPole."""
    config = load_config(
        overrides=[
            "simulation.name=gymnasium",
            "simulation.options.env=CartPole-v1",
            "evaluation.episodes=8",
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        result = TrainingOrchestrator(config, runs_dir=Path(folder)).run(RandomSearch(), tries=10)
        assert isinstance(result, SearchResult)
        print(f"first {result.first_return:.1f}, best of ten {result.best_return:.1f}; run {result.run_id}")


if __name__ == "__main__":
    main()
