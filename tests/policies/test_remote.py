"""Policies that are served elsewhere: as if they were here, and one clear error for all that can go wrong."""

import base64
import hashlib
import json
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from servers import PlainServer, Script, Slow, from_noise, served, serving
from test_policies import POLICIES, batch, episodes, make, obs

from robopol import cli
from robopol.checkpoint import load_policy as load_folder
from robopol.checkpoint import save_part
from robopol.config import parse
from robopol.data import load_episodes
from robopol.envs import make_env
from robopol.errors import CheckpointError, ConfigError, MessageError, RemoteError, SeedWarning, ShapeError
from robopol.evaluation import evaluate
from robopol.export.trace import trace
from robopol.loading import load_policy
from robopol.policies import PolicySpec, Previous
from robopol.policies.remote import RemoteConfig, RemoteOptions, message
from robopol.policies.remote.message import encode
from robopol.policies.remote.protocol import Metadata, Request
from robopol.registry import lookup
from robopol.steering import BestOfConfig, RealTimeChunkingConfig, StartNoiseConfig
from robopol.steering.objectives.motion import Motion
from robopol.steering.objectives.smoothness import SmoothnessConfig
from robopol.training.contract import spec_for

REACH = "robopol/Reach-v0"
DDIM = {**POLICIES["diffusion-mlp"], "sampler": {"kind": "ddim", "steps": 3}}
WALKS = {
    "ddim": (DDIM, (8, 3)),
    "flow": (POLICIES["flow-mlp"], (8, 3)),
    "ddpm": (POLICIES["diffusion-mlp"], (4, 8, 3)),  # the start, and all but the last of its four steps draw
}


