"""A small one of every algorithm, each over batches of a toy world, to be held to what all promise."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from algos.bandit import Learner, bandit, build
from torch import Tensor, nn

from robopol.algos.optimizer import AdamW
from robopol.checkpoint import save_part
from robopol.data.episodes import Episodes

CHUNK = {"n_obs_steps": 1, "horizon": 2, "n_action_steps": 2}
MLP = {"kind": "mlp", "width": 16, "blocks": 1}
TRANSFORMER = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2, "dropout": 0.3}
EULER = {"kind": "euler", "steps": 3}
DDIM = {"kind": "ddim", "steps": 3}
FLOW: dict[str, Any] = {"kind": "flow", "net": MLP, "sampler": EULER, **CHUNK}
JUMP: dict[str, Any] = {"kind": "consistency", "net": MLP, **CHUNK}
CLONING = {"kind": "bc", "warmup": 0}
SMALL = {"hidden": [8]}
SQUASHED = {"kind": "squashed_gaussian", **SMALL, "deterministic": False}
Q = {"kind": "q", **SMALL, "ensemble": 2}
ABOVE = {"kind": "stl", "formula": "x >= 0.3", "motion": {"actions": [0], "means": "absolute"}}
FLOWING = {
    "hidden": [8],
    "box": 1.0,
    "shift_hidden": [8],
    "obs_normalization": "identity",
    "action_normalization": "bounds",
}

OFFLINE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bc": ({"warmup": 0}, {"policy": FLOW}),
    "repair": ({"warmup": 0, "objective": ABOVE, "proposals": 3, "editor": SMALL}, {"policy": FLOW}),
    "distill": (
        {"warmup": 0, "teacher": "", "method": {"kind": "same_noise", "sampler": EULER}},
        {"policy": JUMP | {"obs_normalization": "minmax", "action_normalization": "minmax"}},
    ),
    "dynamics": ({"warmup": 0}, {"model": {"kind": "dynamics", **SMALL, "n_action_steps": 2}}),
    "iql": ({"cloning": CLONING}, {"model": {"kind": "value", **SMALL, "n_action_steps": 2}, "policy": FLOW}),
    "cal_ql": (
        {"cloning": CLONING, "candidates": 3},
        {"model": {"kind": "value", **SMALL, "n_action_steps": 2}, "policy": FLOW},
    ),
    "fisor": ({"cloning": CLONING}, {"model": {"kind": "feasibility", **SMALL, "n_action_steps": 2}, "policy": FLOW}),
    "sac": ({"alpha": 0.3}, {"policy": SQUASHED, "model": Q}),
    "td3": ({}, {"policy": {"kind": "deterministic", **SMALL}, "model": Q}),
    "td3_bc": ({}, {"policy": {"kind": "deterministic", **SMALL}, "model": Q}),
    "ddpg": ({}, {"policy": {"kind": "deterministic", **SMALL}, "model": Q | {"ensemble": 1}}),
    "meow": ({}, {"policy": {"kind": "meow", "modes": 2, **FLOWING}}),
    "expo": ({"cloning": CLONING, "proposals": 3, "editor": SQUASHED}, {"policy": FLOW, "model": Q}),
    "fql": ({"cloning": CLONING, "steps": 3}, {"policy": JUMP, "model": Q}),
    "diffusion_ql": ({}, {"policy": {"kind": "diffusion", "net": MLP, "sampler": DDIM, **CHUNK}, "model": Q}),
    "dsrl": ({"actor": SQUASHED}, {"policy": FLOW, "model": Q}),
}
"""Kind -> what it is told, and the parts that it is given; those that learn from records."""

ACTING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dsrl_sac": ({"actor": SQUASHED}, {"policy": FLOW, "model": Q}),
    **{
        kind: ({}, {"policy": {"kind": "diagonal_gaussian", **SMALL}, "model": {"kind": "state_value", **SMALL}})
        for kind in ("ppo", "spo", "trpo", "fixpo")
    },
    "dppo": ({}, {"policy": {"kind": "diffusion", "net": MLP, **CHUNK}, "model": {"kind": "state_value", **SMALL}}),
    "fpo": ({}, {"policy": FLOW, "model": {"kind": "state_value", **SMALL}}),
}
"""The same of those that learn from their own choices alone."""


def episodes() -> Episodes:
    """Short ones whose actions lie anywhere."""
    made = bandit(16, 4)
    action = 2 * torch.rand(made.num_steps, 1, generator=torch.Generator().manual_seed(5)) - 1
    return replace(made, action=action)


def untitled(tree: dict[str, Any]) -> dict[str, Any]:
    """Leave the kind out."""
    return {name: value for name, value in tree.items() if name != "kind"}


def learner(kind: str, folder, *, seed: int = 0, parts: dict[str, dict] | None = None, **changes) -> Learner:
    """Build one.

    Args:
        kind: The algorithm.
        folder: Where a teacher is put.
        seed: Of all weights.
        parts: Group -> what its part is told besides.
        **changes: What the algorithm is told besides.
    """
    tree, given = (OFFLINE | ACTING)[kind]
    data = episodes()
    if "teacher" in tree:
        teacher = folder / "teacher"
        if not teacher.exists():
            teacher.mkdir()
            save_part(build("policy", "flow", data, **untitled(FLOW)), teacher)
        tree = tree | {"teacher": str(teacher)}
    made = {}
    for group, told in given.items():
        told = told | (parts or {}).get(group, {})
        made[group] = build(group, told["kind"], data, **untitled(told))
    torch.manual_seed(seed)
    if seed:
        for part in made.values():
            for weight in part.parameters():
                nn.init.normal_(weight, std=0.3)
    torch.manual_seed(seed)
    return Learner({"kind": kind} | tree | changes, data, 100, **made)


def optimizers(thing: Any) -> list[AdamW]:
    """Find all that an algorithm holds, also in what it is made of."""
    found: list[AdamW] = []
    for value in vars(thing).values():
        if isinstance(value, AdamW):
            found.append(value)
        elif type(value).__module__.startswith("robopol.algos") and hasattr(value, "__dict__"):
            found += optimizers(value)
    return found


@contextmanager
def gradients_of(monkeypatch, notes: Callable[[], list[Tensor]] | None = None):
    """Note the gradients that optimisers are given, in one list or in that which `notes` returns at the time."""
    noted: list[Tensor] = []
    step = AdamW.step

    def noting(self, lr):
        (noted if notes is None else notes()).extend(p.grad.clone() for p in self._ordered if p.grad is not None)
        step(self, lr)

    with monkeypatch.context() as patch:
        patch.setattr(AdamW, "step", noting)
        yield noted


@contextmanager
def alike_in_all_rows(monkeypatch):
    """Let every row of a batch draw the same noise, however many there are, so that shares of it can be compared."""

    def alike(draw):
        def drawn(*given, **more):
            among, shape = (given[:-1], given[-1]) if isinstance(given[-1], tuple | list) else ((), given)
            return draw(*among, (1, *shape[1:]), **more).expand(*shape).clone()

        return drawn

    with monkeypatch.context() as patch:
        for name in ("randn", "rand", "randint"):
            patch.setattr(torch, name, alike(getattr(torch, name)))
        yield
