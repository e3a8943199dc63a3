"""Simulation × policy → columns: the loop that every trainer and every capture shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import BoolArray, FloatArray, IntArray, RolloutArrays, StepArrays
from townlet_training_core.errors import CapabilityError, ConfigurationError, DataError
from townlet_training_core.policy.port import Policy, RecurrentPolicy
from townlet_training_core.rollout.buffer import RolloutBuffer
from townlet_training_core.simulation.port import Simulation
from townlet_training_core.streams import generator, generator_state, restore_generator

__all__ = ["FinishedEpisodes", "RolloutCollector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedEpisodes:
    """Episodes of slots that ended during one ``collect()``, in order of their end.

    ======== ============ ==========================================
    slots    (E,) int64   which slot
    steps    (E,) int64   row of the rollout in which it ended
    returns  (E,) float64 sum of rewards, earlier rollouts included
    lengths  (E,) int64   steps lived, earlier rollouts included
    ======== ============ ==========================================
    """

    slots: IntArray
    steps: IntArray
    returns: NDArray[np.float64]
    lengths: IntArray

    def __len__(self) -> int:
        return len(self.slots)


class _EpisodeMeter:
    """Running return and length of every slot's current episode."""

    __slots__ = ("_ended", "lengths", "returns")

    def __init__(self, slots: int) -> None:
        self.returns = np.zeros(slots, np.float64)
        self.lengths = np.zeros(slots, np.int64)
        self._ended: list[tuple[int, IntArray, NDArray[np.float64], IntArray]] = []

    def begin(self) -> None:
        self._ended = []

    def add(self, row: StepArrays, alive: NDArray[np.bool_]) -> None:
        if alive.all():
            self.returns += row.rewards
            self.lengths += 1
        else:  # a dead slot's reward is nobody's: it belongs to no episode
            np.add(self.returns, row.rewards, out=self.returns, where=alive)
            self.lengths += alive

    def end(self, step: int, ended: NDArray[np.bool_]) -> None:
        (slots,) = np.nonzero(ended)
        self._ended.append((step, slots, self.returns[slots], self.lengths[slots]))
        self.returns[slots] = 0.0
        self.lengths[slots] = 0

    def finished(self) -> FinishedEpisodes:
        return FinishedEpisodes(
            slots=np.concatenate([np.empty(0, np.int64), *(slots for _, slots, _, _ in self._ended)]),
            steps=np.concatenate(
                [
                    np.empty(0, np.int64),
                    *(np.full(len(slots), step, np.int64) for step, slots, _, _ in self._ended),
                ]
            ),
            returns=np.concatenate([np.empty(0, np.float64), *(returns for _, _, returns, _ in self._ended)]),
            lengths=np.concatenate([np.empty(0, np.int64), *(lengths for _, _, _, lengths in self._ended)]),
        )


