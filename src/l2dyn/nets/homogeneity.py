"""How nearly a network is homogeneous in its parameters, f(aθ) = a^k f(θ), which Theorem 1 assumes (section 4).

With D = θ·∇, Euler's identity says Df = k f. k̂ = ⟨Df, f⟩/⟨f, f⟩ is the best k, and the residual what no k explains,
|Df - k̂f| over the larger of |Df| and |f| (for k = 0, Df is nothing but rounding). At zero biases a net with biases
satisfies the identity by accident, so they are drawn first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

EXACT = 1e-6  # a residual below this is rounding: Theorem 1 applies


@dataclass(frozen=True)
class HomogeneityReport:
    """k̂, the residual, and f(θ/2) and f(2θ) along f(θ), which are 2^-k and 2^k for a homogeneous net."""

    k: float
    residual: float
    half: float
    double: float

    @property
    def homogeneous(self) -> bool:
        """Whether Theorem 1 applies, to rounding."""
        return self.residual < EXACT


def homogeneity(
    function: Callable[[Mapping[str, Tensor], Tensor], Tensor], parameters: Mapping[str, Tensor], inputs: Tensor
) -> HomogeneityReport:
    """The report of f = function(parameters, inputs), over all outputs of all inputs; parameters are those that train.

    Best in float64.

    Raises:
        ValueError: where f is 0 everywhere.

    >>> linear = lambda p, x: x @ p["weight"]
    >>> report = homogeneity(linear, {"weight": torch.ones(3, 1)}, torch.ones(5, 3))
    >>> report.k, report.residual, report.half, report.double
    (1.0, 0.0, 0.5, 2.0)
    """
    parameters = dict(parameters)
    f, derivative = torch.func.jvp(lambda p: function(p, inputs), (parameters,), (parameters,))
    square = float((f * f).sum())
    if square == 0:
        raise ValueError("the function is 0 on all inputs")
    k = float((derivative * f).sum()) / square
    residual = float((derivative - k * f).norm()) / max(float(derivative.norm()), square**0.5)

    def along(scale: float) -> float:
        return float((function({n: scale * p for n, p in parameters.items()}, inputs) * f).sum()) / square

    return HomogeneityReport(k, residual, along(0.5), along(2.0))