def seeded(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# ------------------------------------------------------------------------------------------- servers of robopol


@pytest.mark.parametrize("walk", WALKS)
def test_a_served_policy_plans_to_the_bit_what_it_plans_here(walk):
    tree, noise_shape = WALKS[walk]
    policy = make(tree)
    with served(policy) as url:
        remote = load_policy(url)
        assert remote.spec == policy.spec
        assert remote.noise_shape == noise_shape
        for n in (1, 3):
            assert torch.equal(remote.plan(obs(16), n, seeded(range(16))), policy.plan(obs(16), n, seeded(range(16))))
            one = [p.act(obs(5), n, torch.Generator().manual_seed(7)) for p in (remote, policy)]
            assert torch.equal(*one)
            assert one[0].shape == (5, n, 7, 3)
        torch.manual_seed(3)
        here = policy.plan(obs(2))
        torch.manual_seed(3)
        assert torch.equal(remote.plan(obs(2)), here)


def test_more_rows_than_a_server_takes_are_asked_for_in_blocks_of_one_size():
    policy = make(DDIM)
    asked = []
    with served(policy, batch=2, asked=asked) as url:
        found = load_policy(url).plan(obs(5), 2, seeded(range(5)))
    torch.testing.assert_close(found, policy.plan(obs(5), 2, seeded(range(5))), atol=1e-4, rtol=1e-5)
    assert [len(request.obs["state"]) for request in asked] == [2, 2, 2]


def test_without_noise_a_plan_is_a_function_of_its_seeds():
    policy = make({**POLICIES["gmm"], "deterministic": False})
    with served(policy) as url:
        remote = load_policy(url)
        assert remote.noise_shape is None
        first, again = (remote.plan(obs(16), 2, seeded(range(16))) for _ in range(2))
        assert torch.equal(first, again)
        others = remote.plan(obs(16), 2, seeded([0, *range(101, 116)]))
        assert torch.equal(others[0], first[0])
        assert not torch.isclose(others[1:], first[1:]).all(-1).any()
        with pytest.raises(ConfigError, match="takes no noise from outside, so it cannot be steered"):
            remote.plan_from(obs(1), torch.zeros(1, 1, 8, 3))


def test_a_served_policy_is_steered_by_its_noise_and_by_choice_as_the_one_behind_it():
    policy = make(DDIM)
    steerings = [
        StartNoiseConfig(scale=0.4),
        BestOfConfig(objective=SmoothnessConfig(motion=Motion(actions=(0, 1), means="absolute")), n=4),
    ]
    here = policy.steered(*steerings)
    with served(policy) as url:
        there = load_policy(url).steered(*steerings)
        assert torch.equal(there.plan(obs(16), 1, seeded(range(16))), here.plan(obs(16), 1, seeded(range(16))))
    plain = policy.steered(steerings[1])
    assert not torch.equal(here.plan(obs(4), 1, seeded(range(4))), plain.plan(obs(4), 1, seeded(range(4))))
    with pytest.raises(ConfigError, match="a gmm policy takes no noise from outside"):
        make(POLICIES["gmm"]).steered(steerings[0]).plan(obs(2))


def test_a_served_policy_goes_on_from_its_last_plan_however_it_is_steered():
    policy, old = make(DDIM).steered(RealTimeChunkingConfig(delay=1)), Previous(torch.full((8, 3), 10.5), 1, 3)
    with served(policy) as url:
        remote = load_policy(url)
        for steering in (StartNoiseConfig(scale=0.4), BestOfConfig(n=2)):
            here, there = policy.steered(steering), remote.steered(steering)
            assert there.goes_on
            seeds = seeded(range(4)), seeded(range(4))
            found = there.plan(obs(4), 1, seeds[0], [old] * 4)
            assert torch.equal(found, here.plan(obs(4), 1, seeds[1], [old] * 4))
            assert not torch.equal(found, here.plan(obs(4), 1, seeded(range(4))))


def test_noise_can_be_given_from_outside():
    policy = make(DDIM)
    noise = torch.randn(4, 3, 8, 3, generator=torch.Generator().manual_seed(1))
    with served(policy) as url:
        remote = load_policy(url)
        assert torch.equal(remote.plan_from(obs(4), noise), from_noise(policy, obs(4), noise))
        with pytest.raises(ShapeError, match=r"needed \(4, n, 8, 3\)"):
            remote.plan_from(obs(4), noise[:, :, 1:])
        with pytest.raises(ShapeError, match="2 generators for 3 rows"):
            remote.plan(obs(3), generator=seeded([0, 1]))
        with pytest.raises(ShapeError, match="lacks 'aux'"):
            remote.plan({"state": torch.zeros(1, 2, 5)})


def test_clients_of_openpi_are_answered_too():
    policy = make(DDIM)
    metadata = Metadata(version=1, spec=policy.spec, weights="a", noise_shape=(8, 3), batch=4)
    now = {"state": np.arange(5.0), "aux": np.zeros(2), "prompt": "go"}
    request = Request.read(now, metadata)
    assert (request.n, request.noise, request.seeds) == (1, None, None)
    assert request.obs["state"].shape == (1, 2, 5)
    assert (request.obs["state"] == np.arange(5.0, dtype=np.float32)).all()
    windows = np.arange(24, dtype=np.float32).reshape(1, 1, 8, 3)
    answer = request.answer(windows, 2)
    assert answer["actions"].tolist() == windows[0, 0, 1:].tolist()
    # one history, with proposals from noise
    noise = np.zeros((2, 8, 3), np.float32)
    history = {"state": np.zeros((2, 5)), "aux": np.zeros((2, 2)), "n": 2, "noise": noise}
    request = Request.read(history, metadata)
    assert request.noise.shape == (1, 2, 8, 3)
    assert request.answer(np.zeros((1, 2, 8, 3), np.float32), 2)["actions"].shape == (2, 7, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": ...}, "an array 'state' is needed, the message has none"),
        ({"state": [1.0] * 5}, "the message has list"),
        ({"state": np.zeros((3, 5))}, r"needed \(5,\) or \(2, 5\)"),
        ({"state": np.zeros((5, 2, 5))}, "at most 4 rows"),
        ({"state": np.zeros((2, 2, 5))}, "others have not"),
        ({"aux": np.zeros((2, 2))}, "others have not"),
        ({"n": 0}, "from 1 to 1024"),
        ({"n": True}, "from 1 to 1024"),
        ({"n": 10**6}, "from 1 to 1024"),
        ({"noise": np.zeros((2, 8, 3), np.float32)}, "axes B and n"),
        ({"noise": np.zeros((3, 1, 7, 3), np.float32)}, r"needed float32 \(3, 1, 8, 3\)"),
        ({"noise": np.full((3, 1, 8, 3), np.nan, np.float32)}, "all of it finite"),
        ({"seeds": np.zeros(2, np.int64)}, r"needed int64 \(3,\)"),
        ({"seeds": np.array([1, 2, -1])}, "at least 0"),
        ({"seeds": np.zeros(3)}, "float64"),
    ],
)
def test_servers_refuse_wrong_requests_in_words(change, words):
    metadata = Metadata(version=1, spec=make(DDIM).spec, weights="a", noise_shape=(8, 3), batch=4)
    message = {"state": np.zeros((3, 2, 5)), "aux": np.zeros((3, 2, 2)), "n": 1} | change
    with pytest.raises(MessageError, match=words):
        Request.read({key: value for key, value in message.items() if value is not ...}, metadata)


