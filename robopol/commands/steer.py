"""Steer a frozen policy by hand, on a page in the browser.

  robopol steer checkpoint=DIR [env=push] [seed=100000] [port=8765] [plans=16] [policy.steps=5]
  robopol steer checkpoint=DIR 'steering={kind: warm_start}'
  robopol steer checkpoint=DIR 'motion={actions: [0, 1], means: delta, start: [0, 1]}'

It prints an address; open it in a browser on this machine. The page shows the plans of the policy from above: drag a
target, draw a line or discs to keep away from, watch the plans change, execute them in the simulator, and copy the
command line that evaluates the policy steered so. Ctrl-C ends it. Only this machine can reach the page, and only with
the token in the address.

``checkpoint``, ``trust``, ``remote``, ``device``, ``env`` and ``policy`` are those of `robopol eval`. What is named by
``steering`` always acts, before what is drawn. Policies that move the tool of an arm or the point of MultiGoal need no
word about it; for others ``motion`` says which entries of an action move along the two axes of a plane, and how
(docs/steering-by-hand.md).
"""

from contextlib import ExitStack

from pydantic import Field

from robopol.commands.acting import ActingCommand
from robopol.config import parse
from robopol.configs import load_config
from robopol.envs.config import EnvWords
from robopol.steering.objectives import Motion
from robopol.steering.steering import Steerings

OWN = ("port", "seed", "plans", "motion", "steering")
"""Keys that do not name the policy."""


class SteerCommand(ActingCommand):
    """What `robopol steer` is told.

    Attributes:
        checkpoint: What `robopol eval` takes.
        seed: Seed of the first episode.
        port: Where the page is on this machine; 0 is any free port.
        plans: How many plans are sampled at a time.
        motion: How actions become positions in a plane; None where that is known without a word.
        env: What is other than in the world that the policy was trained for, or another one.
        steering: What steers it always, in the order in which it acts.
    """

    checkpoint: str
    seed: int = Field(100_000, ge=0, lt=1 << 31)
    port: int = Field(8765, ge=0, lt=1 << 16)
    plans: int = Field(16, ge=1, le=64)
    motion: Motion | None = None
    env: EnvWords | None = None
    steering: Steerings = ()


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    command = parse(SteerCommand, load_config("steer", words))

    from robopol.studio import Session, Studio

    with ExitStack() as opened:
        policy, env = command.load_into(command.checkpoint, command.env, 1, opened)
        session = Session(
            policy,
            env,
            motion=command.motion,
            steerings=command.steering,
            seed=command.seed,
            plans=command.plans,
            words=[word for word in words if word.lstrip("+").split("=")[0].split(".")[0] not in OWN],
        )
        with Studio(session, command.port) as studio:
            print(f"{studio.url}\nopen this address in a browser; Ctrl-C ends it", flush=True)
            try:
                studio.run()
            except KeyboardInterrupt:
                print("ended")
    return 0
