"""Compares encoders: trains and scores each at every label fraction with several seeds, to see if pretraining helps.

Recipes of train.py can be compared as well.

    python DownStream/compare.py --encoders random pretrained=runs/pretrain/bottleneck18-paper/encoder.pth
    python DownStream/compare.py --encoders random imagenet --fractions 0.1 1 --jobs 2 --epochs 50 \\
        --data-dir mine --dataset generic -- --crop 256 --arch resnet18

What follows -- is passed to DownStream/train.py as it is. Every seed holds out one fold of the training list, the
same for all encoders. Nothing is chosen on it. The folder --out receives table.md, results.csv (one row for
each training), per_image.csv and curve.png. Finished trainings are not run again, so a comparison can be stopped and
extended. A training that was made with other options, an older recipe or another encoder is refused.
"""

import argparse
import csv
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from DownStream.recipes import OLD_NAMES, RECIPES, current_name, recipe_type
from DownStream.sets import CATALOGUE
from DualScaleNet.files import UTF8, claim, replacing, write_json, write_rows
from DualScaleNet.options import HelpFormatter, natural_int, positive, positive_int, share
from DualScaleNet.runtime import ROOT, Stopped, StopSignal, UserError, run_script

MEASURES = {"f1": "F1", "pr_auc": "PR-AUC"}
FLIPS = 20_000  # of signs, for the significance of a difference


@dataclass(frozen=True)
class Cell:
    """One training: an encoder, by its name and as train.py takes it; frozen or not; recipe; label fraction; seed."""

    name: str
    encoder: str
    finetuned: bool
    recipe: str
    fraction: float
    seed: int

    @property
    def title(self) -> str:
        recipe = "" if self.recipe == "compact" else f", {self.recipe}"
        return f"{self.name}, {'fine-tuned' if self.finetuned else 'frozen'}{recipe}"

    def folder(self, out: Path) -> Path:
        """Where its run lies; an older version may have made it under the recipe's old name."""
        mode = "finetuned" if self.finetuned else "frozen"
        names = [self.recipe, *(old for old, new in OLD_NAMES.items() if new == self.recipe)]
        folders = [out / "cells" / f"{self.name}-{mode}-{name}-{self.fraction:g}-{self.seed}" for name in names]
        return next((folder for folder in folders if folder.is_dir()), folders[0])


