"""REFUGE: 1200 photographs of 2124 x 2056 and 1634 x 1634 (Orlando et al. 2020), 400 each to train, validate and test.

Optic disc and cup in one mask: 0 cup, 128 disc, 255 background; the disc includes the cup. Not among the authors' sets:
the settings are those of Drishti-GS1.
"""

from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, by_stem, locate, nothing_found
from DownStream.sets.meaning import Meaning
from DualScaleNet.common.files import is_image
from DualScaleNet.common.script import UserError

# Halfway between the values, so that masks saved as JPEG or resized are read as well.
MEANINGS = {"disc": Meaning(((0, 191),)), "cup": Meaning(((0, 63),))}
WORDS = {"train": "training400", "val": "validation400", "test": "test"}  # in the folders' names


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """Training400/Glaucoma/g0001.jpg, Annotation-Training400/Disc_Cup_Masks/Glaucoma/g0001.bmp, the others alike.

    Archives nest folders twice now and then: any image in a folder Disc_Cup_Masks is a mask, any other a photograph.
    """
    place = locate(root, ("REFUGE",), "*400")
    photographs: dict[str, list[Path]] = {}
    annotations: dict[str, list[Path]] = {}
    for path in sorted(place.rglob("*")) if place else ():
        folders = path.parent.relative_to(place or root).as_posix().lower()
        split = next((split for split, word in WORDS.items() if word in folders), None)
        if split and is_image(path.name):
            (annotations if "disc_cup_masks" in folders else photographs).setdefault(split, []).append(path)
    if not photographs:
        expected = "Training400/Glaucoma/g0001.jpg and Annotation-Training400/Disc_Cup_Masks/Glaucoma/g0001.bmp"
        raise nothing_found("REFUGE", root, expected)
    splits: dict[str, list[Sample]] = {}
    for split in (split for split in WORDS if split in photographs):
        images, masks = by_stem(photographs[split]), by_stem(annotations.get(split, []))
        if masks and not masks.keys() & images.keys():
            first = next(iter(masks.values()))
            raise UserError(f"none of the {len(masks)} masks beside {first} belongs to a photograph: rename them")
        splits[split] = []
        for id, image in sorted(images.items()):
            labels = {target: Label(masks[id], MEANINGS[target]) for target in targets if id in masks}
            splits[split].append(Sample(id, image, labels, split=split))
    return splits


SET = SegmentationSet(
    "REFUGE", find, targets=("disc", "cup"), default=("disc",), folder="REFUGE", lr=1e-4, batch_size=2, epochs=100,
    fit="square", size=512, disc="disc", counts={"train": 400, "val": 400, "test": 400}, synonyms={"OD": "disc"},
)
