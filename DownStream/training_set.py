"""The photographs of a training run: which train, validate and test, and those to train on, decoded and scaled."""

from pathlib import Path

import torch

from DownStream.census import Census
from DownStream.data import Photograph, make_split, read_sample, read_split, require_labels
from DownStream.groups import warn_of_torn_groups, with_groups
from DownStream.options.train import Options
from DownStream.recipes import RECIPES
from DownStream.region import disc_region, fov_region
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample
from DownStream.targets import find_samples, ignored_by, leave_out_unlabelled
from DownStream.transforms import NetworkInput, TrainingPhotograph
from DualScaleNet.common.options import STRIDE
from DualScaleNet.common.script import UserError, progress_bar, warn


def split_samples(options: Options) -> dict[str, list[Sample]]:
    """Which samples train, validate and test, with all the labels that this needs.

    Raises:
        UserError: the data set or a label is not there, or nothing is left to train on.
    """
    disc = roi_target(options)
    around = [disc] if disc else []
    read = options.target + [name for name in around if name not in options.targets]
    found = find_samples(CATALOGUE[options.dataset], options.data_dir, read, options.missing_labels)
    if options.groups:
        found = with_groups(found, options.groups)
    skips = options.missing_labels == "skip"
    if options.split_file:
        samples = read_split(options.split_file, found, options.label_fraction)
        samples = leave_out_unlabelled(samples, options.targets) if skips else samples
    else:
        found = leave_out_unlabelled(found, options.targets) if skips else found
        samples = make_split(
            found, options.val_fraction, options.label_fraction, options.folds, options.fold, options.seed
        )
    warn_of_torn_groups(samples)
    require_labels(samples["train"] + samples["val"], options.targets)
    require_labels(samples["train"], around)
    return samples


def roi_target(options: Options) -> str | None:
    """The target around which --roi disc cuts; None for full photographs."""
    return CATALOGUE[options.dataset].disc if options.roi == "disc" else None


def files_of(samples: list[Sample]) -> list[Path]:
    """All files of these samples: photographs, labels, fields of view."""
    labels = [[label.path for label in sample.labels.values()] for sample in samples]
    files = [file for sample, drawn in zip(samples, labels, strict=True) for file in (sample.image, *drawn, sample.fov)]
    return [file for file in files if file]


def input_of(options: Options, samples: list[Sample]) -> NetworkInput:
    """How the network sees photographs: by --size, the data set's size, or the largest of the photographs."""
    settings = CATALOGUE[options.dataset]
    regions = options.roi == "disc" or samples[0].roi
    size = options.size or (settings.roi_size if regions else settings.size) or largest_side(samples)
    return NetworkInput(settings.fit, size, RECIPES[options.recipe].standardise)


def largest_side(samples: list[Sample]) -> int:
    """The least multiple of 32 that holds every photograph."""
    side = max(max(read_sample(sample).image.shape[1:]) for sample in samples)
    return -(-side // STRIDE) * STRIDE


def read_training_set(
    samples: list[Sample], options: Options, network_input: NetworkInput, device: torch.device
) -> list[TrainingPhotograph]:
    """Decoded once; few, so all live where the network is. Says how much is marked, and warns of what looks wrong.

    The masks are the labels of all targets, then, if values are to be ignored, what is ignored of each, then the field
    of view if the loss needs it.

    Raises:
        UserError: a label has no disc to put a region around.
    """
    photographs, census, disc = [], Census(options.target), roi_target(options)
    for sample in progress_bar(samples, "read", unit="photo", leave=False):
        photograph = read_sample(sample)
        census.add(sample, photograph)
        layers = [photograph.labels[target] for target in options.targets]
        if ignored_by(options.target):
            layers += [ignored(photograph, target) for target in options.targets]
        if "loss" in options.fov:
            layers.append(torch.from_numpy(photograph.field_of_view))
        image, masks = network_input.visible(photograph).to(device), torch.stack(layers).to(device)
        region = None
        if disc:
            region = disc_region(photograph.labels[disc].numpy())
            if region is None:
                raise UserError(f"the disc in the label of {sample.image} is missing or of no plausible size")
        else:
            if "crop" in options.fov:
                box = fov_region(photograph.field_of_view)
                image, masks = box.cut(image), box.cut(masks)
            image, masks = network_input.scale(image), network_input.scale(masks)
        photographs.append(TrainingPhotograph(sample.image, image, masks, region))
    for line in census.shares():
        print(line)
    for line in census.warnings():
        warn(line)
    return photographs


def ignored(photograph: Photograph, target: str) -> torch.Tensor:
    """(H, W) bool, where a pixel of this target's label does not count."""
    counted = photograph.counted(target)
    return torch.zeros_like(photograph.labels[target]) if counted is None else torch.from_numpy(~counted)