def test_an_observation_cannot_have_a_name_that_requests_need():
    spec = make(DDIM).spec.model_copy(update={"obs_shapes": {"noise": (3,)}})
    with pytest.raises(ValueError, match="cannot be called noise"):
        Metadata(version=1, spec=spec, weights="a", noise_shape=None, batch=1)


# -------------------------------------------------------------------------------------------------- other servers


def reach_options(**changes):
    return parse(RemoteOptions, {"horizon": 4, "keys": {"state": "observation/state"}, **changes})


@pytest.fixture(scope="module")
def world():
    with make_env(REACH) as env:
        yield env.spec


def test_a_server_that_does_not_describe_itself_is_asked_row_by_row(world):
    size = world.obs_shapes["state"][0]

    def infer(request):
        start = request["observation/state"][0]
        return {"actions": start + np.arange(20.0).reshape(4, 5) / 100, "server_timing": {"infer_ms": np.float32(1)}}

    server = PlainServer(infer, {"reset_pose": [0, 1]})
    with serving(server) as url:
        remote = load_policy(url, world=world, remote=reach_options(extra={"prompt": "reach"}))
        assert (remote.spec.horizon, remote.spec.n_action_steps, remote.spec.n_obs_steps) == (4, 4, 1)
        assert remote.spec.env.id == REACH
        assert remote.rowwise
        state = torch.arange(3.0)[:, None, None].expand(3, 1, size)
        with pytest.warns(SeedWarning, match="takes neither noise nor seeds"):
            plans = remote.plan({"state": state}, 2, seeded(range(3)))
        remote.plan({"state": state}, 1)
        with pytest.raises(ConfigError, match="cannot be steered"):
            remote.plan_from({"state": state}, torch.zeros(3, 1, 4, 5))
    expected = torch.arange(3.0)[:, None, None, None] + torch.arange(20.0).reshape(4, 5) / 100
    torch.testing.assert_close(plans, expected.expand(3, 2, 4, 5))
    assert len(server.asked) == 9
    assert server.asked[0].keys() == {"observation/state", "prompt"}
    assert server.asked[2]["observation/state"].shape == (size,)
    assert server.asked[0]["observation/state"].dtype == np.float32


def test_a_server_can_be_sent_a_history(world):
    size = world.obs_shapes["state"][0]
    server = PlainServer(lambda request: {"actions": np.arange(20.0).reshape(4, 5)})
    with serving(server) as url:
        remote = load_policy(url, world=world, remote=reach_options(n_obs_steps=3, keys=None))
        history = torch.randn(1, 3, size)
        chunk = remote.act({"state": history})
        plan = remote.plan({"state": history})
    assert torch.equal(chunk[0, 0], torch.arange(20.0).reshape(4, 5))
    assert torch.equal(plan[0, 0, :3], torch.arange(5.0).expand(3, 5)), "what is over is never executed"
    np.testing.assert_array_equal(server.asked[0]["state"], history[0].numpy())


