"""Spatial softmax: where in a picture each feature is (Finn et al. 2016, Deep Spatial Autoencoders, section V)."""

import torch
from torch import Tensor, nn


class SpatialSoftmax(nn.Module):
    """Turns feature maps into keypoints: the mean position of each map under the softmax of its values.

    For map k with values a, the keypoint is sum_ij p_ij (x_j, y_i) with p = softmax(a / temperature) over all pixels;
    x and y go from -1 (the centres of the first column and row) to 1 (those of the last).
    """

    def __init__(self, channels: int, keypoints: int, temperature: float) -> None:
        """Make the 1 x 1 convolution that gives one map per keypoint.

        Args:
            channels: C, of the feature maps that come in.
            keypoints: K.
            temperature: Above 0; a small one follows the largest value only.
        """
        super().__init__()
        self.maps = nn.Conv2d(channels, keypoints, 1)
        self.temperature = temperature

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W) to the keypoints' coordinates (B, 2 K) float32: all x, then all y."""
        maps = self.maps(features).float() / self.temperature  # (B, K, H, W)
        weights = maps.flatten(2).softmax(-1).unflatten(-1, maps.shape[2:])
        y, x = (torch.linspace(-1, 1, size, device=maps.device) for size in maps.shape[2:])
        # not as a matrix product, which mixed precision would round to a tenth of a pixel
        return torch.cat([(weights.sum(2) * x).sum(-1), (weights.sum(3) * y).sum(-1)], dim=-1)
