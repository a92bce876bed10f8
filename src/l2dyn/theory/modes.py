"""Gradient-flow dynamics of one kernel mode under L2 regularization: equation (3) for any k >= 0.

A mode obeys df/dt = γ e^{-2(k-1)λt} (y - f) - kλ f. In looking back from t by u = t - t' the solution is

    f     = f0 E + y T,              E = e^{-kλt - P},   T = γ(t) ∫_0^t e^{(k-2)λu - p(u)} du
    f - y = (f0 - y) E - y D,        D = kλ ∫_0^t e^{-kλu - p(u)} du,    so that T + D + E = 1,

with γ(t) = γ e^{-2(k-1)λt}, p(u) = γ(t) (e^{2(k-1)λu} - 1) / (2(k-1)λ) and P = p(t). With p as the
integration variable these are the integrals of (1+p/w)^{-b} e^{-p}, w = γ(t)/(2(k-1)λ), b = k/(2(k-1)).
Written in u they are regular at λ = 0 and k = 1, hold for k < 1, and contain positive terms only, so T and D
keep their relative accuracy, however small. Below, times are in units of t, with s = λt, z = 2(k-1)λt and
log_g = log(γ(t) t).
"""

import itertools

import numpy as np

from l2dyn.theory._checks import broadcast_shape, finite

_CUT = 34.0  # an integrand that has fallen by e^-34 = 2e-15 no longer counts
_FLAT = 40.0  # a kernel that has changed by e^40 leaves p constant to rounding from there on
_LARGE = 1e140  # of k·s: far beyond what e^-x still tells from 0, and its square is a float64
_LOG_MAX = 650.0  # keeps a growing kernel (k < 1) inside float64; T is 1 long before
_BLOCK = 8192  # elements at a time: the temporaries stay in the cache
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2  # on [0, 1]
# Panel edges where the kernel changes by less than e^3, as fractions of the range.
_EVEN = np.array([0.0, 0.12, 0.4, 1.0])
# Elsewhere: distances, in e-folds, from where the kernel is largest (t' = 0 for k > 1, t' = t for k < 1).
_SHRINKING = np.array([0.0, 1.1, 2.0, 3.5, 6.0, 10.0, 16.0, 25.0, _FLAT])
_GROWING = np.array([0.0, 0.12, 0.4, 1.0, 2.5, 5.0, 10.0, 19.0, _FLAT])


def mode_evolution(t, eigenvalue, l2, k, target, initial=0.0):
    """Value f(t) of one kernel mode under squared loss and L2 regularization: equation (3) for any k >= 0.

    All arguments broadcast against each other, and the result has their common shape.

    Args:
        t: gradient-flow time, learning rate times steps.
        eigenvalue: eigenvalue γ of the initial NTK on the training set, for the loss SUMMED over samples of
            ½(f - y)²; for the mean over N samples pass γ/N. Zero is allowed.
        l2: L2 coefficient λ of the objective L + (λ/2) ‖θ‖².
        k: degree of homogeneity of the network in its parameters; 1 is the linear model.
        target: component y of the labels along the mode.
        initial: component of the function at t = 0 along the mode.

    Returns:
        Array of f(t), to 1e-10 of |initial part| + |target part| (γ/λ from 1e-8 to 1e8, tλ up to 50).

    Raises:
        ValueError: an argument is not finite, t, eigenvalue, l2 or k is negative, or shapes do not broadcast.

    >>> f = mode_evolution(t=[0.0, 10.0, 1000.0], eigenvalue=1.0, l2=0.01, k=2, target=1.0)
    >>> print(f.round(4))
    [0.     0.9766 0.    ]
    """
    target, initial = finite("target", target), finite("initial", initial)
    initial_factor, target_factor = mode_response(t, eigenvalue, l2, k)
    broadcast_shape(**{"(t, eigenvalue, l2, k)": target_factor}, target=target, initial=initial)
    with np.errstate(under="ignore"):
        return initial_factor * initial + target_factor * target


def mode_residual(t, eigenvalue, l2, k, target, initial=0.0):
    """Residual f(t) - y of one kernel mode, equation (3), accurate even where f equals y to all digits.

    Arguments, shapes, units and errors are those of `mode_evolution`. The mode's loss is half its square.

    >>> residual = mode_residual(t=1e3, eigenvalue=1.0, l2=1e-20, k=1, target=1.0)
    >>> print(f"{residual:.6e}")  # -λ/(γ+λ), although f rounds to 1
    -1.000000e-20
    """
    target, initial = finite("target", target), finite("initial", initial)
    decay, shortfall = _factors(t, eigenvalue, l2, k, _decay, _shortfall)
    broadcast_shape(**{"(t, eigenvalue, l2, k)": decay}, target=target, initial=initial)
    with np.errstate(under="ignore"):
        return (initial - target) * decay - target * shortfall


