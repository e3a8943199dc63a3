"""The scoreboard of a run: its policies beside random and expert play on the same seeds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from townlet_training_core.dto.base import Record
from townlet_training_core.dto.evaluation import IntervalDTO, PairedComparison

__all__ = ["Score", "Scoreboard"]


class Score(Record):
    """One policy's row."""

    label: str = Field(description="random, expert, bc or final.")
    policy_hash: str = Field(description="Content hash of the policy.")
    mean: IntervalDTO = Field(description="Mean return of an episode, per agent.")
    iqm: IntervalDTO = Field(description="Interquartile mean.")
    kpis: dict[str, float] = Field(default_factory=dict, description="Mean of each indicator over episodes.")
    result: str = Field(description="File of the whole result, relative to the run directory.")


class Scoreboard(Record):
    """All rows, and the final policy against each of the others, paired by seed."""

    schema_version: Literal[1] = 1
    simulation: str = Field(description="Name and version of the simulation.")
    rules_hash: str = Field(description="Hash of its rules.")
    episodes: int = Field(description="Episodes per policy, one per seed.")
    greedy: bool = Field(description="Whether policies took the most probable action.")
    scores: tuple[Score, ...] = Field(description="In the order random, expert, bc, final.")
    comparisons: tuple[PairedComparison, ...] = Field(description="Final against each other policy.")
