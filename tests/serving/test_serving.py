"""A policy as a server: plans as from the policy itself, for whoever has the token, and clear errors for all else."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from policies.servers import served
from policies.test_message import SIMPLE, TREES
from policies.test_policies import POLICIES, SPEC, make, obs
from steering.known import LinearConfig
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from robopol import cli
from robopol.checkpoint import save_part
from robopol.errors import ConfigError, RemoteError
from robopol.export import load_exported
from robopol.export.export import export
from robopol.loading import load_policy
from robopol.policies import Previous
from robopol.policies.given import Given
from robopol.policies.remote.message import decode, encode
from robopol.serving import Served, Server, server
from robopol.steering import (
    BestOfConfig,
    GuideConfig,
    InnerStepsConfig,
    InpaintingConfig,
    RealTimeChunkingConfig,
    StartNoiseConfig,
    WarmStartConfig,
)

DDIM = {**POLICIES["diffusion-mlp"], "sampler": {"kind": "ddim", "steps": 3}}
NOW = {"state": np.arange(5.0), "aux": np.zeros(2)}
"""What a client of openpi sends."""
GONE = r"closed the connection|cannot be reached"


def seeded(count, first=0):
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


def ask(line, message):
    line.send(message if isinstance(message, bytes | str) else encode(message))
    return line.recv(30)


@pytest.fixture(scope="module")
def policy():
    return make(DDIM)


@pytest.fixture(scope="module")
def url(policy):
    with served(policy, batch=4, proposals=8) as found:
        yield found


@pytest.fixture
def line(url):
    with connect(url, compression=None) as found:
        found.recv(30)
        yield found


# ------------------------------------------------------------------------------------------------------- what it plans


@pytest.mark.parametrize("name", ["diffusion-mlp", "edm-unet", "flow-transformer", "gaussian", "gmm", "meow", "ebt"])
def test_a_plan_is_to_the_bit_that_of_the_policy_of_the_same_noise_or_seeds(name):
    policy, asked = make(POLICIES[name]), []
    with served(policy, asked=asked) as url:
        remote = load_policy(url)
        walks = name.partition("-")[0] in ("diffusion", "edm", "flow")
        assert (remote.noise_shape is not None) == walks
        for n in (1, 3):
            found = remote.plan(obs(16), n, seeded(16))
            generators = seeded(16) if walks else [torch.Generator().manual_seed(int(s)) for s in asked[-1].seeds]
            assert torch.equal(found, policy.plan(obs(16), n, generators))


STEERED = {
    "start_noise": ([StartNoiseConfig(scale=0.3)], True),
    "inner_steps": ([InnerStepsConfig(count=2)], True),
    "guide": ([GuideConfig(objective=LinearConfig(), scale=0.2)], True),
    "best_of": ([BestOfConfig(objective=LinearConfig(), n=4)], False),
    "warm_start": ([WarmStartConfig(steps=1, renoise=True)], False),
    "real_time_chunking": ([RealTimeChunkingConfig(delay=2)], True),
    "inpainting": ([InpaintingConfig(delay=2)], True),
}


@pytest.mark.parametrize("name", STEERED)
def test_a_steered_policy_is_served_with_what_steers_it(policy, name):
    steerings, takes_noise = STEERED[name]
    steered, asked = policy.steered(*steerings), []
    window = policy.plan(obs(1), 1, seeded(1))[0, 0]
    previous = [Previous(window, 2) if row % 2 else None for row in range(16)]
    with served(steered, asked=asked) as url:
        remote = load_policy(url)
        assert (remote.noise_shape is not None) == takes_noise
        goes_on = name in ("warm_start", "real_time_chunking", "inpainting")
        assert remote.goes_on == steered.goes_on == goes_on
        found = remote.plan(obs(16), 2, seeded(16), previous)
        generators = seeded(16) if takes_noise else [torch.Generator().manual_seed(int(s)) for s in asked[-1].seeds]
        assert torch.equal(found, steered.plan(obs(16), 2, generators, previous))
        assert not torch.allclose(found, policy.plan(obs(16), 2, seeded(16)))
        assert (asked[-1].previous is not None) == steered.goes_on
        sooner = [old and old._replace(delay=row % 4 or None) for row, old in enumerate(previous)]
        told = remote.plan(obs(16), 2, seeded(16), sooner)
        generators = seeded(16) if takes_noise else [torch.Generator().manual_seed(int(s)) for s in asked[-1].seeds]
        assert torch.equal(told, steered.plan(obs(16), 2, generators, sooner))
        assert torch.equal(told, found) == (name not in ("real_time_chunking", "inpainting"))


def test_an_exported_policy_is_served(policy, tmp_path):
    recorded = {key: value for key, value in obs(256).items() if key in SPEC["obs_shapes"]}
    export(policy, "torch", tmp_path / "out", recorded, "a test", batch=4)
    artefact = load_exported(tmp_path / "out")
    with served(artefact) as url:
        remote = load_policy(url)
        assert remote.noise_shape == (8, 3)
        assert torch.equal(remote.plan(obs(16), 1, seeded(16)), artefact.plan(obs(16), 1, seeded(16)))


def test_a_served_policy_can_be_served_on(policy, url):
    with served(load_policy(url), batch=4) as second:
        found = load_policy(second).plan(obs(4), 2, seeded(4))
    assert torch.equal(found, policy.plan(obs(4), 2, seeded(4)))


def packed(x):
    """Write an array as openpi's client does."""
    return {b"__ndarray__": True, b"data": x.tobytes(), b"dtype": x.dtype.str, b"shape": x.shape}


