"""From a net's spec to an initialized PyTorch module."""

import torch
from torch import nn

from l2dyn.nets.initialization import initialize
from l2dyn.specs.base import imported
from l2dyn.specs.nets import ImageShape, NetSpec


def build_net(spec: NetSpec, image_shape: ImageShape, outputs: int, seed: int) -> nn.Module:
    """The net of a spec, drawn from `seed`: float32, on the CPU, in channels_last memory format.

    image_shape: height, width, channels; the net takes images [N, channels, height, width] and returns [N, outputs]. A
    module with a method `initialize(seed)` draws its own parameters, any other as l2dyn.nets.initialization does.

    Raises:
        ValueError: for a spec that does not fit these images.
        TypeError: for a layer without a rule.
    """
    with torch.device("meta"):  # PyTorch's own initialization would cost time and move the global generator
        net = imported(spec.module)(spec, image_shape, outputs)
    net = net.to_empty(device="cpu").to(memory_format=torch.channels_last)
    if hasattr(net, "initialize"):
        net.initialize(seed)
    else:
        initialize(net, spec.weight_std, seed)
    return net
