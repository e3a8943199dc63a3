"""Records of evaluations: what was played, what came out, and how two policies compare."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, PlainSerializer, model_validator

from townlet_training_core.dto.base import Record

__all__ = [
    "EVALUATION_SCHEMA_VERSION",
    "EvaluationResult",
    "EvaluationSuite",
    "IntervalDTO",
    "PairedComparison",
    "ReturnSummary",
    "SuiteAggregate",
]

EVALUATION_SCHEMA_VERSION: Literal[1] = 1


def _for_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


JsonFloat = Annotated[float, PlainSerializer(_for_json, return_type=float | str, when_used="json")]
"""A float that may be NaN or infinite, and then is a string in JSON, also in ``model_dump(mode="json")``."""


class IntervalDTO(Record):
    """An estimate with a two-sided confidence interval, in the unit of the estimate."""

    estimate: JsonFloat = Field(description="Point estimate.")
    low: JsonFloat = Field(description="Lower end.")
    high: JsonFloat = Field(description="Upper end.")
    confidence: float = Field(gt=0, lt=1, description="Level of the interval.")


class EvaluationSuite(Record):
    """Episodes that every policy of a comparison plays: one per seed, on one simulation.

    The number of environments stepped together is no part of it, because results do not depend on it.
    """

    name: str = Field("default", min_length=1, description="Name of the suite or scenario; a label only.")
    simulation: str = Field(min_length=1, description="Registered name of the simulation.")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Options of the simulation.")
    seeds: tuple[int, ...] = Field(min_length=1, description="One environment seed per episode, all different.")
    max_steps: int | None = Field(None, ge=1, description="Stop an episode after so many steps.")
    greedy: bool = Field(False, description="Take the most probable action instead of sampling.")
    action_seed: int = Field(0, ge=0, description="Seed of the episodes' action streams.")
    episode: Literal["environment", "slot"] = Field(
        "environment",
        description="environment: ends when all slots end together; slot: every slot's first, which may end apart.",
    )

    @model_validator(mode="after")
    def _seeds_differ(self) -> EvaluationSuite:
        if len(set(self.seeds)) != len(self.seeds):
            msg = "seeds must all be different: a repeated seed would count one episode twice"
            raise ValueError(msg)
        if min(self.seeds) < 0:
            msg = f"seeds must not be negative, found {min(self.seeds)}"
            raise ValueError(msg)
        return self

    def content_hash(self) -> str:
        """SHA-256 of everything that determines the episodes of a given policy; the name is not in it."""
        return _digest(self._described(but={"name"}))

    def world_hash(self) -> str:
        """Like :meth:`content_hash` without the action streams: results with equal world hashes may be paired."""
        return _digest(self._described(but={"name", "action_seed"}))

    def _described(self, *, but: set[str]) -> dict[str, JsonValue]:
        """Return all fields but some; without ``episode`` where it is as ever, so that hashes stay what they were."""
        left_out = but | ({"episode"} if self.episode == "environment" else set())
        return self.model_dump(mode="json", exclude=left_out)


class ReturnSummary(Record):
    """Aggregates of the episode returns of one result, with bootstrap intervals over episodes."""

    mean: IntervalDTO = Field(description="Mean return.")
    iqm: IntervalDTO = Field(description="Interquartile mean of the returns (Agarwal et al. 2021).")
    median: float = Field(description="Median return.")
    std: float = Field(ge=0, description="Standard deviation over episodes; 0 with a single one.")
    minimum: float = Field(description="Smallest return.")
    maximum: float = Field(description="Largest return.")


class EvaluationResult(Record):
    """What one policy reached on one suite: E episodes, N agents.

    The return of an episode is the mean over its N slots of the rewards summed over the environment's episode.
    """

    schema_version: Literal[1] = Field(EVALUATION_SCHEMA_VERSION, description="Version of this format.")
    label: str = Field(description="What the caller calls the policy.")
    policy: str = Field(description="Name of the policy.")
    policy_hash: str = Field(description="Hash of everything that determines its decisions.")
    suite: EvaluationSuite = Field(description="What was played.")
    simulation: str = Field(description="Name and version that the simulation gives itself.")
    rules_hash: str = Field(description="Hash of the simulation's rules.")
    returns: tuple[float, ...] = Field(description="(E,) return of each episode, in the order of the seeds.")
    agent_returns: tuple[tuple[float, ...], ...] = Field(description="(E, N) summed rewards of each slot.")
    lengths: tuple[int, ...] = Field(description="(E,) steps of each episode.")
    completed: tuple[bool, ...] = Field(description="(E,) false where max_steps cut the episode.")
    kpis: dict[str, tuple[JsonFloat, ...]] = Field(
        default_factory=dict, description="(E,) indicators by name; NaN where the episode was cut."
    )
    events: dict[str, tuple[int, ...]] = Field(default_factory=dict, description="(E,) event counts by kind.")
    summary: ReturnSummary = Field(description="Aggregates of the returns.")

    @model_validator(mode="after")
    def _one_row_per_seed(self) -> EvaluationResult:
        episodes = len(self.suite.seeds)
        columns: dict[str, tuple[Any, ...]] = {
            "returns": self.returns,
            "agent_returns": self.agent_returns,
            "lengths": self.lengths,
            "completed": self.completed,
            **self.kpis,
            **self.events,
        }
        for name, column in columns.items():
            if len(column) != episodes:
                msg = f"{name!r} has {len(column)} entries, expected one for each of {episodes} seeds"
                raise ValueError(msg)
        return self

    def world_hash(self) -> str:
        """Hash of suite (without action streams) and rules: equal ones may be paired by seed."""
        return _digest([self.suite.world_hash(), self.simulation, self.rules_hash])

    def scenario_hash(self) -> str:
        """Hash of scenario and rules without any seeds: episodes of equal ones are draws from one distribution."""
        scenario = self.suite.model_dump(mode="json", exclude={"seeds", "action_seed"})
        return _digest([scenario, self.simulation, self.rules_hash])


class SuiteAggregate(Record):
    """One policy over several suites."""

    label: str = Field(description="What the caller calls the policy.")
    suites: tuple[str, ...] = Field(min_length=1, description="Names of the suites.")
    episodes: int = Field(ge=1, description="Episodes of all suites.")
    mean: IntervalDTO = Field(description="Mean return, episodes resampled within their suite.")
    iqm: IntervalDTO = Field(description="Interquartile mean of the returns of all suites.")
    against: str | None = Field(None, description="Label of the policy that it is compared with.")
    probability_of_improvement: IntervalDTO | None = Field(
        None, description="P(an episode returns more than one of that policy), mean over suites."
    )


class PairedComparison(Record):
    """A candidate against a baseline on the same seeds."""

    schema_version: Literal[1] = Field(EVALUATION_SCHEMA_VERSION, description="Version of this format.")
    candidate: str = Field(description="Label of the candidate.")
    baseline: str = Field(description="Label of the baseline.")
    candidate_hash: str = Field(description="Content hash of the candidate.")
    baseline_hash: str = Field(description="Content hash of the baseline.")
    world_hash: str = Field(description="Hash of seeds, simulation and rules, the same for both.")
    episodes: int = Field(ge=1, description="Pairs.")
    difference: IntervalDTO = Field(description="Mean of candidate minus baseline return, paired by seed.")
    difference_std: float = Field(ge=0, description="Standard deviation of the paired differences.")
    effect_size: JsonFloat = Field(description="Mean difference in those standard deviations; 0 where all are 0.")
    probability_of_improvement: IntervalDTO = Field(
        description="P(a candidate's episode returns more than a baseline's), ties counting half."
    )
    kpis: dict[str, IntervalDTO] = Field(
        default_factory=dict, description="Mean paired difference of each indicator, where both have it."
    )


def _digest(payload: Any) -> str:
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
