"""Deep linear networks of finite width under gradient flow with L2: where the infinite-width theory ends.

f = n^{-(L-1)/2} v·W_{L-1} … W_1 x for one sample with |x| = 1 (NTK parameterization, width n, L layers, σ = 1), loss
½(f - y)². What is orthogonal to x only decays, so with L = 2 the net is f = u·v/√n, and with A = |u|² + |v|², Θ = A/n,

    df/dt = Θ (y - f) - 2λ f,        dΘ/dt = -2λ Θ + (4/n) f (y - f),

exactly: equations (1) and (2) for k = 2, and one term of order 1/n. That term keeps the net alive: besides f = 0 there
is a fixed point where y - f = λ√n, so f_∞ = max(0, y - λ√n) for y > 0 (claim C15: f → 0 needs a width above (y/λ)²).
"""

import numpy as np
from scipy.integrate import solve_ivp

from l2dyn.theory._checks import finite, increasing, number

_RTOL = 1e-10


def two_layer_flow(t, y, l2, width, kernel=2.0, initial=0.0) -> tuple[np.ndarray, np.ndarray]:
    """f(t) and the kernel Θ(t) of a 2-layer linear net of finite width, the equations of the module's docstring.

    Args:
        t: gradient-flow times in increasing order, [T].
        y, l2: target and λ, numbers.
        width: n, a positive number; inf is the theory of infinite width, `mode_evolution` with k = 2.
        kernel, initial: Θ and f at t = 0; 2 and 0 are their means over N(0, 1) parameters. A net has √n |f| ≤ nΘ/2.

    Returns:
        (f, Θ), each [T].

    Raises:
        ValueError: an argument is not finite (but for the width), out of range, or times do not increase.

    >>> f, kernel = two_layer_flow([0.0, 1e4], y=1.0, l2=0.01, width=100)
    >>> print(f.round(6), kernel.round(6))  # y - λ√n, and 2λ f/(y - f)
    [0.  0.9] [2.   0.18]
    """
    t, y, l2 = increasing("t", t), number("y", y, nonnegative=False), number("l2", l2)
    initial, kernel = number("initial", initial, nonnegative=False), number("kernel", kernel)
    width = np.inf if isinstance(width, float) and width == np.inf else number("width", width)
    if width == 0:
        raise ValueError(f"width must be positive, not {width}")
    if 2 * abs(initial) > np.sqrt(width) * kernel:
        raise ValueError(
            f"kernel must be at least 2 |initial|/√width = {2 * abs(initial) / np.sqrt(width)}, not {kernel}"
        )

    def slope(_, state):
        f, theta = state
        return theta * (y - f) - 2 * l2 * f, -2 * l2 * theta + 4 / width * f * (y - f)

    def jacobian(_, state):
        f, theta = state
        return [[-theta - 2 * l2, y - f], [4 / width * (y - 2 * f), -2 * l2]]

    return tuple(_solved(slope, (initial, kernel), t, 1e-14, jac=jacobian))


def linear_net_flow(weights, x, y, l2, t) -> tuple[np.ndarray, np.ndarray]:
    """f(t) and Θ(t) of one deep linear net: gradient flow with L2 of every weight, for the net as it was drawn.

    Args:
        weights: matrices W_1 [n, d], …, and last v [1, n]; f = v … W_1 x / Π √fan_in of all but the first.
        x, y: one input [d] and its target, a number.
        l2: λ.
        t: gradient-flow times in increasing order, [T].

    Returns:
        (f, Θ), each [T]; Θ is the squared norm of f's gradient.

    Raises:
        ValueError: as `two_layer_flow`, or matrices that do not fit each other.

    >>> f, kernel = linear_net_flow([[[1.0], [0.0]], [[1.0, 0.0]]], x=[1.0], y=1.0, l2=0.1, t=[0.0, 300.0])
    >>> print(f.round(4))  # 1/√2, and then 1 - λ√2
    [0.7071 0.8586]
    """
    t, x, y, l2 = increasing("t", t), finite("x", x), number("y", y, nonnegative=False), number("l2", l2)
    if x.ndim != 1:
        raise ValueError(f"x must have shape [features], but has shape {x.shape}")
    if not isinstance(weights, list | tuple):
        raise ValueError("weights must be a list of matrices")
    matrices = [finite(f"weights[{i}]", w) for i, w in enumerate(weights)]
    sizes = [len(x), *(len(w) if w.ndim == 2 else -1 for w in matrices)]
    if any(w.ndim != 2 or w.shape[1] != size for w, size in zip(matrices, sizes, strict=False)) or sizes[-1] != 1:
        raise ValueError(
            f"weights must be matrices from {len(x)} inputs to 1 output, but have {[w.shape for w in matrices]}"
        )
    factor = 1.0 / np.sqrt(np.prod([float(w.shape[1]) for w in matrices[1:]]))
    shapes = [w.shape for w in matrices]
    ends = np.cumsum([w.size for w in matrices])

    def gradients(state: np.ndarray) -> tuple[float, list[np.ndarray]]:
        parts = [p.reshape(s) for p, s in zip(np.split(state, ends[:-1]), shapes, strict=True)]
        below = [x]
        for w in parts:
            below.append(w @ below[-1])
        above, found = np.ones(1), []
        for w, input_ in zip(reversed(parts), reversed(below[:-1]), strict=True):
            found.append(factor * np.outer(above, input_))
            above = w.T @ above
        return factor * float(below[-1][0]), found[::-1]

    def slope(_, state):
        f, found = gradients(state)
        return (y - f) * np.concatenate([g.ravel() for g in found]) - l2 * state

    start = np.concatenate([w.ravel() for w in matrices])
    states = _solved(slope, start, t, 1e-12, method="DOP853").T
    along = [gradients(state) for state in states]
    return np.array([f for f, _ in along]), np.array([sum((g**2).sum() for g in found) for _, found in along])


def _solved(slope, start, t: np.ndarray, atol: float, method: str = "LSODA", **how) -> np.ndarray:
    """The states at the times t, [state, T]."""
    if t[-1] == 0:
        return np.array(start, dtype=float)[:, None]
    solved = solve_ivp(slope, (0.0, float(t[-1])), start, method=method, t_eval=t, rtol=_RTOL, atol=atol, **how)
    if not solved.success:
        raise ValueError(f"the integration failed: {solved.message}")
    return solved.y
