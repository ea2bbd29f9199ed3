"""The report of an evaluation: all of it on a page, and for a paper's supplement in Markdown."""

import base64
import io
import math
import os
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from DownStream.data import read_sample
from DownStream.maps import JPEG, read_map
from DownStream.overlays import FALSE, MISSED, TRUE
from DownStream.scoring.agreement import HEADS, lesions_line, numbers_table
from DownStream.scoring.curves import CURVES, curve_svg, write_curves
from DownStream.scoring.evaluation import (
    DRAWINGS,
    REGIONS,
    TITLES,
    Evaluation,
    facts,
    interval,
    mean_and_deviation,
    number,
    protocol_line,
)
from DownStream.scoring.metrics import MEASURES
from DownStream.scoring.pages import (
    html_facts,
    html_heads,
    html_legend,
    html_list,
    html_notes,
    html_row,
    shown,
    write_page,
)
from DownStream.sets.base import Sample
from DualScaleNet.common.files import UTF8, read_image, replacing
from DualScaleNet.common.script import progress_bar

Measures = dict[str, dict[str, Any]]  # of an `Evaluation`, by region

NUMBERS = "Read off masks and labels alike, in px and px2, as in summary.csv; each photograph's are in numbers.csv."
STRIPS = 100  # photographs shown, the worst ones
WORST = 10  # photographs whose overlays report.md links to
PICTURE = 320  # pixels, the longer side of a picture in a strip
ORDER = "Scores are those of the whole image. The lowest F1 comes first; photographs without F1 come last."


def write_report(
    folder: Path,
    protocol: dict[str, Any],
    evaluation: Evaluation,
    samples: list[Sample],
    numbers: dict[str, dict[str, Any]],
) -> None:
    """Writes `report.html`, one file that needs no other, and for a paper's supplement `report.md` with `curves.png`.

    Args:
        folder: where predict.py left probability/ID and overlay/ID.png of each photograph.
        protocol: what was measured and how; its "notes", if it has any, are sentences that the reader must not miss,
            its "map_format" is the suffix of probability/ID.
        evaluation: of at least one photograph.
        samples: where the photographs and labels are; those that were not evaluated are skipped.
        numbers: of summary.csv, by photograph, of the same names for all.

    Raises:
        UserError: a photograph, a label or a saved map cannot be read.
    """
    measures = evaluation.measures()
    _write_html(folder, protocol, evaluation, {sample.id: sample for sample in samples}, numbers)
    _write_markdown(folder, protocol, evaluation, measures)
    write_curves(folder / "curves.png", evaluation)


def _write_html(
    folder: Path,
    protocol: dict[str, Any],
    evaluation: Evaluation,
    samples: dict[str, Sample],
    numbers: dict[str, dict[str, Any]],
) -> None:
    measures, rows, ranking = evaluation.measures(), evaluation.rows["whole"], _ranking(evaluation)
    left_out = len(ranking) - STRIPS
    omission = f" Of the last {left_out} in this order no pictures are shown." if left_out > 0 else ""

    def strips() -> Iterator[str]:
        for place, name in enumerate(progress_bar(ranking[:STRIPS], "report", unit="photo")):
            yield _strip(folder, protocol, samples[name], rows[name], numbers[name], f"photograph-{place}")

    def row(place: int, name: str) -> str:
        text = f'<a href="#photograph-{place}">{escape(name)}</a>' if place < STRIPS else escape(name)
        scores = "".join(f"<td>{number(rows[name][key])}</td>" for key in MEASURES)
        return html_row(text, scores, numbers[name])

    titles = [TITLES[key] for key in MEASURES]
    write_page(
        folder / "report.html", "report.html", _title(protocol), strips(),
        heading=escape(_title(protocol)), protocol=escape(protocol_line(protocol)),
        facts=html_facts(_facts(protocol)), notes=html_notes(protocol.get("notes", [])),
        tables="\n".join(_html_table(region, measures[region]) for region in REGIONS),
        remarks=html_list(_remarks(evaluation), "remarks"), numbers=_html_numbers(protocol),
        curves="\n".join(curve_svg(area, evaluation) for area in CURVES), order=ORDER + omission,
        heads=html_heads(["photograph", *titles, *numbers[ranking[0]]], ascending=TITLES["f1"]),
        rows="".join(row(place, name) for place, name in enumerate(ranking)),
        legend=html_legend({"true positive": TRUE, "missed": MISSED, "false positive": FALSE}),
    )  # fmt: skip


