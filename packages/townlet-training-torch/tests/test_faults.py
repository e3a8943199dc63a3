"""What is wrong with data, schedule, device or numbers is refused by a typed error that says where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from townlet_training_core.config.models import AnnealStage
from townlet_training_core.config.requests import AnnealRequest, BCRequest, PPORequest
from townlet_training_core.errors import CapabilityError, ConfigurationError, NonFiniteError, SpaceMismatchError
from townlet_training_core.policy.scripted import ScriptedPolicy
from townlet_training_torch.anneal import AnnealStrategy
from townlet_training_torch.bc import BCStrategy
from townlet_training_torch.networks import build_network, describe
from townlet_training_torch.policy import TorchPolicy
from townlet_training_torch.ppo import PPOStrategy

WRONG = [np.nan, np.inf, -np.inf]


def _own(workshop: Any, *, name: str, spoil: Any = None) -> Any:
    network = build_network(describe(workshop.make().spec, workshop.config().network))
    return workshop.write(TorchPolicy(network), name=name, spoil=spoil)


def _spoilt(workshop: Any, array: str, value: float, *, at: int) -> None:
    """Let the simulations of the workshop give ``value`` in one slot at their step ``at``."""
    make = workshop.make

    def spoiling(num_envs: int = 4) -> Any:
        simulation = make(num_envs=num_envs)
        step, taken = simulation.step, [0]

        def wrong(actions: Any, out: Any) -> None:
            step(actions, out)
            taken[0] += 1
            if taken[0] == at:
                found = out.rewards if array == "rewards" else out.observations[array]
                found[1] = value

        simulation.step = wrong
        return simulation

    workshop.make = spoiling


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("array", ["rewards", "features", "state"])
@pytest.mark.parametrize(("at", "batch"), [(3, 0), (20, 1)])
def test_a_rollout_that_is_no_number_names_dataset_and_batch(
    workshop: Any, array: str, value: float, at: int, batch: int
) -> None:
    workshop.use(task="identity", with_state=True)
    _spoilt(workshop, array, value, at=at)
    config = workshop.config(network={"centralised_critic": True})
    with pytest.raises(NonFiniteError, match=rf"PPO .* contained NaN/inf \(dataset=rollout, batch={batch}\)"):
        PPOStrategy().run(workshop.context(config), PPORequest())


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("field", ["rewards", "old_log_probs", "value_preds", "features"])
@pytest.mark.parametrize("mode", ["replay", "mixed"])
def test_stored_data_that_is_no_number_names_dataset_and_batch(
    workshop: Any, mode: str, field: str, value: float
) -> None:
    workshop.use(task="identity")

    def spoil(sample: Any) -> None:
        getattr(sample, field)[3] = value

    manifest = _own(workshop, name="spoilt", spoil=spoil)
    with pytest.raises(NonFiniteError, match=r"PPO .* contained NaN/inf \(dataset=manifest, batch=0\)"):
        PPOStrategy().run(workshop.context(workshop.config()), PPORequest(mode=mode, manifest=manifest))


@pytest.mark.parametrize("value", WRONG)
def test_recomputed_log_probs_do_not_hide_observations_that_are_no_numbers(workshop: Any, value: float) -> None:
    workshop.use(task="identity")

    def spoil(sample: Any) -> None:
        sample.features[3] = value

    manifest = workshop.write(ScriptedPolicy(), name="spoilt", spoil=spoil)
    request = PPORequest(mode="replay", manifest=manifest, recompute_log_probs=True)
    with pytest.raises(NonFiniteError, match=r"PPO .* contained NaN/inf \(dataset=manifest, batch=0\)"):
        PPOStrategy().run(workshop.context(workshop.config()), request)


@pytest.mark.parametrize("value", WRONG)
def test_expert_rows_of_the_bc_loss_are_looked_at_too(workshop: Any, value: float) -> None:
    workshop.use(task="identity")

    def spoil(sample: Any) -> None:
        sample.features[3] = value

    manifest = workshop.write(ScriptedPolicy(), name="spoilt", spoil=spoil)
    with pytest.raises(NonFiniteError, match=r"BC features contained NaN/inf \(dataset=manifest, batch=0\)"):
        PPOStrategy().run(workshop.context(workshop.config()), PPORequest(bc_weight=0.5, manifest=manifest))


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("field", ["rewards", "features"])
def test_captures_to_clone_that_are_no_numbers_are_named(workshop: Any, field: str, value: float) -> None:
    workshop.use(task="identity")

    def spoil(sample: Any) -> None:
        getattr(sample, field)[3] = value

    manifest = workshop.write(ScriptedPolicy(), name="spoilt", spoil=spoil)
    with pytest.raises(NonFiniteError, match=rf"BC {field} contained NaN/inf \(dataset=.*spoilt.*, batch=0\)"):
        BCStrategy().run(workshop.context(workshop.config()), BCRequest(manifest=manifest))
    _spoilt(workshop, field, value, at=5)
    with pytest.raises(NonFiniteError, match=rf"BC {field} contained NaN/inf \(dataset=expert, batch=0\)"):
        BCStrategy().run(workshop.context(workshop.config(), name="captured"), BCRequest())


def test_training_that_diverges_is_called_that_and_the_last_checkpoint_stays_sound(workshop: Any) -> None:
    workshop.use(task="identity")
    wild = {"learning_rate": 1e30, "max_grad_norm": 0.0}
    config = workshop.config(ppo=wild, checkpoint={"every": 1})
    with pytest.raises(NonFiniteError, match=r"PPO .* contained NaN/inf \(dataset=rollout, batch=\d+\)"):
        PPOStrategy().run(workshop.context(config), PPORequest())
    context = workshop.context(workshop.config(bc=wild, checkpoint={"every": 1}), name="bc")
    with pytest.raises(NonFiniteError, match=r"BC .* contained NaN/inf \(dataset=expert, batch=\d+\)"):
        BCStrategy().run(context, BCRequest())


def test_data_of_other_actions_is_refused_before_anything_runs(workshop: Any) -> None:
    workshop.use(task="identity")
    manifest = _own(workshop, name="own")
    make = workshop.make

    def other(num_envs: int = 4, **changes: Any) -> Any:
        simulation = make(num_envs=num_envs)
        simulation.spec = replace(simulation.spec, action_names=("up", "right", "down", "left"))
        return simulation

    workshop.make = other
    with pytest.raises(SpaceMismatchError, match=r"has the actions \('north'.*'up'"):
        PPOStrategy().prepare(workshop.context(workshop.config()), PPORequest(mode="mixed", manifest=manifest))

    def fewer(num_envs: int = 4) -> Any:
        simulation = make(num_envs=num_envs)
        simulation.spec = replace(simulation.spec, action_names=("north", "east"))
        return simulation

    workshop.make = fewer
    with pytest.raises(SpaceMismatchError, match="actions"):
        PPOStrategy().prepare(workshop.context(workshop.config()), PPORequest(mode="mixed", manifest=manifest))


@pytest.mark.parametrize(
    ("stage", "error", "message"),
    [
        ({"mode": "bc"}, CapabilityError, "no scripted expert to clone"),
        ({"mode": "ppo", "bc_weight": 0.5}, ConfigurationError, "bc_weight needs the expert's actions"),
    ],
)
def test_a_schedule_without_data_is_refused_before_anything_runs(
    workshop: Any, stage: dict[str, Any], error: type[Exception], message: str
) -> None:
    workshop.use(task="identity", expert=False)
    stages = (AnnealStage(cycle=0, mode="ppo", bc_weight=0.0), AnnealStage(cycle=1, **stage))
    config = workshop.config(training={"anneal_schedule": stages})
    with pytest.raises(error, match=message):
        AnnealStrategy().prepare(workshop.context(config), AnnealRequest())


def test_a_manifest_that_is_not_there_is_refused_before_anything_runs(workshop: Any) -> None:
    from townlet_training_core.errors import MissingFileError

    workshop.use(task="identity")
    nowhere = workshop.root / "nowhere.json"
    context = workshop.context(workshop.config(training={"anneal_schedule": (AnnealStage(mode="bc"),)}))
    asked: tuple[tuple[Any, Any], ...] = (
        (BCStrategy(), BCRequest(manifest=nowhere)),
        (PPOStrategy(), PPORequest(manifest=nowhere, mode="replay")),
        (AnnealStrategy(), AnnealRequest(manifest=nowhere)),
    )
    for strategy, request in asked:
        with pytest.raises(MissingFileError, match=r"nowhere\.json"):
            strategy.prepare(context, request)


@pytest.mark.parametrize("strategy", ["bc", "ppo", "anneal"])
def test_a_device_that_does_not_exist_is_refused_before_anything_runs(workshop: Any, strategy: str) -> None:
    workshop.use(task="identity")
    stages = (AnnealStage(cycle=0, mode="bc"), AnnealStage(cycle=1, mode="ppo"))
    config = workshop.config(compute={"device": "cuda:7"}, training={"anneal_schedule": stages})
    chosen: Any = {"bc": BCStrategy, "ppo": PPOStrategy, "anneal": AnnealStrategy}[strategy]()
    with pytest.raises(ConfigurationError, match=r"device 'cuda:7' does not exist here; choose one of cpu"):
        chosen.prepare(workshop.context(config), chosen.request_type())
    own = workshop.config(bc={"device": "cuda:9"}, training={"anneal_schedule": stages})
    if strategy != "ppo":
        with pytest.raises(ConfigurationError, match="cuda:9"):
            chosen.prepare(workshop.context(own, name="own"), chosen.request_type())
