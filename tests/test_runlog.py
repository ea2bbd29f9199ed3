"""The run log, the curves and the schedule."""

import pytest
from PIL import Image

from DualScaleNet.common.runlog import RunLog, draw_curves
from DualScaleNet.common.schedule import learning_rate


def row(epoch: int, score: float | None = None) -> dict[str, float | None]:
    return {"epoch": epoch, "loss": 1 / (epoch + 2), "score": score}


def test_the_file_holds_what_the_checkpoint_says(tmp_path):
    log = RunLog(tmp_path, [])
    for epoch in (1, 2, 3):
        log.append(row(epoch, 0.1 if epoch == 2 else None))
    whole = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text(whole + "4,0.1")  # killed in the middle of a line
    log = RunLog(tmp_path, log.rows[:2])
    log.append(row(3))
    assert (tmp_path / "log.csv").read_text() == whole
    assert RunLog(tmp_path, []).rows == [] and (tmp_path / "log.csv").read_text() == ""


def test_curves_with_a_gap_and_without_any_value(tmp_path):
    log = RunLog(tmp_path, [])
    log.append(row(1))
    log.append(row(2, 0.5))
    draw_curves(tmp_path / "curves.png", log.rows, {"loss": ["loss"], "score": ["score"]})
    assert Image.open(tmp_path / "curves.png").height > 300


def test_schedules():
    assert {learning_rate(0.1, step, 100) for step in range(100)} == {0.1}
    rising = [learning_rate(0.1, step, 100, warmup=4) for step in range(5)]
    assert rising == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    falling = [learning_rate(0.1, step, 100, "cosine", 10) for step in range(10, 100)]
    assert falling[0] == 0.1 and falling[45] == pytest.approx(0.05) and 0 < falling[-1] < 1e-4
    assert falling == sorted(falling, reverse=True)


def test_a_run_of_an_older_version_gets_the_new_columns(tmp_path):
    log = RunLog(tmp_path, [{"epoch": 1, "loss": 2.0}])
    draw_curves(tmp_path / "curves.png", log.rows, {"new": ["rank"]})
    log.append({"epoch": 2, "rank": 5.0, "loss": 1.0})
    log.append({"epoch": 3, "rank": 4.0, "loss": 0.5})
    log.append({"epoch": 4, "loss": 0.25, "rank": 3.0})
    text = (tmp_path / "log.csv").read_text().splitlines()
    assert text == ["epoch,rank,loss", "1,,2.0", "2,5.0,1.0", "3,4.0,0.5", "4,3.0,0.25"]
