"""Trains a U-Net-style decoder on the frozen, pretrained encoder.

    python DownStream/train.py                                        # DRIVE in Dataset/DRIVE, recipe compact
    python DownStream/train.py --recipe release                       # the authors' published settings
    python DownStream/train.py --data-dir mine --dataset generic      # mine/images/* with mine/masks/*
    python DownStream/train.py --encoder random --folds 4 --fold 0    # a baseline, one fold held out
    python DownStream/train.py --dataset drishti-gs --target disc cup # several targets, one network

The run folder receives last.pth, best.pth (the best F1 on validation images, if there are any), log.csv, curves.png,
args.json and split.json. If a run was stopped, the same command goes on with it. DownStream/predict.py scores it.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tqdm import tqdm

from DownStream.data import make_split, read_sample, read_split, require_labels
from DownStream.inference import Predictor, reestimate_batch_norm
from DownStream.loss import binary_cross_entropy, dice_loss
from DownStream.metrics import Histogram, scores, to_levels
from DownStream.model import Segmenter
from DownStream.recipes import COMPACT, RECIPES, RELEASE, current_options, recipe_type
from DownStream.region import disc_region, fov_region
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample
from DownStream.transforms import STRIDE, NetworkInput, TrainingPhotograph, training_batch
from DualScaleNet.checkpoint import load_checkpoint, load_encoder, load_latest, restore, save_checkpoint, save_latest
from DualScaleNet.encoder import ARCHITECTURES, Encoder, imagenet_encoder
from DualScaleNet.files import claim, write_json
from DualScaleNet.finite import FilesOf, describe_step, refuse_broken_losses, refuse_broken_weights
from DualScaleNet.options import (
    HelpFormatter,
    add_machine,
    add_schedule,
    fraction,
    natural_int,
    plain_options,
    positive,
    positive_int,
    refuse_changes,
    share,
    weight,
)
from DualScaleNet.runlog import RunLog, write_options
from DualScaleNet.runtime import (
    ROOT,
    Progress,
    Stopped,
    StopSignal,
    UserError,
    autocast,
    grad_scaler,
    run_script,
    seeded_generator,
    select_device,
    warn,
)
from DualScaleNet.schedule import learning_rate

WEIGHT_DECAY = 1e-6  # the authors'
PANELS = {"loss": ["loss"], "validation": ["val_f1", "val_pr_auc"], "learning rate": ["lr"]}
FREE_OPTIONS = {"epochs", "run_dir", "resume", "device", "save_minutes", "non_finite"}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    drive = CATALOGUE["drive"]
    group = parser.add_argument_group("data", "The decoder learns from labelled photographs of one data set.")
    group.add_argument(
        "--dataset", default="drive", choices=list(CATALOGUE),
        help="Read this data set. It decides the expected folder tree and many defaults.",
    )
    group.add_argument(
        "--data-dir", type=Path, metavar="FOLDER",
        help="Read the data set from this folder. Default: the set's folder in Dataset.",
    )
    group.add_argument(
        "--target", nargs="+", metavar="NAME",
        help="Segment these structures, each into a map of its own. RIM-ONE r3 and Drishti-GS1 have disc and cup. "
        "IDRiD has MA (microaneurysms), HE (haemorrhages), EX (hard exudates), SE (soft exudates) and OD (optic "
        "disc). A name such as disc:exp1 takes the labels of one expert. Default: the authors' choice (vessels, disc "
        "or EX).",
    )
    group.add_argument(
        "--val-fraction", type=fraction, default=0.2, metavar="F",
        help="Hold out this fraction of the training list for validation, which chooses best.pth. With 0 there is no "
        "best.pth, and the last epoch counts.",
    )
    group.add_argument(
        "--label-fraction", type=share, default=1.0, metavar="F",
        help="Train on this fraction of the training photographs. The authors took 0.25 and 1.",
    )
    group.add_argument(
        "--folds", type=positive_int, metavar="K", help="Cut the training list into K folds for cross-validation."
    )
    group.add_argument(
        "--fold", type=natural_int, default=0, metavar="N",
        help="Hold out fold N of --folds as the test split. The first fold is 0.",
    )
    group.add_argument(
        "--split-file", type=Path, metavar="FILE",
        help="Read your own split from this JSON file: lists train, val and test of photographs' names, as in a run's "
        "split.json. It replaces --val-fraction.",
    )
    group.add_argument(
        "--fov", nargs="+", default=[], choices=["loss", "crop"],
        help="Use the field-of-view mask in training. loss counts only the pixels inside it. crop cuts photographs to "
        "its bounding box. The authors did neither, which is the default.",
    )
    group.add_argument(
        "--roi", default="full", choices=["full", "disc"],
        help="Show the network the full photograph, or a region of interest around the optic disc (disc), as the "
        "authors did for RIM-ONE r3 and Drishti-GS1. disc needs --localiser.",
    )
    group.add_argument(
        "--localiser", type=Path, metavar="FILE",
        help="Find the disc for --roi disc with this checkpoint. Train it first with --target disc (OD for IDRiD) and "
        "--roi full. The new checkpoint includes it.",
    )
    group.add_argument(
        "--size", type=positive_int, metavar="PX",
        help="Set the side of the network's input in pixels. Photographs are resized to it, or padded up to it where "
        f"the set asks for that. Default: the set's (DRIVE: {drive.size}).",
    )

    group = parser.add_argument_group("encoder", "The decoder reads the feature maps of an encoder.")
    group.add_argument(
        "--encoder", metavar="FILE|random|imagenet",
        help="Take the encoder from this file: an encoder.pth, or weights of --arch from elsewhere, whose names are "
        "torchvision's or begin with encoder. random takes an untrained encoder, imagenet torchvision's weights. "
        "Default: the newest encoder.pth in runs.",
    )
    group.add_argument(
        "--arch", default="bottleneck18", choices=list(ARCHITECTURES),
        help="Choose the architecture for random, imagenet and weights from elsewhere. An encoder.pth names its own.",
    )
    group.add_argument(
        "--finetune", action="store_true", help="Train the encoder too. The authors kept it frozen."
    )
    group.add_argument(
        "--bn-stats", default="reestimate", choices=["reestimate", "keep"],
        help="Before freezing, average the encoder's BatchNorm statistics over the training photographs, without "
        "labels (reestimate), or keep those of pretraining, which are of patches and cost much accuracy (keep).",
    )

    group = parser.add_argument_group(
        "optimisation", "Adam trains the decoder. The recipe and the data set decide what you leave out."
    )
    group.add_argument(
        "--recipe", type=recipe_type("--recipe"), default="compact", choices=list(RECIPES), metavar="NAME",
        help="Use the decoder, loss, augmentation and settings of this recipe. compact is ours. release follows the "
        "authors' published settings. linear trains a linear probe of the encoder's maps. For ablations, "
        "compact-without-contrast, compact-without-detail, compact-without-standardise, compact-without-jitter and "
        "compact-without-dice each lack one part of compact.",
    )
    group.add_argument(
        "--preset", type=recipe_type("--recipe", "--preset"), dest="recipe", choices=list(RECIPES), metavar="NAME",
        default=argparse.SUPPRESS, help=argparse.SUPPRESS,
    )
    group.add_argument(
        "--epochs", type=positive_int, metavar="N",
        help=f"Pass over the training photographs N times. Default: the set's (DRIVE: {drive.epochs}).",
    )
    group.add_argument(
        "--batch-size", type=positive_int, metavar="N",
        help="Take N photographs a step. Lower it if the GPU runs out of memory. Default: the recipe's (release: the "
        f"set's, {drive.batch_size} for DRIVE; all others: {COMPACT.batch_size}).",
    )
    group.add_argument(
        "--lr", type=positive,
        help=f"Set Adam's learning rate. Default: the recipe's (release: the set's, {drive.lr:g} for DRIVE; all "
        f"others: {COMPACT.lr:g}).",
    )
    add_schedule(group, f"the recipe's (release: {RELEASE.schedule}; all others: {COMPACT.schedule})")
    group.add_argument(
        "--crop", type=natural_int, metavar="PX",
        help="Train on random crops of PX x PX pixels, a multiple of 32, or on whole photographs (0). Default: the "
        f"recipe's (release: 0; all others: {COMPACT.crop}, but 0 where the set's photographs are resized).",
    )
    add_machine(group)
    group.add_argument(
        "--seed", type=natural_int, default=0,
        help="Draw the split, the initial weights, the order of the photographs and the augmentation from this seed.",
    )

    group = parser.add_argument_group("run", "Each run has a folder, where it can be resumed.")
    group.add_argument(
        "--run-dir", type=Path, metavar="FOLDER",
        help="Write the run into this folder. Default: runs/segment/DATASET-ENCODER.",
    )
    group.add_argument(
        "--resume", default="auto", choices=["auto", "never", "force"],
        help="auto goes on with the run in --run-dir if there is one. never starts over. force goes on although "
        "options differ.",
    )
    group.add_argument(
        "--val-every", type=positive_int, default=10, metavar="N", help="Validate every N epochs."
    )
    group.add_argument(
        "--save-minutes", type=weight, default=5, metavar="M",
        help="Save a checkpoint every M minutes, or after every step (0). At most this much work is lost in a crash.",
    )
    args = parser.parse_args()

    settings, recipe = CATALOGUE[args.dataset], RECIPES[args.recipe]
    args.epochs = args.epochs or settings.epochs
    args.batch_size = args.batch_size or recipe.batch_size or settings.batch_size
    args.lr = args.lr or recipe.lr or settings.lr
    args.schedule = args.schedule or recipe.schedule
    if args.crop is None:
        args.crop = recipe.crop or 0 if settings.fit == "pad" else 0
    if args.data_dir is None:
        if settings.folder is None:
            parser.error(f"--dataset {args.dataset} needs --data-dir")
        args.data_dir = ROOT / "Dataset" / settings.folder
    args.target = args.target or list(settings.default)
    unknown = [target for target in args.target if settings.targets and target not in settings.targets]
    if unknown:
        parser.error(f"--target {unknown[0]}: {args.dataset} has {', '.join(settings.targets)}")
    if args.folds and not args.fold < args.folds:
        parser.error(f"--fold {args.fold}: with --folds {args.folds} the last is {args.folds - 1}")
    if args.split_file and args.folds:
        parser.error("--split-file and --folds exclude each other: give one of them")
    if (args.roi == "disc") != bool(args.localiser):
        parser.error("--roi disc and --localiser FILE need each other: train the localiser first, with --roi full")
    if args.roi == "disc" and (not settings.disc or "crop" in args.fov):
        names = ", ".join(name for name, each in CATALOGUE.items() if each.disc)
        parser.error(f"--roi disc works with {names}, and not with --fov crop")
    if args.crop and (args.crop % STRIDE or args.crop < 64):
        parser.error(f"--crop {args.crop}: must be a multiple of {STRIDE} and at least 64")
    if args.size and args.size < 64:
        parser.error(f"--size {args.size}: must be at least 64")
    return args


def main() -> None:
    args = parse_args()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("training for segmentation runs in one process: start it without torchrun")
    device = select_device(args.device)
    settings, recipe = CATALOGUE[args.dataset], RECIPES[args.recipe]
    around = [settings.disc] if args.roi == "disc" else []
    found = settings.find(args.data_dir, list(dict.fromkeys([*args.target, *around])))
    if args.split_file:
        samples = read_split(args.split_file, found, args.label_fraction)
    else:
        samples = make_split(found, args.val_fraction, args.label_fraction, args.folds, args.fold, args.seed)
    require_labels(samples["train"] + samples["val"], args.target)
    require_labels(samples["train"], around)
    torch.manual_seed(args.seed)
    encoder = initial_encoder(args)
    original = {name: value.detach().clone() for name, value in encoder.named_parameters()}
    args.run_dir = args.run_dir or ROOT / "runs" / "segment" / default_name(args)
    split = {name: [sample.key for sample in members] for name, members in samples.items()}
    claim(args.run_dir)
    checkpoint = resumable(args, split)

    localiser = read_localiser(args, split) if args.localiser else None

    regions = args.roi == "disc" or samples["train"][0].roi
    size = args.size or (settings.roi_size if regions else settings.size) or largest_side(samples["train"])
    network_input = NetworkInput(settings.fit, size, recipe.standardise)
    train = read_training_set(samples["train"], args, network_input, device)

    model = Segmenter(
        encoder, len(args.target), not args.finetune, recipe.widths, recipe.detail, recipe.contrast
    )
    model.to(device, memory_format=torch.channels_last)
    predictor = Predictor(model, network_input, "crop" in args.fov, localiser and Predictor.load(localiser, device))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, args.lr, weight_decay=WEIGHT_DECAY, fused=True)
    scaler = grad_scaler(device, args.precision)
    done, best = Progress(0), -math.inf
    if checkpoint:
        restore(args.run_dir / "last.pth", checkpoint, {"model": model, "optimizer": optimizer, "scaler": scaler})
        began_with = {name: value.detach().cpu().clone() for name, value in model.encoder.named_parameters()}
        changed = not args.finetune and any(not torch.equal(original[name], began_with[name]) for name in original)
        if changed and args.resume != "force":
            raise UserError(
                f"{args.encoder} is no longer the encoder that {args.run_dir} began with: start over with --resume "
                "never, or go on with the old one with --resume force"
            )
        original = began_with
        done = Progress(checkpoint["epoch"], checkpoint["step"], checkpoint["losses"])
        if done.losses is not None and len(done.losses) != math.ceil(len(train) / args.batch_size):
            done = Progress(done.epoch)  # forced: the epoch has other steps now
        best = checkpoint["best_val_f1"]
        if done.epoch >= args.epochs:
            print(f"{args.run_dir} is already at epoch {done.epoch}: raise --epochs to go on")
            return
    elif args.bn_stats == "reestimate":
        seen = [network_input.scale(each.region.cut(each.image)) if each.region else each.image for each in train]
        reestimate_batch_norm(model.encoder, seen, network_input)
    frozen = {name: value.clone() for name, value in model.encoder.state_dict().items()}

    best_path = args.run_dir / "best.pth"
    if not checkpoint:
        best_path.unlink(missing_ok=True)  # of a run that this one replaces
    write_options(args.run_dir, plain_options(args))
    write_json(args.run_dir / "split.json", split)
    log = RunLog(args.run_dir, checkpoint["log"] if checkpoint else [])
    counts = ", ".join(f"{len(members)} {name}" for name, members in split.items())
    print(f"{settings.title}, {', '.join(args.target)}: {counts}; encoder {args.encoder} on {device} -> {args.run_dir}")

    def content(epoch: int) -> dict[str, Any]:
        return {
            "model": model.state_dict(), "arch": encoder.arch, "scaling": encoder.scaling, "finetuned": args.finetune,
            "bn_stats": args.bn_stats, "dataset": args.dataset, "targets": args.target, "fit": network_input.fit,
            "size": network_input.size, "standardise": recipe.standardise, "widths": list(recipe.widths),
            "detail": list(recipe.detail), "contrast": recipe.contrast, "fov_crop": predictor.fov_crop,
            "localiser": localiser, "split": split, "epoch": epoch, "best_val_f1": best,
            "options": plain_options(args),
        }

    stop, saved = StopSignal(), -math.inf

    def files_of(epoch: int, step: int) -> list[Path]:
        return [photograph.path for photograph in epoch_batches(train, args, epoch)[step]]

    def keep(progress: Progress, now: bool = False) -> None:
        """After every step: saves if it is time to, or because a signal ends the run."""
        nonlocal saved
        if now or stop.number or time.monotonic() - saved > 60 * args.save_minutes:
            if progress.losses is not None and args.non_finite == "stop":
                refuse_broken_losses(progress, files_of)
            refuse_broken_weights(model, progress)
            state = {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(), "log": log.rows}
            state |= {"step": progress.step, "losses": progress.losses, **content(progress.epoch)}
            save_latest(args.run_dir / "last.pth", "segmentation", state)
            log.draw_curves(PANELS)
            saved = time.monotonic()
        if stop.number:
            raise Stopped(stop.number, args.run_dir)

    bar = tqdm(range(done.epoch, args.epochs), initial=done.epoch, total=args.epochs, unit="epoch", disable=None)
    for epoch in bar:
        start = done if epoch == done.epoch else Progress(epoch)
        row = train_one_epoch(model, optimizer, scaler, train, network_input, args, start, keep, files_of)
        last = epoch + 1 == args.epochs
        row |= {"val_f1": None, "val_pr_auc": None}
        if samples["val"] and (last or (epoch + 1) % args.val_every == 0):
            row |= validate(predictor, samples["val"], args.target)
            if row["val_f1"] is not None and row["val_f1"] > best:
                best = row["val_f1"]
                save_checkpoint(best_path, "segmentation", content(epoch + 1))
        log.append(row)
        bar.set_postfix(loss=f"{row['loss']:.4f}", best_val_f1=f"{best:.4f}" if best > 0 else "-")
        keep(Progress(epoch + 1), last)

    if not args.finetune:
        check_frozen(model.encoder, frozen, original)
    result = args.run_dir / "last.pth"
    if best_path.exists():
        result = best_path
        print(f"F1 on validation images: best {best:.4f} (best.pth), last {row['val_f1']:.4f} (last.pth)")
    print(f"score it: python DownStream/predict.py --checkpoint {result}")


def initial_encoder(args: argparse.Namespace) -> Encoder:
    """The encoder that `--encoder` names; without a name the newest file, whose path `args.encoder` then is.

    Raises:
        UserError: there is none, or it is unfit.
    """
    if args.encoder is None:
        files = sorted((ROOT / "runs").glob("**/encoder.pth"), key=lambda path: path.stat().st_mtime)
        if not files:
            raise UserError(
                f"no encoder.pth under {ROOT / 'runs'}: pretrain with DualScaleNet/main.py, "
                "or choose --encoder FILE, random or imagenet"
            )
        args.encoder = str(files[-1])
    if args.encoder == "random":
        return Encoder(args.arch)
    if args.encoder == "imagenet":
        return imagenet_encoder(args.arch)
    args.encoder = str(Path(args.encoder).resolve())
    encoder, facts = load_encoder(Path(args.encoder), args.arch)
    args.arch = facts["arch"]
    return encoder


def default_name(args: argparse.Namespace) -> str:
    """The run folder's name, from what distinguishes runs most."""
    encoder = args.encoder if args.encoder in ("random", "imagenet") else Path(args.encoder).parent.name
    fold = f"-fold{args.fold}of{args.folds}" if args.folds else ""
    target = "" if args.target == list(CATALOGUE[args.dataset].default) else "-" + "-".join(args.target)
    return f"{args.dataset}{target}-{encoder}{'-finetune' * args.finetune}{fold}".replace(":", "_")


