"""`SimulationConfig`: the predecessor's one big configuration file, its bounds and its defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from townlet.config.training import OpenModel, PPOConfig, SocialStage, TrainingConfig, Unit

__all__ = [
    "ConflictConfig",
    "EmploymentConfig",
    "FeatureFlags",
    "JobSpec",
    "ObservationsConfig",
    "PolicyRuntimeConfig",
    "PromotionGateConfig",
    "QueueFairnessConfig",
    "RewardsConfig",
    "RivalryConfig",
    "RuntimeProviderConfig",
    "RuntimeProviders",
    "SimulationConfig",
    "StabilityConfig",
]

Boost = Annotated[float, Field(ge=0.0, le=5.0)]


def _count(default: int, low: int, high: int | None = None) -> Any:
    return Field(default, ge=low, le=high)


def _range(default: float, low: float, high: float) -> Any:
    return Field(default, ge=low, le=high)


class _Flags(OpenModel):
    @model_validator(mode="before")
    @classmethod
    def _yaml_booleans(cls, data: Any) -> Any:
        """Take a bare ``on`` or ``off``, which YAML 1.1 reads as a boolean, as the word that the field knows."""
        words = {"social_rewards": ("OFF", "OFF"), "relationships": ("OFF", "OFF")}
        if not isinstance(data, dict):
            return data
        named = {key: words.get(key, ("off", "on")) for key, value in data.items() if isinstance(value, bool)}
        return {**data, **{key: pair[data[key]] for key, pair in named.items()}}


class _StageFlags(_Flags):
    relationships: Literal["OFF", "A", "B", "C1", "C2", "C3"] = "OFF"
    social_rewards: SocialStage = "OFF"


class _SystemFlags(_Flags):
    lifecycle: Literal["on", "off"] = "on"
    observations: Literal["full", "hybrid", "compact"] = "hybrid"


class _TrainingFlags(_Flags):
    curiosity: Literal["phase_A", "off"] = "phase_A"


class _ConsoleFlags(OpenModel):
    mode: Literal["viewer", "admin"] = "viewer"


class _BehaviorFlags(OpenModel):
    personality_profiles: bool = False
    reward_multipliers: bool = False


class _ObservationFlags(OpenModel):
    personality_channels: bool = False
    personality_ui: bool = False


class FeatureFlags(OpenModel):
    """Feature switches."""

    stages: _StageFlags
    systems: _SystemFlags
    training: _TrainingFlags
    console: _ConsoleFlags = Field(default_factory=_ConsoleFlags)
    relationship_modifiers: bool = False
    behavior: _BehaviorFlags = Field(default_factory=_BehaviorFlags)
    observations: _ObservationFlags = Field(default_factory=_ObservationFlags)


class _NeedsWeights(OpenModel):
    hunger: float = _range(1.0, 0.5, 2.0)
    hygiene: float = _range(0.6, 0.2, 1.0)
    energy: float = _range(0.8, 0.4, 1.5)


class _SocialRewardWeights(OpenModel):
    C1_chat_base: float = _range(0.01, 0.0, 0.05)
    C1_coeff_trust: Unit = 0.3
    C1_coeff_fam: Unit = 0.2
    C2_avoid_conflict: float = _range(0.005, 0.0, 0.02)


class _RewardClips(OpenModel):
    clip_per_tick: float = _range(0.2, 0.01, 1.0)
    clip_per_episode: float = _range(50.0, 1.0, 200.0)
    no_positive_within_death_ticks: int = _count(10, 0, 200)


class RewardsConfig(OpenModel):
    """Reward terms."""

    needs_weights: _NeedsWeights = Field(default_factory=_NeedsWeights)
    decay_rates: dict[str, float] = Field(default_factory=lambda: {"hunger": 0.01, "hygiene": 0.005, "energy": 0.008})
    punctuality_bonus: float = _range(0.05, 0.0, 0.1)
    wage_rate: float = _range(0.01, 0.0, 0.05)
    survival_tick: float = _range(0.002, 0.0, 0.01)
    faint_penalty: float = _range(-1.0, -5.0, 0.0)
    eviction_penalty: float = _range(-2.0, -5.0, 0.0)
    social: _SocialRewardWeights = Field(default_factory=_SocialRewardWeights)
    clip: _RewardClips = Field(default_factory=_RewardClips)

    @model_validator(mode="after")
    def _punctuality_below_hunger(self) -> RewardsConfig:
        if self.punctuality_bonus > self.needs_weights.hunger:
            msg = f"punctuality_bonus {self.punctuality_bonus} must not exceed the weight of hunger"
            raise ValueError(msg)
        return self


class JobSpec(OpenModel):
    """One job: a shift in ticks and its pay per tick."""

    start_tick: int = _count(0, 0)
    end_tick: int = _count(0, 0)
    wage_rate: float = Field(0.0, ge=0.0)
    lateness_penalty: float = Field(0.0, ge=0.0)
    location: tuple[int, int] | None = (0, 0)


class _ShapingConfig(OpenModel):
    use_potential: bool = True


class _CuriosityConfig(OpenModel):
    phase_A_weight: float = _range(0.02, 0.0, 0.1)  # noqa: N815  # the file's key
    decay_by_milestone: str = "M2"


class QueueFairnessConfig(OpenModel):
    """Queues: cooldown and ghost step in ticks (0 = off)."""

    cooldown_ticks: int = _count(60, 0, 600)
    ghost_step_after: int = _count(3, 0, 100)
    age_priority_weight: Unit = 0.1


class RivalryConfig(OpenModel):
    """Rivalry ledger."""

    increment_per_conflict: Unit = 0.15
    decay_per_tick: Unit = 0.005
    min_value: Unit = 0.0
    max_value: Unit = 1.0
    avoid_threshold: Unit = 0.7
    eviction_threshold: Unit = 0.05
    max_edges: int = _count(6, 1, 32)
    ghost_step_boost: Boost = 1.5
    handover_boost: Boost = 0.4
    queue_length_boost: float = _range(0.25, 0.0, 2.0)


class ConflictConfig(OpenModel):
    """Conflict."""

    rivalry: RivalryConfig = Field(default_factory=RivalryConfig)


class _EmbeddingAllocatorConfig(OpenModel):
    cooldown_ticks: int = _count(2000, 0)
    reuse_warning_threshold: Unit = 0.05
    log_forced_reuse: bool = True
    max_slots: int = _count(64, 1)


class _HybridObservationConfig(OpenModel):
    local_window: int = _count(11, 3)
    include_targets: bool = False
    time_ticks_per_day: int = _count(1440, 1)


class _CompactObservationConfig(OpenModel):
    map_window: int = _count(7, 3)
    include_targets: bool = False
    object_channels: list[str] = Field(default_factory=list)
    normalize_counts: bool = True


class _SocialSnippetConfig(OpenModel):
    top_friends: int = _count(2, 0, 8)
    top_rivals: int = _count(2, 0, 8)
    embed_dim: int = _count(8, 1, 32)
    include_aggregates: bool = True

    @model_validator(mode="after")
    def _at_most_eight(self) -> _SocialSnippetConfig:
        if self.top_friends + self.top_rivals > 8:
            msg = f"top_friends + top_rivals must be <= 8, found {self.top_friends + self.top_rivals}"
            raise ValueError(msg)
        return self


class ObservationsConfig(OpenModel):
    """Observation variants."""

    hybrid: _HybridObservationConfig = Field(default_factory=_HybridObservationConfig)
    compact: _CompactObservationConfig = Field(default_factory=_CompactObservationConfig)
    social_snippet: _SocialSnippetConfig = Field(default_factory=_SocialSnippetConfig)


class _AffordanceConfig(OpenModel):
    affordances_file: str = "configs/affordances/core.yaml"
    runtime: dict[str, Any] = Field(default_factory=dict)


class _StarvationConfig(OpenModel):
    window_ticks: int = _count(1000, 1)
    max_incidents: int = _count(0, 0)
    hunger_threshold: Unit = 0.05
    min_duration_ticks: int = _count(30, 1)


class _RewardVarianceConfig(OpenModel):
    window_ticks: int = _count(1000, 1)
    max_variance: float = Field(0.25, ge=0.0)
    min_samples: int = _count(20, 1)


class _OptionThrashConfig(OpenModel):
    window_ticks: int = _count(600, 1)
    max_switch_rate: float = Field(0.25, ge=0.0)
    min_samples: int = _count(10, 1)


class PromotionGateConfig(OpenModel):
    """Promotion: consecutive passes, window in ticks, tolerated alerts."""

    required_passes: int = _count(2, 1)
    window_ticks: int = _count(1000, 1)
    allowed_alerts: list[str] = Field(default_factory=list)


class StabilityConfig(OpenModel):
    """Canaries and promotion."""

    affordance_fail_threshold: int = _count(5, 0)
    lateness_threshold: int = _count(3, 0)
    starvation: _StarvationConfig = Field(default_factory=_StarvationConfig)
    reward_variance: _RewardVarianceConfig = Field(default_factory=_RewardVarianceConfig)
    option_thrash: _OptionThrashConfig = Field(default_factory=_OptionThrashConfig)
    promotion: PromotionGateConfig = Field(default_factory=PromotionGateConfig)


class _BehaviorConfig(OpenModel):
    hunger_threshold: Unit = 0.4
    hygiene_threshold: Unit = 0.4
    energy_threshold: Unit = 0.4
    job_arrival_buffer: int = _count(20, 0)


class PolicyRuntimeConfig(OpenModel):
    """How long an option is kept, ticks."""

    option_commit_ticks: int = _count(15, 0)


class EmploymentConfig(OpenModel):
    """Attendance rules; ticks, shares and shifts."""

    grace_ticks: int = _count(5, 0, 120)
    absent_cutoff: int = _count(30, 0, 600)
    absence_slack: int = _count(20, 0, 600)
    late_tick_penalty: Unit = 0.005
    absence_penalty: float = _range(0.2, 0.0, 5.0)
    max_absent_shifts: int = _count(3, 0, 20)
    attendance_window: int = _count(3, 1, 14)
    daily_exit_cap: int = _count(2, 0, 50)
    exit_queue_limit: int = _count(8, 0, 100)
    exit_review_window: int = _count(1440, 1)
    enforce_job_loop: bool = False


class _LifecycleConfig(OpenModel):
    respawn_delay_ticks: int = _count(0, 0)


class RuntimeProviderConfig(OpenModel):
    """A provider by name, and its options."""

    provider: str
    options: dict[str, Any] = Field(default_factory=dict)


def _provider(name: str) -> Any:
    return Field(default_factory=lambda: RuntimeProviderConfig(provider=name))


class RuntimeProviders(OpenModel):
    """Who provides world, policy and telemetry."""

    world: RuntimeProviderConfig = _provider("default")
    policy: RuntimeProviderConfig = _provider("scripted")
    telemetry: RuntimeProviderConfig = _provider("stdout")

    @field_validator("*", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"provider": value} if isinstance(value, str) else value


def _default_jobs() -> dict[str, JobSpec]:
    return {
        "grocer": JobSpec(start_tick=180, end_tick=360, wage_rate=0.02, lateness_penalty=0.1),
        "barista": JobSpec(start_tick=400, end_tick=560, wage_rate=0.025, lateness_penalty=0.12, location=(1, 0)),
    }


def _default_economy() -> dict[str, float]:
    return {
        "meal_cost": 0.4,
        "cook_energy_cost": 0.05,
        "cook_hygiene_cost": 0.02,
        "wage_income": 0.02,
        "ingredients_cost": 0.15,
        "stove_stock_replenish": 2,
    }


class SimulationConfig(OpenModel):
    """A whole Townlet configuration; keys without a field (seed, world, scenario, meta, ...) are kept."""

    config_id: str
    features: FeatureFlags
    rewards: RewardsConfig
    economy: dict[str, float] = Field(default_factory=_default_economy)
    jobs: dict[str, JobSpec] = Field(default_factory=_default_jobs)
    shaping: _ShapingConfig | None = None
    curiosity: _CuriosityConfig | None = None
    queue_fairness: QueueFairnessConfig = Field(default_factory=QueueFairnessConfig)
    conflict: ConflictConfig = Field(default_factory=ConflictConfig)
    ppo: PPOConfig | None = None
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    embedding_allocator: _EmbeddingAllocatorConfig = Field(default_factory=_EmbeddingAllocatorConfig)
    observations_config: ObservationsConfig = Field(default_factory=ObservationsConfig)
    affordances: _AffordanceConfig = Field(default_factory=_AffordanceConfig)
    stability: StabilityConfig = Field(default_factory=StabilityConfig)
    behavior: _BehaviorConfig = Field(default_factory=_BehaviorConfig)
    policy_runtime: PolicyRuntimeConfig = Field(default_factory=PolicyRuntimeConfig)
    employment: EmploymentConfig = Field(default_factory=EmploymentConfig)
    personalities: dict[str, Any] = Field(default_factory=dict)
    telemetry: dict[str, Any] = Field(default_factory=dict)
    console_auth: dict[str, Any] = Field(default_factory=dict)
    snapshot: dict[str, Any] = Field(default_factory=dict)
    perturbations: dict[str, Any] = Field(default_factory=dict)
    lifecycle: _LifecycleConfig = Field(default_factory=_LifecycleConfig)
    runtime: RuntimeProviders = Field(default_factory=RuntimeProviders)
