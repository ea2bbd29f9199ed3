"""The segmentation run: photographs, crops, logits, loss; with validation."""

import copy
import math
import os
import shlex
from pathlib import Path
from typing import Any, ClassVar

import torch

from DownStream.census import Census
from DownStream.checkpoints import (
    initial_encoder,
    load_latest_segmentation,
    read_init,
    read_localiser,
    seen_in_training,
    take_decoder,
)
from DownStream.data import read_sample
from DownStream.inference import Predictor, reestimate_batch_norm
from DownStream.loss import segmentation_loss
from DownStream.model import DECODERS, Segmenter
from DownStream.options.train import Options
from DownStream.recipes import RECIPES
from DownStream.scoring.metrics import Histogram, scores, to_levels
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample
from DownStream.training_set import (
    default_epochs,
    files_of,
    for_statistics,
    input_of,
    read_training_set,
    split_samples,
    stays_upright,
)
from DownStream.transforms import NetworkInput, TrainingPhotograph, training_batch
from DualScaleNet.common.checkpoint import restore, save_checkpoint
from DualScaleNet.common.device import autocast, seeded_generator, select_device, training_layout
from DualScaleNet.common.files import claim, write_json
from DualScaleNet.common.options import plain_options
from DualScaleNet.common.photographs import sizes_of
from DualScaleNet.common.resume import refuse_other_options
from DualScaleNet.common.run import Position, Run, epoch_order
from DualScaleNet.common.script import ROOT, UserError, few, warn
from DualScaleNet.encoder import Encoder

WEIGHT_DECAY = 1e-6  # the authors'
FREE_OPTIONS = {"epochs", "run_dir", "resume", "device", "save_minutes", "non_finite", "val_every"}


def train_folds(options: Options) -> None:
    """A run for each fold, one after the other; those that are done are skipped.

    Raises:
        UserError, Stopped: as `train`.
    """
    results = []
    for fold in range(options.folds or 0):
        own = copy.copy(options)
        own.fold, own.run_dir = fold, options.run_dir and options.run_dir / f"fold{fold}"
        print(f"fold {fold} of {options.folds}")
        results.append(train(own))
    command = f"python DownStream/predict.py --checkpoint {shlex.join(map(str, results))}"
    print(f"score each on its own fold, all pooled: {command}\npredict others by the mean of all: add --images FOLDER")


