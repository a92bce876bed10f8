"""The time t* of a run's peak, and the one rule of censoring."""

import math
from dataclasses import dataclass

import numpy as np

from l2dyn.arguments import array, number, small
from l2dyn.measures.smoothing import WINDOW, noise

TOLERANCE = 0.005  # 0.5 percentage points, figure 2's caption
ABOVE_CHANCE = 0.10  # a run that never beats chance by this has no t*
FITTED_ERROR = 0.02  # a run whose training error never gets this low does not fit the training set
ROUNDING = 1e-12  # lets 0.895 count as within 0.005 of 0.9 in binary arithmetic


def time_to_peak(t, accuracy, tolerance: float = TOLERANCE) -> float:
    """t*: the first time at which accuracy is within `tolerance` of its maximum (figure 2's caption).

    Args:
        t: increasing times [n], any unit.
        accuracy: fractions [n], 0.9 and not 90.
        tolerance: as a fraction (paper: 0.005).

    Returns:
        t*, in the unit of t.

    Raises:
        ValueError: naming the argument, for empty, mismatched or non-finite input, times that do not increase,
            accuracies outside [0, 1], or a tolerance that is negative or 0.1 and more, as half a point written as 0.5
            percent is.

    >>> time_to_peak([1, 2, 4, 8], [0.5, 0.897, 0.9, 0.8])
    2.0
    """
    t, accuracy = curve(t, accuracy)
    return float(t[_first_within(accuracy, small("tolerance", tolerance))])


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

    The one censoring rule, for t* and fits only: a run is right-censored when its t* hangs on where the run happens to
    end. So it is unless accuracy has come down (`has_come_down`), or t* lies in the first half of the horizon and the
    first half alone, read by the same rule, gives a t* less than √2 times earlier. An accuracy that creeps upwards as
    log t fails that, whatever its slope: its t* is a fixed part of the horizon, and horizons ∝ 1/λ look like a law.

    Args:
        t: increasing times [n], any unit.
        accuracy: fractions [n].
        horizon: when the run ended, in the unit of t.
        chance: the accuracy of guessing.
        tolerance: of t*, as a fraction.

    Returns:
        A `Peak`, or None.

    Raises:
        ValueError: as time_to_peak does.
    """
    t, accuracy = curve(t, accuracy)
    horizon, chance, tolerance = number("horizon", horizon), number("chance", chance), small("tolerance", tolerance)
    t_star = time_to_peak(t, accuracy, tolerance)
    best = float(accuracy.max())
    if best < chance + ABOVE_CHANCE:
        return None
    first = _first_within(accuracy, tolerance)
    return Peak(
        max_accuracy=best,
        t_argmax=float(t[accuracy.argmax()]),
        t_star=t_star,
        t_before=float(t[max(first - 1, 0)]),
        censored=not (has_come_down(accuracy, tolerance) or _stays(t, accuracy, t_star, horizon, tolerance)),
    )


def has_come_down(accuracy, tolerance: float = TOLERANCE) -> bool:
    """Whether a curve [n] ends visibly below its maximum: by more than `tolerance` and three times its noise.

    Means over five evaluations are compared, the last of them with the best, over fewer where there are few; below 16
    evaluations over one, and noise cannot be told from the curve.

    Raises:
        ValueError: naming the argument, where accuracies are not finite or no fractions, or the tolerance is none.

    >>> has_come_down([0.5, 0.9, 0.7, 0.6]), has_come_down([0.5, 0.8, 0.9, 0.896])
    (True, False)
    """
    accuracy, tolerance = fractions("accuracy", accuracy), small("tolerance", tolerance)
    window = max(1, (min(WINDOW, len(accuracy) // 8) - 1) // 2 * 2 + 1)  # odd
    spread = noise(accuracy[-3 * WINDOW - 2 :]) * math.sqrt(2 / window) if len(accuracy) >= 16 else 0.0
    means = np.convolve(accuracy, np.full(window, 1 / window), mode="valid")
    return bool(means[-1] < means.max() - tolerance - 3.0 * spread - ROUNDING)


def _stays(t: np.ndarray, accuracy: np.ndarray, t_star: float, horizon: float, tolerance: float) -> bool:
    """Whether t* lies in the first half of the horizon and would have been found there much the same."""
    if t_star > horizon / 2:
        return False
    half = t <= horizon / 2
    return time_to_peak(t[half], accuracy[half], tolerance) * math.sqrt(2.0) >= t_star


def curve(t, accuracy) -> tuple[np.ndarray, np.ndarray]:
    """Times and accuracies [n] as float arrays.

    Raises:
        ValueError: as time_to_peak does.
    """
    t, accuracy = times(t), fractions("accuracy", accuracy)
    if t.shape != accuracy.shape or t.size == 0:
        raise ValueError(f"t and accuracy must be equally long and not empty, got {t.shape} and {accuracy.shape}")
    return t, accuracy


def times(t) -> np.ndarray:
    """Times [n] as floats.

    Raises:
        ValueError: where they are not finite or do not increase from each to the next.
    """
    t = array("t", t)
    if t.ndim != 1 or not np.isfinite(t).all() or not (np.diff(t) > 0).all():
        raise ValueError("t must be finite and increase, from each time to the next")
    return t


def fractions(name: str, values) -> np.ndarray:
    """Accuracies [n] as floats.

    Raises:
        ValueError: naming the argument, where one is no fraction, as percents are.
    """
    values = array(name, values)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite and one-dimensional")
    if values.size and not (values.min() >= 0 and values.max() <= 1 + ROUNDING):
        found = values.max() if values.max() > 1 + ROUNDING else values.min()
        raise ValueError(f"{name} must hold fractions between 0 and 1 (0.9, not 90), got {found:g}")
    return values


def _first_within(accuracy: np.ndarray, tolerance: float) -> int:
    return int(np.argmax(accuracy >= accuracy.max() - tolerance - ROUNDING))
