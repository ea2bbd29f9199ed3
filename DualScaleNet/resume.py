"""Pretraining goes on where it stopped, whichever host has its last checkpoint.

The first process alone writes the run folder. Which one that is may change with every start of torchrun, and the folder
may be each host's own or a shared one, so all hosts are asked for what they have.
"""

import argparse
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from DualScaleNet.checkpoint import load_checkpoint, load_latest, restore, save_encoder, save_latest
from DualScaleNet.options import plain_options, refuse_changes
from DualScaleNet.processes import Processes
from DualScaleNet.runtime import Progress, UserError, warn

# What may differ when a run goes on: none of it changes what an epoch computes.
FREE_OPTIONS = set("epochs run_dir resume cache max_bad device non_finite snapshot_every save_minutes".split())


@dataclass(frozen=True)
class Run:
    """A run as it was when this start began.

    Args:
        began: when its first start was, in seconds: of two runs the later one goes on.
        done: how far it had come.
        rows: its log, which grows.
        elsewhere: the first process did not have its checkpoint.
    """

    began: float
    done: Progress
    rows: list[dict]
    elsewhere: bool = False


def resume(args: argparse.Namespace, processes: Processes, state: dict[str, Any], images: int) -> Run:
    """The run to go on with, loaded into `state` (model, optimizer, scaler), or a new one.

    `--resume auto` and `force` take the furthest checkpoint in the run folders of all hosts. `FILE` is taken from any
    host that has it, and `never` takes nothing; but where torchrun itself starts the processes again, both go on with
    what was saved since torchrun was started.

    Raises:
        UserError: the run has other options or photographs, or its files are damaged; the same in all processes.
    """
    path, anew = args.run_dir / "last.pth", args.resume not in ("auto", "force")
    file = Path(args.resume) if anew and args.resume != "never" else None

    def load() -> dict[str, Any] | None:
        if not anew:
            return load_latest(path, "pretraining")
        with suppress(UserError):  # of an earlier run
            checkpoint = load_latest(path, "pretraining")
            if checkpoint and checkpoint.get("began") == processes.launch:
                return checkpoint
        return load_checkpoint(file, "pretraining") | {"began": 0.0} if file and file.exists() else None

    checkpoint, owner = furthest(processes, load)
    if checkpoint is None:
        if file:
            raise UserError(f"no such file: {file}")
        return Run(processes.launch, Progress(0), [])
    began = checkpoint.get("began", 0.0)
    if file and not began:
        path, began = file, processes.launch
    if args.resume != "force":
        free = FREE_OPTIONS | ({"data"} if processes.hosts > 1 else set())
        free -= {"epochs"} if args.schedule == "cosine" else set()
        refuse_changes(checkpoint["options"], plain_options(args), free, path.parent)
        if checkpoint["images"] != images:
            raise UserError(
                f"{path.parent} began with {checkpoint['images']} photographs, now there are {images}: choose another "
                "--run-dir, start over with --resume never, or go on all the same with --resume force"
            )
    restore(path, checkpoint, state)
    losses, step = checkpoint["losses"], checkpoint["step"]
    if losses is not None and len(losses) != images // args.batch_size:
        losses, step = None, 0  # forced: the epoch has other steps now
    if losses is not None and processes.rank > 0:
        losses = torch.zeros_like(losses)  # the first process has them for all
    return Run(began, Progress(checkpoint["epoch"], step, losses), checkpoint["log"], owner > 0)


def furthest(processes: Processes, load: Callable[[], dict[str, Any] | None]) -> tuple[dict[str, Any] | None, int]:
    """Of the hosts' checkpoints that of the run begun last, and of it the furthest; and the rank that had it.

    Args:
        load: what this host has, if anything; asked of one process a host. What one host cannot read is no more than a
            warning if another one has a checkpoint.

    Raises:
        UserError: as `load`, if no host has a checkpoint.
    """
    checkpoint, place, problem = None, None, None
    if processes.first_of_host:
        try:
            checkpoint = load()
        except UserError as error:
            problem = str(error)
    if checkpoint:
        place = [checkpoint.get("began", 0.0), checkpoint["epoch"], checkpoint["step"]]
    answers = processes.gather([processes.name, place, problem])
    owners = [rank for rank, (_, place, _) in enumerate(answers) if place]
    problems = [(name, problem) for name, _, problem in answers if problem]
    if not owners:
        if problems:
            raise UserError(problems[0][1])
        return None, 0
    owner = max(owners, key=lambda rank: answers[rank][1])  # the first of equals
    for name, problem in problems:
        warn(f"{name}: {problem}")
    if owner and processes.rank == 0:
        print(f"going on with the checkpoint of {answers[owner][0]}")
    return processes.hand_out(checkpoint, owner), owner


def save(args: argparse.Namespace, state: dict[str, Any], run: Run, progress: Progress, images: int) -> None:
    """Writes last.pth, to go on from, and encoder.pth, to use."""
    content = {name: part.state_dict() for name, part in state.items()}
    content |= {"epoch": progress.epoch, "step": progress.step, "losses": progress.losses, "log": run.rows}
    content |= {"options": plain_options(args), "images": images, "began": run.began}
    save_latest(args.run_dir / "last.pth", "pretraining", content)
    save_encoder(args.run_dir / "encoder.pth", state["model"].encoder, args.recipe, progress.epoch, images)
