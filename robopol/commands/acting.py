"""What verbs share that let a policy act: what is said about it, and the way to it."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from robopol.config import Config
from robopol.envs.config import EnvWords
from robopol.errors import ConfigError
from robopol.policies.remote import RemoteOptions
from robopol.policies.resampling import Acting
from robopol.steering.steering import Steerings

if TYPE_CHECKING:
    from robopol.envs import EnvSpec, VectorEnv
    from robopol.policies import Policy


class ActingCommand(Config):
    """How a policy is loaded and walked.

    Attributes:
        trust: Allow a checkpoint that runs code when it is loaded.
        remote: What is said about a server.
        device: Where the policy runs; ``auto`` takes a GPU if there is one.
        policy: How the policy is walked, if not as it was saved.
    """

    trust: bool = False
    remote: RemoteOptions = RemoteOptions()
    device: str = "auto"
    policy: Acting = Acting()

    def prepare(self) -> str:
        """Choose and set this process's arithmetic, once; return the device where the policy is to be.

        It is measured for as many rows as a policy is asked for at a time: what is fastest for a training's batches can
        take more than twice as long for a few rows.
        """
        from robopol.execution import BLOCK
        from robopol.networks.precision import RuntimeConfig

        runtime = RuntimeConfig(device=self.device).build(batch=BLOCK)
        runtime.apply()
        return runtime.device

    def load(
        self,
        checkpoint: str,
        world: "EnvSpec | None" = None,
        steering: Steerings = (),
        device: str | None = None,
    ) -> "Policy":
        """Return a policy, steered and walked as it is to be.

        Args:
            checkpoint: Whatever `robopol.load_policy` takes.
            world: Where it will act, for what does not say so itself.
            steering: What steers it, in the order in which it acts.
            device: Where `prepare` said that it is to be, if it was called; None calls it.

        Raises:
            ConfigError: If it cannot be walked or steered so; and what `robopol.load_policy` raises.
        """
        from robopol.export import ExportedPolicy
        from robopol.loading import load_policy

        device = self.prepare() if device is None else device
        policy = load_policy(checkpoint, device, trust=self.trust, world=world, remote=self.remote)
        if isinstance(policy, ExportedPolicy) and self.policy != Acting():
            raise ConfigError("an exported policy's walk is fixed: export the checkpoint anew with another sampler")
        return self.policy.apply(policy, steering)

    def load_into(
        self, checkpoint: str, env: EnvWords | None, num_envs: int, opened: ExitStack, steering: Steerings = ()
    ) -> "tuple[Policy, VectorEnv]":
        """Return a policy and the world it acts in: the one that is named, or else the policy's own.

        Args:
            checkpoint: As for `load`.
            env: What is said of the world, if anything.
            num_envs: Environments stepped together.
            opened: Closes the world.
            steering: As for `load`.

        Raises:
            ConfigError: If nobody says which world it is; and what `load` raises.
            EnvError: If the policy's own world would read files.
        """
        said = EnvWords() if env is None else env
        if (named := said.world(None)) is not None:
            world = opened.enter_context(named.make(num_envs))
            return self.load(checkpoint, world.spec, steering), world
        policy = self.load(checkpoint, None, steering)
        if (own := said.world(policy.spec.env)) is None:
            raise ConfigError(f"{checkpoint} does not say which world it is for: name one, e.g. env=push")
        return policy, opened.enter_context(own.make(num_envs))
