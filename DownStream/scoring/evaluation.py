"""The evaluation of one target over many photographs: measures with their intervals, as a table, CSV and JSON."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from DownStream.scoring.metrics import (
    MEASURES,
    Coarse,
    Histogram,
    bootstrap,
    calibration_error,
    scores,
    summarise,
    to_levels,
)
from DualScaleNet.common.files import write_json, write_rows

REGIONS = {"whole": "whole image", "fov": "field of view"}
TITLES = {
    "f1": "F1 (Dice)", "pr_auc": "PR-AUC", "auroc": "AUROC", "sensitivity": "Sensitivity",
    "specificity": "Specificity", "accuracy": "Accuracy", "iou": "IoU", "mcc": "MCC",
}  # fmt: skip
DRAWINGS = {"postprocessed": "Post-processed mask", "observer": "Second observer"}


class Evaluation:
    """Pooled histograms, and of each photograph its scores, over the whole image and inside the field of view.

    Args:
        threshold: of the mask, in (0, 1].
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.pooled = {region: Histogram.zero() for region in REGIONS}
        self.rows: dict[str, dict[str, dict[str, float]]] = {region: {} for region in REGIONS}  # by photograph
        self.by_source: dict[str, Evaluation] = {}  # of each of several data sets
        self.drawings: dict[str, dict[str, Histogram]] = {}  # pooled, by region, of each of DRAWINGS that there is
        self._coarse: dict[str, list[Coarse]] = {region: [] for region in REGIONS}
        self._measures: dict[str, dict[str, Any]] | None = None  # kept: the intervals take a second

    def add(
        self,
        name: str,
        levels: np.ndarray,
        label: np.ndarray,
        fov: np.ndarray,
        drawings: Mapping[str, np.ndarray] | None = None,
        counted: np.ndarray | None = None,
        source: str = "",
    ) -> None:
        """Counts one photograph: levels (H, W) uint16; label and fov (H, W) bool.

        drawings: other masks to be scored against the same label, (H, W) bool, by their names in DRAWINGS.
        counted: (H, W) bool, the pixels of the label that are not to be ignored; None for all.
        source: the one of several data sets that it is of.
        """
        own = [self.by_source.setdefault(source, Evaluation(self.threshold))] if source else []
        for region, inside in {"whole": counted, "fov": fov if counted is None else fov & counted}.items():
            histogram = Histogram.of(levels, label, inside)
            drawn = {kind: Histogram.of(to_levels(mask), label, inside) for kind, mask in (drawings or {}).items()}
            for evaluation in (self, *own):
                evaluation._count(region, name, histogram, drawn)

    def _count(self, region: str, name: str, histogram: Histogram, drawn: Mapping[str, Histogram]) -> None:
        """Adds a region of one photograph: of its map, and of the drawings by their names."""
        self._measures = None
        self.pooled[region] += histogram
        self.rows[region][name] = scores(histogram, self.threshold)
        self._coarse[region].append(Coarse.of(histogram, self.threshold))
        for kind, each in drawn.items():
            pooled = self.drawings.setdefault(kind, {name: Histogram.zero() for name in REGIONS})
            pooled[region] += each

    def __len__(self) -> int:
        """How many photographs were counted."""
        return len(self.rows["whole"])

    def measures(self) -> dict[str, dict[str, Any]]:
        """{region: {"pooled", "pooled_interval", "per_image"} and those of DRAWINGS that there are}.

        Each is by measure: a number, [low, high], {mean, std, interval, defined, undefined}, and of a drawing the
        pooled number. Beside them stands the pooled "calibration_error", a number.
        """
        if self._measures is None:
            self._measures = {region: self._measure(region) for region in REGIONS}
        return self._measures

    def _measure(self, region: str) -> dict[str, Any]:
        intervals = bootstrap(self._coarse[region])
        summary = summarise(list(self.rows[region].values()))
        per_image = {name: {**each, "interval": intervals["per_image"][name]} for name, each in summary.items()}
        measures = {
            "pooled": scores(self.pooled[region], self.threshold),
            "pooled_interval": intervals["pooled"],
            "per_image": per_image,
        }
        measures["calibration_error"] = calibration_error(self.pooled[region])
        measures |= {kind: scores(drawn[region]) for kind, drawn in self.drawings.items()}
        return measures

    def calibration_line(self) -> str:
        """The calibration error of each region."""
        errors = {region: measures["calibration_error"] for region, measures in self.measures().items()}
        return f"calibration error: {', '.join(f'{number(errors[name])} ({REGIONS[name]})' for name in REGIONS)}"

    def source_lines(self) -> list[str]:
        """Of each of several data sets F1, its interval and PR-AUC, pooled over its whole images."""
        lines = []
        for source, evaluation in self.by_source.items():
            whole = evaluation.measures()["whole"]
            f1 = f"{number(whole['pooled']['f1'])} {interval(whole['pooled_interval']['f1'])}"
            lines.append(f"{source} alone: F1 {f1}, PR-AUC {number(whole['pooled']['pr_auc'])}")
        return lines

    def write(self, folder: Path, protocol: dict[str, Any]) -> None:
        """Writes `scores.json`, the protocol and all measures, and `per_image.csv`, one row an image and region."""
        rows = [
            {"image": name, "region": region, **row} for region in self.rows for name, row in self.rows[region].items()
        ]
        write_rows(folder / "per_image.csv", rows, ["image", "region", *MEASURES])
        sets = {source: evaluation.measures() for source, evaluation in self.by_source.items()}
        write_json(folder / "scores.json", _nan_to_none({**protocol, "measures": self.measures(), "sets": sets}))

    def table(self) -> str:
        """The measures, the authors' two first: pooled with its interval, then mean ± sd over the images."""
        measures = self.measures()
        heading = f"{'pooled [95 % CI]':>24}{'per image':>18}"
        lines = [
            " " * 12 + "".join(f"{title:^42}" for title in REGIONS.values()),
            " " * 12 + heading * len(REGIONS),
        ]
        for name in MEASURES:
            cells = ""
            for values in measures.values():
                cells += f"{number(values['pooled'][name]):>10} {interval(values['pooled_interval'][name]):<14}"
                cells += f"   {mean_and_deviation(values['per_image'][name]):<14}"
            lines.append(f"{name:<12}{cells}")
        for kind, title in DRAWINGS.items():
            if kind in self.drawings:
                lines.append(f"pooled F1 of the {title.lower()}: {measures['whole'][kind]['f1']:.4f}")
        lines += [*self.source_lines(), self.calibration_line()]
        undefined = measures["whole"]["per_image"]["f1"]["undefined"]
        if undefined:
            lines.append(f"images whose label has no positive pixel, left out of the means: {undefined}")
        return "\n".join(line.rstrip() for line in lines)


