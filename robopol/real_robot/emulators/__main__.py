"""Run an emulated arm: ``python -m robopol.real_robot.emulators feetech``, and others; ``--help`` says the rest."""

import argparse
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robopol.errors import RobotError
from robopol.real_robot.clock import MonotonicClock
from robopol.real_robot.emulators import models
from robopol.real_robot.emulators.arm import Arm
from robopol.real_robot.emulators.bus import TICK, calibration_of
from robopol.real_robot.emulators.dynamixel import DynamixelBus
from robopol.real_robot.emulators.faults import Faults
from robopol.real_robot.emulators.feetech import FeetechBus
from robopol.real_robot.emulators.oracle import Oracle
from robopol.real_robot.emulators.pace import Pace
from robopol.real_robot.emulators.ur import Controller
from robopol.real_robot.emulators.ur_server import URServer
from robopol.real_robot.emulators.wire import Latency, RealTimeLine

BUSES = {"feetech": FeetechBus, "dynamixel": DynamixelBus}


def main(arguments: list[str]) -> int:
    """Emulate an arm until the input ends; each line of it turns a fault's knob, such as ``drop=0.05``.

    Args:
        arguments: Words of the command line.

    Returns:
        The exit status: 1 if goals were outside the declared limits.
    """
    options = _options().parse_args(arguments)
    if options.arm == "model":
        print(models.read(options.name))
        return 0
    clock, faults = MonotonicClock(), Faults()
    ur = options.arm == "ur"
    arm = Arm(models.read(options.model or ("ur5e" if ur else "so101")), clock.now(), 6 if ur else None)
    tick = TICK if options.arm in BUSES else 0.0
    n = len(arm.names)
    speed, accel = np.full(n, options.max_speed), np.full(n, options.max_accel)
    try:
        oracle = (
            Oracle(arm.low, arm.high, speed, accel, tick, options.period)
            if options.limits is None
            else Oracle.read(options.limits, tick, n)
        )
    except RobotError as error:
        print(error, file=sys.stderr)
        return 2
    running = threading.Event()
    running.set()
    more: Callable[[str], str | None] | None = None
    if ur:
        server = URServer(Controller(arm, oracle, faults), options.host)
        print(f"a UR controller at {server.host}", flush=True)
        pace = Pace(server)
        more, thread = pace.obey, threading.Thread(target=pace.serve, args=(running.is_set,))
    else:
        latency = Latency(options.baud, round(options.turnaround * 1e3), round(options.adapter * 1e6))
        bus = BUSES[options.arm](arm, oracle, faults, latency)
        line = RealTimeLine(bus, clock, options.tcp)
        if options.calibration is not None:
            calibration_of(bus, options.arm, options.gripper).save(Path(options.calibration))
        print(f"a {options.arm} bus at {line.address}", flush=True)
        thread = threading.Thread(target=line.serve, args=(running.is_set,))
    thread.start()
    try:
        _obey(faults, oracle, arm, more)
    except KeyboardInterrupt:
        pass
    finally:
        running.clear()
        thread.join()
    print(f"{len(oracle.log)} goals, {oracle.count} outside the declared limits")
    print("\n".join(oracle.violations))
    return 1 if oracle.count else 0


def _obey(faults: Faults, oracle: Oracle, arm: Arm, more: Callable[[str], str | None] | None) -> None:
    """Take lines from the input: those that ``more`` knows, and others that turn a knob.

    ``state`` says where the arm is. ``push 0.1`` turns its first joint so far, rad, and says when, ns; ``moved T`` says
    when after T its goal first was another one.
    """
    for line in sys.stdin:
        if more is not None and (answer := more(line)) is not None:
            print(answer, flush=True)
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "push":
            arm.push(float(rest))
            print(MonotonicClock().now(), flush=True)
            continue
        if word == "moved":
            print(json.dumps(oracle.moved(int(rest))), flush=True)
            continue
        if line.strip() == "state":
            state = {"q": arm.q.tolist(), "dq": arm.dq.tolist(), "goals": len(oracle.log), "outside": oracle.count}
            print(json.dumps(state), flush=True)
            continue
        try:
            faults.set(line)
            print("ok", flush=True)
        except RobotError as error:
            print(error, flush=True)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m robopol.real_robot.emulators", description=main.__doc__)
    kinds = parser.add_subparsers(dest="arm", required=True)
    model = kinds.add_parser("model", help="print the MJCF of a shipped arm")
    model.add_argument("name", choices=["so101", "ur5e"])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", help="MJCF file; so101 for buses and ur5e for ur unless given")
    common.add_argument("--max-speed", type=float, default=np.inf, help="limit that goals are judged by, rad/s")
    common.add_argument("--max-accel", type=float, default=np.inf, help="limit that goals are judged by, rad/s^2")
    common.add_argument(
        "--limits", help='limits of each servo: {"low": [...], "high": ..., "speed": ..., "accel": ...}'
    )
    common.add_argument("--period", type=float, default=0.0, help="of the goals, s; 0 judges by when they came")
    for name in BUSES:
        bus = kinds.add_parser(name, parents=[common], help=f"a bus of {name} servos, on a pty unless --tcp is given")
        bus.add_argument("--tcp", type=int, help="port for socket://127.0.0.1:PORT; 0 for any that is free")
        bus.add_argument("--baud", type=int, default=1_000_000)
        bus.add_argument("--turnaround", type=float, default=20.0, help="of a servo, microseconds")
        bus.add_argument("--adapter", type=float, default=0.0, help="latency of the USB adapter, ms")
        bus.add_argument("--calibration", help="write the calibration that is true of this arm to a file")
        bus.add_argument("--gripper", default="gripper", help="the servo that is the gripper")
    ur = kinds.add_parser("ur", parents=[common], help="a Universal Robots controller: dashboard, script, RTDE")
    ur.add_argument("--host", default="127.0.0.1", help="127.0.0.N, one for each controller")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