def named_encoder(text: str) -> tuple[str, str]:
    """random, imagenet, or NAME=FILE."""
    name, equals, path = text.partition("=")
    if text not in ("random", "imagenet") and not (equals and name and path):
        raise argparse.ArgumentTypeError(f"must be random, imagenet or NAME=FILE, not {text}")
    return name, path or name


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    group = parser.add_argument_group("comparison", "One decoder is trained for every combination of these options.")
    group.add_argument(
        "--encoders", type=named_encoder, nargs="+", required=True, metavar="NAME=FILE",
        help="Compare these encoders: random, imagenet, or a name and an encoder.pth. The first is the one that the "
        "others are compared with.",
    )
    group.add_argument(
        "--modes", nargs="+", default=["frozen"], choices=["frozen", "finetuned"],
        help="Keep the encoders frozen, train them too (finetuned), or compare both.",
    )
    group.add_argument(
        "--recipes", type=recipe_type("--recipes"), nargs="+", default=["compact"], choices=list(RECIPES),
        metavar="NAME", help="Train with these recipes of train.py.",
    )
    group.add_argument(
        "--presets", type=recipe_type("--recipes", "--presets"), dest="recipes", nargs="+", choices=list(RECIPES),
        metavar="NAME", default=argparse.SUPPRESS, help=argparse.SUPPRESS,
    )
    group.add_argument(
        "--fractions", type=share, nargs="+", default=[0.05, 0.1, 0.25, 0.5, 1.0], metavar="F",
        help="Train on these label fractions: fractions of the training photographs. A larger one contains the "
        "smaller ones.",
    )
    group.add_argument(
        "--seeds", type=natural_int, nargs="+", default=[0, 1, 2], metavar="N",
        help="Repeat everything with these seeds. Each holds out a fold of its own.",
    )
    group.add_argument(
        "--folds", type=positive_int, default=4, metavar="K",
        help="Cut the training list into K folds. A larger K leaves more photographs to train on.",
    )

    group = parser.add_argument_group("training", "All trainings share these settings.")
    group.add_argument(
        "--dataset", default="drive", choices=list(CATALOGUE), help="Read this data set, as train.py does."
    )
    group.add_argument(
        "--data-dir", type=Path, metavar="FOLDER",
        help="Read the data set from this folder. Default: the set's folder in Dataset.",
    )
    group.add_argument(
        "--epochs", type=positive_int, metavar="N",
        help="Train for N epochs with all labels. Smaller label fractions are trained for more epochs, so that each "
        f"training sees as many photographs. Default: the set's (DRIVE: {CATALOGUE['drive'].epochs}).",
    )
    group.add_argument(
        "train_options", nargs="*", metavar="OPTION", help="Pass what follows -- to train.py as it is."
    )

    group = parser.add_argument_group("run", "A comparison can be stopped, resumed and extended.")
    group.add_argument("--jobs", type=positive_int, default=1, metavar="N", help="Run N trainings at once.")
    group.add_argument(
        "--max-minutes", type=positive, metavar="M", help="Begin no training after M minutes. Default: no limit."
    )
    group.add_argument(
        "--out", type=Path, metavar="FOLDER", help="Write into this folder. Default: runs/compare/DATASET."
    )
    args = parser.parse_args()
    if "--epochs" in args.train_options:
        parser.error("--epochs must be given before --")
    args.epochs = args.epochs or CATALOGUE[args.dataset].epochs
    args.out = args.out or ROOT / "runs" / "compare" / args.dataset
    names = [name for name, _ in args.encoders]
    if len(set(names)) < len(names):
        parser.error("--encoders: two of them have the same name: rename one")
    return args


def main() -> None:
    args = parse_args()
    claim(args.out)
    cells = [
        Cell(name, encoder, mode == "finetuned", recipe, fraction, seed)
        for seed in args.seeds  # a comparison that is cut off has whole seeds
        for fraction in sorted(args.fractions)
        for recipe in args.recipes
        for mode in args.modes
        for name, encoder in args.encoders
    ]
    for cell in cells:
        refuse_other(cell, args)
    deadline = time.monotonic() + 60 * (args.max_minutes or float("inf"))
    stop, failed = StopSignal(), threading.Event()

    def run(cell: Cell) -> bool:
        """Whether the cell is done."""
        if not scores_file(cell, args.out).exists():
            if stop.number or failed.is_set() or time.monotonic() > deadline:
                return False
            try:
                train_and_score(cell, args, stop)
            except UserError:
                failed.set()
                raise
        return True

    with ThreadPoolExecutor(args.jobs) as pool:
        done = list(tqdm(pool.map(run, cells), "trainings", len(cells), disable=None))
    results = [result(cell, args.out) for cell, is_done in zip(cells, done, strict=True) if is_done]
    if not results:
        raise UserError("no training was done in --max-minutes: allow more time")
    images = [row for cell, is_done in zip(cells, done, strict=True) if is_done for row in image_rows(cell, args.out)]
    write_rows(args.out / "results.csv", results)
    write_rows(args.out / "per_image.csv", images)
    text = table(cells, results, images)
    with replacing(args.out / "table.md") as temporary:
        temporary.write_text(text, **UTF8)
    draw(cells, results, args.out / "curve.png")
    print(text)
    if len(results) < len(cells):
        print(f"{len(cells) - len(results)} of {len(cells)} trainings are not done; the same command continues")


