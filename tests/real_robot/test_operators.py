"""The devices themselves: what keys mean and when, the tool led straight, what is refused, what is imported."""

import os
import pty
import subprocess
import sys
import termios

import numpy as np
import pytest
from led import Typist, operator_of
from lockstep import MS, Bench, robot
from test_rehearsal import ur5e

from robopol import cli
from robopol.envs.kinematics import HOME, ToolKinematics
from robopol.errors import ConfigError, RobotError
from robopol.real_robot.clock import VirtualClock
from robopol.real_robot.driver import Driver
from robopol.real_robot.drivers.swaying import SwayingConfig
from robopol.real_robot.operators.jog import jog_of
from robopol.real_robot.operators.keyboard import COMMANDS, HELP
from robopol.real_robot.operators.keys import Keys, Terminal, typed_at
from robopol.real_robot.placing import modelled
from robopol.real_robot.states import Command

TARGET = np.zeros(6)


def test_a_key_that_repeats_is_let_go_soon_and_one_that_was_tapped_late():
    keys = Keys(delay=0.6, patience=0.15)
    assert keys.hear(b"w", 0) == ["w"]
    assert keys.moving(140 * MS) == "w"
    assert keys.moving(160 * MS) == ""  # it moves no further before it repeats
    assert keys.held(590 * MS)
    assert not keys.held(610 * MS)
    for t in range(500, 1000, 30):
        assert keys.hear(b"w", t * MS) == []
    assert keys.moving(1100 * MS) == "w"
    assert keys.held(1100 * MS)
    assert not keys.held(1150 * MS)
    assert keys.moving(1150 * MS) == ""
    assert keys.hear(b"ww", 3000 * MS) == ["w"]


def test_arrows_and_letters_of_other_scripts_are_no_commands():
    keys = Keys(0.6, 0.15)
    assert keys.hear(b"\x1b[A\x1b[1;5Cw\x1bOQ\x1b[[A", 0) == ["w"]
    assert keys.hear(b"\x1b", MS) == []
    assert keys.hear(b"[", 2 * MS) == []  # a sequence that comes in pieces
    assert keys.hear(b"A", 3 * MS) == []
    assert keys.hear("é".encode() + b"T", 4 * MS) == ["T"]


@pytest.mark.parametrize("before", [b"\x1b", b"\x1b[", b"\x1bO", b"\x1b[1"])
def test_an_escape_swallows_no_word_that_comes_after_it(before):
    """Abort, hold and stop, of which each may be the last that is said in time."""
    for word in "!HP":
        keys = Keys(0.6, 0.15)
        assert keys.hear(before, 0) == []
        for t in (20, 40, 60):
            assert keys.hear(b"", t * MS) == []
        assert keys.hear(word.encode(), 80 * MS) == [word]
        assert keys.held(81 * MS)
    assert Keys(0.6, 0.15).hear(b"\x1b!", 0) == ["!"]  # read at once, after a stall


def test_a_terminal_is_given_back_as_it_was():
    main, side = pty.openpty()
    before = termios.tcgetattr(side)
    terminal = Terminal(side)
    during = termios.tcgetattr(side)
    assert not during[3] & (termios.ICANON | termios.ECHO)
    assert during[3] & termios.ISIG  # Ctrl-C stays what it is
    os.write(main, b"wT")
    assert typed_at(side) == b"wT"
    assert typed_at(side) == b""
    terminal.close()
    terminal.close()
    assert termios.tcgetattr(side) == before
    os.close(main)
    os.close(side)


def test_a_terminal_that_is_gone_stops_the_arm():
    bench, words = Bench.__new__(Bench), [b"w", None, None]
    bench.robot, bench.clock = robot(), VirtualClock(MS)
    keyboard = operator_of("keyboard", bench, lambda: words.pop(0))
    assert keyboard.listen(TARGET).held
    said = keyboard.listen(TARGET)
    assert said.orders == ((Command.QUIT, 0),)
    assert not said.held
    assert keyboard.listen(TARGET).orders == ()


