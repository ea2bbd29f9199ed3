"""What the HTML pages share: the frame with its style and script, lists, and tables that sort by any column."""

import math
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from DualScaleNet.common.files import UTF8, replacing

ITEMS = "<!-- items -->\n"  # where in a template those of `write_page` stand


def write_page(path: Path, template: str, title: str, items: Iterable[str], **parts: str) -> None:
    """Writes a page: a template of this folder, in the frame of page.html.

    Args:
        title: text.
        items: HTML, written one by one, so that memory stays the same however many there are.
        parts: the template's other HTML, by name.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    content = _template(template).substitute(parts)
    before, after = _template("page.html").substitute(title=escape(title), content=content).split(ITEMS)
    with replacing(path) as temporary, open(temporary, "w", **UTF8) as file:
        file.write(before)
        file.writelines(items)
        file.write(after)


def _template(name: str) -> Template:
    return Template(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def html_facts(facts: dict[str, str]) -> str:
    """Names and texts beside each other."""
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>\n" for name, value in facts.items())


def html_notes(notes: list[str]) -> str:
    """What the reader must not miss; nothing where there is no note."""
    return f'<section class="notes"><h2>Notes</h2>\n{html_list(notes)}</section>\n' if notes else ""


def html_list(sentences: list[str], style: str = "") -> str:
    items = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in sentences)
    return f'<ul class="{style}">\n{items}</ul>' if style else f"<ul>\n{items}</ul>"


def html_legend(colours: dict[str, tuple[int, int, int]]) -> str:
    """Names, each with its colour."""
    return "".join(
        f'<span><i style="background: rgb{colour}"></i>{escape(name)}</span>' for name, colour in colours.items()
    )


def html_heads(names: Iterable[str], ascending: str = "") -> str:
    """Heads of columns, a click on which sorts the table; `ascending` names the one that it is sorted by already."""
    states = {name: "ascending" if name == ascending else "none" for name in names}
    return "".join(
        f'<th scope="col" aria-sort="{state}"><button>{escape(name)}</button></th>\n' for name, state in states.items()
    )


def html_row(name: str, cells: str, numbers: dict[str, Any]) -> str:
    """A photograph's row of a table: its name and first cells, both HTML, and its numbers; shaded if it is doubtful."""
    doubtful = ' class="doubtful"' if numbers["doubt"] else ""
    others = "".join(f"<td>{escape(shown(value))}</td>" for value in numbers.values())
    return f'<tr{doubtful}><th scope="row">{name}</th>{cells}{others}</tr>\n'


def shown(value: Any) -> str:
    """A value of summary.csv or of a score, with four digits; nothing where there is none, a dash for NaN."""
    if value is None or isinstance(value, (int, str)):
        return "" if value is None else str(value)
    if math.isnan(value):
        return "–"
    return f"{value:.4g}" if abs(value) < 10000 else f"{value:.0f}"
