"""The Universal Robots UR5e: published kinematics and dynamics, and its MJCF made of primitives.

Kinematics, masses and centres of mass: Universal Robots, "DH parameters for calculations of kinematics and
dynamics" (UR5e table). Joint position, speed and effort limits: UR5e user manual and "Max. joint torques".

Frames. The world frame is the arm's base frame turned by half a revolution about z (`MOUNT_YAW`), so that at
``q1 = 0`` the arm reaches along world +x. Everything else is the standard Denavit-Hartenberg chain
``T_i = Rz(q_i) Tz(d_i) Tx(a_i) Rx(alpha_i)``; the flange is its last frame, with z out of the flange.
"""

import numpy as np
from numpy.typing import NDArray

JOINT_NAMES = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
"""The six joints, from the base to the flange."""

DH_A = (0.0, -0.425, -0.3922, 0.0, 0.0, 0.0)
"""Link lengths, m."""
DH_D = (0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996)
"""Link offsets, m."""
DH_ALPHA = (np.pi / 2, 0.0, 0.0, np.pi / 2, -np.pi / 2, 0.0)
"""Link twists, rad."""

POSITION_LIMIT = (2 * np.pi, 2 * np.pi, np.pi, 2 * np.pi, 2 * np.pi, 2 * np.pi)
"""Joints stay within plus or minus these, rad."""
SPEED_LIMIT = np.pi
"""Of every joint, rad/s."""
EFFORT_LIMIT = (150.0, 150.0, 150.0, 28.0, 28.0, 28.0)
"""Of every joint, N m."""

LINK_MASS = (3.761, 8.058, 2.846, 1.37, 1.3, 0.365)
"""kg."""
LINK_COM = (
    (0.0, -0.02561, 0.00193),
    (0.2125, 0.0, 0.11336),
    (0.15, 0.0, 0.0265),
    (0.0, -0.0018, 0.01634),
    (0.0, 0.0018, 0.01634),
    (0.0, 0.0, -0.001159),
)
"""Centres of mass in the DH frame of their link, m."""

MOUNT_YAW = np.pi
"""World yaw of the base frame, rad."""

# A link's moments of inertia are those of a solid cylinder (radius, length in m; axis) with the link's mass;
# the manufacturer calls the true ones negligible. The rotors' reflected inertia is not published: a nominal
# value.
_CYLINDER = (
    (0.06, 0.15, 1),
    (0.055, 0.45, 0),
    (0.045, 0.40, 0),
    (0.045, 0.12, 2),
    (0.045, 0.12, 2),
    (0.04, 0.05, 2),
)
_ARMATURE = (0.3, 0.3, 0.3, 0.1, 0.1, 0.1)

# Gains of the position servos (N m/rad, N m s/rad); damping is about critical at zero pose, so the arm lags its
# reference by about 30 to 50 ms, as the controller's own servo mode does. Both are numbers because what MuJoCo makes
# of a damping ratio depends on its version.
_STIFFNESS = (16000.0, 16000.0, 12000.0, 3000.0, 3000.0, 1500.0)
_DAMPING = (566.0, 553.0, 234.0, 39.5, 39.1, 24.6)

# Shapes of each link in the body frame used here (the DH frame before d, a and alpha are applied):
# (kind, start, end, radius, colour), m.
_Vec = tuple[float, float, float]
_SHAPES: tuple[tuple[tuple[str, _Vec, _Vec, float, str], ...], ...] = (
    (("cylinder", (0, 0, 0.09), (0, 0, 0.228), 0.059, "tube"),),
    (
        ("cylinder", (0, 0, 0.05), (0, 0, 0.197), 0.057, "joint"),
        ("capsule", (0, 0, 0.138), (-0.425, 0, 0.138), 0.046, "tube"),
        ("cylinder", (-0.425, 0, 0.062), (-0.425, 0, 0.195), 0.052, "joint"),
    ),
    (
        ("cylinder", (0, 0, -0.05), (0, 0, 0.062), 0.047, "tube"),
        ("capsule", (0, 0, 0.007), (-0.3922, 0, 0.007), 0.038, "tube"),
        ("cylinder", (-0.3922, 0, -0.045), (-0.3922, 0, 0.07), 0.041, "joint"),
    ),
    (("cylinder", (0, 0, 0.07), (0, 0, 0.178), 0.039, "tube"),),
    (("cylinder", (0, 0, 0.04), (0, 0, 0.144), 0.039, "joint"),),
    (("cylinder", (0, 0, 0.04), (0, 0, 0.0996), 0.037, "tube"),),
)


