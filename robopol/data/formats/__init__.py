"""File formats of episodes, one module each: ``read(path, *, ...)`` and, where it can write, two functions more.

``write(episodes, path, *, ...)``, and ``check_target(path, *, ...)`` with the same options: it raises what ``write``
would raise whatever the episodes are, before anything is recorded.
"""
