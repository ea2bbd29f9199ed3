"""Where a network for vessels errs: how much it finds of thin and thick ones, and where it marks what is none.

    python benchmarks/widths.py --checkpoint runs/segment/drive-random-fold0of4/last.pth

Prints a Markdown table over the photographs that the checkpoint's split holds out.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from DownStream.checkpoints import load_segmentation  # noqa: E402
from DownStream.data import read_sample, require_labels  # noqa: E402
from DownStream.inference import Predictor  # noqa: E402
from DownStream.selection import own_samples  # noqa: E402
from DualScaleNet.common.device import select_device  # noqa: E402
from DualScaleNet.common.script import run_script  # noqa: E402

CLASSES = {1: "below 3 px", 3: "3 or 4 px", 5: "5 or 6 px", 7: "7 px and more"}
RIM = 6  # px from the edge of the field of view


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="Read this checkpoint.")
    parser.add_argument("--data-dir", type=Path, metavar="FOLDER", help="Read the set here. Default: as in training.")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    checkpoint = load_segmentation(args.checkpoint)
    predictor = Predictor.load(checkpoint, select_device("auto"))
    target = checkpoint["targets"][0]
    samples = own_samples(checkpoint, "test", [args.data_dir] if args.data_dir else None)
    require_labels(samples, {"": [target]})
    total, found, beside, apart, rim = np.zeros(8, int), np.zeros(8, int), 0, 0, 0
    for sample in tqdm(samples, "predict", unit="photo", disable=None):
        photograph = read_sample(sample)
        label = photograph.labels[target].numpy()
        mask = predictor(photograph).maps[0].numpy() >= 0.5
        width = widths(label)
        total += np.bincount(width[label], minlength=8)
        found += np.bincount(width[label & mask], minlength=8)
        near = cv2.dilate(label.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        beside += (mask & ~label & near).sum()
        apart += (mask & ~near).sum()
        inside = np.pad(photograph.field_of_view, 1).astype(np.uint8)
        rim += (mask & ~label & (cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1] < RIM)).sum()
    print(table(total, found, beside, apart, rim))


def table(total: np.ndarray, found: np.ndarray, beside: int, apart: int, rim: int) -> str:
    """Pixels by width, (8,): all in the labels and those found. Falsely marked ones: beside a vessel, apart from any,
    and, of both, at the rim of the field of view."""
    lines = ["| vessels | of all vessel pixels | found |", "|---|---|---|"]
    for width, name in CLASSES.items():
        if total[width]:
            lines.append(f"| {name} | {total[width] / total.sum():.0%} | {found[width] / total[width]:.0%} |")
    missed, wrong = (total - found).sum(), max(1, beside + apart)
    thin = (total[1] - found[1]) / max(1, missed)
    return "\n".join([
        *lines, "",
        f"Of {missed} missed pixels {thin:.0%} lie in vessels below 3 px; of {beside + apart} falsely marked ones "
        f"{beside / wrong:.0%} touch a vessel, {rim / wrong:.1%} lie within {RIM} px of the field of view's rim.",
    ])  # fmt: skip


def widths(label: np.ndarray) -> np.ndarray:
    """(H, W) bool -> uint8: 7, 5 or 3, the largest disc of such a diameter that lies in the label and covers the pixel.

    1 for pixels that no such disc covers, 0 outside of the label.
    """
    out = label.astype(np.uint8)
    for diameter in list(CLASSES)[1:]:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
        out[cv2.morphologyEx(label.astype(np.uint8), cv2.MORPH_OPEN, disc) > 0] = diameter
    return out


if __name__ == "__main__":
    run_script(main)
