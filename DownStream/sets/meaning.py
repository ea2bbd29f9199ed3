"""What the values in a mask's file mean: which of them are marked, and which nothing counts.

The value of a pixel is its grey, the index in its palette, or `COLOUR` + 0xRRGGBB where red, green and blue differ.
"""

import re
from dataclasses import dataclass

from DualScaleNet.common.files import COLOUR

Ranges = tuple[tuple[int, int], ...]  # of values, both ends included
RANGE = re.compile(r"(\d+)(?:-(\d+))?|#([0-9a-f]{6})", re.IGNORECASE)


@dataclass(frozen=True)
class Meaning:
    """The `marked` values, None for those above half of the mask's highest (0/1 as well as 0/255).

    `inverted`: all others are marked instead. `ignored` values are counted by no loss and no score.
    """

    marked: Ranges | None = None
    inverted: bool = False
    ignored: Ranges = ()


def parse_ranges(text: str) -> Ranges:
    """"1", "0-128", "1,3" and "#ff0000" -> ranges of values.

    Raises:
        ValueError: the text is none of these.
    """
    ranges = []
    for part in text.split(","):
        match = RANGE.fullmatch(part)
        if not match:
            raise ValueError(f"{part or 'a blank'} is no value, range or colour: write 1, 0-128, 1,3 or #ff0000")
        low, high, colour = match.groups()
        if colour:
            ranges.append((pixel_value(*bytes.fromhex(colour)),) * 2)
        else:
            ranges.append((int(low), int(high or low)))
        if ranges[-1][0] > ranges[-1][1]:
            raise ValueError(f"{part} is no range: write the lower end first")
    return tuple(ranges)


def pixel_value(red: int, green: int, blue: int) -> int:
    """The value of a pixel of this colour."""
    return red if red == green == blue else COLOUR + (red << 16 | green << 8 | blue)


def value_name(value: int) -> str:
    """A value as --target takes it."""
    return f"#{value - COLOUR:06x}" if value >= COLOUR else str(value)


def contains(ranges: Ranges, value: int) -> bool:
    """Whether a value lies in one of the ranges."""
    return any(low <= value <= high for low, high in ranges)
