"""The views: shapes, independence, determinism, and each operation against torchvision's per-image one."""

import pytest
import torch
from torchvision.transforms import ColorJitter, RandomResizedCrop
from torchvision.transforms.v2 import functional as T

from DualScaleNet import views


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 6, height: int = 40, width: int = 56) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=generator(9))


def test_shapes_at_the_authors_size():
    x, y = views.local_views(images(2, 224, 224), generator())
    assert x.shape == y.shape == (2, 9, 3, 74, 74)
    assert views.global_views(images(2, 224, 224), generator(), crop=True).shape == (2, 2, 3, 224, 224)


def test_grid_cells_are_row_by_row():
    image = images(2, 11, 10)
    patches = views.grid_patches(image)
    for cell in range(9):
        row, column = divmod(cell, 3)
        assert torch.equal(patches[:, cell], image[:, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3])


def test_standardised_views_do_not_know_their_colour():
    """Gain and offset of a channel make no difference; what is dark stays dark, and tells nothing."""
    x = 0.3 + 0.3 * images(4, 64, 64)
    x[..., :20] = 0
    gain, offset = torch.tensor([0.5, 0.8, 1.2]).view(3, 1, 1), torch.tensor([0.1, 0.0, 0.2]).view(3, 1, 1)
    out = views.standardise(x)
    bright = out[..., 20:]
    assert out[..., :20].abs().max() == 0
    assert torch.allclose(bright.mean((-2, -1)), torch.tensor(0.5), atol=0.01)
    assert torch.allclose(bright.std((-2, -1)), torch.tensor(0.2), atol=0.03)
    assert (views.standardise(x * gain + offset * (x > 0)) - out).abs().max() < 0.03
    assert views.standardise(torch.zeros(2, 9, 3, 8, 8)).abs().max() == 0 and not views.standardise(x).isnan().any()


@pytest.mark.parametrize("crop", [False, True])
def test_views_are_determined_by_the_seed_and_in_range(crop):
    def draw(seed: int) -> list[torch.Tensor]:
        g = generator(seed)
        return [*views.local_views(images(), g), views.global_views(images(), g, crop)]

    first, again, other = draw(1), draw(1), draw(2)
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)
        assert a.min() >= 0 and a.max() <= 1


def test_every_patch_and_view_has_a_draw_of_its_own():
    """The same picture in every place: the nine patches, the two copies and the two views come out different."""
    tile = images(1, 32, 32)
    x, y = views.local_views(tile.repeat(8, 1, 3, 3), generator())
    for stack in (x.flatten(0, 1), y.flatten(0, 1)):
        assert len({tuple(patch.flatten().tolist()) for patch in stack}) > 20
    assert not torch.equal(x, y)
    whole = views.global_views(tile.repeat(8, 1, 1, 1), generator(), crop=True)
    assert len({tuple(view.flatten().tolist()) for view in whole.flatten(0, 1)}) == 16


def test_exactly_one_operation_with_its_probability():
    """Shares of patches by what befell them: each operation 1/5, times its own probability."""
    count = 6000
    tile = images(1, 48, 48)
    out = views.augment(tile.repeat(count, 1, 1, 1), generator())

    def share_like(other: torch.Tensor) -> float:
        return ((out - other).abs() < 1e-6).flatten(1).all(1).float().mean().item()

    gray = T.rgb_to_grayscale(tile, num_output_channels=3)
    rotated = (out[:, :, 0, 0] == 0).all(1).float().mean().item()  # a rotated square has empty corners
    near = lambda expected: pytest.approx(expected, abs=0.02)  # noqa: E731  three standard deviations
    assert share_like(tile) == near(0.1 + 0.1 + 0.18)  # half of the flips, nine tenths of the greyscales
    assert share_like(tile.flip(-1)) == near(0.1)
    assert share_like(tile.flip(-2)) == near(0.1)
    assert share_like(gray) == near(0.02)
    assert rotated == near(0.2)


def test_all_operations_composed():
    """Each with its own probability, whatever befalls besides: shares of greys and flips, while all are rotated."""
    tile = torch.zeros(1, 3, 32, 32)
    tile[:, :, :16, :16] = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1)  # one coloured quarter
    out = views.augment(tile.repeat(4000, 1, 1, 1), generator(), all_operations=True)
    near = lambda expected: pytest.approx(expected, abs=0.025)  # noqa: E731
    gray = ((out[:, 0] - out[:, 2]).abs().amax((1, 2)) < 1e-4).float()
    assert gray.mean().item() == near(0.1)
    quarters = torch.stack([out[:, :, rows, columns].sum((1, 2, 3)) for rows in (slice(16), slice(16, None))
                            for columns in (slice(16), slice(16, None))], 1)  # fmt: skip
    where = quarters.argmax(1)  # a rotation within 45 degrees leaves most of it in its quarter
    for place in range(4):
        assert (where == place).float().mean().item() == near(0.25)
        assert gray[where == place].mean().item() == near(0.1)
    assert len({tuple(view) for view in quarters.round(decimals=4).tolist()}) > 3900  # angle and colour of its own


