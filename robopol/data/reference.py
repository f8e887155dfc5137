"""Reference returns: what makes a return of one environment comparable with those of others.

The D4RL score of a return R is 100 (R - low) / (high - low), with R undiscounted and nothing clipped; ``low`` is a
random and ``high`` an expert policy's return. Figures: D4RL, ``d4rl/infos.py``. Environments of gymnasium
(``Hopper-v5``) are other worlds than those that D4RL and these figures come from: they have no entry.
"""

import re

_MUJOCO = r"-(random|medium|expert|(medium|full)-replay|medium-expert)-v[012]"
_ADROIT = r"-(human|cloned|expert)-v[01]"
_BULLET = r"-(random|medium|expert|medium-replay|medium-expert)-v0"
REFERENCES = {
    f"halfcheetah{_MUJOCO}": (-280.178953, 12135.0),
    f"hopper{_MUJOCO}": (-20.272305, 3234.3),
    f"walker2d{_MUJOCO}": (1.629008, 4592.3),
    f"ant{_MUJOCO}": (-325.6, 3879.7),
    r"antmaze-(umaze|umaze-diverse|(medium|large)-(play|diverse))-v[0-2]": (0.0, 1.0),
    r"kitchen-(complete|partial|mixed)-v0": (0.0, 4.0),
    "maze2d-open-v0": (0.01, 20.66),
    "maze2d-umaze-v1": (23.85, 161.86),
    "maze2d-medium-v1": (13.13, 277.39),
    "maze2d-large-v1": (6.7, 273.99),
    "maze2d-open-dense-v0": (11.17817, 27.166538620695782),
    "maze2d-umaze-dense-v1": (68.537689, 193.66285642381482),
    "maze2d-medium-dense-v1": (44.264742, 297.4552547777125),
    "maze2d-large-dense-v1": (30.569041, 303.4857382709002),
    f"pen{_ADROIT}": (96.262799, 3076.8331017826877),
    f"hammer{_ADROIT}": (-274.856578, 12794.134825156867),
    f"relocate{_ADROIT}": (-6.425911, 4233.877797728884),
    f"door{_ADROIT}": (-56.512833, 2880.5693087298737),
    f"bullet-halfcheetah{_BULLET}": (-1275.766996, 2381.6725),
    f"bullet-hopper{_BULLET}": (20.058972, 1441.8059623430963),
    f"bullet-ant{_BULLET}": (373.705955, 2650.495),
    f"bullet-walker2d{_BULLET}": (16.523877, 1623.6476303317536),
    "minigrid-fourrooms(-random)?-v0": (0.01442, 2.89685),
    "carla-lane-v0": (-0.8503839912088142, 1023.5784385429523),
    "carla-town-v0": (-114.81579500772153, 2440.1772022247314),
    "flow-ring-(random|controller)-v0": (-165.22, 24.42),
    "flow-merge-(random|controller)-v0": (118.67993, 330.03179),
}
"""Pattern of a D4RL dataset's id -> return of a random and of an expert policy."""


def reference_returns(env_id: str) -> tuple[float, float] | None:
    """Return the returns of a random and of an expert policy.

    Args:
        env_id: A D4RL id, e.g. ``"hopper-medium-v2"``, also behind a prefix: ``"d4rl/hopper-medium-v2"``.

    Returns:
        Low and high, or None if there are no figures for it.
    """
    name = env_id.lower().rpartition("/")[2]
    return next((pair for pattern, pair in REFERENCES.items() if re.fullmatch(pattern, name)), None)


def normalised_score(value: float, low: float, high: float) -> float:
    """Return the D4RL score of a return, 0 for ``low`` and 100 for ``high``."""
    return 100.0 * (value - low) / (high - low)
