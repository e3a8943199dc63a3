"""Behaviour cloning: learn to do what the expert does, judged on trajectories that were never trained on.

An epoch is one shuffled pass over the training rows. The policy of a checkpoint is that of the best epoch so far
(held-out accuracy, then loss); the weights in training stand beside the optimiser's state. After ``epochs`` epochs
each DAgger round adds labelled states that the student visited, and the best is chosen anew.
"""

from __future__ import annotations

import time
from typing import ClassVar

from townlet_training_core.config.requests import BCRequest, TrainingRequest
from townlet_training_core.dto.results import BCTrainingResultDTO
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_core.strategy import PreparationContext, TrainingContext
from townlet_training_torch.cloning import CloningData, CloningProgress, classify, cloning_spaces, train_epoch
from townlet_training_torch.device import compute_threads
from townlet_training_torch.session import Session, check_start

__all__ = ["BCStrategy"]


class BCStrategy:
    """Clone the behaviour in a manifest, or of the simulation's scripted expert."""

    name: ClassVar[str] = "bc"
    requires_torch: ClassVar[bool] = True
    request_type: ClassVar[type[TrainingRequest]] = BCRequest

    def prepare(self, context: PreparationContext, request: BCRequest) -> None:
        """Check device, data and network; see :func:`~townlet_training_torch.session.check_start`."""
        settings = context.config.training.bc
        spaces = cloning_spaces(context, request.manifest or settings.manifest)
        check_start(context, spaces, request.init_from, device=settings.device)

    def run(self, context: TrainingContext, request: BCRequest) -> BCTrainingResultDTO:
        """Train, and leave the best epoch's policy in the newest checkpoint."""
        started, settings = time.perf_counter(), context.config.training.bc
        with (
            compute_threads(context.config.compute.threads),
            CloningData.open(context, request.manifest or settings.manifest) as data,
        ):
            description = check_start(context, data.spaces, request.init_from, device=settings.device)
            session = Session(
                context,
                description,
                init_from=request.init_from,
                learning_rate=settings.learning_rate,
                eps=context.config.ppo.adam_eps,
                max_grad_norm=settings.max_grad_norm,
                weight_decay=settings.weight_decay,
                device=settings.device,
            )
            last = self._train(session, data, epochs=request.epochs or settings.epochs)
        return BCTrainingResultDTO(
            **{key: last[key] for key in ("accuracy", "loss", "val_accuracy", "val_loss")},
            **{key: getattr(settings, key) for key in ("learning_rate", "batch_size", "weight_decay")},
            manifest=data.label,
            epochs=session.step,
            device=str(session.device),
            duration_sec=time.perf_counter() - started,
            run_id=context.run.run_id,
            checkpoint=session.checkpoint(),
        )

    def _train(self, session: Session, data: CloningData, *, epochs: int) -> dict[str, float]:
        settings, network, stage = session.context.config.training.bc, session.learner.network, session.context.stage
        total = epochs * (1 + settings.dagger_rounds)
        progress, data.between = CloningProgress(session.learner.tensors(), data.label), session.check_stop
        if session.resumed is None:
            data.prime(network, fresh=not session.warm)
            session.boundary(0, final=False, rollout={}, state=progress.state())
        else:
            progress.restore(session.resumed)
        for number, student in enumerate(progress.students):
            data.add_student_round(number, ExportedPolicy(student, network.description))
        session.context.progress.start(stage or "bc", total=total - session.step)
        while session.step < total and not 0 < settings.patience <= progress.stale:
            if session.step and session.step % epochs == 0 and len(progress.students) < session.step // epochs:
                number, student = len(progress.students), progress.begin_round()
                data.add_student_round(number, ExportedPolicy(student, network.description))
            started = time.perf_counter()
            rows, held_out = data.split(network)
            numbers = train_epoch(session, rows, class_weights=data.class_weights(session.device))
            numbers["samples_per_s"] = rows.transitions / (time.perf_counter() - started)
            names, look = network.description.action_names, session.check_stop
            report = classify(session.learner, held_out, names=names, top_k=settings.top_k, between=look)
            if progress.note(numbers, report, session):
                session.context.run.write_result(f"bc-report-{stage}" if stage else "bc-report", report)
            judged = {f"val_{key}": report[key] for key in ("accuracy", "loss", "macro_f1", "top_k_accuracy")}
            show = {"loss": numbers["loss"], "val_accuracy": report["accuracy"]}
            session.log("bc.epoch", {**numbers, **judged, "vacuous": report["vacuous"]}, show=show)
            step, score = session.step + 1, progress.last["val_accuracy"]
            final = step == total or 0 < settings.patience <= progress.stale
            kept = {"rollout": progress.arrays(), "state": progress.state(), "best": progress.best}
            session.boundary(step, final=final, score=score, **kept)
        return progress.last
