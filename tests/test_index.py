"""The page of a folder without labels, and sorting, in a browser where there is one."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from test_report import Page, make, written

from DownStream.scoring.index import write_index
from DownStream.scoring.pages import shown

PROTOCOL = {
    "source": "<i>mine</i>", "checkpoint": ["/home/somebody/run/best.pth"], "epoch": "4", "trained_on": "drive",
    "threshold_from": "given", "notes": ["<b>a note</b>"],
}  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
NAMES = ["left/ü 1", "b#2", "c<d>&\"e", "50%?", "10", "9"]


def numbers(doubt: str = "", **values: object) -> dict[str, Any]:
    return {"cup marked": 0.25, "width": 4000, "height": 3000, "doubt": doubt, **values}


def index(folder: Path, photographs: dict[str, dict[str, Any]], targets: tuple[str, ...] = ("disc", "cup:1")) -> str:
    folders = {target: folder / target.replace(":", "_") for target in targets} if targets[1:] else {targets[0]: folder}
    write_index(folder, PROTOCOL, dict.fromkeys(targets, 0.5), folders, photographs, ["6 photographs"])
    assert [each.name for each in folder.glob("*")] == ["index.html"]
    return (folder / "index.html").read_text("utf-8")


def test_a_row_has_the_pictures_and_the_numbers(tmp_path):
    html = index(tmp_path, {"a": numbers(), "b": numbers("blurred, dark", width=100)})
    heads, *lines = [[cell.strip() for cell in row] for row in Page(html).tables[0]]
    assert heads == ["image", "picture", "cup marked", "width", "height", "doubt"]
    assert lines[0] == ["a", "disc cup:1", "0.25", "4000", "3000", ""]
    assert lines[1][-1] == "blurred, dark"
    assert re.findall('<tr class="doubtful"><th scope="row">(.*?)</th>', html) == ["b"]
    assert [(each["width"], each["height"], each["loading"]) for each in Page(html).pictures] == [
        ("128", "96", "lazy"), ("4", "128", "lazy"),
    ]  # fmt: skip
    links = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert links[:4] == ["overlay/a.png", "thumbnails/a.jpg", "disc/mask/a.png", "cup_1/mask/a.png"]
    assert 'href="mask/a.png"' in index(tmp_path, {"a": numbers()}, ("vessels",))


def test_names_are_escaped_and_links_quoted(tmp_path):
    html = index(tmp_path, {name: numbers() for name in NAMES})
    page = Page(html)
    assert [row[0].strip() for row in page.tables[0][1:]] == NAMES
    assert [picture["alt"] for picture in page.pictures] == [f"overlay of {name}" for name in NAMES]
    links = re.findall(r'href="(overlay/[^"]*)"', html)
    assert [unquote(link) for link in links] == [f"overlay/{name}.png" for name in NAMES]
    assert not any(re.search(r"[ #<>?&]|%(?![0-9A-F]{2})", link) for link in links)
    assert page.texts["li"] == ["<b>a note</b>", "6 photographs"] and page.texts["h1"] == ["<i>mine</i>"]
    assert "somebody" not in html and not re.search("https?:", html)


def test_a_name_that_is_no_text_does_not_stop_the_page(tmp_path):
    html = index(tmp_path, {"a\udcff": numbers()})
    assert r"a\udcff" in html and 'href="overlay/a%FF.png"' in html


def test_numbers_have_four_digits():
    values = [None, "", "R", 12345678, 0.123456, 1.0, 123456.7, 0.00001234, float("nan")]
    assert [shown(value) for value in values] == [
        "", "", "R", "12345678", "0.1235", "1", "123457", "1.234e-05", "–",
    ]  # fmt: skip


# --- in a browser


def after_clicks(path: Path, *columns: str) -> str:
    """The page as it is after clicks on the heads of these columns."""
    clicks = ";".join(
        f"[...document.querySelectorAll('.sortable button')].find(each => each.textContent === '{column}').click()"
        for column in columns
    )
    copy = path.with_name("clicked.html")
    copy.write_text(path.read_text("utf-8").replace("</body>", f"<script>{clicks}</script></body>"), "utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", copy.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=True).stdout


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium or Chrome")
@pytest.mark.parametrize(
    ("columns", "order"),
    [
        (["area"], ["10", "b#2", "left/ü 1"]),  # by value; what has none comes last
        (["area", "area"], ["left/ü 1", "b#2", "10"]),
        (["image"], ["9", "10", "50%?"]),
        (["area", "doubt"], ["10", "9", "b#2"]),  # equal ones stay in their order
    ],
)
def test_a_click_sorts_the_index(tmp_path, columns, order):
    areas = dict(zip(NAMES, (1e5, 20.5, None, float("nan"), 3, None), strict=True))
    index(tmp_path, {name: numbers("dark" if name in ("9", "10") else "", area=areas[name]) for name in NAMES})
    html = after_clicks(tmp_path / "index.html", *columns)
    assert [row[0].strip() for row in Page(html).tables[0][1:4]] == order
    state = "descending" if columns[1:] == ["area"] else "ascending"
    assert re.findall(r'aria-sort="(ascending|descending)"><button>(.*?)<', html) == [(state, columns[-1])]


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium or Chrome")
def test_the_pictures_of_a_report_follow_its_table(tmp_path):
    written(tmp_path, *make(tmp_path, {"1": 0.9, "2": 0.1, "10": 0.5}))
    page = Page(after_clicks(tmp_path / "report.html", "photograph"))
    assert [row[0].strip() for row in page.tables[-1][1:]] == ["1", "2", "10"]
    assert [picture["alt"] for picture in page.pictures[::4]] == [f"photograph of {name}" for name in ("1", "2", "10")]
