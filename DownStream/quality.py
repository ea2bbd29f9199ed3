"""Whether a photograph is so unlike usual ones that its maps and numbers should not be trusted unseen.

The limits were chosen on 770 photographs of EyePACS, good and bad ones: docs/quality.py draws where they lie.
"""

import cv2
import numpy as np

from DownStream.data import Photograph

DIAMETER = 400  # of the field of view on the copy that is looked at, pixels: cameras and sizes become alike
RIM = 16  # pixels of that copy: the border of the field of view is sharp in a blurred photograph too
BLURRED = 0.65
DARK, BRIGHT = 0.1, 0.68
SMALL = 0.4  # a whole field of view is .52 of a 3:2 frame and .44 of a 16:9 one


def quality(photograph: Photograph) -> dict[str, float | str]:
    """The columns of summary.csv that say when not to trust the others.

    sharpness: standard deviation of the Laplacian of the green channel, in grey levels of 255. brightness: mean over
    the field of view, 1 is white. field of view share: of the frame. doubt: what lies beyond the limits, "" for
    nothing.
    """
    fov, image = photograph.field_of_view, photograph.image.permute(1, 2, 0).numpy()
    factor = DIAMETER / (photograph.diameter or max(fov.shape))
    size = tuple(max(1, round(side * factor)) for side in (fov.shape[1], fov.shape[0]))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    inside = cv2.resize(fov.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    inner = cv2.distanceTransform(np.pad(inside, 1), cv2.DIST_L2, 3)[1:-1, 1:-1] > RIM
    green = cv2.GaussianBlur(small[..., 1].astype(np.float32), (0, 0), 1)  # its noise is no sharpness
    details = cv2.Laplacian(green, cv2.CV_32F)[inner]
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[inside > 0]
    sharpness = float(details.std()) if details.size else 0.0
    brightness = float(grey.mean()) / 255 if grey.size else 0.0
    share = float(fov.mean())
    reasons = {
        "blurred": sharpness < BLURRED, "dark": brightness < DARK, "bright": brightness > BRIGHT,
        "small field of view": share < SMALL,
    }  # fmt: skip
    doubt = ", ".join(reason for reason, holds in reasons.items() if holds)
    return {"sharpness": sharpness, "brightness": brightness, "field of view share": share, "doubt": doubt}
