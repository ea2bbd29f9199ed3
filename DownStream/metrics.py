"""Measures of a segmentation: F1 and the area under the precision-recall curve first, then the usual others.

Probabilities are taken at the 65,536 levels of the 16-bit PNG in which the maps are saved, and every measure is
computed from two histograms over these levels: one of the pixels whose label is positive, one of the others. Histograms
add up over images, so the memory is constant however many pixels there are, and each number can be recomputed from the
saved maps:

    levels = to_levels(probability)                                   # what the 16-bit PNG holds
    histogram = Histogram.of(levels, label, inside=field_of_view)     # inside=None: the whole image
    scores(histogram)["f1"], scores(sum(histograms, Histogram.zero()))["f1"]   # one image, all pixels pooled

Against unrounded probabilities the areas differ by less than 1e-4, unless a network is so sure of itself that a good
part of its probabilities lies within 1/131070 of 0 or 1: those become ties.
A measure that is not defined (the F1 of an image without a positive pixel in its label) is NaN, never 0 or 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LEVELS = 65536
MEASURES = ("f1", "pr_auc", "auroc", "sensitivity", "specificity", "accuracy", "iou", "mcc")


def to_levels(probability: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1], any shape -> uint16 levels round(p * 65535), same shape.

    Level >= 32768 is exactly p >= 0.5. Raises ValueError for a NaN or a value outside [0, 1].
    """
    # float64: in half precision p * 65535 would overflow.
    probability = np.asarray(probability, dtype=np.float64)
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1] (logits or NaN given?)")
    return np.rint(probability * (LEVELS - 1)).astype(np.uint16)


def threshold_level(threshold: float) -> int:
    """The smallest level that counts as positive: `levels >= threshold_level(t)` is the binary mask at threshold t.

    The threshold is rounded as the probabilities are, so 0.5 -> 32768, `level / 65535` -> level, and every p >= t is
    positive. At least 1: a probability saved as zero never is. Raises ValueError for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold must lie in (0, 1], not {threshold}")
    return max(1, int(to_levels(threshold)))


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many pixels have each level: `positives` and `negatives` by the label, int64 of shape [65536]."""

    positives: np.ndarray
    negatives: np.ndarray

    @classmethod
    def zero(cls) -> Histogram:
        """No pixels: the start value for `sum(histograms, Histogram.zero())`."""
        return cls(np.zeros(LEVELS, np.int64), np.zeros(LEVELS, np.int64))

    @classmethod
    def of(cls, levels: np.ndarray, label: np.ndarray, inside: np.ndarray | None = None) -> Histogram:
        """Count the pixels of one image (or of any stack of images).

        levels: uint16, any shape; label: bool, same shape, True where positive; inside: bool, same shape, True where a
        pixel counts (the field of view), None to count all. Raises TypeError for another dtype, ValueError for another
        shape.
        """
        masks = {"label": label} if inside is None else {"label": label, "inside": inside}
        if levels.dtype != np.uint16:
            raise TypeError(f"levels must be uint16 (see to_levels), not {levels.dtype}")
        for name, mask in masks.items():
            if mask.dtype != np.bool_:  # a 0/255 mask read from a file would be counted wrongly
                raise TypeError(f"{name} must be bool, not {mask.dtype}")
            if mask.shape != levels.shape:
                raise ValueError(f"{name} has shape {mask.shape}, the levels {levels.shape}")
        if inside is not None:
            levels, label = levels[inside], label[inside]
        # One pass for both histograms: the label is the seventeenth bit of the index.
        index = levels.ravel().astype(np.intp)
        index[label.ravel()] += LEVELS
        counts = np.bincount(index, minlength=2 * LEVELS).astype(np.int64, copy=False)
        return cls(positives=counts[LEVELS:], negatives=counts[:LEVELS])

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.positives + other.positives, self.negatives + other.negatives)


