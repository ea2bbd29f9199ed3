"""What segmentation begins with: encoders, trained decoders and localisers, in files of any version."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from DownStream.model import DECODERS, DecoderShape, Segmenter
from DownStream.options.train import Options
from DownStream.recipes import RECIPES, current_options
from DownStream.sets import CATALOGUE
from DownStream.sources import disc_of, full_keys
from DualScaleNet.common.checkpoint import load_checkpoint, load_latest, sha256
from DualScaleNet.common.script import MODELS, ROOT, UserError, warn
from DualScaleNet.encoder import Encoder, imagenet_encoder, load_encoder

ENCODER = "encoder."  # begins the names of its parameters in a segmenter
DECODER = "decoder"  # the kind of a file of `without_encoder`
HEADER = ("format", "kind", "commit")
ONLY_FOR_TRAINING = ("optimizer", "scaler", "losses", "log", "sizes")
PLACES = ("data_dir", "run_dir", "encoder", "init", "localiser", "split_file", "groups")  # options that name files


def load_segmentation(path: Path) -> dict[str, Any]:
    """A segmentation checkpoint, as today's train.py would have written it; or a decoder with its encoder's file.

    Raises:
        UserError: as `load_checkpoint`; or the decoder's encoder is not beside it.
    """
    content = current_content(load_checkpoint(path, "segmentation", DECODER))
    return content if content["kind"] == "segmentation" else with_encoder(path, content)


def load_latest_segmentation(path: Path) -> dict[str, Any] | None:
    """As `load_latest`, of a segmentation run."""
    content = load_latest(path, "segmentation")
    return content and current_content(content)


def current_content(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's content; older versions knew a single data set, and had other names."""
    datasets = [content["dataset"]] if isinstance(content["dataset"], str) else content["dataset"]
    return content | {"dataset": datasets, "options": current_options(content.get("options", {}))}


def initial_encoder(options: Options) -> Encoder:
    """The encoder that `--encoder` names; `options.encoder` and `arch` then say which it is, also without a name.

    Raises:
        UserError: it is unfit, or not there.
    """
    if options.encoder is None:
        files = sorted((ROOT / "runs" / "pretrain").glob("**/encoder.pth"), key=lambda path: path.stat().st_mtime)
        options.encoder = str(files[-1]) if files else "imagenet"
    if options.encoder == "imagenet" and options.arch:
        return imagenet_encoder(options.arch)
    if options.encoder == "random":
        options.arch = options.arch or "bottleneck18"
        return Encoder(options.arch)
    path = MODELS / "encoder.pth"
    if options.encoder != "imagenet":
        path = Path(options.encoder).resolve()
        options.encoder = str(path)
    encoder, facts = load_encoder(path, options.arch or "bottleneck18")
    if options.arch not in (None, facts["arch"]):
        raise UserError(f"{path} holds a {facts['arch']}: leave out --arch {options.arch}, or name another --encoder")
    options.arch = facts["arch"]
    return encoder


def read_init(path: Path, options: Options) -> tuple[dict[str, Any], Encoder]:
    """The checkpoint to start from and its encoder, which `options.encoder` and `arch` then say.

    Raises:
        UserError: it does not fit the recipe or the region of interest.
    """
    content = load_segmentation(path)
    if DecoderShape.of(content) != DECODERS[RECIPES[options.recipe].decoder]:
        raise UserError(f"{path} has another decoder: add --recipe {content['options']['recipe']}")
    if (roi := content["options"]["roi"]) != options.roi:
        raise UserError(f"{path} was trained with --roi {roi}: give the same with --init")
    if (crop := content.get("fov_crop", False)) != ("crop" in options.fov):
        raise UserError(f"{path} was trained with{'' if crop else 'out'} --fov crop: do the same with --init")
    if content.get("standardise", False) != RECIPES[options.recipe].standardise:
        raise UserError(f"{path} was trained by another recipe: add --recipe {content['options']['recipe']}")
    encoder = Encoder(content["arch"], content["scaling"])
    state = content["model"].items()
    encoder.load_state_dict({name.removeprefix(ENCODER): value for name, value in state if name.startswith(ENCODER)})
    options.encoder, options.arch = str(path.resolve()), content["arch"]
    return content, encoder


