"""How much is marked in the masks of a data set, and what is implausible about them.

A mask that means something else than it is taken for trains without complaint and may even score well; what gives it
away are the values in it and the share that they mark.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from DownStream.data import Photograph
from DownStream.findings import FEW_VALUES, Finding, find, light_outside
from DownStream.sets.base import Sample
from DownStream.sets.meaning import COLOUR, Meaning, Ranges, contains, value_name
from DownStream.targets import ignored_by, names_of, parse_target

MOST = 0.5  # of the field of view: no structure of the retina covers more
HARDLY_ANY = 1e-4  # of the photograph
FAR = 8  # times the second highest value: what stands so far above the others may not mean a structure
USUAL = 240  # masks of 0 and this or more, like those of 0 and 1, have marks and nothing else
BESIDE = 8  # how far from a value the noise of JPEG reaches


class Census:
    """The findings on the masks of many photographs.

    Args:
        typed: what --target says.
    """

    def __init__(self, typed: list[str]) -> None:
        self.targets = names_of(typed)
        self.findings: dict[tuple[str, str], list[Finding]] = {}  # by data set, of several, and target
        self.of_fov: dict[tuple[str, str], list[float]] = {}
        meanings = [meaning for _, meaning in map(parse_target, typed) if meaning]
        self.named = ignored_by(typed) + tuple(each for meaning in meanings for each in meaning.marked or ())
        self.dark: list[tuple[Sample, float]] = []  # whose field of view leaves out most of the light

    def add(self, sample: Sample, photograph: Photograph) -> None:
        """Looks at a photograph's masks."""
        fov = photograph.field_of_view
        if sample.fov and photograph.fov is not None and (left_out := light_outside(photograph)) > 0.5:
            self.dark.append((sample, left_out))
        for name in (name for name in self.targets if name in photograph.labels):
            share = int(np.count_nonzero(photograph.labels[name].numpy() & fov)) / max(int(np.count_nonzero(fov)), 1)
            key = sample.source, name
            self.of_fov.setdefault(key, []).append(share)
            if mask := photograph.masks.get(name):
                self.findings.setdefault(key, []).append(find(mask, sample.labels[name].meaning, share))

    def mean_shares(self) -> dict[str, float]:
        """Of each target that has labels, the share of the field of view that is marked, the mean over photographs."""
        every: dict[str, list[float]] = {}
        for (_, name), shares in self.of_fov.items():
            every.setdefault(name, []).extend(shares)
        return {name: float(np.mean(shares)) for name, shares in every.items()}

    def shares(self) -> list[str]:
        """For each target that has labels, how much is marked, in one line."""
        ordered = sorted(self.of_fov.items(), key=lambda item: self.targets.index(item[0][1]))
        return [marked_share(" ".join(filter(None, key)), shares) for key, shares in ordered]

    def warnings(self) -> list[str]:
        """What is implausible, a line each: what, in which file, what to do."""
        lines = []
        if self.dark:
            sample, share = self.dark[0]
            where = f"{and_more(sample.fov, len(self.dark))} ({share:.0%} of {sample.image.name}'s)"
            lines.append(
                f"most of the light lies outside of the field of view in {where}: if black and white are swapped, "
                "invert it, or remove it to have it estimated"
            )
        for (source, name), findings in self.findings.items():
            lines += [f"{source} {name}: {line}".lstrip() for line in self._doubts(name, findings)]
        return lines

    def _doubts(self, name: str, findings: list[Finding]) -> list[str]:
        named = findings[0].meaning.marked is not None
        doubts = [far_above(name, findings, self.named), beside(findings, self.named)]
        if not named and not any(doubts):
            doubts += [picture(findings), several(name, findings), changing(name, findings)]
        if not any(doubts) or named:
            doubts += [most(name, findings), hardly_any(findings)]
        return [doubt for doubt in doubts if doubt]


def marked_share(name: str, shares: list[float]) -> str:
    """How much of the field of view is marked over many photographs."""
    low, middle, high = np.percentile(shares, (0, 50, 100))
    of_several = f" (median; range {low:.2%} to {high:.2%})" if len(shares) > 1 else ""
    return f"{name}: {middle:.2%} of the field of view is marked{of_several}"


def far_above(name: str, findings: list[Finding], named: Ranges) -> str | None:
    """A value such as 255 among class indices: what is not to be counted, or another structure."""
    tops = {}
    for finding in findings:
        greys = [value for value in finding.counts if value < COLOUR]
        if 2 < len(finding.counts) <= FEW_VALUES and len(greys) > 2 and not contains(named, greys[-1]):
            second, top = greys[-2:]
            if top >= 16 and top >= FAR * second:
                tops[finding.path] = top, greys[:-1]
    if not tops:
        return None
    path, (top, others) = next(iter(tops.items()))
    effect, advice = f"{top} counts as unmarked", f"add ignore={top} to --target"
    if findings[0].meaning.marked is None:
        effect = f"only {top} is marked"
        advice = f"give --target {name}={others[-1]} ignore={top}, otherwise each target's values"
    return (
        f"the value {top} is far above the others ({listed(others)}) in {and_more(path, len(tops))}, and {effect}; if "
        f"it means that a pixel is not to count, {advice}"
    )


