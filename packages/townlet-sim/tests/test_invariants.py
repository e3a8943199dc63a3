"""What must hold whatever anybody does: tiles, needs, money, masks, ties, numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from townlet_sim import columns as c
from townlet_sim.config import TownConfig
from townlet_sim.engine import TownBatch

# Short days, quick needs and many perturbations: more happens in fewer ticks.
EVENTFUL: dict[str, Any] = {
    "ticks_per_day": 200,
    "episode_days": 2,
    "needs": {"hunger_decay": 0.008, "energy_decay": 0.006, "initial_low": 0.2},
    "jobs": [{"name": "early", "start": 20, "end": 80}, {"name": "late", "start": 100, "end": 160, "wage": 0.05}],
    "employment": {"max_absent_shifts": 1},
    "economy": {"start_wallet": 3.0},
    "perturbations": {
        kind: {"prob_per_day": 1.0, "cooldown_ticks": 20, "min_ticks": 5, "max_ticks": 30}
        for kind in ("price_spike", "blackout", "outage", "arranged_meet")
    },
}


def drive(options: dict[str, Any], *, towns: int, ticks: int, seed: int, check: Any, expert_share: float = 0.5) -> None:
    """Let ``check(town, rows, actions)`` play a mixture of random allowed actions and the expert's."""
    town = TownBatch(TownConfig.model_validate(options), towns)
    rows = town.allocate()
    town.reset(seed=seed, out=rows)
    rng = np.random.default_rng(seed)
    for _ in range(ticks):
        allowed = (rng.random(rows.action_mask.shape) * rows.action_mask).argmax(axis=1)
        actions = np.where(rng.random(len(allowed)) < expert_share, town.expert_actions(), allowed).astype(np.int64)
        check(town, rows, actions)


def one_per_tile(town: TownBatch, rows: Any, actions: np.ndarray[Any, Any]) -> None:
    town.step(actions, rows)
    ints, occupied = town.arrays.agent_i, town.arrays.occupied
    b, n = np.nonzero(ints[..., c.ALIVE])
    y, x = ints[b, n, c.Y], ints[b, n, c.X]
    assert town.layout_arrays.walk[town.arrays.town_i[b, c.LAYOUT], y, x].all()
    tiles = (b * occupied.shape[1] + y) * occupied.shape[2] + x
    assert len(np.unique(tiles)) == len(tiles)
    expected = np.full(occupied.shape, -1)
    expected[b, y, x] = n
    assert (occupied == expected).all()


def numbers_are_sane(town: TownBatch, rows: Any, actions: np.ndarray[Any, Any]) -> None:
    town.step(actions, rows)
    state = town.arrays
    needs = state.agent_f[..., c.HUNGER : c.ENERGY + 1]
    assert ((needs >= 0) & (needs <= 1)).all()
    assert (state.agent_f[..., c.WALLET] >= 0).all()
    assert (state.agent_i[..., c.PORTIONS] >= 0).all()
    assert (state.agent_i[..., c.INGREDIENTS] >= 0).all()
    features = rows.observations["features"]
    assert np.isfinite(features).all()
    assert (np.abs(features) <= 1).all()
    assert np.isfinite(rows.rewards).all()
    assert rows.observations["map"].max() <= 4
    assert town.events_lost == 0


def reservations_agree(town: TownBatch, rows: Any, actions: np.ndarray[Any, Any]) -> None:
    town.step(actions, rows)
    ints, things = town.arrays.agent_i, town.arrays.object_i
    b, thing = np.nonzero(things[..., c.USER] >= 0)
    users = ints[b, things[b, thing, c.USER]]
    assert (users[:, c.OBJECT] == thing).all()
    assert (users[:, c.BUSY] == c.USING).all()
    assert users[:, c.ALIVE].all()
    queues = things[..., c.QUEUE_0 : c.QUEUE_0 + c.QUEUE_CAPACITY]
    taken = np.arange(c.QUEUE_CAPACITY) < things[..., c.WAITING, None]
    assert ((queues >= 0) == taken).all()
    assert (queues[~taken] == -1).all()
    b, thing, place = np.nonzero(taken)
    waiting = ints[b, queues[b, thing, place]]
    assert (waiting[:, c.QUEUE] == thing).all()
    assert (waiting[:, c.BUSY] == c.FREE).all()
    assert ((ints[..., c.OBJECT] >= 0).sum(axis=1) == (things[..., c.USER] >= 0).sum(axis=1)).all()
    assert ((ints[..., c.QUEUE] >= 0).sum(axis=1) == things[..., c.WAITING].clip(0).sum(axis=1)).all()


def ties_are_few(town: TownBatch, rows: Any, actions: np.ndarray[Any, Any]) -> None:
    town.step(actions, rows)
    others, values = town.arrays.tie_other, town.arrays.tie
    assert others.shape[-1] == 6
    assert (others != np.arange(others.shape[1])[None, :, None]).all()
    ranked = np.sort(others, axis=-1)
    assert ((ranked[..., 1:] > ranked[..., :-1]) | (ranked[..., 1:] < 0)).all()  # nobody twice
    assert (np.abs(values[..., :2]) <= 1).all()
    assert ((values[..., 2] >= 0) & (values[..., 2] <= 1)).all()
    assert (values[others < 0] == 0).all()


