"""Agent-steps per second of another environment: ``python town_peers.py NAME``, in that peer's own environment.

Prints one JSON object. Each peer runs in the way its authors recommend for throughput, with eight agents where it
lets one choose, random actions drawn beforehand, observations included; the median of five.
"""

from __future__ import annotations

import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

SECONDS = 1.0


def rate(play: Callable[[], int]) -> float:
    """Median of five of agent-steps per second; ``play`` returns how many it made."""
    play()
    found = []
    for _ in range(5):
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < SECONDS:
            count += play()
        found.append(count / (time.perf_counter() - begin))
    return statistics.median(found)


def parallel(env: Any) -> Callable[[], int]:
    """Play a PettingZoo parallel environment."""
    env.reset(seed=0)
    drawn = {agent: [env.action_space(agent).sample() for _ in range(64)] for agent in env.possible_agents}

    def play() -> int:
        count = 0
        for number in range(64):
            if not env.agents:
                env.reset()
            count += len(env.agents)
            env.step({agent: drawn[agent][number] for agent in env.agents})
        return count

    return play


def mpe2() -> Callable[[], int]:
    """``simple_spread`` with eight agents."""
    from mpe2 import simple_spread_v3

    return parallel(simple_spread_v3.parallel_env(N=8, max_cycles=1000))


def magent2() -> Callable[[], int]:
    """``battle`` on its default map: 162 agents stepped together in C++."""
    from magent2.environments import battle_v4

    return parallel(battle_v4.parallel_env(map_size=45, max_cycles=1000))


def vmas() -> Callable[[], int]:
    """``simple_spread`` with eight agents, 1,024 environments in torch."""
    import torch
    from vmas import make_env

    torch.set_num_threads(2)
    env = make_env("simple_spread", num_envs=1024, device="cpu", continuous_actions=False, n_agents=8, seed=0)
    env.reset()
    drawn = [[torch.randint(0, 5, (1024, 1)) for _ in range(8)] for _ in range(8)]

    def play() -> int:
        for actions in drawn:
            env.step(actions)
        return len(drawn) * 1024 * 8

    return play


def jaxmarl() -> Callable[[], int]:
    """``simple_spread`` with eight agents, 1,024 environments under ``vmap``, 100 steps under ``scan``, compiled."""
    import jax
    import jax.numpy as jnp
    import jaxmarl as library

    env: Any = library.make("MPE_simple_spread_v3", num_agents=8, num_landmarks=8)
    towns, steps = 1024, 100
    keys = jax.random.split(jax.random.PRNGKey(0), towns)
    _, state = jax.vmap(env.reset)(keys)
    actions = {agent: jax.random.randint(keys[0], (steps, towns), 0, 5) for agent in env.agents}

    def step(carry: Any, chosen: Any) -> Any:
        observations, state, rewards, _, _ = jax.vmap(env.step)(keys, carry, chosen)
        seen = sum(jnp.sum(array) for array in observations.values())
        return state, (rewards[env.agents[0]], seen)

    run = jax.jit(lambda state: jax.lax.scan(step, state, actions))

    def play() -> int:
        jax.block_until_ready(run(state))
        return steps * towns * 8

    return play


PEERS: dict[str, Callable[[], Callable[[], int]]] = {
    "mpe2": mpe2,
    "magent2": magent2,
    "vmas": vmas,
    "jaxmarl": jaxmarl,
}

if __name__ == "__main__":
    name = sys.argv[1]
    measured = rate(PEERS[name]())
    print(json.dumps({"name": name, "value": measured, "version": importlib.metadata.version(name)}))
