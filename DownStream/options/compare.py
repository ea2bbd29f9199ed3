"""The options of compare.py. PyTorch is not imported here: --help and mistyped options are answered at once."""

import argparse
from pathlib import Path

from DownStream.recipes import RECIPES, recipe_type
from DownStream.sets import CATALOGUE
from DualScaleNet.common.options import HelpFormatter, natural_int, positive, positive_int, up_to_one
from DualScaleNet.common.script import ROOT

# What the comparison says to train.py itself, and what to do instead.
BEFORE = "give it before --"
DECIDED = {
    "--dataset": BEFORE, "--data-dir": BEFORE, "--epochs": BEFORE, "--folds": BEFORE, "--encoder": "give --encoders",
    "--recipe": "give --recipes", "--preset": "give --recipes", "--label-fraction": "give --fractions",
    "--seed": "give --seeds", "--fold": "give --seeds", "--val-fraction": "it is always 0",
    "--finetune": "give --modes", "--run-dir": "give --out",
}  # fmt: skip


class Options(argparse.Namespace):
    """What compare.py is called with; the data set has filled in what was left out."""

    encoders: list[tuple[str, str]]
    modes: list[str]
    recipes: list[str]
    fractions: list[float]
    seeds: list[int]
    folds: int
    dataset: str
    also_on: dict[str, Path]
    data_dir: Path | None
    epochs: int
    train_options: list[str]
    jobs: int
    max_minutes: float | None
    out: Path


def named_encoder(text: str) -> tuple[str, str]:
    """random, imagenet, or NAME=FILE."""
    name, equals, path = text.partition("=")
    if text not in ("random", "imagenet") and not (equals and name and path):
        raise argparse.ArgumentTypeError(f"must be random, imagenet or NAME=FILE, not {text}")
    return name, path or name


def other_set(text: str) -> tuple[str, Path]:
    """NAME=FOLDER, of a data set."""
    name, _, folder = text.partition("=")
    if name not in CATALOGUE or not folder:
        raise argparse.ArgumentTypeError(f"must be NAME=FOLDER, with a NAME of --dataset, not {text}")
    return name, Path(folder)


def parse_args(description: str | None = None) -> Options:
    parser = argparse.ArgumentParser(description=description, formatter_class=HelpFormatter)
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
        "--fractions", type=up_to_one, nargs="+", default=[0.05, 0.1, 0.25, 0.5, 1.0], metavar="F",
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

    group.add_argument(
        "--also-on", type=other_set, nargs="+", default=[], metavar="NAME=FOLDER",
        help="Score every network on the training list of these data sets too, for example of another camera. NAME is "
        "one of --dataset.",
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
    options = parser.parse_args(namespace=Options())
    for word in options.train_options:
        name = word.partition("=")[0]  # which train.py takes shortened too
        meant = [option for option in DECIDED if len(name) > 2 and option.startswith(name)]
        if meant:
            parser.error(f"{word} after --: {DECIDED[meant[0]]}")
    if options.folds == 1:
        parser.error("--folds 1: must be at least 2")
    if len(dict(options.also_on)) < len(options.also_on):
        parser.error("--also-on names a data set twice: give one folder of it, and the other with another --out")
    options.also_on = dict(options.also_on)
    own = options.data_dir or ROOT / "Dataset" / str(CATALOGUE[options.dataset].folder)
    for name, folder in options.also_on.items():
        if not folder.is_dir():
            parser.error(f"--also-on {name}={folder}: there is no such folder")
        if name == options.dataset and folder.resolve() == own.resolve():
            parser.error(f"--also-on {name}={folder}: the networks train on these photographs")
    options.epochs = options.epochs or CATALOGUE[options.dataset].epochs
    options.out = options.out or ROOT / "runs" / "compare" / options.dataset
    names = [name for name, _ in options.encoders]
    if len(set(names)) < len(names):
        parser.error("--encoders: two of them have the same name: rename one")
    return options
