"""What is known of a disc and a cup, put into their masks; the probability maps stay as the network gave them."""

import math

import cv2
import numpy as np

from DownStream.measurements import discs_of_cups, kind_of

OPENING = 0.6  # diameter of the opening, over the diameter of a circle as large as the mask


def rules(targets: list[str]) -> dict[str, str]:
    """What `postprocess` does to each target that it changes, for the protocol."""
    inside = discs_of_cups(targets)
    return {
        target: "largest part" + (f" inside {inside[target]}" if target in inside else "") + ", opened, convex hull"
        for target in targets
        if kind_of(target) in ("disc", "cup")
    }


def postprocess(masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The masks, bool (H, W) by target, of which a disc is one convex part, and a cup one that lies in its disc.

    What hangs on the part, mostly vessels, would add to its height: an opening takes it away (docs/numbers.md). The
    largest part is taken, not the most probable one: it can be told from the saved mask alone.
    """
    ruled, discs = rules(list(masks)), discs_of_cups(list(masks))
    found = {name: _convex(mask) if name in ruled and name not in discs else mask for name, mask in masks.items()}
    return found | {cup: _convex(masks[cup] & found[disc]) & found[disc] for cup, disc in discs.items()}


def _convex(mask: np.ndarray) -> np.ndarray:
    """The convex hull of the largest connected part after an opening by a circle, bool (H, W).

    A part that the circle does not fit into is not opened.
    """
    if not mask.any():
        return mask
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    box = slice(top, top + height), slice(left, left + width)  # a disc is a small part of a large photograph
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask[box].astype(np.uint8), connectivity=8)
    largest = (parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    outline, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(largest, outline, -1, 1, cv2.FILLED)
    opened = _opened(largest, OPENING * math.sqrt(largest.sum() / math.pi))
    outline, _ = cv2.findContours(opened if opened.any() else largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    convex = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(convex[box], cv2.convexHull(np.concatenate(outline)), 1)
    return convex > 0


def _opened(mask: np.ndarray, radius: float) -> np.ndarray:
    """The opening of a mask (H, W) by a circle, uint8. Distances take the same time for every radius."""
    padded = np.pad(mask, 1)
    core = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > radius
    around = cv2.distanceTransform(1 - core.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= radius
    return around[1:-1, 1:-1].astype(np.uint8)
