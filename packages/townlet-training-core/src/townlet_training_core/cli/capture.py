"""``townlet capture``: let a policy act and keep what happens."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from townlet_training_core.cli.options import ConfigOption, JsonOption, SetOption
from townlet_training_core.config.loader import load_config
from townlet_training_core.errors import InterruptedRunError
from townlet_training_core.registry import make_policy, make_simulation
from townlet_training_core.simulation.port import Simulation

__all__ = ["Form", "app", "capture"]


class Form(StrEnum):
    """What a capture is written as."""

    SHARDS = "shards"
    NPZ = "npz"


app = typer.Typer(help="Let a policy act and keep what happens.")


@app.command(
    epilog="Examples:  townlet capture --policy scripted --ticks 1000 --output captures/expert   |   "
    "townlet capture --simulation gymnasium --set simulation.options.env=CartPole-v1 --policy random -o captures/pole"
)
def capture(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; must not hold a capture.")] = Path(
        "captures"
    ),
    policy: Annotated[
        str, typer.Option("--policy", "-p", help="Registered name, exported policy, checkpoint or run.")
    ] = "scripted",
    simulation: Annotated[
        str | None, typer.Option("--simulation", help="Simulation; that of the configuration when absent.")
    ] = None,
    ticks: Annotated[int, typer.Option("--ticks", help="Steps of every environment.")] = 1000,
    num_envs: Annotated[int | None, typer.Option("--num-envs", help="Environments stepped together.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed; that of the configuration when absent.")] = None,
    form: Annotated[Form, typer.Option("--form", help="Shard store, or npz files with a manifest.")] = Form.SHARDS,
    label_expert: Annotated[
        bool, typer.Option("--label-expert", help="Also keep what the scripted expert would have done.")
    ] = False,
    greedy: Annotated[bool, typer.Option("--greedy", help="Most probable actions instead of samples.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted capture in the folder.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Capture rollouts of any simulation with any policy."""
    from townlet_training_core.rollout.service import RolloutCaptureService
    from townlet_training_core.telemetry.progress import terminal_progress

    changes = list(overrides or ())
    if simulation is not None:
        changes.append(f"simulation.name={simulation}")
    loaded = load_config(config, overrides=changes)

    def make(*, num_envs: int | None = None) -> Simulation:
        made: Simulation = make_simulation(loaded.simulation, num_envs=num_envs)
        return made

    progress = terminal_progress()
    chosen = make_policy(policy)
    if not as_json:
        progress.start("capture", total=ticks)
    stop = threading.Event()
    try:
        with _stopping_on_signals(stop):
            result = RolloutCaptureService(make).capture(
                chosen,
                ticks=ticks,
                seed=loaded.seed if seed is None else seed,
                output=output,
                form=form.value,
                num_envs=num_envs,
                label_expert=label_expert,
                greedy=greedy,
                resume=resume,
                stop=stop,
                on_ticks=None if as_json else progress.advance,
            )
    finally:
        progress.finish()
    if as_json:
        typer.echo(json.dumps({**asdict(result), "path": str(result.path)}, indent=2))
        return
    table = Table("captured", str(result.path), title=f"{result.policy} in {result.simulation}")
    table.add_row("transitions", f"{result.transitions:,}")
    table.add_row("trajectories", f"{result.trajectories:,}")
    table.add_row("episodes that ended", f"{result.episodes:,}")
    if result.mean_return is not None:
        table.add_row("mean return", f"{result.mean_return:.4g}")
        table.add_row("mean length", f"{result.mean_length:.4g}")
    for name, (count, total) in result.events.items():
        if count:
            table.add_row(f"event {name}", f"{count:,}, values sum to {total:.4g}")
    Console().print(table)


@contextmanager
def _stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM ask the capture to stop after the shard in hand; a second Ctrl-C stops at once."""

    def ask(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        typer.echo("stopping after this shard; Ctrl-C again to drop it", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        msg = "capture stopped; the sealed shards are kept, go on with --resume"
        raise InterruptedRunError(msg) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
