"""A folder as people have them: each oddity is read as anyone would expect, or named in one line."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import call, run_script
from PIL import Image

from Dataset import check
from DownStream import predict, train
from DownStream.data import Photograph, read_sample
from DownStream.sets.generic import find
from DualScaleNet import main as pretrain
from DualScaleNet.common.script import UserError

pytestmark = pytest.mark.slow

SIDE = 64
MARKED = np.zeros((SIDE, SIDE), bool)
MARKED[5:20, 10:50] = True
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
TRAIN = "--epochs 1 --crop 64 --batch-size 2 --encoder random --val-fraction 0".split()


def save(path: Path, array: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def drawing(dtype: type = np.uint8, mark: int = 255) -> np.ndarray:
    return MARKED.astype(dtype) * dtype(mark)


def coloured(background: tuple[int, ...], *colours: tuple[int, ...]) -> np.ndarray:
    """The marks in stripes of several colours."""
    pixels = np.full((SIDE, SIDE, len(background)), background, np.uint8)
    for k, colour in enumerate(colours):
        stripe = MARKED.copy()
        stripe[np.arange(SIDE) % len(colours) != k] = False
        pixels[stripe] = colour
    return pixels


def palette(colour: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(drawing(mark=1), "L")
    image.putpalette([0, 0, 0, *colour])
    return image


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Two photographs with masks, and beside them what a test adds."""
    for k, name in enumerate("ab"):
        save(tmp_path / "mine" / "images" / f"{name}.png", np.roll(NOISE, k + 1))
        save(tmp_path / "mine" / "masks" / f"{name}.png", drawing())
    return tmp_path / "mine"


def read(root: Path, name: str) -> Photograph:
    """What the network reads of a photograph and its mask."""
    (sample,) = (sample for sample in find(root, ["mask"])["train"] if sample.id == name)
    return read_sample(sample)


def pixels(photograph: Photograph) -> np.ndarray:
    return photograph.image.permute(1, 2, 0).numpy()


def assert_fine(monkeypatch, capsys, root: Path) -> str:
    """check.py finds no fault; returns what it says."""
    call(monkeypatch, check, "--dataset", "generic", "--root", root)
    text = capsys.readouterr().out
    assert "fault" not in text
    return text


def assert_named(monkeypatch, capsys, root: Path, *words: str) -> None:
    """check.py and train.py stop and say all the words, check.py in the line of the only fault."""
    with pytest.raises(UserError, match="1 fault found"):
        call(monkeypatch, check, "--dataset", "generic", "--root", root)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "fault: " in line)
    with pytest.raises(UserError) as error:
        call(monkeypatch, train, "--dataset", "generic", "--data-dir", root, *TRAIN, "--run-dir", root.parent / "run")
    for text in (line, str(error.value)):
        assert "\n" not in text and all(word in text for word in words), text


def test_everything_that_is_fine_trains_and_is_predicted(mine, tmp_path, monkeypatch, capsys):
    """Upper case, spaces, other alphabets, hidden files and what systems leave behind, several kinds of file."""
    names = ["Left Eye (2)", "zażółć 眼底", "été"]
    save(mine / "images" / f"{names[0]}.JPG", NOISE)
    save(mine / "masks" / f"{names[0]}.TIFF", drawing())
    save(mine / "images" / f"{names[1]}.jpeg", NOISE[..., 0])
    save(mine / "masks" / f"{names[1]}.Png", drawing())
    save(mine / "images" / f"{unicodedata.normalize('NFC', names[2])}.BMP", NOISE)
    save(mine / "masks" / f"{unicodedata.normalize('NFD', names[2])}.png", drawing())  # as macOS packs it
    for folder in ("images", "masks"):
        for name in ("._a.png", ".hidden.jpg", "Thumbs.db", "desktop.ini", ".DS_Store", "notes.txt"):
            (mine / folder / name).write_bytes(b"no image")
    assert {sample.id for sample in find(mine, ["mask"])["train"]} == {"a", "b", *names}
    assert_fine(monkeypatch, capsys, mine)
    run = tmp_path / "run"
    call(monkeypatch, train, "--dataset", "generic", "--data-dir", mine, *TRAIN, "--run-dir", run)
    call(monkeypatch, predict, "--checkpoint", run / "last.pth", "--split", "train")
    written = {path.name for path in (run / "predictions-train" / "mask").iterdir()}
    assert written == {f"{name}.png" for name in ("a", "b", *names)}
    call(monkeypatch, predict, "--checkpoint", run / "last.pth", "--images", mine)
    assert len(list((run / "predictions-mine" / "mask" / "images").iterdir())) == 5


