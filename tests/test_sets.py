"""Every data set in its official tree, in the authors' prepared tree and in the generic layout, through the scripts."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REAL, call
from PIL import Image

from Dataset import check, synthetic
from DownStream import predict, train
from DownStream.data import read_sample
from DownStream.results import target_folder
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample
from DualScaleNet.common.script import UserError

pytestmark = pytest.mark.slow

WRITERS = {
    "drive": synthetic.write_drive,
    "stare": synthetic.write_stare,
    "rim-one-r3": synthetic.write_rim_one,
    "drishti-gs": synthetic.write_drishti,
    "idrid": synthetic.write_idrid,
    "chase-db1": synthetic.write_chase,
}
TARGETS = {"rim-one-r3": ["disc", "cup"], "drishti-gs": ["disc", "cup:any"], "idrid": ["EX", "SE"]}
# Folder, images, labels and the label's ending in the trees that the method's authors prepared.
PREPARED = {
    "drive": ("drive", "img", "label", "_manual1.tif"),
    "stare": ("stare", "image", "label", ".tif"),
    "rim-one-r3": ("rim", "ROIs/image", "ROIs/label", ".png"),
    "drishti-gs": ("gs", "ROIs/image", "ROIs/label", ".png"),
    "idrid": ("idrid/idrid_512", "img", "label", ".tif"),
}


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small official trees of all six sets, two or three photographs to train, two to test."""
    root = tmp_path_factory.mktemp("official")
    for write in WRITERS.values():
        write(root, 3, 2, (120, 110), seed=0)
    return root


def targets_of(name: str) -> list[str]:
    return TARGETS.get(name, list(CATALOGUE[name].default))


def run_through(monkeypatch, name: str, data: Path, run: Path, targets: list[str]) -> dict[str, dict]:
    """check.py, train.py for one epoch on crops, predict.py. Returns the scores by target."""
    call(monkeypatch, check, "--dataset", name, "--root", data, "--target", *targets)
    call(
        monkeypatch, train, "--dataset", name, "--data-dir", data, "--target", *targets, "--encoder", "random",
        "--epochs", 1, "--batch-size", 2, "--crop", 64, "--val-fraction", 0.3, "--run-dir", run,
    )  # fmt: skip
    call(monkeypatch, predict, "--checkpoint", run / "best.pth")
    out = run / "predictions-test"
    folders = {target: target_folder(out, target, targets) for target in targets}
    return {target: json.loads((folder / "scores.json").read_text()) for target, folder in folders.items()}


@pytest.mark.parametrize("name", list(WRITERS))
def test_official_tree(name, official, tmp_path, monkeypatch, capsys):
    targets = targets_of(name)
    for target, measured in run_through(monkeypatch, name, official, tmp_path / "run", targets).items():
        assert measured["images"] == 2 and 0 <= measured["measures"]["whole"]["pooled"]["pr_auc"] <= 1
        assert ("observer" in measured["measures"]["whole"]) == (name in ("drive", "stare", "chase-db1"))
        assert (measured["field_of_view"] == "shipped") == (name == "drive")
        folder = target_folder(tmp_path / "run" / "predictions-test", target, targets)
        for sample in CATALOGUE[name].find(official, targets)["test"]:
            photograph = read_sample(sample)
            size = photograph.image.shape[:0:-1]
            assert Image.open(folder / "probability" / f"{sample.id}.png").size == size
    assert "fault" not in capsys.readouterr().out


def write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask * np.uint8(255)).save(path)


def write_photograph(path: Path, sample: Sample) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(read_sample(sample).image.permute(1, 2, 0).numpy()).save(path)


