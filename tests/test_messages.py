"""What the scripts say where something is wrong or comes next: it is true, in one line, and can be followed."""

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, call, rows, run_script
from test_strangers_folder import NOISE, TRAIN, drawing, save
from torchvision.models import resnet18, resnet50

from DownStream import predict, selection, train
from DownStream.data import read_split
from DownStream.sets.base import Sample
from DualScaleNet import main as pretrain
from DualScaleNet import pretrain as pretraining
from DualScaleNet.common import script
from DualScaleNet.common.checkpoint import load_checkpoint
from DualScaleNet.common.files import write_json
from DualScaleNet.common.script import UserError, few, git_commit
from DualScaleNet.encoder import load_encoder


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Three photographs with masks."""
    for k, name in enumerate("abc"):
        save(tmp_path / "mine" / "images" / f"{name}.png", np.roll(NOISE, k + 1))
        save(tmp_path / "mine" / "masks" / f"{name}.png", drawing())
    return tmp_path / "mine"


@pytest.fixture
def training(tmp_path, monkeypatch, capsys):
    """Trains on a folder in one run folder, whose name has a blank; returns what is said."""

    def run(data: Path, *arguments: object) -> str:
        common = ("--dataset", "generic", "--data-dir", data, *TRAIN, "--run-dir", tmp_path / "my run")
        call(monkeypatch, train, *common, *arguments)
        return capsys.readouterr().out

    return run


def test_extending_a_finished_cosine_run(training, mine, tmp_path):
    """What is advised at its end is what works."""
    training(mine, "--schedule", "cosine")
    run = tmp_path / "my run"
    assert training(mine, "--schedule", "cosine").splitlines()[-1] == (
        f"{run} is already at epoch 1: its cosine schedule ends there; to train on, raise --epochs and add --resume "
        "force, and the learning rate is the longer schedule's"
    )
    refused = (
        f"the cosine schedule of the run in {run} ends at epoch 1, not 2: resume with --resume force, and the learning "
        "rate is the new schedule's; or start over with --resume never"
    )
    with pytest.raises(UserError, match=f"^{re.escape(refused)}$"):
        training(mine, "--schedule", "cosine", "--epochs", 2)
    training(mine, "--schedule", "cosine", "--epochs", 2, "--resume", "force")
    assert len(rows(run / "log.csv")) == 2


def test_an_architecture_that_the_encoder_file_does_not_have(training, mine, pretrained):
    encoder = pretrained / "encoder.pth"
    with pytest.raises(UserError, match=r"encoder\.pth holds a bottleneck18: leave out --arch resnet50"):
        training(mine, "--encoder", encoder, "--arch", "resnet50")


def test_a_table_of_another_program_is_left_alone(trained, mine, tmp_path, monkeypatch):
    table = tmp_path / "out" / "summary.csv"
    table.parent.mkdir()
    table.write_text("a,b\n1,2\n")
    arguments = ("--checkpoint", trained / "best.pth", "--images", mine / "images", "--out", table.parent)
    with pytest.raises(UserError, match=r"summary\.csv is another program's: choose another --out"):
        call(monkeypatch, predict, *arguments)
    assert table.read_text() == "a,b\n1,2\n"


def test_output_that_cannot_be_written_is_said_in_a_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, ROOT / "Dataset/check.py"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr == "check.py: error: standard output: No space left on device\n"


def test_scores_that_are_not_there(tmp_path):
    result = run_script("docs/scores.py", tmp_path, code=1)
    assert result.stderr.startswith(f"scores.py: error: there is no scores.json in {tmp_path}")


def test_extending_a_finished_constant_run(training, mine, tmp_path):
    training(mine, "--schedule", "constant")
    assert "already at epoch 1: raise --epochs to train on\n" in training(mine, "--schedule", "constant")
    training(mine, "--schedule", "constant", "--epochs", 2)
    assert len(rows(tmp_path / "my run" / "log.csv")) == 2


def test_pretraining_says_the_same_of_a_cosine_run(mine, tmp_path, monkeypatch, capsys):
    options = ("--data", mine, "--image-size", 96, "--batch-size", 2, "--epochs", 1, "--schedule", "cosine")
    options += ("--cache", tmp_path / "cache", "--run-dir", tmp_path / "run")
    call(monkeypatch, pretrain, *options)
    call(monkeypatch, pretrain, *options)
    assert "schedule ends there; to train on, raise --epochs and add --resume force" in capsys.readouterr().out
    with pytest.raises(UserError, match="ends at epoch 1, not 2: resume with --resume force"):
        call(monkeypatch, pretrain, *options, "--epochs", 2)


@pytest.mark.parametrize("split", ["test", "val", None])
def test_the_next_command_after_training_works(split, training, mine, tmp_path, monkeypatch, capsys):
    """Whatever photographs are held out. A blank in a folder's name is quoted."""
    for part in ("train", split) if split else ():
        shutil.copytree(mine, tmp_path / "parts" / part)
    *_, last = training(tmp_path / "parts" if split else mine).splitlines()
    text, _, command = last.partition(": python DownStream/predict.py ")
    assert text == {
        "test": "score it",
        "val": "there are no test photographs; score it on those that chose best.pth",
        None: "no photographs are held out to score it on; predict others",
    }[split]
    arguments = [str(mine) if word == "FOLDER" else word for word in shlex.split(command)]
    call(monkeypatch, predict, *arguments)
    assert "maps, masks and overlays in" in capsys.readouterr().out


