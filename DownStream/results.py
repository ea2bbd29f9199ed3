"""What a prediction of many photographs has given: files, rows of a table, scores."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from DownStream.census import Census, marked_share
from DownStream.data import Photograph
from DownStream.inference import Prediction
from DownStream.measurements import Number, measure
from DownStream.overlays import comparison, contours, thumbnail
from DownStream.postprocessing import rules
from DownStream.scoring.agreement import Agreement, belongs, numbers_text
from DownStream.scoring.evaluation import Evaluation, protocol_line
from DownStream.scoring.index import write_index
from DownStream.scoring.metrics import to_levels
from DownStream.scoring.pages import shown
from DownStream.scoring.report import write_report
from DownStream.segmentation import Segmentation
from DownStream.sets.base import Sample
from DualScaleNet.common.dicom import laterality
from DualScaleNet.common.files import is_dicom, write_rows
from DualScaleNet.common.script import few

EYES = {"od": "R", "right": "R", "os": "L", "left": "L"}  # words in a photograph's name


class Results:
    """What the photographs predicted so far have given.

    Args:
        out: the folder of maps, masks and overlays.
        thresholds: of each target's masks, by its name.
        typed: what --target says of the labels.
        by_diameter: whether photographs are resized by their field of view.
        pixel_sizes: mm, by the photograph's id.
        raw_masks: masks are not post-processed.
        map_format: the suffix of probability maps, one of `MAP_FORMATS`.
        labelled: whether any photograph has a label. If none has, there is a page of thumbnails instead of a report.
    """

    def __init__(
        self,
        out: Path,
        thresholds: dict[str, float],
        typed: list[str],
        by_diameter: bool,
        pixel_sizes: dict[str, float] | None = None,
        raw_masks: bool = False,
        map_format: str = "png",
        labelled: bool = True,
    ) -> None:
        self.out, self.thresholds, self.targets = out, thresholds, list(thresholds)
        self.census = Census(typed)
        self.by_diameter, self.pixel_sizes = by_diameter, pixel_sizes or {}
        self.map_format, self.labelled = map_format, labelled
        self.rules = {} if raw_masks else rules(self.targets)
        self.rows: list[dict[str, Any]] = []  # of summary.csv
        self.evaluations = {target: Evaluation(threshold) for target, threshold in thresholds.items()}
        self.agreement = Agreement()
        self.left_out: list[Sample] = []
        self.labels: list[Path] = []  # among the photographs
        self.cut_off: list[str] = []  # by the region of interest
        self.trained_on: list[str] = []
        self.estimated: Counter[str] = Counter()  # fields of view of the photographs with a label, by target

    def add(
        self, sample: Sample, photograph: Photograph, prediction: Prediction
    ) -> tuple[dict[str, Any], dict[Path, np.ndarray]]:
        """Measures and scores a photograph's masks. Returns its row of summary.csv, and what is to be written where."""
        image = photograph.pixels
        self.census.add(sample, photograph)
        found = Segmentation.of(
            photograph, prediction, self.thresholds, self.pixel_sizes.get(sample.id), not self.rules
        )
        levels, masks = found.levels, found.masks
        row = {"image": sample.id, **found.numbers, "laterality": eye_of(sample)}
        files: dict[Path, np.ndarray] = {}
        for target, mask in masks.items():
            folder = target_folder(self.out, target, self.targets)
            saved = levels[target] if self.map_format == "png" else found.maps[target]
            files[folder / "probability" / f"{sample.id}.{self.map_format}"] = saved
            files[folder / "mask" / f"{sample.id}.png"] = mask * np.uint8(255)
            if found.uncertainty:
                uncertainty = found.uncertainty[target]
                saved = to_levels(uncertainty) if self.map_format == "png" else uncertainty
                files[folder / "uncertainty" / f"{sample.id}.{self.map_format}"] = saved
            if target in photograph.labels:
                drawn = in_label(mask, photograph.counted(target))
                files[folder / "overlay" / f"{sample.id}.png"] = comparison(
                    image, drawn, photograph.labels[target].numpy()
                )
        whole = self.out / "overlay" / f"{sample.id}.png"
        if whole not in files:  # as that of a single target with a label is
            files[whole] = contours(image, masks, photograph.field_of_view)
        if not self.labelled:
            files[self.out / "thumbnails" / f"{sample.id}.jpg"] = thumbnail(image, masks)
        self.rows.append(row)
        if photograph.labels:
            self._score(photograph, levels, masks, found.numbers, sample.source)
        for label in photograph.labels.values() if prediction.disc_found else ():
            if prediction.region.cut(label).sum() < label.sum() and sample.id not in self.cut_off:
                self.cut_off.append(sample.id)
        return row, files

    def _score(
        self,
        photograph: Photograph,
        levels: dict[str, np.ndarray],
        masks: dict[str, np.ndarray],
        numbers: dict[str, Number],
        source: str,
    ) -> None:
        """Compares maps, masks and numbers with the labels that there are."""
        fov, name = photograph.field_of_view, photograph.id
        labels = {target: label.numpy() for target, label in photograph.labels.items()}
        for target, label in labels.items():
            self.estimated[target] += photograph.fov is None
            drawings = {"postprocessed": masks[target]} if target in self.rules else {}
            if photograph.observer is not None:
                drawings["observer"] = photograph.observer.numpy()
            counted = photograph.counted(target)
            self.evaluations[target].add(name, levels[target], label, fov, drawings, counted, source)
        compared = {target: in_label(mask, photograph.counted(target)) for target, mask in masks.items()}
        if any(compared[target] is not mask for target, mask in masks.items()):
            numbers = measure(compared, fov)
        self.agreement.add(name, numbers, compared, labels, fov)

    def write_table(self) -> None:
        """Writes summary.csv, and where there are labels numbers.csv."""
        write_rows(self.out / "summary.csv", self.rows)
        if self.agreement.rows:
            write_rows(self.out / "numbers.csv", self.agreement.rows)

    def notes(self) -> list[str]:
        """What the reader must not miss, for the screen and the report."""
        notes, count = [], len(self.rows)
        if self.trained_on:
            names = few(self.trained_on)
            notes.append(f"trained on photographs of these names: {names}; scores on them say nothing about others")
        if without_disc := [row["image"] for row in self.rows if row.get("disc found") == 0]:
            notes.append(f"no disc was found in {len(without_disc)} of {count} photographs: {few(without_disc)}")
        if self.cut_off:
            where = f"{len(self.cut_off)}: {few(self.cut_off)}"
            notes.append(f"part of the label lies outside the region of interest in {where}")
        if doubtful := [f"{row['image']} ({row['doubt']})" for row in self.rows if row["doubt"]]:
            notes.append(f"{len(doubtful)} of {count} photographs are doubtful, see summary.csv: {few(doubtful)}")
        unseen = [row["image"] for row in self.rows if row["field of view"] is None]
        if self.by_diameter and unseen:
            notes.append(
                f"no border of a field of view was found in {len(unseen)} of {count} photographs, {unseen[0]} first: "
                "they keep their size, or set one with --scale"
            )
        if any(value is None for row in self.rows for name, value in row.items() if name.endswith(" length px")):
            notes.append("the length and width of vessels are not measured: pip install scikit-image")
        return notes + self.census.warnings()

    def report(self, protocol: dict[str, Any], samples: list[Sample]) -> None:
        """Writes the scores of every target that has labels, then prints them, and how much is marked."""
        notes = self.notes()
        lines = [f"note: {note}" for note in notes]
        for target, evaluation in self.evaluations.items():
            lines.append(marked_line(target, self.rows))
            if not len(evaluation):
                if self.labelled:
                    lines.append(f"{target}: there are no labels, so there is nothing to score")
                continue
            if len(evaluation) < len(samples):
                lines.append(f"{target}: {len(samples) - len(evaluation)} photographs have no label and are not scored")
            count = self.estimated[target]
            estimated = f"estimated for {count} photographs" if count else "shipped"
            complete = protocol | {
                "target": target, "images": len(evaluation), "threshold": self.thresholds[target],
                "field_of_view": estimated, "notes": notes, "scale": scale_line(self.rows),
                "postprocessing": self.rules.get(target), "numbers": self.agreement.numbers(target),
                "lesions": self.agreement.lesions(target), "map_format": self.map_format,
            }  # fmt: skip
            folder = target_folder(self.out, target, self.targets)
            evaluation.write(folder, complete)
            write_report(folder, complete, evaluation, samples, self._numbers([target]))
            lines += ["", protocol_line(complete), "", evaluation.table(), ""]
            lines += [numbers_text(complete["numbers"], complete["lesions"]), "", f"report: {folder / 'report.html'}"]
        print("\n".join(lines))
        if self.rows and not self.labelled:
            self._write_index(protocol, notes)

    def _numbers(self, targets: list[str]) -> dict[str, dict[str, Any]]:
        """Of each photograph its row of summary.csv: the numbers of these targets first, then those of none."""
        columns = list(self.rows[0])[1:]
        own = dict.fromkeys(name for target in targets for name in columns if belongs(name, target))
        others = [name for name in columns if not any(belongs(name, target) for target in self.targets)]
        return {row["image"]: {name: row[name] for name in (*own, *others)} for row in self.rows}

    def _write_index(self, protocol: dict[str, Any], notes: list[str]) -> None:
        """Writes index.html and says where."""
        if self.left_out:
            names = few([sample.id for sample in self.left_out])
            notes = [*notes, f"{len(self.left_out)} photographs could not be read or predicted: {names}"]
        complete = protocol | {"notes": notes, "scale": scale_line(self.rows)}
        folders = {target: target_folder(self.out, target, self.targets) for target in self.targets}
        summary = [f"{len(self.rows)} photographs", *(marked_line(target, self.rows) for target in self.targets)]
        write_index(self.out, complete, self.thresholds, folders, self._numbers(self.targets), summary)
        if len(self.rows) == 1:
            (numbers,) = self._numbers(self.targets).values()
            print("\n".join(f"{name:<28} {shown(value)}" for name, value in numbers.items()))
        print("there are no labels, so there is nothing to score")
        print(f"page of all photographs: {self.out / 'index.html'}")


