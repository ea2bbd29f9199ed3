"""Pictures of an evaluation: the overlay of a mask on its photograph, and the report that puts all of it on a page."""

import base64
import io
import math
import os
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from DownStream.data import read_sample
from DownStream.scoring.agreement import HEADS, lesions_line, numbers_table
from DownStream.scoring.evaluation import (
    DRAWINGS,
    REGIONS,
    Evaluation,
    interval,
    mean_and_deviation,
    number,
    protocol_line,
)
from DownStream.scoring.metrics import MEASURES, Histogram, pr_curve, roc_curve, threshold_level
from DownStream.sets.base import Sample
from DualScaleNet.common.files import UTF8, read_image, replacing
from DualScaleNet.common.script import progress_bar

Measures = dict[str, dict[str, Any]]  # of an `Evaluation`, by region


class Curve(NamedTuple):
    """How a curve is drawn: from the points of a histogram, with the legend in a corner that it leaves free."""

    title: str
    points: Callable[[Histogram], tuple[np.ndarray, np.ndarray]]
    xlabel: str
    ylabel: str
    corner: Literal["lower left", "lower right"]


TRUE, MISSED, FALSE = (60, 220, 90), (60, 120, 255), (255, 60, 50)  # green, blue, red
TITLES = {
    "f1": "F1 (Dice)", "pr_auc": "PR-AUC", "auroc": "AUROC", "sensitivity": "Sensitivity",
    "specificity": "Specificity", "accuracy": "Accuracy", "iou": "IoU", "mcc": "MCC",
}  # fmt: skip
CURVES = {
    "pr_auc": Curve("Precision-recall", pr_curve, "Recall", "Precision", "lower left"),
    "auroc": Curve("ROC", roc_curve, "False positive rate (1 - specificity)", "Sensitivity", "lower right"),
}
LINES = {"whole": ("#0b5cad", "-"), "fov": ("#c2570c", "--")}
MARKERS = {"observer": "D", "postprocessed": "s"}  # of the drawings
CURVE_POINTS = 500
NUMBERS = "Read off masks and labels alike, in px and px2, as in summary.csv; each photograph's are in numbers.csv."
STRIPS = 100  # photographs shown, the worst ones
WORST = 10  # photographs whose overlays report.md links to
PICTURE = 320  # pixels, the longer side of a picture in a strip
ORDER = "Scores are those of the whole image. The lowest F1 comes first; photographs without F1 come last."


def overlay(image: np.ndarray, mask: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """A photograph (H, W, 3) uint8 in grey with the mask (H, W) bool in colours.

    Green is true positive, blue missed, red false positive. Without a label all of the mask is green.
    """
    gray = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) * np.float32(0.7)).astype(np.uint8)
    painted = cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)
    painted[mask] = TRUE
    if label is not None:
        painted[mask & ~label] = FALSE
        painted[~mask & label] = MISSED
    return painted


def write_report(folder: Path, protocol: dict[str, Any], evaluation: Evaluation, samples: list[Sample]) -> None:
    """Writes `report.html`, one file that needs no other, and for a paper's supplement `report.md` with `curves.png`.

    Args:
        folder: where predict.py left probability/ID.png and overlay/ID.png of each photograph.
        protocol: what was measured and how; its "notes", if it has any, are sentences that the reader must not miss.
        evaluation: of at least one photograph.
        samples: where the photographs and labels are; those that were not evaluated are passed over.

    Raises:
        UserError: a photograph, a label or a saved map cannot be read.
    """
    measures = evaluation.measures()
    _write_html(folder, protocol, evaluation, measures, {sample.id: sample for sample in samples})
    _write_markdown(folder, protocol, evaluation, measures)
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    for axes, area in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        _draw(axes, area, evaluation, measures)
    with replacing(folder / "curves.png") as temporary:
        figure.savefig(temporary, dpi=200)