def test_the_newest_run_is_no_cell_of_a_comparison(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "ROOT", tmp_path)
    runs = [tmp_path / "runs" / name for name in ("segment/mine", "compare/cells/random-frozen", "pretrain/x")]
    for age, run in enumerate(reversed(runs)):
        run.mkdir(parents=True)
        (run / "last.pth").touch()
        os.utime(run / "last.pth", (1000 - age, 1000 - age))
    write_json(runs[1] / "cell.json", {})
    with pytest.raises(UserError, match="no segmentation run under"):
        selection.newest_checkpoint()
    for run in runs[:2]:
        write_json(run / "split.json", {})
    assert selection.newest_checkpoint() == runs[0] / "last.pth"
    (runs[0] / "best.pth").touch()
    assert selection.newest_checkpoint() == runs[0] / "best.pth"


# --- weights from elsewhere


def state_of(prefix: str = "", other: str = "") -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = {f"{prefix}{name}": value for name, value in resnet18().state_dict().items()}
    return state | ({f"{other}{name}": torch.zeros(1) for name in resnet18().state_dict()} if other else {})


FOREIGN = {
    "DataParallel": state_of("module."),
    "lightly": {"state_dict": state_of("backbone."), "epoch": 3},
    "MoCo": {"arch": "resnet18", "state_dict": state_of("module.encoder_q.", "module.encoder_k.")},
    "model": {"model": state_of(), "optimizer": {"lr": 0.1}, "best": torch.zeros(1)},
    "DINO": {"student": state_of("module.backbone."), "teacher": state_of("backbone."), "epoch": 1},
    "nested": {"model": {"state_dict": state_of("module.")}},
}


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_weights_behind_a_common_prefix_are_found(kind, tmp_path, capsys):
    torch.save(FOREIGN[kind], tmp_path / "theirs.pth")
    encoder, facts = load_encoder(tmp_path / "theirs.pth", "resnet18")
    expected = state_of()
    assert all(torch.equal(value, expected[name]) for name, value in encoder.state_dict().items())
    assert facts["scaling"] == "imagenet"
    line, normalisation = capsys.readouterr().out.splitlines()
    assert "left out, as no part of" in line and len(line) < 300
    assert normalisation.endswith(": input normalisation assumed: imagenet")
    if kind == "MoCo":
        assert "no part of the encoder module.encoder_q.*: module.encoder_k.bn1.bias, " in line and "more" in line


def test_weights_that_do_not_fit_are_told_in_one_short_line(tmp_path):
    """Not by 8 kB of names. If another architecture fits, it is named."""
    path = tmp_path / "theirs.pth"
    torch.save({"state_dict": {f"module.{name}": value for name, value in resnet50().state_dict().items()}}, path)
    with pytest.raises(UserError) as error:
        load_encoder(path)
    text = str(error.value)
    assert text.startswith(f"the bottleneck18 in {path} does not fit: ") and len(text) < 600 and "\n" not in text
    assert re.search(r"\d+ unexpected \(layer1\.0\.downsample\.0\.weight, .*\d+ of another shape", text)
    assert text.endswith("; try --arch resnet50")
    torch.save({"blocks.0.attn.qkv.weight": torch.zeros(3), "head.bias": torch.zeros(1)}, path)
    with pytest.raises(UserError) as error:
        load_encoder(path)
    assert "missing (conv1.weight, " in str(error.value) and len(str(error.value)) < 400
    assert "--arch" not in str(error.value)


def test_few_names():
    assert few("abc") == "a, b, c" and few("abcde") == "a, b, c and 2 more"


# --- files and folders


def test_a_split_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"train": ["é"]}', encoding="utf-8-sig")
    samples = [Sample("é", tmp_path / "é.png", split="train")]
    assert read_split(path, {"train": samples}, 1.0)["train"] == samples


