"""A run's folder: its options, one row an epoch in `log.csv`, `curves.png`, and TensorBoard when it is installed."""

import csv
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib
import numpy
import PIL
import torch
import torchvision
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from DualScaleNet.common.files import replacing, write_json, writing
from DualScaleNet.common.script import git_commit


class RunLog:
    """Rows of numbers, one an epoch, kept in memory, in `log.csv` and in TensorBoard.

    Args:
        folder: the run's folder.
        rows: those of the checkpoint to resume from. What a killed run may have written later is dropped: it will be
            written again.
    """

    def __init__(self, folder: Path, rows: list[dict[str, float | None]]) -> None:
        self.path = folder / "log.csv"
        self.rows = rows
        self._rewrite()
        self.board = None
        with suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(folder / "tensorboard", purge_step=len(rows) + 1)

    def append(self, row: dict[str, float | None]) -> None:
        """Adds a row; None is a value not measured in this epoch. Every row has the same keys, `epoch` among them.

        A run that an older version began may lack some: they become None.
        """
        self.rows.append(row)
        if self.rows[0].keys() == row.keys():
            self._write(self.path, [row], header=len(self.rows) == 1)
        else:
            self.rows[:] = [dict.fromkeys(row) | each for each in self.rows]
            self._rewrite()
        if self.board:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self.board.add_scalar(name, value, row["epoch"])

    def _rewrite(self) -> None:
        with replacing(self.path) as temporary:
            self._write(temporary, self.rows, header=True)

    def _write(self, path: Path, rows: list[dict[str, float | None]], header: bool) -> None:
        with writing(self.path), open(path, "a", newline="") as file:
            if rows:
                writer = csv.DictWriter(file, self.rows[0])  # in the header's order
                if header:
                    writer.writeheader()
                writer.writerows(rows)


def draw_curves(path: Path, rows: list[dict[str, Any]], panels: dict[str, list[str]]) -> None:
    """Draws the rows of `log.csv`: a panel for each title, a line for each of its columns."""
    figure = Figure(figsize=(4.5 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    row_of_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    marker = "." if len(rows) < 30 else None  # a few epochs are points, many a line
    for axes, (title, columns) in zip(row_of_axes, panels.items(), strict=True):
        for column in columns:
            points = [(row["epoch"], row[column]) for row in rows if row.get(column) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), label=column.replace("_", " "), marker=marker)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def write_options(folder: Path, options: dict[str, Any]) -> None:
    """Writes `args.json`: the options, the command line, and the versions that the run used."""
    modules = (torch, torchvision, numpy, PIL, matplotlib)
    versions = {"python": sys.version.split()[0]} | {module.__name__: module.__version__ for module in modules}
    command = " ".join(sys.argv)
    write_json(folder / "args.json", {"options": options, "command": command, "commit": git_commit(), **versions})
