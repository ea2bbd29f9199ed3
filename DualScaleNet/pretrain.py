"""The pretraining run: photographs, views, embeddings, losses."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from DualScaleNet.common.checkpoint import fingerprint
from DualScaleNet.common.device import autocast, resolve_precision, seeded_generator, select_device
from DualScaleNet.common.files import claim
from DualScaleNet.common.options import plain_options
from DualScaleNet.common.photographs import (
    LABEL_BY_COLOURS,
    find_duplicates,
    find_photographs,
    sizes_of,
    skipped_line,
)
from DualScaleNet.common.processes import Processes
from DualScaleNet.common.resume import resume
from DualScaleNet.common.run import Run, epoch_order
from DualScaleNet.common.script import UserError, code_version, warn
from DualScaleNet.data import Photographs, batches, hold, load_photographs
from DualScaleNet.encoder import save_encoder
from DualScaleNet.loss import global_loss, local_loss
from DualScaleNet.model import DualScaleNet, Embeddings
from DualScaleNet.monitor import collapse_report, collapse_warnings
from DualScaleNet.options import DDR, Options
from DualScaleNet.recipes import RECIPES
from DualScaleNet.views import global_views, local_views, standardise

FOLDERS = {"data", "cache", "run_dir"}  # may lie elsewhere on another host


def pretrain(options: Options, processes: Processes) -> None:
    """The whole run, in each of its processes.

    Raises:
        UserError: something only the user can mend.
        Stopped: a signal ended the run, which is saved.
    """
    device = select_device(options.device)
    require_same_options(options, processes, device)
    found = open_photographs(options, processes)
    refuse_batch_size(options, processes, len(found.array))
    processes.connect_devices(device)
    photographs = hold(found.array, device)
    if processes.rank == 0:
        claim(options.run_dir)

    torch.manual_seed(options.seed)
    model = build_model(options, device)
    optimizer = torch.optim.Adam(model.parameters(), options.lr, weight_decay=options.weight_decay, fused=True)
    run = Pretraining(options, model, optimizer, found.paths, processes)
    elsewhere = resume(run, len(photographs))
    network = distributed(model, options, processes)
    processes.require_alike(run.state_facts)
    if run.first and elsewhere:  # whoever is first has all of the run
        run.save()
    if run.is_over():
        return

    run.begin(f"{len(photographs)} photographs, {run.steps_per_epoch} steps an epoch, {options.arch}")
    if run.first and run.epoch == run.step == 0:
        for snapshot in run.folder.glob("encoder-[0-9]*.pth"):  # of a run that this one replaces
            snapshot.unlink()
        if snapshot_due(0, options):
            run.save_encoder(snapshot_name(0), 0)
    for epoch in run.epochs():
        row = train_one_epoch(run, network, photographs)
        run.warn_of_collapse(row)
        due = snapshot_due(epoch + 1, options)
        if due and run.first:
            run.save_encoder(snapshot_name(epoch + 1), epoch + 1)
        run.end_epoch(row, due)
    if run.first:
        encoder = run.folder / "encoder.pth"
        print(f"{encoder}: epoch {options.epochs}, loss {row['loss']:.4f}")
        print(f"train a decoder on it: python DownStream/train.py --encoder {encoder}")


def snapshot_due(epoch: int, options: Options) -> bool:
    """Whether a copy of the encoder is kept after so many epochs."""
    first, *others = options.snapshot_every
    return epoch in options.snapshot_every if others else epoch > 0 and epoch % first == 0


def snapshot_name(epoch: int) -> str:
    """The file of the copy after so many epochs."""
    return f"encoder-{epoch:04d}.pth"


def train_one_epoch(run: "Pretraining", network: nn.Module, photographs: np.ndarray | Tensor) -> dict[str, Any]:
    """Trains the remaining steps of the epoch. Returns the row of `log.csv`.

    Args:
        network: the run's model, as it is or distributed over processes.
        photographs: (N, size, size, 3) uint8.
    """
    options, processes = run.options, run.processes
    network.train()
    members = [run.share(run.epoch, step) for step in range(run.step, run.steps_per_epoch)]
    for batch, step in zip(batches(photographs, members, run.device), run.steps(), strict=True):
        images = batch.permute(0, 3, 1, 2).float() / 255
        generator = seeded_generator(options.seed, run.epoch, step, processes.rank)
        all_operations = options.augmentation == "all"
        x, y = local_views(images, generator, options.grid, all_operations)
        whole = global_views(images, generator, options.crop, all_operations)
        if options.standardise:
            x, y, whole = map(standardise, (x, y, whole))

        terms, parts = torch.zeros(len(run.terms), device=run.device), list[list[Tensor]]()
        for part in zip(*(views.chunk(options.accumulate) for views in (x, y, whole)), strict=True):
            last = len(parts) + 1 == options.accumulate
            with network.no_sync() if not last and isinstance(network, DistributedDataParallel) else nullcontext():
                with autocast(run.device, options.precision):
                    embeddings = Embeddings(*(vectors.float() for vectors in network(*part)))
                losses = weighted_losses(embeddings, options.weights) / options.accumulate
                run.backward(losses[0])
            terms += losses.detach()
            parts.append([vectors.detach() for vectors in embeddings])
        if run.end_step(terms):
            last_embeddings, last_views = parts, (y, whole)

    row = run.summary([options.batch_size] * run.steps_per_epoch)
    embeddings = Embeddings(*(torch.cat(vectors) for vectors in zip(*last_embeddings, strict=True)))
    return row | collapse_report(embeddings, *last_views)


def weighted_losses(embeddings: Embeddings, weights: Sequence[float]) -> Tensor:
    """The loss and its terms, as `Pretraining.terms` names them, (5,)."""
    global_weight, local_weight, *patch_weights = weights
    local = local_loss(embeddings.local_predictions, embeddings.local_projections, *patch_weights)
    whole = global_loss(embeddings.global_predictions, embeddings.global_projections)
    return torch.stack([global_weight * whole + local_weight * local.total, whole, *local])


class Pretraining(Run):
    """A run of pretraining on the photographs in `paths`; it writes encoder.pth too, to use."""

    kind = "pretraining"
    terms = ("loss", "global", "local", "positive", "negative")
    panels: ClassVar = {
        "loss": ["loss", "global", "local"],
        "terms of the local loss": ["positive", "negative"],
        "standard deviation (1 healthy, 0 collapsed)": ["local_projection_std", "global_projection_std"],
        "effective rank of 128": ["local_projection_rank", "global_projection_rank"],
        "variance explained by colour": ["local_projection_colour", "global_projection_colour"],
    }
    options: Options
    model: DualScaleNet

    def __init__(
        self,
        options: Options,
        model: DualScaleNet,
        optimizer: torch.optim.Optimizer,
        paths: list[Path],
        processes: Processes | None = None,
    ) -> None:
        super().__init__(options, model, optimizer, len(paths) // options.batch_size, processes)
        self.paths, self.sizes, self.warned = paths, sizes_of(paths), set[str]()

    def members(self, epoch: int, step: int) -> np.ndarray:
        """Which photographs are in a step's batch, over all processes. Each epoch has an order of its own."""
        order = epoch_order(self.options.seed, epoch, len(self.paths))
        return order[step * self.options.batch_size : (step + 1) * self.options.batch_size]

    def share(self, epoch: int, step: int) -> np.ndarray:
        """Of a step's batch the photographs of this process; each part of --accumulate sorted, as a disk likes it."""
        accumulate, rank = self.options.accumulate, self.processes.rank
        parts = np.split(self.members(epoch, step), self.processes.count * accumulate)
        return np.concatenate([np.sort(part) for part in parts[rank * accumulate : (rank + 1) * accumulate]])

    def files_of(self, epoch: int, step: int) -> list[Path]:
        return [self.paths[k] for k in self.members(epoch, step)]

    def description(self) -> dict[str, Any]:
        return {"images": len(self.paths), "sizes": self.sizes}

    def save(self) -> None:
        self.save_encoder("encoder.pth", self.epoch)
        super().save()

    def save_encoder(self, name: str, epoch: int) -> None:
        """The encoder as it is now, after `epoch` epochs, into the run's folder."""
        options = self.options
        save_encoder(
            self.folder / name, self.model.encoder, options.recipe, epoch, len(self.paths), options.image_size,
            options.standardise,
        )  # fmt: skip

    def state_facts(self) -> dict[str, Any]:
        """What must be the same in all processes."""
        return {
            "position": [self.epoch, self.step],
            "weights": fingerprint(self.model.state_dict()),
            "Adam's moments": fingerprint(self.optimizer.state_dict()),
        }

    def warn_of_collapse(self, row: dict[str, Any]) -> None:
        """Of each measure once a start."""
        most = self.options.batch_size // self.processes.count - self.options.accumulate
        for name, warning in collapse_warnings(row, most).items():
            if name not in self.warned:
                warn(f"epoch {row['epoch']}: {warning}")
                self.warned.add(name)


