"""The configuration surface: defaults, bounds, error texts, keys that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from townlet.config import AnnealStage, PPOConfig, RuntimeProviderConfig, SimulationConfig, TrainingConfig, load_config

MINIMAL: dict[str, Any] = {
    "config_id": "minimal",
    "features": {
        "stages": {"relationships": "OFF", "social_rewards": "C1"},
        "systems": {"lifecycle": "on", "observations": "hybrid"},
        "training": {"curiosity": "phase_A"},
        "console": {"mode": "viewer"},
    },
    "rewards": {},
}

PPO_DEFAULTS = {
    "learning_rate": 3e-4,
    "clip_param": 0.2,
    "value_loss_coef": 0.5,
    "entropy_coef": 0.01,
    "num_epochs": 4,
    "mini_batch_size": 32,
    "gae_lambda": 0.95,
    "gamma": 0.99,
    "max_grad_norm": 0.5,
    "value_clip": 0.2,
    "advantage_normalization": True,
    "num_mini_batches": 4,
}

OUT_OF_BOUNDS = [
    ("ppo.learning_rate", 0.0),
    ("ppo.clip_param", 1.1),
    ("ppo.value_loss_coef", -0.1),
    ("ppo.entropy_coef", -0.1),
    ("ppo.num_epochs", 0),
    ("ppo.num_epochs", 65),
    ("ppo.mini_batch_size", 0),
    ("ppo.gae_lambda", 1.1),
    ("ppo.gamma", -0.1),
    ("ppo.max_grad_norm", -1),
    ("ppo.value_clip", 2),
    ("ppo.num_mini_batches", 1025),
    ("training.source", "nothing"),
    ("training.rollout_ticks", -1),
    ("training.social_reward_stage_override", "C4"),
    ("training.anneal_accuracy_threshold", 1.5),
    ("rewards.needs_weights.hunger", 2.1),
    ("rewards.punctuality_bonus", 0.2),
    ("rewards.faint_penalty", 1.0),
    ("rewards.clip.clip_per_tick", 0.0),
    ("queue_fairness.cooldown_ticks", 601),
    ("queue_fairness.ghost_step_after", 101),
    ("conflict.rivalry.max_edges", 33),
    ("conflict.rivalry.queue_length_boost", 2.1),
    ("employment.grace_ticks", 121),
    ("employment.attendance_window", 15),
    ("observations_config.social_snippet.top_friends", 9),
    ("stability.promotion.required_passes", 0),
]


def _with(path: str, value: Any) -> dict[str, Any]:
    made = {**MINIMAL, "features": dict(MINIMAL["features"])}
    *sections, name = path.split(".")
    place = made
    for section in sections:
        place[section] = dict(place.get(section, {}))
        place = place[section]
    place[name] = value
    return made


def test_ppo_defaults() -> None:
    assert PPOConfig().model_dump() == PPO_DEFAULTS


def test_training_defaults() -> None:
    training = TrainingConfig()
    assert (training.source, training.rollout_ticks, training.rollout_auto_seed_agents) == ("replay", 100, False)
    assert training.replay_manifest is None
    assert training.bc.model_dump() == {
        "manifest": None,
        "learning_rate": 1e-3,
        "batch_size": 64,
        "epochs": 10,
        "weight_decay": 0.0,
        "device": "cpu",
    }
    assert AnnealStage().model_dump() == {"cycle": 0, "mode": "ppo", "epochs": 1, "bc_weight": 1.0}
    assert training.anneal_accuracy_threshold == 0.9
    assert training.anneal_enable_policy_blend is False


def test_a_minimal_file_loads_with_the_old_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    config = load_config(path)
    assert config.ppo is None
    assert config.stability.promotion.required_passes == 2
    assert config.policy_runtime.option_commit_ticks == 15
    assert config.runtime.policy == RuntimeProviderConfig(provider="scripted")
    assert config.features.stages.social_rewards == "C1"
    assert (config.conflict.rivalry.increment_per_conflict, config.employment.exit_review_window) == (0.15, 1440)


def test_extra_keys_and_relative_paths_are_kept() -> None:
    extra = {**MINIMAL, "seed": 7, "scenario": {"ticks": 3}, "training": {"replay_manifest": "data/m.json"}}
    config = SimulationConfig.model_validate(extra)
    assert config.model_dump()["seed"] == 7
    assert getattr(config, "scenario") == {"ticks": 3}  # noqa: B009  # no field of that name
    assert config.training.replay_manifest == Path("data/m.json")


def test_models_are_mutable() -> None:
    config = SimulationConfig.model_validate(MINIMAL)
    config.ppo = PPOConfig(gamma=0.5)
    config.training.anneal_schedule = [AnnealStage(mode="bc")]
    config.ppo.gamma = 0.4
    assert config.ppo.gamma == 0.4


def test_yaml_booleans_in_flags_are_understood() -> None:
    raw = yaml.safe_load("stages: {social_rewards: off}\nsystems: {lifecycle: on}\ntraining: {curiosity: off}")
    config = SimulationConfig.model_validate({**MINIMAL, "features": raw})
    assert config.features.stages.social_rewards == "OFF"
    assert config.features.systems.lifecycle == "on"
    assert config.features.training.curiosity == "off"


@pytest.mark.parametrize(("path", "value"), OUT_OF_BOUNDS)
def test_bounds_are_checked(path: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=path.split(".")[-1]):
        SimulationConfig.model_validate(_with(path, value))


@pytest.mark.parametrize("key", ["config_id", "features", "rewards"])
def test_required_keys(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        SimulationConfig.model_validate({name: value for name, value in MINIMAL.items() if name != key})


def test_punctuality_must_not_exceed_hunger() -> None:
    rewards = {"needs_weights": {"hunger": 0.5}, "punctuality_bonus": 0.1}
    assert SimulationConfig.model_validate({**MINIMAL, "rewards": rewards}).rewards.punctuality_bonus == 0.1


def test_friends_and_rivals_are_eight_at_most() -> None:
    with pytest.raises(ValidationError, match="must be <= 8"):
        SimulationConfig.model_validate(
            _with("observations_config.social_snippet", {"top_friends": 5, "top_rivals": 4})
        )


def test_a_missing_file_and_a_bad_one(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    with pytest.raises(FileNotFoundError) as found:
        load_config(missing)
    assert found.value.args[0] == missing
    for number, text in enumerate(("config_id: x\n", "a: [1\n", "- 1\n", "")):
        bad = tmp_path / f"bad{number}.yaml"
        bad.write_text(text)
        with pytest.raises(ValueError, match=f"Invalid config at {bad}:\n"):
            load_config(bad)