def _html_table(region: str, values: dict[str, Any]) -> str:
    heads = ["Measure", "Pooled<br>[95 % CI]", "Per image, mean ± sd<br>[95 % CI of the mean]"]
    heads += [title.replace(" ", "<br>") for title in _drawings(values).values()]
    body = ""
    for title, pooled, pooled_interval, mean, mean_interval, *drawings in _table(values):
        cells = [f"{pooled}<small>{pooled_interval}</small>", f"{mean}<small>{mean_interval}</small>", *drawings]
        body += f'<tr><th scope="row">{title}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"
    head = "".join(f'<th scope="col">{head}</th>' for head in heads)
    parts = f"<caption>{REGIONS[region].capitalize()}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>"
    return f'<div class="scroll"><table>\n{parts}\n</table></div>'


def _html_numbers(protocol: dict[str, Any]) -> str:
    """The error of the numbers, nothing where none were read off."""
    if not protocol.get("numbers"):
        return ""
    head = "".join(f'<th scope="col">{head}</th>' for head in HEADS)
    body = ""
    for name, *cells in numbers_table(protocol["numbers"]):
        body += f'<tr><th scope="row">{escape(name)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"
    table = f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>\n</table></div>'
    return f"<h2>Numbers</h2>\n{table}\n{html_list(_number_remarks(protocol), 'remarks')}\n"


def _number_remarks(protocol: dict[str, Any]) -> list[str]:
    lesions = protocol.get("lesions")
    return [NUMBERS, *([lesions_line(lesions)] if lesions else [])]


def _strip(
    folder: Path,
    protocol: dict[str, Any],
    sample: Sample,
    scores: dict[str, float],
    numbers: dict[str, Any],
    anchor: str,
) -> str:
    """Photograph, label, probability and overlay of one photograph, side by side, and its numbers."""
    photograph = read_sample(sample)
    levels = read_map(folder / "probability" / f"{sample.id}.{protocol['map_format']}")
    pictures = {
        "photograph": photograph.pixels,
        "label": photograph.labels[protocol["target"]].numpy() * np.uint8(255),
        "probability": (levels * 255).astype(np.uint8),
        "overlay": read_image(folder / "overlay" / f"{sample.id}.png"),
    }
    name = escape(sample.id)
    figures = "".join(
        f'<figure><img src="{_jpeg(array)}" alt="{kind} of {name}"><figcaption>{kind}</figcaption></figure>\n'
        for kind, array in pictures.items()
    )
    values = "".join(f"<span>{TITLES[key]} {number(scores[key])}</span>" for key in ("f1", "pr_auc", "sensitivity"))
    known = html_facts({column: text for column, value in numbers.items() if (text := shown(value))})
    return (
        f'<section class="strip" id="{anchor}"><h3>{name} {values}</h3>\n<div class="pictures">\n{figures}'
        f'<dl class="numbers">\n{known}</dl></div></section>\n'
    )


