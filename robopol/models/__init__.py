"""What is learned beside a policy: values of actions, where actions lead, which are safe."""

from robopol.models.model import Model, ModelConfig

__all__ = ["Model", "ModelConfig"]
