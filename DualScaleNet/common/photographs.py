"""Which photographs there are: found in folders, nested or not, and compared."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from DualScaleNet.common.dicom import INSTALLED as DICOM_IS_READ
from DualScaleNet.common.files import is_dicom, is_image
from DualScaleNet.common.script import UserError

# Folder names that hold a split.
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
# Words in the names of folders, of official sets and of people's own: what is in them is a label, or a photograph.
LABEL = r"labels?|masks?|gt|ground[ _-]?truths?|annotations?|soft[ _-]?maps?"
LABEL_FOLDER = re.compile(rf"(.*[^a-z])?({LABEL}|fov)([^a-z].*)?|([12](st|nd)[ _-])?manual\d?")
PHOTOGRAPH_FOLDER = re.compile(r"(.*[^a-z])?(images?|imgs?|photos?|photographs?|originals?)([^a-z].*)?")
# How the names of labels end. IDRiD's OD is not among it, which is a right eye elsewhere.
LABEL_STEM = re.compile(
    rf"(.*[ _.-])?({LABEL}|manual\d?|[12](st|nd)ho)|.*segsoftmap|.*-(disc|cup)-(avg|exp\d|t)|im\d{{4}}\.(ah|vk)"
)
RESULT_FOLDER = re.compile(r"predictions-.*|probability|uncertainty|overlay|thumbnails")
RESULTS = {"curves.png", "curve.png"}
# Suffixes of what lies beside photographs and is not worth a word: text, tables, weights, what systems leave behind.
BESIDE = set(
    ".txt .md .log .pdf .doc .docx .html .htm .csv .tsv .xls .xlsx .ods .json .xml .yaml .yml .mat .py .ipynb .pth .pt "
    ".ini .db .lock".split()
) | {""}  # fmt: skip
CHUNK = 1 << 16  # bytes read at a time

# What is skipped: a noun, and why.
LABEL_BY_NAME, LABEL_BY_COLOURS = ("file", " with a label's name"), ("file", " with a label's few colours, or blank")
RESULT, DICOM = ("file", " written by this program"), ("DICOM file", ": pip install pydicom")
CLOSED, UNKNOWN, UNSAID = ("folder", " that cannot be opened"), ", a format that is not read", ("", "")
Skipped = dict[tuple[str, str], list[Path]]


class Found(NamedTuple):
    """The photographs in folders, how many each split has ("" for none), and by kind and reason what is skipped."""

    photographs: list[Path]
    counts: Counter[str]
    skipped: Skipped


def split_of(path: Path, folder: Path) -> str:
    """The split that a path under `folder` belongs to by a folder's name, "" for none."""
    return next((SPLITS[part.lower()] for part in path.relative_to(folder).parts if part.lower() in SPLITS), "")


def find_photographs(places: list[Path], splits: list[str]) -> Found:
    """Photographs among `places` and under them, nested or not.

    Below a folder named like a split only the wanted splits count; photographs outside any split always do. Labels, by
    their names, this program's own results and formats that are not read are skipped, hidden files without a word.
    DDR's users' tree (ddr_757/train/img) and its release's (lesion_segmentation/train/image) both work.

    Raises:
        UserError: a place is missing or holds no photograph of the wanted splits.
    """
    found = Found([], Counter(), {})
    for place in places:
        if not place.exists():
            raise UserError(f"no photographs: {place} does not exist")
        folder = place if place.is_dir() else place.parent
        before, others = len(found.photographs), Skipped()
        for path in _files(place, others) if place.is_dir() else [place]:
            kind = _skipped_as(path, path.relative_to(folder))
            if kind is None:
                split = split_of(path.parent, folder)
                found.counts[split] += 1
                if split in ("", *splits):
                    found.photographs.append(path)
            elif kind != UNSAID:
                others.setdefault(kind, []).append(path)
        if len(found.photographs) == before:
            wanted = f" of the splits {', '.join(splits)}" if len(splits) < len(set(SPLITS.values())) else ""
            raise UserError(f"no photographs{wanted} in {place}{f' ({skipped_line(others)})' if others else ''}")
        for kind, paths in others.items():
            found.skipped.setdefault(kind, []).extend(paths)
    return found


def skipped_line(others: Skipped) -> str:
    """What was skipped and why, in one line."""
    parts = []
    for (noun, why), paths in others.items():
        first = f"{paths[0]} first" if len(paths) > 1 else paths[0]
        parts.append(f"{len(paths)} {noun}{'s' * (len(paths) > 1)}{why} ({first})")
    return f"skipped: {'; '.join(parts)}"


def _files(folder: Path, others: Skipped) -> Iterator[Path]:
    """All files under a folder that are not hidden, sorted; adds to `others` the folders that cannot be opened."""

    def closed(error: OSError) -> None:
        others.setdefault(CLOSED, []).append(Path(error.filename))

    seen = set()
    for place, inner, names in os.walk(folder, onerror=closed, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if os.path.realpath(place) in seen:  # a link leads back
            inner.clear()
            continue
        seen.add(os.path.realpath(place))
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _skipped_as(path: Path, below: Path) -> tuple[str, str] | None:
    """As what a file is skipped, UNSAID where that is not worth a word; None for a photograph.

    Args:
        below: the file's path below the folder that was given, whose own name says nothing.
    """
    name, folders = path.name.lower(), [part.lower() for part in below.parts[:-1]]
    suffix, dicom = os.path.splitext(name)[1], is_dicom(path)
    readable = dicom or is_image(name)
    if not readable and suffix in BESIDE:
        return UNSAID
    if name in RESULTS or any(RESULT_FOLDER.fullmatch(folder) for folder in folders):
        return RESULT
    if not readable:
        return f"{suffix} file", UNKNOWN
    if LABEL_STEM.fullmatch(name.removesuffix(".gz").rpartition(".")[0]):
        return LABEL_BY_NAME
    for folder in reversed(folders):  # the innermost that says something
        if PHOTOGRAPH_FOLDER.fullmatch(folder):  # or "images and masks", of which `is_drawing` finds the latter
            break
        if LABEL_FOLDER.fullmatch(folder):
            return LABEL_BY_NAME
    return DICOM if dicom and not DICOM_IS_READ else None


def find_duplicates(paths: list[Path]) -> list[list[Path]]:
    """Groups of two or more files with the same content, in the order of `paths`.

    Only files of the same size are opened, and only those that also agree in the middle are read whole: the
    uncompressed photographs of a camera are all of one size. Unreadable and empty files are in no group.
    """
    groups = [paths]
    for key in (_size, _middle, _content):
        groups = [alike for group in groups for alike in _alike(group, key) if len(alike) > 1]
    return groups


def _alike(paths: list[Path], key: Callable[[Path], int | bytes]) -> list[list[Path]]:
    """The paths in groups of equal keys."""
    groups: dict[int | bytes, list[Path]] = {}
    for path in paths:
        with suppress(OSError):  # whoever decodes it names it
            groups.setdefault(key(path), []).append(path)
    groups.pop(0, None)  # empty files
    return list(groups.values())


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(path.stat().st_size // 2)
        return hashlib.sha256(file.read(CHUNK)).digest()


def _content(path: Path) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.digest()


def sizes_of(paths: list[Path]) -> str:
    """Changes with the size of any file, and with their order."""
    digest = hashlib.sha256()
    for path in paths:
        with suppress(OSError):  # whoever decodes it names it
            digest.update(f"{_size(path)} ".encode())
    return digest.hexdigest()[:12]