def _write_html(
    folder: Path, protocol: dict[str, Any], evaluation: Evaluation, measures: Measures, samples: dict[str, Sample]
) -> None:
    facts = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>\n" for name, value in _facts(protocol).items())
    notes = ""
    if protocol.get("notes"):
        notes = f'<section class="notes"><h2>Notes</h2>\n{_html_list(protocol["notes"])}</section>\n'
    tables = "\n".join(_html_table(region, measures[region]) for region in REGIONS)
    curves = "\n".join(_svg(area, evaluation, measures) for area in CURVES)
    swatches = {"true positive": TRUE, "missed": MISSED, "false positive": FALSE}
    legend = "".join(f'<span><i style="background: rgb{colour}"></i>{name}</span>' for name, colour in swatches.items())
    ranking = _ranking(evaluation)
    left_out = len(ranking) - STRIPS
    omission = f" The last {left_out} in this order are not shown; report.md lists them." if left_out > 0 else ""
    page = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8")).substitute(
        title=escape(_title(protocol)), protocol=escape(protocol_line(protocol)), facts=facts, notes=notes,
        tables=tables, remarks=_html_list(_remarks(measures), "remarks"),
        numbers=_html_numbers(protocol), curves=curves, order=ORDER + omission,
        legend=legend,
    )  # fmt: skip
    before, after = page.split("<!-- photographs -->\n")
    with replacing(folder / "report.html") as temporary, open(temporary, "w", **UTF8) as file:
        file.write(before)
        # One photograph at a time: the memory stays the same however many there are.
        for name in progress_bar(ranking[:STRIPS], "report", unit="photo"):
            file.write(_strip(folder, protocol["target"], samples[name], evaluation.rows["whole"][name]))
        file.write(after)


def _html_list(sentences: list[str], style: str = "") -> str:
    items = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in sentences)
    return f'<ul class="{style}">\n{items}</ul>' if style else f"<ul>\n{items}</ul>"


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
    return f"<h2>Numbers</h2>\n{table}\n{_html_list(_number_remarks(protocol), 'remarks')}\n"


def _number_remarks(protocol: dict[str, Any]) -> list[str]:
    lesions = protocol.get("lesions")
    return [NUMBERS, *([lesions_line(lesions)] if lesions else [])]


def _strip(folder: Path, target: str, sample: Sample, row: dict[str, float]) -> str:
    """Photograph, label, probability and overlay of one photograph, side by side."""
    photograph = read_sample(sample)
    pictures = {
        "photograph": photograph.image.permute(1, 2, 0).numpy(),
        "label": photograph.labels[target].numpy() * np.uint8(255),
        "probability": read_image(folder / "probability" / f"{sample.id}.png", "L"),
        "overlay": read_image(folder / "overlay" / f"{sample.id}.png"),
    }
    name = escape(sample.id)
    figures = "".join(
        f'<figure><img src="{_jpeg(array)}" alt="{kind} of {name}"><figcaption>{kind}</figcaption></figure>\n'
        for kind, array in pictures.items()
    )
    values = "".join(f"<span>{TITLES[key]} {number(row[key])}</span>" for key in ("f1", "pr_auc", "sensitivity"))
    return f'<section class="strip"><h3>{name} {values}</h3>\n<div class="pictures">\n{figures}</div></section>\n'


def _jpeg(array: np.ndarray) -> str:
    """A picture (H, W) or (H, W, 3) uint8, shrunk, as a data URL."""
    image, buffer = Image.fromarray(array), io.BytesIO()
    image.thumbnail((PICTURE, PICTURE))
    image.save(buffer, "JPEG", quality=80, subsampling=0)  # halved colours would blur the overlay's thin lines
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
    lines += ["", *(f"- {sentence}" for sentence in _remarks(measures))]
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
    """What protocol_line does not say, or not in full."""
    chosen = protocol["threshold_from"]
    reason = "given" if chosen == "given" else f"best pooled F1 on the {chosen} photographs"
    facts = {
        "checkpoint": Path(protocol["checkpoint"]).name,
        "epoch": str(protocol["epoch"]),
        "trained on": str(protocol["trained_on"]),
        "threshold": f"{protocol['threshold']:.4g}, {reason}",
    }
    if protocol.get("scale"):
        facts["network's scale"] = protocol["scale"]
    if protocol.get("window"):
        facts["predicted in"] = f"windows of {protocol['window']} px"
    if protocol.get("tta"):
        facts["test-time augmentation"] = "flips and quarter turns"
    return facts


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


