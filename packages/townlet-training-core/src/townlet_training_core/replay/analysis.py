"""Replay data in numbers: summaries, drift between datasets.

Statistics are taken over what loaders would use: entries marked ``accepted: false`` are left out. Intervals resample
whole trajectories, because the steps of one trajectory are not independent of one another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core import statistics
from townlet_training_core.dto.analysis import DatasetComparison, DatasetStats, Drift, GroupStats
from townlet_training_core.dto.evaluation import IntervalDTO
from townlet_training_core.errors import DataError, MissingFileError, NonFiniteError, SpaceMismatchError
from townlet_training_core.replay.curated import CuratedStores, agent_of_trajectory, is_curation, read_curation
from townlet_training_core.replay.manifest import ManifestEntry, load_manifest
from townlet_training_core.replay.npz import load_replay_sample
from townlet_training_core.replay.sample import ReplaySample
from townlet_training_core.replay.shards import STORE_FILE, ShardStore
from townlet_training_core.replay.transitions import Transitions

__all__ = ["Trajectories", "agent_of", "compare_datasets", "dataset_stats", "find_manifest", "read_trajectories"]

Numbers = NDArray[np.float64]


def find_manifest(path: Path) -> Path:
    """Return the manifest of a dataset: the file itself, or the one manifest of a folder.

    Raises
    ------
    MissingFileError
        When there is nothing at ``path``, or no manifest in the folder.
    DataError
        When the folder has several.
    """
    if not path.exists():
        msg = f"dataset {str(path)!r} does not exist; give a manifest or a folder of captures"
        raise MissingFileError(msg)
    if path.is_file():
        return path
    if (path / STORE_FILE).is_file():
        msg = f"{str(path)!r} is a shard store, which has no manifest; `townlet replay convert --to npz` makes one"
        raise DataError(msg)
    preferred = path / "rollout_sample_manifest.json"
    found = [preferred] if preferred.is_file() else sorted([*path.glob("*manifest.json"), *path.glob("*manifest.y*ml")])
    if not found:
        msg = f"folder {str(path)!r} has no manifest (*manifest.json); capture or curate first"
        raise MissingFileError(msg)
    if len(found) > 1:
        msg = f"folder {str(path)!r} has several manifests ({', '.join(p.name for p in found)}); name one"
        raise DataError(msg)
    return found[0]


def agent_of(entry: ManifestEntry, sample: ReplaySample) -> str:
    """Name the agent of a trajectory as the data does; the file's stem when it does not."""
    for source in (entry.fields, sample.metadata):
        agent = source.get("agent_id")
        if agent is not None:
            return str(agent)
    return entry.sample.stem


@dataclass(slots=True)
class Trajectories:
    """Per-trajectory sums of a dataset, enough for all statistics; the steps themselves are not kept.

    ``sums`` and ``squares`` are ``(n, columns)`` over the steps of each of n trajectories: reward, then features.
    """

    path: Path
    label: str
    rejected: int
    agents: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    extremes: list[tuple[float, float]] = field(default_factory=list)
    sums: list[Numbers] = field(default_factory=list)
    squares: list[Numbers] = field(default_factory=list)
    actions: list[NDArray[np.int64]] = field(default_factory=list)
    action_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    events: dict[str, float] = field(default_factory=dict)
    simulation: str | None = None


def read_trajectories(path: Path) -> Trajectories:
    """Read every accepted trajectory of a manifest, a folder of captures or a shard store once.

    Raises
    ------
    DataError
        When a file is unsound, holds NaN, or the trajectories have different features or actions.
    """
    if path.name == STORE_FILE:
        path = path.parent
    if (path / STORE_FILE).is_file():
        store = ShardStore.open(path)
        return _read_blocks(store, path, label=path.name, metadata=store.metadata)
    found = find_manifest(path)
    if not is_curation(found):
        return _read_manifest(path)
    curation = read_curation(found)
    label = found.parent.name if path.is_dir() else found.stem
    rejected = curation.total - curation.accepted
    return _read_blocks(CuratedStores.open(found), path, label=label, rejected=rejected)


