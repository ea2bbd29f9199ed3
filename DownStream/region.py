"""The part of a photograph that a network works on: all of it, the field of view, or an ROI around the optic disc."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

DISC_DIAMETERS = 2.0  # side of the ROI around the disc
SIDE = 512  # long side of the copy on which the disc is measured, pixels
DISC_DIAMETER = 0.03, 0.6  # a disc's diameter over the photograph's shorter side: anything else is none
RIVAL = 0.3  # area over the largest part's from which another part may be the disc
DETAIL = 4.0  # pixels of that copy: standard deviation of the blur that leaves no vessel


@dataclass(frozen=True)
class Region:
    """A rectangle of a photograph, in its pixels; it may reach beyond the photograph, where there are zeros.

    `found` is False where a disc was sought in vain: there is nothing to segment then.
    """

    top: int
    left: int
    height: int
    width: int
    found: bool = True

    @classmethod
    def whole(cls, x: Tensor, found: bool = True) -> "Region":
        """All of a photograph (..., H, W)."""
        return cls(0, 0, x.shape[-2], x.shape[-1], found)

    def cut(self, x: Tensor) -> Tensor:
        """(..., H, W) -> (..., height, width)."""
        return F.pad(x, self._margins(x.shape[-2], x.shape[-1]))

    def paste(self, maps: Tensor, height: int, width: int) -> Tensor:
        """Undoes `cut`: (..., self.height, self.width) -> (..., height, width), zero outside the region."""
        return F.pad(maps, [-margin for margin in self._margins(height, width)])

    def jittered(self, generator: torch.Generator) -> "Region":
        """The ROI as an imprecise localiser would give it: scaled by 0.8 to 1.25, shifted by a tenth of its side."""
        scale, down, right = torch.rand(3, generator=generator).tolist()
        side = round(self.width * 0.8 * (1.25 / 0.8) ** scale)
        down, right = (0.2 * (shift - 0.5) * self.width + (self.width - side) / 2 for shift in (down, right))
        return Region(self.top + round(down), self.left + round(right), side, side)

    def _margins(self, height: int, width: int) -> list[int]:
        """Left, right, top, bottom, as `F.pad` wants them; negative ones cut."""
        return [-self.left, self.left + self.width - width, -self.top, self.top + self.height - height]


def fov_region(fov: np.ndarray) -> Region:
    """The bounding box of a field of view (H, W) bool; all of it where the mask is empty."""
    if not fov.any():
        return Region(0, 0, *fov.shape)
    left, top, width, height = cv2.boundingRect(fov.astype(np.uint8))
    return Region(top, left, height, width)


def fov_square(fov: np.ndarray) -> Region:
    """The square around a field of view (H, W) bool, its longer side's; it may reach beyond the photograph."""
    box = fov_region(fov)
    side = max(box.height, box.width)
    return Region(box.top - (side - box.height) // 2, box.left - (side - box.width) // 2, side, side)


def disc_region(disc: np.ndarray, green: np.ndarray) -> Region | None:
    """The ROI around a disc (H, W) bool, without what hangs on it; None if the mask has no part of a disc's size.

    `green` (H, W) uint8 is the photograph's channel. It decides between several parts of about the same size: where
    vessels leave the disc there is contrast, while exudates, reflexes and glare are smooth.
    """
    scale = max(1.0, max(disc.shape) / SIDE)
    small = cv2.resize(disc.astype(np.uint8), None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    # Vessels and crescents that a rough map adds are thinner than half of the disc.
    thick = max(1, round(cv2.distanceTransform(np.pad(small, 1), cv2.DIST_L2, 5).max()))
    opened = cv2.morphologyEx(small, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thick, thick)))
    count, parts, stats, centres = cv2.connectedComponentsWithStats(opened)
    if count < 2:
        return None
    areas = stats[:, cv2.CC_STAT_AREA]
    rivals = [part for part in range(1, count) if areas[part] >= RIVAL * areas[1:].max()]
    chosen = rivals[0]
    if len(rivals) > 1:
        shrunk = cv2.resize(green, small.shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
        detail = shrunk - cv2.GaussianBlur(shrunk, (0, 0), DETAIL)
        chosen = max(rivals, key=lambda k: areas[k] * detail[parts == k].std() / max(shrunk[parts == k].mean(), 1))
    diameter = 2 * math.sqrt(areas[chosen] / math.pi)
    if not DISC_DIAMETER[0] <= diameter / min(small.shape) <= DISC_DIAMETER[1]:
        return None
    side = round(DISC_DIAMETERS * diameter * scale)
    x, y = centres[chosen] * scale
    return Region(round(y - side / 2), round(x - side / 2), side, side)
