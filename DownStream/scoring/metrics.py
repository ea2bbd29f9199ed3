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
    return max(1, int(to_levels(np.asarray(threshold))))


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

    def occurring(self) -> tuple[np.ndarray, np.ndarray]:
        """Positives and negatives of the levels that have a pixel."""
        occurs = self.positives + self.negatives > 0
        return self.positives[occurs], self.negatives[occurs]

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.positives + other.positives, self.negatives + other.negatives)


@dataclass(frozen=True, eq=False)
class Coarse:
    """A histogram in fewer bins, so that each photograph of a large set can keep one: for `bootstrap`.

    The bins are as narrow as the levels near 0 and 1, where most probabilities lie, and wider between. `counts` are
    int64 (2, bins), positives and negatives; the bins from `level` on are those above the threshold.
    """

    counts: np.ndarray
    level: int

    @classmethod
    def of(cls, histogram: Histogram, threshold: float) -> Coarse:
        """The threshold is one of the bins' edges: only the areas lose by the coarseness, below 1e-4."""
        level = threshold_level(threshold)
        logits = np.linspace(-math.log(LEVELS), math.log(LEVELS), 2048)
        edges = np.union1d(np.rint(LEVELS / (1 + np.exp(-logits))).astype(int), [0, level])
        edges = edges[edges < LEVELS]
        counts = [np.add.reduceat(side, edges) for side in (histogram.positives, histogram.negatives)]
        return cls(np.stack(counts), int(np.searchsorted(edges, level)))


