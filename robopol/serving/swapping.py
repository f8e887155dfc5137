"""Another policy in the place of one that is served: loaded and tried while that answers."""

from collections.abc import Callable

from robopol.data import Episodes
from robopol.errors import ConfigError
from robopol.evaluation.fitness import check_successor, fitness, in_time, within
from robopol.policies import Policy
from robopol.serving.served import Served
from robopol.serving.server import Server

MARGIN = 0.1
"""Share of the box of actions that plans may be beyond it."""


def swap(server: Server, load: Callable[[], Policy], trials: Callable[[], Episodes]) -> str:
    """Load a policy, try it, and serve it to those who come from then on; called beside the thread of `Server.run`.

    All that is planned for the trial is planned between two requests, so a client waits for one plan more at most. One
    that compiles what it does compiles it there too.

    Args:
        server: The server, which goes on with what it serves whatever happens here.
        load: Loads the policy.
        trials: Loads the episodes that it is tried on.

    Returns:
        The hash of the new weights.

    Raises:
        RobopolError: If it cannot be loaded, is for something else, has the same weights, or does not plan well.
    """
    policy, old = load(), server.served
    check_successor(policy.spec, old.policy.spec)
    if policy.fingerprint() == old.policy.fingerprint():
        raise ConfigError("it is what is served already, to the last weight")
    served = server.do(lambda: Served(policy, old.metadata.batch, old.metadata.proposals))
    found = fitness(policy, trials(), within(policy.spec, MARGIN), server.do)
    if fault := found.fault(in_time(policy.spec, policy.spec.n_action_steps)):
        raise ConfigError(fault)
    server.swap(served)
    return served.metadata.weights
