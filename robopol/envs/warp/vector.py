"""A batch of worlds that is one simulation: slots are rows of tensors on the device."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.envs.warp.physics import Physics
from robopol.errors import EnvError


class Played(NamedTuple):
    """What a step gave in every world, (n, ...) each."""

    state: Tensor
    """Observation."""
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    success: Tensor
    way: Tensor


class WarpVectorEnv(VectorEnv):
    """A `VectorEnv` on MuJoCo Warp; what kind of world it is says a derived class.

    Episodes start and states are restored in one single environment on the CPU, the *mirror*, so both are to
    the bit what that environment says, rounded to the simulation's float32. Everything else happens on the
    device, in all worlds; those that were not asked to step are put back to where they were.

    A world whose simulation diverges (a position or velocity that is not finite) is put back to where it was
    before the step, and its episode is truncated.

    On a GPU the host does not wait for a step. A wrong call is then found by the device and told by the next
    call of `check`, `reset`, `render`, `save_state` or `restore_state`; until then the worlds concerned stand
    still and what is returned for them is meaningless.

    Attributes:
        physics: The simulation.
        record: (n, R) float64: one row per world, everything about its episode besides the physics.
    """

    def __init__(self, mirror: Any, physics: Physics, num_envs: int) -> None:
        """Put every world to a valid state.

        Args:
            mirror: The single environment (`robopol.envs.task.Task` or `robopol.envs.foreign.world.World`).
            physics: The simulation of its model.
            num_envs: How many worlds.

        Raises:
            EnvError: If the mirror observes anything but "state".
        """
        self.spec = mirror.env_spec
        if set(self.spec.obs_shapes) != {"state"}:
            raise EnvError(
                f"{self.spec.id} on MuJoCo Warp observes its state only, not {', '.join(self.spec.obs_shapes)}; "
                "leave out the cameras, or use backend='serial'"
            )
        self.num_envs = num_envs
        self.device = physics.device
        self.physics = physics
        self._waits = self.device.type == "cpu"  # whether a wrong call is told at once
        self._mirror = mirror
        self._all = list(range(num_envs))
        self._low, self._high = (
            torch.tensor(bound, dtype=torch.float32, device=self.device)
            for bound in (self.spec.action_low, self.spec.action_high)
        )
        mirror.reset(seed=0)
        row = self._row()
        self.record = torch.zeros(num_envs, len(row) - physics.state_size, dtype=torch.float64, device=self.device)
        self._load(self._all, np.tile(row, (num_envs, 1)))
        self._running, self._unstarted, self._unfinite = (
            torch.zeros(num_envs, dtype=torch.bool, device=self.device) for _ in range(3)
        )

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        slots = self.check_slots(slots)
        self.check()
        observations, rows = [self._nothing()], []
        for seed in self.check_seeds(slots, seeds):
            observations.append(self._mirror.reset(seed=seed)[0]["state"][None])
            rows.append(self._row())
        if rows:
            self._load(slots, np.stack(rows))
            self._running[slots] = True
        return {"state": torch.from_numpy(np.concatenate(observations)).to(self.device)}

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        slots = self.check_slots(slots)
        rows: Any = slice(None) if slots == self._all else torch.tensor(slots, dtype=torch.int64, device=self.device)
        wanted, going = self._accept(slots, rows, actions)
        states, record = self.physics.read(), self.record.clone()
        self._act(wanted)
        sane = self.physics.sane()
        self.physics.write(states, ~(going & sane))
        played = self._judge(wanted, sane)
        self.record.copy_(torch.where(going[:, None], self.record, record))
        terminated = played.terminated & sane
        truncated = (played.truncated & ~terminated) | ~sane
        self._running &= ~(going & (terminated | truncated))
        return StepResult(
            {"state": played.state.float()[rows]},
            played.reward.float()[rows],
            terminated[rows],
            truncated[rows],
            played.success[rows],
            played.way.long()[rows],
        )

    def check(self) -> None:
        """Wait for the device and tell of wrong calls since the last check.

        Raises:
            EnvError: If a slot was stepped whose episode was not running, or with an action that is not finite.
        """
        faults = {
            "were stepped before a reset or after their episode's end; reset them first": self._unstarted,
            "were given an action that is not finite": self._unfinite,
        }
        found = [f"slots {flags.nonzero().flatten().tolist()} {what}" for what, flags in faults.items() if flags.any()]
        if found:
            self._unstarted.zero_()
            self._unfinite.zero_()
            raise EnvError(f"{self.spec.id}: " + "; ".join(found))

    def render(self, slot: int) -> NDArray[np.uint8]:
        """See `VectorEnv.render`; the picture is that of the mirror."""
        self._show(slot)
        picture: NDArray[np.uint8] = self._mirror.render()
        return picture

    def close(self) -> None:
        """See `VectorEnv.close`."""
        self._mirror.close()
        self._running.zero_()

    @property
    def model(self) -> str | None:
        """See `VectorEnv.model`."""
        return getattr(self._mirror.unwrapped, "mjcf", None)

    def save_state(self, slot: int) -> Tensor:
        """See `VectorEnv.save_state`; the vector is that of the mirror, on the CPU."""
        self.check_slots([slot])
        self.check()
        row = torch.cat([self.physics.read()[slot].double(), self.record[slot]]).cpu()
        return row[: len(self._mirror.save_state())]

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        self.check_running(self.check_slots([slot]), self._running.cpu().numpy())
        self._show(slot)
        observation = self._mirror.restore_state(state.numpy())
        self._load([slot], self._row()[None])
        return {"state": torch.from_numpy(observation["state"][None]).to(self.device)}

    @abstractmethod
    def _extra(self) -> list[NDArray[Any]]:
        """Return what the mirror knows of its episode besides the state that it saves."""

    @abstractmethod
    def _loaded(self, slots: list[int]) -> None:
        """Take over what new rows of `record` say of the physics; their states are written."""

    @abstractmethod
    def _act(self, actions: Tensor) -> None:
        """Step the physics of all worlds under actions within the box, (n, A) float32."""

    @abstractmethod
    def _judge(self, actions: Tensor, sane: Tensor) -> Played:
        """Judge and observe all worlds after a step, and keep what is new in `record`.

        Args:
            actions: What was executed, (n, A).
            sane: Which worlds did not diverge, (n,) bool; the others are back where they were.
        """

    def _accept(self, slots: list[int], rows: Any, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions of all worlds within the box, (n, A) float32, and which worlds are to go, (n,) bool."""
        going = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        wanted = torch.zeros(self.num_envs, len(self._low), device=self.device)
        if self._waits:
            wanted[rows] = torch.from_numpy(self.check_actions(slots, actions))
            self.check_running(slots, self._running.numpy())
            going[rows] = True
            return wanted, going
        self.check_shape(slots, actions)
        actions = actions.detach().to(self.device, torch.float32)
        finite, running = actions.isfinite().all(1), self._running[rows]
        self._unfinite[rows] |= ~finite
        self._unstarted[rows] |= ~running
        going[rows] = finite & running
        wanted[rows] = actions.nan_to_num().clip(self._low, self._high)
        return wanted, going

    def _row(self) -> NDArray[np.float64]:
        """Return all that the mirror knows of its episode, (state_size + R,)."""
        return np.concatenate([self._mirror.save_state(), *(np.ravel(part) for part in self._extra())])

    def _load(self, slots: list[int], rows: NDArray[np.float64]) -> None:
        """Put worlds where rows of the mirror say, (len(slots), state_size + R)."""
        new = torch.from_numpy(rows).to(self.device)
        every, chosen = new, torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        if slots != self._all:
            index = torch.tensor(slots, device=self.device)
            every = torch.zeros(self.num_envs, new.shape[1], dtype=new.dtype, device=self.device)
            every[index] = new
            chosen.zero_()[index] = True
        self.physics.write(every[:, : self.physics.state_size], chosen)
        self.record[slots] = new[:, self.physics.state_size :]
        self._loaded(slots)

    def _show(self, slot: int) -> None:
        """Put the mirror where a world is."""
        self._mirror.restore_state(self.save_state(slot).numpy())

    def _nothing(self) -> NDArray[np.float32]:
        return np.zeros((0, *self.spec.obs_shapes["state"]), dtype=np.float32)
