"""How far the numbers read off the masks are from those read off the labels, and which lesions were found."""

import math
from typing import Any

import cv2
import numpy as np

from DownStream.measurements import AREA, VERTICAL, Number, kind_of, measure

HEADS = ["Number", "Photographs", "Mean of labels", "Mean of masks", "Mean absolute error", "Correlation"]


class Agreement:
    """The numbers of masks and labels of the same photographs, side by side."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []  # of numbers.csv
        self._lesions: dict[str, list[tuple[int, int, int]]] = {}

    def add(
        self,
        name: str,
        numbers: dict[str, Number],
        masks: dict[str, np.ndarray],
        labels: dict[str, np.ndarray],
        fov: np.ndarray,
    ) -> None:
        """Counts a photograph: all masks, with their `numbers`, and the labels that there are, (H, W) bool."""
        for number, value in measure(labels, fov).items():
            self.rows.append({"image": name, "number": number, "label": value, "mask": numbers[number]})
        for target in labels:
            if kind_of(target) == "lesion":
                self._lesions.setdefault(target, []).append(match_parts(masks[target], labels[target]))

    def numbers(self, target: str) -> dict[str, dict[str, float]]:
        """Of each number of a target, over the photographs where label and mask have it.

        photographs: how many. label, mask: means. error: mean absolute difference. correlation: Pearson's, NaN for
        fewer than three photographs or where one side is constant.
        """
        pairs: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows:
            if belongs(row["number"], target) and None not in (row["label"], row["mask"]):
                pairs.setdefault(row["number"], []).append((row["label"], row["mask"]))
        return {number: _statistics(np.array(each)) for number, each in pairs.items()}

    def lesions(self, target: str) -> dict[str, float]:
        """Lesion-wise: how many are labelled, found and false; sensitivity, and false positives a photograph."""
        if target not in self._lesions:
            return {}
        found, labelled, false = np.sum(self._lesions[target], 0).tolist()
        return {
            "labelled": labelled, "found": found, "false": false,
            "sensitivity": found / labelled if labelled else math.nan,
            "false_positives_per_photograph": false / len(self._lesions[target]),
        }  # fmt: skip


def belongs(number: str, target: str) -> bool:
    """Whether a number is read off a target's mask, alone or with another's."""
    _, colon, who = target.partition(":")
    ratios = (VERTICAL + colon + who, AREA + colon + who) if kind_of(target) in ("disc", "cup") else ()
    return number.startswith(f"{target} ") or number in ratios


def match_parts(mask: np.ndarray, label: np.ndarray) -> tuple[int, int, int]:
    """Lesions found, labelled, and falsely marked, of (H, W) bool.

    A lesion is a connected part (8 neighbours). It is found if the mask touches it; a part of the mask that touches no
    lesion is false.
    """
    drawn, lesions = cv2.connectedComponents(label.astype(np.uint8), connectivity=8)
    marked, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    both = mask & label
    found, true = len(np.unique(lesions[both])), len(np.unique(parts[both]))
    return found, drawn - 1, marked - 1 - true


def _statistics(pairs: np.ndarray) -> dict[str, float]:
    """Of (photographs, 2): labels, masks."""
    label, mask = pairs.T
    defined = len(pairs) > 2 and label.std() > 0 and mask.std() > 0
    return {
        "photographs": len(pairs), "label": float(label.mean()), "mask": float(mask.mean()),
        "error": float(np.abs(label - mask).mean()),
        "correlation": float(np.corrcoef(label, mask)[0, 1]) if defined else math.nan,
    }  # fmt: skip


def numbers_text(numbers: dict[str, dict[str, float]], lesions: dict[str, float]) -> str:
    """What `Agreement` says of a target, for the screen."""
    lines = []
    for name, *cells in (HEADS, *numbers_table(numbers)):
        right = (cell.rjust(len(head) + 3) for cell, head in zip(cells, HEADS[1:], strict=True))
        lines.append(name.ljust(28) + "".join(right))
    return "\n".join(lines + ([lesions_line(lesions)] if lesions else []))


def numbers_table(numbers: dict[str, dict[str, float]]) -> list[list[str]]:
    """The rows below HEADS."""
    return [
        [name, str(each["photographs"])]
        + ["–" if math.isnan(each[key]) else f"{each[key]:.4g}" for key in ("label", "mask", "error", "correlation")]
        for name, each in numbers.items()
    ]


def lesions_line(lesions: dict[str, float]) -> str:
    """`Agreement.lesions` as a sentence."""
    sensitivity = "–" if math.isnan(lesions["sensitivity"]) else f"{lesions['sensitivity']:.3f}"
    return (
        f"Lesions, each a connected part: the mask touches {lesions['found']} of {lesions['labelled']} labelled ones "
        f"(sensitivity {sensitivity}); {lesions['false_positives_per_photograph']:.2f} false positives a photograph."
    )
