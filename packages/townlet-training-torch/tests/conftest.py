from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from townlet_training_core.arrays import EVENT_DTYPE, ArraySpec, BoolArray, IntArray
from townlet_training_core.config.models import (
    BCTrainingSettings,
    ComputeConfig,
    EvaluationConfig,
    NetworkConfig,
    PPOConfig,
    SimulationChoice,
    TrainingConfig,
    TrainingSettings,
)
from townlet_training_core.evaluation.service import EvaluationService
from townlet_training_core.evaluation.suite import suite_from_config
from townlet_training_core.promotion.manager import PromotionServiceAdapter
from townlet_training_core.replay.convert import samples_from_transitions
from townlet_training_core.replay.service import ReplayService
from townlet_training_core.replay.spec import DataSpec
from townlet_training_core.replay.transitions import Transitions, transitions_from_rollout
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.rollout.service import RolloutCaptureService
from townlet_training_core.runs import RunDirectory
from townlet_training_core.services import TrainingServices
from townlet_training_core.simulation.environments import EnvironmentSpec
from townlet_training_core.simulation.port import StepOut
from townlet_training_core.strategy import TrainingContext

Task = Literal["identity", "bandit", "masked", "memory"]


class ToySimulation:
    """Tasks whose best policy is known; everything follows from (seed, episode, tick).

    identity: name the symbol that is shown. bandit: arm a pays a. masked: the highest allowed action pays.
    memory: the symbol is shown at tick 0 only and asked for at the last tick.
    """

    ACTIONS = 4

    def __init__(
        self,
        num_envs: int = 4,
        *,
        task: Task = "identity",
        agents: int = 1,
        ticks: int = 8,
        expert: bool = True,
        with_map: bool = False,
        with_state: bool = False,
    ) -> None:
        observations = {"features": ArraySpec((self.ACTIONS + 1,), np.dtype(np.float32))}
        if with_map:
            observations["map"] = ArraySpec((2, 3, 3), np.dtype(np.uint8))
        if with_state:
            observations["state"] = ArraySpec((3,), np.dtype(np.float32))
        self.task, self.ticks = task, ticks
        self.spec = EnvironmentSpec(
            name=f"toy-{task}-v1",
            num_envs=num_envs,
            agents_per_env=agents,
            observations=observations,
            action_names=("north", "east", "south", "west"),
            rules_hash=f"toy {task} {ticks}",
            masked=task == "masked",
            feature_names=("a", "b", "c", "d", "last"),
            event_kinds=("queue_conflict", "chat_success"),
            versions={"observations": "1"},
        )
        self.events: NDArray[Any] = np.empty(0, EVENT_DTYPE)
        self._seeds, self._episodes, self._ticks = (np.zeros(num_envs, np.int64) for _ in range(3))
        if expert:
            self.expert_actions = self._answer

    def reset(self, *, seed: int | Sequence[int], out: StepOut) -> None:
        count = self.spec.num_envs
        self._seeds[:] = seed % 2**40 + np.arange(count) if isinstance(seed, int) else np.asarray(seed)
        self._episodes[:], self._ticks[:] = 0, 0
        self._show(out)

    def step(self, actions: IntArray, out: StepOut) -> None:
        right = self._answer()
        paid = (self._slot_ticks() == self.ticks - 1) if self.task == "memory" else np.ones(len(right), np.bool_)
        out.rewards[...] = actions / 3 if self.task == "bandit" else (paid & (actions == right))
        self.events = np.zeros(1, EVENT_DTYPE)
        self.events["value"] = 0.5
        self._ticks += 1
        over = self._ticks == self.ticks
        ended = np.repeat(over, self.spec.agents_per_env)
        out.truncated[...] = ended & (self.task != "memory")
        out.terminated[...] = ended & (self.task == "memory")
        for name, array in self._observations().items():
            out.final_observation[name][ended] = array[ended]
        self._episodes += over
        self._ticks[over] = 0
        self._show(out)

    def save_state(self) -> dict[str, NDArray[Any]]:
        return {"counters": np.stack([self._seeds, self._episodes, self._ticks])}

    def load_state(self, state: Mapping[str, NDArray[Any]], *, out: StepOut) -> None:
        self._seeds[:], self._episodes[:], self._ticks[:] = state["counters"]
        self._show(out)

    def close(self) -> None:
        pass

    def _slot_ticks(self) -> NDArray[np.int64]:
        return np.repeat(self._ticks, self.spec.agents_per_env)

    def _symbols(self) -> NDArray[np.int64]:
        agents = self.spec.agents_per_env
        ticks = np.zeros_like(self._ticks) if self.task == "memory" else self._ticks
        mixed = (self._seeds * 7919 + self._episodes * 104729 + ticks * 1299709 + 12345).repeat(agents)
        mixed = (mixed + np.tile(np.arange(agents), self.spec.num_envs) * 15485863).astype(np.uint64)
        for shift in (30, 27):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(0xBF58476D1CE4E5B9)
        return (mixed >> np.uint64(33)).astype(np.int64)

    def _mask(self) -> BoolArray:
        mask = np.ones((len(self._symbols()), self.ACTIONS), np.bool_)
        if self.task == "masked":
            bits = self._symbols() % (2**self.ACTIONS - 1) + 1
            mask = (bits[:, None] >> np.arange(self.ACTIONS)) % 2 == 1
        return mask

    def _answer(self) -> IntArray:
        if self.task == "bandit":
            return np.full(len(self._symbols()), self.ACTIONS - 1, np.int64)
        if self.task == "masked":
            return np.asarray(self.ACTIONS - 1 - self._mask()[:, ::-1].argmax(axis=1), np.int64)
        return self._symbols() % (2 if self.task == "memory" else self.ACTIONS)

    def _observations(self) -> dict[str, NDArray[Any]]:
        slots = len(self._symbols())
        features = np.zeros((slots, self.ACTIONS + 1), np.float32)
        if self.task == "masked":
            features[:, :4] = self._mask()
        elif self.task == "identity" or self.task == "memory":
            shown = self._slot_ticks() == 0 if self.task == "memory" else np.ones(slots, np.bool_)
            features[np.arange(slots), self._answer()] = shown
        features[:, 4] = self._slot_ticks() == self.ticks - 1
        found: dict[str, NDArray[Any]] = {"features": features}
        if "map" in self.spec.observations:
            found["map"] = (features[:, :1, None, None] + np.zeros((1, 2, 3, 3))).astype(np.uint8)
        if "state" in self.spec.observations:
            found["state"] = np.stack([self._slot_ticks() / self.ticks, features[:, 0], features[:, 1]], 1).astype("f4")
        return found

    def _show(self, out: StepOut) -> None:
        for name, array in self._observations().items():
            out.observations[name][...] = array
        out.alive[...] = True
        out.action_mask[...] = self._mask()


