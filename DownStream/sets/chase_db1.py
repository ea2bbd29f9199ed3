"""CHASE_DB1: 28 photographs of 999 x 960, both eyes of 14 children (Fraz et al. 2012); vessels by two observers.

The first 20 train and the last 8 test, as usual. Not among the authors' sets: the settings are those of DRIVE.
"""

from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, existing, locate, nothing_found
from DualScaleNet.common.files import list_images


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """Image_01L.jpg, Image_01L_1stHO.png, Image_01L_2ndHO.png."""
    place = locate(root, ("CHASE_DB1", "CHASEDB1"), "Image_*.jpg")
    if place is None:
        raise nothing_found("CHASE_DB1", root, "Image_01L.jpg and Image_01L_1stHO.png")
    splits: dict[str, list[Sample]] = {}
    for image in list_images(place):
        if image.suffix.lower() != ".jpg":
            continue
        split = "train" if int(image.stem[6:8]) <= 10 else "test"  # two eyes a child
        labels = {}
        for target in targets:
            path = place / f"{image.stem}_{'2ndHO' if target.endswith(':2nd') else '1stHO'}.png"
            if path.is_file():
                labels[target] = Label(path)
        second = existing(place / f"{image.stem}_2ndHO.png") if targets == ["vessels"] else None
        sample = Sample(image.stem, image, labels, split=split, observer=Label(second) if second else None)
        splits.setdefault(split, []).append(sample)
    return splits


SET = SegmentationSet(
    "CHASE_DB1", find, targets=("vessels", "vessels:2nd"), default=("vessels",), folder="CHASE_DB1", size=1024,
    counts={"train": 20, "test": 8},
)
