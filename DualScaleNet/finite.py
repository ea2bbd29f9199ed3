"""Losses and weights that are infinite or NaN: the run ends before they are saved, or skips the batch."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from DualScaleNet.runtime import Progress, UserError

FilesOf = Callable[[int, int], list[Path]]  # of the batch of an epoch's step, both from 0

ADVICE = "lower --lr or use --precision float32, then continue with --resume force (last.pth was saved before)"


def describe_step(progress: Progress, step: int, files_of: FilesOf) -> str:
    """A step's loss and the files of its batch. Waits for the device."""
    names = ", ".join(str(path) for path in files_of(progress.epoch, step))
    loss = progress.losses[step, 0].item()
    return f"the loss of step {step + 1} of epoch {progress.epoch + 1} is {loss} ({names})"


def refuse_broken_losses(progress: Progress, files_of: FilesOf) -> None:
    """Waits for the device.

    Raises:
        UserError: a loss so far is infinite or NaN; names the files of its batch.
    """
    broken = (~progress.losses.isfinite().all(1)).nonzero()
    if len(broken):
        what = describe_step(progress, int(broken[0]), files_of)
        raise UserError(f"{what}: {ADVICE}; or skip such batches with --non-finite skip")


def refuse_broken_weights(model: nn.Module, progress: Progress) -> None:
    """Such weights must not take the place of a checkpoint.

    Raises:
        UserError: a weight is infinite or NaN.
    """
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        when = f"step {progress.step} of epoch {progress.epoch + 1}" if progress.step else f"epoch {progress.epoch}"
        raise UserError(f"weights are no longer finite after {when}: {ADVICE}")
