"""A dial searched at test time: paired comparisons, a choice, and what it is worth on other seeds."""

import json

import numpy as np
import pytest
import torch
from scipy import stats

from robopol import cli
from robopol.checkpoint import load_policy, save_part
from robopol.commands.eval import EvalCommand
from robopol.commands.tune import replaced
from robopol.config import parse
from robopol.envs import make_env
from robopol.errors import ConfigError
from robopol.evaluation import ExpertActor, evaluate, tune
from robopol.evaluation.collect import collect
from robopol.evaluation.statistics import mcnemar, paired
from robopol.policies import Policy
from robopol.registry import lookup
from robopol.steering import CompositionConfig, SteeredPolicy
from robopol.training.contract import spec_for

REACH = "robopol/Reach-v0"


@pytest.fixture(scope="module")
def episodes():
    with make_env(REACH, 4) as env:
        return collect(ExpertActor(env), env, 4, 0, source="expert", only_success=True)


def untrained(episodes, seed: int) -> Policy:
    tree = {"net": {"kind": "mlp", "width": 16}, "sampler": {"kind": "ddim", "steps": 2}}
    config = parse(lookup("policy", "diffusion"), {**tree, "horizon": 8, "n_action_steps": 4})
    with make_env(REACH, max_episode_steps=12) as env:
        torch.manual_seed(seed)
        policy = config.build(spec_for(config, {"demos": episodes}, env.spec))
    policy.fit_normalizers(episodes)
    return policy.eval()


@pytest.mark.parametrize(("gained", "lost", "same"), [(0, 0, 5), (3, 0, 2), (9, 2, 30), (4, 4, 0), (1, 12, 7)])
def test_mcnemar_is_the_exact_binomial_test_of_the_pairs_that_differ(gained, lost, same):
    first = [False] * gained + [True] * lost + [True] * same
    second = [True] * gained + [False] * lost + [True] * same
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == pytest.approx(expected)


def test_paired_intervals_cover_as_often_as_they_say_and_are_narrower_than_unpaired_ones():
    rng = np.random.default_rng(0)
    hits, widths = 0, []
    for _ in range(30):
        hard = rng.normal(size=80)
        first, second = hard + 0.2 * rng.normal(size=80), hard + 0.3 + 0.2 * rng.normal(size=80)
        mean, low, high = paired(first.tolist(), second.tolist())
        assert low <= mean <= high
        hits += low <= 0.3 <= high
        widths.append(high - low)
    assert hits >= 25
    assert np.mean(widths) < 0.2  # two means of standard deviation 1 over 80 differ by 0.16: twice 1.96 times that


def test_every_setting_is_judged_over_the_same_episodes_and_the_choice_over_others(episodes):
    base, other = untrained(episodes, 0), untrained(episodes, 1)
    save = {}

    def build(weight: float) -> Policy:
        from robopol.steering.composition import Composition

        config = CompositionConfig(policies=("never read",), weights=(1 - weight, weight))
        save[weight] = SteeredPolicy(base, [Composition(config, [other])])
        return save[weight]

    told = []
    with make_env(REACH, 5, max_episode_steps=12) as env:
        found = tune(
            base,
            [0.0, 1.0, 0.5],
            build,
            env,
            episodes=4,
            seed=7,
            held_out=3,
            metric="return",
            on_judged=lambda name, _: told.append(name),
        )
        again = evaluate(save[found.settings[found.best]], env, 3, 11)
        second = evaluate(save[1.0], env, 4, 7)
        plain = evaluate(other, env, 4, 7)
    assert told == ["base", "0", "1", "2", "held-out base", "held-out best"]
    neutral, all_other, _ = found.judged
    assert neutral.values == found.base.values
    assert neutral.difference == 0
    assert neutral.difference_ci95 == (0, 0)
    assert all_other.values == tuple(one.total_reward for one in second.outcomes)
    assert all_other.values == tuple(one.total_reward for one in plain.outcomes)
    assert all_other.difference == pytest.approx(all_other.mean - found.base.mean)
    assert found.best == int(np.argmax([row.mean for row in found.judged]))
    assert found.held_out.seeds == (11, 13)
    assert found.held_out.best.values == tuple(one.total_reward for one in again.outcomes)
    shrunk = found.judged[found.best].difference - found.held_out.best.difference
    assert found.held_out.selection_bias == pytest.approx(shrunk)