def _jpeg(array: np.ndarray) -> str:
    """A picture (H, W) or (H, W, 3) uint8, shrunk, as a data URL."""
    image, buffer = Image.fromarray(array), io.BytesIO()
    image.thumbnail((PICTURE, PICTURE))
    image.save(buffer, "JPEG", **JPEG)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _write_markdown(folder: Path, protocol: dict[str, Any], evaluation: Evaluation, measures: Measures) -> None:
    rows, ranking = evaluation.rows["whole"], _ranking(evaluation)
    lines = [f"# {_markdown(_title(protocol))}", "", _markdown(protocol_line(protocol)), ""]
    lines += [f"- {name}: {_markdown(value)}" for name, value in _facts(protocol).items()]
    if protocol.get("notes"):
        lines += ["", "## Notes", "", *(f"- **{_markdown(note)}**" for note in protocol["notes"])]
    for region, values in measures.items():
        heads = ["Measure", "Pooled", "95 % CI", "Per image, mean ± sd", "95 % CI of the mean"]
        heads += _drawings(values).values()
        lines += ["", f"## Scores, {REGIONS[region]}", "", *_markdown_table(heads, _table(values))]
    lines += ["", *(f"- {sentence}" for sentence in _remarks(evaluation))]
    if protocol.get("numbers"):
        cells = [[_markdown(name), *values] for name, *values in numbers_table(protocol["numbers"])]
        lines += ["", "## Numbers", "", *_markdown_table(HEADS, cells), ""]
        lines += [f"- {sentence}" for sentence in _number_remarks(protocol)]
    lines += ["", "## Curves of all pixels pooled", "", "![Precision-recall and ROC curves](curves.png)"]
    table = [[_markdown(name), *(number(rows[name][key]) for key in MEASURES)] for name in ranking]
    heads = ["Photograph", *(TITLES[key] for key in MEASURES)]
    lines += ["", "## Photographs", "", ORDER, "", *_markdown_table(heads, table)]
    worst = [name for name in ranking if not math.isnan(rows[name]["f1"])][:WORST]
    colours = "green true positive, blue missed, red false positive"
    lines += ["", f"Overlays of the photographs with the lowest F1 ({colours}):", ""] if worst else []
    lines += [f"- [{_markdown(name)}]({quote(os.fsencode(f'overlay/{name}.png'))})" for name in worst]
    with replacing(folder / "report.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", **UTF8)


def _markdown_table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (heads, ["---"] + ["---:"] * (len(heads) - 1), *rows)]


def _markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>&|~$#])", r"\\\1", text)


def _ranking(evaluation: Evaluation) -> list[str]:
    """The photographs' names, the lowest F1 first, those without F1 last."""
    f1 = {name: row["f1"] for name, row in evaluation.rows["whole"].items()}
    return sorted(f1, key=lambda name: (math.inf if math.isnan(f1[name]) else f1[name], name))


def _title(protocol: dict[str, Any]) -> str:
    return f"{protocol['source']}: {protocol['target']}"


def _facts(protocol: dict[str, Any]) -> dict[str, str]:
    return facts(protocol, {protocol["target"]: protocol["threshold"]})


def _drawings(values: dict[str, Any]) -> dict[str, str]:
    """The names and titles of the drawings that were scored too."""
    return {kind: title for kind, title in DRAWINGS.items() if kind in values}


def _table(values: dict[str, Any]) -> list[list[str]]:
    """A region's rows: measure, pooled, interval, mean ± sd, interval, and those of the drawings that there are."""
    rows = []
    for name in MEASURES:
        each = values["per_image"][name]
        row = [TITLES[name], number(values["pooled"][name]), interval(values["pooled_interval"][name])]
        row += [mean_and_deviation(each), interval(each["interval"])]
        for kind in _drawings(values):  # one point of a curve, without an area under it
            row.append("–" if name in CURVES else number(values[kind][name]))
        rows.append(row)
    return rows


def _remarks(evaluation: Evaluation) -> list[str]:
    """What belongs under the tables."""
    measures = evaluation.measures()
    undefined = {region: values["per_image"]["f1"]["undefined"] for region, values in measures.items()}
    counts = ", ".join(f"{count} ({REGIONS[region]})" for region, count in undefined.items())
    remarks = [
        "Pooled: over all pixels of all images together. The authors' measures are F1 and PR-AUC of the whole image.",
        "95 % CI: percentile bootstrap over images, 2000 draws.",
        f"Images whose label has no positive pixel have no F1 and are left out of its mean: {counts}.",
    ]
    remarks.append(
        f"{evaluation.calibration_line().capitalize()}. On average probabilities are so far off the share of positives."
    )
    if "postprocessed" in measures["whole"]:
        remarks.append(
            "Post-processed mask: as in mask/ and the overlays, pooled. All else is of the probability map as it is."
        )
    if "observer" in measures["whole"]:
        remarks.append(
            "Second observer: that person's annotations scored against the same labels, pooled over the images that "
            "have one. A binary annotation has no curve, so it has no area under one."
        )
    return remarks + evaluation.source_lines()
