"""Floor 1: what is read off a run's curves: t*, maxima, censoring, the fit of the law t* ∝ 1/λ."""

from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.005  # 0.5 percentage points, figure 2's caption
ABOVE_CHANCE = 0.10  # a run that never beats chance by this has no t*
FITTED_ERROR = 0.02  # a run whose training error never gets this low does not fit the training set
ROUNDING = 1e-12  # lets 0.895 count as within 0.005 of 0.9 in binary arithmetic


def time_to_peak(t, accuracy, tolerance: float = TOLERANCE) -> float:
    """t*: the first time at which accuracy is within `tolerance` of its maximum (figure 2's caption).

    t: increasing times [n], any unit. accuracy: fractions [n]. Raises ValueError for empty, mismatched or
    non-finite input, or a negative tolerance.

    >>> time_to_peak([1, 2, 4, 8], [0.5, 0.897, 0.9, 0.8])
    2.0
    """
    t, accuracy = np.asarray(t, dtype=float), np.asarray(accuracy, dtype=float)
    if t.ndim != 1 or t.shape != accuracy.shape or t.size == 0:
        raise ValueError(f"t and accuracy must be equally long and not empty, got {t.shape} and {accuracy.shape}")
    if not (np.isfinite(t).all() and np.isfinite(accuracy).all()):
        raise ValueError("t and accuracy must be finite")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    return float(t[_first_within(accuracy, tolerance)])


@dataclass(frozen=True)
class Peak:
    """A run's best test accuracy and when it was reached; times are in the unit of `t`.

    t_star is interval-censored by the evaluation grid: the band was entered after t_before, at t_star at the latest.
    """

    max_accuracy: float
    t_argmax: float
    t_star: float
    t_before: float
    censored: bool


def peak(t, accuracy, horizon: float, chance: float = 0.1, tolerance: float = TOLERANCE) -> Peak | None:
    """The peak of a test-accuracy curve, None where it never beats chance by 10 points.

    The one censoring rule, for t* and fits only: a run is right-censored when it first comes within `tolerance` of its
    maximum in the last half of its horizon (it has not flattened before) and ends within `tolerance` of it (it has not
    come down). Raises ValueError as time_to_peak does.
    """
    t, accuracy = np.asarray(t, dtype=float), np.asarray(accuracy, dtype=float)
    t_star = time_to_peak(t, accuracy, tolerance)
    best = float(accuracy.max())
    if best < chance + ABOVE_CHANCE:
        return None
    first = _first_within(accuracy, tolerance)
    rising_late = t_star > horizon / 2
    come_down = accuracy[-1] < best - tolerance - ROUNDING
    return Peak(
        max_accuracy=best,
        t_argmax=float(t[accuracy.argmax()]),
        t_star=t_star,
        t_before=float(t[max(first - 1, 0)]),
        censored=bool(rising_late and not come_down),
    )


@dataclass(frozen=True)
class PowerLaw:
    """y = exp(intercept)·x₁^slopes[0]·…; low and high bound each slope at the confidence asked for."""

    slopes: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    intercept: float
    points: int
    decades: tuple[float, ...]  # range of each x
    confidence: float


def fit_power_law(y, *xs, confidence: float = 0.90, resamples: int = 2000, seed: int = 0) -> PowerLaw | None:
    """Least squares of log y on log x₁, log x₂, …, with a percentile bootstrap over the points (claims C1, C2).

    y and each x: positive values [n]. None with fewer than two points more than slopes, or where the slopes cannot be
    told apart (an x that does not vary, say). Raises ValueError for values that are not positive and finite, or of
    another length.
    """
    y, columns = np.asarray(y, dtype=float), [np.asarray(x, dtype=float) for x in xs]
    if any(x.shape != y.shape or x.ndim != 1 for x in columns):
        raise ValueError("y and every x must be one-dimensional and equally long")
    if not all((np.isfinite(values) & (values > 0)).all() for values in (y, *columns)):
        raise ValueError("a power law is fitted to positive, finite values")
    if len(y) < len(columns) + 2:
        return None
    design = np.column_stack([np.ones(len(y)), *(np.log(x) for x in columns)])
    logs = np.log(y)
    if not _has_full_rank(design):
        return None
    coefficients = np.linalg.lstsq(design, logs, rcond=None)[0]
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(20 * resamples):  # a resample in which some x does not vary says nothing of its slope
        chosen = generator.integers(len(y), size=len(y))
        if _has_full_rank(design[chosen]):
            draws.append(np.linalg.lstsq(design[chosen], logs[chosen], rcond=None)[0][1:])
            if len(draws) == resamples:
                break
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return PowerLaw(
        slopes=tuple(map(float, coefficients[1:])),
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
        intercept=float(coefficients[0]),
        points=len(y),
        decades=tuple(float(np.log10(x.max() / x.min())) for x in columns),
        confidence=confidence,
    )


def _has_full_rank(design: np.ndarray) -> bool:
    return bool(np.linalg.matrix_rank(design, tol=1e-9 * np.linalg.norm(design)) == design.shape[1])


def _first_within(accuracy: np.ndarray, tolerance: float) -> int:
    return int(np.argmax(accuracy >= accuracy.max() - tolerance - ROUNDING))
