"""Inverse kinematics of many arms at once: the search of `robopol.envs.kinematics`, one thread an arm."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopol.envs.ur5e import DH_A, DH_ALPHA, DH_D, POSITION_LIMIT
from robopol.envs.warp.physics import import_warp

_CHAIN = np.stack([DH_A, DH_D, np.cos(DH_ALPHA), np.sin(DH_ALPHA), POSITION_LIMIT], axis=1)


class WarpKinematics:
    """`robopol.envs.kinematics.Kinematics` for joints (n, 6) and tool poses (n, 4) on a device, in float64."""

    def __init__(self, device: torch.device, stream: Callable[[], AbstractContextManager[Any]]) -> None:
        """Copy the arm's lengths to the device.

        Args:
            device: Where the arms are.
            stream: Gives the scope in which warp works in torch's order.
        """
        self._warp, _ = import_warp()
        from robopol.envs.warp import kernels

        self._kernels, self._stream = kernels, stream
        self._chain = self._warp.from_torch(torch.from_numpy(_CHAIN).to(device))

    def pose(self, q: Tensor) -> Tensor:
        """Return tool poses, (n, 4), of tools that point down."""
        poses = q.new_empty(len(q), 4)
        self._launch(self._kernels.pose, q, [poses])
        return poses

    def inverse(self, pose: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Find joint positions for tool poses; see `robopol.envs.kinematics.ToolKinematics.inverse`.

        Args:
            pose: (n, 4).
            start: Joint positions to start from, (n, 6) rad.

        Returns:
            Joint positions (n, 6) and the errors left, (n,).
        """
        q, error = start.clone(memory_format=torch.contiguous_format), start.new_empty(len(start))
        self._launch(self._kernels.inverse, pose, [q, error])
        return q, error

    def _launch(self, kernel: Any, given: Tensor, found: list[Tensor]) -> None:
        arrays = [self._warp.from_torch(tensor) for tensor in (given.contiguous(), *found)]
        with self._stream():
            self._warp.launch(
                kernel, dim=len(given), inputs=[self._chain, arrays[0]], outputs=arrays[1:], device=self._chain.device
            )
