"""The benchmarks run; what they measure is not held to any figure. The slow, literal reference agrees with ours."""

import copy
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_script

from benchmarks import bench, evaluation, reference, speed, widths
from DownStream.model import Segmenter
from DownStream.scoring.metrics import MEASURES
from DualScaleNet.common.device import resolve_precision
from DualScaleNet.common.photographs import find_photographs
from DualScaleNet.data import load_photographs
from DualScaleNet.encoder import Encoder
from DualScaleNet.loss import global_loss, local_loss
from DualScaleNet.model import DualScaleNet

pytestmark = pytest.mark.slow


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
    paths = find_photographs([trees / "ddr_757"], ["train"]).photographs
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
    shifted = np.roll(label, 1, 0)  # by a pixel: of each bar one row is wrong, and one is missed
    near = np.array([widths.agreement(shifted, label, tolerance) for tolerance in widths.TOLERANCES])
    table = widths.table(pixels, np.where(np.arange(8) == 1, 0, pixels), near)
    assert "| below 3 px | 7% | 0% |" in table and "| 7 px and more | 48% | 100% |" in table  # corners are thinner
    assert "| 0 px | 0.778 | 0.778 | 0.778 |" in table and "| 1 px | 1.000 | 1.000 | 1.000 |" in table  # 14 of 18 rows


def test_widths_of_a_network(trained):
    printed = run_script("benchmarks/widths.py", "--checkpoint", trained / "last.pth").stdout
    assert printed.startswith("| vessels | of all vessel pixels | found |") and "| 2 px |" in printed


def test_speed(tmp_path):
    names = ["ceiling", "operations", "input", "step", "epoch", "augmentation", "labelled", "prediction", "scoring"]
    options = ("--quick", "--batch-size", 2, "--only", *names, "--out", tmp_path)
    printed = run_script("benchmarks/speed.py", *options).stdout
    result = json.loads((tmp_path / "speed.json").read_text())
    assert list(result["tables"]) == names and all(table["failure"] is None for table in result["tables"].values())
    assert all(str(table["title"]) in printed for table in result["tables"].values())
    assert printed.strip() == (tmp_path / "speed.md").read_text().strip()
    rows = {name: table["rows"] for name, table in result["tables"].items()}
    ours = len({"float32", resolve_precision(torch.device("cpu"), "auto")})  # sides of a step
    counts = {"ceiling": 1 + ours, "input": 8, "step": 4 + 2 * ours, "epoch": 2 + 2 * ours}
    assert {name: len(rows[name]) for name in counts} == counts
    assert min(row["photographs/s"] for name in ("input", "step", "epoch") for row in rows[name]) > 0
    release, paper = rows["operations"]
    assert paper["step"] == sum(paper[part] for part in ("augmentation", "forward", "backward", "Adam"))
    assert release["backward"] > paper["backward"] > 100  # into both copies of LocalFocus, or one
    assert release["forward"] == paper["forward"] and release["augmentation"] < paper["augmentation"]  # no crops


def test_a_table_that_fails_takes_no_other_along(tmp_path):
    """A batch of one is refused by main.py, in processes of its own."""
    options = ("--quick", "--batch-size", 1, "--only", "processes", "ceiling", "--out", tmp_path)
    result = run_script("benchmarks/speed.py", *options, code=1)
    why = "main.py: error: --batch-size 1: must be at least 2"
    assert f"**Failed**: {why}" in result.stdout and result.stderr.count("error: failed: processes") == 1
    tables = json.loads((tmp_path / "speed.json").read_text())["tables"]
    assert tables["processes"]["failure"] == why and not tables["processes"]["rows"]
    assert tables["ceiling"]["failure"] is None and tables["ceiling"]["rows"]
    assert result.stdout.strip() == (tmp_path / "speed.md").read_text().strip()


def test_reasons_of_failures():
    torchrun = "W warning\n[rank1]: ValueError: odd batch\nE failed (exitcode: 1)\nChildFailedError: \n=====\n"
    failed = subprocess.CalledProcessError(1, "torchrun", stderr=torchrun)
    assert bench.reason(failed) == "[rank1]: ValueError: odd batch"
    loader = "Caught OSError in DataLoader worker process 0.\nOriginal Traceback:\n  File x\nOSError: no space left"
    assert bench.reason(RuntimeError(loader)) == "OSError: no space left"
    assert bench.reason(RuntimeError("CUDA error: misaligned\nFor debugging consider this")).endswith("misaligned")
    assert bench.reason(AssertionError()) == "AssertionError:"


@pytest.mark.parametrize("hardware", ["avx2", "avx512_bf16"])
def test_bfloat16_is_left_out_where_it_is_emulated(hardware, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {hardware: True}, raising=False)
    cpu, bfloat16 = torch.device("cpu"), hardware == "avx512_bf16"
    sides = bench.Bench(cpu, bench.QUICK, 1, tmp_path).precisions
    assert list(sides) == ["reference", "ours, float32"] + ["ours, bfloat16"] * bfloat16
    assert ("Rows in bfloat16 are left out" in bench.machine(cpu)) != bfloat16


def test_workers_by_room_in_shared_memory(tmp_path):
    sizes = [replace(bench.GPU, batch=batch) for batch in (1, 10**9)]
    many, none = (bench.Bench(torch.device("cpu"), each, 1, tmp_path) for each in sizes)
    if Path("/dev/shm").is_dir():
        assert none.workers == 0 and "a single batch" in none.few_workers[0]
    assert many.workers > 0 and len(many.few_workers) == (many.workers < bench.WORKERS)


def test_operations_that_compute_are_counted():
    weight = torch.ones(3, 2, requires_grad=True)
    with speed.Dispatched() as dispatched:
        product = torch.ones(2, 3) @ weight
        assert dispatched.take() == 2
        product.t().view(2, 2)
        assert dispatched.take() == 0  # they look at the same memory
        product.sum().backward()
        assert dispatched.take() > 2


def test_reading_keeps_the_cache_out_of_memory(tmp_path):
    speed.write_cache(tmp_path / "cache.npy", 4000, 96)
    row = speed.measure_reading(tmp_path / "cache.npy", 16, "cpu")
    assert row["photographs"] == 4000 and row["cache, MB"] > 100
    assert not row["at its peak, MB"] - row["anonymous memory before, MB"] > 50  # NaN where there is no /proc
