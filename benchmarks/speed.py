"""How fast the scripts are beside the method written down literally (reference.py), and what they cost as data grows.

    python benchmarks/speed.py                      # everything
    python benchmarks/speed.py --only input step    # some of the tables
    python benchmarks/speed.py --quick              # tiny sizes, some minutes: that it runs, not how fast

Both sides take turns in one process, the best of --repeats counts. Prints Markdown tables, and writes them to speed.md
and speed.json as they come. The photographs are drawn (Dataset/fundus.py) into a temporary folder, so TMPDIR decides
what disk is measured. scikit-learn is in requirements-dev.txt.
"""
# ruff: noqa: E402

import argparse
import csv
import functools
import gc
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cv2
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks import evaluation, reference
from Dataset.fundus import draw_fundus
from Dataset.synthetic import write_jpeg
from DownStream.loss import binary_cross_entropy
from DownStream.model import Segmenter
from DownStream.transforms import NetworkInput, TrainingPhotograph, training_batch
from DualScaleNet import main as pretraining
from DualScaleNet.data import batches, hold, load_photographs
from DualScaleNet.encoder import Encoder
from DualScaleNet.files import write_json
from DualScaleNet.loss import global_loss, local_loss
from DualScaleNet.model import DualScaleNet, Embeddings
from DualScaleNet.options import HelpFormatter, positive_int
from DualScaleNet.runtime import (
    Progress,
    autocast,
    grad_scaler,
    resolve_precision,
    run_script,
    seeded_generator,
    select_device,
)
from DualScaleNet.views import global_views, local_views

RECIPES = ("release", "paper")
WORKERS = 8  # of the authors' DataLoader
# The sides of a step: None is the reference, which knows no other precision than float32.
PRECISIONS = {"reference": None, "ours, float32": "float32", "ours, bfloat16": "bfloat16"}
# What ours should reach on a CPU and on a GPU: times the reference; for the ceiling a share.
TARGETS = {
    "input": (15, 200), "step release": (1.6, 8), "step paper": (1.8, 8), "ceiling": (0.6, 0.15), "epoch": (2, 20),
    "decoder": (1.3, 3), "scoring": (20, 20),
}  # fmt: skip

Step = Callable[[], object]
Row = dict[str, str | int | float | None]


@dataclass(frozen=True)
class Sizes:
    """How much of everything is measured."""

    batch: int  # photographs a step of pretraining
    steps: int  # of an epoch of pretraining
    matrix: int
    copied: int  # bytes
    read: int = 576  # photographs an epoch of input alone, as many as the authors' batches of 64 take of 608
    side: int = 224
    files: int = 48
    photograph: tuple[int, int] = (2000, 1500)
    whole: int = 608  # what the segmentation network sees of DRIVE
    crop: int = 128
    scored: int = 20
    counts: tuple[int, ...] = (100, 1000, 10_000)
    widths: tuple[int, ...] = (500, 1000, 2000, 4000)
    batches: tuple[int, ...] = (8, 16, 32, 64)


CPU = Sizes(batch=16, steps=3, matrix=4096, copied=1 << 28)
GPU = Sizes(batch=64, steps=9, matrix=8192, copied=1 << 30)
QUICK = Sizes(
    batch=4, steps=2, matrix=512, copied=1 << 22, read=16, side=96, files=8, photograph=(320, 240), whole=96, scored=1,
    crop=64, counts=(100, 1000), widths=(100, 200), batches=(2, 4),
)  # fmt: skip


