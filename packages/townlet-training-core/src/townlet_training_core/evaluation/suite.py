"""Play one episode per seed and record what came out.

What an episode is
    Environment ``b`` is reset with its own seed and played until, in one step, every slot that acted in it
    ended (``terminated`` or ``truncated``), or until ``max_steps``. A slot that terminates alone and respawns,
    or leaves, does not end it: whatever the slot earns afterwards counts into the same episode. In a suite whose
    ``episode`` is ``slot`` every slot has an episode of its own, from the reset to its first end; the environment is
    played until all have ended, and what ended slots go on to do counts for nothing. Indicators, which belong to whole
    environments, are not recorded then.
The return of an episode
    The mean over the N slots of the environment of the rewards summed over its steps. Rewards count in steps
    in which the slot was alive when the step began.
Action noise
    Every episode has a stream of its own, derived from the suite's action seed and the episode's seed, that
    provides exactly N uniforms a step. So nothing depends on how many environments are stepped together, on
    their order, or on how long the others take. (A policy whose arithmetic depends on the batch size in the
    last bit may still break a tie differently; the library's policies do not sample near enough to notice.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import BoolArray, allocate
from townlet_training_core.config.models import EvaluationConfig, SimulationChoice
from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite
from townlet_training_core.errors import CapabilityError, ConfigurationError, NonFiniteError
from townlet_training_core.evaluation.compare import summarise_returns
from townlet_training_core.policy.port import Policy
from townlet_training_core.simulation.port import Simulation
from townlet_training_core.streams import stream_seed

__all__ = ["STEP_LIMIT", "TownStreams", "evaluate_policy", "merge_results", "suite_from_config"]

STEP_LIMIT = 1_000_000
"""Steps after which an episode without ``max_steps`` is taken to be endless."""

_AHEAD = 64  # steps of uniforms drawn at once


def suite_from_config(
    choice: SimulationChoice, evaluation: EvaluationConfig, *, name: str = "default", action_seed: int = 0
) -> EvaluationSuite:
    """Build the suite that a configuration describes."""
    return EvaluationSuite(
        name=name,
        simulation=choice.name,
        options=dict(choice.options),
        seeds=tuple(range(evaluation.first_seed, evaluation.first_seed + evaluation.episodes)),
        max_steps=evaluation.max_steps,
        episode=evaluation.episode,
        greedy=evaluation.greedy,
        action_seed=action_seed,
    )


class TownStreams:
    """A :class:`~townlet_training_core.policy.port.UniformSource` that joins one stream per environment.

    Parameters
    ----------
    action_seed:
        Seed of the suite's action streams.
    seeds:
        B episode seeds; environment ``b`` gets the stream of ``seeds[b]``.
    agents:
        N, uniforms that each environment's stream gives per step.
    """

    def __init__(self, action_seed: int, seeds: Sequence[int], *, agents: int) -> None:
        self._streams = [
            np.random.Generator(np.random.PCG64(stream_seed(action_seed, "evaluation", seed))) for seed in seeds
        ]
        self._agents = agents
        self._ahead: NDArray[np.float64] = np.empty((0, 0))
        self._next = 0

    def random(self, size: int, /) -> NDArray[np.float64]:
        """Return ``(S,)`` uniforms in [0, 1), N from every environment's stream.

        Raises
        ------
        CapabilityError
            When anything but one uniform per slot is asked for, since the streams would part.
        """
        slots = len(self._streams) * self._agents
        if size != slots:
            msg = f"a policy draws exactly one uniform per slot: {slots} were expected, {size} asked for"
            raise CapabilityError(msg)
        if self._next == len(self._ahead):
            drawn = [stream.random((_AHEAD, self._agents)) for stream in self._streams]
            self._ahead = np.stack(drawn, axis=1).reshape(_AHEAD, slots)
            self._next = 0
        self._next += 1
        return np.asarray(self._ahead[self._next - 1])


def evaluate_policy(
    simulation: Simulation,
    policy: Policy,
    *,
    suite: EvaluationSuite,
    label: str | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    between: Callable[[], None] | None = None,
) -> EvaluationResult:
    """Let ``policy`` play one episode for every seed of ``suite``.

    Parameters
    ----------
    simulation:
        Any number of environments; seeds are played in blocks of that number. It is reset, and left wherever
        the last episode ended.
    policy:
        Any policy of the port. A shallow copy of it acts, so the caller's object keeps its binding and its
        recurrent state.
    suite:
        What to play; its ``simulation`` and ``options`` say how ``simulation`` was made.
    label:
        What to call the policy in results; its name by default.
    confidence, resamples:
        Of the bootstrap intervals in the summary.
    between:
        Called before every step; what it raises ends the evaluation.

    Raises
    ------
    SpaceMismatchError
        When the policy does not fit the simulation.
    ConfigurationError
        When an episode does not end and the suite has no ``max_steps``.
    NonFiniteError
        When a reward is not finite.
    """
    actor = copy.copy(policy)
    actor.bind(simulation)
    spec = simulation.spec
    blocks = [
        _play(simulation, actor, suite=suite, seeds=suite.seeds[start : start + spec.num_envs], between=between)
        for start in range(0, len(suite.seeds), spec.num_envs)
    ]
    agent_returns = tuple(tuple(row) for block in blocks for row in block.rewards.tolist())
    returns = tuple(math.fsum(row) / len(row) for row in agent_returns)
    return EvaluationResult(
        label=label or policy.name,
        policy=policy.name,
        policy_hash=actor.content_hash(),
        suite=suite,
        simulation=spec.name,
        rules_hash=spec.rules_hash,
        returns=returns,
        agent_returns=agent_returns,
        lengths=tuple(int(n) for block in blocks for n in block.lengths),
        completed=tuple(bool(done) for block in blocks for done in block.completed),
        kpis={name: tuple(float(v) for block in blocks for v in block.kpis[name]) for name in blocks[0].kpis},
        events={
            kind: tuple(int(n) for block in blocks for n in block.events[:, index])
            for index, kind in enumerate(spec.event_kinds)
        },
        summary=summarise_returns(returns, confidence=confidence, resamples=resamples),
    )


def merge_results(
    parts: Sequence[EvaluationResult],
    *,
    suite: EvaluationSuite,
    label: str,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> EvaluationResult:
    """Join results on consecutive pieces of ``suite.seeds`` into the result on the whole suite."""
    first = parts[0]
    returns = tuple(value for part in parts for value in part.returns)
    return EvaluationResult(
        label=label,
        policy=first.policy,
        policy_hash=first.policy_hash,
        suite=suite,
        simulation=first.simulation,
        rules_hash=first.rules_hash,
        returns=returns,
        agent_returns=tuple(row for part in parts for row in part.agent_returns),
        lengths=tuple(n for part in parts for n in part.lengths),
        completed=tuple(done for part in parts for done in part.completed),
        kpis={name: tuple(v for part in parts for v in part.kpis[name]) for name in first.kpis},
        events={kind: tuple(n for part in parts for n in part.events[kind]) for kind in first.events},
        summary=summarise_returns(returns, confidence=confidence, resamples=resamples),
    )


class _Block:
    """Running totals of E <= B episodes played together."""

    def __init__(self, episodes: int, agents: int, *, kpis: Sequence[str], kinds: int) -> None:
        self.rewards = np.zeros((episodes, agents), np.float64)
        self.lengths = np.zeros(episodes, np.int64)
        self.running = np.ones(episodes, np.bool_)
        self.completed = np.zeros(episodes, np.bool_)
        self.ended = np.zeros((episodes, agents), np.bool_)  # slots whose own episode is over
        self.kpis = {name: np.full(episodes, np.nan) for name in kpis}
        self.events = np.zeros((episodes, kinds), np.int64)

    def count_events(self, events: NDArray[Any], agents: int) -> None:
        """Count the step's events of running episodes."""
        slot = events["slot"].astype(np.int64)
        town = slot // agents
        kept = town < self.running.size
        kept[kept] = self.running[town[kept]] & ~self.ended[town[kept], slot[kept] % agents]
        np.add.at(self.events, (town[kept], events["kind"][kept].astype(np.int64)), 1)


