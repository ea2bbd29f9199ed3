"""The options of train.py. PyTorch is not imported here: --help and mistyped options are answered at once."""

import argparse
from pathlib import Path

from DownStream.groups import groups_argument
from DownStream.measurements import kind_of
from DownStream.recipes import COMPACT, RECIPES, recipe_type
from DownStream.sets import CATALOGUE
from DownStream.sources import disc_of, fit_of
from DownStream.targets import add_targets, complete_targets, names_of
from DualScaleNet.common.options import (
    STRIDE,
    HelpFormatter,
    TrainingOptions,
    add_machine,
    add_schedule,
    below_one,
    natural_int,
    non_negative,
    positive,
    positive_int,
    up_to_one,
)
from DualScaleNet.common.script import ROOT, UserError
from DualScaleNet.recipes import architecture

ALL = "all"


def fold_choice(text: str) -> int | str:
    """A fold's number, or all of them."""
    return text if text == ALL else natural_int(text)


class Options(TrainingOptions):
    """What train.py is called with; the recipe and the data set have filled in what was left out.

    `encoder`, `arch`, `run_dir`, `epochs` and `val_every` may still be None: `train` fills them in.
    """

    dataset: list[str]
    data_dir: list[Path]
    target: list[str]  # as typed, with values
    missing_labels: str
    groups: str | None
    val_fraction: float
    label_fraction: float
    folds: int | None
    fold: int | str
    split_file: Path | None
    fov: list[str]
    roi: str
    localiser: Path | None
    size: int | None
    diameter: float | None
    encoder: str
    init: Path | None
    arch: str
    finetune: bool
    bn_stats: str
    recipe: str
    crop: int
    val_every: int

    @property
    def targets(self) -> list[str]:
        """The targets' names."""
        return names_of(self.target)


