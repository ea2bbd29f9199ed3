"""Draws docs/method.png, the README's picture of the method: pretraining above, segmentation below.

    python docs/method.py

The photograph is drawn too (Dataset/fundus.py), so the picture contains nobody's data. Its patches and views are
augmented as in pretraining, only that here the operations are chosen so that all five are seen. The vessel map is the
drawing's own label.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image
from torchvision.transforms import v2

from Dataset.fundus import draw_fundus

WIDTH, HEIGHT, SCALE = 1000, 648, 1.6  # drawing units, and PNG pixels to each
INK, GREY, PALE, CARD = "#1f2937", "#5b6472", "#cbd5e1", "#f8fafc"
LOCAL, GLOBAL, DECODER = "#7c3aed", "#0369a1", "#b45309"
ATTRACT, REPEL = "#15803d", "#dc2626"
LOCAL_Y, GLOBAL_Y = 165, 352  # the heights of the two lanes
X, Y = 165, 345  # the left edges of the two copies
HEAD = "head_length=5,head_width=2.6"
OPERATIONS = {
    "h": v2.RandomHorizontalFlip(1),
    "v": v2.RandomVerticalFlip(1),
    "r": v2.RandomRotation(45),  # nearest, zero fill
    "j": v2.ColorJitter(0.2, 0.2, 0.2, 0.1),
    "g": v2.Grayscale(3),
}


def text(ax: Axes, x: float, y: float, words: str, size: float = 9.5, **style) -> None:
    ax.text(x, y, words, size=size, **{"color": INK, "ha": "center", "va": "center", **style})


def picture(ax: Axes, image: Image.Image, x: float, y: float, size: float) -> None:
    """A square image with its upper left corner at (x, y)."""
    pixels = round(size * SCALE)
    image = image.convert("RGB").resize((pixels, pixels), Image.Resampling.LANCZOS)
    image = image.point(lambda value: round(value / 8.5) * 8.5)  # unseen at this size, and a smaller file
    ax.imshow(image, extent=(x, x + size, y + size, y), interpolation="nearest", zorder=2)


def box(ax: Axes, x: float, y: float, width: float, height: float, face: str, edge: str = "none", **style) -> None:
    shape = f"round,pad=0,rounding_size={style.pop('radius', 7)}"
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, fc=face, ec=edge, **{"lw": 1.4, **style}))


def arrow(ax: Axes, start: tuple, end: tuple, colour: str = GREY, bend: str = "arc3", **style) -> None:
    style = {"arrowstyle": f"-|>,{HEAD}", "lw": 1.7, "zorder": 4, "shrinkA": 0, "shrinkB": 0, **style}
    ax.add_patch(FancyArrowPatch(start, end, connectionstyle=bend, color=colour, **style))


def tag(ax: Axes, x: float, y: float, colour: str, name: str) -> None:
    """The name of a patch or view, in its upper left corner."""
    ax.add_patch(Rectangle((x, y), 19, 17, fc=colour, zorder=5))
    text(ax, x + 9.5, y + 8, name, 10, color="white", zorder=6)


def cell(ax: Axes, x: float, y: float, colour: str, name: str) -> None:
    """Marks one cell of a grid."""
    ax.add_patch(Rectangle((x, y), 38, 38, fill=False, ec=colour, lw=3, zorder=4))
    tag(ax, x, y, colour, name)


def bars(ax: Axes, x: float, y: float, depths: tuple[int, ...], colour: str) -> list[tuple[float, float]]:
    """Feature maps of stride 2 to 32 (depth 1 to 5) side by side around height y; returns (centre, top) of each."""
    tops = []
    for depth in depths:
        height, width = (136, 104, 76, 54, 36)[depth - 1], (7, 7, 10, 13, 16)[depth - 1]
        box(ax, x, y - height / 2, width, height, colour, radius=2.5, zorder=3)
        tops.append((x + width / 2, y - height / 2))
        x += width + 11
    return tops


def encoder(ax: Axes, top: float, bottom: float, y: float) -> list[tuple[float, float]]:
    box(ax, 490, top, 112, bottom - top, "#e2e8f0", "#94a3b8", radius=10)
    tops = bars(ax, 499, y, (1, 2, 3, 4, 5), INK)
    for depth, (x, _) in enumerate(tops, start=1):
        text(ax, x, y + 79, f"c{depth}", 8.5)
    return tops


def local_lane(ax: Axes, image: Image.Image) -> None:
    text(ax, X, 68, "LocalFocus", 12, color=LOCAL, weight="bold", ha="left")
    top, third = LOCAL_Y - 60, image.width // 3
    for left, operations in ((X, "rjhvgrjrv"), (Y, "grjhjvhjr")):
        for i, operation in enumerate(operations):
            row, column = divmod(i, 3)
            patch = image.crop((column * third, row * third, (column + 1) * third, (row + 1) * third))
            picture(ax, OPERATIONS[operation](patch), left + 41 * column, top + 41 * row, 38)
    cell(ax, X + 82, top, LOCAL, "$x_3$")
    cell(ax, Y + 82, top, ATTRACT, "$y_3$")
    cell(ax, Y, top + 82, REPEL, "$y_7$")
    arrow(ax, (X + 101, top - 2), (Y + 101, top - 2), ATTRACT, "arc3,rad=-0.16", lw=2.2)
    arrow(ax, (X + 122, top + 19), (Y - 2, top + 99), REPEL, lw=2.2)
    text(ax, X + 191, 76, "attract the same cell", color=ATTRACT, weight="bold")
    text(ax, 315, 238, "repel the cell mirrored through the centre", color=REPEL, weight="bold")
    text(ax, 315, 254, "two copies in 3×3 patches, each patch augmented", 9, color=GREY)
    arrow(ax, (Y + 124, LOCAL_Y), (488, LOCAL_Y), LOCAL)


def global_lane(ax: Axes, image: Image.Image) -> None:
    text(ax, X, 284, "GlobalFocus", 12, color=GLOBAL, weight="bold", ha="left")
    # Crops in pixels of the 600 x 600 image.
    views = ((X, (8, 70, 528, 590), "r", "$v_3$"), (Y + 16, (20, 50, 470, 500), "j", "$v_4$"))
    for x, crop, operation, name in views:
        view = OPERATIONS[operation](image.crop(crop))
        picture(ax, view, x, GLOBAL_Y - 52, 104)
        tag(ax, x, GLOBAL_Y - 52, GLOBAL, name)
    arrow(ax, (X + 108, GLOBAL_Y), (Y + 12, GLOBAL_Y), ATTRACT, arrowstyle=f"<|-|>,{HEAD}", lw=2.2)
    text(ax, 315, GLOBAL_Y - 14, "attract", color=ATTRACT, weight="bold")
    text(ax, 315, 419, "two crops of the whole image, each augmented", 9, color=GREY)
    arrow(ax, (Y + 124, GLOBAL_Y), (488, GLOBAL_Y), GLOBAL)


def heads(ax: Axes, y: float, colour: str, p: str, z: str, losses: tuple[tuple[str, str], ...]) -> None:
    """One branch after the encoder: projector, predictor, the path without a gradient, and the branch's loss."""
    box(ax, 624, y - 48, 66, 96, "white", colour)
    text(ax, 657, y, "projector", 9, color=colour)
    box(ax, 710, y - 44, 66, 42, "white", colour)
    text(ax, 743, y - 23, "predictor", 9, color=colour)
    for start, end, height in ((604, 622, 0), (692, 708, -23), (778, 820, -23), (692, 820, 27)):
        arrow(ax, (start, y + height), (end, y + height), colour)
    for x in (726, 732):  # the sign for a stopped gradient
        ax.plot([x - 3, x + 3], [y + 35, y + 19], color=INK, lw=1.8, zorder=5)
    text(ax, 743, y + 44, "stop-gradient", 8.5, color=GREY)
    text(ax, 797, y - 36, p, 10, color=colour)
    text(ax, 797, y + 14, z, 10, color=colour)
    box(ax, 822, y - 52, 160, 104, "white", colour)
    for height, (formula, term) in zip((-23, 23), losses, strict=True):
        text(ax, 902, y + height, formula, 9, color=term)


