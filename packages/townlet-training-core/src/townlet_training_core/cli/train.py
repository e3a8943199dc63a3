"""``townlet train``: run a strategy, compare what came out with random and expert play, say where it lies."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console

from townlet_training_core.cli.options import ConfigOption, RunsDirOption, SetOption
from townlet_training_core.cli.tables import scoreboard_table
from townlet_training_core.config.loader import load_config
from townlet_training_core.errors import ConfigurationError, InterruptedRunError
from townlet_training_core.orchestrator import TrainingOrchestrator
from townlet_training_core.runs import RunDirectory, new_run_id
from townlet_training_core.telemetry.events import NullProgress
from townlet_training_core.telemetry.progress import terminal_progress

if TYPE_CHECKING:
    from townlet_training_core.evaluation.service import EvaluationService  # a type only: `--help` stays quick

__all__ = ["app"]

app = typer.Typer(help="Train a policy.")


@app.command(
    epilog="Examples:  townlet train anneal   |   townlet train ppo --init-from runs --iterations 20   |   "
    "townlet train --resume runs"
)
def train(
    strategy: Annotated[str | None, typer.Argument(help="bc, ppo, anneal or a plug-in's strategy.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    runs_dir: RunsDirOption = Path("runs"),
    run_id: Annotated[str | None, typer.Option("--run-id", help="Name of the run directory.")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue this run (a runs folder means its latest run).")
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option("--init-from", help="Start from the policy of this run or checkpoint.")
    ] = None,
    manifest: Annotated[Path | None, typer.Option("--manifest", help="Replay data to train on.")] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="ppo: rollout, replay or mixed.")] = None,
    iterations: Annotated[int | None, typer.Option("--iterations", help="ppo: capture-and-update rounds.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="bc: passes over the data.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:N or auto.")] = None,
    request: Annotated[
        list[str] | None,
        typer.Option("--request", metavar="KEY=VALUE", help="Any other field of the strategy's request; repeatable."),
    ] = None,
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate/--no-evaluate", help="Compare the policy with random and expert play at the end."),
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
) -> None:
    """Train a policy with a strategy, or resume a run that was interrupted."""
    asked = {"init_from": init_from, "manifest": manifest, "mode": mode, "iterations": iterations, "epochs": epochs}
    fields: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    for item in request or ():
        key, separator, text = item.partition("=")
        if not separator:
            msg = f"--request {item!r}: expected KEY=VALUE"
            raise ConfigurationError(msg)
        fields[key] = yaml.safe_load(text)
    stop = threading.Event()
    options: dict[str, Any] = {"progress": NullProgress() if quiet else terminal_progress(), "stop": stop}
    service: EvaluationService | None = None
    if resume is not None:
        refused = {
            "a strategy": strategy,
            "--config": config,
            "--set": overrides,
            "--run-id": run_id,
            "--device": device,
        }
        clash = [name for name, value in refused.items() if value] + [f"--{key.replace('_', '-')}" for key in fields]
        if clash:
            msg = f"--resume takes configuration and request from the run; leave out {', '.join(clash)}"
            raise ConfigurationError(msg)
        with _saving_on_signals(stop, resume):
            run, _ = TrainingOrchestrator.resume(resume, **options)
    else:
        if strategy is None:
            msg = "say which strategy to train with (bc, ppo, anneal or a plug-in's), or --resume RUN"
            raise ConfigurationError(msg)
        changes = [*(overrides or ()), *([f"compute.device={device}"] if device else [])]
        trainer = TrainingOrchestrator(load_config(config, overrides=changes), runs_dir=runs_dir, **options)
        run_id = run_id or new_run_id(strategy)
        with _saving_on_signals(stop, runs_dir / run_id):
            trainer.run(strategy, run_id=run_id, **fields)
        run, service = RunDirectory.read(runs_dir / run_id), trainer.services.evaluation
    _finish(run, evaluate=evaluate, quiet=quiet, service=service)


def _finish(run: RunDirectory, *, evaluate: bool, quiet: bool, service: EvaluationService | None) -> None:
    """Evaluate the run's policies beside random and expert play, draw the curves, print the table."""
    from townlet_training_core.evaluation.scoreboard import score_run
    from townlet_training_core.telemetry.curves import draw_curves

    console = Console()
    if evaluate:
        scoreboard = score_run(run, service=service)
        if scoreboard is not None and not quiet:
            console.print(scoreboard_table(scoreboard))
    picture = draw_curves(run)
    if not quiet:
        if picture is None:
            console.print("learning curves: install 'townlet-training-core[plots]' to have them drawn", markup=False)
        console.print(f"run: {run.path}", markup=False, soft_wrap=True)


@contextmanager
def _saving_on_signals(stop: threading.Event, run: Path) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM ask the run to save and stop; a second Ctrl-C stops at once."""

    def ask(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        typer.echo("stopping after this mini-batch; Ctrl-C again to stop without saving", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    hint = f"resume with: townlet train --resume {run}"
    try:
        yield
    except InterruptedRunError as error:
        message = str(error)
        raise InterruptedRunError(message if "--resume" in message else f"{message}\n{hint}") from error
    except KeyboardInterrupt:
        msg = f"stopped without saving; the last checkpoint stays\n{hint}"
        raise InterruptedRunError(msg) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
