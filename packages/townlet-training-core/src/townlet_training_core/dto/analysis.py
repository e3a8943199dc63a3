"""Records of data analysis: what a dataset holds, how two differ, what an audit or a curation found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from townlet_training_core.dto.base import Record
from townlet_training_core.dto.evaluation import IntervalDTO, JsonFloat

__all__ = [
    "AuditFinding",
    "AuditReport",
    "AuditedDataset",
    "CurationReport",
    "DatasetComparison",
    "DatasetStats",
    "Drift",
    "GroupStats",
]


class GroupStats(Record):
    """Trajectories of one agent, or of a whole dataset."""

    name: str = Field(description="Agent, or the dataset's label.")
    samples: int = Field(ge=0, description="Trajectories.")
    steps: int = Field(ge=0, description="Decisions.")
    episodes_ended: int = Field(ge=0, description="Steps after which an episode ended.")
    reward_sum: float = Field(description="Sum of rewards.")
    reward_mean: float = Field(description="Mean reward of a step.")
    reward_std: float = Field(ge=0, description="Deviation of the reward over steps.")
    reward_min: float = Field(description="Smallest reward.")
    reward_max: float = Field(description="Largest reward.")
    return_mean: IntervalDTO = Field(description="Mean over trajectories of their summed reward.")
    actions: dict[str, int] = Field(description="Decisions by action, in the order of the vocabulary.")
    action_entropy: float = Field(ge=0, description="Entropy of the empirical action distribution, nats.")


class DatasetStats(Record):
    """A dataset in numbers."""

    schema_version: Literal[1] = 1
    path: str = Field(description="Where it was read from.")
    total: GroupStats = Field(description="Everything together.")
    agents: tuple[GroupStats, ...] = Field(description="By agent, in order of name.")
    rejected: int = Field(ge=0, description="Entries marked accepted: false, left out.")
    feature_names: tuple[str, ...] = Field(description="Columns of the features.")
    events: dict[str, JsonFloat] = Field(default_factory=dict, description="Event numbers in the metadata, summed.")
    simulation: str | None = Field(None, description="Simulation that the data says it comes from.")


class Drift(Record):
    """How one column differs between two datasets (second minus first)."""

    column: str = Field(description="'reward', 'return', or a feature.")
    first_mean: float = Field(description="Mean in the first dataset.")
    second_mean: float = Field(description="Mean in the second.")
    difference: IntervalDTO = Field(description="Difference of means; trajectories are resampled, not steps.")
    effect_size: JsonFloat = Field(description="Difference in pooled deviations of a step (Hedges' g).")
    shifted: bool = Field(description="The interval excludes 0 and the effect is at least the threshold.")


class DatasetComparison(Record):
    """Two datasets side by side."""

    schema_version: Literal[1] = 1
    first: str = Field(description="Label of the first.")
    second: str = Field(description="Label of the second.")
    samples: tuple[int, int] = Field(description="Trajectories of either.")
    steps: tuple[int, int] = Field(description="Decisions of either.")
    threshold: float = Field(ge=0, description="Effect size from which a shift counts.")
    action_distance: float = Field(ge=0, le=1, description="Jensen-Shannon distance of the action histograms.")
    action_shares: dict[str, tuple[float, float]] = Field(description="Share of each action in either.")
    drifts: tuple[Drift, ...] = Field(description="Reward, return and features, largest effect first.")


class AuditFinding(Record):
    """Something that an audit came upon."""

    level: Literal["warning", "failure"] = Field(description="A failure makes the dataset unusable.")
    message: str = Field(description="What, and where.")


class AuditedDataset(Record):
    """One dataset of an audit."""

    name: str = Field(description="Name in the versions file.")
    status: Literal["PASS", "WARN", "FAIL"] = Field(description="The worst of the findings.")
    manifest: str = Field(description="Its manifest.")
    checksums: str = Field(description="Its checksum file.")
    captures: str = Field(description="Its folder of captures; empty when it names none.")
    findings: tuple[str, ...] = Field(description="What was found, one sentence each.")
    sample_count: int = Field(ge=0, description="Entries of the manifest.")


class AuditReport(Record):
    """Checksums of all datasets of a versions file; the keys are those that existing tools read."""

    versions_path: str = Field(description="The versions file.")
    datasets: tuple[AuditedDataset, ...] = Field(description="In the order of the file.")
    failures: int = Field(ge=0, description="Datasets that failed.")
    warnings: int = Field(ge=0, description="Datasets with warnings only.")
    timestamp: str = Field(description="UTC, ISO 8601.")


class CurationReport(Record):
    """What a curation kept."""

    output: str = Field(description="The manifest that was written.")
    total: int = Field(ge=0, description="Entries.")
    accepted: int = Field(ge=0, description="Entries that loaders will use.")
    rejected: int = Field(ge=0, description="Entries that stay in the list and are left out by loaders.")
    reasons: dict[str, int] = Field(default_factory=dict, description="Rejections by reason.")
