"""Stopped by a signal and started again with the same command, a run ends as an undisturbed one, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, SMALL_TRAINING, pretrain, rows, same_tensors, train

pytestmark = pytest.mark.slow


def stop(number: int, script: str, run: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Starts a script and sends it a signal once its first checkpoint, after the first step, is there."""
    process = subprocess.Popen(
        [sys.executable, ROOT / script, "--run-dir", run, *map(str, arguments)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (run / "last.pth").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def assert_stopped(result: subprocess.CompletedProcess, number: int, run: Path) -> None:
    assert result.returncode == 128 + number, result.stderr
    assert f"stopped and saved in {run}; the same command resumes it" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(run.glob(".*.tmp*"))  # which only a kill may leave behind


def same_log(ours: Path, theirs: Path) -> bool:
    """Apart from the speed."""
    first, second = rows(ours), rows(theirs)
    for row in first + second:
        row.pop("images_per_second")
    return first == second


def test_pretraining(trees, pretrained, tmp_path):
    number = signal.SIGTERM
    data, run = trees / "ddr_757", tmp_path / "run"
    small = ("--image-size", 96, "--batch-size", 4, "--cache", tmp_path / "cache", "--epochs", 2)
    assert_stopped(stop(number, "DualScaleNet/main.py", run, "--data", data, *small), number, run)
    pretrain(data, run, "--epochs", 2)
    assert same_tensors(run / "last.pth", pretrained / "last.pth", "model")
    assert same_tensors(run / "encoder.pth", pretrained / "encoder.pth", "state")
    assert same_log(run / "log.csv", pretrained / "log.csv")


def test_segmentation(trees, pretrained, trained, tmp_path):
    number = signal.SIGINT
    data, run = trees / "DRIVE", tmp_path / "run"
    common = ("--encoder", pretrained / "encoder.pth", "--folds", 3, "--epochs", 2)
    assert_stopped(stop(number, "DownStream/train.py", run, "--data-dir", data, *common, *SMALL_TRAINING), number, run)
    train(data, run, *common)
    assert same_tensors(run / "last.pth", trained / "last.pth", "model")
    assert same_log(run / "log.csv", trained / "log.csv")
