"""Options of a town: frozen pydantic models; each field's description is its documentation.

Unknown keys are refused with their path. The numbers are the default town's own: with them a full shift pays for
a day's basket with some slack.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "BEHAVIOUR_BIAS",
    "PROFILES",
    "REWARD_BIAS",
    "RULES_VERSION",
    "Affordances",
    "Economy",
    "Employment",
    "Expert",
    "Job",
    "Needs",
    "Personality",
    "Perturbation",
    "Perturbations",
    "Profile",
    "Queues",
    "Rewards",
    "Rivalry",
    "Social",
    "TownConfig",
    "rules_hash",
]

RULES_VERSION = "2"
"""Version of the rules that the kernels implement; part of the rules hash."""

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Profile = Literal["balanced", "socialite", "industrious", "stoic"]

PROFILES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "balanced": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "socialite": ((0.6, 0.1, -0.1), (1.0, 1.1, 1.0)),
    "industrious": ((-0.2, -0.1, 0.5), (1.0, 1.0, 0.9)),
    "stoic": ((-0.3, 0.5, -0.2), (0.95, 1.0, 1.0)),
}
"""(extroversion, forgiveness, ambition) and decay factors (hunger, hygiene, energy) by profile."""

REWARD_BIAS: dict[str, tuple[float, float, float]] = {
    "balanced": (1.0, 1.0, 1.0),
    "socialite": (1.0, 1.0, 1.2),
    "industrious": (1.0, 1.25, 1.0),
    "stoic": (1.1, 1.0, 1.0),
}
"""Factors (survival, employment, social) of reward terms above 0 by profile; terms below 0 are divided by them."""

BEHAVIOUR_BIAS: dict[str, tuple[float, float, float]] = {
    "balanced": (1.0, 1.0, 1.0),
    "socialite": (1.3, 1.0, 1.0),
    "industrious": (1.0, 1.4, 1.0),
    "stoic": (1.0, 1.0, 0.6),
}
"""(chat preference, work affinity, conflict tolerance) by profile."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Needs(_Section):
    """Needs in [0, 1]; 1 is satisfied."""

    hunger_decay: Unit = Field(0.002, description="Loss of hunger per tick: empty in 500 ticks.")
    hygiene_decay: Unit = Field(0.001, description="Loss of hygiene per tick: empty in 1,000 ticks.")
    energy_decay: Unit = Field(0.00125, description="Loss of energy per tick: empty in 800 ticks.")
    initial_low: Unit = Field(0.5, description="Lowest initial need.")
    initial_high: Unit = Field(1.0, description="Highest initial need.")
    faint_ticks: int = Field(30, ge=1, description="Ticks at hunger 0 after which an agent leaves the town.")
    dirty_below: Unit = Field(0.2, description="Hygiene below this halves the chance of a chat.")
    nap_ticks: int = Field(60, ge=1, description="Length of the nap forced by energy 0.")
    nap_energy: Unit = Field(0.005, description="Energy gained per tick of a nap.")
    night_service: bool = Field(
        False, description="Lift every need to .5 at the start of a day, as the predecessor did."
    )


class Economy(_Section):
    """Prices; all but rent are multiplied by the price factor of a spike."""

    meal_cost: NonNegative = Field(0.4, description="A meal at the cafe.")
    shower_cost: NonNegative = Field(0.2, description="A shower.")
    ingredients_cost: NonNegative = Field(0.15, description="Ingredients for one cooking.")
    rent: NonNegative = Field(0.4, description="Taken at the start of a day, as far as the wallet reaches.")
    start_wallet: NonNegative = Field(2.0, description="Wallet of a new agent.")
    meals_per_day: float = Field(3.0, ge=0.0, description="Meals of the basket.")
    showers_per_day: float = Field(1.0, ge=0.0, description="Showers of the basket.")
    portions: int = Field(2, ge=1, le=4, description="Portions of one cooking.")
    max_portions: int = Field(4, ge=1, le=16, description="Portions that an agent can carry.")
    max_ingredients: int = Field(4, ge=1, le=16, description="Ingredients that an agent can carry.")

    @property
    def basket(self) -> float:
        """What a day costs: meals, showers and rent."""
        return self.meals_per_day * self.meal_cost + self.showers_per_day * self.shower_cost + self.rent


