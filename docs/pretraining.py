"""Draws docs/pretraining.png: what an encoder is worth against the epochs of its pretraining.

    python docs/pretraining.py FOLDER --grades grades_train.csv   # the folder that `make evidence-pretraining` fills

Each of its comparisons is a panel, of PR-AUC. Two more show how well a photograph's average of c5 (features.py) tells
retinopathy of grade 2 and more: by logistic regression, and by the 20 nearest neighbours, in five folds repeated five
times. An encoder's name is its recipe and its epochs (paper-20); others are level lines. All figures are printed.
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from DualScaleNet.common.files import replacing
from DualScaleNet.common.script import run_script

PICTURE = ROOT / "docs" / "pretraining.png"
COMPARISONS = {
    "vessels": "linear probe, vessels",
    "disc": "linear probe, optic disc",
    "exudates": "linear probe, hard exudates",
    "vessels-release": "authors' decoder, vessels",
}
REFERABLE = 2  # moderate retinopathy
CLASSIFIERS = {
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)),
    "20 nearest neighbours": make_pipeline(StandardScaler(), Normalizer(), KNeighborsClassifier(20)),
}
Scores = dict[str, list[float]]  # of each encoder, by its name


def pixel_scores(folder: Path) -> Scores:
    """PR-AUC in a folder of compare.py, one for each seed."""
    found = defaultdict(list)
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["encoder"].partition(",")[0]].append(float(row["pr_auc"]))
    return found


def grade_scores(file: Path, grades: dict[str, int], classifier: Any) -> list[float]:
    """Area under the ROC curve for grade 2 and more, of each of 25 folds.

    Args:
        file: of features.py.
        grades: of the photographs, by their names; others are skipped.
    """
    content = np.load(file)
    known = [k for k, name in enumerate(content["names"]) if name in grades]
    labels = [grades[content["names"][k]] >= REFERABLE for k in known]
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=5, random_state=0)
    return list(cross_val_score(classifier, content["c5"][known], labels, cv=folds, scoring="roc_auc"))


def draw(panels: dict[str, Scores]) -> None:
    figure = Figure(figsize=(9.5, 6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, scores) in zip(figure.subplots(2, 3).flat, panels.items(), strict=True):
        lines = defaultdict(list)
        for name, values in scores.items():
            recipe, _, epochs = name.rpartition("-")
            if recipe:
                lines[recipe].append((int(epochs), float(np.mean(values))))
            elif name != "random":
                axes.axhline(float(np.mean(values)), color="0.5", linestyle="--", label=name)
        for recipe, points in sorted(lines.items()):
            start = (0, float(np.mean(scores["random"])))
            axes.plot(*zip(start, *sorted(points), strict=True), marker="o", markersize=3, label=recipe)
        axes.set(xlabel="epochs of pretraining", xlim=(0, None))
        axes.set_title(title, fontsize=10)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    with replacing(PICTURE) as temporary:
        figure.savefig(temporary, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--grades", type=Path, required=True, metavar="FILE", help="has photograph, retinopathy_grade")
    options = parser.parse_args()
    with open(options.grades, newline="", encoding="utf-8") as file:
        grades = {Path(row["photograph"]).stem: int(row["retinopathy_grade"]) for row in csv.DictReader(file)}
    panels = {f"{title}, PR-AUC": pixel_scores(options.folder / name) for name, title in COMPARISONS.items()}
    for name, classifier in CLASSIFIERS.items():
        files = sorted(options.folder.glob("features/*.npz"))
        panels[f"grade, {name}, AUROC"] = {file.stem: grade_scores(file, grades, classifier) for file in files}
    for title, scores in panels.items():
        for encoder, values in scores.items():
            print(f"{title:40} {encoder:12} {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
    draw(panels)


if __name__ == "__main__":
    run_script(main)
