"""Anneal: weights flow, failed stages roll back, stages resume, the verdict follows the evaluations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from townlet_training_core.config.models import AnnealStage
from townlet_training_core.config.requests import AnnealRequest
from townlet_training_core.errors import ConfigurationError, InterruptedRunError
from townlet_training_core.files import sha256_file
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_torch.anneal import AnnealStrategy

BC = AnnealStage(cycle=0, mode="bc", epochs=6)
PPO = AnnealStage(cycle=1, mode="ppo", epochs=2, bc_weight=0.2, bc_weight_final=0.0)


def _config(workshop: Any, *stages: AnnealStage, threshold: float = 0.9, **changes: Any) -> Any:
    training = {
        "anneal_schedule": stages,
        "anneal_accuracy_threshold": threshold,
        **changes.pop("training", {}),
    }
    return workshop.config(
        training=training,
        bc={"learning_rate": changes.pop("learning_rate", 1e-2)},
        evaluation={"every": 1, "episodes": 8, "num_envs": 4, "resamples": 200},
        num_envs=8,
        **changes,
    )


def test_bc_weights_flow_into_ppo(workshop: Any) -> None:
    workshop.use(task="identity")
    config = _config(workshop, PPO, BC)  # out of order on purpose: cycles decide
    context = workshop.context(config)
    AnnealStrategy().prepare(context, AnnealRequest())
    summary = AnnealStrategy().run(context, AnnealRequest())
    assert summary.status == "PASS"
    assert [stage.mode for stage in summary.stages] == ["bc", "ppo"]
    bc = json.loads((context.run.path / str(summary.stages[0].evaluation)).read_text())
    first = next(r for r in workshop.telemetry.of("evaluation") if r["stage"] == "01-ppo" and r["epoch"] == 0)
    assert first["policy_hash"] == bc["policy_hash"]
    # A fresh service, so that the number is not merely remembered.
    again = workshop.services(config).evaluation.evaluate(
        ExportedPolicy.load(context.run.path / str(summary.stages[0].checkpoint)), label="again"
    )
    assert first["return_mean"] == bc["summary"]["mean"]["estimate"] == again.summary.mean.estimate
    assert summary.checkpoint == summary.stages[1].checkpoint
    assert (context.run.checkpoints / "latest").read_text().strip() == str(summary.checkpoint).split("/")[1]
    rows = json.loads((context.run.results / "anneal_results.json").read_text())
    assert [row["cycle"] for row in rows] == [0, 1]
    assert summary.baselines["toy"]["loss_total"] == summary.stages[1].loss_total
    assert summary.promotion_pass_streak == 1
    anneal_keys = workshop.telemetry.of("ppo.iteration")[-1]
    assert anneal_keys["anneal_bc_passed"] is True
    assert anneal_keys["anneal_stage"] == "ppo"


def test_a_bc_stage_below_the_threshold_fails_and_stops(workshop: Any) -> None:
    workshop.use(task="identity")
    failing = AnnealStage(cycle=0, mode="bc", epochs=1)
    config = _config(workshop, failing, PPO, learning_rate=1e-6)
    summary = AnnealStrategy().run(workshop.context(config), AnnealRequest())
    assert summary.status == "FAIL"
    assert len(summary.stages) == 1
    assert summary.stages[0].rolled_back is True
    assert summary.stages[0].passed is False
    assert summary.checkpoint is None
    assert summary.promotion_pass_streak == 0


def test_a_ppo_stage_that_hurts_is_rolled_back_and_the_next_starts_before_it(workshop: Any) -> None:
    workshop.use(task="identity")
    # A learning rate at which PPO destroys the cloned policy.
    ruin = AnnealStage(cycle=1, mode="ppo", epochs=3, bc_weight=0.0)
    again = AnnealStage(cycle=2, mode="ppo", epochs=1, bc_weight=0.0)
    ppo = {"learning_rate": 1.0, "max_grad_norm": 0.0, "entropy_coef": 1.0}
    context = workshop.context(_config(workshop, BC, ruin, again, ppo=ppo))
    summary = AnnealStrategy().run(context, AnnealRequest())
    assert summary.status == "HOLD"
    assert [stage.rolled_back for stage in summary.stages[:2]] == [None, True]
    began = {r["stage"]: r for r in workshop.telemetry.of("evaluation") if r["epoch"] == 0}
    assert began["02-ppo"]["policy_hash"] == began["01-ppo"]["policy_hash"]
    good = summary.stages[0] if summary.stages[2].rolled_back else summary.stages[2]
    assert summary.checkpoint == good.checkpoint
    assert (
        ExportedPolicy.load(context.run.path).content_hash()
        == ExportedPolicy.load(context.run.path / str(good.checkpoint)).content_hash()
    )
    comparison = json.loads((context.run.results / "comparisons" / "01-ppo.json").read_text())
    assert comparison["difference"]["high"] < 0


@pytest.mark.parametrize("looks", [3, 75, 150, 240])
def test_an_anneal_that_is_stopped_goes_on_as_if_nothing_happened(workshop: Any, stop_after: Any, looks: int) -> None:
    workshop.use(task="identity")
    second = AnnealStage(cycle=2, mode="ppo", epochs=2, bc_weight=0.0)
    config = _config(workshop, BC, PPO, second, threshold=0.5)
    whole = workshop.context(config, name="whole")
    expected = AnnealStrategy().run(whole, AnnealRequest())
    stopped = workshop.context(config, name="stopped", stop=stop_after(looks))
    with pytest.raises(InterruptedRunError):
        AnnealStrategy().run(stopped, AnnealRequest())
    again = workshop.context(config, name="stopped", resume=True)
    found = AnnealStrategy().run(again, AnnealRequest())
    for stage in range(3):
        first, other = (
            run.run.path / str(summary.stages[stage].checkpoint) / "policy.safetensors"
            for run, summary in ((whole, expected), (again, found))
        )
        assert sha256_file(first) == sha256_file(other)
    assert found.status == expected.status


def test_legacy_flags_are_reported_from_the_baseline_of_the_dataset(workshop: Any) -> None:
    workshop.use(task="identity")
    second = AnnealStage(cycle=2, mode="ppo", epochs=1, bc_weight=0.0)
    training = {"guardrails": {"loss_tolerance": 0.0}}
    summary = AnnealStrategy().run(
        workshop.context(_config(workshop, BC, PPO, second, training=training)), AnnealRequest()
    )
    assert [stage.anneal_loss_flag for stage in summary.stages] == [None, False, True]
    assert summary.stages[2].anneal_queue_flag is False
    assert summary.status in {"PASS", "HOLD"}


def test_blending_hands_decisions_to_the_expert(workshop: Any) -> None:
    workshop.use(task="identity")
    blended = AnnealStage(cycle=1, mode="ppo", epochs=2, bc_weight=0.5)
    AnnealStrategy().run(
        workshop.context(_config(workshop, BC, blended, training={"anneal_enable_policy_blend": True})), AnnealRequest()
    )
    assert [r["health"]["expert_share"] for r in workshop.telemetry.of("ppo.iteration")] == [0.5, 0.5]


def test_an_empty_schedule_is_refused(workshop: Any) -> None:
    with pytest.raises(ConfigurationError, match="anneal_schedule is empty"):
        AnnealStrategy().prepare(workshop.context(workshop.config()), AnnealRequest())
