"""The report: the same numbers as scores.json, the failures first, one HTML file that asks for no other."""

import base64
import inspect
import io
import json
import math
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from DownStream.maps import MAP_FORMATS, read_map, write_result
from DownStream.overlays import comparison
from DownStream.scoring import curves, report
from DownStream.scoring.evaluation import REGIONS, TITLES, Evaluation
from DownStream.scoring.metrics import MEASURES, bootstrap, pr_curve, to_levels
from DownStream.scoring.report import write_report
from DownStream.sets.base import Label, Sample
from DualScaleNet.common.files import read_image, write_image
from DualScaleNet.common.script import UserError

HEIGHT, WIDTH = 50, 60
VOID = {"meta", "img", "br", "link", "hr", "input"}
PROTOCOL = {
    "source": "DRIVE test", "target": "vessels", "images": 3, "threshold": 0.5, "threshold_from": "given",
    "field_of_view": "shipped", "checkpoint": ["/home/somebody/runs/best.pth"], "epoch": "400", "trained_on": "drive",
    "map_format": "png",
}  # fmt: skip


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch):
    """Intervals are tested elsewhere: here 2000 draws would only take time."""
    monkeypatch.setattr("DownStream.scoring.evaluation.bootstrap", partial(bootstrap, resamples=50))


class Page(HTMLParser):
    """A page's tables, list items, pictures and strips; fails where a tag is not closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}  # by innermost tag
        self.tables: list[list[list[str]]] = []
        self.pictures: list[dict[str, str]] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.pictures.append({name: value or "" for name, value in attributes})
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attributes if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if text.strip():
            self.texts.setdefault(self.open[-1], []).append(text.strip())
            if "tr" in self.open:
                self.tables[-1][-1][-1] += text + " "


def make(folder: Path, qualities: dict[str, float | None], observer: bool = False) -> tuple[Evaluation, list[Sample]]:
    """Photographs by name with the quality of their maps, None for one without a positive pixel: files and scores."""
    rng = np.random.default_rng(0)
    evaluation, samples = Evaluation(0.5), []
    fov = np.zeros((HEIGHT, WIDTH), bool)
    fov[3:-3, 3:-3] = True
    for number, (name, quality) in enumerate(qualities.items()):
        image = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        label = (rng.random((HEIGHT, WIDTH)) < 0.2) & (quality is not None)
        levels = to_levels(np.clip((quality or 0) * (label - 0.5) + rng.normal(0.4, 0.2, label.shape), 0, 1))
        drawn = label ^ (rng.random(label.shape) < 0.05)
        photograph = folder / "data" / f"{number}.png"
        write_image(photograph, image)
        write_image(folder / "data" / f"{number}_label.png", label * np.uint8(255))
        write_image(folder / "probability" / f"{name}.png", levels)
        write_image(folder / "overlay" / f"{name}.png", comparison(image, levels >= 32768, label))
        labels = {"vessels": Label(photograph.with_name(f"{number}_label.png"))}
        samples.append(Sample(name, photograph, labels))
        evaluation.add(name, levels, label, fov, {"observer": drawn} if observer else None)
    return evaluation, samples


def numbers_of(samples: list[Sample]) -> dict[str, dict[str, object]]:
    """Some of those of summary.csv, in which every second photograph is doubtful."""
    return {
        sample.id: {"vessels parts": 7 - k, "mean width px": None, "sharpness": 2 / 3, "doubt": "dark" * (k % 2)}
        for k, sample in enumerate(samples)
    }


def written(folder: Path, evaluation: Evaluation, samples: list[Sample], **facts: object) -> tuple[str, str, dict]:
    """report.html, report.md and scores.json."""
    protocol = {**PROTOCOL, "images": len(evaluation), **facts}
    write_report(folder, protocol, evaluation, samples, numbers_of(samples))
    evaluation.write(folder, protocol)
    assert not list(folder.glob(".*"))  # no temporary file stays
    scores = json.loads((folder / "scores.json").read_text())["measures"]
    return (folder / "report.html").read_text("utf-8"), (folder / "report.md").read_text("utf-8"), scores


def shown(value: float | None, digits: int = 4) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def expected_rows(values: dict) -> list[list[str]]:
    """What a region's table must say, by scores.json."""
    rows = []
    for name in MEASURES:
        low, high = values["pooled_interval"][name]
        each = values["per_image"][name]
        row = [shown(values["pooled"][name]), f"[{shown(low, 3)}, {shown(high, 3)}]"]
        row += [f"{shown(each['mean'])} ± {shown(each['std'])}"]
        row += ["[{}, {}]".format(*(shown(bound, 3) for bound in each["interval"]))]
        if "observer" in values:
            row.append("–" if name in ("pr_auc", "auroc") else shown(values["observer"][name]))
        rows.append(row)
    return rows


