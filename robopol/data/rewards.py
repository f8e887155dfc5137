"""Another reward in the place of the recorded one."""

from dataclasses import replace

import torch

from robopol.data.episodes import Episodes
from robopol.reward import Reward


def rewarded(episodes: Episodes, reward: Reward) -> Episodes:
    """Return episodes whose rewards are changed as those of a world are; everything else is shared.

    Args:
        episodes: What was recorded.
        reward: What becomes of each.
    """
    if reward == Reward():
        return episodes
    won = torch.zeros_like(episodes.reward, dtype=torch.bool)
    won[(episodes.starts + episodes.lengths - 1)[episodes.success]] = True
    return replace(episodes, reward=reward.of_steps(episodes.reward, won))
