"""Does a finite 2-layer ReLU net forget everything? Where f = 0 is the only place for gradient flow with L2 to end.

The net is that of `relu_ntk` with one hidden layer of n units, f(x) = σ²/√(nd) Σ_j v_j relu(w_j·x), trained on the mean
of ½(f - y)². With M the maximum over |w| = 1 of |mean(y relu(w·x))|/√d, and |v_j||w_j| at most half of v_j² + |w_j|²,

    mean(y f) ≤ (σ²M/√n) |θ|²/2.

Where the flow rests, θ·∇L = -λ|θ|²; f being 2-homogeneous, θ·∇L = 2 mean((f - y) f), so mean(f²) = mean(y f) - λ|θ|²/2
is at most (σ²M/√n - λ) |θ|²/2. Hence above n = (σ²M/λ)² the only stationary point is θ = 0. Below, it is unstable: near
θ = 0 each unit moves by its part of -mean(y f) + λ|θ|²/2 alone, and one in M's direction grows.
"""

import numpy as np

from l2dyn.theory._checks import finite, number

_STEPS, _DRAWN = 600, 128
_FIRST = (0.3, 0.1, 0.03)  # first steps: a large one leaves small basins, a small one gets stuck on ridges


def survival_width(x, y, l2, weight_std=1.0) -> float:
    """The width n above which L2 makes a 2-layer ReLU net forget all it has learned, wherever it starts (claim C15).

    Below it θ = 0 is unstable, and a net can stay alive.

    For one sample with |x|² = d that is (y/λ)², as for the deep linear nets of `two_layer_flow`.

    Args:
        x, y: training inputs [N, d] and targets [N]; the loss is the mean over samples of ½(f - y)².
        l2: λ, positive.
        weight_std: σ of the NTK parameterization, positive.

    Returns:
        The width, a real number, to 1e-6. The best direction is searched from all samples, their mean and random
        places; if all of them missed it, the width would be too small.

    Raises:
        ValueError: an argument is not finite, of another shape, or out of range.

    >>> round(survival_width([[1.0, 1.0]], [1.0], l2=0.1), 6)
    100.0
    """
    x, y = finite("x", x), finite("y", y)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"x must have shape [samples, features], but has shape {x.shape}")
    if y.shape != (len(x),):
        raise ValueError(f"y must have shape ({len(x)},), but has shape {y.shape}")
    l2, weight_std = number("l2", l2), number("weight_std", weight_std)
    if l2 == 0 or weight_std == 0:
        raise ValueError(f"l2 and weight_std must be positive, not {l2} and {weight_std}")
    left, sizes, _ = np.linalg.svd(x / np.sqrt(x.shape[1]), full_matrices=False)
    inside = left * sizes  # the inputs in coordinates of their own span; what is orthogonal to it gains nothing
    gain = max(_best_gain(inside, y), _best_gain(inside, -y))
    return float(np.square(weight_std * weight_std * gain / l2))


def _best_gain(x: np.ndarray, y: np.ndarray) -> float:
    """The largest mean(y relu(w·x)) over unit vectors w: ascent on the sphere from many places, in shrinking steps.

    It is linear in w but where a relu switches, so that full steps along its gradient would jump to and fro.
    """
    drawn = np.random.default_rng(0).standard_normal((_DRAWN, x.shape[1])) * np.linalg.norm(x, axis=0)
    places = np.vstack([x, -x, [y @ x, -(y @ x)], drawn])
    best = 0.0
    for first in _FIRST:
        w = places
        for step in first * 0.97 ** np.arange(_STEPS):
            w = w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-300)
            projections = w @ x.T
            best = max(best, float((np.maximum(projections, 0.0) @ y).max() / len(y)))
            gradients = ((projections > 0) * y) @ x
            w = w + step * gradients / np.maximum(np.linalg.norm(gradients, axis=1, keepdims=True), 1e-300)
    return best
