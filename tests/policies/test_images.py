"""Policies that see camera pictures: what they look at, what they learn, and that nothing of it is left to chance."""

import json
from pathlib import Path

import pytest
import torch

from robopol.algos.bc import BCConfig
from robopol.checkpoint import load_policy, save_part
from robopol.config import parse
from robopol.configs import load_config
from robopol.data import Episodes, EpisodesMeta, Windows, save_episodes
from robopol.envs import make_env, rendering
from robopol.envs.reach import Reach
from robopol.errors import ConfigError, DataError, ShapeError
from robopol.evaluation import ExpertActor, evaluate
from robopol.evaluation.collect import collect
from robopol.evaluation.protocol import check_contract
from robopol.execution import RecedingHorizon
from robopol.networks.precision import RuntimeConfig
from robopol.policies import Policy, PolicySpec
from robopol.policies.image_observation import ImageConfig
from robopol.policies.observation import LowDimConfig
from robopol.registry import lookup
from robopol.training.config import TrainConfig
from robopol.training.contract import spec_for
from robopol.training.seeding import generator
from robopol.training.train import train
from robopol.training.words import configured

can_render = pytest.mark.skipif(rendering.why_not() is not None, reason=str(rendering.why_not()))

SIZE = 24
ENCODER = {"kind": "image", "blocks": [1], "keypoints": 8, "features": 16}
RUNTIME = RuntimeConfig(device="cpu", matmul="highest", threads=1).build()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dots(count: int, length: int = 4, cameras: tuple[str, ...] = ("front",), seed: int = 0) -> Episodes:
    """Episodes in which a bright square stands anywhere in dark noise, and the action is where it stands."""
    rng, rows = seeded(seed), count * length
    place = torch.randint(2, SIZE - 2, (rows, 2), generator=rng)
    pictures = torch.randint(0, 60, (rows, SIZE, SIZE, 3), generator=rng, dtype=torch.uint8)
    for row, (x, y) in enumerate(place.tolist()):
        pictures[row, y - 1 : y + 2, x - 1 : x + 2] = 255
    obs = {f"images.{camera}": pictures.clone() for camera in cameras} | {"state": torch.rand(rows, 2, generator=rng)}
    last = torch.arange(rows) % length == length - 1
    return Episodes(
        obs=obs,
        action=place.float() / SIZE,
        reward=torch.zeros(rows),
        terminated=last,
        truncated=torch.zeros(rows, dtype=torch.bool),
        source=torch.zeros(rows, dtype=torch.int64),
        intervention=torch.zeros(rows, dtype=torch.bool),
        starts=torch.arange(count) * length,
        lengths=torch.full((count,), length),
        final_obs={key: column[:count].clone() for key, column in obs.items()},
        has_final=torch.ones(count, dtype=torch.bool),
        success=torch.ones(count, dtype=torch.bool),
        way=torch.full((count,), -1),
        seed=torch.arange(count),
        meta=EpisodesMeta(action_names=("x", "y"), action_low=(0, 0), action_high=(1, 1), control_hz=10.0),
    )


def config_of(encoder: dict, steps: int = 1) -> object:
    tree = {"kind": "gaussian", "hidden": [64], "min_std": 0.05, "n_obs_steps": steps, "horizon": steps}
    return parse(lookup("policy", "gaussian"), tree | {"n_action_steps": 1, "encoder": encoder})


def make(episodes: Episodes, encoder: dict, steps: int = 1) -> Policy:
    config = config_of(encoder, steps)
    torch.manual_seed(0)
    policy = config.build(spec_for(config, {"toy": episodes}, None))
    policy.fit_normalizers(episodes)
    return policy


def first_batch(policy: Policy, episodes: Episodes, rows: int = 6) -> dict:
    spec = policy.spec
    windows = Windows(episodes, spec.n_obs_steps, spec.horizon)
    return windows.gather(torch.arange(3, 3 + rows))


def test_an_encoder_reads_what_it_can_or_what_it_is_told():
    shapes = {"state": (3,), "goal": (2,), "images.front": (8, 8, 3), "images.wrist": (8, 8, 3)}
    assert LowDimConfig().select(shapes).keys() == {"state", "goal"}
    assert ImageConfig().select(shapes).keys() == shapes.keys()
    assert ImageConfig(keys=("images.front", "goal")).select(shapes).keys() == {"images.front", "goal"}
    with pytest.raises(ConfigError, match=r"'images.frnt' \(did you mean images.front"):
        ImageConfig(keys=("images.frnt",)).select(shapes)


