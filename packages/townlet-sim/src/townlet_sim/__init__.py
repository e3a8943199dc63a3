"""The embedded default town: a batched multi-agent simulation, a PettingZoo environment and a scripted expert.

Importing this package imports neither numba nor any environment library; making a town or an environment does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from townlet_sim._version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from townlet_sim.config import TownConfig
    from townlet_sim.engine import GivenTown, TownBatch
    from townlet_sim.env import TownParallelEnv

__all__ = ["TownConfig", "__version__", "make_simulation", "parallel_env"]


def make_simulation(num_envs: int, options: Mapping[str, Any], *, threads: int = 1) -> TownBatch:
    """Make B towns for the training library (registered there as ``town``).

    Parameters
    ----------
    num_envs:
        B, towns stepped together.
    options:
        Fields of :class:`~townlet_sim.config.TownConfig`; nested sections are mappings. Besides, ``scenario``: the
        name of a packaged scenario, the path of a file, or what such a file holds (:mod:`townlet_sim.scenarios`).
    threads:
        Worker threads; results do not depend on it.

    Raises
    ------
    FileNotFoundError
        When there is no such scenario.
    pydantic.ValidationError
        (a ``ValueError``) when an option is unknown or out of range; the message gives its path.
    ValueError
        When the map is too small for the agents, or a scenario is wrong.
    """
    options = dict(options)
    scenario = options.pop("scenario", None)
    if scenario is not None:
        from townlet_sim.scenarios import load_scenario
        from townlet_sim.story import ScenarioBatch

        return ScenarioBatch(load_scenario(scenario, options=options), num_envs, threads=threads)
    from townlet_sim.config import TownConfig
    from townlet_sim.engine import TownBatch

    return TownBatch(TownConfig.model_validate(options), num_envs, threads=threads)


def parallel_env(
    options: Mapping[str, Any] | None = None,
    *,
    render_mode: str | None = None,
    scenario: str | Path | Mapping[str, Any] | None = None,
    given: GivenTown | None = None,
) -> TownParallelEnv:
    """Make one town as a PettingZoo ``ParallelEnv``; see :func:`townlet_sim.env.parallel_env`."""
    from townlet_sim import env

    return env.parallel_env(options, render_mode=render_mode, scenario=scenario, given=given)


def __getattr__(name: str) -> Any:
    """Import :class:`TownConfig`, and pydantic with it, when it is first asked for."""
    if name == "TownConfig":
        from townlet_sim.config import TownConfig

        return TownConfig
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
