"""What is in the data: by hand on tiny datasets, and through the commands."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from townlet_training_core.cli.analysis import app
from townlet_training_core.errors import (
    ConfigurationError,
    DataError,
    MissingFileError,
    NonFiniteError,
    SpaceMismatchError,
    TownletError,
)
from townlet_training_core.replay.analysis import compare_datasets, dataset_stats
from townlet_training_core.replay.curation import audit, curate, merge, record_checksums, sample_checksum
from townlet_training_core.replay.manifest import load_manifest, write_manifest
from townlet_training_core.replay.npz import save_replay_sample
from townlet_training_core.replay.openers import convert
from townlet_training_core.replay.sample import ReplaySample


def sample(
    rewards: list[float], *, actions: list[int] | None = None, feature: float = 0.0, names: tuple[str, ...] = ("x",)
) -> ReplaySample:
    steps = len(rewards)
    return ReplaySample(
        map=np.zeros((steps, 1, 2, 2), np.float32),
        features=np.full((steps, len(names)), feature, np.float32),
        actions=np.array(actions or [0] * steps, np.int64),
        old_log_probs=np.zeros(steps, np.float32),
        value_preds=np.zeros(steps + 1, np.float32),
        rewards=np.array(rewards, np.float32),
        dones=np.array([False] * (steps - 1) + [True]),
        metadata={
            "feature_names": list(names),
            "action_names": ["rest", "work", "eat"],
            "simulation": "fake-v1",
            "events": {"chat_success": 1},
        },
    )


def dataset(folder: Path, samples: dict[str, ReplaySample], **fields: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, item in samples.items():
        save_replay_sample(item, folder / f"{name}.npz")
    entries = [
        {"sample": f"{name}.npz", "meta": f"{name}.json", "agent_id": name.partition("_")[0], **fields.get(name, {})}
        for name in samples
    ]
    write_manifest(folder / "manifest.json", entries)
    return folder


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, TownletError):  # the root command turns these into a line and an exit code
        result.exit_code = result.exception.exit_code
    return result


@pytest.fixture
def town(tmp_path: Path) -> Path:
    return dataset(
        tmp_path / "town",
        {
            "ann_0": sample([1.0, 2.0], actions=[1, 1]),
            "ann_1": sample([3.0], actions=[0]),
            "bob_0": sample([0.0, 0.0, 0.0, -2.0], actions=[0, 0, 0, 0]),
            "eve_0": sample([9.0]),
        },
        eve_0={"accepted": False},
    )


def test_statistics_by_hand(town: Path) -> None:
    stats = dataset_stats(town)
    assert stats.rejected == 1
    assert [group.name for group in stats.agents] == ["ann", "bob"]
    total, ann, bob = stats.total, *stats.agents
    assert (total.name, total.samples, total.steps, total.episodes_ended) == ("town", 3, 7, 3)
    assert total.reward_sum == 4.0
    assert total.reward_mean == pytest.approx(4 / 7)
    assert total.reward_std == pytest.approx(np.std([1, 2, 3, 0, 0, 0, -2]))
    assert (total.reward_min, total.reward_max) == (-2.0, 3.0)
    assert total.return_mean.estimate == pytest.approx((3 + 3 - 2) / 3)
    assert total.actions == {"rest": 5, "work": 2, "eat": 0}
    assert ann.action_entropy == pytest.approx(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)))
    assert bob.action_entropy == 0.0
    assert stats.events == {"chat_success": 3.0}
    assert stats.simulation == "fake-v1"


def test_a_shard_store_has_the_same_numbers_as_its_files(town: Path, tmp_path: Path) -> None:
    for name in ("ann_0", "ann_1", "bob_0"):  # forms may be converted only where the space says what it is
        assert (town / f"{name}.npz").is_file()
    convert(town / "manifest.json", tmp_path / "store", to="shards")
    files, store = dataset_stats(town), dataset_stats(tmp_path / "store")
    for name in ("samples", "steps", "reward_sum", "reward_mean", "reward_std", "reward_min", "reward_max", "actions"):
        assert getattr(store.total, name) == pytest.approx(getattr(files.total, name)), name
    assert store.total.return_mean.estimate == pytest.approx(files.total.return_mean.estimate)
    assert all(not drift.shifted for drift in compare_datasets(town, tmp_path / "store").drifts)
    assert [group.name for group in store.agents] == ["unknown"]  # the manifest alone named the agents
    curated = [
        curate(path, tmp_path / f"good-{path.name}.json", min_timesteps=2) for path in (town, tmp_path / "store")
    ]
    assert [(report.total, report.accepted, report.reasons) for report in curated] == [(3, 2, {"too short": 1})] * 2


def test_a_dataset_does_not_drift_from_itself(town: Path) -> None:
    comparison = compare_datasets(town, town / "manifest.json")
    assert comparison.action_distance == 0.0
    assert all(drift.effect_size == 0.0 and not drift.shifted for drift in comparison.drifts)
    assert {drift.column for drift in comparison.drifts} == {"reward", "return", "x"}


def test_drift_by_hand(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    old = {f"a_{i}": sample(list(rng.normal(size=20)), feature=i % 2) for i in range(12)}
    new = {f"a_{i}": sample(list(rng.normal(size=20)), feature=2 + i % 2, actions=[1] * 20) for i in range(12)}
    comparison = compare_datasets(dataset(tmp_path / "old", old), dataset(tmp_path / "new", new))
    first = comparison.drifts[0]
    assert (first.column, first.first_mean, first.second_mean, first.shifted) == ("x", 0.5, 2.5, True)
    assert first.effect_size == pytest.approx(2 / 0.5, rel=0.01)  # a difference of 2 in deviations of 0.5
    assert first.difference.low > 1.5
    rewards = {drift.column: drift for drift in comparison.drifts}["reward"]
    assert not rewards.shifted
    assert comparison.action_distance == 1.0
    assert comparison.action_shares["work"] == (0.0, 1.0)


def test_a_column_that_jumps_without_spread_has_an_infinite_effect(tmp_path: Path) -> None:
    old = dataset(tmp_path / "old", {"a_0": sample([0.0, 0.0], feature=0.0), "a_1": sample([0.0], feature=0.0)})
    new = dataset(tmp_path / "new", {"a_0": sample([0.0, 0.0], feature=1.0), "a_1": sample([0.0], feature=1.0)})
    comparison = compare_datasets(old, new)
    assert comparison.drifts[0].effect_size == math.inf
    assert '"effect_size":"Infinity"' in comparison.model_dump_json()


def test_datasets_of_other_spaces_are_not_compared(town: Path, tmp_path: Path) -> None:
    other = dataset(tmp_path / "other", {"a_0": sample([1.0], names=("x", "y"))})
    with pytest.raises(SpaceMismatchError, match="different features: y"):
        compare_datasets(town, other)
    renamed = sample([1.0])
    renamed.metadata["action_names"] = ["rest", "jump"]
    with pytest.raises(SpaceMismatchError, match="different action vocabularies"):
        compare_datasets(town, dataset(tmp_path / "renamed", {"a_0": renamed}))
    mixed = dataset(tmp_path / "mixed", {"a_0": sample([1.0]), "a_1": sample([1.0], names=("y",))})
    with pytest.raises(SpaceMismatchError, match="other features than the samples before"):
        dataset_stats(mixed)
    vocabulary = dataset(tmp_path / "vocabulary", {"a_0": sample([1.0]), "a_1": renamed})
    with pytest.raises(SpaceMismatchError, match="another action vocabulary"):
        dataset_stats(vocabulary)


def test_old_data_without_names_gets_numbered_actions(tmp_path: Path) -> None:
    plain = sample([1.0, 1.0], actions=[0, 2])
    del plain.metadata["action_names"], plain.metadata["events"]
    stats = dataset_stats(dataset(tmp_path / "old", {"a_0": plain}))
    assert stats.total.actions == {"action_0": 1, "action_1": 0, "action_2": 1}


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        (sample([math.nan, 1.0]), NonFiniteError, "'rewards' holds NaN"),
        (sample([1.0, 1.0], actions=[0, -1]), DataError, "negative ids"),
    ],
)
def test_unsound_samples_are_named(tmp_path: Path, broken: ReplaySample, error: type[Exception], message: str) -> None:
    folder = dataset(tmp_path / "d", {"a_0": sample([1.0]), "a_1": broken})
    with pytest.raises(error, match=message):
        dataset_stats(folder)


def test_finding_the_manifest(town: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        dataset_stats(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="has no manifest"):
        dataset_stats(tmp_path / "empty")
    (town / "other_manifest.json").write_text("[]")
    with pytest.raises(DataError, match="several manifests"):
        dataset_stats(town)
    (town / "rollout_sample_manifest.json").write_text('["ann_0.npz"]')
    assert dataset_stats(town).total.samples == 1


def test_curation_rejects_and_says_why(town: Path, tmp_path: Path) -> None:
    (town / "bob_0.npz").write_bytes(b"torn")
    output = tmp_path / "curated" / "good_manifest.json"
    report = curate(town, output, min_timesteps=2, min_reward=3.0)
    assert (report.total, report.accepted, report.rejected) == (3, 1, 2)
    assert report.reasons == {"too short": 1, "unreadable": 1}
    kept = load_manifest(output)
    assert [entry.sample.name for entry in kept.entries] == ["ann_0.npz"]
    assert kept.rejected == 2
    assert dataset_stats(output).total.steps == 2
    entries = json.loads(output.read_text())["samples"]
    assert entries[0]["metrics"] == {"timesteps": 2.0, "reward_sum": 3.0, "mean_reward": 1.5, "done_count": 1.0}
    assert entries[1]["reasons"] == ["too short: 1 of 2 steps"]
    assert entries[0]["sample"] == "../town/ann_0.npz"


def test_curation_by_name_and_by_variety(town: Path, tmp_path: Path) -> None:
    output = tmp_path / "good.json"
    assert curate(town, output, min_timesteps=2, accept=["ann_1*"]).accepted == 3
    assert curate(town, output, min_timesteps=0, reject=["ann_*"]).accepted == 1
    report = curate(town, output, min_timesteps=0, min_actions=2)
    assert report.accepted == 0
    assert report.reasons == {"too few actions": 3}
    assert curate(town, output, min_timesteps=0, min_reward=0.0).reasons == {"too little reward": 1}
    with pytest.raises(ConfigurationError, match="write to another file"):
        curate(town, town / "manifest.json")


def test_merging_joins_and_counts_once(town: Path, tmp_path: Path) -> None:
    other = dataset(tmp_path / "other", {"cat_0": sample([1.0])})
    output = tmp_path / "both.json"
    report = merge([town, other, town / "manifest.json"], output)
    assert (report.total, report.accepted, report.rejected) == (7, 4, 3)
    stats = dataset_stats(output)
    assert [group.name for group in stats.agents] == ["ann", "bob", "cat"]
    wrong = dataset(tmp_path / "wrong", {"d_0": sample([1.0], names=("y",))})
    before = output.read_bytes()
    with pytest.raises(SpaceMismatchError, match="cannot be merged"):
        merge([town, wrong], output)
    assert output.read_bytes() == before
    with pytest.raises(ConfigurationError, match="at least two"):
        merge([town], output)


def test_an_audit_finds_every_kind_of_damage(town: Path, tmp_path: Path) -> None:
    versions = tmp_path / "versions.json"
    assert (
        record_checksums(versions, "town", dataset(tmp_path / "d", {"a_0": sample([1.0]), "b_0": sample([2.0])})) == 2
    )
    report = audit(versions)
    assert (report.failures, report.warnings, report.datasets[0].status) == (0, 0, "PASS")
    assert report.datasets[0].sample_count == 2
    folder = tmp_path / "d"
    save_replay_sample(sample([5.0]), folder / "extra.npz")
    warned = audit(versions)
    assert (warned.warnings, warned.datasets[0].status) == (1, "WARN")
    save_replay_sample(sample([1.5]), folder / "a_0.npz")
    (folder / "b_0.json").unlink()
    failed = audit(versions).datasets[0]
    assert failed.status == "FAIL"
    assert any("a_0.npz: was changed" in finding for finding in failed.findings)
    assert any("b_0.npz: missing file" in finding for finding in failed.findings)
    checksums = folder / "manifest.checksums.json"
    known = json.loads(checksums.read_text())
    checksums.write_text(json.dumps({"samples": {"a_0": {"sha256": known["a_0.npz"]}, "gone.npz": "0"}}))
    messages = " ".join(audit(versions).datasets[0].findings)
    assert "b_0.npz: has no checksum" in messages
    assert "gone.npz: has a checksum but is not in the manifest" in messages


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "names no manifest and no checksums"),
        ("text", "names no manifest and no checksums"),
        ({"manifest": "nowhere.json", "checksums": "c.json"}, "nowhere.json"),
    ],
)
def test_an_audit_reports_unusable_entries(tmp_path: Path, entry: Any, message: str) -> None:
    versions = tmp_path / "versions.json"
    versions.write_text(json.dumps({"datasets": {"x": entry}}))
    report = audit(versions)
    assert report.failures == 1
    assert message in report.datasets[0].findings[0]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"datasets": []}'])
def test_an_unusable_versions_file_is_refused(tmp_path: Path, text: str) -> None:
    versions = tmp_path / "versions.json"
    versions.write_text(text)
    with pytest.raises(DataError, match=r"versions\.json"):
        audit(versions)


def test_checksums_cover_sample_and_metadata(town: Path) -> None:
    import hashlib

    expected = hashlib.sha256((town / "ann_0.npz").read_bytes() + (town / "ann_0.json").read_bytes()).hexdigest()
    assert sample_checksum(town / "ann_0.npz") == expected


def test_the_commands_print_tables_json_and_pictures(town: Path, tmp_path: Path) -> None:
    shown = invoke("stats", town, "--plot", tmp_path / "a.png")
    assert shown.exit_code == 0, shown.output
    assert "ann" in shown.output
    assert "1 rejected entries were left out" in shown.output
    assert json.loads(invoke("stats", town, "--json").output)["total"]["steps"] == 7
    compared = invoke("compare", town, town, "--plot", tmp_path / "b.png", "--fail-on-drift")
    assert compared.exit_code == 0, compared.output
    assert "distance 0.000" in compared.output
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("a.png", "b.png"))
    moved = dataset(tmp_path / "moved", {f"a_{i}": sample([1.0] * 20, feature=5.0 + i % 2) for i in range(9)})
    assert invoke("compare", town, moved, "--fail-on-drift", "--json").exit_code == 1

    output = tmp_path / "good.json"
    assert "3 of 3 samples accepted" in invoke("curate", town, "-o", output, "--min-timesteps", 0).output
    assert "1 too short" in invoke("curate", town, "-o", output, "--min-timesteps", 2).output
    assert json.loads(invoke("curate", town, "-o", output, "--json").output)["accepted"] == 0
    assert "3 samples in" in invoke("merge", town, town, "-o", output).output
    assert json.loads(invoke("merge", town, town, "-o", output, "--json").output)["accepted"] == 3

    versions = tmp_path / "versions.json"
    audited = invoke("audit", versions, "--record", f"town={town}")
    assert audited.exit_code == 0, audited.output
    assert "PASS town: 4 samples" in audited.output
    (town / "ann_0.json").write_text("{}")
    failed = invoke("audit", versions, "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.output)["failures"] == 1
    assert "was changed" in invoke("audit", versions).output
    assert invoke("audit", versions, "--record", "town").exit_code == 2
    assert invoke("stats", tmp_path / "nowhere").exit_code == 2


def test_outputs_that_cannot_be_written_are_refused(
    town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("mine")
    runner = CliRunner()
    for arguments in (
        ["stats", str(town), "--plot", "file.txt/x.png"],
        ["compare", str(town), str(town), "--plot", "x.jpgg"],
        ["curate", str(town), "-o", "file.txt/x.json"],
        ["curate", str(town), "-o", str(town)],
        ["merge", str(town), str(town), "-o", "file.txt/x.json"],
        ["audit", "absent.json"],
    ):
        done = runner.invoke(app, arguments)
        assert isinstance(done.exception, TownletError), arguments
        assert done.exception.exit_code == 2
    assert runner.invoke(app, ["stats", str(town), "--plot", "new/folder/x.png"]).exit_code == 0
    assert Path("new/folder/x.png").read_bytes()[:4] == b"\x89PNG"
    assert Path("file.txt").read_text() == "mine"
