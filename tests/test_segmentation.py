"""The decoder, the frozen encoder, augmentation, splits, labels: everything of DownStream below its scripts."""

import argparse
import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REAL
from PIL import Image
from torch import nn
from torch.nn import functional as F

from DownStream import transforms
from DownStream.data import make_split, read_sample, require_labels
from DownStream.inference import reestimate_batch_norm
from DownStream.loss import binary_cross_entropy, dice_loss
from DownStream.masks import read_mask
from DownStream.model import DECODERS, Decoder, Segmenter, local_contrast, resize
from DownStream.recipes import COMPACT, LINEAR, RECIPES, RELEASE
from DownStream.sets.base import Label, Sample
from DownStream.sets.drive import find as find_drive
from DownStream.sets.generic import find as find_generic
from DownStream.training import check_frozen
from DownStream.training_set import read_training_set
from DownStream.transforms import (
    TILT,
    NetworkInput,
    TrainingPhotograph,
    augment,
    degrade,
    jitter_channels,
    training_batch,
)
from DualScaleNet.common.script import UserError
from DualScaleNet.encoder import BLOCKS, Encoder


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(height: int = 50, width: int = 70, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), generator=generator(seed), dtype=torch.uint8)


# --- network


def test_parameter_count():
    assert sum(p.numel() for p in Segmenter(Encoder()).parameters()) == 16_306_689


@pytest.mark.parametrize("decoder", ["unet", "compact", "linear"])
@pytest.mark.parametrize("arch", list(BLOCKS))
def test_logits_are_as_large_as_the_image(arch, decoder):
    model = Segmenter(Encoder(arch), classes=2, shape=DECODERS[decoder]).eval()
    for height, width in ((64, 96), (33, 70), (129, 97)):
        assert model(torch.rand(2, 3, height, width)).shape == (2, 2, height, width)


def test_local_contrast_is_blind_to_shadows():
    """A photograph whose right half is darker and flatter looks the same to it, up to the border between the halves."""
    image = 0.3 + 0.4 * torch.rand(1, 3, 160, 320, generator=generator())
    image[..., :20, :] = 0  # outside of the field of view
    shaded = image.clone()
    shaded[..., 160:] = torch.where(image[..., 160:] > 0, 0.1 + 0.5 * image[..., 160:], 0)
    seen, seen_shaded = local_contrast(image), local_contrast(shaded)
    assert not seen[..., :20, :].any() and seen[..., 20:, :].std() == pytest.approx(1, abs=0.1)
    far = torch.ones(320, dtype=torch.bool)
    far[76:244] = False
    difference = (seen - seen_shaded)[..., far]
    assert difference.abs().mean() < 0.1 and difference[..., :76].abs().max() < 1e-5


def test_the_last_convolution_commutes_with_the_resize():
    """What the decoder does first, cheaply, equals resizing 64 channels and then classifying."""
    torch.manual_seed(0)
    decoder = Decoder((64, 64, 128, 256, 512), 1, DECODERS["unet"].widths).double().eval()
    maps = [torch.rand(1, c, 64 >> k, 64 >> k).double() for k, c in enumerate((64, 64, 128, 256, 512))]
    ours = resize(decoder(maps), (128, 128))
    classifier, decoder.classifier = decoder.classifier, nn.Identity()
    assert torch.allclose(ours, classifier(resize(decoder(maps), (128, 128))), rtol=0, atol=1e-12)


def test_the_linear_probe_is_one_linear_classifier_on_all_maps():
    """Its sum over maps equals a single 1x1 convolution on the maps normalised, resized and stacked."""
    torch.manual_seed(0)
    probe = Segmenter(Encoder(), shape=DECODERS["linear"]).decoder.double().train()
    assert sum(p.numel() for p in probe.parameters()) == 64 + 64 + 128 + 256 + 512 + 5
    maps = [torch.rand(2, c, 64 >> k, 64 >> k).double() for k, c in enumerate((64, 64, 128, 256, 512))]
    assert probe(maps).std() < 1e-12  # its weights begin at zero
    for _, convolution in probe.classifiers:
        nn.init.normal_(convolution.weight)
    stacked = torch.cat([resize(F.batch_norm(x, None, None, training=True), (64, 64)) for x in maps], 1)
    weight = torch.cat([convolution.weight for _, convolution in probe.classifiers], 1)
    bias = sum(convolution.bias for _, convolution in probe.classifiers)
    assert torch.allclose(probe(maps), F.conv2d(stacked, weight, bias), rtol=0, atol=1e-10)