class Affordances(_Section):
    """Durations in ticks and effects on needs."""

    meal_ticks: int = Field(15, ge=1, description="A meal at the cafe.")
    meal_hunger: Unit = Field(0.7, description="Hunger gained by a meal or a portion.")
    shower_ticks: int = Field(30, ge=1, description="A shower.")
    shower_hygiene: Unit = Field(0.9, description="Hygiene gained.")
    shower_energy: Unit = Field(0.03, description="Energy lost.")
    cook_ticks: int = Field(40, ge=1, description="A cooking.")
    cook_energy: Unit = Field(0.05, description="Energy lost.")
    cook_hygiene: Unit = Field(0.02, description="Hygiene lost.")
    eat_ticks: int = Field(10, ge=1, description="Eating a portion.")
    sleep_ticks: int = Field(120, ge=1, description="Longest sleep.")
    sleep_energy: Unit = Field(0.01, description="Energy gained per tick of sleep.")
    sleep_below: Unit = Field(0.9, description="Sleep can begin below this energy.")


class Job(_Section):
    """A job: when, for how much. Agents are dealt round-robin."""

    name: str = Field(min_length=1, description="Name.")
    start: int = Field(ge=0, description="First tick of day of the shift.")
    end: int = Field(ge=1, description="Tick of day after the last.")
    wage: NonNegative = Field(0.0118, description="Pay per tick worked.")
    lateness_penalty: NonNegative = Field(0.1, description="Fine for a late shift.")

    @model_validator(mode="after")
    def _ordered(self) -> Job:
        if self.end <= self.start:
            msg = f"job {self.name!r}: end {self.end} must come after start {self.start}"
            raise ValueError(msg)
        return self


class Employment(_Section):
    """Punctuality and its price."""

    grace_ticks: int = Field(5, ge=0, le=120, description="Ticks after the start that still count as on time.")
    absent_cutoff: int = Field(
        30, ge=0, le=600, description="Ticks after the start from which a missing agent is absent."
    )
    absence_slack: int = Field(
        20, ge=0, le=600, description="Ticks without work, after some, from which an agent has left its shift early."
    )
    late_tick_penalty: Unit = Field(0.005, description="Fine per late tick away.")
    absence_penalty: float = Field(0.2, ge=0.0, le=5.0, description="Fine for an absence.")
    max_absent_shifts: int = Field(3, ge=0, le=20, description="Absences that lead to an exit; 0 disables it.")
    absence_days: int = Field(7, ge=1, le=28, description="Days for which an absence counts.")
    daily_exit_cap: int = Field(2, ge=0, le=50, description="Exits from the queue at a turn of the day, at most.")
    exit_queue_limit: int = Field(8, ge=0, le=100, description="Agents that can wait for their exit.")
    exit_review_window: int = Field(1440, ge=1, description="Ticks of waiting after which an exit is forced.")
    work_radius: int = Field(
        2, ge=0, le=16, description="Steps from the tiles beside the workplace that still count as the site."
    )
    cover_cost: Unit = Field(0.1, description="Share of the own wage that covering costs.")
    cover_share: Unit = Field(0.5, description="Share of the wage that the covered colleague gets.")
    take_bonus: float = Field(1.0, ge=0.0, le=2.0, description="Extra share of the wage for a shift taken over.")


class Queues(_Section):
    """Reservations and queues."""

    cooldown_ticks: int = Field(
        60, ge=0, le=600, description="Ticks before the same agent may use the same object again."
    )
    ghost_step_after: int = Field(
        3, ge=0, le=100, description="Ticks that a finished user may hold on while others wait; 0 = for ever."
    )
    age_priority_weight: Unit = Field(
        0.1, description="Places that a tick of waiting is worth when the next in a queue is chosen."
    )
    patience_ticks: int = Field(
        20, ge=1, le=600, description="Waiting ticks after which, again and again, there is a quarrel."
    )


class Rivalry(_Section):
    """Conflicts and how they fade."""

    increment: Unit = Field(0.15, description="Rivalry per unit of intensity.")
    decay: Unit = Field(0.001, description="Rivalry lost per tick.")
    avoid: Unit = Field(0.7, description="From here on agents do not talk to one another.")
    ghost_step_boost: float = Field(1.5, ge=0.0, le=5.0, description="Intensity of a ghost step.")
    handover_boost: float = Field(0.4, ge=0.0, le=5.0, description="Intensity of impatience.")
    queue_length_boost: float = Field(0.25, ge=0.0, le=2.0, description="More for every further agent waiting.")


