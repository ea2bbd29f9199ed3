"""Probability maps of any photograph at native size, and the statistics that the encoder needs to make them."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from DownStream.data import Photograph
from DownStream.model import DecoderShape, Segmenter
from DownStream.region import Region, disc_region
from DownStream.transforms import NetworkInput
from DualScaleNet.encoder import Encoder

WHOLE = 1_500_000  # pixels: a larger photograph passes in windows, unless their side is given
WINDOW, WINDOWS = 512, 4  # the windows' side then, and how many pass through the network together


@dataclass(frozen=True)
class Prediction:
    """What a network gives for a photograph (H, W).

    `maps` are probabilities (targets, H, W), float32, on the CPU, zero outside the `region` that they come from.
    `scale`: the factor by which the photograph was resized, to four decimals; None where to a square. `disc_found`:
    None where the network does not look for a disc first. `uncertainty`: the standard deviation of several networks'
    probabilities, as `maps`; None for one.
    """

    maps: Tensor
    region: Region
    scale: float | None = None
    disc_found: bool | None = None
    uncertainty: Tensor | None = None


@dataclass
class Predictor:
    """A network with all that stands between it and a photograph.

    `fov_crop`: only the field of view's bounding box passes. `localiser`: only the ROI around the disc that it finds
    does. `factor`: photographs are resized by it; None: to the diameter that the network knows. `window`: the scaled
    photograph passes in overlapping windows of this side, whose maps are blended, so that activations of a large
    photograph take no more memory; None: only a large one does. `tta`: the mean over the eight flips and quarter
    turns, or, of a network trained on what is `upright`, over the photograph and its mirror image.
    """

    model: Segmenter
    network_input: NetworkInput
    fov_crop: bool = False
    localiser: "Predictor | None" = None
    factor: float | None = None
    window: int | None = None
    tta: bool = False
    upright: bool = False

    @classmethod
    def load(cls, checkpoint: dict[str, Any], device: torch.device) -> "Predictor":
        """From the content of a segmentation checkpoint; its localiser comes with it."""
        encoder, classes = Encoder(checkpoint["arch"], checkpoint["scaling"]), len(checkpoint["targets"])
        model = Segmenter(encoder, classes, shape=DecoderShape.of(checkpoint))
        model.load_state_dict(checkpoint["model"])
        model.to(device).to(memory_format=torch.channels_last)
        localiser = cls.load(checkpoint["localiser"], device) if checkpoint.get("localiser") else None
        upright = checkpoint.get("upright", False)
        return cls(
            model, NetworkInput.of(checkpoint), checkpoint.get("fov_crop", False), localiser, upright=upright
        )

    @torch.inference_mode()
    def __call__(self, photograph: Photograph) -> Prediction:
        """What the network gives for a photograph."""
        height, width = photograph.image.shape[1:]
        region, factor = self.region(photograph), self.factor_of(photograph)
        scale = round(factor, 4) if self.network_input.fit == "pad" else None
        found = region.found if self.localiser else None
        if not region.found:
            return Prediction(torch.zeros(self.model.classes, height, width), region, scale, found)
        self.model.eval()
        image = self.network_input.visible(photograph).to(next(self.model.parameters()).device)
        image = region.cut(image)
        maps = self._maps(self.network_input.scale(image, factor).float() / 255)
        maps = self.network_input.restore(maps, region.height, region.width)
        return Prediction(region.paste(maps, height, width).cpu(), region, scale, found)

    def region(self, photograph: Photograph) -> Region:
        """Where the network looks. No label is used."""
        if self.localiser:
            # The first target of a localiser is the disc.
            disc = self.localiser(photograph).maps[0] >= 0.5
            return disc_region(disc.numpy(), photograph.image[1].numpy()) or Region.whole(photograph.image, found=False)
        return self.network_input.region(photograph, self.fov_crop)

    def factor_of(self, photograph: Photograph) -> float:
        """By which a photograph is resized before it is padded."""
        return self.factor or self.network_input.factor_of(photograph)

    def _maps(self, x: Tensor) -> Tensor:
        """(3, S, T) in [0, 1] -> (classes, S, T)."""
        if not self.tta:
            return self._one_view(x)
        total = x.new_zeros(self.model.classes, *x.shape[1:])
        views = list(product((False, True), range(1 if self.upright else 4)))
        for mirror, turns in views:
            view = torch.rot90(x.flip(-1) if mirror else x, turns, (-2, -1))
            maps = torch.rot90(self._one_view(view), -turns, (-2, -1))
            total += maps.flip(-1) if mirror else maps
        return total / len(views)

    def _one_view(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:]
        padded = self.network_input.pad(x)
        large = padded.shape[1] * padded.shape[2] > WHOLE
        window = self.window or (WINDOW if large else max(padded.shape[1:]))
        if window >= max(padded.shape[1:]):
            return self.model(padded[None])[0].sigmoid()[:, :height, :width]
        return self._by_windows(padded, window)[:, :height, :width]

    def _by_windows(self, x: Tensor, side: int) -> Tensor:
        """Windows overlap by a quarter; a pixel's probability is their mean, weighted by the distance to their edge."""
        height, width = x.shape[1:]
        ramp = 1 - (torch.arange(side, device=x.device) + 0.5 - side / 2).abs() / (side / 2)
        shares = ramp[:, None] * ramp
        total = torch.zeros(self.model.classes, height, width, device=x.device)
        weight = torch.zeros(height, width, device=x.device)
        corners = [(top, left) for top in starts(height, side) for left in starts(width, side)]
        for first in range(0, len(corners), WINDOWS):
            places = [
                (..., slice(top, top + side), slice(left, left + side))
                for top, left in corners[first : first + WINDOWS]
            ]
            # A side shorter than the window is taken whole.
            maps = self.model(torch.stack([x[place] for place in places])).sigmoid()
            for place, one in zip(places, maps, strict=True):
                part = shares[: one.shape[1], : one.shape[2]]
                total[place] += one * part
                weight[place] += part
        return total / weight


