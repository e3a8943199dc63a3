"""Proximal policy optimisation (Schulman et al. 2017).

Words: an *iteration* captures ``rollout_steps`` steps of every slot with the current policy and updates on them; an
*update* is ``num_epochs`` passes; a *pass* deals the rows, reshuffled, into mini-batches, and each mini-batch is one
step of the optimiser. The first mini-batch after a capture has ratio 1.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_training_core.config.requests import PPORequest, TrainingRequest
from townlet_training_core.dto.results import PPOTrainingResultDTO
from townlet_training_core.strategy import PreparationContext, TrainingContext
from townlet_training_torch.device import compute_threads
from townlet_training_torch.minibatches import deal
from townlet_training_torch.objectives import UpdatePlan, ppo_loss, ppo_step
from townlet_training_torch.session import Session, check_start
from townlet_training_torch.sources import Harvest, PPOSource
from townlet_training_torch.summaries import UPDATE_METRICS, anneal_summary, update_summary

__all__ = ["PPOStrategy", "ppo_loss"]


class PPOStrategy:
    """Improve a policy on fresh rollouts, on stored data with log-probabilities, or on both."""

    name: ClassVar[str] = "ppo"
    requires_torch: ClassVar[bool] = True
    request_type: ClassVar[type[TrainingRequest]] = PPORequest

    def prepare(self, context: PreparationContext, request: PPORequest) -> None:
        """Check device, data, expert, network and warm start."""
        with PPOSource.open(context, request, num_envs=1) as source:
            check_start(context, source.spaces, request.init_from)

    def run(self, context: TrainingContext, request: PPORequest) -> PPOTrainingResultDTO:
        """Alternate capture and update; the newest checkpoint holds the last policy."""
        started, config = time.perf_counter(), context.config.ppo
        with compute_threads(context.config.compute.threads), PPOSource.open(context, request) as source:
            session = Session(
                context,
                check_start(context, source.spaces, request.init_from),
                init_from=request.init_from,
                learning_rate=config.learning_rate,
                eps=config.adam_eps,
                max_grad_norm=config.max_grad_norm,
            )
            source.start(session)
            summary = self._iterate(session, source, request)
        return PPOTrainingResultDTO(
            **summary,
            duration_sec=time.perf_counter() - started,
            run_id=context.run.run_id,
            checkpoint=session.checkpoint(),
        )

    def _iterate(self, session: Session, source: PPOSource, request: PPORequest) -> dict[str, Any]:
        context, total = session.context, request.iterations or session.context.config.ppo.iterations
        every = context.config.evaluation.every
        state: dict[str, Any] = dict(session.resumed.state) if session.resumed else {"steps": 0.0, "summary": {}}
        if session.resumed is None:
            session.boundary(0, final=False, rollout=source.state(), state=state)
        context.progress.start(context.stage or "ppo", total=total - session.step)
        score = session.evaluate().summary.mean.estimate if session.due(every) and session.step < total else None
        for iteration in range(session.step, total):
            plan, begun = (
                UpdatePlan.of(context.config.ppo, request, iteration=iteration, total=total),
                time.perf_counter(),
            )
            harvest = source.collect(iteration, expert_share=plan.expert_share)
            captured = time.perf_counter()
            session.check_stop()
            table = self._update(session, source, harvest, plan)
            source.settle()
            ended = time.perf_counter()
            state["steps"] += harvest.summary["transitions"]
            summary = {
                **harvest.summary,
                **update_summary(table, dataset=source.label, batch=iteration),
                "epoch": float(iteration + 1),
                "steps": state["steps"],
                "lr": plan.learning_rate,
                "log_stream_offset": float(iteration + 1),
                "epoch_duration_sec": ended - begun,
            }
            summary |= anneal_summary(context.anneal, summary) if context.anneal else {}
            health = {
                **harvest.health,
                "loss_bc": float(table[:, UPDATE_METRICS.index("loss_bc")].mean()),
                "bc_weight": plan.bc_weight,
                "expert_share": plan.expert_share,
                "entropy_coef": plan.entropy_coef,
                "capture_sec": captured - begun,
                "update_sec": ended - captured,
                "transitions_per_s": harvest.summary["transitions"] / (ended - begun),
            }
            show = {"loss": summary["loss_total"], "steps_per_s": health["transitions_per_s"]}
            show |= {"return": health["episode_return"]} if "episode_return" in health else {}
            session.log("ppo.iteration", {**summary, "health": health}, show=show)
            state["summary"], session.step = summary, iteration + 1
            if session.due(every):
                score = session.evaluate().summary.mean.estimate
            final = score if every else health.get("episode_return")
            session.boundary(
                iteration + 1, final=iteration + 1 == total, rollout=source.state(), state=state, score=final
            )
        return dict(state["summary"])

    def _update(self, session: Session, source: PPOSource, harvest: Harvest, plan: UpdatePlan) -> NDArray[np.float32]:
        """Run the passes of one update; metrics stay tensors until it is over."""
        config, learner = session.context.config.ppo, session.learner
        learner.set_learning_rate(plan.learning_rate)
        learner.train_value_only(plan.value_only)
        table: list[Tensor] = []
        for _ in range(config.num_epochs):
            first = len(table)
            for units in deal(harvest.rows, harvest.size, session.streams["minibatches"]):
                expert = source.expert_batch(harvest.size, session.streams["expert"]) if plan.bc_weight > 0.0 else None
                table.append(ppo_step(learner, harvest.rows.gather(units), config, plan=plan, expert=expert))
                session.check_stop()
            if config.target_kl is not None:
                kl = torch.stack(table[first:])[:, UPDATE_METRICS.index("kl")].mean()
                if float(kl) > config.target_kl:
                    break
        learner.train_value_only(False)
        numbers: NDArray[np.float32] = torch.stack(table).cpu().numpy()
        return numbers
