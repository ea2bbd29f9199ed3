"""Labelled photographs in memory, and which of them train, validate and test."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from DownStream.fov import estimate_fov, fov_diameter, is_too_narrow
from DownStream.masks import Mask, read_mask
from DownStream.region import fov_region
from DownStream.sets.base import SPLITS, Label, Sample
from DualScaleNet.common.device import seeded_generator
from DualScaleNet.common.files import is_turned, read_image
from DualScaleNet.common.script import UserError
from DualScaleNet.common.surroundings import black_surroundings

Item = TypeVar("Item")
RIM = 0.005  # of the field of view's width
INSTEAD_OF_LABELS = "leave it out (--missing-labels skip), or take nothing as marked there (--missing-labels empty)"


@dataclass(frozen=True)
class Photograph:
    """A decoded sample: image (3, H, W) uint8; labels by target, fov and the second observer's label (H, W) bool.

    `masks` are what the labels were read from; a label without a file has none.
    """

    id: str
    image: Tensor
    labels: dict[str, Tensor]
    fov: Tensor | None = None
    observer: Tensor | None = None
    masks: dict[str, Mask] = field(default_factory=dict)

    def counted(self, target: str) -> np.ndarray | None:
        """(H, W) bool, where a pixel of this target's label counts; None where all do."""
        mask = self.masks.get(target)
        return None if mask is None or mask.ignored is None else ~mask.ignored

    @property
    def pixels(self) -> np.ndarray:
        """The image as (H, W, 3)."""
        return self.image.permute(1, 2, 0).numpy()

    @cached_property
    def field_of_view(self) -> np.ndarray:
        """(H, W) bool, as shipped, or else estimated."""
        return estimate_fov(self.pixels) if self.fov is None else self.fov.numpy()

    @cached_property
    def diameter(self) -> float | None:
        """Of the field of view in pixels; None where no border is seen."""
        return fov_diameter(self.field_of_view)

    @property
    def retina(self) -> Tensor:
        """The image, black outside of the field of view and along its rim, where the retina fades out."""
        distance = cv2.distanceTransform(self.field_of_view.astype(np.uint8), cv2.DIST_L2, 3)
        return self.image * torch.from_numpy(distance > RIM * fov_region(self.field_of_view).width)


