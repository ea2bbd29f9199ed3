"""STARE: 20 photographs of 700 x 605 (Hoover et al. 2000), gzipped as downloaded; vessels by two observers.

There is no official split: the first ten train and the last ten test (Maninis et al. 2016), as the authors did.
"""

from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, find_prepared, locate, masks_in, nothing_found, stem
from DualScaleNet.common.files import list_images

TRAIN = "0001 0002 0003 0004 0005 0044 0077 0081 0082 0139".split()
TEST = "0162 0163 0235 0236 0239 0240 0255 0291 0319 0324".split()


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """stare-images/im0001.ppm[.gz], labels-ah/im0001.ah.ppm[.gz], labels-vk/im0001.vk.ppm[.gz]; or stare/train."""
    names = ("STARE", "stare")
    place = locate(root, names, "stare-images")
    if place is None:
        prepared = find_prepared(root, names, "image", "label", targets[0])
        if not prepared:
            raise nothing_found("STARE", root, "stare-images/im0001.ppm.gz and labels-ah/im0001.ah.ppm.gz")
        return prepared
    images = list_images(place / "stare-images")
    drawn = {who: masks_in(place / f"labels-{who}", [f"{stem(x)}.{who}" for x in images]) for who in ("ah", "vk")}
    splits: dict[str, list[Sample]] = {}
    for image in images:
        id = stem(image)
        split = "train" if id[2:] in TRAIN else "test" if id[2:] in TEST else None
        if split is None:  # of the 397 photographs, 20 are labelled
            continue
        labels = {}
        for target in targets:
            who = target.partition(":")[2] or "ah"
            if path := drawn[who].get(f"{id}.{who}"):
                labels[target] = Label(path)
        second = drawn["vk"].get(f"{id}.vk") if targets == ["vessels"] else None
        sample = Sample(id, image, labels, split=split, observer=Label(second) if second else None)
        splits.setdefault(split, []).append(sample)
    return splits


SET = SegmentationSet(
    "STARE", find, targets=("vessels", "vessels:vk"), default=("vessels",), folder="STARE", size=706,
    counts={"train": 10, "test": 10},
)
