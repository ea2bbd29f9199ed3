"""Which photographs predict.py predicts, by which checkpoint."""

from pathlib import Path
from typing import Any

from DownStream.options.predict import Options
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample
from DownStream.targets import find_samples, retyped
from DualScaleNet.common.photographs import find_photographs
from DualScaleNet.common.script import ROOT, UserError


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


def select_samples(
    options: Options, paths: list[Path], checkpoints: list[dict[str, Any]]
) -> tuple[list[list[Sample]], str, str]:
    """The samples that each checkpoint predicts, what they are, and the default name of the output folder.

    Raises:
        UserError: they are not there, or several checkpoints do not fit together.
    """
    checkpoint = checkpoints[0]
    if options.images:
        return [photographs_in(options.images)], str(options.images), f"predictions-{options.images.resolve().name}"
    if options.dataset:
        title = CATALOGUE[options.dataset].title
        name = f"predictions-{options.dataset}-{options.split}"
        source = f"{title} {options.split}{values_line(labels_of(checkpoint, options)[0])}"
        return [set_samples(options, checkpoint)], source, name
    groups = [own_samples(each, options.split, options.data_dir) for each in checkpoints]
    refuse_no_folds(paths, checkpoints, groups)
    source = f"{CATALOGUE[checkpoint['dataset']].title} {split_name(checkpoint['options'], options.split)}"
    source += values_line(labels_of(checkpoint)[0])
    if len(paths) == 1:
        return groups, source, f"predictions-{options.split}"
    return groups, f"{source} and {len(paths) - 1} more", f"predictions-{options.split}-of-{len(paths)}"


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


def set_samples(options: Options, checkpoint: dict[str, Any]) -> list[Sample]:
    """The official split of a data set that the network need not have been trained on.

    Raises:
        UserError: the set has no such target or no such split, or --target names others than the checkpoint's.
    """
    other = CATALOGUE[options.dataset]
    for target in checkpoint["targets"]:
        if other.targets and target not in other.targets:
            raise UserError(f"--dataset {options.dataset} has no {target}, which the checkpoint segments")
    if options.data_dir is None and other.folder is None:
        raise UserError(f"--dataset {options.dataset} needs --data-dir")
    typed, missing_labels = labels_of(checkpoint, options)
    found = find_samples(other, options.data_dir or ROOT / "Dataset" / other.folder, typed, missing_labels)
    if options.split not in found:
        raise UserError(f"{other.title} has no split {options.split} there: choose --split {' or '.join(found)}")
    return found[options.split]


def labels_of(checkpoint: dict[str, Any], options: Options | None = None) -> tuple[list[str], str]:
    """What --target and --missing-labels mean: as in training, or for the data set that the options name.

    Raises:
        UserError: --target names a target that the network does not segment.
    """
    typed, missing_labels = checkpoint["options"]["target"], checkpoint["options"].get("missing_labels", "error")
    if options and options.dataset not in (None, checkpoint["dataset"]):
        typed, missing_labels = checkpoint["targets"], "error"  # masks of another set mean what that set says
    if options and options.target:
        typed = retyped(checkpoint["targets"], options.target)
    return typed, missing_labels


def values_line(typed: list[str]) -> str:
    """What --target says of values, for the name of what is scored."""
    values = " ".join(text for text in typed if "=" in text)
    return f" ({values})" if values else ""


def own_samples(checkpoint: dict, split: str, data_dir: Path | None) -> list[Sample]:
    """The samples of one of the checkpoint's own splits.

    Raises:
        UserError: the split is empty, or a photograph of it is not there.
    """
    data_dir = data_dir or Path(checkpoint["options"]["data_dir"])
    found = find_samples(CATALOGUE[checkpoint["dataset"]], data_dir, *labels_of(checkpoint))
    samples = {sample.key: sample for members in found.values() for sample in members}
    wanted = checkpoint["split"][split]
    if not wanted:
        others = [name for name, members in checkpoint["split"].items() if members]
        raise UserError(f"the checkpoint's split {split} is empty: choose --split {' or '.join(others)}")
    missing = [key for key in wanted if key not in samples]
    if missing:
        raise UserError(f"{data_dir} lacks {len(missing)} photographs of the checkpoint's split, {missing[0]} first")
    return sorted((samples[key] for key in wanted), key=lambda sample: sample.id)


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


def split_name(options: dict[str, Any], split: str) -> str:
    """What a split of the checkpoint's own is: a held-out fold is no official test set."""
    if options.get("split_file"):
        return f"{split} of {Path(options['split_file']).name}"
    if split == "test" and options["folds"]:
        return f"training list, held-out fold {options['fold']} of {options['folds']}"
    return split
