"""The release registry: bytes, order, and what a killed writer leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from townlet_training_core.dto.evaluation import EvaluationSuite
from townlet_training_core.errors import ArtifactError, DataError, RunDirectoryError
from townlet_training_core.evaluation import evaluate_policy
from townlet_training_core.promotion.releases import ReleaseRegistry, tree_digest


def policy(folder: Path, name: str, content: bytes | None = None) -> Path:
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "policy.safetensors").write_bytes(content or name.encode() * 100)
    (path / "policy.json").write_text(json.dumps({"name": name}))
    return path


@pytest.fixture
def registry(tmp_path: Path) -> ReleaseRegistry:
    return ReleaseRegistry(tmp_path / "releases")


def test_an_empty_registry_has_no_release_and_makes_no_folder(registry: ReleaseRegistry) -> None:
    assert registry.current() is None
    assert registry.history() == ()
    assert registry.golden() == ()
    assert not registry.root.exists()


def test_promotion_keeps_the_bytes_and_points_to_them(registry: ReleaseRegistry, tmp_path: Path) -> None:
    source = policy(tmp_path, "a")
    entry = registry.promote(source, metadata={"label": "first"})
    (source / "policy.safetensors").write_bytes(b"changed afterwards")
    current = registry.current()
    assert current is not None
    assert (current.sequence, current.release) == (1, entry.release)
    path = registry.path_of(entry.release)
    assert (path / "policy.safetensors").read_bytes() == b"a" * 100
    assert tree_digest(path) == entry.release
    assert registry.history() == (entry,)
    assert (entry.event, entry.previous, entry.metadata) == ("promoted", None, {"label": "first"})


def test_rollback_restores_bytes_and_goes_further_down_each_time(registry: ReleaseRegistry, tmp_path: Path) -> None:
    digests = [registry.promote(policy(tmp_path, name)).release for name in "abc"]
    back = registry.rollback(metadata={"reason": "late"})
    assert (back.release, back.previous, back.event) == (digests[1], digests[2], "rollback")
    assert (registry.path_of(back.release) / "policy.safetensors").read_bytes() == b"b" * 100
    assert registry.rollback().release == digests[0]
    with pytest.raises(DataError, match="no earlier release"):
        registry.rollback()
    assert registry.rollback(to=digests[2]).release == digests[2]
    assert len(registry.history()) == 6


def test_a_swap_is_recorded_as_such_and_can_be_taken_back(registry: ReleaseRegistry, tmp_path: Path) -> None:
    first = registry.promote(policy(tmp_path, "a")).release
    swapped = registry.swap(policy(tmp_path, "b"))
    assert swapped.event == "policy_swap"
    registry.promote(policy(tmp_path, "c"))
    assert registry.rollback(to=first).release == first
    assert registry.promote(policy(tmp_path, "c")).previous == first
    assert registry.rollback().release == first


def test_only_the_chosen_files_belong_to_a_policy(registry: ReleaseRegistry, tmp_path: Path) -> None:
    source = policy(tmp_path, "a")
    (source / "optimizer.safetensors").write_bytes(b"large")
    entry = registry.promote(source, patterns=("policy.*",))
    names = sorted(path.name for path in registry.path_of(entry.release).iterdir())
    assert names == ["policy.json", "policy.safetensors"]
    single = registry.promote(source / "policy.json")
    assert [path.name for path in registry.path_of(single.release).iterdir()] == ["policy.json"]


def test_what_cannot_be_done_changes_nothing(registry: ReleaseRegistry, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        registry.promote(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no files that match"):
        registry.promote(tmp_path / "empty")
    assert not registry.root.exists()
    entry = registry.promote(policy(tmp_path, "a"))
    with pytest.raises(DataError, match="in place already"):
        registry.promote(policy(tmp_path, "a"))
    with pytest.raises(DataError, match="in place already"):
        registry.rollback(to=entry.release)
    with pytest.raises(DataError, match="never released"):
        registry.rollback(to="0" * 64)
    assert registry.history() == (entry,)
    assert list(registry.root.glob("staging/*")) == []


def test_prefixes_name_releases(registry: ReleaseRegistry, tmp_path: Path) -> None:
    digest = registry.promote(policy(tmp_path, "a")).release
    assert registry.resolve(digest[:8]) == digest
    for wrong in ("zzzz", digest[:3]):
        with pytest.raises(DataError, match="names no release"):
            registry.resolve(wrong)


def test_golden_results_stay_while_the_release_stands(
    registry: ReleaseRegistry, tmp_path: Path, fake_town: Any, dial_policy: Any
) -> None:
    suite = EvaluationSuite(simulation="fake", seeds=(1, 2))
    reached = evaluate_policy(fake_town(num_envs=2), dial_policy([0, 1, 0]), suite=suite)
    first = registry.promote(policy(tmp_path, "a"), golden=[reached]).release
    registry.promote(policy(tmp_path, "b"), golden=[reached.model_copy(update={"label": "b"})])
    assert len(registry.golden()) == 2
    registry.rollback()
    assert registry.golden() == ((first, reached),)


def test_a_changed_policy_is_found_and_not_put_in_place(registry: ReleaseRegistry, tmp_path: Path) -> None:
    digest = registry.promote(policy(tmp_path, "a")).release
    registry.promote(policy(tmp_path, "b"))
    (registry.root / "objects" / digest / "policy.json").write_text("{}")
    before = registry.current()
    with pytest.raises(ArtifactError, match="was changed"):
        registry.rollback()
    assert registry.current() == before
    with pytest.raises(ArtifactError, match="was changed"):
        registry.repair()
    with pytest.raises(ArtifactError, match="has no policy"):
        registry.path_of("0" * 64)


def test_the_next_writer_finishes_what_a_killed_one_began(registry: ReleaseRegistry, tmp_path: Path) -> None:
    registry.promote(policy(tmp_path, "a"))
    pointer = (registry.root / "current").read_bytes()
    second = registry.promote(policy(tmp_path, "b"))
    # Killed between the log and `current`; with a file, an object and a golden result that no line names.
    (registry.root / "current").write_bytes(pointer)
    (registry.root / ".current.x.tmp").write_bytes(b"half")
    policy(registry.root / "objects", "f" * 64)
    policy(registry.root / "golden", "f" * 64)
    policy(registry.root / "staging", "left")
    # ... and, another time, in the middle of a line.
    with (registry.root / "audit.jsonl").open("ab") as stream:
        stream.write(b'{"sequence": 3, "event": "prom')
    assert len(registry.history()) == 2
    assert [entry.sequence for entry in registry.repair()] == [1, 2]
    current = registry.current()
    assert current is not None
    assert (current.sequence, current.release) == (2, second.release)
    assert sorted(path.name for path in (registry.root / "objects").iterdir()) == sorted(
        entry.release for entry in registry.history()
    )
    assert not list(registry.root.glob(".*.tmp"))
    assert not (registry.root / "staging").exists()
    assert not (registry.root / "golden" / ("f" * 64)).exists()
    assert registry.promote(policy(tmp_path, "c")).sequence == 3


def test_current_is_rebuilt_from_the_log(registry: ReleaseRegistry, tmp_path: Path) -> None:
    entry = registry.promote(policy(tmp_path, "a"))
    (registry.root / "current").unlink()
    current = registry.current()
    assert current is not None
    assert current.release == entry.release
    (registry.root / "current").write_text("garbage")
    with pytest.raises(ArtifactError, match="--repair"):
        registry.current()
    registry.repair()
    assert registry.current() == current


@pytest.mark.parametrize(("line", "message"), [(b"garbage\n", "line 2 is corrupt"), (None, "line 2 has number 3")])
def test_a_damaged_log_is_refused(registry: ReleaseRegistry, tmp_path: Path, line: bytes | None, message: str) -> None:
    for name in "abc":
        registry.promote(policy(tmp_path, name))
    log = registry.root / "audit.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    damaged = b"".join([lines[0], line, lines[2]] if line else [lines[0], lines[2]])
    log.write_bytes(damaged)
    with pytest.raises(ArtifactError, match=message):
        registry.promote(policy(tmp_path, "d"))
    assert log.read_bytes() == damaged
    assert len(list((registry.root / "objects").iterdir())) == 3


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="not a release registry"):
        ReleaseRegistry(tmp_path).promote(policy(tmp_path / "p", "a"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "p"]


@pytest.mark.parametrize(("marker", "message"), [("{", "corrupt"), ('{"schema_version": 9}', "has format 9")])
def test_another_format_is_refused(registry: ReleaseRegistry, tmp_path: Path, marker: str, message: str) -> None:
    registry.promote(policy(tmp_path, "a"))
    (registry.root / "registry.json").write_text(marker)
    with pytest.raises(ArtifactError, match=message):
        registry.promote(policy(tmp_path, "b"))


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot write registry"):
        ReleaseRegistry(tmp_path / "file" / "releases").promote(policy(tmp_path, "a"))


def test_a_full_disk_takes_the_piece_back(
    registry: ReleaseRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry.promote(policy(tmp_path, "a"))
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:7]))
    with pytest.raises(RunDirectoryError, match="disk is full"):
        registry.promote(policy(tmp_path, "b"))
    monkeypatch.undo()
    assert registry.repair() == (entry,)
    assert len(list((registry.root / "objects").iterdir())) == 1


WORKER = """
import random, sys
from pathlib import Path
from townlet_training_core.errors import DataError
from townlet_training_core.promotion.releases import ReleaseRegistry

