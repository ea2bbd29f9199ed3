"""The scripts as a user runs them: subprocesses, from the root and from elsewhere, right and wrong."""

import json
import re
import shutil
from typing import get_type_hints
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from conftest import REAL, ROOT, call, options_of, pretrain, rows, run_script, same_tensors, train
from PIL import Image

from benchmarks.evaluation import sklearn_scores
from Dataset import check, synthetic
from DownStream import compare, export, features, predict
from DownStream import train as segmentation
from DownStream.recipes import OLD_NAMES, RECIPES
from DownStream.training_set import default_epochs
from DualScaleNet import main as pretraining
from DualScaleNet.common.device import autocast, grad_scaler, resolve_precision, select_device
from DualScaleNet.common.script import UserError

SCRIPTS = (
    "DualScaleNet/main.py", "DownStream/train.py", "DownStream/predict.py", "DownStream/compare.py",
    "DownStream/features.py", "DownStream/export.py",
)  # fmt: skip
REQUIRED = {compare: ["--encoders", "random"], features: "--encoder e.pth --images mine --out f.npz".split()}
VISIBLE_OPTION = re.compile(r"^  --([a-z-]+)", re.MULTILINE)


@pytest.mark.parametrize("script", [*SCRIPTS, "Dataset/check.py", "Dataset/synthetic.py"])
def test_help_from_another_folder_without_gpu(script, tmp_path):
    """Few options, in groups with a sentence each, in sentences, with the defaults that a user would type."""
    text = run_script(script, "--help", cwd=tmp_path).stdout
    assert 2 <= len(VISIBLE_OPTION.findall(text)) <= 30
    assert list(tmp_path.iterdir()) == []
    assert str(ROOT) not in text and "Path(" not in text and "(default" not in text and "None" not in text
    for title, body in re.findall(r"^(\w+):\n\n?(.*?)(?=\n\w+:\n|\Z)", text, re.MULTILINE | re.DOTALL):
        if script in SCRIPTS and title != "options":
            assert re.match(r"  [A-Z].*\.\n\n", body), body
        for option in re.split(r"^  (?=-)", body, flags=re.MULTILINE)[1:]:
            assert "-h, --help" in option or option.strip().endswith("."), option


def test_help_shows_defaults_as_typed():
    text = " ".join(run_script("DualScaleNet/main.py", "--help").stdout.split())
    assert all(f" Default: {value}." in text for value in ("Dataset/ddr_757", "train test", "0.5 0.5 0.8 0.2", "0"))


@pytest.mark.parametrize("script", [pretraining, segmentation, predict, compare, features, export, check, synthetic])
def test_options_are_declared_with_their_types(script, monkeypatch):
    """The annotations of each script's Options are what its parser returns, no more and no less."""
    options = options_of(monkeypatch, script, *REQUIRED.get(script, []))
    assert get_type_hints(type(options)).keys() == vars(options).keys()


@pytest.mark.parametrize(
    "script, arguments, message",
    [
        ("DualScaleNet/main.py", ["--epoch", "0"], "--epochs: must be a whole number of at least 1, not 0"),
        ("DualScaleNet/main.py", ["--image-size", "64"], "--image-size 64: must be at least 96"),
        ("DualScaleNet/main.py", ["--weights", "0", "0", "1", "1"], "--weights: GLOBAL or LOCAL must be above 0"),
        ("DownStream/train.py", ["--dataset", "generic"], "--dataset generic needs --data-dir"),
        ("DownStream/train.py", ["--folds", "3", "--fold", "3"], "--fold 3: with --folds 3 the last is 2"),
        ("DownStream/train.py", ["--crop", "100"], "--crop 100: must be a multiple of 32"),
        ("DownStream/predict.py", ["--threshold", "2"], "--threshold: must be above 0 and at most 1"),
    ],
)
def test_wrong_usage_is_exit_code_2(script, arguments, message):
    assert message in run_script(script, *arguments, code=2).stderr


