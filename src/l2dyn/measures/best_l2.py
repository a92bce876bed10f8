"""The best λ for a training budget: predicted from c (section 3 of the paper), and tuned on a grid.

The second is what the first is judged by (figure 4b, claims C7, C8, C11).
"""

import math
from dataclasses import dataclass

import numpy as np

from l2dyn.arguments import array, below_one, positive, small
from l2dyn.measures.coefficient import Coefficient
from l2dyn.measures.peaks import ROUNDING, fractions
from l2dyn.measures.regression import mean_interval

NEAR_BEST = 0.001  # 0.1 %, figure 4's caption


SCHEDULES = ("constant", "cosine")


def predict_l2(c: float, budget: float, first_decay: float | None = None, schedule: str = "constant") -> float:
    """The predicted best λ: the smallest whose test accuracy peaks within the budget (section 3 of the paper).

    With a constant learning rate λ = c/budget. With a piecewise-constant learning rate λ = c/first_decay, where
    first_decay is the time of the first decay. With schedule="cosine" (from the initial learning rate to 0 over the
    budget, after a warm-up that is short) λ = 2·c/budget: not the paper's but ours, from its law t* ∝ 1/(ηλ) read as
    λ·∫η dt = const., of which half is left; a guess, since most of that integral is collected early. c is measured at
    the fixed initial learning rate in every case.

    Args:
        c: λ·t* as it was measured, one reading of a Coefficient.
        budget: T, the training time in the unit of c, epochs by default.
        first_decay: of a piecewise-constant learning rate, in the same unit.
        schedule: "constant" or "cosine".

    Returns:
        λ in the units of c.

    Raises:
        ValueError: naming the argument, for values that are not positive and finite or no numbers, a first_decay after
            the end of the budget or beside a schedule, or an unknown schedule.

    The paper's numbers, in the authors' units (20 times as much is a weight_decay, with 10 classes): c ≈ 0.0066, T =
    200 epochs, the first decay at epoch 60.

    >>> f"{predict_l2(0.0066, 200, first_decay=60):.1e}"
    '1.1e-04'
    >>> f"{predict_l2(0.0066, 200):.1e}"
    '3.3e-05'
    """
    return _read_off("c", c) / _acting_time(budget, first_decay, schedule)


def predict_l2_from_C(  # noqa: N802 - C and c are two quantities
    C: float,  # noqa: N803
    lr: float,
    steps: float,
    momentum: float = 0.0,
    first_decay: float | None = None,
    schedule: str = "constant",
) -> float:
    """The same from the dimensionless C = η·steps·λ/(1−μ), for another learning rate, batch or data size.

    λ = C·(1−μ)/(lr·steps). C is of order one, and between setups as different as nets and data sets it may differ by a
    factor of several.

    Args:
        C: the C_argmax or C_within of a `Coefficient`.
        lr: η, the initial learning rate, in PyTorch's units.
        steps: the budget in optimizer steps, which is where batch and data size come in.
        momentum: μ, in [0, 1).
        first_decay: of a piecewise-constant learning rate, in optimizer steps.
        schedule: "constant" or "cosine", as predict_l2 has it.

    Returns:
        λ in PyTorch's units (a weight_decay).

    Raises:
        ValueError: as predict_l2 does, and for a momentum outside [0, 1).

    The paper's WRN: C = 1.29, lr = 0.02 in PyTorch's units, 49 steps an epoch, 60 epochs until the first decay.

    >>> f"{predict_l2_from_C(1.29, lr=0.02, steps=200 * 49, momentum=0.9, first_decay=60 * 49):.1e}"
    '2.2e-03'
    """
    momentum = below_one("momentum", momentum)
    steps = _acting_time(steps, first_decay, schedule, "steps")
    return _read_off("C", C) * (1 - momentum) / (positive("lr", lr) * steps)


def _read_off(name: str, value) -> float:
    """`c` or `C` as a positive number.

    Raises:
        ValueError: where it is all that was measured.
    """
    if isinstance(value, Coefficient):
        raise ValueError(f"{name} must be a number, got a {type(value).__name__}; give its {name}_argmax")
    return positive(name, value)


def _acting_time(budget: float, first_decay: float | None, schedule: str, name: str = "budget") -> float:
    """How long the initial learning rate counts as in force."""
    budget = positive(name, budget)
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    if first_decay is None:
        return budget / 2 if schedule == "cosine" else budget
    if schedule != "constant":
        raise ValueError(f"first_decay is that of a piecewise-constant learning rate, not of schedule={schedule!r}")
    first_decay = positive("first_decay", first_decay)
    if first_decay > budget:
        raise ValueError(f"first_decay must not exceed the {name}, got {first_decay} and {budget}")
    return first_decay


