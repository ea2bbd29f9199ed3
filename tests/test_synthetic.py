"""Tests of the synthetic photographs: exact labels, repeatable, hard enough, and the official trees on disk."""

import gzip
import io
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import run_script
from PIL import Image

from Dataset.fundus import LESIONS, Fundus, draw_fundus, experts, second_observer
from Dataset.synthetic import (
    IDS,
    main,
    write_chase,
    write_ddr,
    write_drishti,
    write_drive,
    write_idrid,
    write_rim_one,
    write_stare,
)
from DualScaleNet.common.script import UserError

SEEDS = range(8)


@lru_cache
def eye(seed: int, width: int = 565, height: int = 584) -> Fundus:
    return draw_fundus(np.random.default_rng(seed), width, height)


def f1(prediction: np.ndarray, label: np.ndarray) -> float:
    return 2 * (prediction & label).sum() / (prediction.sum() + label.sum())


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def pixels(path: Path | io.BytesIO, kind: str, mode: str, size: tuple[int, int]) -> np.ndarray:
    """The pixels of a file, which must be of this format, mode and size (W, H)."""
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == (kind, mode, size), path
        return np.asarray(image)


def test_same_seed_same_eye_other_seed_other_eye():
    again = draw_fundus(np.random.default_rng(3), 565, 584)
    np.testing.assert_array_equal(again.image, eye(3).image)
    np.testing.assert_array_equal(again.vessels, eye(3).vessels)
    assert (again.image != eye(4).image).mean() > 0.3
    assert f1(again.vessels, eye(4).vessels) < 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_lie_where_they_must(seed):
    f = eye(seed)
    assert f.image.shape == (584, 565, 3) and f.image.dtype == np.uint8
    assert all(m.shape == (584, 565) and m.dtype == bool for m in (f.fov, f.vessels, f.disc, f.cup))
    for inner, outer in ((f.vessels, f.fov), (f.disc, f.fov), (f.cup, f.disc)):
        assert inner.any() and not (inner & ~outer).any()
    assert set(f.lesions) == set(LESIONS) and not any((m & ~f.fov).any() for m in f.lesions.values())
    assert f.image[~cv2.dilate(f.fov.astype(np.uint8), np.ones((9, 9))).astype(bool)].mean() < 20