MASKS = {
    "0 and 1": drawing(mark=1),
    "0 and 255": drawing(),
    "one bit": MARKED,
    "16 bits": drawing(np.uint16, 65535),
    "16 bits, 0 and 1": drawing(np.uint16, 1),
    "RGB": coloured((0, 0, 0), (255, 255, 255)),
    "RGBA, opaque": coloured((0, 0, 0, 255), (255, 255, 255, 255)),
    "colours on black": coloured((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)),
    "RGBA, colours on black": coloured((0, 0, 0, 255), (255, 0, 0, 255), (0, 0, 255, 255)),
    "colours on transparent": coloured((0, 0, 0, 0), (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255)),
    "colour on transparent white": coloured((255, 255, 255, 0), (255, 0, 0, 255)),
    "a faint pen": coloured((0, 0, 0, 0), (255, 255, 0, 90)),
    "black on transparent": coloured((0, 0, 0, 0), (0, 0, 0, 255)),
    "palette of greys": palette((1, 1, 1)),
    "palette of colours": palette((0, 0, 128)),
}


@pytest.mark.parametrize("kind", list(MASKS))
def test_masks_of_every_kind(kind, mine, monkeypatch, capsys):
    mask = MASKS[kind]
    path = mine / "masks" / "a.png"
    mask.save(path) if isinstance(mask, Image.Image) else save(path, mask)
    assert np.array_equal(read(mine, "a").labels["mask"].numpy(), MARKED)
    text = assert_fine(monkeypatch, capsys, mine)
    assert ("more than two values in" in text) == kind.endswith(("colours on black", "colours on transparent"))
    assert "nothing is missing" in text or "more than two values in" in text


@pytest.mark.parametrize(
    "empty", [drawing(mark=0), drawing(np.uint16, 0), coloured((0, 0, 0, 0))], ids=["8 bits", "16 bits", "transparent"]
)
def test_a_mask_without_a_mark_is_noted(empty, mine, monkeypatch, capsys):
    save(mine / "masks" / "a.png", empty)
    assert not read(mine, "a").labels["mask"].any()
    assert "nothing is marked in a label of a.png" in assert_fine(monkeypatch, capsys, mine)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_16_bit_photograph_keeps_its_greys(suffix, mine, monkeypatch, capsys):
    values = NOISE[..., 0].astype(np.uint16) << 8 | 77
    save(mine / "images" / f"deep{suffix}", values)
    save(mine / "masks" / "deep.png", drawing())
    assert np.array_equal(pixels(read(mine, "deep")), np.repeat(NOISE[..., :1], 3, axis=2))
    assert_fine(monkeypatch, capsys, mine)


def test_greyscale_photographs_have_three_equal_channels(mine):
    for name, array in (("gray", NOISE[..., 0]), ("bits", MARKED)):
        save(mine / "images" / f"{name}.png", array)
        gray = np.uint8(255) * array if array.dtype == bool else array
        assert np.array_equal(pixels(read(mine, name)), np.repeat(gray[..., None], 3, axis=2))


def test_a_cmyk_photograph_has_its_colours(mine, monkeypatch, capsys):
    colour = (200, 100, 30)
    Image.new("RGB", (SIDE, SIDE), colour).convert("CMYK").save(mine / "images" / "a.jpg", quality=95)
    (mine / "images" / "a.png").unlink()
    assert np.abs(pixels(read(mine, "a")).astype(int) - colour).max() < 5
    assert_fine(monkeypatch, capsys, mine)


def turned(path: Path, width: int, height: int) -> np.ndarray:
    """A photograph that EXIF turns by a quarter, as stored."""
    stored = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(path, stored, exif=exif)
    return stored


def test_exif_turns_the_photograph_and_the_mask_must_follow(mine, monkeypatch, capsys):
    stored = turned(mine / "images" / "a.png", 96, SIDE)
    save(mine / "masks" / "a.png", np.eye(96, SIDE, dtype=np.uint8))
    photograph = read(mine, "a")
    assert np.array_equal(pixels(photograph), np.rot90(stored, -1))
    assert np.array_equal(photograph.labels["mask"].numpy(), np.eye(96, SIDE, dtype=bool))
    note = "train: an EXIF tag turns a.png: check that the masks are turned too"
    assert note in assert_fine(monkeypatch, capsys, mine)

    save(mine / "masks" / "a.png", np.eye(SIDE, 96, dtype=np.uint8))
    sizes = "a.png is 96x64, its photograph a.png 64x96: its EXIF tag turns the photograph: turn the mask too"
    assert_named(monkeypatch, capsys, mine, sizes)

    turned(mine / "images" / "a.png", SIDE, SIDE)
    save(mine / "masks" / "a.png", drawing())
    assert note in assert_fine(monkeypatch, capsys, mine)  # a square one may or may not be


def test_a_mask_of_another_size_is_named(mine, monkeypatch, capsys):
    path = save(mine / "masks" / "a.png", np.eye(32, 40, dtype=np.uint8))
    assert_named(monkeypatch, capsys, mine, f"{path} is 40x32, its photograph a.png 64x64: save it at that size")


