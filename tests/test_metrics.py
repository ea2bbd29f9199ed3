"""The measures: equal to scikit-learn's on the saved levels, close to them on the unquantised probabilities."""

import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from benchmarks.evaluation import sklearn_scores
from DownStream.scoring.metrics import (
    LEVELS,
    MEASURES,
    Coarse,
    Histogram,
    _measures,
    best_threshold,
    bootstrap,
    calibration_error,
    pr_curve,
    roc_curve,
    scores,
    summarise,
    threshold_level,
    threshold_of_share,
    to_levels,
)

AREAS = ("pr_auc", "auroc")


@pytest.fixture(autouse=True)
def no_warnings():
    """Undefined values are values here, not a reason to print."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def data(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    n = 20000
    label = rng.random(n) < (0.001 if kind == "imbalanced" else 0.15)
    logits = rng.normal(0, 1.5, n) + 2.0 * label - 1.0
    if kind == "noise":
        logits = rng.normal(0, 1, n)
    elif kind == "inverted":
        logits = -logits
    elif kind == "confident":
        logits = 3 * logits
    elif kind == "saturated":  # most levels are exactly 0 or 65535: more of a tie than the floats have
        logits = 20 * logits
    probability = 1 / (1 + np.exp(-logits))
    if kind == "tied":
        probability = np.round(probability, 1)  # eleven values, 0.5 among them
    elif kind == "binary":
        probability = np.round(probability)
    return probability, label


KINDS = ("random", "noise", "inverted", "imbalanced", "confident", "saturated", "tied", "binary")


@pytest.mark.parametrize("threshold", (0.5, 0.3, 0.9))
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_scikit_learn_on_the_levels(kind, threshold):
    probability, label = data(kind)
    levels = to_levels(probability)
    ours = scores(Histogram.of(levels, label), threshold)
    theirs = sklearn_scores(levels / 65535, label, threshold_level(threshold) / 65535)
    assert tuple(ours) == MEASURES
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_close_to_scikit_learn_on_the_floats(kind):
    probability, label = data(kind)
    ours = scores(Histogram.of(to_levels(probability), label))
    for name, value in sklearn_scores(probability, label).items():
        if kind == "saturated" and name in AREAS:
            continue  # what the 16 bits cannot hold; the module says so
        assert ours[name] == pytest.approx(value, abs=1e-4 if name in AREAS else 1e-6), name


@pytest.mark.parametrize("constant", (0.0, 0.2, 0.5, 1.0))
def test_constant_prediction(constant):
    """Nothing (or everything) predicted positive although both classes exist: as in scikit-learn, nothing is NaN."""
    label = np.arange(100) < 30
    levels = to_levels(np.full(100, constant))
    ours = scores(Histogram.of(levels, label))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = sklearn_scores(levels / 65535, label)
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert ours["mcc"] == 0 and ours["auroc"] == 0.5
    assert (ours["f1"] == 0) == (constant < 0.5)


def test_perfect_prediction():
    label = np.arange(64).reshape(8, 8) % 3 == 0
    assert scores(Histogram.of(to_levels(label), label)) == dict.fromkeys(MEASURES, 1.0)


@pytest.mark.parametrize("dtype", (np.float16, np.float32, np.float64))
def test_levels_keep_the_side_of_one_half(dtype):
    half = dtype(0.5)
    below, above = np.nextafter(half, dtype(0)), np.nextafter(half, dtype(1))
    levels = to_levels(np.array([0, below, half, above, 1], dtype=dtype))
    assert levels.dtype == np.uint16
    assert (levels[0], levels[2], levels[4]) == (0, 32768, 65535)
    assert (levels >= threshold_level(0.5)).tolist() == [False, False, True, True, True]


def test_levels_survive_the_way_to_probabilities_and_back():
    levels = np.arange(LEVELS, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(to_levels(levels / 65535), levels)
    assert np.array_equal(to_levels((levels / 65535).astype(np.float32)), levels)
    assert [threshold_level(level / 65535) for level in range(1, LEVELS, 97)] == list(range(1, LEVELS, 97))


@pytest.mark.parametrize("bad", (-1e-3, 1.001, math.nan, math.inf))
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(ValueError, match="probabilities"):
        to_levels(np.array([0.5, bad]))


@pytest.mark.parametrize("bad", (0.0, -0.1, 1.01, math.nan))
def test_what_is_no_threshold_is_refused(bad):
    with pytest.raises(ValueError, match="threshold"):
        threshold_level(bad)
    with pytest.raises(ValueError, match="threshold"):
        scores(Histogram.zero(), bad)


def test_the_threshold_of_a_share():
    levels = np.array([0, 0, 0, 7, 7, 9, 40000, 65535], np.uint16)
    histogram = Histogram.of(levels, levels > 8)
    expected = {0: 65535, 0.1: 65535, 1 / 8: 65535, 0.2: 40000, 3 / 8: 9, 0.5: 7, 5 / 8: 7, 0.9: 1}
    for share, level in expected.items():
        assert threshold_of_share(histogram, share) == level / 65535
        assert np.mean(levels >= level) >= min(share, 5 / 8)


def test_thresholds_at_the_ends():
    assert (threshold_level(0.5), threshold_level(1.0), threshold_level(1e-9)) == (32768, 65535, 1)
    label = np.array([True, True, False, False])
    histogram = Histogram.of(to_levels(np.array([1.0, 1e-4, 1e-4, 0.0])), label)
    assert scores(histogram, 1.0)["sensitivity"] == 0.5
    assert scores(histogram, 1e-9)["specificity"] == 0.5  # a saved zero is not positive


def test_adding_up_over_images_equals_pooling():
    probability, label = data("random")
    levels = to_levels(probability)
    parts = [Histogram.of(a, b) for a, b in zip(np.array_split(levels, 7), np.array_split(label, 7), strict=True)]
    total, pooled = sum(parts, Histogram.zero()), Histogram.of(levels, label)
    for name in ("positives", "negatives"):
        assert getattr(total, name).dtype == np.int64 and getattr(total, name).shape == (LEVELS,)
        assert np.array_equal(getattr(total, name), getattr(pooled, name))
    assert scores(total) == scores(pooled)


def test_field_of_view_restricts():
    probability, label = (array.reshape(100, 200) for array in data("random"))
    y, x = np.mgrid[:100, :200]
    inside = (x - 100) ** 2 + (y - 50) ** 2 < 45**2
    levels = to_levels(probability)
    ours = scores(Histogram.of(levels, label, inside))
    assert ours == scores(Histogram.of(levels[inside], label[inside]))
    levels[~inside] = 65535
    assert ours == scores(Histogram.of(levels, label | ~inside, inside))


def test_inputs_of_the_wrong_kind_are_refused():
    levels, label = np.zeros((4, 4), np.uint16), np.zeros((4, 4), bool)
    with pytest.raises(TypeError, match="levels must be uint16"):
        Histogram.of(levels / 65535, label)
    with pytest.raises(TypeError, match="label must be bool"):
        Histogram.of(levels, label.astype(np.uint8) * 255)
    with pytest.raises(TypeError, match="inside must be bool"):
        Histogram.of(levels, label, inside=label.astype(np.uint8))
    with pytest.raises(ValueError, match="label has shape"):
        Histogram.of(levels, label[:2])


@pytest.mark.parametrize("which", ("no positives", "no negatives", "no pixels"))
def test_undefined_is_nan(which):
    levels = to_levels(np.array([[0.1, 0.6], [0.9, 0.2]]))
    label = np.full((2, 2), which == "no negatives")
    inside = np.full((2, 2), which != "no pixels")
    histogram = Histogram.of(levels, label, inside)
    ours = scores(histogram)
    undefined = {
        "no positives": {"f1", "pr_auc", "auroc", "sensitivity", "iou", "mcc"},
        "no negatives": {"auroc", "specificity", "mcc"},
        "no pixels": set(MEASURES),
    }[which]
    assert {name for name, value in ours.items() if math.isnan(value)} == undefined
    if which == "no positives":
        assert ours["specificity"] == ours["accuracy"] == 0.5
    if which == "no negatives":
        assert ours["sensitivity"] == ours["accuracy"] == 0.5
        assert ours["pr_auc"] == 1 and ours["f1"] == pytest.approx(2 / 3)
    else:
        with pytest.raises(ValueError, match="no positive pixel"):
            best_threshold(histogram)


def test_more_pixels_than_any_test_set():
    """Ten thousand million pixels: products of four counts pass 2**63 by far."""
    probability, label = data("random")
    small = Histogram.of(to_levels(probability), label)
    large = Histogram(small.positives * 500_000, small.negatives * 500_000)
    assert scores(large) == pytest.approx(scores(small), abs=1e-12)


def test_curves():
    probability, label = data("tied")
    histogram = Histogram.of(to_levels(probability), label)
    precision, recall, _ = sk.precision_recall_curve(label, probability)
    ours = pr_curve(histogram)
    np.testing.assert_allclose(ours[0], recall[::-1], atol=1e-12)
    np.testing.assert_allclose(ours[1], precision[::-1], atol=1e-12)
    fpr, tpr, _ = sk.roc_curve(label, probability, drop_intermediate=False)
    np.testing.assert_allclose(roc_curve(histogram), (fpr, tpr), atol=1e-12)
    assert all(array.size == 0 for array in (*pr_curve(Histogram.zero()), *roc_curve(Histogram.zero())))


@pytest.mark.parametrize("kind", KINDS)
def test_best_threshold_against_brute_force(kind):
    probability, label = data(kind)
    histogram = Histogram.of(to_levels(probability), label)
    best = best_threshold(histogram)
    level = threshold_level(best)
    assert best == level / 65535
    # F1 changes only just above a level that occurs: these, and the lowest level, are all the candidates there are.
    occurring = np.flatnonzero(histogram.positives + histogram.negatives)
    candidates = np.unique(np.r_[1, occurring[occurring < LEVELS - 1] + 1])
    f1 = {int(c): scores_f1(histogram, int(c)) for c in candidates}
    assert level == min(f1, key=lambda c: (-f1[c], c))
    assert scores(histogram, best)["f1"] == max(f1.values())


def scores_f1(histogram: Histogram, level: int) -> float:
    tp, fp = histogram.positives[level:].sum(), histogram.negatives[level:].sum()
    return float(2 * tp / (tp + fp + histogram.positives.sum()))


def test_of_equal_thresholds_the_lowest_is_best():
    label = np.array([True, True, False])
    histogram = Histogram.of(np.array([40000, 30000, 100], np.uint16), label)
    assert best_threshold(histogram) == 101 / 65535
    assert best_threshold(Histogram.of(np.array([40000, 0], np.uint16), np.array([True, True]))) == 1 / 65535


def test_summarise_leaves_nan_out_and_counts_it():
    per_image = [{"f1": 0.5, "mcc": math.nan}, {"f1": math.nan, "mcc": math.nan}, {"f1": 0.8, "mcc": 0.1}]
    summary = summarise(per_image)
    assert list(summary) == ["f1", "mcc"]
    assert summary["f1"] == pytest.approx({"mean": 0.65, "std": 0.3 / math.sqrt(2), "defined": 2, "undefined": 1})
    assert summary["mcc"] == pytest.approx({"mean": 0.1, "std": math.nan, "defined": 1, "undefined": 2}, nan_ok=True)


def test_summarise_of_nothing():
    assert summarise([]) == {}
    nothing = summarise([{"f1": math.nan}])["f1"]
    assert nothing == pytest.approx({"mean": math.nan, "std": math.nan, "defined": 0, "undefined": 1}, nan_ok=True)
    with pytest.raises(ValueError, match="same measures"):
        summarise([{"f1": 0.5}, {"mcc": 0.5}])


@pytest.mark.parametrize("threshold", (0.5, 0.123))
@pytest.mark.parametrize("kind", KINDS)
def test_coarse_histograms_hardly_lose(kind, threshold):
    probability, label = data(kind)
    histogram = Histogram.of(to_levels(probability), label)
    coarse = Coarse.of(histogram, threshold)
    assert coarse.counts.sum() == label.size and coarse.counts.nbytes < 40_000
    total = {name: float(value) for name, value in _measures(*coarse.counts, coarse.level).items()}
    for name, value in scores(histogram, threshold).items():
        assert total[name] == pytest.approx(value, abs=1e-4 if name in AREAS else 1e-12), name


def test_bootstrap_intervals_against_a_plain_loop():
    """The slow way: draw photographs, pool their pixels, score; and the mean of their scores."""
    rng = np.random.default_rng(3)
    histograms = []
    for k in range(8):  # photographs of unequal difficulty
        label = rng.random(3000) < 0.1 + 0.02 * k
        probability = 1 / (1 + np.exp(-rng.normal(0, 1, 3000) - (1 + 0.2 * k) * label + 1))
        histograms.append(Histogram.of(to_levels(probability), label))
    ours = bootstrap([Coarse.of(histogram, 0.4) for histogram in histograms])
    assert ours == bootstrap([Coarse.of(histogram, 0.4) for histogram in histograms])  # seeded
    pooled, means = [], []
    for _ in range(600):
        drawn = [histograms[i] for i in rng.integers(0, 8, 8)]
        pooled.append(scores(sum(drawn, Histogram.zero()), 0.4))
        means.append(np.mean([scores(histogram, 0.4)["f1"] for histogram in drawn]))
    for name in MEASURES:
        low, high = ours["pooled"][name]
        expected = np.percentile([each[name] for each in pooled], (2.5, 97.5))
        assert (low, high) == pytest.approx(tuple(expected), abs=0.15 * (expected[1] - expected[0])), name
    expected = np.percentile(means, (2.5, 97.5))
    assert ours["per_image"]["f1"] == pytest.approx(expected.tolist(), abs=0.15 * (expected[1] - expected[0]))


def test_bootstrap_of_one_photograph_and_of_undefined_ones():
    blank = Histogram.of(to_levels(np.linspace(0, 1, 100)), np.zeros(100, bool))
    marked = Histogram.of(to_levels(np.linspace(0, 1, 100)), np.arange(100) > 60)
    alone = bootstrap([Coarse.of(marked, 0.5)])
    assert all(np.isnan(interval).all() for kind in alone.values() for interval in kind.values())
    one_blank = bootstrap([Coarse.of(histogram, 0.5) for histogram in (blank, marked)])
    assert one_blank["per_image"]["f1"] == pytest.approx([scores(marked)["f1"]] * 2)  # of those that have an F1
    both_blank = bootstrap([Coarse.of(blank, 0.5)] * 2)
    assert np.isnan(both_blank["pooled"]["f1"]).all() and not np.isnan(both_blank["pooled"]["specificity"]).any()


def test_the_calibration_error_is_that_of_fifteen_bins():
    probability = np.array([0.0, 0.1, 0.1, 0.1, 0.9, 0.9])
    label = np.array([False, True, False, False, True, True])
    expected = (abs(0.3 - 1) + abs(1.8 - 2)) / 6  # of bins 1 and 13
    found = calibration_error(Histogram.of(to_levels(probability), label))
    assert found == pytest.approx(expected, abs=1e-4)
    rng = np.random.default_rng(0)
    probability = rng.random(200_000)
    honest = Histogram.of(to_levels(probability), rng.random(200_000) < probability)
    assert calibration_error(honest) < 0.006
    assert math.isnan(calibration_error(Histogram.zero()))
