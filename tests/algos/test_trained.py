"""What every algorithm promises of what it trains: it is named, shared by processes, and drops out in losses alone."""

import threading

import pytest
import torch
from algos.bandit import Learner
from algos.learners import ACTING, OFFLINE, TRANSFORMER, alike_in_all_rows, gradients_of, learner, optimizers
from torch import Tensor, nn

from robopol.registry import KINDS
from robopol.training.team import Team

ROWS, STEP = 8, 1
"""Of a batch; and an update in which everything that is delayed is due."""


def weights(trained) -> list[Tensor]:
    several = [[part] if isinstance(part, Tensor) else part.parameters() for part in trained.values()]
    return [weight for part in several for weight in part]


def test_all_algorithms_are_held_to_it():
    assert KINDS["algo"].keys() - {"sb3"} == OFFLINE.keys() | ACTING.keys()


@pytest.mark.parametrize("kind", OFFLINE | ACTING)
def test_all_that_optimisers_move_is_named_and_nothing_is_in_training_mode(kind, tmp_path):
    algo = learner(kind, tmp_path).algo
    found, named = optimizers(algo), {id(weight) for weight in weights(algo.trained)}
    assert found
    assert all(id(weight) in named for one in found for weight in one._ordered)
    modules = [part for part in (algo.trained | algo.beside).values() if isinstance(part, nn.Module)]
    deployed = algo.deployed()
    modules += [] if deployed is None else [deployed]
    assert not any(layer.training for module in modules for layer in module.modules())


class Beside(Team):
    """Processes that meet as threads of one."""

    def __init__(self, rank: int, barrier: threading.Barrier, held: list) -> None:
        super().__init__(rank, 2)
        self.barrier, self.held = barrier, held

    def _sum(self, value):
        self.held[self.rank] = value.detach().clone()
        self.barrier.wait()
        value.copy_(self.held[0] + self.held[1])
        self.barrier.wait()

    def _spread(self, value):
        self.held[self.rank] = value
        self.barrier.wait()
        value.copy_(self.held[0])
        self.barrier.wait()


def step_of(one: Learner, team: Team, monkeypatch) -> list[Tensor]:
    """Take a team's step with its share of a batch; return the gradients that its optimisers are given."""
    data = one.batch(STEP, ROWS)
    with alike_in_all_rows(monkeypatch), gradients_of(monkeypatch) as noted:
        team.unite(one.algo)
        one.algo.update(team.share(data), STEP, torch.Generator().manual_seed(0))
    return noted


def two_steps_of(made: list[Learner], monkeypatch) -> list[list[Tensor]]:
    """Let two learners take one step together; return the gradients of each."""
    barrier, held, failed = threading.Barrier(2, timeout=60), [None, None], []
    batches = [one.batch(STEP, ROWS) for one in made]

    def run(rank: int) -> None:
        try:
            team = Beside(rank, barrier, held)
            team.unite(made[rank].algo)
            made[rank].algo.update(team.share(batches[rank]), STEP, torch.Generator().manual_seed(0))
        except BaseException as error:
            failed.append(error)
            barrier.abort()

    def number() -> int:
        return threads.index(threading.current_thread())

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    found: list[list[Tensor]] = [[], []]
    with alike_in_all_rows(monkeypatch), gradients_of(monkeypatch, lambda: found[number()]):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]
    return found


@pytest.mark.parametrize("kind", ["sac", "td3_bc", "fql", "dsrl"])
def test_two_that_share_a_batch_take_the_step_of_one(kind, tmp_path, monkeypatch):
    """Of all algorithms, and by processes that are ones, `training.test_team` says so slowly."""
    made = [learner(kind, tmp_path, seed=seed) for seed in range(2)]
    whole = step_of(learner(kind, tmp_path), Team(), monkeypatch)
    assert sum(bool(gradient.any()) for gradient in whole) > len(whole) / 2, "there is something to compare"
    for share in two_steps_of(made, monkeypatch):
        assert len(share) == len(whole)
        for mine, theirs in zip(share, whole, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    one, two = (one.algo.state() for one in made)
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.parametrize("kind", ["expo", "fql", "iql", "cal_ql"])
def test_what_is_asked_leaves_nothing_out_and_what_learns_does(kind, tmp_path):
    parts = {"policy": {"net": TRANSFORMER}}
    changes = {"steps": 2} if kind == "fql" else {}
    one = learner(kind, tmp_path, parts=parts, **changes)
    algo, data = one.algo, one.batch(0, ROWS)

    def twice(ask):
        found = []
        for seed in range(2):
            torch.manual_seed(seed)  # what layers draw from
            found.append(ask())
        return torch.equal(*found)

    def noise():
        return torch.Generator().manual_seed(0)

    if kind in ("expo", "fql"):
        assert twice(lambda: algo.goals(data, noise()))
        assert twice(lambda: algo.explore(data["obs"], noise()).action)
        assert twice(lambda: algo.warm_up(data["obs"], noise()).action)
    assert twice(lambda: algo.deployed().act(data["obs"], 1, noise()))
    if kind == "fql":
        start = torch.zeros(ROWS, 2, 1)
        cond = algo.policy.observation(data["obs"], 1)
        with algo.actor_learns:
            assert twice(lambda: algo.same.walk(start, cond))
            assert not twice(lambda: algo.policy.jump(start, cond))
    with algo.cloning.learning:
        assert not twice(lambda: algo.cloning.losses(data, 0, noise()))


@pytest.mark.parametrize("kind", ["sac", "td3", "fql"])
def test_critics_drop_out_in_their_targets_too_but_not_when_asked_to_choose(kind, tmp_path):
    """As DroQ has it (Hiraoka et al. 2022)."""
    one = learner(kind, tmp_path, parts={"model": {"dropout": 0.4}})
    algo, data, dropped = one.algo, one.batch(0, ROWS), []
    goals = algo.goals

    def noted(batch, generator):
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            found.append(goals(batch, torch.Generator().manual_seed(0)))
        dropped.append(not torch.equal(*found))
        return found[0]

    algo.goals = noted
    algo.update(data, 0, torch.Generator().manual_seed(0))
    assert dropped == [True]
    with torch.no_grad():
        noted(data, None)
    assert dropped == [True, False], "outside of an update"
