"""``imitation``: one pass of its behaviour cloning."""

from __future__ import annotations

from typing import Any

import numpy as np
import problem as p
import torch
from gymnasium import spaces
from imitation.algorithms import bc
from imitation.data.types import Transitions
from imitation.util import logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor
from worker import Round, serve, threads

torch.set_num_threads(threads())

CUT = int(np.prod(p.MAP))


class Extractor(BaseFeaturesExtractor):  # type: ignore[misc]  # the library is not installed where types are checked
    """The contract's trunk over one vector, which costs the library less than named observations do."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, p.HIDDEN)
        self.trunk = p.Trunk()

    def forward(self, observations: Tensor) -> Tensor:
        latent: Tensor = self.trunk(observations[:, :CUT], observations[:, CUT:])
        return latent


def cloning() -> Round:
    """One epoch."""
    rows = p.decisions()
    observations = np.concatenate([rows["map"].reshape(p.CLONING_ROWS, -1), rows["features"]], axis=1)
    space = spaces.Box(-1.0, 2.0, observations.shape[1:], np.float32)
    actions = spaces.Discrete(p.ACTIONS)
    policy = ActorCriticPolicy(
        space, actions, lambda _: p.CLONING_RATE, net_arch=[], features_extractor_class=Extractor
    )
    trainer = bc.BC(
        observation_space=space,
        action_space=actions,
        rng=np.random.default_rng(0),
        policy=policy,
        demonstrations=Transitions(
            obs=observations,
            acts=rows["actions"],
            infos=np.array([{}] * p.CLONING_ROWS),
            next_obs=observations,
            dones=np.zeros(p.CLONING_ROWS, np.bool_),
        ),
        batch_size=p.CLONING_BATCH,
        optimizer_kwargs={"lr": p.CLONING_RATE},
        ent_weight=0.0,
        l2_weight=0.0,
        device="cpu",
        custom_logger=logger.configure(None, []),
    )
    return Round(work=lambda: trainer.train(n_epochs=1, log_interval=10**9, progress_bar=False))


if __name__ == "__main__":
    serve({"cloning": cloning}, ("imitation", "stable-baselines3", "torch", "numpy", "gymnasium"))
