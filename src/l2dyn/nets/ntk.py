"""The neural tangent kernel of fully-connected nets as they are: Θ(x, x') = Σ_θ ∂f(x)/∂θ · ∂f(x')/∂θ."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from l2dyn.nets.stacked_fully_connected import StackedFullyConnected
from l2dyn.specs.nets import FullyConnectedSpec


def empirical_ntk(net: StackedFullyConnected, x1: Tensor, x2: Tensor | None = None) -> Tensor:
    """Θ of each of E nets, [E, N1, N2], for inputs x1 [N1, inputs] and x2 [N2, inputs] (x1 where there is none).

    A weight's gradient is multiplier·h·δ for each sample, so a layer adds multiplier²·(h·h')·(δ·δ'), and a bias δ·δ'.
    At infinite width of bias-free nets in NTK parameterization it is `l2dyn.theory.relu_ntk`. With C outputs it is the
    mean of their C kernels: there Θ ⊗ 1 is the whole.
    """
    net.materialize()
    outputs = net.weights[-1].shape[2]
    kernel = torch.zeros(len(net), len(x1), len(x1 if x2 is None else x2), dtype=x1.dtype, device=x1.device)
    for output in range(outputs):
        first = _factors(net, x1, output)
        second = first if x2 is None else _factors(net, x2, output)
        for (h1, d1, multiplier), (h2, d2, _) in zip(first, second, strict=True):
            products = torch.matmul(d1, d2.mT)
            kernel += products * torch.matmul(h1, h2.mT) * multiplier**2
            if net.biases:
                kernel += products
    return kernel / outputs


def norm_and_rotation(kernel: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """‖Θ‖, Frobenius, and how far Θ has turned from Θ₀, 1 − ⟨Θ, Θ₀⟩/(‖Θ‖·‖Θ₀‖), [(E,)]; kernel, first: [(E,) N, N].

    A kernel whose norm is 0, as of a net whose ReLUs are all off, points nowhere: its rotation is NaN.
    """
    norm, initial = kernel.norm(dim=(-2, -1)), first.norm(dim=(-2, -1))
    rotation = 1.0 - (kernel * first).sum(dim=(-2, -1)) / (norm * initial)
    return norm, torch.where(norm * initial > 0, rotation, torch.nan)  # squares may be too small for a norm: x/0


def as_drawn(
    spec: FullyConnectedSpec, outputs: int, seed: int, *inputs: np.ndarray
) -> tuple[list[np.ndarray], Callable[[int, int], np.ndarray]]:
    """A net before training: f(0) on each set of inputs [N, features], and Θ between two of the sets by their numbers.

    All float64; f(0) [N, outputs].
    """
    tensors = [torch.from_numpy(np.ascontiguousarray(x)) for x in inputs]
    net = StackedFullyConnected.initialized(spec, tensors[0].shape[1], outputs, [seed], torch.float64, "cpu")
    functions = [net.forward(x)[-1][0].numpy() for x in tensors]
    return functions, lambda i, j: empirical_ntk(net, tensors[i], tensors[j])[0].numpy()


def _factors(net: StackedFullyConnected, x: Tensor, output: int) -> list[tuple[Tensor, Tensor, float]]:
    """Of each layer the inputs h [(E,) N, fan_in], δ = ∂f_output/∂(its outputs) [E, N, fan_out] and the multiplier."""
    plain = StackedFullyConnected(net.weights, net.biases, net.multipliers)  # without a span
    activations = plain.forward(x)
    delta = torch.zeros_like(activations[-1])
    delta[..., output] = 1.0
    layers = len(net.weights)
    return [(left.mT, delta, m) for i, left, delta, m in plain.backward(activations, delta) if i < layers]