@pytest.mark.parametrize(
    "script, arguments, message",
    [
        ("DualScaleNet/main.py", ["--data", "nowhere"], "nowhere does not exist"),
        ("DualScaleNet/main.py", ["--device", "cuda:7"], "--device cuda:7: not available here"),
        ("DownStream/train.py", ["--data-dir", "nowhere"], "no DRIVE in nowhere: expected training/images"),
        ("DownStream/predict.py", ["--checkpoint", "nowhere.pth"], "no such file: nowhere.pth"),
        ("DownStream/export.py", ["--checkpoint", "nowhere.pth", "--out", "a.pt2"], "no such file: nowhere.pth"),
        (
            "DownStream/features.py", ["--encoder", "nowhere.pth", "--images", "mine", "--out", "a.npz"],
            "no such file: nowhere.pth",
        ),
    ],
)
def test_what_is_missing_is_named_in_one_line(script, arguments, message):
    stderr = run_script(script, *arguments, code=1).stderr
    assert message in stderr and stderr.count("\n") == 1


def test_pretraining_leaves_all_that_a_run_folder_holds(pretrained):
    log = rows(pretrained / "log.csv")
    assert [row["epoch"] for row in log] == ["1", "2"]
    for row in log:
        assert row.pop("global_projection_colour") == ""  # two views of four photographs are too few
        value = {name: float(text) for name, text in row.items()}
        assert value["loss"] == pytest.approx(0.5 * value["global"] + 0.5 * value["local"], abs=1e-5)
        assert value["local"] == pytest.approx(0.8 * value["positive"] + 0.2 * value["negative"], abs=1e-4)
        assert value["lr"] == 1e-3 and value["images_per_second"] > 0
        assert 0 <= value["global_projection_std"] <= 1.01 and 1 <= value["local_prediction_rank"] <= 128
    assert Image.open(pretrained / "curves.png").width > 1000
    options = json.loads((pretrained / "args.json").read_text())["options"]
    assert options["epochs"] == 2 and options["recipe"] == "paper"
    content = torch.load(pretrained / "encoder.pth")
    assert (content["arch"], content["epoch"], content["images"]) == ("bottleneck18", 2, 10)  # train and test
    assert (pretrained / "last.pth").exists()


@pytest.mark.slow
def test_pretraining_goes_on_bit_for_bit(trees, pretrained, tmp_path):
    data = trees / "ddr_757"
    pretrain(data, tmp_path / "run", "--epochs", 1)
    assert "left out by --splits: 2 photographs of val" in pretrain(data, tmp_path / "run", "--epochs", 2).stdout
    assert same_tensors(tmp_path / "run" / "encoder.pth", pretrained / "encoder.pth", "state")
    assert same_tensors(tmp_path / "run" / "last.pth", pretrained / "last.pth", "model")
    measured = [name for name in rows(pretrained / "log.csv")[0] if name != "images_per_second"]
    for ours, theirs in zip(rows(tmp_path / "run" / "log.csv"), rows(pretrained / "log.csv"), strict=True):
        assert [ours[name] for name in measured] == [theirs[name] for name in measured]

    assert "already at epoch 2" in pretrain(data, tmp_path / "run", "--epochs", 2).stdout
    refused = pretrain(data, tmp_path / "run", "--epochs", 3, "--lr", 0.1, "--recipe", "release", code=1).stderr
    changed = "--recipe was paper, now release; --stop-gradient was True, now False; --crop was True, now False"
    assert f"{changed}; --lr was 0.001, now 0.1" in refused and "--resume never" in refused
    pretrain(data, tmp_path / "run", "--epochs", 3, "--lr", 0.1, "--resume", "force")
    assert [float(row["lr"]) for row in rows(tmp_path / "run" / "log.csv")] == [1e-3, 1e-3, 0.1]


@pytest.mark.slow
def test_the_release_recipe_with_every_option_of_ours(trees, tmp_path):
    options = ("--recipe", "release", "--arch", "resnet18", "--batch-norm", "joint", "--schedule", "cosine")
    more = ("--warmup-epochs", 1, "--precision", "bfloat16", "--weight-decay", 1e-4, "--splits", "val", "train")
    more += ("--accumulate", 2, "--grid", 2, "--augmentation", "all", "--standardise", "--weights", 0, 1, 0.5, 0.5)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "encoder-0007.pth").write_text("of a run that this one replaces")
    pretrain(trees / "ddr_757", tmp_path / "run", "--epochs", 2, "--snapshot-every", 0, 2, *options, *more)
    assert {path.name for path in (tmp_path / "run").glob("encoder-*")} == {"encoder-0000.pth", "encoder-0002.pth"}
    content = torch.load(tmp_path / "run" / "encoder-0002.pth")
    assert (content["arch"], content["recipe"], content["images"]) == ("resnet18", "release", 8)
    log = rows(tmp_path / "run" / "log.csv")
    assert float(log[0]["lr"]) == 1e-3 and float(log[1]["lr"]) < 1e-3
    assert all(float(row["loss"]) == pytest.approx(float(row["local"]), rel=1e-5) for row in log)  # GlobalFocus is off


