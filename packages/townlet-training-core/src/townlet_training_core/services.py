"""Services: what a strategy may ask for. All of them work without torch.

A strategy receives a :class:`TrainingServices` and asks it for simulations, rollouts, replay data,
evaluations and the promotion record; it never looks anything up by itself.

The social reward stage of ``training.social_reward_*`` holds for the simulations that are trained in and for nothing
else: evaluations keep the configured one, so that stages are compared by one reward, and no configuration is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from townlet_training_core.config.loader import apply_overrides
from townlet_training_core.config.models import SocialRewardStage, TrainingConfig
from townlet_training_core.errors import ConfigurationError
from townlet_training_core.evaluation.service import EvaluationService
from townlet_training_core.promotion.manager import PromotionServiceAdapter
from townlet_training_core.registry import make_simulation
from townlet_training_core.replay.service import ReplayService
from townlet_training_core.rollout.service import RolloutCaptureService
from townlet_training_core.simulation.port import Simulation

__all__ = ["TrainingServices"]


@dataclass(frozen=True, slots=True)
class TrainingServices:
    """The services of one configuration."""

    replay: ReplayService
    rollout: RolloutCaptureService
    promotion: PromotionServiceAdapter
    evaluation: EvaluationService
    make_simulation: Callable[..., Simulation]
    """``make_simulation(num_envs=None, options=None)``: the configured simulation, or one with other options."""

    @classmethod
    def from_config(cls, config: TrainingConfig) -> TrainingServices:
        """Compose the services of a configuration, at cycle 0; nothing is opened or made yet."""

        def simulation(*, num_envs: int | None = None, options: Mapping[str, Any] | None = None) -> Simulation:
            changed = {} if options is None else {"options": dict(options)}
            made: Simulation = make_simulation(config.simulation.model_copy(update=changed), num_envs=num_envs)
            return made

        services = cls(
            replay=ReplayService(config),
            rollout=RolloutCaptureService(simulation),
            promotion=PromotionServiceAdapter(config.promotion),
            evaluation=EvaluationService.from_config(config),
            make_simulation=simulation,
        )
        return services.at_cycle(config, 0)

    def at_cycle(self, config: TrainingConfig, cycle: int) -> TrainingServices:
        """Return services whose simulations have the social reward stage of ``cycle``; they make them as this one does.

        A simulation that has no such option is refused when it is made, by a ``ConfigurationError``.
        """
        stage = config.training.social_stage_at(cycle)
        if stage is None:
            return self
        return replace(self, make_simulation=_AtStage(self.make_simulation, config, stage))


@dataclass(slots=True)
class _AtStage:
    """Makes the simulation with a social reward stage; the first time it makes sure that the stage is heeded."""

    make: Callable[..., Simulation]
    config: TrainingConfig
    stage: SocialRewardStage
    heeded: bool = False

    def __call__(self, *, num_envs: int | None = None, options: Mapping[str, Any] | None = None) -> Simulation:
        if options is not None:
            return self.make(num_envs=num_envs, options=options)
        made = self._staged(self.stage, num_envs)
        if not self.heeded:
            other = self._staged("C1" if self.stage == "OFF" else "OFF", 1)
            other.close()
            self.heeded = other.spec.rules_hash != made.spec.rules_hash
            if not self.heeded:
                made.close()
                raise ConfigurationError(self._refusal("its rules are the same at every stage"))
        return made

    def _staged(self, stage: SocialRewardStage, num_envs: int | None) -> Simulation:
        path = self.config.training.social_reward_option
        try:
            options = apply_overrides(self.config.simulation.options, [f"{path}='{stage}'"])
            return self.make(num_envs=num_envs, options=options)
        except ConfigurationError as error:
            raise ConfigurationError(self._refusal(str(error))) from error

    def _refusal(self, reason: str) -> str:
        return (
            f"training.social_reward_* asks for the social reward stage {self.stage!r}, which simulation "
            f"{self.config.simulation.name!r} does not take as simulation.options."
            f"{self.config.training.social_reward_option} ({reason}); leave the stages out, or name its option in "
            "training.social_reward_option"
        )
