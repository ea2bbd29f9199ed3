"""Pretrains the encoder on unlabelled fundus photographs with LocalFocus and GlobalFocus.

    python DualScaleNet/main.py                                   # DDR in Dataset, as in the authors' paper
    python DualScaleNet/main.py --data photographs --epochs 300   # any folder of photographs
    torchrun --nproc-per-node 8 DualScaleNet/main.py              # all GPUs of a machine; several: docs/machines.md

The run folder receives encoder.pth for DownStream/train.py, last.pth for resuming, snapshots of the encoder, log.csv,
curves.png and args.json. If a run was stopped, the same command resumes it.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DualScaleNet.common.script import run_script
from DualScaleNet.options import parse_args


def main() -> None:
    # Under torchrun the processes meet before they read the options, so that a mistyped one ends all of them.
    if "WORLD_SIZE" not in os.environ:
        parse_args(__doc__)
    from DualScaleNet.common.processes import joined_processes
    from DualScaleNet.pretrain import pretrain  # imports PyTorch, which takes seconds

    with joined_processes() as processes:
        pretrain(parse_args(__doc__), processes)


if __name__ == "__main__":
    run_script(main, "lower --batch-size or --image-size, raise --accumulate, or take --checkpoint-activations")
