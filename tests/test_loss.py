"""The losses against direct, slow transcriptions of their formulas."""

import torch

from DualScaleNet.loss import global_loss, local_loss


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum() / (a.norm() * b.norm())


def vectors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def slow_local(p: torch.Tensor, z: torch.Tensor, positive: float = 0.8, negative: float = 0.2) -> torch.Tensor:
    """p[n][i] is p(x_{i+1}) of image n; the sum runs over i as in the formula, from 1."""
    total = p.new_zeros(())
    for image_p, image_z in zip(p, z, strict=True):
        for i in range(1, 10):
            total = total + positive * (1 - cosine(image_p[i - 1], image_z[i - 1]))
            if i != 5:
                total = total + negative * cosine(image_p[i - 1], image_z[10 - i - 1])
    return total / len(p)


def slow_global(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    total = p.new_zeros(())
    for (p3, p4), (z3, z4) in zip(p, z, strict=True):
        total = total - (cosine(p3, z4.detach()) + cosine(p4, z3.detach())) / 2
    return total / len(p)


def test_local_loss_and_its_gradients():
    p, z = vectors(4, 9, 128), vectors(4, 9, 128)
    ours, slow = local_loss(p, z), slow_local(p, z)
    assert torch.allclose(ours.total, slow, atol=1e-12)
    assert torch.allclose(0.8 * ours.positive + 0.2 * ours.negative, ours.total, atol=1e-12)
    for a, b in zip(torch.autograd.grad(ours.total, (p, z)), torch.autograd.grad(slow, (p, z)), strict=True):
        assert torch.allclose(a, b, atol=1e-12) and a.abs().max() > 0


def test_local_loss_weights():
    p, z = vectors(3, 9, 16), vectors(3, 9, 16)
    assert torch.allclose(local_loss(p, z, 0.3, 2.0).total, slow_local(p, z, 0.3, 2.0), atol=1e-12)


def test_the_centre_has_no_negative():
    p, z = vectors(2, 9, 16), vectors(2, 9, 16)
    (gradient,) = torch.autograd.grad(local_loss(p, z).negative, p)
    assert gradient[:, 4].abs().max() == 0
    assert all(gradient[:, i].abs().max() > 0 for i in range(9) if i != 4)


def test_global_loss_and_its_stopped_gradient():
    p, z = vectors(4, 2, 128), vectors(4, 2, 128)
    ours, slow = global_loss(p, z), slow_global(p, z)
    assert torch.allclose(ours, slow, atol=1e-12)
    assert torch.allclose(torch.autograd.grad(ours, p)[0], torch.autograd.grad(slow, p)[0], atol=1e-12)
    ours = global_loss(p, z)
    assert torch.autograd.grad(ours, z, allow_unused=True)[0] is None


def test_extremes():
    v = torch.eye(9)[None].repeat(2, 1, 1)
    local = local_loss(v, v)
    assert local.positive.abs() < 1e-6 and local.negative.abs() < 1e-6
    assert torch.allclose(local_loss(v, -v).positive, torch.tensor(18.0))
    whole = v[:, :1].repeat(1, 2, 1)
    assert torch.allclose(global_loss(whole, whole), torch.tensor(-1.0))
