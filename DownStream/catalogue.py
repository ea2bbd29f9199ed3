"""The segmentation data sets: where their files lie and the settings that the authors took for each.

A finder takes the folder that the user unpacked, at any of the depths an archive may unpack to, and returns the
samples of each split, sorted; a split that is not there is missing from the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from DualScaleNet.files import list_images
from DualScaleNet.runtime import UserError


@dataclass(frozen=True)
class Sample:
    """One photograph with what belongs to it; `label` and `fov` are None where the set has none."""

    id: str  # names its maps
    image: Path
    label: Path | None = None
    fov: Path | None = None
    split: str = ""  # the list of its data set that it stands in

    @property
    def key(self) -> str:
        """Its name in split files: ids may repeat between the lists of a data set."""
        return f"{self.split}/{self.id}"


@dataclass(frozen=True)
class Catalogued:
    """A data set: its finder and the authors' settings.

    `size` is the side in pixels to which photographs are zero-padded on the right and at the bottom, None for the
    least multiple of 32 that holds them all. `counts` are the official numbers of photographs per split.
    """

    title: str
    find: Callable[[Path], dict[str, list[Sample]]]
    folder: str | None = None
    lr: float = 1e-3
    batch_size: int = 1
    epochs: int = 400
    size: int | None = None
    counts: dict[str, int] | None = None


def find_drive(root: Path) -> dict[str, list[Sample]]:
    """DRIVE's official tree: {training,test}/images/21_training.tif, 1st_manual/21_manual1.gif, mask/..._mask.gif.

    Today's official download has no test labels; older copies have.

    Raises:
        UserError: no photograph where the tree has them.
    """
    places = (root, root / "DRIVE", root / "DRIVE" / "DRIVE")
    root = next((place for place in places if (place / "training").is_dir()), root)
    splits = {}
    for split, folder in (("train", "training"), ("test", "test")):
        samples = [
            Sample(
                id=image.stem,
                image=image,
                label=_existing(root / folder / "1st_manual" / f"{image.stem.split('_')[0]}_manual1.gif"),
                fov=_existing(root / folder / "mask" / f"{image.stem}_mask.gif"),
                split=split,
            )
            for image in list_images(root / folder / "images")
        ]
        if samples:
            splits[split] = samples
    if not splits:
        raise UserError(
            f"no DRIVE in {root}: expected training/images/21_training.tif and test/images/01_test.tif below it; "
            "Dataset/README.md says where to get it, --data-dir where it is"
        )
    return splits


def find_generic(root: Path) -> dict[str, list[Sample]]:
    """People's own data: images/* with masks/* and optionally fov/* of the same stems, split or not.

    Splits are folders train, val, test above; without them every photograph is for training.

    Raises:
        UserError: no photograph there, two of the same stem, or a mask or field of view without its photograph.
    """
    splits = {}
    for split in ("train", "val", "test"):
        if (root / split / "images").is_dir():
            splits[split] = _paired(root / split, split)
    if not splits and (root / "images").is_dir():
        splits["train"] = _paired(root, "train")
    if not any(splits.values()):
        raise UserError(
            f"no photographs in {root}: expected images/* and masks/* of the same stems, or both below train, val, test"
        )
    return splits


def _paired(folder: Path, split: str) -> list[Sample]:
    images, masks, fovs = (_by_stem(folder / name) for name in ("images", "masks", "fov"))
    for other in (masks, fovs):
        for stem in other.keys() - images.keys():
            raise UserError(f"{other[stem]} belongs to no photograph: {folder / 'images'} has no {stem}.*")
    return [Sample(stem, image, masks.get(stem), fovs.get(stem), split) for stem, image in images.items()]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in found:
            raise UserError(f"{path} and {found[path.stem].name} have the same stem: rename or remove one")
        found[path.stem] = path
    return found


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


CATALOGUE = {
    "drive": Catalogued("DRIVE, vessels", find_drive, folder="DRIVE", size=608, counts={"train": 20, "test": 20}),
    "generic": Catalogued("images/ + masks/", find_generic),
}
