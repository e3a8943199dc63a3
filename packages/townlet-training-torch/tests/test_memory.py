"""The peak of memory is what the formula says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from townlet_training_core.arrays import ArraySpec
from townlet_training_core.config.models import NetworkConfig, PPOConfig, TrainingConfig
from townlet_training_core.simulation.environments import EnvironmentSpec
from townlet_training_torch.memory import memory_bytes


def test_the_formula_by_hand() -> None:
    spec = EnvironmentSpec(
        name="hand-v1",
        num_envs=2,
        agents_per_env=1,
        observations={"features": ArraySpec((3,), np.dtype(np.float32))},
        action_names=("a", "b"),
        rules_hash="",
    )
    config = TrainingConfig(network=NetworkConfig(hidden_dim=4), ppo=PPOConfig(rollout_steps=5, mini_batch_size=6))
    observations = 6 * 2 * (12 + 2 + 2)
    rows = 10 * (26 + 64)
    parameters = 13 * 4 * ((3 * 4 + 4) + (4 * 4 + 4) + (4 * 2 + 2) + (4 + 1))
    buffers = (2 + 6) * 4 * (3 + 2 * (4 + 4))
    assert memory_bytes(spec, config, slots=2, masked=True) == observations + rows + parameters + buffers


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_the_peak_of_a_rollout_and_its_update_is_within_a_third_of_the_formula(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("memory_driver.py")
    finished = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), "512"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = json.loads(finished.stdout)
    assert found["said"] / 1.3 < found["rose"] < found["said"] * 1.3, found
