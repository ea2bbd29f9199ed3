"""Prints a Markdown table of scores: a row for each scores.json of predict.py in or under these folders.

    python docs/scores.py runs/evidence/*-quick

F1 is that of the raw maps at the threshold, with its 95 % interval. The last column is that of post-processed masks.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DualScaleNet.common.script import UserError, run_script


def rows(file: Path, name: str) -> list[str]:
    """One, which begins with `name`; of several data sets one more for each."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    found = []
    for source, measures in {"": content["measures"], **content.get("sets", {})}.items():
        whole = measures["whole"]
        pooled, processed, (low, high) = whole["pooled"], whole.get("postprocessed"), whole["pooled_interval"]["f1"]
        if pooled["f1"] is None:
            continue
        counts = whole["per_image"]["f1"]
        title = f"... {source}" if source else f"{content['target']}: {content['source']}"
        cells = [
            "" if source else name, title, counts["defined"] + counts["undefined"], f"{content['threshold']:.3g}",
            f"{decimals(pooled['f1'])} [{decimals(low)}, {decimals(high)}]", decimals(pooled["pr_auc"]),
            decimals(processed["f1"]) if processed else "",
        ]  # fmt: skip
        found.append(f"| {' | '.join(map(str, cells))} |")
    return found


def decimals(value: float | None) -> str:
    """.804; a dash for what is not defined."""
    return "–" if value is None else f"{value:.3f}".removeprefix("0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    print("| folder | task | photographs | threshold | F1 [95 %] | PR-AUC | F1, mask |\n|---|---|---|---|---|---|---|")
    for folder in parser.parse_args().folders:
        files = sorted(folder.rglob("scores.json"))
        if not files:
            raise UserError(f"there is no scores.json in {folder}: score its checkpoints with predict.py first")
        for file in files:
            for row in rows(file, str(file.parent.relative_to(folder.parent))):
                print(row)


if __name__ == "__main__":
    run_script(main)
