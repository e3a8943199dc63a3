"""Masks, errands and the scripted expert of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from reference.world import STEPS, Agent, World

__all__ = ["can", "expert_action", "place_of", "weigh_errands"]


def can(world: World, agent: Agent, action: str, *, acting: bool) -> bool:
    """Whether an action is possible: for the mask, or (``acting``) in the moment it is played."""
    config = world.config
    if action == "stay":
        return True
    if action in STEPS:
        there = (agent.y + STEPS[action][0], agent.x + STEPS[action][1])
        return world.walkable(there) and agent.busy in {"free", "holding"}
    if action == "leave":
        return agent.busy in {"using", "holding", "eating", "sleeping"} or agent.queue is not None
    if action == "chat":
        return agent.free and world.tick >= agent.chat_ready and world.chat_partner(agent) is not None
    if action == "give_way":
        behind = agent.queue is not None and world.things[agent.queue].queue[-1] != agent.slot
        return behind and not agent.gave_way
    if not agent.idle:
        return False
    if action == "use":
        return world.use_target(agent) is not None
    if action == "eat":
        return agent.portions > 0 and world.table(agent) is not None
    if action == "share":
        return agent.portions >= 2 and world.hungry_neighbour(agent) is not None
    if action == "buy":
        economy = config.economy
        beside = any(thing.type == "till" for thing in world.things_around(agent.tile))
        afford = agent.wallet >= economy.ingredients_cost * world.price
        return beside and afford and agent.ingredients < economy.max_ingredients
    if action == "sleep":
        home = agent.bed is not None and world.dist(agent.bed, agent.tile) == 0
        return home and agent.energy < config.affordances.sleep_below
    at_work = agent.open and agent.shift != "absent" and world.at_site(agent)
    if action == "work":
        return at_work
    assert action in {"cover", "take_shift"}, action
    steady = agent.shift in {"on_time", "late"} and not (action == "take_shift" and agent.took)
    return at_work and steady and world.late_colleague(agent, acting=acting) is not None


# -- errands ---------------------------------------------------------------------------------------------------


def weigh_errands(world: World, agents: Sequence[Agent]) -> None:
    for agent in agents:
        if agent.alive:
            _weigh(world, agent)
            _hint(world, agent)


def _food(world: World, agent: Agent, *, emergency: bool) -> str | None:
    economy, expert = world.config.economy, world.config.expert
    shop = agent.wallet >= economy.ingredients_cost * world.price
    own_kitchen = "cook" if agent.ingredients > 0 else "shop" if shop else None
    table = place_of(world, agent, "eat")
    if world.perturbation == "blackout" or table is None or place_of(world, agent, "cook") is None:
        own_kitchen = None
    if agent.portions > 0 and table is not None:
        return "eat"
    if not emergency and agent.wallet < expert.cook_baskets * economy.basket and own_kitchen:
        return own_kitchen
    if agent.wallet >= economy.meal_cost * world.price:
        return "cafe"
    return own_kitchen


def _due(world: World, agent: Agent) -> bool:
    if agent.open:
        return agent.shift != "absent"
    if agent.job is None or agent.site is None:
        return False
    ahead = (agent.job.start - world.tod) % world.config.ticks_per_day
    return ahead <= world.dist(agent.site, agent.tile) + _early(world, agent)


def _early(world: World, agent: Agent) -> float:
    return world.config.expert.early_ticks * world.behaviour(agent)[1]


def _weigh(world: World, agent: Agent) -> None:
    config, expert = world.config, world.config.expert
    if not agent.idle and agent.busy != "sleeping":
        return
    if agent.hunger < expert.eat_below:
        food = _food(world, agent, emergency=True)
        if food is not None and agent.hunger < expert.emergency + config.needs.hunger_decay * _path(world, agent, food):
            agent.errand, agent.errand_until = food, world.tick
            return
    if _due(world, agent):
        agent.errand, agent.errand_until = "work", world.tick
        return
    if agent.busy == "sleeping" or (agent.errand != "work" and world.tick < agent.errand_until):
        return
    times, weights = config.affordances, config.rewards
    candidates: list[tuple[str, float, float, int]] = []
    if agent.hunger < expert.eat_below:
        food = _food(world, agent, emergency=False)
        if food is not None and _path(world, agent, food) + _meal(world, agent, food) > _spare(world, agent):
            food = _food(world, agent, emergency=True)
        if food is not None:
            candidates.append((food, weights.hunger_weight, 1 - agent.hunger, _meal(world, agent, food)))
    dear = (config.economy.shower_cost + config.economy.ingredients_cost) * world.price
    shower = agent.wallet >= dear and world.perturbation != "outage"
    if agent.hygiene < expert.shower_below and shower:
        candidates.append(("shower", weights.hygiene_weight, 1 - agent.hygiene, times.shower_ticks))
    if agent.energy < expert.sleep_below:
        candidates.append(("sleep", weights.energy_weight, 1 - agent.energy, times.sleep_ticks))
    agent.errand, best = "idle", 0.0
    for errand, weight, deficit, time in candidates:
        exists = place_of(world, agent, errand) is not None
        hurried = errand != "sleep" and _path(world, agent, errand) + time > _spare(world, agent)
        if hurried or not exists:
            continue
        urgency = weight * deficit * deficit / (_path(world, agent, errand) + time)
        if urgency > best:
            agent.errand, best = errand, urgency
    agent.errand_until = world.tick + expert.commit_ticks


def _meal(world: World, agent: Agent, food: str) -> int:
    """Ticks from arriving until it has eaten."""
    times = world.config.affordances
    cooked = times.cook_ticks + _path(world, agent, "eat") + times.eat_ticks
    return {"eat": times.eat_ticks, "cafe": times.meal_ticks, "cook": cooked, "shop": 1 + cooked}[food]


def _spare(world: World, agent: Agent) -> float:
    """Ticks until it must set off for work."""
    if agent.job is None or agent.site is None or agent.open:
        return inf
    ahead = (agent.job.start - world.tod) % world.config.ticks_per_day
    return ahead - world.dist(agent.site, agent.tile) - _early(world, agent)


def place_of(world: World, agent: Agent, errand: str) -> int | None:
    if errand in {"idle", "sleep"}:
        return agent.bed
    if errand == "work":
        return agent.site
    kinds = {"cafe": "fridge", "cook": "stove", "shop": "till", "shower": "shower", "eat": "table"}
    return world.near(kinds[errand], agent.tile) if errand in kinds else None


def _path(world: World, agent: Agent, errand: str) -> int:
    place = place_of(world, agent, errand)
    return 0 if place is None else world.dist(place, agent.tile)


def _reached(world: World, agent: Agent) -> bool:
    if agent.errand == "work":
        return world.at_site(agent)
    return _path(world, agent, agent.errand) <= (2 if agent.errand == "idle" else 0)


def _hint(world: World, agent: Agent) -> None:
    agent.reached = _reached(world, agent)
    agent.hint = "stay"
    place = place_of(world, agent, agent.errand)
    if place is None:
        return
    here = world.dist(place, agent.tile)
    around = {
        name: (agent.y + dy, agent.x + dx)
        for name, (dy, dx) in STEPS.items()
        if world.walkable((agent.y + dy, agent.x + dx))
    }
    closer = [name for name, tile in around.items() if world.dist(place, tile) < here]
    free = [name for name, tile in around.items() if world.agent_at(tile) is None]
    new = [name for name in free if around[name] != agent.came_from]
    good = [name for name in closer if name in new] or [name for name in closer if name in free]
    if agent.reached:
        if agent.errand == "work" and here > 1 and good:  # on into the room
            agent.reached, agent.hint = False, good[0]
    elif good:
        agent.hint = good[0]
    elif (world.tick + agent.slot) % 3 == 0 and new:
        agent.hint = min(new, key=lambda name: world.dist(place, around[name]))
    elif closer:
        agent.hint = closer[0]


def expert_action(world: World, agent: Agent) -> str:
    if agent.alive and agent.busy == "sleeping":
        return "stay" if agent.errand == "sleep" else "leave"
    if not agent.alive or agent.busy in {"using", "eating", "napping"} or agent.queue is not None:
        return "stay"
    if agent.busy == "holding":
        return "leave"
    if not agent.reached:
        return agent.hint
    action = {"cafe": "use", "cook": "use", "shower": "use", "shop": "buy", "idle": "chat"}.get(
        agent.errand, agent.errand
    )
    content = world.config.expert.chat_above / world.behaviour(agent)[0]
    if agent.errand == "idle" and min(agent.hunger, agent.hygiene, agent.energy) <= content:
        return "stay"
    return action if can(world, agent, action, acting=False) else "stay"