def test_the_compact_decoder_sees_the_photograph_pixel_by_pixel():
    """A change of one pixel that c1 is made blind to still moves the logits around it, and only there."""
    # Without the detail path, which reaches further.
    model = Segmenter(Encoder(), shape=DECODERS["compact-without-detail"]).eval()
    nn.init.zeros_(model.encoder.conv1.weight)
    image = torch.rand(1, 3, 64, 64)
    changed = image.clone()
    changed[..., 30, 40] += 0.5
    moved = (model(changed) - model(image)).abs()[0, 0] > 0
    assert moved[30, 40] and moved[28:33, 38:43].sum() == moved.sum()
    release = Segmenter(model.encoder).eval()
    assert torch.equal(release(changed), release(image))


def test_the_detail_path_is_trained_beside_a_frozen_encoder():
    """Its maps are as large as the encoder's, at full and half size, and reach the loss."""
    model = Segmenter(Encoder(), shape=DECODERS["compact"]).train()
    image = torch.rand(2, 3, 65, 70)
    maps = model.detail(image)
    assert [each.shape for each in maps] == [(2, 32, 65, 70), (2, 64, 33, 35)]
    assert maps[1].shape[-2:] == model.encoder(image)[0].shape[-2:]
    model(image).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for name, p in model.detail.named_parameters() if name.endswith("0.weight"))
    assert all(p.grad is None for p in model.encoder.parameters())


def test_an_ablation_differs_in_one_part_only():
    for name, recipe in RECIPES.items():
        different = [field for field in vars(COMPACT) if getattr(recipe, field) != getattr(COMPACT, field)]
        if name.startswith("compact-without"):
            assert len(different) == 1, name


def test_a_frozen_encoder_has_no_graph_and_keeps_every_bit():
    model = Segmenter(Encoder()).train()
    before = copy.deepcopy(model.encoder.state_dict())
    assert not any(module.training for module in model.encoder.modules()) and model.decoder.training
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    F.mse_loss(model(torch.rand(2, 3, 64, 64)), torch.rand(2, 1, 64, 64)).backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())


def test_finetuning_trains_the_encoder():
    model = Segmenter(Encoder(), frozen=False).train()
    assert model.encoder.bn1.training
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_frozen_check_sees_a_single_bit():
    encoder = Encoder()
    original = {name: value.detach().clone() for name, value in encoder.named_parameters()}
    frozen = copy.deepcopy(encoder.state_dict())
    check_frozen(encoder, frozen, original)
    with torch.no_grad():
        encoder.layer2[0].conv1.weight[0, 0, 0, 0] += 1e-6
    with pytest.raises(RuntimeError, match=r"changed: layer2\.0\.conv1\.weight"):
        check_frozen(encoder, frozen, {})
    # Changed before the comparison state was taken: what was loaded tells.
    with pytest.raises(RuntimeError, match=r"changed: layer2\.0\.conv1\.weight"):
        check_frozen(encoder, encoder.state_dict(), original)


def test_reestimated_statistics_are_the_average_over_whole_photographs():
    torch.manual_seed(0)
    encoder = Encoder()
    encoder.bn1.running_mean.fill_(5)
    images = [picture(seed=k) for k in range(4)]
    stems = [encoder.conv1(F.pad(image / 255, (0, 26, 0, 46))[None]) for image in images]
    reestimate_batch_norm(encoder, map(NetworkInput("pad", 96).pad, images))
    mean = torch.stack([stem.mean((0, 2, 3)) for stem in stems]).mean(0)
    variance = torch.stack([stem.var((0, 2, 3)) for stem in stems]).mean(0)
    assert torch.allclose(encoder.bn1.running_mean, mean, atol=1e-5)
    assert torch.allclose(encoder.bn1.running_var, variance, rtol=1e-4)
    assert encoder.bn1.momentum == 0.1 and not encoder.training


