"""The time at which a run's empirical loss is smallest, and its rule of censoring (claim C19)."""

import numpy as np

from l2dyn.arguments import array, number
from l2dyn.measures.coefficient import running_mean
from l2dyn.measures.peaks import times

RISEN = 0.05  # the smoothed loss has come up again when it ends by this fraction above its minimum


def time_to_trough(t, loss, horizon: float, risen: float = RISEN) -> tuple[float, bool]:
    """(time of the smallest smoothed loss, whether that is only a lower bound).

    t: increasing times [n]. loss: positive losses [n], without the penalty, smoothed by measures.coefficient's running
    mean. Right-censored when the minimum lies in the last half of the horizon and the loss does not end by the fraction
    `risen` above it.

    Raises:
        ValueError: for empty, mismatched or non-finite input, or times that do not increase.

    >>> time_to_trough([0, 1, 2, 4, 8, 16, 32], [1, 0.5, 0.2, 0.1, 0.1, 0.4, 0.5], horizon=32)
    (4.0, False)
    """
    t, loss = times(t), array("loss", loss)
    if t.shape != loss.shape or t.size == 0:
        raise ValueError(f"t and loss must be equally long and not empty, got {t.shape} and {loss.shape}")
    if not np.isfinite(loss).all():
        raise ValueError("loss must be finite")
    smoothed = running_mean(loss)
    lowest = int(smoothed.argmin())
    come_up = smoothed[-1] > (1 + risen) * smoothed[lowest]
    return float(t[lowest]), bool(t[lowest] > number("horizon", horizon) / 2 and not come_up)
