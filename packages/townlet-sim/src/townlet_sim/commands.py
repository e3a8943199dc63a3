"""``townlet town``: watch a town in the terminal, draw it into a file."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from townlet_sim.render import MissingPartError

try:
    import typer
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"rich", "typer"}:
        raise
    raise MissingPartError("the command 'townlet town'") from error

from townlet_sim import make_simulation, render
from townlet_sim.spaces import SCRIPTED_POLICIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from townlet_sim.engine import TownBatch

__all__ = ["Controls", "Show", "app"]

app = typer.Typer(
    name="town",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Look at a town: watch it live, or draw it into a file.",
)

_POLICIES = ("schedule", *SCRIPTED_POLICIES)
_STYLES = ("bold red", "bold blue", "bold green", "bold yellow", "bold magenta", "bold cyan")
_MARKS = {"#": "dim", ".": "bright_black", "b": "yellow", "f": "dark_orange", "s": "red"} | {
    "h": "blue",
    "t": "green",
    "w": "magenta",
}
_KEYS = "space: pause   n: one tick   +/-: speed   q: quit"
_FASTEST, _SLOWEST = 1024.0, 0.25

Scenario = typer.Option(None, "--scenario", help="Name of a packaged scenario, or a YAML file.")
Policy = typer.Option(
    None,
    "--policy",
    help=f"Who plays: {', '.join(_POLICIES)}, or the path of a trained policy; expert without a scenario.",
)
Seed = typer.Option(0, "--seed", min=0, help="Seed of the town.")
Agents = typer.Option(None, "--agents", min=1, max=1024, help="Number of agents (not with a scenario).")
MapSize = typer.Option(None, "--map-size", min=12, max=512, help="Side of the generated map in tiles.")


class Show:
    """One town that is played for an audience.

    Parameters
    ----------
    scenario, agents, map_size:
        What town; ``None`` leaves the default.
    policy:
        ``schedule`` (of a scenario), a scripted policy, the path of an exported policy, a checkpoint or a run, or
        ``None`` for what suits.

    Raises
    ------
    ValueError
        When the policy is unknown or does not fit, or the town cannot be made.
    MissingPartError
        When a trained policy is asked for and the package that reads it is not installed.
    """

    def __init__(
        self,
        *,
        scenario: str | None = None,
        policy: str | None = None,
        seed: int = 0,
        agents: int | None = None,
        map_size: int | None = None,
    ) -> None:
        policy = policy or ("expert" if scenario is None else "schedule")
        trained = policy not in _POLICIES and Path(policy).exists()
        if (policy not in _POLICIES and not trained) or (policy == "schedule" and scenario is None):
            known = _POLICIES if scenario is not None else SCRIPTED_POLICIES
            msg = (
                f"--policy {policy!r}: expected one of {', '.join(known)} ('schedule' needs --scenario), or the path "
                "of a trained policy"
            )
            raise ValueError(msg)
        options = {"scenario": scenario, "agents": agents, "map_size": map_size}
        self.batch: TownBatch = make_simulation(1, {key: value for key, value in options.items() if value is not None})
        self._rows = self.batch.allocate()
        self.batch.reset(seed=seed, out=self._rows)
        self._trained = _load_trained(policy) if trained else None
        self._choose = self._chooser(policy, seed)
        self.tick = 0

    def _chooser(self, policy: str, seed: int) -> Callable[[], NDArray[np.int64]]:
        if self._trained is not None:
            actor, stream = self._trained, np.random.default_rng(seed)
            actor.bind(self.batch)
            seen = {**self._rows.observations, "action_mask": self._rows.action_mask}
            return lambda: actor.act(seen, stream).actions
        if policy != "schedule":
            return lambda: self.batch.scripted_actions(policy)  # type: ignore[arg-type]  # checked above
        from townlet_sim.story import ScenarioBatch, ScheduledAgents

        assert isinstance(self.batch, ScenarioBatch)
        scheduled = ScheduledAgents(self.batch)
        return lambda: scheduled.actions(self._rows.action_mask)

    def advance(self) -> list[str]:
        """Play one tick; return what happened, one line each."""
        self.batch.step(self._choose(), self._rows)
        if self._trained is not None:
            self._trained.reset(self._rows.terminated | self._rows.truncated)
        self.tick += 1
        kinds = self.batch.spec.event_kinds
        return [
            f"tick {event['tick']}: {kinds[event['kind']]} of agent {event['slot']}"
            + (f" with {event['other']}" if event["other"] >= 0 else "")
            + f" ({event['value']:.2f})"
            for event in self.batch.events
        ]


def _load_trained(path: str) -> Any:
    """Load a policy by what the training package registers; the town itself knows no policy format."""
    for found in entry_points(group="townlet.training.policies", name="exported"):
        return found.load().load(Path(path))
    raise MissingPartError(f"the trained policy {path!r}", install="pip install townlet-training-core")


@dataclass(slots=True)
class Controls:
    """What the keys have set."""

    speed: float
    """Ticks per second."""
    paused: bool = False
    step: bool = False
    stopped: bool = False

    def press(self, key: str) -> None:
        """Obey a key; unknown keys do nothing."""
        if key in {" ", "p"}:
            self.paused = not self.paused
        elif key in {"n", "."}:
            self.paused = self.step = True
        elif key in {"+", "="}:
            self.speed = min(self.speed * 2, _FASTEST)
        elif key == "-":
            self.speed = max(self.speed / 2, _SLOWEST)
        elif key in {"q", "\x1b", "\x03"}:
            self.stopped = True

    def take_turn(self) -> bool:
        """Return whether a tick is to be played now; a single step is used up by asking."""
        moves = self.step or not self.paused
        self.step = False
        return moves


@app.command()
def watch(
    scenario: str | None = Scenario,
    policy: str | None = Policy,
    seed: int = Seed,
    agents: int | None = Agents,
    map_size: int | None = MapSize,
    ticks: int = typer.Option(1000, "--ticks", min=1, help="Ends after so many ticks."),
    speed: float = typer.Option(8.0, "--speed", min=_SLOWEST, max=_FASTEST, help="Ticks per second at the start."),
    every: int = typer.Option(10, "--every", min=1, help="Without a terminal: print every so many ticks."),
) -> None:
    """Play a town in the terminal; without one, print frames."""
    with _failing():
        show = Show(scenario=scenario, policy=policy, seed=seed, agents=agents, map_size=map_size)
        console = Console()
        if console.is_terminal and sys.stdin.isatty():
            _watch_live(console, show, Controls(speed=speed), ticks)
        else:
            _print_frames(show, ticks, every)


@app.command("render")
def render_file(
    out: Path = typer.Option(..., "--out", help="A .png (the last tick) or a .gif (all of them)."),  # noqa: B008  # typer's way
    scenario: str | None = Scenario,
    policy: str | None = Policy,
    seed: int = Seed,
    agents: int | None = Agents,
    map_size: int | None = MapSize,
    ticks: int = typer.Option(200, "--ticks", min=0, help="Ticks to play."),
    every: int = typer.Option(2, "--every", min=1, help="A picture of a GIF for every so many ticks."),
    speed: float = typer.Option(10.0, "--speed", min=0.1, max=50.0, help="Pictures of a GIF per second."),
) -> None:
    """Play a town and draw it into a picture or a film."""
    with _failing():
        kind = out.suffix.lower()
        if kind not in {".png", ".gif"}:
            msg = f"--out {str(out)!r}: expected a name that ends in .png or .gif"
            raise ValueError(msg)
        show = Show(scenario=scenario, policy=policy, seed=seed, agents=agents, map_size=map_size)
        frames = [render.picture(show.batch)]
        for tick in range(1, ticks + 1):
            show.advance()
            if kind == ".gif" and tick % every == 0:
                frames.append(render.picture(show.batch))
        if kind == ".gif":
            render.save_gif(out, frames, milliseconds=round(1000 / speed))
        else:
            render.save_png(out, render.picture(show.batch))
        typer.echo(f"{out}: {ticks} ticks, {len(frames) if kind == '.gif' else 1} pictures")


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """Turn what a user can mend into one line and an exit code: 2 for bad input, 3 for a missing part."""
    try:
        yield
    except MissingPartError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(3) from error
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def _print_frames(show: Show, ticks: int, every: int) -> None:
    typer.echo(render.render_ansi(show.batch))
    for tick in range(1, ticks + 1):
        happened = show.advance()
        for line in happened:
            typer.echo(line)
        if tick % every == 0 or tick == ticks:
            typer.echo("")
            typer.echo(render.render_ansi(show.batch))


def _watch_live(console: Console, show: Show, controls: Controls, ticks: int) -> None:
    recent: list[str] = []
    with _keys() as next_key, Live(console=console, screen=True, auto_refresh=False) as live:
        while show.tick < ticks and not controls.stopped:
            live.update(_frame(show, controls, recent), refresh=True)
            key = next_key(0.1 if controls.paused else 1.0 / controls.speed)
            if key:
                controls.press(key)
            due = not key or controls.step  # a key is obeyed at once, and time goes on with the next round
            if due and not controls.stopped and controls.take_turn():
                recent = [*recent, *show.advance()][-6:]


def _frame(show: Show, controls: Controls, recent: list[str]) -> Group:
    clock, *rest = render.render_ansi(show.batch).splitlines()
    height = show.batch.layout_of(0).size[0]
    plan = Text()
    for line in rest[:height]:
        for mark in line:
            style = _MARKS.get(mark) or (_STYLES[ord(mark) % len(_STYLES)] if mark != " " else "")
            plan.append(mark, style=style)
        plan.append("\n")
    state = "paused" if controls.paused else f"{controls.speed:g} ticks/s"
    return Group(
        Text(f"{clock}   [{state}]", style="bold"),
        plan,
        Text("\n".join(rest[height:])),
        Text("\n".join(recent), style="dim"),
        Text(render.LEGEND, style="dim"),
        Text(_KEYS, style="dim"),
    )


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Give a function that waits up to so many seconds for a key and returns it, or ``""``."""
    try:
        import termios
        import tty
    except ModuleNotFoundError:  # not a Unix: no keys, it only plays
        import time

        def wait(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield wait
        return
    handle = sys.stdin.fileno()
    before: list[Any] = termios.tcgetattr(handle)

    def read(seconds: float) -> str:
        ready, _, _ = select.select([handle], [], [], seconds)
        return os.read(handle, 1).decode(errors="replace") if ready else ""

    tty.setcbreak(handle)
    try:
        yield read
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
