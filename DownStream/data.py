"""Labelled photographs in memory, and which of them train, validate and test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from DownStream.catalogue import Sample
from DualScaleNet.files import read_image
from DualScaleNet.runtime import UserError, seeded_generator


@dataclass(frozen=True)
class Photograph:
    """A decoded sample at native size: image (3, H, W) uint8, label and fov (H, W) bool or None."""

    id: str
    image: Tensor
    label: Tensor | None
    fov: Tensor | None


def read_sample(sample: Sample) -> Photograph:
    """Decodes a sample.

    Raises:
        UserError: a file cannot be read, or a mask is not as large as its photograph.
    """
    image = torch.from_numpy(read_image(sample.image).copy()).permute(2, 0, 1)
    masks = []
    for path in (sample.label, sample.fov):
        mask = None if path is None else torch.from_numpy(read_mask(path))
        if mask is not None and mask.shape != image.shape[1:]:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (mask.shape, image.shape[1:])]
            raise UserError(f"{path} is {sizes[0]}, its photograph {sample.image.name} {sizes[1]}: they must agree")
        masks.append(mask)
    return Photograph(sample.id, image, *masks)


def read_mask(path: Path) -> np.ndarray:
    """A binary mask, (H, W) bool, whether its values are 0/1 or 0/255: true above half of its maximum."""
    gray = read_image(path, "L")
    return gray > gray.max() / 2


def read_labelled(samples: list[Sample]) -> list[Photograph]:
    """Decodes samples that must have labels.

    Raises:
        UserError: names the first without one.
    """
    for sample in samples:
        if sample.label is None:
            raise UserError(f"{sample.image} has no label, without which it can neither train nor validate")
    return [read_sample(sample) for sample in tqdm(samples, "read", unit="photo", disable=None, leave=False)]


def make_split(
    found: dict[str, list[Sample]],
    val_fraction: float,
    label_fraction: float,
    folds: int | None,
    fold: int,
    seed: int,
) -> dict[str, list[Sample]]:
    """Which samples train, validate and test. Validation and folds always come out of the training list, by image.

    Args:
        found: what the finder returned; its own `val`, where it has one, is taken as it is.
        val_fraction: share of the training list to validate on, 0 for none.
        label_fraction: share of the remaining training list to train on; a smaller share lies inside a larger one.
        folds, fold: of K folds of the training list, number k (from 0) becomes the test split, and validation comes
            out of the others.
        seed: of the drawing; the test fold depends on nothing else.

    Raises:
        UserError: nothing would be left to train on.
    """
    if "train" not in found:
        raise UserError("there are no photographs for training")
    generator = seeded_generator(seed)
    train = [found["train"][i] for i in torch.randperm(len(found["train"]), generator=generator)]
    test = found.get("test", [])
    if folds:
        if folds > len(train):
            raise UserError(f"--folds {folds}: there are only {len(train)} photographs for training")
        test, train = train[fold::folds], [s for i, s in enumerate(train) if i % folds != fold]
    val = found.get("val")
    if val is None:
        count = max(1, round(val_fraction * len(train))) if val_fraction else 0
        val, train = train[:count], train[count:]
    train = train[: max(1, round(label_fraction * len(train)))]
    if not train:
        raise UserError("no photograph is left for training: lower --val-fraction")
    return {"train": train, "val": val, "test": test}
