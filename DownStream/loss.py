"""The segmentation losses."""

from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(logits: Tensor, labels: Tensor, inside: Tensor | None = None) -> Tensor:
    """Mean over all pixels, as the authors (section 2.3), or over those inside the field of view.

    logits, labels in {0, 1}: (N, C, H, W); inside in {0, 1}: (N, 1, H, W), or (N, C, H, W) where some pixels of a class
    are to be ignored. Returns a scalar, 0 if no pixel is inside.
    """
    if inside is None:
        return F.binary_cross_entropy_with_logits(logits, labels)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * inside).sum() / (inside.sum() * (labels.shape[1] // inside.shape[1])).clamp(min=1)


def dice_loss(logits: Tensor, labels: Tensor, inside: Tensor | None = None) -> Tensor:
    """1 - (2 |P L| + 1) / (|P| + |L| + 1), of probabilities over the whole batch; the mean over classes.

    After Milletari et al. 2016. What F1 counts: beside cross-entropy it moves the best threshold towards 0.5 where few
    pixels are marked. A class that is marked nowhere in the batch counts as 0: there the loss would press every
    probability towards 0 so strongly that a rare class, such as soft exudates, is never found. Arguments as above.
    """
    probability = logits.sigmoid()
    if inside is not None:
        probability, labels = probability * inside, labels * inside
    pixels = (0, 2, 3)
    overlap, total = (probability * labels).sum(pixels), probability.sum(pixels) + labels.sum(pixels)
    return ((1 - (2 * overlap + 1) / (total + 1)) * labels.amax(pixels)).mean()


def segmentation_loss(
    logits: Tensor, labels: Tensor, inside: Tensor | None = None, dice_weight: float = 0.0
) -> Tensor:
    """Cross-entropy plus a weighted Dice loss, of logits in any precision. Arguments as above."""
    logits = logits.float()
    loss = binary_cross_entropy(logits, labels, inside)
    return loss + dice_weight * dice_loss(logits, labels, inside) if dice_weight else loss
