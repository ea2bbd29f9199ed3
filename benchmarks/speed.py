"""How fast the scripts are beside the method written down literally (reference.py), and what they cost as data grows.

    python benchmarks/speed.py                      # everything
    python benchmarks/speed.py --only input step    # some of the tables
    python benchmarks/speed.py --quick              # tiny sizes, some minutes: that it runs, not how fast

With --device cuda --repeats 2 each of these parts should fit three minutes: --only ceiling operations step decoder;
--only input epoch; --only processes augmentation batch; --only scoring photographs; --only labelled prediction;
--only memory; --only width.

Both sides take turns in one process, the best of --repeats counts. Prints Markdown tables row by row, and writes them
to speed.md and speed.json as they come. A table that fails says why, the others go on, and the exit code is 1. The
photographs are drawn (Dataset/fundus.py) into a temporary folder, so TMPDIR decides what disk is measured.
scikit-learn is in requirements-dev.txt.
"""
# ruff: noqa: E402

import argparse
import csv
import functools
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import evaluation, reference
from benchmarks.bench import CPU, GPU, QUICK, Bench, Row, Step, Table, freed_memory, machine, memory, reason
from DownStream.inference import Predictor
from DownStream.loss import binary_cross_entropy
from DownStream.model import DECODERS, Segmenter
from DownStream.prediction import predict_all
from DownStream.results import Results
from DownStream.sets.base import Sample
from DownStream.training_set import PhotographFile
from DownStream.transforms import NetworkInput, TrainingPhotograph, training_batch
from DualScaleNet import main as pretraining
from DualScaleNet.common.device import autocast, seeded_generator, select_device, training_layout
from DualScaleNet.common.files import write_json
from DualScaleNet.common.options import HelpFormatter, positive_int
from DualScaleNet.common.run import Position
from DualScaleNet.common.script import UserError, run_script
from DualScaleNet.data import batches, hold
from DualScaleNet.encoder import Encoder
from DualScaleNet.loss import global_loss, local_loss
from DualScaleNet.model import DualScaleNet, Embeddings
from DualScaleNet.pretrain import Pretraining, train_one_epoch
from DualScaleNet.views import global_views, local_views

RECIPES = ("release", "paper")

# What is raced


