"""Kills a training run with SIGKILL at random moments, resumes it each time, and compares the final weights.

Run as a script: ``kill_driver.py FOLDER STRATEGY KILLS``; prints one JSON object. Children are forked from a process
that has imported everything and computed nothing, so a start costs little. What was going on when a child was killed
stands in a file that the child keeps up to date.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from townlet_training_core.config.models import AnnealStage
from townlet_training_core.files import sha256_file
from townlet_training_torch import kernels
from townlet_training_torch.advantages import gae
from townlet_training_torch.anneal import AnnealStrategy
from townlet_training_torch.bc import BCStrategy
from townlet_training_torch.checkpoint import CheckpointStore
from townlet_training_torch.cloning import CloningData
from townlet_training_torch.learner import Learner
from townlet_training_torch.ppo import PPOStrategy
from townlet_training_torch.session import Session
from townlet_training_torch.sources import PPOSource

STRATEGIES: dict[str, type[Any]] = {"bc": BCStrategy, "ppo": PPOStrategy, "anneal": AnnealStrategy}


def warm_up() -> None:
    """Let torch import what it imports lazily; no gradient is computed, so that forking stays safe."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.zeros(2)
    torch.nn.utils.clip_grad_norm_([parameter], 1.0)
    torch.optim.AdamW([parameter], fused=True).step()
    load_kernels()


def load_kernels() -> None:
    """Call every kernel once: each child would spend half a second of its short life on loading them."""
    rows, flags = np.zeros((2, 2), np.float32), np.zeros((2, 2), np.bool_)
    gae(rows, rows, rows, terminated=flags, truncated=flags, valid=~flags, gamma=0.9, gae_lambda=0.9)
    kernels.rectify(rows, 0, rows[0])
    kernels.through_relu(rows, rows.copy(), 0, rows[1].copy())
    logits, column, actions = torch.zeros(2, 2), torch.zeros(2), torch.zeros(2, dtype=torch.int64)
    numbers: dict[str, Any] = dict.fromkeys(
        ("clip_param", "value_clip", "value_loss_coef", "entropy_coef", "bc_weight"), 0.1
    )
    columns: dict[str, Any] = dict.fromkeys(("old_log_probs", "advantages", "returns", "old_values"), column)
    nothing: dict[str, Any] = dict.fromkeys(("mask", "everyone", "acting", "labels"))
    kernels.ppo_gradients(logits, column, actions=actions, **columns, **nothing, **numbers, normalize=True)
    kernels.cloning_gradients(logits, actions)


def workshop_of(folder: Path) -> Any:
    """Make the workshop of the tests in ``folder``."""
    spec = importlib.util.spec_from_file_location("workshop_for_kills", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.Workshop(folder).use(task="masked", agents=2)


def train(folder: Path, strategy: str, seed: int, name: str, *, resume: bool) -> str:
    """Train and return the hash of the final weights."""
    workshop = workshop_of(folder)
    stages = (AnnealStage(cycle=0, mode="bc", epochs=6), AnnealStage(cycle=1, mode="ppo", epochs=12, bc_weight=0.2))
    config = workshop.config(
        seed=seed,
        ppo={"iterations": 24, "num_epochs": 4, "normalize_returns": True},
        bc={"epochs": 24, "dagger_rounds": 1, "dagger_steps": 16} if strategy == "bc" else {},
        training={"anneal_schedule": stages, "anneal_accuracy_threshold": 0.1},
        checkpoint={"every": 1, "keep_last": 2},
        evaluation={"every": 2, "episodes": 8, "num_envs": 4, "resamples": 200},
    )
    chosen = STRATEGIES[strategy]()
    context = workshop.context(config, name=name, resume=resume)
    result = chosen.run(context, chosen.request_type())
    return sha256_file(context.run.path / result.checkpoint / "policy.safetensors")


def note_phases(path: Path) -> None:
    """Keep what is going on in ``path``."""
    handle, going_on = os.open(path, os.O_CREAT | os.O_WRONLY), ["between"]

    def noting(owner: Any, method: str, phase: str) -> None:
        original: Callable[..., Any] = getattr(owner, method)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            going_on.append(phase)
            os.pwrite(handle, phase.ljust(12).encode(), 0)
            try:
                return original(*args, **kwargs)
            finally:
                going_on.pop()
                os.pwrite(handle, going_on[-1].ljust(12).encode(), 0)

        setattr(owner, method, wrapped)

    noting(PPOSource, "collect", "capture")
    noting(CloningData, "__init__", "capture")
    noting(PPOStrategy, "_update", "update")
    noting(Learner, "apply", "update")  # of cloning
    noting(Session, "evaluate", "evaluation")
    noting(CheckpointStore, "_write", "save")


def kill_later(delay: float) -> None:
    """Kill this process after ``delay`` seconds."""
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def kill_after_boundary(delay: float) -> None:
    """Kill this process ``delay`` seconds after the first boundary: well inside the run, not in its beginning."""
    original = Session.boundary

    def wrapped(self: Session, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        kill_later(delay)

    Session.boundary = wrapped  # type: ignore[method-assign]  # a child of its own


def fork(work: Callable[[], str], *, delay: float | None, inside: bool = False, out: Path) -> bool:
    """Run ``work`` in a child that is killed after ``delay`` seconds; return whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            if delay is not None:
                note_phases(out.with_suffix(".phase"))
                (kill_after_boundary if inside else kill_later)(delay)
            out.write_text(work())
            os._exit(0)
        except BaseException:
            logging.exception("child failed")
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(1)
    return not os.WIFSIGNALED(status)


def main(folder: Path, strategy: str, kills: int) -> None:
    """Kill until enough, print what was hit and whether all weights agree."""
    warm_up()
    moments = random.Random(20260101)
    hit: dict[str, int] = {}
    equal, runs, seed = True, 0, 0
    while sum(hit.values()) < kills:
        out = folder / f"hash-{seed}"
        begun = time.monotonic()
        fork(partial(train, folder, strategy, seed, f"whole-{seed}", resume=False), delay=None, out=out)
        length = time.monotonic() - begun
        expected, name = out.read_text(), f"killed-{seed}"
        while True:
            inside = moments.random() < 0.8
            delay = moments.random() * length * (3 / 24 if inside else 0.3)
            resume = (folder / name / "run.json").exists()
            if not resume:  # killed before there was a run
                shutil.rmtree(folder / name, ignore_errors=True)
            work = partial(train, folder, strategy, seed, name, resume=resume)
            if fork(work, delay=delay if sum(hit.values()) < kills else None, inside=inside, out=out):
                break
            noted = out.with_suffix(".phase")
            phase = (noted.read_text().strip() if noted.exists() else "") or "start"
            hit[phase] = hit.get(phase, 0) + 1
            noted.unlink(missing_ok=True)
        equal = equal and out.read_text() == expected
        runs, seed = runs + 1, seed + 1
    sys.stdout.write(json.dumps({"hit": hit, "equal": equal, "runs": runs}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
