"""Anneal: weights flow, failed stages roll back, stages resume, the verdict follows the evaluations."""

from __future__ import annotations

import json
from dataclasses import replace
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


def test_an_anneal_of_2n_stages_equals_one_of_n_and_its_resumption(workshop: Any) -> None:
    workshop.use(task="masked", agents=2)
    stages = (BC, PPO, AnnealStage(cycle=2, mode="ppo", epochs=2, bc_weight=0.3), AnnealStage(cycle=3, mode="bc"))
    config = _config(workshop, *stages, threshold=0.0)
    whole = workshop.context(config, name="whole")
    expected = AnnealStrategy().run(whole, AnnealRequest())
    halves = workshop.context(config, name="halves")
    AnnealStrategy().run(halves, AnnealRequest(schedule=stages[:2]))
    again = workshop.context(config, name="halves", resume=True)
    found = AnnealStrategy().run(again, AnnealRequest())
    for first, second in zip(expected.stages, found.stages, strict=True):
        for file in ("policy.safetensors", "optimizer.safetensors"):
            one, other = (run.run.path / str(first.checkpoint) / file for run in (whole, again))
            assert sha256_file(one) == sha256_file(other), (first.checkpoint, file)
        assert first.model_dump(exclude={"duration_sec"}) == second.model_dump(exclude={"duration_sec"})
    assert found.baselines == expected.baselines
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


class _Staged:
    """Makes toys whose rules follow the option ``rewards.social_stage``, and notes each making."""

    def __init__(self, workshop: Any) -> None:
        self.workshop, self.made = workshop, list[tuple[str, str]]()

    def __call__(self, *, num_envs: int | None = None, options: Any = None) -> Any:
        stage = (options or {}).get("rewards", {}).get("social_stage", "as configured")
        toy = self.workshop.make(num_envs=num_envs or 8)
        toy.spec = replace(toy.spec, rules_hash=f"toy {stage}")
        self.made.append((stage, toy.spec.rules_hash))
        return toy


def _staged(workshop: Any, config: Any) -> tuple[Any, _Staged]:
    make, context = _Staged(workshop), workshop.context(config)
    return replace(context, services=replace(context.services, make_simulation=make)), make


def test_a_cycle_selects_the_social_reward_stage_for_its_stage_alone(workshop: Any) -> None:
    workshop.use(task="identity")
    stages = (BC, PPO, AnnealStage(cycle=3, mode="ppo", epochs=1, bc_weight=0.0))
    schedule = [{"cycle": 1, "stage": "C1"}, {"cycle": 2, "stage": "C2"}]
    config = _config(workshop, *stages, training={"social_reward_schedule": schedule})
    before = config.model_dump_json()
    context, make = _staged(workshop, config)
    AnnealStrategy().prepare(context, AnnealRequest())
    make.made.clear()
    summary = AnnealStrategy().run(context, AnnealRequest())
    trained = []
    for number, stage in enumerate(summary.stages):
        description = ExportedPolicy.load(context.run.path / str(stage.checkpoint)).description
        trained.append(description.rules_hash)
        rules = context.run.read_result(f"evaluation/{number:02d}-{stage.mode}")
        assert rules is not None
        assert rules["rules_hash"] == "toy identity 8"  # evaluations keep the configured reward
    assert trained == ["toy as configured", "toy C1", "toy C2"]
    assert config.model_dump_json() == before
    assert make.made[0][0] == "as configured"


def test_an_override_holds_in_every_stage(workshop: Any) -> None:
    workshop.use(task="identity")
    config = _config(workshop, BC, PPO, training={"social_reward_stage_override": "C2"})
    context, _ = _staged(workshop, config)
    summary = AnnealStrategy().run(context, AnnealRequest())
    for stage in summary.stages:
        assert ExportedPolicy.load(context.run.path / str(stage.checkpoint)).description.rules_hash == "toy C2"


def test_a_simulation_without_social_reward_stages_is_refused_before_anything_runs(workshop: Any) -> None:
    workshop.use(task="identity")
    config = _config(workshop, BC, PPO, training={"social_reward_schedule": [{"cycle": 1, "stage": "C1"}]})
    context = workshop.context(config)
    deaf = replace(context.services, make_simulation=lambda num_envs=None, options=None: workshop.make())
    with pytest.raises(ConfigurationError, match=r"social_reward_\* asks for the social reward stage 'C1'"):
        AnnealStrategy().prepare(replace(context, services=deaf), AnnealRequest())


def test_an_empty_schedule_is_refused(workshop: Any) -> None:
    with pytest.raises(ConfigurationError, match="anneal_schedule is empty"):
        AnnealStrategy().prepare(workshop.context(workshop.config()), AnnealRequest())
