"""DDR's lesions: 757 photographs of varying size (Li et al. 2019), 383 to train, 149 to validate, 225 to test.

Microaneurysms (MA), haemorrhages (HE), hard exudates (EX), soft exudates (SE); masks of 0 and 255. A photograph without
a file has none of that lesion. Not among the authors' sets for segmentation: the settings are those of IDRiD.
"""

from pathlib import Path

from DownStream.sets.base import Sample, SegmentationSet, labels_or_nothing, locate, nothing_found, split_folders
from DualScaleNet.common.files import list_images

LABELS = ("label", "segmentation label")  # the latter in valid/, as released


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """{train,test}/image/007-1774-100.jpg, label/EX/007-1774-100.tif; valid/image, valid/segmentation label/EX."""
    place = locate(root, ("DDR-dataset", "DDR", "lesion_segmentation"), "*/image")
    if place is None:
        raise nothing_found("DDR", root, "lesion_segmentation/train/image/007-1774-100.jpg and train/label/EX")
    splits = {}
    for split, folder in split_folders(place, "image").items():
        images = list_images(folder / "image")
        truth = next((folder / name for name in LABELS if (folder / name).is_dir()), None)
        found = {target: labels_or_nothing(truth / target, images) for target in targets} if truth and images else {}
        samples = [
            Sample(image.stem, image, {target: each[image] for target, each in found.items()}, split=split)
            for image in images
        ]
        if samples:
            splits[split] = samples
    return splits


SET = SegmentationSet(
    "DDR, lesions", find, targets=("MA", "HE", "EX", "SE"), default=("EX",), folder="DDR-dataset", epochs=100,
    fit="square", size=512, counts={"train": 383, "val": 149, "test": 225},
)
