"""Draw the README's picture: a policy on Push, one row for each way it took.

python benchmarks/picture.py CHECKPOINT [--out docs/pictures/push.png]
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from robopol import load_policy, make_env
from robopol.evaluation import rollout
from robopol.evaluation.video import Film
from robopol.execution import RecedingHorizon

SEEDS = list(range(100_000, 100_012))


def main() -> None:
    """Film a dozen episodes and keep a successful one of each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "pictures" / "push.png")
    args = parser.parse_args()
    policy, film = load_policy(args.checkpoint), Film(SEEDS, fps=10)
    with make_env("robopol/Push-v0", len(SEEDS), render_size=(240, 320)) as env:
        outcomes = rollout(RecedingHorizon(policy), env, SEEDS, watcher=film)
        ways = env.spec.way_names
    rows = []
    for way in ways:
        clip = next(film.frames[o.seed] for o in outcomes if o.success and o.way == way)
        moments = np.linspace(0, len(clip) - 1, 4).round().astype(int)
        rows.append(np.concatenate([clip[moment] for moment in moments], axis=1))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    plt.imsave(args.out, np.concatenate(rows))


if __name__ == "__main__":
    main()
