"""Writes synthetic fundus photographs with exact labels in the trees of the data sets, for every script to run on.

    python Dataset/synthetic.py                                  # Dataset/synthetic/ddr_757 and Dataset/synthetic/DRIVE
    python Dataset/synthetic.py --sets drive --train 4 --test 2 --size 256 --out tiny
    python Dataset/synthetic.py --sets stare rim-one-r3 drishti-gs idrid chase-db1 --train 4 --test 2 --out tiny

A figure measured on them says nothing about patients. Dataset/fundus.py draws; another data set is one more writer.
"""

import argparse
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image
from tqdm import tqdm

from Dataset.fundus import LESIONS, draw_fundus, experts, second_observer
from DownStream.sets import idrid, rim_one_r3, stare
from DualScaleNet.common.files import replacing, write_image, writing
from DualScaleNet.common.options import HelpFormatter, natural_int
from DualScaleNet.common.script import ROOT, UserError, run_script

FOLDERS = {
    "ddr": "ddr_757",
    "drive": "DRIVE",
    "stare": "STARE",
    "rim-one-r3": "RIM-ONE r3",
    "drishti-gs": "Drishti-GS1_files",
    "idrid": "IDRiD",
    "chase-db1": "CHASE_DB1",
}
USUAL_TRAIN = 24  # photographs, where --train does not say


def rim_ids() -> dict[str, list[str]]:
    """The published test photographs, and the numbers left over to train; healthy, glaucoma and suspects by turns."""
    counts = {"N": 85, "G": 39, "S": 35}
    taken = {name[:-2] for name in rim_one_r3.TEST}
    numbers = [f"{kind}-{k}" for kind, count in counts.items() for k in range(1, count + 1)]
    train = [f"{number}-{'RL'[int(number[2:]) % 2]}" for number in numbers if number not in taken]
    ids = {}
    for split, names in (("train", train), ("test", rim_one_r3.TEST)):
        kinds = [[name for name in names if name.startswith(kind)] for kind in counts]
        ids[split] = [name for row in zip_longest(*kinds) for name in row if name]
    return ids


# What photographs are called, in the order in which they are drawn: the names tell the split. The real Drishti-GS1 and
# RIM-ONE r3 have other training names.
IDS = {
    "stare": {"train": stare.TRAIN, "test": stare.TEST},
    "rim-one-r3": rim_ids(),
    "drishti-gs": {"train": [f"{k:03d}" for k in range(2, 101, 2)], "test": [f"{k:03d}" for k in range(1, 102, 2)]},
    "idrid": {"train": [f"{k:02d}" for k in range(1, 55)], "test": [f"{k:02d}" for k in range(55, 82)]},
    "chase-db1": {
        "train": [f"{child:02d}{eye}" for child in range(1, 11) for eye in "LR"],
        "test": [f"{child:02d}{eye}" for child in range(11, 15) for eye in "LR"],
    },
}


class Options(argparse.Namespace):
    """What synthetic.py is called with."""

    sets: list[str]
    train: int | None
    val: int
    test: int
    size: tuple[int, int]
    seed: int
    out: Path