@dataclass
class Ensemble:
    """Several networks as one. The maps of a target are the mean over the networks that segment it and found its ROI.

    Args:
        parts: the networks.
        targets: of each network the names of its maps.
    """

    parts: list[Predictor]
    targets: list[list[str]]

    def __call__(self, photograph: Photograph) -> Prediction:
        """The targets in the order in which they first come. Uncertainty needs several networks for each."""
        predictions = [part(photograph) for part in self.parts]
        maps: dict[str, list[tuple[Tensor, bool]]] = {}  # each with whether its network found where to look
        for names, prediction in zip(self.targets, predictions, strict=True):
            for name, one in zip(names, prediction.maps, strict=True):
                maps.setdefault(name, []).append((one, prediction.disc_found is not False))
        several = all(len(pairs) > 1 for pairs in maps.values())
        each = [
            torch.stack([one for one, seen in pairs if seen] or [one for one, _ in pairs]) for pairs in maps.values()
        ]
        found = [prediction.disc_found for prediction in predictions if prediction.disc_found is not None]
        return Prediction(
            torch.stack([one.mean(0) for one in each]), Region.whole(photograph.image),
            next((prediction.scale for prediction in predictions if prediction.scale is not None), None),
            any(found) if found else None,
            torch.stack([one.std(0, correction=0) for one in each]) if several else None,
        )  # fmt: skip


def starts(length: int, side: int) -> list[int]:
    """Where windows begin along a length: every three quarters of a side, the last one flush with the end."""
    return [*range(0, length - side, side * 3 // 4), length - side] if length > side else [0]


@torch.no_grad()
def reestimate_batch_norm(encoder: Encoder, images: Iterable[Tensor]) -> None:
    """Replaces the BN statistics by their cumulative average over whole photographs. No label is used.

    Statistics learned on patches, or the identity of a fresh encoder, do not fit whole photographs: a random frozen
    encoder goes from F1 .23 to .68 on DRIVE by this alone. The encoder is in eval mode afterwards.

    Args:
        images: (3, H, W) each, as the encoder is to see them, uint8 or floats in [0, 1]. They may differ in size, and
            pass one at a time, as in prediction, large ones in windows.
    """
    device = next(encoder.parameters()).device
    layers = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative average
    encoder.train()
    for image in images:
        x = image.to(device)
        x = x if x.is_floating_point() else x.float() / 255
        side = WINDOW if x.shape[1] * x.shape[2] > WHOLE else max(x.shape[1:])
        for top, left in product(starts(x.shape[1], side), starts(x.shape[2], side)):
            encoder(x[None, :, top : top + side, left : left + side])
    encoder.eval()
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
