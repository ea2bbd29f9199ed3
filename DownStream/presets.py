"""How train.py trains unless its options say otherwise: our recipe, the authors' settings, ours less one part, and a
linear probe, which shows what an encoder's maps are worth by themselves."""

from dataclasses import dataclass, replace

from DownStream.model import WIDTHS


@dataclass(frozen=True)
class Preset:
    """`widths` of the decoder; with a fifth the photograph itself is the last skip; none: a `LinearReadout`. `detail`:
    of the path beside the photograph, which sees its local contrast, if `contrast`, or the photograph.

    `standardise` the colours of each photograph's retina, and `jitter` them in training. `dice_weight` of the Dice loss
    beside cross-entropy. `crop`: side of random squares, where photographs are padded rather than resized. None: the
    data set's own, by the authors.
    """

    widths: tuple[int, ...] = WIDTHS
    detail: tuple[int, ...] = ()
    contrast: bool = False
    standardise: bool = False
    jitter: bool = False
    dice_weight: float = 0.0
    crop: int | None = None
    lr: float | None = None
    schedule: str = "constant"
    batch_size: int | None = None


AUTHORS = Preset()
OURS = Preset(
    widths=(128, 64, 32, 32, 32), detail=(32, 64), contrast=True, standardise=True, jitter=True,
    dice_weight=1.0, crop=128, lr=3e-3, schedule="cosine", batch_size=4,
)  # fmt: skip
WITHOUT = {
    "detail": replace(OURS, detail=()),
    "contrast": replace(OURS, contrast=False),
    "standardise": replace(OURS, standardise=False),
    "jitter": replace(OURS, jitter=False),
    "dice": replace(OURS, dice_weight=0.0),
}
LINEAR = replace(OURS, widths=(), detail=(), contrast=False, jitter=False)
PRESETS = {
    "ours": OURS,
    "authors": AUTHORS,
    "linear": LINEAR,
    **{f"ours-without-{part}": preset for part, preset in WITHOUT.items()},
}
