"""Conformance kit for simulations: whether an implementation keeps what the port promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import EVENT_DTYPE, StepArrays, allocate
from townlet_training_core.simulation.port import ExpertSimulation, KpiSimulation, Simulation

__all__ = ["check_simulation"]

MakeSimulation = Callable[[int], Simulation]


def check_simulation(make: MakeSimulation, *, steps: int = 40, seed: int = 1234, saved_state: bool = True) -> None:
    """Raise ``AssertionError`` where a simulation breaks its port.

    Checked: the spec's shapes and dtypes; masks that leave an action; flags; events; the expert inside the
    mask and without side effects; indicators; the same seed and actions giving the same rows; independence of
    each environment from the number of others; exact save and load.

    Parameters
    ----------
    make:
        Makes the simulation for a number of environments.
    steps:
        Steps of each run: make it longer than an episode to have resets checked too.
    seed:
        Of the run, environments and actions alike.
    saved_state:
        Set false for a simulation that cannot be saved.
    """
    whole = _Run(make(3), seed)
    again = _Run(make(3), seed)
    single = _Run(make(1), seed + 1)  # environment 1 of the whole
    per_env = whole.simulation.spec.agents_per_env
    middle = steps // 2
    state: dict[str, NDArray[Any]] = {}
    for step in range(steps):
        actions = whole.choose(step)
        if step == middle and saved_state:
            state = whole.simulation.save_state()
            saved_row = _snapshot(whole.out)
        whole.step(actions)
        again.step(actions)
        single.step(actions[per_env : 2 * per_env])
        _equal(whole.out, again.out, slice(None), slice(None), what="the same seed and actions")
        _equal(whole.out, single.out, slice(per_env, 2 * per_env), slice(None), what="another number of environments")
    if saved_state:
        _check_saved_state(make, state, saved_row, whole, middle, steps, seed)
    for run in (whole, again, single):
        run.simulation.close()
        run.simulation.close()


class _Run:
    """A simulation with its output arrays, checked at every step."""

    def __init__(self, simulation: Simulation, seed: int, *, begin: bool = True) -> None:
        self.simulation, self.seed = simulation, seed
        spec = simulation.spec
        self.slots, self.actions = spec.num_envs * spec.agents_per_env, len(spec.action_names)
        assert isinstance(simulation, Simulation), f"{type(simulation).__name__} lacks methods of the port"
        assert len(set(spec.action_names)) == self.actions > 0, "action names must be given and distinct"
        if spec.feature_names:
            assert len(spec.feature_names) == spec.observations["features"].shape[0], "feature_names and features"
        if "map" in spec.observations and spec.map_channels:
            assert len(spec.map_channels) == spec.observations["map"].shape[0], "map_channels and map"
        self.out = allocate(spec.observations, slots=self.slots, actions=self.actions)
        if begin:
            simulation.reset(seed=seed, out=self.out)
            self._check_row()

    def choose(self, step: int) -> NDArray[np.int64]:
        """Choose among the allowed actions, the same at the same step of the same seed."""
        weights = np.random.default_rng([self.seed, step]).random((self.slots, self.actions))
        return np.asarray(np.where(self.out.action_mask, weights, -1.0).argmax(axis=1), np.int64)

    def step(self, actions: NDArray[np.int64]) -> None:
        alive = self.out.alive.copy()
        self._check_expert(alive)
        self.simulation.step(actions, self.out)
        out, spec = self.out, self.simulation.spec
        assert np.isfinite(out.rewards).all(), "rewards must be finite"
        assert not ((out.terminated | out.truncated) & ~alive).any(), "a slot that was dead cannot end"
        events = self.simulation.events
        assert events.dtype == EVENT_DTYPE, f"events have dtype {events.dtype}"
        assert ((events["slot"] >= 0) & (events["slot"] < self.slots)).all(), "an event names no slot"
        assert ((events["kind"] >= 0) & (events["kind"] < len(spec.event_kinds))).all(), "an event has no kind"
        if isinstance(self.simulation, KpiSimulation):
            for name, values in self.simulation.kpis().items():
                assert name in spec.kpi_names, f"indicator {name!r} is not in the spec"
                assert values.shape == (spec.num_envs,), f"indicator {name!r} has shape {values.shape}"
        self._check_row()

    def _check_row(self) -> None:
        assert self.out.action_mask[self.out.alive].any(axis=1).all(), "a living slot has no allowed action"
        assert self.simulation.spec.masked or self.out.action_mask.all(), "masked is false, yet actions are masked"
        for name, array in self.out.observations.items():
            if array.dtype.kind == "f":
                assert np.isfinite(array).all(), f"observation {name!r} is not finite"

    def _check_expert(self, alive: NDArray[np.bool_]) -> None:
        if not isinstance(self.simulation, ExpertSimulation):
            return
        labels = np.asarray(self.simulation.expert_actions()).copy()
        np.testing.assert_array_equal(labels, self.simulation.expert_actions(), err_msg="asking the expert twice")
        assert self.out.action_mask[np.arange(self.slots), labels][alive].all(), "the expert chose a masked action"


def _check_saved_state(
    make: MakeSimulation,
    state: dict[str, NDArray[Any]],
    saved_row: dict[str, NDArray[Any]],
    whole: _Run,
    middle: int,
    steps: int,
    seed: int,
) -> None:
    restored = _Run(make(3), seed, begin=False)
    restored.simulation.load_state(state, out=restored.out)
    for name, array in _snapshot(restored.out).items():
        np.testing.assert_array_equal(array, saved_row[name], err_msg=f"{name} after load_state")
    for step in range(middle, steps):
        restored.step(restored.choose(step))
    _equal(whole.out, restored.out, slice(None), slice(None), what="save and load")
    restored.simulation.close()


def _snapshot(out: StepArrays) -> dict[str, NDArray[Any]]:
    return {
        **{name: array.copy() for name, array in out.observations.items()},
        "action_mask": out.action_mask.copy(),
        "alive": out.alive.copy(),
    }


def _equal(left: StepArrays, right: StepArrays, own: slice, other: slice, *, what: str) -> None:
    for name in left.observations:
        np.testing.assert_array_equal(
            left.observations[name][own], right.observations[name][other], err_msg=f"{name}: {what}"
        )
    for name in ("action_mask", "alive", "rewards", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(left, name)[own], getattr(right, name)[other], err_msg=f"{name}: {what}")