def parse_args(description: str | None = None) -> Options:
    parser = argparse.ArgumentParser(description=description, formatter_class=HelpFormatter)
    drive = CATALOGUE["drive"]
    group = parser.add_argument_group("data", "The decoder learns from labelled photographs.")
    group.add_argument(
        "--dataset", nargs="+", default=["drive"], choices=list(CATALOGUE), metavar="NAME",
        help=f"Read this data set: {', '.join(CATALOGUE)}. It decides the expected folder tree and many defaults. Of "
        "several sets, which are learned together, the first decides these defaults, and each is split on its own.",
    )
    group.add_argument(
        "--data-dir", type=Path, nargs="+", metavar="FOLDER",
        help="Read the data set from this folder; give one for each of several sets. Default: the set's folder in "
        "Dataset.",
    )
    add_targets(group, "vessels, disc or EX, as the set has it; of generic, mask")
    group.add_argument(
        "--val-fraction", type=below_one, default=0.2, metavar="F",
        help="Hold out this fraction of the training list for validation, which chooses best.pth. With 0 there is no "
        "best.pth, and the last epoch counts. A validation list that a set has is taken as it is.",
    )
    group.add_argument(
        "--label-fraction", type=up_to_one, default=1.0, metavar="F",
        help="Train on this fraction of the training photographs. The authors took 0.25 and 1.",
    )
    group.add_argument(
        "--folds", type=positive_int, metavar="K", help="Cut the training list into K folds for cross-validation."
    )
    group.add_argument(
        "--fold", type=fold_choice, default=0, metavar="N|all",
        help="Hold out fold N of --folds as the test split, the first is 0; all trains one network for each fold.",
    )
    group.add_argument(
        "--split-file", type=Path, metavar="FILE",
        help="Read your own split from this JSON file: lists train, val and test of photographs' names, as in a run's "
        "split.json. It replaces --val-fraction.",
    )
    group.add_argument(
        "--groups", type=groups_argument, metavar="FILE|REGEX",
        help="Keep the photographs of one person on one side of the split. FILE is a CSV file with the columns image "
        "and group; REGEX is searched in the name of a photograph, and its part in parentheses is the group. Default: "
        "what the data set says (CHASE_DB1: both eyes of a child).",
    )
    group.add_argument(
        "--fov", nargs="+", default=[], choices=["loss", "crop"],
        help="Use the field-of-view mask in training. loss counts only the pixels inside it. crop cuts photographs to "
        "its bounding box. Default: neither; the recipe compact blackens what is outside in any case.",
    )
    group.add_argument(
        "--roi", default="full", choices=["full", "disc"],
        help="Show the network the full photograph, or a region of interest around the optic disc (disc), as the "
        "authors did for RIM-ONE r3 and Drishti-GS1. disc needs --localiser, or --init with a network that has one.",
    )
    group.add_argument(
        "--localiser", type=Path, metavar="FILE",
        help="Find the disc for --roi disc with this checkpoint. Train it first with --target disc (OD for IDRiD) and "
        "--roi full. The new checkpoint includes it.",
    )
    group.add_argument(
        "--size", type=positive_int, metavar="PX",
        help="Set the side of the network's input in pixels. Photographs are resized to it, those of DRIVE, STARE and "
        f"CHASE_DB1 padded. Default: {COMPACT.disc_size} if all targets are disc or cup. Default for others, and of "
        f"the recipe release: the set's (DRIVE: {drive.size}; generic: none, see --diameter).",
    )
    group.add_argument(
        "--diameter", type=positive, metavar="PX",
        help="Where photographs are not resized to --size: resize them so that the field of view is PX pixels across. "
        "Default: the median of the training photographs, of the first data set. The recipe release does not resize.",
    )

    group = parser.add_argument_group("encoder", "The decoder reads the feature maps of an encoder.")
    group.add_argument(
        "--encoder", metavar="FILE|random|imagenet",
        help="Take the encoder from this file: an encoder.pth, or weights of --arch from elsewhere, with "
        "parameter names of torchvision or timm. random takes an untrained encoder. imagenet takes "
        "EfficientNet-Lite0 with the ImageNet weights in models, or, with --arch, downloads torchvision's or timm's. "
        "Default: the newest encoder.pth in runs/pretrain, or imagenet if there is none.",
    )
    group.add_argument(
        "--init", type=Path, metavar="FILE",
        help="Go on from the network in this checkpoint of train.py: its encoder and decoder, and the size at which it "
        "sees photographs. For targets that it does not know only the last layer begins anew.",
    )
    group.add_argument(
        "--arch", type=architecture, metavar="NAME",
        help="Choose the architecture for random, imagenet and weights from elsewhere: bottleneck18, resnet18, "
        "resnet34, resnet50, or timm/NAME, a convolutional network of timm. An encoder.pth names its own. Default for "
        "random and weights from elsewhere: bottleneck18.",
    )
    group.add_argument(
        "--finetune", action="store_true", help="Train the encoder too. The authors kept it frozen."
    )
    group.add_argument(
        "--bn-stats", choices=["reestimate", "keep"], help=argparse.SUPPRESS  # docs/recipe.md
    )

    group = parser.add_argument_group(
        "optimisation", "Adam trains the decoder. The recipe and the data set decide what you leave out."
    )
    group.add_argument(
        "--recipe", type=recipe_type("--recipe"), default="compact", choices=list(RECIPES), metavar="NAME",
        help="Use the decoder, loss, augmentation and settings of this recipe. compact is ours. release follows the "
        "authors' published settings. linear trains a linear probe of the encoder's maps. For ablations, "
        "compact-without-contrast, compact-without-detail, compact-without-standardise, compact-without-jitter, "
        "compact-without-upright and compact-without-dice each lack one part of compact.",
    )
    group.add_argument(
        "--preset", type=recipe_type("--recipe", "--preset"), dest="recipe", choices=list(RECIPES), metavar="NAME",
        default=argparse.SUPPRESS, help=argparse.SUPPRESS,
    )
    group.add_argument(
        "--epochs", type=positive_int, metavar="N",
        help="Pass over the training photographs N times. Default: the recipe's (release: the set's, "
        f"{drive.epochs} for DRIVE; all others: as many as {COMPACT.steps} steps make).",
    )
    group.add_argument(
        "--batch-size", type=positive_int, metavar="N",
        help="Take N photographs a step. Lower it if the GPU runs out of memory. Default: the recipe's (release: the "
        f"set's, {drive.batch_size} for DRIVE; all others: {COMPACT.batch_size}).",
    )
    group.add_argument(
        "--lr", type=positive,
        help=f"Set Adam's learning rate. Default: the recipe's (release: the set's, {drive.lr:g} for DRIVE; all "
        f"others: {COMPACT.lr:g}).",
    )
    add_schedule(group, by_recipe=True)
    group.add_argument(
        "--crop", type=natural_int, metavar="PX",
        help="Train on random crops of PX x PX pixels, a multiple of 32 and at least 64, or on "
        "whole photographs (0). Default: the "
        f"recipe's (release: 0; all others: {COMPACT.crop}, but 0 if a target is disc or cup).",
    )
    add_machine(group)
    group.add_argument(
        "--seed", type=natural_int, default=0,
        help="Draw the split, the initial weights, the order of the photographs and the augmentation from this seed.",
    )

    group = parser.add_argument_group("run", "Each run has a folder, where it can be resumed.")
    group.add_argument(
        "--run-dir", type=Path, metavar="FOLDER",
        help="Write the run into this folder. Default: a name in runs/segment, "
        "of the data set, targets, encoder, recipe, label fraction and fold where they are not the default.",
    )
    group.add_argument(
        "--resume", default="auto", choices=["auto", "never", "force"],
        help="auto resumes the run in --run-dir if there is one. never starts over. force resumes although options "
        "differ.",
    )
    group.add_argument("--val-every", type=positive_int, help=argparse.SUPPRESS)  # epochs
    group.add_argument(
        "--save-minutes", type=non_negative, default=5, help=argparse.SUPPRESS  # between checkpoints
    )
    options = parser.parse_args(namespace=Options())
    complete(options, parser)
    return options


