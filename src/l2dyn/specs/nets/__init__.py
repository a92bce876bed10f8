"""The kinds of net: a new one is a spec in this folder, its module in l2dyn/nets, and its name in NETS below."""

from l2dyn.specs.base import one_of
from l2dyn.specs.nets.base import ImageShape, NetSpec
from l2dyn.specs.nets.conv_net import ConvNetSpec
from l2dyn.specs.nets.fully_connected import FullyConnectedSpec
from l2dyn.specs.nets.wide_resnet import WideResNetSpec

NETS = (FullyConnectedSpec, ConvNetSpec, WideResNetSpec)
AnyNetSpec = one_of(*NETS)

__all__ = ["NETS", "AnyNetSpec", "ConvNetSpec", "FullyConnectedSpec", "ImageShape", "NetSpec", "WideResNetSpec"]
