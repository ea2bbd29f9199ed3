"""Applies a trained network: probability maps, masks, overlays, and scores where there are labels.

    python DownStream/predict.py                                      # the newest run on its test photographs
    python DownStream/predict.py --checkpoint best.pth --split val    # the photographs held out for validation
    python DownStream/predict.py --checkpoint best.pth --images mine  # any photographs, without labels
    python DownStream/predict.py --checkpoint runs/fold*/last.pth     # each fold on what it held out, pooled

Each photograph ID receives probability/ID.png (16 bit: value / 65535), mask/ID.png (0 or 255) and overlay/ID.png (green
true positive, blue missed, red false positive), all at native size. All of them are listed in summary.csv. With labels
there are report.html, report.md, scores.json and per_image.csv too. F1 and PR-AUC come first, as the authors measured
them: over all pixels of all images pooled, on the whole image, at threshold 0.5.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from torch import Tensor
from tqdm import tqdm

from DownStream.data import read_sample, require_labels
from DownStream.evaluation import Evaluation, protocol_line
from DownStream.inference import Predictor
from DownStream.metrics import Histogram, best_threshold, threshold_level, to_levels
from DownStream.report import overlay, write_report
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample
from DownStream.transforms import STRIDE
from DualScaleNet.checkpoint import load_checkpoint
from DualScaleNet.data import find_photographs
from DualScaleNet.files import claim, write_image, write_rows
from DualScaleNet.options import HelpFormatter, add_device, positive_int
from DualScaleNet.runtime import ROOT, UserError, run_script, select_device


def threshold_choice(text: str) -> float | str:
    """A number in (0, 1], or the images to choose it on."""
    if text in ("val", "train"):
        return text
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, or val or train, not {text}")
    return value


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    group = parser.add_argument_group("input", "A checkpoint segments photographs: of its own split, or any others.")
    group.add_argument(
        "--checkpoint", type=Path, nargs="+", default=[], metavar="FILE",
        help="Predict with this checkpoint of train.py. Give those of several folds to predict each one's split and "
        "pool the scores. Default: best.pth of the newest run, or last.pth where there is no best.pth.",
    )
    group.add_argument(
        "--split", default="test", choices=["test", "val", "train"],
        help="Predict this split of the checkpoint. After training with --folds, test is the held-out fold.",
    )
    group.add_argument(
        "--images", type=Path, metavar="FOLDER",
        help="Predict all photographs in this folder, nested or not, instead of a split. They need no labels.",
    )
    group.add_argument(
        "--dataset", choices=list(CATALOGUE),
        help="Predict --split of this data set, on which the network need not have been trained.",
    )
    group.add_argument(
        "--data-dir", type=Path, metavar="FOLDER",
        help="Read the data set from this folder. Default: the folder used in training, or with --dataset the set's "
        "folder in Dataset.",
    )

    group = parser.add_argument_group("prediction", "The network gives each pixel a probability, a threshold the mask.")
    group.add_argument(
        "--threshold", type=threshold_choice, default=0.5, metavar="T|val|train",
        help="Mark the pixels whose probability is at least T. val and train choose the T with the best F1 on those "
        "photographs of the checkpoint. The authors took 0.5.",
    )
    group.add_argument(
        "--window", type=positive_int, metavar="PX",
        help="Predict in overlapping windows of PX x PX pixels, a multiple of 32, and blend them. Choose this if a "
        "photograph is too large for the memory.",
    )
    group.add_argument(
        "--tta", action="store_true",
        help="Average the maps over flips and quarter turns of the photograph (test-time augmentation). This takes 8 "
        "times as long.",
    )
    add_device(group)

    group = parser.add_argument_group("output", "Maps, masks, overlays and scores are written into one folder.")
    group.add_argument(
        "--out", type=Path, metavar="FOLDER",
        help="Write everything into this folder. Default: predictions-SPLIT or predictions-NAME, of the folder in "
        "--images, beside the first checkpoint.",
    )
    args = parser.parse_args()
    if args.window and args.window % STRIDE:
        parser.error(f"--window {args.window}: must be a multiple of {STRIDE}")
    if len(args.checkpoint) > 1 and (args.images or args.dataset or isinstance(args.threshold, str)):
        parser.error("several checkpoints predict their own splits: --images, --dataset and --threshold val need one")
    return args


def main() -> None:
    args = parse_args()
    device = select_device(args.device)
    paths = args.checkpoint or [newest_checkpoint()]
    checkpoints = [load_checkpoint(path, "segmentation") for path in paths]
    checkpoint, targets, beside = checkpoints[0], checkpoints[0]["targets"], paths[0].parent
    predictors = [Predictor.load(each, device) for each in checkpoints]
    for predictor in predictors:
        predictor.window, predictor.tta = args.window, args.tta

    if args.images:
        groups, source = [photographs_in(args.images)], str(args.images)
        out = args.out or beside / f"predictions-{args.images.resolve().name}"
    elif args.dataset:
        groups, source = [set_samples(args, targets)], f"{CATALOGUE[args.dataset].title} {args.split}"
        out = args.out or beside / f"predictions-{args.dataset}-{args.split}"
    else:
        groups = [own_samples(each, args.split, args.data_dir) for each in checkpoints]
        refuse_no_folds(paths, checkpoints, groups)
        source = f"{CATALOGUE[checkpoint['dataset']].title} {split_name(checkpoint['options'], args.split)}"
        source += f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        out = args.out or beside / f"predictions-{args.split}{f'-of-{len(paths)}' if len(paths) > 1 else ''}"
    work = [(predictor, sample) for predictor, group in zip(predictors, groups, strict=True) for sample in group]
    samples = [sample for _, sample in work]
    thresholds = dict.fromkeys(targets, args.threshold)
    if isinstance(args.threshold, str):
        data_dir = None if args.dataset else args.data_dir
        thresholds = choose_thresholds(predictors[0], own_samples(checkpoint, args.threshold, data_dir), targets)

    claim(out)
    evaluations = {target: Evaluation(thresholds[target]) for target in targets}
    summary: list[dict[str, Any]] = []
    unreadable, without_disc, cut_off = [], [], []
    estimated = 0  # fields of view of labelled photographs
    for predictor, sample in tqdm(work, "predict", unit="photo", disable=None):
        try:
            photograph = read_sample(sample)
        except UserError as error:
            if not args.images:
                raise  # a label that silently drops out would falsify the score
            tqdm.write(f"left out: {error}", file=sys.stderr)
            unreadable.append(sample)
            continue
        image = photograph.image.permute(1, 2, 0).numpy()
        estimated += bool(photograph.labels) and photograph.fov is None
        maps, region = predictor(photograph)
        if not region.found:
            without_disc.append(sample.id)
        row = {"image": sample.id, "width": image.shape[1], "height": image.shape[0]}
        for target, levels in zip(targets, to_levels(maps.numpy()), strict=True):
            mask = levels >= threshold_level(thresholds[target])
            label, observer = as_array(photograph.labels.get(target)), as_array(photograph.observer)
            files = {"probability": levels, "mask": mask * np.uint8(255), "overlay": overlay(image, mask, label)}
            for folder, array in files.items():
                write_image(target_folder(out, target, targets) / folder / f"{sample.id}.png", array)
            row[f"{target} marked"] = mask[photograph.field_of_view].mean()
            row[f"{target} highest probability"] = levels.max() / 65535
            if label is not None:
                evaluations[target].add(sample.id, levels, label, photograph.field_of_view, observer)
                located = predictor.localiser and region.found and sample.id not in cut_off
                if located and region.cut(photograph.labels[target]).sum() < label.sum():
                    cut_off.append(sample.id)
        summary.append(row)

    write_rows(out / "summary.csv", summary)
    print(f"{len(summary)} photographs ({source}): maps, masks and overlays in {out}")
    notes = region_notes(without_disc, cut_off, len(summary))
    for note in notes:
        print(f"note: {note}")
    for target, evaluation in evaluations.items():
        print(marked_line(target, summary))
        if not len(evaluation):
            print(f"{target}: there are no labels, so there is nothing to score")
            continue
        if len(evaluation) < len(samples):
            print(f"{target}: {len(samples) - len(evaluation)} photographs have no label and are not scored")
        protocol = {
            "source": source, "target": target, "images": len(evaluation), "threshold": thresholds[target],
            "threshold_from": "given" if args.threshold == thresholds[target] else args.threshold,
            "field_of_view": f"estimated for {estimated} photographs" if estimated else "shipped",
            "window": args.window, "tta": args.tta, "notes": notes,
            "checkpoint": ", ".join(map(str, paths)), "epoch": checkpoint["epoch"], "trained_on": checkpoint["dataset"],
        }  # fmt: skip
        folder = target_folder(out, target, targets)
        evaluation.write(folder, protocol)
        write_report(folder, protocol, evaluation, samples)
        print(f"\n{protocol_line(protocol)}\n\n{evaluation.table()}\n\nreport: {folder / 'report.html'}")
    if unreadable:
        raise UserError(f"{len(unreadable)} of {len(samples)} photographs could not be read and were left out")


def marked_line(target: str, rows: list[dict[str, Any]]) -> str:
    """How much is marked over all photographs, in one line: what stands out in a folder of thousands."""
    marked = {row["image"]: row[f"{target} marked"] for row in rows}
    if not marked:
        return f"{target}: no photograph was predicted"
    low, middle, high = np.percentile(list(marked.values()), (0, 50, 100))
    blank = [name for name, value in marked.items() if value == 0]
    line = f"{target}: {middle:.2%} of the field of view is marked (median; range {low:.2%} to {high:.2%})"
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


def split_name(options: dict[str, Any], split: str) -> str:
    """What a split of the checkpoint's own is: a held-out fold is no official test set."""
    if options.get("split_file"):
        return f"{split} of {Path(options['split_file']).name}"
    if split == "test" and options["folds"]:
        return f"training list, held-out fold {options['fold']} of {options['folds']}"
    return split


