"""The convolutional net of figure 3, with and without batch norm."""

import math
from typing import ClassVar, Literal

from l2dyn.specs.base import Count, NaturalNumber, Positive
from l2dyn.specs.nets.base import ImageShape, NetSpec


class ConvNetSpec(NetSpec):
    """Two blocks of [3×3 convolution "same", 3×3 convolution "valid", max pooling], a dense layer and a linear readout.

    channels: of the four convolutions. pool, pool_stride: window and stride of the pooling (the paper's window of 6
    with stride 1 leaves 18×18 of a 32×32 image). batch_norm: before each ReLU. bias: of convolutions and dense layers,
    also where batch norm follows; starts at 0. Without biases and batch norm the net is 6-homogeneous.
    """

    module: ClassVar[str] = "l2dyn.nets.conv_net:ConvNet"

    kind: Literal["convnet"] = "convnet"
    channels: tuple[Count, Count, Count, Count] = (300, 300, 300, 300)
    dense: Count = 500
    pool: Count = 6
    pool_stride: Count = 1
    batch_norm: bool = False
    bias: bool = True
    norm_group: NaturalNumber = 0
    weight_std: Positive = math.sqrt(2.0)

    def sides(self, image: ImageShape) -> list[tuple[int, int]]:
        """(height, width) after each of the two blocks.

        Raises:
            ValueError: where pooling leaves nothing.
        """
        height, width, _ = image
        sides = []
        for _ in range(2):
            height, width = ((side - 2 - self.pool) // self.pool_stride + 1 for side in (height, width))
            if min(height, width) < 1:
                raise ValueError(f"images of {image[0]}×{image[1]} are too small for a pool of {self.pool}")
            sides.append((height, width))
        return sides

    def layer_flops(self, image: ImageShape, outputs: int) -> list[float]:
        """See NetSpec."""
        height, width, fan_in = image
        flops = []
        for (same, valid), pooled in zip((self.channels[:2], self.channels[2:]), self.sides(image), strict=True):
            flops.append(18.0 * fan_in * same * height * width)
            flops.append(18.0 * same * valid * (height - 2) * (width - 2))
            (height, width), fan_in = pooled, valid
        return [*flops, 2.0 * fan_in * height * width * self.dense, 2.0 * self.dense * outputs]

    def describe(self) -> str:
        """See NetSpec."""
        return f"CNN, {'' if self.batch_norm else 'no '}batch norm{'' if self.bias else ', no biases'}"
