"""What a policy answers to a request, whichever policy it is."""

import torch
from torch import Tensor

from robopol.data.episodes import is_image
from robopol.errors import MessageError
from robopol.policies import Policy, Previous
from robopol.policies.given import Given, Watched
from robopol.policies.policy import Generators
from robopol.policies.remote.protocol import VERSION, Metadata, Request
from robopol.policies.walking import WalkingPolicy


class Served:
    """A policy and what is said of it.

    A request that gives noise, or seeds, is answered by the plan that the policy makes of such noise, or with
    generators of such seeds, to the bit.

    Attributes:
        policy: The policy, in evaluation mode.
        metadata: What clients are told.
    """

    def __init__(self, policy: Policy, batch: int, proposals: int) -> None:
        """Find out what noise the policy takes, by a first plan.

        One that compiles or captures what it does (`WalkingPolicy.for_acting`) does so here, for one row and for
        many, before anyone waits for an answer.

        Args:
            policy: It is put into evaluation mode.
            batch: Most rows of a request.
            proposals: Most proposals for a row.

        Raises:
            ConfigError: If it cannot be served under the names that its observations have.
        """
        self.policy = policy.eval()
        self.metadata = Metadata(
            version=VERSION,
            spec=policy.spec,
            weights=self.policy.fingerprint().hex(),
            noise_shape=noise_shape(policy),
            batch=batch,
            proposals=proposals,
            goes_on=policy.goes_on,
        )
        base = policy.inner()
        if isinstance(base, WalkingPolicy) and base.backend is not None:
            for rows in sorted({1, batch}):
                policy.plan(_nothing(policy, rows))

    def plan(self, request: Request) -> Tensor:
        """Return windows (B, n, Tp, A) in environment units.

        Raises:
            RobopolError: If the policy cannot plan so.
        """
        device = self.policy.device
        obs = {key: torch.from_numpy(value).to(device) for key, value in request.obs.items()}
        previous = None
        if request.previous is not None and request.passed is not None:
            delays = [-1] * len(request.passed) if request.delay is None else request.delay.tolist()
            told = zip(torch.from_numpy(request.previous), request.passed.tolist(), delays, strict=True)
            previous = [
                Previous(window, passed, None if delay < 0 else delay) if passed >= 0 else None
                for window, passed, delay in told
            ]
        windows = self.policy.plan(obs, request.n, self._generator(request), previous).cpu()
        if not windows.isfinite().all():
            raise MessageError("the plan has numbers that are not finite: are those of the observations?")
        return windows

    def _generator(self, request: Request) -> Generators:
        if request.noise is not None:
            noise, shape = torch.from_numpy(request.noise), self.metadata.noise_shape
            return Given([noise] if shape is not None and len(shape) == 2 else noise.unbind(2))
        if request.seeds is not None:
            return [torch.Generator().manual_seed(seed) for seed in request.seeds.tolist()]
        return None


def noise_shape(policy: Policy) -> tuple[int, ...] | None:
    """Return what noise a proposal of a policy is made from, as `Metadata` says it; None where it takes none.

    It takes noise if all that it draws are tensors (B, n, Tp, A) of standard normal numbers, as many for every plan.
    """
    spec, rows, n = policy.spec, 2, 3
    whole = (rows, n, spec.horizon, spec.action_dim)
    obs = _nothing(policy, rows)
    old = Previous(torch.zeros(spec.horizon, spec.action_dim), 1 if spec.horizon > 1 else 0)
    found = []
    for previous in ([None] * rows, [old, None] if policy.goes_on else [None] * rows):
        watched = Watched()
        policy.plan(obs, n, watched, previous)
        found.append(watched)
    if any(one.otherwise or set(one.shapes) != {whole} for one in found) or found[0].shapes != found[1].shapes:
        return None
    draws = len(found[0].shapes)
    return whole[2:] if draws == 1 else (draws, *whole[2:])


def _nothing(policy: Policy, rows: int) -> dict[str, Tensor]:
    """Return observation histories of zeros, key -> (rows, To, ...)."""
    return {
        key: torch.zeros(
            rows,
            policy.spec.n_obs_steps,
            *shape,
            dtype=torch.uint8 if is_image(key) else torch.float32,
            device=policy.device,
        )
        for key, shape in policy.spec.obs_shapes.items()
    }
