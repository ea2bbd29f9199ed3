"""The views of the two branches, drawn for a whole batch at once on the device that holds it.

LocalFocus: two copies of each image, cut into a 3x3 grid, every patch augmented on its own.
GlobalFocus: two augmented views of the whole image, under the recipe `paper` random resized crops first.
Augmentation is ONE operation, drawn uniformly for each patch or view, of: horizontal flip (p 0.5), vertical flip
(p 0.5), rotation within 45 degrees, colour jitter, greyscale (p 0.1); or, by option, all five in this order.
`standardise`, ours, may follow, and serves segmentation too.

Every random number comes from a CPU generator: the same seed gives the same views on any device, and the host knows
which operation each view gets without asking the device. The distributions, and the operations pixel by pixel,
are torchvision's of the same names, which the tests hold them to.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

GRID = 3
MAX_ANGLE = 45.0
BRIGHTNESS = CONTRAST = SATURATION = 0.2
HUE = 0.1
CROP_SCALE = (0.2, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
DARK = 0.05  # mean of the channels below which a pixel lies outside the field of view


def local_views(
    images: Tensor, generator: torch.Generator, grid: int = GRID, all_operations: bool = False
) -> tuple[Tensor, Tensor]:
    """x_1..x_9 and y_1..y_9 of LocalFocus: (N, 3, H, W) in [0, 1] -> two of (N, grid^2, 3, H // grid, W // grid)."""
    patches = grid_patches(images, grid)
    flat = patches.flatten(0, 1)
    x, y = (augment(flat, generator, all_operations).view_as(patches) for _ in range(2))
    return x, y


def global_views(images: Tensor, generator: torch.Generator, crop: bool, all_operations: bool = False) -> Tensor:
    """v3 and v4 of GlobalFocus: (N, 3, H, W) in [0, 1] -> (N, 2, 3, H, W)."""
    views = []
    for _ in range(2):
        view = random_resized_crop(images, generator) if crop else images
        views.append(augment(view, generator, all_operations))
    return torch.stack(views, dim=1)


def grid_patches(images: Tensor, grid: int = GRID) -> Tensor:
    """Cuts images into grid x grid cells, row by row: (N, C, H, W) -> (N, grid^2, C, H // grid, W // grid).

    Rows and columns beyond a multiple of the cell (224 = 3 * 74 + 2) are left out.
    """
    n, channels, height, width = images.shape
    h, w = height // grid, width // grid
    cells = images[..., : grid * h, : grid * w].reshape(n, channels, grid, h, grid, w)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(n, grid * grid, channels, h, w)


def augment(images: Tensor, generator: torch.Generator, all_operations: bool = False) -> Tensor:
    """One of the five operations for each image, drawn uniformly. (M, 3, H, W) in [0, 1] -> a new tensor like it.

    `all_operations`: all five, each with its own probability.
    """
    count = len(images)
    operation = torch.randint(5, (count,), generator=generator)
    chance = torch.rand(5, count, generator=generator)
    angles = uniform(count, -MAX_ANGLE, MAX_ANGLE, generator)

    def gets(k: int, probability: float = 1.0) -> Tensor:
        return ((operation == k) | all_operations) & (chance[k] < probability)

    out = images.clone()
    apply_to(out, gets(0, 0.5), lambda x, _: x.flip(-1))
    apply_to(out, gets(1, 0.5), lambda x, _: x.flip(-2))
    apply_to(out, gets(2), lambda x, index: rotate(x, angles[index]))
    apply_to(out, gets(3), lambda x, _: color_jitter(x, generator))
    apply_to(out, gets(4, 0.1), lambda x, _: grayscale(x).expand_as(x))
    return out


def standardise(images: Tensor) -> Tensor:
    """Every channel of each image to mean 0.5 and deviation 0.2 over its pixels but the dark ones, which become 0.

    (..., 3, H, W) in [0, 1] -> the same. What then tells images apart is structure, not colour or brightness.
    """
    inside = (images.mean(-3, keepdim=True) > DARK).to(images.dtype)
    count = inside.sum((-2, -1), keepdim=True).clamp(min=1)
    centred = images - (images * inside).sum((-2, -1), keepdim=True) / count
    deviation = ((centred**2 * inside).sum((-2, -1), keepdim=True) / count).sqrt()
    return (0.5 + 0.2 * centred / (deviation + 0.01)).clamp(0, 1) * inside


def apply_to(images: Tensor, chosen: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Replaces, in place, the images where the CPU mask `chosen` is true by operation(images[index], index)."""
    index = chosen.nonzero().squeeze(1)
    if len(index):
        on_device = index.to(images.device, non_blocking=True)
        images[on_device] = operation(images[on_device], index).to(images.dtype)


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """`count` CPU numbers in [low, high)."""
    return low + (high - low) * torch.rand(count, generator=generator)


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Counter-clockwise about the centre, nearest, zero fill. images (M, C, H, W), angles (M,) in degrees."""
    height, width = images.shape[-2:]
    radians = torch.deg2rad(angles.double())
    cos, sin, zero = torch.cos(radians), torch.sin(radians), torch.zeros_like(radians)
    # Where each output pixel comes from, in coordinates in which the image spans [-1, 1]: hence the aspect ratio.
    rows = [torch.stack([cos, -sin * height / width, zero], 1), torch.stack([sin * width / height, cos, zero], 1)]
    theta = torch.stack(rows, 1).to(images.device, images.dtype, non_blocking=True)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def random_resized_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """A crop of 0.2 to 1 of the area, ratio 3/4 to 4/3, resized to the whole. (M, C, H, W) -> the same shape."""
    height, width = images.shape[-2:]
    top, left, heights, widths = crop_boxes(len(images), height, width, generator)
    y, x = _source_positions(top, heights, height), _source_positions(left, widths, width)
    # In coordinates in which pixel centres span [-1, 1]; the device makes (M, H, W, 2) of them, x before y.
    x, y = 2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1
    x, y = (each.to(images.device, images.dtype, non_blocking=True) for each in (x, y))
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def crop_boxes(count: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Top, left, height, width of `count` random crops, each (count,): the first of ten draws that fits, or all."""
    draws = (count, 10)
    area = height * width * (CROP_SCALE[0] + (CROP_SCALE[1] - CROP_SCALE[0]) * torch.rand(draws, generator=generator))
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    ratio = torch.exp(low + (high - low) * torch.rand(draws, generator=generator))
    heights, widths = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (heights <= height) & (widths <= width)
    first = fits.int().argmax(1, keepdim=True)
    heights = torch.where(fits.any(1), heights.gather(1, first).squeeze(1), height)
    widths = torch.where(fits.any(1), widths.gather(1, first).squeeze(1), width)
    top = (torch.rand(count, generator=generator) * (height - heights + 1)).floor()
    left = (torch.rand(count, generator=generator) * (width - widths + 1)).floor()
    return top, left, heights, widths


def _source_positions(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where `size` resized pixels lie in a crop, which no sample may leave. start, length (M,) -> (M, size)."""
    centres = (torch.arange(size) + 0.5) / size
    offset = (centres * length[:, None] - 0.5).clamp(min=0).minimum(length[:, None] - 1)
    return start[:, None] + offset


def color_jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation within 0.2 and hue within 0.1, in an order drawn for each image.

    All images run seven operations: three, hue, three. One that is not an image's own has the factor 1. Selecting the
    images of each operation would launch 640 more kernels on a GPU.
    """
    count = len(images)
    factors = torch.stack([uniform(count, 1 - by, 1 + by, generator) for by in (BRIGHTNESS, CONTRAST, SATURATION)], 1)
    shift = uniform(count, -HUE, HUE, generator)
    order = torch.rand(count, 4, generator=generator).argsort(1)  # 0 brightness, 1 contrast, 2 saturation, 3 hue
    follows = (order == 3).cumsum(1) > 0
    operation = torch.cat([order[:, :3], order[:, 1:]], 1)  # (M, 6)
    its_turn = torch.cat([~follows[:, :3], follows[:, 1:]], 1) & (operation < 3)
    factor = torch.where(its_turn, factors.gather(1, operation.clamp(max=2)), 1)
    brightness, contrast = (its_turn & (operation == k) for k in (0, 1))
    columns = factor.to(images.dtype), brightness, contrast, shift.to(images.dtype)[:, None]
    # (turns, M, 1, 1, 1) on the device.
    *turns, shift = (x.t()[..., None, None, None].to(images.device, non_blocking=True) for x in columns)
    for turn in range(6):
        if turn == 3:
            images = adjust_hue(images, shift[0])
        images = blend(images, *(each[turn] for each in turns))
    return images


def blend(images: Tensor, factor: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Away from, or towards, black if `brightness`, each image's mean grey if `contrast`, else each pixel's grey.

    images (M, 3, H, W) in [0, 1]; factor, and the two masks, (M, 1, 1, 1). The factor 1 changes no bit.
    """
    grey = grayscale(images)
    base = torch.where(contrast, grey.mean((1, 2, 3), keepdim=True), grey)
    return torch.where(brightness, images * factor, torch.lerp(base, images, factor)).clamp(0, 1)


def grayscale(images: Tensor) -> Tensor:
    """Luma (ITU-R 601) of RGB: (M, 3, H, W) -> (M, 1, H, W)."""
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue by `shift` (M, 1, 1, 1) of a full circle, in HSV. images (M, 3, H, W) in [0, 1]."""
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    divisor = torch.where(chroma > 0, chroma, 1)
    sextant = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sextant = sextant + 6 * shift.squeeze(1)
    # Each channel is the same trapezoid of the hue, a third of a circle apart.
    phases = torch.arange(5, 0, -2, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    position = (phases + sextant.unsqueeze(1)) % 6
    trapezoid = torch.minimum(position, 4 - position).clamp(0, 1)
    return value.unsqueeze(1) - chroma.unsqueeze(1) * trapezoid
