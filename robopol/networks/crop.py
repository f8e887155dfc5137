"""Crops of pictures: a random shift in training, the middle when acting."""

import torch
from torch import Tensor


def random_crop(images: Tensor, height: int, width: int, generator: torch.Generator | None) -> Tensor:
    """Cut one random part out of each row's pictures.

    All pictures of a row's history are cut at the same place, so that what moved between them is still seen. (The code
    published with Diffusion Policy draws a place for every picture.)

    Args:
        images: (B, T, H, W, C).
        height: Of the part, at most H.
        width: Of the part, at most W.
        generator: Source of the places; None draws from torch's global generator of the pictures' device.

    Returns:
        (B, T, height, width, C), every place within the picture equally likely.
    """
    batch, steps, full_height, full_width, _ = images.shape
    place = images.device if generator is None else generator.device

    def along(axis: int, size: int) -> Tensor:
        """Lay out the numbers 0 to size - 1 along one of the axes (B, T, height, width)."""
        shape = [1, 1, 1, 1]
        shape[axis] = size
        return torch.arange(size, device=images.device).view(shape)

    def start(full: int, part: int) -> Tensor:
        drawn = torch.randint(full - part + 1, (batch, 1, 1, 1), generator=generator, device=place)
        return drawn.to(images.device)

    rows = start(full_height, height) + along(2, height)
    columns = start(full_width, width) + along(3, width)
    return images[along(0, batch), along(1, steps), rows, columns]


def centre_crop(images: Tensor, height: int, width: int) -> Tensor:
    """Cut the middle out of pictures.

    Args:
        images: (B, T, H, W, C).
        height: Of the middle, at most H.
        width: Of the middle, at most W.

    Returns:
        (B, T, height, width, C), a view.
    """
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[:, :, top : top + height, left : left + width]
