"""The area that two rectangles have in common, for many pairs at once and without a branch."""

from robopol.envs.arrays import Array, arrays, constant

Rectangle = tuple[float, float, float, float]
"""Least x, least y, greatest x and greatest y, m."""

_ASIDE = (1.1e-10, 2.3e-10, 3.7e-10)  # m, m, rad


def overlap(first: Rectangle, pose: Array, second: Rectangle) -> Array:
    """Return the area of the intersection of two rectangles.

    By Green's theorem it is half the integral of ``x dy - y dx`` along its boundary, which consists of the
    parts of each rectangle's sides that lie within the other one. Those parts are found as in Liang and
    Barsky, "A new concept and method for line clipping", ACM TOG 1984. A part of a side that both share would
    count twice, so the first rectangle is moved by less than a nanometre, to where none is shared.

    Args:
        first: A rectangle in its own frame.
        pose: That frame in the frame of the second rectangle, (..., 3): x, y in m, yaw in rad.
        second: A rectangle.

    Returns:
        Area, (...) m^2.
    """
    xp = arrays(pose)
    x, y, yaw = (pose[..., i : i + 1] + shift for i, shift in enumerate(_ASIDE))
    cos, sin = xp.cos(yaw), xp.sin(yaw)
    own, other = _corners(first, pose), _corners(second, pose)
    # the corners of each rectangle in the frame of the other one, (..., 4)
    moved = x + cos * own[0] - sin * own[1], y + sin * own[0] + cos * own[1]
    back = cos * (other[0] - x) + sin * (other[1] - y), cos * (other[1] - y) - sin * (other[0] - x)
    return (_swept(moved, _within(moved, second)) + _swept(other, _within(back, first))) / 2


def _corners(rectangle: Rectangle, like: Array) -> tuple[Array, Array]:
    """Return x and y of the corners, counterclockwise, (4,)."""
    x0, y0, x1, y1 = rectangle
    return constant([x0, x1, x1, x0], like), constant([y0, y0, y1, y1], like)


def _sides(corners: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the vectors from each corner to the next one."""
    x, y = (arrays(axis).roll(axis, -1, -1) - axis for axis in corners)
    return x, y


def _within(corners: tuple[Array, Array], window: Rectangle) -> Array:
    """Return the part of each side that lies within an upright rectangle, (..., 4) 0 to 1."""
    xp = arrays(corners[0])
    enter, leave = 0.0 * corners[0], 0.0 * corners[0] + 1.0
    for start, side, low, high in zip(corners, _sides(corners), window[:2], window[2:], strict=True):
        step = xp.where(abs(side) < 1e-12, 1e-12, side)  # a side along the window's is inside or outside for good
        ends = (low - start) / step, (high - start) / step
        enter, leave = xp.maximum(enter, xp.minimum(*ends)), xp.minimum(leave, xp.maximum(*ends))
    return (leave - enter).clip(0.0)


def _swept(corners: tuple[Array, Array], parts: Array) -> Array:
    """Return twice the area that the given parts of the sides sweep, seen from the origin, (...)."""
    (x, y), (dx, dy) = corners, _sides(corners)
    return (parts * (x * dy - y * dx)).sum(-1)