@dataclass
class Table:
    """Rows with the same columns, and what one must know to read them."""

    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        columns = list(self.rows[0])
        lines = [f"### {self.title}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [f"| {' | '.join(shown(row[column]) for column in columns)} |" for row in self.rows]
        return "\n".join([*lines, "", *self.notes, ""])


def shown(value: str | int | float | None) -> str:
    """Three digits of a number, all of those before the point."""
    if not isinstance(value, float):
        return "" if value is None else f"{value:,}" if isinstance(value, int) else value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass
class Bench:
    """Where, how much and how often is measured."""

    device: torch.device
    sizes: Sizes
    repeats: int
    folder: Path

    @functools.cached_property
    def eyes(self) -> list[np.ndarray]:
        """A few drawn photographs, which all files vary."""
        return [draw_fundus(np.random.default_rng(k), *self.sizes.photograph).image for k in range(4)]

    @functools.cached_property
    def files(self) -> list[Path]:
        return self.write_files(self.sizes.files, self.sizes.photograph)

    def write_files(self, count: int, size: tuple[int, int]) -> list[Path]:
        """JPEGs of the given width and height."""
        paths = [self.folder / f"{size[0]}-{k:03d}.jpg" for k in range(count)]
        for k, path in enumerate(paths):
            eye = self.eyes[k % 4][:: -1 if k & 4 else 1, :: -1 if k & 8 else 1]
            write_jpeg(path, np.ascontiguousarray(cv2.resize(eye, size)))
        return paths

    def cached(self, paths: list[Path], recipe: str) -> np.ndarray:
        """Decoded into a cache that did not exist."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return load_photographs(paths, self.sizes.side, recipe == "paper", folder).array

    def race(self, sides: dict[str, tuple[Step, float]], warm_up: bool = True) -> dict[str, float]:
        """Work a second of each side, given as (what to run, the work that this is): best of the repeats, in turns.

        Short runs are timed by the dozen. Without `warm_up` each turn is one run.
        """
        calls = dict.fromkeys(sides, 1)
        for name, (run, _) in sides.items() if warm_up else ():
            for _ in range(3 if self.device.type == "cuda" else 1):
                seconds = self.seconds(run, 1)
            calls[name] = max(1, math.ceil(0.3 / seconds))
        best = dict.fromkeys(sides, math.inf)
        for _ in range(self.repeats):
            for name, (run, _) in sides.items():
                best[name] = min(best[name], self.seconds(run, calls[name]))
        return {name: work / best[name] for name, (_, work) in sides.items()}

    def seconds(self, run: Step, calls: int) -> float:
        """Of a call, the mean of so many."""
        self.synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            run()
        self.synchronize()
        return (time.perf_counter() - started) / calls

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def target(self, name: str) -> float:
        return TARGETS[name][self.device.type == "cuda"]

    @functools.cached_property
    def ceilings(self) -> dict[str, float]:
        """What the machine can do: operations a second of a matrix product by precision, bytes a second of a copy."""
        sides: dict[str, tuple[Step, float]] = {}
        for name in ("float32", "bfloat16"):
            n, dtype = self.sizes.matrix, getattr(torch, name)
            a, b, out = torch.randn(3, n, n, device=self.device).to(dtype)
            sides[name] = functools.partial(torch.mm, a, b, out=out), 2.0 * n**3
        source = torch.ones(self.sizes.copied, dtype=torch.uint8, device=self.device)
        sides["copy"] = functools.partial(torch.empty_like(source).copy_, source), 2.0 * self.sizes.copied
        before = torch.get_float32_matmul_precision()
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, as convolutions take it by default
        rates = self.race(sides)
        torch.set_float32_matmul_precision(before)
        return rates


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
        generator = seeded_generator(0, 0, step, 0)
        local_views(images, generator)
        global_views(images, generator, crop=recipe == "paper")


def reference_input(bench: Bench, paths: list[Path], recipe: str, workers: int, step: Step | None = None) -> None:
    """The views of one epoch on the device, and a step with each batch if one is given."""
    for views in reference.loader(paths, bench.sizes.side, recipe, bench.sizes.batch, workers):
        views = [[view.to(bench.device) for view in group] for group in views]
        if step:
            step(*views)


def pretraining_side(
    recipe: str, precision: str | None, batch: int, side: int, device: torch.device, accumulate: int = 1, **own: bool
) -> Step:
    """A step of pretraining on views that are there; of the reference without a precision. `own`: the network's."""
    model, optimizer = new_network(recipe, precision is not None, device, **own)
    generator = seeded_generator(0)
    images = torch.rand(batch, 3, side, side, generator=generator).to(device)
    views = (*local_views(images, generator), global_views(images, generator, crop=recipe == "paper"))
    if precision is None:
        views = [[view.contiguous() for view in group.unbind(1)] for group in views]
        return functools.partial(reference.pretraining_step, model, optimizer, *views)

    def step() -> None:
        """As in main.py."""
        optimizer.zero_grad()
        for part in zip(*(each.chunk(accumulate) for each in views), strict=True):
            with autocast(device, precision):
                embeddings = Embeddings(*(vectors.float() for vectors in model(*part)))
            loss = 0.5 * global_loss(*embeddings[2:]) + 0.5 * local_loss(*embeddings[:2]).total
            (loss / accumulate).backward()
        optimizer.step()

    return step


def new_network(
    recipe: str, ours: bool, device: torch.device, **own: bool
) -> tuple[DualScaleNet, torch.optim.Optimizer]:
    """The same weights for both sides, and Adam. As main.py makes it for the device, but for what `own` says."""
    torch.manual_seed(0)
    own = {"one_pass": device.type != "cpu", **own}
    model = DualScaleNet(stop_gradient=recipe == "paper", per_view=ours, **own)
    model.to(device).train()
    return model, torch.optim.Adam(model.parameters(), 1e-3, fused=ours)


def our_epoch(photographs: np.ndarray, recipe: str, precision: str, batch: int, device: torch.device) -> Step:
    """main.py's own epoch, with its defaults."""
    options = ["main.py", "--recipe", recipe, "--precision", precision, "--batch-size", str(batch)]
    with mock.patch.object(sys, "argv", options):
        args = pretraining.parse_args()
    model, optimizer = new_network(recipe, True, device)
    held, scaler, bar = hold(photographs, device), grad_scaler(device, precision), tqdm(disable=True)

    def nothing(*_: object) -> None:
        """Saves nothing, names no files."""

    start = Progress(0)
    return lambda: pretraining.train_one_epoch(model, optimizer, scaler, held, args, start, nothing, nothing, bar)


def segmentation_side(precision: str | None, frozen: bool, side: int, device: torch.device) -> Step:
    """A step of segmentation on one photograph; of the reference without a precision."""
    torch.manual_seed(0)
    model = Segmenter(Encoder(), frozen=frozen).to(device).train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, 1e-3, weight_decay=1e-6, fused=precision is not None)
    images, labels = torch.rand(1, 3, side, side, device=device), torch.ones(1, 1, side, side, device=device)
    if precision is None:
        return functools.partial(reference.segmentation_step, model, optimizer, images, labels)
    model.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)

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