def complete(options: Options, parser: argparse.ArgumentParser) -> None:
    """Fills in what was left out, and refuses what does not go together."""
    sets = [CATALOGUE[name] for name in options.dataset]
    settings, recipe, several = sets[0], RECIPES[options.recipe], len(sets) > 1
    if not recipe.steps:
        options.epochs = options.epochs or settings.epochs
    options.batch_size = options.batch_size or recipe.batch_size or settings.batch_size
    options.lr = options.lr or recipe.lr or settings.lr
    options.schedule = options.schedule or recipe.schedule
    options.bn_stats = options.bn_stats or ("keep" if options.init else "reestimate")
    if options.data_dir is None:
        if "generic" in options.dataset:
            parser.error("--dataset generic needs --data-dir")
        options.data_dir = [ROOT / "Dataset" / str(each.folder) for each in sets]
    if len(options.data_dir) != len(sets):
        parser.error(f"--data-dir names {len(options.data_dir)} folders, --dataset {len(sets)} sets: give each its own")
    try:
        own = [each for each in sets if each.targets] or sets  # generic masks take the names of other sets
        defaults = list(dict.fromkeys(target for each in own for target in each.default))
        options.target = complete_targets(options.target, dict(zip(options.dataset, sets, strict=True)), defaults)
    except UserError as error:
        parser.error(str(error))
    around = [kind_of(target) in ("disc", "cup") for target in options.targets]
    if options.crop is None:
        options.crop = 0 if any(around) else recipe.crop or 0
    if all(around) and not (options.crop or options.diameter or options.init):
        options.size = options.size or recipe.disc_size
    if several and options.target != options.targets and "generic" not in options.dataset:
        parser.error("--target: of several data sets only generic's masks are read by values: write the names alone")
    if options.fold and not options.folds:
        parser.error(f"--fold {options.fold} needs --folds")
    if options.folds == 1:
        parser.error("--folds 1: must be at least 2")
    if options.folds and isinstance(options.fold, int) and not options.fold < options.folds:
        parser.error(f"--fold {options.fold}: with --folds {options.folds} the last is {options.folds - 1}")
    if options.split_file and options.folds:
        parser.error("--split-file and --folds exclude each other: give one of them")
    if options.localiser and options.roi != "disc":
        parser.error("--localiser FILE is for --roi disc: add it, or leave out --localiser")
    if options.roi == "disc" and not (options.localiser or options.init):
        parser.error("--roi disc needs --localiser FILE: train the localiser first, with --roi full")
    if options.roi == "disc" and not disc_of(options.dataset):
        names = ", ".join(name for name, each in CATALOGUE.items() if each.disc)
        parser.error(f"--roi disc works with {names}, and generic masks of a target disc")
    if options.roi == "disc" and "crop" in options.fov:
        parser.error("--roi disc and --fov crop exclude each other: give one of them")
    if options.init and (options.encoder or options.arch or options.size or options.diameter):
        parser.error("--init brings its own encoder and size: leave out --encoder, --arch, --size and --diameter")
    if options.crop and (options.crop % STRIDE or options.crop < 64):
        parser.error(f"--crop {options.crop}: must be a multiple of {STRIDE} and at least 64")
    if options.diameter and fit_of(options.dataset, options.size) != "pad":
        parser.error("--diameter is for photographs that are not resized to --size or to the data set's size")
    if options.size and options.size < 64:
        parser.error(f"--size {options.size}: must be at least 64")
