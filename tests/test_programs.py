"""Every piece of Python in docs/programs.md is run, and gives what this repository gives; export.py and its refusals.

The other programs are in requirements-programs.txt; what needs one that is not installed is skipped.
"""

import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, call, rows, run_script
from PIL import Image
from test_scale import eye_photograph
from torch import nn

from DownStream import export, exporting, predict
from DownStream.exporting import Exported
from DownStream.inference import Predictor, reestimate_batch_norm
from DownStream.model import DECODERS, Segmenter
from DownStream.scoring.metrics import to_levels
from DownStream.segmentation import Network
from DualScaleNet.common.checkpoint import load_checkpoint, save_checkpoint
from DualScaleNet.common.script import UserError
from DualScaleNet.encoder import SCALINGS, Encoder, load_encoder, save_encoder
from DualScaleNet.views import standardise

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "programs.md").read_text("utf-8"), re.DOTALL)


def run(word: str, monkeypatch: pytest.MonkeyPatch, folder: Path, swap: str = "", **given: Any) -> dict[str, Any]:
    """The names after the page's block with this word has run in `folder`; `swap` takes the place of resnet18."""
    (block,) = (each for each in BLOCKS if word in each)
    monkeypatch.chdir(folder)
    exec(block.replace("resnet18", swap or "resnet18"), given)
    return given


def trained_encoder(arch: str = "bottleneck18", scaling: str = "unit") -> Encoder:
    """Random weights, and statistics that are not those of a new encoder."""
    torch.manual_seed(0)
    encoder = Encoder(arch, scaling)
    reestimate_batch_norm(encoder, [torch.rand(3, 64, 96)])
    return encoder


def saved_network(path: Path, targets: list[str], decoder: str = "compact", **changed: Any) -> Path:
    """A checkpoint with random weights, whose logits of a drawn eye have mean 0 and deviation 1."""
    encoder = trained_encoder(changed.pop("arch", "bottleneck18"), changed.pop("scaling", "unit"))
    model = Segmenter(encoder, len(targets), shape=DECODERS[decoder])
    heads = [each for each in model.modules() if isinstance(each, nn.Conv2d) and each.out_channels == len(targets)]
    with torch.no_grad():
        for head in heads:
            nn.init.normal_(head.weight), nn.init.zeros_(head.get_parameter("bias"))
        logits = model.eval()(standardise(eye_photograph(256).image[None] / 255))
        heads[0].get_parameter("bias").sub_(logits.mean((0, 2, 3)) / logits.std())
        for head in heads:
            head.weight /= logits.std()
    content = {
        "model": model.state_dict(), "arch": encoder.arch, "scaling": encoder.scaling, "targets": targets,
        "decoder": decoder, "fit": "pad", "size": 320, "standardise": True, "diameter": 270.0, "fov_crop": False,
        "localiser": None, "dataset": ["generic"], "epoch": 1,
    }  # fmt: skip
    save_checkpoint(path, "segmentation", content | changed)
    return path


# --- the encoder


@pytest.mark.parametrize(
    "word, arch",
    [*product(["import resnet18", "timm", "smp"], ["resnet18", "resnet34", "resnet50"]), ("Narrow", "bottleneck18")],
)
def test_an_encoder_in_six_lines(word, arch, tmp_path, monkeypatch):
    pytest.importorskip({"timm": "timm", "smp": "segmentation_models_pytorch"}.get(word, "torchvision"))
    scaling = "imagenet" if arch == "resnet34" else "unit"
    save_encoder(tmp_path / "encoder.pth", trained_encoder(arch, scaling), "paper", 1, 1)
    encoder, facts = load_encoder(tmp_path / "encoder.pth")
    images = torch.rand(2, 3, 64, 96)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in SCALINGS[facts["scaling"]])
    (block,) = (each for each in BLOCKS if word in each)
    assert len([line for line in block.splitlines() if line]) <= 6 and "DualScaleNet" not in block
    with torch.no_grad():
        found = run(word, monkeypatch, tmp_path, arch, images=(images - mean) / std)
        expected = encoder(images)
    if "vectors" in found:
        assert torch.allclose(found["vectors"], expected[4].mean((2, 3)), rtol=1e-4, atol=1e-5)
    else:
        for k, each in enumerate(expected, 1):
            assert torch.allclose(found[f"c{k}"], each, rtol=1e-4, atol=1e-5)
    assert expected[4].std() > 0.01


