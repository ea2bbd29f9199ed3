"""Tests of Dataset/check.py: what it counts, what it calls a fault, what it passes over."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import REAL, run_script
from PIL import Image

from Dataset.check import check_set, main
from DualScaleNet.common.script import UserError


def row(text: str, split: str) -> list[str]:
    """The cells of a split in the printed table, without the words "of N"."""
    (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{split} "))
    return [cell for cell in line.replace(" of ", "/").split() if cell]


@pytest.fixture
def drive(trees: Path, tmp_path: Path) -> Path:
    """A DRIVE tree to spoil."""
    return shutil.copytree(trees / "DRIVE", tmp_path / "DRIVE")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Somebody's own three photographs with masks of 0 and 1, unsplit."""
    for k in range(3):
        for folder, array in (("images", np.zeros((40, 50, 3))), ("masks", np.eye(40, 50))):
            path = tmp_path / "mine" / folder / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(path)
    return tmp_path / "mine"


def test_whole_trees_are_counted(trees, capsys):
    assert check_set("drive", trees, asked=False) == 0
    text = capsys.readouterr().out
    assert row(text, "train") == ["train", "6/20", "6", "vessels", "6", "6", "150x140"]
    assert row(text, "test") == ["test", "2/20", "2", "vessels", "2", "2", "150x140"]
    assert "train: 6 photographs where the official set has 20" in text
    assert check_set("ddr", trees, asked=False) == 0
    text = capsys.readouterr().out
    assert [row(text, split)[1:4] for split in ("train", "val", "test")] == [
        ["6/383", "6", "-"], ["2/149", "2", "-"], ["4/225", "4", "-"],
    ]  # fmt: skip
    assert "6 sizes, " in text


@pytest.mark.parametrize("depth", ["", "DRIVE", "DRIVE/DRIVE"])
def test_drive_is_found_wherever_it_lies(depth, trees, tmp_path, capsys):
    shutil.copytree(trees / "DRIVE", tmp_path / "some" / depth, dirs_exist_ok=True)
    assert check_set("drive", tmp_path / "some", asked=True) == 0
    assert "6 of 20" in capsys.readouterr().out


def test_the_tree_of_the_ddr_release(trees, tmp_path, capsys):
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        folder = tmp_path / "DDR-dataset" / "lesion_segmentation" / name
        shutil.copytree(trees / "ddr_757" / split / "img", folder / "image")
        shutil.copytree(trees / "ddr_757" / split / "img", folder / "label" / "EX")  # not to be counted
    assert check_set("ddr", tmp_path, asked=False) == 0
    text = capsys.readouterr().out
    assert [row(text, split)[1] for split in ("train", "val", "test")] == ["6/383", "2/149", "4/225"]


def test_test_photographs_without_labels_are_no_fault(drive, capsys):
    shutil.rmtree(drive / "test" / "1st_manual")
    assert check_set("drive", drive, asked=True) == 0
    text = capsys.readouterr().out
    assert row(text, "test")[2:6] == ["2", "vessels", "0", "2"]
    assert "download has none: predict.py writes maps but cannot score" in text and "--folds" in text


def test_a_training_photograph_without_label_is_a_fault(drive, capsys):
    (drive / "training" / "1st_manual" / "22_manual1.gif").unlink()
    assert check_set("drive", drive, asked=True) == 1
    assert "fault: train: no label for 22_training.tif" in capsys.readouterr().out


def test_damaged_files_and_masks_of_another_size_are_faults(drive, capsys):
    image, mask = drive / "training/images/21_training.tif", drive / "training/mask/23_training_mask.gif"
    image.write_bytes(image.read_bytes()[:5000])
    Image.new("L", (99, 98)).save(mask)
    (drive / "test/1st_manual/01_manual1.gif").write_bytes(b"no image")
    assert check_set("drive", drive, asked=True) == 3
    text = capsys.readouterr().out
    assert row(text, "train")[2] == "4" and row(text, "test")[2] == "1"
    assert str(image) in text and f"{mask} is 99x98" in text and "01_manual1.gif" in text


