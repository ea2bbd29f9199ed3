"""Has the representation collapsed, and does it see more than colour? Two measures of collapse, since each misses what
the other sees, and one of colour.

Complete collapse (every image the same point): the standard deviation over images of the l2-normalised vectors, which
is about 1/sqrt(D) per dimension when healthy and 0 when collapsed. Dimensional collapse (all images on a few axes): the
effective rank, the exponential of the entropy of the singular values of the centred vectors (Roy & Vetterli 2007), D
when every dimension is used alike. The deviation can look healthy while the rank falls to 3 of 128.

Shortcut: the share of the projections' variance that the six means and deviations of a view's channels explain. Near 1
the network compares colour and brightness, which a glance at the photograph gives as well.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from DualScaleNet.model import Embeddings

# Below these a run deserves a look: a share of the healthy deviation, and a number of dimensions, or half of as many as
# a small batch can have.
MIN_DEVIATION = 0.25
MIN_RANK = 4.0


def channel_deviation(vectors: Tensor) -> float:
    """(N, views, D) -> mean over the normalised channels of their deviation, times sqrt(D): 1 healthy, 0 collapsed.

    Taken over the images within each view: telling only the grid's cells apart must not pass for telling images apart.
    """
    normalised = F.normalize(vectors.float(), dim=-1)
    return (normalised.std(0, correction=0).mean() * vectors.shape[-1] ** 0.5).item()


def effective_rank(vectors: Tensor) -> float:
    """(N, views, D), centred within each view -> between 1 and D; 0 if all images agree."""
    vectors = vectors.cpu().double()
    singular = torch.linalg.svdvals((vectors - vectors.mean(0)).flatten(0, 1))
    if singular.sum() == 0:
        return 0.0
    share = singular / singular.sum()
    return torch.special.entr(share).sum().exp().item()


def colour_share(vectors: Tensor, views: Tensor) -> float | None:
    """Share of the variance of (N, V, D), within a view, that the views' colours explain linearly.

    The adjusted coefficient of determination, hence about 0 where there is no relation; None for a batch too small.

    Args:
        views: (N, V, 3, H, W), of which the vectors are the projections.
    """
    colours = torch.cat([views.mean((-2, -1)), views.std((-2, -1))], -1)
    x, y = ((each - each.mean(0)).flatten(0, 1) for each in (colours.cpu().double(), vectors.cpu().double()))
    freedom = len(x) - views.shape[1]
    if freedom <= 2 * x.shape[1] or not y.any():
        return None
    left = y - x @ torch.linalg.pinv(x) @ y
    return 1 - ((left**2).sum() / (y**2).sum() * freedom / (freedom - x.shape[1])).item()


@torch.no_grad()
def collapse_report(embeddings: Embeddings, patches: Tensor, whole: Tensor) -> dict[str, float | None]:
    """`<branch>_<projection|prediction>_<std|rank>` and `<branch>_projection_colour` of one batch.

    `patches` y_1..y_9 and `whole` v3, v4 are the views of the projections.
    """
    report = {
        "local_projection_colour": colour_share(embeddings.local_projections, patches),
        "global_projection_colour": colour_share(embeddings.global_projections, whole),
    }
    for name, vectors in embeddings._asdict().items():
        report[f"{name.removesuffix('s')}_std"] = channel_deviation(vectors)
        report[f"{name.removesuffix('s')}_rank"] = effective_rank(vectors)
    return report


def collapse_warnings(report: dict[str, float | None], most: int) -> dict[str, str]:
    """A sentence for each measure of `collapse_report` that is below its bound; other keys are skipped.

    Args:
        most: axes that one view of the batch can have: its images less one for each part (--accumulate) that
            BatchNorm centres. Of up to three images the rank is at least 1 unless all agree: it warns of that alone.
    """
    bounds = {
        "std": ("standard deviation over images (1 is healthy)", MIN_DEVIATION),
        "rank": ("effective rank (of 128)", min(MIN_RANK, most / 2)),
    }
    warnings = {}
    for name, value in report.items():
        vectors, _, measure = name.rpartition("_")
        if measure not in bounds or value is None:
            continue
        what, bound = bounds[measure]
        if value < bound:
            warnings[name] = f"collapse: the {what} of the {vectors.replace('_', ' ')}s is {value:.2f}, below {bound}"
    return warnings
