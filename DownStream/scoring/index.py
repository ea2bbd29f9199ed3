"""The page of a folder without labels: a thumbnail and the numbers of each photograph, in a table that sorts."""

import os
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from DownStream.overlays import colours_of
from DownStream.scoring.evaluation import facts
from DownStream.scoring.pages import (
    html_facts,
    html_heads,
    html_legend,
    html_list,
    html_notes,
    html_row,
    write_page,
)

SHOWN = 128  # pixels, the longer side of a thumbnail on the page: less than its own, for screens of many pixels


def write_index(
    out: Path,
    protocol: dict[str, Any],
    thresholds: dict[str, float],
    folders: dict[str, Path],
    numbers: dict[str, dict[str, Any]],
    summary: list[str],
) -> None:
    """Writes `index.html`, which shows the files that lie beside it.

    Args:
        out: where overlay/ID.png and thumbnails/ID.jpg of each photograph are.
        protocol: as for a report.
        thresholds: of the masks, by target.
        folders: where mask/ID.png of each target is.
        numbers: of summary.csv, by photograph, of at least one and of the same names for all.
        summary: sentences on all of them.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    masks = {target: folder.relative_to(out) / "mask" for target, folder in folders.items()}
    columns = list(next(iter(numbers.values())))
    write_page(
        out / "index.html", "index.html", f"{protocol['source']}: {', '.join(thresholds)}",
        (_row(name, values, masks) for name, values in numbers.items()),
        heading=escape(protocol["source"]), facts=html_facts(facts(protocol, thresholds)),
        notes=html_notes(protocol["notes"]), summary=html_list(summary),
        legend=html_legend(colours_of(list(thresholds))), count=str(len(columns)),
        image=html_heads(["image"]), numbers=html_heads(columns),
    )  # fmt: skip


def _row(name: str, numbers: dict[str, Any], masks: dict[str, Path]) -> str:
    """A photograph's row of the table."""
    factor = SHOWN / max(numbers["width"], numbers["height"])
    width, height = (max(1, round(numbers[side] * factor)) for side in ("width", "height"))
    thumbnail, overlay = _link(Path("thumbnails", f"{name}.jpg")), _link(Path("overlay", f"{name}.png"))
    links = " ".join(
        f'<a href="{_link(folder / f"{name}.png")}">{escape(target)}</a>' for target, folder in masks.items()
    )
    image = f'<img src="{thumbnail}" width="{width}" height="{height}" loading="lazy" alt="overlay of {escape(name)}">'
    return html_row(escape(name), f'<td><a href="{overlay}">{image}</a><br>{links}</td>', numbers)


def _link(path: Path) -> str:
    """A path in the page's folder as a URL."""
    return quote(os.fsencode(path.as_posix()))
