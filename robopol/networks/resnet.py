"""A ResNet for pictures of a robot at work: torchvision's, without its head and without batch statistics."""

from collections.abc import Sequence

from torch import nn

from robopol.errors import MissingExtraError

STAGES = 4
"""Stages of a ResNet; each after the first halves height and width and doubles the channels."""
CHANNELS = 64
"""Channels of the first stage."""
_GROUP = 16  # channels in a group of the normalisation (Chi et al. 2023)


def resnet_trunk(blocks: Sequence[int]) -> nn.Sequential:
    """Build the convolutions of a ResNet of basic blocks (He et al. 2016), weights untrained.

    Every batch normalisation is a group normalisation instead (Wu & He 2018), 16 channels a group: batch statistics
    and averaged weights destroy each other (Chi et al. 2023), and a picture's features must not depend on the rest of
    the batch.

    Args:
        blocks: Basic blocks of each stage, 1 to `STAGES` stages; (2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) ResNet-34.

    Returns:
        A network from pictures (B, 3, H, W) to maps (B, C, H', W') with C = 64 * 2**(stages - 1) and H' the last of
        stages + 1 halvings of H, each rounded up.

    Raises:
        MissingExtraError: If torchvision is not installed.
    """
    try:
        from torchvision.models.resnet import BasicBlock, ResNet
    except ImportError as error:
        raise MissingExtraError("torchvision", "vision", "a policy that sees images") from error

    def norm(channels: int) -> nn.Module:
        return nn.GroupNorm(channels // _GROUP, channels)

    whole = ResNet(BasicBlock, [*blocks, *[1] * (STAGES - len(blocks))], num_classes=1, norm_layer=norm)
    stages = [getattr(whole, f"layer{i + 1}") for i in range(len(blocks))]
    return nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool, *stages)
