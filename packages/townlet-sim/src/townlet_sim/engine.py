"""The batch engine: B towns of N agents behind one small interface.

Kernels are compiled when the first town is made, not when this module is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from townlet_sim import columns as c
from townlet_sim.config import TownConfig, rules_hash
from townlet_sim.layout import Layout, LayoutArrays, generate_layout, layout_arrays
from townlet_sim.spaces import (
    ACTIONS,
    ACTIONS_VERSION,
    EVENT_DTYPE,
    EVENT_KINDS,
    FEATURES,
    FEATURES_VERSION,
    KPIS,
    SCRIPTED_POLICIES,
    ObservationSpec,
    ScriptedPolicy,
    TownSpec,
    feature_names,
    map_channels,
    window,
)
from townlet_sim.state import OutArrays, RuleArrays, StateArrays, allocate_state, out_sample, rule_arrays
from townlet_sim.workers import Worker

__all__ = ["GivenAgent", "GivenTown", "StepOut", "StepRows", "TownBatch"]

_LOG = logging.getLogger("townlet_sim")
_THREADS_PAY_FROM = 256
"""Agents below which waking a worker costs more than it saves."""
_PATIENCE = 10_000
"""Looks at a worker's last towns, some tenths of a millisecond, before this thread sleeps until they are done."""


class StepOut(Protocol):
    """Arrays of S = B * N rows (town-major) that the caller owns and a step writes.

    An ended slot's next row is the new episode; its true last observation is in ``final_observation``.
    """

    @property
    def observations(self) -> Mapping[str, NDArray[Any]]:
        """What each slot sees, by name."""

    @property
    def action_mask(self) -> NDArray[np.bool_]:
        """(S, A): possible actions."""

    @property
    def alive(self) -> NDArray[np.bool_]:
        """(S,): slots that act."""

    @property
    def rewards(self) -> NDArray[np.float32]:
        """(S,)."""

    @property
    def terminated(self) -> NDArray[np.bool_]:
        """(S,): left the town."""

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """(S,): cut off by the horizon."""

    @property
    def final_observation(self) -> Mapping[str, NDArray[Any]]:
        """Last observations of slots that ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRows:
    """Arrays for one step, for callers that bring none of their own."""

    observations: dict[str, NDArray[Any]]
    action_mask: NDArray[np.bool_]
    alive: NDArray[np.bool_]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_observation: dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAgent:
    """What a scenario says about an agent; ``None`` is drawn as usual.

    ``needs`` are hunger, hygiene and energy. ``job`` is an index into the configured jobs, -1 for none; ``site`` is
    an object id. An agent that is not ``present`` can enter later (:meth:`TownBatch.enter_agent`).
    """

    present: bool = True
    position: tuple[int, int] | None = None
    needs: tuple[float | None, float | None, float | None] = (None, None, None)
    wallet: float | None = None
    job: int | None = None
    site: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenTown:
    """A scenario's start: a map (``None``: generated) and agents (missing ones are drawn)."""

    layout: Layout | None = None
    agents: tuple[GivenAgent, ...] = ()


