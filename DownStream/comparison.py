"""Compares encoders and recipes: one training and one scoring for each cell of a table, as processes of their own."""

import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from DownStream.model import DECODERS
from DownStream.options.compare import Options
from DownStream.recipes import OLD_NAMES, RECIPES, current_name
from DownStream.scoring.differences import MEASURES, draw, table
from DownStream.sets import CATALOGUE
from DualScaleNet.common.checkpoint import sha256
from DualScaleNet.common.files import UTF8, claim, replacing, write_json, write_rows
from DualScaleNet.common.script import Stopped, StopSignal, UserError, progress_bar


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


def compare(options: Options) -> None:
    """The whole comparison.

    Raises:
        UserError: something only the user can mend, here or in a training.
        Stopped: a signal ended it; finished trainings are kept.
    """
    claim(options.out)
    cells = [
        Cell(name, encoder, mode == "finetuned", recipe, fraction, seed)
        for seed in options.seeds  # a comparison that is cut off has whole seeds
        for fraction in sorted(options.fractions)
        for recipe in options.recipes
        for mode in options.modes
        for name, encoder in options.encoders
    ]
    cells = list(dict.fromkeys(cells))  # a seed may be named twice
    for cell in cells:
        refuse_other(cell, options)
    note_folders(options)
    deadline = time.monotonic() + 60 * (options.max_minutes or float("inf"))
    stop, failed = StopSignal(), threading.Event()

    def run(cell: Cell) -> bool:
        """Whether the cell is done."""
        if unscored(cell, options):
            if stop.number or failed.is_set() or time.monotonic() > deadline:
                return False
            try:
                train_and_score(cell, options, stop)
            except UserError:
                failed.set()
                raise
        return True

    with ThreadPoolExecutor(options.jobs) as pool:
        done = list(progress_bar(pool.map(run, cells), "trainings", len(cells)))
    finished = [cell for cell, is_done in zip(cells, done, strict=True) if is_done]
    if not finished:
        raise UserError("no training was done in --max-minutes: allow more time")
    titles = list(dict.fromkeys(cell.title for cell in cells))
    texts = []
    for other in (None, *options.also_on):
        results = [result(cell, options.out, other) for cell in finished]
        images = [row for cell in finished for row in image_rows(cell, options.out, other)]
        ending = f"-{other}" if other else ""
        write_rows(options.out / f"results{ending}.csv", results)
        write_rows(options.out / f"per_image{ending}.csv", images)
        draw(titles, results, options.out / f"curve{ending}.png")
        texts += [f"On {CATALOGUE[other].title}, training list:\n"] if other else []
        texts.append(table(titles, results, images, "photographs" if other else "held-out photographs"))
    for other in CATALOGUE.keys() - options.also_on.keys():  # it may have been named before
        for old in (f"results-{other}.csv", f"per_image-{other}.csv", f"curve-{other}.png"):
            (options.out / old).unlink(missing_ok=True)
    text = "\n".join(texts)
    with replacing(options.out / "table.md") as temporary:
        temporary.write_text(text, **UTF8)
    print(text)
    if len(finished) < len(cells):
        print(f"{len(cells) - len(finished)} of {len(cells)} trainings are not done; the same command continues")


def options_of(cell: Cell, options: Options) -> list[str]:
    """What train.py is called with, but for the run folder."""
    own: list[Any] = [*options.train_options, "--dataset", options.dataset, "--encoder", cell.encoder]
    own += ["--data-dir", options.data_dir] if options.data_dir else []
    own += ["--epochs", round(options.epochs / cell.fraction)]
    own += ["--recipe", cell.recipe, "--label-fraction", cell.fraction, "--seed", cell.seed]
    own += ["--folds", options.folds, "--fold", cell.seed % options.folds, "--val-fraction", 0]
    own += ["--finetune"] if cell.finetuned else []
    return list(map(str, own))


def made_with(cell: Cell, options: Options) -> dict[str, Any]:
    """What a cell's scores depend on: train.py's options, what the recipe's name stands for, the encoder's file."""
    path = Path(cell.encoder)
    digest = sha256(path) if path.is_file() else None
    recipe = asdict(RECIPES[cell.recipe])
    settings = asdict(DECODERS[recipe.pop("decoder")]) | recipe
    spelled_out = f"Recipe({', '.join(f'{name}={value!r}' for name, value in settings.items())})"
    return {"options": options_of(cell, options), "recipe": spelled_out, "encoder_sha256": digest}


