"""One fully-connected ReLU net as a module, and the draws of its initial weights, which the stacked nets share."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from l2dyn.specs.nets import FullyConnectedSpec, ImageShape


class FullyConnected(nn.Module):
    """`inputs → width × hidden_layers → outputs`: the same function as a member of StackedFullyConnected.

    weights[l]: [fan_in, fan_out], multiplied by multipliers[l] in the forward pass (1, or weight_std/√fan_in in the NTK
    parameterization). biases[l]: [fan_out]; the list is empty for a net without biases. image_shape: height, width,
    channels.
    """

    def __init__(self, spec: FullyConnectedSpec, image_shape: ImageShape, outputs: int):
        super().__init__()
        self.spec, self.inputs, self.outputs = spec, math.prod(image_shape), outputs
        layers = list(pairwise(spec.widths(self.inputs, outputs)))
        self.multipliers = layer_multipliers(spec, self.inputs)
        self.weights = nn.ParameterList([torch.empty(fan_in, fan_out) for fan_in, fan_out in layers])
        self.biases = nn.ParameterList([torch.empty(fan_out) for _, fan_out in layers] if spec.bias else [])

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Weights as `draw_parameters` draws them, biases 0."""
        drawn = draw_parameters(self.spec, self.inputs, self.outputs, seed)
        for weight, values in zip(self.weights, drawn, strict=True):
            weight.copy_(values)
        for bias in self.biases:
            bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, channels, height, width]; returns [N, outputs]."""
        hidden = images.movedim(1, -1).flatten(1)  # a pixel's channels are neighbours, as in l2dyn.data.samples.inputs
        for layer, weight in enumerate(self.weights):
            hidden = hidden @ weight * self.multipliers[layer]
            if self.spec.bias:
                hidden = hidden + self.biases[layer]
            if layer < self.spec.hidden_layers:
                hidden = hidden.relu()
        return hidden


def layer_multipliers(spec: FullyConnectedSpec, inputs: int) -> list[float]:
    """What each layer's weights are multiplied by in the forward pass."""
    fans_in = spec.widths(inputs, 1)[:-1]
    if spec.parameterization == "ntk":
        return [spec.weight_std / math.sqrt(fan_in) for fan_in in fans_in]
    return [1.0] * len(fans_in)


def draw_parameters(spec: FullyConnectedSpec, inputs: int, outputs: int, seed: int) -> list[Tensor]:
    """Initial weights [fan_in, fan_out] of each layer, float32 on the CPU.

    N(0, weight_std²/fan_in) in the standard parameterization, N(0, 1) in the NTK one.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = []
    for fan_in, fan_out in pairwise(spec.widths(inputs, outputs)):
        std = 1.0 if spec.parameterization == "ntk" else spec.weight_std / math.sqrt(fan_in)
        weights.append(torch.randn(fan_in, fan_out, generator=generator, dtype=torch.float32) * std)
    return weights