def pr_curve(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision), recall rising from the end point (0, 1) to 1, one point for each level that occurs.

    Linear interpolation between these points is what scikit-learn's `auc(recall, precision)` integrates. Two float64
    arrays of the same length; both are empty if the label has no positive pixel.
    """
    tp, fp = _counts_from_the_top(histogram)
    if not tp.size or not tp[-1]:
        return np.empty(0), np.empty(0)
    return np.r_[0.0, tp / tp[-1]], np.r_[1.0, tp / (tp + fp)]


def roc_curve(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """(false positive rate, true positive rate), both rising from 0 to 1, one point for each level that occurs.

    Two float64 arrays of the same length; both are empty if either class has no pixel.
    """
    tp, fp = _counts_from_the_top(histogram)
    if not tp.size or not tp[-1] or not fp[-1]:
        return np.empty(0), np.empty(0)
    return np.r_[0.0, fp / fp[-1]], np.r_[0.0, tp / tp[-1]]


def scores(histogram: Histogram, threshold: float = 0.5) -> dict[str, float]:
    """All MEASURES, in that order, of the pixels counted in `histogram`.

    f1 (which is the Dice coefficient), sensitivity, specificity, accuracy, iou and mcc are those of the mask at
    `threshold` (see `threshold_level`); pr_auc and auroc are trapezoid areas and need no threshold. NaN where a measure
    is not defined: f1, pr_auc, auroc, sensitivity, iou and mcc without a positive pixel in the label; auroc,
    specificity and mcc without a negative one; all of them without a pixel. With both classes in the label and a mask
    that is all of one class, mcc is 0.
    """
    level = threshold_level(threshold)
    # Python integers have no upper limit: the products below are exact however many pixels there are.
    tp, fp = int(histogram.positives[level:].sum()), int(histogram.negatives[level:].sum())
    fn, tn = int(histogram.positives[:level].sum()), int(histogram.negatives[:level].sum())
    has_positives, has_negatives = tp + fn > 0, fp + tn > 0
    mcc = math.nan
    if has_positives and has_negatives:
        one_class = tp + fp == 0 or tn + fn == 0
        mcc = 0.0 if one_class else (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "f1": 2 * tp / (2 * tp + fp + fn) if has_positives else math.nan,
        "pr_auc": _area(*pr_curve(histogram)),
        "auroc": _area(*roc_curve(histogram)),
        "sensitivity": tp / (tp + fn) if has_positives else math.nan,
        "specificity": tn / (tn + fp) if has_negatives else math.nan,
        "accuracy": (tp + tn) / (tp + tn + fp + fn) if has_positives or has_negatives else math.nan,
        "iou": tp / (tp + fp + fn) if has_positives else math.nan,
        "mcc": mcc,
    }


def best_threshold(histogram: Histogram) -> float:
    """The threshold `level / 65535` (level 1 to 65535) with the best F1 of these pixels; the lowest of equals.

    For training or validation images only: a threshold chosen on the images it is then tested on flatters the result.
    Raises ValueError if the label has no positive pixel, because then no threshold has an F1.
    """
    total = int(histogram.positives.sum())
    if not total:
        raise ValueError("no positive pixel in the label: there is no best threshold")
    tp = np.cumsum(histogram.positives[::-1])[::-1][1:]
    fp = np.cumsum(histogram.negatives[::-1])[::-1][1:]
    f1 = 2 * tp / (tp + fp + total)  # 2 tp + fp + fn, with tp + fn the total
    return (int(np.argmax(f1)) + 1) / (LEVELS - 1)


def summarise(per_image: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Over the `scores` of several images: {measure: {"mean", "std", "defined", "undefined"}}, in the same order.

    NaN values are left out of the mean and the standard deviation; "defined" and "undefined" count the images with and
    without a value. std is that of a sample (ddof 1), NaN for fewer than two values; the mean of none is NaN. {} for no
    images. Raises ValueError if the images do not have the same measures.
    """
    if any(image.keys() != per_image[0].keys() for image in per_image):
        raise ValueError("the images do not have the same measures")
    summary = {}
    for name in per_image[0] if per_image else ():
        values = np.array([image[name] for image in per_image], dtype=np.float64)
        values = values[~np.isnan(values)]
        summary[name] = {
            "mean": float(values.mean()) if values.size else math.nan,
            "std": float(values.std(ddof=1)) if values.size > 1 else math.nan,
            "defined": int(values.size),
            "undefined": len(per_image) - int(values.size),
        }
    return summary


def _counts_from_the_top(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives (int64) of each threshold from the highest level that occurs to the lowest."""
    # Levels without a pixel add no point to a curve; above the highest one precision would be 0 / 0.
    occurs = np.flatnonzero(histogram.positives + histogram.negatives)[::-1]
    return np.cumsum(histogram.positives[occurs]), np.cumsum(histogram.negatives[occurs])


def _area(x: np.ndarray, y: np.ndarray) -> float:
    """Trapezoid area under y over x; NaN for a curve without points."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2) if x.size else math.nan
