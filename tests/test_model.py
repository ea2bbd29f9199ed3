"""Pretraining network: parameter counts, feature maps, and one batched pass equal to the loop over views."""

import copy
import sys
from argparse import Namespace

import pytest
import timm
import torch
from torch import nn

from DownStream.model import DECODERS, Segmenter
from DualScaleNet.common.script import UserError
from DualScaleNet.encoder import BLOCKS, Encoder, load_encoder, save_encoder
from DualScaleNet.loss import global_loss, local_loss
from DualScaleNet.model import DualScaleNet, PerViewBatchNorm, Predictor, Projector, batch_norms, separate_views
from DualScaleNet.pretrain import build_model


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts():
    assert parameters(Encoder()) == 7_674_688
    assert parameters(DualScaleNet()) == 8_891_712
    assert parameters(Projector(512)) == 591_872
    assert parameters(Predictor()) == 16_640


def test_one_process_has_the_whole_batch_and_synchronises_nothing():
    options = Namespace(
        arch="bottleneck18", stop_gradient=True, batch_norm="synchronised", checkpoint_activations=False,
        weights=[0.5, 0.5, 0.8, 0.2],
    )  # fmt: skip
    model = build_model(options, torch.device("cpu"))
    assert not any(layer.synchronised for layer in batch_norms(model))


def test_no_projector_linear_has_a_bias():
    assert all(layer.bias is None for layer in Projector(512) if isinstance(layer, nn.Linear))
    assert Predictor()[0].bias is None and Predictor()[3].bias is not None


