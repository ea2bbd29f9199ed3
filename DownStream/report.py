"""What an evaluation leaves behind: overlays, a table on screen, scores as CSV and JSON."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from DownStream.metrics import MEASURES, Histogram, scores, summarise, to_levels
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
    """Histograms of one target, per image and pooled, over the whole image and inside the field of view."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Histogram]] = {}
        self.observer: dict[str, Histogram] = {}  # pooled: a second person's drawing against the same labels

    def add(
        self, name: str, levels: np.ndarray, label: np.ndarray, fov: np.ndarray, observer: np.ndarray | None = None
    ) -> None:
        """Counts one image: levels (H, W) uint16; label, fov and the second observer's label (H, W) bool."""
        inside = {"whole": None, "fov": fov}
        self.images[name] = {region: Histogram.of(levels, label, mask) for region, mask in inside.items()}
        if observer is not None:
            drawn = to_levels(observer)
            for region, mask in inside.items():
                self.observer[region] = self.observer.get(region, Histogram.zero()) + Histogram.of(drawn, label, mask)

    def pooled(self, region: str = "whole") -> Histogram:
        """All pixels of all images together."""
        return sum((histograms[region] for histograms in self.images.values()), Histogram.zero())

    def measures(self, threshold: float) -> dict[str, dict[str, Any]]:
        """{region: {"pooled": {measure: value}, "per_image": {measure: {mean, std, defined, undefined}}, ...}}.

        Where there is a second observer, "observer" has the pooled measures of that person's drawing.
        """
        measures = {}
        for region in REGIONS:
            measures[region] = {
                "pooled": scores(self.pooled(region), threshold),
                "per_image": summarise([scores(image[region], threshold) for image in self.images.values()]),
            }
            if self.observer:
                measures[region]["observer"] = scores(self.observer[region])
        return measures

    def write(self, folder: Path, protocol: dict[str, Any]) -> None:
        """Writes `scores.json`, the protocol and all measures, and `per_image.csv`, one row an image and region."""
        threshold = protocol["threshold"]
        write_json(folder / "scores.json", _nan_to_none({**protocol, "measures": self.measures(threshold)}))
        with replacing(folder / "per_image.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, ["image", "region", *MEASURES])
            writer.writeheader()
            for name, histograms in self.images.items():
                for region, histogram in histograms.items():
                    writer.writerow({"image": name, "region": region, **scores(histogram, threshold)})

    def table(self, protocol: dict[str, Any]) -> str:
        """The protocol line and the measures: the authors' two first; pooled, then mean ± sd over the images."""
        measures = self.measures(protocol["threshold"])
        heading = f"{'pooled':>10}{'per image':>20}  "
        lines = [
            protocol_line(protocol),
            "",
            " " * 12 + "".join(f"{title:^32}" for title in REGIONS.values()),
            " " * 12 + heading * len(REGIONS),
        ]
        for name in MEASURES:
            cells = ""
            for values in measures.values():
                each = values["per_image"][name]
                cells += f"{values['pooled'][name]:10.4f}{each['mean']:12.4f} ± {each['std']:.4f} "
            lines.append(f"{name:<12}{cells}")
        if self.observer:
            lines.append(f"the second observer's drawing has a pooled F1 of {measures['whole']['observer']['f1']:.4f}")
        undefined = measures["whole"]["per_image"]["f1"]["undefined"]
        if undefined:
            lines.append(f"images without a positive pixel, hence without F1, left out of the means: {undefined}")
        return "\n".join(line.rstrip() for line in lines)


def protocol_line(protocol: dict[str, Any]) -> str:
    """What was measured, how, in one line."""
    chosen = "" if protocol["threshold_from"] == "given" else f" chosen on {protocol['threshold_from']}"
    return (
        f"{protocol['source']}, {protocol['target']}: {protocol['images']} photographs at native size, "
        f"threshold {protocol['threshold']:.4g}{chosen}, field of view {protocol['field_of_view']}"
    )


def _nan_to_none(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