def test_the_server_of_the_documentation_serves(world):
    page = (Path(__file__).parents[2] / "docs" / "other-policies.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    seen = {}

    def infer(obs):
        seen.update(obs)
        return np.arange(20, dtype=np.float32).reshape(4, 5)

    names = {"infer": infer, "__name__": "server"}
    exec(code, names)
    state = torch.randn(1, 1, *world.obs_shapes["state"])
    with serving(names["handle"]) as url:
        chunk = load_policy(url, world=world, remote=reach_options(extra={"prompt": "go"})).act({"state": state})
    assert torch.equal(chunk[0, 0], torch.arange(20.0).reshape(4, 5))
    np.testing.assert_array_equal(seen["observation/state"], state[0, 0].numpy())
    assert seen["prompt"] == "go"


def test_too_little_and_too_much_about_a_server_is_refused_in_words(world):
    with serving(PlainServer(dict)) as url:
        with pytest.raises(ConfigError, match=r"does not describe itself: say how many actions.*remote\.horizon"):
            load_policy(url, world=world)
        with pytest.raises(ConfigError, match="does not say which world it is for"):
            load_policy(url, remote=reach_options())
        with pytest.raises(ConfigError, match=r"looks at 'stat' \(did you mean state"):
            load_policy(url, world=world, remote=reach_options(keys={"stat": "x"}))
        with pytest.raises(ConfigError, match=r"remote\.extra others"):
            load_policy(url, world=world, remote=reach_options(keys=None, extra={"state": 1}))
    with (
        served(make(DDIM)) as url,
        pytest.raises(ConfigError, match="describes itself: leave out"),
    ):
        load_policy(url, remote=reach_options())
    with pytest.raises(ConfigError, match=r"say remote\.horizon too"):
        parse(RemoteOptions, {"extra": {"prompt": "go"}})
    with pytest.raises(ConfigError, match="two things under one name"):
        reach_options(extra={"observation/state": 1})


# ------------------------------------------------------------------------------------------------ what can go wrong


def test_a_server_that_comes_back_with_other_weights_is_refused_until_the_right_ones_are_back():
    policy, other = make(DDIM), make(DDIM)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    with served(policy) as url:
        remote = load_policy(url)
        before, told = remote.plan(obs(1), 1, seeded([0])), remote.fingerprint()
        remote.close()  # as after a break
    port = urlsplit(url).port
    with (
        served(other, port=port),
        pytest.raises(RemoteError, match=r"has other weights than before \(.{8}\.\.\., it had"),
    ):
        remote.plan(obs(1))
    with served(other, port=port):
        assert load_policy(url).fingerprint() != told  # of the same contract at the same address
    with served(policy, port=port):
        assert torch.equal(remote.plan(obs(1), 1, seeded([0])), before)
        assert load_policy(url).fingerprint() == told


RIGHT = {"actions": np.zeros((4, 5), np.float32)}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\x80\x04\x95garbage", "sends what is not understood: these 10 bytes are not a message"),
        (
            "Traceback (most recent call last):\n  File x\nValueError: out of \x1b[31mmemory\n",
            r"failed: ValueError: out of \?\[31mmemory$",
        ),
        (encode({}), "an array 'actions' is needed"),
        (encode({"actions": [0.0] * 5}), "has list"),
        (encode({"actions": np.zeros((3, 5))}), r"float64 \(3, 5\), needed floats \(4, 5\)"),
        (encode({"actions": np.zeros((1, 4, 5))}), r"needed floats \(4, 5\)"),
        (encode({"actions": np.zeros((4, 5), np.int64)}), "int64"),
        (encode({"actions": np.full((4, 5), np.nan)}), "not finite"),
        (encode({"actions": np.full((4, 5), 1e300)}), "not finite"),
    ],
)
def test_each_fault_of_a_server_is_one_error_and_the_next_plan_asks_anew(world, line, words):
    states = {"state": torch.zeros(1, 1, *world.obs_shapes["state"])}
    scripts = [Script(encode({}), line), Script(encode({}), encode(RIGHT))]

    with serving(lambda connection: scripts.pop(0)(connection)) as url:
        remote = load_policy(url, world=world, remote=reach_options())
        with pytest.raises(RemoteError, match=words) as raised:
            remote.plan(states)
        assert url in str(raised.value)
        assert remote.plan(states).shape == (1, 1, 4, 5)


