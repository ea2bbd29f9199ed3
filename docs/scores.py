"""Prints a Markdown table of scores: a row for each scores.json of predict.py in or under these folders.

    python docs/scores.py runs/evidence/*-quick

F1 is that of the raw maps at the threshold, with its 95 % interval. The last column is that of post-processed masks.
"""

import argparse
import json
from pathlib import Path
from typing import Any


def rows(file: Path, name: str) -> list[str]:
    """One, which begins with `name`; of several data sets one more for each, without an interval."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    whole = content["measures"]["whole"]
    pooled, processed = whole["pooled"], whole.get("postprocessed")
    if pooled["f1"] is None:
        return []
    low, high = whole["pooled_interval"]["f1"]
    title = f"{content['target']}: {content['source']}"
    f1 = f"{decimals(pooled['f1'])} [{decimals(low)}, {decimals(high)}]"
    threshold = f"{content['threshold']:.3g}"
    mask = decimals(processed["f1"]) if processed else ""
    found = [f"| {name} | {title} | {content['images']} | {threshold} | {f1} | {decimals(pooled['pr_auc'])} | {mask} |"]
    for source, scores in content.get("sets", {}).items():
        found.append(f"| | ... {source} | | {threshold} | {decimals(scores['f1'])} | {decimals(scores['pr_auc'])} | |")
    return found


def decimals(value: float | None) -> str:
    """.804; a dash for what is not defined."""
    return "–" if value is None else f"{value:.3f}".removeprefix("0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    print("| folder | task | photographs | threshold | F1 [95 %] | PR-AUC | F1, mask |\n|---|---|---|---|---|---|---|")
    for folder in parser.parse_args().folders:
        for file in sorted(folder.rglob("scores.json")):
            for row in rows(file, str(file.parent.relative_to(folder.parent))):
                print(row)


if __name__ == "__main__":
    main()