# --- prediction


def test_padding_is_zero_to_the_right_and_below_and_large_sides_reach_a_multiple_of_32():
    image, network_input = picture(50, 70), NetworkInput("pad", 64)
    assert network_input.scale(image) is image
    padded = network_input.pad(image)
    assert padded.shape == (3, 64, 96)
    assert padded[:, 50:].max() == 0 and padded[..., 70:].max() == 0


def test_resizing_there_and_back_keeps_place_and_shares():
    """A disc stays where it is, as photograph, as label and as probability, though the aspect ratio changes."""
    y, x = np.mgrid[:300, :400]
    disc = torch.from_numpy((x - 130) ** 2 + (y - 200) ** 2 < 60**2)
    network_input = NetworkInput("resize", 96)
    label = network_input.scale(disc[None])
    image = network_input.scale(disc.byte().expand(3, -1, -1) * 255)
    assert label.shape == (1, 96, 96) and label.dtype == torch.bool and image.dtype == torch.uint8
    assert ((image[0] > 127) != label[0]).float().mean() < 0.002
    back = network_input.restore(label.float(), 300, 400)[0] > 0.5
    assert (back & disc).sum() / (back | disc).sum() > 0.95


def test_a_side_that_is_no_multiple_of_32_is_padded_for_the_network_alone():
    network_input = NetworkInput("resize", 100)
    padded = network_input.pad(network_input.scale(picture(50, 70)))
    assert padded.shape == (3, 128, 128) and padded[:, 100:].max() == 0


# --- augmentation


def turned(x: torch.Tensor, angle: int, mode: str) -> torch.Tensor:
    """(C, H, W) turned as a whole by PyTorch's own affine grid."""
    height, width = x.shape[1:]
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    theta = torch.tensor([[[cos, -sin * height / width, 0], [sin * width / height, cos, 0]]])
    grid = F.affine_grid(theta, [1, *x.shape], align_corners=False)
    return F.grid_sample(x[None], grid, mode, align_corners=False)[0]


def test_augmentation_is_a_rotation_then_flips():
    """Each draw of a batch of unlike sizes is one of 360 x 4 that are computed the plain way, on the whole picture."""
    sizes = [(40, 56), (37, 30), (25, 41), (48, 48)]
    pairs = [(picture(*size, seed), picture(*size, seed)[:1] > 127) for seed, size in enumerate(sizes)]
    images, masks = augment(pairs, (64, 64), generator(4))
    assert images.shape == (4, 3, 64, 64) and masks.shape == (4, 1, 64, 64)
    drawn = set()
    for (image, mask), out, out_mask in zip(pairs, images, masks, strict=True):
        height, width = mask.shape[1:]
        assert not out[:, height:].any() and not out[:, :, width:].any() and not out_mask[:, height:].any()
        found = {}
        for angle in range(360):
            whole = turned(image.float() / 255, angle, "bicubic").clamp(0, 1)
            for axes in [(), (-1,), (-2,), (-1, -2)]:
                found[angle, axes] = float((whole.flip(axes) - out[:, :height, :width]).abs().max())
        angle, axes = min(found, key=found.get)
        assert found[angle, axes] < 1e-3
        expected = turned(mask.float(), angle, "nearest").flip(axes)
        assert (expected != out_mask[:, :height, :width]).float().mean() < 0.003  # ties
        drawn.add(angle > 0)
    assert drawn == {True, False}


