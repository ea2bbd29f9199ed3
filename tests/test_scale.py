"""Scale: the network sees structures as wide as those it was trained on, whatever the camera; and memory stays flat."""

import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, call, rows, run_script, train
from PIL import Image

from Dataset.fundus import draw_fundus
from DownStream import inference, predict, prediction, training_set
from DownStream.data import Photograph, read_sample
from DownStream.fov import fov_diameter
from DownStream.inference import Predictor, reestimate_batch_norm
from DownStream.model import Segmenter
from DownStream.region import fov_square
from DownStream.sets.base import Label, Sample
from DownStream.training_set import for_statistics, input_of, measure, read_training_set
from DownStream.transforms import NetworkInput, TrainingPhotograph, training_batch
from DualScaleNet.common.files import image_size, read_image
from DualScaleNet.common.script import UserError
from DualScaleNet.encoder import Encoder
from DualScaleNet.views import standardise

CPU = torch.device("cpu")


def circle(height: int, width: int, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:height, :width]
    return (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < radius**2


def eye_photograph(side: int, seed: int = 0) -> Photograph:
    """A drawn eye, resized to `side` x `side`; its field of view has to be found."""
    image = Image.fromarray(draw_fundus(np.random.default_rng(seed), 400, 400).image).resize((side, side))
    return Photograph("a", torch.from_numpy(np.array(image)).permute(2, 0, 1), {})


def save_set(folder: Path, sides: list[int]) -> None:
    """A generic set of drawn eyes of these sizes."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for k, side in enumerate(sides):
        eye = draw_fundus(np.random.default_rng(k), 300, 300)
        Image.fromarray(eye.image).resize((side, side)).save(folder / "images" / f"{k}.png")
        Image.fromarray(np.uint8(eye.vessels) * 255).resize((side, side)).save(folder / "masks" / f"{k}.png")


def options(folder: Path, **changed: object) -> Namespace:
    """What train.py would make of its command line, as far as it matters here."""
    plain = {
        "dataset": ["generic"], "recipe": "compact", "roi": "full", "fov": [], "size": None, "diameter": None,
        "target": ["vessels"], "targets": ["vessels"], "run_dir": folder, "data_dir": [folder],
    }  # fmt: skip
    return Namespace(**plain | changed)


def samples_of(folder: Path) -> list[Sample]:
    paths = sorted((folder / "images").iterdir(), key=lambda path: int(path.stem))
    return [Sample(path.stem, path, {"vessels": Label(folder / "masks" / path.name)}) for path in paths]


# --- the field of view's diameter


def test_the_diameter_of_a_field_of_view():
    assert fov_diameter(circle(600, 700, 250)) == pytest.approx(500, abs=3)
    cut = circle(400, 700, 250)  # by the sensor, above and below
    assert fov_diameter(cut) == pytest.approx(500, abs=5)
    band = np.zeros((300, 400), bool)
    band[20:280] = True  # no circle
    assert fov_diameter(band) == 400
    assert fov_diameter(np.ones((9, 9), bool)) is None and fov_diameter(np.zeros((9, 9), bool)) is None


def test_a_mask_of_a_few_pixels_is_no_field_of_view(tmp_path):
    """Enlarged until it is as wide as the others, its photograph would fill the memory."""
    speck = np.zeros((200, 300), bool)
    speck[100, 150] = True
    assert fov_diameter(speck) is None
    for name, pixels in (("a", draw_fundus(np.random.default_rng(0), 300, 200).image), ("fov", speck)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"fov\.png marks too little to be the field of view"):
        read_sample(Sample("a", tmp_path / "a.png", fov=tmp_path / "fov.png"))


def test_measuring_takes_a_jpegs_draft(tmp_path):
    """Its size is the file's, upright; the diameter is in pixels of the file."""
    eye = Image.fromarray(draw_fundus(np.random.default_rng(0), 400, 400).image).resize((2400, 2400))
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    eye.crop((0, 300, 2400, 2100)).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == (2400, 1800)
    assert read_image(tmp_path / "a.jpg", least=600).shape == (1200, 900, 3)
    (height, width), diameter = measure(Sample("a", tmp_path / "a.jpg"))
    exact = read_sample(Sample("a", tmp_path / "a.jpg")).diameter
    assert (height, width) == (2400, 1800) and diameter == pytest.approx(exact, rel=0.01)


def test_within_a_twentieth_nothing_is_resampled():
    network_input = NetworkInput("pad", 64, diameter=100)
    assert [network_input.factor(each) for each in (96, 104, 200, 50, None)] == [1, 1, 0.5, 2, 1]
    image = torch.randint(256, (3, 50, 70), dtype=torch.uint8)
    assert network_input.scale(image, 1.0) is image
    assert network_input.scale(image, 0.5).shape == (3, 25, 35)
    assert NetworkInput("pad", 64).factor(50) == 1  # of an older checkpoint, or the recipe release


def test_an_enlarged_photograph_gets_noise():
    """The same each time, and none on black or in a photograph that keeps its size."""
    ours, theirs = NetworkInput("pad", 64, standardise=True), NetworkInput("pad", 64)
    image = torch.linspace(100, 200, 80).byte().expand(3, 80, 80).clone()
    image[:, :20] = 0
    enlarged = ours.scale(image, 2.0)
    assert torch.equal(enlarged, ours.scale(image, 2.0)) and not enlarged[:, :38].any()
    noise = enlarged - 255 * standardise(theirs.scale(image, 2.0) / 255)
    assert 0.009 < noise[:, 42:].std() / 255 < 0.011
    assert torch.equal(ours.scale(image, 1.0), (255 * standardise(image / 255)).round().byte())


# --- prediction


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    model = Segmenter(Encoder())
    known = eye_photograph(300)
    reestimate_batch_norm(model.encoder, [NetworkInput("pad", 320).pad(known.image)])
    return Predictor(model, NetworkInput("pad", 320, diameter=known.diameter))


@pytest.mark.parametrize("side", [150, 600, 900])
def test_maps_are_alike_at_every_size(side, predictor):
    """At native size, as without a known diameter, they are not."""
    known, other = eye_photograph(300), eye_photograph(side)
    expected = predictor(known).maps[0]
    maps = predictor(other).maps
    assert maps.shape == (1, side, side)

    def difference(maps: torch.Tensor) -> float:
        back = torch.nn.functional.interpolate(maps[None], (300, 300), mode="bilinear", antialias=True)[0, 0]
        return float((back - expected).abs().mean() / expected.std())

    native = Predictor(predictor.model, predictor.network_input, factor=1.0)
    assert difference(maps) < 0.7 * difference(native(other).maps)
    assert predictor.factor_of(other) == pytest.approx(300 / side, rel=0.02) and native.factor_of(other) == 1


def test_a_large_photograph_passes_in_windows_by_itself(predictor, monkeypatch):
    photograph = eye_photograph(300)
    whole = predictor(photograph).maps
    sizes = []
    predictor.model.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(inference, "WHOLE", 10_000)
    monkeypatch.setattr(inference, "WINDOW", 128)
    windows = predictor(photograph).maps
    assert {size[2:] for size in sizes} == {(128, 128)} and max(size[0] for size in sizes) == inference.WINDOWS
    assert (windows - whole).abs().mean() < whole.std()


@pytest.mark.slow
def test_the_report_and_the_table_say_by_which_factor(trained, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    for side in (150, 450):
        Image.fromarray(eye_photograph(side).image.permute(1, 2, 0).numpy()).save(mine / f"{side}.png")
    Image.fromarray(np.full((90, 80, 3), 120, np.uint8)).save(mine / "crop.png")
    known = torch.load(trained / "best.pth")["diameter"]
    arguments = ("DownStream/predict.py", "--checkpoint", trained / "best.pth", "--images", mine, "--out", tmp_path)
    printed = run_script(*arguments).stdout
    table = {row["image"]: row for row in rows(tmp_path / "summary.csv")}
    for side in ("150", "450"):
        assert float(table[side]["scale"]) == pytest.approx(known / float(table[side]["field of view"]), rel=0.02)
    assert table["crop"]["field of view"] == "" and float(table["crop"]["scale"]) == 1
    assert "no border of a field of view was found in 1 of 3 photographs, crop first: they keep their size" in printed
    for choice, expected in (("native", 1), ("0.5", 0.5)):
        printed = run_script(*arguments, "--scale", choice).stdout
        assert {float(row["scale"]) for row in rows(tmp_path / "summary.csv")} == {expected}
        assert "no border" not in printed


# --- training


def test_mixed_sizes_are_brought_to_their_median(tmp_path, capsys):
    save_set(tmp_path, [300, 300, 150, 300, 600])
    samples = samples_of(tmp_path)
    network_input = input_of(options(tmp_path), samples)
    assert network_input.diameter == pytest.approx(measure(samples[0])[1], rel=0.02) and network_input.size == 320
    assert "2 of 5 photographs are resized" in capsys.readouterr().out
    photographs = read_training_set(samples, options(tmp_path), network_input, CPU)
    assert [each.image.shape[2] for each in photographs] == pytest.approx([300] * 5, abs=9)
    assert all(each.masks.shape[1:] == each.image.shape[1:] and each.masks.any() for each in photographs)
    assert input_of(options(tmp_path, diameter=100), samples).diameter == 100
    release = input_of(options(tmp_path, recipe="release"), samples)  # as it was
    assert release.diameter is None and release.size == 608


def test_a_size_resizes_the_generic_set(tmp_path):
    """By the square around the field of view, as the sets that are resized; the recipe release squeezes the frame."""
    save_set(tmp_path, [300, 200])
    for recipe, fit in (("compact", "square"), ("release", "resize")):
        network_input = input_of(options(tmp_path, size=96, recipe=recipe), samples_of(tmp_path))
        assert (network_input.fit, network_input.size) == (fit, 96)
        photographs = read_training_set(samples_of(tmp_path), options(tmp_path), network_input, CPU)
        assert [each.image.shape for each in photographs] == [(3, 96, 96)] * 2


def test_the_square_around_a_field_of_view_keeps_circles_round():
    fov = circle(400, 700, 250)
    square = fov_square(fov)
    assert (square.height, square.width) == (499, 499) and square.top == -49
    image = torch.from_numpy(fov)[None]
    assert square.cut(image).sum() == fov.sum()
    assert torch.equal(square.paste(square.cut(image), 400, 700), image)


def test_what_does_not_fit_into_memory_is_read_through_a_file(tmp_path, monkeypatch):
    save_set(tmp_path, [300, 280, 260])
    samples = samples_of(tmp_path)
    network_input = input_of(options(tmp_path), samples)
    held = read_training_set(samples, options(tmp_path), network_input, CPU)
    monkeypatch.setattr(training_set, "HELD", 0)
    mapped = read_training_set(samples, options(tmp_path), network_input, CPU)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "masks"]  # the file has no name
    for one, other in zip(held, mapped, strict=True):
        assert torch.equal(one.image, other.image) and torch.equal(one.masks, other.masks)
    batches = [
        training_batch(each, network_input, 64, True, torch.Generator().manual_seed(0), CPU) for each in (held, mapped)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


def test_what_will_not_fit_is_not_held_first(tmp_path, monkeypatch):
    """The memory holds two and a half photographs of three: the first goes into the file before the second is read."""
    save_set(tmp_path, [300, 300, 300])
    samples = samples_of(tmp_path)
    network_input = input_of(options(tmp_path), samples)
    first = read_training_set(samples[:1], options(tmp_path), network_input, CPU)[0]
    room = 2.5 * (first.image.nbytes + first.masks.nbytes)
    monkeypatch.setattr(training_set, "free_memory", lambda device: room / training_set.HELD)
    order = []
    read, write = training_set.read_training_photograph, training_set.PhotographFile.write
    monkeypatch.setattr(training_set, "read_training_photograph", lambda *a: order.append("read") or read(*a))
    monkeypatch.setattr(training_set.PhotographFile, "write", lambda *a: order.append("write") or write(*a))
    assert len(read_training_set(samples, options(tmp_path), network_input, CPU)) == 3
    assert order == ["read", "write"] * 3


def test_of_many_photographs_64_give_the_statistics():
    photographs = [TrainingPhotograph(Path(), torch.full((3, 1, 1), k), torch.zeros(1, 1, 1)) for k in range(200)]
    seen = [int(image[0]) for image in for_statistics(photographs, NetworkInput("pad", 32))]
    assert len(seen) == 64 and (seen[0], seen[-1]) == (0, 199)
    assert len(list(for_statistics(photographs[:5], NetworkInput("pad", 32)))) == 5


MEMORY = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from DownStream import train, training_set
training_set.HELD = 0.0
sys.argv = ["train.py", *{arguments!r}]
train.main()
status = Path("/proc/self/status").read_text()
print("kB", int(status.split("RssAnon:")[1].split()[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what memory is a process's own")
def test_memory_does_not_grow_with_the_photographs(tmp_path):
    """500 photographs would take 320 MB; the test would see a fifth of that."""
    save_set(tmp_path / "few", [400] * 4)
    (tmp_path / "few" / "fov").mkdir()  # to read one takes a third of the time of estimating it
    for k in range(4):
        Image.fromarray(np.uint8(draw_fundus(np.random.default_rng(k), 300, 300).fov) * 255).resize((400, 400)).save(
            tmp_path / "few" / "fov" / f"{k}.png"
        )
    used = []
    for count in (50, 500):
        folder = tmp_path / str(count)
        for kind in ("images", "masks", "fov"):
            (folder / kind).mkdir(parents=True)
            for k in range(count):
                (folder / kind / f"{k}.png").symlink_to(tmp_path / "few" / kind / f"{k % 4}.png")
        arguments = [
            "--dataset", "generic", "--data-dir", folder, "--encoder", "random", "--recipe", "linear", "--crop", 64,
            "--batch-size", 50, "--val-fraction", 0, "--epochs", 1, "--run-dir", tmp_path / f"run{count}",
            "--device", "cpu",
        ]  # fmt: skip
        code = MEMORY.format(root=str(ROOT), arguments=list(map(str, arguments)))
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        used.append(int(result.stdout.split("kB ")[1]) / 1024)
    assert used[1] < used[0] + 64, used


# --- long predictions


@pytest.mark.slow
def test_an_interrupted_prediction_of_a_folder_goes_on(trained, tmp_path, monkeypatch, capsys):
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.mkdir()
    for k in range(8):
        Image.fromarray(eye_photograph(100, k).image.permute(1, 2, 0).numpy()).save(mine / f"{k}.png")
    arguments = ("--checkpoint", trained / "best.pth", "--images", mine, "--out", out)
    original, calls = Predictor.__call__, []

    def interrupted(self: Predictor, photograph: Photograph) -> object:
        calls.append(photograph.id)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(self, photograph)

    monkeypatch.setattr(Predictor, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call(monkeypatch, predict, *arguments)
    done = len((out / ".predicted.jsonl").read_text().splitlines()) - 1
    assert 1 <= done <= 6 and not (out / "summary.csv").exists()
    calls[:] = [""] * 10
    call(monkeypatch, predict, *arguments)
    assert f"resuming: {done} photographs were predicted before" in capsys.readouterr().out
    assert len(calls) - 10 == 8 - done
    assert [row["image"] for row in rows(out / "summary.csv")] == [str(k) for k in range(8)]
    assert len(list((out / "mask").iterdir())) == 8 and not (out / ".predicted.jsonl").exists()
    page = (out / "index.html").read_text()
    assert re.findall('<th scope="row">(.*?)</th>', page) == [str(k) for k in range(8)]
    links = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert len(links) == 8 * 3 and all((out / link).exists() for link in links)
    calls.clear()
    calls.extend([""] * 10)
    call(monkeypatch, predict, *arguments)  # all were done: it begins anew
    assert len(calls) == 18


def save_mask(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (4, 4)).save(path)


def test_what_changed_does_not_go_on(tmp_path):
    """Other options, a row that was cut off, a photograph that was replaced, a result that was deleted."""
    photograph = tmp_path / "a.png"
    photograph.write_bytes(b"1")
    sample = Sample("a", photograph)
    first = prediction.Ledger(tmp_path, {"threshold": 0.5})
    result = tmp_path / "mask" / "a.png"
    save_mask(result)
    first.add(sample, {"image": "a"}, [result])

    def found(threshold: float = 0.5) -> dict[str, str] | None:
        return prediction.Ledger(tmp_path, {"threshold": threshold}).row_of(sample)

    assert found() == {"image": "a"}
    with open(first.path, "a") as file:
        file.write('[[16, 1, 2], {"image": "b", "wid')
    assert found() == {"image": "a"}
    times = photograph.stat().st_atime_ns, photograph.stat().st_mtime_ns
    other = tmp_path / "other" / "a.png"
    save_mask(other)
    other.write_bytes(b"1")
    os.utime(other, ns=times)
    assert prediction.Ledger(tmp_path, {"threshold": 0.5}).row_of(Sample("a", other)) is None
    result.unlink()
    assert found() is None
    save_mask(result)
    assert found() == {"image": "a"}
    photograph.write_bytes(b"22")
    assert found() is None
    photograph.write_bytes(b"1")
    assert found(0.4) is None and found() is None


def test_a_factor_is_refused_where_all_are_resized_to_a_square(trained, tmp_path, monkeypatch):
    content = torch.load(trained / "best.pth") | {"fit": "resize"}
    torch.save(content, tmp_path / "resizes.pth")
    Image.fromarray(eye_photograph(100).image.permute(1, 2, 0).numpy()).save(tmp_path / "eye.png")
    common = ("--checkpoint", tmp_path / "resizes.pth", "--images", tmp_path / "eye.png", "--out", tmp_path / "out")
    for scale in ("native", 2):
        with pytest.raises(UserError, match=r"--scale: the network in .*resizes\.pth resizes every photo"):
            call(monkeypatch, predict, *common, "--scale", scale)
    call(monkeypatch, predict, *common)
    assert [row["scale"] for row in rows(tmp_path / "out" / "summary.csv")] == [""]


@pytest.mark.slow
def test_a_run_goes_on_at_the_scale_that_it_began_with(trees, tmp_path):
    """A run of an older version, whose checkpoint knows no diameter, keeps its photographs' sizes."""
    options = ("--encoder", "random", "--epochs")
    train(trees / "DRIVE", tmp_path / "run", *options, 1)
    content = torch.load(tmp_path / "run" / "last.pth")
    assert content.pop("diameter") > 100
    torch.save(content, tmp_path / "run" / "last.pth")
    train(trees / "DRIVE", tmp_path / "run", *options, 2)
    assert torch.load(tmp_path / "run" / "last.pth")["diameter"] is None


def test_a_photograph_that_does_not_fit_is_named_and_the_others_go_on(trained, tmp_path, monkeypatch, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    for k in range(3):
        Image.fromarray(eye_photograph(100, k).image.permute(1, 2, 0).numpy()).save(mine / f"{k}.png")
    original = Predictor.__call__

    def too_large(self: Predictor, photograph: Photograph) -> object:
        if photograph.id == "1":
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")
        return original(self, photograph)

    monkeypatch.setattr(Predictor, "__call__", too_large)
    with pytest.raises(Exception, match="1 of 3 photographs could not be read or predicted and were left out"):
        call(monkeypatch, predict, "--checkpoint", trained / "best.pth", "--images", mine, "--out", tmp_path / "out")
    assert f"left out: {mine / '1.png'} needs more memory: set --window" in capsys.readouterr().err
    assert [row["image"] for row in rows(tmp_path / "out" / "summary.csv")] == ["0", "2"]


@pytest.mark.slow
def test_the_checkpoint_records_the_diameter(trees, tmp_path):
    train(trees / "DRIVE", tmp_path / "run", "--encoder", "random", "--epochs", 1, "--diameter", 99)
    assert torch.load(tmp_path / "run" / "last.pth")["diameter"] == 99
    assert json.loads((tmp_path / "run" / "args.json").read_text())["options"]["diameter"] == 99
