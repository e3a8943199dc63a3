"""Everything that is said about the town from outside: actions, events, features, channels; named and versioned.

The order of every tuple here is part of the interface: ids in data files index them. A change of meaning or
order raises the version beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

__all__ = [
    "ACTIONS",
    "ACTIONS_VERSION",
    "ERRANDS",
    "EVENT_DTYPE",
    "EVENT_KINDS",
    "FEATURES",
    "FEATURES_VERSION",
    "KPIS",
    "OBJECT_TYPES",
    "REWARD_TERMS",
    "SCRIPTED_POLICIES",
    "SOCIAL_STAGES",
    "Described",
    "ObservationSpec",
    "ScriptedPolicy",
    "TownSpec",
    "Variant",
    "feature_names",
    "map_channels",
    "window",
]

Variant: TypeAlias = Literal["hybrid", "full", "compact"]
"""Observation layouts: the predecessor's four channels, one channel per object type, or a 7x7 window."""


@dataclass(frozen=True, slots=True)
class Described:
    """A name and what it means, for tables in the documentation."""

    name: str
    meaning: str


ACTIONS_VERSION = "2"
ACTIONS: tuple[Described, ...] = (
    Described("stay", "do nothing; while busy: go on"),
    Described("north", "step to row - 1"),
    Described("south", "step to row + 1"),
    Described("east", "step to column + 1"),
    Described("west", "step to column - 1"),
    Described("use", "use the adjacent fridge, stove or shower, or join its queue"),
    Described("leave", "release the object, leave the queue, or stop eating or sleeping"),
    Described("eat", "eat a carried portion at the adjacent table"),
    Described("work", "work at the own site during the own shift"),
    Described("chat", "talk to the nearest agent within reach"),
    Described("share", "share two carried portions with a hungry agent at the same table"),
    Described("give_way", "change places with the next in the queue, and begin to wait anew"),
    Described("cover", "work, and cover a late colleague"),
    Described("take_shift", "work, and take over a late colleague's shift"),
    Described("buy", "buy ingredients at the adjacent till"),
    Described("sleep", "sleep beside the own bed"),
)

OBJECT_TYPES: tuple[str, ...] = ("bed", "fridge", "stove", "shower", "till", "workplace", "table")
"""Object types in order of their ids. A fridge is the cafe's counter: a meal is bought and eaten there; what was cooked
is eaten at a table."""

ERRANDS: tuple[str, ...] = ("idle", "cafe", "cook", "shop", "eat", "shower", "sleep", "work")
"""What an agent is about to do, as the town suggests and the scripted expert obeys."""

EVENT_KINDS: tuple[Described, ...] = (
    Described("queue_conflict", "slot and other quarrel at object; value: intensity"),
    Described("queue_interaction", "slot hands over (value 0) or gives way (value 1) to other at object"),
    Described("shared_meal", "slot shares a meal with other; value: portions left"),
    Described("employment_helped_when_late", "slot covers other, first time in the shift; value: ticks late"),
    Described("employment_took_my_shift", "other takes over the shift of slot; value: ticks left in the shift"),
    Described("chat_success", "slot talks with other; value: quality"),
    Described("chat_failure", "slot talks to other in vain; value: probability of success that there was"),
    Described("shift_late", "slot missed the grace period; value: ticks since the start"),
    Described("shift_absent", "slot is absent for the day; value: ticks since the start"),
    Described("exit", "slot leaves the town; value: 0 faint, 1 eviction"),
    Described("respawn", "a new agent enters in slot; value: agents that this slot has had before"),
    Described("price_spike", "prices rise; slot is the town's first; value: factor"),
    Described("blackout", "stoves are without power; slot is the town's first; value: ticks"),
    Described("outage", "showers are without water; slot is the town's first; value: ticks"),
    Described("arranged_meet", "slot and its rival other are brought to the cafe; value: rivalry"),
    Described("shift_departed_early", "slot has worked and stays away from its shift; value: ticks left in it"),
    Described("employment_exit_pending", "slot is queued for its exit; value: absences"),
    Described("employment_exit_queue_overflow", "slot finds the queue of exits full; value: absences"),
    Described("employment_exit_processed", "slot's exit is decided; value: ticks waited"),
    Described("employment_exit_deferred", "slot waits for another day; value: ticks waited"),
    Described("employment_exit_manual_request", "slot is queued for its exit from outside; value: absences"),
)

