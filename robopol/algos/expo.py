"""EXPO (Dong et al. 2025, arXiv 2507.07986): a policy imitates; edits and a choice among its proposals earn.

Without edits it is QC, best-of-N with a critic of chunks (Li et al. 2025, arXiv 2507.07969, Q-chunking).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from robopol.algos.algorithm import Explored, Remembers, Trained, owned
from robopol.algos.bc import BC, BESIDE, BCConfig
from robopol.algos.drawing import drawing
from robopol.algos.editors import editing
from robopol.algos.sharing import executed, sharing
from robopol.algos.soft import SAMPLING, Soft, SoftConfig
from robopol.data.windows import narrowed, newest
from robopol.errors import ConfigError
from robopol.models import Model
from robopol.models.q import QConfig, QModel
from robopol.networks.precision import Runtime
from robopol.policies import Needs, Part, Policy
from robopol.policies.squashed_gaussian import SquashedGaussianConfig
from robopol.steering.editing import beside, edited
from robopol.steering.learned_edit import LearnedEdit
from robopol.steering.steered import SteeredPolicy


class EXPOConfig(SoftConfig):
    """One operator acts, is evaluated and says what comes next: of N proposals and their edits the one of greatest Q.

    The base policy b imitates all that is recorded or met, and never sees Q. An editor e, shown an observation and
    actions, adds a little to them. With h actions a chunk, R its reward and Gamma its discount
    (`robopol.data.windows.Batch`), Q' the target, Z the heads that are asked, drawn anew for every update:

        a_j ~ b(s'),  a_(N+j) = a_j + e(s', a_j),  y = R + Gamma max_j min_(k in Z) Q'_k(s', a_j)
        L_Q = sum_k (Q_k(s, a) - y)^2
        L_e = alpha log pi_e(d|s, a) - mean_k Q_k(s, a + d),  d ~ e(s, a), of the actions of the batch
        L_b = the base policy's own loss

    pi_e is a density over the box of the edits, in which an entry lies in (-1, 1), and so is the entropy that it is
    brought to: a narrow box asks for no other. In the units of the actions, an edit by at most 0.1 could not be as
    random as ``entropy_per_entry`` asks for.

    When acting, b is the averaged policy and Z are all heads. Base policy, editor and temperature move once in
    ``delay`` updates. In the warm-up the base policy acts as it is.

    Chunks, histories and the scale of observations are the base policy's, whatever ``model`` says of them.

    Attributes:
        proposals: N.
        edit: Greatest change of an action entry, in units of half the width of its bounds: 0.05 to 0.7, as far as
            what was demonstrated lies from what is best; 0 chooses among the proposals only.
        cloning: How the base policy goes on imitating.
        editor: Who edits, when it is evaluated, too, by samples.
    """

    kind: Literal["expo"] = "expo"
    entropy_per_entry: float = -0.5
    trusts: Literal["least", "mean"] = "mean"
    target_heads: int | None = Field(2, ge=1)
    proposals: int = Field(8, ge=1)
    edit: float = Field(0.1, ge=0, le=1)
    cloning: BCConfig = BESIDE
    editor: SquashedGaussianConfig = SAMPLING

    def build(self, policy: Policy, model: Model, total_updates: int, runtime: Runtime) -> "EXPO":
        """Return the algorithm.

        Args:
            policy: The base policy, on its device.
            model: Says what critics are like; they are made anew.
            total_updates: Length of the base policy's learning-rate schedule.
            runtime: Precision of the matrix products; the weights stay float32.

        Raises:
            ConfigError: If the model is no Q, or the base policy looks at pictures.
        """
        if not isinstance(model, QModel):
            raise ConfigError(f"algo=expo trains a q, not a {model.config.tree()['kind']} model: set model=q")
        return EXPO(self, policy, model.config, total_updates, runtime)


class EXPO(Soft):
    """See `EXPOConfig`.

    Attributes:
        base: The policy that imitates, as it stands, by samples.
        cloning: What trains it, and averages it.
        policy: The editor.
    """

    config: EXPOConfig

    def __init__(
        self, config: EXPOConfig, base: Policy, critics: QConfig, total_updates: int, runtime: Runtime
    ) -> None:
        """Make editor and critics; see `EXPOConfig.build`."""
        spec = executed(base)
        # without edits nobody asks the editor
        editor = editing(config.editor, base, spec.n_action_steps, max(config.edit, 1e-3))
        super().__init__(config, editor, sharing(critics, base, spec), total_updates, runtime)
        self.base = drawing(base)  # of several proposals that are one there is nothing to choose
        self.cloning = BC(config.cloning, base, max(1, total_updates // config.delay), runtime)
        self._averaged, weight = drawing(self.cloning.deployed()), float(config.edit > 0)
        chosen = LearnedEdit(editor, self.target, self._averaged, config.proposals, weight)
        self._steered = SteeredPolicy(self._averaged, [chosen]).eval()
        low, high = torch.tensor([base.spec.action_low, base.spec.action_high], device=base.device)
        self.low, self.high = low, high

    @property
    def trained(self) -> dict[str, Trained]:
        """See `Algorithm.trained`."""
        return super().trained | owned("cloning", self.cloning.trained)

    @property
    def beside(self) -> dict[str, nn.Module | Remembers]:
        """See `Algorithm.beside`."""
        return super().beside | owned("cloning", self.cloning.beside)

    @property
    def needs(self) -> Needs:
        """See `Algorithm.needs`."""
        return self.model.needs.joined(self.cloning.needs)

    def update(self, batch: Mapping[str, Any], step: int, generator: Generator) -> dict[str, Tensor]:
        """See `Algorithm.update`: the critics, then base policy, editor and temperature, then the target."""
        spec = self.model.spec
        own = narrowed(batch, spec.n_obs_steps, spec.horizon)
        own["action"] = self.model.actions(own)
        q_loss = self.fit_critics(own, step, generator)
        told = {"train/loss": q_loss, "train/q_loss": q_loss}
        if (step + 1) % self.config.delay == 0:
            spec = self.base.spec
            windows = narrowed(batch, spec.n_obs_steps, spec.horizon)
            cloned = self.cloning.update(windows, step // self.config.delay, generator)
            told["train/cloning_loss"] = cloned["train/loss"]
            if self.config.edit > 0:
                told |= self.improve(own, generator)
        self.follow()
        return told

    def judged(self, batch: Mapping[str, Any], generator: Generator) -> tuple[Tensor, Tensor]:
        """See `Soft.judged`; edits of the actions of a batch."""
        obs, actions = batch["obs"], batch["action"]
        drawn = self.policy.sample(beside(obs, actions[:, None]), generator)
        return drawn.log_prob, self.model.q(obs, self.within(actions + drawn.action.view_as(actions)), generator)

    def goals(self, batch: Mapping[str, Any], generator: Generator) -> Tensor:
        """See `OffPolicy.goals`."""
        obs = batch["next_obs"]
        worth = self.least(obs, self.candidates(self.base, obs, generator), generator).amax(-1)
        goal: Tensor = batch["reward"] + batch["discount"] * worth
        return goal

    @torch.no_grad()
    def candidates(self, base: Policy, obs: Mapping[str, Tensor], generator: Generator) -> Tensor:
        """Return the proposals of a policy and their edits, (B, N or 2 N, h, A), within the bounds."""
        count, steps = self.config.proposals, self.model.spec.chunk
        chunks = self.within(base.act(obs, count, generator)[:, :, :steps])
        if self.config.edit == 0:
            return chunks
        shape = (len(chunks), count, 1, chunks[0, 0].numel())
        noise = torch.randn(shape, generator=generator, device=chunks.device)
        return torch.cat([chunks, self.within(edited(self.policy, obs, chunks, noise))], 1)

    def within(self, actions: Tensor) -> Tensor:
        """Return actions (..., A) clipped to their bounds."""
        return torch.minimum(torch.maximum(actions, self.low), self.high)

    @torch.no_grad()
    def tried(self, obs: Mapping[str, Tensor], generator: Generator) -> Tensor:
        """See `OffPolicy.tried`; the best candidate of the averaged policy."""
        obs = newest(obs, self.base.spec.n_obs_steps)
        candidates = self.candidates(self._averaged, obs, generator)
        best = self.target.q(obs, candidates).amin(0).argmax(-1)
        return candidates[torch.arange(len(best), device=best.device), best]

    def warm_up(self, obs: Mapping[str, Tensor], generator: Generator) -> Explored:
        """See `robopol.algos.algorithm.WarmsUp`; the base policy."""
        seen = newest(obs, self.base.spec.n_obs_steps)
        chunk = self._averaged.act(seen, 1, generator)[:, 0, : self.model.spec.chunk]
        return Explored(self.within(chunk).float())

    def deployed(self) -> Policy:
        """See `Algorithm.deployed`; the averaged policy, its best proposal or edit."""
        return self._steered

    def parts(self) -> dict[str, Part]:
        """See `Algorithm.parts`; the steered policy, and the target of Q."""
        return {"policy": self._steered, "model": self.target}