def read_stamp(path: Path) -> dict[str, Any]:
    """What `made_with` said when a cell was made, in today's words if recipes were still presets then."""
    stamp = json.loads(path.read_text())
    if "preset" in stamp:
        options = stamp["options"]
        at = len(options) - 1 - options[::-1].index("--preset")  # the last counts
        options[at : at + 2] = ["--recipe", current_name(options[at + 1])]
        stamp["recipe"] = stamp.pop("preset").replace("Preset(", "Recipe(")
    return stamp


def refuse_other(cell: Cell, options: Options) -> None:
    """A cell that was made with other options, an older recipe or another encoder is no part of this comparison.

    Raises:
        UserError: names the cell.
    """
    stamp = cell.folder(options.out) / "cell.json"
    if stamp.exists() and read_stamp(stamp) != made_with(cell, options):
        raise UserError(
            f"{stamp.parent} was made with other options, an older recipe or another encoder: choose another --out "
            "or delete it"
        )


def note_folders(options: Options) -> None:
    """Keeps which folders --also-on names, so that no scores of other photographs are taken for theirs.

    Raises:
        UserError: a set was scored in another folder before.
    """
    path = options.out / "also-on.json"
    before = json.loads(path.read_text(**UTF8)) if path.exists() else {}
    now = {name: str(folder.resolve()) for name, folder in options.also_on.items()}
    for name, folder in now.items():
        if before.get(name, folder) != folder:
            raise UserError(f"--also-on {name}: {options.out} has scores of {before[name]}: choose another --out")
    if now:
        write_json(path, before | now)


def train_and_score(cell: Cell, options: Options, stop: StopSignal) -> None:
    """A run of train.py and those of predict.py, each as a process, which a signal ends as it ends them.

    Raises:
        Stopped: because of a signal.
        UserError: one of them failed; its last line says why.
    """
    folder = cell.folder(options.out)
    write_json(folder / "cell.json", made_with(cell, options))
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    commands: list[tuple[str, list[Any]]] = [("train.py", [*options_of(cell, options), "--run-dir", folder])]
    for other in unscored(cell, options):
        where = ["--dataset", other, "--data-dir", options.also_on[other], "--split", "train"] if other else []
        commands.append(("predict.py", ["--checkpoint", folder / "last.pth", *where]))
    for script, own in commands:
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
            raise Stopped(stop.number, options.out)
        if process.returncode < 0:
            last = f"killed by signal {-process.returncode}; if memory ran out, lower --jobs"
        if process.returncode:
            raise UserError(f"{folder.name}: {last}")
    if unscored(cell, options):
        raise UserError(f"{folder.name} has no scores: compare one target at a time, on photographs with labels")


def unscored(cell: Cell, options: Options) -> list[str | None]:
    """On what a cell is still to be scored: its held-out fold (None), other data sets."""
    return [other for other in (None, *options.also_on) if not scores_file(cell, options.out, other).exists()]


def scores_file(cell: Cell, out: Path, other: str | None) -> Path:
    """Those of the held-out fold, or of another data set."""
    return cell.folder(out) / f"predictions-{f'{other}-train' if other else 'test'}" / "scores.json"


def result(cell: Cell, out: Path, other: str | None) -> dict[str, str | float]:
    """A row of results.csv: the cell and its pooled measures on the whole image.

    Raises:
        UserError: nothing is marked in the held-out labels.
    """
    pooled = json.loads(scores_file(cell, out, other).read_text())["measures"]["whole"]["pooled"]
    if pooled["f1"] is None:
        where = f"labels of {other}: choose another set" if other else "held-out labels: choose other --seeds"
        raise UserError(f"{cell.folder(out).name}: nothing is marked in the {where}")
    return key(cell) | {name: pooled[name] for name in MEASURES}


def key(cell: Cell) -> dict[str, str | float]:
    return {"encoder": cell.title, "fraction": cell.fraction, "seed": cell.seed}


def image_rows(cell: Cell, out: Path, other: str | None) -> list[dict[str, str | float]]:
    """Rows of per_image.csv: F1 on the whole image of each held-out photograph in whose label something is marked."""
    with open(scores_file(cell, out, other).with_name("per_image.csv"), newline="", **UTF8) as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == "whole"]
    scores = {row["image"]: float(row["f1"]) for row in rows}
    return [{**key(cell), "image": image, "f1": f1} for image, f1 in scores.items() if not math.isnan(f1)]