def test_a_server_that_closes_in_the_middle(world):
    states = {"state": torch.zeros(1, 1, *world.obs_shapes["state"])}

    def hang_up(connection):
        connection.send(encode({}))
        connection.recv()
        connection.socket.shutdown(socket.SHUT_RDWR)

    with serving(hang_up) as url:
        remote = load_policy(url, world=world, remote=reach_options())
        with pytest.raises(RemoteError, match="closed the connection"):
            remote.plan(states)
    with pytest.raises(RemoteError, match=r"cannot be reached: .*Is a server running there\?"):
        remote.plan(states)


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"nonsense", "not understood"),
        ("RuntimeError: no GPU", "failed: RuntimeError: no GPU"),
        (encode({"robopol": 3}), "does not describe itself as agreed"),
        (encode({"robopol": {"version": 2}}), "speaks version 2, this robopol 1"),
        (encode({"robopol": {"version": 1, "batch": 0}}), "missing key: spec"),
        (encode({"robopol": {"version": 1, "spec": np.zeros(2)}}), "does not describe itself as agreed"),
    ],
)
def test_servers_that_begin_wrongly(first, words):
    with serving(Script(first)) as url, pytest.raises(RemoteError, match=words):
        load_policy(url)


@pytest.mark.parametrize("lines", [(), (encode({}),)], ids=["from the start", "to answer"])
def test_a_server_that_is_slow(lines, world):
    slow = Slow(*lines)
    with serving(slow) as url:
        try:
            with pytest.raises(RemoteError, match=r"did not answer within 0\.5 s"):
                load_policy(url, world=world, remote=reach_options(timeout=0.5)).plan(
                    {"state": torch.zeros(1, 1, *world.obs_shapes["state"])}
                )
        finally:
            slow.over.set()


def test_a_server_that_is_absent_or_something_else():
    with socket.create_server(("127.0.0.1", 0)) as line:
        address = f"ws://127.0.0.1:{line.getsockname()[1]}"

        def answer():
            connection, _ = line.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RemoteError, match="speaks no websocket"):
            load_policy(address)
        thread.join()
    with pytest.raises(RemoteError, match="cannot be reached"):
        load_policy(address)


def test_a_server_that_takes_no_message_is_not_waited_for_for_ever():
    """It shakes hands, says that it is of robopol, and then reads nothing any more."""
    spec = parse(PolicySpec, make(DDIM).spec.tree() | {"obs_shapes": {"images.front": [1000, 1000, 3]}})
    hello = encode(Metadata(version=1, spec=spec, weights="a", noise_shape=None, batch=16).message())
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as line:

        def stall():
            connection, _ = line.accept()
            with connection:
                asked = connection.recv(4096).decode()
                key = next(row.split(": ")[1] for row in asked.split("\r\n") if row.startswith("Sec-WebSocket-Key"))
                accept = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
                rows = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
                rows += [f"Sec-WebSocket-Accept: {base64.b64encode(accept).decode()}", "", ""]
                connection.sendall("\r\n".join(rows).encode() + b"\x82\x7e" + len(hello).to_bytes(2, "big") + hello)
                over.wait()

        thread = threading.Thread(target=stall)
        thread.start()
        try:
            url, options = f"ws://127.0.0.1:{line.getsockname()[1]}", RemoteOptions(timeout=0.5)
            with pytest.raises(RemoteError, match=r"did not answer within 0\.5 s"):
                load_policy(url, remote=options).plan(
                    {"images.front": torch.zeros(10, 2, 1000, 1000, 3, dtype=torch.uint8)}
                )
        finally:
            over.set()
            thread.join()


