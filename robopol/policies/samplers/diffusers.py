"""Any scheduler of the diffusers library as a sampler of a diffusion chain, or of a straight flow."""

import inspect
from typing import Any, Literal

import torch
from pydantic import Field as Bound
from torch import Tensor

from robopol.errors import ConfigError, MissingExtraError
from robopol.policies.field import Field
from robopol.policies.paths import Level, Path
from robopol.policies.paths.discrete_vp import DiscreteVP
from robopol.policies.paths.rectified_flow import RectifiedFlow
from robopol.policies.samplers.sampler import Draw, Hook, Kernel, Sampler, SamplerConfig, Stepper, Visit, move, visit
from robopol.registry import nearest

FLOW_TIME = 1000
"""What diffusers' time is where a flow is noise alone."""


class DiffusersConfig(SamplerConfig):
    """A scheduler of diffusers, asked for its steps: told a policy's chain, or made for flows and given a flow policy.

    It draws its noise itself, from one generator for each row; hooks see its states in the chain's frame, as
    deterministic steps.

    Attributes:
        scheduler: Name of its class.
        options: Further arguments of that class.
    """

    kind: Literal["diffusers"] = "diffusers"
    scheduler: str = "UniPCMultistepScheduler"
    steps: int | None = Bound(10, ge=1)
    options: dict[str, bool | int | float | str] = Bound(default_factory=dict)

    def build(self) -> "Diffusers":
        """Return the sampler.

        Raises:
            ConfigError: If diffusers has no such scheduler, or it does not walk such chains.
            MissingExtraError: If it is not installed.
        """
        return Diffusers(self)