def take_decoder(model: Segmenter, content: dict[str, Any], targets: list[str]) -> None:
    """Gives a network the decoder of a checkpoint; the last layer's rows go to the targets of the same name."""
    known = [target for target in targets if target in content["targets"]]
    ours, theirs = [targets.index(name) for name in known], [content["targets"].index(name) for name in known]
    layers = model.decoder.named_modules()
    last = {f"decoder.{name}" for name, layer in layers if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)}
    state = model.state_dict()
    for name, value in content["model"].items():
        if name.rpartition(".")[0] in last:
            state[name][ours] = value[theirs]
        elif not name.startswith(ENCODER):
            state[name] = value
    model.load_state_dict(state)
    new = [target for target in targets if target not in known]
    print(f"the decoder is the checkpoint's{'; its last layer is new for ' * bool(new)}{', '.join(new)}")


def seen_in_training(content: dict[str, Any], datasets: list[str], split: dict[str, list[str]]) -> set[str]:
    """The photographs that a split of some data sets holds out, but on which a checkpoint's network was trained."""
    held_out = full_keys(datasets, split["val"] + split["test"])
    return held_out & full_keys(content["dataset"], content["split"]["train"])


def read_localiser(path: Path, datasets: list[str], split: dict[str, list[str]]) -> dict[str, Any]:
    """What the new checkpoint carries of the localiser's, which is in `path`, or itself carried there.

    Raises:
        UserError: it does not find discs on whole photographs, or was trained on photographs held out here.
    """
    content = load_segmentation(path)
    content = current_content(content["localiser"]) if content.get("localiser") else content
    discs = {settings.disc for settings in CATALOGUE.values()}
    if content["targets"][0].partition(":")[0] not in discs:
        raise UserError(f"{path} is no localiser: train one with --target {disc_of(datasets)} --roi full")
    if seen := seen_in_training(content, datasets, split):
        problem = f"{path} was trained on {len(seen)} photographs that are held out here, {min(seen)} first: "
        problem += "train it with the same split options and --seed"
        if any("/generic/" not in key for key in seen):
            raise UserError(problem)
        warn(f"{problem}, unless these are others of the same names")
    return {name: value for name, value in content.items() if name not in (*ONLY_FOR_TRAINING, "options")}


def without_encoder(path: Path, encoder_file: Path) -> dict[str, Any]:
    """A checkpoint's content without its encoder's parameters, which are those in a file of `save_encoder`.

    What it keeps of the encoder are the statistics of BatchNorm, which are its own. Kernels are in float16. A localiser
    in it is treated alike.

    Raises:
        UserError: it has another encoder, or is no checkpoint of train.py.
    """
    content = load_segmentation(path)
    state = load_checkpoint(encoder_file, "encoder")["state"]
    shared = {ENCODER + name: full(value) for name, value in state.items() if not is_statistic(name)}
    networks = [content, content["localiser"]] if content.get("localiser") else [content]
    small = []
    for each in networks:
        if not all(name in each["model"] and torch.equal(each["model"][name], shared[name]) for name in shared):
            raise UserError(f"{path} was trained on another encoder than {encoder_file}, or fine-tuned it")
        own = {name: value for name, value in each["model"].items() if name not in shared}
        small.append({name: value.half() if value.ndim > 1 else value for name, value in own.items()})
    kept = {name: value for name, value in content.items() if name not in (*ONLY_FOR_TRAINING, *HEADER)}
    kept["model"] = small[0]
    if len(small) > 1:
        kept["localiser"] = content["localiser"] | {"model": small[1]}
    kept["options"] = {name: value for name, value in content["options"].items() if name not in PLACES}
    return kept | {"encoder_sha256": sha256(encoder_file)}


def with_encoder(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """What `without_encoder` made of a checkpoint, complete again.

    Raises:
        UserError: the encoder is not beside it, or is another one.
    """
    encoder_file = path.with_name("encoder.pth")
    if not encoder_file.exists():
        raise UserError(f"{path} needs its encoder: put encoder.pth beside it")
    if sha256(encoder_file) != content["encoder_sha256"]:
        raise UserError(f"{encoder_file} is not the encoder of {path}: both must be of the same version")
    state = load_checkpoint(encoder_file, "encoder")["state"]
    shared = {ENCODER + name: value for name, value in state.items() if not is_statistic(name)}

    def complete(network: dict[str, Any]) -> dict[str, Any]:
        return network | {"model": {name: full(value) for name, value in (shared | network["model"]).items()}}

    localiser = content.get("localiser")
    return complete(content) | {"localiser": localiser and complete(localiser)}


def full(value: torch.Tensor) -> torch.Tensor:
    """float16 as float32."""
    return value.float() if value.dtype == torch.float16 else value


def is_statistic(name: str) -> bool:
    """Whether a parameter's name is that of a statistic of BatchNorm."""
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))
