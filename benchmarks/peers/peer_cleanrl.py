"""Loops as they are usually written: CleanRL's ``ppo.py`` and ``ppo_pettingzoo``, a ``DataLoader`` for cloning.

CleanRL is no package to import: the loops are written out here, with its operations in its order, on torch as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import problem as p
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from worker import Round, serve, threads

torch.set_num_threads(threads())


def advantages_of(
    rewards: Tensor, values: Tensor, dones: Tensor, next_value: Tensor, next_done: Tensor
) -> tuple[Tensor, Tensor]:
    """Advantages and returns by CleanRL's loop, ``(T, S)``; ``dones[t]`` says that t begins an episode."""
    with torch.no_grad():
        advantages, last = torch.zeros_like(rewards), torch.zeros_like(next_value)
        for step in reversed(range(len(rewards))):
            if step == len(rewards) - 1:
                nonterminal, following = 1.0 - next_done, next_value
            else:
                nonterminal, following = 1.0 - dones[step + 1], values[step + 1]
            delta = rewards[step] + p.GAMMA * following * nonterminal - values[step]
            advantages[step] = last = delta + p.GAMMA * p.GAE_LAMBDA * nonterminal * last
        return advantages, advantages + values


def passes(
    evaluate: Any,
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    inputs: tuple[Tensor, ...],
    columns: Mapping[str, Tensor],
    *,
    batch: int = p.MINI_BATCH,
    value_clip: float = p.VALUE_CLIP,
) -> None:
    """CleanRL's four passes over flat rows; ``evaluate(*inputs)`` returns logits and values."""
    size, clip_fractions = len(columns["actions"]), []
    indices = np.arange(size)
    for _ in range(p.EPOCHS):
        np.random.shuffle(indices)  # noqa: NPY002  # as CleanRL does
        for start in range(0, size, batch):
            chosen = indices[start : start + batch]
            logits, new_values = evaluate(*(array[chosen] for array in inputs))
            distribution: Any = torch.distributions.Categorical(logits=logits)
            log_ratio = distribution.log_prob(columns["actions"][chosen]) - columns["log_probs"][chosen]
            ratio = log_ratio.exp()
            with torch.no_grad():
                ((ratio - 1) - log_ratio).mean()
                clip_fractions += [((ratio - 1.0).abs() > p.CLIP).float().mean().item()]
            advantages = columns["advantages"][chosen]
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            clipped = torch.clamp(ratio, 1 - p.CLIP, 1 + p.CLIP)
            policy = torch.max(-advantages * ratio, -advantages * clipped).mean()
            returns, old = columns["returns"][chosen], columns["values"][chosen]
            unclipped = (new_values - returns) ** 2
            if value_clip > 0.0:
                near = old + torch.clamp(new_values - old, -value_clip, value_clip)
                value = 0.5 * torch.max(unclipped, (near - returns) ** 2).mean()
            else:
                value = 0.5 * unclipped.mean()
            loss = policy - p.ENTROPY_COEF * distribution.entropy().mean() + value * p.VALUE_COEF
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, p.MAX_GRAD_NORM)
            optimizer.step()


def flat(array: Tensor) -> Tensor:
    """``(T, S, ...)`` to ``(T * S, ...)``."""
    return array.reshape(-1, *array.shape[2:])


def update() -> Round:
    """Update alone, advantages included."""
    arrays = {name: torch.from_numpy(array) for name, array in p.rollout().items()}
    network = p.Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=p.LEARNING_RATE, eps=p.ADAM_EPS)
    dones = arrays["terminated"].float()

    def work() -> None:
        values = arrays["values"]
        advantages, returns = advantages_of(arrays["rewards"], values, dones, arrays["next_values"][-1], dones[-1])
        columns = {"advantages": advantages, "returns": returns, "values": values}
        columns |= {name: arrays[name] for name in ("actions", "log_probs")}
        rows = {name: flat(column) for name, column in columns.items()}
        inputs = flat(arrays["map"]), flat(arrays["features"])
        passes(network, list(network.parameters()), optimizer, inputs, rows)

    return Round(work=work)


class Separate(nn.Module):
    """CartPole's actor and critic."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = p.cartpole_actor(), p.cartpole_critic()

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and values."""
        return self.actor(seen), self.critic(seen).view(-1)


def cartpole(seed: int, iterations: int) -> Round:
    """CartPole from scratch."""
    import gymnasium

    np.random.seed(seed)  # noqa: NPY002  # as CleanRL does
    torch.manual_seed(seed)
    envs = gymnasium.vector.SyncVectorEnv([p.cartpole_env] * p.CARTPOLE_ENVS)
    agent = Separate()
    optimizer = torch.optim.Adam(agent.parameters(), lr=p.CARTPOLE_RATE, eps=p.ADAM_EPS)
    shape = (p.CARTPOLE_STEPS, p.CARTPOLE_ENVS)

    def work() -> None:
        obs, actions, log_probs, rewards, dones, values = (
            torch.zeros((*shape, *more)) for more in ((4,), (), (), (), (), ())
        )
        next_obs = torch.Tensor(envs.reset(seed=seed)[0])
        next_done = torch.zeros(p.CARTPOLE_ENVS)
        for rate in p.falling(p.CARTPOLE_RATE, iterations):
            optimizer.param_groups[0]["lr"] = rate
            for step in range(p.CARTPOLE_STEPS):
                obs[step], dones[step] = next_obs, next_done
                with torch.no_grad():
                    logits, value = agent(next_obs)
                    distribution: Any = torch.distributions.Categorical(logits=logits)
                    action = distribution.sample()
                    values[step], log_probs[step] = value, distribution.log_prob(action)
                actions[step] = action
                seen, reward, terminated, truncated, _ = envs.step(action.cpu().numpy())
                rewards[step] = torch.tensor(reward).view(-1)
                next_obs, next_done = torch.Tensor(seen), torch.Tensor(np.logical_or(terminated, truncated))
            with torch.no_grad():
                next_value = agent.critic(next_obs).view(-1)
            advantages, returns = advantages_of(rewards, values, dones, next_value, next_done)
            columns = {"actions": actions.long(), "log_probs": log_probs, "values": values}
            columns |= {"advantages": advantages, "returns": returns}
            rows = {name: flat(column) for name, column in columns.items()}
            passes(agent, list(agent.parameters()), optimizer, (flat(obs),), rows, batch=p.CARTPOLE_BATCH, value_clip=0)

    return Round(work=work, after=lambda: {"return": p.judge(p.greedy_of(agent.actor), seed=seed)})


