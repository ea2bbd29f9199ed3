"""Which photographs there are: found in folders, nested or not, and compared."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from DualScaleNet.common.files import is_image
from DualScaleNet.common.script import UserError

# Folder names that hold a split, and names whose images are labels.
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LABEL_FOLDERS = {
    "label", "labels", "segmentation label", "groundtruth", "mask", "masks", "fov", "1st_manual", "2nd_manual",
}  # fmt: skip
CHUNK = 1 << 16  # bytes read at a time


def split_of(path: Path, folder: Path) -> str:
    """The split that a path under `folder` belongs to by a folder's name, "" for none."""
    return next((SPLITS[part.lower()] for part in path.relative_to(folder).parts if part.lower() in SPLITS), "")


def find_photographs(folders: list[Path], splits: list[str]) -> tuple[list[Path], Counter[str]]:
    """Photographs under `folders`, nested or not, and their number per split ("" for none).

    Below a folder named like a split only the wanted splits count; photographs outside any split always do. Label
    folders and hidden files are passed over. DDR's users' tree (ddr_757/train/img) and its release's
    (lesion_segmentation/train/image) both work.

    Raises:
        UserError: a folder is missing or holds no photograph of the wanted splits.
    """
    photographs: list[Path] = []
    counts: Counter[str] = Counter()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no photographs: {folder} is no folder (Dataset/README.md says where to get DDR)")
        found, seen = len(photographs), set[str]()
        for place, inner, names in os.walk(folder, followlinks=True):
            inner[:] = sorted(n for n in inner if not n.startswith(".") and n.lower() not in LABEL_FOLDERS)
            if os.path.realpath(place) in seen:  # a link leads back
                inner.clear()
                continue
            seen.add(os.path.realpath(place))
            split = split_of(Path(place), folder)
            images = [Path(place) / name for name in sorted(names) if is_image(name)]
            counts[split] += len(images)
            if split in ("", *splits):
                photographs += images
        if len(photographs) == found:
            raise UserError(f"no photographs of the splits {', '.join(splits)} in {folder}")
    return photographs, +counts


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
