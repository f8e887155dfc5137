"""The evaluation protocol: outcomes that depend on the seed alone, honest intervals, contracts."""

from unittest.mock import Mock

import av
import numpy as np
import pytest
import torch
from scipy import stats

from robopol.config import parse
from robopol.data import load_episodes, save_episodes
from robopol.envs import StepResult, make_env, rendering
from robopol.envs.wrappers.time_limit import TimeLimitConfig
from robopol.envs.wrappers.wrapper import VectorWrapper
from robopol.errors import ConfigError, EnvError
from robopol.evaluation import ExpertActor, evaluate
from robopol.evaluation.collect import collect, collect_into
from robopol.evaluation.report import evaluate_and_film
from robopol.evaluation.statistics import bootstrap_mean, stratified_iqm, wilson
from robopol.policies import Policy
from robopol.registry import lookup
from robopol.training.contract import spec_for

REACH = "robopol/Reach-v0"


@pytest.fixture(scope="module")
def episodes():
    with make_env(REACH, 4) as env:
        return collect(ExpertActor(env), env, 6, 0, source="expert", only_success=True)


def untrained(episodes, env_spec=None, **tree) -> Policy:
    config = parse(
        lookup("policy", "diffusion"),
        {
            "net": {"kind": "mlp", "width": 32},
            "sampler": {"kind": "ddpm", "steps": 5},
            "horizon": 8,
            "n_action_steps": 4,
            **tree,
        },
    )
    with make_env(REACH) as env:
        torch.manual_seed(0)
        policy = config.build(spec_for(config, {"demos": episodes}, env.spec))
    policy.fit_normalizers(episodes)
    return policy


def test_outcomes_depend_on_the_seed_alone(episodes):
    """Not on how many environments run, nor on which episodes share a batch; down to the last bit of the return."""
    policy = untrained(episodes)
    found = []
    for num_envs in (1, 3, 20):
        with make_env(REACH, num_envs, max_episode_steps=25) as env:
            found.append(evaluate(policy, env, episodes=7).outcomes)
    assert found[0] == found[1] == found[2]
    with make_env(REACH, 2, max_episode_steps=25) as env:
        later = evaluate(policy, env, episodes=3, seed=100_004).outcomes
    assert later == found[0][4:7]
    assert len({outcome.total_reward for outcome in found[0]}) == 7


def test_plans_are_executed_as_far_as_they_should_be(episodes):
    with make_env(REACH, 1, max_episode_steps=25) as env:
        for n_action_steps, plans in ((1, 25), (4, 7), (7, 4)):
            found = evaluate(untrained(episodes, n_action_steps=n_action_steps), env, 1)
            assert found.length_mean == 25
            assert found.execution.plans == plans


def test_collected_episodes_replay_and_survive_a_file(episodes, tmp_path):
    assert len(episodes) == 6
    assert episodes.success.all()
    assert episodes.meta.env_id == REACH
    save_episodes(episodes, tmp_path / "demos.hdf5")
    again = load_episodes(tmp_path / "demos.hdf5")
    assert again.equal(episodes)
    with make_env(REACH) as env:
        for index in range(2):
            rows = range(int(episodes.starts[index]), int(episodes.starts[index] + episodes.lengths[index]))
            env.reset([0], [int(episodes.seed[index])])
            for row in rows:
                result = env.step([0], episodes.action[row][None])
            assert torch.equal(result.obs["state"][0], episodes.final_obs["state"][index])
            assert bool(result.terminated[0])


def test_collecting_does_not_depend_on_the_number_of_environments(episodes):
    with make_env(REACH, 1) as env:
        again = collect(ExpertActor(env), env, 6, 0, source="expert", only_success=True)
    assert again.equal(episodes)


