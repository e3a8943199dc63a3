"""The engine plays exactly as the reference does, state by state."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest

from reference.agreement import NAMES, Chooser, Disagreement, play
from townlet_sim.config import TownConfig

RARE_THINGS_OFTEN = TownConfig.model_validate(
    {
        "agents": 14,
        "map_size": 32,
        "ticks_per_day": 200,
        "episode_ticks": 700,
        "layouts": 2,
        "random_start": True,
        "respawn_delay_ticks": 3,
        "jobs": [{"name": "early", "start": 10, "end": 90}, {"name": "late", "start": 60, "end": 200}],
        "needs": {"hunger_decay": 0.008, "hygiene_decay": 0.01, "energy_decay": 0.004, "night_service": True},
        "economy": {"start_wallet": 6.0},
        "employment": {
            "absent_cutoff": 12,
            "absence_slack": 4,
            "absence_days": 2,
            "max_absent_shifts": 1,
            "daily_exit_cap": 1,
            "exit_queue_limit": 3,
            "exit_review_window": 150,
        },
        "personality": {"reward_multipliers": True},
        "queues": {"ghost_step_after": 2, "patience_ticks": 3, "cooldown_ticks": 5, "age_priority_weight": 0.8},
        "rivalry": {"avoid": 0.1, "decay": 0.0001},
        "social": {"chat_cooldown": 2},
        "perturbations": {
            kind: {"prob_per_day": 1.0, "cooldown_ticks": 10, "min_ticks": 5, "max_ticks": 30}
            for kind in ("price_spike", "blackout", "outage", "arranged_meet")
        },
        "rewards": {"shaping": True, "clip_per_tick": 0.02, "clip_per_episode": 3.0},
    }
)
"""Options under which everything that can happen happens within a few hundred ticks."""


def expert(masks: list[list[bool]], expert_actions: list[int]) -> list[int]:
    return expert_actions


def randomly(seed: int, *, expert_share: float = 0.0, invalid_share: float = 0.02) -> Chooser:
    """Random actions inside the mask, now and then anything, now and then the expert's."""
    rng = random.Random(seed)

    def choose(masks: list[list[bool]], expert_actions: list[int]) -> list[int]:
        chosen = []
        for mask, advised in zip(masks, expert_actions, strict=True):
            inside = rng.choice([action for action, possible in enumerate(mask) if possible])
            u = rng.random()
            anything = rng.randrange(len(NAMES))
            chosen.append(advised if u < expert_share else anything if u > 1.0 - invalid_share else inside)
        return chosen

    return choose


def test_expert_play_agrees() -> None:
    town = play(TownConfig(), expert, seeds=[0, 1], ticks=1050)

    assert town.tick == 1050


def test_random_play_agrees() -> None:
    town = play(TownConfig(), randomly(1), seeds=[2, 3], ticks=500)

    assert town.tick == 500


def test_play_agrees_where_rare_things_happen_often() -> None:
    town = play(RARE_THINGS_OFTEN, randomly(2, expert_share=0.7), seeds=[4], ticks=900)

    assert town.episode == 1  # beyond the end of an episode, too


@pytest.mark.parametrize("stage", ["OFF", "C1", "C2"])
def test_play_agrees_in_every_social_stage(stage: str) -> None:
    options = RARE_THINGS_OFTEN.model_dump()
    options["rewards"]["social_stage"] = stage
    options |= {"respawn": False, "social": {"modifiers": False, "chat_cooldown": 1}}

    play(TownConfig.model_validate(options), randomly(3, expert_share=0.5), seeds=[5], ticks=150)


@pytest.mark.parametrize("variant", ["hybrid", "full", "compact"])
def test_every_variant_shows_what_is_there(variant: str) -> None:
    options = RARE_THINGS_OFTEN.model_dump() | {"observation": variant}

    play(TownConfig.model_validate(options), randomly(4, expert_share=0.7), seeds=[6], ticks=240, observe_every=8)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("needs.hunger_decay", 0.0020001),
        ("economy.meal_cost", 0.41),
        ("queues.cooldown_ticks", 61),
        ("rivalry.decay", 0.0011),
        ("rewards.punctuality_bonus", 0.021),
        ("social.chat_success", 0.75),
        ("expert.commit_ticks", 16),
    ],
)
def test_one_changed_constant_is_seen(path: str, value: float) -> None:
    section, name = path.split(".")
    options = TownConfig().model_dump()
    options[section][name] = value
    changed = TownConfig.model_validate(options)

    with pytest.raises(Disagreement, match="differences"):
        play(TownConfig(), expert, seeds=[0], ticks=600, reference_config=changed)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("employment.absence_slack", 5),
        ("employment.absence_days", 1),
        ("employment.exit_queue_limit", 2),
        ("employment.exit_review_window", 151),
        ("personality.reward_multipliers", False),
        ("personality.behaviour", False),
    ],
)
def test_one_changed_constant_of_rare_things_is_seen(path: str, value: float) -> None:
    section, name = path.split(".")
    options = RARE_THINGS_OFTEN.model_dump()
    options[section][name] = value
    changed = TownConfig.model_validate(options)

    with pytest.raises(Disagreement, match="differences"):
        play(RARE_THINGS_OFTEN, randomly(2, expert_share=0.7), seeds=[4, 5], ticks=690, reference_config=changed)


def politely(masks: list[list[bool]], expert_actions: list[int], *, rng: random.Random) -> list[int]:
    """The expert's actions, but now and then somebody gives way."""
    give_way = NAMES.index("give_way")
    moods = [rng.random() < 0.05 for _ in masks]
    chosen = zip(masks, moods, expert_actions, strict=True)
    return [give_way if kind and mask[give_way] else advised for mask, kind, advised in chosen]


def test_who_is_next_in_long_queues_agrees_and_a_changed_weight_is_seen() -> None:
    options: dict[str, Any] = {
        "jobs": [],
        "needs": {"hygiene_decay": 0.01},
        "affordances": {"shower_ticks": 50},
        "expert": {"shower_below": 0.8},
    }
    config = TownConfig.model_validate({**options, "queues": {"age_priority_weight": 1.0}})
    play(config, partial(politely, rng=random.Random(5)), seeds=[2], ticks=440)
    changed = TownConfig.model_validate({**options, "queues": {"age_priority_weight": 0.0}})
    with pytest.raises(Disagreement, match="differences"):
        play(config, partial(politely, rng=random.Random(5)), seeds=[2], ticks=440, reference_config=changed)


@pytest.mark.deep
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("first", range(0, 20, 5))
@pytest.mark.parametrize("who", ["expert", "random", "mixed"])
def test_2000_ticks_of_20_seeds_agree(who: str, first: int) -> None:
    choose = {"expert": expert, "random": randomly(first), "mixed": randomly(first, expert_share=0.8)}[who]

    play(TownConfig(), choose, seeds=list(range(first, first + 5)), ticks=2000, observe_every=100)


@pytest.mark.deep
@pytest.mark.timeout(3000)
def test_2000_ticks_of_rare_things_agree() -> None:
    play(RARE_THINGS_OFTEN, randomly(9, expert_share=0.8), seeds=list(range(5)), ticks=2000, observe_every=100)
