"""The encoder: a residual network that returns its five feature maps.

`bottleneck18` is the method's own: stage depths [2, 2, 2, 2] of 1x1-3x3-1x1 bottlenecks with expansion 1 behind a
3x3 stride-2 stem, 7,674,688 parameters. `resnet18`, `resnet34` and `resnet50` are torchvision's, so that ImageNet
weights can serve as the baseline. Parameter names are torchvision's. For segmentation `timm/NAME` is a convolutional
network of the package timm, whose own names are behind `timm.`.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.resnet import Bottleneck as ExpandingBottleneck

from DualScaleNet.common.checkpoint import is_ours, load_checkpoint, load_file, misfits, restore, save_checkpoint
from DualScaleNet.common.script import UserError, few
from DualScaleNet.recipes import TIMM


class Bottleneck(ExpandingBottleneck):
    """torchvision's bottleneck without its expansion: as many channels out as inside."""

    expansion = 1


BLOCKS: dict[str, tuple[type[BasicBlock | ExpandingBottleneck], list[int]]] = {
    "bottleneck18": (Bottleneck, [2, 2, 2, 2]),
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (ExpandingBottleneck, [3, 4, 6, 3]),
}

# Mean and standard deviation that normalise an RGB image in [0, 1] before the stem.
SCALINGS: dict[str, tuple[list[float], list[float]]] = {
    "unit": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),  # the authors' setting: none
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "symmetric": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),  # networks that come from TensorFlow
}

# In files of other projects: where the parameters may lie, and the end of a name that any ResNet has once.
WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher", "student")
LANDMARK = "layer1.0.conv1.weight"


class Encoder(nn.Module):
    """Feature maps c1..c5 of an image, at strides 2, 4, 8, 16, 32.

    `channels` are those of c1..c5: (64, 64, 128, 256, 512) for `bottleneck18`. The input is always RGB in [0, 1];
    what the weights expect beyond that (`scaling`) is applied inside, so that no caller has to know.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, arch: str = "bottleneck18", scaling: str = "unit", norm_layer: type[nn.Module] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.arch, self.scaling = arch, scaling
        mean, std = SCALINGS[scaling]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        if arch.startswith(TIMM):
            self.timm = timm_network(arch)
            self.channels = tuple(self.timm.feature_info.channels())
            return
        block, depths = BLOCKS[arch]
        network = ResNet(block, depths, norm_layer=norm_layer)
        if arch == "bottleneck18":
            network.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.conv1, self.bn1, self.relu, self.maxpool = network.conv1, network.bn1, network.relu, network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4
        self.channels = (64, *(width * block.expansion for width in (64, 128, 256, 512)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [0, 1] -> [c1, ..., c5], ci of shape (N, channels[i - 1], ceil(H / 2^i), ceil(W / 2^i))."""
        if self.scaling != "unit":
            image = (image - self.mean) / self.std
        if self.arch.startswith(TIMM):
            return self.timm(image)
        c1 = self.relu(self.bn1(self.conv1(image)))
        c2 = self.run_stage(self.layer1, self.maxpool(c1))
        c3 = self.run_stage(self.layer2, c2)
        c4 = self.run_stage(self.layer3, c3)
        return [c1, c2, c3, c4, self.run_stage(self.layer4, c4)]

    def run_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        """On its own, so that a subclass can keep fewer activations."""
        return stage(x)


def timm_network(arch: str, pretrained: bool = False) -> Any:
    """timm's network of five feature maps, at strides 2 to 32.

    Raises:
        UserError: timm is missing, has no such network, or cannot get the weights; or the network has no such maps, or
            takes no single photograph of any size.
    """
    name = arch.removeprefix(TIMM)
    try:
        import timm
    except ImportError:
        raise UserError(f"--arch {arch} needs timm: pip install timm") from None
    try:
        network: Any = timm.create_model(name, pretrained, features_only=True)
    except Exception as error:  # of many kinds: no such name, no such weights, no network
        raise UserError(f"timm cannot make {name} ({str(error).splitlines()[0]})") from None
    if (strides := network.feature_info.reduction()) != [2, 4, 8, 16, 32]:
        raise UserError(f"--arch {arch}: its maps have strides {strides}; the decoder needs 2, 4, 8, 16 and 32")
    trial = copy.deepcopy(network).train()
    try:
        with torch.no_grad():  # as BatchNorm is re-estimated: one photograph, of any size
            for size in (64, 96), (152, 152):
                trial(torch.zeros(1, 3, *size))
    except Exception:  # of many kinds, some without a word
        raise UserError(f"--arch {arch} takes no single photograph of any size: choose another network") from None
    return network


def timm_scaling(arch: str, network: Any) -> str:
    """The name in `SCALINGS` of what the ImageNet weights of timm's `network` expect.

    Raises:
        UserError: it is none of them.
    """
    expects = network.pretrained_cfg
    for name, values in SCALINGS.items():
        if values == (list(expects["mean"]), list(expects["std"])):
            return name
    raise UserError(f"--arch {arch}: its weights expect a mean and deviation that are not known here")


