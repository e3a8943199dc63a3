"""Records of promotion: verdicts of the gate, releases, the audit log."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from townlet_training_core.dto.base import Record
from townlet_training_core.dto.evaluation import IntervalDTO, PairedComparison

__all__ = [
    "RELEASE_SCHEMA_VERSION",
    "AuditEntry",
    "CurrentRelease",
    "ForgettingVerdict",
    "GuardrailVerdict",
    "LegacyFlags",
    "LookRecord",
    "PromotionVerdict",
]

RELEASE_SCHEMA_VERSION: Literal[1] = 1

Direction = Literal["higher_is_better", "lower_is_better"]


class GuardrailVerdict(Record):
    """What became of one indicator; differences are turned so that positive is better."""

    kpi: str = Field(description="Name of the indicator.")
    direction: Direction = Field(description="Which way is better.")
    margin: float = Field(ge=0, description="How much worse is tolerated, in the indicator's unit.")
    difference: IntervalDTO | None = Field(description="Candidate minus release, turned; null where unmeasured.")
    status: Literal["ok", "unclear", "regressed", "missing"] = Field(
        description=(
            "ok: the whole interval is within the margin; unclear: the estimate is, the interval is not; regressed: "
            "the estimate is worse than the margin; missing: there is no value. The last two block."
        )
    )


class ForgettingVerdict(Record):
    """A candidate against what an earlier release once reached."""

    release: str = Field(description="Digest of the earlier release.")
    suite: str = Field(description="Name of the golden suite.")
    difference: IntervalDTO = Field(description="Candidate minus earlier release, paired by seed.")
    forgotten: bool = Field(description="The whole interval lies below minus the margin.")


class LegacyFlags(Record):
    """The predecessor's flags, which also fire on improvement: reported, and deciding the legacy status only."""

    loss_flag: bool = Field(False, description="The loss moved by more than tolerated, either way.")
    queue_flag: bool = Field(False, description="Queue conflicts fell by more than tolerated.")
    intensity_flag: bool = Field(False, description="Their intensity fell by more than tolerated.")
    bc_failed: bool = Field(False, description="A behaviour cloning stage missed its accuracy.")

    @property
    def status(self) -> Literal["PASS", "HOLD", "FAIL"]:
        """FAIL when cloning failed, HOLD when a flag is up, PASS otherwise."""
        if self.bc_failed:
            return "FAIL"
        return "HOLD" if self.loss_flag or self.queue_flag or self.intensity_flag else "PASS"


class LookRecord(Record):
    """One question put to the gate: reserved before it is played, completed after."""

    look: int = Field(ge=1, description="Number among the questions put against this release.")
    candidate_hash: str = Field(description="Content hash of the candidate.")
    level: float = Field(gt=0, lt=1, description="One-sided error that the look may spend.")
    first_seed: int = Field(ge=0, description="First of the fresh seeds.")
    episodes: int = Field(ge=1, description="Fresh seeds per suite.")
    passed: bool | None = Field(None, description="Outcome; null while it is played, or when it was broken off.")
    differences: dict[str, tuple[float, ...]] = Field(
        default_factory=dict,
        description="Paired differences in return by hash of suite and rules, for later looks at the candidate.",
    )


class PromotionVerdict(Record):
    """What the gate decided: what, by how much, how sure, what blocks."""

    schema_version: Literal[1] = Field(RELEASE_SCHEMA_VERSION, description="Version of this format.")
    decision: Literal["promote", "hold"] = Field(description="promote after enough passes in a row.")
    passed: bool = Field(description="Whether this look passed.")
    candidate: str = Field(description="Label of the candidate.")
    candidate_hash: str = Field(description="Content hash of the candidate.")
    baseline: str = Field(description="Label of the release.")
    baseline_hash: str = Field(description="Content hash of the release.")
    look: int = Field(ge=1, description="How often the gate was asked against this release, this time included.")
    level: float = Field(gt=0, lt=1, description="One-sided error of this look's bound.")
    alpha: float = Field(gt=0, lt=1, description="Bound on the probability of ever promoting falsely.")
    margin: float = Field(ge=0, description="What the bound must clear, in return per agent and episode.")
    lower_bound: float = Field(description="One-sided lower bound of the paired difference at this level.")
    difference: IntervalDTO = Field(description="Mean paired difference over the suites with its interval.")
    pooled_looks: int = Field(1, ge=1, description="Looks at this candidate on these suites, this one included.")
    pooled_pairs: int | None = Field(None, description="Pairs of all these looks together; null in older verdicts.")
    pooled_level: float | None = Field(None, description="One-sided error of the bound over all these looks.")
    pooled_lower_bound: float | None = Field(None, description="Lower bound of the difference over all these looks.")
    pass_streak: int = Field(ge=0, description="Consecutive passes of this candidate, this look included.")
    required_passes: int = Field(ge=1, description="Consecutive passes on fresh seeds that promote.")
    comparisons: tuple[PairedComparison, ...] = Field(description="One per suite.")
    guardrails: tuple[GuardrailVerdict, ...] = Field((), description="One per indicator.")
    forgetting: tuple[ForgettingVerdict, ...] = Field((), description="One per earlier release and golden suite.")
    legacy: LegacyFlags | None = Field(None, description="The predecessor's flags, where there are any.")
    legacy_status: Literal["PASS", "HOLD", "FAIL"] | None = Field(None, description="What they would have said.")
    blockers: tuple[str, ...] = Field((), description="Why this look did not pass, or passes do not promote.")
    summary: str = Field(description="The verdict in one sentence.")


class AuditEntry(Record):
    """One line of the audit log; the log is what counts, ``current`` follows it."""

    sequence: int = Field(ge=1, description="Number of the line, from 1, without gaps.")
    event: Literal["promoted", "rollback", "policy_swap"] = Field(description="What was done.")
    time: str = Field(description="UTC, ISO 8601.")
    release: str = Field(description="Digest of the policy that is in place afterwards.")
    previous: str | None = Field(description="Digest of the one before; null for the first.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="What the caller said about it.")


class CurrentRelease(Record):
    """The file ``current``: which policy is in place, and the line of the audit log that put it there."""

    schema_version: Literal[1] = Field(RELEASE_SCHEMA_VERSION, description="Version of this format.")
    sequence: int = Field(ge=1, description="Line of the audit log.")
    release: str = Field(description="Digest of the policy.")
