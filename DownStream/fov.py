"""The field of view of a fundus photograph, for the sets that ship no mask of it.

A camera shows the retina through a round aperture, often cut straight by the sensor at the top and bottom. Thresholds
alone fail where the border glows or the retina is dark, so each of a ladder of thresholds only proposes an outline;
the proposal with the sharpest step all along it, most of it on one circle, is taken. Outside is dark, or a flat colour.
"""

import cv2
import numpy as np

from DualScaleNet.common.surroundings import black_surroundings

SIDE = 512  # long side of the copy that is searched, pixels
LEVELS = 16  # thresholds tried
TOLERANCE = 0.008  # of a circle's radius: how far from it a point still counts as lying on it
AREA = 0.08, 0.99  # of the frame: a smaller region is no field of view, and outside a larger one is no border
NARROWEST = 1 / 8  # of the longer side: a narrower region is no field of view, but a mistake in a mask
MIN_STEP = 1.0  # least mean step of the square root of brightness across the outline


def estimate_fov(image: np.ndarray) -> np.ndarray:
    """Where a photograph shows the retina.

    Args:
        image: uint8 (H, W, 3) RGB of any size.

    Returns:
        bool (H, W), convex; all true where no border is found, as in a crop from within the field of view.
    """
    image = black_surroundings(image)
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    light = _lightness(small)
    best, mask = 0.0, None
    dark, bright = np.percentile(light, (0.5, 90))
    for level in np.linspace(dark, bright, LEVELS + 2)[1:-1]:
        region = _largest_region(light > level)
        if cv2.countNonZero(region) < AREA[0] * region.size:
            continue
        outline, support = _complete(region)
        step = _step(light, outline)
        score = step * (0.3 + support)  # dark retina and notches leave some of a true outline off its circle
        if score > best and step > MIN_STEP and cv2.countNonZero(outline) < AREA[1] * outline.size:
            best, mask = score, outline
    if mask is None:
        return np.ones((height, width), bool)
    return cv2.resize(mask * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR) > 127


def fov_diameter(fov: np.ndarray) -> float | None:
    """The diameter of a field of view (H, W) bool in pixels: its circle's, or its width where no circle fits.

    None where the mask is empty or too narrow to be one, or covers the photograph, which then shows no border.
    """
    height, width = fov.shape
    if fov.all() or is_too_narrow(fov):
        return None
    contours, _ = cv2.findContours(fov.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = max(contours, key=len)[:, 0]
    free = points[((points > 1) & (points < [width - 2, height - 2])).all(1)]
    scale = SIDE / max(height, width)
    circle = _fit_circle(free * scale)
    return 2 * circle[2] / scale if circle else float(np.ptp(points[:, 0]) + 1)


def is_too_narrow(fov: np.ndarray) -> bool:
    """Whether a mask (H, W) bool, empty or of a few pixels, cannot be a field of view."""
    return np.count_nonzero(fov.any(0)) < NARROWEST * max(fov.shape)


def _lightness(image: np.ndarray) -> np.ndarray:
    """Square root of brightness, float32 (H, W), 0 to 16: noise, and the steps that matter, are alike everywhere."""
    brightness = image.max(2) // 2 + image[..., 0] // 2  # the retina is red, glowing borders seldom are
    return np.sqrt(cv2.GaussianBlur(cv2.medianBlur(brightness, 5).astype(np.float32), (0, 0), 0.8))


def _largest_region(mask: np.ndarray) -> np.ndarray:
    """The largest connected part, uint8 (H, W), without what hangs on it by a thread."""
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, ellipse)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    if len(stats) < 2:
        return opened
    return (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)