def image_size(text: str) -> tuple[int, int]:
    """Width and height of 32 to 8192 pixels, 565x584, or one number for both."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 32 <= min(size) <= max(size) <= 8192:
        raise argparse.ArgumentTypeError(f"must be like 512 or 565x584 (width x height), from 32 to 8192, not {text}")
    return size


def parse_args() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--sets", nargs="+", choices=list(FOLDERS), default=["ddr", "drive"], help="Write the trees of these data sets."
    )
    parser.add_argument(
        "--train", type=natural_int, metavar="N",
        help=f"Draw N training photographs for each set. Default: {USUAL_TRAIN}, or all of a smaller set.",
    )
    parser.add_argument(
        "--val", type=natural_int, default=8, metavar="N", help="Draw N validation photographs. Only DDR has them."
    )
    parser.add_argument(
        "--test", type=natural_int, default=8, metavar="N", help="Draw N test photographs for each set."
    )
    parser.add_argument(
        "--size", type=image_size, default="565x584", metavar="WxH",
        help="Draw photographs of this width and height in pixels. Those of DDR vary around it.",
    )
    parser.add_argument(
        "--seed", type=natural_int, default=0, help="Draw with this seed. The same seed gives the same photographs."
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "Dataset" / "synthetic", metavar="FOLDER",
        help="Write the trees into this folder.",
    )
    return parser.parse_args(namespace=Options())


def main() -> None:
    args = parse_args()
    writers = {
        "drive": write_drive,
        "stare": write_stare,
        "rim-one-r3": write_rim_one,
        "drishti-gs": write_drishti,
        "idrid": write_idrid,
        "chase-db1": write_chase,
    }
    counts = {}
    for name in args.sets:
        usual = min(USUAL_TRAIN, len(IDS[name]["train"])) if name in IDS else USUAL_TRAIN
        counts[name] = (usual if args.train is None else args.train, args.test)
    with writing(args.out):
        for name in counts:  # all of them before the first file
            new_tree(name, args.out, *counts[name])
        for name, (n_train, n_test) in counts.items():
            if name == "ddr":
                write_ddr(args.out, n_train, args.val, n_test, args.size, args.seed)
                total = f"{n_train + args.val + n_test} photographs"
            else:
                writers[name](args.out, n_train, n_test, args.size, args.seed)
                total = f"{n_train + n_test} photographs with labels"
            print(f"{total} in {args.out / FOLDERS[name]}")


def new_tree(name: str, root: Path, n_train: int, n_test: int) -> Path:
    """The folder of a set. Nothing is ever overwritten: it might be a data set that somebody downloaded.

    Raises:
        UserError: there is something in the folder, or the set has fewer photographs.
    """
    tree = root / FOLDERS[name]
    if tree.exists() and any(tree.iterdir()):
        raise UserError(f"{tree} exists and is not empty: remove it or choose another --out")
    for split, count in (("train", n_train), ("test", n_test)):
        if name in IDS and count > len(IDS[name][split]):
            raise UserError(f"--{split} {count}: {name} has at most {len(IDS[name][split])} such photographs")
    return tree


def write_ddr(root: Path, n_train: int, n_val: int, n_test: int, size: tuple[int, int], seed: int) -> None:
    """Writes `root/ddr_757/{train,val,test}/img/*.jpg`, photographs only, each of another size near `size` (W, H)."""
    tree = new_tree("ddr", root, n_train, n_test)
    for split, index, rng in numbered("ddr", {"train": n_train, "val": n_val, "test": n_test}, seed):
        scale = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 2)
        width, height = (max(32, round(side * s)) for side, s in zip(size, scale, strict=True))
        write_jpeg(tree / split / "img" / f"{split}_{index + 1:04d}.jpg", draw_fundus(rng, width, height).image)


def write_drive(root: Path, n_train: int, n_test: int, size: tuple[int, int], seed: int) -> None:
    """Writes `root/DRIVE` as its archive unpacks, test labels of both observers included; `size` is (W, H)."""
    tree = new_tree("drive", root, n_train, n_test)
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


def write_stare(root: Path, n_train: int, n_test: int, size: tuple[int, int], seed: int) -> None:
    """Writes `root/STARE`, gzipped as it is downloaded: colour photographs, grey labels of both observers."""
    tree = new_tree("stare", root, n_train, n_test)
    for _, _, number, rng in named("stare", n_train, n_test, seed):
        eye = draw_fundus(rng, *size)
        arrays = {
            f"stare-images/im{number}.ppm.gz": eye.image,
            f"labels-ah/im{number}.ah.ppm.gz": eye.vessels * np.uint8(255),
            f"labels-vk/im{number}.vk.ppm.gz": (second_observer(rng, eye.vessels) & eye.fov) * np.uint8(255),
        }
        for name, array in arrays.items():
            content = io.BytesIO()
            Image.fromarray(array).save(content, "PPM")
            with replacing(tree / name) as path:
                path.write_bytes(gzip.compress(content.getvalue(), mtime=0))


def write_rim_one(root: Path, n_train: int, n_test: int, size: tuple[int, int], seed: int) -> None:
    """Writes `root/RIM-ONE r3`: stereo pairs, twice as wide as `size` (W, H), disc and cup by two experts, the average.

    The masks of every third photograph are as wide as the pair, the others as wide as its left half.
    """
    tree = new_tree("rim-one-r3", root, n_train, n_test)
    for _, index, name, rng in named("rim-one-r3", n_train, n_test, seed):
        folder = tree / ("Healthy" if name.startswith("N") else "Glaucoma and suspects")
        eye = draw_fundus(rng, *size)
        other = np.roll(eye.image, max(1, size[0] // 60), axis=1)
        write_jpeg(folder / "Stereo Images" / f"{name}.jpg", np.hstack([eye.image, other]))
        for part, outlines in zip(("Disc", "Cup"), experts(rng, eye, 2), strict=True):
            masks = {
                f"Expert1_masks/{name}-1-{part}-exp1.png": outlines[0] > 0,
                f"Expert2_masks/{name}-2-{part}-exp2.png": outlines[1] > 0,
                f"Average_masks/{name}-{part}-Avg.png": outlines.mean(0) > 0,
            }
            for file, mask in masks.items():
                right = np.zeros((size[1], size[0] if index % 3 == 2 else 0), bool)
                write_image(folder / file, np.hstack([mask, right]) * np.uint8(255))


def write_drishti(root: Path, n_train: int, n_test: int, size: tuple[int, int], seed: int) -> None:
    """Writes `root/Drishti-GS1_files`, test labels included: soft maps of four experts, the centre of the disc."""
    tree = new_tree("drishti-gs", root, n_train, n_test)
    for split, _, number, rng in named("drishti-gs", n_train, n_test, seed):
        images, truth = ("Training/Images", "Training/GT") if split == "train" else ("Test/Images", "Test/Test_GT")
        name = f"drishtiGS_{number}"
        eye = draw_fundus(rng, *size)
        for part, outlines in zip(("OD", "cup"), experts(rng, eye, 4), strict=True):
            soft = np.round((outlines > 0).mean(0) * 255).astype(np.uint8)
            write_image(tree / truth / name / "SoftMap" / f"{name}_{part}segSoftmap.png", soft)
        row, column = np.argwhere(eye.disc).mean(0)
        with replacing(tree / truth / name / "AvgBoundary" / f"{name}_diskCenter.txt") as path:
            path.write_text(f"{row:.0f} {column:.0f}")
        write_image(tree / images / f"{name}.png", eye.image)


def write_idrid(root: Path, n_train: int, n_test: int, size: tuple[int, int], seed: int) -> None:
    """Writes `root/IDRiD`, test labels included: diseased eyes only, and no file where an eye has no such lesion.

    Every second eye lacks SE, every fourth HE too. Masks are palette TIFFs of 0 and 1; the first EX for test is RGBA.
    """
    tree = new_tree("idrid", root, n_train, n_test) / "A. Segmentation"
    for split, index, number, rng in named("idrid", n_train, n_test, seed):
        part = "a. Training Set" if split == "train" else "b. Testing Set"
        lacking = ((), ("SE",), (), ("HE", "SE"))[index % 4]
        eye = draw_fundus(rng, *size, [kind for kind in LESIONS if kind not in lacking])
        for kind, folder in idrid.FOLDERS.items():
            mask = eye.disc if kind == "OD" else eye.lesions[kind]
            target = tree / "2. All Segmentation Groundtruths" / part / folder
            target.mkdir(parents=True, exist_ok=True)
            if mask.any():
                image = Image.fromarray(mask.astype(np.uint8))
                image.putpalette([0, 0, 0, 255, 0, 0])
                odd_one = (split, index, kind) == ("test", 0, "EX")
                with replacing(target / f"IDRiD_{number}_{kind}.tif") as path:
                    (image.convert("RGBA") if odd_one else image).save(path, compression="tiff_lzw")
        write_jpeg(tree / "1. Original Images" / part / f"IDRiD_{number}.jpg", eye.image)


def write_chase(root: Path, n_train: int, n_test: int, size: tuple[int, int], seed: int) -> None:
    """Writes `root/CHASE_DB1`, one folder with one-bit labels of both observers."""
    tree = new_tree("chase-db1", root, n_train, n_test)
    for _, _, number, rng in named("chase-db1", n_train, n_test, seed):
        eye = draw_fundus(rng, *size)
        write_image(tree / f"Image_{number}_1stHO.png", eye.vessels)
        write_image(tree / f"Image_{number}_2ndHO.png", second_observer(rng, eye.vessels) & eye.fov)
        write_jpeg(tree / f"Image_{number}.jpg", eye.image)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, quality=95)


def named(name: str, n_train: int, n_test: int, seed: int) -> Iterator[tuple[str, int, str, np.random.Generator]]:
    """(split, index, name, generator) of each photograph of a set in IDS."""
    for split, index, rng in numbered(name, {"train": n_train, "test": n_test}, seed):
        yield split, index, IDS[name][split][index], rng


def numbered(name: str, counts: dict[str, int], seed: int) -> Iterator[tuple[str, int, np.random.Generator]]:
    """(split, index, generator) of each photograph: number k is the same however many are asked for."""
    jobs = [(split, index) for split, count in counts.items() for index in range(count)]
    for split, index in tqdm(jobs, name, unit="photo", disable=None):
        key = zlib.crc32(f"{name}/{split}".encode())
        yield split, index, np.random.default_rng([seed, key, index])


if __name__ == "__main__":
    run_script(main)
