"""The settings in which recipes of segmentation differ: decoder, loss, colours, augmentation and optimisation.

`compact` is ours and the default; `release` the authors' published settings; `linear` a
linear probe, which shows what an encoder's maps are worth by themselves. The others are ablations of `compact`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """`decoder`: its name in `DECODERS` (model.py).

    `scale`: photographs are brought to one field-of-view diameter, or squares around the field of view to one size.
    `standardise` the colours inside each photograph's field-of-view mask, and `jitter` them in training. `upright_roi`:
    an ROI around the disc stays upright in training (`augment`). `dice_weight` of the Dice loss beside cross-entropy.
    `crop`: side of random crops, in pixels; `disc_size`: that of the input for disc and cup, which are seen whole;
    `steps`: how many it trains for. None: whole photographs, and the data set's own size and epochs, by the authors.
    """

    decoder: str = "unet"
    scale: bool = False
    standardise: bool = False
    jitter: bool = False
    upright_roi: bool = False
    dice_weight: float = 0.0
    crop: int | None = None
    disc_size: int | None = None
    lr: float | None = None
    schedule: str = "constant"
    batch_size: int | None = None
    steps: int | None = None


RELEASE = Recipe()
COMPACT = Recipe(
    decoder="compact", scale=True, standardise=True, jitter=True, upright_roi=True, dice_weight=1.0, crop=128,
    disc_size=128, lr=3e-3, schedule="cosine", batch_size=4, steps=4000,
)  # fmt: skip
WITHOUT = {
    "detail": replace(COMPACT, decoder="compact-without-detail"),
    "contrast": replace(COMPACT, decoder="compact-without-contrast"),
    "standardise": replace(COMPACT, standardise=False),
    "jitter": replace(COMPACT, jitter=False),
    "upright": replace(COMPACT, upright_roi=False),
    "dice": replace(COMPACT, dice_weight=0.0),
}
LINEAR = replace(COMPACT, decoder="linear", jitter=False)
RECIPES = {
    "compact": COMPACT,
    "release": RELEASE,
    "linear": LINEAR,
    **{f"compact-without-{part}": recipe for part, recipe in WITHOUT.items()},
}

# Recipes were presets once, and had other names: old commands, checkpoints and comparisons still have them.
OLD_NAMES = {"ours": "compact", "authors": "release", **{f"ours-without-{x}": f"compact-without-{x}" for x in WITHOUT}}


def current_name(name: str) -> str:
    """Today's name of a recipe, from its name of any time."""
    return OLD_NAMES.get(name, name)


def current_options(options: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's options, in today's words where an older version wrote them, and with what it did not have yet."""
    options = {"missing_labels": "error", "init": None, **options}
    options |= {name: [options[name]] for name in ("dataset", "data_dir") if isinstance(options.get(name), str)}
    if "preset" in options:
        options["recipe"] = current_name(options.pop("preset"))
    return options


def recipe_type(option: str, old_option: str | None = None) -> Callable[[str], str]:
    """What argparse calls with the name of a recipe. An old name, of the option or the recipe, prints the new one."""

    def convert(text: str) -> str:
        name = current_name(text)
        if name in RECIPES and (old_option or name != text):
            print(f"{old_option or option} {text} is now {option} {name}", file=sys.stderr)
        return name

    return convert