def build_model(options: Options, device: torch.device) -> DualScaleNet:
    """The network with both branches, with new weights."""
    model = DualScaleNet(
        options.arch, options.stop_gradient, options.batch_norm != "joint",
        options.batch_norm == "synchronised" and torch.distributed.is_initialized(),  # one process has the whole batch
        options.checkpoint_activations, one_pass=device.type != "cpu",
        train_global=options.weights[0] > 0, train_local=options.weights[1] > 0,
    )  # fmt: skip
    return model.to(device)


def distributed(model: DualScaleNet, options: Options, processes: Processes) -> nn.Module:
    """The model as it is, or with gradients averaged over the processes."""
    if processes.count == 1:
        return model
    device = next(model.parameters()).device
    devices = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, devices, find_unused_parameters=0 in options.weights[:2])


def require_same_options(options: Options, processes: Processes, device: torch.device) -> None:
    """All processes must run the same code with the same options on devices of one kind.

    Raises:
        UserError: they do not.
    """
    named = {
        f"--{name.replace('_', '-')}": value for name, value in plain_options(options).items() if name not in FOLDERS
    }
    machine = {"device": device.type, "precision": resolve_precision(device, options.precision)}
    versions = {"code": code_version("DualScaleNet"), "PyTorch": torch.__version__}
    processes.require_alike(lambda: {**versions, **machine, **named})


