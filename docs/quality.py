"""Draws docs/quality.png: sharpness and brightness of many photographs, with the limits of DownStream/quality.py.

    python docs/quality.py FOLDER ...   # EyePACS, then other photographs for comparison

It prints how many lie beyond the limits. No photograph is shown.
"""

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from DownStream.data import read_sample
from DownStream.quality import LIMITS, quality
from DownStream.selection import photographs_in
from DownStream.sets.base import Sample
from DualScaleNet.common.files import replacing
from DualScaleNet.common.script import run_script

PICTURE = ROOT / "docs" / "quality.png"
UNITS = {"sharpness": "sharpness, grey levels", "brightness": "brightness, 1 is white",
         "field of view share": "field of view, share of the frame"}  # fmt: skip


def of(sample: Sample) -> dict[str, float | str]:
    return quality(read_sample(sample))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    found = {}
    with ProcessPoolExecutor() as pool:
        for folder in parser.parse_args().folders:
            found[folder.name] = list(pool.map(of, photographs_in([folder])[0], chunksize=8))
            doubts = Counter(row["doubt"] or "none" for row in found[folder.name])
            print(f"{folder.name}: {len(found[folder.name])} photographs; doubts: {dict(doubts)}")
    figure = Figure(figsize=(10, 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, (low, high)) in zip(figure.subplots(1, len(LIMITS)), LIMITS.items(), strict=True):
        values = {folder: [float(row[name]) for row in rows] for folder, rows in found.items()}
        bins = np.linspace(0, max(map(max, values.values())), 50)
        for folder, each in values.items():
            shares = np.full(len(each), 1 / len(each))
            axes.hist(each, bins.tolist(), weights=shares, histtype="step", label=f"{folder} ({len(each)})")
        for limit in filter(None, (low, high)):
            axes.axvline(limit[0], color="0.3", linestyle="--")
            axes.text(limit[0], axes.get_ylim()[1] * 0.97, f" {limit[1]} ", rotation=90, va="top",
                      ha="right" if limit is low else "left", fontsize=8)  # fmt: skip
        axes.set(xlabel=UNITS[name], ylabel="share of the photographs", xlim=(0, None))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    with replacing(PICTURE) as temporary:
        figure.savefig(temporary, dpi=90)


if __name__ == "__main__":
    run_script(main)