class Social(_Section):
    """Chats and meals together."""

    chat_success: Unit = Field(0.7, description="Chance of a chat between strangers.")
    chat_trust: Unit = Field(0.3, description="How much trust helps.")
    chat_familiarity: Unit = Field(0.2, description="How much familiarity helps.")
    chat_cooldown: int = Field(30, ge=0, description="Ticks until either may chat again.")
    share_below: Unit = Field(0.7, description="Hunger below which an agent accepts a shared meal.")
    modifiers: bool = Field(True, description="Personality changes how ties move.")


class Personality(_Section):
    """What a profile changes besides traits and decay."""

    behaviour: bool = Field(
        True, description="Biases of behaviour: when the expert chats and leaves for work; how a conflict is taken."
    )
    reward_multipliers: bool = Field(False, description="Biases of the reward: each profile values its own terms.")


class Perturbation(_Section):
    """One kind of perturbation."""

    prob_per_day: Unit = Field(description="Chance per day.")
    cooldown_ticks: int = Field(ge=0, description="Ticks after its end without another of its kind.")
    min_ticks: int = Field(ge=1, description="Shortest duration.")
    max_ticks: int = Field(ge=1, description="Longest duration.")

    @model_validator(mode="after")
    def _ordered(self) -> Perturbation:
        if self.max_ticks < self.min_ticks:
            msg = f"max_ticks {self.max_ticks} is below min_ticks {self.min_ticks}"
            raise ValueError(msg)
        return self


class Perturbations(_Section):
    """Things that happen to the whole town, one at a time."""

    enabled: bool = Field(True, description="Whether any happen.")
    price_spike: Perturbation = Perturbation(prob_per_day=0.3, cooldown_ticks=480, min_ticks=60, max_ticks=120)
    blackout: Perturbation = Perturbation(prob_per_day=0.15, cooldown_ticks=720, min_ticks=20, max_ticks=60)
    outage: Perturbation = Perturbation(prob_per_day=0.1, cooldown_ticks=720, min_ticks=20, max_ticks=60)
    arranged_meet: Perturbation = Perturbation(prob_per_day=0.25, cooldown_ticks=600, min_ticks=30, max_ticks=45)
    spike_low: float = Field(1.2, ge=1.0, le=2.0, description="Lowest price factor of a spike.")
    spike_high: float = Field(1.8, ge=1.0, le=2.0, description="Highest price factor of a spike.")


class Rewards(_Section):
    """Terms of the reward per tick."""

    hunger_weight: float = Field(1.0, ge=0.0, le=2.0, description="Weight of the squared hunger deficit.")
    hygiene_weight: float = Field(0.6, ge=0.0, le=2.0, description="Weight of the squared hygiene deficit.")
    energy_weight: float = Field(0.8, ge=0.0, le=2.0, description="Weight of the squared energy deficit.")
    needs_scale: Unit = Field(0.05, description="Factor of the needs penalty.")
    survival_tick: Unit = Field(0.002, description="For every tick in town.")
    wage: bool = Field(True, description="Whether wages count.")
    punctuality_bonus: Unit = Field(
        0.02, description="Times the on-time share of the shift so far, per tick worked on time."
    )
    faint_penalty: float = Field(-1.0, ge=-5.0, le=0.0, description="On a faint, after the clip.")
    eviction_penalty: float = Field(-2.0, ge=-5.0, le=0.0, description="On an eviction, after the clip.")
    chat_base: Unit = Field(0.02, description="Of a chat of quality 1, to both (C1).")
    chat_trust: Unit = Field(0.3, description="Added per unit of trust (C3).")
    chat_familiarity: Unit = Field(0.2, description="Added per unit of familiarity (C3).")
    chat_cap: Unit = Field(0.05, description="Most that one chat gives to one agent.")
    shared_meal: Unit = Field(0.03, description="For a shared meal, to both (C1).")
    avoid_conflict: Unit = Field(0.005, description="For leaving a rival's queue or giving way to a rival (C2).")
    social_stage: Literal["OFF", "C1", "C2", "C3"] = Field("C3", description="Which social terms count.")
    no_chat_above_deficit: Unit = Field(0.85, description="No social bonus while any deficit is above this.")
    no_positive_within_death_ticks: int = Field(
        10, ge=0, le=200, description="No positive sum for so long after an exit."
    )
    clip_per_tick: float = Field(0.2, gt=0.0, le=1.0, description="Bound on the sum of running terms.")
    clip_per_episode: float = Field(
        200.0, gt=0.0, le=1000.0, description="Bound on the sum of running terms over an episode."
    )
    shaping: bool = Field(False, description="Potential-based shaping with -sum of weighted deficits (Ng et al. 1999).")
    shaping_gamma: Unit = Field(0.99, description="Discount of the potential.")