@pytest.mark.slow
def test_a_linear_probe_is_trained_saved_and_scored(trees, tmp_path):
    train(trees / "DRIVE", tmp_path / "run", "--encoder", "random", "--recipe", "linear", "--epochs", 1)
    content = torch.load(tmp_path / "run" / "last.pth")
    trained = [name for name in content["model"] if name.startswith("decoder") and name.endswith("weight")]
    assert trained == [f"decoder.classifiers.{k}.1.weight" for k in range(5)]
    assert all(content["model"][name].any() for name in trained)  # they began at zero
    predicted = run_script("DownStream/predict.py", "--checkpoint", tmp_path / "run" / "last.pth").stdout
    assert "f1" in predicted and len(list(tmp_path.glob("run/predictions-test/probability/*.png"))) == 2


def test_recipes_set_only_what_is_left_open(monkeypatch):
    release = options_of(monkeypatch, pretraining, "--recipe", "release", "--crop")
    assert (release.stop_gradient, release.crop, release.standardise, release.lr) == (False, True, False, 1e-3)
    steady = options_of(monkeypatch, pretraining, "--recipe", "steady", "--no-standardise", "--lr", 0.1)
    assert (steady.stop_gradient, steady.augmentation, steady.standardise, steady.lr) == (True, "all", False, 0.1)

    def training_options(*arguments: object) -> tuple:
        args = options_of(monkeypatch, segmentation, *arguments)
        return args.crop, args.batch_size, args.lr, args.schedule, args.epochs

    assert training_options() == (128, 4, 3e-3, "cosine", None)  # 4000 steps, when the photographs are counted
    assert training_options("--recipe", "release") == (0, 1, 1e-3, "constant", 400)
    assert training_options("--recipe", "release", "--dataset", "drishti-gs") == (0, 2, 1e-4, "constant", 300)
    assert training_options("--dataset", "idrid", "--lr", 1)[:3] == (128, 4, 1)
    mine = ("generic", "--data-dir", "mine", "--target", "cup", "disc")
    for disc in (("drishti-gs",), ("idrid", "--target", "OD"), mine):
        options = options_of(monkeypatch, segmentation, "--dataset", *disc)
        assert (options.crop, options.size) == (0, 128)
        release = options_of(monkeypatch, segmentation, "--dataset", *disc, "--recipe", "release")
        assert (release.crop, release.size) == (0, None)
    both = options_of(monkeypatch, segmentation, "--dataset", "idrid", "--target", "EX", "OD")
    assert (both.crop, both.size) == (0, None)  # at the set's size, for the exudates, and whole, for the disc
    for own in (("--crop", 64), ("--diameter", 300)):  # the user's choice is not put on top of ours
        assert options_of(monkeypatch, segmentation, "--dataset", *mine, *own).size is None
    assert training_options("--crop", 0, "--schedule", "constant", "--epochs", 5)[0::3] == (0, "constant")


def test_without_epochs_every_data_set_is_trained_for_as_many_steps(monkeypatch):
    options = options_of(monkeypatch, segmentation)
    assert [default_epochs(options, count) for count in (1, 16, 20, 600, 20_000)] == [4000, 1000, 800, 26, 1]


def test_old_names_of_recipes_are_taken_and_the_new_ones_named(monkeypatch, capsys):
    for option, name in (("--preset", "ours"), ("--recipe", "authors"), ("--preset", "ours-without-dice")):
        new = OLD_NAMES[name]
        assert options_of(monkeypatch, segmentation, option, name).recipe == new
        assert capsys.readouterr().err == f"{option} {name} is now --recipe {new}\n"
    assert options_of(monkeypatch, segmentation, "--preset", "linear").recipe == "linear"
    assert capsys.readouterr().err == "--preset linear is now --recipe linear\n"
    assert options_of(monkeypatch, segmentation, "--recipe", "release").recipe == "release"
    assert capsys.readouterr().err == ""
    assert OLD_NAMES.keys().isdisjoint(RECIPES) and set(OLD_NAMES.values()) == RECIPES.keys() - {"linear"}


