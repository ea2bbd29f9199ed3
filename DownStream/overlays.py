"""Masks drawn on their photographs: the contours of all targets, and one target's mask against its label."""

import zlib
from functools import cache
from itertools import product
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]  # red, green, blue

TRUE, MISSED, FALSE = (60, 220, 90), (60, 120, 255), (255, 60, 50)  # green, blue, red
COLOURS: dict[str, Colour] = {  # of contours: bright against the red of the retina and apart from each other
    "vessels": (0, 229, 255), "disc": (255, 255, 255), "OD": (255, 255, 255), "cup": (0, 190, 60),
    "MA": (255, 61, 245), "HE": (198, 255, 0), "EX": (0, 140, 255), "SE": (0, 255, 157),
}  # fmt: skip
OTHERS: list[Colour] = [(255, 214, 0), (160, 90, 255), (0, 150, 170), (255, 150, 190), (120, 220, 60), (0, 90, 200)]
OPACITY = 0.85  # of a contour: what lies under it shines through
LINE = 1400  # pixels of the photograph's longer side to one of a contour's width
TEXT, SMALLEST = 40, 9  # of a legend: pixels of the shorter side to one of the letters' height; and pixels at least
THUMBNAIL = 320  # pixels, the longer side


def comparison(image: np.ndarray, mask: np.ndarray, label: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 in grey with a mask against its label, both (H, W) bool.

    Green is true positive, blue missed, red false positive.
    """
    gray = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) * np.float32(0.7)).astype(np.uint8)
    painted = cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)
    painted[mask & label], painted[mask & ~label], painted[~mask & label] = TRUE, FALSE, MISSED
    return painted


def colours_of(targets: list[str]) -> dict[str, Colour]:
    """Each target's colour: its own by name, otherwise one that its name decides and that no other of these has."""
    found: dict[str, Colour] = {}
    for target in targets:
        start = zlib.crc32(target.encode(errors="backslashreplace")) % len(OTHERS)
        wanted = [COLOURS.get(target.partition(":")[0]), *OTHERS[start:], *OTHERS[:start]]
        colours = [colour for colour in wanted if colour]
        found[target] = next((colour for colour in colours if colour not in found.values()), colours[0])
    return found


def contours(image: np.ndarray, masks: dict[str, np.ndarray], fov: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 with the contours of masks, (H, W) bool by target, and a legend.

    A contour lies just outside of its mask, so that even a thin vessel is seen between its two borders. The legend
    stands in a corner outside of the field of view, (H, W) bool; where none is large enough, in rows added below.
    """
    painted = image.copy()
    colours = colours_of(list(masks))
    for target, mask in masks.items():
        _outline(painted, mask, colours[target])
    return _with_legend(painted, colours, fov)


def thumbnail(image: np.ndarray, masks: dict[str, np.ndarray]) -> np.ndarray:
    """As `contours`, shrunk to `THUMBNAIL` px and without a legend."""
    factor = min(1, THUMBNAIL / max(image.shape))
    size = tuple(max(1, round(side * factor)) for side in (image.shape[1], image.shape[0]))
    painted = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    for target, colour in colours_of(list(masks)).items():
        shrunk = cv2.resize(masks[target] * np.uint8(255), size, interpolation=cv2.INTER_AREA)
        _outline(painted, shrunk > 64, colour)  # a quarter of a pixel: thin vessels do not fall into pieces
    return painted


def _outline(painted: np.ndarray, mask: np.ndarray, colour: Colour) -> None:
    """Draws a contour just outside of a mask."""
    width = max(1, round(max(mask.shape) / LINE))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    line = cv2.dilate(mask.view(np.uint8), disc).view(bool) & ~mask
    painted[line] = (painted[line] * (1 - OPACITY) + np.array(colour) * OPACITY).round()


def _with_legend(painted: np.ndarray, colours: dict[str, Colour], fov: np.ndarray) -> np.ndarray:
    """Draws the names in their colours into a corner without a pixel of the field of view, or else below."""
    height, width = fov.shape
    legend = _legend(tuple(colours.items()), max(SMALLEST, round(min(height, width) / TEXT)))
    high, wide = legend.shape[:2]
    if high <= height and wide <= width:
        for top, left in product((height - high, 0), (0, width - wide)):
            box = slice(top, top + high), slice(left, left + wide)
            if not fov[box].any():
                painted[box] = legend
                return painted
    below = np.zeros((high, max(wide, width), 3), np.uint8)
    below[:, :wide] = legend
    return np.vstack([np.pad(painted, ((0, 0), (0, max(wide - width, 0)), (0, 0))), below])


@cache
def _legend(colours: tuple[tuple[str, Colour], ...], size: int) -> np.ndarray:
    """Names below each other in their colours, on black, (h, w, 3) uint8."""
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
    wide = max(round(font.getlength(name)) for name, _ in colours)
    line = round(1.25 * size)
    picture = Image.new("RGB", (wide + size, len(colours) * line + size // 2))
    draw = ImageDraw.Draw(picture)
    for number, (name, colour) in enumerate(colours):
        draw.text((size // 2, size // 4 + number * line), name, colour, font)
    return np.asarray(picture)
