"""The one way from what a user names to a policy that acts."""

from pathlib import Path

import torch

from robopol import checkpoint as folders
from robopol.envs.spec import EnvSpec
from robopol.errors import CheckpointError, ConfigError
from robopol.policies import Policy
from robopol.policies.remote import RemoteOptions, connect

FOREIGN = ("robomimic", "sb3")
"""What stands before the colon of a file of another library."""


def load_policy(
    checkpoint: str | Path,
    device: str | torch.device = "cpu",
    *,
    trust: bool = False,
    world: EnvSpec | None = None,
    remote: RemoteOptions | None = None,
) -> Policy:
    """Load whatever acts.

    Args:
        checkpoint: A run folder, a checkpoint or a policy folder; a folder that `robopol export` wrote; the address of
            a server, ``ws://...`` or ``wss://...``; ``robomimic:FILE.pth``; or ``sb3:ALGORITHM:FILE.zip``.
        device: Where it runs, if it can run there.
        trust: Allow a file that runs whatever code it holds when it is loaded, robomimic's or Stable-Baselines3's.
        world: Where it will act, for what does not say so itself.
        remote: What is said about a server.

    Returns:
        The policy in evaluation mode.

    Raises:
        CheckpointError: If there is nothing such, it is damaged, or not trusted.
        ConfigError: If it does not say for which world it is, and none was named; or it is not for that one.
        RemoteError: If the server cannot be asked.
        MissingExtraError: If a package that it needs is not installed.
    """
    return _load(str(checkpoint), device, trust, world, remote or RemoteOptions()).eval()


def _load(text: str, device: str | torch.device, trust: bool, world: EnvSpec | None, remote: RemoteOptions) -> Policy:
    if text.startswith(("ws://", "wss://")):
        return connect(text, remote, world).to(device)
    if remote != RemoteOptions():
        raise ConfigError(f"remote.* tells about a server, and {text} is none: its address begins with ws:// or wss://")
    if "://" in text:
        raise ConfigError(
            f"{text} is no address of a policy: robopol speaks by websocket (ws://, wss://). LeRobot's own server "
            "sends pickles, which are never read: docs/other-policies.md has one of ten lines instead"
        )
    scheme, _, rest = text.partition(":")
    if scheme in FOREIGN:
        if not trust:
            raise CheckpointError(
                f"{text}: loading such a file runs whatever code it holds. If you know who made it, say trust=true"
            )
        if scheme == "robomimic":
            from robopol.policies.foreign.robomimic import load_robomimic

            return load_robomimic(rest, world).to(device)
        from robopol.policies.foreign.sb3 import load_sb3

        algorithm, _, path = rest.partition(":")
        return load_sb3(path, algorithm, world).to(device)
    from robopol.export.exported import EXPORT, load_exported

    if (Path(text) / EXPORT).is_file():
        return load_exported(text, device)
    return folders.load_policy(text, device)
