"""Files and functions stay short enough to be read at one sitting."""

import ast

from conftest import ROOT

SOURCES = sorted(
    path for pattern in ("DualScaleNet/**/*.py", "DownStream/**/*.py", "Dataset/*.py") for path in ROOT.glob(pattern)
)


def test_no_file_has_more_than_350_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert len(lengths) > 50
    assert {name: lines for name, lines in lengths.items() if lines > 350} == {}


def test_no_function_has_more_than_60_lines():
    """But `parse_args`, whose length is that of its help texts."""
    lengths = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name != "parse_args":
                lengths[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1
    assert len(lengths) > 300
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}
