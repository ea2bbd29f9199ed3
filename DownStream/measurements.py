"""The numbers that are read off masks: areas, cup-to-disc ratios, vessels, lesions. docs/numbers.md explains them."""

import math
from importlib.util import find_spec

import cv2
import numpy as np

SKELETONS = find_spec("skimage") is not None  # imported where it is needed: it takes a second or two
Number = float | int | None  # None: not defined, as the ratio to a disc that was not found
KINDS = {"disc": "disc", "OD": "disc", "cup": "cup", "vessels": "vessels"}
KINDS |= dict.fromkeys(("MA", "HE", "EX", "SE"), "lesion")
VERTICAL, AREA = "vertical cup-to-disc ratio", "area cup-to-disc ratio"


def kind_of(target: str) -> str:
    """What a target shows: disc, cup, vessels or lesion; "" where its name does not tell."""
    return KINDS.get(target.partition(":")[0], "")


def discs_of_cups(targets: list[str]) -> dict[str, str]:
    """For each cup among the targets the disc that it lies in, of the same annotator; a cup without a disc has none."""
    discs = {target.partition(":")[2]: target for target in targets if kind_of(target) == "disc"}
    cups = [target for target in targets if kind_of(target) == "cup"]
    return {cup: discs[who] for cup in cups if (who := cup.partition(":")[2]) in discs}


def measure(masks: dict[str, np.ndarray], fov: np.ndarray, pixel_size: float | None = None) -> dict[str, Number]:
    """The numbers of a photograph's masks, by their columns in summary.csv; each name ends with its unit.

    Args:
        masks: bool (H, W) by target.
        fov: bool (H, W), the field of view, of which `T marked` is a share; all else is of the whole mask.
        pixel_size: mm; adds every length (px) in mm and every area (px2) in mm2.
    """
    numbers: dict[str, Number] = {}
    for target, mask in masks.items():
        numbers[f"{target} marked"] = float(np.count_nonzero(mask & fov) / np.count_nonzero(fov))
        numbers |= {f"{target} {name}": value for name, value in _measure_one(mask, kind_of(target)).items()}
    for cup, disc in discs_of_cups(list(masks)).items():
        _, colon, who = cup.partition(":")
        for name, quantity in ((VERTICAL, "height px"), (AREA, "area px2")):
            part, whole = numbers[f"{cup} {quantity}"] or 0, numbers[f"{disc} {quantity}"]
            numbers[name + colon + who] = part / whole if whole else None
    return numbers | (_metric(numbers, pixel_size) if pixel_size else {})


def _measure_one(mask: np.ndarray, kind: str) -> dict[str, Number]:
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    area = int(areas.sum())
    numbers: dict[str, Number] = {"area px2": area, "parts": count - 1}
    if kind in ("disc", "cup"):
        _, _, width, height = cv2.boundingRect(mask.astype(np.uint8))
        numbers |= {"height px": height, "width px": width}
    if kind == "vessels":
        length = _vessel_length(mask)
        # Twice the distance to the border would be wrong by up to a pixel: it cannot tell widths of 2 and 3 apart.
        numbers |= {"length px": length, "mean width px": area / length if length else None}
    if kind == "lesion":
        numbers["largest area px2"] = int(areas.max(initial=0))
    return numbers


def _vessel_length(mask: np.ndarray) -> float | None:
    """Of the skeleton, in pixels; None without scikit-image."""
    if not SKELETONS:
        return None
    from skimage.morphology import skeletonize

    return skeleton_length(skeletonize(mask))


def _metric(numbers: dict[str, Number], mm: float) -> dict[str, Number]:
    """Lengths and areas again, in mm and mm2."""
    found: dict[str, Number] = {}
    for name, value in numbers.items():
        quantity, _, unit = name.rpartition(" ")
        if unit in ("px", "px2"):
            factor = mm if unit == "px" else mm * mm
            found[f"{quantity} {unit.replace('px', 'mm')}"] = None if value is None else value * factor
    return found


def skeleton_length(lines: np.ndarray) -> float:
    """The length of lines one pixel wide, bool (H, W), in pixels.

    Steps from pixel to pixel count 1, diagonal ones sqrt 2; this is too long by 5.5 % on average over all directions,
    which is taken off (Kulpa, CGIP 1977).
    """
    straight = np.count_nonzero(lines[:, 1:] & lines[:, :-1]) + np.count_nonzero(lines[1:] & lines[:-1])
    falling = lines[1:, 1:] & lines[:-1, :-1] & ~lines[1:, :-1] & ~lines[:-1, 1:]
    rising = lines[1:, :-1] & lines[:-1, 1:] & ~lines[1:, 1:] & ~lines[:-1, :-1]
    diagonal = np.count_nonzero(falling) + np.count_nonzero(rising)
    return float(straight + math.sqrt(2) * diagonal) * math.pi * (1 + math.sqrt(2)) / 8
