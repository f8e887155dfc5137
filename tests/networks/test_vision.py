"""Crops, keypoints and the trunk: what each must do by its definition."""

import sys

import pytest
import torch
from torch import nn

from robopol.errors import MissingExtraError
from robopol.networks.crop import centre_crop, random_crop
from robopol.networks.resnet import resnet_trunk
from robopol.networks.spatial_softmax import SpatialSoftmax


def numbered(batch: int, steps: int, height: int, width: int) -> torch.Tensor:
    """Pictures whose pixels say where they are: channels are row, column, and step."""
    pictures = torch.zeros(batch, steps, height, width, 3, dtype=torch.uint8)
    pictures[..., 0] = torch.arange(height)[:, None]
    pictures[..., 1] = torch.arange(width)
    pictures[..., 2] = torch.arange(steps)[:, None, None]
    return pictures


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_random_crops_are_whole_parts_of_the_picture_at_one_place_a_row():
    pictures = numbered(200, 2, 12, 9)
    crops = random_crop(pictures, 8, 6, seeded(0))
    assert crops.shape == (200, 2, 8, 6, 3)
    assert crops.dtype == torch.uint8
    top, left = crops[:, 0, 0, 0, 0].long(), crops[:, 0, 0, 0, 1].long()
    assert set(top.tolist()) == set(range(5))  # every place that is within the picture, and no other
    assert set(left.tolist()) == set(range(4))
    for row in range(200):
        whole = pictures[row, :, top[row] : top[row] + 8, left[row] : left[row] + 6]
        assert torch.equal(crops[row], whole)


def test_random_crops_are_a_function_of_the_generator():
    pictures = numbered(20, 1, 12, 12)
    first, again, other = (random_crop(pictures, 8, 8, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    state = torch.get_rng_state()
    random_crop(pictures, 8, 8, seeded(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_centre_crop_leaves_as_much_on_every_side():
    crop = centre_crop(numbered(1, 1, 12, 9), 8, 5)
    assert crop.shape == (1, 1, 8, 5, 3)
    assert crop[0, 0, 0, 0].tolist() == [2, 2, 0]
    assert crop[0, 0, -1, -1].tolist() == [9, 6, 0]


def keypoints_of(maps: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Keypoints (B, K, 2) as (x, y), the maps passed through unchanged."""
    count = maps.shape[1]
    layer = SpatialSoftmax(count, count, temperature)
    with torch.no_grad():
        layer.maps.weight.copy_(torch.eye(count)[..., None, None])
        layer.maps.bias.zero_()
        return layer(maps).unflatten(1, (2, count)).transpose(1, 2)


def test_the_keypoint_of_a_single_pixel_is_that_pixel():
    height, width = 5, 9
    rows, columns = torch.tensor([0, 4, 2, 1]), torch.tensor([0, 8, 4, 6])
    maps = torch.zeros(1, 4, height, width)
    maps[0, torch.arange(4), rows, columns] = 1e4
    expected = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], 1)
    torch.testing.assert_close(keypoints_of(maps)[0], expected)


def test_keypoints_are_the_mean_position_under_the_softmax():
    torch.manual_seed(0)
    maps, temperature = torch.randn(3, 2, 4, 7), 0.5
    weights = (maps.double() / temperature).exp()
    weights = weights / weights.sum((2, 3), keepdim=True)
    expected = torch.zeros(3, 2, 2, dtype=torch.float64)
    for row in range(4):
        for column in range(7):
            place = torch.tensor([2 * column / 6 - 1, 2 * row / 3 - 1], dtype=torch.float64)
            expected += weights[:, :, row, column, None] * place
    torch.testing.assert_close(keypoints_of(maps, temperature).double(), expected, atol=1e-6, rtol=1e-5)


def test_keypoints_move_with_the_picture():
    torch.manual_seed(0)
    maps = torch.full((1, 1, 11, 11), -1e4)
    maps[..., 3:6, 2:5] = torch.randn(3, 3)
    moved = maps.roll((2, 4), (2, 3))  # two rows down, four columns to the right, none over the edge
    step = 2 / 10
    torch.testing.assert_close(keypoints_of(moved)[0, 0], keypoints_of(maps)[0, 0] + torch.tensor([4 * step, 2 * step]))


def test_keypoints_keep_float32_under_autocast():
    layer = SpatialSoftmax(8, 4, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 8, 6, 6)).dtype == torch.float32


@pytest.mark.parametrize(("blocks", "convolutions"), [((1,), 3), ((2, 2), 10), ((2, 2, 2, 2), 20)])
def test_no_batch_normalisation_is_left(blocks, convolutions):
    trunk = resnet_trunk(blocks)
    layers = list(trunk.modules())
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers)
    norms = [layer for layer in layers if isinstance(layer, nn.GroupNorm)]
    assert len(norms) == sum(isinstance(layer, nn.Conv2d) for layer in layers) == convolutions
    assert all(norm.num_channels // norm.num_groups == 16 for norm in norms)


@pytest.mark.parametrize(("size", "blocks"), [(33, (1,)), (64, (1, 1)), (84, (1, 1, 1)), (96, (2, 2, 2, 2))])
def test_the_map_is_as_large_as_said(size, blocks):
    maps = resnet_trunk(blocks)(torch.zeros(1, 3, size, size))
    left = size
    for _ in range(len(blocks) + 1):
        left = -(-left // 2)
    assert maps.shape == (1, 64 * 2 ** (len(blocks) - 1), left, left)


def test_resnet_18_has_the_published_size():
    """11.69 M parameters (He et al. 2016), 0.513 M of them in the head that is left out."""
    assert sum(p.numel() for p in resnet_trunk((2, 2, 2, 2)).parameters()) == 11_689_512 - 513_000


def test_features_do_not_depend_on_the_rest_of_the_batch():
    torch.manual_seed(0)
    trunk = resnet_trunk((1, 1)).train()
    pictures = torch.randn(4, 3, 32, 32)
    alone = trunk(pictures[:1])
    torch.testing.assert_close(trunk(pictures)[:1], alone)
    pictures[1:] = 100.0
    torch.testing.assert_close(trunk(pictures)[:1], alone)


def test_torchvision_is_asked_for_in_words(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r"robopol\[vision\]"):
        resnet_trunk((1,))
