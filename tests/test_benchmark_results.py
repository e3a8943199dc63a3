"""The result files of the benchmarks say what they measured, and their verdicts follow from their numbers."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "benchmarks/results").glob("*.json"))


def results_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_results", ROOT / "benchmarks/_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_committed_result_is_complete_and_its_verdicts_follow(path: Path) -> None:
    report = json.loads(path.read_text(encoding="utf-8"))
    assert {"name", "machine", "versions", "threads", "measured", "entries"} <= report.keys()
    assert report["name"] == path.stem
    assert report["entries"]
    for entry in report["entries"]:
        assert {"name", "value", "unit", "peer", "peer_value", "ratio", "bound", "holds"} <= entry.keys()
        assert math.isfinite(entry["value"])
        if entry["peer_value"] is not None:
            assert entry["ratio"] == pytest.approx(entry["value"] / entry["peer_value"])
        assert (entry["bound"] is None) == (entry["holds"] is None)
        if entry["bound"] is not None:
            judged = entry["value"] if entry["ratio"] is None else entry["ratio"]
            kept = judged >= entry["bound"] if entry["better"] == "higher" else judged <= entry["bound"]
            assert entry["holds"] == kept, entry["name"]


def test_a_report_judges_by_the_ratio_where_there_is_a_peer(tmp_path: Path) -> None:
    report = results_module().Report("sample", threads=1)
    assert report.add("fast", value=30.0, unit="1/s", peer="other", peer_value=10.0, bound=2.5).holds is True
    assert report.add(
        "slow", value=30.0, unit="ms", peer="other", peer_value=10.0, bound=2.5, better="lower"
    ).holds is (False)
    assert report.add("alone", value=3.0, unit="1/s", bound=4.0).holds is False
    assert report.add("unbound", value=3.0, unit="1/s").holds is None
    written = json.loads(report.write(tmp_path).read_text(encoding="utf-8"))
    assert [entry["ratio"] for entry in written["entries"]] == [3.0, 3.0, None, None]
    assert [path.name for path in tmp_path.iterdir()] == ["sample.json"]
