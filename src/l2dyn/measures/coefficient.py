"""Floor 1: from one run's test-accuracy curve to the coefficient c = λ·t*, and from c to the best λ for a budget.

The recipe is section 3 of the paper: train with a large λ until test accuracy peaks, c = λ·t*, λ_pred = c/T. Beside it
stands what the prediction is judged by: the λ that tuning on a grid would have found (figure 4b, claims C7, C8, C11).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from l2dyn.metrics import ROUNDING, TOLERANCE, peak, time_to_peak

WINDOW = 5  # evaluations that the running mean spans
NEAR_BEST = 0.001  # 0.1 %, figure 4's caption


def predict_l2(c: float, budget: float, first_decay: float | None = None) -> float:
    """The predicted best λ: the smallest whose test accuracy peaks within the budget (section 3 of the paper).

    With a constant learning rate λ = c/budget. With a piecewise-constant learning rate λ = c/first_decay, where
    first_decay is the time of the first decay; c is measured at the fixed initial learning rate in both cases. c,
    budget and first_decay are in one unit of time, epochs by default. Raises ValueError for values that are not
    positive and finite, or a first_decay after the end of the budget.

    The paper's numbers: c ≈ 0.0066, T = 200 epochs, the first decay at epoch 60.

    >>> f"{predict_l2(0.0066, 200, first_decay=60):.1e}"
    '1.1e-04'
    >>> f"{predict_l2(0.0066, 200):.1e}"
    '3.3e-05'
    """
    c, budget = _positive("c", c), _positive("budget", budget)
    if first_decay is None:
        return c / budget
    first_decay = _positive("first_decay", first_decay)
    if first_decay > budget:
        raise ValueError(f"first_decay must not exceed the budget, got {first_decay} and {budget}")
    return c / first_decay


def round_l2(value: float, digits: int = 2) -> float:
    """λ rounded to `digits` significant digits, as the float nearest to that short decimal.

    A predicted λ goes into a run's id in this form, so that the last bits of a measurement rename no run. Raises
    ValueError where value is not positive and finite or digits is not a positive integer.

    >>> round_l2(0.0066 / 100.3)
    6.6e-05
    """
    value = _positive("value", value)
    if not isinstance(digits, int) or digits < 1:
        raise ValueError(f"digits must be a positive integer, got {digits!r}")
    return float(f"{value:.{digits - 1}e}")


def running_mean(values, window: int = WINDOW) -> np.ndarray:
    """The centred running mean over `window` neighbouring entries.

    At the ends the window shrinks symmetrically: entry i is averaged over i − h … i + h with
    h = min((window − 1)/2, i, n − 1 − i). So a straight line stays itself up to its ends, the first and last entry are
    left as they are, and any length will do. values: finite [n], n ≥ 1; returns [n]. Raises ValueError for other
    values, or a window that is not a positive odd integer.

    >>> running_mean([0, 3, 0, 0, 6], window=3).tolist()
    [0.0, 1.0, 1.0, 2.0, 6.0]
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"values must be one-dimensional, finite and not empty, got shape {values.shape}")
    if not isinstance(window, int) or window < 1 or window % 2 == 0:
        raise ValueError(f"window must be a positive odd integer, got {window!r}")
    last = len(values) - 1
    reach = [min(window // 2, i, last - i) for i in range(len(values))]
    return np.array([values[i - h : i + h + 1].mean() for i, h in enumerate(reach)])


@dataclass(frozen=True)
class Coefficient:
    """c = λ·(time of the peak), read in two ways off one run, or combined over the seeds of one setup.

    c_argmax takes the maximum of the smoothed curve (figure 4a: "the approximate point along the x axis where accuracy
    is maximized"), c_within ("c_0.5pp") takes t*, the first time within the tolerance of the unsmoothed maximum. Both
    have the unit of t, epochs by default. low and high bound them by the neighbouring evaluations. C = η·S·c/(1−μ)
    makes c dimensionless (η learning rate, S steps per epoch, μ momentum); theory expects it to be of order one.
    """

    c_argmax: float
    c_argmax_low: float
    c_argmax_high: float
    C_argmax: float
    c_within: float
    c_within_low: float
    c_within_high: float
    C_within: float
    censored: bool
    seeds: int = 1


def coefficient(
    t,
    accuracy,
    l2: float,
    lr: float,
    steps_per_epoch: float,
    momentum: float = 0.0,
    tolerance: float = TOLERANCE,
    chance: float = 0.1,
    window: int = WINDOW,
) -> Coefficient | None:
    """The coefficient c off one run's test-accuracy curve, at constant λ and learning rate (figure 4a, claim C9).

    t: strictly increasing times [n] from 0 on, in epochs. accuracy: fractions [n]. `window` counts the evaluations of
    the running mean whose first maximum gives c_argmax; see running_mean. The resolution of either c reaches to the
    neighbouring evaluations; where the peak is the first or the last of them the missing neighbour lies as far off as
    the other one, but not before t = 0, and a lone evaluation says nothing (0 to infinity). Over a peak that rises
    steeply and falls slowly the running mean moves c_argmax late, so evaluate often: the window should span a small
    part of the time to the peak. `censored` is as metrics.peak has it, with the last evaluation as the horizon. None
    where the run has no t*, because it never beats `chance` by 10 points.

    Raises ValueError for a curve that is empty, mismatched or not finite, times that do not increase or are negative,
    l2, lr or steps_per_epoch that are not positive and finite, a momentum outside [0, 1), a negative tolerance, or a
    window that is not a positive odd integer.

    >>> c = coefficient([0, 0.5, 1, 1.5, 2], [0.1, 0.5, 0.7, 0.6, 0.4], l2=0.01, lr=0.2, steps_per_epoch=50)
    >>> c.c_within_low, c.c_within, c.c_within_high
    (0.005, 0.01, 0.015)
    """
    l2, scale = _positive("l2", l2), _positive("lr", lr) * _positive("steps_per_epoch", steps_per_epoch)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1, got {momentum}")
    scale /= 1 - momentum
    t, accuracy = np.asarray(t, dtype=float), np.asarray(accuracy, dtype=float)
    time_to_peak(t, accuracy, tolerance)  # raises for a bad curve
    if t[0] < 0 or not (np.diff(t) > 0).all():
        raise ValueError("t must increase strictly and not be negative")
    smoothed = running_mean(accuracy, window)
    run = peak(t, accuracy, horizon=t[-1], chance=chance, tolerance=tolerance)
    if run is None:
        return None
    c_argmax, c_argmax_low, c_argmax_high = (l2 * time for time in _resolved(t, time_to_peak(t, smoothed, 0.0)))
    c_within, c_within_low, c_within_high = (l2 * time for time in _resolved(t, run.t_star))
    return Coefficient(
        c_argmax=c_argmax,
        c_argmax_low=c_argmax_low,
        c_argmax_high=c_argmax_high,
        C_argmax=scale * c_argmax,
        c_within=c_within,
        c_within_low=c_within_low,
        c_within_high=c_within_high,
        C_within=scale * c_within,
        censored=run.censored,
    )


def combine(coefficients: Iterable[Coefficient | None]) -> Coefficient | None:
    """One coefficient for the seeds of one setup: geometric means; low and high span every seed's resolution.

    Censored seeds and those without a t* (None) are left out; `seeds` counts what went in. None if none is left.

    >>> curve = [0.1, 0.5, 0.7, 0.6, 0.4]
    >>> early, late = (coefficient([0, s, 2 * s, 3 * s, 4 * s], curve, 0.01, 0.2, 50) for s in (0.5, 2.0))
    >>> both = combine([early, late, None])
    >>> round(both.c_within, 9), both.c_within_low, both.c_within_high, both.seeds
    (0.02, 0.005, 0.06, 2)
    """
    kept = [one for one in coefficients if one is not None and not one.censored]
    if not kept:
        return None

    def mean(name):
        return math.prod(sorted(getattr(one, name) ** (1 / len(kept)) for one in kept))  # 0 where one of them is 0

    return Coefficient(
        c_argmax=mean("c_argmax"),
        c_argmax_low=min(one.c_argmax_low for one in kept),
        c_argmax_high=max(one.c_argmax_high for one in kept),
        C_argmax=mean("C_argmax"),
        c_within=mean("c_within"),
        c_within_low=min(one.c_within_low for one in kept),
        c_within_high=max(one.c_within_high for one in kept),
        C_within=mean("C_within"),
        censored=False,
        seeds=sum(one.seeds for one in kept),
    )


@dataclass(frozen=True)
class TunedL2:
    """What tuning λ on a grid finds: the best λ (the smallest one of equals) and every λ near the best accuracy.

    low and high are the ends of near_best, centre is their geometric centre. at_edge: near_best touches an edge of the
    grid, so that a larger grid may well have found another λ, and no claim may rest on this one.
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

    l2: λ [n], in any order; entries of one λ (seeds) are averaged first, entries with λ = 0 are left out. accuracy:
    fractions [n]. None where no λ > 0 is given. Raises ValueError for mismatched or non-finite input, a negative λ or a
    negative `within`.

    >>> tuned = tuned_l2([0, 1e-4, 1e-3, 1e-2, 1e-1], [0.9, 0.8, 0.8995, 0.9, 0.1])
    >>> tuned.l2, tuned.near_best, f"{tuned.centre:.2e}", tuned.at_edge
    (0.01, (0.001, 0.01), '3.16e-03', False)
    """
    l2, accuracy = np.asarray(l2, dtype=float), np.asarray(accuracy, dtype=float)
    if l2.ndim != 1 or l2.shape != accuracy.shape:
        raise ValueError(f"l2 and accuracy must be equally long, got {l2.shape} and {accuracy.shape}")
    if not (np.isfinite(l2).all() and np.isfinite(accuracy).all()):
        raise ValueError("l2 and accuracy must be finite")
    if (l2 < 0).any():
        raise ValueError("l2 must not be negative")
    if not within >= 0:
        raise ValueError(f"within must not be negative, got {within}")
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


def decades_apart(a: float, b: float) -> float:
    """|log10(a/b)|, the distance of two λ in orders of magnitude (claim C8).

    Raises ValueError for values that are not positive and finite.

    >>> decades_apart(0.0001, 0.01)
    2.0
    """
    return abs(math.log10(_positive("a", a)) - math.log10(_positive("b", b)))


def _resolved(t: np.ndarray, at: float) -> tuple[float, float, float]:
    """The evaluation time `at`, which is one of t, with the neighbouring evaluations; outside t see coefficient."""
    i = int(np.searchsorted(t, at))
    if len(t) == 1:
        return at, 0.0, math.inf
    before = float(t[i - 1]) if i > 0 else max(2 * at - float(t[1]), 0.0)
    after = float(t[i + 1]) if i + 1 < len(t) else 2 * at - float(t[-2])
    return at, before, after


def _positive(name: str, value) -> float:
    value = float(value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return value
