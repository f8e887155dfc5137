"""A policy as a server: whoever speaks the messages of `robopol.policies.remote` can ask it for plans."""

from robopol.serving.served import Served
from robopol.serving.server import Server
from robopol.serving.swapping import swap

__all__ = ["Served", "Server", "swap"]
