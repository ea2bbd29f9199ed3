"""Training views of a photograph and its label: the authors' augmentation, then a crop or zero padding."""

import torch
from torch import Tensor
from torch.nn import functional as F

from DownStream.data import Photograph
from DualScaleNet.views import rotate


def training_pair(
    photograph: Photograph, size: int, crop: int | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """An augmented image (3, S, S) in [0, 1] and its label (1, S, S) in {0, 1}, as floats on the photograph's device.

    Args:
        size: side to which the whole photograph is padded, where `crop` is None.
        crop: side of a square cut at random, padded where the photograph is smaller.
    """
    image, label = photograph.image.float() / 255, photograph.label.float()[None]
    image, label = augment(image, label, generator)
    if crop is None:
        return pad(image, size, size), pad(label, size, size)
    top, left = (int(torch.randint(max(0, n - crop) + 1, (), generator=generator)) for n in label.shape[1:])
    window = (..., slice(top, top + crop), slice(left, left + crop))
    return pad(image[window], crop, crop), pad(label[window], crop, crop)


def augment(image: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotation by a whole angle in [0, 360) with p 0.5 (image bicubic, label nearest), each flip with p 0.25."""
    turn, mirror, upend = torch.rand(3, generator=generator).tolist()
    angle = torch.randint(360, (1,), generator=generator)
    if turn < 0.5:
        image = rotate(image[None], angle, "bicubic")[0].clamp(0, 1)
        label = rotate(label[None], angle, "nearest")[0]
    axes = [axis for axis, chance in ((-1, mirror), (-2, upend)) if chance < 0.25]
    return image.flip(axes), label.flip(axes)


def pad(x: Tensor, height: int, width: int) -> Tensor:
    """Zero-pads (..., H, W) on the right and at the bottom to (..., height, width)."""
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