def _play(
    simulation: Simulation,
    policy: Policy,
    *,
    suite: EvaluationSuite,
    seeds: Sequence[int],
    between: Callable[[], None] | None,
) -> _Block:
    """Play one block of at most B seeds; spare environments replay the first seed and are not recorded."""
    spec = simulation.spec
    towns, agents, episodes = spec.num_envs, spec.agents_per_env, len(seeds)
    padded = [*seeds, *[seeds[0]] * (towns - episodes)]
    apart = suite.episode == "slot"
    report = getattr(simulation, "kpis", None) if spec.kpi_names and not apart else None
    block = _Block(episodes, agents, kpis=spec.kpi_names if callable(report) else (), kinds=len(spec.event_kinds))
    streams = TownStreams(suite.action_seed, padded, agents=agents)
    out = allocate(spec.observations, slots=towns * agents, actions=len(spec.action_names))
    view = out.policy_view()
    simulation.reset(seed=padded, out=out)
    policy.reset()
    limit = suite.max_steps or STEP_LIMIT
    for _ in range(limit):
        if between is not None:
            between()
        acted = out.alive.copy()
        step = policy.act(view, streams, greedy=suite.greedy)
        simulation.step(step.actions, out)
        ended = out.terminated | out.truncated
        policy.reset(ended)
        running = block.running
        earned = np.where(acted, out.rewards, 0.0).reshape(towns, agents)[:episodes]
        block.rewards[running] += np.where(block.ended, 0.0, earned)[running]
        block.lengths[running] += 1
        if block.events.size and simulation.events.size:
            block.count_events(simulation.events, agents)
        if apart:
            shape = (towns, agents)
            going = (acted & ~ended).reshape(shape)[:episodes] & ~block.ended
            block.ended |= ended.reshape(shape)[:episodes]
            over = block.ended.any(axis=1) & ~going.any(axis=1) & running
        else:
            over = _town_over(acted, ended, (towns, agents))[:episodes] & running
        if over.any():
            if callable(report):
                for name, values in report().items():
                    if name in block.kpis:
                        block.kpis[name][over] = np.asarray(values, np.float64)[:episodes][over]
            block.completed |= over
            block.running = running & ~over
            if not block.running.any():
                break
    if suite.max_steps is None and block.running.any():
        msg = (
            f"episodes of simulation {spec.name!r} with seeds {_first(seeds, block.running)} did not end within "
            f"{STEP_LIMIT} steps; give the suite max_steps, or, where slots end one by one, episode: slot"
        )
        raise ConfigurationError(msg)
    if not np.isfinite(block.rewards).all():
        bad = np.logical_not(np.isfinite(block.rewards).all(axis=1))
        msg = f"simulation {spec.name!r} gave rewards that are not finite in episodes with seeds {_first(seeds, bad)}"
        raise NonFiniteError(msg)
    return block


def _town_over(acted: BoolArray, ended: BoolArray, shape: tuple[int, int]) -> BoolArray:
    """Say of each environment whether all of its slots that acted ended in this step, and any did."""
    still_going = (acted & ~ended).reshape(shape).any(axis=1)
    return np.asarray(ended.reshape(shape).any(axis=1) & ~still_going)


def _first(seeds: Sequence[int], chosen: NDArray[np.bool_]) -> list[int]:
    return [seed for seed, flag in zip(seeds, chosen, strict=True) if flag][:5]
