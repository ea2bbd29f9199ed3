"""Whether a photograph is so unlike those that networks are trained on that its numbers should not be trusted unseen.

The limits were chosen on 770 photographs of EyePACS, good and bad ones; docs/quality.py draws where they lie.
"""

import cv2
import numpy as np

from DownStream.data import Photograph

DIAMETER = 400  # of the field of view on the copy that is looked at, pixels: cameras and sizes become alike
RIM = 16  # pixels of that copy: the border of the field of view is sharp in a blurred photograph too
LIMITS = {  # by column: the least and the greatest usual value, and what is wrong beyond each
    "sharpness": ((0.7, "blurred"), None),
    "brightness": ((0.1, "dark"), (0.68, "bright")),
    "field of view share": ((0.4, "small field of view"), None),  # a whole circle is .44 of a frame of 16:9
}


def quality(photograph: Photograph) -> dict[str, float | str]:
    """The columns of summary.csv that say when not to trust the others.

    sharpness: standard deviation of the Laplacian of the smoothed green channel (sigma 1), in grey levels of 255, away
    from the border. brightness: mean grey in the field of view, 1 is white. field of view share: of the frame. doubt:
    what lies beyond `LIMITS`, "" for nothing.
    """
    fov, image = photograph.field_of_view, photograph.pixels
    factor = min(DIAMETER / (photograph.diameter or max(fov.shape)), 4)  # a wrong mask may be a few pixels wide
    size = tuple(max(1, round(side * factor)) for side in (fov.shape[1], fov.shape[0]))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    inside = cv2.resize(fov.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    inner = cv2.distanceTransform(np.pad(inside, 1), cv2.DIST_L2, 3)[1:-1, 1:-1] > RIM
    green = cv2.GaussianBlur(small[..., 1].astype(np.float32), (0, 0), 1)  # its noise is no sharpness
    details = cv2.Laplacian(green, cv2.CV_32F)[inner]
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[inside > 0]
    values = {
        "sharpness": float(details.std()) if details.size else 0.0,
        "brightness": float(grey.mean()) / 255 if grey.size else 0.0,
        "field of view share": float(fov.mean()),
    }
    doubts = []
    for name, (low, high) in LIMITS.items():
        doubts += [low[1]] if low and values[name] < low[0] else []
        doubts += [high[1]] if high and values[name] > high[0] else []
    return {**values, "doubt": ", ".join(doubts)}
