"""Draw what frozen policies do before and after they are steered, over rendered pictures of their worlds.

    python benchmarks/before_after.py --push RUN --multi-goal RUN [--episodes 24] [--out docs/pictures]

``before-after-push.png``: where the disc went on Push, asked for nothing, and for either side by a line for the tool.
``before-after-multi-goal.png``: where the point went on MultiGoal, asked for nothing, for the goal in the east, and for
staying out of a disc. The runs are those of ``experiment=demo`` on each.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import mujoco
import numpy as np
import steer_ways
from numpy.typing import NDArray

from robopol import load_policy, make_env
from robopol.envs import VectorEnv
from robopol.envs.multi_goal import DISC
from robopol.evaluation import SEED0, Recorder, rollout
from robopol.execution import RecedingHorizon
from robopol.policies import Policy

WORLD = {"obstacles": "disc"}
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
COLOURS = {"left": "#1f6fd6", "right": "#d9480f", "east": "#1f6fd6", "north": "#2b8a3e", "west": "#d9480f"}
Panel = tuple[str, list[dict[str, Any]], dict[str, Any]]
"""Title, steerings, options of the world."""


def push_panels() -> list[Panel]:
    line = [
        (f"asked to pass {way}", steer_ways.DRAWN["guide, time travel"](side)) for way, side in steer_ways.WAYS.items()
    ]
    return [("as it is", [], {}), *((title, trees, {}) for title, trees in line)]


def multi_goal_panels() -> list[Panel]:
    point = {"kind": "point", "point": [0.8, 0.0], "when": "every"}
    x, y, radius = DISC
    disc = {"kind": "keep_away", "discs": [{"centre": [x, y], "radius": radius + 0.02}]}
    travel = {"kind": "inner_steps", "count": 4, "back": "time_travel"}
    return [
        ("as it is", [], {}),
        ("asked to go east", [{"kind": "guide", "objective": point, "scale": 20.0}, travel], {}),
        ("asked to stay out of a disc", [{"kind": "guide", "objective": disc, "scale": 500.0}, travel], WORLD),
    ]


def paths(policy: Policy, env: VectorEnv, entries: list[int], episodes: int) -> list[tuple[str, NDArray[Any]]]:
    """Return the way that each episode took, and some entries of its states, (L, 2)."""
    recorder = Recorder(env, "policy")
    rollout(RecedingHorizon(policy), env, range(SEED0, SEED0 + episodes), recorder=recorder)
    made = recorder.episodes()
    names, state, last = made.meta.way_names, made.obs["state"].numpy(), made.final_obs["state"].numpy()
    found = []
    for k, (start, length) in enumerate(zip(made.starts.tolist(), made.lengths.tolist(), strict=True)):
        whole = np.concatenate([state[start : start + length], last[k : k + 1]])[:, entries]
        found.append((names[made.way[k]] if made.way[k] >= 0 else "", whole))
    return found


def pixels(env: Any, points: NDArray[Any], height: float, size: tuple[int, int]) -> NDArray[Any]:
    """Return where points on the table (L, 2) are in the front camera's picture of (height, width) pixels, (L, 2)."""
    camera = mujoco.mj_name2id(env.model, mujoco.mjtObj.mjOBJ_CAMERA, "front")
    place, turn = env.data.cam_xpos[camera], env.data.cam_xmat[camera].reshape(3, 3)
    seen = (np.concatenate([points, np.full((len(points), 1), height)], 1) - place) @ turn
    scale = 0.5 * size[0] / np.tan(np.radians(env.model.cam_fovy[camera]) / 2)
    return np.stack([size[1] / 2 - scale * seen[:, 0] / seen[:, 2], size[0] / 2 + scale * seen[:, 1] / seen[:, 2]], 1)


def draw(run: Path, panels: list[Panel], episodes: int, out: Path) -> None:
    """Draw the panels of a policy side by side."""
    policy = load_policy(run)
    assert policy.spec.env is not None
    name, arm = policy.spec.env.id, "MultiGoal" not in policy.spec.env.id
    size = (360, 480)
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 2.9 if arm else 3.5), layout="constrained")
    for ax, (title, trees, options) in zip(axes, panels, strict=True):
        more = {"render_size": size} if arm else {}
        with make_env(name, 8, backend="serial", **more, **options) as env:
            entries = [env.spec.state_names.index(f"{'disc' if arm else 'point'} {axis} [m]") for axis in "xy"]
            walked = paths(steer_ways.built(policy, trees), env, entries, episodes)
            env.reset([0], [SEED0])
            picture, world = env.render(0), env.envs[0]  # type: ignore[attr-defined]
            for way, points in walked:
                line = pixels(world, points, 0.04, size) if arm else points
                ax.plot(line[:, 0], line[:, 1], color=COLOURS.get(way, "#5f3dc4"), linewidth=1.2, alpha=0.7)
        extent = None if arm else (-1, 1, -1, 1)
        ax.imshow(picture, extent=extent)
        ax.set_xlim(*((0, size[1]) if arm else (-1, 1)))
        ax.set_ylim(*((size[0], 0) if arm else (-1, 1)))
        ax.set_title(title, fontsize=10)
        ax.axis("off")
    figure.savefig(out, dpi=90)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--push", type=Path)
    parser.add_argument("--multi-goal", type=Path)
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--out", type=Path, default=PICTURES)
    args = parser.parse_args()
    if args.push:
        draw(args.push, push_panels(), args.episodes, args.out / "before-after-push.png")
    if args.multi_goal:
        draw(args.multi_goal, multi_goal_panels(), args.episodes, args.out / "before-after-multi-goal.png")


if __name__ == "__main__":
    main()
