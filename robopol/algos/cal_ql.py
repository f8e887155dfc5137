"""Cal-QL (Nakamoto et al. 2023, arXiv 2303.05479): values that are low where there are no data, yet not too low."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from robopol.algos.critics import usable
from robopol.algos.drawing import drawing
from robopol.algos.value_critics import ValueCritics, ValueCriticsConfig, value_model
from robopol.data.windows import newest
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.value import ValueModel
from robopol.networks.precision import Runtime
from robopol.policies import Needs, Policy


class CalQLConfig(ValueCriticsConfig):
    """Calibrated conservative Q-learning, for any policy.

    Candidates are n uniform chunks u within the action bounds and n proposals each, a_j ~ pi(s) and a'_j ~ pi(s'), of
    the averaged policy, with a little noise. With R the reward and Gamma the discount of a chunk
    (`robopol.data.windows.Batch`), Q' the target and F(s) what the recorded return is at least
    (`Episodes.return_bounds`), in every head k:

        y = R + Gamma max_j min_k Q'_k(s', a'_j)
        L_Q = (Q_k(s, a) - y)^2 + alpha (log sum exp c - Q_k(s, a)),
              c = {Q_k(s, u)} and {max(Q_k(s, a_j), F(s))} and {max(Q_k(s, a'_j), F(s))}
        L_V = (V(s) - mean_j min_k Q'_k(s, a_j))^2

    The published actor is a Gaussian that follows the gradient of Q, and candidates are weighed by their densities. A
    policy here may have neither: its samples are counted alike (CQL without importance weights), and it imitates the
    data with weights min(exp(beta (min_k Q'_k(s, a) - V'(s))), max_weight), as for IQL. Every update asks the policy
    for 2 n samples of every row, so a Gaussian is the quick choice for a critic that is to rank the proposals of
    another policy (V-GPS; Nakamoto et al. 2024).

    In a phase that acts the losses are the same. F(s) of what was met is known when its episode has ended; until then
    nothing keeps its candidates up.

    Attributes:
        alpha: How much Q is pushed down at candidates; 0 learns from the transitions alone.
        candidates: n. 10 as published, 4 for V-GPS.
        noise: Standard deviation of the noise on proposals, in normalised units. A policy without any chance
            would propose the same n times.
        calibrated: Whether candidates of the policy are kept above the recorded return; False is CQL (Kumar et al.
            2020).
    """

    kind: Literal["cal_ql"] = "cal_ql"
    alpha: float = Field(5.0, ge=0)
    candidates: int = Field(10, ge=1)
    noise: float = Field(0.1, ge=0)
    calibrated: bool = True

    trains: ClassVar[tuple[str, ...]] = ("policy", "model")
    may_train: ClassVar[tuple[str, ...]] = ()

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "CalQL":
        """Return the algorithm.

        Args:
            policy: The policy to train, on its device.
            model: The value to train, on the same device.
            total_updates: Length of the policy's learning-rate schedule.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If the model is no value, the policy proposes fewer actions than it judges, or an action has
                no bounds.
        """
        return CalQL(self, value_model(model, "cal_ql"), policy, total_updates, runtime)


class CalQL(ValueCritics):
    """See `CalQLConfig`."""

    config: CalQLConfig

    def __init__(
        self, config: CalQLConfig, model: ValueModel, policy: Policy, total_updates: int, runtime: Runtime
    ) -> None:
        """Check that there are candidates; see `CalQLConfig.build`."""
        super().__init__(config, model, policy, total_updates, runtime)
        if policy.spec.chunk < model.spec.chunk:
            raise ConfigError(
                f"the policy proposes {policy.spec.chunk} actions and the value judges {model.spec.chunk}: set "
                f"model.n_action_steps={policy.spec.chunk} or less"
            )
        self.low = torch.tensor(model.spec.action_low, device=model.device)
        self.span = torch.tensor(model.spec.action_high, device=model.device) - self.low
        if not bool(self.span.isfinite().all()):
            raise ConfigError("candidates are drawn within the action bounds, and some action has none: use algo=iql")

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`."""
        return super().needs.joined(Needs(bound=self.model.config.discount))

    def learn(self, batch: Mapping[str, Any], wide: Mapping[str, Any], generator: Generator) -> dict[str, Tensor]:
        """See `Critics.learn`."""
        model, target, config = self.model, self.target, self.config
        obs, actions = batch["obs"], model.actions(batch)
        shape = (len(actions), config.candidates, *actions.shape[1:])
        anything = self.low + self.span * torch.rand(shape, generator=generator, device=actions.device)
        here, there = (self.propose(wide[key], generator) for key in ("obs", "next_obs"))
        with self.runtime.autocast():
            with torch.no_grad():
                goal = batch["reward"] + batch["discount"] * target.q(batch["next_obs"], there).amin(0).amax(-1)
                worth = target.q(obs, here).amin(0).mean(-1)
            judged = model.q(obs, torch.cat([actions[:, None], anything, here, there], 1), generator)
            data, uniform, proposed = judged.split([1, config.candidates, 2 * config.candidates], -1)
            if config.calibrated:
                proposed = torch.maximum(proposed, batch["return_bound"][:, None])
            gap = torch.cat([uniform, proposed], -1).float().logsumexp(-1) - data[..., 0]  # (E, B)
            td, gap = ((data[..., 0] - goal) ** 2).mean(0), gap.mean(0)
        weight = usable(batch)
        q_loss = self.descend(td + config.alpha * gap, weight)
        with self.runtime.autocast():
            v_losses = (model.v(obs, generator) - worth) ** 2
        v_loss = self.descend(v_losses, batch["weight"])
        return {"train/q_loss": q_loss, "train/v_loss": v_loss}

    @torch.no_grad()
    def propose(self, obs: Mapping[str, Tensor], generator: Generator) -> Tensor:
        """Return candidates of the averaged policy, (B, n, h, A), in environment units and within the bounds."""
        assert self.cloning is not None
        policy, spec, scale = drawing(self.cloning.deployed()), self.model.spec, self.model.action_normalizer.unscale
        told = newest(obs, policy.spec.n_obs_steps)
        chunks = policy.act(told, self.config.candidates, generator)[:, :, : spec.chunk]
        noise = torch.randn(chunks.shape, generator=generator, device=chunks.device)
        return torch.minimum(torch.maximum(chunks + self.config.noise * scale * noise, self.low), self.low + self.span)
