"""Types and checks of command-line options that both stages share."""

import argparse
from pathlib import Path
from typing import Any

from DualScaleNet.runtime import UserError


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def natural_int(text: str) -> int:
    """A whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {text}")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def weight(text: str) -> float:
    """A number of at least 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be at least 0, not {text}")
    return value


def fraction(text: str) -> float:
    """A number of at least 0 and below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, not {text}")
    return value


def share(text: str) -> float:
    """A number above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, not {text}")
    return value


def add_schedule(group: argparse._ArgumentGroup, default: str | None = "constant") -> None:
    """--schedule, of both training scripts."""
    group.add_argument(
        "--schedule", default=default, choices=["constant", "cosine"],
        help="the authors kept the rate constant; cosine lets it fall to zero at the last epoch",
    )


def add_machine(group: argparse._ArgumentGroup) -> None:
    """--precision, --device and --non-finite, of both training scripts."""
    group.add_argument(
        "--precision", default="auto", choices=["auto", "float32", "bfloat16", "float16"],
        help="auto: bfloat16 on GPUs and CPUs that have it, float16 on other GPUs, float32 on other CPUs; the authors "
        "took float32",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    group.add_argument(
        "--non-finite", default="stop", choices=["stop", "skip"],
        help="what to do when a loss is infinite or no number; skip: leave the batch out, and count it in the log",
    )


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the module docstring as it is and adds each default to its help text."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def plain_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options as plain types, for JSON and for a checkpoint: paths become strings, absolute."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value.resolve())
        return [plain(item) for item in value] if isinstance(value, list) else value

    return {name: plain(value) for name, value in vars(args).items()}


def refuse_changes(saved: dict[str, Any], current: dict[str, Any], free: set[str], folder: Path) -> None:
    """A run goes on only with the options that it began with, except those in `free`.

    Raises:
        UserError: names each option that differs.
    """
    changed = [
        f"--{name.replace('_', '-')} was {saved.get(name)}, now {value}"
        for name, value in current.items()
        if name not in free and saved.get(name) != value
    ]
    if changed:
        raise UserError(
            f"{folder} holds a run with other options ({'; '.join(changed)}): "
            "choose another --run-dir, start over with --resume never, or go on all the same with --resume force"
        )
