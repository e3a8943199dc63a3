"""Conformance kit for policies: whether an implementation keeps what the port promises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.arrays import BoolArray, allocate
from townlet_training_core.policy.port import ActionStep, Policy, RecurrentPolicy
from townlet_training_core.simulation.port import Simulation

__all__ = ["check_policy"]


class _CountingUniforms:
    """A stream of uniforms that counts what is drawn."""

    def __init__(self, seed: int) -> None:
        self._stream = np.random.default_rng(seed)
        self.drawn = 0

    def random(self, size: int, /) -> NDArray[np.float64]:
        """Draw ``size`` uniforms."""
        self.drawn += size
        return self._stream.random(size)


def check_policy(
    make: Callable[[], Policy], simulation: Simulation, *, steps: int = 20, seed: int = 1234, samples: bool = True
) -> None:
    """Raise ``AssertionError`` where a policy breaks its port.

    Checked while it acts in ``simulation``: shapes and dtypes; actions inside the mask; log-probabilities and values
    that are finite, and present at every step or at none; the same decisions from the same stream; exactly S
    uniforms a step; greedy decisions that do not depend on the stream; ``values()`` that agrees with ``act()`` and
    moves no recurrent state; recurrent state that can be put back; a constant content hash.

    Parameters
    ----------
    make:
        Makes the policy; called several times.
    simulation:
        Where it acts.
    samples:
        Set false for a policy that decides without drawing (a scripted expert).
    """
    spec = simulation.spec
    slots, actions = spec.num_envs * spec.agents_per_env, len(spec.action_names)
    out = allocate(spec.observations, slots=slots, actions=actions)
    policy, twin, greedy = make(), make(), make()
    assert isinstance(policy, Policy), f"{type(policy).__name__} lacks methods of the port"
    for one in (policy, twin, greedy):
        one.bind(simulation)
        one.reset(None)
    name, content = policy.name, policy.content_hash()
    assert name, "a policy has a name"
    assert content == twin.content_hash(), "two policies made alike must have one content hash"
    streams = [_CountingUniforms(seed) for _ in range(2)]
    simulation.reset(seed=seed, out=out)
    first: ActionStep | None = None
    for step in range(steps):
        view, alive = out.policy_view(), out.alive.copy()
        before = _state(policy)
        valued = policy.values(view)
        _equal_states(before, _state(policy), what="values() moved the recurrent state")
        decision = policy.act(view, streams[0])
        _check_decision(decision, out.action_mask, alive, actions)
        first = first or decision
        assert (decision.log_probs is None) == (first.log_probs is None), "log_probs come at every step or at none"
        assert (decision.values is None) == (first.values is None), "values come at every step or at none"
        assert streams[0].drawn == (step + 1) * slots * samples, f"{streams[0].drawn} uniforms drawn for {slots} slots"
        if decision.values is not None:
            assert valued is not None, "act() gives values and values() gives none"
            np.testing.assert_allclose(valued, decision.values, rtol=1e-5, atol=1e-6, err_msg="values() and act()")
        _equal_decisions(decision, twin.act(view, streams[1]), what="the same stream")
        certain = greedy.act(view, np.random.default_rng(step), greedy=True)
        _check_decision(certain, out.action_mask, alive, actions)
        if before:  # put the state back and decide again
            after = _state(greedy)
            _restore(greedy, before)
            _restore(greedy, after)
            _equal_states(after, _state(greedy), what="load_recurrent_state() does not restore")
        else:
            again = greedy.act(view, np.random.default_rng(step + 1), greedy=True)
            np.testing.assert_array_equal(certain.actions, again.actions, err_msg="greedy depends on the stream")
        simulation.step(decision.actions, out)
        ended = out.terminated | out.truncated
        if ended.any():
            for one in (policy, twin, greedy):
                one.reset(ended)
    assert policy.content_hash() == content, "acting changed the content hash"


def _check_decision(decision: ActionStep, mask: BoolArray, alive: BoolArray, actions: int) -> None:
    slots = len(alive)
    chosen = decision.actions
    assert chosen.shape == (slots,), f"actions have shape {chosen.shape}, expected ({slots},)"
    assert chosen.dtype.kind == "i", f"actions have dtype {chosen.dtype}, expected integers"
    assert ((chosen >= 0) & (chosen < actions))[alive].all(), "an action lies outside of the vocabulary"
    assert mask[np.arange(slots), np.clip(chosen, 0, actions - 1)][alive].all(), "a masked action was chosen"
    for what, row in (("log_probs", decision.log_probs), ("values", decision.values)):
        if row is not None:
            assert row.shape == (slots,), f"{what} have shape {row.shape}, expected ({slots},)"
            assert np.isfinite(row[alive]).all(), f"{what} must be finite"
    if decision.log_probs is not None:
        assert (decision.log_probs[alive] <= 1e-5).all(), "a log-probability is above 0"


def _equal_decisions(left: ActionStep, right: ActionStep, *, what: str) -> None:
    np.testing.assert_array_equal(left.actions, right.actions, err_msg=what)
    for name in ("log_probs", "values"):
        mine, theirs = getattr(left, name), getattr(right, name)
        if mine is not None:
            np.testing.assert_array_equal(mine, theirs, err_msg=f"{name}: {what}")


def _state(policy: Policy) -> dict[str, NDArray[np.generic]]:
    return policy.recurrent_state() if isinstance(policy, RecurrentPolicy) else {}


def _restore(policy: Policy, state: dict[str, NDArray[np.generic]]) -> None:
    if isinstance(policy, RecurrentPolicy):
        policy.load_recurrent_state(state)


def _equal_states(left: dict[str, NDArray[np.generic]], right: dict[str, NDArray[np.generic]], *, what: str) -> None:
    assert left.keys() == right.keys(), what
    for name, array in left.items():
        np.testing.assert_array_equal(array, right[name], err_msg=what)
