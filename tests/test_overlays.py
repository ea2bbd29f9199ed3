"""Masks on their photographs: fixed colours, thin lines outside of what they enclose, nothing of the retina hidden."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import REAL
from PIL import Image

from DownStream.data import Photograph
from DownStream.inference import Prediction
from DownStream.maps import MAP_FORMATS, read_map, write_result
from DownStream.overlays import (
    COLOURS,
    FALSE,
    MISSED,
    OTHERS,
    THUMBNAIL,
    TRUE,
    colours_of,
    comparison,
    contours,
    thumbnail,
)
from DownStream.region import Region
from DownStream.results import Results
from DownStream.scoring.metrics import to_levels
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample

GREY = 90


def frame(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A grey photograph, (H, W, 3) uint8, and a round field of view, (H, W) bool."""
    fov = np.zeros((height, width), np.uint8)
    cv2.circle(fov, (width // 2, height // 2), min(height, width) // 2, 1, cv2.FILLED)
    return np.full((height, width, 3), GREY, np.uint8), fov.astype(bool)


def test_colours_of_a_mask_against_its_label():
    mask, label = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    painted = comparison(np.full((1, 4, 3), 100, np.uint8), mask, label)
    assert painted[0].tolist() == [list(TRUE), list(FALSE), list(MISSED), [70, 70, 70]]


def test_each_target_has_its_colour():
    known = [name for settings in CATALOGUE.values() for name in settings.targets if ":" not in name]
    assert {name for name in known if name not in COLOURS} <= {"mask"}
    assert colours_of(["vessels:2nd", "disc", "cup"]) == {
        "vessels:2nd": COLOURS["vessels"], "disc": COLOURS["disc"], "cup": COLOURS["cup"],
    }  # fmt: skip
    mine = colours_of(["größe", "drusen", "disc"])
    assert mine["drusen"] == colours_of(["drusen"])["drusen"] in OTHERS  # whatever stands beside it
    many = colours_of(["disc:exp1", "disc:exp2", *(f"t{k}" for k in range(5))])
    assert len(set(many.values())) == 7
    assert len(colours_of(["no text \udcff", *(f"t{k}" for k in range(20))])) == 21


@pytest.mark.parametrize(("height", "width", "line"), [(584, 565, 1), (1760, 2048, 1), (3000, 4000, 3)])
def test_a_contour_lies_outside_of_its_mask_and_is_thin(height, width, line):
    image, fov = frame(height, width)
    mask = np.zeros((height, width), bool)
    mask[height // 2 : height // 2 + 3, width // 4 : width // 2] = True  # a vessel of 3 px
    painted = contours(image, {"vessels": mask}, fov)
    assert painted.shape == image.shape and (image == GREY).all()
    assert np.array_equal(painted[mask], image[mask])
    changed = (painted != image).any(2) & fov
    column = np.flatnonzero(changed[:, width // 3]) - height // 2
    assert column.tolist() == [*range(-line, 0), *range(3, 3 + line)]
    colour = painted[height // 2 - 1, width // 3].astype(int)
    assert np.abs(colour - COLOURS["vessels"]).max() < 0.2 * 255  # the retina shines through


def test_the_legend_stands_outside_of_the_retina():
    image, fov = frame(584, 700)
    nothing = np.zeros(fov.shape, bool)
    painted = contours(image, {"disc": nothing, "größe": nothing}, fov)
    changed = (painted != image).any(2)
    assert changed.any() and not (changed & fov).any()
    seen = {tuple(pixel) for pixel in painted[changed].tolist()}
    assert set(colours_of(["disc", "größe"]).values()) <= seen
    below = contours(image, {"disc": nothing}, np.ones_like(fov))  # no corner is free
    assert np.array_equal(below[:584], image) and below.shape[1:] == image.shape[1:]
    assert (COLOURS["disc"] == below[584:]).all(2).any()
    tiny = contours(np.full((5, 4, 3), GREY, np.uint8), {"disc": np.zeros((5, 4), bool)}, np.zeros((5, 4), bool))
    assert (tiny[:5, :4] == GREY).all() and (COLOURS["disc"] == tiny[5:]).all(2).any()


def test_thumbnails_are_small_and_show_thin_vessels():
    image, _ = frame(3000, 4000)
    mask = np.zeros((3000, 4000), bool)
    mask[1000:1006] = True  # half a pixel of the thumbnail
    small = thumbnail(image, {"vessels": mask})
    assert small.shape == (240, THUMBNAIL, 3)
    assert (small != GREY).any(2).any(0).all()
    assert thumbnail(image[:40, :50], {"vessels": mask[:40, :50]}).shape == (40, 50, 3)


@pytest.mark.skipif(not REAL.is_dir(), reason="no data beside the repository")
def test_a_real_photograph_shows_its_vessels_and_a_legend():
    folder = REAL / "DRIVE" / "training"
    image = np.asarray(Image.open(folder / "images" / "21_training.tif").convert("RGB"))
    vessels = np.asarray(Image.open(folder / "1st_manual" / "21_manual1.gif").convert("L")) > 0
    fov = np.asarray(Image.open(folder / "mask" / "21_training_mask.gif").convert("L")) > 0
    changed = (contours(image, {"vessels": vessels}, fov) != image).any(2)
    assert not (changed & vessels).any()
    assert 0.5 < (changed & fov).sum() / vessels.sum() < 1.2
    assert (changed & ~fov).sum() > 500


MASK = np.pad(np.ones((20, 20), bool), 20)


@pytest.mark.parametrize(
    ("targets", "labels", "contoured", "compared"),
    [
        (["vessels"], [], ["overlay"], []),
        (["vessels"], ["vessels"], [], ["overlay"]),
        (["disc", "cup:1"], [], ["overlay"], []),
        (["disc", "cup:1"], ["disc", "cup:1"], ["overlay"], ["disc/overlay", "cup_1/overlay"]),
        (["disc", "cup:1"], ["cup:1"], ["overlay"], ["cup_1/overlay"]),
    ],
)
def test_where_overlays_lie(targets, labels, contoured, compared):
    photograph = Photograph(
        "a", torch.full((3, 60, 60), GREY, dtype=torch.uint8), {name: torch.from_numpy(MASK) for name in labels}
    )
    thresholds = dict.fromkeys(targets, 0.5)
    results = Results(Path(), thresholds, targets, by_diameter=False, raw_masks=True, labelled=bool(labels))
    maps = torch.from_numpy(np.stack([MASK] * len(targets))).float()
    _, files = results.add(Sample("a", Path("a.png")), photograph, Prediction(maps, Region.whole(maps)))
    overlays = {path.parent.as_posix(): array for path, array in files.items() if path.parent.name == "overlay"}
    assert sorted(overlays) == sorted(contoured + compared)
    assert all((overlays[name][:60, :60][MASK] == GREY).all() for name in contoured)
    assert all((overlays[name][MASK] == TRUE).all() for name in compared)
    assert (Path("thumbnails", "a.jpg") in files) != bool(labels)


# --- maps


@pytest.mark.parametrize("suffix", MAP_FORMATS)
def test_maps_come_back_as_they_were(suffix, tmp_path):
    values = np.random.default_rng(0).random((30, 40), np.float32)
    path = tmp_path / f"a.{suffix}"
    write_result(path, to_levels(values) if suffix == "png" else values)
    found = read_map(path)
    assert found.dtype == np.float32 and found.shape == (30, 40)
    assert np.abs(found - values).max() <= (0.5001 / 65535 if suffix == "png" else 0)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
