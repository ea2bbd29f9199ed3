"""The numbers read off masks, against shapes whose sizes are known, and as columns of summary.csv."""

import math
import time

import cv2
import numpy as np
import pytest
from conftest import REAL, call, rows
from PIL import Image

from DownStream import measurements, predict
from DownStream.measurements import AREA, VERTICAL, Number, discs_of_cups, measure
from DownStream.results import eye_of
from DownStream.selection import pixel_sizes
from DownStream.sets import CATALOGUE
from DownStream.sets.base import Sample
from DualScaleNet.common.files import read_drawing
from DualScaleNet.common.script import UserError


def ellipse(y: float, x: float, high: float, wide: float, shape: tuple[int, int] = (200, 240)) -> np.ndarray:
    """Filled, of these diameters, (H, W) bool."""
    rows_, columns = np.ogrid[: shape[0], : shape[1]]
    return ((rows_ - y) / (high / 2)) ** 2 + ((columns - x) / (wide / 2)) ** 2 < 1


def measured(masks: dict[str, np.ndarray], pixel_size: float | None = None) -> dict[str, Number]:
    """In a field of view that is the whole frame."""
    return measure(masks, np.ones_like(next(iter(masks.values()))), pixel_size)


def bar(width: float, angle: float, length: float = 500) -> np.ndarray:
    rows_, columns = np.mgrid[:640, :640] - 320.3
    along = columns * math.cos(angle) + rows_ * math.sin(angle)
    across = rows_ * math.cos(angle) - columns * math.sin(angle)
    return (np.abs(along) < length / 2) & (np.abs(across) < width / 2)


# --- vessels


@pytest.mark.parametrize("width", [2, 3, 5, 8])
def test_length_and_width_of_bars_in_all_directions(width):
    found = [measured({"vessels": bar(width, angle)}) for angle in np.linspace(0.01, math.pi, 25)]
    lengths, widths = (np.array([each[f"vessels {name} px"] for each in found]) for name in ("length", "mean width"))
    assert lengths.mean() == pytest.approx(500, rel=0.01)
    assert np.abs(lengths - 500).max() < 0.11 * 500
    assert widths.mean() == pytest.approx(width, rel=0.02)


def test_a_ring_is_as_long_as_its_middle():
    ring = ellipse(100, 120, 160, 160) & ~ellipse(100, 120, 148, 148)
    numbers = measured({"vessels:2nd": ring})
    assert numbers["vessels:2nd length px"] == pytest.approx(math.pi * 154, rel=0.02)
    assert numbers["vessels:2nd mean width px"] == pytest.approx(6, rel=0.03)


def test_twelve_megapixels_take_half_a_second():
    photograph = np.zeros((3000, 4000), np.uint8)
    for k in range(60):  # 12 % of it
        cv2.line(photograph, (60 * k, 100), (66 * k + 40, 2900), 1, 8)
    start = time.process_time()
    numbers = measured({"vessels": photograph > 0})
    assert time.process_time() - start < 3  # .5 s on an idle core
    assert numbers["vessels length px"] == pytest.approx(60 * 2810, rel=0.1)


# --- disc, cup, lesions


def test_cup_to_disc_ratios():
    masks = {"disc": ellipse(100, 120, 121, 101), "cup": ellipse(105, 118, 61, 41)}
    numbers = measured(masks)
    assert (numbers["disc height px"], numbers["disc width px"]) == (121, 101)
    assert numbers[VERTICAL] == 61 / 121
    assert numbers[AREA] == masks["cup"].sum() / masks["disc"].sum() == pytest.approx(61 * 41 / 121 / 101, rel=0.02)
    assert (numbers["cup parts"], numbers["cup area px2"]) == (1, masks["cup"].sum())


def test_ratios_without_a_disc_or_a_cup():
    nothing, something = np.zeros((50, 50), bool), np.ones((50, 50), bool)
    assert measured({"disc": nothing, "cup": something})[VERTICAL] is None
    assert measured({"disc": something, "cup": nothing})[VERTICAL] == 0
    assert VERTICAL not in measured({"disc": something})


def test_each_annotators_cup_belongs_to_that_annotators_disc():
    names = ["cup", "disc:exp1", "disc", "cup:exp1", "cup:exp2"]
    assert discs_of_cups(names) == {"cup": "disc", "cup:exp1": "disc:exp1"}
    numbers = measured({"disc:any": np.ones((10, 10), bool), "cup:any": np.ones((10, 10), bool)})
    assert numbers[f"{VERTICAL}:any"] == 1


def test_lesions_are_counted_with_diagonal_neighbours():
    mask = np.zeros((20, 20), bool)
    mask[2:4, 2:4] = mask[4, 4] = mask[10:13, 10:13] = mask[19, 0] = True
    numbers = measured({"MA": mask, "mine": mask})
    assert (numbers["MA parts"], numbers["MA area px2"], numbers["MA largest area px2"]) == (3, 15, 9)
    assert "mine largest area px2" not in numbers and numbers["mine parts"] == 3


def test_millimetres():
    numbers = measured({"vessels": bar(4, 0.3), "EX": np.eye(640, dtype=bool)}, 0.01)
    assert numbers["vessels length mm"] == pytest.approx(0.01 * numbers["vessels length px"])
    assert numbers["EX largest area mm2"] == pytest.approx(640 * 0.0001)
    assert "EX parts mm" not in numbers
    assert measured({"vessels": np.zeros((9, 9), bool)}, 0.01)["vessels mean width mm"] is None


