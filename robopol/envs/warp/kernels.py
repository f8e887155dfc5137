"""What runs on the device, one thread an arm or a number; imported only where warp is installed."""
# mypy: ignore-errors
# (kernels are annotated with warp's types, which are none to mypy)

import numpy as np
import warp as wp

from robopol.envs.gripper import TOOL_OFFSET
from robopol.envs.kinematics import LARGEST_MOVE, MAX_ITERATIONS, TOLERANCE
from robopol.envs.ur5e import MOUNT_YAW

real, vec3, mat33 = wp.float64, wp.vec3d, wp.mat33d
vec6 = wp.types.vector(6, real)
mat63, mat66 = wp.types.matrix((6, 3), real), wp.types.matrix((6, 6), real)

# Zero is written out where it is needed: warp 1.19 loses a constant that is zero.
half, one = wp.constant(real(0.5)), wp.constant(real(1.0))
base_cos, base_sin = wp.constant(real(np.cos(MOUNT_YAW))), wp.constant(real(np.sin(MOUNT_YAW)))
reach, tolerance = wp.constant(real(TOOL_OFFSET)), wp.constant(real(TOLERANCE**2))
tiny, least, bias = wp.constant(real(1e-12)), wp.constant(real(1e-3)), wp.constant(real(1e-9))
largest, iterations = wp.constant(real(LARGEST_MOVE)), wp.constant(MAX_ITERATIONS)


@wp.func
def base() -> mat33:
    """Return the orientation of the arm's base in the world."""
    return mat33(base_cos, -base_sin, real(0.0), base_sin, base_cos, real(0.0), real(0.0), real(0.0), one)


@wp.func
def turned(chain: wp.array2d[real], joint: int, angle: real) -> mat33:
    """Return the rotation from a joint's frame to the next; a row of the chain: a, d, cos alpha, sin alpha, limit."""
    c, s, ca, sa = wp.cos(angle), wp.sin(angle), chain[joint, 2], chain[joint, 3]
    return mat33(c, -s * ca, s * sa, s, c * ca, -c * sa, real(0.0), sa, ca)


@wp.func
def moved(chain: wp.array2d[real], joint: int, angle: real) -> vec3:
    """Return the origin of the next joint in the frame of a joint."""
    return vec3(chain[joint, 0] * wp.cos(angle), chain[joint, 0] * wp.sin(angle), chain[joint, 1])


@wp.kernel(enable_backward=False, module="unique")
def pose(chain: wp.array2d[real], joints: wp.array2d[real], poses: wp.array2d[real]):
    """Compute where tools are that point down: joints (n, 6) to poses (n, 4)."""
    arm = wp.tid()
    rotation, position = base(), vec3(real(0.0), real(0.0), real(0.0))
    for joint in range(6):
        position = position + rotation * moved(chain, joint, joints[arm, joint])
        rotation = rotation * turned(chain, joint, joints[arm, joint])
    tool = position + rotation * vec3(real(0.0), real(0.0), reach)
    for axis in range(3):
        poses[arm, axis] = tool[axis]
    poses[arm, 3] = wp.atan2(rotation[1, 0], rotation[0, 0])


@wp.kernel(enable_backward=False, module="unique")
def inverse(chain: wp.array2d[real], poses: wp.array2d[real], joints: wp.array2d[real], errors: wp.array[real]):
    """Find joints (n, 6) for poses (n, 4), starting from where they are; see `ToolKinematics.inverse`."""
    arm = wp.tid()
    c, s = wp.cos(poses[arm, 3]), wp.sin(poses[arm, 3])
    wish_x, wish_y, wish_z = vec3(c, s, real(0.0)), vec3(s, -c, real(0.0)), vec3(real(0.0), real(0.0), -one)
    place = vec3(poses[arm, 0], poses[arm, 1], poses[arm, 2])
    q = vec6()
    for i in range(6):
        q[i] = joints[arm, i]
    squared = real(0.0)
    for iteration in range(iterations + 1):
        # where the tool is, and the axis and the origin of every joint
        rotation, position = base(), vec3(real(0.0), real(0.0), real(0.0))
        axes, origins = mat63(), mat63()
        for joint in range(6):
            for k in range(3):
                axes[joint, k] = rotation[k, 2]
                origins[joint, k] = position[k]
            position = position + rotation * moved(chain, joint, q[joint])
            rotation = rotation * turned(chain, joint, q[joint])
        tool = position + rotation * vec3(real(0.0), real(0.0), reach)
        x = rotation * vec3(one, real(0.0), real(0.0))
        y = rotation * vec3(real(0.0), one, real(0.0))
        z = rotation * vec3(real(0.0), real(0.0), one)
        twist = half * (wp.cross(x, wish_x) + wp.cross(y, wish_y) + wp.cross(z, wish_z))
        if wp.dot(x, wish_x) + wp.dot(y, wish_y) + wp.dot(z, wish_z) < one:
            twist = twist / wp.max(wp.length(twist), least)
        shift = place - tool
        squared = wp.dot(shift, shift) + wp.dot(twist, twist)
        if squared < tolerance or iteration == iterations:
            break
        normal, right = mat66(), vec6()
        for i in range(6):
            axis_i = vec3(axes[i, 0], axes[i, 1], axes[i, 2])
            lever_i = wp.cross(axis_i, tool - vec3(origins[i, 0], origins[i, 1], origins[i, 2]))
            right[i] = wp.dot(lever_i, shift) + wp.dot(axis_i, twist)
            for j in range(6):
                axis_j = vec3(axes[j, 0], axes[j, 1], axes[j, 2])
                lever_j = wp.cross(axis_j, tool - vec3(origins[j, 0], origins[j, 1], origins[j, 2]))
                normal[i, j] = wp.dot(lever_i, lever_j) + wp.dot(axis_i, axis_j)
            normal[i, i] = normal[i, i] + half * squared + bias
        # Cholesky: normal = L L^T, below the diagonal and on it; then L y = right, L^T move = y
        for j in range(6):
            for k in range(j):
                for i in range(j, 6):
                    normal[i, j] = normal[i, j] - normal[i, k] * normal[j, k]
            pivot = wp.sqrt(normal[j, j])
            for i in range(j, 6):
                normal[i, j] = normal[i, j] / pivot
        move = vec6()
        for i in range(6):
            value = right[i]
            for k in range(i):
                value = value - normal[i, k] * move[k]
            move[i] = value / normal[i, i]
        fastest = real(tiny)
        for back in range(6):
            i = 5 - back
            value = move[i]
            for k in range(i + 1, 6):
                value = value - normal[k, i] * move[k]
            move[i] = value / normal[i, i]
            fastest = wp.max(fastest, wp.abs(move[i]))
        for i in range(6):
            q[i] = wp.clamp(q[i] + move[i] * wp.min(one, largest / fastest), -chain[i, 4], chain[i, 4])
    for i in range(6):
        joints[arm, i] = q[i]
    errors[arm] = wp.sqrt(squared)


@wp.kernel(enable_backward=False, module="unique")
def normal(keys: wp.array[int], steps: wp.array[int], drawn: wp.array2d[float]):
    """Draw standard normal numbers (n, S) by a key and a counter of each row."""
    row, column = wp.tid()
    drawn[row, column] = wp.randn(wp.rand_init(keys[row], steps[row] * drawn.shape[1] + column))
