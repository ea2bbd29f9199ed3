"""The feature vectors of many photographs: an encoder's maps, averaged over each."""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from DownStream.data import evenly
from DownStream.inference import reestimate_batch_norm
from DownStream.options.features import Options
from DownStream.prediction import ahead
from DownStream.selection import photographs_in
from DownStream.sets.base import Sample
from DownStream.training_set import STATISTICS
from DualScaleNet.common.device import select_device
from DualScaleNet.common.files import replacing
from DualScaleNet.common.photographs import LABEL_BY_COLOURS, skipped_line
from DualScaleNet.common.script import UserError, progress_bar
from DualScaleNet.data import LABEL, decode
from DualScaleNet.encoder import Encoder, load_encoder
from DualScaleNet.recipes import RECIPES
from DualScaleNet.views import standardise


def write_vectors(options: Options) -> None:
    """All that features.py does.

    Raises:
        UserError: something only the user can mend. If that is photographs that cannot be read, the file is written.
    """
    device = select_device(options.device)
    encoder, facts = load_encoder(options.encoder, options.arch)
    encoder.to(device)
    samples, _ = photographs_in(options.images)
    prepare = partial(prepared, **as_in_pretraining(facts, options.size))
    names, vectors, labels, bad = list[str](), list[np.ndarray](), [], 0
    with ThreadPoolExecutor() as pool:
        if options.batch_norm == "reestimate":
            images = ahead(pool, prepare, evenly(samples, STATISTICS))
            reestimate_batch_norm(encoder, (image for image in images if isinstance(image, Tensor)))
        images = ahead(pool, prepare, samples)
        for sample, image in zip(progress_bar(samples, "features", unit="photo"), images, strict=True):
            if isinstance(image, Tensor):
                names.append(sample.id)
                vectors.append(vector_of(encoder, image.to(device)))
            elif image == LABEL:
                labels.append(sample.image)
            else:
                tqdm.write(f"left out: {image}", file=sys.stderr)
                bad += 1
    if labels:
        print(skipped_line({LABEL_BY_COLOURS: labels}))
    if names:
        table = np.stack(vectors)
        with replacing(options.out) as temporary:
            np.savez(temporary, names=np.array(names), c5=table[:, -encoder.channels[-1] :], all=table)
        print(f"{len(names)} photographs, {table.shape[1]} numbers each: {options.out}")
    if bad:
        raise UserError(f"{bad} of {len(samples)} photographs could not be read and were left out")
    if not names:
        raise UserError("no photographs in --images: name photographs, or folders of them")


def as_in_pretraining(facts: dict[str, Any], size: int | None) -> dict[str, Any]:
    """How `prepared` makes of a photograph what the encoder learned from; older files, and others', say it in part."""
    recipe = RECIPES.get(facts.get("recipe", ""), RECIPES["paper"])
    return {
        "size": size or facts.get("size", 224), "antialias": recipe.antialias,
        "standardised": facts.get("standardise", recipe.standardise),
    }  # fmt: skip


def prepared(sample: Sample, size: int, antialias: bool, standardised: bool) -> Tensor | str:
    """A photograph (3, size, size) in [0, 1], or why there is none, as `decode` has it."""
    pixels = decode(sample.image, size, antialias, sample.bits)
    if isinstance(pixels, str):
        return pixels
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    return standardise(image) if standardised else image


@torch.inference_mode()
def vector_of(encoder: Encoder, image: Tensor) -> np.ndarray:
    """The averages of all maps' channels, c1 first, float32 (sum of channels,), of an image (3, H, W) in [0, 1].

    One image passes at a time, so that its vector does not depend on the others.
    """
    return torch.cat([each.mean((2, 3))[0] for each in encoder(image[None])]).cpu().numpy()
