"""Experts of OGBench: upstream's oracle for the cubes, and a way through its mazes for the point."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.experts.foreign import ForeignExpert
from robopol.envs.foreign.world import GlobalStream, World

_PLACED = 0.03  # m from its goal at which a cube counts as placed; the task asks for 0.04
_CUBE = 0.04  # m, its edge


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