def train(options: Options) -> Path:
    """The whole run. Returns the checkpoint to use.

    Raises:
        UserError: something only the user can mend.
        Stopped: a signal ended the run, which is saved.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("training for segmentation runs in one process: start it without torchrun")
    device = select_device(options.device)
    samples = split_samples(options)
    split = {name: [sample.key for sample in members] for name, members in samples.items()}
    options.epochs = options.epochs or default_epochs(options, len(samples["train"]))
    options.val_every = options.val_every or max(10, options.epochs // 40)
    torch.manual_seed(options.seed)
    trained, encoder = read_init(options.init, options) if options.init else (None, initial_encoder(options))
    if trained and (seen := seen_in_training(trained, options.dataset, split)):
        warn(f"{options.init} was trained on {few(sorted(seen))}, held out here: scores on them will be too good")
    options.run_dir = options.run_dir or ROOT / "runs" / "segment" / default_name(options)
    claim(options.run_dir)
    sizes = sizes_of(files_of(samples["train"] + samples["val"]))
    checkpoint = resumable(options, split, sizes, device)
    found_by = (options.localiser or options.init) if options.roi == "disc" else None
    resumed = None if options.resume == "force" else checkpoint
    if resumed:
        localiser = resumed.get("localiser")  # also where its file is another one by now
    else:
        localiser = read_localiser(found_by, options.dataset, split) if found_by else None
    before = resumed or trained
    network_input = NetworkInput.of(before) if before else input_of(options, samples["train"])
    census = Census(options.target)
    photographs = read_training_set(samples["train"], options, network_input, device, census)

    model = Segmenter(encoder, len(options.targets), not options.finetune, DECODERS[RECIPES[options.recipe].decoder])
    if trained:
        take_decoder(model, trained, options.targets)
    model.to(device).to(memory_format=training_layout(device, options.precision))
    finds_disc = Predictor.load(localiser, device) if localiser else None
    predictor = Predictor(model, network_input, "crop" in options.fov, finds_disc)
    upright, marked = stays_upright(options, samples["train"]), census.mean_shares()
    run = Training(options, predictor, photographs, split, localiser, sizes, upright, marked)
    if checkpoint:
        run.resume(checkpoint)
    elif options.bn_stats == "reestimate":
        reestimate_batch_norm(encoder, map(network_input.pad, for_statistics(photographs, network_input)))
    if run.is_over():
        return run.result

    counts = ", ".join(f"{len(members)} {name}" for name, members in split.items())
    title = ", ".join(CATALOGUE[name].title for name in options.dataset)
    run.begin(f"{title}, {', '.join(options.target)}: {counts}; encoder {options.encoder}")
    for _ in run.epochs():
        row = train_one_epoch(run)
        run.end_epoch(row | run.validate(samples["val"]))
    if not options.finetune:
        check_frozen(model.encoder, run.frozen, run.loaded)
    if run.best_path.exists():
        print(f"F1 on validation images: best {run.best:.4f} (best.pth), last {run.rows[-1]['val_f1']:.4f} (last.pth)")
    print(next_command(run.result, samples))
    return run.result


def train_one_epoch(run: "Training") -> dict[str, Any]:
    """The rest of a pass over the photographs, whose order is the epoch's own. Returns its part of `log.csv`."""
    options, recipe = run.options, RECIPES[run.options.recipe]
    run.model.train()
    for step in run.steps():
        generator = seeded_generator(options.seed, run.epoch, step)
        images, masks = training_batch(
            run.batch(run.epoch, step), run.predictor.network_input, options.crop or None, recipe.jitter, generator,
            run.device, run.upright,
        )  # fmt: skip
        labels, inside = labels_and_inside(masks, options)
        with autocast(run.device, options.precision):
            logits = run.model(images.contiguous(memory_format=run.layout))
        loss = segmentation_loss(logits, labels, inside, recipe.dice_weight)
        run.backward(loss)
        run.end_step(loss.detach())
    return run.summary([len(run.batch(run.epoch, step)) for step in range(run.steps_per_epoch)])


def labels_and_inside(masks: torch.Tensor, options: Options) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A batch's masks (N, M, H, W), as `read_training_set` stacks them -> labels, and the pixels that count or None."""
    classes, with_fov = len(options.targets), "loss" in options.fov
    labels, others = masks[:, :classes], masks[:, classes:]
    inside = others[:, -1:] if with_fov else None
    if others.shape[1] > with_fov:
        counted = 1 - others[:, :classes]
        inside = counted if inside is None else counted * inside
    return labels, inside