class Recorder:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []

    def log(self, kind: str, record: Mapping[str, Any]) -> None:
        self.records.append((kind, dict(record)))

    def close(self) -> None:
        pass

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record for found, record in self.records if found == kind]


class Workshop:
    """Makes configurations, services and contexts around one toy simulation."""

    def __init__(self, root: Path, compute: Mapping[str, Any] | None = None) -> None:
        self.root, self.compute = root, dict(compute or {})
        self.make: Callable[..., Any] = ToySimulation
        self.telemetry = Recorder()

    toy = staticmethod(ToySimulation)

    def use(self, **options: Any) -> Workshop:
        """Choose the toy that every simulation of this workshop is."""
        self.make = lambda num_envs=4: ToySimulation(num_envs, **options)
        return self

    def config(self, *, bc: Any = (), network: Any = (), evaluation: Any = (), **changes: Any) -> TrainingConfig:
        ppo = {"rollout_steps": 16, "iterations": 4, "mini_batch_size": 32, "num_mini_batches": None, "num_epochs": 2}
        cloning = {"capture_steps": 32, "batch_size": 32, "epochs": 3, "learning_rate": 3e-3}
        training = {"bc": BCTrainingSettings(**{**cloning, **dict(bc)}), **dict(changes.pop("training", ()))}
        return TrainingConfig(
            simulation=SimulationChoice(name="toy", num_envs=changes.pop("num_envs", 6)),
            ppo=PPOConfig(**{**ppo, **dict(changes.pop("ppo", ()))}),
            network=NetworkConfig(**{"hidden_dim": 16, **dict(network)}),
            training=TrainingSettings(**training),
            evaluation=EvaluationConfig(**{"episodes": 8, "num_envs": 4, "resamples": 200, **dict(evaluation)}),
            compute=ComputeConfig(**{"threads": 1, **self.compute, **dict(changes.pop("compute", ()))}),
            **changes,
        )

    def services(self, config: TrainingConfig) -> TrainingServices:
        def make(*, num_envs: int | None = None) -> Any:
            return self.make(num_envs=num_envs or config.simulation.num_envs)

        return TrainingServices(
            replay=ReplayService(config),
            rollout=RolloutCaptureService(make),
            promotion=PromotionServiceAdapter(config.promotion),
            evaluation=EvaluationService(
                lambda choice, num_envs: self.make(num_envs=num_envs),
                suite_from_config(config.simulation, config.evaluation),
                num_envs=config.evaluation.num_envs,
                resamples=200,
            ),
            make_simulation=make,
        )

    def context(
        self, config: TrainingConfig, *, name: str = "run", resume: bool = False, stop: threading.Event | None = None
    ) -> TrainingContext:
        path = self.root / name
        if not path.exists():
            RunDirectory.create(self.root, run_id=name).close()
            (path / "run.json").write_text("{}")
        return TrainingContext(
            config=config,
            services=self.services(config),
            run=RunDirectory.read(path),
            telemetry=self.telemetry,
            resume=resume,
            stop=stop or threading.Event(),
        )

    def write(self, policy: Any, *, name: str, steps: int = 24, spoil: Any = None) -> Path:
        simulation = self.make(num_envs=4)
        arrays = RolloutCollector(simulation, policy, steps=steps, seed=5).collect()
        table: Transitions = transitions_from_rollout(arrays, DataSpec.from_simulation(simulation.spec), label=name)
        folder = self.root / name
        folder.mkdir()
        entries = []
        for number, sample in enumerate(samples_from_transitions(table)):
            stem = folder / f"sample_{number:03d}"
            if spoil is not None:
                spoil(sample)
            extras: dict[str, Any] = dict(sample.extras)
            np.savez(
                stem.with_suffix(".npz"),
                map=sample.map,
                features=sample.features,
                actions=sample.actions,
                old_log_probs=sample.old_log_probs,
                value_preds=sample.value_preds,
                rewards=sample.rewards,
                dones=sample.dones,
                **extras,
            )
            stem.with_suffix(".json").write_text(json.dumps(sample.metadata))
            entries.append({"sample": stem.with_suffix(".npz").name, "meta": stem.with_suffix(".json").name})
        manifest: Path = folder / "manifest.json"
        manifest.write_text(json.dumps({"samples": entries}))
        return manifest


