"""Photographs in DICOM files, which hospitals' archives give out, by pydicom where it is installed."""

import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

INSTALLED = importlib.util.find_spec("pydicom") is not None


def has_dicom_mark(path: Path) -> bool:
    """Whether a file begins as DICOM files do; their names often end in nothing. Their index, DICOMDIR, is none."""
    with suppress(OSError), open(path, "rb") as file:  # whoever opens it next names it
        return file.read(132)[128:] == b"DICM" and path.name.upper() != "DICOMDIR"
    return False


def read_dicom(path: Path) -> np.ndarray:
    """A photograph, (H, W) or RGB (H, W, 3), as its tags say that it is to be shown.

    It is uint8, or uint16 as stored where the values have 16 bits and no tag says which of them is white.

    Raises:
        ValueError: the file holds no photograph, or several, or cannot be unpacked.
    """
    if not INSTALLED:
        raise ValueError("a DICOM file: pip install pydicom")
    from pydicom import dcmread
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_presentation_lut, apply_voi_lut

    content = dcmread(path)
    kind = content.get("SOPClassUID")
    if "PixelData" not in content or (kind and "Tomography" in kind.name):
        raise ValueError(f"no photograph, but {kind.name if kind else 'a DICOM file without pixels'}")
    if int(content.get("NumberOfFrames") or 1) > 1:
        raise ValueError(f"{content.NumberOfFrames} frames: save the photograph among them in a file of its own")
    try:
        values = content.pixel_array  # RGB, whatever the order of the planes and the colour space in the file
    except RuntimeError:
        packing = content.file_meta.TransferSyntaxUID.name
        raise ValueError(f'packed as {packing}: pip install "pylibjpeg[all]"') from None
    if content.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, content)
        return values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)
    low, high = _range(content)
    if content.SamplesPerPixel == 1:
        values = apply_voi_lut(apply_modality_lut(values, content), content)
        if "PresentationLUTSequence" in content:
            values, low, high = apply_presentation_lut(values, content), 0, _last(content.PresentationLUTSequence)
        elif content.PhotometricInterpretation == "MONOCHROME1":  # its lowest value is white
            values = low + high - values
    told = any(name in content for name in ("WindowWidth", "VOILUTSequence", "ModalityLUTSequence"))
    if (low, high) == (0, 65535) and not told:
        return values.astype(np.uint16)
    return ((values - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8)


def _range(content: "Dataset") -> tuple[float, float]:
    """The values that are black and white once the modality's and the window's tables are applied."""
    if content.get("VOILUTSequence"):
        return 0, _last(content.VOILUTSequence)
    if content.get("ModalityLUTSequence"):
        return 0, _last(content.ModalityLUTSequence)
    low = -(1 << content.BitsStored - 1) if content.PixelRepresentation else 0
    ends = np.array([low, low + (1 << content.BitsStored) - 1], float)
    ends = ends * float(content.get("RescaleSlope", 1)) + float(content.get("RescaleIntercept", 0))
    return ends.min(), ends.max()


def _last(tables: list["Dataset"]) -> int:
    """The largest value that a table gives out."""
    return (1 << tables[0].LUTDescriptor[2]) - 1


def laterality(path: Path) -> str:
    """Which eye a DICOM file says that it shows: R, L, B for both, "" where it does not say."""
    from pydicom import dcmread

    content = dcmread(path, stop_before_pixels=True, specific_tags=["ImageLaterality", "Laterality"])
    return content.get("ImageLaterality") or content.get("Laterality") or ""
