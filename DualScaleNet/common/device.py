"""The device that computes, in which precision, and random numbers that depend on their place in a run alone."""

import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from DualScaleNet.common.script import UserError

LIMIT = Path("/sys/fs/cgroup/memory.max")
DEFAULT_MEMORY = 4 << 30  # bytes, where the system cannot be asked
HELD = 0.25  # share of the free memory that decoded photographs may take


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
        if 0 < (gpus := torch.cuda.device_count()) <= int(os.environ.get("LOCAL_RANK", 0)):
            raise UserError(f"this machine has {gpus} GPUs: start torchrun with --nproc-per-node {gpus}") from None
        raise UserError(f"--device {name}: not available here; use auto or cpu") from None
    return device


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; a GPU copies it while the CPU goes on."""
    if device.type == "cuda" and not x.is_cuda:
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def free_memory(device: torch.device) -> int:
    """Bytes of the device's memory that are free; of a container at most its limit, whatever it uses of that."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        meminfo = Path("/proc/meminfo").read_text()
    except OSError:  # not Linux
        return DEFAULT_MEMORY
    free = 1024 * int(meminfo.split("MemAvailable:")[1].split()[0])
    with suppress(OSError, ValueError):  # the limit of a container; "max" is none
        free = min(free, int(LIMIT.read_text()))
    return free


def resolve_precision(device: torch.device, precision: str) -> str:
    """What `auto` means: bfloat16 where the hardware gains by it, else float16 on a GPU and float32 elsewhere."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    # Older versions of PyTorch cannot tell.
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    # Intel's AVX512-BF16 multiplies no faster than float32: without AMX a Xeon loses 9 to 21 % by it (speed.md).
    gains = able.get("amx_bf16") or (able.get("avx512_bf16") and "Intel" not in able.get("cpu_name", ""))
    return "bfloat16" if gains else "float32"


def refuse_other_precision(saved: str | None, device: torch.device, precision: str, folder: Path) -> None:
    """A run is resumed in the precision that it began in; what `auto` means may change with the machine.

    Args:
        saved: the run's, resolved; None in checkpoints of older versions.

    Raises:
        UserError: it is another one now.
    """
    now = resolve_precision(device, precision)
    if saved and saved != now:
        raise UserError(
            f"the run in {folder} computes in {saved}, --precision {precision} is {now} on this machine: resume with "
            f"--precision {saved}, or all the same with --resume force"
        )


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision, or none for float32."""
    precision = resolve_precision(device, precision)
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "float32")


def training_layout(device: torch.device, precision: str) -> torch.memory_format:
    """Of a decoder's convolutions: channels last, but not in float32 on a CPU, where that doubles a backward pass."""
    slow = device.type == "cpu" and resolve_precision(device, precision) == "float32"
    return torch.contiguous_format if slow else torch.channels_last


def grad_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Keeps float16's gradients from vanishing; for other precisions it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=resolve_precision(device, precision) == "float16")


def seeded_generator(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on `numbers` alone, e.g. (seed, epoch, step, rank); zeros at their end do not count.

    Randomness that is counted rather than carried along needs no saving: a resumed run draws what the undisturbed one
    would have drawn.
    """
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))
