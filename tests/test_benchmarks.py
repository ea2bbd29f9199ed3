"""The benchmarks run; what they measure is not held to any figure. The slow, literal reference agrees with ours."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import run_script

from benchmarks import evaluation, reference, speed, widths
from DownStream.metrics import MEASURES
from DownStream.model import Segmenter
from DualScaleNet.data import find_photographs, load_photographs
from DualScaleNet.encoder import Encoder
from DualScaleNet.loss import global_loss, local_loss
from DualScaleNet.model import DualScaleNet


def test_evaluation_agrees_with_scikit_learn(tmp_path):
    arguments = ("--pixels", 50_000, "--photographs", 1, 2, "--out", tmp_path)
    printed = run_script("benchmarks/evaluation.py", *arguments).stdout
    result = json.loads((tmp_path / "evaluation.json").read_text())
    assert "| scikit-learn |" in printed and "| ours |" in printed
    assert result["largest_difference"] < 1e-4 and set(result["ours"]["measures"]) == set(MEASURES)
    assert [row["photographs"] for row in result["growth"]] == [1, 2]


@pytest.mark.parametrize("recipe", ["paper", "release"])
def test_loss_and_gradients_are_those_of_the_reference(recipe):
    torch.manual_seed(0)
    ours = DualScaleNet(stop_gradient=recipe == "paper").double()
    literal = copy.deepcopy(ours)
    x, y = torch.rand(2, 6, 9, 3, 32, 32, dtype=torch.float64)
    whole = torch.rand(6, 2, 3, 96, 96, dtype=torch.float64)
    embeddings = ours(x, y, whole)
    loss = 0.5 * global_loss(*embeddings[2:]) + 0.5 * local_loss(*embeddings[:2]).total
    loss.backward()
    expected = reference.pretraining_loss(literal, x.unbind(1), y.unbind(1), whole.unbind(1))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-10)
    for mine, theirs in zip(ours.parameters(), literal.parameters(), strict=True):
        assert (mine.grad - theirs.grad).norm() < 1e-10 * theirs.grad.norm()


def test_logits_and_measures_are_those_of_the_reference():
    model = Segmenter(Encoder()).double().eval()
    images = torch.rand(1, 3, 70, 64, dtype=torch.float64)
    assert torch.allclose(model(images), reference.segmentation_logits(model, images), rtol=0, atol=1e-10)
    pixels = evaluation.pixels_of(50_000)
    assert evaluation.our_scores(*pixels) == pytest.approx(reference.scores(*pixels), abs=1e-4)


@pytest.mark.parametrize("recipe", ["paper", "release"])
def test_photographs_are_those_of_the_reference(trees, tmp_path, recipe):
    """Resized alike, to one grey level, and as many views of the same shapes."""
    paths, _ = find_photographs([trees / "ddr_757"], ["train"])
    theirs = reference.Photographs(paths, 96, recipe)
    for k, image in enumerate(load_photographs(paths, 96, recipe == "paper", tmp_path).array):
        assert np.abs(theirs.image(k).permute(1, 2, 0).numpy().astype(int) - image).max() <= 1
    (batch,) = reference.loader(paths, 96, recipe, 4, 0)
    shapes = [[tuple(view.shape) for view in views] for views in batch]
    assert shapes == [[(4, 3, 32, 32)] * 9, [(4, 3, 32, 32)] * 9, [(4, 3, 96, 96)] * 2]


def test_widths_of_drawn_vessels():
    label = np.zeros((40, 60), bool)
    for row, width in ((3, 1), (10, 3), (18, 5), (30, 9)):
        label[row : row + width, 5:55] = True
    found = widths.widths(label)
    assert [found[row, 30] for row in (3, 11, 20, 34, 0)] == [1, 3, 5, 7, 0]
    pixels = np.bincount(found[label], minlength=8)
    table = widths.table(pixels, np.where(np.arange(8) == 1, 0, pixels), beside=30, apart=10, rim=4)
    assert "| below 3 px | 7% | 0% |" in table and "| 7 px and more | 48% | 100% |" in table  # corners are thinner
    assert "missed pixels 100% lie in vessels below 3 px" in table
    assert "of 40 falsely marked ones 75% touch a vessel, 10.0% lie within 6 px" in table


def test_widths_of_a_network(trained):
    printed = run_script("benchmarks/widths.py", "--checkpoint", trained / "last.pth").stdout
    assert printed.startswith("| vessels | of all vessel pixels | found |") and "falsely marked ones" in printed


def test_speed(tmp_path):
    names = ["ceiling", "input", "step", "epoch", "augmentation", "scoring"]
    options = ("--quick", "--batch-size", 2, "--only", *names, "--out", tmp_path)
    printed = run_script("benchmarks/speed.py", *options).stdout
    result = json.loads((tmp_path / "speed.json").read_text())
    assert list(result["tables"]) == names
    assert all(str(table["title"]) in printed for table in result["tables"].values())
    assert printed.strip() == (tmp_path / "speed.md").read_text().strip()
    rates = [row["photographs/s"] for name in ("input", "step", "epoch") for row in result["tables"][name]["rows"]]
    assert len(rates) == 2 * (4 + 4 + 3) and min(rates) > 0


def test_reading_keeps_the_cache_out_of_memory(tmp_path):
    speed.write_cache(tmp_path / "cache.npy", 4000, 96)
    row = speed.measure_reading(tmp_path / "cache.npy", 16, "cpu")
    assert row["photographs"] == 4000 and row["cache, MB"] > 100
    assert not row["at its peak, MB"] - row["anonymous memory before, MB"] > 50  # NaN where there is no /proc
