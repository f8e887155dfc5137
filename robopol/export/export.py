"""Writes a policy as an artefact for an engine, and does not finish unless the artefact equals the policy."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from robopol import __version__
from robopol.checkpoint import write_config
from robopol.data import Episodes
from robopol.data.episodes import is_image
from robopol.envs import VectorEnv
from robopol.errors import ConfigError
from robopol.evaluation import SEED0, Recorder, rollout
from robopol.evaluation.fitness import ROWS
from robopol.evaluation.protocol import check_contract
from robopol.execution import RecedingHorizon
from robopol.export.engine import EngineName, engine
from robopol.export.exported import (
    EXPORT,
    NORMALIZER,
    SCHEMA_VERSION,
    Check,
    ExportedPolicy,
    Manifest,
    digest_of,
    load_exported,
)
from robopol.export.trace import NOISE, trace
from robopol.files import occupied, whole_folder, write_json
from robopol.policies import Policy

TOLERANCE = 1e-4
"""Largest absolute difference of an action entry that is accepted, in environment units."""
_BLOCK = 32  # rows that are compared at once


def export(
    policy: Policy, name: EngineName, folder: Path, recorded: Mapping[str, Tensor], source: str, batch: int = 1
) -> Manifest:
    """Write a policy as an artefact and compare the two.

    Args:
        policy: The policy, on the CPU.
        name: The engine.
        folder: Where the artefact goes; an older one is replaced.
        recorded: Recorded observation histories, key -> (`ROWS`, To, ...).
        source: Where they come from, for the record.
        batch: Rows that the artefact computes at once.

    Returns:
        What ``export.json`` says.

    Raises:
        ConfigError: If the policy cannot be exported, the artefact is not equal to it, or the folder holds something
            else than an older artefact.
        MissingExtraError: If the engine is not installed.
    """
    if occupied(folder, EXPORT):
        raise ConfigError(f"{folder} exists and is not an exported policy: choose another place, out=FOLDER")
    graph, chosen = trace(policy, batch), engine(name)
    noise = graph.forms[graph.inputs[NOISE]].shape[1:] if NOISE in graph.inputs else None
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        robopol_version=__version__,
        engine=name,
        versions={},
        batch=batch,
        noise=noise,
        parameters=sum(tensor.numel() for tensor in graph.constants.values()),
        weights=policy.fingerprint().hex(),
        files={},
        tolerance=TOLERANCE,
        checks=(),
    )
    with whole_folder(folder) as draft:
        chosen.write(graph, draft)
        write_config(policy, draft)
        save_file(policy.action_normalizer.state_dict(), draft / NORMALIZER)
        files = {file.name: digest_of(file) for file in sorted(draft.iterdir())}
        manifest = manifest.model_copy(update={"files": files})
        write_json(draft / EXPORT, manifest.tree())
        artefact = load_exported(draft)
        checks = []
        for rows, origin in ((random_like(recorded), "random, spread like the recorded ones"), (recorded, source)):
            error = deviation(policy, artefact, rows)
            if not error <= TOLERANCE:
                raise ConfigError(
                    f"the {name} artefact differs from the policy by up to {error:.2g} on observations ({origin}), "
                    f"accepted is {TOLERANCE}: nothing was written; try another engine or a sampler with fewer steps"
                )
            checks.append(Check(rows=len(next(iter(rows.values()))), max_error=error, source=origin))
        manifest = manifest.model_copy(update={"checks": tuple(checks), "versions": chosen.versions()})
        write_json(draft / EXPORT, manifest.tree())
    return manifest


def deviation(policy: Policy, artefact: ExportedPolicy, obs: Mapping[str, Tensor]) -> float:
    """Return the largest absolute difference of the two policies' windows; infinite where one is not finite.

    Args:
        policy: The policy, which computes in full float32 for this.
        artefact: What was made of it.
        obs: Observation histories, key -> (N, To, ...).
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        largest = 0.0
        for start in range(0, len(next(iter(obs.values()))), _BLOCK):
            rows = {key: value[start : start + _BLOCK] for key, value in obs.items()}
            ours, theirs = (p.plan(rows, generator=torch.Generator().manual_seed(start)) for p in (policy, artefact))
            difference = (ours - theirs).abs().max().item()
            largest = max(largest, difference if difference == difference else float("inf"))
        return largest
    finally:
        torch.set_float32_matmul_precision(before)


def rolled_out(policy: Policy, env: VectorEnv) -> Episodes:
    """Let a policy act until there are `ROWS` observations.

    Args:
        policy: The policy.
        env: Its world.

    Raises:
        ConfigError: If the policy was not made for it.
    """
    check_contract(policy, env)
    found, seed = list[Episodes](), SEED0
    while sum(int(episodes.lengths.sum()) for episodes in found) < ROWS:
        recorder = Recorder(env, "policy")  # it numbers episodes by their place in the rollout
        rollout(RecedingHorizon(policy), env, range(seed, seed + env.num_envs), recorder=recorder)
        found.append(recorder.episodes())
        seed += env.num_envs
    return Episodes.concat(found)


def random_like(recorded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Draw as many observations with twice the spread of recorded ones, every entry by itself; pictures are noise."""
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for key, value in recorded.items():
        if is_image(key):
            drawn[key] = torch.randint(256, value.shape, generator=generator, dtype=torch.uint8)
        else:
            mean, std = value.mean(0, keepdim=True), value.std(0, keepdim=True)
            drawn[key] = mean + 2 * std * torch.randn(value.shape, generator=generator)
    return drawn
