"""Feature vectors of photographs: what an encoder makes of each, averaged over the photograph, in one file.

    python DownStream/features.py --encoder encoder.pth --images FOLDER --out features.npz

The file holds names (N,), c5 (N, 512 for bottleneck18: the averages of the deepest map's channels) and all (N, 1024:
those of all five maps, c1 first). Each photograph is prepared as in pretraining: the whole frame as a square.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DownStream.options.features import parse_args
from DualScaleNet.common.script import run_script


def main() -> None:
    options = parse_args(__doc__)
    from DownStream.vectors import write_vectors  # imports PyTorch, which takes seconds

    write_vectors(options)


if __name__ == "__main__":
    run_script(main, "lower --size")