def test_image_and_label_move_together():
    """A smooth blob as both image and label stays aligned under every draw."""
    y, x = np.mgrid[:96, :96]
    blob = torch.from_numpy(np.exp(-((x - 30) ** 2 + (y - 60) ** 2) / 200)).float()
    image = (255 * blob).round().to(torch.uint8).expand(3, 96, 96)
    images, labels = augment([(image, image[:1] > 127)] * 40, (96, 96), generator())
    assert ((images[:, :1] > 0.5).float() - labels).abs().mean((1, 2, 3)).max() < 0.005
    assert set(labels.unique().tolist()) <= {0.0, 1.0} and images.min() >= 0 and images.max() <= 1
    assert len({tuple(label[0].nonzero().float().mean(0).round().tolist()) for label in labels}) > 15


def test_augmentation_probabilities():
    """Rotation with p 0.5, each flip with p 0.25, on a picture with no symmetry; 4000 draws."""
    image = picture(9, 9)
    label = image[:1] > 127
    draws = augment([(image, label)] * 4000, (9, 9), generator())[1]
    def near(expected: float) -> object:
        return pytest.approx(expected, abs=0.025)
    share = {
        axes: float((draws == label.flip(axes)).all(-1).all(-1).float().mean())
        for axes in [(), (-1,), (-2,), (-1, -2)]
    }  # fmt: skip
    assert share[()] == near(0.5 * 0.75 * 0.75)
    assert share[(-1,)] == near(0.5 * 0.25 * 0.75) and share[(-2,)] == near(0.5 * 0.25 * 0.75)
    assert share[(-1, -2)] == near(0.5 * 0.25 * 0.25)


def test_upright_photographs_are_tilted_and_mirrored_left_to_right_alone():
    """Of a bar that lies on its left end, in 400 draws."""
    bar = torch.zeros(1, 81, 81, dtype=torch.bool)
    bar[:, 40, 10:36] = True
    draws = augment([(255 * bar.expand(3, 81, 81).byte(), bar)] * 400, (81, 81), generator(), upright=True)[1]
    angles = set()
    for draw in draws:
        rows, columns = (draw[0].nonzero().double() - 40).mean(0).tolist()
        angles.add(round(math.degrees(math.atan2(rows, abs(columns)))))
    mirrored = (draws[:, :, :, 41:].sum((1, 2, 3)) > draws[:, :, :, :40].sum((1, 2, 3))).float().mean()
    assert min(angles) == -TILT and max(angles) == TILT and len(angles) > 35
    assert mirrored == pytest.approx(0.5, abs=0.08)


def test_a_crop_is_part_of_the_whole():
    """What is computed of the crop alone equals the crop of what would have been computed of the whole."""
    pairs = [(picture(40, 56, seed), picture(40, 56, seed)[:1] > 127) for seed in range(40)]
    parts, part_labels = augment(pairs, (24, 24), generator())
    assert parts.shape == (40, 3, 24, 24)
    corners = set()
    wholes, whole_labels = augment(pairs, (40, 56), generator())  # the same draws: only the rectangle's place differs
    for whole, whole_label, part, part_label in zip(wholes, whole_labels, parts, part_labels, strict=True):
        places = whole.unfold(1, 24, 1).unfold(2, 24, 1)  # (3, 17, 33, 24, 24)
        distance = (places - part[:, None, None]).abs().amax((0, 3, 4))
        assert distance.min() < 1e-4
        top, left = divmod(int(distance.argmin()), distance.shape[1])
        assert torch.equal(part_label, whole_label[:, top : top + 24, left : left + 24])
        corners.add((top, left))
    assert len(corners) > 30
    rows, columns = zip(*corners, strict=True)
    assert min(rows) <= 1 and max(rows) >= 15 and min(columns) <= 2 and max(columns) >= 30


def test_an_unturned_photograph_keeps_its_values():
    image = picture(30, 30)
    images, _ = augment([(image, image[:1] > 127)] * 40, (30, 30), generator(1))
    flips = [image.flip(axes) for axes in [(), (-1,), (-2,), (-1, -2)]]
    assert sum(any(torch.equal(255 * out, flip.float()) for flip in flips) for out in images) > 10