def refuse_batch_size(options: Options, processes: Processes, photographs: int) -> None:
    """Each process passes at least two photographs of a batch through the network at once.

    Raises:
        UserError: the batch cannot be cut into equal parts, or there are fewer photographs than that.
    """
    parts = processes.count * options.accumulate
    if options.batch_size % parts or options.batch_size < 2 * parts:
        of = f"a multiple of {parts} (processes x --accumulate) and " if parts > 1 else ""
        raise UserError(f"--batch-size {options.batch_size}: must be {of}at least {2 * parts}")
    if photographs < options.batch_size:
        raise UserError(f"{photographs} photographs are fewer than --batch-size {options.batch_size}: lower it")


def open_photographs(options: Options, processes: Processes) -> Photographs:
    """All photographs that can be read, in the cache; for each cache one process decodes them, the others wait.

    Raises:
        UserError: the hosts have different photographs, or too many are unreadable.
    """
    if options.data == DDR[:1] and not DDR[0].exists():
        raise UserError(f"no photographs: give --data FOLDER, or put DDR into {DDR[0]} (see Dataset/README.md)")
    paths, counts, skipped = find_photographs(options.data, options.splits)
    processes.require_alike(
        lambda: {"the number of photographs": len(paths), "the photographs' sizes or order": sizes_of(paths)}
    )
    left_out = {split: n for split, n in counts.items() if split and split not in options.splits}
    if processes.rank == 0 and left_out:
        print(f"left out by --splits: {', '.join(f'{n} photographs of {split}' for split, n in left_out.items())}")
    if processes.rank == 0 and (duplicates := find_duplicates(paths)):
        first, second, *_ = duplicates[0]
        print(f"photographs that occur more than once: {len(duplicates)}, e.g. {first} and {second}; each copy counts")
    antialias = RECIPES[options.recipe].antialias
    photographs = load_photographs(paths, options.image_size, antialias, options.cache, options.max_bad)
    if photographs.labels:
        skipped[LABEL_BY_COLOURS] = photographs.labels
    if processes.rank == 0 and skipped:
        print(skipped_line(skipped))
    for why in photographs.unreadable.values():
        warn(f"left out: {why}")
    bad, labels = photographs.unreadable, set(photographs.labels)
    processes.require_alike(
        lambda: {
            "the unreadable photographs": [k for k, path in enumerate(paths) if path in bad],
            "the labels among the photographs": [k for k, path in enumerate(paths) if path in labels],
        }
    )
    return photographs
