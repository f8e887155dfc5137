"""Two policies that each see a part of the world well, and what a convex mix of their fields is worth (GPC).

    python benchmarks/gpc.py [--tasks reach pick_place] [--seeds 0 1 2] [--work DIR] [--out FILE] [--train-only]

Each parent sees the state with an error that is constant over an episode, as of a camera that was put up a little
wrongly, and each another one: on Reach the target's x or its y, on PickPlace the cube's place or the mark's. One is a
diffusion policy, the other a flow policy, cloned from the same demonstrations; their fields lie on different paths.
The weight is searched on 100 tuning seeds and judged on 200 others, episodes paired by their seed. Finished runs are
kept in ``--work`` and not trained again.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cloning
import numpy as np
import torch
from torch import Tensor

from robopol.data import save_episodes
from robopol.envs import VectorEnv, make_env
from robopol.envs.vector import Observation, StepResult
from robopol.envs.wrappers import VectorWrapper, WrapperConfig
from robopol.evaluation import ExpertActor
from robopol.evaluation.collect import collect

RESULTS = Path(__file__).parent / "results"


class ViewsConfig(WrapperConfig):
    """The state as several observers see it, each under a key of its own.

    Attributes:
        errors: Key -> (entry of the state, standard deviation of its error over the episodes).
    """

    kind: Literal["views"] = "views"
    errors: dict[str, tuple[tuple[int, float], ...]]

    def build(self, env: VectorEnv) -> "Views":
        """See `WrapperConfig.build`."""
        return Views(env, self)


class Views(VectorWrapper):
    """See `ViewsConfig`; the errors of an episode are drawn from its seed."""

    def __init__(self, env: VectorEnv, config: ViewsConfig) -> None:
        size = env.spec.obs_shapes["state"][0]
        keys = list(config.errors)
        super().__init__(
            env,
            config,
            memory=size * len(keys),
            obs_shapes=env.spec.obs_shapes | {key: (size,) for key in keys},
            obs_dtypes=env.spec.obs_dtypes | {key: "float32" for key in keys},
        )
        self.spec = replace(self.spec, wrappers=env.spec.wrappers)  # a wrapper of this script alone is no registered kind
        self._std = np.zeros((len(keys), size))
        for row, errors in zip(self._std, config.errors.values(), strict=True):
            for entry, std in errors:
                row[entry] = std
        self._keys = keys

    def reset(self, slots: list[int], seeds: list[int]) -> Observation:  # type: ignore[override]
        observation = self.env.reset(slots, seeds)
        for slot, seed in zip(slots, seeds, strict=True):
            rng = np.random.default_rng([int(seed), 0x56494557])
            self.memory[slot] = torch.from_numpy((rng.standard_normal(self._std.shape) * self._std).ravel())
        return self._seen(slots, observation)

    def step(self, slots: list[int], actions: Tensor) -> StepResult:  # type: ignore[override]
        result = self.env.step(slots, actions)
        return result._replace(obs=self._seen(slots, result.obs))

    def _seen(self, slots: list[int], observation: Observation) -> Observation:
        errors = self.memory[list(slots)].float().unflatten(1, self._std.shape)
        return dict(observation) | {key: observation["state"] + errors[:, i] for i, key in enumerate(self._keys)}


TASKS = {
    "reach": (
        300,
        1500,
        {"a": ((11, 0.032),), "b": ((12, 0.032),)},
    ),
    "pick_place": (
        500,
        3000,
        {"a": ((11, 0.014), (12, 0.014)), "b": ((15, 0.018), (16, 0.018))},
    ),
}
"""Task -> demonstrations, updates, the errors of each parent's view."""
DIFFUSION = ["policy=diffusion", "policy/sampler=ddim", "policy.prediction=x0", *cloning.FLOW[4:], cloning.FLOW[0]]
PARENTS = {"a": [*DIFFUSION, "policy/net=mlp"], "b": cloning.FLOW}
POOR = 200
"""Updates of the parent that is far worse."""


def world(task: str, num_envs: int = 32) -> VectorEnv:
    views: dict[str, tuple[tuple[int, float], ...]] = TASKS[task][2]
    env = make_env({"reach": "robopol/Reach-v0", "pick_place": "robopol/PickPlace-v0"}[task], num_envs)
    return ViewsConfig(errors=views).build(env)


def parents(task: str, seed: int, work: Path) -> dict[str, Path]:
    """Return the finished runs of both parents, and of one that was trained for too short."""
    episodes, updates, _ = TASKS[task]
    demos = work / f"{task}.hdf5"
    if not demos.exists():
        with world(task, 16) as env:
            save_episodes(collect(ExpertActor(env), env, episodes, 0, source="expert", only_success=True), str(demos))
    found = {}
    for name, view, length in (("a", "a", updates), ("b", "b", updates), ("poor", "b", POOR)):
        found[name] = work / f"{task}-{name}-{seed}"
        cloning.train(
            found[name],
            *PARENTS[view],
            "~env",
            f"data.demos.uri={demos}",
            f"policy.encoder.keys=[{view}]",
            f"seed={seed}",
            f"phases.cloning.updates={length}",
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/gpc"))
    parser.add_argument("--out", type=Path, default=RESULTS / "gpc.json")
    parser.add_argument("--train-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    for task in args.tasks:
        for seed in args.seeds:
            parents(task, seed, args.work)


if __name__ == "__main__":
    main()
