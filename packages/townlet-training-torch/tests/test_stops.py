"""A stop is honoured before another step is taken, whatever goes on, and nothing is lost by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from townlet_training_core.config.models import AnnealStage
from townlet_training_core.config.requests import PPORequest
from townlet_training_core.errors import InterruptedRunError
from townlet_training_core.files import sha256_file
from townlet_training_core.policy.scripted import ScriptedPolicy
from townlet_training_torch.anneal import AnnealStrategy
from townlet_training_torch.bc import BCStrategy
from townlet_training_torch.experience import memory_at_starts, recomputed
from townlet_training_torch.ppo import PPOStrategy

STRATEGIES: dict[str, type[Any]] = {"bc": BCStrategy, "ppo": PPOStrategy, "anneal": AnnealStrategy}


class Steps:
    """Counts the steps of every simulation that is made."""

    def __init__(self, workshop: Any) -> None:
        self.taken = 0
        make = workshop.make

        def counted(num_envs: int = 4) -> Any:
            simulation = make(num_envs=num_envs)
            step = simulation.step

            def count(*arguments: Any, **named: Any) -> None:
                self.taken += 1
                step(*arguments, **named)

            simulation.step = count
            return simulation

        workshop.make = counted


def _config(workshop: Any, **changes: Any) -> Any:
    stages = (AnnealStage(cycle=0, mode="bc", epochs=2), AnnealStage(cycle=1, mode="ppo", epochs=2, bc_weight=0.2))
    return workshop.config(
        bc={"dagger_rounds": 1, "dagger_steps": 12, "epochs": 2},
        ppo={"iterations": 3, "learning_rate_schedule": "linear", "entropy_schedule": "linear", "target_kl": 0.01},
        training={"anneal_schedule": stages, "anneal_accuracy_threshold": 0.0},
        evaluation={"every": 1, "episodes": 8, "num_envs": 4, "resamples": 200},
        checkpoint={"every": 10},
        **changes,
    )


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("strategy", ["bc", "ppo", "anneal"])
def test_no_step_is_taken_after_a_stop_and_the_weights_end_the_same(
    workshop: Any, stop_when: Any, strategy: str, share: float
) -> None:
    steps = Steps(workshop.use(task="masked", agents=2))
    config, chosen = _config(workshop), STRATEGIES[strategy]()
    whole = workshop.context(config, name="whole")
    expected = chosen.run(whole, chosen.request_type())
    last = steps.taken - 1  # before the last step of all
    moment, steps.taken = 1 + round(share * (last - 1)), 0
    stopped = workshop.context(config, name="stopped", stop=stop_when(lambda: steps.taken >= moment))
    with pytest.raises(InterruptedRunError, match=r"resume with: townlet train --resume .*stopped"):
        chosen.run(stopped, chosen.request_type())
    assert steps.taken == moment
    again = workshop.context(config, name="stopped", resume=True)
    found = chosen.run(again, chosen.request_type())
    assert found.checkpoint == expected.checkpoint
    for file in ("policy.safetensors", "optimizer.safetensors"):
        first, second = (run.run.path / str(expected.checkpoint) / file for run in (whole, again))
        assert sha256_file(first) == sha256_file(second), file


def test_a_stop_is_seen_between_passes_over_stored_data(workshop: Any, stop_when: Any) -> None:
    workshop.use(task="identity")
    manifest = workshop.write(ScriptedPolicy(), name="data")
    request = PPORequest(mode="replay", manifest=manifest, recompute_log_probs=True)
    context = workshop.context(_config(workshop), stop=stop_when(lambda: True))
    with pytest.raises(InterruptedRunError):
        PPOStrategy().run(context, request)


def test_passes_over_data_call_between(workshop: Any) -> None:
    from townlet_training_core.config.models import NetworkConfig
    from townlet_training_torch.experience import capture
    from townlet_training_torch.networks import build_network, describe

    simulation = workshop.toy(3)
    looks: list[int] = []

    def look() -> None:
        looks.append(1)

    arrays = capture(simulation, ScriptedPolicy(), steps=9, seed=1, between=look)
    assert len(looks) == 9
    network = build_network(describe(simulation.spec, NetworkConfig(hidden_dim=4, recurrent="gru")))
    memory_at_starts(network, arrays, length=4, between=look)
    assert len(looks) == 9 + 3
    assert np.isfinite(np.asarray(recomputed(network, arrays, between=look).log_probs)).all()
    assert len(looks) == 9 + 3 + 1
