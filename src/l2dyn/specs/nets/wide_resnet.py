"""Wide residual nets (figures 1, 2d-f and 4)."""

from typing import ClassVar, Literal

from pydantic import model_validator

from l2dyn.specs.base import Count, NaturalNumber, Positive
from l2dyn.specs.nets.base import ImageShape, NetSpec


class WideResNetSpec(NetSpec):
    """WRN-depth-width: pre-activation blocks, (depth − 4)/6 in each of three groups, the first of 16·width channels.

    Batch norm with scale and shift, over groups of `norm_group` samples.
    """

    module: ClassVar[str] = "l2dyn.nets.wide_resnet:WideResNet"

    kind: Literal["wrn"] = "wrn"
    depth: Count
    width: Count
    norm_group: NaturalNumber = 0
    weight_std: Positive = 1.0

    @model_validator(mode="after")
    def _whole_blocks(self):
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"depth: a Wide ResNet has 6n + 4 layers, n at least 1, not {self.depth}")
        return self

    @property
    def blocks(self) -> int:
        """Blocks in each group."""
        return (self.depth - 4) // 6

    def layer_flops(self, image: ImageShape, outputs: int) -> list[float]:
        """See NetSpec; a block is one entry."""
        height, width, channels = image
        flops = [18.0 * channels * 16 * height * width]
        channels = 16
        for group, stride in enumerate((1, 2, 2)):
            for block in range(self.blocks):
                out = 16 * self.width * 2**group
                if block == 0:
                    height, width = -(-height // stride), -(-width // stride)
                projected = channels != out or (block == 0 and stride > 1)
                shortcut = 2.0 * channels * out if projected else 0.0
                flops.append((18.0 * channels * out + 18.0 * out * out + shortcut) * height * width)
                channels = out
        return [*flops, 2.0 * channels * outputs]

    def describe(self) -> str:
        """See NetSpec."""
        return f"WRN-{self.depth}-{self.width}"
