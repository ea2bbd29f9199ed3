"""The collapse monitor on representations whose state is known."""

import pytest
import torch

from DualScaleNet.model import Embeddings
from DualScaleNet.monitor import (
    MIN_RANK,
    channel_deviation,
    collapse_report,
    collapse_warnings,
    colour_share,
    effective_rank,
)


def test_a_healthy_representation():
    torch.manual_seed(0)
    vectors = torch.randn(512, 9, 128)
    assert channel_deviation(vectors) == pytest.approx(1, abs=0.02)
    assert effective_rank(vectors) > 120


def test_complete_collapse():
    vectors = torch.randn(1, 9, 128).expand(64, 9, 128)  # each cell its own point, each image the same
    assert channel_deviation(vectors) == pytest.approx(0, abs=1e-6)
    assert effective_rank(vectors) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("axes", [1, 3, 10])
def test_dimensional_collapse_is_seen_by_the_rank_alone(axes):
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(128, axes)).Q
    vectors = torch.randn(2000, 2, axes) @ basis.T
    assert effective_rank(vectors) == pytest.approx(axes, rel=0.05)
    assert channel_deviation(vectors) > 0.7


def test_effective_rank_is_the_exponential_entropy_of_the_singular_values():
    singular = torch.tensor([4.0, 2.0, 1.0, 1.0])
    vectors = torch.linalg.qr(torch.randn(40, 4, dtype=torch.float64) - 0).Q
    vectors = torch.linalg.qr(vectors - vectors.mean(0)).Q * singular  # centred columns of these lengths
    share = singular / singular.sum()
    assert effective_rank(vectors[:, None]) == pytest.approx((-(share * share.log()).sum()).exp().item(), rel=1e-6)


def test_the_share_of_colour():
    """All of what the channels' means give, half of what is mixed with as much noise, none of noise."""
    torch.manual_seed(0)
    views = torch.rand(64, 9, 3, 1, 1) + 0.1 * torch.randn(64, 9, 3, 16, 16)
    means = views.mean((-2, -1)) @ torch.randn(3, 128)
    noise = torch.randn_like(means) * means.std(0)
    assert colour_share(means, views) == pytest.approx(1, abs=1e-9)
    assert colour_share(means + noise, views) == pytest.approx(0.5, abs=0.05)
    assert colour_share(noise, views) == pytest.approx(0, abs=0.02)
    constant_cells = torch.randn(1, 9, 128).expand(64, 9, 128)  # the cell is no colour
    assert colour_share(constant_cells, views) is None and colour_share(means[:4], views[:4, :2]) is None


def test_warnings_name_what_fell_below_which_bound():
    torch.manual_seed(0)
    healthy, point = torch.randn(256, 2, 128), torch.zeros(256, 2, 128)
    report = collapse_report(Embeddings(healthy, healthy, healthy, point), *[torch.rand(256, 2, 3, 4, 4)] * 2)
    assert set(collapse_warnings({"epoch": 0, "loss": -2.0, "negative": -1.4} | report, 255)) == {
        "global_projection_std",
        "global_projection_rank",
    }
    assert "effective rank (of 128) of the local projections is 3.00, below 4" in (
        collapse_warnings({"local_projection_rank": 3.0}, 255)["local_projection_rank"]
    )
    assert not collapse_warnings({"local_projection_rank": MIN_RANK, "local_projection_std": 0.3}, 255)


@pytest.mark.parametrize("images", [2, 3, 4, 6, 8])
def test_a_small_batch_is_not_blamed_for_its_size(images):
    """The views of an image alike, as they shall become: no more axes than images less one. Collapse is still seen."""
    torch.manual_seed(0)
    healthy = torch.randn(images, 1, 128) + 0.1 * torch.randn(images, 9, 128)
    one_axis = torch.randn(images, 1, 1) * torch.randn(128) + torch.zeros(1, 9, 1)
    for vectors, warned in ((healthy, False), (one_axis, images > 3), (torch.ones(images, 9, 128), True)):
        report = {"local_projection_rank": effective_rank(vectors)}
        assert bool(collapse_warnings(report, images - 1)) == warned
