"""Checks the data sets: counts and pairs their files, opens each, and says what is missing.

    python Dataset/check.py                                           # the known sets in Dataset/
    python Dataset/check.py --dataset drive --root /data/DRIVE        # one set, wherever it lies
    python Dataset/check.py --dataset generic --root mine             # mine/images/* with mine/masks/*

It shows how much of the field of view is marked, and warns where a mask may not mean what it is taken for. The exit
code is 1 if a set has a fault: a file that cannot be read, a mask of another size than its photograph, a training or
validation photograph without a label, or the same photograph in two splits. A set that is missing is a fault only if
--dataset names it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample, SegmentationSet
from DownStream.targets import add_targets, complete_targets, find_samples, leave_out_unlabelled, names_of
from DualScaleNet.common.drawings import is_drawing
from DualScaleNet.common.files import is_turned
from DualScaleNet.common.options import HelpFormatter
from DualScaleNet.common.photographs import find_duplicates, find_photographs, split_of
from DualScaleNet.common.script import ROOT, UserError, few, progress_bar, run_script

if TYPE_CHECKING:
    from DownStream.census import Census

HERE = ROOT / "Dataset"
COLUMNS = ("split", "photographs", "readable", "labels", "field of view", "size")


@dataclass
class Remarks:
    """What there is to say of a set."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """All of it, the worst first."""
        kinds = {"fault": self.faults, "warning": self.warnings, "note": self.notes}
        return [f"{kind}: {remark}" for kind, remarks in kinds.items() for remark in remarks]


def find_ddr(root: Path, _: list[str]) -> dict[str, list[Sample]]:
    """The photographs that pretraining finds, by split; "no split" for those in no folder of that name."""
    splits: dict[str, list[Sample]] = {split: [] for split in ("train", "val", "test", "no split")}
    for path in find_photographs([root], ["train", "val", "test"]).photographs:
        split = split_of(path.parent, root) or "no split"
        splits[split].append(Sample(path.stem, path, split=split))
    return {split: samples for split, samples in splits.items() if samples}


DDR = SegmentationSet(
    "DDR (pretraining, no label is read)", find_ddr, targets=(), default=(), folder="ddr_757",
    counts={"train": 383, "val": 149, "test": 225},
)
SETS = {"ddr": DDR, **CATALOGUE}
# Where a set lies under the root, beside its own folder: the tree of DDR's release, whole or only the part in use.
OTHER_FOLDERS = {"ddr": ("DDR-dataset/lesion_segmentation", "DDR-dataset")}


class Options(argparse.Namespace):
    """What check.py is called with."""

    root: Path
    dataset: list[str] | None
    target: list[str] | None
    missing_labels: str


def parse_args() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=HERE, metavar="FOLDER",
        help="Look for the data sets in this folder. With --dataset it may be the set itself.",
    )
    parser.add_argument(
        "--dataset", nargs="+", choices=list(SETS),
        help="Require these data sets. Default: look for all sets that have a folder of their own in Dataset.",
    )
    add_targets(parser, "all targets of the set, of which one is enough")
    args = parser.parse_args(namespace=Options())
    if not args.root.is_dir():
        parser.error(f"--root {args.root} is no folder: give the one that holds the data sets")
    try:
        for name in wanted(args) if args.target else ():
            complete_targets(args.target, {f"--dataset {name}": SETS[name]}, [])
    except UserError as error:
        parser.error(str(error))
    return args


def wanted(args: Options) -> list[str]:
    """The data sets that are named, or all that have a folder of their own."""
    return args.dataset or [name for name, entry in SETS.items() if entry.folder]


def main() -> None:
    args = parse_args()
    asked = bool(args.dataset)
    faults = sum(check_set(name, args.root, asked, args.target, args.missing_labels) for name in wanted(args))
    if faults:
        raise UserError(f"{faults} fault{'s' * (faults > 1)} found")


def check_set(name: str, root: Path, asked: bool, typed: list[str] | None = None, missing_labels: str = "error") -> int:
    """Prints what there is of one set; returns the number of faults."""
    from DownStream.census import Census  # imports PyTorch, which takes seconds: not before there is a file to open

    entry = SETS[name]
    places = [root / folder for folder in (entry.folder, *OTHER_FOLDERS.get(name, ())) if folder]
    if root.resolve().name == entry.folder or (asked and root.resolve() != HERE):
        places.append(root)
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        print(f"{entry.title}: not found in {root}: see Dataset/README.md\n")
        return int(asked)
    print(f"{entry.title}: {place}")
    typed = complete_targets(typed, {name: entry}, main_targets(entry))
    targets = names_of(typed)
    enough = min(1, len(targets)) if targets == main_targets(entry) else len(targets)  # a prepared tree has one target
    try:
        splits = find_samples(entry, place, typed, missing_labels)
        if missing_labels == "skip":
            splits = leave_out_unlabelled(splits, {"": targets})
    except UserError as error:
        print(f"  fault: {error}\n")
        return 1
    rows: list[tuple[str, ...]] = [COLUMNS]
    remarks, census = Remarks(), Census(typed)
    for split, samples in splits.items():
        rows.append(check_split(name, split, samples, targets, enough, remarks, census))
    check_copies(splits, bool(targets), remarks)
    remarks.warnings += census.warnings()
    for split, expected in (entry.counts or {}).items():
        found = len(splits.get(split, []))
        if found != expected:
            advice = "unpack the whole archive" if found < expected else "remove what does not belong there"
            remarks.notes.append(f"{split}: {found} photographs where the official set has {expected}: {advice}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *middle, last in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(middle, widths[1:-1], strict=True)]
        print("  " + "  ".join([f"{first:<{widths[0]}}", *cells, last]))
    print("  " + "\n  ".join([*census.shares(), *(remarks.lines() or ["nothing is missing"])]) + "\n")
    return len(remarks.faults)


def check_split(
    name: str,
    split: str,
    samples: list[Sample],
    targets: list[str],
    enough: int,
    remarks: Remarks,
    census: Census,
) -> tuple[str, ...]:
    """Opens all files of a split; returns its row of the table and adds to `remarks` and `census`.

    A photograph with labels of fewer than `enough` targets is unlabelled.
    """
    from DownStream.data import INSTEAD_OF_LABELS, read_sample  # imports PyTorch

    sizes, blank, turned = [], [], []
    empty = dict.fromkeys(targets, 0)
    for sample in progress_bar(samples, f"{name} {split}", unit="photo", leave=False):
        try:
            photograph = read_sample(sample)
        except UserError as error:
            remarks.faults.append(f"{split}: {error}")
            continue
        census.add(sample, photograph)
        if not targets and is_drawing(photograph.pixels):
            remarks.notes.append(f"{split}: {sample.image} has a label's few colours: pretraining leaves it out")
        height, width = photograph.image.shape[1:]
        sizes.append((width, height))
        if photograph.labels and is_turned(sample.image):
            turned.append(sample)
        for target, label in photograph.labels.items():
            empty[target] += not label.any()
            if sample.labels[target].path and not label.any():
                blank.append(sample)
    expected = (SETS[name].counts or {}).get(split)
    counted = f"{len(samples)} of {expected}" if expected else str(len(samples))
    if not targets:
        return split, counted, str(len(sizes)), "-", "-", size_range(sizes)

    bare = [sample for sample in samples if len(sample.labels) < enough]
    framed = sum(sample.fov is not None for sample in samples)
    if bare and split != "test":
        remarks.faults.append(f"{split}: no label for {files(bare)}: add it, or {INSTEAD_OF_LABELS}")
    elif bare and len(bare) < len(samples):
        remarks.notes.append(f"{split}: no label for {files(bare)}: predict.py does not score them; add it if you can")
    elif bare:
        why = "today's official download has none: " if name == "drive" else ""
        way = "predict.py writes maps but cannot score them; hold out training images with --folds"
        remarks.notes.append(f"{split}: no labels: {why}{way}")
    if blank:
        remarks.notes.append(f"{split}: nothing is marked in a label of {files(blank)}: check that this is right")
    if turned:
        remarks.notes.append(f"{split}: an EXIF tag turns {files(turned)}: check that the masks are turned too")
    labels = []
    for target in targets:
        labelled = sum(target in sample.labels for sample in samples)
        labels.append(f"{target} {labelled}" + (f" ({empty[target]} empty)" if empty[target] else ""))
    return split, counted, str(len(sizes)), ", ".join(labels), str(framed) if framed else "estimated", size_range(sizes)


def check_copies(splits: dict[str, list[Sample]], labelled: bool, remarks: Remarks) -> None:
    """Photographs that occur more than once; adds to `remarks`.

    Between the splits of a labelled set they falsify the score. Pretraining merges its splits.
    """
    split_of_path = {sample.image: split for split, samples in splits.items() for sample in samples}
    within: dict[str, list[list[Path]]] = {}
    for group in find_duplicates(list(split_of_path)):
        first, *others = group
        named = [split for split in splits if any(split_of_path[path] == split for path in group)]
        if labelled and len(named) > 1:
            other = next(path for path in others if split_of_path[path] != split_of_path[first])
            remarks.faults.append(
                f"{' and '.join(named)}: {first} and {other} are the same photograph: remove one, it falsifies scores"
            )
        else:
            within.setdefault(" and ".join(named), []).append(group)
    for where, groups in within.items():
        first, second, *_ = groups[0]
        occur = "photographs occur" if len(groups) > 1 else "photograph occurs"
        remarks.notes.append(
            f"{where}: {len(groups)} {occur} more than once, {first} and {second} first: "
            "each copy counts, so keep one of each"
        )


def main_targets(entry: SegmentationSet) -> list[str]:
    """A set's targets without other annotators and levels of agreement; its default where any name will do."""
    return [target for target in entry.targets if ":" not in target] or list(entry.default)


def files(samples: list[Sample]) -> str:
    """The first ones by name, the others by number."""
    return few([sample.image.name for sample in samples])


def size_range(sizes: list[tuple[int, int]]) -> str:
    """All sizes if they are few, else their number, the smallest and the largest area."""
    distinct = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    names = [f"{width}x{height}" for width, height in distinct]
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} sizes, {names[0]} to {names[-1]}"


if __name__ == "__main__":
    run_script(main)
