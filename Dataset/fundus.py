"""Drawn fundus photographs with exact labels; `python Dataset/synthetic.py` writes them to files.

Geometry is in units of the field of view's diameter, origin at its centre, y down, the optic disc left of the fovea;
`_Eye.px` scales it to pixels and mirrors the other eye.
"""

import heapq
from collections import namedtuple
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

LESIONS = ("MA", "HE", "EX", "SE")  # microaneurysms, haemorrhages, hard and soft exudates
# Number at the most, radii, stretch of the lesions that lie anywhere.
SPOTS = (("MA", 30, 0.002, 0.004, 1), ("HE", 12, 0.004, 0.014, 1.7), ("SE", 4, 0.01, 0.022, 1.5))
STEP = 0.005  # length of a piece of centre line
SMALLEST = 0.9  # radius in pixels of a lesion that was asked for: it must show in the label
THINNEST = 1 / 380  # width of the finest vessel
BLOOD = np.array([0.42, 1.0, 0.62], np.float32)  # absorption in R, G, B: blood is seen best in green


@dataclass(frozen=True)
class Fundus:
    """A photograph and its labels: `image` uint8 (H, W, 3) RGB, every mask bool (H, W)."""

    image: np.ndarray
    fov: np.ndarray
    vessels: np.ndarray
    disc: np.ndarray
    cup: np.ndarray
    lesions: dict[str, np.ndarray]  # keys LESIONS; empty where the eye has none of the kind


@dataclass(frozen=True)
class _Eye:
    """Where things lie: the frame in pixels, the anatomy in units of the field of view's diameter."""

    width: int
    height: int
    diameter: float  # of the field of view, pixels
    cut: float  # half height of the field of view; 0.5 is the whole circle
    mirror: float  # 1 or -1
    disc: np.ndarray
    disc_radii: np.ndarray
    cup: np.ndarray
    cup_radii: np.ndarray
    fovea: np.ndarray

    def px(self, points: np.ndarray) -> np.ndarray:
        """Unit coordinates (..., 2) to pixel coordinates, whole numbers being pixel centres."""
        centre = np.array([self.width - 1, self.height - 1]) / 2
        return centre + self.diameter * points * [self.mirror, 1]

    def distance(self, centre: np.ndarray, radii: np.ndarray | float) -> np.ndarray:
        """Distance of every pixel from `centre` in radii, float32 (H, W): below 1 inside the ellipse."""
        (x, y), (rx, ry) = self.px(centre), np.broadcast_to(radii, 2) * self.diameter
        down, across = np.ogrid[: self.height, : self.width]
        return np.hypot((across - x) / rx, (down - y) / ry).astype(np.float32)


def draw_fundus(rng: np.random.Generator, width: int, height: int, kinds: Collection[str] | None = None) -> Fundus:
    """Draws one eye, at least 32 pixels a side; all structures scale with the field of view.

    `kinds` are the LESIONS that its labels then have, these and no others; by default half of the eyes are healthy.
    """
    eye = _place(rng, width, height)
    rows = np.abs(np.arange(height) - (height - 1) / 2)[:, None] <= eye.cut * eye.diameter
    fov = (eye.distance(np.zeros(2), 0.5) <= 1) & rows
    density, vessels = _paint_vessels(eye, *_grow_vessels(rng, eye))
    lesions = _draw_lesions(rng, eye, fov, kinds)
    retina = _draw_retina(rng, eye)
    density += cv2.GaussianBlur(0.3 * lesions["MA"] + 0.4 * lesions["HE"], (0, 0), 0.0022 * eye.diameter)
    retina *= np.exp(-density[..., None] * BLOOD)
    # Hard exudates have sharp borders, soft ones (infarcts of the nerve fibre layer) none.
    for name, colour, strength, blur in (("EX", (245, 215, 120), 0.75, 0.0012), ("SE", (240, 220, 165), 0.42, 0.006)):
        _blend(retina, cv2.GaussianBlur(strength * lesions[name], (0, 0), blur * eye.diameter), colour)
    return Fundus(
        image=_photograph(rng, eye, retina, rows),
        fov=fov,
        vessels=vessels & fov,
        disc=(eye.distance(eye.disc, eye.disc_radii) <= 1) & fov,
        cup=(eye.distance(eye.cup, eye.cup_radii) <= 1) & fov,
        lesions={name: (coverage > 0.5) & fov for name, coverage in lesions.items()},
    )


