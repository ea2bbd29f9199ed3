"""Which photographs predict.py predicts, by which checkpoint."""

import argparse
import csv
import os
import re
from pathlib import Path
from typing import Any

from DownStream.options.predict import LARGEST_PIXEL, Options, pixel_size, ready_models, threshold_misfit
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample, stem, with_common_bits
from DownStream.sources import find_sets, full_keys, merged, typed_for
from DownStream.targets import find_samples, retyped
from DualScaleNet.common.files import is_image
from DualScaleNet.common.photographs import PHOTOGRAPH_FOLDER, find_photographs, skipped_line
from DualScaleNet.common.script import MODELS, ROOT, UserError, few


def newest_checkpoint() -> Path:
    """best.pth, or where there is none last.pth, of the newest run that is no cell of a comparison.

    Raises:
        UserError: there is no run.
    """
    files = sorted((ROOT / "runs").glob("**/last.pth"), key=lambda path: path.stat().st_mtime, reverse=True)
    for last in files:
        best = last.with_name("best.pth")
        if (last.parent / "split.json").exists() and not (last.parent / "cell.json").exists():
            return best if best.exists() else last
    raise UserError(f"no segmentation run under {ROOT / 'runs'}: train with DownStream/train.py or give --checkpoint")


def chosen_files(options: Options) -> list[Path]:
    """The checkpoints to predict with; `options.model` then says whether they are ready models.

    Raises:
        UserError: there is none.
    """
    if not options.checkpoint and options.model is None:
        try:
            return [newest_checkpoint()]
        except UserError as error:
            options.model = ready_models() if options.images else None
            if not options.model:
                way = ", or name photographs for the ready models with --images" if ready_models() else ""
                raise UserError(f"{error}{way}") from None
            if why := threshold_misfit(options):
                raise UserError(why) from None
        print(f"nothing is trained here: these are the ready models (--model) {', '.join(options.model)}")
    return [MODELS / f"{name}.pth" for name in options.model or ()] or options.checkpoint


def select_samples(
    options: Options, paths: list[Path], checkpoints: list[dict[str, Any]]
) -> tuple[list[list[Sample]], str, str]:
    """The samples that each checkpoint predicts, what they are, and the default name of the output folder.

    One group of samples for several checkpoints: all of them predict it.

    Raises:
        UserError: they are not there, or several checkpoints do not fit together.
    """
    checkpoint = checkpoints[0]
    if not options.model:
        own = not (options.images or options.dataset)
        refuse_different(paths, checkpoints, ["dataset", "targets"] if own else ["targets"])
    ending = "" if len(paths) == 1 or options.model else f"-of-{len(paths)}"
    if options.images:
        samples, folder = photographs_in(options.images, options.fov)
        first, *others = options.images
        name = folder.name if others or first.is_dir() else own_name(first)
        if PHOTOGRAPH_FOLDER.fullmatch(name.lower()):  # "images" names no folder in particular
            name = f"{folder.parent.name}-{name}" if name == folder.name else name
        return [samples], f"{first} and {len(others)} more" if others else str(first), f"predictions-{name}{ending}"
    if options.dataset:
        samples = set_samples(options, options.dataset, checkpoint)
        refuse_other_values(paths, [labels_of(each, options)[0] for each in checkpoints])
        name = f"predictions-{options.dataset}-{options.split}{ending}"
        title = CATALOGUE[options.dataset].title
        source = f"{title} {options.split}{values_line(labels_of(checkpoint, options)[0])}"
        return [samples], source, name
    groups = [own_samples(each, options.split, options.data_dir) for each in checkpoints]
    if all(group == groups[0] for group in groups):
        groups = groups[:1]
    else:
        refuse_other_folds(paths, checkpoints)
    refuse_overlap(paths, groups)
    titles = ", ".join(CATALOGUE[name].title for name in checkpoint["dataset"])
    source = f"{titles} {split_name(checkpoint['options'], options.split)}"
    source += values_line(labels_of(checkpoint)[0])
    if len(groups) > 1:
        source += f" and {len(groups) - 1} more"
    return groups, source, f"predictions-{options.split}{ending}"


def photographs_in(places: list[Path], fov: Path | None = None) -> tuple[list[Sample], Path]:
    """The photographs among `places` and under them, named by their paths in the folder that holds all; that folder.

    Args:
        fov: a folder of masks of their fields of view.

    Raises:
        UserError: there is no photograph, two would give results of the same name, or no mask has a photograph's name.
    """
    found = find_photographs(places, ["train", "val", "test"])
    if found.skipped:
        print(skipped_line(found.skipped))
    try:
        folder = Path(os.path.commonpath([os.path.abspath(each if each.is_dir() else each.parent) for each in places]))
    except ValueError:
        raise UserError("--images names places on several drives: predict one drive after the other") from None
    named: dict[str, Path] = {}
    for path in {os.path.abspath(path): path for path in found.photographs}.values():
        name = (Path(os.path.abspath(path.parent)).relative_to(folder) / own_name(path)).as_posix()
        if name in named:
            raise UserError(f"{path} and {named[name].name} would give results of the same name: rename one")
        named[name] = path
    masks = fov_masks(fov, list(named)) if fov else {}
    samples = [Sample(name, path, fov=masks.get(name)) for name, path in named.items()]
    return with_common_bits({"": samples})[""], folder


