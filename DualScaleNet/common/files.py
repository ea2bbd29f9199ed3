"""Photographs in, results out: finding and reading images, writing files whole or not at all, folders locked."""

import csv
import gzip
import io
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import numpy as np
from filelock import FileLock, Timeout
from PIL import ExifTags, Image, ImageChops, ImageOps, UnidentifiedImageError

from DualScaleNet.common.dicom import has_dicom_mark, read_dicom
from DualScaleNet.common.drawings import is_drawing
from DualScaleNet.common.script import UserError

JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif"}
DICOM_SUFFIXES = {".dcm", ".dicom"}
# What Pillow reads, as it is or gzipped, and DICOM.
IMAGE_SUFFIXES = JPEG_SUFFIXES | DICOM_SUFFIXES | {
    ".png", ".apng", ".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".webp", ".avif",
    ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".tga", ".psd", ".qoi",
}  # fmt: skip
DEEP_MODES = {"I;16", "I;16B", "I;16L", "I", "F"}  # Pillow's names of grey values of more than 8 bits
DEPTHS = (8, 10, 12, 14, 16)  # bits that a camera's values may have in a file of 16
BLACK = 16  # of 255: a photograph without a brighter value would be black
COLOUR = 1 << 24  # added to 0xRRGGBB: a label's colours are no greys or indices


class TextFormat(TypedDict):
    """What `open` and its like take."""

    encoding: str
    errors: str


UTF8: TextFormat = {"encoding": "utf-8", "errors": "backslashreplace"}  # a file's name need not be text