def read_epoch(photographs: np.ndarray | Tensor, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Yields the batches of one epoch as main.py reads them, (batch, 3, H, W) in [0, 1]."""
    order = torch.randperm(len(photographs), generator=seeded_generator(0, 0)).numpy()
    members = [np.sort(order[first : first + batch]) for first in range(0, len(order), batch)]
    for images in batches(photographs, members, device):
        yield images.permute(0, 3, 1, 2).float() / 255


def our_input(photographs: np.ndarray | Tensor, recipe: str, batch: int, device: torch.device) -> None:
    """The views of one epoch, as main.py draws them."""
    for step, images in enumerate(read_epoch(photographs, batch, device)):
        drawn_views(images, recipe, seeded_generator(0, 0, step, 0))


def drawn_views(images: Tensor, recipe: str, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(x, y, whole) as the network takes them; images (N, 3, H, W) in [0, 1]."""
    return *local_views(images, generator), global_views(images, generator, crop=recipe == "paper")


def reference_input(bench: Bench, paths: list[Path], recipe: str, workers: int, step: Callable | None = None) -> None:
    """The views of one epoch on the device, and a step with each batch if one is given."""
    for batch in reference.loader(paths, bench.sizes.side, recipe, bench.sizes.batch, workers):
        views = [[view.to(bench.device) for view in group] for group in batch]
        if step:
            step(*views)


def reference_epoch(bench: Bench, paths: list[Path], recipe: str, step: Callable | None = None) -> tuple[Step, float]:
    """`reference_input` with its workers, and its work; a single batch if there is room for none of them."""
    paths = paths if bench.workers else paths[: bench.sizes.batch]
    return functools.partial(reference_input, bench, paths, recipe, bench.workers, step), len(paths)


def pretraining_side(
    recipe: str, precision: str | None, batch: int, side: int, device: torch.device, accumulate: int = 1, **own: bool
) -> Step:
    """A step of pretraining on views that are there; of the reference without a precision. `own`: the network's."""
    model, optimizer = new_network(recipe, precision is not None, device, **own)
    generator = seeded_generator(0)
    images = torch.rand(batch, 3, side, side, generator=generator).to(device)
    views = drawn_views(images, recipe, generator)
    if precision is None:
        x, y, whole = ([view.contiguous() for view in group.unbind(1)] for group in views)
        return functools.partial(reference.pretraining_step, model, optimizer, x, y, whole)

    def step() -> None:
        """As in main.py."""
        optimizer.zero_grad()
        for part in zip(*(each.chunk(accumulate) for each in views), strict=True):
            (pretraining_loss(model, part, precision) / accumulate).backward()
        optimizer.step()

    return step


def pretraining_loss(model: DualScaleNet, views: tuple[Tensor, ...], precision: str) -> Tensor:
    """As in main.py."""
    with autocast(views[0].device, precision):
        embeddings = Embeddings(*(vectors.float() for vectors in model(*views)))
    return 0.5 * global_loss(*embeddings[2:]) + 0.5 * local_loss(*embeddings[:2]).total


def parts_of_step(
    recipe: str, model: DualScaleNet, optimizer: torch.optim.Optimizer, images: Tensor
) -> Iterator[str]:
    """A step of pretraining as in main.py, though but two photographs pass. Yields each part's name when it is done."""
    optimizer.zero_grad()
    views = drawn_views(images, recipe, seeded_generator(0))
    yield "augmentation"
    loss = pretraining_loss(model, tuple(each[:2] for each in views), "auto")
    yield "forward"
    loss.backward()
    yield "backward"
    optimizer.step()
    yield "Adam"


def new_network(
    recipe: str, ours: bool, device: torch.device, **own: bool
) -> tuple[DualScaleNet, torch.optim.Optimizer]:
    """The same weights for both sides, and Adam. As main.py makes it for the device, but for what `own` says."""
    torch.manual_seed(0)
    own = {"one_pass": device.type != "cpu", **own}
    model = DualScaleNet("bottleneck18", recipe == "paper", ours, **own)
    model.to(device).train()
    return model, torch.optim.Adam(model.parameters(), 1e-3, fused=ours)


def our_epoch(photographs: np.ndarray, recipe: str, precision: str, batch: int, device: torch.device) -> Step:
    """main.py's own epoch, with its defaults."""
    command = ["main.py", "--recipe", recipe, "--precision", precision, "--batch-size", str(batch)]
    with mock.patch.object(sys, "argv", command):
        options = pretraining.parse_args()
    model, optimizer = new_network(recipe, True, device)
    run = Unsaved(options, model, optimizer, [Path()] * len(photographs))
    held = hold(photographs, device)

    def epoch() -> None:
        run.start_at(Position())
        train_one_epoch(run, model, held)

    return epoch


class Unsaved(Pretraining):
    """A run without a folder."""

    def save_if_due(self, now: bool = False) -> None:
        """Saves nothing."""


def segmentation_side(precision: str | None, frozen: bool, side: int, device: torch.device) -> Step:
    """A step of segmentation on one photograph; of the reference without a precision."""
    torch.manual_seed(0)
    model = Segmenter(Encoder(), frozen=frozen).to(device).train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, 1e-3, weight_decay=1e-6, fused=precision is not None)
    images, labels = torch.rand(1, 3, side, side, device=device), torch.ones(1, 1, side, side, device=device)
    if precision is None:
        return functools.partial(reference.segmentation_step, model, optimizer, images, labels)
    layout = training_layout(device, precision)
    model.to(memory_format=layout)
    images = images.contiguous(memory_format=layout)

    def step() -> None:
        """As in train.py."""
        with autocast(device, precision):
            logits = model(images)
        loss = binary_cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