def _complete(region: np.ndarray) -> tuple[np.ndarray, float]:
    """The convex field of view, uint8 (H, W), of which a region is seen, and the share of its outline on a circle."""
    height, width = region.shape
    contours, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = contours[0][:, 0]
    hull = np.zeros_like(region)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    free = points[((points > 1) & (points < [width - 2, height - 2])).all(1)].astype(np.float32)
    circle = _fit_circle(free)
    if circle is None:
        return hull, 0.0
    x, y, radius = circle
    distance = np.hypot(free[:, 0] - x, free[:, 1] - y) / radius
    support = float((np.abs(distance - 1) < TOLERANCE).mean())
    down, across = np.ogrid[:height, :width]
    away = (across - x).astype(np.float32) ** 2 + (down - y).astype(np.float32) ** 2
    disc = (away < (radius + 0.5) ** 2).astype(np.uint8)
    _cut(disc, region)
    hull &= away < (1.01 * radius + 0.5) ** 2
    # A whole outline is followed as it is, slanted cuts included; an incomplete one is completed.
    whole = cv2.countNonZero(hull & disc) > 0.985 * cv2.countNonZero(hull | disc)
    return hull if whole else disc, support


def _cut(disc: np.ndarray, region: np.ndarray) -> None:
    """Cuts a disc, in place, on the sides where its region ends in a chord, as at a sensor's edge, not in a tip."""
    left, top, wide, high = cv2.boundingRect(region)
    for seen, whole, first, last in ((region, disc, top, top + high - 1), (region.T, disc.T, left, left + wide - 1)):
        for edge, beyond, inward in ((first, slice(first), 4), (last, slice(last + 1, None), -4)):
            row = min(max(edge + inward, 0), len(seen) - 1)
            if seen[row].sum() > 0.4 * whole[row].sum():
                whole[beyond] = 0


def _fit_circle(points: np.ndarray) -> tuple[float, float, float] | None:
    """Centre x, y and radius of the circle with the most of the points (n, 2) on it and the fewest outside, or None."""
    if len(points) < 30:
        return None
    rng = np.random.default_rng(0)
    points = points[np.linspace(0, len(points) - 1, min(len(points), 250)).astype(int)].astype(np.float64)
    trios = points[rng.integers(0, len(points), (150, 3))]
    trios = trios[np.abs(np.linalg.det(_equations(trios))) > 0.02 * SIDE**2]
    x, y, power = np.linalg.solve(_equations(trios), (trios**2).sum(2, keepdims=True))[..., 0].T
    circles = np.stack([x, y, np.sqrt(np.maximum(power + x**2 + y**2, 0))], 1)
    circles = circles[(circles[:, 2] > 0.2 * SIDE) & (circles[:, 2] < SIDE)]
    if not len(circles):
        return None
    x, y, radius = circles.T[..., None]
    distance = np.hypot(points[:, 0] - x, points[:, 1] - y) / radius - 1
    votes = (np.abs(distance) < TOLERANCE).sum(1) - (distance > 2 * TOLERANCE).sum(1)
    near = points[np.abs(distance[votes.argmax()]) < TOLERANCE]
    if len(near) < 10:
        return None
    x, y, power = np.linalg.lstsq(_equations(near), (near**2).sum(1), rcond=None)[0]
    return float(x), float(y), float(np.sqrt(power + x**2 + y**2))


def _equations(points: np.ndarray) -> np.ndarray:
    """(..., 3): of |p|^2 = 2 p c + (r^2 - |c|^2), linear in a circle's centre c and the last term, the coefficients."""
    return np.concatenate([2 * points, np.ones((*points.shape[:-1], 1))], -1)


def _step(light: np.ndarray, mask: np.ndarray) -> float:
    """Mean lightness just inside minus just outside the outline; 0 where there is no outside."""
    near, far = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (n, n)) for n in (3, 11))
    inside = cv2.erode(mask, near) - cv2.erode(mask, far)
    outside = cv2.dilate(mask, far) - cv2.dilate(mask, near)
    if not inside.any() or not outside.any():
        return 0.0
    return float(light[inside > 0].mean() - light[outside > 0].mean())
