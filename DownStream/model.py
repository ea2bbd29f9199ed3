"""Segmentation network: a U-Net-style decoder on the five feature maps of a (frozen) encoder.

16,306,689 parameters with `bottleneck18` and one class.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from DualScaleNet.encoder import Encoder


class UpBlock(nn.Module):
    """Bilinear x2, pad to the skip's size, concatenate [skip, up], then twice 3x3 convolution, BN, ReLU."""

    def __init__(self, skip_channels: int, up_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(skip_channels + up_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, skip: Tensor, up: Tensor) -> Tensor:
        """skip (N, S, H, W), up (N, U, ~H/2, ~W/2) -> (N, out, H, W)."""
        up = resize(up, (2 * up.shape[-2], 2 * up.shape[-1]))
        rows, columns = skip.shape[-2] - up.shape[-2], skip.shape[-1] - up.shape[-1]
        # An odd skip is one smaller than twice its successor: a negative pad cuts the surplus off.
        up = F.pad(up, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return self.convolutions(torch.cat([skip, up], dim=1))


class Decoder(nn.Module):
    """c1..c5 -> logits at half the image's size; `Segmenter` resizes them.

    The 1x1 convolution to the classes commutes with bilinear resizing, so it comes first: 64 times fewer values to
    resize, the same result.
    """

    def __init__(self, channels: tuple[int, ...], classes: int = 1) -> None:
        super().__init__()
        widths = (512, 256, 128, 64)
        ups = (channels[-1], *widths[:-1])
        self.blocks = nn.ModuleList(
            UpBlock(skip, up, width) for skip, up, width in zip(channels[-2::-1], ups, widths, strict=True)
        )
        self.classifier = nn.Conv2d(widths[-1], classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[c1, ..., c5] -> (N, classes, H/2, W/2)."""
        *skips, x = maps
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(skip, x)
        return self.classifier(x)


class Segmenter(nn.Module):
    """Encoder and decoder; a frozen encoder stays in eval mode and outside the autograd graph."""

    def __init__(self, encoder: Encoder, classes: int = 1, frozen: bool = True) -> None:
        super().__init__()
        self.encoder, self.frozen = encoder, frozen
        self.decoder = Decoder(encoder.channels, classes)
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
            maps = self.encoder(image)
        return resize(self.decoder(maps), image.shape[-2:])


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing of (N, C, H, W) to (N, C, *size)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