def test_jitter_is_each_channels_own_and_leaves_the_dark():
    image = 0.3 + 0.4 * torch.rand(1, 3, 40, 40, generator=generator())
    image[..., :10] = 0.02
    images = image.repeat(2000, 1, 1, 1)
    jittered = jitter_channels(images, generator(1))
    assert torch.equal(jittered[..., :10], images[..., :10])
    assert jittered.min() >= 0 and jittered.max() <= 1
    inside, before = jittered[..., 10:], image[..., 10:]
    shift = inside.mean((2, 3)) - before.mean((2, 3))
    contrast = inside.std((2, 3)) / before.std((2, 3))
    changed = shift.abs().amax(1) > 1e-6
    assert float(changed.float().mean()) == pytest.approx(0.7, abs=0.03)
    assert 0.17 < shift.max() < 0.201 and -0.201 < shift.min() < -0.17
    assert 1.4 < contrast.max() < math.exp(0.401) and math.exp(-0.401) < contrast.min() < 0.7
    # What one channel undergoes says nothing of the others, nor its shift of its contrast.
    drawn = torch.cat([shift, contrast.log()], 1)[changed]
    assert (torch.corrcoef(drawn.T) - torch.eye(6)).abs().max() < 0.12


@pytest.mark.parametrize("kept", ["SHADED", "BLURRED", "NOISY"])
def test_shading_blur_and_noise_on_their_own(kept, monkeypatch):
    for name in {"SHADED", "BLURRED", "NOISY"} - {kept}:
        monkeypatch.setattr(transforms, name, 0.0)
    images = (0.4 + 0.2 * torch.rand(1, 3, 40, 40, generator=generator())).repeat(1000, 1, 1, 1)
    images[..., :10] = 0.02
    degraded = degrade(images, generator(1))
    assert torch.equal(degraded[..., :10], images[..., :10]) and degraded.min() >= 0 and degraded.max() <= 1
    change = (degraded - images)[..., 13:]  # the blur reaches 3 px
    changed = change.abs().amax((1, 2, 3)) > 1e-4
    assert float(changed.float().mean()) == pytest.approx(getattr(transforms, kept), abs=0.05)
    change = change[changed]
    if kept == "SHADED":  # the same in all channels, and smooth
        assert (change - change[:, :1]).abs().median() < 1e-5 and 0.1 < change[:, 0, 20, 10].std() < 0.2
        assert change.diff(dim=-1).abs().mean() < 0.02 < 0.08 < change.abs().mean()
    if kept == "BLURRED":
        ratio = degraded[changed][..., 13:].std((1, 2, 3)) / images[0, ..., 13:].std()
        assert ratio.min() < 0.35 and 0.9 < ratio.max() <= 1 and change.mean().abs() < 1e-3
    if kept == "NOISY":
        deviation = change.std((1, 2, 3))
        assert 0.045 < deviation.max() < 0.052 and deviation.min() < 0.005 and change.mean().abs() < 1e-3


def test_only_ours_is_jittered():
    photographs = [TrainingPhotograph(Path(), picture(), picture()[:1] > 127)] * 8
    network_input = NetworkInput("pad", 96)
    plain, jittered = (training_batch(photographs, network_input, 64, on, generator()) for on in (False, True))
    assert torch.equal(plain[1], jittered[1]) and not torch.equal(plain[0], jittered[0])
    assert COMPACT.jitter and not RELEASE.jitter and not LINEAR.jitter


def test_only_standardised_photographs_lose_their_background(trees):
    sample = find_drive(trees / "DRIVE", ["vessels"])["train"][0]
    args = argparse.Namespace(target=["vessels"], targets=["vessels"], fov=[], roi="full")
    outside = ~read_sample(sample).fov
    for standardised in (False, True):
        network_input = NetworkInput("pad", 64, standardised)
        (photograph,) = read_training_set([sample], args, network_input, torch.device("cpu"))
        assert (photograph.image[:, outside].max() == 0) == standardised


