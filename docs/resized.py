"""Writes the photographs that a checkpoint's split holds out at another size, as a data set for `--dataset generic`.

    python docs/resized.py --checkpoint runs/segment/drive-random-fold0of4/last.pth --factor 2 --out twice

The labels and field-of-view masks come with them. Photographs are enlarged with OpenCV's bicubic and shrunk with its
area interpolation.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from DownStream.checkpoints import load_segmentation
from DownStream.data import read_sample
from DownStream.selection import own_samples
from DualScaleNet.common.script import run_script


def resized(pixels: np.ndarray, factor: float) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 -> the same at `factor` times the size."""
    how = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=how)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument("--factor", type=float, required=True, metavar="F")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()
    for folder in ("images", "masks", "fov"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    for sample in own_samples(load_segmentation(args.checkpoint), "test", None):
        photograph = read_sample(sample)
        (label,) = photograph.labels.values()
        masks = {"masks": label.numpy(), "fov": photograph.field_of_view}
        Image.fromarray(resized(photograph.pixels, args.factor)).save(args.out / "images" / f"{sample.id}.png")
        for folder, mask in masks.items():
            larger = resized(mask.astype(np.uint8) * 255, args.factor) > 127
            Image.fromarray(larger).save(args.out / folder / f"{sample.id}.png")


if __name__ == "__main__":
    run_script(main)