def table_ceiling(bench: Bench) -> Table:
    """What the machine can do at most."""
    what = {"float32": ("TFLOP/s", 1e12), "bfloat16": ("TFLOP/s", 1e12), "copy": ("GB/s, read and written", 1e9)}
    rows = []
    for name, rate in bench.ceilings.items():
        unit, scale = what[name]
        kind = "memory copy" if name == "copy" else f"matrix product of {bench.sizes.matrix}, {name}"
        rows.append({"": kind, "rate": rate / scale, "unit": unit})
    tf32 = ["On this GPU float32 means TF32 here, as convolutions take it."] if bench.device.type == "cuda" else []
    return Table("The machine's ceiling", rows, tf32)


def table_input(bench: Bench) -> Table:
    """Photographs a second from the disk to the views on the device."""
    sizes, rows = bench.sizes, []
    paths = cycled(bench.files, sizes.read)
    for recipe in RECIPES:
        photographs = hold(bench.cached(paths, recipe), bench.device)
        sides = {
            f"reference, {WORKERS} workers": (
                functools.partial(reference_input, bench, paths, recipe, WORKERS), len(paths),
            ),
            "reference, no workers": (
                functools.partial(reference_input, bench, paths[: sizes.batch], recipe, 0), sizes.batch,
            ),
            "ours": (functools.partial(our_input, photographs, recipe, sizes.batch, bench.device), len(paths)),
            "decoding once": (functools.partial(bench.cached, bench.files, recipe), len(bench.files)),
        }  # fmt: skip
        rows += compared(bench.race(sides, warm_up=False), "photographs/s", bench.target("input"), recipe=recipe)
    width, height = sizes.photograph
    return Table(
        "Input alone", rows,
        [f"An epoch of {len(paths)} JPEGs of {width} x {height}, the start of the workers included, to views of "
         f"{sizes.side} px on the device. Decoding once is what ours spends before its first epoch ever."],
    )  # fmt: skip


