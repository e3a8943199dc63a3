"""What every benchmark writes: ``benchmarks/results/<name>.json``, so that what holds can be read without prose.

Usage::

    report = Report("town", threads=2)
    report.add("engine.steps", value=4.1e6, unit="agent-steps/s", bound=4.0e6)
    report.add("import", value=180.0, unit="ms", peer="numpy and pydantic", peer_value=120.0, bound=2.0, better="lower")
    report.write()

An entry with a peer is judged by the ratio to it, any other by its own value.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

__all__ = ["Entry", "Report", "alternate", "machine", "median"]

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "numpy",
    "numba",
    "torch",
    "gymnasium",
    "pettingzoo",
    "pydantic",
    "townlet-sim",
    "townlet-training-core",
    "townlet-training-torch",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One number, beside a peer's where there is one, and whether it holds its bound."""

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    bound: float | None = None
    better: Literal["higher", "lower"] = "higher"
    holds: bool | None = None
    note: str | None = None


@dataclass(slots=True)
class Report:
    """The entries of one benchmark."""

    name: str
    threads: int
    entries: list[Entry] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    """What the entries were made of (curves, settings, rules hash): plain JSON."""
    peers: dict[str, dict[str, str]] = field(default_factory=dict)
    """Versions of what peers run on, by peer."""

    def add(
        self,
        name: str,
        *,
        value: float,
        unit: str,
        peer: str | None = None,
        peer_value: float | None = None,
        bound: float | None = None,
        better: Literal["higher", "lower"] = "higher",
        note: str | None = None,
    ) -> Entry:
        """Add an entry and print it.

        Parameters
        ----------
        name, value, unit:
            What was measured: the median of several runs.
        peer, peer_value:
            What it is compared with, measured in the same process or in alternation, same unit.
        bound, better:
            Least ratio to the peer (or least value, without one); with ``better="lower"`` the greatest.
        note:
            What a reader must know, e.g. sizes or why a bound does not hold.
        """
        ratio = None if peer_value is None else value / peer_value
        judged = value if ratio is None else ratio
        holds = None if bound is None else judged >= bound if better == "higher" else judged <= bound
        entry = Entry(
            name=name,
            value=value,
            unit=unit,
            peer=peer,
            peer_value=peer_value,
            ratio=ratio,
            bound=bound,
            better=better,
            holds=holds,
            note=note,
        )
        self.entries.append(entry)
        against = "" if ratio is None else f", {ratio:.3g} times {peer} ({peer_value:.4g})"
        limit = "" if bound is None else f"; bound {bound:.4g} {'holds' if holds else 'DOES NOT HOLD'}"
        print(f"{self.name}: {name}: {value:.4g} {unit}{against}{limit}", flush=True)
        return entry

    def show(self) -> None:
        """Print all entries as a table."""
        from rich.console import Console
        from rich.table import Table

        table = Table("what", "value", "peer", "its value", "ratio", "bound", "", title=self.name)
        for entry in self.entries:
            beside = "" if entry.peer_value is None else f"{entry.peer_value:,.4g}"
            ratio = "" if entry.ratio is None else f"{entry.ratio:.3g}"
            bound = "" if entry.bound is None else f"{entry.bound:.3g}"
            verdict = {True: "holds", False: "does not hold"}.get(entry.holds, "") if entry.holds is not None else ""
            value = f"{entry.value:,.4g} {entry.unit}"
            table.add_row(entry.name, value, entry.peer or "", beside, ratio, bound, verdict)
        Console(width=160).print(table)

    def write(self, folder: Path = RESULTS) -> Path:
        """Write ``<name>.json`` atomically and return its path."""
        payload = {
            "schema_version": 1,
            "name": self.name,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": {"python": sys.version.split()[0], **_versions()},
            "threads": self.threads,
            **({"peers": self.peers} if self.peers else {}),
            "entries": [asdict(entry) for entry in self.entries],
            **({"details": self.details} if self.details else {}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        temporary = path.with_suffix(".json.tmp")
        temporary.write_text(json.dumps(payload, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
        return path


def machine() -> dict[str, str | int]:
    """Describe the machine: system, processor and the cores that this process may use; no host name."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"system": platform.system(), "processor": processor, "cores": cores}


def median(measure: Callable[[], float], *, repeats: int = 5, warm_up: int = 1) -> float:
    """Return the median of ``repeats`` results of ``measure``, after ``warm_up`` that do not count."""
    for _ in range(warm_up):
        measure()
    return statistics.median(measure() for _ in range(repeats))


def alternate(jobs: Sequence[Callable[[], object]], *, repeats: int = 5, warm_up: int = 1) -> list[float]:
    """Return the median seconds of each job, run in turn so that a busy moment hits all of them."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for turn in range(warm_up + repeats):
        for taken, job in zip(seconds, jobs, strict=True):
            start = time.perf_counter()
            job()
            if turn >= warm_up:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
