"""The photographs of a training run: which train, validate and test, and those to train on, decoded and scaled."""

import math
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from DownStream.census import Census
from DownStream.data import INSTEAD_OF_LABELS, Photograph, evenly, make_split, read_sample, read_split, require_labels
from DownStream.fov import estimate_fov, fov_diameter
from DownStream.groups import warn_of_copies, warn_of_torn_groups, with_groups
from DownStream.masks import read_mask
from DownStream.options.train import Options
from DownStream.recipes import RECIPES
from DownStream.region import Region, disc_region
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Label, Sample
from DownStream.sources import disc_of, expected_targets, find_sets, fit_of, merged, names_of_sources
from DownStream.targets import ignored_by, leave_out_unlabelled
from DownStream.transforms import NetworkInput, TrainingPhotograph, round_up
from DualScaleNet.common.device import HELD, free_memory
from DualScaleNet.common.files import image_size, read_image, writing
from DualScaleNet.common.script import UserError, progress_bar, warn

MEASURED = 1024  # px, least longer side of the copy on which a field of view is measured
STATISTICS = 64  # photographs from which BatchNorm's statistics are taken


def split_samples(options: Options) -> dict[str, list[Sample]]:
    """Which samples train, validate and test, with all the labels that this needs.

    Raises:
        UserError: the data set or a label is not there, or nothing is left to train on.
    """
    disc = roi_target(options)
    around = [disc] if disc else []
    read = options.target + [name for name in around if name not in options.targets]
    sets = find_sets(options.dataset, options.data_dir, read, options.missing_labels)
    if options.groups:
        sets = [with_groups(found, options.groups) for found in sets]
    every = merged(sets)
    expected = expected_targets(options.dataset, every, options.targets)
    for source, targets in expected.items():
        if lacking := [target for target in options.targets if target not in targets]:
            print(f"{source} has no {' and no '.join(lacking)}: these count in no loss and no score on it")
    skips = options.missing_labels == "skip"
    if options.split_file:
        samples = read_split(options.split_file, every, options.label_fraction)
        samples = leave_out_unlabelled(samples, expected) if skips else samples
    else:
        sets = [leave_out_unlabelled(found, expected) for found in sets] if skips else sets
        samples = merged([split_of(found, options) for found in sets])
    warn_of_torn_groups(samples)
    warn_of_copies(samples)
    require_labels(samples["train"] + samples["val"], expected, INSTEAD_OF_LABELS)
    require_labels(samples["train"], dict.fromkeys(expected, around), INSTEAD_OF_LABELS)
    return samples


def split_of(found: dict[str, list[Sample]], options: Options) -> dict[str, list[Sample]]:
    """Which samples of one data set train, validate and test."""
    fold = int(options.fold)  # train_folds has named each of all
    return make_split(found, options.val_fraction, options.label_fraction, options.folds, fold, options.seed)


def roi_target(options: Options) -> str | None:
    """The target around which --roi disc cuts, which every set has; None for full photographs."""
    return disc_of(options.dataset) if options.roi == "disc" else None


def files_of(samples: list[Sample]) -> list[Path]:
    """All files of these samples: photographs, labels, fields of view."""
    labels = [[label.path for label in sample.labels.values()] for sample in samples]
    files = [file for sample, drawn in zip(samples, labels, strict=True) for file in (sample.image, *drawn, sample.fov)]
    return [file for file in files if file]


def input_of(options: Options, samples: list[Sample]) -> NetworkInput:
    """How the network sees photographs: at which size, or with which diameter of the field of view.

    --diameter, --size or the data set decide; what they leave open follows from the photographs.
    """
    settings, recipe = CATALOGUE[options.dataset[0]], RECIPES[options.recipe]
    if options.roi == "disc" or samples[0].roi:
        return NetworkInput("resize", options.size or settings.roi_size, recipe.standardise)
    size, fit = options.size or settings.size, fit_of(options.dataset, options.size)
    if size and fit != "pad":
        squeezed = not recipe.scale or "crop" in options.fov
        return NetworkInput("resize" if squeezed else fit, size, recipe.standardise)
    with ThreadPoolExecutor() as pool:
        measured = list(progress_bar(pool.map(measure, samples), "measure", len(samples), leave=False))
    sides, diameters = zip(*measured, strict=True)
    measurable = {sample.source for sample in samples}
    first_set = next(source for source in names_of_sources(options.dataset) if source in measurable)
    known = [each for each, sample in zip(diameters, samples, strict=True) if each and sample.source == first_set]
    diameter = options.diameter or (median(known) if known and recipe.scale else None)
    network_input = NetworkInput("pad", 0, recipe.standardise, diameter)
    factors = [network_input.factor(each) for each in diameters]
    if changed := sum(factor != 1 for factor in factors):
        print(f"brought to a field of view of {diameter:.0f} px: {changed} of {len(samples)} photographs are resized")
    scaled = [network_input.scaled(rows, columns, f) for (rows, columns), f in zip(sides, factors, strict=True)]
    size = size if len(options.dataset) == 1 or options.size else None  # one set's own size may be too small for others
    return replace(network_input, size=size or round_up(max(map(max, scaled))))


