"""Plug-ins by name: listed without importing, loaded when chosen, explained when they cannot be."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from townlet_training_core import registry
from townlet_training_core.config.models import SimulationChoice
from townlet_training_core.errors import (
    ConfigurationError,
    MissingDependencyError,
    PluginError,
    TorchNotAvailableError,
)
from townlet_training_core.registry import Group


def distribution(folder: Path, name: str, group: str, entries: dict[str, str]) -> None:
    """Lay out an installed distribution with entry points, as pip would."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "\n".join(f"{key} = {value}" for key, value in entries.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_listing_imports_nothing(site: Path) -> None:
    (site / "untouched_plugin.py").write_text("raise RuntimeError('imported')\n")
    distribution(site, "untouched", Group.STRATEGIES, {"untouched": "untouched_plugin:Strategy"})
    assert "untouched" in [plugin.name for plugin in registry.plugins(Group.STRATEGIES)]
    assert "untouched_plugin" not in sys.modules


def test_a_name_claimed_twice_is_an_error_naming_both(site: Path) -> None:
    distribution(site, "first-owner", Group.SIMULATIONS, {"plaza": "json:loads"})
    distribution(site, "second-owner", Group.SIMULATIONS, {"plaza": "json:dumps"})
    with pytest.raises(PluginError, match=r"defined twice, by first-owner .* and second-owner"):
        registry.load(Group.SIMULATIONS, "plaza")


def test_a_broken_plugin_is_an_error_only_where_it_is_chosen(site: Path) -> None:
    (site / "broken_plugin.py").write_text("import no_such_module_anywhere\n")
    distribution(site, "broken-owner", Group.STRATEGIES, {"broken": "broken_plugin:Strategy"})
    assert registry.load(Group.STRATEGIES, "counting").name == "counting"
    with pytest.raises(PluginError, match=r"'broken' of broken-owner fails to load: ModuleNotFoundError"):
        registry.load(Group.STRATEGIES, "broken")


def test_a_plugin_that_needs_torch_says_so_where_torch_is_missing(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (site / "torchy_plugin.py").write_text("import torch\n")
    distribution(site, "torchy-owner", Group.STRATEGIES, {"torchy": "torchy_plugin:Strategy"})
    with pytest.raises(TorchNotAvailableError, match="pip install townlet-training-torch"):
        registry.load(Group.STRATEGIES, "torchy")


def test_an_import_error_inside_torch_is_not_called_missing_torch(site: Path) -> None:
    (site / "cracked_plugin.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')\n")
    distribution(site, "cracked-owner", Group.STRATEGIES, {"cracked": "cracked_plugin:Strategy"})
    with pytest.raises(PluginError, match="libcudart"):
        registry.load(Group.STRATEGIES, "cracked")


@pytest.mark.parametrize(
    ("group", "name", "error", "text"),
    [
        (Group.STRATEGIES, "ppo", TorchNotAvailableError, "pip install townlet-training-torch"),
        (Group.SIMULATIONS, "town", MissingDependencyError, "pip install townlet-sim"),
        (Group.STRATEGIES, "sac", PluginError, "unknown strategy 'sac'; installed: none"),
    ],
)
def test_an_absent_name_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, group: Group, name: str, error: type[Exception], text: str
) -> None:
    def none(**_: object) -> list[EntryPoint]:
        return []

    monkeypatch.setattr(registry, "entry_points", none)
    with pytest.raises(error, match=text):
        registry.load(group, name)


def test_a_simulation_is_made_with_its_options_and_refuses_wrong_ones() -> None:
    simulation = registry.make_simulation(SimulationChoice(name="corridor", options={"length": 3}), num_envs=5)
    assert simulation.spec.num_envs == 5
    with pytest.raises(ConfigurationError, match=r"simulation 'corridor': simulation\.options: length"):
        registry.make_simulation(SimulationChoice(name="corridor", options={"length": 1}))


def test_an_unknown_policy_names_the_known_ones(tmp_path: Path) -> None:
    assert registry.make_policy("random").name == "random"
    with pytest.raises(PluginError, match=r"unknown policy '.*nowhere': neither one of .*random.* nor an existing"):
        registry.make_policy(str(tmp_path / "nowhere"))
