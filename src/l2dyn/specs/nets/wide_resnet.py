"""Wide residual nets (figures 1, 2d-f and 4)."""

from typing import ClassVar, Literal

from pydantic import model_validator

from l2dyn.specs.base import Count, Enumerated, NaturalNumber, Positive
from l2dyn.specs.nets.base import ImageShape, NetSpec


class WideResNetSpec(NetSpec):
    """WRN-depth-width: pre-activation blocks, (depth − 4)/6 in each of three groups, the first of 16·width channels.

    Batch norm with scale and shift, over groups of `norm_group` samples; on the test set over groups of
    `test_norm_group` (0: of as many). Where a block changes the shape, its shortcut is a 1×1 convolution of the
    pre-activation; `shortcut` "3x3" is the authors': a 3×3 convolution of the raw input, in each group's first block.
    bias: whether convolutions have one. padding: of strided convolutions, 1 on every side, or "same": all of it after
    the pixels where it is odd, as JAX and TensorFlow have it. `authors_wide_resnet` in the tests is theirs in NumPy.
    """

    module: ClassVar[str] = "l2dyn.nets.wide_resnet:WideResNet"

    kind: Literal["wrn"] = "wrn"
    depth: Enumerated
    width: Count
    norm_group: NaturalNumber = 0
    test_norm_group: NaturalNumber = 0
    shortcut: Literal["1x1", "3x3"] = "1x1"
    bias: bool = False
    padding: Literal["symmetric", "same"] = "symmetric"
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
                projected = block == 0 and (channels != out or stride > 1 or self.shortcut == "3x3")
                shortcut = (18.0 if self.shortcut == "3x3" else 2.0) * channels * out if projected else 0.0
                flops.append((18.0 * channels * out + 18.0 * out * out + shortcut) * height * width)
                channels = out
        return [*flops, 2.0 * channels * outputs]

    def describe(self) -> str:
        """See NetSpec."""
        return f"WRN-{self.depth}-{self.width}"
