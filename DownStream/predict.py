"""Applies a trained network: probability maps, masks, overlays, and scores where there are labels.

    python DownStream/predict.py                                      # the newest run on its test photographs
    python DownStream/predict.py --checkpoint best.pth --split val    # the photographs held out for validation
    python DownStream/predict.py --checkpoint best.pth --images mine  # any photographs, without labels
    python DownStream/predict.py --checkpoint runs/fold*/last.pth     # each fold on what it held out, pooled

Each photograph ID receives probability/ID.png (16 bit: value / 65535; --map-format for others) and mask/ID.png (0 or
255), of several targets in a folder each, and overlay/ID.png, the contours of all targets in colours; all at native
size. A target with labels also has TARGET/overlay/ID.png: green true positive, blue missed, red false positive; of a
single target this is overlay/ID.png, in the place of the contours. summary.csv has the numbers of all. With labels
there are report.html, report.md, scores.json, per_image.csv and numbers.csv too; without any, index.html shows all
photographs with their numbers. F1 and PR-AUC come first, as the authors measured them: over all pixels of all images
pooled, on the whole image, at threshold 0.5.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DownStream.options.predict import parse_args
from DualScaleNet.common.script import run_script


def main() -> None:
    options = parse_args(__doc__)
    from DownStream.prediction import predict  # imports PyTorch, which takes seconds

    predict(options)


if __name__ == "__main__":
    run_script(main, "set a smaller --window")
