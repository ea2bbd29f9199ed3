"""DDR's lesions, HRF, FIVES and REFUGE, in trees drawn as people describe them, through the scripts."""

import gzip
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_script
from PIL import Image
from test_sets import call, targets_of

from Dataset import check
from DownStream import predict, train
from DownStream.data import Photograph, read_sample
from DownStream.results import target_folder
from DownStream.sets import CATALOGUE
from DualScaleNet.common.script import UserError

pytestmark = pytest.mark.slow

COUNTS = {
    "ddr-lesions": {"train": 3, "val": 2, "test": 2},
    "hrf": {"train": 3, "test": 2},
    "fives": {"train": 3, "test": 2},
    "refuge": {"train": 3, "val": 2, "test": 2},
}


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def pixels(photograph: Photograph) -> np.ndarray:
    return photograph.image.permute(1, 2, 0).numpy()


@pytest.fixture(scope="session")
def drawn(trees: Path) -> list[Photograph]:
    """Eight photographs with vessels and a shipped field of view."""
    found = CATALOGUE["drive"].find(trees / "DRIVE", ["vessels"])
    return [read_sample(each) for samples in found.values() for each in samples]


FIRST = {"train": 0, "val": 3, "test": 5}  # of those drawn that stand in a split


def vessels(photograph: Photograph) -> np.ndarray:
    return photograph.labels["vessels"].numpy()


def write_ddr(root: Path, drawn: list[Photograph], suffix: str) -> None:
    for split, folder, labels in (("train", "train", "label"), ("val", "valid", "segmentation label"),
                                  ("test", "test", "label")):  # fmt: skip
        for k in range(COUNTS["ddr-lesions"][split]):
            place = root / "DDR-dataset" / "lesion_segmentation" / folder
            name, photograph = f"007-{len(split)}{k}74-100", drawn[FIRST[split] + k]
            save(place / "image" / f"{name}.jpg", pixels(photograph))
            for lesion in ("EX", "HE", "MA", "SE"):
                if k == 0 or lesion != "SE":
                    save(place / labels / lesion / f"{name}.{suffix}", vessels(photograph) * np.uint8(255))


def write_hrf(root: Path, drawn: list[Photograph], suffix: str) -> None:
    for k, name in enumerate(("01_dr", "01_g", "05_h", "06_dr", "15_h")):
        save(root / "HRF" / "images" / f"{name}.{'JPG' if k < 3 else 'jpg'}", pixels(drawn[k]))
        save(root / "HRF" / "manual1" / f"{name}.{suffix}", vessels(drawn[k]) * np.uint8(255))
        fov = np.repeat(drawn[k].field_of_view[..., None] * np.uint8(255), 3, 2)  # in colours
        save(root / "HRF" / "mask" / f"{name}_mask.{suffix}", fov)


def write_fives(root: Path, drawn: list[Photograph], suffix: str) -> None:
    for split in ("train", "test"):
        for k in range(COUNTS["fives"][split]):
            name, photograph = f"{k + 1}_{'ADGN'[k]}", drawn[FIRST[split] + k]
            save(root / "FIVES" / "FIVES" / split / "Original" / f"{name}.png", pixels(photograph))
            mask = np.repeat(vessels(photograph)[..., None] * np.uint8(255), 3, 2)
            save(root / "FIVES" / "FIVES" / split / "Ground truth" / f"{name}.{suffix}", mask)


def disc_and_cup(photograph: Photograph) -> np.ndarray:
    """0 cup, 128 disc, 255 background."""
    y, x = np.ogrid[: photograph.image.shape[1], : photograph.image.shape[2]]
    distance = np.hypot(y - 70, x - 60)
    return np.select([distance < 8, distance < 16], [0, 128], 255).astype(np.uint8)


