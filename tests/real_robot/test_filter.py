"""What the filter lets through stays in its workspace and apart from obstacles, at rest and on the way there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robopol.errors import ConfigError
from robopol.real_robot.events import Code
from robopol.real_robot.filter import Filter, Mark
from robopol.real_robot.geometry import BoxConfig, ConeConfig, Geometry, GeometryConfig, HalfSpaceConfig
from robopol.real_robot.limiter import Limiter

T = 0.01
# Two links of half a metre in a plane over a table, with a tool at the end.
MJCF = """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <geom name="table" type="plane" size="1 1 0.1"/>
    <body name="upper" pos="0 0 0.3">
      <joint name="a" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 0.5 0 0" size="0.03"/>
      <body name="lower" pos="0.5 0 0">
        <joint name="b" axis="0 1 0"/>
        <geom type="capsule" fromto="0.1 0 0 0.4 0 0" size="0.03"/>
        <body name="hand" pos="0.5 0 0">
          <geom type="sphere" size="0.05"/><site name="tool"/>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "arm.xml"
    path.write_text(MJCF)
    return str(path)


def geometry(model, **fields):
    return Geometry(GeometryConfig(model=model, **fields), ("a", "b"))


def make(model, start=(0.0, 0.0), **fields):
    limits = (np.array([-3.0, -3.0]), np.array([3.0, 3.0]), np.array([2.0, 3.0]), np.array([8.0, 12.0]))
    made = Filter(Limiter(*limits, T), geometry(model, **fields))
    made.reset(np.array(start))
    return made


def drive(made, goal, ticks=250):
    """Ask for a goal as a policy does that does not give in; return all clearances on the way and all findings."""
    seen, found = [], []
    for _ in range(ticks):
        result = made.follow(np.array(goal, float), np.zeros(2))
        found += result.findings
        seen.append(made.geometry.look(made.limiter.q))
    return seen, found


def test_pairs_are_those_that_can_meet(model):
    made = geometry(model)
    names = {tuple(sorted(made.model.body(made.model.geom_bodyid[g]).name for g in pair)) for pair in made.pairs}
    # upper and lower hang together, lower and hand are one
    assert names == {("upper", "world"), ("lower", "world"), ("hand", "world"), ("hand", "upper")}
    assert len(geometry(model, apart=(("hand", "world"),)).pairs) == 3


def test_distances_are_those_of_the_shapes(model):
    made = geometry(model, slow=0.4)
    table = [i for i, pair in enumerate(made.pairs) if made.model.geom_bodyid[pair[1]] == 3 and pair[0] == 0]
    assert made.look(np.zeros(2)).distances[table] == pytest.approx(0.25)  # 0.3 high, a sphere of 0.05
    assert made.look(np.array([0.0, 0.3])).distances[table] == pytest.approx(0.25 - 0.5 * np.sin(0.3))


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.0, 0.5))
@settings(max_examples=6)
def test_table_and_self_are_never_nearer_than_allowed(model, a, b, start):
    made = make(model, (-start, 0.2), slow=0.05, stop=0.02)
    seen, _ = drive(made, (a, b))
    assert min(there.distances.min() for there in seen) >= 0.02 - 1e-3


@pytest.mark.parametrize("goal", [(0.6, 0.3), (-0.5, 3.0), (0.3, -3.0)])
def test_it_stops_before_table_and_self_and_says_so(model, goal):
    made = make(model, (-0.3, 0.5), slow=0.05, stop=0.02)
    seen, found = drive(made, goal)
    near = [finding for finding in found if finding.code is Code.TOO_NEAR]
    assert near
    assert Code.SLOWED in [finding.code for finding in found]
    assert 0.02 - 1e-3 <= seen[-1].distances.min() <= 0.03  # it went as far as it may
    assert abs(made.limiter.dq).max() < 0.5


@given(st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=6)
def test_the_tool_stays_in_its_workspace(model, a, b):
    box = BoxConfig(sites=("tool",), low=(0.3, -1, 0.15), high=(1.1, 1, 0.9))
    made = make(model, (-0.5, 0.8), workspace=(box,), slow=0.01, stop=0.0)
    seen, _ = drive(made, (a, b))
    assert min(there.margins.min() for there in seen) >= -1e-3


@given(st.floats(1e-7, 6e-7), st.floats(0.3, 1.0), st.booleans())
@settings(max_examples=3, deadline=None)
def test_a_slow_reference_does_not_creep_out(model, step, share, violated):
    """Each step of it makes things worse by less than rounding might, and there is no end of them."""
    half = HalfSpaceConfig(sites=("tool",), normal=(0.0, 0.0, 1.0), offset=0.1)
    outside = 0.25 if violated else 0.2013
    made = make(model, (outside, 0.0), workspace=(half,), slow=0.3, stop=0.05)
    begin = made.geometry.look(made.limiter.q)
    speed = step * np.array([1.0, share])
    for k in range(1, 250):
        made.follow(np.array([outside, 0.0]) + k * speed, speed / T)
    end = made.geometry.look(made.limiter.q)
    assert end.margins.min() >= min(begin.margins.min(), 0.0) - 2e-6
    assert end.distances.min() >= min(begin.distances.min(), 0.05) - 2e-6


