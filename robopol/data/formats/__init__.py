"""File formats of episodes, one module each: ``read(path, *, ...)`` and ``write(episodes, path, *, ...)``."""
