"""DRIVE: 40 photographs of 565 x 584 (Staal et al. 2004), 20 to train, 20 to test; vessels.

Fields of view are shipped. Today's official download has no test labels; older copies have, and a second observer's.
"""

from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, find_prepared, locate, masks_in, nothing_found
from DualScaleNet.common.files import list_images


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """training/images/21_training.tif, 1st_manual/21_manual1.gif, mask/21_training_mask.gif; or drive/train/img."""
    names = ("DRIVE", "drive")
    place = locate(root, names, "training/images") or locate(root, names, "test/images/*_test.*")
    if place is None:
        prepared = find_prepared(root, names, "img", "label", targets[0], lambda id: f"{number(id)}_manual1")
        if not prepared:
            raise nothing_found("DRIVE", root, "training/images/21_training.tif and test/images/01_test.tif")
        return prepared
    splits = {}
    for split, folder in (("train", place / "training"), ("test", place / "test")):
        images = list_images(folder / "images")
        numbers = [number(image.stem) for image in images]
        firsts = masks_in(folder / "1st_manual", [f"{each}_manual1" for each in numbers])
        seconds = masks_in(folder / "2nd_manual", [f"{each}_manual2" for each in numbers])
        fovs = masks_in(folder / "mask", [f"{image.stem}_mask" for image in images])
        samples = []
        for image, each in zip(images, numbers, strict=True):
            first, second = firsts.get(f"{each}_manual1"), seconds.get(f"{each}_manual2")
            samples.append(
                Sample(
                    id=image.stem,
                    image=image,
                    labels=dict.fromkeys(targets, Label(first)) if first else {},
                    fov=fovs.get(f"{image.stem}_mask"),
                    split=split,
                    observer=Label(second) if second else None,
                )
            )
        if samples:
            splits[split] = samples
    return splits


def number(stem: str) -> str:
    """21_training -> 21."""
    return stem.split("_")[0]


SET = SegmentationSet(
    "DRIVE", find, targets=("vessels",), default=("vessels",), folder="DRIVE", size=608,
    counts={"train": 20, "test": 20},
)