def test_nothing_to_try_is_refused(episodes):
    with make_env(REACH) as env, pytest.raises(ConfigError, match="at least one value"):
        tune(untrained(episodes, 0), [], lambda _: untrained(episodes, 0), env)


@pytest.mark.parametrize("steering", ["best_of", {"kind": "best_of"}, ["best_of"], [{"kind": "best_of"}]])
def test_one_steering_and_a_list_of_them_are_told_alike(steering):
    found = parse(EvalCommand, {"checkpoint": "x", "steering": steering}).steering
    assert [one.tree()["kind"] for one in found] == ["best_of"]


def test_any_key_of_a_steering_can_be_searched():
    tree = [{"kind": "guide", "objective": {"weights": [1, 2]}}, "best_of"]
    assert replaced(tree, "steering.0.objective.weights.1", 5)[0]["objective"]["weights"] == [1, 5]
    assert replaced(tree, "steering.1.n", 8)[1] == {"kind": "best_of", "n": 8}
    assert replaced({"kind": "guide"}, "steering.0.scale", 2.0) == [{"kind": "guide", "scale": 2.0}]
    assert tree == [{"kind": "guide", "objective": {"weights": [1, 2]}}, "best_of"]
    for over, words in (
        ("weights", "names no key of a steering"),
        ("steering.0", "names no key of a steering"),
        ("steering.2.n", "steering has no '2'; it has 0, 1"),
        ("steering.0.objectiv.weights", "no 'objectiv' .did you mean objective"),
        ("steering.0.kind.x", "steering.0.kind has no 'x'; it has nothing"),
    ):
        with pytest.raises(ConfigError, match=words):
            replaced(tree, over, 1)


def test_the_verb_says_what_a_dial_is_worth_and_saves_the_policy(episodes, tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        save_part(untrained(episodes, seed), tmp_path / name)
    steering = f"{{kind: composition, policies: [{tmp_path / 'b'}], weights: [0.5, 0.5]}}"
    words = ["tune", f"checkpoint={tmp_path / 'a'}", f"steering={steering}", "over=steering.0.weights"]
    values = "values=[[1,0],[0.5,0.5],[0,1]]"
    more = ["episodes=3", "held_out=2", "metric=return", f"out={tmp_path / 'tune.json'}"]
    assert cli.run([*words, values, *more, f"out_policy={tmp_path / 'best'}"]) == 0
    said = capsys.readouterr().out
    assert "steering.0.weights=[0.5,0.5]" in said
    assert "on others: the choice was worth" in said
    found = json.loads((tmp_path / "tune.json").read_text())
    assert found["settings"] == [[1, 0], [0.5, 0.5], [0, 1]]
    assert found["seeds"] == [300000, 300002]
    assert found["held_out"]["seeds"] == [300003, 300004]
    assert found["judged"][0]["values"] == found["base"]["values"]
    assert (tmp_path / "tune.png").stat().st_size > 5000
    best = load_policy(tmp_path / "best")
    assert isinstance(best, SteeredPolicy)
    assert list(best.config.steerings[0].weights) == found["settings"][found["best"]]
    with make_env(REACH, 2, max_episode_steps=12) as env:
        outcomes = evaluate(best, env, 2, 300003).outcomes
    assert [one.total_reward for one in outcomes] == found["held_out"]["best"]["values"]
    # success, a numeric dial, and nothing held out
    more = ["values=[1,2]", "over=steering.0.n", "steering=best_of", "episodes=2", "held_out=0"]
    assert cli.run(["tune", words[1], *more, f"out={tmp_path / 'n.json'}"]) == 0
    assert "held_out=100 would say" in capsys.readouterr().out
    # every value is checked before anything is evaluated
    assert cli.run([*words, "values=[[1,0],[0.5,0.6]]"]) == 1
    err = capsys.readouterr()
    assert "must sum to 1" in err.err
    assert err.out == ""
