"""What the tests share: the scripts as a user runs them, and small synthetic data in the official trees."""

import argparse
import csv
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "data"
# 64-px crops, and a learning rate that does not depend on the number of epochs.
SMALL_TRAINING = ("--crop", 64, "--batch-size", 2, "--val-every", 1, "--schedule", "constant")
sys.path.insert(0, str(ROOT))

from Dataset.synthetic import write_ddr, write_drishti, write_drive  # noqa: E402


def run_script(
    script: str, *arguments: object, cwd: Path = ROOT, code: int = 0, gpu: bool = False
) -> subprocess.CompletedProcess:
    """Runs a script as a user does, where it sees no GPU unless `gpu`; no traceback, and the exit code is `code`."""
    result = subprocess.run(
        [sys.executable, ROOT / script, *map(str, arguments)],
        cwd=cwd,
        env=os.environ if gpu else {**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return result


def pretrain(data: Path, run_dir: Path, *arguments: object, **kwargs) -> subprocess.CompletedProcess:
    """`main.py` at its smallest: 96 px, batches of 4."""
    small = ("--image-size", 96, "--batch-size", 4, "--cache", run_dir.parent / "cache")
    return run_script("DualScaleNet/main.py", "--data", data, "--run-dir", run_dir, *small, *arguments, **kwargs)


def train(data: Path, run_dir: Path, *arguments: object, **kwargs) -> object:
    """`train.py` at its smallest."""
    options = ("--data-dir", data, "--run-dir", run_dir, *SMALL_TRAINING, *arguments)
    return run_script("DownStream/train.py", *options, **kwargs)


def options_of(monkeypatch: pytest.MonkeyPatch, script: ModuleType, *arguments: object) -> argparse.Namespace:
    """What a script makes of its command line."""
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    return script.parse_args()


def call(monkeypatch: pytest.MonkeyPatch, script: ModuleType, *arguments: object) -> None:
    """A script's main() with these arguments, in this process, which keeps its signal handlers."""
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as the scripts do
    try:
        script.main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def same_tensors(a: Path, b: Path, key: str) -> bool:
    first, second = torch.load(a)[key], torch.load(b)[key]
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small ddr_757 (6 train, 2 val, 4 test) and DRIVE (6 train, 2 test) trees."""
    root = tmp_path_factory.mktemp("Dataset")
    write_ddr(root, 6, 2, 4, (128, 112), seed=0)
    write_drive(root, 6, 2, (150, 140), seed=0)
    return root


@pytest.fixture(scope="session")
def drishti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small Drishti-GS1: 6 train, 1 test."""
    root = tmp_path_factory.mktemp("Dataset")
    write_drishti(root, 6, 1, (160, 150), seed=0)
    return root / "Drishti-GS1_files"


@pytest.fixture(scope="session")
def pretrained(trees: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two epochs of pretraining."""
    folder = tmp_path_factory.mktemp("pretrain") / "run"
    pretrain(trees / "ddr_757", folder, "--epochs", 2)
    return folder


@pytest.fixture(scope="session")
def trained(trees: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two epochs of decoder training, one of four folds held out."""
    folder = tmp_path_factory.mktemp("segment") / "run"
    train(trees / "DRIVE", folder, "--encoder", pretrained / "encoder.pth", "--epochs", 2, "--folds", 3)
    return folder
