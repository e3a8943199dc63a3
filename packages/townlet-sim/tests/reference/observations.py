"""What an agent sees, written from the meanings in ``townlet_sim.spaces``."""

from __future__ import annotations

from math import cos, pi, sin

from reference.errands import place_of
from reference.world import FAR, STEPS, Agent, Tie, World
from townlet_sim.spaces import ACTIONS, ERRANDS, OBJECT_TYPES, Variant, map_channels, window

__all__ = ["features", "map_around"]

_NAMES = tuple(action.name for action in ACTIONS)


def features(world: World, agent: Agent, *, variant: Variant) -> dict[str, float]:
    config = world.config
    found = dict[str, float]()
    found["need_hunger"] = agent.hunger
    found["need_hygiene"] = agent.hygiene
    found["need_energy"] = agent.energy
    found["wallet"] = min(agent.wallet / 8, 1.0)
    found["lateness_counter"] = min(agent.late_count / 8, 1.0)
    found["on_shift"] = float(agent.open and agent.shift != "absent")
    found["time_sin"] = sin(2 * pi * world.tod / config.ticks_per_day)
    found["time_cos"] = cos(2 * pi * world.tod / config.ticks_per_day)
    found["attendance_ratio"] = sum(agent.record) / len(agent.record) if agent.record else 0.0
    found["wages_withheld"] = min(agent.withheld, 1.0)
    for state in ("pre", "on_time", "late", "absent", "post"):
        found["shift_" + state] = float(agent.shift == state)
    found["embedding_slot_norm"] = agent.slot / max(config.agents - 1, 1)
    found["ctx_reset_flag"] = float(agent.ctx_reset)
    found["episode_progress"] = world.tick / config.horizon
    rivalries = [tie.rivalry for tie in agent.ties if tie is not None]
    found["rivalry_max"] = max(rivalries, default=0.0)
    found["rivalry_avoid_count"] = sum(rivalry >= config.rivalry.avoid for rivalry in rivalries) / 6
    found["last_action_id_hash"] = _NAMES.index(agent.last_action) / 15
    found["last_action_success"] = float(agent.last_ok)
    found["last_action_duration"] = min(agent.last_ticks / 128, 1.0)
    found["reservation_active"] = float(agent.thing is not None)
    found["in_queue"] = float(agent.queue is not None)
    for name in STEPS:
        found["path_hint_" + name] = float(agent.hint == name)
    around = world.things_around(agent.tile)
    found["neighbor_agent_ratio"] = len(world.agents_around(agent)) / 8
    found["neighbor_object_ratio"] = len(around) / 8
    found["reserved_tile_ratio"] = sum(thing.user is not None for thing in around) / 8
    found["nearest_agent_distance"] = _nearest(world, agent, window(variant) // 2)
    traits = ("extroversion", "forgiveness", "ambition")
    found |= {f"personality_{name}": value for name, value in zip(traits, agent.traits, strict=True)}
    found |= {f"errand_{name}": float(agent.errand == name) for name in ERRANDS}
    place = place_of(world, agent, agent.errand)
    found["errand_distance"] = 0.0 if place is None else min(world.dist(place, agent.tile) / 64, 1.0)
    found["errand_reached"] = float(agent.reached)
    for busy in ("eating", "sleeping", "napping"):
        found["busy_" + busy] = float(agent.busy == busy)
    found["busy_using"] = float(agent.busy in {"using", "holding"})
    found["busy_left"] = min(agent.left / 128, 1.0)
    found["holding"] = float(agent.busy == "holding")
    found["portions"] = min(agent.portions / 4, 1.0)
    found["ingredients"] = min(agent.ingredients / 4, 1.0)
    found["price_level"] = world.price - 1
    found["power_on"] = float(world.perturbation != "blackout")
    found["water_on"] = float(world.perturbation != "outage")
    found["chat_ready"] = float(world.tick >= agent.chat_ready)
    found |= _shift(world, agent)
    for kind in OBJECT_TYPES:
        found |= _way(world, agent, kind)
    found |= _company(world, agent)
    found |= _ties(world, agent)
    return found


def _nearest(world: World, agent: Agent, radius: int) -> float:
    away = [
        max(abs(other.y - agent.y), abs(other.x - agent.x))
        for other in world.agents
        if other.alive and other is not agent
    ]
    seen = [steps for steps in away if steps <= radius]
    return min(seen) / radius if seen else 1.0


def _shift(world: World, agent: Agent) -> dict[str, float]:
    if agent.job is None:
        return {"shift_countdown": 0.0, "shift_left": 0.0}
    day = world.config.ticks_per_day
    left = agent.job.end - world.tod if agent.open else 0
    return {"shift_countdown": (agent.job.start - world.tod) % day / day, "shift_left": left / day}


def _way(world: World, agent: Agent, kind: str) -> dict[str, float]:
    dy = dx = 0
    steps = FAR
    number = world.near(kind, agent.tile)
    if number is not None:
        steps = world.dist(number, agent.tile)
        for step in STEPS.values():
            there = (agent.y + step[0], agent.x + step[1])
            if steps > 0 and world.walkable(there) and _to_nearest(world, kind, there) < steps:
                dy, dx = step
                break
    return {f"{kind}_dx": dx, f"{kind}_dy": dy, f"{kind}_dist": min(steps / 64, 1.0)}


def _to_nearest(world: World, kind: str, tile: tuple[int, int]) -> int:
    number = world.near(kind, tile)
    return FAR if number is None else world.dist(number, tile)


def _company(world: World, agent: Agent) -> dict[str, float]:
    place = length = 0
    if agent.queue is not None:
        place = world.things[agent.queue].queue.index(agent.slot) + 1
        length = len(world.things[agent.queue].queue)
    elif agent.thing is not None:
        length = len(world.things[agent.thing].queue)
    partner = world.chat_partner(agent)
    tie = agent.tie(partner.slot) if partner is not None else Tie(-1)
    hungry = world.hungry_neighbour(agent)
    late = world.late_colleague(agent, acting=False) if agent.open else None
    return {
        "queue_position": place / 4,
        "queue_length": length / 4,
        "partner_present": float(partner is not None),
        "partner_trust": tie.trust,
        "partner_familiarity": tie.familiarity,
        "partner_rivalry": tie.rivalry,
        "hungry_neighbor": float(hungry is not None),
        "colleague_late": float(late is not None),
    }


def _ties(world: World, agent: Agent) -> dict[str, float]:
    ties = [tie for tie in agent.ties if tie is not None]
    # Sorting is stable: of equals the first place comes first.
    friends = sorted((tie for tie in ties if tie.trust + tie.familiarity > 0), key=lambda t: -(t.trust + t.familiarity))
    rivals = sorted((tie for tie in ties if tie.rivalry > 0), key=lambda t: -t.rivalry)
    found = dict[str, float]()
    for kind, ranked in (("friend", friends), ("rival", rivals)):
        for number in (1, 2):
            tie = ranked[number - 1] if len(ranked) >= number else None
            other = world.agents[tie.other] if tie is not None else agent
            name = f"{kind}_{number}"
            found[f"{name}_present"] = float(tie is not None)
            found[f"{name}_dx"] = min(max((other.x - agent.x) / 32, -1.0), 1.0)
            found[f"{name}_dy"] = min(max((other.y - agent.y) / 32, -1.0), 1.0)
            found[f"{name}_trust"] = tie.trust if tie else 0.0
            found[f"{name}_familiarity"] = tie.familiarity if tie else 0.0
            found[f"{name}_rivalry"] = tie.rivalry if tie else 0.0
    count = max(len(ties), 1)
    found["social_trust_mean"] = sum(tie.trust for tie in ties) / count
    found["social_trust_max"] = max((tie.trust for tie in ties), default=0.0)
    found["social_rivalry_mean"] = sum(tie.rivalry for tie in ties) / count
    found["social_rivalry_max"] = max((tie.rivalry for tie in ties), default=0.0)
    found["absent_shifts"] = min(agent.absences / max(world.config.employment.max_absent_shifts, 1), 1.0)
    found["exit_pending"] = float(agent.pending is not None)
    return found


def map_around(world: World, agent: Agent, *, variant: Variant) -> dict[str, list[list[int]]]:
    """Channels of the window around an agent, by name."""
    radius = window(variant) // 2
    found = {}
    for channel in map_channels(variant):
        found[channel] = [
            [_shown(world, agent, channel, (agent.y + dy, agent.x + dx)) for dx in range(-radius, radius + 1)]
            for dy in range(-radius, radius + 1)
        ]
    return found


def _shown(world: World, agent: Agent, channel: str, tile: tuple[int, int]) -> int:
    things = [thing for thing in world.things if (thing.y, thing.x) == tile]
    if channel == "self":
        return int(tile == agent.tile)
    if channel == "agents":
        return int(world.agent_at(tile) not in (None, agent))
    if channel == "walkable":
        return int(world.walkable(tile))
    if channel == "walls":
        return int(not world.walkable(tile) and all(thing.type == "table" for thing in things))
    if channel in {"reservations", "busy"}:
        return int(any(thing.user is not None for thing in things))
    if channel == "queue_length":
        return sum(len(thing.queue) for thing in things)
    return sum(channel in {"objects", thing.type} for thing in things)