def write_refuge(root: Path, drawn: list[Photograph], suffix: str) -> None:
    place = root / "REFUGE"
    folders = {
        "train": ("Training400/{}", "Annotation-Training400/Annotation-Training400/Disc_Cup_Masks/{}", "gnn"),
        "val": ("REFUGE-Validation400", "REFUGE-Validation400-GT/Disc_Cup_Masks", "VV"),
        "test": ("Test400", "REFUGE-Test-GT/Disc_Cup_Masks/{}", "TT"),
    }
    for split, (images, annotations, letters) in folders.items():
        for k, letter in enumerate(letters):
            name, photograph = f"{letter}{k + 1:04}", drawn[FIRST[split] + k]
            kind = {"g": "Glaucoma", "n": "Non-Glaucoma"}.get(letter, "GN"[k % 2])
            save(place / images.format(kind) / f"{name}.jpg", pixels(photograph))
            save(place / annotations.format(kind) / f"{name}.{suffix}", disc_and_cup(photograph))
    (place / "Annotation-Training400" / "Fovea_location.xlsx").write_bytes(b"table")


WRITERS = {"ddr-lesions": write_ddr, "hrf": write_hrf, "fives": write_fives, "refuge": write_refuge}
OFFICIAL = {"ddr-lesions": "tif", "hrf": "tif", "fives": "png", "refuge": "bmp"}
ASKED = {"ddr-lesions": ["EX", "SE"], "refuge": ["disc", "cup"]}


@pytest.mark.parametrize("name", list(WRITERS))
def test_through_the_scripts(name, drawn, tmp_path, monkeypatch, capsys):
    WRITERS[name](tmp_path, drawn, OFFICIAL[name])
    targets, entry = ASKED.get(name, targets_of(name)), CATALOGUE[name]
    found = entry.find(tmp_path, targets)
    assert {split: len(samples) for split, samples in found.items()} == COUNTS[name]
    assert all(set(each.labels) == set(targets) for samples in found.values() for each in samples)
    call(monkeypatch, check, "--dataset", name, "--root", tmp_path)
    text = capsys.readouterr().out
    expected = entry.counts["train"]
    assert "fault" not in text and "warning" not in text
    assert f"train: {COUNTS[name]['train']} photographs where the official set has {expected}: unpack the whole" in text
    call(
        monkeypatch, train, "--dataset", name, "--data-dir", tmp_path, "--target", *targets, "--encoder", "random",
        "--epochs", 1, "--batch-size", 2, "--size", 64, "--crop", 0, "--val-fraction", 0.3, "--run-dir",
        tmp_path / "run",
    )  # fmt: skip
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert len(split["val"]) == (2 if "val" in COUNTS[name] else 1) and len(split["test"]) == 2
    call(monkeypatch, predict, "--checkpoint", tmp_path / "run" / "best.pth")
    for target in targets:
        folder = target_folder(tmp_path / "run" / "predictions-test", target, targets)
        scores = json.loads((folder / "scores.json").read_text())
        assert scores["images"] == 2 and (scores["field_of_view"] == "shipped") == (name == "hrf")


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("name", list(WRITERS))
def test_labels_of_any_kind_of_file_are_what_was_drawn(name, suffix, drawn, tmp_path):
    WRITERS[name](tmp_path, drawn, suffix)
    targets = ASKED.get(name, targets_of(name))
    for split, samples in CATALOGUE[name].find(tmp_path, targets).items():
        for k, sample in enumerate(samples):
            photograph = drawn[k + (3 * (split == "test") if name == "hrf" else FIRST[split])]
            expected = dict.fromkeys(targets, vessels(photograph))
            if name == "refuge":
                values = disc_and_cup(photograph)
                expected = {"disc": values < 255, "cup": values == 0}
            if name == "ddr-lesions" and k:
                expected["SE"] = np.zeros_like(expected["SE"])
            read = read_sample(sample)
            for target in targets:
                assert np.array_equal(read.labels[target].numpy(), expected[target]), (sample.id, target)
            assert read.fov is None if name != "hrf" else torch.equal(read.fov, photograph.fov)


def test_the_common_split_of_hrf(drawn, tmp_path):
    write_hrf(tmp_path, drawn, "tif")
    found = CATALOGUE["hrf"].find(tmp_path / "HRF", ["vessels"])
    assert [each.id for each in found["train"]] == ["01_dr", "01_g", "05_h"]
    assert [each.id for each in found["test"]] == ["06_dr", "15_h"]


def test_the_disc_includes_the_cup(drawn, tmp_path):
    write_refuge(tmp_path, drawn, "bmp")
    for sample in CATALOGUE["refuge"].find(tmp_path, ["disc", "cup"])["train"]:
        disc, cup = (read_sample(sample).labels[target] for target in ("disc", "cup"))
        assert cup.any() and (disc & cup).sum() == cup.sum() < disc.sum()


