"""Photographs in, results out: finding and reading images, writing files whole or not at all."""

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from DualScaleNet.runtime import UserError

# As they are or gzipped.
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".ppm", ".gif"}


def list_images(folder: Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; hidden files and other kinds are passed over."""
    return sorted(path for path in folder.iterdir() if is_image(path.name)) if folder.is_dir() else []


def is_image(name: str) -> bool:
    """Whether a file name has an image's suffix, in either case, and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name.lower().removesuffix(".gz"))[1] in IMAGE_SUFFIXES


def read_image(path: Path, mode: str = "RGB") -> np.ndarray:
    """A photograph, upright, as uint8 (H, W, 3), or with `mode="L"` a label as uint8 (H, W).

    Raises:
        UserError: the file is missing, damaged or no image.
    """
    try:
        opener = gzip.open if path.suffix.lower() == ".gz" else open
        with opener(path, "rb") as file, Image.open(file) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert(mode))
    except (OSError, EOFError, zlib.error, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"cannot read {path} ({reason}): replace or remove it") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place, safely on disk, once it is wholly written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_image(path: Path, array: np.ndarray) -> None:
    """Writes uint8 (H, W) or (H, W, 3) RGB, or uint16 (H, W), in the format of the suffix."""
    with replacing(path) as temporary:
        Image.fromarray(array).save(temporary)


def write_json(path: Path, content: Any) -> None:
    """Writes plain types as readable JSON; what is none (a path) becomes its string."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")
