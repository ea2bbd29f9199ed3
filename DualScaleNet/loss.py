"""The two losses. cos is the cosine over the 128 dimensions; every term is a mean over the batch.

    local  = 0.8 * sum_{i=1..9} (1 - cos(p(x_i), z(y_i)))  +  0.2 * sum_{i!=5} cos(p(x_i), z(y_{10-i}))
    global = -1/2 * [ cos(p(v3), stopgrad z(v4)) + cos(p(v4), stopgrad z(v3)) ]
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class LocalLoss(NamedTuple):
    """The weighted sum and its two parts, each a scalar."""

    total: Tensor
    positive: Tensor
    negative: Tensor


def local_loss(
    predictions: Tensor, projections: Tensor, positive_weight: float = 0.8, negative_weight: float = 0.2
) -> LocalLoss:
    """LocalFocus: p(x_i) is drawn to the same cell z(y_i) and pushed from its mirror image through the grid's centre.

    Args:
        predictions: p(x), (N, cells, D), cells row by row.
        projections: z(y), (N, cells, D); without a graph where the recipe stops the gradient.
    """
    positive = (1 - F.cosine_similarity(predictions, projections, dim=-1)).mean(0).sum()
    # Mirroring through the centre reverses the row-by-row order.
    to_mirrored = F.cosine_similarity(predictions, projections.flip(1), dim=-1)
    half = predictions.shape[1] // 2  # the cell in the middle, where there is one, is its own mirror image
    negative = torch.cat([to_mirrored[:, :half], to_mirrored[:, -half:]], 1).mean(0).sum()
    return LocalLoss(positive_weight * positive + negative_weight * negative, positive, negative)


def global_loss(predictions: Tensor, projections: Tensor) -> Tensor:
    """GlobalFocus: each whole-image view predicts the other's projection. Scalar in [-1, 1].

    Args:
        predictions: p(v3), p(v4), (N, 2, D).
        projections: z(v3), z(v4), (N, 2, D); the gradient is stopped here.
    """
    return -F.cosine_similarity(predictions, projections.detach().flip(1), dim=-1).mean()
