"""The options of predict.py. PyTorch is not imported here: --help and mistyped options are answered at once."""

import argparse
from pathlib import Path

from DownStream.maps import MAP_FORMATS
from DownStream.sets import CATALOGUE
from DownStream.targets import typed_target
from DualScaleNet.common.options import STRIDE, HelpFormatter, add_device, positive, positive_int
from DualScaleNet.common.script import MODELS

LARGEST_PIXEL = 0.2  # mm: the widest photographs show some 30 mm of retina


class Options(argparse.Namespace):
    """What predict.py is called with."""

    checkpoint: list[Path]
    model: list[str] | None
    split: str
    images: list[Path] | None
    fov: Path | None
    dataset: str | None
    data_dir: list[Path] | None
    target: list[str] | None
    threshold: float | str
    scale: float | None
    window: int | None
    tta: bool
    raw_masks: bool
    pixel_size: float | Path | None
    device: str
    out: Path | None
    map_format: str


def ready_models() -> list[str]:
    """The names of the decoders in `models`."""
    return sorted(path.stem for path in MODELS.glob("*.pth") if path.stem != "encoder")


def threshold_choice(text: str) -> float | str:
    """A number in (0, 1], the images to choose it on, or the share to be marked."""
    if text in ("val", "train", "share"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, or val, train or share, not {text}")
    return value


def threshold_misfit(options: "Options") -> str | None:
    """Why ready models cannot choose the threshold so."""
    if options.threshold == "share" and options.model != ["vessels"]:
        return "--threshold share is for what covers much the same share of every eye: give --model vessels"
    if isinstance(options.threshold, str) and options.threshold != "share":
        return f"--threshold {options.threshold} needs a checkpoint's own photographs: give --model a number"
    return None


def scale_choice(text: str) -> float | None:
    """A factor above 0; None for auto."""
    if text in ("auto", "native"):
        return None if text == "auto" else 1.0
    return positive(text)


def pixel_size(text: str) -> float:
    """Millimetres of retina that a pixel covers; more than `LARGEST_PIXEL` are micrometres that were meant."""
    value = positive(text)
    if value > LARGEST_PIXEL:
        raise argparse.ArgumentTypeError(f"must be at most {LARGEST_PIXEL}, in mm, not {text}")
    return value


def pixel_size_choice(text: str) -> float | Path:
    """The size of every photograph's pixels, or what is no number: the CSV file of each one's."""
    try:
        float(text)
    except ValueError:
        return Path(text)
    return pixel_size(text)


def parse_args(description: str | None = None) -> Options:
    parser = argparse.ArgumentParser(description=description, formatter_class=HelpFormatter)
    ready = ready_models()
    group = parser.add_argument_group("input", "A checkpoint segments photographs: of its own split, or any others.")
    group.add_argument(
        "--checkpoint", type=Path, nargs="+", default=[], metavar="FILE",
        help="Predict with this checkpoint of train.py. Several folds predict each its own split, and the scores are "
        "pooled; several checkpoints for the same photographs give the mean of their maps, and its uncertainty. "
        "Default: best.pth of the newest run, or last.pth where there is no best.pth.",
    )
    group.add_argument(
        "--model", nargs="*", choices=ready, metavar="NAME",
        help=f"Predict --images with these ready models, of all targets one row and one overlay: {', '.join(ready)}. "
        "Without a name all of them. They are also taken where there is neither --checkpoint nor a run."
        if ready else argparse.SUPPRESS,
    )  # fmt: skip
    group.add_argument(
        "--split", default="test", choices=["test", "val", "train"],
        help="Predict this split of the checkpoint. After training with --folds, test is the held-out fold.",
    )
    group.add_argument(
        "--images", type=Path, nargs="+", metavar="PATH",
        help="Predict these photographs, and all in these folders, nested or not, instead of a split. They need no "
        "labels.",
    )
    group.add_argument(
        "--fov", type=Path, metavar="FOLDER",
        help="Take the field of view of a photograph in --images from the mask of the same name in this folder. "
        "Without a mask it is estimated.",
    )
    group.add_argument(
        "--dataset", choices=list(CATALOGUE),
        help="Predict --split of this data set, on which the network need not have been trained.",
    )
    group.add_argument(
        "--data-dir", type=Path, nargs="+", metavar="FOLDER",
        help="Read the data set from this folder, or several from one each. Default: those used in training, or with "
        "--dataset the set's folder in Dataset.",
    )

    group.add_argument(
        "--target", nargs="+", type=typed_target, metavar="NAME=VALUES",
        help="Read the masks of --dataset by these values, as train.py does. Default: what they meant in training if "
        "the network was trained on this data set, otherwise what the data set says.",
    )

    group = parser.add_argument_group("prediction", "The network gives each pixel a probability, a threshold the mask.")
    group.add_argument(
        "--threshold", type=threshold_choice, default=0.5, metavar="T|val|train|share",
        help="Mark the pixels whose probability is at least T. val and train choose the T with the best F1 on those "
        "photographs of the checkpoint. share chooses T, without labels, so that the marked share of the field of "
        "view equals that of the training labels: for vessels on another camera, not for lesions. "
        "The authors took 0.5.",
    )
    group.add_argument(
        "--scale", type=scale_choice, default="auto", metavar="auto|native|F",
        help="Resize each photograph to the field-of-view diameter that the network was trained on (auto), keep its "
        "size (native), or resize it by the factor F. Maps and masks have the photograph's own size in any case.",
    )
    group.add_argument(
        "--window", type=positive_int, metavar="PX",
        help="Predict in overlapping windows of PX x PX pixels, a multiple of 32, and blend them. Default: windows of "
        "512 where the resized photograph has more than 1.5 million pixels, otherwise none.",
    )
    group.add_argument(
        "--tta", action="store_true",
        help="Average the maps over flips and quarter turns of the photograph, or in an ROI around the disc over the "
        "photograph and its mirror image (test-time augmentation). This takes 8 times as long, or twice.",
    )
    group.add_argument(
        "--raw-masks", action="store_true",
        help="Save and measure the masks as the threshold gives them. Without it a disc is one convex part, without "
        "what hangs on it, and a cup is such a part inside its disc. Maps and scores of maps are raw in any case.",
    )
    add_device(group)

    group = parser.add_argument_group("output", "Maps, masks, overlays and scores are written into one folder.")
    group.add_argument(
        "--out", type=Path, metavar="FOLDER",
        help="Write everything into this folder. Default: predictions-SPLIT, with --dataset predictions-DATASET-SPLIT, "
        "with --images predictions-NAME, of N checkpoints with -of-N, beside the first checkpoint; of --model in runs.",
    )
    group.add_argument(
        "--map-format", default="png", choices=MAP_FORMATS,
        help="Save probability maps as 16-bit PNG, value / 65535, or as float32 in NumPy's .npy or in TIFF.",
    )
    group.add_argument(
        "--pixel-size", type=pixel_size_choice, metavar="MM|CSV",
        help="Add lengths in mm and areas in mm2 to summary.csv, for pixels that span MM millimetres of retina in the "
        "photographs on disk. Where photographs differ, give a CSV file with the columns image (as in summary.csv) and "
        "mm.",
    )
    options = parser.parse_args(namespace=Options())
    if options.model is not None:
        options.model = options.model or ready
        if options.checkpoint or not options.images:
            parser.error("--model is for --images, and instead of --checkpoint")
        if not ready:
            parser.error(f"--model: there are no ready models in {MODELS}: give a --checkpoint")
    if options.target and not options.dataset:
        parser.error("--target says how to read the masks of another data set: it needs --dataset")
    if options.dataset and options.images:
        parser.error("--images and --dataset exclude each other: give one of them")
    if options.images and options.split != "test":
        parser.error(f"--images and --split {options.split} exclude each other: give one of them")
    if options.dataset and options.data_dir and len(options.data_dir) > 1:
        parser.error(f"--data-dir names {len(options.data_dir)} folders: --dataset is in one")
    if options.window and options.window % STRIDE:
        parser.error(f"--window {options.window}: must be a multiple of {STRIDE}")
    if options.fov and not options.images:
        parser.error("--fov is for --images: a data set has its own fields of view")
    if options.model and (why := threshold_misfit(options)):
        parser.error(why)
    if len(options.checkpoint) > 1 and options.threshold in ("val", "train"):
        parser.error(f"--threshold {options.threshold} needs one checkpoint")
    return options
