"""Makes the files of ready models: one frozen encoder, and the decoders that were trained on it.

    python models/make.py encoder                               # models/encoder.pth: random weights, of seed 0
    python models/make.py decoder runs/models/vessels/last.pth  # models/vessels.pth
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DownStream.checkpoints import DECODER, without_encoder
from DownStream.options.predict import MODELS
from DualScaleNet.common.checkpoint import save_checkpoint
from DualScaleNet.common.script import run_script
from DualScaleNet.encoder import Encoder

ENCODER_FILE = MODELS / "encoder.pth"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["encoder", "decoder"], help="What to make.")
    parser.add_argument(
        "checkpoint", type=Path, nargs="?", help="The decoder's checkpoint; its folder's name becomes the model's."
    )
    args = parser.parse_args()
    if (args.part == "decoder") != bool(args.checkpoint):
        parser.error("a decoder needs its checkpoint, an encoder none")
    if args.checkpoint:
        path = MODELS / f"{args.checkpoint.parent.name}.pth"
        save_checkpoint(path, DECODER, without_encoder(args.checkpoint, ENCODER_FILE))
    else:
        path = ENCODER_FILE
        save_checkpoint(path, "encoder", random_encoder())
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def random_encoder() -> dict[str, object]:
    """As `save_encoder` writes it, the kernels in float16: what trains on the file has the same rounded weights."""
    torch.manual_seed(0)
    encoder = Encoder()
    state = {name: value.half() if value.ndim > 1 else value for name, value in encoder.state_dict().items()}
    return {
        "arch": encoder.arch, "scaling": encoder.scaling, "state": state, "recipe": "random", "epoch": 0, "images": 0,
    }  # fmt: skip


if __name__ == "__main__":
    run_script(main)