def pretraining(ax: Axes, image: Image.Image) -> None:
    box(ax, 8, 8, 984, 427, CARD, PALE, lw=1, radius=12)
    text(ax, 26, 34, "1  Pretraining", 14, weight="bold", ha="left")
    text(ax, 192, 35, "on photographs without labels, at two scales", 11, color=GREY, ha="left")
    picture(ax, image, 26, 208, 100)
    arrow(ax, (76, 204), (X - 4, LOCAL_Y), LOCAL, "angle,angleA=90,angleB=0,rad=10")
    arrow(ax, (76, 312), (X - 4, GLOBAL_Y), GLOBAL, "angle,angleA=90,angleB=0,rad=10")
    local_lane(ax, image)
    global_lane(ax, image)
    encoder(ax, 98, 410, 258)
    text(ax, 546, 124, "one shared\nencoder", 10.5, weight="bold")
    text(ax, 546, 386, "bottleneck18,\naverage of c5", 9, color=GREY)
    heads(ax, LOCAL_Y, LOCAL, "$p(x_i)$", "$z(y_i)$", (
        (r"$0.8\;\Sigma\;[\,1-\cos(p_i,z_i)\,]$", ATTRACT), (r"$+\;0.2\;\Sigma_{i\neq5}\,\cos(p_i,z_{10-i})$", REPEL)))
    heads(ax, GLOBAL_Y, GLOBAL, "$p(v_3)$", "$z(v_4)$", (
        (r"$-\,\frac{1}{2}\;\cos(p(v_3),z(v_4))$", ATTRACT), (r"$-\,\frac{1}{2}\;\cos(p(v_4),z(v_3))$", ATTRACT)))
    box(ax, 822, 237, 160, 43, INK)
    text(ax, 902, 249, "loss", 10, color="white", weight="bold")
    text(ax, 902, 267, "0.5 local + 0.5 global", 9.5, color="white")
    arrow(ax, (902, 218), (902, 235), LOCAL)
    arrow(ax, (902, 299), (902, 282), GLOBAL)