class Expert(_Section):
    """Thresholds of the errands, which the scripted expert obeys."""

    eat_below: Unit = Field(0.55, description="Hunger below which food is an errand.")
    shower_below: Unit = Field(0.45, description="Hygiene below which a shower is an errand.")
    sleep_below: Unit = Field(0.45, description="Energy below which sleep is an errand.")
    chat_above: Unit = Field(0.6, description="Every need must be above this to chat.")
    emergency: Unit = Field(
        0.16, description="Hunger that, when food is reached, comes before work; not if hunger is above eat_below."
    )
    early_ticks: int = Field(5, ge=0, description="Leaves for work so many ticks before the path demands it.")
    cook_baskets: NonNegative = Field(1.0, description="Cooks with fewer baskets than this in the wallet.")
    commit_ticks: int = Field(15, ge=1, description="Ticks before an errand is weighed again.")


_JOBS = (
    Job(name="grocer", start=180, end=360),
    Job(name="barista", start=400, end=580),
    Job(name="clerk", start=300, end=480),
    Job(name="trainer", start=600, end=780),
)


class TownConfig(_Section):
    """Everything that a batch of towns depends on, but for its seeds."""

    agents: int = Field(8, ge=1, le=1024, description="N: agents of a town.")
    map_size: int = Field(24, ge=12, le=512, description="Side of the square map in tiles.")
    layout_seed: int = Field(0, ge=0, description="Seed of the generated maps.")
    layouts: int = Field(1, ge=1, le=256, description="How many maps; each episode takes one by its seed.")
    ticks_per_day: int = Field(1000, ge=10, description="Length of a day.")
    episode_days: int = Field(4, ge=1, description="Length of an episode; then it is truncated.")
    episode_ticks: int | None = Field(None, ge=1, description="Length of an episode in ticks; overrides episode_days.")
    random_start: bool = Field(False, description="Begin an episode at a random tick of day instead of 0.")
    observation: Literal["hybrid", "full", "compact"] = Field("hybrid", description="Observation variant.")
    centralised_state: bool = Field(False, description="Also give 'state', the same for all agents of a town.")
    respawn: bool = Field(
        True, description="A new agent takes the slot of one that left; otherwise the slot stays empty."
    )
    respawn_delay_ticks: int = Field(0, ge=0, description="Ticks that the slot stays empty first.")
    profiles: tuple[Profile, ...] = Field(
        ("balanced", "socialite", "industrious", "stoic"), min_length=1, description="Profiles, dealt round-robin."
    )
    needs: Needs = Needs()
    economy: Economy = Economy()
    affordances: Affordances = Affordances()
    jobs: tuple[Job, ...] = Field(_JOBS, description="Jobs, dealt round-robin; none means that nobody works.")
    employment: Employment = Employment()
    queues: Queues = Queues()
    rivalry: Rivalry = Rivalry()
    social: Social = Social()
    personality: Personality = Personality()
    perturbations: Perturbations = Perturbations()
    rewards: Rewards = Rewards()
    expert: Expert = Expert()

    @model_validator(mode="after")
    def _shifts_fit_the_day(self) -> TownConfig:
        for index, job in enumerate(self.jobs):
            if job.end > self.ticks_per_day:
                msg = f"jobs.{index}.end: {job.name!r} ends at {job.end}, after the day of {self.ticks_per_day} ticks"
                raise ValueError(msg)
        if self.needs.initial_high < self.needs.initial_low:
            msg = f"needs.initial_high: {self.needs.initial_high} is below initial_low {self.needs.initial_low}"
            raise ValueError(msg)
        return self

    @property
    def horizon(self) -> int:
        """Ticks of an episode."""
        return self.episode_ticks if self.episode_ticks is not None else self.episode_days * self.ticks_per_day


def rules_hash(config: TownConfig) -> str:
    """Return 16 hex digits over the rules version and every option that changes play or reward."""
    dump: dict[str, Any] = config.model_dump(mode="json", exclude={"observation", "centralised_state"})
    text = json.dumps({"version": RULES_VERSION, **dump}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
