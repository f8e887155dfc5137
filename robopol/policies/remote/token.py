"""The token by which a server knows its clients: where it is kept, and how it is sent."""

import os
from pathlib import Path

from robopol.errors import ConfigError

TOKEN = "ROBOPOL_TOKEN"
"""The environment variable that holds the token."""
HEADER = "Authorization"
"""The HTTP header that carries it when a connection is opened."""


def authorization(token: str) -> str:
    """Return the value of `HEADER` for a token."""
    return f"Api-Key {token}"


def read_token(file: str | None) -> str | None:
    """Return the token, if there is one.

    Args:
        file: File that holds it; None takes it from `TOKEN`, if that is set.

    Raises:
        ConfigError: If the file cannot be read, or HTTP cannot carry what it holds.
    """
    if file is None:
        token, source = os.environ.get(TOKEN), TOKEN
    else:
        source = file
        try:
            token = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"the token in {file} cannot be read: {error}") from error
    if token and not (token.isascii() and token.isprintable()):
        raise ConfigError(f"the token in {source} has characters that HTTP cannot carry: use letters and digits")
    return token or None
