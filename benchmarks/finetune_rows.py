"""What finetune.py compares: tasks, how their bases are described, and methods that begin from these."""

from typing import Any, NamedTuple


class Task(NamedTuple):
    """What is to become better at what.

    Attributes:
        id: The world.
        options: Its options.
        demos: Scripted demonstrations; 0 if records are given.
        updates: Gradient steps of cloning, for all kinds of bases or for each: few, so that something can be gained.
        steps: Environment steps.
        records: File of the records.
        reference: Dataset by whose reference returns a return is told; None tells success.
        words: What every method is told beside its own words.
    """

    id: str
    options: dict[str, Any]
    demos: int = 0
    updates: int | dict[str, int] = 300
    steps: int = 115_200
    records: str = ""
    reference: str | None = None
    words: tuple[str, ...] = ()

    def cloning(self, kind: str) -> int:
        """Return the gradient steps of cloning of a kind of base."""
        return self.updates if isinstance(self.updates, int) else self.updates[kind]


TASKS = {
    "goals": Task("robopol/MultiGoal-v0", {"max_episode_steps": 30}, 20),
    "maze": Task("robopol/MultiGoal-v0", {"obstacles": "maze"}, 100, 3000, steps=38_400),
    "reach": Task("robopol/Reach-v0", {}, 10),
    "push": Task("robopol/Push-v0", {}, 60, {"diffusion": 1500, "flow": 900}),
    "hopper": Task(
        "Hopper-v5",
        {},
        updates=5000,
        records="hopper-medium.hdf5",
        reference="hopper-medium-v2",
        words=("model.discount=0.99",),
    ),
}
"""By name."""

CHUNK = [
    "policy.n_obs_steps=1",
    "policy.horizon=4",
    "policy.n_action_steps=4",
    "policy/net=mlp",
    "policy.net.width=128",
]
BASES = {
    "diffusion": ["policy=diffusion", *CHUNK, "policy.path.train_steps=20"],
    "flow": ["policy=flow", *CHUNK, "policy.sampler.steps=10"],
}
"""Kind of base -> how it is described."""

ACTING = ["collection.num_envs=32", "phases.online.rollout=3840", "batch_size=240"]
BESIDE = ["collection.num_envs=4", "phases.online.warmup=1600", "phases.online.updates_per_step=0.5", "batch_size=128"]
BESIDE += ["model.hidden=[128,128]", "model.discount=0.98"]
FPO = ["algo=fpo", "checkpoint={base}", *ACTING, "algo.lr=1e-4", "algo.scale_rewards=true"]
FPO += ["algo.surrogate.clip=0.01", "algo.epochs=4", "algo.warmup=2"]
ROWS = {
    "dppo": ("diffusion", ["algo=dppo", "checkpoint={base}", *ACTING, "algo.surrogate.clip=0.01", "algo.warmup=2"]),
    "dppo of a flow": (
        "flow",
        [
            *("algo=dppo", "checkpoint={base}", *ACTING),
            *("algo.scoring.steps=5", "algo.surrogate.clip=0.01", "algo.warmup=2"),
        ],
    ),
    "fpo": ("flow", FPO),
    "fpo, of velocities": ("flow", [*FPO, "algo.scoring.target=own"]),
    "fpo, asymmetric": ("flow", [*FPO, "algo.surrogate.kind=asymmetric"]),
    "fpo, both": ("flow", [*FPO, "algo.scoring.target=own", "algo.surrogate.kind=asymmetric"]),
    "dsrl": ("flow", ["algo=dsrl", "checkpoint={base}", *BESIDE, "algo.alpha=0.1"]),
    "dsrl of a diffusion": (
        "diffusion",
        ["algo=dsrl", "checkpoint={base}", *BESIDE, "algo.alpha=0.1", "algo.sampler={kind: ddim, steps: 10}"],
    ),
    "dsrl, of noise alone": ("flow", ["algo=dsrl_sac", "checkpoint={base}", *BESIDE, "algo.alpha=0.1"]),
    "expo": ("flow", ["algo=expo", "checkpoint={base}", *BESIDE, "algo.alpha=0.1", "algo.delay=2"]),
    "expo, after records": (
        "flow",
        [
            *("algo=expo", "checkpoint={base}", "schedule=offline_to_online", "data.demos.uri={demos}", *BESIDE),
            *("algo.alpha=0.1", "algo.delay=2", "phases.offline.updates=3000"),
        ],
    ),
    "best of 8": ("flow", ["algo=expo", "checkpoint={base}", *BESIDE, "algo.edit=0", "algo.delay=2"]),
    "rlpd, temperature 1": ("flow", ["algo=rlpd", *BESIDE, "data.demos.uri={demos}", "algo.delay=2"]),
    "rlpd": ("flow", ["algo=rlpd", *BESIDE, "data.demos.uri={demos}", "algo.delay=2", "algo.alpha=0.1"]),
    "iql, best of 8": (
        "flow",
        [
            *("algo=iql", "checkpoint={base}", "schedule=beside_data", "data.demos.uri={demos}", *BESIDE),
            *("model.n_action_steps=4", "algo.beta=0", "algo.proposals=8"),
        ],
    ),
    "rlpd of chunks": (
        "flow",
        [
            *("algo=rlpd", *BESIDE, "data.demos.uri={demos}", "algo.delay=2", "algo.alpha=0.1"),
            *("policy.horizon=4", "policy.n_action_steps=4", "model.n_action_steps=4"),
        ],
    ),
}
"""Name -> kind of its base, and words of ``robopol train``; ``{base}`` stands for the folder of the base, ``{demos}``
for what it was cloned from. Methods with a replay need fewer steps than rollouts: compare at equal ``--steps``. Clip
ranges of 0.05, and FPO's 16 passes, are published for rollouts of up to a million steps; learning from some 80 episodes
at a time, both DPPO and FPO unlearned the maze with them (training seed 0), hence 0.01. ``fpo, both`` takes the loss of
velocities and the asymmetric surrogate, as FPO++ does, with one ratio for all pairs."""
