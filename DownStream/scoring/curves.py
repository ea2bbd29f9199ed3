"""The precision-recall and ROC curves of an evaluation, as a picture and as part of a page."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from DownStream.scoring.evaluation import DRAWINGS, REGIONS, TITLES, Evaluation, number
from DownStream.scoring.metrics import Histogram, pr_curve, roc_curve, threshold_level
from DualScaleNet.common.files import replacing


class Curve(NamedTuple):
    """How a curve is drawn: from the points of a histogram, with the legend in a corner that it leaves free."""

    title: str
    points: Callable[[Histogram], tuple[np.ndarray, np.ndarray]]
    xlabel: str
    ylabel: str
    corner: Literal["lower left", "lower right"]


CURVES = {
    "pr_auc": Curve("Precision-recall", pr_curve, "Recall", "Precision", "lower left"),
    "auroc": Curve("ROC", roc_curve, "False positive rate (1 - specificity)", "Sensitivity", "lower right"),
}
LINES = {"whole": ("#0b5cad", "-"), "fov": ("#c2570c", "--")}
MARKERS = {"observer": "D", "postprocessed": "s"}  # of the drawings
CURVE_POINTS = 500


def write_curves(path: Path, evaluation: Evaluation) -> None:
    """Writes a picture of both curves side by side."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    for axes, area in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        _draw(axes, area, evaluation)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=200)


def curve_svg(area: str, evaluation: Evaluation) -> str:
    """A curve as an element of an HTML page."""
    figure, buffer = Figure(figsize=(5, 4.6), layout="constrained"), io.StringIO()
    _draw(figure.subplots(), area, evaluation)
    with matplotlib.rc_context({"svg.hashsalt": area}):  # the same evaluation gives the same file
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"]))
    svg = buffer.getvalue()
    svg = re.sub(r'( id="|"#|url\(#)', rf"\g<1>{area}-", svg[svg.index("<svg") :])  # two curves share the page's names
    return svg.replace("<svg", f'<svg role="img" aria-label="{CURVES[area].title} curve"', 1)


def _draw(axes: Axes, area: str, evaluation: Evaluation) -> None:
    """The pooled curve of each region with its area, the mask's point on it and those of the drawings."""
    curve, measures = CURVES[area], evaluation.measures()
    for region, (colour, line) in LINES.items():
        label = f"{REGIONS[region]}, {TITLES[area]} {number(measures[region]['pooled'][area])}"
        axes.plot(*_thinned(*curve.points(evaluation.pooled[region])), line, color=colour, label=label)
        axes.plot(*_point(area, evaluation.pooled[region], evaluation.threshold), "o", color=colour)
        for kind, drawn in evaluation.drawings.items():
            axes.plot(*_point(area, drawn[region], 0.5), MARKERS[kind], color=colour, markerfacecolor="none")
    axes.plot([], [], "o", color="0.4", label=f"threshold {evaluation.threshold:.4g}")
    for kind in evaluation.drawings:
        axes.plot([], [], MARKERS[kind], color="0.4", markerfacecolor="none", label=DRAWINGS[kind].lower())
    axes.set(title=curve.title, xlabel=curve.xlabel, ylabel=curve.ylabel, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc=curve.corner, fontsize=9)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most CURVE_POINTS points of a curve, evenly spaced along it, both ends among them."""
    if len(x) <= CURVE_POINTS:
        return x, y
    length = np.cumsum(np.hypot(np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0])))
    chosen = np.unique(np.searchsorted(length, np.linspace(0, length[-1], CURVE_POINTS)))
    return x[chosen], y[chosen]


def _point(area: str, histogram: Histogram, threshold: float) -> tuple[list[float], list[float]]:
    """Where the mask at the threshold lies beside the curve; nowhere if it is not defined."""
    level = threshold_level(threshold)
    tp, fp = int(histogram.positives[level:].sum()), int(histogram.negatives[level:].sum())
    positives, negatives = int(histogram.positives.sum()), int(histogram.negatives.sum())
    if area == "pr_auc":
        return ([tp / positives], [tp / (tp + fp)]) if positives and tp + fp else ([], [])
    return ([fp / negatives], [tp / positives]) if positives and negatives else ([], [])