@pytest.mark.slow
def test_a_run_from_before_recipes_had_that_name_goes_on_and_predicts(trees, pretrained, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    content = torch.load(trained / "last.pth")
    assert content["options"].pop("recipe") == "compact"
    content["options"]["preset"] = "ours"
    for old in (tmp_path / "run" / "last.pth", tmp_path / "old.pth"):
        torch.save(content, old)
    common = ("--encoder", pretrained / "encoder.pth", "--folds", 3)
    refused = train(trees / "DRIVE", tmp_path / "run", *common, "--recipe", "linear", code=1).stderr
    assert "--recipe was compact, now linear" in refused
    train(trees / "DRIVE", tmp_path / "run", *common, "--epochs", 3)
    assert [row["epoch"] for row in rows(tmp_path / "run" / "log.csv")] == ["1", "2", "3"]
    assert torch.load(tmp_path / "run" / "last.pth")["options"]["recipe"] == "compact"
    run_script("DownStream/predict.py", "--checkpoint", tmp_path / "old.pth", "--out", tmp_path / "out")
    assert len(list(tmp_path.glob("out/probability/*.png"))) == 2


def test_more_processes_than_gpus_are_told_how_many_there_are(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UserError, match="this machine has 4 GPUs: start torchrun with --nproc-per-node 4"):
        select_device("cuda")


def test_precision_auto_takes_what_the_hardware_gains_by(monkeypatch):
    cpu = torch.device("cpu")
    for capabilities, expected in (
        ({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": False}, "float32"),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, "bfloat16"),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon"}, "float32"),
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, "bfloat16"),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        assert resolve_precision(cpu, "auto") == expected
    assert resolve_precision(cpu, "float16") == "float16"  # as asked, and only then gradients are scaled
    assert [grad_scaler(cpu, name).is_enabled() for name in ("float16", "bfloat16", "float32")] == [True, False, False]
    with autocast(cpu, "float16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float16
    with autocast(cpu, "float32"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_too_few_photographs(trees, tmp_path):
    stderr = pretrain(trees / "ddr_757", tmp_path / "run", "--batch-size", 64, code=1).stderr
    assert "10 photographs are fewer than --batch-size 64" in stderr
    assert not (tmp_path / "run").exists()


def test_training_leaves_all_that_a_run_folder_holds(trained):
    log = rows(trained / "log.csv")
    assert [row["epoch"] for row in log] == ["1", "2"] and all(0 <= float(row["val_pr_auc"]) <= 1 for row in log)
    split = json.loads((trained / "split.json").read_text())
    assert [len(split[name]) for name in ("train", "val", "test")] == [3, 1, 2]
    assert len({key for members in split.values() for key in members}) == 6
    for name in ("best.pth", "last.pth"):
        checkpoint = torch.load(trained / name)
        assert checkpoint["split"] == split and checkpoint["bn_stats"] == "reestimate"
    assert Image.open(trained / "curves.png").width > 500


@pytest.mark.slow
def test_training_goes_on_bit_for_bit(trees, pretrained, trained, tmp_path):
    common = ("--encoder", pretrained / "encoder.pth", "--folds", 3)
    train(trees / "DRIVE", tmp_path / "run", *common, "--epochs", 1)
    output = train(trees / "DRIVE", tmp_path / "run", *common, "--epochs", 2).stdout
    assert "the encoder is as it was: 168 tensors compared" in output
    assert same_tensors(tmp_path / "run" / "last.pth", trained / "last.pth", "model")
    refused = train(trees / "DRIVE", tmp_path / "run", *common, "--epochs", 3, "--fold", 1, code=1).stderr
    assert "--fold was 0, now 1" in refused


@pytest.mark.slow
def test_a_run_whose_labels_were_corrected_goes_on_only_by_force(trees, tmp_path):
    data, run = shutil.copytree(trees / "DRIVE", tmp_path / "DRIVE"), tmp_path / "run"
    train(data, run, "--encoder", "random", "--epochs", 1)
    label = next((data / "training" / "1st_manual").iterdir())
    label.write_bytes(label.read_bytes() + b"corrected")
    refused = train(data, run, "--encoder", "random", "--epochs", 2, code=1).stderr
    assert "holds other photographs or labels than when" in refused
    train(data, run, "--encoder", "random", "--epochs", 2, "--val-fraction", 0, "--resume", "force")
    assert not (run / "best.pth").exists()  # nothing is validated any more


def test_prediction_can_be_recomputed_from_its_files(trees, trained):
    """Every map at native size, and the figures of the table from the saved 16-bit maps with scikit-learn."""
    output = run_script("DownStream/predict.py", "--checkpoint", trained / "best.pth").stdout
    out = trained / "predictions-test"
    measured = json.loads((out / "scores.json").read_text())
    ids = [key.split("/")[1] for key in json.loads((trained / "split.json").read_text())["test"]]
    folder = trees / "DRIVE" / "training"

    levels, labels, inside = [], [], []
    for name in ids:
        probability = np.asarray(Image.open(out / "probability" / f"{name}.png"))
        mask = np.asarray(Image.open(out / "mask" / f"{name}.png"))
        label = np.asarray(Image.open(folder / "1st_manual" / f"{name.split('_')[0]}_manual1.gif").convert("L")) > 0
        assert probability.dtype == np.uint16 and probability.shape == mask.shape == label.shape == (140, 150)
        assert np.array_equal(mask > 0, probability >= 32768) and set(np.unique(mask)) <= {0, 255}
        assert Image.open(out / "overlay" / f"{name}.png").size == (150, 140)
        levels.append(probability.ravel()), labels.append(label.ravel())
        inside.append(np.asarray(Image.open(folder / "mask" / f"{name}_mask.gif").convert("L")).ravel() > 0)
    levels, labels, inside = map(np.concatenate, (levels, labels, inside))
    per_image = {(row["region"], row["image"]): row for row in rows(out / "per_image.csv")}
    assert len(per_image) == 2 * len(ids)
    for region, chosen in (("whole", np.ones_like(inside)), ("fov", inside)):
        pooled = measured["measures"][region]["pooled"]
        expected = sklearn_scores(levels[chosen] / 65535, labels[chosen], 32768 / 65535)
        assert pooled == pytest.approx(expected, abs=1e-9)
        assert all(f"{value:.4f}" in output for value in expected.values())
        parts = zip(ids, *(np.split(array, len(ids)) for array in (levels, labels, chosen)), strict=True)
        each = {id: sklearn_scores(a[here] / 65535, b[here], 32768 / 65535) for id, a, b, here in parts}
        for name, mean in measured["measures"][region]["per_image"].items():
            values = [each[id][name] for id in ids]
            assert [float(per_image[region, id][name]) for id in ids] == pytest.approx(values, abs=1e-9)
            assert (mean["mean"], mean["std"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)), abs=1e-9)
    heading = "# DRIVE training list, held-out fold 0 of 3: vessels"
    for name, title in (("report.html", "<!DOCTYPE html>"), ("report.md", heading)):
        text = (out / name).read_text()
        assert text.startswith(title) and f"{measured['measures']['whole']['pooled']['f1']:.4f}" in text


@pytest.mark.slow
def test_a_threshold_is_chosen_on_validation_images_only_and_named(trained, tmp_path):
    output = run_script(
        "DownStream/predict.py", "--checkpoint", trained / "best.pth", "--threshold", "val", "--out", tmp_path
    ).stdout
    measured = json.loads((tmp_path / "scores.json").read_text())
    assert measured["threshold_from"] == "val" and 0 < measured["threshold"] <= 1
    assert f"threshold {measured['threshold']:.4g} chosen on val" in output


def test_a_threshold_is_chosen_by_the_share_that_training_labels_mark(trees, trained, tmp_path, monkeypatch):
    checkpoint = torch.load(trained / "best.pth")
    fields, marked, labels = 0, 0, []
    for key in checkpoint["split"]["train"]:
        number = key.removeprefix("train/").removesuffix("_training")
        drawn = [next((trees / "DRIVE" / "training").glob(f"{folder}/{number}_*")) for folder in ("mask", "1st_manual")]
        fov, label = (np.asarray(Image.open(path)) > 0 for path in drawn)
        labels.append((fov & label).sum() / fov.sum())
    assert checkpoint["marked"] == {"vessels": pytest.approx(np.mean(labels))}

    options = ("--checkpoint", trained / "best.pth", "--threshold", "share", "--out", tmp_path / "out")
    call(monkeypatch, predict, *options)
    measured = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert measured["threshold_from"] == "share"
    for path in (tmp_path / "out" / "mask").iterdir():
        (mask,) = (trees / "DRIVE" / "training" / "mask").glob(f"{path.stem[:2]}_*")
        fov = np.asarray(Image.open(mask)) > 0
        fields, marked = fields + fov.sum(), marked + (fov & (np.asarray(Image.open(path)) > 0)).sum()
    assert marked / fields == pytest.approx(checkpoint["marked"]["vessels"], rel=0.02)

    photograph = next((trees / "DRIVE" / "test" / "images").iterdir())
    call(monkeypatch, predict, *options, "--images", photograph)
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "so that as large a share is marked as in the training labels" in page
    del checkpoint["marked"]
    torch.save(checkpoint, tmp_path / "old.pth")
    with pytest.raises(UserError, match=r"share: .*old\.pth does not say how much .* labels of vessels mark: train"):
        call(monkeypatch, predict, "--checkpoint", tmp_path / "old.pth", "--threshold", "share")


def test_drawings_and_dark_photographs_do_not_decide_the_threshold(trees, trained, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    options = ("--checkpoint", trained / "best.pth", "--threshold", "share", "--out", tmp_path / "out")
    thresholds = []
    for name in ("21_training.tif", "drawing.png", "black.png"):
        if name.startswith("21"):
            shutil.copy(trees / "DRIVE" / "training" / "images" / name, tmp_path / "mine")
        else:
            pixels = np.zeros((140, 150, 3), np.uint8)
            pixels[40:80, 30:90] = (0, 255, 0) if name == "drawing.png" else 2
            Image.fromarray(pixels).save(tmp_path / "mine" / name)
        call(monkeypatch, predict, *options, "--images", tmp_path / "mine")
        page = (tmp_path / "out" / "index.html").read_text("utf-8")
        thresholds += re.findall(r"([0-9.]+), so that as large a share", page)
    assert len(thresholds) == 3 and len(set(thresholds)) == 1
    with pytest.raises(UserError, match="no photograph can be read that is not doubtful"):
        call(monkeypatch, predict, *options, "--images", tmp_path / "mine" / "black.png")


def test_photographs_without_labels(trained, tmp_path):
    """A stranger's folder, from another working folder: nested, odd names, other sizes, one grey."""
    for path, mode, size in (("mine/Eye 1.JPG", "RGB", (97, 61)), ("mine/left/ü.png", "L", (40, 200))):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 40).convert(mode).save(tmp_path / path)
    (tmp_path / "mine" / "Thumbs.db").touch()
    options = ("--images", "mine", "--out", "out", "--map-format", "npy")
    output = run_script("DownStream/predict.py", "--checkpoint", trained / "last.pth", *options, cwd=tmp_path).stdout
    assert "2 photographs (mine): maps, masks and overlays" in output and "nothing to score" in output
    probability = np.load(tmp_path / "out" / "probability" / "Eye 1.npy")
    mask = np.asarray(Image.open(tmp_path / "out" / "mask" / "Eye 1.png"))
    assert probability.dtype == np.float32 and probability.shape == mask.shape == (61, 97)
    assert np.array_equal(mask > 0, np.rint(probability * 65535) >= 32768)
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    links = {unquote(link) for link in re.findall(r'(?:href|src)="([^"]*)"', page)}
    files = {f"{folder}/{name}" for name in ("Eye 1", "left/ü") for folder in ("overlay", "mask", "thumbnails")}
    assert {link.rpartition(".")[0] for link in links} == files
    assert all((tmp_path / "out" / link).exists() for link in links)
    assert Image.open(tmp_path / "out" / "mask" / "left" / "ü.png").size == (40, 200)
    assert not (tmp_path / "out" / "scores.json").exists()
    assert "of the field of view is marked (median" in output
    summary = {row["image"]: row for row in rows(tmp_path / "out" / "summary.csv")}
    assert (summary["left/ü"]["width"], summary["left/ü"]["height"]) == ("40", "200")
    assert 0 <= float(summary["Eye 1"]["vessels marked"]) <= 1


@pytest.mark.slow
def test_a_damaged_photograph_among_many_is_named_and_left_out(trained, tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("a", "b", "c"):
        Image.effect_noise((64, 64), 40).convert("RGB").save(tmp_path / "mine" / f"{name}.jpg")
    (tmp_path / "mine" / "b.jpg").write_bytes(b"no photograph")
    result = run_script(
        "DownStream/predict.py", "--checkpoint", trained / "last.pth", "--images", tmp_path / "mine",
        "--out", tmp_path / "out", code=1,
    )  # fmt: skip
    assert [row["image"] for row in rows(tmp_path / "out" / "summary.csv")] == ["a", "c"]
    assert f"left out: cannot read {tmp_path / 'mine' / 'b.jpg'}" in result.stderr
    assert "1 of 3 photographs could not be read or predicted and were left out" in result.stderr


@pytest.mark.slow
def test_finetuning_a_random_encoder_on_the_generic_layout(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        for folder, array in (
            ("images", rng.integers(0, 256, (70, 80, 3), np.uint8)), ("masks", rng.integers(0, 2, (70, 80), np.uint8)),
        ):
            (tmp_path / "mine" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "mine" / folder / f"{i}.png")
    (tmp_path / "mine" / "fov").mkdir()
    Image.new("L", (80, 70)).save(tmp_path / "mine" / "fov" / "0.png")  # an empty one is as good as none
    run_script(
        "DownStream/train.py", "--dataset", "generic", "--data-dir", "mine", "--encoder", "random", "--finetune",
        "--epochs", 1, "--val-fraction", 0, "--run-dir", "run", cwd=tmp_path,
    )  # fmt: skip
    assert not (tmp_path / "run" / "best.pth").exists()  # nothing to choose it by: the last epoch counts
    predict = ("DownStream/predict.py", "--checkpoint", tmp_path / "run" / "last.pth")
    assert "split test is empty: choose --split train" in run_script(*predict, code=1).stderr
    output = run_script(*predict, "--split", "train").stdout
    assert "pr_auc" in output and "field-of-view mask estimated for 3 photographs" in output


@pytest.mark.slow
def test_imagenet_weights_offline_say_where_to_put_the_file(trees, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens: offline
    options = ("--encoder", "imagenet", "--arch", "resnet18")
    stderr = train(trees / "DRIVE", tmp_path / "run", *options, code=1).stderr
    assert str(tmp_path / "hub" / "checkpoints" / "resnet18-") in stderr and "https://" in stderr
    options = ("--encoder", "imagenet", "--arch", "bottleneck18")
    stderr = train(trees / "DRIVE", tmp_path / "run", *options, code=1).stderr
    assert "no ImageNet weights for --arch bottleneck18" in stderr
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = ("--encoder", "imagenet", "--arch", "timm/tf_efficientnet_lite0")
    stderr = train(trees / "DRIVE", tmp_path / "run", *options, code=1).stderr
    assert "timm cannot make tf_efficientnet_lite0 (" in stderr and stderr.count("\n") == 1


@pytest.mark.slow
def test_a_network_of_timm_is_trained_on_and_predicts(trees, tmp_path):
    options = ("--encoder", "random", "--arch", "timm/mobilenetv3_small_050", "--epochs", 2, "--val-fraction", 0)
    train(trees / "DRIVE", tmp_path / "run", *options)
    predict = ("DownStream/predict.py", "--checkpoint", tmp_path / "run" / "last.pth", "--split", "train")
    assert "pr_auc" in run_script(*predict).stdout
    run_script("DownStream/export.py", "--checkpoint", tmp_path / "run" / "last.pth", "--out", tmp_path / "net.pt2")


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "DRIVE").is_dir(), reason="no real photographs in ../shared/data")
def test_real_drive_test_photographs_without_labels(pretrained, tmp_path):
    options = ("--encoder", pretrained / "encoder.pth", "--epochs", 1, "--label-fraction", 0.1, "--val-fraction", 0)
    train(REAL / "DRIVE", tmp_path / "run", *options)
    output = run_script("DownStream/predict.py", "--checkpoint", tmp_path / "run" / "last.pth").stdout
    assert "there are no labels, so there is nothing to score" in output
    maps = sorted((tmp_path / "run" / "predictions-test" / "probability").iterdir())
    assert len(maps) == 20 and Image.open(maps[0]).size == (565, 584)


def test_the_page_of_options_is_what_the_parsers_say():
    run_script("docs/usage.py", "--check")
