"""Masks go into PVBM and VascX by the command lines in docs/numbers.md, where these are installed."""

import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

from DualScaleNet.common.files import write_image

COMMANDS = [
    line.strip() for line in (ROOT / "docs" / "numbers.md").read_text("utf-8").splitlines() if "python -c" in line
]


def numbers_from(package: str, folder: Path) -> list[float]:
    """What the page's command line for a package prints of a tree of vessels 8 px wide."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    mask = np.zeros((600, 600), np.uint8)
    for angle in range(0, 360, 45):
        x, y = np.cos(np.deg2rad(angle + 7)), np.sin(np.deg2rad(angle + 7))
        cv2.line(mask, (300, 300), (round(300 + 270 * x), round(300 + 270 * y)), 255, 8)
    write_image(folder / "mask" / "ID.png", mask)
    (command,) = [line for line in COMMANDS if f"from {package}" in line]
    _, *arguments = shlex.split(command)
    output = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout
    return [float(word) for word in output.split()]


def test_pvbm(tmp_path):
    *dimensions, length = numbers_from("PVBM", tmp_path)
    assert len(dimensions) == 3 and all(1 < each < 2 for each in dimensions) and length > 0


def test_vascx(tmp_path):
    tortuosity, calibre = numbers_from("vascx", tmp_path)
    assert 1 <= tortuosity < 1.05 and calibre == pytest.approx(8, abs=1.5)
