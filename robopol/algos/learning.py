"""When what is trained is in training mode: while its loss is computed, and at no other time."""

from torch import nn


class Learning:
    """Training mode for some modules, as a block in which their losses are computed.

    Whoever acts, proposes, judges or says what comes next outside of such a block does it in evaluation mode: nothing
    is left out and nothing disturbed at random. What layers there are is looked up once, since `torch.nn.Module.train`
    takes longer than a small network.
    """

    def __init__(self, *modules: nn.Module) -> None:
        """Put modules into evaluation mode.

        Args:
            *modules: They may get no other layers afterwards.
        """
        for module in modules:
            module.eval()
        self._layers = [layer for module in modules for layer in module.modules()]

    def __enter__(self) -> None:
        """Let them learn."""
        self._set(True)

    def __exit__(self, *_: object) -> None:
        """Put them back into evaluation mode."""
        self._set(False)

    def _set(self, learning: bool) -> None:
        for layer in self._layers:
            layer.__dict__["training"] = learning
