"""Validation shared by the theory modules: every refusal is a ValueError that names the argument."""

import numpy as np

from l2dyn.arguments import array as real_array
from l2dyn.arguments import shown

ROUNDING = 1e-10  # a kernel matrix may have negative eigenvalues down to this fraction of its largest one
EPS_32 = float(np.finfo(np.float32).eps)


def finite(name, value, nonnegative=False):
    """Return `value` as a float64 array; ValueError naming `name` if it is not finite (or is negative)."""
    array = real_array(name, value)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, but holds nan or inf")
    if nonnegative and (array < 0).any():
        raise ValueError(f"{name} must not be negative, but its smallest value is {array.min()}")
    return array


def count(name, value, least):
    """Return `value` as an int of at least `least`; ValueError naming `name`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, not {shown(value)}")
    return int(value)


def choice(name, value, among):
    """Return `value` if it is one of the words `among`; ValueError naming `name`."""
    if not (isinstance(value, str) and value in among):
        raise ValueError(f"{name} must be one of {', '.join(among)}, not {shown(value)}")
    return value


def increasing(name, value):
    """Return `value` as increasing numbers from 0 on, [n], n at least 1; ValueError naming `name`."""
    array = finite(name, value, nonnegative=True)
    if array.ndim != 1 or array.size == 0 or (np.diff(array) <= 0).any():
        raise ValueError(f"{name} must be increasing numbers of shape [n], but has shape {array.shape}")
    return array


def broadcast_shape(**arrays):
    """Return the common shape of the named arrays; ValueError naming them all if they do not broadcast."""
    try:
        return np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"shapes do not broadcast: {shapes}") from None


def symmetric(name, value, size):
    """Return `value` as a finite symmetric float64 matrix [n, n], n = `size`; ValueError naming `name`."""
    matrix = finite(name, value)
    if matrix.shape != (size, size):
        raise ValueError(f"{name} must have shape {(size, size)}, but has shape {matrix.shape}")
    if abs(matrix - matrix.T).max() > max(1e-8, rounding(matrix)) * abs(matrix).max():
        raise ValueError(f"{name} must be symmetric")
    return matrix


def rounding(matrix):
    """How far below 0 rounding may have pushed eigenvalues, as a fraction of the largest.

    A kernel whose entries all are float32 numbers was computed in that precision, whatever the dtype it comes in.
    """
    single = (matrix == matrix.astype(np.float32)).all()
    return max(ROUNDING, len(matrix) * EPS_32) if single else ROUNDING


def number(name, value, nonnegative=True):
    """Return `value` as one finite float, by default not negative; ValueError naming `name`."""
    array = finite(name, value, nonnegative)
    if array.ndim != 0:
        raise ValueError(f"{name} must be one number, but has shape {array.shape}")
    return float(array)


def positive_eigenvalues(name, values, matrix, what="eigenvalue"):
    """Clip to 0 what rounding made negative in the eigenvalues of a matrix; ValueError for more."""
    if values.min() < -rounding(matrix) * max(values.max(), 0.0):
        raise ValueError(f"{name} must be positive semi-definite, but has the {what} {values.min()}")
    return np.maximum(values, 0.0)
