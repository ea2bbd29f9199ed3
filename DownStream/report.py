"""What an evaluation leaves behind: overlays, a table on screen, scores as CSV and JSON."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from DownStream.metrics import MEASURES, Histogram, scores, summarise
from DualScaleNet.files import replacing, write_json

TRUE, MISSED, FALSE = (60, 220, 90), (60, 120, 255), (255, 60, 50)  # green, blue, red
REGIONS = {"whole": "whole image", "fov": "field of view"}


def overlay(image: np.ndarray, mask: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """A photograph (H, W, 3) uint8 in grey with the mask (H, W) bool in colours.

    Green is true, blue missed, red false. Without a label all of the mask is green.
    """
    gray = image.mean(axis=2, keepdims=True) * 0.7
    painted = np.repeat(gray, 3, axis=2).astype(np.uint8)
    painted[mask] = TRUE
    if label is not None:
        painted[mask & ~label] = FALSE
        painted[~mask & label] = MISSED
    return painted


class Evaluation:
    """Histograms of one data set, per image and pooled, over the whole image and inside the field of view."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Histogram]] = {}

    def add(self, name: str, levels: np.ndarray, label: np.ndarray, fov: np.ndarray | None) -> None:
        """Counts one image: levels (H, W) uint16, label and fov (H, W) bool."""
        self.images[name] = {"whole": Histogram.of(levels, label)}
        if fov is not None:
            self.images[name]["fov"] = Histogram.of(levels, label, fov)

    def pooled(self, region: str = "whole") -> Histogram:
        """All pixels of all images together."""
        return sum((histograms[region] for histograms in self.images.values()), Histogram.zero())

    def regions(self) -> list[str]:
        """The regions that every image has: the field of view only where no image lacks it."""
        return [region for region in REGIONS if all(region in histograms for histograms in self.images.values())]

    def measures(self, threshold: float) -> dict[str, dict[str, Any]]:
        """{region: {"pooled": {measure: value}, "per_image": {measure: {mean, std, defined, undefined}}}}."""
        return {
            region: {
                "pooled": scores(self.pooled(region), threshold),
                "per_image": summarise([scores(image[region], threshold) for image in self.images.values()]),
            }
            for region in self.regions()
        }

    def write(self, folder: Path, threshold: float, protocol: dict[str, Any]) -> None:
        """Writes `scores.json`, the protocol and all measures, and `per_image.csv`, one row an image and region."""
        measures = self.measures(threshold)
        write_json(folder / "scores.json", _nan_to_none({**protocol, "threshold": threshold, "measures": measures}))
        with replacing(folder / "per_image.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, ["image", "region", *MEASURES])
            writer.writeheader()
            for name, histograms in self.images.items():
                for region in measures:
                    writer.writerow({"image": name, "region": region, **scores(histograms[region], threshold)})

    def table(self, threshold: float) -> str:
        """The measures as text: the authors' two first; pooled, then mean ± standard deviation over the images."""
        measures = self.measures(threshold)
        lines = [" " * 12 + "".join(f"{REGIONS[region]:^32}" for region in measures)]
        lines.append(" " * 12 + f"{'pooled':>10}{'per image':>20}  " * len(measures))
        for name in MEASURES:
            cells = ""
            for values in measures.values():
                each = values["per_image"][name]
                cells += f"{values['pooled'][name]:10.4f}{each['mean']:12.4f} ± {each['std']:.4f} "
            lines.append(f"{name:<12}{cells}")
        undefined = measures["whole"]["per_image"]["f1"]["undefined"]
        if undefined:
            lines.append(f"{undefined} images have no positive pixel, hence no F1: left out of the means")
        return "\n".join(line.rstrip() for line in lines)


def _nan_to_none(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
