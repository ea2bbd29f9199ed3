"""The comparison of encoders: its trainings, its table, and the significance of a difference."""

import os
import re
import sys
import time
from pathlib import Path

import faults
import numpy as np
import pytest
from conftest import rows, run_script
from PIL import Image

from Dataset.synthetic import write_drive
from DownStream.comparison import Cell
from DownStream.options.compare import parse_args
from DownStream.recipes import OLD_NAMES
from DownStream.scoring.differences import paired_differences, sign_flip_p


@pytest.mark.slow
def test_a_comparison_runs_once_and_can_be_extended(trees, pretrained, tmp_path):
    out = tmp_path / "out"
    arguments = ("--data-dir", trees / "DRIVE", "--out", out, "--folds", 3, "--fractions", 0.5, 1)
    encoders = ("--encoders", "random", f"both={pretrained / 'encoder.pth'}")
    small = ("--epochs", 1, "--", "--crop", "64", "--batch-size", 2)
    refused = run_script("DownStream/compare.py", *arguments, *encoders, "--max-minutes", 1e-9, *small, code=1)
    assert "no training was done in --max-minutes" in refused.stderr
    printed = run_script("DownStream/compare.py", *arguments, *encoders, "--seeds", 0, "--jobs", 2, *small).stdout
    results = rows(out / "results.csv")
    assert [(row["encoder"], row["fraction"]) for row in results] == [
        ("random, frozen", "0.5"), ("both, frozen", "0.5"), ("random, frozen", "1.0"), ("both, frozen", "1.0"),
    ]  # fmt: skip
    assert (out / "table.md").read_text() in printed and f"{float(results[1]['pr_auc']):.4f}" in printed
    assert "| both, frozen | 50% | 1 |" in printed and "(2 photographs)" in printed
    assert len(rows(out / "per_image.csv")) == 2 * 2 * 2 and Image.open(out / "curve.png").width > 500

    logs = [rows(out / "cells" / f"random-frozen-compact-{share}-0" / "log.csv") for share in ("0.5", "1")]
    assert list(map(len, logs)) == [2, 1]
    for folder in sorted(out.glob("cells/*")):
        as_made_before_recipes(folder)
    written = [(path, path.stat().st_mtime_ns) for path in sorted(out.glob("cells/*/last.pth"))]
    assert len(written) == 4
    old_name = ("--presets", "ours", "--seeds", 0, 1)
    named = run_script("DownStream/compare.py", *arguments[:-2], 1, *encoders, *old_name, *small).stderr
    assert "--presets ours is now --recipes compact" in named
    file_as_random = ("--encoders", encoders[-1].replace("both", "random"))
    same, other_options = (*arguments, *encoders, *small), (*arguments, *encoders, *small[:-1], 4)

    def refused_cell(*command):
        stderr = run_script("DownStream/compare.py", *command, code=1).stderr
        return re.search(r"(\S+) was made with other options, an older recipe or another encoder: choose", stderr)[1]

    first = str(out / "cells" / "random-frozen-ours-0.5-0")
    assert refused_cell(*other_options) == refused_cell(*arguments, *file_as_random, *small) == first
    stamp = out / "cells" / "both-frozen-ours-1-0" / "cell.json"
    stamp.write_text(stamp.read_text().replace("dice_weight=1.0", "dice_weight=2.0"))
    assert refused_cell(*same) == str(stamp.parent)
    assert all(path.stat().st_mtime_ns == before for path, before in written)
    assert [row["seed"] for row in rows(out / "results.csv")] == ["0", "0", "1", "1"]


def as_made_before_recipes(folder: Path) -> None:
    """Names a cell as an older version did, when recipes were presets."""
    stamp = folder / "cell.json"
    text = stamp.read_text().replace('"--recipe"', '"--preset"').replace('"compact"', '"ours"')
    stamp.write_text(text.replace('"recipe": "Recipe(', '"preset": "Preset('))
    folder.rename(folder.with_name(folder.name.replace("compact", "ours")))


@pytest.mark.parametrize("old, new", OLD_NAMES.items())
def test_a_cell_with_a_recipes_old_name_is_found_and_shown_under_the_new(old, new, tmp_path):
    cell = Cell("both", "encoder.pth", False, new, 0.25, 1)
    assert cell.folder(tmp_path).name == f"both-frozen-{new}-0.25-1"
    (tmp_path / "cells" / f"both-frozen-{old}-0.25-1").mkdir(parents=True)
    assert cell.folder(tmp_path).name == f"both-frozen-{old}-0.25-1"
    assert cell.title == "both, frozen" + (f", {new}" if new != "compact" else "")


