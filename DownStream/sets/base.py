"""What every data set is made of: samples, their labels, the authors' settings."""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from DownStream.sets.meaning import Meaning
from DualScaleNet.common import photographs
from DualScaleNet.common.files import common_bits, list_images
from DualScaleNet.common.script import UserError, warn

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Label:
    """A mask's file. `path` is None where the set says by the file's absence that nothing is there to mark.

    `peers` are the masks of the same target in the set, this one among them: they tell noise from marks.
    """

    path: Path | None
    meaning: Meaning = field(default_factory=Meaning)
    peers: tuple[Path, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Sample:
    """One photograph with what belongs to it.

    `labels` has a label for each target that is labelled, `observer` a second person's, to compare with. Of a
    `stereo` pair the left half is the photograph. `roi`: it shows only the region around the disc. `bits`: of how many
    bits its values are if the file has 16 for each.
    """

    id: str  # names its maps
    image: Path
    labels: dict[str, Label] = field(default_factory=dict)
    fov: Path | None = None
    split: str = ""  # the list of its data set that it stands in
    observer: Label | None = None
    stereo: bool = False
    roi: bool = False
    bits: int = 16
    group: str = ""  # the person, where the set tells: no group is on two sides of a split
    source: str = ""  # which of several data sets it is of
    laterality: str = ""  # the eye, R or L, where the set tells

    @property
    def key(self) -> str:
        """Its name in split files: ids may repeat between the lists of a data set."""
        return f"{self.split}/{self.id}"


@dataclass(frozen=True)
class SegmentationSet:
    """A data set: how to find its samples, and the authors' settings.

    `find` takes the folder that the user unpacked, at any of the depths that an archive may unpack to, and a list of
    targets; it returns the samples of each split, sorted by id; a split that is not there is missing from the answer.
    It raises UserError, saying what it looked for, where it finds nothing.

    `targets` are all that may be asked for; `default` is the authors' choice. A name behind a colon is an annotator or
    a level of agreement; `synonyms` has the set's own name for what other sets call so. Photographs are zero-padded on
    the right and at the bottom to `size` (`fit` "pad"; None: the least multiple of 32 that holds them all), or resized
    to size x size: the frame ("resize"), or the square around the field of view ("square"; the recipe release takes the
    frame). `disc` is the target around which --roi disc cuts,
    `roi_size` the side to which that region is resized. `counts` are the official numbers.
    """

    title: str
    find: Callable[[Path, list[str]], dict[str, list[Sample]]]
    targets: tuple[str, ...]
    default: tuple[str, ...]
    folder: str | None = None
    lr: float = 1e-3
    batch_size: int = 1
    epochs: int = 400
    fit: str = "pad"
    size: int | None = None
    disc: str | None = None
    roi_size: int = 256
    counts: dict[str, int] | None = None
    synonyms: dict[str, str] = field(default_factory=dict)

    def own_name(self, target: str) -> str | None:
        """What the set calls a target; None if it does not have it."""
        return target if not self.targets or target in self.targets else self.synonyms.get(target)


def with_common_bits(splits: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
    """The same samples, whose 16-bit photographs are all read as of as many bits as the largest value needs."""
    bits = common_bits(tuple(sample.image for samples in splits.values() for sample in samples))
    return {split: [replace(sample, bits=bits) for sample in samples] for split, samples in splits.items()}


def locate(root: Path, names: tuple[str, ...], landmark: str) -> Path | None:
    """The folder that has `landmark` (a glob) in it: `root`, or below it up to two folders called one of `names`."""
    places = [root]
    for _ in range(2):
        places += [place / name for place in places for name in names if (place / name) not in places]
    return next((place for place in places if place.is_dir() and any(place.glob(landmark))), None)


def find_prepared(
    root: Path,
    names: tuple[str, ...],
    images: str,
    labels: str,
    target: str,
    label_stem: Callable[[str], str] = str,
    roi: bool = False,
) -> dict[str, list[Sample]]:
    """The tree that the method's authors used: {train,test}/<images>/* with {train,test}/<labels>/*.

    A label has its photograph's stem, or what `label_stem` makes of it. Empty if there is no such tree.
    """
    place = locate(root, names, f"train/{labels}") or locate(root, names, f"training/{labels}")
    splits: dict[str, list[Sample]] = {}
    for split, folder in split_folders(place, images).items() if place else ():
        found = list_images(folder / images)
        stems = [stem(image) for image in found]
        masks = masks_in(folder / labels, [*stems, *map(label_stem, stems)])
        samples = []
        for image in found:
            label = masks.get(stem(image)) or masks.get(label_stem(stem(image)))
            samples.append(Sample(stem(image), image, {target: Label(label)} if label else {}, split=split, roi=roi))
        if samples:
            splits[split] = samples
    if splits:
        print(f"{place}: one mask for each photograph, read as {target}")
    return splits


def split_folders(place: Path, inner: str) -> dict[str, Path]:
    """The folders with a folder `inner` that hold a split: train or training, val, valid or validation, test; by split.

    Raises:
        UserError: two of them hold the same split.
    """
    folders: dict[str, Path] = {}
    for folder in sorted(place.iterdir()) if place.is_dir() else ():
        split = photographs.SPLITS.get(folder.name.lower())
        if split and (folder / inner).is_dir():
            if split in folders:
                raise UserError(f"{folders[split]} and {folder} are the same split: move all into one of them")
            folders[split] = folder
    return {split: folders[split] for split in SPLITS if split in folders}


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by stem.

    Raises:
        UserError: two have the same.
    """
    found: dict[str, Path] = {}
    for path in paths:
        name = unicodedata.normalize("NFC", stem(path))  # macOS writes é as e and an accent
        if name in found:
            raise UserError(f"{path} and {found[name].name} have the same stem: rename or remove one")
        found[name] = path
    return found


def masks_in(folder: Path, stems: list[str]) -> dict[str, Path]:
    """The images in a folder of masks, of any kind, by stem.

    Raises:
        UserError: there are some, but not one of these stems.
    """
    masks = by_stem(list_images(folder))
    if masks and stems and not masks.keys() & set(stems):
        first = next(iter(masks.values()))
        raise UserError(
            f"none of the {len(masks)} masks in {folder} belongs to a photograph: {first.name} is there, "
            f"{stems[0]}{first.suffix} would be one: rename them"
        )
    return masks


def labels_or_nothing(folder: Path, images: list[Path], ending: str = "") -> dict[Path, Label]:
    """The labels of photographs in a set where a file that is not there says that there is nothing to mark.

    Raises:
        UserError: the folder has no masks, or none of them belongs to a photograph.
    """
    names = {image: stem(image) + ending for image in images}
    masks = masks_in(folder, list(names.values()))
    if not masks:
        raise UserError(f"{folder} has no masks: unpack it, or choose another --target")
    if others := sorted(masks.keys() - set(names.values())):
        warn(f"{masks[others[0]]} belongs to no photograph ({len(others)} of {len(masks)} masks): check its name")
    return {image: Label(masks.get(name)) for image, name in names.items()}


def stem(path: Path) -> str:
    """A file's name up to its suffixes; im0001.ppm.gz is im0001."""
    name = path.stem if path.suffix.lower() == ".gz" else path.name
    return name.rsplit(".", 1)[0]


def nothing_found(title: str, root: Path, expected: str) -> UserError:
    """What is raised where a set is not."""
    return UserError(
        f"no {title} in {root}: expected {expected} below it; Dataset/README.md says where to get it; "
        "if it is elsewhere, name its folder with --data-dir (check.py: --root)"
    )
