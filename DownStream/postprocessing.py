"""What is known of a disc and a cup, put into their masks; the probability maps stay as the network gave them."""

import cv2
import numpy as np

from DownStream.measurements import discs_of_cups, kind_of


def rules(targets: list[str]) -> dict[str, str]:
    """What `postprocess` does to each target that it changes, for the protocol."""
    inside = discs_of_cups(targets)
    return {
        target: "largest part" + (f" inside {inside[target]}" if target in inside else "") + ", filled"
        for target in targets
        if kind_of(target) in ("disc", "cup")
    }


def postprocess(masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The masks, bool (H, W) by target, of which a disc is one filled part, and a cup one that lies in its disc.

    The largest part is taken, not the most probable one: it can be told from the saved mask alone.
    """
    ruled, discs = rules(list(masks)), discs_of_cups(list(masks))
    found = {target: _largest_filled(mask) if target in ruled else mask for target, mask in masks.items()}
    return found | {cup: _largest_filled(masks[cup] & found[disc]) for cup, disc in discs.items()}


def _largest_filled(mask: np.ndarray) -> np.ndarray:
    """The largest connected part with its holes, bool (H, W)."""
    if not mask.any():
        return mask
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    box = slice(top, top + height), slice(left, left + width)  # a disc is a small part of a large photograph
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask[box].astype(np.uint8), connectivity=8)
    largest = parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    outline, _ = cv2.findContours(largest.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled[box], outline, -1, 1, cv2.FILLED)
    return filled > 0