def test_a_client_that_knows_nothing_of_robopol_is_answered(policy, url):
    with connect(url, compression=None, max_size=None) as line:
        assert msgpack.unpackb(line.recv(30))["robopol"]["batch"] == 4
        answer = decode(ask(line, msgpack.packb(NOW | {"prompt": "go"}, default=packed)))
        assert answer["actions"].shape == (7, 3)
        assert answer["server_timing"]["infer_ms"] > 0
        noise = torch.randn(1, 1, 8, 3, generator=torch.Generator().manual_seed(5))
        message = {"state": np.arange(10.0).reshape(2, 5), "aux": np.zeros((2, 2)), "noise": noise[0, 0].numpy()}
        answer = decode(ask(line, msgpack.packb(message, default=packed)))
    here = {"state": torch.arange(10.0).reshape(1, 2, 5), "aux": torch.zeros(1, 2, 2)}
    expected = policy.plan(here, 1, Given([noise]))[0, 0].numpy()
    np.testing.assert_array_equal(answer["actions"], expected[1:])
    np.testing.assert_array_equal(answer["past"], expected[:1])


def test_several_clients_are_answered_each_its_own(policy, url):
    def client(number):
        remote = load_policy(url)
        return all(
            torch.equal(remote.plan(obs(4, seed), 2, seeded(4, seed)), policy.plan(obs(4, seed), 2, seeded(4, seed)))
            for seed in range(10 * number, 10 * number + 5)
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(client, range(6)))


# ----------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("hello", "a request is a binary message"),
        (b"\x80\x04\x95garbage", "these 10 bytes are not a message"),
        (b"", "not a message"),
        ({}, "an array 'state' is needed"),
        (NOW | {"state": np.zeros(4)}, r"needed \(5,\)"),
        (NOW | {"state": np.full(5, np.nan)}, "not finite"),
        (NOW | {"n": 9}, "from 1 to 8"),
        ({"state": np.zeros((5, 2, 5)), "aux": np.zeros((5, 2, 2))}, "at most 4 rows"),
        (NOW | {"noise": np.zeros((7, 3), np.float32)}, r"needed float32 \(1, 1, 8, 3\)"),
        (NOW | {"noise": np.zeros((8, 3))}, "the noise is float32"),
    ],
)
def test_a_wrong_request_gets_one_text_and_the_connection_goes_on(line, message, words):
    if words == "the noise is float32":
        message = NOW | {"noise": np.full((8, 3), np.inf, np.float32)}
    answer = ask(line, message)
    assert isinstance(answer, str)
    assert re.search(words, answer), answer
    assert "\n" not in answer
    assert decode(ask(line, NOW))["actions"].shape == (7, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"previous": np.zeros((7, 3))}, r"needed \(1, 8, 3\)"),
        ({"previous": np.full((8, 3), np.inf)}, "all of it finite"),
        ({"passed": 8}, "-1 to 7"),
        ({"passed": [1]}, "'passed' is <U1"),
        ({"passed": np.zeros(2, np.int64)}, r"needed int64 \(1,\)"),
        ({"passed": ...}, "'passed' is"),
        ({"delay": 9}, r"'delay' is int64 \(1,\), needed int64 \(1,\), -1 to 8"),
    ],
)
def test_a_wrong_last_plan_is_refused_in_words(policy, change, words):
    message = NOW | {"previous": np.zeros((8, 3), np.float32), "passed": 2} | change
    with served(policy.steered(WarmStartConfig(steps=1))) as url, connect(url, compression=None) as line:
        line.recv(30)
        answer = ask(line, {key: value for key, value in message.items() if value is not ...})
        assert isinstance(answer, str)
        assert re.search(words, answer), answer
        good = NOW | {"previous": np.zeros((8, 3), np.float32), "passed": 2}
        assert decode(ask(line, good))["actions"].shape == (7, 3)


