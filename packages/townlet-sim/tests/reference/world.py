"""What a town of the reference consists of: random streams, agents, objects, and where things are."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import lcm
from typing import NamedTuple

from townlet_sim.config import BEHAVIOUR_BIAS, PROFILES, REWARD_BIAS, Job, TownConfig
from townlet_sim.layout import Layout

__all__ = ["FAR", "OPPOSITE", "RING", "STEPS", "Agent", "Event", "Stream", "Thing", "Tie", "World", "clamp", "key"]

_BITS = (1 << 64) - 1
_G = 0x9E3779B97F4A7C15
FAR = 32000

STEPS = {"north": (-1, 0), "south": (1, 0), "east": (0, 1), "west": (0, -1)}
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
RING = ((-1, 0), (1, 0), (0, 1), (0, -1), (-1, 1), (-1, -1), (1, 1), (1, -1))
"""(rows, columns) to N, S, E, W, NE, NW, SE, SW."""

Tile = tuple[int, int]


def clamp(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _BITS
    return z ^ (z >> 31)


def key(seed: int, episode: int, stream: int) -> int:
    inner = mix((seed + _G) & _BITS)
    middle = mix((inner + (episode + 1) * _G) & _BITS)
    return mix((middle + (stream + 1) * _G) & _BITS)


@dataclass
class Stream:
    key: int
    counter: int = 0

    def draw(self) -> float:
        self.counter += 1
        return (mix((self.key + self.counter * _G) & _BITS) >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        return int(self.draw() * bound)


class Event(NamedTuple):
    tick: int
    slot: int
    kind: str
    other: int
    thing: int
    value: float


@dataclass
class Tie:
    other: int
    trust: float = 0.0
    familiarity: float = 0.0
    rivalry: float = 0.0


@dataclass
class Thing:
    """An object of the map."""

    number: int
    type: str
    y: int
    x: int
    user: int | None = None
    held: int = 0
    queue: list[int] = field(default_factory=list)


@dataclass
class Agent:
    """One agent, or an empty slot (``alive`` false)."""

    slot: int
    profile: str
    job: Job | None
    bed: int | None
    site: int | None
    alive: bool = False
    y: int = 0
    x: int = 0
    hunger: float = 0.0
    hygiene: float = 0.0
    energy: float = 0.0
    wallet: float = 0.0
    portions: int = 0
    ingredients: int = 0
    busy: str = "free"  # free, using, holding, eating, sleeping, napping
    left: int = 0
    thing: int | None = None
    queue: int | None = None
    since: int = 0
    gave_way: bool = False
    ties: list[Tie | None] = field(default_factory=lambda: [None] * 6)
    cool_thing: int | None = None
    cool_until: int = 0
    chat_ready: int = 0
    # shift
    shift: str = "pre"  # pre, on_time, late, absent, post
    open: bool = False
    worked: bool = False
    worked_last: bool = False
    covering: bool = False
    covered: bool = False
    took: bool = False
    helped: bool = False
    work_ticks: int = 0
    on_time_ticks: int = 0
    cover_ticks: int = 0
    late_count: int = 0
    absent_days: list[int] = field(default_factory=list)  # turns of the day since each absence that counts
    last_worked: int = 0  # tick of day
    departed: bool = False
    pending: int | None = None  # since when it waits for its exit
    withheld: float = 0.0
    record: list[float] = field(default_factory=list)  # oldest first, at most three
    # body
    no_food: int = 0
    starving: int = 0
    # errand
    errand: str = "idle"
    errand_until: int = 0
    hint: str = "stay"
    reached: bool = False
    came_from: Tile | None = None
    # last action
    last_action: str = "stay"
    last_ok: bool = False
    last_ticks: int = 0
    ctx_reset: bool = True
    # this tick
    acted: bool = False
    invalid: bool = False
    paid: float = 0.0
    docked: float = 0.0
    bonus: float = 0.0
    penalty: float = 0.0
    avoidance: float = 0.0
    potential: float = 0.0

    @property
    def free(self) -> bool:
        return self.busy == "free"

    @property
    def idle(self) -> bool:
        """Free and not waiting."""
        return self.busy == "free" and self.queue is None

    @property
    def tile(self) -> Tile:
        return self.y, self.x

    @property
    def traits(self) -> tuple[float, float, float]:
        """Extroversion, forgiveness, ambition."""
        return PROFILES[self.profile][0]

    @property
    def absences(self) -> int:
        return len(self.absent_days)

    def tie(self, other: int) -> Tie:
        """The tie to another, zeros if there is none."""
        for tie in self.ties:
            if tie is not None and tie.other == other:
                return tie
        return Tie(other)


class World:
    """State of one town, and geometry."""

    def __init__(self, config: TownConfig, layouts: list[Layout]) -> None:
        self.config = config
        self.layouts = layouts
        self.seed = 0
        self.episode = 0
        self.tick = 0
        self.start = 0
        self.price = 1.0
        self.perturbation: str | None = None
        self.perturbation_end = 0
        self.rests = dict.fromkeys(("price_spike", "blackout", "outage", "arranged_meet"), 0)
        self.agents: list[Agent] = []
        self.things: list[Thing] = []
        self.events: list[Event] = []
        self.starved = 0
        self.guard = [0] * config.agents
        self.running = [0.0] * config.agents
        self.returns = [0.0] * config.agents
        self.respawn_at: list[int | None] = [None] * config.agents
        self.spawns = [0] * config.agents
        self.exits: dict[int, str] = {}
        self._distances: dict[tuple[int, int], dict[Tile, int]] = {}
        self.map_number = 0
        self.world_stream = Stream(0)
        self.event_stream = Stream(0)

    # -- time and place ----------------------------------------------------------------------------------------

    @property
    def tod(self) -> int:
        return (self.start + self.tick) % self.config.ticks_per_day

    def walkable(self, tile: Tile) -> bool:
        walk = self.layouts[self.map_number].walkable
        y, x = tile
        return 0 <= y < walk.shape[0] and 0 <= x < walk.shape[1] and bool(walk[y, x])

    def agent_at(self, tile: Tile) -> Agent | None:
        for agent in self.agents:
            if agent.alive and agent.tile == tile:
                return agent
        return None

    def free_tile(self, tile: Tile) -> bool:
        return self.walkable(tile) and self.agent_at(tile) is None

    def ring(self, tile: Tile) -> list[Tile]:
        return [(tile[0] + dy, tile[1] + dx) for dy, dx in RING]

    def agents_around(self, agent: Agent) -> list[Agent]:
        found = [self.agent_at(tile) for tile in self.ring(agent.tile)]
        return [other for other in found if other is not None]

    def things_around(self, tile: Tile) -> list[Thing]:
        around = self.ring(tile)
        beside = [thing for thing in self.things if (thing.y, thing.x) in around]
        return sorted(beside, key=lambda thing: around.index((thing.y, thing.x)))

    def distances(self, thing: int) -> dict[Tile, int]:
        """Steps from each tile to the closest tile beside an object."""
        place = (self.map_number, thing)
        if place not in self._distances:
            here = self.things[thing]
            found = {tile: 0 for tile in self.ring((here.y, here.x)) if self.walkable(tile)}
            frontier = deque(found)
            while frontier:
                tile = frontier.popleft()
                for dy, dx in STEPS.values():
                    there = (tile[0] + dy, tile[1] + dx)
                    if self.walkable(there) and there not in found:
                        found[there] = found[tile] + 1
                        frontier.append(there)
            self._distances[place] = found
        return self._distances[place]

    def dist(self, thing: int, tile: Tile) -> int:
        return self.distances(thing).get(tile, FAR)

    def near(self, kind: str, tile: Tile) -> int | None:
        of_kind = [thing.number for thing in self.things if thing.type == kind]
        reachable = [number for number in of_kind if self.dist(number, tile) < FAR]
        return min(reachable, key=lambda number: (self.dist(number, tile), number), default=None)

    def best_free_tile(self, thing: int) -> Tile:
        choices = [(steps, *tile) for tile, steps in self.distances(thing).items() if self.agent_at(tile) is None]
        _, y, x = min(choices)
        return y, x

    def at_site(self, agent: Agent) -> bool:
        return agent.site is not None and self.dist(agent.site, agent.tile) <= self.config.employment.work_radius

    def crew(self, agent: Agent) -> list[Agent]:
        """The others that share job and site, lowest slot first."""
        workplaces = sum(thing.type == "workplace" for thing in self.things)
        apart = lcm(len(self.config.jobs), workplaces)
        return [other for other in self.agents if other is not agent and (other.slot - agent.slot) % apart == 0]

    # -- beginnings --------------------------------------------------------------------------------------------

    def begin_episode(self) -> None:
        config = self.config
        self.world_stream = Stream(key(self.seed, self.episode, 0))
        self.event_stream = Stream(key(self.seed, self.episode, 1))
        self.map_number = self.world_stream.below(len(self.layouts)) if len(self.layouts) > 1 else 0
        self.tick = 0
        self.start = self.world_stream.below(config.ticks_per_day) if config.random_start else 0
        self.price = 1.0
        self.perturbation = None
        self.perturbation_end = 0
        self.rests = dict.fromkeys(self.rests, 0)
        self.guard = [0] * config.agents
        self.running = [0.0] * config.agents
        self.returns = [0.0] * config.agents
        self.respawn_at = [None] * config.agents
        self.spawns = [0] * config.agents
        self.starved = 0
        layout = self.layouts[self.map_number]
        self.things = [Thing(i, thing.type, thing.y, thing.x) for i, thing in enumerate(layout.objects)]
        invalid = [agent.invalid for agent in self.agents] or [False] * config.agents  # of the last step
        self.agents = [self._blank(slot) for slot in range(config.agents)]
        for agent in self.agents:
            agent.invalid = invalid[agent.slot]
            self._draw_needs(agent)
        for agent in self.agents:
            self._place(agent)
            if agent.job is not None and self.tod == agent.job.start:
                self.open_shift(agent)

    def respawn(self, slot: int) -> None:
        agent = self._blank(slot)
        agent.invalid = self.agents[slot].invalid  # reported for the step, not for the agent
        agent.shift = "post"
        self._draw_needs(agent)
        self.agents[slot] = agent
        self._place(agent)
        if agent.job is not None and not agent.job.start <= self.tod < agent.job.end:
            agent.shift = "pre"
        self.respawn_at[slot] = None
        self.spawns[slot] += 1

    def _blank(self, slot: int) -> Agent:
        config = self.config
        beds = [thing.number for thing in self.things if thing.type == "bed"]
        sites = [thing.number for thing in self.things if thing.type == "workplace"]
        return Agent(
            slot=slot,
            profile=config.profiles[slot % len(config.profiles)],
            job=config.jobs[slot % len(config.jobs)] if config.jobs and sites else None,
            bed=beds[slot % len(beds)] if beds else None,
            site=sites[slot % len(sites)] if sites else None,
            wallet=config.economy.start_wallet,
        )

    def _draw_needs(self, agent: Agent) -> None:
        needs = self.config.needs
        low, high = needs.initial_low, needs.initial_high
        agent.hunger = low + (high - low) * self.world_stream.draw()
        agent.hygiene = low + (high - low) * self.world_stream.draw()
        agent.energy = low + (high - low) * self.world_stream.draw()

    def _place(self, agent: Agent) -> None:
        assert agent.bed is not None, "the reference needs maps with beds"
        agent.y, agent.x = self.best_free_tile(agent.bed)
        agent.alive = True

    def open_shift(self, agent: Agent) -> None:
        agent.open = True
        agent.shift = "pre"
        agent.work_ticks = agent.on_time_ticks = agent.cover_ticks = 0
        agent.took = agent.helped = agent.departed = False

    # -- small things that many rules say ----------------------------------------------------------------------

    def emit(self, slot: int, kind: str, *, other: int = -1, thing: int = -1, value: float = 0.0) -> None:
        self.events.append(Event(self.tick, slot, kind, other, thing, value))

    def change_tie(
        self,
        owner: Agent,
        other: Agent,
        *,
        trust: float = 0.0,
        familiarity: float = 0.0,
        rivalry: float = 0.0,
        conflict: bool = False,
    ) -> None:
        _, forgiveness, ambition = owner.traits
        if conflict:
            rivalry *= 1 + 0.3 * ambition if self.config.social.modifiers else 1.0
            rivalry *= self.behaviour(owner)[2]
        if self.config.social.modifiers:
            soften = 1 - 0.5 * forgiveness
            trust *= soften if trust < 0 else 1.0
            familiarity *= soften if familiarity < 0 else 1.0
            rivalry *= soften if rivalry > 0 else 1.0
        tie = self._tie_to_change(owner, other.slot)
        tie.trust = clamp(tie.trust + trust, -1.0, 1.0)
        tie.familiarity = clamp(tie.familiarity + familiarity, -1.0, 1.0)
        tie.rivalry = clamp(tie.rivalry + rivalry, 0.0, 1.0)

    @staticmethod
    def _tie_to_change(owner: Agent, other: int) -> Tie:
        for tie in owner.ties:
            if tie is not None and tie.other == other:
                return tie
        new = Tie(other)
        for place, tie in enumerate(owner.ties):
            if tie is None:
                owner.ties[place] = new
                return new
        strengths = [tie.trust + tie.familiarity for tie in owner.ties if tie is not None]
        owner.ties[strengths.index(min(strengths))] = new
        return new

    def both_ways(self, first: Agent, second: Agent, trust: float, familiarity: float, rivalry: float) -> None:
        self.change_tie(first, second, trust=trust, familiarity=familiarity, rivalry=rivalry)
        self.change_tie(second, first, trust=trust, familiarity=familiarity, rivalry=rivalry)

    def conflict(self, a: Agent, b: Agent, thing: Thing, boost: float) -> None:
        rivalry = self.config.rivalry
        intensity = clamp(boost + rivalry.queue_length_boost * max(0, len(thing.queue) - 1), 0.1, 5.0)
        self.emit(a.slot, "queue_conflict", other=b.slot, thing=thing.number, value=intensity)
        self.change_tie(a, b, rivalry=rivalry.increment * intensity, conflict=True)
        self.change_tie(b, a, rivalry=rivalry.increment * intensity, conflict=True)

    def leave_queue(self, agent: Agent) -> None:
        """Without cooldown."""
        if agent.queue is not None:
            self.things[agent.queue].queue.remove(agent.slot)
            agent.queue = None
            agent.errand_until = 0

    def release(self, agent: Agent, *, success: bool) -> None:
        assert agent.thing is not None
        thing = self.things[agent.thing]
        thing.user = None
        thing.held = 0
        agent.busy, agent.left, agent.thing = "free", 0, None
        agent.errand_until = 0
        if success:
            agent.cool_thing, agent.cool_until = thing.number, self.tick + self.config.queues.cooldown_ticks
            if thing.queue:
                first = self.next_in_line(thing)
                self.emit(agent.slot, "queue_interaction", other=first.slot, thing=thing.number, value=0.0)
                self.both_ways(agent, first, 0.05, 0.05, -0.05)

    def stop(self, agent: Agent) -> None:
        """Give up whatever it does: no success, no cooldown."""
        if agent.thing is not None:
            self.release(agent, success=False)
        self.leave_queue(agent)
        agent.busy, agent.left = "free", 0
        agent.errand_until = 0

    def usable(self, agent: Agent, thing: Thing) -> bool:
        """Apart from user and queue."""
        economy = self.config.economy
        if agent.cool_thing == thing.number and self.tick < agent.cool_until:
            return False
        if thing.type == "fridge":
            return agent.wallet >= economy.meal_cost * self.price
        if thing.type == "stove":
            room = agent.portions + economy.portions <= economy.max_portions
            return agent.ingredients > 0 and room and self.perturbation != "blackout"
        if thing.type == "shower":
            return agent.wallet >= economy.shower_cost * self.price and self.perturbation != "outage"
        return False

    def use_target(self, agent: Agent) -> Thing | None:
        usable = [
            thing for thing in self.things_around(agent.tile) if self.usable(agent, thing) and len(thing.queue) < 4
        ]
        unused = [thing for thing in usable if thing.user is None and not thing.queue]
        return unused[0] if unused else usable[0] if usable else None

    def begin_use(self, agent: Agent, thing: Thing) -> None:
        economy, affordances = self.config.economy, self.config.affordances
        if thing.type == "fridge":
            agent.wallet -= economy.meal_cost * self.price
            agent.left = affordances.meal_ticks
        elif thing.type == "stove":
            agent.ingredients -= 1
            agent.left = affordances.cook_ticks
        else:
            agent.wallet -= economy.shower_cost * self.price
            agent.left = affordances.shower_ticks
        agent.busy, agent.thing = "using", thing.number
        thing.user, thing.held = agent.slot, 0

    def chat_partner(self, agent: Agent) -> Agent | None:
        avoid = self.config.rivalry.avoid
        for other in self.agents_around(agent):
            if (
                other.free
                and self.tick >= other.chat_ready
                and agent.tie(other.slot).rivalry < avoid
                and other.tie(agent.slot).rivalry < avoid
            ):
                return other
        return None

    def table(self, agent: Agent) -> Thing | None:
        """The table that it sits at."""
        beside = [thing for thing in self.things_around(agent.tile) if thing.type == "table"]
        return min(beside, key=lambda thing: thing.number, default=None)

    def hungry_neighbour(self, agent: Agent) -> Agent | None:
        table = self.table(agent)
        around = [] if table is None else [self.agent_at(tile) for tile in self.ring((table.y, table.x))]
        for other in around:
            if (
                other is not None
                and other is not agent
                and other.idle
                and other.hunger < self.config.social.share_below
            ):
                return other
        return None

    def next_in_line(self, thing: Thing) -> Agent:
        weight = self.config.queues.age_priority_weight
        ranks = [(place - weight * (self.tick - self.agents[slot].since)) for place, slot in enumerate(thing.queue)]
        return self.agents[thing.queue[ranks.index(min(ranks))]]

    def behaviour(self, agent: Agent) -> tuple[float, float, float]:
        """Chat preference, work affinity, conflict tolerance."""
        return BEHAVIOUR_BIAS[agent.profile if self.config.personality.behaviour else "balanced"]

    def values(self, agent: Agent) -> tuple[float, float, float]:
        """What survival, employment and company are worth to it."""
        return REWARD_BIAS[agent.profile if self.config.personality.reward_multipliers else "balanced"]

    def late_colleague(self, agent: Agent, *, acting: bool) -> Agent | None:
        """Who can be covered: late, and away in the last tick (and, while acting, in this one so far)."""
        for other in self.crew(agent):
            away = not other.worked and not (acting and other.worked_last)
            if other.alive and other.open and other.shift == "late" and away:
                return other
        return None
