"""The segmentation loss."""

from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(logits: Tensor, labels: Tensor, inside: Tensor | None = None) -> Tensor:
    """Mean over all pixels, as the authors (section 2.3), or over those inside the field of view.

    logits, labels in {0, 1}: (N, C, H, W); inside in {0, 1}: (N, 1, H, W). Returns a scalar, 0 if no pixel is inside.
    """
    if inside is None:
        return F.binary_cross_entropy_with_logits(logits, labels)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * inside).sum() / (inside.sum() * labels.shape[1]).clamp(min=1)