# The tables


def compared(rates: dict[str, float], unit: str, target: float | None, **columns: str | int) -> list[Row]:
    """A row a side; the first is the reference, ours has the target beside it."""
    first = next(iter(rates.values()))
    return [
        {
            **columns, "side": name, unit: rate, "times the reference": rate / first,
            "target, at least": target if name.startswith("ours") else None,
        }
        for name, rate in rates.items()
    ]  # fmt: skip


def table_ceiling(bench: Bench, table: Table) -> None:
    """What the machine can do at most."""
    for name, rate in bench.ceilings.items():
        copy = name == "copy"
        kind = "memory copy" if copy else f"matrix product of {bench.sizes.matrix}, {name}"
        unit = "GB/s, read and written" if copy else "TFLOP/s"
        table.add({"": kind, "rate": rate / (1e9 if copy else 1e12), "unit": unit})
    if bench.device.type == "cuda":
        table.notes.append("On this GPU float32 means TF32 here, as convolutions take it.")


def table_operations(bench: Bench, table: Table) -> None:
    """What the host has to start for a step of pretraining: on a GPU it, not the arithmetic, may set the pace."""
    for recipe in RECIPES:
        model, optimizer = new_network(recipe, True, bench.device, one_pass=True)
        images = torch.rand(64, 3, 96, 96, generator=seeded_generator(0)).to(bench.device)
        list(parts_of_step(recipe, model, optimizer, images))  # Adam makes its moments in its first step
        with Dispatched() as dispatched:
            counts = {part: dispatched.take() for part in parts_of_step(recipe, model, optimizer, images)}
        table.add({"recipe": recipe, **counts, "step": sum(counts.values())})
    table.notes.append(
        "Operations dispatched in a step, without those that only look at a tensor in another way. All views pass at "
        "once, as on a GPU, in the precision that --precision auto takes. They are drawn of 64 photographs of 96 px, "
        "two of which then pass: from there on no count depends on the size."
    )


def table_input(bench: Bench, table: Table) -> None:
    """Photographs a second from the disk to the views on the device."""
    sizes = bench.sizes
    paths = cycled(bench.files, sizes.read)
    for recipe in RECIPES:
        photographs = hold(bench.cached(paths, recipe), bench.device)
        sides: dict[str, tuple[Step, float]] = {
            f"reference, {bench.workers} workers": reference_epoch(bench, paths, recipe),
            "reference, no workers": (
                functools.partial(reference_input, bench, paths[: sizes.batch], recipe, 0), sizes.batch,
            ),
            "ours": (functools.partial(our_input, photographs, recipe, sizes.batch, bench.device), len(paths)),
            "decoding once": (functools.partial(bench.cached, bench.files, recipe), len(bench.files)),
        }  # fmt: skip
        table.add(*compared(bench.race(sides, warm_up=False), "photographs/s", bench.target("input"), recipe=recipe))
    width, height = sizes.photograph
    table.notes += [
        f"An epoch of {len(paths)} JPEGs of {width} x {height}, the start of the workers included, to views of "
        f"{sizes.side} px on the device. Decoding once is what ours spends before its first epoch ever.",
        *bench.few_workers,
    ]


