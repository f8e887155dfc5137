"""The errors robopol raises on purpose; each says what came, what was needed and what to do."""


class RobopolError(Exception):
    """Base of every error that robopol raises on purpose."""


class ConfigError(RobopolError, ValueError):
    """A configuration does not describe something that can be built."""


class DataError(RobopolError, ValueError):
    """A dataset is damaged, incomplete or ambiguous."""


class CheckpointError(RobopolError, ValueError):
    """A policy folder or a run folder cannot be loaded."""


class TrainingError(RobopolError, ArithmeticError):
    """Training cannot go on."""


class ShapeError(RobopolError, ValueError):
    """A tensor does not have the shape that was agreed."""


class EnvError(RobopolError, ValueError):
    """An environment cannot be made, or was asked for what it cannot do."""


class MessageError(RobopolError, ValueError):
    """A message is not what was agreed on, or larger than is allowed."""


class RemoteError(RobopolError, ConnectionError):
    """A policy that is served elsewhere cannot be asked, or does not answer as agreed."""


class RobotError(RobopolError, ConnectionError):
    """An arm is absent, does not answer, answers what cannot be, or is told what it must not do."""


class MissingExtraError(RobopolError, ImportError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """Say which package is missing, what needs it and how to install it.

        Args:
            package: The name that could not be imported.
            extra: The robopol extra that brings it.
            purpose: What was asked for, in a few words.
        """
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'robopol[{extra}]'")


class DataWarning(UserWarning):
    """Something that a dataset holds is not carried over; the message names it."""


class SeedWarning(UserWarning):
    """A seed was given to something that takes none, so that it will not do the same again."""
