"""PPO: on-policy, exactly resumable, and equal to a reference written step by step."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from townlet_training_core.config.requests import PPORequest
from townlet_training_core.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    InterruptedRunError,
    NonFiniteError,
)
from townlet_training_core.files import sha256_file
from townlet_training_core.policy.random import RandomPolicy
from townlet_training_core.policy.scripted import ScriptedPolicy
from townlet_training_core.rollout.capture import RolloutCollector
from townlet_training_core.streams import generator, stream_seed
from townlet_training_torch.checkpoint import read_snapshot
from townlet_training_torch.minibatches import deal, rows_of
from townlet_training_torch.networks import build_network, describe
from townlet_training_torch.policy import TorchPolicy
from townlet_training_torch.ppo import PPOStrategy, ppo_loss
from townlet_training_torch.seeding import torch_generator
from townlet_training_torch.session import Session, check_start
from townlet_training_torch.sources import PPOSource, UpdatePlan

CONTRACT_KEYS = {
    "epoch",
    "updates",
    "transitions",
    "loss_policy",
    "loss_value",
    "loss_entropy",
    "loss_total",
    "clip_fraction",
    "adv_mean",
    "adv_std",
    "grad_norm",
    "kl_divergence",
    "telemetry_version",
    "lr",
    "steps",
    "adv_zero_std_batches",
    "adv_min_std",
    "clip_triggered_minibatches",
    "clip_fraction_max",
    "epoch_duration_sec",
    "data_mode",
    "cycle_id",
    "batch_entropy_mean",
    "batch_entropy_std",
    "grad_norm_max",
    "kl_divergence_max",
    "reward_advantage_corr",
    "rollout_ticks",
    "log_stream_offset",
    "queue_conflict_events",
    "queue_conflict_intensity_sum",
    "shared_meal_events",
    "late_help_events",
    "shift_takeover_events",
    "chat_success_events",
    "chat_failure_events",
    "chat_quality_mean",
}


def _weights(path: Path) -> str:
    return sha256_file(path / "policy.safetensors")


def _session(workshop: Any, config: Any, source: PPOSource) -> Session:
    context = workshop.context(config)
    return Session(
        context,
        check_start(context, source.spaces, None),
        init_from=None,
        learning_rate=config.ppo.learning_rate,
        eps=config.ppo.adam_eps,
        max_grad_norm=config.ppo.max_grad_norm,
    )


@pytest.mark.parametrize("recurrent", ["none", "gru", "lstm"])
@pytest.mark.parametrize("task", ["identity", "masked", "memory"])
def test_first_mini_batch_after_a_capture_has_ratio_one(workshop: Any, task: str, recurrent: str) -> None:
    workshop.use(task=task, agents=2)
    config = workshop.config(network={"recurrent": recurrent}, ppo={"sequence_length": 5, "rollout_steps": 13})
    with PPOSource.open(workshop.context(config), PPORequest()) as source:
        session = _session(workshop, config, source)
        source.start(session)
        for iteration in range(2):  # the second capture begins in the middle of episodes
            harvest = source.collect(iteration, expert_share=0.0)
            plan = UpdatePlan(learning_rate=1e-3, entropy_coef=0.0)
            batch = harvest.rows.gather(np.arange(harvest.rows.units))
            loss, metrics = ppo_loss(session.learner, batch, config.ppo, plan=plan)
            clip_fraction, kl = metrics[4].item(), metrics[5].item()
            assert clip_fraction == 0.0
            assert abs(kl) < 1e-5
            session.learner.step(loss)
            session.learner.apply()
        after = ppo_loss(session.learner, batch, config.ppo, plan=plan)[1][5].item()
        assert after > 1e-9  # the numbers above are not zero by construction


def test_an_update_equals_a_reference_written_step_by_step(workshop: Any) -> None:
    workshop.use(task="masked", agents=2)
    config = workshop.config(ppo={"num_epochs": 3, "entropy_coef": 0.02, "learning_rate": 2e-3, "iterations": 1})
    context = workshop.context(config)
    result = PPOStrategy().run(context, PPORequest())
    trained = read_snapshot(context.run.path / str(result.checkpoint)).tensors

    ppo, simulation = config.ppo, workshop.make(num_envs=6)
    network = build_network(
        describe(simulation.spec, config.network), generator=torch_generator(config.seed, "network"), orthogonal=True
    )
    rollout = RolloutCollector(
        simulation, TorchPolicy(network), steps=16, seed=stream_seed(config.seed, "rollout")
    ).collect()
    assert rollout.values is not None
    assert rollout.next_values is not None
    assert rollout.log_probs is not None
    assert rollout.action_mask is not None
    steps, slots = rollout.rewards.shape
    advantages = np.zeros((steps, slots), np.float32)
    for slot in range(slots):
        running = 0.0
        for step in reversed(range(steps)):
            go_on = not (rollout.terminated[step, slot] or rollout.truncated[step, slot])
            bootstrap = 0.0 if rollout.terminated[step, slot] else float(rollout.next_values[step, slot])
            delta = float(rollout.rewards[step, slot]) + ppo.gamma * bootstrap - float(rollout.values[step, slot])
            running = delta + (ppo.gamma * ppo.gae_lambda * running if go_on else 0.0)
            advantages[step, slot] = running
    flat = {
        "features": torch.from_numpy(rollout.observations["features"].reshape(-1, 5).copy()),
        "mask": torch.from_numpy(rollout.action_mask.reshape(-1, 4).copy()),
        "actions": torch.from_numpy(rollout.actions.reshape(-1).copy()),
        "old": torch.from_numpy(rollout.log_probs.reshape(-1).copy()),
        "values": torch.from_numpy(rollout.values.reshape(-1).copy()),
        "advantages": torch.from_numpy(advantages.reshape(-1)),
    }
    flat["returns"] = flat["advantages"] + flat["values"]
    optimizer = torch.optim.Adam(network.parameters(), lr=ppo.learning_rate, eps=ppo.adam_eps)
    stream = generator(config.seed, "minibatches")
    for _ in range(ppo.num_epochs):
        for part in np.array_split(stream.permutation(steps * slots), -(-steps * slots // 32)):
            row = {name: column[torch.from_numpy(part)] for name, column in flat.items()}
            logits, values, _ = network({"features": row["features"]})
            logits = torch.where(row["mask"], logits, torch.tensor(-1e9))
            distribution: Any = torch.distributions.Categorical(logits=logits)
            ratio = (distribution.log_prob(row["actions"]) - row["old"]).exp()
            adv = (row["advantages"] - row["advantages"].mean()) / (row["advantages"].std(unbiased=False) + 1e-8)
            surrogate = -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
            near = row["values"] + (values - row["values"]).clamp(-0.2, 0.2)
            value = 0.5 * torch.max((values - row["returns"]) ** 2, (near - row["returns"]) ** 2).mean()
            loss = surrogate + ppo.value_loss_coef * value - ppo.entropy_coef * distribution.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), ppo.max_grad_norm)
            optimizer.step()
    for name, tensor in network.state_dict().items():
        np.testing.assert_allclose(trained[name], tensor.numpy(), atol=1e-6, rtol=1e-5, err_msg=name)


def test_two_runs_with_one_seed_are_byte_identical_and_another_seed_differs(workshop: Any) -> None:
    workshop.use(task="masked")
    hashes = []
    for name, seed in (("first", 3), ("second", 3), ("third", 4)):
        context = workshop.context(workshop.config(seed=seed), name=name)
        result = PPOStrategy().run(context, PPORequest())
        hashes.append(_weights(context.run.path / str(result.checkpoint)))
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"network": {"recurrent": "gru"}, "ppo": {"sequence_length": 4}},
        {"ppo": {"normalize_observations": True, "normalize_returns": True}},
        {"request": {"bc_weight": 0.5, "blend": 0.3}},
    ],
    ids=["plain", "recurrent", "normalised", "blended"],
)
def test_a_run_of_2n_equals_a_run_of_n_and_its_resumption(workshop: Any, options: dict[str, Any]) -> None:
    workshop.use(task="identity", agents=2, ticks=5)
    request = options.get("request", {})
    config = workshop.config(**{key: value for key, value in options.items() if key != "request"})
    whole = workshop.context(config, name="whole")
    expected = PPOStrategy().run(whole, PPORequest(iterations=4, **request))
    halves = workshop.context(config, name="halves")
    PPOStrategy().run(halves, PPORequest(iterations=2, **request))
    torch.rand(3)  # a new process has other global generators
    again = workshop.context(config, name="halves", resume=True)
    found = PPOStrategy().run(again, PPORequest(iterations=4, **request))
    assert found.checkpoint == expected.checkpoint
    for file in ("policy.safetensors", "rollout.safetensors", "optimizer.safetensors"):
        if file != "rollout.safetensors":  # python's and torch's global generators differ, as they should
            first, second = (run.run.path / str(expected.checkpoint) / file for run in (whole, again))
            assert sha256_file(first) == sha256_file(second), file
    assert found.steps == expected.steps


@pytest.mark.parametrize("looks", [0, 9, 19, 25, 60])  # in the first capture, its update, later ones
def test_a_run_that_is_stopped_anywhere_goes_on_as_if_nothing_happened(
    workshop: Any, stop_after: Any, looks: int
) -> None:
    workshop.use(task="identity")
    config = workshop.config(checkpoint={"every": 3})
    whole = workshop.context(config, name="whole")
    expected = PPOStrategy().run(whole, PPORequest())
    stopped = workshop.context(config, name="stopped", stop=stop_after(looks))
    with pytest.raises(InterruptedRunError, match=r"resume with: townlet train --resume .*stopped"):
        PPOStrategy().run(stopped, PPORequest())
    again = workshop.context(config, name="stopped", resume=True)
    found = PPOStrategy().run(again, PPORequest())
    assert _weights(again.run.path / str(found.checkpoint)) == _weights(whole.run.path / str(expected.checkpoint))


@pytest.mark.parametrize("file", ["policy.safetensors", "rollout.safetensors", "MANIFEST.json"])
def test_a_run_whose_newest_checkpoint_is_torn_goes_on_from_the_one_before(
    workshop: Any, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    workshop.use(task="identity")
    config = workshop.config(checkpoint={"every": 1})
    whole = workshop.context(config, name="whole")
    expected = PPOStrategy().run(whole, PPORequest())
    torn = workshop.context(config, name="torn")
    PPOStrategy().run(torn, PPORequest(iterations=3))
    path = torn.run.checkpoints / "00000003" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        found = PPOStrategy().run(workshop.context(config, name="torn", resume=True), PPORequest())
    assert "trying the one before" in caplog.text
    assert found.checkpoint == expected.checkpoint
    assert _weights(torn.run.path / str(found.checkpoint)) == _weights(whole.run.path / str(expected.checkpoint))


def test_the_last_checkpoints_and_the_one_that_played_best_are_kept(workshop: Any) -> None:
    workshop.use(task="identity")
    config = workshop.config(
        ppo={"learning_rate": 1e-2, "iterations": 8},
        checkpoint={"every": 1, "keep_last": 2, "keep_best": 1},
        evaluation={"every": 1},
    )
    context = workshop.context(config)
    PPOStrategy().run(context, PPORequest())
    returns = {record["epoch"]: record["return_mean"] for record in workshop.telemetry.of("evaluation")}
    kept = {int(path.name): path for path in context.run.checkpoints.glob("0*")}
    scores = {step: json.loads((path / "MANIFEST.json").read_text())["score"] for step, path in kept.items()}
    assert {step: returns[step] for step in kept} == scores
    assert {7, 8} <= set(kept)
    assert max(scores.values()) == max(value for step, value in returns.items() if step > 0)
    assert len(kept) <= 3


def test_schedules_are_followed_by_the_optimiser_and_told(workshop: Any) -> None:
    workshop.use(task="identity")
    ppo = {"learning_rate_schedule": "linear", "entropy_schedule": "linear", "learning_rate": 1e-2}
    config = workshop.config(ppo=ppo)
    context = workshop.context(config, name="falling")
    PPOStrategy().run(context, PPORequest())
    records = workshop.telemetry.of("ppo.iteration")
    assert [record["lr"] for record in records] == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3])
    coefficients = [record["health"]["entropy_coef"] for record in records]
    assert coefficients == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    constant = workshop.context(workshop.config(ppo={"learning_rate": 1e-2}), name="constant")
    PPOStrategy().run(constant, PPORequest())
    first, second = (run.run.checkpoints / "00000004" for run in (context, constant))
    assert _weights(first) != _weights(second)


def test_summary_has_the_contract_keys_and_nothing_else_beside_sections(workshop: Any) -> None:
    workshop.use(task="identity")
    result = PPOStrategy().run(workshop.context(workshop.config()), PPORequest())
    records = workshop.telemetry.of("ppo.iteration")
    assert [record["epoch"] for record in records] == [1.0, 2.0, 3.0, 4.0]
    last = records[-1]
    assert set(last) - {"health"} == CONTRACT_KEYS
    assert all(np.isfinite(value) for value in last.values() if isinstance(value, float))
    assert {"explained_variance", "transitions_per_s", "episode_return"} <= set(last["health"])
    assert last["queue_conflict_events"] == 16.0
    assert last["queue_conflict_intensity_sum"] == 8.0
    assert last["steps"] == 4 * last["transitions"] == 4 * 16 * 6
    assert result.epoch == 4.0
    assert json.loads(result.model_dump_json())["data_mode"] == "rollout"


def test_num_epochs_are_honoured_and_a_kl_target_stops_early(workshop: Any) -> None:
    workshop.use(task="identity")
    plain = PPOStrategy().run(workshop.context(workshop.config(ppo={"iterations": 1, "num_epochs": 5})), PPORequest())
    assert plain.updates == 5 * 3
    config = workshop.config(ppo={"iterations": 1, "num_epochs": 5, "target_kl": 1e-9})
    assert PPOStrategy().run(workshop.context(config, name="kl"), PPORequest()).updates == 3


def test_linear_schedules_fall_to_their_last_share(workshop: Any) -> None:
    config = workshop.config(ppo={"learning_rate_schedule": "linear", "entropy_schedule": "linear"}).ppo
    request = PPORequest(bc_weight=0.5, bc_weight_final=0.1, blend=0.4)
    plans = [UpdatePlan.of(config, request, iteration=i, total=4) for i in range(4)]
    assert [plan.learning_rate / config.learning_rate for plan in plans] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert [plan.entropy_coef / config.entropy_coef for plan in plans] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert (plans[0].bc_weight, plans[-1].bc_weight) == pytest.approx((0.5, 0.1))
    assert (plans[0].expert_share, plans[-1].expert_share) == pytest.approx((0.4, 0.08))


def test_value_warm_up_leaves_the_policy_as_it_is(workshop: Any) -> None:
    workshop.use(task="identity")
    config = workshop.config(ppo={"iterations": 2, "value_warmup_iterations": 2}, checkpoint={"every": 1})
    context = workshop.context(config)
    result = PPOStrategy().run(context, PPORequest())
    folder = context.run.path / str(result.checkpoint)
    start = build_network(
        describe(workshop.make().spec, config.network), generator=torch_generator(config.seed, "network")
    ).state_dict()
    trained = read_snapshot(folder).tensors
    changed = {name for name, tensor in start.items() if not np.array_equal(tensor.numpy(), trained[name])}
    assert changed == {"value_head.weight", "value_head.bias"}


def test_expert_decisions_stay_out_of_the_surrogate(workshop: Any) -> None:
    workshop.use(task="identity")
    config = workshop.config(ppo={"advantage_normalization": False})
    request = PPORequest(blend=0.5, bc_weight=0.5)
    with PPOSource.open(workshop.context(config), request) as source:
        session = _session(workshop, config, source)
        source.start(session)
        rows = source.collect(0, expert_share=0.5).rows
        own = rows.columns["own"]
        assert 0.2 < own.mean().item() < 0.8
        plan = UpdatePlan(learning_rate=1e-3, entropy_coef=0.0)
        everything = rows.gather(np.arange(rows.units))
        policy_rows = rows.gather(np.flatnonzero(own.numpy()))
        whole = ppo_loss(session.learner, everything, config.ppo, plan=plan)[1]
        alone = ppo_loss(session.learner, policy_rows, config.ppo, plan=plan)[1]
        assert whole[0].item() == pytest.approx(alone[0].item(), rel=1e-5)
        assert whole[4].item() == 0.0
        assert whole[1].item() != pytest.approx(alone[1].item(), rel=1e-5)  # they count in the value loss


def test_bc_weight_pulls_towards_the_expert(workshop: Any) -> None:
    workshop.use(task="identity")
    ends = {}
    for weight in (0.0, 1.0):
        config = workshop.config(ppo={"learning_rate": 1e-2, "iterations": 6})
        PPOStrategy().run(workshop.context(config, name=f"w{weight}"), PPORequest(bc_weight=weight))
        ends[weight] = workshop.telemetry.of("ppo.iteration")[-1]["health"]["episode_return"]
    assert ends[1.0] > ends[0.0] + 1.0


def test_in_run_evaluation_equals_that_of_the_saved_policy(workshop: Any) -> None:
    from townlet_training_core.policy.exported import ExportedPolicy

    workshop.use(task="masked")
    config = workshop.config(evaluation={"every": 2})
    context = workshop.context(config)
    result = PPOStrategy().run(context, PPORequest())
    logged = workshop.telemetry.of("evaluation")
    assert [record["epoch"] for record in logged] == [0, 2, 4]
    fresh = workshop.services(config).evaluation
    saved = ExportedPolicy.load(context.run.path / str(result.checkpoint))
    assert fresh.evaluate(saved, label="again").summary.mean.estimate == logged[-1]["return_mean"]


def test_stored_data_without_log_probabilities_is_refused_unless_they_are_recomputed(workshop: Any) -> None:
    workshop.use(task="identity")
    manifest = workshop.write(ScriptedPolicy(), name="scripted")
    context = workshop.context(workshop.config())
    with pytest.raises(DataError, match="no log-probabilities"):
        PPOStrategy().prepare(context, PPORequest(mode="replay", manifest=manifest))
    request = PPORequest(mode="replay", manifest=manifest, recompute_log_probs=True)
    PPOStrategy().prepare(context, request)
    result = PPOStrategy().run(context, request)
    first = workshop.telemetry.of("ppo.iteration")[0]
    assert first["data_mode"] == "replay"
    assert first["baseline_sample_count"] == 12.0
    assert first["rollout_ticks"] == 0.0
    assert result.transitions == 96.0


def test_mixed_mode_trains_on_both(workshop: Any) -> None:
    workshop.use(task="identity")
    network = build_network(describe(workshop.make().spec, workshop.config().network))
    manifest = workshop.write(TorchPolicy(network), name="own")
    config = workshop.config(ppo={"iterations": 1, "mini_batch_size": 512, "num_epochs": 1})
    result = PPOStrategy().run(workshop.context(config), PPORequest(mode="mixed", manifest=manifest))
    assert result.data_mode == "mixed"
    assert result.transitions == 96 + 16 * 6
    assert result.updates == 1


def test_stored_expert_decisions_feed_the_bc_loss(workshop: Any) -> None:
    workshop.use(task="identity", expert=True)
    manifest = workshop.write(ScriptedPolicy(), name="scripted")
    workshop.use(task="identity", expert=False)
    config = workshop.config(ppo={"learning_rate": 1e-2, "iterations": 6})
    PPOStrategy().run(workshop.context(config), PPORequest(manifest=manifest, bc_weight=1.0))
    losses = [record["health"]["loss_bc"] for record in workshop.telemetry.of("ppo.iteration")]
    assert losses[-1] < 0.7 * losses[0]


def test_nan_in_the_data_is_named(workshop: Any) -> None:
    workshop.use(task="identity")
    network = build_network(describe(workshop.make().spec, workshop.config().network))

    def spoil(sample: Any) -> None:
        sample.rewards[3] = np.nan

    manifest = workshop.write(TorchPolicy(network), name="spoilt", spoil=spoil)
    with pytest.raises(NonFiniteError, match=r"PPO advantages contained NaN/inf \(dataset=.*, batch=0\)"):
        PPOStrategy().run(workshop.context(workshop.config()), PPORequest(mode="replay", manifest=manifest))


@pytest.mark.parametrize(
    ("request_fields", "config_fields", "message"),
    [
        ({"mode": "replay"}, {}, "needs replay data"),
        ({"bc_weight": 0.5}, {}, "bc_weight needs the expert's actions"),
        ({"blend": 0.5}, {}, "blend needs rollouts"),
        ({}, {"compute": {"device": "cuda:7"}}, "does not exist here"),
        ({}, {"network": {"centralised_critic": True}}, "'state'"),
        ({}, {"network": {"recurrent": "gru", "separate_trunks": True}}, "separate_trunks"),
    ],
)
def test_prepare_refuses_what_cannot_work(
    workshop: Any, request_fields: dict[str, Any], config_fields: dict[str, Any], message: str
) -> None:
    workshop.use(task="identity", expert=False)
    context = workshop.context(workshop.config(**config_fields))
    with pytest.raises(ConfigurationError, match=message):
        PPOStrategy().prepare(context, PPORequest(**request_fields))


def test_a_checkpoint_of_another_network_is_explained(workshop: Any) -> None:
    workshop.use(task="identity")
    first = workshop.context(workshop.config(), name="small")
    PPOStrategy().run(first, PPORequest(iterations=1))
    context = workshop.context(workshop.config(network={"hidden_dim": 32}), name="large")
    with pytest.raises(CheckpointError, match=r"\(16,\).*\(32,\).*hidden_dim=16"):
        PPOStrategy().prepare(context, PPORequest(init_from=first.run.path))


def test_a_checkpoint_of_other_actions_is_refused(workshop: Any) -> None:
    workshop.use(task="identity")
    first = workshop.context(workshop.config(), name="first")
    result = PPOStrategy().run(first, PPORequest(iterations=1))
    path = first.run.path / str(result.checkpoint)
    text = (path / "policy.json").read_text().replace("north", "up")
    export = workshop.root / "export"
    export.mkdir()
    (export / "policy.json").write_text(text)
    (export / "policy.safetensors").write_bytes((path / "policy.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="ids would mean other actions"):
        PPOStrategy().prepare(workshop.context(workshop.config(), name="second"), PPORequest(init_from=export))


def test_warm_start_begins_with_the_checkpoints_weights(workshop: Any) -> None:
    workshop.use(task="identity")
    config = workshop.config(evaluation={"every": 1})
    first = workshop.context(config, name="first")
    PPOStrategy().run(first, PPORequest(iterations=2))
    ended = workshop.telemetry.of("evaluation")[-1]
    second = workshop.context(config, name="second")
    PPOStrategy().run(second, PPORequest(iterations=1, init_from=first.run.path))
    began = workshop.telemetry.of("evaluation")[3]
    assert began["policy_hash"] == ended["policy_hash"]
    assert began["return_mean"] == ended["return_mean"]


def test_a_policy_without_values_is_no_source(workshop: Any) -> None:
    from townlet_training_torch.experience import estimate_advantages

    arrays = RolloutCollector(workshop.make(), RandomPolicy(), steps=4, seed=0).collect()
    with pytest.raises(DataError, match="no log-probabilities or values"):
        estimate_advantages(arrays, gamma=0.9, gae_lambda=0.9, reward_scale=1.0, dataset="d", batch=0)


def test_mini_batches_cover_every_row_once_and_mix_trajectories(workshop: Any) -> None:
    arrays = RolloutCollector(workshop.make(num_envs=3), RandomPolicy(), steps=10, seed=0).collect()
    rows = rows_of(arrays, {}, inputs=("features",), device=torch.device("cpu"))
    parts = list(deal(rows, 8, np.random.default_rng(0)))
    assert sorted(np.concatenate(parts).tolist()) == list(range(30))
    assert {len(part) for part in parts} <= {7, 8}
    assert len({row % 3 for row in parts[0]}) == 3
    with pytest.raises(DataError, match="lacks the observations"):
        rows_of(arrays, {}, inputs=("map",), device=torch.device("cpu"))