def test_more_than_a_message_may_hold_is_not_sent(monkeypatch):
    with served(make(DDIM)) as url:
        remote = load_policy(url)
        monkeypatch.setattr(message, "MAX_BYTES", 3000)
        assert remote.plan(obs(4)).shape == (4, 1, 8, 3)
        with pytest.raises(MessageError, match="at most 3000 are sent"):
            remote.plan(obs(4), n=9)


def test_a_server_with_a_token(tmp_path, monkeypatch):
    with served(make(DDIM), token="open-sesame") as url:
        monkeypatch.delenv("ROBOPOL_TOKEN", raising=False)
        with pytest.raises(RemoteError, match="refuses the token: put the right one into ROBOPOL_TOKEN"):
            load_policy(url)
        monkeypatch.setenv("ROBOPOL_TOKEN", "guess")
        with pytest.raises(RemoteError, match="refuses the token"):
            load_policy(url)
        monkeypatch.setenv("ROBOPOL_TOKEN", "open-sesame")
        remote = load_policy(url)
        assert remote.plan(obs(1)).shape == (1, 1, 8, 3)
        save_part(remote, tmp_path)
        assert not any(b"sesame" in file.read_bytes() for file in tmp_path.iterdir())
        monkeypatch.setenv("ROBOPOL_TOKEN", "guess")
        (tmp_path / "token").write_text("open-sesame\n")
        assert load_policy(url, remote=RemoteOptions(token_file=str(tmp_path / "token"))).spec == remote.spec
        with pytest.raises(ConfigError, match="cannot be read"):
            load_policy(url, remote=RemoteOptions(token_file=str(tmp_path / "none")))
        monkeypatch.setenv("ROBOPOL_TOKEN", "a\r\nb: c")
        with pytest.raises(ConfigError, match="HTTP cannot carry"):
            load_policy(url)


@pytest.mark.parametrize(
    "url",
    ["http://x:1", "ws://", "ws://h:99999", "x", "ws://user:secret@h:1", "ws://h:1/?token=secret", "ws://h:1/#secret"],
)
def test_wrong_addresses_are_refused_in_words(url):
    with pytest.raises(ConfigError, match="an address"):
        parse(RemoteConfig, {"kind": "remote", "url": url})


# ------------------------------------------------------------------------------------------------- as a policy


