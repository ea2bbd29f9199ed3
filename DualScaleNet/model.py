"""The pretraining network: one shared encoder, a projector and a predictor for each branch; 8,891,712 parameters.

In the method every view (each of the 9 + 9 patch positions, each whole-image view) goes through the network as a batch
of its own, so BatchNorm statistics are per view. `PerViewBatchNorm` gives exactly that from one batched pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from DualScaleNet.encoder import Encoder


class PerViewBatchNorm(nn.BatchNorm2d):
    """BatchNorm of a batch ordered (image, view) with separate statistics for each view.

    Output, gradients and running statistics equal those of the views passed one after the other. A contiguous batch
    (image x view, C, ...) *is* (image, view x C, ...) in memory, and the latter has the wanted statistics per channel.
    Accepts (N, C) too. `separate_views` says how many views there are.
    """

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    views = 1
    synchronised = False
    recording = True  # update the running statistics
    statistics: tuple[Tensor, Tensor]  # of this pass: means and variances, (views * C,) each, which `forward` fills

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim not in (2, 4):
            raise ValueError(f"expected (N, C) or (N, C, H, W), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """(N * views, C[, H, W]) -> the same shape, normalised."""
        if not self.training or (self.views == 1 and self.recording and not self.synchronised):
            return super().forward(x)
        views, channels = self.views, self.num_features
        folded = x if views == 1 else x.contiguous().view(-1, views * channels, *x.shape[2:])
        weight = bias = None
        if self.affine:
            weight, bias = self.weight.repeat(views), self.bias.repeat(views)
        mean, variance = self.statistics
        if self.synchronised:
            folded, *found = synchronised_batch_norm(folded, weight, bias, self.eps)
            mean.copy_(found[0])
            variance.copy_(found[1])
        else:
            # With momentum 1 the "running" statistics are this batch's own.
            folded = F.batch_norm(folded, mean, variance, weight, bias, training=True, momentum=1.0, eps=self.eps)
        # A plain view would make autograd copy it, and its gradient, for the in-place ReLU or addition that follows.
        return torch.ops.aten._unsafe_view(folded, x.shape)


@contextmanager
def separate_views(layers: list[PerViewBatchNorm], views: int, record: bool = True) -> Iterator[None]:
    """The batch that passes meanwhile, once through each layer, holds `views` views with statistics of their own.

    Afterwards, if `record`, the running statistics equal those after `views` successive updates. That takes a few
    operations for all layers together; layer by layer it was two thirds of all operations of a pass.
    """
    for layer in layers:
        layer.views, layer.recording = views, record
    layers = [layer for layer in layers if layer.training and (views > 1 or not record or layer.synchronised)]
    if not layers:
        yield
        return
    sizes = [layer.num_features for layer in layers]
    like = layers[0].running_mean
    pass_statistics = torch.zeros(2, views * sum(sizes), dtype=like.dtype, device=like.device)
    means, variances = (each.split([views * size for size in sizes]) for each in pass_statistics)
    for layer, mean, variance in zip(layers, means, variances, strict=True):
        layer.statistics = mean, variance
    yield
    if not record:
        return
    with torch.no_grad():
        momentum = layers[0].momentum
        age = torch.arange(views - 1, -1, -1, device=like.device, dtype=like.dtype).unsqueeze(1)
        by_view = torch.cat([each.view(views, -1) for each in (*means, *variances)], 1)
        new = (momentum * (1 - momentum) ** age * by_view).sum(0).split(2 * sizes)
        running = [layer.running_mean for layer in layers] + [layer.running_var for layer in layers]
        torch._foreach_mul_(running, (1 - momentum) ** views)
        torch._foreach_add_(running, new)
        torch._foreach_add_([layer.num_batches_tracked for layer in layers], views)


def batch_norms(*stages: nn.Module) -> list[PerViewBatchNorm]:
    """The layers of those stages."""
    return [module for stage in stages for module in stage.modules() if isinstance(module, PerViewBatchNorm)]


def synchronised_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """BatchNorm over the batches (N, C, ...) of all processes, in float32 or better.

    Returns the normalised batch, and the mean and unbiased variance (C,) of all of them. On any backend, unlike
    `nn.SyncBatchNorm`, which needs GPUs.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    others = [dimension for dimension in range(x.ndim) if dimension != 1]
    shape = [1, -1] + [1] * (x.ndim - 2)
    count = x.numel() // x.shape[1] * distributed.get_world_size()
    mean = all_reduce(wide.sum(others)) / count
    centred = wide - mean.view(shape)
    variance = all_reduce((centred**2).sum(others)) / count
    scale = (variance + eps).rsqrt()
    out = centred * (scale if weight is None else scale * weight).view(shape)
    out = out if bias is None else out + bias.view(shape)
    return out.to(x.dtype), mean.detach(), variance.detach() * (count / max(1, count - 1))


