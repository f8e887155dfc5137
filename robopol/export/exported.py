"""An exported policy, which acts like the policy that it was made from."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from robopol import __version__
from robopol.checkpoint import read_config
from robopol.config import Config, parse
from robopol.data.normalizer import Normalizer
from robopol.errors import CheckpointError
from robopol.export.engine import LARGE, EngineName, Runner, engine
from robopol.export.trace import NOISE, OBSERVATION
from robopol.policies import PolicyConfig, PolicySpec, Previous
from robopol.policies.plan_only import PlanOnlyPolicy, count, in_blocks
from robopol.policies.policy import Generators, fingerprint, standard_normal

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
        weights: What tells the policy that it was made from, `Policy.fingerprint` in hexadecimal digits.
        files: Name of each other file of the folder -> its SHA-256; a file that has another one is damaged, or not the
            one that was compared.
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
    weights: str
    files: dict[str, str]
    tolerance: float
    checks: tuple[Check, ...]


SCHEMA_VERSION = 2


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
        version = tree.get("schema_version", SCHEMA_VERSION) if isinstance(tree, dict) else SCHEMA_VERSION
        manifest = parse(Manifest, tree) if version == SCHEMA_VERSION else None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / EXPORT} does not describe an exported policy: {error}") from error
    if manifest is None:
        raise CheckpointError(
            f"{folder / EXPORT} has schema_version {version!r}, this robopol ({__version__}) reads {SCHEMA_VERSION}: "
            "export the policy anew"
        )
    changed = sorted(name for name, digest in manifest.files.items() if digest_of(folder / name) != digest)
    if changed:
        raise CheckpointError(
            f"{folder}: {', '.join(changed)} is missing or not what was exported and compared: export the policy anew"
        )
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


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits; an empty text if there is none."""
    if not file.is_file():
        return ""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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

    def fingerprint(self) -> bytes:
        """See `Policy.fingerprint`; of the policy that it was made from, and of its files."""
        made = self.manifest
        return fingerprint(self.config, self.spec, {}, made.weights.encode(), repr(sorted(made.files.items())).encode())

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
