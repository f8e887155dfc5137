"""Actions and observations arrive late."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robopol.envs.vector import Observation, StepResult, VectorEnv
from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig
from robopol.errors import ConfigError


class LatencyConfig(WrapperConfig):
    """Executes actions, and shows observations, some steps late.

    The reward, the ends and the success are those of the step that was executed. Until something arrives, the first
    observation is shown again, and after a restored state that of the state.

    Attributes:
        action: Steps by which an action is executed late.
        observation: Steps by which an observation is shown late.
        first: What is executed until the first action arrives, (A,); None is zeros, within the bounds: no motion in
            worlds whose actions are torques, velocities or differences.
    """

    kind: Literal["latency"] = "latency"
    action: int = Field(0, ge=0)
    observation: int = Field(0, ge=0)
    first: tuple[float, ...] | None = None

    def build(self, env: VectorEnv) -> VectorEnv:
        """See `WrapperConfig.build`."""
        return Latency(env, self)


class Latency(VectorWrapper):
    """See `LatencyConfig`; remembers the actions on their way."""

    def __init__(self, env: VectorEnv, config: LatencyConfig) -> None:
        """See `VectorWrapper`.

        Raises:
            ConfigError: If ``first`` is missing or of a wrong length.
        """
        size = len(env.spec.action_low)
        if config.first is None and config.action and env.spec.action_space in ("joint_pos", "ee_pose", "absolute"):
            other = ", or use env.options.domain.latency" if "domain" in env.spec.options else ""
            raise ConfigError(
                f"wrapper latency: the actions of {env.spec.id} are poses, of which none means rest: give 'first'"
                + other
            )
        if config.first is not None and len(config.first) != size:
            raise ConfigError(f"wrapper latency: 'first' has {len(config.first)} entries, an action has {size}")
        super().__init__(env, config, memory=config.action * size)
        low, high = (torch.tensor(bound, device=env.device) for bound in (env.spec.action_low, env.spec.action_high))
        wished = torch.zeros_like(low) if config.first is None else torch.tensor(config.first, device=env.device)
        self._first = torch.maximum(torch.minimum(wished, high), low)
        self._actions = config.action
        # slot -> observations on their way, the oldest first
        self._shown: dict[int, list[dict[str, Tensor]]] = {}
        self._late = config.observation

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """See `VectorEnv.reset`."""
        observation = self.env.reset(slots, seeds)
        self.memory[list(slots)] = self._first.double().repeat(self._actions)
        return self._fill(slots, observation)

    def step(self, slots: Sequence[int], actions: Tensor) -> StepResult:
        """See `VectorEnv.step`."""
        self.check_actions(slots, actions)
        rows, size = list(slots), actions.shape[-1]
        queue = torch.cat([self.memory[rows], actions.detach().to(self.device).double()], dim=1)
        result = self.env.step(slots, queue[:, :size].float())
        self.memory[rows] = queue[:, size:]
        return result._replace(obs=self._delay(slots, result.obs))

    def restore_state(self, slot: int, state: Tensor) -> Observation:
        """See `VectorEnv.restore_state`."""
        return self._fill([slot], super().restore_state(slot, state))

    def _fill(self, slots: Sequence[int], observation: Observation) -> Observation:
        for row, slot in enumerate(slots):
            frame = {key: value[row] for key, value in observation.items()}
            self._shown[int(slot)] = [frame] * self._late
        return observation

    def _delay(self, slots: Sequence[int], observation: Observation) -> Observation:
        if not self._late or not len(slots):
            return observation
        frames = []
        for row, slot in enumerate(slots):
            queue = self._shown[int(slot)]
            queue.append({key: value[row] for key, value in observation.items()})
            frames.append(queue.pop(0))
        return {key: torch.stack([frame[key] for frame in frames]) for key in observation}