def mode_response(t, eigenvalue, l2, k):
    """The two factors in which equation (3) is linear: f(t) = initial_factor · f(0) + target_factor · y.

    Arguments, units and errors are those of `mode_evolution`.

    Returns:
        (initial_factor, target_factor), each with the common shape of the arguments; both lie in [0, 1].

    >>> initial_factor, target_factor = mode_response(t=1.0, eigenvalue=2.0, l2=0.0, k=2)
    >>> print(round(float(initial_factor), 6), round(float(target_factor), 6))  # e^-2 and 1 - e^-2
    0.135335 0.864665
    """
    return _factors(t, eigenvalue, l2, k, _decay, _target)


def mode_residual_response(t, eigenvalue, l2, k):
    """The two factors of the residual, equation (3): f(t) - y = initial_factor · f(0) + target_factor · y.

    Arguments, units and errors are those of `mode_evolution`. `target_factor` is (f - y)/y from f(0) = 0,
    without cancellation where f is close to y.

    Returns:
        (initial_factor, target_factor), each with the common shape of the arguments; the first is in [0, 1],
        the second in [-1, 0].

    >>> initial_factor, target_factor = mode_residual_response(t=50.0, eigenvalue=1.0, l2=0.0, k=2)
    >>> print(f"{initial_factor:.3e} {target_factor:.3e}")  # e^-50, which 1 - f would lose
    1.929e-22 -1.929e-22
    """
    decay, shortfall = _factors(t, eigenvalue, l2, k, _decay, _shortfall)
    return decay, -(decay + shortfall)


def mode_quotients(t, eigenvalue, l2, k):
    """The factors of (f(t) - e^{-kλt} f(0)) / γ = initial_factor · f(0) + target_factor · y, also where γ is 0.

    They carry a mode of equation (3) to points off the training set (`evolve`). Arguments, units and errors are those
    of `mode_evolution`; both have the unit of 1/γ, and the common shape of the arguments.

    >>> initial_factor, target_factor = mode_quotients(t=2.0, eigenvalue=[0.0, 1e-30], l2=0.0, k=2)
    >>> print(initial_factor, target_factor)  # -t and t
    [-2. -2.] [2. 2.]
    """
    arguments = [
        finite(n, v, nonnegative=True) for n, v in (("t", t), ("eigenvalue", eigenvalue), ("l2", l2), ("k", k))
    ]
    _, target_factor = mode_response(t, eigenvalue, l2, k)
    t, eigenvalue, l2, k = np.broadcast_arrays(*arguments)
    with np.errstate(all="ignore"):  # what overflows here stands in branches that are not taken
        z, s = 2 * (k - 1) * l2 * t, l2 * t
        known = eigenvalue * t > 1e-200  # T keeps its relative accuracy down to there
        safe = np.where(known, eigenvalue, 1.0)
        of_target = np.where(known, target_factor / safe, t * np.exp(-z) * _mean_exponential((k - 2) * s))
        elapsed = t * _mean_exponential(-z)  # ∫ of e^{-2(k-1)λt'} up to t
        depth = eigenvalue * elapsed
        of_initial = np.where(depth > 1.0, -np.expm1(-depth) / safe, elapsed * _mean_exponential(-depth))
        return -np.exp(-k * s) * of_initial, of_target


def late_time_response(w, k):
    """H(w) = w^b e^w Γ(1-b, w), b = k/(2(k-1)): at late times f(t) = y·H(w), w = γ(t)/(2(k-1)λ), whatever f(0) was.

    H rises from 0 to 1; for small w it falls as w^b for k > 2, w log(1/w) for k = 2 and w for k < 2, which are the late
    decays of f.

    Args:
        w: what is left of the kernel, from 0 on, any shape.
        k: degree of homogeneity, above 1, broadcast against w.

    Returns:
        H(w), in the common shape.

    Raises:
        ValueError: for a negative w, or k of 1 or less.

    >>> print(late_time_response([0.0, 0.1, 1.0, 100.0], k=2).round(4))
    [0.     0.2015 0.5963 0.9902]
    """
    w, k = finite("w", w, nonnegative=True), finite("k", k)
    if (k <= 1).any():
        raise ValueError(f"k must be above 1, but its smallest value is {k.min()}")
    broadcast_shape(w=w, k=k)
    # The mode that has P of its kernel behind it and w before it, in units of 2(k-1)λ; e^{-P} no longer counts.
    before = 60.0
    rate = 2 * (k - 1)
    smallest = np.clip(w, 1e-300, 1e100)  # 1 to rounding, long before
    t = np.log1p(before / smallest) / rate
    _, target_factor = mode_response(t, rate * (smallest + before), 1.0, k)
    return np.where(w > 0, target_factor, 0.0)


