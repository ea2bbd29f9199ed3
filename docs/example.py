"""Draws docs/example.jpg, the picture at the top of the README: a photograph and what the ready models find in it.

    python docs/example.py PHOTOGRAPH

PHOTOGRAPH is IDRiD_57.jpg of IDRiD's test set (Porwal et al. 2018, CC BY 4.0), which no ready model was trained on.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from DownStream.fov import estimate_fov
from DownStream.overlays import contours
from DownStream.segmentation import Network
from DualScaleNet.common.files import read_image
from DualScaleNet.common.script import run_script

PICTURE = ROOT / "docs" / "example.jpg"
WIDTH = 640  # px of a panel


def shrink(picture: np.ndarray) -> np.ndarray:
    """To WIDTH px."""
    height, width = picture.shape[:2]
    return cv2.resize(picture, (WIDTH, WIDTH * height // width), interpolation=cv2.INTER_AREA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", type=Path, metavar="PHOTOGRAPH")
    image = read_image(parser.parse_args().photograph)
    found = {name: Network(ROOT / "models" / f"{name}.pth")(image) for name in ("vessels", "disc-cup", "lesions")}
    masks = {target: mask for each in found.values() for target, mask in each.masks.items()}
    shrunk = {target: shrink(mask * np.uint8(255)) > 127 for target, mask in masks.items()}
    small = shrink(image)
    pictures = {
        "photograph": small,
        "probability of vessels": shrink(found["vessels"].maps["vessels"]),
        "what the ready models find": contours(small, shrunk, estimate_fov(small)),
    }
    figure = Figure(figsize=(3 * WIDTH / 100, (len(small) + 40) / 100), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, picture) in zip(figure.subplots(1, 3), pictures.items(), strict=True):
        axes.imshow(picture, cmap="gray")
        axes.set_title(title, fontsize=16)
        axes.axis("off")
    figure.savefig(PICTURE, dpi=100, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    run_script(main)
