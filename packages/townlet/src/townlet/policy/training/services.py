"""Services of the old entry points: replay data, captures, promotion. None of them needs torch."""

from __future__ import annotations

import copy
import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from townlet_training_core.errors import ConfigurationError
from townlet_training_core.promotion.manager import PromotionServiceAdapter
from townlet_training_core.replay.dataset import InMemoryReplayDataset
from townlet_training_core.replay.summaries import DEFAULT_REPLAY_MANIFEST, ReplayDatasetService
from townlet_training_core.rollout.frames import FrameRolloutBuffer

__all__ = [
    "DEFAULT_REPLAY_MANIFEST",
    "PromotionServiceAdapter",
    "ReplayDatasetService",
    "RolloutCaptureService",
    "TrainingServices",
]

_log = logging.getLogger("townlet.policy.training_orchestrator")  # the name that callers listen to


class RolloutCaptureService:
    """Captures frames from a simulation loop that drives its own policy."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def capture(
        self,
        ticks: int,
        auto_seed_agents: bool = False,
        output_dir: Path | None = None,
        prefix: str = "rollout_sample",
        compress: bool = True,
        *,
        cycle: int = 0,
        anneal_ratio: float | None = None,
    ) -> FrameRolloutBuffer:
        """Step a loop ``ticks`` times and return its frames and events; save them when ``output_dir`` is given.

        A policy that is a stub yields an empty buffer and a warning.

        Raises
        ------
        ValueError
            When ``ticks`` is not positive, or nobody lives in the world.
        """
        if ticks <= 0:
            msg = f"ticks must be positive to capture a rollout, not {ticks}"
            raise ConfigurationError(msg)
        # Looked up at call time: callers put their own loop and helpers in their place.
        sim_loop, scenarios, utils = (
            importlib.import_module(f"townlet.{name}")
            for name in ("core.sim_loop", "policy.scenario_utils", "core.utils")
        )
        loop = sim_loop.SimulationLoop(self._staged(cycle))
        buffer = FrameRolloutBuffer()
        provider = utils.policy_provider_name(loop)
        if utils.is_stub_policy(getattr(loop, "policy", None), provider):
            _log.warning(
                "capture_rollout_stub_policy provider=%s: a stub decides nothing, the capture is empty", provider
            )
            return buffer
        scenario = getattr(self.config, "scenario", None)
        if scenario:
            scenarios.apply_scenario(loop, scenario)
        elif auto_seed_agents and not scenarios.has_agents(loop):
            scenarios.seed_default_agents(loop)
        if not scenarios.has_agents(loop):
            msg = "No agents available for rollout capture. Provide a scenario or enable auto seeding of agents."
            raise ConfigurationError(msg)
        if anneal_ratio is not None and hasattr(loop.policy, "set_anneal_ratio"):
            loop.policy.set_anneal_ratio(anneal_ratio)
        loop.policy.collect_trajectory(clear=True)
        for _ in range(ticks):
            loop.step()
            buffer.extend(loop.policy.collect_trajectory(clear=True))
            buffer.record_events(loop.telemetry.latest_events())
        buffer.set_tick_count(ticks)
        if output_dir is not None:
            buffer.save(Path(output_dir), prefix=prefix, compress=compress)
        return buffer

    def build_dataset_from_buffer(self, buffer: FrameRolloutBuffer, batch_size: int = 1) -> InMemoryReplayDataset:
        """Batch a capture in memory."""
        return buffer.build_dataset(batch_size=batch_size)

    def _staged(self, cycle: int) -> Any:
        """Return the configuration with the cycle's social reward stage; the shared one stays as it is."""
        training = self.config.training
        stage = getattr(training, "social_reward_stage_override", None)
        if stage is None:
            entries = sorted(getattr(training, "social_reward_schedule", None) or (), key=lambda entry: entry.cycle)
            stage = next((entry.stage for entry in reversed(entries) if entry.cycle <= cycle), None)
        stages = getattr(getattr(self.config, "features", None), "stages", None)
        if stage is None or stages is None or stages.social_rewards == stage:
            return self.config
        config = copy.deepcopy(self.config)
        config.features.stages.social_rewards = stage
        return config


@dataclass
class TrainingServices:
    """The services of one configuration."""

    replay: ReplayDatasetService
    rollout: RolloutCaptureService
    promotion: PromotionServiceAdapter
    evaluation: Any = None

    @classmethod
    def from_config(cls, config: Any) -> TrainingServices:
        """Compose the services; all of them share ``config``."""
        return cls(ReplayDatasetService(config), RolloutCaptureService(config), PromotionServiceAdapter(config))
