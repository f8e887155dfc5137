"""An exported policy, which acts like the policy that it was made from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from robopol.checkpoint import read_config
from robopol.config import Config, parse
from robopol.data.normalizer import Normalizer
from robopol.errors import CheckpointError
from robopol.export.engine import LARGE, EngineName, Runner, engine
from robopol.export.trace import NOISE, OBSERVATION
from robopol.policies import PolicyConfig, PolicySpec, Previous
from robopol.policies.plan_only import PlanOnlyPolicy, count, in_blocks
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
    bounds = (spec.action_low, spec.action_high)
    normalizer = Normalizer(spec.action_dim, config.action_normalization, bounds)
    try:
        normalizer.load_state_dict(load_file(folder / NORMALIZER))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder / NORMALIZER} cannot be read: {error}") from error
    runner = engine(manifest.engine).load(folder, str(device), threads)
    return ExportedPolicy(config, spec, manifest, runner, normalizer)


class ExportedPolicy(PlanOnlyPolicy):
    """Acts like the policy it was made from, with the same noise from the same generators; it cannot be trained."""

    refusal = "an exported policy plans and nothing else: train or steer the checkpoint it was made from"

    def __init__(
        self, config: PolicyConfig, spec: PolicySpec, manifest: Manifest, runner: Runner, normalizer: Normalizer
    ) -> None:
        """Take over a runner; see `load_exported`.

        The artefact normalises by itself; ``normalizer`` only says what a large difference of two actions is.
        """
        super().__init__(config, spec, normalizer.to(runner.device))
        self.manifest = manifest
        self._runner = runner

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
        histories = self.histories(obs, generator)
        inputs = {OBSERVATION + key: value.repeat_interleave(n, 0) for key, value in histories.items()}
        rows = count(histories)
        if self.manifest.noise is not None:
            draws, *shape = self.manifest.noise
            drawn = [standard_normal((rows, n, *shape), generator, self.device) for _ in range(draws)]
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
        return self._runner.run(inputs) if count(inputs) == size else in_blocks(inputs, size, self._runner.run)
