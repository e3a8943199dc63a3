"""What the strategies share about a run: opening it (fresh, warm or resumed), boundaries, stopping, evaluating."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from townlet_training_core.dto.evaluation import EvaluationResult
from townlet_training_core.dto.policy import PolicyDescription
from townlet_training_core.errors import CapabilityError, CheckpointError, InterruptedRunError
from townlet_training_core.policy.forward import expected_shapes
from townlet_training_core.strategy import PreparationContext, TrainingContext
from townlet_training_core.streams import generator_state, restore_generator
from townlet_training_torch.checkpoint import CheckpointStore, Snapshot, find_checkpoint, read_snapshot
from townlet_training_torch.device import resolve_device, spare_threads
from townlet_training_torch.learner import Learner
from townlet_training_torch.networks import Spaces, build_network, describe
from townlet_training_torch.policy import TorchPolicy
from townlet_training_torch.seeding import global_generators, restore_global_generators, torch_generator

__all__ = ["Session", "check_start", "saved_or_nothing"]

_log = logging.getLogger(__name__)


def check_start(
    context: PreparationContext, spaces: Spaces, init_from: Path | None, *, device: str | None = None
) -> PolicyDescription:
    """Check device, network and warm start before anything is made; return the network's description.

    Raises
    ------
    ConfigurationError
        When the device does not exist or the network does not suit the spaces.
    CheckpointError
        When ``init_from`` is no sound checkpoint, or holds a network of another shape.
    """
    config = context.config
    resolve_device(device or config.compute.device)
    description = describe(spaces, config.network, normalise=config.ppo.normalize_observations)
    if init_from is not None:
        folder = find_checkpoint(init_from)
        _check_same(read_snapshot(folder, weights_only=True), description, source=str(folder))
    return description


def _check_same(snapshot: Snapshot, description: PolicyDescription, *, source: str) -> None:
    there, here = expected_shapes(snapshot.description), expected_shapes(description)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            msg = (
                f"checkpoint {source!r} holds a network whose tensor {name!r} has shape {there.get(name)}, this run's "
                f"has {here.get(name)}; use its network settings ({_settings(snapshot.description)}), or start fresh"
            )
            raise CheckpointError(msg)
    if snapshot.description.action_names != description.action_names:
        msg = (
            f"checkpoint {source!r} has the actions {snapshot.description.action_names}, this run has "
            f"{description.action_names}; ids would mean other actions"
        )
        raise CheckpointError(msg)


def _settings(description: PolicyDescription) -> str:
    names = ("kind", "hidden_dim", "separate_trunks", "recurrent", "centralised_critic")
    return ", ".join(f"{name}={getattr(description, name)!r}" for name in names)


class Session:
    """One run, or one stage of an anneal, from its start or from its newest sound checkpoint.

    Attributes
    ----------
    step:
        Iterations (PPO) or epochs (BC) done so far.
    learner, policy:
        The network's trainer, and the network as a policy.
    warm:
        Whether the weights came from another checkpoint.
    resumed:
        The checkpoint that the session goes on from, or ``None``.

    Parameters
    ----------
    learning_rate, eps, weight_decay, max_grad_norm:
        Of the learner.
    """

    def __init__(
        self,
        context: TrainingContext,
        description: PolicyDescription,
        *,
        init_from: Path | None,
        learning_rate: float,
        eps: float,
        max_grad_norm: float,
        weight_decay: float = 0.0,
        device: str | None = None,
    ) -> None:
        config = context.config
        self.context = context
        network = build_network(
            description,
            generator=torch_generator(config.seed, *([context.stage] if context.stage else []), "network"),
            orthogonal=config.network.orthogonal_init,
        ).to(resolve_device(device or config.compute.device))
        spare_threads(config.compute, parameters=sum(parameter.numel() for parameter in network.parameters()))
        self.learner = Learner(
            network,
            learning_rate=learning_rate,
            eps=eps,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            compute=config.compute,
        )
        self.policy = TorchPolicy(network)
        self.store = CheckpointStore(
            context.run.checkpoints,
            stage=context.stage,
            keep_last=config.checkpoint.keep_last,
            keep_best=config.checkpoint.keep_best,
        )
        self.resumed = self.store.newest() if context.resume else None
        self.warm = init_from is not None
        self.step = 0
        self.streams = {"minibatches": context.stream("minibatches"), "expert": context.stream("expert-rows")}
        self._boundary: tuple[Snapshot, float | None] | None = None
        if self.resumed is not None:
            self._restore(self.resumed)
        elif init_from is not None:
            folder = find_checkpoint(init_from)
            start = read_snapshot(folder, weights_only=True)
            _check_same(start, description, source=str(folder))
            self.learner.load_tensors(start.tensors, source=str(folder))

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.learner.device

    def _restore(self, snapshot: Snapshot) -> None:
        source = f"checkpoint at step {snapshot.step}"
        weights = {
            name.removeprefix("training/"): array
            for name, array in snapshot.optimizer.items()
            if name.startswith("training/")
        }
        self.learner.load_tensors(weights or snapshot.tensors, source=source)
        self.learner.load_optimizer_arrays(snapshot.optimizer, source=source)
        for name in self.streams:
            self.streams[name] = restore_generator(snapshot.rollout[f"streams/{name}"])
        restore_global_generators(snapshot.rollout)
        self.step = snapshot.step

    def boundary(
        self,
        step: int,
        *,
        final: bool,
        rollout: Mapping[str, NDArray[Any]],
        state: Mapping[str, Any],
        score: float | None = None,
        best: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Note that ``step`` iterations or epochs are done: the state that a stop or a kill goes back to.

        Written when a checkpoint is due or the run is at its end.

        Parameters
        ----------
        rollout, state:
            Named arrays and plain JSON that the strategy restores itself from.
        score:
            Decides which checkpoints are best; higher is better.
        best:
            Weights of the policy where they are not those in training (best epoch so far).
        """
        training = self.learner.tensors()
        optimizer = self.learner.optimizer_arrays()
        if best is not None:
            optimizer |= {f"training/{name}": array for name, array in training.items()}
        streams = {f"streams/{name}": generator_state(stream) for name, stream in self.streams.items()}
        snapshot = Snapshot(
            step=step,
            tensors=training if best is None else best,
            description=self.policy.network.description,
            optimizer=optimizer,
            rollout={**rollout, **streams, **global_generators()},
            state=dict(state),
        )
        self.step = step
        self._boundary = (snapshot, score)
        if final or (step and step % self.context.config.checkpoint.every == 0):
            self.store.save(snapshot, score=score)

    def check_stop(self) -> None:
        """Save the last boundary and raise when the run was asked to stop.

        Raises
        ------
        InterruptedRunError
            Saying how to resume.
        """
        if not self.context.stop.is_set():
            return
        if self._boundary is not None:
            self.store.save(self._boundary[0], score=self._boundary[1])
        path = self.context.run.path
        msg = f"stopped at step {self.step} and saved; resume with: townlet train --resume {path}"
        raise InterruptedRunError(msg)

    def checkpoint(self) -> str:
        """Return the newest checkpoint's folder, relative to the run directory."""
        return self.store.folders()[-1].relative_to(self.context.run.path).as_posix()

    def evaluate(self) -> EvaluationResult:
        """Evaluate the policy as it is on the fixed seeds, through its exported form, and log the result."""
        label = "-".join(part for part in (self.context.stage, f"{self.step:08d}") if part)
        result = self.context.services.evaluation.evaluate(self.policy.exported(), label=label, between=self.check_stop)
        mean = result.summary.mean
        self.context.telemetry.log(
            "evaluation",
            {
                "stage": self.context.stage,
                "epoch": self.step,
                "return_mean": mean.estimate,
                "return_low": mean.low,
                "return_high": mean.high,
                "policy_hash": result.policy_hash,
            },
        )
        return result

    def log(self, kind: str, record: Mapping[str, Any], *, show: Mapping[str, float]) -> None:
        """Log a record of the step that was just done, when it is due, and advance the progress bar."""
        self.context.progress.advance(1, **show)
        if (self.step + 1) % self.context.config.telemetry.log_frequency == 0:
            stage = {"stage": self.context.stage} if self.context.stage else {}
            self.context.telemetry.log(kind, {"epoch": self.step + 1, **record, **stage})

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps happens now; never when ``every`` is 0."""
        return every > 0 and self.step % every == 0


def saved_or_nothing(save: Callable[[], dict[str, NDArray[Any]]], *, what: str) -> dict[str, NDArray[Any]]:
    """Call ``save``; where that is not possible, say so and return nothing."""
    try:
        return save()
    except CapabilityError as error:
        _log.warning("%s cannot be saved (%s): a resumed run begins new episodes", what, error)
        return {}