def table_step(bench: Bench) -> Table:
    """A step of pretraining with its views at hand, and how near the machine's ceiling it comes."""
    sizes, rows = bench.sizes, []
    for recipe in RECIPES:
        steps = {
            name: pretraining_side(recipe, precision, sizes.batch, sizes.side, bench.device)
            for name, precision in PRECISIONS.items()
        }
        one_pass = bench.device.type == "cpu"  # the way that main.py does not go here
        other = f"with {'all views in one pass' if one_pass else 'one view after the other'}"
        steps[other] = pretraining_side(recipe, "bfloat16", sizes.batch, sizes.side, bench.device, one_pass=one_pass)
        work = {name: operations(step) for name, step in steps.items()}
        rates = bench.race({name: (step, sizes.batch) for name, step in steps.items()}, bench.device.type == "cuda")
        for row in compared(rates, "photographs/s", bench.target(f"step {recipe}"), recipe=recipe):
            name = row["side"]
            speed = work[name] * rates[name] / sizes.batch
            share = speed / bench.ceilings[PRECISIONS.get(name, "bfloat16") or "float32"]
            row |= {"GFLOP a photograph": work[name] / sizes.batch / 1e9, "TFLOP/s": speed / 1e12}
            row |= {"of the matrix product": share, "target share": PRECISIONS.get(name) and bench.target("ceiling")}
            rows.append(row)
    return Table(
        "A step of pretraining", rows,
        [f"Batch {sizes.batch} of {sizes.side} px. The reference passes the whole-image views twice, hence more "
         "operations; the share is that of the matrix product in the same precision."],
    )  # fmt: skip


def table_epoch(bench: Bench) -> Table:
    """An epoch from the files, or our cache of them, to the last step."""
    sizes, rows = bench.sizes, []
    paths = cycled(bench.files, sizes.batch * sizes.steps)
    for recipe in RECIPES:
        step = functools.partial(reference.pretraining_step, *new_network(recipe, False, bench.device))
        photographs = bench.cached(paths, recipe)
        sides = {"reference": functools.partial(reference_input, bench, paths, recipe, WORKERS, step)}
        for precision in ("float32", "bfloat16"):
            sides[f"ours, {precision}"] = our_epoch(photographs, recipe, precision, sizes.batch, bench.device)
        rates = bench.race({name: (side, len(paths)) for name, side in sides.items()}, warm_up=False)
        rows += compared(rates, "photographs/s", bench.target("epoch"), recipe=recipe)
    return Table("A whole epoch", rows, [f"{sizes.steps} steps of {sizes.batch}; the cache is there already."])


def table_augmentation(bench: Bench) -> Table:
    """The segmentation network's batches, from decoded photographs."""
    size, rows = (evaluation.WIDTH, evaluation.HEIGHT), []
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
        rows += compared(rates, "photographs/s", None, crop=f"{crop} px" if crop else "none", batch=batch)
    return Table(
        "Augmentation of segmentation", rows,
        [f"Photographs of {size[0]} x {size[1]}. The reference turns each as a whole, on the CPU, and then cuts."],
    )  # fmt: skip


def table_decoder(bench: Bench) -> Table:
    """A step of segmentation."""
    sides = {
        "reference": (None, False), "ours, float32": ("float32", True), "ours, bfloat16": ("bfloat16", True),
        "ours, float32, --finetune": ("float32", False),
    }  # fmt: skip
    built = {name: (segmentation_side(*side, bench.sizes.whole, bench.device), 1) for name, side in sides.items()}
    rows = compared(bench.race(built), "photographs/s", bench.target("decoder"))
    rows[-1]["target, at least"] = None
    return Table(
        f"A step of segmentation, {bench.sizes.whole} px, batch 1", rows,
        ["The reference trains the encoder too; ours freezes it unless told to --finetune."],
    )  # fmt: skip


def table_scoring(bench: Bench) -> Table:
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
    return Table(
        f"Scoring {count} photographs of {evaluation.WIDTH} x {evaluation.HEIGHT}",
        compared(rates, "photographs/s", bench.target("scoring")),
        ["The reference takes areas from scikit-learn and counts in a Python loop over all pixels. The largest "
         f"difference of any measure is {difference:.1e}: ours rounds probabilities to 16 bits."],
    )  # fmt: skip


