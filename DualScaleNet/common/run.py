"""A training run of either script: how far it is, when it is saved, and how it ends."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from DualScaleNet.common.checkpoint import save_latest
from DualScaleNet.common.device import grad_scaler, resolve_precision, seeded_generator
from DualScaleNet.common.options import TrainingOptions, plain_options
from DualScaleNet.common.processes import Processes
from DualScaleNet.common.runlog import RunLog, draw_curves, write_options
from DualScaleNet.common.schedule import learning_rate
from DualScaleNet.common.script import Stopped, StopSignal, UserError, progress_bar, warn

ADVICE = "lower --lr or use --precision float32, then continue with --resume force (last.pth was saved before)"


@dataclass(frozen=True)
class Position:
    """Where a run stands: whole epochs, steps of the next one, the losses of these steps (steps, terms), and its log.

    `began`: when its first start was, in seconds. Of two runs the one begun later is resumed.
    """

    epoch: int = 0
    step: int = 0
    losses: Tensor | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    began: float = 0.0

    @classmethod
    def of(cls, checkpoint: dict[str, Any], steps: int) -> "Position":
        """What a checkpoint says. If its epoch had other than `steps` steps (--resume force), the epoch starts anew."""
        losses, step = checkpoint["losses"], checkpoint["step"]
        if losses is not None and len(losses) != steps:
            losses, step = None, 0
        return cls(checkpoint["epoch"], step, losses, checkpoint["log"], checkpoint.get("began", 0.0))


@lru_cache(maxsize=1)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """In which order an epoch takes its photographs, by their numbers; the same in all processes."""
    return torch.randperm(count, generator=seeded_generator(seed, epoch)).numpy()


class Run(ABC):
    """What surrounds the loss in a training script: learning rate, optimiser, progress, log, checkpoints, signals.

        for epoch in run.epochs():
            for step in run.steps():
                loss = ...
                run.backward(loss)
                run.end_step(loss)
            run.end_epoch(run.summary(images_of_each_step))

    The run saves last.pth every --save-minutes, at its end, and when a signal stops it. A subclass says what else its
    checkpoint holds. Under torchrun each process has a run, and the first one writes the files.

    Attributes:
        epoch, step: whole epochs done, and steps of the current one.
        losses: of the current epoch's steps, (steps, terms), on the network's device.
        rows: what log.csv holds.
        first: whether this process writes the files.
    """

    kind: str  # of the checkpoint
    terms: tuple[str, ...] = ("loss",)  # of the loss, the whole first: columns of log.csv
    panels: ClassVar[dict[str, list[str]]]  # of curves.png: columns of log.csv by title

    def __init__(
        self,
        options: TrainingOptions,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        steps: int,
        processes: Processes | None = None,
    ) -> None:
        self.options, self.model, self.optimizer, self.steps_per_epoch = options, model, optimizer, steps
        self.processes = processes or Processes()
        self.first = self.processes.rank == 0
        self.folder: Path = options.run_dir
        self.device = next(model.parameters()).device
        self.scaler = grad_scaler(self.device, options.precision)
        self.bar, self.shown, self.saved = progress_bar(disable=True), 0.0, -math.inf
        self.start_at(Position())

    # What a subclass adds.

    @abstractmethod
    def files_of(self, epoch: int, step: int) -> Sequence[Path]:
        """The files of a step's batch, for messages."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What the checkpoint holds beyond the states, the options, the log and the position."""

    # The run from its start to its end.

    def parts(self) -> dict[str, Any]:
        """What has a state in the checkpoint."""
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def start_at(self, position: Position) -> None:
        """Goes on there; the states of `parts` are restored by whoever read the checkpoint."""
        self.epoch, self.step, self.rows, self.began = position.epoch, position.step, position.rows, position.began
        empty = torch.zeros(self.steps_per_epoch, len(self.terms), device=self.device)
        self.losses = empty if position.losses is None else position.losses.to(self.device)

    def is_over(self) -> bool:
        """Whether nothing is left to do; says so."""
        over = self.epoch >= self.options.epochs
        if over and self.first:
            advice = "raise --epochs to train on"
            if self.options.schedule == "cosine":
                advice = (
                    "its cosine schedule ends there; to train on, raise --epochs and add --resume force, "
                    "and the learning rate is the longer schedule's"
                )
            print(f"{self.folder} is already at epoch {self.epoch}: {advice}")
        return over

    def begin(self, what: str) -> None:
        """Writes args.json, opens log.csv, says `what` is trained and from where, and listens to signals."""
        self.stop = StopSignal()
        if not self.first:
            return
        write_options(self.folder, plain_options(self.options))
        self.log = RunLog(self.folder, self.rows)
        print(f"{what} on {self.device} -> {self.folder}")
        if self.epoch or self.step:
            print(f"resuming after epoch {self.epoch}" + (f", step {self.step} of the next" if self.step else ""))

    def epochs(self) -> Iterator[int]:
        """The epochs that are left, from 0, under a progress bar."""
        done, total = self.epoch * self.steps_per_epoch + self.step, self.options.epochs * self.steps_per_epoch
        with progress_bar(total=total, initial=done, unit="step", disable=None if self.first else True) as self.bar:
            while self.epoch < self.options.epochs:
                yield self.epoch

    def steps(self) -> Iterator[int]:
        """The steps that are left of this epoch, from 0; each begins with its learning rate and without gradients."""
        self.began_epoch, self.steps_before = time.monotonic(), self.step
        steps, options = self.steps_per_epoch, self.options
        warmup = getattr(options, "warmup_epochs", 0) * steps  # pretraining alone has the option
        while self.step < steps:
            now = self.epoch * steps + self.step
            self.lr = learning_rate(options.lr, now, options.epochs * steps, options.schedule, warmup)
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr
            self.optimizer.zero_grad()
            skips = options.non_finite == "skip"
            self.statistics = [(each, each.clone()) for each in self.model.buffers()] if skips else []
            yield self.step

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a scalar loss."""
        self.scaler.scale(loss).backward()

    def end_step(self, terms: Tensor) -> bool:
        """The optimiser's step, unless the loss is broken and --non-finite is skip. Saves if it is time to.

        Args:
            terms: of this step's loss, (terms,), or the loss alone, without a graph.

        Returns:
            whether the step was taken.
        """
        self.losses[self.step] = terms
        skip = self.options.non_finite == "skip"
        skip = skip and bool(self.processes.largest(not self.losses[self.step].isfinite().all()))
        if skip:
            for buffer, before in self.statistics:
                buffer.copy_(before)
            warn(f"{self.describe_step(self.step)}: skipped")
            self.losses[self.step] = math.nan
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.step += 1
        if not self.bar.disable and time.monotonic() - self.shown > max(1, self.bar.mininterval):
            self.shown = time.monotonic()
            loss = self.losses[: self.step, 0].nanmean().item()  # waits for the device
            self.bar.set_postfix(epoch=self.epoch + 1, loss=f"{loss:.4f}", refresh=False)
        self.bar.update()
        if self.step < self.steps_per_epoch:
            self.save_if_due()
        return not skip

    def summary(self, images: Sequence[int]) -> dict[str, Any]:
        """The epoch's row of log.csv, once all its steps are done.

        Args:
            images: how many each step had, over all processes.

        Raises:
            UserError: a loss is infinite or NaN; with --non-finite skip, all of this start.
        """
        self.processes.average(self.losses)
        self._refuse_broken_losses()
        taken = self.losses.isfinite().all(1)
        if not taken[self.steps_before :].any():
            raise UserError(f"no loss of epoch {self.epoch + 1} was finite: lower --lr or use --precision float32")
        weights = torch.tensor(images, device=self.device)[taken, None]
        means = (self.losses[taken] * weights).sum(0) / weights.sum()
        seconds = time.monotonic() - self.began_epoch
        return {
            "epoch": self.epoch + 1, **dict(zip(self.terms, means.tolist(), strict=True)), "lr": self.lr,
            "images_per_second": sum(images[self.steps_before :]) / seconds, "skipped": int((~taken).sum()),
        }  # fmt: skip

    def end_epoch(self, row: dict[str, Any], save: bool = False) -> None:
        """Logs the epoch. Saves if it is the last one, if it is time to, or if `save`."""
        if self.first:
            self.log.append(row)
        self.start_at(Position(self.epoch + 1, rows=self.rows, began=self.began))
        self.save_if_due(save or self.epoch == self.options.epochs)

    # Saving.

    def save(self) -> None:
        """Writes curves.png and last.pth, the latter last of all, so that a killed run writes the others again."""
        content = {name: part.state_dict() for name, part in self.parts().items()}
        content |= {"epoch": self.epoch, "step": self.step, "losses": self.losses if self.step else None}
        content |= {"log": self.rows, "began": self.began, "options": plain_options(self.options)}
        content |= {"precision": resolve_precision(self.device, self.options.precision)}
        draw_curves(self.folder / "curves.png", self.rows, self.panels)
        save_latest(self.folder / "last.pth", self.kind, content | self.description())

    def save_if_due(self, now: bool = False) -> None:
        """Saves, or stops because of a signal; all processes decide alike.

        Raises:
            Stopped: a signal asked for it; the run is saved.
            UserError: a loss or a weight is infinite or NaN, which must not take the place of a checkpoint.
        """
        due = self.first and (now or time.monotonic() - self.saved > 60 * self.options.save_minutes)
        verdict = self.processes.largest(self.stop.number or due)  # SIGINT is 2, SIGTERM 15
        if not verdict:
            return
        if self.step:
            self.processes.average(self.losses)
            self._refuse_broken_losses()
        if self.first:
            self.refuse_broken_weights()
            self.save()
            self.saved = time.monotonic()
        if verdict > 1:
            raise Stopped(verdict, self.folder)

    def describe_step(self, step: int) -> str:
        """The loss of a step of this epoch and the files of its batch. Waits for the device."""
        names = ", ".join(str(path) for path in self.files_of(self.epoch, step))
        return f"the loss of step {step + 1} of epoch {self.epoch + 1} is {self.losses[step, 0].item()} ({names})"

    def _refuse_broken_losses(self) -> None:
        if self.options.non_finite == "skip":
            return
        broken = (~self.losses.isfinite().all(1)).nonzero()
        if len(broken):
            what = self.describe_step(int(broken[0]))
            raise UserError(f"{what}: {ADVICE}; or skip such batches with --non-finite skip")

    def refuse_broken_weights(self) -> None:
        """Such weights must not take the place of a checkpoint.

        Raises:
            UserError: a weight is infinite or NaN.
        """
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            when = f"step {self.step} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"
            raise UserError(f"weights are no longer finite after {when}: {ADVICE}")
