"""Anneal: hand a cloned policy over to reinforcement learning, stage by stage, and never keep a stage that hurt.

Every stage starts from the last good checkpoint. A BC stage is good when its held-out accuracy reaches the
threshold; a failed one ends the anneal. A PPO stage is rolled back when it is surely worse than what it started
from: the interval of the paired return difference, on the same seeds, lies below ``-return_margin``. The
predecessor's loss and queue flags are reported beside it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from townlet_training_core.config.models import AnnealStage
from townlet_training_core.config.requests import AnnealRequest, TrainingRequest
from townlet_training_core.dto.results import AnnealStageResultDTO, AnnealSummaryDTO
from townlet_training_core.evaluation.compare import compare_paired
from townlet_training_core.files import atomic_write_json
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_core.strategy import PreparationContext, TrainingContext
from townlet_training_torch.bc import BCStrategy
from townlet_training_torch.checkpoint import point_latest
from townlet_training_torch.ppo import PPOStrategy
from townlet_training_torch.stages import anneal_context, baseline_of, bc_request, ppo_request, stages_of

__all__ = ["AnnealStrategy"]


class AnnealStrategy:
    """Run a schedule of BC and PPO stages; stages that are done are not run again on resume."""

    name: ClassVar[str] = "anneal"
    requires_torch: ClassVar[bool] = True
    request_type: ClassVar[type[TrainingRequest]] = AnnealRequest

    def prepare(self, context: PreparationContext, request: AnnealRequest) -> None:
        """Check the schedule and every stage of it."""
        for stage in stages_of(context, request):
            inner = replace(context, services=context.services.at_cycle(context.config, stage.cycle))
            if stage.mode == "bc":
                BCStrategy().prepare(inner, bc_request(stage, request, request.init_from))
            else:
                PPOStrategy().prepare(inner, ppo_request(inner, stage, request, request.init_from))

    def run(self, context: TrainingContext, request: AnnealRequest) -> AnnealSummaryDTO:
        """Run the stages and record the verdict with the promotion service."""
        started, run = time.perf_counter(), context.run
        label = str(request.manifest or context.config.training.bc.manifest or context.config.simulation.name)
        baselines = run.read_result("anneal_baselines") or {}
        stages: list[AnnealStageResultDTO] = []
        good = request.init_from
        for number, stage in enumerate(stages_of(context, request)):
            name = f"{number:02d}-{stage.mode}"
            done = run.read_result(f"stages/{name}") if context.resume else None
            if done is None:
                inner = context.derive(
                    stage=name,
                    anneal=anneal_context(context, stage, label, done=stages, baselines=baselines),
                    services=context.services.at_cycle(context.config, stage.cycle),
                )
                run_stage = self._clone if stage.mode == "bc" else self._improve
                result = run_stage(inner, stage, request, good)
                run.write_result(f"stages/{name}", result.model_dump(mode="json"))
            else:
                result = AnnealStageResultDTO.model_validate(done)
            stages.append(result)
            if not result.rolled_back and result.checkpoint is not None:
                good = run.path / result.checkpoint
                if stage.mode == "ppo":
                    baselines[label] = baseline_of(result)
                    run.write_result("anneal_baselines", baselines)
            if good is not None and good.is_relative_to(run.path):
                point_latest(good)  # after a rollback the newest checkpoint is not the one to use
            if result.rolled_back and result.mode == "bc":
                break
        rows = [result.model_dump(mode="json") for result in stages]
        atomic_write_json(run.results / "anneal_results.json", rows)
        failed = any(result.mode == "bc" and not result.passed for result in stages)
        status = "FAIL" if failed else "HOLD" if any(result.rolled_back for result in stages) else "PASS"
        promotion = context.services.promotion.record_evaluation(status=status, results=rows)
        inside = good is not None and good.is_relative_to(run.path)
        return AnnealSummaryDTO(
            stages=tuple(stages),
            status=status,
            dataset_label=label,
            baselines=baselines,
            promotion_pass_streak=promotion["pass_streak"],
            promotion_candidate_ready=promotion["candidate_ready"],
            duration_sec=time.perf_counter() - started,
            run_id=run.run_id,
            checkpoint=good.relative_to(run.path).as_posix() if good is not None and inside else None,
        )

    def _clone(
        self, context: TrainingContext, stage: AnnealStage, request: AnnealRequest, good: Path | None
    ) -> AnnealStageResultDTO:
        result = BCStrategy().run(context, bc_request(stage, request, good))
        threshold = context.config.training.anneal_accuracy_threshold
        passed = result.val_accuracy is not None and result.val_accuracy >= threshold
        return AnnealStageResultDTO(
            cycle=stage.cycle,
            mode="bc",
            accuracy=result.val_accuracy,
            loss=result.loss,
            threshold=threshold,
            passed=passed,
            bc_weight=stage.bc_weight,
            rolled_back=None if passed else True,
            checkpoint=result.checkpoint,
            evaluation=_evaluate(context, context.run.path / str(result.checkpoint))[1],
            duration_sec=result.duration_sec,
        )

    def _improve(
        self, context: TrainingContext, stage: AnnealStage, request: AnnealRequest, good: Path | None
    ) -> AnnealStageResultDTO:
        result = PPOStrategy().run(context, ppo_request(context, stage, request, good))
        after, file = _evaluate(context, context.run.path / str(result.checkpoint))
        rolled_back = None
        if good is not None:
            before = context.services.evaluation.evaluate(
                ExportedPolicy.load(good), label="start", between=context.check_stop
            )
            difference = compare_paired(after, before, confidence=context.config.evaluation.confidence)
            context.run.write_result(f"comparisons/{context.stage}", difference.model_dump(mode="json"))
            rolled_back = difference.difference.high < -context.config.training.guardrails.return_margin or None
        flat = result.model_dump()
        shared = ("loss_total", "loss_policy", "loss_value", "queue_conflict_events", "queue_conflict_intensity_sum")
        flags = ("anneal_loss_flag", "anneal_queue_flag", "anneal_intensity_flag")
        return AnnealStageResultDTO(
            **{key: flat[key] for key in (*shared, *flags, "checkpoint", "duration_sec")},
            cycle=stage.cycle,
            mode="ppo",
            bc_weight=stage.bc_weight,
            rolled_back=rolled_back,
            evaluation=file,
        )


def _evaluate(context: TrainingContext, checkpoint: Path) -> tuple[Any, str]:
    policy = ExportedPolicy.load(checkpoint)
    result = context.services.evaluation.evaluate(policy, label=context.stage, between=context.check_stop)
    file = context.run.write_result(f"evaluation/{context.stage}", result.model_dump(mode="json"))
    mean = result.summary.mean
    record = {"stage": context.stage, "return_mean": mean.estimate, "return_low": mean.low, "return_high": mean.high}
    context.telemetry.log("anneal.stage", record)
    return result, file