def test_a_truncated_photograph_is_named(mine, tmp_path, monkeypatch, capsys):
    path = save(mine / "images" / "c.jpg", NOISE)
    save(mine / "masks" / "c.png", drawing())
    path.write_bytes(path.read_bytes()[:-400])
    assert_named(monkeypatch, capsys, mine, f"cannot read {path} (", "truncated", "replace or remove it")
    arguments = ("--dataset", "generic", "--data-dir", mine, *TRAIN, "--run-dir", tmp_path / "another")
    error = run_script("DownStream/train.py", *arguments, code=1).stderr
    assert error.startswith(f"train.py: error: cannot read {path}") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "the file is empty"), (b"<!doctype html>", "no image")], ids=["empty", "html"]
)
@pytest.mark.parametrize("folder", ["images", "masks"])
def test_what_is_no_image_is_named(content, reason, folder, mine, monkeypatch, capsys):
    path = mine / folder / "a.png"
    path.write_bytes(content)
    assert_named(monkeypatch, capsys, mine, f"cannot read {path} ({reason}): replace or remove it")


def test_values_of_more_than_16_bits_are_named(mine, monkeypatch, capsys):
    path = save(mine / "images" / "c.tif", NOISE[..., 0] / np.float32(255))
    save(mine / "masks" / "c.tif", drawing(np.float32, 1))
    assert_named(monkeypatch, capsys, mine, f"cannot read {path} (more than 16 bits a value)")


def test_a_label_without_photograph_is_named(mine, monkeypatch, capsys):
    lonely = [save(mine / "masks" / name, drawing()) for name in ("lonely 1.png", "lonely 2.png")]
    assert_named(
        monkeypatch, capsys, mine,
        f"{lonely[0]} belongs to no photograph: name it as its photograph is, with or without an ending such as _mask "
        f"(a.png or a_mask.png for a.png), add {mine / 'images' / 'lonely 1.*'}, or remove it",
    )  # fmt: skip


def test_a_training_photograph_without_label_is_named(mine, monkeypatch, capsys):
    save(mine / "images" / "bare.png", NOISE)
    assert_named(monkeypatch, capsys, mine, "bare.png", "no label")


def test_several_targets_need_values_or_a_folder_of_masks_each(mine, monkeypatch):
    with pytest.raises(UserError, match=r"a\.png would be read alike for EX and SE: give the values of each"):
        call(monkeypatch, train, "--dataset", "generic", "--data-dir", mine, *TRAIN, "--target", "EX", "SE")


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_two_files_of_the_same_stem_are_named(folder, mine, monkeypatch, capsys):
    path = save(mine / folder / "a.tif", NOISE)
    assert_named(monkeypatch, capsys, mine, f"{path} and a.png have the same stem: rename or remove one")


def test_an_empty_folder_is_named(tmp_path, monkeypatch, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    assert_named(monkeypatch, capsys, mine, f"no photographs in {mine}: expected images/* and masks/*")
    (mine / "images").mkdir()
    (mine / "masks").mkdir()
    assert_named(monkeypatch, capsys, mine, f"no photographs in {mine}: expected images/* and masks/*")
    with pytest.raises(UserError, match=f"no photographs .*in {mine}"):
        call(monkeypatch, pretrain, "--data", mine)


def test_a_folder_that_is_a_file_is_named(tmp_path, monkeypatch, capsys):
    file = save(tmp_path / "mine.png", NOISE)
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, check, "--dataset", "generic", "--root", file)
    assert f"--root {file} is no folder" in capsys.readouterr().err
    with pytest.raises(UserError, match=f"no photographs in {file}, which is no folder"):
        call(monkeypatch, train, "--dataset", "generic", "--data-dir", file, *TRAIN)
    with pytest.raises(UserError, match="1 photographs are fewer than --batch-size 64"):  # which takes files, too
        call(monkeypatch, pretrain, "--data", file)


def test_pretraining_reads_them_too(mine, tmp_path, monkeypatch, capsys):
    save(mine / "images" / "deep.PNG", NOISE[..., 0].astype(np.uint16) << 8)
    Image.fromarray(NOISE).convert("CMYK").save(mine / "images" / "Ć .Jpg")
    (mine / "images" / "Thumbs.db").write_bytes(b"no image")
    arguments = ("--data", mine, "--image-size", 96, "--batch-size", 2, "--epochs", 1)
    arguments += ("--cache", tmp_path / "cache", "--run-dir", tmp_path / "run")
    call(monkeypatch, pretrain, *arguments)
    assert "4 photographs, 2 steps an epoch" in capsys.readouterr().out
    empty = mine / "images" / "z.jpg"
    empty.touch()
    with pytest.raises(UserError, match=rf"cannot read {empty} \(the file is empty\)"):
        call(monkeypatch, pretrain, *arguments, "--resume", "never")
