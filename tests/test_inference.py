"""From a photograph to its map and back: regions, windows, test-time augmentation, the localiser."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from DownStream.data import Photograph
from DownStream.inference import Ensemble, Predictor, starts
from DownStream.model import Segmenter
from DownStream.region import Region, disc_region, fov_region
from DownStream.transforms import NetworkInput
from DualScaleNet.encoder import Encoder


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=g, dtype=torch.uint8)


def disc_at(y: int, x: int, radius: int, height: int = 120, width: int = 160) -> np.ndarray:
    rows, columns = np.ogrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


class PixelNetwork(nn.Module):
    """Stands for a network that looks at one pixel at a time: its probability is the red value."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = 1
        self.anywhere = nn.Parameter(torch.zeros(1))  # says on which device it lies
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(x.shape))
        return x[:, :1].logit()


# --- regions


def test_cut_and_paste():
    image = picture(40, 60)
    for region in (Region(5, 10, 20, 30), Region(-4, -6, 20, 20), Region(30, 50, 25, 25), Region(-3, -3, 50, 70)):
        part = region.cut(image)
        assert part.shape == (3, region.height, region.width)
        inside = torch.zeros(40, 60, dtype=torch.bool)
        inside[max(0, region.top) : region.top + region.height, max(0, region.left) : region.left + region.width] = True
        assert torch.equal(region.paste(part, 40, 60), image * inside)
        assert torch.equal(region.cut(inside)[None].sum(), inside.sum())  # masks too; nothing of it is lost
    assert torch.equal(Region.whole(image).cut(image), image)


def test_the_field_of_views_box():
    fov = disc_at(50, 70, 30)
    assert fov_region(fov) == Region(21, 41, 59, 59)
    assert fov_region(np.zeros((10, 12), bool)) == Region(0, 0, 10, 12)


def test_the_square_around_the_disc():
    smooth = np.full((120, 160), 200, np.uint8)
    region = disc_region(disc_at(60, 40, 15), smooth)
    assert abs(region.top + region.height / 2 - 60) <= 1 and abs(region.left + region.width / 2 - 40) <= 1
    assert region.height == region.width == pytest.approx(60, abs=2)
    vessel = np.zeros((120, 160), bool)
    vessel[:60, 38:44] = True
    for more in (disc_at(5, 150, 4), vessel):  # the largest part counts, without what hangs on it
        found = disc_region(disc_at(60, 40, 15) | more, smooth)
        assert abs(found.top - region.top) <= 2 and abs(found.left - region.left) <= 2 and found.width <= 63
    vessels = smooth.copy()
    vessels[:, 38:42] = 100
    for green, left in ((vessels, region.left), (smooth, 90)):  # of two of about a size the one with vessels
        found = disc_region(disc_at(60, 40, 15) | disc_at(60, 120, 17), green)
        assert abs(found.left - left) <= 5
    large = disc_region(disc_at(600, 400, 150, 1200, 1600), np.zeros((1200, 1600), np.uint8))
    assert (large.top, large.left, large.width) == pytest.approx((300, 100, 600), abs=12)
    for mask in (disc_at(0, 0, 0), disc_at(60, 40, 1), np.ones((120, 160), bool)):
        assert disc_region(mask, smooth) is None