NAMED = st.dictionaries(
    st.sampled_from(["state", "aux", "n", "noise", "seeds", "previous", "passed", "delay"]),
    SIMPLE | st.sampled_from([np.zeros(s, d) for s in ((), (5,), (2, 5), (1, 2, 5), (2,)) for d in ("f4", "i8")]),
)


@settings(max_examples=100)
@given(bad=st.binary(max_size=200) | st.text(max_size=50) | (TREES | NAMED).map(encode))
def test_garbage_is_answered_and_does_no_harm(fuzzed, bad):
    line, expected = fuzzed
    line.send(bad)
    answer = line.recv(30)
    assert isinstance(answer, str) or decode(answer)["actions"].shape[-2:] == (7, 3)
    assert decode(ask(line, NOW | {"noise": np.zeros((8, 3), np.float32)}))["actions"].tolist() == expected


@pytest.fixture(scope="module")
def fuzzed(policy):
    with served(policy) as url, connect(url, compression=None) as line:
        line.recv(30)
        yield line, decode(ask(line, NOW | {"noise": np.zeros((8, 3), np.float32)}))["actions"].tolist()


def test_a_message_that_is_too_long_closes_its_connection_and_no_other(policy, monkeypatch):
    monkeypatch.setattr(server, "MAX_BYTES", 2000)
    with served(policy) as url, connect(url, compression=None) as other:
        other.recv(30)
        with connect(url, compression=None) as line:
            line.recv(30)
            with pytest.raises(ConnectionClosed, match="1009"):
                ask(line, b"\x00" * 2001)
        assert decode(ask(other, NOW))["actions"].shape == (7, 3)


def test_whoever_does_not_have_the_token_gets_nothing(policy):
    with served(policy, token="open-sesame") as url:
        for headers in ({}, {"Authorization": "Api-Key open-sesamf"}, {"Authorization": "open-sesame"}):
            with pytest.raises(InvalidStatus) as refused:
                connect(url, additional_headers=headers)
            assert refused.value.response.status_code == 401
        twice = [("Authorization", "Api-Key open-sesame"), ("Authorization", "Api-Key x")]
        with pytest.raises(InvalidStatus, match="401"):
            connect(url, additional_headers=twice)
        with connect(url, additional_headers={"Authorization": "Api-Key open-sesame"}) as line:
            assert "robopol" in decode(line.recv(30))


def test_a_page_in_a_browser_is_refused(url):
    with pytest.raises(InvalidStatus, match="403"):
        connect(url, origin="http://evil.example")


def test_other_machines_need_a_token(policy):
    found = Served(policy, 16, 1)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", ""):
        with pytest.raises(ConfigError, match="ROBOPOL_TOKEN"):
            Server(found, host)
    with served(policy, host="0.0.0.0", token="open-sesame") as url, pytest.raises(InvalidStatus, match="401"):
        connect(url.replace("0.0.0.0", "127.0.0.1"))
    with Server(found) as first, pytest.raises(ConfigError, match="cannot be listened at"):
        Server(found, port=int(first.url.rpartition(":")[2]))


