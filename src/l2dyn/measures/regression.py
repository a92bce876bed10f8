"""Normal regression in which some values are lower bounds, and means with intervals: what intervals here rest on."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Regression:
    """Coefficients with their intervals; spread is the unbiased standard deviation of the noise.

    free: uncensored values less coefficients, the degrees of freedom of the t intervals.
    """

    coefficients: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    spread: float
    free: int


def regress(design, values, censored=None, confidence: float = 0.90, wanted=None) -> Regression | None:
    """Maximum likelihood of values = design·coefficients + normal noise of one variance.

    design: [n, p]; values: [n]; censored: bool [n], where a value is a lower bound only. Without such values this is
    least squares with t intervals; with them the normal likelihood with right-censored values, and intervals by its
    profile, at the level that gives the t interval where nothing is censored. wanted: the coefficients whose intervals
    are computed (default all), the others' are nan. None where fewer than p + 1 values are uncensored, where these
    do not tell the coefficients apart, or where they lie on the law exactly while others are censored.
    """
    design, values = np.asarray(design, dtype=float), np.asarray(values, dtype=float)
    censored = np.zeros(values.shape, dtype=bool) if censored is None else np.asarray(censored, dtype=bool)
    count = design.shape[1]
    free = int((~censored).sum()) - count
    if free < 1 or not (_has_full_rank(design) and _has_full_rank(design[~censored])):
        return None
    coefficients, sigma, best = _maximize(design, values, censored)
    if censored.any() and sigma < 1e-6:
        return None
    low, high = np.full(count, math.nan), np.full(count, math.nan)
    for j in range(count) if wanted is None else wanted:
        low[j], high[j] = _interval(design, values, censored, j, coefficients, sigma, best, free, confidence)
    spread = sigma * math.sqrt((free + count) / free)
    return Regression(*(tuple(map(float, v)) for v in (coefficients, low, high)), float(spread), free)


def mean_interval(groups, confidence: float = 0.90, floor: float = 0.0) -> list[tuple[float, float, float]]:
    """(mean, low, high) of each group of values, with one variance pooled over the groups and t intervals.

    groups: sequences of values, one for each point of a line, its seeds. floor: the least standard deviation of a
    value, such as its resolution. The interval is (nan, nan) where no group has two values.

    Raises:
        ValueError: for an empty group.

    >>> [tuple(round(v, 2) for v in one) for one in mean_interval([[1.0, 1.2], [2.0, 2.2]])]
    [(1.1, 0.81, 1.39), (2.1, 1.81, 2.39)]
    """
    from scipy import stats

    groups = [np.asarray(group, dtype=float) for group in groups]
    if any(group.size == 0 for group in groups):
        raise ValueError("a group without values has no mean")
    free = sum(group.size - 1 for group in groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    spread = math.nan if free == 0 else max(math.sqrt(squares / free), floor)
    reach = spread * float(stats.t.ppf(0.5 + confidence / 2, max(free, 1)))
    means = [float(group.mean()) for group in groups]
    halves = [reach / math.sqrt(group.size) for group in groups]
    return [(mean, mean - half, mean + half) for mean, half in zip(means, halves, strict=True)]


def _interval(design, values, censored, j, coefficients, sigma, best, free, confidence) -> tuple[float, float]:
    """The interval of coefficient j; infinite on a side where the likelihood does not fall off."""
    from scipy import optimize, stats

    used = free + design.shape[1]
    quantile = float(stats.t.ppf(0.5 + confidence / 2, free))
    scale = math.sqrt(float(np.linalg.inv(design.T @ design)[j, j]))
    if not censored.any():
        half = quantile * sigma * math.sqrt(used / free) * scale
        return float(coefficients[j] - half), float(coefficients[j] + half)
    others = [k for k in range(design.shape[1]) if k != j]
    drop = 0.5 * used * math.log1p(quantile**2 / free)

    def lost(value: float) -> float:
        held = values - value * design[:, j]
        return best - _maximize(design[:, others], held, censored)[2] - drop

    ends = []
    for sign in (-1, 1):
        far = coefficients[j] + sign * quantile * sigma * scale
        for _ in range(60):
            if lost(far) > 0:
                ends.append(float(optimize.brentq(lost, coefficients[j], far, xtol=1e-6)))
                break
            far = coefficients[j] + 1.6 * (far - coefficients[j])
        else:
            ends.append(sign * math.inf)
    return ends[0], ends[1]


def _maximize(design, values, censored) -> tuple[np.ndarray, float, float]:
    """(coefficients, σ, log-likelihood), by Newton's method in (coefficients/σ, 1/σ).

    In these the likelihood is concave (Olsen, 1978). design may have no columns.
    """
    from scipy import special

    coefficients = np.linalg.lstsq(design, values, rcond=None)[0] if design.shape[1] else np.zeros(0)
    sigma = math.sqrt(float(np.mean((values - design @ coefficients) ** 2)))
    known, matrix = ~censored, np.column_stack([design, -values])
    count = int(known.sum())

    def likelihood(p: np.ndarray) -> float:
        if p[-1] <= 0:
            return -math.inf
        v = matrix @ p
        densities = count * (math.log(p[-1]) - 0.5 * math.log(2 * math.pi)) - 0.5 * float((v[known] ** 2).sum())
        return densities + float(special.log_ndtr(v[censored]).sum())

    p = np.append(coefficients, 1.0) / max(sigma, 1e-12)
    best = likelihood(p)
    for _ in range(100 if censored.any() else 0):
        v = matrix @ p
        ratio = np.exp(-0.5 * v[censored] ** 2 - 0.5 * math.log(2 * math.pi) - special.log_ndtr(v[censored]))
        weight, curvature = -v, np.ones(len(v))
        weight[censored], curvature[censored] = ratio, ratio * (v[censored] + ratio)
        gradient = matrix.T @ weight
        gradient[-1] += count / p[-1]
        negative_hessian = (matrix * curvature[:, None]).T @ matrix
        negative_hessian[-1, -1] += count / p[-1] ** 2
        step = np.linalg.lstsq(negative_hessian, gradient, rcond=None)[0]
        while (reached := likelihood(p + step)) < best and np.abs(step).max() > 1e-14 * np.abs(p).max():
            step = step / 2
        if reached <= best:
            break
        p, best = p + step, reached
        if gradient @ step < 1e-12:
            break
    return p[:-1] / p[-1], float(1 / p[-1]), best


def _has_full_rank(design: np.ndarray) -> bool:
    return bool(np.linalg.matrix_rank(design, tol=1e-9 * np.linalg.norm(design)) == design.shape[1])