def money_is_conserved(town: TownBatch, rows: Any, actions: np.ndarray[Any, Any]) -> None:
    """Money is earned from wages and spent on declared things, to the last digit that floats allow."""
    ints, floats, config = town.arrays.agent_i, town.arrays.agent_f, town.config
    before, busy, shift, goods = (
        array.copy()
        for array in (floats[..., c.WALLET], ints[..., c.BUSY], ints[..., c.SHIFT], ints[..., c.INGREDIENTS])
    )
    town.step(actions, rows)
    gone = rows.terminated | rows.truncated | (rows.observations["features"][:, 16] != 0)
    same = ~gone.reshape(before.shape)
    price = town.arrays.town_f[:, c.PRICE, None]
    kinds = town.layout_arrays.objects[0, ints[..., c.OBJECT], 0]
    started = (ints[..., c.BUSY] == c.USING) & (busy != c.USING)
    costs = {c.FRIDGE: config.economy.meal_cost, c.SHOWER: config.economy.shower_cost}
    spent = sum(np.where(started & (kinds == kind), cost, 0.0) for kind, cost in costs.items())
    spent = spent + np.where(ints[..., c.INGREDIENTS] > goods, config.economy.ingredients_cost, 0.0)
    expected = floats[..., c.PAID] - spent * price
    lateness = np.array([config.jobs[n % len(config.jobs)].lateness_penalty for n in range(config.agents)])
    fines = np.where((ints[..., c.SHIFT] == c.LATE) & (shift == c.PRE), lateness, 0.0)
    fines += np.where((ints[..., c.SHIFT] == c.ABSENT) & (shift != c.ABSENT), config.employment.absence_penalty, 0.0)
    fines += np.where(floats[..., c.DOCKED] > 0, config.employment.late_tick_penalty, 0.0)
    fines += np.where(town.arrays.town_i[:, c.TICK, None] % config.ticks_per_day == 0, config.economy.rent, 0.0)
    change = floats[..., c.WALLET] - before
    # A fine takes no more than there is; a take-over makes absent without one.
    assert (change <= expected + 1e-9)[same].all()
    assert (change >= expected - fines - 1e-9)[same].all()
    assert (np.abs(change - expected) <= 1e-9)[same & (fines == 0.0)].all()


def masks_are_exact(town: TownBatch, rows: Any, actions: np.ndarray[Any, Any]) -> None:
    """An action inside the mask does what it says, unless an earlier agent of the tick was in the way."""
    mask = rows.action_mask.copy()
    assert mask[np.arange(len(actions)), town.expert_actions()].all()
    assert mask[:, c.STAY].all()
    town.step(actions, rows)
    assert not town.invalid_actions.any()
    ints = town.arrays.agent_i.reshape(-1, c.AGENT_INTS)
    fresh = rows.terminated | rows.truncated | (ints[:, c.CTX_RESET] != 0)
    failed = (ints[:, c.LAST_OK] == 0) & ~fresh
    # With nobody near, nothing can fail but a step into somebody, and what needs a partner that has gone on.
    alone = rows.observations["features"][:, 29] == 0
    quiet = ~np.repeat(town.arrays.town_i[:, c.PERTURBATION] >= 0, town.config.agents)
    single = np.isin(actions, (c.USE, c.LEAVE, c.EAT, c.GIVE_WAY, c.BUY, c.SLEEP))
    bad = failed & alone & quiet & single
    assert not bad.any(), actions[bad]


@pytest.mark.parametrize("check", [one_per_tile, reservations_agree, ties_are_few, money_is_conserved])
def test_structure_holds_in_eventful_towns(check: Any) -> None:
    drive(EVENTFUL, towns=4, ticks=600, seed=1, check=check)


@pytest.mark.parametrize("check", [numbers_are_sane, masks_are_exact])
@pytest.mark.parametrize("options", [EVENTFUL, {**EVENTFUL, "agents": 3, "map_size": 12, "respawn_delay_ticks": 7}])
def test_numbers_and_masks_hold_in_eventful_towns(check: Any, options: dict[str, Any]) -> None:
    drive(options, towns=16, ticks=600, seed=2, check=check)


@pytest.mark.deep
@pytest.mark.parametrize(
    "check",
    [one_per_tile, reservations_agree, ties_are_few, money_is_conserved, numbers_are_sane, masks_are_exact],
)
def test_a_million_random_agent_steps(check: Any) -> None:
    drive(EVENTFUL, towns=64, ticks=2000, seed=3, check=check, expert_share=0.0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**63), share=st.floats(0, 1))
def test_any_seed_and_mixture(seed: int, share: float) -> None:
    drive(EVENTFUL, towns=2, ticks=60, seed=seed, check=numbers_are_sane, expert_share=share)


def test_actions_outside_the_mask_are_no_ops_with_a_flag() -> None:
    town, twin = (TownBatch(TownConfig(episode_ticks=50), 2) for _ in range(2))
    rows, other = town.allocate(), twin.allocate()
    town.reset(seed=0, out=rows)
    twin.reset(seed=0, out=other)
    for tick in range(60):
        outside = (~rows.action_mask).argmax(axis=1)
        town.step(np.where(tick % 2, outside, 99), rows)
        twin.step(np.zeros(16, np.int64), other)
        assert town.invalid_actions.all()
        assert not twin.invalid_actions.any()
        assert (rows.rewards == other.rewards).all()
        assert (rows.observations["map"] == other.observations["map"]).all()
