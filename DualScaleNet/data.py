"""Unlabelled photographs, decoded and resized once, then read from a memory-mapped cache.

The resize precedes every random operation, so its result can be kept. The cache is one `.npy` file named after the
identity (path, size, time of change) of every photograph and the way of resizing: a changed source has another name.
Beside it lies a list of the files that are not in it, and why. Both are safe to delete.
"""

import hashlib
import json
import math
import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from DualScaleNet.common.device import HELD, free_memory, to_device
from DualScaleNet.common.drawings import is_drawing
from DualScaleNet.common.files import common_bits, read_image, replacing, write_json, writing
from DualScaleNet.common.script import UserError, progress_bar
from DualScaleNet.common.surroundings import black_surroundings

VERSION = 3  # of what a cache file and its list hold: older ones are not read
LABEL = "a label"  # why a file is not in the cache that can be read


@dataclass(frozen=True)
class Photographs:
    """Decoded photographs, uint8 RGB (N, size, size, 3), memory-mapped; their N files; why the others are not there.

    `labels`: files that were left out because their colours are a label's.
    """

    array: np.ndarray
    paths: list[Path]
    unreadable: dict[Path, str]
    labels: list[Path]


def load_photographs(paths: list[Path], size: int, antialias: bool, cache: Path, max_bad: float = 0.0) -> Photographs:
    """All photographs that can be read; decoded in parallel if they are not in the cache yet.

    Args:
        max_bad: share of the photographs that may be unreadable.

    Raises:
        UserError: more cannot be read; or there is no room for the cache.
    """
    path = cache / f"{_identity(paths, size, antialias)}.npy"
    if not _is_current(path):
        with writing(cache):
            cache.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_suffix(".lock")).acquire()
        with lock:
            if not _is_current(path):  # of several processes one decodes
                _decode(paths, size, antialias, path, max_bad)
    listed = _left_out(path)
    left_out = {each: why for each in paths if (why := listed.get(os.path.realpath(each)))}
    labels = [each for each, why in left_out.items() if why == LABEL]
    bad = {each: why for each, why in left_out.items() if why != LABEL}
    _refuse(bad, len(paths) - len(labels), max_bad)
    return Photographs(np.load(path, mmap_mode="r"), [each for each in paths if each not in left_out], bad, labels)


def _left_out(path: Path) -> dict[str, str]:
    """Which files are not in a cache file, by their real paths, and why."""
    listed = path.with_suffix(".json")
    return json.loads(listed.read_text()) if listed.exists() else {}


def _is_current(path: Path) -> bool:
    """Whether the cache file is there, and no photograph that is missing in it can be read by now."""
    return path.exists() and not any(why != LABEL and _is_readable(Path(each)) for each, why in _left_out(path).items())


def _decode(paths: list[Path], size: int, antialias: bool, target: Path, max_bad: float) -> None:
    """Writes the cache file, and beside it the list of the files that are not in it."""
    target.unlink(missing_ok=True)
    left_out: dict[Path, str] = {}
    rows = 0
    with replacing(target) as temporary, closing(_decoded(paths, size, antialias)) as decoded:
        array = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(paths), size, size, 3))
        _reserve(temporary)
        for path, image in zip(paths, progress_bar(decoded, "decode", len(paths), unit="photo"), strict=True):
            if isinstance(image, str):
                left_out[path] = image
                if image != LABEL:
                    _refuse({each: why for each, why in left_out.items() if why != LABEL}, len(paths), max_bad)
            else:
                array[rows] = image
                rows += 1
        if not rows:
            raise UserError(f"no photographs: no file is readable but labels, {paths[0]} first")
        _shorten(temporary, rows)
        write_json(target.with_suffix(".json"), {os.path.realpath(path): why for path, why in left_out.items()})


def _decoded(paths: list[Path], size: int, antialias: bool) -> Generator[np.ndarray | str, None, None]:
    """Each photograph resized, or why there is none, in order; several are decoded at once."""
    bits = common_bits(tuple(paths))
    with ThreadPoolExecutor() as pool:
        yield from pool.map(lambda path: decode(path, size, antialias, bits), paths)


def decode(path: Path, size: int, antialias: bool, bits: int = 16) -> np.ndarray | str:
    """A photograph as pretraining sees it, uint8 (size, size, 3) RGB; or why there is none, `LABEL` for a label.

    Args:
        bits: as `common_bits` has it of all photographs.
    """
    try:
        image = read_image(path, bits=bits)
    except UserError as error:
        return str(error)
    resize = _resize_antialiased if antialias else _resize_plain
    return LABEL if is_drawing(image) else resize(black_surroundings(image), size)


def _refuse(bad: dict[Path, str], count: int, max_bad: float) -> None:
    if len(bad) > max_bad * count or len(bad) == count:
        share = f"more than --max-bad {max_bad:g} of {count} photographs are unreadable"
        raise UserError(f"{next(iter(bad.values()))}; {share}")


def _is_readable(path: Path) -> bool:
    try:
        read_image(path)
    except UserError:
        return False
    return True


def _shorten(path: Path, rows: int) -> None:
    """Keeps the first rows of an array; its header has room for any number of them."""
    with open(path, "r+b") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
        file.seek(0)
        header = {"descr": dtype.str, "fortran_order": False, "shape": (rows, *shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(start + rows * math.prod(shape[1:]))


def _reserve(path: Path) -> None:
    """Takes the whole file's space now: a full disk met later, through the mapping, would kill the process."""
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    size = path.stat().st_size
    try:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        need = f"{size / 2**30:.1f} GiB"
        raise UserError(f"no room for {need} in {path.parent} ({error.strerror}): choose another --cache") from None


def hold(photographs: np.ndarray, device: torch.device) -> np.ndarray | Tensor:
    """A GPU with room for them holds all photographs; otherwise they stay in the mapping."""
    if device.type != "cuda" or photographs.nbytes > HELD * free_memory(device):
        return photographs
    held = torch.empty(photographs.shape, dtype=torch.uint8, device=device)
    for first in range(0, len(photographs), 1024):
        held[first : first + 1024] = torch.from_numpy(photographs[first : first + 1024].copy())
    return held


def batches(photographs: np.ndarray | Tensor, indices: list[np.ndarray], device: torch.device) -> Iterator[Tensor]:
    """Yields photographs[index], (n, size, size, 3) uint8 on `device`, for each index; the next one is being read."""

    def read(index: np.ndarray) -> Tensor:
        if isinstance(photographs, Tensor):
            return photographs[torch.from_numpy(index).to(photographs.device, non_blocking=True)]
        batch = torch.from_numpy(photographs[index])
        return to_device(batch, device)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, indices[0])
        for index in indices[1:]:
            batch, ahead = ahead.result(), pool.submit(read, index)
            yield batch
        yield ahead.result()


def _identity(paths: list[Path], size: int, antialias: bool) -> str:
    """A name for these photographs as they are now, resized in this way."""
    digest = hashlib.sha256(f"{VERSION} {size} {antialias}".encode())
    for path in paths:
        digest.update(b"\n" + os.fsencode(os.path.realpath(path)))
        with suppress(OSError):  # whoever decodes it names it
            status = path.stat()
            digest.update(f" {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:20]


def _resize_antialiased(image: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def _resize_plain(image: np.ndarray, size: int) -> np.ndarray:
    """Plain bilinear sampling, as the authors': it aliases a large photograph."""
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