@pytest.mark.slow
def test_networks_are_scored_on_another_data_set_too_without_training_anew(trees, tmp_path):
    arguments = ("--data-dir", trees / "DRIVE", "--out", tmp_path / "out", "--folds", 3, "--fractions", 1, "--seeds", 0)
    small = ("--encoders", "random", "--epochs", 1, "--", "--crop", "64", "--batch-size", 2)
    run_script("DownStream/compare.py", *arguments, *small)
    (trained,) = tmp_path.glob("out/cells/*/last.pth")
    before, own = trained.stat().st_mtime_ns, rows(tmp_path / "out" / "results.csv")
    write_drive(tmp_path / "other", 6, 0, (140, 130), seed=1)
    also = ("--also-on", f"drive={tmp_path / 'other' / 'DRIVE'}")
    printed = run_script("DownStream/compare.py", *arguments, *also, *small).stdout
    assert "On DRIVE, training list:" in printed and trained.stat().st_mtime_ns == before
    assert printed.count("pixels of the photographs") == printed.count("pixels of the held-out photographs") == 1
    assert rows(tmp_path / "out" / "results.csv") == own != rows(tmp_path / "out" / "results-drive.csv")
    assert len(rows(tmp_path / "out" / "per_image-drive.csv")) == 6 and (tmp_path / "out" / "curve-drive.png").exists()
    (tmp_path / "other").rename(tmp_path / "moved")
    moved = f"drive={tmp_path / 'moved' / 'DRIVE'}"
    for places, code, why in (
        (["drive"], 2, "must be NAME=FOLDER"),
        ([also[1]], 2, "there is no such folder"),
        ([f"drive={trees / 'DRIVE'}"], 2, "the networks train on these photographs"),
        ([moved, moved], 2, "--also-on names a data set twice"),
        ([moved], 1, rf"has scores of {tmp_path / 'other' / 'DRIVE'}: choose another --out"),
    ):
        assert why in run_script("DownStream/compare.py", *arguments, "--also-on", *places, *small, code=code).stderr
    (tmp_path / "out" / "curve-mine.png").touch()
    run_script("DownStream/compare.py", *arguments, *small)
    assert (tmp_path / "out" / "curve-mine.png").exists()  # somebody's own file
    assert not (tmp_path / "out" / "results-drive.csv").exists() and rows(tmp_path / "out" / "results.csv") == own


@pytest.mark.slow
def test_a_signal_ends_the_trainings_too_and_the_comparison_goes_on(trees, tmp_path):
    command = ["DownStream/compare.py", "--encoders", "random", "--data-dir", trees / "DRIVE"]
    command += ["--out", tmp_path / "out", "--folds", 3, "--seeds", 0, "--fractions", 1]
    small = ("--epochs", 1000, "--", "--crop", "64", "--batch-size", 2)
    process = faults.start(*command, *small, start_new_session=True)
    while not list(tmp_path.glob("out/cells/*/last.pth")) and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and f"stopped and saved in {tmp_path / 'out'}; the same command resumes it" in err
    with pytest.raises(ProcessLookupError):  # no training is left
        os.killpg(process.pid, 0)


@pytest.mark.slow
def test_what_a_training_refuses_is_passed_on(trees, tmp_path):
    arguments = ("--encoders", "random", "--data-dir", trees, "--out", tmp_path / "out", "--seeds", 0)
    stderr = run_script("DownStream/compare.py", *arguments, "--", "--crop", 65, code=1).stderr
    assert "random-frozen-compact-0.05-0: train.py: error: --crop 65: must be a multiple of 32" in stderr
    for wrong in (["random", "random"], ["nonsense"]):
        run_script("DownStream/compare.py", "--encoders", *wrong, code=2)


@pytest.mark.parametrize(
    "typed, how",
    [
        ("--seed", "give --seeds"), ("--epochs=3", "give it before --"), ("--epoch", "give it before --"),
        ("--fine", "give --modes"), ("--val-fraction", "it is always 0"),
    ],
)  # fmt: skip
def test_what_the_comparison_sets_is_refused_after_two_dashes(typed, how, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare.py", "--encoders", "random", "--", "--schedule", "constant", typed])
    with pytest.raises(SystemExit) as ended:
        parse_args()
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {typed} after --: {how}\n")


def test_differences_are_paired_by_photograph_and_seed():
    table = [("a", 0, "x", 0.5), ("a", 1, "x", 0.7), ("a", 0, "y", 0.6), ("b", 0, "x", 0.6), ("b", 1, "x", 0.9)]
    images = [{"encoder": e, "seed": s, "image": i, "f1": f, "fraction": 1.0} for e, s, i, f in table]
    images.append({**images[0], "encoder": "b", "fraction": 0.5, "f1": 0.0})
    assert paired_differences(images, "b", "a", 1.0) == pytest.approx([0.15])  # of x; y has no partner


def test_the_significance_of_a_difference():
    """Against the exact value, all 2^8 signs; and about uniform where there is no difference."""
    rng = np.random.default_rng(0)
    differences = rng.normal(0.5, 1, 8)
    signs = 1 - 2 * (np.arange(256)[:, None] >> np.arange(8) & 1)
    exact = (np.abs((signs * differences).mean(1)) >= abs(differences.mean()) - 1e-12).mean()
    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.01)
    assert sign_flip_p(np.full(10, 0.1)) == pytest.approx(2 / 1024, abs=0.002)
    none = [sign_flip_p(rng.normal(0, 1, 12)) for _ in range(200)]
    assert 0.4 < np.mean(none) < 0.6