@pytest.mark.parametrize("arch", list(BLOCKS))
def test_five_feature_maps(arch):
    encoder = Encoder(arch).eval()
    with torch.no_grad():
        maps = encoder(torch.rand(1, 3, 65, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (channels, -(-65 // 2**k), -(-96 // 2**k)) for k, channels in enumerate(encoder.channels, 1)
    ]
    if arch == "bottleneck18":
        assert encoder.channels == (64, 64, 128, 256, 512)


def test_imagenet_scaling_is_applied_inside():
    encoder = Encoder("resnet18", "imagenet").eval()
    plain = Encoder("resnet18").eval()
    plain.load_state_dict(encoder.state_dict())
    image = torch.rand(1, 3, 32, 32)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    assert torch.equal(encoder(image)[4], plain((image - mean) / std)[4])


def test_a_network_of_timm_is_an_encoder(tmp_path, capsys):
    """As timm computes it, from a file of its weights and through a file of ours."""
    theirs = timm.create_model("tf_efficientnet_lite0")
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    arch = "timm/tf_efficientnet_lite0"
    encoder, facts = load_encoder(tmp_path / "theirs.pth", arch)
    assert facts == {"arch": arch, "scaling": "symmetric"} and encoder.channels == (16, 24, 40, 112, 320)
    assert "left out, as no part of an encoder: bn2.bias, bn2.num_batches_tracked, " in capsys.readouterr().out
    save_encoder(tmp_path / "encoder.pth", encoder, "paper", 1, 1)
    again, facts = load_encoder(tmp_path / "encoder.pth")
    assert facts["arch"] == arch
    image = torch.rand(1, 3, 65, 97)
    with torch.inference_mode():
        expected = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
        expected.load_state_dict(theirs.state_dict(), strict=False)
        for maps in (encoder(image), again(image)):
            assert [tuple(x.shape[-2:]) for x in maps] == [(33, 49), (17, 25), (9, 13), (5, 7), (3, 4)]
            assert all(map(torch.equal, maps, expected((image - 0.5) / 0.5)))
        assert Segmenter(encoder, 2, shape=DECODERS["compact"]).eval()(image).shape == (1, 2, 65, 97)


def test_weights_of_timm_are_found_though_its_names_change(tmp_path):
    theirs = timm.create_model("test_byobnet").state_dict()
    torch.save(theirs, tmp_path / "theirs.pth")
    encoder, _ = load_encoder(tmp_path / "theirs.pth", "timm/test_byobnet")
    name = "0.0.shortcut.conv.conv.weight"
    assert torch.equal(encoder.state_dict()[f"timm.stages_{name}"], theirs[f"stages.{name}"])


def test_networks_of_timm_that_cannot_be_encoders_are_refused(monkeypatch):
    for name, why in (
        ("vit_tiny_patch16_224", r"its maps have strides \[16, 16, 16\]; the decoder needs 2, 4, 8, 16 and 32"),
        ("test_maxvit", "takes no single photograph of any size"),
        ("resnest14d", "takes no single photograph of any size"),
        ("nonsense", r"timm cannot make nonsense \(Unknown model \(nonsense\)\)"),
    ):
        with pytest.raises(UserError, match=why):
            Encoder(f"timm/{name}")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="--arch timm/resnet18 needs timm: pip install timm"):
        Encoder("timm/resnet18")


@pytest.mark.parametrize("shape, affine", [((4, 3), True), ((4, 3), False), ((4, 3, 5, 6), True)])
def test_per_view_batch_norm_is_the_loop_over_views(shape, affine):
    """Output, gradients and running statistics, in float64; 5 views of a batch of 4."""
    torch.manual_seed(0)
    views = 5
    x = torch.randn(shape[0], views, *shape[1:], dtype=torch.float64)
    batched = PerViewBatchNorm(3, affine=affine).double()
    if affine:
        nn.init.normal_(batched.weight), nn.init.normal_(batched.bias)
    batched.running_mean += 0.3
    loop = copy.deepcopy(batched)
    target = torch.randn_like(x)

    a = x.clone().requires_grad_()
    with separate_views([batched], views):
        out = batched(a.flatten(0, 1)).unflatten(0, (shape[0], views))
    (out * target).sum().backward()
    b = x.clone().requires_grad_()
    expected = torch.stack([loop(b[:, v]) for v in range(views)], 1)
    (expected * target).sum().backward()

    assert torch.allclose(out, expected, rtol=0, atol=1e-12)
    assert torch.allclose(a.grad, b.grad, rtol=0, atol=1e-12)
    for name, value in loop.named_parameters():
        assert torch.allclose(batched.get_parameter(name).grad, value.grad, rtol=0, atol=1e-12)
    for name, value in loop.named_buffers():
        assert torch.allclose(batched.get_buffer(name), value, rtol=0, atol=1e-12), name


def pictures(views: int, side: int) -> torch.Tensor:
    """Eight photographs that differ in more than noise: normalising mere noise would magnify rounding errors."""
    coarse = torch.rand(8 * views, 3, 4, 4, dtype=torch.float64)
    return nn.functional.interpolate(coarse, (side, side), mode="bicubic").view(8, views, 3, side, side)


@pytest.mark.slow
@pytest.mark.parametrize("one_pass, checkpointing", [(True, False), (True, True), (False, False), (False, True)])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_whole_network_is_the_loop_over_views(stop_gradient, one_pass, checkpointing):
    """Losses, gradients and running statistics equal those of the views passed one after the other, to 1e-10."""
    torch.manual_seed(0)
    x, y, whole = pictures(9, 64), pictures(9, 64), pictures(2, 96)
    batched = DualScaleNet(stop_gradient=stop_gradient, checkpointing=checkpointing, one_pass=one_pass).double()
    loop = DualScaleNet().double()
    loop.load_state_dict(batched.state_dict())

    p, z, q, w = batched(x, y, whole)
    loss = 0.5 * global_loss(q, w) + 0.5 * local_loss(p, z).total
    loss.backward()

    def one(view: torch.Tensor, *heads: nn.Module) -> torch.Tensor:
        vector = loop.encoder(view)[-1].mean((2, 3))
        for head in heads:
            vector = head(vector)
        return vector

    p = torch.stack([one(x[:, i], loop.local_projector, loop.local_predictor) for i in range(9)], 1)
    with torch.set_grad_enabled(not stop_gradient):
        z = torch.stack([one(y[:, i], loop.local_projector) for i in range(9)], 1)
    w = torch.stack([one(whole[:, i], loop.global_projector) for i in range(2)], 1)
    q = torch.stack([loop.global_predictor(w[:, i]) for i in range(2)], 1)
    expected = 0.5 * global_loss(q, w) + 0.5 * local_loss(p, z).total
    expected.backward()

    assert torch.allclose(loss, expected, rtol=0, atol=1e-10)
    for name, parameter in loop.named_parameters():
        ours = batched.get_parameter(name).grad
        assert torch.allclose(ours, parameter.grad, rtol=1e-8, atol=1e-10), name
    for name, buffer in loop.named_buffers():
        assert torch.allclose(batched.get_buffer(name), buffer, rtol=0, atol=1e-10), name


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_gradient_into_the_second_copy_only_where_the_recipe_has_it(stop_gradient):
    model = DualScaleNet(stop_gradient=stop_gradient)
    x, y = torch.rand(2, 2, 9, 3, 32, 32)
    y.requires_grad_()
    embeddings = model(x, y, torch.rand(2, 2, 3, 64, 64))
    assert embeddings.local_projections.requires_grad != stop_gradient
    local_loss(*embeddings[:2]).total.backward()
    assert (y.grad is None) == stop_gradient


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["train_global", "train_local"])
def test_a_branch_that_is_off_costs_no_gradient_and_changes_nothing_else(branch):
    torch.manual_seed(0)
    whole_model = DualScaleNet().double()
    model = DualScaleNet(**{branch: False}).double()
    model.load_state_dict(whole_model.state_dict())
    views = pictures(9, 64), pictures(9, 64), pictures(2, 96)
    weights = (0, 1) if branch == "train_global" else (1, 0)
    for network in (whole_model, model):
        embeddings = network(*views)
        (weights[0] * global_loss(*embeddings[2:]) + weights[1] * local_loss(*embeddings[:2]).total).backward()
    off = embeddings[2:] if branch == "train_global" else embeddings[:2]
    assert not any(vectors.requires_grad for vectors in off)
    for name, parameter in whole_model.named_parameters():
        grad = model.get_parameter(name).grad
        assert torch.equal(parameter.grad, torch.zeros_like(parameter.grad) if grad is None else grad), name
    assert all(map(torch.equal, model.buffers(), whole_model.buffers()))


def test_joint_statistics_pool_the_views():
    torch.manual_seed(0)
    model = DualScaleNet(per_view=False)
    patches = torch.rand(2, 9, 3, 32, 32)
    reference = copy.deepcopy(model)
    ours = model(patches, patches, torch.rand(2, 2, 3, 64, 64)).local_projections
    vector = reference.encoder(patches.flatten(0, 1))[-1].mean((2, 3))
    reference.encoder(patches.flatten(0, 1))
    assert torch.allclose(ours.flatten(0, 1), reference.local_projector(vector), atol=1e-5)


def test_evaluation_mode_uses_the_running_statistics():
    layer = PerViewBatchNorm(3).eval()
    layer.views = 2
    x = torch.randn(4, 3, 2, 2)
    assert torch.allclose(layer(x), x, atol=1e-4)
