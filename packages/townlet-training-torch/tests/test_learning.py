"""Tasks whose best policy is known are learned in seconds."""

from __future__ import annotations

from typing import Any

import pytest

from townlet_training_core.config.requests import PPORequest
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_torch.ppo import PPOStrategy

SETTLING = {"learning_rate_schedule": "linear"}
"""Perfect play is asked for: a step size that stays large leaves one rare observation wrong on every other seed."""


def _learn(workshop: Any, *, iterations: int, greedy: bool = True, **changes: Any) -> float:
    ppo = {
        "learning_rate": 1e-2,
        "rollout_steps": 16,
        "iterations": iterations,
        "num_epochs": 6,
        **changes.pop("ppo", {}),
    }
    config = workshop.config(ppo=ppo, evaluation={"greedy": greedy, "episodes": 16}, **changes)
    context = workshop.context(config)
    result = PPOStrategy().run(context, PPORequest())
    assert result.steps == 16 * 6 * iterations
    policy = ExportedPolicy.load(context.run.path / str(result.checkpoint))
    return float(context.services.evaluation.evaluate(policy, label="learned").summary.mean.estimate)


def test_identity_is_learned_within_2000_steps(workshop: Any) -> None:
    workshop.use(task="identity")
    assert _learn(workshop, iterations=20, ppo=SETTLING) == 8.0  # 1,920 steps, the most that can be had


def test_a_bandit_is_learned_within_2000_steps(workshop: Any) -> None:
    workshop.use(task="bandit")
    assert _learn(workshop, iterations=20) == 8.0


def test_a_masked_task_is_learned(workshop: Any) -> None:
    workshop.use(task="masked")
    assert _learn(workshop, iterations=20, ppo=SETTLING) == 8.0


@pytest.mark.parametrize("options", [{"normalize_observations": True, "normalize_returns": True}, {"value_clip": 0.0}])
def test_switches_do_not_hinder_learning(workshop: Any, options: dict[str, Any]) -> None:
    workshop.use(task="identity")
    assert _learn(workshop, iterations=20, ppo=options) >= 7.5


def test_bf16_does_no_harm(workshop: Any) -> None:
    workshop.use(task="identity")
    assert _learn(workshop, iterations=20, ppo=SETTLING, compute={"bf16": True}) >= 7.5


def test_a_centralised_critic_and_shared_policies_learn(workshop: Any) -> None:
    workshop.use(task="identity", agents=2, with_state=True, with_map=True)
    config_network = {"centralised_critic": True, "kind": "convolutional"}
    ppo = {"learning_rate": 1e-2, "iterations": 10, "num_epochs": 6}
    config = workshop.config(ppo=ppo, network=config_network, evaluation={"greedy": True})
    context = workshop.context(config)
    result = PPOStrategy().run(context, PPORequest())
    policy = ExportedPolicy.load(context.run.path / str(result.checkpoint))
    assert context.services.evaluation.evaluate(policy, label="x").summary.mean.estimate >= 7.5


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_only_a_policy_that_remembers_solves_the_memory_task(workshop: Any, memory: str) -> None:
    workshop.use(task="memory", ticks=4)
    ppo = {"learning_rate": 1e-2, "sequence_length": 8, "entropy_coef": 0.02}
    recurrent = _learn(workshop, iterations=40, ppo=ppo, network={"recurrent": memory})
    assert recurrent >= 0.95  # an episode pays 1 for the right answer


def test_a_policy_without_memory_does_not_solve_the_memory_task(workshop: Any) -> None:
    workshop.use(task="memory", ticks=4)
    blind = _learn(workshop, iterations=50, ppo={"learning_rate": 5e-3, "entropy_coef": 0.02})
    assert blind <= 0.8  # guessing one of two gives 0.5
