"""A parallel gripper with two box fingers; only its width matters to a task.

The tool frame (site "tool") lies between the fingertips, z out of the hand, and the fingers open along its y.
"""

STROKE = 0.085
"""Distance between the fingers' inner faces when fully open, m (opening 1); closed they touch (opening 0)."""

TOOL_OFFSET = 0.16
"""Distance of the fingertips from the flange along the flange's z, m."""

FINGER_HALF_SIZE = (0.010, 0.006, 0.045)
"""Half sizes of a finger along the tool's x, y and z, m."""

GRIP_FORCE = 60.0
"""Largest force of the gripper's drive, N."""


def gripper_body() -> str:
    """Write the gripper as MJCF elements in the flange's frame."""
    fx, fy, fz = FINGER_HALF_SIZE
    fingers = "".join(
        f'<body name="finger_{side}" pos="0 {sign * fy} {TOOL_OFFSET - fz}" gravcomp="1">'
        f'<joint name="finger_{side}" type="slide" axis="0 {sign} 0" range="0 {STROKE / 2}" armature="0.5" '
        'damping="20"/>'
        f'<geom name="finger_{side}" class="finger" type="box" size="{fx} {fy} {fz}" mass="0.08"/>'
        "</body>"
        for side, sign in (("left", 1), ("right", -1))
    )
    return (
        '<geom class="hand" type="cylinder" fromto="0 0 0 0 0 0.03" size="0.036" mass="0.25"/>'
        '<geom class="hand" type="box" pos="0 0 0.05" size="0.025 0.062 0.02" mass="0.5"/>'
        f'<site name="tool" pos="0 0 {TOOL_OFFSET}" size="0.004"/>'
        '<camera name="wrist" pos="-0.10 0 0.05" xyaxes="0 1 0 0.55 0 -0.835" fovy="65"/>'
        f"{fingers}"
    )


def gripper_drive() -> str:
    """Write the drive: the fingers move as one, and the servo holds the sum of their travels (the width)."""
    return (
        '<equality><joint joint1="finger_left" joint2="finger_right" solref="0.004 1"/></equality>'
        '<tendon><fixed name="width"><joint joint="finger_left" coef="1"/>'
        '<joint joint="finger_right" coef="1"/></fixed></tendon>'
    )


def gripper_actuator() -> str:
    """Write the servo of the width: control is the distance between the fingers in metres."""
    return (
        f'<position name="gripper" tendon="width" kp="2000" kv="96" ctrlrange="0 {STROKE}" '
        f'forcerange="-{GRIP_FORCE} {GRIP_FORCE}"/>'
    )
