"""Where PPO's rows come from: fresh rollouts, stored data, or both; and what is told about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from townlet_training_core.arrays import RolloutArrays
from townlet_training_core.config.requests import PPORequest
from townlet_training_core.errors import ConfigurationError, DataError
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.simulation.port import Simulation
from townlet_training_core.strategy import PreparationContext
from townlet_training_core.streams import stream_seed
from townlet_training_torch.experience import DataSpaces, estimate_advantages, memory_at_starts, recomputed, stored
from townlet_training_torch.losses import explained_variance
from townlet_training_torch.minibatches import (
    MiniBatch,
    Rows,
    join,
    mini_batch_size,
    require_finite,
    rows_of,
    with_sequences,
)
from townlet_training_torch.networks import Spaces
from townlet_training_torch.normalisers import ReturnScaler
from townlet_training_torch.objectives import UpdatePlan
from townlet_training_torch.session import Session, saved_or_nothing
from townlet_training_torch.summaries import advantage_summary, baseline_summary, conflict_summary, event_summary

__all__ = ["Harvest", "PPOSource", "UpdatePlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """What one update trains on, and what is known about it.

    Attributes
    ----------
    rows:
        Columns ``actions, log_probs, values, advantages, returns``; ``labels`` where the expert labelled, ``own``
        (1 where the policy decided, 0 where the expert did) where decisions were blended.
    size:
        Transitions of a mini-batch.
    summary:
        Keys of the predecessor's flat summary.
    health:
        Everything newer.
    """

    rows: Rows
    size: int
    summary: dict[str, Any]
    health: dict[str, float]


class PPOSource:
    """Rollouts of the policy in training, stored data, or both (``request.mode``).

    Parameters
    ----------
    context:
        The run, or what there is before it.
    request:
        ``mode``, ``manifest``, ``recompute_log_probs``, ``bc_weight``, ``blend``.

    Raises
    ------
    ConfigurationError
        When replay is asked for without data.
    DataError
        When the stored data has no log-probabilities and recomputing them was not asked for.
    CapabilityError
        When the expert is needed and there is none.
    """

    def __init__(self, context: PreparationContext, request: PPORequest, *, num_envs: int | None = None) -> None:
        self._config, self._request = context.config, request
        self._simulation: Simulation | None = None
        self._collector: RolloutCollector | None = None
        self._stored: RolloutArrays | None = None
        self._expert: Rows | None = None
        self._fresh: RolloutArrays | None = None
        self.label = "rollout"
        manifest = request.manifest or (context.config.training.replay_manifest if request.mode != "rollout" else None)
        self._dataset = context.services.replay.transitions(manifest) if manifest is not None else None
        if request.mode != "rollout":
            if self._dataset is None:
                msg = f"mode {request.mode!r} needs replay data: give --manifest, or set training.replay_manifest"
                raise ConfigurationError(msg)
            self.label = self._dataset.label
            if "log_probs" not in self._dataset.columns and not request.recompute_log_probs:
                msg = (
                    f"dataset {self.label!r} has no log-probabilities, so PPO cannot weigh its actions; capture with a "
                    "policy that has them, or set recompute_log_probs to compute them under the starting policy"
                )
                raise DataError(msg)
        if request.mode != "replay":
            self._simulation = context.services.make_simulation(num_envs=num_envs)
        self.spaces: Spaces = (
            self._simulation.spec if self._simulation is not None else DataSpaces.of_data(self._require_dataset())
        )
        if self._dataset is not None and self._simulation is not None:
            self._dataset.spec.check_fits(self._simulation.spec, label=self._dataset.label)
        self._check_expert()

    def _require_dataset(self) -> Any:
        return self._dataset

    def _check_expert(self) -> None:
        request, simulation = self._request, self._simulation
        has_expert = callable(getattr(simulation, "expert_actions", None))
        if request.blend > 0.0 and not has_expert:
            msg = "blend needs rollouts in a simulation with a scripted expert; set blend: 0"
            raise ConfigurationError(msg)
        if request.bc_weight > 0.0 and self._dataset is None and not has_expert:
            msg = (
                "bc_weight needs the expert's actions: give --manifest with captures of an expert, choose a simulation "
                "with a scripted expert, or set bc_weight: 0"
            )
            raise ConfigurationError(msg)

    @classmethod
    @contextmanager
    def open(
        cls, context: PreparationContext, request: PPORequest, *, num_envs: int | None = None
    ) -> Iterator[PPOSource]:
        """Make a source, and close its simulation in the end."""
        source = cls(context, request, num_envs=num_envs)
        try:
            yield source
        finally:
            if source._simulation is not None:
                source._simulation.close()

    def start(self, session: Session) -> None:
        """Bind the session's policy, and go on where its checkpoint ended."""
        request, config, context = self._request, self._config.ppo, session.context
        self._session = session
        saved = session.resumed.rollout if session.resumed is not None else None
        if self._simulation is not None:
            stage = (context.stage,) if context.stage else ()
            self._collector = RolloutCollector(
                self._simulation,
                session.policy,
                steps=config.rollout_steps,
                seed=stream_seed(self._config.seed, *stage, "rollout"),
                expert_share=request.blend,
                label_expert=request.bc_weight > 0.0 and self._dataset is None,
            )
        if self._dataset is not None:
            arrays, _ = stored(self._dataset)
            network = session.policy.network
            device = session.device
            if request.mode == "rollout":  # the data is the expert's: it feeds the BC loss alone
                require_finite(arrays.observations, arrays.valid, what="BC", dataset=self._dataset.label, batch=0)
                self._expert = self._sequences(
                    rows_of(arrays, {}, inputs=tuple(network.description.inputs), device=device), arrays
                )
            elif arrays.log_probs is None or request.recompute_log_probs:
                if saved is None:
                    arrays = recomputed(network, arrays, between=session.check_stop)
                else:
                    arrays = replace(
                        arrays,
                        log_probs=saved["stored/log_probs"],
                        values=saved["stored/values"],
                        next_values=saved["stored/next_values"],
                    )
                self._stored = arrays
            else:
                self._stored = arrays
        slots = self._collector.buffer.slots if self._collector is not None else self._slots_stored()
        self._scaler = ReturnScaler(slots, gamma=config.gamma) if config.normalize_returns else None
        if saved is not None:
            if self._scaler is not None:
                self._scaler.load_state(saved)
            collector = {n.removeprefix("collector/"): a for n, a in saved.items() if n.startswith("collector/")}
            if self._collector is not None and collector:
                self._collector.load_state(collector)

    def _slots_stored(self) -> int:
        return 1 if self._stored is None else self._stored.slots

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that later rows depend on, weights apart."""
        arrays: dict[str, NDArray[Any]] = {}
        if self._collector is not None:
            saved = saved_or_nothing(self._collector.save_state, what="the simulation")
            arrays |= {f"collector/{name}": array for name, array in saved.items()}
        if self._scaler is not None:
            arrays |= self._scaler.state()
        if self._stored is not None and self._request.recompute_log_probs:
            for name in ("log_probs", "values", "next_values"):
                arrays[f"stored/{name}"] = getattr(self._stored, name)
        return arrays

    def collect(self, iteration: int, *, expert_share: float) -> Harvest:
        """Gather what the update of ``iteration`` trains on."""
        parts: list[tuple[RolloutArrays, Rows]] = []
        summary: dict[str, Any] = {"data_mode": self._request.mode, "rollout_ticks": 0.0, **event_summary({})}
        health: dict[str, float] = {}
        if self._collector is not None:
            self._collector.expert_share = expert_share
            self._fresh = self._collector.collect(between=self._session.check_stop)
            if self._scaler is not None and not self._scaler.started:
                self._update_scaler(self._fresh)
            parts.append((self._fresh, self._rows(self._fresh, batch=iteration, dataset="rollout")))
            spec, buffer = self._collector.simulation.spec, self._collector.buffer
            summary |= event_summary(buffer.events.totals(tuple(spec.event_kinds)))
            summary |= {"rollout_ticks": float(buffer.steps), "cycle_id": float(iteration)}
            health |= _episodes(self._collector)
        if self._stored is not None:
            parts.append((self._stored, self._rows(self._stored, batch=iteration, dataset=self.label)))
            summary |= baseline_summary(self._stored)
            summary.setdefault("cycle_id", 0.0)
        rows = parts[0][1] if len(parts) == 1 else join(parts[0][1], parts[1][1])
        flat = _flat_valid(parts)
        summary |= advantage_summary(flat["advantages"], flat["rewards"])
        summary |= conflict_summary(parts[0][0], tuple(self.spaces.feature_names))
        values, targets = torch.from_numpy(flat["values"]), torch.from_numpy(flat["returns"])
        health["explained_variance"] = float(explained_variance(values, targets))
        health |= {"value_mean": float(values.mean()), "return_target_mean": float(targets.mean())}
        transitions = rows.transitions
        summary["transitions"] = float(transitions)
        config = self._config.ppo
        size = mini_batch_size(transitions, largest=config.mini_batch_size, at_least=config.num_mini_batches)
        return Harvest(rows=rows, size=size, summary=summary, health=health)

    def expert_batch(self, size: int, rng: np.random.Generator) -> MiniBatch | None:
        """Draw a mini-batch of stored expert decisions; ``None`` where labels stand in the rollouts instead."""
        if self._expert is None:
            return None
        length = 1 if self._expert.weights is None else len(self._expert.weights)
        return self._expert.gather(rng.integers(0, self._expert.units, max(1, size // length)))

    def settle(self) -> None:
        """Move running statistics on, between an update and the next capture."""
        if self._fresh is None:
            return
        if self._scaler is not None and self._session.step > 0:
            self._update_scaler(self._fresh)
        network = self._session.policy.network
        for name in network.description.normalised:
            network.normaliser.update(name, self._fresh.observations[name][self._fresh.valid])

    def _update_scaler(self, arrays: RolloutArrays) -> None:
        if self._scaler is not None:
            self._scaler.update(arrays.rewards, valid=arrays.valid, ended=arrays.terminated | arrays.truncated)

    def _rows(self, arrays: RolloutArrays, *, batch: int, dataset: str) -> Rows:
        config, request = self._config.ppo, self._request
        scale = self._scaler.scale if self._scaler is not None else 1.0
        found = estimate_advantages(
            arrays, gamma=config.gamma, gae_lambda=config.gae_lambda, reward_scale=scale, dataset=dataset, batch=batch
        )
        columns: dict[str, NDArray[Any]] = {
            "advantages": found.advantages,
            "returns": found.returns,
            "log_probs": _present(arrays.log_probs),
            "values": _present(arrays.values),
            "rewards": arrays.rewards,
        }
        if request.blend > 0.0:
            expert = np.zeros_like(arrays.valid) if arrays.from_expert is None else arrays.from_expert
            columns["own"] = (~expert).astype(np.float32)
        if request.bc_weight > 0.0 and self._expert is None:
            labels = arrays.actions if arrays.expert_actions is None else arrays.expert_actions
            columns["labels"] = labels
        inputs = tuple(self._session.policy.network.description.inputs)
        return self._sequences(rows_of(arrays, columns, inputs=inputs, device=self._session.device), arrays)

    def _sequences(self, rows: Rows, arrays: RolloutArrays) -> Rows:
        network = self._session.policy.network
        if network.description.recurrent == "none":
            return rows
        # Rollouts and stored data that are dealt together need sequences of one length; padding has no weight.
        mixed = self._request.mode == "mixed"
        length = self._config.ppo.sequence_length if mixed else min(self._config.ppo.sequence_length, arrays.steps)
        memory = memory_at_starts(network, arrays, length=length, between=self._session.check_stop)
        return with_sequences(rows, arrays, length=length, memory=memory)


def _present(column: NDArray[Any] | None) -> NDArray[Any]:
    assert column is not None  # estimate_advantages has refused data without it
    return column


def _flat_valid(parts: list[tuple[RolloutArrays, Rows]]) -> dict[str, NDArray[Any]]:
    names = ("advantages", "rewards", "values", "returns")
    return {
        name: np.concatenate([rows.columns[name].cpu().numpy()[arrays.valid.reshape(-1)] for arrays, rows in parts])
        for name in names
    }


def _episodes(collector: RolloutCollector) -> dict[str, float]:
    episodes = collector.episodes
    if not len(episodes):
        return {"episodes": 0.0}
    returns: Mapping[str, float] = {
        "episode_return": float(episodes.returns.mean()),
        "episode_return_min": float(episodes.returns.min()),
        "episode_return_max": float(episodes.returns.max()),
        "episode_length": float(episodes.lengths.mean()),
    }
    return {"episodes": float(len(episodes)), **returns}
