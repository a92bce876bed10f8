"""When the loss is smallest and the test accuracy largest, in theory: t_min, c and the dimensionless C.

The paper's law is t* = c/λ. In gradient-flow time the constant is C = λ·t; with t = η·S·epochs (S steps an epoch) it is
c = λ·epochs = C/(η·S), claim C14 and section 3.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from l2dyn.arguments import array, small
from l2dyn.theory._checks import broadcast_shape, count, finite, increasing, number
from l2dyn.theory.evolution import evolve
from l2dyn.theory.modes import mode_residual_response, slope_response

_POINTS = 4  # of the search for an e-fold of t: every mode's loss is smooth over one
_ROUNDING = 1e-12  # lets 0.895 count as within 0.005 of 0.9 in binary arithmetic
_FLAT = 1e-12  # a minimum must lie this far, relatively, below both ends


@dataclass(frozen=True)
class Extremum:
    """A time of gradient flow and what is reached there.

    Attributes:
        t: learning rate times steps.
        value: the loss, or the accuracy as a fraction.
        C: λ·t, without dimension.
    """

    t: float
    value: float
    C: float


def loss_minimum(eigenvalues, target, l2, k, initial=0.0, weights=1.0) -> Extremum | None:
    """The interior minimum over time of the training loss Σ_a w_a ½ (f_a(t) - y_a)², equation (3) for every mode.

    Args:
        eigenvalues: of the NTK, [modes], for the loss summed over samples (divide by N for the mean).
        target, initial: components y_a and f_a(0) along the modes, broadcast against the eigenvalues.
        l2, k: λ and the degree of homogeneity, numbers.
        weights: w_a, such as a quadrature of a density of modes, or 1/N for the mean.

    Returns:
        The minimum, or None where there is none between the start and the end: for λ = 0 (or below 1e-140 of the
        largest eigenvalue, where float64 ends), for the linear model from f(0) = 0, or where L2 wins from the start.

    Raises:
        ValueError: an argument is not finite, eigenvalues, l2, k or weights are negative, or shapes do not fit.

    >>> found = loss_minimum([1.0], [1.0], l2=1e-3, k=2)
    >>> print(round(found.t, 2), round(found.value, 8))  # a single mode: about 2 log(γ/2λ)/γ
    12.52 2.09e-06
    """
    eigenvalues = finite("eigenvalues", eigenvalues, nonnegative=True)
    target, initial = finite("target", target), finite("initial", initial)
    weights = finite("weights", weights, nonnegative=True)
    l2, k = number("l2", l2), number("k", k)
    shape = broadcast_shape(eigenvalues=eigenvalues, target=target, initial=initial, weights=weights)
    if len(shape) != 1 or shape[0] == 0:
        raise ValueError(f"eigenvalues must have shape [modes], but the arguments broadcast to {shape}")
    if l2 <= 1e-140 * eigenvalues.max() or eigenvalues.max() == 0:
        return None

    # t_min does not depend on the labels' scale, and squares must neither overflow nor vanish.
    scale = float(max(abs(target).max(), abs(initial).max())) or 1.0
    target, initial = target / scale, initial / scale

    def slopes(t) -> np.ndarray:
        """The sign of d loss / d log t, without cancellation: the loss itself is level to rounding near its minimum."""
        residual = mode_residual_response(t, eigenvalues, l2, k)
        moving = slope_response(t, eigenvalues, l2, k)
        with np.errstate(under="ignore"):
            parts = [first * initial + second * target for first, second in (residual, moving)]
            # each over its largest: a positive factor, so that the product of two small numbers keeps its sign
            parts = [part / np.maximum(abs(part).max(axis=-1, keepdims=True), 1e-300) for part in parts]
            return (weights * parts[0] * parts[1]).sum(axis=-1)

    def loss(t) -> float:
        of_initial, of_target = mode_residual_response(t, eigenvalues, l2, k)
        with np.errstate(under="ignore"):
            return 0.5 * float((weights * (of_initial * initial + of_target * target) ** 2).sum())

    # From before anything moves to after everything is over: rates lie between the largest γ and k, 2(k-1) times λ.
    slowest = l2 * min(1.0, max(k, 1e-3), max(2 * abs(k - 1), 1e-3))
    low, high = np.log(1e-4 / (eigenvalues.max() + l2)), np.log(60.0 / slowest)
    grid = np.linspace(low, high, int(_POINTS * (high - low)) + 2)
    found = slopes(np.exp(grid)[:, None])
    turns = np.flatnonzero((found[:-1] < 0) & (found[1:] > 0))
    times = [np.exp(brentq(lambda s: float(slopes(np.exp(s))), grid[i], grid[i + 1], xtol=1e-13)) for i in turns]
    best = min(((loss(t), t) for t in times), default=None)
    ends = min(loss(np.exp(end)) for end in grid[[0, -1]])
    if best is None or not best[0] < ends * (1 - _FLAT):
        return None
    return Extremum(float(best[1]), best[0] * scale * scale, l2 * float(best[1]))


def accuracy_maximum(
    kernel_train, y, kernel_test, y_test, l2, k, t, initial=0.0, initial_test=0.0, reduction="sum", tolerance=0.005
) -> Extremum:
    """When the test accuracy over the times t first comes within `tolerance` of its largest value, and that value.

    It is how the experiments read t* (l2dyn.measures.peaks.time_to_peak).

    Args:
        kernel_train, y, l2, k, kernel_test, initial, initial_test, reduction: as for `evolve`.
        t: increasing times, [T].
        y_test: targets of the test points, [M] (signs) or [M, C] (the largest is the class).
        tolerance: as a fraction (paper: 0.005).

    Returns:
        An `Extremum`: the time, the largest accuracy, and C = λ·t.

    Raises:
        ValueError: as `evolve`, and for y_test of another shape or a tolerance of 10 points and more.
    """
    t, tolerance = increasing("t", t), small("tolerance", tolerance)
    if kernel_test is None:
        raise ValueError("kernel_test is missing: accuracy is measured on test points")
    _, outputs = evolve(kernel_train, y, l2, k, t, kernel_test, initial, initial_test, reduction)
    y_test = finite("y_test", y_test)
    if y_test.shape != outputs.shape[1:]:
        raise ValueError(f"y_test must have shape {outputs.shape[1:]}, but has shape {y_test.shape}")
    if y_test.ndim == 1:
        right = np.sign(outputs) == np.sign(y_test)
    else:
        right = outputs.argmax(axis=-1) == y_test.argmax(axis=-1)
    accuracy = right.mean(axis=-1)
    first = float(t[np.argmax(accuracy >= accuracy.max() - tolerance - _ROUNDING)])
    return Extremum(first, float(accuracy.max()), l2 * first)


def power_law_spectrum(p, smallest=1e-16, largest=1.0, points=2000) -> tuple[np.ndarray, np.ndarray]:
    """(eigenvalues, weights) of the spectrum y² dN ∝ γ^{p-1} dγ between two eigenvalues, spaced evenly in log γ.

    For 0 < p < 2 and λ far from both ends of it, λ·t_min does not depend on λ (k = 2, f(0) = 0).

    Args:
        p: the power, positive.
        smallest, largest: eigenvalues, positive.
        points: how many, 2 at least.

    Returns:
        (eigenvalues [points], weights [points]), the weights adding up to 1.

    Raises:
        ValueError: where p, smallest or largest is not positive, they are not in order, or points is below 2.
    """
    p, points = number("p", p), count("points", points, 2)
    if not 0 < number("smallest", smallest) < number("largest", largest) or p == 0:
        raise ValueError(f"needs p > 0 and 0 < smallest < largest, not {p}, {smallest}, {largest}")
    eigenvalues = np.geomspace(smallest, largest, points)
    weights = eigenvalues**p
    weights[[0, -1]] /= 2  # the trapezoid rule
    return eigenvalues, weights / weights.sum()


def spectrum_minima(eigenvalues, weights, l2, k, initial=0.0) -> dict[str, np.ndarray]:
    """λ·t_min against λ for one spectrum: columns l2, t, C, slope, d log t_min / d log λ between neighbours, and loss.

    The paper's law t ∝ 1/λ is slope -1 (claim C14).

    Args:
        eigenvalues: γ of the kernel's modes, [N].
        weights: squared targets of the modes, [N].
        l2: increasing coefficients [n].
        k: degree of homogeneity.
        initial: the function at t = 0 in each mode, where the targets are 1.

    Returns:
        The columns, each [n]; loss is the smallest one. Where there is no interior minimum, all but l2 are nan.

    Raises:
        ValueError: as `loss_minimum`, and for l2 that do not increase.
    """
    l2 = increasing("l2", l2)
    if len(l2) < 2 or l2[0] == 0:
        raise ValueError(f"l2 must be two positive coefficients at least, not {len(l2)} from {l2[0]:g} on")
    found = [loss_minimum(eigenvalues, 1.0, value, k, initial, weights) for value in l2]
    t = np.array([minimum.t if minimum else np.nan for minimum in found])
    loss = np.array([minimum.value if minimum else np.nan for minimum in found])
    return {"l2": l2, "t": t, "C": l2 * t, "slope": np.gradient(np.log(t), np.log(l2)), "loss": loss}


def law_window(l2, slope, tolerance=0.1) -> tuple[float, float] | None:
    """The longest range of λ in which slope is within `tolerance` of -1, the paper's law; None where it never is.

    Args:
        l2: increasing, [n].
        slope: [n], nan where there is no minimum, as in the columns of `spectrum_minima`.
        tolerance: of the slope.

    Returns:
        The smallest and the largest λ of that range.

    Raises:
        ValueError: arguments of other shapes.
    """
    l2, tolerance, slope = increasing("l2", l2), number("tolerance", tolerance), array("slope", slope)
    if slope.shape != l2.shape:
        raise ValueError(f"slope must have shape {l2.shape}, but has shape {slope.shape}")
    holds = np.abs(slope + 1) <= tolerance  # nan never holds
    best, start = (0.0, None), None
    for i, good in enumerate([*holds, False]):
        if good and start is None:
            start = i
        elif not good and start is not None:
            best = max(best, (np.log(l2[i - 1] / l2[start]), (float(l2[start]), float(l2[i - 1]))), key=lambda b: b[0])
            start = None
    return best[1]
