"""When not to trust a row: sharpness, brightness and field of view of photographs that were spoilt on purpose."""

import cv2
import numpy as np
import pytest
import torch
from conftest import REAL

from Dataset.fundus import draw_fundus
from DownStream.data import Photograph, read_sample
from DownStream.quality import quality
from DownStream.selection import photographs_in
from DownStream.sets import CATALOGUE

EYE = draw_fundus(np.random.default_rng(1), 620, 600).image


def judged(image: np.ndarray) -> dict[str, float | str]:
    return quality(Photograph("a", torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1), {}))


def test_an_ordinary_photograph_is_not_doubted():
    found = judged(EYE)
    assert found["doubt"] == ""
    assert list(found) == ["sharpness", "brightness", "field of view share", "doubt"]


def test_what_is_wrong_is_named():
    blurred = cv2.GaussianBlur(EYE, (0, 0), 12)
    retina = EYE.max(2, keepdims=True) > 20
    framed = np.zeros((1500, 1500, 3), np.uint8)
    framed[400:1000, 400 : 400 + EYE.shape[1]] = EYE[:600]
    assert judged(blurred)["doubt"] == "blurred"
    assert "dark" in str(judged((EYE * 0.2).astype(np.uint8))["doubt"])
    pale = np.where(retina, 255 - (255 - EYE) // 4, 0).astype(np.uint8)
    assert "bright" in str(judged(pale)["doubt"])
    assert judged(framed)["doubt"] == "small field of view"
    assert float(judged(blurred)["sharpness"]) < 0.7 < float(judged(EYE)["sharpness"])


@pytest.mark.parametrize("scale", [0.7, 1.5, 3])
def test_the_size_of_a_photograph_hardly_matters(scale):
    resized = cv2.resize(EYE, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    expected, found = judged(EYE), judged(resized)
    for name in ("sharpness", "brightness", "field of view share"):
        assert found[name] == pytest.approx(expected[name], rel=0.1)


@pytest.mark.parametrize("image", [np.zeros((40, 50, 3), np.uint8), np.full((8, 4, 3), 200, np.uint8)])
def test_what_is_no_retina_is_judged_too(image):
    assert "blurred" in str(judged(image)["doubt"])


def test_a_wrong_field_of_view_does_no_harm():
    fov = torch.zeros(EYE.shape[:2], dtype=torch.bool)
    fov[300, 300] = True
    found = quality(Photograph("a", torch.from_numpy(EYE.copy()).permute(2, 0, 1), {}, fov))
    assert "small field of view" in str(found["doubt"])


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="no data beside the repository")
def test_real_photographs():
    """Of sets that were chosen to be labelled nearly none is doubted; of EyePACS some are, the worst of them."""
    labelled = [*CATALOGUE["drive"].find(REAL / "DRIVE", ["vessels"])["train"],
                *CATALOGUE["chase-db1"].find(REAL / "CHASE_DB1", ["vessels"])["train"]]  # fmt: skip
    assert {quality(read_sample(sample))["doubt"] for sample in labelled} == {""}
    every_eighth = photographs_in([REAL / "eyepacs_770"])[0][::8]
    doubted = [quality(read_sample(sample))["doubt"] != "" for sample in every_eighth]
    assert 0.03 < np.mean(doubted) < 0.2
