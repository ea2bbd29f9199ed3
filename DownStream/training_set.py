"""The photographs of a training run: which train, validate and test, and those to train on, decoded and scaled."""

from pathlib import Path

import torch

from DownStream.data import make_split, read_sample, read_split, require_labels
from DownStream.options.train import Options
from DownStream.recipes import RECIPES
from DownStream.region import disc_region, fov_region
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample, with_common_bits
from DownStream.transforms import NetworkInput, TrainingPhotograph
from DualScaleNet.common.options import STRIDE
from DualScaleNet.common.script import UserError, progress_bar


def split_samples(options: Options) -> dict[str, list[Sample]]:
    """Which samples train, validate and test, with all the labels that this needs.

    Raises:
        UserError: the data set or a label is not there, or nothing is left to train on.
    """
    disc = roi_target(options)
    around = [disc] if disc else []
    wanted = list(dict.fromkeys([*options.target, *around]))
    found = with_common_bits(CATALOGUE[options.dataset].find(options.data_dir, wanted))
    if options.split_file:
        samples = read_split(options.split_file, found, options.label_fraction)
    else:
        samples = make_split(
            found, options.val_fraction, options.label_fraction, options.folds, options.fold, options.seed
        )
    require_labels(samples["train"] + samples["val"], options.target)
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
    """Decoded once; few, so all live where the network is. The field of view is the last mask if the loss needs it.

    Raises:
        UserError: a label has no disc to put a region around.
    """
    photographs, disc = [], roi_target(options)
    for sample in progress_bar(samples, "read", unit="photo", leave=False):
        photograph = read_sample(sample)
        layers = [photograph.labels[target] for target in options.target]
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
    return photographs
