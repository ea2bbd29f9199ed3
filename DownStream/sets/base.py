"""What every data set is made of: samples, their labels, the authors' settings."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from DualScaleNet.common.files import common_bits, list_images
from DualScaleNet.common.script import UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Label:
    """A mask's file. `path` is None where the set says by the file's absence that nothing is there to mark.

    `level` is the least grey value that counts, None for above half of the mask's maximum (0/1 as well as 0/255).
    """

    path: Path | None
    level: int | None = None


@dataclass(frozen=True)
class Sample:
    """One photograph with what belongs to it.

    `labels` has a label for each target that is labelled, `observer` a second person's for the human line. Of a
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
    a level of agreement. Photographs are zero-padded on the right and at the bottom to `size` (`fit` "pad"; None: the
    least multiple of 32 that holds them all), or resized to size x size ("resize"). `disc` is the target around which
    --roi disc cuts, `roi_size` the side to which that region is resized. `counts` are the official numbers.
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
    place = locate(root, names, f"train/{labels}")
    splits: dict[str, list[Sample]] = {}
    if place is None:
        return splits
    for split in SPLITS:
        by_stem = {stem(path): path for path in list_images(place / split / labels)}
        samples = []
        for image in list_images(place / split / images):
            label = by_stem.get(stem(image)) or by_stem.get(label_stem(stem(image)))
            samples.append(Sample(stem(image), image, {target: Label(label)} if label else {}, split=split, roi=roi))
        if samples:
            splits[split] = samples
    return splits


def stem(path: Path) -> str:
    """A file's name up to its suffixes; im0001.ppm.gz is im0001."""
    name = path.stem if path.suffix.lower() == ".gz" else path.name
    return name.rsplit(".", 1)[0]


def existing(path: Path) -> Path | None:
    """The path, or None where there is no file."""
    return path if path.is_file() else None


def nothing_found(title: str, root: Path, expected: str) -> UserError:
    """What is raised where a set is not."""
    return UserError(
        f"no {title} in {root}: expected {expected} below it; Dataset/README.md says where to get it; "
        "if it is elsewhere, name its folder with --data-dir (check.py: --root)"
    )
