"""What is found in a mask: which values it has, which of them come in areas, how much is marked."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from DownStream.data import Photograph
from DownStream.masks import Mask
from DownStream.sets.meaning import COLOUR, Meaning

FEW_VALUES = 64  # a mask with more has soft borders, noise of JPEG, or is a picture
AREAS = 0.6  # of the pixels of a value that has a meaning have their like to the right or below
SPREAD = 0.25  # of the pixels: with more of them between dark and bright, it is a picture
WHITE = 240  # in all channels: a frame, no retina


@dataclass(frozen=True)
class Finding:
    """One mask: the share of the field of view and of the photograph that is marked, and its values.

    `counts` are the pixels by value, without ignored ones; `levels` the values that come in areas, and so may have a
    meaning, and whether they are marked; `picture` whether the values spread as in a photograph.
    """

    path: Path
    meaning: Meaning
    of_fov: float
    of_frame: float
    counts: dict[int, int]
    levels: dict[int, bool]
    picture: bool


def find(mask: Mask, meaning: Meaning, of_fov: float) -> Finding:
    """What there is to say of one mask."""
    values = mask.values if mask.values.dtype.kind in "ui" else np.nan_to_num(mask.values).astype(np.int64)
    inside = np.ones_like(mask.marked) if mask.ignored is None else ~mask.ignored
    counts, marked = count_values(values, inside), count_values(values, mask.marked)
    levels, is_picture = list(counts), False
    if len(counts) > 2:
        flat = np.zeros_like(inside)
        flat[:, :-1] = values[:, :-1] == values[:, 1:]
        flat[:-1] |= values[:-1] == values[1:]
        levels = levels_of(counts, count_values(values, flat & inside))
        light = brightness(values)
        highest = int(light.max())
        between = (light > highest / 8) & (light < highest * 7 / 8) & ~flat
        is_picture = bool(between.mean() > SPREAD)
    of_frame = np.count_nonzero(mask.marked) / mask.marked.size
    are_marked = {value: value in marked for value in levels}
    return Finding(mask.path, meaning, of_fov, of_frame, counts, are_marked, is_picture)


def count_values(values: np.ndarray, where: np.ndarray) -> dict[int, int]:
    """How many of the pixels `where` have each value, by rising value."""
    if values.dtype == np.uint8:
        counts = cv2.calcHist([values], [0], where.astype(np.uint8), [256], [0, 256]).ravel()
        return {int(value): int(counts[value]) for value in counts.nonzero()[0]}
    return {int(value): int(n) for value, n in zip(*np.unique(values[where], return_counts=True), strict=True)}


def brightness(values: np.ndarray) -> np.ndarray:
    """Of greys and indices the value, of colours the brightest channel."""
    channels = [(values >> shift) & 255 for shift in (16, 8, 0)]
    return np.where(values < COLOUR, values, np.maximum.reduce(channels)) if values.max() >= COLOUR else values


def levels_of(counts: dict[int, int], in_areas: dict[int, int]) -> list[int]:
    """The values that mostly have their like beside them; where there is room for noise, without what it makes of them.

    Soft borders and noise give other values than those of the areas, which seldom have their like beside them, but for
    values close to the lowest and the highest.
    """
    levels = [value for value, n in in_areas.items() if n >= AREAS * counts[value]]
    low, high = min(counts), max(counts)
    if len(counts) > FEW_VALUES:
        least = 0.02 * (sum(counts.values()) - max(counts.values()))
        levels = [value for value in levels if in_areas[value] >= least] if high < COLOUR else []
    if FEW_VALUES <= high < COLOUR:
        between = [value for value in levels if high / 16 < value < high * 15 / 16 and value != low]
        levels = sorted({low, *between, high})
    return levels


def light_outside(photograph: Photograph) -> float:
    """The share of a photograph's light outside of its field of view; a white frame is no light of the retina."""
    image = photograph.image.numpy()
    light = image.mean(0) * (image.min(0) < WHITE)
    return float(light[~photograph.field_of_view].sum() / max(light.sum(), 1))