class CheckpointedEncoder(Encoder):
    """An encoder that computes the activations inside its stages again in the backward pass, and does not keep them."""

    def run_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        layers = batch_norms(stage)
        # What is computed again does not count twice in the running statistics; another pass has come since.
        again = separate_views(layers, layers[0].views, record=False)
        return checkpoint(stage, x, use_reentrant=False, context_fn=lambda: (nullcontext(), again))


class Projector(nn.Sequential):
    """Linear, BN, ReLU, Linear, BN, ReLU, Linear, BN without affine; no Linear has a bias. (N, C) -> (N, 128)."""

    def __init__(self, channels: int, dimensions: int = 128) -> None:
        super().__init__(
            nn.Linear(channels, channels, bias=False),
            PerViewBatchNorm(channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, channels, bias=False),
            PerViewBatchNorm(channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, dimensions, bias=False),
            PerViewBatchNorm(dimensions, affine=False),
        )


class Predictor(nn.Sequential):
    """Linear without bias, BN, ReLU, Linear. (N, 128) -> (N, 128)."""

    def __init__(self, dimensions: int = 128, hidden: int = 64) -> None:
        super().__init__(
            nn.Linear(dimensions, hidden, bias=False),
            PerViewBatchNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, dimensions),
        )


class Embeddings(NamedTuple):
    """What the losses and the collapse monitor see, each (N, views, 128)."""

    local_predictions: Tensor  # p(x_1..x_9)
    local_projections: Tensor  # z(y_1..y_9)
    global_predictions: Tensor  # p(v3), p(v4)
    global_projections: Tensor  # z(v3), z(v4)


class DualScaleNet(nn.Module):
    """Shared encoder with the heads of LocalFocus and GlobalFocus.

    Args:
        stop_gradient: no gradient into z(y) of LocalFocus (and no activations kept for it), as in the method's figure.
        per_view: BatchNorm statistics per view; otherwise pooled over the views of one pass.
        synchronised: BatchNorm statistics over the batches of all processes.
        checkpointing: activations inside the encoder's stages are computed again in the backward pass, not kept.
        one_pass: all views of a batch together, which fills a GPU; otherwise one after the other, channels last, since
            a CPU's caches hold a single view. The result is the same.
        train_global, train_local: if False, the branch is computed for the log only, without gradients.
    """

    def __init__(
        self,
        arch: str = "bottleneck18",
        stop_gradient: bool = True,
        per_view: bool = True,
        synchronised: bool = False,
        checkpointing: bool = False,
        one_pass: bool = True,
        train_global: bool = True,
        train_local: bool = True,
    ) -> None:
        super().__init__()
        self.stop_gradient, self.per_view = stop_gradient, per_view
        self.train_global, self.train_local = train_global, train_local
        self.one_pass = one_pass or not per_view
        self.encoder = (CheckpointedEncoder if checkpointing else Encoder)(arch, norm_layer=PerViewBatchNorm)
        self.local_projector, self.local_predictor = Projector(self.encoder.channels[-1]), Predictor()
        self.global_projector, self.global_predictor = Projector(self.encoder.channels[-1]), Predictor()
        for module in self.modules():
            if isinstance(module, PerViewBatchNorm):
                module.synchronised = synchronised
        if not self.one_pass:
            self.encoder.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor, whole: Tensor) -> Embeddings:
        """x, y: the patches of the two copies, (N, 9, 3, h, w); whole: v3 and v4, (N, 2, 3, H, W)."""
        grad = torch.is_grad_enabled()
        with torch.set_grad_enabled(grad and self.train_local):
            local_predictions = self._batched(x, self.encoder, self.local_projector, self.local_predictor)
        with torch.set_grad_enabled(grad and self.train_local and not self.stop_gradient):
            local_projections = self._batched(y, self.encoder, self.local_projector)
        with torch.set_grad_enabled(grad and self.train_global):
            global_projections = self._batched(whole, self.encoder, self.global_projector)
            global_predictions = self._batched(global_projections, self.global_predictor)
        return Embeddings(local_predictions, local_projections, global_predictions, global_projections)

    def _batched(self, views: Tensor, *stages: nn.Module) -> Tensor:
        """Applies `stages` to (N, V, ...), with statistics for each of the V views. Returns (N, V, D).

        Of the encoder's maps the global average of c5 goes on.
        """
        if self.one_pass:
            together = views.shape[1] if self.per_view else 1
            return self._pass(views.flatten(0, 1), together, stages).unflatten(0, views.shape[:2])
        return torch.stack([self._pass(view, 1, stages) for view in views.unbind(1)], 1)

    def _pass(self, x: Tensor, views: int, stages: tuple[nn.Module, ...]) -> Tensor:
        if x.ndim == 4 and not self.one_pass:
            x = x.contiguous(memory_format=torch.channels_last)
        with separate_views(batch_norms(*stages), views):
            for stage in stages:
                x = stage(x)[-1].mean((-2, -1)) if stage is self.encoder else stage(x)
        return x