def several(name: str, findings: list[Finding]) -> str | None:
    """More than two values: class indices, instances, disc and cup in one mask, pens of several colours."""
    mixed = [finding for finding in findings if len(finding.levels) > 2 and not finding.picture]
    if not mixed:
        return None
    first = max(mixed, key=lambda finding: len(finding.levels))
    background = max(first.levels, key=lambda value: first.counts[value])
    one, other, *_ = (value_name(value) for value in first.levels if value != background)
    marked = [value for value, is_marked in first.levels.items() if is_marked]
    return (
        f"there are more than two values in {and_more(first.path, len(mixed))}: {listed(first.levels)}, of which "
        f"{listed(marked)} {'is' if len(marked) == 1 else 'are'} marked; say what each means by a value or a range for "
        f"each target, as in --target {name}={one} other={other}"
    )


def changing(name: str, findings: list[Finding]) -> str | None:
    """A value that is marked in one mask and not in another, or masks that each mark another value."""
    pair = contradiction(findings) or disagreement(findings)
    if not pair:
        return None
    first, second = (f"{listed(marked_values(finding))} in {finding.path}" for finding in pair)
    low, *_, high = sorted({value for finding in pair for value in marked_values(finding)})
    between = "," if low >= COLOUR or high >= COLOUR else "-"
    return (
        f"what is marked changes from file to file, {first} and {second}: say which values mean it in all files, as in "
        f"--target {name}={value_name(low)}{between}{value_name(high)}"
    )


def marked_values(finding: Finding) -> list[int]:
    """The values in areas that are marked."""
    return [value for value, is_marked in finding.levels.items() if is_marked]


def contradiction(findings: list[Finding]) -> tuple[Finding, Finding] | None:
    """A mask that marks a value, and one that has it in areas and marks others instead."""
    markers = {value: finding for finding in findings for value in marked_values(finding)}
    for finding in findings:
        for value, is_marked in finding.levels.items():
            if not is_marked and value in markers and marked_values(finding):
                return markers[value], finding
    return None


def disagreement(findings: list[Finding]) -> tuple[Finding, Finding] | None:
    """Two masks that each mark another value, if these are not all usual for marks: 1, or close to 255 or above."""
    markers: dict[int, Finding] = {}
    for finding in findings:
        values = marked_values(finding)
        if len(finding.counts) <= FEW_VALUES and len(values) == 1:
            markers.setdefault(values[0], finding)
    greys = {value: finding for value, finding in markers.items() if value < COLOUR}
    colours = {value: finding for value, finding in markers.items() if value >= COLOUR}
    if len(greys) > 1 and any(1 < value < USUAL for value in greys):
        *_, last_but_one, last = sorted(greys)
        return greys[last_but_one], greys[last]
    if len(colours) > 1:
        first, second, *_ = colours.values()
        return first, second
    return None


def picture(findings: list[Finding]) -> str | None:
    """An overlay, a photograph or a map of probabilities in the place of a mask."""
    pictures = [finding.path for finding in findings if finding.picture]
    if not pictures:
        return None
    return (
        f"a picture rather than a mask, with many grey levels, is in {and_more(pictures[0], len(pictures))}: save "
        "the marks alone, or name a range of values"
    )


def beside(findings: list[Finding], named: Ranges) -> str | None:
    """Values that noise made of those that are named."""
    for finding in findings:
        ranges = finding.meaning.marked or ()
        values = [value for value in finding.counts if not contains(named + ranges, value)]
        near = [v for v in values if any(low - BESIDE <= v <= high + BESIDE for low, high in ranges) and v < COLOUR]
        pixels = sum(finding.counts[value] for value in near)
        hits = sum(n for value, n in finding.counts.items() if contains(ranges, value))
        if len(finding.counts) > FEW_VALUES and pixels > hits / 10:
            return (
                f"{finding.path} has the values {near[0]} to {near[-1]} too, which noise, as of JPEG, makes of the "
                "named ones: name a range, or save it as PNG"
            )
    return None


def most(name: str, findings: list[Finding]) -> str | None:
    """Inverted masks."""
    full = [finding for finding in findings if finding.of_fov > MOST]
    if not full:
        return None
    first = full[0]
    advice = f"check what --target says of {name}"
    if first.meaning == Meaning(ignored=first.meaning.ignored):
        advice = f"if what is dark in them is meant, give --target {name}=invert"
        if max(first.counts) >= COLOUR:
            advice += ", if a colour is, name it"
    if 2 <= len(first.counts) <= FEW_VALUES and all(first.levels.values()):
        advice = f"both values are; name the one that is meant, as in --target {name}={value_name(max(first.counts))}"
    where = f"{and_more(first.path, len(full))} ({first.of_fov:.0%})"
    return f"more than half of the field of view is marked in {where}: {advice}"


def hardly_any(findings: list[Finding]) -> str | None:
    """Masks in which next to nothing is marked, all of them."""
    fullest = max(findings, key=lambda finding: finding.of_frame)
    if fullest.of_frame >= HARDLY_ANY:
        return None
    values = sum((Counter(finding.counts) for finding in findings), Counter())
    return (
        f"almost nothing is marked in any of {len(findings)} masks, most in {fullest.path} ({fullest.of_frame:.4%}): "
        f"check them, or name other values by --target; they have {listed(sorted(values))}"
    )


def and_more(path: Path | None, count: int) -> str:
    """A file by name, the others by number."""
    return f"{path}" + (f" and {count - 1} more" if count > 1 else "")


def listed(values: Iterable[int]) -> str:
    """Values as --target takes them, the middle ones left out where they are many."""
    names = [value_name(value) for value in values]
    return ", ".join(names if len(names) <= 6 else [*names[:3], "...", *names[-2:]])
