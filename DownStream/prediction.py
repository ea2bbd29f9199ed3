"""The prediction of many photographs: maps, masks and overlays of each, a table of all, and scores."""

import csv
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any, TypeAlias, TypeVar

from tqdm import tqdm

from DownStream.checkpoints import load_segmentation
from DownStream.data import Item, Photograph, evenly, read_sample, require_labels
from DownStream.inference import Ensemble, Predictor
from DownStream.maps import write_result
from DownStream.options.predict import Options
from DownStream.postprocessing import rules
from DownStream.quality import quality
from DownStream.results import Results
from DownStream.scoring.metrics import Histogram, best_threshold, threshold_of_share, to_levels
from DownStream.selection import chosen_files, labels_of, own_samples, pixel_sizes, select_samples, trained_on
from DownStream.sets.base import Sample
from DownStream.sources import expected_targets
from DualScaleNet.common.checkpoint import sha256
from DualScaleNet.common.device import select_device
from DualScaleNet.common.drawings import is_drawing
from DualScaleNet.common.files import UTF8, claim, writing
from DualScaleNet.common.photographs import LABEL_BY_COLOURS, skipped_line
from DualScaleNet.common.script import ROOT, UserError, code_version, few, out_of_memory, progress_bar, warn

DECIDING = 64  # photographs on which a threshold is chosen by the share that it marks
AHEAD = 4  # photographs read before they are predicted, and still being written afterwards
Work: TypeAlias = Sequence[tuple[Predictor | Ensemble, Sample]]  # what predicts which photograph
Found = TypeVar("Found")


def predict(options: Options) -> None:
    """The whole prediction.

    Raises:
        UserError: something only the user can mend.
    """
    device = select_device(options.device)
    paths = chosen_files(options)
    checkpoints = [load_segmentation(path) for path in paths]
    predictors = [Predictor.load(checkpoint, device) for checkpoint in checkpoints]
    for predictor in predictors:
        predictor.factor, predictor.window, predictor.tta = options.scale, options.window, options.tta
    inputs = [predictor.network_input for predictor in predictors]
    square = {path: each.size for path, each in zip(paths, inputs, strict=True) if each.fit != "pad"}
    if options.scale and square and (not options.model or len(square) == len(paths)):  # some ready models heed it
        path, side = next(iter(square.items()))
        raise UserError(f"--scale: the network in {path} resizes every photograph to {side} px: leave --scale out")
    groups, source, name = select_samples(options, paths, checkpoints)
    networks: Sequence[Predictor | Ensemble] = predictors
    if len(groups) < len(predictors):
        networks = [Ensemble(predictors, [checkpoint["targets"] for checkpoint in checkpoints])]
    work = [(predictor, sample) for predictor, group in zip(networks, groups, strict=True) for sample in group]
    sizes = pixel_sizes(options.pixel_size, [sample for _, sample in work])
    thresholds = thresholds_of(options, paths, checkpoints, work)
    out = options.out or (ROOT / "runs" if options.model else paths[0].parent) / name
    claim(out)
    if options.images:
        warn_of_others(out, {sample.id for _, sample in work})

    by_diameter = options.scale is None and any(each.network_input.diameter for each in predictors)
    typed = list(thresholds) if options.images else labels_of(checkpoints[0], options)[0]
    labelled = any(sample.labels for _, sample in work)
    results = Results(out, thresholds, typed, by_diameter, sizes, options.raw_masks, options.map_format, labelled)
    results.trained_on = trained_on(options, checkpoints, groups)
    ledger = Ledger(out, made_with(options, paths, thresholds, sizes)) if options.images else None
    predict_all(work, results, ledger)

    if results.labels:
        print(skipped_line({LABEL_BY_COLOURS: results.labels}))
    results.write_table()
    if ledger:
        ledger.close()
    if not results.rows and not results.left_out:
        raise UserError(f"no photographs in {source}")
    count = len(results.rows)
    print(f"{count} photograph{'s' * (count != 1)} ({source}): maps, masks and overlays in {out}")
    protocol = {
        "source": source, "window": options.window, "tta": options.tta,
        "networks": 1 if options.model else len(predictors) // len(groups),
        "checkpoint": list(map(str, paths)),
        "epoch": ", ".join(dict.fromkeys(str(each["epoch"]) for each in checkpoints)),
        "trained_on": ", ".join(dict.fromkeys(name for each in checkpoints for name in each["dataset"])),
        "threshold_from": "given" if isinstance(options.threshold, float) else options.threshold,
    }  # fmt: skip
    results.report(protocol, [sample for _, sample in work])
    if results.left_out:
        left_out = f"{len(results.left_out)} of {len(work)}"
        raise UserError(f"{left_out} photographs could not be read or predicted and were left out")


