"""Numbers of masks against those of labels, and lesions found and missed."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import call, rows
from test_postprocessing import SIZE, results_of, square
from test_report import Page

from DownStream import predict
from DownStream.measurements import VERTICAL, measure
from DownStream.scoring.agreement import HEADS, Agreement, belongs, lesions_line, match_parts, numbers_table
from DownStream.scoring.evaluation import number

FRAME = np.ones((SIZE, SIZE), bool)
NOTHING = ~FRAME


def compared(*pairs: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]) -> Agreement:
    """Of masks and labels of some photographs."""
    agreement = Agreement()
    for k, (masks, labels) in enumerate(pairs):
        agreement.add(f"photo {k}", measure(masks, FRAME), masks, labels, FRAME)
    return agreement


def test_error_and_correlation_of_the_cup_to_disc_ratio():
    disc = square(10, 10, 50)
    pairs = [(20, 25), (30, 30), (40, 45), (25, 20)]
    cups = [(square(20, 20, mask), square(20, 20, label)) for mask, label in pairs]
    agreement = compared(*(({"disc": disc, "cup": mask}, {"disc": disc, "cup": label}) for mask, label in cups))
    found = agreement.numbers("cup")[VERTICAL]
    masks, labels = np.array(pairs).T / 50
    assert found["photographs"] == 4
    assert found["label"] == pytest.approx(labels.mean()) and found["mask"] == pytest.approx(masks.mean())
    assert found["error"] == pytest.approx(np.abs(masks - labels).mean())
    assert found["correlation"] == pytest.approx(np.corrcoef(masks, labels)[0, 1])
    assert agreement.numbers("disc")[VERTICAL] == found
    constant = agreement.numbers("disc")["disc height px"]
    assert constant["error"] == 0 and math.isnan(constant["correlation"])
    assert [row["image"] for row in agreement.rows if row["number"] == VERTICAL] == [f"photo {k}" for k in range(4)]


def test_what_is_not_defined_is_left_out():
    disc = square(10, 10, 50)
    both = {"disc": disc, "cup": square(20, 20, 20)}
    agreement = compared((both, both), ({"disc": NOTHING, "cup": NOTHING}, both), (both, {"cup": both["cup"]}))
    assert agreement.numbers("cup")[VERTICAL]["photographs"] == 1
    assert agreement.numbers("cup")["cup parts"]["photographs"] == 3
    assert agreement.numbers("disc")["disc parts"]["photographs"] == 2


def test_a_number_belongs_to_its_targets():
    assert belongs(VERTICAL, "disc") and belongs(VERTICAL, "cup") and not belongs(VERTICAL, "vessels")
    assert belongs(f"{VERTICAL}:exp1", "cup:exp1") and not belongs(VERTICAL, "cup:exp1")
    assert belongs("MA parts", "MA") and not belongs("MAX parts", "MA")


def test_lesions_are_found_if_touched():
    label = square(0, 0, 5) | square(20, 20, 5) | square(40, 40, 5)
    mask = square(4, 4, 3) | square(22, 22, 1) | square(20, 24, 1) | square(60, 60, 4) | square(70, 70, 1)
    assert match_parts(mask, label) == (2, 3, 2)
    assert match_parts(NOTHING, label) == (0, 3, 0)
    assert match_parts(mask, NOTHING) == (0, 0, 5)
    assert match_parts(FRAME, label) == (3, 3, 0)
    agreement = compared(({"MA": mask}, {"MA": label}), ({"MA": mask}, {"MA": NOTHING}))
    found = agreement.lesions("MA")
    assert (found["labelled"], found["found"], found["false"]) == (3, 2, 7)
    assert found["sensitivity"] == 2 / 3 and found["false_positives_per_photograph"] == 3.5
    assert "2 of 3 labelled ones (sensitivity 0.667); 3.50 false positives a photograph" in lesions_line(found)
    assert "(sensitivity –)" in lesions_line(compared(({"MA": mask}, {"MA": NOTHING})).lesions("MA"))
    assert compared(({"disc": mask}, {"disc": label})).lesions("disc") == {}


def test_results_gather_them(tmp_path):
    results, _ = results_of(tmp_path, raw_masks=True)
    ratio = results.agreement.numbers("cup")[VERTICAL]
    assert (ratio["label"], ratio["mask"]) == (31 / 51, 70 / 81)  # heights
    assert ratio["error"] == pytest.approx(70 / 81 - 31 / 51)


def test_the_report_has_them(trained: Path, tmp_path, monkeypatch, capsys):
    """On the screen, in report.html, report.md and scores.json; numbers.csv has each photograph's."""
    call(monkeypatch, predict, "--checkpoint", trained / "last.pth", "--device", "cpu", "--out", tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    screen = capsys.readouterr().out
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    table = [row for row in rows(tmp_path / "numbers.csv") if row["number"] == "vessels length px"]
    values = np.array([[float(row["label"]), float(row["mask"])] for row in table])
    found = scores["numbers"]["vessels length px"]
    assert found["photographs"] == len(table) == 2 and found["label"] > 0
    assert found["error"] == pytest.approx(np.abs(values[:, 0] - values[:, 1]).mean())
    assert found["correlation"] is None and scores["lesions"] == {}  # of two photographs there is none
    shown = numbers_table({"vessels length px": found | {"correlation": math.nan}})[0]
    assert shown[-1] == number(math.nan)
    assert all(cell in text and cell in screen for cell in (*HEADS, *shown))
    table_on_page = [[cell.strip() for cell in row] for row in Page(page).tables[-2]]
    assert table_on_page[0] == HEADS and shown in table_on_page
