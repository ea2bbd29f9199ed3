"""Compares encoders: trains and scores each at every label fraction with several seeds, to see if pretraining helps.

Recipes of train.py can be compared as well.

    python DownStream/compare.py --encoders random pretrained=runs/pretrain/bottleneck18-paper/encoder.pth
    python DownStream/compare.py --encoders random imagenet --fractions 0.1 1 --jobs 2 --epochs 50 \\
        --data-dir mine --dataset generic -- --crop 256 --arch resnet18

What follows -- is passed to DownStream/train.py as it is. Every seed holds out one fold of the training list, the
same for all encoders. Nothing is chosen on it. The folder --out receives table.md, results.csv (one row for
each training), per_image.csv and curve.png. Finished trainings are not run again, so a comparison can be stopped and
extended. A training that was made with other options, an older recipe or another encoder is refused.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DownStream.options.compare import parse_args
from DualScaleNet.common.script import run_script


def main() -> None:
    options = parse_args(__doc__)
    from DownStream.comparison import compare  # imports PyTorch, which takes seconds

    compare(options)


if __name__ == "__main__":
    run_script(main)
