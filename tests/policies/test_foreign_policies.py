"""Policies of robomimic and Stable-Baselines3: they act as upstream lets them act, and only if they are trusted."""

import importlib
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from robopol import cli
from robopol.checkpoint import save_part
from robopol.data import load_episodes, save_episodes
from robopol.envs import make_env
from robopol.errors import CheckpointError, ConfigError
from robopol.evaluation import ExpertActor, evaluate
from robopol.evaluation.collect import collect
from robopol.loading import load_policy

PENDULUM = ["env=gym", "env.id=Pendulum-v1"]


def seeded(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


class Bomb:
    """What a pickle can do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


# ----------------------------------------------------------------------------------------------- Stable-Baselines3


@pytest.fixture(scope="module")
def pendulum():
    with make_env("Pendulum-v1", 2) as env:
        yield env


def agent(tmp_path, algorithm, **options):
    sb3, contrib = pytest.importorskip("stable_baselines3"), pytest.importorskip("sb3_contrib")
    cls = getattr(sb3, algorithm, None) or getattr(contrib, algorithm)
    made = cls("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0, **options)
    made.save(tmp_path / "agent.zip")
    return made, f"sb3:{algorithm}:{tmp_path / 'agent.zip'}"


@pytest.mark.parametrize("algorithm", ["A2C", "CrossQ", "DDPG", "PPO", "SAC", "TD3", "TQC", "TRPO"])
def test_an_agent_acts_with_its_mean_and_proposes_from_its_distribution(algorithm, pendulum, tmp_path):
    upstream, name = agent(tmp_path, algorithm)
    policy = load_policy(name, trust=True, world=pendulum.spec)
    assert (policy.spec.horizon, policy.spec.n_action_steps, policy.spec.n_obs_steps) == (1, 1, 1)
    obs = {"state": torch.randn(3, 1, 3, generator=torch.Generator().manual_seed(0))}
    mean = np.stack([upstream.predict(row[0].numpy(), deterministic=True)[0] for row in obs["state"]])
    for generator in (None, torch.Generator(), seeded(range(3))):
        np.testing.assert_array_equal(policy.act(obs, generator=generator)[:, 0, 0].numpy(), mean)
    state = torch.get_rng_state()
    several, again = (policy.plan(obs, 4, seeded(range(3))) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert several.shape == (3, 4, 1, 1)
    assert torch.equal(several, again)
    assert (several.abs() <= 2).all()
    if algorithm in ("TD3", "DDPG"):
        assert torch.equal(several[:, :, 0], torch.from_numpy(mean)[:, None].expand(3, 4, 1))
        return
    assert (several.std(1) > 0).all()
    other = policy.plan(obs, 4, seeded([0, 11, 12]))
    assert torch.equal(other[0], several[0])
    assert not torch.equal(other[1:], several[1:])
    torch.manual_seed(5)
    upstream.policy.set_training_mode(False)
    seed = int(torch.randint(2**63 - 1, (4,), generator=torch.Generator().manual_seed(0))[2])
    torch.manual_seed(seed)
    expected = upstream.predict(obs["state"][0, 0].numpy(), deterministic=False)[0]
    np.testing.assert_allclose(several[0, 2, 0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
def test_state_dependent_exploration_proposes_several_actions(algorithm, pendulum, tmp_path):
    _, name = agent(tmp_path, algorithm, use_sde=True)
    policy = load_policy(name, trust=True, world=pendulum.spec)
    several, again = (policy.plan({"state": torch.ones(1, 1, 3)}, 4, torch.Generator().manual_seed(1)) for _ in "ab")
    assert several.std(1) > 0
    assert torch.equal(several, again)


def test_agents_act_only_when_trusted(tmp_path, capsys):
    upstream, name = agent(tmp_path, "SAC")
    out = tmp_path / "demos.hdf5"
    words = ["collect", *PENDULUM, f"checkpoint={name}", "keep=all", "episodes=2", f"out={out}"]
    assert cli.run(words) == 1
    assert "trust=true" in capsys.readouterr().err
    assert cli.run([*words, "trust=true"]) == 0
    recorded = load_episodes(out)
    expected = upstream.predict(recorded.obs["state"][5].numpy(), deterministic=True)[0]
    np.testing.assert_allclose(recorded.action[5].numpy(), expected, atol=1e-6)
    assert recorded.truncated.sum() == 2
    assert not recorded.terminated.any()


def test_what_is_no_agent_is_refused_in_words(pendulum, tmp_path):
    _, name = agent(tmp_path, "SAC")
    with pytest.raises(ConfigError, match=r"no algorithm 'SACC' \(did you mean SAC"):
        load_policy(name.replace("SAC", "SACC"), trust=True, world=pendulum.spec)
    with pytest.raises(ConfigError, match="does not say which world it is for: name one"):
        load_policy(name, trust=True)
    with pytest.raises(CheckpointError, match=r"not a file of Stable-Baselines3 \(a \.zip\)"):
        load_policy("sb3:SAC:/nowhere.zip", trust=True, world=pendulum.spec)
    with pytest.raises(CheckpointError, match="cannot be loaded as PPO"):
        load_policy(name.replace("SAC", "PPO"), trust=True, world=pendulum.spec)
    with make_env("robopol/Reach-v0") as env, pytest.raises(CheckpointError, match="cannot be loaded as SAC"):
        load_policy(name, trust=True, world=env.spec)
    with zipfile.ZipFile(tmp_path / "agent.zip", "w") as file:
        file.writestr("data", "{}")
    with pytest.raises(CheckpointError, match="cannot be loaded as SAC"):
        load_policy(name, trust=True, world=pendulum.spec)


def test_a_foreign_policy_is_no_policy_folder_and_cannot_be_trained(pendulum, tmp_path):
    _, name = agent(tmp_path, "SAC")
    policy = load_policy(name, trust=True, world=pendulum.spec)
    with pytest.raises(CheckpointError, match="cannot be saved as a policy folder"):
        save_part(policy, tmp_path)
    assert not (tmp_path / "config.json").exists()
    with pytest.raises(ConfigError, match="train it with sb3"):
        policy.loss({})
    assert evaluate(policy, pendulum, 2).execution.plans == 200


# ------------------------------------------------------------------------------------------------------ robomimic


@pytest.fixture(scope="module")
def reach():
    with make_env("robopol/Reach-v0", 2, cameras=("front",), image_size=(32, 32), max_episode_steps=20) as env:
        yield env


def robomimic_config(name, keys, **algo):
    from robomimic.config import config_factory
    from robomimic.utils import obs_utils

    importlib.import_module("robomimic.algo")  # registers what a config may name
    config = config_factory(name)
    with config.values_unlocked():
        config.train.cuda = False
        config.observation.modalities.obs.low_dim = [key for key in keys if not key.endswith("_image")]
        config.observation.modalities.obs.rgb = [key for key in keys if key.endswith("_image")]
        for key, value in algo.items():
            part = config.algo
            *parts, last = key.split(".")
            for inner in parts:
                part = part[inner]
            part[last] = value
    obs_utils.initialize_obs_utils_with_config(config)
    return config


def trained(config, shapes, size, batches, path, stats=None):
    """Train for some steps by robomimic, and save as its training script does."""
    from robomimic.algo import RolloutPolicy, algo_factory

    torch.manual_seed(0)
    model = algo_factory(config.algo_name, config, shapes, size, torch.device("cpu"))
    model.set_train()
    for step, batch in enumerate(batches):
        model.train_on_batch(model.process_batch_for_training(batch), epoch=step)
    model.set_eval()
    saved = {
        "model": model.serialize(),
        "config": config.dump(),
        "algo_name": config.algo_name,
        "env_metadata": {},
        "shape_metadata": {"all_shapes": shapes, "all_obs_keys": list(shapes), "ac_dim": size, "use_images": False},
    }
    if stats is not None:
        saved["obs_normalization_stats"] = stats
    torch.save(saved, path)
    return RolloutPolicy(model, obs_normalization_stats=stats)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    path = tmp_path_factory.mktemp("demos") / "demos.hdf5"
    with make_env("robopol/Reach-v0", 2) as env:
        save_episodes(collect(ExpertActor(env), env, 3, 0, source="expert", only_success=True), path)
    return path


@pytest.mark.parametrize(
    "algo",
    [
        {"actor_layer_dims": [16]},
        {"actor_layer_dims": [16], "gmm.enabled": True},
        {"actor_layer_dims": [16], "gaussian.enabled": True},
        {
            "transformer.enabled": True,
            "transformer.embed_dim": 16,
            "transformer.num_layers": 1,
            "transformer.num_heads": 2,
        },
    ],
    ids=["mlp", "gmm", "gaussian", "transformer"],
)
def test_a_robomimic_policy_acts_as_robomimic_lets_it_act(algo, demos, reach, tmp_path, capsys):
    pytest.importorskip("robomimic")
    from robomimic.utils.dataset import SequenceDataset

    config = robomimic_config("bc", ["state"], **algo)
    steps = 10 if "transformer.enabled" in algo else 1
    with config.values_unlocked():
        config.train.frame_stack = steps
        config.train.hdf5_normalize_obs = steps == 1  # upstream normalises no histories
    data = SequenceDataset(
        str(demos), ["state"], ["actions"], frame_stack=steps, seq_length=1, hdf5_normalize_obs=steps == 1
    )
    size, width = reach.spec.obs_shapes["state"][0], len(reach.spec.action_names)
    batches = torch.utils.data.default_collate([data[i] for i in range(16)])
    path = tmp_path / "model.pth"
    upstream = trained(config, {"state": [size]}, width, [batches] * 5, path, data.obs_normalization_stats)
    data.close_and_delete_hdf5_handle()

    with pytest.raises(CheckpointError, match="trust=true"):
        load_policy(f"robomimic:{path}", world=reach.spec)
    capsys.readouterr()
    policy = load_policy(f"robomimic:{path}", trust=True, world=reach.spec)
    assert capsys.readouterr().out == ""
    assert policy.spec.n_obs_steps == steps
    assert policy.spec.chunk == policy.spec.n_action_steps == 1
    obs = {"state": torch.randn(3, steps, size, generator=torch.Generator().manual_seed(0))}
    found, again = (policy.act(obs, 2, seeded(range(3))) for _ in range(2))
    assert found.shape == (3, 2, 1, width)
    assert torch.equal(found, again)
    for row in range(3):
        for index, seed in enumerate(torch.randint(2**63 - 1, (2,), generator=seeded([row])[0]).tolist()):
            torch.manual_seed(seed)
            upstream.start_episode()
            history = obs["state"][row].numpy()
            action = upstream({"state": history[0] if steps == 1 else history})
            np.testing.assert_array_equal(found[row, index, 0].numpy(), action)
    drawn = (found[:, 0] - found[:, 1]).abs().max() > 0
    assert drawn == ("gmm.enabled" in algo)  # the others act with their means in rollouts
    assert evaluate(policy, reach, 2).length_mean == 20


def test_a_robomimic_policy_sees_pictures_as_robomimic_does(reach, tmp_path):
    pytest.importorskip("robomimic")
    from robomimic.utils import obs_utils

    config = robomimic_config("bc", ["state", "front_image"], actor_layer_dims=[16])
    size = reach.spec.obs_shapes["state"][0]
    path = tmp_path / "model.pth"
    upstream = trained(config, {"state": [size], "front_image": [3, 32, 32]}, 5, [], path)
    policy = load_policy(f"robomimic:{path}", trust=True, world=reach.spec)
    assert policy.spec.obs_shapes == {"state": (size,), "images.front": (32, 32, 3)}
    image = torch.randint(256, (1, 1, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = policy.act({"state": torch.ones(1, 1, size), "images.front": image})
    seen = obs_utils.process_obs(image[0, 0].numpy(), obs_key="front_image")
    expected = upstream({"state": np.ones(size, np.float32), "front_image": seen})
    np.testing.assert_allclose(found[0, 0, 0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rnn": True}, "a recurrent policy: it remembers"),
        ({"goal": ["state"]}, "told goals"),
        ({"shapes": {"state": [4]}}, r"'state' is \(\d+,\) here, \(4,\) in the checkpoint"),
        ({"shapes": {"stat": [4]}}, r"looks at 'stat' \(did you mean state"),
        ({"size": 7}, "takes 5 action entries, the checkpoint gives 7"),
        ({"algo": "hbc"}, "trained by hbc, which remembers"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(change, words, reach, tmp_path):
    pytest.importorskip("robomimic")
    config = json.loads(robomimic_config("bc", ["state"]).dump())
    config["algo"]["rnn"]["enabled"] = "rnn" in change
    config["observation"]["modalities"]["goal"]["low_dim"] = change.get("goal", [])
    shapes = change.get("shapes", {"state": list(reach.spec.obs_shapes["state"])})
    saved = {
        "config": json.dumps(config),
        "algo_name": change.get("algo", "bc"),
        "shape_metadata": {"all_shapes": shapes, "ac_dim": change.get("size", 5)},
    }
    torch.save(saved, tmp_path / "model.pth")
    with pytest.raises(ConfigError, match=words):
        load_policy(f"robomimic:{tmp_path / 'model.pth'}", trust=True, world=reach.spec)


def test_files_that_are_no_checkpoint_of_robomimic(reach, tmp_path):
    pytest.importorskip("robomimic")
    for content in (b"", b"nothing", pickle.dumps({"config": "{}"})):
        (tmp_path / "model.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match="not a checkpoint of robomimic"):
            load_policy(f"robomimic:{tmp_path / 'model.pth'}", trust=True, world=reach.spec)
    with pytest.raises(CheckpointError, match="not a checkpoint of robomimic"):
        load_policy("robomimic:/nowhere.pth", trust=True, world=reach.spec)


@pytest.mark.parametrize("kind", ["robomimic", "sb3:SAC"])
def test_nothing_is_unpickled_without_trust(kind, pendulum, tmp_path):
    path, mark = tmp_path / "file", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(CheckpointError, match="say trust=true"):
        load_policy(f"{kind}:{path}", world=pendulum.spec)
    for name in (path, f"{path}.pth"):
        with pytest.raises(CheckpointError, match="is not a folder"):
            load_policy(name, trust=True, world=pendulum.spec)
    assert not mark.exists()