def slope_response(t, eigenvalue, l2, k):
    """The two factors of df/d log t = initial_factor · f(0) + target_factor · y, from terms that are each exact.

    Arguments, units and errors are those of `mode_evolution`. With p and E of the module's docstring

        df/dt = -(γ(t) + kλ) E f0 + {γ(t) E - 2(k-1) kλ² ∫_0^t p(u) e^{-kλu - p(u)} du} y,

    learning, and for k > 1 forgetting: where they are equal, a mode from f(0) = 0 is at its largest.

    >>> initial_factor, target_factor = slope_response(t=2.0, eigenvalue=1.0, l2=0.0, k=2)
    >>> print(initial_factor.round(6), target_factor.round(6))  # -2e^-2 and 2e^-2
    -0.270671 0.270671
    """
    learning, fading, forgetting = _factors(t, eigenvalue, l2, k, _learning, _fading, _forgetting)
    return -(learning + fading), learning - forgetting


def _mean_exponential(x):
    """The mean of e^{xu} over u in [0, 1]: (e^x - 1)/x, 1 at x = 0."""
    return np.where(x == 0, 1.0, np.expm1(x) / np.where(x == 0, 1.0, x))


def _factors(t, eigenvalue, l2, k, *kinds):
    """Each of `kinds` (E, T, D and such of the module docstring) on the broadcast arguments."""
    arguments = {
        name: finite(name, value, nonnegative=True)
        for name, value in {"t": t, "eigenvalue": eigenvalue, "l2": l2, "k": k}.items()
    }
    shape = broadcast_shape(**arguments)
    columns = [np.broadcast_to(array, shape).flat for array in arguments.values()]  # copied block by block
    values = [np.empty(len(columns[0])) for _ in kinds]
    # Underflow to 0, and overflow of exponents to an infinite decay, are the right answers here.
    with np.errstate(under="ignore", over="ignore"):
        for start in range(0, values[0].size, _BLOCK):
            block = slice(start, start + _BLOCK)
            scaled = _scaled(*(column[block] for column in columns))
            for value, kind in zip(values, kinds, strict=True):
                value[block] = kind(*scaled)
    return [value.reshape(shape) for value in values]


def _scaled(t, eigenvalue, l2, k):
    """For one block of elements, as 1-d arrays: s = λt, k, log of γ(t) t, z = 2(k-1)λt, and γt.

    The kernel changes by e^{-z} up to t.
    """
    tiny = np.finfo(float).tiny
    s, x = np.minimum(l2 * t, _LARGE / np.maximum(k, 1.0)), np.minimum(eigenvalue * t, 1e300)
    z = 2 * (k - 1) * s
    # log of γ(t) t; where γt = 0 so far down that no growth of the kernel (k < 1) makes anything of it
    log_g = np.minimum(np.where(x > 0, np.log(np.maximum(x, tiny)) - z, -1e5), _LOG_MAX)
    z = np.where(z < 0, -1.0, 1.0) * np.maximum(abs(z), 1e-20)  # same to rounding, and no division by 0
    return s, k, log_g, z, x


def _decay(s, k, log_g, z, x):
    """E of the module docstring."""
    return np.exp(-k * s - _elapsed(1.0, log_g, z))


def _target(s, k, log_g, z, x):
    """T of the module docstring."""
    return _integrate(log_g, (k - 2) * s, log_g, z) * np.minimum(x / np.finfo(float).tiny, 1.0)


def _shortfall(s, k, log_g, z, x):
    """D of the module docstring."""
    return k * s * _integrate(np.zeros_like(s), -k * s, log_g, z)


def _learning(s, k, log_g, z, x):
    """γ(t) E, times t."""
    return np.exp(log_g - k * s - _elapsed(1.0, log_g, z))


def _fading(s, k, log_g, z, x):
    """kλ E, times t."""
    return k * s * _decay(s, k, log_g, z, x)


