"""How often the experts of worlds that are not ours succeed, and in how many steps.

    python benchmarks/experts.py [--tasks cube-single-v0 ...] [--episodes 20] [--out benchmarks/results/experts.json]
    python benchmarks/experts.py --tasks metaworld/reach-v3 ...      # in the environment that has Meta-World

Seeds from 0 on, no noise. Upstream's own oracles and scripted policies, but for the mazes of gymnasium-robotics, which
have none. Results of several calls are put together; without ``--tasks`` all that can be made here are measured. The
figures are those of docs/worlds.md. Some minutes on one core.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from robopol import __version__
from robopol.envs import make_env
from robopol.errors import EnvError, MissingExtraError
from robopol.evaluation import ExpertActor
from robopol.evaluation.collect import collect
from robopol.files import write_json

RESULTS = Path(__file__).parent / "results"
EXPERTS = {
    "PointMaze_UMaze-v3": "robopol's shortest way, damped spring",
    "PointMaze_Large-v3": "robopol's shortest way, damped spring",
    "pointmaze-medium-v0": "OGBench's shortest way",
    "pointmaze-giant-v0": "OGBench's shortest way",
    "cube-single-v0": "OGBench's oracle, cube by cube",
    "cube-double-play-singletask-v0": "OGBench's oracle, cube by cube",
    "cube-double-v0": "OGBench's oracle, cube by cube",
    "puzzle-3x3-v0": "OGBench's oracle, button by button",
    **{
        f"metaworld/{name}-v3": "Meta-World's policy"
        for name in ("reach", "push", "pick-place", "door-open", "drawer-close")
    },
}
"""World -> who acts in it."""


def measure(world: str, episodes: int) -> dict[str, Any]:
    """Let the expert of a world act."""
    with make_env(world) as env:
        found = collect(ExpertActor(env, noise=0.0), env, episodes, 0, source="expert", only_success=False)
        return {
            "succeeded": int(found.success.sum()),
            "episodes": len(found),
            "median_steps": int(found.lengths.median()),
            "goes_on": bool((found.lengths == env.spec.max_episode_steps).all()),
            "versions": dict(found.meta.versions),
        }


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    rows = tree["worlds"]
    return [
        "## Experts of worlds that are not ours",
        "",
        "Seeds from 0 on, no noise; an episode that goes on after success ends with its time. "
        "`python benchmarks/experts.py`",
        "",
        "| world | expert | succeeded | of | median steps |",
        "|---|---|---|---|---|",
        *(
            f"| `{world}` | {EXPERTS[world]} | {row['succeeded']} | {row['episodes']} | {row['median_steps']}"
            f"{' (goes on)' if row['goes_on'] else ''} |"
            for world, row in rows.items()
        ),
        "",
    ]


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=EXPERTS, default=None)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "experts.json")
    args = parser.parse_args()
    tree = json.loads(args.out.read_text()) if args.out.exists() else {"worlds": {}}
    for world in args.tasks or EXPERTS:
        try:
            row = measure(world, args.episodes)
        except (EnvError, MissingExtraError) as error:
            if args.tasks:
                raise
            print(f"{world}: {error}")
            continue
        print(f"{world:32} {row['succeeded']:3} of {row['episodes']}, {row['median_steps']} steps", flush=True)
        tree["worlds"] = {name: row if name == world else tree["worlds"].get(name) for name in EXPERTS}
        tree["worlds"] = {name: found for name, found in tree["worlds"].items() if found is not None}
        write_json(args.out, tree | {"robopol": __version__, "platform": platform.platform()})


if __name__ == "__main__":
    main()
