"""How a label differs from a photograph where no name tells."""

import numpy as np

FEW = 32  # colours of a label; a photograph has thousands


def is_drawing(image: np.ndarray) -> bool:
    """Whether an image is a label, a mask or blank, and no photograph, by a sample of its pixels.

    It has few colours with black or white among them; or grey values that are nearly all black or white, as of a label
    after JPEG or resizing. (H, W) or (H, W, channels), 8 or 16 bits.
    """
    rows, columns = (max(1, side // 64) for side in image.shape[:2])
    sample = image[::rows, ::columns].astype(np.int64)
    sample = sample.reshape(*sample.shape[:2], -1)
    low, high = sample.min(2), sample.max(2)
    colours = np.unique(sample @ (1 << 16 * np.arange(sample.shape[2])))
    if len(colours) <= FEW:
        return bool(low.min() == 0 or high.max() == np.iinfo(image.dtype).max)
    grey = (high - low <= 12).all()
    return image.dtype == np.uint8 and bool(grey) and bool(((high <= 8) | (low >= 247)).mean() > 0.85)