def list_images(folder: Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; hidden files and other kinds are skipped."""
    return sorted(path for path in folder.iterdir() if is_image(path.name)) if folder.is_dir() else []


def is_image(name: str) -> bool:
    """Whether a file name has an image's suffix, in either case, and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name.lower().removesuffix(".gz"))[1] in IMAGE_SUFFIXES


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its name or, where that is no image's, by how it begins."""
    return path.suffix.lower() in DICOM_SUFFIXES or (not is_image(path.name) and has_dicom_mark(path))


def read_image(path: Path, mode: str = "RGB", bits: int = 16, least: int | None = None) -> np.ndarray:
    """An image, upright: a photograph as uint8 (H, W, 3), or (H, W) as Pillow's `mode` "L" (uint8) or "I" (int32).

    A photograph is black where it is transparent. Of 16-bit values the 8 high bits are taken, for "I" all.

    Args:
        bits: how many of the 16 bits a photograph's values use, by `common_bits`.
        least: a format that gives a fraction of an image fast (JPEG) gives one of at least so many pixels on either
            side.

    Raises:
        UserError: the file is missing, damaged or no image; a photograph's values have more than 16 bits, or so much
            fewer than `bits` that it would be black.
    """
    if mode != "RGB":
        with _opened(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode in DEEP_MODES and mode != "I":
                image = Image.fromarray(_high_bits(np.asarray(image)))
            return np.asarray(image.convert(mode))
    if is_dicom(path):
        with _reading(path):
            return np.asarray(_shallow(read_dicom(path), bits).convert(mode))
    with _opened(path) as image:
        if least:
            image.draft(mode, (least, least))
        deep = _is_deep(image)  # before Pillow has loaded it, as it may for its tags
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if deep:
            image = _shallow(_deep_values(path, image), bits)
            image.getexif()[ExifTags.Base.Orientation] = orientation
        return np.asarray(_on_black(ImageOps.exif_transpose(image)).convert(mode))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an upright image, from its header.

    Raises:
        UserError: as `read_image`.
    """
    if is_dicom(path):
        height, width = read_image(path).shape[:2]
        return height, width
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
    return (width, height) if turned else (height, width)


@cache
def common_bits(paths: tuple[Path, ...]) -> int:
    """How many bits the 16-bit photographs among these use, all alike: as many as their largest value needs.

    Whoever passes all photographs of a run has none of them darkened or brightened against another. If it is less than
    16, it is said. Labels do not count.
    """
    with ThreadPoolExecutor() as pool:
        maxima = pool.map(_largest_value, [path for path in paths if path.suffix.lower() not in JPEG_SUFFIXES])
        largest = min(max(maxima, default=0), 65535)
    bits = next(bits for bits in DEPTHS if largest < 1 << bits) if largest else 16
    if bits < 16:
        print(f"the values of the 16-bit photographs reach {largest}: all are read as {bits}-bit values")
    return bits


def _largest_value(path: Path) -> int:
    """The largest of a photograph's values if the file has 16 bits for each; 0 for all other files, and for labels."""
    with suppress(UserError):  # whoever decodes it names it
        if is_dicom(path):
            with _reading(path):
                values = read_dicom(path)
                return 0 if values.dtype == np.uint8 or is_drawing(values) else int(values.max())
        with _opened(path) as image:
            if _is_deep(image) and not is_drawing(values := _deep_values(path, image)):
                return int(values.max())
    return 0


def read_drawing(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """How strongly each pixel of a label is marked, upright, in the file's own depth, and its value; both (H, W).

    The strength is a colour's brightest channel, and 0 where the drawing is transparent; of black on transparent it is
    the ink. The value is the grey, the index in a palette, or `COLOUR` + 0xRRGGBB where red, green and blue differ.

    Raises:
        UserError: as `read_image`.
    """
    with _opened(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode in (*DEEP_MODES, "1", "L"):
            grey = np.asarray(image.convert("L") if image.mode == "1" else image)
            if not np.isfinite(grey).all():
                raise ValueError("it has values that are no numbers")
            return grey, grey
        index = np.asarray(image) if image.mode == "P" else None
        red, green, blue, alpha = image.convert("RGBA").split()
    seen = ImageChops.multiply(ImageChops.lighter(ImageChops.lighter(red, green), blue), alpha)
    strength, ink = np.asarray(seen), np.asarray(alpha)
    if ink.min() < ink.max() and not strength.any():
        return ink, ink
    if index is not None:
        return strength, index
    return strength, _colour_values(*(np.asarray(ImageChops.multiply(each, alpha)) for each in (red, green, blue)))


def _colour_values(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """The grey where the channels (H, W) uint8 agree, elsewhere `COLOUR` + 0xRRGGBB; uint8 if they agree everywhere."""
    coloured = (red != green) | (green != blue)
    if not coloured.any():
        return red
    packed = COLOUR + (red.astype(np.int32) << 16 | green.astype(np.int32) << 8 | blue)
    return np.where(coloured, packed, red)


def is_turned(path: Path) -> bool:
    """Whether EXIF asks to show a photograph turned or mirrored, as `read_image` does.

    Raises:
        UserError: as `read_image`.
    """
    if is_dicom(path):
        return False
    with _opened(path) as image:
        return image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image in a file, gzipped or not; whatever fails until it is closed becomes a UserError."""
    with _reading(path), _open(path) as file, Image.open(file) as image:
        yield image


def _open(path: Path) -> BinaryIO:
    return io.BufferedReader(gzip.open(path)) if path.suffix.lower() == ".gz" else open(path, "rb")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever fails meanwhile becomes a UserError that names `path`."""
    try:
        yield
    except Exception as error:  # a decoder may raise anything on a broken file
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        if isinstance(error, FileNotFoundError):
            reason = "no such file"
        elif isinstance(error, UnidentifiedImageError):  # its text names an object in memory
            reason = "no image" if path.stat().st_size else "the file is empty"
        raise UserError(f"cannot read {path} ({reason}): replace or remove it") from None


def _is_deep(image: Image.Image) -> bool:
    """Whether an image that is open, not loaded, has more than 8 bits a value; Pillow itself makes 8 of colours' 16."""
    if image.mode in DEEP_MODES:
        return True
    kinds = [tile.args for tile in getattr(image, "tile", [])]
    return any(";16" in str(kind) or kind == ("RGB", 65535) for kind in kinds)  # the latter is PPM's


def _deep_values(path: Path, image: Image.Image) -> np.ndarray:
    """The values of an image with more than 8 bits for each, (H, W) or RGB (H, W, 3), 0 where it is transparent."""
    if image.mode in DEEP_MODES:
        return np.asarray(image)
    import cv2  # takes half a second, and few need it

    image.load()  # refuses a damaged file, which OpenCV would read in part
    with _open(path) as file:
        values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3:
        raise ValueError("colours of 16 bits that OpenCV does not read")
    if values.shape[2] == 4:
        alpha = values[..., 3:]
        values = values[..., :3] * (alpha > alpha.max() // 2)
    return values[..., ::-1]


def _shallow(values: np.ndarray, bits: int) -> Image.Image:
    """A photograph of 8 bits a value: those of `values` (uint8), or of 16-bit ones, that use `bits`, the 8 high bits.

    Raises:
        ValueError: there are values of more than 16 bits, or all would be black.
    """
    if values.dtype == np.uint8:
        return Image.fromarray(values)
    high = _high_bits(values, bits)
    if np.count_nonzero(high >= BLACK) < high.size / 1000 and not is_drawing(values):
        raise ValueError(f"values up to {values.max()} would be black among the {bits}-bit ones of the others")
    return Image.fromarray(high)


def _high_bits(values: np.ndarray, bits: int = 16) -> np.ndarray:
    """The 8 high bits, as Pillow takes them of colours; its own conversion of greys clips nearly all to white."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() >= 1 << 16:
        raise ValueError("more than 16 bits a value")
    return np.minimum(values >> (bits - 8), 255).astype(np.uint8)


def _on_black(image: Image.Image) -> Image.Image:
    """What is transparent becomes black, whatever colour lies under it."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))


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
            with suppress(OSError):  # Windows and some networks' disks cannot do it to a folder's list of names
                _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Brings a file, or a folder's list of names, to the disk."""
    # Windows flushes only what is open for writing, and no system opens a folder for that.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
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