def test_an_encoder_in_the_clone_and_its_statistics(tmp_path, monkeypatch):
    torch.manual_seed(0)
    save_encoder(tmp_path / "encoder.pth", Encoder(), "paper", 1, 1)
    images = torch.rand(3, 3, 64, 96)
    with torch.no_grad():
        found = run("load_encoder", monkeypatch, tmp_path, images=images)
        again = run("reestimate_batch_norm", monkeypatch, tmp_path, encoder=found["encoder"], images=images)
        assert not torch.allclose(again["encoder"](images)[4], found["c5"], rtol=0.1)
    statistics = again["encoder"].bn1.running_mean
    assert torch.allclose(statistics, again["encoder"].conv1(images).mean((0, 2, 3)), atol=1e-5)


# --- a network in three lines


@pytest.mark.parametrize("localised", [False, True])
def test_a_network_in_three_lines_finds_what_predict_writes(localised, tmp_path, monkeypatch):
    targets = ["disc", "cup"] if localised else ["vessels"]
    localiser = load_checkpoint(saved_network(tmp_path / "a.pth", ["disc"]), "segmentation") if localised else None
    checkpoint = saved_network(tmp_path / "best.pth", targets, localiser=localiser)
    image = eye_photograph(300).image.permute(1, 2, 0).numpy()
    Image.fromarray(image).save(tmp_path / "eye.png")
    options = ("--images", tmp_path / "eye.png", "--out", tmp_path / "out", "--device", "cpu")
    call(monkeypatch, predict, "--checkpoint", checkpoint, *options)

    found = run("DownStream.segmentation", monkeypatch, tmp_path, image=image)["found"]
    (row,) = rows(tmp_path / "out" / "summary.csv")
    assert {name: "" if value is None else str(value) for name, value in found.numbers.items()} == {
        name: value for name, value in row.items() if name != "image"
    }
    for target in targets:
        folder = tmp_path / "out" / target if localised else tmp_path / "out"
        levels = np.asarray(Image.open(folder / "probability" / "eye.png"))
        assert np.array_equal(to_levels(found.maps[target]), levels)
        assert np.array_equal(found.masks[target], np.asarray(Image.open(folder / "mask" / "eye.png")) > 0)
    if not localised:
        assert found.maps["vessels"].std() > 0.1 and found.maps["vessels"].dtype == np.float32
        assert 0.01 < found.numbers["vessels marked"] < 0.99
        assert np.array_equal(found.masks["vessels"], found.maps["vessels"] >= 0.5)