def test_own_photographs(mine, capsys):
    assert check_set("generic", mine, asked=True) == 0
    text = capsys.readouterr().out
    assert row(text, "train") == ["train", "3", "3", "mask", "3", "estimated", "50x40"]
    assert "official" not in text
    Image.new("L", (50, 40)).save(mine / "masks" / "1.png")
    assert check_set("generic", mine, asked=True) == 0
    text = capsys.readouterr().out
    assert "mask 3 (1 empty)" in text and "nothing is marked in a label of 1.png" in text
    (mine / "images" / "2.png").unlink()
    assert check_set("generic", mine, asked=True) == 1
    assert "belongs to no photograph" in capsys.readouterr().out


def test_a_photograph_in_two_splits_is_a_fault_and_twice_in_one_a_note(drive, capsys):
    first, second = drive / "training/images/21_training.tif", drive / "training/images/22_training.tif"
    third, other = drive / "training/images/23_training.tif", drive / "test/images/01_test.tif"
    shutil.copy(first, second)
    assert check_set("drive", drive, asked=True) == 0
    text = capsys.readouterr().out
    assert f"note: train: 1 photograph occurs more than once, {first} and {second} first: each copy counts" in text
    shutil.copy(third, other)
    assert check_set("drive", drive, asked=True) == 1
    text = capsys.readouterr().out
    assert f"fault: train and test: {third} and {other} are the same photograph: remove one" in text
    shutil.copy(first, other)
    assert check_set("drive", drive, asked=True) == 1
    assert f"{first} and {other} are the same photograph" in capsys.readouterr().out


def test_photographs_that_repeat_in_pretraining_are_noted(trees, tmp_path, capsys):
    folder = shutil.copytree(trees / "ddr_757", tmp_path / "ddr_757")
    first, *_ = sorted((folder / "train" / "img").iterdir())
    for copy in ("train/img/zz.jpg", "test/img/zz.jpg"):
        shutil.copy(first, folder / copy)
    Image.new("L", (96, 96), 255).save(drawn := folder / "train" / "img" / "drawn.png")
    assert check_set("ddr", tmp_path, asked=True) == 0
    text = capsys.readouterr().out
    assert f"note: train: {drawn} has a label's few colours: pretraining leaves it out" in text
    where = "note: train and test: 1 photograph occurs more than once"
    assert f"{where}, {first} and {folder / 'train/img/zz.jpg'} first: each copy counts" in text


def test_a_target_the_set_does_not_have(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["check.py", "--root", str(tmp_path), "--dataset", "idrid", "--target", "vessels"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "--target vessels: --dataset idrid has MA, HE" in capsys.readouterr().err


def test_a_set_that_is_not_there_fails_only_if_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["check.py", "--root", str(tmp_path)])
    main()
    assert capsys.readouterr().out.count("see Dataset/README.md") == 11
    for name in ("drive", "ddr", "generic"):
        monkeypatch.setattr("sys.argv", ["check.py", "--root", str(tmp_path), "--dataset", name])
        with pytest.raises(UserError, match="1 fault found"):
            main()


def test_command_line(drive):
    (drive / "training" / "images" / "21_training.tif").write_bytes(b"")
    result = run_script("Dataset/check.py", "--root", "..", cwd=drive, code=1)
    assert "21_training.tif" in result.stdout and "not found" in result.stdout
    assert result.stderr == "check.py: error: 1 fault found\n"  # no progress bar: this is no terminal


@pytest.mark.skipif(not (REAL / "DRIVE").is_dir(), reason="needs the real DRIVE")
def test_real_drive_as_downloaded_today(capsys):
    assert check_set("drive", REAL, asked=False) == 0
    text = capsys.readouterr().out
    assert row(text, "train") == ["train", "20/20", "20", "vessels", "20", "20", "565x584"]
    assert row(text, "test") == ["test", "20/20", "20", "vessels", "0", "20", "565x584"]
