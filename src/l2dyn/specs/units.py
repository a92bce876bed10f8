"""In which units learning rates and L2 coefficients are written: PyTorch's, or those of the paper's authors.

The authors' code minimizes the cross-entropy averaged over samples AND the K classes plus λ·Σθ², without ½. Step by
step that is SGD on the cross-entropy averaged over samples with lr = η/K and weight decay 2·K·λ, so lr·wd = 2·η·λ.
Everything is converted here, in decimal arithmetic: 20·0.0003 is 0.006, or a run would have another id.
"""

from decimal import Decimal
from typing import Literal

Units = Literal["torch", "authors"]
LABELS: dict[Units, str] = {"torch": "", "authors": "authors' units"}  # as printed on axes


def to_torch(units: Units, classes: int, *, lr: float = 0.0, l2: float = 0.0) -> tuple[float, float]:
    """(lr, l2) in PyTorch's units: cross-entropy averaged over samples, penalty (λ/2)·‖θ‖².

    >>> to_torch("authors", 10, lr=0.2, l2=0.0003)
    (0.02, 0.006)
    """
    if units == "torch":
        return lr, l2
    return float(_decimal(lr) / classes), float(_decimal(l2) * 2 * classes)


def from_torch(units: Units, classes: int, *, lr: float = 0.0, l2: float = 0.0) -> tuple[float, float]:
    """(lr, l2), of PyTorch's units, in others; anything proportional to λ, such as c = t*·λ, goes as l2.

    >>> from_torch("authors", 10, lr=0.02, l2=0.006)
    (0.2, 0.0003)
    """
    if units == "torch":
        return lr, l2
    return float(_decimal(lr) * classes), float(_decimal(l2) / (2 * classes))


def _decimal(value: float) -> Decimal:
    return Decimal(repr(float(value)))
