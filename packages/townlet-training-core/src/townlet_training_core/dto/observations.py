"""What a tick of the old simulation hands out."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "DTO_SCHEMA_VERSION",
    "AgentObservationDTO",
    "GlobalObservationDTO",
    "ObservationEnvelope",
    "ObservationMetadata",
]

DTO_SCHEMA_VERSION = "0.2.0"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, arbitrary_types_allowed=True)


class ObservationMetadata(_Frozen):
    """How map and features of an agent are laid out."""

    model_config = ConfigDict(frozen=True, extra="allow")

    variant: str | None = None
    map_shape: tuple[int, ...] | None = None
    map_channels: list[str] = Field(default_factory=list)
    feature_names: list[str] = Field(default_factory=list)
    embedding_slot: int | None = None
    social_context: dict[str, Any] | None = None
    local_summary: dict[str, Any] | None = None
    personality: dict[str, Any] | None = None
    landmark_slices: dict[str, Any] | None = None
    compact: dict[str, Any] | None = None


class AgentObservationDTO(_Frozen):
    """One agent: ``map`` (C, H, W) and ``features`` (F,) as arrays or nested lists, and what it has."""

    agent_id: str
    map: Any = None
    features: Any = None
    metadata: Any = None
    rewards: Any = None
    terminated: bool | None = None
    position: Any = None
    needs: dict[str, float] | None = None
    wallet: float | None = None
    inventory: dict[str, Any] | None = None
    job: Any = None
    personality: Any = None
    queue_state: Any = None
    pending_intent: Any = None


class GlobalObservationDTO(_Frozen):
    """What is not any one agent's."""

    queue_metrics: dict[str, Any] = Field(default_factory=dict)
    rewards: dict[str, Any] = Field(default_factory=dict)
    perturbations: dict[str, Any] = Field(default_factory=dict)
    policy_snapshot: dict[str, Any] = Field(default_factory=dict)
    stability_metrics: dict[str, Any] = Field(default_factory=dict)
    policy_metadata: dict[str, Any] = Field(default_factory=dict)
    queues: dict[str, Any] = Field(default_factory=dict)
    running_affordances: dict[str, Any] = Field(default_factory=dict)
    relationship_snapshot: dict[str, Any] = Field(default_factory=dict)
    relationship_metrics: dict[str, Any] = Field(default_factory=dict)
    employment_snapshot: dict[str, Any] = Field(default_factory=dict)
    queue_affinity_metrics: dict[str, Any] = Field(default_factory=dict)
    economy_snapshot: dict[str, Any] = Field(default_factory=dict)
    anneal_context: dict[str, Any] = Field(default_factory=dict)
    rivalry_events: list[Any] = Field(default_factory=list)
    promotion_state: dict[str, Any] | None = None
    rng_seed: int | None = None


class ObservationEnvelope(_Frozen):
    """All agents of one tick."""

    tick: int
    schema_version: str = Field(DTO_SCHEMA_VERSION, alias="dto_schema_version")
    agents: list[AgentObservationDTO] = Field(default_factory=list)
    global_context: GlobalObservationDTO = Field(default_factory=GlobalObservationDTO, alias="global")
    actions: dict[str, Any] = Field(default_factory=dict)
    terminated: dict[str, bool] = Field(default_factory=dict)
    termination_reasons: dict[str, str] = Field(default_factory=dict)