@pytest.mark.parametrize("seed", SEEDS)
def test_vessels_cover_and_taper_as_in_real_eyes(seed):
    f = eye(seed)
    assert 0.07 < f.vessels[f.fov].mean() < 0.15
    depth = cv2.distanceTransform(np.pad(f.vessels, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    diameter = np.sqrt(4 * f.fov.sum() / np.pi)
    assert depth.max() > diameter / 160  # half the width of a trunk
    wide = cv2.morphologyEx(f.vessels.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)
    assert 0.1 < (f.vessels & ~wide).sum() / f.vessels.sum() < 0.75  # a share is finer than three pixels


def test_vessels_are_darker_than_what_lies_beside_them():
    for seed in SEEDS:
        f, green = eye(seed), eye(seed).image[..., 1].astype(np.float32)
        inside = cv2.erode(f.fov.astype(np.uint8), np.ones((15, 15))).astype(bool)
        ring = cv2.dilate(f.vessels.astype(np.uint8), np.ones((11, 11))).astype(bool)
        ring &= ~cv2.dilate(f.vessels.astype(np.uint8), np.ones((5, 5))).astype(bool)
        local = cv2.blur(green * ring, (25, 25)) / np.maximum(cv2.blur(ring.astype(np.float32), (25, 25)), 1e-3)
        assert (green < local)[f.vessels & inside].mean() > 0.75
        thin = f.vessels & ~cv2.morphologyEx(f.vessels.astype(np.uint8), cv2.MORPH_OPEN, np.ones((4, 4))).astype(bool)
        contrast = local - green
        assert contrast[thin & inside].mean() < 0.7 * contrast[f.vessels & ~thin & inside].mean()


def test_label_is_aligned_with_the_photograph():
    """Moved by three pixels in any direction the label fits the dark lines worse."""
    for seed in range(3):
        f = eye(seed)
        flat = cv2.GaussianBlur(f.image[..., 1].astype(np.float32), (0, 0), 8) - f.image[..., 1]
        fits = {(x, y): flat[np.roll(f.vessels, (y, x), (0, 1))].mean() for x in (-3, 0, 3) for y in (-3, 0, 3)}
        assert max(fits, key=fits.get) == (0, 0)


def test_a_global_threshold_does_not_solve_it():
    scores = []
    for seed in SEEDS:
        f, green = eye(seed), eye(seed).image[..., 1]
        threshold, _ = cv2.threshold(green[f.fov], 0, 255, cv2.THRESH_OTSU)
        scores.append(f1((green <= threshold) & f.fov, f.vessels))
    assert np.mean(scores) < 0.45


def test_healthy_and_diseased_left_and_right_eyes_occur():
    small = [eye(seed, 96, 96) for seed in range(16)]
    diseased = [any(m.any() for m in f.lesions.values()) for f in small]
    disc_right = [np.argwhere(f.disc)[:, 1].mean() > 48 for f in small]
    assert 0 < sum(diseased) < 16 and 0 < sum(disc_right) < 16


@pytest.mark.parametrize("width, height", [(32, 32), (97, 61), (61, 97), (96, 96), (640, 427), (1101, 1400)])
def test_any_size_and_shape(width, height):
    f = eye(1, width, height)
    assert f.image.shape == (height, width, 3) and f.vessels.shape == (height, width)
    assert 0.05 < f.vessels[f.fov].mean() < 0.2 and f.disc.any()


def test_second_observer_agrees_but_not_wholly():
    for seed in range(3):
        second = second_observer(np.random.default_rng(seed), eye(seed).vessels)
        assert 0.7 < f1(second, eye(seed).vessels) < 0.97


def test_experts_agree_but_not_wholly_and_cups_lie_in_discs():
    for seed, width in ((0, 565), (1, 565), (2, 96), (3, 64)):
        f = eye(seed, width, width)
        discs, cups = (outlines > 0 for outlines in experts(np.random.default_rng(seed), f, 4))
        assert discs.shape == cups.shape == (4, width, width) and not (cups & ~discs).any()
        assert all(cup.any() for cup in cups) and len({disc.tobytes() for disc in discs}) > 1
        assert min(f1(disc, f.disc) for disc in discs) > (0.85 if width == 565 else 0.6)
        assert width < 565 or min(f1(cup, f.cup) for cup in cups) > 0.7


def test_an_eye_has_just_the_lesions_asked_for():
    for seed, kinds in enumerate((LESIONS, ("EX",), ("MA", "SE"), ())):
        for size in (32, 96):
            f = draw_fundus(np.random.default_rng(seed), size, size, kinds)
            assert {name for name, mask in f.lesions.items() if mask.any()} == set(kinds)
            assert not any((mask & ~f.fov).any() for mask in f.lesions.values())


def test_ddr_tree(tmp_path):
    write_ddr(tmp_path, 3, 1, 2, (120, 90), seed=0)
    assert files(tmp_path / "ddr_757") == [
        *[f"test/img/test_{k:04d}.jpg" for k in (1, 2)],
        *[f"train/img/train_{k:04d}.jpg" for k in (1, 2, 3)],
        "val/img/val_0001.jpg",
    ]
    sizes = {Image.open(path).size for path in tmp_path.rglob("*.jpg")}
    assert len(sizes) > 1 and all(90 < w < 150 and 65 < h < 115 for w, h in sizes)


def test_drive_tree(tmp_path):
    write_drive(tmp_path, 2, 1, (113, 117), seed=0)
    root = tmp_path / "DRIVE"
    assert files(root) == [
        "test/1st_manual/01_manual1.gif",
        "test/2nd_manual/01_manual2.gif",
        "test/images/01_test.tif",
        "test/mask/01_test_mask.gif",
        *[f"training/1st_manual/{k}_manual1.gif" for k in (21, 22)],
        *[f"training/images/{k}_training.tif" for k in (21, 22)],
        *[f"training/mask/{k}_training_mask.gif" for k in (21, 22)],
    ]
    for path in root.rglob("*.gif"):
        mask = np.asarray(Image.open(path).convert("L"))
        assert mask.shape == (117, 113) and set(np.unique(mask)) == {0, 255}, path
    for path in root.rglob("*.tif"):
        assert np.asarray(Image.open(path)).shape == (117, 113, 3)
    label = np.asarray(Image.open(root / "training/1st_manual/21_manual1.gif").convert("L")) > 0
    fov = np.asarray(Image.open(root / "training/mask/21_training_mask.gif").convert("L")) > 0
    assert label.any() and not (label & ~fov).any()


def test_stare_tree(tmp_path):
    write_stare(tmp_path, 2, 1, (96, 88), seed=0)
    root = tmp_path / "STARE"
    numbers = ("0001", "0002", "0162")
    assert files(root) == [
        *[f"labels-ah/im{number}.ah.ppm.gz" for number in numbers],
        *[f"labels-vk/im{number}.vk.ppm.gz" for number in numbers],
        *[f"stare-images/im{number}.ppm.gz" for number in numbers],
    ]
    for number in numbers:
        zipped = {path.parent.name: path.read_bytes() for path in root.rglob(f"*{number}*")}
        unzipped = {name: io.BytesIO(gzip.decompress(content)) for name, content in zipped.items()}
        pixels(unzipped["stare-images"], "PPM", "RGB", (96, 88))
        first, second = (pixels(unzipped[name], "PPM", "L", (96, 88)) for name in ("labels-ah", "labels-vk"))
        assert set(np.unique(first)) == set(np.unique(second)) == {0, 255}
        assert 0.4 < f1(first > 0, second > 0) < 1


def test_rim_one_tree(tmp_path):
    write_rim_one(tmp_path, 4, 3, (97, 90), seed=0)
    root = tmp_path / "RIM-ONE r3"
    names = ["N-5-L", "G-1-L", "S-1-L", "N-6-R", "N-1-L", "G-2-R", "S-2-L"]
    wide, expected = {"S-1-L", "S-2-L"}, []
    for name in names:
        folder = "Healthy" if name[0] == "N" else "Glaucoma and suspects"
        photo = f"{folder}/Stereo Images/{name}.jpg"
        pair = pixels(root / photo, "JPEG", "RGB", (194, 90)).astype(int)
        aside, beside = abs(pair[:, :96] - pair[:, 98:]).mean(), abs(pair[:, :97] - pair[:, 97:]).mean()
        assert aside < 0.8 * beside  # the right half is the left one moved by a pixel
        expected.append(photo)
        for masks in ("Expert1_masks/{}-1-{}-exp1", "Expert2_masks/{}-2-{}-exp2", "Average_masks/{}-{}-Avg"):
            paths = [f"{folder}/{masks.format(name, part)}.png" for part in ("Disc", "Cup")]
            size = (194 if name in wide else 97, 90)
            disc, cup = (pixels(root / path, "PNG", "L", size) for path in paths)
            assert set(np.unique(disc)) == set(np.unique(cup)) == {0, 255} and (cup <= disc).all()
            assert not disc[:, 97:].any()
            expected += paths
    assert files(root) == sorted(expected)


def test_rim_one_names_are_those_of_the_usual_split():
    train, test = (IDS["rim-one-r3"][split] for split in ("train", "test"))
    assert len(set(train)) == 99 and len(set(test)) == 60
    assert not {name[:-2] for name in train} & {name[:-2] for name in test}


def test_drishti_tree(tmp_path):
    write_drishti(tmp_path, 3, 2, (128, 112), seed=0)
    root = tmp_path / "Drishti-GS1_files"
    expected, levels = [], set()
    for part, truth, numbers in (("Training", "GT", ("002", "004", "006")), ("Test", "Test_GT", ("001", "003"))):
        for number in numbers:
            name = f"drishtiGS_{number}"
            photo, folder = f"{part}/Images/{name}.png", f"{part}/{truth}/{name}"
            maps = [f"{folder}/SoftMap/{name}_{kind}segSoftmap.png" for kind in ("OD", "cup")]
            centre = f"{folder}/AvgBoundary/{name}_diskCenter.txt"
            expected += [photo, *maps, centre]
            pixels(root / photo, "PNG", "RGB", (128, 112))
            disc, cup = (pixels(root / path, "PNG", "L", (128, 112)) for path in maps)
            assert (cup <= disc).all() and disc.max() == 255 and cup.max() > 128
            levels |= {*np.unique(disc), *np.unique(cup)}
            row, column = map(int, (root / centre).read_text().split())
            assert disc[row, column] == 255
    assert files(root) == sorted(expected) and levels == {0, 64, 128, 191, 255}


def test_idrid_tree(tmp_path):
    write_idrid(tmp_path, 4, 2, (128, 96), seed=0)
    root = tmp_path / "IDRiD" / "A. Segmentation"
    targets = ("1. Microaneurysms", "2. Haemorrhages", "3. Hard Exudates", "4. Soft Exudates", "5. Optic Disc")
    lacking, expected, odd = {("02", "SE"), ("04", "HE"), ("04", "SE"), ("56", "SE")}, [], []
    for part, numbers in (("a. Training Set", ("01", "02", "03", "04")), ("b. Testing Set", ("55", "56"))):
        for number in numbers:
            expected.append(f"1. Original Images/{part}/IDRiD_{number}.jpg")
            pixels(root / expected[-1], "JPEG", "RGB", (128, 96))
            for target, kind in zip(targets, ("MA", "HE", "EX", "SE", "OD"), strict=True):
                if (number, kind) in lacking:
                    continue
                expected.append(f"2. All Segmentation Groundtruths/{part}/{target}/IDRiD_{number}_{kind}.tif")
                with Image.open(root / expected[-1]) as image:
                    assert image.info["compression"] == "tiff_lzw"
                    if image.mode == "RGBA":
                        odd.append((number, kind))
                        colours = np.unique(np.asarray(image).reshape(-1, 4), axis=0)
                        assert colours.tolist() == [[0, 0, 0, 255], [255, 0, 0, 255]]
                        continue
                    assert image.getpalette()[:6] == [0, 0, 0, 255, 0, 0]
                assert set(np.unique(pixels(root / expected[-1], "TIFF", "P", (128, 96)))) == {0, 1}
    assert files(root) == sorted(expected) and odd == [("55", "EX")]


def test_idrid_keeps_the_folder_of_a_lesion_that_no_eye_has(tmp_path, monkeypatch):
    monkeypatch.setattr("Dataset.synthetic.LESIONS", ("MA",))
    write_idrid(tmp_path, 1, 0, (64, 64), seed=0)
    folders = (tmp_path / "IDRiD/A. Segmentation/2. All Segmentation Groundtruths/a. Training Set").iterdir()
    assert {folder.name: len(files(folder)) for folder in folders} == {
        "1. Microaneurysms": 1, "2. Haemorrhages": 0, "3. Hard Exudates": 0, "4. Soft Exudates": 0, "5. Optic Disc": 1,
    }  # fmt: skip


def test_chase_tree(tmp_path):
    write_chase(tmp_path, 3, 2, (100, 96), seed=0)
    root = tmp_path / "CHASE_DB1"
    numbers = ("01L", "01R", "02L", "11L", "11R")
    endings = (".jpg", "_1stHO.png", "_2ndHO.png")
    assert files(root) == sorted(f"Image_{number}{ending}" for number in numbers for ending in endings)
    for number in numbers:
        pixels(root / f"Image_{number}.jpg", "JPEG", "RGB", (100, 96))
        first, second = (pixels(root / f"Image_{number}{ending}", "PNG", "1", (100, 96)) for ending in endings[1:])
        assert 0.4 < f1(first, second) < 1


@pytest.mark.parametrize(
    "write, most",
    [
        (write_stare, (10, 10)),
        (write_rim_one, (99, 60)),
        (write_drishti, (50, 51)),
        (write_idrid, (54, 27)),
        (write_chase, (20, 8)),
    ],
)
def test_no_more_photographs_than_the_set_has_names(write, most, tmp_path):
    with pytest.raises(UserError, match=f"--train {most[0] + 1}"):
        write(tmp_path, most[0] + 1, 0, (64, 64), seed=0)
    with pytest.raises(UserError, match=f"--test {most[1] + 1}"):
        write(tmp_path, 0, most[1] + 1, (64, 64), seed=0)
    assert not files(tmp_path)


def test_a_photograph_depends_on_seed_set_split_and_number_only(tmp_path):
    few, many, other = (tmp_path / name for name in ("few", "many", "other"))
    write_drive(few, 1, 1, (96, 96), seed=5)
    write_drive(many, 3, 2, (96, 96), seed=5)
    write_drive(other, 1, 1, (96, 96), seed=6)
    for name in files(few / "DRIVE"):
        assert (few / "DRIVE" / name).read_bytes() == (many / "DRIVE" / name).read_bytes()
    train, test = "DRIVE/training/images/21_training.tif", "DRIVE/test/images/01_test.tif"
    photos = [(few / train), (few / test), (many / train.replace("21", "22")), (other / train)]
    assert len({path.read_bytes() for path in photos}) == 4


def test_what_exists_is_left_alone_and_stops_all_before_the_first_file(tmp_path, monkeypatch):
    own = tmp_path / "DRIVE" / "precious.txt"
    own.parent.mkdir()
    own.write_text("mine")
    with pytest.raises(UserError, match="remove it or choose another --out"):
        write_drive(tmp_path, 1, 0, (64, 64), seed=0)
    monkeypatch.setattr("sys.argv", ["synthetic.py", "--out", str(tmp_path), "--train", "1", "--size", "64"])
    with pytest.raises(UserError, match="DRIVE exists"):
        main()
    assert files(tmp_path) == ["DRIVE/precious.txt"]


def test_all_sets_at_once_and_a_set_that_is_too_small_stops_all(tmp_path, monkeypatch, capsys):
    options = ["synthetic.py", "--out", str(tmp_path), "--size", "32", "--test", "1", "--val", "0"]
    monkeypatch.setattr("sys.argv", [*options, "--sets", "chase-db1", "stare", "--train", "11"])
    with pytest.raises(UserError, match="--train 11: stare has at most 10"):
        main()
    assert not files(tmp_path)
    monkeypatch.setattr("sys.argv", [*options, "--sets", "stare"])  # by default all of its ten
    main()
    assert "11 photographs with labels" in capsys.readouterr().out
    others = ("ddr", "drive", "rim-one-r3", "drishti-gs", "idrid", "chase-db1")
    monkeypatch.setattr("sys.argv", [*options, "--train", "1", "--sets", *others])
    main()
    folders = {"ddr_757", "DRIVE", "STARE", "RIM-ONE r3", "Drishti-GS1_files", "IDRiD", "CHASE_DB1"}
    assert {path.name for path in tmp_path.iterdir()} == folders


def test_out_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("sys.argv", ["synthetic.py", "--out", str(tmp_path / "file"), "--train", "1", "--size", "64"])
    with pytest.raises(UserError, match=r"cannot write .*file.* \(Not a directory\): make room or choose another"):
        main()


def test_command_line_from_another_folder(tmp_path):
    options = ("--out", "here", "--train", 1, "--val", 0, "--test", 1, "--size", "64x72")
    first = run_script("Dataset/synthetic.py", *options, cwd=tmp_path)
    assert first.stderr == "" and f"2 photographs with labels in {Path('here/DRIVE')}" in first.stdout
    with Image.open(tmp_path / "here/DRIVE/test/images/01_test.tif") as image:
        assert image.size == (64, 72)
    again = run_script("Dataset/synthetic.py", *options, cwd=tmp_path, code=1)
    assert len(again.stderr.splitlines()) == 1 and "remove it" in again.stderr


@pytest.mark.parametrize("bad", [("--size", "0"), ("--size", "12x"), ("--train", "-1"), ("--sets", "messidor")])
def test_bad_options_exit_with_2(bad, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["synthetic.py", "--out", str(tmp_path / "out"), *bad])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and bad[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