def test_whole_photographs_are_padded_and_crops_are_cut():
    pictures = [picture(50, 70, seed) for seed in range(20)]
    photographs = [TrainingPhotograph(Path(), each, each[:2] > 127) for each in pictures]
    network_input = NetworkInput("pad", 96)
    images, labels = training_batch(photographs, network_input, None, False, generator(2))
    assert images.shape == (20, 3, 96, 96) and labels.shape == (20, 2, 96, 96)
    images, labels = training_batch(photographs, network_input, 64, False, generator())
    assert images.shape == (20, 3, 64, 64) and labels.shape == (20, 2, 64, 64)
    assert images[:, :, 50:].abs().max() == 0  # the photographs are lower than the crop


def test_the_loss_counts_only_what_is_inside():
    logits = torch.randn(2, 3, 8, 8, generator=generator())
    labels = torch.rand(2, 3, 8, 8, generator=generator(1)).round()
    inside = torch.zeros(2, 1, 8, 8)
    inside[0, :, 2:5], inside[1, :, :, 6:] = 1, 1
    chosen = inside.bool().expand_as(logits)
    expected = F.binary_cross_entropy_with_logits(logits[chosen], labels[chosen])
    assert torch.allclose(binary_cross_entropy(logits, labels, inside), expected)
    assert torch.equal(binary_cross_entropy(logits, labels), F.binary_cross_entropy_with_logits(logits, labels))
    assert binary_cross_entropy(logits, labels, 0 * inside) == 0


def test_dice_loss_is_one_minus_f1_of_probabilities():
    logits = 20 * torch.randn(2, 2, 8, 8, generator=generator())  # nearly masks
    labels = torch.rand(2, 2, 8, 8, generator=generator(1)).round()
    inside = (torch.rand(2, 1, 8, 8, generator=generator(2)) > 0.3).float()
    expected = []
    for k in range(2):
        predicted, true = (x[:, k][inside[:, 0].bool()] for x in (logits.sigmoid(), labels))
        expected.append(1 - (2 * (predicted * true).sum() + 1) / (predicted.sum() + true.sum() + 1))
    assert dice_loss(logits, labels, inside).item() == pytest.approx(sum(expected).item() / 2, abs=1e-6)
    assert dice_loss(100 * (labels - 0.5), labels) < 0.03 and dice_loss(-100 * (labels - 0.5), labels) > 0.97
    labels[:, 1] = 0  # nothing of the second class is to be found
    logits.requires_grad_()
    dice_loss(logits, labels, inside).backward()
    assert logits.grad[:, 0].any() and not logits.grad[:, 1].any()


# --- data sets


def test_drive_tree_at_any_depth(trees):
    for root in (trees / "DRIVE", trees):
        found = find_drive(root, ["vessels"])
        assert [s.id for s in found["train"]] == [f"{n}_training" for n in range(21, 27)]
        assert all(s.labels and s.fov for s in found["train"] + found["test"])
    with pytest.raises(UserError, match=r"no DRIVE in .*: expected training/images"):
        find_drive(trees / "ddr_757", ["vessels"])


def test_generic_layout(tmp_path):
    def draw(path: str, mode: str = "RGB") -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (8, 6)).save(tmp_path / path)

    draw("images/Eye 1.JPG"), draw("images/b.png"), draw("masks/Eye 1.png", "L"), draw("fov/b.gif", "L")
    (tmp_path / "images" / "Thumbs.db").touch()
    first, second = find_generic(tmp_path, ["mask"])["train"]
    assert (first.id, first.labels["mask"].path.name, first.fov) == ("Eye 1", "Eye 1.png", None)
    assert (second.id, second.labels, second.fov.name) == ("b", {}, "b.gif")
    draw("masks/lonely.png", "L")
    with pytest.raises(UserError, match=r"lonely\.png belongs to no photograph"):
        find_generic(tmp_path, ["mask"])
    (tmp_path / "masks" / "lonely.png").unlink()
    draw("images/b.tif")
    with pytest.raises(UserError, match="same stem"):
        find_generic(tmp_path, ["mask"])
    for split in ("train", "val", "test"):
        draw(f"split/{split}/images/1.png"), draw(f"split/{split}/masks/1.png", "L")
    found = find_generic(tmp_path / "split", ["mask"])
    assert {name: [s.key for s in members] for name, members in found.items()} == {
        "train": ["train/1"], "val": ["val/1"], "test": ["test/1"],
    }
    with pytest.raises(UserError, match=r"expected images/\* and masks"):
        find_generic(tmp_path / "nothing", ["mask"])