def own_name(path: Path) -> str:
    """A photograph's name without its suffix; DICOM files without one may have dots in their names."""
    return stem(path) if is_image(path.name) else path.name


def fov_masks(folder: Path, names: list[str]) -> dict[str, Path]:
    """The mask of each photograph that has one: of the same path in `folder`, or directly in it; _mask may be added.

    Raises:
        UserError: no photograph has one, or two masks have the same name.
    """
    by_name: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if is_image(path.name):
            name = re.sub("[ _.-](mask|fov)$", "", stem(path), flags=re.IGNORECASE)
            name = (path.relative_to(folder).parent / name).as_posix()
            if name in by_name:
                raise UserError(f"{path} and {by_name[name].name} are both the mask of {name}: remove one")
            by_name[name] = path
    masks = {name: by_name.get(name) or by_name.get(Path(name).name) for name in names}
    bare = [name for name, path in masks.items() if path is None]
    if len(bare) == len(names):
        raise UserError(f"--fov {folder} has no mask with the name of a photograph, as {names[0]}.png would be")
    if bare:
        print(f"no mask in {folder} for {len(bare)} of {len(names)} photographs, {bare[0]} first: estimated")
    return {name: path for name, path in masks.items() if path}


def pixel_sizes(option: float | Path | None, samples: list[Sample]) -> dict[str, float]:
    """What --pixel-size says of each sample, in mm by id; nothing where it is not given.

    Raises:
        UserError: the file cannot be read, has a bad value, or lacks a sample.
    """
    if not isinstance(option, Path):
        return {sample.id: option for sample in samples} if option else {}
    sizes = {}
    try:
        with open(option, newline="", encoding="utf-8-sig") as file:  # as Excel writes it
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    sizes[row["image"]] = pixel_size(row["mm"])
                except KeyError as missing:
                    raise UserError(f"{option} has no column {missing}: it needs the columns image and mm") from None
                except (TypeError, ValueError, argparse.ArgumentTypeError):
                    line = f"{option}, line {number}: mm is {row['mm']}"
                    raise UserError(f"{line}: write millimetres, above 0 and at most {LARGEST_PIXEL}") from None
    except (OSError, UnicodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {option} ({reason}): name a CSV file with the columns image and mm") from None
    if lacking := [sample.id for sample in samples if sample.id not in sizes]:
        raise UserError(f"{option} lacks {few(lacking)}: give each photograph a row, named as in summary.csv")
    return sizes


def set_samples(options: Options, dataset: str, checkpoint: dict[str, Any]) -> list[Sample]:
    """The official split of a data set that the network need not have been trained on.

    Raises:
        UserError: the set has no such target or no such split, or --target names others than the checkpoint's.
    """
    other = CATALOGUE[dataset]
    if not any(map(other.own_name, checkpoint["targets"])):
        wanted = ", ".join(checkpoint["targets"])
        raise UserError(f"--dataset {dataset} has {', '.join(other.targets)}, the checkpoint segments {wanted}")
    if options.data_dir is None and other.folder is None:
        raise UserError(f"--dataset {dataset} needs --data-dir")
    data_dir = options.data_dir[0] if options.data_dir else ROOT / "Dataset" / str(other.folder)
    found = find_samples(other, data_dir, *labels_of(checkpoint, options))
    if options.split not in found:
        raise UserError(f"{other.title} has no split {options.split} there: choose --split {' or '.join(found)}")
    return found[options.split]


def labels_of(checkpoint: dict[str, Any], options: Options | None = None) -> tuple[list[str], str]:
    """What --target and --missing-labels mean: as in training, or for the data set that the options name.

    Raises:
        UserError: --target names a target that the network does not segment.
    """
    typed, missing_labels = checkpoint["options"]["target"], checkpoint["options"]["missing_labels"]
    if options and options.dataset and options.dataset in checkpoint["dataset"]:
        typed = typed_for(options.dataset, checkpoint["dataset"], typed)
    elif options and options.dataset:
        typed, missing_labels = checkpoint["targets"], "error"  # masks of another set mean what that set says
    if options and options.target:
        typed = retyped(checkpoint["targets"], options.target)
    return typed, missing_labels


def values_line(typed: list[str]) -> str:
    """What --target says of values, for the name of what is scored."""
    values = " ".join(text for text in typed if "=" in text)
    return f" ({values})" if values else ""


def own_samples(checkpoint: dict[str, Any], split: str, folders: list[Path] | None) -> list[Sample]:
    """The samples of one of the checkpoint's own splits.

    Raises:
        UserError: the checkpoint is a ready model's, the split is empty, or a photograph of it is not there.
    """
    if "data_dir" not in checkpoint["options"]:
        raise UserError("a ready model has no photographs of its own: name others with --images or --dataset")
    if folders is None:
        folders = [Path(folder) for folder in checkpoint["options"]["data_dir"]]
        if gone := [folder for folder in folders if not folder.is_dir()]:
            raise UserError(f"{gone[0]}, where the training data lay, is gone: name their folder with --data-dir")
    datasets = checkpoint["dataset"]
    if len(folders) != len(datasets):
        raise UserError(f"--data-dir names {len(folders)} folders: the checkpoint's sets are {', '.join(datasets)}")
    found = merged(find_sets(datasets, folders, *labels_of(checkpoint)))
    samples = {sample.key: sample for members in found.values() for sample in members}
    wanted = checkpoint["split"][split]
    if not wanted:
        others = [name for name, members in checkpoint["split"].items() if members]
        raise UserError(f"the checkpoint's split {split} is empty: choose --split {' or '.join(others)}")
    missing = [key for key in wanted if key not in samples]
    if missing:
        where = ", ".join(map(str, folders))
        raise UserError(f"{where} lacks {len(missing)} photographs of the checkpoint's split, {missing[0]} first")
    return sorted((samples[key] for key in wanted), key=lambda sample: sample.id)


def trained_on(options: Options, checkpoints: list[dict[str, Any]], groups: list[list[Sample]]) -> list[str]:
    """The ids of labelled photographs on which a network that predicts them was trained."""
    if options.images:
        return []
    datasets, seen = [options.dataset] if options.dataset else checkpoints[0]["dataset"], []
    for number, group in enumerate(groups):
        networks = checkpoints if len(groups) == 1 else [checkpoints[number]]
        keys = set().union(*(full_keys(each["dataset"], each["split"]["train"]) for each in networks))
        seen += [sample.id for sample in group if full_keys(datasets, [sample.key]) <= keys]
    return seen


def refuse_different(paths: list[Path], checkpoints: list[dict[str, Any]], same: list[str]) -> None:
    """Several checkpoints predict together if they have in common what `same` names.

    Raises:
        UserError: these have not, or one is given twice.
    """
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise UserError(f"{twice[0]} is given twice: give each checkpoint once")
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        for name in same:
            if checkpoint[name] != checkpoints[0][name]:
                raise UserError(f"{path} and {paths[0]} differ in their {name}: give checkpoints of the same {name}")


def refuse_other_values(paths: list[Path], typed: list[list[str]]) -> None:
    """Several checkpoints are scored together if they read masks alike.

    Args:
        typed: how each reads them, as --target says it.

    Raises:
        UserError: they did not.
    """
    for path, own in zip(paths, typed, strict=True):
        if own != typed[0]:
            meanings = f"{' '.join(own)} and {' '.join(typed[0])}"
            raise UserError(f"{path} and {paths[0]} were trained for {meanings}: say by --target what the masks mean")


def refuse_other_folds(paths: list[Path], checkpoints: list[dict[str, Any]]) -> None:
    """Checkpoints that predict different photographs are folds of one training, or none is a fold.

    Raises:
        UserError: they are not.
    """
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        if checkpoint["options"]["folds"] != checkpoints[0]["options"]["folds"]:
            raise UserError(f"{path} and {paths[0]} have different --folds: give folds of one training")


def refuse_overlap(paths: list[Path], groups: list[list[Sample]]) -> None:
    """Scores are pooled over checkpoints that predict different photographs.

    Raises:
        UserError: two predict the same one, and not all the same ones.
    """
    owner: dict[str, Path] = {}
    for path, group in zip(paths, groups, strict=False):
        for sample in group:
            if sample.id in owner:
                raise UserError(
                    f"both {owner[sample.id]} and {path} predict {sample.id}: give checkpoints that hold out different "
                    "photographs, and leave out --split"
                )
            owner[sample.id] = path


def split_name(options: dict[str, Any], split: str) -> str:
    """What a split of the checkpoint's own is: a held-out fold is no official test set."""
    if options.get("split_file"):
        return f"{split} of {Path(options['split_file']).name}"
    if split == "test" and options["folds"]:
        return f"training list, held-out fold {options['fold']} of {options['folds']}"
    return split
