"""Configuration of a training run: frozen pydantic models whose descriptions are the reference.

Unknown keys are refused everywhere but under ``simulation.options``, which the chosen simulation judges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AnnealStage",
    "BCTrainingSettings",
    "CheckpointConfig",
    "ComputeConfig",
    "EvaluationConfig",
    "GuardrailConfig",
    "KpiGuardrail",
    "NetworkConfig",
    "PPOConfig",
    "PromotionConfig",
    "SimulationChoice",
    "SocialRewardStage",
    "TelemetryConfig",
    "TrainingConfig",
    "TrainingSettings",
]

UnitInterval = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, ser_json_inf_nan="strings", defer_build=True
    )


class SimulationChoice(_Section):
    """Which simulation to step, and its own options."""

    name: str = Field("town", description="Registered name (entry-point group townlet.training.simulations).")
    num_envs: int = Field(32, ge=1, description="B: environments stepped together while training.")
    threads: int = Field(2, ge=1, description="Threads that step the environments; results do not depend on it.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the chosen simulation, which validates them."
    )


class NetworkConfig(_Section):
    """Shape of the policy/value network."""

    kind: Literal["conflict_aware", "convolutional"] = Field(
        "conflict_aware",
        description="Dense map encoder beside a feature encoder, or a convolutional map encoder.",
    )
    hidden_dim: int = Field(256, ge=1, description="Width of every hidden layer.")
    separate_trunks: bool = Field(False, description="Policy and value have a trunk of their own.")
    recurrent: Literal["none", "gru", "lstm"] = Field("none", description="Memory over the shared trunk.")
    centralised_critic: bool = Field(
        False, description="The value head sees the observation named 'state' (MAPPO, Yu et al. 2022)."
    )
    orthogonal_init: bool = Field(
        True, description="Orthogonal weights, gain sqrt(2), 0.01 for the policy head, 1 for the value head."
    )


class ComputeConfig(_Section):
    """Where and how the learner computes."""

    device: str = Field("cpu", description="'cpu', 'cuda', 'cuda:N', or 'auto' (CUDA with most free memory, else CPU).")
    threads: int = Field(
        0, ge=0, description="CPU threads of the learner; 0 means all cores, or one where the network is small."
    )
    small_network: int = Field(
        50_000,
        ge=0,
        description="Parameters up to which a network is small: waking a second thread costs more than it does.",
    )
    handwritten: bool = Field(
        True, description="Hand-written gradients where the network allows it (dense, without memory); else autograd."
    )
    compile: bool = Field(False, description="torch.compile the update; falls back with one warning.")
    bf16: bool = Field(False, description="bfloat16 matrix products in the update.")


class CheckpointConfig(_Section):
    """When checkpoints are written and which are kept."""

    every: int = Field(10, ge=1, description="Iterations (PPO) or epochs (BC) between checkpoints.")
    keep_last: int = Field(3, ge=1, description="Newest checkpoints kept.")
    keep_best: int = Field(1, ge=0, description="Best checkpoints (by the strategy's own score) kept beside them.")


class TelemetryConfig(_Section):
    """What is logged."""

    log_frequency: int = Field(1, ge=1, description="Write every n-th iteration or epoch.")
    max_log_entries: int | None = Field(None, ge=1, description="Rotate telemetry.jsonl after so many lines.")
    max_log_bytes: int | None = Field(None, ge=1, description="Rotate telemetry.jsonl after so many bytes.")
    tensorboard: bool = Field(False, description="Also write TensorBoard events (extra 'tensorboard').")


class PPOConfig(_Section):
    """Proximal policy optimisation (Schulman et al. 2017); the first twelve keys are the predecessor's."""

    learning_rate: float = Field(3e-4, gt=0.0, description="Adam step size; 1e-4 to 1e-3 is usual.")
    clip_param: float = Field(0.2, ge=0.0, le=1.0, description="Ratio clipping range; 0.1 to 0.3 is usual.")
    value_loss_coef: float = Field(0.5, ge=0.0, description="Weight of the value loss.")
    entropy_coef: float = Field(0.01, ge=0.0, description="Weight of the entropy bonus.")
    num_epochs: int = Field(4, ge=1, le=64, description="Passes over a rollout in one update.")
    mini_batch_size: int = Field(32, ge=1, description="Largest mini-batch, in transitions.")
    gae_lambda: float = Field(0.95, ge=0.0, le=1.0, description="GAE lambda (Schulman et al. 2016).")
    gamma: float = Field(0.99, ge=0.0, le=1.0, description="Discount per step.")
    max_grad_norm: float = Field(0.5, ge=0.0, description="Global gradient norm limit; 0 disables it.")
    value_clip: float = Field(0.2, ge=0.0, le=1.0, description="Value clipping range; 0 disables it.")
    advantage_normalization: bool = Field(True, description="Zero mean and unit deviation per mini-batch.")
    num_mini_batches: int | None = Field(
        4,
        ge=1,
        le=1024,
        description="At least so many mini-batches a pass; null leaves it to mini_batch_size.",
    )
    rollout_steps: int = Field(128, ge=1, description="T: steps of every slot captured before an update.")
    iterations: int = Field(50, ge=1, description="Capture-and-update rounds.")
    target_kl: float | None = Field(None, gt=0.0, description="Stop an update when the k3 KL estimate exceeds it.")
    learning_rate_schedule: Literal["constant", "linear"] = Field("constant", description="Over the iterations.")
    entropy_schedule: Literal["constant", "linear"] = Field("constant", description="Over the iterations.")
    normalize_observations: bool = Field(False, description="Standardise features by running statistics.")
    normalize_returns: bool = Field(False, description="Scale rewards by the deviation of the discounted return.")
    adam_eps: float = Field(1e-5, gt=0.0, description="Adam epsilon.")
    sequence_length: int = Field(16, ge=1, description="Steps of a sequence in a recurrent mini-batch.")
    value_warmup_iterations: int = Field(
        0,
        ge=0,
        description="First iterations that update the value function only (after cloning, it knows nothing).",
    )


