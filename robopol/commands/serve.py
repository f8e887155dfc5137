"""Serve a policy: whoever connects asks it for plans.

  robopol serve checkpoint=DIR [port=8000]
  robopol serve checkpoint=DIR policy.sampler=ddim policy.steps=5
  robopol serve checkpoint=DIR 'steering={kind: best_of, n: 16, objective: {kind: value, critic: CRITIC}}'
  ROBOPOL_TOKEN=... robopol serve checkpoint=DIR host=0.0.0.0

It prints an address, which robopol eval, robopol collect and the clients of openpi take; Ctrl-C ends it. Only this
machine can reach it unless ``host`` says otherwise, and then clients need a token: that of the environment variable
ROBOPOL_TOKEN, or of token_file. The connection itself is not encrypted. docs/other-policies.md has the messages.

``checkpoint``, ``trust``, ``remote``, ``device``, ``env``, ``policy`` and ``steering`` are those of `robopol eval`;
``env`` is only needed for a policy that does not say itself which world it is for, and is checked for others. A plan
from the server is equal to the bit to that of the policy on this machine.
"""

import signal
from contextlib import ExitStack
from typing import Any

from pydantic import Field

from robopol.commands.acting import ActingCommand
from robopol.config import parse
from robopol.configs import load_config
from robopol.envs.config import EnvConfig
from robopol.execution import BLOCK
from robopol.steering.steering import Steerings


class ServeCommand(ActingCommand):
    """What `robopol serve` is told.

    Attributes:
        checkpoint: What `robopol eval` takes.
        host: Address to listen at; any but one of this machine alone (127.0.0.1) needs a token.
        port: Where; 0 is any free port.
        token_file: File that holds the token that clients must know; None takes it from ROBOPOL_TOKEN, if it is set.
        clients: Most clients at a time.
        rows: Most rows of a request; robopol's executors ask for 16.
        proposals: Most proposals for a row.
        env: The world that the policy must be for; needed by one that does not say so itself.
        steering: What steers it, in the order in which it acts.
    """

    checkpoint: str
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, lt=1 << 16)
    token_file: str | None = None
    clients: int = Field(16, ge=1, le=1024)
    rows: int = Field(BLOCK, ge=1, le=4096)
    proposals: int = Field(256, ge=1, le=1024)
    env: EnvConfig | None = None
    steering: Steerings = ()


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    command = parse(ServeCommand, load_config("serve", words))

    from robopol.evaluation.protocol import check_contract
    from robopol.policies.remote.token import read_token
    from robopol.serving import Served, Server

    token = read_token(command.token_file)
    with ExitStack() as opened:
        env = None if command.env is None else opened.enter_context(command.env.make(1))
        policy = command.load(command.checkpoint, None if env is None else env.spec, command.steering)
        if env is not None:
            check_contract(policy, env)
    served = Served(policy, command.rows, command.proposals)
    with Server(served, command.host, command.port, token=token, clients=command.clients) as server:

        def end(number: int, frame: Any) -> None:
            signal.signal(number, signal.default_int_handler)  # who asks again does not want to wait
            server.stop()

        before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            print(f"{server.url}\nserves {command.checkpoint}; Ctrl-C ends it", flush=True)
            server.run()
            print("ended")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return 0
