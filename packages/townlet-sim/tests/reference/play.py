"""One step of the town, in the order of docs/town-rules.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reference.errands import can, weigh_errands
from reference.shifts import Shifts
from reference.world import OPPOSITE, STEPS, Agent, Thing, clamp
from townlet_sim.config import PROFILES, TownConfig
from townlet_sim.layout import Layout
from townlet_sim.spaces import ACTIONS

__all__ = ["Town"]

_NAMES = tuple(action.name for action in ACTIONS)
_STAGES = ("OFF", "C1", "C2", "C3")


class Town(Shifts):
    """A town that is played by :meth:`step`; what a step reported stays in its attributes."""

    def __init__(self, config: TownConfig, layouts: list[Layout], *, seed: int) -> None:
        super().__init__(config, layouts)
        self.seed = seed
        self.terms: list[dict[str, float]] = []
        self.terminated: list[bool] = []
        self.truncated = False
        self.begin_episode()
        weigh_errands(self, self.agents)
        self._before_observation()

    def step(self, actions: Sequence[int]) -> None:
        self.events = []
        self.exits = {}
        self._published = self.masks()
        asked = [_NAMES[action] for action in actions]
        for agent in self.agents:
            agent.acted = agent.ctx_reset = False
            agent.invalid = agent.alive and not self._published[agent.slot][actions[agent.slot]]
            agent.worked_last, agent.worked = agent.worked, False
            agent.covering = agent.covered = False
            agent.paid = agent.docked = agent.bonus = agent.penalty = agent.avoidance = 0.0
        self._perturb()
        self._act(asked)
        for thing in self.things:
            self._play_thing(thing)
        for agent in self.present():
            self._play_body(agent)
        for agent in self.present():
            if agent.open and agent.shift != "absent":
                self.play_work(agent)
        for agent in self.present():
            self._play_needs(agent)
        self.tick += 1
        self._calendar()
        self._note_exits()
        self._reward()
        weigh_errands(self, self.agents)
        self.terminated = [agent.slot in self.exits for agent in self.agents]
        self.truncated = self.tick == self.config.horizon
        if self.truncated:
            self.episode += 1
            self.begin_episode()
            weigh_errands(self, self.agents)
        else:
            self._respawns()
        self._before_observation()

    def masks(self) -> list[list[bool]]:
        """The mask of every slot, as published with the last observation."""
        return [
            [name == "stay" or (agent.alive and can(self, agent, name, acting=False)) for name in _NAMES]
            for agent in self.agents
        ]

    def _before_observation(self) -> None:
        """What the last observation leaves behind: the potential for shaping."""
        for agent in self.present():
            agent.potential = self._potential(agent)

    # -- 1. perturbations --------------------------------------------------------------------------------------

    def _perturb(self) -> None:
        options = self.config.perturbations
        if not options.enabled:
            return
        if self.perturbation is not None and self.tick >= self.perturbation_end:
            self.rests[self.perturbation] = self.tick + getattr(options, self.perturbation).cooldown_ticks
            self.perturbation = None
            self.price = 1.0
        if self.perturbation is not None:
            return
        u, acc = self.event_stream.draw(), 0.0
        for kind in ("price_spike", "blackout", "outage", "arranged_meet"):
            acc += getattr(options, kind).prob_per_day / self.config.ticks_per_day
            if u < acc:
                if self.tick >= self.rests[kind]:
                    self._begin_perturbation(kind)
                return

    def _begin_perturbation(self, kind: str) -> None:
        options = self.config.perturbations
        option = getattr(options, kind)
        duration = option.min_ticks + self.event_stream.below(option.max_ticks - option.min_ticks + 1)
        if kind == "arranged_meet":
            pair = self._bitterest_pair()
            if pair is None:
                return
            self._bring_together(*pair)
        self.perturbation, self.perturbation_end = kind, self.tick + duration
        if kind == "price_spike":
            self.price = options.spike_low + (options.spike_high - options.spike_low) * self.event_stream.draw()
            self.emit(0, kind, value=self.price)
        elif kind in {"blackout", "outage"}:
            for thing in self.things:
                if thing.type == ("stove" if kind == "blackout" else "shower"):
                    if thing.user is not None:
                        self.release(self.agents[thing.user], success=False)
                    for slot in list(thing.queue):
                        self.leave_queue(self.agents[slot])
            self.emit(0, kind, value=float(duration))

    def _bitterest_pair(self) -> tuple[Agent, Agent, float] | None:
        best: tuple[Agent, Agent, float] | None = None
        for agent in self.present():
            for tie in agent.ties:
                if tie is not None and tie.rivalry > (best[2] if best else 0.0):
                    best = (agent, self.agents[tie.other], tie.rivalry)
        return best if any(thing.type == "fridge" for thing in self.things) else None

    def _bring_together(self, a: Agent, b: Agent, rivalry: float) -> None:
        cafe = next(thing.number for thing in self.things if thing.type == "fridge")
        for agent in (a, b):
            self.stop(agent)
            agent.y, agent.x = -1, -1  # off the map while a place is sought
            agent.y, agent.x = self.best_free_tile(cafe)
            agent.ctx_reset = True
            agent.acted = True
            agent.last_action, agent.last_ok, agent.last_ticks = "stay", False, 1
        self.emit(a.slot, "arranged_meet", other=b.slot, thing=cafe, value=rivalry)

    # -- 2. actions --------------------------------------------------------------------------------------------

    def _act(self, asked: list[str]) -> None:
        count = len(self.agents)
        names = ["stay" if agent.invalid else name for agent, name in zip(self.agents, asked, strict=True)]
        for agent in self.agents:
            if agent.acted:  # brought to a meeting: it does not act, and nothing is reported
                agent.invalid = False
        for k in range(count):
            agent = self.agents[(self.tick + k) % count]
            if not agent.alive or agent.acted:
                continue
            agent.acted = True
            name = names[agent.slot]
            agent.last_action = name
            agent.last_ok = False
            agent.last_ticks = 1
            if agent.invalid or not can(self, agent, name, acting=True):
                continue
            agent.last_ok = True
            if name in STEPS:
                self._move(agent, name, names)
            else:
                play: Callable[[Agent], None] = getattr(self, "_do_" + name)
                play(agent)
                if agent.last_ok and name in {"use", "eat", "share", "sleep"} and agent.busy != "free":
                    agent.last_ticks = agent.left

    def _move(self, agent: Agent, name: str, names: list[str]) -> None:
        there = (agent.y + STEPS[name][0], agent.x + STEPS[name][1])
        other = self.agent_at(there)
        if other is None:
            self._set_off(agent)
            agent.y, agent.x = there
            return
        back = OPPOSITE[name]
        if not other.acted and names[other.slot] == back and can(self, other, back, acting=True):
            other.acted = True
            other.last_action, other.last_ok, other.last_ticks = back, True, 1
            self._set_off(agent)
            self._set_off(other)
        elif other.busy in {"eating", "sleeping", "napping"} or (other.idle and names[other.slot] in {"stay", "work"}):
            self._set_off(agent)  # the other lets it pass
        else:
            agent.last_ok = False
            return
        other.y, other.x = agent.tile
        agent.y, agent.x = there

    def _set_off(self, agent: Agent) -> None:
        if agent.busy == "holding":
            self.release(agent, success=True)
        elif agent.queue is not None:
            self._walk_out(agent)
        agent.came_from = agent.tile

    def _walk_out(self, agent: Agent) -> None:
        assert agent.queue is not None
        thing = self.things[agent.queue]
        there = [slot for slot in [thing.user, *thing.queue] if slot is not None and slot != agent.slot]
        self._avoid(agent, there)
        self.leave_queue(agent)
        agent.cool_thing, agent.cool_until = thing.number, self.tick + self.config.queues.cooldown_ticks

    def _avoid(self, agent: Agent, others: Sequence[int]) -> None:
        rewards = self.config.rewards
        rival = any(agent.tie(slot).rivalry >= self.config.rivalry.avoid for slot in others)
        if rival and _STAGES.index(rewards.social_stage) >= 2:
            agent.avoidance += rewards.avoid_conflict

    def _do_stay(self, agent: Agent) -> None:
        pass

    def _do_use(self, agent: Agent) -> None:
        thing = self.use_target(agent)
        assert thing is not None
        if thing.user is None and not thing.queue:
            self.begin_use(agent, thing)
        else:
            thing.queue.append(agent.slot)
            agent.queue, agent.since, agent.gave_way = thing.number, self.tick, False

    def _do_leave(self, agent: Agent) -> None:
        if agent.queue is not None:
            self._walk_out(agent)
        elif agent.thing is not None:
            self.release(agent, success=agent.busy == "holding")
        else:
            self.stop(agent)

    def _do_eat(self, agent: Agent) -> None:
        agent.portions -= 1
        agent.busy, agent.left = "eating", self.config.affordances.eat_ticks

    def _do_work(self, agent: Agent) -> None:
        agent.worked = True

    def _do_sleep(self, agent: Agent) -> None:
        agent.busy, agent.left = "sleeping", self.config.affordances.sleep_ticks

    def _do_buy(self, agent: Agent) -> None:
        agent.wallet -= self.config.economy.ingredients_cost * self.price
        agent.ingredients += 1
        agent.errand_until = 0

    def _do_chat(self, agent: Agent) -> None:
        social, rewards = self.config.social, self.config.rewards
        other = self.chat_partner(agent)
        assert other is not None
        agent.chat_ready = other.chat_ready = self.tick + social.chat_cooldown
        own, their = agent.tie(other.slot), other.tie(agent.slot)
        h_own, h_other = (0.5 if each.hygiene < self.config.needs.dirty_below else 1.0 for each in (agent, other))
        p = social.chat_success * (1 + social.chat_trust * own.trust)
        p = clamp(p * (1 + social.chat_familiarity * own.familiarity) * h_own * h_other, 0.0, 1.0)
        counts = rewards.social_stage != "OFF"
        if self.world_stream.draw() < p:
            q = 0.5 + 0.3 * agent.traits[0] + 0.2 * own.trust + 0.1 * own.familiarity - 0.2 * own.rivalry
            q = clamp(q, 0.1, 1.0)
            for each, tie in ((agent, own), (other, their)):
                bonus = 0.0
                if rewards.social_stage == "C3":
                    bonus = rewards.chat_trust * tie.trust + rewards.chat_familiarity * tie.familiarity
                if counts:
                    each.bonus += min(rewards.chat_cap, max(0.0, q * (rewards.chat_base + bonus)))
            for each, to in ((agent, other), (other, agent)):
                familiarity = 0.1 * q + (0.02 * each.traits[0] if social.modifiers else 0.0)
                self.change_tie(each, to, trust=0.05 * q, familiarity=familiarity)
            self.emit(agent.slot, "chat_success", other=other.slot, value=q)
        else:
            self.both_ways(agent, other, 0.0, -0.05, 0.05)
            if counts:
                agent.penalty += 0.5 * rewards.chat_base
                other.penalty += 0.25 * rewards.chat_base
            self.emit(agent.slot, "chat_failure", other=other.slot, value=p)

    def _do_share(self, agent: Agent) -> None:
        other = self.hungry_neighbour(agent)
        assert other is not None
        agent.portions -= 2
        for each in (agent, other):
            each.busy, each.left = "eating", self.config.affordances.eat_ticks
            if self.config.rewards.social_stage != "OFF":
                each.bonus += self.config.rewards.shared_meal
        self.both_ways(agent, other, 0.1, 0.25, 0.0)
        self.emit(agent.slot, "shared_meal", other=other.slot, value=float(agent.portions))

    def _do_give_way(self, agent: Agent) -> None:
        assert agent.queue is not None
        queue = self.things[agent.queue].queue
        place = queue.index(agent.slot)
        other = self.agents[queue[place + 1]]
        queue[place], queue[place + 1] = queue[place + 1], queue[place]
        agent.gave_way, agent.since = True, self.tick
        self._avoid(agent, [other.slot])
        self.emit(agent.slot, "queue_interaction", other=other.slot, thing=agent.queue, value=1.0)
        self.both_ways(agent, other, 0.05, 0.05, -0.05)

    def _do_cover(self, agent: Agent) -> None:
        other = self.late_colleague(agent, acting=True)
        assert other is not None
        assert other.job is not None
        agent.worked = agent.covering = other.covered = True
        if not agent.helped:
            agent.helped = True
            late = float(self.tod - other.job.start)
            self.emit(agent.slot, "employment_helped_when_late", other=other.slot, value=late)
            self.both_ways(agent, other, 0.2, 0.1, -0.1)

    def _do_take_shift(self, agent: Agent) -> None:
        other = self.late_colleague(agent, acting=True)
        assert other is not None
        assert other.job is not None
        agent.worked = agent.took = True
        other.shift = "absent"
        left = float(other.job.end - self.tod)
        self.emit(other.slot, "employment_took_my_shift", other=agent.slot, value=left)
        self.both_ways(agent, other, -0.1, 0.0, 0.3)

    # -- 3. objects and queues ---------------------------------------------------------------------------------

    def _play_thing(self, thing: Thing) -> None:
        queues, boosts = self.config.queues, self.config.rivalry
        if thing.user is not None:
            user = self.agents[thing.user]
            if user.busy == "using":
                user.left -= 1
                if user.left == 0:
                    self._apply_effects(user, thing)
                    user.busy = "holding"
                    user.errand_until = 0
                    thing.held = 0
            else:
                thing.held += 1
                if thing.queue and queues.ghost_step_after and thing.held >= queues.ghost_step_after:
                    self.conflict(user, self.next_in_line(thing), thing, boosts.ghost_step_boost)
                    self.release(user, success=False)
                    user.cool_thing, user.cool_until = thing.number, self.tick + queues.cooldown_ticks
        while thing.user is None and thing.queue:
            first = self.next_in_line(thing)
            self.leave_queue(first)
            if self.usable(first, thing):
                self.begin_use(first, thing)
        if thing.user is not None:
            for slot in list(thing.queue):
                waited = self.tick - self.agents[slot].since
                if waited > 0 and waited % queues.patience_ticks == 0:
                    self.conflict(self.agents[slot], self.agents[thing.user], thing, boosts.handover_boost)

    def _apply_effects(self, user: Agent, thing: Thing) -> None:
        effects = self.config.affordances
        if thing.type == "fridge":
            user.hunger = clamp(user.hunger + effects.meal_hunger, 0.0, 1.0)
        elif thing.type == "stove":
            user.portions += self.config.economy.portions
            user.energy = clamp(user.energy - effects.cook_energy, 0.0, 1.0)
            user.hygiene = clamp(user.hygiene - effects.cook_hygiene, 0.0, 1.0)
        else:
            user.hygiene = clamp(user.hygiene + effects.shower_hygiene, 0.0, 1.0)
            user.energy = clamp(user.energy - effects.shower_energy, 0.0, 1.0)

    # -- 4. eating, sleep, naps --------------------------------------------------------------------------------

    def _play_body(self, agent: Agent) -> None:
        if agent.busy not in {"eating", "sleeping", "napping"}:
            return
        agent.left -= 1
        over = agent.left == 0
        if agent.busy == "eating":
            if over:
                agent.hunger = clamp(agent.hunger + self.config.affordances.meal_hunger, 0.0, 1.0)
        elif agent.busy == "sleeping":
            agent.energy = clamp(agent.energy + self.config.affordances.sleep_energy, 0.0, 1.0)
            over = over or agent.energy >= 1.0
        else:
            agent.energy = clamp(agent.energy + self.config.needs.nap_energy, 0.0, 1.0)
        if over:
            agent.busy, agent.left, agent.errand_until = "free", 0, 0

    # -- 6. needs and ties -------------------------------------------------------------------------------------

    def _play_needs(self, agent: Agent) -> None:
        needs = self.config.needs
        hunger, hygiene, energy = PROFILES[agent.profile][1]
        agent.hunger = max(0.0, agent.hunger - needs.hunger_decay * hunger)
        agent.hygiene = max(0.0, agent.hygiene - needs.hygiene_decay * hygiene)
        agent.energy = max(0.0, agent.energy - needs.energy_decay * energy)
        agent.no_food = agent.no_food + 1 if agent.hunger == 0.0 else 0
        agent.starving = agent.starving + 1 if agent.hunger <= 0.05 else 0
        if agent.starving == 30:
            self.starved += 1
        if agent.energy == 0.0 and agent.free:
            self.leave_queue(agent)
            agent.busy, agent.left = "napping", needs.nap_ticks
        for tie in agent.ties:
            if tie is not None:
                tie.rivalry = max(0.0, tie.rivalry - self.config.rivalry.decay)

    # -- 7. calendar, 8. exits ---------------------------------------------------------------------------------

    def _calendar(self) -> None:
        config, tod = self.config, self.tod
        for agent in self.present():
            if agent.open and agent.job is not None and tod == agent.job.end % config.ticks_per_day:
                agent.open = False
                agent.shift = "post"
                share = agent.on_time_ticks / (agent.job.end - agent.job.start)
                agent.record = [*agent.record, share][-3:]
        if tod == 0:
            for agent in self.present():
                agent.wallet -= min(agent.wallet, config.economy.rent)
                if config.needs.night_service:
                    agent.hunger = max(agent.hunger, 0.5)
                    agent.hygiene = max(agent.hygiene, 0.5)
                    agent.energy = max(agent.energy, 0.5)
                aged = [days + 1 for days in agent.absent_days]
                agent.absent_days = [days for days in aged if days < config.employment.absence_days]
                if not agent.open:
                    agent.shift = "pre"
        for agent in self.present():
            if agent.job is not None and tod == agent.job.start:
                self.open_shift(agent)
        self.tick -= 1  # what follows counts in ticks played
        self.review_exits(turn_of_day=tod == 0)
        self.tick += 1

    def _note_exits(self) -> None:
        for agent in self.present():
            if agent.no_food >= self.config.needs.faint_ticks:
                self.exits[agent.slot] = "faint"
            elif agent.slot in self.granted:
                self.exits[agent.slot] = "eviction"
        for slot, reason in self.exits.items():
            self.tick -= 1  # events carry the tick that was played
            self.emit(slot, "exit", value=float(reason == "eviction"))
            self.tick += 1
            self.stop(self.agents[slot])

    # -- 9. rewards --------------------------------------------------------------------------------------------

    def _deficits(self, agent: Agent) -> tuple[float, float, float]:
        return 1 - agent.hunger, 1 - agent.hygiene, 1 - agent.energy

    def _potential(self, agent: Agent) -> float:
        r = self.config.rewards
        hunger, hygiene, energy = self._deficits(agent)
        return -(r.hunger_weight * hunger + r.hygiene_weight * hygiene + r.energy_weight * energy) * r.needs_scale

    def _shaping(self, agent: Agent) -> float:
        reached = 0.0 if agent.slot in self.exits else self._potential(agent)
        return self.config.rewards.shaping_gamma * reached - agent.potential

    def _reward(self) -> None:
        self.terms = [self._reward_of(agent) if agent.alive else {} for agent in self.agents]

    def _reward_of(self, agent: Agent) -> dict[str, float]:
        r, slot = self.config.rewards, agent.slot
        hunger, hygiene, energy = self._deficits(agent)
        terms = {
            "survival": 0.0 if slot in self.exits else r.survival_tick,
            "needs_penalty": -r.needs_scale
            * (
                r.hunger_weight * hunger * hunger
                + r.hygiene_weight * hygiene * hygiene
                + r.energy_weight * energy * energy
            ),
            "wage": agent.paid - agent.docked if r.wage else 0.0,
            "punctuality": 0.0,
            "social_bonus": 0.0 if max(hunger, hygiene, energy) > r.no_chat_above_deficit else agent.bonus,
            "social_penalty": -agent.penalty,
            "social_avoidance": agent.avoidance,
            "shaping": self._shaping(agent) if r.shaping else 0.0,
        }
        if agent.worked and agent.shift == "on_time" and agent.job is not None:
            length = agent.job.end - agent.job.start
            terms["punctuality"] = r.punctuality_bonus * agent.on_time_ticks / length
        survival, employment, company = self.values(agent)
        worth = {"survival": survival, "needs_penalty": survival, "wage": employment, "punctuality": employment}
        for name, value in terms.items():
            bias = company if name.startswith("social_") else worth.get(name, 1.0)
            terms[name] = value * bias if value > 0 else value / bias
        raw = 0.0
        for value in terms.values():
            raw += value
        played = self.tick - 1
        running = raw
        if slot in self.exits:
            self.guard[slot] = played + 1 + r.no_positive_within_death_ticks
        if played < self.guard[slot]:
            running = min(running, 0.0)
        running = clamp(running, -r.clip_per_tick, r.clip_per_tick)
        bounded = clamp(self.running[slot] + running, -r.clip_per_episode, r.clip_per_episode) - self.running[slot]
        self.running[slot] += bounded
        terms["clip_adjustment"] = bounded - raw
        penalties = {"faint": r.faint_penalty, "eviction": r.eviction_penalty}
        terms["terminal_penalty"] = penalties.get(self.exits.get(slot, ""), 0.0)
        terms["total"] = bounded + terms["terminal_penalty"]
        self.returns[slot] += terms["total"]
        return terms

    # -- 12. respawns ------------------------------------------------------------------------------------------

    def _respawns(self) -> None:
        for slot in self.exits:
            leaver = self.agents[slot]
            leaver.alive = False
            for agent in self.agents:
                agent.ties = [
                    None if tie is None or tie.other == slot or agent is leaver else tie for tie in agent.ties
                ]
            if self.config.respawn:
                self.respawn_at[slot] = self.tick + self.config.respawn_delay_ticks
        entered = []
        for slot, when in enumerate(self.respawn_at):
            if when == self.tick:
                self.respawn(slot)
                entered.append(self.agents[slot])
                self.tick -= 1
                self.emit(slot, "respawn", value=float(self.spawns[slot]))
                self.tick += 1
        weigh_errands(self, entered)