def marked_line(target: str, rows: list[dict[str, Any]]) -> str:
    """How much is marked over all photographs, in one line: what stands out in a folder of thousands."""
    marked = {row["image"]: row[f"{target} marked"] for row in rows}
    if not marked:
        return f"{target}: no photograph was predicted"
    blank = [name for name, value in marked.items() if value == 0]
    line = marked_share(target, list(marked.values()))
    return line + (f"; nothing is marked in {len(blank)} photographs, {blank[0]} first" if blank else "")


def scale_line(rows: list[dict[str, Any]]) -> str:
    """By which factors the photographs were resized for the network."""
    factors = [row["scale"] for row in rows if row["scale"] is not None]
    if not factors:
        return "resized to a square"
    low, middle, high = np.percentile(factors, (0, 50, 100))
    if low == high == 1:
        return "native size"
    return f"resized by {middle:.3g}" + (f" (median; range {low:.3g} to {high:.3g})" if low < high else "")


def eye_of(sample: Sample) -> str:
    """Which eye is shown, R, L or B (both), by the DICOM file, the data set or a word of the name; "" if none tells."""
    told = laterality(sample.image) if is_dicom(sample.image) else sample.laterality
    words = re.split("[^a-z]+", Path(sample.id).name.lower())
    named = {EYES[word] for word in words if word in EYES}
    return told or (named.pop() if len(named) == 1 else "")


def in_label(mask: np.ndarray, counted: np.ndarray | None) -> np.ndarray:
    """A mask (H, W) bool without what its label says is not to be counted."""
    return mask if counted is None else mask & counted


def target_folder(out: Path, target: str, targets: list[str]) -> Path:
    """One target's files lie in `out` itself, several targets' in a folder each."""
    return out if len(targets) == 1 else out / target.replace(":", "_")
