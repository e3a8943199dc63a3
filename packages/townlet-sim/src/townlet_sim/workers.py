"""Threads that help with a step and are asleep between steps."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

__all__ = ["Worker"]


class Worker:
    """A thread that makes one call at a time.

    A pool of :mod:`concurrent.futures` does the same, but its futures take as long as a step of thirty towns.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]] | None] = SimpleQueue()
        self._results: SimpleQueue[BaseException | None] = SimpleQueue()
        self._busy = False
        threading.Thread(target=_serve, args=(self._calls, self._results), name=name, daemon=True).start()
        self.close = weakref.finalize(self, self._calls.put, None)
        """End the thread; also done when the worker is forgotten."""

    def begin(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call the function in the thread; :meth:`join` before the next call."""
        self._busy = True
        self._calls.put((function, arguments))

    def join(self) -> None:
        """Wait until the call has returned, and raise what it raised."""
        if self._busy:
            error = self._results.get()
            self._busy = False
            if error is not None:
                raise error


def _serve(
    calls: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]] | None], results: SimpleQueue[BaseException | None]
) -> None:
    while (call := calls.get()) is not None:
        function, arguments = call
        try:
            function(*arguments)
        except BaseException as error:  # raised again by whoever joins
            results.put(error)
        else:
            results.put(None)
        del call, function, arguments  # what they refer to must not live until the next call
