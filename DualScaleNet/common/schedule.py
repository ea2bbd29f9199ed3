"""The learning rate as a function of the step: the authors' constant, or linear warm-up and cosine decay to zero."""

import math


def learning_rate(base: float, step: int, steps: int, schedule: str = "constant", warmup: int = 0) -> float:
    """The learning rate of step `step` (from 0) of `steps`; the first `warmup` steps rise linearly to `base`."""
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule == "constant":
        return base
    return base / 2 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
