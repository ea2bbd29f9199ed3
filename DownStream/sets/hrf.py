"""HRF: 45 photographs of 3504 x 2336 (Budai et al. 2013), healthy, diabetic or glaucomatous eyes; vessels.

Fields of view are shipped. There is no official split: the first five of each kind train and the other 30 test (Orlando
et al. 2016). Not among the authors' sets: photographs are resized.
"""

from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, locate, masks_in, nothing_found, stem
from DualScaleNet.common.files import list_images

TRAIN = {f"{number:02}_{kind}" for number in range(1, 6) for kind in ("dr", "g", "h")}


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """images/01_dr.JPG, manual1/01_dr.tif, mask/01_dr_mask.tif."""
    place = locate(root, ("HRF", "all"), "manual1")
    if place is None:
        raise nothing_found("HRF", root, "images/01_dr.JPG, manual1/01_dr.tif and mask/01_dr_mask.tif")
    images = list_images(place / "images")
    stems = [stem(image) for image in images]
    masks = masks_in(place / "manual1", stems)
    fovs = masks_in(place / "mask", [f"{id}_mask" for id in stems])
    splits: dict[str, list[Sample]] = {}
    for id, image in zip(stems, images, strict=True):
        labels = dict.fromkeys(targets, Label(masks[id])) if id in masks else {}
        split = "train" if id.lower() in TRAIN else "test"
        splits.setdefault(split, []).append(Sample(id, image, labels, fovs.get(f"{id}_mask"), split))
    return splits


SET = SegmentationSet(
    "HRF", find, targets=("vessels",), default=("vessels",), folder="HRF", fit="square", size=1024,
    counts={"train": 15, "test": 30},
)
