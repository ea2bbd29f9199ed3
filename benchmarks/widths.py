"""Where a network for vessels errs: how much it finds of thin and thick ones, and how far off the label its errors are.

    python benchmarks/widths.py --checkpoint runs/segment/drive-random-fold0of4/last.pth

Prints two Markdown tables over the photographs that the checkpoint's split holds out.
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
TOLERANCES = 0, 1, 2  # px


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
    total, found, near = np.zeros(8, int), np.zeros(8, int), np.zeros((len(TOLERANCES), 4), int)
    for sample in tqdm(samples, "predict", unit="photo", disable=None):
        photograph = read_sample(sample)
        label = photograph.labels[target].numpy()
        mask = predictor(photograph).maps[0].numpy() >= 0.5
        width = widths(label)
        total += np.bincount(width[label], minlength=8)
        found += np.bincount(width[label & mask], minlength=8)
        near += [agreement(mask, label, tolerance) for tolerance in TOLERANCES]
    print(table(total, found, near))


def table(total: np.ndarray, found: np.ndarray, near: np.ndarray) -> str:
    """Pixels by width (8,), all in the labels and those found; and `agreement` for each of the `TOLERANCES` (T, 4)."""
    lines = ["| vessels | of all vessel pixels | found |", "|---|---|---|"]
    for width, name in CLASSES.items():
        if total[width]:
            lines.append(f"| {name} | {total[width] / total.sum():.0%} | {found[width] / total[width]:.0%} |")
    lines += ["", "| errors are forgiven within | precision | recall | F1 |", "|---|---|---|---|"]
    for tolerance, (right, marked, reached, labelled) in zip(TOLERANCES, near, strict=True):
        precision, recall = right / max(1, marked), reached / labelled
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        lines.append(f"| {tolerance} px | {precision:.3f} | {recall:.3f} | {f1:.3f} |")
    return "\n".join(lines)


def agreement(mask: np.ndarray, label: np.ndarray, tolerance: int) -> list[int]:
    """Pixels that are marked at most `tolerance` px from the label, that are marked, labelled so near a mark, labelled.

    `mask` and `label` are bool (H, W).
    """
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * tolerance + 1,) * 2)
    wide_mask, wide_label = (cv2.dilate(x.astype(np.uint8), disc) > 0 for x in (mask, label))
    return [(mask & wide_label).sum(), mask.sum(), (label & wide_mask).sum(), label.sum()]


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
