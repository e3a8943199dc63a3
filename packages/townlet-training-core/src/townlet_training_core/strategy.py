"""The `TrainingStrategy` protocol and the context that a strategy runs in."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np

from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.config.requests import TrainingRequest
from townlet_training_core.dto.results import TrainingResultBase
from townlet_training_core.errors import InterruptedRunError
from townlet_training_core.runs import RunDirectory
from townlet_training_core.streams import generator
from townlet_training_core.telemetry.events import NullProgress, NullTelemetry, Progress, TelemetrySink

if TYPE_CHECKING:
    from townlet_training_core.services import TrainingServices

__all__ = ["AnnealContext", "PreparationContext", "TrainingContext", "TrainingStrategy"]

RequestT = TypeVar("RequestT", bound=TrainingRequest, contravariant=True)
ResultT = TypeVar("ResultT", bound=TrainingResultBase, covariant=True)


@dataclass(frozen=True, slots=True)
class AnnealContext:
    """Baselines and tolerances of the anneal stage that a PPO run belongs to."""

    cycle: int
    stage: str
    dataset_label: str
    bc_accuracy: float | None
    bc_threshold: float
    bc_passed: bool
    loss_baseline: float | None = None
    queue_events_baseline: float | None = None
    queue_intensity_baseline: float | None = None
    loss_tolerance: float = 0.10
    queue_tolerance: float = 0.15

    def evaluate_ppo_flags(
        self, loss_total: float, queue_events: float, queue_intensity: float
    ) -> tuple[bool, bool, bool]:
        """Return the legacy (loss, queue, intensity) flags.

        The loss flag is raised when the loss moved by more than ``loss_tolerance`` of its baseline in either
        direction; a queue flag when the number fell below ``1 - queue_tolerance`` of its baseline.
        """
        loss_flag = (
            self.loss_baseline is not None
            and self.loss_baseline != 0.0
            and abs(loss_total - self.loss_baseline) / abs(self.loss_baseline) > self.loss_tolerance
        )
        floor = 1.0 - self.queue_tolerance
        queue_flag = self.queue_events_baseline is not None and queue_events < floor * self.queue_events_baseline
        intensity_flag = (
            self.queue_intensity_baseline is not None and queue_intensity < floor * self.queue_intensity_baseline
        )
        return loss_flag, queue_flag, intensity_flag


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparationContext:
    """What ``prepare`` may look at: there is no run directory yet, and nothing is written."""

    config: TrainingConfig
    services: TrainingServices


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingContext(PreparationContext):
    """What a strategy runs in; a stage of an anneal gets a derived copy."""

    run: RunDirectory
    telemetry: TelemetrySink = field(default_factory=NullTelemetry)
    progress: Progress = field(default_factory=NullProgress)
    stop: threading.Event = field(default_factory=threading.Event)
    """Set by Ctrl-C and SIGTERM: finish the mini-batch, save, raise ``InterruptedRunError``."""
    resume: bool = False
    """Continue from the newest sound checkpoint of the run directory."""
    stage: str = ""
    """Name of the anneal stage (``"01-ppo"``); prefixes streams, checkpoints and results. Empty outside."""
    anneal: AnnealContext | None = None

    def stream(self, *names: str | int) -> np.random.Generator:
        """Return a fresh generator of the named stream of the run's seed, apart for every stage."""
        return generator(self.config.seed, *((self.stage,) if self.stage else ()), *names)

    def check_stop(self) -> None:
        """Raise when the run was asked to stop: between checkpoints, where nothing has to be saved.

        Raises
        ------
        InterruptedRunError
            Saying how to resume.
        """
        if self.stop.is_set():
            msg = f"stopped; what is done is saved, resume with: townlet train --resume {self.run.path}"
            raise InterruptedRunError(msg)

    def derive(self, **changes: Any) -> TrainingContext:
        """Return a copy with some fields replaced."""
        return replace(self, **changes)


@runtime_checkable
class TrainingStrategy(Protocol[RequestT, ResultT]):
    """One way of training: a plain constructible class without state between runs."""

    name: ClassVar[str]
    requires_torch: ClassVar[bool]
    request_type: ClassVar[type[TrainingRequest]]
    """The model that flags, YAML keys and keyword arguments of a run are validated by."""

    def prepare(self, context: PreparationContext, request: RequestT) -> None:
        """Check everything that can fail early (files, shapes, devices, missing parts); do no work."""

    def run(self, context: TrainingContext, request: RequestT) -> ResultT:
        """Train, write checkpoints and results into ``context.run``, and return the result."""
