"""The training façade: a strategy by name, a run directory, a typed result."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from townlet_training_core.config.loader import validated
from townlet_training_core.config.models import TrainingConfig
from townlet_training_core.config.requests import TrainingRequest
from townlet_training_core.dto.results import TrainingResultBase
from townlet_training_core.errors import ConfigurationError, InterruptedRunError
from townlet_training_core.registry import make_strategy
from townlet_training_core.runs import RunDirectory, describe_environment, latest_run, new_run_id
from townlet_training_core.strategy import PreparationContext, TrainingContext, TrainingStrategy
from townlet_training_core.telemetry.events import NullProgress, Progress, TelemetrySink
from townlet_training_core.telemetry.tensorboard import open_telemetry, require_tensorboard

if TYPE_CHECKING:
    from townlet_training_core.services import TrainingServices

__all__ = ["TrainingOrchestrator"]

Strategy = str | TrainingStrategy[Any, Any]


class TrainingOrchestrator:
    """Runs strategies; all state lives in the run directory, none in this object.

    Parameters
    ----------
    config:
        Everything the runs depend on.
    runs_dir:
        Where run directories are made.
    services:
        Built from the configuration when not given.
    progress, stop:
        Where progress is shown, and the event that asks a run to save and stop.
    telemetry:
        Makes the sink of a run; the default writes ``telemetry.jsonl`` and, where asked for, TensorBoard events.
    """

    def __init__(
        self,
        config: TrainingConfig,
        *,
        runs_dir: Path = Path("runs"),
        services: TrainingServices | None = None,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
        telemetry: Callable[[RunDirectory, TrainingConfig], TelemetrySink] | None = None,
    ) -> None:
        if config.telemetry.tensorboard:
            require_tensorboard()
        self.config = config
        self.runs_dir = runs_dir
        if services is None:
            from townlet_training_core.services import TrainingServices  # brings most of the package: not at import

            services = TrainingServices.from_config(config)
        self.services = services
        self._progress = progress or NullProgress()
        self._stop = stop or threading.Event()
        self._telemetry = telemetry or open_telemetry

    def run(
        self, strategy: Strategy, request: TrainingRequest | None = None, *, run_id: str | None = None, **fields: Any
    ) -> TrainingResultBase:
        """Run a strategy (by name or object) in a new run directory and return its result.

        ``fields`` build the request where none is given, e.g. ``run("ppo", iterations=20)``.

        Raises
        ------
        TownletError
            Before any directory is made, for everything that can be checked early.
        """
        chosen = make_strategy(strategy) if isinstance(strategy, str) else strategy
        asked = request or validated(chosen.request_type, fields, source=f"request of {chosen.name!r}")
        if asked.init_from is not None:
            if not asked.init_from.exists():
                msg = f"init_from={str(asked.init_from)!r} does not exist"
                raise ConfigurationError(msg)
            # A runs folder means its latest run: that of now, because the new run will be the latest.
            asked = asked.model_copy(update={"init_from": latest_run(asked.init_from)})
        chosen.prepare(PreparationContext(config=self.config, services=self.services), asked)
        with RunDirectory.create(self.runs_dir, run_id=run_id or new_run_id(chosen.name)) as run:
            run.write_manifest(self._manifest(chosen, asked))
            return self._execute(chosen, asked, run, resume=False)

    @classmethod
    def resume(cls, path: Path, **options: Any) -> tuple[RunDirectory, TrainingResultBase]:
        """Continue an interrupted run with the configuration and request that it was started with."""
        with RunDirectory.resume(path) as run:
            manifest = run.manifest()
            source = str(run.path / "run.json")
            config = validated(TrainingConfig, manifest.get("config"), source=source, prefix="config")
            chosen = make_strategy(str(manifest.get("strategy")))
            request = validated(chosen.request_type, manifest.get("request"), source=source, prefix="request")
            trainer = cls(config, runs_dir=run.path.parent, **options)
            chosen.prepare(PreparationContext(config=config, services=trainer.services), request)
            return run, trainer._execute(chosen, request, run, resume=True)

    def _execute(
        self, strategy: TrainingStrategy[Any, Any], request: TrainingRequest, run: RunDirectory, *, resume: bool
    ) -> TrainingResultBase:
        telemetry = self._telemetry(run, self.config)
        context = TrainingContext(
            config=self.config,
            services=self.services,
            run=run,
            telemetry=telemetry,
            progress=self._progress,
            stop=self._stop,
            resume=resume,
        )
        status = "failed"
        try:
            result: TrainingResultBase = strategy.run(context, request)
            run.write_result(strategy.name, result.model_dump(mode="json"))
            status = "done"
        except InterruptedRunError:
            status = "interrupted"
            raise
        finally:
            telemetry.close()
            self._progress.finish()
            run.write_manifest({**run.manifest(), "status": status})
        return result

    def _manifest(self, strategy: TrainingStrategy[Any, Any], request: TrainingRequest) -> dict[str, Any]:
        return {
            "status": "running",
            "strategy": strategy.name,
            "request": request.model_dump(mode="json"),
            "config": self.config.model_dump(mode="json"),
            "config_hash": hashlib.sha256(self.config.model_dump_json().encode()).hexdigest(),
            "seed": self.config.seed,
            "parent": str(request.init_from) if request.init_from else None,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **describe_environment(),
        }
