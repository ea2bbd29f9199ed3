"""Types and checks of command-line options that both stages share."""

import argparse
import math
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from DualScaleNet.common.script import ROOT, UserError

STRIDE = 32  # of the encoder's deepest map: sides of crops and windows are multiples of it


class TrainingOptions(argparse.Namespace):
    """What both training scripts are called with."""

    epochs: int
    batch_size: int
    lr: float
    schedule: str
    precision: str
    device: str
    non_finite: str
    seed: int
    run_dir: Path
    resume: str
    save_minutes: float


def number(kind: Callable[[str], Any], fits: Callable[[Any], bool], what: str) -> Callable[[str], Any]:
    """A type for argparse: what `kind` reads and `fits` accepts; `what` says it in words."""

    def parse(text: str) -> Any:
        with suppress(ValueError):
            if fits(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"must be {what}, not {text}")

    return parse


positive_int = number(int, lambda value: value >= 1, "a whole number of at least 1")
natural_int = number(int, lambda value: value >= 0, "a whole number of at least 0")
positive = number(float, lambda value: 0 < value < math.inf, "a number above 0")
non_negative = number(float, lambda value: 0 <= value < math.inf, "a number of at least 0")
below_one = number(float, lambda value: 0 <= value < 1, "a fraction of at least 0 and below 1")
up_to_one = number(float, lambda value: 0 < value <= 1, "a fraction above 0 and at most 1")


def add_schedule(group: argparse._ArgumentGroup, by_recipe: bool = False) -> None:
    """--schedule, of both training scripts; not shown where the recipe sets it."""
    shown = (
        "Keep the learning rate constant, as the authors did, or let it fall to zero at the last epoch (cosine)."
    )
    group.add_argument(
        "--schedule", default=None if by_recipe else "constant", choices=["constant", "cosine"],
        help=argparse.SUPPRESS if by_recipe else shown,
    )


def add_device(group: argparse._ArgumentGroup) -> None:
    """--device, of every script with a network."""
    group.add_argument(
        "--device", default="auto",
        help="Compute on this device: auto (the GPU if there is one), cpu, cuda, cuda:1 or mps.",
    )


def add_machine(group: argparse._ArgumentGroup) -> None:
    """--precision, --device and --non-finite, of both training scripts."""
    group.add_argument(
        "--precision", default="auto", choices=["auto", "float32", "bfloat16", "float16"],
        help="Compute the network in this number format. auto takes bfloat16 where the hardware gains by it, "
        "otherwise float16 on GPUs and float32 on CPUs. Choose float32, as the authors did, if the loss becomes NaN.",
    )
    add_device(group)
    group.add_argument(
        "--non-finite", default="stop", choices=["stop", "skip"],
        help="If the loss of a batch is infinite or NaN, stop the run, or skip the batch and count it in log.csv.",
    )


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the module docstring as it is and ends each help text with the default, as a user would type it."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # the names of options and recipes stay whole

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, argparse.SUPPRESS, []) or action.default is False:
            return action.help
        return f"{action.help} Default: {as_typed(action.default)}."


def as_typed(value: Any) -> str:
    """An option's value as on the command line: lists by spaces, paths from the root of the repository."""
    if isinstance(value, list):
        return " ".join(map(as_typed, value))
    if isinstance(value, Path):
        return value.relative_to(ROOT).as_posix() if value.is_relative_to(ROOT) else str(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def plain_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options as plain types, for JSON and for a checkpoint: paths become strings, absolute."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value.resolve())
        return [plain(item) for item in value] if isinstance(value, list) else value

    return {name: plain(value) for name, value in vars(args).items()}


def refuse_changes(saved: dict[str, Any], current: dict[str, Any], free: set[str], folder: Path) -> None:
    """A run is resumed only with the options that it began with, except those in `free`.

    Raises:
        UserError: names each option that differs.
    """
    changed = {
        name: f"--{name.replace('_', '-')} was {as_typed(saved.get(name))}, now {as_typed(value)}"
        for name, value in current.items()
        if name not in free and saved.get(name) != value
    }
    if changed.keys() == {"epochs"}:  # which are free but for a cosine schedule
        raise UserError(
            f"the cosine schedule of the run in {folder} ends at epoch {saved['epochs']}, not {current['epochs']}: "
            "resume with --resume force, and the learning rate is the new schedule's; or start over with --resume never"
        )
    if changed:
        raise UserError(
            f"{folder} holds a run with other options ({'; '.join(changed.values())}): "
            "choose another --run-dir, start over with --resume never, or resume all the same with --resume force"
        )
