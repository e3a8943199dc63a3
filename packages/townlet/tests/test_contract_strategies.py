"""Strategies of the old entry points: names that callers patch, order of checks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from townlet.config import SimulationConfig
from townlet.policy.models import TorchNotAvailableError
from townlet.policy.training.contexts import TrainingContext
from townlet.policy.training.strategies import AnnealStrategy, BCStrategy, PPOStrategy, TrainingStrategy


def _context(**bc: Any) -> TrainingContext:
    features: dict[str, Any] = {"stages": {}, "systems": {}, "training": {}}
    return TrainingContext.from_config(
        SimulationConfig.model_validate({"config_id": "c", "features": features, "rewards": {}, "training": {"bc": bc}})
    )


@pytest.mark.parametrize("strategy", [BCStrategy, PPOStrategy, AnnealStrategy])
def test_strategies_satisfy_the_protocol(strategy: type) -> None:
    assert isinstance(strategy(), TrainingStrategy)
    assert not isinstance(object(), TrainingStrategy)


def test_cloning_looks_its_names_up_where_callers_patch_them() -> None:
    dataset = SimpleNamespace(map_shape=(4, 11, 11), feature_dim=81, action_dim=6)
    with (
        mock.patch("townlet.policy.models.torch_available", return_value=True),
        mock.patch("townlet.policy.bc.load_bc_samples", return_value=["sample"]) as load,
        mock.patch("townlet.policy.bc.BCTrajectoryDataset", return_value=dataset) as build,
        mock.patch("townlet.policy.bc.BCTrainer") as trainer,
    ):
        trainer.return_value.fit.return_value = {"accuracy": 0.95, "loss": 0.1, "val_accuracy": 0.9, "val_loss": 0.2}
        result = BCStrategy().run(_context(manifest="m.json", learning_rate=0.01, batch_size=8, epochs=3))
    load.assert_called_once_with(Path("m.json"))
    build.assert_called_once_with(["sample"])
    params, policy = trainer.call_args.args
    assert (params.learning_rate, params.batch_size, params.epochs) == (0.01, 8, 3)
    assert (params.weight_decay, params.device) == (0.0, "cpu")
    assert (policy.feature_dim, policy.map_shape, policy.action_dim) == (81, (4, 11, 11), 6)
    assert (result.accuracy, result.loss, result.val_accuracy, result.val_loss) == (0.95, 0.1, 0.9, 0.2)
    assert (result.mode, result.manifest, result.epochs) == ("bc", "m.json", 3)


def test_patches_leave_the_names_as_they_were() -> None:
    import townlet.policy.bc as bc

    before = bc.BCTrainer
    with mock.patch("townlet.policy.bc.BCTrainer") as patched:
        assert bc.BCTrainer is patched
    assert bc.BCTrainer is before


def test_torch_is_checked_before_the_manifest() -> None:
    with mock.patch("townlet.policy.models.torch_available", return_value=False):
        with pytest.raises(TorchNotAvailableError, match="PyTorch is required for behaviour cloning"):
            BCStrategy().run(_context())
        with pytest.raises(TorchNotAvailableError, match="install"):
            PPOStrategy().run(_context(), dataset_config=Path("nowhere.json"))
        with pytest.raises(TorchNotAvailableError):
            AnnealStrategy().run(_context())
    with (
        mock.patch("townlet.policy.models.torch_available", return_value=True),
        pytest.raises(ValueError, match="BC manifest is required"),
    ):
        BCStrategy().run(_context())
