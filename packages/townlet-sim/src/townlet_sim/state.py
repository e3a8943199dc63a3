"""The state of B towns as packed arrays, and the constants of their rules as the kernels read them."""

from __future__ import annotations

from math import lcm
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.config import BEHAVIOUR_BIAS, PROFILES, REWARD_BIAS, TownConfig
from townlet_sim.spaces import SOCIAL_STAGES, window

__all__ = ["OutArrays", "RuleArrays", "StateArrays", "allocate_state", "out_sample", "rule_arrays"]


class StateArrays(NamedTuple):
    """Everything that the future of B towns depends on; column numbers are in :mod:`townlet_sim.columns`.

    Integers that kernels hand to one another are 64 bits wide: another width would compile another variant of each.
    """

    agent_i: NDArray[np.int64]  # (B, N, AGENT_INTS)
    agent_f: NDArray[np.float64]  # (B, N, AGENT_FLOATS)
    tie_other: NDArray[np.int64]  # (B, N, 6), -1 empty
    tie: NDArray[np.float64]  # (B, N, 6, 3): trust, familiarity, rivalry
    object_i: NDArray[np.int64]  # (B, M, OBJECT_INTS)
    town_i: NDArray[np.int64]  # (B, TOWN_INTS)
    town_u: NDArray[np.uint64]  # (B, TOWN_KEYS)
    town_f: NDArray[np.float64]  # (B, TOWN_FLOATS)
    occupied: NDArray[np.int16]  # (B, H, W): slot of the agent there, -1 none
    mask: NDArray[np.bool_]  # (B, N, A): the mask that was published last
    event_i: NDArray[np.int32]  # (B, E, 5): tick, slot, kind, other, object of the last step
    event_f: NDArray[np.float64]  # (B, E)
    terms: NDArray[np.float32]  # (B, N, TERMS) of the last step
    kpi: NDArray[np.float64]  # (B, KPIS) of the last finished episode


class RuleArrays(NamedTuple):
    """Constants of the rules."""

    f: NDArray[np.float64]  # (FLOAT_CONSTANTS,)
    i: NDArray[np.int64]  # (INT_CONSTANTS,)
    job_i: NDArray[np.int64]  # (N, 2): start, end; -1 no job
    job_f: NDArray[np.float64]  # (N, 2): wage, lateness penalty
    profile: NDArray[np.float64]  # (N, PROFILE_COLUMNS): traits, decay factors, biases
    time: NDArray[np.float32]  # (ticks_per_day, 2): sin, cos
    given_f: NDArray[np.float64]  # (N, 4): hunger, hygiene, energy, wallet of a scenario; NaN not given
    given_i: NDArray[np.int64]  # (N, 3): present, y, x of a scenario; y -1 not given


class OutArrays(NamedTuple):
    """The caller's arrays, S = B * N rows; maps flattened."""

    map: NDArray[np.uint8]
    features: NDArray[np.float32]
    state: NDArray[np.float32]
    action_mask: NDArray[np.bool_]
    alive: NDArray[np.bool_]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_map: NDArray[np.uint8]
    final_features: NDArray[np.float32]
    final_state: NDArray[np.float32]


def out_sample() -> OutArrays:
    """Return the smallest arrays of the kind that a step writes."""
    seen = (np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32))
    flags = np.zeros(1, np.bool_)
    return OutArrays(*seen, np.zeros((1, 1), np.bool_), flags, np.zeros(1, np.float32), flags, flags, *seen)


def allocate_state(*, towns: int, agents: int, objects: int, height: int, width: int) -> StateArrays:
    """Allocate zeroed state for B towns."""
    events = 8 * agents + 8
    return StateArrays(
        agent_i=np.zeros((towns, agents, c.AGENT_INTS), np.int64),
        agent_f=np.zeros((towns, agents, c.AGENT_FLOATS), np.float64),
        tie_other=np.full((towns, agents, c.TIES), -1, np.int64),
        tie=np.zeros((towns, agents, c.TIES, 3), np.float64),
        object_i=np.full((towns, objects, c.OBJECT_INTS), -1, np.int64),
        town_i=np.zeros((towns, c.TOWN_INTS), np.int64),
        town_u=np.zeros((towns, c.TOWN_KEYS), np.uint64),
        town_f=np.ones((towns, c.TOWN_FLOATS), np.float64),
        occupied=np.full((towns, height, width), -1, np.int16),
        mask=np.zeros((towns, agents, c.ACTIONS), np.bool_),
        event_i=np.zeros((towns, events, 5), np.int32),
        event_f=np.zeros((towns, events), np.float64),
        terms=np.zeros((towns, agents, c.TERMS), np.float32),
        kpi=np.zeros((towns, c.KPIS), np.float64),
    )


def _value(config: TownConfig, path: str) -> Any:
    found: Any = config
    for part in path.split("."):
        found = getattr(found, part)
    return found


def rule_arrays(config: TownConfig, *, workplaces: int, fridge: int) -> RuleArrays:
    """Pack the constants of a configuration.

    Parameters
    ----------
    workplaces:
        Number of workplaces of a map (crews depend on it).
    fridge:
        Id of the first fridge, -1 for none.
    """
    agents, day = config.agents, config.ticks_per_day
    integers = np.zeros(c.INT_CONSTANTS, np.int64)
    integers[: len(c.INT_PATHS)] = [int(_value(config, path)) for path in c.INT_PATHS]
    integers[c.I_STAGE] = SOCIAL_STAGES.index(config.rewards.social_stage)
    integers[c.I_CREW] = lcm(max(len(config.jobs), 1), max(workplaces, 1))
    integers[c.I_FRIDGE] = fridge
    integers[c.I_LAYOUTS] = config.layouts
    integers[c.I_VARIANT] = ("hybrid", "full", "compact").index(config.observation)
    integers[c.I_SIDE] = window(config.observation)
    integers[c.I_STATE] = config.centralised_state
    job_i = np.full((agents, 2), -1, np.int64)
    job_f = np.zeros((agents, 2), np.float64)
    for n in range(agents if config.jobs and workplaces else 0):
        job = config.jobs[n % len(config.jobs)]
        job_i[n] = (job.start, job.end)
        job_f[n] = (job.wage, job.lateness_penalty)
    profile = np.ones((agents, c.PROFILE_COLUMNS), np.float64)
    for n in range(agents):
        name = config.profiles[n % len(config.profiles)]
        traits, decay = PROFILES[name]
        profile[n, : c.P_SURVIVAL] = (*traits, *decay)
        if config.personality.reward_multipliers:
            profile[n, c.P_SURVIVAL : c.P_CHAT] = REWARD_BIAS[name]
        if config.personality.behaviour:
            profile[n, c.P_CHAT :] = BEHAVIOUR_BIAS[name]
    angle = 2.0 * np.pi * np.arange(day) / day
    return RuleArrays(
        f=np.array([float(_value(config, path)) for path in c.FLOAT_PATHS], np.float64),
        i=integers,
        job_i=job_i,
        job_f=job_f,
        profile=profile,
        time=np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32),
        given_f=np.full((agents, 4), np.nan, np.float64),
        given_i=np.tile(np.array([1, -1, -1], np.int64), (agents, 1)),
    )
