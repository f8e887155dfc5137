"""Evaluate a checkpoint over held-out episodes.

  robopol eval checkpoint=DIR [episodes=100] [seed=100000] [num_envs=32] [out=FILE.json] [video=FILE.mp4]
               [execution=temporal_ensemble] [execution.latency=2]
  robopol eval checkpoint=DIR policy.sampler=dpm_solver policy.steps=5 policy.backend=packed_fp16
  robopol eval checkpoint=DIR 'steering={kind: best_of, n: 16, objective: {kind: value, critic: CRITIC}}'
  robopol eval checkpoint=ws://127.0.0.1:8000 env=push
  robopol eval checkpoint=robomimic:model.pth env=robosuite env.id=robosuite/Lift trust=true

``checkpoint`` is a run folder, a checkpoint, a policy folder, or what `robopol export` wrote; or a policy that robopol
did not train (docs/other-policies.md): one that is served elsewhere, a robomimic checkpoint, or a Stable-Baselines3
agent (sb3:SAC:agent.zip). Loading a file of the last two runs the code in it, hence trust=true. The world is the one
the policy was trained for, with what is said of it (env.options.domain.latency=1), unless env=NAME names another.
The outcome of episode i depends on seed + i alone, not on num_envs. A generative policy can be walked with another
sampler than it was saved with (a name, or policy.sampler={kind: ddim, eta: 0.5}), in another number of steps, and
computed otherwise: policy.backend=packed, packed_fp16, packed_bf16, compile or cuda_graph (docs/acting-fast.md). It
can be steered, by one steering or a list of them: robopol list steering.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from robopol.commands.acting import ActingCommand
from robopol.config import OneOf, parse
from robopol.configs import load_config
from robopol.envs.config import EnvWords
from robopol.errors import ConfigError
from robopol.execution import RecedingHorizonConfig
from robopol.steering.steering import Steerings


class EvalCommand(ActingCommand):
    """What `robopol eval` is told.

    Attributes:
        checkpoint: A run folder, a checkpoint, a policy folder, an exported policy, ws://HOST:PORT, robomimic:FILE.pth
            or sb3:ALGORITHM:FILE.zip.
        episodes: How many episodes.
        seed: Seed of the first.
        num_envs: Environments stepped together.
        out: Where the result goes, as JSON.
        video: Where a film of the first episodes goes, as MP4.
        videos: How many episodes are filmed.
        env: What is other than in the world that the policy was trained for, or another one.
        execution: How plans are executed.
        steering: What steers it, in the order in which it acts.
    """

    checkpoint: str
    episodes: int = Field(100, ge=1)
    seed: int = Field(100_000, ge=0)
    num_envs: int = Field(32, ge=1)
    out: str | None = None
    video: str | None = None
    videos: int = Field(6, ge=1)
    env: EnvWords | None = None
    execution: Annotated[Any, OneOf("executor")] = RecedingHorizonConfig()
    steering: Steerings = ()


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    command = parse(EvalCommand, load_config("eval", words))

    from robopol.evaluation.report import evaluate_and_film, show
    from robopol.files import why_not_written, write_json

    if command.out is not None and (reason := why_not_written(Path(command.out))):
        raise ConfigError(f"out={command.out}: {reason}")
    with ExitStack() as opened:
        policy, env = command.load_into(command.checkpoint, command.env, command.num_envs, opened, command.steering)
        video = None if command.video is None else Path(command.video)
        found, notes = evaluate_and_film(
            policy, env, command.episodes, command.seed, video, command.videos, command.execution
        )
    if command.out is not None:
        write_json(Path(command.out), found.tree())
    rows = {"checkpoint": command.checkpoint, "world": env.spec.id}
    show(found, rows | ({"result": command.out} if command.out else {}), notes)
    return 0
