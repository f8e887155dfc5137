"""Episodes: recorded, read, written, cut into windows, normalised and described."""

from robopol.data.builder import EpisodeBuilder
from robopol.data.episodes import Episodes, EpisodesMeta
from robopol.data.load import check_writable, load_episodes, save_episodes
from robopol.data.normalizer import Normalizer
from robopol.data.stats import describe
from robopol.data.windows import Windows

__all__ = [
    "EpisodeBuilder",
    "Episodes",
    "EpisodesMeta",
    "Normalizer",
    "Windows",
    "check_writable",
    "describe",
    "load_episodes",
    "save_episodes",
]