def markdown_tables(text: str) -> list[list[list[str]]]:
    """The cells of each table, without the line under its head."""
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    cells = [[re.split(r" \| ", line.strip("| ")) for line in table.strip().split("\n")] for table in tables]
    return [[row for row in table if not row[0].startswith("---")] for table in cells]


def strips(page: Page) -> list[str]:
    """The names in the order of their strips."""
    assert [picture["alt"].split(" of ")[0] for picture in page.pictures] == [
        "photograph", "label", "probability", "overlay",
    ] * (len(page.pictures) // 4)  # fmt: skip
    return [picture["alt"].split(" of ", 1)[1] for picture in page.pictures[::4]]


@pytest.mark.parametrize("observer", [False, True])
def test_numbers_are_those_of_scores_json(tmp_path: Path, observer: bool):
    html, markdown, scores = written(tmp_path, *make(tmp_path, {"1": 0.5, "2": 0.9, "3": 0.2}, observer))
    page = Page(html)
    *summaries, per_image = markdown_tables(markdown)
    assert len(page.tables) - 1 == len(summaries) == len(REGIONS)
    for region, in_html, in_markdown in zip(REGIONS, page.tables[:-1], summaries, strict=True):
        expected = expected_rows(scores[region])
        assert [row[1:] for row in in_markdown[1:]] == expected
        assert [" ".join(row[1:]).split() for row in in_html[1:]] == [" ".join(row).split() for row in expected]
        for table in (in_html, in_markdown):
            assert [row[0].strip() for row in table[1:3]] == ["F1 (Dice)", "PR-AUC"]
            assert any("observer" in cell for cell in table[0]) == observer
    assert [len(row) for row in per_image] == [1 + len(MEASURES)] * 4
    areas = [f"{name} {shown(scores[region]['pooled'][key])}" for region in REGIONS for name, key in
             (("PR-AUC", "pr_auc"), ("AUROC", "auroc"))]  # fmt: skip
    assert all(f"{area}" in html for area in areas)  # the legends, whose letters are drawn, name them in comments
    assert ("second observer" in html) == observer and ("Second observer:" in markdown) == observer
    assert "2000 draws" in html and inspect.signature(bootstrap).parameters["resamples"].default == 2000


def test_failures_come_first_and_undefined_last(tmp_path: Path):
    evaluation, samples = make(tmp_path, {"empty": None, "good": 0.9, "bad": 0.1, "fair": 0.5, "blank": None})
    extra = Sample("unlabelled", tmp_path / "data" / "0.png")
    html, markdown, scores = written(tmp_path, evaluation, [extra, *samples])
    page, order = Page(html), ["bad", "fair", "good", "blank", "empty"]
    assert strips(page) == order
    assert [row[0] for row in markdown_tables(markdown)[-1][1:]] == order
    rows = evaluation.rows["whole"]
    values = [f"{title} {shown(rows[name][key])}" for name in order for title, key in
              (("F1 (Dice)", "f1"), ("PR-AUC", "pr_auc"), ("Sensitivity", "sensitivity"))]  # fmt: skip
    assert page.texts["span"][-len(values) :] == values
    assert scores["whole"]["per_image"]["f1"]["undefined"] == 2
    for text in (html, markdown):
        assert "have no F1 and are left out of its mean: 2 (whole image), 2 (field of view)." in text
    assert re.findall(r"\(overlay/(.*)\.png\)", markdown) == ["bad", "fair", "good"]  # the worst, as far as it is known


def test_numbers_stand_beside_the_pictures_and_in_the_table(tmp_path: Path):
    evaluation, samples = make(tmp_path, {"good": 0.9, "bad": 0.1})
    html, _, _ = written(tmp_path, evaluation, samples)
    page = Page(html)
    heads, *lines = [[cell.strip() for cell in row] for row in page.tables[-1]]
    assert heads == ["photograph", *(TITLES[name] for name in MEASURES), *numbers_of(samples)["bad"]]
    scores = [[shown(evaluation.rows["whole"][name][key]) for key in MEASURES] for name in ("bad", "good")]
    assert lines == [["bad", *scores[0], "6", "", "0.6667", "dark"], ["good", *scores[1], "7", "", "0.6667", ""]]
    assert re.findall('<tr class="doubtful"><th scope="row"><a href="#photograph-0">(.*?)<', html) == ["bad"]
    names = [name for name in page.texts["dt"] if name in numbers_of(samples)["bad"]]
    assert names == ["vessels parts", "sharpness", "doubt", "vessels parts", "sharpness"]  # what is empty is left out
    assert page.texts["dd"][-5:] == ["6", "0.6667", "dark", "7", "0.6667"]
    states = re.findall(r'<th scope="col" aria-sort="(\w+)"><button>([^<]*)</button>', html)
    assert [name for _, name in states] == heads
    assert [name for state, name in states if state == "ascending"] == ["F1 (Dice)"]


@pytest.mark.parametrize("suffix", MAP_FORMATS)
def test_maps_are_read_in_each_format(tmp_path: Path, suffix: str):
    evaluation, samples = make(tmp_path, {"1": 0.5})
    saved = read_map(tmp_path / "probability" / "1.png")
    (tmp_path / "probability" / "1.png").unlink()
    write_result(tmp_path / "probability" / f"1.{suffix}", to_levels(saved) if suffix == "png" else saved)
    html, _, _ = written(tmp_path, evaluation, samples, map_format=suffix)
    picture = base64.b64decode(Page(html).pictures[2]["src"].split(",")[1])
    assert np.abs(np.asarray(Image.open(io.BytesIO(picture))) / 255 - saved).mean() < 0.03
    (tmp_path / "probability" / f"1.{suffix}").write_bytes(b"II*")
    with pytest.raises(UserError, match=rf"cannot read .*1\.{suffix} \("):
        written(tmp_path, evaluation, samples, map_format=suffix)


def test_no_f1_at_all(tmp_path: Path):
    page = Page(written(tmp_path, *make(tmp_path, {"1": None, "2": None}))[0])
    assert [cell.strip() for cell in page.tables[0][1][1:]] == ["– –", "– –"]
    assert strips(page) == ["1", "2"]


def test_one_photograph_has_no_interval(tmp_path: Path):
    evaluation, samples = make(tmp_path, {"1": 0.5})
    html, markdown, scores = written(tmp_path, evaluation, samples)
    f1 = shown(scores["whole"]["pooled"]["f1"])
    assert f"f1 {f1} – {f1} " in " ".join(evaluation.table().split())
    assert Page(html).tables[0][1][1].split() == [f1, "–"]
    assert markdown_tables(markdown)[0][1][1:] == [f1, "–", f1, "–"]


def test_page_stands_alone(tmp_path: Path):
    html, markdown, _ = written(tmp_path, *make(tmp_path, {"1": 0.5, "2": 0.7}))
    page = Page(html)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"' <)]*", html)) <= namespaces
    assert not re.search(r"<(link|iframe|script )|@import", html) and html.count("<script") == 1
    assert all(target.startswith(("#", "data:")) for target in re.findall(r'(?:href|src)="([^"]*)', html))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", html))
    assert len(page.ids) == len(set(page.ids))
    assert {target.removeprefix("#") for target in re.findall(r'href="([^"]*)', html)} <= set(page.ids)
    assert "somebody" not in html + markdown and "best.pth" in html and "best.pth" in markdown
    assert Image.open(tmp_path / "curves.png").size[0] > 1000
    again = written(tmp_path, *make(tmp_path, {"1": 0.5, "2": 0.7}))
    assert again[:2] == (html, markdown)