def test_a_data_folder_that_has_moved(training, mine, tmp_path, monkeypatch, capsys):
    """predict.py asks for it; training goes on with the same photographs, and with no others."""
    training(mine, "--schedule", "constant")
    moved = mine.rename(tmp_path / "moved")
    checkpoint = tmp_path / "my run" / "last.pth"
    expected = f"{mine}, where the training data lay, is gone: name their folder with --data-dir"
    with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
        call(monkeypatch, predict, "--checkpoint", checkpoint, "--split", "train")
    call(monkeypatch, predict, "--checkpoint", checkpoint, "--split", "train", "--data-dir", moved)
    training(moved, "--schedule", "constant", "--epochs", 2)
    assert len(rows(tmp_path / "my run" / "log.csv")) == 2
    other = Path(shutil.copytree(moved, tmp_path / "other"))
    save(other / "masks" / "a.png", drawing(mark=1))
    with pytest.raises(UserError, match=r"--data-dir was .*moved, now .*other"):
        training(other, "--schedule", "constant", "--epochs", 3)


def test_pretraining_goes_on_with_photographs_that_have_moved(mine, tmp_path, monkeypatch):
    options = ("--image-size", 96, "--batch-size", 2, "--cache", tmp_path / "cache", "--run-dir", tmp_path / "run")
    call(monkeypatch, pretrain, "--data", mine, "--epochs", 1, *options)
    moved = mine.rename(tmp_path / "moved")
    call(monkeypatch, pretrain, "--data", moved, "--epochs", 2, *options)
    assert len(rows(tmp_path / "run" / "log.csv")) == 2
    save(moved / "images" / "a.png", NOISE // 2)
    other = moved.rename(tmp_path / "other")
    with pytest.raises(UserError, match=r"--data was .*moved.*, now .*other"):
        call(monkeypatch, pretrain, "--data", other, "--epochs", 3, *options)


def test_where_ddr_is_missing_the_advice_is_about_ddr(tmp_path, monkeypatch):
    prepared, released = places = [tmp_path / "ddr_757", tmp_path / "lesion_segmentation"]
    monkeypatch.setattr("DualScaleNet.options.DDR", places)
    monkeypatch.setattr(pretraining, "DDR", places)
    advice = rf"^no photographs: give --data FOLDER, or put DDR into {prepared} \(see Dataset/"
    with pytest.raises(UserError, match=advice):
        call(monkeypatch, pretrain, "--run-dir", tmp_path / "run")
    released.mkdir()  # as it unpacks: it is found, and empty
    with pytest.raises(UserError, match=rf"{released}"):
        call(monkeypatch, pretrain, "--run-dir", tmp_path / "run")


def test_no_commit_of_a_repository_around_this_one(tmp_path, monkeypatch):
    """As after unpacking a ZIP in one's own project."""
    inner = tmp_path / "project" / "DualScaleNet-main"
    inner.mkdir(parents=True)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for command in (("init", "-q"), (*identity, "commit", "-q", "--allow-empty", "-m", "theirs")):
        subprocess.run(["git", "-C", inner.parent, *command], check=True)
    monkeypatch.setattr(script, "ROOT", inner)
    assert git_commit() is None
    monkeypatch.setattr(script, "ROOT", inner.parent)
    assert re.fullmatch("[0-9a-f]{40}", git_commit())


def test_files_are_written_where_only_writable_ones_can_be_flushed(tmp_path, monkeypatch):
    """As on Windows."""
    fsync, flushed = os.fsync, []

    def of_windows(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        flushed.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", of_windows)
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").read_text() and flushed and len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_a_run_goes_on_in_the_precision_that_it_began_in(trees, pretrained, tmp_path, monkeypatch):
    """What auto means may change with the machine: here with a CPU that has bfloat16."""
    capabilities = {"avx512_bf16": True}
    before = load_checkpoint(pretrained / "last.pth", "pretraining")["precision"]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {} if before == "bfloat16" else capabilities)
    small = ("--image-size", 96, "--batch-size", 4, "--cache", tmp_path / "cache", "--epochs", 3)
    with pytest.raises(UserError, match=f"computes in {before}, --precision auto .* resume with --precision {before}"):
        call(monkeypatch, pretrain, "--data", trees / "ddr_757", "--run-dir", pretrained, *small)
    run = Path(shutil.copytree(pretrained, tmp_path / "run"))
    call(monkeypatch, pretrain, "--data", trees / "ddr_757", "--run-dir", run, *small, "--precision", before)
    assert len(rows(run / "log.csv")) == 3


@pytest.mark.slow
def test_segmentation_too_goes_on_in_its_precision(training, mine):
    training(mine, "--schedule", "constant", "--precision", "float32")
    with pytest.raises(UserError, match="computes in float32, --precision bfloat16 is bfloat16 on this machine"):
        training(mine, "--schedule", "constant", "--precision", "bfloat16", "--epochs", 2)
    training(mine, "--schedule", "constant", "--precision", "bfloat16", "--epochs", 2, "--resume", "force")
