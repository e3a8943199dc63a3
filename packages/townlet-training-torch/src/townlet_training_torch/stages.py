"""An anneal's schedule: its stages in order, what each is asked for, and what each is judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from townlet_training_core.config.models import AnnealStage
from townlet_training_core.config.requests import AnnealRequest, BCRequest, PPORequest
from townlet_training_core.dto.results import AnnealStageResultDTO
from townlet_training_core.errors import ConfigurationError
from townlet_training_core.strategy import AnnealContext, PreparationContext, TrainingContext

__all__ = ["anneal_context", "baseline_of", "bc_request", "ppo_request", "stages_of"]


def stages_of(context: PreparationContext, request: AnnealRequest) -> list[AnnealStage]:
    """Return the stages in order of cycle.

    Raises
    ------
    ConfigurationError
        When there are none.
    """
    schedule = request.schedule or context.config.training.anneal_schedule
    if not schedule:
        msg = "anneal_schedule is empty: give training.anneal_schedule at least one stage, e.g. {cycle: 0, mode: bc}"
        raise ConfigurationError(msg)
    return sorted(schedule, key=lambda stage: stage.cycle)


def bc_request(stage: AnnealStage, request: AnnealRequest, start: Path | None) -> BCRequest:
    """Ask for a BC stage that starts from ``start``."""
    return BCRequest(manifest=request.manifest, init_from=start, epochs=stage.epochs)


def ppo_request(
    context: PreparationContext, stage: AnnealStage, request: AnnealRequest, start: Path | None
) -> PPORequest:
    """Ask for a PPO stage that starts from ``start``; captures of an expert feed its BC loss."""
    settings = context.config.training
    return PPORequest(
        manifest=request.manifest or settings.bc.manifest,
        init_from=start,
        iterations=stage.epochs,
        bc_weight=stage.bc_weight,
        bc_weight_final=stage.bc_weight_final,
        blend=stage.bc_weight if settings.anneal_enable_policy_blend else 0.0,
    )


def anneal_context(
    context: TrainingContext,
    stage: AnnealStage,
    label: str,
    done: list[AnnealStageResultDTO],
    baselines: dict[str, Any],
) -> AnnealContext:
    """Return what a stage is judged by: thresholds, and baselines of the dataset ``label``."""
    cloned = [result for result in done if result.mode == "bc"]
    settings, known = context.config.training, baselines.get(label, {})
    return AnnealContext(
        cycle=stage.cycle,
        stage=stage.mode,
        dataset_label=label,
        bc_accuracy=cloned[-1].accuracy if cloned else None,
        bc_threshold=settings.anneal_accuracy_threshold,
        bc_passed=bool(cloned and cloned[-1].passed),
        loss_baseline=known.get("loss_total"),
        queue_events_baseline=known.get("queue_conflict_events"),
        queue_intensity_baseline=known.get("queue_conflict_intensity_sum"),
        loss_tolerance=settings.guardrails.loss_tolerance,
        queue_tolerance=settings.guardrails.queue_tolerance,
    )


def baseline_of(result: AnnealStageResultDTO) -> dict[str, float | None]:
    """Return what the next PPO stage on the same dataset is compared with."""
    names = ("loss_total", "queue_conflict_events", "queue_conflict_intensity_sum")
    return {name: getattr(result, name) for name in names}
