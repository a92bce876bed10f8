"""Kernels of infinitely wide bias-free ReLU networks, and the training loss that equation (3) predicts."""

import numpy as np

from l2dyn.theory._checks import count, finite, number, positive_eigenvalues, symmetric
from l2dyn.theory.modes import mode_residual_response

_BLOCK = 2**24  # numbers of a temporary array: a large kernel is evaluated in blocks of rows


def relu_ntk(x1, x2, hidden_layers=1, weight_std=1.0):
    """NNGP and NTK of the infinitely wide bias-free ReLU network in NTK parameterization.

    The network is f(x) = (σ/√n) v·relu( … relu((σ/√d) W x)), every trained parameter starting as N(0, 1); no
    factor √2 is added. Θ0 of equation (1) is the NTK, and the NNGP is the covariance of f at t = 0.

    Args:
        x1, x2: inputs [n1, d] and [n2, d].
        hidden_layers: number of ReLU layers, at least 1; the net is homogeneous with k = hidden_layers + 1.
        weight_std: σ, positive.

    Returns:
        (nngp, ntk), float64 arrays [n1, n2].

    Raises:
        ValueError: an input is not finite or not of these shapes, hidden_layers or weight_std out of range.

    >>> nngp, ntk = relu_ntk([[1.0, 0.0]], [[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    >>> print(nngp.round(4), ntk.round(4))
    [[0.25   0.1592 0.    ]] [[0.5    0.1592 0.    ]]
    """
    x1, x2, weight_std = finite("x1", x1), finite("x2", x2), number("weight_std", weight_std)
    hidden_layers = count("hidden_layers", hidden_layers, 1)
    for name, x in (("x1", x1), ("x2", x2)):
        if x.ndim != 2 or x.shape[1] == 0:
            raise ValueError(f"{name} must have shape [samples, features], but has shape {x.shape}")
    if x1.shape[1] != x2.shape[1]:
        raise ValueError(f"x1 and x2 must have equally many features, but have shapes {x1.shape}, {x2.shape}")
    if weight_std == 0:
        raise ValueError("weight_std must be positive, not 0")

    variance = weight_std * weight_std
    (unit1, norm1), (unit2, norm2) = _unit_rows(x1), _unit_rows(x2)
    nngp, ntk = np.empty((2, len(x1), len(x2)))
    rows = max(1, _BLOCK // max(len(x2), x1.shape[1]))
    for first in range(0, len(x1), rows):
        part = slice(first, first + rows)
        scale = variance * (norm1[part, None] / x1.shape[1]) * norm2  # √(K(x, x) K(x', x')) of the current layer
        nngp[part], ntk[part] = _relu_layers(scale, _angles(unit1[part], unit2), hidden_layers, variance)
    return nngp, ntk


def _relu_layers(scale, angle, hidden_layers, variance):
    """NNGP and NTK after the ReLU layers, from the inputs' angles."""
    ntk = scale * np.cos(angle)
    for _ in range(hidden_layers):
        relu = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        nngp = variance * scale * relu
        ntk = nngp + variance * (np.pi - angle) / (2 * np.pi) * ntk
        scale, angle = variance * scale / 2, _next_angle(angle)
    return nngp, ntk


def mean_loss(t, kernel, labels, l2, k, initial_covariance=None):
    """Empirical loss over time of the infinitely wide network: equation (3) for every mode of the kernel.

    The network is trained by gradient flow on the MEAN over samples of ½(f - y)² (plus the L2 penalty, which
    the returned loss leaves out), from f = 0 on the training set or from a random initial function.

    Args:
        t: gradient-flow times, learning rate times steps, any shape.
        kernel: NTK on the training set [N, N], not divided by N.
        labels: targets y [N].
        l2: L2 coefficient λ, one number.
        k: degree of homogeneity, one number (number of layers; 1 is the linear model).
        initial_covariance: covariance [N, N] of the Gaussian initial function, such as the NNGP; the loss is
            then its exact mean over that function. None stands for f = 0.

    Returns:
        Losses, in the shape of t.

    Raises:
        ValueError: an argument is not finite or not of these shapes, t, l2 or k is negative, or a matrix is
            not symmetric or has negative eigenvalues (variances) beyond rounding.

    >>> loss = mean_loss([0.0, 5.0, 500.0], kernel=[[2.0, 0.5], [0.5, 2.0]], labels=[1.0, -1.0], l2=0.01, k=2)
    >>> print(loss.round(4))
    [0.5    0.0014 0.4902]
    """
    t, labels = finite("t", t, nonnegative=True), finite("labels", labels)
    l2, k = number("l2", l2), number("k", k)
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(f"labels must have shape [samples], but has shape {labels.shape}")
    samples = len(labels)
    kernel = symmetric("kernel", kernel, samples)
    eigenvalues, modes = np.linalg.eigh(kernel)
    eigenvalues = positive_eigenvalues("kernel", eigenvalues, kernel)

    # Dividing by N turns the eigenvalues of the summed loss into those of the mean loss.
    initial_factor, target_factor = mode_residual_response(t[..., None], eigenvalues / samples, l2, k)
    with np.errstate(under="ignore"):
        residuals = (target_factor * (modes.T @ labels)) ** 2
        if initial_covariance is not None:
            covariance = symmetric("initial_covariance", initial_covariance, samples)
            variances = np.einsum("ia,ij,ja->a", modes, covariance, modes, optimize=True)
            residuals += initial_factor**2 * positive_eigenvalues(
                "initial_covariance", variances, covariance, "variance"
            )
        return residuals.sum(axis=-1) / (2 * samples)


def _unit_rows(x):
    """Rows of x divided by their norms, and the norms; zero rows stay zero. No square overflows or vanishes."""
    largest = abs(x).max(axis=1, initial=0.0)
    scaled = x / np.where(largest > 0, largest, 1.0)[:, None]
    norms = np.linalg.norm(scaled, axis=1)
    return scaled / np.where(norms > 0, norms, 1.0)[:, None], largest * norms


def _angles(u1, u2):
    """Angles between unit rows, without the loss of digits that arccos has for nearly (anti)parallel rows."""
    cosines = u1 @ u2.T
    angles = np.arccos(np.clip(cosines, -1.0, 1.0))
    for i, row in enumerate(u1):
        near = abs(cosines[i]) > 0.9
        minus, plus = np.linalg.norm(row - u2[near], axis=1), np.linalg.norm(row + u2[near], axis=1)
        angles[i, near] = 2 * np.arctan2(minus, plus)
    return angles


def _next_angle(angle):
    """Angle after one more ReLU layer: π cos(next) = sin(angle) + (π - angle) cos(angle)."""
    # (1 - cos(next)) / 2 is the squared sine of half the next angle; arccos would lose half the digits.
    difference = np.sin(angle) - angle * np.cos(angle)
    return 2 * np.arcsin(np.sqrt(np.sin(angle / 2) ** 2 - difference / (2 * np.pi)))