def options_of(cell: Cell, args: argparse.Namespace) -> list[str]:
    """What train.py is called with, but for the run folder."""
    options = [*args.train_options, "--dataset", args.dataset, "--encoder", cell.encoder]
    options += ["--data-dir", args.data_dir] if args.data_dir else []
    options += ["--epochs", round(args.epochs / cell.fraction)]
    options += ["--recipe", cell.recipe, "--label-fraction", cell.fraction, "--seed", cell.seed]
    options += ["--folds", args.folds, "--fold", cell.seed % args.folds, "--val-fraction", 0]
    options += ["--finetune"] if cell.finetuned else []
    return list(map(str, options))


def made_with(cell: Cell, args: argparse.Namespace) -> dict[str, Any]:
    """What a cell's scores depend on: train.py's options, what the recipe's name stands for, the encoder's file."""
    path = Path(cell.encoder)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return {"options": options_of(cell, args), "recipe": repr(RECIPES[cell.recipe]), "encoder_sha256": digest}


def read_stamp(path: Path) -> dict[str, Any]:
    """What `made_with` said when a cell was made, in today's words if recipes were still presets then."""
    stamp = json.loads(path.read_text())
    if "preset" in stamp:
        options = stamp["options"]
        at = len(options) - 1 - options[::-1].index("--preset")  # the last counts
        options[at : at + 2] = ["--recipe", current_name(options[at + 1])]
        stamp["recipe"] = stamp.pop("preset").replace("Preset(", "Recipe(")
    return stamp


def refuse_other(cell: Cell, args: argparse.Namespace) -> None:
    """A cell that was made with other options, an older recipe or another encoder is no part of this comparison.

    Raises:
        UserError: names the cell.
    """
    stamp = cell.folder(args.out) / "cell.json"
    if stamp.exists() and read_stamp(stamp) != made_with(cell, args):
        raise UserError(
            f"{stamp.parent} was made with other options, an older recipe or another encoder: choose another --out "
            "or delete it"
        )


def train_and_score(cell: Cell, args: argparse.Namespace, stop: StopSignal) -> None:
    """A run of train.py and one of predict.py, each as a process, which a signal ends as it ends them.

    Raises:
        Stopped: because of a signal.
        UserError: one of them failed; its last line says why.
    """
    folder = cell.folder(args.out)
    write_json(folder / "cell.json", made_with(cell, args))
    threads = str(max(1, (os.cpu_count() or 1) // args.jobs))
    for script, own in (
        ("train.py", [*options_of(cell, args), "--run-dir", folder]),
        ("predict.py", ["--checkpoint", folder / "last.pth"]),
    ):
        command = [sys.executable, Path(__file__).with_name(script), *own]
        environment = {"OMP_NUM_THREADS": threads, **os.environ}
        with tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=err)
            while process.poll() is None:
                if stop.number:
                    process.terminate()
                    process.wait()
                time.sleep(0.1)
            err.seek(0)
            last = (err.read().strip().splitlines() or ["no word"])[-1]
        if stop.number:
            raise Stopped(stop.number, args.out)
        if process.returncode:
            raise UserError(f"{folder.name}: {last}")
    if not scores_file(cell, args.out).exists():
        raise UserError(f"{folder.name} has no scores: compare one target at a time, on photographs with labels")


def scores_file(cell: Cell, out: Path) -> Path:
    return cell.folder(out) / "predictions-test" / "scores.json"


def result(cell: Cell, out: Path) -> dict[str, str | float]:
    """A row of results.csv: the cell and its pooled measures on the whole image.

    Raises:
        UserError: nothing is marked in the held-out labels.
    """
    pooled = json.loads(scores_file(cell, out).read_text())["measures"]["whole"]["pooled"]
    if pooled["f1"] is None:
        raise UserError(f"{cell.folder(out).name}: nothing is marked in the held-out labels: choose other --seeds")
    return key(cell) | {name: pooled[name] for name in MEASURES}


def key(cell: Cell) -> dict[str, str | float]:
    return {"encoder": cell.title, "fraction": cell.fraction, "seed": cell.seed}


def image_rows(cell: Cell, out: Path) -> list[dict[str, str | float]]:
    """Rows of per_image.csv: F1 on the whole image of each held-out photograph in whose label something is marked."""
    with open(scores_file(cell, out).with_name("per_image.csv"), newline="", **UTF8) as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == "whole"]
    scores = {row["image"]: float(row["f1"]) for row in rows}
    return [{**key(cell), "image": image, "f1": f1} for image, f1 in scores.items() if not math.isnan(f1)]


