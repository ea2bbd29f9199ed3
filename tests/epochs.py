"""Small epochs of both scripts on any device, as far as `main` would bring them, for the tests of devices."""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from DownStream import train as segmentation
from DownStream.model import Segmenter
from DownStream.recipes import RECIPES
from DownStream.sets import CATALOGUE
from DownStream.transforms import NetworkInput
from DualScaleNet import main as pretraining
from DualScaleNet.model import DualScaleNet
from DualScaleNet.processes import Processes
from DualScaleNet.runtime import Progress, grad_scaler

Epoch = Callable[..., dict[str, float]]  # of one argument, `keep`, which it calls after every step but the last


def pretraining_epoch(
    args: argparse.Namespace, photographs: np.ndarray | Tensor, device: torch.device
) -> tuple[DualScaleNet, Epoch]:
    """A network on `device`, and its first epoch."""
    torch.manual_seed(args.seed)
    network = DualScaleNet(stop_gradient=args.stop_gradient, one_pass=device.type != "cpu").to(device)
    optimizer = torch.optim.Adam(network.parameters(), args.lr, fused=True)
    state = {"model": network, "optimizer": optimizer, "scaler": grad_scaler(device, args.precision)}
    epoch = partial(
        pretraining.train_one_epoch, network, state, photographs, args, Processes(), Progress(0),
        files_of=lambda *_: [], bar=tqdm(disable=True),
    )  # fmt: skip
    return network, epoch


def segmentation_epoch(args: argparse.Namespace, device: torch.device) -> tuple[Segmenter, Epoch]:
    """A network on `device` with a random encoder, and its first epoch on the data set's training photographs."""
    settings, recipe = CATALOGUE[args.dataset], RECIPES[args.recipe]
    samples = settings.find(args.data_dir, args.target)["train"]
    network_input = NetworkInput(settings.fit, args.size, recipe.standardise)
    photographs = segmentation.read_training_set(samples, args, network_input, device)
    torch.manual_seed(args.seed)
    encoder = segmentation.initial_encoder(args)
    model = Segmenter(encoder, len(args.target), True, recipe.widths, recipe.detail, recipe.contrast)
    model.to(device, memory_format=torch.channels_last)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, args.lr, weight_decay=segmentation.WEIGHT_DECAY, fused=True)
    scaler = grad_scaler(device, args.precision)
    epoch = partial(
        segmentation.train_one_epoch, model, optimizer, scaler, photographs, network_input, args, Progress(0),
        files_of=lambda *_: [],
    )  # fmt: skip
    return model, epoch