def test_the_marked_share_is_of_the_field_of_view():
    fov = ellipse(100, 120, 150, 150)
    assert measure({"vessels": np.ones_like(fov)}, fov)["vessels marked"] == 1
    assert measure({"vessels": ~fov}, fov)["vessels marked"] == 0
    assert measure({"mask": ellipse(100, 120, 75, 75)}, fov)["mask marked"] == pytest.approx(0.25, rel=0.02)


# --- the experts' own


@pytest.mark.skipif(not REAL.is_dir(), reason="no data beside the repository")
def test_the_vertical_ratio_of_the_experts_drawings_is_the_experts_own():
    """The majority label is close to the four experts' mean, the mean over the four levels of agreement next to it."""
    samples = CATALOGUE["drishti-gs"].find(REAL / "Drishti-GS1_files", ["disc", "cup"])["train"]
    own: list[float] = []
    ours: dict[int, list[float]] = {level: [] for level in (1, 128, 191, 255)}
    for sample in samples:
        folder = sample.labels["disc"].path.parent.parent
        own.append(np.mean([float(word) for word in (folder / f"{sample.id}_cdrValues.txt").read_text().split()]))
        maps = {name: read_drawing(label.path)[0] for name, label in sample.labels.items()}
        for level, values in ours.items():
            values.append(measured({name: levels >= level for name, levels in maps.items()})[VERTICAL])
    assert len(own) == 50
    assert np.abs(np.array(ours[191]) - own).mean() < 0.025
    assert np.corrcoef(ours[191], own)[0, 1] > 0.98
    assert np.abs(np.mean(list(ours.values()), 0) - own).mean() < 0.005


# --- which eye


def test_the_eye_is_told_by_words_of_the_name(tmp_path):
    names = {"a_OD": "R", "OS-2": "L", "x/10_left": "L", "right": "R", "CODE": "", "left_right": "", "OD/7": ""}
    assert {name: eye_of(Sample(name, tmp_path / f"{name}.jpg")) for name in names} == names


def test_the_eye_is_told_by_the_data_set(tmp_path):
    for name in ("Image_01L", "Image_01R"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.jpg")
    samples = CATALOGUE["chase-db1"].find(tmp_path, ["vessels"])["train"]
    assert [eye_of(sample) for sample in samples] == ["L", "R"]


# --- --pixel-size


def test_pixel_sizes_are_one_for_all_or_each_its_own(tmp_path):
    samples = [Sample(name, tmp_path / name) for name in ("a", "b/c")]
    assert pixel_sizes(None, samples) == {}
    assert pixel_sizes(0.008, samples) == {"a": 0.008, "b/c": 0.008}
    table = tmp_path / "sizes.csv"
    table.write_text("image,mm\nb/c,0.01\na,.02\n", encoding="utf-8-sig")
    assert pixel_sizes(table, samples) == {"a": 0.02, "b/c": 0.01}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot read .*s\.csv \(No such file or directory\): name a CSV file with the columns image and mm"),
        ("image,size\na,1\n", r"s\.csv has no column 'mm': it needs the columns image and mm"),
        ("image,mm\na,wide\n", r"s\.csv, line 2: mm is wide: write millimetres, above 0 and at most 0\.2"),
        ("image,mm\na\n", r"s\.csv, line 2: mm is None"),
        ("image,mm\na,8.5\n", r"s\.csv, line 2: mm is 8\.5"),
        ("image,mm\nb,0.01\n", r"s\.csv lacks a: give each photograph a row"),
        (b"\xff\xfe\x00", r"cannot read .*s\.csv \("),
    ],
)
def test_a_bad_file_of_pixel_sizes_is_named(tmp_path, content, message):
    table = tmp_path / "s.csv"
    if content is not None:
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        pixel_sizes(table, [Sample("a", tmp_path / "a.jpg")])


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "7.5"])
def test_a_bad_pixel_size_is_refused_at_once(text, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, predict, "--pixel-size", text)
    assert stop.value.code == 2
    assert "argument --pixel-size: must be" in capsys.readouterr().err


# --- summary.csv


def test_the_numbers_stand_in_the_table(trained, tmp_path, monkeypatch):
    """They are those of the saved masks, in pixels and millimetres; the older columns are what they were."""
    out = tmp_path / "out"
    options = ("--checkpoint", trained / "last.pth", "--device", "cpu", "--out", out, "--pixel-size", 0.02)
    call(monkeypatch, predict, *options)
    table = rows(out / "summary.csv")
    assert table and list(table[0])[:6] == ["image", "width", "height", "field of view", "scale", "laterality"]
    for row in table:
        mask = np.asarray(Image.open(out / "mask" / f"{row['image']}.png")) > 0
        expected = measured({"vessels": mask}, 0.02) | {"vessels marked": float(row["vessels marked"])}
        assert {name: row[name] for name in expected} == {
            name: "" if value is None else str(value) for name, value in expected.items()
        }
        assert float(row["vessels area mm2"]) == pytest.approx(mask.sum() * 0.0004)
        assert row["laterality"] == ""


def test_without_scikit_image_vessels_have_no_length_and_a_note_says_so(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measurements, "SKELETONS", False)
    options = ("--checkpoint", trained / "last.pth", "--device", "cpu", "--out", tmp_path / "out", "--pixel-size", 0.02)
    call(monkeypatch, predict, *options)
    assert "note: the length and width of vessels are not measured: pip install scikit-image" in capsys.readouterr().out
    for row in rows(tmp_path / "out" / "summary.csv"):
        empty = {name for name, value in row.items() if value == ""} - {"laterality", "doubt"}
        assert empty == {f"vessels {name} {unit}" for name in ("length", "mean width") for unit in ("px", "mm")}

