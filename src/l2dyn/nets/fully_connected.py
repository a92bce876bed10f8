"""Fully-connected ReLU nets of one shape, E of them as stacked parameters, with their backward pass written out.

The backward pass hands out each layer's factors instead of a gradient, so that the optimizer can accumulate their
product straight into the parameters or the velocity: one batched matrix product a layer, and no gradient buffer.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from l2dyn.runs.spec import FullyConnectedSpec, layer_widths


class StackedFullyConnected:
    """E nets `inputs → width × hidden_layers → outputs`.

    weights[l]: [E, fan_in, fan_out], multiplied by multipliers[l] in the forward pass (1, or weight_std/√fan_in in NTK
    parameterization). biases[l]: [E, 1, fan_out]; the list is empty for a bias-free net.
    """

    def __init__(self, weights: list[Tensor], biases: list[Tensor], multipliers: list[float]):
        self.weights, self.biases, self.multipliers = weights, biases, multipliers

    @classmethod
    def initialized(
        cls, spec: FullyConnectedSpec, inputs: int, outputs: int, seeds: list[int], dtype: torch.dtype, device: str
    ) -> "StackedFullyConnected":
        """Member e drawn from seeds[e], whatever its company, precision or device."""
        drawn = {seed: draw_parameters(spec, inputs, outputs, seed) for seed in set(seeds)}
        layers = spec.hidden_layers + 1
        weights = [torch.stack([drawn[s][layer] for s in seeds]).to(device, dtype) for layer in range(layers)]
        biases = []
        if spec.bias:
            fans_out = [w.shape[2] for w in weights]
            biases = [torch.zeros(len(seeds), 1, fan_out, dtype=dtype, device=device) for fan_out in fans_out]
        return cls(weights, biases, layer_multipliers(spec, inputs))

    @property
    def parameters(self) -> list[Tensor]:
        """Weights, then biases."""
        return [*self.weights, *self.biases]

    def __len__(self) -> int:
        return self.weights[0].shape[0]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Activations of every layer, the last [E, N, outputs], for inputs x [N, inputs] (shared) or [E, N, inputs]."""
        hidden = x.expand(len(self), *x.shape) if x.dim() == 2 else x
        activations = [hidden]
        last = len(self.weights) - 1
        for layer, (weight, multiplier) in enumerate(zip(self.weights, self.multipliers, strict=True)):
            if self.biases:
                hidden = torch.baddbmm(self.biases[layer], hidden, weight, alpha=multiplier)
            else:
                hidden = torch.bmm(hidden, weight).mul_(multiplier)
            if layer < last:
                hidden = hidden.relu_()
            activations.append(hidden)
        return activations

    def backward(self, activations: list[Tensor], delta: Tensor) -> Iterator[tuple[int, Tensor, Tensor, float]]:
        """From ∂L/∂output `delta` [E, N, outputs], yield (layer, hᵀ, δ, multiplier) from the last layer to the first.

        The gradient of weights[layer] is multiplier · hᵀ δ, that of biases[layer] the sum of δ over samples. δ of the
        layer below is computed before a layer is handed out, so the caller may update its parameters at once.
        """
        for layer in reversed(range(len(self.weights))):
            below = None
            if layer > 0:
                below = torch.bmm(delta, self.weights[layer].mT)
                if self.multipliers[layer] != 1.0:
                    below.mul_(self.multipliers[layer])
                below.mul_(activations[layer] > 0)
            yield layer, activations[layer].mT, delta, self.multipliers[layer]
            delta = below

    def norms(self) -> Tensor:
        """‖θ‖ of each member, [E], in float64."""
        squares = sum(p.to(torch.float64).square().sum(dim=(1, 2)) for p in self.parameters)
        return squares.sqrt()

    def keep(self, members: Tensor) -> None:
        """Drop all but these members (indices)."""
        self.weights = [w[members] for w in self.weights]
        self.biases = [b[members] for b in self.biases]


def layer_multipliers(spec: FullyConnectedSpec, inputs: int) -> list[float]:
    """What each layer's weights are multiplied by in the forward pass."""
    fans_in = layer_widths(spec, inputs, 1)[:-1]
    if spec.parameterization == "ntk":
        return [spec.weight_std / math.sqrt(fan_in) for fan_in in fans_in]
    return [1.0] * len(fans_in)


def draw_parameters(spec: FullyConnectedSpec, inputs: int, outputs: int, seed: int) -> list[Tensor]:
    """Initial weights [fan_in, fan_out] of each layer, float32 on the CPU.

    N(0, weight_std²/fan_in) in the standard parameterization, N(0, 1) in the NTK one.
    """
    generator = torch.Generator().manual_seed(seed)
    widths = layer_widths(spec, inputs, outputs)
    weights = []
    for fan_in, fan_out in pairwise(widths):
        std = 1.0 if spec.parameterization == "ntk" else spec.weight_std / math.sqrt(fan_in)
        weights.append(torch.randn(fan_in, fan_out, generator=generator, dtype=torch.float32) * std)
    return weights


def cross_entropy(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, error) of each member, [E]: softmax cross-entropy, mean over samples, and the fraction misclassified.

    outputs: [E, N, classes]; labels: class indices [N] or [E, N].
    """
    labels = labels.expand(outputs.shape[:2])
    chosen = outputs.gather(2, labels[..., None]).squeeze(2)
    loss = (outputs.logsumexp(dim=2) - chosen).mean(dim=1)
    return loss, (outputs.argmax(dim=2) != labels).to(outputs.dtype).mean(dim=1)


def cross_entropy_delta(outputs: Tensor, labels: Tensor) -> Tensor:
    """∂loss/∂outputs of `cross_entropy`, [E, N, classes]."""
    labels = labels.expand(outputs.shape[:2])
    delta = outputs.softmax(dim=2)
    delta.scatter_add_(2, labels[..., None], torch.full_like(delta[..., :1], -1.0))
    return delta.div_(outputs.shape[1])


def half_mse(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, error) of each member, [E]: ½·Σ_outputs (f − y)², mean over samples, and the fraction of wrong signs.

    outputs: [E, N, C]; targets: [N, C] or [E, N, C]. With several outputs the error is that of the largest one.
    """
    targets = targets.expand(outputs.shape)
    loss = 0.5 * (outputs - targets).square().sum(dim=2).mean(dim=1)
    if outputs.shape[2] == 1:
        wrong = outputs.sign() != targets.sign()
        return loss, wrong.squeeze(2).to(outputs.dtype).mean(dim=1)
    wrong = outputs.argmax(dim=2) != targets.argmax(dim=2)
    return loss, wrong.to(outputs.dtype).mean(dim=1)


def half_mse_delta(outputs: Tensor, targets: Tensor) -> Tensor:
    """∂loss/∂outputs of `half_mse`, [E, N, C]."""
    return (outputs - targets).div_(outputs.shape[1])
