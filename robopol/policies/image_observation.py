"""Camera pictures as features: random crop, ResNet, spatial softmax (Chi et al. 2023; Mandlekar et al. 2021)."""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from robopol.data.episodes import is_image
from robopol.data.normalizer import NormalizerMode
from robopol.errors import ConfigError, ShapeError
from robopol.networks.crop import centre_crop, random_crop
from robopol.networks.resnet import CHANNELS, STAGES, resnet_trunk
from robopol.networks.spatial_softmax import SpatialSoftmax
from robopol.policies.observation import Encoder, EncoderConfig, LowDimObservation, Shapes, take


class ImageConfig(EncoderConfig):
    """Sends every camera's pictures through a ResNet, and joins its features with the low-dim observations.

    The encoder of Diffusion Policy for images (Chi et al. 2023): trained from scratch together with the policy, group
    instead of batch normalisation, keypoints of a spatial softmax instead of a pooled average.

    Attributes:
        blocks: Basic blocks of each stage of the ResNet; [2, 2, 2, 2] is ResNet-18, [3, 4, 6, 3] ResNet-34. Every
            stage after the first halves the map on which keypoints are found, so small pictures want fewer stages.
        keypoints: Keypoints of the spatial softmax; None averages every feature map over the picture instead.
        temperature: Of the spatial softmax.
        features: Features of one picture, a linear function of its keypoints or averages.
        crop: Share of height and width that is seen: in training a random part of the picture, the same one for the
            whole history; when acting its middle. 1 sees all of it.
        share: Whether all cameras share one network.
    """

    kind: Literal["image"] = "image"
    blocks: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=STAGES)] = (2, 2, 2, 2)
    keypoints: PositiveInt | None = 32
    temperature: float = Field(1.0, gt=0)
    features: PositiveInt = 64
    crop: float = Field(0.9, gt=0, le=1)
    share: bool = False

    def build(self, shapes: Shapes, normalization: NormalizerMode) -> "ImageObservation":
        """Return the encoder, its weights untrained.

        Args:
            shapes: Key -> shape of what it looks at.
            normalization: How each low-dim entry is scaled.

        Raises:
            ConfigError: If there is no camera, or the encoder cannot read one of the observations.
            MissingExtraError: If torchvision is not installed.
        """
        return ImageObservation(self, shapes, normalization)


class ImageObservation(Encoder):
    """See `ImageConfig`. Pictures stay bytes until they are cropped."""

    def __init__(self, config: ImageConfig, shapes: Shapes, normalization: NormalizerMode) -> None:
        """Make a network for every camera, or one for all; see `ImageConfig.build`."""
        super().__init__()
        self.cameras = {key: shapes[key] for key in sorted(shapes) if is_image(key)}
        if not self.cameras:
            raise ConfigError(
                f"policy/encoder=image needs camera pictures, the observations are {', '.join(shapes) or 'none'}: "
                "record them, in robopol's tasks by env.options.cameras=[front], or use policy/encoder=low_dim"
            )
        self.crops = {key: _crop_size(key, shape, config) for key, shape in self.cameras.items()}
        low_dim = {key: shape for key, shape in shapes.items() if key not in self.cameras}
        self.low_dim = LowDimObservation(low_dim, normalization) if low_dim else None
        self.features = config.features
        self.networks = nn.ModuleList(_network(config) for _ in range(1 if config.share else len(self.cameras)))

    @property
    def dim(self) -> int:
        """D, the number of features of one observation."""
        return (self.low_dim.dim if self.low_dim is not None else 0) + len(self.cameras) * self.features

    def fit(self, obs: Mapping[str, Tensor]) -> None:
        """See `Encoder.fit`; pictures need no fitting, bytes 0 to 255 become -1 to 1."""
        if self.low_dim is not None:
            self.low_dim.fit(obs)

    def forward(
        self,
        obs: Mapping[str, Tensor],
        steps: int,
        *,
        augment: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See `Encoder.forward`; to augment is to crop at random."""
        parts = [] if self.low_dim is None else [self.low_dim(obs, steps)]
        for index, (key, shape) in enumerate(self.cameras.items()):
            images = take(obs, key, (steps, *shape))
            if images.dtype != torch.uint8:
                raise ShapeError(f"observation '{key}' is {images.dtype}; pictures are torch.uint8, 0 to 255")
            size = self.crops[key]
            if size != shape[:2]:
                images = random_crop(images, *size, generator) if augment else centre_crop(images, *size)
            # height, width, channels in memory is what convolutions are fastest with: nothing is moved
            pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1
            features = self.networks[index % len(self.networks)](pixels)
            parts.append(features.float().unflatten(0, (-1, steps)))
        return torch.cat(parts, -1)


def _network(config: ImageConfig) -> nn.Sequential:
    """Make the network from pictures (B, 3, H, W) to features (B, F)."""
    channels = CHANNELS * 2 ** (len(config.blocks) - 1)
    pool: list[nn.Module]
    if config.keypoints is None:
        pool, pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()], channels
    else:
        pool, pooled = [SpatialSoftmax(channels, config.keypoints, config.temperature)], 2 * config.keypoints
    return nn.Sequential(resnet_trunk(config.blocks), *pool, nn.Linear(pooled, config.features))


def _crop_size(key: str, shape: tuple[int, ...], config: ImageConfig) -> tuple[int, int]:
    """Return height and width of the part that is seen.

    Raises:
        ConfigError: If the pictures are not in colour, or too small for keypoints.
    """
    if len(shape) != 3 or shape[2] != 3:
        raise ConfigError(f"observation '{key}' has shape {shape}, pictures in colour (height, width, 3) are needed")
    height, width = (max(1, round(config.crop * size)) for size in shape[:2])
    smallest = 2 ** (len(config.blocks) + 1) + 1  # below, the map is a single pixel
    if config.keypoints is not None and min(height, width) < smallest:
        raise ConfigError(
            f"of '{key}' {height} x {width} pixels are seen; keypoints after {len(config.blocks)} stages take at least "
            f"{smallest} x {smallest}: use larger pictures, or fewer stages in policy.encoder.blocks"
        )
    return height, width
