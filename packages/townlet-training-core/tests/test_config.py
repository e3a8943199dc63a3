"""Configuration: defaults, overrides, and errors that name file, key path and expectation."""

from __future__ import annotations

from pathlib import Path

import pytest

from townlet_training_core.config.loader import apply_overrides, default_config, load_config
from townlet_training_core.config.models import AnnealStage, PPOConfig, TrainingConfig
from townlet_training_core.errors import ConfigurationError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_packaged_default_is_valid_and_anneals_on_the_town() -> None:
    config = default_config()
    assert config.simulation.name == "town"
    assert {stage.mode for stage in config.training.anneal_schedule} == {"bc", "ppo"}


def test_the_predecessors_ppo_defaults_are_kept() -> None:
    ppo = PPOConfig()
    assert (ppo.learning_rate, ppo.clip_param, ppo.value_loss_coef, ppo.entropy_coef) == (3e-4, 0.2, 0.5, 0.01)
    assert (ppo.num_epochs, ppo.mini_batch_size, ppo.num_mini_batches) == (4, 32, 4)
    assert (ppo.gae_lambda, ppo.gamma, ppo.max_grad_norm, ppo.value_clip) == (0.95, 0.99, 0.5, 0.2)
    assert ppo.advantage_normalization is True


def test_a_file_overrides_defaults_and_set_overrides_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "seed: 3\nppo:\n  gamma: 0.9\n  clip_param: 0.1\n")
    config = load_config(path, overrides=["ppo.gamma=0.5", "simulation.options.size=12", "ppo.learning_rate=1e-4"])
    assert (config.seed, config.ppo.gamma, config.ppo.clip_param) == (3, 0.5, 0.1)
    assert config.simulation.options == {"size": 12}
    assert config.ppo.learning_rate == 1e-4


def test_choosing_another_simulation_drops_the_options_that_were_written_for_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "simulation: {name: town, num_envs: 3, options: {agents: 4}}\n")
    changed = load_config(path, overrides=["simulation.name=corridor", "simulation.options.length=5"]).simulation
    assert (changed.name, changed.num_envs, changed.options) == ("corridor", 3, {"length": 5})
    kept = load_config(path, overrides=["simulation.name=town", "simulation.options.map_size=12"]).simulation
    assert kept.options == {"agents": 4, "map_size": 12}


def test_an_override_reads_yaml_values() -> None:
    assert apply_overrides({}, ["a.b=[1, 2]", "a.c=null", "a.d=text"]) == {"a": {"b": [1, 2], "c": None, "d": "text"}}


def test_overrides_leave_the_original_alone() -> None:
    original = {"a": {"b": 1}}
    apply_overrides(original, ["a.b=2"])
    assert original == {"a": {"b": 1}}


@pytest.mark.parametrize("override", ["no-equals", "=1", "a..b=1", "seed.deeper=1", "seed=[unclosed"])
def test_a_wrong_override_is_explained(override: str) -> None:
    with pytest.raises(ConfigurationError, match="--set"):
        apply_overrides({"seed": 1}, [override])


def test_schedules_are_tuples_of_frozen_stages() -> None:
    config = TrainingConfig.model_validate({"training": {"anneal_schedule": [{"cycle": 1, "mode": "bc"}]}})
    assert config.training.anneal_schedule == (AnnealStage(cycle=1, mode="bc"),)
    with pytest.raises(Exception, match="frozen"):
        config.seed = 4  # type: ignore[misc]  # that it cannot be assigned is the point


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ppo:\n  gama: 1\n", ["c.yaml", "ppo.gama", "unknown key"]),
        ("ppo:\n  gamma: 1.5\n", ["c.yaml", "ppo.gamma", "less than or equal to 1", "1.5"]),
        ("ppo:\n  gamma: often\n", ["c.yaml", "ppo.gamma", "number", "often"]),
        ("seed: [\n", ["c.yaml", "line", "not valid YAML"]),
        ("seed: 1\nseed: 2\n", ["c.yaml", "line 2", "stands twice"]),
        ("- a\n", ["c.yaml", "expected a mapping", "list"]),
        ("", ["c.yaml", "expected a mapping", "NoneType"]),
        ("training:\n  anneal_schedule:\n  - {mode: sac}\n", ["training.anneal_schedule.0.mode", "'bc' or 'ppo'"]),
        ("!!python/object/apply:os.system [ls]\n", ["c.yaml", "not valid YAML"]),
    ],
)
def test_a_wrong_file_is_explained_with_file_key_path_and_expectation(
    tmp_path: Path, text: str, parts: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config(write(tmp_path / "c.yaml", text))
    for part in parts:
        assert part in str(caught.value)


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config(write(tmp_path / "c.yaml", "sed: 1\nppo: {gamma: 2}\n"))
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_or_binary_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml.*No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_config(tmp_path / "b.yaml")
