"""Applies a trained network: probability maps, masks, overlays, and scores where there are labels.

    python DownStream/predict.py                                      # newest run, its data set's test photographs
    python DownStream/predict.py --checkpoint best.pth --split val    # the photographs it was validated on
    python DownStream/predict.py --checkpoint best.pth --images mine  # any photographs, without labels

Writes, at native size: probability/ID.png (16 bit, value / 65535), mask/ID.png (0 or 255), overlay/ID.png (green true,
blue missed, red false); with labels also scores.json and per_image.csv. F1 and PR-AUC come first and are the authors':
all pixels of all images pooled, whole image, threshold 0.5.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from tqdm import tqdm

from DownStream.catalogue import CATALOGUE, Sample
from DownStream.data import read_labelled, read_sample
from DownStream.inference import predict_probability
from DownStream.metrics import best_threshold, threshold_level, to_levels
from DownStream.model import Segmenter
from DownStream.report import Evaluation, overlay
from DualScaleNet.checkpoint import load_checkpoint
from DualScaleNet.data import find_photographs
from DualScaleNet.encoder import Encoder
from DualScaleNet.files import write_image
from DualScaleNet.options import HelpFormatter
from DualScaleNet.runtime import ROOT, UserError, run_script, select_device


def threshold_choice(text: str) -> float | str:
    """A number in (0, 1], or the images to choose it on."""
    if text in ("val", "train"):
        return text
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, or val or train, not {text}")
    return value


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE",
        help="a segmentation checkpoint (default: best.pth, or where there is none last.pth, of the newest run)",
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="FOLDER", help="where the data set lies now (default: as in training)"
    )
    parser.add_argument(
        "--split", default="test", choices=["test", "val", "train"],
        help="photographs of the checkpoint's own split; test is the held-out fold where it was trained on folds",
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="photographs without labels, nested or not, instead of a split"
    )
    parser.add_argument(
        "--threshold", type=threshold_choice, default=0.5, metavar="T|val|train",
        help="of the mask; val or train: the one with the best F1 on those photographs; the authors took 0.5",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER",
        help="what is written (default: beside the checkpoint, predictions-SPLIT or predictions-NAME of --images)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = select_device(args.device)
    path = args.checkpoint or newest_checkpoint()
    checkpoint = load_checkpoint(path, "segmentation")
    model = Segmenter(Encoder(checkpoint["arch"], checkpoint["scaling"])).to(device)
    model.load_state_dict(checkpoint["model"])
    size = checkpoint["size"]

    if args.images:
        samples, source = photographs_in(args.images), str(args.images)
        out = args.out or path.parent / f"predictions-{args.images.resolve().name}"
    else:
        samples, source = split_samples(checkpoint, args.split, args.data_dir), args.split
        out = args.out or path.parent / f"predictions-{args.split}"

    threshold = args.threshold
    if isinstance(threshold, str):
        chosen_on = Evaluation()
        for photograph in read_labelled(split_samples(checkpoint, threshold, args.data_dir)):
            levels = to_levels(predict_probability(model, photograph.image, size)[0].numpy())
            chosen_on.add(photograph.id, levels, photograph.label.numpy(), None)
        threshold = best_threshold(chosen_on.pooled())

    evaluation = Evaluation()
    for sample in tqdm(samples, "predict", unit="photo", disable=None):
        photograph = read_sample(sample)
        levels = to_levels(predict_probability(model, photograph.image, size)[0].numpy())
        mask = levels >= threshold_level(threshold)
        label = None if photograph.label is None else photograph.label.numpy()
        picture = overlay(photograph.image.permute(1, 2, 0).numpy(), mask, label)
        for folder, array in (("probability", levels), ("mask", mask * np.uint8(255)), ("overlay", picture)):
            write_image(out / folder / f"{sample.id}.png", array)
        if label is not None:
            evaluation.add(sample.id, levels, label, None if photograph.fov is None else photograph.fov.numpy())

    print(f"{len(samples)} maps, masks and overlays ({source}) in {out}")
    if not evaluation.images:
        print("there are no labels, hence nothing to score")
        return
    if len(evaluation.images) < len(samples):
        print(f"{len(samples) - len(evaluation.images)} photographs have no label: they are not scored")
    chosen = f"{threshold:.4f}" + (f", chosen on {args.threshold}" if isinstance(args.threshold, str) else "")
    print(f"{CATALOGUE[checkpoint['dataset']].title}, {source}, native size, threshold {chosen}\n")
    print(evaluation.table(threshold))
    protocol = {
        "checkpoint": str(path), "epoch": checkpoint["epoch"], "dataset": checkpoint["dataset"], "split": source,
        "images": len(evaluation.images), "threshold_from": args.threshold,
    }
    evaluation.write(out, threshold, protocol)


def newest_checkpoint() -> Path:
    """best.pth, or where there is none last.pth, of the newest run.

    Raises:
        UserError: there is no run.
    """
    files = sorted((ROOT / "runs").glob("**/last.pth"), key=lambda path: path.stat().st_mtime, reverse=True)
    for last in files:
        best = last.with_name("best.pth")
        if (last.parent / "split.json").exists():  # a segmentation run
            return best if best.exists() else last
    raise UserError(f"no segmentation run under {ROOT / 'runs'}: train with DownStream/train.py or give --checkpoint")


def photographs_in(folder: Path) -> list[Sample]:
    """Photographs anywhere under `folder`, named by their path in it.

    Raises:
        UserError: there is none, or two would give maps of the same name.
    """
    samples: dict[str, Sample] = {}
    for image in find_photographs([folder], ["train", "val", "test"])[0]:
        name = str(image.relative_to(folder).with_suffix(""))
        if name in samples:
            raise UserError(f"{image} and {samples[name].image.name} would give the same map: rename one")
        samples[name] = Sample(name, image)
    return list(samples.values())


def split_samples(checkpoint: dict, split: str, data_dir: Path | None) -> list[Sample]:
    """The samples of one of the checkpoint's own splits.

    Raises:
        UserError: the split is empty, or a photograph of it is not there.
    """
    data_dir = data_dir or Path(checkpoint["options"]["data_dir"])
    found = CATALOGUE[checkpoint["dataset"]].find(data_dir)
    samples = {sample.key: sample for members in found.values() for sample in members}
    wanted = checkpoint["split"][split]
    if not wanted:
        others = [name for name, members in checkpoint["split"].items() if members]
        raise UserError(f"the checkpoint's split {split} is empty: choose --split {' or '.join(others)}")
    missing = [key for key in wanted if key not in samples]
    if missing:
        raise UserError(f"{data_dir} lacks {len(missing)} photographs of the checkpoint's split, {missing[0]} first")
    return sorted((samples[key] for key in wanted), key=lambda sample: sample.id)


if __name__ == "__main__":
    run_script(main)
