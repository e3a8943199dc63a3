"""The anneal as the old entry points report it: stages of cloning and PPO with the old guardrails."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from townlet_training_core.dto.results import (
    AnnealStageResultDTO,
    AnnealSummaryDTO,
    BCTrainingResultDTO,
    PPOTrainingResultDTO,
)
from townlet_training_core.errors import ConfigurationError, MissingFileError
from townlet_training_core.files import atomic_write_text
from townlet_training_core.promotion.verdict import evaluate_anneal_results
from townlet_training_core.strategy import AnnealContext

__all__ = ["anneal", "plain_summary"]


def anneal(
    context: Any,
    *,
    dataset_config: Any,
    in_memory_dataset: Any,
    log_dir: Path | None,
    bc_manifest: Path | None,
    clone: Callable[[Any], BCTrainingResultDTO],
    improve: Callable[..., PPOTrainingResultDTO],
) -> AnnealSummaryDTO:
    """Run the stages in order of cycle; a BC stage below the threshold is rolled back and ends the anneal.

    ``clone(stage)`` runs a BC stage, ``improve(context, **options)`` a PPO stage. The results as they are logged lie
    in ``context.metadata["anneal_results"]``.
    """
    started, config, state = time.perf_counter(), context.config, context.state
    schedule = sorted(config.training.anneal_schedule, key=lambda stage: stage.cycle)
    if not schedule:
        msg = "anneal_schedule is empty; set training.anneal_schedule"
        raise ConfigurationError(msg)
    manifest = bc_manifest if bc_manifest is not None else config.training.bc.manifest
    if manifest is None and any(stage.mode == "bc" for stage in schedule):
        msg = "BC manifest is required for BC stages in anneal: pass bc_manifest or set training.bc.manifest"
        raise ConfigurationError(msg)
    data: dict[str, Any] = {"in_memory_dataset": in_memory_dataset}
    if dataset_config is not None or in_memory_dataset is None:
        data["dataset_config"] = _stored(context, dataset_config, schedule)
    label = _label(data)
    threshold, accuracy, passed = float(config.training.anneal_accuracy_threshold), None, False
    results: list[dict[str, Any]] = []
    for stage in schedule:
        if stage.mode == "bc":
            result = _clone_stage(context, stage, clone, threshold)
            accuracy, passed = result["accuracy"], result["passed"]
            results.append(result)
            if not passed:
                break
            continue
        known = state.baselines.get(label, {})
        about = AnnealContext(
            cycle=stage.cycle,
            stage="ppo",
            dataset_label=label,
            bc_accuracy=accuracy,
            bc_threshold=threshold,
            bc_passed=passed,
            loss_baseline=known.get("loss"),
            queue_events_baseline=known.get("queue"),
            queue_intensity_baseline=known.get("intensity"),
        )
        ratio = stage.bc_weight if config.training.anneal_enable_policy_blend else None
        context.metadata["anneal_ratio"] = ratio
        summary = plain_summary(
            improve(replace(context, anneal_context=about), epochs=stage.epochs, bc_weight=stage.bc_weight, **data)
        )
        state.baselines[label] = {
            "loss": summary["loss_total"],
            "queue": summary["queue_conflict_events"],
            "intensity": summary["queue_conflict_intensity_sum"],
        }
        results.append({"cycle": stage.cycle, "mode": "ppo", **summary})
    status = evaluate_anneal_results(results)
    context.metadata["anneal_results"] = results
    if log_dir is not None:
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        atomic_write_text(Path(log_dir) / "anneal_results.json", json.dumps(results, indent=2))
    promotion = context.services.promotion.record_evaluation(status=status, results=results)
    fields = AnnealStageResultDTO.model_fields
    return AnnealSummaryDTO(
        stages=tuple(
            AnnealStageResultDTO.model_validate({key: row[key] for key in row if key in fields}) for row in results
        ),
        status=status,
        dataset_label=label,
        baselines={name: dict(values) for name, values in state.baselines.items()},
        promotion_pass_streak=promotion["pass_streak"],
        promotion_candidate_ready=promotion["candidate_ready"],
        duration_sec=time.perf_counter() - started,
    )


def plain_summary(result: PPOTrainingResultDTO) -> dict[str, Any]:
    """Return a PPO result as the epoch summary that is logged."""
    dump: dict[str, Any] = result.model_dump(exclude={"schema_version", "duration_sec", "run_id", "checkpoint"})
    return {key: value for key, value in dump.items() if value is not None}


def _clone_stage(
    context: Any, stage: Any, clone: Callable[[Any], BCTrainingResultDTO], threshold: float
) -> dict[str, Any]:
    learner, cloning = context.state.learner, context.state.cloning
    before = None if learner is None else learner.snapshot()
    result = clone(stage)
    accuracy = result.accuracy if result.val_accuracy is None else result.val_accuracy
    row = {
        "cycle": stage.cycle,
        "mode": "bc",
        "accuracy": accuracy,
        "loss": result.loss,
        "threshold": threshold,
        "passed": accuracy >= threshold,
        "bc_weight": stage.bc_weight,
    }
    if not row["passed"]:
        row["rolled_back"] = True
        context.state.learner, context.state.cloning = learner, cloning
        if learner is not None:
            learner.restore(before)
    return row


def _stored(context: Any, dataset_config: Any, schedule: Sequence[Any]) -> Any:
    """Open the data of the PPO stages once; ``None`` when there are none."""
    if all(stage.mode == "bc" for stage in schedule):
        return None
    try:
        return context.services.replay.build_dataset(dataset_config)
    except MissingFileError as error:
        if dataset_config is not None or context.config.training.replay_manifest is not None:
            raise
        msg = "Replay manifest required for PPO stages in anneal: pass dataset_config or set training.replay_manifest"
        raise ConfigurationError(msg) from error


def _label(data: Mapping[str, Any]) -> str:
    for dataset in (data.get("in_memory_dataset"), data.get("dataset_config")):
        if dataset is not None:
            return str(getattr(dataset, "label", None) or "dataset")
    return "none"