class TownBatch:
    """B towns stepped together (the ``Simulation`` port of the training library, structurally).

    Parameters
    ----------
    config:
        Options of the town.
    num_envs:
        B.
    threads:
        Worker threads; used from about 256 agents on. Results do not depend on it.
    given:
        A scenario's start.
    """

    def __init__(self, config: TownConfig, num_envs: int, *, threads: int = 1, given: GivenTown | None = None) -> None:
        if num_envs < 1 or threads < 1:
            msg = f"num_envs {num_envs!r} and threads {threads!r} must be at least 1"
            raise ValueError(msg)
        self.config = config
        agents = config.agents
        self._agents, self._towns = agents, num_envs
        given = given or GivenTown()
        if given.layout is not None:
            self.layouts: tuple[Layout, ...] = (given.layout,)
            config = self.config = config.model_copy(update={"layouts": 1})
        else:
            self.layouts = tuple(
                generate_layout(agents=agents, size=config.map_size, seed=config.layout_seed + k)
                for k in range(config.layouts)
            )
        self._layout: LayoutArrays = layout_arrays(self.layouts, agents=agents, variant=config.observation)
        first = self.layouts[0]
        fridges = first.of_type("fridge")
        self._rules: RuleArrays = rule_arrays(
            config, workplaces=len(first.of_type("workplace")), fridge=fridges[0] if fridges else -1
        )
        self._apply(given)
        height, width = first.size
        self._state: StateArrays = allocate_state(
            towns=num_envs, agents=agents, objects=self._layout.objects.shape[1], height=height, width=width
        )
        self._kernels = _load_kernels()
        side = window(config.observation)
        observations = {
            "map": ObservationSpec((len(map_channels(config.observation)), side, side), np.dtype(np.uint8)),
            "features": ObservationSpec((len(FEATURES),), np.dtype(np.float32)),
        }
        if config.centralised_state:
            observations["state"] = ObservationSpec((9 * agents + 6,), np.dtype(np.float32))
        self.spec = TownSpec(
            name="town-v1",
            num_envs=num_envs,
            agents_per_env=agents,
            observations=observations,
            feature_names=feature_names(),
            map_channels=map_channels(config.observation),
            action_names=tuple(action.name for action in ACTIONS),
            masked=True,
            event_kinds=tuple(kind.name for kind in EVENT_KINDS),
            kpi_names=tuple(kpi.name for kpi in KPIS),
            rules_hash=rules_hash(config),
            versions={"observations": f"{config.observation}-{FEATURES_VERSION}", "actions": ACTIONS_VERSION},
        )
        self._no_actions = np.zeros(num_envs * agents, np.int64)
        self._no_state = np.zeros((1, 1), np.float32)
        self._expected = self._kinds_of_rows()
        inside = _words((*self._state, *self._layout, *self._rules))
        self._table = np.array([0, 0, *inside, *_words(out_sample())], np.int64)
        self._taken: OutArrays | None = None
        workers = min(threads, num_envs) if num_envs * agents >= _THREADS_PAY_FROM else 1
        self._workers = [Worker(f"town-{k}") for k in range(1, workers)]
        self._started = False

    def _kinds_of_rows(self) -> tuple[tuple[tuple[int, ...], Any], ...]:
        """Return the shapes and dtypes of the caller's arrays: the kernels know no others."""
        slots = self._towns * self._agents
        specs = self.spec.observations
        seen = tuple(((slots, *specs[name].shape), specs[name].dtype) for name in ("map", "features"))
        central = ((slots, *specs["state"].shape) if "state" in specs else self._no_state.shape, np.float32)
        flat = ((slots,), np.bool_)
        rows = (((slots, len(ACTIONS)), np.bool_), flat, ((slots,), np.float32), flat, flat)
        return (*seen, central, *rows, *seen, central)

    def _apply(self, given: GivenTown) -> None:
        if len(given.agents) > self._agents:
            msg = f"{len(given.agents)} agents are given, but the town has agents = {self._agents}"
            raise ValueError(msg)
        taken: set[tuple[int, int]] = set()
        for n, agent in enumerate(given.agents):
            self._rules.given_i[n, 0] = agent.present
            if agent.position is not None and agent.present:
                y, x = agent.position
                height, width = self.layouts[0].size
                if not (0 <= y < height and 0 <= x < width) or not self.layouts[0].walkable[y, x] or (y, x) in taken:
                    msg = f"agents.{n}.position: {agent.position!r} is not a free walkable tile (y, x)"
                    raise ValueError(msg)
                taken.add((y, x))
                self._rules.given_i[n, 1:] = (y, x)
            values = (*agent.needs, agent.wallet)
            self._rules.given_f[n] = [np.nan if value is None else value for value in values]
            if agent.job is not None:
                job = self.config.jobs[agent.job] if agent.job >= 0 else None
                self._rules.job_i[n] = (job.start, job.end) if job else (-1, -1)
                self._rules.job_f[n] = (job.wage, job.lateness_penalty) if job else (0.0, 0.0)
            if agent.site is not None:
                self._layout.site[:, n] = agent.site

    # ---- the port ----

    @property
    def events(self) -> NDArray[Any]:
        """Events of the last step, by town and order, as :data:`~townlet_sim.spaces.EVENT_DTYPE` records."""
        found = np.empty(self._kernels.count_events(self._table), EVENT_DTYPE)
        if found.size:
            self._kernels.gather_events(self._table, found)
        return found

    @property
    def events_lost(self) -> int:
        """Events of the last step that found no room in the buffer."""
        counts = self._state.town_i[:, c.N_EVENTS] - self._state.event_f.shape[1]
        return int(np.maximum(counts, 0).sum())

    def reset(self, *, seed: int | Sequence[int], out: StepOut) -> None:
        """Begin new episodes everywhere; town ``b`` takes ``seed + b``, or its own of B given seeds.

        Raises
        ------
        ValueError
            When the number of seeds is not B, or a seed is not in ``0 .. 2**64 - 1``.
        """
        seeds = [int(seed) + b for b in range(self._towns)] if isinstance(seed, int | np.integer) else list(seed)
        if len(seeds) != self._towns or not all(0 <= int(value) < 1 << 64 for value in seeds):
            msg = f"expected one seed or {self._towns} seeds in 0 .. 2**64 - 1, found {seed!r}"
            raise ValueError(msg)
        self._state.town_u[:, c.SEED] = np.array([int(value) for value in seeds], np.uint64)
        self._take(out)
        self._run(self._no_actions, 1)
        self._started = True

    def step(self, actions: NDArray[Any], out: StepOut) -> None:
        """Play one tick of every town; ``actions`` is ``(S,)``. Actions outside the mask are played as ``stay``."""
        if not self._started:
            msg = "step before reset: call reset(seed=..., out=...) first"
            raise RuntimeError(msg)
        self._take(out)
        if actions.dtype != np.int64 or not actions.flags.c_contiguous or not actions.flags.writeable:
            actions = np.array(actions, np.int64, order="C")  # other kinds would compile a second set of kernels
        if actions.shape != self._no_actions.shape:
            msg = f"actions: expected shape {self._no_actions.shape}, found {actions.shape}"
            raise ValueError(msg)
        self._run(actions, 0)

    def save_state(self) -> dict[str, NDArray[Any]]:
        """Return copies of everything that the future depends on."""
        state: dict[str, NDArray[Any]] = {name: array.copy() for name, array in self._state._asdict().items()}
        state["rules_hash"] = np.frombuffer(self.spec.rules_hash.encode(), np.uint8).copy()
        return state

    def load_state(self, state: Mapping[str, NDArray[Any]], *, out: StepOut) -> None:
        """Restore :meth:`save_state` and rewrite observations, masks and alive rows.

        Raises
        ------
        ValueError
            When the state belongs to other rules, or to another number of towns or agents.
        """
        saved = bytes(np.asarray(state.get("rules_hash", np.zeros(0)), np.uint8)).decode(errors="replace")
        if saved != self.spec.rules_hash:
            msg = f"state of rules {saved!r} cannot be loaded into a town of rules {self.spec.rules_hash!r}"
            raise ValueError(msg)
        for name, array in self._state._asdict().items():
            if name not in state or state[name].shape != array.shape or state[name].dtype != array.dtype:
                found = (state[name].shape, state[name].dtype) if name in state else "nothing"
                msg = f"state array {name!r}: expected {array.shape} {array.dtype}, found {found}"
                raise ValueError(msg)
        for name, array in self._state._asdict().items():
            array[...] = state[name]
        self._started = True
        self._take(out)
        self._run(self._no_actions, 2)

    def expert_actions(self) -> NDArray[np.int64]:
        """Return the scripted expert's action for every slot, ``(S,)``; inside the mask, and without any effect."""
        return self.scripted_actions("expert")

    def scripted_actions(self, policy: ScriptedPolicy | Sequence[ScriptedPolicy | None]) -> NDArray[np.int64]:
        """Return a scripted policy's actions, ``(S,)``.

        Parameters
        ----------
        policy:
            One of :data:`~townlet_sim.spaces.SCRIPTED_POLICIES`, or N of them, one for each agent of a town
            (``None``: 0 is left for that agent).
        """
        names = [policy] * self._agents if isinstance(policy, str) else list(policy)
        unknown = [name for name in names if name is not None and name not in SCRIPTED_POLICIES]
        if unknown or len(names) != self._agents:
            msg = f"scripted policy {policy!r}: expected one of {SCRIPTED_POLICIES}, or {self._agents} of them"
            raise ValueError(msg)
        kinds = np.array([-1 if name is None else SCRIPTED_POLICIES.index(name) for name in names], np.int64)
        actions = np.zeros(self._towns * self._agents, np.int64)
        self._kernels.scripted_range(self._table, np.tile(kinds, self._towns), actions, 0, self._towns)
        return actions

    def kpis(self) -> dict[str, NDArray[Any]]:
        """Return ``(B,)`` indicators of the last finished episode of each town; zeros before the first."""
        return {kpi.name: self._state.kpi[:, column].copy() for column, kpi in enumerate(KPIS)}

    def close(self) -> None:
        """Stop the worker threads; safe to call twice, and a later step is played by the caller's thread alone."""
        for worker in self._workers:
            worker.join()
            worker.close()
        self._workers.clear()

    # ---- beyond the port ----

    @property
    def arrays(self) -> StateArrays:
        """The live state (not a copy); columns are in :mod:`townlet_sim.columns`. For looking, tests and scenarios."""
        return self._state

    @property
    def layout_arrays(self) -> LayoutArrays:
        """The maps as the kernels read them."""
        return self._layout

    @property
    def rules(self) -> RuleArrays:
        """The rule constants as the kernels read them."""
        return self._rules

    @property
    def reward_terms(self) -> NDArray[np.float32]:
        """``(B, N, terms)`` of the last step, in the order of :data:`~townlet_sim.spaces.REWARD_TERMS`."""
        return self._state.terms

    @property
    def invalid_actions(self) -> NDArray[np.bool_]:
        """``(S,)``: whether the last action was outside the mask."""
        flags: NDArray[np.bool_] = self._state.agent_i[:, :, c.INVALID].reshape(-1) != 0
        return flags

    def allocate(self) -> StepRows:
        """Return zeroed arrays that fit."""
        slots = self._towns * self._agents

        def rows() -> dict[str, NDArray[Any]]:
            return {name: np.zeros((slots, *spec.shape), spec.dtype) for name, spec in self.spec.observations.items()}

        return StepRows(
            observations=rows(),
            action_mask=np.ones((slots, len(ACTIONS)), np.bool_),
            alive=np.ones(slots, np.bool_),
            rewards=np.zeros(slots, np.float32),
            terminated=np.zeros(slots, np.bool_),
            truncated=np.zeros(slots, np.bool_),
            final_observation=rows(),
        )

    def layout_of(self, town: int) -> Layout:
        """Return the map that a town plays on in this episode."""
        return self.layouts[int(self._state.town_i[town, c.LAYOUT])]

    def publish(self, out: StepOut) -> None:
        """Rewrite observations, masks and alive rows after the state was edited from outside."""
        self._take(out)
        self._run(self._no_actions, 2)

    def enter_agent(self, town: int, slot: int) -> None:
        """Let a new agent enter an empty slot now (a scenario's arrival); call :meth:`publish` afterwards."""
        if self._state.agent_i[town, slot, c.ALIVE]:
            msg = f"slot {slot} of town {town} is not empty"
            raise ValueError(msg)
        now = int(self._state.town_i[town, c.TICK])
        self._state.agent_i[town, slot, c.RESPAWN_AT] = now
        self._kernels.respawns(self._state, self._layout, self._rules, town, now)

    def begin_perturbation(self, town: int, kind: int) -> bool:
        """Begin a perturbation (0 price spike, 1 blackout, 2 outage, 3 arranged meet) now; whether it began."""
        now = int(self._state.town_i[town, c.TICK])
        return bool(self._kernels.begin_perturbation(self._state, self._layout, self._rules, town, kind, now))

    def request_exit(self, town: int, slot: int) -> bool:
        """Queue an agent for its exit now, whatever its absences; whether there was room. See ``employment``."""
        if not self._state.agent_i[town, slot, c.ALIVE]:
            return False
        now, kind = int(self._state.town_i[town, c.TICK]), c.EV_EXIT_REQUEST
        return bool(self._kernels.seek_exit(self._state, self._rules, town, slot, now, kind))

    # ---- inside ----

    def _run(self, actions: NDArray[np.int64], mode: int) -> None:
        """Step (0), reset (1) or observe (2) all towns, together with the workers."""
        for worker in self._workers:
            worker.join()  # it may have come too late for the last step, and must not begin with this one's
        run, table = self._kernels.run_towns, self._table
        table[:2] = 0
        for worker in self._workers:
            worker.begin(run, table, actions, mode, 0)
        run(table, actions, mode, _PATIENCE if self._workers else 0)
        if table[1] < self._towns:
            for worker in self._workers:
                worker.join()

    def _take(self, out: StepOut) -> None:
        """Point the kernels' table to the caller's arrays; what it pointed to already was checked before."""
        observations, final = out.observations, out.final_observation
        central = self.config.centralised_state
        rows = OutArrays(
            observations["map"],
            observations["features"],
            observations["state"] if central else self._no_state,
            out.action_mask,
            out.alive,
            out.rewards,
            out.terminated,
            out.truncated,
            final["map"],
            final["features"],
            final["state"] if central else self._no_state,
        )
        if self._taken is not None and all(map(is_, rows, self._taken)):
            return
        arrays: tuple[NDArray[Any], ...] = rows
        for array, (shape, dtype), name in zip(arrays, self._expected, OutArrays._fields, strict=True):
            if (
                array.shape != shape
                or array.dtype != dtype
                or not array.flags.c_contiguous
                or not array.flags.writeable
            ):
                expectation = f"writeable contiguous {shape} {np.dtype(dtype)}"
                msg = f"out array {name!r}: expected {expectation}, found {array.shape} {array.dtype}"
                raise ValueError(msg)
        flat = rows._replace(map=_flat(rows.map), final_map=_flat(rows.final_map))
        words = _words(flat)
        self._table[-len(words) :] = words
        self._taken = rows  # keeps them alive, too


def _flat(maps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return maps.reshape(maps.shape[0], -1)


def _words(arrays: Iterable[NDArray[Any]]) -> list[int]:
    """Return addresses and shapes as the kernels read them (:mod:`townlet_sim.rules.table`)."""
    return [word for array in arrays for word in (array.__array_interface__["data"][0], *array.shape)]


def _load_kernels() -> Any:
    """Import the kernels; say so when they must be compiled first."""
    from townlet_sim.jit import cache_folder

    if not cache_folder().exists():
        _LOG.warning("compiling the town's kernels for the first time; this takes about a minute")
    from townlet_sim import kernels

    module: ModuleType = kernels
    return module
