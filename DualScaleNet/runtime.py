"""What every entry script needs from the machine: readable errors, the device, seeded generators."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent


class UserError(Exception):
    """Something only the user can mend, said in one line: what, which file or option, what to do."""


class Stopped(Exception):
    """The run was asked to stop by a signal, and has saved what it had."""

    def __init__(self, number: int, run_dir: Path) -> None:
        super().__init__(f"stopped and saved in {run_dir}; the same command goes on from there")
        self.number = number


class StopSignal:
    """Notes SIGTERM and SIGINT, to be obeyed once the step is done; a second one, a second later, acts at once.

    torchrun passes on what its processes may have received already. `number` is the signal's, 0 for none yet.
    """

    def __init__(self) -> None:
        self.number, self.noted = 0, 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number and time.monotonic() - self.noted > 1:
            os._exit(128 + number)
        if not self.number:
            self.number, self.noted = number, time.monotonic()


@dataclass(frozen=True)
class Progress:
    """How far a run has come: whole epochs, steps of the next one, and the losses of these steps, (steps, ...)."""

    epoch: int
    step: int = 0
    losses: torch.Tensor | None = None


def run_script(main: Callable[[], None], lower: str = "") -> None:
    """Runs an entry point: a `UserError` becomes one line and exit code 1, Ctrl-C exit code 130.

    Args:
        lower: the options that make it need less memory.
    """
    name = Path(sys.argv[0]).name
    sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no text
    try:
        main()
    except UserError as error:
        sys.exit(f"{name}: error: {one_line(error)}")
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        sys.exit(f"{name}: error: out of memory: {lower}; a run goes on from its last checkpoint")
    except Stopped as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        sys.exit(128 + stop.number)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        sys.exit(130)


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


def warn(text: str) -> None:
    """A line on stderr, from the first process alone."""
    if int(os.environ.get("RANK", 0)) == 0:
        tqdm.write(f"warning: {one_line(text)}", file=sys.stderr)


def one_line(text: object) -> str:
    """File names may have line breaks."""
    return str(text).replace("\n", "\\n").replace("\r", "\\r")


def out_of_memory(error: Exception) -> bool:
    """Of a GPU, of the process, of NumPy."""
    kinds = MemoryError, torch.cuda.OutOfMemoryError
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def resolve_precision(device: torch.device, precision: str) -> str:
    """What `auto` means: bfloat16 where the hardware has it, else float16 on a GPU and float32 elsewhere."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    # Older versions of PyTorch cannot tell.
    able = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"


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
    """The commit of this checkout, or None outside git and where there is no git program."""
    try:
        answer = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    except OSError:
        return None
    return answer.stdout.strip() or None


def code_version() -> str:
    """Changes with any line of this package, committed or not."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]
