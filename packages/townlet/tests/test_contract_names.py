"""Module paths and names that existing code imports; what is the very same object, what needs torch."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import townlet

NAMES = {
    "townlet.dto.policy": "TrainingResultBase BCTrainingResultDTO PPOTrainingResultDTO AnnealStageResultDTO "
    "AnnealSummaryDTO",
    "townlet.dto.observations": "DTO_SCHEMA_VERSION AgentObservationDTO GlobalObservationDTO ObservationEnvelope "
    "ObservationMetadata",
    "townlet.policy": "BCTrainer BCTrainingConfig BCTrajectoryDataset DEFAULT_POLICY_PROVIDER resolve_policy_backend "
    "PolicyRuntime TrainingHarness evaluate_bc_policy load_bc_samples",
    "townlet.policy.models": "ConflictAwarePolicyConfig ConflictAwarePolicyNetwork TorchNotAvailableError "
    "torch_available",
    "townlet.policy.bc": "BCTrainer BCTrainingConfig BCTrajectoryDataset evaluate_bc_policy load_bc_samples",
    "townlet.policy.backends.pytorch.bc": "BCTrainer BCTrainingConfig BCTrajectoryDataset evaluate_bc_policy "
    "load_bc_samples",
    "townlet.policy.backends.pytorch.ppo_utils": "compute_gae normalize_advantages value_baseline_from_old_preds "
    "clipped_value_loss policy_surrogate AdvantageReturns",
    "townlet.policy.ppo": "compute_gae policy_surrogate",
    "townlet.policy.ppo.utils": "compute_gae normalize_advantages value_baseline_from_old_preds clipped_value_loss "
    "policy_surrogate AdvantageReturns",
    "townlet.policy.replay": "ReplaySample ReplayBatch ReplayDataset ReplayDatasetConfig TRAINING_ARRAY_FIELDS "
    "STEP_ARRAY_FIELDS REQUIRED_CONFLICT_FEATURES load_replay_sample build_batch frames_to_replay_sample",
    "townlet.policy.replay_buffer": "InMemoryReplayDataset InMemoryReplayDatasetConfig",
    "townlet.policy.rollout": "RolloutBuffer AgentRollout build_dto_rollout_artifact",
    "townlet.policy.trajectory_service": "TrajectoryService",
    "townlet.policy.metrics": "compute_sample_metrics",
    "townlet.policy.runner": "PolicyRuntime TrainingHarness",
    "townlet.policy.training_orchestrator": "PolicyTrainingOrchestrator PPO_TELEMETRY_VERSION ANNEAL_BC_MIN_DEFAULT "
    "ANNEAL_LOSS_TOLERANCE_DEFAULT ANNEAL_QUEUE_TOLERANCE_DEFAULT DEFAULT_REPLAY_MANIFEST",
    "townlet.policy.training": "TrainingOrchestrator PolicyTrainingOrchestrator PromotionServiceAdapter "
    "ReplayDatasetService "
    "RolloutCaptureService TrainingServices",
    "townlet.policy.training.contexts": "TrainingContext AnnealContext PPOState",
    "townlet.policy.training.services": "PromotionServiceAdapter ReplayDatasetService RolloutCaptureService "
    "TrainingServices",
    "townlet.policy.training.strategies": "AnnealStrategy BCStrategy PPOStrategy TrainingStrategy",
    "townlet.policy.training.strategies.base": "TrainingStrategy",
    "townlet.policy.scenario_utils": "apply_scenario seed_default_agents has_agents ScenarioBehavior",
    "townlet.core.sim_loop": "SimulationLoop",
    "townlet.policy.scripted": "get_scripted_policy ScriptedPolicyAdapter",
    "townlet.policy.fallback": "StubPolicyBackend is_stub_policy",
    "townlet.stability.promotion": "PromotionManager",
    "townlet.core": "policy_registry telemetry_registry",
    "townlet.core.utils": "is_stub_policy policy_provider_name telemetry_provider_name",
    "townlet.telemetry.fallback": "StubTelemetrySink",
    "townlet.config": "load_config SimulationConfig PPOConfig AnnealStage RuntimeProviderConfig",
    "townlet.config.loader": "load_config",
}

CORE = "townlet_training_core."
SAME = {
    "townlet.dto.policy:PPOTrainingResultDTO": "townlet_training_core.dto.results:PPOTrainingResultDTO",
    "townlet.policy.replay:ReplaySample": "townlet_training_core.replay.sample:ReplaySample",
    "townlet.policy.replay:ReplayDataset": "townlet_training_core.replay.dataset:ReplayDataset",
    "townlet.policy.replay:load_replay_sample": "townlet_training_core.replay.npz:load_replay_sample",
    "townlet.policy.replay_buffer:InMemoryReplayDataset": "townlet_training_core.replay.dataset:InMemoryReplayDataset",
    "townlet.policy.rollout:RolloutBuffer": "townlet_training_core.rollout.frames:FrameRolloutBuffer",
    "townlet.policy.trajectory_service:TrajectoryService": "townlet_training_core.rollout.trajectory:TrajectoryService",
    "townlet.policy.metrics:compute_sample_metrics": "townlet_training_core.replay.metrics:compute_sample_metrics",
    "townlet.stability.promotion:PromotionManager": "townlet_training_core.promotion.manager:PromotionManager",
    "townlet.policy.training:PromotionServiceAdapter": CORE + "promotion.manager:PromotionServiceAdapter",
    "townlet.policy.training.contexts:AnnealContext": "townlet_training_core.strategy:AnnealContext",
    "townlet.policy.models:TorchNotAvailableError": "townlet_training_core.errors:TorchNotAvailableError",
    "townlet.policy.bc:load_bc_samples": "townlet_training_core.replay.manifest:load_bc_samples",
}

# Adapters: thin classes of the façade's own. Everything else that old code imports is the object of a library.
OWN = {
    "townlet.policy.training_orchestrator": "PolicyTrainingOrchestrator",
    "townlet.policy.training": "TrainingOrchestrator PolicyTrainingOrchestrator RolloutCaptureService TrainingServices",
    "townlet.policy.training.services": "RolloutCaptureService TrainingServices",
    "townlet.policy.models": "torch_available",
    "townlet.policy.training.contexts": "TrainingContext PPOState",
    "townlet.policy.training.strategies": "AnnealStrategy BCStrategy PPOStrategy TrainingStrategy",
    "townlet.policy.training.strategies.base": "TrainingStrategy",
    "townlet.policy.runner": "PolicyRuntime TrainingHarness",
    "townlet.policy": "PolicyRuntime TrainingHarness resolve_policy_backend",
    "townlet.core.sim_loop": "SimulationLoop",
    "townlet.core.utils": "policy_provider_name telemetry_provider_name",
    "townlet.config": "load_config SimulationConfig PPOConfig AnnealStage RuntimeProviderConfig",
    "townlet.config.loader": "load_config",
}
LIBRARIES = ("townlet_training_core.", "townlet_training_torch.", "townlet_sim.")


def _resolve(path: str) -> object:
    module, _, dotted = path.partition(":")
    found: object = importlib.import_module(module)
    for name in dotted.split("."):
        found = getattr(found, name)
    return found


def _modules() -> list[str]:
    return sorted(module.name for module in pkgutil.walk_packages(townlet.__path__, "townlet."))


@pytest.mark.parametrize("module", NAMES)
def test_every_old_module_has_its_names(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("old", SAME)
def test_old_name_is_the_new_object(old: str) -> None:
    assert _resolve(old) is _resolve(SAME[old])


@pytest.mark.parametrize("module", NAMES)
def test_all_but_the_adapters_is_an_object_of_a_library(module: str) -> None:
    found = importlib.import_module(module)
    things = {name: getattr(found, name) for name in NAMES[module].split()}
    origins = {
        name: thing.__module__ for name, thing in things.items() if inspect.isroutine(thing) or isinstance(thing, type)
    }
    own = {name for name, origin in origins.items() if not origin.startswith(LIBRARIES)}
    if importlib.util.find_spec("torch"):  # without torch its names are the façade's stand-ins
        assert own == {*OWN.get(module, "").split()}


def test_torch_backed_names_are_those_of_the_torch_package() -> None:
    pytest.importorskip("torch")
    legacy = importlib.import_module("townlet_training_torch.legacy")
    for module in ("townlet.policy.bc", "townlet.policy.models", "townlet.policy.ppo.utils", "townlet.policy.ppo"):
        found = importlib.import_module(module)
        shared = [name for name in NAMES[module].split() if name in legacy.__all__]
        assert shared
        assert all(getattr(found, name) is getattr(legacy, name) for name in shared)


def test_constants() -> None:
    assert _resolve("townlet.policy.training_orchestrator:PPO_TELEMETRY_VERSION") == 1.2
    assert _resolve("townlet.policy.training_orchestrator:ANNEAL_BC_MIN_DEFAULT") == 0.9
    assert _resolve("townlet.policy.training_orchestrator:ANNEAL_LOSS_TOLERANCE_DEFAULT") == 0.10
    assert _resolve("townlet.policy.training_orchestrator:ANNEAL_QUEUE_TOLERANCE_DEFAULT") == 0.15
    assert Path("docs/samples/replay_manifest.json") == _resolve(
        "townlet.policy.training_orchestrator:DEFAULT_REPLAY_MANIFEST"
    )
    assert _resolve("townlet.policy:DEFAULT_POLICY_PROVIDER") == "scripted"
    assert _resolve("townlet.dto.observations:DTO_SCHEMA_VERSION") == "0.2.0"


def test_unknown_names_are_attribute_errors() -> None:
    for module in ("townlet.policy", "townlet.policy.bc", "townlet.policy.ppo.utils"):
        with pytest.raises(AttributeError, match="has no attribute"):
            getattr(importlib.import_module(module), "nothing_of_that_name")  # noqa: B009  # asked dynamically


def _run(code: str, *, path: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **({"PYTHONPATH": str(path)} if path else {})},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_a_facade_module_never_imports_torch_or_numba() -> None:
    out = _run(f"""
        import importlib, sys
        for name in {_modules()!r}:
            importlib.import_module(name)
        print([name for name in ("torch", "numba", "matplotlib") if name in sys.modules])
    """)
    assert out.strip() == "[]"


def test_without_torch_every_module_imports_and_torch_names_refuse_when_used() -> None:
    out = _run(f"""
        import importlib, sys
        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("torch", "townlet_training_torch"):
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Block())
        names = {NAMES!r}
        for module in {_modules()!r}:
            found = importlib.import_module(module)
            for name in names.get(module, "").split():
                assert hasattr(found, name), (module, name)
        from townlet.policy.models import *
        from townlet.policy.models import ConflictAwarePolicyConfig, TorchNotAvailableError, torch_available
        from townlet.policy.bc import BCTrainer, BCTrainingConfig, load_bc_samples
        from townlet.policy.ppo.utils import compute_gae
        from townlet.policy.training_orchestrator import PolicyTrainingOrchestrator
        assert not torch_available()
        assert BCTrainingConfig().batch_size == 64
        assert ConflictAwarePolicyConfig(3, (1, 4, 4), 2).hidden_dim == 256
        from townlet.config import SimulationConfig
        config = SimulationConfig(
            config_id="c", features={{"stages": {{}}, "systems": {{}}, "training": {{}}}}, rewards={{}}
        )
        orchestrator = PolicyTrainingOrchestrator(config)
        for use in (
            lambda: BCTrainer(BCTrainingConfig(), None),
            lambda: ConflictAwarePolicyNetwork(ConflictAwarePolicyConfig(3, (1, 4, 4), 2)),
            lambda: orchestrator.build_policy_network(3, (1, 4, 4), 2),
            lambda: compute_gae(1, 2, 3, 4, 5),
            lambda: orchestrator.run_ppo("nowhere.json"),
            lambda: orchestrator.run_bc_training(),
            lambda: orchestrator.run_anneal(),
        ):
            try:
                use()
            except TorchNotAvailableError as error:
                assert "pip install 'townlet[ml]'" in str(error), error
                assert isinstance(error, RuntimeError) and isinstance(error, ImportError)
            else:
                raise AssertionError("no error")
        print("done")
    """)
    assert out.strip() == "done"


def test_an_owners_tree_lives_beside_the_facade(tmp_path: Path) -> None:
    world = tmp_path / "townlet" / "policy" / "owners"
    world.mkdir(parents=True)
    (world / "__init__.py").write_text("name = 'owners'\n")
    out = _run("import townlet.policy.owners, townlet.policy.replay; print(townlet.policy.owners.name)", path=tmp_path)
    assert out.strip() == "owners"


def test_re_exporting_modules_hold_no_logic() -> None:
    import ast

    for module in (
        "dto.policy",
        "policy.replay",
        "policy.replay_buffer",
        "policy.rollout",
        "policy.trajectory_service",
        "policy.metrics",
        "policy.models",
        "policy.bc",
        "policy.ppo.utils",
        "stability.promotion",
    ):
        spec = importlib.util.find_spec(f"townlet.{module}")
        assert spec is not None
        assert spec.origin is not None
        body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
        allowed = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.If)
        assert all(isinstance(statement, allowed) for statement in body), module
        assert len(body) <= 10, module
