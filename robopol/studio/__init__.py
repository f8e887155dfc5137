"""A frozen policy steered by hand in the browser: what the user wishes, the episode that it acts in, the page."""

from robopol.studio.server import Studio
from robopol.studio.session import Session
from robopol.studio.wish import Wish

__all__ = ["Session", "Studio", "Wish"]
