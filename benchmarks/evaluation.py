"""How fast the measures are beside scikit-learn: the same pixels, the same eight measures, each in its own process.

    python benchmarks/evaluation.py                                      # 7 million pixels, about 20 DRIVE photographs
    python benchmarks/evaluation.py --pixels 100000 --photographs 1 2    # a short look

Prints a Markdown table, best of three, and writes evaluation.json. The photographs are made up: curved lines on noise.
scikit-learn is in requirements-dev.txt.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from DownStream.scoring.metrics import MEASURES, Histogram, scores, to_levels  # noqa: E402

HEIGHT, WIDTH = 584, 565  # of a DRIVE photograph
REPEATS = 3


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=7_000_000, help="Measure both on N pixels. Default: %(default)s.")
    parser.add_argument(
        "--photographs", type=int, nargs="+", default=[20, 80, 320], metavar="N",
        help="Measure ours alone on so many photographs. Default: 20 80 320.",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    theirs = apart(measure_pixels, sklearn_scores, args.pixels)
    ours = apart(measure_pixels, our_scores, args.pixels)
    difference = max(abs(theirs["measures"][name] - ours["measures"][name]) for name in MEASURES)
    growth = [apart(measure_photographs, count) for count in args.photographs]
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, scikit-learn {theirs['version']}"
    result = {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {versions}",
        "pixels": args.pixels, "scikit-learn": theirs, "ours": ours, "ratio": theirs["seconds"] / ours["seconds"],
        "largest_difference": difference, "growth": growth,
    }  # fmt: skip
    print(table(result))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")


def apart(function: Callable[..., Any], *arguments: object) -> Any:
    """The function's answer from a process of its own, whose memory is nobody else's."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def photograph(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Made-up probabilities, float32, and label, bool, of a photograph, (584, 565)."""
    rng = np.random.default_rng(number)
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(40):
        steps = rng.normal(rng.normal(0, 8, 2), 5, (40, 2))
        line = rng.uniform((0, 0), (WIDTH, HEIGHT)) + steps.cumsum(0)
        cv2.polylines(canvas, [line.astype(np.int32)], False, 255, int(rng.integers(1, 6)))
    near = cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), 1.5)
    noise = cv2.GaussianBlur(rng.standard_normal(canvas.shape, np.float32), (0, 0), 1.0) * 5
    return 1 / (1 + np.exp(5 - 9 * near - noise)), canvas > 0


def pixels_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first pixels, flat, of as many photographs as it takes."""
    probability, label = np.empty(count, np.float32), np.empty(count, bool)
    for number, start in enumerate(range(0, count, HEIGHT * WIDTH)):
        chunk = slice(start, start + HEIGHT * WIDTH)
        for whole, part in zip((probability, label), photograph(number), strict=True):
            whole[chunk] = part.ravel()[: len(whole[chunk])]
    return probability, label


def our_scores(probability: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """As predict.py: photograph by photograph, pooled."""
    pooled = Histogram.zero()
    for start in range(0, len(label), HEIGHT * WIDTH):
        chunk = slice(start, start + HEIGHT * WIDTH)
        pooled += Histogram.of(to_levels(probability[chunk]), label[chunk])
    return scores(pooled)


def sklearn_scores(probability: np.ndarray, label: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """The same measures with scikit-learn's functions, as one would write it; the tests' oracle too."""
    from sklearn import metrics

    mask = probability >= threshold
    precision, recall, _ = metrics.precision_recall_curve(label, probability)
    return {
        "f1": metrics.f1_score(label, mask),
        "pr_auc": metrics.auc(recall, precision),
        "auroc": metrics.roc_auc_score(label, probability),
        "sensitivity": metrics.recall_score(label, mask),
        "specificity": metrics.recall_score(label, mask, pos_label=0),
        "accuracy": metrics.accuracy_score(label, mask),
        "iou": metrics.jaccard_score(label, mask),
        "mcc": metrics.matthews_corrcoef(label, mask),
    }


def measure_pixels(evaluate: Callable[[np.ndarray, np.ndarray], dict[str, float]], count: int) -> dict[str, Any]:
    """Seconds (best of three), peak memory and measures of one side."""
    probability, label = pixels_of(count)
    evaluate(probability[::500], label[::500])  # what it imports is no part of it
    before, times = peak_memory(), []
    for _ in range(REPEATS):
        started = time.perf_counter()
        measures = evaluate(probability, label)
        times.append(time.perf_counter() - started)
    sklearn = sys.modules.get("sklearn")
    return {
        "seconds": min(times), "peak_mb": peak_memory(), "added_mb": peak_memory() - before,
        "measures": {name: float(measures[name]) for name in MEASURES}, "version": sklearn and sklearn.__version__,
    }  # fmt: skip


def measure_photographs(count: int) -> dict[str, Any]:
    """Seconds and peak memory of ours over so many photographs, each made when its turn comes."""
    pooled, seconds = Histogram.zero(), 0.0
    for number in range(count):
        probability, label = photograph(number)
        started = time.perf_counter()
        pooled += Histogram.of(to_levels(probability), label)
        seconds += time.perf_counter() - started
    started = time.perf_counter()
    f1 = scores(pooled)["f1"]
    seconds += time.perf_counter() - started
    return {"photographs": count, "seconds": seconds, "peak_mb": peak_memory(), "f1": f1}


def peak_memory() -> float:
    """Of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{result['pixels']:,} pixels, best of {REPEATS}; {result['machine']}",
        "",
        "| | seconds | peak memory, MB | of it for the measures |",
        "|---|---|---|---|",
    ]
    for name in ("scikit-learn", "ours"):
        side = result[name]
        lines.append(f"| {name} | {side['seconds']:.3f} | {side['peak_mb']:.0f} | {side['added_mb']:.0f} |")
    lines += [
        "",
        f"{result['ratio']:.0f} times as fast; the largest difference of any of the {len(MEASURES)} measures is "
        f"{result['largest_difference']:.1e} (ours rounds probabilities to 16 bits).",
        "",
        "| ours, photographs | seconds | ms each | peak memory, MB |",
        "|---|---|---|---|",
    ]
    for row in result["growth"]:
        each = 1000 * row["seconds"] / row["photographs"]
        lines.append(f"| {row['photographs']} | {row['seconds']:.3f} | {each:.2f} | {row['peak_mb']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