def test_pictures_are_the_saved_ones(tmp_path: Path):
    html, _, _ = written(tmp_path, *make(tmp_path, {"1": 0.9}))
    data = [base64.b64decode(picture["src"].split(",")[1]) for picture in Page(html).pictures]
    photograph, label, probability, painted = (np.asarray(Image.open(io.BytesIO(item))).astype(int) for item in data)
    assert photograph.shape == painted.shape == (HEIGHT, WIDTH, 3) and label.shape == (HEIGHT, WIDTH)
    levels = np.asarray(Image.open(tmp_path / "probability" / "1.png")).astype(int)
    assert np.abs(probability - levels / 257).mean() < 8
    assert ((label > 128) == (read_image(tmp_path / "data" / "0_label.png", "L") > 0)).mean() > 0.99
    assert np.abs(painted - read_image(tmp_path / "overlay" / "1.png")).mean() < 16


def test_large_photographs_are_shrunk():
    data = base64.b64decode(report._jpeg(np.zeros((600, 1200), np.uint8)).split(",")[1])
    assert Image.open(io.BytesIO(data)).size == (320, 160)


def test_names_are_escaped(tmp_path: Path):
    name = 'a<b>&"c'
    notes = ["<script>alert(1)</script> & more"]
    evaluation, samples = make(tmp_path, {name: 0.5, "p|q_r": 0.9})
    html, markdown, _ = written(
        tmp_path, evaluation, samples, source="<i>mine</i>", trained_on="x|*y*", notes=notes
    )
    page = Page(html)
    assert strips(page) == [name, "p|q_r"]
    assert page.texts["li"][0] == notes[0] and page.texts["title"] == ["<i>mine</i>: vessels"]
    assert "<b>" not in html and "<script>alert" not in html and "<i>mine" not in html
    assert not re.search(r"(?<!\\)<", markdown)
    assert r'a\<b\>\&"c' in markdown and r"p\|q\_r" in markdown and r"x\|\*y\*" in markdown
    (target, _) = re.findall(r"\]\((overlay/.*)\)", markdown)
    assert unquote(target) == f"overlay/{name}.png" and not re.search(r'[<>"& ]', target)
    assert (tmp_path / unquote(target)).exists()