def test_jittered_squares_hold_the_disc_and_differ():
    disc = torch.from_numpy(disc_at(60, 80, 20))
    region = disc_region(disc.numpy(), np.zeros(disc.shape, np.uint8))
    squares = [region.jittered(torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert all(square.height == square.width and square.cut(disc).sum() == disc.sum() for square in squares)
    sides = [square.width / region.width for square in squares]
    assert 0.78 <= min(sides) < 0.85 and 1.2 < max(sides) <= 1.27 and len(set(squares)) > 150


# --- prediction


def test_maps_have_the_photographs_own_size():
    model = Segmenter(Encoder(), classes=2)
    sizes = ((20, 31), (64, 64), (70, 97), (1, 1), (3, 200))
    for fit, (height, width) in itertools.product(("pad", "resize"), sizes):
        found = Predictor(model, NetworkInput(fit, 64))(Photograph("a", picture(height, width), {}))
        assert found.maps.shape == (2, height, width) and found.region == Region(0, 0, height, width)
        assert found.maps.min() >= 0 and found.maps.max() <= 1 and (found.disc_found, found.uncertainty) == (None, None)


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("window", [None, 32, 64])
@pytest.mark.parametrize("fov_crop", [False, True])
def test_every_pixel_comes_back_to_its_place(tta, window, fov_crop):
    """Whatever the way, a network that looks at single pixels gives the photograph back."""
    image = picture(97, 150).clamp(1, 254)
    fov = torch.from_numpy(disc_at(50, 70, 40, 97, 150))
    predictor = Predictor(PixelNetwork(), NetworkInput("pad", 64), fov_crop, window=window, tta=tta)
    found = predictor(Photograph("a", image, {}, fov=fov))
    region = found.region
    inside = region.paste(torch.ones(region.height, region.width), 97, 150)
    assert torch.allclose(found.maps[0], image[0] / 255 * inside, atol=1e-5)
    assert fov_crop == (region != Region(0, 0, 97, 150))
    if window:
        assert all(shape[2:] == (window, window) for shape in predictor.model.seen)


def test_an_upright_network_sees_the_photograph_and_its_mirror_image():
    seen = []
    class Network(PixelNetwork):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x[0])
            return super().forward(x)

    image = picture(64, 64)
    Predictor(Network(), NetworkInput("pad", 64), tta=True, upright=True)(Photograph("a", image, {}))
    assert len(seen) == 2 and torch.equal(seen[0].flip(-1), seen[1])


def test_standardised_colours_are_those_of_the_retina_alone():
    """A background that is not black, as STARE's, changes nothing; the dark fringe of the rim neither."""
    fov, clear = (torch.from_numpy(disc_at(220, 240, radius, 440, 500)) for radius in (201, 200))
    retina = picture(440, 500).clamp(min=60)
    for standardised in (True, False):
        predictor = Predictor(PixelNetwork(), NetworkInput("pad", 64, standardised))
        maps = []
        for seed in (1, 2):
            photograph = Photograph("a", torch.where(clear, retina, picture(440, 500, seed)), {}, fov=fov)
            maps.append(predictor(photograph).maps[0])
        assert torch.equal(*maps) == standardised
    still_seen = photograph.retina.any(0)
    assert 0.97 < still_seen.sum() / fov.sum() < 0.99 and not (still_seen & ~clear).any()


def test_without_a_border_everything_is_retina():
    for height, width in ((64, 80), (1, 1), (3, 200)):
        image = torch.full((3, height, width), 90, dtype=torch.uint8)
        assert torch.equal(Photograph("a", image, {}).retina, image)


def test_windows_cover_everything_and_overlap_by_a_quarter():
    assert starts(50, 64) == [0] and starts(64, 64) == [0] and starts(65, 64) == [0, 1]
    for length in (100, 128, 129, 1000):
        tops = starts(length, 64)
        assert tops[-1] == length - 64 and all(b - a <= 48 for a, b in itertools.pairwise(tops))
        assert len(set(tops)) == len(tops)


def test_windows_equal_the_whole_away_from_their_edges():
    """A convolution sees as much in the middle of a window as in the whole photograph."""
    torch.manual_seed(0)

    class Blur(PixelNetwork):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.avg_pool2d(x[:, :1], 3, 1, 1)

    photograph = Photograph("a", picture(200, 200), {})
    whole = Predictor(Blur(), NetworkInput("pad", 64))(photograph).maps
    windows = Predictor(Blur(), NetworkInput("pad", 64), window=64)(photograph).maps
    # A pixel at one window's edge has hardly any weight there.
    assert (whole - windows)[:, 2:-2, 2:-2].abs().max() < 0.01


def test_the_localiser_leads_to_the_disc_and_says_when_there_is_none():
    network = PixelNetwork()
    localiser = Predictor(PixelNetwork(), NetworkInput("resize", 64))
    predictor = Predictor(network, NetworkInput("resize", 32), localiser=localiser)
    disc = torch.from_numpy(disc_at(60, 40, 15))
    image = (disc * 200 + 20).byte().expand(3, -1, -1)
    found = predictor(Photograph("a", image, {}))
    maps, region = found.maps, found.region
    assert region.found and found.disc_found and region.cut(disc).sum() == disc.sum() and abs(region.width - 60) <= 4
    assert network.seen == [(1, 3, 32, 32)]
    assert ((maps[0] > 0.5) == disc).float().mean() > 0.99
    outside = region.paste(torch.ones(region.height, region.width), 120, 160) == 0
    assert maps[0][outside].max() == 0

    missed = predictor(Photograph("b", torch.full_like(image, 20), {}))
    assert not missed.region.found and missed.disc_found is False
    assert missed.maps.shape == (1, 120, 160) and missed.maps.max() == 0


class Constant(PixelNetwork):
    """Gives every pixel these probabilities."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.logits = torch.tensor(probabilities).logit()
        self.classes = len(probabilities)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[None, :, None, None].expand(len(x), -1, *x.shape[2:])


def test_several_networks_give_the_mean_of_their_maps_and_how_far_they_disagree():
    photograph = Photograph("a", picture(50, 60), {})
    parts = [Predictor(Constant(*values), NetworkInput("pad", 64)) for values in ((0.2, 0.9), (0.4, 0.9))]
    found = Ensemble(parts, [["disc", "cup"]] * 2)(photograph)
    assert torch.allclose(found.maps, torch.tensor([0.3, 0.9])[:, None, None].expand(2, 50, 60))
    assert torch.allclose(found.uncertainty, torch.tensor([0.1, 0])[:, None, None].expand(2, 50, 60), atol=1e-6)
    assert found.region == Region(0, 0, 50, 60) and found.scale == 1

    lost = replace(parts[1], localiser=Predictor(Constant(0.1), NetworkInput("pad", 64)))  # finds no disc
    found = Ensemble([parts[0], lost], [["disc", "cup"]] * 2)(photograph)
    assert torch.allclose(found.maps[:, 0, 0], torch.tensor([0.2, 0.9])) and not found.disc_found
    assert not Ensemble([lost, lost], [["disc", "cup"]] * 2)(photograph).maps.any()

    apart = Ensemble(parts, [["disc", "cup"], ["EX", "SE"]])(photograph)
    assert torch.allclose(apart.maps[:, 0, 0], torch.tensor([0.2, 0.9, 0.4, 0.9])) and apart.uncertainty is None