def _remarks(measures: Measures) -> list[str]:
    """What belongs under the tables."""
    undefined = {region: values["per_image"]["f1"]["undefined"] for region, values in measures.items()}
    counts = ", ".join(f"{count} ({REGIONS[region]})" for region, count in undefined.items())
    remarks = [
        "Pooled: over all pixels of all images together. The authors' measures are F1 and PR-AUC of the whole image.",
        "95 % CI: percentile bootstrap over images, 2000 draws.",
        f"Images whose label has no positive pixel have no F1 and are left out of its mean: {counts}.",
    ]
    if "postprocessed" in measures["whole"]:
        remarks.append(
            "Post-processed mask: as in mask/ and the overlays, pooled. All else is of the probability map as it is."
        )
    if "observer" in measures["whole"]:
        remarks.append(
            "Second observer: that person's annotations scored against the same labels, pooled over the images that "
            "have one. A binary annotation has no curve, so it has no area under one."
        )
    return remarks


def _svg(area: str, evaluation: Evaluation, measures: Measures) -> str:
    """A curve as an element of an HTML page."""
    figure, buffer = Figure(figsize=(5, 4.6), layout="constrained"), io.StringIO()
    _draw(figure.subplots(), area, evaluation, measures)
    with matplotlib.rc_context({"svg.hashsalt": area}):  # the same evaluation gives the same file
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"]))
    svg = buffer.getvalue()
    svg = re.sub(r'( id="|"#|url\(#)', rf"\g<1>{area}-", svg[svg.index("<svg") :])  # two curves share the page's names
    return svg.replace("<svg", f'<svg role="img" aria-label="{CURVES[area].title} curve"', 1)


def _draw(axes: Axes, area: str, evaluation: Evaluation, measures: Measures) -> None:
    """The pooled curve of each region with its area, the mask's point on it and those of the drawings."""
    curve = CURVES[area]
    for region, (colour, line) in LINES.items():
        label = f"{REGIONS[region]}, {TITLES[area]} {number(measures[region]['pooled'][area])}"
        axes.plot(*_thinned(*curve.points(evaluation.pooled[region])), line, color=colour, label=label)
        axes.plot(*_point(area, evaluation.pooled[region], evaluation.threshold), "o", color=colour)
        for kind, drawn in evaluation.drawings.items():
            axes.plot(*_point(area, drawn[region], 0.5), MARKERS[kind], color=colour, markerfacecolor="none")
    axes.plot([], [], "o", color="0.4", label=f"threshold {evaluation.threshold:.4g}")
    for kind in evaluation.drawings:
        axes.plot([], [], MARKERS[kind], color="0.4", markerfacecolor="none", label=DRAWINGS[kind].lower())
    axes.set(title=curve.title, xlabel=curve.xlabel, ylabel=curve.ylabel, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc=curve.corner, fontsize=9)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most CURVE_POINTS points of a curve, evenly spaced along it, both ends among them."""
    if len(x) <= CURVE_POINTS:
        return x, y
    length = np.cumsum(np.hypot(np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0])))
    chosen = np.unique(np.searchsorted(length, np.linspace(0, length[-1], CURVE_POINTS)))
    return x[chosen], y[chosen]


def _point(area: str, histogram: Histogram, threshold: float) -> tuple[list[float], list[float]]:
    """Where the mask at the threshold lies beside the curve; nowhere if it is not defined."""
    level = threshold_level(threshold)
    tp, fp = int(histogram.positives[level:].sum()), int(histogram.negatives[level:].sum())
    positives, negatives = int(histogram.positives.sum()), int(histogram.negatives.sum())
    if area == "pr_auc":
        return ([tp / positives], [tp / (tp + fp)]) if positives and tp + fp else ([], [])
    return ([fp / negatives], [tp / positives]) if positives and negatives else ([], [])