def table_step(bench: Bench, table: Table) -> None:
    """A step of pretraining with its views at hand, and how near the machine's ceiling it comes."""
    sizes, fastest = bench.sizes, list(bench.precisions.values())[-1]
    for recipe in RECIPES:
        steps = {
            name: pretraining_side(recipe, precision, sizes.batch, sizes.side, bench.device)
            for name, precision in bench.precisions.items()
        }
        one_pass = bench.device.type == "cpu"  # the way that main.py does not go here
        other = f"with {'all views in one pass' if one_pass else 'one view after the other'}"
        steps[other] = pretraining_side(recipe, fastest, sizes.batch, sizes.side, bench.device, one_pass=one_pass)
        work = {name: arithmetic(step) for name, step in steps.items()}
        rates = bench.race({name: (step, sizes.batch) for name, step in steps.items()}, bench.device.type == "cuda")
        rows = compared(rates, "photographs/s", bench.target(f"step {recipe}"), recipe=recipe)
        for name, row in zip(rates, rows, strict=True):
            speed = work[name] * rates[name] / sizes.batch
            share = speed / bench.ceilings[bench.precisions.get(name, fastest) or "float32"]
            row |= {"GFLOP a photograph": work[name] / sizes.batch / 1e9, "TFLOP/s": speed / 1e12}
            row |= {"of the matrix product": share}
            row |= {"target share": bench.precisions.get(name) and bench.target("ceiling")}
            table.add(row)
    table.notes.append(
        f"Batch {sizes.batch} of {sizes.side} px. The reference passes the whole-image views twice, hence more "
        f"operations; the share is that of the matrix product in the same precision. {other.capitalize()}: {fastest}."
    )


def table_epoch(bench: Bench, table: Table) -> None:
    """An epoch from the files, or our cache of them, to the last step."""
    sizes = bench.sizes
    paths = cycled(bench.files, sizes.batch * sizes.steps)
    for recipe in RECIPES:
        step = functools.partial(reference.pretraining_step, *new_network(recipe, False, bench.device))
        photographs = bench.cached(paths, recipe)
        sides = {
            name: (our_epoch(photographs, recipe, precision, sizes.batch, bench.device), len(paths))
            if precision
            else reference_epoch(bench, paths, recipe, step)
            for name, precision in bench.precisions.items()
        }
        table.add(*compared(bench.race(sides, warm_up=False), "photographs/s", bench.target("epoch"), recipe=recipe))
    table.notes += [f"{sizes.steps} steps of {sizes.batch}; the cache is there already.", *bench.few_workers]


def table_augmentation(bench: Bench, table: Table) -> None:
    """The segmentation network's batches, from decoded photographs."""
    size = evaluation.WIDTH, evaluation.HEIGHT
    image = cv2.resize(bench.eyes[0], size)
    label = image[..., 1] > 127
    pictures = Image.fromarray(image), Image.fromarray(label)
    tensors = torch.from_numpy(image).permute(2, 0, 1).to(bench.device), torch.from_numpy(label)[None].to(bench.device)
    network_input, generator = NetworkInput("pad", bench.sizes.whole), seeded_generator(0)
    for crop, batch in ((bench.sizes.crop, 4), (bench.sizes.crop, 16), (None, 1)):

        def theirs(crop: int | None = crop, batch: int = batch) -> None:
            pairs = [reference.augmented(*pictures, crop) for _ in range(batch)]
            for each in zip(*pairs, strict=True):
                torch.stack(each).to(bench.device)

        photographs = [TrainingPhotograph(Path(), *tensors)] * batch
        ours = functools.partial(training_batch, photographs, network_input, crop, False, generator)
        rates = bench.race({"reference": (theirs, batch), "ours": (ours, batch)})
        table.add(*compared(rates, "photographs/s", None, crop=f"{crop} px" if crop else "none", batch=batch))
    table.notes.append(
        f"Photographs of {size[0]} x {size[1]}. The reference turns each as a whole, on the CPU, and then cuts."
    )


