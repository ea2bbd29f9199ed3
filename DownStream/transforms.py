"""How a photograph becomes what the network sees, and back; augmentation in training, the authors' and ours."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from DownStream.data import Photograph
from DownStream.region import Region, fov_region, fov_square
from DualScaleNet.common.device import to_device
from DualScaleNet.common.options import STRIDE
from DualScaleNet.views import DARK, standardise

TOLERANCE = 0.05  # of the diameter: within it nothing is resampled
TILT = 20  # degrees: how far photographs that stay upright are turned
NOISE = 0.01  # its standard deviation in a photograph enlarged to twice its size or more
JITTER_PROBABILITY, JITTER_CONTRAST, JITTER_MEAN = 0.7, 0.4, 0.2
SHADED, BLURRED, NOISY = 0.7, 0.3, 0.3  # how often
SHADE, GRAIN = 0.15, 0.05  # standard deviations, of white
SIGMAS = 0.3, 1.3  # px, of the blur


def round_up(side: int) -> int:
    """To a multiple of the stride of c5."""
    return -(-side // STRIDE) * STRIDE


@dataclass(frozen=True)
class NetworkInput:
    """How a photograph is brought to the network's scale.

    `fit` "pad": to a field of view `diameter` pixels across, then zero-padded on the right and at the bottom to
    `size`, a larger one to a multiple of 32. "resize": to a square of `size` pixels. "square": the square around its
    field of view is. `standardise`: its colours too, so that a brighter or redder photograph looks like the others.
    """

    fit: str
    size: int
    standardise: bool = False
    diameter: float | None = None

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> "NetworkInput":
        """That of a segmentation checkpoint; older ones lack the last two."""
        fit, size, standardise = checkpoint["fit"], checkpoint["size"], checkpoint.get("standardise", False)
        return cls(fit, size, standardise, checkpoint.get("diameter"))

    def visible(self, photograph: Photograph) -> Tensor:
        """What of a photograph, (3, H, W) uint8 at native size, `scale` takes: the field of view if `standardise`."""
        return photograph.retina if self.standardise else photograph.image

    def factor(self, diameter: float | None) -> float:
        """By which a photograph with such a field of view is resized before it is padded; 1 within 5 %."""
        if not self.diameter or not diameter:
            return 1.0
        factor = self.diameter / diameter
        return factor if abs(factor - 1) > TOLERANCE else 1.0

    def factor_of(self, photograph: Photograph) -> float:
        """As `factor`; the field of view is only looked for where it matters."""
        return self.factor(photograph.diameter) if self.diameter else 1.0

    def region(self, photograph: Photograph, fov_crop: bool) -> Region:
        """What of a photograph is scaled: all, the square around the field of view, or that one's bounding box."""
        if self.fit == "square":
            return fov_square(photograph.field_of_view)
        return fov_region(photograph.field_of_view) if fov_crop else Region.whole(photograph.image)

    def scale(self, x: Tensor, factor: float = 1.0) -> Tensor:
        """A photograph (3, H, W) uint8 or masks (C, H, W) bool, at the network's scale; the type is kept."""
        recoloured = self.standardise and x.dtype != torch.bool
        height, width = x.shape[1:]
        size = self.scaled(height, width, factor)
        if size == (height, width) and not recoloured:
            return x
        scaled = x.float()
        if size != (height, width):
            mode = "bicubic" if self.fit == "pad" else "bilinear"  # thin vessels survive bicubic better
            scaled = F.interpolate(scaled[None], size, mode=mode, antialias=True)[0]
        if x.dtype == torch.bool:
            return scaled > 0.5
        if recoloured:
            scaled = standardise(scaled / 255)
            scaled = 255 * (with_noise(scaled, factor) if self.fit == "pad" and factor > 1 else scaled)
        return scaled.round().clamp(0, 255).to(x.dtype)

    def scaled(self, height: int, width: int, factor: float = 1.0) -> tuple[int, int]:
        """The sides to which `scale` brings a photograph of these."""
        if self.fit == "pad":
            return max(1, round(height * factor)), max(1, round(width * factor))
        return self.size, self.size

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The sides to which `pad` brings a photograph of these."""
        return max(self.size, round_up(height)), max(self.size, round_up(width))

    def pad(self, x: Tensor) -> Tensor:
        """Zero-pads what `scale` returned, (..., H, W)."""
        height, width = self.padded(x.shape[-2], x.shape[-1])
        return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))

    def restore(self, maps: Tensor, height: int, width: int) -> Tensor:
        """Undoes `scale` for maps (C, S, T): (C, height, width)."""
        if (height, width) == tuple(maps.shape[1:]):
            return maps
        return F.interpolate(maps[None], (height, width), mode="bilinear", antialias=True)[0].clamp(0, 1)


def with_noise(x: Tensor, factor: float) -> Tensor:
    """A photograph (3, H, W) in [0, 1] that was enlarged by `factor`, with the noise that this has smoothed away.

    It is always the same noise. Without it a network marks too much (docs/results.md). What is black stays black.
    """
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x.device)
    return x + NOISE * min(1.0, factor - 1) * noise * (x > 0)


@dataclass(frozen=True)
class TrainingPhotograph:
    """What is kept of a file for training: image (3, H, W) uint8, masks (M, H, W) bool, one for each label.

    They are at the network's scale; with a `region`, the ROI around the disc, to jitter, at native size. They may lie
    in a file's mapping.
    """

    path: Path
    image: Tensor
    masks: Tensor
    region: Region | None = None

    def to(self, device: torch.device) -> "TrainingPhotograph":
        """On a device."""
        return replace(self, image=self.image.to(device), masks=self.masks.to(device))


def training_batch(
    photographs: list[TrainingPhotograph],
    network_input: NetworkInput,
    crop: int | None,
    jitter: bool,
    generator: torch.Generator,
    device: torch.device | None = None,
    upright: bool = False,
) -> tuple[Tensor, Tensor]:
    """Augmented images (N, 3, S, T) in [0, 1] and their masks (N, M, S, T) in {0, 1}, floats on `device` or their own.

    Args:
        crop: side of random crops, padded where a photograph is smaller; None for whole photographs, padded.
        jitter: the colours too, by `jitter_channels`, and what else differs between cameras, by `degrade`.
        upright: as `augment`.
    """
    pairs = []
    for photograph in photographs:
        image, masks = photograph.image, photograph.masks
        if photograph.region:
            region = photograph.region.jittered(generator)
            image, masks = (network_input.scale(region.cut(x)) for x in (image, masks))
        pairs.append((image, masks))
    if crop is None:
        sizes = [network_input.padded(image.shape[-2], image.shape[-1]) for image, _ in pairs]
        size = max(height for height, _ in sizes), max(width for _, width in sizes)
    else:
        size = crop, crop
    images, masks = augment(pairs, size, generator, device, upright)
    return degrade(jitter_channels(images, generator), generator) if jitter else images, masks


def augment(
    pairs: list[tuple[Tensor, Tensor]],
    size: tuple[int, int],
    generator: torch.Generator,
    device: torch.device | None = None,
    upright: bool = False,
) -> tuple[Tensor, Tensor]:
    """Rotation by a whole angle in [0, 360) with p 0.5 (images bicubic, masks nearest), each flip with p 0.25.

    Of the result a rectangle of height and width `size` is cut at random; where it is smaller, all of it lies in the
    rectangle's upper left. Only what the rectangles need of the photographs is read, and sampled for all at once.

    Args:
        pairs: images (3, H, W) uint8 and masks (M, H, W) bool; H and W may differ from pair to pair.
        device: where they are sampled; None: where they are.
        upright: turned by at most `TILT` degrees instead, and flipped left to right alone, with p 0.5.
    """
    count, device = len(pairs), device or pairs[0][0].device
    sides = torch.tensor([masks.shape[1:] for _, masks in pairs])  # (N, 2): rows, columns
    visible = sides.minimum(torch.tensor(size))
    starts = (torch.rand(count, 2, generator=generator) * (sides - visible + 1)).floor()
    turned, radians, sign = draw_orientations(count, generator, upright)
    middle = (sides - 1) / 2

    # The rectangle's rows (N, S) and columns (N, T), as distances from the photograph's middle before the flip.
    extent = visible.amax(0).tolist()
    v, u = (sign[:, k, None] * (starts[:, k, None] + torch.arange(extent[k]) - middle[:, k, None]) for k in (0, 1))
    ends = visible[:, :, None] - 1
    outer_v, outer_u = (torch.cat([x[:, :1], x.gather(1, ends[:, k])], 1) for k, x in enumerate((v, u)))
    corners = rotated(outer_v, outer_u, radians)
    # Bicubic sampling reads from one pixel before to two behind; one more for rounding.
    first = ((corners.amin((1, 2)) + middle).floor().long() - 2).clamp(min=0).minimum(sides - 1)
    last = ((corners.amax((1, 2)) + middle).floor().long() + 3).minimum(sides - 1).maximum(first)
    height, width = (last - first).amax(0).add(1).tolist()
    images, masks = (x.new_zeros(count, len(x), height, width) for x in pairs[0])
    for k, ((top, left), (bottom, right)) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for packed, x in zip((images, masks), pairs[k], strict=True):
            packed[k, :, : bottom + 1 - top, : right + 1 - left] = x[:, top : bottom + 1, left : right + 1]

    images, masks = to_device(images, device), to_device(masks, device)
    v, u, radians, origin = (
        x.to(device, torch.float32, non_blocking=True) for x in (v, u, radians, middle - first + 0.5)
    )
    position = rotated(v, u, radians) + origin[:, None, None]
    # In coordinates in which the packed photographs span [-1, 1], columns first.
    scale = torch.tensor([2 / height, 2 / width]).to(device, non_blocking=True)
    grid = (position * scale - 1).flip(-1)
    images, masks = images.float() / 255, masks.float()
    out = F.grid_sample(torch.cat([images, masks], 1), grid, "nearest", align_corners=False)
    if turned.any():
        index = turned.nonzero()[:, 0].to(device, non_blocking=True)
        smooth = F.grid_sample(images[index], grid[index], "bicubic", align_corners=False)
        out[index, : images.shape[1]] = smooth.clamp(0, 1)
    within = [(torch.arange(extent[k]) < visible[:, k, None]).to(device, non_blocking=True) for k in (0, 1)]
    out *= (within[0][:, :, None] & within[1][:, None, :])[:, None]
    out = F.pad(out, (0, size[1] - extent[1], 0, size[0] - extent[0]))
    return out[:, : images.shape[1]], out[:, images.shape[1] :]


def draw_orientations(count: int, generator: torch.Generator, upright: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of N photographs: which are turned (N,), their angles (N,), and -1 where flipped (N, 2): rows, columns."""
    turned = torch.rand(count, generator=generator) < 0.5
    first, last = (-TILT, TILT) if upright else (0, 359)
    angles = torch.randint(first, last + 1, (count,), generator=generator)
    flips = torch.tensor([0.0, 0.5] if upright else [0.25, 0.25])
    sign = torch.where(torch.rand(count, 2, generator=generator) < flips, -1, 1)
    return turned, torch.deg2rad(turned * angles.double()), sign