class Training(Run):
    """A run of training for segmentation; it writes best.pth too, and split.json.

    Args:
        predictor: of the network that trains.
        photographs: to train on.
        split: the keys of the photographs in each split.
        localiser: what the checkpoint carries of the localiser's.
        sizes: of the files that train and validate, by `sizes_of`.
        upright: photographs stay upright (`augment`).
        marked: the share of the field of view that the labels of a target mark, on average.
    """

    kind = "segmentation"
    panels: ClassVar = {"loss": ["loss"], "validation": ["val_f1", "val_pr_auc"], "learning rate": ["lr"]}
    options: Options
    model: Segmenter

    def __init__(
        self,
        options: Options,
        predictor: Predictor,
        photographs: list[TrainingPhotograph],
        split: dict[str, list[str]],
        localiser: dict[str, Any] | None = None,
        sizes: str = "",
        upright: bool = False,
        marked: dict[str, float] | None = None,
    ) -> None:
        trainable = [parameter for parameter in predictor.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trainable, options.lr, weight_decay=WEIGHT_DECAY, fused=True)
        super().__init__(options, predictor.model, optimizer, math.ceil(len(photographs) / options.batch_size))
        self.predictor, self.photographs, self.split, self.localiser = predictor, photographs, split, localiser
        self.sizes, self.upright, self.marked = sizes, upright, marked or {}
        self.layout = training_layout(self.device, options.precision)
        self.best_path, self.best = self.folder / "best.pth", -math.inf  # F1 on the validation photographs
        self.loaded = parameters_of(self.model.encoder)

    @property
    def result(self) -> Path:
        """The checkpoint to use: best.pth, or where nothing was validated last.pth."""
        return self.best_path if self.best_path.exists() else self.folder / "last.pth"

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Goes on from a checkpoint.

        Raises:
            UserError: it does not fit, or it has another encoder, and --resume is not force.
        """
        restore(self.folder / "last.pth", checkpoint, self.parts())
        restored = parameters_of(self.model.encoder)
        changed = any(not torch.equal(value, restored[name]) for name, value in self.loaded.items())
        if changed and not self.options.finetune and self.options.resume != "force":
            raise UserError(
                f"{self.options.encoder} is no longer the encoder that {self.folder} began with: start over with "
                "--resume never, or keep the old one with --resume force"
            )
        self.loaded = restored
        same = checkpoint["split"]["val"] == self.split["val"]  # --resume force may bring others
        self.best, self.upright = checkpoint["best_val_f1"] if same else -math.inf, checkpoint.get("upright", False)
        self.start_at(Position.of(checkpoint, self.steps_per_epoch))

    def begin(self, what: str) -> None:
        self.frozen = {name: value.clone() for name, value in self.model.encoder.state_dict().items()}
        if self.best == -math.inf:
            self.best_path.unlink(missing_ok=True)  # of a run that this one replaces, or by other photographs
        write_json(self.folder / "split.json", self.split)
        super().begin(what)

    def batch(self, epoch: int, step: int) -> list[TrainingPhotograph]:
        """The photographs of a step. Each epoch has an order of its own; its last batch may be smaller."""
        order = epoch_order(self.options.seed, epoch, len(self.photographs))
        first = step * self.options.batch_size
        return [self.photographs[k] for k in order[first : first + self.options.batch_size]]

    def files_of(self, epoch: int, step: int) -> list[Path]:
        return [photograph.path for photograph in self.batch(epoch, step)]

    def description(self) -> dict[str, Any]:
        options, predictor, encoder = self.options, self.predictor, self.model.encoder
        network_input, recipe = predictor.network_input, RECIPES[options.recipe]
        return {
            "arch": encoder.arch, "scaling": encoder.scaling, "finetuned": options.finetune,
            "bn_stats": options.bn_stats, "dataset": options.dataset, "targets": options.targets,
            "fit": network_input.fit, "size": network_input.size, "standardise": network_input.standardise,
            "diameter": network_input.diameter,
            "decoder": recipe.decoder, "fov_crop": predictor.fov_crop, "localiser": self.localiser,
            "upright": self.upright, "marked": self.marked, "split": self.split, "sizes": self.sizes,
            "best_val_f1": self.best,
        }  # fmt: skip

    def validate(self, samples: list[Sample]) -> dict[str, float | None]:
        """The validation columns of this epoch's row; keeps the best network in best.pth."""
        last = self.epoch + 1 == self.options.epochs
        row: dict[str, float | None] = {"val_f1": None, "val_pr_auc": None}
        if samples and (last or (self.epoch + 1) % self.options.val_every == 0):
            row = validation_scores(self.predictor, samples, self.options.targets)
        if row["val_f1"] is not None and row["val_f1"] > self.best:
            self.best = row["val_f1"]
            content = {"model": self.model.state_dict(), "epoch": self.epoch + 1} | self.description()
            save_checkpoint(self.best_path, self.kind, content | {"options": plain_options(self.options)})
        return row