def table_labelled(bench: Bench, table: Table) -> None:
    """An epoch of segmentation's batches, from photographs in memory and from a file."""
    crop, batch, count = bench.sizes.crop, 16, bench.sizes.labelled
    eyes = [torch.from_numpy(eye).permute(2, 0, 1) for eye in bench.eyes]
    held = [TrainingPhotograph(Path(), eyes[k % 4].clone(), eyes[k % 4][:1] > 127) for k in range(count)]
    file = PhotographFile(bench.folder)
    for photograph in held:
        file.write(photograph)
    network_input, generator = NetworkInput("pad", bench.sizes.whole), seeded_generator(0)

    def epoch(photographs: list[TrainingPhotograph]) -> None:
        for first in range(0, count, batch):
            training_batch(photographs[first : first + batch], network_input, crop, False, generator, bench.device)

    sets = {"in memory": [each.to(bench.device) for each in held], "in a file": file.photographs()}
    rates = bench.race({name: (functools.partial(epoch, each), count) for name, each in sets.items()})
    row: Row = {f"{name}, photographs/s": rate for name, rate in rates.items()}
    table.add(row | {"ratio": rates["in a file"] / rates["in memory"]})
    width, height = bench.sizes.photograph
    table.notes.append(f"Crops of {crop} px, batch {batch}, from {count} photographs of {width} x {height}.")


