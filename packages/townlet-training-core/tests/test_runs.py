"""Run directories: whole files, one writer, errors that say what to do."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from townlet_training_core.errors import ArtifactError, RunDirectoryError
from townlet_training_core.files import atomic_open, atomic_write_json, sha256_file
from townlet_training_core.runs import RunDirectory, list_runs


def make(root: Path, run_id: str) -> RunDirectory:
    run = RunDirectory.create(root, run_id=run_id)
    run.write_manifest({"strategy": "ppo", "status": "running"})
    return run


def test_a_run_is_created_listed_and_found_as_latest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with make(tmp_path / "runs", name) as run:
            run.write_result("deep/er", {"x": 1})
    assert [run.run_id for run in list_runs(tmp_path / "runs")] == ["a", "b"]
    latest = RunDirectory.read(tmp_path / "runs")
    assert latest.run_id == "b"
    assert latest.manifest()["schema_version"] == 1
    assert latest.read_result("deep/er") == {"x": 1}
    assert latest.read_result("absent") is None


def _try_to_resume(path: Path, answers: multiprocessing.Queue[str]) -> None:
    try:
        RunDirectory.resume(path).close()
        answers.put("opened")
    except RunDirectoryError as error:
        answers.put(str(error))


def test_a_second_writer_is_refused_with_the_owner_named(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[str] = context.Queue()
    with make(tmp_path, "a") as run:
        process = context.Process(target=_try_to_resume, args=(run.path, answers))
        process.start()
        answer = answers.get(timeout=60)
        process.join()
    assert f"being written by process {os.getpid()}" in answer
    process = context.Process(target=_try_to_resume, args=(run.path, answers))
    process.start()
    assert answers.get(timeout=60) == "opened"
    process.join()


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    make(tmp_path, "a").close()
    with pytest.raises(RunDirectoryError, match="exists already"):
        RunDirectory.create(tmp_path, run_id="a")


def test_a_root_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot make run directory"):
        RunDirectory.create(tmp_path / "file" / "runs", run_id="a")


def test_what_is_no_run_or_a_corrupt_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"no run\.json"):
        RunDirectory.read(tmp_path)
    with make(tmp_path, "a") as run:
        (run.path / "run.json").write_text("{")
        with pytest.raises(ArtifactError, match="cannot read"):
            run.manifest()
        (run.path / "run.json").write_text("[]")
        with pytest.raises(ArtifactError, match="expected an object"):
            run.manifest()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    atomic_write_json(target, {"old": True})

    def fail() -> None:
        with atomic_open(target) as stream:
            stream.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert json.loads(target.read_text()) == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
