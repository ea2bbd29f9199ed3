"""How a photograph becomes what the network sees, and back; the authors' augmentation in training."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from DownStream.region import Region
from DualScaleNet.views import rotate

STRIDE = 32  # of c5


@dataclass(frozen=True)
class NetworkInput:
    """Photographs are zero-padded on the right and at the bottom ("pad") or resized to a square ("resize").

    `size` is the side in pixels. A padded photograph larger than it keeps its size, up to a multiple of 32.
    """

    fit: str
    size: int

    def scale(self, x: Tensor) -> Tensor:
        """A photograph (3, H, W) uint8 or masks (C, H, W) bool, at the network's scale; the type is kept."""
        if self.fit == "pad":
            return x
        scaled = F.interpolate(x[None].float(), (self.size, self.size), mode="bilinear", antialias=True)[0]
        return scaled > 0.5 if x.dtype == torch.bool else scaled.round().clamp(0, 255).to(x.dtype)

    def pad(self, x: Tensor) -> Tensor:
        """Zero-pads what `scale` returned, (..., H, W)."""
        height, width = (max(self.size, -(-side // STRIDE) * STRIDE) for side in x.shape[-2:])
        return zero_pad(x, height, width)

    def restore(self, maps: Tensor, height: int, width: int) -> Tensor:
        """Undoes `scale` for maps (C, S, T): (C, height, width)."""
        if self.fit == "pad":
            return maps
        return F.interpolate(maps[None], (height, width), mode="bilinear", antialias=True)[0].clamp(0, 1)


@dataclass(frozen=True)
class TrainingPhotograph:
    """What is kept of a photograph for training: image (3, H, W) uint8, masks (M, H, W) bool, one for each label.

    They are at the network's scale; with a `region`, a square around the disc to jitter, at native size.
    """

    image: Tensor
    masks: Tensor
    region: Region | None = None


def training_pair(
    photograph: TrainingPhotograph, network_input: NetworkInput, crop: int | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """An augmented image (3, S, S) in [0, 1] and its masks (M, S, S) in {0, 1}, as floats on their device.

    Args:
        crop: side of a square cut at random, padded where the photograph is smaller; None for the whole, padded.
    """
    image, masks = photograph.image, photograph.masks
    if photograph.region:
        region = photograph.region.jittered(generator)
        image, masks = network_input.scale(region.cut(image)), network_input.scale(region.cut(masks))
    image, masks = augment(image.float() / 255, masks.float(), crop, generator)
    if crop is None:
        return network_input.pad(image), network_input.pad(masks)
    return zero_pad(image, crop, crop), zero_pad(masks, crop, crop)


def augment(image: Tensor, labels: Tensor, crop: int | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotation by a whole angle in [0, 360) with p 0.5 (image bicubic, label nearest), each flip with p 0.25.

    Of the result a square of side `crop`, or less where the photograph is smaller, is cut at random. Only its pixels
    are computed: a rotation of the whole would take as long as the encoder.
    """
    turn, mirror, upend = torch.rand(3, generator=generator).tolist()
    angle = torch.randint(360, (1,), generator=generator)
    axes = [axis for axis, chance in ((-1, mirror), (-2, upend)) if chance < 0.25]
    window = [slice(None), slice(None)]
    for axis, side in zip((-2, -1), labels.shape[1:], strict=True):
        start = int(torch.randint(max(0, side - (crop or side)) + 1, (), generator=generator))
        stop = min(side, start + (crop or side))
        # The flip comes last: before it the window lies on the other side.
        window[axis] = slice(side - stop, side - start) if axis in axes else slice(start, stop)
    if turn < 0.5:
        image = rotate(image[None], angle, "bicubic", tuple(window))[0].clamp(0, 1)
        labels = rotate(labels[None], angle, "nearest", tuple(window))[0]
    else:
        image, labels = image[:, window[0], window[1]], labels[:, window[0], window[1]]
    return image.flip(axes), labels.flip(axes)


def zero_pad(x: Tensor, height: int, width: int) -> Tensor:
    """Pads (..., H, W) on the right and at the bottom to (..., height, width)."""
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
