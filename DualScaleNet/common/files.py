"""Photographs in, results out: finding and reading images, writing files whole or not at all, folders locked."""

import csv
import gzip
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import ExifTags, Image, ImageChops, ImageOps, UnidentifiedImageError

from DualScaleNet.common.script import UserError

# As they are or gzipped.
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".gif", ".webp"}
UTF8 = {"encoding": "utf-8", "errors": "backslashreplace"}  # a file's name need not be text
DEEP_MODES = {"I;16", "I;16B", "I;16L", "I", "F"}  # Pillow's names of grey values of more than 8 bits


def list_images(folder: Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; hidden files and other kinds are passed over."""
    return sorted(path for path in folder.iterdir() if is_image(path.name)) if folder.is_dir() else []


def is_image(name: str) -> bool:
    """Whether a file name has an image's suffix, in either case, and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name.lower().removesuffix(".gz"))[1] in IMAGE_SUFFIXES


def read_image(path: Path, mode: str = "RGB", least: int | None = None) -> np.ndarray:
    """An image, upright: a photograph as uint8 (H, W, 3), or (H, W) as Pillow's `mode` "L" (uint8) or "I" (int32).

    Of 16-bit values the 8 high bits are taken, for "I" all. With `least` a format that gives a fraction of an image
    fast (JPEG) gives one of at least so many pixels on either side.

    Raises:
        UserError: the file is missing, damaged or no image, or a photograph's values have more than 16 bits.
    """
    with _opened(path) as image:
        if least:
            image.draft(mode, (least, least))
        image = ImageOps.exif_transpose(image)
        if image.mode in DEEP_MODES and mode != "I":
            image = _high_byte(image)
        return np.asarray(image.convert(mode))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an upright image, from its header.

    Raises:
        UserError: as `read_image`.
    """
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
    return (width, height) if turned else (height, width)


def read_drawing(path: Path) -> np.ndarray:
    """How strongly each pixel of a label is marked, upright, (H, W), in the file's own depth.

    It is a colour's brightest channel, and 0 where the drawing is transparent; of black on transparent it is the ink.

    Raises:
        UserError: as `read_image`.
    """
    with _opened(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode in DEEP_MODES:
            return np.asarray(image)
        if image.mode in ("1", "L"):
            return np.asarray(image.convert("L"))
        red, green, blue, alpha = image.convert("RGBA").split()
    seen = ImageChops.multiply(ImageChops.lighter(ImageChops.lighter(red, green), blue), alpha)
    least, most = alpha.getextrema()
    return np.asarray(alpha if least < most and not seen.getbbox() else seen)


def is_turned(path: Path) -> bool:
    """Whether EXIF asks to show a photograph turned or mirrored, as `read_image` does.

    Raises:
        UserError: as `read_image`.
    """
    with _opened(path) as image:
        return image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image in a file, gzipped or not; whatever fails until it is closed becomes a UserError."""
    try:
        opener = gzip.open if path.suffix.lower() == ".gz" else open
        with opener(path, "rb") as file, Image.open(file) as image:
            yield image
    except Exception as error:  # a decoder may raise anything on a broken file
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        if isinstance(error, FileNotFoundError):
            reason = "no such file"
        elif isinstance(error, UnidentifiedImageError):  # its text names an object in memory
            reason = "no image" if path.stat().st_size else "the file is empty"
        raise UserError(f"cannot read {path} ({reason}): replace or remove it") from None


def _high_byte(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits in 8, as Pillow does with colours; its own conversion clips nearly all to white."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() >= 1 << 16:
        raise ValueError("more than 16 bits a value")
    return Image.fromarray((values >> 8).astype(np.uint8))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever the disk refuses meanwhile becomes a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): make room or choose another folder, and run it again"
        ) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place, safely on disk, once it is wholly written.

    What a killed process leaves of it is overwritten the next time.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
            if os.name == "posix":
                _flush(path.parent)  # the names
        finally:
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Brings a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def claim(folder: Path) -> None:
    """Keeps other processes out of a folder until this one ends, however it ends.

    Raises:
        UserError: another process has it, or the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", is_singleton=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{folder} is in use by another process: let it end, or choose another folder") from None
    _claims.append(lock)


_claims: list[FileLock] = []


def write_image(path: Path, array: np.ndarray) -> None:
    """Writes uint8 (H, W) or (H, W, 3) RGB, or uint16 (H, W), in the format of the suffix."""
    with replacing(path) as temporary:
        Image.fromarray(array).save(temporary, compress_level=3)  # PNG: twice as fast as the default, a tenth larger


def write_rows(path: Path, rows: list[dict[str, Any]], columns: Iterable[str] = ()) -> None:
    """Writes rows of the same keys as CSV in UTF-8; what is no text in a file's name is escaped.

    `columns`: the keys, where there may be no row.
    """
    with replacing(path) as temporary, open(temporary, "w", newline="", **UTF8) as file:
        writer = csv.DictWriter(file, list(columns) or list(rows[0] if rows else []))
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, content: Any) -> None:
    """Writes plain types as readable JSON; what is none (a path) becomes its string."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")
