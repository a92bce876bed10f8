"""Wide residual nets with pre-activation (Zagoruyko & Komodakis, 2016)."""

import torch
from torch import Tensor, nn

from l2dyn.nets.batch_norm import GroupedBatchNorm
from l2dyn.specs.nets import ImageShape, WideResNetSpec


class WideResNet(nn.Module):
    """WRN-depth-k: a 3×3 convolution to 16 channels, three groups of blocks with 16k, 32k and 64k channels, a readout.

    Each group has (depth − 4)/6 blocks; the first block of the second and third group halves the image. Batch norm,
    ReLU and the mean over pixels precede the linear readout. Convolutions have no biases. image_shape: height, width,
    channels.
    """

    def __init__(self, spec: WideResNetSpec, image_shape: ImageShape, outputs: int):
        super().__init__()
        self.stem = _convolution(image_shape[2], 16)
        groups = []
        fan_in = 16
        for channels, stride in ((16 * spec.width, 1), (32 * spec.width, 2), (64 * spec.width, 2)):
            first = _Block(spec, fan_in, channels, stride)
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
    """x + conv(relu(norm(conv(relu(norm(x)))))); where the shape changes, x is the projected pre-activation instead."""

    def __init__(self, spec: WideResNetSpec, fan_in: int, channels: int, stride: int):
        super().__init__()
        self.norm1 = _norm(spec, fan_in)
        self.conv1 = _convolution(fan_in, channels, stride=stride)
        self.norm2 = _norm(spec, channels)
        self.conv2 = _convolution(channels, channels)
        same_shape = fan_in == channels and stride == 1
        self.shortcut = None if same_shape else _convolution(fan_in, channels, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, fan_in, H, W]; returns [N, channels, H/stride, W/stride], rounded up."""
        # not in place: that costs a copy on the views of the grouped norm, and backward keeps as much either way
        hidden = torch.relu(self.norm1(x))
        skipped = x if self.shortcut is None else self.shortcut(hidden)
        hidden = torch.relu(self.norm2(self.conv1(hidden)))
        return self.conv2(hidden) + skipped


def _convolution(fan_in: int, channels: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(fan_in, channels, size, stride=stride, padding=size // 2, bias=False)


def _norm(spec: WideResNetSpec, channels: int) -> GroupedBatchNorm:
    return GroupedBatchNorm(channels, spec.norm_group)
