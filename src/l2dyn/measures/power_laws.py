"""The fit of the law t* ∝ 1/(ηλ), in which runs that are only bounds count as bounds."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PowerLaw:
    """y = exp(intercept)·x₁^slopes[0]·…; low and high bound each slope at the confidence asked for.

    spread: standard deviation of log y about the law. points, bounds: how many values, how many of them lower bounds.
    """

    slopes: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    intercept: float
    spread: float
    points: int
    bounds: int
    decades: tuple[float, ...]  # range of each x
    confidence: float


def fit_power_law(y, *xs, censored=None, confidence: float = 0.90) -> PowerLaw | None:
    """Maximum likelihood of log y = a + b₁·log x₁ + … + noise, one variance for all (claims C1, C2).

    y and each x: positive values [n]. censored: bool [n], where y is a lower bound only (a run cut before its peak);
    leaving these out would bias the slope. Without them this is least squares with t intervals; with them the normal
    likelihood with right-censored values, and intervals by its profile, at the level that gives the t interval where
    nothing is censored. Seeds are separate values, so that their scatter is pooled along the line.

    None with fewer than two uncensored points more than slopes, where the slopes cannot be told apart (an x that does
    not vary, say), or where all points lie on the law exactly and some are censored. Raises ValueError for values that
    are not positive and finite, or of another length.

    >>> law = fit_power_law([8.1, 3.9, 2.0, 1.0], [1, 2, 4, 8])
    >>> round(law.slopes[0], 2), law.low[0] < -1 < law.high[0]
    (-1.0, True)
    """
    y, columns = np.asarray(y, dtype=float), [np.asarray(x, dtype=float) for x in xs]
    censored = np.zeros(y.shape, dtype=bool) if censored is None else np.asarray(censored, dtype=bool)
    if any(x.shape != y.shape or x.ndim != 1 for x in (*columns, censored)):
        raise ValueError("y, every x and censored must be one-dimensional and equally long")
    if not all((np.isfinite(values) & (values > 0)).all() for values in (y, *columns)):
        raise ValueError("a power law is fitted to positive, finite values")
    free = int((~censored).sum()) - len(columns) - 1
    design = np.column_stack([np.ones(len(y)), *(np.log(x) for x in columns)])
    if free < 1 or not (_has_full_rank(design) and _has_full_rank(design[~censored])):
        return None
    logs = np.log(y)
    coefficients, sigma, best = _maximize(design, logs, censored)
    if censored.any() and sigma < 1e-9:
        return None
    intervals = [
        _interval(design, logs, censored, j, coefficients, sigma, best, free, confidence)
        for j in range(1, len(coefficients))
    ]
    unbiased = sigma * math.sqrt((free + len(columns) + 1) / free)
    return PowerLaw(
        slopes=tuple(map(float, coefficients[1:])),
        low=tuple(low for low, _ in intervals),
        high=tuple(high for _, high in intervals),
        intercept=float(coefficients[0]),
        spread=float(unbiased),
        points=len(y),
        bounds=int(censored.sum()),
        decades=tuple(float(np.log10(x.max() / x.min())) for x in columns),
        confidence=confidence,
    )


def mean_interval(groups, confidence: float = 0.90) -> list[tuple[float, float, float]]:
    """(mean, low, high) of each group of values, with one variance pooled over the groups and t intervals.

    groups: sequences of values, one for each point of a line, its seeds. The interval is (nan, nan) where no group has
    two values. Raises ValueError for an empty group.

    >>> [tuple(round(v, 2) for v in one) for one in mean_interval([[1.0, 1.2], [2.0, 2.2]])]
    [(1.1, 0.81, 1.39), (2.1, 1.81, 2.39)]
    """
    from scipy import stats

    groups = [np.asarray(group, dtype=float) for group in groups]
    if any(group.size == 0 for group in groups):
        raise ValueError("a group without values has no mean")
    free = sum(group.size - 1 for group in groups)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    reach = math.nan if free == 0 else math.sqrt(squares / free) * float(stats.t.ppf(0.5 + confidence / 2, free))
    means = [float(group.mean()) for group in groups]
    halves = [reach / math.sqrt(group.size) for group in groups]
    return [(mean, mean - half, mean + half) for mean, half in zip(means, halves, strict=True)]


def _interval(design, logs, censored, j, coefficients, sigma, best, free, confidence) -> tuple[float, float]:
    """The profile-likelihood interval of coefficient j."""
    from scipy import optimize, stats

    used = free + design.shape[1]
    quantile = float(stats.t.ppf(0.5 + confidence / 2, free))
    drop = 0.5 * used * math.log1p(quantile**2 / free)
    if not censored.any():
        variance = sigma**2 * used / free * np.linalg.inv(design.T @ design)[j, j]
        half = quantile * math.sqrt(variance)
        return float(coefficients[j] - half), float(coefficients[j] + half)
    others = [k for k in range(design.shape[1]) if k != j]

    def lost(slope: float) -> float:
        held = logs - slope * design[:, j]
        return best - _maximize(design[:, others], held, censored)[2] - drop

    step = quantile * sigma / math.sqrt(((design[:, j] - design[:, j].mean()) ** 2).sum())
    ends = []
    for sign in (-1, 1):
        far = coefficients[j] + sign * step
        for _ in range(60):
            if lost(far) > 0:
                break
            far = coefficients[j] + 1.6 * (far - coefficients[j])
        else:
            ends.append(sign * math.inf)
            continue
        ends.append(float(optimize.brentq(lost, coefficients[j], far, xtol=1e-6)))
    return ends[0], ends[1]


def _maximize(design, logs, censored) -> tuple[np.ndarray, float, float]:
    """(coefficients, σ, log-likelihood) of the normal regression with right-censored values.

    Newton's method in (coefficients/σ, 1/σ), in which the likelihood is concave (Olsen, 1978).
    """
    from scipy import special

    coefficients = np.linalg.lstsq(design, logs, rcond=None)[0]
    sigma = math.sqrt(float(np.mean((logs - design @ coefficients) ** 2)))
    known, matrix = ~censored, np.column_stack([design, -logs])
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
