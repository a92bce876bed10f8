"""The convolutional net of figure 3, with and without batch norm."""

from torch import Tensor, nn

from l2dyn.nets.batch_norm import GroupedBatchNorm
from l2dyn.runs.spec import ConvNetSpec


class ConvNet(nn.Module):
    """Twice [3×3 convolution "same", 3×3 convolution "valid", max pooling], then a dense layer and a linear readout.

    [Batch norm and] ReLU follow each convolution and the dense layer; biases everywhere. image_shape: height, width,
    channels. Raises ValueError for other than four convolutions and for an image that pooling leaves nothing of.
    """

    def __init__(self, spec: ConvNetSpec, image_shape: tuple[int, int, int], outputs: int):
        super().__init__()
        if len(spec.channels) != 4:
            raise ValueError(f"a ConvNet has four convolutions, not {len(spec.channels)}: {spec.channels}")
        height, width, fan_in = image_shape
        layers: list[nn.Module] = []
        for same, valid in (spec.channels[:2], spec.channels[2:]):
            layers += [nn.Conv2d(fan_in, same, 3, padding=1), *_activation(spec, same)]
            layers += [nn.Conv2d(same, valid, 3), *_activation(spec, valid)]
            layers += [nn.MaxPool2d(spec.pool, spec.pool_stride)]
            height, width = (_pooled(side - 2, spec) for side in (height, width))
            if min(height, width) < 1:
                raise ValueError(f"images of {image_shape[0]}×{image_shape[1]} are too small for a pool of {spec.pool}")
            fan_in = valid
        self.features = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Linear(fan_in * height * width, spec.dense), *_activation(spec, spec.dense))
        self.readout = nn.Linear(spec.dense, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, channels, height, width]; returns [N, outputs]."""
        return self.readout(self.dense(self.features(images).flatten(1)))


def _activation(spec: ConvNetSpec, channels: int) -> list[nn.Module]:
    norm = [GroupedBatchNorm(channels, spec.norm_group, spec.norm_statistics)] if spec.batch_norm else []
    return [*norm, nn.ReLU()]


def _pooled(side: int, spec: ConvNetSpec) -> int:
    """What pooling leaves of `side` pixels, 0 if the window does not fit."""
    return (side - spec.pool) // spec.pool_stride + 1 if side >= spec.pool else 0
