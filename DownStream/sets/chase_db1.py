"""CHASE_DB1: 28 photographs of 999 x 960, both eyes of 14 children (Fraz et al. 2012); vessels by two observers.

The first 20 train and the last 8 test, as usual; a child's eyes stay together. Not among the authors' sets: the
settings are those of DRIVE.
"""

import re
from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, by_stem, locate, nothing_found
from DualScaleNet.common.files import list_images

NAME = re.compile(r"Image_(\d\d)([LR])")


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """Image_01L.jpg, Image_01L_1stHO.png, Image_01L_2ndHO.png."""
    place = locate(root, ("CHASE_DB1", "CHASEDB1"), "Image_[0-9][0-9][LR].*")
    if place is None:
        raise nothing_found("CHASE_DB1", root, "Image_01L.jpg and Image_01L_1stHO.png")
    splits: dict[str, list[Sample]] = {}
    files = by_stem(path for path in list_images(place) if NAME.match(path.name))
    for id, image in files.items():
        match = NAME.fullmatch(id)
        if not match:
            continue
        child, eye = match.groups()
        split = "train" if int(child) <= 10 else "test"
        labels = {}
        for target in targets:
            path = files.get(f"{id}_{'2ndHO' if target.endswith(':2nd') else '1stHO'}")
            if path:
                labels[target] = Label(path)
        second = files.get(f"{id}_2ndHO") if targets == ["vessels"] else None
        observer = Label(second) if second else None
        splits.setdefault(split, []).append(
            Sample(id, image, labels, split=split, observer=observer, group=f"child {child}", laterality=eye)
        )
    return splits


SET = SegmentationSet(
    "CHASE_DB1", find, targets=("vessels", "vessels:2nd"), default=("vessels",), folder="CHASE_DB1", size=1024,
    counts={"train": 20, "test": 8},
)
