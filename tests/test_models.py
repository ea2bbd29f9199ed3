"""Ready models: one encoder's file, decoders that share it, all targets of a photograph at once."""

import shutil
from pathlib import Path

import pytest
import timm
import torch
from conftest import SMALL_TRAINING, call, options_of, rows

from DownStream import checkpoints, predict, train
from DownStream.checkpoints import load_segmentation
from DownStream.data import read_sample
from DownStream.inference import Predictor
from DownStream.options import predict as predict_options
from DownStream.selection import chosen_files
from DownStream.sets import CATALOGUE
from DualScaleNet.common.checkpoint import load_checkpoint, save_checkpoint
from DualScaleNet.common.script import ROOT, UserError
from DualScaleNet.encoder import Encoder, save_encoder
from models import make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(trees: Path, drishti: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an encoder, and of two decoders that were trained on it: vessels, and disc and cup."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "MODELS", folder)
        patch.setattr(make, "ENCODER_FILE", folder / "encoder.pth")
        weights = tmp_path_factory.mktemp("weights") / "weights.pth"
        torch.save(timm.create_model(make.NETWORK).state_dict(), weights)
        call(patch, make, "encoder", weights)
        discs = ("--dataset", "drishti-gs", "--data-dir", drishti, "--size", 64, "--target", "disc")
        roi = ("--roi", "disc", "--localiser", folder / "runs" / "localiser" / "last.pth")
        sets = {
            "vessels": ("--data-dir", trees / "DRIVE", *SMALL_TRAINING),
            "localiser": discs,
            "disc-cup": (*discs, "cup", *roi),
        }
        for name, options in sets.items():
            run = folder / "runs" / name
            encoder = folder / "encoder.pth"
            call(patch, train, *options, "--encoder", encoder, "--epochs", 2, "--val-fraction", 0, "--run-dir", run)
            if name != "localiser":
                call(patch, make, "decoder", run / "last.pth")
    return folder


@pytest.mark.parametrize("name", ["vessels", "disc-cup"])
def test_a_decoder_is_small_and_gives_the_checkpoints_maps(name, models, trees):
    whole, small = models / "runs" / name / "last.pth", models / f"{name}.pth"
    content = load_checkpoint(small, "decoder")
    for network in (content, content["localiser"]) if name == "disc-cup" else (content,):
        assert "encoder.timm.conv_stem.weight" not in network["model"]
        assert "encoder.timm.bn1.running_var" in network["model"]
    assert str(models) not in str({name: value for name, value in content.items() if name != "model"})
    photograph = read_sample(CATALOGUE["drive"].find(trees / "DRIVE", ["vessels"])["test"][0])
    maps = [Predictor.load(load_segmentation(path), torch.device("cpu"))(photograph).maps for path in (whole, small)]
    assert not torch.equal(maps[0], torch.zeros(1)) and (maps[0] - maps[1]).abs().max() < 0.004


def test_a_decoder_without_its_encoder_is_refused(models, tmp_path):
    path = Path(shutil.copy(models / "vessels.pth", tmp_path))
    with pytest.raises(UserError, match=r"needs its encoder: put encoder\.pth beside it"):
        load_segmentation(path)
    content = load_checkpoint(models / "encoder.pth", "encoder")
    save_checkpoint(tmp_path / "encoder.pth", "encoder", content | {"epoch": 1})
    with pytest.raises(UserError, match=r"encoder\.pth is not the encoder of"):
        load_segmentation(path)


def test_a_checkpoint_of_another_encoder_gives_no_decoder(models, trees, tmp_path, monkeypatch):
    run = tmp_path / "run"
    call(
        monkeypatch, train, "--data-dir", trees / "DRIVE", "--encoder", "random", "--epochs", 1, "--run-dir", run,
        *SMALL_TRAINING, "--val-fraction", 0, "--seed", 1,
    )  # fmt: skip
    monkeypatch.setattr(make, "ENCODER_FILE", models / "encoder.pth")
    with pytest.raises(UserError, match="trained on another encoder"):
        call(monkeypatch, make, "decoder", run / "last.pth")


def test_all_models_on_one_photograph(models, trees, tmp_path, monkeypatch, capsys):
    """One row with the numbers of all targets; the maps are those of each model alone."""
    monkeypatch.setattr(predict_options, "MODELS", models)
    monkeypatch.setattr("DownStream.selection.MODELS", models)
    photograph = next((trees / "DRIVE" / "test" / "images").iterdir())
    call(monkeypatch, predict, "--images", photograph, "--model", "--out", tmp_path / "all")
    (row,) = rows(tmp_path / "all" / "summary.csv")
    assert {"vessels marked", "disc marked", "cup marked", "vertical cup-to-disc ratio"} <= row.keys()
    call(monkeypatch, predict, "--images", photograph, "--model", "vessels", "--out", tmp_path / "one")
    name = f"{photograph.stem}.png"
    both, alone = tmp_path / "all" / "vessels" / "probability" / name, tmp_path / "one" / "probability" / name
    assert both.read_bytes() == alone.read_bytes()


def test_where_nothing_is_trained_the_ready_models_are_taken(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("DownStream.selection.ROOT", tmp_path)
    monkeypatch.setattr("DownStream.selection.MODELS", models)
    monkeypatch.setattr(predict_options, "MODELS", models)
    options = options_of(monkeypatch, predict_options, "--images", "a.jpg")
    assert [path.stem for path in chosen_files(options)] == ["disc-cup", "vessels"]
    assert "ready models (--model) disc-cup, vessels" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no segmentation run .* for the ready models with --images"):
        chosen_files(options_of(monkeypatch, predict_options, "--split", "val"))


def test_a_decoder_goes_on_with_ones_own_labels(models, trees, tmp_path, monkeypatch):
    call(
        monkeypatch, train, "--data-dir", trees / "DRIVE", "--init", models / "vessels.pth", "--epochs", 1,
        *SMALL_TRAINING, "--val-fraction", 0, "--run-dir", tmp_path,
    )  # fmt: skip
    assert (tmp_path / "last.pth").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model", "vessels"], "--model is for --images"),
        (["--images", "a.jpg", "--model", "--checkpoint", "x"], "--model is for --images, and instead of --checkpoint"),
        (["--images", "a.jpg", "--model", "--threshold", "val"], "needs a checkpoint's own photographs"),
        (["--images", "a.jpg", "--model", "--threshold", "share"], "same share of every eye: give --model vessels"),
        (["--images", "a.jpg", "--model", "liver"], "invalid choice: 'liver'"),
        (["--images", "a.jpg", "--dataset", "drive"], "--images and --dataset exclude each other"),
        (["--images", "a.jpg", "--split", "val"], "--images and --split val exclude each other"),
    ],
)
def test_options_that_do_not_fit(arguments, message, models, monkeypatch, capsys):
    monkeypatch.setattr(predict_options, "MODELS", models)
    with pytest.raises(SystemExit) as stop:
        options_of(monkeypatch, predict_options, *arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_ready_model_has_no_photographs_of_its_own(models, trees, monkeypatch):
    photograph = next((trees / "DRIVE" / "test" / "images").iterdir())
    for options in ((), ("--images", photograph, "--threshold", "val")):
        with pytest.raises(UserError, match="a ready model has no photographs of its own: name others with --images"):
            call(monkeypatch, predict, "--checkpoint", models / "vessels.pth", *options)


def test_by_default_all_ready_models_predict_and_choose_no_threshold(models, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_options, "MODELS", models)
    monkeypatch.setattr("DownStream.selection.ROOT", tmp_path)  # nothing is trained there
    for choice, why in (("share", "give --model vessels"), ("val", "give --model a number")):
        options = options_of(monkeypatch, predict_options, "--images", "a.jpg", "--threshold", choice)
        with pytest.raises(UserError, match=why):
            chosen_files(options)


@pytest.mark.skipif(not (ROOT / "models" / "vessels.pth").exists(), reason="no ready models in models/")
def test_without_a_pretrained_encoder_training_takes_imagenets(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path)
    options = options_of(monkeypatch, train)
    encoder = checkpoints.initial_encoder(options)
    assert (options.encoder, options.arch) == ("imagenet", encoder.arch) == ("imagenet", "timm/tf_efficientnet_lite0")
    random = options_of(monkeypatch, train, "--encoder", "random", "--arch", encoder.arch)
    untrained = checkpoints.initial_encoder(random).state_dict()
    assert not torch.equal(untrained["timm.conv_stem.weight"], encoder.state_dict()["timm.conv_stem.weight"])
    (tmp_path / "runs" / "pretrain").mkdir(parents=True)
    save_encoder(tmp_path / "runs" / "pretrain" / "encoder.pth", Encoder("resnet18"), "paper", 1, 1)
    options = options_of(monkeypatch, train)
    assert checkpoints.initial_encoder(options).arch == options.arch == "resnet18"


def test_a_factor_is_refused_where_no_ready_model_would_heed_it(models, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_options, "MODELS", models)
    monkeypatch.setattr("DownStream.selection.MODELS", models)
    common = ("--images", tmp_path, "--scale", "native", "--model", "disc-cup")
    with pytest.raises(UserError, match=r"--scale: the network in .*disc-cup\.pth resizes every photograph"):
        call(monkeypatch, predict, *common)


def test_the_ready_models_load_and_are_small():
    files = sorted((ROOT / "models").glob("*.pth"))
    assert sum(path.stat().st_size for path in files) < 30e6
    for path in files:
        if path.stem != "encoder":
            assert load_segmentation(path)["options"].keys().isdisjoint(("data_dir", "run_dir"))
