"""k = 0: networks whose every trained parameter is scale invariant, f(aθ) = f(θ).

There ∇L(aθ) = ∇L(θ)/a. Plain gradient descent with L2, θ ← (1 - ηλ)θ - η∇L(θ), leaves the directions of
φ_s = θ_s/(1 - ηλ)^s alone but for the gradient: φ_{s+1} = φ_s - η (1 - ηλ)^{-2s-1} ∇L(φ_s). So training with L2 at a
constant η is, step by step, training without L2 at a rate that grows.
"""

import numpy as np

from l2dyn.theory._checks import broadcast_shape, finite


def equivalent_learning_rate(lr, l2, step):
    """η_s = η (1 - ηλ)^{-2s-1}: without L2, step s at this rate is step s with L2 at η; φ_s = θ_s (1 - ηλ)^{-s}.

    Exact for plain gradient descent or SGD, any loss and batch, where all trained parameters are scale invariant.
    For ηλ ≪ 1 and s (ηλ)² ≪ 1 it is η e^{2ηλs}.

    Args:
        lr, l2, step: η, λ and the number s of steps done before, from 0 on; broadcast against each other.

    Returns:
        Rates, in the common shape of the arguments (inf where they exceed float64).

    Raises:
        ValueError: an argument is not finite or negative, ηλ is 1 or more, or shapes do not broadcast.

    >>> print(equivalent_learning_rate(lr=0.1, l2=0.5, step=[0, 1, 10]).round(4))
    [0.1053 0.1166 0.2936]
    """
    lr, l2, step = (finite(n, v, nonnegative=True) for n, v in (("lr", lr), ("l2", l2), ("step", step)))
    broadcast_shape(lr=lr, l2=l2, step=step)
    if (lr * l2 >= 1).any():
        raise ValueError(f"lr times l2 must be below 1, but its largest value is {(lr * l2).max()}")
    with np.errstate(over="ignore"):
        return lr * np.exp(-(2 * step + 1) * np.log1p(-lr * l2))
