"""Small epochs of both scripts on any device, as far as the scripts would bring them, for the tests of devices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from DownStream import training as segmentation
from DownStream.inference import Predictor
from DownStream.model import DECODERS, Segmenter
from DownStream.options.train import Options as SegmentationOptions
from DownStream.recipes import RECIPES
from DownStream.sets import CATALOGUE
from DownStream.training_set import input_of, read_training_set
from DualScaleNet import pretrain as pretraining
from DualScaleNet.common.device import training_layout
from DualScaleNet.model import DualScaleNet
from DualScaleNet.options import Options as PretrainingOptions

Epoch = Callable[[Callable[[], Any]], dict[str, float]]  # of a function that it calls after every step but the last


def pretraining_epoch(
    options: PretrainingOptions, photographs: np.ndarray | Tensor, device: torch.device
) -> tuple[DualScaleNet, Epoch]:
    """A network on `device`, and its first epoch."""
    torch.manual_seed(options.seed)
    network = pretraining.build_model(options, device)
    optimizer = torch.optim.Adam(network.parameters(), options.lr, fused=True)
    run = pretraining.Pretraining(options, network, optimizer, [Path()] * len(photographs))

    def epoch(after_step: Callable[[], Any]) -> dict[str, float]:
        with mock.patch.object(run, "save_if_due", after_step):
            return pretraining.train_one_epoch(run, network, photographs)

    return network, epoch


def segmentation_epoch(options: SegmentationOptions, device: torch.device) -> tuple[Segmenter, Epoch]:
    """A network on `device` with a random encoder, and its first epoch on the data set's training photographs."""
    options.run_dir = Path()
    samples = CATALOGUE[options.dataset[0]].find(options.data_dir[0], options.target)["train"]
    network_input = input_of(options, samples)
    photographs = read_training_set(samples, options, network_input, device)
    torch.manual_seed(options.seed)
    shape = DECODERS[RECIPES[options.recipe].decoder]
    model = Segmenter(segmentation.initial_encoder(options), len(options.target), True, shape)
    model.to(device).to(memory_format=training_layout(device, options.precision))
    run = segmentation.Training(options, Predictor(model, network_input), photographs, {})

    def epoch(after_step: Callable[[], Any]) -> dict[str, float]:
        with mock.patch.object(run, "save_if_due", after_step):
            return segmentation.train_one_epoch(run)

    return model, epoch