def table_memory(bench: Bench) -> Table:
    """Peak memory of a step, each in a process of its own."""
    sizes, cases = bench.sizes, []
    less = {"--accumulate 2": {"accumulate": 2}, "--checkpoint-activations": {"checkpointing": True}}
    for recipe in RECIPES:
        sides = [(name, precision, {}) for name, precision in PRECISIONS.items()]
        sides += [(f"... {option}", "bfloat16", options) for option, options in less.items()]
        for name, precision, options in sides:
            step = functools.partial(pretraining_side, recipe, precision, sizes.batch, sizes.side, **options)
            cases.append((f"pretraining, {recipe}", name, step))
    for name, precision in PRECISIONS.items():
        step = functools.partial(segmentation_side, precision, precision is not None, sizes.whole)
        cases.append(("segmentation", name, step))
    rows = [
        {"step": step, "side": name, "MB": evaluation.apart(peak_of_step, build, str(bench.device))}
        for step, name, build in cases
    ]
    what = "All that is allocated on the GPU." if bench.device.type == "cuda" else "What the step adds to the process."
    sides = f"Batch {sizes.batch} of {sizes.side} px, and one photograph of {sizes.whole} px. "
    return Table("Peak memory of a step", rows, [sides + what])


def table_photographs(bench: Bench) -> Table:
    """An epoch's reading from caches of more and more photographs: memory must not grow with them."""
    rows = []
    for count in bench.sizes.counts:
        path = bench.folder / "cache.npy"
        write_cache(path, count, bench.sizes.side)
        rows.append(evaluation.apart(measure_reading, path, bench.sizes.batch, str(bench.device)))
        path.unlink()
    return Table(
        "More photographs in the cache", rows,
        ["Anonymous memory is the process's own, without pages of the cache file, which the system drops at need. It "
         "holds an order of 8 bytes a photograph."],
    )  # fmt: skip


