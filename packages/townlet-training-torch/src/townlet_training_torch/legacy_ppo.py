"""PPO over stored batches, for the old entry points: one network and optimiser that go on from call to call.

The new API trains on rollouts (:mod:`townlet_training_torch.ppo`). Here the data are batches of whole
trajectories, ``(B, T)``, whose log-probabilities and values were stored when they were captured.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from townlet_training_core.dto.policy import InputDescription, PolicyDescription
from townlet_training_core.errors import DataError, NonFiniteError
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_torch.advantages import gae
from townlet_training_torch.legacy import ConflictAwarePolicyConfig, ConflictAwarePolicyNetwork, channels_first
from townlet_training_torch.losses import (
    approximate_kl,
    clipped_value_loss,
    normalize_advantages,
    policy_surrogate,
)
from townlet_training_torch.minibatches import mini_batch_size

__all__ = ["ReplayLearner", "Table"]

_log = logging.getLogger(__name__)
_POOL = 65_536
"""Transitions that are shuffled together; a streaming dataset is read in pools of this size."""


@dataclass(frozen=True, slots=True)
class Table:
    """R transitions: maps (R, C, H, W), features (R, F), all else (R,)."""

    maps: Tensor
    features: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor


class ReplayLearner:
    """A network, its Adam, and the stream that deals mini-batches.

    Parameters
    ----------
    seed:
        Of the initial weights and the order of mini-batches.
    device:
        ``"cpu"``, ``"cuda"``, ...; ``None`` takes CUDA where there is one.
    """

    def __init__(self, *, seed: int = 0, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.rng = np.random.default_rng(seed)
        self.network: ConflictAwarePolicyNetwork | None = None
        self.optimizer: torch.optim.Adam | None = None
        self._space: tuple[int, tuple[int, ...], int] | None = None
        self._told = False
        self.saved = 0

    def prepare(self, batch: Any, *, action_dim: int, learning_rate: float, device: str | None = None) -> None:
        """Go on with the network when it fits ``batch``; otherwise make a fresh one, and warn when one is dropped."""
        if device is not None and torch.device(device) != self.device:
            self.device, self.optimizer = torch.device(device), None
        maps = channels_first(batch.maps.reshape(-1, *batch.maps.shape[2:]))
        feature_dim, map_shape = int(batch.features.shape[-1]), maps.shape[1:]
        space = (feature_dim, tuple(map_shape), action_dim)
        if self._space is not None and space[:2] == self._space[:2] and action_dim <= self._space[2]:
            space = self._space
        if space != self._space or self.network is None:
            if self.network is not None:
                _log.warning(
                    "ppo_network_replaced: weights made for (features, map, actions) %s do not fit data of %s; "
                    "training starts from fresh weights",
                    self._space,
                    space,
                )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(self.rng.integers(2**31)))
                shape = (int(map_shape[0]), int(map_shape[1]), int(map_shape[2]))
                self.network = ConflictAwarePolicyNetwork(ConflictAwarePolicyConfig(feature_dim, shape, space[2]))
            self.network.to(self.device)
            self._space, self.optimizer = space, None
        if self.optimizer is None:
            self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def adopt(self, network: Any, *, feature_dim: int, map_shape: tuple[int, ...], action_dim: int) -> None:
        """Go on from the weights of ``network``, e.g. a cloned one; moments of the optimiser start anew."""
        self.network = copy.deepcopy(network).to(self.device)
        self._space, self.optimizer = (feature_dim, tuple(map_shape), action_dim), None

    def cloning_table(self, dataset: Any) -> Table | None:
        """Return a cloning dataset as a table, when the network fits it."""
        fits = self._space is not None and (dataset.feature_dim, tuple(dataset.map_shape)) == self._space[:2]
        if not fits or self._space is None or dataset.action_dim > self._space[2]:
            return None
        zeros = torch.zeros(len(dataset), device=self.device)
        maps, features, actions = (part.to(self.device) for part in (dataset.maps, dataset.features, dataset.actions))
        return Table(maps, features, actions, zeros, zeros, zeros, zeros, zeros)

    def save(self, directory: Path, metadata: Mapping[str, Any]) -> Path:
        """Write the policy into ``directory`` for :class:`~townlet_training_core.policy.exported.ExportedPolicy`.

        ``metadata`` of the data names features, channels, actions and the simulation; what it does not name is
        numbered. Returns the folder.
        """
        assert self.network is not None
        assert self._space is not None
        features, shape, count = self._space
        names = [str(name) for name in metadata.get("action_names") or ()]
        names += [f"action_{number}" for number in range(len(names), count)]
        # The town hands out maps as uint8; a capture holds them as float32.
        dtype = "uint8" if metadata.get("simulation") else "float32"
        description = PolicyDescription(
            kind="conflict_aware",
            hidden_dim=self.network.cfg.hidden_dim,
            inputs={
                "map": InputDescription(shape=shape, dtype=dtype),
                "features": InputDescription(shape=(features,), dtype="float32"),
            },
            action_names=tuple(names[:count]),
            feature_names=tuple(metadata.get("feature_names") or ()),
            map_channels=tuple(metadata.get("map_channels") or ()),
            simulation=str(metadata.get("simulation") or ""),
            versions=dict(metadata.get("versions") or {}),
            rules_hash=str(metadata.get("rules_hash") or ""),
        )
        tensors = {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.network.state_dict().items()}
        self.saved += 1
        folder = directory / f"{self.saved:08d}"
        ExportedPolicy(tensors, description).save(folder)
        return folder

    def snapshot(self) -> Any:
        """Return weights, moments and space, for :meth:`restore`."""
        return copy.deepcopy((self.network, self.optimizer and self.optimizer.state_dict(), self._space))

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot."""
        self.network, moments, self._space = copy.deepcopy(snapshot)
        self.optimizer = None
        if self.network is not None and moments is not None:
            self.optimizer = torch.optim.Adam(self.network.parameters())
            self.optimizer.load_state_dict(moments)

    def tables(self, batches: Iterable[Any], settings: Any, *, label: str, behaviour: Any) -> Iterator[Table]:
        """Turn batches into pools of transitions with advantages.

        Log-probabilities and values that are all zero were never recorded: they are computed by ``behaviour``,
        the network as it was when training began.

        Raises
        ------
        NonFiniteError
            When advantages or observations hold NaN or infinity; names dataset and batch.
        DataError
            When batches differ in the shape of their observations.
        """
        pool: list[Table] = []
        for number, batch in enumerate(batches, start=1):
            table = self._table(batch, settings, where=f"dataset={label}, batch={number}", behaviour=behaviour)
            if pool and (table.features.shape[1:], table.maps.shape[1:]) != (
                pool[0].features.shape[1:],
                pool[0].maps.shape[1:],
            ):
                msg = f"dataset={label}, batch={number}: observations differ in shape from those of earlier batches"
                raise DataError(msg)
            pool.append(table)
            if sum(len(part.actions) for part in pool) >= _POOL:
                yield _join(pool)
                pool = []
        if pool:
            yield _join(pool)

    def _table(self, batch: Any, settings: Any, *, where: str, behaviour: Any) -> Table:
        rows, steps = batch.actions.shape
        maps = self._flat(channels_first(batch.maps.reshape(-1, *batch.maps.shape[2:])), 1, torch.float32)
        features = self._flat(batch.features, 2, torch.float32)
        actions = self._flat(batch.actions, 2, torch.int64)
        if self._space is not None and int(actions.max()) >= self._space[2]:
            msg = f"action {int(actions.max())} lies outside the {self._space[2]} actions of the metadata ({where})"
            raise DataError(msg)
        if not (bool(torch.isfinite(maps).all()) and bool(torch.isfinite(features).all())):
            msg = f"PPO observations contained NaN/inf ({where})"
            raise NonFiniteError(msg)
        stored = np.asarray(batch.value_preds, np.float32)
        log_probs = np.asarray(batch.old_log_probs, np.float32)
        if not stored.any() and not log_probs.any():
            if not self._told:
                _log.warning("ppo_recompute_log_probs: %s has neither; both are taken from the starting policy", where)
                self._told = True
            with torch.inference_mode():
                logits, predicted = behaviour(maps, features)
                log_probs = _of_actions(torch.log_softmax(logits, dim=-1), actions).cpu().numpy().reshape(rows, steps)
                stored = predicted.cpu().numpy().reshape(rows, steps)
        if stored.shape[1] == steps:  # nobody kept the value after the last step
            stored = np.concatenate([stored, stored[:, -1:]], axis=1)
        dones = np.asarray(batch.dones, np.bool_)
        advantages, returns = gae(
            np.asarray(batch.rewards, np.float32).T,
            stored[:, :-1].T,
            stored[:, 1:].T,
            terminated=dones.T,
            truncated=np.zeros_like(dones.T),
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
        )
        if not (np.isfinite(advantages).all() and np.isfinite(log_probs).all()):
            msg = (
                f"PPO advantages contained NaN/inf ({where}); check rewards, value_preds and old_log_probs of the data"
            )
            raise NonFiniteError(msg)
        return Table(
            maps,
            features,
            actions,
            *(
                self._flat(column, 2, torch.float32)
                for column in (log_probs, stored[:, :-1], batch.rewards, advantages.T, returns.T)
            ),
        )

    def _flat(self, array: NDArray[Any], axes: int, dtype: torch.dtype) -> Tensor:
        flat = np.ascontiguousarray(array).reshape(-1, *array.shape[axes:])
        return torch.from_numpy(flat).to(self.device, dtype)

    def epoch(
        self, pools: Iterable[Table], settings: Any, *, cloning: Table | None = None, bc_weight: float = 0.0
    ) -> dict[str, float]:
        """Pass once over the pools; return the numbers of the pass under the names of the epoch summary.

        ``bc_weight`` weighs the cloning loss of ``cloning`` beside PPO's; ``loss_total`` is PPO's alone, so that
        stages can be compared.
        """
        assert self.network is not None  # prepare() made them
        assert self.optimizer is not None
        rows: list[list[Tensor]] = []
        advantages: list[Tensor] = []
        rewards: list[Tensor] = []
        for pool in pools:
            count = len(pool.actions)
            size = mini_batch_size(count, largest=settings.mini_batch_size, at_least=settings.num_mini_batches)
            advantages.append(pool.advantages)
            rewards.append(pool.rewards)
            order = torch.from_numpy(self.rng.permutation(count)).to(self.device)
            for picked in torch.split(order, size):
                extra = None
                if cloning is not None and bc_weight > 0.0:
                    drawn = torch.from_numpy(self.rng.integers(len(cloning.actions), size=len(picked)))
                    extra = bc_weight * self._cloning_loss(cloning, drawn.to(self.device))
                rows.append(self._step(pool, picked, settings, extra))
        return self._summary(rows, torch.cat(advantages), torch.cat(rewards)) if rows else {}

    def _cloning_loss(self, table: Table, picked: Tensor) -> Tensor:
        assert self.network is not None
        logits, _ = self.network(table.maps[picked], table.features[picked])
        return functional.cross_entropy(logits, table.actions[picked])

    def _step(self, pool: Table, picked: Tensor, settings: Any, extra: Tensor | None) -> list[Tensor]:
        assert self.network is not None
        assert self.optimizer is not None
        logits, values = self.network(pool.maps[picked], pool.features[picked])
        log_probs = torch.log_softmax(logits, dim=-1)
        new = _of_actions(log_probs, pool.actions[picked])
        old, raw = pool.log_probs[picked], pool.advantages[picked]
        scaled = normalize_advantages(raw) if settings.advantage_normalization and len(picked) > 1 else raw
        policy, outside = policy_surrogate(new, old, scaled, settings.clip_param)
        value = clipped_value_loss(values, pool.returns[picked], pool.values[picked], settings.value_clip)
        spread = -(log_probs.exp() * log_probs).sum(dim=-1).mean()
        loss = policy + settings.value_loss_coef * value - settings.entropy_coef * spread
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss if extra is None else loss + extra)
        limit = settings.max_grad_norm if settings.max_grad_norm > 0.0 else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        self.optimizer.step()
        kl = approximate_kl(new, old)
        return [part.detach() for part in (policy, value, spread, loss, outside, norm, kl, raw.std(unbiased=False))]

    def _summary(self, rows: list[list[Tensor]], advantages: Tensor, rewards: Tensor) -> dict[str, float]:
        table = torch.stack([torch.stack(row) for row in rows]).double().cpu().numpy()
        if not np.isfinite(table).all():
            msg = "PPO losses contained NaN/inf; lower the learning rate or check the data"
            raise NonFiniteError(msg)
        policy, value, spread, loss, outside, norm, kl, deviation = table.T
        adv, rew = advantages.double().cpu().numpy(), rewards.double().cpu().numpy()
        varied = adv.std() > 1e-12 and rew.std() > 1e-12
        correlation = float(np.clip(np.corrcoef(rew, adv)[0, 1], -1.0, 1.0)) if varied else 0.0
        numbers: Mapping[str, Any] = {
            "updates": len(rows),
            "transitions": len(adv),
            "loss_policy": policy.mean(),
            "loss_value": value.mean(),
            "loss_entropy": spread.mean(),
            "loss_total": loss.mean(),
            "clip_fraction": outside.mean(),
            "clip_fraction_max": outside.max(),
            "clip_triggered_minibatches": (outside > 0).sum(),
            "adv_mean": adv.mean(),
            "adv_std": adv.std(),
            "adv_zero_std_batches": (deviation < 1e-8).sum(),
            "adv_min_std": deviation.min(),
            "grad_norm": norm.mean(),
            "grad_norm_max": norm.max(),
            "kl_divergence": kl.mean(),
            "kl_divergence_max": kl.max(),
            "batch_entropy_mean": spread.mean(),
            "batch_entropy_std": spread.std(),
            "reward_advantage_corr": correlation,
        }
        return {name: float(number) for name, number in numbers.items()}


def _join(parts: list[Table]) -> Table:
    return Table(*(torch.cat([getattr(part, name) for part in parts]) for name in Table.__dataclass_fields__))


def _of_actions(log_probs: Tensor, actions: Tensor) -> Tensor:
    return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
