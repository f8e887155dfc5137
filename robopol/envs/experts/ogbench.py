"""Experts of OGBench: upstream's oracles for cubes and buttons, and a way through its mazes for the point."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.experts.foreign import ForeignExpert
from robopol.envs.foreign.world import GlobalStream, World
from robopol.errors import EnvError

_PLACED = 0.03  # m from its goal at which a cube counts as placed; the task asks for 0.04
_CUBE = 0.04  # m, its edge
_LIFTED = 0.16  # m, height of the gripper from which upstream's oracle leaves a button


class CubeExpert(ForeignExpert):
    """Places one cube after the other by ``ogbench``'s own oracle, which upstream's datasets were recorded with.

    The oracle knows one cube and its goal; which cube is next is decided here: the one with the lowest goal of those
    that are not at their goals and that nothing lies on. Cubes that lie on each other's goals are not moved aside.
    """

    def start(self, env: World, rng: np.random.Generator) -> None:
        """Make the oracle, which draws from numpy's global generator."""
        from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle

        self._stream = GlobalStream()
        self._stream.seed(int(rng.integers(2**31)))
        self._oracle = CubeMarkovOracle(env=env)
        self._cube: int | None = None

    def plan(self, env: World) -> NDArray[np.float64]:
        """Tell the oracle its cube, and ask it."""
        inner: Any = env.unwrapped
        info = inner.compute_ob_info()
        cubes = np.array([info[f"privileged/block_{i}_pos"] for i in range(inner._num_cubes)])
        goals = inner.data.mocap_pos[inner._cube_target_mocap_ids]
        cube = self._next(cubes, goals, info)
        if cube != self._cube:
            self._cube = cube
            with self._stream.lent():
                self._oracle.reset(None, info)
        w, x, y, z = inner.data.mocap_quat[inner._cube_target_mocap_ids[cube]]
        info["privileged/target_block"] = cube
        info["privileged/target_block_pos"] = goals[cube].copy()
        info["privileged/target_block_yaw"] = np.array([np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))])
        return np.asarray(self._oracle.select_action(None, info), dtype=np.float64)

    def _next(self, cubes: NDArray[Any], goals: NDArray[Any], info: dict[str, Any]) -> int:
        """Choose the cube to carry: the present one until it is placed and let go."""
        away = np.linalg.norm(cubes - goals, axis=1) > _PLACED
        if self._cube is not None and (away[self._cube] or info["proprio/gripper_contact"][0] > 0.1):
            return self._cube
        order = np.argsort(goals[:, 2], kind="stable")  # from the table upwards
        free = [cube for cube in order if away[cube] and not self._covered(cube, cubes)]
        return int(free[0]) if free else int(order[-1] if self._cube is None else self._cube)

    @staticmethod
    def _covered(cube: int, cubes: NDArray[Any]) -> bool:
        above = cubes - cubes[cube]
        return bool(((np.linalg.norm(above[:, :2], axis=1) < _CUBE) & (above[:, 2] > _CUBE / 2)).any())


class ButtonExpert(ForeignExpert):
    """Solves puzzles by ``ogbench``'s own oracle, which presses a button; upstream's data were recorded with it.

    Which button is next is decided here: the nearest of those that have to be pressed. A press turns over the button
    and its neighbours, so that the buttons to press solve linear equations modulo 2, one a button.
    """

    def start(self, env: World, rng: np.random.Generator) -> None:
        """Make the oracle, which draws from numpy's global generator; upstream lets it keep the gripper closed."""
        from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle

        self._stream = GlobalStream()
        self._stream.seed(int(rng.integers(2**31)))
        self._oracle = ButtonMarkovOracle(env=env, gripper_always_closed=True)
        self._button: int | None = None
        self._wanted = 0

    def plan(self, env: World) -> NDArray[np.float64]:
        """Tell the oracle its button, and ask it."""
        inner: Any = env.unwrapped
        info, states = inner.compute_ob_info(), inner._cur_button_states
        places, here = inner.data.site_xpos[inner._button_site_ids], info["proprio/effector_pos"]
        if self._button is None or (states[self._button] == self._wanted and here[2] > _LIFTED):
            turned = (states != inner._target_button_states).reshape(inner._num_rows, inner._num_cols)
            left = np.flatnonzero(presses(turned))
            if len(left) or self._button is None:
                nearest = np.linalg.norm(places[left, :2] - here[:2], axis=1)
                self._button = int(left[nearest.argmin()]) if len(left) else 0
                self._wanted = 1 - int(states[self._button]) if len(left) else int(states[0])
                with self._stream.lent():
                    self._oracle.reset(None, info)
        info["privileged/target_button"] = self._button
        info["privileged/target_button_top_pos"] = places[self._button].copy()
        info["privileged/target_button_state"] = self._wanted
        return np.asarray(self._oracle.select_action(None, info), dtype=np.float64)


class PointExpert(ForeignExpert):
    """Steers the point through the maze, from cell to cell of upstream's own shortest way."""

    def start(self, env: World, rng: np.random.Generator) -> None:
        """Nothing to prepare."""

    def plan(self, env: World) -> NDArray[np.float64]:
        """Head for the next cell, or for the goal in its own cell."""
        inner: Any = env.unwrapped
        here, goal = np.array(inner.get_xy()), np.array(inner.cur_goal_xy)
        same = inner.xy_to_ij(here) == inner.xy_to_ij(goal)
        aim = goal if same else np.array(inner.get_oracle_subgoal(here, goal)[0])
        direction: NDArray[np.float64] = aim - here
        return direction / max(float(np.linalg.norm(direction)), 1e-6)


def presses(wrong: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find buttons whose presses set a board right, where a press turns over a button and those beside it.

    Args:
        wrong: (R, C), which buttons are to be turned over.

    Returns:
        (R, C), which buttons to press, once each; one solution where there are several.

    Raises:
        EnvError: If no presses do it.
    """
    rows, columns = wrong.shape
    at = np.indices(wrong.shape).reshape(2, -1)
    apart = np.abs(at[:, :, None] - at[:, None, :]).sum(0)  # (R C, R C), steps between buttons
    table = np.concatenate([apart <= 1, wrong.reshape(-1, 1)], axis=1)
    pivots: list[int] = []
    for column in range(rows * columns):  # Gauss and Jordan, modulo 2
        top = len(pivots)
        found = np.flatnonzero(table[top:, column])
        if len(found):
            table[[top, top + found[0]]] = table[[top + found[0], top]]
            others = table[:, column].copy()
            others[top] = False
            table[others] ^= table[top]
            pivots.append(column)
    if table[len(pivots) :, -1].any():
        raise EnvError(f"no presses turn over exactly the buttons {np.flatnonzero(wrong).tolist()}")
    pressed = np.zeros(rows * columns, dtype=np.bool_)
    pressed[pivots] = table[: len(pivots), -1]
    return pressed.reshape(wrong.shape)
