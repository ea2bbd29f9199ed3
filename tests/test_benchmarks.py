"""The benchmarks run; what they measure is not held to any figure."""

import json

from conftest import run_script

from DownStream.metrics import MEASURES


def test_evaluation_agrees_with_scikit_learn(tmp_path):
    arguments = ("--pixels", 50_000, "--photographs", 1, 2, "--out", tmp_path)
    printed = run_script("benchmarks/evaluation.py", *arguments).stdout
    result = json.loads((tmp_path / "evaluation.json").read_text())
    assert "| scikit-learn |" in printed and "| ours |" in printed
    assert result["largest_difference"] < 1e-4 and set(result["ours"]["measures"]) == set(MEASURES)
    assert [row["photographs"] for row in result["growth"]] == [1, 2]
