"""The kernel of any module: against gradients taken one by one, and against the formula of fully-connected nets."""

import pytest
import torch
from torch import nn

from l2dyn.nets.batch_norm import GroupedBatchNorm
from l2dyn.nets.build import build_net
from l2dyn.nets.module_ntk import module_ntk
from l2dyn.nets.ntk import empirical_ntk
from l2dyn.nets.stacked_fully_connected import StackedFullyConnected
from l2dyn.specs.nets import ConvNetSpec, FullyConnectedSpec

CONV = ConvNetSpec(channels=(3, 4, 4, 5), dense=7, pool=2, pool_stride=2)


def images(count, seed=0):
    return torch.randn(count, 1, 14, 14, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_by_one(net, x1, x2):
    """Θ from a backward pass for each output of each sample of the whole batch."""
    parameters = [p for p in net.parameters() if p.requires_grad]

    def gradients(x):
        outputs = net(x).flatten(1)
        rows = [[torch.autograd.grad(f, parameters, retain_graph=True) for f in sample] for sample in outputs]
        return torch.stack([torch.stack([torch.cat([g.flatten() for g in of]) for of in row]) for row in rows])

    return torch.einsum("ncp,mcp->nm", gradients(x1), gradients(x2)) / net(x1).flatten(1).shape[1]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("chunk", [None, 2])
def test_a_cnn_against_gradients_one_by_one(batch_norm, chunk):
    net = build_net(CONV.model_copy(update={"batch_norm": batch_norm}), (14, 14, 1), 3, 0).double()
    x1, x2 = images(5), images(4, seed=1)
    torch.testing.assert_close(module_ntk(net, x1, x2, chunk), one_by_one(net, x1, x2), rtol=1e-9, atol=1e-9)
    kernel = module_ntk(net, x1)
    torch.testing.assert_close(kernel, kernel.mT)


@pytest.mark.parametrize("outputs", [1, 3])
def test_fully_connected_nets_have_the_kernel_of_the_formula(outputs):
    spec = FullyConnectedSpec(hidden_layers=2, width=9, parameterization="ntk")
    net = build_net(spec, (14, 14, 1), outputs, 3).double()
    x = images(6)
    stack = StackedFullyConnected.initialized(spec, 196, outputs, [3], torch.float64, "cpu")
    torch.testing.assert_close(net(x), stack.forward(x.flatten(1))[-1][0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(module_ntk(net, x), empirical_ntk(stack, x.flatten(1))[0], rtol=1e-5, atol=1e-5)


def test_frozen_parameters_do_not_count_and_buffers_stay():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).double()
    for p in net[0].parameters():
        p.requires_grad_(False)
    x = torch.randn(6, 4, dtype=torch.float64)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.eval()
    torch.testing.assert_close(module_ntk(net, x), one_by_one(net, x, x))
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, before[name])


def test_groups_of_samples_that_are_normalized_together():
    net = nn.Sequential(nn.Flatten(), nn.Linear(196, 5), GroupedBatchNorm(5, group=3), nn.Linear(5, 1)).double()
    x = images(6)
    kernel = module_ntk(net, x)
    torch.testing.assert_close(kernel, one_by_one(net, x, x))
    torch.testing.assert_close(kernel[:3, :3], module_ntk(net, x[:3]))


def test_a_net_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="no parameter"):
        module_ntk(nn.ReLU(), torch.ones(2, 3))
