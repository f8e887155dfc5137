"""Acting in chunks, on histories: what is executed, what is told of a decision, how a run comes back to its middle."""

import pytest
import torch

from robopol.algos.algorithm import Explored
from robopol.data.replay import ReplayBuffer
from robopol.envs import make_env
from robopol.errors import DataError, ShapeError
from robopol.training.collector import Collector

CPU = torch.device("cpu")
CHUNK, HISTORY = 4, 3


class Told(list):
    """Copies of everything that was told."""

    def __call__(self, decided):
        self.append(
            decided._replace(
                **{
                    name: {k: v.clone() for k, v in value.items()} if isinstance(value, dict) else value.clone()
                    for name, value in decided._asdict().items()
                    if name != "slots"
                }
            )
        )


def choose(obs, rng):
    """East, with noise; the trace says what was seen and drawn."""
    count = len(obs["state"])
    noise = torch.randn(count, CHUNK, 2, generator=rng)
    return Explored(torch.tensor([0.05, 0.0]) + 0.02 * noise, {"noise": noise, "seen": obs["state"].clone()})


def collector(envs: int = 3, limit: int = 10, kept: dict | None = None) -> tuple[Collector, Told]:
    env = make_env("robopol/MultiGoal-v0", envs, max_episode_steps=limit)
    told = Told()
    replay = ReplayBuffer(1000, {"state": (2,)}, 2, traces=kept)
    return Collector(env, replay, ["state"], 5, CPU, HISTORY, told), told


def test_every_decision_is_told_with_all_that_came_of_it():
    """Against the transitions, which are told step by step; episodes end at different times within chunks."""
    made, told = collector(limit=18)
    made.begin()
    for _ in range(80):
        made.step(choose)
    made.cut()
    rows = made.replay.state()["rows"].view(80, 3, -1)
    obs, action, reward, terminated, truncated, after = (
        rows[..., part] for part in (slice(0, 2), slice(2, 4), 4, 5, 6, slice(7, 9))
    )
    low, high = (torch.tensor(side) for side in (made.env.spec.action_low, made.env.spec.action_high))
    at, begun, cut_short = [0, 0, 0], [0, 0, 0], 0
    for decided in told:
        for row, slot in enumerate(decided.slots):
            first, length = at[slot], int(decided.length[row])
            last = first + length - 1
            steps = slice(first, first + length)
            assert torch.equal(decided.action[row, :length], action[steps, slot])
            wanted = torch.tensor([0.05, 0.0]) + 0.02 * decided.trace["noise"][row]
            assert torch.equal(decided.action[row], wanted.clamp(low, high))
            assert torch.equal(decided.reward[row, :length], reward[steps, slot])
            assert not decided.reward[row, length:].any()
            assert decided.terminated[row] == bool(terminated[last, slot])
            assert decided.truncated[row] == bool(truncated[last, slot])
            # within a decision nothing ended before its last step
            assert not (terminated + truncated)[first:last, slot].any()
            assert length == CHUNK or decided.terminated[row] or decided.truncated[row] or last == 79
            past = [max(begun[slot], first - HISTORY + 1 + k) for k in range(HISTORY)]
            assert torch.equal(decided.obs["state"][row], obs[past, slot]), "padded by the episode's first observation"
            assert torch.equal(decided.trace["seen"][row], decided.obs["state"][row])
            seen = torch.cat([obs[begun[slot] : last + 1, slot], after[last, slot][None]])
            seen = torch.cat([seen[:1].expand(HISTORY, -1), seen])[-HISTORY:]
            assert torch.equal(decided.next_obs["state"][row], seen), "the true history, also at an episode's end"
            at[slot] = first + length
            if decided.terminated[row] or decided.truncated[row]:
                begun[slot] = at[slot]
                cut_short += length < CHUNK
    assert at == [80, 80, 80]
    assert made.env_steps == 240
    assert cut_short > 4
    assert terminated.any()
    assert truncated.any()


def test_who_chooses_is_asked_once_a_chunk_and_only_where_one_is_over():
    made, _ = collector(envs=2, limit=6)
    asked = []

    def counted(obs, rng):
        asked.append(len(obs["state"]))
        return Explored(torch.zeros(len(obs["state"]), CHUNK, 2))

    made.begin()
    for _ in range(14):  # chunks of 4 and 2, twice, and the first 2 steps of a third episode
        made.step(counted)
    assert asked == [2, 2, 2, 2, 2]


@pytest.mark.parametrize("steps", [8, 13, 15])
def test_a_run_that_is_taken_up_within_chunks_goes_on_to_the_same_bits(steps):
    one, told = collector(kept={"noise": (CHUNK, 2)})
    one.begin()
    for _ in range(steps):
        one.step(choose)
    state = {name: value.clone() for name, value in one.state().items()}
    assert any(name.startswith("decisions.") for name in state) or steps == 8
    other, again = collector(kept={"noise": (CHUNK, 2)})
    other.replay.load_state(one.replay.state())
    other.load_state(state)
    told.clear()
    one.finished = []
    for made in (one, other):
        for _ in range(17):
            made.step(choose)
    assert torch.equal(one.replay.state()["rows"], other.replay.state()["rows"])
    assert one.finished == other.finished
    assert len(told) == len(again) > 3
    for mine, theirs in zip(told, again, strict=True):
        assert mine.slots == theirs.slots
        for part in ("action", "length", "reward", "terminated", "truncated"):
            assert torch.equal(getattr(mine, part), getattr(theirs, part)), part
        for part in ("obs", "trace", "next_obs"):
            ours, others = getattr(mine, part), getattr(theirs, part)
            assert ours.keys() == others.keys()
            assert all(torch.equal(value, others[key]) for key, value in ours.items()), part


def test_the_replay_keeps_the_trace_beside_every_transition_of_its_chunk():
    made, told = collector(envs=1, kept={"noise": (CHUNK, 2)})
    made.begin()
    for _ in range(9):
        made.step(choose)
    made.cut()
    rows = made.replay.state()["rows"]
    noise = rows[:, 9 : 9 + CHUNK * 2].view(9, CHUNK, 2)
    expected = torch.cat([d.trace["noise"].expand(int(d.length), -1, -1) for d in told])
    assert torch.equal(noise, expected)
    drawn = made.replay.sample(50, 0, 0)
    assert drawn["trace"]["noise"].shape == (50, CHUNK, 2)
    executed = torch.tensor([0.05, 0.0]) + 0.02 * drawn["trace"]["noise"]
    low, high = (torch.tensor(side) for side in (made.env.spec.action_low, made.env.spec.action_high))
    assert (executed.clamp(low, high) == drawn["action"][:, None]).all(-1).any(-1).all()


def test_what_does_not_fit_is_refused_in_words():
    made, _ = collector(kept={"noise": (CHUNK, 2)})
    made.begin()
    with pytest.raises(DataError, match="keeps noise of who acted"):
        made.step(None)
    made, _ = collector()
    made.begin()
    with pytest.raises(ShapeError, match=r"needed \(3, h, A\)"):
        made.step(lambda obs, rng: Explored(torch.zeros(3, 2)))
