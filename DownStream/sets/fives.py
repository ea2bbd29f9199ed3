"""FIVES: 800 photographs of 2048 x 2048 (Jin et al. 2022), 600 to train, 200 to test; vessels.

A name's letter is the diagnosis: A age-related macular degeneration, D diabetic retinopathy, G glaucoma, N normal. Not
among the authors' sets: photographs are resized.
"""

from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, locate, masks_in, nothing_found, split_folders, stem
from DualScaleNet.common.files import list_images

NAMES = ("FIVES", "FIVES A Fundus Image Dataset for AI-based Vessel Segmentation")


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """{train,test}/Original/1_A.png, {train,test}/Ground truth/1_A.png."""
    place = locate(root, NAMES, "*/Original")
    if place is None:
        raise nothing_found("FIVES", root, "train/Original/1_A.png and train/Ground truth/1_A.png")
    splits = {}
    for split, folder in split_folders(place, "Original").items():
        images = list_images(folder / "Original")
        masks = masks_in(folder / "Ground truth", [stem(image) for image in images])
        samples = []
        for image in images:
            path = masks.get(stem(image))
            samples.append(Sample(stem(image), image, dict.fromkeys(targets, Label(path)) if path else {}, split=split))
        if samples:
            splits[split] = samples
    return splits


SET = SegmentationSet(
    "FIVES", find, targets=("vessels",), default=("vessels",), folder="FIVES", epochs=60, fit="square", size=1024,
    counts={"train": 600, "test": 200},
)