class Diffusers(Sampler[Visit]):
    """See `DiffusersConfig`."""

    config: DiffusersConfig
    repeats = False

    def __init__(self, config: DiffusersConfig) -> None:
        """Find the scheduler's class; see `DiffusersConfig.build`."""
        super().__init__(config)
        try:
            from diffusers import SchedulerMixin, schedulers
        except ImportError:
            raise MissingExtraError("diffusers", "diffusers", "its schedulers") from None
        # names of this one package only, and of schedulers only: a config can cause no other import
        names = [name for name in dir(schedulers) if name.endswith("Scheduler") and not name.startswith("Flax")]
        found = getattr(schedulers, config.scheduler) if config.scheduler in names else None
        if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
            raise ConfigError(f"diffusers has no scheduler '{config.scheduler}'{nearest(config.scheduler, names)}")
        self._class: Any = found
        self._seeded = "generator" in inspect.signature(self._class.step).parameters
        self._flows = config.scheduler.startswith("FlowMatch")
        if not self._flows and "trained_betas" not in inspect.signature(self._class.__init__).parameters:
            raise self._unfit("cannot be told a chain of noising steps")
        given = list(inspect.signature(self._class.step).parameters.values())[4:]  # after the output, time and state
        if more := [each.name for each in given if each.default is each.empty and each.kind is not each.VAR_KEYWORD]:
            raise self._unfit(f"wants more for a step ({', '.join(more)})")

    def times(self, path: Path) -> Tensor:
        """See `Sampler.times`."""
        told = torch.as_tensor(self._scheduler(path).timesteps, dtype=torch.float64)
        return path.time_of(_share_to_kappa(told / FLOW_TIME)) if self._flows else told

    def draws_itself(self, path: Path) -> bool:
        """See `Sampler.draws_itself`; many a step takes a generator and draws only with some of the options."""
        if not self._seeded:
            return False
        scheduler, source, state = self._scheduler(path), torch.Generator().manual_seed(0), torch.zeros(1, 1, 1)
        before = source.get_state()
        for t in scheduler.timesteps:
            x = state if self._flows else scheduler.scale_model_input(state, t)
            state = scheduler.step(x, t, state, generator=source).prev_sample
        return not torch.equal(source.get_state(), before)

    def sample(
        self,
        field: Field,
        noise: Tensor,
        cond: Tensor,
        draw: Draw,
        *,
        hook: Hook | None = None,
        kernel: Kernel | None = None,
    ) -> Tensor:
        """See `Sampler.sample`."""
        scheduler = self._scheduler(field.path)
        table = self.table(field)
        network, visits = field.prepare(table.schedule, cond), table.rows
        more: dict[str, Any] = {}
        if self._seeded:
            bits = draw().flatten(1)[:, 0].contiguous().view(torch.int32).tolist()
            more["generator"] = [torch.Generator(noise.device).manual_seed(seed & 0xFFFFFFFF) for seed in bits]
        state = noise if self._flows else noise * scheduler.init_noise_sigma
        for i, t in enumerate(scheduler.timesteps):
            x = state if self._flows else scheduler.scale_model_input(state, t)
            at, output = visits[i], network(x, i)
            x0, eps = at.x0_x * x + at.x0_out * output, at.eps_x * x + at.eps_out * output
            state = scheduler.step(eps - x0 if self._flows else eps, t, state, **more).prev_sample
            if hook is not None:
                state = move(at, i, x, x0, state, 0.0, draw, hook)
        return state if self.config.clip == "never" else state.clamp(-1, 1)

    def _steps(self, field: Field, cond: Tensor, draw: Draw, first: int, hook: Hook | None) -> Stepper:
        """Refuse: a scheduler of diffusers keeps its own frame and memory.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("a walk cannot be taken up in the middle with a scheduler of diffusers: use ddim or ddpm")

    def _scheduler(self, path: Path) -> Any:
        """Return a fresh scheduler with its timesteps set."""
        if self._flows:
            return self._of_a_flow(path)
        if not isinstance(path, DiscreteVP):
            raise ConfigError(
                "this scheduler of diffusers walks the discrete chains of diffusion policies only; for flow policies "
                "there are FlowMatchEulerDiscreteScheduler and FlowMatchHeunDiscreteScheduler"
            )
        scheduler = self._class.from_config(
            {"num_train_timesteps": path.train_steps, "prediction_type": "epsilon", **self.config.options},
            trained_betas=path.betas.tolist(),
        )
        scheduler.set_timesteps(self.config.steps or path.train_steps)
        # a class that takes a chain may still make another one of it, or walk it the other way
        chain, told = torch.cumprod(1 - path.betas, 0), getattr(scheduler, "alphas_cumprod", torch.zeros(0)).double()
        if told.shape != chain.shape or not torch.allclose(told, chain, rtol=0, atol=1e-5):
            raise self._unfit("walks another chain than the policy's")
        if scheduler.timesteps[0] < scheduler.timesteps[-1]:
            raise self._unfit("walks from data to noise")
        return scheduler

    def _of_a_flow(self, path: Path) -> Any:
        """Return a fresh scheduler of straight flows, whose state is (1 - s) x0 + s eps at a share s of noise."""
        if not isinstance(path, RectifiedFlow) or path.kappa_range[0] > 0:
            raise ConfigError(
                f"{self.config.scheduler} of diffusers walks straight flows only: use it with a flow policy whose "
                "policy.path.sigma_min is 0"
            )
        scheduler = self._class.from_config({**self.config.options, "num_train_timesteps": FLOW_TIME})
        scheduler.set_timesteps(self.config.steps or FLOW_TIME)
        return scheduler

    def _unfit(self, reason: str) -> ConfigError:
        return ConfigError(
            f"{self.config.scheduler} of diffusers does not walk the chain of a diffusion policy: it {reason}. Set "
            "policy.sampler.scheduler to one that does, e.g. UniPCMultistepScheduler or DPMSolverMultistepScheduler"
        )

    def _rows(self, field: Field, visits: list[Visit], levels: list[Level]) -> list[Visit]:
        return [visit(field, at.t, at.at) for at in visits]


def _share_to_kappa(share: Tensor) -> Tensor:
    """Return sigma / alpha of a straight flow that is noise to such a share."""
    return share / (1 - share)
