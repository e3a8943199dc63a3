"""Plug-ins: strategies, simulations, policies and commands by name, over entry points.

Listing imports nothing; only the plug-in that was chosen is loaded. A name that two distributions claim is an
error when it is chosen; a plug-in that fails to load is an error only where it was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from townlet_training_core.dto.base import describe_errors
from townlet_training_core.errors import (
    ConfigurationError,
    MissingDependencyError,
    PluginError,
    TorchNotAvailableError,
    TownletError,
)

__all__ = ["Choice", "Group", "Plugin", "load", "make_policy", "make_simulation", "make_strategy", "plugins"]


class Group(StrEnum):
    """The entry-point groups."""

    STRATEGIES = "townlet.training.strategies"
    SIMULATIONS = "townlet.training.simulations"
    POLICIES = "townlet.training.policies"
    COMMANDS = "townlet.commands"

    @property
    def noun(self) -> str:
        """What one entry of the group is called in messages."""
        return {
            "strategies": "strategy",
            "simulations": "simulation",
            "policies": "policy",
            "commands": "command",
        }[self.value.rpartition(".")[2]]


# Names that this project's own packages bring: what to install when one is asked for and absent.
_PROVIDERS: Mapping[tuple[Group, str], str] = {
    (Group.STRATEGIES, "bc"): "townlet-training-torch",
    (Group.STRATEGIES, "ppo"): "townlet-training-torch",
    (Group.STRATEGIES, "anneal"): "townlet-training-torch",
    (Group.SIMULATIONS, "town"): "townlet-sim",
    (Group.COMMANDS, "town"): "townlet-sim[watch]",
    (Group.COMMANDS, "legacy"): "townlet",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One entry point, not loaded."""

    name: str
    group: Group
    distribution: str
    entry_point: EntryPoint


class Choice(Protocol):
    """Which simulation, and how: a configuration's ``simulation`` section."""

    @property
    def name(self) -> str:
        """Registered name."""

    @property
    def num_envs(self) -> int:
        """Environments stepped together."""

    @property
    def threads(self) -> int:
        """Threads that step them."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What the simulation itself judges."""


def plugins(group: Group) -> tuple[Plugin, ...]:
    """List the plug-ins of a group in order of name, importing none."""
    found = {
        (entry.name, entry.dist.name if entry.dist else "unknown", entry.value): entry
        for entry in entry_points(group=group.value)
    }
    return tuple(
        Plugin(name=name, group=group, distribution=distribution, entry_point=entry)
        for (name, distribution, _), entry in sorted(found.items(), key=lambda item: item[0])
    )


def load(group: Group, name: str) -> Any:
    """Load the plug-in ``name`` of a group.

    Raises
    ------
    TorchNotAvailableError
        When it needs PyTorch, which is not installed.
    MissingDependencyError
        When the project's own package that brings it is not installed.
    PluginError
        When the name is unknown, claimed twice, or the plug-in fails to load.
    """
    matches = [plugin for plugin in plugins(group) if plugin.name == name]
    if len(matches) > 1:
        owners = " and ".join(f"{plugin.distribution} ({plugin.entry_point.value})" for plugin in matches)
        msg = f"the {group.noun} {name!r} is defined twice, by {owners}; uninstall one of them"
        raise PluginError(msg)
    if not matches:
        raise _unknown(group, name)
    plugin = matches[0]
    try:
        return plugin.entry_point.load()
    except TownletError:
        raise
    except Exception as error:  # a plug-in may fail in any way; the message names its owner
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        what = f"{group.noun} {name!r}"
        if missing == "torch":
            raise TorchNotAvailableError(what) from error
        msg = f"the {what} of {plugin.distribution} fails to load: {type(error).__name__}: {error}"
        raise PluginError(msg) from error


def make_strategy(name: str) -> Any:
    """Make the strategy ``name``; see :func:`load` for what can be wrong."""
    return load(Group.STRATEGIES, name)()


def make_policy(spec: str) -> Any:
    """Make a policy from a registered name, or load one from a path.

    A path may be an exported policy, a checkpoint, or a run directory (its latest checkpoint). A registered
    name wins; write ``./name`` to mean the path.

    Raises
    ------
    PluginError
        When ``spec`` is neither a registered name nor an existing path.
    """
    known = {plugin.name for plugin in plugins(Group.POLICIES)}
    if spec in known:
        return load(Group.POLICIES, spec)()
    if not Path(spec).exists():
        names = ", ".join(sorted(known))
        msg = f"unknown policy {spec!r}: neither one of {names} nor an existing file or directory"
        raise PluginError(msg)
    return load(Group.POLICIES, "exported").load(Path(spec))


def make_simulation(choice: Choice, *, num_envs: int | None = None) -> Any:
    """Make the chosen simulation with ``num_envs`` environments (default: as configured).

    Raises
    ------
    ConfigurationError
        When the simulation refuses its options; the message gives the key path.
    """
    factory = load(Group.SIMULATIONS, choice.name)
    try:
        return factory(
            num_envs=choice.num_envs if num_envs is None else num_envs,
            options=choice.options,
            threads=choice.threads,
        )
    except ValidationError as error:
        text = describe_errors(error, source=f"simulation {choice.name!r}", prefix="simulation.options")
        raise ConfigurationError(text) from error
    except TownletError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        msg = f"simulation {choice.name!r}: simulation.options: {error}"
        raise ConfigurationError(msg) from error


def _unknown(group: Group, name: str) -> TownletError:
    package = _PROVIDERS.get((group, name))
    what = f"{group.noun} {name!r}"
    if package == "townlet-training-torch":
        return TorchNotAvailableError(what)
    if package is not None:
        return MissingDependencyError(
            what, install=f"pip install '{package}'" if "[" in package else f"pip install {package}"
        )
    known = ", ".join(sorted({plugin.name for plugin in plugins(group)})) or "none"
    return PluginError(f"unknown {what}; installed: {known}")