def segmentation(ax: Axes, image: Image.Image, vessels: Image.Image) -> None:
    box(ax, 8, 459, 984, 181, CARD, PALE, lw=1, radius=12)
    text(ax, 26, 486, "2  Segmentation", 14, weight="bold", ha="left")
    text(ax, 26, 541, "The encoder stays frozen: only\nthe U-Net-style decoder learns,\nfrom few labelled photographs.",
         11, color=GREY, ha="left", linespacing=1.5)
    y = 546
    picture(ax, image, 349, y - 58, 116)
    tops = encoder(ax, 468, 632, y - 3)
    arrow(ax, (546, 412), (546, 466), INK, lw=2.2)
    text(ax, 558, 447, "❄ frozen", 10.5, ha="left", weight="bold")
    decoder = bars(ax, 650, y - 3, (4, 3, 2, 1), DECODER)
    for (x, top), (end, _) in zip(tops, decoder[::-1], strict=False):  # c5 has no skip connection
        arrow(ax, (x + 5, top + 5), (end - 5, top + 5), "#94a3b8", lw=1.3, zorder=2)
    text(ax, 692, y + 76, "decoder", color=DECODER, weight="bold")
    for start, end in ((469, 488), (599, 648), (742, 840)):
        arrow(ax, (start, y - 3), (end, y - 3))
    picture(ax, vessels, 844, y - 58, 116)
    text(ax, 902, y + 76, "vessel map", weight="bold")


def main() -> None:
    torch.manual_seed(1)
    fundus = draw_fundus(np.random.default_rng(2), 720, 720)
    # Most cameras leave little black around the retina; without it the corner patches show some.
    image, vessels = (Image.fromarray(array).crop((60, 60, 660, 660)) for array in (fundus.image, fundus.vessels))
    figure = plt.figure(figsize=(WIDTH / 100, HEIGHT / 100), facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    pretraining(ax, image)
    segmentation(ax, image, vessels)
    ax.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), aspect="equal")
    ax.axis("off")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=100 * SCALE, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
