"""Segmentation network: a U-Net-style decoder on the five feature maps of a (frozen) encoder.

16,306,689 parameters with `bottleneck18`, one class and the authors' widths.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from DualScaleNet.encoder import Encoder
from DualScaleNet.views import DARK


@dataclass(frozen=True)
class DecoderShape:
    """What a decoder consists of.

    `widths`: output channels of the up steps. Four use c1..c5, as the authors; a fifth adds the photograph as the last
    skip; none makes a `LinearProbe`. `detail`: widths of the `DetailPath`, whose maps stand beside the photograph, c1,
    ...; `contrast`: it sees the local contrast, not the photograph.
    """

    widths: tuple[int, ...]
    detail: tuple[int, ...] = ()
    contrast: bool = False

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> "DecoderShape":
        """That of a checkpoint, which names it. Older ones have its fields, and the oldest the authors' decoder."""
        if "decoder" in checkpoint:
            return DECODERS[checkpoint["decoder"]]
        unet = DECODERS["unet"]
        widths, detail = (tuple(checkpoint.get(name, getattr(unet, name))) for name in ("widths", "detail"))
        return cls(widths, detail, checkpoint.get("contrast", unet.contrast))


COMPACT = DecoderShape((128, 64, 32, 32, 32), detail=(32, 64), contrast=True)
DECODERS = {
    "unet": DecoderShape((512, 256, 128, 64)),  # the authors'
    "compact": COMPACT,
    "compact-without-detail": replace(COMPACT, detail=()),
    "compact-without-contrast": replace(COMPACT, contrast=False),
    "linear": DecoderShape(()),
}


def double_convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """Twice 3x3 convolution, BN, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def local_contrast(images: Tensor) -> Tensor:
    """Every channel minus its mean in the surroundings, over its deviation there; 0 where the photograph is dark.

    (N, C, H, W) in [0, 1] -> the same. What lies in a shadow or on a pale patch then looks like the rest.
    """
    inside = (images.mean(1, keepdim=True) > DARK).to(images.dtype)
    share = surroundings(inside).clamp(min=0.001)
    centred = (images - surroundings(images * inside) / share) * inside
    deviation = (surroundings(centred**2) / share).sqrt()
    return centred / (deviation + 0.01)


def surroundings(x: Tensor) -> Tensor:
    """The mean around every pixel, about 36 px across, of (N, C, H, W); taken at a quarter of the size, for speed."""
    small = F.avg_pool2d(x, 4, ceil_mode=True, count_include_pad=False)
    for _ in range(2):  # twice a square: without its edges
        small = F.avg_pool2d(small, 9, 1, 4, count_include_pad=False)
    return resize(small, x.shape[-2:])


class DetailPath(nn.Module):
    """The photograph at full size, half, ... of it, each through two trained convolutions of `widths`.

    For what the frozen maps do not show: c1 resolves two pixels, and was not trained for the task. With `contrast` it
    is the photograph's local contrast that passes.
    """

    def __init__(self, widths: tuple[int, ...], contrast: bool) -> None:
        super().__init__()
        self.contrast = contrast
        self.blocks = nn.ModuleList(double_convolution(*pair) for pair in pairwise((3, *widths)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> (N, widths[k], H / 2^k, W / 2^k) for each k, sizes rounded up as the encoder does."""
        maps: list[Tensor] = []
        if self.contrast and self.blocks:
            x = local_contrast(x)
        for block in self.blocks:
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if maps else x)
            maps.append(x)
        return maps


class UpBlock(nn.Module):
    """Bilinear x2, pad to the skip's size, concatenate [skip, up], then twice 3x3 convolution, BN, ReLU."""

    def __init__(self, skip_channels: int, up_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolutions = double_convolution(skip_channels + up_channels, out_channels)

    def forward(self, skip: Tensor, up: Tensor) -> Tensor:
        """skip (N, S, H, W), up (N, U, ~H/2, ~W/2) -> (N, out, H, W)."""
        up = resize(up, (2 * up.shape[-2], 2 * up.shape[-1]))
        rows, columns = skip.shape[-2] - up.shape[-2], skip.shape[-1] - up.shape[-1]
        # An odd skip is one smaller than twice its successor: a negative pad cuts the surplus off.
        up = F.pad(up, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return self.convolutions(torch.cat([skip, up], dim=1))


class Decoder(nn.Module):
    """Feature maps -> logits at the size of the first; `Segmenter` resizes them.

    `channels` of the maps, one more than `widths`, which are those of the up steps from the deepest map on.
    The 1x1 convolution to the classes commutes with bilinear resizing, so it comes first: the same result, of the
    authors' widths with 64 times fewer values to resize.
    """

    def __init__(self, channels: tuple[int, ...], classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        ups = (channels[-1], *widths[:-1])
        self.blocks = nn.ModuleList(
            UpBlock(skip, up, width) for skip, up, width in zip(channels[-2::-1], ups, widths, strict=True)
        )
        self.classifier = nn.Conv2d(widths[-1], classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[c1, ..., c5] -> (N, classes, H/2, W/2); with the photograph before c1, (N, classes, H, W)."""
        *skips, x = maps
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(skip, x)
        return self.classifier(x)


class LinearProbe(nn.Module):
    """A linear classifier of each pixel on c1..c5, normalised and resized to c1: what the maps show by themselves.

    The linear probe of self-supervised learning, for segmentation. Every map has its own 1x1 convolution, which
    commutes with bilinear resizing, and the results add up. All weights begin at zero.
    """

    def __init__(self, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(count, affine=False), nn.Conv2d(count, classes, 1)) for count in channels
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.weight)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[c1, ..., c5] -> (N, classes, H/2, W/2)."""
        size = maps[0].shape[-2:]
        first, *others = (resize(classify(x), size) for classify, x in zip(self.classifiers, maps, strict=True))
        return sum(others, first)


class Segmenter(nn.Module):
    """Encoder and decoder; a frozen encoder stays in eval mode and outside the autograd graph."""

    def __init__(
        self, encoder: Encoder, classes: int = 1, frozen: bool = True, shape: DecoderShape = DECODERS["unet"]
    ) -> None:
        super().__init__()
        self.encoder, self.frozen, self.classes = encoder, frozen, classes
        self.inputs = len(shape.widths) + 1 if shape.widths else len(encoder.channels)
        self.detail = DetailPath(shape.detail, shape.contrast)
        beside = zip_longest((3, *encoder.channels), shape.detail, fillvalue=0)
        channels = tuple(map(sum, beside))[-self.inputs :]
        linear = not shape.widths
        self.decoder = LinearProbe(channels, classes) if linear else Decoder(channels, classes, shape.widths)
        for module in (*self.detail.modules(), *self.decoder.modules()):
            if isinstance(module, nn.Conv2d) and not linear:  # a linear readout begins at zero
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Segmenter":
        """As in `nn.Module`, except that a frozen encoder keeps its BN statistics: it is never in training mode."""
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> logits (N, classes, H, W)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = [image, *self.encoder(image)]
        for k, detail in enumerate(self.detail(image)):
            maps[k] = torch.cat([maps[k], detail], 1)
        return resize(self.decoder(maps[-self.inputs :]), image.shape[-2:])


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resizing of (N, C, H, W) to (N, C, *size)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
