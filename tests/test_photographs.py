"""Photographs as people have them: labels among them, other formats, DICOM, 12 bits, white surroundings."""

import io
import os
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REAL, rows
from PIL import Image
from test_sets import WRITERS, call

from Dataset.fundus import draw_fundus
from DownStream import predict
from DownStream.data import read_sample
from DownStream.fov import estimate_fov
from DownStream.model import DECODERS, Segmenter
from DownStream.selection import photographs_in
from DownStream.sets.base import Sample
from DualScaleNet.common import photographs as finder
from DualScaleNet.common.checkpoint import save_checkpoint
from DualScaleNet.common.drawings import is_drawing
from DualScaleNet.common.files import common_bits, read_image
from DualScaleNet.common.photographs import find_photographs, skipped_line
from DualScaleNet.common.processes import Processes
from DualScaleNet.common.script import UserError
from DualScaleNet.common.surroundings import black_surroundings
from DualScaleNet.data import load_photographs
from DualScaleNet.encoder import Encoder
from DualScaleNet.pretrain import open_photographs

ALL = ["train", "val", "test"]
EYES = [draw_fundus(np.random.default_rng(seed), 120, 110) for seed in range(3)]
MASK = np.uint8(EYES[0].fov) * 255


def save(path: Path, array: np.ndarray = EYES[0].image, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in find_photographs([folder], ALL).photographs}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of vessels that has learned nothing."""
    torch.manual_seed(0)
    model = Segmenter(Encoder(), 1, shape=DECODERS["compact"])
    content = {
        "model": model.state_dict(), "arch": "bottleneck18", "scaling": "unit", "targets": ["vessels"], "fit": "pad",
        "size": 64, "standardise": True, "decoder": "compact", "dataset": "drive", "epoch": 1,
    }  # fmt: skip
    save_checkpoint(path := tmp_path_factory.mktemp("run") / "best.pth", "segmentation", content)
    return path


@pytest.fixture
def predicted(checkpoint, tmp_path, monkeypatch):
    """Calls predict.py with --images and returns the names in summary.csv."""

    def run(*arguments: object, out: Path = tmp_path / "out") -> list[str]:
        call(monkeypatch, predict, "--checkpoint", checkpoint, "--out", out, "--images", *arguments)
        return [row["image"] for row in rows(out / "summary.csv")]

    return run


# --- labels among photographs


@pytest.mark.parametrize("name", list(WRITERS))
def test_the_labels_of_the_official_trees_are_skipped(name, tmp_path):
    WRITERS[name](tmp_path, 3, 2, (48, 44), seed=0)
    photographs, _, others = find_photographs([tmp_path], ALL)
    assert len(photographs) == 5
    drawn = sum(path.suffix in (".png", ".gif", ".tif", ".gz", ".jpg") for path in tmp_path.rglob("*")) - 5
    assert {kind: len(paths) for kind, paths in others.items()} == {finder.LABEL_BY_NAME: drawn}


TREES = {
    "HRF": ("images/01_dr.JPG", "images/01_h.jpg", "-manual1/01_dr.tif", "-mask/01_dr_mask.tif"),
    "FIVES": ("train/Original/1_A.png", "-train/Ground truth/1_A.png"),
    "REFUGE": (
        "Training400/Glaucoma/g0001.jpg", "-Annotation-Training400/Disc_Cup_Masks/Glaucoma/g0001.bmp",
        "REFUGE-Validation400/V0001.jpg", "-REFUGE-Validation400-GT/Disc_Cup_Masks/V0001.bmp",
        "Test400/T0001.jpg", "-REFUGE-Test-GT/Disc_Cup_Masks/G/T0001.bmp",
    ),
    "DDR": (
        "lesion_segmentation/train/image/007-1774-100.jpg", "-lesion_segmentation/train/label/EX/007-1774-100.tif",
        "lesion_segmentation/valid/image/a.jpg", "-lesion_segmentation/valid/segmentation label/EX/a.tif",
        "DR_grading/train/007-1774-100.jpg",
    ),
    "RIM-ONE DL": ("Glaucoma/r1_Im001.png", "-Glaucoma/r1_Im001-1-Disc-T.png", "-Glaucoma/r1_Im001-1-Cup-T.png"),
    "mine": ("images/a.png", "-masks/EX/a.png", "-fov/a.png", "images and masks/b.png", "with labels/images/c.png"),
    "right eyes": ("smith_OD.jpg", "smith_OS.jpg", "brown-OD.png", "EX.jpg", "unlabelled/Manual grading/MA 1.jpg"),
    "together": ("a.png", "-a_mask.png", "-a-label.PNG", "-a.gt.png", "-a_manual1.gif", "-mask.png", "mask1.png"),
    "results": (
        "a.jpg", "-predictions-test/probability/a.png", "-predictions-test/mask/a.png", "-out/EX/overlay/a.png",
        "-out/EX/mask/a.png", "-out/thumbnails/a.jpg", "-runs/segment/x/curves.png", "-comparison/curve.png",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(TREES))
def test_labels_and_results_are_known_by_their_folders_and_names(name, tmp_path):
    """A dash marks what is skipped. The folder's own name says nothing."""
    folder = tmp_path / "labels"
    touch(folder, *(file.lstrip("-") for file in TREES[name]))
    assert found(folder) == {file for file in TREES[name] if not file.startswith("-")}
    others = find_photographs([folder], ALL).skipped
    assert sum(map(len, others.values())) == sum(file.startswith("-") for file in TREES[name])