def test_a_low_dim_policy_ignores_pictures():
    episodes = dots(3)
    policy = make(episodes, {"kind": "low_dim"})
    assert policy.spec.obs_shapes == {"state": (2,)}
    assert policy.act({"state": torch.zeros(2, 1, 2)}).shape == (2, 1, 1, 2)


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ({"kind": "low_dim", "keys": ["images.front"]}, "use policy/encoder=image"),
        ({"kind": "low_dim", "keys": []}, "looks at no observation"),
        ({**ENCODER, "keys": ["state"]}, r"needs camera pictures.*env.options.cameras"),
        ({**ENCODER, "blocks": [1, 1, 1, 1]}, r"22 x 22 pixels are seen.*at least 33 x 33: .*fewer stages"),
    ],
)
def test_encoders_that_do_not_fit_the_data_are_refused_in_words(encoder, words):
    with pytest.raises(ConfigError, match=words):
        make(dots(2), encoder)


def test_sources_must_agree_in_what_is_looked_at_only():
    small, both = dots(2), dots(2, cameras=("front", "wrist"))
    config = config_of(ENCODER)
    with pytest.raises(DataError, match=r"'b' has observations .*images\.wrist"):
        spec_for(config, {"a": small, "b": both}, None)
    chosen = config_of({**ENCODER, "keys": ["images.front", "state"]})
    assert spec_for(chosen, {"a": small, "b": both}, None).obs_shapes.keys() == {"images.front", "state"}


@pytest.mark.parametrize(("share", "networks"), [(False, 2), (True, 1)])
def test_features_of_all_cameras_are_joined(share, networks):
    policy = make(dots(3, cameras=("front", "wrist")), {**ENCODER, "share": share}, steps=2)
    observation = policy.observation
    assert len(observation.networks) == networks
    assert observation.dim == 2 + 2 * 16
    batch = first_batch(policy, dots(3, cameras=("front", "wrist")))
    features = observation(batch["obs"], 2)
    assert features.shape == (6, 2, 34)
    assert torch.equal(features[..., 2:18], features[..., 18:]) == share  # both cameras show the same here


def test_pictures_alone_are_enough():
    policy = make(dots(3), {**ENCODER, "keys": ["images.front"]})
    assert policy.observation.dim == 16
    assert policy.act({"images.front": torch.zeros(2, 1, SIZE, SIZE, 3, dtype=torch.uint8)}).shape == (2, 1, 1, 2)


def test_every_step_of_the_history_is_seen():
    policy = make(dots(3), ENCODER, steps=3).eval()
    obs = first_batch(policy, dots(3))["obs"]
    before = policy.observation(obs, 3)
    for step in range(3):
        changed = {key: value.clone() for key, value in obs.items()}
        changed["images.front"][0, step] = 255 - changed["images.front"][0, step]
        differing = (policy.observation(changed, 3) != before).any(-1)
        assert differing.nonzero().tolist() == [[0, step]]


@pytest.mark.parametrize("keypoints", [8, None])
def test_gradients_reach_the_first_convolution(keypoints):
    policy = make(dots(3), {**ENCODER, "keypoints": keypoints})
    policy.loss(first_batch(policy, dots(3)), seeded(0)).mean().backward()
    first = policy.observation.networks[0][0][0].weight
    assert first.shape == (64, 3, 7, 7)
    assert first.grad.abs().sum() > 0
    # the convolution that makes the maps has a bias which a softmax does not see
    unmoved = [name for name, p in policy.named_parameters() if p.grad is None]
    assert unmoved == []


def test_crops_are_random_in_training_only_and_a_function_of_the_generator():
    episodes = dots(3)
    policy = make(episodes, {**ENCODER, "crop": 0.7})
    assert policy.observation.crops == {"images.front": (17, 17)}
    batch = first_batch(policy, episodes)
    first, again, other = (policy.loss(batch, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)  # a Gaussian's loss has no other randomness
    assert torch.equal(policy.act(batch["obs"]), policy.act(batch["obs"]))  # even of a policy in training
    policy.eval()
    assert torch.equal(policy.loss(batch, seeded(1)), policy.loss(batch, seeded(2)))
    edge = {key: value.clone() for key, value in batch["obs"].items()}
    edge["images.front"][:, :, :3] = 0  # rows 0 to 2 lie outside the middle 17 of 24
    assert torch.equal(policy.act(edge), policy.act(batch["obs"]))


def test_a_row_does_not_depend_on_the_others():
    episodes = dots(8)
    policy = make(episodes, ENCODER).eval()
    obs = first_batch(policy, episodes, 16)["obs"]
    whole = policy.act(obs)
    order = torch.randperm(16, generator=seeded(0))
    assert torch.equal(policy.act({key: value[order] for key, value in obs.items()}), whole[order])
    others = {key: value.clone() for key, value in obs.items()}
    others["images.front"][1:] = 0
    assert torch.equal(policy.act(others)[0], whole[0])


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (torch.zeros(2, 1, SIZE, SIZE + 1, 3, dtype=torch.uint8), r"\(2, 1, 24, 25, 3\), .* needs \(B, 1, 24, 24"),
        (torch.zeros(2, 1, 3, SIZE, SIZE, dtype=torch.uint8), "height, width, channels"),
        (torch.zeros(2, 1, SIZE, SIZE, 3), r"torch\.float32; pictures are torch\.uint8"),
        (None, "lacks 'images.front'"),
    ],
)
def test_other_pictures_are_refused_in_words(pictures, words):
    policy = make(dots(2), ENCODER)
    obs = {"state": torch.zeros(2, 1, 2)} | ({} if pictures is None else {"images.front": pictures})
    with pytest.raises(ShapeError, match=words):
        policy.act(obs)