def protocol_line(protocol: dict[str, Any]) -> str:
    """What was measured, how, in one line."""
    chosen = {"given": "", "share": " chosen by the share marked in the training labels"}.get(
        protocol["threshold_from"], f" chosen on {protocol['threshold_from']}"
    )
    rule = protocol.get("postprocessing")
    return (
        f"{protocol['source']}, {protocol['target']}: {protocol['images']} photographs at native size, "
        f"threshold {protocol['threshold']:.4g}{chosen}, field-of-view mask {protocol['field_of_view']}"
        + (f"; mean of {protocol['networks']} networks" if protocol.get("networks", 1) > 1 else "")
        + (f"; the mask is post-processed: {rule}" if rule else "")
    )


def facts(protocol: dict[str, Any], thresholds: dict[str, float]) -> dict[str, str]:
    """What `protocol_line` does not say, or not in full, by name; thresholds by target."""
    chosen = protocol["threshold_from"]
    reason = {"given": "given", "share": "so that as large a share is marked as in the training labels"}.get(
        chosen, f"best pooled F1 on the {chosen} photographs"
    )
    several = len(set(thresholds.values())) > 1
    values = [f"{value:.4g}" + f" ({target})" * several for target, value in thresholds.items()]
    known = {
        "checkpoint": ", ".join(f"{Path(path).parent.name}/{Path(path).name}" for path in protocol["checkpoint"]),
        "epoch": protocol["epoch"],
        "trained on": str(protocol["trained_on"]),
        "threshold": f"{', '.join(values if several else values[:1])}, {reason}",
    }
    if protocol.get("scale"):
        known["network's scale"] = protocol["scale"]
    if protocol.get("networks", 1) > 1:
        known["networks"] = f"{protocol['networks']}; the maps are their mean"
    if protocol.get("window"):
        known["predicted in"] = f"windows of {protocol['window']} px"
    if protocol.get("tta"):
        known["test-time augmentation"] = "on"
    return known


def number(value: float) -> str:
    """With four digits, or a dash where it is not defined."""
    return "–" if math.isnan(value) else f"{value:.4f}"


def interval(bounds: list[float]) -> str:
    """[low, high], or a dash where there is none, as for a single photograph."""
    return "–" if math.isnan(bounds[0]) else f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def mean_and_deviation(each: dict[str, Any]) -> str:
    """Of a measure over the photographs, as `Evaluation.measures` has it; no deviation of a single one."""
    return number(each["mean"]) + ("" if math.isnan(each["std"]) else f" ± {number(each['std'])}")


def _nan_to_none(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nan_to_none(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