def round_l2(value: float, digits: int = 2) -> float:
    """λ rounded to `digits` significant digits, as the float nearest to that short decimal.

    A predicted λ goes into a run's id in this form, so that the last bits of a measurement rename no run.

    Raises:
        ValueError: where value is not positive and finite or digits is not a positive integer.

    >>> round_l2(0.0066 / 100.3)
    6.6e-05
    """
    value = positive("value", value)
    if not isinstance(digits, int) or digits < 1:
        raise ValueError(f"digits must be a positive integer, got {digits!r}")
    return float(f"{value:.{digits - 1}e}")


@dataclass(frozen=True)
class TunedL2:
    """What tuning λ on a grid finds: the best λ (the smallest one of equals) and every λ near the best accuracy.

    Attributes:
        l2: the best λ.
        accuracy: its mean accuracy.
        near_best: every λ near it.
        low: the smallest of them.
        high: the largest.
        centre: their geometric centre.
        at_edge: near_best touches an edge of the grid, so that a larger grid may well have found another λ, and no
            claim may rest on this one.
    """

    l2: float
    accuracy: float
    near_best: tuple[float, ...]
    low: float
    high: float
    centre: float
    at_edge: bool


def tuned_l2(l2, accuracy, within: float = NEAR_BEST) -> TunedL2 | None:
    """The tuned λ with its spread: all λ within 0.1 % of the best, read as points (figure 4b, claim C8).

    Args:
        l2: λ [n], in any order; entries of one λ (seeds) are averaged first, entries with λ = 0 are left out.
        accuracy: fractions [n].
        within: how far below the best is near, as a fraction.

    Returns:
        A `TunedL2`; None where no λ > 0 is given.

    Raises:
        ValueError: for mismatched or non-finite input, a negative λ, or a `within` that is negative or 0.1 and more.

    >>> tuned = tuned_l2([0, 1e-4, 1e-3, 1e-2, 1e-1], [0.9, 0.8, 0.8995, 0.9, 0.1])
    >>> tuned.l2, tuned.near_best, f"{tuned.centre:.2e}", tuned.at_edge
    (0.01, (0.001, 0.01), '3.16e-03', False)
    """
    l2, accuracy = array("l2", l2), fractions("accuracy", accuracy)
    if l2.ndim != 1 or l2.shape != accuracy.shape:
        raise ValueError(f"l2 and accuracy must be equally long, got {l2.shape} and {accuracy.shape}")
    if not np.isfinite(l2).all():
        raise ValueError("l2 must be finite")
    if (l2 < 0).any():
        raise ValueError("l2 must not be negative")
    within = small("within", within)
    grid = np.unique(l2[l2 > 0])
    if not grid.size:
        return None
    means = np.array([math.fsum(accuracy[l2 == value]) / np.count_nonzero(l2 == value) for value in grid])
    best = means.max()
    near_best = grid[means >= best - within - ROUNDING]
    low, high = float(near_best[0]), float(near_best[-1])
    return TunedL2(
        l2=float(grid[np.argmax(means >= best - ROUNDING)]),
        accuracy=float(best),
        near_best=tuple(near_best.tolist()),
        low=low,
        high=high,
        centre=math.sqrt(low) * math.sqrt(high),
        at_edge=bool(low == grid[0] or high == grid[-1]),
    )


def may_be_best(l2, accuracy, within: float = NEAR_BEST, resolution: float = 0.0, confidence: float = 0.90):
    """Between which λ of a grid those lie that may be as near the best as tuned_l2's: its interval over seeds.

    Those whose loss against the best, paired by seed, has an interval that reaches down to `within`: with one variance
    for all λ, and Bonferroni's correction, since which one is best is found by looking.

    Args:
        l2: λ > 0 [n], different ones.
        accuracy: fractions [seeds, n], of the same seeds at each λ.
        within: as tuned_l2 has it.
        resolution: the least standard deviation of a difference, such as one test image.
        confidence: of the two-sided intervals.

    Returns:
        (low, high); 0 or infinite where an end of the grid belongs to it, beyond which the best may lie, or where there
        are fewer than two seeds.

    >>> may_be_best([0.01, 0.02, 0.04], [[0.90, 0.95, 0.94], [0.91, 0.95, 0.95], [0.90, 0.96, 0.95]])
    (0.02, inf)
    """
    l2, accuracy = array("l2", l2), array("accuracy", accuracy)
    if l2.ndim != 1 or accuracy.shape[1:] != l2.shape:
        raise ValueError(f"accuracy must be [seeds, {l2.size}], got {accuracy.shape}")
    if len(accuracy) < 2 or l2.size < 2:
        return 0.0, math.inf
    means = accuracy.mean(axis=0)
    tuned, best = tuned_l2(l2, means, within), int(means.argmax())
    others = np.delete(np.arange(l2.size), best)
    level = 1 - (1 - confidence) / others.size
    lows = [low for _, low, _ in mean_interval(list((accuracy[:, [best]] - accuracy[:, others]).T), level, resolution)]
    possible = [*l2[others[np.array(lows) <= within]], tuned.low, tuned.high]
    low, high = float(min(possible)), float(max(possible))
    return 0.0 if low == l2.min() else low, math.inf if high == l2.max() else high
