"""Writes a trained network for other programs: ONNX, or PyTorch's torch.export. docs/programs.md says how to call it.

    python DownStream/export.py --checkpoint best.pth --out model.onnx
    python DownStream/export.py --checkpoint best.pth --out model.pt2

Input: photograph, uint8 (N, 3, H, W) RGB, H and W multiples of 32. Output: probability, float32 (N, targets, H, W).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DownStream.options.export import parse_args
from DualScaleNet.common.script import run_script


def main() -> None:
    options = parse_args(__doc__)
    from DownStream.exporting import export  # imports PyTorch, which takes seconds

    export(options)


if __name__ == "__main__":
    run_script(main, "close other programs")
