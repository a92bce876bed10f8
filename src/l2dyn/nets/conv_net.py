"""The convolutional net of figure 3, with and without batch norm."""

from torch import Tensor, nn

from l2dyn.nets.batch_norm import GroupedBatchNorm
from l2dyn.specs.nets import ConvNetSpec, ImageShape


class ConvNet(nn.Module):
    """Twice [3×3 convolution "same", 3×3 convolution "valid", max pooling], then a dense layer and a linear readout.

    [Batch norm and] ReLU follow each convolution and the dense layer. image_shape: height, width, channels. Raises
    ValueError for images so small that pooling leaves no pixel.
    """

    def __init__(self, spec: ConvNetSpec, image_shape: ImageShape, outputs: int):
        super().__init__()
        fan_in = image_shape[2]
        layers: list[nn.Module] = []
        for same, valid in (spec.channels[:2], spec.channels[2:]):
            layers += [nn.Conv2d(fan_in, same, 3, padding=1, bias=spec.bias), *_activation(spec, same)]
            layers += [nn.Conv2d(same, valid, 3, bias=spec.bias), *_activation(spec, valid)]
            layers += [nn.MaxPool2d(spec.pool, spec.pool_stride)]
            fan_in = valid
        self.features = nn.Sequential(*layers)
        height, width = spec.sides(image_shape)[-1]
        flat = fan_in * height * width
        self.dense = nn.Sequential(nn.Linear(flat, spec.dense, spec.bias), *_activation(spec, spec.dense))
        self.readout = nn.Linear(spec.dense, outputs, spec.bias)

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, channels, height, width]; returns [N, outputs]."""
        return self.readout(self.dense(self.features(images).flatten(1)))


def _activation(spec: ConvNetSpec, channels: int) -> list[nn.Module]:
    norm = [GroupedBatchNorm(channels, spec.norm_group)] if spec.batch_norm else []
    return [*norm, nn.ReLU()]
