"""Film a policy that moves an emulated arm through the bridge, over the unmodified ur-rtde.

    python benchmarks/bridge_film.py CHECKPOINT [--seed 300000] [--latency 0.1] [--out bridge.mp4]
    [--stills docs/pictures/bridge.png]

Servo loop, filter, ur-rtde and emulated controller are those of `bridge_tasks.py`, in lock-step; what is drawn is where
the controller says that everything is, ten times a second.
"""

import argparse
import tempfile
from pathlib import Path

import bridge_tasks
import imageio.v3 as iio
import matplotlib.pyplot as plt
import numpy as np

from robopol import load_policy
from robopol.real_robot.rehearsal import rehearse
from robopol.real_robot.rigs import OnUR
from robopol.real_robot.scenes import Scene
from robopol.real_robot.world import World

FPS = 10


class Filmed(OnUR):
    """Keeps every world that it showed."""

    def world(self, t: int) -> World:
        """See `Rig.world`."""
        if not hasattr(self, "seen"):
            self.seen = list[World]()
        self.seen.append(super().world(t))
        return self.seen[-1]


def main() -> None:
    """Let it act, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--seed", type=int, default=bridge_tasks.SEED)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=Path("bridge.mp4"))
    parser.add_argument("--stills", type=Path)
    args = parser.parse_args()
    policy = load_policy(args.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        robot = bridge_tasks.robot_of(Path(folder))
        rig = Filmed(robot, "127.0.0.79")
        try:
            (outcome,) = rehearse(policy, robot, policy.spec.env, [args.seed], rig=rig, latency=args.latency)
        finally:
            rig.close()
    env = policy.spec.env.model_copy(update={"options": {**policy.spec.env.options, "render_size": (240, 320)}})
    scene, frames = Scene(env), []
    scene.task.reset(seed=args.seed)
    for world in rig.seen[:: round(1 / FPS / robot.period)]:
        scene.show(world)
        frames.append(scene.task.render())
    scene.task.close()
    iio.imwrite(args.out, np.stack(frames), fps=FPS, codec="libx264")
    print(f"success: {outcome.success} in {outcome.length} steps; {args.out}: {args.out.stat().st_size / 1e3:.0f} kB")
    if args.stills is not None:
        picked = np.linspace(0, len(frames) - 1, 4).round().astype(int)
        plt.imsave(args.stills, np.concatenate([frames[k] for k in picked], axis=1))


if __name__ == "__main__":
    main()