def jitter_channels(images: Tensor, generator: torch.Generator) -> Tensor:
    """With p 0.7 every channel's contrast by a factor of e^-0.4 to e^0.4 and its mean by -0.2 to 0.2, on its own.

    Other cameras, haze, and the retina's own change of colour from the disc to the rim. (N, 3, H, W) in [0, 1] -> the
    same; what is dark stays as it is.
    """
    drawn = 2 * torch.rand(2, len(images), 3, 1, 1, generator=generator) - 1
    drawn = drawn * (torch.rand(len(images), 1, 1, 1, generator=generator) < JITTER_PROBABILITY)
    drawn = drawn.to(images.device, non_blocking=True)
    inside = images.mean(1, keepdim=True) > DARK
    mean = (images * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True).clamp(min=1)
    jittered = mean + JITTER_MEAN * drawn[0] + (JITTER_CONTRAST * drawn[1]).exp() * (images - mean)
    return torch.where(inside, jittered.clamp(0, 1), images)


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Smooth shading with p 0.7, Gaussian blur and noise with p 0.3 each: the light, focus and grain of other cameras.

    (N, 3, H, W) in [0, 1] -> the same; what is dark stays as it is.
    """
    count, device = len(images), images.device
    shaded, blurred, noisy = (torch.rand(3, count, generator=generator) < torch.tensor([[SHADED], [BLURRED], [NOISY]]))
    field = SHADE * shaded.view(-1, 1, 1, 1) * torch.randn(count, 1, 3, 3, generator=generator)
    sigma = torch.where(blurred, SIGMAS[0] + (SIGMAS[1] - SIGMAS[0]) * torch.rand(count, generator=generator), 0.01)
    kernel = torch.softmax(-(torch.arange(-3, 4) ** 2) / (2 * sigma[:, None] ** 2), 1).repeat_interleave(3, 0)
    grain = GRAIN * noisy * torch.rand(count, generator=generator)
    noise = grain.view(-1, 1, 1, 1) * torch.randn(images.shape, generator=generator)
    field, kernel, noise = (x.to(device, non_blocking=True) for x in (field, kernel, noise))

    x = images + F.interpolate(field, images.shape[-2:], mode="bicubic", align_corners=True)
    x = F.pad(x.reshape(1, -1, *x.shape[2:]), (3, 3, 3, 3), mode="replicate")
    x = F.conv2d(F.conv2d(x, kernel[:, None, None], groups=len(kernel)), kernel[:, None, :, None], groups=len(kernel))
    inside = images.mean(1, keepdim=True) > DARK
    return torch.where(inside, (x.view(images.shape) + noise).clamp(0, 1), images)


def rotated(v: Tensor, u: Tensor, radians: Tensor) -> Tensor:
    """Rows v (N, S) and columns u (N, T), turned about the origin by (N,) -> rows and columns (N, S, T, 2)."""
    v, u, sin, cos = v[:, :, None], u[:, None, :], radians.sin()[:, None, None], radians.cos()[:, None, None]
    return torch.stack([sin * u + cos * v, cos * u - sin * v], -1)
