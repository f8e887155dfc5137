"""Statistics of a LeRobot dataset: of each feature, over an episode and over everything.

They are exact, where LeRobot samples images and estimates quantiles (``lerobot/datasets/compute_stats.py``).
"""

import numpy as np

Stats = dict[str, np.ndarray]
"""Name of a statistic -> its value for one feature; ``count`` is that of the frames."""

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def number_stats(values: np.ndarray) -> Stats:
    """Return the statistics over the first axis; a plain number a row counts as a vector of one.

    Args:
        values: (n, ...) numbers.
    """
    exact = values.astype(np.float64).reshape(len(values), *(values.shape[1:] or (1,)))
    stats = {"min": exact.min(0), "max": exact.max(0), "mean": exact.mean(0), "std": exact.std(0)}
    stats["count"] = np.array([len(values)])
    quantiles = np.quantile(exact, list(_QUANTILES.values()), axis=0)
    return stats | dict(zip(_QUANTILES, quantiles, strict=True))


def histogram(images: np.ndarray) -> np.ndarray:
    """Count each brightness in each channel.

    Args:
        images: (n, H, W, C) uint8.

    Returns:
        (C, 256); those of several episodes add up.
    """
    return np.stack(
        [np.bincount(images[..., channel].reshape(-1), minlength=256) for channel in range(images.shape[3])]
    )


def image_stats(counts: np.ndarray, frames: int) -> Stats:
    """Return the statistics of each channel, (C, 1, 1), of brightness in [0, 1].

    Args:
        counts: (C, 256), as `histogram` counts them.
        frames: How many images they are of.
    """
    values, shares = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    stats = {
        "min": values[(counts > 0).argmax(1)],
        "max": values[255 - (counts[:, ::-1] > 0).argmax(1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(shares @ values**2 - mean**2, 0)),
    }
    below = shares.cumsum(1)
    for name, quantile in _QUANTILES.items():
        stats[name] = values[(below >= quantile - 1e-12).argmax(1)]
    shaped: Stats = {name: value.reshape(-1, 1, 1) for name, value in stats.items()}
    return shaped | {"count": np.array([frames])}
