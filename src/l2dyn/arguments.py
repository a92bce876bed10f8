"""Arguments of public functions as floats: every refusal is a ValueError that names the argument. NumPy alone."""

import math
from numbers import Real

import numpy as np

LOOKS_LIKE_PERCENT = 0.1  # no tolerance is as large as 10 points


def number(name: str, value) -> float:
    """One real number as a float: Python's, NumPy's, or an array or Tensor of one element; nan and inf are numbers.

    Raises:
        ValueError: naming the argument, for text, a bool, None, a list and whatever else is no number.
    """
    if isinstance(value, Real) or hasattr(value, "shape"):
        found = array(name, value)
        if found.size == 1:
            return found.item()
        raise ValueError(f"{name} must be one number, got shape {found.shape}")
    raise ValueError(f"{name} must be a number, got {shown(value)} ({type(value).__name__})")


def array(name: str, value) -> np.ndarray:
    """Real numbers as a float64 array of any shape, nan and inf included.

    value: a number, a list (of Tensors, too), an array, or a Tensor of whatever precision and device, one that requires
    a gradient included.

    Raises:
        ValueError: naming the argument, for text, bools, None, complex numbers, ragged lists.
    """
    value = _without_torch(value)
    try:
        found = np.asarray(value)
        real = found.dtype.kind in "iuf" or (found.dtype.kind == "O" and all(_is_real(one) for one in found.flat))
        if real:
            return found.astype(float, copy=False)
    except (TypeError, ValueError, OverflowError):  # a ragged list, a number above all floats
        pass
    raise ValueError(f"{name} must be a real number or an array of real numbers, got {shown(value)}")


def positive(name: str, value) -> float:
    """`number`, where it is positive and finite; raises ValueError, naming the argument."""
    value = number(name, value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return value


def below_one(name: str, value) -> float:
    """`number`, where it lies in [0, 1), as a momentum does; raises ValueError, naming the argument."""
    value = number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
    return value


def small(name: str, value) -> float:
    """A tolerance of accuracies, a fraction; raises ValueError where it is negative, or as large as percents are."""
    value = number(name, value)
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    if value >= LOOKS_LIKE_PERCENT:
        raise ValueError(f"{name} must be a fraction below {LOOKS_LIKE_PERCENT}, got {value}; 0.5 points are 0.005")
    return value


def shown(value) -> str:
    """A value in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _without_torch(value):
    """Tensors, also those in a list, as arrays; anything else as it is. Torch need not be installed."""
    if isinstance(value, list | tuple):
        return [_without_torch(one) for one in value]
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy()  # NumPy has no bfloat16


def _is_real(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)
