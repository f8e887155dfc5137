"""What the sections of docs/results.md share; each script says its own in ``section``, and report.py joins them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def share(value: float, interval: tuple[float, float]) -> str:
    """Return a share with its interval."""
    low, high = interval
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def percent(row: Mapping[str, Any]) -> str:
    """Return the success of a row."""
    return share(row["success_rate"], row["success_ci95"])


def by_seed(row: Mapping[str, Any]) -> str:
    """Return the rate of each training seed of a row."""
    return " ".join(f"{rate:.0%}" for rate in row["by_seed"])


def ways(row: Mapping[str, Any]) -> str:
    """Return how many successful episodes of a row took each way."""
    return ", ".join(f"{way} {count}" for way, count in row["ways"].items()) or "-"


def gained(row: Mapping[str, Any]) -> str:
    """Return the points by which a row differs from what it is compared with."""
    low, high = row["gain_ci95"]
    return f"{100 * row['gain']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def ends(median: float, low: float, high: float, digits: int = 1) -> str:
    """Return a median with the least and the most."""
    return f"{median:.{digits}f} [{low:.{digits}f}..{high:.{digits}f}]"


def seeds(rows: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many training seeds the rows of a table are of, most of them at least."""
    return max(len(row["by_seed"]) for row in rows.values())


def mean(value: float, interval: tuple[float, float] | None, digits: int = 2) -> str:
    """Return a mean with its interval over training seeds, if there is one."""
    told = f"{value:.{digits}f}"
    return told if interval is None else f"{told} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def picture(name: str, shows: str) -> list[str]:
    """Return a picture that a script has drawn beside its results; nothing if it is not there yet."""
    return ["", f"![{shows}](../benchmarks/results/{name}.png)"] if (RESULTS / f"{name}.png").exists() else []
