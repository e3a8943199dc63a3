"""The release registry: content-addressed policies, one of which is in place.

::

    releases/
      registry.json       what this folder is
      objects/<digest>/   the files of a policy, byte for byte
      golden/<digest>/    what a release reached on golden suites (evaluation results)
      audit.jsonl         one line per promotion, rollback and swap, in order, without gaps
      current             which policy is in place; replaced atomically
      gate.json           the gate's look book

Writers take a lock that the kernel drops when they die. A change is first appended to the audit log and
flushed, then ``current`` follows. Whoever takes the lock next finishes what a killed writer began: a torn last
line is cut off (nobody was told that it happened), ``current`` is brought up to the log, and files that no line
names are removed. Readers need no lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from townlet_training_core.dto.evaluation import EvaluationResult
from townlet_training_core.dto.release import RELEASE_SCHEMA_VERSION, AuditEntry, CurrentRelease
from townlet_training_core.errors import ArtifactError, DataError, RunDirectoryError
from townlet_training_core.evaluation.service import read_result
from townlet_training_core.files import atomic_write_json, atomic_write_text, sha256_file, sync_directory
from townlet_training_core.promotion.looks import LookBook

__all__ = ["ReleaseRegistry", "tree_digest"]

Event = Literal["promoted", "rollback", "policy_swap"]


def tree_digest(root: Path) -> str:
    """Return the SHA-256 over names and contents of all files below ``root``."""
    digest = hashlib.sha256()
    for path in _files(root):
        digest.update(f"{path.relative_to(root).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


class ReleaseRegistry:
    """Releases on disk.

    Parameters
    ----------
    root:
        The folder; made when the first release is put in place.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    # -- reading ----------------------------------------------------------------------------------------------

    def current(self) -> CurrentRelease | None:
        """Return which policy is in place, ``None`` before the first promotion.

        Raises
        ------
        ArtifactError
            When the registry is corrupt.
        """
        path = self.root / "current"
        if not path.is_file():
            if not self._audit.is_file() or not self._audit.stat().st_size:
                return None
            with self._locked():  # a writer was killed between its line and the file
                pass
            if not path.is_file():
                return None
        try:
            return CurrentRelease.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            msg = f"{str(path)!r} is corrupt; run `townlet promote history --repair` to rebuild it from the audit log"
            raise ArtifactError(msg) from error

    def path_of(self, digest: str) -> Path:
        """Return the folder with the files of a policy, after checking their bytes.

        Raises
        ------
        ArtifactError
            When it is not here, or was changed.
        """
        path = self.root / "objects" / digest
        if not path.is_dir():
            msg = f"registry {str(self.root)!r} has no policy {digest!r}; `townlet promote history` lists them"
            raise ArtifactError(msg)
        found = tree_digest(path)
        if found != digest:
            msg = f"policy {digest!r} in registry {str(self.root)!r} was changed: its files hash to {found!r}"
            raise ArtifactError(msg)
        return path

    def resolve(self, prefix: str) -> str:
        """Return the one digest that begins with ``prefix`` (at least four characters)."""
        known = sorted({entry.release for entry in self.history()})
        found = [digest for digest in known if digest.startswith(prefix)] if len(prefix) >= 4 else []
        if len(found) != 1:
            reason = "is ambiguous" if found else "names no release"
            msg = f"{prefix!r} {reason} in registry {str(self.root)!r}; `townlet promote history` lists them"
            raise DataError(msg)
        return found[0]

    def history(self) -> tuple[AuditEntry, ...]:
        """Return the audit log, oldest first; a last line that is still being written is left out."""
        if not self._audit.is_file():
            return ()
        return self._parse(self._audit.read_bytes())

    def golden(self) -> tuple[tuple[str, EvaluationResult], ...]:
        """Return what releases reached on their golden suites, with their digests; not those taken back."""
        standing = sorted(set(_stack(self.history())))
        return tuple(
            (digest, read_result(path))
            for digest in standing
            for path in sorted((self.root / "golden" / digest).glob("*.json"))
        )

    def look_book(self) -> LookBook:
        """Return the gate's look book of this registry."""
        return LookBook(self.root / "gate.json")

    # -- changing ---------------------------------------------------------------------------------------------

    def promote(
        self,
        source: Path,
        *,
        metadata: Mapping[str, Any] | None = None,
        golden: Sequence[EvaluationResult] = (),
        patterns: Sequence[str] = ("*",),
    ) -> AuditEntry:
        """Copy a policy into the registry and put it in place.

        Parameters
        ----------
        source:
            A file, or a folder whose top-level files are taken.
        metadata:
            Kept in the audit log; plain JSON data.
        golden:
            What the policy reached on suites that later candidates must not forget.
        patterns:
            Which files of a folder make up the policy.

        Raises
        ------
        DataError
            When ``source`` has no such files, or the policy is in place already. Nothing is changed.
        """
        return self._put("promoted", source, metadata=metadata, golden=golden, patterns=patterns)

    def swap(
        self, source: Path, *, metadata: Mapping[str, Any] | None = None, patterns: Sequence[str] = ("*",)
    ) -> AuditEntry:
        """Like :meth:`promote`, but recorded as an exchange by hand that no gate has approved."""
        return self._put("policy_swap", source, metadata=metadata, golden=(), patterns=patterns)

    def rollback(self, *, to: str | None = None, metadata: Mapping[str, Any] | None = None) -> AuditEntry:
        """Put an earlier policy in place again, byte for byte.

        Parameters
        ----------
        to:
            Digest of a policy that was released before; the one below the current one when ``None``. Rolling
            back repeatedly goes further down, as undo does.

        Raises
        ------
        DataError
            When there is nothing to go back to. Nothing is changed.
        ArtifactError
            When that policy's bytes were changed. Nothing is changed.
        """
        if not self.root.is_dir():
            msg = f"registry {str(self.root)!r} has no earlier release to go back to"
            raise DataError(msg)
        with self._locked() as entries:
            stack = _stack(entries)
            if to is None:
                if len(stack) < 2:
                    msg = f"registry {str(self.root)!r} has no earlier release to go back to"
                    raise DataError(msg)
                to = stack[-2]
            elif to not in {entry.release for entry in entries}:
                msg = f"policy {to!r} was never released from registry {str(self.root)!r}"
                raise DataError(msg)
            elif stack and stack[-1] == to:
                msg = f"policy {to!r} is in place already; nothing was changed"
                raise DataError(msg)
            self.path_of(to)
            return self._append(entries, "rollback", release=to, metadata=metadata)

    def repair(self) -> tuple[AuditEntry, ...]:
        """Finish what a killed writer began, rebuild ``current``, check every policy; return the audit log.

        Raises
        ------
        ArtifactError
            When the log or a policy is damaged beyond that; the message names it.
        """
        with self._locked() as entries:
            for digest in {entry.release for entry in entries}:
                self.path_of(digest)
            return tuple(entries)

    # -- parts ------------------------------------------------------------------------------------------------

    @property
    def _audit(self) -> Path:
        return self.root / "audit.jsonl"

    def _put(
        self,
        event: Event,
        source: Path,
        *,
        metadata: Mapping[str, Any] | None,
        golden: Sequence[EvaluationResult],
        patterns: Sequence[str],
    ) -> AuditEntry:
        files = _select(Path(source), patterns)
        with self._locked() as entries:
            staged = self.root / "staging" / secrets.token_hex(8)
            staged.mkdir(parents=True)
            try:
                for name, path in files.items():
                    _copy(path, staged / name)
                digest = tree_digest(staged)  # of what was copied, whatever happens to the source meanwhile
                if entries and entries[-1].release == digest:
                    msg = f"policy {digest!r} is in place already; nothing was changed"
                    raise DataError(msg)
                target = self.root / "objects" / digest
                if not target.is_dir():
                    target.parent.mkdir(exist_ok=True)
                    sync_directory(staged)
                    staged.rename(target)
                    sync_directory(target.parent)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
            for result in golden:
                path = self.root / "golden" / digest / f"{result.suite.content_hash()}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write_text(path, result.model_dump_json() + "\n")
            return self._append(entries, event, release=digest, metadata=metadata)

    def _append(
        self, entries: Sequence[AuditEntry], event: Event, *, release: str, metadata: Mapping[str, Any] | None
    ) -> AuditEntry:
        entry = AuditEntry(
            sequence=len(entries) + 1,
            event=event,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            release=release,
            previous=entries[-1].release if entries else None,
            metadata=dict(metadata or {}),
        )
        line = (json.dumps(entry.model_dump(mode="json"), sort_keys=True) + "\n").encode()
        handle = os.open(self._audit, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            if os.write(handle, line) != len(line):  # a full disk: take the piece back
                os.ftruncate(handle, size)
                msg = f"cannot write {str(self._audit)!r}: the disk is full; nothing was changed"
                raise RunDirectoryError(msg)
            os.fsync(handle)
        finally:
            os.close(handle)
        self._point(entry)
        return entry

    def _point(self, entry: AuditEntry) -> None:
        pointer = CurrentRelease(sequence=entry.sequence, release=entry.release)
        atomic_write_text(self.root / "current", pointer.model_dump_json() + "\n")

    def _parse(self, raw: bytes) -> tuple[AuditEntry, ...]:
        entries = []
        whole = raw[: raw.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = AuditEntry.model_validate_json(line)
            except ValidationError as error:
                msg = f"{str(self._audit)!r}, line {number} is corrupt; restore the file from a backup"
                raise ArtifactError(msg) from error
            if entry.sequence != number:
                msg = (
                    f"{str(self._audit)!r}, line {number} has number {entry.sequence}: lines are missing or were moved"
                )
                raise ArtifactError(msg)
            entries.append(entry)
        return tuple(entries)

    @contextmanager
    def _locked(self) -> Iterator[tuple[AuditEntry, ...]]:
        """Hold the write lock; before the body runs, finish what a killed writer began."""
        self._refuse_foreign()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / ".lock").open("a+b")
        except OSError as error:
            msg = f"cannot write registry {str(self.root)!r}: {error.strerror or error}"
            raise RunDirectoryError(msg) from error
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._claim()
            yield self._recover()

    def _refuse_foreign(self) -> None:
        if self.root.is_dir() and not (self.root / "registry.json").is_file():
            found = [path.name for path in self.root.iterdir() if not path.name.startswith(".")]
            if set(found) - {"gate.json", "registry.json"}:
                msg = f"{str(self.root)!r} is not a release registry: it has files, but no registry.json"
                raise ArtifactError(msg)

    def _claim(self) -> None:
        marker = self.root / "registry.json"
        if not marker.is_file():
            atomic_write_json(marker, {"schema_version": RELEASE_SCHEMA_VERSION, "kind": "townlet release registry"})
        try:
            version = json.loads(marker.read_text(encoding="utf-8"))["schema_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"{str(marker)!r} is corrupt; it should say {{'schema_version': {RELEASE_SCHEMA_VERSION}}}"
            raise ArtifactError(msg) from error
        if version != RELEASE_SCHEMA_VERSION:
            msg = f"registry {str(self.root)!r} has format {version!r}, this version knows {RELEASE_SCHEMA_VERSION}"
            raise ArtifactError(msg)

    def _recover(self) -> tuple[AuditEntry, ...]:
        raw = self._audit.read_bytes() if self._audit.is_file() else b""
        entries = self._parse(raw)
        if raw and not raw.endswith(b"\n"):
            with self._audit.open("r+b") as stream:
                stream.truncate(raw.rfind(b"\n") + 1)
                os.fsync(stream.fileno())
        shutil.rmtree(self.root / "staging", ignore_errors=True)
        named = {entry.release for entry in entries}
        for folder in (self.root / "objects", self.root / "golden"):
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name not in named:
                    shutil.rmtree(path)
        for path in [*self.root.glob(".*.tmp"), *self.root.glob("golden/*/.*.tmp")]:
            if not path.name.startswith(".gate.json"):  # the look book has a lock of its own
                path.unlink(missing_ok=True)
        if entries:
            last = entries[-1]
            try:
                found = CurrentRelease.model_validate_json((self.root / "current").read_bytes())
            except (OSError, ValidationError):
                found = None
            if found is None or (found.sequence, found.release) != (last.sequence, last.release):
                self._point(last)
        return entries


def _stack(entries: Sequence[AuditEntry]) -> list[str]:
    """Replay the log: promotions and swaps go on top, a rollback takes off down to its release."""
    stack: list[str] = []
    for entry in entries:
        if entry.event != "rollback":
            stack.append(entry.release)
        elif entry.release in stack[:-1]:
            last = len(stack) - 2 - stack[:-1][::-1].index(entry.release)
            del stack[last + 1 :]
        else:
            stack[-1:] = [entry.release]
    return stack


def _select(source: Path, patterns: Sequence[str]) -> dict[str, Path]:
    if source.is_file():
        return {source.name: source}
    found = {path.name: path for pattern in patterns for path in sorted(source.glob(pattern)) if path.is_file()}
    if not found:
        what = "does not exist" if not source.exists() else f"has no files that match {', '.join(patterns)}"
        msg = f"policy {str(source)!r} {what}"
        raise DataError(msg)
    return found


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _files(root: Path) -> list[Path]:
    return sorted(
        (path for path in root.rglob("*") if path.is_file()), key=lambda path: path.relative_to(root).as_posix()
    )