root, pool, acks = map(Path, sys.argv[1:4])
seed, count = map(int, sys.argv[4:6])
choose = random.Random(seed)
registry = ReleaseRegistry(root)
policies = sorted(pool.iterdir())
with acks.open("a") as log:
    for _ in range(count):
        try:
            entry = registry.promote(choose.choice(policies)) if choose.random() < 0.6 else registry.rollback()
        except DataError:
            log.write("refused\\n")
        else:
            log.write(f"{entry.sequence} {entry.event} {entry.release}\\n")
        log.flush()
"""


def run_with_kills(tmp_path: Path, *, operations: int, kills: int, processes: int = 4) -> int:
    """Let processes promote and roll back, kill some without warning, check the registry; return the entries."""
    pool = tmp_path / "pool"
    contents = {f"p{n}": random.Random(n).randbytes(20_000) for n in range(8)}
    digests = {tree_digest(policy(pool, name, content)): content for name, content in contents.items()}
    root = tmp_path / "releases"
    choose = random.Random(0)
    acks: list[Path] = []

    def start() -> subprocess.Popen[bytes]:
        acks.append(tmp_path / f"acks-{len(acks)}")
        arguments = [str(root), str(pool), str(acks[-1]), str(len(acks)), str(operations // processes)]
        return subprocess.Popen([sys.executable, "-c", WORKER, *arguments])

    def done() -> int:
        return sum(len(path.read_bytes().splitlines()) for path in acks if path.exists())

    running = [start() for _ in range(processes)]
    killed = 0
    marks = sorted(choose.sample(range(operations // 20, operations), kills))
    while any(process.poll() is None for process in running) or done() < operations:
        for index, process in enumerate(running):
            if process.poll() is not None and done() < operations:
                running[index] = start()
        if killed < kills and done() >= marks[killed]:
            victim = choose.randrange(processes)
            if running[victim].poll() is None:
                running[victim].send_signal(signal.SIGKILL)
                running[victim].wait()
                killed += 1
                running[victim] = start()
        elif done() >= operations:
            for process in running:
                process.kill()
                process.wait()
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running[0].wait(timeout=0.002)
    assert killed == kills

    registry = ReleaseRegistry(root)
    assert registry.current() is not None  # readable before anything is repaired
    entries = registry.repair()
    current = registry.current()
    assert current is not None
    assert (current.sequence, current.release) == (entries[-1].sequence, entries[-1].release)
    told = [line.split() for path in acks if path.exists() for line in path.read_text().splitlines()]
    told = [words for words in told if len(words) == 3 and len(words[2]) == 64]  # whole lines, no refusals
    assert len(entries) >= len(told)
    for sequence, event, release in told:
        entry = entries[int(sequence) - 1]
        assert (entry.event, entry.release) == (event, release)
    for before, after in pairwise(entries):
        assert after.previous == before.release
    names = {path.name for path in (root / "objects").iterdir()}
    assert names == {entry.release for entry in entries}
    for name in names:
        assert (registry.path_of(name) / "policy.safetensors").read_bytes() == digests[name]
    assert {path.name for path in root.iterdir()} == {"objects", "audit.jsonl", "current", "registry.json", ".lock"}
    return len(entries)


def test_concurrent_writers_and_kills_leave_a_sound_registry(tmp_path: Path) -> None:
    assert run_with_kills(tmp_path, operations=120, kills=6) > 40


@pytest.mark.deep
def test_a_thousand_changes_by_four_processes_with_kills(tmp_path: Path) -> None:
    assert run_with_kills(tmp_path, operations=1000, kills=60) > 400
