"""A contestant's side of the benchmark: asked on standard input, it works and answers with seconds.

``serve`` reads one JSON object a line, ``{"job": NAME, "options": {...}}``. The first time that a job is asked with
some options it is prepared; only what it returns is timed, here, in the process that does the work, so that neither
the pipe nor the preparation counts. The answer is one JSON line: ``seconds``, ``processor`` seconds, and whatever else
the job has to tell.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Job", "Round", "serve", "threads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The work of one round, which is timed; what makes it ready before and tells about it afterwards, which is not."""

    work: Callable[[], object]
    before: Callable[[], object] | None = None
    after: Callable[[], Mapping[str, Any]] | None = None


Job = Callable[..., Round]
"""Prepares itself by its options."""


def threads() -> int:
    """Threads that everyone computes with; told by the runner."""
    return int(os.environ.get("OMP_NUM_THREADS", "2"))


def serve(jobs: Mapping[str, Job], packages: tuple[str, ...]) -> None:
    """Answer until standard input ends; ``packages`` are those whose versions the first line tells."""
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(told: Mapping[str, Any]) -> None:
        print(json.dumps(told), file=answers, flush=True)

    answer({"versions": {package: importlib.metadata.version(package) for package in packages}})
    ready: dict[str, Round] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            key = json.dumps(asked, sort_keys=True)
            if key not in ready:
                ready[key] = jobs[asked["job"]](**asked["options"])
            turn = ready[key]
            if turn.before is not None:
                turn.before()
            begin, used = time.perf_counter(), time.process_time()
            turn.work()
            measured = {"seconds": time.perf_counter() - begin, "processor": time.process_time() - used}
            answer({**measured, **(turn.after() if turn.after is not None else {})})
        except Exception as error:  # whatever the library raises: the runner says it and goes on without
            answer({"error": f"{type(error).__name__}: {error}"})
