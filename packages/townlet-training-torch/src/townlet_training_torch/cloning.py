"""Behaviour cloning's data and passes: what BC trains on, how an epoch runs, how a classifier is judged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_training_core.arrays import BoolArray, RolloutArrays
from townlet_training_core.errors import CapabilityError
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_core.policy.scripted import ScriptedPolicy
from townlet_training_core.simulation.port import Simulation
from townlet_training_core.strategy import PreparationContext, TrainingContext
from townlet_training_core.streams import stream_seed
from townlet_training_torch.checkpoint import Snapshot
from townlet_training_torch.experience import (
    DataSpaces,
    capture,
    capture_groups,
    hold_out,
    join_in_time,
    memory_at_starts,
    stored,
    value_targets,
)
from townlet_training_torch.learner import Learner
from townlet_training_torch.minibatches import Rows, deal, require_finite, rows_of, with_sequences
from townlet_training_torch.networks import PolicyValueNetwork, Spaces
from townlet_training_torch.normalisers import ReturnScaler
from townlet_training_torch.objectives import cloning_step
from townlet_training_torch.session import Session
from townlet_training_torch.summaries import classification_report

__all__ = ["CloningData", "CloningProgress", "classify", "cloning_spaces", "train_epoch"]

_CHUNK = 2048
"""Transitions of a forward pass that trains nothing."""

_log = logging.getLogger(__name__)


def cloning_spaces(context: PreparationContext, manifest: Path | None) -> Spaces:
    """Return the spaces of the data that would be cloned, after checking that it is there.

    Raises
    ------
    CapabilityError
        When the simulation has no expert and no manifest is given.
    DataError
        When the manifest cannot be used.
    """
    if manifest is not None:
        return DataSpaces.of_data(context.services.replay.transitions(manifest))
    simulation = context.services.make_simulation(num_envs=1)
    try:
        _require_expert(simulation)
        return simulation.spec
    finally:
        simulation.close()


def _require_expert(simulation: Simulation) -> None:
    if not callable(getattr(simulation, "expert_actions", None)):
        msg = (
            f"simulation {simulation.spec.name!r} has no scripted expert to clone; give a manifest of captures "
            "(--manifest), or choose a simulation with an expert"
        )
        raise CapabilityError(msg)


class CloningData:
    """Expert decisions, split by trajectory into training rows and held-out rows.

    Parameters
    ----------
    context:
        The run; captures are drawn from its streams, so a resumed run sees the same data.
    manifest:
        Stored captures; ``None`` captures the simulation's expert.

    Attributes
    ----------
    between:
        Called before every step of a capture and every pass over the data; raises when the run is to stop. A session
        puts its own here, which saves first.
    """

    def __init__(self, context: TrainingContext, manifest: Path | None) -> None:
        settings = context.config.training.bc
        self.between = context.check_stop
        self._context, self.label = context, str(manifest) if manifest is not None else "expert"
        self._simulation: Simulation | None = None
        self._split: tuple[int, Rows, Rows] | None = None
        if manifest is not None:
            dataset = context.services.replay.transitions(manifest)
            self.spaces: Spaces = DataSpaces.of_data(dataset)
            self.arrays, groups = stored(dataset)
        else:
            simulation = self.simulation
            _require_expert(simulation)
            self.spaces = simulation.spec
            self.arrays = capture(
                simulation,
                ScriptedPolicy(),
                steps=settings.capture_steps,
                seed=self._seed("expert-capture"),
                between=self.between,
            )
            groups = capture_groups(self.arrays, agents_per_env=simulation.spec.agents_per_env)
        checked = {"rewards": self.arrays.rewards, **self.arrays.observations}
        require_finite(checked, self.arrays.valid, what="BC", dataset=self.label, batch=0)
        self.training, self.held_out = hold_out(
            self.arrays, groups, fraction=settings.holdout_fraction, rng=context.stream("holdout"), label=self.label
        )
        if len(np.unique(self.arrays.actions[self.arrays.valid])) < 2:
            _log.warning("dataset %r holds a single action: its accuracy says nothing about the policy", self.label)

    @property
    def simulation(self) -> Simulation:
        """The simulation of captures; made when first asked for."""
        if self._simulation is None:
            self._simulation = self._context.services.make_simulation()
        return self._simulation

    @classmethod
    @contextmanager
    def open(cls, context: TrainingContext, manifest: Path | None) -> Iterator[CloningData]:
        """Capture or load, and close the simulation in the end."""
        data = cls(context, manifest)
        try:
            yield data
        finally:
            if data._simulation is not None:
                data._simulation.close()

    def _seed(self, *names: str | int) -> int:
        stage = (self._context.stage,) if self._context.stage else ()
        return stream_seed(self._context.config.seed, *stage, *names)

    def add_student_round(self, number: int, student: ExportedPolicy) -> None:
        """Add a DAgger round (Ross et al. 2011): states that the student visits, labelled by the expert."""
        settings = self._context.config.training.bc
        _require_expert(self.simulation)
        visited = capture(
            self.simulation,
            student,
            steps=settings.dagger_steps,
            seed=self._seed("dagger", number),
            label_expert=True,
            between=self.between,
        )
        if visited.slots != self.arrays.slots:  # stored data has other slots: it is kept beside, as rows of its own
            msg = "DAgger rounds need data captured from the simulation; leave the manifest out or set dagger_rounds: 0"
            raise CapabilityError(msg)
        nothing = np.zeros_like(visited.valid)
        self.arrays = join_in_time(self.arrays, visited)
        self.training = np.concatenate([self.training, visited.valid])
        self.held_out = np.concatenate([self.held_out, nothing])

    def prime(self, network: PolicyValueNetwork, *, fresh: bool) -> None:
        """Let a network standardise its inputs by the moments of the training rows, unless it has moments already.

        A ``fresh`` network's value starts at the mean return: the way there would drown the policy's gradient.
        """
        for name in network.description.normalised:
            if float(network.normaliser.get_buffer(f"{name}_count")) == 0.0:
                network.normaliser.update(name, self.arrays.observations[name][self.training])
        if fresh:
            targets = self.rows(network, self.training)
            mean = targets.columns["returns"][torch.from_numpy(targets.indices.reshape(-1))].mean()
            with torch.no_grad():
                network.value_head.bias.fill_(float(mean))

    def split(self, network: PolicyValueNetwork) -> tuple[Rows, Rows]:
        """Return training rows and held-out rows; kept from epoch to epoch unless the network remembers."""
        key = self.arrays.steps
        if self._split is None or self._split[0] != key or network.description.recurrent != "none":
            self._split = (key, self.rows(network, self.training), self.rows(network, self.held_out))
        return self._split[1], self._split[2]

    def rows(self, network: PolicyValueNetwork, chosen: BoolArray) -> Rows:
        """Lay the chosen rows out for ``network``; sequences when it has a memory."""
        config = self._context.config.ppo
        targets = value_targets(self.arrays, gamma=config.gamma)
        if config.normalize_returns:
            scaler = ReturnScaler(self.arrays.slots, gamma=config.gamma)
            ended = self.arrays.terminated | self.arrays.truncated
            scaler.update(self.arrays.rewards, valid=self.arrays.valid, ended=ended)
            targets = targets / np.float32(scaler.scale)
        arrays = _masked(self.arrays, chosen)
        device = network.policy_head.weight.device
        rows = rows_of(arrays, {"returns": targets}, inputs=tuple(network.description.inputs), device=device)
        if network.description.recurrent == "none":
            return rows
        memory = memory_at_starts(network, self.arrays, length=config.sequence_length, between=self.between)
        return with_sequences(rows, arrays, length=config.sequence_length, memory=memory)

    def class_weights(self, device: torch.device) -> Tensor | None:
        """Weight of each action, ``count ** -class_balance`` with mean 1 over the training rows; or ``None``."""
        exponent = self._context.config.training.bc.class_balance
        if exponent == 0.0:
            return None
        actions = self.arrays.actions[self.training]
        counts = np.bincount(actions, minlength=len(self.spaces.action_names)).astype(np.float64)
        weights = np.where(counts > 0, np.maximum(counts, 1.0) ** -exponent, 0.0)
        weights *= counts.sum() / (weights * counts).sum()
        return torch.from_numpy(weights.astype(np.float32)).to(device)


def _masked(arrays: RolloutArrays, chosen: BoolArray) -> RolloutArrays:
    return replace(arrays, valid=chosen)


def train_epoch(session: Session, rows: Rows, *, class_weights: Tensor | None) -> dict[str, float]:
    """Pass over the rows once in shuffled mini-batches; return the mean loss and accuracy.

    The loss is cross-entropy plus ``value_coef`` times half the squared error of the value, in units of the
    variance of its targets (a return of 500 must not drown the policy).
    """
    settings, learner = session.context.config.training.bc, session.learner
    returns = rows.columns["returns"]
    variance = float(returns.var(unbiased=False)) if len(returns) > 1 else 0.0
    value_coef = settings.value_coef / variance if variance > 1e-8 else 0.0
    table = []
    for units in deal(rows, settings.batch_size, session.streams["minibatches"]):
        found = cloning_step(
            learner,
            rows.gather(units),
            label_smoothing=settings.label_smoothing,
            class_weights=class_weights,
            value_coef=value_coef,
        )
        table.append(torch.cat([found, found.new_full((1,), len(units) / rows.units)]))
        session.check_stop()
    numbers = torch.stack(table).cpu().numpy().astype(np.float64)
    share = numbers[:, 4] / numbers[:, 4].sum()
    return {
        "loss": float(numbers[:, 0] @ share),
        "loss_cloning": float(numbers[:, 1] @ share),
        "accuracy": float(np.clip(numbers[:, 2] @ share, 0.0, 1.0)),
        "grad_norm": float(numbers[:, 3].mean()),
    }


def classify(
    learner: Learner,
    rows: Rows,
    *,
    names: tuple[str, ...],
    top_k: int,
    between: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Judge the policy as a classifier of the expert's actions: a report and the mean cross-entropy (``loss``).

    ``between`` is called before every pass and may raise.
    """
    size, hits, total, loss = len(names), 0, 0.0, 0.0
    confusion: NDArray[np.int64] = np.zeros(size * size, np.int64)
    length = 1 if rows.weights is None else len(rows.weights)
    per_pass = max(1, _CHUNK // length)
    for first in range(0, rows.units, per_pass):
        if between is not None:
            between()
        batch = rows.gather(np.arange(first, min(first + per_pass, rows.units)))
        with torch.no_grad():
            log_probs = torch.log_softmax(learner.forward(batch).logits, dim=-1)
        kept = torch.ones(batch["actions"].shape, dtype=torch.bool) if batch.weights is None else batch.weights > 0
        table, right = log_probs[kept.to(log_probs.device)], batch["actions"][kept.to(log_probs.device)]
        best = table.topk(min(top_k, size), dim=-1).indices
        hits += int((best == right.unsqueeze(-1)).any(dim=-1).sum())
        pairs = (right * size + best[:, 0]).cpu().numpy()
        confusion += np.bincount(pairs, minlength=size * size)
        loss -= float(table.gather(-1, right.unsqueeze(-1)).double().sum())
        total += len(right)
    report = classification_report(confusion.reshape(size, size), top_k_hits=hits, names=names)
    return {"loss": loss / max(1.0, total), **report}


class CloningProgress:
    """What behaviour cloning remembers between epochs: the best policy so far, and the students of DAgger rounds.

    Attributes
    ----------
    best:
        Tensors of the best epoch of the current round.
    score:
        Its held-out accuracy and negated held-out loss; ``None`` before the first epoch of a round.
    stale:
        Epochs since.
    last:
        Training numbers of the last epoch, and held-out numbers of the best.
    students:
        Tensors of the student of each DAgger round, so that a resumed run repeats the same captures.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], label: str) -> None:
        self._label = label
        self.best: dict[str, NDArray[Any]] = dict(tensors)
        self.score: tuple[float, float] | None = None
        self.stale = 0
        self.last: dict[str, float] = {}
        self.students: list[dict[str, NDArray[Any]]] = []

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a checkpoint."""
        score = snapshot.state["score"]
        self.best, self.score = dict(snapshot.tensors), None if score is None else (float(score[0]), float(score[1]))
        self.stale, self.last = int(snapshot.state["stale"]), dict(snapshot.state["last"])
        for path, array in snapshot.rollout.items():
            if path.startswith("students/"):
                _, number, name = path.split("/")
                while len(self.students) <= int(number):
                    self.students.append({})
                self.students[int(number)][name] = array

    def begin_round(self) -> dict[str, NDArray[Any]]:
        """Make the best policy the student of a new DAgger round; the best is chosen anew."""
        self.students.append(self.best)
        self.score, self.stale = None, 0
        return self.best

    def note(self, numbers: Mapping[str, float], report: Mapping[str, Any], session: Session) -> bool:
        """Take an epoch's numbers; return whether it is the best so far.

        Raises
        ------
        NonFiniteError
            When training diverged: a loss or a gradient is no number.
        """
        judged = {**numbers, "held-out loss": report["loss"]}
        columns = {name: np.array([value], np.float64) for name, value in judged.items()}
        require_finite(columns, np.ones(1, np.bool_), what="BC", dataset=self._label, batch=session.step)
        found = (float(report["accuracy"]), -float(report["loss"]))
        improved = self.score is None or found > self.score
        if improved:
            self.best, self.score, self.stale = session.learner.tensors(), found, 0
        else:
            self.stale += 1
        score = found if self.score is None else self.score
        self.last = {**numbers, "val_accuracy": score[0], "val_loss": -score[1]}
        return improved

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the students as named arrays."""
        return {
            f"students/{number}/{name}": array
            for number, student in enumerate(self.students)
            for name, array in student.items()
        }

    def state(self) -> dict[str, Any]:
        """Return the rest as plain JSON."""
        return {"score": self.score, "stale": self.stale, "last": self.last}
