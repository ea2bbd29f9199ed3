"""The encoder: a residual network that returns its five feature maps.

`bottleneck18` is the method's own: stage depths [2, 2, 2, 2] of 1x1-3x3-1x1 bottlenecks with expansion 1 behind a
3x3 stride-2 stem, 7,674,688 parameters. `resnet18`, `resnet34` and `resnet50` are torchvision's, so that ImageNet
weights can serve as the baseline. Parameter names are torchvision's in every case.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.resnet import Bottleneck as ExpandingBottleneck

from DualScaleNet.runtime import UserError


class Bottleneck(ExpandingBottleneck):
    """torchvision's bottleneck without its expansion: as many channels out as inside."""

    expansion = 1


ARCHITECTURES: dict[str, tuple[type[nn.Module], list[int]]] = {
    "bottleneck18": (Bottleneck, [2, 2, 2, 2]),
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (ExpandingBottleneck, [3, 4, 6, 3]),
}

# What is subtracted from, and divided into, an RGB image in [0, 1] before the stem.
SCALINGS: dict[str, tuple[list[float], list[float]]] = {
    "unit": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),  # the authors' setting: none
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


class Encoder(ResNet):
    """Feature maps c1..c5 of an image, at strides 2, 4, 8, 16, 32.

    `channels` are those of c1..c5: (64, 64, 128, 256, 512) for `bottleneck18`. The input is always RGB in [0, 1];
    what the weights expect beyond that (`scaling`) is applied inside, so that no caller has to know.
    """

    def __init__(
        self, arch: str = "bottleneck18", scaling: str = "unit", norm_layer: type[nn.Module] = nn.BatchNorm2d
    ) -> None:
        block, depths = ARCHITECTURES[arch]
        super().__init__(block, depths, norm_layer=norm_layer)
        del self.avgpool, self.fc
        if arch == "bottleneck18":
            self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.arch, self.scaling = arch, scaling
        self.channels = (64, *(width * block.expansion for width in (64, 128, 256, 512)))
        mean, std = SCALINGS[scaling]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [0, 1] -> [c1, ..., c5], ci of shape (N, channels[i], ceil(H / 2^i), ceil(W / 2^i))."""
        if self.scaling != "unit":
            image = (image - self.mean) / self.std
        c1 = self.relu(self.bn1(self.conv1(image)))
        c2 = self.run_stage(self.layer1, self.maxpool(c1))
        c3 = self.run_stage(self.layer2, c2)
        c4 = self.run_stage(self.layer3, c3)
        return [c1, c2, c3, c4, self.run_stage(self.layer4, c4)]

    def run_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        """Pretraining may replace it, to keep fewer activations."""
        return stage(x)


def imagenet_encoder(arch: str) -> Encoder:
    """torchvision's ImageNet weights in a `resnet*` encoder, downloaded once into torch.hub's folder.

    Raises:
        UserError: there are none for `arch`, or they are not on disk and cannot be downloaded.
    """
    if arch not in ("resnet18", "resnet34", "resnet50"):
        raise UserError(f"there are no ImageNet weights for --arch {arch}: use resnet18, resnet34 or resnet50")
    weights = get_model_weights(arch).IMAGENET1K_V1
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise UserError(f"cannot download ImageNet weights ({error}): put {weights.url} at {place}") from None
    encoder = Encoder(arch, scaling="imagenet")
    encoder.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
    return encoder
