"""RIM-ONE r3: 159 stereo pairs of 2144 x 1424 (Fumero et al. 2011), of which the left half is taken; disc and cup.

Two experts and their average, which is the default. 99 train and 60 test (Maninis et al. 2016).
"""

from pathlib import Path

from DownStream.sets.base import Label, Sample, SegmentationSet, find_prepared, locate, masks_in, nothing_found
from DualScaleNet.common.files import list_images

TEST = """
G-2-R G-22-L G-23-R G-24-L G-25-L G-26-R G-27-R G-28-L G-29-R G-30-L G-31-R N-1-L N-17-L N-18-R N-2-R N-20-R N-21-L
N-22-R N-23-L N-28-R N-29-L N-3-L N-30-R N-31-L N-32-R N-33-L N-34-R N-35-L N-36-R N-37-L N-38-R N-39-L N-4-R N-40-R
N-41-L N-42-R N-43-L N-44-R N-46-R N-47-L N-48-R N-49-L N-50-R N-51-L N-78-R S-2-L S-29-R S-3-R S-30-L S-31-L S-32-L
S-33-R S-34-L S-35-R S-4-L S-5-L S-6-R S-7-L S-8-R S-9-L
""".split()
GROUPS = ("Healthy", "Glaucoma and suspects")
# Folder and the file's ending for each annotator.
ANNOTATORS = {
    "": ("Average_masks", "-{}-Avg"),
    "exp1": ("Expert1_masks", "-1-{}-exp1"),
    "exp2": ("Expert2_masks", "-2-{}-exp2"),
}


def find(root: Path, targets: list[str]) -> dict[str, list[Sample]]:
    """Healthy, Glaucoma and suspects: Stereo Images/N-1-L.jpg, Average_masks/N-1-L-Disc-Avg.png; or rim/train/ROIs."""
    place = locate(root, ("RIM-ONE r3", "RIM-ONE_r3"), "*/Stereo Images")
    if place is None:
        prepared = find_prepared(root, ("rim",), "ROIs/image", "ROIs/label", targets[0], roi=True)
        if not prepared:
            raise nothing_found("RIM-ONE r3", root, "Healthy/Stereo Images/N-1-L.jpg and Healthy/Average_masks")
        return prepared
    splits: dict[str, list[Sample]] = {}
    for group in GROUPS:
        images = list_images(place / group / "Stereo Images")
        found = {}  # by target: the masks, and how their names end
        for target in targets:
            structure, _, who = target.partition(":")
            folder, form = ANNOTATORS[who]
            ending = form.format(structure.capitalize())
            found[target] = masks_in(place / group / folder, [image.stem + ending for image in images]), ending
        for image in images:
            paths = {target: masks.get(image.stem + ending) for target, (masks, ending) in found.items()}
            labels = {target: Label(path) for target, path in paths.items() if path}
            split = "test" if image.stem in TEST else "train"
            eye = image.stem[-1]  # of G-2-R
            sample = Sample(image.stem, image, labels, split=split, stereo=True, laterality=eye)
            splits.setdefault(split, []).append(sample)
    return {split: sorted(samples, key=lambda sample: sample.id) for split, samples in splits.items()}


SET = SegmentationSet(
    "RIM-ONE r3", find, targets=("disc", "cup", "disc:exp1", "cup:exp1", "disc:exp2", "cup:exp2"), default=("disc",),
    folder="RIM-ONE r3", lr=1e-4, batch_size=2, epochs=300, fit="resize", size=512, disc="disc",
    counts={"train": 99, "test": 60}, synonyms={"OD": "disc"},
)
