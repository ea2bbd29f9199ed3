"""The options of features.py. PyTorch is not imported here: --help and mistyped options are answered at once."""

import argparse
from pathlib import Path

from DualScaleNet.common.options import STRIDE, HelpFormatter, add_device, positive_int
from DualScaleNet.recipes import architecture


class Options(argparse.Namespace):
    """What features.py is called with."""

    encoder: Path
    arch: str
    batch_norm: str
    images: list[Path]
    size: int | None
    device: str
    out: Path


def parse_args(description: str | None = None) -> Options:
    parser = argparse.ArgumentParser(description=description, formatter_class=HelpFormatter)
    group = parser.add_argument_group("encoder", "Its feature maps, averaged over the photograph, are the vectors.")
    group.add_argument(
        "--encoder", type=Path, required=True, metavar="FILE",
        help="Take this encoder: an encoder.pth of main.py, or weights of --arch from elsewhere.",
    )
    group.add_argument(
        "--arch", type=architecture, default="bottleneck18", metavar="NAME",
        help="Read weights from elsewhere as this architecture: bottleneck18, resnet18, resnet34, resnet50, "
        "timm/NAME. An encoder.pth says its own.",
    )
    group.add_argument(
        "--batch-norm", default="keep", choices=["keep", "reestimate"],
        help="Normalise by the encoder's own statistics (keep), or by those of up to 64 of these photographs "
        "(reestimate). With reestimate a photograph's vector depends on the others, and vectors of two calls do not "
        "compare.",
    )

    group = parser.add_argument_group("photographs", "Each photograph has a vector. No label is read.")
    group.add_argument(
        "--images", type=Path, nargs="+", required=True, metavar="PATH",
        help="Read these photographs, and all in these folders, nested or not.",
    )
    group.add_argument(
        "--size", type=positive_int, metavar="PX",
        help="Resize every photograph to PX x PX pixels. Default: as in pretraining, or 224 where the file does not "
        "say.",
    )

    group = parser.add_argument_group("output", "All vectors are written into one file, whole or not at all.")
    group.add_argument(
        "--out", type=Path, required=True, metavar="FILE",
        help="Write this file; numpy.load reads it.",
    )
    add_device(group)
    options = parser.parse_args(namespace=Options())
    if options.size and options.size < STRIDE:
        parser.error(f"--size {options.size}: must be at least {STRIDE}")
    if options.out.suffix != ".npz":
        parser.error(f"--out {options.out}: must end in .npz")
    return options
