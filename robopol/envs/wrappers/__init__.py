"""What a batch of worlds may be wrapped in; each kind works on any `robopol.envs.vector.VectorEnv`.

A wrapper's config class is a kind of the group ``wrapper`` of `robopol.registry`; its ``build(env)`` wraps. They are
applied from the inside out, and `robopol.envs.spec.EnvSpec.wrappers` tells which were.
"""

from robopol.envs.wrappers.wrapper import VectorWrapper, WrapperConfig

__all__ = ["VectorWrapper", "WrapperConfig"]
