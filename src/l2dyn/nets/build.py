"""From a model's spec to an initialized PyTorch module."""

import torch
from torch import nn

from l2dyn.nets.conv_net import ConvNet
from l2dyn.nets.initialization import initialize
from l2dyn.nets.wide_resnet import WideResNet
from l2dyn.runs.spec import ConvNetSpec, WideResNetSpec

NETS: dict[type, type[nn.Module]] = {ConvNetSpec: ConvNet, WideResNetSpec: WideResNet}


def build_net(
    spec: ConvNetSpec | WideResNetSpec, image_shape: tuple[int, int, int], outputs: int, seed: int
) -> nn.Module:
    """The net of a spec, drawn from `seed`: float32, on the CPU, in channels_last memory format.

    image_shape: height, width, channels; the net takes images [N, channels, height, width] and returns [N, outputs].
    Raises TypeError for a spec of another kind, ValueError for one that fits no net or not these images.
    """
    if type(spec) not in NETS:
        raise TypeError(f"{type(spec).__name__} is not the spec of a convolutional net")
    with torch.device("meta"):  # PyTorch's own initialization would cost time and move the global generator
        net = NETS[type(spec)](spec, image_shape, outputs)
    net = net.to_empty(device="cpu").to(memory_format=torch.channels_last)
    initialize(net, spec.weight_std, seed)
    return net