def dh_flange(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the pose of the flange in the base frame by the DH chain (no simulator).

    Args:
        q: Joint positions, (6,) rad.

    Returns:
        Homogeneous transform, (4, 4), m.
    """
    pose = np.eye(4)
    for angle, a, d, alpha in zip(q, DH_A, DH_D, DH_ALPHA, strict=True):
        ct, st, ca, sa = np.cos(angle), np.sin(angle), np.cos(alpha), np.sin(alpha)
        pose = pose @ np.array(
            [[ct, -st * ca, st * sa, a * ct], [st, ct * ca, -ct * sa, a * st], [0, sa, ca, d], [0, 0, 0, 1]]
        )
    return pose


def arm_body(hand: str) -> str:
    """Write the arm as an MJCF body tree rooted at the world origin.

    Args:
        hand: MJCF elements placed in the flange's frame, e.g. `robopol.envs.gripper.gripper_body`.

    Returns:
        An MJCF ``<body>``; the flange is the site "flange", the joints are `JOINT_NAMES`.
    """
    inner = f'<body name="hand" pos="0 0 {DH_D[5]}" gravcomp="1"><site name="flange" size="0.004"/>{hand}</body>'
    for i in reversed(range(6)):
        inner = _link(i, inner)
    base = (
        '<geom class="arm" type="cylinder" fromto="0 0 0 0 0 0.09" size="0.075" material="joint"/>'
        '<geom class="arm" type="cylinder" fromto="0 0 0 0 0 0.012" size="0.1" material="dark"/>'
    )
    return f'<body name="base" euler="0 0 {MOUNT_YAW}">{base}{inner}</body>'


def arm_actuators() -> str:
    """Write the position servos of the six joints as MJCF elements named after the joints."""
    lines = []
    for name, kp, kv, limit, effort in zip(
        JOINT_NAMES, _STIFFNESS, _DAMPING, POSITION_LIMIT, EFFORT_LIMIT, strict=True
    ):
        lines.append(
            f'<position name="{name}" joint="{name}" kp="{kp}" kv="{kv}" '
            f'ctrlrange="{-limit} {limit}" forcerange="{-effort} {effort}"/>'
        )
    return "".join(lines)


def _link(i: int, inner: str) -> str:
    """Write link ``i`` (0-based) around the elements that its DH transform carries."""
    # The body sits at the end of the previous DH transform, so its joint turns about its own z.
    before = "" if i == 0 else f'pos="{DH_A[i - 1]} 0 {DH_D[i - 1]}" euler="{DH_ALPHA[i - 1]} 0 0"'
    c, s = np.cos(DH_ALPHA[i]), np.sin(DH_ALPHA[i])
    x, y, z = LINK_COM[i]
    com = f"{DH_A[i] + x} {c * y - s * z} {DH_D[i] + s * y + c * z}"
    radius, length, axis = _CYLINDER[i]
    moments = [LINK_MASS[i] * (3 * radius**2 + length**2) / 12] * 3
    moments[axis] = LINK_MASS[i] * radius**2 / 2
    inertia = " ".join(str(moment) for moment in moments)
    shapes = "".join(
        f'<geom class="arm" type="{kind}" fromto="{_numbers(start + end)}" size="{size}" material="{material}"/>'
        for kind, start, end, size, material in _SHAPES[i]
    )
    limit = POSITION_LIMIT[i]
    return (
        f'<body name="link_{i + 1}" {before} gravcomp="1">'
        f'<inertial pos="{com}" mass="{LINK_MASS[i]}" diaginertia="{inertia}"/>'
        f'<joint name="{JOINT_NAMES[i]}" axis="0 0 1" range="{-limit} {limit}" armature="{_ARMATURE[i]}"/>'
        f"{shapes}{inner}</body>"
    )


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(str(value) for value in values)
