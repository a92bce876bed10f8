"""The coefficient c = λ·t* of one run's test-accuracy curve, and of the seeds of one setup (figure 4a, claim C9)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from l2dyn.arguments import below_one, positive
from l2dyn.measures.peaks import TOLERANCE, curve, peak, time_to_peak
from l2dyn.measures.smoothing import WINDOW, running_mean


@dataclass(frozen=True)
class Coefficient:
    """c = λ·(time of the peak), read in two ways off one run, or combined over the seeds of one setup.

    C = η·S·c/(1−μ) makes c dimensionless (η learning rate, S steps per epoch, μ momentum); theory expects it to be of
    order one.

    Attributes:
        c_argmax: λ times the maximum of the smoothed curve (figure 4a: "the approximate point along the x axis where
            accuracy is maximized"), in the unit of t, epochs by default.
        c_within: ("c_0.5pp") λ·t*, the first time within the tolerance of the unsmoothed maximum, in that unit.
        c_argmax_low: c_argmax by the evaluation before it.
        c_argmax_high: by the one after it.
        C_argmax: dimensionless, from c_argmax.
        c_within_low: c_within by the evaluation before it.
        c_within_high: by the one after it.
        C_within: dimensionless, from c_within.
        censored: whether the peak may lie beyond the end of the curve.
        seeds: how many runs went in.
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

    The resolution of either c reaches to the neighbouring evaluations; where the peak is the first or the last of them
    the missing neighbour lies as far off as the other one, but not before t = 0, and a lone evaluation says nothing (0
    to infinity). Over a peak that rises steeply and falls slowly the running mean moves c_argmax late, so evaluate
    often: the window should span a small part of the time to the peak.

    Args:
        t: strictly increasing times [n] from 0 on, in epochs.
        accuracy: fractions [n].
        l2: λ.
        lr: η, constant.
        steps_per_epoch: S.
        momentum: μ, in [0, 1).
        tolerance: of t*, as a fraction (paper: 0.005).
        chance: the accuracy of guessing.
        window: evaluations of the running mean whose first maximum gives c_argmax; odd.

    Returns:
        A `Coefficient`, `censored` as l2dyn.measures.peaks has it, the last evaluation being the horizon. None where
        the run has no t*, because it never beats `chance` by 10 points.

    Raises:
        ValueError: for a curve that is empty, mismatched or not finite, times that do not increase or are negative, l2,
            lr or steps_per_epoch that are not positive and finite, a momentum outside [0, 1), a tolerance as
            time_to_peak does, or a window that is not a positive odd integer.

    >>> c = coefficient([0, 0.5, 1, 1.5, 2], [0.1, 0.5, 0.7, 0.6, 0.4], l2=0.01, lr=0.2, steps_per_epoch=50)
    >>> c.c_within_low, c.c_within, c.c_within_high
    (0.005, 0.01, 0.015)
    """
    l2, scale = positive("l2", l2), positive("lr", lr) * positive("steps_per_epoch", steps_per_epoch)
    scale /= 1 - below_one("momentum", momentum)
    t, accuracy = curve(t, accuracy)
    if t[0] < 0:
        raise ValueError(f"t must not be negative, got {t[0]:g}")
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


def _resolved(t: np.ndarray, at: float) -> tuple[float, float, float]:
    """The evaluation time `at`, which is one of t, with the neighbouring evaluations; outside t see coefficient."""
    i = int(np.searchsorted(t, at))
    if len(t) == 1:
        return at, 0.0, math.inf
    before = float(t[i - 1]) if i > 0 else max(2 * at - float(t[1]), 0.0)
    after = float(t[i + 1]) if i + 1 < len(t) else 2 * at - float(t[-2])
    return at, before, after