def _read_manifest(path: Path) -> Trajectories:
    manifest = load_manifest(find_manifest(path))
    label = manifest.path.parent.name if path.is_dir() else manifest.path.stem
    data = Trajectories(path=path, label=label, rejected=manifest.rejected)
    listed = _event_counts(manifest.metadata.get("events"))
    named: tuple[str, ...] | None = None
    for entry in manifest.entries:
        sample = load_replay_sample(entry.sample, entry.meta, require_conflict_features=False)
        _check_finite(entry.sample, sample)
        features, names = tuple(sample.feature_names), _action_names(sample)
        if not data.steps:
            data.feature_names, named = features, names
        elif features != data.feature_names:
            msg = f"{str(entry.sample)!r} has other features than the samples before it; split the dataset"
            raise SpaceMismatchError(msg)
        elif names != named:
            msg = f"{str(entry.sample)!r} has another action vocabulary than the samples before it; split the dataset"
            raise SpaceMismatchError(msg)
        _add(data, entry, sample)
    data.events = listed or data.events
    size = max(len(named or ()), *(len(counts) for counts in data.actions))
    data.action_names = tuple(
        (named or ())[index] if index < len(named or ()) else f"action_{index}" for index in range(size)
    )
    data.actions = [np.pad(counts, (0, size - len(counts))) for counts in data.actions]
    return data


def dataset_stats(path: Path, *, confidence: float = 0.95) -> DatasetStats:
    """Summarise a dataset, whole and by agent."""
    data = read_trajectories(path)
    everyone = list(range(len(data.steps)))
    return DatasetStats(
        path=str(path),
        total=_group(data, everyone, name=data.label, confidence=confidence),
        agents=tuple(
            _group(data, [i for i in everyone if data.agents[i] == agent], name=agent, confidence=confidence)
            for agent in sorted(set(data.agents))
        ),
        rejected=data.rejected,
        feature_names=data.feature_names,
        events=data.events,
        simulation=data.simulation,
    )


def compare_datasets(
    first: Path, second: Path, *, threshold: float = 0.2, confidence: float = 0.95, resamples: int = 2000
) -> DatasetComparison:
    """Say how ``second`` differs from ``first``: actions, rewards, returns and every feature.

    Parameters
    ----------
    threshold:
        Effect size (in pooled deviations) from which a difference counts as a shift; 0.2 is "small" (Cohen 1988).

    Raises
    ------
    SpaceMismatchError
        When the datasets have different features or actions.
    """
    a, b = read_trajectories(first), read_trajectories(second)
    if a.feature_names != b.feature_names:
        differing = sorted(set(a.feature_names) ^ set(b.feature_names)) or ["their order"]
        msg = f"datasets {str(first)!r} and {str(second)!r} have different features: {', '.join(differing[:8])}"
        raise SpaceMismatchError(msg)
    size = max(len(a.action_names), len(b.action_names))
    if a.action_names[: len(b.action_names)] != b.action_names[: len(a.action_names)]:
        msg = f"datasets {str(first)!r} and {str(second)!r} have different action vocabularies"
        raise SpaceMismatchError(msg)
    names = max(a.action_names, b.action_names, key=len)
    counts = [np.pad(sum(x.actions), (0, size - len(x.action_names))) for x in (a, b)]
    shares = [count / max(1, count.sum()) for count in counts]
    columns = ("reward", *a.feature_names)
    drifts = [
        _drift(a, b, index, name=name, threshold=threshold, confidence=confidence, resamples=resamples)
        for index, name in enumerate(columns)
    ]
    drifts.append(_return_drift(a, b, threshold=threshold, confidence=confidence, resamples=resamples))
    return DatasetComparison(
        first=str(first),
        second=str(second),
        samples=(len(a.steps), len(b.steps)),
        steps=(sum(a.steps), sum(b.steps)),
        threshold=threshold,
        action_distance=statistics.jensen_shannon_distance(counts[0], counts[1]),
        action_shares={name: (float(shares[0][i]), float(shares[1][i])) for i, name in enumerate(names)},
        drifts=tuple(sorted(drifts, key=lambda drift: -abs(drift.effect_size))),
    )


# -- parts ----------------------------------------------------------------------------------------------------


