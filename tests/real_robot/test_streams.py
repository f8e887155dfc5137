"""Ten thousand streams of chunks through the whole servo loop: the witness at the wire sees limits kept (T12)."""

import numpy as np
import pytest
from lockstep import DT, MS, Bench, robot

from robopol.real_robot.events import Code
from robopol.real_robot.states import Command, State

GATE = {"jump": 10.0, "strict": False, "margin": 3.0}  # let nearly everything through to the filter
MERGINGS = ("replace", "blend", {"kind": "ensemble", "m": 0.1}, "continue")
TICK = 0.01
SPEED, ACCELERATION = 3.0, 15.0


def bench_of(number):
    return Bench(robot(gate=GATE), merging=MERGINGS[number % len(MERGINGS)]).ready()


def wild(bench, rng):
    """Jumps, late and early chunks, wrong times: a stream of four."""
    for _ in range(4):
        rows, scale = int(rng.integers(1, 12)), rng.choice([0.05, 1.0, 20.0])
        data = bench.q + rng.normal(size=(rows, 5)) * scale
        fields = {"late": rng.uniform(0, 0.4), "step": int(rng.integers(1, 100) * MS)}
        bench.send(data, committed=int(rng.integers(4)), executed=int(rng.integers(1, 5)), **fields)
        bench.run(rng.choice([0.01, 0.04, 0.08]))


@pytest.mark.parametrize("count", [24, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_streams_stay_within_the_limits_at_the_wire(count):
    rng, reached = np.random.default_rng(2), 0.0
    for number in range(4):
        bench = bench_of(number)
        for _ in range(count // 4):
            wild(bench, rng)
            reached = max(reached, float(np.abs(bench.dq).max()))
            if bench.state is State.FAULT:  # the arm could not follow so fast a command
                bench.say(Command.RESET, 1)
                bench.run(0.02)
                bench.say(Command.ARM)
                bench.run(0.03)
                bench.say(Command.RUN)
            bench.rows.clear()
            bench.driver.goals.clear()
            bench.driver.oracle.log.clear()
            assert bench.driver.oracle.violations == []
        assert Code.WRITE_REFUSED not in bench.codes()
    assert reached > 0.99 * SPEED  # the limits were used to the full, so that this could fail


def smooth(bench, rng, t, place):
    """Return a way that begins and ends at rest, and can be followed: times, ns -> positions and speeds (K, 5)."""
    amplitude = rng.uniform(0.05, 0.6, 5) * -np.sign(place)
    most = np.minimum(2 * SPEED / np.abs(amplitude), np.sqrt(2 * ACCELERATION / np.abs(amplitude)))
    omega = rng.uniform(0.2, 0.85) * most.min()

    def way(times):
        phase = omega * np.clip((np.asarray(times) - t) * 1e-9, 0, 2 * np.pi / omega)[:, None]
        return place + amplitude * (1 - np.cos(phase)) / 2, amplitude * omega * np.sin(phase) / 2

    return way, 2 * np.pi / omega


@pytest.mark.parametrize("count", [3, pytest.param(1_000, marks=pytest.mark.slow)])
def test_smooth_streams_pass_with_an_error_of_a_tick_at_most(count):
    """Late chunks, each of which overlaps the one before, of ways whose speed and acceleration the arm may have."""
    rng, worst = np.random.default_rng(1), 0.0
    bench = Bench().ready()
    for _ in range(count):
        start, place = bench.clock.now() + 2 * DT, bench.q.copy()
        way, seconds = smooth(bench, rng, start, place + 1e-3)
        place, bench.rows[:] = place + 1e-3, []
        end = bench.t + round((min(seconds, 1.2) + 0.1) * 1e9)
        while bench.t < end:
            first = bench.clock.now() - round(rng.uniform(0, 0.08) * 1e9)
            times = first + DT + 20 * MS * np.arange(12)
            bench.send(way(times)[0], t_observed=first, t_first=int(times[0]), step=20 * MS)
            bench.run(0.08)
        wanted, speed = way([row["t_hold"] for row in bench.rows])
        error = np.abs(np.array([row["command"] for row in bench.rows]) - wanted)
        allowed = np.abs(speed) * TICK + ACCELERATION * TICK**2
        began = np.array([row["t_hold"] for row in bench.rows]) > start
        worst = max(worst, float((error / allowed)[began].max()))
        assert bench.driver.oracle.violations == []
        bench.run(0.4)
    assert worst <= 1.0
