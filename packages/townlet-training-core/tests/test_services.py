"""Services: the social reward stage of a cycle holds for training and for nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from townlet_training_core.config.models import TrainingConfig, TrainingSettings
from townlet_training_core.errors import ConfigurationError
from townlet_training_core.services import TrainingServices
from townlet_training_core.testing.counting import CountingSimulation

SCHEDULE = [{"cycle": 4, "stage": "C2"}, {"cycle": 1, "stage": "C1"}]


def _config(simulation: dict[str, Any] | None = None, **training: Any) -> TrainingConfig:
    town = {"name": "town", "num_envs": 1, "options": {"agents": 2, "rewards": {"wage": False}}}
    return TrainingConfig.model_validate({"simulation": simulation or town, "training": training})


@pytest.mark.parametrize(("cycle", "stage"), [(0, None), (1, "C1"), (3, "C1"), (4, "C2"), (99, "C2")])
def test_the_last_entry_that_has_begun_decides(cycle: int, stage: str | None) -> None:
    settings = TrainingSettings.model_validate({"social_reward_schedule": SCHEDULE})
    assert settings.social_stage_at(cycle) == stage
    fixed = settings.model_copy(update={"social_reward_stage_override": "OFF"})
    assert fixed.social_stage_at(cycle) == "OFF"
    assert TrainingSettings().social_stage_at(cycle) is None


def test_the_town_is_made_with_the_stage_of_the_cycle_and_nothing_else_changes() -> None:
    config = _config(social_reward_schedule=SCHEDULE)
    before = config.model_dump_json()
    services = TrainingServices.from_config(config)
    stages, hashes = [], set()
    for cycle in (0, 1, 4, 0):
        made: Any = services.at_cycle(config, cycle).make_simulation()
        stages.append(made.config.rewards.social_stage)
        hashes.add(made.spec.rules_hash)
        assert made.config.rewards.wage is False
        assert made.config.agents == 2
        made.close()
    assert stages == ["C3", "C1", "C2", "C3"]
    assert len(hashes) == 3
    evaluated: Any = services.at_cycle(config, 4).evaluation.simulation
    assert evaluated.config.rewards.social_stage == "C3"
    services.evaluation.close()
    assert config.model_dump_json() == before


def test_outside_an_anneal_the_cycle_is_0_and_a_later_cycle_replaces_it() -> None:
    config = _config(social_reward_schedule=[{"cycle": 0, "stage": "OFF"}, {"cycle": 1, "stage": "C1"}])
    services = TrainingServices.from_config(config)
    for made, stage in ((services, "OFF"), (services.at_cycle(config, 1), "C1")):
        simulation: Any = made.make_simulation(num_envs=2)
        assert simulation.config.rewards.social_stage == stage
        assert simulation.spec.num_envs == 2
        simulation.close()


def test_a_simulation_that_refuses_the_option_is_named() -> None:
    config = _config({"name": "gymnasium", "options": {"env": "CartPole-v1"}}, social_reward_stage_override="C1")
    with pytest.raises(ConfigurationError, match=r"stage 'C1', which simulation 'gymnasium' does not take"):
        TrainingServices.from_config(config).make_simulation(num_envs=1)


def test_a_simulation_that_ignores_the_option_is_refused() -> None:
    config = _config(social_reward_stage_override="OFF")

    def deaf(*, num_envs: int | None = None, options: Mapping[str, Any] | None = None) -> Any:
        del options
        return CountingSimulation(num_envs or 2)

    services = replace(TrainingServices.from_config(_config()), make_simulation=deaf).at_cycle(config, 0)
    with pytest.raises(ConfigurationError, match="rules are the same at every stage"):
        services.make_simulation()


def test_another_option_may_be_named() -> None:
    config = _config(social_reward_stage_override="C2", social_reward_option="reward.stage")
    asked: list[Any] = []

    def make(*, num_envs: int | None = None, options: Mapping[str, Any] | None = None) -> Any:
        asked.append(options)
        ticks = {"OFF": 3, "C2": 4}[(options or {})["reward"]["stage"]]
        return CountingSimulation(num_envs or 2, episode_ticks=ticks)

    services = replace(TrainingServices.from_config(_config()), make_simulation=make).at_cycle(config, 0)
    services.make_simulation()
    assert asked[0] == {"agents": 2, "rewards": {"wage": False}, "reward": {"stage": "C2"}}