def cloning() -> Round:
    """One pass of behaviour cloning by a shuffling ``DataLoader``."""
    rows = {name: torch.from_numpy(array) for name, array in p.decisions().items()}
    network = p.Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=p.CLONING_RATE)
    data = TensorDataset(rows["map"], rows["features"], rows["actions"])

    def work() -> None:
        for maps, features, actions in DataLoader(data, batch_size=p.CLONING_BATCH, shuffle=True):
            logits, _ = network(maps, features)
            loss = nn.functional.cross_entropy(logits, actions)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            optimizer.step()

    return Round(work=work)


def advantages() -> Round:
    """CleanRL's loop over 256 trajectories of 2,048 steps."""
    columns = {name: torch.from_numpy(array) for name, array in p.advantage_columns().items()}
    dones = (columns["terminated"] | columns["truncated"]).float()

    def work() -> None:
        advantages_of(columns["rewards"], columns["values"], dones, columns["next_values"][-1], dones[-1])

    return Round(work=work)


def town(towns: int, steps: int, iterations: int, batch: int) -> Round:
    """Drive the town through PettingZoo's dictionaries: B environments, one forward pass a step."""
    from townlet_sim import parallel_env

    envs = [parallel_env() for _ in range(towns)]
    agents = list(envs[0].possible_agents)
    space: Any = envs[0].observation_space(agents[0])
    slots, choice = towns * len(agents), cast(Any, envs[0].action_space(agents[0]))
    shapes = {name: tuple(space[name].shape) for name in ("map", "features")}
    network = _town_network(shapes, actions=int(choice.n))
    optimizer = torch.optim.Adam(network.parameters(), lr=p.LEARNING_RATE, eps=p.ADAM_EPS)

    def stacked(rows: list[dict[Any, Any]], dtype: Mapping[str, Any]) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(np.stack([row[agent][name] for row in rows for agent in agents]).astype(kind))
            for name, kind in dtype.items()
        }

    kinds = {"map": np.float32, "features": np.float32, "action_mask": np.bool_}

    def work() -> None:
        seen = stacked([env.reset(seed=number)[0] for number, env in enumerate(envs)], kinds)
        store = {name: torch.zeros((steps, slots, *array.shape[1:]), dtype=array.dtype) for name, array in seen.items()}
        actions, log_probs, rewards, dones, values = (torch.zeros(steps, slots) for _ in range(5))
        done = torch.zeros(slots)
        for _ in range(iterations):
            for step in range(steps):
                dones[step] = done
                for name, array in seen.items():
                    store[name][step] = array
                with torch.no_grad():
                    logits, value = network(seen["map"], seen["features"])
                    distribution: Any = torch.distributions.Categorical(
                        logits=logits.masked_fill(~seen["action_mask"], -1e8)
                    )
                    action = distribution.sample()
                    values[step], log_probs[step] = value, distribution.log_prob(action)
                actions[step] = action
                chosen, rows = action.numpy().reshape(towns, -1), []
                for number, env in enumerate(envs):
                    told = env.step({agent: int(act) for agent, act in zip(agents, chosen[number], strict=True)})
                    first = number * len(agents)
                    for place, agent in enumerate(agents, first):
                        rewards[step, place] = told[1][agent]
                        done[place] = float(told[2][agent] or told[3][agent])
                    rows.append(told[0] if env.agents else env.reset()[0])
                seen = stacked(rows, kinds)
            with torch.no_grad():
                _, next_value = network(seen["map"], seen["features"])
            found, returns = advantages_of(rewards, values, dones, next_value, done)
            columns = {"actions": actions.long(), "log_probs": log_probs, "values": values}
            columns |= {"advantages": found, "returns": returns}

            def evaluate(maps: Tensor, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
                logits, values = network(maps, features)
                return logits.masked_fill(~mask, -1e8), values

            inputs = tuple(flat(store[name]) for name in ("map", "features", "action_mask"))
            flat_columns = {name: flat(column) for name, column in columns.items()}
            passes(evaluate, list(network.parameters()), optimizer, inputs, flat_columns, batch=batch)

    return Round(work=work)


def _town_network(shapes: Mapping[str, tuple[int, ...]], *, actions: int) -> p.Network:
    network = p.Network(actions)
    network.trunk.map_encoder = nn.Sequential(nn.Flatten(), p.dense(int(np.prod(shapes["map"])), p.HIDDEN), nn.ReLU())
    network.trunk.feature_encoder = nn.Sequential(p.dense(shapes["features"][0], p.HIDDEN), nn.ReLU())
    return network


if __name__ == "__main__":
    serve(
        {"update": update, "cartpole": cartpole, "cloning": cloning, "advantages": advantages, "town": town},
        ("torch", "numpy", "gymnasium"),
    )