def warn_of_others(out: Path, photographs: set[str]) -> None:
    """Results of other photographs in the output folder stay there, but not in its tables.

    Raises:
        UserError: the table in it is none of ours.
    """
    table = out / "summary.csv"
    if table.exists():
        with open(table, newline="", **UTF8) as file:
            rows = csv.DictReader(file)
            if "image" not in (rows.fieldnames or ()):
                raise UserError(f"{table} is another program's: choose another --out, or move it away")
            others = [row["image"] for row in rows if row["image"] not in photographs]
        if others:
            warn(f"{out} holds other photographs' results too ({few(others)}): summary.csv will be of today's alone")


def predict_all(work: Work, results: Results, ledger: "Ledger | None") -> None:
    """Predicts photographs one after the other; the next ones are being read, the last ones' files written.

    Args:
        ledger: of a folder of photographs, of which what fails is named and left out. Labelled photographs have none:
            one that silently drops out would falsify the score.
    """
    done = {sample.id: row for _, sample in work if ledger and (row := ledger.row_of(sample))}
    if done:
        print(f"resuming: {len(done)} photographs were predicted before")
    left = [(predictor, sample) for predictor, sample in work if sample.id not in done]
    written: deque[tuple[Sample, dict[str, Any], dict[Path, Future[None]]]] = deque()  # or about to be

    def settle(most: int) -> None:
        """Waits until the files of no more than `most` photographs are being written."""
        while len(written) > most:
            sample, row, files = written.popleft()
            for writing_of in files.values():
                writing_of.result()
            if ledger:
                ledger.add(sample, row, list(files))

    with ThreadPoolExecutor() as pool:
        opened = ahead(pool, open_photograph, (sample for _, sample in left))
        for predictor, sample in progress_bar(left, "predict", unit="photo"):
            try:
                photograph = next(opened)
                if isinstance(photograph, UserError):
                    raise photograph
                if ledger and is_drawing(photograph.pixels):
                    results.labels.append(sample.image)
                    continue
                prediction = predictor(photograph)
            except (UserError, MemoryError, RuntimeError) as error:
                if not ledger or not (isinstance(error, UserError) or out_of_memory(error)):
                    raise
                why = str(error) if isinstance(error, UserError) else f"{sample.image} needs more memory: set --window"
                tqdm.write(f"left out: {why}", file=sys.stderr)
                results.left_out.append(sample)
                continue
            row, files = results.add(sample, photograph, prediction)
            written.append((sample, row, {path: pool.submit(write_result, path, files[path]) for path in files}))
            settle(AHEAD)
        settle(0)
    rows = done | {row["image"]: row for row in results.rows}
    results.rows = [rows[sample.id] for _, sample in work if sample.id in rows]


def open_photograph(sample: Sample) -> Photograph | UserError:
    """A decoded sample with its field of view, or why there is none."""
    try:
        photograph = read_sample(sample)
        _ = photograph.diameter  # looked for here, in another thread than the network's
    except UserError as error:
        return error
    except MemoryError:
        return UserError(f"{sample.image} needs more memory than there is")
    return photograph


