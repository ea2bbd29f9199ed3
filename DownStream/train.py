"""Trains a U-Net-style decoder on the frozen, pretrained encoder.

    python DownStream/train.py                                        # DRIVE in Dataset/DRIVE, recipe compact
    python DownStream/train.py --recipe release                       # the authors' published settings
    python DownStream/train.py --data-dir mine --dataset generic      # mine/images/* with mine/masks/*
    python DownStream/train.py --encoder random --folds 4 --fold all  # a baseline, each fold held out once
    python DownStream/train.py --dataset drishti-gs --target disc cup # several targets, one network

The run folder receives last.pth, best.pth (the best F1 on validation images, if there are any), log.csv, curves.png,
args.json and split.json. If a run was stopped, the same command resumes it. DownStream/predict.py scores it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DownStream.options.train import ALL, parse_args
from DualScaleNet.common.script import run_script


def main() -> None:
    options = parse_args(__doc__)
    from DownStream.training import train, train_folds  # imports PyTorch, which takes seconds

    (train_folds if options.fold == ALL else train)(options)


if __name__ == "__main__":
    run_script(main, "lower --batch-size, --crop or --size")
