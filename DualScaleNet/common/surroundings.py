"""What surrounds the retina in a photograph that was cut out, scanned or padded: white, grey, any flat colour."""

import cv2
import numpy as np

FLAT = 5.0  # greatest standard deviation of a channel in a corner that belongs to such surroundings
BRIGHT = 40  # least value of their brightest channel: what is darker is a camera's own black
NEAR = 12  # how far a channel may be from their colour, as after JPEG
CONTRAST = 36  # least median difference between their colour and what lies just inside


def black_surroundings(image: np.ndarray) -> np.ndarray:
    """A photograph whose flat, bright surroundings are black, as a camera's are.

    They are what has the colour that at least three corners share, and is connected with one of these. A corner of the
    retina is not flat, and what it shades into is no contrast to it.

    Args:
        image: uint8 (H, W, 3).

    Returns:
        a painted copy, or `image` itself where there are no such surroundings.
    """
    side = max(1, min(image.shape[:2]) // 40)
    ends = slice(side), slice(-side, None)
    places = [(rows, columns) for rows in ends for columns in ends]
    corners = [(place, image[place].reshape(-1, 3)) for place in places]
    flat = [(place, pixels.mean(0)) for place, pixels in corners if pixels.std(0).max() < FLAT]
    colour = np.median([mean for _, mean in flat], 0) if len(flat) > 2 else np.zeros(3)
    alike = [place for place, mean in flat if np.abs(mean - colour).max() < NEAR / 2]
    if len(alike) < 3 or colour.max() < BRIGHT:
        return image
    close = cv2.inRange(image, np.maximum(colour - NEAR, 0), np.minimum(colour + NEAR, 255))
    _, parts = cv2.connectedComponents(close, connectivity=4)
    reached = np.unique([part for place in alike for part in np.unique(parts[place])])
    outside = np.isin(parts, reached[reached > 0]).astype(np.uint8)
    wider = cv2.dilate(outside, np.ones((3, 3), np.uint8))  # pixels that are half retina
    beyond = cv2.dilate(wider, np.ones((5, 5), np.uint8)) > wider
    if not beyond.any() or np.median(np.abs(image[beyond] - colour).max(1)) < CONTRAST:
        return image
    return np.where(wider[..., None] > 0, np.uint8(0), image)
