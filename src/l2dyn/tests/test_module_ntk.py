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


class Named(nn.Module):
    """What many libraries return: not the outputs, but something that holds them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return {"logits": self.layer(x)}


@pytest.mark.parametrize("chunk", [None, 2])
def test_whole_numbers_into_an_embedding(chunk):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(7, 5), nn.Flatten(), nn.Linear(15, 2)).double()
    words, others = torch.randint(7, (5, 3)), torch.randint(7, (4, 3))
    kernel = module_ntk(net, words, others, chunk)
    assert kernel.dtype == torch.float64
    torch.testing.assert_close(kernel, one_by_one(net, words, others))


def test_an_embedding_against_its_formula():
    """f = a·e(word): Θ = |a|²·[same word] + e·e'."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(4, 6), nn.Linear(6, 1, bias=False)).double()
    words = torch.tensor([0, 1, 1, 3])
    vectors = net[0](words).detach()
    same = (words[:, None] == words).double()
    torch.testing.assert_close(
        module_ntk(net, words), net[1].weight.square().sum().item() * same + vectors @ vectors.mT
    )


def test_a_net_with_one_output_may_return_it_without_an_axis():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0))
    x = torch.randn(5, 3)
    assert net(x).shape == (5,)
    torch.testing.assert_close(module_ntk(net, x), module_ntk(net[:3], x))
    torch.testing.assert_close(module_ntk(net, x[:1]), module_ntk(net, x)[:1, :1])


@pytest.mark.parametrize(
    ("net", "got"),
    [
        (Named(), "got dict"),
        (nn.Sequential(nn.Linear(3, 2), nn.Flatten(0)), r"for 2 samples, got shape \(4,\)"),
    ],
)
def test_what_is_no_tensor_of_outputs_is_refused(net, got):
    with pytest.raises(ValueError, match=rf"^net must return a Tensor \[N, …\] .*{got}"):
        module_ntk(net, torch.ones(5, 3))


class Attends(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.heads = nn.MultiheadAttention(4, 2, dropout=dropout, batch_first=True)

    def forward(self, x):
        return self.heads(x, x, x, need_weights=False)[0].mean((1, 2))


@pytest.mark.parametrize(
    ("make", "shape", "name"),
    [
        (lambda p: nn.Sequential(nn.Linear(3, 8), nn.Dropout(p), nn.Linear(8, 1)), (3,), "1"),
        (lambda p: nn.Sequential(nn.Linear(3, 8), nn.SELU(), nn.AlphaDropout(p)), (3,), "2"),
        (Attends, (6, 4), "heads"),
    ],
)
def test_active_dropout_is_refused(make, shape, name):
    """The kernel would be another one at every call."""
    torch.manual_seed(0)
    net, x = make(0.5), torch.randn(5, *shape)
    with pytest.raises(ValueError, match=rf"^net has active dropout, {name}; call net\.eval\(\) first"):
        module_ntk(net, x)
    kernel = module_ntk(net.eval(), x)
    torch.testing.assert_close(kernel, kernel.mT)
    module_ntk(make(0.0), x)  # in training mode, but nothing is dropped