def test_notes_and_threshold(tmp_path: Path):
    evaluation, samples = make(tmp_path, {"1": 0.5, "2": 0.6})
    html, markdown, _ = written(tmp_path, evaluation, samples, notes=[], window=None, tta=False)
    assert 'class="notes"' not in html and "## Notes" not in markdown
    assert "windows" not in html and "test-time" not in markdown
    notes = ["The disc was not found in 2 photographs: 3, 7.", "Second note."]
    facts = {"threshold": 0.36512, "threshold_from": "train", "window": 512, "tta": True}
    html, markdown, _ = written(tmp_path, evaluation, samples, notes=notes, **facts)
    assert Page(html).texts["li"][:2] == notes and 'class="notes"' in html
    assert all(f"- **{note}**\n" in markdown for note in notes)
    for text in (html, markdown):
        assert "windows of 512 px" in text and "test-time augmentation" in text
        assert "0.3651, best pooled F1 on the train photographs" in text
        assert "DRIVE test, vessels: 2 photographs at native size" in text


def test_only_the_worst_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report, "STRIPS", 2)
    monkeypatch.setattr(report, "WORST", 1)
    html, markdown, _ = written(tmp_path, *make(tmp_path, {"1": 0.9, "2": 0.6, "3": 0.3, "4": None}))
    assert strips(Page(html)) == ["3", "2"]
    assert "Of the last 2 in this order no pictures are shown" in html
    assert [row[0].strip() for row in Page(html).tables[-1][1:]] == ["3", "2", "1", "4"]
    assert re.findall(r'href="([^"]*)">\d</a>', html) == ["#photograph-0", "#photograph-1"]
    assert [row[0] for row in markdown_tables(markdown)[-1][1:]] == ["3", "2", "1", "4"]
    assert markdown.count("(overlay/") == 1


def test_curves_keep_their_shape_when_thinned():
    rng = np.random.default_rng(0)
    label = rng.random(200000) < 0.1
    levels = to_levels(np.clip(rng.beta(0.1, 0.3, label.size) * 0.7 + 0.3 * label, 0, 1))
    recall, precision = pr_curve(curves.Histogram.of(levels, label))
    x, y = curves._thinned(recall, precision)
    assert len(recall) > 10000 and len(x) <= curves.CURVE_POINTS
    assert (x[0], y[0], x[-1], y[-1]) == (recall[0], precision[0], recall[-1], precision[-1])
    assert abs(np.trapezoid(y, x) - np.trapezoid(precision, recall)) < 1e-3


def test_points_lie_on_the_curves(tmp_path: Path):
    evaluation, _ = make(tmp_path, {"1": 0.5})
    pooled = evaluation.pooled["whole"]
    scores = evaluation.measures()["whole"]["pooled"]
    (recall,), (precision,) = curves._point("pr_auc", pooled, 0.5)
    (fall_out,), (sensitivity,) = curves._point("auroc", pooled, 0.5)
    assert recall == sensitivity == pytest.approx(scores["sensitivity"])
    assert 2 * precision * recall / (precision + recall) == pytest.approx(scores["f1"])
    assert 1 - fall_out == pytest.approx(scores["specificity"])
    nothing = curves._point("pr_auc", evaluation.pooled["whole"].zero(), 0.5)
    assert nothing == ([], [])
