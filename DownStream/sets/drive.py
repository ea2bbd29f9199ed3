"""DRIVE: 40 photographs of 565 x 584 (Staal et al. 2004), 20 to train, 20 to test; vessels.

Fields of view are shipped. Today's official download has no test labels; older copies have, and a second observer's.
"""

from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, existing, find_prepared, locate, nothing_found
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
        samples = []
        for image in list_images(folder / "images"):
            first = existing(folder / "1st_manual" / f"{number(image.stem)}_manual1.gif")
            second = existing(folder / "2nd_manual" / f"{number(image.stem)}_manual2.gif")
            samples.append(
                Sample(
                    id=image.stem,
                    image=image,
                    labels=dict.fromkeys(targets, Label(first)) if first else {},
                    fov=existing(folder / "mask" / f"{image.stem}_mask.gif"),
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