REWARD_TERMS: tuple[str, ...] = (
    "survival",
    "needs_penalty",
    "wage",
    "punctuality",
    "social_bonus",
    "social_penalty",
    "social_avoidance",
    "shaping",
    "clip_adjustment",
    "terminal_penalty",
    "total",
)
"""Terms of the reward; all but the last add up to the last."""

SOCIAL_STAGES: tuple[str, ...] = ("OFF", "C1", "C2", "C3")

ScriptedPolicy: TypeAlias = Literal["expert", "greedy", "idle", "random", "selfish", "polite", "freeloader", "helper"]
SCRIPTED_POLICIES: tuple[ScriptedPolicy, ...] = (
    "expert",
    "greedy",
    "idle",
    "random",
    "selfish",
    "polite",
    "freeloader",
    "helper",
)
"""Policies that the town plays itself: the expert, weaker ones, and frozen partners for evaluation."""

KPIS: tuple[Described, ...] = (
    Described("attendance", "shifts worked for at least half their length / shifts that ended (1 if none ended)"),
    Described("lateness", "shifts begun late or missed / shifts that ended (0 if none ended)"),
    Described("starvation", "incidents (hunger under .05 for 30 ticks) per agent-day"),
    Described("conflicts", "queue conflicts per agent-day"),
    Described("chats", "successful chats per agent-day"),
    Described("welfare", "mean return of a slot per day"),
    Described("gini", "Gini coefficient of wallets at the end of the episode"),
    Described("sustainability", "share of agent-ticks in which every need is above .2"),
    Described("exits", "agents that left in the episode"),
)

FEATURES_VERSION = "2"


def _features() -> tuple[Described, ...]:
    base = [
        ("need_hunger", "1 = satisfied"),
        ("need_hygiene", "1 = satisfied"),
        ("need_energy", "1 = satisfied"),
        ("wallet", "wallet / 8, at most 1"),
        ("lateness_counter", "late shifts / 8, at most 1"),
        ("on_shift", "1 while the own shift runs and the agent is not absent"),
        ("time_sin", "sin(2 pi tick of day / ticks per day)"),
        ("time_cos", "cos(2 pi tick of day / ticks per day)"),
        ("attendance_ratio", "mean on-time share of the last three shifts"),
        ("wages_withheld", "wages withheld since the start, at most 1"),
        ("shift_pre", "shift state: before the shift, or awaited"),
        ("shift_on_time", "shift state: on time"),
        ("shift_late", "shift state: late"),
        ("shift_absent", "shift state: absent"),
        ("shift_post", "shift state: over for today"),
        ("embedding_slot_norm", "slot of the agent in its town / (N - 1)"),
        ("ctx_reset_flag", "1 on the first observation of a new or relocated agent"),
        ("episode_progress", "tick / ticks of an episode"),
        ("rivalry_max", "strongest rivalry"),
        ("rivalry_avoid_count", "ties at or above the avoid threshold / 6"),
        ("last_action_id_hash", "id of the last action / 15"),
        ("last_action_success", "1 if the last action did what it says"),
        ("last_action_duration", "ticks that the last action takes / 128, at most 1"),
        ("reservation_active", "1 while holding an object"),
        ("in_queue", "1 while waiting in a queue"),
        ("path_hint_north", "1 if the errand's next step is north"),
        ("path_hint_south", "1 if the errand's next step is south"),
        ("path_hint_east", "1 if the errand's next step is east"),
        ("path_hint_west", "1 if the errand's next step is west"),
        ("neighbor_agent_ratio", "agents on the eight tiles around / 8"),
        ("neighbor_object_ratio", "objects on the eight tiles around / 8"),
        ("reserved_tile_ratio", "objects in use on the eight tiles around / 8"),
        (
            "nearest_agent_distance",
            "larger of row and column distance to the nearest agent seen / window radius; 1 if none",
        ),
        ("personality_extroversion", "-1 to 1"),
        ("personality_forgiveness", "-1 to 1"),
        ("personality_ambition", "-1 to 1"),
    ]
    base += [(f"errand_{name}", "one of eight: the current errand") for name in ERRANDS]
    base += [
        ("errand_distance", "steps to the errand's place / 64, at most 1"),
        ("errand_reached", "1 at the errand's place"),
        ("busy_using", "1 while using an object"),
        ("busy_eating", "1 while eating"),
        ("busy_sleeping", "1 while sleeping"),
        ("busy_napping", "1 during a forced nap"),
        ("busy_left", "ticks until free / 128, at most 1"),
        ("holding", "1 when the use is over and the object still held"),
        ("portions", "carried portions / 4, at most 1"),
        ("ingredients", "carried ingredients / 4, at most 1"),
        ("price_level", "price factor - 1"),
        ("power_on", "1 unless there is a blackout"),
        ("water_on", "1 unless there is an outage"),
        ("chat_ready", "1 if the chat cooldown is over"),
        ("shift_countdown", "ticks to the next start of the own shift / ticks per day; 0 without a job"),
        ("shift_left", "ticks left in the own shift / ticks per day; 0 outside"),
    ]
    for name in OBJECT_TYPES:
        base += [
            (f"{name}_dx", f"column change of the first step to the nearest {name}; 0 when adjacent"),
            (f"{name}_dy", f"row change of the first step to the nearest {name}; 0 when adjacent"),
            (f"{name}_dist", f"steps to a tile beside the nearest {name} / 64, at most 1"),
        ]
    base += [
        ("queue_position", "place in the queue (1 = next) / 4; 0 outside"),
        ("queue_length", "agents waiting at the object used or queued for / 4"),
        ("partner_present", "1 if there is somebody to chat with"),
        ("partner_trust", "trust in that agent"),
        ("partner_familiarity", "familiarity with that agent"),
        ("partner_rivalry", "rivalry with that agent"),
        ("hungry_neighbor", "1 at a table where somebody sits to share a meal with"),
        ("colleague_late", "1 if the own shift is open and a colleague is late and away"),
    ]
    for name in ("friend_1", "friend_2", "rival_1", "rival_2"):
        base += [
            (f"{name}_present", "1 if there is one"),
            (f"{name}_dx", "columns to it / 32, within -1 to 1"),
            (f"{name}_dy", "rows to it / 32, within -1 to 1"),
            (f"{name}_trust", "trust in it"),
            (f"{name}_familiarity", "familiarity with it"),
            (f"{name}_rivalry", "rivalry with it"),
        ]
    base += [
        ("social_trust_mean", "mean trust over ties; 0 without ties"),
        ("social_trust_max", "largest trust; 0 without ties"),
        ("social_rivalry_mean", "mean rivalry over ties; 0 without ties"),
        ("social_rivalry_max", "largest rivalry; 0 without ties"),
        ("absent_shifts", "absences that count / those that lead to an exit, at most 1"),
        ("exit_pending", "1 while waiting for an exit"),
    ]
    return tuple(Described(name, meaning) for name, meaning in base)