def pr_curve(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision), recall rising from the end point (0, 1) to 1, one point for each level that occurs.

    Linear interpolation between these points is what scikit-learn's `auc(recall, precision)` integrates. Two float64
    arrays of the same length; both are empty if the label has no positive pixel.
    """
    if not histogram.positives.any():
        return np.empty(0), np.empty(0)
    tp, fp = _counts_from_the_top(*histogram.occurring())
    return tp / tp[-1], _precision(tp, fp)


def roc_curve(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """(false positive rate, true positive rate), both rising from 0 to 1, one point for each level that occurs.

    Two float64 arrays of the same length; both are empty if either class has no pixel.
    """
    if not histogram.positives.any() or not histogram.negatives.any():
        return np.empty(0), np.empty(0)
    tp, fp = _counts_from_the_top(*histogram.occurring())
    return fp / fp[-1], tp / tp[-1]


def scores(histogram: Histogram, threshold: float = 0.5) -> dict[str, float]:
    """All MEASURES, in that order, of the pixels counted in `histogram`.

    f1 (which is the Dice coefficient), sensitivity, specificity, accuracy, iou and mcc are those of the mask at
    `threshold` (see `threshold_level`); pr_auc and auroc are trapezoid areas and need no threshold. NaN where a measure
    is not defined: f1, pr_auc, auroc, sensitivity, iou and mcc without a positive pixel in the label; auroc,
    specificity and mcc without a negative one; all of them without a pixel. With both classes in the label and a mask
    that is all of one class, mcc is 0.
    """
    values = _measures(histogram.positives, histogram.negatives, threshold_level(threshold))
    return {name: float(value) for name, value in values.items()}


def _measures(positives: np.ndarray, negatives: np.ndarray, level: int) -> dict[str, np.ndarray]:
    """`scores` of counts by level, (..., L) each: one value for each of the leading indices."""
    tps, fps = _counts_from_the_top(positives, negatives)
    total, others = tps[..., -1], fps[..., -1]
    above = tps.shape[-1] - 1 - level  # how many levels are positive
    tp, fp = tps[..., above], fps[..., above]
    fn, tn = total - tp, others - fp
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, fall_out = tps / total[..., None], fps / others[..., None]
        mcc = (tp * tn - fp * fn) / (np.sqrt((tp + fp) * (tn + fn)) * np.sqrt(total * others))
        one_class = (total > 0) & (others > 0) & ((tp + fp == 0) | (tn + fn == 0))
        return {
            "f1": np.where(total > 0, 2 * tp / (2 * tp + fp + fn), math.nan),
            "pr_auc": np.trapezoid(_precision(tps, fps), recall),
            "auroc": np.trapezoid(recall, fall_out),
            "sensitivity": tp / total,
            "specificity": tn / others,
            "accuracy": (tp + tn) / (total + others),
            "iou": np.where(total > 0, tp / (tp + fp + fn), math.nan),
            "mcc": np.where(one_class, 0.0, mcc),
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


def threshold_of_share(histogram: Histogram, share: float) -> float:
    """The highest threshold `level / 65535` at which at least this share of the pixels is marked. No label counts."""
    marked = np.cumsum((histogram.positives + histogram.negatives)[::-1])[::-1]
    level = int(np.searchsorted(-marked, -share * marked[0], side="right")) - 1
    return max(1, level) / (LEVELS - 1)


def calibration_error(histogram: Histogram, bins: int = 15) -> float:
    """Expected calibration error: how far probabilities are off the share of positives, on average over the pixels.

    Mean absolute difference of the two in `bins` equal parts of [0, 1], weighted by their pixels; NaN without a pixel
    (Guo et al. 2017, section 2).
    """
    part = np.arange(LEVELS) * bins // LEVELS
    count = histogram.positives + histogram.negatives
    if not count.any():
        return math.nan
    expected = np.bincount(part, count * np.arange(LEVELS) / (LEVELS - 1), bins)
    return float(np.abs(np.bincount(part, histogram.positives, bins) - expected).sum() / count.sum())


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


def bootstrap(images: list[Coarse], resamples: int = 2000, seed: int = 0) -> dict[str, dict[str, list[float]]]:
    """95 % intervals over photographs: they are drawn with replacement, and the 2.5 and 97.5 percentiles are taken.

    Returns {"pooled": {measure: [low, high]}, "per_image": {measure: [low, high]}}, of the measures of all pixels
    pooled and of the mean over the images. A draw in which a measure is not defined is left out; fewer than two images
    have no interval: NaN. Percentile bootstrap (Efron and Tibshirani 1993, chapter 13).
    """
    if len(images) < 2:
        return {kind: {name: [math.nan, math.nan] for name in MEASURES} for kind in ("pooled", "per_image")}
    counts = np.stack([image.counts for image in images]).astype(np.float64)
    level = images[0].level
    draws = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), resamples)
    pooled = np.tensordot(draws.astype(np.float64), counts, 1)
    each = _measures(counts[:, 0], counts[:, 1], level)
    with np.errstate(invalid="ignore"):
        means = {name: draws @ np.nan_to_num(each[name]) / (draws @ ~np.isnan(each[name])) for name in MEASURES}
    samples = {"pooled": _measures(pooled[:, 0], pooled[:, 1], level), "per_image": means}
    return {kind: {name: _interval(value) for name, value in values.items()} for kind, values in samples.items()}


def _interval(values: np.ndarray) -> list[float]:
    """The middle 95 % of the values that are defined."""
    defined = values[~np.isnan(values)]
    return np.percentile(defined, (2.5, 97.5)).tolist() if defined.size else [math.nan, math.nan]


def _counts_from_the_top(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts by level (..., L) -> true and false positives (..., L + 1), floats: of no level, the highest, ..., all."""
    # Floats are exact up to 2**53 pixels, and products of them do not overflow.
    edge = [(0, 0)] * (positives.ndim - 1) + [(1, 0)]
    tp, fp = (np.pad(np.cumsum(counts[..., ::-1], -1, np.float64), edge) for counts in (positives, negatives))
    return tp, fp


def _precision(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """Of no pixel it is 1, where the curve begins; levels above the highest that occurs repeat that point."""
    return np.divide(tp, tp + fp, out=np.ones_like(tp), where=tp + fp > 0)
