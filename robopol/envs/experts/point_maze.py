"""The expert of gymnasium-robotics' PointMaze: the shortest way from cell to cell, followed by a damped spring."""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopol.envs.experts.foreign import ForeignExpert
from robopol.envs.foreign.world import World
from robopol.errors import EnvError

_STIFFNESS = 10.0  # force (in units of its bound) a metre from the aim
_DAMPING = 2.0  # force a metre a second
_REACHED = 0.2  # m from a waypoint at which the next one is headed for

Cell = tuple[int, int]


class PointMazeExpert(ForeignExpert):
    """Follows waypoints; plans anew when the goal has moved."""

    def start(self, env: World, rng: np.random.Generator) -> None:
        """Forget the last episode's way."""
        self._goal: NDArray[np.float64] | None = None
        self._way: list[NDArray[np.float64]] = []

    def plan(self, env: World) -> NDArray[np.float64]:
        """Pull towards the next waypoint."""
        inner: Any = env.unwrapped
        position, velocity = env.latest["observation"][:2], env.latest["observation"][2:4]
        goal = env.latest["desired_goal"]
        if self._goal is None or not np.array_equal(goal, self._goal):
            self._goal = goal.copy()
            self._way = self._plan_way(env.id, inner.maze, position, goal)
        while len(self._way) > 1 and np.linalg.norm(self._way[0] - position) < _REACHED:
            self._way.pop(0)
        force: NDArray[np.float64] = _STIFFNESS * (self._way[0] - position) - _DAMPING * velocity
        return force

    @staticmethod
    def _plan_way(id: str, maze: Any, position: Any, goal: Any) -> list[NDArray[np.float64]]:
        first, last = (_cell(maze, point) for point in (position, goal))
        cells = shortest_way(maze.maze_map, first, last)
        if cells is None:
            raise EnvError(f"{id}: no way leads from cell {first} to cell {last}")
        return [*(np.array(maze.cell_rowcol_to_xy(np.array(cell))) for cell in cells[1:-1]), np.array(goal)]


def shortest_way(maze: Any, first: Cell, last: Cell) -> list[Cell] | None:
    """Find a shortest way through a maze.

    Args:
        maze: Rows of cells; 1 is a wall, anything else is free.
        first: Row and column where it begins.
        last: Where it ends.

    Returns:
        The cells from first to last, or None if there is no way.
    """
    came: dict[Cell, Cell] = {first: first}
    waiting = deque([first])
    while waiting:
        cell = waiting.popleft()
        if cell == last:
            way = [cell]
            while way[-1] != first:
                way.append(came[way[-1]])
            return way[::-1]
        for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            row, column = cell[0] + down, cell[1] + right
            inside = 0 <= row < len(maze) and 0 <= column < len(maze[0])
            if inside and maze[row][column] != 1 and (row, column) not in came:
                came[row, column] = cell
                waiting.append((row, column))
    return None


def _cell(maze: Any, point: Any) -> Cell:
    row, column = maze.cell_xy_to_rowcol(np.asarray(point))
    return int(row), int(column)