def test_what_is_skipped_is_said_in_one_line(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "a_mask.png", "b_mask.png", "scan.heic", "slide.SVS", "maps.npy", "predictions-x/a.png")
    touch(tmp_path, "uncertainty/a.npy", "uncertainty/scores.json")
    touch(tmp_path, "Thumbs.db", "notes.txt", "grades.csv", "README", ".hidden.jpg", ".git/b.jpg", "private/c.jpg")
    closed, scandir = tmp_path / "private", os.scandir

    def refusing(path: Path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    photographs, _, others = find_photographs([tmp_path], ALL)
    assert photographs == [tmp_path / "a.jpg"]
    assert skipped_line(others) == (
        f"skipped: 2 files with a label's name ({tmp_path}/a_mask.png first); "
        f"1 .npy file, a format that is not read ({tmp_path}/maps.npy); "
        f"1 .heic file, a format that is not read ({tmp_path}/scan.heic); "
        f"1 .svs file, a format that is not read ({tmp_path}/slide.SVS); "
        f"2 files written by this program ({tmp_path}/predictions-x/a.png first); "
        f"1 folder that cannot be opened ({closed})"
    )
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"no photographs in .* \(skipped: 2 files with a label's name .*\)"):
        find_photographs([tmp_path], ALL)


def jpeg(array: np.ndarray, quality: int = 60) -> np.ndarray:
    Image.fromarray(array).save(buffer := io.BytesIO(), "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


VESSELS = np.uint8(EYES[0].vessels) * 255
LABELS = {
    "0 and 1": VESSELS // 255,
    "inverted": 255 - VESSELS,
    "blank": VESSELS * 0,
    "JPEG": jpeg(np.kron(VESSELS, np.ones((4, 4), np.uint8))),
    "resized": np.asarray(Image.fromarray(MASK).resize((333, 300), Image.Resampling.LANCZOS)),
    "colours": np.stack([VESSELS, VESSELS * 0, 255 - VESSELS], -1),
    "16 bits": VESSELS.astype(np.uint16) * 257,
}


def test_labels_are_known_by_their_few_colours():
    for name, label in LABELS.items():
        assert is_drawing(label), name
    for eye in EYES:
        grey = np.asarray(Image.fromarray(eye.image).convert("L"))
        for photograph in (eye.image, grey, jpeg(eye.image, 30), grey.astype(np.uint16) << 4):
            assert not is_drawing(photograph) and not is_drawing(photograph // 4)


def test_pretraining_passes_over_labels_that_only_their_colours_tell(tmp_path, capsys):
    """Found while decoding; the next run has it from the cache. Their names would let them pass."""
    for k, eye in enumerate(EYES):
        save(tmp_path / "mine" / f"{k}.png", eye.image)
        save(tmp_path / "mine" / "av" / f"{k}.png", VESSELS)
    save(tmp_path / "mine" / "0_mask.png", MASK)
    options = Namespace(data=[tmp_path / "mine"], splits=ALL, recipe="paper", image_size=32, max_bad=0)
    options.cache = tmp_path / "cache"
    for _ in range(2):
        opened = open_photographs(options, Processes())
        assert [path.name for path in opened.paths] == ["0.png", "1.png", "2.png"] and len(opened.array) == 3
        assert capsys.readouterr().out.splitlines()[-1] == (
            f"skipped: 1 file with a label's name ({tmp_path}/mine/0_mask.png); "
            f"3 files with a label's few colours, or blank ({tmp_path}/mine/av/0.png first)"
        )
    options.data = [tmp_path / "mine" / "av"]
    with pytest.raises(UserError, match=r"no photographs: no file is readable but labels, .*av/0\.png first"):
        open_photographs(options, Processes())


def test_a_folder_of_a_relative_and_of_an_absolute_path_has_the_same_cache(tmp_path, monkeypatch):
    for name in "abc":
        save(tmp_path / "mine" / f"{name}.jpg")
    Image.new("L", (96, 96), 255).save(tmp_path / "mine" / "b_drawn.png")
    monkeypatch.chdir(tmp_path)
    for folder in (Path("mine"), tmp_path / "mine"):
        found = load_photographs(sorted(folder.iterdir()), 96, True, tmp_path / "cache", 0.5)
        assert [path.name for path in found.paths] == ["a.jpg", "b.jpg", "c.jpg"] and len(found.array) == 3
        assert found.labels == [folder / "b_drawn.png"]
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_a_broken_link_among_photographs_is_named_and_left_out(checkpoint, tmp_path, monkeypatch, capsys):
    for clinic in ("a", "b"):  # folders of the same name have results of their own
        save(tmp_path / clinic / "images" / "1.png")
        (tmp_path / clinic / "images" / "2.png").symlink_to(tmp_path / "nowhere.png")
        with pytest.raises(UserError, match="1 of 2 photographs could not be read"):
            call(monkeypatch, predict, "--checkpoint", checkpoint, "--images", tmp_path / clinic / "images")
        assert f"left out: cannot read {tmp_path / clinic / 'images' / '2.png'}" in capsys.readouterr().err
        results = checkpoint.parent / f"predictions-{clinic}-images"
        assert [row["image"] for row in rows(results / "summary.csv")] == ["1"]
    call(monkeypatch, predict, "--checkpoint", checkpoint, "--images", save(tmp_path / "3.png"), "--out", results)
    expected = f"{results} holds other photographs' results too (1): summary.csv will be of today's alone"
    assert expected in capsys.readouterr().err


@pytest.mark.skipif(not REAL.is_dir(), reason="no real photographs in ../shared/data")
def test_every_real_photograph_is_taken_and_no_label():
    counts = {"eyepacs_770": 770, "idrid_grading_516": 516, "CHASE_DB1": 28, "DRIVE": 40, "STARE": 20, "IDRiD": 81}
    for name, count in counts.items():
        photographs, _, others = find_photographs([REAL / name], ALL)
        assert len(photographs) == count
        for path in photographs[:: 1 + count // 20]:
            image = read_image(path)
            assert not is_drawing(image) and black_surroundings(image) is image, path
        for path in others.get(finder.LABEL_BY_NAME, [])[::9]:
            assert is_drawing(read_image(path)), path
        assert others.keys() <= {finder.LABEL_BY_NAME}


# --- 10, 12 and 14 bits in files of 16


def deep(path: Path, image: np.ndarray, bits: int, kind: str) -> Path:
    """Saves 8-bit values as ones of `bits` in a file of 16: grey by Pillow, RGB by OpenCV, which alone can."""
    import cv2

    values = image.astype(np.uint16) << (bits - 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "grey":
        Image.fromarray(values[..., 1].copy()).save(path)
    else:
        assert cv2.imwrite(str(path), values[..., ::-1])
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("kind", ["grey", "RGB"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_photographs_keep_their_greys_at_any_depth(bits, kind, suffix, tmp_path, capsys):
    """All alike: a dark one is not brightened."""
    dark = EYES[1].image // 3
    paths = [deep(tmp_path / f"{k}{suffix}", image, bits, kind) for k, image in enumerate((EYES[0].image, dark))]
    assert common_bits((*paths, save(tmp_path / "shallow.png"))) == bits
    said = capsys.readouterr().out
    largest = int(max(image[..., 1].max() if kind == "grey" else image.max() for image in (EYES[0].image, dark)))
    line = f"the values of the 16-bit photographs reach {largest << (bits - 8)}: all are read as {bits}-bit values\n"
    assert said == ("" if bits == 16 else line)
    for path, image in zip(paths, (EYES[0].image, dark), strict=True):
        expected = np.repeat(image[..., 1:2], 3, 2) if kind == "grey" else image
        assert np.array_equal(read_image(path, bits=bits), expected)


def test_labels_of_16_bits_do_not_decide_the_depth(tmp_path):
    photograph = deep(tmp_path / "a.png", EYES[0].image, 12, "RGB")
    assert common_bits((photograph, save(tmp_path / "m.png", LABELS["16 bits"]))) == 12


def test_a_photograph_of_fewer_bits_than_the_others_is_named_and_not_black(tmp_path, predicted, capsys):
    """It cannot be told from a black one, and reading each by its own values would brighten dark ones."""
    full = deep(tmp_path / "mine" / "full.png", EYES[0].image, 16, "RGB")
    fewer = deep(tmp_path / "mine" / "fewer.png", EYES[1].image, 12, "RGB")
    reason = rf"cannot read {fewer} \(values up to \d+ would be black among the 16-bit ones of the others\)"
    with pytest.raises(UserError, match=reason):
        load_photographs([full, fewer], 32, True, tmp_path / "cache")
    assert load_photographs([full, fewer], 32, True, tmp_path / "cache", 0.5).paths == [full]
    with pytest.raises(UserError, match="1 of 2 photographs could not be read"):
        predicted(tmp_path / "mine")
    assert f"left out: cannot read {fewer}" in capsys.readouterr().err


def test_pretraining_reads_12_bits(tmp_path):
    paths = [deep(tmp_path / "12" / f"{k}.png", eye.image, 12, "RGB") for k, eye in enumerate(EYES)]
    same = [save(tmp_path / "8" / f"{k}.png", eye.image) for k, eye in enumerate(EYES)]
    twelve, eight = (load_photographs(each, 32, True, tmp_path / "cache").array for each in (paths, same))
    assert np.array_equal(twelve, eight)


# --- what surrounds the retina


@pytest.mark.parametrize("colour", [(255, 255, 255), (128, 128, 128), (240, 235, 220), (60, 60, 60)])
@pytest.mark.parametrize("quality", [None, 75])
def test_the_field_of_view_is_found_on_any_flat_colour(colour, quality, tmp_path):
    for seed in range(3):
        eye = draw_fundus(np.random.default_rng(seed), 400, 360)
        image = np.where(eye.fov[..., None], eye.image, np.uint8(colour))
        image = jpeg(image, quality) if quality else image
        estimate = estimate_fov(image)
        assert (estimate & eye.fov).sum() / (estimate | eye.fov).sum() > 0.97
        photograph = read_sample(Sample("a", save(tmp_path / "a.png", image)))
        assert (photograph.image[:, ~eye.fov].amax(0) < 40).float().mean() > 0.97  # but for JPEG's fringe
        as_on_black = read_sample(Sample("b", save(tmp_path / "b.png", eye.image))).retina.float()
        assert (photograph.retina.float().mean((1, 2)) - as_on_black.mean((1, 2))).abs().max() < 4


def test_a_photograph_on_a_white_canvas_keeps_its_own_black():
    image = np.pad(EYES[0].image, [(40, 10), (30, 60), (0, 0)], constant_values=255)
    fov = np.pad(EYES[0].fov, [(40, 10), (30, 60)])
    estimate = estimate_fov(image)
    assert (estimate & fov).sum() / (estimate | fov).sum() > 0.94


def test_what_is_transparent_is_black(tmp_path):
    """Whatever lies under it; as a colour with alpha, as grey with alpha, and at 16 bits."""
    eye = EYES[0]
    expected = eye.image * eye.fov[..., None]
    under = np.where(eye.fov[..., None], eye.image, np.uint8(200))
    path = save(tmp_path / "a.png", np.dstack([under, MASK]))
    assert np.array_equal(read_image(path), expected)
    grey = save(tmp_path / "b.png", np.dstack([under[..., 1], MASK]))
    assert np.array_equal(read_image(grey)[..., 0], expected[..., 1])
    sixteen = tmp_path / "c.png"
    import cv2

    cv2.imwrite(str(sixteen), np.dstack([under[..., ::-1], MASK]).astype(np.uint16) * 257)
    assert np.array_equal(read_image(sixteen), expected)
    opaque = save(tmp_path / "d.png", np.dstack([eye.image, MASK * 0 + 255]))
    assert np.array_equal(read_image(opaque), eye.image)


def test_black_and_borderless_photographs_are_left_as_they_are():
    for eye in (draw_fundus(np.random.default_rng(seed), 240, 240) for seed in range(4)):
        for image in (eye.image, np.ascontiguousarray(eye.image[60:-60, 60:-60]), eye.image // 3):
            assert black_surroundings(image) is image
    for value in (0, 128, 255):
        image = np.full((40, 50, 3), value, np.uint8)
        assert black_surroundings(image) is image


# --- what predict.py takes


def test_one_photograph_several_and_folders(tmp_path, predicted, monkeypatch):
    a, b = save(tmp_path / "x" / "a.jpg"), save(tmp_path / "x" / "deep" / "b.jp2", EYES[1].image)
    c = save(tmp_path / "y" / "a.jfif", EYES[2].image)
    assert predicted(a) == ["a"]
    assert predicted(a, b) == ["a", "deep/b"]
    assert predicted(tmp_path / "x") == ["a", "deep/b"]
    assert sorted(predicted(tmp_path / "y", tmp_path / "x")) == ["x/a", "x/deep/b", "y/a"]
    assert predicted(a, tmp_path / "x") == ["a", "deep/b"]  # each once
    monkeypatch.chdir(tmp_path / "x")
    assert sorted(predicted("a.jpg", "../y/a.jfif")) == ["x/a", "y/a"]
    with pytest.raises(UserError, match=r"no photographs: nowhere\.png does not exist$"):
        predicted("nowhere.png")
    shutil.copy(a, tmp_path / "x" / "a.png")
    with pytest.raises(UserError, match=r"a\.png and a\.jpg would give results of the same name: rename one"):
        predicted(tmp_path / "x")
    assert c.exists()


def test_the_folder_is_named_after_what_is_predicted(tmp_path, checkpoint, monkeypatch):
    a, b = save(tmp_path / "x" / "a.b.jpg"), save(tmp_path / "x" / "b.jpg")
    for images, name in (([a], "a.b"), ([a, b], "x"), ([tmp_path / "x"], "x"), ([tmp_path / "x", tmp_path], "")):
        call(monkeypatch, predict, "--checkpoint", checkpoint, "--images", *images)
        assert (checkpoint.parent / f"predictions-{name or tmp_path.name}" / "summary.csv").exists()


def test_the_scripts_own_results_are_not_predicted(tmp_path, predicted, capsys):
    save(tmp_path / "mine" / "a.jpg")
    for _ in range(2):
        assert predicted(tmp_path / "mine", out=tmp_path / "mine" / "out") == ["a"]
    assert "skipped: 1 file with a label's name" in capsys.readouterr().out  # out/mask; and 2 files of results


def test_labels_are_not_predicted(tmp_path, predicted, capsys):
    save(tmp_path / "mine" / "a.jpg")
    save(tmp_path / "mine" / "av" / "a.png", VESSELS)
    save(tmp_path / "mine" / "a_1stHO.png", VESSELS)
    assert predicted(tmp_path / "mine") == ["a"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"skipped: 1 file with a label's name ({tmp_path}/mine/a_1stHO.png)"
    assert lines[1] == f"skipped: 1 file with a label's few colours, or blank ({tmp_path}/mine/av/a.png)"
    with pytest.raises(UserError, match=r"no photographs in .*av"):
        predicted(tmp_path / "mine" / "av")
    with pytest.raises(UserError, match=r"no photographs in .*a_1stHO\.png \(skipped: 1 file with a label's name"):
        predicted(tmp_path / "mine" / "a_1stHO.png")


def test_fields_of_view_come_from_a_folder(tmp_path, predicted, capsys):
    fov = np.zeros_like(MASK)
    fov[30:60, 30:70] = 1
    for name in ("a", "b"):
        save(tmp_path / "mine" / f"{name}.png")
    save(tmp_path / "aperture" / "a_mask.gif", fov)
    samples, _ = photographs_in([tmp_path / "mine"], tmp_path / "aperture")
    assert np.array_equal(read_sample(samples[0]).field_of_view, fov > 0) and samples[1].fov is None
    expected = f"no mask in {tmp_path}/aperture for 1 of 2 photographs, b first: estimated\n"
    assert capsys.readouterr().out == expected
    assert predicted(tmp_path / "mine", "--fov", tmp_path / "aperture") == ["a", "b"]
    (tmp_path / "aperture" / "a_mask.gif").rename(tmp_path / "aperture" / "c.gif")
    with pytest.raises(UserError, match=r"--fov .* has no mask with the name of a photograph, as a\.png would be"):
        predicted(tmp_path / "mine", "--fov", tmp_path / "aperture")


def test_fov_without_images_is_wrong_usage(checkpoint, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, predict, "--checkpoint", checkpoint, "--fov", ".")
    assert "--fov is for --images" in capsys.readouterr().err


# --- DICOM


def dicom(path: Path, values: np.ndarray, interpretation: str = "RGB", bits: int = 8, **tags) -> Path:
    """Writes a secondary capture, or what `tags` say; (H, W) or (H, W, 3), by planes if PlanarConfiguration is 1."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    content = pydicom.Dataset()
    content.file_meta = pydicom.dataset.FileMetaDataset()
    content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content.SOPClassUID = content.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    content.SOPInstanceUID = content.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    content.Rows, content.Columns = values.shape[:2]
    content.SamplesPerPixel, content.PhotometricInterpretation = values.ndim * 2 - 3, interpretation
    content.BitsAllocated, content.BitsStored, content.HighBit = 8 if bits == 8 else 16, bits, bits - 1
    content.PixelRepresentation = 0
    if values.ndim == 3:
        content.PlanarConfiguration = 0
    for name, value in tags.items():
        setattr(content, name, value)
    stored = values.transpose(2, 0, 1) if content.get("PlanarConfiguration") else values
    content.PixelData = np.ascontiguousarray(stored.astype(np.uint8 if bits == 8 else np.uint16)).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    content.save_as(path, enforce_file_format=True)
    return path


def test_dicom_is_read_as_its_tags_say(tmp_path):
    eye = EYES[0].image
    grey = eye[..., 1].astype(np.uint16)
    shown = np.repeat(eye[..., 1:2], 3, 2)
    file = tmp_path / "a.dcm"
    for planes in (0, 1):
        assert np.array_equal(read_image(dicom(file, eye, PlanarConfiguration=planes)), eye)
    for bits in (8, 10, 12):  # by the depth that is written there, not by what is used of it
        dark = grey // 4
        expected = np.round(shown // 4 * ((1 << bits - 8) * 255 / ((1 << bits) - 1)))
        read = read_image(dicom(file, dark << (bits - 8), "MONOCHROME2", bits))
        assert np.array_equal(read, expected) and common_bits((file,)) == 16
        inverted = (1 << bits) - 1 - (dark << (bits - 8))
        for shape in ({}, {"PresentationLUTShape": "INVERSE"}):
            assert np.array_equal(read_image(dicom(file, inverted, "MONOCHROME1", bits, **shape)), read)
    window = {"WindowCenter": 600.5, "WindowWidth": 256, "RescaleSlope": 2, "RescaleIntercept": 473}
    read = read_image(dicom(file, grey // 2, "MONOCHROME2", 12, **window))
    assert np.abs(read.astype(int) - shown // 2 * 2).max() <= 1


def test_dicom_of_16_bits_has_the_depth_of_the_set(tmp_path):
    grey = EYES[0].image[..., 1].astype(np.uint16)
    path = dicom(tmp_path / "sixteen.dcm", grey << 4, "MONOCHROME2", 16)
    assert common_bits((path,)) == 12
    assert np.array_equal(read_image(path, bits=12)[..., 0], grey)


def test_dicom_is_predicted_and_says_which_eye_it_is(tmp_path, predicted):
    mine = tmp_path / "mine"
    ophthalmic = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.5.1", "ImageLaterality": "L"}
    dicom(mine / "IM 1.2.840.7", EYES[0].image, **ophthalmic)
    dicom(mine / "b.DCM", EYES[1].image, Laterality="R")
    save(mine / "c.png", EYES[2].image)
    assert predicted(mine) == ["IM 1.2.840.7", "b", "c"]
    assert [row["laterality"] for row in rows(tmp_path / "out" / "summary.csv")] == ["L", "R", ""]
    assert load_photographs(sorted(mine.iterdir()), 32, True, tmp_path / "cache").array.shape == (3, 32, 32, 3)


def test_dicom_that_is_no_photograph_is_named(tmp_path):
    eye = EYES[0].image
    tomography = dicom(tmp_path / "oct.dcm", eye, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.5.4")
    with pytest.raises(UserError, match=r"oct\.dcm \(no photograph, but Ophthalmic Tomography Image Storage\)"):
        read_image(tomography)
    several = dicom(tmp_path / "frames.dcm", np.vstack([eye, eye]), NumberOfFrames=2, Rows=len(eye))
    with pytest.raises(UserError, match=r"frames\.dcm \(2 frames: save the photograph among them"):
        read_image(several)
    (tmp_path / "none.dcm").write_bytes(b"no DICOM")
    with pytest.raises(UserError, match=r"cannot read .*none\.dcm"):
        read_image(tmp_path / "none.dcm")


def test_without_pydicom_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(finder, "DICOM_IS_READ", False)
    save(tmp_path / "c.png")
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    touch(tmp_path, "a.dcm")
    photographs, _, others = find_photographs([tmp_path], ALL)
    assert photographs == [tmp_path / "c.png"]
    line = f"skipped: 2 DICOM files: pip install pydicom ({tmp_path}/IM0001 first)"
    assert skipped_line(others) == line