def table(cells: list[Cell], results: list[dict], images: list[dict]) -> str:
    """Mean ± sample standard deviation over seeds of the pooled measures, and differences to the first encoder."""
    first = cells[0].title
    lines = [
        f"| encoder | label fraction | seeds | {' | '.join(MEASURES.values())} | F1 per image minus {first} | p |",
        "|---" * (5 + len(MEASURES)) + "|",
    ]
    ordered = sorted(cells, key=lambda cell: cell.fraction)
    for title, fraction in dict.fromkeys((cell.title, cell.fraction) for cell in ordered):
        rows = [row for row in results if (row["encoder"], row["fraction"]) == (title, fraction)]
        if not rows:
            continue
        columns = [title, f"{fraction:.0%}", str(len(rows))]
        columns += [spread([row[name] for row in rows]) for name in MEASURES]
        differences = paired_differences(images, title, first, fraction)
        if title == first or len(differences) < 2:
            columns += ["", ""]
        else:
            columns.append(f"{differences.mean():+.4f} ({len(differences)} photographs)")
            p = sign_flip_p(differences)
            columns.append("< 0.001" if p < 0.001 else f"{p:.3f}")
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join([
        *lines, "",
        "Pooled over all pixels of the held-out photographs, whole image, native size, threshold 0.5; mean ± standard "
        "deviation over seeds. p: two-sided sign-flip test of the differences per image.", "",
    ])  # fmt: skip


def spread(values: list[float]) -> str:
    """Mean ± sample standard deviation; a single value alone."""
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def paired_differences(images: list[dict], title: str, other: str, fraction: float) -> np.ndarray:
    """F1 minus the other encoder's on the same photograph with the same seed, averaged over seeds, by photograph."""
    f1 = {
        (row["encoder"], row["seed"], row["image"]): row["f1"] for row in images if row["fraction"] == fraction
    }
    by_image = defaultdict(list)
    for (encoder, seed, image), value in f1.items():
        if encoder == title and (other, seed, image) in f1:
            by_image[image].append(value - f1[other, seed, image])
    return np.array([np.mean(values) for values in by_image.values()])


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of a mean difference from zero, (N,): how often random signs make it as large."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, len(differences)))
    as_large = np.abs((signs * differences).mean(1)) >= abs(differences.mean()) - 1e-12
    return (as_large.sum() + 1) / (FLIPS + 1)


def draw(cells: list[Cell], results: list[dict], path: Path) -> None:
    """Score against label fraction, a line for each encoder; bars are the standard deviation over seeds."""
    figure = Figure(figsize=(4.5 * len(MEASURES), 4), layout="constrained")
    FigureCanvasAgg(figure)
    titles = list(dict.fromkeys(cell.title for cell in cells))
    for axes, (name, label) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        for number, title in enumerate(titles):
            by_fraction = defaultdict(list)
            for row in results:
                if row["encoder"] == title:
                    by_fraction[row["fraction"]].append(row[name])
            fractions = sorted(by_fraction)
            means = [np.mean(by_fraction[f]) for f in fractions]
            bars = [np.std(by_fraction[f], ddof=1) if len(by_fraction[f]) > 1 else 0 for f in fractions]
            aside = 1.03 ** (number - (len(titles) - 1) / 2)  # so that no bar hides another
            axes.errorbar([100 * f * aside for f in fractions], means, bars, marker="o", capsize=3, label=title)
        axes.set(xlabel="label fraction, %", ylabel=label, xscale="log")
        ticks = sorted({100 * row["fraction"] for row in results})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    run_script(main)