@pytest.mark.parametrize("grid", [2, 4])
def test_other_grids(grid):
    x, y = views.local_views(images(2, 48, 48), generator(), grid, all_operations=True)
    assert x.shape == y.shape == (2, grid * grid, 3, 48 // grid, 48 // grid)


def test_rotation_is_torchvisions():
    angles = views.uniform(6, -180, 180, generator())
    for image, angle, rotated in zip(images(), angles, views.rotate(images(), angles), strict=True):
        assert torch.allclose(T.rotate(image, angle.item()), rotated, atol=1e-4)


@pytest.mark.parametrize("name, low, high", [("brightness", 0.8, 1.2), ("contrast", 0.8, 1.2), ("saturation", 0, 2)])
def test_colour_operations_are_torchvisions(name, low, high):
    factors = views.uniform(6, low, high, generator())
    masks = (torch.full((6, 1, 1, 1), name == kind) for kind in ("brightness", "contrast"))
    ours = views.blend(images(), factors.view(-1, 1, 1, 1), *masks)
    for image, factor, adjusted in zip(images(), factors, ours, strict=True):
        assert torch.allclose(getattr(T, f"adjust_{name}")(image, factor.item()), adjusted, atol=1e-6)


def test_jitter_takes_each_operation_once_in_the_drawn_order():
    """Against torchvision's operations, image by image."""
    pictures = images(24, 8, 8)
    ours = views.color_jitter(pictures, generator(5))
    g = generator(5)
    factors = [views.uniform(24, 1 - by, 1 + by, g) for by in (views.BRIGHTNESS, views.CONTRAST, views.SATURATION)]
    factors.append(views.uniform(24, -views.HUE, views.HUE, g))
    orders = torch.rand(24, 4, generator=g).argsort(1)
    assert len({tuple(order) for order in orders.tolist()}) > 12
    for k, order in enumerate(orders.tolist()):
        image = pictures[k]
        for operation in order:
            name = ("brightness", "contrast", "saturation", "hue")[operation]
            image = getattr(T, f"adjust_{name}")(image, factors[operation][k].item())
        assert torch.allclose(image, ours[k], atol=2e-5), order


def test_hue_is_torchvisions_even_for_grey_and_black():
    pictures = images()
    pictures[0] = pictures[0, :1]
    pictures[1] = 0
    shifts = views.uniform(6, -0.5, 0.5, generator())
    ours = views.adjust_hue(pictures, shifts.view(-1, 1, 1, 1))
    for image, shift, adjusted in zip(pictures, shifts, ours, strict=True):
        assert torch.allclose(T.adjust_hue(image, shift.item()), adjusted, atol=1e-5)


def test_crop_is_torchvisions_resized_crop():
    boxes = views.crop_boxes(6, 40, 56, generator(3))
    ours = views.random_resized_crop(images(), generator(3))
    for image, cropped, *box in zip(images(), ours, *boxes, strict=True):
        assert torch.allclose(T.resized_crop(image, *map(int, box), [40, 56], antialias=True), cropped, atol=1e-4)


def test_crop_boxes_have_torchvisions_distribution():
    """Quantiles of position, size and ratio of 4000 boxes of either kind."""
    ours = torch.stack(views.crop_boxes(4000, 224, 224, generator()), 1)
    torch.manual_seed(0)
    picture = torch.zeros(3, 224, 224)
    theirs = [RandomResizedCrop.get_params(picture, views.CROP_SCALE, views.CROP_RATIO) for _ in range(4000)]
    theirs = torch.tensor(theirs, dtype=torch.float32)
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    for k in range(4):
        assert torch.allclose(ours[:, k].quantile(levels), theirs[:, k].quantile(levels), atol=8)
    ratio = [(boxes[:, 3] / boxes[:, 2]).log().quantile(levels) for boxes in (ours, theirs)]
    assert torch.allclose(*ratio, atol=0.03)


def test_jitter_has_torchvisions_distribution():
    """Mean and deviation, over 3000 draws, of each pixel of a small picture."""
    picture = images(1, 2, 3)
    ours = views.color_jitter(picture.repeat(3000, 1, 1, 1), generator())
    torch.manual_seed(0)
    jitter = ColorJitter(0.2, 0.2, 0.2, 0.1)
    theirs = torch.cat([jitter(picture) for _ in range(3000)])
    assert torch.allclose(ours.mean(0), theirs.mean(0), atol=0.012)
    assert torch.allclose(ours.std(0), theirs.std(0), atol=0.012)
