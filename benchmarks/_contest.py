"""Runs contestants in processes of their own and takes turns between them.

Each contestant is a script under ``peers/`` that answers on its standard output (``peers/worker.py``) and times its
own rounds. Everyone gets the same number of threads. How idle OpenMP threads wait matters a lot on a machine that
does something else besides, so every peer is tried once with torch's default and with ``PASSIVE``: it keeps the better.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["OURS", "Contestant", "Series", "alternated", "choose", "installed", "turn"]

PEERS = Path(__file__).resolve().parent / "peers"
OURS = "ours"
HERE = {"ours": "ours", "cleanrl": "CleanRL-style loop"}
"""Contestants that run in the workspace's own environment."""
NAMES = {
    **HERE,
    "sb3": "Stable-Baselines3",
    "torchrl": "TorchRL",
    "tianshou": "Tianshou",
    "skrl": "skrl",
    "rllib": "RLlib",
    "imitation": "imitation",
}
MAIN_PACKAGE = {"sb3": "stable-baselines3", "rllib": "ray", "cleanrl": "torch", OURS: "townlet-training-torch"}


def python_of(name: str) -> Path:
    """Interpreter of a contestant."""
    return Path(sys.executable) if name in HERE else PEERS / f".venv-{name}" / "bin" / "python"


def installed(names: Sequence[str]) -> list[str]:
    """Keep the contestants that are there; say which are not."""
    found = [name for name in names if python_of(name).exists()]
    for name in names:
        if name not in found:
            print(f"train: {NAMES[name]}: skipped, not installed (make peers)", flush=True)
    return found


class Contestant:
    """One process; ``failed`` says why it is out."""

    def __init__(self, name: str, *, threads: int, waiting: str | None) -> None:
        script = "ours.py" if name == OURS else f"peer_{name}.py"
        environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        environment |= {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
        if waiting is not None:
            environment["OMP_WAIT_POLICY"] = waiting
        self.name, self.label, self.waiting, self.threads, self.failed = name, NAMES[name], waiting, threads, ""
        self._process = subprocess.Popen(
            [str(python_of(name)), script],
            cwd=PEERS,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.versions: dict[str, str] = self._read().get("versions", {})

    @property
    def titled(self) -> str:
        """Name and version."""
        if self.name == "cleanrl":
            return self.label
        return f"{self.label} {self.versions.get(MAIN_PACKAGE.get(self.name, self.name), '')}".strip()

    def ask(self, job: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Have one round done; returns ``seconds`` and more, or nothing when it fails."""
        if self.failed:
            return {}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"job": job, "options": dict(options)}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.failed = "its process ended"
            return {}
        told = self._read()
        if "error" in told:
            self.failed = str(told["error"])
            if self.name == OURS:
                msg = f"{job} {dict(options)}: {self.failed}"
                raise RuntimeError(msg)
            print(f"train: {self.label}: {job} fails and is left out: {self.failed}", flush=True)
            return {}
        return told

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            return {"error": "its process ended without an answer"}
        told: dict[str, Any] = json.loads(line)
        return told


@dataclass(slots=True)
class Series:
    """The rounds of one contestant at one job."""

    contestant: Contestant
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Median seconds of a round."""
        return statistics.median(float(row["seconds"]) for row in self.rounds)

    def median(self, key: str) -> float:
        """Median of something told beside the seconds."""
        return statistics.median(float(row[key]) for row in self.rounds)


def turn(contestants: Sequence[Contestant], job: str, options: Mapping[str, Any], into: Mapping[str, Series]) -> None:
    """Let everyone do one round, one after the other."""
    for contestant in contestants:
        told = contestant.ask(job, options)
        if told:
            into[contestant.name].rounds.append(told)


def alternated(
    contestants: Sequence[Contestant], job: str, options: Mapping[str, Any], *, repeats: int, warm_up: int = 1
) -> dict[str, Series]:
    """Take turns, so that a busy moment hits everyone; those who fail are left out."""
    found = {contestant.name: Series(contestant) for contestant in contestants}
    for _ in range(warm_up):
        for contestant in contestants:
            contestant.ask(job, options)
    for _ in range(repeats):
        turn(contestants, job, options, found)
    return {name: series for name, series in found.items() if len(series.rounds) == repeats}


def choose(
    name: str, job: str, options: Mapping[str, Any], *, threads: int, compare: bool = True, one_thread: bool = False
) -> Contestant:
    """Start a contestant, waiting in the way that is the faster for it at this job; ours waits ``PASSIVE``, as always.

    Without ``compare`` everyone waits ``PASSIVE``, which spares a minute on a busy machine. With ``one_thread`` it may
    also do with a single one, where that is faster.
    """
    if name == OURS or not compare:
        return Contestant(name, threads=threads, waiting="PASSIVE")
    tried = [Contestant(name, threads=threads, waiting=waiting) for waiting in ("PASSIVE", None)]
    tried += [Contestant(name, threads=1, waiting=None)] if one_thread else []
    best = [float("inf")] * len(tried)
    for number in range(3):
        for place, contestant in enumerate(tried):
            if best[place] > 3 * min(best) and number:
                continue  # hopeless, and slow to be sure of it
            # Some learners cannot go on after their last iteration: another seed is another one.
            asked = {**options, "seed": options["seed"] + number} if "seed" in options else options
            seconds = float(contestant.ask(job, asked).get("seconds", "inf"))
            best[place] = min(best[place], seconds)
    kept = tried[best.index(min(best))]
    for contestant in tried:
        if contestant is not kept:
            contestant.close()
    return kept
