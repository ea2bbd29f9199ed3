"""What the tables of speed.py are made with: sizes, races, the photographs, rows printed as they come."""

import functools
import gc
import math
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
import torchvision

from Dataset.fundus import draw_fundus
from Dataset.synthetic import write_jpeg
from DualScaleNet.common.device import free_memory, resolve_precision
from DualScaleNet.data import load_photographs

WORKERS = 8  # of the authors' DataLoader
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
    labelled: int = 64  # photographs of a training set
    predicted: int = 20
    folders: tuple[int, ...] = (100, 1000)  # photographs in folders that are predicted


CPU = Sizes(batch=16, steps=3, matrix=4096, copied=1 << 28)
GPU = Sizes(batch=64, steps=9, matrix=8192, copied=1 << 30)
QUICK = Sizes(
    batch=4, steps=2, matrix=512, copied=1 << 22, read=16, side=96, files=8, photograph=(320, 240), whole=96, scored=1,
    crop=64, counts=(100, 1000), widths=(100, 200), batches=(2, 4), labelled=8, predicted=2,
    folders=(4,),
)  # fmt: skip


@dataclass
class Table:
    """Rows with the same columns, and what one must know to read them; a row is printed when it is added."""

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failure: str | None = None  # why there are no more rows

    def add(self, *rows: Row) -> None:
        for row in rows:
            if not self.rows:
                print(self.head(row))
            self.rows.append(row)
            print(line(row), flush=True)

    def close(self, seconds: float) -> None:
        self.notes.append(f"({seconds:.0f} s)")
        if not self.rows:
            print(self.head({}))
        print(self.foot(), flush=True)

    def head(self, row: Row) -> str:
        columns = f"\n\n| {' | '.join(row)} |\n{'|---' * len(row)}|" if row else ""
        return f"### {self.title}{columns}"

    def foot(self) -> str:
        failed = [f"**Failed**: {self.failure}"] if self.failure else []
        return "\n".join(["", *failed, *self.notes, ""])

    def __str__(self) -> str:
        return "\n".join([self.head(self.rows[0] if self.rows else {}), *map(line, self.rows), self.foot()])


def line(row: Row) -> str:
    return f"| {' | '.join(map(shown, row.values()))} |"


def shown(value: str | int | float | None) -> str:
    """Three digits of a number, all of those before the point."""
    if not isinstance(value, float):
        return "" if value is None else f"{value:,}" if isinstance(value, int) else value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def reason(error: Exception) -> str:
    """One line of why: the last that names an error. torchrun and the DataLoader add reports of their own to it."""
    text = error.stderr if isinstance(error, subprocess.CalledProcessError) else f"{type(error).__name__}: {error}"
    lines = [each.strip() for each in text.splitlines() if re.search("[a-z]", each)] or [str(error)]
    named = [each for each in lines if re.match(r"(\[rank\d+\]: )?[\w.]*(Error|: error): .", each)]
    return (named or lines)[-1]


@dataclass
class Bench:
    """Where, how much and how often is measured."""

    device: torch.device
    sizes: Sizes
    repeats: int
    folder: Path

    @functools.cached_property
    def precisions(self) -> dict[str, str | None]:
        """The sides of a step: None is the reference, which knows no other precision than float32.

        Ours has what --precision auto takes as well, bfloat16 where the hardware has it: emulated it takes minutes.
        """
        ours = dict.fromkeys(["float32", resolve_precision(self.device, "auto")])
        return {"reference": None, **{f"ours, {precision}": precision for precision in ours}}

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

    @functools.cached_property
    def workers(self) -> int:
        """As many of the authors' workers as /dev/shm has room for: each keeps two batches of views there."""
        shared, side = Path("/dev/shm"), self.sizes.side
        if not shared.is_dir():
            return WORKERS
        views = 3 * (18 * (side // 3) ** 2 + 2 * side**2)
        batches = shutil.disk_usage(shared).free // (4 * views * self.sizes.batch)
        return max(0, min(WORKERS, (batches - 1) // 2))  # one more is in use

    @property
    def few_workers(self) -> list[str]:
        """The note where they are fewer."""
        room = f"/dev/shm has room for {self.workers} of the authors' {WORKERS} workers of the reference"
        return [] if self.workers == WORKERS else [f"{room}{'' if self.workers else ': it reads a single batch'}."]

    def race(self, sides: Mapping[str, tuple[Step, float]], warm_up: bool = True) -> dict[str, float]:
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
        for name in filter(None, self.precisions.values()):
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


def memory(name: str) -> float:
    """MB of a line of Linux's /proc/self/status; NaN on other systems."""
    with suppress(OSError):
        for text in Path("/proc/self/status").read_text().splitlines():
            if text.startswith(f"{name}:"):
                return int(text.split()[1]) * 1024 / 1e6
    return math.nan


def freed_memory(device: torch.device) -> float:
    """MB that a step may take, after what is no longer needed has been given back."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return free_memory(device) / 1e6


def machine(device: torch.device) -> str:
    """What all this ran on."""
    cpu = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    auto = resolve_precision(device, "auto")
    without = "" if auto == "bfloat16" else " Rows in bfloat16 are left out: the hardware has none."
    modules = {"PyTorch": torch, "torchvision": torchvision, "NumPy": np, "Pillow": PIL, "OpenCV": cv2}
    versions = ", ".join(f"{name} {module.__version__}" for name, module in modules.items())
    return (
        f"{gpu}{cpu}, {cores} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} at the start; "
        f"Python {platform.python_version()}, {versions}. Here --precision auto, the scripts' default, is {auto}."
        f"{without}"
    )
