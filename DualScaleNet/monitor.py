"""Has the representation collapsed? Two measures, since each misses what the other sees.

Complete collapse (every image the same point): the standard deviation over images of the l2-normalised vectors, which
is about 1/sqrt(D) per dimension when healthy and 0 when collapsed. Dimensional collapse (all images on a few axes): the
effective rank, the exponential of the entropy of the singular values of the centred vectors (Roy & Vetterli 2007), D
when every dimension is used alike. The deviation can look healthy while the rank falls to 3 of 128.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from DualScaleNet.model import Embeddings

# Below these a run deserves a look: a share of the healthy deviation, and a number of dimensions.
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
    centred = (vectors.double() - vectors.double().mean(0)).flatten(0, 1)
    singular = torch.linalg.svdvals(centred)
    if singular.sum() == 0:
        return 0.0
    share = singular / singular.sum()
    return torch.special.entr(share).sum().exp().item()


@torch.no_grad()
def collapse_report(embeddings: Embeddings) -> dict[str, float]:
    """`<branch>_<projection|prediction>_<std|rank>` of one batch."""
    report = {}
    for name, vectors in embeddings._asdict().items():
        report[f"{name.removesuffix('s')}_std"] = channel_deviation(vectors)
        report[f"{name.removesuffix('s')}_rank"] = effective_rank(vectors)
    return report


def collapse_warnings(report: dict[str, float]) -> dict[str, str]:
    """A sentence for each measure of `collapse_report` that is below its bound; other keys are passed over."""
    bounds = {"std": ("channel deviation (1 is healthy)", MIN_DEVIATION), "rank": ("effective rank (of 128)", MIN_RANK)}
    warnings = {}
    for name, value in report.items():
        vectors, _, measure = name.rpartition("_")
        what, bound = bounds.get(measure, ("", -1.0))
        if value < bound:
            warnings[name] = f"collapse: the {what} of the {vectors.replace('_', ' ')}s is {value:.2f}, below {bound}"
    return warnings
