"""What all policies share that walk a field from noise to data, whatever the data are: actions, or states."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from robopol.config import parse
from robopol.errors import ConfigError
from robopol.networks.acting import ActingDenoiser
from robopol.networks.compiled import compiled
from robopol.networks.packed import Weights, pack
from robopol.policies.field import Field
from robopol.policies.policy import Policy
from robopol.policies.samplers import Sampler
from robopol.policies.samplers.captured import Captured

Backend = Literal["packed", "packed_fp16", "packed_bf16", "compile", "cuda_graph"]
PACKED: dict[str, Weights] = {"packed": "fp32", "packed_fp16": "fp16", "packed_bf16": "bf16"}
"""The backends with packed weights, and the weights of each."""

NO_STEERING = (
    "policy.backend=cuda_graph repeats the policy's own walk, and cannot be steered: use policy.backend=compile, or "
    "leave one of the two out"
)


class WalkingPolicy(Policy):
    """A policy with a field and a sampler, which can be exchanged.

    Attributes:
        config: Has a ``sampler``.
        scaling: The key of the config that says how what is walked is scaled.
        field: What is trained.
        sampler: How it is walked.
        backend: What computes it, if not torch operation by operation; see `for_acting`.
    """

    config: Any
    scaling: ClassVar[str] = "action_normalization"
    field: Field
    sampler: Sampler[Any]
    backend: Backend | None = None

    @property
    @abstractmethod
    def walked(self) -> Field:
        """The field that is walked when acting: the trained one, pulled towards what is asked for."""

    def resample(self, sampler: Any) -> None:
        """Walk with another sampler from now on; the weights stay.

        Args:
            sampler: A `robopol.policies.samplers.SamplerConfig`.

        Raises:
            ConfigError: If the field cannot be walked so, or what was not clipped would be, though it leaves [-1, 1].
        """
        how, before = getattr(self.config, self.scaling), self.config.sampler.clip
        if before == "never" and sampler.clip != "never" and how not in ("minmax", "bounds"):
            raise ConfigError(
                f"{self.scaling}={how} leaves some of the data outside [-1, 1], where {sampler.kind} with "
                f"clip={sampler.clip} clips plans, and the policy's own sampler does not: set sampler.clip=never here, "
                f"too, e.g. 'policy.sampler={{kind: {sampler.kind}, clip: never}}', or likewise by algo.sampler"
            )
        config = parse(type(self.config), self.config.tree() | {"sampler": sampler.tree()})
        self.sampler = self._walker(sampler)
        self.config = config

    def _walker(self, sampler: Any) -> Sampler[Any]:
        """Return what walks, and refuse an impossible walk now, not when the policy first acts; see `resample`."""
        built: Sampler[Any] = sampler.build()
        built.table(self.field)
        return Captured(built, self.device) if self.backend == "cuda_graph" else built

    def for_acting(self, backend: Backend = "packed") -> None:
        """Let something else compute from now on; the policy can no longer be trained, copied or moved.

        Plans stay what they were, from the same generators: up to rounding, and with ``"packed_fp16"`` and
        ``"packed_bf16"`` up to that of their weights. A policy with packed weights cannot be saved either.

        Args:
            backend: ``"packed"``, ``"packed_fp16"`` and ``"packed_bf16"`` multiply with packed weights on a CPU (see
                `robopol.networks.packed.pack`), ``"compile"`` has torch.compile make the network's steps,
                ``"cuda_graph"`` replays whole walks on a GPU, without steerings.

        Raises:
            ConfigError: If it was called before, or what is asked for is not there: a CPU, its bfloat16 products,
                FBGEMM, CUDA, a sampler that can be captured.
        """
        if self.backend is not None:
            raise ConfigError(f"the policy acts by policy.backend={self.backend} already: load it anew for another one")
        if backend == "cuda_graph":
            self.sampler = Captured(self.sampler, self.device)
            self.field.net = ActingDenoiser(self.field.net, "the networks of captured walks")
        elif backend == "compile":
            self.field.net = compiled(self.field.net)
        else:
            self.field.net = pack(self.field.net, PACKED[backend])
        self.backend = backend

    def steered(self, *steerings: Any) -> Policy:
        """See `Policy.steered`; a CUDA graph has no place for what steers."""
        if self.backend == "cuda_graph":
            raise ConfigError(NO_STEERING)
        return super().steered(*steerings)
