"""People's own data: images/* with masks/* and optionally fov/* of the same stems, split into folders or not.

Several targets are folders in masks/, of the targets' names.
"""

import unicodedata
from pathlib import Path

from DownStream.sets.base import SPLITS, Label, Sample, SegmentationSet, stem
from DualScaleNet.common.files import list_images
from DualScaleNet.common.script import UserError


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """Splits are folders train, val, test above images/ and masks/; without them every photograph is for training.

    Raises:
        UserError: no photograph there, two of the same stem, or a mask or field of view without its photograph.
    """
    splits = {split: paired(root / split, split, targets) for split in SPLITS if (root / split / "images").is_dir()}
    if not splits and (root / "images").is_dir():
        splits["train"] = paired(root, "train", targets)
    if not any(splits.values()):
        where = root if root.is_dir() else f"{root}, which is no folder"
        tree = "images/* and masks/* of the same stems, or both below train, val, test"
        raise UserError(f"no photographs in {where}: expected {tree}")
    return {split: samples for split, samples in splits.items() if samples}


def paired(folder: Path, split: str, targets: list[str]) -> list[Sample]:
    """The samples of one images/ folder."""
    images, fovs = by_stem(folder / "images"), by_stem(folder / "fov")
    flat = by_stem(folder / "masks") if len(targets) == 1 else {}
    masks = {target: by_stem(folder / "masks" / target) or flat for target in targets}
    for others in (fovs, *masks.values()):
        for name in sorted(others.keys() - images.keys()):
            missing = folder / "images" / f"{name}.*"
            raise UserError(f"{others[name]} belongs to no photograph: add {missing}, or remove it")
    return [
        Sample(
            id=name,
            image=image,
            labels={target: Label(found[name]) for target, found in masks.items() if name in found},
            fov=fovs.get(name),
            split=split,
        )
        for name, image in images.items()
    ]


def by_stem(folder: Path) -> dict[str, Path]:
    """The images of a folder by stem."""
    found: dict[str, Path] = {}
    for path in list_images(folder):
        name = unicodedata.normalize("NFC", stem(path))  # macOS writes é as e and an accent
        if name in found:
            raise UserError(f"{path} and {found[name].name} have the same stem: rename or remove one")
        found[name] = path
    return found


SET = SegmentationSet("images/ + masks/", find, targets=(), default=("mask",))