def test_keys_of_joints_and_commands():
    bench = Bench.__new__(Bench)
    bench.robot, bench.clock = robot(), VirtualClock(MS)
    typist = Typist(bench.clock)
    keyboard = operator_of({"kind": "keyboard", "turn": 0.4}, bench, typist.typed)
    assert "w/s shoulder_pan, a/d shoulder_lift" in keyboard.connect()
    typist.hold("d")
    bench.clock.t += 20 * MS
    said = keyboard.listen(TARGET)
    np.testing.assert_allclose(said.move, [0, -0.4 * 0.02, 0, 0, 0, 0])
    assert said.orders == ()
    typist.hold("")
    typist.tap("oS")
    assert keyboard.listen(TARGET).orders == ((Command.STOP, 2),)
    assert all(f"{key} " in HELP for key in COMMANDS)
    assert not {key for key in COMMANDS if key.islower()}


def test_the_tool_is_led_straight_and_stays_upright(tmp_path):
    made = modelled(ur5e(), tmp_path)
    jog, kinematics = jog_of(made, "tool"), ToolKinematics()
    assert [name for name, _ in jog.axes] == ["x", "y", "z", "yaw", "gripper"]
    target = np.append(HOME, 0.5)
    start, turned = kinematics.forward(HOME)
    yaw = kinematics.pose(HOME)[3]
    for _ in range(100):
        target = target + jog.move(target, np.array([0.002, -0.001, 0.0005, 0.004, -0.001]))
    place, rotation = kinematics.forward(target[:6])
    np.testing.assert_allclose(place - start, [0.2, -0.1, 0.05], atol=1e-3)
    np.testing.assert_allclose(rotation[:, 2], turned[:, 2], atol=2e-3)
    assert kinematics.pose(target[:6])[3] - yaw == pytest.approx(0.4, abs=5e-3)
    assert target[6] == pytest.approx(0.4)


def test_what_cannot_be_is_refused_in_words(tmp_path):
    bench = Bench.__new__(Bench)
    bench.robot, bench.clock = robot(), VirtualClock(MS)
    four = {"kind": "leader", "driver": {"kind": "swaying", "joints": 4}}
    with pytest.raises(RobotError, match="has 4 joints, so101 has 5"):
        operator_of(four, bench).connect()
    with pytest.raises(RobotError, match="no gamepad at /nowhere"):
        operator_of({"kind": "gamepad", "device": "/nowhere"}, bench).connect()
    for tree, text in (
        (four | {"scale": {"shoulder": 1.0}}, "names 'shoulder'"),
        ({"kind": "gamepad", "switch": 7}, "two meanings"),
        ({"kind": "gamepad", "buttons": {"stop": 2}}, r"unknown key: operator.buttons.stop.* has take, give, hold"),
        ({"kind": "gamepad", "buttons": {"take": 6}}, "two meanings"),
        ({"kind": "mouse"}, "unknown operator 'mouse'"),
    ):
        with pytest.raises(ConfigError, match=text):
            operator_of(tree, bench)
    bench.robot = modelled(ur5e(), tmp_path)
    with pytest.raises(ConfigError, match="hand"):
        operator_of({"kind": "keyboard", "site": "hand"}, bench)
    with pytest.raises(RobotError, match="follows nothing"):
        SwayingConfig().build(bench.clock, 0.01).arm()
    with pytest.raises(RobotError, match="led by hand"):
        Driver.relax(SwayingConfig().build(bench.clock, 0.01))


def test_the_process_of_a_device_needs_no_torch(capsys):
    code = (
        "import sys\n"
        "import robopol.real_robot.operator_process\n"
        "from robopol.registry import KINDS, lookup\n"
        "for kind in KINDS['operator']: lookup('operator', kind)\n"
        "assert 'torch' not in sys.modules and 'robopol.envs' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert cli.run(["list", "operator"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"gamepad", "keyboard", "leader"}
