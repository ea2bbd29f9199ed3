"""The options of export.py. PyTorch is not imported here: --help and mistyped options are answered at once."""

import argparse
from pathlib import Path

from DualScaleNet.common.options import HelpFormatter


class Options(argparse.Namespace):
    """What export.py is called with."""

    checkpoint: Path | None
    out: Path | None


def parse_args(description: str | None = None) -> Options:
    parser = argparse.ArgumentParser(description=description, formatter_class=HelpFormatter)
    group = parser.add_argument_group("network", "A checkpoint becomes a file that other programs run.")
    group.add_argument(
        "--checkpoint", type=Path, metavar="FILE",
        help="Export this checkpoint of train.py. Default: best.pth of the newest run, or last.pth where there is no "
        "best.pth.",
    )
    group.add_argument(
        "--out", type=Path, metavar="FILE",
        help="Write this file: ONNX if it ends in .onnx, torch.export if in .pt2. Default: beside the checkpoint, "
        "with the ending .onnx.",
    )
    options = parser.parse_args(namespace=Options())
    if options.out and options.out.suffix not in (".onnx", ".pt2"):
        parser.error(f"--out {options.out}: must end in .onnx or .pt2")
    return options
