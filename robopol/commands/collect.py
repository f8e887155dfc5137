"""Record episodes as a dataset.

  robopol collect env=push out=demos.hdf5 [episodes=200] [seed=0] [way=left] [noise=0.002] [checkpoint=DIR]
  robopol collect env=gym env.id=Hopper-v5 checkpoint=sb3:SAC:agent.zip trust=true out=hopper.hdf5 keep=all

The episodes are those of the world's scripted expert, or of a policy: ``checkpoint`` takes what `robopol eval` takes.
Failed episodes are left out unless keep=all. The dataset is written at the end, also after Ctrl-C, a fault, or when too
few succeed: of the episodes that were whole by then. A policy can be steered: steering={kind: ...}, as for
`robopol eval`.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from robopol.commands.acting import ActingCommand
from robopol.config import OneOf, parse
from robopol.configs import load_config
from robopol.envs.config import EnvWords
from robopol.errors import ConfigError, DataError
from robopol.execution import RecedingHorizonConfig
from robopol.steering.steering import Steerings

if TYPE_CHECKING:
    from robopol.data import Episodes


class CollectCommand(ActingCommand):
    """What `robopol collect` is told.

    Attributes:
        out: Where the dataset goes; the suffix says the format.
        env: The world; that of a policy is the one it was trained for, if no other is named.
        episodes: How many episodes are kept.
        seed: Seed of the first; each further episode takes the next one.
        keep: Whether failed episodes are kept.
        way: The way the expert takes; None draws one for each episode.
        noise: Standard deviation of the expert's disturbance; None is its default.
        checkpoint: Record this policy instead of the expert; whatever `robopol eval` takes.
        execution: How the plans of a policy are executed.
        steering: What steers the policy, in the order in which it acts.
        num_envs: Environments stepped together; does not change what is recorded.
    """

    out: str
    env: EnvWords | None = None
    episodes: int = Field(200, ge=1)
    seed: int = Field(0, ge=0)
    keep: Literal["success", "all"] = "success"
    way: str | None = None
    noise: float | None = Field(None, ge=0)
    checkpoint: str | None = None
    execution: Annotated[Any, OneOf("executor")] = RecedingHorizonConfig()
    steering: Steerings = ()
    num_envs: int = Field(16, ge=1)


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    command = parse(CollectCommand, load_config("collect", words))

    from robopol.data import check_writable
    from robopol.evaluation import Actor, ExpertActor
    from robopol.evaluation.collect import collect_into

    out = check_writable(command.out)
    with ExitStack() as opened:
        actor: Actor
        if command.checkpoint is None:
            world = None if command.env is None else command.env.world(None)
            if world is None:
                raise ConfigError("nobody says which world the expert is to act in: name one, e.g. env=push")
            env = opened.enter_context(world.make(command.num_envs))
            actor, source = ExpertActor(env, command.way, command.noise), "expert"
        else:
            from robopol.evaluation.protocol import check_contract

            policy, env = command.load_into(command.checkpoint, command.env, command.num_envs, opened, command.steering)
            check_contract(policy, env)
            actor, source = command.execution.build(policy), "policy"
        kept: list[Episodes] = []
        try:
            succeeded = command.keep == "success"
            collect_into(kept, actor, env, command.episodes, command.seed, source=source, only_success=succeeded)
        finally:
            _save(command, out, kept, f"{env.spec.id} from {source}")
    return 0


def _save(command: CollectCommand, out: Path, kept: "list[Episodes]", origin: str) -> None:
    """Write what there is, and say if it is less than was wanted; as arrays, where the format cannot hold it."""
    from robopol.data import Episodes, save_episodes

    if not kept:
        return
    episodes = Episodes.concat(kept)
    try:
        save_episodes(episodes, command.out)
    except DataError as error:
        rescued = f"arrays:{out.with_name(f'{out.name}-arrays')}"
        save_episodes(episodes, rescued)
        raise DataError(f"{error}. Nothing is lost: `robopol data convert {rescued} URI`") from error
    wanted = f" of the {command.episodes} wanted" if len(episodes) < command.episodes else ""
    print(f"{command.out}: {len(episodes)} episodes{wanted}, {episodes.num_steps} steps of {origin}")
