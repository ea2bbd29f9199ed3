"""People's own data: images/* with masks/* and optionally fov/* of the same stems, split into folders or not.

Several targets are folders in masks/, of the targets' names, or values in one mask that --target tells apart. A mask
may have the usual endings: 21_mask.png, 21_manual1.gif and 21_gt.tif belong to 21.jpg and 21_training.tif.
"""

import re
from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, by_stem, split_folders
from DualScaleNet.common.files import list_images
from DualScaleNet.common.script import UserError

ENDINGS = (
    r"masks?|manual\d?|(1st|2nd)_?(HO|manual)|seg(mentation)?|labels?|gt|ground_?truth|annotations?|fov|"
    r"train(ing)?|test|images?|img|photo|0000"
)


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """Splits are folders (train, val or valid, test) above images/ and masks/; without, every photograph is to train.

    Raises:
        UserError: no photograph there, two of the same stem, or a mask or field of view without its photograph.
    """
    folders = split_folders(root, "images")
    if not folders and (root / "images").is_dir():
        folders["train"] = root
    splits = {split: paired(folder, split, targets) for split, folder in folders.items()}
    if not any(splits.values()):
        where = root if root.is_dir() else f"{root}, which is no folder"
        tree = "images/* and masks/* of the same stems, or both below train, val, test"
        raise UserError(f"no photographs in {where}: expected {tree}")
    return {split: samples for split, samples in splits.items() if samples}


def paired(folder: Path, split: str, targets: list[str]) -> list[Sample]:
    """The samples of one images/ folder."""
    images = by_stem(list_images(folder / "images"))
    masks = {target: belonging(folder / "masks" / target, images, target) for target in targets}
    if not any(masks.values()):
        masks = dict.fromkeys(targets, belonging(folder / "masks", images))
        others = [each.name for each in subfolders(folder / "masks") if list_images(each)]
        if others and not any(masks.values()):
            raise UserError(f"{folder / 'masks'} has folders of masks: name which to read, --target {' '.join(others)}")
    fovs = belonging(folder / "fov", images)
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


def belonging(folder: Path, images: dict[str, Path], target: str = "mask") -> dict[str, Path]:
    """The masks in a folder by their photographs' stems.

    Raises:
        UserError: a mask belongs to no photograph, or to the same one as another.
    """
    ending = re.compile(rf"(.)[ ._-]({ENDINGS}|{re.escape(target)})$", re.IGNORECASE)

    def bare(name: str) -> str:
        """The name without all such endings."""
        shorter = ending.sub(r"\1", name)
        return name if shorter == name else bare(shorter)

    by_bare_name: dict[str, list[str]] = {}
    for name in images:
        by_bare_name.setdefault(bare(name), []).append(name)
    found: dict[str, Path] = {}
    for name, path in by_stem(list_images(folder)).items() if images else ():
        candidates = [name] if name in images else by_bare_name.get(bare(name), [])
        if len(candidates) != 1:
            first, image = next(iter(images.items()))
            raise UserError(
                f"{path} belongs to no photograph: name it as its photograph is, with or without an ending such as "
                f"_mask ({first}{path.suffix} or {first}_mask{path.suffix} for {image.name}), add "
                f"{image.parent / name}.*, or remove it"
            )
        if candidates[0] in found:
            raise UserError(f"{path} and {found[candidates[0]].name} belong to the same photograph: remove one")
        found[candidates[0]] = path
    return found


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


SET = SegmentationSet("images/ + masks/", find, targets=(), default=("mask",))
