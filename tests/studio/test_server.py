"""The server: for whoever has the token, one clear answer to each request, one thing after the other."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from studio.point import policy_for, world

from robopol import cli
from robopol.checkpoint import save_part
from robopol.errors import ConfigError
from robopol.studio import Session, Studio, Wish
from robopol.studio.server import MAX_BYTES

WISH = {"point": [0.8, 0.0], "strength": 20, "discs": [{"centre": [0.3, 0.3], "radius": 0.1}]}


@contextmanager
def serving(session: Session) -> Iterator[Studio]:
    with Studio(session) as studio:
        thread = threading.Thread(target=studio.run)
        thread.start()
        try:
            yield studio
        finally:
            studio.stop()
            thread.join()


@pytest.fixture
def studio():
    env = world()
    with serving(Session(policy_for(env), env, plans=4, seed=3)) as found:
        yield found


def ask(studio: Studio, path: str, tree: object = None, **headers: str):
    """Return status and answer; without a tree it is a GET."""
    body = tree if tree is None or isinstance(tree, bytes) else json.dumps(tree).encode()
    sent = {"Authorization": f"Bearer {studio.token}", "Content-Type": "application/json"} | headers
    request = Request(studio.url.partition("/?")[0] + path, data=body, headers=sent)
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def test_an_episode_over_http(studio):
    status, facts = ask(studio, "/facts")
    assert (status, facts["world"], facts["n_action_steps"]) == (200, "robopol/MultiGoal-v0", 4)
    begun = ask(studio, "/scene")[1]
    assert (begun["seed"], begun["step"]) == (3, 0)
    plans = ask(studio, "/plan", {"wish": WISH})[1]
    assert len(plans["base"]) == len(plans["steered"]) == 4
    assert "steering=" in plans["command"]
    assert ask(studio, "/plan", {"wish": WISH})[1] == plans
    assert ask(studio, "/plan", {"wish": {}})[1]["steered"] is None
    moved = ask(studio, "/execute", {"wish": WISH})[1]
    assert (moved["step"], len(moved["trail"])) == (4, 5)
    assert ask(studio, "/execute", {"wish": WISH, "which": "base"})[1]["step"] == 8
    assert ask(studio, "/reset", {})[1]["seed"] == 4
    assert ask(studio, "/reset", {"seed": 3})[1] == begun
    assert ask(studio, "/plan", {"wish": WISH})[1] == plans


def test_the_page_is_whole_and_for_whoever_has_the_token(studio):
    with urlopen(studio.url, timeout=60) as answer:
        page, headers = answer.read().decode(), answer.headers
    assert page.startswith("<!DOCTYPE html>")
    assert "http:" not in page
    assert "https:" not in page
    assert studio.token not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert studio.server_address[0] == "127.0.0.1"
    for url in (studio.url[:-1], studio.url.partition("?")[0]):
        with pytest.raises(HTTPError, match="403"):
            urlopen(url, timeout=60)


@pytest.mark.parametrize(
    ("path", "tree", "headers", "status", "text"),
    [
        ("/scene", None, {"Authorization": ""}, 403, "token"),
        ("/plan", {"wish": {}}, {"Authorization": "Bearer x"}, 403, "token"),
        ("/elsewhere", None, {}, 404, "no GET /elsewhere"),
        ("/plan", None, {}, 404, "no GET /plan"),
        ("/scene", {}, {}, 404, "no POST /scene"),
        ("/plan", {"wish": {}}, {"Content-Type": "text/plain"}, 415, "text/plain"),
        ("/plan", b" " * (MAX_BYTES + 1), {}, 413, f"{MAX_BYTES} are the most"),
        ("/plan", b"{", {}, 400, "no JSON"),
        ("/plan", b"[" * 60_000, {}, 400, "no JSON"),
        ("/plan", b'{"wish": {"strength": NaN}}', {}, 400, "NaN is no number"),
        ("/plan", b'{"wish": {"point": [1e999, 0]}}', {}, 400, "wish.point"),
        ("/plan", b"\xff", {}, 400, "no JSON"),
        ("/plan", [], {}, 400, "an object, got list"),
        ("/plan", {}, {}, 400, "missing key: wish"),
        ("/plan", {"wish": {"strenght": 1}}, {}, 400, "did you mean strength"),
        ("/plan", {"wish": {"point": [1, 2, 3]}}, {}, 400, "wish.point"),
        ("/plan", {"wish": {"proposals": 1000}}, {}, 400, "wish.proposals"),
        ("/plan", {"wish": {"discs": [{"centre": [0, 0], "radius": -1}]}}, {}, 400, "radius"),
        ("/plan", {"wish": {"discs": [{"centre": [0], "radius": 1}]}}, {}, 400, "2 numbers, got 1"),
        ("/plan", {"wish": {"line": [[0, 0]]}}, {}, 400, "2 points or more"),
        ("/execute", {"wish": {}, "which": "other"}, {}, 400, "which"),
        ("/reset", {"seed": -1}, {}, 400, "seed"),
    ],
)
def test_bad_requests_get_one_clear_error_and_change_nothing(studio, path, tree, headers, status, text):
    before = ask(studio, "/scene")
    came, told = ask(studio, path, tree, **headers)
    assert came == status
    assert list(told) == ["error"]
    assert text in told["error"]
    assert ask(studio, "/scene") == before


def test_a_request_without_a_length_is_refused(studio):
    connection = http.client.HTTPConnection(*studio.server_address, timeout=60)
    connection.putrequest("POST", "/plan")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    assert connection.getresponse().status == 411


def test_what_cannot_be_done_is_said(studio):
    while not ask(studio, "/execute", {"wish": {}})[1]["over"]:
        pass
    assert ask(studio, "/execute", {"wish": {}}) == (400, {"error": "the episode is over: reset it"})


def test_a_fault_within_is_told_and_survived(studio, monkeypatch, capsys):
    monkeypatch.setattr(studio.session, "scene", lambda: 1 / 0)
    status, told = ask(studio, "/scene")
    assert status == 500
    assert "ZeroDivisionError" in told["error"]
    assert "Traceback" in capsys.readouterr().err
    assert ask(studio, "/facts")[0] == 200


def test_requests_at_once_are_answered_one_after_the_other(studio):
    steps = []
    threads = [
        threading.Thread(target=lambda: steps.append(ask(studio, "/execute", {"wish": WISH})[1]["step"]))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(steps) == [4, 8, 12, 16, 20, 24]


def test_a_port_that_is_taken_is_named(studio):
    with pytest.raises(ConfigError, match="say port=0"):
        Studio(studio.session, studio.server_address[1])


def test_the_verb(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "policy"
    folder.mkdir()
    save_part(policy_for(world(), std=None), folder)
    told = []

    def interrupted(studio: Studio) -> None:
        told.append(studio.session.plan(Wish(point=(0.1, 0.2))))
        raise KeyboardInterrupt

    monkeypatch.setattr(Studio, "run", interrupted)
    words = [f"checkpoint={folder}", "policy.steps=5"]
    assert cli.run(["steer", *words, "port=0", "seed=5", "plans=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("http://127.0.0.1:")
    assert lines[-1] == "ended"
    assert len(told[0].steered) == 2
    assert told[0].command.startswith(f"robopol eval checkpoint={folder} policy.steps=5 'steering=[{{kind: guide, ")
    assert cli.run(["steer", *words, "motion={actions: [0], means: absolute}"]) == 1
    assert "give it 2" in capsys.readouterr().err
