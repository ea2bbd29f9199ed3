"""Drishti-GS1: 101 photographs of about 2050 x 1750 (Sivaswamy et al. 2014), 50 to train, 51 to test; disc and cup.

Four experts' outlines as soft maps of levels 0, 64, 128, 191, 255: three of four is the majority label and the default.
"""

from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, by_stem, find_prepared, locate, nothing_found
from DownStream.sets.meaning import Meaning
from DualScaleNet.common.files import list_images

LEVELS = {"": 191, "all": 255, "any": 1}  # the least grey that counts
MAPS = {"disc": "ODsegSoftmap", "cup": "cupsegSoftmap"}


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """{Training,Test}/Images/drishtiGS_002.png, with Training/GT and Test/{Test_GT,GT}; or gs/{train,test}/ROIs."""
    names = ("Drishti-GS1_files", "Drishti-GS1")
    place = locate(root, names, "Training/Images") or locate(root, names, "Test/Images")
    if place is None:
        prepared = find_prepared(root, ("gs",), "ROIs/image", "ROIs/label", targets[0], roi=True)
        if not prepared:
            raise nothing_found("Drishti-GS1", root, "Training/Images/drishtiGS_002.png and Training/GT/drishtiGS_002")
        return prepared
    splits = {}
    for split, folder, truths in (("train", "Training", ("GT",)), ("test", "Test", ("Test_GT", "GT"))):
        images: dict[str, Path] = {}  # some copies sort them into Images/{GLAUCOMA,NORMAL,ALL}
        for inner in ("", "ALL", "GLAUCOMA", "NORMAL"):
            images |= {image.stem: image for image in list_images(place / folder / "Images" / inner)}
        samples = []
        for id, image in sorted(images.items()):
            labels = {}
            for target in targets:
                structure, _, agreement = target.partition(":")
                for truth in truths:
                    maps = by_stem(list_images(place / folder / truth / id / "SoftMap"))
                    if path := maps.get(f"{id}_{MAPS[structure]}"):
                        labels[target] = Label(path, Meaning(((LEVELS[agreement], 255),)))
            samples.append(Sample(id, image, labels, split=split))
        if samples:
            splits[split] = samples
    return splits


SET = SegmentationSet(
    "Drishti-GS1", find, targets=("disc", "cup", "disc:all", "cup:all", "disc:any", "cup:any"), default=("disc",),
    folder="Drishti-GS1_files", lr=1e-4, batch_size=2, epochs=300, fit="square", size=512, disc="disc",
    counts={"train": 50, "test": 51}, synonyms={"OD": "disc"},
)
