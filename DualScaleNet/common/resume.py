"""Pretraining resumes where it stopped, whichever host has its last checkpoint.

The first process alone writes the run folder. Which one that is may change with every start of torchrun, and the folder
may be each host's own or a shared one, so all hosts are asked for what they have.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from DualScaleNet.common.checkpoint import load_latest, restore
from DualScaleNet.common.device import refuse_other_precision
from DualScaleNet.common.options import TrainingOptions, plain_options, refuse_changes
from DualScaleNet.common.processes import Processes
from DualScaleNet.common.run import Position, Run
from DualScaleNet.common.script import UserError, warn

# What may differ when a run is resumed: none of it changes what an epoch computes.
FREE_OPTIONS = set("epochs run_dir resume cache max_bad device non_finite snapshot_every save_minutes".split())


def resume(run: Run, images: int) -> bool:
    """Brings a new run to where it stopped, if it did. Returns whether the first process lacks that checkpoint.

    `--resume auto` and `force` take the furthest checkpoint in the run folders of all hosts. `FILE` is taken from any
    host that has it, and `never` takes nothing; but where torchrun itself starts the processes again, both resume from
    what was saved since torchrun was started.

    Raises:
        UserError: the run has other options or photographs, or its files are damaged; the same in all processes.
    """
    options, processes = run.options, run.processes
    path, anew = run.folder / "last.pth", options.resume not in ("auto", "force")
    file = Path(options.resume) if anew and options.resume != "never" else None

    def load() -> dict[str, Any] | None:
        if not anew:
            return load_latest(path, run.kind)
        with suppress(UserError):  # of an earlier run
            checkpoint = load_latest(path, run.kind)
            if checkpoint and checkpoint.get("began") == processes.launch:
                return checkpoint
        found = load_latest(file, run.kind) if file and file.exists() else None
        return found and found | {"began": 0.0}

    checkpoint, owner = furthest(processes, load)
    if checkpoint is None:
        if file:
            raise UserError(f"no such file: {file}")
        run.start_at(Position(began=processes.launch))
        return False
    if file and not checkpoint.get("began"):
        path, checkpoint["began"] = file, processes.launch
    if options.resume != "force":
        sizes = checkpoint.get("sizes")  # which older versions did not note
        same = sizes == run.description()["sizes"]
        moved = {"data"} if same or processes.hosts > 1 else set()
        refuse_other_options(checkpoint, options, FREE_OPTIONS | moved, run.device, path.parent)
        if checkpoint["images"] != images or (sizes and not same):
            now = "their files are others" if checkpoint["images"] == images else f"there are {images}"
            raise UserError(
                f"{path.parent} began with {checkpoint['images']} photographs, now {now}: choose another --run-dir, "
                "start over with --resume never, or resume all the same with --resume force"
            )
    restore(path, checkpoint, run.parts())
    run.start_at(Position.of(checkpoint, run.steps_per_epoch))
    return owner > 0


def refuse_other_options(
    checkpoint: dict[str, Any], options: TrainingOptions, free: set[str], device: torch.device, folder: Path
) -> None:
    """A run is resumed with its options and in its precision. With a cosine schedule, epochs are not `free` either.

    Raises:
        UserError: names what differs.
    """
    if options.schedule == "cosine":
        free = free - {"epochs"}
    if "precision" in checkpoint:
        refuse_other_precision(checkpoint["precision"], device, options.precision, folder)
        free = free | {"precision"}
    refuse_changes(checkpoint["options"], plain_options(options), free, folder)


def furthest(processes: Processes, load: Callable[[], dict[str, Any] | None]) -> tuple[dict[str, Any] | None, int]:
    """Of the hosts' checkpoints that of the run begun last, and of it the furthest; and the rank that had it.

    Args:
        load: what this host has, if anything; asked of one process a host. What one host cannot read is no more than a
            warning if another one has a checkpoint.

    Raises:
        UserError: as `load`, if no host has a checkpoint.
    """
    checkpoint: dict[str, Any] | None = None
    place, problem = None, None
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
        print(f"resuming from the checkpoint of {answers[owner][0]}")
    return processes.hand_out(checkpoint, owner), owner
