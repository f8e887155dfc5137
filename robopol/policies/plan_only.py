"""Policies that plan and nothing else: exported ones, and those that robopol did not train."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Generator, Tensor, nn

from robopol.config import Config, parse
from robopol.data import Episodes
from robopol.data.normalizer import Normalizer
from robopol.envs.config import EnvConfig
from robopol.envs.spec import EnvSpec
from robopol.errors import ConfigError
from robopol.policies.observation import take
from robopol.policies.part import PolicySpec
from robopol.policies.policy import Generators, Policy, Previous, check_generators
from robopol.registry import nearest


class PlanOnlyPolicy(Policy):
    """A policy without an encoder, in which nothing can be trained.

    Attributes:
        refusal: What to say to whoever asks for more than plans.
    """

    refusal: str

    def __init__(self, config: Config, spec: PolicySpec, normalizer: Normalizer) -> None:
        """Keep what describes the policy.

        Args:
            config: The policy's own config.
            spec: The contract with the world.
            normalizer: Says only what a large difference of two actions is; see `robopol.evaluation.execution`.
        """
        nn.Module.__init__(self)  # there is no encoder here
        self.config = config  # type: ignore[assignment]  # nor anything of what a PolicyConfig tells
        self.spec = spec
        self.action_normalizer = normalizer

    @property
    def device(self) -> torch.device:
        """Where it takes observations."""
        return self.action_normalizer.offset.device

    @abstractmethod
    def plan(
        self,
        obs: Mapping[str, Tensor],
        n: int = 1,
        generator: Generators = None,
        previous: Sequence[Previous | None] | None = None,
    ) -> Tensor:
        """See `Policy.plan`."""

    def histories(self, obs: Mapping[str, Tensor], generator: Generators = None) -> dict[str, Tensor]:
        """Return the observations that the policy looks at, key -> (B, To, ...).

        Args:
            obs: As for `plan`.
            generator: As for `plan`; only the number of generators is looked at.

        Raises:
            ShapeError: If one is missing or has another shape, or there is not a generator for each row.
        """
        steps = self.spec.n_obs_steps
        found = {key: take(obs, key, (steps, *shape)) for key, shape in self.spec.obs_shapes.items()}
        check_generators(generator, count(found))
        return found

    def fit_normalizers(self, episodes: Episodes) -> NoReturn:
        """Refuse; see `refusal`.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(self.refusal)

    def loss(self, batch: Mapping[str, Any], generator: Generator | None = None) -> NoReturn:
        """Refuse; see `refusal`.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(self.refusal)

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> NoReturn:
        raise ConfigError(self.refusal)


def contract(
    world: EnvSpec | None, who: str, keys: Iterable[str] | None, n_obs_steps: int = 1, chunk: int = 1
) -> PolicySpec:
    """Return the contract of a policy that does not know which world it acts in.

    Args:
        world: Where it will act.
        who: The policy, in words.
        keys: The observations that it looks at; None is all that the world has.
        n_obs_steps: To.
        chunk: H, the actions that it plans from now on. All of them are executed before it plans again, unless an
            executor says otherwise.

    Raises:
        ConfigError: If the world was not named, or does not have such observations.
    """
    if world is None:
        raise ConfigError(f"{who} does not say which world it is for: name one, e.g. env=push")
    keys = list(world.obs_shapes if keys is None else keys)
    missing = [f"'{key}'{nearest(key, world.obs_shapes)}" for key in keys if key not in world.obs_shapes]
    if missing:
        raise ConfigError(
            f"{who} looks at {', '.join(missing)}, which {world.id} does not show; it shows "
            f"{', '.join(world.obs_shapes)}. Wrappers rename and join observations: docs/worlds.md"
        )
    return parse(
        PolicySpec,
        {
            "obs_shapes": {key: list(world.obs_shapes[key]) for key in keys},
            "action_names": list(world.action_names),
            "action_low": list(world.action_low),
            "action_high": list(world.action_high),
            "action_space": world.action_space,
            "control_hz": world.control_hz,
            "n_obs_steps": n_obs_steps,
            "horizon": n_obs_steps - 1 + chunk,
            "n_action_steps": chunk,
            "env": EnvConfig.of(world).tree(),
        },
    )


def box_units(spec: PolicySpec) -> Normalizer:
    """Return the map of the box of actions to [-1, 1]; where the box is unbounded, the map that changes nothing."""
    corners = torch.tensor([spec.action_low, spec.action_high])
    if not corners.isfinite().all():
        return Normalizer(spec.action_dim, "identity")
    return Normalizer(spec.action_dim, "bounds", (spec.action_low, spec.action_high))


def row_seeds(rows: int, n: int, generator: Generators) -> Tensor:
    """Draw seeds, those of row b from row b's generator alone.

    Args:
        rows: B.
        n: How many for each row.
        generator: As for `robopol.policies.policy.standard_normal`.

    Returns:
        (B, n) int64, at least 0.
    """

    def draw(shape: tuple[int, ...], source: Generator | None) -> Tensor:
        device = "cpu" if source is None else source.device
        return torch.randint(2**63 - 1, shape, generator=source, device=device).cpu()

    if generator is None or isinstance(generator, Generator):
        return draw((rows, n), generator)
    return torch.stack([draw((n,), source) for source in generator])


def in_blocks(inputs: Mapping[str, Tensor], size: int, run: Callable[[Mapping[str, Tensor]], Tensor]) -> Tensor:
    """Compute rows a block at a time, the last one filled up with copies: every block has as many rows.

    Args:
        inputs: Name -> (B, ...).
        size: Rows of a block.
        run: Computes one block, (size, ...).

    Returns:
        (B, ...).
    """
    rows, found = count(inputs), []
    for start in range(0, rows, size):
        block = {name: tensor[start : start + size] for name, tensor in inputs.items()}
        missing = size - min(size, rows - start)
        if missing:
            block = {
                name: torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])
                for name, tensor in block.items()
            }
        found.append(run(block)[: size - missing].clone())
    return torch.cat(found)


def count(inputs: Mapping[str, Tensor]) -> int:
    """Return B, the number of rows of some inputs, name -> (B, ...)."""
    return len(next(iter(inputs.values())))
