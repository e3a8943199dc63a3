"""Any PettingZoo ``ParallelEnv`` behind the simulation port."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from townlet_training_core.errors import ConfigurationError, SpaceMismatchError
from townlet_training_core.simulation.environments import (
    EnvironmentSimulation,
    ParallelEnvironment,
    environment_hash,
)
from townlet_training_core.simulation.options import environment_options, load_factory, require

__all__ = ["make_simulation"]


def make_simulation(num_envs: int, options: Mapping[str, Any], *, threads: int = 1) -> EnvironmentSimulation:
    """Make ``num_envs`` copies of a PettingZoo environment.

    Parameters
    ----------
    num_envs:
        B, copies stepped together.
    options:
        ``env``: import string of a function that makes a ``ParallelEnv``, e.g.
        ``"mpe2.simple_spread_v3:parallel_env"``; ``kwargs``: its keyword arguments.
    threads:
        Accepted for the sake of the port; Python environments are stepped by one thread.

    Raises
    ------
    ConfigurationError
        When the options are wrong, or the function does not make a parallel environment.
    MissingDependencyError
        When PettingZoo is not installed.
    SpaceMismatchError
        When the spaces are not supported.
    """
    del threads
    require("pettingzoo", simulation="pettingzoo")
    env, kwargs = environment_options(options, simulation="pettingzoo", example="mpe2.simple_spread_v3:parallel_env")
    factory = load_factory(env, simulation="pettingzoo")
    copies = [_make(factory, env, kwargs) for _ in range(num_envs)]
    package = env.partition(".")[0].partition(":")[0]
    version = _version(package)
    return EnvironmentSimulation(
        copies,
        name=f"pettingzoo:{env}",
        rules_hash=environment_hash(env=env, kwargs=kwargs, version=version),
        versions={"environment": version, "pettingzoo": _version("pettingzoo")},
    )


def _make(factory: Any, env: str, kwargs: dict[str, Any]) -> ParallelEnvironment:
    try:
        made = factory(**kwargs)
    except (TypeError, ValueError, AssertionError) as error:
        msg = f"simulation.options.kwargs: {env!r} does not take {kwargs!r}: {error}"
        raise ConfigurationError(msg) from error
    if hasattr(made, "agent_iter") or not hasattr(made, "possible_agents"):
        msg = f"{env!r} made {type(made).__name__}, expected a PettingZoo ParallelEnv (with possible_agents)"
        raise SpaceMismatchError(msg)
    environment: ParallelEnvironment = made
    return environment


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
