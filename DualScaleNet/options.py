"""The options of main.py. PyTorch is not imported here: --help and mistyped options are answered at once."""

import argparse
from pathlib import Path

from DualScaleNet.common.options import (
    HelpFormatter,
    TrainingOptions,
    add_machine,
    add_schedule,
    below_one,
    natural_int,
    non_negative,
    positive,
    positive_int,
)
from DualScaleNet.common.script import ROOT
from DualScaleNet.recipes import ARCHITECTURES, RECIPES

# Where DDR lies: the tree that the authors prepared, and that of its release.
DDR = [ROOT / "Dataset" / name for name in ("ddr_757", "DDR-dataset/lesion_segmentation")]


class Options(TrainingOptions):
    """What main.py is called with; the recipe has filled in what was left out."""

    data: list[Path]
    splits: list[str]
    image_size: int
    cache: Path
    max_bad: float
    recipe: str
    arch: str
    stop_gradient: bool
    crop: bool
    augmentation: str
    standardise: bool
    batch_norm: str
    grid: int
    weights: list[float]
    warmup_epochs: int
    weight_decay: float
    accumulate: int
    checkpoint_activations: bool
    snapshot_every: list[int]


def parse_args(description: str | None = None) -> Options:
    parser = argparse.ArgumentParser(description=description, formatter_class=HelpFormatter)
    group = parser.add_argument_group("photographs", "The encoder learns from these photographs. No label is read.")
    group.add_argument(
        "--data", type=Path, nargs="+", metavar="FOLDER",
        help="Read all photographs in these folders, nested or not. The authors took the lesion-segmentation subset "
        "of DDR. If the default is missing, Dataset/DDR-dataset/lesion_segmentation is read. Default: Dataset/ddr_757.",
    )
    group.add_argument(
        "--splits", nargs="+", default=["train", "test"], choices=["train", "val", "test"],
        help="Read these splits together where --data has folders train, val and test. The authors merged train and "
        "test.",
    )
    group.add_argument(
        "--image-size", type=positive_int, default=224, metavar="PX",
        help="Resize every photograph to PX x PX pixels. Larger images show finer detail and need more memory.",
    )
    group.add_argument(
        "--cache", type=Path, default=ROOT / "runs" / "cache", metavar="FOLDER",
        help="Keep the decoded photographs in this folder, so that each file is decoded once. You may delete it at "
        "any time.",
    )
    group.add_argument(
        "--max-bad", type=below_one, default=0.05, metavar="F",
        help="Stop if more than this fraction of the photographs cannot be read. Otherwise each such file is named "
        "and left out.",
    )

    group = parser.add_argument_group(
        "method", "The recipe sets --stop-gradient, --crop, --augmentation, --standardise and --lr unless you do."
    )
    group.add_argument(
        "--recipe", default="paper", choices=list(RECIPES),
        help="Use the settings of this recipe. paper follows the figure of the authors' paper, release their "
        "published settings. steady is ours: choose it if a run warns of collapse.",
    )
    group.add_argument(
        "--arch", default="bottleneck18", choices=list(ARCHITECTURES),
        help="Pretrain this encoder. bottleneck18 is the authors'; the others are torchvision's.",
    )
    group.add_argument(
        "--stop-gradient", action=argparse.BooleanOptionalAction,
        help="Let no gradient flow into the targets of LocalFocus, the projections of the other copy's patches. "
        "Default: the recipe's (only release lets it flow).",
    )
    group.add_argument(
        "--crop", action=argparse.BooleanOptionalAction,
        help="Take random resized crops as the views of GlobalFocus. Default: the recipe's (only release does not).",
    )
    group.add_argument(
        "--augmentation", choices=["one", "all"],
        help="Augment each patch and view by one of the five operations, drawn at random, as the authors did, or by "
        "all five. Default: the recipe's (steady: all; paper and release: one).",
    )
    group.add_argument(
        "--standardise", action=argparse.BooleanOptionalAction,
        help="Bring the channels of every view to the same mean and standard deviation, so that colour and "
        "brightness tell nothing. Default: the recipe's (only steady does).",
    )
    group.add_argument(
        "--batch-norm", default="per-view", choices=["per-view", "joint", "synchronised"],
        help="Compute batch statistics for each view on its own, as the authors did (per-view), over all views of a "
        "pass (joint), or for each view over all GPUs (synchronised). Choose synchronised if each GPU sees few "
        "images.",
    )
    group.add_argument("--grid", type=int, default=3, choices=[2, 3, 4], help=argparse.SUPPRESS)  # patches to a side
    group.add_argument(
        "--weights", type=non_negative, nargs=4, default=[0.5, 0.5, 0.8, 0.2],
        metavar=("GLOBAL", "LOCAL", "SAME", "MIRRORED"),
        help="Weight the losses GlobalFocus and LocalFocus, and within LocalFocus the same and the mirrored patch. "
        "0 turns a loss off.",
    )

    group = parser.add_argument_group("optimisation", "Adam trains the network with these settings.")
    group.add_argument(
        "--epochs", type=positive_int, default=5000, metavar="N",
        help="Pass over all photographs N times. The authors took 5000.",
    )
    group.add_argument(
        "--batch-size", type=positive_int, default=64, metavar="N",
        help="Take N photographs a step, over all GPUs together. The last incomplete batch of an epoch is dropped. "
        "Lower it if the GPU runs out of memory.",
    )
    rates = f"steady: {RECIPES['steady'].lr:g}; paper and release, as the authors: {RECIPES['paper'].lr:g}"
    group.add_argument("--lr", type=positive, help=f"Set Adam's learning rate. Default: the recipe's ({rates}).")
    add_schedule(group)
    group.add_argument(
        "--warmup-epochs", type=natural_int, default=0, metavar="N",
        help="Raise the learning rate from zero to --lr over the first N epochs. The authors did not.",
    )
    group.add_argument(
        "--weight-decay", type=non_negative, default=0.0, metavar="W",
        help="Weight the L2 penalty on the parameters. The authors used none.",
    )
    group.add_argument(
        "--accumulate", type=positive_int, default=1, metavar="N",
        help="Pass each batch through the network in N parts, to save memory. Batch statistics are then those of a "
        "part.",
    )
    group.add_argument(
        "--checkpoint-activations", action="store_true",
        help="Compute activations again in the backward pass instead of keeping them. The result is the same; it "
        "saves memory and costs time.",
    )
    add_machine(group)
    group.add_argument(
        "--seed", type=natural_int, default=0,
        help="Draw the initial weights, the order of the photographs and the views from this seed.",
    )

    group = parser.add_argument_group("run", "Each run has a folder, where it can be resumed.")
    group.add_argument(
        "--run-dir", type=Path, metavar="FOLDER",
        help="Write the run into this folder. Default: runs/pretrain/ARCH-RECIPE.",
    )
    group.add_argument(
        "--resume", default="auto", metavar="auto|never|force|FILE",
        help="auto resumes the run in --run-dir if there is one, on whichever host. never starts over. force resumes "
        "although options differ. FILE resumes from that last.pth.",
    )
    group.add_argument(
        "--snapshot-every", type=natural_int, nargs="+", default=[500], metavar="N",
        help="Keep a copy of the encoder every N epochs. The authors did so every 500. With several numbers, keep "
        "a copy after exactly these epochs; 0 is the untrained encoder.",
    )
    group.add_argument(
        "--save-minutes", type=non_negative, default=10, metavar="M",
        help="Save a checkpoint every M minutes, or after every step (0). At most this much work is lost in a crash.",
    )
    options = parser.parse_args(namespace=Options())
    options.data = options.data or [next((folder for folder in DDR if folder.is_dir()), DDR[0])]
    for name in ("stop_gradient", "crop", "augmentation", "standardise", "lr"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(RECIPES[options.recipe], name))
    options.run_dir = options.run_dir or ROOT / "runs" / "pretrain" / f"{options.arch}-{options.recipe}"
    if options.snapshot_every == [0]:
        parser.error("--snapshot-every 0: give the epochs after which to keep a copy, as in 0 5 20")
    if not any(options.weights[:2]):
        parser.error("--weights: GLOBAL or LOCAL must be above 0")
    if options.image_size < 32 * options.grid:
        parser.error(f"--image-size {options.image_size}: must be at least {32 * options.grid}, 32 for each patch")
    return options
