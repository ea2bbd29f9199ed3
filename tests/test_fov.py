"""The estimated field of view against exact ones of drawn eyes, and against the masks that DRIVE ships."""

import cv2
import numpy as np
import pytest
from conftest import REAL

from Dataset.fundus import draw_fundus
from DownStream.fov import estimate_fov
from DualScaleNet.common.files import read_image


def overlap(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union."""
    assert estimate.dtype == bool and estimate.shape == truth.shape
    return float((estimate & truth).sum() / (estimate | truth).sum())


@pytest.fixture(scope="module")
def eye() -> tuple[np.ndarray, np.ndarray]:
    """A photograph and its field of view, away from the frame's edges."""
    fundus = draw_fundus(np.random.default_rng(3), 320, 300)
    return fundus.image, fundus.fov


@pytest.mark.parametrize(
    ("width", "height", "bound"),
    [(48, 48, 0.94), (96, 80, 0.94), (150, 200, 0.975), (400, 300, 0.985), (565, 584, 0.985), (1200, 800, 0.985)],
)
def test_sizes_and_frames(width: int, height: int, bound: float) -> None:
    for seed in range(2):
        fundus = draw_fundus(np.random.default_rng(seed), width, height)
        assert overlap(estimate_fov(fundus.image), fundus.fov) > bound


def test_the_same_answer_twice(eye: tuple[np.ndarray, np.ndarray]) -> None:
    before = eye[0].copy()
    assert np.array_equal(estimate_fov(eye[0]), estimate_fov(eye[0]))
    assert np.array_equal(eye[0], before)


def test_dark_photograph(eye: tuple[np.ndarray, np.ndarray]) -> None:
    assert overlap(estimate_fov((eye[0] * 0.25).astype(np.uint8)), eye[1]) > 0.98


def test_bright_rim_and_halo(eye: tuple[np.ndarray, np.ndarray]) -> None:
    image, fov = eye
    rim = np.exp(-((cv2.distanceTransform(fov.astype(np.uint8), cv2.DIST_L2, 5) / 12) ** 2)) * fov
    halo = cv2.GaussianBlur(fov.astype(np.float32), (0, 0), 20) * ~fov
    bright = np.clip(image + 150 * rim[..., None] + 60 * halo[..., None], 0, 255).astype(np.uint8)
    assert overlap(estimate_fov(bright), fov) > 0.97


def test_dim_coloured_noisy_border_with_text(eye: tuple[np.ndarray, np.ndarray]) -> None:
    image, fov = eye
    noise = np.random.default_rng(0).normal((30, 50, 45), 6, image.shape)
    border = np.clip(noise, 0, 255).astype(np.uint8)
    border[-12:] = 5
    cv2.putText(border, "OD 12:30", (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255))
    assert overlap(estimate_fov(np.where(fov[..., None], image, border)), fov) > 0.97


def test_dark_inside(eye: tuple[np.ndarray, np.ndarray]) -> None:
    """A shadow that swallows the fovea and a part of the rim: the circle goes on through it."""
    image, fov = eye
    down, across = np.ogrid[: fov.shape[0], : fov.shape[1]]
    away = np.hypot(across - 0.95 * fov.shape[1], down - 0.5 * fov.shape[0]) / (0.3 * fov.shape[1])
    shadow = np.clip(away**2 - 0.1, 0, 1)[..., None]
    shaded = (8 + (np.maximum(image, 8) - 8) * shadow).astype(np.uint8)
    assert overlap(estimate_fov(shaded), fov) > 0.97


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
@pytest.mark.parametrize("blacken", [True, False])
def test_cut_circle(eye: tuple[np.ndarray, np.ndarray], side: str, blacken: bool) -> None:
    """Cut by a black bar, as by the sensor, or by the edge of the frame."""
    image, fov = (array.copy() for array in eye)
    gone = {"top": np.s_[:50, :], "bottom": np.s_[-50:, :], "left": np.s_[:, :50], "right": np.s_[:, -50:]}[side]
    kept = {"top": np.s_[50:, :], "bottom": np.s_[:-50, :], "left": np.s_[:, 50:], "right": np.s_[:, :-50]}[side]
    if blacken:
        image[gone], fov[gone] = 0, False
    else:
        image, fov = image[kept], fov[kept]
    assert overlap(estimate_fov(image), fov) > 0.98


def test_padded_right_and_bottom(eye: tuple[np.ndarray, np.ndarray]) -> None:
    image, fov = np.pad(eye[0], ((0, 140), (0, 200), (0, 0))), np.pad(eye[1], ((0, 140), (0, 200)))
    assert overlap(estimate_fov(image), fov) > 0.98


@pytest.mark.parametrize("seed", range(4))
def test_crop_from_within_is_all_field_of_view(seed: int) -> None:
    image = draw_fundus(np.random.default_rng(seed), 240, 240).image
    assert estimate_fov(image[60:-60, 60:-60]).all()


def test_grey_image(eye: tuple[np.ndarray, np.ndarray]) -> None:
    grey = np.repeat(cv2.cvtColor(eye[0], cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    assert overlap(estimate_fov(grey), eye[1]) > 0.98


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (64, 48)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_hopeless_image_is_all_field_of_view(shape: tuple[int, int], value: int) -> None:
    mask = estimate_fov(np.full((*shape, 3), value, np.uint8))
    assert mask.shape == shape and mask.dtype == bool and mask.all()


@pytest.mark.skipif(not (REAL / "DRIVE").is_dir(), reason="needs the DRIVE data set in shared/data")
def test_masks_of_drive() -> None:
    scores = []
    for number in range(21, 31):
        folder = REAL / "DRIVE" / "training"
        mask = read_image(folder / "mask" / f"{number}_training_mask.gif", "L") > 127
        scores.append(overlap(estimate_fov(read_image(folder / "images" / f"{number}_training.tif")), mask))
    assert min(scores) > 0.97 and np.mean(scores) > 0.985
