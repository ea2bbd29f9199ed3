"""One decoder from several data sets, and a decoder that goes on from a trained one."""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_TRAINING, call, options_of, train

from Dataset.synthetic import write_chase, write_drishti, write_drive, write_idrid, write_stare
from DownStream import predict
from DownStream import train as train_script
from DownStream.checkpoints import load_segmentation, take_decoder
from DownStream.groups import warn_of_copies
from DownStream.loss import segmentation_loss
from DownStream.model import DECODERS, Segmenter
from DownStream.options import predict as predict_options
from DownStream.options import train as train_options
from DownStream.selection import labels_of, own_samples
from DownStream.sets.base import Sample
from DownStream.sources import fit_of, full_keys
from DownStream.training import labels_and_inside
from DownStream.training_set import input_of, read_training_set, split_samples
from DownStream.transforms import training_batch
from DualScaleNet.common.script import UserError
from DualScaleNet.encoder import Encoder

VESSELS = ("drive", "stare", "chase-db1")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small official trees: vessels of three sets, disc and cup of one, disc and lesions of another."""
    root = tmp_path_factory.mktemp("several")
    for write in (write_drive, write_stare, write_chase, write_drishti, write_idrid):
        write(root, 8, 2, (120, 110), seed=0)
    return root


def options(monkeypatch: pytest.MonkeyPatch, root: Path, *arguments: object) -> argparse.Namespace:
    """Of train.py, for data sets that all lie in `root`."""
    typed = list(map(str, arguments))
    start = typed.index("--dataset") + 1
    count = next((k for k, word in enumerate(typed[start:]) if word.startswith("--")), len(typed) - start)
    return options_of(monkeypatch, train_options, *typed, "--data-dir", *[root] * count, "--run-dir", root / "run")


def test_each_set_is_split_as_it_is_alone(official, monkeypatch):
    folds = ("--folds", 2, "--fold", 1, "--val-fraction", 0.5)
    together = split_samples(options(monkeypatch, official, "--dataset", *VESSELS, *folds))
    for name in VESSELS:
        alone = split_samples(options(monkeypatch, official, "--dataset", name, *folds))
        for split, members in alone.items():
            assert members and [f"{name}/{each.id}" for each in members] == [
                each.id for each in together[split] if each.source == name
            ]


def test_own_photographs_are_resized_as_the_set_that_they_join():
    """Padded photographs of 4288 px beside a --size of 1024 would be learned at their native scale."""
    assert fit_of(["idrid", "generic"], 1024) == fit_of(["generic"], 1024) == "square"
    assert fit_of(["drive", "generic"], 608) == fit_of(["idrid", "generic"]) == fit_of(["generic"]) == "pad"


def test_what_a_set_does_not_have_is_not_learned_from_it(official, monkeypatch, capsys):
    """IDRiD calls the disc OD and has no cup: whatever is said of the cup there, the loss is the same."""
    said = options(
        monkeypatch, official, "--dataset", "drishti-gs", "idrid", "--target", "disc", "cup", "--size", 64,
        "--val-fraction", 0, "--fov", "loss",
    )  # fmt: skip
    split = split_samples(said)
    assert "idrid has no cup" in capsys.readouterr().out
    network_input = input_of(said, split["train"])
    assert network_input.fit != "pad" and network_input.size == 64
    photographs = read_training_set(split["train"], said, network_input, torch.device("cpu"))
    for sample, photograph in zip(split["train"], photographs, strict=True):
        generator = torch.Generator().manual_seed(0)
        _, masks = training_batch([photograph], network_input, None, False, generator)
        labels, inside = labels_and_inside(masks, said)
        assert labels[:, 0].any()
        logits = torch.zeros_like(labels)
        wrong = torch.cat([logits[:, :1], logits[:, 1:] + 9], 1)
        losses = [segmentation_loss(x, labels, inside, 1.0) for x in (logits, wrong)]
        assert torch.equal(*losses) == (sample.source == "idrid")


def test_a_set_without_the_target_does_not_teach_that_there_is_nothing(official, monkeypatch):
    """Its disc, around which the ROI is cut, is no label of the cup."""
    said = options(
        monkeypatch, official, "--dataset", "drishti-gs", "idrid", "--target", "cup", "--roi", "disc",
        "--localiser", "x", "--size", 64, "--val-fraction", 0,
    )  # fmt: skip
    split = split_samples(said)
    photographs = read_training_set(split["train"], said, input_of(said, split["train"]), torch.device("cpu"))
    for sample, photograph in zip(split["train"], photographs, strict=True):
        _, ignored = photograph.masks
        assert ignored.all() if sample.source == "idrid" else not ignored.any()


def test_a_photograph_on_both_sides_of_a_split_is_named(tmp_path, capsys):
    """By its content, whatever the name of the copy."""
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path, content in zip(paths, ("1", "1", "2"), strict=True):
        path.write_text(content)
    a, b, c = (Sample(path.stem, path) for path in paths)
    warn_of_copies({"train": [a, b], "test": [c]})
    assert not capsys.readouterr().err
    warn_of_copies({"train": [a, c], "test": [b]})
    assert f"{a.image} and {b.image} are one photograph, on two sides of the split: remove" in capsys.readouterr().err


def test_photographs_are_brought_to_the_first_sets_diameter(official, tmp_path, monkeypatch):
    large = tmp_path / "large"
    write_stare(large, 4, 2, (240, 220), seed=1)
    for folders, expected in (((official, large), 110), ((large, official), 220)):
        said = options_of(
            monkeypatch, train_options, "--dataset", "stare", "stare", "--data-dir", *folders, "--run-dir", tmp_path
        )
        samples = split_samples(said)["train"]
        for listed in (samples, samples[::-1]):
            network_input = input_of(said, listed)
            assert network_input.fit == "pad" and abs(network_input.diameter - expected) < 25


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset", "drive", "stare", "--data-dir", "a"], "--data-dir names 1 folders, --dataset 2 sets"),
        (["--dataset", "drive", "generic"], "--dataset generic needs --data-dir"),
        (["--dataset", "drive", "stare", "--target", "disc"], "--target disc: drive has vessels; stare has vessels"),
        (["--dataset", "drive", "stare", "--target", "vessels=1"], "only generic's masks are read by values"),
        (["--dataset", "drishti-gs", "drive", "--roi", "disc", "--localiser", "x"], "--roi disc works with rim"),
        (["--dataset", "idrid", "--roi", "disc"], "--roi disc needs --localiser FILE"),
        (["--dataset", "idrid", "--localiser", "x"], "--localiser FILE is for --roi disc"),
        (["--dataset", "idrid", "--roi", "disc", "--localiser", "x", "--fov", "crop"], "exclude each other"),
        (["--init", "x", "--encoder", "random"], "--init brings its own encoder"),
        (["--init", "x", "--diameter", "500"], "--init brings its own encoder"),
        (["--init", "x", "--arch", "resnet18"], "--init brings its own encoder"),
        (["--fold", "2"], "--fold 2 needs --folds"),
        (["--folds", "1"], "--folds 1: must be at least 2"),
    ],
)
def test_options_that_do_not_fit(arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        options_of(monkeypatch, train_options, *arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_photographs_are_the_same_in_one_set_and_among_several():
    assert full_keys(["drive"], ["train/21"]) == full_keys(["stare", "drive"], ["train/drive/21"]) == {"train/drive/21"}
    assert full_keys(["generic", "generic"], ["train/generic-2/a-1/b"]) == full_keys(["generic"], ["train/a-1/b"])
    assert full_keys(["rim-one-r3", "drive"], ["train/rim-one-r3/N-1-L"]) == {"train/rim-one-r3/N-1-L"}


def test_generic_masks_take_the_targets_of_the_others(monkeypatch):
    for names, targets in ((("drive", "generic"), ["vessels"]), (("generic", "generic"), ["mask"])):
        said = options_of(monkeypatch, train_options, "--dataset", *names, "--data-dir", "a", "b")
        assert said.targets == targets


def test_the_same_set_twice_and_a_checkpoint_of_before(official, monkeypatch):
    said = options(monkeypatch, official, "--dataset", "drive", "drive", "--val-fraction", 0)
    assert {each.source for each in split_samples(said)["train"]} == {"drive", "drive-2"}
    saved = {"dataset": "drive", "data_dir": "/gone", "preset": "ours"}
    path = official / "old.pth"
    torch.save(
        {"format": 2, "kind": "segmentation", "dataset": "drive", "targets": ["vessels"], "options": saved}, path
    )
    content = load_segmentation(path)
    assert content["dataset"] == ["drive"] and content["options"]["data_dir"] == ["/gone"]
    with pytest.raises(UserError, match="/gone, where the training data lay, is gone"):
        own_samples(content | {"options": content["options"] | {"target": ["vessels"]}}, "test", None)


def test_values_are_of_peoples_own_masks_only(monkeypatch):
    trained = {
        "dataset": ["drive", "generic"], "targets": ["vessels"],
        "options": {"target": ["vessels=1"], "missing_labels": "skip"},
    }  # fmt: skip
    for name, typed in (("drive", ["vessels"]), ("generic", ["vessels=1"])):
        said = options_of(monkeypatch, predict_options, "--dataset", name, "--data-dir", "x")
        assert labels_of(trained, said)[0] == typed


@pytest.mark.slow
def test_through_the_scripts(official, tmp_path, monkeypatch, capsys):
    """Three sets are learned, scored together and each alone; moved folders are named anew."""
    call(
        monkeypatch, train_script, "--dataset", *VESSELS, "--data-dir", *[official] * 3, "--encoder", "random",
        "--epochs", 1, *SMALL_TRAINING, "--folds", 2, "--run-dir", tmp_path / "run",
    )  # fmt: skip
    call(monkeypatch, predict, "--checkpoint", tmp_path / "run" / "best.pth")
    output = capsys.readouterr().out
    assert "DRIVE, STARE, CHASE_DB1 training list, held-out fold 0 of 2, vessels: 12 photographs" in output
    assert all(f"{name} alone: F1 0." in output for name in VESSELS)
    out = tmp_path / "run" / "predictions-test"
    sets = json.loads((out / "scores.json").read_text())["sets"]
    assert sets.keys() == set(VESSELS)
    for each in sets.values():
        low, high = each["whole"]["pooled_interval"]["f1"]
        assert low <= each["whole"]["pooled"]["f1"] <= high
    assert "stare alone: F1 0." in (out / "report.html").read_text()
    assert len(list((out / "probability" / "drive").glob("*.png"))) == 4
    with open(out / "per_image.csv", newline="") as file:
        assert {row["image"].split("/")[0] for row in csv.DictReader(file)} == set(VESSELS)
    with pytest.raises(UserError, match="the checkpoint's sets are drive, stare, chase-db1"):
        call(monkeypatch, predict, "--checkpoint", tmp_path / "run" / "best.pth", "--data-dir", official)
    call(monkeypatch, predict, "--checkpoint", tmp_path / "run" / "best.pth", "--data-dir", *[official] * 3)


@pytest.mark.slow
def test_a_network_is_scored_where_a_set_has_its_targets(official, tmp_path, monkeypatch, capsys):
    call(
        monkeypatch, train_script, "--dataset", "drishti-gs", "idrid", "--data-dir", official, official, "--target",
        "disc", "cup", "--encoder", "random", "--epochs", 1, "--size", 64, "--batch-size", 2, "--val-fraction", 0,
        "--run-dir", tmp_path,
    )  # fmt: skip
    call(monkeypatch, predict, "--checkpoint", tmp_path / "last.pth", "--dataset", "idrid", "--data-dir", official)
    output = capsys.readouterr().out
    assert "IDRiD test, disc: 2 photographs" in output and "cup: there are no labels" in output
    call(monkeypatch, predict, "--checkpoint", tmp_path / "last.pth")
    out = tmp_path / "predictions-test"
    for name, count in (("disc", 4), ("cup", 2)):
        assert json.loads((out / name / "scores.json").read_text())["images"] == count


@pytest.mark.slow
def test_the_region_around_the_disc_of_several_sets(official, tmp_path, monkeypatch, capsys):
    """IDRiD calls the disc OD. Whoever was trained on a photograph is not scored on it without a word."""
    common = (
        "--dataset", "drishti-gs", "idrid", "--data-dir", official, official, "--encoder", "random", "--size", 64,
        "--epochs", 1, "--batch-size", 2, "--val-fraction", 0,
    )  # fmt: skip
    call(monkeypatch, train_script, *common, "--target", "disc", "--run-dir", tmp_path / "localiser")
    localiser = tmp_path / "localiser" / "last.pth"
    roi = (*common, "--target", "disc", "cup", "--roi", "disc", "--localiser", localiser)
    call(monkeypatch, train_script, *roi, "--run-dir", tmp_path / "run")
    call(monkeypatch, predict, "--checkpoint", tmp_path / "run" / "last.pth")
    assert "trained on photographs of these names" not in capsys.readouterr().out
    call(
        monkeypatch, predict, "--checkpoint", tmp_path / "run" / "last.pth", "--dataset", "idrid", "--data-dir",
        official, "--split", "train",
    )  # fmt: skip
    assert "note: trained on photographs of these names: IDRiD_" in capsys.readouterr().out
    with pytest.raises(UserError, match="held out here"):
        call(monkeypatch, train_script, *roi, "--folds", 2, "--run-dir", tmp_path / "leak")
    one = ("--dataset", "idrid", "--data-dir", official, *common[6:], "--folds", 2, "--target", "OD")
    with pytest.raises(UserError, match="held out here"):
        call(
            monkeypatch, train_script, *one, "--roi", "disc", "--localiser", localiser, "--run-dir", tmp_path / "other"
        )
    call(
        monkeypatch, train_script, "--dataset", "idrid", "--data-dir", official, "--init", localiser, "--folds", 2,
        "--target", "OD", "--epochs", 1, "--val-fraction", 0, "--run-dir", tmp_path / "init",
    )  # fmt: skip
    assert "held out here: scores on them will be too good" in capsys.readouterr().err


def test_the_decoder_goes_on_and_new_targets_begin_anew():
    torch.manual_seed(0)
    for shape in (DECODERS["compact"], DECODERS["linear"]):
        before = Segmenter(Encoder(), 2, shape=shape)
        for parameter in before.decoder.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        after = Segmenter(before.encoder, 3, shape=shape)
        content = {"targets": ["disc", "cup"], "model": before.state_dict()}
        take_decoder(after, content, ["cup", "vessels", "disc"])
        x = torch.rand(1, 3, 64, 64)
        with torch.inference_mode():
            old, new = before.eval()(x), after.eval()(x)
        assert torch.equal(new[:, [2, 0]], old) and not torch.equal(new[:, 1], old[:, 0])


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint(trees, trained, tmp_path, monkeypatch, capsys):
    """With a learning rate of next to nothing the maps are those of the checkpoint, at whose scale it works."""
    first = load_segmentation(trained / "last.pth")
    run = tmp_path / "init"
    train(trees / "DRIVE", run, "--init", trained / "last.pth", "--epochs", 1, "--lr", 1e-12, "--folds", 3)
    second = load_segmentation(run / "last.pth")
    for name, value in first["model"].items():
        if name.startswith("encoder."):
            assert torch.equal(value, second["model"][name])
        elif name.endswith("weight"):
            assert torch.allclose(value, second["model"][name], atol=1e-6)
    assert second["diameter"] == first["diameter"] and second["size"] == first["size"]
    with pytest.raises(UserError, match="another decoder: add --recipe compact"):
        call(
            monkeypatch, train_script, "--data-dir", trees / "DRIVE", "--init", trained / "last.pth", "--recipe",
            "linear", "--run-dir", tmp_path / "other",
        )  # fmt: skip
    for options, message in (
        (("--fov", "crop"), "was trained without --fov crop: do the same with --init"),
        (("--recipe", "compact-without-standardise"), "was trained by another recipe: add --recipe compact"),
    ):
        with pytest.raises(UserError, match=message):
            call(
                monkeypatch, train_script, "--data-dir", trees / "DRIVE", "--init", trained / "last.pth", *options,
                "--run-dir", tmp_path / "other",
            )  # fmt: skip
    resumed = train(trees / "DRIVE", run, "--init", trained / "last.pth", "--epochs", 2, "--lr", 1e-12, "--folds", 3)
    assert "epoch 1" in resumed.stdout + resumed.stderr
    assert np.isfinite(load_segmentation(run / "last.pth")["log"][-1]["loss"])