def choose_thresholds(predictor: Predictor, samples: list[Sample], targets: list[str]) -> dict[str, float]:
    """For each target the threshold with the best pooled F1 on training or validation photographs.

    Raises:
        UserError: a photograph has no label, or nothing is marked in any.
    """
    require_labels(samples, targets)
    pooled = dict.fromkeys(targets, Histogram.zero())
    for sample in tqdm(samples, "threshold", unit="photo", disable=None, leave=False):
        photograph = read_sample(sample)
        for target, levels in zip(targets, to_levels(predictor(photograph)[0].numpy()), strict=True):
            pooled[target] += Histogram.of(levels, photograph.labels[target].numpy())
    for target, histogram in pooled.items():
        if not histogram.positives.any():
            raise UserError(f"no threshold can be chosen for {target}: nothing is marked in those labels")
    return {target: best_threshold(histogram) for target, histogram in pooled.items()}


def newest_checkpoint() -> Path:
    """best.pth, or where there is none last.pth, of the newest run.

    Raises:
        UserError: there is no run.
    """
    files = sorted((ROOT / "runs").glob("**/last.pth"), key=lambda path: path.stat().st_mtime, reverse=True)
    for last in files:
        best = last.with_name("best.pth")
        if (last.parent / "split.json").exists():  # a segmentation run
            return best if best.exists() else last
    raise UserError(f"no segmentation run under {ROOT / 'runs'}: train with DownStream/train.py or give --checkpoint")