class StopAfter(threading.Event):
    """A stop that is asked for at the n-th look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


class StopWhen(threading.Event):
    """A stop that is asked for as soon as a condition holds."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        super().__init__()
        self.condition = condition

    def is_set(self) -> bool:
        return self.condition()


PATHS: dict[str, dict[str, Any]] = {
    "handwritten": {},
    "eager": {"handwritten": False},
    "bf16": {"bf16": True},
    "eager-bf16": {"handwritten": False, "bf16": True},
    "compiled": {"compile": True},
}
"""Ways to compute an update, as the configuration names them."""

ON_PATHS: dict[str, tuple[str, ...]] = {
    "test_an_update_equals_a_reference_written_step_by_step": ("handwritten", "eager", "compiled"),
    "test_two_runs_with_one_seed_are_byte_identical_and_another_seed_differs": tuple(PATHS),
    "test_a_run_of_2n_equals_a_run_of_n_and_its_resumption": ("handwritten", "eager", "bf16", "eager-bf16"),
    "test_value_warm_up_leaves_the_policy_as_it_is": ("handwritten", "eager", "bf16"),
    "test_bc_weight_pulls_towards_the_expert": ("handwritten", "eager", "bf16"),
    "test_identity_is_learned_within_2000_steps": tuple(PATHS),
    "test_a_masked_task_is_learned": ("handwritten", "eager", "bf16", "eager-bf16"),
    "test_switches_do_not_hinder_learning": ("handwritten", "eager", "bf16"),
}
"""Tests that are run on several of them; every other test takes the default path. Compiling takes half a minute."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device on which the learners of these tests compute")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = ON_PATHS.get(metafunc.function.__name__)
    if names is not None:
        deep = metafunc.function.__name__ != "test_an_update_equals_a_reference_written_step_by_step"
        marks = {"compiled": (pytest.mark.deep if deep else pytest.mark.slow,)}
        chosen = [pytest.param(name, marks=marks.get(name, ())) for name in names]
        metafunc.parametrize("compute_path", chosen, indirect=True)


@pytest.fixture
def compute_path(request: pytest.FixtureRequest) -> dict[str, Any]:
    return PATHS[getattr(request, "param", "handwritten")]


@pytest.fixture
def workshop(tmp_path: Path, compute_path: dict[str, Any], request: pytest.FixtureRequest) -> Workshop:
    # The option is there when pytest is given this folder.
    return Workshop(tmp_path, {"device": request.config.getoption("--device", "cpu"), **compute_path})


@pytest.fixture
def stop_after() -> Callable[[int], StopAfter]:
    return StopAfter


@pytest.fixture
def stop_when() -> Callable[[Callable[[], bool]], StopWhen]:
    return StopWhen


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
