"""Draws docs/example.jpg, the picture at the top of the README: a photograph, its vessel map, both targets on it.

    python docs/example.py PHOTOGRAPH VESSELS DISC

PHOTOGRAPH is IDRiD_57.jpg of IDRiD's test set (Porwal et al. 2018, CC BY 4.0). VESSELS and DISC are probability maps
that DownStream/predict.py wrote for it, in any size. Both networks had a random, frozen encoder. Vessels were trained
on DRIVE's 20 training photographs (--val-fraction 0 --epochs 160); that network saw the photograph at a width of
662 px, where its field of view is about as wide as DRIVE's. The disc was trained on IDRiD's 54 training photographs
(--target OD --size 256 --val-fraction 0 --epochs 16).
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SIDE, GAP, CAPTION = 600, 12, 40  # px: width of a panel, between panels, height of the line below them
GREEN, YELLOW = (90, 220, 60), (60, 230, 255)  # BGR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("photograph", "vessels", "disc"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    photograph = read(args.photograph, cv2.IMREAD_COLOR)
    lit = np.flatnonzero(photograph.max(2).mean(0) > 20)  # columns of the field of view
    photograph, vessels, disc = (
        panel(image, lit[0] / photograph.shape[1], (lit[-1] + 1) / photograph.shape[1])
        for image in (photograph, probability(args.vessels), probability(args.disc))
    )
    overlay = photograph.copy()
    found = vessels >= 0.5
    overlay[found] = 0.25 * overlay[found] + 0.75 * np.array(GREEN)
    outlines, _ = cv2.findContours((disc >= 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(overlay, outlines, -1, YELLOW, 3, cv2.LINE_AA)
    shown = cv2.cvtColor((255 * vessels).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    captions = {"photograph": photograph, "vessel probability": shown, "vessels and optic disc": overlay}
    panels = [captioned(image, text) for text, image in captions.items()]
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    picture = np.hstack([panels[0], gap, panels[1], gap, panels[2]])
    cv2.imwrite(str(ROOT / "docs" / "example.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])


def read(path: Path, flags: int) -> np.ndarray:
    """An image as OpenCV has it, colours as BGR."""
    image = cv2.imread(str(path), flags)
    if image is None:
        sys.exit(f"example.py: error: cannot read {path}")
    return image


def probability(path: Path) -> np.ndarray:
    """A 16-bit map as predict.py writes it -> (H, W) float32 in [0, 1]."""
    return read(path, cv2.IMREAD_UNCHANGED).astype(np.float32) / 65535


def panel(image: np.ndarray, left: float, right: float) -> np.ndarray:
    """The columns between two shares of the width, SIDE px wide."""
    width = image.shape[1]
    image = image[:, round(left * width) : round(right * width)]
    height = round(SIDE * image.shape[0] / image.shape[1]) // 2 * 2
    return cv2.resize(image, (SIDE, height), interpolation=cv2.INTER_AREA if width > SIDE else cv2.INTER_LINEAR)


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """A panel with a line of text below it."""
    line = np.full((CAPTION, SIDE, 3), 255, np.uint8)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.8
    width = cv2.getTextSize(text, font, scale, 2)[0][0]
    cv2.putText(line, text, ((SIDE - width) // 2, 30), font, scale, (60, 60, 60), 2, cv2.LINE_AA)
    return np.vstack([image, line])


if __name__ == "__main__":
    main()
