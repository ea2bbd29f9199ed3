"""Pretrains the encoder on unlabelled fundus photographs with LocalFocus and GlobalFocus.

    python DualScaleNet/main.py                                   # DDR in Dataset/ddr_757, as in the authors' paper
    python DualScaleNet/main.py --data photographs --epochs 300   # any folder of photographs
    torchrun --nproc-per-node 8 DualScaleNet/main.py              # all GPUs of a machine; several: docs/machines.md

The run folder receives encoder.pth for DownStream/train.py, last.pth for resuming, snapshots of the encoder, log.csv,
curves.png and args.json. If a run was stopped, the same command goes on with it.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from DualScaleNet.checkpoint import fingerprint, save_encoder
from DualScaleNet.data import (
    Photographs,
    batches,
    find_duplicates,
    find_photographs,
    hold,
    load_photographs,
    sizes_of,
)
from DualScaleNet.encoder import ARCHITECTURES
from DualScaleNet.files import claim
from DualScaleNet.finite import FilesOf, describe_step, refuse_broken_losses, refuse_broken_weights
from DualScaleNet.loss import global_loss, local_loss
from DualScaleNet.model import DualScaleNet, Embeddings
from DualScaleNet.monitor import collapse_report, collapse_warnings
from DualScaleNet.options import (
    HelpFormatter,
    add_machine,
    add_schedule,
    fraction,
    natural_int,
    plain_options,
    positive,
    positive_int,
    weight,
)
from DualScaleNet.processes import Processes, joined_processes
from DualScaleNet.recipes import RECIPES
from DualScaleNet.resume import resume, save
from DualScaleNet.runlog import RunLog, write_options
from DualScaleNet.runtime import (
    ROOT,
    Progress,
    Stopped,
    StopSignal,
    UserError,
    autocast,
    code_version,
    grad_scaler,
    resolve_precision,
    run_script,
    seeded_generator,
    select_device,
    warn,
)
from DualScaleNet.schedule import learning_rate
from DualScaleNet.views import global_views, local_views, standardise

PANELS = {
    "loss": ["loss", "global", "local"],
    "terms of the local loss": ["positive", "negative"],
    "standard deviation (1 healthy, 0 collapsed)": ["local_projection_std", "global_projection_std"],
    "effective rank of 128": ["local_projection_rank", "global_projection_rank"],
    "variance explained by colour": ["local_projection_colour", "global_projection_colour"],
}

FOLDERS = {"data", "cache", "run_dir"}  # may lie elsewhere on another host


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    group = parser.add_argument_group("photographs", "The encoder learns from these photographs. No label is read.")
    group.add_argument(
        "--data", type=Path, nargs="+", default=[ROOT / "Dataset" / "ddr_757"], metavar="FOLDER",
        help="Read all photographs in these folders, nested or not. The authors took the lesion-segmentation subset "
        "of DDR.",
    )
    group.add_argument(
        "--splits", nargs="+", default=["train", "test"], choices=["train", "val", "test"],
        help="Read these splits together where --data has folders train, val and test. The authors merged train and "
        "test.",
    )
    group.add_argument(
        "--image-size", type=positive_int, default=224, metavar="PX",
        help="Resize every photograph to PX x PX pixels. Larger images show finer detail and need more memory.",
    )
    group.add_argument(
        "--cache", type=Path, default=ROOT / "runs" / "cache", metavar="FOLDER",
        help="Keep the decoded photographs in this folder, so that each file is decoded once. You may delete it at "
        "any time.",
    )
    group.add_argument(
        "--max-bad", type=fraction, default=0.05, metavar="F",
        help="Stop if more than this fraction of the photographs cannot be read. Otherwise each such file is named "
        "and left out.",
    )

    group = parser.add_argument_group(
        "method", "The recipe sets --stop-gradient, --crop, --augmentation, --standardise and --lr unless you do."
    )
    group.add_argument(
        "--recipe", default="paper", choices=list(RECIPES),
        help="Use the settings of this recipe. paper follows the figure of the authors' paper, release their "
        "published settings. steady is ours: choose it if a run warns of collapse.",
    )
    group.add_argument(
        "--arch", default="bottleneck18", choices=list(ARCHITECTURES),
        help="Pretrain this encoder. bottleneck18 is the authors'; the others are torchvision's.",
    )
    group.add_argument(
        "--stop-gradient", action=argparse.BooleanOptionalAction,
        help="Let no gradient flow into the targets z(y) of LocalFocus. Default: the recipe's (only release lets it "
        "flow).",
    )
    group.add_argument(
        "--crop", action=argparse.BooleanOptionalAction,
        help="Take random resized crops as the views of GlobalFocus. Default: the recipe's (only release does not).",
    )
    group.add_argument(
        "--augmentation", choices=["one", "all"],
        help="Augment each patch and view by one of the five operations, drawn at random, as the authors did, or by "
        "all five. Default: the recipe's (steady: all; paper and release: one).",
    )
    group.add_argument(
        "--standardise", action=argparse.BooleanOptionalAction,
        help="Bring the channels of every view to the same mean and standard deviation, so that colour and "
        "brightness tell nothing. Default: the recipe's (only steady does).",
    )
    group.add_argument(
        "--batch-norm", default="per-view", choices=["per-view", "joint", "synchronised"],
        help="Compute batch statistics for each view on its own, as the authors did (per-view), over all views of a "
        "pass (joint), or for each view over all GPUs (synchronised). Choose synchronised if each GPU sees few "
        "images.",
    )
    group.add_argument("--grid", type=int, default=3, choices=[2, 3, 4], help=argparse.SUPPRESS)  # patches to a side
    group.add_argument(
        "--weights", type=weight, nargs=4, default=[0.5, 0.5, 0.8, 0.2],
        metavar=("GLOBAL", "LOCAL", "SAME", "MIRRORED"),
        help="Weight the losses GlobalFocus and LocalFocus, and within LocalFocus the same and the mirrored patch. "
        "0 turns a loss off.",
    )

    group = parser.add_argument_group("optimisation", "Adam trains the network with these settings.")
    group.add_argument(
        "--epochs", type=positive_int, default=5000, metavar="N",
        help="Pass over all photographs N times. The authors took 5000.",
    )
    group.add_argument(
        "--batch-size", type=positive_int, default=64, metavar="N",
        help="Take N photographs a step, over all GPUs together. The last incomplete batch of an epoch is dropped. "
        "Lower it if the GPU runs out of memory.",
    )
    rates = f"steady: {RECIPES['steady'].lr:g}; paper and release, as the authors: {RECIPES['paper'].lr:g}"
    group.add_argument("--lr", type=positive, help=f"Set Adam's learning rate. Default: the recipe's ({rates}).")
    add_schedule(group)
    group.add_argument(
        "--warmup-epochs", type=natural_int, default=0, metavar="N",
        help="Raise the learning rate from zero to --lr over the first N epochs. The authors did not.",
    )
    group.add_argument(
        "--weight-decay", type=weight, default=0.0, metavar="W",
        help="Weight the L2 penalty on the parameters. The authors used none.",
    )
    group.add_argument(
        "--accumulate", type=positive_int, default=1, metavar="N",
        help="Pass each batch through the network in N parts, to save memory. Batch statistics are then those of a "
        "part.",
    )
    group.add_argument(
        "--checkpoint-activations", action="store_true",
        help="Compute activations again in the backward pass instead of keeping them. The result is the same; it "
        "saves memory and costs time.",
    )
    add_machine(group)
    group.add_argument(
        "--seed", type=natural_int, default=0,
        help="Draw the initial weights, the order of the photographs and the views from this seed.",
    )

    group = parser.add_argument_group("run", "Each run has a folder, where it can be resumed.")
    group.add_argument(
        "--run-dir", type=Path, metavar="FOLDER",
        help="Write the run into this folder. Default: runs/pretrain/ARCH-RECIPE.",
    )
    group.add_argument(
        "--resume", default="auto", metavar="auto|never|force|FILE",
        help="auto goes on with the run in --run-dir, of whichever host has one. never starts over. force goes on "
        "although options differ. FILE goes on from that last.pth.",
    )
    group.add_argument(
        "--snapshot-every", type=positive_int, default=500, metavar="N",
        help="Keep a copy of the encoder every N epochs. The authors did so every 500.",
    )
    group.add_argument(
        "--save-minutes", type=weight, default=10, metavar="M",
        help="Save a checkpoint every M minutes, or after every step (0). At most this much work is lost in a crash.",
    )
    args = parser.parse_args()
    for name in ("stop_gradient", "crop", "augmentation", "standardise", "lr"):
        if getattr(args, name) is None:
            setattr(args, name, getattr(RECIPES[args.recipe], name))
    args.run_dir = args.run_dir or ROOT / "runs" / "pretrain" / f"{args.arch}-{args.recipe}"
    if not any(args.weights[:2]):
        parser.error("--weights: GLOBAL or LOCAL must be above 0")
    if args.image_size < 32 * args.grid:
        parser.error(f"--image-size {args.image_size}: must be at least {32 * args.grid}, 32 for each patch")
    return args


def main() -> None:
    with joined_processes() as processes:
        pretrain(parse_args(), processes)


def pretrain(args: argparse.Namespace, processes: Processes) -> None:
    """The whole run, in each of its processes."""
    device = select_device(args.device)
    rank = processes.rank
    options = {f"--{name}": value for name, value in plain_options(args).items() if name not in FOLDERS}
    machine = {"device": device.type, "precision": resolve_precision(device, args.precision)}
    processes.require_alike(lambda: {"code": code_version(), "PyTorch": torch.__version__, **machine, **options})
    found = open_photographs(args, processes)
    processes.connect_devices(device)
    photographs = hold(found.array, device)
    parts = processes.count * args.accumulate
    if args.batch_size % parts or args.batch_size < 2 * parts:
        what = "processes" if args.accumulate == 1 else "parts (processes x --accumulate)"
        raise UserError(f"--batch-size {args.batch_size}: each of {parts} {what} needs two or more, all alike")
    if len(photographs) < args.batch_size:
        raise UserError(f"{len(photographs)} photographs are fewer than --batch-size {args.batch_size}: lower it")
    steps = len(photographs) // args.batch_size

    if rank == 0:
        claim(args.run_dir)
    torch.manual_seed(args.seed)
    model = DualScaleNet(
        args.arch, args.stop_gradient, args.batch_norm != "joint", args.batch_norm == "synchronised",
        args.checkpoint_activations, one_pass=device.type != "cpu",
        train_global=args.weights[0] > 0, train_local=args.weights[1] > 0,
    )
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), args.lr, weight_decay=args.weight_decay, fused=True)
    state = {"model": model, "optimizer": optimizer, "scaler": grad_scaler(device, args.precision)}
    run = resume(args, processes, state, len(photographs))
    done, network = run.done, model
    if processes.count > 1:
        network = DistributedDataParallel(
            model, [device.index] if device.type == "cuda" else None, find_unused_parameters=0 in args.weights[:2]
        )
    processes.require_alike(
        lambda: {
            "position": [done.epoch, done.step],
            "weights": fingerprint(model.state_dict()),
            "Adam's moments": fingerprint(optimizer.state_dict()),
        }
    )
    if rank == 0 and run.elsewhere:  # whoever is first has all of the run
        save(args, state, run, done, len(photographs))
        RunLog(args.run_dir, run.rows).draw_curves(PANELS)
    if done.epoch >= args.epochs:
        if rank == 0:
            print(f"{args.run_dir} is already at epoch {done.epoch}: raise --epochs to go on")
        return

    if rank == 0:
        write_options(args.run_dir, plain_options(args))
        log = RunLog(args.run_dir, run.rows)
        print(f"{len(photographs)} photographs, {steps} steps an epoch, {args.arch} on {device} -> {args.run_dir}")
    warned: set[str] = set()
    stop, saved = StopSignal(), -math.inf

    def files_of(epoch: int, step: int) -> list[Path]:
        order = epoch_order(args.seed, epoch, len(photographs))
        return [found.paths[i] for i in order[step * args.batch_size : (step + 1) * args.batch_size]]

    def keep(progress: Progress, now: bool = False) -> None:
        """After every step: saves if it is time to, or because a signal ends the run; all processes decide alike."""
        nonlocal saved
        due = rank == 0 and (now or time.monotonic() - saved > 60 * args.save_minutes)
        verdict = processes.largest(stop.number or due)  # SIGINT is 2, SIGTERM 15
        if verdict and progress.losses is not None:
            processes.add_up(progress.losses)
            if args.non_finite == "stop":
                refuse_broken_losses(progress, files_of)
            progress.losses.mul_(rank == 0)  # the first process carries them on for all
        if verdict and rank == 0:
            refuse_broken_weights(model, progress)
            save(args, state, run, progress, len(photographs))
            log.draw_curves(PANELS)
            saved = time.monotonic()
        if verdict > 1:
            raise Stopped(verdict, args.run_dir)

    total, initial = (count * args.batch_size for count in (args.epochs * steps, done.epoch * steps + done.step))
    bar = tqdm(total=total, initial=initial, unit="photo", disable=None if rank == 0 else True)
    for epoch in range(done.epoch, args.epochs):
        start = done if epoch == done.epoch else Progress(epoch)
        row = train_one_epoch(network, state, photographs, args, processes, start, keep, files_of, bar)
        if rank == 0:
            log.append(row)
        for name, warning in collapse_warnings(row, args.batch_size // processes.count - args.accumulate).items():
            if name not in warned:
                warn(f"epoch {epoch + 1}: {warning}")
                warned.add(name)
        snapshot = (epoch + 1) % args.snapshot_every == 0
        if snapshot and rank == 0:
            path = args.run_dir / f"encoder-{epoch + 1:04d}.pth"
            save_encoder(path, model.encoder, args.recipe, epoch + 1, len(photographs))
        keep(Progress(epoch + 1), snapshot or epoch + 1 == args.epochs)
    bar.close()
    if rank == 0:
        print(f"{args.run_dir / 'encoder.pth'}: epoch {args.epochs}, loss {row['loss']:.4f}")


def open_photographs(args: argparse.Namespace, processes: Processes) -> Photographs:
    """All photographs that can be read, in the cache; for each cache one process decodes them, the others wait.

    Raises:
        UserError: the hosts have different photographs, or too many are unreadable.
    """
    rank = processes.rank
    paths, counts = find_photographs(args.data, args.splits)
    processes.require_alike(
        lambda: {"the number of photographs": len(paths), "the photographs' sizes or order": sizes_of(paths)}
    )
    left_out = {split: n for split, n in counts.items() if split and split not in args.splits}
    if rank == 0 and left_out:
        print(f"left out by --splits: {', '.join(f'{n} photographs of {split}' for split, n in left_out.items())}")
    if rank == 0 and (duplicates := find_duplicates(paths)):
        first, second, *_ = duplicates[0]
        print(f"{len(duplicates)} photographs occur more than once, e.g. {first} and {second}: each counts")
    photographs = load_photographs(paths, args.image_size, RECIPES[args.recipe].antialias, args.cache, args.max_bad)
    for why in photographs.unreadable.values():
        warn(f"left out: {why}")
    bad = photographs.unreadable
    processes.require_alike(lambda: {"the unreadable photographs": [k for k, path in enumerate(paths) if path in bad]})
    return photographs


def train_one_epoch(
    network: torch.nn.Module,
    state: dict[str, Any],
    photographs: np.ndarray | torch.Tensor,
    args: argparse.Namespace,
    processes: Processes,
    start: Progress,
    keep: Callable[[Progress], None],
    files_of: FilesOf,
    bar: tqdm,
) -> dict[str, float]:
    """The rest of a pass over the photographs, whose order is the epoch's own. Returns the row of `log.csv`."""
    rank, optimizer, scaler = processes.rank, state["optimizer"], state["scaler"]
    device = next(network.parameters()).device
    steps, share = len(photographs) // args.batch_size, args.batch_size // processes.count
    epoch = start.epoch
    order = epoch_order(args.seed, epoch, len(photographs))
    names = ("loss", "global", "local", "positive", "negative")
    losses = torch.zeros(steps, len(names), device=device) if start.losses is None else start.losses.to(device)
    network.train()
    started = shown = time.monotonic()
    global_weight, local_weight, *cell_weights = args.weights
    firsts = range(start.step * args.batch_size + rank * share, steps * args.batch_size, args.batch_size)
    members = [np.sort(order[first : first + share]) for first in firsts]
    kept: list[list[torch.Tensor]] = []
    for step, batch in enumerate(batches(photographs, members, device), start.step):
        images = batch.permute(0, 3, 1, 2).float() / 255
        generator = seeded_generator(args.seed, epoch, step, rank)
        composed = args.augmentation == "all"
        x, y = local_views(images, generator, args.grid, composed)
        whole = global_views(images, generator, args.crop, composed)
        if args.standardise:
            x, y, whole = map(standardise, (x, y, whole))

        rate = learning_rate(
            args.lr, epoch * steps + step, args.epochs * steps, args.schedule, args.warmup_epochs * steps
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        passes = []
        if args.non_finite == "skip":
            buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        for part in zip(*(views.chunk(args.accumulate) for views in (x, y, whole)), strict=True):
            last = len(passes) + 1 == args.accumulate
            with nullcontext() if last or processes.count == 1 else network.no_sync():
                with autocast(device, args.precision):
                    embeddings = Embeddings(*(vectors.float() for vectors in network(*part)))
                local = local_loss(*embeddings[:2], *cell_weights)
                globally = global_loss(*embeddings[2:])
                loss = global_weight * globally + local_weight * local.total
                scaler.scale(loss / args.accumulate).backward()
            passes.append([vectors.detach() for vectors in embeddings])
            losses[step] += torch.stack([loss, globally, *local]).detach() / args.accumulate
        if args.non_finite == "skip" and processes.largest(not losses[step].isfinite().all()):
            for buffer, before in buffers:
                buffer.copy_(before)
            warn(f"{describe_step(Progress(epoch, step, losses), step, files_of)}: skipped")
            losses[step] = math.nan
        else:
            scaler.step(optimizer)
            scaler.update()
            kept, seen = passes, (y, whole)

        bar.update(args.batch_size)
        if not bar.disable and time.monotonic() - shown > 1:  # reading the loss waits for the device
            shown = time.monotonic()
            bar.set_postfix(epoch=epoch + 1, loss=f"{losses[: step + 1, 0].nanmean().item():.4f}")
        if step + 1 < steps:
            keep(Progress(epoch, step + 1, losses))
    processes.add_up(losses)
    if args.non_finite == "stop":
        refuse_broken_losses(Progress(epoch, steps, losses), files_of)
    finite = losses[losses.isfinite().all(1)]
    if not kept:
        raise UserError(f"no loss of epoch {epoch + 1} was finite: lower --lr or use --precision float32")
    means = dict(zip(names, (finite.mean(0) / processes.count).tolist(), strict=True))
    speed = (steps - start.step) * args.batch_size / (time.monotonic() - started)
    embeddings = Embeddings(*(torch.cat(vectors) for vectors in zip(*kept, strict=True)))
    row = {"epoch": epoch + 1, **means, "lr": rate, "images_per_second": speed, "skipped": steps - len(finite)}
    return row | collapse_report(embeddings, *seen)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """In which order an epoch takes its photographs."""
    return torch.randperm(count, generator=seeded_generator(seed, epoch)).numpy()


if __name__ == "__main__":
    run_script(main, "lower --batch-size or --image-size, raise --accumulate, or take --checkpoint-activations")
