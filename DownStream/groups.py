"""Which photographs are of one person: no split may tear them apart."""

import argparse
import csv
import re
from dataclasses import replace
from pathlib import Path

from DownStream.sets.base import SPLITS, Sample
from DualScaleNet.common.photographs import find_duplicates
from DualScaleNet.common.script import UserError, warn


def groups_argument(text: str) -> str:
    """What argparse calls with --groups: the name of a CSV file, or a regular expression with a group."""
    if not is_table(text):
        try:
            count = re.compile(text).groups
        except re.error as error:
            raise argparse.ArgumentTypeError(f"{text} is no CSV file and no regular expression: {error}") from None
        if not count:
            raise argparse.ArgumentTypeError(f"{text} has no group: put what names the person in parentheses")
    return text


def is_table(text: str) -> bool:
    """Whether --groups names a CSV file."""
    return text.lower().endswith(".csv")


def with_groups(found: dict[str, list[Sample]], source: str) -> dict[str, list[Sample]]:
    """The samples with their groups.

    Args:
        source: a CSV file with the columns image and group, where an image is named by its file, its id or its name in
            split files; or a regular expression that is searched in the id, and whose first group it is.

    Raises:
        UserError: the file cannot be read, or a photograph has no group.
    """
    table = read_groups(Path(source)) if is_table(source) else None

    def group_of(sample: Sample) -> str:
        if table is None:
            match = re.search(source, sample.id)
            group = match[1] if match else None
        else:
            group = next((table[name] for name in (sample.key, sample.id, sample.image.name) if name in table), None)
        if not group:
            raise UserError(f"--groups {source} has no group for {sample.image}: every photograph needs one")
        return group

    return {split: [replace(each, group=group_of(each)) for each in members] for split, members in found.items()}


def read_groups(path: Path) -> dict[str, str]:
    """The groups in a CSV file by image.

    Raises:
        UserError: there is no such file, or it lacks a column.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"--groups: cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not rows or not {"image", "group"} <= rows[0].keys():
        raise UserError(f"--groups: {path} needs the columns image and group, a row for each photograph")
    return {row["image"]: row["group"] for row in rows}


def warn_of_torn_groups(lists: dict[str, list[Sample]]) -> None:
    """Names the groups of which the user's own split or folders have photographs on two sides."""
    splits: dict[str, set[str]] = {}
    for split, members in lists.items():
        for sample in members:
            if sample.group:
                splits.setdefault(sample.group, set()).add(split)
    torn = [group for group, places in splits.items() if len(places) > 1]
    if torn:
        places = " and ".join(split for split in SPLITS if split in splits[torn[0]])
        more = f", and so for {len(torn) - 1} more" if len(torn) > 1 else ""
        warn(f"{torn[0]} has photographs in {places}{more}: move them into one of these, or the scores are too good")


def warn_of_copies(lists: dict[str, list[Sample]]) -> None:
    """Names the first photograph of which copies lie on two sides of a split, whatever their names."""
    splits: dict[Path, set[str]] = {}
    for split, members in lists.items():
        for sample in members:
            splits.setdefault(sample.image, set()).add(split)
    images = [sample.image for members in lists.values() for sample in members]
    copies = [alike for alike in find_duplicates(images) if len(set().union(*(splits[path] for path in alike))) > 1]
    if copies:
        first, second, *_ = copies[0]
        more = f", and so are {len(copies) - 1} more" if len(copies) > 1 else ""
        where = f"{first} and {second} are one photograph, on two sides of the split"
        warn(f"{where}{more}: remove one, or the scores are too good")