def _read_blocks(
    store: ShardStore | CuratedStores,
    path: Path,
    *,
    label: str,
    rejected: int = 0,
    metadata: Mapping[str, Any] | None = None,
) -> Trajectories:
    spec = store.spec
    data = Trajectories(path=path, label=label, rejected=rejected, action_names=spec.action_names)
    data.simulation = spec.simulation
    data.feature_names = spec.feature_names if "features" in spec.observations else ()
    data.events = _event_counts((metadata or {}).get("events"))
    for block in store.blocks():
        rewards, actions = (_flat(block, name) for name in ("rewards", "actions"))
        features = block.column("features") if data.feature_names else np.empty((len(block), 0))
        columns = np.concatenate([rewards[:, None].astype(np.float64), features.astype(np.float64)], axis=1)
        if not np.isfinite(columns).all():
            msg = f"store {str(path)!r} holds NaN or infinity; `townlet replay curate` rejects what has them"
            raise NonFiniteError(msg)
        if (np.diff(block.offsets) == 0).any():
            msg = f"store {str(path)!r} holds trajectories without steps; `townlet replay curate` rejects them"
            raise DataError(msg)
        if len(actions) and not 0 <= actions.min() <= actions.max() < spec.action_dim:
            msg = f"store {str(path)!r} holds actions outside its {spec.action_dim} names; reject them with `curate`"
            raise DataError(msg)
        ended = _flat(block, "terminated").astype(np.bool_) | _flat(block, "truncated").astype(np.bool_)
        for number, (begin, end) in enumerate(pairwise(block.offsets.tolist())):
            data.agents.append(agent_of_trajectory(block, number))
            data.steps.append(end - begin)
            data.ended.append(int(ended[begin:end].sum()))
            data.returns.append(math.fsum(rewards[begin:end].tolist()))
            data.extremes.append((float(rewards[begin:end].min()), float(rewards[begin:end].max())))
            data.sums.append(columns[begin:end].sum(axis=0))
            data.squares.append((columns[begin:end] ** 2).sum(axis=0))
            data.actions.append(np.bincount(actions[begin:end], minlength=spec.action_dim).astype(np.int64))
    if not data.steps:
        msg = f"store {str(path)!r} holds no trajectories"
        raise DataError(msg)
    return data


def _flat(block: Transitions, name: str) -> NDArray[Any]:
    """Return a column of scalars, ``(n,)``; files of the predecessor may hold ``(n, 1)``."""
    column = block.column(name)
    if column.size != len(block):
        msg = f"dataset {block.label!r}: column {name!r} has rows of shape {column.shape[1:]}, expected scalars"
        raise DataError(msg)
    return column.reshape(-1)


def _event_counts(events: object) -> dict[str, float]:
    """Take numbers by name; of a mapping per kind, its count."""
    counts = {}
    for name, value in events.items() if isinstance(events, Mapping) else ():
        found = value.get("count") if isinstance(value, Mapping) else value
        if isinstance(found, int | float) and not isinstance(found, bool):
            counts[str(name)] = float(found)
    return counts


def _add(data: Trajectories, entry: ManifestEntry, sample: ReplaySample) -> None:
    rewards = sample.rewards.reshape(-1).astype(np.float64)
    columns = np.concatenate([rewards[:, None], sample.features.astype(np.float64)], axis=1)
    data.agents.append(agent_of(entry, sample))
    data.steps.append(len(rewards))
    data.ended.append(int(sample.dones.sum()))
    data.returns.append(math.fsum(rewards.tolist()))
    data.extremes.append((float(rewards.min()), float(rewards.max())))
    data.sums.append(columns.sum(axis=0))
    data.squares.append((columns**2).sum(axis=0))
    data.actions.append(np.bincount(sample.actions.reshape(-1)).astype(np.int64))
    simulation = sample.metadata.get("simulation")
    if simulation is not None:
        data.simulation = str(simulation)
    for name, value in _event_counts(sample.metadata.get("events")).items():
        data.events[name] = data.events.get(name, 0.0) + value


def _check_finite(path: Path, sample: ReplaySample) -> None:
    for name in ("features", "rewards"):
        if not np.isfinite(getattr(sample, name)).all():
            msg = f"{str(path)!r}: array {name!r} holds NaN or infinity; reject the sample with `townlet replay curate`"
            raise NonFiniteError(msg)
    if not sample.timesteps:
        msg = f"{str(path)!r} has no steps; reject the sample with `townlet replay curate`"
        raise DataError(msg)
    if sample.actions.min() < 0:
        msg = f"{str(path)!r}: array 'actions' holds negative ids; reject the sample with `townlet replay curate`"
        raise DataError(msg)


