"""Masks of discs and cups, and what becomes of them in files, numbers and scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import options_of, rows
from PIL import Image

from DownStream import predict
from DownStream.data import Photograph
from DownStream.inference import Prediction
from DownStream.measurements import VERTICAL
from DownStream.postprocessing import postprocess, rules
from DownStream.region import Region
from DownStream.results import Results
from DownStream.scoring.evaluation import DRAWINGS, protocol_line
from DownStream.sets.base import Sample
from DualScaleNet.common.files import write_image

SIZE = 90


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def circle(row: int, column: int, diameter: int) -> np.ndarray:
    rows, columns = np.ogrid[:SIZE, :SIZE]
    return (rows - row) ** 2 + (columns - column) ** 2 <= (diameter / 2) ** 2


DISC, CUP = circle(40, 40, 50), circle(40, 40, 30)
VESSEL = np.zeros((SIZE, SIZE), bool)
VESSEL[5:75, 38:42] = True  # from above the disc to below it
ROUGH_DISC = (DISC & ~square(35, 30, 5)) | VESSEL | square(76, 76, 10)  # with a hole, a vessel and a second part
ROUGH_CUP = (CUP & ~square(46, 32, 5)) | VESSEL | square(72, 72, 3) | square(35, 18, 2)


def assert_alike(mask: np.ndarray, expected: np.ndarray) -> None:
    """But for single pixels along the border: circles drawn in pixels have corners."""
    assert np.count_nonzero(mask ^ expected) <= 0.05 * np.count_nonzero(expected)
    assert abs(np.count_nonzero(mask.any(1)) - np.count_nonzero(expected.any(1))) <= 2


def test_a_disc_is_one_convex_part_and_a_cup_one_in_its_disc():
    found = postprocess({"cup": ROUGH_CUP, "disc": ROUGH_DISC, "MA": ROUGH_DISC})
    assert_alike(found["disc"], DISC)
    assert_alike(found["cup"], CUP)
    assert found["MA"] is ROUGH_DISC
    for target, mask in postprocess(found).items():
        assert_alike(mask, found[target])


def test_a_cup_stays_in_its_disc():
    shifted = circle(40, 60, 30)
    found = postprocess({"disc": DISC, "cup": shifted})
    assert found["cup"].any() and not (found["cup"] & ~found["disc"]).any()


def test_what_is_thin_or_small_is_not_opened_away():
    line = square(10, 10, 40) & square(10, 10, 1)
    line |= np.eye(SIZE, dtype=bool) & square(10, 10, 40)
    assert np.array_equal(postprocess({"disc": line})["disc"], line)
    assert np.array_equal(postprocess({"disc": square(10, 10, 1)})["disc"], square(10, 10, 1))


def test_nothing_stays_nothing_and_a_cup_needs_its_disc():
    nothing = np.zeros((SIZE, SIZE), bool)
    assert not postprocess({"disc": nothing, "cup": CUP})["cup"].any()
    assert_alike(postprocess({"cup": ROUGH_CUP})["cup"], CUP)
    assert_alike(postprocess({"disc:exp1": nothing, "cup": CUP})["cup"], CUP)  # another annotator's disc
    full = np.ones((SIZE, SIZE), bool)
    assert postprocess({"OD": full})["OD"][SIZE // 2].all()  # its corners are cut


def test_the_rules_are_named():
    ruled = "opened, convex hull"
    expected = {"disc": f"largest part, {ruled}", "cup": f"largest part inside disc, {ruled}"}
    assert rules(["disc", "vessels", "cup"]) == expected
    assert rules(["cup"]) == {"cup": f"largest part, {ruled}"}
    protocol = {
        "source": "mine", "target": "disc", "images": 1, "threshold": 0.5, "threshold_from": "given",
        "field_of_view": "shipped",
    }  # fmt: skip
    named = protocol_line(protocol | {"postprocessing": "a rule"})
    assert named == protocol_line(protocol) + "; the mask is post-processed: a rule"


def results_of(folder: Path, raw_masks: bool) -> tuple[Results, list[Sample]]:
    """The rough disc and cup of one photograph, measured, scored and written."""
    labels = {"disc": torch.from_numpy(DISC), "cup": torch.from_numpy(CUP)}
    photograph = Photograph("a", torch.full((3, SIZE, SIZE), 90, dtype=torch.uint8), labels)
    sample = Sample("a", folder / "a.png")
    maps = torch.from_numpy(np.stack([ROUGH_DISC * 0.9, ROUGH_CUP * 0.6])).float()
    results = Results(folder, {"disc": 0.5, "cup": 0.5}, ["disc", "cup"], by_diameter=False, raw_masks=raw_masks)
    _, files = results.add(sample, photograph, Prediction(maps, Region.whole(maps)))
    for path, array in files.items():
        write_image(path, array)
    return results, [sample]


@pytest.mark.parametrize("raw_masks", [False, True])
def test_masks_and_numbers_are_post_processed_and_maps_and_their_scores_are_not(tmp_path, raw_masks):
    results, _ = results_of(tmp_path, raw_masks)
    results.write_table()
    saved = {name: np.asarray(Image.open(tmp_path / name / "mask" / "a.png")) > 0 for name in ("disc", "cup")}
    maps = {name: np.asarray(Image.open(tmp_path / name / "probability" / "a.png")) for name in ("disc", "cup")}
    assert np.array_equal(maps["disc"] > 0, ROUGH_DISC) and np.array_equal(maps["cup"] > 0, ROUGH_CUP)
    measures: dict[str, Any] = {name: each.measures()["whole"] for name, each in results.evaluations.items()}
    overlap = np.count_nonzero(ROUGH_DISC & DISC)
    assert measures["disc"]["pooled"]["f1"] == 2 * overlap / (ROUGH_DISC.sum() + DISC.sum())
    row = rows(tmp_path / "summary.csv")[0]
    if raw_masks:
        assert np.array_equal(saved["disc"], ROUGH_DISC) and np.array_equal(saved["cup"], ROUGH_CUP)
        assert (row["disc parts"], row["cup parts"]) == ("2", "3")
        assert "postprocessed" not in measures["disc"]
    else:
        assert_alike(saved["disc"], DISC)
        assert not (saved["cup"] & ~saved["disc"]).any()
        assert (row["disc parts"], row["cup parts"]) == ("1", "1")
        assert float(row[VERTICAL]) == pytest.approx(30 / 50, abs=0.03)
        f1 = measures["disc"]["postprocessed"]["f1"]
        assert f1 == 2 * np.count_nonzero(saved["disc"] & DISC) / (saved["disc"].sum() + DISC.sum()) > 0.98
        line = f"pooled F1 of the {DRAWINGS['postprocessed'].lower()}: {f1:.4f}"
        assert line in results.evaluations["disc"].table()


def test_masks_are_post_processed_unless_the_option_says_no(monkeypatch):
    assert not options_of(monkeypatch, predict).raw_masks
    assert options_of(monkeypatch, predict, "--raw-masks").raw_masks