def learn(policy: Policy, episodes: Episodes, updates: range, total: int, state: dict | None = None) -> object:
    """Do some of the updates of a run of ``total``."""
    algo = BCConfig(lr=3e-3, warmup=5).build(policy, total, RUNTIME)
    if state is not None:
        algo.load_state(state)
    windows = Windows(episodes, policy.spec.n_obs_steps, policy.spec.horizon)
    for step in updates:
        rows = torch.randint(len(windows), (32,), generator=seeded(step))
        algo.update(windows.gather(rows), step, generator(torch.device("cpu"), 0, "update", step))
    return algo


@pytest.mark.slow
def test_where_a_dot_is_can_be_learned():
    policy = make(dots(100), {**ENCODER, "crop": 1.0, "keys": ["images.front"]})
    learned = learn(policy, dots(100), range(150), 150).deployed()
    fresh = dots(30, seed=1)
    found = learned.act({"images.front": fresh.obs["images.front"][:, None]})[:, 0, 0]
    error = (found - fresh.action).abs().mean()
    assert error < 0.5 / SIZE  # half a pixel; guessing the middle is wrong by five


def test_interrupted_training_goes_on_to_the_same_bits():
    episodes = dots(4)
    encoder = {**ENCODER, "crop": 0.8}
    whole = learn(make(episodes, encoder), episodes, range(6), 6).state()
    half = learn(make(episodes, encoder), episodes, range(3), 6).state()
    torch.rand(5)
    joined = learn(make(episodes, encoder), episodes, range(3, 6), 6, half).state()
    assert all(torch.equal(joined[name], value) for name, value in whole.items())


def test_a_saved_policy_acts_the_same(tmp_path):
    episodes = dots(3, cameras=("front", "wrist"))
    policy = make(episodes, {**ENCODER, "crop": 0.8, "share": True}, steps=2).eval()
    save_part(policy, tmp_path)
    loaded = load_policy(tmp_path)
    assert loaded.spec == policy.spec
    obs = first_batch(policy, episodes)["obs"]
    assert torch.equal(loaded.act(obs), policy.act(obs))


def test_policies_saved_before_there_were_encoders_load(tmp_path):
    policy = make(dots(3), {"kind": "low_dim"}).eval()
    save_part(policy, tmp_path)
    file = tmp_path / "config.json"
    tree = json.loads(file.read_text())
    del tree["policy"]["encoder"]
    file.write_text(json.dumps(tree))
    obs = {"state": torch.rand(2, 1, 2)}
    assert torch.equal(load_policy(tmp_path).act(obs), policy.act(obs))


OPTIONS = {"state": "robot", "cameras": ["front"], "image_size": [SIZE, SIZE], "max_episode_steps": 60}
SMALL = [
    "experiment=camera",
    "env.options.cameras=[front]",
    f"env.options.image_size=[{SIZE},{SIZE}]",
    "env.options.max_episode_steps=60",
    "policy.net.width=16",
    "policy.net.blocks=1",
    "policy.encoder.blocks=[1]",
    "policy.encoder.keypoints=4",
    "policy.sampler.steps=2",
    "batch_size=8",
    "phases.cloning.updates=3",
    "eval.final_episodes=0",
    "runtime.threads=1",
    "runtime.matmul=highest",
    "runtime.precision=fp32",
]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("camera") / "reach.hdf5"
    with make_env("robopol/Reach-v0", 2, **OPTIONS) as env:
        save_episodes(collect(ExpertActor(env), env, 2, 0, source="expert", only_success=True), path)
    return path


def camera_config(demos: Path, run: Path, *more: str) -> TrainConfig:
    words = [*SMALL, f"data.demos.uri={demos}", "data.demos.validation=0.5", f"run={run}", *more]
    return parse(TrainConfig, load_config("train", words))


@can_render
def test_the_robots_state_leaves_the_target_out():
    with make_env("robopol/Reach-v0", 1, **OPTIONS) as env:
        assert env.spec.obs_shapes == {"state": (11,), "images.front": (SIZE, SIZE, 3)}
        assert len(env.spec.state_names) == 11
        robot = env.reset([0], [5])["state"]
    with make_env("robopol/Reach-v0", 1) as env:
        assert torch.equal(env.reset([0], [5])["state"][:, :11], robot)