def test_an_array_that_is_no_photograph_is_refused(tmp_path):
    network = Network(saved_network(tmp_path / "best.pth", ["vessels"]), device="cpu")
    for array in (np.zeros((64, 64, 3)), np.zeros((64, 64), np.uint8), np.zeros((3, 64, 64), np.uint8)):
        with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\) RGB, not (float64|uint8) \("):
            network(array)


# --- export


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["compact", "unet", "linear"])
def test_onnx_is_pytorch_at_every_size(decoder, tmp_path, monkeypatch, capfd):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    scaling = "imagenet" if decoder == "unet" else "unit"
    checkpoint = saved_network(tmp_path / "best.pth", ["disc", "cup"], decoder, arch="resnet18", scaling=scaling)
    call(monkeypatch, export, "--checkpoint", checkpoint)
    assert capfd.readouterr() == (f"{tmp_path / 'best.onnx'}: disc, cup; how to call it: docs/programs.md\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.onnx", "best.pth"]
    assert str(ROOT).encode() not in (tmp_path / "best.onnx").read_bytes()
    session = onnxruntime.InferenceSession(tmp_path / "best.onnx")
    predictor = Predictor.load(load_checkpoint(checkpoint, "segmentation"), torch.device("cpu"))
    network = Exported(predictor.model, standardised=True).eval()
    for shape in ((1, 3, 64, 64), (2, 3, 96, 160), (1, 3, 416, 288), (1, 3, 320, 608)):
        photograph = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        (found,) = session.run(["probability"], {"photograph": photograph.numpy()})
        with torch.no_grad():
            expected = network(photograph).numpy()
        assert found.shape == (shape[0], 2, *shape[2:]) and expected.std() > 0.01
        assert np.abs(found - expected).max() < 1e-4
    assert session.get_modelmeta().custom_metadata_map == {
        "targets": '["disc", "cup"]', "fit": "pad", "size": "320", "diameter": "270.0", "fov_crop": "false",
        "standardise": "true", "threshold": "0.5", "dataset": "generic",
    }  # fmt: skip


@pytest.mark.slow
def test_the_pages_numpy_gives_predicts_map(tmp_path, monkeypatch):
    """At the network's scale, and resized either way."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    checkpoint = saved_network(tmp_path / "best.pth", ["vessels"])
    call(monkeypatch, export, "--checkpoint", checkpoint, "--out", tmp_path / "model.onnx")
    for side in (280, 500, 200):
        photograph = eye_photograph(side)
        expected = Network(checkpoint, device="cpu").predictor(photograph).maps.numpy()
        image, fov = photograph.image.permute(1, 2, 0).numpy(), photograph.field_of_view
        maps = run("onnxruntime", monkeypatch, tmp_path, image=image, fov=fov)["maps"]
        assert maps.shape == expected.shape and np.abs(maps - expected).mean() < 0.05 * expected.std()


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["bottleneck18", "timm/tf_efficientnet_lite0"])
def test_torch_export_is_pytorch(arch, tmp_path, monkeypatch):
    checkpoint = saved_network(tmp_path / "best.pth", ["vessels"], arch=arch, standardise=False)
    call(monkeypatch, export, "--checkpoint", checkpoint, "--out", tmp_path / "model.pt2")
    assert str(ROOT).encode() not in (tmp_path / "model.pt2").read_bytes()
    model = Predictor.load(load_checkpoint(checkpoint, "segmentation"), torch.device("cpu")).model.eval()
    for shape in ((1, 3, 64, 64), (2, 3, 96, 160), (1, 3, 416, 288)):
        photograph = torch.randint(256, shape, dtype=torch.uint8)
        found = run("torch.export.load", monkeypatch, tmp_path, photograph=photograph)
        with torch.no_grad():
            assert torch.allclose(found["probability"], model(photograph / 255).sigmoid(), rtol=0, atol=1e-4)
    assert found["facts"]["targets"] == '["vessels"]' and found["facts"]["standardise"] == "false"


def test_what_cannot_be_exported_is_said(tmp_path, monkeypatch):
    stderr = run_script("DownStream/export.py", "--checkpoint", "best.pth", "--out", "model.h5", code=2).stderr
    assert "--out model.h5: must end in .onnx or .pt2" in stderr
    localiser = load_checkpoint(saved_network(tmp_path / "a.pth", ["disc"]), "segmentation")
    checkpoint = saved_network(tmp_path / "best.pth", ["disc", "cup"], localiser=localiser)
    with pytest.raises(UserError, match=rf"^{checkpoint} looks for the disc with one network .* trained without --roi"):
        call(monkeypatch, export, "--checkpoint", checkpoint, "--out", tmp_path / "model.pt2")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^ONNX needs two more packages: pip install onnx onnxscript$"):
        call(monkeypatch, export, "--checkpoint", checkpoint)
    assert not list(tmp_path.glob("*.onnx")) + list(tmp_path.glob("*.pt2"))
