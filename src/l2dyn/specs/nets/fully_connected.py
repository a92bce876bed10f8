"""Fully-connected ReLU nets (figures 2a-c and 5c)."""

import math
from itertools import pairwise
from typing import ClassVar, Literal

from l2dyn.specs.base import Count, Enumerated, Positive
from l2dyn.specs.nets.base import ImageShape, NetSpec


class FullyConnectedSpec(NetSpec):
    """`hidden_layers` layers of `width` ReLU units and a linear readout.

    parameterization "standard": weights N(0, weight_std²/fan_in), used as they are. "ntk": weights N(0, 1), multiplied
    by weight_std/√fan_in in the forward pass (section 4 of the paper). Biases start at 0.
    """

    module: ClassVar[str] = "l2dyn.nets.fully_connected:FullyConnected"
    stacked_module: ClassVar[str] = "l2dyn.nets.stacked_fully_connected:StackedFullyConnected"

    kind: Literal["fc"] = "fc"
    hidden_layers: Enumerated
    width: Count
    bias: bool = True
    parameterization: Literal["standard", "ntk"] = "standard"
    weight_std: Positive = math.sqrt(2.0)

    def widths(self, inputs: int, outputs: int) -> list[int]:
        """[inputs, width, …, width, outputs]."""
        return [inputs, *[self.width] * self.hidden_layers, outputs]

    def layer_flops(self, image: ImageShape, outputs: int) -> list[float]:
        """See NetSpec."""
        return [2.0 * a * b for a, b in pairwise(self.widths(math.prod(image), outputs))]

    def describe(self) -> str:
        """See NetSpec."""
        return f"FC of {self.hidden_layers} × {self.width}"
