"""What a mask means: each way in which people's masks differ is read as they say by --target, or named in one line."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REAL, call
from PIL import Image

from Dataset import check
from DownStream import predict, train
from DownStream.data import Photograph, make_split, read_sample
from DownStream.loss import segmentation_loss
from DownStream.masks import read_mask
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Label, Sample
from DownStream.targets import find_samples, names_of, parse_target
from DownStream.training import labels_and_inside
from DualScaleNet.common.device import seeded_generator
from DualScaleNet.common.script import UserError

TRAIN = "--epochs 1 --crop 64 --batch-size 2 --encoder random --val-fraction 0".split()
Draw = Callable[[int, np.ndarray], np.ndarray | Image.Image]  # a mask of photograph k from its vessels


def save(path: Path, array: np.ndarray | Image.Image, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path, **options)
    return path


@pytest.fixture(scope="session")
def drawn(trees: Path) -> list[Photograph]:
    """Six drawn photographs with vessels and fields of view."""
    found = CATALOGUE["drive"].find(trees / "DRIVE", ["vessels"])
    return [read_sample(sample) for sample in found["train"]]


@pytest.fixture
def mine(drawn, tmp_path) -> Callable[..., Path]:
    """Makes images/ and masks/ of them, the masks drawn by a function."""

    def make(draw: Draw, name: str = "masks/{}.png", image: str = "images/{}.png", **options) -> Path:
        root = tmp_path / "mine"
        for k, photograph in enumerate(drawn, 1):
            save(root / image.format(k), photograph.image.permute(1, 2, 0).numpy())
            save(root / name.format(k), draw(k, photograph.labels["vessels"].numpy()), **options)
        return root

    return make


@pytest.fixture
def checked(monkeypatch, capsys) -> Callable[..., str]:
    """What check.py says of a folder, in which it finds no fault."""

    def run(root: Path, *target: str, dataset: str = "generic", options: tuple[str, ...] = ()) -> str:
        typed = ("--target", *target) if target else ()
        call(monkeypatch, check, "--dataset", dataset, "--root", root, *typed, *options)
        return capsys.readouterr().out

    return run


def white(k: int, vessels: np.ndarray) -> np.ndarray:
    return vessels * np.uint8(255)


def warnings(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if "warning: " in line]


def labels(root: Path, *typed: str, **options) -> list[Photograph]:
    """The photographs in a folder, read by what --target says."""
    return [read_sample(each) for each in find_samples(CATALOGUE["generic"], root, list(typed), **options)["train"]]


# --- what is implausible is said


def test_plain_masks_raise_no_doubt(mine, checked, drawn):
    text = checked(mine(white))
    assert "nothing is missing" in text and not warnings(text)
    shares = [
        (photograph.labels["vessels"].numpy() & each.field_of_view).sum() / each.field_of_view.sum()
        for photograph, each in zip(drawn, labels(mine(white), "mask"), strict=True)
    ]
    low, middle, high = np.percentile(shares, (0, 50, 100))
    assert f"mask: {middle:.2%} of the field of view is marked (median; range {low:.2%} to {high:.2%})" in text


def soft(k: int, vessels: np.ndarray) -> np.ndarray:
    """With soft borders, as after shrinking."""
    large = Image.fromarray(white(k, vessels)).resize((900, 840), Image.Resampling.NEAREST)
    return np.asarray(large.rotate(7).resize(vessels.shape[::-1], Image.Resampling.LANCZOS))


HARMLESS: dict[str, tuple[Draw, dict]] = {
    "0 and 1": (lambda k, v: v.astype(np.uint8), {}),
    "0 and 1, 0 and 255": (lambda k, v: v * np.uint8(255 if k % 2 else 1), {}),
    "one bit": (lambda k, v: Image.fromarray(v), {}),
    "16 bits": (lambda k, v: v * np.uint16(65535), {}),
    "red": (lambda k, v: np.stack([white(k, v), 0 * v, 0 * v], 2).astype(np.uint8), {}),
    "soft": (soft, {}),
    "JPEG": (white, {"name": "masks/{}.jpg", "quality": 90}),
    "bad JPEG": (white, {"name": "masks/{}.jpg", "quality": 20}),
    "soft JPEG": (soft, {"name": "masks/{}.jpg", "quality": 60}),
}


@pytest.mark.parametrize("kind", list(HARMLESS))
def test_harmless_masks_raise_no_doubt(kind, mine, checked):
    draw, options = HARMLESS[kind]
    assert not warnings(checked(mine(draw, **options)))


def disc_and_cup(k: int, vessels: np.ndarray) -> np.ndarray:
    """Cup 0, disc 127, background 255."""
    y, x = np.ogrid[: vessels.shape[0], : vessels.shape[1]]
    distance = np.hypot(y - 70, x - 60 - k)
    return np.select([distance < 10, distance < 20], [0, 127], 255).astype(np.uint8)


def indices(k: int, vessels: np.ndarray) -> np.ndarray:
    """1 vessels, in every second mask 2 a part of them."""
    return vessels + np.uint8(1) * (vessels & (np.arange(len(vessels)) < 70)[:, None] & (k % 2 == 0))


def voc(k: int, vessels: np.ndarray) -> Image.Image:
    """Class indices in a palette whose colours are equally bright."""
    image = Image.fromarray(indices(2, vessels))
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    return image


def with_255(k: int, vessels: np.ndarray) -> np.ndarray:
    """0 and 1, and 255 in the first rows."""
    return np.where(np.arange(len(vessels))[:, None] < 60, 255, vessels).astype(np.uint8)


def instances(k: int, vessels: np.ndarray) -> np.ndarray:
    """Numbered stripes."""
    return vessels * (1 + np.arange(vessels.shape[1], dtype=np.uint16) // 10)


def red_on_white(k: int, vessels: np.ndarray) -> np.ndarray:
    return np.where(vessels[..., None], [255, 0, 0], [255, 255, 255]).astype(np.uint8)


DOUBTFUL: dict[str, tuple[Draw, str]] = {
    "inverted": (
        lambda k, v: white(k, ~v),
        "more than half of the field of view is marked in {1} and 5 more (%): if what is dark in them is meant, give "
        "--target mask=invert",
    ),
    "inverted colours": (
        red_on_white,
        "more than half of the field of view is marked in {1} and 5 more (100%): both values are; name the one that is "
        "meant, as in --target mask=#ff0000",
    ),
    "disc and cup": (
        disc_and_cup,
        "there are more than two values in {1} and 5 more: 0, 127, 255, of which 255 is marked; say what each means by "
        "a value or a range for each target, as in --target mask=0 other=127",
    ),
    "indices": (
        indices,
        "what is marked changes from file to file, 1 in {5} and 2 in {2}: say which values mean it in all files, as in "
        "--target mask=1-2",
    ),
    "palette": (
        voc,
        "there are more than two values in {1} and 5 more: 0, 1, 2, of which 1, 2 are marked; say what each means by a "
        "value or a range for each target, as in --target mask=1 other=2",
    ),
    "one class a file": (
        lambda k, v: v * np.uint8(1 + k % 2),
        "what is marked changes from file to file, 1 in {2} and 2 in {1}: say which values mean it in all files, as in "
        "--target mask=1-2",
    ),
    "ignored": (
        with_255,
        "the value 255 is far above the others (0, 1) in {1} and 5 more, and only 255 is marked; if it means that a "
        "pixel is not to count, give --target mask=1 ignore=255, otherwise each target's values",
    ),
    "instances": (instances, "there are more than two values in "),
    "empty": (
        lambda k, v: 0 * white(k, v),
        "almost nothing is marked in any of 6 masks, most in {1} (0.0000%): check them, or name other values by "
        "--target; they have 0",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(DOUBTFUL))
def test_doubtful_masks_are_named_by_check_and_train(kind, mine, checked, tmp_path, monkeypatch, capsys):
    draw, expected = DOUBTFUL[kind]
    root = mine(draw)
    expected = expected.format(*(root / "masks" / f"{k}.png" for k in range(7)))
    before, _, after = expected.partition("(%)")
    lines = warnings(checked(root))
    assert any(line.startswith(f"warning: mask: {before}") and after in line for line in lines), lines
    call(monkeypatch, train, "--dataset", "generic", "--data-dir", root, *TRAIN, "--run-dir", tmp_path / "run")
    output = capsys.readouterr()
    said = [line for line in output.err.splitlines() if line.startswith("warning: mask: ")]
    what = before[: before.index(" in " if kind in ("inverted", "disc and cup", "palette") else " ")]
    assert len(said) == len(lines) and any(what in line for line in said)
    assert "of the field of view is marked (median; range " in output.out


def test_doubtful_masks_are_named_where_they_are_scored(mine, trained, tmp_path, monkeypatch, capsys):
    root, out = mine(lambda k, vessels: white(k, ~vessels)), tmp_path / "out"
    others = ("--dataset", "generic", "--data-dir", root, "--split", "train", "--out", out)
    call(monkeypatch, predict, "--checkpoint", trained / "last.pth", *others)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: vessels: ")]
    before, _, _ = DOUBTFUL["inverted"][1].partition("(%)")
    assert line.startswith(f"note: vessels: {before.format(*(root / 'masks' / f'{k}.png' for k in range(7)))}")
    assert line.removeprefix("note: ") in json.loads((out / "scores.json").read_text())["notes"]


def test_a_mask_with_values_that_are_no_numbers_is_named(tmp_path):
    """The highest value would be none, and nothing above half of it."""
    values = np.zeros((20, 20), np.float32)
    values[5:10], values[0, 0] = 1, np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"cannot read .*a\.tif \(it has values that are no numbers"):
        read_mask(Label(tmp_path / "a.tif"))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_overlay_in_the_place_of_a_mask_is_named(suffix, mine, checked, drawn):
    def paint(k: int, vessels: np.ndarray) -> np.ndarray:
        painted = drawn[k - 1].image.permute(1, 2, 0).numpy().copy()
        painted[vessels] = 0, 255, 0
        return painted

    (line,) = warnings(checked(mine(paint, f"masks/{{}}.{suffix}")))
    assert "a picture rather than a mask, with many grey levels, is in " in line and "save the marks alone" in line


def test_noise_in_empty_masks_is_not_marked(mine, checked, monkeypatch, tmp_path):
    def draw(k: int, vessels: np.ndarray) -> np.ndarray:
        return white(k, vessels) if k < 5 else np.random.default_rng(k).integers(0, 4, vessels.shape, np.uint8)

    root = mine(draw)
    assert [bool(each.labels["mask"].any()) for each in labels(root, "mask")] == [True] * 4 + [False] * 2
    text = checked(root)
    assert "mask 6 (2 empty)" in text and "nothing is marked in a label of 5.png, 6.png" in text
    assert not warnings(text)
    # In a set of class indices the same values are no noise.
    shutil.rmtree(root / "masks")
    root = mine(lambda k, v: draw(5, v), "masks/{}.tif")
    assert all(each.labels["mask"].any() for each in labels(root, "mask"))
    assert "a picture rather than a mask" in warnings(checked(root))[0]


def test_an_inverted_field_of_view_is_named(mine, drawn, checked, monkeypatch, capsys, tmp_path):
    root = mine(white)
    for k, photograph in enumerate(drawn, 1):
        save(root / "fov" / f"{k}.png", photograph.field_of_view * np.uint8(255))
    assert not warnings(checked(root))
    for k, photograph in enumerate(drawn, 1):
        save(root / "fov" / f"{k}.png", ~photograph.field_of_view * np.uint8(255))
    (line,) = warnings(checked(root))
    start = f"most of the light lies outside of the field of view in {root / 'fov' / '1.png'} and 5 more ("
    assert start in line and line.endswith(
        "% of 1.png's): if black and white are swapped, invert it, or remove it to have it estimated"
    )
    call(monkeypatch, train, "--dataset", "generic", "--data-dir", root, *TRAIN, "--run-dir", tmp_path / "run")
    assert "warning: most of the light lies outside of the field of view" in capsys.readouterr().err


# --- what --target says


def test_what_can_be_typed():
    assert parse_target("EX") == ("EX", None)
    ranges = {"EX=1": ((1, 1),), "disc=0-128": ((0, 128),), "vessels=1,3": ((1, 1), (3, 3)), "a:b=7": ((7, 7),)}
    assert {text: parse_target(text)[1].marked for text in ranges} == ranges
    assert parse_target("a:b=7")[0] == "a:b" and parse_target("EX=invert")[1].inverted
    assert parse_target("ignore=254-255") == ("ignore", parse_target("ignore=254-255")[1])
    assert parse_target("ignore=254-255")[1].ignored == ((254, 255),)
    assert parse_target("EX=#ffffff")[1].marked == ((255, 255),)
    assert names_of(["EX=1", "ignore=255", "SE"]) == ["EX", "SE"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["EX="], "EX=: a blank is no value, range or colour: write 1, 0-128, 1,3 or #ff0000"),
        (["EX=red"], "EX=red: red is no value, range or colour"),
        (["EX=5-1"], "5-1 is no range: write the lower end first"),
        (["ignore"], "ignore: write NAME, NAME=VALUES or ignore=VALUES"),
        (["EX=1", "EX=2"], "--target EX is given twice: write several values as EX=1,2"),
    ],
)
def test_what_cannot_be_typed(typed, message, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, train, "--dataset", "generic", "--data-dir", tmp_path, "--target", *typed)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_values_ranges_inversion_and_colours_are_read(mine, drawn):
    vessels = [photograph.labels["vessels"] for photograph in drawn]

    def same(found: list[Photograph], target: str = "mask") -> bool:
        return all(torch.equal(each.labels[target], mask) for each, mask in zip(found, vessels, strict=True))

    assert same(labels(mine(lambda k, v: white(k, ~v)), "mask=invert"))
    assert same(labels(mine(lambda k, v: white(k, ~v)), "mask=0"))
    assert same(labels(mine(lambda k, v: white(k, ~v), "masks/{}.png"), "mask=0-127"))
    assert same(labels(mine(indices), "mask=1-2")) and same(labels(mine(indices), "mask=1,2"))
    assert same(labels(mine(voc), "mask=1-2")) and same(labels(mine(instances), "mask=1-999"))
    assert same(labels(mine(red_on_white), "mask=#ff0000"))
    second = labels(mine(voc), "first=1", "second=2")
    assert all(torch.equal(each.labels["second"], torch.from_numpy(indices(2, v.numpy()) == 2))
               for each, v in zip(second, vessels, strict=True))  # fmt: skip
    shutil.rmtree(mine(voc) / "masks")
    assert same(labels(mine(white, "masks/{}.jpg", quality=90), "mask=128-255"))


def test_named_values_raise_no_doubt(mine, checked):
    assert not warnings(checked(mine(lambda k, v: white(k, ~v)), "mask=invert"))
    assert not warnings(checked(mine(disc_and_cup), "cup=0", "disc=0-127"))
    assert not warnings(checked(mine(indices), "vessels=1", "other=2"))
    assert not warnings(checked(mine(with_255), "mask=1", "ignore=255"))
    assert not warnings(checked(mine(with_255), "mask", "ignore=255"))


def test_named_values_that_are_not_there_or_not_alone_are_doubted(mine, checked):
    (line,) = warnings(checked(mine(indices), "mask=3"))
    assert "almost nothing is marked" in line and line.endswith("they have 0, 1, 2")
    (line,) = warnings(checked(mine(with_255), "mask=1"))
    assert line.endswith("255 counts as unmarked; if it means that a pixel is not to count, add ignore=255 to --target")
    shutil.rmtree(mine(white) / "masks")
    (line,) = warnings(checked(mine(white, "masks/{}.jpg", quality=60), "mask=255"))
    assert "which noise, as of JPEG, makes of the named ones: name a range, or save it as PNG" in line


def test_two_targets_of_one_mask_need_values(mine, monkeypatch):
    root = mine(disc_and_cup)
    with pytest.raises(UserError, match=r"1\.png would be read alike for disc and cup: give the values of each"):
        labels(root, "disc", "cup")


def test_ignored_pixels_count_in_no_loss():
    class Given:
        target, targets, fov = ["a=1", "b=2", "ignore=255"], ["a", "b"], ["loss"]

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 8, 8, generator=generator, requires_grad=True)
    masks = torch.zeros(2, 5, 8, 8)
    masks[:, :2] = torch.rand(2, 2, 8, 8, generator=generator) < 0.5
    masks[:, 2, :3] = 1  # ignored of a
    masks[:, 3, :, 5:] = 1  # ignored of b
    masks[:, 4, 1:] = 1  # field of view
    found, inside = labels_and_inside(masks, Given)
    assert torch.equal(found, masks[:, :2])
    segmentation_loss(logits, found, inside, dice_weight=1.0).backward()
    counted = masks[:, 4:].bool() & ~masks[:, 2:4].bool()
    assert (logits.grad[~counted] == 0).all() and (logits.grad[counted] != 0).all()
    # Cross-entropy is the mean over the pixels that count.
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, found, reduction="none")
    assert torch.allclose(segmentation_loss(logits, found, inside), each[counted].mean())

    Given.fov = []
    assert torch.equal(labels_and_inside(masks[:, :4], Given)[1], 1 - masks[:, 2:4])
    Given.target, Given.targets = ["a"], ["a"]
    assert labels_and_inside(masks[:, :1], Given)[1] is None


@pytest.mark.slow
def test_ignored_pixels_are_neither_learned_nor_scored(mine, tmp_path, monkeypatch, capsys):
    """Whatever the mask has where 255 says so: the run, the scores, the threshold are the same."""

    def run(draw: Draw, *target: str) -> tuple[dict, dict, dict]:
        shutil.rmtree(tmp_path / "mine", ignore_errors=True)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        root = mine(draw)
        common = ("--dataset", "generic", "--data-dir", root, "--target", *target, "--run-dir", tmp_path / "run")
        call(monkeypatch, train, *common, *TRAIN[:-1], 0.3, "--folds", 3, "--val-every", 1)
        call(monkeypatch, predict, "--checkpoint", tmp_path / "run" / "last.pth", "--threshold", "val")
        scores = json.loads((tmp_path / "run" / "predictions-test" / "scores.json").read_text())
        checkpoint = torch.load(tmp_path / "run" / "last.pth")
        with open(tmp_path / "run" / "log.csv", newline="") as file:
            return scores, checkpoint, next(csv.DictReader(file))

    ignored, first, log = run(with_255, "mask=1", "ignore=255")
    assert ignored["source"].endswith("(mask=1 ignore=255)")

    def another(k: int, vessels: np.ndarray) -> np.ndarray:
        """In every second row that was ignored, another value."""
        rows = np.arange(len(vessels))[:, None]
        return np.where(rows < 60, np.where(rows % 2, 254, 255), vessels).astype(np.uint8)

    same, second, other_log = run(another, "mask=1", "ignore=254-255")
    for name in ("measures", "threshold"):
        assert ignored[name] == same[name]
    assert all(torch.equal(value, second["model"][name]) for name, value in first["model"].items())
    assert [log[name] for name in ("loss", "val_f1")] == [other_log[name] for name in ("loss", "val_f1")]

    counted, third, _ = run(with_255, "mask=1")  # the same pixels, as unmarked ones
    assert counted["measures"] != ignored["measures"]
    assert any(not torch.equal(value, third["model"][name]) for name, value in first["model"].items())
    capsys.readouterr()


@pytest.mark.slow
def test_the_meaning_is_kept_in_the_checkpoint(mine, tmp_path, monkeypatch, capsys):
    root = mine(indices)
    common = ("--dataset", "generic", "--data-dir", root, *TRAIN, "--folds", 3, "--run-dir", tmp_path / "run")
    call(monkeypatch, train, *common, "--target", "vessels=1-2", "part=2")
    checkpoint = tmp_path / "run" / "last.pth"
    content = torch.load(checkpoint)
    assert content["targets"] == ["vessels", "part"] and content["options"]["target"] == ["vessels=1-2", "part=2"]
    call(monkeypatch, predict, "--checkpoint", checkpoint)
    for target, values in (("vessels", (1, 2)), ("part", (2,))):
        rows = json.loads((tmp_path / "run" / "predictions-test" / target / "scores.json").read_text())
        assert rows["images"] == 2
        samples = find_samples(CATALOGUE["generic"], root, content["options"]["target"])["train"]
        held_out = [each for each in samples if each.key in content["split"]["test"]]
        for sample in held_out:
            expected = np.isin(np.asarray(Image.open(sample.labels[target].path)), values)
            assert np.array_equal(read_sample(sample).labels[target].numpy(), expected)
    with pytest.raises(UserError, match="--target was vessels=1-2 part=2, now vessels=1 part=2"):
        call(monkeypatch, train, *common, "--target", "vessels=1", "part=2")

    # Another folder of the same kind: as in training, or by what is typed.
    out = ("--checkpoint", checkpoint, "--dataset", "generic", "--data-dir", root, "--split", "train", "--out")
    scores = {}
    for name, typed in {"a": (), "b": ("--target", "vessels=1-2", "part=2"), "c": ("--target", "part=1")}.items():
        call(monkeypatch, predict, *out, tmp_path / name, *typed)
        path = tmp_path / name / "part" / "scores.json"
        scores[name] = json.loads(path.read_text())["measures"]["whole"]["pooled"]["accuracy"]
    assert scores["a"] == scores["b"] != scores["c"]
    with pytest.raises(UserError, match="--target cup: the checkpoint segments vessels, part"):
        call(monkeypatch, predict, *out, tmp_path / "d", "--target", "cup=1")


# --- which masks there are


def test_no_file_no_lesion(mine, checked, tmp_path, monkeypatch, capsys):
    root = mine(white, "masks/EX/{}.png")
    with pytest.raises(UserError, match="1 fault found"):
        checked(root)
    assert f"{root / 'masks'} has folders of masks: name which to read, --target EX" in capsys.readouterr().out
    save(root / "masks" / "SE" / "1.png", np.eye(140, 150, dtype=np.uint8) * 255)
    common = ("--dataset", "generic", "--data-dir", root, "--target", "EX", "SE", *TRAIN)
    options = r"leave it out \(--missing-labels skip\), or take nothing as marked there \(--missing-labels empty\)"
    with pytest.raises(UserError, match=rf"has no label for SE: add it, or {options}"):
        call(monkeypatch, train, *common, "--run-dir", tmp_path / "a")
    with pytest.raises(UserError, match="1 fault found"):
        checked(root, "EX", "SE")
    said = capsys.readouterr().out
    assert "no label for 2.png, 3.png, 4.png and 2 more: add it, or leave it out (--missing-labels skip)" in said

    found = labels(root, "EX", "SE", missing_labels="empty")
    assert [bool(each.labels["SE"].any()) for each in found] == [True] + [False] * 5
    assert all(each.labels["EX"].any() for each in found)
    assert "SE 6 (5 empty)" in checked(root, "EX", "SE", options=("--missing-labels", "empty"))
    call(monkeypatch, train, *common, "--missing-labels", "empty", "--folds", 3, "--run-dir", tmp_path / "b")
    call(monkeypatch, predict, "--checkpoint", tmp_path / "b" / "last.pth")
    scores = json.loads((tmp_path / "b" / "predictions-test" / "SE" / "scores.json").read_text())
    assert scores["images"] == 2
    # A target without any mask is none that is merely absent.
    with pytest.raises(UserError, match="has no label for HE"):
        call(monkeypatch, train, *common, "--missing-labels", "empty", "--target", "EX", "HE")


def test_photographs_without_a_mask_can_be_left_out(mine, tmp_path, monkeypatch, capsys):
    root = mine(white)
    for k in (2, 5):
        (root / "masks" / f"{k}.png").unlink()
    common = ("--dataset", "generic", "--data-dir", root, *TRAIN[:-1], 0.3, "--missing-labels", "skip")
    call(monkeypatch, train, *common, "--run-dir", tmp_path / "a")
    assert "warning: left out 2 photographs without a mask of mask: 2.png, 5.png" in capsys.readouterr().err
    split = json.loads((tmp_path / "a" / "split.json").read_text())
    assert sorted(split["train"] + split["val"]) == [f"train/{k}" for k in (1, 3, 4, 6)]
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"train": ["1", "2", "3"], "val": ["4"], "test": ["5", "6"]}))
    call(monkeypatch, train, *common, "--split-file", lists, "--run-dir", tmp_path / "b")
    split = json.loads((tmp_path / "b" / "split.json").read_text())
    assert split == {"train": ["train/1", "train/3"], "val": ["train/4"], "test": ["train/5", "train/6"]}


@pytest.mark.parametrize("ending", "_mask -mask .mask _manual1 _1stHO _segmentation _label _gt _GroundTruth".split())
def test_usual_endings_pair_by_themselves(ending, mine, drawn, checked):
    root = mine(white, f"masks/{{}}{ending}.png")
    assert all(len(each.masks) == 1 for each in labels(root, "mask"))
    assert "nothing is missing" in checked(root)


def test_endings_of_both_and_of_the_field_of_view(mine, drawn, checked):
    root = mine(white, "masks/{}_manual1.gif", "images/{}_training.tif")
    for k, photograph in enumerate(drawn, 1):
        save(root / "fov" / f"{k}_training_mask.gif", photograph.field_of_view * np.uint8(255))
    found = labels(root, "mask")
    assert [each.id for each in found] == [f"{k}_training" for k in range(1, 7)]
    assert all(each.fov is not None and each.labels["mask"].any() for each in found)
    path = save(root / "masks" / "1_manual2.gif", white(1, drawn[0].labels["vessels"].numpy()))
    with pytest.raises(UserError, match=rf"{path} and 1_manual1\.gif belong to the same photograph: remove one"):
        labels(root, "mask")


@pytest.mark.parametrize("names", [("train", "valid"), ("training", "validation"), ("Train", "val")])
def test_splits_by_their_folders_other_names(names, mine, tmp_path, checked):
    root = mine(white, f"{names[0]}/masks/{{}}.png", f"{names[0]}/images/{{}}.png")
    for k in (5, 6):
        for part in ("images", "masks"):
            (root / names[1] / part).mkdir(parents=True, exist_ok=True)
            (root / names[0] / part / f"{k}.png").rename(root / names[1] / part / f"{k}.png")
    found = CATALOGUE["generic"].find(root, ["mask"])
    assert {split: [each.key for each in members] for split, members in found.items()} == {
        "train": [f"train/{k}" for k in range(1, 5)], "val": ["val/5", "val/6"],
    }  # fmt: skip
    (root / "validation" / "images").mkdir(parents=True, exist_ok=True)
    (root / "valid" / "images").mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match=r" are the same split: move all into one of them"):
        CATALOGUE["generic"].find(root, ["mask"])


# --- groups


def test_splits_without_groups_are_what_they_were():
    found = {"train": [Sample(str(k), Path(), split="train") for k in range(20)]}
    order = [found["train"][k] for k in torch.randperm(20, generator=seeded_generator(3)).tolist()]
    split = make_split(found, 0.2, 0.5, None, 0, 3)
    assert split["val"] == order[:4] and split["train"] == order[4:12]
    split = make_split(found, 0.25, 1.0, 4, 1, 3)
    rest = [sample for k, sample in enumerate(order) if k % 4 != 1]
    assert split == {"test": order[1::4], "val": rest[:4], "train": rest[4:]}


def test_groups_stay_on_one_side():
    eyes = [Sample(f"{k}{side}", Path(), split="train", group=f"child {k}") for k in range(10) for side in "LR"]
    held_out = []
    for fold in range(3):
        for fraction in (0.25, 1.0):
            split = make_split({"train": eyes}, 0.2, fraction, 3, fold, 0)
            sides = [{sample.group for sample in members} for members in split.values()]
            assert sum(map(len, sides)) == len(set.union(*sides)) and all(sides)
        held_out += split["test"]
        assert len(split["val"]) == 4 or len(split["test"]) == 8  # two of seven children, or of six
    assert sorted(sample.id for sample in held_out) == sorted(sample.id for sample in eyes)
    quarter, half = (make_split({"train": eyes}, 0.2, share, None, 0, 0)["train"] for share in (0.25, 0.5))
    assert len(quarter) == 4 and half[:4] == quarter
    with pytest.raises(UserError, match="--folds 11: there are only 10 photographs for training, or groups"):
        make_split({"train": eyes}, 0.2, 1.0, 11, 0, 0)


@pytest.mark.slow
def test_both_eyes_of_a_child_of_chase_stay_together_and_other_files_are_skipped(drawn, tmp_path, monkeypatch):
    for n, photograph in enumerate(drawn):
        eye = f"Image_{n // 2 + 1:02}{'LR'[n % 2]}"
        save(tmp_path / "CHASE_DB1" / f"{eye}.jpg", photograph.image.permute(1, 2, 0).numpy())
        for who in ("1stHO", "2ndHO"):
            save(tmp_path / "CHASE_DB1" / f"{eye}_{who}.png", photograph.labels["vessels"].numpy())
    for name in ("Image_overview.jpg", "overview.png", "Image_01L - Copy.jpg"):
        shutil.copy(tmp_path / "CHASE_DB1" / "Image_01L.jpg", tmp_path / "CHASE_DB1" / name)
    (tmp_path / "CHASE_DB1" / "readme.txt").write_text("text")
    found = CATALOGUE["chase-db1"].find(tmp_path, ["vessels"])
    assert [sample.id for sample in found["train"]] == ["Image_01L", "Image_01R", "Image_02L", "Image_02R", "Image_03L",
                                                        "Image_03R"]  # fmt: skip
    common = ("--dataset", "chase-db1", "--data-dir", tmp_path, *TRAIN[:-1], 0.3, "--run-dir", tmp_path / "run")
    call(monkeypatch, train, *common)
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert len(split["val"]) == 2 and len({key[: len("train/Image_01")] for key in split["val"]}) == 1


def test_groups_of_ones_own(mine, tmp_path, monkeypatch, capsys):
    root = mine(white, "masks/p{0}_{0}.png", "images/p{0}_{0}.png")
    common = ("--dataset", "generic", "--data-dir", root, *TRAIN[:-1], 0.3)
    table = tmp_path / "patients.csv"
    pairs = {1: "a", 2: "a", 3: "b", 4: "b", 5: "c", 6: "c"}
    table.write_text("\ufeffimage,group,age\n" + "".join(f"p{k}_{k}.png,{group},60\n" for k, group in pairs.items()))
    call(monkeypatch, train, *common, "--groups", table, "--run-dir", tmp_path / "a")
    split = json.loads((tmp_path / "a" / "split.json").read_text())
    assert len({pairs[int(key[-1])] for key in split["val"]}) == 1 and len(split["val"]) == 2
    call(monkeypatch, train, *common, "--groups", r"p\d_([1-3]|[4-6])", "--run-dir", tmp_path / "b")
    with pytest.raises(UserError, match=r"--groups p\(7\) has no group for .*p1_1\.png: every photograph needs one"):
        call(monkeypatch, train, *common, "--groups", "p(7)", "--run-dir", tmp_path / "c")
    table.write_text("image,patient\np1_1.png,a\n")
    with pytest.raises(UserError, match="needs the columns image and group"):
        call(monkeypatch, train, *common, "--groups", table, "--run-dir", tmp_path / "c")
    with pytest.raises(UserError, match=r"cannot read .*nowhere\.csv: No such file"):
        call(monkeypatch, train, *common, "--groups", tmp_path / "nowhere.csv", "--run-dir", tmp_path / "c")
    for text, message in (("p(", "no regular expression"), ("p.", "has no group: put what names the person in")):
        with pytest.raises(SystemExit):
            call(monkeypatch, train, *common, "--groups", text)
        assert message in capsys.readouterr().err
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"train": ["p1_1", "p3_3"], "val": ["p2_2"], "test": ["p5_5"]}))
    capsys.readouterr()
    table.write_text("image,group\n" + "".join(f"p{k}_{k},{group}\n" for k, group in pairs.items()))
    call(
        monkeypatch, train, *common, "--groups", table, "--split-file", lists, "--run-dir", tmp_path / "d",
    )  # fmt: skip
    torn = "warning: a has photographs in train and val: move them into one of these, or the scores are too good"
    assert torn in capsys.readouterr().err


@pytest.mark.skipif(not REAL.is_dir(), reason="no real photographs in ../shared/data")
@pytest.mark.parametrize("name", ["drive", "stare", "drishti-gs", "chase-db1"])
def test_real_sets_raise_no_doubt(name, checked):
    assert not warnings(checked(REAL, dataset=name))
