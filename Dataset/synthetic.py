"""Writes synthetic fundus photographs with exact labels in the trees of the data sets, for every script to run on.

    python Dataset/synthetic.py                                  # Dataset/synthetic/ddr_757 and Dataset/synthetic/DRIVE
    python Dataset/synthetic.py --sets drive --train 4 --test 2 --size 256 --out tiny

A figure measured on them says nothing about patients. Dataset/fundus.py draws; another data set is one more writer.
"""

import argparse
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image
from tqdm import tqdm

from Dataset.fundus import draw_fundus, second_observer
from DualScaleNet.files import replacing, write_image
from DualScaleNet.options import HelpFormatter, natural_int
from DualScaleNet.runtime import ROOT, UserError, run_script

FOLDERS = {"ddr": "ddr_757", "drive": "DRIVE"}


def image_size(text: str) -> tuple[int, int]:
    """Width and height of 32 to 8192 pixels, 565x584, or one number for both."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 32 <= min(size) <= max(size) <= 8192:
        raise argparse.ArgumentTypeError(f"must be like 512 or 565x584 (width x height), from 32 to 8192, not {text}")
    return size


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    out = ROOT / "Dataset" / "synthetic"
    parser.add_argument("--sets", nargs="+", choices=list(FOLDERS), default=list(FOLDERS), help="trees to write")
    parser.add_argument("--train", type=natural_int, default=24, metavar="N", help="training photographs of each set")
    parser.add_argument("--val", type=natural_int, default=8, metavar="N", help="validation photographs, DDR only")
    parser.add_argument("--test", type=natural_int, default=8, metavar="N", help="test photographs of each set")
    parser.add_argument("--size", type=image_size, default="565x584", metavar="WxH", help="pixels; DDR's vary about it")
    parser.add_argument("--seed", type=natural_int, default=0, help="the same seed draws the same photographs")
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help="where the trees are written")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        for name in args.sets:  # all of them before the first file
            check_free(args.out / FOLDERS[name])
        if "ddr" in args.sets:
            write_ddr(args.out, args.train, args.val, args.test, args.size, args.seed)
        if "drive" in args.sets:
            write_drive(args.out, args.train, args.test, args.size, args.seed)
    except OSError as error:
        raise UserError(f"cannot write ({error}): choose another --out") from None


def check_free(tree: Path) -> None:
    """Nothing is ever overwritten: it might be a data set that somebody downloaded.

    Raises:
        UserError: there is something in `tree`.
    """
    if tree.exists() and any(tree.iterdir()):
        raise UserError(f"{tree} exists and is not empty: remove it or choose another --out")


def write_ddr(root: Path, n_train: int, n_val: int, n_test: int, size: tuple[int, int], seed: int) -> None:
    """Writes `root/ddr_757/{train,val,test}/img/*.jpg`, photographs only, each of another size near `size` (W, H)."""
    tree = root / FOLDERS["ddr"]
    check_free(tree)
    for split, index, rng in numbered("ddr", {"train": n_train, "val": n_val, "test": n_test}, seed):
        scale = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 2)
        width, height = (max(32, round(side * s)) for side, s in zip(size, scale, strict=True))
        with replacing(tree / split / "img" / f"{split}_{index + 1:04d}.jpg") as path:
            Image.fromarray(draw_fundus(rng, width, height).image).save(path, quality=95)
    print(f"{n_train + n_val + n_test} photographs in {tree}")


def write_drive(root: Path, n_train: int, n_test: int, size: tuple[int, int], seed: int) -> None:
    """Writes `root/DRIVE` as its archive unpacks, test labels of both observers included; `size` is (W, H)."""
    tree = root / FOLDERS["drive"]
    check_free(tree)
    for split, index, rng in numbered("drive", {"training": n_train, "test": n_test}, seed):
        eye = draw_fundus(rng, *size)
        number = f"{index + (21 if split == 'training' else 1):02d}"
        masks = {
            f"mask/{number}_{split}_mask.gif": eye.fov,
            f"1st_manual/{number}_manual1.gif": eye.vessels,
        }
        if split == "test":
            masks[f"2nd_manual/{number}_manual2.gif"] = second_observer(rng, eye.vessels) & eye.fov
        for name, mask in masks.items():
            write_image(tree / split / name, mask * np.uint8(255))
        write_image(tree / split / "images" / f"{number}_{split}.tif", eye.image)
    print(f"{n_train + n_test} photographs with labels in {tree}")


def numbered(name: str, counts: dict[str, int], seed: int) -> Iterator[tuple[str, int, np.random.Generator]]:
    """(split, index, generator) of each photograph: number k is the same however many are asked for."""
    jobs = [(split, index) for split, count in counts.items() for index in range(count)]
    for split, index in tqdm(jobs, name, unit="photo", disable=None):
        key = zlib.crc32(f"{name}/{split}".encode())
        yield split, index, np.random.default_rng([seed, key, index])


if __name__ == "__main__":
    run_script(main)
