"""Progress on a terminal: a bar with the numbers that matter, or plain lines where there is no terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["LineProgress", "RichProgress", "terminal_progress"]

_LINE_EVERY = 10.0
"""Seconds between plain lines."""


def _numbers(numbers: dict[str, float]) -> str:
    return "  ".join(f"{name.replace('_per_', '/')} {value:,.4g}" for name, value in numbers.items())


class RichProgress:
    """A progress bar on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._numbers: dict[str, float] = {}

    def start(self, task: str, *, total: int) -> None:
        """Begin a task; an earlier one is finished."""
        self.finish()
        self._numbers = {}
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
            console=self._console,
        )
        self._task = self._bar.add_task(task, total=total, numbers="")
        self._bar.start()

    def advance(self, units: int = 1, **numbers: float) -> None:
        """Advance the bar and refresh the numbers."""
        if self._bar is not None:
            self._numbers |= numbers
            self._bar.update(self._task, advance=units, numbers=_numbers(self._numbers))

    def finish(self) -> None:
        """Leave the finished bar on the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class LineProgress:
    """Plain lines for logs and pipes: when a task begins and ends, and every few seconds between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task = ""
        self._total = self._done = 0
        self._began = self._spoke = 0.0
        self._numbers: dict[str, float] = {}

    def start(self, task: str, *, total: int) -> None:
        """Announce a task; an earlier one is finished."""
        self.finish()
        self._task, self._total, self._done, self._numbers = task, total, 0, {}
        self._began = self._spoke = time.monotonic()

    def advance(self, units: int = 1, **numbers: float) -> None:
        """Advance; a line now and then."""
        self._done += units
        self._numbers |= numbers
        if time.monotonic() - self._spoke >= _LINE_EVERY:
            self._say()

    def finish(self) -> None:
        """Say how the task ended."""
        if self._task:
            self._say()
            self._task = ""

    def _say(self) -> None:
        self._spoke = time.monotonic()
        line = (
            f"{self._task}: {self._done}/{self._total} in {self._spoke - self._began:.1f} s  {_numbers(self._numbers)}"
        )
        self._console.print(line.rstrip(), highlight=False, markup=False, soft_wrap=True)


def terminal_progress() -> RichProgress | LineProgress:
    """Return the kind of progress that suits standard error."""
    console = Console(stderr=True)
    return RichProgress(console) if console.is_terminal else LineProgress(console)
