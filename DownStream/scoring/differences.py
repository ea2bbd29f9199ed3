"""A comparison as a table, a figure, and differences between encoders on the same photographs."""

from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from DualScaleNet.common.files import replacing

MEASURES = {"f1": "F1", "pr_auc": "PR-AUC"}
Row = dict[str, Any]
FLIPS = 20_000  # of signs, for the significance of a difference


def table(titles: list[str], results: list[Row], images: list[Row], photographs: str) -> str:
    """Mean ± sample standard deviation over seeds of the pooled measures, and differences to the first encoder.

    Args:
        titles: of the encoders; the first is the one that the others are compared with.
        results: rows of results.csv.
        images: rows of per_image.csv.
        photographs: what the scores are of.
    """
    first = titles[0]
    lines = [
        f"| encoder | label fraction | seeds | {' | '.join(MEASURES.values())} | F1 per image minus {first} | p |",
        "|---" * (5 + len(MEASURES)) + "|",
    ]
    fractions = sorted({row["fraction"] for row in results})
    for fraction, title in product(fractions, titles):
        rows = [row for row in results if (row["encoder"], row["fraction"]) == (title, fraction)]
        if not rows:
            continue
        columns = [title, f"{fraction:.0%}", str(len(rows))]
        columns += [spread([row[name] for row in rows]) for name in MEASURES]
        differences = paired_differences(images, title, first, fraction)
        if title == first or len(differences) < 2:
            columns += ["", ""]
        else:
            columns.append(f"{differences.mean():+.4f} ({len(differences)} photographs)")
            p = sign_flip_p(differences)
            columns.append("< 0.001" if p < 0.001 else f"{p:.3f}")
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join([
        *lines, "",
        f"Pooled over all pixels of the {photographs}, whole image, native size, threshold 0.5; mean ± "
        "standard deviation over seeds. p: two-sided sign-flip test of the differences per image.", "",
    ])  # fmt: skip


def spread(values: list[float]) -> str:
    """Mean ± sample standard deviation; a single value alone."""
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def paired_differences(images: list[Row], title: str, other: str, fraction: float) -> np.ndarray:
    """F1 minus the other encoder's on the same photograph with the same seed, averaged over seeds, by photograph."""
    f1 = {
        (row["encoder"], row["seed"], row["image"]): row["f1"] for row in images if row["fraction"] == fraction
    }
    by_image = defaultdict(list)
    for (encoder, seed, image), value in f1.items():
        if encoder == title and (other, seed, image) in f1:
            by_image[image].append(value - f1[other, seed, image])
    return np.array([np.mean(values) for values in by_image.values()])


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of a mean difference from zero, (N,): how often random signs make it as large."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, len(differences)))
    as_large = np.abs((signs * differences).mean(1)) >= abs(differences.mean()) - 1e-12
    return (as_large.sum() + 1) / (FLIPS + 1)


def draw(titles: list[str], results: list[Row], path: Path) -> None:
    """Score against label fraction, a line for each encoder; bars are the standard deviation over seeds."""
    figure = Figure(figsize=(4.5 * len(MEASURES), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, label) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        for number, title in enumerate(titles):
            by_fraction = defaultdict(list)
            for row in results:
                if row["encoder"] == title:
                    by_fraction[row["fraction"]].append(row[name])
            fractions = sorted(by_fraction)
            means = [np.mean(by_fraction[f]) for f in fractions]
            bars = [np.std(by_fraction[f], ddof=1) if len(by_fraction[f]) > 1 else 0 for f in fractions]
            aside = 1.03 ** (number - (len(titles) - 1) / 2)  # so that no bar hides another
            axes.errorbar([100 * f * aside for f in fractions], means, bars, marker="o", capsize=3, label=title)
        axes.set(xlabel="label fraction, %", ylabel=label, xscale="log")
        ticks = sorted({100 * row["fraction"] for row in results})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
