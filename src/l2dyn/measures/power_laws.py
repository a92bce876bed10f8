"""The fit of the law t* ∝ 1/(ηλ), in which runs that are only bounds count as bounds."""

from dataclasses import dataclass

import numpy as np

from l2dyn.arguments import array
from l2dyn.measures.regression import regress


@dataclass(frozen=True)
class PowerLaw:
    """y = exp(intercept)·x₁^slopes[0]·…; low and high bound each slope at the confidence asked for.

    intercept: of the first line where there are several. spread: standard deviation of log y about the law. points,
    bounds: how many values, how many of them lower bounds.
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


def fit_power_law(y, *xs, censored=None, lines=None, confidence: float = 0.90) -> PowerLaw | None:
    """Maximum likelihood of log y = a + b₁·log x₁ + … + noise, one variance for all (claims C1, C2).

    y and each x: positive values [n]. censored: bool [n], where y is a lower bound only (a run cut before its peak);
    leaving these out would bias the slope. lines: labels [n] of lines that share the slopes but not the constant, as
    learning rates do; one all of whose values are bounds says nothing of the slopes, since its constant may be any
    larger one, and is left out. Seeds are separate values, so that their scatter is pooled. Intervals:
    measures.regression.

    None with fewer than two uncensored points more than slopes, where the slopes cannot be told apart (an x that does
    not vary, say), or where all points lie on the law exactly and some are censored.

    Raises:
        ValueError: for values that are not positive and finite, or of another length.

    >>> law = fit_power_law([8.1, 3.9, 2.0, 1.0], [1, 2, 4, 8])
    >>> round(law.slopes[0], 2), law.low[0] < -1 < law.high[0]
    (-1.0, True)
    """
    y, columns = array("y", y), [array("x", x) for x in xs]
    censored = np.zeros(y.shape, dtype=bool) if censored is None else np.asarray(censored, dtype=bool)
    lines = np.zeros(y.shape, dtype=int) if lines is None else np.asarray(lines)
    if any(x.shape != y.shape or x.ndim != 1 for x in (*columns, censored, lines)):
        raise ValueError("y, every x, censored and lines must be one-dimensional and equally long")
    if not all((np.isfinite(values) & (values > 0)).all() for values in (y, *columns)):
        raise ValueError("a power law is fitted to positive, finite values")
    told = np.isin(lines, lines[~censored])
    y, columns, censored, lines = y[told], [x[told] for x in columns], censored[told], lines[told]
    constants = np.column_stack([lines == line for line in dict.fromkeys(lines.tolist())] or [np.ones(0)])
    if not len(y):
        return None
    design = np.column_stack([constants, *(np.log(x) for x in columns)])
    first = constants.shape[1]
    found = regress(design, np.log(y), censored, confidence, wanted=range(first, design.shape[1]))
    if found is None:
        return None
    return PowerLaw(
        slopes=found.coefficients[first:],
        low=found.low[first:],
        high=found.high[first:],
        intercept=found.coefficients[0],
        spread=found.spread,
        points=len(y),
        bounds=int(censored.sum()),
        decades=tuple(float(np.log10(x.max() / x.min())) for x in columns),
        confidence=confidence,
    )
