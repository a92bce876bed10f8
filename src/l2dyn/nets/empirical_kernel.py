"""The neural tangent kernel of fully-connected nets as they are: Θ(x, x') = Σ_θ ∂f(x)/∂θ · ∂f(x')/∂θ."""

import torch
from torch import Tensor

from l2dyn.nets.fully_connected import StackedFullyConnected


def empirical_ntk(net: StackedFullyConnected, x1: Tensor, x2: Tensor | None = None) -> Tensor:
    """Θ of each of E nets with one output, [E, N1, N2], for inputs x1 [N1, inputs] and x2 (x1 where there is none).

    A weight's gradient is multiplier·h·δ for each sample, so a layer adds multiplier²·(h·h')·(δ·δ'), and a bias δ·δ'.
    At infinite width of bias-free nets in NTK parameterization it is `l2dyn.theory.relu_ntk`. Raises ValueError for
    nets with several outputs.
    """
    if net.weights[-1].shape[2] != 1:
        raise ValueError(f"the kernel is that of one output, the nets have {net.weights[-1].shape[2]}")
    net.materialize()
    first = _factors(net, x1)
    second = first if x2 is None else _factors(net, x2)
    kernel = torch.zeros(len(net), len(x1), len(x1 if x2 is None else x2), dtype=x1.dtype, device=x1.device)
    for (h1, d1, multiplier), (h2, d2, _) in zip(first, second, strict=True):
        products = torch.matmul(d1, d2.mT)
        kernel += products * torch.matmul(h1, h2.mT) * multiplier**2
        if net.biases:
            kernel += products
    return kernel


def _factors(net: StackedFullyConnected, x: Tensor) -> list[tuple[Tensor, Tensor, float]]:
    """Of each layer the inputs h [(E,) N, fan_in], δ = ∂f/∂(its outputs) [E, N, fan_out] and the multiplier."""
    plain = StackedFullyConnected(net.weights, net.biases, net.multipliers)  # without a span
    activations = plain.forward(x)
    parts = plain.backward(activations, torch.ones_like(activations[-1]))
    layers = len(net.weights)
    return [(left.mT, delta, multiplier) for i, left, delta, multiplier in parts if i < layers]