def ahead(pool: ThreadPoolExecutor, function: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """Yields the function's results in order; those of the next few items are being worked out."""
    waiting: deque[Future[Found]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def made_with(
    options: Options, paths: list[Path], thresholds: dict[str, float], sizes: dict[str, float]
) -> dict[str, Any]:
    """What the maps, masks and numbers of a photograph depend on."""
    return {
        "code": code_version("DownStream", "DualScaleNet"), "checkpoints": [sha256(path) for path in paths],
        "thresholds": thresholds, "pixel sizes": sizes,
        "postprocessing": {} if options.raw_masks else rules(list(thresholds)),
        "scale": options.scale, "window": options.window, "tta": options.tta, "map_format": options.map_format,
    }  # fmt: skip


class Ledger:
    """The rows of photographs that are done, in a file of the output folder, until all are.

    Args:
        stamp: what they were made with. Rows that were made with something else are forgotten.
    """

    def __init__(self, out: Path, stamp: dict[str, Any]) -> None:
        self.path = out / ".predicted.jsonl"
        lines: list[Any] = []
        if self.path.exists():
            for line in self.path.read_text(**UTF8).splitlines():
                with suppress(ValueError):  # the last one may be cut off
                    lines.append(json.loads(line))
        going_on = lines[:1] == [json.loads(json.dumps(stamp))]
        self._rows = {line[1]["image"]: line for line in lines[1:]} if going_on else {}
        self.path.unlink(missing_ok=True)
        for each in (stamp, *self._rows.values()):
            self._append(each)

    def row_of(self, sample: Sample) -> dict[str, Any] | None:
        """The row of a photograph that is done, and whose files and results are as they were."""
        files, row, results = self._rows.get(sample.id, (None, None, []))
        with suppress(OSError):  # a broken link: whoever reads the photograph names it
            same = files == self._files_of(sample) and all((self.path.parent / name).exists() for name in results)
            return row if same else None
        return None

    def add(self, sample: Sample, row: dict[str, Any], results: list[Path]) -> None:
        """Notes a photograph whose results are written."""
        names = [path.relative_to(self.path.parent).as_posix() for path in results]
        self._append((self._files_of(sample), row, names))

    def close(self) -> None:
        """All are done: the next prediction begins anew."""
        self.path.unlink()

    @staticmethod
    def _files_of(sample: Sample) -> list[Any]:
        """What a photograph's maps depend on: its files, their sizes and times, and how its values are read."""
        files = [(str(file.resolve()), file.stat()) for file in (sample.image, sample.fov) if file]
        return [sample.bits, *([name, each.st_size, each.st_mtime_ns] for name, each in files)]

    def _append(self, content: object) -> None:
        with writing(self.path), open(self.path, "a", **UTF8) as file:
            file.write(json.dumps(content) + "\n")


def thresholds_of(
    options: Options, paths: list[Path], checkpoints: list[dict[str, Any]], work: Work
) -> dict[str, float]:
    """The threshold of each target's masks: given, or chosen on the checkpoint's own photographs or on those of `work`.

    Raises:
        UserError: the photographs are not there or have no labels, or the checkpoint does not say what is marked.
    """
    if isinstance(options.threshold, float):
        targets = [target for checkpoint in checkpoints for target in checkpoint["targets"]]
        return dict.fromkeys(targets, options.threshold)
    checkpoint, (predictor, _) = checkpoints[0], work[0]
    if options.threshold == "share":
        for path, each in zip(paths, checkpoints, strict=True):
            if lacking := [name for name in each["targets"] if name not in each.get("marked", {})]:
                why = f"{path} does not say how much of the fields of view its labels of {', '.join(lacking)} mark"
                raise UserError(f"--threshold share: {why}: train it anew (--resume never), or give a number")
        return thresholds_by_share(
            work, {name: mean(each["marked"][name] for each in checkpoints) for name in checkpoint["targets"]}
        )
    data_dir = None if options.dataset else options.data_dir
    samples = own_samples(checkpoint, options.threshold, data_dir)
    require_labels(samples, expected_targets(checkpoint["dataset"], {"": samples}, checkpoint["targets"]))
    return choose_thresholds(predictor, samples, checkpoint["targets"])


def thresholds_by_share(work: Work, shares: dict[str, float]) -> dict[str, float]:
    """For each target the threshold at which so large a share of the fields of view is marked, over all photographs.

    Of many photographs 64 evenly chosen ones decide, without those that are doubtful, and drawings. No label is used.

    Raises:
        UserError: none is left.
    """
    pooled = {target: Histogram.zero() for target in shares}
    for predictor, sample in progress_bar(evenly(work, DECIDING), "threshold", unit="photo", leave=False):
        photograph = open_photograph(sample)
        if isinstance(photograph, UserError) or quality(photograph)["doubt"]:
            continue
        if is_drawing(photograph.pixels):
            continue
        try:
            maps = to_levels(predictor(photograph).maps.numpy())
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            continue  # `predict_all` names it
        fov = photograph.field_of_view
        for target, levels in zip(shares, maps, strict=True):
            pooled[target] += Histogram.of(levels, ~fov, fov)
    if not all(histogram.negatives.any() for histogram in pooled.values()):
        raise UserError("--threshold share: no photograph can be read that is not doubtful: give a number")
    return {target: threshold_of_share(histogram, shares[target]) for target, histogram in pooled.items()}


def choose_thresholds(
    predictor: Predictor | Ensemble, samples: list[Sample], targets: list[str]
) -> dict[str, float]:
    """For each target the threshold with the best pooled F1 on training or validation photographs.

    Raises:
        UserError: nothing is marked in any label.
    """
    pooled = {target: Histogram.zero() for target in targets}
    for sample in progress_bar(samples, "threshold", unit="photo", leave=False):
        photograph = read_sample(sample)
        maps = dict(zip(targets, to_levels(predictor(photograph).maps.numpy()), strict=True))
        for target, levels in ((target, maps[target]) for target in photograph.labels):
            pooled[target] += Histogram.of(levels, photograph.labels[target].numpy(), photograph.counted(target))
    for target, histogram in pooled.items():
        if not histogram.positives.any():
            raise UserError(f"no threshold can be chosen for {target}: nothing is marked in those labels")
    return {target: best_threshold(histogram) for target, histogram in pooled.items()}