def table_prediction(bench: Bench, table: Table) -> None:
    """predict.py's work on folders: decoding, field of view, network, writing. It must not grow or slow."""
    sizes = bench.sizes
    drive = evaluation.WIDTH, evaluation.HEIGHT
    folders = [(drive, sizes.predicted), (sizes.photograph, max(2, sizes.predicted // 5))]
    folders += [((96, 96), count) for count in sizes.folders]
    for (width, height), count in folders:
        paths = cycled(bench.write_files(4, (width, height)), count)
        out = Path(tempfile.mkdtemp(dir=bench.folder))
        figures = evaluation.apart(measure_prediction, paths, out, str(bench.device))
        table.add({"photographs": count, "pixels": f"{width} x {height}"} | figures)
    table.notes.append(
        "A network for vessels, float32; windows above 1.5 million pixels. The anonymous memory is the process's own."
    )


def table_decoder(bench: Bench, table: Table) -> None:
    """A step of segmentation."""
    sides = {name: (precision, precision is not None) for name, precision in bench.precisions.items()}
    sides["ours, float32, --finetune"] = "float32", False
    built = {name: (segmentation_side(*side, bench.sizes.whole, bench.device), 1) for name, side in sides.items()}
    rows = compared(bench.race(built), "photographs/s", bench.target("decoder"))
    rows[-1]["target, at least"] = None
    table.add(*rows)
    table.notes.append(
        f"One photograph of {bench.sizes.whole} px. The reference trains the encoder too; ours freezes it unless told "
        "to --finetune."
    )


def table_scoring(bench: Bench, table: Table) -> None:
    """All measures of DRIVE's test photographs, pooled."""
    count = bench.sizes.scored
    pixels = evaluation.pixels_of(count * evaluation.HEIGHT * evaluation.WIDTH)
    sides = {"reference": reference.scores, "scikit-learn alone": evaluation.sklearn_scores}
    sides["ours"] = evaluation.our_scores
    measures = {}

    def score(name: str) -> None:
        measures[name] = sides[name](*pixels)

    rates = bench.race({name: (functools.partial(score, name), count) for name in sides}, warm_up=False)
    difference = max(abs(measures["ours"][name] - value) for name, value in measures["reference"].items())
    table.add(*compared(rates, "photographs/s", bench.target("scoring")))
    table.notes.append(
        f"{count} photographs of {evaluation.WIDTH} x {evaluation.HEIGHT}. The reference takes areas from scikit-learn "
        "and counts in a Python loop over all pixels. The largest difference of any measure is "
        f"{difference:.1e}: ours rounds probabilities to 16 bits."
    )


def table_memory(bench: Bench, table: Table) -> None:
    """Peak memory of a step, each in a process of its own."""
    sizes, fastest = bench.sizes, list(bench.precisions.values())[-1]
    less: dict[str, dict[str, Any]] = {
        "--accumulate 2": {"accumulate": 2}, "--checkpoint-activations": {"checkpointing": True},
    }  # fmt: skip

    def add(step: str, side: str, build: Callable[..., Step]) -> None:
        table.add({"step": step, "side": side, "MB": evaluation.apart(peak_of_step, build, str(bench.device))})

    for recipe in RECIPES:
        for name, precision in bench.precisions.items():
            build = functools.partial(pretraining_side, recipe, precision, sizes.batch, sizes.side)
            add(f"pretraining, {recipe}", name, build)
        for option, own in less.items():
            build = functools.partial(pretraining_side, recipe, fastest, sizes.batch, sizes.side, **own)
            add(f"pretraining, {recipe}", f"... {option}", build)
    for name, precision in bench.precisions.items():
        build = functools.partial(segmentation_side, precision, precision is not None, sizes.whole)
        add("segmentation", name, build)
    what = "All that is allocated on the GPU." if bench.device.type == "cuda" else "What the step adds to the process."
    table.notes.append(
        f"Batch {sizes.batch} of {sizes.side} px, and one photograph of {sizes.whole} px; with options in {fastest}. "
        f"{what}"
    )


def table_photographs(bench: Bench, table: Table) -> None:
    """An epoch's reading from caches of more and more photographs: memory must not grow with them."""
    for count in bench.sizes.counts:
        path = bench.folder / "cache.npy"
        write_cache(path, count, bench.sizes.side)
        table.add(evaluation.apart(measure_reading, path, bench.sizes.batch, str(bench.device)))
        path.unlink()
    table.notes.append(
        "Anonymous memory is the process's own, without pages of the cache file, which the system drops at need. It "
        "holds an order of 8 bytes a photograph."
    )


def table_width(bench: Bench, table: Table) -> None:
    """Larger files: once cached, an epoch does not depend on them."""
    sizes = bench.sizes
    for width in sizes.widths:
        files = bench.write_files(8, (width, width * 3 // 4))
        paths = cycled(files, sizes.batch)
        photographs = bench.cached(paths, "paper")
        sides: dict[str, tuple[Step, float]] = {
            "reference, input without workers": (
                functools.partial(reference_input, bench, paths, "paper", 0), len(paths),
            ),
            "ours, decoding once": (functools.partial(bench.cached, files, "paper"), len(files)),
        }  # fmt: skip
        epoch = our_epoch(photographs, "paper", "auto", sizes.batch, bench.device), len(paths)
        rates = bench.race(sides, warm_up=False) | bench.race({"ours, epoch": epoch})
        table.add({"width, px": width, **{f"{name}, photographs/s": rate for name, rate in rates.items()}})
    table.notes.append(f"An epoch of one step of {sizes.batch}, recipe paper.")


def table_batch(bench: Bench, table: Table) -> None:
    """Larger batches, as far as the reference's memory goes."""
    table.notes.append("A step of pretraining, recipe paper.")
    smallest, side = bench.sizes.batches[0], bench.sizes.side
    literal = functools.partial(pretraining_side, "paper", None, smallest, side)
    each = evaluation.apart(peak_of_step, literal, str(bench.device)) / smallest
    for batch in bench.sizes.batches:
        free = freed_memory(bench.device)
        if batch * each > 0.8 * free:
            needed = f"the reference needs {batch * each:,.0f} of {free:,.0f} MB free"
            table.notes.append(f"Batch {batch} is left out: {needed}.")
            continue
        sides = {
            name: (pretraining_side("paper", precision, batch, side, bench.device), batch)
            for name, precision in bench.precisions.items()
        }
        rates = bench.race(sides, bench.device.type == "cuda")
        table.add(*compared(rates, "photographs/s", bench.target("step paper"), batch=batch))


def table_processes(bench: Bench, table: Table) -> None:
    """main.py under torchrun, the same batch shared by more processes; on a CPU each has one thread."""
    photographs = bench.folder / "photographs"
    photographs.mkdir()
    for k, path in enumerate(cycled(bench.files, bench.sizes.batch * bench.sizes.steps)):
        (photographs / f"{k:04d}.jpg").symlink_to(path)
    most = torch.cuda.device_count() if bench.device.type == "cuda" else 2
    first = None
    for count, option in [(count, "") for count in sorted({1, most})] + [(most, "--batch-norm=synchronised")]:
        rate = trained_rate(bench, photographs, count, *option.split())
        first = first or rate
        table.add({"processes": count, "": option, "photographs/s": rate, "times one process": rate / first})
    table.notes.append(f"A batch of {bench.sizes.batch} in all; the fastest epoch of {bench.repeats + 1}.")


def trained_rate(bench: Bench, photographs: Path, processes: int, *options: str) -> float:
    """Photographs a second of the fastest epoch of a run of main.py."""
    run = Path(tempfile.mkdtemp(dir=bench.folder))
    arguments = {
        "data": photographs, "cache": bench.folder / "cache", "run-dir": run, "device": bench.device.type,
        "image-size": bench.sizes.side, "batch-size": bench.sizes.batch, "epochs": bench.repeats + 1,
    }  # fmt: skip
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", pretraining.__file__]
    command += [f"--{name}={value}" for name, value in arguments.items()]
    environment = os.environ | ({} if bench.device.type == "cuda" else {"OMP_NUM_THREADS": "1"})
    subprocess.run([sys.executable, *command, *options], check=True, env=environment, capture_output=True, text=True)
    with open(run / "log.csv", newline="") as file:
        return max(float(row["images_per_second"]) for row in csv.DictReader(file))


TABLES: dict[str, tuple[str, Callable[[Bench, Table], None]]] = {
    "ceiling": ("The machine's ceiling", table_ceiling),
    "operations": ("Operations of a step of pretraining", table_operations),
    "input": ("Input alone", table_input),
    "step": ("A step of pretraining", table_step),
    "epoch": ("A whole epoch", table_epoch),
    "processes": ("More processes", table_processes),
    "augmentation": ("Augmentation of segmentation", table_augmentation),
    "labelled": ("Labelled photographs in memory and in a file", table_labelled),
    "decoder": ("A step of segmentation", table_decoder),
    "prediction": ("Prediction of a folder", table_prediction),
    "scoring": ("Scoring", table_scoring),
    "memory": ("Peak memory of a step", table_memory),
    "photographs": ("More photographs in the cache", table_photographs),
    "width": ("Larger photographs", table_width),
    "batch": ("Larger batches", table_batch),
}


# What they need


def cycled(files: list[Path], count: int) -> list[Path]:
    return [files[k % len(files)] for k in range(count)]


class Dispatched(TorchDispatchMode):
    """Counts the operations dispatched, backward ones too, but for those that only look at a tensor in another way."""

    count = 0

    def __torch_dispatch__(
        self, operation: torch._ops.OpOverload, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        self.count += not operation.is_view
        return operation(*args, **(kwargs or {}))

    def take(self) -> int:
        """Those since it was asked last."""
        count, self.count = self.count, 0
        return count


def arithmetic(step: Step) -> float:
    """Multiplications and additions of a step's products and convolutions, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def peak_of_step(build: Callable[..., Step], device: str) -> float:
    """MB of the first step; `build` makes it for a device."""
    step = build(device=torch.device(device))
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() / 1e6
    before = memory("VmRSS")
    step()
    # Not getrusage's: a process begins with the peak of the one that started it.
    return memory("VmHWM") - before


def write_cache(path: Path, count: int, side: int) -> None:
    """A file as DualScaleNet/data.py keeps it, of random photographs."""
    photographs = np.lib.format.open_memmap(path, "w+", np.uint8, (count, side, side, 3))
    some = np.random.default_rng(0).integers(0, 256, (100, side, side, 3), np.uint8)
    for first in range(0, count, len(some)):
        photographs[first : first + len(some)] = some[: count - first]


def measure_reading(path: Path, batch: int, device: str) -> Row:
    """The batches of one epoch from a cache."""
    photographs = np.load(path, mmap_mode="r")
    list(read_epoch(photographs[:batch], batch, torch.device(device)))  # what the first read alone takes
    before = peak = memory("RssAnon")
    started = time.perf_counter()
    for _ in read_epoch(photographs, batch, torch.device(device)):
        peak = max(peak, memory("RssAnon"))
    speed = len(photographs) / (time.perf_counter() - started)
    return {
        "photographs": len(photographs), "cache, MB": photographs.nbytes / 1e6, "read, photographs/s": speed,
        "anonymous memory before, MB": before, "at its peak, MB": peak, "pages of files, MB": memory("RssFile"),
    }  # fmt: skip


def measure_prediction(paths: list[Path], out: Path, device: str) -> Row:
    """A folder's prediction, after that of a few photographs."""
    model = Segmenter(Encoder(), shape=DECODERS["compact"]).to(device).to(memory_format=torch.channels_last)
    predictor = Predictor(model, NetworkInput("pad", 32, True))
    work = [(predictor, Sample(str(k), path)) for k, path in enumerate(paths)]
    predict_all(work[:2], Results(out, {"vessels": 0.5}, ["vessels"], by_diameter=False), None)
    before, started = memory("RssAnon"), time.perf_counter()
    predict_all(work, Results(out, {"vessels": 0.5}, ["vessels"], by_diameter=False), None)
    rate = len(work) / (time.perf_counter() - started)
    return {"photographs/s": rate, "memory before, MB": before, "after, MB": memory("RssAnon")}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--device", default="auto", help="Measure on this device: auto, cpu or cuda.")
    parser.add_argument(
        "--only", nargs="+", default=list(TABLES), choices=list(TABLES), metavar="NAME", help="Make these tables."
    )
    parser.add_argument("--quick", action="store_true", help="Take tiny sizes and one repeat, for some minutes.")
    parser.add_argument(
        "--large", action="store_true",
        help="Measure a cache of 100,000 photographs (15 GB) and a folder of 10,000 too.",
    )
    parser.add_argument("--repeats", type=positive_int, metavar="N", help="Keep the best of N times. Default: 3.")
    parser.add_argument(
        "--batch-size", type=positive_int, metavar="N",
        help="Pretrain with batches of N. Default: 16 on CPUs, 64 on GPUs.",
    )
    out = ROOT / "benchmarks" / "results"
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help="Write the results into this folder.")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = select_device(args.device)
    sizes = QUICK if args.quick else GPU if device.type == "cuda" else CPU
    if args.batch_size:
        sizes = replace(sizes, batch=args.batch_size)
    if args.large:
        sizes = replace(sizes, counts=(*sizes.counts, 100_000), folders=(*sizes.folders, 10_000))
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores, as the authors
    repeats = args.repeats or (1 if args.quick else 3)
    heading = f"{machine(device)} Best of {repeats}, in turns."
    if args.quick:
        heading += " Tiny sizes: no figure here is to be quoted."
    print(heading, end="\n\n", flush=True)
    content = {"machine": heading, "quick": args.quick, "repeats": repeats, "sizes": asdict(sizes)}
    tables: dict[str, Table] = {}
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, sizes, repeats, Path(folder))
        for name in args.only:
            tables[name] = fill(bench, name)
            (args.out / "speed.md").write_text("\n".join([heading, "", *map(str, tables.values())]))
            content["tables"] = {key: asdict(each) for key, each in tables.items()}
            write_json(args.out / "speed.json", content)
    if failed := [name for name, table in tables.items() if table.failure]:
        raise UserError(f"failed: {', '.join(failed)}; each table says why")


def fill(bench: Bench, name: str) -> Table:
    """The table, with its rows up to where it failed, if it did: that stops no other."""
    title, make = TABLES[name]
    table, started = Table(title), time.monotonic()
    try:
        freed_memory(bench.device)  # of what the table before it took
        make(bench, table)
    except Exception as error:
        table.failure = reason(error)
    table.close(time.monotonic() - started)
    return table


if __name__ == "__main__":
    run_script(main)
