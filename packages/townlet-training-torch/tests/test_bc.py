"""Behaviour cloning: judged on held-out trajectories, best epoch kept, exactly resumable."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest
import torch

from townlet_training_core.config.requests import BCRequest
from townlet_training_core.errors import CapabilityError, DataError, InterruptedRunError, NonFiniteError
from townlet_training_core.files import sha256_file
from townlet_training_core.policy.exported import ExportedPolicy
from townlet_training_core.policy.scripted import ScriptedPolicy
from townlet_training_torch.bc import BCStrategy
from townlet_training_torch.checkpoint import read_snapshot
from townlet_training_torch.cloning import CloningData, classify
from townlet_training_torch.learner import Learner
from townlet_training_torch.networks import build_network, describe
from townlet_training_torch.summaries import classification_report


def _weights(context: Any, result: Any) -> str:
    return sha256_file(context.run.path / str(result.checkpoint) / "policy.safetensors")


@pytest.mark.parametrize("recurrent", ["none", "gru"])
@pytest.mark.parametrize("task", ["identity", "masked"])
def test_the_expert_is_cloned(workshop: Any, task: str, recurrent: str) -> None:
    workshop.use(task=task)
    config = workshop.config(bc={"epochs": 12, "learning_rate": 1e-2}, network={"recurrent": recurrent}, num_envs=8)
    context = workshop.context(config)
    BCStrategy().prepare(context, BCRequest())
    result = BCStrategy().run(context, BCRequest())
    assert result.val_accuracy == 1.0
    policy = ExportedPolicy.load(context.run.path)
    played = context.services.evaluation.evaluate(policy, label="clone")
    assert played.summary.mean.estimate > 0.85 * 8
    records = workshop.telemetry.of("bc.epoch")
    assert len(records) == 12
    assert records[-1]["loss"] < records[0]["loss"]
    report = json.loads((context.run.results / "bc-report.json").read_text())
    assert report["macro_f1"] == 1.0
    assert np.trace(np.array(report["confusion"])) == report["samples"]


def test_held_out_trajectories_are_never_trained_on(workshop: Any) -> None:
    workshop.use(task="identity", agents=3)
    data = CloningData(workshop.context(workshop.config(num_envs=6)), None)
    assert not (data.training & data.held_out).any()
    assert ((data.training | data.held_out) == data.arrays.valid).all()
    envs_trained = set(np.nonzero(data.training)[1] // 3)
    envs_held = set(np.nonzero(data.held_out)[1] // 3)
    assert envs_trained.isdisjoint(envs_held)
    assert len(envs_held) == 1


def test_few_environments_are_split_by_episode(workshop: Any) -> None:
    workshop.use(task="identity", ticks=8)
    data = CloningData(workshop.context(workshop.config(num_envs=1)), None)
    episodes = np.arange(32) // 8
    held = set(episodes[data.held_out[:, 0]])
    assert len(held) == 1
    assert held.isdisjoint(set(episodes[data.training[:, 0]]))


def test_one_trajectory_is_not_enough(workshop: Any) -> None:
    workshop.use(task="identity", ticks=64)
    with pytest.raises(DataError, match="at least two"):
        CloningData(workshop.context(workshop.config(num_envs=1)), None)


def test_the_best_epoch_is_kept_and_patience_stops(workshop: Any) -> None:
    workshop.use(task="memory")  # cannot be learned without memory: the held-out loss turns up again
    config = workshop.config(bc={"epochs": 30, "learning_rate": 0.1, "patience": 2, "max_grad_norm": 0.0})
    context = workshop.context(config)
    result = BCStrategy().run(context, BCRequest())
    records = workshop.telemetry.of("bc.epoch")
    assert result.epochs == len(records) < 30
    assert result.val_accuracy == max(record["val_accuracy"] for record in records)
    snapshot = read_snapshot(context.run.path / str(result.checkpoint))
    again = workshop.context(config, resume=True)
    assert BCStrategy().run(again, BCRequest()).val_accuracy == result.val_accuracy
    assert any(not np.array_equal(snapshot.tensors[n], snapshot.optimizer[f"training/{n}"]) for n in snapshot.tensors)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"network": {"recurrent": "gru"}},
        {"bc": {"class_balance": 1.0, "label_smoothing": 0.1, "weight_decay": 0.1}},
        {"ppo": {"normalize_observations": True, "normalize_returns": True}},
    ],
    ids=["plain", "recurrent", "switches", "normalised"],
)
def test_a_run_of_2n_equals_a_run_of_n_and_its_resumption(workshop: Any, options: dict[str, Any]) -> None:
    workshop.use(task="masked", agents=2)
    config = workshop.config(**options)
    whole = workshop.context(config, name="whole")
    expected = BCStrategy().run(whole, BCRequest(epochs=4))
    halves = workshop.context(config, name="halves")
    BCStrategy().run(halves, BCRequest(epochs=2))
    torch.rand(1)  # a new process has other global generators
    again = workshop.context(config, name="halves", resume=True)
    found = BCStrategy().run(again, BCRequest(epochs=4))
    assert _weights(again, found) == _weights(whole, expected)
    assert found.checkpoint == expected.checkpoint
    assert found.val_loss == expected.val_loss
    optimizers = [run.run.path / str(expected.checkpoint) / "optimizer.safetensors" for run in (whole, again)]
    assert sha256_file(optimizers[0]) == sha256_file(optimizers[1])


@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_a_stop_among_dagger_rounds_resumes_with_the_same_students(workshop: Any, stop_when: Any, epochs: int) -> None:
    workshop.use(task="identity", agents=2)
    config = workshop.config(bc={"dagger_rounds": 2, "dagger_steps": 8, "epochs": 2}, checkpoint={"every": 1})
    whole = workshop.context(config, name="whole")
    expected = BCStrategy().run(whole, BCRequest())
    done = len(workshop.telemetry.of("bc.epoch"))
    stop = stop_when(lambda: len(workshop.telemetry.of("bc.epoch")) >= done + epochs)
    halves = workshop.context(config, name="halves", stop=stop)
    with pytest.raises(InterruptedRunError):
        BCStrategy().run(halves, BCRequest())
    assert read_snapshot(sorted(halves.run.checkpoints.glob("0*"))[-1]).step == epochs < expected.epochs == 6
    torch.rand(1)
    again = workshop.context(config, name="halves", resume=True)
    found = BCStrategy().run(again, BCRequest())
    assert _weights(again, found) == _weights(whole, expected)
    assert found.val_loss == expected.val_loss


def test_dagger_adds_labelled_states_that_the_student_visits(workshop: Any) -> None:
    workshop.use(task="memory")
    context = workshop.context(workshop.config(bc={"dagger_steps": 16}))
    data = CloningData(context, None)
    network = build_network(describe(data.spaces, context.config.network))
    before = data.training.sum()
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    data.add_student_round(0, ExportedPolicy(tensors, network.description))
    assert data.training.sum() == before + 16 * 6
    assert not data.held_out[-16:].any()
    assert set(np.unique(data.arrays.actions[-16:])) <= {0, 1}  # the expert's labels, not the student's actions


def test_vacuous_data_is_called_out(workshop: Any, caplog: pytest.LogCaptureFixture) -> None:
    workshop.use(task="bandit")
    with caplog.at_level(logging.WARNING):
        BCStrategy().run(workshop.context(workshop.config()), BCRequest())
    assert "single action" in caplog.text
    assert all(record["vacuous"] for record in workshop.telemetry.of("bc.epoch"))


def test_label_smoothing_class_balance_and_weight_decay_are_honoured(workshop: Any) -> None:
    workshop.use(task="masked")
    hashes = set()
    for number, bc in enumerate(({}, {"label_smoothing": 0.2}, {"class_balance": 1.0}, {"weight_decay": 0.3})):
        context = workshop.context(workshop.config(bc=bc), name=f"run{number}")
        hashes.add(_weights(context, BCStrategy().run(context, BCRequest())))
    assert len(hashes) == 4


def test_class_weights_balance_the_classes(workshop: Any) -> None:
    workshop.use(task="masked")
    data = CloningData(workshop.context(workshop.config(bc={"class_balance": 1.0})), None)
    weights = data.class_weights(torch.device("cpu"))
    assert weights is not None
    counts = np.bincount(data.arrays.actions[data.training], minlength=4)
    np.testing.assert_allclose(weights.numpy() * counts, counts.sum() / 4, rtol=1e-5)


def test_a_report_by_hand() -> None:
    # Right actions are rows: a is hit 2 of 3 times, b 1 of 1, c never occurs and is chosen once.
    confusion = np.array([[2, 0, 1], [0, 1, 0], [0, 0, 0]])
    report = classification_report(confusion, top_k_hits=3, names=("a", "b", "c"))
    assert report["samples"] == 4
    assert report["accuracy"] == 0.75
    assert report["top_k_accuracy"] == 0.75
    assert report["actions"]["a"] == {"precision": 1.0, "recall": 2 / 3, "f1": 0.8, "support": 3}
    assert report["actions"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert report["macro_f1"] == pytest.approx((0.8 + 1.0) / 2)
    assert report["vacuous"] is False
    assert classification_report(np.diag([0, 5]), top_k_hits=5, names=("a", "b"))["vacuous"] is True


@pytest.mark.parametrize("top_k", [1, 2, 3, 9])
def test_a_report_equals_one_counted_row_by_row(workshop: Any, top_k: int) -> None:
    workshop.use(task="masked")
    context = workshop.context(workshop.config())
    data = CloningData(context, None)
    network = build_network(describe(data.spaces, context.config.network))
    with torch.no_grad():
        network.policy_head.weight.normal_(0.0, 1.0, generator=torch.Generator().manual_seed(3))
    rows = data.rows(network, data.held_out)
    names = data.spaces.action_names
    found = classify(Learner(network, learning_rate=1e-3), rows, names=names, top_k=top_k)
    hits, among, loss, confusion = 0, 0, 0.0, np.zeros((4, 4), int)
    for step, slot in zip(*np.nonzero(data.held_out), strict=True):
        seen = {"features": torch.from_numpy(data.arrays.observations["features"][step, slot][None])}
        mask = data.arrays.action_mask
        assert mask is not None
        with torch.no_grad():
            table = torch.log_softmax(network(seen, torch.from_numpy(mask[step, slot][None])).logits[0].double(), -1)
        right, order = int(data.arrays.actions[step, slot]), table.argsort(descending=True).tolist()
        hits += order[0] == right
        among += right in order[:top_k]
        loss -= float(table[right])
        confusion[right, order[0]] += 1
    total = int(data.held_out.sum())
    assert found["accuracy"] == pytest.approx(hits / total)
    assert found["top_k_accuracy"] == pytest.approx(among / total)
    assert found["loss"] == pytest.approx(loss / total, rel=1e-5)
    assert found["confusion"] == confusion.tolist()


def test_without_expert_and_manifest_nothing_can_be_cloned(workshop: Any) -> None:
    workshop.use(task="identity", expert=False)
    with pytest.raises(CapabilityError, match="no scripted expert to clone"):
        BCStrategy().prepare(workshop.context(workshop.config()), BCRequest())


def test_stored_captures_are_cloned_without_the_simulation(workshop: Any) -> None:
    workshop.use(task="masked")
    manifest = workshop.write(ScriptedPolicy(), name="captures", steps=64)
    workshop.make = None  # nothing may ask for it
    context = workshop.context(workshop.config(bc={"epochs": 12, "learning_rate": 1e-2}))
    request = BCRequest(manifest=manifest)
    BCStrategy().prepare(context, request)
    result = BCStrategy().run(context, request)
    assert result.manifest == str(manifest)
    assert result.val_accuracy == 1.0


def test_dagger_on_stored_captures_is_refused(workshop: Any) -> None:
    workshop.use(task="identity")
    manifest = workshop.write(ScriptedPolicy(), name="captures")
    context = workshop.context(workshop.config(bc={"dagger_rounds": 1, "epochs": 1}))
    with pytest.raises(CapabilityError, match="DAgger rounds need data captured from the simulation"):
        BCStrategy().run(context, BCRequest(manifest=manifest))


def test_nan_in_the_observations_is_named(workshop: Any) -> None:
    workshop.use(task="identity")

    def spoil(sample: Any) -> None:
        sample.features[2, 1] = np.inf

    manifest = workshop.write(ScriptedPolicy(), name="spoilt", spoil=spoil)
    with pytest.raises(NonFiniteError, match=r"BC features contained NaN/inf \(dataset=.*manifest.json, batch=0\)"):
        BCStrategy().run(workshop.context(workshop.config()), BCRequest(manifest=manifest))


def test_normalisers_are_primed_with_the_training_rows(workshop: Any) -> None:
    workshop.use(task="identity")
    config = workshop.config(ppo={"normalize_observations": True, "normalize_returns": True}, bc={"epochs": 1})
    context = workshop.context(config)
    result = BCStrategy().run(context, BCRequest())
    tensors = read_snapshot(context.run.path / str(result.checkpoint)).tensors
    data = CloningData(context, None)
    rows = data.arrays.observations["features"][data.training]
    np.testing.assert_allclose(tensors["normaliser.features_mean"], rows.mean(axis=0), atol=1e-6)
    assert tensors["normaliser.features_count"] == len(rows)
    # Value targets are in units of the discounted return's deviation.
    plain = CloningData(workshop.context(workshop.config()), None)
    network = build_network(describe(data.spaces, config.network))
    scaled, raw = (d.rows(network, d.training).columns["returns"].abs().mean() for d in (data, plain))
    assert scaled < raw