def test_saved_it_is_an_address(tmp_path):
    policy = make(DDIM)
    with served(policy) as url:
        save_part(load_policy(url), tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["policy"]["url"] == url
        again = load_folder(tmp_path)
        assert torch.equal(again.plan(obs(16), 1, seeded(range(16))), policy.plan(obs(16), 1, seeded(range(16))))
    other = make(DDIM)
    other.spec = other.spec.model_copy(update={"control_hz": 20.0})
    again.close()
    config = again.config
    with served(other) as url:
        changed = config.model_copy(update={"url": url}).build(policy.spec)
        with pytest.raises(RemoteError, match="another one than was agreed on"):
            changed.plan(obs(1))
    with serving(PlainServer(dict)) as url:
        changed = config.model_copy(update={"url": url}).build(policy.spec)
        with pytest.raises(RemoteError, match="another one than was agreed on"):
            changed.plan(obs(1))


def test_it_cannot_be_trained_exported_or_walked_otherwise(reacher, capsys):
    with served(reacher) as url:
        remote = load_policy(url)
        with pytest.raises(ConfigError, match="train it where it is served"):
            remote.loss(batch(1))
        with pytest.raises(ConfigError, match="train it where it is served"):
            remote.fit_normalizers(episodes())
        assert cli.run(["eval", f"checkpoint={url}", "env=reach", "policy.steps=3"]) == 1
        assert "a remote policy does not walk from noise" in capsys.readouterr().err
        with pytest.raises(ConfigError, match="a remote policy is not trained here"):
            spec_for(remote.config, {"demos": episodes()}, None)
        with pytest.raises(ConfigError, match="nothing here to export: a policy that is served elsewhere"):
            trace(remote, 1)


@pytest.fixture(scope="module")
def reacher():
    """An untrained policy for Reach, a step of it within the box."""
    with make_env(REACH) as env:
        world = env.spec
    tree = {"kind": "diffusion", "net": {"kind": "mlp", "width": 32}, "sampler": {"kind": "ddim", "steps": 2}}
    size = {"n_obs_steps": 2, "horizon": 8, "n_action_steps": 4}
    spec = {
        "obs_shapes": {"state": list(world.obs_shapes["state"])},
        "action_names": list(world.action_names),
        "action_low": world.action_low,
        "action_high": world.action_high,
        "action_space": world.action_space,
        "control_hz": world.control_hz,
        **size,
    }
    torch.manual_seed(0)
    policy = parse(lookup("policy", "diffusion"), tree | size).build(parse(PolicySpec, spec))
    policy.observation.fit({"state": torch.randn(50, *world.obs_shapes["state"])})
    policy.action_normalizer.fit(torch.tensor([world.action_low, world.action_high]))
    return policy.eval()


@pytest.mark.parametrize("execution", ["receding_horizon", "temporal_ensemble", "open_loop"])
def test_an_episode_goes_as_it_would_go_here(reacher, execution):
    config = parse(lookup("executor", execution), {"kind": execution, "latency": 1})
    with served(reacher) as url, make_env(REACH, 3, max_episode_steps=12) as env:
        here, there = (evaluate(policy, env, 4, execution=config) for policy in (reacher, load_policy(url)))
    assert here.outcomes == there.outcomes
    assert here.execution.plans == there.execution.plans


def test_evaluated_and_recorded_from_the_command_line(reacher, tmp_path, capsys):
    short = ["env=reach", "env.options.max_episode_steps=10"]
    with served(reacher) as url:
        assert cli.run(["eval", f"checkpoint={url}", *short, "episodes=3", f"out={tmp_path / 'there.json'}"]) == 0
        words = ["collect", f"checkpoint={url}", *short, "episodes=2", "keep=all", f"out={tmp_path / 'there.hdf5'}"]
        assert cli.run(words) == 0
        assert cli.run(["eval", f"checkpoint={url}"]) == 1
        assert "does not say which world it is for" in capsys.readouterr().err
    with make_env(REACH, max_episode_steps=10) as env:
        here = evaluate(reacher, env, 3).tree()
    assert here["outcomes"] == json.loads((tmp_path / "there.json").read_text())["outcomes"]
    assert load_episodes(tmp_path / "there.hdf5").lengths.tolist() == [10, 10]

    def infer(request):
        assert request["prompt"] == "reach the ball"
        return {"actions": np.zeros((6, 5), np.float32) + request["observation/state"].mean()}

    server = PlainServer(infer)
    with serving(server) as url:
        words = ["remote.horizon=6", "remote.keys={state: observation/state}", "remote.extra={prompt: reach the ball}"]
        words += ["execution.n_action_steps=3", "episodes=1", "num_envs=1", f"out={tmp_path / 'plain.json'}"]
        with pytest.warns(SeedWarning):
            assert cli.run(["eval", f"checkpoint={url}", *short, *words]) == 0
    assert json.loads((tmp_path / "plain.json").read_text())["execution"]["plans"] == 4
    assert len(server.asked) == 4, "one that takes one row at a time is asked for no copies"


def test_what_is_no_policy_is_refused_in_words(tmp_path):
    for address in ("grpc://127.0.0.1:8080", "http://127.0.0.1"):
        with pytest.raises(ConfigError, match="LeRobot's own server sends pickles"):
            load_policy(address)
    with pytest.raises(ConfigError, match=r"tells about a server, and .* is none"):
        load_policy(tmp_path, remote=RemoteOptions(horizon=3))
    with pytest.raises(CheckpointError, match="has no policy in it"):
        load_policy(tmp_path)
