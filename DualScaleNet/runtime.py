"""What every entry script needs from the machine: readable errors, the device, processes, seeded generators."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import distributed

ROOT = Path(__file__).resolve().parent.parent


class UserError(Exception):
    """Something only the user can mend, said in one line: what, which file or option, what to do."""


def run_script(main: Callable[[], None]) -> None:
    """Runs an entry point: a `UserError` becomes one line and exit code 1, Ctrl-C exit code 130."""
    name = Path(sys.argv[0]).name
    try:
        main()
    except UserError as error:
        sys.exit(f"{name}: error: {error}")
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def select_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one; under torchrun each process takes the GPU of its local rank.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device {name}: not available here; use auto or cpu") from None
    return device


def join_processes(device: torch.device) -> tuple[int, int]:
    """Joins the processes that torchrun started. Returns (rank, number of processes), (0, 1) without torchrun."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def resolve_precision(device: torch.device, precision: str) -> str:
    """What `auto` means: bfloat16 on a GPU that has it, float16 on another GPU, float32 elsewhere."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision, or none for float32."""
    precision = resolve_precision(device, precision)
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "float32")


def grad_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Keeps float16's gradients from vanishing; for other precisions it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=resolve_precision(device, precision) == "float16")


def seeded_generator(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on `numbers` alone, e.g. (seed, epoch, step, rank).

    Randomness that is counted rather than carried along needs no saving: a resumed run draws what the undisturbed one
    would have drawn.
    """
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))


def git_commit() -> str | None:
    """The commit of this checkout, or None outside git."""
    answer = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    return answer.stdout.strip() or None