def test_the_generic_set_reads_the_masks_of_refuge(drawn, tmp_path, monkeypatch, capsys):
    for k, photograph in enumerate(drawn):
        save(tmp_path / "images" / f"{k}.jpg", pixels(photograph))
        save(tmp_path / "masks" / f"{k}.bmp", disc_and_cup(photograph))
    common = ("--dataset", "generic", "--data-dir", tmp_path, "--target", "cup=0", "disc=0-128")
    call(
        monkeypatch, train, *common, "--encoder", "random", "--epochs", 1, "--crop", 64, "--run-dir", tmp_path / "run"
    )
    output = capsys.readouterr()
    assert "warning" not in output.err
    area = (disc_and_cup(drawn[0]) < 255).sum() / 20000
    assert 0.01 < area < 0.06 and "disc: " in output.out and "cup: " in output.out


def test_masks_of_which_none_belongs_to_a_photograph_are_an_error(drawn, tmp_path):
    write_ddr(tmp_path, drawn, "tif")
    folder = tmp_path / "DDR-dataset" / "lesion_segmentation" / "train" / "label" / "EX"
    for path in sorted(folder.iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(UserError, match=r"none of the 3 masks in .*EX belongs to a photograph: x007.* is there, 007"):
        CATALOGUE["ddr-lesions"].find(tmp_path, ["EX"])
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"label/EX has no masks: unpack it, or choose another --target"):
        CATALOGUE["ddr-lesions"].find(tmp_path, ["EX"])
    write_refuge(tmp_path, drawn, "bmp")
    for path in sorted((tmp_path / "REFUGE" / "REFUGE-Test-GT").rglob("*.bmp")):
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(UserError, match=r"none of the 2 masks beside .* belongs to a photograph"):
        CATALOGUE["refuge"].find(tmp_path, ["disc"])


def test_one_mask_of_another_name_is_named(drawn, tmp_path):
    """It would be an empty mask otherwise, without a word."""
    write_ddr(tmp_path, drawn, "tif")
    folder = tmp_path / "DDR-dataset" / "lesion_segmentation" / "train" / "label" / "HE"
    first = min(folder.iterdir())
    lost = first.rename(first.with_name("lost.tif"))
    result = run_script("Dataset/check.py", "--dataset", "ddr-lesions", "--root", tmp_path)
    assert f"warning: {lost} belongs to no photograph (1 of 3 masks): check its name" in result.stderr


# --- the other official sets, saved as other kinds of files


def resave(folder: Path, suffix: str) -> None:
    """Saves all images under a folder in another format."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".txt":
            name = path.name.removesuffix(".gz").rpartition(".")[0]
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            image = Image.open(io.BytesIO(content))
            path.unlink()
            kept = image.convert("L" if image.mode in ("1", "L") else "RGB")
            target = path.with_name(f"{name}.{suffix}")
            if suffix == "jpg":
                kept.save(target, quality=95)
            else:
                kept.save(target)


@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg"])
def test_official_sets_in_another_format(suffix, tmp_path):
    from test_sets import WRITERS as SIX

    for name, write in SIX.items():
        write(tmp_path / name, 3, 2, (120, 110), seed=0)
        targets = targets_of(name)
        before = CATALOGUE[name].find(tmp_path / name, targets)
        read = {each.key: read_sample(each) for samples in before.values() for each in samples}
        resave(tmp_path / name, suffix)
        after = CATALOGUE[name].find(tmp_path / name, targets)
        for sample in (each for samples in after.values() for each in samples):
            photograph = read_sample(sample)
            assert (photograph.fov is None) == (read[sample.key].fov is None)
            assert (photograph.observer is None) == (read[sample.key].observer is None)
            for target, label in read[sample.key].labels.items():
                differ = (photograph.labels[target] != label).float().mean()
                # The soft maps of Drishti-GS1 lose a little at their borders in JPEG.
                assert differ <= (0.02 if suffix == "jpg" else 0), (name, sample.id, target)
        assert sum(map(len, after.values())) == len(read)
