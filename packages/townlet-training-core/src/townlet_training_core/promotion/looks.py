"""The look book: how often the gate was asked, with which seeds, and what came out.

Asking often is how noise gets promoted, so every question is written down before it is played: its number
sets how strict it is, and its seeds are never used again. A question that was broken off stays in the book as
spent, and breaks the candidate's streak; otherwise stopping a bad evaluation would make luck look like skill.
"""

from __future__ import annotations

import fcntl
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from townlet_training_core.dto.base import Record
from townlet_training_core.dto.release import LookRecord
from townlet_training_core.errors import ArtifactError, RunDirectoryError
from townlet_training_core.files import atomic_write_text

__all__ = ["FIRST_FRESH_SEED", "LookBook", "look_level", "spending"]

FIRST_FRESH_SEED = 1 << 30
"""Where the gate's seeds begin: above the seeds of training and evaluation, within 31 bits for a long time."""


class _Pages(Record):
    schema_version: Literal[1] = 1
    next_seed: int = Field(FIRST_FRESH_SEED, ge=0)
    looks: dict[str, tuple[LookRecord, ...]] = Field(default_factory=dict)


def spending(look: int) -> float:
    """Return the share of alpha that streaks beginning at this look may spend; the shares sum to one."""
    return 2.0 / ((look + 1) * (look + 2))


def look_level(look: int, *, alpha: float, required_passes: int) -> float:
    """Return the one-sided error of look number ``look`` (from 1) against a release.

    A false promotion that begins at look ``i`` needs ``required_passes`` false passes on independent seeds.
    With levels ``(alpha * w_i) ** (1 / required_passes)``, falling in ``i``, it has probability at most
    ``alpha * w_i``, and the ``w_i`` sum to one: the chance of *ever* promoting falsely against one release is
    at most ``alpha``, however often the gate is asked and with however many candidates. One look of several may
    thus be less strict than ``alpha``; the streak is stricter.
    """
    return math.pow(alpha * spending(look), 1.0 / required_passes)


class LookBook:
    """Looks by release, kept in a file so that every process counts together.

    Parameters
    ----------
    path:
        JSON file; in memory only when ``None``.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._memory = _Pages()

    def reserve(
        self, *, release_hash: str, candidate_hash: str, alpha: float, required_passes: int, episodes: int
    ) -> LookRecord:
        """Write down the next look against a release and hand out its number, level and fresh seeds."""
        with self._locked() as pages:
            before = pages.looks.get(release_hash, ())
            number = len(before) + 1
            look = LookRecord(
                look=number,
                candidate_hash=candidate_hash,
                level=look_level(number, alpha=alpha, required_passes=required_passes),
                first_seed=pages.next_seed,
                episodes=episodes,
            )
            self._write(
                pages.model_copy(
                    update={
                        "next_seed": pages.next_seed + episodes,
                        "looks": {**pages.looks, release_hash: (*before, look)},
                    }
                )
            )
        return look

    def complete(
        self,
        look: LookRecord,
        *,
        release_hash: str,
        passed: bool,
        differences: Mapping[str, Sequence[float]] | None = None,
    ) -> tuple[LookRecord, ...]:
        """Write down the outcome of a look; return the candidate's streak of passes that ends with it."""
        known = {key: tuple(values) for key, values in (differences or {}).items()}
        with self._locked() as pages:
            looks = list(pages.looks.get(release_hash, ()))
            looks[look.look - 1] = look.model_copy(update={"passed": passed, "differences": known})
            self._write(pages.model_copy(update={"looks": {**pages.looks, release_hash: tuple(looks)}}))
        streak: list[LookRecord] = []
        for entry in reversed([e for e in looks[: look.look] if e.candidate_hash == look.candidate_hash]):
            if not entry.passed:
                break
            streak.insert(0, entry)
        return tuple(streak)

    def looks(self, release_hash: str) -> tuple[LookRecord, ...]:
        """Return the looks against a release, in order."""
        return self._read().looks.get(release_hash, ())

    def _read(self) -> _Pages:
        if self._path is None:
            return self._memory
        if not self._path.is_file():
            return _Pages()
        try:
            return _Pages.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError) as error:
            msg = (
                f"the gate's look book {str(self._path)!r} is corrupt; restore it from a backup: without it the gate "
                "cannot know how often it was asked"
            )
            raise ArtifactError(msg) from error

    def _write(self, pages: _Pages) -> None:
        if self._path is None:
            self._memory = pages
        else:
            atomic_write_text(self._path, pages.model_dump_json(indent=1) + "\n")

    @contextmanager
    def _locked(self) -> Iterator[_Pages]:
        if self._path is None:
            yield self._memory
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = (self._path.parent / f".{self._path.name}.lock").open("a+b")
        except OSError as error:
            msg = f"cannot write the gate's look book {str(self._path)!r}: {error.strerror or error}"
            raise RunDirectoryError(msg) from error
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield self._read()