def resumable(args: argparse.Namespace, split: dict[str, list[str]]) -> dict | None:
    """The checkpoint to go on from, if there is one and `--resume` allows.

    Raises:
        UserError: it was made with other options or another split.
    """
    last = args.run_dir / "last.pth"
    checkpoint = None if args.resume == "never" else load_latest(last, "segmentation")
    if checkpoint is None or args.resume == "force":
        return checkpoint
    free = FREE_OPTIONS - ({"epochs"} if args.schedule == "cosine" else set())
    refuse_changes(current_options(checkpoint["options"]), plain_options(args), free, args.run_dir)
    if checkpoint["split"] != split:
        raise UserError(
            f"{args.data_dir} holds other photographs than when {last} began: start over with --resume "
            "never, or go on all the same with --resume force"
        )
    return checkpoint


def largest_side(samples: list[Sample]) -> int:
    """The least multiple of 32 that holds every photograph."""
    side = max(max(read_sample(sample).image.shape[1:]) for sample in samples)
    return -(-side // STRIDE) * STRIDE


def read_localiser(args: argparse.Namespace, split: dict[str, list[str]]) -> dict[str, Any]:
    """What the new checkpoint carries of the localiser's.

    Raises:
        UserError: it does not find discs on whole photographs, or was trained on photographs held out here.
    """
    content = load_checkpoint(args.localiser, "segmentation")
    discs = {settings.disc for settings in CATALOGUE.values()}
    if content["targets"][0].partition(":")[0] not in discs or content["localiser"]:
        disc = CATALOGUE[args.dataset].disc
        raise UserError(f"{args.localiser} is no localiser: train one with --target {disc} --roi full")
    held_out = set(split["val"] + split["test"])
    seen = held_out & set(content["split"]["train"]) if content["dataset"] == args.dataset else set()
    if seen:
        raise UserError(
            f"{args.localiser} was trained on {len(seen)} photographs that are held out here, {min(seen)} first: "
            "train it with the same split options and --seed"
        )
    only_for_training = ("optimizer", "scaler", "losses", "log", "options")
    return {name: value for name, value in content.items() if name not in only_for_training}


def read_training_set(
    samples: list[Sample], args: argparse.Namespace, network_input: NetworkInput, device: torch.device
) -> list[TrainingPhotograph]:
    """Decoded once; few, so all live where the network is. The field of view is the last mask if the loss needs it.

    Raises:
        UserError: a label has no disc to put a region around.
    """
    photographs = []
    for sample in tqdm(samples, "read", unit="photo", disable=None, leave=False):
        photograph = read_sample(sample)
        masks = [photograph.labels[target] for target in args.target]
        if "loss" in args.fov:
            masks.append(torch.from_numpy(photograph.field_of_view))
        image, masks = network_input.visible(photograph).to(device), torch.stack(masks).to(device)
        region = None
        if args.roi == "disc":
            region = disc_region(photograph.labels[CATALOGUE[args.dataset].disc].numpy())
            if region is None:
                raise UserError(f"the disc in the label of {sample.image} is missing or of no plausible size")
        else:
            if "crop" in args.fov:
                box = fov_region(photograph.field_of_view)
                image, masks = box.cut(image), box.cut(masks)
            image, masks = network_input.scale(image), network_input.scale(masks)
        photographs.append(TrainingPhotograph(sample.image, image, masks, region))
    return photographs


def train_one_epoch(
    model: Segmenter,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    photographs: list[TrainingPhotograph],
    network_input: NetworkInput,
    args: argparse.Namespace,
    start: Progress,
    keep: Callable[[Progress], None],
    files_of: FilesOf,
) -> dict[str, float]:
    """The rest of a pass over the photographs, whose order is the epoch's own. Returns its part of `log.csv`."""
    model.train()
    epoch = start.epoch
    device = next(model.parameters()).device
    batches = epoch_batches(photographs, args, epoch)
    steps, recipe = len(batches), RECIPES[args.recipe]
    losses = torch.zeros(steps, 1, device=device) if start.losses is None else start.losses.to(device)
    started = time.monotonic()
    for step in range(start.step, steps):
        generator = seeded_generator(args.seed, epoch, step)
        if args.non_finite == "skip":
            buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        images, masks = training_batch(batches[step], network_input, args.crop or None, recipe.jitter, generator)
        classes = len(args.target)
        labels, inside = masks[:, :classes], masks[:, classes:] if "loss" in args.fov else None
        rate = learning_rate(args.lr, epoch * steps + step, args.epochs * steps, args.schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with autocast(device, args.precision):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        loss = binary_cross_entropy(logits.float(), labels, inside)
        if recipe.dice_weight:
            loss = loss + recipe.dice_weight * dice_loss(logits.float(), labels, inside)
        losses[step] = loss.detach()
        if args.non_finite == "skip" and not loss.isfinite():
            for buffer, before in buffers:
                buffer.copy_(before)
            warn(f"{describe_step(Progress(epoch, step, losses), step, files_of)}: skipped")
        else:
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        if step + 1 < steps:
            keep(Progress(epoch, step + 1, losses))
    if args.non_finite == "stop":
        refuse_broken_losses(Progress(epoch, steps, losses), files_of)
    finite = losses[:, 0].isfinite()
    if not finite.any():
        raise UserError(f"no loss of epoch {epoch + 1} was finite: lower --lr or use --precision float32")
    sizes = torch.tensor([len(batch) for batch in batches], device=device)[finite]
    mean = float((losses[finite, 0] * sizes).sum() / sizes.sum())
    speed = (len(photographs) - start.step * args.batch_size) / (time.monotonic() - started)
    skipped = steps - len(sizes)
    return {"epoch": epoch + 1, "loss": mean, "lr": rate, "images_per_second": speed, "skipped": skipped}


def epoch_batches(
    photographs: list[TrainingPhotograph], args: argparse.Namespace, epoch: int
) -> list[list[TrainingPhotograph]]:
    """The batches of an epoch in their order; the last may be smaller."""
    order = torch.randperm(len(photographs), generator=seeded_generator(args.seed, epoch)).tolist()
    firsts = range(0, len(order), args.batch_size)
    return [[photographs[i] for i in order[first : first + args.batch_size]] for first in firsts]


def validate(predictor: Predictor, samples: list[Sample], targets: list[str]) -> dict[str, float | None]:
    """F1 at 0.5 and PR-AUC over all pixels of the photographs at native size, the mean over the targets.

    None where nothing is marked in any label; such a target is left out of the mean.
    """
    pooled = [Histogram.zero() for _ in targets]
    for sample in samples:
        photograph = read_sample(sample)
        levels = to_levels(predictor(photograph)[0].numpy())
        for k, target in enumerate(targets):
            pooled[k] += Histogram.of(levels[k], photograph.labels[target].numpy())
    measures = [scores(histogram) for histogram in pooled if histogram.positives.any()]
    if not measures:
        return {"val_f1": None, "val_pr_auc": None}
    return {f"val_{name}": sum(each[name] for each in measures) / len(measures) for name in ("f1", "pr_auc")}


def check_frozen(encoder: Encoder, frozen: dict[str, torch.Tensor], original: dict[str, torch.Tensor]) -> None:
    """Frozen means frozen: every tensor as before training, every parameter as it was loaded.

    Raises:
        RuntimeError: a tensor differs in a bit, which would be a bug here.
    """
    state = encoder.state_dict()
    changed = [name for name, value in frozen.items() if not torch.equal(value, state[name])]
    changed += [name for name, value in original.items() if not torch.equal(value, state[name].cpu())]
    if changed:
        raise RuntimeError(f"the frozen encoder changed: {', '.join(changed)}")
    print(f"the encoder is as it was: {len(state)} tensors compared")


if __name__ == "__main__":
    run_script(main, "lower --batch-size, --crop or --size")
