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
from the server is equal to the bit to that of the policy on this machine, where both compute by the same kernels, which
are measured when a program begins.

The signal SIGUSR1 loads ``checkpoint`` anew and tries it on ``trials`` while the policy that is served goes on. If it
is fit, whoever connects from then on is served by it; who is connected keeps the policy that they have.
"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pydantic import Field

from robopol.commands.acting import ActingCommand
from robopol.config import parse
from robopol.configs import load_config
from robopol.envs.config import EnvConfig
from robopol.errors import ConfigError, RobopolError
from robopol.execution import BLOCK
from robopol.steering.steering import Steerings

if TYPE_CHECKING:
    from robopol.data import Episodes
    from robopol.policies import Policy
    from robopol.serving import Server


class ServeCommand(ActingCommand):
    """What `robopol serve` is told.

    Attributes:
        checkpoint: What `robopol eval` takes.
        host: Address to listen at; any but one of this machine alone (127.0.0.1) needs a token.
        port: Where; 0 is any free port.
        token_file: File that holds the token that clients must know; None takes it from ROBOPOL_TOKEN, if it is set.
        clients: Most clients at a time.
        trials: Dataset that new weights are tried on before they are served, by its URI.
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
    trials: str | None = None
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

    device = command.prepare()  # not again where new weights are loaded: arithmetic is that of the whole process

    def load() -> "Policy":
        with ExitStack() as opened:
            env = None if command.env is None else opened.enter_context(command.env.make(1))
            policy = command.load(command.checkpoint, None if env is None else env.spec, command.steering, device)
            if env is not None:
                check_contract(policy, env)
        return policy

    token, policy = read_token(command.token_file), load()
    served = Served(policy, command.rows, command.proposals)
    with Server(served, command.host, command.port, token=token, clients=command.clients) as server:

        def end(number: int, frame: Any) -> None:
            signal.signal(number, signal.default_int_handler)  # who asks again does not want to wait
            server.stop()

        swapping = [threading.Thread()]

        def anew(number: int, frame: Any) -> None:
            if not swapping[0].is_alive():
                swapping[0] = threading.Thread(target=_swap, args=(server, load, command), daemon=True)
                swapping[0].start()

        before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, anew)
        try:
            anew_by = f"kill -USR1 {os.getpid()} loads it anew"
            print(f"{server.url}\nserves {command.checkpoint}; Ctrl-C ends it, {anew_by}", flush=True)
            server.run()
            print("ended")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return 0


def _swap(server: "Server", load: Callable[[], "Policy"], command: ServeCommand) -> None:
    """Try what the checkpoint is now, and say what became of it."""
    from robopol.data import load_episodes
    from robopol.serving import swap

    def trials() -> "Episodes":
        if command.trials is None:
            raise ConfigError("there is nothing to try it on: name a dataset, trials=FILE.hdf5")
        return load_episodes(command.trials)

    try:
        weights = swap(server, load, trials)
        print(f"serves other weights of {command.checkpoint} to who comes now: {weights}", flush=True)
    except RobopolError as error:
        print(f"goes on with the weights that it has: {error}", flush=True)