def imagenet_encoder(arch: str) -> Encoder:
    """ImageNet weights of torchvision's in a `resnet*` encoder, or of timm's; downloaded once into their own folders.

    Raises:
        UserError: there are none for `arch`, or they are not on disk and cannot be downloaded.
    """
    if arch.startswith(TIMM):
        network = timm_network(arch, pretrained=True)
        encoder = Encoder(arch, timm_scaling(arch, network))
        encoder.timm = network
        return encoder
    if arch not in ("resnet18", "resnet34", "resnet50"):
        raise UserError(f"there are no ImageNet weights for --arch {arch}: use resnet18, resnet34, resnet50, timm/NAME")
    weights = get_model_weights(arch)["IMAGENET1K_V1"]
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise UserError(f"cannot download ImageNet weights ({error}): put {weights.url} at {place}") from None
    except Exception:  # of many kinds: another hash, no checkpoint
        raise UserError(f"{place} is damaged: delete it, or put {weights.url} there") from None
    encoder = Encoder(arch, scaling="imagenet")
    encoder.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
    return encoder


def save_encoder(
    path: Path, encoder: Encoder, recipe: str, epoch: int, images: int, size: int = 224, standardise: bool = False
) -> None:
    """Writes an encoder with all that a user of it must know.

    The file holds: arch, scaling, state (torchvision's parameter names), recipe, epoch, images (how many it learned
    from), size (their side in pixels), standardise (whether their colours were), commit.
    """
    content = {"arch": encoder.arch, "scaling": encoder.scaling, "state": encoder.state_dict()}
    facts = {"recipe": recipe, "epoch": epoch, "images": images, "size": size, "standardise": standardise}
    save_checkpoint(path, "encoder", content | facts)


def load_encoder(path: Path | str, arch: str = "bottleneck18") -> tuple[Encoder, dict[str, Any]]:
    """The encoder in a file of `save_encoder`, in eval mode on the CPU, and what the file says of it.

    Weights of `arch` from elsewhere are taken too. They need torchvision's names, after any common prefix (`module.`,
    `backbone.`, `encoder_q.`), or timm's. ImageNet's normalisation is assumed; for `bottleneck18` and behind the
    prefix `encoder.` none. A line says which.

    Raises:
        UserError: the file is unfit; the first missing and unexpected parameters are named.
    """
    path = Path(path)
    content = load_file(path)
    ours = is_ours(content)
    if ours:
        content = load_checkpoint(path, "encoder")
        state = content.pop("state")
        known = content["arch"] in BLOCKS or content["arch"].startswith(TIMM)
        if not known or content["scaling"] not in SCALINGS:
            raise UserError(f"{path} holds an unknown encoder: {content['arch']}, scaling {content['scaling']}")
    else:
        state, scaling = _foreign_state(path, content, arch)
        content = {"arch": arch, "scaling": scaling}
    encoder = Encoder(content["arch"], content["scaling"])
    try:
        restore(path, {content["arch"]: state}, {content["arch"]: encoder})
    except UserError as error:
        fitting = [] if ours else [each for each in BLOCKS if not misfits(Encoder(each).state_dict(), state)]
        raise UserError(f"{error}; try --arch {fitting[0]}" if fitting else str(error)) from None
    return encoder.eval(), content


def _foreign_state(path: Path, content: Any, arch: str) -> tuple[dict[str, Tensor], str]:
    """An encoder's parameters and scaling in a file that another project wrote.

    Raises:
        UserError: the file holds no parameters.
    """
    while inner := [content[name] for name in WRAPPERS if isinstance(content, dict) and name in content]:
        content = inner[0]
    content = content if isinstance(content, dict) else {}
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{path} is no checkpoint of this project, and no state dict of an encoder")
    if arch.startswith(TIMM):
        # timm joins some parts of a name by _ where it returns the maps.
        network = timm_network(arch)
        inside = {name.replace(".", "_"): f"timm.{name}" for name in network.state_dict()}
        names = {name: inside[flat] for name in state if (flat := name.replace(".", "_")) in inside}
        prefix, scaling = "", timm_scaling(arch, network)
    else:
        prefixes = [name.removesuffix(LANDMARK) for name in state if name.endswith(LANDMARK)]
        prefix = prefixes[0] if prefixes else ""  # of several, as MoCo's, the first is the one that learns by gradients
        names = {name: name.removeprefix(prefix) for name in state if name.startswith(prefix)}
        names = {name: ours for name, ours in names.items() if not ours.startswith("fc.")}
        unit = arch == "bottleneck18" or prefix.removeprefix("module.") == "encoder."
        scaling = "unit" if unit else "imagenet"
    if left_out := sorted(state.keys() - names.keys()):
        what = f"no part of the encoder {prefix}*" if prefix else "no part of an encoder"
        print(f"{path}: left out, as {what}: {few(left_out)}")
    print(f"{path}: input normalisation assumed: {scaling}")
    return {ours: state[name] for name, ours in names.items()}, scaling
