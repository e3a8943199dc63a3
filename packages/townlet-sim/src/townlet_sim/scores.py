"""Normalised scores: random play is 0, a documented ceiling is 1.

The ceiling is what one agent of balanced profile could get in a day if nothing took walking, waiting or luck: it works
its whole shift on time, chats at the cap as often as the cooldown lets it, and spreads meals, showers and sleep evenly
over the day, as often as one day's wage and the ticks outside the shift pay for. Real play stays below it.
"""

from __future__ import annotations

from townlet_sim.config import TownConfig

__all__ = ["normalised", "reference_ceiling"]


def _penalty(weight: float, decay: float, times: int, day: int, gain: float) -> float | None:
    """Mean of ``weight * d**2`` for a need that is filled ``times`` a day at even intervals; ``None``: impossible."""
    depth = decay * day / times
    return None if depth > min(gain, 1.0) else weight * depth * depth / 3.0


def reference_ceiling(config: TownConfig) -> float:
    """Return the ceiling of the mean return of a slot per day, for a configuration.

    Raises
    ------
    ValueError
        When no plan of a day is both possible and affordable.
    """
    day, needs, rewards = config.ticks_per_day, config.needs, config.rewards
    job = max(config.jobs, key=lambda job: job.wage * (job.end - job.start), default=None)
    shift = job.end - job.start if job else 0
    wage = job.wage * shift if job else 0.0
    portion = config.economy.ingredients_cost / config.economy.portions
    acts = config.affordances
    # Over a day, sleep gives back what decay takes, whatever the number of sleeps.
    asleep = needs.energy_decay * day / acts.sleep_energy
    best: float | None = None
    for meals in range(1, 25):
        for showers in range(1, 13):
            cost = meals * portion + showers * config.economy.shower_cost + config.economy.rent
            ticks = meals * (acts.eat_ticks + acts.cook_ticks / config.economy.portions) + showers * acts.shower_ticks
            if cost > wage or ticks + asleep + shift > day:
                continue
            hunger = _penalty(rewards.hunger_weight, needs.hunger_decay, meals, day, acts.meal_hunger)
            hygiene = _penalty(rewards.hygiene_weight, needs.hygiene_decay, showers, day, acts.shower_hygiene)
            if hunger is not None and hygiene is not None and (best is None or hunger + hygiene < best):
                best = hunger + hygiene
    if best is None:
        msg = "no day is possible: one shift pays for too few meals and showers; raise wages or lower prices"
        raise ValueError(msg)
    # Energy costs little when it is filled often: as often as showers could be taken is taken as the limit.
    best += _penalty(rewards.energy_weight, needs.energy_decay, 12, day, 1.0) or 0.0
    needs_penalty = rewards.needs_scale * best * day
    punctuality = rewards.punctuality_bonus * (shift + 1) / 2
    chats = day / max(config.social.chat_cooldown, 1) if rewards.social_stage != "OFF" else 0.0
    earned = wage if rewards.wage else 0.0
    return rewards.survival_tick * day + earned + punctuality + chats * rewards.chat_cap - needs_penalty


def normalised(score: float, *, random: float, ceiling: float) -> float:
    """Return a score on the scale where random play is 0 and the ceiling 1 (same unit for all three)."""
    return (score - random) / (ceiling - random)