@pytest.mark.parametrize("name", list(PREPARED))
def test_prepared_tree(name, official, tmp_path, monkeypatch):
    target = CATALOGUE[name].default[0]
    top, images, labels, ending = PREPARED[name]
    for split, samples in CATALOGUE[name].find(official, [target]).items():
        for sample in samples:
            stem = sample.id.split("_")[0] if name == "drive" else sample.id
            write_photograph(tmp_path / top / split / images / f"{sample.id}.png", sample)
            write_mask(tmp_path / top / split / labels / f"{stem}{ending}", read_sample(sample).labels[target].numpy())
    measured = run_through(monkeypatch, name, tmp_path, tmp_path / "run", [target])[target]
    assert measured["images"] == 2


@pytest.mark.parametrize("name", list(WRITERS))
def test_generic_layout(name, official, tmp_path, monkeypatch):
    targets = targets_of(name)
    for split, samples in CATALOGUE[name].find(official, targets).items():
        for sample in samples:
            write_photograph(tmp_path / "mine" / split / "images" / f"{sample.id}.JPG", sample)
            for target in targets:
                folder = tmp_path / "mine" / split / "masks" / (target.replace(":", "_") if len(targets) > 1 else "")
                write_mask(folder / f"{sample.id}.png", read_sample(sample).labels[target].numpy())
    names = [target.replace(":", "_") for target in targets]
    measured = run_through(monkeypatch, "generic", tmp_path / "mine", tmp_path / "run", names)
    assert [each["images"] for each in measured.values()] == [2] * len(targets)


def test_the_sets_say_what_they_looked_for(tmp_path):
    for name, entry in CATALOGUE.items():
        with pytest.raises(UserError, match="expected"):
            entry.find(tmp_path, list(entry.default))
        assert name == "generic" or entry.counts


def test_a_target_the_set_does_not_have(official, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, train, "--dataset", "stare", "--data-dir", official, "--target", "disc")
    assert stop.value.code == 2 and "--target disc: stare has vessels, vessels:vk" in capsys.readouterr().err


def test_a_missing_lesion_file_is_an_empty_mask_and_a_missing_folder_an_error(official):
    root = official / "IDRiD" / "A. Segmentation"
    found = CATALOGUE["idrid"].find(official, ["SE"])
    empty = [sample for sample in found["train"] if sample.labels["SE"].path is None]
    assert empty and not read_sample(empty[0]).labels["SE"].any()
    folder = root / "2. All Segmentation Groundtruths" / "a. Training Set" / "4. Soft Exudates"
    folder.rename(folder.with_name("elsewhere"))
    try:
        with pytest.raises(UserError, match=r"has no folder 4\. Soft Exudates"):
            CATALOGUE["idrid"].find(official, ["SE"])
    finally:
        folder.with_name("elsewhere").rename(folder)


def test_levels_of_agreement_are_nested(official):
    targets = ["disc:all", "disc", "disc:any"]
    labels = read_sample(CATALOGUE["drishti-gs"].find(official, targets)["train"][0]).labels
    areas = [int(labels[target].sum()) for target in targets]
    assert 0 < areas[0] < areas[1] < areas[2]