class BCTrainingSettings(_Section):
    """Behaviour cloning."""

    manifest: Path | None = Field(None, description="Manifest of captures; null captures the simulation's expert.")
    learning_rate: float = Field(1e-3, gt=0.0, description="Adam step size.")
    batch_size: int = Field(64, ge=1, description="Transitions of a mini-batch.")
    epochs: int = Field(10, ge=1, description="Passes over the training split.")
    weight_decay: float = Field(0.0, ge=0.0, description="Decoupled weight decay.")
    device: str | None = Field(None, description="Device of BC alone; null follows compute.device.")
    capture_steps: int = Field(
        2048, ge=1, description="Steps of every slot captured from the expert when there is no manifest."
    )
    holdout_fraction: float = Field(0.2, gt=0.0, lt=1.0, description="Share of trajectories held out for the gate.")
    value_coef: float = Field(0.5, ge=0.0, description="Weight of the value distillation on discounted returns.")
    label_smoothing: float = Field(
        0.0, ge=0.0, lt=1.0, description="Cross-entropy label smoothing over allowed actions."
    )
    class_balance: float = Field(
        0.0, ge=0.0, le=1.0, description="Exponent of inverse class frequency weights; 0 disables."
    )
    patience: int = Field(0, ge=0, description="Epochs without held-out improvement before stopping; 0 never stops.")
    max_grad_norm: float = Field(0.5, ge=0.0, description="Global gradient norm limit; 0 disables it.")
    top_k: int = Field(3, ge=1, description="k of the reported top-k accuracy.")
    dagger_rounds: int = Field(0, ge=0, description="DAgger rounds (Ross et al. 2011) after cloning.")
    dagger_steps: int = Field(256, ge=1, description="Steps of every slot captured from the student in a round.")


class AnnealStage(_Section):
    """One stage of the hand-over from cloning to reinforcement."""

    cycle: int = Field(0, ge=0, description="Order of the stage.")
    mode: Literal["bc", "ppo"] = Field("ppo", description="What the stage does.")
    epochs: int = Field(1, ge=1, description="BC: passes over the data. PPO: iterations of capture and update.")
    bc_weight: UnitInterval = Field(
        1.0,
        description="PPO stage: weight of the BC loss beside the PPO loss; share of expert decisions when blending.",
    )
    bc_weight_final: UnitInterval | None = Field(None, description="The weight decays linearly to this over the stage.")


SocialRewardStage = Literal["OFF", "C1", "C2", "C3"]


class SocialRewardStep(_Section):
    """From which cycle on a social reward stage holds."""

    cycle: int = Field(ge=0, description="First cycle.")
    stage: SocialRewardStage = Field(description="Stage of the social rewards.")


class GuardrailConfig(_Section):
    """Tolerances of the anneal's guardrails."""

    loss_tolerance: NonNegative = Field(0.10, description="Legacy loss flag: relative change that raises it.")
    queue_tolerance: UnitInterval = Field(0.15, description="Legacy queue flags: relative fall that raises them.")
    return_margin: NonNegative = Field(
        0.0,
        description="A stage is rolled back when the interval of the paired return difference lies below minus this.",
    )


