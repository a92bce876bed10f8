"""Wide residual nets with pre-activation (Zagoruyko & Komodakis, 2016), and the paper's authors' variant of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2dyn.nets.batch_norm import GroupedBatchNorm
from l2dyn.specs.nets import ImageShape, WideResNetSpec


class WideResNet(nn.Module):
    """WRN-depth-k: a 3×3 convolution to 16 channels, three groups of blocks with 16k, 32k and 64k channels, a readout.

    Each group has (depth − 4)/6 blocks; the first block of the second and third group halves the image. Batch norm,
    ReLU and the mean over pixels precede the linear readout. image_shape: height, width, channels. See the spec for
    shortcuts, biases and padding.
    """

    def __init__(self, spec: WideResNetSpec, image_shape: ImageShape, outputs: int):
        super().__init__()
        self.stem = _convolution(spec, image_shape[2], 16)
        groups = []
        fan_in = 16
        for channels, stride in ((16 * spec.width, 1), (32 * spec.width, 2), (64 * spec.width, 2)):
            first = _Block(spec, fan_in, channels, stride, first=True)
            groups.append(nn.Sequential(first, *[_Block(spec, channels, channels, 1) for _ in range(spec.blocks - 1)]))
            fan_in = channels
        self.groups = nn.Sequential(*groups)
        self.norm = _norm(spec, fan_in)
        self.readout = nn.Linear(fan_in, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, channels, height, width]; returns [N, outputs]."""
        hidden = torch.relu(self.norm(self.groups(self.stem(images))))
        return self.readout(hidden.mean(dim=(2, 3)))


class _Block(nn.Module):
    """shortcut + conv(relu(norm(conv(relu(norm(x)))))); the shortcut is x, projected in a group's first block."""

    def __init__(self, spec: WideResNetSpec, fan_in: int, channels: int, stride: int, first: bool = False):
        super().__init__()
        self.norm1 = _norm(spec, fan_in)
        self.conv1 = _convolution(spec, fan_in, channels, stride=stride)
        self.norm2 = _norm(spec, channels)
        self.conv2 = _convolution(spec, channels, channels)
        self.of_raw_input = spec.shortcut == "3x3"
        self.shortcut = None
        if self.of_raw_input and first:
            self.shortcut = _convolution(spec, fan_in, channels, stride=stride)
        elif fan_in != channels or stride > 1:
            self.shortcut = _convolution(spec, fan_in, channels, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, fan_in, H, W]; returns [N, channels, H/stride, W/stride], rounded up."""
        # not in place: that costs a copy on the views of the grouped norm, and backward keeps as much either way
        hidden = torch.relu(self.norm1(x))
        skipped = x if self.shortcut is None else self.shortcut(x if self.of_raw_input else hidden)
        hidden = torch.relu(self.norm2(self.conv1(hidden)))
        return self.conv2(hidden) + skipped


class _SamePadded(nn.Conv2d):
    """A convolution with ⌈size/stride⌉ outputs a side; of an odd padding the larger half lies after the pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, channels, H, W]."""
        sides = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, sides))


def _convolution(spec: WideResNetSpec, fan_in: int, channels: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    if spec.padding == "same" and stride > 1:
        return _SamePadded(fan_in, channels, size, stride=stride, bias=spec.bias)
    return nn.Conv2d(fan_in, channels, size, stride=stride, padding=size // 2, bias=spec.bias)


def _norm(spec: WideResNetSpec, channels: int) -> GroupedBatchNorm:
    return GroupedBatchNorm(channels, spec.norm_group)
