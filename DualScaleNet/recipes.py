"""The settings in which recipes of pretraining differ; any of them is an option too."""

import argparse
from typing import NamedTuple


class Recipe(NamedTuple):
    """`stop_gradient`: none flows into z(y) of LocalFocus. `crop`: GlobalFocus crops at random before augmenting.

    `antialias`: the resize is antialiased. `augmentation`: "one" operation for each view, or "all" five.
    `standardise`: each view's colours are standardised after that. `lr`: Adam's learning rate.
    """

    stop_gradient: bool
    crop: bool
    antialias: bool
    augmentation: str = "one"
    standardise: bool = False
    lr: float = 1e-3


RECIPES = {
    "paper": Recipe(stop_gradient=True, crop=True, antialias=True),  # the method's figure
    "release": Recipe(stop_gradient=False, crop=False, antialias=False),  # its authors' published settings
    # Ours: colours tell nothing, and slower learning keeps the projections from falling onto a few axes.
    "steady": Recipe(stop_gradient=True, crop=True, antialias=True, augmentation="all", standardise=True, lr=3e-4),
}

# torchvision's, but for the first, which is the method's own (encoder.py).
ARCHITECTURES = ("bottleneck18", "resnet18", "resnet34", "resnet50")
TIMM = "timm/"  # so begins the name of an architecture that the package timm builds


def architecture(text: str) -> str:
    """What argparse calls with the name of an encoder's architecture, ours or timm's."""
    if text not in ARCHITECTURES and not text.startswith(TIMM):
        raise argparse.ArgumentTypeError(f"{text}: choose {', '.join(ARCHITECTURES)} or {TIMM}NAME")
    return text