@can_render
@pytest.mark.parametrize(("size", "shadows"), [(24, 192), (480, 2048)])
def test_small_pictures_take_small_shadow_maps(size, shadows):
    task = Reach()
    renderer = rendering.Renderer(task.model, size, size)
    assert renderer._context.shadowSize == shadows
    assert task.model.vis.quality.shadowsize == 2048  # the model itself is left as it was
    renderer.close()


@can_render
def test_the_recipe_trains_and_its_policy_acts_in_the_world_of_its_cameras(demos, tmp_path):
    train(camera_config(demos, tmp_path / "run"), [])
    policy = load_policy(tmp_path / "run")
    assert policy.spec.obs_shapes == {"images.front": (SIZE, SIZE, 3), "state": (11,)}
    few = OPTIONS | {"max_episode_steps": 6}
    outcomes = []
    for num_envs in (1, 3):
        with make_env("robopol/Reach-v0", num_envs, **few) as env:
            outcomes.append(evaluate(policy, env, 3).outcomes)
    assert outcomes[0] == outcomes[1]
    words = r"'images.front' has shape \(32, 32, 3\), the policy needs \(24, 24, 3\)"
    other = few | {"image_size": [32, 32]}
    with make_env("robopol/Reach-v0", 1, **other) as env, pytest.raises(ConfigError, match=words):
        check_contract(policy, env)


@can_render
@pytest.mark.parametrize(
    ("kind", "algo"), [("diffusion", ["algo=dppo", "algo.scoring.steps=2"]), ("flow", ["algo=fpo"])]
)
def test_what_sees_is_made_better_by_rollouts_in_its_own_world(demos, tmp_path, kind, algo):
    few = [f"policy={kind}", "env.options.max_episode_steps=6", "eval.final_episodes=0"]
    train(camera_config(demos, tmp_path / "base", *few), [])
    words = [f"checkpoint={tmp_path / 'base'}", *algo, f"run={tmp_path / 'run'}", "collection.num_envs=2"]
    words += ["phases.online.rollout=12", "phases.online.env_steps=24", "batch_size=4", "algo.epochs=1"]
    words += ["algo.lr=1e-3", "model.hidden=[8]", "eval.final_episodes=2", "eval.videos=0", "runtime.threads=1"]
    train(parse(TrainConfig, configured(words)), words)
    before, after = (load_policy(tmp_path / name) for name in ("base", "run"))
    eyes, seen = before.observation.state_dict(), after.observation.state_dict()
    same = all(torch.equal(eyes[name], seen[name]) for name in eyes)
    assert same == (kind == "diffusion"), "DPPO leaves the eyes as they were cloned, FPO trains them, too"
    obs = {"images.front": torch.zeros(1, 1, SIZE, SIZE, 3, dtype=torch.uint8), "state": torch.zeros(1, 1, 11)}
    first, second = (policy.plan(obs, generator=seeded(0)) for policy in (before, after))
    assert not torch.equal(first, second)


@can_render
def test_data_of_other_cameras_are_refused_before_training(demos, tmp_path):
    words = r"'images.front' is \(24, 24, 3\) in the data, \(32, 32, 3\).*'image_size': \[24, 24\]"
    with pytest.raises(DataError, match=words):
        train(camera_config(demos, tmp_path / "run", "env.options.image_size=[32,32]"), [])


@can_render
def test_histories_of_pictures_stay_bytes(demos):
    config = config_of(ENCODER, steps=2)
    with make_env("robopol/Reach-v0", 1, **OPTIONS) as env:
        shapes = {key: list(shape) for key, shape in env.spec.obs_shapes.items()}
        names = list(env.spec.action_names)
        tree = {"obs_shapes": shapes, "action_names": names, "action_space": env.spec.action_space}
        tree |= {"action_low": env.spec.action_low, "action_high": env.spec.action_high, "control_hz": 10.0}
        tree |= {"n_obs_steps": 2, "horizon": 2, "n_action_steps": 1}
        policy = config.build(parse(PolicySpec, tree))
        policy.observation.fit({"state": torch.rand(9, 11)})
        policy.action_normalizer.fit(torch.rand(9, len(names)))
        actor = RecedingHorizon(policy)
        first = env.reset([0], [0])
        actor.reset([0], [0])
        result = env.step([0], actor.act([0], first))
        actor.act([0], result.obs)
        history = actor._episodes[0].history["images.front"]
    assert history.dtype == torch.uint8
    assert torch.equal(history, torch.stack([first["images.front"][0], result.obs["images.front"][0]]))
