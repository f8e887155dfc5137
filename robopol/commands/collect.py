"""Record episodes as a dataset.

  robopol collect env=push out=demos.hdf5 [episodes=200] [seed=0] [way=left] [noise=0.002] [checkpoint=DIR]

The episodes are those of the world's scripted expert, or of a policy (checkpoint=RUN), or of a
Stable-Baselines3 agent (checkpoint=FILE.zip sb3=SAC trust=true: loading such a file runs the code in it).
Failed episodes are left out unless keep=all. A policy can be steered: steering={kind: ...}, as for `robopol eval`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from robopol.config import Config, OneOf, parse
from robopol.configs import load_config
from robopol.envs.config import EnvConfig
from robopol.execution import RecedingHorizonConfig
from robopol.steering.steering import Steerings


class CollectCommand(Config):
    """What `robopol collect` is told.

    Attributes:
        out: Where the dataset goes; the suffix says the format.
        env: The world.
        episodes: How many episodes are kept.
        seed: Seed of the first; each further episode takes the next one.
        keep: Whether failed episodes are kept.
        way: The way the expert takes; None draws one for each episode.
        noise: Standard deviation of the expert's disturbance; None is its default.
        checkpoint: Record this policy or agent instead of the expert.
        execution: How the plans of a policy are executed.
        steering: What steers the policy, in the order in which it acts.
        sb3: The algorithm that wrote the checkpoint, if it is one of Stable-Baselines3.
        trust: Allow a checkpoint that runs code when it is loaded.
        num_envs: Environments stepped together; does not change what is recorded.
    """

    out: str
    env: EnvConfig
    episodes: int = Field(200, ge=1)
    seed: int = Field(0, ge=0)
    keep: Literal["success", "all"] = "success"
    way: str | None = None
    noise: float | None = Field(None, ge=0)
    checkpoint: str | None = None
    execution: Annotated[Any, OneOf("executor")] = RecedingHorizonConfig()
    steering: Steerings = ()
    sb3: str | None = None
    trust: bool = False
    num_envs: int = Field(16, ge=1)


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    command = parse(CollectCommand, load_config("collect", words))

    from robopol.data import describe, save_episodes
    from robopol.evaluation import Actor, ExpertActor
    from robopol.evaluation.collect import collect
    from robopol.evaluation.sb3 import SB3Actor

    with command.env.make(command.num_envs) as env:
        actor: Actor
        if command.checkpoint is None:
            actor, source = ExpertActor(env, command.way, command.noise), "expert"
        elif command.sb3 is not None:
            actor = SB3Actor(Path(command.checkpoint), command.sb3, env, trust=command.trust)
            source = f"sb3 {command.sb3}"
        else:
            from robopol.checkpoint import load_policy
            from robopol.evaluation.protocol import check_contract

            policy = load_policy(command.checkpoint)
            if command.steering:
                policy = policy.steered(*command.steering)
            check_contract(policy, env)
            actor, source = command.execution.build(policy), "policy"
        episodes = collect(
            actor, env, command.episodes, command.seed, source=source, only_success=command.keep == "success"
        )
    save_episodes(episodes, command.out)
    facts = describe(episodes)
    print(f"{command.out}: {facts['episodes']} episodes, {facts['steps']} steps of {command.env.id} from {source}")
    return 0
