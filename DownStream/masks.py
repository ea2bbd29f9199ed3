"""Masks as read: what is marked in them, what nothing counts, and the values that they have."""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from DownStream.sets.base import Label
from DownStream.sets.meaning import Ranges
from DualScaleNet.common.files import read_drawing
from DualScaleNet.common.script import UserError

NOISE, BRIGHT = 15, 128  # no value of a mask is above the one, while others of its set reach the other: it is empty


@dataclass(frozen=True)
class Mask:
    """A label as read, all (H, W): `marked` and, where some are, `ignored` pixels, bool; `values` as in the file.

    Where all of it is noise, all values are 0.
    """

    path: Path
    marked: np.ndarray
    ignored: np.ndarray | None
    values: np.ndarray

    def left_half(self) -> "Mask":
        """Of the mask of a stereo pair."""
        half = self.values.shape[1] // 2
        ignored = None if self.ignored is None else self.ignored[:, :half]
        return Mask(self.path, self.marked[:, :half], ignored, self.values[:, :half])


def read_mask(label: Label) -> Mask:
    """The mask in a label's file, by the label's meaning.

    Without marked values, those above half of the highest are marked: this takes 0/1 and 0/255, 8 and 16 bits, palettes
    and colours alike. A mask of faint noise, in a set whose other masks are bright, is empty.

    Raises:
        UserError: the file, or one of those that it is compared with, cannot be read.
    """
    if label.path is None:
        raise ValueError("a label without a file has no mask")
    strength, values = read_drawing(label.path)
    meaning = label.meaning
    ignored = within(values, meaning.ignored) if meaning.ignored else None
    if meaning.marked is not None:
        marked = within(values, meaning.marked)
    else:
        highest = strength.max() if ignored is None else strength.max(where=~ignored, initial=0)
        marked = strength > highest / 2
        if 1 < highest <= NOISE and _is_faint(strength, highest) and is_bright(label.peers, meaning.ignored):
            marked, values = np.zeros_like(marked), np.zeros_like(values)
    if meaning.inverted:
        marked = ~marked
    if ignored is not None:
        marked &= ~ignored
    return Mask(label.path, marked, ignored, values)


def within(values: np.ndarray, ranges: Ranges) -> np.ndarray:
    """Which values lie in one of the ranges: bool, of the same shape."""
    return np.logical_or.reduce([(values >= low) & (values <= high) for low, high in ranges])


def _is_faint(strength: np.ndarray, highest: int) -> bool:
    """Whether there are more values than 0 and the highest: a mask of two values is one, however dark."""
    return bool(((strength > 0) & (strength < highest)).any())


@lru_cache
def is_bright(paths: tuple[Path, ...], ignored: Ranges) -> bool:
    """Whether any of these masks has a value as bright as marks of 255 are, not to be ignored."""
    for path in paths:
        with suppress(UserError):  # whoever needs the file names it
            strength, values = read_drawing(path)
            bright = strength >= BRIGHT
            if (bright & ~within(values, ignored) if ignored else bright).any():
                return True
    return False
