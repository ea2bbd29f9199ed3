"""What --target and --missing-labels say: which structures, which values of a mask mean them, what no mask means."""

import argparse
from dataclasses import replace
from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, with_common_bits
from DownStream.sets.meaning import Meaning, Ranges, parse_ranges
from DualScaleNet.common.script import UserError, few, warn

IGNORE = "ignore"  # stands before values where a target's name stands otherwise
INVERT = "invert"


def add_targets(group: argparse._ArgumentGroup | argparse.ArgumentParser, default: str) -> None:
    """--target and --missing-labels, of all that read labels; `default` says what is read without --target."""
    group.add_argument(
        "--target", nargs="+", type=typed_target, metavar="NAME",
        help="Segment these structures, each into a map of its own. RIM-ONE r3, Drishti-GS1 and REFUGE have disc and "
        "cup. IDRiD and DDR have MA (microaneurysms), HE (haemorrhages), EX (hard exudates) and SE (soft exudates), "
        "IDRiD also OD (optic disc). A name such as disc:exp1 takes the labels of one expert. NAME=VALUES says which "
        "values in a mask mean the structure: a value, a range or several (EX=1, disc=0-128, vessels=1,3), in a "
        "palette the indices, or a colour (EX=#ff0000). NAME=invert marks what is dark in a mask. ignore=VALUES are "
        f"pixels that no loss and no score counts. Default: {default}.",
    )  # fmt: skip
    group.add_argument(
        "--missing-labels", default="error", choices=["error", "skip", "empty"],
        help="If a photograph for training or validation has no mask of a target, stop (error), leave the photograph "
        "out (skip), or take it as one without the structure (empty).",
    )


def typed_target(text: str) -> str:
    """What argparse calls with each word after --target."""
    try:
        parse_target(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
    return text


def parse_target(text: str) -> tuple[str, Meaning | None]:
    """A target's name, or `IGNORE`, and what --target says of its values.

    Raises:
        ValueError: no name, or no values behind the equals sign.
    """
    name, equals, values = text.partition("=")
    if not name or (name == IGNORE and not equals):
        raise ValueError("write NAME, NAME=VALUES or ignore=VALUES")
    if not equals:
        return name, None
    if name == IGNORE:
        return name, Meaning(ignored=parse_ranges(values))
    if values == INVERT:
        return name, Meaning(inverted=True)
    return name, Meaning(marked=parse_ranges(values))


def names_of(typed: list[str]) -> list[str]:
    """The targets' names in what was typed."""
    return [name for name, _ in map(parse_target, typed) if name != IGNORE]


def ignored_by(typed: list[str]) -> Ranges:
    """The values to ignore in what was typed."""
    meanings = [meaning for name, meaning in map(parse_target, typed) if name == IGNORE and meaning]
    return tuple(each for meaning in meanings for each in meaning.ignored)


def complete_targets(typed: list[str] | None, sets: dict[str, SegmentationSet], default: list[str]) -> list[str]:
    """What was typed, with the default names where there is none.

    Args:
        sets: data sets by the names that a message gives them, of which each target needs one.

    Raises:
        UserError: a name that no data set has, or one that is given twice.
    """
    typed = typed or []
    names = names_of(typed)
    for name in names:
        if not any(settings.own_name(name) for settings in sets.values()):
            there = "; ".join(f"{title} has {', '.join(settings.targets)}" for title, settings in sets.items())
            raise UserError(f"--target {name}: {there}")
        if names.count(name) > 1:
            raise UserError(f"--target {name} is given twice: write several values as {name}=1,2")
    return typed if names else [*default, *typed]


def retyped(names: list[str], typed: list[str]) -> list[str]:
    """A network's targets, with the values that were typed for some of them, and what is to be ignored.

    Raises:
        UserError: another target was typed.
    """
    for name in names_of(typed):
        if name not in names:
            raise UserError(f"--target {name}: the checkpoint segments {', '.join(names)}")
    said = {parse_target(text)[0]: text for text in typed}
    return [said.pop(name, name) for name in names] + list(said.values())


def find_samples(
    settings: SegmentationSet, root: Path, typed: list[str], missing_labels: str = "error"
) -> dict[str, list[Sample]]:
    """The samples of each split that a data set has in a folder, with labels that mean what --target says.

    Args:
        missing_labels: with "empty", in a split that has labels at all, no mask of a target is an empty one.

    Raises:
        UserError: as `find` of the data set; or two targets would be read from one mask by the same values.
    """
    meanings, ignored = dict(map(parse_target, typed)), ignored_by(typed)
    own_names = {name: own for name in names_of(typed) if (own := settings.own_name(name))}
    names = list(own_names)
    found = with_common_bits(settings.find(root, list(own_names.values())))
    found = {split: [renamed(sample, own_names) for sample in members] for split, members in found.items()}
    peers: dict[str, list[Path]] = {}  # of the targets that have labels
    for sample in (sample for members in found.values() for sample in members):
        for name, label in sample.labels.items():
            peers.setdefault(name, []).extend([label.path] if label.path else [])
    all_peers = {name: tuple(paths) for name, paths in peers.items()}

    def read_as(label: Label, name: str) -> Label:
        meaning = meanings.get(name) or label.meaning
        return replace(label, meaning=replace(meaning, ignored=ignored), peers=all_peers[name])

    def complete(sample: Sample, fill: bool) -> Sample:
        labels = {name: read_as(label, name) for name, label in sample.labels.items()}
        refuse_same_values(labels)
        if fill:
            labels = {name: labels.get(name, Label(None)) for name in names if name in peers}
        observer = read_as(sample.observer, names[0]) if sample.observer and names[0] in peers else sample.observer
        return replace(sample, labels=labels, observer=observer)

    fill = {split: missing_labels == "empty" and any(each.labels for each in found[split]) for split in found}
    return {split: [complete(sample, fill[split]) for sample in members] for split, members in found.items()}


def renamed(sample: Sample, own_names: dict[str, str]) -> Sample:
    """A sample whose labels have the names that were typed, which are the keys, instead of the data set's own."""
    labels = {name: sample.labels[own] for name, own in own_names.items() if own in sample.labels}
    return replace(sample, labels=labels)


def refuse_same_values(labels: dict[str, Label]) -> None:
    """Two targets of a photograph must not be the same.

    Raises:
        UserError: they are read from one file by the same values.
    """
    seen: dict[tuple[Path, Meaning], str] = {}
    for name, label in labels.items():
        other = seen.setdefault((label.path, label.meaning), name) if label.path else name
        if other != name:
            raise UserError(
                f"{label.path} would be read alike for {other} and {name}: give the values of each, as in --target "
                f"{other}=1 {name}=2, or make a folder of masks for each"
            )


def leave_out_unlabelled(lists: dict[str, list[Sample]], targets: dict[str, list[str]]) -> dict[str, list[Sample]]:
    """The lists without the training and validation photographs that lack a label, each of which is named.

    Args:
        targets: that need one, by the samples' source.
    """
    learned = [sample for split in ("train", "val") for sample in lists.get(split, [])]
    bare = {each.key: each.image.name for each in learned if not set(targets[each.source]) <= each.labels.keys()}
    if bare:
        names = " and ".join(dict.fromkeys(name for each in targets.values() for name in each))
        warn(f"left out {len(bare)} photographs without a mask of {names}: {few(bare.values())}")
    return {split: [sample for sample in members if sample.key not in bare] for split, members in lists.items()}
