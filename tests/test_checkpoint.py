"""Checkpoints say what they are, load with torch.load's defaults, and are refused by name when unfit."""

import pickle
from pathlib import Path

import pytest
import torch

from DualScaleNet.checkpoint import FORMAT, load_checkpoint, load_encoder, save_checkpoint, save_encoder
from DualScaleNet.encoder import Encoder
from DualScaleNet.runtime import UserError


@pytest.mark.parametrize("arch, scaling", [("bottleneck18", "unit"), ("resnet18", "imagenet")])
def test_an_encoder_file_suffices_to_rebuild_the_encoder(tmp_path, arch, scaling):
    encoder = Encoder(arch, scaling)
    save_encoder(tmp_path / "encoder.pth", encoder, "paper", 7, 608)
    content = torch.load(tmp_path / "encoder.pth")
    assert {"format", "kind", "commit", "arch", "scaling", "state", "recipe", "epoch", "images"} == set(content)
    loaded, facts = load_encoder(tmp_path / "encoder.pth")
    assert (loaded.arch, loaded.scaling, facts["recipe"], facts["epoch"], facts["images"]) == (
        arch, scaling, "paper", 7, 608,
    )
    for name, value in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_an_encoder_that_does_not_fit_is_refused_by_parameter(tmp_path):
    path = tmp_path / "encoder.pth"
    save_encoder(path, Encoder(), "paper", 1, 1)
    content = torch.load(path)
    content["state"]["foreign.weight"] = content["state"].pop("conv1.weight")
    torch.save(content, path)
    with pytest.raises(UserError, match=r"Missing.*conv1\.weight.*Unexpected.*foreign\.weight"):
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
        with pytest.raises(UserError):
            load_checkpoint(tmp_path / name, "encoder")
    assert not trace.exists()
