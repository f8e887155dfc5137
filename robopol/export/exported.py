"""An exported policy, which acts like the policy that it was made from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Generator, Tensor, nn

from robopol.checkpoint import load_policy, read_config
from robopol.config import Config, parse
from robopol.data.normalizer import Normalizer
from robopol.errors import CheckpointError, ConfigError
from robopol.export.engine import LARGE, EngineName, Runner, engine
from robopol.export.trace import NOISE, OBSERVATION
from robopol.policies import Policy, PolicyConfig, PolicySpec, Previous
from robopol.policies.observation import take
from robopol.policies.policy import Generators, standard_normal

EXPORT, NORMALIZER = "export.json", "action_normalizer.safetensors"


class Check(Config):
    """How an artefact compared to the policy.

    Attributes:
        rows: Observation histories that were compared.
        max_error: Largest absolute difference of an action entry, in environment units.
        source: Where the observations came from.
    """

    rows: int
    max_error: float
    source: str


class Manifest(Config):
    """What ``export.json`` says.

    Attributes:
        schema_version: Of this file.
        robopol_version: Who wrote it.
        engine: What runs it.
        versions: Packages with which it was written and checked.
        batch: Rows that it computes at once.
        noise: Shape of one row of the noise, (draws, ...); None where the policy draws none.
        parameters: Numbers that the artefact brings along.
        tolerance: Largest difference that was accepted.
        checks: What was compared.
    """

    schema_version: int
    robopol_version: str
    engine: EngineName
    versions: dict[str, str]
    batch: int
    noise: tuple[int, ...] | None
    parameters: int
    tolerance: float
    checks: tuple[Check, ...]


SCHEMA_VERSION = 1


def load(path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """Load whatever acts: an exported policy, or a checkpoint.

    Args:
        path: A folder that `robopol export` wrote, or one that `robopol.checkpoint.load_policy` takes.
        device: Where it runs, if it can run there.

    Raises:
        CheckpointError: If there is neither, or it is damaged.
        MissingExtraError: If the engine of an exported policy is not installed.
    """
    return load_exported(path, device) if (Path(path) / EXPORT).is_file() else load_policy(path, device)


def load_exported(path: str | Path, device: str | torch.device = "cpu", threads: int | None = None) -> "ExportedPolicy":
    """Load an exported policy, ready to act. Nothing in the folder is executed but the graph, by its engine.

    Args:
        path: The folder that `robopol export` wrote.
        device: Where engine ``torch`` runs; the other engines run on the CPU.
        threads: Threads within an operation; None is one for a policy of less than a million weights, which several
            threads would only slow down, and torch's number for others.

    Returns:
        The policy.

    Raises:
        CheckpointError: If the folder is incomplete or damaged.
        MissingExtraError: If its engine is not installed.
    """
    folder = Path(path)
    try:
        tree = json.loads((folder / EXPORT).read_text(encoding="utf-8"))
        manifest = parse(Manifest, tree)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / EXPORT} does not describe an exported policy: {error}") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise CheckpointError(f"{folder / EXPORT} was written by robopol {manifest.robopol_version}: export anew")
    described = read_config(folder, "policy")
    config, spec = described.config, described.spec
    if threads is None:
        threads = 1 if manifest.parameters < LARGE else torch.get_num_threads()
    normalizer = Normalizer(spec.action_dim, config.action_normalization)
    try:
        normalizer.load_state_dict(load_file(folder / NORMALIZER))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder / NORMALIZER} cannot be read: {error}") from error
    runner = engine(manifest.engine).load(folder, str(device), threads)
    return ExportedPolicy(config, spec, manifest, runner, normalizer)


class ExportedPolicy(Policy):
    """Acts like the policy it was made from, with the same noise from the same generators; it cannot be trained."""

    def __init__(
        self, config: PolicyConfig, spec: PolicySpec, manifest: Manifest, runner: Runner, normalizer: Normalizer
    ) -> None:
        """Take over a runner; see `load_exported`.

        The artefact normalises by itself; ``normalizer`` only says what a large difference of two actions is.
        """
        nn.Module.__init__(self)  # there is no encoder here
        self.config, self.spec, self.manifest = config, spec, manifest
        self._runner = runner
        self.action_normalizer = normalizer.to(self.device)

    @property
    def device(self) -> torch.device:
        """Where it takes observations."""
        return torch.device(self._runner.device)

    @torch.no_grad()
    def plan(
        self,
        obs: Mapping[str, Tensor],
        n: int = 1,
        generator: Generators = None,
        previous: Sequence[Previous | None] | None = None,
    ) -> Tensor:
        """See `Policy.plan`. Rows are computed in blocks of the exported size, the last one filled up."""
        spec = self.spec
        inputs = {
            OBSERVATION + key: take(obs, key, (spec.n_obs_steps, *shape)).repeat_interleave(n, 0)
            for key, shape in spec.obs_shapes.items()
        }
        rows = len(next(iter(inputs.values())))
        if self.manifest.noise is not None:
            draws, *shape = self.manifest.noise
            drawn = [standard_normal((rows // n, n, *shape), generator, self.device) for _ in range(draws)]
            inputs[NOISE] = torch.stack(drawn, 2).flatten(0, 1)
        return self.run(inputs).unflatten(0, (-1, n))

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Compute windows from observations and noise.

        Args:
            inputs: ``obs.KEY`` (B, To, ...) in environment units and ``noise`` (B, draws, ...), for any B.

        Returns:
            Windows (B, Tp, A) float32 in environment units.
        """
        size = self.manifest.batch
        rows = len(next(iter(inputs.values())))
        if rows == size:
            return self._runner.run(inputs)
        found = []
        for start in range(0, rows, size):
            block = {name: tensor[start : start + size] for name, tensor in inputs.items()}
            missing = size - min(size, rows - start)
            if missing:
                block = {
                    name: torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])
                    for name, tensor in block.items()
                }
            found.append(self._runner.run(block)[: size - missing].clone())
        return torch.cat(found)

    def _sample(self, cond: Tensor, n: int, generator: Generators) -> Tensor:
        raise self._refusal()

    def _loss(self, action: Tensor, cond: Tensor, mask: Tensor, generator: Generator | None) -> Tensor:
        raise self._refusal()

    def loss(self, batch: Mapping[str, Any], generator: Generator | None = None) -> Tensor:
        """Refuse: an artefact has no weights to train.

        Raises:
            ConfigError: Always.
        """
        raise self._refusal()

    def _refusal(self) -> ConfigError:
        return ConfigError("an exported policy plans and nothing else: train or steer the checkpoint it was made from")
