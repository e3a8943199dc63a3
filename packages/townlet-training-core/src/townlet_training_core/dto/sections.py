"""Sections of a training result: small groups of fields that the flat result models inherit.

The flat JSON of the predecessor is the wire format; the sections only say which fields belong together.
"""

from __future__ import annotations

from pydantic import Field

from townlet_training_core.dto.base import Record

__all__ = [
    "AdvantageHealth",
    "AnnealSection",
    "BaselineSection",
    "LossSection",
    "OptimiserSection",
    "ProgressSection",
    "SocialEvents",
]


class ProgressSection(Record):
    """Where in the run the numbers were taken; counts are floats on the wire, as they always were."""

    epoch: float = Field(gt=0, description="Epoch or iteration, from 1.")
    updates: float = Field(description="Mini-batch updates in the epoch.")
    transitions: float = Field(description="Transitions processed in the epoch.")
    steps: float = Field(ge=0, description="Transitions processed since the weights were new.")
    epoch_duration_sec: float | None = Field(None, ge=0, description="Wall time of the epoch, s.")
    data_mode: str | None = Field(None, description="replay, rollout or mixed.")
    cycle_id: float | None = Field(None, description="Number of the rollout that the data came from.")
    rollout_ticks: float | None = Field(None, description="Captured ticks; 0 for replay.")
    log_stream_offset: float | None = Field(None, description="Number of the summary in the log stream, from 1.")


class LossSection(Record):
    """Losses of the last epoch, means over mini-batches."""

    loss_policy: float = Field(description="Clipped surrogate.")
    loss_value: float = Field(description="Clipped value loss, half a squared error.")
    loss_entropy: float = Field(description="Entropy of the policy, nats.")
    loss_total: float = Field(description="What was minimised.")


class OptimiserSection(Record):
    """Health of the optimisation."""

    clip_fraction: float = Field(ge=0, le=1, description="Share of ratios outside the clipping range.")
    clip_fraction_max: float = Field(0.0, description="Largest of a mini-batch.")
    clip_triggered_minibatches: float = Field(0.0, description="Mini-batches in which a ratio was clipped.")
    grad_norm: float = Field(ge=0, description="Global gradient norm before clipping, mean.")
    grad_norm_max: float | None = Field(None, description="Largest of a mini-batch.")
    kl_divergence: float = Field(description="Estimated KL from the acting policy, mean, nats.")
    kl_divergence_max: float | None = Field(None, description="Largest of a mini-batch.")
    lr: float = Field(gt=0, description="Step size.")
    batch_entropy_mean: float | None = Field(None, description="Entropy over mini-batches, mean, nats.")
    batch_entropy_std: float | None = Field(None, description="Entropy over mini-batches, deviation.")


class AdvantageHealth(Record):
    """Health of the advantages."""

    adv_mean: float = Field(description="Mean advantage before normalisation.")
    adv_std: float = Field(ge=0, description="Deviation of the advantages before normalisation.")
    adv_zero_std_batches: float = Field(0.0, description="Mini-batches whose advantages were all the same.")
    adv_min_std: float = Field(0.0, description="Smallest deviation of a mini-batch.")
    reward_advantage_corr: float | None = Field(None, ge=-1, le=1, description="Correlation with the rewards.")


class SocialEvents(Record):
    """Counts of social events in the rollout."""

    queue_conflict_events: float | None = Field(None, description="Count.")
    queue_conflict_intensity_sum: float | None = Field(None, description="Sum of intensities.")
    shared_meal_events: float | None = Field(None, description="Count.")
    late_help_events: float | None = Field(None, description="Count.")
    shift_takeover_events: float | None = Field(None, description="Count.")
    chat_success_events: float | None = Field(None, description="Count.")
    chat_failure_events: float | None = Field(None, description="Count.")
    chat_quality_mean: float | None = Field(None, ge=0, le=1, description="Mean quality of successful chats.")


class BaselineSection(Record):
    """Baseline metrics of the replay dataset."""

    baseline_sample_count: float | None = Field(None, description="Samples.")
    baseline_reward_mean: float | None = Field(None, description="Mean reward of a step.")
    baseline_reward_sum: float | None = Field(None, description="Sum of rewards.")
    baseline_reward_sum_mean: float | None = Field(None, description="Mean over samples of the summed reward.")
    baseline_log_prob_mean: float | None = Field(None, description="Mean log-probability of the actions.")


class AnnealSection(Record):
    """The anneal stage that a summary belongs to."""

    anneal_cycle: float | None = Field(None, description="Cycle of the stage.")
    anneal_stage: str | None = Field(None, description="Mode of the stage.")
    anneal_dataset: str | None = Field(None, description="Label of the dataset.")
    anneal_bc_accuracy: float | None = Field(None, description="Accuracy of the last BC stage.")
    anneal_bc_threshold: float | None = Field(None, description="Accuracy that was asked for.")
    anneal_bc_passed: bool | None = Field(None, description="Whether it was reached.")
    anneal_loss_baseline: float | None = Field(None, description="Loss of the last PPO stage on the dataset.")
    anneal_queue_baseline: float | None = Field(None, description="Queue conflicts of that stage.")
    anneal_intensity_baseline: float | None = Field(None, description="Their summed intensity.")
    anneal_loss_flag: bool | None = Field(None, description="The loss moved more than tolerated.")
    anneal_queue_flag: bool | None = Field(None, description="Queue conflicts fell more than tolerated.")
    anneal_intensity_flag: bool | None = Field(None, description="Intensity fell more than tolerated.")
