"""Checkpoints say what they are, load with torch.load's defaults, and are refused by name when unfit."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from DualScaleNet.common.checkpoint import (
    FORMAT,
    load_checkpoint,
    load_latest,
    restore,
    save_checkpoint,
    save_latest,
)
from DualScaleNet.common.script import UserError
from DualScaleNet.encoder import Encoder, imagenet_encoder, load_encoder, save_encoder


@pytest.mark.parametrize("arch, scaling", [("bottleneck18", "unit"), ("resnet18", "imagenet")])
def test_an_encoder_file_suffices_to_rebuild_the_encoder(tmp_path, arch, scaling):
    encoder = Encoder(arch, scaling)
    save_encoder(tmp_path / "encoder.pth", encoder, "paper", 7, 608)
    content = torch.load(tmp_path / "encoder.pth")
    facts = {"recipe": "paper", "epoch": 7, "images": 608, "size": 224, "standardise": False}
    assert {"format", "kind", "commit", "arch", "scaling", "state"} | facts.keys() == content.keys()
    loaded, said = load_encoder(str(tmp_path / "encoder.pth"))
    assert (loaded.arch, loaded.scaling) == (arch, scaling) and facts.items() <= said.items()
    for name, value in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(loaded(images)[4], encoder.eval()(images)[4])  # it normalises by its statistics, not the batch's


def test_an_encoder_that_does_not_fit_is_refused_by_parameter(tmp_path):
    path = tmp_path / "encoder.pth"
    save_encoder(path, Encoder(), "paper", 1, 1)
    content = torch.load(path)
    content["state"]["foreign.weight"] = content["state"].pop("conv1.weight")
    torch.save(content, path)
    with pytest.raises(UserError, match=r"does not fit: 1 missing \(conv1\.weight\); 1 unexpected \(foreign\.weight\)"):
        load_encoder(path)
    content["arch"] = "vgg"
    torch.save(content, path)
    with pytest.raises(UserError, match="unknown encoder: vgg"):
        load_encoder(path)


def test_files_that_are_none_of_ours(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(UserError, match="no such file"):
        load_checkpoint(path, "encoder")
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="damaged or no checkpoint"):
        load_checkpoint(path, "encoder")
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="no checkpoint of this project"):
        load_checkpoint(path, "encoder")
    torch.save({"format": FORMAT + 1, "kind": "encoder"}, path)
    with pytest.raises(UserError, match="newer than"):
        load_checkpoint(path, "encoder")
    save_checkpoint(path, "segmentation", {})
    with pytest.raises(UserError, match="of kind 'segmentation', not 'encoder'"):
        load_checkpoint(path, "encoder")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path, "segmentation")


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"format": 1, "kind": "encoder", "x": Malicious(trace)}, tmp_path / "torch.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    for name in ("torch.pth", "plain.pth"):
        with pytest.raises(UserError, match="holds more than tensors and plain values: refused"):
            load_checkpoint(tmp_path / name, "encoder")
    assert not trace.exists()


def test_the_file_before_is_kept_and_taken_when_the_newest_is_damaged(tmp_path, capsys):
    path, previous = tmp_path / "last.pth", tmp_path / "last-previous.pth"
    assert load_latest(path, "pretraining") is None
    for epoch in (1, 2, 3):
        save_latest(path, "pretraining", {"epoch": epoch, "weight": torch.full((99,), epoch)})
    assert load_latest(path, "pretraining")["epoch"] == 3 and load_checkpoint(previous, "pretraining")["epoch"] == 2
    assert sorted(tmp_path.iterdir()) == [previous, path] and capsys.readouterr().err == ""

    whole = path.read_bytes()
    place = whole.index(bytes([3, 0, 0, 0, 0, 0, 0, 0] * 9))  # in the weight
    path.write_bytes(whole[:place] + b"\2" + whole[place + 1 :])
    assert load_latest(path, "pretraining")["epoch"] == 2
    err = capsys.readouterr().err
    assert err == f"warning: {path} is damaged or no checkpoint; resuming from {previous}, the checkpoint before it\n"
    path.unlink()
    assert load_latest(path, "pretraining")["epoch"] == 2
    assert capsys.readouterr().err == ""  # killed between two names
    previous.write_bytes(whole[:600])
    with pytest.raises(UserError, match=r"last-previous\.pth is damaged"):
        load_latest(path, "pretraining")
    torch.save({"format": 1, "kind": "pretraining"}, path)
    with pytest.raises(UserError, match=r"too old a version to resume: start over with --resume never"):
        load_latest(path, "pretraining")


@pytest.mark.parametrize("layouts", [("channels_last", "contiguous_format"), ("contiguous_format", "channels_last")])
def test_adam_goes_on_alike_in_another_memory_layout(tmp_path, layouts):
    """As from a CPU, whose pretraining network is channels last, to a GPU, and back."""
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def fresh(layout: str) -> dict[str, torch.nn.Module | torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = Encoder().double().to(memory_format=getattr(torch, layout))
        return {"model": model, "optimizer": torch.optim.Adam(model.parameters(), 1e-3, fused=True)}

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        sum(each.square().mean() for each in model(images)).backward()
        optimizer.step()

    undisturbed, other = (fresh(layout) for layout in layouts)
    for _ in range(2):
        step(**undisturbed)
    path = tmp_path / "last.pth"
    save_checkpoint(path, "pretraining", {name: part.state_dict() for name, part in undisturbed.items()})
    restore(path, load_checkpoint(path, "pretraining"), other)
    for parts in (undisturbed, other):
        step(**parts)
    for name, value in undisturbed["model"].state_dict().items():
        assert torch.allclose(other["model"].state_dict()[name], value, rtol=0, atol=1e-10), name


def test_a_damaged_download_of_imagenet_weights_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_text("an error page")
    with pytest.raises(UserError, match=r"resnet18-f37072fd\.pth is damaged: delete it, or put https"):
        imagenet_encoder("resnet18")


def test_without_a_git_program_no_commit_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    save_encoder(tmp_path / "encoder.pth", Encoder(), "paper", 1, 1)
    assert torch.load(tmp_path / "encoder.pth")["commit"] is None


@pytest.mark.parametrize(
    "prefix, wrapped, scaling",
    [("", False, "imagenet"), ("encoder.", True, "unit"), ("module.encoder.", True, "unit")],
)
def test_weights_from_elsewhere_by_torchvisions_names_or_behind_encoder(tmp_path, capsys, prefix, wrapped, scaling):
    theirs = resnet18()
    state = {f"{prefix}{name}": value for name, value in theirs.state_dict().items()}
    if prefix:
        state["head.weight"] = torch.zeros(3)
        del state[f"{prefix}fc.weight"], state[f"{prefix}fc.bias"]
    torch.save({"state_dict": state, "epoch": 7} if wrapped else state, tmp_path / "theirs.pth")
    encoder, facts = load_encoder(tmp_path / "theirs.pth", "resnet18")
    assert facts == {"arch": "resnet18", "scaling": scaling} and encoder.scaling == scaling
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])
    left_out = f"the encoder {prefix}*: head.weight" if prefix else "an encoder: fc.bias, fc.weight"
    path = tmp_path / "theirs.pth"
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: left out, as no part of {left_out}", f"{path}: input normalisation assumed: {scaling}"
    ]  # fmt: skip
    first = "layer1.2.conv1.weight, layer1.2.bn1.weight, layer1.2.bn1.bias and 93 more"
    with pytest.raises(UserError, match=re.escape(f"does not fit: 96 missing ({first})")):
        load_encoder(tmp_path / "theirs.pth", "resnet34")
    torch.save({"state_dict": {"epoch": 7}}, tmp_path / "theirs.pth")
    with pytest.raises(UserError, match="no checkpoint of this project, and no state dict of an encoder"):
        load_encoder(tmp_path / "theirs.pth")