class TrainingSettings(_Section):
    """What to train from, and the anneal schedule."""

    source: Literal["replay", "rollout", "mixed", "bc", "anneal"] = Field("replay", description="Default mode.")
    rollout_ticks: int = Field(100, ge=0, description="Ticks of a legacy rollout capture.")
    rollout_auto_seed_agents: bool = Field(False, description="Legacy: put two agents into an empty world.")
    replay_manifest: Path | None = Field(None, description="Default manifest of replay data.")
    social_reward_stage_override: SocialRewardStage | None = Field(
        None, description="Social reward stage of the simulation while training, whatever the cycle."
    )
    social_reward_schedule: tuple[SocialRewardStep, ...] = Field(
        (),
        description="Social reward stage by cycle of the anneal (0 outside one); before the first entry, and in "
        "evaluations, that of simulation.options holds.",
    )
    social_reward_option: str = Field(
        "rewards.social_stage",
        pattern=r"^[^.\s]+(\.[^.\s]+)*$",
        description="Where below simulation.options the stage is put.",
    )
    bc: BCTrainingSettings = Field(default_factory=BCTrainingSettings)
    anneal_schedule: tuple[AnnealStage, ...] = Field((), description="Stages, run in order of cycle.")
    anneal_accuracy_threshold: UnitInterval = Field(0.9, description="Held-out accuracy that a BC stage must reach.")
    anneal_enable_policy_blend: bool = Field(
        False, description="Hand the share bc_weight of rollout decisions to the scripted expert."
    )
    guardrails: GuardrailConfig = Field(default_factory=GuardrailConfig)

    def social_stage_at(self, cycle: int) -> SocialRewardStage | None:
        """Return the social reward stage of a cycle; ``None`` leaves the simulation's options as they are."""
        if self.social_reward_stage_override is not None:
            return self.social_reward_stage_override
        begun = [step for step in self.social_reward_schedule if step.cycle <= cycle]
        return max(begun, key=lambda step: step.cycle).stage if begun else None


class EvaluationConfig(_Section):
    """How policies are compared."""

    episodes: int = Field(32, ge=2, description="Episodes (environment seeds) per policy.")
    first_seed: int = Field(
        1_000_000, ge=0, description="Seeds are first_seed, first_seed + 1, ...; disjoint from training."
    )
    num_envs: int = Field(32, ge=1, description="Environments stepped together.")
    max_steps: int | None = Field(None, ge=1, description="Stop an episode after so many steps; null plays to its end.")
    episode: Literal["environment", "slot"] = Field(
        "environment",
        description=(
            "environment: an episode ends when all slots of its environment end together; slot: the first episode of "
            "every slot counts, for simulations whose slots end and begin again one by one."
        ),
    )
    greedy: bool = Field(False, description="Take the most probable action instead of sampling.")
    confidence: float = Field(0.95, gt=0.0, lt=1.0, description="Level of the bootstrap intervals.")
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples.")
    every: int = Field(0, ge=0, description="Evaluate every n PPO iterations; 0 only at the end of a stage.")


class KpiGuardrail(_Section):
    """An indicator that a candidate must not worsen."""

    kpi: str = Field(description="Name among the simulation's indicators.")
    direction: Literal["higher_is_better", "lower_is_better"] = Field(description="Which way is better.")
    margin: NonNegative = Field(description="How much worse is tolerated, in the indicator's unit.")


class PromotionConfig(_Section):
    """When a candidate replaces the release."""

    required_passes: int = Field(2, ge=1, description="Consecutive passes on fresh seeds.")
    window_ticks: int = Field(1000, ge=1, description="Legacy: length of the evaluation window.")
    allowed_alerts: tuple[str, ...] = Field((), description="Legacy: alerts that do not block.")
    margin: NonNegative = Field(0.0, description="The interval of the paired return difference must clear this.")
    alpha: float = Field(
        0.05, gt=0.0, lt=1.0, description="Bound on the rate of false promotions, however often asked."
    )
    episodes: int = Field(
        256, ge=4, description="Paired episodes per look; disasters rarer than about 3 in all looks stay unseen."
    )
    kpis: tuple[KpiGuardrail, ...] | None = Field(
        None,
        description=(
            "Indicators that must not regress; one that is not measured blocks. null guards those that are measured of "
            "attendance and lateness (0.05 of the shifts), starvation (0.1) and conflicts (0.5 per agent and day); "
            "[] guards none."
        ),
    )


class TrainingConfig(_Section):
    """Everything a run depends on."""

    schema_version: Literal[1] = Field(1, description="Version of this file format.")
    config_id: str = Field("default", min_length=1, description="Name of the configuration, written into results.")
    seed: int = Field(0, ge=0, lt=2**63, description="The one seed from which every named stream is derived.")
    simulation: SimulationChoice = Field(default_factory=SimulationChoice)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    ppo: PPOConfig = Field(default_factory=PPOConfig)
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    promotion: PromotionConfig = Field(default_factory=PromotionConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    telemetry: TelemetryConfig = Field(default_factory=TelemetryConfig)