def test_a_slow_reference_does_not_creep_into_the_table(model):
    made = make(model, (0.4, 0.0), slow=0.2, stop=0.05)
    q = np.array([0.4, 0.0])
    for _ in range(150):  # to where it stops, as fast as it may
        made.follow(q + np.array([1.0, 0.0]), np.zeros(2))
    begin, q = made.geometry.look(made.limiter.q).distances.min(), made.limiter.q.copy()
    for k in range(1, 100):
        made.follow(q + np.array([1e-6 * k, 0.0]), np.array([1e-6 / T, 0.0]))
    assert made.geometry.look(made.limiter.q).distances.min() >= min(begin, 0.05) - 2e-6


def test_what_braking_gave_away_can_be_won_back(model):
    """An arm outside that turned back on its way in, and was braked, may still come in."""
    half = HalfSpaceConfig(sites=("tool",), normal=(0.0, 0.0, 1.0), offset=0.1)
    made = make(model, (0.5, 0.0), workspace=(half,), slow=0.01, stop=0.0)
    for k in range(30):
        made.follow(np.array([0.5 - 0.2 * np.sin(k / 5), 0.0]), np.zeros(2))
    for _ in range(40):
        made.brake()
    drive(made, (-0.2, 0.0), 150)
    assert made.geometry.look(made.limiter.q).margins.min() > 0


@pytest.mark.parametrize("strange", [np.nan, np.inf])
@pytest.mark.parametrize("spaced", [True, False])
def test_what_is_no_number_brakes_the_arm(model, strange, spaced):
    made = make(model, (-0.3, 0.5))
    if not spaced:
        made.geometry = None
        made.reset(np.array([-0.3, 0.5]))
    for _ in range(20):
        made.follow(np.array([0.0, 1.0]), np.zeros(2))
    fast = np.abs(made.limiter.dq).max()
    result = made.follow(np.array([0.0, strange]), np.zeros(2))
    assert result == (Mark.HELD, [(Code.PLAN_NOT_FINITE, (1.0,))])
    assert 0 < np.abs(made.limiter.dq).max() < fast


def test_half_spaces_and_cones(model):
    half = HalfSpaceConfig(sites=("tool",), normal=(0.0, 0.0, 1.0), offset=0.25)
    cone = ConeConfig(site="tool", around=(0.0, 0.0, 1.0), angle=0.4)
    made = geometry(model, workspace=(half, cone))
    np.testing.assert_allclose(made.look(np.zeros(2)).margins, [0.05, 1 - np.cos(0.4)], atol=1e-12)
    assert made.look(np.array([0.0, 0.41])).margins[1] < 0 < made.look(np.array([0.0, 0.39])).margins[1]
    filtered = make(model, workspace=(half, cone), start=(-0.1, 0.2))
    seen, found = drive(filtered, (-0.5, 0.0))
    assert min(there.margins.min() for there in seen) >= -1e-3
    assert {finding.code for finding in found} == {Code.LEFT_WORKSPACE}
    assert {finding.numbers[0] for finding in found} == {1.0}


def test_an_arm_that_is_outside_may_come_back_and_nothing_else(model):
    box = BoxConfig(sites=("tool",), low=(0.3, -1, 0.2), high=(1.1, 1, 0.9))
    made = make(model, (0.0, 0.5), workspace=(box,), slow=0.01, stop=0.0)  # 6 cm over the table
    start = made.geometry.look(made.limiter.q).margins.min()
    assert start < -0.1
    seen, _ = drive(made, (0.1, 0.6), 100)
    assert min(there.margins.min() for there in seen) >= start - 1e-4
    seen, _ = drive(made, (-0.4, 0.5))
    assert seen[-1].margins.min() > 0
    np.testing.assert_allclose(made.limiter.q, (-0.4, 0.5), atol=1e-3)


def test_joint_limits_clamp_and_are_reported_once(model):
    made = Filter(Limiter(*(np.array([v]) for v in (-1.0, 1.0, 2.0, 8.0)), T), None)
    made.reset(np.zeros(1))
    results = [made.follow(np.array([5.0]), np.array([1.0])) for _ in range(200)]
    assert [finding for result in results for finding in result.findings] == [(Code.POSITION_CLAMPED, (0, 5.0, 1.0))]
    assert all(Mark.CLAMPED in result.marks for result in results)
    assert made.limiter.q[0] == pytest.approx(1.0, abs=1e-4)
    made.follow(np.array([0.5]), np.zeros(1))
    assert made.follow(np.array([5.0]), np.zeros(1)).findings


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"workspace": (BoxConfig(sites=("tol",), low=(0, 0, 0), high=(1, 1, 1)),)}, "tol"),
        ({"apart": (("x", "y"),)}, "x"),
    ],
)
def test_what_the_model_lacks_is_named(model, fields, text):
    with pytest.raises(ConfigError, match=text):
        geometry(model, **fields)
