"""Initial parameters of the nets that are PyTorch modules."""

import math

import torch
from torch import nn

from l2dyn.nets.batch_norm import GroupedBatchNorm


@torch.no_grad()
def initialize(module: nn.Module, weight_std: float, seed: int) -> None:
    """Weights of convolutions and linear layers from N(0, weight_std²/fan_in), biases 0, batch norm scale 1, shift 0.

    Drawn in float32 on the CPU in the order of module.modules(), so one seed gives the same net on any device and, up
    to rounding, in any precision.

    Raises:
        TypeError: for a layer of another kind that has parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            std = weight_std / math.sqrt(layer.weight[0].numel())
            drawn = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float32, device="cpu")
            layer.weight.copy_(drawn.mul_(std))
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, GroupedBatchNorm):
            layer.reset_parameters()
        elif next(layer.parameters(recurse=False), None) is not None:
            raise TypeError(f"no initialization for {type(layer).__name__}")
