"""What a network finds in a photograph: maps, masks and numbers, as predict.py writes them. In three lines of Python:

    from DownStream.segmentation import Network
    network = Network("best.pth")
    found = network(image)  # uint8 (H, W, 3) RGB -> found.maps, found.masks, found.numbers
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from DownStream.checkpoints import load_segmentation
from DownStream.data import Photograph
from DownStream.inference import Prediction, Predictor
from DownStream.measurements import measure
from DownStream.postprocessing import postprocess
from DownStream.quality import quality
from DownStream.scoring.metrics import threshold_level, to_levels
from DualScaleNet.common.device import select_device
from DualScaleNet.common.surroundings import black_surroundings


@dataclass(frozen=True)
class Segmentation:
    """What a network found in a photograph (H, W); maps, levels and masks by target.

    `maps` are probabilities, float32 (H, W); `levels` the same as the 16-bit files have them, uint16; `masks` bool.
    `numbers` are those of summary.csv, by its columns; None where one is not defined. `uncertainty` is the
    standard deviation of several networks' probabilities, as `maps`; None for one.
    """

    maps: dict[str, np.ndarray]
    levels: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    numbers: dict[str, Any]
    uncertainty: dict[str, np.ndarray] | None = None

    @classmethod
    def of(
        cls,
        photograph: Photograph,
        prediction: Prediction,
        thresholds: dict[str, float],
        pixel_size: float | None = None,
        raw_masks: bool = False,
    ) -> "Segmentation":
        """Of what a network gives for a photograph.

        Args:
            thresholds: of each target's mask, by its name, in the order of the maps.
            pixel_size: mm; adds lengths and areas in mm.
            raw_masks: masks are not post-processed.
        """
        probability = dict(zip(thresholds, prediction.maps.numpy(), strict=True))
        levels = {target: to_levels(each) for target, each in probability.items()}
        masks = {target: each >= threshold_level(thresholds[target]) for target, each in levels.items()}
        masks = masks if raw_masks else postprocess(masks)
        _, height, width = photograph.image.shape
        numbers: dict[str, Any] = {
            "width": width, "height": height, "field of view": photograph.diameter and round(photograph.diameter),
            "scale": prediction.scale, "laterality": "",
            **quality(photograph),
        }  # fmt: skip
        if prediction.disc_found is not None:
            numbers["disc found"] = int(prediction.disc_found)
        numbers |= {f"{target} highest probability": each.max() / 65535 for target, each in levels.items()}
        uncertainty = None
        if prediction.uncertainty is not None:
            uncertainty = dict(zip(thresholds, prediction.uncertainty.numpy(), strict=True))
            fov = photograph.field_of_view
            numbers |= {f"{target} uncertainty": float(each.mean(where=fov)) for target, each in uncertainty.items()}
        numbers |= measure(masks, photograph.field_of_view, pixel_size)
        return cls(probability, levels, masks, numbers, uncertainty)


class Network:
    """A trained network, to be called with one photograph after the other.

    Args:
        checkpoint: a best.pth or last.pth of train.py; a network that looks for the disc first has its localiser in it.
        device: as --device.

    Raises:
        UserError: the file is unfit, or there is no such device.
    """

    def __init__(self, checkpoint: Path | str, device: str = "auto") -> None:
        content = load_segmentation(Path(checkpoint))
        self.targets: list[str] = content["targets"]
        self.predictor = Predictor.load(content, select_device(device))

    def __call__(self, image: np.ndarray) -> Segmentation:
        """What predict.py finds in a file of this photograph, uint8 (H, W, 3) RGB, at its defaults (threshold 0.5).

        Raises:
            ValueError: it is no such array.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a photograph is uint8 (H, W, 3) RGB, not {image.dtype} {image.shape}")
        pixels = torch.from_numpy(black_surroundings(image).copy()).permute(2, 0, 1)
        photograph = Photograph("", pixels, {})
        return Segmentation.of(photograph, self.predictor(photograph), dict.fromkeys(self.targets, 0.5))
