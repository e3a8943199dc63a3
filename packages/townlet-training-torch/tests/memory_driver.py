"""Prints how far the peak of memory rises in one iteration of PPO, and what ``memory_bytes`` says, as JSON.

Run as a script: ``memory_driver.py FOLDER STEPS``. A short run comes first, so that libraries are loaded.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from townlet_training_core.arrays import EVENT_DTYPE, ArraySpec, IntArray
from townlet_training_core.config.requests import PPORequest
from townlet_training_core.simulation.environments import EnvironmentSpec
from townlet_training_core.simulation.port import StepOut
from townlet_training_torch.memory import memory_bytes
from townlet_training_torch.ppo import PPOStrategy


class Wide:
    """Observes a map and features of the contract's size; nothing depends on what is done."""

    def __init__(self, num_envs: int = 64) -> None:
        self.spec = EnvironmentSpec(
            name="wide-v1",
            num_envs=num_envs,
            agents_per_env=1,
            observations={
                "map": ArraySpec((4, 11, 11), np.dtype(np.float32)),
                "features": ArraySpec((68,), np.dtype(np.float32)),
            },
            action_names=tuple(f"action_{number}" for number in range(8)),
            rules_hash="wide",
            masked=True,
        )
        self.events: NDArray[Any] = np.empty(0, EVENT_DTYPE)
        self._tick = 0

    def reset(self, *, seed: int | Sequence[int], out: StepOut) -> None:
        self._tick = 0
        self._show(out)

    def step(self, actions: IntArray, out: StepOut) -> None:
        self._tick += 1
        out.rewards[...] = actions == self._tick % 8
        out.terminated[...] = False
        out.truncated[...] = False
        self._show(out)

    def save_state(self) -> dict[str, NDArray[Any]]:
        return {"tick": np.array([self._tick])}

    def load_state(self, state: dict[str, NDArray[Any]], *, out: StepOut) -> None:
        self._tick = int(state["tick"][0])
        self._show(out)

    def close(self) -> None:
        pass

    def _show(self, out: StepOut) -> None:
        for rows in out.observations.values():
            rows[...] = self._tick % 8 / 8
        out.alive[...] = True
        out.action_mask[...] = True


def resident(which: str) -> int:
    """Bytes resident: ``VmRSS`` now, ``VmHWM`` at the peak.

    Not ``ru_maxrss``, which a process that was started by a larger one has from there.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{which}:"))


def main() -> None:
    """Run twice and compare."""
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    spec = importlib.util.spec_from_file_location("workshop_for_memory", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    workshop = module.Workshop(folder)
    workshop.make = Wide
    torch.set_num_threads(1)

    def config(rollout_steps: int) -> Any:
        ppo = {"rollout_steps": rollout_steps, "iterations": 2, "num_epochs": 1, "mini_batch_size": 256}
        return workshop.config(ppo=ppo, network={"hidden_dim": 256}, num_envs=64)

    PPOStrategy().run(workshop.context(config(8), name="small"), PPORequest())
    before = resident("VmRSS")
    PPOStrategy().run(workshop.context(config(steps), name="large"), PPORequest())
    peak = resident("VmHWM")
    said = memory_bytes(Wide().spec, config(steps), slots=64, masked=True)
    sys.stdout.write(json.dumps({"rose": peak - before, "said": said}) + "\n")


if __name__ == "__main__":
    main()