def next_command(result: Path, samples: dict[str, list[Sample]]) -> str:
    """How to apply the trained network: to a split that has photographs, the test split first."""
    command = f"python DownStream/predict.py --checkpoint {shlex.quote(str(result))}"
    if samples["test"]:
        return f"score it: {command}"
    if samples["val"]:
        return f"there are no test photographs; score it on those that chose best.pth: {command} --split val"
    return f"no photographs are held out to score it on; predict others: {command} --images FOLDER"


def check_frozen(encoder: Encoder, frozen: dict[str, torch.Tensor], loaded: dict[str, torch.Tensor]) -> None:
    """Frozen means frozen: every tensor as before training, every parameter as it was loaded.

    Raises:
        RuntimeError: a tensor differs in a bit, which would be a bug here.
    """
    state = encoder.state_dict()
    changed = [name for name, value in frozen.items() if not torch.equal(value, state[name])]
    changed += [name for name, value in loaded.items() if not torch.equal(value, state[name].cpu())]
    if changed:
        raise RuntimeError(f"the frozen encoder changed: {', '.join(changed)}")
    print(f"the encoder is as it was: {len(state)} tensors compared")


def parameters_of(encoder: Encoder) -> dict[str, torch.Tensor]:
    """Copies, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in encoder.named_parameters()}


def default_name(options: Options) -> str:
    """The run folder's name, from what distinguishes runs most."""
    encoder = options.encoder if options.encoder in ("random", "imagenet") else Path(options.encoder).parent.name
    fold = f"-fold{options.fold}of{options.folds}" if options.folds else ""
    default = options.targets == list(CATALOGUE[options.dataset[0]].default)
    target = "" if default else "-" + "-".join(options.targets)
    recipe = "" if options.recipe == "compact" else f"-{options.recipe}"
    labels = "" if options.label_fraction == 1 else f"-labels{options.label_fraction:g}"
    name = f"{'+'.join(options.dataset)}{target}-{encoder}{'-finetune' * options.finetune}{recipe}{labels}{fold}"
    return name.replace(":", "_")


def resumable(
    options: Options, split: dict[str, list[str]], sizes: str, device: torch.device
) -> dict[str, Any] | None:
    """The checkpoint to resume from, if there is one and `--resume` allows.

    Raises:
        UserError: it was made with other options or another split.
    """
    last = options.run_dir / "last.pth"
    checkpoint = None if options.resume == "never" else load_latest_segmentation(last)
    if checkpoint is None or options.resume == "force":
        return checkpoint
    noted = checkpoint.get("sizes")  # None: by an older version
    moved = {"data_dir"} if noted == sizes else set()
    refuse_other_options(checkpoint, options, FREE_OPTIONS | moved, device, options.run_dir)
    if checkpoint["split"] != split or noted not in (None, sizes):
        raise UserError(
            f"{', '.join(map(str, options.data_dir))} holds other photographs or labels than when {last} began: start "
            "over with --resume never, or resume all the same with --resume force"
        )
    return checkpoint


def validation_scores(predictor: Predictor, samples: list[Sample], targets: list[str]) -> dict[str, float | None]:
    """F1 at 0.5 and PR-AUC over all pixels of the photographs at native size, the mean over the targets.

    None where nothing is marked in any label; such a target is left out of the mean.
    """
    pooled = [Histogram.zero() for _ in targets]
    for sample in samples:
        photograph = read_sample(sample)
        levels = to_levels(predictor(photograph).maps.numpy())
        for k, target in enumerate(targets):
            if target in photograph.labels:  # one of several data sets may lack it
                pooled[k] += Histogram.of(levels[k], photograph.labels[target].numpy(), photograph.counted(target))
    measures = [scores(histogram) for histogram in pooled if histogram.positives.any()]
    if not measures:
        return {"val_f1": None, "val_pr_auc": None}
    return {f"val_{name}": sum(each[name] for each in measures) / len(measures) for name in ("f1", "pr_auc")}