@pytest.mark.parametrize("high", [1, 255])
def test_masks_of_either_range(tmp_path, high):
    values = np.array([[0, high], [high, 0]], np.uint8)
    Image.fromarray(values).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(Label(tmp_path / "m.png")).marked, values > 0)
    Image.fromarray(values * 0).save(tmp_path / "m.png")
    assert not read_mask(Label(tmp_path / "m.png")).marked.any()


def test_a_mask_of_another_size_is_named(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    Image.new("L", (6, 8)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"m\.png is 6x8, its photograph a\.png 8x6"):
        read_sample(Sample("a", tmp_path / "a.png", {"disc": Label(tmp_path / "m.png")}))
    with pytest.raises(UserError, match=r"a\.png has no label for cup"):
        require_labels([Sample("a", tmp_path / "a.png", {"disc": Label(None)})], {"": ["disc", "cup"]})


def test_splits_by_image():
    found = {"train": [Sample(str(i), Path(), split="train") for i in range(20)], "test": [Sample("t", Path())]}

    def split(val: float = 0.2, fraction: float = 1.0, folds: int | None = None, fold: int = 0, seed: int = 0) -> dict:
        return {k: [s.id for s in v] for k, v in make_split(found, val, fraction, folds, fold, seed).items()}

    whole = split()
    assert [len(whole[name]) for name in ("train", "val", "test")] == [16, 4, 1]
    assert whole == split() and whole != split(seed=1)
    assert set(whole["train"]).isdisjoint(whole["val"])
    quarter, half = split(fraction=0.25), split(fraction=0.5)
    assert len(quarter["train"]) == 4 and set(quarter["train"]) < set(half["train"]) < set(whole["train"])
    assert quarter["val"] == whole["val"]
    assert split(val=0)["val"] == [] and len(split(val=0)["train"]) == 20

    held_out = [split(folds=4, fold=k) for k in range(4)]
    assert sorted(i for s in held_out for i in s["test"]) == sorted(str(i) for i in range(20))
    for s in held_out:
        assert len(s["test"]) == 5 and not set(s["test"]) & (set(s["train"]) | set(s["val"]))
    with pytest.raises(UserError, match="--folds 21"):
        split(folds=21)
    with pytest.raises(UserError, match="lower --val-fraction"):
        split(val=0.99)


def test_a_validation_list_of_ones_own_is_taken_as_it_is():
    found = {"train": [Sample(str(i), Path()) for i in range(4)], "val": [Sample("v", Path())]}
    split = make_split(found, 0.5, 1.0, None, 0, 0)
    assert [s.id for s in split["val"]] == ["v"] and len(split["train"]) == 4


@pytest.mark.skipif(not (REAL / "DRIVE").is_dir(), reason="no real photographs in ../shared/data")
def test_real_drive():
    found = find_drive(REAL / "DRIVE", ["vessels"])
    assert len(found["train"]) == len(found["test"]) == 20
    assert all(s.labels and s.fov for s in found["train"]) and all(s.fov and not s.labels for s in found["test"])
    sample = read_sample(found["train"][0])
    assert sample.image.shape == (3, 584, 565)
    label = sample.labels["vessels"]
    assert 0.05 < label.float().mean() < 0.15 and 0.6 < sample.fov.float().mean() < 0.75
    assert (label & ~sample.fov).float().mean() < 0.001