def test_of_a_stereo_pair_the_left_half_is_taken(official):
    for sample in CATALOGUE["rim-one-r3"].find(official, ["disc", "disc:exp1"])["train"]:
        with Image.open(sample.image) as pair:
            photograph = read_sample(sample)
            assert photograph.image.shape[2] * 2 == pair.width
            left = np.asarray(pair.convert("RGB"))[:, : pair.width // 2]
        assert np.array_equal(photograph.image.permute(1, 2, 0).numpy(), left)
        assert photograph.labels["disc"].any() and photograph.labels["disc:exp1"].shape == left.shape[:2]


def test_train_on_one_set_and_test_on_another(official, tmp_path, monkeypatch, capsys):
    call(
        monkeypatch, train, "--data-dir", official, "--encoder", "random", "--epochs", 1, "--crop", 64,
        "--batch-size", 3, "--val-fraction", 0, "--run-dir", tmp_path,
    )  # fmt: skip
    call(monkeypatch, predict, "--checkpoint", tmp_path / "last.pth", "--dataset", "stare", "--data-dir", official)
    output = capsys.readouterr().out
    assert "STARE test, vessels: 2 photographs" in output and "pooled F1 of the second observer: " in output
    with open(tmp_path / "predictions-stare-test" / "per_image.csv", newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {"im0162", "im0163"}
    with pytest.raises(UserError, match="idrid has MA, HE, EX, SE, OD, the checkpoint segments vessels"):
        call(monkeypatch, predict, "--checkpoint", tmp_path / "last.pth", "--dataset", "idrid")


@pytest.mark.skipif(not REAL.is_dir(), reason="no real photographs in ../shared/data")
def test_real_parts():
    """What is there, and what is kept back."""
    found = {name: CATALOGUE[name].find(REAL, targets_of(name)) for name in ("stare", "drishti-gs", "idrid")}
    counts = {name: {split: len(samples) for split, samples in splits.items()} for name, splits in found.items()}
    assert counts["stare"] == {"train": 10, "test": 10} and counts["idrid"] == {"train": 54, "test": 27}
    assert counts["drishti-gs"] == {"train": 50, "test": 3}
    for name, splits in found.items():
        assert all(set(sample.labels) == set(targets_of(name)) for sample in splits["train"])
        assert not any(sample.labels for sample in splits["test"])
    soft = [sample.labels["SE"].path for sample in found["idrid"]["train"]]
    assert sum(path is not None for path in soft) == 26
    vessels = read_sample(found["stare"]["train"][0]).labels["vessels"]
    assert vessels.shape == (605, 700) and 0.05 < vessels.float().mean() < 0.15


def test_the_region_around_the_disc(official, tmp_path, monkeypatch, capsys):
    """A localiser on whole photographs, then disc and cup in the square that it finds, carried in one checkpoint."""
    common = ("--dataset", "drishti-gs", "--data-dir", official, "--encoder", "random", "--val-fraction", 0)
    call(
        monkeypatch, train, *common, "--epochs", 30, "--size", 64, "--batch-size", 3, "--lr", 3e-3,
        "--run-dir", tmp_path / "localiser",
    )  # fmt: skip
    localiser = tmp_path / "localiser" / "last.pth"
    roi = (*common, "--target", "cup", "--roi", "disc", "--localiser", localiser, "--epochs", 1)
    call(monkeypatch, train, *roi, "--size", 64, "--run-dir", tmp_path / "run")
    assert [torch.load(path)["upright"] for path in (localiser, tmp_path / "run" / "last.pth")] == [False, True]
    localiser.rename(tmp_path / "elsewhere.pth")  # the new checkpoint carries it
    capsys.readouterr()
    call(monkeypatch, predict, "--checkpoint", tmp_path / "run" / "last.pth")
    text = capsys.readouterr().out
    measured = json.loads((tmp_path / "run" / "predictions-test" / "scores.json").read_text())
    assert measured["images"] == 2 and measured["notes"] == [
        line.removeprefix("note: ") for line in text.splitlines() if line.startswith("note: ")
    ]
    maps = sorted((tmp_path / "run" / "predictions-test" / "probability").iterdir())
    assert len(maps) == 2 and all((np.asarray(Image.open(path)) == 0).mean() > 0.3 for path in maps)  # outside of it

    (tmp_path / "elsewhere.pth").rename(localiser)
    with pytest.raises(UserError, match="held out here"):
        call(monkeypatch, train, *roi, "--folds", 3, "--run-dir", tmp_path / "leak")
    # A run that an older version began goes on as it began.
    older = torch.load(tmp_path / "run" / "last.pth")
    del older["upright"]
    (tmp_path / "older").mkdir()
    torch.save(older, tmp_path / "older" / "last.pth")
    more = ("--epochs", 2, "--resume", "force", "--size", 64, "--run-dir", tmp_path / "older")
    call(monkeypatch, train, *roi, *more)
    continued = torch.load(tmp_path / "older" / "last.pth")
    assert (continued["epoch"], continued["upright"]) == (2, False)
    # What carries a localiser lends it, and goes on with it.
    lent = [tmp_path / "run" / "last.pth" if option == localiser else option for option in roi]
    call(monkeypatch, train, *lent, "--size", 64, "--run-dir", tmp_path / "lent")
    init = ("--dataset", "drishti-gs", "--data-dir", official, "--target", "cup", "--roi", "disc", "--epochs", 1)
    call(
        monkeypatch, train, *init, "--val-fraction", 0, "--init", tmp_path / "run" / "last.pth",
        "--run-dir", tmp_path / "init",
    )  # fmt: skip
    carried = [torch.load(tmp_path / name / "last.pth")["localiser"]["model"] for name in ("run", "lent", "init")]
    for other in carried[1:]:
        assert all(torch.equal(value, other[name]) for name, value in carried[0].items())


def test_the_region_around_the_disc_of_idrid(official, tmp_path, monkeypatch):
    common = ("--dataset", "idrid", "--data-dir", official, "--encoder", "random", "--val-fraction", 0, "--size", 64)
    call(monkeypatch, train, *common, "--target", "OD", "--epochs", 1, "--run-dir", tmp_path / "localiser")
    roi = ("--roi", "disc", "--localiser", tmp_path / "localiser" / "last.pth", "--epochs", 1)
    call(monkeypatch, train, *common, "--target", "EX", *roi, "--run-dir", tmp_path / "run")
    assert torch.load(tmp_path / "run" / "last.pth")["localiser"]["targets"] == ["OD"]
    with pytest.raises(UserError, match="is no localiser: train one with --target OD"):
        call(monkeypatch, train, *common, "--target", "EX", "--epochs", 1, "--run-dir", tmp_path / "exudates")
        roi = ("--roi", "disc", "--localiser", tmp_path / "exudates" / "last.pth")
        call(monkeypatch, train, *common, "--target", "OD", *roi, "--run-dir", tmp_path / "wrong")


def test_the_region_around_the_disc_in_peoples_own_masks(official, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    for sample in CATALOGUE["drishti-gs"].find(official, ["disc", "cup"])["train"]:
        write_photograph(mine / "images" / f"{sample.id}.png", sample)
        for target, label in read_sample(sample).labels.items():
            write_mask(mine / "masks" / target / f"{sample.id}.png", label.numpy())
    common = ("--dataset", "generic", "--data-dir", mine, "--encoder", "random", "--val-fraction", 0, "--epochs", 1)
    localiser, run = tmp_path / "localiser" / "last.pth", tmp_path / "run"
    call(monkeypatch, train, *common, "--target", "disc", "--size", 64, "--run-dir", localiser.parent)
    call(
        monkeypatch, train, *common, "--target", "cup", "--roi", "disc", "--localiser", localiser, "--run-dir", run
    )
    trained = torch.load(run / "last.pth")
    assert (trained["fit"], trained["size"], trained["targets"]) == ("resize", 128, ["cup"])
    call(monkeypatch, predict, "--checkpoint", run / "last.pth", "--split", "train")
    assert json.loads((run / "predictions-train" / "scores.json").read_text())["images"] == 3


def test_a_disc_that_is_not_found_is_said(official, tmp_path, monkeypatch, capsys):
    common = ("--dataset", "drishti-gs", "--data-dir", official, "--encoder", "random", "--val-fraction", 0)
    small = ("--epochs", 1, "--lr", 1e-9)
    call(monkeypatch, train, *common, *small, "--size", 64, "--run-dir", tmp_path / "a")  # has learned nothing
    localiser = torch.load(tmp_path / "a" / "last.pth")
    localiser["model"]["decoder.classifier.bias"].fill_(-1000)  # and finds nothing
    torch.save(localiser, tmp_path / "a" / "last.pth")
    options = ("--roi", "disc", "--localiser", tmp_path / "a" / "last.pth")
    call(monkeypatch, train, *common, *small, *options, "--size", 64, "--run-dir", tmp_path / "b")
    call(monkeypatch, predict, "--checkpoint", tmp_path / "b" / "last.pth")
    text = capsys.readouterr().out
    assert "note: no disc was found in 2 of 2 photographs: drishtiGS_" in text
    assert json.loads((tmp_path / "b" / "predictions-test" / "scores.json").read_text())["images"] == 2


def test_folds_are_scored_together(official, tmp_path, monkeypatch, capsys):
    """Each network predicts what it held out; the pooled measures count every photograph once."""
    common = ("--data-dir", official, "--encoder", "random", "--epochs", 1, "--val-fraction", 0, "--folds", 3)
    paths = [tmp_path / f"fold{fold}" / "last.pth" for fold in range(3)]
    call(monkeypatch, train, *common, "--fold", 0, "--run-dir", paths[0].parent)
    call(monkeypatch, train, *common, "--fold", "all", "--run-dir", tmp_path)
    said = capsys.readouterr().out
    assert "fold0 is already at epoch 1" in said and "fold 2 of 3" in said
    assert f"all pooled: python DownStream/predict.py --checkpoint {' '.join(map(str, paths))}" in said
    for path in paths:
        call(monkeypatch, predict, "--checkpoint", path)
    call(monkeypatch, predict, "--checkpoint", *paths)
    pooled, rows = tmp_path / "fold0" / "predictions-test-of-3", []
    for path in paths:
        for map_file in (path.parent / "predictions-test" / "probability").iterdir():
            assert map_file.read_bytes() == (pooled / "probability" / map_file.name).read_bytes()
        with open(path.parent / "predictions-test" / "per_image.csv", newline="") as file:
            rows += list(csv.DictReader(file))
    with open(pooled / "per_image.csv", newline="") as file:
        together = list(csv.DictReader(file))
    assert len(rows) == len(together) > 2 and all(row in together for row in rows)
    measured = json.loads((pooled / "scores.json").read_text())
    assert measured["images"] == len(rows) / 2 and measured["source"].endswith("held-out fold 0 of 3 and 2 more")

    call(monkeypatch, predict, "--checkpoint", *paths, "--dataset", "drive", "--data-dir", official)
    averaged = tmp_path / "fold0" / "predictions-drive-test-of-3"
    measured = json.loads((averaged / "scores.json").read_text())
    assert measured["networks"] == 3 and "mean of 3 networks" in (averaged / "report.md").read_text()
    with open(averaged / "summary.csv", newline="") as file:
        row = next(csv.DictReader(file))
    spread = np.asarray(Image.open(averaged / "uncertainty" / f"{row['image']}.png")) / 65535
    assert 0 < float(row["vessels uncertainty"]) < 0.5 and 0 < spread.max() <= 0.5

    call(monkeypatch, predict, "--checkpoint", *paths, "--images", next(official.rglob("*_test.tif")))
    with pytest.raises(UserError, match=r"both .* predict .*: give checkpoints that hold out different"):
        call(monkeypatch, predict, "--checkpoint", *paths, "--split", "train")
    with pytest.raises(UserError, match=r"last\.pth is given twice"):
        call(monkeypatch, predict, "--checkpoint", paths[0], paths[0])
    other = torch.load(paths[1])
    other["options"] |= {"folds": None, "target": ["vessels=1"]}
    torch.save(other, paths[1])
    with pytest.raises(UserError, match="have different --folds: give folds of one training"):
        call(monkeypatch, predict, "--checkpoint", *paths)
    with pytest.raises(UserError, match="trained for vessels=1 and vessels: say by --target what the masks mean"):
        call(monkeypatch, predict, "--checkpoint", *paths, "--dataset", "drive", "--data-dir", official)
    other["targets"] = ["disc"]
    torch.save(other, paths[1])
    with pytest.raises(UserError, match="differ in their targets"):
        call(monkeypatch, predict, "--checkpoint", *paths)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        call(monkeypatch, predict, "--checkpoint", *paths, "--threshold", "val")
    assert "--threshold val needs one checkpoint" in capsys.readouterr().err


def test_the_field_of_view_in_training(official, tmp_path, monkeypatch):
    common = ("--data-dir", official, "--encoder", "random", "--epochs", 1, "--val-fraction", 0)
    losses = {}
    for name, options in {"authors": (), "loss": ("--fov", "loss"), "both": ("--fov", "loss", "crop")}.items():
        call(monkeypatch, train, *common, *options, "--run-dir", tmp_path / name)
        with open(tmp_path / name / "log.csv", newline="") as file:
            losses[name] = float(next(csv.DictReader(file))["loss"])
    assert len(set(losses.values())) == 3
    call(monkeypatch, predict, "--checkpoint", tmp_path / "both" / "last.pth")
    maps = tmp_path / "both" / "predictions-test" / "probability"
    for sample in CATALOGUE["drive"].find(official, ["vessels"])["test"]:
        probability = np.asarray(Image.open(maps / f"{sample.id}.png"))
        rows, columns = (np.flatnonzero(read_sample(sample).fov.numpy().any(axis)) for axis in (1, 0))
        outside = np.ones_like(probability, bool)
        outside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = False
        assert outside.any() and not probability[outside].any() and probability[~outside].any()


def test_a_users_own_split_wins(official, tmp_path, monkeypatch):
    split = tmp_path / "mine.json"
    common = ("--data-dir", official, "--encoder", "random", "--epochs", 1, "--crop", 64, "--split-file", split)
    split.write_text(json.dumps({"train": ["test/01_test", "23_training"], "test": ["train/21_training"]}))
    call(monkeypatch, train, *common, "--run-dir", tmp_path / "run")
    used = json.loads((tmp_path / "run" / "split.json").read_text())
    assert used == {"train": ["test/01_test", "train/23_training"], "val": [], "test": ["train/21_training"]}
    call(monkeypatch, predict, "--checkpoint", tmp_path / "run" / "last.pth")
    assert json.loads((tmp_path / "run" / "predictions-test" / "scores.json").read_text())["images"] == 1

    for content, problem in (
        ({"train": ["99_training"]}, "99_training is not in the data"),
        ({"train": ["01_test"], "val": ["01_test"]}, "01_test is listed twice"),
        ({"test": ["01_test"]}, "the list train is empty"),
        ({"train": ["01_test"], "hold": []}, "it has a list hold"),
        (["01_test"], "an object of lists"),
        ({"train": [["01_test"]]}, "an object of lists of photographs' names"),
    ):
        split.write_text(json.dumps(content))
        with pytest.raises(UserError, match=problem):
            call(monkeypatch, train, *common, "--run-dir", tmp_path / "never")
    split.write_text("{")
    with pytest.raises(UserError, match="cannot use the split file"):
        call(monkeypatch, train, *common, "--run-dir", tmp_path / "never")


def test_windows_and_augmentation_at_test_time(official, tmp_path, monkeypatch):
    call(
        monkeypatch, train, "--data-dir", official, "--encoder", "random", "--epochs", 1, "--crop", 64,
        "--val-fraction", 0, "--size", 64, "--run-dir", tmp_path,
    )  # fmt: skip
    maps = {}
    for name, options in {"plain": (), "windows": ("--window", 64), "tta": ("--tta",)}.items():
        call(monkeypatch, predict, "--checkpoint", tmp_path / "last.pth", *options, "--out", tmp_path / name)
        maps[name] = np.asarray(Image.open(tmp_path / name / "probability" / "01_test.png")).astype(float)
        measured = json.loads((tmp_path / name / "scores.json").read_text())
        assert (measured["window"], measured["tta"]) == (64 if name == "windows" else None, name == "tta")
    for name in ("windows", "tta"):
        assert 0 < np.abs(maps[name] - maps["plain"]).mean() < 0.1 * 65535
