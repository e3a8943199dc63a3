"""Telemetry on disk: whole lines, rotation, torn ends, event files, progress."""

from __future__ import annotations

import io
import json
import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from townlet_training_core.config.models import TelemetryConfig, TrainingConfig
from townlet_training_core.errors import ConfigurationError, DataError, MissingDependencyError
from townlet_training_core.runs import RunDirectory
from townlet_training_core.telemetry import tensorboard
from townlet_training_core.telemetry.jsonl import JsonlTelemetry, JsonlWriter, log_files, read_jsonl
from townlet_training_core.telemetry.progress import LineProgress, RichProgress
from townlet_training_core.telemetry.tensorboard import Sinks, TensorBoardTelemetry, open_telemetry


def write(path: Path, count: int, **limits: Any) -> None:
    with JsonlWriter(path, **limits) as writer:
        for number in range(count):
            writer.write({"n": number})


def numbers(path: Path) -> list[int]:
    return [record["n"] for record in read_jsonl(path)]


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    write(path, 2)
    write(path, 1)
    assert path.read_text() == '{"n": 0}\n{"n": 1}\n{"n": 0}\n'


@pytest.mark.parametrize(
    ("limits", "files"),
    [
        ({"max_entries": 2}, 3),
        ({"max_entries": 5}, 1),
        ({"max_entries": 0}, 1),
        ({"max_entries": None}, 1),
        ({"max_bytes": 18}, 3),  # two lines of nine bytes fill it exactly
        ({"max_bytes": 17}, 5),
        ({"max_bytes": 1}, 5),  # a line is never torn apart
        ({"max_bytes": 0}, 1),
        ({"max_entries": 4, "max_bytes": 27}, 2),
    ],
)
def test_rotation_by_entries_and_bytes(tmp_path: Path, limits: dict[str, Any], files: int) -> None:
    path = tmp_path / "log.jsonl"
    write(path, 5, **limits)
    assert len(log_files(path)) == files
    assert numbers(path) == [0, 1, 2, 3, 4]


def test_rotation_goes_on_where_an_earlier_writer_stopped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for _ in range(5):
        write(path, 3, max_entries=2)
    assert [len(file.read_text().splitlines()) for file in log_files(path)] == [2] * 7 + [1]
    assert [file.name for file in log_files(path)][-1] == "log.jsonl.7"
    assert numbers(path) == [0, 1, 2] * 5
    (tmp_path / "log.jsonl.10").write_text('{"n": 10}\n')
    assert numbers(path)[-1] == 10  # by number, not by name
    (tmp_path / "log.jsonl.bak").write_text("nonsense")
    assert numbers(path)[-1] == 10


@given(cut=st.integers(0, 26), limit=st.sampled_from([None, 1, 2]))
@settings(max_examples=40, deadline=None)
def test_a_log_torn_anywhere_is_read_and_continued(
    tmp_path_factory: pytest.TempPathFactory, cut: int, limit: int | None
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    write(path, 3)
    payload = path.read_bytes()
    path.write_bytes(payload[:cut])
    whole = cut // 9 + (cut % 9 == 8)  # a last line without its newline is whole all the same
    assert numbers(path) == list(range(whole))
    write(path, 1, max_entries=limit)
    if cut % 9 in (0, 8):
        assert numbers(path) == [*range(whole), 0]


def test_a_torn_last_line_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"n": 0}\n{"n"')
    with caplog.at_level(logging.WARNING):
        assert numbers(path) == [0]
    assert "torn last line 2" in caplog.text


@pytest.mark.parametrize(("text", "message"), [("{\n{}\n", "line 1: not valid JSON"), ("3\n", "expected an object")])
def test_what_is_no_log_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_jsonl(path))
    with pytest.raises(DataError, match="does not exist"):
        list(read_jsonl(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="cannot write log"):
        JsonlWriter(path / "x")


def test_numbers_that_json_has_no_word_for(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with JsonlWriter(path) as writer:
        writer.write({"a": float("nan"), "b": [np.float32("inf"), -np.inf], "c": {1: np.int64(3)}, "d": "ü"})
    assert next(read_jsonl(path)) == {"a": "NaN", "b": ["Infinity", "-Infinity"], "c": {"1": 3}, "d": "ü"}
    json.loads(path.read_text(), parse_constant=pytest.fail)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found: dict[str, list[tuple[int, float]]] = {}
    for path in folder.iterdir():
        stream = io.BytesIO(path.read_bytes())
        while head := stream.read(12):  # length, its checksum, the record, its checksum
            event = event_pb2.Event.FromString(stream.read(struct.unpack("<Q", head[:8])[0]))
            stream.read(4)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, round(value.simple_value, 4)))
    return found


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    sink = TensorBoardTelemetry(tmp_path / "tb")
    sink.log("ppo.iteration", {"steps": 10, "loss": 0.5, "health": {"kl": 0.25}, "label": "x", "flag": True})
    sink.log("ppo.iteration", {"steps": 20, "loss": 0.25, "stage": "01-ppo"})
    sink.log("note", {"x": 1})
    sink.close()
    assert scalars(tmp_path / "tb") == {
        "ppo.iteration/loss": [(10, 0.5)],
        "ppo.iteration/health/kl": [(10, 0.25)],
        "ppo.iteration/01-ppo/loss": [(20, 0.25)],
        "note/x": [(1, 1.0)],
    }


def test_the_configuration_decides_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    plain = TrainingConfig()
    both = TrainingConfig(telemetry=TelemetryConfig(tensorboard=True))
    with RunDirectory.create(tmp_path, run_id="a") as run:
        assert isinstance(open_telemetry(run, plain), JsonlTelemetry)
        sink = open_telemetry(run, both)
        assert isinstance(sink, Sinks)
        sink.log("k", {"x": 1})
        sink.close()
        assert list(read_jsonl(run.telemetry)) == [{"kind": "k", "x": 1}]
        assert scalars(run.path / "tensorboard") == {"k/x": [(1, 1.0)]}


def test_a_missing_tensorboard_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]  # a module
    with pytest.raises(MissingDependencyError, match=r"townlet-training-core\[tensorboard\]"):
        TensorBoardTelemetry(Path("unused"))


@pytest.mark.parametrize("kind", [RichProgress, LineProgress])
def test_progress_shows_tasks_and_numbers(kind: Any) -> None:
    text = io.StringIO()
    progress = kind(Console(file=text, force_terminal=kind is RichProgress, width=160))
    progress.advance()  # before a task: nothing happens
    progress.start("capture", total=3)
    progress.advance(2, steps_per_s=1234.5)
    progress.start("update", total=1)
    progress.advance(loss=0.25)
    progress.finish()
    progress.finish()
    shown = text.getvalue()
    assert "capture" in shown
    assert "update" in shown
    assert "loss 0.25" in shown
    assert "2/3" in shown