def _action_names(sample: ReplaySample) -> tuple[str, ...]:
    names = sample.metadata.get("action_names")
    if isinstance(names, Sequence) and not isinstance(names, str):
        return tuple(str(name) for name in names)
    return ()


def _group(data: Trajectories, chosen: Sequence[int], *, name: str, confidence: float) -> GroupStats:
    steps = sum(data.steps[i] for i in chosen)
    total = math.fsum(data.returns[i] for i in chosen)
    mean = total / steps
    square = math.fsum(float(data.squares[i][0]) for i in chosen) / steps
    actions = np.sum([data.actions[i] for i in chosen], axis=0)
    shares = actions[actions > 0] / actions.sum()
    interval = statistics.bootstrap_mean([data.returns[i] for i in chosen], confidence=confidence)
    return GroupStats(
        name=name,
        samples=len(chosen),
        steps=steps,
        episodes_ended=sum(data.ended[i] for i in chosen),
        reward_sum=total,
        reward_mean=mean,
        reward_std=math.sqrt(max(0.0, square - mean**2)),
        reward_min=min(data.extremes[i][0] for i in chosen),
        reward_max=max(data.extremes[i][1] for i in chosen),
        return_mean=_record(interval),
        actions={action: int(count) for action, count in zip(data.action_names, actions, strict=True)},
        action_entropy=max(0.0, float(-(shares * np.log(shares)).sum())),
    )


def _drift(
    a: Trajectories, b: Trajectories, index: int, *, name: str, threshold: float, confidence: float, resamples: int
) -> Drift:
    rng = np.random.default_rng(0)
    means, spreads, draws = [], [], []
    for data in (a, b):
        sums = np.array([row[index] for row in data.sums])
        counts = np.array(data.steps, np.float64)
        mean = float(sums.sum() / counts.sum())
        square = float(sum(float(row[index]) for row in data.squares) / counts.sum())
        means.append(mean)
        spreads.append((max(0.0, square - mean**2), counts.sum()))
        weights = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), resamples)
        draws.append((weights @ sums) / (weights @ counts))
    steps = sum(count for _, count in spreads)
    pooled = math.sqrt(sum(variance * count for variance, count in spreads) / max(1.0, steps - 2))
    difference = means[1] - means[0]
    return _as_drift(name, means, difference, draws[1] - draws[0], pooled, threshold=threshold, confidence=confidence)


def _return_drift(a: Trajectories, b: Trajectories, *, threshold: float, confidence: float, resamples: int) -> Drift:
    rng = np.random.default_rng(0)
    first, second = np.array(a.returns), np.array(b.returns)
    draws = [(rng.multinomial(x.size, np.full(x.size, 1 / x.size), resamples) @ x) / x.size for x in (first, second)]
    freedom = max(1, first.size + second.size - 2)
    pooled = math.sqrt((first.var() * first.size + second.var() * second.size) / freedom)
    means = [float(first.mean()), float(second.mean())]
    return _as_drift(
        "return", means, means[1] - means[0], draws[1] - draws[0], pooled, threshold=threshold, confidence=confidence
    )


def _as_drift(
    name: str,
    means: Sequence[float],
    difference: float,
    draws: Numbers,
    pooled: float,
    *,
    threshold: float,
    confidence: float,
) -> Drift:
    low, high = np.quantile(draws, (0.5 - 0.5 * confidence, 0.5 + 0.5 * confidence))
    # Sums of squares cancel where a column is constant; what is left of them is no spread.
    scale = max(abs(means[0]), abs(means[1]))
    apart, spread = abs(difference) > 1e-9 * scale, pooled > 1e-7 * scale
    effect = 0.0 if not apart else difference / pooled if spread else math.copysign(math.inf, difference)
    outside = bool(low > 0.0 or high < 0.0)
    return Drift(
        column=name,
        first_mean=means[0],
        second_mean=means[1],
        difference=IntervalDTO(estimate=difference, low=float(low), high=float(high), confidence=confidence),
        effect_size=effect,
        shifted=outside and abs(effect) >= threshold,
    )


def _record(interval: statistics.Interval) -> IntervalDTO:
    return IntervalDTO(estimate=interval.estimate, low=interval.low, high=interval.high, confidence=interval.confidence)