def photographs_in(folder: Path) -> list[Sample]:
    """Photographs anywhere under `folder`, named by their path in it.

    Raises:
        UserError: there is none, or two would give maps of the same name.
    """
    samples: dict[str, Sample] = {}
    for image in find_photographs([folder], ["train", "val", "test"])[0]:
        name = str(image.relative_to(folder).with_suffix(""))
        if name in samples:
            raise UserError(f"{image} and {samples[name].image.name} would give maps of the same name: rename one")
        samples[name] = Sample(name, image)
    return list(samples.values())


def set_samples(args: argparse.Namespace, targets: list[str]) -> list[Sample]:
    """The official split of a data set that the network need not have been trained on.

    Raises:
        UserError: the set has no such target or no such split.
    """
    other = CATALOGUE[args.dataset]
    for target in targets:
        if other.targets and target not in other.targets:
            raise UserError(f"--dataset {args.dataset} has no {target}, which the checkpoint segments")
    if args.data_dir is None and other.folder is None:
        raise UserError(f"--dataset {args.dataset} needs --data-dir")
    found = other.find(args.data_dir or ROOT / "Dataset" / other.folder, targets)
    if args.split not in found:
        raise UserError(f"{other.title} has no split {args.split} there: choose --split {' or '.join(found)}")
    return found[args.split]


def refuse_no_folds(paths: list[Path], checkpoints: list[dict], groups: list[list[Sample]]) -> None:
    """Scores are pooled over checkpoints for the same targets of the same set that predict different photographs.

    Raises:
        UserError: these are not such.
    """
    owner: dict[str, Path] = {}
    for path, checkpoint, group in zip(paths, checkpoints, groups, strict=True):
        for name in ("dataset", "targets"):
            if checkpoint[name] != checkpoints[0][name]:
                raise UserError(f"{path} and {paths[0]} differ in their {name}: they cannot be scored together")
        for sample in group:
            if sample.id in owner:
                raise UserError(f"both {owner[sample.id]} and {path} predict {sample.id}: give folds of one split")
            owner[sample.id] = path


def own_samples(checkpoint: dict, split: str, data_dir: Path | None) -> list[Sample]:
    """The samples of one of the checkpoint's own splits.

    Raises:
        UserError: the split is empty, or a photograph of it is not there.
    """
    data_dir = data_dir or Path(checkpoint["options"]["data_dir"])
    found = CATALOGUE[checkpoint["dataset"]].find(data_dir, checkpoint["targets"])
    samples = {sample.key: sample for members in found.values() for sample in members}
    wanted = checkpoint["split"][split]
    if not wanted:
        others = [name for name, members in checkpoint["split"].items() if members]
        raise UserError(f"the checkpoint's split {split} is empty: choose --split {' or '.join(others)}")
    missing = [key for key in wanted if key not in samples]
    if missing:
        raise UserError(f"{data_dir} lacks {len(missing)} photographs of the checkpoint's split, {missing[0]} first")
    return sorted((samples[key] for key in wanted), key=lambda sample: sample.id)


if __name__ == "__main__":
    run_script(main, "set a smaller --window")
