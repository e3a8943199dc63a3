"""A predecessor's configuration as a town: its own numbers where a town has them, within the town's bounds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_sim.config import TownConfig

__all__ = ["PATHS", "open_floor", "town_config"]

_LOG = logging.getLogger("townlet_sim")
_SMALLEST, _LARGEST, _DEFAULT = 12, 96, 24
_FOREVER = 1_000_000
"""The predecessor's world had no end of an episode."""

PATHS: tuple[tuple[str, str], ...] = (
    ("rewards.decay_rates.hunger", "needs.hunger_decay"),
    ("rewards.decay_rates.hygiene", "needs.hygiene_decay"),
    ("rewards.decay_rates.energy", "needs.energy_decay"),
    ("rewards.needs_weights.hunger", "rewards.hunger_weight"),
    ("rewards.needs_weights.hygiene", "rewards.hygiene_weight"),
    ("rewards.needs_weights.energy", "rewards.energy_weight"),
    ("rewards.survival_tick", "rewards.survival_tick"),
    ("rewards.punctuality_bonus", "rewards.punctuality_bonus"),
    ("rewards.faint_penalty", "rewards.faint_penalty"),
    ("rewards.eviction_penalty", "rewards.eviction_penalty"),
    ("rewards.social.C1_chat_base", "rewards.chat_base"),
    ("rewards.social.C1_coeff_trust", "rewards.chat_trust"),
    ("rewards.social.C1_coeff_fam", "rewards.chat_familiarity"),
    ("rewards.social.C2_avoid_conflict", "rewards.avoid_conflict"),
    ("rewards.clip.clip_per_tick", "rewards.clip_per_tick"),
    ("rewards.clip.clip_per_episode", "rewards.clip_per_episode"),
    ("rewards.clip.no_positive_within_death_ticks", "rewards.no_positive_within_death_ticks"),
    ("features.stages.social_rewards", "rewards.social_stage"),
    ("features.systems.observations", "observation"),
    ("features.relationship_modifiers", "social.modifiers"),
    ("features.behavior.personality_profiles", "personality.behaviour"),
    ("features.behavior.reward_multipliers", "personality.reward_multipliers"),
    ("economy.meal_cost", "economy.meal_cost"),
    ("economy.ingredients_cost", "economy.ingredients_cost"),
    ("queue_fairness.cooldown_ticks", "queues.cooldown_ticks"),
    ("queue_fairness.ghost_step_after", "queues.ghost_step_after"),
    ("queue_fairness.age_priority_weight", "queues.age_priority_weight"),
    ("conflict.rivalry.increment_per_conflict", "rivalry.increment"),
    ("conflict.rivalry.decay_per_tick", "rivalry.decay"),
    ("conflict.rivalry.avoid_threshold", "rivalry.avoid"),
    ("conflict.rivalry.ghost_step_boost", "rivalry.ghost_step_boost"),
    ("conflict.rivalry.handover_boost", "rivalry.handover_boost"),
    ("conflict.rivalry.queue_length_boost", "rivalry.queue_length_boost"),
    ("employment.grace_ticks", "employment.grace_ticks"),
    ("employment.absent_cutoff", "employment.absent_cutoff"),
    ("employment.absence_slack", "employment.absence_slack"),
    ("employment.late_tick_penalty", "employment.late_tick_penalty"),
    ("employment.absence_penalty", "employment.absence_penalty"),
    ("employment.max_absent_shifts", "employment.max_absent_shifts"),
    ("employment.daily_exit_cap", "employment.daily_exit_cap"),
    ("employment.exit_queue_limit", "employment.exit_queue_limit"),
    ("employment.exit_review_window", "employment.exit_review_window"),
    ("lifecycle.respawn_delay_ticks", "respawn_delay_ticks"),
    ("observations_config.hybrid.time_ticks_per_day", "ticks_per_day"),
)
"""Key of the predecessor's file, key of a town."""


def _read(settings: Mapping[str, Any], path: str) -> Any:
    value: Any = settings
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def town_config(settings: Mapping[str, Any], *, agents: int) -> TownConfig:
    """Translate a configuration; keys that a town does not have are left.

    A warning tells when no shift pays for a day's food at these rates.

    Raises
    ------
    pydantic.ValidationError
        When a number is outside the bounds of a town.
    """
    options: dict[str, Any] = {"agents": agents, "episode_ticks": _FOREVER, "perturbations": {"enabled": False}}
    for source, target in PATHS:
        value = _read(settings, source)
        if value is not None:
            *sections, name = target.split(".")
            place = options
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = value
    day = int(options.get("ticks_per_day") or 1000)
    options["jobs"] = [
        {
            "name": name,
            "start": job["start_tick"],
            "end": job["end_tick"],
            "wage": job["wage_rate"],
            "lateness_penalty": job["lateness_penalty"],
        }
        for name, job in (settings.get("jobs") or {}).items()
        if job["start_tick"] < job["end_tick"] <= day
    ]
    options["map_size"] = max(_SMALLEST, min(_LARGEST, min(_size(settings))))
    config = TownConfig.model_validate(options)
    meals = config.needs.hunger_decay * day / config.affordances.meal_hunger
    cost = meals * config.economy.meal_cost
    pay = max((job.wage * (job.end - job.start) for job in config.jobs), default=0.0)
    if config.jobs and cost > pay:
        _LOG.warning(
            "economy does not close: a day takes %.1f meals (%.2f), the best shift pays %.2f", meals, cost, pay
        )
    return config


def _size(settings: Mapping[str, Any]) -> tuple[int, int]:
    size = _read(settings, "world.grid_size") or _DEFAULT
    return (int(size), int(size)) if isinstance(size, int | float) else (int(size[0]), int(size[1]))


def open_floor(settings: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return the ``(H, W)`` floor of the predecessor's world: it had no walls."""
    width, height = (max(_SMALLEST, min(_LARGEST, side)) for side in _size(settings))
    return np.ones((height, width), np.bool_)
