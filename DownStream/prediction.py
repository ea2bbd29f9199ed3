"""The prediction of many photographs: maps, masks and overlays of each, a table of all, and scores."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from DownStream.census import marked_share
from DownStream.data import Photograph, read_sample, require_labels
from DownStream.inference import Predictor
from DownStream.options.predict import Options
from DownStream.region import Region
from DownStream.scoring.evaluation import Evaluation, protocol_line
from DownStream.scoring.metrics import Histogram, best_threshold, threshold_level, to_levels
from DownStream.scoring.report import overlay, write_report
from DownStream.selection import newest_checkpoint, own_samples, select_samples
from DownStream.sets.base import Sample
from DualScaleNet.common.checkpoint import load_checkpoint
from DualScaleNet.common.device import select_device
from DualScaleNet.common.dicom import laterality
from DualScaleNet.common.files import claim, is_dicom, is_drawing, write_image, write_rows
from DualScaleNet.common.photographs import LABEL_BY_COLOURS, passed_over_line
from DualScaleNet.common.script import UserError, progress_bar


def predict(options: Options) -> None:
    """The whole prediction.

    Raises:
        UserError: something only the user can mend.
    """
    device = select_device(options.device)
    paths = options.checkpoint or [newest_checkpoint()]
    checkpoints = [load_checkpoint(path, "segmentation") for path in paths]
    predictors = [Predictor.load(checkpoint, device, options.window, options.tta) for checkpoint in checkpoints]
    groups, source, name = select_samples(options, paths, checkpoints)
    work = [(predictor, sample) for predictor, group in zip(predictors, groups, strict=True) for sample in group]
    thresholds = thresholds_of(options, checkpoints[0], predictors[0])
    out = options.out or paths[0].parent / name
    claim(out)

    results = Results(out, thresholds)
    for predictor, sample in progress_bar(work, "predict", unit="photo"):
        try:
            photograph = read_sample(sample)
        except UserError as error:
            if not options.images:
                raise  # a label that silently drops out would falsify the score
            tqdm.write(f"left out: {error}", file=sys.stderr)
            results.unreadable.append(sample)
            continue
        if options.images and is_drawing(photograph.image.permute(1, 2, 0).numpy()):
            results.labels.append(sample.image)
            continue
        maps, region = predictor(photograph)
        results.add(sample, photograph, maps, region, predictor.localiser is not None)

    if results.labels:
        print(passed_over_line({LABEL_BY_COLOURS: results.labels}))
    results.write_table()
    print(f"{len(results.rows)} photographs ({source}): maps, masks and overlays in {out}")
    protocol = {
        "source": source, "window": options.window, "tta": options.tta, "checkpoint": ", ".join(map(str, paths)),
        "epoch": checkpoints[0]["epoch"], "trained_on": checkpoints[0]["dataset"],
        "threshold_from": "given" if isinstance(options.threshold, float) else options.threshold,
    }  # fmt: skip
    results.report(protocol, [sample for _, sample in work])
    if results.unreadable:
        count = len(results.unreadable)
        raise UserError(f"{count} of {len(work)} photographs could not be read and were left out")
    if not results.rows:
        raise UserError(f"no photographs in {source}")


class Results:
    """What the photographs predicted so far have given.

    Args:
        out: the folder of maps, masks and overlays.
        thresholds: of each target's masks, by its name.
    """

    def __init__(self, out: Path, thresholds: dict[str, float]) -> None:
        self.out, self.thresholds, self.targets = out, thresholds, list(thresholds)
        self.rows: list[dict[str, Any]] = []  # of summary.csv
        self.evaluations = {target: Evaluation(threshold) for target, threshold in thresholds.items()}
        self.unreadable: list[Sample] = []
        self.labels: list[Path] = []  # among the photographs
        self.lateralities: dict[str, str] = {}  # as DICOM files say them
        self.without_disc: list[str] = []
        self.cut_off: list[str] = []  # by the region of interest
        self.estimated = 0  # fields of view of labelled photographs

    def add(self, sample: Sample, photograph: Photograph, maps: Tensor, region: Region, located: bool) -> None:
        """Writes a photograph's files and counts its scores.

        Args:
            maps: probabilities (targets, H, W).
            region: where they come from.
            located: whether a localiser found it.
        """
        image = photograph.image.permute(1, 2, 0).numpy()
        self.estimated += bool(photograph.labels) and photograph.fov is None
        if not region.found:
            self.without_disc.append(sample.id)
        if is_dicom(sample.image):
            self.lateralities[sample.id] = laterality(sample.image)
        row: dict[str, Any] = {"image": sample.id, "width": image.shape[1], "height": image.shape[0]}
        for target, levels in zip(self.targets, to_levels(maps.numpy()), strict=True):
            mask = levels >= threshold_level(self.thresholds[target])
            label, observer = as_array(photograph.labels.get(target)), as_array(photograph.observer)
            counted = photograph.counted(target)
            painted = overlay(image, mask if counted is None else mask & counted, label)
            files = {"probability": levels, "mask": mask * np.uint8(255), "overlay": painted}
            for folder, array in files.items():
                write_image(target_folder(self.out, target, self.targets) / folder / f"{sample.id}.png", array)
            row[f"{target} marked"] = mask[photograph.field_of_view].mean()
            row[f"{target} highest probability"] = levels.max() / 65535
            if label is None:
                continue
            self.evaluations[target].add(sample.id, levels, label, photograph.field_of_view, observer, counted)
            unseen = located and region.found and sample.id not in self.cut_off
            if unseen and region.cut(photograph.labels[target]).sum() < label.sum():
                self.cut_off.append(sample.id)
        self.rows.append(row)

    def write_table(self) -> None:
        """Writes summary.csv, with a column `laterality` if any file says which eye it shows."""
        if any(self.lateralities.values()):
            self.rows = [row | {"laterality": self.lateralities.get(row["image"], "")} for row in self.rows]
        write_rows(self.out / "summary.csv", self.rows)

    def report(self, protocol: dict[str, Any], samples: list[Sample]) -> None:
        """Prints how much is marked, and prints and writes the scores of every target that has labels."""
        notes = region_notes(self.without_disc, self.cut_off, len(self.rows))
        for note in notes:
            print(f"note: {note}")
        for target, evaluation in self.evaluations.items():
            print(marked_line(target, self.rows))
            if not len(evaluation):
                print(f"{target}: there are no labels, so there is nothing to score")
                continue
            if len(evaluation) < len(samples):
                print(f"{target}: {len(samples) - len(evaluation)} photographs have no label and are not scored")
            estimated = f"estimated for {self.estimated} photographs" if self.estimated else "shipped"
            complete = protocol | {
                "target": target, "images": len(evaluation), "threshold": self.thresholds[target],
                "field_of_view": estimated, "notes": notes,
            }  # fmt: skip
            folder = target_folder(self.out, target, self.targets)
            evaluation.write(folder, complete)
            write_report(folder, complete, evaluation, samples)
            print(f"\n{protocol_line(complete)}\n\n{evaluation.table()}\n\nreport: {folder / 'report.html'}")


def thresholds_of(options: Options, checkpoint: dict[str, Any], predictor: Predictor) -> dict[str, float]:
    """The threshold of each target's masks: given, or chosen on the checkpoint's own photographs.

    Raises:
        UserError: they are not there, or have no labels.
    """
    if isinstance(options.threshold, float):
        return dict.fromkeys(checkpoint["targets"], options.threshold)
    data_dir = None if options.dataset else options.data_dir
    samples = own_samples(checkpoint, options.threshold, data_dir)
    return choose_thresholds(predictor, samples, checkpoint["targets"])


def choose_thresholds(predictor: Predictor, samples: list[Sample], targets: list[str]) -> dict[str, float]:
    """For each target the threshold with the best pooled F1 on training or validation photographs.

    Raises:
        UserError: a photograph has no label, or nothing is marked in any.
    """
    require_labels(samples, targets)
    pooled = dict.fromkeys(targets, Histogram.zero())
    for sample in progress_bar(samples, "threshold", unit="photo", leave=False):
        photograph = read_sample(sample)
        for target, levels in zip(targets, to_levels(predictor(photograph)[0].numpy()), strict=True):
            pooled[target] += Histogram.of(levels, photograph.labels[target].numpy(), photograph.counted(target))
    for target, histogram in pooled.items():
        if not histogram.positives.any():
            raise UserError(f"no threshold can be chosen for {target}: nothing is marked in those labels")
    return {target: best_threshold(histogram) for target, histogram in pooled.items()}


def marked_line(target: str, rows: list[dict[str, Any]]) -> str:
    """How much is marked over all photographs, in one line: what stands out in a folder of thousands."""
    marked = {row["image"]: row[f"{target} marked"] for row in rows}
    if not marked:
        return f"{target}: no photograph was predicted"
    blank = [name for name, value in marked.items() if value == 0]
    line = marked_share(target, list(marked.values()))
    return line + (f"; nothing is marked in {len(blank)} photographs, {blank[0]} first" if blank else "")


def region_notes(without_disc: list[str], cut_off: list[str], count: int) -> list[str]:
    """What went wrong in finding the disc, for the screen and the report."""
    notes = []
    if without_disc:
        notes.append(f"no disc was found in {len(without_disc)} of {count} photographs: {', '.join(without_disc)}")
    if cut_off:
        notes.append(f"part of the label lies outside the region of interest in {len(cut_off)}: {', '.join(cut_off)}")
    return notes


def as_array(mask: Tensor | None) -> np.ndarray | None:
    """A mask as NumPy, None as None."""
    return None if mask is None else mask.numpy()


def target_folder(out: Path, target: str, targets: list[str]) -> Path:
    """One target's files lie in `out` itself, several targets' in a folder each."""
    return out if len(targets) == 1 else out / target.replace(":", "_")
