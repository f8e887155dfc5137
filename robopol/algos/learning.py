"""When what is trained is in training mode: while its loss is computed, and at no other time."""

from collections.abc import Sequence

from torch import nn


class Learning:
    """Training mode for some modules, as a block in which their losses are computed.

    Whoever acts, proposes, judges or says what comes next outside of such a block does it in evaluation mode: nothing
    is left out and nothing disturbed at random. What layers there are is looked up once, since `torch.nn.Module.train`
    takes longer than a small network.
    """

    def __init__(self, *modules: nn.Module, judges: Sequence[nn.Module] = ()) -> None:
        """Put modules into evaluation mode.

        Args:
            *modules: They may get no other layers afterwards.
            judges: Modules that others learn by in the block, in the same mode, and that do not learn there themselves:
                no gradient of their weights is computed, which would be a third of the work.
        """
        for module in (*modules, *judges):
            module.eval()
        self._layers = [layer for module in (*modules, *judges) for layer in module.modules()]
        self._given = [weight for judge in judges for weight in judge.parameters() if weight.requires_grad]

    def __enter__(self) -> None:
        """Let them learn."""
        self._set(True)

    def __exit__(self, *_: object) -> None:
        """Put them back into evaluation mode."""
        self._set(False)

    def _set(self, learning: bool) -> None:
        for layer in self._layers:
            layer.__dict__["training"] = learning
        for weight in self._given:
            weight.requires_grad_(not learning)