def read_sample(sample: Sample) -> Photograph:
    """Decodes a sample at native size; its photograph's surroundings are black if they were another flat colour.

    Raises:
        UserError: a file cannot be read, a mask is not as large as its photograph, or no field of view.
    """
    pixels = black_surroundings(read_image(sample.image, bits=sample.bits))
    height, width = pixels.shape[:2]
    width //= 1 + sample.stereo
    image = torch.from_numpy(pixels[:, :width].copy()).permute(2, 0, 1)

    def read(label: Label) -> Mask:
        mask = read_mask(label)
        if sample.stereo and mask.values.shape[1] == 2 * width:
            mask = mask.left_half()
        shape = mask.values.shape
        if shape != (height, width):
            sizes = f"{shape[1]}x{shape[0]}, its photograph {sample.image.name} {width}x{height}"
            turned = shape == (width, height) and is_turned(sample.image)
            advice = "its EXIF tag turns the photograph: turn the mask too" if turned else "save it at that size"
            raise UserError(f"{label.path} is {sizes}: {advice}")
        return mask

    def tensor(mask: Mask | None) -> Tensor:
        return torch.zeros(height, width, dtype=torch.bool) if mask is None else torch.from_numpy(mask.marked.copy())

    masks = {target: read(label) for target, label in sample.labels.items() if label.path}
    labels = {target: tensor(masks.get(target)) for target in sample.labels}
    fov = tensor(read(Label(sample.fov))) if sample.fov else None
    if fov is not None and not fov.any():
        fov = None  # an empty one says nothing
    if fov is not None and is_too_narrow(fov.numpy()):
        raise UserError(f"{sample.fov} marks too little to be the field of view: correct or remove it")
    observer = tensor(read(sample.observer)) if sample.observer else None
    return Photograph(sample.id, image, labels, fov, observer, masks)


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, evenly chosen from the first to the last."""
    count = min(len(items), most)
    return [items[k] for k in np.linspace(0, len(items) - 1, count).round().astype(int)]


def require_labels(samples: list[Sample], targets: dict[str, list[str]], instead: str = "") -> None:
    """Samples to train or validate on must have every label.

    Args:
        targets: that need one, by the samples' source.
        instead: what else there is to do than to add it.

    Raises:
        UserError: names the first without one.
    """
    for sample in samples:
        for target in targets[sample.source]:
            if target not in sample.labels:
                raise UserError(f"{sample.image} has no label for {target}: add it{', or ' * bool(instead)}{instead}")


def make_split(
    found: dict[str, list[Sample]],
    val_fraction: float,
    label_fraction: float,
    folds: int | None,
    fold: int,
    seed: int,
) -> dict[str, list[Sample]]:
    """Which samples train, validate and test. Validation and folds always come out of the training list, by image.

    Samples of a group stay together: all of it is drawn that has a part in what is asked for.

    Args:
        found: what the finder returned; its own `val`, where it has one, is taken as it is.
        val_fraction: fraction of the training list, without a fold held out, to validate on; 0 for none.
        label_fraction: of the remaining training list; a larger fraction contains the smaller ones.
        folds, fold: of K folds of the training list, number k (from 0) becomes the test split, and validation comes
            out of the others.
        seed: of the drawing; the test fold depends on nothing else.

    Raises:
        UserError: nothing would be left to train on.
    """
    if "train" not in found:
        raise UserError("the data set has no photographs for training")
    generator = seeded_generator(seed)
    train = [found["train"][i] for i in torch.randperm(len(found["train"]), generator=generator)]
    test = found.get("test", [])
    if folds:
        groups = grouped(train)
        if folds > len(groups):
            raise UserError(f"--folds {folds}: there are only {len(groups)} photographs for training, or groups")
        test = [sample for group in groups[fold::folds] for sample in group]
        train = [sample for i, group in enumerate(groups) if i % folds != fold for sample in group]
    val = found.get("val")
    if val is None:
        count = max(1, round(val_fraction * len(train))) if val_fraction else 0
        val, train = first_groups(train, count)
    train, _ = first_groups(train, max(1, round(label_fraction * len(train))))
    if not train:
        raise UserError("no photograph is left for training: lower --val-fraction")
    return {"train": train, "val": val, "test": test}


def grouped(samples: list[Sample]) -> list[list[Sample]]:
    """The groups in order of their first sample; a sample without a group is one."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group or sample.key, []).append(sample)
    return list(groups.values())


def first_groups(samples: list[Sample], count: int) -> tuple[list[Sample], list[Sample]]:
    """The first groups, until they hold `count` samples, and the others."""
    first: list[Sample] = []
    others: list[Sample] = []
    for group in grouped(samples):
        (first if len(first) < count else others).extend(group)
    return first, others


def read_split(path: Path, found: dict[str, list[Sample]], label_fraction: float) -> dict[str, list[Sample]]:
    """The user's own split: a JSON object of lists train, val, test, as in a run's split.json.

    Args:
        found: what the finder returned; a photograph is named by its key there, or by its id where that is unique.
        label_fraction: fraction of the training list to train on, from its beginning.

    Raises:
        UserError: no such file or form, an unknown or repeated photograph, none to train on.
    """
    try:
        lists = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors begin with a mark
        listed = isinstance(lists, dict) and all(isinstance(names, list) for names in lists.values())
        if not listed or not all(isinstance(name, str) for names in lists.values() for name in names):
            raise ValueError("it must be an object of lists of photographs' names")
        if unknown := lists.keys() - set(SPLITS):
            raise ValueError(f"it has a list {min(unknown)}; its lists must be {', '.join(SPLITS)}")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot use the split file {path}: {error}") from None
    by_name: dict[str, list[Sample]] = {}
    for sample in (sample for members in found.values() for sample in members):
        for name in (sample.key, sample.id):
            by_name.setdefault(name, []).append(sample)
    split: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    taken: set[str] = set()
    for part, names in lists.items():
        for name in names:
            samples = by_name.get(name, [])
            if len(samples) != 1:
                several = "names several photographs: write train/ or test/ before it"
                problem = several if samples else "is not in the data"
                raise UserError(f"{path}: {name} {problem}")
            if samples[0].key in taken:
                raise UserError(f"{path}: {name} is listed twice: remove one")
            taken.add(samples[0].key)
            split[part].append(samples[0])
    if not split["train"]:
        raise UserError(f"{path}: the list train is empty: name photographs to train on")
    split["train"] = split["train"][: max(1, round(label_fraction * len(split["train"])))]
    return split
