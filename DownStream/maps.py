"""What a prediction leaves in files: probability maps as 16-bit PNG, or float32 as .npy or TIFF; masks and pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from DualScaleNet.common.files import read_image, replacing, write_image
from DualScaleNet.common.script import UserError

MAP_FORMATS = ("png", "npy", "tiff")  # suffixes
JPEG = {"quality": 80, "subsampling": 0}  # halved colours would blur the thin lines of an overlay


def write_result(path: Path, array: np.ndarray) -> None:
    """Writes an array in the format of the suffix.

    Args:
        array: float32 (H, W) for .npy and .tiff, uint8 RGB (H, W, 3) for .jpg, otherwise as for `write_image`.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    if path.suffix == ".png":
        return write_image(path, array)
    with replacing(path) as temporary:
        if path.suffix == ".npy":
            np.save(temporary, array)
        else:
            compression = JPEG if path.suffix == ".jpg" else {"compression": "tiff_adobe_deflate"}
            Image.fromarray(array).save(temporary, **compression)


def read_map(path: Path) -> np.ndarray:
    """A saved probability map, float32 (H, W) in [0, 1].

    Raises:
        UserError: the file is missing or damaged.
    """
    if path.suffix == ".png":
        return read_image(path, "I").astype(np.float32) / 65535
    try:
        if path.suffix == ".npy":
            return np.load(path)
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {path} ({error}): predict it again") from None
