"""Other weights in the place of those that are served: tried in between, and never under a client's hands."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import torch
from policies.test_policies import POLICIES, episodes, make, obs

from robopol.checkpoint import save_part
from robopol.commands.acting import ActingCommand
from robopol.config import parse
from robopol.data import save_episodes
from robopol.errors import ConfigError, RemoteError, RobopolError
from robopol.loading import load_policy
from robopol.networks.precision import RuntimeConfig
from robopol.serving import Served, Server, swap

KIND = {**POLICIES["diffusion-mlp"], "sampler": {"kind": "ddim", "steps": 2}}
WIDE = {"action_low": (-30.0,) * 3, "action_high": (30.0,) * 3}


def weights(shift=0.0, **changes):
    """Return a policy whose plans for the same noise are others the larger the shift is, for a box that holds them."""
    policy = make(KIND)
    policy.spec = policy.spec.model_copy(update=WIDE | changes)
    policy.action_normalizer.offset += shift
    return policy


def seeded(count):
    return [torch.Generator().manual_seed(i) for i in range(count)]


@contextmanager
def serving(policy):
    with Server(Served(policy, 16, 8)) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr("robopol.evaluation.fitness.ROWS", 8)


def test_who_comes_after_a_swap_gets_the_new_weights_and_who_was_there_keeps_the_old_ones():
    old, new = weights(), weights(0.5)
    before, after = (policy.plan(obs(2), 1, seeded(2)) for policy in (old, new))
    with serving(old) as server:
        first, plan, asked = load_policy(server.url), new.plan, []

        def meanwhile(*args):
            """While the new policy is tried, a client may ask, and waits for one plan at most."""
            if len(asked) == 3:
                client.start()
            asked.append(len(answers))
            return plan(*args)

        answers, new.plan = [], meanwhile
        client = threading.Thread(target=lambda: answers.append(first.plan(obs(2), 1, seeded(2))))
        assert swap(server, lambda: new, episodes) == new.fingerprint().hex()
        assert len(asked) > 8
        client.join()
        assert torch.equal(first.plan(obs(2), 1, seeded(2)), before)
        assert len(answers) == 1
        assert torch.equal(answers[0], before)
        second = load_policy(server.url)
        assert torch.equal(second.plan(obs(2), 1, seeded(2)), after)
        assert second.fingerprint() != first.fingerprint()
        # one whose connection breaks is not given other weights without a word
        first.close()
        with pytest.raises(RemoteError, match="has other weights than before"):
            first.plan(obs(2))


REFUSED = {
    "another rate": (lambda: weights(0.5, control_hz=20.0), "control_hz: 20.0 instead of 10.0"),
    "another box": (lambda: weights(0.5, action_low=(-29.0,) * 3), "action_low"),
    "the same": (weights, "served already"),
    "no numbers": (lambda: weights(float("nan")), "100% of its plans .* as not finite"),
    "far away": (lambda: weights(1000.0), "beyond"),
    "no file": (lambda: load_policy("/nowhere"), "/nowhere"),
}


def test_what_is_not_fit_is_refused_in_words_and_the_old_weights_go_on(monkeypatch):
    old = weights()
    before = old.plan(obs(2), 1, seeded(2))
    with serving(old) as server:
        client = load_policy(server.url)
        for load, words in REFUSED.values():
            with pytest.raises(RobopolError, match=words):
                swap(server, load, episodes)
        monkeypatch.setattr("robopol.serving.swapping.in_time", lambda *_: 0.0)
        with pytest.raises(ConfigError, match="99 of 100 plans take up to"):
            swap(server, lambda: weights(0.5), episodes)
        assert server.served.policy is old
        assert torch.equal(client.plan(obs(2), 1, seeded(2)), before)


def test_weights_that_are_loaded_beside_a_server_leave_the_arithmetic_of_the_process_alone(tmp_path, monkeypatch):
    save_part(weights(), tmp_path)
    monkeypatch.setattr(RuntimeConfig, "build", None)  # it would measure, and set what everybody computes with
    policy = parse(ActingCommand, {}).load(str(tmp_path), device="cpu")
    assert torch.equal(policy.plan(obs(2), 1, seeded(2)), weights().plan(obs(2), 1, seeded(2)))


@pytest.mark.slow
def test_by_a_signal_to_the_program(tmp_path):
    (tmp_path / "policy").mkdir()
    save_part(weights(), tmp_path / "policy")
    save_episodes(episodes(), tmp_path / "trials.hdf5")
    words = [sys.executable, "-m", "robopol.cli", "serve", f"checkpoint={tmp_path / 'policy'}", "port=0", "device=cpu"]
    words.append(f"trials={tmp_path / 'trials.hdf5'}")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as one:
        try:
            url = one.stdout.readline().strip()
            assert f"kill -USR1 {one.pid}" in one.stdout.readline()
            first = load_policy(url)
            before = first.plan(obs(2), 1, seeded(2))
            one.send_signal(signal.SIGUSR1)
            assert "served already" in one.stdout.readline()
            assert torch.equal(first.plan(obs(2), 1, seeded(2)), before)
            save_part(weights(0.5), tmp_path / "policy")
            one.send_signal(signal.SIGUSR1)
            assert "serves other weights" in one.stdout.readline()
            assert torch.equal(first.plan(obs(2), 1, seeded(2)), before)
            assert not torch.equal(load_policy(url).plan(obs(2), 1, seeded(2)), before)
            one.send_signal(signal.SIGTERM)
            assert one.wait(60) == 0
        finally:
            one.kill()