def _forgetting(s, k, log_g, z, x):
    """2(k-1) kλ² ∫_0^t p(u) e^{-kλu - p(u)} du, times t: what the shrinking of the kernel takes from f."""
    shrinking = 2 * (k - 1) * s  # z itself is never 0
    return k * s * shrinking * _integrate(np.zeros_like(s), -k * s, log_g, z, weighted=True)


def _elapsed(u, log_g, z):
    """p(u): the kernel integrated over the last u (a fraction of t)."""
    return np.exp(log_g + np.maximum(z * u, 0.0)) * -np.expm1(-abs(z) * u) / abs(z)


def _integrate(log_scale, slope, log_g, z, weighted=False):
    """∫_0^1 exp(log_scale + slope·u - p(u)) du, if `weighted` times p(u), by composite Gauss-Legendre on 1-d arrays."""
    size = abs(z)
    # Upper end: t' = 0, or where e^{-p} or e^{slope·u} has died out (p stays below _CUT if k < 1, v >= 0).
    v = np.log(_CUT * size) - log_g
    folds = np.where(z > 0, np.logaddexp(0.0, v), -np.log1p(-np.exp(np.minimum(v, -1e-3))))
    end = np.minimum(1.0, np.where((z > 0) | (v < -1e-3), folds / size, 1.0))
    falling = -slope - (np.maximum(z, 0.0) if weighted else 0.0)
    end = np.minimum(end, _CUT / np.maximum(falling, _CUT))

    result = np.empty_like(z)
    even = size * end <= 3.0
    rules = (even, _even_panels), (~even & (z > 0), _shrinking_panels), (~even & (z < 0), _growing_panels)
    for chosen, rule in rules:
        if chosen.any():
            given = (values[chosen] for values in (end, log_scale, slope, log_g, z))
            result[chosen] = rule(*given, weighted)
    return result


def _even_panels(end, log_scale, slope, log_g, z, weighted):
    """As `_integrate` up to `end`, where the kernel changes little."""
    amplitude = np.exp(log_g) / z
    edges = [fraction * end for fraction in _EVEN]
    return _panels(edges, log_scale, slope, lambda u: amplitude * np.expm1(z * u), weighted)


def _shrinking_panels(end, log_scale, slope, log_g, z, weighted):
    """As `_integrate` up to `end`, where the kernel falls by much (k > 1): finest at the end."""
    edges = [end - np.minimum(distance / z, end) for distance in reversed(_SHRINKING)]
    # As a difference of exponentials p has an absolute error of rounding, which is all that e^{-p} needs.
    amplitude, nothing = np.exp(log_g + z * end) / z, np.exp(-z * end)
    panels = _panels(edges, log_scale, slope, lambda u: amplitude * (np.exp(z * (u - end)) - nothing), weighted)
    start = np.zeros_like(z)  # from here to the first edge e^{-p} is 1 to rounding
    if not weighted:
        return panels + _exponential(start, edges[0], log_scale, slope)
    log_scale = log_scale + log_g - np.log(z)
    of_kernel = _exponential(start, edges[0], log_scale, slope + z)
    return panels + of_kernel - _exponential(start, edges[0], log_scale, slope)


def _growing_panels(end, log_scale, slope, log_g, z, weighted):
    """As `_integrate` up to `end`, where the kernel grows by much (k < 1): finest at u = 0."""
    edges = [np.minimum(distance / -z, end) for distance in _GROWING]
    amplitude = np.exp(log_g) / -z
    panels = _panels(edges, log_scale, slope, lambda u: amplitude * -np.expm1(z * u), weighted)
    rest = _exponential(edges[-1], end, log_scale - amplitude, slope)  # p has saturated here
    return panels + (np.where(rest > 0, amplitude, 0.0) * rest if weighted else rest)


def _exponential(low, high, log_scale, slope):
    """Integral of exp(log_scale + slope·u) from low to high."""
    steepness = np.maximum(abs(slope), 1e-20)
    largest = np.exp(log_scale + slope * np.where(slope > 0, high, low))
    return largest * -np.expm1(-steepness * (high - low)) / steepness


def _panels(edges, log_scale, slope, elapsed, weighted):
    """Gauss-Legendre sum of exp(log_scale + slope·u - p), if `weighted` times p = elapsed(u), between the edges."""
    total = np.zeros_like(slope)
    for first, second in itertools.pairwise(edges):
        width = second - first
        panel = 0.0
        for weight, node in zip(_WEIGHTS, _NODES, strict=True):
            u = first + node * width
            p = elapsed(u)
            value = np.exp(log_scale + slope * u - p)
            panel = panel + weight * (np.where(value > 0, p, 0.0) * value if weighted else value)
        total += width * panel
    return total
