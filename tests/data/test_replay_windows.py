"""Windows of a replay are those of the same episodes, wherever they end, and never hold anything of another."""

import pytest
import torch

from robopol.data import Episodes, EpisodesMeta, Windows
from robopol.data.replay import ReplayBuffer
from robopol.data.replay_windows import AGE, ReplayWindows
from robopol.data.windows import Transition, narrowed
from robopol.errors import ConfigError

GAMMA, STEPS, ENVS = 0.9, 30, 3
META = EpisodesMeta(control_hz=10.0, action_space="box", action_names=("x",), action_low=(-1.0,), action_high=(1.0,))


def met(capacity: int = 1000):
    """Fill a buffer from three environments; return it, the same as episodes, and which step each transition is."""
    rng = torch.Generator().manual_seed(0)
    buffer = ReplayBuffer(capacity, {"state": (2,)}, 1, traces={"mark": (1,)})
    columns: list[list[list[torch.Tensor]]] = [[[]] for _ in range(ENVS)]
    where = []
    obs = torch.rand(ENVS, 2, generator=rng)
    for step in range(STEPS):
        action, reward = torch.rand(ENVS, 1, generator=rng), torch.rand(ENVS, generator=rng)
        kind = torch.rand(ENVS, generator=rng)
        terminated, truncated = kind < 0.12, (kind > 0.12) & (kind < 0.24)
        following = torch.rand(ENVS, 2, generator=rng)
        mark = torch.arange(ENVS).float()[:, None] + ENVS * step
        buffer.add({"state": obs}, action, reward, terminated, truncated, {"state": following}, {"mark": mark})
        for env in range(ENVS):
            episode = columns[env][-1]
            where.append((env, len(columns[env]) - 1, len(episode)))
            episode.append([column[env] for column in (obs, action, reward, terminated, truncated, following)])
            if terminated[env] or truncated[env]:
                columns[env].append([])
        over = terminated | truncated
        obs = torch.where(over[:, None], torch.rand(ENVS, 2, generator=rng), following)
    names = [(env, number) for env in range(ENVS) for number, episode in enumerate(columns[env]) if episode]
    whole = [columns[env][number] for env, number in names]
    lengths = torch.tensor([len(episode) for episode in whole])
    starts = lengths.cumsum(0) - lengths
    state, action, reward, terminated, truncated = (
        torch.stack([step[column] for episode in whole for step in episode]) for column in range(5)
    )
    episodes = Episodes(
        obs={"state": state},
        action=action,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        source=torch.zeros(len(state), dtype=torch.int64),
        intervention=torch.zeros(len(state), dtype=torch.bool),
        starts=starts,
        lengths=lengths,
        final_obs={"state": torch.stack([episode[-1][5] for episode in whole])},
        has_final=torch.ones(len(whole), dtype=torch.bool),
        success=torch.zeros(len(whole), dtype=torch.bool),
        way=torch.zeros(len(whole), dtype=torch.int64),
        seed=torch.arange(len(whole)),
        meta=META,
    )
    rows = torch.tensor([int(starts[names.index((env, number))]) + step for env, number, step in where])
    return buffer, episodes, rows


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("past", "chunk", "steps", "returned"),
    [(0, 1, 1, None), (0, 4, 4, None), (2, 1, 1, None), (1, 3, 2, None), (3, 5, 5, None), (0, 1, 1, 3), (1, 2, 2, 6)],
)
def test_they_are_those_of_the_same_episodes(past, chunk, steps, returned, whole):
    buffer, episodes, rows = met()
    shape, transition = (past + 1, past + chunk), Transition(steps, GAMMA, returned, whole)
    seen = max(past + chunk, past + transition.reach)
    mine = ReplayWindows(buffer, ENVS, past + 1, seen, transition).gather(torch.arange(buffer.added))
    mine = narrowed(mine, *shape)
    theirs = Windows(episodes, *shape, transition=transition).gather(rows)
    assert episodes.terminated.sum() > 3
    assert episodes.truncated.sum() > 3
    assert torch.equal(mine.pop("trace")["mark"][:, 0], torch.arange(buffer.added).float())
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, dict):
            assert torch.equal(mine[name]["state"], value["state"]), name
        else:
            torch.testing.assert_close(mine[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_what_is_drawn_has_a_future_and_a_past():
    buffer, *_ = met(capacity=24)
    windows = ReplayWindows(buffer, ENVS, 2, 4, Transition(3, GAMMA))
    drawn = torch.cat([windows.draw(200, step, 0) for step in range(5)])
    assert set(drawn.tolist()) == set(range(90 - 24 + 3, 90 - 2 * ENVS))
    batch = windows.gather(drawn)
    again = buffer.rows(drawn)
    assert torch.equal(batch["obs"]["state"][:, -1], again["obs"]["state"])
    assert torch.equal(batch["trace"]["mark"][:, 0], drawn.float())
    short = ReplayWindows(buffer, ENVS, 2, 40, Transition(3, GAMMA)).draw(200, 0, 0)
    assert set(short.tolist()) == set(range(90 - 24, 90))


@pytest.mark.parametrize("capacity", [1000, 60])
def test_of_decisions_every_window_begins_with_one(capacity):
    """Decisions of up to four actions, which begin at other steps in each environment; also where some are lost."""
    chunk, buffer = 4, ReplayBuffer(capacity, {"state": (1,)}, 1, traces={"noise": (2,), AGE: ()})
    rng, age, noise = torch.Generator().manual_seed(0), torch.zeros(ENVS), torch.zeros(ENVS, 2)
    for step in range(40):
        over = torch.rand(ENVS, generator=rng) < 0.1
        noise = torch.where((age == 0)[:, None], torch.rand(ENVS, 2, generator=rng), noise)
        state = {"state": torch.full((ENVS, 1), float(step))}
        trace = {"noise": noise, AGE: age.clone()}
        buffer.add(state, noise[:, :1], age.clone(), over, torch.zeros(ENVS), state, trace)
        cut = torch.tensor([step == 17, False, False])  # a decision that another one followed before its end
        age = torch.where(over | cut | (age == chunk - 1), 0, age + 1)
    windows = ReplayWindows(buffer, ENVS, 1, chunk, Transition(chunk, 1.0), decisions=True)
    now = windows.draw(500, 0, 0)
    batch = windows.gather(now)
    oldest = buffer.added - len(buffer)
    assert now.min() >= oldest, "what was overwritten is not drawn"
    assert len(now.unique()) > 10
    assert torch.equal(batch["trace"][AGE], torch.zeros(500))
    own = (batch["action"][..., 0] == batch["trace"]["noise"][:, :1]) & batch["mask"]
    taken = own.sum(1).float()
    assert torch.equal(batch["reward"], taken * (taken - 1) / 2), "ages 0, 1, ...: the steps of one decision"
    assert ((taken < batch["mask"].sum(1)).any()) == (capacity > 100), "one was cut short within its episode"


def test_a_replay_that_holds_no_window_is_refused():
    buffer = ReplayBuffer(20, {"state": (1,)}, 1, traces={AGE: ()})
    with pytest.raises(ConfigError, match=r"set collection.capacity=21 or more"):
        ReplayWindows(buffer, ENVS, 1, 4, Transition(4, 1.0), decisions=True)
    with pytest.raises(ConfigError, match=r"leave model.return_steps out"):
        ReplayWindows(buffer, ENVS, 1, 2, Transition(2, 1.0, 3), decisions=True)
