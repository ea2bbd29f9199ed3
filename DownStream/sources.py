"""One data set, or several to be learned at once: each in a folder of its own, with splits of its own."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample
from DownStream.targets import find_samples, names_of

Lists = dict[str, list[Sample]]  # by split


def names_of_sources(datasets: list[str]) -> list[str]:
    """What tells several data sets apart: their names, numbered where one occurs again; "" for the only one."""
    if len(datasets) == 1:
        return [""]
    seen: Counter[str] = Counter()
    names = []
    for dataset in datasets:
        seen[dataset] += 1
        names.append(dataset if seen[dataset] == 1 else f"{dataset}-{seen[dataset]}")
    return names


def typed_for(dataset: str, datasets: list[str], typed: list[str]) -> list[str]:
    """What --target says of one of the data sets: among several, values are those of people's own masks."""
    return typed if len(datasets) == 1 or dataset == "generic" else names_of(typed)


def find_sets(datasets: list[str], folders: list[Path], typed: list[str], missing_labels: str = "error") -> list[Lists]:
    """The samples of each data set by split. Those of several are named by their set: drive/21_training.

    Raises:
        UserError: as `find_samples`.
    """
    sets = []
    for dataset, folder, source in zip(datasets, folders, names_of_sources(datasets), strict=True):
        found = find_samples(CATALOGUE[dataset], folder, typed_for(dataset, datasets, typed), missing_labels)
        sets.append({split: [of_source(sample, source) for sample in members] for split, members in found.items()})
    return sets


def of_source(sample: Sample, source: str) -> Sample:
    """A sample as one of several data sets: no id or group of it is another set's."""
    if not source:
        return sample
    group = sample.group and f"{source}/{sample.group}"
    return replace(sample, id=f"{source}/{sample.id}", group=group, source=source)


def merged(sets: list[Lists]) -> Lists:
    """The samples of all sets by split."""
    splits = dict.fromkeys(split for found in sets for split in found)
    return {split: [sample for found in sets for sample in found.get(split, [])] for split in splits}


def fit_of(datasets: list[str], size: int | None = None) -> str:
    """How photographs are brought to the network's size, of which `size` is --size: as the data set says.

    Of sets that differ all are padded, where one is, otherwise resized to the square around the field of view.
    """
    fits = {"square" if dataset == "generic" and size else CATALOGUE[dataset].fit for dataset in datasets}
    if len(fits) == 1:
        return fits.pop()
    return "pad" if "pad" in fits else "square"


def disc_of(datasets: list[str]) -> str | None:
    """What the first of some data sets calls the optic disc; None if one of them has none."""
    disc = CATALOGUE[datasets[0]].disc or "disc"
    return disc if all(CATALOGUE[dataset].own_name(disc) for dataset in datasets) else None


def full_keys(datasets: list[str], keys: list[str]) -> set[str]:
    """The keys of samples as they are where several data sets are learned at once."""
    if len(datasets) == 1:
        return {key.replace("/", f"/{datasets[0]}/", 1) for key in keys}
    return {re.sub(r"^([^/]+/[^/]+?)-\d+/", r"\1/", key) for key in keys}  # generic-2 is a set of its own elsewhere


def expected_targets(datasets: list[str], found: Lists, targets: list[str]) -> dict[str, list[str]]:
    """By source, the targets of which the samples need labels, of all sets that were found.

    One of several sets may lack a target, which then counts in no loss and no score on it. People's own masks lack one
    that none of their photographs has.
    """
    if len(datasets) == 1:
        return {"": targets}
    expected, samples = {}, [sample for members in found.values() for sample in members]
    for dataset, source in zip(datasets, names_of_sources(datasets), strict=True):
        labelled = {target for sample in samples if sample.source == source for target in sample.labels}
        own = [target for target in targets if CATALOGUE[dataset].own_name(target)]
        expected[source] = own if CATALOGUE[dataset].targets else [name for name in own if name in labelled] or own
    return expected