def test_more_clients_than_are_served_are_told_so(policy):
    with served(policy, clients=1) as url:
        with connect(url, compression=None) as line:
            line.recv(30)
            with pytest.raises(InvalidStatus, match="503"):
                connect(url)
        for _ in range(100):  # the first one's place is free as soon as its thread is done
            try:
                with connect(url) as line:
                    assert line.recv(30)
                break
            except (InvalidHandshake, ConnectionClosed):
                time.sleep(0.02)
        else:
            pytest.fail("the place of a client that left is not given to another")


# --------------------------------------------------------------------------------------------------- when things break


class Gate:
    """Lets a policy wait within its plan."""

    def __init__(self, policy):
        self.inside, self.open = threading.Event(), threading.Event()
        self.plan = policy.plan

    def __call__(self, *args):
        self.inside.set()
        assert self.open.wait(30)
        return self.plan(*args)


def test_what_was_asked_before_the_end_is_answered_and_then_all_are_told(monkeypatch):
    policy = make(DDIM)
    expected = policy.plan(obs(2), 1, seeded(2))
    found = Served(policy, 16, 8)
    gate = Gate(policy)
    monkeypatch.setattr(policy, "plan", gate)
    with Server(found) as serving:
        thread = threading.Thread(target=serving.run)
        thread.start()
        remote, idle = load_policy(serving.url), load_policy(serving.url)
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(remote.plan, obs(2), 1, seeded(2))
            assert gate.inside.wait(30)
            serving.stop()
            gate.open.set()
            assert torch.equal(answer.result(), expected)
        thread.join()
        for one in (remote, idle):
            with pytest.raises(RemoteError, match=GONE):
                one.plan(obs(2))


def test_a_client_that_leaves_in_the_middle_of_a_plan_is_not_missed(monkeypatch):
    policy = make(DDIM)
    with served(policy) as url:
        gate = Gate(policy)
        monkeypatch.setattr(policy, "plan", gate)
        with connect(url, compression=None) as line:
            line.recv(30)
            line.send(encode(NOW))
            assert gate.inside.wait(30)
            line.socket.shutdown(socket.SHUT_RDWR)
        gate.open.set()
        assert load_policy(url).plan(obs(2)).shape == (2, 1, 8, 3)


def test_a_fault_of_the_policy_is_told_and_the_next_plan_is_made(monkeypatch, capsys):
    policy = make(DDIM)
    with served(policy) as url:
        remote, plan = load_policy(url), policy.plan
        monkeypatch.setattr(policy, "plan", lambda *args: 1 / 0)
        with pytest.raises(RemoteError, match="failed: an error within robopol: ZeroDivisionError"):
            remote.plan(obs(2))
        monkeypatch.setattr(policy, "plan", plan)
        assert remote.plan(obs(2)).shape == (2, 1, 8, 3)
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_from_the_command_line_until_it_is_ended_or_killed(policy, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBOPOL_TOKEN", "open-sesame")
    save_part(policy, tmp_path)
    assert cli.run(["serve", f"checkpoint={tmp_path}", "policy.sampler=nothing"]) == 1
    assert "nothing" in capsys.readouterr().err
    words = [sys.executable, "-m", "robopol.cli", "serve", f"checkpoint={tmp_path}", "port=0", "device=cpu"]
    words += ["steering={kind: start_noise, scale: 0.5}", "policy.steps=2"]
    here = load_policy(tmp_path).steered(StartNoiseConfig(scale=0.5))
    here.inner().resample(here.inner().config.sampler.model_copy(update={"steps": 2}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ends = ((signal.SIGTERM, 0, "ended\n"), (signal.SIGKILL, -signal.SIGKILL, ""))
    with ExitStack() as opened:
        started = []
        for _ in ends:
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
            started.append(opened.enter_context(process))
            opened.callback(process.kill)
        for process, (number, status, said) in zip(started, ends, strict=True):
            url = process.stdout.readline().strip()
            assert process.stdout.readline().startswith("serves ")
            remote = load_policy(url)
            assert torch.equal(remote.plan(obs(16), 1, seeded(16)), here.plan(obs(16), 1, seeded(16)))
            process.send_signal(number)
            assert process.wait(120) == status
            assert process.stdout.read() == said
            with pytest.raises(RemoteError, match=GONE):
                remote.plan(obs(1))
