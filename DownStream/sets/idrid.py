"""IDRiD, A. Segmentation: 81 photographs of 4288 x 2848 (Porwal et al. 2018), 54 to train, 27 to test.

Microaneurysms (MA), haemorrhages (HE), hard exudates (EX, the authors' default), soft exudates (SE), optic disc (OD).
A mask's file exists only where the lesion does: a missing file is an empty mask, a missing folder no label at all.
"""

from pathlib import Path

from DownStream.sets.base import Sample, SegmentationSet, find_prepared, labels_or_nothing, locate, nothing_found
from DualScaleNet.common.files import list_images
from DualScaleNet.common.script import UserError

FOLDERS = {
    "MA": "1. Microaneurysms", "HE": "2. Haemorrhages", "EX": "3. Hard Exudates", "SE": "4. Soft Exudates",
    "OD": "5. Optic Disc",
}  # fmt: skip


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """1. Original Images/a. Training Set/IDRiD_01.jpg, 2. All Segmentation Groundtruths; or idrid/idrid_512/train."""
    names = ("IDRiD", "A. Segmentation", "A._Segmentation")
    place = locate(root, names, "1. Original Images")
    if place is None:
        prepared = find_prepared(
            root, ("idrid", "idrid_512"), "img", "label", targets[0], lambda id: f"{id}_{targets[0]}"
        )
        if not prepared:
            raise nothing_found("IDRiD", root, "A. Segmentation/1. Original Images/a. Training Set/IDRiD_01.jpg")
        return prepared
    splits = {}
    for split, folder in (("train", "a. Training Set"), ("test", "b. Testing Set")):
        truth = place / "2. All Segmentation Groundtruths" / folder
        images = list_images(place / "1. Original Images" / folder)
        found = {}
        for target in targets if images and truth.is_dir() else ():
            if not (truth / FOLDERS[target]).is_dir():
                raise UserError(f"{truth} has no folder {FOLDERS[target]}: unpack it, or choose another --target")
            found[target] = labels_or_nothing(truth / FOLDERS[target], images, f"_{target}")
        samples = []
        for image in images:
            labels = {target: each[image] for target, each in found.items()}
            samples.append(Sample(image.stem, image, labels, split=split))
        if samples:
            splits[split] = samples
    return splits


SET = SegmentationSet(
    "IDRiD", find, targets=tuple(FOLDERS), default=("EX",), folder="IDRiD", epochs=300, fit="square", size=512,
    disc="OD", counts={"train": 54, "test": 27}, synonyms={"disc": "OD"},
)
