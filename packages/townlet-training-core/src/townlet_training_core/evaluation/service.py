"""The evaluation service: makes the simulation, plays the suite, remembers what was played."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from townlet_training_core.config.models import SimulationChoice, TrainingConfig
from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite
from townlet_training_core.errors import ArtifactError
from townlet_training_core.evaluation.suite import evaluate_policy, merge_results, suite_from_config
from townlet_training_core.files import atomic_write_text
from townlet_training_core.policy.port import Policy
from townlet_training_core.registry import make_simulation
from townlet_training_core.simulation.port import Simulation

__all__ = ["EvaluationService", "MakeSimulation", "read_result"]


class MakeSimulation(Protocol):
    """Makes the chosen simulation with so many environments (``registry.make_simulation``)."""

    def __call__(self, choice: SimulationChoice, /, *, num_envs: int) -> Simulation:
        """Return a new simulation of ``num_envs`` environments."""


class EvaluationService:
    """Evaluates policies on one suite; a policy already played is not played again.

    The key of the cache is the policy's content hash, the suite's hash and the simulation's rules hash.

    Parameters
    ----------
    make_simulation:
        Factory, called once, when the first policy is evaluated.
    suite:
        What every policy plays.
    num_envs:
        Environments stepped together; it changes the speed, never a result.
    directory:
        Where results are kept between processes. Each block of ``num_envs`` episodes is written when it is
        done, so that a long evaluation that was interrupted goes on where it stopped. In memory only when
        ``None``.
    confidence, resamples:
        Of the bootstrap intervals in the summaries.
    """

    def __init__(
        self,
        make_simulation: MakeSimulation,
        suite: EvaluationSuite,
        *,
        num_envs: int = 32,
        directory: Path | None = None,
        confidence: float = 0.95,
        resamples: int = 2000,
    ) -> None:
        self.suite = suite
        self._make_simulation = make_simulation
        self._num_envs = min(num_envs, len(suite.seeds))
        self._directory = directory
        self._confidence = confidence
        self._resamples = resamples
        self._simulation: Simulation | None = None
        self._memory: dict[str, EvaluationResult] = {}

    @classmethod
    def from_config(cls, config: TrainingConfig) -> EvaluationService:
        """Make the service that a configuration describes; nothing is opened yet."""
        evaluation = config.evaluation
        return cls(
            _registered,
            suite_from_config(config.simulation, evaluation),
            num_envs=evaluation.num_envs,
            confidence=evaluation.confidence,
            resamples=evaluation.resamples,
        )

    @property
    def simulation(self) -> Simulation:
        """The simulation that evaluations step; made when first asked for."""
        if self._simulation is None:
            choice = SimulationChoice(
                name=self.suite.simulation, num_envs=self._num_envs, options=dict(self.suite.options)
            )
            self._simulation = self._make_simulation(choice, num_envs=self._num_envs)
        return self._simulation

    def evaluate(self, policy: Policy, *, label: str, between: Callable[[], None] | None = None) -> EvaluationResult:
        """Return the result of ``policy`` on the suite, from the cache when it was played before.

        ``between`` is called before every step that is played; what it raises ends the evaluation, and the pieces
        that were finished stay in the cache.

        Raises
        ------
        ArtifactError
            When a cached file is corrupt; delete the file that is named to play again.
        """
        simulation = self.simulation
        # Binding first: what a scripted policy decides by, and so its hash, depends on the simulation.
        policy_hash = _bound_hash(policy, simulation)
        rules = simulation.spec.rules_hash
        parts = [
            self._part(policy, piece, policy_hash=policy_hash, rules=rules, between=between) for piece in self._pieces()
        ]
        return merge_results(
            parts, suite=self.suite, label=label, confidence=self._confidence, resamples=self._resamples
        )

    def close(self) -> None:
        """Close the simulation; the cache stays."""
        if self._simulation is not None:
            self._simulation.close()
            self._simulation = None

    def __enter__(self) -> EvaluationService:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _pieces(self) -> list[EvaluationSuite]:
        seeds, size = self.suite.seeds, self._num_envs
        return [
            self.suite.model_copy(update={"seeds": seeds[start : start + size]}) for start in range(0, len(seeds), size)
        ]

    def _part(
        self,
        policy: Policy,
        piece: EvaluationSuite,
        *,
        policy_hash: str,
        rules: str,
        between: Callable[[], None] | None,
    ) -> EvaluationResult:
        key = f"{policy_hash}-{piece.content_hash()}-{rules}"
        cached = self._memory.get(key)
        if cached is None:
            path = None if self._directory is None else _path(self._directory, policy_hash, piece, rules)
            if path is not None and path.is_file():
                cached = read_result(path)
                if (cached.policy_hash, cached.rules_hash, cached.suite.content_hash()) != (
                    policy_hash,
                    rules,
                    piece.content_hash(),
                ):
                    msg = f"cached evaluation {str(path)!r} belongs to something else; delete it to play again"
                    raise ArtifactError(msg)
            else:
                cached = evaluate_policy(self.simulation, policy, suite=piece, resamples=1, between=between)
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    atomic_write_text(path, cached.model_dump_json() + "\n")
            self._memory[key] = cached
        return cached


def read_result(path: Path) -> EvaluationResult:
    """Read an :class:`~townlet_training_core.dto.evaluation.EvaluationResult` from a JSON file.

    Raises
    ------
    ArtifactError
        When the file cannot be read or is something else.
    """
    try:
        return EvaluationResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        msg = f"{str(path)!r} is not a sound evaluation result: {reason}; delete it or evaluate again"
        raise ArtifactError(msg) from error


def _registered(choice: SimulationChoice, /, *, num_envs: int) -> Simulation:
    made: Simulation = make_simulation(choice, num_envs=num_envs)
    return made


def _path(directory: Path, policy_hash: str, piece: EvaluationSuite, rules: str) -> Path:
    # Hashes of plug-ins may be long or odd, so they are hashed once more into a file name.
    name = hashlib.sha256(f"{policy_hash}\n{piece.content_hash()}\n{rules}".encode()).hexdigest()
    return directory / name[:2] / f"{name}.json"


def _bound_hash(policy: Policy, simulation: Simulation) -> str:
    actor = copy.copy(policy)
    actor.bind(simulation)
    return actor.content_hash()