FEATURES: tuple[Described, ...] = _features()
"""Columns of ``features`` in every variant."""

_CHANNELS: dict[str, tuple[str, ...]] = {
    "hybrid": ("self", "agents", "objects", "reservations"),
    "full": ("walls", "self", "agents", *OBJECT_TYPES[:-1], "busy", "queue_length"),
    "compact": ("self", "agents", "objects", "reservations", "walkable"),
}


def feature_names() -> tuple[str, ...]:
    """Return the names of the feature columns, in order."""
    return tuple(feature.name for feature in FEATURES)


def map_channels(variant: Variant) -> tuple[str, ...]:
    """Return the names of the map channels of a variant, in order."""
    return _CHANNELS[variant]


def window(variant: Variant) -> int:
    """Return the side of the egocentric window in tiles; it is odd."""
    return 7 if variant == "compact" else 11


EVENT_DTYPE = np.dtype(
    [
        ("tick", np.int32),
        ("slot", np.int32),
        ("kind", np.int16),
        ("other", np.int32),
        ("object", np.int32),
        ("value", np.float32),
    ]
)
"""One event; slots count through all towns (town-major)."""


@dataclass(frozen=True, slots=True)
class ObservationSpec:
    """Shape (without the slot axis) and dtype of one observation array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TownSpec:
    """What a batch of towns is, in names and shapes; constant over its life."""

    name: str
    num_envs: int
    agents_per_env: int
    observations: Mapping[str, ObservationSpec]
    feature_names: tuple[str, ...]
    map_channels: tuple[str, ...]
    action_names: tuple[str, ...]
    masked: bool
    event_kinds: tuple[str, ...]
    kpi_names: tuple[str, ...]
    rules_hash: str
    versions: Mapping[str, str]
