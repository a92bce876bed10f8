"""The fit of the law t* ∝ 1/(ηλ)."""

from dataclasses import dataclass

import numpy as np


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
