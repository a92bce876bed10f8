"""Running means of measured curves, and the noise of their single values."""

import numpy as np

from l2dyn.arguments import array

WINDOW = 5  # evaluations that the running mean spans


def running_mean(values, window: int = WINDOW) -> np.ndarray:
    """The centred running mean over `window` neighbouring entries.

    At the ends the window shrinks symmetrically: entry i is averaged over i − h … i + h with h = min((window − 1)/2, i,
    n − 1 − i). So a straight line stays itself up to its ends, the first and last entry are left as they are, and any
    length will do. values: finite [n], n ≥ 1; returns [n].

    Raises:
        ValueError: for other values, or a window that is not a positive odd integer.

    >>> running_mean([0, 3, 0, 0, 6], window=3).tolist()
    [0.0, 1.0, 1.0, 2.0, 6.0]
    """
    values = array("values", values)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"values must be one-dimensional, finite and not empty, got shape {values.shape}")
    if not isinstance(window, int) or window < 1 or window % 2 == 0:
        raise ValueError(f"window must be a positive odd integer, got {window!r}")
    last = len(values) - 1
    reach = [min(window // 2, i, last - i) for i in range(len(values))]
    return np.array([values[i - h : i + h + 1].mean() for i, h in enumerate(reach)])


def noise(values) -> float:
    """The standard deviation of single values [n] about a curve that is smooth, or straight between a few corners.

    From the median of the second differences, which a trend or a few jumps hardly move; 0 below three values.

    Raises:
        ValueError: for what are no numbers.

    >>> noise([0, 1, 2, 3, 30, 31, 32])
    0.0
    """
    differences = np.diff(array("values", values), 2)
    if not differences.size:
        return 0.0
    return float(np.median(np.abs(differences)) / (0.6745 * np.sqrt(6.0)))  # of a normal distribution