def second_observer(rng: np.random.Generator, vessels: np.ndarray) -> np.ndarray:
    """Another reader's label, bool (H, W): some thin vessels missed, borders drawn a little elsewhere."""
    mask = vessels.astype(np.uint8)
    wide = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, twigs = cv2.connectedComponents((mask > wide).astype(np.uint8), connectivity=8)
    missed = rng.random(count) < 0.35
    mask[missed[twigs] & (twigs > 0)] = 0
    return _signed_distance(mask) + _drift(rng, mask.shape, max(0.7, 0.0018 * max(mask.shape))) > 0


def experts(rng: np.random.Generator, eye: Fundus, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Disc and cup as `number` experts outline them, float32 (number, H, W): distances in pixels, positive inside.

    They differ by about 5 % of the disc's radius; each expert's cup is not empty and lies in that expert's disc.
    """
    disc, cup = _signed_distance(eye.disc), _signed_distance(eye.cup)
    strength = max(0.7, 0.055 * disc.max())
    drifts = [[_drift(rng, disc.shape, strength) for _ in range(number)] for _ in range(2)]
    discs, cups = (d + np.clip(w, -d.max() / 2, d.max() / 2) for d, w in zip((disc, cup), drifts, strict=True))
    return discs, np.minimum(cups, discs)


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    mask = mask.astype(np.uint8)
    inside, outside = (cv2.distanceTransform(m, cv2.DIST_L2, 3) for m in (mask, 1 - mask))
    return inside - outside


def _drift(rng: np.random.Generator, shape: tuple[int, int], strength: float) -> np.ndarray:
    """How far a reader draws a border outside of the true one, float32 (H, W): smooth, in pixels."""
    field = rng.standard_normal((12, 12)).astype(np.float32) * strength
    return cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _place(rng: np.random.Generator, width: int, height: int) -> _Eye:
    diameter, cut = min(width, height) * rng.uniform(0.93, 0.985), 0.5
    wide_sensor, chord = rng.random() < 0.5, rng.uniform(0.40, 0.47)
    if width > 1.15 * height and wide_sensor:  # the circle is larger than the sensor is high
        diameter, cut = min(0.97 * width, 0.98 * height / (2 * chord)), chord
    elif rng.random() < 0.12:
        cut = chord
    disc = np.array([rng.uniform(-0.38, -0.27), rng.uniform(-0.06, 0.03)])
    disc_radii = rng.uniform(0.066, 0.082) * np.array([rng.uniform(0.9, 1.0), 1.0])
    ratio = rng.uniform(0.25, 0.65)
    cup = disc + disc_radii * (1 - ratio) * rng.uniform([-0.1, -0.15], [0.35, 0.15])
    fovea = disc + rng.uniform([0.33, 0.01], [0.39, 0.05])
    return _Eye(width, height, diameter, cut, rng.choice([-1.0, 1.0]), disc, disc_radii, cup, disc_radii * ratio, fovea)


# A vessel yet to grow: it sets out with `heading` and bends to `target` (radians) over the length `bend`.
_Course = namedtuple("_Course", "start heading target bend length width kind")  # kind 0 vein, 1 artery
_Branch = tuple[np.ndarray, np.ndarray, int, float]  # one that has grown: line, width, kind, darkness


def _roots(rng: np.random.Generator, eye: _Eye) -> Iterator[_Course]:
    """The vessels that leave the disc."""
    uniform, normal = rng.uniform, rng.normal
    head = eye.disc + eye.disc_radii * uniform([-0.35, -0.15], [0.05, 0.15])  # vessels enter nasal of the centre
    outer = rng.integers(0, 2, 2)  # artery and vein of an arcade run apart: which is farther from the macula
    for kind, calibre in ((0, 1.0), (1, 0.72)):
        for up in (-1, 1):
            start, arcade = head + normal(0, 0.006, 2) + [0, 0.012 * up], calibre / uniform(58, 72)
            bend = uniform(0.13, 0.17) + 0.05 * (kind == outer[(up + 1) // 2])
            yield _Course(start, up * uniform(1.35, 1.75), up * uniform(-0.05, 0.25), bend, 1.0, arcade, kind)
            yield _Course(start, up * uniform(1.7, 2.2), up * uniform(2.1, 2.7), 0.1, 0.6, 0.62 * arcade, kind)
            if rng.random() < 0.6:
                yield _Course(start, up * uniform(1.2, 1.7), up * uniform(0.9, 1.5), 0.15, 0.7, 0.6 * arcade, kind)
        for _ in range(rng.integers(1, 3)):  # short ones to the macula and to the nasal side
            yield _Course(head, normal(0, 0.5), normal(0, 0.15), 0.1, 0.3, calibre / uniform(160, 260), kind)
            nasal = np.pi + normal(0, 0.5), np.pi + normal(0, 0.4)
            yield _Course(head, *nasal, 0.1, 0.3, calibre / uniform(130, 200), kind)


def _walk(rng: np.random.Generator, course: _Course, tortuosity: float) -> tuple[np.ndarray, np.ndarray]:
    """The centre line (n, 2) of a course, winding a little on its way, and the heading (n) along it."""
    s = np.arange(0, course.length, STEP)
    waves = np.array([0.035, 0.08, 0.17, 0.4]) * rng.uniform(0.7, 1.4, 4)
    winding = np.sin(2 * np.pi * (s[:, None] / waves + rng.random(4))) @ (np.array([0.16, 0.26, 0.3, 0.3]) * tortuosity)
    turn = (course.heading - course.target) * np.exp(-s / course.bend)
    heading = course.target + turn + winding * (1 - np.exp(-s / 0.03))
    steps = STEP * np.stack([np.cos(heading), np.sin(heading)], 1)
    return course.start + np.cumsum(steps, 0) - steps[0], heading


def _grow_vessels(rng: np.random.Generator, eye: _Eye) -> tuple[list[_Branch], float]:
    """Grows both trees to the area of real vessels: their branches and the finest width."""
    budget = rng.uniform(0.09, 0.135) * np.pi / 4
    tortuosity, contrast = rng.uniform(0.5, 1.3), rng.uniform(0.85, 1.15)
    finest = max(THINNEST, 1.2 / eye.diameter)  # lines under 1.2 pixels would break up in the label...
    drop = max(THINNEST, 0.5 / eye.diameter)  # ...and at half a pixel nobody would see them
    taken = np.zeros((2, 64, 64), bool)  # vessels of one kind do not cross each other
    queue = sorted((-root.width, order, root) for order, root in enumerate(_roots(rng, eye)))  # a heap
    branches, count, roots = [], len(queue), len(queue)
    while queue and budget > 0:
        _, order, course = heapq.heappop(queue)
        line, heading = _walk(rng, course, tortuosity * (0.6 if course.width > 0.01 else 1.1))
        x, y = np.clip(((line + 0.5) * 64).astype(int), 0, 63).T
        stop = (np.linalg.norm(line, axis=1) > 0.51) | (np.linalg.norm(line - eye.fovea, axis=1) < 0.045)
        stop[6:] |= taken[course.kind, y[6:], x[6:]] & (order >= roots)
        n = int(stop.argmax()) if stop.any() else len(line)
        if n < 6:
            continue
        taken[course.kind, y[:n], x[:n]] = True
        width = course.width * np.linspace(1, 0.5 if n > 60 else 0.7, n)
        branches.append((line[:n], width, course.kind, contrast * rng.uniform(0.75, 1.1)))
        budget -= STEP * np.maximum(width, finest).sum()
        for child in _children(rng, line[:n], heading, width, course.kind, eye.fovea):
            if child.width > drop:
                heapq.heappush(queue, (-child.width * rng.uniform(0.5, 1.5), count, child))
                count += 1
    return branches, finest


def _children(
    rng: np.random.Generator, line: np.ndarray, headings: np.ndarray, widths: np.ndarray, kind: int, fovea: np.ndarray
) -> Iterator[_Course]:
    """Side branches, left and right in turn, and the fork at the end."""
    side, n = rng.choice([-1, 1]), len(line)
    places = np.cumsum(rng.uniform(0.02, 0.09, 50)) / STEP
    for i in [*places[places < n - 4].astype(int), n - 1, n - 1]:
        fork, side = i == n - 1, -side
        width = widths[i] * (rng.uniform(0.7, 0.9) if fork else rng.uniform(0.2, 0.6))
        heading = headings[i] + side * (rng.uniform(0.25, 0.6) if fork else rng.uniform(0.6, 1.3))
        turn = np.angle(complex(*(fovea - line[i])) * np.exp(-1j * heading))
        # What points to the macula bends towards it, the rest along the parent's way.
        bend = 0.8 * turn + rng.normal(0, 0.25) if abs(turn) < 1.3 else -0.5 * side * rng.uniform(0, 1)
        yield _Course(line[i], heading, heading + bend, 0.12, 40 * width * rng.uniform(0.6, 1.3), width, kind)


def _paint_vessels(eye: _Eye, branches: list[_Branch], finest: float) -> tuple[np.ndarray, np.ndarray]:
    """Optical density float32 (H, W) and the label bool (H, W): the pixels that vessels cover by half or more."""
    # Both come from the same lines, drawn on a finer grid: OpenCV's lines have whole widths.
    fine = int(np.clip(np.ceil(2200 / max(eye.width, eye.height)), 1, 24))
    canvas = np.zeros((2, eye.height * fine, eye.width * fine), np.uint8)  # 400 times the density, by kind
    pieces = []
    for line, width, kind, darkness in branches:
        points = np.round(((eye.px(line) + 0.5) * fine - 0.5) * 8).astype(int).tolist()
        # Thin vessels are faint; arteries are paler than veins, and wide ones shine along their middle.
        density = (0.5, 0.4)[kind] * darkness * np.minimum(width * 60, 1) ** 0.65
        shine = kind == 1 and darkness < 0.95 and width[0] > 1 / 140
        for i, wide in enumerate(np.maximum(width[:-1], finest) * eye.diameter * fine):
            value, wide = int(400 * density[i]) + 1, max(1, round(wide))
            pieces.append((0, value, kind, points[i], points[i + 1], wide))
            if shine and wide >= 5:
                pieces.append((1, int(0.55 * value), kind, points[i], points[i + 1], round(0.3 * wide)))
    for _, value, kind, start, end, wide in sorted(pieces):  # dark over pale, the shine on top
        cv2.line(canvas[kind], start, end, value, wide, cv2.LINE_8, 3)
    layers = (*canvas, np.minimum(canvas[0] | canvas[1], 1) * 255)
    veins, arteries, covered = (cv2.resize(a, (eye.width, eye.height), interpolation=cv2.INTER_AREA) for a in layers)
    veins, arteries = veins.astype(np.float32) / 400, arteries.astype(np.float32) / 400
    density = np.maximum(veins, arteries) + 0.35 * np.minimum(veins, arteries)
    return cv2.GaussianBlur(density, (0, 0), max(0.3, 0.0013 * eye.diameter)), covered >= 128


def _draw_lesions(
    rng: np.random.Generator, eye: _Eye, fov: np.ndarray, kinds: Collection[str] | None
) -> dict[str, np.ndarray]:
    """Coverage float32 (H, W), 0 to 1, of each kind of lesion: of `kinds`, by default in half of the eyes."""
    if kinds is None:
        return _scatter_lesions(rng, eye, LESIONS if rng.random() < 0.5 else (), 0)
    while True:  # chance may leave out a kind, or put it where there is no retina
        maps = _scatter_lesions(rng, eye, kinds, SMALLEST / eye.diameter)
        if all((maps[name][fov] > 0.5).any() for name in kinds):
            return maps


def _scatter_lesions(
    rng: np.random.Generator, eye: _Eye, kinds: Collection[str], smallest: float
) -> dict[str, np.ndarray]:
    maps = {name: np.zeros((eye.height, eye.width), np.uint8) for name in LESIONS}
    spots = []  # kind, centre, radius, stretch
    if kinds:
        for name, most, low, high, longest in SPOTS:
            for centre in rng.uniform(-0.38, 0.38, (rng.integers(0, most), 2)):
                spots.append((name, centre, rng.uniform(low, high), rng.uniform(1, longest)))
        for _ in range(rng.integers(0, 5)):  # hard exudates come in groups around the macula
            group = eye.fovea + rng.normal(0, 0.13, 2)
            for centre in group + rng.normal(0, 0.025, (rng.integers(4, 22), 2)):
                spots.append(("EX", centre, 0.0015 + min(rng.exponential(0.002), 0.006), rng.uniform(1, 1.3)))
    angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    for name, centre, radius, stretch in spots:
        if name in kinds and np.linalg.norm(centre - eye.disc) > 0.12:
            radius = max(radius, smallest)
            ripple = np.sin(angle[:, None] * [2, 3, 5] + rng.uniform(0, 2 * np.pi, 3)).sum(1)
            outline = radius * (1 + 0.15 * ripple) * np.exp(1j * angle)  # as complex numbers: x + iy
            outline = (outline.real * stretch + 1j * outline.imag / stretch) * np.exp(1j * rng.uniform(0, np.pi))
            points = eye.px(centre + np.stack([outline.real, outline.imag], 1))
            cv2.fillPoly(maps[name], [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return {name: coverage.astype(np.float32) / 255 for name, coverage in maps.items()}


def _draw_retina(rng: np.random.Generator, eye: _Eye) -> np.ndarray:
    """The fundus without vessels, float32 (H, W, 3), about 0 to 255: choroid, macula, disc and cup."""
    red = rng.uniform(160, 240)
    green = red * rng.uniform(0.42, 0.62)
    image = np.array([red, green, green * rng.uniform(0.45, 0.8)], np.float32)
    tone = 0.035 * _clouds(rng, eye, 0.3) + 0.02 * _clouds(rng, eye, 0.06) + 0.018 * _clouds(rng, eye, 0.015)
    ridges = np.abs(_clouds(rng, eye, 0.04, 3.5) + 0.5 * _clouds(rng, eye, 0.04))  # choroidal vessels: broad, blurred
    tone -= rng.choice([0.03, 0.03, 0.12]) * _bell(ridges, 0.6) * np.clip(0.6 + 0.5 * _clouds(rng, eye, 0.3), 0, 1)
    head, cup = eye.distance(eye.disc, eye.disc_radii), eye.distance(eye.cup, eye.cup_radii)
    tone += rng.uniform(0.02, 0.2) * _bell(head, 2.2)
    image = image * np.exp(tone[..., None] * np.array([0.7, 1.2, 1.2], np.float32))
    macula = eye.distance(eye.fovea, 1.0)
    shade = rng.uniform(0.22, 0.4) * _bell(macula, rng.uniform(0.05, 0.08)) + 0.12 * _bell(macula, 0.2)
    image *= np.exp(-shade[..., None] * np.array([0.65, 1.0, 1.1], np.float32))
    rim = np.array([1.0, rng.uniform(0.6, 0.74), rng.uniform(0.34, 0.46)]) * min(255, red * 1.45)
    if rng.random() < 0.35:  # peripapillary atrophy: a pale crescent on the temporal side
        crescent = eye.distance(eye.disc + eye.disc_radii * np.array([0.25, 0]), eye.disc_radii * 1.02)
        _blend(image, 0.45 * _inside(crescent, 30), rim)
    _blend(image, 0.85 * _inside(head, rng.uniform(12, 28)), rim * np.exp(0.06 * _clouds(rng, eye, 0.03))[..., None])
    _blend(image, 0.8 * _inside(cup, rng.uniform(6, 12)), rim * [1.0, 1.19, 1.35])
    return image


def _photograph(rng: np.random.Generator, eye: _Eye, retina: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """What the camera makes of it, uint8 (H, W, 3): uneven light, haze, focus, the field's edge, noise, JPEG."""
    radius = eye.distance(np.zeros(2), 0.5)
    light = rng.uniform(0.85, 1.3) * (1 - rng.uniform(0.08, 0.35) * radius**2) * np.exp(0.06 * _clouds(rng, eye, 0.6))
    lit = retina * light[..., None]
    # Stray light at the edge of the pupil.
    haze = np.clip(eye.distance(rng.uniform(-0.35, 0.35, 2), 0.5) - 0.5, 0, 1) ** 2
    _blend(lit, rng.uniform(0, 0.3) * haze, np.array([170, 150, 125]) * rng.uniform(0.4, 1.1))
    image = cv2.GaussianBlur(lit, (0, 0), max(0.2, eye.diameter / 540 * rng.uniform(0.3, 0.95)))
    for channel, grow in enumerate((0.0015, 0, -0.0015)):  # lateral colour: a faint red line around the field
        edge = np.clip((1 + grow - radius) * eye.diameter / 3 + 0.5, 0, 1) * rows
        image[..., channel] = 8 + (np.minimum(image[..., channel], 255) - 8) * edge
    grain = rng.standard_normal((eye.height, eye.width, 3), np.float32)
    noise = rng.uniform(3, 7) * np.where((radius < 1) & rows, 1, 0.3)
    softened = cv2.GaussianBlur(grain, (0, 0), 0.55)  # by the sensor's colour filter
    image = (image + noise[..., None] * softened).astype(np.float32)
    pixels = np.clip(np.round(image), 0, 255).astype(np.uint8)
    _, code = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(82, 97))])
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    if decoded is None:  # so OpenCV says that it failed
        raise RuntimeError("OpenCV cannot read the JPEG that it wrote")
    return np.ascontiguousarray(decoded[..., ::-1])


def _clouds(rng: np.random.Generator, eye: _Eye, cell: float, stretch: float = 1) -> np.ndarray:
    """Smooth noise of about unit variance, float32 (H, W): `cell` diameters high, `stretch` times as wide."""
    sides = (eye.height / cell, eye.width / cell / stretch)
    field = rng.standard_normal([int(np.ceil(side / eye.diameter)) + 3 for side in sides]).astype(np.float32)
    return 1.3 * cv2.resize(field, (eye.width, eye.height), interpolation=cv2.INTER_CUBIC)


def _bell(distance: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-((distance / width) ** 2))


def _inside(distance: np.ndarray, sharpness: float) -> np.ndarray:
    """1 inside an ellipse, 0 outside, with a soft border."""
    return 0.5 - 0.5 * np.tanh((distance - 1) * sharpness / 2)


def _blend(image: np.ndarray, alpha: np.ndarray, colour: Sequence[float] | np.ndarray) -> None:
    image += alpha[..., None] * (np.asarray(colour, np.float32) - image)