def default_epochs(options: Options, photographs: int) -> int:
    """How often the recipe passes over so many photographs: its steps, in whole epochs."""
    return max(1, (RECIPES[options.recipe].steps or 0) // math.ceil(photographs / options.batch_size))


def stays_upright(options: Options, samples: list[Sample]) -> bool:
    """Whether photographs are turned but little in training: ROIs around the disc, if the recipe says so."""
    return RECIPES[options.recipe].upright_roi and (options.roi == "disc" or samples[0].roi)


def measure(sample: Sample) -> tuple[tuple[int, int], float | None]:
    """Height and width of a photograph, and the diameter of its field of view or None, in pixels.

    Raises:
        UserError: a file cannot be read.
    """
    height, width = image_size(sample.image)
    width //= 1 + sample.stereo
    mask = read_mask(Label(sample.fov)).marked if sample.fov else None
    if mask is None or not mask.any():
        small = read_image(sample.image, bits=sample.bits, least=MEASURED)
        mask = estimate_fov(small[:, : small.shape[1] // (1 + sample.stereo)])
    diameter = fov_diameter(mask)
    return (height, width), diameter and diameter * width / mask.shape[1]


def read_training_set(
    samples: list[Sample],
    options: Options,
    network_input: NetworkInput,
    device: torch.device,
    census: Census | None = None,
) -> list[TrainingPhotograph]:
    """Decoded and scaled once. They live where the network is if they fit there, else in a file in the run's folder.

    Says how much is marked, and warns of what looks wrong.

    Args:
        census: which then has counted the masks.

    Raises:
        UserError: a label has no disc to put a region around, or there is no room for the file.
    """
    photographs: list[TrainingPhotograph] = []
    census, file = census or Census(options.target), None
    ignoring = bool(ignored_by(options.target)) or any(
        target not in sample.labels for sample in samples for target in options.targets
    )
    room = HELD * free_memory(device)
    for number, sample in enumerate(progress_bar(samples, "read", unit="photo", leave=False), 1):
        photograph = read_training_photograph(sample, options, network_input, census, ignoring)
        size = photograph.image.nbytes + photograph.masks.nbytes
        room -= size
        photographs.append(photograph.to(device))
        if file or room < (len(samples) - number) * size:  # the others are expected to be as large
            file = file or PhotographFile(options.run_dir)
            for each in photographs:
                file.write(each)
            photographs.clear()
    for line in census.shares():
        print(line)
    for line in census.warnings():
        warn(line)
    return file.photographs() if file else photographs


def ignored(photograph: Photograph, target: str) -> torch.Tensor:
    """(H, W) bool, where a pixel of this target's label does not count: nowhere, or everywhere without a label."""
    counted = photograph.counted(target)
    if counted is None:
        return torch.full(photograph.image.shape[1:], target not in photograph.labels)
    return torch.from_numpy(~counted)


class PhotographFile:
    """A file without a name in `folder`, which ends with the process, for photographs that the memory does not hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[tuple[Path, Region | None, tuple[int, ...], tuple[int, ...]]] = []
        with writing(folder):
            self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it stays open)

    def write(self, photograph: TrainingPhotograph) -> None:
        """Appends a photograph.

        Raises:
            UserError: the disk is full.
        """
        image, masks = photograph.image, photograph.masks
        with writing(self.folder):
            for pixels in (image, masks):
                self.file.write(np.ascontiguousarray(pixels.cpu().numpy()).data)
            self.file.flush()
        self.written.append((photograph.path, photograph.region, tuple(image.shape), tuple(masks.shape)))

    def photographs(self) -> list[TrainingPhotograph]:
        """The photographs that were written; their pixels are read when they are used."""
        pixels, start, photographs = torch.from_numpy(np.memmap(self.file, mode="r+")), 0, []
        for path, region, image, masks in self.written:
            middle = start + math.prod(image)
            end = middle + math.prod(masks)
            drawn = pixels[middle:end].view(masks).view(torch.bool)
            photographs.append(TrainingPhotograph(path, pixels[start:middle].view(image), drawn, region))
            start = end
        return photographs


def for_statistics(photographs: list[TrainingPhotograph], network_input: NetworkInput) -> Iterator[torch.Tensor]:
    """Yields what the network sees of the photographs, (3, H, W) uint8; of many, 64 evenly chosen ones."""
    for photograph in evenly(photographs, STATISTICS):
        region = photograph.region
        yield network_input.scale(region.cut(photograph.image)) if region else photograph.image


def read_training_photograph(
    sample: Sample, options: Options, network_input: NetworkInput, census: Census, ignoring: bool = False
) -> TrainingPhotograph:
    """A photograph and its masks at the network's scale; for an ROI around the disc at native size.

    The masks are the labels of all targets, then, if anything is to be ignored, what is of each, then the field of view
    if the loss needs it.

    Raises:
        UserError: the label has no disc to put a region around.
    """
    photograph, disc = read_sample(sample), roi_target(options)
    census.add(sample, photograph)
    nothing = torch.zeros(photograph.image.shape[1:], dtype=torch.bool)
    layers = [photograph.labels.get(target, nothing) for target in options.targets]
    if ignoring:
        layers += [ignored(photograph, target) for target in options.targets]
    if "loss" in options.fov:
        layers.append(torch.from_numpy(photograph.field_of_view))
    image, masks = network_input.visible(photograph), torch.stack(layers)
    if disc:
        region = disc_region(photograph.labels[disc].numpy(), photograph.image[1].numpy())
        if region is None:
            raise UserError(f"the disc in the label of {sample.image} is missing or of no plausible size")
        return TrainingPhotograph(sample.image, image, masks, region)
    box, factor = network_input.region(photograph, "crop" in options.fov), network_input.factor_of(photograph)
    image, masks = (network_input.scale(box.cut(x), factor) for x in (image, masks))
    return TrainingPhotograph(sample.image, image, masks)
