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
    ints, layout = town.arrays.agent_i, town.layout_arrays
    alive = ints[..., c.ALIVE] != 0
    for b in range(len(ints)):
        tiles = [tuple(tile) for tile in ints[b, alive[b], c.Y : c.X + 1].tolist()]
        assert len(set(tiles)) == len(tiles)
        assert all(layout.walk[town.arrays.town_i[b, c.LAYOUT], y, x] for y, x in tiles)
        expected = np.full(town.arrays.occupied.shape[1:], -1)
        for n, (y, x) in zip(np.flatnonzero(alive[b]), tiles, strict=True):
            expected[y, x] = n
        assert (town.arrays.occupied[b] == expected).all()


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
    for b in range(len(ints)):
        for thing, row in enumerate(things[b]):
            if row[c.USER] >= 0:
                user = ints[b, row[c.USER]]
                assert (user[c.OBJECT], user[c.BUSY], user[c.ALIVE]) == (thing, c.USING, 1)
            queue = row[c.QUEUE_0 : c.QUEUE_0 + c.QUEUE_CAPACITY]
            waiting = int(row[c.WAITING])
            assert (queue[:waiting] >= 0).all()
            assert (queue[waiting:] == -1).all()
            assert all(ints[b, n, c.QUEUE] == thing and ints[b, n, c.BUSY] == c.FREE for n in queue[:waiting])
        assert (ints[b, :, c.OBJECT] >= 0).sum() == (things[b, :, c.USER] >= 0).sum()
        assert (ints[b, :, c.QUEUE] >= 0).sum() == things[b, :, c.WAITING].sum()


def ties_are_few(town: TownBatch, rows: Any, actions: np.ndarray[Any, Any]) -> None:
    town.step(actions, rows)
    others, values = town.arrays.tie_other, town.arrays.tie
    for b in range(len(others)):
        for n, row in enumerate(others[b]):
            known = row[row >= 0].tolist()
            assert len(set(known)) == len(known)
            assert n not in known
    assert (np.abs(values[..., :2]) <= 1).all()
    assert ((values[..., 2] >= 0) & (values[..., 2] <= 1)).all()
    assert (values[others < 0] == 0).all()


class Ledger:
    """Money is earned from wages and spent on declared things, to the last digit that floats allow."""

    def __call__(self, town: TownBatch, rows: Any, actions: np.ndarray[Any, Any]) -> None:
        state = town.arrays
        before = state.agent_f[..., c.WALLET].copy()
        busy = state.agent_i[..., c.BUSY].copy()
        opened = state.agent_i[..., c.SHIFT].copy()
        goods = state.agent_i[..., c.INGREDIENTS].copy()
        town.step(actions, rows)
        ints, floats = state.agent_i, state.agent_f
        price = state.town_f[:, c.PRICE]
        kinds = town.layout_arrays.objects[0, :, 0]
        config = town.config
        for b in range(len(ints)):
            tod = int(state.town_i[b, c.TICK]) % config.ticks_per_day
            for n in range(ints.shape[1]):
                slot = b * ints.shape[1] + n
                if rows.terminated[slot] or rows.truncated[slot] or rows.observations["features"][slot, 16]:
                    continue
                change = floats[b, n, c.WALLET] - before[b, n]
                legal = {0.0}
                started = ints[b, n, c.BUSY] == c.USING and busy[b, n] != c.USING
                if started:
                    kind = kinds[ints[b, n, c.OBJECT]]
                    cost = {c.FRIDGE: config.economy.meal_cost, c.SHOWER: config.economy.shower_cost}.get(kind, 0.0)
                    legal = {-cost * price[b]}
                if ints[b, n, c.INGREDIENTS] > goods[b, n]:
                    legal = {-config.economy.ingredients_cost * price[b]}
                expected = next(iter(legal)) + floats[b, n, c.PAID]
                fines = 0.0
                if ints[b, n, c.SHIFT] == c.LATE and opened[b, n] == c.PRE:
                    fines += config.jobs[n % len(config.jobs)].lateness_penalty
                if ints[b, n, c.SHIFT] == c.ABSENT and opened[b, n] != c.ABSENT:
                    fines += config.employment.absence_penalty
                if floats[b, n, c.DOCKED] > 0:
                    fines += config.employment.late_tick_penalty
                if tod == 0:
                    fines += config.economy.rent
                # A fine takes no more than there is; a take-over makes absent without one.
                assert expected - fines - 1e-9 <= change <= expected + 1e-9
                if fines == 0.0:
                    assert change == pytest.approx(expected, abs=1e-9)


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


@pytest.mark.parametrize("check", [one_per_tile, reservations_agree, ties_are_few, Ledger()])
def test_structure_holds_in_eventful_towns(check: Any) -> None:
    drive(EVENTFUL, towns=4, ticks=600, seed=1, check=check)


@pytest.mark.parametrize("check", [numbers_are_sane, masks_are_exact])
@pytest.mark.parametrize("options", [EVENTFUL, {**EVENTFUL, "agents": 3, "map_size": 12, "respawn_delay_ticks": 7}])
def test_numbers_and_masks_hold_in_eventful_towns(check: Any, options: dict[str, Any]) -> None:
    drive(options, towns=16, ticks=600, seed=2, check=check)


@pytest.mark.deep
@pytest.mark.parametrize("check", [numbers_are_sane, masks_are_exact, ties_are_few])
def test_a_million_agent_steps(check: Any) -> None:
    drive(EVENTFUL, towns=64, ticks=2000, seed=3, check=check, expert_share=0.2)


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