class Far(torch.Tensor):
    """A tensor on a GPU that is not here: it can be brought to the CPU, and nothing else be done with it."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is not torch.Tensor.cpu:
            raise TypeError(f"{function.__name__} of a tensor that is elsewhere")
        with torch._C.DisableTorchFunctionSubclass():
            return args[0].as_subclass(torch.Tensor)


class FarWorld(VectorWrapper):
    """A world whose answers lie elsewhere."""

    def reset(self, slots, seeds):
        return {key: rows.as_subclass(Far) for key, rows in self.env.reset(slots, seeds).items()}

    def step(self, slots, actions):
        obs, *columns = self.env.step(slots, actions)
        obs = {key: rows.as_subclass(Far) for key, rows in obs.items()}
        return StepResult(obs, *(column.as_subclass(Far) for column in columns))


def test_where_a_world_is_makes_no_difference_to_what_is_recorded(episodes):
    with make_env(REACH, 3) as env:
        far = FarWorld(env, Mock(tree=dict))
        again = collect(ExpertActor(far), far, 6, 0, source="expert", only_success=True)
    assert again.step_columns().keys() == episodes.step_columns().keys()
    for name, column in again.step_columns().items():
        assert torch.equal(column, episodes.step_columns()[name])


@pytest.mark.parametrize("end", [KeyboardInterrupt, ConnectionError, None])
def test_what_ends_collecting_does_not_take_what_was_collected(episodes, end):
    """Ctrl-C, a fault, or (None) too few successes: what was whole by then is kept."""

    class Ending(ExpertActor):
        left = 30

        def act(self, slots, obs):
            self.left -= 1
            if end is not None and self.left < 0:
                raise end
            return super().act(slots, obs) * (1 if self.left > 0 else 0)

    kept = []
    with make_env(REACH, 2, max_episode_steps=40) as env, pytest.raises(end or EnvError):
        collect_into(kept, Ending(env), env, 6, 0, source="expert", only_success=True)
    assert 1 <= len(kept) < 6
    assert all(one.success.all() for one in kept)
    assert [one.seed.item() for one in kept] == list(range(len(kept)))


def test_what_may_never_end_is_not_begun():
    """A world without a time limit is neither evaluated in nor recorded."""
    actor = Mock()
    with make_env("Pendulum-v1", max_episode_steps=-1) as env:
        with pytest.raises(EnvError, match=r"env\.options\.max_episode_steps=1000"):
            collect(actor, env, 1, 0, source="nobody", only_success=False)
        actor.act.assert_not_called()
        env = TimeLimitConfig(steps=3).build(env)
        actor.act.return_value = torch.zeros(1, 1)
        assert collect(actor, env, 1, 0, source="nobody", only_success=False).num_steps == 3


def test_collecting_gives_up_in_words():
    class Idle:
        def reset(self, slots, seeds):
            pass

        def act(self, slots, obs):
            return torch.zeros(len(slots), 5)

    with make_env(REACH, 4, max_episode_steps=2) as env, pytest.raises(EnvError, match="0 of 20 episodes"):
        collect(Idle(), env, 2, 0, source="idle", only_success=True)


def test_a_policy_is_not_let_into_a_world_it_was_not_made_for(episodes):
    policy = untrained(episodes)
    with make_env("robopol/Push-v0") as env, pytest.raises(ConfigError, match="observation 'state' has shape"):
        evaluate(policy, env, 1)
    with make_env(REACH, action_space="ee_pose") as env, pytest.raises(ConfigError, match="'ee_pose'"):
        evaluate(policy, env, 1)
    with make_env(REACH, control_hz=20) as env, pytest.raises(ConfigError, match=r"20.0 Hz"):
        evaluate(policy, env, 1)


@pytest.mark.parametrize("name", ["film.webm", "film", "folder.mp4", "file/film.mp4"])
def test_a_film_that_cannot_be_is_refused_before_anything_is_evaluated(episodes, tmp_path, name):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    with make_env(REACH) as env, pytest.raises(ConfigError, match="no film can be saved there"):
        evaluate_and_film(untrained(episodes), env, 1, 0, tmp_path / name, 1)


@pytest.mark.skipif(rendering.why_not() is not None, reason="no picture can be drawn here")
def test_an_evaluation_outlives_its_film(episodes, tmp_path, monkeypatch):
    path = tmp_path / "new" / "film.mp4"
    with make_env(REACH, max_episode_steps=3) as env:
        found, notes = evaluate_and_film(untrained(episodes), env, 1, 0, path, 1)
        assert notes == []
        assert path.stat().st_size > 500
        monkeypatch.setattr(
            "robopol.evaluation.video.Film.save", Mock(side_effect=av.EncoderNotFoundError(1, "no libx264"))
        )
        again, notes = evaluate_and_film(untrained(episodes), env, 1, 0, path, 1)
    assert again.outcomes == found.outcomes
    assert "no video" in notes[0]
    assert "libx264" in notes[0]


@pytest.mark.parametrize(("wins", "trials"), [(0, 10), (10, 10), (7, 10), (93, 100), (1, 1)])
def test_wilson_is_scipys(wins, trials):
    expected = stats.binomtest(wins, trials).proportion_ci(method="wilson")
    assert wilson(wins, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_intervals_are_functions_of_what_they_are_of():
    values = np.random.default_rng(1).normal(size=30)
    once = bootstrap_mean(values), stratified_iqm([values, values + 1])
    assert once == (bootstrap_mean(values), stratified_iqm([values, values + 1]))


def test_bootstrap_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_mean(rng.exponential(size=60), resamples=500)
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 200 <= 0.99