def table_width(bench: Bench) -> Table:
    """Larger files: once cached, an epoch does not depend on them."""
    sizes, inputs, decodings, epochs = bench.sizes, {}, {}, {}
    for width in sizes.widths:
        files = bench.write_files(8, (width, width * 3 // 4))
        paths = cycled(files, sizes.batch)
        photographs = bench.cached(paths, "paper")
        inputs[width] = functools.partial(reference_input, bench, paths, "paper", 0), len(paths)
        decodings[width] = functools.partial(bench.cached, files, "paper"), len(files)
        epochs[width] = our_epoch(photographs, "paper", "auto", sizes.batch, bench.device), len(paths)
    rates = [bench.race(sides, warm_up=sides is epochs) for sides in (inputs, decodings, epochs)]
    names = ("reference, input without workers", "ours, decoding once", "ours, epoch")
    rows = [
        {"width, px": width, **{f"{name}, photographs/s": rate[width] for name, rate in zip(names, rates, strict=True)}}
        for width in sizes.widths
    ]
    return Table("Larger photographs", rows, [f"An epoch of one step of {sizes.batch}, recipe paper."])


def table_batch(bench: Bench) -> Table:
    """Larger batches, as far as the reference's memory goes."""
    rows, notes = [], ["A step of pretraining, recipe paper."]
    smallest, side = bench.sizes.batches[0], bench.sizes.side
    literal = functools.partial(pretraining_side, "paper", None, smallest, side)
    each = evaluation.apart(peak_of_step, literal, str(bench.device)) / smallest
    for batch in bench.sizes.batches:
        free = free_memory(bench.device)
        if batch * each > 0.8 * free:
            notes.append(f"Batch {batch} is left out: the reference needs {batch * each:,.0f} of {free:,.0f} MB free.")
            continue
        sides = {
            name: (pretraining_side("paper", precision, batch, side, bench.device), batch)
            for name, precision in PRECISIONS.items()
        }
        rates = bench.race(sides, bench.device.type == "cuda")
        rows += compared(rates, "photographs/s", bench.target("step paper"), batch=batch)
    return Table("Larger batches", rows, notes)


def table_processes(bench: Bench) -> Table:
    """main.py under torchrun, the same batch shared by more processes; on a CPU each has one thread."""
    rows: list[Row] = []
    most = torch.cuda.device_count() if bench.device.type == "cuda" else 2
    for count, option in [(count, "") for count in sorted({1, most})] + [(most, "--batch-norm=synchronised")]:
        rate = trained_rate(bench, count, *option.split())
        first = rows[0]["photographs/s"] if rows else rate
        rows.append({"processes": count, "": option, "photographs/s": rate, "times one process": rate / first})
    batch = bench.sizes.batch
    return Table("More processes", rows, [f"A batch of {batch} in all; the fastest epoch of {bench.repeats + 1}."])


def trained_rate(bench: Bench, processes: int, *options: str) -> float:
    """Photographs a second of the fastest epoch of a run of main.py."""
    files, folder = bench.files, Path(tempfile.mkdtemp(dir=bench.folder))
    (folder / "photographs").mkdir()
    for path in files:
        (folder / "photographs" / path.name).symlink_to(path)
    arguments = {
        "data": folder / "photographs", "cache": folder, "run-dir": folder / "run", "device": bench.device.type,
        "image-size": bench.sizes.side, "batch-size": bench.sizes.batch, "epochs": bench.repeats + 1,
    }  # fmt: skip
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", pretraining.__file__]
    command += [f"--{name}={value}" for name, value in arguments.items()]
    environment = os.environ | ({} if bench.device.type == "cuda" else {"OMP_NUM_THREADS": "1"})
    subprocess.run([sys.executable, *command, *options], check=True, env=environment, capture_output=True)
    with open(folder / "run" / "log.csv", newline="") as file:
        return max(float(row["images_per_second"]) for row in csv.DictReader(file))


TABLES: dict[str, Callable[[Bench], Table]] = {
    "ceiling": table_ceiling, "input": table_input, "step": table_step, "epoch": table_epoch,
    "processes": table_processes, "augmentation": table_augmentation, "decoder": table_decoder,
    "scoring": table_scoring, "memory": table_memory, "photographs": table_photographs, "width": table_width,
    "batch": table_batch,
}  # fmt: skip


# What they need


def cycled(files: list[Path], count: int) -> list[Path]:
    return [files[k % len(files)] for k in range(count)]


def operations(step: Step) -> float:
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


def memory(name: str, source: str = "/proc/self/status") -> float:
    """MB of a line of Linux's `source`; NaN on other systems."""
    with suppress(OSError):
        for line in Path(source).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return math.nan


def free_memory(device: torch.device) -> float:
    """MB that a step may take."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0] / 1e6
    return memory("MemAvailable", "/proc/meminfo")


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


def machine(device: torch.device) -> str:
    """What all this ran on."""
    cpu = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    auto = resolve_precision(device, "auto")
    modules = {"PyTorch": torch, "torchvision": torchvision, "NumPy": np, "Pillow": PIL, "OpenCV": cv2}
    versions = ", ".join(f"{name} {module.__version__}" for name, module in modules.items())
    return (
        f"{gpu}{cpu}, {cores} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} at the start; "
        f"Python {platform.python_version()}, {versions}. Here --precision auto, the scripts' default, is {auto}."
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--device", default="auto", help="Measure on this device: auto, cpu or cuda.")
    parser.add_argument(
        "--only", nargs="+", default=list(TABLES), choices=list(TABLES), metavar="NAME", help="Make these tables."
    )
    parser.add_argument("--quick", action="store_true", help="Take tiny sizes and one repeat, for some minutes.")
    parser.add_argument("--large", action="store_true", help="Measure a cache of 100,000 photographs too: 15 GB.")
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
        sizes = replace(sizes, counts=(*sizes.counts, 100_000))
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores, as the authors
    repeats = args.repeats or (1 if args.quick else 3)
    heading = f"{machine(device)} Best of {repeats}, in turns."
    if args.quick:
        heading += " Tiny sizes: no figure here is to be quoted."
    print(heading, end="\n\n", flush=True)
    tables: dict[str, Table] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, sizes, repeats, Path(folder))
        for name in args.only:
            started = time.monotonic()
            table = TABLES[name](bench)
            table.notes.append(f"({time.monotonic() - started:.0f} s)")
            tables[name] = table
            print(table, flush=True)
            free_memory(device)
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / "speed.md").write_text("\n".join([heading, "", *map(str, tables.values())]))
            content = {"machine": heading, "quick": args.quick, "repeats": repeats, "sizes": asdict(sizes)}
            content["tables"] = {key: asdict(each) for key, each in tables.items()}
            write_json(args.out / "speed.json", content)


if __name__ == "__main__":
    run_script(main)