class RolloutCollector:
    """Steps a simulation with a policy, T steps at a time; each call goes on where the last one ended.

    Per step, observation t, the action chosen for it, its log-probability and value, and the reward that
    followed stand in row t. ``next_values[t]`` is the value of the observation after step t: the final
    observation where the episode was cut off, 0 where it terminated, and after the last step the value of the
    observation that the next call begins with.

    Parameters
    ----------
    simulation, policy:
        What steps and what decides. The policy is bound here.
    steps:
        T, steps of every slot per :meth:`collect`.
    seed:
        Seeds the simulation's episodes (``simulation.reset``) and the streams of action and blending noise.
    expert_share:
        Share of decisions, in [0, 1], taken from ``simulation.expert_actions()``. They are flagged in
        ``from_expert``; their ``log_probs`` are those of the action that the policy would have taken, and
        mean nothing for the surrogate. May be changed between calls through :attr:`expert_share`.
    label_expert:
        Ask the expert at every step and keep the answers in ``expert_actions`` (DAgger, blending).
    greedy:
        Take the policy's most probable action instead of sampling.
    keep_final:
        Keep the last observations of ended episodes (``buffer.observations_after``), so that values can be
        computed again under another policy.

    Raises
    ------
    ConfigurationError
        When ``steps`` is not positive or ``expert_share`` lies outside [0, 1].
    CapabilityError
        When the expert is asked for and the simulation has none.
    SpaceMismatchError
        When the policy does not fit the simulation (from ``policy.bind``).
    """

    def __init__(
        self,
        simulation: Simulation,
        policy: Policy,
        *,
        steps: int,
        seed: int,
        expert_share: float = 0.0,
        label_expert: bool = False,
        greedy: bool = False,
        keep_final: bool = False,
    ) -> None:
        self._simulation, self._policy, self._seed, self._greedy = simulation, policy, seed, greedy
        self._keep_final = keep_final
        self._label_expert = label_expert
        self.expert_share = expert_share
        self.buffer = RolloutBuffer(simulation.spec, steps=steps)
        self._actions_stream = generator(seed, "rollout", "actions")
        self._blend_stream = generator(seed, "rollout", "blend")
        self._meter = _EpisodeMeter(self.buffer.slots)
        self._started = self._memoryless = False
        self._last = steps
        policy.bind(simulation)

    @property
    def expert_share(self) -> float:
        """Share of decisions taken from the expert in the next :meth:`collect`."""
        return self._expert_share

    @expert_share.setter
    def expert_share(self, share: float) -> None:
        if not 0.0 <= share <= 1.0:
            msg = f"expert_share={share!r}: expected a share between 0 and 1"
            raise ConfigurationError(msg)
        if (share > 0.0 or self._label_expert) and not callable(getattr(self._simulation, "expert_actions", None)):
            msg = (
                f"simulation {self._simulation.spec.name!r} has no expert_actions(), which blending and "
                "labels need; set expert_share=0 and label_expert=False, or choose one with an expert"
            )
            raise CapabilityError(msg)
        self._expert_share = float(share)

    @property
    def simulation(self) -> Simulation:
        """The simulation that is stepped."""
        return self._simulation

    @property
    def policy(self) -> Policy:
        """The policy that decides."""
        return self._policy

    @property
    def episodes(self) -> FinishedEpisodes:
        """Episodes that ended during the last :meth:`collect`."""
        return self._meter.finished()

    @property
    def current(self) -> StepArrays:
        """What is seen now: the row that the next :meth:`collect` decides on first."""
        return self.buffer.rows[self._last]

    def reset(self) -> None:
        """Begin new episodes everywhere from the collector's seed; called by the first :meth:`collect`."""
        self._simulation.reset(seed=self._seed, out=self.current)
        self.buffer.episode_starts[self._last] = True
        self._meter = _EpisodeMeter(self.buffer.slots)
        self._policy.reset(None)
        self._started = True

    def collect(self, steps: int | None = None, *, between: Callable[[], None] | None = None) -> RolloutArrays:
        """Collect T steps of every slot.

        Parameters
        ----------
        steps:
            Collect fewer than T.
        between:
            Called before every step. What it raises ends the collection in its middle: the collector then goes on
            only from a state that was saved (:meth:`load_state`).

        Returns
        -------
        RolloutArrays
            Views of the buffer: the next call overwrites them. ``log_probs``, ``values``, ``next_values``,
            ``from_expert`` and ``expert_actions`` are ``None`` where there are none.
        """
        buffer, policy = self.buffer, self._policy
        count = buffer.steps if steps is None else steps
        if not 1 <= count <= buffer.steps:
            msg = f"steps={count!r}: the buffer holds between 1 and {buffer.steps}"
            raise ConfigurationError(msg)
        if not self._started:
            self.reset()
        buffer.begin(self._last)
        self._last = count
        buffer.events.clear()
        buffer.finals.clear()
        self._meter.begin()
        self._prepare_expert_columns()
        state = policy.recurrent_state() if isinstance(policy, RecurrentPolicy) else {}
        self._memoryless = isinstance(policy, RecurrentPolicy) and not state
        for step in range(count):
            if between is not None:
                between()
            self._decide(step)
            self._advance(step)
        if buffer.values is not None:
            last = policy.values(buffer.views[count])
            buffer.finish_values(_float_row(last, buffer.slots, what="values()"), steps=count)
        return buffer.arrays(steps=count, initial_state=state)

    def _prepare_expert_columns(self) -> None:
        buffer = self.buffer
        shape = (buffer.steps, buffer.slots)
        if self._expert_share == 0.0:
            buffer.from_expert = None
        elif buffer.from_expert is None:
            buffer.from_expert = np.zeros(shape, np.bool_)
        if self._expert_share == 0.0 and not self._label_expert:
            buffer.expert_actions = None
        elif buffer.expert_actions is None:
            buffer.expert_actions = np.zeros(shape, np.int64)

    def _decide(self, step: int) -> None:
        buffer = self.buffer
        decision = self._policy.act(buffer.views[step], self._actions_stream, greedy=self._greedy)
        buffer.actions[step] = decision.actions
        if step == 0:  # what the policy has at its first step it has at every one
            buffer.log_probs = _column(buffer, buffer.log_probs, decision.log_probs)
            buffer.values = _column(buffer, buffer.values, decision.values)
            buffer.next_values = _column(buffer, buffer.next_values, decision.values)
        if buffer.log_probs is not None:
            buffer.log_probs[step] = _float_row(decision.log_probs, buffer.slots, what="log_probs")
        if buffer.values is not None:
            buffer.values[step] = _float_row(decision.values, buffer.slots, what="values")
        if buffer.expert_actions is not None:
            labels: IntArray = self._simulation.expert_actions()  # type: ignore[attr-defined]  # checked by the setter
            buffer.expert_actions[step] = labels
            if buffer.from_expert is not None:
                taken = self._blend_stream.random(buffer.slots) < self._expert_share
                buffer.from_expert[step] = taken
                np.copyto(buffer.actions[step], labels, where=taken)

    def _advance(self, step: int) -> None:
        buffer, row, alive = self.buffer, self.buffer.rows[step + 1], self.buffer.alive[step]
        self._simulation.step(buffer.actions[step], row)
        buffer.events.append(step, self._simulation.events)
        self._meter.add(row, alive)
        ended = row.terminated | row.truncated
        # A slot that was dead at t and acts at t + 1 begins an episode, whatever its flags say.
        np.logical_or(ended, ~alive, out=buffer.episode_starts[step + 1])
        if not ended.any():
            return
        self._meter.end(step, ended)
        if self._keep_final:
            buffer.keep_finals(step, ended)
        if buffer.next_values is not None:
            cut = row.truncated & ~row.terminated
            buffer.next_values[step] = 0.0
            if cut.any():  # before the policy forgets: its memory belongs to the episode that was cut off
                self._value_finals(buffer.next_values[step], cut)
        self._policy.reset(ended)

    def _value_finals(self, row: FloatArray, cut: BoolArray) -> None:
        """Write the values of the last observations of episodes that were cut off.

        In many environments some episode ends in nearly every step, so a policy that says that it has no memory is
        asked for those rows alone; any other one for all, as its memory has them all.
        """
        buffer = self.buffer
        (slots,) = np.nonzero(cut)
        if self._memoryless and 2 * len(slots) < buffer.slots:
            few = {name: rows[slots] for name, rows in buffer.final_view.items()}
            row[slots] = _float_row(self._policy.values(few), len(slots), what="values()")
        else:
            row[slots] = _float_row(self._policy.values(buffer.final_view), buffer.slots, what="values()")[slots]

    def save_state(self) -> dict[str, NDArray[Any]]:
        """Return everything that later rollouts depend on, weights apart, as named arrays (copies).

        Raises
        ------
        CapabilityError
            When the simulation cannot be saved.
        """
        if not self._started:
            self.reset()
        current = self.current
        saved: dict[str, NDArray[Any]] = {
            "streams/actions": generator_state(self._actions_stream),
            "streams/blend": generator_state(self._blend_stream),
            "episodes/returns": self._meter.returns.copy(),
            "episodes/lengths": self._meter.lengths.copy(),
            "current/action_mask": current.action_mask.copy(),
            "current/alive": current.alive.copy(),
            "current/episode_starts": self.buffer.episode_starts[self._last].copy(),
        }
        saved |= {f"observations/{name}": array.copy() for name, array in current.observations.items()}
        saved |= {f"simulation/{name}": array for name, array in self._simulation.save_state().items()}
        if isinstance(self._policy, RecurrentPolicy):
            saved |= {f"policy/{name}": array for name, array in self._policy.recurrent_state().items()}
        return saved

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore :meth:`save_state`: the next :meth:`collect` equals that of the collector that was saved.

        Raises
        ------
        DataError
            When arrays are missing or of another shape.
        """
        current, buffer = self.current, self.buffer
        try:
            self._simulation.load_state(_part(state, "simulation/"), out=current)
            for name, array in current.observations.items():
                array[...] = _fitting(state, f"observations/{name}", array)
            current.action_mask[...] = _fitting(state, "current/action_mask", current.action_mask)
            current.alive[...] = _fitting(state, "current/alive", current.alive)
            buffer.episode_starts[self._last] = _fitting(state, "current/episode_starts", current.alive)
            meter = _EpisodeMeter(buffer.slots)
            meter.returns[...] = _fitting(state, "episodes/returns", meter.returns)
            meter.lengths[...] = _fitting(state, "episodes/lengths", meter.lengths)
            self._actions_stream = restore_generator(state["streams/actions"])
            self._blend_stream = restore_generator(state["streams/blend"])
        except KeyError as error:
            msg = f"collector state lacks the array {error.args[0]!r}; it was saved by something else"
            raise DataError(msg) from error
        self._meter = meter
        self._policy.reset(None)
        if isinstance(self._policy, RecurrentPolicy):
            self._policy.load_recurrent_state(_part(state, "policy/"))
        self._started = True


def _part(state: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def _fitting(state: Mapping[str, NDArray[Any]], name: str, like: NDArray[Any]) -> NDArray[Any]:
    array = state[name]
    if array.shape != like.shape:
        msg = (
            f"collector state {name!r} has shape {array.shape}, expected {like.shape}; it belongs to another simulation"
        )
        raise DataError(msg)
    return array


def _column(buffer: RolloutBuffer, column: FloatArray | None, row: FloatArray | None) -> FloatArray | None:
    if row is None:
        return None
    return buffer.float_column() if column is None else column


def _float_row(row: FloatArray | None, slots: int, *, what: str) -> FloatArray:
    if row is None or row.shape != (slots,):
        found = "None" if row is None else f"shape {row.shape}"
        msg = f"policy returned {found} for {what}, expected shape ({slots},), as at its first step"
        raise DataError(msg)
    return row
