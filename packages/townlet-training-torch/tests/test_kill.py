"""A run killed with SIGKILL at random moments and resumed ends with the weights of one that was never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def _kill(tmp_path: Path, strategy: str, kills: int) -> dict[str, object]:
    driver = Path(__file__).with_name("kill_driver.py")
    finished = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), strategy, str(kills)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    report: dict[str, object] = json.loads(finished.stdout)
    return report


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    assert _kill(tmp_path, "ppo", 2)["equal"] is True


@pytest.mark.deep
@pytest.mark.timeout(1800)
def test_fifty_kills_of_ppo_hit_every_phase(tmp_path: Path) -> None:
    report = _kill(tmp_path, "ppo", 50)
    assert report["equal"] is True
    hit = report["hit"]
    assert isinstance(hit, dict)
    assert {"capture", "update", "evaluation", "save"} <= set(hit), hit
    assert sum(hit.values()) == 50


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("strategy", ["bc", "anneal"])
def test_kills_of_the_other_strategies(tmp_path: Path, strategy: str) -> None:
    assert _kill(tmp_path, strategy, 15)["equal"] is True
